"""Machines with little to learn from, trained in one program with an ordinary one."""

import json
import shutil

import jax
import numpy as np
import pytest
import soundfile
from rich.console import Console
from support.detectors import Fitted, fitted, small
from support.main_job import TINY, notes_of, run_all
from support.probes import clips, noise

import gammavae_jax as gv
from gammavae_jax.config import SCORE_NAMES
from gammavae_jax.data.features import FLOOR
from gammavae_jax.errors import InputError
from gammavae_jax.log import Log
from gammavae_jax.scoring.scored_clips import finite_machines

N_CLIPS, N_FRAMES, RATE = 12, 20, 16000
SILENCE = np.full((N_FRAMES, 128), 10 * np.log10(FLOOR))
SCORES = [name for name in SCORE_NAMES if not name.startswith("latent_")]


def click():
    """Return digital silence with a click in two frames."""
    spectrogram = SILENCE.copy()
    spectrogram[9:11] = -40
    return spectrogram


def odd_machines(rng):
    """Return the clips of odd machines, by what is odd about them."""
    (one,) = noise(rng, 1)
    cut = np.where(np.arange(128) < 40, 0.0, np.nan)  # nothing in the upper bands
    low = [np.where(np.isnan(cut), SILENCE, c) for c in noise(rng, N_CLIPS)]
    loud = noise(rng, N_CLIPS)
    loud[5] = loud[5] + 150
    return {
        "silence": clips([SILENCE] * N_CLIPS),
        "silence_target": clips([SILENCE] * N_CLIPS, n_target=3),
        "copies": clips([one] * N_CLIPS, n_target=2),
        "two_sounds": clips([one] * 6 + [one + 20] * 6),
        "two_copies": clips([one] * 2),
        "two_clips": clips(noise(rng, 2), n_target=1),
        "one_target": clips(noise(rng, N_CLIPS), n_target=1),
        "two_targets": clips(noise(rng, N_CLIPS), n_target=2),
        "no_target": clips(noise(rng, N_CLIPS)),
        "only_target": clips(noise(rng, N_CLIPS), n_target=N_CLIPS),
        # Fewer windows than a batch, and than bands.
        "few_windows": clips(noise(rng, 3, 6)),
        "silent_bands": clips(low, n_target=2),
        "one_outlier": clips(loud),
        "one_click": clips([SILENCE] * 11 + [click()]),
        "one_silent": clips([*noise(rng, 11), SILENCE]),
    }


ODD = odd_machines(np.random.default_rng(0))
# For these, the training clips suffice to detect a different sound.
DETECTABLE = sorted(
    set(ODD)
    - {"two_copies", "two_clips", "few_windows", "one_outlier", "one_click"}
    - {"one_silent"}
)
IDENTICAL = ["silence", "silence_target", "copies"]
CONFIG = small("gammavae", f"scores={json.dumps(SCORES)}", "scoring.smote_ratio=0.5")


def ordinary(rng):
    return [("ordinary", clips(noise(rng, N_CLIPS), n_target=2))]


def trained(others) -> Fitted:
    """Train an ordinary machine and others in one program."""
    return fitted(CONFIG, [*ordinary(np.random.default_rng(1)), *others], 20)


@pytest.fixture(scope="module")
def crowd():
    return trained(ODD.items())


def judged_clips(found):
    """Return the first training clip, then with a loud tone, and other sounds."""
    first = found.log_mels[0]
    strange = first.copy()
    strange[:, 60] += 60
    longer = np.concatenate([first, first])[: len(first) + 7]
    return clips([first, longer, strange, click(), SILENCE, first + 100])


@pytest.fixture(scope="module")
def scores(crowd):
    """Return the scores of `judged_clips`, by score and machine."""
    found = crowd.scores(*map(judged_clips, [ordinary_clips(), *ODD.values()]))
    return {
        name: dict(zip(["ordinary", *ODD], values[0], strict=True))
        for name, values in found.items()
    }


def ordinary_clips():
    return ordinary(np.random.default_rng(1))[0][1]


def of_machine(crowd, name, part):
    number = ["ordinary", *ODD].index(name)
    return {k: v[0, number] for k, v in getattr(crowd.detector, part).items()}


@pytest.mark.parametrize("name", ["ordinary", *ODD])
def test_scores_thresholds_and_calibration_are_finite(crowd, scores, name):
    assert not crowd.state.is_stopped.any()
    n_clips = len({"ordinary": ordinary_clips(), **ODD}[name].files)
    thresholds = of_machine(crowd, name, "thresholds")
    calibration = of_machine(crowd, name, "calibration")
    for score in SCORES:
        assert np.isfinite(scores[score][name]).all(), score
        assert np.isfinite(thresholds[score]), score
        assert np.isfinite(calibration[score][:n_clips]).all(), score


@pytest.mark.parametrize("name", DETECTABLE)
def test_a_different_sound_scores_higher_and_is_an_alarm(crowd, scores, name):
    for score in ("fusion_mean", "spectrum_density"):
        same, _, strange, *_ = scores[score][name]
        assert strange > same
        assert strange > of_machine(crowd, name, "thresholds")[score]


@pytest.mark.parametrize("name", IDENTICAL)
def test_the_only_sound_of_a_machine_is_no_alarm_however_it_is_batched(
    crowd, scores, name
):
    """Rounding differs beside longer clips, but stays below the threshold."""
    for score in ("fusion_mean", "spectrum_density"):
        assert scores[score][name][0] <= of_machine(crowd, name, "thresholds")[score]
    alone = crowd.scores(
        *[clips([f.log_mels[0]]) for f in [ordinary_clips(), *ODD.values()]]
    )
    number = ["ordinary", *ODD].index(name)
    for score in ("fusion_mean", "spectrum_density"):
        assert alone[score][0, number, 0] <= crowd.detector.thresholds[score][0, number]


@pytest.mark.parametrize("name", IDENTICAL)
def test_distances_to_identical_clips_are_in_decibels(scores, name):
    """There are no deviations by which they could be divided."""
    spectrum = scores["spectrum_neighbour"][name]
    assert spectrum[0] < 0.01
    assert spectrum.max() < 1e4


@pytest.mark.slow
def test_odd_machines_do_not_change_the_ordinary_one(crowd, scores):
    """Its numbers are the same bits beside ordinary machines of the same sizes."""
    rng = np.random.default_rng(5)
    usual = [
        (name, clips(noise(rng, len(c.files), len(c.log_mels[0]))))
        for name, c in ODD.items()
    ]
    other = trained(usual)
    for ours, theirs in (
        (crowd.state, other.state),
        (crowd.detector.references, other.detector.references),
        (crowd.detector.scorer, other.detector.scorer),
    ):
        jax.tree.map(
            lambda a, b: np.testing.assert_array_equal(a[:, 0], b[:, 0]),
            dict(ours) if isinstance(ours, dict) else ours,
            dict(theirs) if isinstance(theirs, dict) else theirs,
        )
    found = other.scores(*map(judged_clips, [ordinary_clips(), *(c for _, c in usual)]))
    for score in SCORES:
        np.testing.assert_array_equal(scores[score]["ordinary"], found[score][0, 0])
        ours = of_machine(crowd, "ordinary", "calibration")[score]
        np.testing.assert_array_equal(ours, other.detector.calibration[score][0, 0])


def test_only_a_machine_whose_scores_are_not_finite_is_left_out():
    """Values beyond a machine's clips are padding, and are ignored."""
    test = [(name, clips(noise(np.random.default_rng(0), 2))) for name in "abc"]
    values = np.zeros((1, 3, 4))
    values[0, 1, 1] = np.inf
    values[0, 2, 2] = np.nan
    log = Log(Console(quiet=True))
    usable = finite_machines({"kl": np.zeros((1, 3, 4)), "mse": values}, test, log)
    assert usable == [0, 2]
    assert log.notes == ["b: the scores are not finite, so the machine is left out."]


def detector(**options):
    settings = ["model.hidden=[16]", "model.n_latent=4", "train.batch_size=32"]
    return gv.AnomalyDetector(settings=settings, clip_seconds=1.0, epochs=5, **options)


def hiss(seed, seconds=1.0):
    rng = np.random.default_rng(seed)
    return (0.01 * rng.standard_normal(round(seconds * RATE))).astype(np.float32)


@pytest.mark.usefixtures("one_device")
def test_a_machine_that_always_sounds_the_same_alarms_at_anything_else(capsys):
    """For digital silence and for copies; a note tells the user."""
    sounds = {"silent": np.zeros(RATE, np.float32), "copied": hiss(0)}
    found = detector().fit({m: [sound] * 12 for m, sound in sounds.items()}, RATE)
    notes = " ".join(capsys.readouterr().err.split())
    same = "training clips that all sound the same, like silence or copies"
    assert f"{same}: silent, copied." in notes
    for machine, sound in sounds.items():
        clicked = sound.copy()
        clicked[8000:8040] += 0.5
        # The first is below the floor of the log-mel, the second far beyond full scale.
        odd = [1e-30 * hiss(8), 1e3 * hiss(9)]
        given = [sound, np.tile(sound, 3), hiss(7), clicked, *odd]
        judged = found.score_recordings(given, RATE, machine=machine)
        assert np.isfinite([r.score for r in judged]).all()
        above = [r.score > r.threshold for r in judged]
        assert above == [False, False, True, True, machine == "copied", True]
        # The p-values agree.
        assert [r.p_value <= 0.1 for r in judged] == above
        # Sounds that no fault makes have a state instead.
        faint, loud = judged[4:]
        assert [r.is_anomaly for r in judged[:4]] == above[:4]
        assert not faint.is_anomaly
        assert faint.state == ("off" if machine == "copied" else "running")
        assert loud.state in ("gain changed", "clipped", "running")


def test_a_single_training_window_is_refused():
    clip = hiss(0, 2048 / RATE)
    problem = r"machine: too few windows to train a model \(1; "
    with pytest.raises(InputError, match=problem):
        detector(verbose=False).fit([clip, clip[::-1].copy()], RATE)


def run(data, out, *settings):
    scores = ("--scores", "spectrum_density", "mse")
    run_all(data, out, "--epochs", 1, *scores, *TINY, *settings)
    return notes_of(out)


def test_a_silent_machine_is_noted_and_the_other_one_has_the_same_bytes(data, tmp_path):
    """The main job with a dead microphone, and with more folds than clips."""
    broken = tmp_path / "data"
    shutil.copytree(data, broken)
    for path in (broken / "valve").rglob("*.wav"):
        sound, rate = soundfile.read(path)
        soundfile.write(path, 0 * sound, rate)
    folds = "train.n_folds=9"
    before, after = (
        run(root, tmp_path / name, folds)
        for root, name in ((data, "before"), (broken, "after"))
    )
    assert "all sound the same" not in before
    same = "training clips that all sound the same, like silence or copies"
    assert f"{same}: valve_section_00." in after
    assert "than folds (9): valve_section_00 (7)." in after
    for path in (tmp_path / "before").rglob("*_fan_section_00_test.csv"):
        same = tmp_path / "after" / path.relative_to(tmp_path / "before")
        assert path.read_bytes() == same.read_bytes()
    summary = json.loads((tmp_path / "after" / "summary.json").read_text())
    assert "valve" in " ".join(summary["machines"])


def test_a_run_that_cannot_train_writes_nothing(data, tmp_path, refusal):
    short = tmp_path / "data"
    shutil.copytree(data, short)
    for number, path in enumerate(sorted((short / "valve" / "train").glob("*.wav"))):
        if number > 1:
            path.unlink()
        else:
            soundfile.write(path, hiss(number, 2048 / RATE), RATE)
    message = refusal(
        "run", "--all-machines", "--data-root", short, "--out", tmp_path / "out", *TINY
    )
    problem = "valve_section_00: too few windows to train a model (1; "
    assert problem in message
    assert not (tmp_path / "out").exists()
