"""A careful PyTorch trainer: everything in memory, nothing done twice.

Log-mels are one tensor on the device, in which windows overlap; a batch is one gather
of 640-vectors by index. Adam is fused; nothing is copied to the host before the epoch's
end.
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
    """Trains one machine."""

    def __init__(
        self,
        model: str,
        frames: torch.Tensor,
        starts: torch.Tensor,
        batch_size: int,
        form: Form,
    ):
        """`frames` is `frame mel`; both tensors are on the device to train on."""
        n_features = N_CONTEXT * N_MELS
        n_overlapping = len(frames) - N_CONTEXT + 1
        # Five successive frames lie side by side in memory as they are.
        self.windows = frames.as_strided((n_overlapping, n_features), (N_MELS, 1))
        self.starts, self.batch_size = starts, batch_size
        self.network = build(model, n_features).to(frames.device)
        parameters = self.network.parameters()
        self.optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)
        if form in _MODES:
            for module in self.network.compilable:
                # Batches have one size, and the last of an epoch another.
                module.compile(dynamic=False, mode=_MODES[form])

    def epoch(self) -> float:
        """Train on each window once; the mean loss."""
        device = self.starts.device
        order = torch.randperm(len(self.starts), device=device)
        total = torch.zeros((), device=device)
        for chosen in self.starts[order].split(self.batch_size):
            if len(chosen) < 2:  # batch normalisation makes nothing of one window
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
    runs: Sequence[int],
    batch_size: int,
    clips: int,
    frames: int,
    form: Form,
) -> Prepared:
    """Trainers of some runs, one after another.

    Args:
        model: see `build`.
        runs: the machine that each trains; several seeds of one share its log-mels.
        batch_size: windows.
        clips: of each machine.
        frames: of each clip.
        form: `graphs` is for accelerators.
    """
    if form in _MODES:
        # Helper processes of the compiler would stay for the rounds.
        torch._inductor.config.compile_threads = 1
    device = best_device()
    starts = torch.from_numpy(window_starts(clips, frames)).to(device)
    log_mels = {
        machine: torch.from_numpy(synthetic_log_mels(machine, clips, frames))
        .reshape(-1, N_MELS)
        .to(device)
        for machine in dict.fromkeys(runs)
    }
    trainers = [
        CarefulTrainer(model, log_mels[machine], starts, batch_size, form)
        for machine in runs
    ]

    trainers[0].epoch()  # compiles, for all that are like it

    def repeat() -> None:
        for trainer in trainers:
            trainer.epoch()

    return Prepared(
        repeat, float(len(runs) * len(starts)), {"device": describe(device)}
    )
