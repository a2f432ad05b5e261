"""Scripts that train, score and compare machines, run from the repository root."""
