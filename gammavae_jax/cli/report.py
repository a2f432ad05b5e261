"""`gammavae report`: the page of a finished run, made anew."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Report:
    """Make the page of a finished run anew, with pictures of the clips you name."""

    run_folder: tyro.conf.Positional[Path]
    """Folder that a run or an evaluation wrote."""
    data_root: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Where the recordings are; where they were then unless given."""
    clips: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME")] = ()
    """Clips that are to have pictures and sound, besides those that tell most."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The page; report.html in the run's folder unless given."""

    def run(self) -> int:
        """Write the page, and say where it is.

        Raises:
            InputError: see `report_run`; or the page cannot be written.
        """
        from gammavae_jax.process import prepare

        prepare(2)  # clips are explained side by side

        from rich.console import Console

        from gammavae_jax.log import Log
        from gammavae_jax.runs.page import report_run

        out = self.out or self.run_folder / "report.html"
        log = Log(Console(stderr=True))
        report_run(self.run_folder, out, self.data_root, self.clips, log)
        print(f"written to {out}")
        return 0
