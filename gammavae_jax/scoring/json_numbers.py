"""Replaces NaN and infinite numbers, which JSON cannot represent, with None."""

import math
from collections.abc import Mapping
from typing import Any


def finite(value: float) -> float | None:
    """Return the number, or None (null in JSON) if it is not finite."""
    return value if math.isfinite(value) else None


def with_none(tree: Any) -> Any:
    """Return nested data in which None replaces every number that is not finite."""
    if isinstance(tree, Mapping):
        return {name: with_none(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [with_none(value) for value in tree]
    return finite(tree) if isinstance(tree, float) else tree
