"""The built-in set: layout, determinism, caching and difficulty."""

import contextlib
import csv
import functools
import io
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
from rich.console import Console
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from support.windows import windows

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.features import log_mel, mel_filterbank
from gammavae_jax.data.synthetic import dataset
from gammavae_jax.data.synthetic.dataset import (
    MARKER,
    SIZES,
    SyntheticSize,
    is_synthetic,
    make_synthetic,
    synthetic_root,
)
from gammavae_jax.data.synthetic.machines import MACHINES
from gammavae_jax.errors import InputError
from gammavae_jax.log import Log

TINY = {
    "fan": SyntheticSize(n_source=3, n_target=1, n_test=2, seconds=(0.3, 0.5)),
    "valve": SyntheticSize(n_source=2, n_target=2, n_test=1, seconds=(0.4, 0.4)),
}
NAMES = ["ToyCar", "ToyTrain", "bearing", "fan", "gearbox", "slider", "valve"]


def contents(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_synthetic(tmp_path_factory.mktemp("synthetic") / "set", TINY)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return an empty cache folder, and a set that is quick to generate."""
    monkeypatch.setenv("GAMMAVAE_CACHE_DIR", str(tmp_path / "cache"))
    make_tiny = functools.partial(make_synthetic, sizes=TINY)
    monkeypatch.setattr(dataset, "make_synthetic", make_tiny)
    return tmp_path / "cache"


def test_the_layout_is_that_of_the_challenge(tiny):
    names = [path.name for path in sorted((tiny / "fan" / "train").iterdir())]
    assert names == [
        "section_00_source_train_normal_0000_speed_1440_bg_hall.wav",
        "section_00_source_train_normal_0001_speed_1440_bg_street.wav",
        "section_00_source_train_normal_0002_speed_1440_bg_hall.wav",
        "section_00_target_train_normal_0000_speed_1440_bg_rain.wav",
    ]
    names = [path.name for path in sorted((tiny / "valve" / "test").iterdir())]
    assert [name.split("_speed")[0] for name in names] == [
        "section_00_source_test_anomaly_0000",
        "section_00_source_test_normal_0000",
        "section_00_target_test_anomaly_0000",
        "section_00_target_test_normal_0000",
    ]
    assert sorted(path.name for path in tiny.iterdir()) == [MARKER, "fan", "valve"]


def test_the_attribute_file_lists_every_clip(tiny):
    with open(tiny / "fan" / "attributes_00.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    clips = sorted(p.relative_to(tiny).as_posix() for p in tiny.glob("fan/*/*.wav"))
    assert sorted(row["file_name"] for row in rows) == clips
    for row in rows:
        attributes = f"{row['d1p']}_{row['d1v']}_{row['d2p']}_{row['d2v']}"
        assert row["file_name"].endswith(f"_{attributes}.wav")


def test_clips_are_16_bit_mono_of_the_requested_length(tiny):
    for path in tiny.rglob("*.wav"):
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        shortest, longest = TINY[path.parent.parent.name].seconds
        assert shortest <= info.duration <= longest
        samples, _ = soundfile.read(path)
        assert 0.005 < np.sqrt(np.mean(samples**2)) < 0.2
        assert np.abs(samples).max() < 0.99
    assert len({soundfile.info(p).frames for p in tiny.glob("fan/*/*.wav")}) > 1


def test_a_clip_depends_only_on_its_machine_and_name(tiny, tmp_path):
    valve = make_synthetic(tmp_path / "valve", {"valve": TINY["valve"]})
    assert contents(valve / "valve") == contents(tiny / "valve")
    clips = [path.read_bytes() for path in tiny.rglob("*.wav")]
    assert len(set(clips)) == len(clips)


def test_the_full_set_has_machines_of_different_sizes_and_lengths():
    assert list(SIZES) == NAMES
    assert list(MACHINES) == NAMES
    assert len({size.n_source + size.n_target for size in SIZES.values()}) > 2
    assert len({size.seconds for size in SIZES.values()}) > 2
    assert any(size.seconds[0] < size.seconds[1] for size in SIZES.values())
    seconds = sum(
        (size.n_source + size.n_target + 4 * size.n_test) * np.mean(size.seconds)
        for size in SIZES.values()
    )
    assert seconds * 16000 * 2 < 90e6  # bytes on disk


@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt()])
def test_a_failed_generation_leaves_no_files(tmp_path, monkeypatch, error):
    written = []

    def fail_midway(path, rate, samples):
        written.append(path)
        if len(written) > 3:
            raise error

    monkeypatch.setattr(dataset.wavfile, "write", fail_midway)
    with pytest.raises(type(error)):
        make_synthetic(tmp_path / "set", TINY)
    assert len(written) > 3
    assert list(tmp_path.iterdir()) == []


def test_simultaneous_generation_leaves_one_set_with_the_same_bytes(tiny, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(make_synthetic, tmp_path / "set", TINY) for _ in range(4)]
        assert {job.result() for job in jobs} == {tmp_path / "set"}
    assert contents(tmp_path / "set") == contents(tiny)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_set_finished_by_another_process_is_kept(tiny, tmp_path, monkeypatch):
    @contextlib.contextmanager
    def overtaken(title, total):
        yield lambda: None
        make_synthetic(tmp_path / "set", TINY)

    log = Log()
    monkeypatch.setattr(log, "progress", overtaken)
    made = make_synthetic(tmp_path / "set", TINY, log)
    assert contents(made) == contents(tiny)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_with_other_contents_is_refused_and_kept(tiny, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="something other than this synthetic set"):
        make_synthetic(tmp_path / "mine", TINY)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"
    with pytest.raises(InputError, match="something other than this synthetic set"):
        make_synthetic(tiny, {"fan": TINY["fan"]})


def test_a_set_is_recognised_by_its_marker_file(tiny, tmp_path):
    assert is_synthetic(tiny)
    assert "say nothing about real machines" in (tiny / MARKER).read_text()
    assert not is_synthetic(tmp_path)
    assert not is_synthetic(tmp_path / "absent")
    (tmp_path / MARKER).write_bytes(b"\xff\xfe something else")
    assert not is_synthetic(tmp_path)


def test_the_set_is_generated_once(cache, monkeypatch):
    shown = io.StringIO()
    root = synthetic_root(Log(Console(file=shown)))
    assert root == cache / "synthetic-v1"
    assert is_synthetic(root)
    total = sum(s.n_source + s.n_target + 4 * s.n_test for s in TINY.values())
    assert shown.getvalue() == f"clips made {total}/{total}\n"
    monkeypatch.setattr(dataset, "_write_set", None)  # generating it again would fail
    assert synthetic_root() == root


def test_an_unwritable_cache_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GAMMAVAE_CACHE_DIR", os.fspath(tmp_path / "file"))
    with pytest.raises(InputError, match="set GAMMAVAE_CACHE_DIR to a writable"):
        synthetic_root()


def windows_of(path):
    samples, _ = soundfile.read(path, dtype="float32")
    config = FeatureConfig()
    return windows(log_mel(samples, mel_filterbank(config), config), config.n_context)


@pytest.mark.parametrize("machine", ["fan", "gearbox"])
def test_anomalies_are_neither_trivial_nor_hopeless(tmp_path, machine):
    """Shown by a linear autoencoder on clips of the full set."""
    root = make_synthetic(tmp_path / "set", {machine: SIZES[machine]}) / machine
    train = np.concatenate([windows_of(path) for path in (root / "train").iterdir()])
    model = PCA(10, svd_solver="covariance_eigh").fit(train)
    clips = sorted((root / "test").iterdir())
    scores = []
    for clip in map(windows_of, clips):
        residual = clip - model.inverse_transform(model.transform(clip))
        scores.append(np.mean(residual**2))
    is_anomaly = ["anomaly" in clip.name for clip in clips]
    assert 0.6 < roc_auc_score(is_anomaly, scores) < 0.95
