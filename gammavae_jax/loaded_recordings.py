"""Recordings of machines, read, resampled and cut: the clips that models know."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int

from gammavae_jax.clip_files import ClipFile
from gammavae_jax.clip_name import parse_clip_name
from gammavae_jax.config import FeatureConfig
from gammavae_jax.dataset import Clips, in_threads, require_window
from gammavae_jax.errors import InputError, unknown_name
from gammavae_jax.features import log_mel
from gammavae_jax.log import Log
from gammavae_jax.recordings import (
    Recordings,
    Source,
    cut,
    find_recordings,
    require_clip_length,
)
from gammavae_jax.resample import resampled


class LoadedRecordings(NamedTuple):
    """The clips of one machine's recordings."""

    names: tuple[str, ...]  # of recordings
    clips: Clips
    recording: Int[np.ndarray, "clip"]  # the number of each clip's recording
    resampled_from: frozenset[int]  # sample rates, Hz, that were not the features'
    sounds: tuple[Float32[np.ndarray, "_"], ...] = ()  # each clip's, if asked for

    def clip_name(self, clip: int) -> str:
        """The name of a clip's recording, and which part of it the clip is."""
        number = self.recording[clip]
        parts = np.flatnonzero(self.recording == number)
        part = f" part {clip - parts[0] + 1} of {len(parts)}"
        return self.names[number] + (part if len(parts) > 1 else "")


def load_recordings(
    sources: Sequence[Source],
    filterbank: Float[np.ndarray, "bin mel"],
    config: FeatureConfig,
    clip_seconds: float | None,
    on_recording: Callable[[], None] = lambda: None,
    keep_sounds: bool = False,
    on_bad_file: Callable[[InputError], None] | None = None,
) -> LoadedRecordings:
    """Read recordings, resample them where need be, cut them, and take log-mels.

    Args:
        sources: see `find_recordings`.
        filterbank: see `mel_filterbank`.
        config: of the features.
        clip_seconds: the length of clips that longer recordings are cut into; None
            leaves them whole.
        on_recording: called after each, for a progress bar.
        keep_sounds: the waveforms too, to be heard.
        on_bad_file: called for each recording that cannot be used, which is then left
            out; without it such a recording is an error.

    Raises:
        InputError: a recording that cannot be used.
    """
    n_samples = None
    if clip_seconds is not None:
        n_samples = require_clip_length(clip_seconds, config)

    def load(source: Source) -> tuple[int, list[Any], list[Any]] | InputError:
        try:
            waveform, rate = source.read(config.channel)
            waveform = resampled(waveform, rate, config.sample_rate)
            require_window(len(waveform), source.name, config)
        except InputError as error:
            return error
        pieces = cut(waveform, n_samples)
        spectrograms = [log_mel(piece, filterbank, config) for piece in pieces]
        return rate, spectrograms, pieces if keep_sounds else []

    names, files, log_mels, recording, rates, sounds = [], [], [], [], set(), []
    for source, loaded in zip(sources, in_threads(load, sources), strict=True):
        on_recording()
        if isinstance(loaded, InputError):
            if on_bad_file is None:
                raise loaded
            on_bad_file(loaded)
            continue
        rate, spectrograms, pieces = loaded
        path = Path(source.name)
        files += [ClipFile(path, parse_clip_name(path.name))] * len(spectrograms)
        log_mels += spectrograms
        recording += [len(names)] * len(spectrograms)
        names.append(source.name)
        rates.add(rate)
        sounds += pieces
    if not names:
        raise InputError("none of the recordings can be used: give others")
    return LoadedRecordings(
        tuple(names),
        Clips(tuple(files), tuple(log_mels)),
        np.array(recording),
        frozenset(rates - {config.sample_rate}),
        tuple(sounds),
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
    """The clips of several machines, by name; see `load_recordings`.

    Raises:
        InputError: a recording that cannot be used.
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
    """Recordings by machine, from a dict of them, or of the one machine there is.

    Raises:
        InputError: a machine that is not known, or several that it may be.
    """
    if isinstance(recordings, Mapping):
        if machine is not None:
            raise InputError("machine is given beside a dict of machines: give one")
        if not recordings:
            raise InputError("no machine: the dict is empty; give recordings of one")
    else:
        if machine is None and len(known) > 1:
            raise InputError(
                f"this detector knows {', '.join(known)}: say whose recordings these "
                "are"
            )
        recordings = {machine or known[0]: recordings}
    for name in recordings:
        if name not in known:
            raise InputError(unknown_name("machine", name, known))
    return dict(recordings)
