"""Both sides of the feature benchmark, from files to log-mels."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.processes import Prepared
from gammavae_jax.config import FeatureConfig
from gammavae_jax.data.synthetic.dataset import SyntheticSize, make_synthetic

_SECONDS = (10.0, 10.0)


def make(root: str, clips: int) -> None:
    """Write synthetic clips of 10 s."""
    make_synthetic(Path(root), {"fan": SyntheticSize(clips, 0, 0, _SECONDS)})


def prepare_ours(root: str, out: str) -> Prepared:
    """Prepare the package's loader, with threads that decode and transform."""
    from gammavae_jax.data.clips import load_clips
    from gammavae_jax.data.features import mel_filterbank
    from gammavae_jax.data.machines import ClipFile
    from gammavae_jax.data.names import parse_clip_name

    config = FeatureConfig()
    bank = mel_filterbank(config)
    files = [ClipFile(path, parse_clip_name(path.name)) for path in _paths(root)]
    return _prepared(lambda: load_clips(files, bank, config).log_mels, len(files), out)


def prepare_librosa(root: str, out: str) -> Prepared:
    """Prepare a loop that calls librosa as the official code does."""
    import librosa

    config, paths = FeatureConfig(), _paths(root)

    def log_mel(path: Path) -> np.ndarray:
        waveform, rate = librosa.load(path, sr=None, mono=False)
        mel = librosa.feature.melspectrogram(
            y=waveform,
            sr=rate,
            n_fft=config.n_fft,
            hop_length=config.hop_length,
            n_mels=config.n_mels,
            power=config.power,
        )
        floor = sys.float_info.epsilon
        return (20.0 / config.power * np.log10(np.maximum(mel, floor))).T

    return _prepared(lambda: [log_mel(path) for path in paths], len(paths), out)


def _prepared(load: Callable, n_clips: int, out: str) -> Prepared:
    """Return work that repeats `load` and finally saves its log-mels to `out`."""

    def finish() -> dict:
        np.save(out, np.stack(load()))
        return {}

    return Prepared(load, float(n_clips), {}, finish)


def _paths(root: str) -> list[Path]:
    return sorted((Path(root) / "fan" / "train").glob("*.wav"))
