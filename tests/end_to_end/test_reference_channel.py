"""A detector with a reference channel, fitted, saved and used in every way."""

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from support.live_servers import served
from support.live_stubs import RATE, put

import gammavae_jax as gv
from gammavae_jax.cli.watch import Watch
from gammavae_jax.errors import InputError
from gammavae_jax.live.scorer import load_scorer

SETTINGS = ["model.hidden=[16]", "model.n_latent=4", "train.n_folds=2"]
SETTINGS += ["features.reference_channel=1"]


def recording(seed, seconds=1.0, noise=1.0, broken=False, rate=RATE):
    """Return a machine in noise, which the second microphone picks up without it."""
    rng = np.random.default_rng(seed)
    times = np.arange(round(seconds * rate)) / rate
    hiss, machine = rng.standard_normal((2, len(times)))
    machine = 0.02 * machine + 0.1 * np.sin(1900 * times)
    if broken:
        machine += 0.1 * np.sin(19000 * times)
    far = 0.02 * noise * hiss
    return np.stack([machine + far, far], 1).astype(np.float32)


class Fitted(NamedTuple):
    detector: gv.AnomalyDetector
    path: Path
    said: str


@pytest.fixture(scope="module")
def fitted(one_device, tmp_path_factory):
    """A detector, saved and loaded once so that it compiles once."""
    path = tmp_path_factory.mktemp("detector") / "fan.detector"
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        detector = gv.AnomalyDetector(settings=SETTINGS, epochs=2, clip_seconds=1.0)
        levels = np.linspace(0.5, 2, 12)
        normal = [recording(seed, noise=n) for seed, n in enumerate(levels)]
        detector.fit({"fan": normal}, RATE).save(path)
    loaded = gv.AnomalyDetector.load(path, verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gv.AnomalyDetector, "load", lambda *_, **__: loaded)
        yield Fitted(loaded, path, said.getvalue())


def test_fitting_reports_how_much_the_reference_explains(fitted):
    line = (
        r"^fan: subtracting the reference channel lowers the power by (.*) dB "
        r"\(median over clips\)$"
    )
    (level,) = re.findall(line, fitted.said, re.MULTILINE)
    assert 3 < float(level) < 5  # the noise has 1.25 times the hiss's amplitude
    assert "probably picks up the machine" not in fitted.said


def test_a_saved_detector_keeps_its_channels(fitted):
    detector = fitted.detector.detector_
    assert detector.config.features.channels == (0, 1)
    assert detector.conditions["fan"].channels == (2,)


def test_noise_that_the_reference_hears_changes_no_score_but_a_fault_does(fitted):
    usual = [recording(seed) for seed in range(50, 54)]
    noisy = [recording(seed, noise=4) for seed in range(50, 54)]
    faulty = [recording(seed, noise=4, broken=True) for seed in range(50, 54)]
    expected = fitted.detector.score_samples(usual, RATE)
    scores = fitted.detector.score_samples(noisy, RATE)
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-3)
    assert fitted.detector.score_samples(faulty, RATE).min() > 2 * scores.max()
    assert fitted.detector.predict(faulty, RATE).all()


def test_arrays_files_watch_and_serve_agree(fitted, tmp_path, capsys):
    whole = [recording(seed, broken=seed % 2 == 1) for seed in (60, 61)]
    slow = recording(62, rate=2 * RATE)
    folder = tmp_path / "fan"
    files = [put(folder / f"{n}.wav", samples) for n, samples in enumerate(whole)]
    files.append(put(folder / "2.wav", slow, 2 * RATE))
    put(folder / "long.flac", recording(63, 4.5, rate=2 * RATE), 2 * RATE)
    Watch(tmp_path, detector=Path("saved"), once=True, settle=0.1, json=Path("-")).run()
    events = map(json.loads, capsys.readouterr().out.splitlines())
    watched: dict[str, Any] = {event["file"]: event for event in events}
    expected = fitted.detector.score_samples(files)
    arrays = fitted.detector.score_samples(whole, RATE)
    np.testing.assert_allclose(arrays, expected[:2], atol=0.02)  # 16 bits
    with served(load_scorer("saved")) as server:
        for file, score in zip(files, expected, strict=True):
            posted = server.post(file.read_bytes()).json()
            for verdict in (posted, watched[f"fan/{file.name}"]):
                assert verdict["score"] == pytest.approx(score, abs=1e-3)
    assert watched["fan/long.flac"]["n_clips"] == 4


def test_a_recording_without_the_reference_channel_is_refused(fitted, tmp_path):
    samples = recording(70)[:, 0]
    path = put(tmp_path / "mono.wav", samples)
    for given, rate, kind in ((path, None, "file"), (samples, RATE, "array")):
        with pytest.raises(InputError, match=f"no reference channel 1 in this {kind}"):
            fitted.detector.score_samples(given, rate)
