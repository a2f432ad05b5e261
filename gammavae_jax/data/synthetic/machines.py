"""Generates the normal and faulty sounds of seven synthetic machines.

A clip is `loudness * (machine + background + fault)`. The clips of a machine differ in
speed, in the levels of the tones, in loudness and in background.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from numpy.random import Generator

from gammavae_jax.data.synthetic.signals import (
    Number,
    Signal,
    gain,
    gate,
    knocks,
    noise,
    spin,
    swing,
    tones,
    unit,
)

_LOUDNESS = 0.03  # root mean square of a typical clip; full scale is 1
_LOUDNESS_SPREAD_DB = 1.0  # standard deviation, from clip to clip
_BACKGROUND_SPREAD_DB = 1.5

_SLOPES = {"hall": 1.0, "street": 1.6, "rain": 0.4, "wind": 2.0}  # power ~ 1 / f^slope


class Condition(NamedTuple):
    """The attributes of a clip: the machine's speed and its surroundings."""

    speed: int  # revolutions of the shaft per minute
    background: str


@dataclass(frozen=True)
class Machine:
    """One machine's sounds, as functions of a random generator and the shaft angle."""

    sound: Callable[[Generator, Signal], Signal]
    fault: Callable[[Generator, Signal], Signal]
    source: tuple[Condition, ...]
    target: tuple[Condition, ...]
    fault_db: tuple[Number, Number]  # range of levels, relative to the sound
    background_db: Number = -12  # relative to the sound


def render(
    machine: Machine,
    condition: Condition,
    n_samples: int,
    rng: Generator,
    *,
    is_anomaly: bool,
) -> Signal:
    """Render one clip at `signals.RATE`; its samples are mostly within [-1, 1]."""
    turns = spin(rng, n_samples, condition.speed / 60)
    clip = unit(machine.sound(rng, turns))
    level = machine.background_db + rng.normal(0, _BACKGROUND_SPREAD_DB)
    clip += gain(level) * noise(rng, n_samples, _SLOPES[condition.background])
    loudness = gain(rng.normal(0, _LOUDNESS_SPREAD_DB))
    if is_anomaly:
        clip += gain(rng.uniform(*machine.fault_db)) * unit(machine.fault(rng, turns))
    return _LOUDNESS * loudness * clip


def _toy_car(rng: Generator, turns: Signal) -> Signal:
    motor = tones(rng, turns, {1: 0, 2: -4, 3: -8, 4: -10, 6: -12, 12: -6, 24: -14})
    return motor + 0.5 * noise(rng, len(turns), 1.0, 200)


def _toy_car_fault(rng: Generator, turns: Signal) -> Signal:
    """Make the sound of a bent shaft: half-order tones, and a swelling motor whine."""
    whine = tones(rng, turns, {36: 0, 48: -3}) * swing(turns, 1, 0.9)
    return whine + tones(rng, turns, {1.5: 0, 2.5: -3, 8.5: -3})


def _toy_train(rng: Generator, turns: Signal) -> Signal:
    rolling = noise(rng, len(turns), 0.8, 150) * swing(turns, 1, 0.2)
    joints = unit(knocks(rng, turns, 0.5, 420, 0.02))
    return rolling + 0.6 * joints + tones(rng, turns, {9: -10, 18: -12, 27: -16})


def _toy_train_fault(rng: Generator, turns: Signal) -> Signal:
    """Make the sound of a flat spot on a wheel: an extra thump per turn."""
    return knocks(rng, turns, 1, 1300, 0.008)


def _bearing(rng: Generator, turns: Signal) -> Signal:
    shaft = tones(rng, turns, {1: 0, 2: -3, 3: -6, 4: -9, 5: -9, 7: -12})
    return shaft + 0.4 * noise(rng, len(turns), 0.6, 500, 6000)


def _bearing_fault(rng: Generator, turns: Signal) -> Signal:
    """Make the sound of a pit in a bearing, which rings as each ball passes."""
    return knocks(rng, turns, 3.57, 3200, 0.002) * swing(turns, 1, 0.3)


def _fan(rng: Generator, turns: Signal) -> Signal:
    air = noise(rng, len(turns), 1.2, 80) * swing(turns, 1, 0.1)
    return air + tones(rng, turns, {1: -12, 7: -3, 14: -7, 21: -11, 28: -15})


def _fan_fault(rng: Generator, turns: Signal) -> Signal:
    """Make the sound of a blade that rubs once per turn."""
    return noise(rng, len(turns), 0, 1800, 4200) * gate(turns, 1, 0.35)


def _gearbox(rng: Generator, turns: Signal) -> Signal:
    mesh = tones(rng, turns, {23: 0, 46: -5, 69: -9, 92: -14})
    shaft = tones(rng, turns, {1: -6, 2: -10, 3.2: -12})
    return mesh * swing(turns, 1, 0.25) + shaft + 0.3 * noise(rng, len(turns), 1, 100)


def _gearbox_fault(rng: Generator, turns: Signal) -> Signal:
    """Make the sound of a worn tooth: wide sidebands, and a click per turn."""
    sidebands: dict[Number, Number] = {
        23 + k: -2.0 * abs(k) for k in (-5, -4, -3, -2, 2, 3, 4, 5)
    }
    sidebands |= {2 * order: level - 3 for order, level in sidebands.items()}
    click = unit(knocks(rng, turns, 1, 2300, 0.003))
    return unit(tones(rng, turns, sidebands)) + 0.5 * click


def _slider(rng: Generator, turns: Signal) -> Signal:
    slide = noise(rng, len(turns), 0.7, 300) * gate(turns, 1, 0.6)
    stops = unit(knocks(rng, turns, 1, 900, 0.006))
    return slide + 0.5 * stops + tones(rng, turns, {40: -14, 80: -18})


def _slider_fault(rng: Generator, turns: Signal) -> Signal:
    """Make the sound of a dry rail: a squeak at every stroke."""
    squeak = noise(rng, len(turns), 0, 2500, 3100) + tones(rng, turns, {510.3: -6})
    return squeak * gate(turns, 1, 0.5)


def _valve(rng: Generator, turns: Signal) -> Signal:
    opening = unit(knocks(rng, turns, 1, 1700, 0.006))
    closing = unit(knocks(rng, turns, 1, 650, 0.012))
    puff = noise(rng, len(turns), 0.3, 1000) * gate(turns, 1, 0.25)
    hiss = gain(rng.normal(-16, 3)) * noise(rng, len(turns), 0, 1500, 7500)
    return opening + 0.7 * closing + 0.5 * puff + hiss


def _valve_fault(rng: Generator, turns: Signal) -> Signal:
    """Make the sound of a worn valve seat: a leak, and a bounce per stroke."""
    leak = unit(noise(rng, len(turns), -0.5, 2000, 7000) * gate(turns, 1, 0.8))
    return leak + unit(knocks(rng, turns, 2, 1100, 0.004))


# `fault_db` sets how hard each machine's faults are to detect. Each range extends from
# inaudible to obvious, so that any detector finds some anomalies and misses others.
MACHINES = {
    "ToyCar": Machine(
        sound=_toy_car,
        fault=_toy_car_fault,
        source=(Condition(1860, "hall"), Condition(2100, "hall")),
        target=(Condition(2340, "hall"),),
        fault_db=(-26, -11),
    ),
    "ToyTrain": Machine(
        sound=_toy_train,
        fault=_toy_train_fault,
        source=(Condition(360, "hall"), Condition(420, "hall")),
        target=(Condition(390, "street"),),
        fault_db=(-28, -11),
    ),
    "bearing": Machine(
        sound=_bearing,
        fault=_bearing_fault,
        source=(Condition(1320, "hall"), Condition(1560, "hall")),
        target=(Condition(1440, "street"),),
        fault_db=(-27, -13),
    ),
    "fan": Machine(
        sound=_fan,
        fault=_fan_fault,
        source=(Condition(1440, "hall"), Condition(1440, "street")),
        target=(Condition(1440, "rain"),),
        background_db=-8,
        fault_db=(-24, -8),
    ),
    "gearbox": Machine(
        sound=_gearbox,
        fault=_gearbox_fault,
        source=(Condition(900, "hall"), Condition(1020, "hall")),
        target=(Condition(1140, "street"),),
        fault_db=(-26, -10),
    ),
    "slider": Machine(
        sound=_slider,
        fault=_slider_fault,
        source=(Condition(156, "street"), Condition(180, "street")),
        target=(Condition(168, "hall"),),
        fault_db=(-16, 2),
    ),
    "valve": Machine(
        sound=_valve,
        fault=_valve_fault,
        source=(Condition(240, "hall"), Condition(264, "wind")),
        target=(Condition(288, "street"),),
        background_db=-14,
        fault_db=(-27, -9),
    ),
}
