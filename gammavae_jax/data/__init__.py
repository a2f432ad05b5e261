"""Finds recordings in folders or archives and turns them into log-mel arrays."""
