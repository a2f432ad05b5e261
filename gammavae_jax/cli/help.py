"""How the dataclass of a command reads as options: what tyro is told about it.

A command is a frozen dataclass. Its docstring is the help of the command, the string
below a field the help of the option. By itself, tyro keeps the line breaks of such
strings, tells of defaults that say nothing, offers `None` where an option may be left
out, and folds no description.
"""

import ast
import contextlib
import dataclasses
import inspect
import itertools
import re
import shutil
import sys
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro
from tyro.constructors import (
    MISSING_NONPROP,
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

MARKERS = (
    tyro.conf.FlagCreatePairsOff,  # no --no-overwrite beside --overwrite
    tyro.conf.OmitArgPrefixes,  # options of a dataclass within are the command's own
)
_STYLE = re.compile(r"\x1b\[[0-9;]*m")  # bold and the like, on a terminal
_WORDS = {str: "NAME", Path: "PATH", int: "INT", float: "NUMBER"}  # one of many
_NUMBERS = {int: ("INT", "a whole number"), float: ("NUMBER", "a number")}


def registry() -> ConstructorRegistry:
    """The rules by which tyro reads a command."""
    rules = ConstructorRegistry()
    rules.struct_rule(_options)
    rules.primitive_rule(_number)
    rules.primitive_rule(_optional)
    return rules


def field_docstrings(cls: type) -> dict[str, str]:
    """The strings below the fields of a dataclass, each in one line, by field.

    Those of its bases too; none where there is no source.
    """
    found = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        try:
            source = textwrap.dedent(inspect.getsource(base))
        except OSError:
            continue
        (definition,) = ast.parse(source).body
        assert isinstance(definition, ast.ClassDef)
        for field, below in itertools.pairwise(definition.body):
            match field, below:
                case (
                    ast.AnnAssign(target=ast.Name(name)),
                    ast.Expr(ast.Constant(str(text))),
                ):
                    found[name] = " ".join(text.split())
    return found


@contextlib.contextmanager
def folded_output() -> Iterator[None]:
    """Fold the long lines that are printed between words, at the terminal's width."""
    with contextlib.redirect_stdout(_Folded(sys.stdout)):  # type: ignore
        yield


class _Folded:
    """A stream that folds; in all else the one that it is made of."""

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        folded = "\n".join(map(_fold, text.split("\n")))
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        # tyro marks commands with dots, also where the terminal knows none.
        self._stream.write(folded.encode(encoding, "replace").decode(encoding))
        return len(text)


_CHOICE = re.compile(r"^usage: .*\{\w+,")  # of commands, without a blank


def _fold(line: str) -> str:
    """Fold a line of prose; those of a box begin otherwise, and fit."""
    width, shown = shutil.get_terminal_size().columns, _STYLE.sub("", line)
    if len(shown) <= width or not shown[0].isalpha():
        return line
    if _CHOICE.search(shown):
        line = line.replace(",", ", ")
    folded, used = "", 0
    for word in _words(line):
        length = len(_STYLE.sub("", word))
        is_full = used + length > width
        folded += ("\n" if is_full else " ") + word
        used = length + 1 if is_full else used + length + 1
    return folded[1:]


def _words(line: str) -> list[str]:
    """What is not to be folded; of a usage, an option with its value is one word."""
    words, n_open = [""], 0
    for word in line.split(" "):
        if n_open > 0:
            words[-1] += f" {word}"
        else:
            words.append(word)
        if "usage:" in line:
            shown = _STYLE.sub("", word)
            n_open += shown.count("[") - shown.count("]")
    return words[1:]


def _options(info: StructTypeInfo) -> StructConstructorSpec | None:
    """The options of a dataclass; those with type variables are tyro's own."""
    is_ours = not getattr(info.type, "__parameters__", ())
    if not dataclasses.is_dataclass(info.type) or not is_ours:
        return None
    hints = get_type_hints(info.type, include_extras=True)
    helps = field_docstrings(info.type)
    return StructConstructorSpec(
        info.type,
        tuple(
            StructFieldSpec(
                field.name,
                _described(field.name, hints[field.name], _default(field)),
                _default(field),
                helps.get(field.name),
            )
            for field in dataclasses.fields(info.type)
        ),
    )


def _described(name: str, hint: Any, default: Any) -> Any:
    """A field's type with what its help is to say; what it says itself comes last."""
    base, *metadata = get_args(hint) if get_origin(hint) is Annotated else [hint]
    metavar = _metavar(name, base, tyro.conf.Positional in metadata)
    says_nothing = default in (None, (), MISSING_NONPROP) or default is False
    ours = tyro.conf.arg(
        metavar=metavar, help_behavior_hint="" if says_nothing else None
    )
    return Annotated[(base, ours, *metadata)]


def _metavar(name: str, kind: Any, is_positional: bool) -> str | None:
    """What stands for the value; None for what tyro says of the type."""
    is_many = get_origin(kind) is tuple and Ellipsis in get_args(kind)
    inner = get_args(kind)[0] if is_many else kind
    if get_origin(inner) is Literal or not (is_positional or is_many):
        return None
    word = name.upper() if is_positional else _WORDS.get(inner, "VALUE")
    return f"{word} ..." if is_many else word


def _default(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return MISSING_NONPROP if field.default is dataclasses.MISSING else field.default


def _number(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """Numbers, and what is said of text that is none."""
    kind: Any = info.type
    if kind not in _NUMBERS:
        return None
    metavar, noun = _NUMBERS[kind]

    def read(words: list[str]) -> int | float:
        try:
            return kind(words[0])
        except ValueError:
            raise ValueError(f"{words[0]!r} is not {noun}") from None

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=read,
        is_instance=lambda value: type(value) is kind or "~",
        str_from_instance=lambda value: [str(value)],
    )


def _optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """`X | None` is read as X: None is an option that was not given."""
    if get_origin(info.type) not in (Union, types.UnionType):
        return None
    kinds = set(get_args(info.type)) - {types.NoneType}
    if len(kinds) != 1 or types.NoneType not in get_args(info.type):
        return None
    inner = PrimitiveTypeInfo.make(kinds.pop(), set(info.markers))
    spec = ConstructorRegistry.get_primitive_spec(inner)
    if not isinstance(spec, PrimitiveConstructorSpec):
        return None
    return dataclasses.replace(
        spec,
        is_instance=lambda value: value is None or spec.is_instance(value),
        str_from_instance=lambda value: (
            ["None"] if value is None else spec.str_from_instance(value)
        ),
    )
