"""Whether a zip archive is sound, by the checksums that it carries itself."""

import zipfile
import zlib
from pathlib import Path

from gammavae_jax.data.download.transfer import WrongBytes

# What `zipfile` raises for archives that are cut, changed or packed in unknown ways.
UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
)


def require_sound(path: Path) -> None:
    """Read all of an archive.

    Raises:
        WrongBytes: it is no archive, or a member is not what its checksum says.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (*UNREADABLE, OSError) as error:
        raise WrongBytes("what came is no zip archive, or half of one") from error
    if damaged is not None:
        raise WrongBytes("what came is a damaged zip archive")
