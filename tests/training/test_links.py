"""Links between training clips: shared audio, and how many independent clips remain."""

from io import StringIO
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.fft
import scipy.signal
import scipy.stats
from rich.console import Console
from support.probes import clips, noise

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.arrays import stack_machines
from gammavae_jax.data.features import log_mel, mel_filterbank
from gammavae_jax.data.machines import clip_file
from gammavae_jax.log import Log
from gammavae_jax.training.examples import stack_examples
from gammavae_jax.training.links import (
    correlation_peaks,
    find_shared_audio,
    independence,
    link_clips,
    median_of_pairs,
)
from gammavae_jax.training.split import split_windows

FEATURES = FeatureConfig()
BANK = mel_filterbank(FEATURES)
RATE, SECONDS, N_CLIPS = 16000, 4.0, 10
PAIR = (3, 7)


def hiss(rng, seconds=SECONDS):
    """Return low-pass noise, whose spectrum is always the same."""
    white = rng.standard_normal((round(seconds * RATE),))
    return 0.1 * np.asarray(scipy.signal.lfilter([1.0], [1.0, -0.9], white))


def stacked(log_mels):
    """Return clips padded to one length with NaN, and their lengths."""
    lengths = np.array([len(each) for each in log_mels])
    out = np.full((len(lengths), max(lengths), log_mels[0].shape[1]), np.nan)
    for clip, each in zip(out, log_mels, strict=True):
        clip[: len(each)] = each
    return out, lengths


def of_waveforms(waveforms):
    return stacked(
        [log_mel(np.asarray(x, np.float32), BANK, FEATURES) for x in waveforms]
    )


def random_walks(rng, n_clips, n_frames=64, n_mels=8):
    """Return log-mels whose frames are similar to the frames before them."""
    steps = rng.standard_normal((n_clips, n_frames, n_mels))
    return -60 + np.asarray(scipy.signal.lfilter([1.0], [1.0, -0.5], steps, axis=1))


def pairs_of_shared(is_shared):
    """Return the pairs that are marked, after checking that the relation is one."""
    np.testing.assert_array_equal(is_shared, is_shared.T)
    assert not is_shared.diagonal().any()
    return {
        (int(i), int(j)) for i, j in zip(*np.nonzero(np.triu(is_shared)), strict=True)
    }


@pytest.mark.parametrize("lag", [0.0, 0.2, 0.5003, 1.6, -1.2])
def test_two_clips_cut_from_one_recording_with_a_lag_share_audio(lag):
    rng = np.random.default_rng(0)
    waveforms = [hiss(rng) for _ in range(N_CLIPS)]
    whole, at = hiss(rng, 3 * SECONDS), round((SECONDS + lag) * RATE)
    n = len(waveforms[0])
    waveforms[PAIR[0]], waveforms[PAIR[1]] = whole[n : 2 * n], whole[at : at + n]
    assert pairs_of_shared(find_shared_audio(*of_waveforms(waveforms))) == {PAIR}


@pytest.mark.parametrize("seed", range(3))
def test_two_clips_with_one_background_under_foregrounds_at_0_db_share_audio(seed):
    rng = np.random.default_rng(seed)
    waveforms = [hiss(rng, 10) + hiss(rng, 10) for _ in range(N_CLIPS)]
    background, lag = hiss(rng, 10.5), round(0.3 * RATE)
    n = len(waveforms[0])
    waveforms[PAIR[0]] = background[:n] + hiss(rng, 10)
    waveforms[PAIR[1]] = background[lag : lag + n] + hiss(rng, 10)
    assert pairs_of_shared(find_shared_audio(*of_waveforms(waveforms))) == {PAIR}


@pytest.mark.parametrize("seed", range(3))
def test_independent_noises_of_one_spectrum_do_not_share_audio(seed):
    rng = np.random.default_rng(seed)
    log_mels = of_waveforms([hiss(rng) for _ in range(N_CLIPS)])
    assert not find_shared_audio(*log_mels).any()


@pytest.mark.parametrize("depth", [0.5, 0.99])
@pytest.mark.parametrize("hertz", [2.0, 5.3])
@pytest.mark.parametrize("is_in_phase", [True, False])
def test_independent_recordings_of_one_rhythm_do_not_share_audio(
    hertz, depth, is_in_phase
):
    rng = np.random.default_rng(0)
    turns = np.arange(round(SECONDS * RATE)) / RATE * hertz
    phases = 0.3 * np.ones(N_CLIPS) if is_in_phase else rng.random(N_CLIPS)
    waveforms = [
        hiss(rng) * (1 + depth * np.sin(2 * np.pi * (turns + phase)))
        for phase in phases
    ]
    log_mels = of_waveforms(waveforms)
    assert not find_shared_audio(*log_mels).any()
    # The rhythm is not just too weak: a copy stands out among these clips.
    waveforms[PAIR[1]] = waveforms[PAIR[0]]
    assert pairs_of_shared(find_shared_audio(*of_waveforms(waveforms))) == {PAIR}


def test_copies_by_several_microphones_share_audio_even_if_there_are_no_other_clips():
    """Then the usual peak is high, too."""
    rng = np.random.default_rng(0)
    sound = hiss(rng)
    microphones = [gain * (sound + 0.3 * hiss(rng)) for gain in (0.1, 1.0, 3.0)]
    is_shared = find_shared_audio(*of_waveforms(microphones))
    assert pairs_of_shared(is_shared) == {(0, 1), (0, 2), (1, 2)}


@pytest.mark.parametrize(("n_frames", "expected"), [(31, set()), (32, {(0, 1)})])
def test_clips_of_less_than_32_frames_are_not_searched_for_overlaps(n_frames, expected):
    rng = np.random.default_rng(0)
    short = list(random_walks(rng, 6, n_frames, 64))
    short[1] = np.roll(short[0], 1, axis=0)
    assert pairs_of_shared(find_shared_audio(*stacked(short))) == expected
    among_longer = stacked([*short, *random_walks(rng, 2, 40, 64)])
    is_short = np.array([n_frames < 32] * 6 + [False] * 2)
    peaks = correlation_peaks(*among_longer)
    assert (peaks[is_short] == 0).all()
    assert (peaks[:, is_short] == 0).all()
    assert peaks[6, 7] > 0


def test_copies_of_short_clips_share_audio_whatever_their_gain():
    """Otherwise, each copy would be compared with the other one, and count twice."""
    rng = np.random.default_rng(0)
    waveforms = [hiss(rng, seconds) for seconds in (0.5, 0.5, 0.5, 0.2, 0.2)]
    rounded = [np.rint(x * 2**15) / 2**15 for x in waveforms]
    rounded += [rounded[0], np.rint(rounded[1] * 2**14) / 2**15, rounded[3]]
    expected = {(0, 5), (1, 6), (3, 7)}
    assert pairs_of_shared(find_shared_audio(*of_waveforms(rounded))) == expected
    longer = [*rounded, hiss(rng), hiss(rng)]
    assert pairs_of_shared(find_shared_audio(*of_waveforms(longer))) == expected


@pytest.mark.parametrize(("decibels", "expected"), [(0.04, {(0, 1)}), (0.1, set())])
def test_copies_of_short_clips_differ_by_at_most_a_twentieth_of_a_decibel(
    decibels, expected
):
    one, other = random_walks(np.random.default_rng(0), 2, 20)
    change = decibels * np.resize([1.0, -1.0], one.shape)
    short = stacked([one, one + change, other])
    assert pairs_of_shared(find_shared_audio(*short)) == expected


def test_short_recordings_of_one_event_are_not_copies():
    """The same click, recorded again: only the noise 40 dB below it differs."""
    rng = np.random.default_rng(0)
    click = np.sin(np.arange(8000)) * np.exp(-(((np.arange(8000) - 3000) / 500) ** 2))
    waveforms = [click + 0.01 * hiss(rng, 0.5) / 0.23 for _ in range(6)]
    assert not find_shared_audio(*of_waveforms(waveforms)).any()


def naive_peak(one, other, longest):
    """Return the peak of a pair of clips, from the definition."""
    n_fft: Any = scipy.fft.next_fast_len(2 * longest, real=True)
    correlation = np.zeros(n_fft)
    for a, b in zip(one.T, other.T, strict=True):
        spectra = [np.fft.fft(band - band.mean(), n_fft) for band in (a, b)]
        phases = [s / (abs(s) + 1e-9) for s in spectra]
        correlation += np.fft.ifft(phases[0].conj() * phases[1]).real
    most = longest // 2
    lags = correlation[np.arange(-most, most + 1)]
    return lags.max() / (np.median(abs(lags)) / scipy.stats.norm.ppf(0.75))


def test_a_peak_is_the_largest_phase_correlation_in_standard_deviations():
    rng = np.random.default_rng(0)
    clips = [random_walks(rng, 1, n)[0] for n in (50, 64, 33, 64)]
    clips[3][20:] = clips[1][:44]
    peaks = correlation_peaks(*stacked(clips))
    np.testing.assert_array_equal(peaks, peaks.T)
    for i, j in np.ndindex(4, 4):
        without_edges = clips[i][1:-1], clips[j][1:-1]
        expected = 0.0 if i == j else naive_peak(*without_edges, 64)
        np.testing.assert_allclose(peaks[i, j], expected, rtol=0.1, err_msg=f"{i} {j}")


@pytest.mark.parametrize("n_clips", [0, 1, 2, 3, 31, 32, 33, 70])
def test_the_median_counts_each_pair_of_longer_clips_once(n_clips):
    """The clips are compared in blocks, which must fit together."""
    rng = np.random.default_rng(n_clips)
    clips = [random_walks(rng, 1, n)[0] for n in rng.integers(25, 60, n_clips)]
    log_mel, lengths = (
        stacked(clips) if clips else (np.zeros((0, 9, 8)), np.zeros(0, int))
    )
    peaks = correlation_peaks(log_mel, lengths)
    np.testing.assert_array_equal(peaks, peaks.T)
    is_pair = np.outer(lengths >= 32, lengths >= 32) & ~np.eye(n_clips, dtype=bool)
    assert (peaks[~is_pair] == 0).all()
    pairs = [float(peaks[i, j]) for i, j in np.argwhere(is_pair) if i < j]
    pairs = [peak for peak in pairs if peak > 0]
    assert median_of_pairs(peaks) == (np.median(pairs) if pairs else 0.0)


def test_neither_gain_nor_a_microphones_response_changes_a_peak():
    rng = np.random.default_rng(0)
    log_mel, lengths = stacked(list(random_walks(rng, 5)))
    response = 40 * rng.standard_normal((5, 1, 8))
    expected = correlation_peaks(log_mel, lengths)
    ours = correlation_peaks(log_mel + response, lengths)
    np.testing.assert_allclose(ours, expected, rtol=1e-3)


def test_all_pairs_of_many_clips_are_compared():
    rng = np.random.default_rng(0)
    clips = random_walks(rng, 70, n_mels=32)
    pairs = {(0, 1), (5, 69), (31, 32), (33, 40), (34, 63), (64, 65)}
    for one, other in pairs:
        clips[other, 6:] = clips[one, :-6]
    assert pairs_of_shared(find_shared_audio(*stacked(list(clips)))) == pairs


@pytest.mark.parametrize("n_clips", [1, 3])
def test_silent_or_single_clips_share_no_audio(n_clips):
    """The clips are digital silence, which has no fluctuations to compare."""
    for n_frames in (40, 20):
        log_mel = np.full((n_clips, n_frames, 8), -156.5, np.float32)
        assert not find_shared_audio(log_mel, np.full(n_clips, n_frames)).any()


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
