"""Starts or resumes training in a run folder, records epochs and saves training states.

All processes of a cluster must see the same folder. They write training states
together; the first process writes everything else.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gammavae_jax.config import Config
from gammavae_jax.config_json import leaves, to_dict
from gammavae_jax.devices.cluster import any_process, on_first, require_same, together
from gammavae_jax.errors import InputError, writing
from gammavae_jax.log import Log
from gammavae_jax.process import end_of, stoppable
from gammavae_jax.runs.checkpoint import (
    TrainCheckpoint,
    last_saved_epoch,
    restore_training,
    save_training,
)
from gammavae_jax.runs.folder import (
    RunFolder,
    append_metrics,
    begin_folder,
    read_config,
    resume_folder,
)
from gammavae_jax.runs.result_files import has_results
from gammavae_jax.training.epoch import EpochInfo
from gammavae_jax.training.loop import Observer, Progress

_STOPPING = "stopping after this epoch; press Ctrl-C again to stop now"
_OF_TRAINING = ("seed", "n_seeds", "features.", "model.", "train.")
_MOST_NAMED = 3  # the maximum number of settings that a message names


class FolderObserver(Observer):
    """Records training in a run folder, so that a run can be resumed.

    `clips` holds the identities of each machine's training clips (see
    `clip_identities`).
    """

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        clips: Mapping[str, list[str]],
        log: Log,
    ):
        super().__init__(log)
        self.config, self.folder, self.clips = config, folder, dict(clips)
        self.has_diverged = False  # whether any model has diverged
        self._ended_by = ""  # the name of the signal that ended training

    def begin(self) -> Progress | None:
        """Prepare the folder and find the state to resume from."""
        out = self.folder.path
        checkpoint = together(self._state_to_resume)
        require_same(
            checkpoint and checkpoint.epoch,
            f"the training state in {str(out)!r} differs from that of process 0: set "
            "--out to a folder that all hosts share",
        )
        if checkpoint is None:
            if self.folder.resume:
                self.log.say("no epoch has been saved yet: starting from the beginning")
            on_first(lambda: begin_folder(out, self.config))
        else:
            self._resume(checkpoint.epoch)
        together(lambda: _require_shared(out))
        if checkpoint is None:
            return None
        self.has_diverged = bool(np.any(np.asarray(checkpoint.state.is_stopped)))
        return Progress(checkpoint.epoch, checkpoint.state)

    def on_epoch(self, epoch: int, info: EpochInfo) -> None:
        """Append the epoch's losses to `metrics.jsonl`."""
        values, out = info._asdict(), self.folder.path
        on_first(lambda: append_metrics(out, epoch, list(self.clips), values))

    def on_diverged(self, name: str, seed: int, fold: int | None, epoch: int) -> None:
        """Print a note about a model that diverged. Other models continue to train."""
        self.has_diverged = True
        of_fold = "" if fold is None else f", fold {fold}"
        self.log.note(
            f"{name}, seed {seed}{of_fold}: training diverged in epoch {epoch} (the "
            f"loss or a parameter is not finite); the model of epoch {epoch - 1} is "
            "kept. Lower train.learning_rate."
        )

    def must_save(self, epoch: int) -> bool:
        """Return whether an epoch is the last or a multiple of `checkpoint_every`."""
        train = self.config.train
        return epoch % train.checkpoint_every == 0 or epoch == train.epochs

    def save(self, epoch: int, state: Any) -> None:
        """Save the training state to the checkpoint folder."""
        reached = TrainCheckpoint(epoch, state, self.config, self.clips)
        with writing(self.folder.path, resumable=True):
            save_training(self.folder.path / "checkpoint", reached)
        if self._ended_by:
            self.log.say(f"stopped after epoch {epoch}: continue with --resume")

    @contextlib.contextmanager
    def heed_signals(self) -> Iterator[None]:
        """Defer Ctrl-C, SIGTERM and SIGHUP until the epoch is saved."""
        with stoppable(_STOPPING) as self._stop:
            yield
        if self._ended_by:  # another process received the signal
            raise end_of(self._ended_by)

    def stop_requested(self) -> bool:
        """Return whether a signal has told any process to stop."""
        self._ended_by = any_process(self._stop.signal_name)
        return bool(self._ended_by)

    def _resume(self, epoch: int) -> None:
        if epoch < self.config.train.epochs:
            self.log.say(f"resuming after epoch {epoch} of {self.config.train.epochs}")
        else:
            self.log.say(f"all {epoch} epochs are done: only scoring is left")
        out = self.folder.path
        lost = on_first(lambda: resume_folder(out, self.config, epoch))
        if lost:
            self.log.note(
                f"Epochs missing from metrics.jsonl: {len(lost)} (the first is "
                f"{lost[0]}). The training curves have gaps."
            )

    def _state_to_resume(self) -> TrainCheckpoint | None:
        """Load the state to resume from; return None to train from the beginning."""
        if not self.folder.resume:
            return None
        out, config = self.folder.path, self.config
        checkpoint = restore_training(out / "checkpoint", self.log.say)
        if checkpoint is None and has_results(out):
            raise InputError(
                f"{str(out)!r} has results but no training state to resume from: pass "
                "--overwrite to replace the results, or choose another path for --out"
            )
        begun = read_config(out)  # the settings of the latest run in this folder
        before = begun if checkpoint is None else checkpoint.config
        if before is not None and not trains_alike(config, before):
            if begun is not None and trains_alike(config, begun):
                return None  # killed before it had removed an older run's files
            require_same_training(config, before, out)
        if checkpoint is None:
            return None
        _require_epochs(config, out, checkpoint.epoch)
        if list(self.clips.items()) != list(checkpoint.clips.items()):
            raise InputError(
                f"{str(out)!r} was trained on different recordings, or in a different "
                "order: pass the same --data-root and machines, or use --overwrite"
            )
        return checkpoint


def require_same_training(config: Config, before: Config, out: Path) -> None:
    """Reject settings that differ from the settings of the training to resume."""
    others = _differences(config, before)
    if others:
        named = "; ".join(others[:_MOST_NAMED])
        n_more = len(others) - _MOST_NAMED
        more = f"; {n_more} more" if n_more > 0 else ""
        raise InputError(
            f"{str(out)!r} was made with different settings ({named}{more}): resume "
            "with the same settings (you may increase train.epochs, and change scores "
            "and scoring), or use --overwrite"
        )


def require_no_more_epochs(config: Config, out: Path) -> None:
    """Reject an epoch count that the run, or one of its waves, has already passed."""
    for folder in (out, *sorted(out.glob("waves/*"))):
        begun = read_config(folder)
        if begun is not None and trains_alike(config, begun):
            _require_epochs(config, folder, last_saved_epoch(folder / "checkpoint"))


def _require_epochs(config: Config, out: Path, epoch: int) -> None:
    if config.train.epochs < epoch:
        raise InputError(
            f"{str(out)!r} is already trained to epoch {epoch}: set --epochs to at "
            f"least {epoch}, or use --overwrite"
        )


def trains_alike(one: Config, other: Config) -> bool:
    """Return whether two configurations specify the same training.

    The number of epochs is ignored.
    """
    return not _differences(one, other)


def _differences(config: Config, before: Config) -> list[str]:
    """Return the settings that differ, with their old and new values."""
    now, then = leaves(to_dict(config)), leaves(to_dict(before))
    return [
        f"{path}={then[path]}, not {now[path]}"
        for path in now
        if path.startswith(_OF_TRAINING) and path != "train.epochs"
        if then[path] != now[path]
    ]


def _require_shared(out: Path) -> None:
    """Reject a folder that the first process created but this process cannot see."""
    if not (out / "config.json").is_file():
        raise InputError(
            f"{str(out)!r} is not visible on this host: set --out to a folder that "
            "all hosts share"
        )
