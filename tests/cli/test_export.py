"""`gammavae export`: writes complete, checked and reproducible files, or none."""

import contextlib
import importlib.util
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import onnx
import pytest
import soundfile
from support.detectors import small
from support.exported import answers, onnx_bytes, part, trained, wave
from support.processes import ROOT, python

from gammavae_jax.cli.export import Export
from gammavae_jax.config import ModelConfig
from gammavae_jax.errors import InputError
from gammavae_jax.export.checked_files import (
    N_SOUNDS,
    TOLERANCE,
    Exported,
    built_in,
    difference,
    int8_cost,
    onnx_session,
)
from gammavae_jax.export.machine import narrowed, of_machine
from gammavae_jax.export.onnx_file import onnx_model, quantised, to_bytes
from gammavae_jax.models.layers import HEADS
from gammavae_jax.runs.checkpoint import save_detector
from gammavae_jax.scoring.fusion import standard_of

NAMES = ("mixed_section_00", "source_section_00")


@pytest.fixture(scope="module")
def detector():
    scores = 'scores=["fusion_mean","spectrum_density","mse"]'
    fused = 'scoring.fused=["mse","spectrum_density"]'
    return trained(small("gammavae", scores, fused, "n_seeds=2"), 40).detector


@pytest.fixture(scope="module")
def checkpoint(detector, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "checkpoint"
    folder.mkdir()
    save_detector(folder, detector)
    return folder


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    """A folder with all files, and what the command printed."""
    out = tmp_path_factory.mktemp("exported") / "new" / "folder"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert Export(checkpoint, out, int8=True).run() == 0
    return out, printed.getvalue()


@pytest.fixture
def quick(monkeypatch):
    """Write dummy files without any scoring."""

    def export(machine, sounds, expected, with_int8):
        name = f"{machine.name}.onnx"
        return {name: b"new"}, Exported({name: 3}, 0.0, None)

    monkeypatch.setattr("gammavae_jax.export.checked_files._export", export)
    monkeypatch.setattr(
        "gammavae_jax.export.checked_files.jax_scores",
        lambda detector, waves: [np.zeros(len(x)) for x in waves],
    )


def write_wav(path, samples, rate=16000):
    soundfile.write(path, samples.astype(np.int16), rate)


def test_the_command_writes_the_files_of_each_machine_and_prints_their_sizes(exported):
    out, printed = exported
    expected = {f"{n}{end}" for n in NAMES for end in (".onnx", "_int8.onnx")}
    assert {path.name for path in out.iterdir()} == expected
    for name in NAMES:
        (line,) = [line for line in printed.splitlines() if name in line]
        files = [out / f"{name}{end}" for end in (".onnx", "_int8.onnx")]
        sizes = [f"{path.stat().st_size / 1000:.0f}" for path in files]
        assert line.split()[1:3] == sizes
        assert "rank correlation" in line


@pytest.mark.slow
def test_another_process_writes_the_same_bytes(exported, checkpoint, tmp_path):
    """Its strings have other hashes. No library prints a warning."""
    out, _ = exported
    code = (
        "import sys, tyro; from gammavae_jax.cli.export import Export; "
        "sys.exit(tyro.cli(Export).run())"
    )
    arguments = ["--checkpoint", checkpoint, "--out", tmp_path, "--int8"]
    run = python("-c", code, *arguments, PYTHONHASHSEED="1")
    assert "WARNING" not in run.stderr.upper()
    for path in out.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_a_file_has_the_same_bytes_each_time_and_no_paths(exported, detector):
    out, _ = exported
    machine = part(detector)
    model = onnx_model(machine)
    again = {".onnx": to_bytes(model), "_int8.onnx": to_bytes(quantised(model))}
    for end, content in again.items():
        assert content == (out / f"{machine.name}{end}").read_bytes(), end
        for folder in (ROOT, Path(jax.__file__).parent, Path.home()):
            assert str(folder).encode() not in content


def test_an_exported_file_names_its_machine_score_and_settings(exported, detector):
    out, _ = exported
    session = onnx_session((out / "mixed_section_00.onnx").read_bytes())
    about = session.get_modelmeta().custom_metadata_map
    names = {
        **{"machine": "mixed", "section": "00", "score": "fusion_mean"},
        "preset": "gammavae",
    }
    assert names.items() <= about.items()
    numbers = {
        "threshold": detector.thresholds["fusion_mean"][0, 0],
        "seed": detector.config.seed,
        "false_alarm_rate": 0.1,
        "sample_rate": 16000,
        "min_samples": 2048,
        "calibration_clips": 14,
    }
    assert {name: float(about[name]) for name in numbers} == numbers
    assert json.loads(about["config"])["features"]["n_mels"] == 128
    assert len(about["training_sha256"]) == 64
    (wave_in,) = session.get_inputs()
    assert (wave_in.name, wave_in.type) == ("wave", "tensor(float)")


def test_the_hash_depends_on_the_training_but_not_on_score_and_rate(detector):
    def hashed(changed, score="mse", machine=0, seed=None):
        return part(changed, score, machine, seed).training_sha256

    same = hashed(detector)
    assert hashed(detector, "fusion_mean") == same
    params = {**detector.scorer.params}
    params[HEADS[0]] = {k: v.copy() for k, v in params[HEADS[0]].items()}
    params[HEADS[0]]["bias"][0, 0, 0] += 1e-6
    moved = replace(detector, scorer=detector.scorer._replace(params=params))
    scoring = replace(detector.config.scoring, false_alarm_rate=0.2)
    stricter = replace(detector, config=replace(detector.config, scoring=scoring))
    assert hashed(stricter) == same  # the rate can be changed without training
    seed = detector.config.seed + 1
    others = [hashed(moved), hashed(detector, machine=1), hashed(detector, seed=seed)]
    assert len({same, *others}) == 4


# Simulates a computer without JAX: only these packages can be imported.
ALONE = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        first = name.split(".")[0]
        if first not in sys.stdlib_module_names | {"numpy", "onnxruntime"}:
            raise ModuleNotFoundError(f"{name} is not installed here", name=name)
sys.meta_path.insert(0, Nothing())
import runpy
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_example(*arguments):
    return run_alone(ROOT / "examples" / "score_onnx.py", *arguments)


def run_alone(*arguments):
    return python("-c", ALONE, *arguments, check=False)


def test_the_example_scores_a_wav_where_jax_is_not_installed(exported, tmp_path):
    out, _ = exported
    rng = np.random.default_rng(4)
    quiet, loud = (
        np.round(32768 * np.clip(wave(rng, 9000, tone=t), -1, 0.999)) for t in (0, 9)
    )
    write_wav(tmp_path / "quiet.wav", quiet)
    write_wav(tmp_path / "loud.wav", np.stack([loud, quiet], axis=1))
    model = out / "mixed_section_00.onnx"
    paths = [tmp_path / "quiet.wav", tmp_path / "loud.wav"]
    run = run_example(model, *paths)
    assert run.returncode == 0, run.stderr
    waves = [(x / 32768).astype(np.float32) for x in (quiet, loud)]
    for line, answer in zip(
        run.stdout.splitlines(), answers(model.read_bytes(), waves), strict=True
    ):
        assert f"score {answer.score:.4f}, p-value {answer.p_value:.4f}" in line
        assert line.endswith("ALARM" if answer.is_anomaly else "normal")
    assert "quiet.wav" in run.stdout.splitlines()[0]
    assert "ALARM" in run.stdout.splitlines()[1]


def test_the_example_reads_the_channel_that_the_detector_was_trained_on(
    exported, tmp_path
):
    out, _ = exported
    model = onnx.load(out / "mixed_section_00.onnx")
    (channel,) = (p for p in model.metadata_props if p.key == "channel")
    assert channel.value == "0"
    channel.value = "1"
    onnx.save(model, tmp_path / "second.onnx")
    rng = np.random.default_rng(4)
    first, second = (np.round(3000 * wave(rng, 9000, tone=t)) for t in (9, 0))
    stereo, mono = tmp_path / "stereo.wav", tmp_path / "mono.wav"
    write_wav(stereo, np.stack([first, second], axis=1))
    write_wav(mono, second)
    of_second = run_example(tmp_path / "second.onnx", stereo).stdout
    alone = run_example(out / "mixed_section_00.onnx", mono).stdout
    assert of_second.split(": ")[1] == alone.split(": ")[1]
    assert "no channel 1" in run_example(tmp_path / "second.onnx", mono).stderr


def test_the_example_refuses_a_wrong_rate_and_a_short_recording(exported, tmp_path):
    out, _ = exported
    write_wav(tmp_path / "slow.wav", np.zeros(9000), rate=8000)
    write_wav(tmp_path / "short.wav", np.zeros(2047))
    for name, reason in (("slow.wav", "16000 Hz"), ("short.wav", "2048 samples")):
        run = run_example(out / "mixed_section_00.onnx", tmp_path / name)
        assert run.returncode == 1
        assert reason in run.stderr
        assert "Traceback" not in run.stderr


def test_the_simulated_computer_cannot_import_jax(tmp_path):
    for name in ("jax", "gammavae_jax", "scipy", "soundfile"):
        (tmp_path / "script.py").write_text(f"import {name}")
        assert "is not installed here" in run_alone(tmp_path / "script.py").stderr


def test_int8_weights_keep_the_order_of_the_scores(detector):
    machine = part(detector, "mse")
    waves = built_in(machine).waves
    model = onnx.load_from_string(onnx_bytes(detector, "mse"))
    small_one = quantised(model)
    of_network = [n.op_type for n in small_one.graph.node if "network/" in n.name]
    assert of_network.count("MatMulInteger") == 2 * 5  # members, products each
    kinds = {t.data_type for t in small_one.graph.initializer if len(t.dims) == 2}
    assert kinds == {onnx.TensorProto.INT8, onnx.TensorProto.FLOAT}
    before, after = (
        np.array([a.score for a in answers(m.SerializeToString(), waves)])
        for m in (model, small_one)
    )
    assert np.max(np.abs(after / before - 1)) > 1e-4
    assert float(int8_cost(after, before, None).split()[-1]) > 0.9
    labels = np.arange(N_SOUNDS) % 2 == 0
    assert int8_cost(before, before, labels).endswith("(+0.00)")
    assert int8_cost(labels * 1.0, 1.0 - labels, labels) == (
        "AUC from 0.00 to 100.00 % (+100.00)"
    )
    assert int8_cost(-before, before, None).endswith("rank correlation -1.0000")


def test_int8_without_a_network_is_refused(detector):
    with pytest.raises(InputError, match="leave out --int8"):
        quantised(onnx_model(part(detector, "spectrum_density")))


def test_chosen_machines_and_seeds_are_exported(detector):
    seed = detector.config.seed + 1
    chosen = narrowed(detector, ("source",), seed, "mse")
    assert chosen.machines == (("source", "00"),)
    assert chosen.config.seeds == (seed,)
    machine = of_machine(chosen, 0)
    assert machine.threshold == detector.thresholds["mse"][1, 1]
    for ours, fold in zip(machine.members, (2, 3), strict=True):
        theirs = detector.scorer.source.factor[fold, 1]
        np.testing.assert_array_equal(ours.scorer.source.factor, theirs)


def test_with_labelled_clips_the_cost_of_int8_is_an_auc(checkpoint, tmp_path, capsys):
    rng = np.random.default_rng(0)
    folder = tmp_path / "data" / "source" / "test"
    folder.mkdir(parents=True)
    for number in range(6):
        label = ("normal", "anomaly")[number % 2]
        sound = 30000 * wave(rng, 5000 + 100 * number, tone=6.0 * (number % 2))
        name = f"section_00_source_test_{label}_{number:04d}.wav"
        write_wav(folder / name, np.clip(sound, -32768, 32767))
    out = tmp_path / "out"
    data = tmp_path / "data"
    command = Export(checkpoint, out, ("source",), int8=True, data_root=data)
    assert command.run() == 0
    (line,) = [x for x in capsys.readouterr().out.splitlines() if "source_section" in x]
    assert "AUC from 100.00 to 100.00 % (+0.00)" in line
    write_wav(folder / "section_00_source_test_normal_0009.wav", np.zeros(300))
    with pytest.raises(InputError, match=r"0009\.wav.* needs 2048"):
        replace(command, out=tmp_path / "other").run()
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"machines": ("mixd",)}, "did you mean 'mixed'"),
        ({"seed": 3}, "unknown seed of the checkpoint '3'"),
        ({"score": "mahalanobis"}, "unknown score of the checkpoint 'mahalanobis'"),
        ({"checkpoint": Path("nowhere")}, "'nowhere' does not exist: pass"),
        ({"data_root": Path("nowhere")}, "data root 'nowhere' is not a folder"),
    ],
)
def test_an_unknown_name_or_folder_is_refused_by_name(
    checkpoint, tmp_path, changes, message
):
    command = Export(**{"checkpoint": checkpoint, "out": tmp_path / "out", **changes})
    with pytest.raises(InputError, match=message):
        command.run()
    assert not (tmp_path / "out").exists()


def test_a_score_or_precision_that_cannot_be_exported_is_named(detector):
    config = detector.config

    def refused(message, **changes):
        changed = replace(detector, config=replace(config, **changes))
        with pytest.raises(InputError, match=message) as caught:
            narrowed(changed)
        assert "\n" not in str(caught.value)

    problem = "'kl' cannot be exported: set --score to one of mse"
    refused(problem, score="kl", scores=("kl", "mse"))
    refused(
        "'fusion_mean', which fuses 'kl', cannot be exported",
        scoring=replace(config.scoring, fused=("mse", "kl")),
    )
    refused("precision=bfloat16", model=ModelConfig(precision="bfloat16"))
    refused(
        "reference_channel cannot be exported, .* takes one channel: score with",
        features=replace(config.features, reference_channel=1),
    )


def test_a_machine_with_a_failed_model_is_named(detector):
    def spoil(leaf):
        leaf = np.array(leaf)
        leaf[1, 1] = np.nan
        return leaf

    scorer = detector.scorer
    spoiled = scorer._replace(batch_stats=jax.tree.map(spoil, scorer.batch_stats))
    broken = narrowed(replace(detector, scorer=spoiled))
    of_machine(broken, 0)
    with pytest.raises(InputError, match="source_section_00 cannot be exported"):
        of_machine(broken, 1)


def test_a_false_alarm_rate_changes_the_threshold_but_not_the_hash(
    quick, checkpoint, tmp_path, monkeypatch, capsys
):
    def export(machine, *_):
        machines.append(machine)
        return {f"{machine.name}.onnx": b"new"}, Exported({machine.name: 3}, 0.0, None)

    machines = []
    monkeypatch.setattr("gammavae_jax.export.checked_files._export", export)
    Export(checkpoint, tmp_path / "a").run()
    assert "independent recordings" not in capsys.readouterr().err
    Export(checkpoint, tmp_path / "b", false_alarm_rate=0.5).run()
    for usual, often in zip(machines[:2], machines[2:], strict=True):
        assert often.threshold < usual.threshold
        assert often.training_sha256 == usual.training_sha256
    Export(checkpoint, tmp_path / "c", false_alarm_rate=0.001).run()
    assert "needs 999 independent recordings" in capsys.readouterr().err


def test_files_are_not_replaced_without_overwrite(quick, checkpoint, tmp_path):
    old = tmp_path / "mixed_section_00_int8.onnx"
    old.write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    command = Export(checkpoint, tmp_path, machines=("mixed",))
    with pytest.raises(InputError, match="add --overwrite"):
        command.run()
    assert old.read_text() == "old"
    replace(command, overwrite=True).run()
    names = {path.name for path in tmp_path.iterdir()}
    # Otherwise the int8 file of an earlier training would remain.
    assert names == {"mixed_section_00.onnx", "notes.txt"}


def test_a_file_with_other_scores_is_not_written(checkpoint, tmp_path, monkeypatch):
    """For example one whose window is symmetric instead of periodic."""
    monkeypatch.setattr("gammavae_jax.export.nodes.hann", np.hanning)
    with pytest.raises(
        InputError, match=r"_section_00\.onnx differ from the JAX scores"
    ):
        Export(checkpoint, tmp_path / "out").run()
    assert not (tmp_path / "out").exists()


def test_a_full_disk_adds_no_file_and_removes_none(
    quick, checkpoint, tmp_path, monkeypatch
):
    old = tmp_path / "source_section_00.onnx"
    old.write_text("old")
    write = Path.write_bytes

    def write_some(path, data):
        if path.name.startswith("source"):
            raise OSError(28, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", write_some)
    with pytest.raises(InputError, match="No space left on device"):
        Export(checkpoint, tmp_path, overwrite=True).run()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_an_error_between_two_files_leaves_every_file_complete(
    quick, checkpoint, tmp_path, monkeypatch
):
    names = [f"{name}.onnx" for name in NAMES]
    for name in [*names, "mixed_section_00_int8.onnx"]:
        (tmp_path / name).write_text("old")
    rename = os.replace

    def rename_first(source, target):
        if Path(target).name != names[0]:
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "replace", rename_first)
    with pytest.raises(InputError, match="Input/output error"):
        Export(checkpoint, tmp_path, overwrite=True).run()
    left = {path.name: path.read_bytes() == b"old" for path in tmp_path.iterdir()}
    old = {names[1]: True, "mixed_section_00_int8.onnx": True}
    assert left == {names[0]: False, **old}


def test_a_missing_package_names_the_extra(checkpoint, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *rest: None if name == "onnxruntime" else find(name, *rest),
    )
    with pytest.raises(InputError, match=r'pip install "gammavae-jax\[export\]"'):
        Export(checkpoint, tmp_path).run()


def test_the_check_notices_a_difference_of_a_thousandth(detector):
    machine = part(detector, "mse")
    # All of them exceed the spread of the held-out scores.
    unit = standard_of("mse", machine.calibration["mse"]).unit[0]
    scores = unit * np.array([5.0, 200.0, 30.0])
    assert difference(scores, scores, machine) == 0
    off = scores * [1, 1, 1 + 2 * TOLERANCE]
    assert difference(off, scores, machine) > TOLERANCE
    broken = unit * np.array([5.0, np.nan, 30.0])
    assert not difference(broken, scores, machine) <= TOLERANCE


def test_the_built_in_sounds_have_different_lengths_from_the_shortest(detector):
    machine = part(detector)
    waves = built_in(machine).waves
    lengths = [len(sound) for sound in waves]
    assert min(lengths) == lengths[0] == machine.min_samples
    assert len(set(lengths)) == N_SOUNDS
    assert max(np.abs(sound).max() for sound in waves) < 2
    for sound, again in zip(waves, built_in(machine).waves, strict=True):
        np.testing.assert_array_equal(sound, again)


def test_a_file_whose_scores_are_not_numbers_is_not_written(
    checkpoint, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "gammavae_jax.export.checked_files.onnx_scores",
        lambda content, waves: np.full(len(waves), np.nan, np.float32),
    )
    with pytest.raises(InputError, match="differ from the JAX scores by nan"):
        Export(checkpoint, tmp_path / "out").run()
    assert not (tmp_path / "out").exists()
