"""Cuts a user's recordings into clips of about equal length and loads them.

Clips of about the same length can be compared with each other. Each clip keeps the
number of its recording.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.audio.channels import ChannelLevels, near_waveform
from gammavae_jax.data.audio.files import resampled
from gammavae_jax.data.audio.samples import signal_of
from gammavae_jax.data.clips import (
    Clips,
    group_numbers,
    levels_explained,
    load_usable,
    recording_numbers,
    require_window,
    without_attributes,
)
from gammavae_jax.data.conditions import RecordedConditions
from gammavae_jax.data.features import samples_needed
from gammavae_jax.data.machines import clip_file
from gammavae_jax.data.names import require_normal_names
from gammavae_jax.data.recordings.sources import (
    Recordings,
    RecordingSource,
    find_recordings,
)
from gammavae_jax.data.reference_channel import spectrogram
from gammavae_jax.errors import InputError
from gammavae_jax.log import Log


def cut_lengths(n_samples: int, clip_samples: int | None) -> list[int]:
    """Return the lengths of the equal clips that a recording is cut into.

    A clip has about `clip_samples` samples; None keeps the recording whole.
    """
    n_clips = 1 if clip_samples is None else max(1, round(n_samples / clip_samples))
    return split_lengths(n_samples, n_clips)


def split_lengths(n_samples: int, n_clips: int) -> list[int]:
    """Return the lengths of `n_clips` clips, which differ by at most one sample."""
    length, n_longer = divmod(n_samples, n_clips)
    return [length + (number < n_longer) for number in range(n_clips)]


def cut(
    waveform: Float32[np.ndarray, "sample *channel"], clip_samples: int | None
) -> list[Float32[np.ndarray, "_ *channel"]]:
    """Cut a waveform into equal clips; see `cut_lengths`."""
    n_clips = len(cut_lengths(len(waveform), clip_samples))
    return np.array_split(waveform, n_clips)  # into the lengths of `split_lengths`


def cut_blocks(
    blocks: Iterable[Float32[np.ndarray, "_ *channel"]], lengths: Sequence[int]
) -> Iterator[Float32[np.ndarray, "_ *channel"]]:
    """Cut a recording that is read block by block into clips of the given lengths.

    The last clip also gets any samples beyond the sum of the lengths.
    """
    buffer, blocks = np.zeros(0, np.float32), iter(blocks)
    for length in lengths[:-1]:
        parts, n_samples = [buffer], len(buffer)
        while n_samples < length and (block := next(blocks, None)) is not None:
            parts.append(block)
            n_samples += len(block)
        buffer = np.concatenate([part for part in parts if len(part)] or parts)
        yield buffer[:length]
        buffer = buffer[length:]
    rest = [part for part in (buffer, *blocks) if len(part)]
    yield np.concatenate(rest or [buffer])


def require_clip_length(clip_seconds: float, config: FeatureConfig) -> int:
    """Return the number of samples per clip; reject clips below 1.5 windows."""
    least = 1.5 * samples_needed(config) / config.sample_rate
    if not least <= clip_seconds < math.inf:
        raise InputError(
            f"clip_seconds is {clip_seconds}: it must be at least {least:.2g} seconds"
        )
    return round(clip_seconds * config.sample_rate)


def parts_held_together(
    recording: Int[np.ndarray, "clip"], n_folds: int
) -> Int[np.ndarray, "clip"]:
    """Divide clips into parts that are held out whole; return each clip's part number.

    A part is a whole recording; but if there are fewer recordings than folds, each
    recording is divided into parts of successive clips.
    """
    each = [np.flatnonzero(recording == number) for number in np.unique(recording)]
    of_each = 1 if len(each) >= n_folds else -(-n_folds // len(each))
    parts = [
        part
        for clips in each
        for part in np.array_split(clips, min(of_each, len(clips)))
    ]
    result = np.empty(len(recording), int)
    for number, part in enumerate(parts):
        result[part] = number
    return result


class LoadedRecordings(NamedTuple):
    """The clips cut from one machine's recordings."""

    names: tuple[str, ...]  # of the recordings
    clips: Clips
    # Each clip's waveform, if kept; without the reference channel.
    sounds: tuple[Float32[np.ndarray, "_"], ...] = ()
    levels: tuple[ChannelLevels | None, ...] = ()  # of each recording
    seconds: tuple[float, ...] = ()  # of each clip

    @property
    def recording(self) -> Int[np.ndarray, "clip"]:
        """For each clip, the number of the recording that it was cut from."""
        return recording_numbers(self.clips)

    @property
    def recorded(self) -> RecordedConditions:
        """The properties that are compared with those of the training recordings."""
        clips, numbers = self.clips, self.recording.tolist()
        return RecordedConditions(clips.log_mels, clips.formats, self.levels, numbers)

    def clip_name(self, clip: int) -> str:
        """Return the recording's name, with a part number if the recording was cut."""
        number = self.recording[clip]
        parts = np.flatnonzero(self.recording == number)
        part = f" part {clip - parts[0] + 1} of {len(parts)}"
        return self.names[number] + (part if len(parts) > 1 else "")


def joined(*several: LoadedRecordings) -> LoadedRecordings:
    """Join sets of recordings; the groups of different sets stay separate."""

    def chain(values: Iterable[tuple]) -> tuple:
        return tuple(itertools.chain.from_iterable(values))

    clips = [of.clips for of in several]
    files, group = chain(of.files for of in clips), None
    if any(of.group is not None for of in clips):
        group = _successive(map(group_numbers, clips))
        files = without_attributes(files)
    return LoadedRecordings(
        chain(of.names for of in several),
        Clips(
            files,
            chain(of.log_mels for of in clips),
            _successive(of.recording for of in several),
            frozenset().union(*(of.formats for of in clips)),
            chain(of.explained for of in clips),
            group,
            chain(of.signals for of in clips),
        ),
        chain(of.sounds for of in several),
        chain(of.levels for of in several),
        chain(of.seconds for of in several),
    )


def _successive(several: Iterable[Int[np.ndarray, "_"]]) -> Int[np.ndarray, "_"]:
    """Concatenate arrays of numbers so that no two arrays share a number.

    Each array is shifted so that it continues where the previous one ends.
    """
    shifted, first = [], 0
    for numbers in several:
        shifted.append(numbers + first)
        first += numbers.max(initial=-1) + 1
    return np.concatenate(shifted)


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

    If `clip_seconds` is None, recordings are not cut. `keep_sounds` keeps the waveforms
    for playback. For the other arguments, see `load_clips`.
    """
    n_samples = None
    if clip_seconds is not None:
        n_samples = require_clip_length(clip_seconds, config)

    def load(source: RecordingSource) -> LoadedRecordings:
        recorded, rate, levels, n_channels = source.read(config.channels)
        waveform = resampled(recorded, rate, config.sample_rate)
        require_window(len(waveform), source.name, config)
        pieces = cut(waveform, n_samples)
        computed = [spectrogram(piece, filterbank, config) for piece in pieces]
        # Resampling rounds off flat tops, so the samples as recorded are measured.
        unchanged = np.array_split(near_waveform(recorded), len(pieces))
        clips = Clips(
            (clip_file(Path(source.name)),) * len(pieces),
            tuple(of_clip.log_mel for of_clip in computed),
            np.zeros(len(pieces), int),
            frozenset({(rate, n_channels)}),
            levels_explained(computed),
            signals=tuple(map(signal_of, unchanged)),
        )
        sounds = tuple(map(near_waveform, pieces)) if keep_sounds else ()
        seconds = tuple(len(piece) / config.sample_rate for piece in pieces)
        return LoadedRecordings((source.name,), clips, sounds, (levels,), seconds)

    usable = load_usable(load, sources, on_bad_file, on_recording)
    loaded = [of_recording for _, of_recording in usable]
    if not loaded:
        raise InputError("none of the recordings can be used: pass other recordings")
    return joined(*loaded)


def load_all(
    recordings: Mapping[str, Recordings],
    sample_rate: int | None,
    filterbank: Float[np.ndarray, "bin mel"],
    config: FeatureConfig,
    clip_seconds: float | None,
    log: Log,
    keep_sounds: bool = False,
    skip_bad_files: bool = False,
    for_training: bool = False,
) -> dict[str, LoadedRecordings]:
    """Load the clips of several machines, keyed by machine; see `load_recordings`.

    Raises:
        InputError: a recording cannot be used, and `skip_bad_files` is false; or the
            name of a training recording says that it is not normal.
    """
    sources = {
        name: find_recordings(of_machine, sample_rate, log.say)
        for name, of_machine in recordings.items()
    }
    if for_training:
        named = [(s.name, s.parts) for found in sources.values() for s in found]
        require_normal_names(named, "leave it out, or rename it if it is normal")
    features = filterbank, config, clip_seconds
    skip = (lambda error: log.say(f"skipped: {error}")) if skip_bad_files else None
    with log.progress("recordings", sum(map(len, sources.values()))) as advance:
        return {
            name: load_recordings(found, *features, advance, keep_sounds, skip)
            for name, found in sources.items()
        }
