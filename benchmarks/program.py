"""List the operations of the training program that an accelerator may run serially.

These are loops, scatters, gathers, sorts, custom calls and transfers to the host. The
list names the function that each comes from. The program is lowered for CUDA, which
works on any computer, but is not compiled or run.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# A script that is run by its path can import only from its own folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import numpy as np

from benchmarks.accelerator_page import LISTING, listed_cells
from benchmarks.log_mels import synthetic_machines
from benchmarks.script import parser, positive, run_script, show, write
from benchmarks.training import PRESET_OF_MODEL, configuration
from gammavae_jax.data.arrays import TRAIN
from gammavae_jax.devices.placement import in_float32
from gammavae_jax.training.epoch import train_epoch
from gammavae_jax.training.members import member_numbers
from gammavae_jax.training.step import init_state, model_key

_DIALECT = "stablehlo."
_LISTED = (
    *("while", "scatter", "select_and_scatter", "gather", "sort", "custom_call"),
    *("infeed", "outfeed", "send", "recv"),
)
# The program does not depend on the amount of data, so a little data is enough.
_CLIPS, _FRAMES = 2, 40
_FRAME = re.compile(r'"([^"]+)"\("([^"]+)":(\d+):')


class Frame(NamedTuple):
    """A function in the source code, and the line in it that led to an operation."""

    function: str
    file: str
    line: int


class Operation(NamedTuple):
    """A listed operation of a lowered program.

    Attributes:
        name: the operation in StableHLO; a custom call also has its target.
        function: the function that contains the operation, and its caller.
        line: the innermost line of the package that leads to it, or "".
        depth: the number of loops around the operation.
        shapes: the shapes of the results; for a loop, only their number.
        trip_count: a loop's number of iterations, or None if it is computed.
        selected_arrays: how many arrays of a loop's carry each iteration copies with
            `select`, because other models may already have finished.
        body: the number of a loop's operations by name, including those of its
            condition and of the functions that it calls.
    """

    name: str
    function: str
    line: str
    depth: int
    shapes: str
    trip_count: int | None = None
    selected_arrays: int = 0
    body: Mapping[str, int] = {}


def lowered_epoch(model: str, machines: int, seeds: int, batch_size: int) -> Any:
    """Lower an epoch of all models, batched as on an accelerator, for CUDA."""
    config = configuration(model, seeds, batch_size)
    arrays = synthetic_machines(machines, _CLIPS, _FRAMES)
    group = np.full((seeds, *arrays.window_start.shape), TRAIN, np.uint8)
    members, numbers = member_numbers(config), np.ones(seeds, np.int32)

    def init(member, data):
        return init_state(config, model_key(member, data.name_hash))

    def epoch(member, number, state, data, group):
        key = model_key(member, data.name_hash)
        return train_epoch(config, key, number, state, data, group)

    over_seeds = jax.vmap(init, (0, None))
    states = jax.eval_shape(jax.vmap(over_seeds, (None, 0), 1), members, arrays)
    over_seeds = jax.vmap(epoch, (0, 0, 0, None, 0))
    over_both = jax.vmap(over_seeds, (None, None, 1, 0, 1), 1)
    return lowered_for_cuda(over_both, members, numbers, states, arrays, group)


def lowered_for_cuda(function: Any, *arguments: Any) -> Any:
    """Lower a function for CUDA, in float32 like the package; no GPU is needed."""
    option = "jax_traceback_in_locations_limit"
    usual = getattr(jax.config, option)
    jax.config.update(option, -1)  # keep all callers of each operation
    try:
        traced = jax.jit(in_float32(function)).trace(*arguments)
        return traced.lower(lowering_platforms=("cuda",))
    finally:
        jax.config.update(option, usual)


def listing(lowered: Any) -> list[Operation]:
    """Return the listed operations of a lowered program, in the program's order."""
    module = lowered.compiler_ir("stablehlo")
    functions = {op.attributes["sym_name"].value: op for op in module.body.operations}
    return list(_listed(functions["main"], functions, (), 0))


def list_training(model: str, machines: int, batch_size: int) -> list[dict[str, Any]]:
    """Return the listing of a model's training epoch as records for a JSON file."""
    lowered = lowered_epoch(model, machines, 1, batch_size)
    return [operation._asdict() for operation in listing(lowered)]


def _listed(
    op: Any, functions: Mapping[str, Any], callers: Sequence[Frame], depth: int
) -> Iterator[Operation]:
    """Yield the listed operations inside an operation and in the functions it calls."""
    for inner in _inside(op):
        name = inner.operation.name.removeprefix(_DIALECT)
        frames = (*_frames(inner), *callers)
        if name in _LISTED:
            yield _operation(inner, name, functions, frames, depth)
        if name == "while":
            yield from _listed(inner, functions, callers, depth + 1)
        elif callee := _callee(inner, functions):
            yield from _listed(callee, functions, frames, depth)
        elif name not in _LISTED:
            yield from _listed(inner, functions, callers, depth)


def _operation(
    op: Any,
    name: str,
    functions: Mapping[str, Any],
    frames: Sequence[Frame],
    depth: int,
) -> Operation:
    own = [frame for frame in frames if "/gammavae_jax/" in frame.file]
    place = own[0] if own else None
    found = Operation(
        name,
        " < ".join(frame.function.rpartition(".")[2] for frame in frames[:2]),
        f"{_in_package(place.file)}:{place.line}" if place else "",
        depth,
        ", ".join(_shape(result) for result in op.results),
    )
    if name == "custom_call":
        target = op.attributes["call_target_name"].value
        return found._replace(name=f"custom_call {target}")
    if name != "while":
        return found
    return found._replace(
        shapes=f"{len(op.results)} arrays",
        trip_count=_trip_count(op),
        selected_arrays=_selected_arrays(op),
        body=_counts(op, functions),
    )


def _inside(op: Any) -> Iterator[Any]:
    for region in op.regions:
        for block in region.blocks:
            yield from block.operations


def _callee(op: Any, functions: Mapping[str, Any]) -> Any | None:
    if op.operation.name != "func.call":
        return None
    return functions[op.attributes["callee"].value]


def _frames(op: Any) -> list[Frame]:
    """Return the functions that led to an operation, the innermost first."""
    found = _FRAME.findall(str(op.location))
    return [Frame(function, file, int(line)) for function, file, line in found]


def _in_package(file: str) -> str:
    return file.rpartition("/gammavae_jax/")[2]


def _shape(value: Any) -> str:
    return str(value.type).removeprefix("tensor<").removesuffix(">")


def _terminator(region: Any) -> Any:
    return list(region.blocks[0].operations)[-1]


def _trip_count(loop: Any) -> int | None:
    """Return the iterations of a loop that counts to a constant in steps of one."""
    condition, body = loop.regions
    compare = _terminator(condition).operands[0].owner
    if getattr(compare, "name", "") != "stablehlo.compare":
        return None
    if "LT" not in str(compare.attributes["comparison_direction"]):
        return None
    counter, limit = compare.operands
    arguments = list(condition.blocks[0].arguments)
    if counter not in arguments:
        return None
    place = arguments.index(counter)
    added = _terminator(body).operands[place].owner
    if getattr(added, "name", "") != "stablehlo.add":
        return None
    steps = [_constant(value) for value in added.operands]
    first, last = _constant(loop.operands[place]), _constant(limit)
    if first is None or last is None or 1 not in steps:
        return None
    return max(last - first, 0)


def _constant(value: Any) -> int | None:
    """Return the value of a constant whole number, or None for anything else."""
    if getattr(value.owner, "name", "") != "stablehlo.constant":
        return None
    stored = np.array(value.owner.attributes["value"])
    is_whole = stored.size == 1 and np.issubdtype(stored.dtype, np.integer)
    return int(stored.reshape(())) if is_whole else None


def _selected_arrays(loop: Any) -> int:
    results = _terminator(loop.regions[1]).operands
    owners = [getattr(result.owner, "name", "") for result in results]
    return owners.count("stablehlo.select")


def _counts(op: Any, functions: Mapping[str, Any]) -> dict[str, int]:
    """Count the operations inside an operation, and in the functions that it calls."""
    counts: Counter[str] = Counter()
    for inner in _inside(op):
        callee = _callee(inner, functions)
        if callee is None:
            counts[_counted_as(inner)] += 1
        counts.update(_counts(callee or inner, functions))
    return dict(counts)


def _counted_as(op: Any) -> str:
    """Return an operation's name; products with a vector have their own name."""
    name = op.operation.name.removeprefix(_DIALECT)
    if name != "dot_general":
        return name
    ranks = [value.type.rank for value in op.operands]
    n_batch_axes = sum(ranks) - op.results[0].type.rank - 2  # one axis is contracted
    return name + (" with a vector" if min(ranks) == n_batch_axes + 1 else "")


def main() -> int:
    options = parser(__doc__, rounds=None, warm_up=None)
    add = options.add_argument
    add("--models", nargs="+", choices=PRESET_OF_MODEL, default=[*PRESET_OF_MODEL],
        metavar="NAME", help="autoencoder or gammavae (default: both)")  # fmt: skip
    add("--machines", type=positive, default=7, metavar="N", help="default: 7")
    add("--batch-size", type=positive, default=256, metavar="B", help="default: 256")
    parsed = options.parse_args()
    found = {
        model: list_training(model, parsed.machines, parsed.batch_size)
        for model in parsed.models
    }
    write(parsed.json, {"program": found})
    for model, operations in found.items():
        title = f"{model}: operations that may run serially"
        show(title, LISTING, map(listed_cells, operations))
    return 0


if __name__ == "__main__":
    run_script(main)
