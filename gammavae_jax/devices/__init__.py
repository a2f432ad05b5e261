"""Run one function of one model for every machine, seed and fold."""
