"""Runs a function of one model for all models, spread over devices."""
