"""Training: folds, the step, the epoch and the loop."""
