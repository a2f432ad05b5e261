"""A run's folder begun, or gone on with: from which state, and whether that may be.

Of several processes, the first one writes, and all must see the same.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from gammavae_jax.config import Config
from gammavae_jax.config_json import leaves, to_dict
from gammavae_jax.data.clips import Clips, clip_identities
from gammavae_jax.data.loading import Job
from gammavae_jax.devices.cluster import is_joined, on_first, require_same, together
from gammavae_jax.errors import InputError
from gammavae_jax.log import Log
from gammavae_jax.runs.checkpoint import (
    TrainCheckpoint,
    last_saved_epoch,
    restore_training,
)
from gammavae_jax.runs.folder import begin_folder, read_config, resume_folder
from gammavae_jax.runs.publish import has_results

_OF_TRAINING = ("seed", "n_seeds", "features.", "model.", "train.")
_MOST_NAMED = 3  # settings in a message


def begin_or_resume(
    config: Config, job: Job, clips: Mapping[str, list[str]], log: Log
) -> TrainCheckpoint | None:
    """Make a job's folder ready to be trained in, and give the state to go on from.

    Args:
        config: of the run.
        job: whose folder it is.
        clips: what is to be trained on, by machine; see `clip_identities`.
        log: is told what is done.

    Returns:
        The state, or None where the training begins.

    Raises:
        InputError: a folder that cannot be resumed or written, or that processes do
            not share.
    """
    checkpoint = together(lambda: _state_to_resume(config, job, clips, log))
    require_same(
        checkpoint and checkpoint.epoch,
        f"{str(job.out)!r} holds another state there than for process 0: give an --out "
        "that all hosts share",
    )
    if checkpoint is None:
        if job.resume:
            log.say("no epoch was saved yet: beginning again")
        on_first(lambda: begin_folder(job.out, config))
    else:
        _resume(config, job, checkpoint.epoch, log)
    together(lambda: _require_shared(job.out))
    return checkpoint


def require_same_recordings(job: Job, clips: Sequence[tuple[str, Clips]]) -> None:
    """Refuse processes that have read different things.

    Raises:
        InputError: the first process that has.
    """
    if not is_joined():
        return  # the checksums of a large set take seconds
    require_same(
        [[name, clip_identities(of_machine)] for name, of_machine in clips],
        f"{str(job.data_root)!r} holds other recordings there than for process 0: give "
        "a --data-root that is the same on all hosts",
    )


def require_same_training(config: Config, before: Config, out: Path) -> None:
    """Refuse to go on with a training under other settings than it began with.

    Raises:
        InputError: they differ.
    """
    others = _differences(config, before)
    if others:
        named = "; ".join(others[:_MOST_NAMED])
        more = (
            f"; {len(others) - _MOST_NAMED} more" if len(others) > _MOST_NAMED else ""
        )
        raise InputError(
            f"{str(out)!r} was made with other settings ({named}{more}): resume with "
            "the same ones (train.epochs may grow, scores and scoring may change), or "
            "say --overwrite"
        )


def require_no_more_epochs(config: Config, out: Path) -> None:
    """Refuse to train for fewer epochs than a run, or a wave of a fleet, has had.

    Raises:
        InputError: the same training has a state of more.
    """
    for folder in (out, *sorted(out.glob("waves/*"))):
        begun = read_config(folder)
        if begun is not None and trains_alike(config, begun):
            _require_epochs(config, folder, last_saved_epoch(folder / "checkpoint"))


def _require_epochs(config: Config, out: Path, epoch: int) -> None:
    if config.train.epochs < epoch:
        raise InputError(
            f"{str(out)!r} already has {epoch} epochs: give --epochs of at least that, "
            "or say --overwrite"
        )


def trains_alike(one: Config, other: Config) -> bool:
    """Whether trainings differ in their length alone, and in what scores them."""
    return not _differences(one, other)


def _differences(config: Config, before: Config) -> list[str]:
    """What makes it another training: each field as it was, and as it is now."""
    now, then = leaves(to_dict(config)), leaves(to_dict(before))
    return [
        f"{path}={then[path]}, not {now[path]}"
        for path in now
        if path.startswith(_OF_TRAINING) and path != "train.epochs"
        if then[path] != now[path]
    ]


def _resume(config: Config, job: Job, epoch: int, log: Log) -> None:
    if epoch < config.train.epochs:
        log.say(f"going on after epoch {epoch}, to {config.train.epochs}")
    else:
        log.say(f"all {epoch} epochs are there: scoring alone")
    lost = on_first(lambda: resume_folder(job.out, config, epoch))
    if lost:
        log.note(
            f"metrics.jsonl has lost {len(lost)} epochs, first epoch {lost[0]}: the "
            "training curves have gaps."
        )


def _state_to_resume(
    config: Config, job: Job, clips: Mapping[str, list[str]], log: Log
) -> TrainCheckpoint | None:
    """The state to go on from; None to begin anew, where that loses nothing."""
    if not job.resume:
        return None
    checkpoint = restore_training(job.out / "checkpoint", log.say)
    if checkpoint is None and has_results(job.out):
        raise InputError(
            f"{str(job.out)!r} has results but no training to go on with: say "
            "--overwrite to replace it, or give another --out"
        )
    begun = read_config(job.out)  # with these settings, whatever was there before
    before = begun if checkpoint is None else checkpoint.config
    if before is not None and not trains_alike(config, before):
        if begun is not None and trains_alike(config, begun):
            return None  # killed before all of an older run was replaced
        require_same_training(config, before, job.out)
    if checkpoint is None:
        return None
    _require_epochs(config, job.out, checkpoint.epoch)
    if list(clips.items()) != list(checkpoint.clips.items()):
        raise InputError(
            f"{str(job.out)!r} was trained on other recordings, or in another order: "
            "give the same --data-root and machines, or say --overwrite"
        )
    return checkpoint


def _require_shared(out: Path) -> None:
    """Refuse a folder that the first process has begun and this one does not see.

    Raises:
        InputError: it is another folder, of the same name.
    """
    if not (out / "config.json").is_file():
        raise InputError(
            f"{str(out)!r} is not seen: give an --out that all hosts share"
        )
