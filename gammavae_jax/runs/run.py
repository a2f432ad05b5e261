"""The main job, stage by stage; the only module that knows their order."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from gammavae_jax.config import Config
from gammavae_jax.config_json import to_dict
from gammavae_jax.data.arrays import TRAIN, Capacity, stack_machines, supplemental_clips
from gammavae_jax.data.clips import clip_identities
from gammavae_jax.data.loading import (
    Job,
    LoadedMachines,
    cache_of,
    find_all,
    load_found,
    load_split,
    require_classes,
    year_told,
)
from gammavae_jax.data.machines import MachineFiles
from gammavae_jax.devices.cluster import on_first, require_same, together
from gammavae_jax.devices.deal import make_placement
from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.tables import to_json
from gammavae_jax.log import Log
from gammavae_jax.runs.checkpoint import TrainCheckpoint, restore_detector
from gammavae_jax.runs.folder import (
    begin_folder,
    check_folder,
    held_folder,
    read_config,
)
from gammavae_jax.runs.results import score_and_report
from gammavae_jax.runs.resume import (
    begin_or_resume,
    require_no_more_epochs,
    require_same_recordings,
    require_same_training,
)
from gammavae_jax.scoring.detector import fit_detector
from gammavae_jax.scoring.threshold import too_few_clips
from gammavae_jax.training.epoch import make_trainer
from gammavae_jax.training.loop import train_epochs
from gammavae_jax.training.split import require_windows, split_notes, split_windows
from gammavae_jax.training.step import with_room_for


def run_experiment(config: Config, job: Job, log: Log, table: Console) -> bool:
    """Train, fit, score and evaluate; write the files and print the table.

    Returns whether every model could be trained to the end.

    Raises:
        InputError: something the user gave cannot be used, and nothing was written; or
            the folder can be written no longer.
    """
    with held(job):
        return run_held(config, job, log, table)


@contextlib.contextmanager
def held(job: Job) -> Iterator[None]:
    """Keep every other run out of a job's folder; see `held_folder`, also for errors.

    Of several processes, the first one does so.
    """
    with contextlib.ExitStack() as stack:

        def hold() -> None:
            stack.enter_context(held_folder(job.out, job.resume, job.overwrite))

        on_first(hold)
        yield


def run_held(config: Config, job: Job, log: Log, table: Console) -> bool:
    """`run_experiment` in a folder that is held already; see there for the errors."""
    require_same(
        [to_dict(config), job.machines, job.with_supplemental, job.year],
        "its settings are not those of process 0: give all the same command",
    )
    job, loaded = together(lambda: load_job(config, job, find_all(job), log))
    return run_loaded(config, job, loaded, log, table)


def load_job(
    config: Config, job: Job, files: Sequence[MachineFiles], log: Log
) -> tuple[Job, LoadedMachines]:
    """The job with its year, and its recordings; nothing is written but a cache.

    Raises:
        InputError: something the user gave cannot be used.
    """
    require_classes((machine.name, machine.test) for machine in files)
    loaded = load_found(files, job, config, log)
    require_classes((name, clips.files) for name, clips in loaded.test)
    return year_told(job, files, log), loaded


def run_loaded(
    config: Config,
    job: Job,
    loaded: LoadedMachines,
    log: Log,
    table: Console,
    rooms: tuple[Capacity | None, Capacity | None] = (None, None),
) -> bool:
    """`run_held` from its recordings on; those to train on are given up.

    Args:
        config: of the run.
        job: that was loaded.
        loaded: its recordings; `train` is empty afterwards.
        log: of the progress.
        table: where results are printed.
        rooms: that arrays of training and of test clips must have at least.

    Raises:
        InputError: the folder cannot be resumed or written.
    """
    train, test = loaded.train, loaded.test
    clips = {name: clip_identities(found) for name, found in train}
    require_same_recordings(job, (*train, *test))
    arrays = stack_machines(train, config.features.n_context, rooms[0])
    is_extra = supplemental_clips(train, arrays.n_frames.shape[1])
    train.clear()  # the log-mels live on in the arrays alone
    split = split_windows(arrays, config, is_extra)
    together(lambda: require_windows(split, list(clips)))
    checkpoint = begin_or_resume(config, job, clips, log)

    for note in split_notes(arrays, split, list(clips), config):
        log.note(note)
    if config.scoring.threshold != "official":
        few = too_few_clips(split.is_held_out, list(clips), config)
        if few:
            log.note(few)
    n_windows = (split.group[0] > 0).sum(-1)
    with make_placement(
        n_windows.tolist(), config.n_members, batching=config.train.batching
    ) as placement:
        placed = placement.put(arrays, "machine")
        del arrays
        log.say(f"compiling for {_how_many(len(clips), config)}")
        with log.timed("compile_s"):
            trainer = make_trainer(config, placement, placed, split.group)
        start = checkpoint or TrainCheckpoint(0, trainer.initial, config, clips)
        if checkpoint is not None:
            n_batches = -(-split.group.shape[-1] // config.train.batch_size)
            start = start._replace(state=with_room_for(start.state, n_batches))
        del checkpoint
        n_epochs = config.train.epochs - start.epoch
        state, stopped = train_epochs(placement, trainer, start, config, job.out, log)
        n_trained = int((split.group == TRAIN).sum()) * n_epochs
        log.seconds["windows_per_s"] = n_trained / max(log.seconds["train_s"], 1e-9)

        with log.timed("fit_s"):
            detector = fit_detector(
                config,
                placement,
                loaded.names,
                loaded.filterbank,
                state,
                placed,
                split,
            )
        del placed, trainer, start, state
        score_and_report(detector, placement, test, job, log, table, room=rooms[1])
    return not stopped


def describe(config: Config, job: Job, table: Console) -> None:
    """Say on what `run_experiment` would work, from file names alone, and how.

    Raises:
        InputError: see `find_all`.
    """
    log = Log(table)
    log.say(to_json(to_dict(config)).rstrip())
    for files in find_all(job):
        unused = len(files.supplemental)
        log.say(
            f"{files.name}: {len(files.train)} training clips, {len(files.test)} test "
            "clips" + (f", {unused} supplemental clips, not used" if unused else "")
        )


def describe_folder(config: Config, job: Job, log: Log) -> None:
    """Say where `run_experiment` would write, or why it would not."""
    try:
        check_folder(job.out, job.resume, job.overwrite)
        before = read_config(job.out) if job.resume else None
        if before is not None:
            require_same_training(config, before, job.out)
            require_no_more_epochs(config, job.out)
        doing = "replace" if job.overwrite and job.out.exists() else "write to"
        log.say(f"would {'go on in' if job.resume else doing} {job.out}")
    except InputError as error:
        log.say(f"would be refused: {error}")


def run_evaluation(
    checkpoint: Path, job: Job, log: Log, table: Console, room: Capacity | None = None
) -> None:
    """Score and evaluate test clips with a saved detector.

    The machines are the checkpoint's. The clips' arrays have at least the given room.

    Raises:
        InputError: no readable checkpoint, or unusable recordings; nothing was written.
    """
    if checkpoint.resolve().is_relative_to(job.out.resolve()):
        raise InputError(
            f"the checkpoint lies in {str(job.out)!r}, which would be replaced: give "
            "another --out"
        )
    with held_folder(job.out, resume=False, overwrite=job.overwrite):
        _evaluate(checkpoint, job, log, table, room)


def _evaluate(
    checkpoint: Path, job: Job, log: Log, table: Console, room: Capacity | None
) -> None:
    """The same in a folder that nobody else writes to."""
    detector = restore_detector(checkpoint)
    job = replace(job, machines=tuple(dict.fromkeys(m for m, _ in detector.machines)))
    found = {(f.machine, f.section): f for f in find_all(job, ["test"])}
    for machine, section in detector.machines:
        if (machine, section) not in found:
            raise InputError(
                f"the checkpoint's {machine} section {section} is not in "
                f"{str(job.data_root)!r}: give the data that it was trained for"
            )
    files = [found[machine] for machine in detector.machines]
    require_classes((machine.name, machine.test) for machine in files)
    test = load_split(
        files,
        "test",
        detector.filterbank,
        detector.config,
        log,
        job.skip_bad_files,
        cache_of(job, log),
    )
    require_classes((name, clips.files) for name, clips in test)
    begin_folder(job.out, detector.config)
    config = detector.config
    job = year_told(job, files, log)
    n_clips = [len(clips.files) for _, clips in test]
    batching = config.train.batching
    with make_placement(n_clips, config.n_members, batching=batching) as placement:
        score_and_report(detector, placement, test, job, log, table, checkpoint, room)


def _how_many(n_machines: int, config: Config) -> str:
    folds = f" of {config.n_folds} folds" if config.n_folds > 1 else ""
    machines = "1 machine" if n_machines == 1 else f"{n_machines} machines"
    n_seeds = len(config.seeds)
    return f"{machines} and {'1 seed' if n_seeds == 1 else f'{n_seeds} seeds'}{folds}"
