"""The training clips that a detector keeps in a compact form."""

from pathlib import Path

import numpy as np
import pytest

from gammavae_jax.data.audio.samples import Signal
from gammavae_jax.data.clips import Clips
from gammavae_jax.data.machines import clip_file
from gammavae_jax.data.recordings.clips import LoadedRecordings, joined
from gammavae_jax.data.training_clips import (
    as_recordings,
    chosen_clips,
    find_copies,
    kept_clips,
)

ATTRIBUTES = "section_00_source_train_normal_{:04}_car_B1.wav"


def loaded(seed, sizes, group=None):
    """Return recordings of noise that were cut into these numbers of clips."""
    rng = np.random.default_rng(seed)
    recording = np.repeat(np.arange(len(sizes)), sizes)
    names = tuple(ATTRIBUTES.format(10 * seed + n) for n in range(len(sizes)))
    n_clips = len(recording)
    clips = Clips(
        tuple(clip_file(Path(names[number])) for number in recording),
        tuple(rng.uniform(-157, 40, (20, 8)).astype(np.float32) for _ in recording),
        recording,
        frozenset({(16000, seed)}),
        (3.0,) * n_clips,
        group,
        tuple(Signal(0.1 * clip, 0.0) for clip in range(n_clips)),
    )
    return LoadedRecordings(names, clips, seconds=(2.0,) * n_clips)


def kept(recordings):
    return kept_clips(recordings, np.zeros(len(recordings.clips.files), int))


def same(one, other):
    """Assert that two sets of recordings are equal, except for rounded log-mels."""
    assert (one.names, one.seconds) == (other.names, other.seconds)
    for field in ("files", "formats", "explained", "signals"):
        assert getattr(one.clips, field) == getattr(other.clips, field)
    np.testing.assert_array_equal(one.recording, other.recording)
    np.testing.assert_array_equal(one.clips.group, other.clips.group)
    for ours, theirs in zip(one.clips.log_mels, other.clips.log_mels, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1 / 400 + 1e-5)


def test_kept_recordings_are_rounded_to_a_two_hundredth_of_a_decibel():
    recordings = loaded(1, (1, 3))
    same(as_recordings(kept(recordings)), recordings)
    assert kept(recordings).steps[0].dtype == np.int16


def test_rounding_kept_clips_again_changes_nothing():
    once = kept(loaded(1, (1, 3)))
    again = kept(as_recordings(once))
    for ours, theirs in zip(again.steps, once.steps, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_joined_recordings_have_numbers_of_their_own():
    both = joined(loaded(1, (1, 3)), loaded(2, (2,)))
    assert both.recording.tolist() == [0, 1, 1, 1, 2, 2]
    assert both.clips.formats == {(16000, 1), (16000, 2)}
    assert both.clips.group is None
    assert both.clips.files[0].name.attributes == "car_B1"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ([0, 0], None, [0, 0, 1, 1, 2]),
        (None, [0, 0, 0], [0, 1, 2, 2, 2]),
        ([0, 1], [0, 0, 0], [0, 1, 2, 2, 2]),
    ],
)
def test_groups_of_old_and_new_recordings_stay_apart(old, new, expected):
    """If either has groups, these decide, and not the attributes in the names."""
    of_old, of_new = (None if g is None else np.array(g) for g in (old, new))
    both = joined(loaded(1, (1, 1), of_old), loaded(2, (2, 1), of_new))
    assert both.clips.group is not None
    assert both.clips.group.tolist() == expected
    assert not any(file.name.attributes for file in both.clips.files)
    same(as_recordings(kept(both)), both)


def test_recordings_without_a_chosen_clip_are_left_out():
    recordings = loaded(1, (1, 3, 2))
    chosen = chosen_clips(recordings, np.array([0, 1, 0, 1, 0, 1], bool))
    assert chosen.names == recordings.names[1:]
    assert chosen.recording.tolist() == [0, 0, 1]
    assert chosen.clips.log_mels[1] is recordings.clips.log_mels[3]
    assert [of.silent for of in chosen.clips.signals] == pytest.approx([0.1, 0.3, 0.5])


def test_copies_are_found_whatever_their_names_are():
    known = loaded(1, (1, 3))
    other = loaded(2, (2,))
    twice = joined(joined(other, known), other)
    assert find_copies(kept(known), twice).tolist() == [False, True, True, True]
    log_mels = tuple(mel + np.float32(0.1) for mel in known.clips.log_mels)
    changed = known._replace(clips=known.clips._replace(log_mels=log_mels))
    assert not find_copies(kept(known), changed).any()


def test_a_copy_may_be_rounded_differently_by_another_computer():
    known = loaded(1, (1, 3))
    log_mels = tuple(mel + np.float32(0.004) for mel in known.clips.log_mels)
    rounded = known._replace(clips=known.clips._replace(log_mels=log_mels))
    assert find_copies(kept(known), rounded).all()


def test_recordings_that_only_begin_alike_are_not_copies():
    known = loaded(1, (1,))
    (log_mel,) = known.clips.log_mels
    log_mels = (np.concatenate([log_mel[:1], log_mel[1:] + np.float32(1)]),)
    other = known._replace(clips=known.clips._replace(log_mels=log_mels))
    assert not find_copies(kept(known), other).any()
