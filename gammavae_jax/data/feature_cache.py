"""Log-mels kept on disk: one array for the clips of a machine, mapped into memory.

The key is the content of the recordings with their names and order, the settings of the
features, the filterbank and the version of our code: what would sound or be computed
otherwise has another key, and nothing has to be thrown away. `<key>.json` tells the
lengths of the clips and names the array by its checksum; it is written last. Both files
take their names when they are whole, so several runs can share a folder.

An array that is not what its checksum says is made anew. Where the folder cannot be
written any more, runs go on without it.
"""

import contextlib
import errno
import hashlib
import itertools
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data import archives
from gammavae_jax.data.clips import Clips, in_threads, load_clips
from gammavae_jax.data.features import FEATURES_VERSION
from gammavae_jax.data.machines import ClipFile
from gammavae_jax.errors import InputError
from gammavae_jax.files import atomic_write, write_text
from gammavae_jax.log import Log

_DIGEST_BYTES = 20
_BYTES_AT_ONCE = 1 << 20
_ABANDONED_S = 24 * 3600.0  # an unfinished file as old as that is a killed run's
_UNFINISHED = re.compile(r"\.[0-9a-f]{40}\.(json|npy)-[0-9a-f]{32}")
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


class FeatureCache:
    """A folder of log-mels; safe for several runs at once, and in several threads."""

    def __init__(self, folder: Path, log: Log):
        """Use a folder, which is made if it is not there.

        Args:
            folder: of the cache, and of nothing else.
            log: told of what is damaged, and of a full disk.

        Raises:
            InputError: the folder cannot be made or read.
        """
        self.folder, self.log, self.is_full = folder, log, False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(folder)
        except OSError as error:
            if error.errno in _FULL:
                self._give_up(error)
                return
            raise InputError(
                f"{str(folder)!r} cannot be used ({error.strerror}): give another "
                "--feature-cache"
            ) from error

    def load_clips(
        self,
        files: Sequence[ClipFile],
        filterbank: Float[np.ndarray, "bin mel"],
        config: FeatureConfig,
        on_bad_file: Callable[[InputError], None] | None = None,
        on_clip: Callable[[], None] = lambda: None,
    ) -> Clips:
        """`load_clips`; of recordings seen before, views of a mapped array.

        Machines with a file that cannot be used are not kept.

        Raises:
            InputError: see `load_clips`.
        """
        before = _signature(files)
        key = _key(files, filterbank, config)
        known = None if key is None else self._read(key, filterbank.shape[1])
        if known is not None and len(known) == len(files):
            for _ in files:
                on_clip()
            return Clips(tuple(files), known)
        clips = load_clips(files, filterbank, config, on_bad_file, on_clip)
        # A recording that was replaced meanwhile has another key than was computed.
        is_of_key = _signature(files) == before and len(clips.files) == len(files)
        if key is not None and is_of_key and not self.is_full:
            try:
                self._write(key, clips)
            except OSError as error:
                self._give_up(error)
        return clips

    def _read(
        self, key: str, n_mels: int
    ) -> tuple[Float32[np.ndarray, "frame mel"], ...] | None:
        """The log-mels of a key; None where they are not there, or damaged."""
        path = self.folder / f"{key}.json"
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            return self._damaged(path)
        try:
            lengths = [int(n) for n in about["frames"]]
            array = np.load(self.folder / f"{about['array']}.npy", mmap_mode="r")
            is_whole = (
                array.dtype == np.float32
                and array.shape == (sum(lengths), n_mels)
                and min(lengths) > 0
                and _digest(lengths, array) == about["array"]
            )
        except (OSError, ValueError, TypeError, KeyError, EOFError):
            return self._damaged(path)
        if not is_whole:
            return self._damaged(path)
        ends = itertools.accumulate(lengths)
        plain = np.asarray(array)  # the same memory, without the subclass
        return tuple(plain[end - n : end] for end, n in zip(ends, lengths, strict=True))

    def _write(self, key: str, clips: Clips) -> None:
        array = np.concatenate(clips.log_mels)
        lengths = [len(log_mel) for log_mel in clips.log_mels]
        name = _digest(lengths, array)
        # Always: what had that name may be what was found to be damaged.
        with atomic_write(self.folder / f"{name}.npy") as file:
            np.save(file, array)
        about = {"array": name, "frames": lengths}
        write_text(self.folder / f"{key}.json", json.dumps(about) + "\n")

    def _damaged(self, path: Path) -> None:
        self.log.note(
            f"The log-mels that {str(path)!r} tells of are damaged: they are made anew."
        )

    def _give_up(self, error: OSError) -> None:
        if not self.is_full:
            self.log.note(
                f"Log-mels are not kept any more: {str(self.folder)!r} cannot be "
                f"written ({error.strerror})."
            )
        self.is_full = True


def _key(
    files: Sequence[ClipFile],
    filterbank: Float[np.ndarray, "bin mel"],
    config: FeatureConfig,
) -> str | None:
    """Of all that decides the log-mels; None where a recording cannot be read."""
    try:
        contents = list(in_threads(lambda file: _content(file.path), files))
    except (OSError, ValueError):  # `load_clips` will say what it is
        return None
    whole = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    settings = {"version": FEATURES_VERSION, **asdict(config)}
    names = [[str(f.path.name), c] for f, c in zip(files, contents, strict=True)]
    whole.update(json.dumps([settings, names]).encode())
    whole.update(np.ascontiguousarray(filterbank).data)
    return whole.hexdigest()


def _content(path: Path) -> str:
    """A checksum of the bytes of a recording."""
    found = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    archive = archives.archive_of(path)
    if archive is not None:
        found.update(archives.read_recording(archive, path))
        return found.hexdigest()
    with path.open("rb") as file:
        while block := file.read(_BYTES_AT_ONCE):
            found.update(block)
    return found.hexdigest()


def _signature(files: Sequence[ClipFile]) -> list[Any]:
    """What tells that a file was replaced or written to; None of what is not there."""

    def of(path: Path) -> Any:
        try:
            status = (archives.archive_of(path) or path).stat()
        except (OSError, ValueError):
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

    return [of(file.path) for file in files]


def _digest(lengths: Sequence[int], array: Float32[np.ndarray, "frame mel"]) -> str:
    """A checksum of the clips of an array, and of where each one ends."""
    found = hashlib.blake2b(json.dumps(lengths).encode(), digest_size=_DIGEST_BYTES)
    found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def _remove_abandoned(folder: Path) -> None:
    """Remove what killed runs left unfinished."""
    for path in folder.iterdir():
        if _UNFINISHED.fullmatch(path.name):
            with contextlib.suppress(FileNotFoundError):  # another run was faster
                if time.time() - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink()
