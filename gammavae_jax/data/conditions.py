"""Compares the conditions of new recordings with the training conditions.

A model learns not only the machine, but also the microphone, its gain and the length of
the clips. If any of these changes, scores change even though the machine is healthy.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.audio.channels import DEAD_DB, ChannelLevels, LoudestChannel
from gammavae_jax.data.clips import Clips
from gammavae_jax.data.domain_rule import DomainRule
from gammavae_jax.data.usual_sound import UsualSound, usual_sound
from gammavae_jax.errors import printable

# The levels of real machines' test clips, both normal and anomalous, lie up to 2.4 dB
# outside the range of the training clips' levels.
_MOST_DB, _MOST_DB_OF_ONE = 5.0, 20.0
# The median level of ten real recordings lies at least 3 dB inside the training range.
_MANY, _MOST_DB_OF_MANY = 10, 1.0
_QUIETER, _LOUDER = "quieter", "louder"
# Recordings are cut into clips of 0.75 to 1.5 times the nominal length.
_SHORTEST, _LONGEST = 0.7, 1.6


class Conditions(NamedTuple):
    """The conditions of a machine's recordings, as ranges over its clips."""

    seconds: tuple[float, float]  # lengths of the shortest and longest clips
    level: tuple[float, float]  # mean log-mels of the quietest and loudest clips, in dB
    sample_rates: tuple[int, ...]  # Hz, before resampling
    # Numbers of channels in the files; arrays of one channel are ignored.
    channels: tuple[int, ...]
    shortest: float  # seconds; scores of shorter clips are not comparable
    n_recordings: float = 0.0  # independent held-out recordings; 0 if unknown
    total_seconds: float = 0.0  # of all clips together
    # The number of clips of each recording, in order, or () if no recording was cut.
    recording_sizes: tuple[int, ...] = ()
    sound: UsualSound | None = None  # None if unknown
    domains: DomainRule | None = None  # None: one threshold serves all clips


def conditions_of(clips: Clips, config: FeatureConfig) -> Conditions:
    """Return the conditions of a machine's training clips."""
    seconds = [clip_seconds(len(log_mel), config) for log_mel in clips.log_mels]
    levels = [float(np.mean(log_mel)) for log_mel in clips.log_mels]
    rates = {rate for rate, _ in clips.formats} or {config.sample_rate}
    return Conditions(
        (round(min(seconds), 3), round(max(seconds), 3)),
        (round(min(levels), 2), round(max(levels), 2)),
        tuple(sorted(rates)),
        tuple(sorted({n for _, n in clips.formats if n})),
        _SHORTEST * min(seconds),
        total_seconds=round(sum(seconds), 1),
        recording_sizes=_recording_sizes(clips),
        sound=usual_sound(clips, config),
    )


def _recording_sizes(clips: Clips) -> tuple[int, ...]:
    if clips.recording is None or len(np.unique(clips.recording)) == len(clips.files):
        return ()
    return tuple(np.bincount(clips.recording).tolist())


def to_stored(conditions: Conditions) -> dict[str, Any]:
    """Convert conditions to a JSON object."""
    sound, domains = conditions.sound, conditions.domains
    nested = {
        "sound": sound and sound._asdict(),
        "domains": domains and domains._asdict(),
    }
    return {**conditions._asdict(), **nested}


def from_stored(stored: Mapping[str, Any]) -> Conditions:
    """Convert a valid JSON object to conditions."""
    sound = stored["sound"] and UsualSound(**_with_tuples(stored["sound"]))
    domains = stored["domains"] and DomainRule(**_with_tuples(stored["domains"]))
    return Conditions(**{**_with_tuples(stored), "sound": sound, "domains": domains})


def _with_tuples(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {n: tuple(v) if isinstance(v, list) else v for n, v in stored.items()}


def n_frames_of(seconds: float, config: FeatureConfig) -> int:
    """Return the number of frames in a clip of this length; inverts `clip_seconds`."""
    return 1 + round(seconds * config.sample_rate / config.hop_length)


def clip_seconds(n_frames: int, config: FeatureConfig) -> float:
    """Return the length in seconds of a clip with `n_frames` frames."""
    return (n_frames - 1) * config.hop_length / config.sample_rate


class RecordedConditions(NamedTuple):
    """Properties of new recordings, to be compared with the training conditions."""

    log_mels: Sequence[Float[np.ndarray, "_ mel"]]  # one per clip
    formats: Collection[tuple[int, int]]  # see `Clips`
    levels: Sequence[ChannelLevels | None]  # one per recording
    recording: Sequence[int] | None = None  # of each clip; None: one clip each


def notes_on(
    recorded: Mapping[str, RecordedConditions],
    trained: Mapping[str, Conditions],
    config: FeatureConfig,
) -> dict[str, str]:
    """Describe how recordings differ from those used to train the detector.

    Args:
        recorded: the properties of each machine's new recordings.
        trained: the known training conditions, by machine.
        config: the feature settings.

    Returns:
        Messages with their remedies, keyed by kind. Dead channels are reported even
        for machines without training conditions.
    """
    notes: dict[str, str] = {}
    for machine, new in recorded.items():
        old = trained.get(machine)
        known = old.sample_rates if old else (config.sample_rate,)
        rates = sorted({rate for rate, _ in new.formats} - set(known))
        for rate in rates:
            notes[f"rate {rate}"] = _rate(rate, known, config.sample_rate)
        found = _dead_channel(new.levels, config) | _dead_reference(new.levels, config)
        if old is not None:
            found |= _channels(old, new.formats, config)
            found |= _length(old, new.log_mels, config)
            level = _level(old, new)
            # A dead channel, or bands above half the sample rate, are always quiet.
            if "dead" in found or min(rates, default=math.inf) < config.sample_rate:
                level = {n: text for n, text in level.items() if _QUIETER not in n}
            found |= level
        prefix = f"{printable(machine)}: " if len(recorded) > 1 else ""
        notes |= {f"{kind} {machine}": prefix + note for kind, note in found.items()}
    return notes


def _rate(rate: int, known: Sequence[int], wanted: int) -> str:
    change = f"are resampled to {wanted} Hz"
    if rate == wanted:
        change = f"differ from the training recordings ({_either(known)} Hz)"
    remedy = "fit and score at the same sample rate, or expect false alarms"
    return f"recordings at {rate} Hz {change}: {remedy}"


def _dead_channel(
    levels: Sequence[ChannelLevels | None], config: FeatureConfig
) -> dict[str, str]:
    """Report recordings in which only the chosen channel is nearly silent."""
    dead, text = _nearly_silent(levels, config.channel)
    if dead is None:
        return {}
    remedy = f"fit with features.channel={dead.number}"
    if dead.number == config.reference_channel:
        remedy = "swap features.channel and features.reference_channel"
    return {"dead": f"channel {text}: check the microphone, or {remedy}"}


def _dead_reference(
    levels: Sequence[ChannelLevels | None], config: FeatureConfig
) -> dict[str, str]:
    """Report recordings whose reference channel is nearly silent."""
    if config.reference_channel is None:
        return {}
    dead, text = _nearly_silent(levels, config.reference_channel)
    if dead is None:
        return {}
    return {
        "dead reference": f"reference channel {text}: check the microphone, or fit "
        "without features.reference_channel"
    }


def _nearly_silent(
    levels: Sequence[ChannelLevels | None], channel: int
) -> tuple[LoudestChannel | None, str]:
    """Return a channel far louder than `channel` and a text on both, or (None, "")."""
    loudest = [of.loudest(channel) for of in levels if of is not None]
    dead = [of for of in loudest if of.above >= DEAD_DB]
    if not dead:
        return None, ""
    number, above = dead[0]
    return dead[0], (
        f"{channel} is nearly silent in {len(dead)} of {len(levels)} recordings, "
        f"{above:.0f} dB below channel {number}"
    )


def _channels(
    trained: Conditions, formats: Collection[tuple[int, int]], config: FeatureConfig
) -> dict[str, str]:
    new = {n for _, n in formats if n} - set(trained.channels)
    if not new or not trained.channels:
        return {}
    counts = f"{_either(sorted(new))}, not {_either(trained.channels)} as in training"
    used = f"channel {config.channel} is used"
    if config.reference_channel is not None:
        used = f"channels {config.channel} and {config.reference_channel} are used"
    return {
        "channels": f"the number of channels is {counts}: {used}; record as before, or "
        "refit"
    }


def _length(
    trained: Conditions,
    log_mels: Sequence[Float[np.ndarray, "_ mel"]],
    config: FeatureConfig,
) -> dict[str, str]:
    shortest, longest = trained.seconds
    seconds = [clip_seconds(len(log_mel), config) for log_mel in log_mels]
    if min(seconds) < trained.shortest:
        new, known, change, effect = min(seconds), shortest, "shorter", "false alarms"
    elif max(seconds) > _LONGEST * longest:
        new, known, change, effect = max(seconds), longest, "longer", "missed anomalies"
    else:
        return {}
    return {
        change: f"clips of {new:.2g} s are {change} than the training clips "
        f"({known:.2g} s): expect {effect}; record clips of {known:.2g} s, or fit with "
        f"clips of {new:.2g} s"
    }


def _level(trained: Conditions, new: RecordedConditions) -> dict[str, str]:
    """Report recordings whose level is outside the range of the training clips."""
    levels = np.array([np.mean(log_mel) for log_mel in new.log_mels])
    quietest, loudest = trained.level
    beyond = {_QUIETER: quietest - levels, _LOUDER: levels - loudest}
    remedy = "check the microphone and its gain, or refit if they were changed"
    for change, of_clips in beyond.items():
        middle, most = float(np.median(of_clips)), float(of_clips.max())
        if middle > _MOST_DB or most > _MOST_DB_OF_ONE:
            by = middle if middle > _MOST_DB else most
            which = f"recordings are {by:.0f} dB {change} than any training recording"
            return {change: f"{which}: {remedy}"}
    for change, of_clips in beyond.items():
        of_each = _medians(of_clips, new.recording)
        if len(of_each) >= _MANY and np.mean(of_each > _MOST_DB_OF_MANY) > 0.5:
            which = f"most recordings are {change} than any training recording"
            return {f"slightly {change}": f"{which}: {remedy}"}
    return {}


def _medians(
    of_clips: Float[np.ndarray, "clip"], recording: Sequence[int] | None
) -> Float[np.ndarray, "recording"]:
    """Return the median over the clips of each recording."""
    if recording is None:
        return of_clips
    numbers = np.asarray(recording)
    return np.array([np.median(of_clips[numbers == n]) for n in np.unique(numbers)])


def _either(numbers: Sequence[int]) -> str:
    return " or ".join(map(str, numbers))
