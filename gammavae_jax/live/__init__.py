"""Live monitoring: a watch on a folder, and a server with a live page."""
