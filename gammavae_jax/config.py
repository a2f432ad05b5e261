"""All settings of a run, as frozen dataclasses that JAX can treat as static.

`config_json` reads and writes them. One `Config` is the single source of truth for the
command line (`--set a.b=value`), for `config.json` in a run's folder and for the copy
inside a checkpoint.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from gammavae_jax.errors import InputError, unknown_name

# Scores computed from a single clip or from Gaussian fits; see `scoring.residuals`.
DIRECT_SCORES = (
    *("mse", "mse_top", "mse_max", "mse_ranked"),
    *("mahalanobis", "mahalanobis_framewise", "kl", "negative_elbo"),
)
# Distances to the nearest training clips in a statistic; see `scoring.neighbours`.
STATISTICS = ("spectrum", "residual", "peak", "latent")
NEIGHBOUR_SCORES = tuple(f"{name}_neighbour" for name in STATISTICS)
DENSITY_SCORES = tuple(f"{name}_density" for name in STATISTICS)
# Combinations of scores, each standardised on held-out clips; see `scoring.fusion`.
FUSION_SCORES = ("fusion_mean", "fusion_max", "fusion_min")
SCORE_NAMES = DIRECT_SCORES + NEIGHBOUR_SCORES + DENSITY_SCORES + FUSION_SCORES
OFFICIAL_SCORES = ("mse", "mahalanobis", "mahalanobis_framewise")
_DENSITIES = ("spectrum_density", "residual_density", "peak_density")


# For each range, as worded in the error message, whether a value is in it.
_RANGES: dict[str, Callable[[Any], bool]] = {
    "must be greater than 0": lambda value: value > 0,
    "must be at least 0": lambda value: value >= 0,
    "must be between 0 and 1": lambda value: 0 < value < 1,
    "must be from 0 to 1": lambda value: 0 <= value <= 1,
    "must be at least 2 windows": lambda value: value >= 2,
    "must be at least 2, or set split=clip": lambda value: value >= 2,
}


def _require(config: Any, group: str, remedy: str, *names: str) -> None:
    """Raise an InputError if a field is outside the range that `remedy` describes."""
    for name in names:
        value = getattr(config, name)
        if not _RANGES[remedy](value):
            raise InputError(f"{group}{name} is {value}: it {remedy}")


@dataclass(frozen=True)
class FeatureConfig:
    """The settings of log-mel windows; the defaults are the official baseline's."""

    sample_rate: int = 16000  # Hz; challenge recordings at other rates are rejected
    channel: int = 0  # the channel to read from a multi-channel recording
    n_fft: int = 1024  # samples
    hop_length: int = 512  # samples
    n_mels: int = 128
    power: float = 2.0  # exponent of the magnitude spectrum
    n_context: int = 5  # frames in a window

    def __post_init__(self):
        positive = "sample_rate", "n_fft", "hop_length", "n_mels", "power", "n_context"
        _require(self, "features.", "must be greater than 0", *positive)
        _require(self, "features.", "must be at least 0", "channel")

    @property
    def n_features(self) -> int:
        """The number of values in a window: `n_context * n_mels`."""
        return self.n_context * self.n_mels


@dataclass(frozen=True)
class ModelConfig:
    """The settings of the network, its latent code and its divergence."""

    latent: Literal["deterministic", "gamma", "gaussian"] = "gamma"
    hidden: tuple[int, ...] = (128, 128, 128, 128)  # for encoder and decoder alike
    n_latent: int = 8
    heads: Literal["softmax", "softplus"] = "softplus"  # for a Gamma posterior
    # What the two heads of a Gamma posterior parameterise.
    parameters: Literal["concentration_rate", "mean_variance"] = "concentration_rate"
    # "exact" is KL(posterior || prior); "report_eq2" and "ancestor", the formulas of
    # the report and of the code it descends from, differ from it: see docs/method.md.
    kl: Literal["exact", "report_eq2", "ancestor"] = "exact"
    prior_concentration: float = 1.0  # for a Gamma prior
    prior_rate: float = 1.0  # for a Gamma prior
    # The law of a cell, given its reconstruction: "gaussian_db" is a squared error in
    # dB; "gamma" and "f" are likelihoods of power: see `models.likelihood`.
    likelihood: Literal["gaussian_db", "gamma", "f"] = "gaussian_db"
    # "centred" subtracts each window's mean, so that gain does not matter;
    # "standardised" normalises each feature over the training windows; "bands"
    # subtracts each clip's mean and normalises each band. Likelihoods of power always
    # use "bands".
    inputs: Literal["raw", "centred", "standardised", "bands"] = "raw"
    # "centre" predicts a window's middle frame from its other frames.
    target: Literal["window", "centre"] = "window"
    # Precision of the matrix products; sums and statistics are always float32.
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"

    def __post_init__(self):
        positive = "n_latent", "prior_concentration", "prior_rate"
        _require(self, "model.", "must be greater than 0", *positive)
        if min(self.hidden, default=0) < 1:
            raise InputError(f"model.hidden is {self.hidden}: use widths of at least 1")
        if self.has_power_likelihood and self.inputs in ("centred", "standardised"):
            raise InputError(
                f"model.inputs={self.inputs} has no meaning with "
                f"model.likelihood={self.likelihood}, which normalises each band: set "
                "model.inputs=bands"
            )
        if self.kl != "exact" and self.latent != "gamma":
            remedy = "set model.latent=gamma"
            raise InputError(f"model.kl={self.kl} needs a Gamma posterior: {remedy}")
        if self.kl == "report_eq2" and self.prior_concentration > 1:
            raise InputError(
                "model.kl=report_eq2 has no minimum if model.prior_concentration is "
                "above 1: set model.prior_concentration to at most 1"
            )

    @property
    def has_power_likelihood(self) -> bool:
        """Whether cells are judged by their power, not by a squared error in dB."""
        return self.likelihood != "gaussian_db"

    @property
    def normalises_bands(self) -> bool:
        """Whether clips lose their gain, and bands are normalised for the network."""
        return self.inputs == "bands" or self.has_power_likelihood


@dataclass(frozen=True)
class TrainConfig:
    """The training settings, which all models share."""

    epochs: int = 20
    batch_size: int = 256  # windows
    learning_rate: float = 1e-3  # of Adam
    kl_weight: float = 0.01  # of the KL divergence, relative to the mean squared error
    kl_warmup: int = 0  # epochs during which the KL weight rises from 0
    # "folds" trains a model per fold and holds out whole groups of similar clips.
    # "clip" trains one model and holds out some clips of each domain. "window", as in
    # the official code, holds out random windows but trains on their neighbours.
    split: Literal["folds", "clip", "window"] = "folds"
    n_folds: int = 5  # for split "folds"
    # Clips nearer than this fraction of the median distance count as similar.
    group_distance: float = 0.7
    held_out_fraction: float = 0.1  # for the other splits
    checkpoint_every: int = 10  # epochs
    # On each device, models train simultaneously ("vmap") or in turn ("map", which
    # "auto" chooses on CPUs).
    batching: Literal["auto", "vmap", "map"] = "auto"

    def __post_init__(self):
        positive = "epochs", "learning_rate", "checkpoint_every"
        not_negative = "kl_weight", "kl_warmup", "group_distance"
        _require(self, "train.", "must be greater than 0", *positive)
        _require(self, "train.", "must be at least 0", *not_negative)
        _require(self, "train.", "must be between 0 and 1", "held_out_fraction")
        _require(self, "train.", "must be at least 2 windows", "batch_size")
        _require(self, "train.", "must be at least 2, or set split=clip", "n_folds")


@dataclass(frozen=True)
class ScoringConfig:
    """The settings that turn residuals into scores, and scores into decisions."""

    # "official" centres residuals on each batch's mean, "pooled" on the overall mean.
    covariance: Literal["official", "pooled"] = "official"
    jitter: float = 1e-6  # added to a covariance's diagonal, times its mean
    # "conformal" and "gamma" (a quantile of a fitted Gamma) use held-out clips;
    # "official" fits a Gamma to batches of 256 windows.
    threshold: Literal["conformal", "gamma", "official"] = "conformal"
    false_alarm_rate: float = 0.1  # nominal rate at the decision threshold
    fused: tuple[str, ...] = _DENSITIES  # the scores that the fusion scores combine
    n_density_neighbours: int = 4  # used to estimate the density of training clips
    # SMOTE interpolates target clips until there are this many per source clip.
    smote_ratio: float = 0.0

    def __post_init__(self):
        positive = "jitter", "n_density_neighbours"
        _require(self, "scoring.", "must be greater than 0", *positive)
        _require(self, "scoring.", "must be from 0 to 1", "smote_ratio")
        _require(self, "scoring.", "must be between 0 and 1", "false_alarm_rate")
        for name in self.fused:
            if name in FUSION_SCORES or name not in SCORE_NAMES:
                allowed = [n for n in SCORE_NAMES if n not in FUSION_SCORES]
                raise InputError(unknown_name("score to fuse", name, allowed))
        if not self.fused or len(set(self.fused)) < len(self.fused):
            raise InputError(
                f"scoring.fused is {list(self.fused)}: list at least one score, and "
                "each only once"
            )


@dataclass(frozen=True)
class Config:
    """Everything that determines a run's results, except the recordings."""

    preset: str = "default"
    score: str = "fusion_mean"  # the headline score
    scores: tuple[str, ...] = ("fusion_mean", *_DENSITIES, *OFFICIAL_SCORES)
    seed: int = 13711
    n_seeds: int = 1  # seed, seed + 1, ...
    features: FeatureConfig = field(default_factory=FeatureConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    scoring: ScoringConfig = field(default_factory=ScoringConfig)

    def __post_init__(self):
        _require(self, "", "must be greater than 0", "n_seeds")
        last = 2**31 - self.n_seeds
        if not 0 <= self.seed <= last:
            raise InputError(f"seed is {self.seed}: it must be from 0 to {last}")
        for name in self.scores:
            if name not in SCORE_NAMES:
                raise InputError(unknown_name("score", name, SCORE_NAMES))
        if len(set(self.scores)) < len(self.scores):
            raise InputError(f"scores are {list(self.scores)}: list each only once")
        if self.scoring.threshold == "official":
            self._check_official_threshold()
        elif self.train.split == "window":
            raise InputError(
                "train.split=window holds out no clips: set scoring.threshold=official "
                "and choose scores of windows, or use the preset official"
            )
        n_context = self.features.n_context
        if self.model.target == "centre" and (n_context < 3 or n_context % 2 == 0):
            raise InputError(
                "model.target=centre needs a middle frame, but features.n_context is "
                f"{n_context}: use an odd number of at least 3"
            )
        self._check_computable()
        if self.score not in self.scores:
            raise InputError(
                f"the headline score {self.score!r} is not among the scores "
                f"{list(self.scores)}: add it there, or choose another headline score"
            )

    def _check_computable(self) -> None:
        for name in self.computed_scores:
            if name in ("kl", "negative_elbo") and self.model.latent == "deterministic":
                raise InputError(
                    f"score {name!r} needs a posterior: set model.latent=gamma, or "
                    "omit this score"
                )
            if name.startswith("latent_") and self.train.split == "folds":
                raise InputError(
                    f"score {name!r} compares codes of one model, but each fold has "
                    "its own model: set train.split=clip, or omit this score"
                )

    def _check_official_threshold(self) -> None:
        if self.train.split == "folds":
            raise InputError(
                "scoring.threshold=official needs a single model: set "
                "train.split=window or train.split=clip"
            )
        if self.model.has_power_likelihood:
            raise InputError(
                "scoring.threshold=official is defined for squared errors: set "
                "model.likelihood=gaussian_db, or scoring.threshold=conformal"
            )
        for name in self.scores:
            if name not in DIRECT_SCORES:
                raise InputError(
                    f"score {name!r} is computed per clip, but "
                    "scoring.threshold=official works on batches: change either setting"
                )

    @property
    def computed_scores(self) -> tuple[str, ...]:
        """The requested scores, with each fusion replaced by the scores it combines."""
        scores = [name for name in self.scores if name not in FUSION_SCORES]
        if len(scores) < len(self.scores):
            scores += self.scoring.fused
        return tuple(dict.fromkeys(scores))

    @property
    def n_folds(self) -> int:
        """The number of models per machine and seed."""
        return self.train.n_folds if self.train.split == "folds" else 1

    @property
    def n_members(self) -> int:
        """The number of models per machine."""
        return self.n_seeds * self.n_folds

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the run: `n_seeds` consecutive numbers, starting at `seed`."""
        return tuple(range(self.seed, self.seed + self.n_seeds))
