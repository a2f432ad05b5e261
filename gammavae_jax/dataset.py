"""Recordings to `MachineArrays`: log-mels, padded, masked and stacked.

Clips may differ in length, and machines in clip count.
"""

import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, UInt32
from threadpoolctl import threadpool_limits

from gammavae_jax.audio import read_clip
from gammavae_jax.clip_files import ClipFile, is_supplemental
from gammavae_jax.config import FeatureConfig
from gammavae_jax.errors import InputError, printable
from gammavae_jax.features import log_mel, n_frames, samples_needed
from gammavae_jax.process import available_cores

AnyArray = Array | np.ndarray  # on a device or on the host

# What a window is used for. Padding must be 0: free slots are filled with zeros.
PADDING, TRAIN, HELD_OUT = 0, 1, 2

_KEPT_BYTES = 31 << 20  # just below the largest block from which glibc learns


class Clips(NamedTuple):
    """Log-mels of one machine's clips on the host, each with its own length."""

    files: tuple[ClipFile, ...]
    log_mels: tuple[Float[np.ndarray, "frame mel"], ...]


class MachineArrays(NamedTuple):
    """Clips of one machine, or with a leading axis of many, padded with zeros.

    `window_start` is the first frame of each window, as `clip * n_frames + frame` of
    the padded arrays. A clip of 0 frames is padding.
    """

    log_mel: Float[AnyArray, "*machine clip frame mel"]
    n_frames: Int[AnyArray, "*machine clip"]
    is_target: Bool[AnyArray, "*machine clip"]
    window_start: Int[AnyArray, "*machine window"]
    name_hash: UInt32[AnyArray, "*machine"]


class Room(NamedTuple):
    """What the arrays of a machine can hold; machines that are stacked share it."""

    clips: int
    frames: int  # of a clip
    windows: int

    def joined(self, other: "Room") -> "Room":
        """Room for what either has room for."""
        return Room(*map(max, self, other))


def room_needed(n_frames: Sequence[int], n_context: int) -> Room:
    """By one machine with clips of so many frames."""
    return Room(len(n_frames), max(n_frames), sum(t - n_context + 1 for t in n_frames))


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


def stack_machines(
    machines: Sequence[tuple[str, Clips]], n_context: int, room: Room | None = None
) -> MachineArrays:
    """Pad and stack clips; each entry is a machine's name and its clips.

    The arrays have at least the given room: machines elsewhere may need it.
    """
    log_mels = [clips.log_mels for _, clips in machines]
    lengths = [[len(spectrogram) for spectrogram in m] for m in log_mels]
    needed = [room_needed(of_machine, n_context) for of_machine in lengths]
    room = reduce(Room.joined, needed, room or needed[0])
    shape, most_frames = (len(machines), room.clips), room.frames
    stacked = MachineArrays(
        log_mel=np.zeros((*shape, most_frames, log_mels[0][0].shape[1]), np.float32),
        n_frames=np.zeros(shape, np.int32),
        is_target=np.zeros(shape, bool),
        window_start=np.zeros((len(machines), room.windows), np.int32),
        name_hash=np.array([hash_name(name) for name, _ in machines], np.uint32),
    )
    for m, (_, clips) in enumerate(machines):
        for c, spectrogram in enumerate(clips.log_mels):
            stacked.log_mel[m, c, : len(spectrogram)] = spectrogram
        stacked.n_frames[m, : len(clips.files)] = lengths[m]
        stacked.is_target[m, : len(clips.files)] = is_target(clips.files)
        starts = [
            c * most_frames + np.arange(t - n_context + 1)
            for c, t in enumerate(lengths[m])
        ]
        stacked.window_start[m, : sum(map(len, starts))] = np.concatenate(starts)
    return stacked


def clip_identities(clips: Clips) -> list[str]:
    """Each clip's name and a checksum of its log-mel: other sounds are other clips."""
    return [
        f"{file.path.name} {zlib.crc32(log_mel.tobytes()):08x}"
        for file, log_mel in zip(clips.files, clips.log_mels, strict=True)
    ]


def supplemental_clips(
    machines: Sequence[tuple[str, Clips]], n_clips: int
) -> Bool[np.ndarray, "machine clip"]:
    """Which clips of arrays with `n_clips` places are of a folder `supplemental`."""
    found = np.zeros((len(machines), n_clips), bool)
    for m, (_, clips) in enumerate(machines):
        found[m, : len(clips.files)] = [is_supplemental(file) for file in clips.files]
    return found


def is_target(files: Sequence[ClipFile]) -> Bool[np.ndarray, "clip"]:
    """Whether each clip belongs to the target domain, by its name."""
    return np.array([file.name.domain == "target" for file in files])


def is_anomaly(files: Sequence[ClipFile]) -> Bool[np.ndarray, "clip"] | None:
    """Whether each clip is anomalous, by its name; None where a name does not say."""
    if not all(file.name.label for file in files):
        return None
    return np.array([file.name.label == "anomaly" for file in files])


def hash_name(name: str) -> int:
    """A stable 32-bit hash, from which a machine's randomness is folded."""
    return zlib.crc32(name.encode())
