"""What a watch remembers, whatever happens to it."""

import json

import pytest

from gammavae_jax.errors import InputError
from gammavae_jax.live import scored_log
from gammavae_jax.live.arrivals import Arrival, Stamp
from gammavae_jax.live.scored_log import ScoredLog

A = Arrival("fan/a.wav", Stamp(10, 5))
ODD = Arrival("\udcff\n.wav", Stamp(11, 6))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.jsonl"


def fill(path, *arrivals):
    with ScoredLog(path) as log:
        for arrival in arrivals:
            log.add(arrival)


def known(path, *arrivals):
    with ScoredLog(path) as log:
        return [log.knows(*arrival) for arrival in arrivals]


def test_what_was_scored_is_known_afterwards_by_name_size_and_time(path):
    fill(path, A, ODD)
    larger, later = A._replace(stamp=Stamp(11, 5)), A._replace(stamp=Stamp(10, 6))
    assert known(path, A, ODD, larger, later) == [True, True, False, False]


def test_what_was_added_is_in_the_file_before_the_end(path):
    with ScoredLog(path) as log:
        log.add(A)
        assert json.loads(path.read_text())["file"] == "fan/a.wav"


def test_a_line_that_was_cut_off_costs_no_other(path):
    fill(path, A, ODD)
    path.write_bytes(path.read_bytes()[:-20])
    assert known(path, A, ODD) == [True, False]
    fill(path, ODD)
    assert known(path, A, ODD) == [True, True]


@pytest.mark.parametrize(
    "text",
    [
        *("notes\nof mine\n", '{"file": "x"}\n', "[]\n", "buy milk"),
        *("7", '{"file": "x"}', '{"note": "x'),
    ],
)
def test_a_file_of_something_else_is_refused_and_stays(path, text):
    path.write_text(text)
    with pytest.raises(InputError, match=r"state\.jsonl is none of a watch: give"):
        ScoredLog(path)
    assert path.read_text() == text


@pytest.mark.parametrize("n_bytes", [0, 1, 5, 12, 30])
def test_a_first_line_that_was_cut_off_is_still_ours(path, n_bytes):
    fill(path, A)
    path.write_bytes(path.read_bytes()[:n_bytes])
    assert known(path, A) == [False]


def test_two_watches_do_not_share_a_file(path):
    pytest.importorskip("fcntl")
    with ScoredLog(path) as log:
        log.add(A)
        with pytest.raises(InputError, match="another watch is using it"):
            ScoredLog(path)
        log.forget_gone({A.name: A.stamp})
        with pytest.raises(InputError, match="another watch is using it"):
            ScoredLog(path)
        log.add(ODD)
    assert known(path, A, ODD) == [True, True]


def test_only_what_was_scored_long_ago_and_is_gone_is_forgotten(path, monkeypatch):
    fill(path, A, ODD)
    present = {A.name: A.stamp}
    with ScoredLog(path) as log:
        log.forget_gone(present)
        assert log.knows(*ODD)
        later = scored_log.time.time() + 31 * 24 * 3600
        monkeypatch.setattr(scored_log.time, "time", lambda: later)
        log.forget_gone({})  # as where a share is away
        assert log.knows(*A)
        assert log.knows(*ODD)
        log.forget_gone(present)
        assert log.knows(*A)
        assert not log.knows(*ODD)
    assert known(path, A, ODD) == [True, False]


def test_a_place_where_nothing_can_be_written_is_refused(tmp_path):
    with pytest.raises(InputError, match="give a file that this user may write"):
        ScoredLog(tmp_path / "missing" / "state.jsonl")


def test_after_a_full_disk_the_file_is_whole_again(path, monkeypatch):
    with ScoredLog(path) as log:
        monkeypatch.setattr(scored_log, "_line", lambda *_: full_disk())
        with pytest.raises(OSError, match="No space"):
            log.add(A)
        monkeypatch.undo()
        log.add(ODD)
    assert known(path, A, ODD) == [True, True]


def full_disk():
    raise OSError(28, "No space left on device")
