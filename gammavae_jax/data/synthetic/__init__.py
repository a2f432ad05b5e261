"""Generates a small built-in data set of seven synthetic machines."""
