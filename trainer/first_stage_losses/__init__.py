"""Dense predictions and ground truth to the named losses of a first stage, a file per kind."""
