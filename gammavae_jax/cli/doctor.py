"""`gammavae doctor`: checks the installation and suggests remedies."""

import contextlib
import importlib
import importlib.metadata
import io
import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gammavae_jax.errors import InputError

_US = "gammavae-jax"
_TFP = ("tensorflow-probability", "tfp-nightly")  # both install into the same folder

# The state ("ok", "warning" or "FAILED"), a detail, and a remedy, which may be empty.
Result = tuple[str, str, str]


@dataclass(frozen=True)
class Doctor:
    """Check that everything the package needs is installed and works.

    This checks Python, packages, sound files, caches and devices, and runs one training
    step. The exit status is 1 if a check FAILED.
    """

    def run(self) -> int:
        """Run the checks and print the result of each as soon as it is known."""
        states = []
        with warnings.catch_warnings(action="ignore"):
            for name, check in CHECKS.items():
                no_device = False
                try:
                    state, detail, remedy = check()
                except InputError as error:
                    # No device is usable, and the remaining checks need one: skip them.
                    state, detail, remedy, no_device = "FAILED", str(error), "", True
                except Exception as error:
                    problem = " ".join(str(error).split())
                    state, remedy = "FAILED", ""
                    detail = f"{type(error).__name__}: {problem}"
                print(f"{state:<9}{name:<23} {detail}", flush=True)
                if remedy:
                    print(f"{'remedy:':>40} {remedy}", flush=True)
                states.append(state)
                if no_device:
                    break
        if "FAILED" in states:
            print("fix the first failure, then run gammavae doctor again")
            return 1
        print("there are warnings" if "warning" in states else "all checks passed")
        return 0


def _requirements() -> dict[str, Any]:
    """Return the required packages and their supported versions."""
    from packaging.requirements import Requirement

    lines = map(Requirement, importlib.metadata.requires(_US) or ())
    needed = [r for r in lines if not r.marker or r.marker.evaluate({"extra": ""})]
    return {r.name: r.specifier for r in needed}


def _packages() -> Result:
    """Check the versions of Python and of each required package."""
    from packaging.specifiers import SpecifierSet

    try:
        supported = SpecifierSet(importlib.metadata.metadata(_US)["Requires-Python"])
    except importlib.metadata.PackageNotFoundError:
        return "FAILED", f"{_US} is not installed", "in a checkout: pip install -e ."
    python = platform.python_version()
    if python not in supported:
        remedy = f"create an environment with Python {supported}"
        return "FAILED", f"Python {python}", remedy
    required = {p: v for p, v in _requirements().items() if p not in _TFP}
    state, details, wrong = "ok", [f"Python {python}"], []
    for package in (_US, "jaxlib", *required):
        versions = required.get(package, SpecifierSet())
        try:
            version = importlib.metadata.version(package)
            is_wrong = not versions.contains(version, prereleases=True)
        except importlib.metadata.PackageNotFoundError:
            state, version, is_wrong = "FAILED", "is missing", True
        details.append(f"{package} {version}")
        wrong += [f"'{package}{versions}'"] * is_wrong
    if not wrong:
        return "ok", ", ".join(details), ""
    state = "warning" if state == "ok" else state
    return state, ", ".join(details), f"pip install {' '.join(wrong)}"


def _probability() -> Result:
    """Check that only one of TensorFlow Probability's two packages is installed."""
    wanted = str(_requirements().get("tfp-nightly", ""))
    remedy = f"pip uninstall -y {' '.join(_TFP)} && pip install 'tfp-nightly{wanted}'"
    distributions_of = importlib.metadata.distributions
    # A set, because a folder that is on the path twice is searched twice.
    found = {f"{p} {d.version}" for p in _TFP for d in distributions_of(name=p)}
    installed = sorted(found)
    detail = " and ".join(installed) or "not installed"
    if len(installed) > 1:
        return "FAILED", f"{detail} are both installed in the same folder", remedy
    from gammavae_jax.models.gamma_sampler import gamma_sampler

    if why_not_tfp := gamma_sampler("tfp").why_not_tfp:
        instead = "JAX draws the Gamma samples of model.sampler=tfp instead"
        detail = f"{detail}; {why_not_tfp}; {instead}"
        return "warning", detail, remedy
    if installed != [f"tfp-nightly {wanted.removeprefix('==')}"]:
        return "warning", f"{detail} is not tfp-nightly{wanted}", remedy
    return "ok", detail, ""


def _sound_files() -> Result:
    """Check that WAV and FLAC files can be written and read."""
    import numpy as np

    remedy = "install libsndfile, for example: apt-get install libsndfile1"
    try:
        soundfile = importlib.import_module("soundfile")
        for kind in ("WAV", "FLAC"):
            file, samples = io.BytesIO(), np.arange(-99, 99, dtype=np.int16)
            soundfile.write(file, samples, 16000, format=kind)
            file.seek(0)
            if not np.array_equal(soundfile.read(file, dtype="int16")[0], samples):
                return "FAILED", f"{kind} samples were not read back as written", remedy
    except (ImportError, OSError, RuntimeError) as error:
        return "FAILED", f"{type(error).__name__}: {error}", remedy
    return "ok", f"WAV and FLAC, libsndfile {soundfile.__libsndfile_version__}", ""


def _caches() -> Result:
    """Check the cache folders of this package and of JAX, then import JAX."""
    from gammavae_jax.process import cache_folder, import_jax, keep_compiled_programs

    try:
        folder = cache_folder()
    except InputError as error:
        return "warning", str(error), ""
    existing = (f for f in (folder, *folder.absolute().parents) if f.is_dir())
    try:
        tempfile.TemporaryFile(dir=next(existing)).close()
    except OSError as error:
        remedy = "set GAMMAVAE_CACHE_DIR to a folder of your own"
        return "FAILED", f"{folder} cannot be written: {error.strerror}", remedy
    message = io.StringIO()
    with contextlib.redirect_stderr(message):
        keep_compiled_programs()
    import_jax()
    if message.getvalue():
        return "warning", " ".join(message.getvalue().split()), ""
    programs = os.environ.get("JAX_COMPILATION_CACHE_DIR") or "not cached"
    return "ok", f"{folder}; compiled programs: {programs}", ""


def _devices() -> Result:
    import jax

    from gammavae_jax.devices.local import local_devices
    from gammavae_jax.process import available_cores

    kinds = [device.device_kind for device in local_devices()]
    counts = ", ".join(f"{kinds.count(k)} x {k}" for k in dict.fromkeys(kinds))
    detail = f"{counts}; {available_cores()} cores"
    has_card = shutil.which("nvidia-smi") and not os.environ.get("JAX_PLATFORMS")
    if has_card and jax.default_backend() == "cpu":
        detail += "; JAX does not use the NVIDIA GPU"
        return "warning", detail, f"pip install '{_US}[cuda]'"
    return "ok", detail, ""


def _training() -> Result:
    """Train a tiny GammaVAE on noise for one step and check its parameters."""
    import jax
    import jax.numpy as jnp
    from jax.flatten_util import ravel_pytree

    from gammavae_jax.config_json import override
    from gammavae_jax.presets import preset
    from gammavae_jax.training.step import init_state, train_step

    config = override(preset("default"), ["model.hidden=[8]", "model.n_latent=2"])
    key, shape = jax.random.key(0), (64, config.features.n_features)
    windows = -60 + 3 * jax.random.normal(key, shape)
    before = init_state(config, key)
    step = jax.jit(train_step, static_argnums=0)
    after, _ = step(config, key, before, windows, jnp.ones(shape[0]))
    old, new = (ravel_pytree(state.params)[0] for state in (before, after))
    n_moved = int((old != new).sum())
    if not n_moved or not jnp.isfinite(new).all():
        detail = "a parameter is not finite" if n_moved else "no parameter changed"
        return "FAILED", detail, ""
    return "ok", f"{n_moved} parameters changed, and all are finite", ""


CHECKS: dict[str, Callable[[], Result]] = {
    "packages": _packages,
    "sound files": _sound_files,
    "caches": _caches,
    "devices": _devices,
    "TensorFlow Probability": _probability,
    "training step": _training,
}
