"""What a fleet of machines consists of, from names and headers alone.

Each machine is looked at in turn and forgotten but for some numbers, so a fleet may
have any number of them.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import NamedTuple

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.archives import archive_of
from gammavae_jax.data.arrays import Capacity, capacity_needed
from gammavae_jax.data.audio import open_recording
from gammavae_jax.data.clips import clip_waveform, require_usable, require_window
from gammavae_jax.data.features import n_frames
from gammavae_jax.data.loading import (
    Source,
    find_in_turn,
    has_supplemental,
    require_classes,
    require_supplemental,
    require_training_clips,
    several_bad,
)
from gammavae_jax.data.machines import ClipFile, MachineFiles, year_of_layout
from gammavae_jax.errors import InputError, printable
from gammavae_jax.log import Log

_MOST_PACKED = 64  # samples in a byte; a FLAC file of sounds has one or two


def clip_frames(path: Path, config: FeatureConfig) -> int:
    """Frames of the log-mel of a recording, which is not decoded if it can be helped.

    What the header alone does not tell (samples that are not finite, a file cut short
    in its compressed part) is not found.

    Raises:
        InputError: see `clip_waveform`.
    """
    # A recording in an archive is unpacked as a whole in any case.
    if archive_of(path) is None:
        with open_recording(path, channel=config.channel) as recording:
            n_samples = recording.n_samples
            is_right = recording.sample_rate == config.sample_rate
        # Nobody makes room for what a few bytes claim to hold.
        if is_right and n_samples <= _MOST_PACKED * os.path.getsize(path):
            require_window(n_samples, printable(path), config)
            return n_frames(n_samples, config)
    return n_frames(len(clip_waveform(path, config)), config)


class MachineSize(NamedTuple):
    """How much there is of one machine type, all sections of which stay together."""

    machine: str
    n_units: int  # sections, each of which gets models of its own
    train: Capacity  # of each section
    test: Capacity
    digest: str  # of the names and lengths of the recordings


class Survey(NamedTuple):
    """A fleet."""

    machines: tuple[MachineSize, ...]
    year: int | None  # whose metrics hold; see `year_of_layout`


class _Lengths(NamedTuple):
    """Frames of each recording of a section that can be used."""

    train: dict[ClipFile, int]
    test: dict[ClipFile, int]


def measure_fleet(
    source: Source, config: FeatureConfig, year: int | None, log: Log
) -> Survey:
    """Measure every machine of a source.

    Every recording's header is read before the first bad one is an error, which tells
    how many there are. With `skip_bad_files` they count as not there.

    Raises:
        InputError: a recording that cannot be used, or a machine that is found to be
            wanting by its names.
    """
    bad: list[InputError] = []
    sizes, years, has_extra = [], set(), False
    with log.progress("machines", len(source.machines)) as advance:
        for name, found in zip(source.machines, find_in_turn(source), strict=True):
            require_classes((unit.name, unit.test) for unit in found)
            n_before = len(bad)
            good = [_usable(unit, config, bad) for unit in found]
            if source.skip_bad_files or len(bad) == n_before:
                sizes.append(_size(name, found, good, config.n_context))
            years.add(year_of_layout(found))
            has_extra |= any(map(has_supplemental, found))
            advance()
    if bad and not source.skip_bad_files:
        raise several_bad(bad)
    if source.with_supplemental:
        require_supplemental(source, has_extra)
    # Of several years, those of 2022 on hold for all waves, as in one run.
    of_layout = years.pop() if len(years) == 1 else 2022
    return Survey(tuple(sizes), of_layout if year is None else year)


def _usable(
    unit: MachineFiles, config: FeatureConfig, bad: list[InputError]
) -> _Lengths:
    """Frames of the recordings that can be used; what is wrong with others is added."""

    def frames(files: Sequence[ClipFile]) -> dict[ClipFile, int]:
        found = {}
        for file in files:
            try:
                found[file] = clip_frames(file.path, config)
            except InputError as error:
                bad.append(error)
        return found

    return _Lengths(frames(unit.train), frames(unit.test))


def _size(
    machine: str,
    units: Sequence[MachineFiles],
    good: Sequence[_Lengths],
    n_context: int,
) -> MachineSize:
    """The size of a machine type by what can be used of it.

    Raises:
        InputError: too little can be used.
    """
    for unit, lengths in zip(units, good, strict=True):
        for files, usable in zip((unit.train, unit.test), lengths, strict=True):
            require_usable(files, usable)
        require_training_clips(unit.name, list(lengths.train))
        require_classes([(unit.name, list(lengths.test))])
    train, test = (
        reduce(
            Capacity.joined,
            (capacity_needed(list(n.values()), n_context) for n in split),
        )
        for split in zip(*good, strict=True)
    )
    told = [
        [(unit.section, file.path.name, n) for file, n in split.items()]
        for unit, lengths in zip(units, good, strict=True)
        for split in lengths
    ]
    digest = hashlib.blake2b(json.dumps(told).encode(), digest_size=20).hexdigest()
    return MachineSize(machine, len(units), train, test, digest)
