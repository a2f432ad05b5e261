"""Replaces numbers that JSON lacks."""

import math
from collections.abc import Mapping
from typing import Any


def finite(value: float) -> float | None:
    """Return the number, or None (null in JSON) if it is not finite."""
    return value if math.isfinite(value) else None


def with_none(tree: Any) -> Any:
    """Replace the numbers in nested data that are not finite with None."""
    if isinstance(tree, Mapping):
        return {name: with_none(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [with_none(value) for value in tree]
    return finite(tree) if isinstance(tree, float) else tree
