"""The generated section on growth in `docs/scaling.md`: tables, slopes and reasons."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.scaling_page import number, table

BEGIN, END = "<!-- growth: begin -->", "<!-- growth: end -->"
COMMANDS = ("fit", "score")
CLEARLY_ABOVE = 1.15  # proportional growth has a slope of 1
_SMALL_SHARE = 0.1  # stages with a smaller share of the growth are not named
_LEAST_CPU_S = 0.05  # the slope of a stage that took less is mostly noise
_TITLES = {
    "machines": "Machines",
    "clips": "Training clips",
    "seconds": "Length of a clip",
    "scored": "Clips to score",
}
_HEADS = {
    "machines": "machines",
    "clips": "training clips",
    "seconds": "seconds",
    "scored": "clips to score",
}
_STAGES = {
    "load": "reading recordings",
    "features": "log-mels",
    "links": "finding linked clips",
    "split": "forming folds",
    "training": "training",
    "fits": "reference sets and held-out scores",
    "scores": "scores",
    "page": "writing the detector",
    "rest": "everything else",
}
_COSTS = {
    "wall_s": "s",
    "cpu_s": "CPU s",
    "work_cpu_s": "work, CPU s",
    "peak_memory_bytes": "peak memory, MB",
}
_MEMORY_REASONS = {
    ("clips", "fit"): "links, distances and peaks of correlations are matrices of all "
    "pairs of training clips (`training/links.py`, `training/split.py`)",
}
# Why a stage takes more than proportional time if one thing grows.
_REASONS = {
    ("clips", "links"): "every pair of training clips is compared, in order to find "
    "shared audio (`training/links.py`)",
    (
        "clips",
        "split",
    ): "similar clips are clustered by average linkage, which needs the "
    "distance of every pair (`training/split.py`)",
    ("clips", "fits"): "the radius and the held-out score of each training clip depend "
    "on its distances to all others (`scoring/radii.py`, `scoring/neighbours.py`)",
    ("seconds", "links"): "shared audio is found by a Fourier transform of a clip's "
    "frames, `n log n` operations for `n` frames (`training/links.py`)",
}


def slope(size0: float, value0: float, size1: float, value1: float) -> float:
    """Return the slope between two points on logarithmic axes: 1 if proportional."""
    return math.log(max(value1, 1e-9) / max(value0, 1e-9)) / math.log(size1 / size0)


def expected(sizes: Sequence[float], values: Sequence[float], size: float) -> float:
    """Return the value expected at a larger size: along the last slope, from 1 to 2."""
    exponent = 1.0
    if len(sizes) > 1:
        exponent = slope(sizes[-2], values[-2], sizes[-1], values[-1])
    return values[-1] * (size / sizes[-1]) ** min(max(exponent, 1.0), 2.0)


def growth_page(record: dict[str, Any]) -> str:
    """Return the figures of `benchmarks/growth.py` as Markdown."""
    parts = [_conditions(record)]
    for axis, results in record["results"].items():
        parts += [f"### {_TITLES[axis]}", _table(axis, results)]
        parts += _remarks(axis, results, record["left_out"][axis])
    return "\n\n".join(parts) + "\n"


def _conditions(record: dict[str, Any]) -> str:
    about, usual = record["environment"], record["usual"]
    return (
        f"Measured on {about['cores']} cores ({about['processor']}), device "
        f"`{about['device']}`, Python {about['python']}, JAX "
        f"{about['packages']['jax']}, load {about['load_average_before']:.1f} at the "
        "beginning. Unless stated otherwise, `gammavae fit` trains on "
        f"{usual['machines']} machine with {usual['clips']} recordings of noise of "
        f"{usual['seconds']} s, which are not cut, with {record['folds']} models for "
        f"one epoch; then `gammavae score` scores {usual['scored']} new recording of "
        "the same length with that detector. Each command ran once, in its own "
        "process, with an empty cache of compiled programs. *Work* is the CPU time "
        "without imports, compilation and exit. The *last slope* is the exponent of "
        "growth from the second largest size to the largest: 1 if cost grows in "
        "proportion, 2 if it grows with the square."
    )


def _table(axis: str, results: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table of the costs at each size.

    Its last row contains the slopes between the two largest sizes.
    """
    rows = [
        [f"{found['size']:,}"]
        + [_cell(name, _cost(found, of, name)) for of in COMMANDS for name in _COSTS]
        for found in results
    ]
    if len(results) > 1:
        before, last = results[-2:]
        slopes = (_slope(before, last, of, name) for of in COMMANDS for name in _COSTS)
        rows.append(["*last slope*", *(f"{value:.2f}" for value in slopes)])
    kinds = _COSTS.values()
    head = [_HEADS[axis], *(f"{of}: {kind}" for of in COMMANDS for kind in kinds)]
    return table(head, rows)


def _cell(name: str, value: float) -> str:
    if name == "work_cpu_s" and value < 100:
        return f"{value:.2f}"
    return number(value / 1e6 if name == "peak_memory_bytes" else value)


def _remarks(
    axis: str, results: Sequence[Mapping[str, Any]], left_out: Sequence[int]
) -> Iterator[str]:
    """Yield a sentence for each cost that grows faster than linearly.

    A last sentence names the sizes that were not measured, if any.
    """
    for command in COMMANDS if len(results) > 1 else ():
        before, last = results[-2:]
        steepness = _slope(before, last, command, "work_cpu_s")
        if steepness > CLEARLY_ABOVE:
            stages = "; ".join(_stages(axis, before, last, command)) or "no stage alone"
            yield (
                f"**The work of `gammavae {command}` grows faster than linearly** "
                f"(slope {steepness:.2f}). Cause: {stages}."
            )
        steepness = _slope(before, last, command, "peak_memory_bytes")
        if steepness > CLEARLY_ABOVE:
            reason = _MEMORY_REASONS.get((axis, command), "")
            yield (
                f"**The memory of `gammavae {command}` grows faster than linearly** "
                f"(slope {steepness:.2f})." + (reason and f" Cause: {reason}.")
            )
    if left_out:
        sizes = ", ".join(f"{size:,}" for size in left_out)
        reason = "they would take too long or too much memory"
        yield f"Not measured, because {reason}: {sizes}."


def _stages(
    axis: str, before: Mapping[str, Any], last: Mapping[str, Any], command: str
) -> Iterator[str]:
    """Describe the stages that grow faster than linearly, largest first."""
    old, new = (found[command]["stages"] for found in (before, last))
    added = last[command]["work_cpu_s"] - before[command]["work_cpu_s"]
    for stage in sorted(_STAGES, key=lambda name: -new[name]["cpu_s"]):
        growth = new[stage]["cpu_s"] - old[stage]["cpu_s"]
        sizes = before["size"], last["size"]
        steepness = slope(sizes[0], old[stage]["cpu_s"], sizes[1], new[stage]["cpu_s"])
        if growth > _SMALL_SHARE * added and steepness > CLEARLY_ABOVE:
            cost = f"{number(new[stage]['cpu_s'])} CPU s"
            if old[stage]["cpu_s"] > _LEAST_CPU_S:
                cost += f", slope {steepness:.2f}"
            reason = _REASONS.get((axis, stage), "")
            yield f"{_STAGES[stage]} ({cost})" + (reason and f", because {reason}")


def _cost(found: Mapping[str, Any], command: str, name: str) -> float:
    return found[command][name]


def _slope(
    before: Mapping[str, Any], found: Mapping[str, Any], command: str, name: str
) -> float:
    value0, value1 = (_cost(each, command, name) for each in (before, found))
    return slope(before["size"], value0, found["size"], value1)
