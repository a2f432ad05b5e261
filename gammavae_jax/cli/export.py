"""`gammavae export`: writes ONNX files that score waveforms without this package."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from gammavae_jax.cli.options import RateOfAlarms
from gammavae_jax.cli.shared import (
    models_in_checkpoint,
    new_table,
    prepare,
    table_console,
)
from gammavae_jax.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from gammavae_jax.export.checked_files import Exported


@dataclass(frozen=True)
class Export:
    """Export detectors as ONNX files that compute a decision from a waveform."""

    checkpoint: Path
    """A detector written by `gammavae fit`, or the folder `checkpoint` of a run."""
    out: Path
    """Folder for the files."""
    machines: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Machine types to export. Default: all."""
    seed: int | None = None
    """Seed whose models are exported. Default: the run's first seed."""
    score: str | None = None
    """Score to export. Default: the run's headline score."""
    false_alarm_rate: RateOfAlarms = None
    """Use the thresholds for this false-alarm rate. Default: the detector's rate."""
    int8: bool = False
    """Also write a smaller file with int8 weights and print how much its scores
    differ."""
    data_root: Path | None = None
    """Folder of test clips for checking the files. Default: built-in sounds."""
    overwrite: bool = False
    """Replace existing files in --out."""

    def run(self) -> int:
        """Export the machines' detectors and return the exit status."""
        for package in ("onnx", "onnxruntime"):
            if importlib.util.find_spec(package) is None:
                raise InputError(
                    f'{package} is not installed: pip install "gammavae-jax[export]"'
                )
        prepare(models_in_checkpoint(self.checkpoint))

        from gammavae_jax.export.checked_files import export_machines, recorded
        from gammavae_jax.export.machine import narrowed
        from gammavae_jax.log import Log
        from gammavae_jax.runs.checkpoint import load_detector
        from gammavae_jax.scoring.detector import with_false_alarm_rate
        from gammavae_jax.scoring.sample_size import unsupported_machines

        log = Log()
        detector = load_detector(self.checkpoint)
        if self.false_alarm_rate is not None:
            detector = with_false_alarm_rate(detector, self.false_alarm_rate)
        detector = narrowed(detector, self.machines, self.seed, self.score)
        note = unsupported_machines(detector)
        if note and self.false_alarm_rate is not None:
            log.say(note)
        sounds = None
        if self.data_root is not None:
            sounds = recorded(detector, self.data_root, log)
        exported = export_machines(
            detector, self.out, log, sounds, self.int8, self.overwrite
        )
        config = detector.config
        title = f"score {config.score}, seed {config.seed}, sizes in KB"
        console = table_console()
        console.print(_table(title, exported))
        if not detector.calibration:
            log.say(
                "p-values are NaN: they need held-out clips, but with "
                "scoring.threshold=official, no clips are held out"
            )
        log.say(f"written to {self.out}")
        return 0


def _table(title: str, machines: "Mapping[str, Exported]") -> "Table":
    """Build a table with one row for each machine."""
    numbers = ["onnx", "differs from JAX by"]
    columns = ["machine", *numbers]
    if any(exported.int8_cost for exported in machines.values()):
        numbers.append("int8")
        columns = ["machine", "onnx", "int8", numbers[1], "with int8 weights"]
    table = new_table(columns, numbers, title)
    for name, exported in machines.items():
        sizes = [f"{size / 1000:.0f}" for size in exported.files.values()]
        cost = [exported.int8_cost] if exported.int8_cost else []
        table.add_row(name, *sizes, f"{exported.difference:.1e}", *cost)
    return table
