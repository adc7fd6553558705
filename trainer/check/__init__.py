"""`cn2 train --check`: data sets looked at before a training, in seconds."""
