"""The command, from a server to a folder that the main job reads."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support import broken_server
from support.challenge_archives import packed, publish

from gammavae_jax.cli.download import Download
from gammavae_jax.data.download.catalogue import find_archives
from gammavae_jax.data.download.folder_lock import LOCK_NAME
from gammavae_jax.data.machines import find_clips, find_machines, year_of_layout
from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.official import is_dcase2024_development_set

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def server():
    with broken_server.running() as server:
        yield server


@pytest.fixture
def out(tmp_path):
    return tmp_path / "data" / "dcase"


@pytest.fixture
def download(server, out):
    def run(year, *machines, parts=(), **options):
        given = {"out": out, "mirror": server.url, **options}
        return Download(year, tuple(machines), tuple(parts), **given).run()

    return run


@pytest.fixture
def fan(server):
    """The one archive that most tests load, published: its bytes."""
    (data,) = publish(server, find_archives(2023, ["fan"])).values()
    return data


def files_in(folder: Path) -> set[str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix() for path in paths}
    return names - {LOCK_NAME}


@pytest.mark.parametrize("year", range(2020, 2027))
def test_all_that_is_loaded_is_found_by_the_main_job(server, download, out, year):
    archives = find_archives(year)
    data = publish(server, archives)
    assert download(year) == 0
    paths = {archive: out / archive.folder / archive.name for archive in archives}
    assert {archive: paths[archive].read_bytes() for archive in archives} == data
    require_all(year, out)
    assert download(year, unpack=True) == 0
    for path in paths.values():
        path.unlink()
    require_all(year, out)


def require_all(year: int, out: Path):
    """Each part's folder is a data root of the part's machines and sections."""
    for part in ("dev", "eval"):
        folder = out / f"{part}_data"
        sections = {a.machine: a.sections for a in find_archives(year, (), [part])}
        assert find_machines(folder) == sorted(sections)
        found = {machine: find_clips(folder, machine) for machine in sections}
        for machine, files in found.items():
            assert tuple(file.section for file in files) == sections[machine]
            assert all(len(file.train) == 2 and file.test for file in files)
            assert all(bool(file.supplemental) == (year >= 2025) for file in files)
        told = year_of_layout([file for files in found.values() for file in files])
        assert told == (year if year < 2022 else None)


def test_the_command_it_tells_is_understood(fan, download, out, capsys):
    """The main job finds the recordings, and says what it would do with them."""
    assert download(2023, "fan") == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-2:] == [
        "next:",
        f"  python experiments/run.py --all-machines --data-root {out}/dev_data",
    ]
    program, *words = shlex.split(told[-1])
    assert program == "python"
    done = subprocess.run(
        [sys.executable, *words, "--dry-run"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "fan" in done.stdout


def test_what_is_there_is_not_asked_for_again(server, fan, download, capsys):
    download(2023, "fan")
    server.asked.clear()
    server.files.clear()
    assert download(2023, "fan") == 0
    assert not server.asked


def test_a_record_is_asked_for_once(server, download):
    publish(server, find_archives(2023))
    download(2023)
    records = [asked.path for asked in server.asked if "/api/" in asked.path]
    assert len(records) == len(set(records)) == 3
    assert len(server.asked_files) == 7 + 14


def test_checksums_are_zenodos_or_the_archives_own(server, fan, download, out, capsys):
    download(2023, "fan")
    assert "checked by its published checksum" in capsys.readouterr().err
    (out / "dev_data" / "dev_fan.zip").unlink()
    del server.files["/api/records/7882613"]
    download(2023, "fan")
    told = capsys.readouterr().err
    assert "gives no sizes and checksums of 7882613: the server answers 404" in told
    assert "checked by its length and its own checksums" in told


def test_without_zenodos_checksum_a_damaged_archive_is_refused(server, out, download):
    (archive,) = find_archives(2023, ["fan"])
    publish(server, [archive])
    del server.files[f"/api/records/{archive.record}"]
    server.files[archive.path] = server.files[archive.path].replace(b"PK", b"KP", 1)
    with pytest.raises(InputError, match=r"zip archive, 2 times"):
        download(2023, "fan")
    assert not files_in(out)


def test_one_archive_that_cannot_be_had_keeps_none_of_the_others_away(
    server, download, out, capsys
):
    archives = find_archives(2023, ["fan", "gearbox", "valve"])
    publish(server, archives)
    fan, gearbox, _ = (archive.path for archive in archives)
    del server.files[fan]
    wrong = packed({"gearbox/train/x.wav": b"wrong"})
    server.files[gearbox] = wrong.ljust(len(server.files[gearbox]))
    with pytest.raises(InputError, match=r"dev_gearbox\.zip: what came has the check"):
        download(2023, "fan", "gearbox", "valve", unpack=True)
    assert "error: dev_fan.zip: the server answers 404" in capsys.readouterr().err
    assert {name.split("/")[1] for name in files_in(out)} == {"dev_valve.zip", "valve"}


def test_a_list_shows_what_is_here_and_loads_nothing(server, download, out, capsys):
    archives = find_archives(2023, ["fan", "gearbox", "valve", "slider"])
    data = publish(server, archives)
    download(2023, "fan")
    download(2023, "valve", unpack=True)
    (out / "dev_data" / "dev_gearbox.zip.part").write_bytes(bytes(50))
    server.asked.clear()
    before = files_in(out)
    capsys.readouterr()
    assert download(2023, list=True, parts=["dev"], json=Path("-")) == 0
    printed = capsys.readouterr()
    tree = json.loads(printed.out)
    by_machine = {archive["machine"]: archive for archive in tree["archives"]}
    states = {machine: by_machine[machine]["state"] for machine in by_machine}
    assert states == {
        "bearing": "missing",
        "fan": "there",
        "gearbox": "begun",
        "slider": "missing",
        "ToyCar": "missing",
        "ToyTrain": "missing",
        "valve": "unpacked",
    }
    assert by_machine["gearbox"]["bytes"] == 50
    assert by_machine["slider"]["published_bytes"] == len(data[archives[2]])
    assert by_machine["ToyCar"]["published_md5"] is None
    assert tree["year"] == 2023
    assert tree["out"] == str(out)
    lines = {
        line.split()[1]: line for line in printed.err.splitlines() if "dev_" in line
    }
    assert lines["gearbox"].rstrip().endswith("begun (50 bytes)")
    assert "dev_slider.zip" in lines["slider"]
    assert files_in(out) == before
    assert not server.asked_files


def test_a_list_needs_no_network(download, out, capsys):
    assert download(2024, "fan", list=True, mirror="http://127.0.0.1:9") == 0
    printed = capsys.readouterr()
    assert "dev_fan.zip" in printed.out
    assert "the server cannot be reached" in printed.err
    assert not out.exists()


def test_the_folder_is_the_years_and_tells_its_set(tmp_path, monkeypatch, capsys):
    """The published table of 2024 is shown beside results from there alone."""
    monkeypatch.chdir(tmp_path)
    nowhere = {"mirror": "http://127.0.0.1:9", "json": Path("-"), "list": True}
    Download(2024, ("fan", "Scanner"), **nowhere).run()
    tree = json.loads(capsys.readouterr().out)
    folders = list(dict.fromkeys(Path(a["path"]).parent for a in tree["archives"]))
    assert folders == [Path(f"data/dcase2024/{part}_data") for part in ("dev", "eval")]
    assert [is_dcase2024_development_set(f, ["fan"]) for f in folders] == [True, False]


def test_json_tells_a_program_what_is_there_and_what_comes_next(
    fan, download, out, tmp_path
):
    download(2023, "fan", json=tmp_path / "told.json")
    tree = json.loads((tmp_path / "told.json").read_text())
    (archive,) = tree["archives"]
    assert archive["state"] == "there"
    assert archive["bytes"] == len(fan)
    assert Path(archive["path"]).read_bytes() == fan
    run = f"python experiments/run.py --all-machines --data-root {out}/dev_data"
    assert tree["next"] == [run]


def test_machines_without_test_clips_are_left_out_of_the_command(
    server, download, out, capsys
):
    publish(server, find_archives(2026, (), ["eval"]))
    missing = find_archives(2026, ["Sander"])[1]
    assert "test" in missing.name
    data = packed({"Sander/readme.txt": b"later"})
    server.files.pop(f"/api/records/{missing.record}")
    server.files[missing.path] = data
    download(2026, "Sander", "ToyDrone")
    told = capsys.readouterr().out
    assert "Sander cannot be trained on: no recordings in" in told
    assert "--machines ToyDrone --data-root" in told
    assert "no labels" in told


def test_an_unpacked_machine_needs_its_archives_no_more(server, download, out):
    publish(server, find_archives(2023, ["bandsaw"]))
    download(2023, "bandsaw")
    (out / "eval_data" / "eval_data_bandsaw_test.zip").unlink()
    download(2023, "bandsaw", unpack=True)  # which the other one needs again
    for path in out.rglob("*.zip"):
        path.unlink()
    server.asked.clear()
    assert download(2023, "bandsaw", unpack=True) == 0
    assert download(2023, "bandsaw") == 0
    assert not server.asked
    assert find_machines(out / "eval_data") == ["bandsaw"]


def test_what_was_unpacked_without_an_archive_of_today_is_unpacked_anew(
    server, download, out
):
    publish(server, find_archives(2023, ["bandsaw"]))
    download(2023, "bandsaw", unpack=True)
    for path in out.rglob("*.zip"):
        path.unlink()
    folder = out / "eval_data" / "bandsaw"
    (folder / ".unpacked").write_text("eval_data_bandsaw_train.zip\n")
    (folder / "test").rename(folder / "testing")
    assert download(2023, "bandsaw", unpack=True) == 0
    assert {path.name for path in folder.iterdir()} == {"train", "test", ".unpacked"}


def test_a_folder_of_somebody_else_is_refused_before_anything_is_loaded(
    server, fan, download, out
):
    (out / "dev_data" / "fan").mkdir(parents=True)
    with pytest.raises(InputError, match="was not unpacked by this command"):
        download(2023, "fan", unpack=True)
    assert not server.asked


def test_half_an_archive_of_other_means_is_refused(server, fan, download, out):
    path = out / "dev_data" / "dev_fan.zip"
    path.parent.mkdir(parents=True)
    path.write_bytes(fan[: len(fan) // 2])
    with pytest.raises(InputError, match="cannot be read as a zip archive"):
        download(2023, "fan", "gearbox")
    assert not server.asked
    assert path.read_bytes() == fan[: len(fan) // 2]


@pytest.mark.parametrize("unpack", [False, True])
def test_the_room_for_all_archives_is_asked_for_first(
    server, download, out, monkeypatch, unpack
):
    archives = find_archives(2023, ["fan", "gearbox"])
    need = sum(map(len, publish(server, archives).values())) * (2 if unpack else 1)

    def usage(_):
        return type("Usage", (), {"free": need - 1})

    monkeypatch.setattr("shutil.disk_usage", usage)
    with pytest.raises(InputError, match="make room, or name another --out"):
        download(2023, "fan", "gearbox", unpack=unpack)
    assert not server.asked_files
    assert not files_in(out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mirror": "file:///etc"}, "--mirror file:///etc is no address"),
        ({"mirror": "zenodo.org"}, "--mirror zenodo.org is no address"),
        ({"out": Path(__file__)}, "cannot be written"),
    ],
)
def test_what_cannot_be_used_is_refused(fan, download, options, message):
    with pytest.raises(InputError, match=message):
        download(2023, "fan", **options)
