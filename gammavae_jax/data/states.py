"""Recognises clips that say nothing about a machine's health.

A machine that is switched off, an unplugged microphone or a changed gain differs from
the training recordings at least as much as a fault does. The rules below recognise such
clips, so that they are not reported as faults. Each rule compares a clip with the
training clips of its machine; see `UsualSound`. If in doubt, a clip is classified as
running and judged.

The constants were chosen so that all 720 test clips of six real machines, normal and
anomalous, are classified as running; docs/own-machines.md names the machines.
"""

from enum import StrEnum

import numpy as np
from jaxtyping import Float

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.audio.samples import Signal
from gammavae_jax.data.conditions import Conditions
from gammavae_jax.data.recordings.clips import LoadedRecordings
from gammavae_jax.data.usual_sound import (
    UsualSound,
    level_range,
    part_spectra,
    swing_of,
)

# A room is typically 20 to 40 dB quieter than a running machine. Three quarters of the
# bands count, because hum and rumble remain in some.
_OFF_DB, _OFF_SHARE, _OFF_BEYOND_DB = 20.0, 0.75, 5.0
_BURSTS, _BURST_DB = 0.05, 10.0
_SILENT = 0.95  # a loose contact lets some sound through
_RISE_DB = 15.0  # so that a steady clip near the limit is not taken for a start
# A knock or a slammed door clips about 0.1 % of a ten-second clip. At 1 %, the
# distortion covers the quiet bands.
_CLIPPED = 0.01
# Real test clips are outside the range of the training clips' levels by up to 2.2 dB.
_GAIN_DB = 3.0
_SHAPE_DB, _SWING_DB = 1.0, 0.1  # few training clips show little of their variety
# The filter of a resampler falls by more than 20 dB within a sixteenth of the bands.
# The highest bands of a real test clip are at most 6 dB below those of all training
# clips.
_BANDS_OF_FILTER = 16
_LACKING_DB, _LACKING_BEYOND_DB, _LACKING_SHARE = 20.0, 10.0, 0.9
_LEAST_LACKING = 1 / 32  # of the bands; resampling from 48 kHz removes fewer


class State(StrEnum):
    """What a clip contains; only a running machine's score is meaningful."""

    RUNNING = "running"
    NO_SIGNAL = "no signal"
    OFF = "off"
    STARTING = "starting up"
    STOPPING = "stopping"
    CLIPPED = "clipped"
    GAIN_CHANGED = "gain changed"
    OTHER_RATE = "other sample rate"


def states_of(
    loaded: LoadedRecordings, conditions: Conditions | None, config: FeatureConfig
) -> tuple[State, ...]:
    """Return the machine state in each clip of its recordings; see `state_of`."""
    clips = zip(loaded.clips.log_mels, loaded.clips.signals, strict=True)
    return tuple(state_of(*clip, conditions, config) for clip in clips)


def state_of(
    log_mel: Float[np.ndarray, "frame mel"],
    signal: Signal,
    conditions: Conditions | None,
    config: FeatureConfig,
) -> State:
    """Return the machine state in a clip.

    Args:
        log_mel: the clip's log-mel in dB.
        signal: from `signal_of`, preferably before the clip was resampled.
        conditions: the machine's training conditions. If they are unknown, or do not
            include the usual sound, the state is either running or no signal.
        config: the feature settings of the detector.
    """
    usual = conditions and conditions.sound
    if _has_no_signal(signal, usual.silent if usual else 0.0):
        return State.NO_SIGNAL
    if not usual:
        return State.RUNNING
    parts = part_spectra(log_mel, config) - usual.spectrum
    levels = np.median(parts, 0)
    rules = {
        State.STARTING: _starts(parts, usual),
        State.STOPPING: _starts(parts[::-1], usual),
        State.OFF: _is_far_below(levels, usual.quietest)
        and not _has_bursts(log_mel - usual.spectrum),
        State.CLIPPED: signal.clipped > _CLIPPED + 2 * usual.clipped,
        State.GAIN_CHANGED: _has_other_gain(levels, swing_of(log_mel), usual),
        State.OTHER_RATE: _is_band_limited(levels, usual),
    }
    return next((state for state, applies in rules.items() if applies), State.RUNNING)


def _has_no_signal(signal: Signal, usual: float) -> bool:
    """Return whether nearly all samples are silent.

    The limit allows for the silence in the training clips.
    """
    return signal.silent > usual + _SILENT * (1 - usual)


def _starts(parts: Float[np.ndarray, "part mel"], usual: UsualSound) -> bool:
    """Return whether the machine is off in the first part but not in the last one."""
    first, last = parts[0], parts[-1]
    return (
        _is_far_below(first, usual.quietest_part)
        and not _is_far_below(last, usual.quietest_part)
        and bool(np.median(last) - np.median(first) > _RISE_DB)
    )


def _is_far_below(levels: Float[np.ndarray, "mel"], quietest: float) -> bool:
    """Return whether most bands are far below both the usual and the quietest level."""
    is_quiet = np.quantile(levels, _OFF_SHARE) <= -_OFF_DB
    return bool(is_quiet and np.median(levels) <= quietest - _OFF_BEYOND_DB)


def _has_bursts(levels: Float[np.ndarray, "frame mel"]) -> bool:
    """Return whether at least 5 % of the frames reach nearly the usual level.

    A clip with such bursts, such as knocks of a stopped machine, is not called off.
    """
    of_frames = np.median(levels, 1)
    return bool(np.quantile(of_frames, 1 - _BURSTS) > -_BURST_DB)


def _has_other_gain(
    levels: Float[np.ndarray, "mel"], swing: float, usual: UsualSound
) -> bool:
    """Return whether nearly all bands are louder (or quieter) by about the same amount.

    A fault is not mistaken for a changed gain if it adds energy to less than nine
    tenths of the bands, or makes the sound steadier, as loud hiss does.
    """
    least, most = level_range(levels)
    is_louder = least > usual.loudest + _GAIN_DB
    is_quieter = most < usual.softest - _GAIN_DB
    has_shape = most - least <= usual.spread + _SHAPE_DB
    steadiest, unsteadiest = usual.swing
    has_swing = steadiest <= swing <= unsteadiest + _SWING_DB
    return bool((is_louder or is_quieter) and has_shape and has_swing)


def _is_band_limited(levels: Float[np.ndarray, "mel"], usual: UsualSound) -> bool:
    """Return whether a filter has removed all bands above some frequency.

    The level must drop within a few bands. A fault, or dust on the microphone, weakens
    the higher bands more gradually.
    """
    n_bands, lowest = len(levels), np.array(usual.lowest)
    width = n_bands // _BANDS_OF_FILTER
    if not width:
        return False
    drops = levels[:-width] - levels[width:]
    edge = int(np.argmax(drops)) + width
    limits = np.minimum(lowest - _LACKING_BEYOND_DB, -_LACKING_DB)
    return bool(
        drops.max() >= _LACKING_DB
        and n_bands - edge >= _LEAST_LACKING * n_bands
        and np.mean(levels[edge:] <= limits[edge:]) >= _LACKING_SHARE
    )
