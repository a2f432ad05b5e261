"""Functions that the commands share, and the options of `gammavae run`."""

import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import GAMMAVAE, ROOT

from gammavae_jax.cli.help import field_docstrings
from gammavae_jax.cli.main import parse
from gammavae_jax.cli.run import Run
from gammavae_jax.cli.shared import (
    data_root_or_synthetic,
    readable_errors,
    table_console,
)
from gammavae_jax.config_json import to_dict
from gammavae_jax.errors import InputError
from gammavae_jax.presets import PRESETS, preset


def test_a_programming_error_keeps_its_traceback():
    with pytest.raises(ValueError, match="a bug"), readable_errors():
        raise ValueError("a bug")


def test_without_data_the_first_line_says_synthetic(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GAMMAVAE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(
        "gammavae_jax.data.synthetic.dataset.synthetic_root", lambda _: tmp_path
    )
    assert data_root_or_synthetic(None) == tmp_path
    first, *rest = capsys.readouterr().out.splitlines()
    assert "SYNTHETIC" in first
    assert rest == []


def test_a_given_data_root_is_used_without_a_message(tmp_path, capsys):
    assert data_root_or_synthetic(tmp_path) == tmp_path
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "use either --all-machines or --machines NAME ..."),
        ("--all-machines --machines fan", "use either --all-machines or --machines"),
        ("--all-machines --resume --overwrite", "cannot be used together"),
        ("--machines fan --wave-size 0", "--wave-size is 0: it must be at least 1"),
        (
            "--machines fan --wave-size 2 --distributed",
            "--wave-size cannot be used with --distributed",
        ),
        ("--machines fan --set preset=vae", "the preset cannot be changed with --set"),
    ],
)
def test_options_that_cannot_be_used_together_are_refused(line, message, refusal):
    assert message in refusal("run", *line.split())


def test_options_change_the_preset_and_set_is_applied_last():
    line = (
        "run --machines fan valve --preset vae --epochs 3 --batch-size 64 --seeds 2 "
        "--seed 5 --scores mse mse_top --set train.epochs=4 --set train.n_folds=3"
    )
    run = parse(line.split())
    assert isinstance(run, Run)
    config = run.configuration()
    assert (config.preset, config.n_seeds, config.seed) == ("vae", 2, 5)
    assert (config.score, config.scores) == ("mse", ("mse", "mse_top"))
    train = config.train
    assert (train.epochs, train.batch_size, train.n_folds) == (4, 64, 3)
    assert Run(all_machines=True).configuration() == preset("default")


def test_resuming_without_epochs_keeps_those_of_the_run(tmp_path):
    config = Run(all_machines=True, epochs=7).configuration()
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
    resumed = Run(all_machines=True, resume=True, out=tmp_path).configuration()
    assert resumed == config


def test_the_help_of_a_run_names_every_preset():
    assert all(name in field_docstrings(Run)["preset"] for name in PRESETS)


def test_an_error_is_one_line_whatever_is_named_in_it(capsys):
    with pytest.raises(SystemExit) as caught, readable_errors():
        raise InputError("a\nerror: b\x1b[2J\udcff: remove it")
    assert caught.value.code == 2
    printed = capsys.readouterr().err
    assert printed == "error: a\\nerror: b\\x1b[2J\\udcff: remove it\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_what_an_encoding_lacks_is_escaped(encoding, monkeypatch):
    output = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", output)
    with readable_errors():
        print("Łożysko 泵 \udcff")
        table_console().print("Łożysko")
    output.flush()
    text = output.buffer.getvalue().decode(encoding)
    assert text.split("\n")[0].endswith(r" \u6cf5 \udcff")
    assert text.count(r"\u0141o") == 2


def test_a_systems_error_about_a_file_is_one_line(capsys):
    with pytest.raises(SystemExit) as caught, readable_errors():
        raise PermissionError(13, "Permission denied", "a\n.json")
    assert caught.value.code == 2
    out, error = capsys.readouterr()
    assert error.startswith("error: 'a\\n.json' cannot be used (Permission denied)")
    assert (out, error.count("\n")) == ("", 1)
    for word in ("damaged", "overwrite"):
        assert word not in error
    with pytest.raises(OSError, match="no file"), readable_errors():
        raise OSError("no file is named")


def output_of(redirection, *arguments):
    """Run a command whose output is redirected; return its status and its errors."""
    line = shlex.join([sys.executable, *GAMMAVAE, *arguments])
    done = subprocess.run(
        ["sh", "-c", f"{line} {redirection}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")
def test_output_to_a_full_disk_is_one_line():
    status, errors = output_of(">/dev/full", "--version")
    assert status == 2
    assert re.fullmatch(
        r"error: standard output cannot .*free up disk space, or .*\n", errors
    )


def test_a_command_works_without_standard_streams(tmp_path):
    assert output_of(">&-", "score", "--help") == (0, "")
    assert output_of("<&- >&- 2>&-", "--version") == (0, "")
    status, errors = output_of(">&-", "evaluate", str(tmp_path / "none"))
    assert (status, errors.count("\n")) == (2, 1)
