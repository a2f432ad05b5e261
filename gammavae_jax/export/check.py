"""Whether files score sounds as the detector does that they were made of."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import onnxruntime
from jax import export
from jaxtyping import Float, Float32

from gammavae_jax.data.arrays import MachineArrays
from gammavae_jax.data.features import log_mel
from gammavae_jax.devices.deal import make_layout
from gammavae_jax.errors import InputError
from gammavae_jax.export.machine_detector import MachineDetector
from gammavae_jax.scoring.detector import Detector, score_clips
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
    n_clips, most_frames = max(map(len, mels)), max(len(x) for m in mels for x in m)
    shape = (len(mels), n_clips)
    arrays = MachineArrays(
        log_mel=np.zeros((*shape, most_frames, config.features.n_mels), np.float32),
        n_frames=np.zeros(shape, np.int32),
        is_target=np.zeros(shape, bool),
        window_start=np.zeros((len(mels), 1), np.int32),  # scoring does not look at it
        name_hash=np.zeros(len(mels), np.uint32),
    )
    for m, of_machine in enumerate(mels):
        for c, mel in enumerate(of_machine):
            arrays.log_mel[m, c, : len(mel)] = mel
            arrays.n_frames[m, c] = len(mel)
    counts = [len(of_machine) for of_machine in waves]
    batching = config.train.batching
    with make_layout(counts, config.n_members, batching=batching) as layout:
        (scores,) = score_clips(detector, layout, arrays)[config.score]
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
