"""Runs of more machines than fit in memory, in waves."""
