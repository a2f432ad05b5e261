"""Find the recordings that a user gave: files, folders and arrays."""

import numbers
import os
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gammavae_jax.data.audio import Recording, read_recording
from gammavae_jax.data.names import AUDIO_SUFFIXES
from gammavae_jax.data.sample_arrays import waveform_of, whole_rate
from gammavae_jax.errors import InputError, printable, unknown_name

Recordings = Any  # the path of a file or a folder, a waveform, or several of these


class RecordingSource(NamedTuple):
    """A recording that has not been read yet."""

    name: str
    read: Callable[[int], Recording]  # takes the channel


def find_recordings(
    recordings: Recordings, sample_rate: int | None = None
) -> list[RecordingSource]:
    """Find the recordings that a user gave, and name each one.

    Args:
        recordings: the path of a WAV or FLAC file, or of a folder, which is searched
            with its subfolders; a waveform; or a list of these.
        sample_rate: of waveforms, in Hz; files have their own.
    """
    sample_rate = whole_rate(sample_rate)
    is_array = hasattr(recordings, "__array__")  # of NumPy, JAX or another library
    if is_array or isinstance(recordings, str | os.PathLike):
        recordings = [recordings]
    elif not isinstance(recordings, Iterable):
        raise InputError(
            f"recordings are of the type {type(recordings).__name__}: give a path, a "
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
        elif isinstance(item, Recording):  # of a caller that has read it
            found.append(_already_read(item, f"array {number}"))
        else:
            found.append(_of_array(item, sample_rate, f"array {number}"))
    if not found:
        raise InputError("no recordings: the list is empty; give files or a folder")
    return found


def _of_path(path: Path, within: str = "") -> list[RecordingSource]:
    """Return the recordings at a path; their names start with `within`, if given."""
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


def _already_read(recording: Recording, name: str) -> RecordingSource:
    return RecordingSource(name, lambda channel: recording)


def _of_array(array: Any, sample_rate: int | None, name: str) -> RecordingSource:
    waveform = waveform_of(array, name)
    if sample_rate is None:
        raise InputError(f"{name} has no sample rate: give sample_rate, in Hz")
    return _already_read(Recording(waveform, sample_rate), name)


def of_training(recordings: Any, y: Any, sample_rate: Any) -> tuple[Any, int | None]:
    """Return the recordings and the sample rate that were passed to `fit`.

    `y` holds labels, which must all be normal (0, False or "normal"), or the sample
    rate if it is a single value.

    Raises:
        InputError: a label is not normal, or labels and recordings do not match.
    """
    is_several = isinstance(y, Iterable) and not isinstance(y, str | bytes)
    if y is None or not is_several or getattr(y, "ndim", 1) == 0:
        if y is not None and sample_rate is not None:
            raise InputError("fit got two sample rates: pass it one")
        return recordings, whole_rate(sample_rate if y is None else y)
    if isinstance(recordings, str | os.PathLike | Mapping):
        recordings = ()
    labels, recordings = list(y), list(recordings)
    if len(labels) != len(recordings):
        raise InputError(
            f"y has {len(labels)} labels, which do not match the recordings: pass a "
            "list of recordings with one label for each, or leave y out"
        )
    for number, label in enumerate(labels):
        is_number = isinstance(label, numbers.Real | np.bool_)
        if not (is_number and label == 0) and not _is_normal_word(label):
            raise InputError(
                f"y labels recording {number} as {reprlib.repr(label)}: fit only "
                "normal recordings, labelled 0, and leave the others out"
            )
    return recordings, whole_rate(sample_rate)


def _is_normal_word(label: Any) -> bool:
    return isinstance(label, str) and label == "normal"


def by_machine(recordings: Any, default: str) -> dict[str, Recordings]:
    """Return recordings by machine; those that are not in a dict are the default's.

    Raises:
        InputError: there is no machine, or a name is not a printable text.
    """
    if not isinstance(recordings, Mapping):
        return {default: recordings}
    if not recordings:
        raise InputError("no machine: the dict is empty; give recordings of one")
    for name in recordings:
        if not isinstance(name, str) or not name.isprintable() or not name:
            raise InputError(
                f"machine {name!r}: its name is not a printable text: rename it, such "
                f"as {str(name).strip() or 'pump'!r}"
            )
    return {str(name): of_machine for name, of_machine in recordings.items()}


def of_known_machines(
    recordings: Any, machine: str | None, known: Sequence[str]
) -> dict[str, Recordings]:
    """Assign recordings to known machines: from a dict, or to the only machine.

    Raises:
        InputError: a machine is unknown, or it is unclear which one is meant.
    """
    if isinstance(recordings, Mapping):
        if machine is not None:
            raise InputError("give either machine or a dict of machines, not both")
        recordings = by_machine(recordings, "")
    else:
        if machine is None and len(known) > 1:
            raise InputError(
                f"this detector knows {', '.join(known)}: name the machine of these "
                "recordings"
            )
        recordings = {known[0] if machine is None else machine: recordings}
    for name in recordings:
        if name not in known:
            raise InputError(unknown_name("machine", name, known))
    return dict(recordings)
