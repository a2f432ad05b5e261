"""Finds recordings that are in two sets, whatever their names and file formats."""

import hashlib
from collections.abc import Sequence

from gammavae_jax.data.channels import Channels
from gammavae_jax.data.clips import in_threads
from gammavae_jax.data.recordings import RecordingSource
from gammavae_jax.errors import InputError


def find_duplicates(
    first: Sequence[RecordingSource],
    second: Sequence[RecordingSource],
    channels: Channels,
) -> list[tuple[str, str]]:
    """Return the names of each recording that is in both sets.

    Recordings are duplicates if their samples and sample rates are equal, even if one
    is a WAV file and the other is a FLAC file. An unreadable file has no duplicates.

    Args:
        first: the recordings of one set.
        second: the recordings of the other set.
        channels: the channels to compare.
    """

    def checksum(source: RecordingSource) -> str | None:
        try:
            recording = source.read(channels)
        except InputError:
            return None
        digest = hashlib.blake2b(str(recording.sample_rate).encode(), digest_size=20)
        digest.update(recording.waveform.tobytes())
        return digest.hexdigest()

    of_first = in_threads(checksum, first)
    names = {c: s.name for s, c in zip(first, of_first, strict=True) if c is not None}
    of_second = zip(second, in_threads(checksum, second), strict=True)
    return [(names[c], source.name) for source, c in of_second if c in names]
