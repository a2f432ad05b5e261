"""Benchmarks for any device; run the scripts `bench_*.py` from the repository root."""
