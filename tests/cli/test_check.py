"""`gammavae check` as a user runs it."""

import json
import os
import shutil

import numpy as np
import pytest
import soundfile

import gammavae_jax as gv
from gammavae_jax.cli.main import main
from gammavae_jax.evaluation.intervals import Share

SMALL = ["model.hidden=[16]", "model.n_latent=4", "train.n_folds=2"]


def record(folder, count, seed, is_faulty=False):
    """Write recordings of steady noise or, with a fault, of bursts of noise."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        samples = rng.normal(0, 0.1, (16000,))
        if is_faulty:
            samples *= np.where(np.arange(16000) % 4000 < 400, 5, 0.5)
        soundfile.write(folder / f"{number}.wav", samples, 16000)
    return folder


@pytest.fixture(scope="module")
def pump(tmp_path_factory, one_device):
    """A detector, and recordings of a healthy and of a broken machine."""
    root = tmp_path_factory.mktemp("pump")
    train = record(root / "train", 12, 0)
    record(root / "normal", 12, 1)
    record(root / "broken", 12, 2, is_faulty=True)
    record(root / "few", 3, 3, is_faulty=True)
    record(root / "same as normal", 40, 4)
    detector = gv.AnomalyDetector(epochs=1, settings=SMALL, verbose=False)
    detector.fit({"pump": train}).save(root / "pump.detector")
    return root


@pytest.fixture
def check(pump, capsys):
    """Return a function that runs the command and returns its JSON and its text."""

    def run(normal, faulty, *options):
        capsys.readouterr()
        command = ("check", pump / "pump.detector", pump / normal, pump / faulty)
        assert main([*map(str, command), "--json", "-", *map(str, options)]) == 0
        output = capsys.readouterr()
        return json.loads(output.out), output.err

    return run


def test_a_detector_that_hears_the_fault_is_good_enough(check, pump, tmp_path):
    page = tmp_path / "page.html"
    found, text = check("normal", "broken", "--report", page)
    assert found["outcome"] == "good enough"
    assert found["detected"]["count"] == found["detected"]["total"] == 12
    assert found["detected"]["interval"] == list(Share(12, 12).interval)
    assert found["auc"]["value"] == 1
    assert found["auc"]["interval"][0] > 0.8
    assert found["more_recordings"] == {"normal": 0, "faulty": 0}
    assert "pump: 12 normal and 12 faulty recordings" in text
    row = next(line for line in text.splitlines() if "faults detected" in line)
    assert row.split() == [
        *("faults", "detected", "12", "of", "12", "100", "%", "73", "to", "100", "%"),
        *("at", "least", "50", "%"),
    ]
    assert found["conclusion"] in text
    assert f"written to {page}" in text
    assert "Good enough" in page.read_text()


def test_the_counts_are_those_of_score(check, pump):
    """The rate for one command changes alarms, and the detector stays the same."""
    for rate in (0.1, 0.4):
        found, _ = check("normal", "same as normal", "--false-alarm-rate", rate)
        detector = gv.AnomalyDetector.load(pump / "pump.detector", verbose=False)
        detector.set_params(false_alarm_rate=rate)
        normal = detector.score_recordings(pump / "normal")
        faulty = detector.score_recordings(pump / "same as normal")
        assert found["false_alarm_rate"] == rate
        assert found["false_alarms"]["count"] == sum(v.is_anomaly for v in normal)
        assert found["detected"]["count"] == sum(v.is_anomaly for v in faulty)
        alarms = [r["is_anomaly"] for r in found["recordings"]]
        assert alarms == [v.is_anomaly for v in (*normal, *faulty)]


def test_p_values_tell_the_alarms_at_any_rate(check):
    """So the rate that is advised detects as many faults as the advice says."""
    now, _ = check("normal", "same as normal")
    for rate in (0.08, 0.2, 0.31, 0.5):
        then, _ = check("normal", "same as normal", "--false-alarm-rate", rate)
        expected = [r["p_value"] <= rate for r in now["recordings"]]
        assert [r["is_anomaly"] for r in then["recordings"]] == expected


def test_sounds_that_are_normal_are_not_detectable(check):
    found, text = check("normal", "same as normal")
    assert found["outcome"] == "not detectable"
    assert all(f"- {line}" in text for line in found["advice"])
    assert any("microphone" in line for line in found["advice"])
    assert "missed: 0.wav" in text
    assert " and 3" in text  # of 40 names, 5 are printed


def test_too_few_recordings_are_counted_and_enough_once_they_exist(check, pump):
    found, _ = check("normal", "few")
    assert found["outcome"] == "too few recordings"
    more = found["more_recordings"]
    assert more["normal"] == 0
    enough = pump / "enough"
    shutil.copytree(pump / "few", enough)
    for number in range(more["faulty"]):
        shutil.copy(pump / "broken" / f"{number}.wav", enough / f"new {number}.wav")
    assert check("normal", "enough")[0]["outcome"] == "good enough"
    (enough / "new 0.wav").unlink()
    assert check("normal", "enough")[0]["outcome"] == "too few recordings"


def test_an_unusable_recording_is_skipped_on_request(check, pump, refusal, tmp_path):
    shutil.copytree(pump / "normal", tmp_path / "normal")
    (tmp_path / "normal" / "bad.wav").write_bytes(b"RIFF")
    places = pump / "pump.detector", tmp_path / "normal", pump / "broken"
    assert "bad.wav" in refusal("check", *places)
    found, text = check(tmp_path / "normal", "broken", "--skip-bad-files")
    assert found["false_alarms"]["total"] == 12
    assert "skipped: " in text


@pytest.mark.parametrize("linked", [False, True])
def test_a_recording_in_both_folders_is_refused(pump, refusal, tmp_path, linked):
    shutil.copytree(pump / "broken", tmp_path / "both")
    if linked:
        os.symlink(pump / "normal" / "3.wav", tmp_path / "both" / "link.wav")
    else:
        samples, rate = soundfile.read(pump / "normal" / "3.wav", dtype="int16")
        soundfile.write(tmp_path / "both" / "link.flac", samples, rate)
    places = pump / "pump.detector", pump / "normal", tmp_path / "both"
    message = refusal("check", *places)
    assert "3.wav (normal) and " in message
    name = "link.wav" if linked else "link.flac"
    assert f"{name} (faulty) contain the same sound: remove one of them" in message
    several = refusal("check", pump / "pump.detector", pump / "normal", pump / "normal")
    assert "(12 recordings are in both)" in several


def test_recordings_that_the_detector_was_trained_on_are_refused(
    pump, refusal, tmp_path
):
    """They look more normal than new ones, so there would be too few false alarms."""
    shutil.copytree(pump / "normal", tmp_path / "normal")
    samples, rate = soundfile.read(pump / "train" / "3.wav", dtype="int16")
    soundfile.write(tmp_path / "normal" / "copy.flac", samples, rate)
    message = refusal(
        "check", pump / "pump.detector", tmp_path / "normal", pump / "broken"
    )
    assert "was trained on some of the normal recordings (copy.flac): pass" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "pump.detector broken normal",
            "contains 'broken', but it was passed as a recording of the healthy "
            "machine: pass it with the faulty recordings, or rename it if it is normal "
            "(12 recordings have such names)",
        ),
        ("normal normal few", "contains no detector: pass"),
        ("pump.detector nothing few", "No such file"),
        ("pump.detector normal .", "contain the same sound"),
        ("pump.detector normal few --machine fan", "unknown machine 'fan'"),
        ("pump.detector normal few --false-alarm-rate 2", "false_alarm_rate is 2"),
        ("pump.detector normal few --report no/x", "is not a folder: create it"),
        ("pump.detector normal few --json no/x", "choose another path for --json"),
    ],
)
def test_bad_input_is_one_line(pump, refusal, monkeypatch, arguments, message):
    monkeypatch.chdir(pump)
    assert message in refusal("check", *arguments.split())
