"""Band corners, against librosa's."""

import librosa
import numpy as np
import pytest

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.features import band_corners, mel_filterbank


@pytest.mark.parametrize(
    "config",
    [FeatureConfig(), FeatureConfig(sample_rate=48000, n_mels=64, n_fft=2048),
     FeatureConfig(sample_rate=1600, n_mels=16)],
)  # fmt: skip
def test_corners_are_librosas(config):
    expected = librosa.mel_frequencies(config.n_mels + 2, fmax=config.sample_rate / 2)
    np.testing.assert_allclose(band_corners(config), expected, atol=1e-6)


def test_a_band_is_heard_between_its_corners():
    config = FeatureConfig()
    corners, filters = band_corners(config), mel_filterbank(config)
    hertz = np.arange(len(filters)) * config.sample_rate / config.n_fft
    for band in range(config.n_mels):
        heard = hertz[filters[:, band] > 0]
        assert (heard > corners[band]).all()
        assert (heard < corners[band + 2]).all()
