"""Runs the main job as a separate process, on two small machines."""

import json
from pathlib import Path

from support.processes import ROOT, python

from gammavae_jax.data.synthetic.dataset import SyntheticSize, make_synthetic

TINY = [
    "--set",
    "model.hidden=[16]",
    "model.n_latent=4",
    "train.batch_size=64",
    "train.checkpoint_every=2",
    "train.n_folds=2",
]
FOUR_EPOCHS = ["--epochs", 4, "--seeds", 2, *TINY]


def two_machines(folder: Path) -> Path:
    """Create two synthetic machines of different sizes and lengths."""
    sizes = {
        "fan": SyntheticSize(12, 3, 3, (0.4, 0.6)),
        "valve": SyntheticSize(7, 0, 2, (0.5, 0.5)),
    }
    return make_synthetic(folder, sizes)


def command(script, *arguments, check=True):
    """Run a script as a separate process, and check that it succeeds."""
    return python(ROOT / "experiments" / script, *arguments, check=check)


def rescore(checkpoint, data, out, *options, check=True):
    """Evaluate a checkpoint in a separate process."""
    arguments = "--checkpoint", checkpoint, "--data-root", data, "--out", out
    return command("evaluate.py", *arguments, *options, check=check)


def assert_same_results(out, expected, *names):
    """Check that two folders have the same score files and the same named files."""
    assert score_bytes(out) == score_bytes(expected)
    for name in names:
        assert (out / name).read_bytes() == (expected / name).read_bytes(), name


def score_bytes(out):
    files = sorted((out / "scores").rglob("*.csv"))
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def notes_of(out):
    return " ".join(json.loads((out / "summary.json").read_text())["notes"])


def run_all(data: Path, out: Path, *options, check=True):
    """Run the main job on all machines of a data root."""
    sources = "--all-machines", "--data-root", data
    return command("run.py", *sources, "--out", out, *options, check=check)
