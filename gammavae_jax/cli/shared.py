"""What the command lines share; imports neither NumPy nor JAX, so `--help` is quick."""

import argparse
import contextlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from gammavae_jax.errors import InputError, printable
from gammavae_jax.files import write_text
from gammavae_jax.process import Terminated, exit_status, raising_on_sigterm

if TYPE_CHECKING:
    from rich.console import Console

    from gammavae_jax.config import Config


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """Turn an `InputError` into its one line and exit status 2.

    Ctrl-C ends with status 130, and SIGTERM with 143; both clean up.

    A reader that went away, such as `head`, is no error.
    """
    try:
        with raising_on_sigterm():
            yield
    except InputError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as end:
        is_term = isinstance(end, Terminated)
        print("terminated" if is_term else "interrupted", file=sys.stderr)
        sys.exit(exit_status(end))
    except BrokenPipeError:
        # Or Python would try to write the rest when it ends, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


@contextlib.contextmanager
def one_of_several() -> Iterator[None]:
    """Be one of the processes of a cluster; to be used within `readable_errors`.

    An error that all of them have is told by the first alone, and they end in order. A
    process that fails on its own ends at once, so that no other waits for it.

    Raises:
        InputError: see `distributed.start`; or the error of all of them.
    """
    from gammavae_jax.devices.cluster import AgreedError, is_first, start

    start()
    try:
        yield
    except AgreedError:
        if is_first():
            raise
        sys.exit(2)
    except BaseException as error:
        _leave(error)


def _leave(error: BaseException) -> NoReturn:
    """End without the barrier at which JAX would wait for the other processes."""
    from gammavae_jax.devices.cluster import others_lost

    status = 1
    try:
        with readable_errors():
            raise error
    except SystemExit as told:
        status = told.code if isinstance(told.code, int) else 1
    except BaseException as unexpected:
        lost = others_lost(unexpected)
        if lost is None:
            traceback.print_exception(unexpected)
        else:
            print(f"error: {lost}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def models_side_by_side(config: "Config", n_machines: int) -> int:
    """How many runs may have a core each; see `runtime.prepare`.

    One where all are a batch (`vmap`), whose products need all cores.
    """
    return 1 if config.train.batching == "vmap" else n_machines * config.n_members


def write_json(path: Path, tree: Any) -> None:
    """Write what `--json` asks for; `-` is standard output.

    Raises:
        InputError: the file cannot be written.
    """
    text = json.dumps(tree, indent=2, allow_nan=False) + "\n"
    if path == Path("-"):
        sys.stdout.write(text)
        return
    try:
        write_text(path, text)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror}: give another --json"
        ) from error


def table_console(stderr: bool = False) -> "Console":
    """For tables: names are no markup, and nothing is cut off to fit a terminal."""
    from rich.console import Console

    return Console(
        stderr=stderr, width=1000, markup=False, emoji=False, highlight=False
    )


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """Options of everything that reads recordings and writes a run's folder."""
    parser.add_argument(
        "--data-root",
        type=Path,
        metavar="DIR",
        help="folder of machine folders (fan/train, fan/test) or of zip archives of "
        "them, or one that holds raw/; without it, a small synthetic set is made and "
        "used",
    )
    parser.add_argument(
        "--year",
        type=int,
        metavar="YYYY",
        help="the challenge whose metrics hold; unless given, 2020 or 2021 if the "
        "folders and names are of that year, else 2022 on",
    )
    parser.add_argument(
        "--feature-cache",
        type=Path,
        metavar="DIR",
        help="keep log-mels in this folder, and take those that are there; several "
        "runs may share it, and what sounds or is computed otherwise is told apart",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace what is in --out"
    )
    parser.add_argument(
        "--skip-bad-files",
        action="store_true",
        help="name and leave out recordings that cannot be used",
    )


def data_root_or_synthetic(data_root: Path | None) -> Path:
    """The given folder, or the built-in synthetic set, of which the first line tells.

    Raises:
        InputError: see `synthetic_root`.
    """
    if data_root is not None:
        return data_root
    print(
        "No --data-root given: using the built-in SYNTHETIC set of seven made-up "
        "machines (made once, then cached).",
        flush=True,
    )
    return built_in_set()


def built_in_set() -> Path:
    """The folder of the built-in synthetic set, made if it is not there.

    Raises:
        InputError: see `synthetic_root`.
    """
    from rich.console import Console

    from gammavae_jax.data.synthetic.dataset import synthetic_root
    from gammavae_jax.log import Log

    with contextlib.ExitStack() as stack:
        bar: list[Callable] = []  # none where the set is there already

        def progress(done: int, total: int) -> None:
            if not bar:
                log = Log(Console(stderr=True))
                bar.append(stack.enter_context(log.progress("clips made", total)))
            bar[0]()

        return synthetic_root(progress)
