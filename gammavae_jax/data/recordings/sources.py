"""Finds a user's recordings (files, folders and arrays), and duplicate recordings."""

import hashlib
import numbers
import os
import reprlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gammavae_jax.data.audio.channels import ChannelLevels, Channels, require_channels
from gammavae_jax.data.audio.files import Recording, read_recording
from gammavae_jax.data.audio.listing import left_out_lines, require_listing
from gammavae_jax.data.audio.samples import waveform_of, whole_rate
from gammavae_jax.data.clips import in_threads
from gammavae_jax.data.names import nfc
from gammavae_jax.errors import InputError, printable, unknown_name

Recordings = Any  # the path of a file or a folder, a waveform, or several of these
_PATH = (str, os.PathLike)


class RecordingSource(NamedTuple):
    """A recording that has not been read yet."""

    name: str
    read: Callable[[Channels], Recording]
    parts: tuple[str, ...] = ()  # of its path, starting with the given folder


def find_recordings(
    recordings: Recordings,
    sample_rate: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> list[RecordingSource]:
    """Find a user's recordings and give each one a name.

    Args:
        recordings: the path of a WAV or FLAC file, or of a folder, which is searched
            with its subfolders; a waveform of shape `sample` or `sample channel`; or a
            list of these.
        sample_rate: the waveforms' sample rate in Hz; files state their own.
        say: called with a line for each reason why files in a folder are left out.
    """
    sample_rate = whole_rate(sample_rate)
    # Arrays of NumPy, JAX or another library are waveforms. Those of text or objects
    # are lists, such as a column of paths from pandas.
    is_array = hasattr(recordings, "__array__")
    is_array = is_array and np.asarray(recordings).dtype.kind not in "OU"
    if is_array or isinstance(recordings, _PATH):
        recordings = [recordings]
    elif isinstance(recordings, Set):
        raise InputError("recordings are a set, which has no order: pass a list")
    elif not isinstance(recordings, Iterable):
        raise InputError(
            f"recordings have the type {type(recordings).__name__}: pass a path, a "
            "list of paths, or arrays with a sample_rate"
        )
    found: list[RecordingSource] = []
    items = list(recordings)
    if any(isinstance(item, str) and not item for item in items):
        raise InputError("a path is empty: for the current folder, pass '.'")
    paths = [Path(item) for item in items if isinstance(item, _PATH)]
    folders = {path for path in paths if path.is_dir()}
    labels = _folder_labels(paths, folders) if len(items) > 1 else {}
    for number, item in enumerate(items):
        if not isinstance(item, _PATH):
            found.append(_of_array(item, sample_rate, f"array {number}"))
        elif (path := Path(item)) in folders:
            found += _of_folder(path, labels.get(path, ""), say)
        else:
            found.append(_of_file(path, str(path), (path.parent.name, path.name)))
    if not found:
        raise InputError("no recordings: the list is empty; pass files or a folder")
    return _with_unlike_names(found)


def _of_folder(
    path: Path, label: str, say: Callable[[str], None]
) -> list[RecordingSource]:
    """Return a folder's recordings, named by the folder's label and their own paths."""
    listing = require_listing(path)
    lines = left_out_lines(path, listing.left_out)
    if not listing.recordings:
        raise InputError(
            f"no recordings in {str(path)!r}: it must contain .wav or .flac files"
            + "".join(f"; {line}" for line in lines)
        )
    for line in lines:
        say(line)
    own_name = os.path.basename(os.path.abspath(path))
    return [
        _of_file(path / name, str(Path(label, name)), (own_name, *name.split("/")))
        for name in listing.recordings
    ]


def _folder_labels(paths: Sequence[Path], folders: Collection[Path]) -> dict[Path, str]:
    """Label each folder with the shortest end of its path that no other folder shares.

    The other folders include the folders that contain the given files.
    """
    ends = [Path(os.path.abspath(p if p in folders else p.parent)) for p in paths]

    def end(folder: Path, depth: int) -> tuple[str, ...]:
        return tuple(nfc(part).casefold() for part in folder.parts[-depth:])

    labels = {}
    for path, folder in zip(paths, ends, strict=True):
        others, depth = set(ends) - {folder}, 1
        while depth < len(folder.parts) and any(
            end(folder, depth) == end(other, depth) for other in others
        ):
            depth += 1
        labels[path] = str(Path(*folder.parts[-depth:]))
    return labels


def _with_unlike_names(found: list[RecordingSource]) -> list[RecordingSource]:
    """Escape the non-ASCII characters in names that look alike."""
    alike = defaultdict(set)
    for source in found:
        alike[nfc(printable(source.name))].add(source.name)
    names = (
        ascii(name)[1:-1] if len(alike[nfc(printable(name))]) > 1 else printable(name)
        for name, *_ in found
    )
    return [of._replace(name=name) for of, name in zip(found, names, strict=True)]


def _of_file(path: Path, name: str, parts: tuple[str, ...]) -> RecordingSource:
    return RecordingSource(name, lambda channel: read_recording(path, channel), parts)


def _of_array(array: Any, sample_rate: int | None, name: str) -> RecordingSource:
    if isinstance(array, Recording):  # the caller has read it
        return RecordingSource(name, lambda channels: array)
    samples = waveform_of(array, name)
    if sample_rate is None:
        raise InputError(f"{name} has no sample rate: pass sample_rate in Hz")

    def read(channels: Channels) -> Recording:
        if samples.ndim == 1 and isinstance(channels, int):
            return Recording(samples, sample_rate)  # the caller has chosen the channel
        n_channels = 1 if samples.ndim == 1 else samples.shape[1]
        require_channels(channels, n_channels, name, "array")
        levels = ChannelLevels(n_channels)
        levels.add(samples)
        return Recording(samples[:, channels], sample_rate, levels, n_channels)

    return RecordingSource(name, read)


def of_training(recordings: Any, y: Any, sample_rate: Any) -> tuple[Any, int | None]:
    """Interpret the arguments of `fit`; return the recordings and the sample rate.

    If `y` is a single value, it is the sample rate. Otherwise, it holds labels, which
    must all be normal (0, False or "normal").

    Raises:
        InputError: a label is not normal, or labels and recordings do not match.
    """
    is_several = isinstance(y, Iterable) and not isinstance(y, str | bytes)
    if y is None or not is_several or getattr(y, "ndim", 1) == 0:
        if y is not None and sample_rate is not None:
            raise InputError("fit got two sample rates: pass only one")
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
        is_zero = isinstance(label, numbers.Real | np.bool_) and label == 0
        if not is_zero and not (isinstance(label, str) and label == "normal"):
            raise InputError(
                f"y labels recording {number} as {reprlib.repr(label)}: fit on normal "
                "recordings only, labelled 0, and leave the others out"
            )
    return recordings, whole_rate(sample_rate)


def by_machine(recordings: Any, default: str) -> dict[str, Recordings]:
    """Group recordings by machine; if no dict is given, the machine is `default`.

    Raises:
        InputError: the dict is empty, a name in it is not printable text, or two names
            differ only in their Unicode form.
    """
    if not isinstance(recordings, Mapping):
        return {default: recordings}
    if not recordings:
        raise InputError("the dict of recordings is empty: add a machine")
    for name in recordings:
        if not isinstance(name, str) or not name.isprintable() or not name:
            raise InputError(
                f"the machine name {name!r} is not printable text: use another name, "
                f"such as {str(name).strip() or 'pump'!r}"
            )
    forms = Counter(map(nfc, recordings))
    if same := [name for name in recordings if forms[nfc(name)] > 1]:
        names = " and ".join(map(ascii, same))
        raise InputError(
            f"the machine names {names} are the same text in Unicode: put their "
            "recordings under one of them"
        )
    return {str(name): of_machine for name, of_machine in recordings.items()}


def of_known_machines(
    recordings: Any, machine: str | None, known: Sequence[str]
) -> dict[str, Recordings]:
    """Group recordings by machine as `by_machine` does, but reject unknown machines.

    Raises:
        InputError: a machine is unknown, or it is unclear which one is meant.
    """
    if isinstance(recordings, Mapping):
        if machine is not None:
            raise InputError(
                "pass either the argument 'machine' or a dict of machines, not both"
            )
        recordings = by_machine(recordings, "")
    else:
        recordings = {one_machine(machine, known): recordings}
    return {known_machine(name, known): of for name, of in recordings.items()}


def one_machine(machine: str | None, known: Sequence[str]) -> str:
    """Return a known machine; None stands for the only machine if there is just one."""
    if machine is None and len(known) > 1:
        raise InputError(
            f"this detector knows the machines {', '.join(known)}: state which "
            "machine the recordings come from"
        )
    return known_machine(known[0] if machine is None else machine, known)


def known_machine(name: str, known: Iterable[str]) -> str:
    """Look up a machine by its name in any Unicode form; reject unknown names."""
    of_form = {nfc(k): k for k in known}
    if nfc(str(name)) not in of_form:
        raise InputError(unknown_name("machine", name, of_form.values()))
    return of_form[nfc(str(name))]


def find_duplicates(
    first: Sequence[RecordingSource],
    second: Sequence[RecordingSource],
    channels: Channels,
) -> list[tuple[str, str]]:
    """Return the two names of each recording that is in both sets.

    Recordings are duplicates if their sample rates and the samples of these channels
    are equal, even if one is a WAV file and the other is a FLAC file. An unreadable
    file has no duplicates.
    """

    def checksum(source: RecordingSource) -> str | None:
        try:
            recording = source.read(channels)
        except InputError:
            return None
        digest = hashlib.blake2b(str(recording.sample_rate).encode(), digest_size=20)
        digest.update(recording.waveform.tobytes())
        return digest.hexdigest()

    of_first = in_threads(checksum, first)
    names = {c: s.name for s, c in zip(first, of_first, strict=True) if c is not None}
    of_second = zip(second, in_threads(checksum, second), strict=True)
    return [(names[c], source.name) for source, c in of_second if c in names]
