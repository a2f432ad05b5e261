"""Checks the ONNX files of all machines, then writes them to one folder.

A file is written only if it produces the same scores as the detector, computed by JAX.
"""

import itertools
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import scipy.stats
from jaxtyping import Bool, Float, Float32

from gammavae_jax.data.arrays import is_anomaly, stack_clips
from gammavae_jax.data.clips import Clips, clip_waveform, load_usable
from gammavae_jax.data.features import log_mel
from gammavae_jax.data.loading import Source, find_sections
from gammavae_jax.data.machines import ClipFile
from gammavae_jax.data.synthetic.machines import MACHINES, render
from gammavae_jax.devices.assignment import make_placement
from gammavae_jax.errors import InputError, writing
from gammavae_jax.evaluation.metrics import auc
from gammavae_jax.export.machine import MachineDetector, of_machine
from gammavae_jax.export.onnx_file import onnx_model, quantised, to_bytes
from gammavae_jax.log import Log
from gammavae_jax.scoring.detector import Detector, compile_scores
from gammavae_jax.scoring.fusion import standard_of

TOLERANCE = 1e-3  # relative; see `difference`
N_SOUNDS = 24  # built-in sounds
_SECONDS = 3.0  # the longest built-in sound is this much longer than the shortest

Waves = Sequence[Float32[np.ndarray, "_"]]  # lengths may differ


class Sounds(NamedTuple):
    """Waveforms and, if known, their labels: whether each one is an anomaly."""

    waves: list[Float32[np.ndarray, "_"]]
    is_anomaly: Bool[np.ndarray, "clip"] | None


def jax_scores(
    detector: Detector, waves: Sequence[Waves]
) -> list[Float[np.ndarray, "_"]]:
    """Score each machine's waveforms with JAX.

    The detector must have a single score.
    """
    config = detector.config
    bank, features = detector.filterbank, config.features
    clips = [
        Clips((), tuple(log_mel(wave, bank, features) for wave in of_machine))
        for of_machine in waves
    ]
    arrays = stack_clips(clips, features.n_context)
    counts = [len(of_machine) for of_machine in waves]
    batching = config.train.batching
    with make_placement(counts, config.n_members, batching=batching) as placement:
        (scores,) = compile_scores(detector, placement, arrays)()[config.score]
    return [of_machine[:n] for of_machine, n in zip(scores, counts, strict=True)]


def onnx_session(content: bytes) -> Any:
    """Open the bytes of an ONNX file as an `InferenceSession` on one CPU thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    return onnxruntime.InferenceSession(
        content, options, providers=["CPUExecutionProvider"]
    )


def onnx_scores(content: bytes, waves: Waves) -> Float32[np.ndarray, "clip"]:
    """Score waveforms with an ONNX model, given as the bytes of its file."""
    session = onnx_session(content)
    scores = [session.run(["score"], {"wave": wave})[0] for wave in waves]
    return np.array(scores, np.float32)


def difference(
    scores: Float[np.ndarray, "clip"],
    expected: Float[np.ndarray, "clip"],
    detector: MachineDetector,
) -> float:
    """Return the largest relative difference between scores and their expected values.

    Some scores, such as fusions, are near 0. Differences are therefore divided by the
    expected score or the spread of the held-out scores, whichever is larger.
    """
    name = detector.config.score
    unit: Any = np.finfo(np.float32).tiny
    if name in detector.calibration:
        unit = standard_of(name, detector.calibration[name]).unit[0]
    size = np.maximum(np.abs(expected), unit)
    return float(np.max(np.abs(scores - expected) / size))


def int8_cost(
    scores: Float[np.ndarray, "clip"],
    before: Float[np.ndarray, "clip"],
    is_anomaly: Bool[np.ndarray, "clip"] | None,
) -> str:
    """Describe how int8 scores differ from `before`, the float32 scores."""
    if is_anomaly is not None and is_anomaly.any() and not is_anomaly.all():
        was, now = (100 * auc(x, is_anomaly) for x in (before, scores))
        return f"AUC from {was:.2f} to {now:.2f} % ({now - was:+.2f})"
    largest = np.max(np.abs(scores - before))
    correlation, _ = scipy.stats.spearmanr(scores, before)
    return f"scores differ by at most {largest:.2g}, rank correlation {correlation:.4f}"


def recorded(detector: Detector, data_root: Path, log: Log) -> list[Sounds]:
    """Load each machine's test clips.

    Raises:
        InputError: a machine has no test clips, or a recording cannot be used.
    """
    found = find_sections(Source(data_root, ()), detector.machines, ["test"])

    def load(file: ClipFile) -> Float32[np.ndarray, "_"]:
        return clip_waveform(file.path, detector.config.features)

    sounds = []
    with log.progress("test clips", sum(len(m.test) for m in found)) as advance:
        for machine in found:
            waves = [wave for _, wave in load_usable(load, machine.test, None, advance)]
            sounds.append(Sounds(waves, is_anomaly(machine.test)))
    return sounds


def built_in(detector: MachineDetector) -> Sounds:
    """Make synthetic sounds of different lengths and levels; one of them is silent."""
    rng = np.random.default_rng(0)
    step = _SECONDS * detector.config.features.sample_rate / (N_SOUNDS - 1)
    machines, waves = itertools.cycle(MACHINES.values()), []
    for place, machine in zip(range(N_SOUNDS), machines, strict=False):
        n_samples = detector.min_samples + round(step * place)
        wave = render(machine, machine.source[0], n_samples, rng, is_anomaly=False)
        level = 10.0 ** rng.uniform(-1.5, 0.5) * (place != N_SOUNDS // 2)
        waves.append((level * wave).astype(np.float32))
    return Sounds(waves, None)


_ENDINGS = (".onnx", "_int8.onnx")


class Exported(NamedTuple):
    """One machine's exported files."""

    files: dict[str, int]  # sizes in bytes, by name
    difference: float  # of ONNX scores from JAX scores; see `difference`
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
