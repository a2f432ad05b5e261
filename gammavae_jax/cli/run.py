"""Commands about run folders: `gammavae run`, `gammavae rescore`, `gammavae report`."""

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from gammavae_jax.cli.options import JobOptions, Settings, flat
from gammavae_jax.cli.shared import (
    built_in_set,
    cluster_process,
    data_root_or_synthetic,
    models_in_checkpoint,
    models_side_by_side,
    prepare,
)
from gammavae_jax.config_json import read_json
from gammavae_jax.errors import InputError
from gammavae_jax.process import limit_blas_threads

if TYPE_CHECKING:
    from gammavae_jax.config import Config
    from gammavae_jax.data.loading import Source


@dataclass(frozen=True, kw_only=True)
class Run(JobOptions):
    """Train models of all machines together, then score and evaluate the test clips.

    Use --all-machines, or choose machines with --machines.
    """

    all_machines: bool = False
    """Use every machine in --data-root."""
    machines: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Use only these machines."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Run folder for all results. Default: runs/PRESET."""
    preset: Annotated[str, tyro.conf.arg(metavar="NAME")] = "default"
    """Named configuration: default, gammavae, vae, autoencoder, paper or
    official."""
    epochs: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Passes over the training data. Default: the preset's number, 20 or 100."""
    batch_size: Annotated[int | None, tyro.conf.arg(metavar="B")] = None
    """Windows per training step. Default: 256."""
    seeds: Annotated[int | None, tyro.conf.arg(metavar="K")] = None
    """Number of seeds; the mean and standard deviation over them are reported.
    Default: 1."""
    seed: Annotated[int | None, tyro.conf.arg(metavar="S")] = None
    """First seed. Default: 13711."""
    scores: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Anomaly scores to compute, such as fusion_smooth_max or mse. An unknown name
    prints a list of all scores. Default: the scores of the preset."""
    with_supplemental: bool = False
    """Also train on the clips in folders named supplemental (2025 and later)."""
    wave_size: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Train N machines at a time. Default: as many as fit in memory. This option
    cannot be used with --distributed."""
    resume: bool = False
    """Resume the run in --out; if it is finished, recompute its scores."""
    distributed: bool = False
    """Run as one process of a cluster, started for example by srun; see
    docs/clusters.md."""
    dry_run: bool = False
    """Show what would be done and stop."""
    set: Settings = ()
    """Change any field of the configuration, such as model.n_latent=16."""

    def run(self) -> int:
        """Train and evaluate; return the exit status, 1 if a model diverged."""
        self._check()
        limit_blas_threads()
        with contextlib.ExitStack() as stack:
            if self.distributed:
                # The number of models is known only after joining the cluster.
                prepare(2, in_cluster=True)
                stack.enter_context(cluster_process())
            return self._run_here()

    def configuration(self) -> "Config":
        """Return the preset with all options applied; `--set` is applied last."""
        from gammavae_jax.config_json import override
        from gammavae_jax.presets import preset

        config = preset(self.preset)
        changes = _given(n_seeds=self.seeds, seed=self.seed)
        if self.scores:
            # The preset's headline score if it was listed, otherwise the first listed.
            is_listed = config.score in self.scores
            changes["scores"] = self.scores
            changes["score"] = config.score if is_listed else self.scores[0]
        config = replace(config, **changes)
        epochs = self.epochs
        if epochs is None and self.resume:
            epochs = epochs_of(self.out or Path("runs") / config.preset)
        changes = _given(epochs=epochs, batch_size=self.batch_size)
        config = replace(config, train=replace(config.train, **changes))
        changed = override(config, flat(self.set))
        if changed.preset != config.preset:
            raise InputError("the preset cannot be changed with --set: use --preset")
        return changed

    def _check(self) -> None:
        """Reject invalid or mutually exclusive options before anything is loaded."""
        if self.all_machines == bool(self.machines):
            raise InputError("use either --all-machines or --machines NAME ...")
        if self.resume and self.overwrite:
            raise InputError("--resume and --overwrite cannot be used together")
        if self.wave_size is not None and self.wave_size < 1:
            raise InputError(f"--wave-size is {self.wave_size}: it must be at least 1")
        if self.wave_size is not None and self.distributed:
            raise InputError(
                "--wave-size cannot be used with --distributed: leave out one of them"
            )

    def _run_here(self) -> int:
        from gammavae_jax.devices.cluster import on_first, together

        config = together(self.configuration)
        if self.data_root is None:  # only the first process makes the built-in set
            on_first(lambda: str(data_root_or_synthetic(None)))
        data_root, machines = together(self._data_root_and_machines)
        prepare(models_side_by_side(config, len(machines)))  # before JAX is imported
        source = self.source(data_root, machines)
        source = source._replace(with_supplemental=self.with_supplemental)
        return self._train(config, source)

    def _data_root_and_machines(self) -> tuple[Path, tuple[str, ...]]:
        from gammavae_jax.data.machines import find_machines

        root = self.data_root or built_in_set()
        return root, tuple(dict.fromkeys(self.machines or find_machines(root)))

    def _train(self, config: "Config", source: "Source") -> int:
        from rich.console import Console

        from gammavae_jax.devices.cluster import is_first, on_first
        from gammavae_jax.log import Log
        from gammavae_jax.runs.fleet.run import describe_waves, run_machines
        from gammavae_jax.runs.folder import RunFolder
        from gammavae_jax.runs.run import describe, describe_folder

        out = self.out or Path("runs") / config.preset
        folder = RunFolder(out, self.resume, self.overwrite)
        quiet = not is_first()
        log = Log(Console(stderr=True, quiet=quiet), Console(quiet=quiet))
        wave_size = self.wave_size

        def show() -> None:
            describe(config, source, log)
            describe_waves(config, source, folder, wave_size, log)
            describe_folder(config, folder, log)

        if self.dry_run:
            on_first(show)
            return 0
        job = source, folder, self.year, wave_size
        return 0 if run_machines(config, *job, log) else 1


@dataclass(frozen=True, kw_only=True)
class Rescore(JobOptions):
    """Score and evaluate test clips with a run's checkpoint."""

    checkpoint: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """The folder 'checkpoint' of a run, or the run folder of a fleet."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder for the results."""

    def run(self) -> int:
        """Score and evaluate the test clips; return the exit status."""
        limit_blas_threads()
        data_root = data_root_or_synthetic(self.data_root)
        prepare(models_in_checkpoint(self.checkpoint))

        from gammavae_jax.log import Log
        from gammavae_jax.runs.fleet.run import rescore_machines
        from gammavae_jax.runs.folder import RunFolder

        source = self.source(data_root, ())
        folder = RunFolder(self.out, overwrite=self.overwrite)
        rescore_machines(self.checkpoint, source, folder, self.year, Log())
        return 0


@dataclass(frozen=True)
class Report:
    """Rebuild the report page of a finished run, including pictures of chosen clips."""

    run_folder: tyro.conf.Positional[Path]
    """Folder of a run or of an evaluation."""
    data_root: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of the recordings. Default: the folder that the run used."""
    clips: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Clips to show with pictures and sound, besides those chosen automatically."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File for the page. Default: report.html in the run folder."""

    def run(self) -> int:
        """Write the page and print its path."""
        prepare(2)  # clips are explained in parallel

        from gammavae_jax.log import Log
        from gammavae_jax.runs.finished import report_run

        out = self.out or self.run_folder / "report.html"
        report_run(self.run_folder, out, self.data_root, self.clips, Log())
        print(f"written to {out}")
        return 0


def epochs_of(out: Path) -> int | None:
    """Return the number of epochs set in a run folder, or None if it cannot be read.

    When a finished run is trained further, the new number is written to the training
    states before it is written to `config.json`, so these are read as well.
    """
    epochs, paths = [], [out / "config.json"]
    if (out / "summary.json").exists():
        paths += out.glob("**/checkpoint/train/*.json")
    for path in paths:
        # If the folder cannot be resumed, a later check refuses it and names it.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            content = read_json(path)
            config = content if path.name == "config.json" else content["config"]
            epochs.append(int(config["train"]["epochs"]))
    return max(epochs, default=None)


def _given(**options: int | None) -> dict:
    """Return only the options that the user passed."""
    return {name: value for name, value in options.items() if value is not None}
