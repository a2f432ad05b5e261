"""The Markdown page of `benchmarks/accelerator.py`, and its table of operations."""

from collections.abc import Mapping
from typing import Any

from benchmarks.scaling_page import number, table

LISTING = ("operation", "loops around it", "function < caller", "line", "result",
           "iterations", "operations inside", "selected arrays")  # fmt: skip


def accelerator_page(record: dict[str, Any]) -> str:
    """Return the figures as Markdown; parts that were left out have no section."""
    sections = {
        "grid": _grid,
        "peer": _peer,
        "main_job": _main_job,
        "trace": _trace,
        "program": _program,
    }
    found = [make(record) for name, make in sections.items() if record.get(name)]
    return "\n\n".join(["# Figures of one device", _conditions(record), *found]) + "\n"


def listed_cells(found: Mapping[str, Any]) -> list[str]:
    """Return an operation of the listing as the cells of `LISTING`."""
    cells = [found["name"], str(found["depth"]), found["function"], found["line"]]
    cells.append(found["shapes"])
    if found["name"] != "while":
        return [*cells, "", "", ""]
    trips = found["trip_count"]
    n_inside = sum(found["body"].values())
    return [
        *cells,
        "computed" if trips is None else str(trips),
        f"{n_inside:,}",
        str(found["selected_arrays"]),
    ]


def _conditions(record: dict[str, Any]) -> str:
    about, settings = record["environment"], record["settings"]
    rows = [[name, f"{s:.0f}"] for name, s in record["seconds_of_parts"].items()]
    rows.append(["total", f"{record['total_s']:.0f}"])
    text = (
        f"Measured on `{about['device']}` with {about['cores']} cores "
        f"({about['processor']}), Python {about['python']}, JAX "
        f"{about['packages']['jax']}, PyTorch {about['torch'] or 'not installed'}, "
        f"load {about['load_average_before']:.1f} before the start. The data are "
        f"{record['data']}. Unless stated otherwise, there are {settings['machines']} "
        f"machines with {settings['clips']} clips of {settings['frames']} frames. "
        f"Rounds: {settings['warm_up']} as a warm-up, then {settings['rounds']} "
        "measured; times are their medians.\n\n"
    )
    text += table(["part", "s"], rows)
    for name, error in record["errors"].items():
        text += f"\n\n`{name}` failed:\n\n```\n{error.strip()}\n```"
    return text


def _grid(record: dict[str, Any]) -> str:
    head = ["model", "machines", "seeds", "batch", "precision", "windows/s",
            "ms per epoch", "lowering, s", "compilation, s", "arrays, MB",
            "peak, MB"]  # fmt: skip
    rows, missing = [], []
    for found in record["grid"]:
        case = [found["model"], str(found["machines"]), str(found["seeds"]),
                str(found["batch_size"]), found["precision"]]  # fmt: skip
        if "error" in found:
            missing.append(f"- {', '.join(case)}: {found['error']}")
            continue
        rows.append([
            *case,
            number(found["windows_per_s"]),
            number(1e3 * found["seconds"]["median"]),
            number(found["lowering_s"]),
            number(found["compile_s"]),
            number(found["device_bytes"] / 1e6),
            _megabytes(found["device_peak_bytes"]),
        ])  # fmt: skip
    text = "## Training\n\n" + table(head, rows)
    text += (
        "\n\nThe peak is that of the whole process, so it is given only for cases that "
        "raised it. CPUs do not report it."
    )
    if missing:
        text += "\n\nNot measured (model, machines, seeds, batch, precision):\n\n"
        text += "\n".join(missing)
    return text + _seeds(record["grid"])


def _seeds(grid: list[dict[str, Any]]) -> str:
    """Compare the time of several seeds with that of one, in otherwise equal cases."""

    def others(found):
        names = "model", "machines", "batch_size", "precision"
        return tuple(found[name] for name in names)

    measured = [found for found in grid if "error" not in found]
    one = {others(f): f["seconds"]["median"] for f in measured if f["seeds"] == 1}
    rows = [
        [*map(str, others(f)), str(f["seeds"]),
         f"{f['seconds']['median'] / one[others(f)]:.2f}"]
        for f in measured
        if f["seeds"] > 1 and others(f) in one
    ]  # fmt: skip
    head = ["model", "machines", "batch", "precision", "seeds", "relative time"]
    return "\n\n" + table(head, rows) if rows else ""


def _peer(record: dict[str, Any]) -> str:
    found = record["peer"]
    careful = found["peers"]["careful"]
    ratio = found["ratio_spread"]["careful"]
    rates = careful["windows_per_s_in_warm_up"]
    forms = "\n".join(f"- `{form}`: {number(rate)}" for form, rate in rates.items())
    return (
        f"## The careful peer\n\n{found['model']}, {found['machines']} machines, batch "
        f"{found['batch_size']}: {number(found['windows_per_s'])} windows/s, "
        f"{ratio['median']:.2f} times the rate of the fastest form of the peer "
        f"(`{careful['form']}`, {number(careful['windows_per_s'])} windows/s; "
        f"{ratio['min']:.2f} to {ratio['max']:.2f} times over the rounds) and "
        f"{found['fraction_of_matmul_rate']:.3f} of the matmul rate "
        f"({number(found['matmul_gflops'])} GFLOP/s). The forms' best rates in the "
        "warm-up, in windows/s:\n\n"
    ) + forms


def _main_job(record: dict[str, Any]) -> str:
    found = record["main_job"]
    rows = [["whole process", number(found["wall_s"])]]
    rows += [
        [stage.removesuffix("_s"), number(seconds)]
        for stage, seconds in found["timing"].items()
        if stage != "windows_per_s"
    ]
    windows_per_s = number(found["timing"]["windows_per_s"])
    return (
        f"## The main job\n\nPreset `{found['preset']}`, {found['machines']} machines "
        f"with {found['clips']:,} training clips of {found['seconds_of_clip']:g} s, "
        f"{found['epochs']} epochs, with an empty compilation cache: {windows_per_s} "
        "windows/s in training; peak memory of the host "
        f"{number(found['peak_memory_bytes'] / 1e6)} MB. Writing the recordings took "
        f"{found['making_recordings_s']:.0f} s and is not included.\n\n"
        + table(["stage", "s"], rows)
    )


def _trace(record: dict[str, Any]) -> str:
    found = record["trace"]
    kinds = [[kind, f"{100 * share:.1f} %"] for kind, share in found["kinds"].items()]
    operations = [
        [
            f"`{operation['name']}`",
            operation["kind"],
            f"{operation['calls']:,}",
            f"{1e3 * operation['seconds']:.2f}",
            f"{100 * operation['share']:.1f} %",
        ]
        for operation in found["operations"]
    ]
    return (
        f"## One epoch, traced\n\n{found['model']}, {found['machines']} machines, "
        f"batch {found['batch_size']}: {found['events']:,} operations in "
        f"{1e3 * found['span_s']:.1f} ms. For {100 * found['idle_share']:.0f} % of "
        "this time, no operation ran. An operation's own time excludes the operations "
        "inside it. The shares are relative to the sum of these times.\n\n"
        + table(["kind", "share"], kinds)
        + "\n\n"
        + table(["operation", "kind", "calls", "ms", "share"], operations)
    )


def _program(record: dict[str, Any]) -> str:
    tables = [
        f"### {model}\n\n" + table(LISTING, map(listed_cells, operations))
        for model, operations in record["program"].items()
    ]
    return "\n\n".join(["## Operations that may run serially", *tables])


def _megabytes(size: int | None) -> str:
    return "" if size is None else number(size / 1e6)
