"""Whether the package can work here: one finding after the other, none of which raises.

Nothing is imported that could be broken before the check that looks for it.
"""

import contextlib
import importlib.metadata
import io
import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from gammavae_jax.cli.finding import Finding, in_one_line
from gammavae_jax.cli.package_checks import (
    US,
    check_extras,
    check_packages,
    check_probability,
    check_sound_files,
)

_SETTINGS = (
    "XLA_FLAGS",
    "JAX_",
    "GAMMAVAE_",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
)
_RISKY = {
    "JAX_ENABLE_X64": "numbers differ from those that were tested",
    "JAX_DISABLE_JIT": "everything is many times slower",
}
_LEAST_FREE = 2e9  # bytes: of a run's checkpoint and scores, and a cache


def examine() -> Iterator[Finding]:
    """Look at everything; a check that raises is a finding that FAILED."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, check in CHECKS.items():
            try:
                yield from check(name)
            except Exception as error:
                yield Finding(name, "FAILED", in_one_line(error))


def _python(name: str) -> Iterator[Finding]:
    from packaging.specifiers import SpecifierSet

    found = platform.python_version()
    try:
        wanted = importlib.metadata.metadata(US)["Requires-Python"]
    except importlib.metadata.PackageNotFoundError:
        wanted = ""  # which another check says
    if SpecifierSet(wanted).contains(found, prereleases=True):
        yield Finding(name, "ok", f"{found}, {platform.system()} {platform.machine()}")
    else:
        remedy = f"make an environment with Python {wanted}"
        yield Finding(name, "FAILED", f"{found} is outside {wanted}", remedy)


def _settings(name: str) -> Iterator[Finding]:
    """Before a check that makes settings."""
    found = [
        f"{key}={value}"
        for key, value in os.environ.items()
        if key.startswith(_SETTINGS)
    ]
    risks = [f"{key}: {why}" for key, why in _RISKY.items() if _is_on(key)]
    detail = (
        "; ".join([*sorted(found), *risks]) or "none of XLA_FLAGS, JAX_*, GAMMAVAE_*"
    )
    if risks:
        yield Finding(name, "warning", detail, "unset what you do not mean to set")
    else:
        yield Finding(name, "ok", detail)


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "0").lower() not in ("", "0", "false", "off", "no")


def _cache(name: str) -> Iterator[Finding]:
    from gammavae_jax.process import cache_folder

    folder = cache_folder()
    remedy = "set GAMMAVAE_CACHE_DIR to a folder of your own"
    try:
        tempfile.TemporaryFile(dir=_nearest(folder)).close()
    except OSError as error:
        detail = f"{folder} cannot be written: {error.strerror}"
        yield Finding(name, "FAILED", detail, remedy)
        return
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    yield Finding(name, "ok", f"{folder}, {size / 1e6:.0f} MB")


def _compiled(name: str) -> Iterator[Finding]:
    """Before JAX is imported, which is when it is told where programs are kept."""
    from gammavae_jax.process import import_jax, keep_compiled_programs

    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        keep_compiled_programs()
    import_jax()
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if said.getvalue():
        yield Finding(name, "warning", " ".join(said.getvalue().split()))
    else:
        yield Finding(name, "ok", f"kept in {folder}" if folder else "not kept")


def _disk(name: str) -> Iterator[Finding]:
    from gammavae_jax.process import cache_folder

    places = {"here": Path.cwd(), "in the cache": cache_folder()}
    free = {at: shutil.disk_usage(_nearest(p)).free for at, p in places.items()}
    detail = ", ".join(f"{n / 1e9:.1f} GB {at}" for at, n in free.items())
    if min(free.values()) < _LEAST_FREE:
        yield Finding(name, "warning", detail, "make room: a run may need some GB")
    else:
        yield Finding(name, "ok", detail)


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(f for f in (folder, *folder.absolute().parents) if f.is_dir())


def _devices(name: str) -> Iterator[Finding]:
    import jax

    from gammavae_jax.process import available_cores

    kinds = [d.device_kind for d in jax.devices()]
    found = ", ".join(f"{kinds.count(k)} x {k}" for k in dict.fromkeys(kinds))
    detail = f"{found}; {available_cores()} cores"
    has_card = bool(shutil.which("nvidia-smi")) or Path("/dev/nvidia0").exists()
    if (
        has_card
        and jax.default_backend() == "cpu"
        and not os.environ.get("JAX_PLATFORMS")
    ):
        detail += "; an NVIDIA card is there that JAX does not use"
        yield Finding(name, "warning", detail, f"pip install '{US}[cuda]'")
    else:
        yield Finding(name, "ok", detail)


def _gamma(name: str) -> Iterator[Finding]:
    from gammavae_jax.cli.self_tests import gamma_gradient

    yield Finding(name, "ok", gamma_gradient())


def _training(name: str) -> Iterator[Finding]:
    from gammavae_jax.cli.self_tests import training_step

    yield Finding(name, "ok", training_step())


CHECKS: Mapping[str, Callable[[str], Iterable[Finding]]] = {
    "Python": _python,
    "settings": _settings,
    "cache folder": _cache,
    "compiled programs": _compiled,
    "free disk": _disk,
    "packages": check_packages,
    "TensorFlow Probability": check_probability,
    "sound files": check_sound_files,
    "devices": _devices,
    "Gamma gradient": _gamma,
    "training step": _training,
    "extras": check_extras,
}
