"""Finds a user's recordings: files, folders and arrays."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gammavae_jax.data.audio import Recording, read_recording, require_finite
from gammavae_jax.data.names import AUDIO_SUFFIXES
from gammavae_jax.errors import InputError, printable, unknown_name

Recordings = Any  # the path of a file or a folder, a waveform, or several of these


class RecordingSource(NamedTuple):
    """A recording that has not been read yet."""

    name: str
    read: Callable[[int], Recording]  # takes the channel


def find_recordings(
    recordings: Recordings, sample_rate: int | None = None
) -> list[RecordingSource]:
    """Find a user's recordings, and name each one.

    Args:
        recordings: a WAV or FLAC file, a folder (searched with its subfolders), a
            waveform, or a list of these.
        sample_rate: the waveforms' sample rate in Hz; files have their own.
    """
    is_array = hasattr(recordings, "__array__")  # of NumPy, JAX or another library
    if is_array or isinstance(recordings, str | os.PathLike):
        recordings = [recordings]
    elif not isinstance(recordings, Iterable):
        raise InputError(
            f"recordings are of the type {type(recordings).__name__}: pass a path, a "
            "list of paths, or arrays with a sample_rate"
        )
    found: list[RecordingSource] = []
    items = list(recordings)
    for number, item in enumerate(items):
        if isinstance(item, str | os.PathLike):
            # Two folders may hold files of the same name.
            path = Path(item)
            in_folder = len(items) > 1 and path.is_dir()
            found += _of_path(path, within=path.name if in_folder else "")
        else:
            found.append(_of_array(item, sample_rate, f"array {number}"))
    if not found:
        raise InputError("the list of recordings is empty: pass files or a folder")
    return found


def _of_path(path: Path, within: str = "") -> list[RecordingSource]:
    """List the recordings at a path; prefix their names with `within`, if set."""
    if not path.is_dir():
        return [_of_file(path, printable(path))]
    files = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in AUDIO_SUFFIXES
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    if not files:
        raise InputError(
            f"no recordings in {str(path)!r}: it must contain .wav or .flac files"
        )
    names = (printable(Path(within, file.relative_to(path))) for file in files)
    return list(map(_of_file, files, names))


def _of_file(path: Path, name: str) -> RecordingSource:
    return RecordingSource(name, lambda channel: read_recording(path, channel))


def _of_array(array: Any, sample_rate: int | None, name: str) -> RecordingSource:
    waveform = np.asarray(array)
    if waveform.ndim != 1 or waveform.dtype.kind not in "fi":
        raise InputError(
            f"{name} has the shape {waveform.shape} and the type {waveform.dtype}: "
            "pass one-dimensional arrays of samples, one per recording"
        )
    if sample_rate is None:
        raise InputError(f"{name} has no sample rate: pass sample_rate in Hz")
    if not 0 < sample_rate <= 1_000_000 or int(sample_rate) != sample_rate:
        raise InputError(f"sample_rate is {sample_rate}: use a whole number of Hz")
    if waveform.dtype.kind == "i":
        waveform = waveform / -float(np.iinfo(waveform.dtype).min)
    waveform = waveform.astype(np.float32)
    require_finite(waveform, name)
    return RecordingSource(name, lambda channel: Recording(waveform, int(sample_rate)))


def of_known_machines(
    recordings: Any, machine: str | None, known: Sequence[str]
) -> dict[str, Recordings]:
    """Return recordings by machine, and check that the machines are known.

    Raises:
        InputError: a machine is unknown, or it is unclear which one is meant.
    """
    if isinstance(recordings, Mapping):
        if machine is not None:
            raise InputError("pass either machine or a dict of machines, not both")
        if not recordings:
            raise InputError("the dict is empty: pass at least one machine")
    else:
        if machine is None and len(known) > 1:
            raise InputError(
                f"this detector knows {', '.join(known)}: say which machine the "
                "recordings come from"
            )
        recordings = {machine or known[0]: recordings}
    for name in recordings:
        if name not in known:
            raise InputError(unknown_name("machine", name, known))
    return dict(recordings)
