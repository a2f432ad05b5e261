"""The folders and names of every year: found, parsed and used by a whole run."""

import csv
import json
from collections import Counter
from dataclasses import replace

import pytest
from support.challenge_files import evaluate_directory
from support.layouts import LAYOUTS, MORE_LAYOUTS, build
from support.logs import quiet_log, text_of

from gammavae_jax.config_json import override
from gammavae_jax.data.loading import Source, find_all
from gammavae_jax.data.machines import find_clips, find_machines, year_of_layout
from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.official import official_score
from gammavae_jax.presets import preset
from gammavae_jax.runs.folder import RunFolder
from gammavae_jax.runs.run import choose_year, describe, run

ALL_LAYOUTS = LAYOUTS | MORE_LAYOUTS
# Compilation dominates the time, so these layouts share one run. In 2020 no machine has
# target clips, which a run must also handle.
SHARED = tuple(name for name in LAYOUTS if name != "2020")
SCORES = "scores/mse/seed13711"
SMALLEST = override(
    preset("autoencoder"),
    ["model.hidden=[8]", "model.n_latent=2", "train.batch_size=32", "train.epochs=1"],
)


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    """Return a layout's data root, built on first use."""
    roots = {}

    def get(name):
        if name not in roots:
            roots[name] = build(ALL_LAYOUTS[name], tmp_path_factory.mktemp("data"))
        return roots[name]

    return get


@pytest.fixture(scope="module")
def run_2020(tmp_path_factory):
    """Return the run directory for the 2020 layout."""
    return finished(["2020"], SMALLEST, tmp_path_factory)


@pytest.fixture(scope="module")
def shared_run(tmp_path_factory):
    """Return the directory of a run on the machines of all other layouts."""
    return finished(SHARED, SMALLEST, tmp_path_factory)


@pytest.fixture
def run_of(request):
    """Return the directory of the run that includes a layout."""
    return lambda name: request.getfixturevalue(
        "run_2020" if name == "2020" else "shared_run"
    )


def finished(names, config, tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for name in names:
        build(replace(LAYOUTS[name], folder=".", data_root="."), root)
    out = tmp_path_factory.mktemp("runs") / "out"
    run(config, source_of(root), RunFolder(out), None, quiet_log())
    return out


def all_files(root):
    return [files for m in find_machines(root) for files in find_clips(root, m)]


def source_of(root):
    return Source(root, tuple(find_machines(root)))


def described(source):
    log = quiet_log()
    describe(SMALLEST, source, log)
    return text_of(log.output)


def kinds(files):
    """Return the number of clips of each kind, according to their parsed names."""
    return Counter(
        (split, clip.name.domain, clip.name.label)
        for split, clips in (("train", files.train), ("test", files.test))
        for clip in clips
    )


@pytest.mark.parametrize("name", ALL_LAYOUTS)
def test_every_clip_is_found_once_and_parsed_correctly(data_root, name):
    found = {
        (files.machine, files.section): dict(kinds(files))
        for files in all_files(data_root(name))
    }
    assert found == ALL_LAYOUTS[name].units


@pytest.mark.parametrize("name", ALL_LAYOUTS)
def test_a_section_has_its_own_clips_sorted_by_name(data_root, name):
    for files in all_files(data_root(name)):
        for clips in (files.train, files.test):
            names = [clip.path.name for clip in clips]
            assert names == sorted(set(names))
            assert all(f"_{files.section}_" in name for name in names)


def scored_clips(folder, machine, section):
    path = folder / f"anomaly_score_{machine}_section_{section}_test.csv"
    with path.open() as file:
        return [line[0] for line in csv.reader(file)]


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_run_scores_all_test_clips(run_of, data_root, name):
    root = data_root(name)
    folder = run_of(name) / SCORES
    for machine in LAYOUTS[name].machines:
        found = find_clips(root, machine)
        assert {path.name for path in folder.glob(f"*_{machine}_*")} == {
            f"{kind}_{files.name}_test.csv"
            for kind in ("anomaly_score", "decision_result")
            for files in found
        }
        for files in found:
            names = [clip.path.name for clip in files.test]
            assert scored_clips(folder, machine, files.section) == names


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_run_evaluates_the_labelled_machines(run_of, name):
    layout = LAYOUTS[name]
    with (run_of(name) / "results.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["machine"] in layout.machines]
    expected = sorted(layout.units) * len(SMALLEST.scores) if layout.is_labelled else []
    assert [(row["machine"], row["section"]) for row in rows] == expected
    for row in rows:
        domains = {d for _, d, _ in layout.units[row["machine"], row["section"]]}
        assert row["auc_source"]
        assert bool(row["auc_target"]) == ("target" in domains)


@pytest.mark.parametrize("year", [2020, 2021])
def test_a_year_with_its_own_metrics_is_recognised_by_its_layout(
    year, run_2020, tmp_path_factory
):
    if year == 2020:
        out = run_2020
    else:
        three = override(SMALLEST, ["n_seeds=3", 'scores=["mse"]'])
        out = finished([str(year)], three, tmp_path_factory)
    folders = sorted((out / "scores" / "mse").iterdir())
    expected = [evaluate_directory(folder, year=year) for folder in folders]
    by_2022 = [evaluate_directory(folder) for folder in folders]
    with (out / "results.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["score"] == "mse"]
    assert [row["pauc"] for row in rows] == [str(r.pauc) for e in expected for r in e]
    aucs = [str(row.auc_source) for rows in expected for row in rows]
    assert [row["auc_source"] for row in rows] == aucs
    summary = json.loads((out / "summary.json").read_text())
    assert summary["year"] == year
    assert f"follow the rules of {year}." in (out / "report.html").read_text()
    found = summary["official_score"]["mse"]["per_seed"]
    assert found == [official_score(rows, year) for rows in expected]
    # Otherwise the test would prove nothing.
    assert found != [official_score(rows) for rows in by_2022]
    if year == 2021:
        assert [r.auc_source for e in expected for r in e] != [
            r.auc_source for e in by_2022 for r in e
        ]


@pytest.mark.parametrize("name", ALL_LAYOUTS)
def test_the_year_of_every_layout_is_recognised_or_unknown(data_root, name):
    expected = {"2020": 2020, "2021": 2021}.get(name[:4])
    if name == "2021, only merged":
        expected = None  # its layout is that of 2022
    assert year_of_layout(all_files(data_root(name))) == expected


def test_an_explicit_year_overrides_the_layout(data_root):
    log = quiet_log()
    files = find_all(source_of(data_root("2021")))
    for year, expected in ((None, 2021), (2020, 2020), (2023, 2023)):
        assert choose_year(year, files, log) == expected
    assert len(log.notes) == 2


def test_the_far_channel_gives_different_scores(shared_run, tmp_path_factory):
    config = override(SMALLEST, ["features.channel=1", 'scores=["mse"]'])
    far = finished(["2026"], config, tmp_path_factory)
    file = f"{SCORES}/anomaly_score_ToyCarEmu_section_00_test.csv"
    near_lines, far_lines = (
        (out / file).read_text().split() for out in (shared_run, far)
    )
    assert len(near_lines) == len(far_lines) == 8
    assert not set(near_lines) & set(far_lines)


def test_renamed_clips_are_scored_under_their_labelled_names(shared_run):
    names = scored_clips(shared_run / SCORES, "bandsaw", "00")
    assert len(names) == 8
    assert names[0] == "section_00_source_test_anomaly_0000_vel_8.wav"


def test_supplemental_clips_are_listed_but_not_used_by_default(data_root):
    root = data_root("2025")
    (train,), (slider,) = (find_clips(root, m) for m in ("ToyTrain", "slider"))
    names = [clip.path.name for clip in train.supplemental]
    assert names == [f"section_00_machine_000{i}_.wav" for i in range(3)]
    assert slider.supplemental == ()
    text = described(source_of(root))
    both = "_section_00: 11 training clips, 8 test clips"
    assert f"ToyTrain{both}, 3 supplemental clips (not used)\n" in text
    assert f"slider{both}\n" in text


def test_supplemental_clips_are_trained_on_if_requested(data_root):
    source = source_of(data_root("2025"))._replace(with_supplemental=True)
    found = {files.machine: files for files in find_all(source)}
    assert len(found["ToyTrain"].train) == 11 + 3
    assert len(found["slider"].train) == 11
    text = described(source)
    assert "ToyTrain_section_00: 14 training clips, 8 test clips\n" in text


def test_requesting_missing_supplemental_clips_is_an_error(data_root):
    source = source_of(data_root("2023"))._replace(with_supplemental=True)
    with pytest.raises(InputError, match="omit --with-supplemental"):
        find_all(source)
