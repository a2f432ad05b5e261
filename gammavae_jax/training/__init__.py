"""Training: the split into folds, a step, an epoch, the loop."""
