"""Live monitoring of machines, by watching a folder or by serving HTTP requests."""
