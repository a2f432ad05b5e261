"""Draw `docs/views.png`, which shows what the default score's statistics detect.

The recordings are synthetic, and nothing is trained. Features, statistics, distances
and thresholds are computed by the package's own functions.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import scipy.signal
import tyro
from matplotlib import rc_context
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gammavae_jax.cli.help import MARKERS, RULES
from gammavae_jax.config import FeatureConfig, ScoringConfig
from gammavae_jax.data import features, statistics
from gammavae_jax.scoring.fusion import standard_of
from gammavae_jax.scoring.neighbours import distances, fit_reference
from gammavae_jax.scoring.threshold import conformal_threshold

FEATURES, SCORING = FeatureConfig(), ScoringConfig()
RATE = FEATURES.sample_rate
N_TRAINING, N_HELD_OUT, SECONDS = 100, 20, 4
TIME = np.arange(SECONDS * RATE) / RATE
STATISTICS = {  # with the rules of the default score, and colour-blind-safe colours
    "spectrum": (statistics.spectrum, "varmin", "#0072B2"),
    "maximum": (statistics.maximum, "varmin", "#E69F00"),
    "salient": (statistics.salient, "neighbour", "#009E73"),
}


@dataclass(frozen=True)
class Views:
    """Draw what each of three statistics detects in synthetic clips."""

    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("docs/views.png")
    """The picture to write."""


def machine(seed: int) -> np.ndarray:
    """Return a normal clip: noise that rises and falls three times, and a hum.

    The spectrum of the noise, its depth of modulation and the pitch of the hum vary
    from clip to clip.
    """
    rng = np.random.default_rng(seed)
    hz, at, noise = scipy.signal.stft(rng.normal(size=len(TIME)), RATE, nperseg=512)
    knots = np.linspace(0, RATE / 2, 8)
    level = np.interp(hz, knots, rng.normal(0, 0.5, 8)) - 60 - 15 * hz / 4000  # dB
    depth = np.interp(hz, knots, rng.normal(6, 0.7, 8))  # dB
    decibels = level[:, None] + depth[:, None] * np.sin(2 * np.pi * 0.75 * at)
    sound = scipy.signal.istft(noise * 10 ** (decibels / 20), RATE)[1][: len(TIME)]
    pitch = rng.uniform(98, 102)
    return sound + sum(0.001 / k * _sine(k * pitch) for k in range(1, 6))


def with_faults(clip: np.ndarray) -> dict[str, np.ndarray]:
    """Return the clip as it is, and with each fault.

    The faults' strengths were chosen by hand to give distances of similar size.
    """
    noise = np.random.default_rng(0).normal(size=len(TIME))
    age = np.maximum(TIME - 1.7, 0)  # since the click, at a loud moment
    # The hiss occurs when the machine is quietest.
    bursts = sum(np.exp(-(((TIME - at) / 0.06) ** 2)) for at in (1.0, 2.33, 3.67))
    return {
        "Normal": clip,
        "Tone at 900 Hz": clip + 1e-4 * _sine(900),
        "Click at 1.7 s": clip + 0.001 * (age > 0) * np.exp(-age / 0.002) * noise,
        "Rare, faint hiss": clip + 5.5e-4 * bursts * _filtered(noise, 2, (2500, 5000)),
        "Duller sound": 0.75 * clip + 0.25 * _filtered(clip, 1, 2000),
    }


def spectrogram(clip: np.ndarray) -> np.ndarray:
    """Return a clip's log-mel spectrogram, in dB and with a row for each frame."""
    filterbank = features.mel_filterbank(FEATURES)
    return features.log_mel(clip.astype(np.float32), filterbank, FEATURES)


def standardised(
    name: str, training: np.ndarray, test: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return the test clips' distances to the training clips, and the threshold.

    Both are standardised with the mean and standard deviation of each training clip's
    distance to the other training clips.

    Args:
        name: the statistic.
        training: the spectrograms of the training clips.
        test: the spectrograms of the test clips.
    """
    statistic, rule, _ = STATISTICS[name]
    describe = jax.jit(jax.vmap(lambda clip: statistic(clip, jnp.ones(len(clip)))))
    itself, every = np.eye(N_TRAINING, dtype=bool), np.ones(N_TRAINING, bool)
    known, rng = np.asarray(describe(training)), np.random.default_rng(0)
    reference = fit_reference(known, itself, every, ~every, SCORING, N_TRAINING, rng)
    measure = jax.jit(jax.vmap(lambda x, linked: distances(x, reference, linked)[rule]))
    held_out = np.asarray(measure(known, itself))
    unlinked = np.zeros((len(test), N_TRAINING), bool)
    distance = np.asarray(measure(describe(test), unlinked))
    mean, unit = (x.item() for x in standard_of(f"{name}_{rule}", held_out))
    threshold = conformal_threshold(held_out, SCORING.false_alarm_rate)
    return (distance - mean) / unit, (threshold - mean) / unit


def draw(pictures: dict[str, np.ndarray], results: dict[str, tuple]) -> Figure:
    """Return the figure, given a spectrogram per fault, distances and thresholds."""
    figure = Figure((9, 5), dpi=200, layout="constrained")
    figure.suptitle("What each of three statistics detects (synthetic recordings)")
    axes = figure.subplots(2, len(pictures), sharey="row")
    low, high = np.percentile(list(pictures.values()), [1, 99.8])
    khz, box = np.array([0.5, 1, 2, 4]), (0, SECONDS, -0.5, FEATURES.n_mels - 0.5)
    centres = features.band_corners(FEATURES)[1:-1]
    bands = np.interp(1000 * khz, centres, range(FEATURES.n_mels))
    look = {"cmap": "cividis", "vmin": low, "vmax": high, "interpolation": "nearest"}
    for at, (fault, picture) in enumerate(pictures.items()):
        upper, lower = axes[:, at]
        image = upper.imshow(picture.T, origin="lower", extent=box, **look)
        upper.set(title=fault, xlabel="Time (s)", aspect="auto", xticks=(0, 2, 4))
        upper.set_yticks(bands, [f"{x:g}" for x in khz])
        for place, (name, (distance, threshold)) in enumerate(results.items()):
            least, middle, most = np.quantile(distance[at], [0, 0.5, 1])
            lower.bar(place, middle, 0.7, color=STATISTICS[name][2], label=name)
            lower.vlines(place, least, most, "0.3", lw=1, label="their range")
            ends = place - 0.45, place + 0.45
            lower.hlines(threshold, *ends, "black", lw=1.5, label="10 % threshold")
        lower.axhline(0, color="0.6", lw=0.8, zorder=0)
        lower.set_xticks([])
        lower.spines[["top", "right", "bottom"]].set_visible(False)
    axes[0, 0].set_ylabel("Frequency (kHz)")
    axes[1, 0].set_ylabel("Distance to nearest training\nclip (standard deviations)")
    figure.colorbar(image, ax=axes[0], label="Level (dB)", pad=0.01)
    handles, labels = axes[1, 0].get_legend_handles_labels()
    key = dict(zip(labels, handles, strict=True))  # each label once
    order = sorted(key, key=lambda label: label not in STATISTICS)
    figure.legend(
        [key[label] for label in order],
        order,
        title=f"Bars: median of {N_HELD_OUT} held-out clips",
        loc="outside lower center",
        ncols=len(order),
        frameon=False,
    )
    return figure


def main() -> None:
    """Draw the figure and print the numbers in it."""
    options = tyro.cli(Views, config=MARKERS, registry=RULES)
    training = np.stack([spectrogram(machine(seed)) for seed in range(N_TRAINING)])
    held_out = range(N_TRAINING, N_TRAINING + N_HELD_OUT)
    clips = [with_faults(machine(seed)) for seed in held_out]
    test = np.stack([spectrogram(clip[fault]) for fault in clips[0] for clip in clips])
    results = {}
    for name in STATISTICS:
        distance, threshold = standardised(name, training, test)
        results[name] = distance.reshape(-1, N_HELD_OUT), threshold
        print(f"{name}: threshold {threshold:.1f}; median, range, share above it")
        for fault, values in zip(clips[0], results[name][0], strict=True):
            least, middle, most = np.quantile(values, [0, 0.5, 1])
            share = np.mean(values > threshold)
            print(f"{fault:>18}: {middle:.1f}, {least:.1f} to {most:.1f}, {share:.0%}")
    pictures = dict(zip(clips[0], test[::N_HELD_OUT], strict=True))
    with rc_context({"font.size": 9, "axes.titlesize": 10, "figure.titlesize": 11}):
        draw(pictures, results).savefig(options.out)


def _sine(hz: float) -> np.ndarray:
    return np.sin(2 * np.pi * hz * TIME)


def _filtered(sound: np.ndarray, order: int, hz: int | tuple[int, int]) -> np.ndarray:
    """Apply a low-pass filter or, if `hz` is a pair, a band-pass filter."""
    kind = "lowpass" if isinstance(hz, int) else "bandpass"
    sos = scipy.signal.butter(order, hz, kind, fs=RATE, output="sos")
    return np.asarray(scipy.signal.sosfilt(sos, sound))


if __name__ == "__main__":
    main()
