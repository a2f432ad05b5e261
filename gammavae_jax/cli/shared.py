"""Code shared by commands; it imports neither NumPy nor JAX, so `--help` is fast."""

import contextlib
import io
import json
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from gammavae_jax.config_json import read_json
from gammavae_jax.errors import InputError, is_full, printable, unusable
from gammavae_jax.files import write_text
from gammavae_jax.process import (
    Terminated,
    collect_garbage_less_often,
    drop_output,
    exit_status,
    give_cores_to_models,
    import_jax,
    keep_compiled_programs,
    limit_blas_threads,
    open_closed_streams,
    raising_on_termination,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from gammavae_jax.anomaly_detector import AnomalyDetector
    from gammavae_jax.config import Config


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """Turn an `InputError` into one line on standard error and exit status 2.

    System errors about files are shown in the same way. After cleanup, the exit status
    is 130 for Ctrl-C, 143 for SIGTERM and 129 for SIGHUP. A closed pipe, as with
    `| head`, is not an error, and neither is a closed output. Characters that the
    output cannot encode are escaped.
    """
    open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with raising_on_termination():
            try:
                yield
            except SystemExit:
                sys.stdout.flush()
                raise
            sys.stdout.flush()  # at exit, Python would report an error in several lines
    except InputError as error:
        _fail(error)
    except KeyboardInterrupt as end:
        is_term = isinstance(end, Terminated)
        print("terminated" if is_term else "interrupted", file=sys.stderr)
        sys.exit(exit_status(end))
    except BrokenPipeError:
        drop_output()
        sys.exit(0)
    except OSError as error:
        if error.filename is not None:
            _fail(unusable(error))
        if not is_full(error):
            raise
        drop_output()
        problem = f"standard output cannot be written ({error.strerror})"
        _fail(
            InputError(f"{problem}: free up disk space, or redirect it to another file")
        )


def _fail(error: InputError) -> NoReturn:
    """Print an error on one line and exit with status 2."""
    print(f"error: {printable(str(error))}", file=sys.stderr)
    sys.exit(2)


@contextlib.contextmanager
def cluster_process() -> Iterator[None]:
    """Run a block as one process of a cluster; use this inside `readable_errors`.

    If all processes raise the same error, only the first one reports it. A process that
    fails alone exits immediately, so that no other process waits for it.
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
    """Exit immediately; JAX's barrier at exit would wait for the other processes."""
    from gammavae_jax.devices.cluster import others_lost

    status = 1
    try:
        with readable_errors():
            raise error
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
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
    """Return how many models train independently, each on one core; see `prepare`.

    With `vmap`, this is 1: all models form one batch, whose operations use every core.
    """
    return 1 if config.train.batching == "vmap" else n_machines * config.n_members


def prepare(n_models: int, in_cluster: bool = False) -> None:
    """Configure threads, garbage collection and the cache of compiled programs.

    Then import JAX.

    Raises:
        InputError: no device can be used. In a cluster, this is checked after joining.
    """
    limit_blas_threads()
    collect_garbage_less_often()
    give_cores_to_models(n_models)
    keep_compiled_programs()
    import_jax()
    if not in_cluster:
        from gammavae_jax.devices.local import local_devices

        local_devices()


def models_in_checkpoint(folder: Path) -> int:
    """Count a checkpoint's models: 1 if it is unreadable, 2 for a fleet of any size."""
    if (folder / "fleet.json").is_file():
        return 2
    try:
        about = read_json(folder / "detector.json")
        config = about["config"]
        folds = config["train"]["n_folds"] if config["train"]["split"] == "folds" else 1
        return len(about["machines"]) * int(config["n_seeds"]) * int(folds)
    except (OSError, ValueError, KeyError, TypeError):
        return 1


def machines_in_checkpoint(folder: Path) -> Any:
    """Return the machines that a checkpoint lists, or None if it is unreadable."""
    try:
        return read_json(folder / "detector.json")["machines"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def set_rate(estimator: "AnomalyDetector", false_alarm_rate: float) -> None:
    """Set a loaded detector's false-alarm rate.

    One line names the machines that have too few recordings for this rate, even if the
    detector already has this rate.

    Raises:
        InputError: the rate is out of range, or the thresholds are the official ones.
    """
    from gammavae_jax.log import Log
    from gammavae_jax.scoring.sample_size import unsupported_machines

    is_same = estimator.false_alarm_rate == false_alarm_rate
    estimator.set_params(false_alarm_rate=false_alarm_rate)
    _ = estimator.threshold_  # adapts the detector, which prints the line if it changes
    if is_same and (note := unsupported_machines(estimator.detector_)):
        Log().say(note)


def write_json(path: Path, tree: Any) -> None:
    """Write nested data as JSON to a file; `-` is standard output."""
    text = json.dumps(tree, indent=2, allow_nan=False) + "\n"
    if path == Path("-"):
        sys.stdout.write(text)
        return
    try:
        write_text(path, text)
    except OSError as error:
        problem = f"{path} cannot be written ({error.strerror})"
        raise InputError(f"{problem}: choose another path for --json") from error


def table_console(stderr: bool = False) -> "Console":
    """Return a console that prints names literally and never truncates tables."""
    from rich.console import Console

    return Console(
        stderr=stderr, width=1000, markup=False, emoji=False, highlight=False
    )


def new_table(
    columns: Iterable[str], numbers: Iterable[str], title: str | None = None
) -> "Table":
    """Return an empty table; the columns in `numbers` are right-aligned."""
    from rich import box
    from rich.table import Table

    numbers = set(numbers)
    table = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left")
    return table


def data_root_or_synthetic(data_root: Path | None) -> Path:
    """Return the data root, or announce and return the built-in synthetic set."""
    if data_root is not None:
        return data_root
    print(
        "No --data-root given: using the built-in SYNTHETIC set of seven machines "
        "(generated once, then cached).",
        flush=True,
    )
    return built_in_set()


def built_in_set() -> Path:
    """Return the folder of the built-in synthetic set; generate it on first use."""
    from gammavae_jax.data.synthetic.dataset import synthetic_root
    from gammavae_jax.log import Log

    return synthetic_root(Log())
