"""Train, score and evaluate every machine at once."""

import argparse
import contextlib
import json
import sys
from dataclasses import replace
from pathlib import Path

from gammavae_jax.cli.shared import (
    add_job_options,
    built_in_set,
    data_root_or_synthetic,
    models_side_by_side,
    one_of_several,
    readable_errors,
)
from gammavae_jax.config import SCORE_NAMES, Config
from gammavae_jax.config_json import override
from gammavae_jax.data.machines import find_machines
from gammavae_jax.devices.cluster import is_first, on_first, together
from gammavae_jax.errors import InputError
from gammavae_jax.presets import PRESETS, preset
from gammavae_jax.process import limit_blas_threads, prepare


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--all-machines", action="store_true", help="all that are there")
    which.add_argument("--machines", nargs="+", metavar="NAME", help="these ones")
    add_job_options(parser)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of results (runs/PRESET)"
    )
    parser.add_argument(
        "--preset", default="default", metavar="NAME", help=f"{', '.join(PRESETS)}"
    )
    parser.add_argument(
        "--epochs",
        type=int,
        metavar="N",
        help="20 in the default preset, 100 in others",
    )
    parser.add_argument("--batch-size", type=int, metavar="B", help="256 unless given")
    parser.add_argument(
        "--seeds",
        type=int,
        metavar="K",
        help="results as mean and deviation over K seeds",
    )
    parser.add_argument("--seed", type=int, metavar="S", help="the first; 13711")
    parser.add_argument(
        "--scores", nargs="+", metavar="NAME", help=f"of {', '.join(SCORE_NAMES)}"
    )
    parser.add_argument(
        "--with-supplemental",
        action="store_true",
        help="train on the clips in folders 'supplemental' too (2025 on)",
    )
    parser.add_argument(
        "--wave-size",
        type=int,
        metavar="N",
        help="train N machines at a time; as many as fit the memory unless given; not "
        "with --distributed",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --out, or score its models anew",
    )
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="be one of the processes of a cluster, such as srun starts; see "
        "docs/clusters.md",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done, and stop"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="FIELD=VALUE",
        help="any field of the configuration, such as model.n_latent=16",
    )
    options = parser.parse_args(arguments)
    if options.resume and options.overwrite:
        parser.error("--resume and --overwrite exclude each other")
    if options.wave_size is not None and options.wave_size < 1:
        parser.error(f"--wave-size is {options.wave_size}: give 1 or more")
    if options.wave_size is not None and options.distributed:
        parser.error("waves are the work of one process: leave out --wave-size")
    return options


def configuration(options: argparse.Namespace) -> Config:
    """The preset with what the command line changes; `--set` has the last word."""
    config = preset(options.preset)
    given = {"n_seeds": options.seeds, "seed": options.seed}
    if options.scores:
        # Without the preset's headline score, the first one named is it.
        keeps = config.score in options.scores
        given["scores"] = tuple(options.scores)
        given["score"] = config.score if keeps else options.scores[0]
    config = replace(config, **{k: v for k, v in given.items() if v is not None})
    epochs = options.epochs
    if epochs is None and options.resume:
        epochs = epochs_of(options.out or Path("runs") / config.preset)
    given = {"epochs": epochs, "batch_size": options.batch_size}
    train = replace(config.train, **{k: v for k, v in given.items() if v is not None})
    changed = override(replace(config, train=train), options.set)
    if changed.preset != config.preset:
        raise InputError("preset cannot be set by --set: name it with --preset")
    return changed


def epochs_of(out: Path) -> int | None:
    """The epochs that the run in a folder was to have; None if that cannot be read.

    Where one with results was told to train on, its states alone say so at first.
    """
    has_results = (out / "summary.json").exists()
    kept = "checkpoint/train/*.json"
    states = [*out.glob(kept), *out.glob(f"waves/*/{kept}")] if has_results else ()
    wanted = []
    for path in (out / "config.json", *states):
        # A folder that cannot be resumed is refused later, by name.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(path.read_text(encoding="utf-8"))
            known = known if path.name == "config.json" else known["config"]
            wanted.append(int(known["train"]["epochs"]))
    return max(wanted, default=None)


def main() -> int:
    """Run the main job; the exit status is 1 if a model could not be trained."""
    limit_blas_threads()
    options = parse()
    with contextlib.ExitStack() as stack:
        stack.enter_context(readable_errors())
        if options.distributed:
            prepare(2)  # how many there are is known only when joined
            stack.enter_context(one_of_several())
        return run(options)


def run(options: argparse.Namespace) -> int:
    """Run the main job, in each process of a cluster if this is one.

    Raises:
        InputError: something the user gave cannot be used.
    """
    config = together(lambda: configuration(options))
    if options.data_root is None:  # the first one tells of it, and makes it
        on_first(lambda: str(data_root_or_synthetic(None)))
    data_root = together(lambda: options.data_root or built_in_set())
    machines = together(
        lambda: tuple(dict.fromkeys(options.machines or find_machines(data_root)))
    )
    prepare(models_side_by_side(config, len(machines)))

    from rich.console import Console

    from gammavae_jax.data.loading import Source
    from gammavae_jax.log import Log
    from gammavae_jax.runs.fleet.run import describe_waves, run_machines
    from gammavae_jax.runs.folder import RunFolder
    from gammavae_jax.runs.run import describe, describe_folder

    source = Source(
        data_root,
        machines,
        with_supplemental=options.with_supplemental,
        skip_bad_files=options.skip_bad_files,
        cache=options.feature_cache,
    )
    out = options.out or Path("runs") / config.preset
    folder = RunFolder(out, options.resume, options.overwrite)
    quiet = not is_first()
    log = Log(Console(stderr=True, quiet=quiet), Console(quiet=quiet))

    def show_plan() -> None:
        describe(config, source, log)
        describe_waves(config, source, folder, options.wave_size, log)
        describe_folder(config, folder, log)

    if options.dry_run:
        on_first(show_plan)
        return 0
    job = config, source, folder, options.year, options.wave_size, log
    return 0 if run_machines(*job) else 1


if __name__ == "__main__":
    sys.exit(main())
