"""What a run leaves for people to look at: curves, sample pictures, TensorBoard; when to stop."""
