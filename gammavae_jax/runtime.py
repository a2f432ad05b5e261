"""Settings of the process that must be made before JAX and NumPy are imported."""

import json
import os
import sys
from pathlib import Path


def limit_blas_threads() -> None:
    """Keep BLAS to the thread that calls it: ours run side by side already.

    To be called before NumPy is imported; a limit that the user has set stays.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def give_cores_to_runs(n_runs: int) -> None:
    """With two runs or more, make each core of a CPU a device of its own.

    Small matrices gain little from a second thread, and much from none to wait for.
    Flags that the user has set stay; accelerators are not concerned. To be called
    before JAX is imported; does nothing after that.

    Args:
        n_runs: machines times seeds.
    """
    if "jax" in sys.modules:
        return
    flags = os.environ.get("XLA_FLAGS", "")
    n_devices = min(n_runs, available_cores())
    if n_devices > 1 and "xla_force_host_platform_device_count" not in flags:
        flags += f" --xla_force_host_platform_device_count={n_devices}"
        if "xla_cpu_multi_thread_eigen" not in flags:
            flags += " --xla_cpu_multi_thread_eigen=false"
        os.environ["XLA_FLAGS"] = flags.strip()


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def runs_in_checkpoint(folder: Path) -> int:
    """Machines times seeds of the detector in a checkpoint folder; 1 if unreadable."""
    try:
        about = json.loads((folder / "detector.json").read_text(encoding="utf-8"))
        return len(about["machines"]) * int(about["config"]["n_seeds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 1
