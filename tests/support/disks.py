"""Mounts small disks if the system allows it."""

import contextlib
import shutil
import subprocess

import pytest


@contextlib.contextmanager
def small_disk(folder, options):
    """Mount a file system in memory at a folder; skip the test if that fails."""
    folder.mkdir()
    program = shutil.which("mount")
    if program is None:
        pytest.skip("there is no mount command")
    mount = [program, "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"cannot mount a disk: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
