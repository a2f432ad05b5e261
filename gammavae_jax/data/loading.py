"""What a run works on: its machines' recordings, found, checked and loaded."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from rich.console import Console

from gammavae_jax.config import Config
from gammavae_jax.data.arrays import is_anomaly
from gammavae_jax.data.clips import Clips, load_clips
from gammavae_jax.data.feature_cache import FeatureCache
from gammavae_jax.data.features import mel_filterbank
from gammavae_jax.data.machines import (
    ClipFile,
    MachineFiles,
    find_clips_of_all,
    is_supplemental,
    year_of_layout,
)
from gammavae_jax.errors import InputError, printable
from gammavae_jax.evaluation.metrics import definition_of
from gammavae_jax.evaluation.score_files import require_names
from gammavae_jax.log import Log

NamedClips = list[tuple[str, Clips]]  # by `MachineFiles.name`


@dataclass(frozen=True)
class Job:
    """What a run reads, where it writes, and what it does with what is in its way."""

    data_root: Path
    machines: tuple[str, ...]
    out: Path
    resume: bool = False
    overwrite: bool = False
    skip_bad_files: bool = False
    with_supplemental: bool = False  # to train on, 2025 on
    year: int | None = None  # whose metrics hold; None is what the layout tells
    feature_cache: Path | None = None  # a folder that keeps log-mels; None keeps none

    def __post_init__(self) -> None:
        """Refuse a year that has no metrics before any work is done.

        Raises:
            InputError: a year before the challenge.
        """
        definition_of(self.year)


def find_all(
    job: Job, splits: Collection[str] = ("train", "test")
) -> list[MachineFiles]:
    """The recordings of every machine of a job, one entry a section.

    Where supplemental clips were asked for, they are training clips.

    Raises:
        InputError: see `find_clips`; a name that no score file can hold; a training
            clip that is called anomaly; or supplemental clips that no machine has.
    """
    found = [f for of_machine in find_in_turn(job, splits) for f in of_machine]
    if job.with_supplemental:
        require_supplemental(job, any(map(has_supplemental, found)))
    return found


def find_in_turn(
    job: Job, splits: Collection[str] = ("train", "test")
) -> Iterator[list[MachineFiles]]:
    """`find_all` of one machine after another, for fleets; its sections together.

    Where supplemental clips were asked for, that some machine has them is not
    required.

    Raises:
        InputError: see `find_all`.
    """
    for found in find_clips_of_all(job.data_root, job.machines, splits):
        for files in found:
            names = (file.path.name for file in files.test)
            require_names(files.machine, files.section, names)
        for file in (file for files in found for file in files.train):
            if file.name.label == "anomaly":
                raise InputError(
                    f"{printable(file.path)}: a training clip is called anomaly, but "
                    "models learn from normal sounds alone: move it to the test clips"
                )
        if job.with_supplemental:
            found = [
                files._replace(train=files.train + files.supplemental, supplemental=())
                for files in found
            ]
        yield found


def has_supplemental(machine: MachineFiles) -> bool:
    """Whether supplemental clips are among its training clips."""
    return any(map(is_supplemental, machine.train))


def require_supplemental(job: Job, has_some: bool) -> None:
    """Refuse to train on supplemental clips that no machine has.

    Raises:
        InputError: there are none.
    """
    if not has_some:
        raise InputError(
            f"no machine in {str(job.data_root)!r} has a folder 'supplemental': leave "
            "out --with-supplemental"
        )


def load_split(
    machines: Sequence[MachineFiles],
    split: Literal["train", "test"],
    filterbank: Float[np.ndarray, "bin mel"],
    config: Config,
    log: Log,
    skip_bad_files: bool,
    cache: FeatureCache | None = None,
) -> NamedClips:
    """Log-mels of every machine's training or test clips.

    All files are read before the first bad one is an error, which tells how many
    there are.

    Args:
        machines: whose.
        split: which clips.
        filterbank: see `mel_filterbank`.
        config: of the features.
        log: of the progress and of what is skipped.
        skip_bad_files: leave out what cannot be used.
        cache: that knows some of the log-mels already, and keeps the others.

    Raises:
        InputError: see `load_clips`; or a machine with one training clip.
    """
    bad: list[InputError] = []
    load_one = load_clips if cache is None else cache.load_clips

    def set_aside(error: InputError) -> None:
        bad.append(error)
        if skip_bad_files:
            log.note(f"skipped: {error}")

    def load(files: Sequence[ClipFile]) -> Clips | None:
        try:
            return load_one(files, filterbank, config.features, set_aside, advance)
        except InputError:
            if skip_bad_files:
                raise
            return None  # all of them are bad

    of_split = [(m.name, m.train if split == "train" else m.test) for m in machines]
    total = sum(len(files) for _, files in of_split)
    with log.timed("features_s"), log.progress(f"{split} clips", total) as advance:
        found = [(name, load(files)) for name, files in of_split]
    if bad and not skip_bad_files:
        raise several_bad(
            bad, f"{'training' if split == 'train' else 'test'} recordings"
        )
    loaded = [(name, clips) for name, clips in found if clips is not None]
    for name, clips in loaded:
        if split == "train":
            require_training_clips(name, clips.files)
    return loaded


def several_bad(bad: Sequence[InputError], what: str = "recordings") -> InputError:
    """The first of the errors, and how many of what cannot be used."""
    several = f" ({len(bad)} {what} cannot be used; --skip-bad-files names all)"
    return InputError(f"{bad[0]}{several if len(bad) > 1 else ''}")


def cache_of(job: Job, log: Log) -> FeatureCache | None:
    """The cache of log-mels that the job names, if it names one.

    Raises:
        InputError: it cannot be used.
    """
    return None if job.feature_cache is None else FeatureCache(job.feature_cache, log)


class LoadedMachines(NamedTuple):
    """Machines with their clips; a machine that has several sections is several."""

    names: tuple[tuple[str, str], ...]  # machine type and section
    filterbank: Float[np.ndarray, "bin mel"]
    train: NamedClips
    test: NamedClips


def load_machines(
    data_root: Path, machines: Sequence[str], config: Config, log: Log | None = None
) -> LoadedMachines:
    """Training and test clips of machines in the challenge's layout.

    Args:
        data_root: folder of machine folders or archives; see `clip_files`.
        machines: their types.
        config: of the features.
        log: of the progress; on standard error unless given.

    Raises:
        InputError: no such machine, or a recording that cannot be used.
    """
    job = Job(data_root, tuple(machines), out=data_root)
    return load_found(find_all(job), job, config, log or Log(Console(stderr=True)))


def load_found(
    machines: Sequence[MachineFiles], job: Job, config: Config, log: Log
) -> LoadedMachines:
    """Training and test clips of the machines that were found for a job.

    Raises:
        InputError: see `load_split`; or a cache that cannot be used.
    """
    bank, cache = mel_filterbank(config.features), cache_of(job, log)
    train, test = (
        load_split(machines, split, bank, config, log, job.skip_bad_files, cache)
        for split in ("train", "test")
    )
    names = tuple((machine.machine, machine.section) for machine in machines)
    return LoadedMachines(names, bank, train, test)


def require_training_clips(name: str, files: Sequence[ClipFile]) -> None:
    """One clip is held out and compared with another; no supplemental clip can be.

    Raises:
        InputError: there are fewer than two.
    """
    ordinary = [file for file in files if not is_supplemental(file)]
    if not ordinary:
        raise InputError(
            f"{name} has no training clip but supplemental ones: add two, of which one "
            "is held out for the threshold"
        )
    if len(ordinary) < 2:
        raise InputError(
            f"{name} has one training clip: add another, for one is held out for "
            "the threshold"
        )


def year_told(job: Job, files: Sequence[MachineFiles], log: Log) -> Job:
    """The job with the year that was given, or else the layout's; says which."""
    year = year_of_layout(files) if job.year is None else job.year
    if year is not None and definition_of(year) < 2022:
        log.note(f"The metrics and the official score are those of {year}.")
    return replace(job, year=year)


def require_labels(machines: Iterable[MachineFiles]) -> None:
    """Refuse test clips whose names do not tell whether they are anomalous.

    Raises:
        InputError: the machine.
    """
    for machine in machines:
        if is_anomaly(machine.test) is None:
            raise InputError(
                f"the names of the test clips of {machine.name} do not all say normal "
                "or anomaly, and nothing can be compared without: name other --machines"
            )


def require_classes(test: Iterable[tuple[str, Sequence[ClipFile]]]) -> None:
    """Refuse labelled test clips that are all alike: nothing could be evaluated.

    Each entry is a machine's name and its test files.

    Raises:
        InputError: the machine, and the class that is missing.
    """
    for name, files in test:
        labels = is_anomaly(files)
        if labels is not None and labels.all() == labels.any():
            found = "anomalous" if labels.all() else "normal"
            raise InputError(
                f"all {len(labels)} test clips of {name} are {found}: the AUC needs "
                "both classes; add the other to " + printable(files[0].path.parent)
            )
