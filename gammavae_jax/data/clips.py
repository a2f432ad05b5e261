"""Decode the clips of a machine, in threads, and compute their log-mels."""

import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int
from threadpoolctl import threadpool_limits

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.audio import read_clip
from gammavae_jax.data.features import log_mel, n_frames, samples_needed
from gammavae_jax.data.machines import ClipFile
from gammavae_jax.errors import InputError, printable
from gammavae_jax.process import available_cores

_KEPT_BYTES = 31 << 20  # just below the largest block from which glibc learns


class Clips(NamedTuple):
    """Log-mels of one machine's clips on the host, each with its own length.

    Where recordings were cut, `recording` is the number of each clip's recording.
    """

    files: tuple[ClipFile, ...]
    log_mels: tuple[Float[np.ndarray, "frame mel"], ...]
    recording: Int[np.ndarray, "clip"] | None = None


NamedClips = Sequence[tuple[str, Clips]]  # the name of each machine, and its clips


def load_clips(
    files: Sequence[ClipFile],
    filterbank: Float[np.ndarray, "bin mel"],
    config: FeatureConfig,
    on_bad_file: Callable[[InputError], None] | None = None,
    on_clip: Callable[[], None] = lambda: None,
) -> Clips:
    """Decode recordings and compute their log-mels, in threads.

    Args:
        files: the recordings.
        filterbank: see `mel_filterbank`; a detector brings its own.
        config: of the features.
        on_bad_file: called for each file that cannot be used, which is then left
            out; without it such a file is an error.
        on_clip: called after each file, for a progress bar.

    Raises:
        InputError: a file that cannot be used, or none that can.
    """
    good_files, log_mels = [], []

    def load(file: ClipFile) -> Float[np.ndarray, "frame mel"] | InputError:
        try:
            return clip_log_mel(file.path, filterbank, config)
        except InputError as error:
            return error

    for file, loaded in zip(files, in_threads(load, files), strict=True):
        on_clip()
        if not isinstance(loaded, InputError):
            good_files.append(file)
            log_mels.append(loaded)
        elif on_bad_file is None:
            raise loaded
        else:
            on_bad_file(loaded)
    require_usable(files, good_files)
    return Clips(tuple(good_files), tuple(log_mels))


def require_usable(files: Sequence[ClipFile], usable: Collection[ClipFile]) -> None:
    """Refuse recordings of which none can be used.

    Raises:
        InputError: none can.
    """
    if not usable:
        raise InputError(f"no usable recording in {printable(files[0].path.parent)}")


def clip_log_mel(
    path: Path, filterbank: Float[np.ndarray, "bin mel"], config: FeatureConfig
) -> Float[np.ndarray, "frame mel"]:
    """The log-mel of one recording.

    Raises:
        InputError: see `clip_waveform`.
    """
    return log_mel(clip_waveform(path, config), filterbank, config)


def clip_waveform(path: Path, config: FeatureConfig) -> Float32[np.ndarray, "sample"]:
    """The samples of one recording.

    Raises:
        InputError: it cannot be read, or has too few frames for one window.
    """
    waveform = read_clip(path, sample_rate=config.sample_rate, channel=config.channel)
    require_window(len(waveform), printable(path), config)
    return waveform


def require_window(n_samples: int, name: str, config: FeatureConfig) -> None:
    """Refuse a clip that is too short for one window.

    Raises:
        InputError: the clip.
    """
    frames = n_frames(n_samples, config)
    if frames < config.n_context:
        raise InputError(
            f"{name}: {n_samples} samples give {frames} frames, too few for one "
            f"window, which needs {samples_needed(config)} samples: remove it"
        )


def in_threads(function: Callable, items: Sequence) -> Iterator:
    """`map` in a thread for each core; more of them only wait for each other.

    Each computes alone, so BLAS must not start its own.
    """
    # Once glibc has freed a block of this size, it keeps what is freed for the next
    # clip. To get and give back its pages takes as long as the transforms.
    np.empty(_KEPT_BYTES, np.uint8)
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(available_cores()) as pool:
        try:
            yield from pool.map(function, items)
        finally:
            pool.shutdown(cancel_futures=True)


def clip_identities(clips: Clips) -> list[str]:
    """Each clip's name and a checksum of its log-mel: other sounds are other clips."""
    return [
        f"{file.path.name} {zlib.crc32(log_mel.tobytes()):08x}"
        for file, log_mel in zip(clips.files, clips.log_mels, strict=True)
    ]
