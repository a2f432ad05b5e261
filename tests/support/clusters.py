"""Starts several processes on this computer as a cluster would."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence

from support.processes import ROOT

_LEFT_OUT = ("XLA_FLAGS", "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def by_hand(number: int, count: int, port: int) -> dict[str, str]:
    """Return the environment variables by which a process finds the others."""
    return {
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": str(count),
        "JAX_PROCESS_ID": str(number),
    }


def slurm(number: int, count: int, port: int) -> dict[str, str]:
    """Return the variables that `srun` sets on one host."""
    return {
        "SLURM_JOB_ID": "4711",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": str(count),
        "SLURM_PROCID": str(number),
        "SLURM_LOCALID": str(number),
        "JAX_COORDINATOR_PORT": str(port),
    }


def open_mpi(number: int, count: int, port: int) -> dict[str, str]:
    """Return the variables that `mpirun` sets on one host."""
    return {
        "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://127.0.0.1:34911",
        "OMPI_COMM_WORLD_SIZE": str(count),
        "OMPI_COMM_WORLD_RANK": str(number),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(number),
        "JAX_COORDINATOR_PORT": str(port),
    }


def start(
    commands: Sequence[Sequence[object]],
    variables=by_hand,
    more: Mapping[str, str] = {},
) -> list[subprocess.Popen[str]]:
    """Start one process per command; together, they form a cluster."""
    port, count = free_port(), len(commands)
    environment = {k: v for k, v in os.environ.items() if k not in _LEFT_OUT}
    return [
        subprocess.Popen(
            [sys.executable, *map(str, command)],
            env=environment | variables(number, count, port) | more,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, command in enumerate(commands)
    ]


def ended(
    processes: Sequence[subprocess.Popen[str]], timeout: float = 300
) -> list[subprocess.CompletedProcess[str]]:
    """Wait for processes, kill them after the timeout, and return the results."""
    try:
        outputs = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *texts)
        for process, texts in zip(processes, outputs, strict=True)
    ]


def run_command(data, out, *arguments):
    """Return the command that runs the main job as one process of a cluster."""
    return [
        ROOT / "experiments" / "run.py", "--all-machines", "--distributed",
        "--data-root", data, "--out", out, *arguments,
    ]  # fmt: skip
