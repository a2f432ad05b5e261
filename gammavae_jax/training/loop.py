"""All epochs of a run: progress, metrics, a state saved now and then."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from rich.console import Console

from gammavae_jax.config import Config
from gammavae_jax.data.arrays import AnyArray
from gammavae_jax.devices.cluster import any_process, on_first
from gammavae_jax.devices.placement import Placement
from gammavae_jax.errors import InputError
from gammavae_jax.files import writing
from gammavae_jax.log import Log
from gammavae_jax.models.distributions import sampler_note
from gammavae_jax.process import end_of, stoppable
from gammavae_jax.runs.checkpoint import TrainCheckpoint, save_training
from gammavae_jax.runs.folder import append_metrics
from gammavae_jax.training.epoch import EpochInfo, Trainer, make_trainer

_STOPPING = "stopping after this epoch, to save it; once more stops at once"


def train_epochs(
    placement: Placement,
    trainer: Trainer,
    start: TrainCheckpoint,
    config: Config,
    out: Path,
    log: Log,
) -> tuple[Any, bool]:
    """All epochs that are left; the placed state, and whether any model had to stop.

    Raises:
        InputError: the folder cannot be written.
        KeyboardInterrupt: Ctrl-C or SIGTERM has come; the epoch that ran then was ended
            and its state saved.
    """
    names, epochs = list(start.clips), config.train.epochs
    if start.epoch < epochs:
        _note_sampler(config, log)
    state = placement.put(start.state, "model")
    was_stopped = np.zeros((config.n_members, len(names)), bool)
    if start.epoch:
        was_stopped = np.asarray(start.state.is_stopped)
    with (
        log.timed("train_s"),
        log.progress("epochs", epochs, start.epoch) as advance,
        stoppable(_STOPPING) as stop,
    ):

        def report(epoch: int, info: EpochInfo) -> None:
            nonlocal was_stopped
            is_stopped = np.asarray(info.is_stopped)
            on_first(lambda: append_metrics(out, epoch, names, info._asdict()))
            advance(_losses_text(info))
            _say_stopped(is_stopped & ~was_stopped, epoch, names, config, log)
            was_stopped = is_stopped

        unreported, stopped_by = None, ""
        for epoch in range(start.epoch + 1, epochs + 1):
            state, info = trainer.epoch(epoch, state)
            # The devices have their next epoch before they are asked for the last one.
            if unreported is not None:
                report(epoch - 1, placement.get(unreported))
            unreported = info
            is_due = epoch % config.train.checkpoint_every == 0 or epoch == epochs
            stopped_by = any_process(stop.signal_name)
            if is_due or stopped_by:
                report(epoch, placement.get(info))
                unreported = None
                kept = placement.get_to_save(state)
                reached = TrainCheckpoint(epoch, kept, config, start.clips)
                with writing(out):
                    save_training(out / "checkpoint", reached)
            if stopped_by:
                log.say(f"stopped after epoch {epoch}: --resume goes on from there")
                break
    if stopped_by:  # for a signal that another process had
        raise end_of(stopped_by)
    return state, bool(was_stopped.any())


def train_machines(
    config: Config,
    placement: Placement,
    names: Sequence[str],
    data: Any,
    group: UInt8[np.ndarray, "member machine window"],
    log: Log | None = None,
) -> Any:
    """A whole training that leaves nothing on disk; the placed `TrainState`.

    Args:
        config: of the training.
        placement: where the models are.
        names: of the machines.
        data: `MachineArrays`; they may be placed.
        group: what each window is used for.
        log: of the progress; on standard error unless given.

    Raises:
        InputError: a model whose loss did not stay finite.
    """
    log = log or Log(Console(stderr=True))
    _note_sampler(config, log)
    trainer = make_trainer(config, placement, data, group)
    state = trainer.initial
    with log.timed("train_s"), log.progress("epochs", config.train.epochs) as advance:
        for epoch in range(1, config.train.epochs + 1):
            state, info = trainer.epoch(epoch, state)
            advance(_losses_text(placement.get(info)))
    is_stopped = np.asarray(placement.get(state).is_stopped)
    for m, name in enumerate(names):
        if is_stopped[:, m].any():
            raise InputError(
                f"{name}: the loss did not stay finite: give a smaller "
                "train.learning_rate, or check the recordings"
            )
    return state


def _note_sampler(config: Config, log: Log) -> None:
    """Say once a training if its draws are a fallback's."""
    if config.model.latent == "gamma" and sampler_note():
        log.note(sampler_note())


def _losses_text(info: EpochInfo) -> str:
    means = (_known_mean(x) for x in (info.loss, info.held_out_loss))
    return "loss {:.4g}, held out {:.4g}".format(*means)


def _known_mean(values: AnyArray) -> float:
    """The mean of what is finite; stopped models have no loss."""
    known = np.asarray(values)[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


def _say_stopped(
    newly: Bool[np.ndarray, "member machine"],
    epoch: int,
    names: Sequence[str],
    config: Config,
    log: Log,
) -> None:
    for member, machine in np.argwhere(newly):
        seed, fold = divmod(int(member), config.n_folds)
        of_fold = f", fold {fold}" if config.n_folds > 1 else ""
        log.note(
            f"{names[machine]}, seed {config.seeds[seed]}{of_fold}: the loss did not "
            f"stay finite in epoch {epoch}; its training stops with the model of epoch "
            f"{epoch - 1}. Try a smaller train.learning_rate."
        )
