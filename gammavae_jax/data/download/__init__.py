"""The challenge's datasets: the catalogue of archives, and their download."""
