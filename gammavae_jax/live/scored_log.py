"""Which recordings have been scored, kept in a file from one watch to the next."""

import contextlib
import json
import time
from pathlib import Path
from typing import IO, Any

from gammavae_jax.errors import InputError, printable
from gammavae_jax.files import write_text
from gammavae_jax.live.arrivals import Arrival, Stamp

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_BEGINNING = '{"file": "'  # of each line
_FORGOTTEN_AFTER = 30 * 24 * 3600  # s


class ScoredLog:
    """A line of JSON for each recording that has been scored.

    A recording is known by its name, size and time: one that was written anew is new.
    A line is added when all was said of a recording, so a watch that is killed says
    again at most what it was about to say. Recordings that are gone are forgotten 30
    days after they were scored.

    Args:
        path: made if it is not there.

    Raises:
        InputError: it cannot be read or written, is something else, or is in use.
    """

    def __init__(self, path: Path):
        self._path = path
        self._scored: dict[str, tuple[Stamp, float]] = {}
        self._file: IO[str] | None = None
        try:
            path.touch()
            self._scored = _read(path)
            self._open_anew()
        except OSError as error:
            raise InputError(
                f"{printable(path)}: {error.strerror}: give a file that this user may "
                "write, by --state"
            ) from error

    def __enter__(self) -> "ScoredLog":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def knows(self, name: str, stamp: Stamp) -> bool:
        """Whether this very recording has been scored."""
        return name in self._scored and self._scored[name][0] == stamp

    def add(self, arrival: Arrival) -> None:
        """Know a recording from now on.

        Raises:
            OSError: it is known, but the file cannot be written.
        """
        now = time.time()
        self._scored[arrival.name] = arrival.stamp, now
        if self._file is None:
            self._open_anew()
            return
        try:
            self._file.write(_line(arrival.name, arrival.stamp, now))
            self._file.flush()
        except OSError:
            # What could not be written would come out with the next line.
            self._file = _dropped(self._file)
            raise

    def forget_gone(self, present: dict[str, Stamp]) -> None:
        """Forget what was scored long ago and is gone.

        Where nothing known is there, a share is likelier to be away than its files.

        Raises:
            OSError: the file cannot be written.
        """
        if not present.keys() & self._scored.keys():
            return
        old = time.time() - _FORGOTTEN_AFTER
        self._scored = {
            name: (stamp, when)
            for name, (stamp, when) in self._scored.items()
            if name in present or when > old
        }
        self._open_anew()

    def _open_anew(self) -> None:
        """Write all that is known, and take the lock on the file."""
        self._file = _dropped(self._file)
        with _locked(self._path):
            lines = [_line(n, s, when) for n, (s, when) in self._scored.items()]
            write_text(self._path, "".join(lines))
            self._file = _locked(self._path)


def _dropped(file: IO[str] | None) -> None:
    """Closed, whether or not all could be written."""
    if file is not None:
        with contextlib.suppress(OSError):
            file.close()


def _locked(path: Path) -> Any:
    """The file, opened to be added to; no other watch can open it so.

    Raises:
        InputError: another one has.
    """
    file = path.open("a", encoding="utf-8", newline="")
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise InputError(
                f"{printable(path)}: another watch is using it: end that one, or give "
                "another file by --state"
            ) from error
        except OSError:  # a share that knows no locks
            pass
    return file


def _read(path: Path) -> dict[str, tuple[Stamp, float]]:
    """What is known; lines that were cut off are left out.

    Raises:
        InputError: it begins with something else.
    """
    scored = {}
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines):
        try:
            entry = json.loads(line)
            stamp = Stamp(int(entry["size"]), int(entry["mtime_ns"]))
            scored[str(entry["file"])] = stamp, float(entry["time"])
        except (ValueError, TypeError, KeyError) as error:
            if number == 0 and not (len(lines) == 1 and _is_cut_off(line)):
                raise InputError(
                    f"{printable(path)} is none of a watch: give another file by "
                    "--state"
                ) from error
    return scored


def _is_cut_off(line: str) -> bool:
    """Whether this is the beginning of a line of ours, as of one never ended."""
    return line[: len(_BEGINNING)] == _BEGINNING[: len(line)] and line[-1:] != "}"


def _line(name: str, stamp: Stamp, when: float) -> str:
    entry = {"file": name, **stamp._asdict(), "time": round(when, 3)}
    return json.dumps(entry) + "\n"
