"""The log's messages, notes, times and progress."""

import io
import re
import time
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.table import Table

from gammavae_jax import log as log_module
from gammavae_jax.log import Log


@pytest.fixture
def clock(monkeypatch):
    """Replace the clock with one that only the test moves."""
    clock = SimpleNamespace(now=0.0)
    read = lambda: clock.now  # noqa: E731
    time = SimpleNamespace(monotonic=read, perf_counter=read)
    monkeypatch.setattr(log_module, "time", time)
    return clock


def plain_log(width=80):
    """Return a log whose console is not a terminal."""
    return Log(Console(file=io.StringIO(), width=width))


def terminal_log(quiet=False, TERM="xterm"):
    """Return a log whose console believes that it is a terminal."""
    options = {"force_terminal": True, "width": 100, "_environ": {"TERM": TERM}}
    return Log(Console(file=io.StringIO(), quiet=quiet, **options))


def plain(text) -> str:
    """Remove the codes for colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def text_of(log) -> str:
    assert isinstance(log.console.file, io.StringIO)
    return log.console.file.getvalue()


def lines_of(log):
    return text_of(log).splitlines()


@pytest.mark.parametrize(
    "message",
    [
        "[red]not red[/red] and [/nonsense]",
        "a path such as /data/:bell:/x.wav",
        "a long line " * 30 + "stays one line",
        "",
    ],
    ids=["brackets", "colons", "long", "empty"],
)
def test_a_message_is_printed_unchanged(message):
    log = plain_log(width=40)
    log.say(message)
    assert text_of(log) == message + "\n"


def test_notes_are_printed_and_kept_in_order():
    log = plain_log()
    log.note("first")
    log.say("not kept")
    log.note("second")
    assert log.notes == ["first", "second"]
    assert lines_of(log) == ["first", "not kept", "second"]


def test_the_times_of_a_repeated_stage_add_up(clock):
    log = plain_log()
    for seconds in (2, 3):
        with log.timed("train_s"):
            clock.now += seconds
        clock.now += 10
    with log.timed("score_s"):
        pass
    assert log.seconds == {"train_s": 5, "score_s": 0}


def test_without_a_terminal_progress_is_an_occasional_line(clock):
    log = plain_log()
    with log.progress("epochs", 100) as advance:
        for epoch in range(100):
            clock.now += 1
            advance(f"loss {epoch}")
    lines = lines_of(log)
    assert lines[0] == "epochs 15/100, 85 s left  loss 14"
    assert lines[-1] == "epochs 100/100  loss 99"
    assert len(lines) == 7


def test_a_quick_stage_prints_one_line(clock):
    log = plain_log()
    with log.progress("test clips", 3) as advance:
        for _ in range(3):
            advance()
    assert text_of(log) == "test clips 3/3\n"


def test_a_resumed_stage_estimates_the_remaining_time_from_its_own_steps(clock):
    log = plain_log()
    with log.progress("epochs", 100, done=90) as advance:
        clock.now += 20
        advance()
    assert lines_of(log) == ["epochs 91/100, 180 s left"]


def test_a_stage_that_is_already_done_prints_nothing():
    log = plain_log()
    with log.progress("epochs", 5, done=5):
        pass
    assert lines_of(log) == []


def test_on_a_terminal_progress_is_a_bar():
    log = terminal_log()
    with log.progress("epochs", 4, done=1) as advance:
        advance("loss 1")
        advance("loss 0.5")
        log.say("a message above the bar")
    text = text_of(log)
    assert "━" in text
    assert "3/4" in text
    assert "loss 0.5" in text
    assert "a message above the bar" in text


def test_on_a_terminal_work_of_unknown_length_shows_that_time_passes():
    log = terminal_log()
    passed = re.compile(r"compiling \[x\] 0:00:0[1-9]")
    with log.busy("compiling [x]"):
        deadline = time.monotonic() + 9
        while not passed.search(plain(text_of(log))) and time.monotonic() < deadline:
            time.sleep(0.05)
        log.say("a message above the line")
    assert passed.search(plain(text_of(log)))
    assert "a message above the line" in text_of(log)


def test_an_error_during_work_of_unknown_length_is_raised_and_gives_the_cursor_back():
    log = terminal_log()
    with pytest.raises(ValueError, match="no memory"), log.busy("compiling"):
        raise ValueError("no memory")
    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    assert text_of(log).rindex(shown) > text_of(log).rindex(hidden)


@pytest.mark.parametrize("stage", ["busy", "progress"])
def test_a_quiet_log_does_not_take_over_what_others_print(stage, capsys):
    log = terminal_log(quiet=True)
    with log.busy("compiling") if stage == "busy" else log.progress("epochs", 3):
        print("printed by another library")
    assert capsys.readouterr().out == "printed by another library\n"
    assert text_of(log) == ""


def test_a_terminal_that_cannot_replace_a_line_gets_it_before_the_work():
    log = terminal_log(TERM="dumb")
    with log.busy("compiling"):
        assert text_of(log) == "compiling\n"


def test_on_a_terminal_finished_work_turns_no_more_and_sends_no_control_characters():
    log = terminal_log()
    with log.busy("scoring fan\x1b[2J"):
        pass
    *_, last = text_of(log).split("scoring fan")
    assert last.startswith(r"\x1b[2J")
    assert not re.search("[\u2800-\u28ff]", last), "the spinner is gone"


def test_without_a_terminal_work_of_unknown_length_is_one_line():
    log = plain_log()
    with log.busy("compiling [x]"):
        assert text_of(log) == "compiling [x]\n"
    assert text_of(log) == "compiling [x]\n"


def test_control_characters_are_escaped_and_line_breaks_kept():
    log = plain_log()
    log.say("fan\x1b[2J\x9b2J\u202e.wav is bad:\n  remove it\r")
    assert lines_of(log) == [r"fan\x1b[2J\x9b2J\u202e.wav is bad:", r"  remove it\r"]


def test_results_go_to_the_output_as_they_are_and_messages_do_not():
    log = Log(Console(file=io.StringIO()), Console(file=io.StringIO(), width=40))
    table = Table("machine")
    table.add_row("fan")
    log.show("[b]one[/b]\x1b[31m")
    log.show(table)
    log.say("message")
    assert isinstance(log.output.file, io.StringIO)
    shown = log.output.file.getvalue()
    assert shown.startswith("[b]one[/b]")
    assert "\x1b" not in shown
    assert "fan" in shown
    assert "message" not in shown
    assert text_of(log) == "message\n"
