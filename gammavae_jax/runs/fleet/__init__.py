"""Fleets: runs of more machines than fit in memory, in waves."""
