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
    """Folder in which to create the package DIR/LABEL, which must not exist yet."""
    label: Annotated[str, tyro.conf.arg(metavar="LABEL")]
    """Name of the entry, such as Author_Affiliation_task2_1."""
    score: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Score to submit. Default: the run's headline score."""
    seed: Annotated[int | None, tyro.conf.arg(metavar="S")] = None
    """Seed to submit. Default: the run's first seed."""

    def run(self) -> int:
        """Write the package, and print what the user still has to do."""
        from gammavae_jax.evaluation.submission import write_submission

        package = write_submission(
            self.run_out, self.out, self.label, self.score, self.seed
        )
        print(
            f"written to {package.folder}: score {package.score}, seed {package.seed}, "
            f"sections of all machines: {package.n_sections}\n"
            f"next: replace each FILL IN in {self.label}.meta.yaml, and add a report"
        )
        return 0
