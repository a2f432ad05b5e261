"""Run a function of one model for every machine, seed and fold."""
