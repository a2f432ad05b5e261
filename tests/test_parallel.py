"""One function over machines and seeds gives what a loop gives, on any mesh."""

import jax
import numpy as np
import pytest

from gammavae_jax.parallel import make_layout


@pytest.mark.parametrize("batching", ["map", "vmap"])
@pytest.mark.parametrize("n_devices", [1, 2, 4])
@pytest.mark.parametrize(("n_seeds", "n_machines"), [(1, 1), (1, 7), (3, 2), (5, 3)])
def test_over_runs_equals_a_loop(batching, n_devices, n_seeds, n_machines):
    rng = np.random.default_rng(0)
    run = rng.normal(size=(n_seeds, n_machines, 3)).astype(np.float32)
    machine = rng.normal(size=(n_machines, 3)).astype(np.float32)
    seed = rng.normal(size=n_seeds).astype(np.float32)
    layout = make_layout(
        list(range(1, n_machines + 1)), n_seeds, jax.devices()[:n_devices], batching
    )
    function = layout.over_runs(
        lambda s, r, m: {"sum": s + r @ m}, ["seed", "run", "machine"]
    )
    out = function(
        layout.put(seed, "seed"), layout.put(run, "run"), layout.put(machine, "machine")
    )
    expected = seed[:, None] + np.einsum("smi,mi->sm", run, machine)
    np.testing.assert_allclose(layout.get(out)["sum"], expected, rtol=1e-5)


def test_arrays_come_back_in_their_first_order():
    layout = make_layout([5, 90, 30], 2, jax.devices()[:4])
    run = np.arange(12.0).reshape(2, 3, 2)
    np.testing.assert_array_equal(layout.get(layout.put(run, "run")), run)


def test_machines_are_dealt_evenly():
    layout = make_layout([50, 20, 20, 10], 1, jax.devices()[:2])
    half = len(layout.machine_slots) // 2
    work = [
        sum([50, 20, 20, 10][m] for m in slots if m is not None)
        for slots in (layout.machine_slots[:half], layout.machine_slots[half:])
    ]
    assert work == [50, 50]


def test_seeds_share_the_devices_of_a_lone_machine():
    layout = make_layout([100], 4, jax.devices()[:4])
    assert dict(layout.mesh.shape) == {"seed": 4, "machine": 1}


def test_free_slots_hold_zeros():
    layout = make_layout([1, 1, 1], 1, jax.devices()[:2])
    placed = layout.put(np.ones((3, 2), np.float32), "machine")
    assert placed.shape == (4, 2)
    assert placed.sum() == 6
