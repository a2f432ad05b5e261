"""Whether a folder's disk has room."""

import shutil
from pathlib import Path

from rich.filesize import decimal

from gammavae_jax.errors import InputError, printable


def require_space(folder: Path, n_bytes: int) -> None:
    """Refuse what would not fit.

    Raises:
        InputError: the disk of the folder has less room.
    """
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise InputError(
            f"{printable(folder)}: {decimal(n_bytes)} are needed and {decimal(free)} "
            "are free: make room, or name another --out or fewer --machines"
        )
