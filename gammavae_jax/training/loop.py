"""Runs the training loop and defines the observer that the loop calls."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from gammavae_jax.config import Config
from gammavae_jax.data.arrays import TRAIN, AnyArray, Capacity
from gammavae_jax.data.clips import NamedClips
from gammavae_jax.devices.placement import Placement
from gammavae_jax.errors import InputError
from gammavae_jax.log import Advance, Log
from gammavae_jax.models.gamma_sampler import sampler_note
from gammavae_jax.training.epoch import EpochInfo, Trainer, make_trainer
from gammavae_jax.training.examples import (
    PlacedExamples,
    place_examples,
    stack_examples,
)
from gammavae_jax.training.split import Split
from gammavae_jax.training.step import with_room_for


class Progress(NamedTuple):
    """The training state after an epoch."""

    epoch: int  # 0 before the first
    state: Any  # a `TrainState` with the axes `member machine ...`


class Observer:
    """The hooks that the training loop calls; this base class only shows progress.

    Args:
        log: shows progress and keeps notes; default: a log on standard error.
    """

    def __init__(self, log: Log | None = None):
        self.log = log or Log()

    def begin(self) -> Progress | None:
        """Return the progress to resume from; None to start from the first epoch."""
        return None

    def on_epoch(self, epoch: int, info: EpochInfo) -> None:
        """Handle the losses of an epoch, which are arrays on the host."""

    def on_diverged(self, name: str, seed: int, fold: int | None, epoch: int) -> None:
        """Handle a model whose training has diverged; called once per model.

        Its loss, a parameter or a running statistic is no longer finite.

        Raises:
            InputError: always, in this class.
        """
        raise InputError(
            f"{name}: training diverged (the loss or a parameter is not finite): lower "
            "train.learning_rate, or check the recordings"
        )

    def must_save(self, epoch: int) -> bool:
        """Return whether to save the training state after this epoch."""
        return False

    def save(self, epoch: int, state: Any) -> None:
        """Save the training state after an epoch; see `Placement.get_to_save`."""

    @contextlib.contextmanager
    def heed_signals(self) -> Iterator[None]:
        """Return a context for all epochs, so that a subclass can handle signals."""
        yield

    def stop_requested(self) -> bool:
        """Return whether to save the training state after this epoch and then stop."""
        return False


class Trained(NamedTuple):
    """Trained models and their training clips, still on the devices."""

    config: Config
    placement: Placement
    state: Any  # the placed `TrainState`
    data: Any  # the placed `TrainingArrays`
    split: Split


def train_machines(
    config: Config,
    train: NamedClips,
    observer: Observer | None = None,
    capacity: Capacity | None = None,
) -> Trained:
    """Train one model for each machine, seed and fold.

    Args:
        config: the model and training settings.
        train: each machine's name and training clips.
        observer: shows progress and may save states; default: show progress on standard
            error.
        capacity: the minimum size of one machine's arrays.

    Raises:
        InputError: a machine has too few clips, or a model diverged.
    """
    observer = observer or Observer()
    examples = stack_examples(config, train, observer.log, capacity)
    return train_examples(config, place_examples(config, examples), observer)


def train_examples(
    config: Config, examples: PlacedExamples, observer: Observer
) -> Trained:
    """Do what `train_machines` does, with examples that are already on the devices.

    Raises:
        InputError: the observer raised it.
    """
    log, (names, placement, data, split) = observer.log, examples
    with placement:
        start = observer.begin()
        work = f"compiling for {_how_many(len(names), config)}"
        with log.timed("compile_s"), log.busy(work):
            trainer = make_trainer(config, placement, data, split.window_use)
        state = train(config, trainer, start, examples, observer)
        placement.wait(state)  # closing would cancel calls that have not started
    return Trained(config, placement, state, data, split)


def train(
    config: Config,
    trainer: Trainer,
    start: Progress | None,
    examples: PlacedExamples,
    observer: Observer,
) -> Any:
    """Run the remaining epochs and return the `TrainState` on the devices.

    Raises:
        InputError: the observer raised it.
        KeyboardInterrupt: the observer stopped the training.
    """
    log, epochs, use = observer.log, config.train.epochs, examples.split.window_use
    placement = examples.placement
    first = start.epoch if start else 0
    draws_gammas = first < epochs and config.model.latent == "gamma"
    if draws_gammas and (note := sampler_note(config.model.sampler)):
        log.note(note)
    state, report = trainer.initial, _Report(config, examples.names, observer)
    if start is not None:
        n_batches = -(-use.shape[-1] // config.train.batch_size)
        state = placement.put(with_room_for(start.state, n_batches), "model")
        report.is_stopped = np.asarray(start.state.is_stopped)
    with (
        log.timed("train_s"),
        log.progress("epochs", epochs, first) as report.advance,
        observer.heed_signals(),
    ):
        pending = None  # the previous epoch and its losses, which may not be ready yet
        for epoch in range(first + 1, epochs + 1):
            state, info = trainer.epoch(epoch, state)
            # The devices start this epoch before the previous epoch's losses are read.
            if pending is not None:
                report(pending[0], placement.get(pending[1]))
            pending = epoch, info
            is_end = observer.stop_requested()
            if is_end or observer.must_save(epoch):
                report(epoch, placement.get(info))
                pending = None
                observer.save(epoch, placement.get_to_save(state))
            if is_end:
                break
        if pending is not None:
            report(pending[0], placement.get(pending[1]))
    n_trained = int((use == TRAIN).sum()) * (epochs - first)
    log.seconds["windows_per_s"] = n_trained / max(log.seconds["train_s"], 1e-9)
    return state


class _Report:
    """The callback that passes losses to the observer and detects divergence."""

    advance: Advance

    def __init__(self, config: Config, names: Sequence[str], observer: Observer):
        self.config, self.names, self.observer = config, names, observer
        self.is_stopped = np.zeros((config.n_members, len(names)), bool)

    def __call__(self, epoch: int, info: EpochInfo) -> None:
        self.observer.on_epoch(epoch, info)
        means = (_finite_mean(x) for x in (info.loss, info.held_out_loss))
        self.advance("loss {:.4g}, held out {:.4g}".format(*means))
        is_stopped = np.asarray(info.is_stopped)
        n_folds = self.config.n_folds
        for member, machine in np.argwhere(is_stopped & ~self.is_stopped):
            seed, fold = divmod(int(member), n_folds)
            self.observer.on_diverged(
                self.names[int(machine)],
                self.config.seeds[seed],
                fold if n_folds > 1 else None,
                epoch,
            )
        self.is_stopped = is_stopped


def _finite_mean(values: AnyArray) -> float:
    """Return the mean of the finite values; the loss of a stopped model is NaN."""
    finite = np.asarray(values)[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan


def _how_many(n_machines: int, config: Config) -> str:
    folds = f" with {config.n_folds} folds" if config.n_folds > 1 else ""
    machines = "1 machine" if n_machines == 1 else f"{n_machines} machines"
    n_seeds = len(config.seeds)
    return f"{machines} and {'1 seed' if n_seeds == 1 else f'{n_seeds} seeds'}{folds}"
