"""The `gammavae` command: its table of subcommands, and who is told what went wrong.

Nothing slow (NumPy, scikit-learn, JAX) is imported before the command line is parsed;
a command's `run` does that.
"""

import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Protocol, Union, runtime_checkable

import tyro

from gammavae_jax.cli.demo import Demo
from gammavae_jax.cli.doctor import Doctor
from gammavae_jax.cli.download import Download
from gammavae_jax.cli.evaluate import Evaluate
from gammavae_jax.cli.export import Export
from gammavae_jax.cli.fit import Fit
from gammavae_jax.cli.help import MARKERS, folded_output, registry
from gammavae_jax.cli.report import Report
from gammavae_jax.cli.score import Score
from gammavae_jax.cli.serve import Serve
from gammavae_jax.cli.shared import readable_errors
from gammavae_jax.cli.submit import Submit
from gammavae_jax.cli.watch import Watch
from gammavae_jax.errors import InputError, unknown_name

PROGRAM = "gammavae"
_ABOUT = """\
Anomalous sound detection for machines.

Ask `gammavae COMMAND --help` about a command, `gammavae --version` about the version.
"""


@runtime_checkable
class Command(Protocol):
    """A subcommand: a frozen dataclass of its options."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def run(self) -> int:
        """Do it; the exit status."""
        ...


@dataclass(frozen=True)
class Completion:
    """Print the script by which a shell completes commands and options.

    For bash, put the line `eval "$(gammavae completion bash)"` into ~/.bashrc; for
    zsh, write the output to a file _gammavae in a folder of $fpath; for fish, to
    ~/.config/fish/completions/gammavae.fish.
    """

    shell: tyro.conf.Positional[Literal["bash", "zsh", "fish"]]
    """The shell that is to complete."""

    def run(self) -> int:
        """Print the script."""
        _parse(_any_command(), PROGRAM, ["--tyro-write-completion", self.shell, "-"])
        return 0


COMMANDS: Mapping[str, type[Command]] = {
    "demo": Demo,
    "fit": Fit,
    "score": Score,
    "watch": Watch,
    "serve": Serve,
    "report": Report,
    "export": Export,
    "download": Download,
    "evaluate": Evaluate,
    "submit": Submit,
    "doctor": Doctor,
    "completion": Completion,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the `gammavae` command; the exit status.

    Raises:
        SystemExit: with status 2 for what the user must change, after a message on
            standard error; with status 0 after a page of help.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    with readable_errors():
        return parse(arguments).run()


def parse(arguments: Sequence[str]) -> Command:
    """The command that a command line asks for, with its options.

    Raises:
        InputError: there is no such command.
        SystemExit: see `main`.
    """
    if not arguments:
        with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(SystemExit):
            _parse(_any_command(), PROGRAM, ["--help"])
        sys.exit(2)
    name, *rest = arguments
    if name == "--version":
        print(f"{PROGRAM} {_version()}")
        sys.exit()
    if name in COMMANDS:
        return _parse(COMMANDS[name], f"{PROGRAM} {name}", rest)
    if not name.startswith("-"):
        raise InputError(unknown_name("command", name, COMMANDS))
    return _parse(_any_command(), PROGRAM, arguments)


def _parse(form: Any, program: str, arguments: Sequence[str]) -> Command:
    wants_help = not {"-h", "--help"}.isdisjoint(arguments)
    with folded_output() if wants_help else contextlib.nullcontext():
        return tyro.cli(
            form,
            prog=program,
            args=arguments,
            description=None if form in COMMANDS.values() else _ABOUT,
            config=MARKERS,
            registry=registry(),
        )


def _any_command() -> Any:
    """The subcommands as one type, each told of in one sentence."""
    return Union[  # noqa: UP007
        tuple(
            Annotated[
                command, tyro.conf.subcommand(name, description=_sentence(command))
            ]
            for name, command in COMMANDS.items()
        )
    ]


def _sentence(command: type) -> str:
    return (command.__doc__ or "").split("\n\n")[0]


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("gammavae-jax")
    except PackageNotFoundError:
        return "of a checkout that is not installed"


if __name__ == "__main__":
    sys.exit(main())
