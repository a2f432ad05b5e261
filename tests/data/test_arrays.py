"""Loading clips, and padding and stacking their log-mels."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.probes import clips, crowd, noise
from support.recorded import write_machine

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.arrays import (
    Capacity,
    capacity_to_learn,
    is_anomaly,
    is_target,
    shortened,
    stack_machines,
    supplemental_clips,
)
from gammavae_jax.data.clips import Clips, clip_identities, load_clips
from gammavae_jax.data.features import log_mel, mel_filterbank
from gammavae_jax.data.machines import clip_file, find_clips
from gammavae_jax.errors import InputError

CONFIG = FeatureConfig()
BANK = mel_filterbank(CONFIG)


@pytest.fixture
def folder(tmp_path):
    """Write a machine with five training clips of different lengths and channels."""
    shapes = [(4000 + 700 * i, 1 + i % 2) for i in range(5)]
    write_machine(tmp_path / "fan", train=shapes, test=shapes[:2])
    return tmp_path


def test_clips_have_the_log_mel_of_their_first_channel(folder):
    (files,) = find_clips(folder, "fan")
    loaded = load_clips(files.train, BANK, CONFIG)
    assert loaded.files == files.train
    for file, ours in zip(loaded.files, loaded.log_mels, strict=True):
        sound, _ = soundfile.read(file.path, dtype="float32", always_2d=True)
        expected = log_mel(sound[:, 0], BANK, CONFIG)
        # Loading limits BLAS to one thread, which may round differently.
        np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_a_clip_shorter_than_a_window_is_refused(folder):
    (files,) = find_clips(folder, "fan")
    soundfile.write(files.train[0].path, np.zeros(4 * 512 - 1), 16000)
    with pytest.raises(InputError, match=r"normal_0000.*too short: .* needs 2048"):
        load_clips(files.train, BANK, CONFIG)


def test_a_clips_level_is_the_mean_of_its_own_frames():
    """Neither padding nor the frames that are cut off count."""
    (machine,) = crowd(np.random.default_rng(0), counts=(4,))
    arrays = stack_machines([machine], 5, Capacity(6, 40, 200))
    means = [x.mean(dtype=np.float64) for x in machine[1].log_mels]
    np.testing.assert_allclose(arrays.clips.level[0], [*means, 0, 0], rtol=1e-6)
    cut = shortened(arrays.clips, np.minimum(arrays.clips.n_frames, 6))
    means = [x[:6].mean(dtype=np.float64) for x in machine[1].log_mels]
    np.testing.assert_allclose(cut.level[0], [*means, 0, 0], rtol=1e-6)
    assert cut.n_frames.max() == 6


def test_stacked_clips_are_padded_and_their_frames_counted():
    machines = crowd(np.random.default_rng(0), counts=(3, 5))
    arrays = stack_machines(machines, 5)
    assert arrays.clips.log_mel.shape[:2] == (2, 5)
    for m, (_, found) in enumerate(machines):
        for c, spectrogram in enumerate(found.log_mels):
            n = arrays.clips.n_frames[m, c]
            assert n == len(spectrogram)
            np.testing.assert_array_equal(arrays.clips.log_mel[m, c, :n], spectrogram)
            assert (arrays.clips.log_mel[m, c, n:] == 0).all()
    assert (arrays.clips.n_frames[0, 3:] == 0).all()


def test_windows_never_span_two_clips():
    spectra = noise(np.random.default_rng(0), 2, np.array([6, 8]))
    arrays = stack_machines([("m", clips(spectra))], 5)
    np.testing.assert_array_equal(arrays.window_start[0], [0, 1, 8, 9, 10, 11])


def test_supplemental_clips_are_recognised_by_their_folder():
    spectrum = np.zeros((6, 128), np.float32)
    names = ["fan/train/a.wav", "fan/supplemental/b.wav"]
    files = tuple(clip_file(Path(name)) for name in names)
    both, one = Clips(files, (spectrum,) * 2), Clips(files[:1], (spectrum,))
    machines = [("fan", both), ("m", one), ("pump", both)]
    expected = [[False, True], [False, False], [False, True]]
    assert supplemental_clips(machines, 2).tolist() == expected


def test_labels_are_none_if_any_name_lacks_one(folder):
    (files,) = find_clips(folder, "fan")
    np.testing.assert_array_equal(is_anomaly(files.test), [False, False])
    mystery = files.test[0]._replace(name=files.test[0].name._replace(label=""))
    assert is_anomaly([*files.test, mystery]) is None


def test_clip_identities_depend_on_name_and_sound():
    files = tuple(clip_file(Path(name)) for name in ("a.wav", "b.wav"))
    spectrum = np.zeros((6, 128), np.float32)
    first = clip_identities(Clips(files, (spectrum, spectrum)))
    assert first[0][:5] == "a.wav"
    assert first[0].split()[1] == first[1].split()[1]
    other = clip_identities(Clips(files, (spectrum, spectrum + 1.0)))
    assert other[0] == first[0]
    assert other[1] != first[1]


def test_windows_start_where_the_frames_of_their_clip_are_and_know_their_domain():
    rng = np.random.default_rng(0)
    spectra = noise(rng, 3, np.array([6, 9, 5]))
    machines = [("long", clips(noise(rng, 1, 12))), ("m", clips(spectra, n_target=1))]
    arrays = stack_machines(machines, 5, Capacity(4, 15, 20))
    assert arrays.is_target.tolist() == [[False] * 4, [False, False, True, False]]
    frames = arrays.clips.log_mel[1].reshape(-1, 128)
    windows = [frames[start : start + 5] for start in arrays.window_start[1, :8]]
    expected = [np.float32(c[w : w + 5]) for c in spectra for w in range(len(c) - 4)]
    np.testing.assert_array_equal(windows, expected)
    assert arrays.window_start.shape == (2, 20)
    assert not arrays.window_start[1, 8:].any()


def test_a_clip_of_an_unknown_domain_is_not_of_the_target():
    names = ("a.wav", "section_00_target_train_normal_0001.wav")
    assert is_target([clip_file(Path(name)) for name in names]).tolist() == [
        False,
        True,
    ]


@pytest.mark.parametrize("n_clips", [2, 7, 15, 22, 100, 1000])
def test_ten_more_clips_can_be_learnt_within_the_capacity(n_clips):
    capacity = capacity_to_learn(n_clips)
    assert n_clips + 10 <= capacity.clips <= max(32, 1.5 * (n_clips + 10))
    assert capacity.clips % 16 == 0
