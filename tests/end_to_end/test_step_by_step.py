"""The steps in docs/own-machines.md, from the first recordings to a watch that learns.

A reader who pastes them must see what the page shows.
"""

import re
import shlex
import shutil

from support.processes import GAMMAVAE, ROOT, python

PAGE = ROOT / "docs" / "own-machines.md"
HEADING = "## From the first recordings to learning, step by step"


def steps():
    """Return the commands of each step, and the lines that the page shows for them."""
    section = PAGE.read_text().split(HEADING)[1].split("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)```(?:\n\n```\n(.*?)```)?", section, re.S)
    return [(commands.splitlines(), shown.splitlines()) for commands, shown in blocks]


def test_the_steps_from_the_first_recordings_to_learning_show_what_the_page_says(
    tmp_path,
):
    assert len(steps()) == 7
    for commands, shown in steps():
        printed = ""
        for command in commands:
            program, *arguments = shlex.split(command)
            assert program == "gammavae"
            ended = python(*GAMMAVAE, *arguments, cwd=tmp_path)
            printed += ended.stdout + ended.stderr
        words = " ".join(printed.split())
        assert shown
        for line in shown:
            assert " ".join(line.split()) in words, (command, line, printed)
    demo = tmp_path / "demo"
    assert (demo / "report.html").stat().st_size > 10_000
    # The old version has not changed: it still raises alarms for the new condition.
    shutil.rmtree(demo / "fan-2.detector")
    ended = python(*GAMMAVAE, "score", demo / "fan.detector", demo / "rain-later")
    assert "alarms: 16 of 16" in ended.stdout
    assert "SYNTHETIC" in PAGE.read_text().upper().split(HEADING.upper())[1]
