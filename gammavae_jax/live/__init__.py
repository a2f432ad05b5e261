"""Live monitoring: a watched folder, and a server with its page."""
