"""Signals: when they end a program at once, and when they are deferred."""

import os
import pty
import signal
import subprocess
import sys
import tempfile
import threading
import time

import pytest
from support.processes import python

from gammavae_jax import log
from gammavae_jax.cli.shared import readable_errors
from gammavae_jax.process import (
    Terminated,
    deferred_signals,
    raising_on_termination,
    stoppable,
)

pytestmark = pytest.mark.usefixtures("heeded_interrupts")


def handlers():
    return [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]


def test_deferred_signals_arrive_when_the_block_has_ended():
    before, done = handlers(), []

    def work():
        with deferred_signals():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == [True]
    assert handlers() == before


def test_the_first_signal_is_deferred_and_a_second_one_ends_the_block(capfd):
    before, done = handlers(), []

    def work():
        with stoppable("soon") as stop:
            assert stop.first is None
            signal.raise_signal(signal.SIGINT)
            assert stop.first is signal.SIGINT
            done.append("after the first")
            with deferred_signals():
                signal.raise_signal(signal.SIGINT)
                done.append("in the deferring block")
            done.append("after the second")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["after the first", "in the deferring block"]
    assert handlers() == before
    assert capfd.readouterr().err == "soon\n"


def test_a_deferred_signal_is_raised_after_the_block():
    with raising_on_termination(), pytest.raises(Terminated), stoppable("soon"):
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("number", "status", "message"),
    [
        (signal.SIGINT, 130, "interrupted\n"),
        (signal.SIGTERM, 143, "terminated\n"),
        (signal.SIGHUP, 129, "terminated\n"),
    ],
)
def test_a_signal_gives_a_command_the_exit_status_of_shells(
    number, status, message, capsys
):
    with pytest.raises(SystemExit) as end, readable_errors():
        signal.raise_signal(number)
    assert end.value.code == status
    assert capsys.readouterr().err == message


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with raising_on_termination(), stoppable("soon") as stop, deferred_signals():
            signal.raise_signal(signal.SIGTERM)
        assert stop.first is None
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_thread_installs_no_handlers():
    before, found = handlers(), []

    def work():
        with raising_on_termination(), stoppable("soon") as stop, deferred_signals():
            found.append((handlers(), stop.first))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(before, None)]


def test_an_interrupt_waits_until_compiling_is_done():
    """Otherwise, the interpreter would crash when it exits (status -11)."""
    program = (
        "import signal, jax, jax.numpy as jnp, numpy as np\n"
        "from gammavae_jax.devices.assignment import make_placement\n"
        "def traced(x):\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "    print('traced', flush=True)\n"
        "    return jnp.linalg.cholesky(x @ x.T)\n"
        "for batching in ('map', 'vmap'):\n"
        "    with make_placement([1], 1, batching=batching) as placement:\n"
        "        x = placement.put(np.eye(8, dtype=np.float32)[None, None], 'model')\n"
        "        program = placement.over_models(traced, ['model'])\n"
        "        for start in (program.compile, program):\n"
        "            jax.clear_caches()\n"
        "            try:\n"
        "                start(x)\n"
        "            except KeyboardInterrupt:\n"
        "                print('interrupted', flush=True)\n"
    )
    words = python("-c", program).stdout.split()
    assert words == ["traced", "interrupted"] * 4


def test_an_interrupt_waits_until_jax_is_imported():
    """Otherwise, the process would abort."""
    program = (
        "import signal, sys\n"
        "from gammavae_jax.process import Terminated, raising_on_termination\n"
        "from gammavae_jax.process import import_jax\n"
        "class Interrupting:\n"
        "    def find_spec(name, *_):\n"
        "        if name == 'jaxlib.xla_client':\n"
        "            signal.raise_signal(signal.SIGTERM)\n"
        "sys.meta_path.insert(0, Interrupting)\n"
        "try:\n"
        "    with raising_on_termination():\n"
        "        import_jax()\n"
        "except Terminated:\n"
        "    print('terminated', hasattr(sys.modules.get('jax'), 'numpy'))\n"
    )
    assert python("-c", program).stdout.split() == ["terminated", "True"]


def test_a_hangup_is_deferred_like_the_other_signals():
    done = []

    def work():
        with raising_on_termination(), stoppable("soon") as stop:
            with deferred_signals():
                signal.raise_signal(signal.SIGHUP)
                done.append(stop.first)
            done.append(stop.first)

    with pytest.raises(Terminated) as end:
        work()
    assert done == [None, signal.SIGHUP]
    assert end.value.number == signal.SIGHUP


def test_output_to_a_terminal_that_was_closed_vanishes():
    """Otherwise, printing would fail before the state is saved."""
    program = (
        "import os, pathlib, signal, sys\n"
        "from gammavae_jax.cli.shared import readable_errors\n"
        "with readable_errors():\n"
        "    try:\n"
        "        os.read(int(sys.argv[2]), 1)\n"
        "    finally:\n"
        "        print('the summary', flush=True)\n"
        "        pathlib.Path(sys.argv[1]).touch()\n"
    )
    master, terminal = pty.openpty()
    never, pipe = os.pipe()
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-c", program, f"{folder}/done", str(never)],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            pass_fds=[never],
        )
        os.close(terminal)
        time.sleep(1)
        os.close(master)
        process.send_signal(signal.SIGHUP)
        assert process.wait(20) == 129
        assert os.listdir(folder) == ["done"]
    os.close(never)
    os.close(pipe)


def test_a_long_wait_is_announced_until_it_ends_or_goes_on(monkeypatch, capfd):
    monkeypatch.setattr(log, "LONG_WAIT_S", 0.2)
    with log.waiting_for("the moon", "look up") as step:
        for _ in range(10):
            time.sleep(0.05)
            step()
        assert not capfd.readouterr().err
        time.sleep(0.7)
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "still waiting for the moon after 0 minutes: look up"
    time.sleep(0.5)
    assert not capfd.readouterr().err
