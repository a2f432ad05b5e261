"""Recordings, in folders or archives, to log-mel arrays."""
