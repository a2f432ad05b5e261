"""A user's recordings are found and named; duplicates are found."""

import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.logs import refusal
from support.recorded import fill, noise

from gammavae_jax.data.recordings.sources import (
    by_machine,
    find_duplicates,
    find_recordings,
    of_known_machines,
)
from gammavae_jax.errors import InputError


@pytest.fixture
def folder(tmp_path):
    """Return three recordings, one of them in a subfolder, and other files."""
    (tmp_path / "day2").mkdir()
    for name in ("b.wav", "a.flac", "day2/c.WAV"):
        soundfile.write(tmp_path / name, noise(1), 16000, format=name[-4:].strip("."))
    (tmp_path / ".hidden.wav").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("")
    return tmp_path


def test_a_folder_is_searched_with_its_subfolders_in_name_order(folder):
    names = [source.name for source in find_recordings(folder)]
    assert names == ["a.flac", "b.wav", str(Path("day2/c.WAV"))]


class Column:
    """Like a column of a pandas table."""

    def __init__(self, items):
        self.items = items

    def __array__(self, dtype=None, copy=None):
        array = np.empty(len(self.items), object)
        array[:] = self.items
        return array

    def __iter__(self):
        return iter(self.items)


@pytest.mark.parametrize("kind", [np.array, partial(np.array, dtype=object), Column])
def test_arrays_and_columns_of_paths_are_lists(folder, kind):
    paths = [str(folder / "a.flac"), str(folder / "b.wav")]
    assert [source.name for source in find_recordings(kind(paths))] == paths


def test_a_column_of_waveforms_is_a_list():
    sources = find_recordings(Column([noise(1), noise(2)]), 16000)
    assert [len(source.read(0).waveform) for source in sources] == [16000, 32000]


def test_paths_and_arrays_may_be_mixed(folder):
    sources = find_recordings([str(folder / "b.wav"), noise(1), folder], 8000)
    names = [source.name for source in sources]
    assert names[1:3] == ["array 1", str(Path(folder.name, "a.flac"))]
    assert len(sources) == 5
    assert sources[1].read(0).sample_rate == 8000


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_integer_arrays_are_scaled_like_files(dtype, tmp_path):
    samples = np.multiply(noise(1), np.iinfo(dtype).max).astype(dtype)
    path = tmp_path / "x.wav"
    kind = "PCM_16" if dtype == np.int16 else "PCM_32"
    soundfile.write(path, samples, 16000, kind)
    (array,), (file,) = find_recordings(samples, 16000), find_recordings(path)
    np.testing.assert_allclose(array.read(0).waveform, file.read(0).waveform, atol=1e-7)


@pytest.mark.parametrize("channels", [0, 1, (0, 1), (1, 0)], ids=str)
def test_an_array_of_several_channels_is_read_like_a_file(channels, tmp_path):
    samples = np.stack([noise(1), 1e-4 * noise(1, seed=1)], 1)
    soundfile.write(tmp_path / "x.wav", samples, 16000, "FLOAT")
    (array,), (file,) = find_recordings(samples, 16000), find_recordings(tmp_path)
    array, file = array.read(channels), file.read(channels)
    np.testing.assert_array_equal(array.waveform, file.waveform)
    assert array.n_channels == file.n_channels == 2
    assert array.levels is not None
    assert file.levels is not None
    assert array.levels.loudest(1) == file.levels.loudest(1)
    assert 70 < array.levels.loudest(1).above < 90


def test_an_array_of_one_channel_is_refused_if_there_is_a_reference_channel():
    for samples in (noise(1), noise(1)[:, None]):
        (source,) = find_recordings(samples, 16000)
        with pytest.raises(InputError, match="array 0: there is no reference channel"):
            source.read((0, 1))
        assert source.read(0).waveform.shape == (16000,)


@pytest.mark.parametrize(
    ("recordings", "sample_rate", "message"),
    [
        ([], None, "the list is empty"),
        (noise(1), None, "pass sample_rate"),
        (noise(1), -1, "sample_rate is -1"),
        (np.zeros((2, 16000)), 16000, r"\(2, 16000\)"),
        (np.array(["no such file"]), 16000, "No such file"),
        (np.full(16000, np.nan), 16000, "sample 0 is nan"),
        (3, None, "type int"),
        ("no such folder", None, "No such file"),
        ("", None, "a path is empty: for the current folder"),
        (["a.wav", ""], None, "a path is empty"),
        ({"a.wav", "b.wav"}, None, "a set, which has no order: pass a list"),
    ],
)
def test_unusable_input_is_refused_in_one_line(recordings, sample_rate, message):
    text = refusal(lambda: find_recordings(recordings, sample_rate)[0].read(0))
    assert re.search(message, text)


def test_a_folder_without_recordings_is_refused(tmp_path):
    (tmp_path / "a.mp3").touch()
    with pytest.raises(InputError, match=r"must contain .*; left out .*\(a\.mp3\)"):
        find_recordings(tmp_path)


def test_files_left_out_of_a_folder_are_reported(folder):
    lines = []
    find_recordings(folder, say=lines.append)
    assert [line.split(": ", 1)[1] for line in lines] == [
        "1 hidden or system file or folder (.hidden.wav): rename or move it to use it"
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a/rec", "b/rec"], ["a/rec/0.wav", "b/rec/0.wav"]),
        (["x/a/rec", "y/a/rec"], ["x/a/rec/0.wav", "y/a/rec/0.wav"]),
        (["a/Rec", "b/rec"], ["a/Rec/0.wav", "b/rec/0.wav"]),
        (["a/re\u0301c", "b/r\u00e9c"], ["a/re\u0301c/0.wav", "b/r\u00e9c/0.wav"]),
        (["a/rec/.", "b/rec"], ["a/rec/0.wav", "b/rec/0.wav"]),
        (["rec/0.wav", "b/rec"], ["rec/0.wav", "b/rec/0.wav"]),
        (["a/one", "b/two"], ["one/0.wav", "two/0.wav"]),
        (["a/rec", "a/rec"], ["rec/0.wav", "rec/0.wav"]),
    ],
)
def test_folders_with_the_same_name_get_different_labels(
    tmp_path, monkeypatch, given, expected
):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path, *(g if g.endswith(".wav") else f"{g}/0.wav" for g in given))
    assert [source.name for source in find_recordings(given)] == expected


def test_names_that_look_alike_are_escaped(tmp_path):
    accents = ("caf\u00e9.wav", "cafe\u0301.wav", "th\u00e9.wav")
    fill(tmp_path, *accents, "a\n.wav", "a\\n.wav")
    names = sorted(source.name for source in find_recordings(tmp_path))
    assert names == [
        "a\\\\n.wav", "a\\n.wav", "caf\\xe9.wav", "cafe\\u0301.wav", "th\u00e9.wav",
    ]  # fmt: skip


def test_recordings_are_assigned_to_known_machines():
    assert of_known_machines("x", None, ("pump",)) == {"pump": "x"}
    assert of_known_machines({"a": "x"}, None, ("a", "b")) == {"a": "x"}
    assert of_known_machines("x", "u\u0308", ("\u00fc", "b")) == {"\u00fc": "x"}
    for recordings, machine, message in (
        ("x", None, "a, b, \u00fc: state which machine"),
        ("x", "c", "unknown machine 'c'"),
        ({"a": "x"}, "a", "pass either the argument 'machine' or a dict of machines"),
        ({}, None, "the dict of recordings is empty"),
        ({"u\u0308": "x", "\u00fc": "y"}, None, "are the same text in Unicode"),
    ):
        with pytest.raises(InputError, match=message):
            of_known_machines(recordings, machine, ("a", "b", "\u00fc"))


def test_two_machines_whose_names_differ_only_in_unicode_form_are_refused():
    """Later, nobody could name one of them."""
    names = ("L\u00fcfter", "Lu\u0308fter", "pump")
    with pytest.raises(
        InputError, match=r"'L\\xfcfter' and 'Lu\\u0308fter' are the same"
    ):
        by_machine(dict.fromkeys(names, ()), "")
    assert [*by_machine(dict.fromkeys(names[1:], ()), "")] == [*names[1:]]


def test_the_same_sound_is_found_whatever_its_name_and_format(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    samples = np.round(noise(1) * 32767).astype(np.int16)
    soundfile.write(first / "a.wav", samples, 16000)
    soundfile.write(first / "b.wav", noise(1, seed=1), 16000)
    soundfile.write(first / "c.wav", noise(1, seed=2), 16000)
    soundfile.write(second / "other.flac", samples, 16000)
    shutil.copy(first / "b.wav", second / "copy.wav")
    soundfile.write(second / "c.wav", noise(1, seed=3), 16000)  # another sound
    soundfile.write(second / "rate.wav", noise(1, seed=2), 8000)
    (second / "empty.wav").touch()
    (first / "empty.wav").touch()
    sets = find_recordings(first), find_recordings(second)
    found = find_duplicates(*sets, 0)
    assert found == [("b.wav", "copy.wav"), ("a.wav", "other.flac")]
    assert find_duplicates(sets[0][2:3], sets[1], 0) == []
