"""Available memory, also in a container."""

import pytest

from gammavae_jax.runs.fleet import plan


@pytest.fixture
def container(tmp_path, monkeypatch):
    """Simulate a limit of 8 GB: 7.9 GB are used, and 6 GB of that for cached files."""
    (tmp_path / "memory.max").write_text("8000000000\n")
    (tmp_path / "memory.current").write_text("7900000000\n")
    text = "anon 1900000000\ninactive_file 6000000000\nactive_file 0\n"
    (tmp_path / "memory.stat").write_text(text)
    monkeypatch.setattr(plan, "_CONTAINER", tmp_path)
    monkeypatch.setattr(plan, "_system_memory", lambda: 10**12)
    return tmp_path


def test_the_memory_of_cached_files_counts_as_available(container):
    assert plan.available_memory() == 6_100_000_000


def test_a_container_without_a_limit_has_the_memory_of_the_system(container):
    (container / "memory.max").write_text("max\n")
    assert plan.available_memory() == 10**12
