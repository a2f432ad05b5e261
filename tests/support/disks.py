"""Small disks of their own, where this system lets them be made."""

import contextlib
import shutil
import subprocess

import pytest


@contextlib.contextmanager
def small_disk(folder, options):
    """A file system in memory, mounted at a folder; skips where it cannot be."""
    folder.mkdir()
    program = shutil.which("mount")
    if program is None:
        pytest.skip("there is no mount here")
    mount = [program, "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no disk can be mounted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
