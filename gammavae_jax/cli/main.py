"""The `gammavae` command: its subcommands and command-line parsing.

No slow package (NumPy, scikit-learn, JAX) is imported before the command line has been
parsed; each command imports what it needs in its `run`.
"""

import contextlib
import importlib.metadata
import io
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Protocol, Union, runtime_checkable

import tyro

from gammavae_jax.cli.check import Check
from gammavae_jax.cli.doctor import Doctor
from gammavae_jax.cli.download import Download
from gammavae_jax.cli.evaluate import Evaluate, Submit
from gammavae_jax.cli.export import Export
from gammavae_jax.cli.fit import Demo, Fit
from gammavae_jax.cli.help import MARKERS, RULES
from gammavae_jax.cli.learn import Learn
from gammavae_jax.cli.run import Report, Rescore, Run
from gammavae_jax.cli.score import Score
from gammavae_jax.cli.serve import Serve
from gammavae_jax.cli.shared import readable_errors
from gammavae_jax.cli.threshold import Threshold
from gammavae_jax.cli.watch import Watch
from gammavae_jax.errors import InputError, unknown_name

PROGRAM = "gammavae"


@runtime_checkable
class Command(Protocol):
    """A subcommand: a frozen dataclass of its options."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def run(self) -> int:
        """Run the command and return its exit status.

        Raises:
            InputError: an option or a file is unusable, or an output cannot be written.
        """
        ...


@dataclass(frozen=True)
class Completion:
    """Print a script that lets a shell complete commands and options.

    For bash, add the line `eval "$(gammavae completion bash)"` to ~/.bashrc. For zsh,
    save the output as _gammavae in a folder of $fpath; for fish, save it as
    ~/.config/fish/completions/gammavae.fish.
    """

    shell: tyro.conf.Positional[Literal["bash", "zsh", "fish"]]
    """Shell that will run the script."""

    def run(self) -> int:
        """Print the completion script."""
        parse(["--tyro-write-completion", self.shell, "-"])
        return 0


COMMANDS: Mapping[str, type[Command]] = {
    "demo": Demo,
    "fit": Fit,
    "score": Score,
    "check": Check,
    "learn": Learn,
    "threshold": Threshold,
    "watch": Watch,
    "serve": Serve,
    "run": Run,
    "rescore": Rescore,
    "report": Report,
    "export": Export,
    "download": Download,
    "evaluate": Evaluate,
    "submit": Submit,
    "doctor": Doctor,
    "completion": Completion,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the `gammavae` command and return its exit status.

    Raises:
        SystemExit: with status 2 for bad input, after a message on standard error;
            with status 0 after a page of help.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    with readable_errors():
        return parse(arguments).run()


def parse(arguments: Sequence[str]) -> Command:
    """Parse a command line; return the command with its options."""
    if not arguments:
        print(_overview(), file=sys.stderr)
        sys.exit(2)
    name, *rest = arguments
    if name == "--version":
        print(PROGRAM, importlib.metadata.version("gammavae-jax"))
        sys.exit()
    if name in ("-h", "--help"):
        print(_overview())
        sys.exit()
    if name in COMMANDS:
        return _read(COMMANDS[name], f"{PROGRAM} {name}", rest)
    if not name.startswith("-"):
        raise InputError(unknown_name("command", name, COMMANDS))
    return _read(_any_command(), PROGRAM, arguments)


def _overview() -> str:
    """Return the overview page, with one line per command."""
    fold = textwrap.TextWrapper(_width(), subsequent_indent=" " * 14)
    lines = [fold.fill(f"  {name:<12}{_summary(c)}") for name, c in COMMANDS.items()]
    commands = "\n".join(lines)
    return f"""\
usage: {PROGRAM} [-h] [--version] COMMAND ...

Anomalous sound detection for machines.

commands:
{commands}

`{PROGRAM} COMMAND --help` describes a command and its options."""


def _width() -> int:
    return shutil.get_terminal_size().columns


def _read(form: Any, program: str, arguments: Sequence[str]) -> Command:
    def read() -> Command:
        return tyro.cli(
            form, prog=program, args=arguments, config=MARKERS, registry=RULES
        )

    if {"-h", "--help"}.isdisjoint(arguments):
        return read()
    page = io.TextIOWrapper(io.BytesIO(), sys.stdout.encoding, errors="replace")
    try:
        with contextlib.redirect_stdout(page):
            return read()
    finally:  # tyro wraps the text of options, but not the description
        page.seek(0)
        for line in page.read().splitlines():
            print(textwrap.fill(line, _width()) if line[:1].isalpha() else line)


def _any_command() -> Any:
    """Return the type that tyro parses: the union of all commands."""
    return Union[  # noqa: UP007
        tuple(
            Annotated[c, tyro.conf.subcommand(name, description=_summary(c))]
            for name, c in COMMANDS.items()
        )
    ]


def _summary(command: type) -> str:
    return (command.__doc__ or "").split("\n\n")[0]


if __name__ == "__main__":
    sys.exit(main())
