"""PyTorch trainers of the same models, to compare with; an optional extra, `bench`.

`pipeline` works as the official code does, `careful` as well as we know how to.
"""
