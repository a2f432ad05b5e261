"""Spreads all models over the devices and runs the same function on each model."""
