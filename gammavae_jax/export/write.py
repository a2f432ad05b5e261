"""Every machine's files in one folder: checked before one of them is there."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from gammavae_jax.errors import InputError
from gammavae_jax.export import int8
from gammavae_jax.export.check import (
    Sounds,
    built_in,
    difference,
    jax_file_scores,
    jax_scores,
    onnx_scores,
    require_same,
)
from gammavae_jax.export.jax_file import jax_bytes
from gammavae_jax.export.machine import MachineDetector, of_machine
from gammavae_jax.export.onnx_file import onnx_model, to_bytes
from gammavae_jax.log import Log
from gammavae_jax.scoring.detector import Detector


class Exported(NamedTuple):
    """What was made of a machine."""

    files: dict[str, int]  # bytes by name
    difference: float  # of ONNX scores from JAX's; see `check.difference`
    int8_cost: str | None  # in words


def export_machines(
    detector: Detector,
    out: Path,
    log: Log,
    sounds: Sequence[Sounds] | None = None,
    with_int8: bool = False,
    overwrite: bool = False,
) -> dict[str, Exported]:
    """Write `<machine>_section_<id>.onnx` and `.jax` of each machine of a detector.

    Args:
        detector: see `narrowed`.
        out: the folder; it is made if need be.
        log: gets a bar.
        sounds: of each machine, to try its files on; built-in ones unless given.
        with_int8: write `..._int8.onnx` too.
        overwrite: replace files that are there.

    Raises:
        InputError: files are there already or cannot be written, a machine's models
            broke down, or a file does not score the sounds as the detector does.
            Nothing was written then.
    """
    machines = [of_machine(detector, m) for m in range(len(detector.machines))]
    stale = _require_free(out, machines, overwrite)
    sounds = sounds or [built_in(machine) for machine in machines]
    expected = jax_scores(detector, [of_machine.waves for of_machine in sounds])
    contents: dict[str, bytes] = {}
    made = {}
    with log.progress("machines exported", len(machines)) as advance:
        for machine, heard, scores in zip(machines, sounds, expected, strict=True):
            files, exported = _export(machine, heard, scores, with_int8)
            made[machine.name] = exported
            contents |= files
            advance(machine.name)
    _write(out, contents, stale)
    return made


def _export(
    machine: MachineDetector,
    sounds: Sounds,
    expected: Float[np.ndarray, "clip"],
    with_int8: bool,
) -> tuple[dict[str, bytes], Exported]:
    """The files of a machine, checked, and what is to be said of them."""
    waves = sounds.waves
    model = onnx_model(machine)
    files = {f"{machine.name}.onnx": to_bytes(model)}
    scores = onnx_scores(files[f"{machine.name}.onnx"], waves)
    found = difference(scores, expected, machine)
    require_same(f"{machine.name}.onnx", found)
    files[f"{machine.name}.jax"] = jax_bytes(machine)
    # One clip: each length is compiled anew.
    once = jax_file_scores(files[f"{machine.name}.jax"], waves[:1])
    require_same(f"{machine.name}.jax", difference(once, expected[:1], machine))
    cost = None
    if with_int8:
        name = f"{machine.name}_int8.onnx"
        files[name] = to_bytes(int8.quantised(model))
        cost = int8.cost(onnx_scores(files[name], waves), scores, sounds.is_anomaly)
    sizes = {name: len(content) for name, content in files.items()}
    return files, Exported(sizes, found, cost)


def _require_free(
    out: Path, machines: Sequence[MachineDetector], overwrite: bool
) -> list[Path]:
    """The files that are in the way and may be replaced.

    Raises:
        InputError: there are some that may not.
    """
    endings = (".onnx", ".jax", "_int8.onnx")
    targets = [out / f"{machine.name}{end}" for machine in machines for end in endings]
    found = [path for path in targets if os.path.lexists(path)]
    if found and not overwrite:
        raise InputError(
            f"{str(found[0])!r} is there already: say --overwrite to replace it, or "
            "give another --out"
        )
    return found


def _write(out: Path, contents: Mapping[str, bytes], stale: Sequence[Path]) -> None:
    """Write all files beside their places before the first takes its own."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".unfinished-") as folder:
            for name, content in contents.items():
                (Path(folder) / name).write_bytes(content)
            for name in contents:
                os.replace(Path(folder) / name, out / name)
        for path in stale:  # an int8 file of other models would be left
            if path.name not in contents:
                path.unlink()
    except OSError as error:
        raise InputError(
            f"{str(out)!r} cannot be written: {error.strerror}: give another --out"
        ) from error
