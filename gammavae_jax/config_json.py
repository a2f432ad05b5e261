"""Reads and writes JSON; converts configurations to it and overrides their fields.

JSON from a file may be nested deeply, or hold numbers that are not finite. Tests ensure
that the package parses it only with the functions of this module. JSON that is written
has null for numbers that are not finite.
"""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from gammavae_jax.config import Config
from gammavae_jax.errors import InputError, unknown_name
from gammavae_jax.files import read_text


def override(config: Config, assignments: Sequence[str]) -> Config:
    """Apply overrides such as `train.epochs=5`, in the syntax of `--set`.

    Values are JSON, but strings need no quotes: `model.heads=softmax`.

    Raises:
        InputError: an override has wrong syntax, an unknown field or an invalid value.
    """
    tree = to_dict(config)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise InputError(f"{assignment!r} is not an assignment: write field=value")
        branch, keys = tree, path.strip().split(".")
        for key in keys[:-1]:
            branch = branch.get(key) if isinstance(branch, dict) else None
        if not isinstance(branch, dict) or keys[-1] not in branch:
            raise InputError(unknown_name("field", path, list(leaves(to_dict(config)))))
        if isinstance(branch[keys[-1]], dict):
            fields = ", ".join(f"{path}.{name}" for name in branch[keys[-1]])
            raise InputError(f"{path!r} is a group of fields: set one of {fields}")
        try:
            branch[keys[-1]] = parse_json(text)
        except ValueError:
            branch[keys[-1]] = text.strip()
    return from_dict(tree)


def to_dict(config: Config) -> dict[str, Any]:
    """Convert a configuration to JSON types; `from_dict` reverses this."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(tree: Any) -> Config:
    """Build a configuration from `to_dict`'s output; missing fields get their defaults.

    Raises:
        InputError: a field is unknown, or its value has the wrong type or range.
    """
    return _read(Config, tree, "")


def _read(kind: Any, value: Any, path: str) -> Any:
    """Convert a field's value to the annotated type `kind`; `path` names the field."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        if not isinstance(value, dict):
            raise InputError(f"{path or 'the configuration'} must be a JSON object")
        prefix = f"{path}." if path else ""
        for name in value:
            if name not in hints:
                fields = [prefix + hint for hint in hints]
                raise InputError(unknown_name("field", prefix + name, fields))
        values = {n: _read(hints[n], v, prefix + n) for n, v in value.items()}
        return typing.cast(Any, kind)(**values)
    origin = typing.get_origin(kind)
    if origin is types.UnionType:  # an optional value, such as `int | None`
        (kind,) = set(typing.get_args(kind)) - {types.NoneType}
        return None if value is None else _read(kind, value, path)
    if origin is Literal:
        if value in typing.get_args(kind):
            return value
        raise InputError(unknown_name(path, value, typing.get_args(kind)))
    if origin is tuple and isinstance(value, list | tuple):
        element = typing.get_args(kind)[0]
        return tuple(_read(element, v, path) for v in value)
    if kind is float and type(value) is int and abs(value) <= 2**53:
        return float(value)
    is_finite = not isinstance(value, float) or math.isfinite(value)
    if isinstance(kind, type) and type(value) is kind and is_finite:
        return value
    is_plain = isinstance(kind, type) and not isinstance(kind, types.GenericAlias)
    expected = f"value of type {kind.__name__ if is_plain else kind}"
    expected = "finite number" if kind is float else expected
    raise InputError(f"{path} is {value!r}: use a {expected}")


def leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten the output of `to_dict`; its keys become paths such as `train.epochs`."""
    fields = {}
    for name, value in tree.items():
        path, is_group = prefix + name, isinstance(value, dict)
        fields |= leaves(value, f"{path}.") if is_group else {path: value}
    return fields


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    For errors, see `read_text` and `parse_json`.
    """
    return parse_json(read_text(path))


def parse_json(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: the text is not JSON, is nested too deeply, or has a number that is
            not finite.
    """
    try:
        return json.loads(text, parse_float=_finite, parse_constant=_finite)
    except RecursionError as error:
        raise ValueError("JSON that is nested too deeply") from error


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is not a finite number")
    return number


def to_json(tree: Any) -> str:
    """Convert data to indented JSON, with null for non-finite numbers."""
    return json.dumps(with_none(tree), indent=2) + "\n"


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
