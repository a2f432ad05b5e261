"""`gammavae report`: rebuilds the report page of a finished run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from gammavae_jax.cli.shared import prepare


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
        """Write the page, and print its path."""
        prepare(2)  # clips are explained in parallel

        from gammavae_jax.log import Log
        from gammavae_jax.runs.finished import report_run

        out = self.out or self.run_folder / "report.html"
        report_run(self.run_folder, out, self.data_root, self.clips, Log())
        print(f"written to {out}")
        return 0
