"""The ground truth of each year's evaluators and lists."""

import itertools

import pytest
from support.challenge_files import evaluate_directory

from gammavae_jax.errors import InputError
from gammavae_jax.evaluation.ground_truth import read_truth
from gammavae_jax.evaluation.name_value_files import year_of_files

DOMAINS, LABELS = ("source", "target"), ("normal", "anomaly")
# Anonymous names, in an order that does not reveal the labels.
KINDS = [
    (domain, label, index)
    for index in range(3)
    for domain, label in itertools.product(DOMAINS, LABELS)
]


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def score_of(label, k):
    """Return a score; most anomalies score above every normal clip."""
    return 0.5 if (label == "anomaly" and k < 2) else (label == "anomaly") * 10.0 + k


def write_2021(root, machine="fan", section="03"):
    """Write ground truth and scores with a file for each domain, as in 2021."""
    for domain in DOMAINS:
        clips = [(label, k) for k in range(4) for label in LABELS]
        names = [
            f"section_{section}_{domain}_test_{n:04}.wav" for n in range(len(clips))
        ]
        tail = f"{machine}_section_{section}_{domain}_test.csv"
        rows = list(zip(names, clips, strict=True))
        write(
            root / "ground_truth_data" / f"ground_truth_{tail}",
            (f"{name},{int(label == 'anomaly')}" for name, (label, _) in rows),
        )
        for kind, value in (
            ("anomaly_score", score_of),
            ("decision_result", lambda label, k: int(score_of(label, k) > 3)),
        ):
            write(
                root / "scores" / f"{kind}_{tail}",
                (f"{name},{value(*clip)}" for name, clip in reversed(rows)),
            )


def test_a_section_of_2021_has_a_file_for_each_domain(tmp_path):
    write_2021(tmp_path)
    (row,) = evaluate_directory(tmp_path / "scores", tmp_path, year=2021)
    assert (row.machine, row.section) == ("fan", "03")
    # Two of a domain's anomalies score above all four normal clips, two above one.
    assert row.auc_source == row.auc_target == pytest.approx((2 * 1 + 2 * 0.25) / 4)
    assert row.recall_source == 0.5


def test_scores_of_2021_may_be_in_one_file(tmp_path):
    write_2021(tmp_path)
    expected = evaluate_directory(tmp_path / "scores", tmp_path, year=2021)
    for kind in ("anomaly_score", "decision_result"):
        parts = sorted((tmp_path / "scores").glob(f"{kind}_*"))
        text = "".join(part.read_text() for part in parts)
        for part in parts:
            part.unlink()
        (tmp_path / "scores" / f"{kind}_fan_section_03_test.csv").write_text(text)
    assert evaluate_directory(tmp_path / "scores", tmp_path, year=2021) == expected


def add_a_file_of_both(scores):
    (scores / "anomaly_score_fan_section_03_test.csv").write_text("a.wav,1\n")


def add_a_source_clip_to_the_targets(scores):
    path = scores / "anomaly_score_fan_section_03_target_test.csv"
    path.write_text(path.read_text() + "section_03_source_test_0000.wav,1\n")


def remove_the_targets(scores):
    for path in scores.glob("*_target_test.csv"):
        path.unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (add_a_file_of_both, "for the same section: keep only one"),
        (add_a_source_clip_to_the_targets, "'section_03_source_test_0000' is listed 2"),
        (remove_the_targets, "'section_03_target_test_0000' is missing"),
    ],
)
def test_files_that_do_not_have_each_clip_of_both_domains_once_are_refused(
    tmp_path, change, message
):
    write_2021(tmp_path)
    change(tmp_path / "scores")
    with pytest.raises(InputError, match=message):
        evaluate_directory(tmp_path / "scores", tmp_path)


def later_name(section, domain, label, index):
    return f"section_{section}_{domain}_test_{label}_{index:04}_vel_{index}.wav"


@pytest.fixture(params=["2022", "list"])
def renamed(request, tmp_path):
    """Write ground truth with later names, in tables as in 2022 or in a list."""
    first = [f"section_04_{k:04}.wav" for k in range(len(KINDS))]
    later = [later_name("04", *kind) for kind in KINDS]
    if request.param == "list":
        lines = map(",".join, zip(first, later, strict=True))
        write(tmp_path / "eval_data_list_2023.csv", ["fan", *lines])
    else:
        tail = "ground_truth_fan_section_04_test.csv"
        for folder, values in (
            ("ground_truth_data", [label == "anomaly" for _, label, _ in KINDS]),
            ("ground_truth_domain", [domain == "target" for domain, _, _ in KINDS]),
        ):
            rows = zip(first, map(int, values), strict=True)
            write(tmp_path / folder / tail, (f"{name},{v}" for name, v in rows))
        header = "file_name,d1p,d1v,d2p,d2v,file_name_with_full_attributes"
        rows = enumerate(zip(first, later, strict=True))
        # Clips may have fewer attributes than the header.
        lines = [
            f"fan/test/{a},vel,1,{'noise,2,' * (k % 2)}fan/test/{b}"
            for k, (a, b) in rows
        ]
        write(
            tmp_path / "ground_truth_attributes" / "fan" / "attributes_04.csv",
            [header, *lines],
        )
    return tmp_path, first, later


def test_clips_may_use_their_first_or_their_later_names(renamed):
    root, first, later = renamed
    for name, names in (("first", first), ("later", later)):
        scores = [score_of(label, k) for _, label, k in KINDS]
        lines = [f"{n},{s}" for n, s in zip(names, scores, strict=True)]
        write(root / name / "anomaly_score_fan_section_04_test.csv", reversed(lines))
    (by_first,), (by_later,) = (
        evaluate_directory(root / name, root) for name in ("first", "later")
    )
    assert by_first[:8] == by_later[:8]
    assert by_first.auc_source < 1
    truth = read_truth(root)["fan", "04"]
    assert [truth.is_anomaly[n.removesuffix(".wav")] for n in first] == [
        label == "anomaly" for _, label, _ in KINDS
    ]
    assert [truth.is_target[n.removesuffix(".wav")] for n in first] == [
        domain == "target" for domain, _, _ in KINDS
    ]


def test_the_list_of_2020_has_labels_and_ids(tmp_path):
    path = tmp_path / "eval_data_list.csv"
    write(
        path,
        [
            "fan",
            "id_01_00000000.wav,normal_id_01_00000098.wav,0",
            "id_01_00000001.wav,anomaly_id_01_00000064.wav,1",
            "id_03_00000000.wav,anomaly_id_03_00000002.wav,1",
            "id_03_00000001.wav,normal_id_03_00000002.wav,0",
        ],
    )
    for section, scores in (("01", (1.0, 2.0)), ("03", (3.0, 4.0))):
        lines = [f"id_{section}_{k:08}.wav,{s}" for k, s in enumerate(scores)]
        write(tmp_path / "scores" / f"anomaly_score_fan_id_{section}.csv", lines)
    for given in (path, tmp_path):
        rows = evaluate_directory(tmp_path / "scores", given, year=2020)
        assert [(row.section, row.auc) for row in rows] == [("01", 1.0), ("03", 0.0)]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a.wav,section_00_source_test_normal_0000.wav"], "listed before any machine"),
        (["fan", "a.wav,b.wav"], "'b' lacks a label or a domain"),
        (
            ["fan", "a.wav"],
            "the line 'a.wav', which should be a machine's name, or a clip",
        ),
        (
            ["fan", "a.wav,normal_id_01_00000000.wav,0,0"],
            "which should be a machine's name, or a clip's name",
        ),
        (
            ["fan", "normal_id_01_1.wav,anomaly_id_01_00000000.wav,1"],
            "'normal_id_01_1' contradicts the clip's label or domain",
        ),
        (["fan", *["a.wav,normal_id_01_00000000.wav,0"] * 2], "'a' is listed 2 times"),
        (["fan", "a.wav,normal_id_01_00000000.wav,1"], "is '1': use 0 for a normal"),
        (
            ["fan", *(f"{n}.wav,normal_id_01_00000000.wav,0" for n in "ab")],
            "'a' and 'b' both have the new name 'normal_id_01_00000000'",
        ),
        (
            [
                "fan",
                "anomaly_id_01_00000000.wav,normal_id_01_00000000.wav,0",
                "x.wav,anomaly_id_01_00000000.wav,1",
            ],
            "both have the new name 'anomaly_id_01_00000000'",
        ),
        ([], "is empty"),
    ],
)
def test_a_malformed_list_is_refused(tmp_path, lines, message):
    write(tmp_path / "eval_data_list_2021.csv", lines)
    with pytest.raises(InputError, match=message):
        read_truth(tmp_path)


@pytest.mark.parametrize(
    ("years", "message"),
    [
        ([2020, 2021], "2 eval_data_list files: pass the file of the right year"),
        ([2022], "wrong labels or domains in 881 lines"),
    ],
)
def test_several_lists_and_the_wrong_list_of_2022_are_refused(tmp_path, years, message):
    for year in years:
        write(tmp_path / f"eval_data_list_{year}.csv", ["fan"])
    with pytest.raises(InputError, match=message):
        read_truth(tmp_path)


def test_later_names_that_contradict_the_labels_are_not_used(tmp_path):
    """Two swapped later names would assign every score to the wrong clip."""
    tail = "ground_truth_fan_section_00_test.csv"
    write(tmp_path / "ground_truth_data" / tail, ["a.wav,0", "b.wav,1"])
    write(tmp_path / "ground_truth_domain" / tail, ["a.wav,0", "b.wav,0"])
    names = [f"section_00_source_test_{label}_0000" for label in reversed(LABELS)]
    write(
        tmp_path / "ground_truth_attributes" / tail,
        [f"{clip}.wav,{name}" for clip, name in zip("ab", names, strict=True)],
    )
    truth = read_truth(tmp_path)["fan", "00"]
    assert truth.is_anomaly == {"a": False, "b": True}
    assert truth.clip_of == {"a": "a", "b": "b"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a.wav"], "'a.wav' has no new name"),
        (["a.wav,x_1.wav", "a.wav,x_2.wav"], "'a' is listed 2 times"),
    ],
)
def test_malformed_tables_of_later_names_are_refused(tmp_path, lines, message):
    tail = "ground_truth_fan_section_04_test.csv"
    write(tmp_path / "ground_truth_data" / tail, ["a.wav,0", "b.wav,1"])
    table = tmp_path / "ground_truth_attributes" / "fan" / "attributes_04.csv"
    write(table, ["file_name,file_name_with_attributes", *lines])
    with pytest.raises(InputError, match=message):
        read_truth(tmp_path)


def test_a_clip_in_the_ground_truth_of_both_domains_is_refused(tmp_path):
    for domain in DOMAINS:
        tail = f"ground_truth_fan_section_03_{domain}_test.csv"
        write(tmp_path / "ground_truth_data" / tail, ["a.wav,0", "b.wav,1"])
        write(tmp_path / "ground_truth_domain" / tail, ["a.wav,0", "b.wav,0"])
    with pytest.raises(InputError, match="'a' is listed 2 times"):
        read_truth(tmp_path)


def test_a_first_name_that_contradicts_its_label_is_refused(tmp_path):
    tail = "ground_truth_fan_section_00_test.csv"
    names = [f"section_00_source_test_{label}_0000.wav" for label in LABELS]
    write(
        tmp_path / "ground_truth_data" / tail,
        [f"{name},{value}" for name, value in zip(names, (1, 0), strict=True)],
    )
    with pytest.raises(InputError, match="contradicts the clip's label or domain"):
        read_truth(tmp_path)


def test_a_clip_of_another_section_is_refused(tmp_path):
    names = [f"section_01_source_test_{label}_0000.wav,1" for label in LABELS]
    write(tmp_path / "anomaly_score_fan_section_00_test.csv", names)
    with pytest.raises(InputError, match="normal_0000' belongs to another section"):
        evaluate_directory(tmp_path)


def test_the_year_is_inferred_from_file_names(tmp_path):
    for year, tails in {
        2020: ["fan_id_01.csv", "fan_id_03.csv"],
        2021: ["fan_section_03_source_test.csv", "fan_section_03_target_test.csv"],
        None: ["fan_section_03_test.csv", "pump_section_03_source_test.csv"],
    }.items():
        folder = tmp_path / str(year)
        for tail in tails:
            write(folder / f"anomaly_score_{tail}", ["a.wav,1"])
        assert year_of_files(folder) == year
