"""Both sides of the scoring benchmark, from log-mels in memory to clip scores."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from benchmarks.compile_clock import CompileClock
from benchmarks.log_mels import N_CONTEXT, synthetic_log_mels, synthetic_machines
from benchmarks.machine import device_bytes
from benchmarks.processes import Prepared
from gammavae_jax.data.features import mel_filterbank
from gammavae_jax.devices.assignment import make_placement
from gammavae_jax.models.autoencoder import reconstruct
from gammavae_jax.presets import preset
from gammavae_jax.runs.checkpoint import load_detector, save_detector
from gammavae_jax.scoring.detector import compile_scores, fit_scores
from gammavae_jax.scoring.residuals import mahalanobis
from gammavae_jax.scoring.scorer import FittedModel
from gammavae_jax.training.epoch import make_trainer
from gammavae_jax.training.split import split_windows

_TRAINING_CLIPS = 20  # per machine


def make_detector(folder: str, machines: int, frames: int) -> None:
    """Train for one epoch on a few clips, fit a detector and save it."""
    config = preset("autoencoder")
    config = replace(config, train=replace(config.train, epochs=1))
    arrays = synthetic_machines(machines, _TRAINING_CLIPS, frames)
    split = split_windows(arrays, config)
    placement = make_placement([arrays.window_start.shape[-1]] * machines, 1)
    trainer = make_trainer(config, placement, arrays, split.window_use)
    state, _ = trainer.epoch(1, trainer.initial)
    names = [(f"machine_{machine}", "00") for machine in range(machines)]
    bank = mel_filterbank(config.features)
    detector = fit_scores(config, placement, names, bank, state, arrays, split)
    save_detector(Path(folder), detector)


def prepare_ours(
    folder: str, machines: int, clips: int, frames: int, scores: list[str], out: str
) -> Prepared:
    """Compile one program that computes the named scores for all machines."""
    clock = CompileClock()
    detector = load_detector(Path(folder))
    config = replace(detector.config, scores=tuple(scores), score=scores[0])
    detector = replace(detector, config=config)
    arrays = synthetic_machines(machines, clips, frames, split="test")
    placement = make_placement([clips] * machines, 1)
    score, latest = compile_scores(detector, placement, arrays.clips), {}
    del arrays

    def finish() -> dict:
        np.save(out, latest["mahalanobis"][0])
        return {}

    facts = {
        **clock.facts(),
        "device_bytes": device_bytes(),
        "scores": list(detector.config.scores),
    }
    return Prepared(
        lambda: latest.update(score()), float(machines * clips), facts, finish
    )


def prepare_official(
    folder: str, machines: int, clips: int, frames: int, chosen: int, out: str
) -> Prepared:
    """Score the first `chosen` clips of each machine one by one in the official form.

    For each domain, this form multiplies a clip's residual rows by the inverse
    covariance and by the rows again, and averages the resulting array `row row`,
    although the mean residual row would suffice. Unlike the official code, it is
    compiled by XLA.
    """
    detector = load_detector(Path(folder))
    log_mels = [
        jnp.asarray(synthetic_log_mels(machine, clips, frames)[:chosen])
        for machine in range(machines)
    ]
    of_machine = [
        jax.tree.map(lambda leaf, m=m: jnp.asarray(leaf[0, m]), detector.scorer)
        for m in range(machines)
    ]
    inverses = [_inverses(scorer) for scorer in of_machine]
    config = detector.config.model
    frame = jnp.arange(frames - N_CONTEXT + 1)[:, None] + jnp.arange(N_CONTEXT)

    @jax.jit
    def score(scorer, inverses, log_mel):
        windows = log_mel[frame].reshape(len(frame), -1)
        output = reconstruct(config, scorer.params, scorer.batch_stats, windows)
        return _official_form(windows - output.reconstruction, inverses)

    def scores() -> np.ndarray:
        return np.array(
            [
                [float(score(of_machine[m], inverses[m], clip)) for clip in log_mels[m]]
                for m in range(machines)
            ]
        )

    def finish() -> dict:
        np.save(out, scores())
        return {}

    scores()  # compiles
    return Prepared(scores, float(machines * chosen), {}, finish)


def prepare_from_residuals(
    folder: str, frames: int, clips: int, is_official: bool
) -> Prepared:
    """Compute only the Mahalanobis score, in either form, from residuals in memory."""
    scorer = jax.tree.map(
        lambda leaf: jnp.asarray(leaf[0, 0]), load_detector(Path(folder)).scorer
    )
    inverses = _inverses(scorer)
    n_windows = frames - N_CONTEXT + 1
    shape = clips, n_windows, N_CONTEXT * len(scorer.source.location)
    residuals = jax.random.normal(jax.random.key(0), shape)
    weight = jnp.ones(n_windows)

    def score(residual):
        if is_official:
            return _official_form(residual, inverses)
        return mahalanobis(residual, weight, scorer.source, scorer.target)

    scores = jax.jit(lambda residuals: jax.lax.map(score, residuals))
    jax.block_until_ready(scores(residuals))  # compiles
    return Prepared(lambda: jax.block_until_ready(scores(residuals)), float(clips), {})


def _official_form(
    residual: Float[Array, "window feature"], inverses: list[Float[Array, "mel mel"]]
) -> Float[Array, ""]:
    """Return the mean over all pairs of rows, for the nearer domain."""
    rows = residual.reshape(-1, len(inverses[0]))
    products = [rows @ inverse @ rows.T for inverse in inverses]
    return jnp.min(jnp.stack([matmul.mean() for matmul in products]))


def _inverses(scorer: FittedModel) -> list[Float[Array, "mel mel"]]:
    fits = scorer.source, scorer.target
    return [jnp.linalg.inv(fit.factor @ fit.factor.T) for fit in fits]
