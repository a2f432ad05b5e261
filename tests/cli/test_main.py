"""The `gammavae` command: evaluate, submit, help, completion, and what is refused."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest
from support.challenge_files import evaluate_directory

from gammavae_jax.cli.help import field_docstrings
from gammavae_jax.cli.main import COMMANDS, main
from gammavae_jax.config import Config
from gammavae_jax.config_json import to_dict
from gammavae_jax.evaluation.intervals import bootstrap
from gammavae_jax.evaluation.score_files import (
    read_score_files,
    summarise,
    write_decisions,
    write_scores,
)

NAMES = [
    f"section_00_{domain}_test_{label}_{k:04}.wav"
    for domain in ("source", "target")
    for label in ("normal", "anomaly")
    for k in range(20)
]
N_RESAMPLES = 50


@pytest.fixture
def scores_dir(tmp_path):
    """Score files of two machines, without decisions."""
    folder = tmp_path / "scores"
    for k, machine in enumerate(("fan", "ToyCar")):
        scores = np.random.default_rng(k).normal(size=len(NAMES))
        scores += ["anomaly" in name for name in NAMES]
        write_scores(folder, machine, "00", NAMES, scores)
    return folder


def write_all_decisions(folder):
    for section in read_score_files(folder):
        decisions = section.scores > 0.5
        write_decisions(folder, section.machine, section.section, NAMES, decisions)


def evaluate(scores_dir, *options):
    return main(["evaluate", str(scores_dir), "--bootstrap", "50", *map(str, options)])


def cells(text):
    """Return the words of each line, by its first word."""
    lines = [line.split() for line in text.splitlines()]
    return {line[0]: line[1:] for line in lines if line}


def percents(values):
    return [f"{100 * value:.2f}" for value in values]


def test_the_table_has_every_section_and_both_means_in_percent(scores_dir, capsys):
    assert evaluate(scores_dir) == 0
    rows = evaluate_directory(scores_dir)
    found = cells(capsys.readouterr().out)
    ranking = ("auc_source", "auc_target", "pauc", "auc")
    for row in rows:
        expected = percents(getattr(row, c) for c in ranking)
        assert found[row.machine] == ["00", *expected]
    for mean in ("arithmetic", "harmonic"):
        means = summarise(rows)[f"{mean}_means"]
        assert found[mean] == ["mean", *percents(means[c] for c in ranking)]


def test_decisions_add_precision_recall_and_f1(scores_dir, capsys):
    evaluate(scores_dir)
    assert "precision" not in capsys.readouterr().out
    write_all_decisions(scores_dir)
    evaluate(scores_dir)
    text = capsys.readouterr().out
    row = evaluate_directory(scores_dir)[0]
    expected = percents(row[row._fields.index("precision_source") :][:6])
    assert cells(text)[row.machine][-6:] == expected
    assert all(word in text for word in ("precision", "recall", "F1"))


def test_the_official_score_and_its_bootstrap_are_printed(scores_dir, capsys):
    evaluate(scores_dir)
    text = capsys.readouterr().out
    score = summarise(evaluate_directory(scores_dir))["official_score"]
    assert f"official score: {score:.16f} ({100 * score:.2f} %)" in text
    spread = bootstrap(read_score_files(scores_dir), n_resamples=N_RESAMPLES)
    mean, std, low, high = percents(spread)
    assert (
        f"stratified bootstrap over clips (50 resamples): {mean} +- {std} %, "
        f"95 % interval {low} to {high} %"
    ) in text


def test_json_is_the_summary_with_the_bootstrap(scores_dir, tmp_path):
    path = tmp_path / "results.json"
    evaluate(scores_dir, "--json", path)
    spread = bootstrap(read_score_files(scores_dir), n_resamples=N_RESAMPLES)
    expected = summarise(evaluate_directory(scores_dir)) | {
        "year": None,
        "bootstrap": {**spread._asdict(), "n_resamples": N_RESAMPLES},
    }
    assert json.loads(path.read_text()) == expected
    assert sorted(tmp_path.iterdir()) == [path, scores_dir]


@pytest.mark.parametrize("n_resamples", [0, N_RESAMPLES])
def test_json_on_standard_output_is_alone_there(scores_dir, capsys, n_resamples):
    assert evaluate(scores_dir, "--bootstrap", n_resamples, "--json", "-") == 0
    output = capsys.readouterr()
    results = json.loads(output.out)
    expected = summarise(evaluate_directory(scores_dir))["official_score"]
    assert results["official_score"] == expected
    assert "harmonic mean" in output.err
    has_bootstrap = n_resamples > 0
    assert (results["bootstrap"] is not None) == has_bootstrap
    assert ("bootstrap" in output.err) == has_bootstrap


@pytest.mark.parametrize(
    ("year", "rules"), [(2020, "2020"), (2021, "2021"), (2024, "2022 and later")]
)
def test_the_year_chooses_the_definition(scores_dir, tmp_path, capsys, year, rules):
    path = tmp_path / "results.json"
    evaluate(scores_dir, "--year", year, "--json", path)
    found = json.loads(path.read_text())
    expected = summarise(evaluate_directory(scores_dir, year=year), year)
    assert found["official_score"] == expected["official_score"]
    sections = read_score_files(scores_dir)
    spread = bootstrap(sections, year=year, n_resamples=N_RESAMPLES)
    assert found["bootstrap"]["mean"] == spread.mean
    title = capsys.readouterr().out.splitlines()[0]
    assert title.rstrip() == f"In percent, with the metrics of {rules}"


def test_labels_come_from_the_ground_truth(scores_dir, tmp_path, capsys):
    evaluate(scores_dir, "--json", "-")
    expected = json.loads(capsys.readouterr().out)
    data = tmp_path / "truth" / "ground_truth_data"
    data.mkdir(parents=True)
    for path in scores_dir.iterdir():
        truth = path.name.replace("anomaly_score", "ground_truth")
        lines = [f"{name},{int('anomaly' in name)}\n" for name in NAMES]
        (data / truth).write_text("".join(lines))
    evaluate(scores_dir, "--ground-truth", data.parent, "--json", "-")
    assert json.loads(capsys.readouterr().out) == expected


def test_names_are_printed_literally_and_never_truncated(scores_dir, capsys):
    name = "[red]" + "a" * 150 + ":smile:"
    write_scores(scores_dir, name, "00", NAMES, np.linspace(0, 1, len(NAMES)))
    write_all_decisions(scores_dir)
    evaluate(scores_dir)
    assert len(cells(capsys.readouterr().out)[name]) == 11


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--year 2019", "the year is 2019"),
        ("--bootstrap 1", "use at least 2"),
        ("--bootstrap -3", "use at least 2"),
        ("--ground-truth nowhere", "does not exist: check the path"),
        ("--json nowhere/results.json", "No such file or directory"),
        ("--json scores", "Is a directory"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    scores_dir, refusal, monkeypatch, options, message
):
    monkeypatch.chdir(scores_dir.parent)
    before = sorted(scores_dir.parent.rglob("*"))
    line = f"evaluate scores --bootstrap 50 --json results.json {options}"
    assert message in refusal(*line.split())
    assert sorted(scores_dir.parent.rglob("*")) == before


def test_a_broken_score_file_or_full_disk_leaves_the_old_results(
    scores_dir, tmp_path, refusal, monkeypatch
):
    def refuse(source, destination):
        raise OSError(28, "No space left on device")

    path, file = tmp_path / "results.json", next(scores_dir.iterdir())
    path.write_text("old")
    command = ("evaluate", scores_dir, "--bootstrap", 50, "--json", path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        assert "No space left on device" in refusal(*command)
    file.write_text(file.read_text() + "unlabelled.wav,1\n")
    assert file.name in refusal(*command)
    assert path.read_text() == "old"
    assert sorted(tmp_path.iterdir()) == [path, scores_dir]


@pytest.fixture
def run(tmp_path):
    """A run folder with one machine."""
    folder = tmp_path / "run" / "scores" / "fusion_smooth_max" / "seed13711"
    scores = np.arange(float(len(NAMES)))
    write_scores(folder, "fan", "00", NAMES, scores)
    write_decisions(folder, "fan", "00", NAMES, scores > 5)
    (tmp_path / "run" / "config.json").write_text(json.dumps(to_dict(Config())))
    return tmp_path / "run"


def test_submit_writes_a_package_and_prints_what_is_left(run, capsys):
    label, out = "Doe_JKU_task2_1", run.parent / "entries"
    assert main(["submit", str(run), "--out", str(out), "--label", label]) == 0
    folder = out / label
    assert len(list(folder.iterdir())) == 3
    text = capsys.readouterr().out
    assert f"written to {folder}: score fusion_smooth_max, seed 13711" in text
    assert "FILL IN in Doe_JKU_task2_1.meta.yaml" in text


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "usage: gammavae [-h] [--version] COMMAND"),
        ("evaluate", "Missing from gammavae evaluate:"),
        ("submit run", "--label LABEL"),
        ("nonsense", "error: unknown command 'nonsense': use one of demo, fit"),
        ("evalute x", "unknown command 'evalute': did you mean 'evaluate'?"),
        ("--evaluate", "Unrecognized options: --evaluate"),
        ("evaluate x --grund-truth y", "--ground-truth PATH"),
        ("evaluate x --year new", "--year: 'new' is not a whole number"),
        ("evaluate x --year None", "--year: 'None' is not a whole number"),
        ("evaluate x --json", "Missing value for argument '--json'"),
        ("evaluate x y", "Unrecognized options: y"),
    ],
)
def test_a_bad_command_line_is_refused(line, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(line.split())
    output = capsys.readouterr()
    assert output.out == ""
    assert message in output.err
    assert all(len(line) <= 80 for line in output.err.splitlines()[2:])


@pytest.fixture
def printed(capsys, monkeypatch):
    """Return a function that runs a command on a narrow terminal, for its output."""
    monkeypatch.setenv("COLUMNS", "70")

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        output = capsys.readouterr()
        assert (caught.value.code or 0, output.err) == (0, "")
        return output.out

    return run


def test_the_overview_describes_each_command(printed):
    text = printed("--help")
    assert text.startswith("usage: gammavae [-h] [--version] COMMAND")
    assert all(f"\n  {name} " in text for name in COMMANDS)
    assert max(map(len, text.splitlines())) <= 70


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_describes_each_option(printed, name):
    text = printed(name, "--help")
    assert text.startswith(f"usage: gammavae {name} [-h]")
    assert max(map(len, text.splitlines())) <= 70
    assert not any(oddity in text for oddity in ("None", "False", "\x1b", "``"))
    about = " ".join(text.replace("│", " ").split())
    helps = field_docstrings(COMMANDS[name])
    for field in dataclasses.fields(COMMANDS[name]):
        assert helps[field.name] in about


def test_the_version_is_the_installed_one(printed):
    assert printed("--version") == f"gammavae {version('gammavae-jax')}\n"


def completed(*words, shell_script):
    """Return what bash offers for the last word."""
    lines = [
        f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}",
        'complete -p gammavae >/dev/null && _tyro_gammavae; echo "${COMPREPLY[@]}"',
    ]
    done = subprocess.run(
        ["bash", "-c", "\n".join([shell_script, *lines])],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.split()


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
def test_bash_completes_commands_and_options(printed):
    script = printed("completion", "bash")
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    offered = completed("gammavae", "''", shell_script=script)
    assert set(COMMANDS) <= set(offered)
    assert completed("gammavae", "ev", shell_script=script) == ["evaluate"]
    words = ("gammavae", "evaluate", "x", "--g")
    assert completed(*words, shell_script=script) == ["--ground-truth"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_scripts_of_other_shells_know_all_commands(printed, shell):
    script = printed("completion", shell)
    assert all(f"'{name}'" in script for name in COMMANDS)


def test_a_domain_without_an_auc_is_named(scores_dir, capsys):
    names = [name for name in NAMES if "_target_" not in name]
    write_scores(scores_dir, "fan", "00", names, np.arange(len(names), dtype=float))
    assert evaluate(scores_dir) == 0
    text = capsys.readouterr().out
    problem = "these cannot be computed and are left out of the means"
    assert f"{problem}: AUC target of fan section 00" in text
    assert "of ToyCar section 00" not in text
    assert evaluate(scores_dir, "--year", "2020") == 0
    assert "left out" not in capsys.readouterr().out


def test_a_closed_pipe_is_not_an_error():
    command = f"{sys.executable} -m gammavae_jax.cli.main --help"
    ended = subprocess.run(
        ["bash", "-c", f"{command} | true"], capture_output=True, text=True, timeout=60
    )
    assert ended.stderr == ""
