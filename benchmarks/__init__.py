"""Timing on any device; the scripts are `bench_*.py`, run from the repository root."""
