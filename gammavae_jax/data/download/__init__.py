"""The challenge's datasets: what there is, and its download."""
