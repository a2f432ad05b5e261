"""Runs a function written for one model on all models, spread over devices."""
