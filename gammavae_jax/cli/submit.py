"""`gammavae submit`: the package of a challenge entry."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Submit:
    """Write and check the package of a challenge entry."""

    run_out: tyro.conf.Positional[Path]
    """Folder that a run wrote."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder of packages; DIR/LABEL must not exist."""
    label: Annotated[str, tyro.conf.arg(metavar="LABEL")]
    """Name of the entry, such as Author_Affiliation_task2_1."""
    score: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """The run's headline score unless given."""
    seed: Annotated[int | None, tyro.conf.arg(metavar="S")] = None
    """The run's first seed unless given."""

    def run(self) -> int:
        """Write the package, and say what is left to do.

        Raises:
            InputError: see `write_submission`.
        """
        from gammavae_jax.evaluation.submission import write_submission

        package = write_submission(
            self.run_out, self.out, self.label, self.score, self.seed
        )
        print(
            f"written to {package.folder}: score {package.score}, seed {package.seed}, "
            f"machines and sections: {package.n_sections}\n"
            f"left to you: each FILL IN in {self.label}.meta.yaml, and the report"
        )
        return 0
