"""A command's dataclass becomes options, which refuse bad values, and their help."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro

from gammavae_jax.cli.help import MARKERS, RULES, field_docstrings
from gammavae_jax.cli.options import Settings, flat


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where recordings are."""

    data_root: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of machine
    folders."""
    verbose: bool = False
    """Print more."""


@dataclass(frozen=True, kw_only=True)
class Learn(Source):
    """Learn from recordings.

    Raises:
        InputError: which is for programmers.
    """

    files: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FILES ...")
    ] = ()
    """Files; '-' is
    - standard input."""
    epochs: int | None = None
    """Passes."""
    seeds: int = 0
    """How many."""
    rate: float = 0.1
    """Of false alarms."""
    preset: Literal["default", "paper"] = "default"
    """A name."""
    set: Settings = ()
    """Fields."""


def read(*arguments):
    return tyro.cli(Learn, prog="p", args=arguments, config=MARKERS, registry=RULES)


def test_the_strings_below_fields_are_found_in_bases_too():
    texts = field_docstrings(Learn)
    assert texts["data_root"] == "Folder of machine folders."
    assert texts["files"] == "Files; '-' is - standard input."


def test_every_kind_of_option_is_read_and_has_its_default():
    assert read() == Learn()
    line = (
        "a b --data-root x --epochs 3 --seeds=1 --rate 1e-3 --preset paper "
        "--set a=1 b=2 --verbose"
    )
    learn = read(*line.split())
    assert flat(learn.set) == ("a=1", "b=2")
    assert learn == Learn(
        verbose=True,
        files=(Path("a"), Path("b")),
        data_root=Path("x"),
        epochs=3,
        seeds=1,
        rate=1e-3,
        preset="paper",
        set=learn.set,
    )


@pytest.mark.parametrize(
    "line", ["--set a=1 b=2 c=3", "--set a=1 --set b=2 c=3", "--set a=1 b=2 --set c=3"]
)
def test_settings_are_read_together_or_one_by_one(line):
    assert flat(read(*line.split()).set) == ("a=1", "b=2", "c=3")


def test_the_help_shows_no_uninformative_defaults(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit, match="0"):
        read("--help")
    text = capsys.readouterr().out
    lines = {" ".join(line.strip("│ ").split()) for line in text.splitlines()}
    assert {
        "FILES ... Files; '-' is - standard input.",
        "--verbose Print more.",
        "--epochs INT Passes.",
        "--seeds INT How many. (default: 0)",
        "--rate FLOAT Of false alarms. (default: 0.1)",
        "--preset {default,paper} A name. (default: default)",
        "--data-root DIR Folder of machine folders.",
    } <= lines
    for oddity in ("None", "False", "--no-", "InputError"):
        assert oddity not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "1.5"], "--epochs: '1.5' is not a whole number"),
        (["--epochs", "None"], "--epochs: 'None' is not a whole number"),
        (["--epochs", "10%"], "--epochs: '10%' is not a whole number "),
        (["--seeds", "x"], "--seeds: 'x' is not a whole number"),
        (["--rate", "x"], "--rate: 'x' is not a number"),
        (["--rate", "0,05"], "--rate: '0,05' is not a number"),
        (["--rate", "0_5"], "--rate: '0_5' is not a number"),
        (["--rate", "\u0660.\u0662"], " is not a number"),
        (["--rate", "5%"], "--rate: '5%' is not a number: for 5 %, write 0.05"),
        (["--rate", "2.5 %"], "'2.5 %' is not a number: for 2.5 %, write 0.025"),
        (["--rate", "x%"], "--rate: 'x%' is not a number "),
        (["--epochs", "1_0"], "--epochs: '1_0' is not a whole number"),
        (["--data-root", ""], "--data-root: '' is not a path: for the current folder"),
        (["--preset", "papr"], "invalid choice 'papr' for argument '--preset'"),
        (["--verbos"], "--verbose"),
    ],
)
def test_a_value_that_cannot_be_read_is_refused_in_plain_words(
    capsys, arguments, message
):
    with pytest.raises(SystemExit, match="2"):
        read(*arguments)
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err
