"""Configurations as JSON and back, and changed field by field."""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal

from gammavae_jax.config import Config
from gammavae_jax.errors import InputError, unknown_name


def override(config: Config, assignments: Sequence[str]) -> Config:
    """Apply `dotted.field=value` texts, as `--set` takes them.

    Values are JSON, or bare words where a text is meant: `train.epochs=5`,
    `model.hidden=[64,64]`, `model.heads=softmax`.

    Raises:
        InputError: not an assignment, no such field, or a value of another type.
    """
    tree = to_dict(config)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise InputError(f"{assignment!r} is no assignment: write field=value")
        branch, keys = tree, path.strip().split(".")
        for key in keys[:-1]:
            branch = branch.get(key) if isinstance(branch, dict) else None
        if not isinstance(branch, dict) or keys[-1] not in branch:
            raise InputError(unknown_name("field", path, list(leaves(to_dict(config)))))
        if isinstance(branch[keys[-1]], dict):
            raise InputError(
                f"{path!r} is a group of fields: set one of "
                + ", ".join(f"{path}.{name}" for name in branch[keys[-1]])
            )
        try:
            branch[keys[-1]] = json.loads(text)
        except ValueError:
            branch[keys[-1]] = text.strip()
    return from_dict(tree)


def to_dict(config: Config) -> dict[str, Any]:
    """The configuration as JSON types; `from_dict` reads it back."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(tree: Any) -> Config:
    """Read what `to_dict` wrote; absent fields take their defaults.

    Raises:
        InputError: an unknown field, or a value of the wrong type or range.
    """
    return _read(Config, tree, "")


def _read(kind: Any, value: Any, path: str) -> Any:
    """`value` as the annotated type `kind`; `path` names it in messages."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        if not isinstance(value, dict):
            raise InputError(f"{path or 'the configuration'} must be an object")
        prefix = f"{path}." if path else ""
        for name in value:
            if name not in hints:
                known = [prefix + hint for hint in hints]
                raise InputError(unknown_name("field", prefix + name, known))
        return typing.cast(Any, kind)(
            **{name: _read(hints[name], v, prefix + name) for name, v in value.items()}
        )
    origin = typing.get_origin(kind)
    if origin is Literal:
        if value in typing.get_args(kind):
            return value
        raise InputError(unknown_name(path, value, typing.get_args(kind)))
    if origin is tuple and isinstance(value, list | tuple):
        element = typing.get_args(kind)[0]
        return tuple(_read(element, v, path) for v in value)
    if kind is float and type(value) is int and abs(value) <= 2**53:
        return float(value)
    if isinstance(kind, type) and type(value) is kind and _is_finite(value):
        return value
    wanted = kind.__name__ if isinstance(kind, type) else str(kind)
    if isinstance(kind, types.GenericAlias):
        wanted = str(kind)
    raise InputError(f"{path} is {value!r}: give a value of type {wanted}")


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every field of `to_dict` by its path, such as `train.epochs`."""
    found = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            found |= leaves(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found
