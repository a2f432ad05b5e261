"""The main job, stage by stage; the only module that knows their order."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from rich.console import Console

from gammavae_jax.checkpoint import (
    TrainCheckpoint,
    restore_detector,
    restore_training,
    save_detector,
    save_training,
)
from gammavae_jax.config import Config, to_dict
from gammavae_jax.dataset import (
    TRAIN,
    AnyArray,
    clip_identities,
    split_windows,
    stack_machines,
    supplemental_clips,
)
from gammavae_jax.detector import fit_detector
from gammavae_jax.errors import InputError
from gammavae_jax.features import mel_filterbank
from gammavae_jax.job import (
    Job,
    find_all,
    load_split,
    require_classes,
    year_told,
)
from gammavae_jax.layout import Layout
from gammavae_jax.log import Log
from gammavae_jax.parallel import make_layout
from gammavae_jax.report import to_json
from gammavae_jax.results import score_and_report
from gammavae_jax.run_folder import (
    append_metrics,
    begin_folder,
    check_folder,
    has_results,
    read_config,
    resume_folder,
)
from gammavae_jax.threshold import clips_needed
from gammavae_jax.train import EpochInfo, Trainer, make_trainer


def run_experiment(config: Config, job: Job, log: Log, table: Console) -> bool:
    """Train, fit, score and evaluate; write the files and print the table.

    Returns whether every model could be trained to the end.

    Raises:
        InputError: something the user gave cannot be used; nothing was written.
    """
    check_folder(job.out, job.resume, job.overwrite)
    files = find_all(job)
    require_classes((machine.name, machine.test) for machine in files)
    bank = mel_filterbank(config.features)
    train = load_split(files, "train", bank, config, log, job.skip_bad_files)
    test = load_split(files, "test", bank, config, log, job.skip_bad_files)
    require_classes((name, clips.files) for name, clips in test)
    clips = {name: clip_identities(found) for name, found in train}
    checkpoint = _checkpoint_to_resume(config, job, clips)
    job = year_told(job, files, log)
    if checkpoint is not None:
        log.say(f"going on after epoch {checkpoint.epoch}")
        resume_folder(job.out, config, checkpoint.epoch)
    else:
        if job.resume:
            log.say("no epoch was saved yet: beginning again")
        begin_folder(job.out, config)

    arrays = stack_machines(train, config.features.n_context)
    is_extra = supplemental_clips(train)
    del train  # the log-mels live on in the arrays alone
    split = split_windows(arrays, config, is_extra)
    if config.scoring.threshold == "conformal":
        _note_few_clips(split.is_held_out, list(clips), config, log)
    n_windows = (split.group[0] > 0).sum(-1)
    with make_layout(
        n_windows.tolist(), len(config.seeds), batching=config.train.batching
    ) as layout:
        placed = layout.put(arrays, "machine")
        del arrays
        log.say(f"compiling for {len(files)} machines and {len(config.seeds)} seeds")
        with log.timed("compile_s"):
            trainer = make_trainer(config, layout, placed, split.group)
        start = checkpoint or TrainCheckpoint(0, trainer.initial, config, clips)
        del checkpoint
        n_epochs = config.train.epochs - start.epoch
        state, stopped = _train(layout, trainer, start, config, job.out, log)
        n_trained = int((split.group == TRAIN).sum()) * n_epochs
        log.seconds["windows_per_s"] = n_trained / max(log.seconds["train_s"], 1e-9)

        with log.timed("fit_s"):
            detector = fit_detector(
                config,
                layout,
                [(machine.machine, machine.section) for machine in files],
                bank,
                state,
                placed,
                split,
            )
            save_detector(job.out / "checkpoint", detector)
        del placed, trainer, start, state
        score_and_report(detector, layout, test, job, log, table)
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


def run_evaluation(checkpoint: Path, job: Job, log: Log, table: Console) -> None:
    """Score and evaluate test clips with a saved detector.

    The machines are the checkpoint's.

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
        files, "test", detector.filterbank, detector.config, log, job.skip_bad_files
    )
    require_classes((name, clips.files) for name, clips in test)
    begin_folder(job.out, detector.config)
    config = detector.config
    job = year_told(job, files, log)
    n_clips = [len(clips.files) for _, clips in test]
    batching = config.train.batching
    with make_layout(n_clips, len(config.seeds), batching=batching) as layout:
        score_and_report(detector, layout, test, job, log, table)


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
    as_before = replace(config, train=replace(config.train, epochs=before.train.epochs))
    if as_before != before:
        raise InputError(
            f"{str(job.out)!r} was made with other settings: resume with the same ones "
            "(only train.epochs may grow), or say --overwrite"
        )
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


def _note_few_clips(
    is_held_out: Bool[np.ndarray, "seed machine clip"],
    names: Sequence[str],
    config: Config,
    log: Log,
) -> None:
    """Say where the held-out clips are too few for the nominal false-alarm rate."""
    rate = config.scoring.false_alarm_rate
    counts = is_held_out[0].sum(-1)
    needed = clips_needed(rate)
    few = [f"{m} ({n})" for m, n in zip(names, counts, strict=True) if n < needed]
    if few:
        log.note(
            f"Too few training clips for a false-alarm rate of {rate:g}, which needs "
            f"{needed} held-out ones: expect more false alarms of "
            f"{', '.join(few)}. Add clips, or raise train.held_out_fraction."
        )


def _train(
    layout: Layout,
    trainer: Trainer,
    start: TrainCheckpoint,
    config: Config,
    out: Path,
    log: Log,
) -> tuple[Any, bool]:
    """All epochs that are left; the placed state, and whether any model had to stop."""
    names, epochs = list(start.clips), config.train.epochs
    state = layout.put(start.state, "run")
    was_stopped = np.zeros((len(config.seeds), len(names)), bool)
    if start.epoch:
        was_stopped = np.asarray(start.state.is_stopped)
    with (
        log.timed("train_s"),
        log.progress("epochs", epochs, start.epoch) as advance,
    ):

        def report(epoch: int, info: EpochInfo) -> None:
            nonlocal was_stopped
            is_stopped = np.asarray(info.is_stopped)
            append_metrics(out, epoch, names, info._asdict())
            advance(_losses_text(info))
            _say_stopped(is_stopped & ~was_stopped, epoch, names, config, log)
            was_stopped = is_stopped

        unreported = None
        for epoch in range(start.epoch + 1, epochs + 1):
            state, info = trainer.epoch(epoch, state)
            # The devices have their next epoch before they are asked for the last one.
            if unreported is not None:
                report(epoch - 1, layout.get(unreported))
            unreported = info
            if epoch % config.train.checkpoint_every == 0 or epoch == epochs:
                report(epoch, layout.get(info))
                unreported = None
                save_training(
                    out / "checkpoint",
                    TrainCheckpoint(epoch, layout.get(state), config, start.clips),
                )
    return state, bool(was_stopped.any())


def _losses_text(info: EpochInfo) -> str:
    means = (_known_mean(x) for x in (info.loss, info.held_out_loss))
    return "loss {:.4g}, held out {:.4g}".format(*means)


def _known_mean(values: AnyArray) -> float:
    """The mean of what is finite; stopped models have no loss."""
    known = np.asarray(values)[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


def _say_stopped(
    newly: Bool[np.ndarray, "seed machine"],
    epoch: int,
    names: Sequence[str],
    config: Config,
    log: Log,
) -> None:
    for seed, machine in np.argwhere(newly):
        log.note(
            f"{names[machine]}, seed {config.seeds[seed]}: the loss did not stay "
            f"finite in epoch {epoch}; its training stops with the model of epoch "
            f"{epoch - 1}. Try a smaller train.learning_rate."
        )
