"""The command, from a server to a folder that the main job reads."""

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.broken_server import silent_after
from support.challenge_archives import packed, publish
from support.processes import python

from gammavae_jax.cli.download import Download
from gammavae_jax.data.download.catalogue import LOCK_NAME, find_archives
from gammavae_jax.data.machines import find_clips, find_machines, year_of_layout
from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.official import is_dcase2024_development_set


@pytest.fixture
def out(tmp_path):
    return tmp_path / "data" / "dcase"


@pytest.fixture
def download(server, out, monkeypatch):
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=lambda _: None))

    def run(year, *machines, parts=(), **options):
        options = {"out": out, "mirror": server.url, **options}
        return Download(year, tuple(machines), tuple(parts), **options).run()

    return run


@pytest.fixture
def fan(server):
    """The bytes of the one archive that most tests download."""
    (data,) = publish(server, find_archives(2023, ["fan"])).values()
    return data


def files_in(folder: Path) -> set[str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix() for path in paths}
    return names - {LOCK_NAME}


@pytest.mark.parametrize("year", range(2020, 2027))
def test_the_main_job_finds_every_recording_of_a_download(server, download, out, year):
    archives = find_archives(year)
    data = publish(server, archives)
    assert download(year) == 0
    paths = {archive: out / archive.folder / archive.name for archive in archives}
    assert {archive: paths[archive].read_bytes() for archive in archives} == data
    for part in ("dev", "eval"):
        folder = out / f"{part}_data"
        sections = {a.machine: a.sections for a in archives if a.part == part}
        assert find_machines(folder) == sorted(sections)
        clips = {machine: find_clips(folder, machine) for machine in sections}
        for machine, files in clips.items():
            assert tuple(file.section for file in files) == sections[machine]
            assert all(len(file.train) == 2 and file.test for file in files)
            assert all(bool(file.supplemental) == (year >= 2025) for file in files)
        detected = year_of_layout([file for files in clips.values() for file in files])
        assert detected == (year if year < 2022 else None)


def test_each_record_and_archive_is_requested_once(server, download):
    publish(server, find_archives(2023))
    assert download(2023) == download(2023) == 0
    paths = [request.path for request in server.requests]
    assert len(paths) == len(set(paths)) == 3 + 7 + 14


def test_the_printed_command_finds_the_recordings(fan, download, out, capsys):
    assert download(2023, "fan", json=out.parent / "list.json") == 0
    command = f"python experiments/run.py --all-machines --data-root {out}/dev_data"
    assert capsys.readouterr().out.splitlines()[-2:] == ["next:", f"  {command}"]
    tree = json.loads((out.parent / "list.json").read_text())
    assert tree["next"] == [command]
    (archive,) = tree["archives"]
    assert archive["state"] == "complete"
    assert archive["bytes"] == len(fan)
    assert Path(archive["path"]).read_bytes() == fan
    assert "fan" in python(*shlex.split(command)[1:], "--dry-run").stdout


def test_checksums_are_those_of_zenodo_or_else_of_the_archive(
    server, fan, download, out, capsys
):
    download(2023, "fan")
    assert "verified against its published checksum" in capsys.readouterr().err
    (out / "dev_data" / "dev_fan.zip").unlink()
    del server.files["/api/records/7882613"]
    download(2023, "fan")
    printed = capsys.readouterr().err
    assert "cannot get sizes and checksums from " in printed
    assert "verified against its internal checksums" in printed


def test_an_unavailable_archive_does_not_stop_the_others(server, download, out, capsys):
    archives = find_archives(2023, ["fan", "gearbox", "valve"])
    publish(server, archives)
    fan, gearbox, _ = (archive.url_path for archive in archives)
    del server.files[fan]
    wrong = packed({"gearbox/train/x.wav": b"wrong"})
    server.files[gearbox] = wrong.ljust(len(server.files[gearbox]))
    with pytest.raises(InputError, match=r"dev_gearbox\.zip: the checksum is"):
        download(2023, "fan", "gearbox", "valve")
    assert "error: dev_fan.zip: the server answered 404" in capsys.readouterr().err
    assert "dev_data/dev_valve.zip" in files_in(out)
    assert not {"dev_data/dev_fan.zip", "dev_data/dev_gearbox.zip"} & files_in(out)


def test_a_list_shows_what_is_on_disk_and_downloads_nothing(
    server, download, out, capsys
):
    archives = find_archives(2023, ["fan", "gearbox", "slider"])
    data = publish(server, archives)
    download(2023, "fan")
    (out / "dev_data" / "dev_gearbox.zip.part").write_bytes(bytes(50))
    server.requests.clear()
    before = files_in(out)
    capsys.readouterr()
    assert download(2023, list=True, parts=["dev"], json=Path("-")) == 0
    printed = capsys.readouterr()
    tree = json.loads(printed.out)
    rows = {row["machine"]: row for row in tree["archives"]}
    states = {machine: row["state"] for machine, row in rows.items()}
    others = ["bearing", "slider", "ToyCar", "ToyTrain", "valve"]
    expected = {"fan": "complete", "gearbox": "partial"}
    assert states == expected | dict.fromkeys(others, "missing")
    assert rows["gearbox"]["bytes"] == 50
    assert rows["slider"]["published_bytes"] == len(data[archives[2]])
    assert rows["ToyCar"]["published_md5"] is None
    assert (tree["year"], tree["out"]) == (2023, str(out))
    lines = [line.rstrip() for line in printed.err.splitlines() if "dev_" in line]
    assert any("gearbox" in line and line.endswith("(50 bytes)") for line in lines)
    assert files_in(out) == before
    assert not server.file_requests


def test_a_list_needs_no_network_and_names_the_default_folders(
    tmp_path, monkeypatch, capsys
):
    """Published results of 2024 are shown only beside results from the first one."""
    monkeypatch.chdir(tmp_path)
    options = {"mirror": "http://127.0.0.1:9", "json": Path("-"), "list": True}
    assert Download(2024, ("fan", "Scanner"), **options).run() == 0
    printed = capsys.readouterr()
    assert "the server cannot be reached" in printed.err
    rows = json.loads(printed.out)["archives"]
    folders = list(dict.fromkeys(Path(row["path"]).parent for row in rows))
    assert folders == [Path(f"data/dcase2024/{part}_data") for part in ("dev", "eval")]
    assert [is_dcase2024_development_set(f, ["fan"]) for f in folders] == [True, False]
    assert not list(tmp_path.iterdir())


def test_a_machine_without_test_clips_is_left_out_of_the_command(
    server, download, capsys
):
    publish(server, find_archives(2026, (), ["eval"]))
    archive = find_archives(2026, ["Sander"])[1]
    assert "test" in archive.name
    del server.files[f"/api/records/{archive.record}"]
    server.files[archive.url_path] = packed({"Sander/readme.txt": b"later"})
    download(2026, "Sander", "ToyDrone")
    printed = capsys.readouterr().out
    assert "Sander cannot be used for training: no recordings in" in printed
    assert "--machines ToyDrone --data-root" in printed
    assert "no labels" in printed


def test_a_truncated_archive_from_elsewhere_is_refused(server, fan, download, out):
    path = out / "dev_data" / "dev_fan.zip"
    path.parent.mkdir(parents=True)
    path.write_bytes(fan[: len(fan) // 2])
    with pytest.raises(InputError, match="cannot be read as a zip archive"):
        download(2023, "fan", "gearbox")
    assert not server.requests
    assert path.read_bytes() == fan[: len(fan) // 2]


def test_too_little_room_for_all_archives_is_refused_before_the_first(
    server, download, out, monkeypatch, capsys
):
    archives = find_archives(2023, ["fan", "gearbox"])
    free = sum(map(len, publish(server, archives).values())) - 1
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(InputError, match=r"dcase' cannot be written \(No space left"):
        download(2023, "fan", "gearbox")
    assert "archives to download into" in capsys.readouterr().err
    assert not server.file_requests
    assert not files_in(out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mirror": "file:///etc"}, "--mirror file:///etc is not a URL"),
        ({"mirror": "zenodo.org"}, "--mirror zenodo.org is not a URL"),
        ({"out": Path(__file__)}, "cannot be written"),
    ],
)
def test_an_unusable_option_is_refused(fan, download, options, message):
    with pytest.raises(InputError, match=message):
        download(2023, "fan", **options)


# A process that a shell starts in the background ignores interrupts; so would a child.
PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from gammavae_jax.cli.main import main
sys.exit(main(["download", "2023", "--machines", "fan", *sys.argv[1:]]))
"""


@pytest.fixture
def process(server, fan, out):
    """A process that has received 100 bytes of an archive and waits for more."""
    server.faults.append(silent_after(100))
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "--out", out, "--mirror", server.url],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        part = out / "dev_data" / "dev_fan.zip.part"
        deadline = time.monotonic() + 30
        while not (part.exists() and part.stat().st_size == 100):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        yield process
        process.kill()


def test_a_second_download_into_the_same_folder_is_refused(server, process, download):
    server.requests.clear()
    with pytest.raises(InputError, match="another process is downloading into"):
        download(2023, "fan")
    assert not server.requests


@pytest.mark.parametrize(
    ("number", "status", "last_line"),
    [(2, 130, "interrupted"), (15, 143, "terminated"), (9, -9, None)],
    ids=["SIGINT", "SIGTERM", "SIGKILL"],
)
def test_a_download_that_a_signal_stopped_is_resumed(
    server, fan, download, out, process, number, status, last_line
):
    process.send_signal(number)
    _, printed = process.communicate(timeout=30)
    assert process.returncode == status
    assert last_line is None or printed.splitlines()[-1] == last_line
    assert (out / "dev_data" / "dev_fan.zip.part").read_bytes() == fan[:100]
    assert download(2023, "fan") == 0
    assert server.file_requests[-1].range == "bytes=100-"
    assert files_in(out) == {"dev_data/dev_fan.zip"}
    assert (out / "dev_data" / "dev_fan.zip").read_bytes() == fan
