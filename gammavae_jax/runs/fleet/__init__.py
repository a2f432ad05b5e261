"""Fleets: runs whose machines do not all fit in memory and are trained in waves."""
