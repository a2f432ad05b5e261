"""Measures a fleet's recordings by reading their file names and headers.

Only a few numbers per machine are kept, so a fleet may have any number of machines.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import NamedTuple

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.arrays import Capacity, capacity_needed
from gammavae_jax.data.audio.archives import archive_of
from gammavae_jax.data.audio.files import open_recording
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

_MAX_SAMPLES_PER_BYTE = 64  # FLAC files of machine sounds have one or two


def clip_frames(path: Path, config: FeatureConfig) -> int:
    """Return a recording's number of log-mel frames, from its header if possible.

    Errors that only decoding finds (samples that are not finite, truncated compressed
    data) may go unnoticed.

    Raises:
        InputError: see `clip_waveform`.
    """
    # A recording in an archive has to be unpacked completely anyway.
    if archive_of(path) is None:
        with open_recording(path, channel=config.channels) as recording:
            n_samples = recording.n_samples
            is_right = recording.sample_rate == config.sample_rate
        # A header that claims more samples than the file can hold is not trusted.
        if is_right and n_samples <= _MAX_SAMPLES_PER_BYTE * os.path.getsize(path):
            require_window(n_samples, printable(path), config)
            return n_frames(n_samples, config)
    return n_frames(len(clip_waveform(path, config)), config)


class MachineSize(NamedTuple):
    """The amount of data for one machine type.

    All sections of a machine type are in the same wave.
    """

    machine: str
    n_units: int  # sections, each with models of its own
    train: Capacity  # the largest of all sections
    test: Capacity
    digest: str  # hash of the recordings' names and lengths


class Survey(NamedTuple):
    """The sizes of all machines in a fleet."""

    machines: tuple[MachineSize, ...]
    year: int | None  # the year whose metrics apply; see `year_of_layout`


# The number of frames in each of a section's usable training and test recordings.
_Lengths = tuple[dict[ClipFile, int], dict[ClipFile, int]]


def measure_fleet(
    source: Source, config: FeatureConfig, year: int | None, log: Log
) -> Survey:
    """Measure every machine in a source.

    All headers are read before an error is raised, so that the error can count the
    bad recordings. With `skip_bad_files`, bad recordings are left out instead.

    Raises:
        InputError: a recording cannot be used, or a machine lacks recordings.
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
    # If the machines are from several years, the metrics since 2022 apply to all waves,
    # as they would in a single run.
    of_layout = years.pop() if len(years) == 1 else 2022
    return Survey(tuple(sizes), of_layout if year is None else year)


def _usable(
    unit: MachineFiles, config: FeatureConfig, bad: list[InputError]
) -> _Lengths:
    """Count each recording's frames; if that fails, add the error to `bad`."""

    def frames(files: Sequence[ClipFile]) -> dict[ClipFile, int]:
        lengths = {}
        for file in files:
            try:
                lengths[file] = clip_frames(file.path, config)
            except InputError as error:
                bad.append(error)
        return lengths

    return frames(unit.train), frames(unit.test)


def _size(
    machine: str,
    units: Sequence[MachineFiles],
    good: Sequence[_Lengths],
    n_context: int,
) -> MachineSize:
    """Return a machine type's size, counting only usable recordings."""
    for unit, (train, test) in zip(units, good, strict=True):
        require_usable(unit.train, train)
        require_usable(unit.test, test)
        require_training_clips(unit.name, list(train))
        require_classes([(unit.name, list(test))])
    train_size, test_size = (
        reduce(
            Capacity.joined,
            (capacity_needed(list(n.values()), n_context) for n in split),
        )
        for split in zip(*good, strict=True)
    )
    names = [
        [(unit.section, file.path.name, n) for file, n in split.items()]
        for unit, lengths in zip(units, good, strict=True)
        for split in lengths
    ]
    digest = hashlib.blake2b(json.dumps(names).encode(), digest_size=20).hexdigest()
    return MachineSize(machine, len(units), train_size, test_size, digest)
