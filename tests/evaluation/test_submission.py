"""Submission packages for the challenge."""

import json
import os
import shutil

import numpy as np
import pytest

from gammavae_jax.config import Config, ModelConfig, TrainConfig
from gammavae_jax.config_json import to_dict
from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.score_files import write_decisions, write_scores
from gammavae_jax.evaluation.submission import (
    check_package,
    meta_yaml,
    write_submission,
)

yaml = pytest.importorskip("yaml")

LABEL = "Doe_JKU_task2_1"
NAMES = [f"section_00_{k:04}.wav" for k in range(4)]
SCORES = np.array([0.5, 2.5, 1.0, 3.0], np.float32)
CONFIG = Config(score="mahalanobis", scores=("mse", "mahalanobis"), seed=7, n_seeds=2)
SECTIONS = [("3DPrinter", "00"), ("fan", "00")]
SCORE_FILE = "anomaly_score_fan_section_00_test.csv"
DECISION_FILE = "decision_result_fan_section_00_test.csv"


@pytest.fixture
def run(tmp_path):
    """Write a run of two machines, two scores and two seeds; all values differ."""
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.json").write_text(json.dumps(to_dict(CONFIG)))
    for s, score in enumerate(CONFIG.scores):
        for seed in CONFIG.seeds:
            for machine, section in SECTIONS:
                folder = out / "scores" / score / f"seed{seed}"
                values = SCORES + 10 * s + 100 * seed
                write_scores(folder, machine, section, NAMES, values)
                write_decisions(folder, machine, section, NAMES, SCORES > 2)
    return out


@pytest.fixture
def headline(run):
    """Return the folder of the scores that are submitted by default."""
    return run / "scores" / "mahalanobis" / "seed7"


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(run, out, match, **options):
    """Check that the submission is refused in one line and nothing is written."""
    with pytest.raises(InputError, match=match) as caught:
        write_submission(run, out, **{"label": LABEL, **options})
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_a_package_has_the_files_of_the_run_and_a_meta_file(run, headline, tmp_path):
    package = write_submission(run, tmp_path / "new" / "entries", LABEL)
    assert package == (tmp_path / "new" / "entries" / LABEL, "mahalanobis", 7, 2)
    written = files(package.folder)
    assert LABEL.encode() in written.pop(f"{LABEL}.meta.yaml")
    assert written == files(headline)
    assert set(written) == {
        f"{kind}_{machine}_section_00_test.csv"
        for kind in ("anomaly_score", "decision_result")
        for machine in ("3DPrinter", "fan")
    }
    assert list(package.folder.parent.iterdir()) == [package.folder]


def test_another_score_and_seed_can_be_submitted(run, tmp_path):
    package = write_submission(run, tmp_path / "entries", LABEL, "mse", 8)
    expected = files(run / "scores" / "mse" / "seed8")
    assert (package.score, package.seed) == ("mse", 8)
    assert expected.items() <= files(package.folder).items()


def test_an_existing_package_is_refused_and_kept(run, tmp_path):
    folder = tmp_path / "entries" / LABEL
    folder.mkdir(parents=True)
    with pytest.raises(InputError, match=f"{LABEL} exists"):
        write_submission(run, folder.parent, LABEL)
    assert list(folder.parent.iterdir()) == [folder]
    assert not list(folder.iterdir())
    other = write_submission(run, folder.parent, LABEL.replace("1", "2"))
    assert other.folder.is_dir()


def test_a_dangling_link_counts_as_an_existing_package(run, tmp_path):
    (tmp_path / LABEL).symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=f"{LABEL} exists"):
        write_submission(run, tmp_path, LABEL)


MALFORMED = "|Doe|Doe_JKU_task1_1|Doe_JKU_task2_5|Doe_task2_1|_JKU_task2_1|"
MALFORMED += "../Doe_JKU_task2_1|Doe_JKU_task2_1/|Doe_JKU_task2_1\n|D e_JKU_task2_1"


@pytest.mark.parametrize("label", MALFORMED.split("|"))
def test_a_malformed_label_is_refused(run, tmp_path, label):
    refused(run, tmp_path / "out", "is not of the form Author_Aff", label=label)


@pytest.mark.parametrize("label", ["Xiao_HEU-HIT_task2_3", "FalconPerez_Aalto_task2_4"])
def test_labels_of_real_entries_are_accepted(run, tmp_path, label):
    assert write_submission(run, tmp_path, label).folder.name == label


def test_a_score_or_seed_that_the_run_lacks_is_refused(run, tmp_path):
    out = tmp_path / "out"
    refused(run, out, "score of this run 'msee': did you mean 'mse'", score="msee")
    refused(run, out, "seed of this run '9': use one of 7, 8", seed=9)


UNREADABLE = [*((text, " cannot be read") for text in (None, "", "{", "\udcff"))]
OTHERS = ('{"architectures": ["Bert"]}', ": unknown field 'architectures'")


@pytest.mark.parametrize(("text", "message"), [*UNREADABLE, OTHERS])
def test_a_folder_without_the_configuration_of_a_run_is_refused(
    run, tmp_path, text, message
):
    (run / "config.json").unlink()
    if text is not None:
        (run / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    refused(run, tmp_path / "out", rf"config\.json{message}")


def test_an_unfinished_run_is_refused(run, tmp_path):
    shutil.rmtree(run / "scores")
    refused(run, tmp_path / "out", r"seed7 is not a folder")
    (run / "scores" / "mahalanobis" / "seed7").mkdir(parents=True)
    refused(run, tmp_path / "out", r"seed7 has no anomaly_score_\*\.csv")


@pytest.mark.parametrize("missing", [DECISION_FILE, SCORE_FILE])
def test_a_score_file_and_its_decision_file_need_each_other(
    run, headline, tmp_path, missing
):
    (headline / missing).unlink()
    refused(run, tmp_path / "out", f"has no {missing}: add it")


def test_a_machine_scored_under_another_score_is_required(run, headline, tmp_path):
    (headline / SCORE_FILE).unlink()
    (headline / DECISION_FILE).unlink()
    problem = f"seed7 has no {SCORE_FILE}, but the run includes fan section 00"
    refused(run, tmp_path / "out", problem)


def test_a_trained_machine_is_required(run, tmp_path):
    epoch = {"epoch": 1, "machines": {"fan_section_00": {}, "pump_section_01": {}}}
    (run / "metrics.jsonl").write_text(json.dumps(epoch) + "\n")
    refused(run, tmp_path / "out", "no anomaly_score_pump_section_01_test.csv")


@pytest.mark.parametrize("text", ["[]\n", '{"epoch": 1}\n', "{"])
def test_metrics_not_written_by_a_run_are_refused(run, tmp_path, text):
    (run / "metrics.jsonl").write_text(text)
    refused(run, tmp_path / "out", r"metrics\.jsonl was not written by a run")


def test_a_run_with_empty_metrics_is_accepted(run, tmp_path):
    (run / "metrics.jsonl").touch()
    assert write_submission(run, tmp_path, LABEL).n_sections == 2


@pytest.mark.parametrize(
    ("file", "old", "new", "match"),
    [
        (SCORE_FILE, ",712.5", "712.5", "has no value"),
        (SCORE_FILE, "712.5", "nan", "'section_00_0001' is 'nan'"),
        (SCORE_FILE, "0001", "0000", "'section_00_0000' is listed 2 times"),
        (DECISION_FILE, "0001", "0009", "'section_00_0009' is unknown"),
        (DECISION_FILE, "section_00_0001.wav,1\n", "", "'section_00_0001' is missing"),
        (DECISION_FILE, "0001", "0000", "is listed 2 times"),
        (DECISION_FILE, "0001.wav,1", "0001.wav,2", "write 0 or 1"),
    ],
)
def test_a_broken_file_is_named(run, headline, tmp_path, file, old, new, match):
    edit(headline / file, old, new)
    refused(run, tmp_path / "out", f"{file}: .*{match}")


WRONG_NAMES = (
    *("section_01_0001.wav", "section_00_0001.flac", "section_00_0001"),
    *("fan_section_00_0001.wav", "/data/section_00_0001.wav", "section_00_a/1.wav"),
)


@pytest.mark.parametrize("name", WRONG_NAMES)
@pytest.mark.parametrize("file", [SCORE_FILE, DECISION_FILE])
def test_clips_not_named_by_the_challenge_are_refused(
    run, headline, tmp_path, file, name
):
    edit(headline / file, "section_00_0001.wav", name)
    refused(
        run, tmp_path / "out", rf"{file}: the clip '{name}' is not named section_00_"
    )


def test_a_byte_order_mark_is_refused(run, headline, tmp_path):
    path = headline / SCORE_FILE
    path.write_text(path.read_text(), encoding="utf-8-sig")
    refused(run, tmp_path / "out", rf"{SCORE_FILE}: the clip '\\ufeffsection_00_0000")


def test_names_with_labels_and_attributes_are_accepted(tmp_path):
    names = [f"section_03_source_test_normal_{k:04}_vel, 1.wav" for k in range(4)]
    write_scores(tmp_path, "fan", "03", names, SCORES)
    write_decisions(tmp_path, "fan", "03", names[::-1], SCORES > 2)
    check_package(tmp_path, [("fan", "03")])


def test_the_copied_files_of_a_submission_are_checked_too(run, tmp_path, monkeypatch):
    def tear(source, destination):
        destination.write_bytes(source.read_bytes()[:10])

    monkeypatch.setattr(shutil, "copyfile", tear)
    with pytest.raises(InputError):
        write_submission(run, tmp_path / "out", LABEL)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("function", ["copyfile", "replace"])
def test_a_failed_write_leaves_nothing(run, tmp_path, monkeypatch, function):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil if function == "copyfile" else os, function, refuse)
    with pytest.raises(InputError, match=r"cannot be written \(No space left"):
        write_submission(run, tmp_path / "out", LABEL)
    assert not list((tmp_path / "out").iterdir())


def test_an_output_folder_that_is_a_file_is_refused(run, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        write_submission(run, tmp_path / "file", LABEL)


@pytest.mark.parametrize(
    ("latent", "method"),
    [("gamma", "VAE"), ("gaussian", "VAE"), ("deterministic", "AE")],
)
def test_the_meta_file_has_the_values_of_the_run(latent, method):
    config = Config(model=ModelConfig(latent=latent))
    meta = yaml.safe_load(meta_yaml(LABEL, config, "mse", 7))
    assert set(meta) == {"submission", "system", "results"}
    assert meta["submission"]["label"] == LABEL
    description = meta["system"]["description"]
    assert description["input_sampling_rate"] == "16kHz"
    assert description["acoustic_features"] == "log-mel energies"
    assert description["machine_learning_method"] == method
    assert description["aggregation_method"] == "average"


@pytest.mark.parametrize(("split", "count"), [("folds", 5), ("clip", None)])
def test_the_meta_file_counts_the_models_of_a_score(split, count):
    config = Config(train=TrainConfig(split=split))
    meta = yaml.safe_load(meta_yaml(LABEL, config, "mse", 7))
    found = meta["system"]["description"]["ensemble_method_subsystem_count"]
    assert (found and int(found)) == count


def test_the_meta_file_marks_the_values_to_fill_in():
    meta = yaml.safe_load(meta_yaml(LABEL, Config(), "mse", 7))
    marked = [
        *(meta["submission"][name] for name in ("name", "abbreviation")),
        *(meta["submission"]["authors"][0][n] for n in ("lastname", "firstname")),
        meta["submission"]["authors"][0]["affiliation"]["institution"],
        meta["system"]["complexity"]["total_parameters"],
        meta["system"]["source_code"],
        meta["results"]["development_dataset"],
    ]
    assert marked == ["FILL IN"] * len(marked)


def test_the_author_describes_a_score_that_is_not_a_mean():
    meta = yaml.safe_load(meta_yaml(LABEL, Config(), "fusion", 7))
    assert meta["system"]["description"]["aggregation_method"] == "FILL IN"
    assert meta["system"]["description"]["decision_making"] == "FILL IN"


@pytest.mark.parametrize(
    "name",
    ['a"b', "a\\b", "a\nb: 1", "a\u2028b", "a\x85b", "#", "\U0001f600", "\udc80"],
)
def test_no_name_breaks_the_meta_file(name):
    text = meta_yaml(name, Config(preset=name), "mse", 7)
    text.encode()
    assert len(text.splitlines()) == len(
        meta_yaml(LABEL, Config(), "mse", 7).splitlines()
    )
    assert yaml.safe_load(text)["submission"]["label"] == name
