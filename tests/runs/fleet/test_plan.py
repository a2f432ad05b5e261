"""Waves are planned from recordings' headers, names and sizes, and from memory."""

import numpy as np
import pytest
import soundfile
from support.logs import quiet_log
from support.packing import pack_machines

from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.arrays import Capacity
from gammavae_jax.data.clips import clip_spectrogram
from gammavae_jax.data.features import mel_filterbank
from gammavae_jax.data.loading import Source, find_in_turn
from gammavae_jax.data.synthetic.dataset import SyntheticSize, make_synthetic
from gammavae_jax.data.synthetic.machines import MACHINES
from gammavae_jax.errors import InputError
from gammavae_jax.runs.fleet import plan as plans
from gammavae_jax.runs.fleet import survey as surveys
from gammavae_jax.runs.fleet.plan import (
    all_fit,
    available_memory,
    free_memory,
    plan_waves,
    read_plan,
    wave_size_that_fits,
    write_plan,
)
from gammavae_jax.runs.fleet.survey import MachineSize, clip_frames, measure_fleet

FEATURES = FeatureConfig()
KINDS = [*sorted(MACHINES), "ToyCar", "ToyTrain"]
NAMES = tuple(f"{kind}{number:04d}" for number, kind in enumerate(KINDS))
SIZES = dict.fromkeys(NAMES, SyntheticSize(3, 2, 1, (0.2, 0.4)))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    return make_synthetic(tmp_path_factory.mktemp("fleet") / "set", SIZES)


def survey(root, **options):
    names = tuple(sorted(NAMES))
    source = Source(root, names, **options)
    return measure_fleet(source, FEATURES, None, quiet_log())


def size(name, clips=10, frames=20):
    capacity = Capacity(clips, frames, clips * (frames - 4))
    return MachineSize(name, 1, capacity, capacity, name)


def test_numbered_machines_of_a_type_have_different_sounds(fleet):
    first, other = (
        sorted((fleet / name / "train").iterdir()) for name in (NAMES[0], NAMES[7])
    )
    assert [p.name for p in first] == [p.name for p in other]
    assert first[0].read_bytes() != other[0].read_bytes()


def test_a_survey_gives_the_capacity_that_arrays_need(fleet):
    found = survey(fleet)
    source = Source(fleet, tuple(m.machine for m in found.machines))
    for machine, (unit,) in zip(found.machines, find_in_turn(source), strict=True):
        assert machine.machine == unit.machine
        for capacity, files in ((machine.train, unit.train), (machine.test, unit.test)):
            bank = mel_filterbank(FEATURES)
            lengths = [
                len(clip_spectrogram(f.path, bank, FEATURES).log_mel) for f in files
            ]
            windows = sum(n - FEATURES.n_context + 1 for n in lengths)
            assert capacity == (len(lengths), max(lengths), windows)


def test_a_survey_of_archives_equals_that_of_folders(fleet, tmp_path):
    assert survey(pack_machines(fleet, tmp_path / "packed")) == survey(fleet)


def test_a_header_that_claims_too_much_for_its_bytes_is_not_trusted(
    tmp_path, monkeypatch
):
    """Silence compresses so well that it has to be decoded."""
    decoded, whole = [], surveys.clip_waveform

    def counted(*arguments):
        decoded.append(1)
        return whole(*arguments)

    monkeypatch.setattr(surveys, "clip_waveform", counted)
    noise = np.random.default_rng(0).normal(size=160000) * 0.1
    for name, sound, n_decoded in (
        ("noise.wav", noise, 0),
        ("noise.flac", noise, 0),
        ("silence.flac", np.zeros(2_000_000), 1),
    ):
        decoded.clear()
        soundfile.write(tmp_path / name, sound, 16000)
        assert clip_frames(tmp_path / name, FEATURES) == 1 + len(sound) // 512
        assert len(decoded) == n_decoded, name


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p.write_bytes(b"no sound"), "cannot be read as audio"),
        (lambda p: p.write_bytes(p.read_bytes()[:4000]), "truncated"),
        (lambda p: soundfile.write(p, np.zeros(9000), 8000), "the sample rate is 8000"),
        (lambda p: soundfile.write(p, np.zeros(900), 16000), "too short: 900 samples"),
    ],
)
def test_errors_that_a_header_reveals_are_found_without_decoding(
    fleet, tmp_path, spoil, message
):
    path = tmp_path / "section_00_source_train_normal_0000.wav"
    path.write_bytes(next((fleet / "fan0003" / "train").iterdir()).read_bytes())
    clip_frames(path, FEATURES)
    spoil(path)
    with pytest.raises(InputError, match=message):
        clip_frames(path, FEATURES)


def test_waves_keep_the_order_and_share_the_largest_capacity():
    machines = [size("a"), size("b", 30, 10), size("c", 5, 40), size("d"), size("e")]
    plan = plan_waves(machines, 2, None)
    assert plan.waves == (("a", "b"), ("c", "d"), ("e",))
    assert plan.wave_size == 2
    assert plan.train == (30, 40, 180)
    assert plan.digest != plan_waves(machines[::-1], 2, None).digest


def test_a_plan_is_read_back_unchanged(tmp_path):
    plan = plan_waves([size("a"), size("b")], 1, 2021)
    write_plan(tmp_path, plan)
    assert read_plan(tmp_path) == plan


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 99}', '{"format": 1, "waves": 3}']
)
def test_an_invalid_plan_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "fleet.json").write_text(text)
    with pytest.raises(InputError, match=r"not a fleet plan|another version") as error:
        read_plan(tmp_path)
    assert "\n" not in str(error.value)


def test_the_wave_size_follows_from_the_available_memory(tiny, monkeypatch):
    gigabyte = 1 << 30
    few, many = size("a", 100, 300), size("b", 1000, 300)
    for memory, machine in ((gigabyte, few), (gigabyte, many), (8 * gigabyte, many)):
        monkeypatch.setattr(plans, "available_memory", lambda m=memory: m)
        count = wave_size_that_fits([machine] * 3, tiny())
        # Both splits are in memory several times.
        bytes_needed = count * 2 * machine.train.clips * 300 * 128 * 4
        assert 0.1 * memory < bytes_needed < memory / 2
    monkeypatch.setattr(plans, "available_memory", lambda: 0)
    assert wave_size_that_fits([few], tiny()) == 1


def test_a_device_with_little_memory_reduces_the_wave_size(tiny, monkeypatch):
    monkeypatch.setattr(plans, "available_memory", lambda: 1 << 40)
    monkeypatch.setattr(plans, "device_memory", lambda devices: 1 << 30)
    assert 1 < wave_size_that_fits([size("a", 100, 300)], tiny()) < 40


def test_file_sizes_show_that_a_small_fleet_fits(fleet, tiny, monkeypatch):
    names = NAMES
    source = Source(fleet, names)
    assert all_fit(find_in_turn(source), tiny())
    monkeypatch.setattr(plans, "available_memory", lambda: 1 << 20)
    assert not all_fit(find_in_turn(source), tiny())


def test_memory_is_available_and_can_be_returned():
    assert 1 << 20 < available_memory() < 1 << 50
    free_memory()


@pytest.fixture
def container(tmp_path, monkeypatch):
    """Simulate a limit of 8 GB: 7.9 GB are used, and 6 GB of that for cached files."""
    (tmp_path / "memory.max").write_text("8000000000\n")
    (tmp_path / "memory.current").write_text("7900000000\n")
    text = "anon 1900000000\ninactive_file 6000000000\nactive_file 0\n"
    (tmp_path / "memory.stat").write_text(text)
    monkeypatch.setattr(plans, "_CONTAINER", tmp_path)
    monkeypatch.setattr(plans, "_system_memory", lambda: 10**12)
    return tmp_path


def test_the_memory_of_cached_files_counts_as_available(container):
    assert available_memory() == 6_100_000_000


def test_a_container_without_a_limit_has_the_memory_of_the_system(container):
    (container / "memory.max").write_text("max\n")
    assert available_memory() == 10**12
