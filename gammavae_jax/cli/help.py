"""Uses tyro to turn a command's dataclass into options and a help page."""

import contextlib
import dataclasses
import re
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import docstring_parser
import tyro
import tyro.constructors as tc

MARKERS = (
    tyro.conf.FlagCreatePairsOff,  # offers --overwrite, but not --no-overwrite
    tyro.conf.DisallowNone,  # None means that an option was not given
    tyro.conf.PositionalMetavarFromFieldName,
)
RULES = tc.ConstructorRegistry()
_QUIET = tyro.conf.arg(  # hides uninformative defaults
    help_behavior_hint=lambda d: f"(default: {d})" * (d not in ("", "None", "False"))
)
_NUMBERS = {int: "a whole number", float: "a number"}


def field_docstrings(command: type) -> dict[str, str]:
    """Return the docstring of each field of a dataclass, including inherited ones."""
    classes = filter(dataclasses.is_dataclass, reversed(command.__mro__))
    fields = [p for c in classes for p in docstring_parser.parse_from_object(c).params]
    return {f.arg_name: " ".join((f.description or "").split()) for f in fields}


@RULES.struct_rule
def _options(info: tc.StructTypeInfo) -> tc.StructConstructorSpec | None:
    """Build a dataclass's options as tyro does, but hide uninformative defaults."""
    form: Any = info.type
    if not dataclasses.is_dataclass(info.type) or hasattr(form, "__parameters__"):
        return None  # one of tyro's own dataclasses, which tyro handles
    texts, hints = field_docstrings(form), get_type_hints(form, include_extras=True)
    fields = []
    for f in dataclasses.fields(form):
        kind: Any = Annotated[hints[f.name], _QUIET]
        default = tyro.MISSING if f.default is dataclasses.MISSING else f.default
        fields.append(tc.StructFieldSpec(f.name, kind, default, texts.get(f.name)))
    return tc.StructConstructorSpec(form, tuple(fields))


@RULES.primitive_rule
def _number(info: tc.PrimitiveTypeInfo) -> tc.PrimitiveConstructorSpec | None:
    """Parse a number, which may be optional; reject other text with a clear message."""
    kind = next((k for k in _NUMBERS if info.type in (k, k | None)), None)
    if kind is None:
        return None

    def read(words: list[str]) -> int | float:
        # Python also accepts 1_0 and the digits of other scripts.
        is_plain = words[0].isascii() and "_" not in words[0]
        with contextlib.suppress(ValueError):
            if is_plain:
                return kind(words[0])
        hint = _hint(words[0]) if kind is float else ""
        raise ValueError(f"{words[0]!r} is not {_NUMBERS[kind]}{hint}")

    name = kind.__name__.upper()
    return tc.PrimitiveConstructorSpec(
        1, name, read, lambda _: True, lambda v: [str(v)]
    )


def _hint(text: str) -> str:
    """Return advice on how to write a percentage, or "" for other text."""
    number = text.strip().removesuffix("%").strip()
    if not text.strip().endswith("%") or not re.fullmatch(r"[0-9]+(\.[0-9]+)?", number):
        return ""
    return f": for {number} %, write {float(number) / 100:g}"


@RULES.primitive_rule
def _path(info: tc.PrimitiveTypeInfo) -> tc.PrimitiveConstructorSpec | None:
    """Parse a path, which may be optional; reject an empty one.

    An empty path often comes from an unset variable, and Python would take it for the
    current folder.
    """
    if info.type not in (Path, Path | None):
        return None

    def read(words: list[str]) -> Path:
        if not words[0]:
            raise ValueError("'' is not a path: for the current folder, write .")
        return Path(words[0])

    return tc.PrimitiveConstructorSpec(
        1, "PATH", read, lambda _: True, lambda v: [str(v)]
    )
