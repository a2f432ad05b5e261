"""Training curves and code use from the lines of `metrics.jsonl`."""

import math

import pytest

from gammavae_jax.report.figures import code_use, training_curves


def line(epoch, **machines):
    return {"epoch": epoch, "machines": machines}


def test_a_curve_is_the_mean_over_models_with_a_loss():
    lines = [
        line(1, fan={"loss": [4.0, 2.0], "held_out_loss": [8.0, None]}),
        line(2, fan={"loss": [1.0, None], "held_out_loss": [None, None]}),
    ]
    curve = training_curves(lines)["fan"]
    assert curve.loss == (3.0, 1.0)
    assert curve.held_out_loss[0] == 8.0
    assert math.isnan(curve.held_out_loss[1])


def test_a_machine_whose_loss_was_never_finite_has_no_curve():
    lines = [line(1, fan={"loss": [None]}, pump={"loss": [1.0]})]
    assert list(training_curves(lines)) == ["pump"]
    assert training_curves([]) == {}


def test_code_use_covers_the_last_epoch_and_finite_models():
    values = {"active_units": [3.0, None], "kl_per_latent": [[0.0, 1.25], [None, None]]}
    before = {"active_units": [9.0, 9.0], "kl_per_latent": [[9.0, 9.0]] * 2}
    use = code_use([line(1, fan=before), line(2, fan=values, pump={})])
    assert list(use) == ["fan"]
    assert use["fan"].n_active == 3.0
    assert use["fan"].nats == pytest.approx([0.0, 1.25])
    assert code_use([]) == {}
