"""A checkpoint suffices to score on any number of devices, and reports its damage."""

import contextlib
import errno
import json
import os
import pickle
import shutil
import signal
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp
from support.finished_runs import ABSENT, change_marker, restored
from support.processes import python

from gammavae_jax.config import FUSION_SCORES
from gammavae_jax.data.conditions import to_stored
from gammavae_jax.errors import InputError
from gammavae_jax.runs import checkpoint, stored_arrays
from gammavae_jax.runs.checkpoint import (
    TrainCheckpoint,
    load_detector,
    load_with_files,
    restore_training,
    save_detector,
    save_training,
    training_clips,
)
from gammavae_jax.runs.stored_arrays import FORMAT, validate_sizes
from gammavae_jax.scoring.detector import Detector
from gammavae_jax.scoring.neighbours import fit_reference
from gammavae_jax.scoring.residuals import GaussianFit
from gammavae_jax.scoring.scorer import FittedModel, wanted_statistics
from gammavae_jax.training.step import init_state

MACHINES = (("fan", "00"), ("pump", "02"))
CLIPS = {"fan": ["a.wav"], "pump": ["b.wav", "c.wav"]}


def stacked(one, n_members=2) -> Any:
    """Return the arrays of one model for each of some members and two machines."""
    return jax.tree.map(
        lambda leaf: np.stack([np.stack([leaf, leaf])] * n_members), one
    )


@pytest.fixture
def state(tiny):
    """A training state of one seed with two folds, and two machines."""
    return stacked(init_state(tiny(), jax.random.key(0)))


def references_of(config, rng) -> Any:
    """Return references for two folds and machines: ten clips and two spare entries."""
    one = fit_reference(
        rng.normal(size=(10, 384)),
        np.eye(10, dtype=bool),
        np.ones(10, bool),
        np.arange(10) > 7,
        config.scoring,
        12,
        rng,
    )
    return dict.fromkeys(wanted_statistics(config), stacked(one))


@pytest.fixture
def detector(tiny, state):
    rng = np.random.default_rng(0)
    config = tiny()
    fit = GaussianFit(
        *(rng.normal(size=(2, 2, *s)).astype(np.float32) for s in [(128,), (128, 128)])  # pyright: ignore
    )
    calibration = {
        name: rng.random((1, 2, 10))
        for name in (*config.computed_scores, FUSION_SCORES[0])
    }
    calibration["mse"][0, 1, 7:] = np.nan
    return Detector(
        config=config,
        machines=MACHINES,
        filterbank=rng.random((513, 128)).astype(np.float32),
        scorer=FittedModel(state.params, state.batch_stats, fit, fit),
        references=references_of(config, rng),
        calibration=calibration,
        weights=rng.random((2, 10)),
        thresholds={name: rng.random((1, 2)) for name in config.scores},
    )


def assert_same(ours, expected):
    jax.tree.map(np.testing.assert_array_equal, ours, expected)


def test_a_restored_detector_equals_the_saved_one(tmp_path, detector):
    save_detector(tmp_path, detector)
    back = load_detector(tmp_path)
    assert (back.config, back.machines) == (detector.config, detector.machines)
    assert back.references.keys() == {"spectrum", "maximum", "salient"}
    for part in ("scorer", "filterbank", "weights"):
        assert_same(getattr(back, part), getattr(detector, part))
    for part in ("references", "calibration", "thresholds"):
        assert_same(dict(getattr(back, part)), dict(getattr(detector, part)))


def test_a_detector_without_references_and_calibration_is_restored(
    tmp_path, detector, tiny
):
    """A detector with official thresholds has neither."""
    official = tiny("official")
    state = stacked(init_state(official, jax.random.key(0)), 1)
    fit = jax.tree.map(lambda leaf: leaf[:1], detector.scorer.source)
    bare = replace(
        detector,
        config=official,
        scorer=FittedModel(state.params, state.batch_stats, fit, fit),
        references={},
        calibration={},
        thresholds={name: np.ones((1, 2)) for name in official.scores},
    )
    save_detector(tmp_path, bare)
    back = load_detector(tmp_path)
    assert (dict(back.references), dict(back.calibration)) == ({}, {})
    assert_same(back.scorer, bare.scorer)


def test_a_training_is_restored_at_its_newest_state(tmp_path, state, tiny):
    clips = {"fan_section_00": ["a", "b"], "valve_section_00": ["a", "c"]}
    for epoch in (1, 2):
        now = state._replace(is_stopped=np.array([[False, epoch == 2]] * 2))
        save_training(tmp_path, TrainCheckpoint(epoch, now, tiny(), clips))
    back = restore_training(tmp_path)
    assert back is not None
    assert (back.epoch, back.config, back.clips) == (2, tiny(), clips)
    assert training_clips(tmp_path) == clips
    assert training_clips(tmp_path / "nowhere") == {}
    assert_same(back.state, now)
    names = {path.name for path in (tmp_path / "train").iterdir()}
    assert names == {"1", "1.json", "2", "2.json"}


def test_without_a_training_state_nothing_is_restored(tmp_path):
    assert restore_training(tmp_path) is None


def test_a_checkpoint_of_another_version_is_refused(tmp_path, detector, state, tiny):
    save_detector(tmp_path, detector)
    save_training(tmp_path, TrainCheckpoint(1, state, tiny(), CLIPS))
    for load, name in ((load_detector, "detector"), (restore_training, "train/1")):
        change_marker(tmp_path / f"{name}.json", {"format": 99})
        with pytest.raises(InputError, match="another version"):
            load(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", f'{{"format": {FORMAT}}}', "\x00\xff"]
)
def test_a_detector_with_malformed_json_is_refused(tmp_path, detector, text):
    save_detector(tmp_path, detector)
    (tmp_path / "detector.json").write_text(text)
    with pytest.raises(InputError, match=r"is damaged \(detector.json\)"):
        load_detector(tmp_path)


def flipped(content):
    """Flip one bit of the middle byte."""
    middle = len(content) // 2
    byte = bytes(b ^ 4 for b in content[middle : middle + 1])
    return content[:middle] + byte + content[middle + 1 :]


# None removes the file.
DAMAGES = (lambda content: content[: len(content) // 2], lambda _: b"", flipped, None)


def damaged(files):
    """Damage each file in each way, one after the other, and repair it again."""
    for path in files:
        content = path.read_bytes()
        for damage in DAMAGES:
            if damage is None:
                path.unlink()
            elif damage(content) == content:
                continue  # an empty file cannot be emptied
            else:
                path.write_bytes(damage(content))
            yield path, damage
            path.write_bytes(content)


def test_a_detector_is_refused_whichever_of_its_files_is_damaged(tmp_path, detector):
    save_detector(tmp_path, detector)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    n_refused = 0
    for path, damage in damaged(files):
        is_unmarked = path.name == "detector.json" and damage is None
        message = "contains no detector: pass" if is_unmarked else "is damaged"
        with pytest.raises(InputError, match=message):
            load_detector(tmp_path)
        n_refused += 1
    assert n_refused > 20
    assert load_detector(tmp_path).machines == MACHINES


def test_a_detector_without_its_arrays_is_refused(tmp_path, detector):
    save_detector(tmp_path, detector)
    shutil.rmtree(tmp_path / "detector")
    with pytest.raises(InputError, match="is damaged"):
        load_detector(tmp_path)


@pytest.fixture
def two_states(tmp_path, state, tiny):
    """Return a folder with the states after epochs 2 and 4, and both states."""
    after = {}
    for epoch in (2, 4):
        after[epoch] = jax.tree.map(
            lambda leaf, epoch=epoch: leaf if leaf.dtype == bool else leaf + epoch,
            state,
        )
        save_training(tmp_path, TrainCheckpoint(epoch, after[epoch], tiny(), CLIPS))
    return tmp_path, after


def test_the_previous_state_is_restored_whichever_file_of_the_newest_is_damaged(
    two_states, monkeypatch, capfd
):
    """Orbax, which would print pages of messages, never reads the damaged files."""
    folder, after = two_states
    monkeypatch.setattr(ocp, "load", lambda path, _: after[int(path[-1:])])
    files = [p for p in (folder / "train" / "4").rglob("*") if p.is_file()]
    capfd.readouterr()
    n_damaged = 0
    for path, damage in damaged([folder / "train" / "4.json", *files]):
        messages = []
        back = restored(folder, messages.append)
        assert back.epoch == 2, (path, damage)
        if path.name != "4.json" or damage is not None:  # else there is no such state
            (line,) = messages
            assert "is damaged" in line
            assert "going back to the state after epoch 2" in line
        n_damaged += 1
    assert n_damaged > 20
    assert_same(back.state, after[2])
    assert capfd.readouterr() == ("", "")
    monkeypatch.undo()
    for path in files:
        path.unlink()
    back = restored(folder)
    assert_same(back.state, after[2])


def test_if_no_state_is_intact_the_message_names_the_remedy(two_states):
    folder, _ = two_states
    for epoch in (2, 4):
        flip = folder / "train" / f"{epoch}.json"
        flip.write_bytes(flipped(flip.read_bytes()))
    with pytest.raises(InputError, match=r"train/4' is damaged .* --overwrite"):
        restore_training(folder)


def test_training_on_from_the_previous_state_leaves_two_intact_states(two_states, tiny):
    folder, after = two_states
    (folder / "train" / "4" / "state" / "manifest.ocdbt").write_bytes(b"")
    save_training(folder, TrainCheckpoint(3, after[4], tiny(), CLIPS))
    (folder / "train" / "leftover.orbax-checkpoint-tmp").mkdir()
    save_training(folder, TrainCheckpoint(4, after[4], tiny(), CLIPS))
    names = {path.name for path in (folder / "train").iterdir()}
    assert names == {"3", "3.json", "4", "4.json"}
    back = restored(folder)
    assert_same(back.state, after[4])


def test_a_state_that_cannot_be_written_leaves_the_previous_one(
    two_states, tiny, monkeypatch
):
    folder, after = two_states

    def full(path, *_, **__):
        (folder / "train" / "6.orbax-checkpoint-tmp").mkdir()
        raise ValueError(f"RESOURCE_EXHAUSTED: {path}: {os.strerror(errno.ENOSPC)} [x]")

    monkeypatch.setattr(ocp, "save", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        save_training(folder, TrainCheckpoint(6, after[4], tiny(), CLIPS))
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert len(list((folder / "train").iterdir())) == 4
    back = restored(folder)
    assert back.epoch == 4


def test_a_checkpoint_from_four_devices_is_restored_on_one(tmp_path, detector):
    assert len(jax.devices()) == 4
    save_detector(tmp_path, detector)
    program = (
        "import sys, pathlib, jax\n"
        "from gammavae_jax.runs.checkpoint import load_detector\n"
        "detector = load_detector(pathlib.Path(sys.argv[1]))\n"
        "print(len(jax.devices()), detector.scorer.source.factor.sum())"
    )
    devices, total = python("-c", program, tmp_path).stdout.split()
    assert devices == "1"
    np.testing.assert_allclose(
        float(total), detector.scorer.source.factor.sum(), rtol=1e-5
    )


@pytest.mark.usefixtures("heeded_interrupts")
def test_an_interrupt_waits_until_a_state_is_saved(tmp_path, state, tiny, monkeypatch):
    save = ocp.save

    def interrupted(*arguments, **keywords):
        signal.raise_signal(signal.SIGINT)
        save(*arguments, **keywords)

    monkeypatch.setattr(ocp, "save", interrupted)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        save_training(tmp_path, TrainCheckpoint(1, state, tiny(), {"a": [], "b": []}))
    assert signal.getsignal(signal.SIGINT) is before
    back = restored(tmp_path)
    assert back.epoch == 1


HUGE = 2**38
CONDITIONS = {
    "seconds": [10.0, 10.0],
    "level": [-30.5, -20],
    "sample_rates": [16000],
    "channels": [],
    "shortest": 2.5,
    "n_recordings": 3.0,
    "total_seconds": 30.0,
    "recording_sizes": [1, 1],
    "sound": None,
    "domains": None,
}
DOMAINS = {"direction": [0.5] * 128, "offset": -1.5, "is_target": [0, 1]}
SOUND = {
    "spectrum": [-40.0] * 128,
    "lowest": [-10] * 128,
    **dict.fromkeys(("quietest", "quietest_part", "softest", "loudest"), -1.5),
    **{"spread": 3.5, "swing": [2.5, 3.5], "silent": 0.0, "clipped": 0.01},
}
LIES = {
    "machines are not a list": {"machines": 5},
    "no machine": {"machines": []},
    "machines are not names": {"machines": [[1, "00"], ["pump", "02"]]},
    "a machine of three parts": {"machines": [["fan", "00", "x"], ["pump", "02"]]},
    "identical machines": {"machines": [["fan", "00"]] * 2},
    "a machine that moves the cursor": {"machines": [["\x1b[2J", "00"], ["b", "02"]]},
    "more machines than arrays": {"machines": [[str(n), "00"] for n in range(3)]},
    "references are a list": {"references": []},
    "references of a huge shape": {"references": {"spectrum": [HUGE, HUGE]}},
    "references of another shape": {"references": {"spectrum": [13, 384]}},
    "references of an invalid shape": {"references": {"spectrum": [12, -1]}},
    "references of another name": {"references": {"../../x": [12, 384]}},
    "calibration of a huge size": {"calibration": {"mse": HUGE}},
    "calibration of an invalid size": {"calibration": {"mse": True}},
    "calibration is null": {"calibration": None},
    "conditions are a list": {"conditions": []},
    "conditions without a level": {"conditions": {"fan": {"seconds": [1, 2]}}},
    "conditions of an infinite length": {
        "conditions": {"fan": CONDITIONS | {"seconds": [1e300, 1e308]}}
    },
    "conditions of more clips than there are": {
        "conditions": {"fan": CONDITIONS | {"recording_sizes": [HUGE]}}
    },
    "conditions of another type": {"conditions": {"fan": CONDITIONS | {"level": "-3"}}},
    **{
        f"a usual sound with {what}": {
            "conditions": {"fan": CONDITIONS | {"sound": of}}
        }
        for what, of in {
            "no spectrum": {n: v for n, v in SOUND.items() if n != "spectrum"},
            "a short spectrum": SOUND | {"spectrum": [-40.0] * 127},
            "a long list": SOUND | {"lowest": [-40.0] * 129},
            "an infinite level": SOUND | {"quietest": float("inf")},
            "no number": SOUND | {"loudest": float("nan")},
            "text": SOUND | {"spectrum": ["-40"] * 128},
            "a third limit": SOUND | {"swing": [1, 2, 3]},
            "another field": SOUND | {"__class__": 1},
            "no fields": list(SOUND.values()),
        }.items()
    },
    **{
        f"domains with {what}": {"conditions": {"fan": CONDITIONS | {"domains": of}}}
        for what, of in {
            "a short direction": DOMAINS | {"direction": [0.5] * 127},
            "more clips than there are": DOMAINS | {"is_target": [0] * 10_000},
            "text": DOMAINS | {"is_target": "01"},
            "no offset": {n: v for n, v in DOMAINS.items() if n != "offset"},
        }.items()
    },
    "the configuration is a list": {"config": []},
    "a configuration of huge layers": {"config": {"model": {"hidden": [HUGE]}}},
    "a configuration of huge spectra": {"config": {"features": {"n_fft": HUGE}}},
    "a configuration of many seeds": {"config": {"n_seeds": HUGE}},
    "a configuration of another type": {"config": {"model": {"hidden": "os.system"}}},
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_lying_checkpoint_is_refused_before_memory_is_allocated(tmp_path, detector):
    save_detector(tmp_path, detector)
    marker = tmp_path / "detector.json"
    original = marker.read_text()
    for what, lie in LIES.items():
        change_marker(marker, lie)
        tracemalloc.start()
        try:
            with pytest.raises(InputError) as caught:
                load_detector(tmp_path)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            marker.write_text(original)
        assert str(caught.value).isprintable(), what
        if not what.endswith(("infinite level", "no number")):  # which JSON lacks
            # The checksum is valid, so the file is not damaged.
            assert "(detector.json)" not in str(caught.value), what
        assert peak < 2e8, what
    for field in json.loads(original).keys() - {"sum"}:
        change_marker(marker, {field: ABSENT})
        with pytest.raises(InputError):
            load_detector(tmp_path)
        marker.write_text(original)


@pytest.mark.parametrize("sound", [None, SOUND], ids=["unknown", "known"])
@pytest.mark.parametrize("domains", [None, DOMAINS], ids=["pooled", "by domain"])
def test_stored_conditions_are_read(tmp_path, detector, sound, domains):
    save_detector(tmp_path, detector)
    conditions = {"fan": CONDITIONS | {"sound": sound, "domains": domains}}
    change_marker(tmp_path / "detector.json", {"conditions": conditions})
    found = load_detector(tmp_path).conditions["fan"]
    assert found.sample_rates == (16000,)
    assert json.loads(json.dumps(to_stored(found))) == conditions["fan"]


@pytest.mark.parametrize(
    "lie",
    [
        {"clips": []},
        {"clips": {}},
        {"clips": {"a": "b.wav"}},
        {"clips": {"a": [1], "b": []}},
        {"n_batches": HUGE},
        {"n_batches": "1"},
        {"config": None},
    ],
    ids=str,
)
def test_a_lying_training_state_is_refused(tmp_path, state, tiny, lie):
    save_training(tmp_path, TrainCheckpoint(1, state, tiny(), {"a": [], "b": []}))
    path = tmp_path / "train" / "1.json"
    change_marker(path, {})
    assert restore_training(tmp_path) is not None
    change_marker(path, lie)
    with pytest.raises(InputError, match="checkpoint"):
        restore_training(tmp_path)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_pickle_in_a_checkpoint_is_never_loaded(tmp_path, detector):
    """Whichever file is replaced by one."""
    save_detector(tmp_path / "checkpoint", detector)

    def bomb(path):
        """Return a pickle that creates a folder when it is loaded."""
        return f"cos\nmkdir\n(S'{path}'\ntR.".encode()

    pickle.loads(bomb(tmp_path / "armed"))
    assert (tmp_path / "armed").is_dir()
    for path in sorted(p for p in (tmp_path / "checkpoint").rglob("*") if p.is_file()):
        whole = path.read_bytes()
        path.write_bytes(bomb(tmp_path / "went off"))
        with contextlib.suppress(InputError):
            load_detector(tmp_path / "checkpoint")
        path.write_bytes(whole)
    assert not (tmp_path / "went off").exists()
    load_detector(tmp_path / "checkpoint")


@pytest.mark.parametrize(("shape", "chunk"), [((HUGE, 3), (1, 3)), ((2, 3), (HUGE,))])
def test_arrays_that_claim_far_more_bytes_than_are_stored_are_refused(
    tmp_path, shape, chunk
):
    (tmp_path / "x").write_bytes(bytes(10))
    storage = SimpleNamespace(chunk_shape=chunk)
    array = SimpleNamespace(
        shape=shape, dtype=np.dtype(np.float32), storage_metadata=storage
    )
    with pytest.raises(InputError, match="bytes of arrays, but holds 10"):
        validate_sizes(tmp_path, {"a": [array]})
    array.shape, storage.chunk_shape = (2, 3), (2, 3)
    validate_sizes(tmp_path, {"a": [array]})


def test_a_file_that_may_not_be_read_is_not_called_damaged(
    tmp_path, detector, monkeypatch
):
    save_detector(tmp_path, detector)
    denied = (errno.EACCES, errno.EPERM, errno.EMFILE)

    def check(function, number):
        def refuse(*_, **__):
            raise OSError(number, os.strerror(number), "x")

        with monkeypatch.context() as patch:
            patch.setattr(*function, refuse)
            with pytest.raises(InputError) as caught:
                load_detector(tmp_path)
        message = str(caught.value)
        assert os.strerror(number) in message
        for word in ("damaged", "overwrite", "restore", "retrain"):
            assert word not in message

    for number in denied:
        check((stored_arrays, "file_checksums"), number)
        check((stored_arrays.ocp, "load"), number)
    check((stored_arrays, "read_json"), errno.EACCES)


def test_an_unreadable_newest_state_is_not_replaced_by_the_previous_one(
    two_states, monkeypatch
):
    folder, _ = two_states

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied", "x")

    monkeypatch.setattr(stored_arrays, "file_checksums", refuse)
    with pytest.raises(InputError, match="Permission denied"):
        restore_training(folder)


def test_a_missing_device_is_not_called_damage(tmp_path, detector, monkeypatch):
    save_detector(tmp_path, detector)

    def missing():
        raise RuntimeError("Unable to initialize backend 'cuda'")

    monkeypatch.setattr(jax, "local_devices", missing)
    with pytest.raises(InputError, match="backend 'cuda'") as caught:
        load_detector(tmp_path)
    assert "damaged" not in str(caught.value)


def test_files_saved_with_a_detector_are_covered_by_its_checksums(tmp_path, detector):
    save_detector(tmp_path, detector, {"a.json": "12.5\n"})
    assert load_with_files(tmp_path)[1] == {"a.json": b"12.5\n"}
    for _ in damaged([tmp_path / "a.json"]):
        with pytest.raises(InputError, match=r"is damaged \(a\.json\)"):
            load_detector(tmp_path)


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/b", "..", "", "a\n"])
def test_a_checkpoint_names_no_file_elsewhere(tmp_path, detector, name):
    save_detector(tmp_path, detector)
    change_marker(tmp_path / "detector.json", {"beside": {name: "0" * 64}})
    with pytest.raises(InputError, match="'beside' is malformed"):
        load_detector(tmp_path)


@pytest.mark.parametrize("is_gone", [False, True], ids=["replaced", "between"])
def test_a_detector_that_is_replaced_while_it_is_read_is_loaded_again(
    tmp_path, detector, monkeypatch, is_gone
):
    old, new = tmp_path / "d", tmp_path / "new"
    save_detector(old, detector)
    save_detector(new, replace(detector, weights=detector.weights + 1))
    read_marker = stored_arrays.read_marker

    def replaced_meanwhile(path):
        monkeypatch.undo()
        about = read_marker(path)
        shutil.rmtree(old)
        if is_gone:  # the other process adds its detector a moment later
            threading.Timer(0.02, new.rename, [old]).start()
        else:
            new.rename(old)
        return about

    monkeypatch.setattr(checkpoint, "read_marker", replaced_meanwhile)
    assert_same(load_detector(old).weights, detector.weights + 1)


def test_threads_may_save_and_load_detectors_at_the_same_time(tmp_path, detector):
    def save_and_load(name):
        for _ in range(3):
            save_detector(tmp_path / name, detector)
            assert_same(load_detector(tmp_path / name).weights, detector.weights)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(save_and_load, "abcd"))
