"""What a folder contains, and what is left out of it by name."""

import os

import pytest
from support.recorded import fill

from gammavae_jax.data.audio import listing
from gammavae_jax.data.audio.listing import left_out_lines, list_recordings


def listed(root):
    return list(list_recordings(root).recordings)


def lines(root):
    return left_out_lines(root, list_recordings(root).left_out)


def test_recordings_of_any_case_and_depth_are_listed_by_path(tmp_path):
    names = ["b/a.Wav", "b/deep/er/c.FLAC", "b.wave", "B.WAVE", "ü.wav", "x.y.wav"]
    fill(tmp_path, *names, "notes.txt", "wav", "a.wav.part", "scores.csv")
    assert listed(tmp_path) == sorted(names, key=lambda name: name.split("/"))
    assert lines(tmp_path) == []


@pytest.mark.parametrize("there", ["disk/tuesday", "rec/monday", "rec", "."])
def test_a_linked_folder_is_listed_once_wherever_it_leads(tmp_path, there):
    fill(tmp_path, "rec/monday/a.wav", "disk/tuesday/b.wav")
    for name in ("c", "again"):
        (tmp_path / "rec" / name).symlink_to(tmp_path / there)
    (tmp_path / "disk/tuesday/back").symlink_to("../../rec")
    found = listed(tmp_path / "rec")
    real = [os.path.realpath(tmp_path / "rec" / name) for name in found]
    assert len(set(real)) == len(real)
    assert "monday/a.wav" in found
    is_outside = there in ("disk/tuesday", ".")
    assert (os.path.realpath(tmp_path / "disk/tuesday/b.wav") in real) == is_outside


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["x.MP3"], "1 file in another format (x.MP3): convert or unpack it to WAV"),
        (
            ["a.m4a", "b/c.ogg", "d.zip", "e.aiff"],
            "4 files in another format (a.m4a, b/c.ogg, d.zip and 1 more): convert",
        ),
        ([".a.wav"], "1 hidden or system file or folder (.a.wav): rename or move it"),
        (["._a.wav", "@eaDir/a.wav"], "2 hidden or system files or folders (._a.wav, "),
        (["#recycle/deep/a.wav"], "1 hidden or system file or folder (#recycle): "),
        ([".AppleDouble/a.wav", "{0}.mp3"], "1 file in another format ({0}.mp3): "),
    ],
)
def test_left_out_files_are_counted_and_named_with_the_remedy(
    tmp_path, names, expected
):
    fill(tmp_path, "good.wav", *names)
    assert listed(tmp_path) == ["good.wav"]
    line = next(line for line in lines(tmp_path) if expected in line)
    assert line.startswith(f"left out of {tmp_path}: ")


def test_folders_without_recordings_and_other_files_need_no_line(tmp_path):
    """A Synology disk makes @eaDir everywhere; it holds folders named like files."""
    fill(tmp_path, "good.wav", ".DS_Store", "@eaDir/good.wav/SYNOINDEX", ".git/HEAD")
    assert lines(tmp_path) == []


def test_a_broken_link_and_an_unreadable_folder_are_named(tmp_path, monkeypatch):
    fill(tmp_path, "good.wav", "secret/a.wav")
    (tmp_path / "tuesday").symlink_to("/mnt/unmounted")
    (tmp_path / "loop").symlink_to("loop")
    scandir = os.scandir

    def refuse(path):
        if os.path.basename(os.path.normpath(path)) == "secret":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(listing.os, "scandir", refuse)
    assert lines(tmp_path) == [
        f"left out of {tmp_path}: 2 broken links (loop, tuesday): fix or remove them",
        f"left out of {tmp_path}: 1 unreadable folder (secret): make it readable",
    ]


def test_a_recording_that_cannot_be_read_is_listed_so_that_reading_it_fails(tmp_path):
    (tmp_path / "gone.wav").symlink_to("nowhere")
    (tmp_path / "folder.wav").mkdir()
    assert listed(tmp_path) == ["folder.wav", "gone.wav"]
