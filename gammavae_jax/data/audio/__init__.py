"""Finds recordings in folders and archives, and reads and checks their samples."""
