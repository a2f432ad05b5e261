"""The challenge's metrics of every year, its tables and files."""
