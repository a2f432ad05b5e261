"""Runs side by side: what each variant of a model scores, as tables."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.csv_files import escape_formula
from gammavae_jax.evaluation.tables import percent
from gammavae_jax.files import write_text
from gammavae_jax.runs.folder import last_epoch

# Scores that ask no model. They depend on folds alone; the first variant's are shown.
MODEL_FREE = ("spectrum_neighbour", "spectrum_density")
_COLUMNS = (
    "fusion_mean",
    "residual_density",
    "residual_neighbour",
    "peak_density",
    "mse",
    "mse_top",
    "mahalanobis",
    "mahalanobis_framewise",
)
_METRICS = ("auc_source", "auc_target", "pauc", "fpr_source", "fpr_target")


def write_comparison(out: Path, titles: Mapping[str, str]) -> str:
    """Write `ablation.md` and `ablation.csv` of the runs in `out`; returns the former.

    `titles` names the variants, each the folder of a run; the first one's scores are
    shown machine by machine, too.

    Raises:
        InputError: a run is of other machines than the first.
    """
    summaries = {name: _read_json(out / name / "summary.json") for name in titles}
    first = next(iter(titles))
    for name, summary in summaries.items():
        if summary["machines"].keys() != summaries[first]["machines"].keys():
            raise InputError(
                f"{str(out / name)!r} is of other machines than {str(out / first)!r}: "
                "say --overwrite, or give another --out"
            )
    parts = [
        "Official score in percent, mean ± standard deviation over seeds.",
        _markdown(_variant_lines(summaries, titles)),
        f"Every score of the variant {titles[first]}:",
        _markdown(_score_lines(summaries[first])),
        "Of the last epoch, means over machines and members: training loss, loss of "
        "held-out clips, and how much the code tells (of so many latents, those whose "
        "posterior mean varies by more than 0.01; nats a latent).",
        _markdown(_diagnostic_lines(out, titles)),
    ]
    text = "\n\n".join(parts) + "\n"
    write_text(out / "ablation.md", text)
    write_text(out / "ablation.csv", _every_number(summaries))
    return text


def _variant_lines(
    summaries: Mapping[str, Any], titles: Mapping[str, str]
) -> list[list[str]]:
    lines = [["variant", *_COLUMNS, "FPR source", "FPR target", "training, s"]]
    free = summaries[next(iter(titles))]["official_score"]
    lines += [[f"no model: {name}", percent(free[name])] for name in MODEL_FREE]
    for name, title in titles.items():
        summary = summaries[name]
        score = summary["official_score"]
        means = summary["arithmetic_means"]["fusion_mean"]
        lines.append(
            [
                title,
                *(percent(score[c]) if c in score else "" for c in _COLUMNS),
                percent(means["fpr_source"]),
                percent(means["fpr_target"]),
                _seconds(summary["timing"]["train_s"]),
            ]
        )
    return [line + [""] * (len(lines[0]) - len(line)) for line in lines]


def _seconds(seconds: float) -> str:
    """Whole ones; none where nothing was trained."""
    return f"{seconds:.0f}" if seconds >= 1 else ""


def _score_lines(summary: Any) -> list[list[str]]:
    """A line a score: official score, then source / target / pAUC of each machine."""
    machines = summary["machines"]
    lines = [["score", "official score", *machines]]
    for score, official in summary["official_score"].items():
        cells = [
            " / ".join(f"{100 * of[score][m]['mean']:.1f}" for m in _METRICS[:3])
            for of in machines.values()
        ]
        lines.append([score, percent(official), *cells])
    return lines


def _diagnostic_lines(out: Path, titles: Mapping[str, str]) -> list[list[str]]:
    lines = [["variant", "loss", "held-out loss", "active units", "KL a latent"]]
    for name, title in titles.items():
        machines = last_epoch(out / name)
        cells = []
        for value in ("loss", "held_out_loss", "active_units", "kl_per_latent"):
            known = list(_numbers(m[value] for m in machines.values()))
            cells.append(f"{sum(known) / len(known):.3g}" if known else "")
        lines.append([title, *cells])
    return lines


def _every_number(summaries: Mapping[str, Any]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["variant", "score", "machine", "metric", "mean", "std"])
    for variant, summary in summaries.items():
        for score, spread in summary["official_score"].items():
            row = [variant, score, "", "official_score"]
            writer.writerow([*row, spread["mean"], spread["std"]])
        for machine, scores in summary["machines"].items():
            for score, metrics in scores.items():
                for metric in _METRICS:
                    spread = metrics[metric]
                    row = [variant, score, escape_formula(machine), metric]
                    writer.writerow([*row, spread["mean"], spread["std"]])
    return text.getvalue()


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    header, *body = lines
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *body))


def _numbers(tree: Any) -> Iterable[float]:
    """All numbers in nested lists; null is left out."""
    if isinstance(tree, int | float):
        yield tree
    elif tree is not None:
        for branch in tree:
            yield from _numbers(branch)


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
