"""Folders that look like finished runs, and the contents of real runs."""

import csv
import json

from gammavae_jax.config_json import to_dict
from gammavae_jax.evaluation.metrics import METRICS
from gammavae_jax.files import text_checksum
from gammavae_jax.presets import preset
from gammavae_jax.runs.checkpoint import TrainCheckpoint, restore_training


def restored(*arguments) -> TrainCheckpoint:
    """Restore a training run, which must have a saved state."""
    back = restore_training(*arguments)
    assert back is not None
    return back


def contents(folder):
    """Return the bytes of every file below a folder, by path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def rows_of(table):
    """Return the rows of a CSV file, as dicts of strings."""
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


ABSENT = object()  # in `change_marker`, removes a field


def change_marker(path, changes):
    """Change a marker's content and keep its checksum valid, as a stranger could."""
    about = json.loads(path.read_text()) | changes
    content = {n: v for n, v in about.items() if n != "sum" and v is not ABSENT}
    signed = {**content, "sum": text_checksum(json.dumps(content))}
    path.write_text(json.dumps(signed))


def spread(mean, std=0.01):
    return {"mean": mean, "std": std, "per_seed": [mean, mean]}


def write_run(
    folder, fusion, scores=("fusion_mean", "mse"), machine="fan", train_s=12.4
):
    """Write the files of a finished run with one machine, and return its config."""
    folder.mkdir(parents=True)
    config = preset("gammavae")
    (folder / "config.json").write_text(json.dumps(to_dict(config)))
    free = ("spectrum_neighbour", "spectrum_density")
    of_machine = {name: dict.fromkeys(METRICS, spread(0.6)) for name in scores}
    summary = {
        "official_score": {
            **{name: spread(0.5) for name in (*scores, *free)},
            "fusion_mean": spread(fusion),
        },
        "arithmetic_means": {
            "fusion_mean": {"fpr_source": spread(0.08), "fpr_target": spread(0.2)}
        },
        "machines": {machine: {**of_machine, **dict.fromkeys(free, of_machine["mse"])}},
        "timing": {"train_s": train_s},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    entry = {
        "loss": [10.0, None],
        "held_out_loss": [20.0, 30.0],
        "active_units": [3.0, 5.0],
        "kl_per_latent": [[1.0, 3.0], [2.0, 2.0]],
    }
    line = json.dumps({"epoch": 1, "machines": {machine: entry}}) + "\n"
    (folder / "metrics.jsonl").write_text(line)
    return config
