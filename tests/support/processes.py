"""Runs Python in a separate process, with the devices that a user has."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
GAMMAVAE = ("-m", "gammavae_jax.cli.main")


def python(*arguments, check=True, cwd=ROOT, **variables):
    """Run Python, with these environment variables, and check that it succeeds."""
    inherited = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=inherited | variables,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert not check or done.returncode == 0, done.stderr
    return done
