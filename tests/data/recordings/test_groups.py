"""Groups of training recordings, by a pattern of their paths or by given labels."""

from pathlib import Path

import numpy as np
import pytest
from support.logs import refusal

from gammavae_jax.cli.fit import Fit
from gammavae_jax.config import Config, TrainConfig
from gammavae_jax.config_json import override
from gammavae_jax.data.clips import Clips, recording_numbers
from gammavae_jax.data.machines import clip_file
from gammavae_jax.data.recordings.clips import LoadedRecordings
from gammavae_jax.data.recordings.groups import (
    group_by_attributes,
    group_clips,
    unmatched_note,
    with_groups,
)
from gammavae_jax.errors import InputError

MEL = np.zeros((20, 4), np.float32)


def clips(paths, recording=None):
    files = tuple(clip_file(Path(path)) for path in paths)
    return Clips(files, (MEL,) * len(files), recording)


def loaded(n_clips):
    """Return recordings that were cut into these numbers of clips."""
    recording = np.repeat(np.arange(len(n_clips)), n_clips)
    names = tuple(f"{number}.wav" for number in range(len(n_clips)))
    return LoadedRecordings(names, clips([names[r] for r in recording], recording))


def command(**options):
    return Fit((Path("recordings"),), Path("a.detector"), **options)


def together(numbers):
    """Return the sets of clips that have the same number, in order."""
    return [np.flatnonzero(numbers == n).tolist() for n in dict.fromkeys(numbers)]


def test_clips_without_recordings_are_their_own():
    np.testing.assert_array_equal(recording_numbers(clips("abc")), [0, 1, 2])


DAYS = ("mon/fan_a.wav", "mon/fan_b.wav", "tue/fan_a.wav", "tue/x.wav", "fan_c.wav")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", [[0], [1], [2], [3], [4]]),
        ("mon|tue", [[0, 1], [2, 3], [4]]),
        ("^[a-z]+/", [[0, 1], [2, 3], [4]]),
        ("(mon|tue)/.*", [[0, 1], [2, 3], [4]]),  # the text of the parentheses
        ("fan_(.)", [[0, 2], [1], [3], [4]]),
        ("(mon|tue)/(fan)?", [[0, 1], [2], [3], [4]]),  # of all of them
        ("fan_(?=.)", [[0, 1, 2, 4], [3]]),
        ("mon", [[0, 1], [2], [3], [4]]),
        ("x?(?=.wav)", [[0, 1, 2, 4], [3]]),  # an empty match is a match
    ],
)
def test_clips_whose_paths_match_with_the_same_text_are_one_group(pattern, expected):
    (ours,) = group_clips([("fan", clips(DAYS))], pattern)
    assert together(ours) == expected


@pytest.mark.parametrize("pattern", ["T\u00fcr_.", "Tu\u0308r_."])
def test_a_pattern_and_labels_match_in_any_unicode_form(pattern):
    """macOS decomposes the names of files."""
    paths = ("T\u00fcr_1/a", "Tu\u0308r_1/b", "T\u00fcr_2/a", "Tu\u0308r_2/b")
    (ours,) = group_clips([("fan", clips(paths))], pattern)
    assert together(ours) == [[0, 1], [2, 3]]
    labels = [path[:-2] for path in paths]
    found = with_groups({"fan": loaded([1] * 4)}, labels)["fan"]
    assert together(found.clips.group) == [[0, 1], [2, 3]]


def test_recordings_without_a_match_are_counted_and_named():
    cut = clips(["day_1/a", "Day_2/b", "Day_2/b", "c"], np.array([0, 1, 1, 2]))
    train = [("fan", cut), ("pump", clips(["day_3/d"]))]
    assert unmatched_note(train, "day_[0-9]") == (
        "2 of 4 training recordings do not match train.group_by='day_[0-9]' (Day_2/b, "
        "c): each is treated as a group of its own"
    )
    assert unmatched_note(train, "(?i)day_[0-9]|c") == ""
    assert unmatched_note(train, "") == ""


@pytest.mark.parametrize("pattern", ["", "a", "c", "a|c", "b"])
def test_clips_of_one_recording_stay_together_whether_or_not_they_match(pattern):
    train = [("fan", clips(["a", "a", "b", "c", "c"], np.array([5, 5, 1, 0, 0])))]
    (ours,) = group_clips(train, pattern)
    assert together(ours) == [[0, 1], [2], [3, 4]]


def test_a_clip_without_a_match_forms_its_own_group():
    """The numbers of the first group and of the first recording are both 0."""
    (ours,) = group_clips([("fan", clips(["x.wav", "day1", "day1"]))], "day.")
    assert together(ours) == [[0], [1, 2]]


def test_a_pattern_need_not_be_found_in_every_machines_paths():
    train = [("fan", clips(["a", "b"])), ("pump", clips(["c7", "d7", "e"]))]
    assert list(map(together, group_clips(train, "7"))) == [[[0], [1]], [[0, 1], [2]]]


def test_a_pattern_that_no_path_matches_is_refused_with_an_example():
    train = [("fan", clips(DAYS)), ("pump", clips(["a"]))]
    assert refusal(group_clips, train, "day_[0-9]") == (
        "no training recording matches train.group_by='day_[0-9]': choose a pattern "
        "that is found in paths like mon/fan_a.wav"
    )


IN_ONE_GROUP = (
    "fan: all recordings are in one group, so none can be held out: use at least two "
    "groups, or no groups"
)


def test_a_single_group_of_several_recordings_is_refused():
    for pattern in ("wav", "x?$"):
        train = [("fan", clips(DAYS))]
        assert refusal(group_clips, train, pattern) == IN_ONE_GROUP
    several = {"fan": loaded([3, 1])}
    assert refusal(with_groups, several, ["monday", "monday"]) == IN_ONE_GROUP
    (ours,) = group_clips([("fan", clips(["a", "a"], np.zeros(2, int)))], "a")
    assert together(ours) == [[0, 1]]  # a single recording


def named(*attributes, form="section_00_source_train_normal_{:04d}{}.wav"):
    """Return clips with these attributes in their names."""
    return clips(
        [form.format(n, f"_{a}" if a else a) for n, a in enumerate(attributes)]
    )


SPEEDS = ["spd_1", "spd_2", "spd_2", "spd_3", "spd_4", "spd_5", "spd_6", "spd_7"]
ALONE = [[clip] for clip in range(10)]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ([*SPEEDS, "spd_8", "spd_9"], [[0], [1, 2], *ALONE[3:]]),
        ([*SPEEDS, "", ""], [[0], [1, 2], *ALONE[3:]]),
        ([*SPEEDS, "noAttribute", "noAttribute"], [[0], [1, 2], *ALONE[3:]]),
        ([*SPEEDS, "spd_3", "spd_4"], [[0], [1, 2], [3, 8], [4, 9], *ALONE[5:8]]),
        ([*SPEEDS, "spd_2", "spd_3"], ALONE),  # three of ten are too many
    ],
)
def test_clips_with_equal_attributes_in_their_names_are_one_group(attributes, expected):
    assert together(group_by_attributes(named(*attributes))) == expected


@pytest.mark.parametrize(
    "form", ["pump_{:d}{}.wav", "not_normal_{:d}{}.wav", "normal_{:04d}{}.wav"]
)
def test_names_of_another_form_have_no_attributes(form):
    speeds = [*SPEEDS, "spd_8", "spd_9"]
    assert together(group_by_attributes(named(*speeds, form=form))) == ALONE


def test_given_groups_replace_the_attributes_in_names():
    names = named(*SPEEDS, "spd_8", "spd_9")
    of_recordings = LoadedRecordings(tuple("abcdefghij"), names)
    labels = [*range(8), 7, 9]
    grouped = with_groups({"fan": of_recordings}, labels)["fan"].clips
    assert together(group_by_attributes(grouped)) == ALONE
    assert together(grouped.group) == [*ALONE[:7], [7, 8], [9]]


@pytest.mark.parametrize("label", [None, float("nan")])
def test_a_recording_without_a_label_is_named(label):
    assert refusal(with_groups, {"fan": loaded([3, 1])}, ["monday", label]) == (
        "fan: the argument 'groups' has no label for recording 1: pass a unique label "
        "for a recording without a group"
    )


@pytest.mark.parametrize("pattern", ["(", "*", "[a", "(?P<x", "a{2,1}"])
def test_an_invalid_regular_expression_is_refused(pattern):
    with pytest.raises(InputError, match=r"^train\.group_by is .*regular expression"):
        TrainConfig(group_by=pattern)


@pytest.mark.parametrize(
    "pattern", ["session_[0-9]+", 'a "quoted" \\d', "x=1,y", "[1]", "true", "7", "é"]
)
def test_the_command_line_passes_a_pattern_on_unchanged(pattern):
    settings = command(group_by=pattern).settings()
    assert override(Config(), list(settings)).train.group_by == pattern


def test_without_a_pattern_the_command_line_sets_nothing():
    assert command().settings() == ()


def test_clips_get_the_number_of_their_recordings_group():
    made = with_groups({"fan": loaded([2, 1, 3, 1])}, ["mon", "tue", "mon", "wed"])
    assert together(made["fan"].clips.group) == [[0, 1, 3, 4, 5], [2], [6]]
    assert made["fan"].names == loaded([2, 1, 3, 1]).names
    assert len(made["fan"].clips.files) == 7


@pytest.mark.parametrize(
    "labels",
    [
        np.array([3, 1, 3]),
        (2.5, "x", 2.5),
        ["a", "b", "a"],
        iter("aba"),
        {"fan": ["a", "b", "a"]},
    ],
)
def test_labels_may_be_of_any_type(labels):
    made = with_groups({"fan": loaded([1, 1, 1])}, labels)
    assert together(made["fan"].clips.group) == [[0, 2], [1]]


def test_without_labels_recordings_are_not_grouped():
    given = {"fan": loaded([2, 1])}
    assert with_groups(given, None) == given


def test_each_machine_has_its_own_groups():
    given = {"fan": loaded([1, 1]), "pump": loaded([1, 2, 1])}
    made = with_groups(given, {"pump": ["x", "y", "x"], "fan": [1, 2]})
    assert list(made) == ["fan", "pump"]
    assert together(made["fan"].clips.group) == [[0], [1]]
    assert together(made["pump"].clips.group) == [[0, 3], [1, 2]]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"fan": [0, 0]}, "pass a dict with the keys fan, pump"),
        ({"fan": [0, 0], "pomp": [0]}, "pass a dict with the keys fan, pump"),
        ({"fan": [0, 0], "pump": [0], "saw": [0]}, "pass a dict with the keys"),
        (
            [0, 0, 0],
            "the argument 'groups' must cover the same machines as the recordings",
        ),
        (
            {"fan": [0], "pump": [0]},
            "fan: the argument 'groups' has 1 labels for 2 usable recordings: pass one "
            "label for each recording",
        ),
        (
            {"fan": [0, 0, 1], "pump": [0]},
            "fan: the argument 'groups' has 3 labels for 2 usable recordings",
        ),
        (
            {"fan": "ab", "pump": [0]},
            "fan: the argument 'groups' has 0 labels for 2 usable recordings",
        ),
        (
            {"fan": [0, 1], "pump": []},
            "pump: the argument 'groups' has 0 labels for 1 usable recordings",
        ),
    ],
)
def test_labels_that_do_not_match_the_recordings_are_refused(groups, message):
    given = {"fan": loaded([3, 1]), "pump": loaded([4])}
    with pytest.raises(InputError, match=message):
        with_groups(given, groups)
