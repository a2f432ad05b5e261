"""Loads a user's own recordings: files, folders and arrays, cut into clips."""
