"""What is written for each seed and clip of a run."""

from dataclasses import replace

import numpy as np
import soundfile

from gammavae_jax.config import FeatureConfig
from gammavae_jax.evaluation.name_value_files import read_rows
from gammavae_jax.presets import preset
from gammavae_jax.runs.publication import _write_score_files, read_sound
from gammavae_jax.scoring.scored_clips import ScoredClips


def test_each_seed_has_its_own_scores_and_decisions(tmp_path):
    config = replace(preset("default"), score="mse", scores=("mse",), n_seeds=2)
    unknown, names = ("", ""), ("a.wav", "b.wav")
    scores, thresholds = np.array([[1.0, 4.0], [3.0, 2.0]]), np.array([2.5, 2.5])
    fan = ScoredClips(
        *("fan", "00", names, unknown, unknown),
        *({"mse": scores}, {"mse": thresholds}, {}, config.seeds),
    )
    _write_score_files(config, [fan], tmp_path)
    for seed, of_seed in zip(config.seeds, scores, strict=True):
        folder = tmp_path / "scores" / "mse" / f"seed{seed}"
        rows = read_rows(folder / "anomaly_score_fan_section_00_test.csv")
        assert [float(value) for (value,) in rows.values()] == of_seed.tolist()
        rows = read_rows(folder / "decision_result_fan_section_00_test.csv")
        assert [value == "1" for (value,) in rows.values()] == (of_seed > 2.5).tolist()


def test_the_sound_on_the_page_is_that_of_the_chosen_channel(tmp_path):
    path = tmp_path / "a.wav"
    samples = np.stack([np.zeros(4000), np.full(4000, 0.25)], 1)
    soundfile.write(path, samples, 16000, "PCM_16")
    sound = read_sound(path, FeatureConfig(channel=1))
    assert sound.waveform is not None
    np.testing.assert_array_equal(sound.waveform, samples[:, 1])
