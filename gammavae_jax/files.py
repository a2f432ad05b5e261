"""Files that are whole or not there."""

import os
import uuid
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with LF line ends; a reader never sees half of it.

    Raises:
        OSError: the folder is missing, full or cannot be written.
    """
    unfinished = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        unfinished.write_text(text, encoding="utf-8", newline="")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
