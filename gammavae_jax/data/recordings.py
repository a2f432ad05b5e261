"""Turn a user's files, folders and arrays into clips of about equal length.

Recordings longer than one and a half clips are cut into clips of equal length, so that
a model compares like with like. Each clip keeps the number of its recording.
"""

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.audio import Recording, read_recording, require_finite, resampled
from gammavae_jax.data.clips import Clips, in_threads, require_window
from gammavae_jax.data.features import log_mel, samples_needed
from gammavae_jax.data.machines import ClipFile
from gammavae_jax.data.names import AUDIO_SUFFIXES, parse_clip_name
from gammavae_jax.errors import InputError, printable, unknown_name
from gammavae_jax.log import Log

# The path of a file or a folder, a waveform, or several of these. Anything else is
# refused.
Recordings = Any


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

    Raises:
        InputError: there are no recordings, or something is not a recording.
    """
    if hasattr(recordings, "__array__"):  # NumPy, JAX and other waveforms
        return [_of_array(recordings, sample_rate, "array 0")]
    if isinstance(recordings, str | os.PathLike):
        return _of_path(Path(recordings))
    found: list[RecordingSource] = []
    items = list(_listed(recordings))
    for number, item in enumerate(items):
        if isinstance(item, str | os.PathLike):
            # Two folders may hold files of the same name.
            path = Path(item)
            in_folder = len(items) > 1 and path.is_dir()
            found += _of_path(path, within=path.name if in_folder else "")
        else:
            found.append(_of_array(item, sample_rate, f"array {number}"))
    if not found:
        raise InputError("no recordings: the list is empty; give files or a folder")
    return found


def cut(
    waveform: Float32[np.ndarray, "sample"], clip_samples: int | None
) -> list[Float32[np.ndarray, "_"]]:
    """Cut a waveform into equal pieces of about `clip_samples`; no sample is lost.

    None leaves the waveform whole.
    """
    if clip_samples is None:
        return [waveform]
    n_pieces = max(1, round(len(waveform) / clip_samples))
    return np.array_split(waveform, n_pieces)


def require_clip_length(clip_seconds: float, config: FeatureConfig) -> int:
    """The number of samples of a clip; its shortest piece must hold a window.

    Raises:
        InputError: the length is not finite, or too short.
    """
    shortest = 1.5 * samples_needed(config) / config.sample_rate
    if not shortest <= clip_seconds < math.inf:
        raise InputError(
            f"clip_seconds is {clip_seconds}: give {shortest:.2g} or more, in seconds"
        )
    return round(clip_seconds * config.sample_rate)


def parts_held_together(
    recording: Int[np.ndarray, "clip"], n_folds: int
) -> Int[np.ndarray, "clip"]:
    """The part that each clip belongs to; folds keep the clips of a part together.

    Parts are recordings. If there are fewer recordings than folds, each recording is
    divided into parts of successive clips.
    """
    numbers, sizes = np.unique(recording, return_counts=True)
    of_each = 1 if len(numbers) >= n_folds else -(-n_folds // len(numbers))
    parts, count = [], 0
    for size in sizes:
        for part in np.array_split(np.arange(size), min(of_each, size)):
            parts += [count] * len(part)
            count += 1
    return np.array(parts)


def _listed(recordings: Any) -> Iterable[Any]:
    if isinstance(recordings, Iterable):
        return recordings
    raise InputError(
        f"recordings are of the type {type(recordings).__name__}: give a path, a list "
        "of paths, or arrays with a sample_rate"
    )


def _of_path(path: Path, within: str = "") -> list[RecordingSource]:
    """The recordings at a path; names start with `within`, if given."""
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
    return [
        _of_file(file, printable(Path(within, file.relative_to(path))))
        for file in files
    ]


def _of_file(path: Path, name: str) -> RecordingSource:
    return RecordingSource(name, lambda channel: read_recording(path, channel))


def _of_array(array: Any, sample_rate: int | None, name: str) -> RecordingSource:
    waveform = np.asarray(array)
    if waveform.ndim != 1 or waveform.dtype.kind not in "fi":
        raise InputError(
            f"{name} has the shape {waveform.shape} and the type {waveform.dtype}: "
            "give one-dimensional arrays of samples, one a recording"
        )
    if sample_rate is None:
        raise InputError(f"{name} has no sample rate: give sample_rate, in Hz")
    if not 0 < sample_rate <= 1_000_000 or int(sample_rate) != sample_rate:
        raise InputError(f"sample_rate is {sample_rate}: give a whole number of Hz")
    if waveform.dtype.kind == "i":
        waveform = waveform / -float(np.iinfo(waveform.dtype).min)
    waveform = waveform.astype(np.float32)
    require_finite(waveform, name)
    return RecordingSource(name, lambda channel: Recording(waveform, int(sample_rate)))


class LoadedRecordings(NamedTuple):
    """The clips of one machine's recordings."""

    names: tuple[str, ...]  # of the recordings
    clips: Clips
    resampled_from: frozenset[int]  # sample rates, Hz, that were not the features'
    sounds: tuple[Float32[np.ndarray, "_"], ...] = ()  # each clip's, if asked for

    @property
    def recording(self) -> Int[np.ndarray, "clip"]:
        """The number of the recording that each clip was cut from."""
        number = self.clips.recording
        return np.arange(len(self.clips.files)) if number is None else number

    def clip_name(self, clip: int) -> str:
        """The name of a clip's recording, and which part of it the clip is."""
        number = self.recording[clip]
        parts = np.flatnonzero(self.recording == number)
        part = f" part {clip - parts[0] + 1} of {len(parts)}"
        return self.names[number] + (part if len(parts) > 1 else "")


def load_recordings(
    sources: Sequence[RecordingSource],
    filterbank: Float[np.ndarray, "bin mel"],
    config: FeatureConfig,
    clip_seconds: float | None,
    on_recording: Callable[[], None] = lambda: None,
    keep_sounds: bool = False,
    on_bad_file: Callable[[InputError], None] | None = None,
) -> LoadedRecordings:
    """Read, resample and cut recordings, and compute the log-mels of their clips.

    Args:
        sources: see `find_recordings`.
        filterbank: see `mel_filterbank`.
        config: of the features.
        clip_seconds: the length of clips that longer recordings are cut into; None
            leaves them whole.
        on_recording: called after each recording, for a progress bar.
        keep_sounds: whether to keep the waveforms for playback.
        on_bad_file: called for each unusable recording, which is then skipped;
            default: such a recording is an error.

    Raises:
        InputError: a recording cannot be used.
    """
    n_samples = None
    if clip_seconds is not None:
        n_samples = require_clip_length(clip_seconds, config)

    def load(source: RecordingSource) -> _Pieces | InputError:
        try:
            waveform, rate = source.read(config.channel)
            waveform = resampled(waveform, rate, config.sample_rate)
            require_window(len(waveform), source.name, config)
        except InputError as error:
            return error
        pieces = cut(waveform, n_samples)
        log_mels = [log_mel(piece, filterbank, config) for piece in pieces]
        return _Pieces(source.name, rate, log_mels, pieces if keep_sounds else [])

    loaded: list[_Pieces] = []
    for of_recording in in_threads(load, sources):
        on_recording()
        if isinstance(of_recording, _Pieces):
            loaded.append(of_recording)
        elif on_bad_file is None:
            raise of_recording
        else:
            on_bad_file(of_recording)
    if not loaded:
        raise InputError("none of the recordings can be used: give others")
    return _joined(loaded, config)


class _Pieces(NamedTuple):
    """The clips that a recording was cut into."""

    name: str
    sample_rate: int  # Hz, before resampling
    log_mels: list[Float[np.ndarray, "frame mel"]]
    sounds: list[Float32[np.ndarray, "_"]]  # empty if not kept


def _joined(loaded: Sequence[_Pieces], config: FeatureConfig) -> LoadedRecordings:
    """The clips of all recordings."""
    counts = [len(of_recording.log_mels) for of_recording in loaded]
    paths = [Path(of_recording.name) for of_recording in loaded]
    files = [ClipFile(path, parse_clip_name(path.name)) for path in paths]
    recording = np.repeat(np.arange(len(loaded)), counts)
    rates = {of_recording.sample_rate for of_recording in loaded}
    return LoadedRecordings(
        tuple(of_recording.name for of_recording in loaded),
        Clips(
            tuple(files[number] for number in recording),
            tuple(x for of_recording in loaded for x in of_recording.log_mels),
            recording,
        ),
        frozenset(rates - {config.sample_rate}),
        tuple(x for of_recording in loaded for x in of_recording.sounds),
    )


def load_all(
    recordings: Mapping[str, Recordings],
    sample_rate: int | None,
    filterbank: Float[np.ndarray, "bin mel"],
    config: FeatureConfig,
    clip_seconds: float | None,
    log: Log,
    keep_sounds: bool = False,
    skip_bad_files: bool = False,
) -> dict[str, LoadedRecordings]:
    """Load the clips of several machines by name; see `load_recordings`.

    Raises:
        InputError: a recording cannot be used.
    """
    sources = {n: find_recordings(r, sample_rate) for n, r in recordings.items()}

    def skip(error: InputError) -> None:
        log.say(f"skipped: {error}")

    on_bad_file = skip if skip_bad_files else None
    with log.progress("recordings", sum(map(len, sources.values()))) as advance:
        return {
            name: load_recordings(
                found,
                filterbank,
                config,
                clip_seconds,
                advance,
                keep_sounds,
                on_bad_file,
            )
            for name, found in sources.items()
        }


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
        if not recordings:
            raise InputError("no machine: the dict is empty; give recordings of one")
    else:
        if machine is None and len(known) > 1:
            raise InputError(
                f"this detector knows {', '.join(known)}: name the machine of these "
                "recordings"
            )
        recordings = {machine or known[0]: recordings}
    for name in recordings:
        if name not in known:
            raise InputError(unknown_name("machine", name, known))
    return dict(recordings)
