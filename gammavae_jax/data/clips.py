"""Decodes a machine's clips and computes their log-mels, in several threads."""

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int
from threadpoolctl import threadpool_limits

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.audio.files import read_clip
from gammavae_jax.data.audio.samples import Signal
from gammavae_jax.data.features import n_frames, samples_needed
from gammavae_jax.data.machines import ClipFile
from gammavae_jax.data.reference_channel import Spectrogram, spectrogram
from gammavae_jax.errors import InputError, printable
from gammavae_jax.log import waiting_for
from gammavae_jax.process import available_cores

_KEPT_BYTES = 31 << 20  # just below the maximum of glibc's dynamic mmap threshold


class Clips(NamedTuple):
    """One machine's clips as log-mels on the host, each with its own length."""

    files: tuple[ClipFile, ...]
    log_mels: tuple[Float[np.ndarray, "frame mel"], ...]
    # The number of the recording that each clip was cut from, or None if none was cut.
    recording: Int[np.ndarray, "clip"] | None = None
    # Each pair of sample rate (Hz, before resampling) and number of channels (0 for an
    # array of one channel) in a user's recordings.
    formats: frozenset[tuple[int, int]] = frozenset()
    # By how many dB subtracting a reference channel lowers each clip's power, if any.
    explained: tuple[float, ...] = ()
    # The number of each clip's group, or None if the user has not grouped recordings.
    group: Int[np.ndarray, "clip"] | None = None
    signals: tuple[Signal, ...] = ()  # of a user's recordings


NamedClips = Sequence[tuple[str, Clips]]  # the name of each machine, and its clips


def recording_numbers(clips: Clips) -> Int[np.ndarray, "clip"]:
    """Return, for each clip, the number of the recording that it was cut from."""
    every = np.arange(len(clips.files))
    return every if clips.recording is None else clips.recording


def group_numbers(clips: Clips) -> Int[np.ndarray, "clip"]:
    """Return each clip's group number, or recording number if there are no groups."""
    return recording_numbers(clips) if clips.group is None else clips.group


def without_attributes(files: Sequence[ClipFile]) -> tuple[ClipFile, ...]:
    """Return the files with the attributes removed from their parsed names."""
    return tuple(f._replace(name=f.name._replace(attributes="")) for f in files)


def load_clips(
    files: Sequence[ClipFile],
    filterbank: Float[np.ndarray, "bin mel"],
    config: FeatureConfig,
    on_bad_file: Callable[[InputError], None] | None = None,
    on_clip: Callable[[], None] = lambda: None,
) -> Clips:
    """Decode recordings and compute their log-mels, in several threads.

    Args:
        files: the recordings.
        filterbank: from `mel_filterbank`, or stored in a detector.
        config: the feature settings.
        on_bad_file: called for each unusable file, which is then left out; without it,
            an unusable file raises an error.
        on_clip: called after each file, for a progress bar.

    Raises:
        InputError: a file cannot be used, or no file can be used.
    """

    def load(file: ClipFile) -> Spectrogram:
        return clip_spectrogram(file.path, filterbank, config)

    loaded = list(load_usable(load, files, on_bad_file, on_clip))
    require_usable(files, loaded)
    of_clips = [of_clip for _, of_clip in loaded]
    return Clips(
        tuple(file for file, _ in loaded),
        tuple(of_clip.log_mel for of_clip in of_clips),
        explained=levels_explained(of_clips),
    )


def levels_explained(of_clips: Sequence[Spectrogram]) -> tuple[float, ...]:
    """Return `Clips.explained` for clips with these spectrograms."""
    levels = (of_clip.explained for of_clip in of_clips)
    return tuple(level for level in levels if level is not None)


def load_usable(
    load: Callable[[Any], Any],
    items: Sequence[Any],
    on_bad: Callable[[InputError], None] | None,
    on_item: Callable[[], None],
) -> Iterator[tuple[Any, Any]]:
    """Load items in several threads; yield each usable item with its result.

    For `on_bad` and `on_item`, see `load_clips`.
    """

    def attempt(item: Any) -> Any:
        try:
            return load(item)
        except InputError as error:
            return error

    for item, loaded in zip(items, in_threads(attempt, items), strict=True):
        on_item()
        if not isinstance(loaded, InputError):
            yield item, loaded
        elif on_bad is None:
            raise loaded
        else:
            on_bad(loaded)


def require_usable(files: Sequence[ClipFile], usable: Collection) -> None:
    """Raise an InputError if no recording can be used."""
    if not usable:
        raise InputError(
            f"no usable recordings in {printable(files[0].path.parent)}: add some"
        )


def clip_spectrogram(
    path: Path, filterbank: Float[np.ndarray, "bin mel"], config: FeatureConfig
) -> Spectrogram:
    """Compute the log-mel of one recording; see `clip_waveform` for errors."""
    return spectrogram(clip_waveform(path, config), filterbank, config)


def clip_waveform(
    path: Path, config: FeatureConfig
) -> Float32[np.ndarray, "sample *channel"]:
    """Read the samples of one recording.

    Raises:
        InputError: the file cannot be read, or is too short for one window.
    """
    rate, channels = config.sample_rate, config.channels
    waveform = read_clip(path, sample_rate=rate, channel=channels)
    require_window(len(waveform), printable(path), config)
    return waveform


def require_window(n_samples: int, name: str, config: FeatureConfig) -> None:
    """Raise an InputError if a clip is too short for one window."""
    if n_frames(n_samples, config) < config.n_context:
        rate, needed = config.sample_rate, samples_needed(config)
        raise InputError(
            f"{name}: too short: {n_samples} samples ({n_samples / rate:.3g} s), but "
            f"one window needs {needed} ({needed / rate:.3g} s): remove or replace the "
            "recording"
        )


def in_threads(function: Callable, items: Sequence) -> Iterator:
    """Apply a function to items in one thread per core; BLAS starts no threads."""
    # Once glibc has freed a block of this size, it keeps freed memory for the next
    # clip. Returning memory to the system takes as long as the Fourier transforms.
    np.empty(_KEPT_BYTES, np.uint8)
    remedy = "check whether its disk or network folder still responds"
    with (
        threadpool_limits(1, "blas"),
        waiting_for("a recording", remedy) as step,
        ThreadPoolExecutor(available_cores()) as pool,
    ):
        try:
            for result in pool.map(function, items):
                step()
                yield result
        finally:
            pool.shutdown(cancel_futures=True)


def clip_identities(clips: Clips) -> list[str]:
    """Return each clip's name, followed by a checksum of its log-mel."""
    return [
        f"{file.path.name} {blake2b(log_mel.tobytes(), digest_size=8).hexdigest()}"
        for file, log_mel in zip(clips.files, clips.log_mels, strict=True)
    ]
