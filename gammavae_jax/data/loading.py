"""Finds, checks and loads recordings in the challenge's folder layout."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

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
    parts_below,
)
from gammavae_jax.data.names import require_names, require_normal_names
from gammavae_jax.errors import InputError, printable
from gammavae_jax.log import Log


class Source(NamedTuple):
    """The data root, the machines to load from it, and how to read their recordings."""

    root: Path
    machines: tuple[str, ...]  # machine types
    with_supplemental: bool = False  # also train on supplemental clips (2025 on)
    skip_bad_files: bool = False
    cache: Path | None = None  # a folder in which log-mels are kept between runs


class Machines(NamedTuple):
    """Machines and their clips; each section of a machine type is one machine."""

    names: tuple[tuple[str, str], ...]  # machine type and section
    filterbank: Float[np.ndarray, "bin mel"]
    train: list[tuple[str, Clips]]
    test: list[tuple[str, Clips]]


def load_machines(
    data_root: Path | str,
    machines: Sequence[str],
    config: Config,
    log: Log | None = None,
) -> Machines:
    """Load machines' training and test clips from the challenge's folder layout.

    Args:
        data_root: a folder with machine folders or archives; see `data.machines`.
        machines: machine types, such as `["fan", "valve"]`.
        config: the configuration; only its features are used.
        log: shows progress; default: on standard error.

    Raises:
        InputError: a machine was not found, or a recording cannot be used.
    """
    source = Source(Path(data_root), tuple(machines))
    return load(source, find_all(source), config, log or Log())


def load(
    source: Source, found: Sequence[MachineFiles], config: Config, log: Log
) -> Machines:
    """Load machines' training and test clips; see `load_split` for errors."""
    bank, cache = mel_filterbank(config.features), open_cache(source, log)
    train, test = (
        load_split(found, split, bank, config, log, source.skip_bad_files, cache)
        for split in ("train", "test")
    )
    names = tuple((machine.machine, machine.section) for machine in found)
    return Machines(names, bank, train, test)


def find_all(
    source: Source, splits: Collection[str] = ("train", "test")
) -> list[MachineFiles]:
    """List the recordings of all the source's machines, with one entry per section.

    Raises:
        InputError: no machine has the requested supplemental clips; for other errors,
            see `find_in_turn`.
    """
    found = [files for sections in find_in_turn(source, splits) for files in sections]
    if source.with_supplemental:
        require_supplemental(source, any(map(has_supplemental, found)))
    return found


def find_sections(
    source: Source, sections: Sequence[tuple[str, str]], splits: Collection[str]
) -> list[MachineFiles]:
    """List the recordings of a checkpoint's machines, given as (type, section) pairs.

    `source.machines` is ignored.

    Raises:
        InputError: a section is missing; for other errors, see `find_all`.
    """
    types = tuple(dict.fromkeys(machine for machine, _ in sections))
    found = {
        (files.machine, files.section): files
        for files in find_all(source._replace(machines=types), splits)
    }
    for machine, section in sections:
        if (machine, section) not in found:
            raise InputError(
                f"section {section} of {machine} is in the checkpoint, but not in "
                f"{str(source.root)!r}: pass the data root used for training"
            )
    return [found[section] for section in sections]


def find_in_turn(
    source: Source, splits: Collection[str] = ("train", "test")
) -> Iterator[list[MachineFiles]]:
    """Yield each section's recordings, one machine type after another.

    If supplemental clips are requested, the training clips include them.

    Raises:
        InputError: a name cannot be written to a score file, or says that a training
            clip is not normal; for other errors, see `find_clips`.
    """
    for found in find_clips_of_all(source.root, source.machines, splits):
        for files in found:
            names = (file.path.name for file in files.test)
            require_names(files.machine, files.section, names)
        if source.with_supplemental:
            found = [
                files._replace(train=files.train + files.supplemental, supplemental=())
                for files in found
            ]
        for files in found:
            named = ((file.path, parts_below(file.path)) for file in files.train)
            require_normal_names(named, "move it to the test clips")
        yield found


def has_supplemental(machine: MachineFiles) -> bool:
    """Return whether a machine has supplemental training clips."""
    return any(map(is_supplemental, machine.train))


def require_supplemental(source: Source, has_some: bool) -> None:
    """Raise an InputError if no machine has supplemental clips."""
    if not has_some:
        raise InputError(
            f"no machine in {str(source.root)!r} has a folder 'supplemental': omit "
            "--with-supplemental"
        )


def load_split(
    machines: Sequence[MachineFiles],
    split: Literal["train", "test"],
    filterbank: Float[np.ndarray, "bin mel"],
    config: Config,
    log: Log,
    skip_bad_files: bool,
    cache: FeatureCache | None = None,
) -> list[tuple[str, Clips]]:
    """Load the training or test clips of every machine, from the cache if possible.

    With `skip_bad_files`, unusable files are named in the log and left out. Otherwise,
    all files are read before an error is raised, which states how many are unusable.

    Raises:
        InputError: a machine has fewer than two training clips; for other errors, see
            `load_clips`.
    """
    bad: list[InputError] = []
    load_one = load_clips if cache is None else cache.load_clips

    def set_aside(error: InputError) -> None:
        bad.append(error)
        if skip_bad_files:
            log.note(f"skipped: {error}")

    of_split = [(m.name, m.train if split == "train" else m.test) for m in machines]
    total, loaded = sum(len(files) for _, files in of_split), []
    with log.timed("features_s"), log.progress(f"{split} clips", total) as advance:
        for name, files in of_split:
            try:
                clips = load_one(files, filterbank, config.features, set_aside, advance)
                loaded.append((name, clips))
            except InputError:  # every file is bad
                if skip_bad_files:
                    raise
    if bad and not skip_bad_files:
        kind = {"train": "training", "test": "test"}[split]
        raise several_bad(bad, f"{kind} recordings")
    if split == "train":
        for name, clips in loaded:
            require_training_clips(name, clips.files)
    return loaded


def several_bad(bad: Sequence[InputError], what: str = "recordings") -> InputError:
    """Return the first error, with the number of unusable files appended."""
    several = f" ({len(bad)} {what} cannot be used; --skip-bad-files lists them)"
    return InputError(f"{bad[0]}{several if len(bad) > 1 else ''}")


def open_cache(source: Source, log: Log) -> FeatureCache | None:
    """Open the source's feature cache; return None if the source has none."""
    return None if source.cache is None else FeatureCache(source.cache, log)


def require_training_clips(name: str, files: Sequence[ClipFile]) -> None:
    """Raise an InputError if a machine has too few training clips to hold one out.

    Supplemental clips are ignored, because they are never held out.
    """
    n_ordinary = sum(not is_supplemental(file) for file in files)
    if n_ordinary < 2:
        problem, remedy = "only one training clip", "add another"
        if not n_ordinary:
            problem, remedy = "only supplemental training clips", "add 2 ordinary ones"
        raise InputError(
            f"{name} has {problem}, but the threshold needs a held-out clip: {remedy}"
        )


def require_classes(test: Iterable[tuple[str, Sequence[ClipFile]]]) -> None:
    """Raise an InputError if a machine's labelled test clips all have the same label.

    Each entry of `test` is a machine's name and its test files.
    """
    for name, files in test:
        labels = is_anomaly(files)
        if labels is not None and labels.all() == labels.any():
            found = "anomalous" if labels.all() else "normal"
            raise InputError(
                f"all {len(labels)} test clips of {name} are {found}, but the AUC "
                f"needs both kinds: add clips of the other kind to "
                f"{printable(files[0].path.parent)}"
            )
