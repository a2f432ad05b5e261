"""Where a contribution lies, told in words."""

import numpy as np
import pytest

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.features import band_corners
from gammavae_jax.report.words import describe_regions, find_regions, frequencies

CORNERS = band_corners(FeatureConfig())
SECONDS = 512 / 16000


def patch(*boxes, haze=0.001):
    """Contributions of 313 frames, with boxes of (bands, frames, height)."""
    made = np.full((313, 128), haze)
    for bands, frames, height in boxes:
        made[frames, bands] += height
    return made


def told(*boxes, **kwargs):
    return describe_regions(find_regions(patch(*boxes, **kwargs)), CORNERS, SECONDS)


def test_a_box_is_found_where_it_is():
    (region,) = find_regions(patch((slice(60, 70), slice(100, 120), 1.0)))
    assert abs(region.first_band - 60) <= 2
    assert abs(region.last_band - 69) <= 2
    ((first, last),) = region.moments
    assert abs(first - 100) <= 3
    assert abs(last - 119) <= 3
    assert region.share > 0.8


def test_words_tell_frequencies_and_seconds():
    text = told((slice(60, 70), slice(100, 132), 1.0))
    low, high = CORNERS[60] / 1000, CORNERS[71] / 1000
    assert "kHz, at 3." in text
    first, second = (
        float(w) for w in text.split("between ")[1].split(" kHz")[0].split(" and ")
    )
    assert first == pytest.approx(low, abs=0.15)
    assert second == pytest.approx(high, abs=0.15)
    start, end = (float(w) for w in text.split(", at ")[1].split(" s")[0].split(" to "))
    assert start == pytest.approx(3.2, abs=0.15)
    assert end == pytest.approx(4.2, abs=0.15)


def test_what_lasts_is_throughout_and_many_clicks_are_counted():
    assert "throughout" in told((slice(20, 30), slice(None), 1.0))
    clicks = [(slice(20, 30), slice(f, f + 5), 1.0) for f in range(20, 300, 40)]
    assert f"in {len(clicks)} short moments" in told(*clicks)
    # Bursts that follow each other closely are one moment.
    bursts = [(slice(20, 30), slice(f, f + 3), 1.0) for f in range(20, 80, 6)]
    assert told(*bursts).count(" to ") == 1
    two = told(*clicks[:2])
    assert two.count(" to ") == 2
    assert " and " in two.split(", at ")[1]


def test_the_stronger_of_two_bands_comes_first():
    text = told((slice(10, 14), slice(None), 1.0), (slice(100, 110), slice(None), 1.0))
    assert text.index("kHz") < text.index("Hz", text.index("kHz") + 3)
    assert text.index("Then") > text.index("between")


def test_nothing_that_raises_a_score_is_said_to_be_nothing():
    assert find_regions(-patch()) == []
    assert describe_regions([], CORNERS, SECONDS) == "No band raises the score."
    assert "nearly all frequencies" in told(haze=1.0)


def test_frequencies_have_the_unit_that_fits():
    assert frequencies(312.0, 448.0) == "310 and 450 Hz"
    assert frequencies(930.0, 1240.0) == "0.9 and 1.2 kHz"
