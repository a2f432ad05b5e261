"""The generated part of `docs/scaling.md`: tables of figures and a projection."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from gammavae_jax.errors import InputError

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
_FLEET = 10_000  # machines in the projection
_DEVICES = (1, 8, 64)
_DAY = 24.0  # hours


def scaling_page(record: dict[str, Any]) -> str:
    """Return the figures of `benchmarks/scaling.py` as Markdown."""
    return "\n\n".join(
        [
            _conditions(record),
            _machines(record),
            _clips(record),
            _devices(record),
            _projection(record),
        ]
    ) + "\n"  # fmt: skip


def show_page(
    figures: Path,
    into: Path | None,
    make: Callable[[dict[str, Any]], str],
    begin: str = BEGIN,
    end: str = END,
) -> int:
    """Print the section that `make` writes from figures, or put it into a page.

    Raises:
        InputError: the figures are not from the script, or the page lacks the markers.
    """
    try:
        text = make(json.loads(figures.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{str(figures)!r} contains no figures from this script: pass a file that "
            "--json has written"
        ) from error
    if into is None:
        print(text, end="")
    else:
        put_into(into, text, begin, end)
    return 0


def put_into(path: Path, text: str, begin: str = BEGIN, end: str = END) -> None:
    """Replace the text between two marker comments of a page.

    Raises:
        InputError: the page cannot be read or lacks the markers.
    """
    try:
        page = path.read_text(encoding="utf-8")
        before, rest = page.split(begin)
        _, after = rest.split(end)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{str(path)!r} lacks the markers for figures: pass a page with the lines "
            f"{begin!r} and {end!r}"
        ) from error
    path.write_text(f"{before}{begin}\n\n{text}\n{end}{after}", encoding="utf-8")


def _conditions(record: dict[str, Any]) -> str:
    about = record["environment"]
    return (
        f"Measured on {about['cores']} cores ({about['processor']}), device "
        f"`{about['device']}`, Python {about['python']}, JAX "
        f"{about['packages']['jax']}, load {about['load_average_before']:.1f} at the "
        "end. Unless stated otherwise, each synthetic machine has "
        f"{record['clips_of_fleet']} training and {record['test_clips']} test clips of "
        f"{record['seconds_of_clip']:g} s and {record['folds']} models, trained for "
        f"{record['epochs']} epochs in waves of {record['wave_size']}. Each run covers "
        "everything from recordings to pages in its own process, with programs already "
        "compiled. "
        "Fleets ran once; the other figures are medians of "
        f"{record['rounds']} runs."
    )


def _machines(record: dict[str, Any]) -> str:
    rows = [
        [
            f"{found['machines']:,}",
            f"{found['waves']:,}",
            number(found["wall_s"]),
            f"{found['wall_s'] / found['machines']:.2f}",
            number(found["peak_memory_bytes"] / 1e6),
        ]
        for found in record["machines"]
    ]
    head = ["machines", "waves", "s", "s per machine", "peak memory, MB"]
    return table(head, rows) + _flatness(record["machines"])


def _flatness(runs: list[dict[str, Any]]) -> str:
    """Describe how memory and time grow from the first run in waves to the last."""
    several = [found for found in runs if found["waves"] > 1]
    if len(several) < 2:
        return ""
    first, last = several[0], several[-1]
    memory = last["peak_memory_bytes"] / first["peak_memory_bytes"]
    machines = last["machines"] / first["machines"]
    seconds = last["wall_s"] / first["wall_s"]
    return (
        f"\n\nFrom {first['machines']:,} to {last['machines']:,} machines "
        f"({machines:g} times as many), peak memory grows by a factor of {memory:.2f} "
        f"and time by a factor of {seconds:.1f}."
    )


def _clips(record: dict[str, Any]) -> str:
    rows = [
        [
            f"{found['clips']:,}",
            number(found["wall_s"]),
            f"{found['timing']['train_s']:.2f}",
            number(found["timing"]["windows_per_s"]),
            number(found["peak_memory_bytes"] / 1e6),
        ]
        for found in record["clips"]
    ]
    n_machines = record["clips"][0]["machines"]
    head = [f"training clips of each of {n_machines} machines", "s", "training, s",
            "windows/s", "peak memory, MB"]  # fmt: skip
    return table(head, rows)


def _devices(record: dict[str, Any]) -> str:
    first = record["devices"][0]
    rows = [
        [
            f"{found['devices']}",
            number(found["wall_s"]),
            number(found["timing"]["windows_per_s"]),
            f"{_rate(found) / _rate(first):.2f}",
        ]
        for found in record["devices"]
    ]
    n_machines = first["machines"]
    head = [
        f"devices, {n_machines} machines",
        "s",
        "windows/s",
        "relative to the first",
    ]
    text = table(head, rows)
    if record["environment"]["platform"] == "cpu":
        text += (
            "\n\nThese devices share the same cores, and one device already uses "
            "all of them. The table shows what it costs to distribute machines over "
            "devices, not what more hardware gains."
        )
    return text


def _projection(record: dict[str, Any]) -> str:
    fixed, each = _line(record["machines"])
    rows = []
    fewest = record["clips"][0]  # as many clips as in the fleets
    for found in record["clips"]:
        # If more clips take less time, that is chance.
        more = max(found["wall_s"] - fewest["wall_s"], 0.0)
        cost = each + more / found["machines"]
        rows.append(
            [f"{found['clips']:,}", f"{cost:.2f}"]
            + [_time(fixed + cost * _FLEET / devices) for devices in _DEVICES]
        )
    head = ["training clips", "s per machine"]
    head += [f"{n} device{'s' if n > 1 else ''}" for n in _DEVICES]
    largest = record["machines"][-1]
    return (
        f"### {_FLEET:,} machines, projected\n\n"
        + table(head, rows)
        + f"""

These are projections, not measurements. They assume that

- a run takes {fixed:.1f} s plus {each:.2f} s for each machine, according to the line
  through the smallest and the largest measured fleet
  ({record["machines"][0]["machines"]:,} and {largest["machines"]:,} machines); if there
  are more clips, it also takes the extra time that they cost, if any, per machine in a
  run of {fewest["machines"]} machines;
- each device is like the one measured here and has its own host with as many cores; on
  an accelerator, both times differ and have to be measured;
- machines are distributed evenly over the devices, each device runs its own waves and
  none waits for another, since models of different machines exchange nothing;
- recordings are read as fast by many hosts as by one: limits of shared storage are not
  included;
- the time spent in training is proportional to epochs and models; its share of a run is
  {_share(largest):.0f} % here. The default has 20 epochs and 5 models, not
  {record["epochs"]} and {record["folds"]}."""
    )


def _line(runs: list[dict[str, Any]]) -> tuple[float, float]:
    """Return the fixed seconds of a run, and the seconds for each machine."""
    first, last = runs[0], runs[-1]
    n = last["machines"] - first["machines"]
    each = (last["wall_s"] - first["wall_s"]) / n if n else first["wall_s"]
    return max(first["wall_s"] - each * first["machines"], 0.0), each


def _share(found: dict[str, Any]) -> float:
    return 100 * found["timing"]["train_s"] / found["wall_s"]


def _rate(found: dict[str, Any]) -> float:
    return found["timing"]["windows_per_s"]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table, aligned to the right."""
    lines = [head, ["---:"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float) -> str:
    """Format a number: with one decimal below 100, and without decimals above."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _time(seconds: float) -> str:
    """Format a duration in a convenient unit."""
    hours = seconds / 3600
    if hours >= 2 * _DAY:
        return f"{hours / _DAY:.1f} days"
    if hours >= 2:
        return f"{hours:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
