"""Packs machine folders into archives like those of the challenge."""

import zipfile
from pathlib import Path


def pack(archive: Path, contents: dict[str, bytes], method=zipfile.ZIP_DEFLATED):
    """Write an archive with these members and return its path."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", method) as file:
        for name, data in contents.items():
            # The constructor would convert backslashes.
            info = zipfile.ZipInfo("x")
            info.filename = name
            info.extra = b"UT\5\0\1" + bytes(4)  # a timestamp, as written by `zip`
            file.writestr(info, data, method)
    return archive


def pack_machines(root: Path, to: Path, method=zipfile.ZIP_DEFLATED) -> Path:
    """Pack each machine in `root` into a training archive and a test archive."""
    for folder in (path for path in root.iterdir() if path.is_dir()):
        files = {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        train = {name: data for name, data in files.items() if "/train/" in name}
        rest = {name: data for name, data in files.items() if name not in train}
        pack(to / f"eval_data_{folder.name}_train.zip", train, method)
        pack(to / f"eval_data_{folder.name}_test.zip", rest, method)
    return to
