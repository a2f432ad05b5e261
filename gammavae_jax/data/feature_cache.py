"""Caches log-mels on disk: one memory-mapped array per machine.

The key is a checksum of everything that determines the log-mels: the recordings with
their names and order, the feature settings, the filterbank and the version of the code.
`<key>.json`, which is written last, holds the clips' lengths, the reductions in level
by a reference channel, and the array's checksum, which names the array's file. Writes
are atomic, so several runs can share a folder.
"""

import contextlib
import errno
import functools
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from gammavae_jax.config import FeatureConfig
from gammavae_jax.config_json import read_json
from gammavae_jax.data.audio import archives
from gammavae_jax.data.clips import Clips, in_threads, load_clips
from gammavae_jax.data.features import FEATURES_VERSION
from gammavae_jax.data.machines import ClipFile
from gammavae_jax.errors import InputError
from gammavae_jax.files import atomic_write, is_unfinished, open_regular, write_text
from gammavae_jax.log import Log

_blake2b = functools.partial(hashlib.blake2b, digest_size=20)
_ABANDONED_S = 24 * 3600.0  # older unfinished files must come from killed runs
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


class FeatureCache:
    """A folder of log-mels that several runs and threads may use simultaneously."""

    def __init__(self, folder: Path, log: Log):
        """Open or create the cache folder, which should not contain other files."""
        self.folder, self.log, self.is_full = folder, log, False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(folder)
        except OSError as error:
            if error.errno not in _FULL:
                raise InputError(
                    f"{str(folder)!r} cannot be used ({error.strerror}): choose "
                    "another folder for --feature-cache"
                ) from error
            self._give_up(error)

    def load_clips(
        self,
        files: Sequence[ClipFile],
        filterbank: Float[np.ndarray, "bin mel"],
        config: FeatureConfig,
        on_bad_file: Callable[[InputError], None] | None = None,
        on_clip: Callable[[], None] = lambda: None,
    ) -> Clips:
        """Load clips like `clips.load_clips`, but memory-map cached log-mels.

        A machine with an unusable recording is not cached.
        """
        before = _signature(files)
        key = _key(files, filterbank, config)
        cached = None if key is None else self._read(key, filterbank.shape[1])
        if cached is not None and len(cached.log_mels) == len(files):
            for _ in files:
                on_clip()
            return cached._replace(files=tuple(files))
        clips = load_clips(files, filterbank, config, on_bad_file, on_clip)
        # The key no longer matches if a recording was replaced in the meantime.
        is_valid = _signature(files) == before and len(clips.files) == len(files)
        if key is not None and is_valid and not self.is_full:
            try:
                self._write(key, clips)
            except OSError as error:
                self._give_up(error)
        return clips

    def _read(self, key: str, n_mels: int) -> Clips | None:
        """Return the clips without `files`, or None if they are missing or corrupt."""
        path = self.folder / f"{key}.json"
        if not path.exists():
            return None
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, EOFError):
            about = read_json(path)
            lengths = [int(n) for n in about["frames"]]
            explained = tuple(map(float, about["explained"]))
            array = np.load(self.folder / f"{about['array']}.npy", mmap_mode="r")
            if (
                array.dtype == np.float32
                and array.shape == (sum(lengths), n_mels)
                and min(lengths) > 0
                and len(explained) in (0, len(lengths))
                and _digest(lengths, array) == about["array"]
            ):
                plain = np.asarray(array)  # the same memory, without the subclass
                log_mels = np.split(plain, np.cumsum(lengths)[:-1])
                return Clips((), tuple(log_mels), explained=explained)
        self.log.note(
            f"The cached log-mels in {str(path)!r} are corrupt: recomputing them."
        )
        return None

    def _write(self, key: str, clips: Clips) -> None:
        array = np.concatenate(clips.log_mels)
        lengths = [len(log_mel) for log_mel in clips.log_mels]
        name = _digest(lengths, array)
        # Replace a file that already has this name, because it may be damaged.
        with atomic_write(self.folder / f"{name}.npy") as file:
            np.save(file, array)
        about = {"array": name, "frames": lengths, "explained": clips.explained}
        write_text(self.folder / f"{key}.json", json.dumps(about) + "\n")

    def _give_up(self, error: OSError) -> None:
        if not self.is_full:
            self.log.note(
                f"The feature cache {str(self.folder)!r} cannot be written "
                f"({error.strerror}): continuing without it."
            )
        self.is_full = True


def _key(
    files: Sequence[ClipFile],
    filterbank: Float[np.ndarray, "bin mel"],
    config: FeatureConfig,
) -> str | None:
    """Return the cache key, or None if a recording is unreadable."""
    try:
        contents = list(in_threads(lambda file: _content(file.path), files))
    except (OSError, ValueError):  # `load_clips` will report it
        return None
    settings = {"version": FEATURES_VERSION, **asdict(config)}
    names = [[f.path.name, c] for f, c in zip(files, contents, strict=True)]
    return _digest([settings, names], filterbank)


def _content(path: Path) -> str:
    """Return a checksum of a recording's bytes."""
    if (archive := archives.archive_of(path)) is not None:
        return _blake2b(archives.read_recording(archive, path)).hexdigest()
    with open_regular(path) as file:
        return hashlib.file_digest(file, _blake2b).hexdigest()


def _signature(files: Sequence[ClipFile]) -> list[Any]:
    """Return the files' inodes, sizes and times; replacing a file changes these."""
    signature = []
    for path, _ in files:
        with contextlib.suppress(OSError, ValueError):
            status = (archives.archive_of(path) or path).stat()
            signature.append((path, status.st_ino, status.st_size, status.st_mtime_ns))
    return signature


def _digest(about: Any, array: Float[np.ndarray, "row column"]) -> str:
    """Return one checksum of both JSON data and an array."""
    checksum = _blake2b(json.dumps(about).encode())
    checksum.update(np.ascontiguousarray(array).data)
    return checksum.hexdigest()


def _remove_abandoned(folder: Path) -> None:
    """Remove unfinished files that killed runs left behind."""
    for path in folder.iterdir():
        if is_unfinished(path):
            with contextlib.suppress(FileNotFoundError):  # another run removed it
                if time.time() - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink()
