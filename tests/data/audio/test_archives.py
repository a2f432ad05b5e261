"""Machines in zip archives, and every way in which an archive can be bad."""

import io
import os
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
from support.layouts import LAYOUTS, MORE_LAYOUTS, build
from support.logs import refusal
from support.packing import pack, pack_machines

from gammavae_jax.data.audio.archives import recordings_in
from gammavae_jax.data.audio.files import read_clip
from gammavae_jax.data.machines import find_clips, find_machines, machine_root
from gammavae_jax.errors import printable

RATE = 16000
TRAIN = "fan/train/section_00_source_train_normal_0000.wav"
TEST = "fan/test/section_00_source_test_anomaly_0000.wav"
METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]


def sound(seed=0, n_samples=4000):
    """Return the bytes of a WAV file."""
    file = io.BytesIO()
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, n_samples)
    soundfile.write(file, samples, RATE, format="WAV")
    return file.getvalue()


def empty(*names):
    return dict.fromkeys(names, b"")


def paths(files):
    """Return the paths of each split's recordings, relative to the data root."""
    root = files.train[0].path.parents[3]
    return [
        [file.path.relative_to(root).as_posix() for file in split]
        for split in (files.train, files.test, files.supplemental)
    ]


@pytest.mark.parametrize("name", LAYOUTS | MORE_LAYOUTS)
def test_every_layout_is_the_same_in_folders_and_archives(tmp_path, name):
    layout = (LAYOUTS | MORE_LAYOUTS)[name]
    root = build(layout, tmp_path / "folders")
    packed = tmp_path / "packed" / ("raw" if machine_root(root) != root else "")
    pack_machines(machine_root(root), packed)
    packed = tmp_path / "packed"
    assert find_machines(packed) == find_machines(root)
    for machine in find_machines(root):
        archived, unpacked = (find_clips(r, machine) for r in (packed, root))
        for files, expected in zip(archived, unpacked, strict=True):
            assert files.name == expected.name
            assert files.has_domain_folders == expected.has_domain_folders
            for clips, others in zip(files[2:5], expected[2:5], strict=True):
                assert [c.name for c in clips] == [o.name for o in others]
                assert [c.path.name for c in clips] == [o.path.name for o in others]


def test_one_archive_may_contain_several_whole_machines(tmp_path):
    pump = empty("data/pump/train/a.flac", "data/pump/test/b.wav")
    both = empty(TRAIN, TEST, "fan/attributes_00.csv", "fan/supplemental/c.wav") | pump
    pack(tmp_path / "all.ZIP", both)
    assert find_machines(tmp_path) == ["fan", "pump"]
    (fan,), (pump,) = (find_clips(tmp_path, name) for name in ("fan", "pump"))
    assert paths(fan) == [
        [f"all.ZIP/{TRAIN}"], [f"all.ZIP/{TEST}"], ["all.ZIP/fan/supplemental/c.wav"],
    ]  # fmt: skip
    assert pump.train[0].path == tmp_path / "all.ZIP/data/pump/train/a.flac"


def test_archives_and_folders_of_different_machines_can_be_mixed(tmp_path):
    pack(tmp_path / "dev_fan.zip", empty(TRAIN, TEST))
    for split in ("train", "test"):
        (tmp_path / "pump" / split).mkdir(parents=True)
        (tmp_path / "pump" / split / "0.wav").touch()
    assert find_machines(tmp_path) == ["fan", "pump"]
    assert len(find_clips(tmp_path, "pump")[0].train) == 1


def test_a_folder_takes_precedence_over_archives_of_the_same_split(tmp_path):
    names = [TRAIN, TRAIN.replace("0000", "0001"), TEST, "fan/supplemental/c.wav"]
    pack(tmp_path / "dev_fan.zip", empty(*names))
    (tmp_path / "fan/train").mkdir(parents=True)
    (from_archive,) = find_clips(tmp_path, "fan")
    assert len(from_archive.train) == 2  # an empty folder is ignored
    (tmp_path / TRAIN).touch()
    (files,) = find_clips(tmp_path, "fan")
    assert [f.path for f in files.train] == [tmp_path / TRAIN]
    assert [f.path for f in files.test] == [tmp_path / "dev_fan.zip" / TEST]
    assert len(files.supplemental) == 1


def test_the_latest_issue_of_a_clip_is_used(tmp_path):
    clip = "fan/train/section_00_source_train_normal_{}.wav".format
    issues = {
        "dev_fan.zip": [clip("0000_vel_1"), clip("0001"), clip("0002"), TEST],
        "dev_fan_r2.zip": [clip("0000_vel_9"), clip("0001")],
        "dev_fan_r10.zip": [clip("0001")],
    }
    for archive, names in issues.items():
        pack(tmp_path / archive, empty(*names))
    (files,) = find_clips(tmp_path, "fan")
    assert paths(files)[:2] == [
        [
            f"dev_fan_r2.zip/{clip('0000_vel_9')}",
            f"dev_fan_r10.zip/{clip('0001')}",
            f"dev_fan.zip/{clip('0002')}",
        ],
        [f"dev_fan.zip/{TEST}"],
    ]


def test_clips_within_one_issue_do_not_replace_each_other(tmp_path):
    names = [
        f"fan/{split}/clip_0000_{i}.wav" for split in ("train", "test") for i in "ab"
    ]
    pack(tmp_path / "fan_r2.zip", empty(*names))
    pack(tmp_path / "fan.zip", empty(*names, "fan/train/other.wav"))
    (files,) = find_clips(tmp_path, "fan")
    assert [len(files.train), len(files.test)] == [3, 2]


def test_a_clip_in_two_unrelated_archives_is_refused(tmp_path):
    for name in ("dev_fan.zip", "dev_data_fan.zip"):
        pack(tmp_path / name, empty(TRAIN, TEST))
    text = refusal(find_clips, tmp_path, "fan")
    assert f"dev_data_fan.zip/{TRAIN}' and '" in text
    assert f"dev_fan.zip/{TRAIN}' have the same base name" in text


def test_members_that_are_not_recordings_are_ignored(tmp_path):
    others = empty(
        "fan/", "fan/train/", "fan/train/notes.txt", "fan/train/.wav", "loose.wav",
        "__MACOSX/fan/train/._a.wav", "__MACOSX/pump/train/a.wav", "slider/other/a.wav",
        "fan/train/._a.wav", ".hidden/valve/train/a.wav", "train/a.wav", "in.zip",
        "fan/train/@eaDir/a.wav", "$RECYCLE.BIN/pump/train/a.wav", "lost+found/a.wav",
    )  # fmt: skip
    pack(tmp_path / "dev_fan.zip", empty(TRAIN, f"./{TEST}") | others)
    pack(tmp_path / "unrelated.zip", empty("readme.txt"))
    pack(tmp_path / "._dev_fan.zip", {}).write_bytes(b"macOS")
    (tmp_path / "@eaDir").mkdir()
    (tmp_path / "@eaDir" / "dev_fan.zip").write_bytes(b"an index")
    (tmp_path / "folder.zip").mkdir()
    assert find_machines(tmp_path) == ["fan"]
    (files,) = find_clips(tmp_path, "fan")
    assert paths(files) == [[f"dev_fan.zip/{TRAIN}"], [f"dev_fan.zip/{TEST}"], []]


def test_clips_in_subfolders_of_an_archive_are_found(tmp_path):
    more = [TRAIN.replace("fan/train", f"fan/train/{day}") for day in ("a", "b")]
    pack(
        tmp_path / "dev_fan.zip", empty(TRAIN, *more, TEST.replace("/test", "/test/c"))
    )
    pack(tmp_path / "dev_fan_r2.zip", empty(more[0]))
    assert find_machines(tmp_path) == ["fan"]
    (files,) = find_clips(tmp_path, "fan")
    train = [
        f"dev_fan_r2.zip/{more[0]}",
        f"dev_fan.zip/{TRAIN}",
        f"dev_fan.zip/{more[1]}",
    ]
    found = [file.path.relative_to(tmp_path).as_posix() for file in files.train]
    assert sorted(found) == sorted(train)
    assert len(files.test) == 1


def test_backslashes_separate_folders(tmp_path):
    """Some old Windows programs write them."""
    contents = {name.replace("/", "\\"): sound() for name in (TRAIN, TEST)}
    pack(tmp_path / "dev_fan.zip", contents)
    (files,) = find_clips(tmp_path, "fan")
    assert paths(files)[0] == [f"dev_fan.zip/{TRAIN}"]
    assert len(read_clip(files.train[0].path, sample_rate=RATE)) == 4000


@pytest.mark.parametrize(
    "name",
    ["/fan/train/a.wav", "../a.wav", "fan/../../a.txt", "C:\\fan\\a.wav", "a\\..\\b"],
)
def test_a_name_that_points_outside_the_archive_is_refused(tmp_path, name):
    pack(tmp_path / "dev_fan.zip", empty(TRAIN, name))
    text = refusal(find_machines, tmp_path)
    assert text.startswith(f"{tmp_path}/dev_fan.zip: the name {name!r} points outside")


def test_a_file_that_is_not_an_archive_is_refused(tmp_path):
    archive = pack(tmp_path / "dev_fan.zip", {TRAIN: sound(), TEST: sound()})
    whole = archive.read_bytes()
    for content in (b"", b"not a zip\n" * 100, whole[:-30], whole[: len(whole) // 2]):
        archive.write_bytes(content)
        text = refusal(find_machines, tmp_path)
        assert text.startswith(f"{archive} cannot be read as a zip archive (")
        assert text.endswith("download it again or remove it from the folder")


def test_an_encrypted_archive_is_refused(tmp_path):
    archive = pack(tmp_path / "dev_fan.zip", {TRAIN: sound(), TEST: sound()})
    data = bytearray(archive.read_bytes())
    entry = data.rindex(b"PK\x01\x02")  # the test clip's, in the table of contents
    data[entry + 8] |= 1
    archive.write_bytes(data)
    text = refusal(find_machines, tmp_path)
    assert f"dev_fan.zip: {TEST} is encrypted: recreate" in text


@pytest.mark.parametrize("missing", ["train", "test"])
def test_a_machine_without_clips_of_a_split_is_refused(tmp_path, missing):
    pack(tmp_path / "dev_fan.zip", empty({"train": TEST, "test": TRAIN}[missing]))
    text = refusal(find_clips, tmp_path, "fan")
    assert f"no recordings in '{tmp_path}/fan/{missing}'" in text


def test_training_clips_are_not_needed_if_only_test_clips_are_requested(tmp_path):
    pack(tmp_path / "eval_data_fan_test.zip", empty(TEST))
    (files,) = find_clips(tmp_path, "fan", ["test"])
    assert [len(files.train), len(files.test)] == [0, 1]


@pytest.mark.parametrize("method", METHODS)
def test_many_threads_read_one_archive(tmp_path, method):
    names = [f"fan/train/{i}.wav" for i in range(20)]
    contents = {name: sound(i, 20000) for i, name in enumerate(names)}
    archive = pack(tmp_path / "dev_fan.zip", contents, method)

    def read(name):
        return read_clip(archive / name, sample_rate=RATE).tobytes()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, names * 5)) == [read(name) for name in names] * 5
    assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs Linux's /proc")
def test_only_a_few_archives_are_kept_open(tmp_path):
    """A large fleet has more archives than a process may have open files."""
    n_before = len(os.listdir("/proc/self/fd"))
    for number in range(30):
        archive = pack(tmp_path / f"{number}.zip", {TRAIN: sound(number)})
        assert len(read_clip(archive / TRAIN, sample_rate=RATE)) == 4000
    assert len(os.listdir("/proc/self/fd")) < n_before + 15


@pytest.mark.parametrize("method", METHODS)
def test_only_the_damaged_recording_of_an_archive_is_refused(tmp_path, method):
    archive = pack(tmp_path / "dev_fan.zip", {TRAIN: sound(), TEST: sound(1)}, method)
    data = bytearray(archive.read_bytes())
    data[3000:3010] = bytes(10)
    archive.write_bytes(data)
    text = refusal(read_clip, archive / TRAIN, sample_rate=RATE)
    expected = "is corrupt in its archive: download the archive again"
    assert text == f"{archive / TRAIN} {expected}"
    assert len(read_clip(archive / TEST, sample_rate=RATE)) == 4000


def test_an_unsupported_compression_method_is_refused(tmp_path):
    archive = pack(tmp_path / "dev_fan.zip", {TRAIN: sound()}, zipfile.ZIP_BZIP2)
    text = refusal(read_clip, archive / TRAIN, sample_rate=RATE)
    assert "unsupported compression method 12: recreate the archive" in text


def refusal_and_peak_memory(archive):
    tracemalloc.start()
    try:
        text = refusal(read_clip, archive / TRAIN, sample_rate=RATE)
        return text, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("claim", [100, 0xFFFFFFFE], ids=["bomb", "4 GB"])
def test_false_sizes_in_an_archive_allocate_no_memory(tmp_path, claim):
    archive = pack(tmp_path / "dev_fan.zip", {TRAIN: bytes(20_000_000)})
    data = bytearray(archive.read_bytes())
    entry = data.rindex(b"PK\x01\x02")  # in the table of contents
    sizes = [len(data) if claim == 100 else claim, claim]
    data[entry + 20 : entry + 28] = b"".join(n.to_bytes(4, "little") for n in sizes)
    archive.write_bytes(data)
    text, peak = refusal_and_peak_memory(archive)
    assert "is corrupt in its archive" in text
    assert peak < {100: 5e6, 0xFFFFFFFE: 1e8}[claim]


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    """Its sizes are correct; only their ratio is suspicious."""
    archive = pack(tmp_path / "dev_fan.zip", {TRAIN: bytes(100_000_000)})
    text, peak = refusal_and_peak_memory(archive)
    assert " to 100000000 bytes, which is implausible" in text
    assert peak < 5e6
    silence = io.BytesIO()
    soundfile.write(silence, np.zeros(600 * RATE), RATE, format="WAV")
    archive = pack(tmp_path / "dev_pump.zip", {TRAIN: silence.getvalue()})
    assert len(read_clip(archive / TRAIN, sample_rate=RATE)) == 600 * RATE


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("second", [TRAIN, f"./{TRAIN}", TRAIN.replace("/", "\\")])
def test_a_duplicate_recording_is_refused(tmp_path, second):
    archive = tmp_path / "dev_fan.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for number, name in enumerate((TRAIN, second)):
            file.writestr(name, sound(number))
    assert " appears twice: recreate" in refusal(find_machines, tmp_path)


def test_a_missing_recording_is_refused(tmp_path):
    archive = pack(tmp_path / "dev_fan.zip", {TRAIN: sound()})
    for name in (TEST, "fan", "fan/attributes_00.csv"):
        text = refusal(read_clip, archive / name, sample_rate=RATE)
        assert text.startswith(f"{archive / name}: not in the archive")
    archive.unlink()
    assert "No such file" in refusal(read_clip, archive / TRAIN, sample_rate=RATE)


def test_an_archive_is_read_again_after_it_changes(tmp_path):
    archive = pack(tmp_path / "dev_fan.zip", {TRAIN: sound()})
    assert len(read_clip(archive / TRAIN, sample_rate=RATE)) == 4000
    pack(archive, {TEST: sound(), TRAIN: sound(n_samples=5000)})
    assert len(read_clip(archive / TRAIN, sample_rate=RATE)) == 5000


def test_odd_names_are_printable_in_messages(tmp_path):
    name = "fan/train/two\nlines \x1b[31mü.wav"
    archive = pack(tmp_path / "odd\n.zip", {name: b""})
    assert recordings_in(archive) == {tuple(name.split("/"))}
    text = refusal(read_clip, archive / name, sample_rate=RATE)
    expected = "the file is empty: remove or replace it"
    assert text == f"{printable(archive / name)}: {expected}"
