"""The main job, stage by stage; the only module that knows their order."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from gammavae_jax.checkpoint import (
    TrainCheckpoint,
    restore_detector,
    restore_training,
    save_detector,
)
from gammavae_jax.clip_files import MachineFiles
from gammavae_jax.config import Config
from gammavae_jax.config_json import to_dict
from gammavae_jax.dataset import (
    TRAIN,
    Room,
    clip_identities,
    stack_machines,
    supplemental_clips,
)
from gammavae_jax.detector import fit_detector
from gammavae_jax.epochs import train_epochs
from gammavae_jax.errors import InputError
from gammavae_jax.features import mel_filterbank
from gammavae_jax.job import (
    Job,
    LoadedMachines,
    cache_of,
    find_all,
    load_split,
    require_classes,
    year_told,
)
from gammavae_jax.log import Log
from gammavae_jax.parallel import make_layout
from gammavae_jax.report import to_json
from gammavae_jax.results import score_and_report
from gammavae_jax.run_folder import (
    begin_folder,
    check_folder,
    has_results,
    read_config,
    resume_folder,
)
from gammavae_jax.split import split_windows
from gammavae_jax.threshold import too_few_clips
from gammavae_jax.train import make_trainer, with_room_for


def run_experiment(config: Config, job: Job, log: Log, table: Console) -> bool:
    """Train, fit, score and evaluate; write the files and print the table.

    Returns whether every model could be trained to the end.

    Raises:
        InputError: something the user gave cannot be used; nothing was written.
    """
    check_folder(job.out, job.resume, job.overwrite)
    job, loaded = load_job(config, job, find_all(job), log)
    return run_loaded(config, job, loaded, log, table)


def load_job(
    config: Config, job: Job, files: Sequence[MachineFiles], log: Log
) -> tuple[Job, LoadedMachines]:
    """The job with its year, and its recordings; nothing is written but a cache.

    Raises:
        InputError: something the user gave cannot be used.
    """
    require_classes((machine.name, machine.test) for machine in files)
    bank = mel_filterbank(config.features)
    cache = cache_of(job, log)
    train, test = (
        load_split(files, split, bank, config, log, job.skip_bad_files, cache)
        for split in ("train", "test")
    )
    require_classes((name, clips.files) for name, clips in test)
    names = tuple((machine.machine, machine.section) for machine in files)
    return year_told(job, files, log), LoadedMachines(names, bank, train, test)


def run_loaded(
    config: Config,
    job: Job,
    loaded: LoadedMachines,
    log: Log,
    table: Console,
    rooms: tuple[Room | None, Room | None] = (None, None),
) -> bool:
    """`run_experiment` from its recordings on; those to train on are given up.

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
    checkpoint = _checkpoint_to_resume(config, job, clips)
    if checkpoint is not None:
        if checkpoint.epoch < config.train.epochs:
            log.say(
                f"going on after epoch {checkpoint.epoch}, to {config.train.epochs}"
            )
        else:
            log.say(f"all {checkpoint.epoch} epochs are there: scoring alone")
        resume_folder(job.out, config, checkpoint.epoch)
    else:
        if job.resume:
            log.say("no epoch was saved yet: beginning again")
        begin_folder(job.out, config)

    arrays = stack_machines(train, config.features.n_context, rooms[0])
    is_extra = supplemental_clips(train, arrays.n_frames.shape[1])
    train.clear()  # the log-mels live on in the arrays alone
    split = split_windows(arrays, config, is_extra)
    if config.scoring.threshold != "official":
        few = too_few_clips(split.is_held_out, list(clips), config)
        if few:
            log.note(few)
    n_windows = (split.group[0] > 0).sum(-1)
    with make_layout(
        n_windows.tolist(), config.n_members, batching=config.train.batching
    ) as layout:
        placed = layout.put(arrays, "machine")
        del arrays
        log.say(f"compiling for {_how_many(len(clips), config)}")
        with log.timed("compile_s"):
            trainer = make_trainer(config, layout, placed, split.group)
        start = checkpoint or TrainCheckpoint(0, trainer.initial, config, clips)
        if checkpoint is not None:
            n_batches = -(-split.group.shape[-1] // config.train.batch_size)
            start = start._replace(state=with_room_for(start.state, n_batches))
        del checkpoint
        n_epochs = config.train.epochs - start.epoch
        state, stopped = train_epochs(layout, trainer, start, config, job.out, log)
        n_trained = int((split.group == TRAIN).sum()) * n_epochs
        log.seconds["windows_per_s"] = n_trained / max(log.seconds["train_s"], 1e-9)

        with log.timed("fit_s"):
            detector = fit_detector(
                config,
                layout,
                loaded.names,
                loaded.filterbank,
                state,
                placed,
                split,
            )
            save_detector(job.out / "checkpoint", detector)
        del placed, trainer, start, state
        score_and_report(
            detector, layout, test, job, log, table, job.out / "checkpoint", rooms[1]
        )
    return not stopped


def describe(config: Config, job: Job, table: Console) -> None:
    """Say what `run_experiment` would do with these settings, from file names alone.

    Raises:
        InputError: see `find_all`.
    """
    log = Log(table)
    try:
        check_folder(job.out, job.resume, job.overwrite)
    except InputError as error:
        log.say(f"would be refused: {error}")
    log.say(to_json(to_dict(config)).rstrip())
    for files in find_all(job):
        unused = len(files.supplemental)
        log.say(
            f"{files.name}: {len(files.train)} training clips, {len(files.test)} test "
            "clips" + (f", {unused} supplemental clips, not used" if unused else "")
        )
    log.say(f"would write to {job.out}")


def run_evaluation(
    checkpoint: Path, job: Job, log: Log, table: Console, room: Room | None = None
) -> None:
    """Score and evaluate test clips with a saved detector.

    The machines are the checkpoint's. The clips' arrays have at least the given room.

    Raises:
        InputError: no readable checkpoint, or unusable recordings; nothing was written.
    """
    check_folder(job.out, overwrite=job.overwrite)
    if checkpoint.resolve().is_relative_to(job.out.resolve()):
        raise InputError(
            f"the checkpoint lies in {str(job.out)!r}, which would be replaced: give "
            "another --out"
        )
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
    with make_layout(n_clips, config.n_members, batching=batching) as layout:
        score_and_report(detector, layout, test, job, log, table, checkpoint, room)


def _checkpoint_to_resume(
    config: Config, job: Job, clips: dict[str, list[str]]
) -> TrainCheckpoint | None:
    """The state to go on from; None to begin anew, where that loses nothing."""
    if not job.resume:
        return None
    checkpoint = restore_training(job.out / "checkpoint")
    if checkpoint is None and has_results(job.out):
        raise InputError(
            f"{str(job.out)!r} has results but no training to go on with: say "
            "--overwrite to replace it, or give another --out"
        )
    before = read_config(job.out) if checkpoint is None else checkpoint.config
    require_same_training(config, before, job.out)
    if checkpoint is None:
        return None
    if config.train.epochs < checkpoint.epoch:
        raise InputError(
            f"{str(job.out)!r} already has {checkpoint.epoch} epochs: give --epochs of "
            "at least that, or say --overwrite"
        )
    if list(clips.items()) != list(checkpoint.clips.items()):
        raise InputError(
            f"{str(job.out)!r} was trained on other recordings, or in another order: "
            "give the same --data-root and machines, or say --overwrite"
        )
    return checkpoint


def require_same_training(config: Config, before: Config, out: Path) -> None:
    """Refuse to go on with a training under other settings than it began with.

    Raises:
        InputError: they differ.
    """
    epochs = before.train.epochs
    if _what_trains(config, epochs) != _what_trains(before, epochs):
        raise InputError(
            f"{str(out)!r} was made with other settings: resume with the same ones "
            "(train.epochs may grow, scores and scoring may change), or say --overwrite"
        )


def _what_trains(config: Config, epochs: int) -> tuple[Any, ...]:
    """What decides a training but for its length, and nothing of what scores it."""
    train = replace(config.train, epochs=epochs)
    return config.seed, config.n_seeds, config.features, config.model, train


def _how_many(n_machines: int, config: Config) -> str:
    folds = f" of {config.n_folds} folds" if config.n_folds > 1 else ""
    machines = "1 machine" if n_machines == 1 else f"{n_machines} machines"
    n_seeds = len(config.seeds)
    return f"{machines} and {'1 seed' if n_seeds == 1 else f'{n_seeds} seeds'}{folds}"
