"""What a command's dataclass becomes: options, their help, and what they refuse."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro

from gammavae_jax.cli.help import MARKERS, field_docstrings, folded_output, registry


@dataclass(frozen=True)
class Recordings:
    """Where recordings are."""

    data_root: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of machine
    folders."""
    machines: tuple[str, ...] = ()
    """These machines alone."""


@dataclass(frozen=True)
class Spoken:
    """What is said."""

    verbose: bool = False
    """Say more."""


@dataclass(frozen=True)
class Learn(Spoken):
    """Learn from recordings.

    And that in a second paragraph, which is long enough to be folded at any width of
    a terminal that people are likely to have.

    Raises:
        InputError: which is for programmers.
    """

    files: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Files or
    folders."""
    recordings: Recordings = Recordings()
    epochs: int | None = None
    """Passes."""
    seeds: int = 0
    """How many."""
    rate: float = 0.1
    """Of false alarms."""
    preset: Literal["default", "paper"] = "default"
    """A name."""
    set: tuple[str, ...] = field(default_factory=tuple)
    """Fields."""


def read(*arguments):
    with folded_output():
        return tyro.cli(
            Learn, prog="p", args=arguments, config=MARKERS, registry=registry()
        )


def test_the_strings_below_fields_are_found_in_bases_too():
    found = field_docstrings(Learn)
    assert found["verbose"] == "Say more."
    assert found["files"] == "Files or folders."
    assert "recordings" not in found


def test_without_options_a_command_is_its_defaults():
    assert read() == Learn()


def test_every_kind_of_option_is_read():
    line = (
        "a b --data-root x --machines m n --epochs 3 --seeds=1 --rate 1e-3 "
        "--preset paper --set a=1 b=2 --verbose"
    )
    assert read(*line.split()) == Learn(
        verbose=True,
        files=(Path("a"), Path("b")),
        recordings=Recordings(Path("x"), ("m", "n")),
        epochs=3,
        seeds=1,
        rate=1e-3,
        preset="paper",
        set=("a=1", "b=2"),
    )


def page(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit, match="0"):
        read("--help")
    return capsys.readouterr().out


def test_the_page_says_what_is_to_be_given_and_no_more(capsys, monkeypatch):
    text = page(capsys, monkeypatch, 200)
    lines = {" ".join(line.strip("│ ").split()) for line in text.splitlines()}
    assert {
        "FILES ... Files or folders.",
        "--verbose Say more.",
        "--epochs INT Passes.",
        "--seeds INT How many. (default: 0)",
        "--rate NUMBER Of false alarms. (default: 0.1)",
        "--preset {default,paper} A name. (default: default)",
        "--set NAME ... Fields.",
        "--data-root DIR Folder of machine folders.",
        "--machines NAME ... These machines alone.",
    } <= lines
    for oddity in ("None", "False", "[NAME", "--no-", "InputError", "--recordings"):
        assert oddity not in text


def test_a_list_that_may_not_be_left_out_has_no_default(capsys):
    @dataclass(frozen=True)
    class Judge:
        """Judge."""

        files: tyro.conf.Positional[tuple[Path, ...]]
        """Files."""

    with pytest.raises(SystemExit, match="0"):
        tyro.cli(Judge, args=["-h"], config=MARKERS, registry=registry())
    text = capsys.readouterr().out
    assert "FILES ..." in text
    assert "default" not in text


@pytest.mark.parametrize("columns", [60, 90])
def test_a_long_description_is_folded_between_words(capsys, monkeypatch, columns):
    text = page(capsys, monkeypatch, columns)
    assert max(map(len, text.splitlines())) <= columns
    paragraph = "\n".join(text.split("\n\n")[2:3])
    assert "\n" in paragraph
    assert paragraph.replace("\n", " ") in " ".join((Learn.__doc__ or "").split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "1.5"], "--epochs: '1.5' is not a whole number"),
        (["--seeds", "x"], "--seeds: 'x' is not a whole number"),
        (["--rate", "x"], "--rate: 'x' is not a number"),
        (["--preset", "papr"], "invalid choice 'papr' for argument '--preset'"),
        (["--machine", "m"], "--machines NAME ..."),
    ],
)
def test_what_cannot_be_read_is_said_in_plain_words(capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        read(*arguments)
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err


def test_a_line_in_bold_is_folded_too(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    with folded_output():
        print("\x1b[1musage:\x1b[0m p" + " \x1b[1m[--option VALUE]\x1b[0m" * 7)
    lines = capsys.readouterr().out.replace("\x1b[1m", "").splitlines()
    assert [line.count("[--option VALUE]") for line in lines] == [3, 3, 1]


def test_a_folded_stream_is_the_stream_in_all_else(capsys):
    stream = sys.stdout
    with folded_output():
        assert sys.stdout.encoding == stream.encoding
        print("│ " + "x" * 300)
    assert sys.stdout is stream
    assert capsys.readouterr().out == "│ " + "x" * 300 + "\n"
