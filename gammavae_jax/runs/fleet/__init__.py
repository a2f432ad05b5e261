"""Fleets: runs of more machines than fit in memory, trained in waves."""
