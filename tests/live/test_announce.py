"""JSON Lines, and times within a recording."""

from gammavae_jax.live.announce import JsonLines, clock


def test_json_lines_start_after_a_truncated_line(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"event": "rec')
    lines = JsonLines(path)
    lines.add({"a": 1})
    lines.close()
    assert path.read_text().splitlines() == ['{"event": "rec', '{"a": 1}']


def test_times_within_a_recording_look_like_a_clock():
    times = [clock(s) for s in (0.0, 59.6, 3599.0, 3661.0)]
    assert times == ["0:00", "1:00", "59:59", "1:01:01"]
