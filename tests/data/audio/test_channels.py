"""The channels that are read from a recording, and refusals of missing ones."""

import re

import numpy as np
import pytest
from support.logs import refusal

from gammavae_jax.data.audio.channels import near_waveform, require_channels


@pytest.mark.parametrize(
    ("channels", "n_channels", "message"),
    [
        (1, 1, "x: there is no channel 1 in this array: choose .* from 0 to 0"),
        ((2, 0), 2, "x: there is no channel 2 in this array: choose .* from 0 to 1"),
        ((0, 1), 1, "x: there is no reference channel 1 in this array, whose "
         "channel count is 1: record both microphones in one array, or fit without "
         "features"),
        ((1, 7), 4, "no reference channel 7 in this array, whose channel count is 4"),
    ],
)  # fmt: skip
def test_a_missing_channel_is_refused_in_one_line(channels, n_channels, message):
    text = refusal(require_channels, channels, n_channels, "x", "array")
    assert re.search(message, text)


@pytest.mark.parametrize("channels", [0, 1, (0, 1), (1, 0)])
def test_channels_that_exist_are_accepted(channels):
    require_channels(channels, 2, "x")


def test_the_near_microphone_comes_first():
    pair = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert near_waveform(pair).tolist() == [0, 2, 4]
    assert near_waveform(pair[:, 1]).tolist() == [1, 3, 5]
