"""The next wave loads in the background, and its errors are raised in its turn."""

import threading
from contextlib import closing

import pytest
from support.logs import quiet_log, text_of

from gammavae_jax.errors import InputError
from gammavae_jax.runs.fleet.loader import load_in_turn


def test_the_next_wave_loads_while_the_current_one_is_processed():
    started = {number: threading.Event() for number in range(3)}

    def load(number, log):
        started[number].set()
        return number * 10

    with closing(load_in_turn([0, 1, 2], load, quiet_log())) as waves:
        assert next(waves)[:2] == (0, 0)
        assert started[1].wait(timeout=30)
        # Only one wave is loaded ahead.
        assert not started[2].is_set()
        assert [recordings for _, recordings, _ in waves] == [10, 20]


def test_notes_of_a_wave_appear_in_its_turn_and_its_progress_does_not():
    shown = quiet_log()

    def load(number, log):
        with log.timed("features_s"), log.progress("clips", 1) as advance:
            advance()
        log.say(f"line {number}")
        log.note(f"note {number}")

    logs = [log for _, _, log in load_in_turn([4, 5], load, shown)]
    assert [log.notes for log in logs] == [["note 4"], ["note 5"]]
    assert all(log.seconds["features_s"] >= 0 for log in logs)
    expected = ["clips 1/1", "line 4", "note 4", "note 5"]
    assert text_of(shown.console).splitlines() == expected


def test_the_error_of_a_wave_is_raised_after_the_previous_wave():
    def load(number, log):
        if number == 1:
            raise InputError("bad")
        return number

    waves = load_in_turn([0, 1, 2], load, quiet_log())
    assert next(waves)[1] == 0
    with pytest.raises(InputError, match="bad"):
        next(waves)


def test_a_cancelled_load_stops_at_its_next_clip():
    is_loading, done = threading.Event(), []

    def load(number, log):
        with log.progress("clips", 10**9) as advance:
            while number == 1:
                is_loading.set()
                done.append(1)
                advance()

    with closing(load_in_turn([0, 1], load, quiet_log())) as waves:
        next(waves)
        assert is_loading.wait(timeout=30)
    assert 0 < len(done) < 10**9
    assert not [t for t in threading.enumerate() if t.name.startswith("next wave")]
