"""The table of clips, as a spreadsheet reads it."""

import csv
import io

from gammavae_jax.evaluation.csv_files import ClipRow, clips_csv

ROWS = [
    ClipRow(7, "mse", "fan", "00", "section_00_vel, 1.wav", 1.5, 0.25, 0),
    ClipRow(7, "mse", "fan", "00", 'a "b".wav', 0.1 + 0.2, None, 1),
]


def test_a_line_a_clip_under_a_header():
    lines = clips_csv(ROWS).split("\n")
    assert lines[0] == "seed,score,machine,section,clip,anomaly_score,p_value,decision"
    assert lines[1] == '7,mse,fan,00,"section_00_vel, 1.wav",1.5,0.25,0'
    assert len(lines) == 4
    assert lines[3] == ""


def test_names_and_numbers_come_back_as_they_were():
    first, second = csv.DictReader(io.StringIO(clips_csv(ROWS)))
    assert (first["clip"], second["clip"]) == (ROWS[0].clip, ROWS[1].clip)
    assert float(second["anomaly_score"]) == ROWS[1].anomaly_score
    assert float(first["p_value"]) == 0.25


def test_no_p_value_is_an_empty_cell():
    _, second = csv.DictReader(io.StringIO(clips_csv(ROWS)))
    assert second["p_value"] == ""


def test_no_clips_are_a_header_alone():
    assert clips_csv([]).count("\n") == 1
