"""A cluster of processes writes the files of one, prints once and ends together."""

import json
import os
import shutil
import signal
import time

import jax
import numpy as np
import pytest
import soundfile
from support import process_of_two
from support.clusters import by_hand, ended, open_mpi, run_command, slurm, start
from support.finished_runs import restored, rows_of
from support.main_job import FOUR_EPOCHS, TINY, assert_same_results, command, run_all
from support.processes import ROOT

from gammavae_jax.devices import cluster
from gammavae_jax.devices.cluster import on_first, require_same, together
from gammavae_jax.errors import InputError
from gammavae_jax.runs.checkpoint import load_detector

ONE_PROCESS = {"JAX_NUM_CPU_DEVICES": "2"}
EXACT = ("metrics.jsonl", "results.csv", "clips.csv", "config.json")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Return the output of two processes, and the checkpoint that they wrote."""
    folder = tmp_path_factory.mktemp("pair") / "checkpoint"
    program = ROOT / "tests" / "support" / "process_of_two.py"
    more = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    }
    ends = ended(start([[program, folder]] * 2, more=more))
    assert [end.returncode for end in ends] == [0, 0], ends[0].stderr + ends[1].stderr
    return [json.loads(end.stdout.splitlines()[-1]) for end in ends], folder


def test_each_of_two_processes_holds_a_part_and_can_gather_the_whole(pair):
    outputs, _ = pair
    machines = np.arange(10.0).reshape(5, 2).sum(-1)
    expected = machines + np.arange(15.0).reshape(3, 5)
    assert [t["is_first"] for t in outputs] == [True, False]
    for of_process in outputs:
        assert of_process["comes_back"]
        assert of_process["n_here"] == 1
        assert of_process["sums"] == expected.tolist()
    # Five machines on two devices: one slot is free.
    assert outputs[0]["slots"].count(None) == 1


def test_a_single_process_can_read_the_state_that_two_wrote(pair):
    outputs, folder = pair
    assert [t["restored_epoch"] for t in outputs] == [2, 2]
    state = folder / "train" / "2" / "state"
    sizes = [
        sum(p.stat().st_size for p in (state / f"ocdbt.process_{i}").rglob("*"))
        for i in range(2)
    ]
    assert min(sizes) > 0.3 * max(sizes)
    back = restored(folder)
    _, expected = process_of_two.states()
    jax.tree.map(np.testing.assert_array_equal, back.state, expected)
    kept = {p.name for p in (folder / "train").iterdir() if p.is_dir()}
    assert kept == {"1", "2"}


def test_processes_agree_and_fail_together(pair):
    outputs, _ = pair
    assert [t["own"] for t in outputs] == [0, 1]
    assert [t["jax_takes_signals"] for t in outputs] == [False, False]
    for of_process in outputs:
        assert of_process["told"] == {"from": 0}
        assert of_process["first_fails"] == "full"
        assert of_process["disk_is_full"].startswith(
            "'out' cannot be written (no room)"
        )
        assert of_process["another_is_full"].startswith("process 1: 'out' cannot be")
        assert (of_process["signal"], of_process["no_signal"]) == ("SIGTERM", "")
        assert of_process["second_fails"] == "process 1: no file"
        assert of_process["both_fail"] == "bad 0"
        assert of_process["differ"] == "process 1 of 2: not the same"
        assert of_process["equal"] is None


def failed(jobs):
    """Run processes that must all be refused; return the errors that each printed."""
    ends = ended(start(jobs))
    assert [end.returncode for end in ends] == [2] * len(jobs)
    return [[x for x in end.stderr.splitlines() if "error:" in x] for end in ends]


def test_a_lone_process_agrees_with_itself():
    def fail():
        raise InputError("bad")

    assert (on_first(lambda: 1), together(lambda: 2)) == (1, 2)
    require_same(3, "not the same")
    for agree in (on_first, together):
        with pytest.raises(InputError, match=r"^bad$"):
            agree(fail)


@pytest.mark.parametrize("variables", [slurm, open_mpi])
def test_a_cluster_is_detected_from_the_environment_and_only_its_first_process_prints(
    data, tmp_path, variables
):
    job = run_command(data, tmp_path / "out", "--dry-run")
    first, second = ended(start([job] * 2, variables))
    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    assert "fan_section_00: 15 training clips" in first.stdout
    lines = [x for x in second.stdout.splitlines() if not x.startswith("[Gloo]")]
    assert lines == []
    assert not (tmp_path / "out").exists()


def test_without_a_cluster_the_message_names_the_remedy(data, tmp_path):
    run = command(*run_command(data, tmp_path / "out"), check=False)
    assert run.returncode == 2
    assert run.stderr.startswith("error: --distributed: no cluster was found")
    assert "JAX_COORDINATOR_ADDRESS" in run.stderr
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"JAX_PROCESS_ID": "first"}, "JAX_PROCESS_ID is 'first': set it to a number"),
        ({"JAX_PROCESS_ID": "2"}, "process_id < num_processes"),
        ({"JAX_COORDINATOR_ADDRESS": "here"}, "no cluster was found"),
    ],
)
def test_an_invalid_environment_variable_is_named(monkeypatch, changed, message):
    for name, value in (by_hand(0, 2, 1) | changed).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("jax._src.xla_bridge.backends_are_initialized", lambda: False)
    with pytest.raises(InputError, match=message):
        cluster.start()


def test_processes_that_cannot_connect_give_an_error(monkeypatch):
    def initialize(**_):
        raise RuntimeError("DEADLINE_EXCEEDED: Barrier timed out.\nmore")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(InputError, match=r"timed out\.\): start all of them") as error:
        cluster.start()
    assert "\n" not in str(error.value)


def test_a_recording_that_one_process_cannot_read_ends_all_with_one_line(
    data, tmp_path
):
    spoilt = tmp_path / "spoilt"
    shutil.copytree(data, spoilt)
    (path, *_) = sorted((spoilt / "fan" / "train").iterdir())
    path.write_bytes(b"no sound")
    out = tmp_path / "out"
    first, second = failed([run_command(root, out, *TINY) for root in (data, spoilt)])
    (message,) = first
    assert message.startswith("error: process 1: ")
    assert path.name in message
    assert second == []
    assert not out.exists()


@pytest.mark.slow
def test_hosts_with_different_recordings_are_refused(data, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(data, other)
    (path, *_) = sorted((other / "fan" / "train").iterdir())
    samples, rate = soundfile.read(path)
    soundfile.write(path, 0.5 * samples, rate)
    out = tmp_path / "out"
    (message,), _ = failed([run_command(root, out, *TINY) for root in (data, other)])
    assert "error: process 1 of 2: " in message
    assert "use the same --data-root on all hosts" in message
    assert not out.exists()


def test_an_out_that_hosts_do_not_share_is_refused(data, tmp_path):
    outs = [tmp_path / "here", tmp_path / "there"]
    (message,), _ = failed([run_command(data, out, *TINY) for out in outs])
    assert "process 1: " in message
    assert "set --out to a folder that all hosts share" in message


@pytest.mark.slow
def test_one_two_four_or_eight_devices_train_the_same_parameters():
    """With numbers of machines and models that do not divide evenly."""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    (end,) = ended(
        start([[ROOT / "tests" / "support" / "eight_devices.py", 5, 1]], more=flags)
    )
    assert end.returncode == 0, end.stderr
    for by_devices in json.loads(end.stdout):
        assert by_devices.keys() == {"1", "2", "4", "8"}
        assert max(by_devices.values()) < 1e-5


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """Run the same job with two processes, with one on as many devices, and plainly."""
    root = tmp_path_factory.mktemp("runs")
    for name, count, more in (("two", 2, {}), ("one", 1, ONE_PROCESS)):
        job = run_command(data, root / name, *FOUR_EPOCHS)
        ends = ended(start([job] * count, more=more), 900)
        assert [end.returncode for end in ends] == [0] * count, ends[0].stderr
    default = root / "default"
    run_all(data, default, *FOUR_EPOCHS)
    return root


@pytest.mark.slow
def test_two_processes_write_the_same_files_as_one_with_as_many_devices(runs):
    two, one = runs / "two", runs / "one"
    assert_same_results(two, one, *EXACT)
    files = [{p.name for p in out.iterdir()} for out in (two, one)]
    assert files[0] == files[1]
    for restore, part in ((restored, "state"), (load_detector, "scorer")):
        ours, expected = (
            getattr(restore(out / "checkpoint"), part) for out in (two, one)
        )
        jax.tree.map(np.testing.assert_array_equal, ours, expected)


@pytest.mark.slow
def test_two_processes_give_the_results_of_a_run_without_a_cluster(runs):
    """Except for rounding, since the programs differ."""
    ours, expected = (
        restored(runs / name / "checkpoint") for name in ("two", "default")
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        ours.state.params,
        expected.state.params,
    )
    lines = [rows_of(runs / name / "clips.csv") for name in ("two", "default")]
    assert len(lines[0]) == len(lines[1]) > 0
    for one, other in zip(*lines, strict=True):
        assert one["decision"] == other["decision"]
        # The covariances of so few clips are nearly singular.
        if not one["score"].startswith("mahalanobis"):
            values = [float(line["anomaly_score"]) for line in (one, other)]
            assert values[0] == pytest.approx(values[1], rel=1e-4)


@pytest.mark.slow
def test_a_run_of_two_processes_can_be_resumed_by_two_or_one(data, runs, tmp_path):
    half = tmp_path / "half"
    two_epochs = run_command(data, half, "--epochs", 2, "--seeds", 2, *TINY)
    assert [end.returncode for end in ended(start([two_epochs] * 2), 900)] == [0, 0]
    for count, more in ((2, {}), (1, ONE_PROCESS)):
        out = tmp_path / f"by{count}"
        shutil.copytree(half, out)
        job = run_command(data, out, "--resume", *FOUR_EPOCHS)
        ends = ended(start([job] * count, more=more), 900)
        assert "resuming after epoch 2 of 4" in ends[0].stderr
        assert_same_results(out, runs / "two", "metrics.jsonl")


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_killing_a_process_ends_the_others_and_the_run_can_be_resumed(
    data, runs, tmp_path, victim
):
    out = tmp_path / "killed"
    many = ["--epochs", 400, "--seeds", 2, *TINY]
    processes = start([run_command(data, out, *many)] * 2)
    train = out / "checkpoint" / "train"
    try:
        while not any(path.name.isdecimal() for path in train.glob("*")):
            assert all(process.poll() is None for process in processes)
            time.sleep(0.05)
    finally:
        processes[victim].send_signal(signal.SIGKILL)
        # Unless a connection breaks first, JAX waits 100 seconds for a heartbeat.
        ends = ended(processes, 150)
    other = ends[1 - victim]
    assert other.returncode not in (0, -signal.SIGKILL)
    assert "another" in other.stderr  # process, or task in JAX's terms
    reached = restored(out / "checkpoint")
    more = run_command(data, out, "--resume", "--epochs", reached.epoch + 2, *many[2:])
    ends = ended(start([more] * 2), 900)
    assert [end.returncode for end in ends] == [0, 0]
    assert f"resuming after epoch {reached.epoch}" in ends[0].stderr


@pytest.mark.slow
@pytest.mark.parametrize("signalled", [0, 1])
def test_a_signal_to_one_process_saves_the_epoch_and_ends_all_with_its_status(
    data, tmp_path, signalled
):
    out = tmp_path / "ended"
    many = ["--epochs", 4000, "--seeds", 2, *TINY]
    processes = start([run_command(data, out, *many)] * 2)
    try:
        while not (out / "metrics.jsonl").exists():
            assert all(process.poll() is None for process in processes)
            time.sleep(0.05)
    finally:
        processes[signalled].send_signal(signal.SIGTERM)
        ends = ended(processes, 150)
    assert [end.returncode for end in ends] == [143, 143], ends[0].stderr
    reached = restored(out / "checkpoint")
    stopped = f"stopped after epoch {reached.epoch}: continue with --resume"
    assert stopped in ends[0].stderr


@pytest.mark.slow
def test_a_state_that_the_first_process_cannot_write_ends_all_with_one_line(
    data, tmp_path
):
    """A folder is in the place of the marker of each state."""
    out = tmp_path / "out"
    job = run_command(data, out, "--epochs", 4000, "--seeds", 2, *TINY)
    processes = start([job] * 2)
    try:
        while not (out / "metrics.jsonl").exists():
            assert all(process.poll() is None for process in processes)
            time.sleep(0.01)
        start_time = time.monotonic()
        for epoch in range(2, 4000):
            (out / "checkpoint" / "train" / f"{epoch}.json" / "x").mkdir(
                parents=True, exist_ok=True
            )
    finally:
        ends = ended(processes, 150)
    assert [end.returncode for end in ends] == [2, 2]
    assert "cannot be written" in ends[0].stderr.splitlines()[-1]
    assert ends[1].stderr == ""
    assert time.monotonic() - start_time < 60  # JAX itself would wait 100 seconds
