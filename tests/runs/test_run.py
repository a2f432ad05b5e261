"""What a run notes about its recordings before it trains."""

import io
import shutil

import numpy as np
import pytest
import soundfile
from rich.console import Console

from gammavae_jax.data.loading import Source, find_all
from gammavae_jax.errors import InputError
from gammavae_jax.log import Log
from gammavae_jax.presets import preset
from gammavae_jax.runs.fleet.run import run_machines
from gammavae_jax.runs.folder import RunFolder
from gammavae_jax.runs.run import describe, load_all

CONFIG = preset("default")
NAME = "section_00_source_{}_{}_{:04}.wav"


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    for split, label, numbers in (
        *(("train", "normal", range(3)), ("test", "normal", range(2))),
        ("test", "anomaly", range(2)),
    ):
        folder = tmp_path / "data" / "fan" / split
        folder.mkdir(parents=True, exist_ok=True)
        for number in numbers:
            path = folder / NAME.format(split, label, number)
            soundfile.write(path, rng.normal(0, 0.1, 4000), 16000, "PCM_16")
    return tmp_path / "data"


@pytest.fixture
def log():
    return Log(Console(file=io.StringIO()))


def notes_of(root, log):
    source = Source(root, ("fan",))
    load_all(CONFIG, source, find_all(source), None, log)
    return log.notes


def test_clean_splits_need_no_note(root, log):
    assert notes_of(root, log) == []


@pytest.mark.parametrize("how", ["copy", "link", "flac"])
def test_a_clip_in_both_splits_is_noted(root, log, how):
    old = root / "fan/train" / NAME.format("train", "normal", 1)
    new = root / "fan/test" / NAME.format("test", "normal", 7)
    if how == "flac":
        new = new.with_suffix(".flac")
        soundfile.write(new, *soundfile.read(old))
    elif how == "link":
        new.symlink_to(old)
    else:
        shutil.copy(old, new)
    (note,) = notes_of(root, log)
    assert f"1 test clip is also a training clip (fan_section_00/{new.name})" in note


def test_what_is_left_out_is_noted_before_anything_else(root, log, tmp_path):
    (root / "fan/train/a.mp3").touch()
    source = Source(root, ("fan",))
    with pytest.raises(InputError, match="pass --overwrite"):
        run_machines(CONFIG, source, RunFolder(tmp_path), None, None, log)
    describe(CONFIG, source, Log(log.console, log.console))
    (note,) = log.notes
    assert "1 file in another format (fan/train/a.mp3)" in note
    assert log.console.file.getvalue().count(note) == 2
