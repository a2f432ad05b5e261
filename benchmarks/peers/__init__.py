"""PyTorch trainers of the same models, for comparison; they need the extra `bench`.

`pipeline` works like the official code, and `careful` is as fast as we could make it.
"""
