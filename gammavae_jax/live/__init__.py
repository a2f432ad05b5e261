"""Live monitoring of a folder, or by a server with a live page."""
