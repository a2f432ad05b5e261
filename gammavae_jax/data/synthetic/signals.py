"""Generates the building blocks of the synthetic machines' sounds.

Most functions take the shaft's angle in turns, so that tones, knocks and modulations
stay in step while the speed wanders. All signals are float64, which keeps rounding
differences between processors far below one step of a 16-bit sample.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64
from numpy.random import Generator
from scipy import signal

RATE = 16000  # Hz
_SPEED_SPREAD = 0.01  # relative standard deviation, from clip to clip
_TONE_SPREAD_DB = 1.5  # standard deviation of each tone, from clip to clip

Number = int | float
Signal = Float64[np.ndarray, "sample"]


def spin(rng: Generator, n_samples: int, speed: float) -> Signal:
    """Return the shaft's angle in turns, at about `speed` turns per second.

    The average speed varies between clips, and the speed wanders within a clip.
    """
    time = np.arange(n_samples) / RATE
    wander = sum(
        0.003 * np.sin(2 * np.pi * (hz * time + rng.uniform()))
        for hz in rng.uniform(0.2, 1.5, 3)
    )
    average = speed * (1 + rng.normal(0, _SPEED_SPREAD))
    return rng.uniform() + np.cumsum(average * (1 + wander)) / RATE


def gain(decibels: Number) -> float:
    """Convert a level change in decibels to an amplitude factor."""
    return 10 ** (decibels / 20)


def unit(sound: Signal) -> Signal:
    """Scale a signal to a root mean square of 1; silence stays silent."""
    return sound / max(np.sqrt(np.mean(sound**2)), 1e-12)


def tones(rng: Generator, turns: Signal, orders: Mapping[Number, Number]) -> Signal:
    """Return a sum of sines; `orders` maps multiples of the speed to levels in dB."""
    levels = np.array(list(orders.values()))
    levels = levels + rng.normal(0, _TONE_SPREAD_DB, len(orders))
    phases = rng.uniform(size=len(orders))
    return sum(
        (
            gain(level) * np.sin(2 * np.pi * (order * turns + phase))
            for order, level, phase in zip(orders, levels, phases, strict=True)
        ),
        np.zeros_like(turns),
    )


def swing(turns: Signal, order: Number, depth: Number) -> Signal:
    """Return an amplitude factor that swings around 1, `order` times per turn."""
    return 1 + depth * np.sin(2 * np.pi * order * turns)


def noise(
    rng: Generator, n_samples: int, slope: Number, low: Number = 20, high: Number = 8000
) -> Signal:
    """Return noise of RMS 1, with power ~ 1 / f^slope between `low` and `high` Hz."""
    hz = np.fft.rfftfreq(n_samples, 1 / RATE)
    inside = (hz >= low) & (hz <= high)
    shape = np.where(inside, np.maximum(hz, low) ** (-slope / 2), 0)
    spectrum = shape * np.fft.rfft(rng.standard_normal(n_samples))
    return unit(np.fft.irfft(spectrum, n_samples))


def knocks(
    rng: Generator, turns: Signal, per_turn: Number, hz: Number, decay: float
) -> Signal:
    """Return impacts that ring at `hz` and decay with a time constant of `decay` s."""
    count = np.floor(per_turn * turns + rng.uniform())
    blows = np.flatnonzero(np.diff(count))
    impulses = np.zeros_like(turns)
    impulses[blows] = rng.lognormal(0, 0.25, len(blows))
    time = np.arange(int(8 * decay * RATE)) / RATE
    ringing = np.exp(-time / decay) * np.sin(2 * np.pi * hz * time)
    return signal.fftconvolve(impulses, ringing)[: len(turns)]


def gate(turns: Signal, per_turn: Number, duty: Number) -> Signal:
    """Return smooth pulses: about 1 for a share `duty` of each period, 0 elsewhere."""
    phase = (per_turn * turns) % 1
    return 1 / (1 + np.exp(-40 * (phase - 0.05))) / (1 + np.exp(40 * (phase - duty)))
