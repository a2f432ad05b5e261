"""Signals end a program at once, or wait, as the block that runs wants it."""

import signal
import subprocess
import sys
import threading

import pytest

from gammavae_jax.cli.shared import readable_errors
from gammavae_jax.process import (
    Terminated,
    deferred_signals,
    heeded_termination,
    stoppable,
)

pytestmark = pytest.mark.usefixtures("heeded_interrupts")


def handlers():
    return [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]


def test_what_is_uninterrupted_is_ended_before_a_signal_counts():
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


def test_a_block_looks_whether_its_end_is_asked_for_and_a_second_signal_ends_it(capfd):
    before, done = handlers(), []

    def work():
        with stoppable("soon") as stop:
            assert not stop.asked
            signal.raise_signal(signal.SIGINT)
            assert stop.asked
            done.append("after the first")
            with deferred_signals():
                signal.raise_signal(signal.SIGINT)
                done.append("in what is deferred_signals")
            done.append("after the second")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["after the first", "in what is deferred_signals"]
    assert handlers() == before
    assert capfd.readouterr().err == "soon\n"


def test_a_block_that_ended_is_followed_by_its_signal():
    with heeded_termination(), pytest.raises(Terminated), stoppable("soon"):
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [(signal.SIGINT, 130, "interrupted\n"), (signal.SIGTERM, 143, "terminated\n")],
)
def test_a_command_ends_with_the_status_that_shells_give(number, status, said, capsys):
    with pytest.raises(SystemExit) as end, readable_errors():
        signal.raise_signal(number)
    assert end.value.code == status
    assert capsys.readouterr().err == said


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with heeded_termination(), stoppable("soon") as stop, deferred_signals():
            signal.raise_signal(signal.SIGTERM)
        assert not stop.asked
    finally:
        signal.signal(signal.SIGTERM, before)


def test_in_another_thread_nothing_is_handled():
    before, found = handlers(), []

    def work():
        with heeded_termination(), stoppable("soon") as stop, deferred_signals():
            found.append((handlers(), stop.asked))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(before, False)]


def words_of(program):
    """What a program says that comes to its end."""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


def test_compiling_waits_with_an_interrupt_until_it_is_done():
    """An interrupt within crashed the interpreter when it ended (status -11)."""
    program = (
        "import signal, jax, jax.numpy as jnp, numpy as np\n"
        "from gammavae_jax.devices.deal import make_placement\n"
        "def traced(x):\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "    print('traced', flush=True)\n"
        "    return jnp.linalg.cholesky(x @ x.T)\n"
        "for batching in ('map', 'vmap'):\n"
        "    with make_placement([1], 1, batching=batching) as layout:\n"
        "        x = layout.put(np.eye(8, dtype=np.float32)[None, None], 'run')\n"
        "        program = layout.over_models(traced, ['run'])\n"
        "        for start in (program.compile, program):\n"
        "            jax.clear_caches()\n"
        "            try:\n"
        "                start(x)\n"
        "            except KeyboardInterrupt:\n"
        "                print('interrupted', flush=True)\n"
    )
    assert words_of(program) == ["traced", "interrupted"] * 4


def test_importing_jax_waits_with_an_interrupt_until_it_is_done():
    """An interrupt while its extension modules were made aborted the process."""
    program = (
        "import signal, sys\n"
        "from gammavae_jax.process import Terminated, heeded_termination\n"
        "from gammavae_jax.process import import_jax\n"
        "class Interrupting:\n"
        "    def find_spec(name, *_):\n"
        "        if name == 'jaxlib.xla_client':\n"
        "            signal.raise_signal(signal.SIGTERM)\n"
        "sys.meta_path.insert(0, Interrupting)\n"
        "try:\n"
        "    with heeded_termination():\n"
        "        import_jax()\n"
        "except Terminated:\n"
        "    print('terminated', hasattr(sys.modules.get('jax'), 'numpy'))\n"
    )
    assert words_of(program) == ["terminated", "True"]
