"""Checksums of files, by which damage is noticed before anything is read."""

import hashlib
from pathlib import Path


def file_sums(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file in a folder and below, by its path there.

    A second for about 1 GB.

    Raises:
        OSError: a file cannot be read.
    """
    sums = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        sums[path.relative_to(folder).as_posix()] = digest
    return sums


def text_sum(text: str) -> str:
    """The SHA-256 of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
