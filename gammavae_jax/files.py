"""Files and folders that are whole or not there."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with LF line ends; a reader never sees half of it.

    Raises:
        OSError: the folder is missing, full or cannot be written.
    """
    with whole_file(path) as file:
        file.write(text.encode("utf-8"))


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to be filled, which takes its name when the block ends without an error.

    Raises:
        OSError: the folder is missing, full or cannot be written.
    """
    unfinished = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        with unfinished.open("xb") as file:
            yield file
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to be filled, which takes its name when the block ends.

    What had the name is then removed; if the block fails, it stays.

    Raises:
        OSError: the parent folder is full or cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished, old = (
        path.with_name(f".{path.name}-{uuid.uuid4().hex}") for _ in range(2)
    )
    unfinished.mkdir()
    try:
        yield unfinished
        if path.exists():
            os.replace(path, old)
        os.replace(unfinished, path)
    finally:
        if old.exists() and not path.exists():
            os.replace(old, path)
        for folder in (unfinished, old):
            shutil.rmtree(folder, ignore_errors=True)
