"""Describes the environment of a run: versions, devices and commit."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

from gammavae_jax.models.gamma_sampler import gamma_sampler

_PACKAGES = (
    "gammavae-jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "tfp-nightly",
    "numpy",
    "scipy",
)


def describe_environment() -> dict[str, Any]:
    """Describe versions, Gamma sampler, devices and commit; None means unknown."""
    devices = jax.devices()
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "sampler": gamma_sampler().library,
        "device": devices[0].device_kind,
        "platform": devices[0].platform,
        "n_devices": len(devices),
        "processor": platform.machine(),
        "commit": _commit(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit of this checkout, followed by `+` if files were changed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty=+"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
