"""Quiet hours, and the messages that are kept until they end."""

from datetime import datetime, time

import pytest

from gammavae_jax.errors import InputError
from gammavae_jax.live.quiet_hours import QuietHours, QuietSender


@pytest.mark.parametrize(
    ("text", "quiet", "loud"),
    [
        ("22:00-06:00", ["22:00", "23:59", "00:00", "05:59"], ["06:00", "21:59"]),
        ("8:30-12:00", ["08:30", "11:59"], ["08:29", "12:00", "00:00"]),
    ],
)
def test_quiet_hours_may_include_midnight(text, quiet, loud):
    hours = QuietHours.parse(text)
    for at in quiet + loud:
        assert hours.include(time.fromisoformat(at)) == (at in quiet)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "22-6",
        "22:00",
        "22:00-22:00",
        "22:00-25:00",
        "x22:00-06:00",
        "1:00-2:00-3:00",
    ],
)
def test_malformed_quiet_hours_are_refused(text):
    with pytest.raises(InputError, match=r"--quiet-hours is .*such as 22:00-06:00"):
        QuietHours.parse(text)


def test_messages_of_the_quiet_hours_are_sent_once_as_one_message():
    now, sent = [datetime(2026, 3, 1, 21, 59)], []
    hours = QuietHours.parse("22:00-06:00")
    sender = QuietSender(sent.append, hours, lambda: now[0])
    first, second, third = ({"machine": "fan", "text": t} for t in "abc")
    sender.send(first)
    assert sent == [first]
    for hour, message in ((22, second), (23, third)):
        now[0] = now[0].replace(hour=hour)
        sender.send(message)
        sender.release()
    assert (sent, sender.postponed) == ([first], [second, third])
    now[0] = datetime(2026, 3, 2, 6, 0)
    for _ in range(2):
        sender.release()
    text = "during the quiet hours:\nb\nc"
    both = {"event": "quiet_hours_over", "text": text, "messages": [second, third]}
    assert sent[1:] == [both]
    sender.send(first)
    assert sent[2:] == [first]


def test_a_message_after_the_quiet_hours_follows_the_stored_ones():
    now, sent = [datetime(2026, 3, 1, 23, 0)], []
    sender = QuietSender(sent.append, QuietHours.parse("22:00-06:00"), lambda: now[0])
    sender.send({"text": "a"})
    now[0] = datetime(2026, 3, 2, 6, 0)
    sender.send({"text": "b"})  # before anything else released the stored message
    assert [message["text"] for message in sent] == ["during the quiet hours:\na", "b"]
