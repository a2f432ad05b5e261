"""`gammavae submit`: writes and checks a challenge submission."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Submit:
    """Write and check the package of a challenge submission."""

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
            f"left to do: complete each FILL IN in {self.label}.meta.yaml, add a report"
        )
        return 0
