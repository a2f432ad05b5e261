"""Links between training clips, and the number of independent clips they leave."""

from io import StringIO
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from support.probes import clips, noise

from gammavae_jax.data.arrays import stack_machines
from gammavae_jax.data.machines import clip_file
from gammavae_jax.data.shared_audio import find_shared_audio
from gammavae_jax.log import Log
from gammavae_jax.training.examples import stack_examples
from gammavae_jax.training.links import independence, link_clips
from gammavae_jax.training.split import split_windows

N_FRAMES = 64


def arrays_of(*machines):
    return stack_machines([(f"m{n}", clips(m)) for n, m in enumerate(machines)], 5)


def with_shared_audio(rng, n_clips=6, pairs=((1, 4),)):
    """Return clips; some pairs of them are cut from one recording."""
    out = noise(rng, n_clips, N_FRAMES)
    for one, other in pairs:
        out[other] = np.concatenate([out[one][4:], out[other][:4]])
    return out


def pairs_of(linked):
    np.testing.assert_array_equal(linked, linked.T)
    assert linked.diagonal().all()
    return {
        (int(i), int(j)) for i, j in zip(*np.nonzero(np.triu(linked, 1)), strict=True)
    }


def test_clips_are_linked_if_they_share_audio_or_a_group():
    rng = np.random.default_rng(0)
    arrays = arrays_of(with_shared_audio(rng), noise(rng, 9, N_FRAMES))
    audio, none = link_clips(arrays.clips)
    assert pairs_of(audio) == {(1, 4)}
    assert pairs_of(none) == set()
    groups = [np.array([0, 1, 2, 0, 4, 5]), np.arange(9) // 7]
    audio_or_group, group = link_clips(arrays.clips, groups)
    assert pairs_of(audio_or_group) == {(1, 4), (0, 3)}
    assert pairs_of(group) == {*combinations(range(7), 2), (7, 8)}


def test_a_link_is_not_passed_on():
    """Clips 1 and 4 share audio, and 4 and 5 a group, but 1 and 5 are not linked."""
    arrays = arrays_of(with_shared_audio(np.random.default_rng(0)))
    (linked,) = link_clips(arrays.clips, [np.array([0, 1, 2, 3, 4, 4])])
    assert pairs_of(linked) == {(1, 4), (4, 5)}


def test_padding_is_linked_to_no_clip_and_changes_no_link():
    rng = np.random.default_rng(0)
    few, many = with_shared_audio(rng), noise(rng, 9, 90)
    groups = [np.array([0, 1, 2, 0, 4, 5]), np.zeros(9, int)]
    padded = link_clips(arrays_of(few, many).clips, groups)[0]
    assert pairs_of(padded) == {(1, 4), (0, 3)}
    np.testing.assert_array_equal(padded[6:], np.eye(9, dtype=bool)[6:])


@pytest.mark.parametrize("n_clips", [1, 2, 7])
def test_linked_groups_of_clips_count_as_one_recording_each(n_clips):
    rng = np.random.default_rng(n_clips)
    group = rng.integers(4, size=n_clips + 3)
    is_clip = np.arange(len(group)) < n_clips
    linked = group[:, None] == group
    (ours,) = independence(linked[None], is_clip[None])
    sizes = np.bincount(group[is_clip], minlength=4)[group]
    np.testing.assert_allclose(ours, np.where(is_clip, 1 / np.maximum(sizes, 1), 0))
    np.testing.assert_allclose(ours.sum(), len(set(group[is_clip])))


@pytest.mark.parametrize("seed", range(20))
def test_independence_adds_up_to_at_most_the_largest_set_without_links(seed):
    rng = np.random.default_rng(seed)
    n = 9
    linked = np.triu(rng.random((n, n)) < rng.uniform(0.1, 0.6), 1)
    linked = linked | linked.T | np.eye(n, dtype=bool)
    is_clip = rng.random(n) < 0.9
    sets = (
        chosen
        for size in range(1, n + 1)
        for chosen in combinations(np.flatnonzero(is_clip), size)
        if np.sum(linked[np.ix_(chosen, chosen)]) == size
    )
    largest = max(map(len, sets))
    total = independence(linked[None], is_clip[None]).sum()
    assert 1 <= total <= largest + 1e-9
    np.testing.assert_array_equal(
        independence(linked[None], is_clip[None])[0] > 0, is_clip
    )


def test_the_chain_of_three_clips_counts_four_thirds():
    chain = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1]], bool)
    ours = independence(chain[None], np.ones((1, 3), bool))
    np.testing.assert_allclose(ours, [[1 / 2, 1 / 3, 1 / 2]])


def test_a_split_into_folds_has_the_links_of_audio_and_recordings(tiny):
    rng = np.random.default_rng(0)
    arrays = arrays_of(with_shared_audio(rng, 8), noise(rng, 12, N_FRAMES))
    recordings = [np.array([0, 0, 1, 2, 3, 4, 5, 6]), np.arange(12) // 3]
    config = tiny("default", "train.n_folds=4", "n_seeds=2")
    alone = split_windows(arrays, config).is_linked
    np.testing.assert_array_equal(alone, link_clips(arrays.clips))
    assert pairs_of(alone[0]) == {(1, 4)}
    split = split_windows(arrays, config, recordings=recordings)
    np.testing.assert_array_equal(split.is_linked, link_clips(arrays.clips, recordings))
    assert pairs_of(split.is_linked[0]) == {(0, 1), (1, 4)}
    assert len(pairs_of(split.is_linked[1])) == 4 * 3
    # Clips of one recording are also held out together.
    for number in range(4):
        held_out = split.is_held_out[:, 1, :12][:, recordings[1] == number]
        assert (held_out.all(-1) == held_out.any(-1)).all()


def test_clips_with_equal_attributes_are_excluded_but_not_linked(tiny):
    rng = np.random.default_rng(0)
    arrays = arrays_of(with_shared_audio(rng), noise(rng, 9, N_FRAMES))
    attributes = [np.array([0, 1, 2, 3, 4, 3]), np.arange(9) // 7]
    config = tiny("default", "train.n_folds=3")
    split = split_windows(arrays, config, attributes=attributes)
    alone = split_windows(arrays, config)
    np.testing.assert_array_equal(split.is_linked, alone.is_linked)
    np.testing.assert_array_equal(alone.is_linked, alone.is_excluded)
    assert pairs_of(split.is_excluded[0]) == {(1, 4), (3, 5)}
    assert pairs_of(split.is_excluded[1]) == {*combinations(range(7), 2), (7, 8)}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (("default",), {(0, 2)}),
        (("default", "train.group_by=normal_000[01]"), set()),  # the user's groups
        (("default", "train.attributes=ignore"), set()),
        (("vae",), set()),
    ],
)
def test_the_attributes_come_from_the_names_unless_groups_are_given(
    tiny, settings, expected
):
    def name(number, speed):
        return f"section_00_source_train_normal_{number:04d}_spd_{speed}.wav"

    speeds = [5, 1, 5, 3, 4, 6, 7, 8, 9, 2]
    train = clips(noise(np.random.default_rng(0), 10, N_FRAMES))._replace(
        files=tuple(clip_file(Path(name(n, s))) for n, s in enumerate(speeds))
    )
    log = Log(Console(file=StringIO(), width=1000))
    examples = stack_examples(tiny(*settings), [("fan", train)], log)
    assert pairs_of(examples.split.is_excluded[0]) == expected
    note = (
        "Training clips with equal attributes in their names are not compared with "
        "each other: fan. If the attributes describe states to which the machine often "
        "returns, set train.attributes=ignore."
    )
    assert (note in log.notes) == bool(expected)


@pytest.mark.parametrize("preset", ["vae", "official"])
def test_without_folds_clips_are_linked_only_to_themselves(tiny, preset):
    arrays = arrays_of(with_shared_audio(np.random.default_rng(0)))
    assert find_shared_audio(
        np.asarray(arrays.clips.log_mel[0]), np.full(6, N_FRAMES)
    ).any()
    split = split_windows(arrays, tiny(preset), recordings=[np.zeros(6, int)])
    np.testing.assert_array_equal(split.is_linked, np.eye(6, dtype=bool)[None])


def test_the_parts_of_a_machines_only_recording_are_linked_like_recordings(tiny):
    """If all parts were linked, a clip could not be compared with any other clip."""
    rng = np.random.default_rng(0)
    arrays = arrays_of(noise(rng, 12, N_FRAMES), noise(rng, 12, N_FRAMES))
    config = tiny("default", "train.n_folds=3")
    recordings = [np.full(12, 7), np.arange(12) // 6]
    split = split_windows(arrays, config, recordings=recordings)
    of_part = np.repeat(np.arange(3), 4)
    np.testing.assert_array_equal(split.is_linked[0], of_part[:, None] == of_part)
    # Two recordings are also divided for the folds, but their parts stay linked.
    of_two = recordings[1]
    np.testing.assert_array_equal(split.is_linked[1], of_two[:, None] == of_two)
    assert (split.is_held_out[:, 1].sum(-1) < 6).any()
