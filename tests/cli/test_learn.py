"""`gammavae learn` as a user runs it."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.live_stubs import RATE, humming

import gammavae_jax as gv
from gammavae_jax.cli.learn import next_version
from gammavae_jax.cli.main import main

SETTINGS = ["model.hidden=[16]", "model.n_latent=4", "train.n_folds=2"]


def write(folder, sounds):
    folder.mkdir()
    for number, sound in enumerate(sounds):
        soundfile.write(folder / f"{number}.wav", sound, RATE)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory, one_device):
    """A folder with a detector, with recordings of a new load, and with a broken fan.

    The new load adds a tone.
    """
    root = tmp_path_factory.mktemp("fan")
    tone = 0.1 * np.sin(5000 * np.arange(RATE) / RATE)
    load = [humming(seed) + tone for seed in range(30, 44)]
    write(root / "normal", map(humming, range(12)))
    write(root / "load", load[:10])
    write(root / "later", [*load[10:], *map(humming, range(50, 54))])
    write(root / "faulty", [humming(60, broken=True)])
    detector = gv.AnomalyDetector(epochs=1, settings=SETTINGS, verbose=False)
    detector.fit({"fan": root / "normal"}).save(root / "fan.detector")
    return root


@pytest.fixture
def detector(recordings, tmp_path):
    return shutil.copytree(recordings / "fan.detector", tmp_path / "fan.detector")


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def learn(*arguments):
    assert main(["learn", *map(str, arguments)]) == 0


def test_a_new_load_is_learnt_in_a_new_version_beside_the_old_one(
    recordings, detector, capsys
):
    before = content(detector)
    learn(detector, recordings / "load", "--compare", recordings / "later")
    assert content(detector) == before
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "fan: 10 recordings learnt"
    rows = [re.split(r"  +", line.strip()) for line in lines]
    assert ["clips", "12", "22"] in rows
    assert ["independent recordings", "12", "22"] in rows
    (alarms,) = [row for row in rows if row[0].startswith("alarms among")]
    assert alarms[1] == "10 of 10"
    assert int(alarms[2].split()[0]) <= 2
    changed = [row[0] for row in rows if row[1:] == ["ALARM", "no alarm"]]
    assert {"0.wav", "1.wav", "2.wav"} <= set(changed) <= {f"{n}.wav" for n in range(4)}
    n = len(changed)
    assert f"compared: {n} verdicts changed, {8 - n} did not" in lines
    second = detector.with_name("fan-2.detector")
    assert lines[-1].startswith(f"written to {second}; next: gammavae score {second}")
    later = recordings / "later"
    alarms = [gv.AnomalyDetector.load(d).predict(later) for d in (detector, second)]
    assert alarms[0][:4].all()
    assert alarms[1][:4].sum() == 4 - n
    assert alarms[1][4:].tolist() == alarms[0][4:].tolist()

    learn(second, recordings / "later" / "0.wav")
    assert detector.with_name("fan-3.detector").is_dir()


def test_a_version_written_meanwhile_by_another_process_is_not_replaced(
    recordings, detector, refusal, monkeypatch
):
    real, out = gv.AnomalyDetector.save, detector.with_name("b.detector")

    def save(self, path, **options):
        if not path.exists():
            shutil.copytree(detector, path)
        monkeypatch.setattr(gv.AnomalyDetector, "save", real)
        real(self, path, **options)

    expected = [file.read_bytes() for file in sorted(detector.glob("*.json"))]
    given = detector, recordings / "later" / "0.wav"
    monkeypatch.setattr(gv.AnomalyDetector, "save", save)
    learn(*given)
    monkeypatch.setattr(gv.AnomalyDetector, "save", save)
    assert "exists" in refusal("learn", *given, "--out", out)
    for other in (detector.with_name("fan-2.detector"), out):
        assert [f.read_bytes() for f in sorted(other.glob("*.json"))] == expected
    assert detector.with_name("fan-3.detector").is_dir()


@pytest.mark.parametrize(
    ("name", "machines", "existing", "expected"),
    [
        ("pump.detector", ["pump"], [], "pump-2.detector"),
        ("pump.detector", ["pump"], ["pump-2.detector"], "pump-3.detector"),
        ("pump-2.detector", ["pump"], [], "pump-3.detector"),
        ("pump-9.detector", ["pump"], ["pump-10.detector"], "pump-11.detector"),
        ("line-7.detector", ["line-7"], [], "line-7-2.detector"),
        ("line-7-2.detector", ["line-7"], [], "line-7-3.detector"),
        ("pump", ["fan"], [], "pump-2"),
        ("pump.v1", ["fan"], [], "pump.v1-2"),
    ],
)
def test_a_version_gets_the_next_free_number(
    tmp_path, name, machines, existing, expected
):
    for other in existing:
        (tmp_path / other).mkdir()
    assert next_version(tmp_path / name, machines) == tmp_path / expected


def test_learning_from_an_old_version_is_reported(recordings, detector, capsys):
    """Otherwise the new version would silently lack what later ones have learnt."""
    learn(detector, recordings / "load")
    assert "newest" not in capsys.readouterr().err
    learn(detector, recordings / "later")
    second, third = (detector.with_name(f"fan-{n}.detector") for n in (2, 3))
    assert third.exists()
    assert (
        f"{detector} is not the newest version ({second} is). The new version will "
        f"contain only what {detector} has learnt, plus these recordings"
    ) in capsys.readouterr().err
    learn(detector, recordings / "later", "--out", second, "--overwrite")
    assert "newest" not in capsys.readouterr().err


def test_a_detector_of_another_machine_is_no_newer_version(
    recordings, detector, tmp_path, capsys
):
    other = gv.AnomalyDetector(epochs=1, settings=SETTINGS, verbose=False)
    other.fit({"fan-2": recordings / "normal"}).save(tmp_path / "fan-2.detector")
    learn(detector, recordings / "load")
    assert (tmp_path / "fan-3.detector").exists()
    assert "newest" not in capsys.readouterr().err


def test_a_detector_in_the_current_folder_has_its_versions_beside_it(
    tmp_path, monkeypatch
):
    (tmp_path / "pump.detector").mkdir()
    monkeypatch.chdir(tmp_path / "pump.detector")
    assert next_version(Path(), ["pump"]) == tmp_path / "pump-2.detector"


def test_what_cannot_be_learnt_or_written_is_refused(recordings, detector, refusal):
    load, out = recordings / "load", detector.with_name("other.detector")
    out.mkdir()
    before = sorted(detector.parent.iterdir())
    for arguments, message in [
        ((recordings / "faulty",), "faulty"),
        ((recordings / "normal",), "nothing to learn"),
        (
            (load, "--out", detector, "--overwrite"),
            "is the old version, which is never",
        ),
        ((load, "--out", out), "exists: add --overwrite"),
        ((load, "--out", out, "--overwrite"), "exists and is not a detector"),
        ((load, "--machine", "pump"), "unknown machine 'pump'"),
        ((recordings / "gone",), "gone"),
    ]:
        assert message in refusal("learn", detector, *arguments)
    assert sorted(detector.parent.iterdir()) == before


def test_supplemental_recordings_are_counted_and_what_is_judged_is_said(
    recordings, detector, capsys
):
    more = detector.parent / "more"
    (more / "fan" / "supplemental").mkdir(parents=True)
    shutil.copy(recordings / "later" / "0.wav", more / "fan" / "supplemental")
    sound, _ = soundfile.read(recordings / "later" / "1.wav")
    soundfile.write(
        more / "half.wav", np.append(np.tile(sound, 10), np.zeros(10 * RATE)), RATE
    )
    learn(detector, more)
    printed = capsys.readouterr().out
    assert "fan: 2 recordings learnt" in printed
    assert re.search("recordings learnt +(1|0) of 1 +(1|0) of 1", printed)
    assert "before, on whole recordings; after, only on the clips learnt" in printed


def test_the_checkpoint_of_a_run_cannot_learn(finished, recordings, refusal):
    message = refusal(
        "learn", finished / "checkpoint", recordings / "load", "--machine", "fan"
    )
    assert "keeps no training clips" in message


def test_bad_files_can_be_skipped_and_the_version_does_not_remember_it(
    recordings, detector, capsys
):
    (detector.parent / "more").mkdir()
    shutil.copy(recordings / "load" / "0.wav", detector.parent / "more")
    (detector.parent / "more" / "bad.wav").write_bytes(b"RIFF")
    out = detector.with_name("b.detector")
    learn(detector, detector.parent / "more", "--skip-bad-files", "--out", out)
    assert capsys.readouterr().err.count("skipped: ") == 1
    assert not gv.AnomalyDetector.load(out).skip_bad_files
