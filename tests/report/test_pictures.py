"""A clip's sound on a page, and the description of where its score comes from."""

import base64
import io
import zlib

import numpy as np
import pytest
import soundfile

from gammavae_jax.config import Config, FeatureConfig
from gammavae_jax.data.features import band_corners
from gammavae_jax.report.explanation import Explanation, Part
from gammavae_jax.report.pictures import (
    Sound,
    describe_regions,
    encode_clip,
    find_regions,
    frequencies,
    picture_payload,
)

CORNERS = band_corners(FeatureConfig())
SECONDS = 512 / 16000


@pytest.mark.parametrize(
    ("rate", "media_type"),
    [(16000, "audio/mpeg"), (48000, "audio/mpeg"), (1234, "audio/wav")],
)
def test_an_encoded_clip_sounds_the_same(rate, media_type):
    """A tone keeps its frequency and level; MP3 is used if it supports the rate."""
    seconds, hertz = 2, rate / 16
    tone = np.sin(2 * np.pi * hertz * np.arange(seconds * rate) / rate) / 2
    data, actual_type = encode_clip(tone.astype(np.float32), rate)
    assert actual_type == media_type
    decoded, decoded_rate = soundfile.read(io.BytesIO(data))
    assert decoded_rate == rate
    assert len(decoded) == pytest.approx(len(tone), abs=3000)
    middle = decoded[len(decoded) // 4 : -len(decoded) // 4]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert spectrum.argmax() * rate / len(middle) == pytest.approx(hertz, rel=0.01)
    assert middle.std() == pytest.approx(tone.std(), rel=0.1)
    if media_type == "audio/mpeg":
        assert len(data) < 8000 * seconds


def patch(*boxes, haze=0.001):
    """Return contributions over 313 frames, with boxes of (bands, frames, height)."""
    values = np.full((313, 128), haze)
    for bands, frames, height in boxes:
        values[frames, bands] += height
    return values


def described(*boxes, **kwargs):
    return describe_regions(find_regions(patch(*boxes, **kwargs)), CORNERS, SECONDS)


def test_a_region_is_found_where_it_lies():
    (region,) = find_regions(patch((slice(60, 70), slice(100, 120), 1.0)))
    assert abs(region.first_band - 60) <= 2
    assert abs(region.last_band - 69) <= 2
    ((first, last),) = region.moments
    assert abs(first - 100) <= 3
    assert abs(last - 119) <= 3
    assert region.share > 0.8


def test_a_description_names_frequencies_and_seconds():
    text = described((slice(60, 70), slice(100, 132), 1.0))
    low, high = CORNERS[60] / 1000, CORNERS[71] / 1000
    assert "kHz, from 3." in text
    hertz = text.split("between ")[1].split(" kHz")[0]
    first, second = map(float, hertz.split(" and "))
    assert first == pytest.approx(low, abs=0.15)
    assert second == pytest.approx(high, abs=0.15)
    seconds = text.split(", from ")[1].split(" s")[0]
    start, end = map(float, seconds.split(" to "))
    assert start == pytest.approx(3.2, abs=0.15)
    assert end == pytest.approx(4.2, abs=0.15)


def test_steady_sounds_are_throughout_and_many_clicks_are_counted():
    assert "throughout" in described((slice(20, 30), slice(None), 1.0))
    clicks = [(slice(20, 30), slice(f, f + 5), 1.0) for f in range(20, 300, 40)]
    assert f"at {len(clicks)} short moments" in described(*clicks)
    # Bursts in close succession are one moment.
    bursts = [(slice(20, 30), slice(f, f + 3), 1.0) for f in range(20, 80, 6)]
    assert described(*bursts).count(" to ") == 1
    two = described(*clicks[:2])
    assert two.count(" to ") == 2
    assert " and " in two.split(", from ")[1]


def test_the_stronger_of_two_bands_comes_first():
    text = described(
        (slice(10, 14), slice(None), 1.0), (slice(100, 110), slice(None), 1.0)
    )
    assert text.index("kHz") < text.index("Hz", text.index("kHz") + 3)
    assert text.index("Another") > text.index("between")


def test_a_broad_region_comes_before_a_narrow_one_with_a_higher_peak():
    narrow = (slice(100, 104), slice(None), 2.0)
    broad = (slice(10, 40), slice(None), 1.0)
    regions = find_regions(patch(narrow, broad))
    assert [r.first_band < 50 for r in regions] == [True, False]
    assert regions[0].share > regions[1].share


def test_a_score_that_nothing_raises_has_no_regions():
    assert find_regions(-patch()) == []
    assert describe_regions([], CORNERS, SECONDS) == "No band raises the score."
    assert "nearly all frequencies" in described(haze=1.0)


def test_frequencies_have_the_unit_that_fits():
    assert frequencies(312.0, 448.0) == "310 and 450 Hz"
    assert frequencies(930.0, 1240.0) == "0.9 and 1.2 kHz"


def decoded(picture, n_bands):
    """Return the values of a picture, `column band`."""
    codes = np.frombuffer(zlib.decompress(base64.b64decode(picture["data"])), np.uint8)
    values = picture["low"] + picture["step"] * codes.astype(float)
    return np.where(codes == 255, np.nan, values).reshape(-1, n_bands)


@pytest.mark.parametrize(("unit", "most"), [("dB", 40), ("standard deviations", 20)])
def test_a_stretch_where_the_model_is_far_off_does_not_hide_the_rest(unit, most):
    residual = np.full((40, 128), 3.0)
    residual[10:20] = 300.0
    parts = (Part("mse", 51.2, True),)
    explanation = Explanation(residual, residual, unit, 0 * residual, parts)
    made = picture_payload(explanation, residual, Sound(None, 16000), Config())
    shown = decoded(made["residual"], 128)
    assert made["residual"]["high"] == most
    np.testing.assert_allclose(shown[:10], 3.0, atol=0.26)
    assert np.all(shown[10:20] > most - 0.26)


@pytest.mark.parametrize("unit", ["dB", "standard deviations"])
def test_a_reconstruction_is_sent_unless_the_residual_in_decibels_gives_it(unit):
    rng = np.random.default_rng(0)
    log_mel = rng.normal(-60, 8, (40, 128))
    rebuilt = np.clip(log_mel + rng.normal(0, 3, log_mel.shape), -80, -40)
    residual = log_mel - rebuilt if unit == "dB" else rng.standard_normal((40, 128))
    parts = (Part("mse", 51.2, True),)
    explanation = Explanation(rebuilt, residual, unit, 0.01 + 0 * log_mel, parts)
    made = picture_payload(explanation, log_mel, Sound(None, 16000), Config())
    shown = decoded(made["residual"], 128)
    step = 0.5 if unit == "dB" else 0.05
    within = np.abs(residual) < made["residual"]["high"]
    assert within.mean() > 0.99
    np.testing.assert_allclose(shown[within], residual[within], atol=0.51 * step)
    assert made["residual"]["unit"] == unit
    assert ("reconstruction" in made) == (unit != "dB")
    if unit != "dB":
        again = decoded(made["reconstruction"], 128)
        inside = (rebuilt > log_mel.min()) & (rebuilt < log_mel.max())
        np.testing.assert_allclose(again[inside], rebuilt[inside], atol=0.26)
