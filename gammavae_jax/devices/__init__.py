"""Runs one model's function for all models, spread over devices."""
