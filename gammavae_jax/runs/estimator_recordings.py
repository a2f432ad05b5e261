"""Loads the recordings that a user passes to an `AnomalyDetector`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from gammavae_jax.config import Config
from gammavae_jax.data.conditions import Conditions, notes_on
from gammavae_jax.data.recordings.clips import LoadedRecordings, load_all
from gammavae_jax.data.recordings.sources import Recordings
from gammavae_jax.log import Log


def load_noted(
    recordings: Mapping[str, Recordings],
    sample_rate: int | None,
    bank: Float[np.ndarray, "bin mel"],
    config: Config,
    trained: Mapping[str, Conditions] | None,
    keep_sounds: bool = False,
    for_training: bool = False,
    *,
    parameters: Mapping[str, Any],
    log: Log,
    said: frozenset[str],
) -> tuple[dict[str, LoadedRecordings], frozenset[str]]:
    """Load machines' clips; report each kind of change since training only once.

    Args:
        recordings: the recordings of each machine.
        sample_rate: the waveforms' sample rate in Hz.
        bank: the filterbank of the log-mels.
        config: the configuration.
        trained: the training conditions of each machine; None before training.
        keep_sounds: whether to keep the waveforms, for playback.
        for_training: whether all recordings must be normal.
        parameters: the estimator's plain parameters.
        log: shows progress and notes.
        said: the kinds of notes that were shown already.

    Returns:
        The recordings, and the kinds of notes that have now been shown.

    Raises:
        InputError: see `load_all`.
    """
    clip_seconds, skip = parameters["clip_seconds"], parameters["skip_bad_files"]
    options = clip_seconds, log, keep_sounds, skip, for_training
    loaded = load_all(recordings, sample_rate, bank, config.features, *options)
    heard = {name: found.heard for name, found in loaded.items()}
    notes = notes_on(heard, trained or {}, config.features)
    for kind in sorted(notes.keys() - said):
        log.say(notes[kind])
    return loaded, said | frozenset(notes)
