"""A small built-in set of seven synthetic machines."""
