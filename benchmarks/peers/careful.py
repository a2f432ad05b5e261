"""A careful PyTorch trainer: everything in memory, nothing computed twice.

The log-mels are one tensor on the device, in which windows overlap. A batch is
gathered by index, as vectors of 640 values. Adam is fused, and nothing is copied to
the host before the end of the epoch.
"""

# pyright: reportMissingImports=false

from collections.abc import Sequence
from typing import Literal

import torch
import torch._inductor.config

from benchmarks.log_mels import N_CONTEXT, N_MELS, synthetic_log_mels, window_starts
from benchmarks.peers.device import best_device, describe
from benchmarks.peers.networks import build
from benchmarks.processes import Prepared

Form = Literal["eager", "compiled", "graphs"]
_MODES: dict[Form, str] = {"compiled": "default", "graphs": "reduce-overhead"}


class CarefulTrainer:
    """A trainer of one model on one machine's windows."""

    def __init__(
        self,
        model: str,
        frames: torch.Tensor,
        starts: torch.Tensor,
        batch_size: int,
        form: Form,
    ):
        """Take `frames` (an array `frame mel`) and `starts` on the training device."""
        n_features = N_CONTEXT * N_MELS
        n_overlapping = len(frames) - N_CONTEXT + 1
        # Five successive frames are already adjacent in memory.
        self.windows = frames.as_strided((n_overlapping, n_features), (N_MELS, 1))
        self.starts, self.batch_size = starts, batch_size
        self.network = build(model, n_features).to(frames.device)
        parameters = self.network.parameters()
        self.optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)
        if form in _MODES:
            for module in self.network.compilable:
                # All batches have one size, except the last of an epoch.
                module.compile(dynamic=False, mode=_MODES[form])

    def epoch(self) -> float:
        """Train on each window once and return the mean loss."""
        device = self.starts.device
        order = torch.randperm(len(self.starts), device=device)
        total = torch.zeros((), device=device)
        for chosen in self.starts[order].split(self.batch_size):
            if len(chosen) < 2:  # batch normalisation needs two windows
                continue
            windows = self.windows.index_select(0, chosen)
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.network(windows)
            loss.mean().backward()
            self.optimizer.step()
            total += loss.detach().sum()
        return float(total / len(order))


def prepare(
    model: str,
    machines: Sequence[int],
    batch_size: int,
    clips: int,
    frames: int,
    form: Form,
) -> Prepared:
    """Prepare trainers, which will work one after another.

    Args:
        model: see `build`.
        machines: the machine of each model; several seeds share a machine's log-mels.
        batch_size: windows per batch.
        clips: number per machine.
        frames: number per clip.
        form: how the network runs; `graphs` (CUDA graphs) needs an accelerator.
    """
    if form in _MODES:
        # Otherwise, helper processes of the compiler keep running during the rounds.
        torch._inductor.config.compile_threads = 1
    device = best_device()
    starts = torch.from_numpy(window_starts(clips, frames)).to(device)
    log_mels = {
        machine: torch.from_numpy(synthetic_log_mels(machine, clips, frames))
        .reshape(-1, N_MELS)
        .to(device)
        for machine in dict.fromkeys(machines)
    }
    trainers = [
        CarefulTrainer(model, log_mels[machine], starts, batch_size, form)
        for machine in machines
    ]

    trainers[0].epoch()  # compiles for all trainers

    def repeat() -> None:
        for trainer in trainers:
            trainer.epoch()

    return Prepared(
        repeat, float(len(machines) * len(starts)), {"device": describe(device)}
    )
