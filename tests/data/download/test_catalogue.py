"""The list of the challenge's archives, and their published sizes and checksums."""

import json
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.broken_server import answer
from support.logs import quiet_log, refusal, text_of

from gammavae_jax.data.download.catalogue import (
    PARTS,
    find_archives,
    published_files,
    years,
)
from gammavae_jax.data.download.fetch import PublishedFile
from gammavae_jax.data.machines import issue_of

FOLDER = files("gammavae_jax.data.download")
TREE = json.loads(FOLDER.joinpath("dcase_datasets.json").read_text("utf-8"))
SETS = sorted(TREE["sections"])
YEARS = range(2020, 2027)


def test_each_year_has_a_dataset():
    assert years() == list(YEARS)
    assert SETS == sorted(TREE["archives"]) == [f"DCASE{year}T2" for year in YEARS]


@pytest.mark.parametrize("name", SETS)
def test_every_machine_has_the_archives_of_its_parts_and_no_other(name):
    """An evaluation set has one archive of training clips and one of test clips."""
    sections, archives = TREE["sections"][name], TREE["archives"][name]
    assert sections.keys() == archives.keys()
    for machine in sections:
        assert sections[machine].keys() == archives[machine].keys()
        for part, urls in archives[machine].items():
            assert part in PARTS
            assert all(f"_{machine}" in url for url in urls)
            kinds = [word for word in ("test", "train") for url in urls if word in url]
            assert kinds == ([] if part == "dev" else ["test", "train"])


@pytest.mark.parametrize("year", YEARS)
def test_every_archive_is_found_and_has_a_path_of_its_own(year):
    archives = find_archives(year)
    name = f"DCASE{year}T2"
    urls = {f"https://zenodo.org{archive.url_path}" for archive in archives}
    by_part = [urls for m in TREE["archives"][name].values() for urls in m.values()]
    assert urls == set().union(*by_part)
    paths = {(a.folder, a.name.lower()) for a in archives}
    assert len(paths) == len(archives)
    assert {archive.machine for archive in archives} == TREE["sections"][name].keys()


@pytest.mark.parametrize("year", YEARS)
def test_no_archive_replaces_another_one(year):
    bases = [(a.folder, issue_of(Path(a.name))[0]) for a in find_archives(year)]
    assert len(set(bases)) == len(bases)


def test_replaced_archives_are_listed_in_their_latest_issue():
    reissued = {
        a.name for year in YEARS for a in find_archives(year) if "_r2" in a.name
    }
    assert reissued == {
        "eval_data_3DPrinter_train_r2.zip",
        "eval_data_RoboticArm_train_r2.zip",
        "dev_ToyCar_r2.zip",
    }


def test_machines_and_parts_narrow_the_choice():
    def names(*arguments):
        return [archive.name for archive in find_archives(*arguments)]

    assert names(2023, ["fan"]) == ["dev_fan.zip"]
    halves = ("train", "test")
    assert names(2023, ["bandsaw"]) == [f"eval_data_bandsaw_{h}.zip" for h in halves]
    assert names(2020, ["fan"], ["eval"]) == [f"eval_data_{h}_fan.zip" for h in halves]
    assert len(names(2020)) == 3 * 6
    assert len(names(2026, (), ["dev"])) == 7
    assert len(names(2026, (), ["eval"])) == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2019,), "no dataset for 2019: choose a year from 2020 to 2026"),
        ((2023, ["fann"]), "unknown 2023 machine 'fann': did you mean 'fan'?"),
        ((2023, ["pump"]), "available: bandsaw, bearing, fan, "),
        ((2023, ["fan"], ["test"]), "unknown part 'test': use one of dev, eval"),
        (
            (2023, ["fan", "Vacuum"], ["dev"]),
            "the 2023 Vacuum data exists only in the part 'eval': "
            "add this part to --parts",
        ),
    ],
)
def test_an_unknown_choice_is_refused_with_the_known_ones(arguments, message):
    assert message in refusal(find_archives, *arguments)


ARCHIVES = find_archives(2023, ["fan", "gearbox", "valve"])
RECORD = f"/api/records/{ARCHIVES[0].record}"


@pytest.fixture
def waits(monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=waits.append))
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    return waits


@pytest.fixture
def read(server, waits):
    """Return the published files, given the body of the record, and what is printed."""

    def read(body: bytes, *faults):
        server.files[RECORD] = body
        server.record_faults.extend(faults)
        log = quiet_log()
        return published_files(ARCHIVES, server.url, log), text_of(log.console)

    return read


def test_a_record_gives_sizes_and_checksums(read):
    md5 = "0123456789abcdef" * 2
    files = [
        {"key": "dev_fan.zip", "size": 5, "checksum": f"md5:{md5}", "more": 1},
        {"key": "dev_gearbox.zip", "size": 6, "checksum": "sha256:00"},
        {"key": "dev_valve.zip", "size": 7},
        {"key": "dev_slider.zip", "size": 8},
    ]
    expected = [PublishedFile(5, md5), PublishedFile(6, None), PublishedFile(7, None)]
    published, printed = read(json.dumps({"files": files}).encode())
    assert published == dict(zip(ARCHIVES, expected, strict=True))
    assert not printed


BODIES = b"""
    [] {} {"files":3} {"files":[3]} {"files":[{"key":"a.zip"}]} <html>
    {"files":[{"key":"a.zip","size":"x"}]} {"files":[{"key":"a.zip","size":1e999}]}
""".split()
LONG_BODY = b'{"files": []' + b" " * (1 << 22) + b"}"


@pytest.mark.parametrize("body", [*BODIES, b"", b"\xff\xfe", b"[" * 100_000, LONG_BODY])
def test_a_record_in_an_unknown_format_is_reported(read, body):
    published, printed = read(body)
    assert not published
    assert "cannot get sizes and checksums from " in printed
    assert "the record has an unknown format" in printed


def test_a_busy_server_is_asked_three_times(read, server, waits):
    busy = answer(429, Retry_After="5")
    assert read(b'{"files": []}', busy, answer(500)) == ({}, "")
    assert waits == [5.0, 2.0]
    _, printed = read(b'{"files": []}', busy, busy, busy)
    assert "429 Too Many Requests" in printed
    assert len(server.requests) == 6


def test_a_server_that_asks_for_an_hour_is_not_waited_for(read, waits):
    _, printed = read(b'{"files": []}', answer(429, Retry_After="3600"))
    assert "429 Too Many Requests and asked for a retry after 3600" in printed
    assert not waits
