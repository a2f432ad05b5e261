"""Training: the split into folds, the training step, the epoch and the loop."""
