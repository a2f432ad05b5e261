"""`gammavae doctor`: checks whether the package can work here, and suggests repairs."""

import contextlib
import importlib
import importlib.metadata
import io
import os
import platform
import shutil
import sys
import tempfile
import textwrap
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import tyro

from gammavae_jax.cli.shared import write_json
from gammavae_jax.errors import InputError

_US = "gammavae-jax"
_TFP = ("tensorflow-probability", "tfp-nightly")  # both own the same folder

State = Literal["ok", "warning", "FAILED"]
Result = tuple[State, str, str]  # state, detail, remedy; see `Finding`


class Finding(NamedTuple):
    """The result of one check; `remedy` is a command or advice, or empty."""

    name: str
    state: State
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Doctor:
    """Check whether everything that is needed is installed and works.

    Checks Python, packages, sound files, caches and devices, and trains for one step.
    The exit status is 1 if a check FAILED.
    """

    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the findings as JSON. With '-' they go to standard output, and the table
    goes to standard error."""

    def run(self) -> int:
        """Print each finding as soon as its check is done."""
        output = sys.stderr if self.json == Path("-") else sys.stdout
        findings = []
        for finding in examine():
            findings.append(finding)
            print(_table_row(finding), file=output, flush=True)
        counts = Counter(finding.state for finding in findings)
        bad = [state for state in ("FAILED", "warning") if counts[state]]
        summary = ", ".join(f"{state}: {counts[state]}" for state in bad)
        if counts["FAILED"]:
            summary += "; repair the first check that FAILED, then run doctor again"
        print(summary or "all is well", file=output)
        if self.json:
            tree = [finding._asdict() for finding in findings]
            write_json(self.json, {"is_well": not summary, "findings": tree})
        return 1 if counts["FAILED"] else 0


def examine() -> Iterator[Finding]:
    """Run all checks; a check that raises an error is reported as FAILED.

    Without a usable device, the checks that need one are left out.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, check in CHECKS.items():
            try:
                yield Finding(name, *check())
            except InputError as error:
                yield Finding(name, "FAILED", str(error))
                return
            except Exception as error:
                message = " ".join(str(error).split())
                yield Finding(name, "FAILED", f"{type(error).__name__}: {message}")


def _table_row(finding: Finding) -> str:
    indent = " " * 33
    width = max(shutil.get_terminal_size().columns, 60)
    fold = textwrap.TextWrapper(width, subsequent_indent=indent, break_on_hyphens=False)
    fold.break_long_words = False
    row = fold.fill(f"{finding.state:<9}{finding.name:<23} {finding.detail}")
    remedy = fold.fill(f"{indent}remedy: {finding.remedy}")
    return f"{row}\n{remedy}" if finding.remedy else row


def _requirements() -> dict[str, Any]:
    """Return the packages that we need, and their supported versions."""
    from packaging.requirements import Requirement

    lines = map(Requirement, importlib.metadata.requires(_US) or ())
    needed = [r for r in lines if not r.marker or r.marker.evaluate({"extra": ""})]
    return {r.name: r.specifier for r in needed}


def _packages() -> Result:
    """Check that Python and each required package has a version that we support."""
    from packaging.specifiers import SpecifierSet

    try:
        python = importlib.metadata.metadata(_US)["Requires-Python"]
    except importlib.metadata.PackageNotFoundError:
        return "FAILED", f"{_US} is not installed", "in a checkout: pip install -e ."
    required = {p: v for p, v in _requirements().items() if p not in _TFP}
    installed = {"Python": platform.python_version()}
    for package in (_US, "jaxlib", *required):
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            installed[package] = "is missing"
    missing = [p for p, v in installed.items() if v == "is missing"]
    required["Python"] = SpecifierSet(python)
    wrong = [
        package
        for package, versions in required.items()
        if package in missing
        or not versions.contains(installed[package], prereleases=True)
    ]
    detail = ", ".join(f"{p} {v}" for p, v in installed.items())
    if not wrong:
        return "ok", detail, ""
    if "Python" in wrong:
        return "FAILED", detail, f"make an environment with Python {python}"
    remedy = "pip install " + " ".join(f"'{p}{required[p]}'" for p in wrong)
    return "FAILED" if missing else "warning", detail, remedy


def _probability() -> Result:
    """Check TensorFlow Probability: only one of its two packages may be installed."""
    wanted = str(_requirements().get("tfp-nightly", ""))
    remedy = f"pip uninstall -y {' '.join(_TFP)} && pip install 'tfp-nightly{wanted}'"
    distributions_of = importlib.metadata.distributions
    found = {f"{p} {d.version}" for p in _TFP for d in distributions_of(name=p)}
    installed = sorted(found)  # each once, although a folder can be on the path twice
    detail = " and ".join(installed) or "not installed"
    if len(installed) > 1:
        return "FAILED", f"{detail} own the same folder", remedy
    from gammavae_jax.models import distributions

    if distributions.SAMPLER == "jax":
        detail += f"; {distributions.WHY_NOT_TFP}; JAX draws the Gammas instead"
        return "warning", detail, remedy
    if installed != [f"tfp-nightly {wanted.removeprefix('==')}"]:
        return "warning", f"{detail} is not tfp-nightly{wanted}", remedy
    return "ok", detail, ""


def _sound_files() -> Result:
    """Write and read WAV and FLAC."""
    import numpy as np

    remedy = "install libsndfile, for example: apt-get install libsndfile1"
    try:
        soundfile = importlib.import_module("soundfile")
        for kind in ("WAV", "FLAC"):
            file, samples = io.BytesIO(), np.arange(-99, 99, dtype=np.int16)
            soundfile.write(file, samples, 16000, format=kind)
            file.seek(0)
            if not np.array_equal(soundfile.read(file, dtype="int16")[0], samples):
                return "FAILED", f"{kind} is not read as written", remedy
    except (ImportError, OSError, RuntimeError) as error:
        return "FAILED", f"{type(error).__name__}: {error}", remedy
    return "ok", f"WAV and FLAC, libsndfile {soundfile.__libsndfile_version__}", ""


def _caches() -> Result:
    """Check our cache folder and that of compiled programs, before JAX is imported."""
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
    programs = os.environ.get("JAX_COMPILATION_CACHE_DIR") or "not kept"
    return "ok", f"{folder}; compiled programs: {programs}", ""


def _devices() -> Result:
    import jax

    from gammavae_jax.process import available_cores, local_devices

    kinds = [device.device_kind for device in local_devices()]
    counts = ", ".join(f"{kinds.count(k)} x {k}" for k in dict.fromkeys(kinds))
    detail = f"{counts}; {available_cores()} cores"
    has_card = shutil.which("nvidia-smi") and not os.environ.get("JAX_PLATFORMS")
    if has_card and jax.default_backend() == "cpu":
        detail += "; JAX does not use the NVIDIA card"
        return "warning", detail, f"pip install '{_US}[cuda]'"
    return "ok", detail, ""


def _training() -> Result:
    """Train a tiny model on noise for one step, with the gradient of the Gamma."""
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
    return "ok", f"finite, {n_moved} parameters changed", ""


CHECKS: dict[str, Callable[[], Result]] = {
    "packages": _packages,
    "sound files": _sound_files,
    "caches": _caches,
    "devices": _devices,
    "TensorFlow Probability": _probability,
    "training step": _training,
}
