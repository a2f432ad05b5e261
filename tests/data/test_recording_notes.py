"""Notes on recordings: what is not read, clips in both splits, reference channels."""

import io
import os
from os.path import isdir
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from support.packing import pack
from support.recorded import fill

from gammavae_jax.data.clips import Clips, clip_identities
from gammavae_jax.data.machines import clip_file
from gammavae_jax.data.recording_notes import (
    left_out,
    note_reference_channel,
    note_shared_clips,
)
from gammavae_jax.log import Log

CLEAN = ["fan/train/0.wav", "fan/test/0.wav", "pump/train/0.wav", "pump/test/1/0.wav"]


def test_a_clean_folder_needs_no_note(tmp_path):
    more = [
        "README.md",
        "fan/attributes_00.csv",
        "fan/supplemental/0.wav",
        "docs/a.mp3",
    ]
    fill(tmp_path, *CLEAN, *more, "dev_saw.zip.part", "fan/notes/a.pdf")
    assert left_out(tmp_path, ("fan", "pump")) == []


@pytest.mark.parametrize(
    ("machines", "names", "expected"),
    [
        ("fan pump", ["fan/train/a/b.m4a"], "1 file in another format (fan/train/a/b"),
        ("fan pump", ["fan/Train/1.wav", "saw/1.wav", "1.wav"], "3 recordings or fol"),
        ("fan", ["fan/1.wav", "saw/1.wav"], "1 recording or folder outside train and"),
        ("fan", ["fan/test/.1.wav"], "1 hidden or system file or folder (fan/test/.1"),
    ],
)
def test_files_that_a_run_does_not_read_are_named(tmp_path, machines, names, expected):
    fill(tmp_path, *CLEAN, *names)
    (line,) = left_out(tmp_path, machines.split())
    assert f"left out of {tmp_path}: {expected}" in line


def test_archived_files_that_a_run_does_not_read_are_named(tmp_path):
    fill(tmp_path, *CLEAN)
    names = ["train/0.wav", "test/0.wav", "train/.a.wav", "test/@eaDir/b.wav", "1.wav",
             "test/c.mp3", "notes.pdf"]  # fmt: skip
    mac = ["__MACOSX/saw/train/._0.wav", "__MACOSX/._saw"]
    contents = [*(f"saw/{name}" for name in names), *mac, "drill/2.wav", "fan/3.wav"]
    pack(tmp_path / "x.zip", dict.fromkeys(contents, b"x"))
    assert sorted(left_out(tmp_path, ("fan", "pump", "saw"))) == [
        f"left out of {tmp_path}: {text}"
        for text in (
            "1 file in another format (x.zip/saw/test/c.mp3): convert or unpack it to "
            "WAV or FLAC",
            "2 hidden or system files or folders (x.zip/saw/test/@eaDir/b.wav, "
            "x.zip/saw/train/.a.wav): rename or move them to use them",
            "3 recordings or folders outside train and test (x.zip/drill/2.wav, "
            "x.zip/fan/3.wav, x.zip/saw/1.wav): move them there",
        )
    ]
    (line,) = left_out(tmp_path, ("fan",))
    assert " (x.zip/fan/3.wav): " in line


def test_files_that_could_be_a_machine_are_named(tmp_path, monkeypatch):
    fill(tmp_path, *CLEAN, "dev_saw.7z", "dev_valve.tar.gz", "locked/train/0.wav")
    (tmp_path / "slider").symlink_to("/mnt/unmounted")
    scandir = os.scandir

    def refuse(path):
        if "locked" in os.fspath(path):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr(
        os.path, "isdir", lambda p: "locked/t" not in str(p) and isdir(p)
    )
    expected = [
        "1 broken link (slider): fix or remove it",
        "1 unreadable folder (locked): make it readable",
        "2 files in another format (dev_saw.7z, dev_valve.tar.gz): convert or unpack "
        "them to WAV or FLAC",
    ]
    lines = [f"left out of {tmp_path}: {text}" for text in expected]
    assert sorted(left_out(tmp_path, ("fan", "pump"))) == lines
    assert left_out(tmp_path, ("fan",)) == []


def test_machines_beside_the_folder_raw_are_named(tmp_path):
    fill(tmp_path, *(f"raw/{name}" for name in CLEAN), "saw/test/0.wav", "x/0.wav")
    pack(tmp_path / "dev_drill.zip", {"drill/train/0.wav": b"x"})
    assert left_out(tmp_path, ("fan", "pump")) == [
        f"left out of {tmp_path}: 2 machines or archives beside the folder raw "
        "(dev_drill.zip, saw): move them into raw"
    ]
    assert left_out(tmp_path, ("fan",)) == []


def clips(*seeds):
    files = tuple(clip_file(Path(f"{seed}.wav")) for seed in seeds)
    rngs = (np.random.default_rng(seed) for seed in seeds)
    return Clips(files, tuple(r.normal(size=(5, 128)).astype(np.float32) for r in rngs))


def test_a_test_clip_that_is_a_training_clip_is_noted():
    train = {"fan": clip_identities(clips(1, 2, 3)), "pump": ["odd", ""]}
    log = Log(Console(file=io.StringIO()))
    note_shared_clips(train, [("fan", clips(4, 5)), ("pump", clips(1, 2))], log)
    note_shared_clips({}, [("fan", clips(4, 5))], log)
    assert log.notes == []
    note_shared_clips(train, [("fan", clips(5, 2)), ("pump", clips(1))], log)
    (note,) = log.notes
    assert note.startswith("1 test clip is also a training clip (fan/2.wav): remove")


def test_the_level_that_a_reference_channel_explains_is_noted():
    log = Log(Console(file=io.StringIO()))
    of_clips = {"fan": (4.1, 0.2, 4.9), "pump": (5.5, 9.0, 4.0, 6.0), "saw": ()}
    note_reference_channel(
        [(name, clips(1)._replace(explained=of)) for name, of in of_clips.items()], log
    )
    fan, pump, warning = log.notes
    lowers = "subtracting the reference channel lowers the power by"
    assert fan == f"fan: {lowers} 4.1 dB (median over clips)"
    assert pump == f"pump: {lowers} 5.8 dB (median over clips)"
    start = f"pump: {lowers} more than 5 dB, so the reference microph"
    assert warning.startswith(start)
    assert warning.endswith("or fit without features.reference_channel")
