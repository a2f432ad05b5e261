"""The folder of a detector of own recordings: a checkpoint, and how it was cut."""

import json
from pathlib import Path

from gammavae_jax.checkpoint import restore_detector, save_detector
from gammavae_jax.detector import Detector
from gammavae_jax.errors import InputError, printable
from gammavae_jax.files import whole_folder, write_text

_CUT = "recordings.json"  # a run's checkpoint has none


def write_detector(folder: Path, detector: Detector, clip_seconds: float) -> None:
    """Write a folder that is whole or not there; a detector there is replaced.

    Args:
        folder: of the detector.
        detector: that is kept.
        clip_seconds: the length of the clips that recordings are cut into.

    Raises:
        InputError: something else is there, or the folder cannot be written.
    """
    if folder.exists() and not (folder / "detector.json").is_file():
        raise InputError(
            f"{printable(folder)} exists and is no detector: give another path"
        )
    try:
        with whole_folder(folder) as unfinished:
            save_detector(unfinished, detector)
            cut = json.dumps({"clip_seconds": clip_seconds}) + "\n"
            write_text(unfinished / _CUT, cut)
    except OSError as error:
        raise InputError(
            f"{printable(folder)} cannot be written ({error.strerror}): give another "
            "path"
        ) from error


def read_detector(folder: Path) -> tuple[Detector, float | None]:
    """A detector, and the seconds of the clips that it was made with, if known.

    Raises:
        InputError: there is none, or one that this version cannot read.
    """
    detector, cut = restore_detector(folder), folder / _CUT
    if not cut.exists():
        return detector, None
    try:
        return detector, float(json.loads(cut.read_text())["clip_seconds"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{printable(cut)} cannot be read: it is damaged; fit the detector again"
        ) from error
