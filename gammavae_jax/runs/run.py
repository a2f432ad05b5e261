"""Implements `gammavae run`.

It loads recordings, fits a detector, scores and evaluates the test clips, and publishes
the results.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gammavae_jax.config import Config
from gammavae_jax.config_json import to_dict, to_json
from gammavae_jax.data.arrays import Capacity
from gammavae_jax.data.clips import clip_identities
from gammavae_jax.data.loading import (
    Machines,
    Source,
    find_all,
    find_sections,
    load,
    load_split,
    open_cache,
    require_classes,
)
from gammavae_jax.data.machines import MachineFiles, year_of_layout
from gammavae_jax.data.recording_notes import note_left_out, note_shared_clips
from gammavae_jax.devices.cluster import is_joined, on_first, require_same, together
from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.metrics import definition_of
from gammavae_jax.log import Log
from gammavae_jax.runs.checkpoint import load_detector, training_clips
from gammavae_jax.runs.folder import (
    RunFolder,
    begin_folder,
    check_folder,
    locked_folder,
    read_config,
)
from gammavae_jax.runs.publication import Origin, publish
from gammavae_jax.runs.resume import (
    FolderObserver,
    require_no_more_epochs,
    require_same_training,
)
from gammavae_jax.scoring.fit import fit
from gammavae_jax.scoring.scored_clips import score_clips


class Capacities(NamedTuple):
    """Minimum capacities of the training and test arrays; None means no minimum."""

    train: Capacity | None = None
    test: Capacity | None = None


_AS_NEEDED = Capacities()


def run(
    config: Config, source: Source, folder: RunFolder, year: int | None, log: Log
) -> bool:
    """Train models for all machines in a source, then score and evaluate test clips.

    `year` is the challenge year whose metrics are used; by default, it is inferred from
    the layout of the recordings.

    Returns:
        Whether every model finished training.

    Raises:
        InputError: the input cannot be used (in this case, nothing is written), or the
            folder cannot be written.
    """
    with locked(folder):
        return run_locked(config, source, folder, year, log)


@contextlib.contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Lock a folder during a `with` block.

    In a cluster, only the first process locks it.
    """
    with contextlib.ExitStack() as stack:
        on_first(lambda: stack.enter_context(locked_folder(*folder)))
        yield


def run_locked(
    config: Config, source: Source, folder: RunFolder, year: int | None, log: Log
) -> bool:
    """Do the same as `run` in a folder that is already locked."""
    require_same(
        [to_dict(config), source.machines, source.with_supplemental, year],
        "its settings differ from those of process 0: start all processes with the "
        "same command",
    )
    machines, year = together(
        lambda: load_all(config, source, find_all(source), year, log)
    )
    if is_joined():  # only then: checksums of a large data set take seconds
        clips = (*machines.train, *machines.test)
        require_same(
            [[name, clip_identities(of_machine)] for name, of_machine in clips],
            f"the recordings in {str(source.root)!r} differ from those of process 0: "
            "use the same --data-root on all hosts",
        )
    return run_loaded(config, machines, folder, Origin(source.root, year), log)


def load_all(
    config: Config,
    source: Source,
    found: list[MachineFiles],
    year: int | None,
    log: Log,
) -> tuple[Machines, int | None]:
    """Load a source's machines and choose the year whose metrics apply."""
    require_classes((machine.name, machine.test) for machine in found)
    machines = load(source, found, config, log)
    require_classes((name, clips.files) for name, clips in machines.test)
    identities = {name: clip_identities(clips) for name, clips in machines.train}
    note_shared_clips(identities, machines.test, log)
    return machines, choose_year(year, found, log)


def choose_year(year: int | None, found: list[MachineFiles], log: Log) -> int | None:
    """Return the given year, or else the year inferred from the recordings' layout.

    If the metrics of that year differ from those since 2022, a note names the year.
    """
    year = year_of_layout(found) if year is None else year
    if year is not None and definition_of(year) < 2022:
        log.note(f"The metrics and the official score follow the rules of {year}.")
    return year


def run_loaded(
    config: Config,
    machines: Machines,
    folder: RunFolder,
    origin: Origin,
    log: Log,
    capacities: Capacities = _AS_NEEDED,
) -> bool:
    """Fit a detector, score the test clips and publish the results.

    The training clips are freed during the fit; see `fit`. Return whether every model
    finished training.
    """
    clips = {name: clip_identities(found) for name, found in machines.train}
    observer = FolderObserver(config, folder, clips, log)
    detector = fit(config, machines, observer, capacities.train)
    tables = score_clips(detector, machines.test, log, capacities.test)
    publish(folder.path, detector, machines.test, tables, origin, log)
    return not observer.has_diverged


def describe(config: Config, source: Source, log: Log) -> None:
    """Show what `run` would process, judging by file names.

    For errors, see `find_all`.
    """
    log.show(to_json(to_dict(config)).rstrip())
    note_left_out(source.root, source.machines, log)
    for files in find_all(source):
        unused = len(files.supplemental)
        log.show(
            f"{files.name}: {len(files.train)} training clips, {len(files.test)} test "
            "clips" + (f", {unused} supplemental clips (not used)" if unused else "")
        )


def describe_folder(config: Config, folder: RunFolder, log: Log) -> None:
    """Show where `run` would write, or why it would refuse the folder."""
    out = folder.path
    try:
        check_folder(*folder)
        before = read_config(out) if folder.resume else None
        if before is not None:
            require_same_training(config, before, out)
            require_no_more_epochs(config, out)
    except InputError as error:
        log.show(f"this run would be refused: {error}")
        return
    action = "replace" if folder.overwrite and out.exists() else "write to"
    log.show(f"this run would {'resume' if folder.resume else action} {out}")


def rescore(
    checkpoint: Path,
    source: Source,
    folder: RunFolder,
    year: int | None,
    log: Log,
    capacity: Capacity | None = None,
) -> None:
    """Score and evaluate test clips with a checkpoint's detector.

    For `year`, see `run`. `capacity` is the minimum capacity of the clip arrays. If the
    checkpoint or the recordings cannot be used, nothing is written.
    """
    if checkpoint.resolve().is_relative_to(folder.path.resolve()):
        raise InputError(
            f"the checkpoint is inside {str(folder.path)!r}, which would be replaced: "
            "choose another path for --out"
        )
    with locked_folder(*folder):
        detector = load_detector(checkpoint)
        files = find_sections(source, detector.machines, ["test"])
        note_left_out(source.root, {machine.machine for machine in files}, log)
        require_classes((machine.name, machine.test) for machine in files)
        config, bank = detector.config, detector.filterbank
        cache, skip = open_cache(source, log), source.skip_bad_files
        test = load_split(files, "test", bank, config, log, skip, cache)
        require_classes((name, clips.files) for name, clips in test)
        note_shared_clips(training_clips(checkpoint), test, log)
        begin_folder(folder.path, config)
        origin = Origin(source.root, choose_year(year, files, log), checkpoint)
        tables = score_clips(detector, test, log, capacity)
        publish(folder.path, detector, test, tables, origin, log)
