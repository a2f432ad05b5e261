"""`gammavae rescore`, `report` and `submit`: commands on finished runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from gammavae_jax.cli.shared import JobOptions, data_root_or_synthetic


@dataclass(frozen=True, kw_only=True)
class Rescore(JobOptions):
    """Score and evaluate test clips with the checkpoint of a run."""

    checkpoint: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """The folder 'checkpoint' of a run, or the run folder of a fleet."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder for the results."""

    def run(self) -> int:
        """Score and evaluate the test clips, and return the exit status."""
        from gammavae_jax.process import (
            limit_blas_threads,
            models_in_checkpoint,
            prepare,
        )

        limit_blas_threads()
        data_root = data_root_or_synthetic(self.data_root)
        prepare(models_in_checkpoint(self.checkpoint))

        from gammavae_jax.log import Log
        from gammavae_jax.runs.fleet.run import evaluate_machines
        from gammavae_jax.runs.folder import RunFolder

        source = self.source(data_root, ())
        folder = RunFolder(self.out, overwrite=self.overwrite)
        evaluate_machines(self.checkpoint, source, folder, self.year, Log())
        return 0


@dataclass(frozen=True)
class Report:
    """Write the page of a finished run again, with pictures of the clips you name."""

    run_folder: tyro.conf.Positional[Path]
    """Folder of a run or of an evaluation."""
    data_root: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of the recordings. Default: where the run found them."""
    clips: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Clips to show with pictures and sound, besides the most informative ones."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The page. Default: report.html in the run folder."""

    def run(self) -> int:
        """Write the page, and print its path."""
        from gammavae_jax.process import prepare

        prepare(2)  # clips are explained in parallel

        from rich.console import Console

        from gammavae_jax.log import Log
        from gammavae_jax.runs.page import report_run

        out = self.out or self.run_folder / "report.html"
        log = Log(Console(stderr=True))
        report_run(self.run_folder, out, self.data_root, self.clips, log)
        print(f"written to {out}")
        return 0


@dataclass(frozen=True)
class Submit:
    """Write and check the package of a challenge entry."""

    run_out: tyro.conf.Positional[Path]
    """Run folder with the scores to submit."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder for packages; DIR/LABEL must not exist."""
    label: Annotated[str, tyro.conf.arg(metavar="LABEL")]
    """Name of the entry, such as Author_Affiliation_task2_1."""
    score: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Score to submit. Default: the run's headline score."""
    seed: Annotated[int | None, tyro.conf.arg(metavar="S")] = None
    """Seed to submit. Default: the run's first seed."""

    def run(self) -> int:
        """Write the package, and print what is left to do."""
        from gammavae_jax.evaluation.submission import write_submission

        package = write_submission(
            self.run_out, self.out, self.label, self.score, self.seed
        )
        print(
            f"written to {package.folder}: score {package.score}, seed {package.seed}, "
            f"machines and sections: {package.n_sections}\n"
            f"left to do: each FILL IN in {self.label}.meta.yaml, and the report"
        )
        return 0
