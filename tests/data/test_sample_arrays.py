"""Arrays of samples: the right scale, or a refusal that names the remedy."""

import numpy as np
import pytest

from gammavae_jax.data.sample_arrays import waveform_of, whole_rate
from gammavae_jax.errors import InputError

SOUND = np.random.default_rng(0).uniform(-0.5, 0.5, 4000)


def at(scale, dtype):
    return np.rint(SOUND * scale).astype(dtype)


@pytest.mark.parametrize(
    "samples",
    [
        SOUND,
        SOUND.astype(np.float16),
        at(2**7, np.int8),
        at(2**15, np.int16),
        at(2**31, np.int32),
        at(2**23, np.int32) << 8,  # 24 bits, shifted as soundfile and SciPy do
        at(2**15, np.int32) << 16,
    ],
    ids=lambda samples: str(samples.dtype),
)
def test_samples_that_use_their_type_have_a_full_scale_of_one(samples):
    np.testing.assert_allclose(waveform_of(samples, "x"), SOUND, atol=2**-7)


def test_several_channels_are_scaled_together():
    channels = np.stack([at(2**15, np.int16), at(2**10, np.int16)], 1)
    found = waveform_of(channels, "x")
    np.testing.assert_allclose(found, np.stack([SOUND, SOUND / 32], 1), atol=2**-15)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (at(2**15, np.int64), "int64, but fill only 15 bits: .*int16"),
        (at(2**15, np.int32), "int32, but fill only 15 bits"),
        (at(2**23, np.int32), "int32, but fill only 23 bits"),
        (at(2**31, np.int64), "int64, but fill only 31 bits"),
        (np.array([0, -(2**63)]), "int64, but fill only 65 bits"),
        (at(2**15, np.float32), "samples reach 16.*such as 32768"),
        (at(2**7, float), r"samples reach 64, but full scale must be 1"),
        (SOUND * 2**15, "samples reach 16"),
        (SOUND.astype(np.float32) * 2**23, "samples reach 4"),
        (np.array([0.5, np.inf]), "sample 1 is inf"),
        (np.array([True, False]), "the type bool"),
        (at(2**7, np.uint8), "the type uint8"),
        (SOUND + 0j, "the type complex"),
        (np.ma.masked_greater(SOUND, 0.3), r"masked samples: fill them"),
        (np.zeros((2, 4000)), r"the shape \(2, 4000\).*\(samples, channels\)"),
        (np.zeros((4, 4)), r"the shape \(4, 4\)"),
        (np.zeros((4000, 2, 1)), r"the shape \(4000, 2, 1\)"),
        (np.stack([SOUND, np.full(4000, np.nan)], 1), "sample 0 is nan"),
    ],
)
def test_samples_of_an_unknown_scale_are_refused_with_the_remedy(samples, message):
    with pytest.raises(InputError, match=rf"^x.*{message}") as error:
        waveform_of(samples, "x")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, np.float32])
def test_silence_and_no_samples_have_every_scale(dtype):
    assert not waveform_of(np.zeros(100, dtype), "x").any()
    assert waveform_of(np.zeros(0, dtype), "x").shape == (0,)


def test_samples_somewhat_beyond_full_scale_and_hard_clipping_are_kept():
    for samples in (SOUND * 4, np.sign(SOUND)):
        np.testing.assert_allclose(waveform_of(samples, "x"), samples, rtol=1e-6)


@pytest.mark.parametrize("rate", [16000, np.int64(16000), np.float32(16000), 16000.0])
def test_a_whole_sample_rate_becomes_a_plain_number(rate):
    assert type(whole_rate(rate)) is int
    assert whole_rate(rate) == 16000


@pytest.mark.parametrize("rate", ["16000", True, 0, 44100.5, float("nan"), [0, 1], 2e9])
def test_another_sample_rate_is_refused(rate):
    with pytest.raises(InputError, match=r"sample_rate is .*: pass a whole number"):
        whole_rate(rate)
