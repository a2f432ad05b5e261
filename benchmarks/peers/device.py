"""The device that PyTorch trains on."""

# pyright: reportMissingImports=false

import torch

from benchmarks.process_setup import thread_count


def best_device() -> torch.device:
    """Return an accelerator if there is one; otherwise set up and return the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    torch.set_num_threads(thread_count())
    return torch.device("cpu")


def wait_for(device: torch.device) -> None:
    """Block until all work on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def describe(device: torch.device) -> str:
    """Return a description of the device and its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, {torch.get_num_threads()} threads"
