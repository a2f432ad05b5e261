"""How long recordings are, told by their headers where those can be believed."""

import os
from pathlib import Path

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.archives import archive_of
from gammavae_jax.data.audio import open_recording
from gammavae_jax.data.clips import clip_waveform, require_window
from gammavae_jax.data.features import n_frames
from gammavae_jax.errors import printable

_MOST_PACKED = 64  # samples in a byte; a FLAC file of sounds has one or two


def clip_frames(path: Path, config: FeatureConfig) -> int:
    """Frames of the log-mel of a recording, which is not decoded if it can be helped.

    What the header alone does not tell (samples that are not finite, a file cut short
    in its compressed part) is not found.

    Raises:
        InputError: see `clip_waveform`.
    """
    # A recording in an archive is unpacked as a whole in any case.
    if archive_of(path) is None:
        with open_recording(path, channel=config.channel) as recording:
            n_samples = recording.n_samples
            is_right = recording.sample_rate == config.sample_rate
        # Nobody makes room for what a few bytes claim to hold.
        if is_right and n_samples <= _MOST_PACKED * os.path.getsize(path):
            require_window(n_samples, printable(path), config)
            return n_frames(n_samples, config)
    return n_frames(len(clip_waveform(path, config)), config)
