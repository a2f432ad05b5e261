"""Checks the ONNX files of all machines, then writes them to one folder."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gammavae_jax.errors import InputError, writing
from gammavae_jax.export.check import (
    TOLERANCE,
    Sounds,
    built_in,
    difference,
    int8_cost,
    jax_scores,
    onnx_scores,
)
from gammavae_jax.export.machine import MachineDetector, of_machine
from gammavae_jax.export.onnx_file import onnx_model, quantised, to_bytes
from gammavae_jax.log import Log
from gammavae_jax.scoring.detector import Detector

_ENDINGS = (".onnx", "_int8.onnx")


class Exported(NamedTuple):
    """One machine's exported files."""

    files: dict[str, int]  # sizes in bytes, by name
    difference: float  # of ONNX scores from JAX scores; see `check.difference`
    int8_cost: str | None  # a description; None without int8 files


def export_machines(
    detector: Detector,
    out: Path,
    log: Log,
    sounds: Sequence[Sounds] | None = None,
    with_int8: bool = False,
    overwrite: bool = False,
) -> dict[str, Exported]:
    """Write `<machine>_section_<id>.onnx` for each machine of a detector.

    Args:
        detector: a `narrowed` detector.
        out: the folder, which is created if necessary.
        log: shows progress.
        sounds: each machine's sounds for the check; default: built-in sounds.
        with_int8: also write `..._int8.onnx`.
        overwrite: replace existing files.

    Returns:
        Each machine's files, by the machine's name.

    Raises:
        InputError: a file exists or cannot be written, the training of a model failed,
            or a file's scores differ from the detector's. In these cases, nothing is
            written.
    """
    machines = [of_machine(detector, m) for m in range(len(detector.machines))]
    stale = _existing_files(out, machines, overwrite)
    sounds = sounds or [built_in(machine) for machine in machines]
    expected = jax_scores(detector, [of_machine.waves for of_machine in sounds])
    contents: dict[str, bytes] = {}
    exported = {}
    with log.progress("machines exported", len(machines)) as advance:
        for inputs in zip(machines, sounds, expected, strict=True):
            files, exported[inputs[0].name] = _export(*inputs, with_int8)
            contents |= files
            advance(inputs[0].name)
    _write(out, contents, stale)
    return exported


def _export(
    machine: MachineDetector,
    sounds: Sounds,
    expected: Float[np.ndarray, "clip"],
    with_int8: bool,
) -> tuple[dict[str, bytes], Exported]:
    """Build and check a machine's ONNX files; return their content and a summary."""
    model = onnx_model(machine)
    name = f"{machine.name}.onnx"
    files = {name: to_bytes(model)}
    scores = onnx_scores(files[name], sounds.waves)
    found = difference(scores, expected, machine)
    if not found <= TOLERANCE:  # also refuses NaN
        raise InputError(
            f"the scores of {name} differ from the JAX scores by {found:.1e}, but at "
            f"most {TOLERANCE:g} is allowed: choose another score with --score, and "
            "report this problem"
        )
    cost = None
    if with_int8:
        name = f"{machine.name}_int8.onnx"
        files[name] = to_bytes(quantised(model))
        small = onnx_scores(files[name], sounds.waves)
        cost = int8_cost(small, scores, sounds.is_anomaly)
    sizes = {name: len(content) for name, content in files.items()}
    return files, Exported(sizes, found, cost)


def _existing_files(
    out: Path, machines: Sequence[MachineDetector], overwrite: bool
) -> list[Path]:
    """Return the output files that already exist.

    Raises:
        InputError: such a file exists, and `overwrite` is false.
    """
    targets = [out / f"{machine.name}{end}" for machine in machines for end in _ENDINGS]
    found = [path for path in targets if os.path.lexists(path)]
    if found and not overwrite:
        raise InputError(
            f"{str(found[0])!r} exists: add --overwrite, or choose another folder for "
            "--out"
        )
    return found


def _write(out: Path, contents: Mapping[str, bytes], stale: Sequence[Path]) -> None:
    """Write all files to a temporary folder, then move them to their final paths."""
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".unfinished-") as folder:
            for name, content in contents.items():
                (Path(folder) / name).write_bytes(content)
            for name in contents:
                os.replace(Path(folder) / name, out / name)
        for path in stale:  # such as the int8 file of an earlier export
            if path.name not in contents:
                path.unlink()
