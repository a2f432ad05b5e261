"""Unpacking what is well-meant, and refusing all that is not."""

import io
import stat
import zipfile
from pathlib import Path

import pytest
from rich.console import Console
from support.packing import pack

from gammavae_jax.data.download.unpack import (
    members_of,
    unpack_machine,
    unpacked_archives,
)
from gammavae_jax.data.machines import find_clips, find_machines
from gammavae_jax.errors import InputError
from gammavae_jax.log import Log

TRAIN = "fan/train/section_00_source_train_normal_0000_a.wav"
TEST = "fan/test/section_00_source_test_normal_0000_a.wav"
GOOD = {TRAIN: b"train" * 100, TEST: b"test" * 100, "fan/attributes_00.csv": b"a,b\n"}


@pytest.fixture
def log():
    return Log(Console(file=io.StringIO()))


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "outer" / "dev_data"
    folder.mkdir(parents=True)
    return folder


def everything_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def with_member(archive: Path, name: str, data: bytes = b"x", mode: int = 0) -> Path:
    """An archive of good members and one more, with a Unix mode."""
    with zipfile.ZipFile(archive, "w") as file:
        for good, content in GOOD.items():
            file.writestr(good, content)
        info = zipfile.ZipInfo("x")
        info.filename, info.external_attr = name, mode << 16
        file.writestr(info, data)
    return archive


def test_a_machine_gets_a_folder(root, log):
    archive = pack(root / "dev_fan.zip", GOOD)
    unpack_machine([archive], root / "fan", log)
    found = everything_in(root / "fan")
    assert found.pop(".unpacked") == b"dev_fan.zip\n"
    assert found == {name.removeprefix("fan/"): GOOD[name] for name in GOOD}
    assert unpacked_archives(root / "fan") == {"dev_fan.zip"}
    assert {path.name for path in root.iterdir()} == {"dev_fan.zip", "fan"}
    archive.unlink()
    assert find_machines(root) == ["fan"]
    (files,) = find_clips(root, "fan")
    assert (len(files.train), len(files.test)) == (1, 1)


def test_several_archives_make_one_folder(root, log):
    train = pack(root / "a_train.zip", {TRAIN: b"1", "fan/attributes_00.csv": b"old"})
    test = pack(root / "a_test.zip", {TEST: b"2", "fan/attributes_00.csv": b"new"})
    unpack_machine([train, test], root / "fan", log)
    found = everything_in(root / "fan")
    assert found.pop(".unpacked") == b"a_train.zip\na_test.zip\n"
    assert set(found.values()) == {b"1", b"2", b"old"}


def test_folders_around_the_machine_are_left_out(root, log):
    contents = {f"dev_data/raw/{name}": data for name, data in GOOD.items()}
    contents |= {"LICENSE.txt": b"x", f"__MACOSX/{TRAIN}": b"x"}
    unpack_machine([pack(root / "dev_fan.zip", contents)], root / "fan", log)
    assert len(everything_in(root / "fan")) == len(GOOD) + 1


def test_what_was_unpacked_before_is_replaced_whole(root, log):
    unpack_machine([pack(root / "a.zip", {TRAIN: b"1"})], root / "fan", log)
    unpack_machine(
        [root / "a.zip", pack(root / "b.zip", {TEST: b"2"})], root / "fan", log
    )
    assert set(everything_in(root / "fan").values()) == {b"1", b"2", b"a.zip\nb.zip\n"}
    assert {path.name for path in root.iterdir()} == {"a.zip", "b.zip", "fan"}


@pytest.mark.parametrize("as_link", [False, True])
def test_somebody_elses_folder_is_left_alone(root, log, as_link):
    target = root.parent / "mine" if as_link else root / "fan"
    target.mkdir()
    (target / "x.wav").write_bytes(b"mine")
    if as_link:
        (target / ".unpacked").write_text("dev_fan.zip\n")
        (root / "fan").symlink_to(target)
    archive = pack(root / "dev_fan.zip", GOOD)
    with pytest.raises(InputError, match="was not unpacked by this command"):
        unpack_machine([archive], root / "fan", log)
    assert everything_in(target)["x.wav"] == b"mine"


def test_what_a_killed_process_left_is_cleared_away(root, log):
    left = root / ".unpacking-fan" / "fan" / "train"
    left.mkdir(parents=True)
    (left / "half.wav").write_bytes(b"x")
    unpack_machine([pack(root / "dev_fan.zip", GOOD)], root / "fan", log)
    assert not (root / ".unpacking-fan").exists()
    assert "train/half.wav" not in everything_in(root / "fan")


HOSTILE = [
    "../escaped.wav",
    "fan/../../escaped.wav",
    "fan/train/../../../escaped.wav",
    "/escaped.wav",
    "//server/share/escaped.wav",
    "..\\escaped.wav",
    "fan\\..\\..\\escaped.wav",
    "fan/train\\x.wav",
    "C:/escaped.wav",
    "C:escaped.wav",
    "fan/C:escaped.wav",
    "fan/train/x.wav:stream",
    "fan/./train/x.wav",
    "fan//train/x.wav",
    "fan/train/x\n.wav",
    "fan/train/\x1b[2J.wav",
    "",
    "/",
    "..",
    TRAIN,  # twice
    TRAIN.upper(),
    "fan/TRAIN/" + TRAIN.split("/")[2],
    "fan/train",  # a file where a folder is
    f"{TRAIN}/x.wav",  # a folder where a file is
]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_hostile_name_unpacks_nothing(root, log, name):
    archive = with_member(root / "dev_fan.zip", name)
    before = everything_in(root.parent)
    with pytest.raises(InputError) as caught:
        unpack_machine([archive], root / "fan", log)
    assert "nothing was unpacked" in str(caught.value)
    assert str(caught.value).isprintable()
    assert everything_in(root.parent) == before
    assert {path.name for path in root.iterdir()} == {"dev_fan.zip"}


def test_a_name_that_goes_on_behind_a_zero_byte_unpacks_nothing(root, log):
    archive = with_member(root / "dev_fan.zip", "fan/train/x.wavZ/../../../x")
    archive.write_bytes(archive.read_bytes().replace(b"x.wavZ", b"x.wav\0"))
    with pytest.raises(InputError, match="nothing was unpacked"):
        unpack_machine([archive], root / "fan", log)


@pytest.mark.parametrize(
    "kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK]
)
def test_links_and_devices_unpack_nothing(root, log, kind):
    archive = with_member(
        root / "dev_fan.zip", "fan/train/link", b"/etc/passwd", kind | 0o777
    )
    with pytest.raises(InputError, match="a link or a device"):
        unpack_machine([archive], root / "fan", log)
    assert {path.name for path in root.iterdir()} == {"dev_fan.zip"}


def test_folders_and_files_with_unix_modes_are_what_they_are(root, log):
    archive = with_member(root / "a.zip", "fan/test/", b"", stat.S_IFDIR | 0o755)
    unpack_machine([archive], root / "fan", log)
    archive = with_member(root / "b.zip", "fan/more.wav", b"x", stat.S_IFREG | 0o4777)
    unpack_machine([archive], root / "fan", log)
    assert not (root / "fan" / "more.wav").stat().st_mode & stat.S_ISUID


def test_a_bomb_is_not_unpacked(root, log):
    archive = pack(root / "dev_fan.zip", {TRAIN: bytes(10_000_000)})
    with pytest.raises(InputError, match=r"would unpack to \d+ times its size"):
        unpack_machine([archive], root / "fan", log)
    assert {path.name for path in root.iterdir()} == {"dev_fan.zip"}


def test_no_more_is_unpacked_than_there_is_room_for(root, log, monkeypatch):
    archive = pack(root / "dev_fan.zip", GOOD)
    size = sum(map(len, GOOD.values()))

    def usage(_):
        return type("Usage", (), {"free": size - 1})

    monkeypatch.setattr("shutil.disk_usage", usage)
    with pytest.raises(InputError, match="are needed and"):
        unpack_machine([archive], root / "fan", log)
    assert {path.name for path in root.iterdir()} == {"dev_fan.zip"}


def test_a_member_longer_than_it_says_is_no_more_than_it_says(root, log):
    """Its declared size in the table of contents is made a byte smaller."""
    archive = pack(root / "dev_fan.zip", GOOD)
    data, size = archive.read_bytes(), len(GOOD[TRAIN])
    at = data.index(b"PK\x01\x02") + 24
    assert int.from_bytes(data[at : at + 4], "little") == size
    archive.write_bytes(data[:at] + (size - 1).to_bytes(4, "little") + data[at + 4 :])
    with pytest.raises(InputError, match="damaged"):
        unpack_machine([archive], root / "fan", log)
    assert {path.name for path in root.iterdir()} == {"dev_fan.zip"}


@pytest.mark.parametrize("damage", ["cut", "changed", "no archive", "encrypted"])
def test_a_damaged_archive_unpacks_nothing(root, log, damage):
    archive = pack(root / "dev_fan.zip", GOOD, zipfile.ZIP_STORED)
    data = archive.read_bytes()
    flags = data.index(b"PK\x01\x02") + 8
    archive.write_bytes(
        {
            "cut": data[:-30],
            "changed": data.replace(b"traintrain", b"traiNtrain", 1),
            "no archive": b"<html>Please log in</html>",
            "encrypted": data[:flags] + b"\x01" + data[flags + 1 :],
        }[damage]
    )
    with pytest.raises(InputError, match=r"dev_fan\.zip"):
        unpack_machine([archive], root / "fan", log)
    assert {path.name for path in root.iterdir()} == {"dev_fan.zip"}


def test_an_interrupt_leaves_no_half_folder(root, log, monkeypatch):
    archive = pack(root / "dev_fan.zip", GOOD)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.copyfileobj", interrupt)
    with pytest.raises(KeyboardInterrupt):
        unpack_machine([archive], root / "fan", log)
    assert {path.name for path in root.iterdir()} == {"dev_fan.zip"}


def test_one_recording_of_two_contents_is_refused(root):
    archives = [pack(root / f"{n}.zip", {TRAIN: n.encode()}) for n in "ab"]
    with pytest.raises(InputError, match=r"b\.zip and a\.zip hold different files"):
        members_of(archives, "fan")


def test_an_archive_without_the_machine_is_refused(root):
    archive = pack(root / "dev_fan.zip", {"pump/train/x.wav": b"x"})
    with pytest.raises(InputError, match="no folder 'fan' within"):
        members_of([archive], "fan")
