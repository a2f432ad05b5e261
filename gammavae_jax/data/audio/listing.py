"""Lists the recordings in a folder, and the files and folders that are left out.

- WAV and FLAC files are recordings, whatever the case of their suffix. Anything else
  with such a suffix (a folder, a pipe, a broken link) is also treated as a recording,
  so that reading it fails with a message.
- Subfolders are listed as well. Symbolic links are followed; a folder that can be
  reached in several ways is listed once, under its real path if that lies in the
  listed folder.
- Other audio formats, archives, hidden files, internal folders of operating systems and
  network drives, broken links and folders that cannot be listed are left out, and
  `left_out_lines` names them. All other files are ignored.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from gammavae_jax.data.names import AUDIO_SUFFIXES
from gammavae_jax.errors import InputError, names_text, printable

_OTHER_FORMATS = (
    *(".3gp", ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".au", ".bwf"),
    *(".caf", ".m4a", ".mka", ".mp2", ".mp3", ".mp4", ".oga", ".ogg", ".opus", ".pcm"),
    *(".raw", ".rf64", ".snd", ".w64", ".webm", ".wma", ".wv"),
    *(".7z", ".rar", ".tar", ".zip", ".tgz", ".tbz2", ".txz"),
    *(".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst"),
)
_OF_SYSTEMS = {
    *("@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "__macosx"),
    *("lost+found", "system volume information"),
}
_MOST_NAMES = 3  # in one message

OTHER_FORMAT, HIDDEN, BROKEN, UNREADABLE, ELSEWHERE = (
    ("file{s} in another format", "convert or unpack {them} to WAV or FLAC"),
    ("hidden or system file{s} or folder{s}", "rename or move {them} to use {them}"),
    ("broken link{s}", "fix or remove {them}"),
    ("unreadable folder{s}", "make {them} readable"),
    ("recording{s} or folder{s} outside train and test", "move {them} there"),
)
Reason = tuple[str, str]  # what is left out, and the remedy


class Listing(NamedTuple):
    """A folder's contents, keyed by relative path with forward slashes."""

    recordings: dict[str, os.stat_result]  # sorted by path
    left_out: dict[str, Reason]


def is_hidden(name: str) -> bool:
    """Return whether a name marks a hidden or system file or folder."""
    return name.startswith(".") or name.lower() in _OF_SYSTEMS


def is_recording(name: str) -> bool:
    """Return whether a name has the suffix of a WAV or FLAC file."""
    return name.lower().endswith(AUDIO_SUFFIXES)


def is_other_format(name: str) -> bool:
    """Return whether a name has the suffix of another audio format or of an archive."""
    return name.lower().endswith(_OTHER_FORMATS)


def list_recordings(folder: Path) -> Listing:
    """List a folder and its subfolders; raise an OSError if it cannot be listed."""
    listing, seen = Listing({}, {}), set()
    # Follow links last, so that a folder is listed under its real path if possible.
    todo, links = [("", os.path.realpath(folder))], []
    while todo or links:
        prefix, real = todo.pop() if todo else links.pop(0)
        if real in seen:
            continue
        seen.add(real)
        try:
            entries = sorted(os.scandir(folder / prefix), key=lambda e: e.name)
        except OSError:
            if not prefix:
                raise
            listing.left_out[prefix[:-1]] = UNREADABLE
            continue
        for entry in entries:
            if _add(listing, prefix + entry.name, entry):
                below = f"{prefix}{entry.name}/"
                if entry.is_symlink():
                    links.append((below, os.path.realpath(entry.path)))
                else:
                    todo.append((below, os.path.join(real, entry.name)))
    in_order = sorted(listing.recordings.items(), key=lambda r: r[0].split("/"))
    return Listing(dict(in_order), listing.left_out)


def require_listing(folder: Path) -> Listing:
    """List a folder with `list_recordings`; raise an InputError if that fails."""
    try:
        return list_recordings(folder)
    except OSError as error:
        raise not_listed(folder, error) from error


def not_listed(folder: Path, error: OSError) -> InputError:
    """Return the error for a folder that cannot be listed."""
    problem = f"{printable(folder)} cannot be listed: {error.strerror}"
    return InputError(f"{problem}: choose a folder that you can read")


def _add(listing: Listing, path: str, entry: os.DirEntry[str]) -> bool:
    """Add a directory entry to the listing; return True if it is a folder to search."""
    is_folder, name = os.path.isdir(entry.path), entry.name
    if is_hidden(name):
        if is_folder or is_recording(name):
            listing.left_out[path] = HIDDEN
    elif is_recording(name):
        if (status := status_of(entry.path)) is not None:
            listing.recordings[path] = status
    elif is_folder:
        return True
    elif is_other_format(name):
        listing.left_out[path] = OTHER_FORMAT
    elif is_broken_link(entry.path):
        listing.left_out[path] = BROKEN
    return False


def is_broken_link(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a symbolic link that leads nowhere."""
    return os.path.islink(path) and not os.path.exists(path)


def status_of(path: str | os.PathLike[str]) -> os.stat_result | None:
    """Return the stat result of a file or broken link, or None if nothing exists."""
    for status in (os.stat, os.lstat):
        try:
            return status(path)
        except (OSError, ValueError):
            continue
    return None


def left_out_lines(folder: Path, left_out: Mapping[str, Reason]) -> list[str]:
    """Return one line for each reason why files were left out, with the remedy.

    Hidden folders are mentioned only if they contain a recording. A name may lead
    through an archive.
    """
    lines = []
    for reason in dict.fromkeys(left_out.values()):
        names = sorted(name for name, of in left_out.items() if of == reason)
        if reason == HIDDEN:
            names = [name for name in names if holds_recordings(folder / name)]
        if names:
            s, them = ("s", "them") if names[1:] else ("", "it")
            what, remedy = (text.format(s=s, them=them) for text in reason)
            some = printable(names_text(names, _MOST_NAMES))
            count = f"left out of {printable(folder)}: {len(names)} {what}"
            lines.append(f"{count} ({some}): {remedy}")
    return lines


def holds_recordings(
    path: Path, on_error: Callable[[OSError], None] | None = None
) -> bool:
    """Return whether a path is a recording, or a folder that contains one.

    `on_error` is called with the error of each folder that cannot be listed.
    """
    if not path.is_dir():
        return is_recording(path.name)
    walk = os.walk(path, onerror=on_error)
    return any(is_recording(name) for *_, names in walk for name in names)
