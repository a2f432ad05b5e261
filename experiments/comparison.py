"""Compares variants of a model: runs each once and writes tables of their scores."""

import csv
import io
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gammavae_jax.config import MODEL_FREE_STATISTICS, RULES, Config
from gammavae_jax.config_json import to_dict, to_json
from gammavae_jax.data.arrays import is_anomaly
from gammavae_jax.data.loading import Source, find_all
from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.csv_files import escape_formula
from gammavae_jax.evaluation.tables import percent
from gammavae_jax.files import write_text
from gammavae_jax.log import Log
from gammavae_jax.runs.folder import RunFolder, is_finished, last_epoch, locked_folder
from gammavae_jax.runs.run import run

# The files to copy from another run, if a variant uses that run's trained models.
_TRAINING = ("metrics.jsonl", "checkpoint/train")
# These scores use no model, so they are the same for all variants.
MODEL_FREE = tuple(
    f"{statistic}_{rule}" for statistic in MODEL_FREE_STATISTICS for rule in RULES
)
_COLUMNS = (
    "fusion_mean",
    "fusion_smooth_max",
    "residual_varmin",
    "residual_density",
    "residual_neighbour",
    "peak_density",
    "mse",
    "mse_top",
    "mahalanobis",
    "mahalanobis_framewise",
)
_METRICS = ("auc_source", "auc_target", "pauc", "fpr_source", "fpr_target")


def run_variant(
    config: Config,
    source: Source,
    folder: RunFolder,
    year: int | None,
    models: Path | None,
    log: Log,
) -> bool:
    """Run a variant in its folder, unless it is finished; resume it if interrupted.

    Args:
        config: the variant's configuration.
        source: the recordings.
        folder: the run folder for the results.
        year: the challenge year whose metrics are used; None infers it from the layout.
        models: the folder of a run whose trained models are rescored, or None.
        log: receives the progress and the results.

    Returns:
        Whether every model was trained to the end.

    Raises:
        InputError: a test clip has no label, or the folder contains another run; see
            also `run`.
    """
    require_labels(source)
    path = folder.path / "config.json"
    stored = _read_json(path)
    if stored is not None and not folder.overwrite:
        if stored != to_dict(config):
            raise InputError(
                f"{str(folder.path)!r} was run with other settings: add --overwrite or "
                "choose another folder for --out"
            )
        if is_finished(folder.path):
            return True
        folder = folder._replace(resume=True)
    elif models is not None:
        with locked_folder(*folder):
            pass  # only check that the folder is not locked and may be replaced
        _copy_training(models, folder.path, config)
        folder = folder._replace(resume=True, overwrite=False)
    return run(config, source, folder, year, log)


def require_labels(source: Source) -> None:
    """Raise an InputError if the name of any test clip has no label."""
    for machine in find_all(source, ["test"]):
        if is_anomaly(machine.test) is None:
            raise InputError(
                f"some test clips of {machine.name} have neither 'normal' nor "
                "'anomaly' in their names, so no metric can be computed: choose other "
                "machines with --machines"
            )


def _copy_training(models: Path, out: Path, config: Config) -> None:
    """Copy the training state of another run to `out`, atomically."""
    unfinished = out.with_name(f".{out.name}.unfinished")
    for folder in (unfinished, out):
        if folder.exists():
            shutil.rmtree(folder)
    for name in _TRAINING:
        source, copy = models / name, unfinished / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, copy)
    write_text(unfinished / "config.json", to_json(to_dict(config)))
    unfinished.rename(out)


def write_comparison(out: Path, titles: Mapping[str, str]) -> str:
    """Write `ablation.md` and `ablation.csv` for the runs in `out`.

    Args:
        out: the folder that contains the run folder of each variant.
        titles: the title of each variant, by folder name. The first variant's scores
            are also shown machine by machine.

    Returns:
        The text of `ablation.md`.

    Raises:
        InputError: a run has machines other than those of the first run.
    """
    summaries = {name: _read_json(out / name / "summary.json") for name in titles}
    headlines = {n: _read_json(out / n / "config.json")["score"] for n in titles}
    first = next(iter(titles))
    for name, summary in summaries.items():
        if summary["machines"].keys() != summaries[first]["machines"].keys():
            raise InputError(
                f"{str(out / name)!r} has other machines than {str(out / first)!r}: "
                "add --overwrite or choose another folder for --out"
            )
    parts = [
        "Official score in percent, mean ± standard deviation over seeds.",
        _markdown(_variant_lines(summaries, headlines, titles)),
        f"Every score of the variant {titles[first]}:",
        _markdown(_score_lines(summaries[first])),
        "Means over machines and members in the last epoch: training loss, loss of the "
        "held-out clips, active latents (those whose posterior mean varies by more "
        "than 0.01), and divergence per latent in nats.",
        _markdown(_diagnostic_lines(out, titles)),
    ]
    text = "\n\n".join(parts) + "\n"
    write_text(out / "ablation.md", text)
    write_text(out / "ablation.csv", _all_numbers_csv(summaries))
    return text


def _variant_lines(
    summaries: Mapping[str, Any],
    headlines: Mapping[str, str],
    titles: Mapping[str, str],
) -> list[list[str]]:
    """Return a row per variant; the false-alarm rates are for its headline score."""
    lines = [["variant", *_COLUMNS, "FPR source", "FPR target", "training, s"]]
    free = summaries[next(iter(titles))]["official_score"]
    lines += [
        [f"no model: {name}", percent(free[name])]
        for name in MODEL_FREE
        if name in free
    ]
    for name, title in titles.items():
        summary = summaries[name]
        score = summary["official_score"]
        means = summary["arithmetic_means"][headlines[name]]
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
    """Format a training time in whole seconds; return "" if nothing was trained."""
    return f"{seconds:.0f}" if seconds >= 1 else ""


def _score_lines(summary: Any) -> list[list[str]]:
    """Return a row per score: the official score, then three metrics per machine."""
    machines = summary["machines"]
    lines = [["score", "official score", *machines]]
    for score, official in summary["official_score"].items():
        cells = [
            " / ".join(f"{100 * scores[score][m]['mean']:.1f}" for m in _METRICS[:3])
            for scores in machines.values()
        ]
        lines.append([score, percent(official), *cells])
    return lines


def _diagnostic_lines(out: Path, titles: Mapping[str, str]) -> list[list[str]]:
    lines = [["variant", "loss", "held-out loss", "active units", "KL per latent"]]
    for name, title in titles.items():
        machines = last_epoch(out / name)
        cells = []
        for value in ("loss", "held_out_loss", "active_units", "kl_per_latent"):
            numbers = list(_numbers(m[value] for m in machines.values()))
            cells.append(f"{sum(numbers) / len(numbers):.3g}" if numbers else "")
        lines.append([title, *cells])
    return lines


def _all_numbers_csv(summaries: Mapping[str, Any]) -> str:
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
    """Yield all numbers in nested lists, skipping nulls."""
    if isinstance(tree, int | float):
        yield tree
    elif tree is not None:
        for branch in tree:
            yield from _numbers(branch)


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
