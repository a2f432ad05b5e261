"""`gammavae doctor`: whether the package can work here, and what to do if not."""

import shutil
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from gammavae_jax.cli.shared import write_json

if TYPE_CHECKING:
    from gammavae_jax.cli.checkup import Finding

_COLUMNS = (9, 24)  # characters: of the state, and of the name


@dataclass(frozen=True)
class Doctor:
    """Check whether all that is needed is there and works.

    Looks at packages, devices, the cache and free disk, and does some small sums with
    known answers. The exit status is 1 if anything FAILED.
    """

    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the findings; '-' is standard output, and the table then goes to standard
    error."""

    def run(self) -> int:
        """Print each finding as soon as it is there.

        Raises:
            InputError: JSON that cannot be written.
        """
        from gammavae_jax.cli.checkup import examine

        output = sys.stderr if self.json == Path("-") else sys.stdout
        found = []
        for finding in examine():
            found.append(finding)
            print("\n".join(_lines(finding)), file=output, flush=True)
        counts = {s: [f.state for f in found].count(s) for s in ("FAILED", "warning")}
        wrong = ", ".join(f"{s}: {n}" for s, n in counts.items() if n)
        if counts["FAILED"]:
            wrong += "; mend the first that FAILED, then look again"
        print(wrong or "all is well", file=output)
        if self.json:
            findings = [finding._asdict() for finding in found]
            write_json(self.json, {"is_well": not wrong, "findings": findings})
        return 1 if counts["FAILED"] else 0


def _lines(finding: "Finding") -> list[str]:
    state, name = _COLUMNS
    words = [finding.detail]
    if finding.remedy:
        words.append(f"remedy: {finding.remedy}")
    indent = " " * (state + name)
    first = f"{finding.state:<{state}}{finding.name:<{name - 1}} "
    lines = [
        line
        for text in words
        for line in textwrap.wrap(
            text,
            max(shutil.get_terminal_size().columns, 60) - len(indent),
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]
    return [first + lines[0], *(indent + line for line in lines[1:])]
