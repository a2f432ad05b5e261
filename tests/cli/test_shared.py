import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gammavae_jax.cli.shared import (
    add_job_options,
    data_root_or_synthetic,
    readable_errors,
)
from gammavae_jax.errors import InputError

ROOT = Path(__file__).resolve().parent.parent.parent


def python(*arguments):
    """A fresh interpreter in the checkout."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_an_input_error_is_one_line_and_exit_status_2(capsys):
    with pytest.raises(SystemExit) as exit_, readable_errors():
        raise InputError("no such fan: give another")
    assert exit_.value.code == 2
    assert capsys.readouterr() == ("", "error: no such fan: give another\n")


def test_ctrl_c_is_one_line_and_exit_status_130(capsys):
    with pytest.raises(SystemExit) as exit_, readable_errors():
        raise KeyboardInterrupt
    assert exit_.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_mistake_of_ours_keeps_its_traceback():
    with pytest.raises(ValueError, match="a bug"), readable_errors():
        raise ValueError("a bug")


def test_without_errors_nothing_is_said(capsys):
    with readable_errors():
        pass
    assert capsys.readouterr() == ("", "")


def test_job_options_are_off_unless_given():
    parser = argparse.ArgumentParser()
    add_job_options(parser)
    assert vars(parser.parse_args([])) == {
        "data_root": None,
        "feature_cache": None,
        "overwrite": False,
        "skip_bad_files": False,
        "year": None,
    }


def test_without_data_the_first_line_says_synthetic(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GAMMAVAE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(
        "gammavae_jax.data.synthetic.dataset.synthetic_root", lambda _: tmp_path
    )
    assert data_root_or_synthetic(None) == tmp_path
    first, *rest = capsys.readouterr().out.splitlines()
    assert "SYNTHETIC" in first
    assert rest == []


def test_a_data_root_that_is_given_is_used_in_silence(tmp_path, capsys):
    assert data_root_or_synthetic(tmp_path) == tmp_path
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("script", ["run", "evaluate"])
def test_help_is_answered_before_the_heavy_imports(script):
    code = (
        f"import sys\nfrom experiments import {script}\n"
        f"try: {script}.parse(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'numpy', 'jax', 'rich', 'scipy'} & set(sys.modules)))"
    )
    answer = python("-c", code)
    assert answer.stdout.startswith("usage:"), answer.stderr
    assert answer.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "papper"], "error: unknown preset 'papper'"),
        (["--set", "train.epoch=5"], "error: unknown field 'train.epoch'"),
        (["--epochs", "0"], "error: epochs is 0"),
        (["--scores", "mes"], "error: unknown score 'mes'"),
        (["--data-root", "nowhere"], "error: data root 'nowhere' is not a folder"),
    ],
)
def test_a_users_mistake_is_one_line_without_traceback(arguments, message):
    answer = python("experiments/run.py", "--all-machines", *arguments)
    assert answer.returncode == 2
    assert answer.stderr.startswith(message)
    assert answer.stderr.count("\n") == 1
    assert answer.stdout == ""


def test_an_error_is_one_line_whatever_is_named_in_it(capsys):
    with pytest.raises(SystemExit) as caught, readable_errors():
        raise InputError("a\nerror: b\x1b[2J\udcff: remove it")
    assert caught.value.code == 2
    printed = capsys.readouterr().err
    assert printed == "error: a\\nerror: b\\x1b[2J\\udcff: remove it\n"
