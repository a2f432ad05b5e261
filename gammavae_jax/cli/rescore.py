"""`gammavae rescore`: scores and evaluates test clips with a run's checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from gammavae_jax.cli.shared import (
    JobOptions,
    data_root_or_synthetic,
    models_in_checkpoint,
    prepare,
)


@dataclass(frozen=True, kw_only=True)
class Rescore(JobOptions):
    """Score and evaluate test clips with a run's checkpoint."""

    checkpoint: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """The folder 'checkpoint' of a run, or the run folder of a fleet."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder for the results."""

    def run(self) -> int:
        """Score and evaluate the test clips, and return the exit status."""
        from gammavae_jax.process import limit_blas_threads

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
