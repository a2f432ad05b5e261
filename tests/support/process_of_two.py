"""Runs as a process of a small cluster that tests start; prints results as JSON."""

import errno
import json
import sys
from pathlib import Path

import jax
import numpy as np

from gammavae_jax.config_json import override
from gammavae_jax.devices.assignment import make_placement
from gammavae_jax.devices.cluster import (
    any_process,
    is_first,
    on_first,
    require_same,
    start,
    together,
)
from gammavae_jax.errors import InputError
from gammavae_jax.presets import preset
from gammavae_jax.runs.checkpoint import (
    TrainCheckpoint,
    restore_training,
    save_training,
)
from gammavae_jax.training.step import init_state

N_MEMBERS, N_MACHINES = 3, 5
SETTINGS = [
    "model.hidden=[16]", "model.n_latent=4", "train.n_folds=3",
]  # fmt: skip


def error_of(function) -> str | None:
    try:
        function()
    except InputError as error:
        return str(error)
    return None


def fail(message: str):
    raise InputError(message)


def full():
    raise OSError(errno.ENOSPC, "no room", "out")


def states():
    """Return a different state for each model, on the host."""
    config = override(preset("default"), SETTINGS)
    one = init_state(config, jax.random.key(0))
    factor = 1 + np.arange(N_MEMBERS * N_MACHINES).reshape(N_MEMBERS, N_MACHINES)
    return config, jax.tree.map(
        lambda leaf: (
            np.asarray(leaf) * factor.reshape(*factor.shape, *[1] * leaf.ndim)
        ).astype(leaf.dtype),
        one,
    )


def main(folder: Path) -> dict:
    start()
    number = jax.process_index()
    takes_signals = jax.config.jax_enable_preemption_service  # pyright: ignore
    config, host = states()
    placement = make_placement(list(range(1, N_MACHINES + 1)), N_MEMBERS)
    placed = placement.put(host, "model")
    same = [
        np.array_equal(a, b, equal_nan=True)
        for a, b in zip(
            jax.tree.leaves(placement.get(placed)), jax.tree.leaves(host), strict=True
        )
    ]
    clips = {f"machine{m}": [] for m in range(N_MACHINES)}
    kept = placement.get_to_save(placed)
    for epoch in (1, 2):
        save_training(folder, TrainCheckpoint(epoch, kept, config, clips))
    back = restore_training(folder)
    assert back is not None
    program = placement.over_models(lambda m, r: m.sum() + r, ["machine", "model"])
    sums = program(
        placement.put(np.arange(N_MACHINES * 2.0).reshape(N_MACHINES, 2), "machine"),
        placement.put(np.arange(15.0).reshape(N_MEMBERS, N_MACHINES), "model"),
    )
    return {
        "is_first": is_first(),
        "slots": list(placement.machine_slots),  # pyright: ignore
        "comes_back": all(same),
        "n_here": len(jax.tree.leaves(placed)[0].addressable_shards),
        "sums": placement.get(sums).tolist(),
        "restored_epoch": back.epoch,
        "told": on_first(lambda: {"from": number}),
        "jax_takes_signals": takes_signals,
        "own": together(lambda: number),
        "first_fails": error_of(lambda: on_first(lambda: fail("full"))),
        "disk_is_full": error_of(lambda: on_first(full)),
        "another_is_full": error_of(lambda: together(full if number else int)),
        "signal": any_process("SIGTERM" if number else ""),
        "no_signal": any_process(""),
        "second_fails": error_of(
            lambda: together(lambda: fail("no file") if number else None)
        ),
        "both_fail": error_of(lambda: together(lambda: fail(f"bad {number}"))),
        "differ": error_of(lambda: require_same(number, "not the same")),
        "equal": error_of(lambda: require_same([1, "é"], "not the same")),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
