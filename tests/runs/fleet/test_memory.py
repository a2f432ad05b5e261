"""How much memory there is, in a container too."""

import pytest

from gammavae_jax.runs.fleet import plan


@pytest.fixture
def container(tmp_path, monkeypatch):
    """One that may use 8 GB, has used 7.9, of which 6 are files that were read."""
    (tmp_path / "memory.max").write_text("8000000000\n")
    (tmp_path / "memory.current").write_text("7900000000\n")
    text = "anon 1900000000\ninactive_file 6000000000\nactive_file 0\n"
    (tmp_path / "memory.stat").write_text(text)
    files = (tmp_path, "memory.max", "memory.current", "inactive_file")
    monkeypatch.setattr(plan, "_CONTAINERS", (files,))
    monkeypatch.setattr(plan, "_of_system", lambda: 10**12)
    return tmp_path


def test_files_that_were_read_leave_their_memory_to_others(container):
    assert plan.available_memory() == 6_100_000_000


def test_a_container_without_a_limit_has_what_the_system_has(container):
    (container / "memory.max").write_text("max\n")
    assert plan.available_memory() == 10**12
