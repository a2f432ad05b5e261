"""Which packages are there, and whether they can be used."""

import importlib
import importlib.metadata
import importlib.util
import io
from collections.abc import Iterator

from gammavae_jax.cli.finding import Finding, in_one_line

US = "gammavae-jax"
_TFP = ("tensorflow-probability", "tfp-nightly")  # owners of the same folder
# What the others stand on: where it is broken, so are they.
_FOUNDATIONS = ("numpy", "scipy", "jaxlib", "jax")
# What is imported of a package, where that is not its name.
_MODULES = {
    "orbax-checkpoint": "orbax.checkpoint",
    "scikit-learn": "sklearn.metrics",
    "scipy": "scipy.linalg",
    "librosa": "librosa.filters",
    "flax": "flax.linen",
}
_OTHERS = {"test", "bench", "cuda", "docs"}  # extras that users need not have


def check_packages(name: str) -> Iterator[Finding]:
    """Each package that ours needs: is it there, of a version in range, importable."""
    del name
    needed = needed_packages()
    if needed is None:
        yield Finding(US, "FAILED", "not installed", "pip install -e . (a checkout)")
    else:
        yield Finding(US, "ok", importlib.metadata.version(US))
    ranges = {"jaxlib": "", **(needed or {})}
    first = [package for package in _FOUNDATIONS if package in ranges]
    for package in dict.fromkeys([*first, *ranges]):
        if package in _TFP:
            continue
        wanted = ranges[package]
        try:
            yield _package(package, wanted)
        except Exception as error:
            remedy = f"pip install --force-reinstall '{package}{wanted}'"
            yield Finding(package, "FAILED", in_one_line(error), remedy)


def needed_packages() -> dict[str, str] | None:
    """Names and version ranges, without those of extras; None if not installed."""
    from packaging.requirements import Requirement

    try:
        lines = map(Requirement, importlib.metadata.requires(US) or ())
    except importlib.metadata.PackageNotFoundError:
        return None
    return {
        line.name: str(line.specifier)
        for line in lines
        if line.marker is None or line.marker.evaluate({"extra": ""})
    }


def optional_packages() -> dict[str, list[str]]:
    """Names of what each extra brings, of those that users may want."""
    from packaging.requirements import Requirement

    extras = importlib.metadata.metadata(US).get_all("Provides-Extra") or ()
    lines = [*map(Requirement, importlib.metadata.requires(US) or ())]
    return {
        extra: [
            line.name
            for line in lines
            if line.marker is not None
            and line.marker.evaluate({"extra": extra})
            and not line.marker.evaluate({"extra": ""})
        ]
        for extra in sorted({*extras} - _OTHERS)
    }


def _module(package: str) -> str:
    """What is imported of a package."""
    return _MODULES.get(package, package.replace("-", "_"))


def _package(package: str, wanted: str) -> Finding:
    from packaging.specifiers import SpecifierSet

    remedy = f"pip install '{package}{wanted}'"
    try:
        found = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return Finding(package, "FAILED", "not installed", remedy)
    importlib.import_module(_module(package))
    if not SpecifierSet(wanted).contains(found, prereleases=True):
        return Finding(package, "warning", f"{found} is outside {wanted}", remedy)
    return Finding(package, "ok", found)


def check_probability(name: str) -> Iterator[Finding]:
    """The two packages of TensorFlow Probability, of which one alone may be there."""
    wanted = (needed_packages() or {}).get("tfp-nightly", "")
    remedy = f"pip uninstall -y {' '.join(_TFP)} && pip install 'tfp-nightly{wanted}'"
    found = [  # a set: a folder can be on the path twice
        f"{package} {version}"
        for package in _TFP
        for version in sorted(
            {d.version for d in importlib.metadata.distributions(name=package)}
        )
    ]
    detail = " and ".join(found) or "not installed"
    if len(found) > 1:
        yield Finding(name, "FAILED", f"{detail}: they own the same folder", remedy)
        return
    try:
        distributions = importlib.import_module("gammavae_jax.models.distributions")
    except Exception as error:
        yield Finding(name, "FAILED", f"{detail}: {in_one_line(error)}", remedy)
        return
    if distributions.SAMPLER == "jax":
        detail = f"{detail}; {distributions.WHY_NOT_TFP}; JAX draws the Gammas instead"
        yield Finding(name, "warning", detail, remedy)
    elif found != [f"tfp-nightly {wanted.removeprefix('==')}"]:
        yield Finding(name, "warning", f"{detail} is not tfp-nightly{wanted}", remedy)
    else:
        yield Finding(name, "ok", detail)


def check_sound_files(name: str) -> Iterator[Finding]:
    """FLAC and WAV, there and back."""
    import numpy as np

    remedy = "install libsndfile, such as by: apt-get install libsndfile1"
    try:
        soundfile = importlib.import_module("soundfile")
        for kind in ("WAV", "FLAC"):
            file, samples = io.BytesIO(), np.arange(-99, 99, dtype=np.int16)
            soundfile.write(file, samples, 16000, format=kind)
            file.seek(0)
            if not np.array_equal(soundfile.read(file, dtype="int16")[0], samples):
                yield Finding(name, "FAILED", f"{kind} is not read as written", remedy)
                return
    except Exception as error:
        yield Finding(name, "FAILED", in_one_line(error), remedy)
        return
    detail = f"WAV and FLAC, libsndfile {soundfile.__libsndfile_version__}"
    yield Finding(name, "ok", detail)


def check_extras(name: str) -> Iterator[Finding]:
    """What is optional: to be without is no fault."""
    del name
    for extra, packages in optional_packages().items():
        remedy, title = f"pip install '{US}[{extra}]'", f"extra: {extra}"
        missing = [p for p in packages if importlib.util.find_spec(_module(p)) is None]
        if missing:
            detail = f"optional; without {', '.join(missing)}; to add: {remedy}"
            yield Finding(title, "ok", detail)
            continue
        try:
            for package in packages:
                importlib.import_module(_module(package))
            yield Finding(title, "ok", "installed")
        except Exception as error:
            yield Finding(title, "warning", in_one_line(error), remedy)
