"""What a fleet of machines consists of, from names and headers alone.

Each machine is looked at in turn and forgotten but for some numbers, so a fleet may have
any number of them.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

from gammavae_jax.clip_files import ClipFile, MachineFiles, year_of_layout
from gammavae_jax.clip_length import clip_frames
from gammavae_jax.config import FeatureConfig
from gammavae_jax.dataset import Room, in_threads, room_needed
from gammavae_jax.errors import InputError, printable
from gammavae_jax.job import (
    Job,
    find_in_turn,
    has_supplemental,
    require_classes,
    require_supplemental,
    require_training_clips,
)
from gammavae_jax.log import Log


class MachineSize(NamedTuple):
    """How much there is of one machine type, all sections of which stay together."""

    machine: str
    n_units: int  # sections, each of which gets models of its own
    train: Room  # of each section
    test: Room
    digest: str  # of the names and lengths of the recordings


class Survey(NamedTuple):
    """A fleet."""

    machines: tuple[MachineSize, ...]
    year: int | None  # whose metrics hold; see `year_of_layout`


def survey_fleet(job: Job, config: FeatureConfig, log: Log) -> Survey:
    """Look at every machine of a job.

    Every recording's header is read before the first bad one is an error, which tells
    how many there are. With `skip_bad_files` they count as not there.

    Raises:
        InputError: a recording that cannot be used, or a machine that is found to be
            wanting by its names.
    """
    bad: list[InputError] = []
    sizes, years, has_extra = [], set(), False
    with log.progress("machines found", len(job.machines)) as advance:
        for name, found in zip(job.machines, find_in_turn(job), strict=True):
            require_classes((unit.name, unit.test) for unit in found)
            n_before = len(bad)
            size = _size_of_machine(name, found, config, bad)
            if len(bad) > n_before and not job.skip_bad_files:
                size = None
            if size is not None:
                sizes.append(size)
            years.add(year_of_layout(found))
            has_extra |= any(map(has_supplemental, found))
            advance()
    if bad and not job.skip_bad_files:
        several = f" ({len(bad)} recordings cannot be used; --skip-bad-files names all)"
        raise InputError(f"{bad[0]}{several if len(bad) > 1 else ''}")
    if job.with_supplemental:
        require_supplemental(job, has_extra)
    told = years.pop() if len(years) == 1 else None
    return Survey(tuple(sizes), told if job.year is None else job.year)


def _size_of_machine(
    name: str,
    found: Sequence[MachineFiles],
    config: FeatureConfig,
    bad: list[InputError],
) -> MachineSize | None:
    """One machine's size; bad recordings are put to the others."""
    rooms: dict[str, list[Room]] = {"train": [], "test": []}
    digest = hashlib.blake2b(digest_size=20)
    for unit in found:
        for split, files in (("train", unit.train), ("test", unit.test)):
            good = _frames(files, config, bad)
            if split == "train":
                require_training_clips(unit.name, list(good))
            require_some(files, good)
            ...
    raise NotImplementedError
