"""Turns recordings into log-mel arrays, groups them, and recognises machine states."""
