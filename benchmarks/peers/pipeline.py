"""A trainer that works like the official baseline.

Windows are copied from the log-mels into one array of float64 rows, and a DataLoader
without workers fetches them one by one, each with its labels. Autograd's anomaly mode
is on, each batch's loss is read back, and machines train one after another. The
structure is that of the official code, but no code is copied from it.
"""

# pyright: reportMissingImports=false

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.log_mels import N_CONTEXT, synthetic_log_mels
from benchmarks.peers.device import best_device, describe
from benchmarks.peers.networks import build
from benchmarks.processes import Prepared


class Rows(Dataset):
    """A data set of rows, with the same extra items as the official one."""

    def __init__(self, rows: np.ndarray, clip_of_row: np.ndarray):
        self.rows, self.names = rows, [f"clip_{clip}" for clip in clip_of_row]
        self.labels = np.zeros(len(rows))
        self.one_hot = np.zeros((len(rows), 1), np.float32)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple:
        return (
            self.rows[index],
            self.labels[index],
            self.one_hot[index],
            self.names[index],
            index,
        )


class PipelineTrainer:
    """A trainer of one model on one machine's windows."""

    def __init__(self, model: str, rows: Rows, batch_size: int, device: torch.device):
        self.device, self.n_rows = device, len(rows)
        self.loader = DataLoader(rows, batch_size, shuffle=True)
        self.network = build(model, rows.rows.shape[1]).to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3)

    def epoch(self) -> float:
        """Train on each window once and return the mean loss."""
        total = 0.0
        with torch.autograd.set_detect_anomaly(True):
            for rows, *_ in self.loader:
                if len(rows) < 2:  # batch normalisation needs two windows
                    continue
                windows = rows.to(self.device).float()
                self.optimizer.zero_grad()
                loss = self.network(windows)
                loss.mean().backward()
                self.optimizer.step()
                total += loss.sum().item()
        return total / self.n_rows


def prepare(
    model: str,
    machines: Sequence[int],
    batch_size: int,
    clips: int,
    frames: int,
    windows: int,
) -> Prepared:
    """Prepare trainers, which will work in turn; see `benchmarks.peers.careful`.

    Because they are slow, they train on at most `windows` windows in total, but each on
    at least a full batch.
    """
    warnings.filterwarnings("ignore", message="Anomaly Detection has been enabled")
    device = best_device()
    most = max(windows // len(machines), batch_size)
    data = {m: _rows(m, clips, frames, most) for m in dict.fromkeys(machines)}
    trainers = [
        PipelineTrainer(model, data[machine], batch_size, device)
        for machine in machines
    ]

    def repeat() -> None:
        for trainer in trainers:
            trainer.epoch()

    work = float(sum(len(data[machine]) for machine in machines))
    return Prepared(repeat, work, {"device": describe(device)})


def _rows(machine: int, clips: int, frames: int, most: int) -> Rows:
    """Return a machine's first `most` windows."""
    log_mels = synthetic_log_mels(machine, clips, frames)
    per_clip = frames - N_CONTEXT + 1
    log_mels = log_mels[: -(-most // per_clip)]
    rows = np.concatenate([_windows(clip) for clip in log_mels])[:most]
    return Rows(rows.astype(np.float64), np.arange(len(rows)) // per_clip)


def _windows(log_mel: np.ndarray) -> np.ndarray:
    """Return all windows of successive frames, flattened frame by frame."""
    view = np.lib.stride_tricks.sliding_window_view(log_mel, N_CONTEXT, axis=0)
    return view.swapaxes(1, 2).reshape(len(view), -1)
