"""A machine's detector as one file of StableHLO, which JAX alone can run.

    import jax
    from pathlib import Path
    content = Path("fan_section_00.jax").read_bytes()
    score_wave = jax.jit(jax.export.deserialize(bytearray(content)).call)
    score_wave(wave)["score"]

JAX promises that a file can be read by versions of up to six months later. An ONNX
file is the one to keep.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, Float, Float32

from gammavae_jax.config import FUSION_SCORES, FeatureConfig
from gammavae_jax.data.arrays import ClipArrays
from gammavae_jax.data.features import FLOOR, hann
from gammavae_jax.devices.placement import in_float32
from gammavae_jax.export.machine import MachineDetector, Member
from gammavae_jax.scoring.fusion import standard_of
from gammavae_jax.scoring.scorer import score_machine

_RULES = dict(zip(FUSION_SCORES, (jnp.mean, jnp.max, jnp.min), strict=True))
_CODE_LINES = "jax_traceback_in_locations_limit"  # written of each operation


def jax_bytes(detector: MachineDetector) -> bytes:
    """A file's content: a function of a wave of any length from `min_samples` on.

    It takes and returns what the ONNX file does, but for the log-mel, on a CPU.
    """
    (length,) = export.symbolic_shape(
        "sample", constraints=[f"sample >= {detector.min_samples}"]
    )
    wave = jax.ShapeDtypeStruct((length,), jnp.float32)
    # Without the lines of our code, whose paths are another on every computer.
    before = getattr(jax.config, _CODE_LINES)
    jax.config.update(_CODE_LINES, 0)
    try:
        exported = export.export(jax.jit(score_wave(detector)), platforms=["cpu"])(wave)
    finally:
        jax.config.update(_CODE_LINES, before)
    return bytes(exported.serialize())


def score_wave(
    detector: MachineDetector,
) -> Callable[[Float32[Array, "sample"]], dict[str, Array]]:
    """Score and decision of a wave, by the names that the ONNX file has."""
    config = detector.config
    members = jax.tree.map(lambda *leaves: np.stack(leaves), *detector.members)

    def score(wave):
        mels = log_mel(wave, detector.filterbank, config.features)
        data = ClipArrays(
            log_mel=mels[None],
            n_frames=jnp.asarray(mels.shape[0], jnp.int32)[None],
        )

        def of_member(member: Member):
            clip = jnp.zeros(1, jnp.int32)
            scorer, references = member
            return score_machine(config, None, scorer, references, data, clip)

        by_member = jax.lax.map(of_member, members)
        # Samples after the last frame count too: what is broken has no score.
        broken = jnp.where(jnp.isfinite(wave).all(), 0.0, jnp.nan)
        parts = {name: values.mean() + broken for name, values in by_member.items()}
        return _decision(detector, parts)

    return in_float32(score)


def log_mel(
    wave: Float32[Array, "sample"],
    filterbank: Float32[np.ndarray, "bin mel"],
    config: FeatureConfig,
) -> Float[Array, "frame mel"]:
    """`features.log_mel` in JAX."""
    padded = jnp.pad(wave, config.n_fft // 2)
    n_frames = 1 + (padded.shape[0] - config.n_fft) // config.hop_length
    first = jnp.arange(n_frames) * config.hop_length
    frames = padded[first[:, None] + jnp.arange(config.n_fft)] * hann(config.n_fft)
    magnitude = jnp.abs(jnp.fft.rfft(frames))
    mel = magnitude**config.power @ filterbank
    return 20.0 / config.power * jnp.log10(jnp.maximum(mel, FLOOR))


def _decision(detector: MachineDetector, parts: dict[str, Array]) -> dict[str, Array]:
    """From the scores of a seed to its decision; see `decision`."""
    config = detector.config
    if config.score in _RULES:
        standardised = []
        for name in config.scoring.fused:
            mean, unit = standard_of(name, detector.calibration[name])
            standardised.append((parts[name] - mean[0]) / unit[0])
        score = _RULES[config.score](jnp.stack(standardised))
    else:
        score = parts.pop(config.score)
    known = detector.calibration.get(config.score)
    p_value = jnp.asarray(jnp.nan)
    if known is not None:
        p_value = (1.0 + jnp.sum(known >= score)) / (len(known) + 1.0)
    return {
        "score": score,
        "p_value": jnp.where(jnp.isnan(score), jnp.nan, p_value),
        "threshold": jnp.float32(detector.threshold),
        "is_anomaly": score > detector.threshold,
        **parts,
    }
