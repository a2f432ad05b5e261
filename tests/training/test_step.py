"""Training of machines: alone, with others, resumed, or stopped by divergence."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.probes import clips, crowd, noise

from gammavae_jax.data.arrays import HELD_OUT, PADDING, TRAIN, stack_machines
from gammavae_jax.devices.assignment import make_placement
from gammavae_jax.devices.placement import Batching, jitted
from gammavae_jax.models.layers import (
    BATCH_NORM,
    BLOCK,
    DECODER,
    DENSE,
    ENCODER,
    HEADS,
)
from gammavae_jax.models.loss import LossTerms, total_loss
from gammavae_jax.training import epoch as epochs
from gammavae_jax.training import step
from gammavae_jax.training.split import split_windows


@pytest.fixture
def tiny(tiny):
    """Make configurations with one model for each seed."""
    return lambda name, *assignments: tiny(name, "train.split=clip", *assignments)


def prepare(config, machines, devices=1, batching: Batching = "map"):
    """Return the trainer, placement, arrays and split of machines."""
    arrays = stack_machines(machines, config.features.n_context)
    window_use = split_windows(arrays, config).window_use
    placement = make_placement(
        (window_use[0] > 0).sum(-1).tolist(),
        config.n_members,
        jax.devices()[:devices],
        batching,
    )
    trainer = epochs.make_trainer(config, placement, arrays, window_use)
    return trainer, placement, arrays, window_use


def fit(config, machines, n_epochs, devices=1, batching: Batching = "map"):
    """Return the state on the host, and each epoch's report."""
    trainer, placement, _, _ = prepare(config, machines, devices, batching)
    state, infos = trainer.initial, []
    for epoch in range(1, n_epochs + 1):
        state, info = trainer.epoch(epoch, state)
        infos.append(placement.get(info))
    return placement.get(state), infos


def assert_close(ours, expected, rtol=1e-4):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * 0.01),
        ours,
        expected,
    )


@pytest.fixture
def machines():
    return crowd(np.random.default_rng(0))


@pytest.fixture
def double(monkeypatch):
    """Train in float64, so that rounding does not hide a difference."""

    original = stack_machines

    def stack(*args):
        arrays = original(*args)
        clips = arrays.clips._replace(log_mel=arrays.clips.log_mel.astype(np.float64))
        return arrays._replace(clips=clips)

    monkeypatch.setitem(globals(), "stack_machines", stack)
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("batching", ["map", "vmap"])
def test_a_machine_trains_the_same_alone_and_beside_others(
    tiny, machines, batching, double
):
    config = tiny("default", "n_seeds=2")
    all_machines, _ = fit(config, machines, 1, batching=batching)
    assert all_machines.params[HEADS[0]]["kernel"].dtype == np.float64
    for m, machine in enumerate(machines):
        alone, _ = fit(config, [machine], 1)
        mine = jax.tree.map(lambda leaf, m=m: leaf[:, m : m + 1], all_machines)
        assert_close(mine.params, alone.params, rtol=1e-7)
        assert_close(mine.batch_stats, alone.batch_stats, rtol=1e-7)


def test_the_number_of_devices_does_not_change_the_parameters(tiny, machines):
    config = tiny("default")
    one, _ = fit(config, machines, 2, devices=1)
    for devices in (2, 4):
        more, _ = fit(config, machines, 2, devices=devices)
        assert_close(more.params, one.params)


def test_the_step_is_traced_once_for_all_trainings_of_equal_shapes(
    tiny, machines, monkeypatch
):
    """Groups of machines that are trained one after another have equal shapes."""
    traces, train_step = [], step.train_step

    def counted(*args):
        traces.append(1)
        return train_step(*args)

    monkeypatch.setattr(epochs, "train_step", counted)
    jitted.cache_clear()
    fit(tiny("default"), machines, 3)
    assert len(traces) == 1
    fit(tiny("default"), machines[::-1], 1)
    assert len(traces) == 1


def test_an_epoch_transfers_nothing_between_host_and_device(tiny, machines):
    config = tiny("default")
    trainer, placement, _, _ = prepare(config, machines)
    number = trainer.place(1)
    jax.config.update("jax_transfer_guard", "disallow")  # in all threads
    try:
        placement.wait(*trainer.compiled(number, trainer.initial))
    finally:
        jax.config.update("jax_transfer_guard", "allow")


def test_the_loss_falls_and_every_trained_parameter_changes(tiny, machines):
    config = tiny("default")
    before = fit(config, machines, 0)[0].params
    after, infos = fit(config, machines, 5)
    assert (infos[-1].loss < infos[0].loss).all()
    moved = jax.tree.map(lambda a, b: not (a == b).all(), before, after.params)
    for half in (ENCODER, DECODER):
        block = moved[half].pop(BLOCK.format(0))
        # Before batch normalisation a bias has no effect and is not trained.
        assert block == {
            DENSE: {"kernel": True, "bias": False},
            BATCH_NORM: {"scale": True, "bias": True},
        }
    assert all(jax.tree.leaves(moved))


def test_equal_seeds_give_equal_bytes_and_different_seeds_do_not(tiny, machines):
    first, again, other = (
        fit(tiny("paper", f"seed={seed}"), machines, 1)[0].params for seed in (1, 1, 2)
    )
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not np.allclose(*(p[HEADS[0]]["kernel"] for p in (first, other)))


def test_each_window_is_trained_on_once_per_epoch():
    window_use = np.array([TRAIN] * 40 + [HELD_OUT] * 9 + [PADDING] * 15, np.uint8)
    order = np.asarray(epochs.shuffled(jax.random.key(3), jnp.asarray(window_use)))
    assert set(order[:40]) == set(range(40))
    assert list(order[:40]) != list(range(40))
    assert set(order[40:49]) == set(range(40, 49))


def test_padding_does_not_change_the_shuffle(key):
    k = key()
    short = jnp.full(50, TRAIN, jnp.uint8)
    padded = jnp.concatenate([short, jnp.full(77, PADDING, jnp.uint8)])
    np.testing.assert_array_equal(
        epochs.shuffled(k, short), epochs.shuffled(k, padded)[:50]
    )


def test_a_batch_holds_windows_of_successive_frames_of_one_clip(tiny, machines):
    config = tiny("default")
    _, _, arrays, window_use = prepare(config, machines[:1])
    data = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), arrays)
    n = int((window_use[0, 0] > 0).sum())
    batch, weight, _ = epochs.gather(
        config, data, jnp.arange(window_use.shape[2]), 0, jnp.array(n), jnp.array(0)
    )
    expected = [
        clip[start : start + 5].ravel()
        for clip in machines[0][1].log_mels
        for start in range(len(clip) - 4)
    ]
    used = min(len(batch), len(expected))
    np.testing.assert_array_equal(batch[:used], np.array(expected)[:used])
    assert weight.sum() == used


def test_an_infinite_loss_stops_only_that_machine(tiny, machines):
    config = tiny("default")
    healthy = fit(config, machines, 3)[0]
    _, broken = machines[1]
    broken.log_mels[0][:] = np.inf
    state, infos = fit(config, machines, 3)
    assert state.is_stopped.tolist() == [[False, True, False]]
    for values in (infos[-1].loss, infos[-1].held_out_loss):
        assert np.isfinite(values).tolist() == [[True, False, True]]
    for m in (0, 2):
        pick = lambda leaf, m=m: leaf[:, m]  # noqa: E731
        assert_close(
            jax.tree.map(pick, state.params), jax.tree.map(pick, healthy.params)
        )
    start = fit(config, machines, 0)[0]
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a[:, 1], b[:, 1]),
        state.params,
        start.params,
    )


def test_a_single_held_out_window_has_a_loss(tiny):
    spectra = noise(np.random.default_rng(0), 3, np.array([5, 5, 5]))
    _, (info,) = fit(tiny("default"), [("m", clips(spectra))], 1)
    assert info.held_out_loss[0, 0] > 1.0


def test_a_resumed_training_equals_an_uninterrupted_one(tiny, machines):
    config = tiny("paper")
    trainer, placement, _, _ = prepare(config, machines)
    unbroken, _ = fit(config, machines, 3)
    half, _ = fit(config, machines, 1)
    state = placement.put(half, "model")
    for epoch in (2, 3):
        state, _ = trainer.epoch(epoch, state)
    jax.tree.map(np.testing.assert_array_equal, placement.get(state), unbroken)


def epochs_with(monkeypatch, train_step, config, n_train=70):
    """Return the initial state, and a function that trains an epoch on 80 windows.

    `train_step` replaces the real training step.
    """
    arrays = stack_machines([("m", clips(noise(np.random.default_rng(0), 1, 84)))], 5)
    data = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), arrays)
    window_use = jnp.where(jnp.arange(80) < n_train, TRAIN, HELD_OUT).astype(jnp.uint8)
    key = step.model_key(jnp.array([1, 0], jnp.uint32), data.name_hash)
    state = jax.jit(partial(step.init_state, config, n_batches=3))(key)
    monkeypatch.setattr(epochs, "train_step", train_step)
    epoch = jax.jit(partial(epochs.train_epoch, config))
    return state, lambda number: epoch(key, jnp.array(number), state, data, window_use)


def losses(value, n):
    return LossTerms(value * jnp.ones(n), jnp.zeros(n))


def test_every_step_of_every_epoch_has_its_own_random_key(tiny, monkeypatch):
    def draw(config, key, state, windows, weight, kl_weight):
        return state, losses(jax.random.uniform(key), len(windows))

    _, epoch = epochs_with(monkeypatch, draw, tiny("vae"))
    draws = [x for n in (1, 2, 3) for x in epoch(n)[0].batch_errors.tolist()]
    assert len(set(draws)) == 9


def test_every_seed_fold_and_machine_has_its_own_random_key():
    keys = {
        tuple(
            jax.random.key_data(
                step.model_key(np.array([s, f], np.uint32), jnp.uint32(name))
            ).tolist()
        )
        for s in range(3)
        for f in range(3)
        for name in range(3)
    }
    assert len(keys) == 27


@pytest.mark.parametrize("part", ["params", "batch_stats"])
def test_a_model_with_a_parameter_that_is_not_finite_is_stopped(
    tiny, monkeypatch, part
):
    """The loss may still be finite. The state from before the epoch is kept."""

    def overflow(config, key, state, windows, weight, kl_weight):
        leaves, tree = jax.tree.flatten(getattr(state, part))
        leaves[0] = leaves[0].at[(0,) * leaves[0].ndim].set(jnp.inf)
        broken = state._replace(**{part: tree.unflatten(leaves)})
        return broken, losses(1.0, len(windows))

    before, epoch = epochs_with(monkeypatch, overflow, tiny("vae"))
    after, info = epoch(1)
    assert np.isfinite(info.loss)
    assert after.is_stopped
    assert info.is_stopped
    jax.tree.map(np.testing.assert_array_equal, after.params, before.params)
    jax.tree.map(np.testing.assert_array_equal, after.batch_stats, before.batch_stats)


@pytest.mark.parametrize(("n_train", "n_batches"), [(64, 2), (65, 2), (66, 3)])
def test_a_last_batch_of_one_window_is_left_out(tiny, monkeypatch, n_train, n_batches):
    """Batch normalisation needs a variance, which a single window does not have."""

    def count(config, key, state, windows, weight, kl_weight):
        return state, losses(1.0, len(windows))

    _, epoch = epochs_with(monkeypatch, count, tiny("vae"), n_train)
    after, _ = epoch(1)
    assert np.isfinite(after.batch_errors).sum() == n_batches


def test_two_thousand_softmax_steps_have_finite_gradients(tiny):
    rng = np.random.default_rng(0)
    config = tiny("paper", "model.n_latent=8", "train.epochs=250")
    machine = ("m", clips(noise(rng, 30, 14)))
    _, _, _, window_use = prepare(config, [machine])
    n_steps = -(-int((window_use == TRAIN).sum()) // config.train.batch_size)
    state, infos = fit(config, [machine], -(-2000 // n_steps))
    assert not state.is_stopped.any()
    assert np.isfinite([info.loss for info in infos]).all()
    # Any infinite gradient would remain in Adam's moments.
    jax.tree.map(
        lambda leaf: np.isfinite(leaf).all() or pytest.fail("moment"), state.opt_state
    )


def test_an_epoch_equals_its_steps_one_by_one(tiny, machines):
    config = tiny("default")
    trainer, placement, arrays, window_use = prepare(config, machines[:1])
    first, _ = trainer.epoch(1, trainer.initial)
    before = placement.get(first)
    after, info = (placement.get(tree) for tree in trainer.epoch(2, first))

    data = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), arrays)
    state = jax.tree.map(lambda leaf: jnp.asarray(leaf[0, 0]), before)
    member = jnp.array([config.seeds[0], 0], jnp.uint32)
    key = jax.random.fold_in(step.model_key(member, data.name_hash), 2)
    order = epochs.shuffled(jax.random.fold_in(key, 0), jnp.asarray(window_use[0, 0]))
    of_model = window_use[0, 0]
    n_train, n_held_out = (int((of_model == use).sum()) for use in (TRAIN, HELD_OUT))
    expected, counts = [], []
    for number in range(-(-n_train // config.train.batch_size)):
        batch, weight, _ = epochs.gather(
            config, data, order, 0, jnp.array(n_train), jnp.array(number)
        )
        step_key = jax.random.fold_in(key, number + 1)
        state, terms = step.train_step(config, step_key, state, batch, weight)
        expected.append(np.average(terms.reconstruction, weights=weight))
        counts.append(weight.sum())
    errors = after.batch_errors[0, 0]
    np.testing.assert_allclose(errors[: len(expected)], expected, rtol=1e-4)
    assert np.isnan(errors[len(expected) :]).all()
    # An epoch's means are over windows, so a short last batch counts for less.
    assert counts[-1] < config.train.batch_size
    mean = np.average(expected, weights=counts)
    np.testing.assert_allclose(info.reconstruction[0, 0], mean, rtol=1e-4)
    assert n_held_out % config.train.batch_size > 0
    held_out = order[n_train : n_train + n_held_out]
    windows = data.clips.log_mel.reshape(-1, data.clips.log_mel.shape[-1])[
        data.window_start[held_out][:, None] + np.arange(5)
    ].reshape(n_held_out, -1)
    _, terms = step.evaluate_windows(config, state, windows)
    loss = total_loss(terms, config.train.kl_weight)
    np.testing.assert_allclose(info.held_out_loss[0, 0], loss.mean(), rtol=1e-4)
