"""Every choice of a run, as frozen dataclasses: hashable, so static under `jit`.

`config_json` reads and writes them. One `Config` is the source of truth for the
command line (`--set a.b=value`), for `config.json` in a run's folder and for the copy
inside a checkpoint.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from gammavae_jax.errors import InputError, unknown_name

# Scores of a clip by itself or against Gaussian fits: `score`.
DIRECT_SCORES = (
    "mse",
    "mse_top",
    "mse_max",
    "mse_ranked",
    "mahalanobis",
    "mahalanobis_framewise",
    "kl",
    "negative_elbo",
)
# Distances to the nearest training clip by some statistics of a clip: `neighbours`.
STATISTICS = ("spectrum", "residual", "peak", "latent")
NEIGHBOUR_SCORES = tuple(f"{name}_neighbour" for name in STATISTICS)
DENSITY_SCORES = tuple(f"{name}_density" for name in STATISTICS)
# Of scores standardised on clips that no model was trained on: `fusion`.
FUSION_SCORES = ("fusion_mean", "fusion_max", "fusion_min")
SCORE_NAMES = DIRECT_SCORES + NEIGHBOUR_SCORES + DENSITY_SCORES + FUSION_SCORES
OFFICIAL_SCORES = ("mse", "mahalanobis", "mahalanobis_framewise")


@dataclass(frozen=True)
class FeatureConfig:
    """Log-mel windows; the defaults are the official baseline's."""

    sample_rate: int = 16000  # Hz; a recording with another rate is refused
    channel: int = 0  # of a recording with several channels
    n_fft: int = 1024  # samples
    hop_length: int = 512  # samples
    n_mels: int = 128
    power: float = 2.0  # of the magnitude spectrum
    n_context: int = 5  # frames in one window

    def __post_init__(self):
        _require_positive(
            self, "sample_rate", "n_fft", "hop_length", "n_mels", "power", "n_context"
        )
        if self.channel < 0:
            raise InputError(f"features.channel is {self.channel}: give 0 or more")

    @property
    def n_features(self) -> int:
        """Numbers in one window: `n_context * n_mels`."""
        return self.n_context * self.n_mels


@dataclass(frozen=True)
class ModelConfig:
    """The autoencoder and what its code is: a number or a distribution."""

    latent: Literal["deterministic", "gamma", "gaussian"] = "gamma"
    hidden: tuple[int, ...] = (128, 128, 128, 128)  # widths, in both directions
    n_latent: int = 8
    heads: Literal["softmax", "softplus"] = "softplus"  # of a Gamma posterior
    # What the heads of a Gamma posterior stand for.
    parameters: Literal["concentration_rate", "mean_variance"] = "concentration_rate"
    # "exact" is KL(posterior || prior); "report_eq2" is what the report prints, and
    # "ancestor" what the code it descends from computes: neither is this divergence.
    # See docs/method.md.
    kl: Literal["exact", "report_eq2", "ancestor"] = "exact"
    prior_concentration: float = 1.0  # of a Gamma prior
    prior_rate: float = 1.0  # of a Gamma prior
    # "centred" takes a window's mean from it, so that gain does not matter;
    # "standardised" normalises each feature over the training windows.
    inputs: Literal["raw", "centred", "standardised"] = "raw"
    # "centre" predicts a window's middle frame from the others.
    target: Literal["window", "centre"] = "window"
    # Of the network's matrix products; sums and statistics are float32 in any case.
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"

    def __post_init__(self):
        _require_positive(self, "n_latent", "prior_concentration", "prior_rate")
        if not self.hidden or min(self.hidden) < 1:
            raise InputError(f"model.hidden is {self.hidden}: give widths of 1 or more")
        if self.kl != "exact" and self.latent != "gamma":
            raise InputError(
                f"model.kl={self.kl} is of a Gamma posterior: set model.latent=gamma"
            )
        if self.kl == "report_eq2" and self.prior_concentration > 1:
            raise InputError(
                "model.kl=report_eq2 has no minimum with a model.prior_concentration "
                "above 1: give 1 or less"
            )


@dataclass(frozen=True)
class TrainConfig:
    """How one machine's model is trained."""

    epochs: int = 20
    batch_size: int = 256  # windows
    learning_rate: float = 1e-3  # Adam
    kl_weight: float = 0.01  # of the KL divergence beside the mean squared error
    kl_warmup: int = 0  # epochs in which the weight rises from 0
    # "folds" trains a model for each fold, held out by whole groups of clips that
    # sound alike; "clip" one model, some clips of each domain held out; "window", as
    # the official code, one model, any windows held out, whose neighbours are not.
    split: Literal["folds", "clip", "window"] = "folds"
    n_folds: int = 5  # with split "folds"
    # Clips nearer than this, as a share of the median distance, sound alike.
    group_distance: float = 0.7
    held_out_fraction: float = 0.1  # with the other splits
    checkpoint_every: int = 10  # epochs
    # On each device machines and seeds go side by side ("vmap") or one after another
    # ("map"); "auto" takes "map" on CPUs.
    batching: Literal["auto", "vmap", "map"] = "auto"

    def __post_init__(self):
        _require_positive(
            self, "epochs", "batch_size", "learning_rate", "checkpoint_every"
        )
        if self.batch_size < 2:
            raise InputError("train.batch_size is 1: batch normalisation needs 2")
        for name in ("kl_weight", "kl_warmup", "group_distance"):
            if not getattr(self, name) >= 0:
                raise InputError(
                    f"train.{name} is {getattr(self, name)}: give 0 or more"
                )
        if self.n_folds < 2:
            raise InputError(
                f"train.n_folds is {self.n_folds}: give 2 or more, or train.split=clip"
            )
        if not 0 < self.held_out_fraction < 1:
            raise InputError(
                f"train.held_out_fraction is {self.held_out_fraction}: give a number "
                "between 0 and 1"
            )


@dataclass(frozen=True)
class ScoringConfig:
    """How residuals become anomaly scores, and scores become decisions."""

    # "official" centres the residuals batch by batch, "pooled" on their mean.
    covariance: Literal["official", "pooled"] = "official"
    jitter: float = 1e-6  # added to a covariance, times its mean diagonal
    # "conformal" and "gamma" (a fitted quantile) are over held-out clips, "official"
    # fits a Gamma over batches of 256 windows.
    threshold: Literal["conformal", "gamma", "official"] = "conformal"
    false_alarm_rate: float = 0.1  # nominal, of the decision threshold
    # What the fusion scores fuse.
    fused: tuple[str, ...] = (
        "spectrum_density",
        "residual_density",
        "peak_density",
    )
    n_density_neighbours: int = 4  # that tell how dense training clips lie
    # Target clips are filled up with clips between neighbours (SMOTE) to this share
    # of the source clips; 0 leaves them as they are.
    smote_ratio: float = 0.0

    def __post_init__(self):
        _require_positive(self, "jitter", "n_density_neighbours")
        if not 0 <= self.smote_ratio <= 1:
            raise InputError(
                f"scoring.smote_ratio is {self.smote_ratio}: give a number from 0 to 1"
            )
        for name in self.fused:
            if name in FUSION_SCORES or name not in SCORE_NAMES:
                known = [n for n in SCORE_NAMES if n not in FUSION_SCORES]
                raise InputError(unknown_name("score to be fused", name, known))
        if not self.fused or len(set(self.fused)) < len(self.fused):
            raise InputError(
                f"scoring.fused is {list(self.fused)}: name one or more, each once"
            )
        if not 0 < self.false_alarm_rate < 1:
            raise InputError(
                f"scoring.false_alarm_rate is {self.false_alarm_rate}: give a number "
                "between 0 and 1"
            )


@dataclass(frozen=True)
class Config:
    """Everything that decides the numbers of a run, besides the recordings."""

    preset: str = "default"
    score: str = "fusion_mean"  # the headline score
    scores: tuple[str, ...] = (
        "fusion_mean",
        "spectrum_density",
        "residual_density",
        "peak_density",
        *OFFICIAL_SCORES,
    )
    seed: int = 13711
    n_seeds: int = 1  # seed, seed + 1, ...
    features: FeatureConfig = field(default_factory=FeatureConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    scoring: ScoringConfig = field(default_factory=ScoringConfig)

    def __post_init__(self):
        _require_positive(self, "n_seeds")
        last = 2**31 - self.n_seeds
        if not 0 <= self.seed <= last:
            raise InputError(f"seed is {self.seed}: give a number from 0 to {last}")
        for name in self.scores:
            if name not in SCORE_NAMES:
                raise InputError(unknown_name("score", name, SCORE_NAMES))
        if len(set(self.scores)) < len(self.scores):
            raise InputError(f"scores are {list(self.scores)}: name each one once")
        if self.scoring.threshold == "official":
            self._require_official()
        elif self.train.split == "window":
            raise InputError(
                "train.split=window holds out no clips: set scoring.threshold=official "
                "and scores of windows, or take the preset official"
            )
        n_context = self.features.n_context
        if self.model.target == "centre" and (n_context < 3 or n_context % 2 == 0):
            raise InputError(
                f"model.target=centre needs a middle frame, and features.n_context is "
                f"{n_context}: give an odd number from 3 on"
            )
        self._require_scores_can_be_had()
        if self.score not in self.scores:
            raise InputError(
                f"the headline score {self.score!r} is not among the scores "
                f"{list(self.scores)}: add it, or set score"
            )

    def _require_scores_can_be_had(self) -> None:
        for name in self.computed_scores:
            if name in ("kl", "negative_elbo") and self.model.latent == "deterministic":
                raise InputError(
                    f"score {name!r} needs a posterior: set model.latent=gamma, or "
                    "leave it out"
                )
            if name.startswith("latent_") and self.train.split == "folds":
                raise InputError(
                    f"score {name!r} compares codes of one model, and each fold has "
                    "its own: set train.split=clip, or leave it out"
                )

    def _require_official(self) -> None:
        """The official threshold is made of batches: of one model, and of no clips."""
        if self.train.split == "folds":
            raise InputError(
                "scoring.threshold=official is of one model: set train.split=window "
                "or train.split=clip"
            )
        for name in self.scores:
            if name not in DIRECT_SCORES:
                raise InputError(
                    f"score {name!r} is of clips, scoring.threshold=official of "
                    "batches: leave one of them out"
                )

    @property
    def computed_scores(self) -> tuple[str, ...]:
        """The scores that models give: those asked for, and those to be fused."""
        wanted = [name for name in self.scores if name not in FUSION_SCORES]
        if len(wanted) < len(self.scores):
            wanted += self.scoring.fused
        return tuple(dict.fromkeys(wanted))

    @property
    def n_folds(self) -> int:
        """Models for each seed."""
        return self.train.n_folds if self.train.split == "folds" else 1

    @property
    def n_members(self) -> int:
        """Models of each machine."""
        return self.n_seeds * self.n_folds

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the run: `n_seeds` numbers from `seed` on."""
        return tuple(range(self.seed, self.seed + self.n_seeds))


def _require_positive(config: Any, *names: str) -> None:
    for name in names:
        if not getattr(config, name) > 0:
            raise InputError(f"{name} is {getattr(config, name)}: give more than 0")
