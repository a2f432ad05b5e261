"""Whether files score sounds as the detector does that they were made of."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import onnxruntime
from jax import export
from jaxtyping import Bool, Float, Float32

from gammavae_jax.data.arrays import is_anomaly, stack_clips
from gammavae_jax.data.clips import Clips, clip_waveform
from gammavae_jax.data.features import log_mel
from gammavae_jax.data.loading import Source, find_all
from gammavae_jax.devices.deal import make_placement
from gammavae_jax.errors import InputError
from gammavae_jax.export.machine import MachineDetector
from gammavae_jax.log import Log
from gammavae_jax.scoring.detector import Detector, compile_scores
from gammavae_jax.scoring.fusion import standard_of

TOLERANCE = 1e-3  # of a score; see `difference`

Waves = Sequence[Float32[np.ndarray, "_"]]  # of lengths of their own


def jax_scores(
    detector: Detector, waves: Sequence[Waves]
) -> list[Float[np.ndarray, "_"]]:
    """What `score_clips` says of the waves of each machine.

    Args:
        detector: of one seed and one score.
        waves: of each machine.
    """
    config = detector.config
    mels = [
        [log_mel(wave, detector.filterbank, config.features) for wave in of_machine]
        for of_machine in waves
    ]
    clips = [Clips((), tuple(of_machine)) for of_machine in mels]
    arrays = stack_clips(clips, config.features.n_context)
    counts = [len(of_machine) for of_machine in waves]
    batching = config.train.batching
    with make_placement(counts, config.n_members, batching=batching) as placement:
        (scores,) = compile_scores(detector, placement, arrays)()[config.score]
    return [of_machine[:n] for of_machine, n in zip(scores, counts, strict=True)]


def onnx_session(content: bytes) -> Any:
    """A file's content as an `InferenceSession` on one core of the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(
        content, options, providers=["CPUExecutionProvider"]
    )


def onnx_scores(content: bytes, waves: Waves) -> Float32[np.ndarray, "clip"]:
    """What an ONNX file says of waves."""
    session = onnx_session(content)
    scores = [session.run(["score"], {"wave": wave})[0] for wave in waves]
    return np.array(scores, np.float32)


def jax_file_scores(content: bytes, waves: Waves) -> Float32[np.ndarray, "clip"]:
    """What a file of StableHLO says of waves; each length is compiled anew."""
    function = jax.jit(export.deserialize(bytearray(content)).call)
    return np.array([function(wave)["score"] for wave in waves], np.float32)


def difference(
    ours: Float[np.ndarray, "clip"],
    expected: Float[np.ndarray, "clip"],
    detector: MachineDetector,
) -> float:
    """The largest difference, as a share of what was expected.

    A score nearer to 0 than held-out clips differ is compared as if it were that: a
    fusion's are about 0, and so is the distance of a training clip to itself.
    """
    name = detector.config.score
    known, unit = detector.calibration.get(name), np.finfo(np.float32).tiny
    if known is not None:
        unit = standard_of(name, known).unit[0]
    return float(np.max(np.abs(ours - expected) / np.maximum(np.abs(expected), unit)))


def require_same(name: str, found: float) -> None:
    """Refuse a file whose scores differ by more than `TOLERANCE`.

    Raises:
        InputError: the file.
    """
    if not found <= TOLERANCE:  # also what is no number
        raise InputError(
            f"{name}: its scores differ from JAX's by {found:.1e} of their size, "
            f"{TOLERANCE:g} is allowed: nothing was written; name another --score, and "
            "please report this"
        )


N_SOUNDS = 24  # that are built in
_SECONDS = 3.0  # of the longest, beyond the shortest length there can be


class Sounds(NamedTuple):
    """Waves, and whether each is of an anomaly; None where that is not known."""

    waves: list[Float32[np.ndarray, "_"]]
    is_anomaly: Bool[np.ndarray, "clip"] | None


def recorded(detector: Detector, data_root: Path, log: Log) -> list[Sounds]:
    """The test clips of each machine of a detector.

    Raises:
        InputError: a machine has none, or a recording cannot be used.
    """
    machines = tuple(dict.fromkeys(machine for machine, _ in detector.machines))
    found = {
        (f.machine, f.section): f.test
        for f in find_all(Source(data_root, machines), ["test"])
    }
    for machine, section in detector.machines:
        if (machine, section) not in found:
            raise InputError(
                f"the checkpoint's {machine} section {section} is not in "
                f"{str(data_root)!r}: give the data that it was trained for"
            )
    files = [found[machine] for machine in detector.machines]
    made = []
    with log.progress("test clips", sum(map(len, files))) as advance:
        for of_machine in files:
            waves = []
            for file in of_machine:
                waves.append(clip_waveform(file.path, detector.config.features))
                advance()
            made.append(Sounds(waves, is_anomaly(of_machine)))
    return made


def built_in(detector: MachineDetector) -> Sounds:
    """Coloured noise with tones and knocks, and silence; the first is the shortest.

    Lengths go from `min_samples` up; few of them are multiples of the hop.
    """
    rng = np.random.default_rng(0)
    sample_rate = detector.config.features.sample_rate
    step = _SECONDS * sample_rate / (N_SOUNDS - 1)
    lengths = [detector.min_samples + round(step * place) for place in range(N_SOUNDS)]
    waves = [_sound(rng, length, sample_rate) for length in lengths]
    waves[N_SOUNDS // 2] = np.zeros_like(waves[N_SOUNDS // 2])
    return Sounds(waves, None)


def _sound(
    rng: np.random.Generator, n_samples: int, sample_rate: int
) -> Float32[np.ndarray, "sample"]:
    """Noise with a slope and a level of its own, a tone in it, and a knock."""
    spectrum = np.fft.rfft(rng.standard_normal(n_samples))
    slope = np.arange(1, len(spectrum) + 1) ** -rng.uniform(0.0, 1.0)
    noise = np.fft.irfft(spectrum * slope, n_samples)
    noise /= np.sqrt(np.mean(noise**2))
    phase = 2 * np.pi * rng.uniform(0.01, 0.4) * np.arange(n_samples)
    tone = rng.uniform(0.0, 2.0) * np.sin(phase)
    since = np.arange(n_samples) - rng.integers(n_samples)
    knock = 5.0 * np.exp(-np.maximum(since, 0) / (0.01 * sample_rate)) * (since >= 0)
    level = 10.0 ** rng.uniform(-3.0, -1.0)
    return (level * (noise * (1.0 + knock) + tone)).astype(np.float32)
