"""A user's recordings: finding, resampling and cutting them into clips."""

from functools import partial
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from rich.console import Console

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.audio import resampled
from gammavae_jax.data.features import log_mel, mel_filterbank
from gammavae_jax.data.recording_clips import (
    cut,
    load_all,
    load_recordings,
    parts_held_together,
)
from gammavae_jax.data.recordings import by_machine, find_recordings, of_known_machines
from gammavae_jax.errors import InputError
from gammavae_jax.log import Log

FEATURES = FeatureConfig()
BANK = mel_filterbank(FEATURES)


def noise(seconds, rate=16000, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 0.1, (round(seconds * rate),)).astype(np.float32)


@pytest.fixture
def folder(tmp_path):
    """Three recordings, one of them in a subfolder, and other files."""
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
    with pytest.raises(InputError, match=message) as error:
        find_recordings(recordings, sample_rate)[0].read(0)
    assert "\n" not in str(error.value)


def test_a_folder_without_recordings_is_refused(tmp_path):
    (tmp_path / "a.mp3").touch()
    with pytest.raises(InputError, match=r"must contain .*; left out .*\(a\.mp3\)"):
        find_recordings(tmp_path)


def test_what_is_left_out_of_a_folder_is_said(folder):
    lines = []
    find_recordings(folder, say=lines.append)
    assert [line.split(": ", 1)[1] for line in lines] == [
        "1 hidden or system file or folder (.hidden.wav): rename or move it to use it"
    ]


def put(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


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
def test_folders_of_one_name_are_told_apart(tmp_path, monkeypatch, given, expected):
    monkeypatch.chdir(tmp_path)
    put(tmp_path, *(g if g.endswith(".wav") else f"{g}/0.wav" for g in given))
    assert [source.name for source in find_recordings(given)] == expected


def test_names_that_look_the_same_are_told_apart(tmp_path):
    put(
        tmp_path,
        "caf\u00e9.wav",
        "cafe\u0301.wav",
        "th\u00e9.wav",
        "a\n.wav",
        "a\\n.wav",
    )
    names = sorted(source.name for source in find_recordings(tmp_path))
    assert names == [
        "a\\\\n.wav", "a\\n.wav", "caf\\xe9.wav", "cafe\\u0301.wav", "th\u00e9.wav",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("names", "given", "word"),
    [
        (["fan/id_00/normal/0.wav", "fan/id_00/abnormal/0.wav"], "fan", "abnormal"),
        (["Faulty/0.wav"], "Faulty/.", "faulty"),
        (["rec/pump_broken.wav"], "rec", "broken"),
        (["anomaly/0.wav"], "anomaly/0.wav", "anomaly"),
        (["broken hill/pump/no_anomaly/0.wav"], "broken hill/pump", None),
        (["anomaly_detection/normal/0.wav"], "anomaly_detection", None),
    ],
)
def test_recordings_named_not_normal_are_refused_for_training_only(
    tmp_path, names, given, word
):
    put(tmp_path, *names)
    for name in names:
        soundfile.write(tmp_path / name, noise(1), 16000)
    recordings = {
        "pump": tmp_path / given if "." not in given else f"{tmp_path}/{given}"
    }
    options = (None, BANK, FEATURES, None, Log(Console(quiet=True)))
    assert len(load_all(recordings, *options)["pump"].names) == len(names)
    if word is None:
        load_all(recordings, *options, for_training=True)
        return
    with pytest.raises(InputError, match=f"contains {word!r}, but models learn"):
        load_all(recordings, *options, for_training=True)


def test_a_short_recording_is_a_single_clip(folder):
    (source,) = [s for s in find_recordings(folder) if s.name == "b.wav"]
    loaded = load_recordings([source], BANK, FEATURES, 10.0)
    expected = log_mel(source.read(0).waveform, BANK, FEATURES)
    np.testing.assert_array_equal(loaded.clips.log_mels[0], expected)
    assert loaded.clips.formats == {(16000, 1)}


def test_long_recordings_are_cut_into_equal_clips_without_loss():
    sources = find_recordings([noise(2), noise(7.6), noise(1)], 16000)
    loaded = load_recordings(sources, BANK, FEATURES, 2.0)
    assert loaded.recording.tolist() == [0, 1, 1, 1, 1, 2]
    lengths = {len(m) for m in loaded.clips.log_mels[1:5]}
    assert max(lengths) - min(lengths) <= 1
    pieces = cut(noise(7.6), 32000)
    np.testing.assert_array_equal(np.concatenate(pieces), noise(7.6))


def test_other_sample_rates_are_resampled_like_librosa_does():
    waveform = noise(1, 44100)
    loaded = load_recordings(find_recordings(waveform, 44100), BANK, FEATURES, 10.0)
    assert loaded.clips.formats == {(44100, 0)}
    like_librosa = partial(librosa.resample, res_type="soxr_hq")
    expected = like_librosa(waveform, orig_sr=44100, target_sr=16000)
    actual = resampled(waveform, 44100, 16000)
    np.testing.assert_allclose(actual, expected, atol=1e-6)
    expected = log_mel(actual, BANK, FEATURES)
    np.testing.assert_array_equal(loaded.clips.log_mels[0], expected)


def test_a_recording_too_short_for_a_window_is_refused_by_name():
    sources = find_recordings(noise(1000 / 16000), 16000)
    with pytest.raises(InputError, match="array 0: 1000 samples"):
        load_recordings(sources, BANK, FEATURES, 1.0)


def test_clips_of_a_recording_stay_in_one_part():
    recording = np.repeat(np.arange(6), [1, 4, 2, 1, 1, 3])
    np.testing.assert_array_equal(parts_held_together(recording, 5), recording)


def test_with_fewer_recordings_than_folds_parts_are_successive_clips():
    parts = parts_held_together(np.zeros(20, int), 5)
    np.testing.assert_array_equal(parts, np.repeat(np.arange(5), 4))
    two = parts_held_together(np.array([0, 1, 1, 1, 1]), 5)
    assert two.tolist() == [0, 1, 1, 2, 3]


@pytest.mark.parametrize("n_folds", [2, 4])
def test_the_clips_of_a_recording_need_not_be_adjacent(n_folds):
    recording = np.array([7, 2, 7, 7, 2, 7, 2, 2])
    parts = parts_held_together(recording, n_folds)
    expected = {2: [1, 0, 1, 1, 0, 1, 0, 0], 4: [2, 0, 2, 3, 0, 3, 1, 1]}
    np.testing.assert_array_equal(parts, expected[n_folds])


def test_bad_recordings_are_skipped_and_reported_if_requested(folder):
    (folder / "bad.wav").write_bytes(b"RIFF")
    errors = []
    sources = find_recordings([folder, noise(0.01)], 16000)
    with pytest.raises(InputError, match=r"bad\.wav"):
        load_recordings(sources, BANK, FEATURES, None)
    loaded = load_recordings(sources, BANK, FEATURES, None, on_bad_file=errors.append)
    assert [Path(name).name for name in loaded.names] == ["a.flac", "b.wav", "c.WAV"]
    assert loaded.recording.tolist() == [0, 1, 2]
    assert [str(error).split(":")[0][-7:] for error in errors] == ["bad.wav", "array 1"]
    with pytest.raises(InputError, match="none of the recordings"):
        load_recordings(sources[-1:], BANK, FEATURES, None, on_bad_file=errors.append)


def test_recordings_stay_whole_without_a_clip_length():
    loaded = load_recordings(find_recordings(noise(30), 16000), BANK, FEATURES, None)
    assert loaded.recording.tolist() == [0]


def test_recordings_are_assigned_to_known_machines():
    assert of_known_machines("x", None, ("pump",)) == {"pump": "x"}
    assert of_known_machines({"a": "x"}, None, ("a", "b")) == {"a": "x"}
    assert of_known_machines("x", "u\u0308", ("\u00fc", "b")) == {"\u00fc": "x"}
    for recordings, machine, message in (
        ("x", None, "a, b, \u00fc: state which machine"),
        ("x", "c", "unknown machine 'c'"),
        ({"a": "x"}, "a", "pass either the argument 'machine' or a dict of machines"),
        ({}, None, "the dict of recordings is empty"),
        (
            {"u\u0308": "x", "\u00fc": "y"},
            None,
            "are equal in Unicode",
        ),
    ):
        with pytest.raises(InputError, match=message):
            of_known_machines(recordings, machine, ("a", "b", "\u00fc"))


def test_two_machines_whose_names_differ_only_in_unicode_form_are_refused():
    """Later, nobody could name one of them."""
    names = ("L\u00fcfter", "Lu\u0308fter", "pump")
    with pytest.raises(InputError, match=r"'L\\xfcfter' and 'Lu\\u0308fter' are equal"):
        by_machine(dict.fromkeys(names, ()), "")
    assert [*by_machine(dict.fromkeys(names[1:], ()), "")] == [*names[1:]]
