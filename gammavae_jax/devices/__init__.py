"""Spread models over devices: run a function of one model for all models."""
