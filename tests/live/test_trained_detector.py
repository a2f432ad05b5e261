"""A trained detector in a watch and in the service."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
from support.live_servers import served
from support.live_stubs import RATE, put
from support.live_stubs import humming as sound

import gammavae_jax as gv
from gammavae_jax.cli.watch import Watch
from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.audio import files as audio
from gammavae_jax.data.audio.files import open_recording, resampled
from gammavae_jax.data.features import samples_needed
from gammavae_jax.data.states import State
from gammavae_jax.errors import InputError
from gammavae_jax.live.alarms import LiveAlarms
from gammavae_jax.live.scorer import load_scorer
from gammavae_jax.scoring.alarm_plan import AlarmRequest, mean_clip_seconds

SMALL = ["model.hidden=[16]", "model.n_latent=4", "train.n_folds=2"]


@pytest.fixture(scope="module")
def detector(one_device, tmp_path_factory):
    """Return a detector that was saved and loaded once, so that it compiles once."""
    path = tmp_path_factory.mktemp("detector") / "fan.detector"
    with pytest.MonkeyPatch.context() as patch:
        detector = gv.AnomalyDetector(
            settings=SMALL, epochs=2, clip_seconds=1.0, verbose=False
        )
        detector.fit({"fan": [sound(seed) for seed in range(12)]}, RATE).save(path)
        loaded = gv.AnomalyDetector.load(path, verbose=False)
        patch.setattr(gv.AnomalyDetector, "load", lambda *_, **__: loaded)
        yield loaded


@pytest.fixture(scope="module")
def scorer(detector):
    return load_scorer("saved")


def test_a_saved_detector_becomes_a_live_scorer(detector, scorer):
    assert scorer.machines == ("fan",)
    assert scorer.clip_seconds == 1.0
    assert scorer.thresholds == detector.threshold_
    (expected,) = detector.score_recordings([sound(50)], RATE, machine="fan")
    score, state = scorer.examine(sound(50), sound(50), "fan")
    assert state == State.RUNNING
    assert scorer.judge("array 0", "fan", [score], [1.0], [state]) == expected
    assert scorer.spectrogram(sound(50)).shape == (1 + RATE // 512, 128)


def test_a_false_alarm_rate_changes_the_thresholds_of_a_live_scorer(detector, scorer):
    notes = []
    try:
        often = load_scorer("saved", 0.5, notes.append)
        assert often.thresholds["fan"] < scorer.thresholds["fan"]
        assert notes == []
        load_scorer("saved", 0.01, notes.append)
        assert notes == [
            "A false-alarm rate of 0.01 needs 99 independent recordings, which some "
            "machines lack: fan (12). Expect more false alarms from them."
        ]
    finally:
        detector.set_params(false_alarm_rate=0.1)
    assert detector.threshold_ == scorer.thresholds


def test_a_recording_that_is_too_short_is_refused_by_name(scorer, tmp_path):
    n_samples = samples_needed(FeatureConfig())
    for missing, name in enumerate(["enough.wav", "too_short.wav"]):
        path = put(tmp_path / name, sound(0)[: n_samples - missing])
        with open_recording(path) as recording:
            if not missing:
                assert np.isfinite(scorer.score(recording, "fan", name).verdict.score)
                continue
            with pytest.raises(InputError, match=r"^too_short\.wav: too short"):
                scorer.score(recording, "fan", name)


@pytest.mark.parametrize("rate", [RATE, 44100])
@pytest.mark.parametrize("seconds", [0.9, 1.7, 6.3, 30.0])
def test_a_recording_read_in_blocks_has_the_verdict_of_the_whole(
    detector, scorer, tmp_path, monkeypatch, seconds, rate
):
    monkeypatch.setattr(audio, "_BLOCK", 7000)
    samples = sound(60, seconds)
    part = slice(*(np.array([0.4, 0.6]) * len(samples)).astype(int))
    samples[part] = sound(61, seconds, broken=True)[part]
    path = put(tmp_path / "x.wav", resampled(samples, RATE, rate), rate)
    (expected,) = detector.score_recordings(path)
    with open_recording(path) as recording:
        scored = scorer.score(recording, "fan", str(path))
    assert scored.verdict == expected
    assert expected.n_clips == max(1, round(seconds))
    assert expected.seconds == pytest.approx(seconds, abs=1e-3)
    assert len(scored.highest) == pytest.approx(RATE * seconds / expected.n_clips, 1e-3)
    if (seconds, rate) == (30.0, RATE):
        stretch = max(expected.stretches, key=lambda stretch: stretch.score)
        assert stretch.start == pytest.approx(12, abs=1.01)
        assert stretch.end == pytest.approx(18, abs=1.01)


def test_watch_and_serve_agree_with_the_detector(detector, scorer, tmp_path, capsys):
    files = [
        put(tmp_path / "fan" / f"{seed}.wav", sound(seed, broken=seed % 2 == 1))
        for seed in range(100, 106)
    ]
    Watch(tmp_path, detector=Path("saved"), once=True, settle=0.1, json=Path("-")).run()
    events = map(json.loads, capsys.readouterr().out.splitlines())
    watched = {tmp_path / event["file"]: event for event in events}
    with served(scorer) as server:
        for file in files:
            (expected,) = detector.score_recordings(file)
            for verdict in (server.post(file.read_bytes()).json(), watched[file]):
                assert verdict["machine"] == expected.machine == "fan"
                assert verdict["score"] == pytest.approx(expected.score, abs=1e-6)
                assert verdict["p_value"] == expected.p_value
                assert verdict["threshold"] == expected.threshold
                assert verdict["is_anomaly"] == expected.is_anomaly
        metrics = server.metrics()
    assert metrics["gammavae_threshold", "fan"] == detector.threshold_["fan"]
    assert all(watched[file]["is_anomaly"] for file in files[1::2])


def test_recordings_unlike_those_of_the_training_are_told(scorer, tmp_path, capsys):
    samples = sound(50, 0.22)
    put(tmp_path / "a.wav", np.stack([0.001 * samples, samples], 1))
    put(
        tmp_path / "b.wav",
        np.interp(np.arange(0, RATE, 0.5), np.arange(RATE), sound(5)),
        2 * RATE,
    )
    Watch(tmp_path, detector=Path("saved"), once=True, settle=0.1, json=Path("-")).run()
    output = capsys.readouterr()
    a, b = sorted(map(json.loads, output.out.splitlines()), key=lambda e: e["file"])
    words = ("60 dB below channel 1", "shorter")
    assert [word in note for word, note in zip(words, a["notes"], strict=True)] == [
        True
    ] * 2
    assert (b["sample_rate"], len(b["notes"])) == (2 * RATE, 1)
    for note in a["notes"] + b["notes"]:
        assert output.err.count(note) == 1
    with served(scorer) as server:
        assert (
            server.post((tmp_path / "a.wav").read_bytes()).json()["notes"] == a["notes"]
        )
        assert (
            server.post((tmp_path / "b.wav").read_bytes()).json()["notes"] == b["notes"]
        )
        assert any(a["notes"][0] in line for line in server.lines())


def test_a_watch_the_service_and_python_raise_the_same_alarms(
    detector, scorer, tmp_path, capsys
):
    """There are four recordings of a minute each, with a fault from 0:45 to 2:15."""
    samples = sound(200, 240)
    fault = slice(45 * RATE, 135 * RATE)
    samples[fault] = sound(201, 240, broken=True)[fault]
    files = []
    for minute in range(4):
        part = samples[60 * minute * RATE : 60 * (minute + 1) * RATE]
        files.append(put(tmp_path / f"{minute}.wav", part))
        os.utime(files[-1], (minute, minute))
    policy = detector.alarm_policy(after=(3, 4), hold_seconds=60.0)
    (alarm,) = detector.alarms(files, policy)
    times = [_by_file_name(alarm)[i] for i in range(3)]
    began, raised, ended = (60 * int(at.recording[0]) + at.seconds for at in times)
    assert 42 <= began <= 48
    assert began + 18 <= raised <= began + 24
    assert 135 <= ended <= 159

    def of_recording(entry):
        return [entry["score"], entry["p_value"], entry["alarm"], entry["alarm_events"]]

    options = {"alarm_after": "3/4", "hold": 1.0, "once": True, "settle": 0.1}
    Watch(tmp_path, detector=Path("saved"), json=Path("-"), **options).run()
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    watched = [of_recording(e) for e in events if e["event"] == "recording"]
    policies = scorer.alarm_policies(AlarmRequest(after=(3, 4), hold_seconds=60.0))
    assert policies == {"fan": policy}
    with served(scorer, alarms=LiveAlarms(policies)) as server:
        answers = [
            server.post(file.read_bytes(), params={"name": file.name}).json()
            for file in files
        ]
    assert list(map(of_recording, answers)) == watched
    found = [event for _, _, _, events in watched for event in events]
    expected = _by_file_name(alarm).entry()
    assert found == [expected | {"end": None}, expected]


def _by_file_name(alarm):
    """Name an alarm's recordings as a watch of their folder does."""
    moments = {
        field: at._replace(recording=Path(at.recording).name)
        for field, at in alarm._asdict().items()
        if field != "is_held"
    }
    return alarm._replace(**moments)


def test_the_mean_length_of_clips_is_not_that_of_the_shortest(detector, scorer):
    assert scorer.mean_clip_seconds("fan") == pytest.approx(1.0, abs=0.05)
    trained = detector.detector_
    new = trained.conditions["fan"]._replace(seconds=(0.5, 9.0), total_seconds=36.0)
    unequal = dataclasses.replace(trained, conditions={"fan": new})
    assert mean_clip_seconds(unequal, "fan") == 3.0  # of twelve clips


def test_a_policy_for_a_rate_is_refused_if_the_training_recordings_are_too_few(
    detector,
):
    with pytest.raises(InputError, match=r"cannot be guaranteed: ask for .* or more"):
        detector.alarm_policy(1e-6)
    policy = detector.alarm_policy(1.0, 24)
    assert policy.expected is not None
    assert policy.expected.false_alarms_per_day <= 1.0
    with pytest.raises(InputError, match="unknown machine"):
        detector.alarm_policy(1.0, machine="pump")
