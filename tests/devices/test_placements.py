"""A placement gives the same results as a loop over all models, on any devices."""

import threading
import time
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gammavae_jax import log
from gammavae_jax.devices.assignment import make_placement
from gammavae_jax.devices.core_queue import CoreQueue
from gammavae_jax.devices.mesh import MeshPlacement


class Pair(NamedTuple):
    """Two arrays of models."""

    first: Any
    second: Any


def place(form, n_machines, n_members, n_devices):
    """A queue, or a mesh whose devices compute models together or one at a time."""
    batching = "map" if form == "queue" else "vmap"
    work, devices = list(range(1, n_machines + 1)), jax.devices()[:n_devices]
    placement = make_placement(work, n_members, devices, batching)
    if isinstance(placement, MeshPlacement) and form == "mesh of queues":
        return replace(placement, batching="map")
    return placement


@pytest.mark.parametrize("form", ["queue", "mesh", "mesh of queues"])
@pytest.mark.parametrize("n_devices", [1, 2, 4])
@pytest.mark.parametrize(("n_members", "n_machines"), [(1, 1), (1, 7), (3, 2), (5, 3)])
def test_over_models_equals_a_loop(form, n_devices, n_members, n_machines):
    rng = np.random.default_rng(0)
    model = rng.normal(size=(n_members, n_machines, 3)).astype(np.float32)
    machine = rng.normal(size=(n_machines, 3)).astype(np.float32)
    member = rng.normal(size=n_members).astype(np.float32)
    placement = place(form, n_machines, n_members, n_devices)
    function = placement.over_models(
        lambda s, r, m: {"sum": s + r @ m}, ["member", "model", "machine"]
    )
    out = function(
        placement.put(member, "member"),
        placement.put(model, "model"),
        placement.put(machine, "machine"),
    )
    expected = member[:, None] + np.einsum("smi,mi->sm", model, machine)
    np.testing.assert_allclose(placement.get(out)["sum"], expected, rtol=1e-5)


@pytest.mark.parametrize("form", ["queue", "mesh", "mesh of queues"])
def test_arrays_come_back_in_machine_order(form):
    placement = place(form, 3, 2, 4)
    model = np.arange(12.0).reshape(2, 3, 2)
    np.testing.assert_array_equal(placement.get(placement.put(model, "model")), model)


def test_machines_are_dealt_evenly():
    placement = make_placement([50, 20, 20, 10], 1, jax.devices()[:2], "vmap")
    assert isinstance(placement, MeshPlacement)
    half = len(placement.machine_slots) // 2
    work = [
        sum([50, 20, 20, 10][m] for m in slots if m is not None)
        for slots in (placement.machine_slots[:half], placement.machine_slots[half:])
    ]
    assert work == [50, 50]


def test_the_members_of_a_single_machine_are_spread_over_the_devices():
    placement = make_placement([100], 4, jax.devices()[:4], "vmap")
    assert isinstance(placement, MeshPlacement)
    assert dict(placement.mesh.shape) == {"member": 4, "machine": 1}


@dataclass(frozen=True)
class Device:
    """A device that has only the attributes that placements use."""

    process_index: int
    id: int
    platform: str = "gpu"


@pytest.mark.parametrize("per_process", [1, 2, 4])
@pytest.mark.parametrize("n_processes", [2, 3, 5])
@pytest.mark.parametrize(("n_members", "n_machines"), [(1, 1), (1, 2), (2, 3), (5, 7)])
def test_every_process_of_a_cluster_has_a_device_in_the_mesh(
    per_process, n_processes, n_members, n_machines
):
    """Some devices may have only free slots, but JAX needs one of every process."""
    devices = [Device(i // per_process, i) for i in range(n_processes * per_process)]
    placement = make_placement([3] * n_machines, n_members, devices)
    assert isinstance(placement, MeshPlacement)
    used = {device.process_index for device in placement.mesh.devices.flat}
    assert used == set(range(n_processes))


def test_free_slots_in_a_mesh_hold_zeros():
    placement = make_placement([1, 1, 1], 1, jax.devices()[:2], "vmap")
    placed = placement.put(np.ones((3, 2), np.float32), "machine")
    assert placed.shape == (4, 2)
    assert placed.sum() == 6


def queue(n_machines, n_members=1, n_devices=1):
    devices = jax.devices()[:n_devices]
    placement = make_placement([1] * n_machines, n_members, devices, "map")
    assert isinstance(placement, CoreQueue)
    return placement


def test_models_in_a_queue_share_the_arrays_of_their_machine():
    placement = queue(2, n_members=3)
    placed = placement.put(np.ones((2, 5), np.float32), "machine").trees
    assert len({id(array) for array in placed.values()}) == 2


def test_a_queue_starts_with_the_longest_machine():
    placement = make_placement([5, 90, 30], 1, jax.devices()[:1], "map")
    assert isinstance(placement, CoreQueue)
    assert [machine for _, machine in placement.devices] == [1, 2, 0]


def test_a_queue_uses_every_device():
    assert len(set(queue(7, n_devices=4).devices.values())) == 4


def test_the_devices_of_a_queue_share_the_cores(monkeypatch):
    monkeypatch.setattr("gammavae_jax.devices.assignment.available_cores", lambda: 8)
    assert [queue(7, n_devices=n).n_threads for n in (1, 4)] == [8, 2]


def test_closing_a_queue_cancels_the_calls_that_have_not_started(monkeypatch):
    monkeypatch.setattr("gammavae_jax.devices.assignment.available_cores", lambda: 1)
    placement, is_started, may_end = queue(3), threading.Event(), threading.Event()

    def wait_for_the_end(value):
        is_started.set()
        assert may_end.wait(timeout=30)
        return value

    def waiting(value):
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return jax.pure_callback(wait_for_the_end, shape, value)

    placed = placement.put(np.zeros(3, np.float32), "machine")
    calls = placement.over_models(waiting, ["machine"])(placed).trees

    def end_the_first():
        deadline = time.monotonic() + 5
        while not calls[0, 2].cancelled() and time.monotonic() < deadline:
            time.sleep(0.01)
        may_end.set()

    assert is_started.wait(timeout=30)
    threading.Thread(target=end_the_first).start()
    placement.close()
    assert [calls[0, n].cancelled() for n in range(3)] == [False, True, True]


def test_a_quick_model_ends_while_a_slow_one_of_the_same_call_runs(monkeypatch):
    monkeypatch.setattr("gammavae_jax.devices.assignment.available_cores", lambda: 2)
    placement, is_done = queue(2), threading.Event()

    def wait_if_slow(is_slow):
        if is_slow:
            assert is_done.wait(timeout=30)
        return np.float32(is_slow)

    def slow_or_not(is_slow):
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return jax.pure_callback(wait_if_slow, shape, is_slow), 5 * is_slow

    function = placement.over_models(slow_or_not, ["machine"])
    first, second = function(placement.put(np.array([1.0, 0.0], np.float32), "machine"))
    again = placement.over_models(lambda x: x + 1.0, ["model"])
    quick = first.trees[0, 1].whole.result()
    is_done.set()
    placement.wait(first)
    assert float(quick[0]) == 0.0
    assert placement.get(again(first)).tolist() == [[2.0, 1.0]]
    assert placement.get(second).tolist() == [[5.0, 0.0]]


@pytest.mark.parametrize("n_devices", [1, 2])
def test_a_queue_compiles_once_for_each_device(n_devices):
    placement = queue(5, n_devices=n_devices)
    placed = placement.put(np.zeros(5, np.float32), "machine")
    program: Any = placement.over_models(lambda x: x + 1.0, ["machine"])
    lowered = []

    class Counted:
        def lower(self, *arguments):
            lowered.append(1)
            return program.jitted.lower(*arguments)

    out = replace(program, jitted=Counted())(placed)
    assert placement.get(out).tolist() == [[1.0] * 5]
    assert len(lowered) == n_devices


def test_an_error_in_a_thread_is_raised_where_its_result_is_used():
    placement = queue(3)

    def fail(value):
        raise RuntimeError("no more")

    def failing(value):
        return jax.pure_callback(fail, jax.ShapeDtypeStruct((), jnp.float32), value)

    out = placement.over_models(failing, ["machine"])(
        placement.put(np.zeros(3, np.float32), "machine")
    )
    with pytest.raises(Exception, match="no more"):
        placement.get(out)


def test_waiting_for_a_device_that_hangs_is_announced(monkeypatch, capfd):
    monkeypatch.setattr(log, "LONG_WAIT_S", 0.1)
    placement = queue(1)

    def hang(value):
        time.sleep(0.5)
        return value

    def hanging(value):
        return jax.pure_callback(hang, value, value, vmap_method="broadcast_all")

    function = placement.over_models(hanging, ["model"])
    placement.wait(function(placement.put(np.zeros((1, 1), np.float32), "model")))
    assert "still waiting for the devices after" in capfd.readouterr().err


@pytest.mark.parametrize("form", ["queue", "mesh"])
def test_part_returns_a_field_of_a_placed_named_tuple_or_a_result(form):
    placement = place(form, 3, 2, 2)
    arrays = Pair(*np.arange(12, dtype=np.float32).reshape(2, 2, 3))
    placed = placement.put(arrays, "model")
    swap = placement.over_models(lambda pair: Pair(pair.second, pair.first), ["model"])
    for name, other in (("first", "second"), ("second", "first")):
        ours = placement.get(placement.part(placed, name))
        np.testing.assert_array_equal(ours, getattr(arrays, name))
        ours = placement.get(placement.part(swap(placed), name))
        np.testing.assert_array_equal(ours, getattr(arrays, other))
