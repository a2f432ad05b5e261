"""All settings of a run, as frozen dataclasses that can be static arguments in JAX.

`config_json` reads and writes them. The command line (`--set a.b=value`), `config.json`
in a run's folder and the copy inside a checkpoint all use one `Config`.
"""

from dataclasses import dataclass, field
from typing import Literal

from gammavae_jax.errors import RATE, InputError, require, require_pattern, unknown_name

# Scores computed from a single clip or from Gaussian fits; see `scoring.residuals`.
DIRECT_SCORES = (
    *("mse", "mse_top", "mse_max", "mse_ranked"),
    *("mahalanobis", "mahalanobis_framewise", "kl", "negative_elbo"),
)
# Distances from a clip to the nearest training clips, measured in one statistic; see
# `scoring.neighbours`.
MODEL_FREE_STATISTICS = ("spectrum", "gamma", "maximum", "salient")  # of the log-mels
STATISTICS = (*MODEL_FREE_STATISTICS, "residual", "peak", "latent")
RULES = ("neighbour", "density", "varmin")  # make distances to clips comparable
NEIGHBOUR_SCORES = tuple(f"{name}_{rule}" for rule in RULES for name in STATISTICS)
# Combinations of scores that are standardised on held-out clips; see `scoring.fusion`.
FUSION_SCORES = ("fusion_mean", "fusion_max", "fusion_min", "fusion_smooth_max")
SCORE_NAMES = DIRECT_SCORES + NEIGHBOUR_SCORES + FUSION_SCORES
OFFICIAL_SCORES = ("mse", "mahalanobis", "mahalanobis_framewise")
LARGEST_SEED = 2**31 - 1
_MODEL_FREE = ("spectrum_varmin", "maximum_varmin", "salient_neighbour")


@dataclass(frozen=True)
class FeatureConfig:
    """The settings of log-mel windows; the defaults are the official baseline's."""

    sample_rate: int = 16000  # Hz; challenge recordings at other rates are rejected
    channel: int = 0  # the channel to read from a multi-channel recording
    # The channel of a second microphone, far from the machine. The part of `channel`
    # that it predicts is subtracted; see `data.reference_channel`.
    reference_channel: int | None = None
    n_fft: int = 1024  # samples
    hop_length: int = 512  # samples
    n_mels: int = 128
    power: float = 2.0  # exponent of the magnitude spectrum
    n_context: int = 5  # frames in a window

    def __post_init__(self):
        positive = "sample_rate", "n_fft", "hop_length", "n_mels", "power", "n_context"
        require(self, "features.", "must be greater than 0", *positive)
        require(self, "features.", "must be at least 0", "channel")
        if self.reference_channel is not None:
            require(self, "features.", "must be at least 0", "reference_channel")
        if self.reference_channel == self.channel:
            raise InputError(
                f"features.channel and features.reference_channel are both "
                f"{self.channel}: set the latter to another channel, or to null"
            )

    @property
    def channels(self) -> int | tuple[int, int]:
        """The channel to read, or a pair of this channel and the reference channel."""
        if self.reference_channel is None:
            return self.channel
        return self.channel, self.reference_channel

    @property
    def n_features(self) -> int:
        """The number of values in a window: `n_context * n_mels`."""
        return self.n_context * self.n_mels


@dataclass(frozen=True)
class ModelConfig:
    """The settings of the model, its latent code and its KL divergence."""

    latent: Literal["deterministic", "gamma", "gaussian"] = "gamma"
    hidden: tuple[int, ...] = (128, 128, 128, 128)  # the same for encoder and decoder
    n_latent: int = 8
    heads: Literal["softmax", "softplus"] = "softplus"  # for a Gamma posterior
    # What the two heads of a Gamma posterior parameterise.
    parameters: Literal["concentration_rate", "mean_variance"] = "concentration_rate"
    # "exact" is KL(posterior || prior). "report_eq2" is the formula in the report,
    # "ancestor" the one in the code on which the report is based. Both differ from the
    # exact divergence: see docs/method.md.
    kl: Literal["exact", "report_eq2", "ancestor"] = "exact"
    prior_concentration: float = 1.0  # for a Gamma prior
    prior_rate: float = 1.0  # for a Gamma prior
    sampler: Literal["tfp", "built_in"] = "tfp"  # of Gammas: see `models.gamma_sampler`
    # The distribution of a value around its reconstruction. "gaussian_db" is a squared
    # error in dB; "gamma" and "f" are likelihoods of power: see `models.likelihood`.
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
        require(self, "model.", "must be greater than 0", *positive)
        if min(self.hidden, default=0) < 1:
            raise InputError(f"model.hidden is {self.hidden}: use widths of at least 1")
        if self.has_power_likelihood and self.inputs in ("centred", "standardised"):
            raise InputError(
                f"model.inputs={self.inputs} does not work with model.likelihood="
                f"{self.likelihood}, which normalises each band: set model.inputs=bands"
            )
        if self.kl != "exact" and self.latent != "gamma":
            remedy = "set model.latent=gamma"
            raise InputError(f"model.kl={self.kl} needs a Gamma posterior: {remedy}")
        if self.kl == "report_eq2" and self.prior_concentration > 1:
            problem = "model.kl=report_eq2 has no minimum if prior_concentration > 1"
            raise InputError(f"{problem}: set model.prior_concentration to at most 1")

    @property
    def has_power_likelihood(self) -> bool:
        """Whether the loss is a likelihood of power, not a squared error in dB."""
        return self.likelihood in ("gamma", "f")

    @property
    def normalises_bands(self) -> bool:
        """Whether each clip's level is subtracted, and each band is normalised."""
        return self.inputs == "bands" or self.has_power_likelihood


@dataclass(frozen=True)
class TrainConfig:
    """The training settings, which all models share."""

    epochs: int = 20
    batch_size: int = 256  # windows
    learning_rate: float = 1e-3  # of Adam
    kl_weight: float = 0.01  # of the KL divergence, relative to the reconstruction term
    kl_warmup: int = 0  # epochs during which the KL weight rises from 0
    # "folds" trains one model per fold and holds out whole clusters of similar clips.
    # "clip" trains one model and holds out some clips of each domain. "window", as in
    # the official code, holds out random windows but trains on the windows around them.
    split: Literal["folds", "clip", "window"] = "folds"
    n_folds: int = 5  # for split "folds"
    # Clips form a group if this regular expression matches the same text in each path:
    # they are held out together, and never compared. Empty: each recording is a group.
    group_by: str = ""
    # "sessions": clips with equal attributes in their names are never compared either.
    attributes: Literal["sessions", "ignore"] = "sessions"
    # Two clips are treated as similar if their distance is less than this fraction of
    # the median distance.
    group_distance: float = 0.7
    held_out_fraction: float = 0.1  # for the other splits
    checkpoint_every: int = 10  # epochs
    # On each device, models train together ("vmap") or one at a time ("map", which
    # "auto" chooses on CPUs).
    batching: Literal["auto", "vmap", "map"] = "auto"

    def __post_init__(self):
        positive = "epochs", "learning_rate", "checkpoint_every"
        not_negative = "kl_weight", "kl_warmup", "group_distance"
        require(self, "train.", "must be greater than 0", *positive)
        require(self, "train.", "must be at least 0", *not_negative)
        require(self, "train.", "must be between 0 and 1", "held_out_fraction")
        require(self, "train.", "must be at least 2 windows", "batch_size")
        several = "must be at least 2; for one model, set train.split=clip"
        require(self, "train.", several, "n_folds")
        require_pattern("train.group_by", self.group_by)


@dataclass(frozen=True)
class ScoringConfig:
    """The settings for computing scores from residuals, and decisions from scores."""

    # "official" centres residuals on each batch's mean, "pooled" on the overall mean.
    covariance: Literal["official", "pooled"] = "official"
    jitter: float = 1e-6  # added to a covariance's diagonal, relative to its mean
    # "conformal" and "gamma" (a quantile of a fitted Gamma distribution) use held-out
    # clips; "official" fits a Gamma distribution to scores of batches of 256 windows.
    threshold: Literal["conformal", "gamma", "official"] = "conformal"
    false_alarm_rate: float = 0.1  # nominal rate at the decision threshold
    fused: tuple[str, ...] = _MODEL_FREE  # the scores that the fusion scores combine
    n_density_neighbours: int = 4  # to estimate the density of training clips
    # SMOTE adds interpolated target clips up to this multiple of the source clips.
    smote_ratio: float = 0.0
    by_domain: bool = False  # one conformal threshold per domain; see `scoring.domains`

    def __post_init__(self):
        positive = "jitter", "n_density_neighbours"
        require(self, "scoring.", "must be greater than 0", *positive)
        require(self, "scoring.", "must be from 0 to 1", "smote_ratio")
        require(self, "scoring.", RATE, "false_alarm_rate")
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
    score: str = "fusion_smooth_max"  # the headline score
    scores: tuple[str, ...] = ("fusion_smooth_max", *_MODEL_FREE, *OFFICIAL_SCORES)
    seed: int = 13711
    n_seeds: int = 1  # the seeds are seed, seed + 1, ...
    features: FeatureConfig = field(default_factory=FeatureConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    scoring: ScoringConfig = field(default_factory=ScoringConfig)

    def __post_init__(self):
        require(self, "", "must be greater than 0", "n_seeds")
        last = LARGEST_SEED + 1 - self.n_seeds
        if not 0 <= self.seed <= last:
            raise InputError(f"seed is {self.seed}: it must be from 0 to {last}")
        for name in self.scores:
            if name not in SCORE_NAMES:
                raise InputError(unknown_name("score", name, SCORE_NAMES))
        if len(set(self.scores)) < len(self.scores):
            raise InputError(f"scores are {list(self.scores)}: list each score once")
        if self.scoring.threshold == "official":
            self._check_official_threshold()
        elif self.train.split == "window":
            raise InputError(
                "train.split=window holds out no clips: set scoring.threshold=official "
                "and choose scores computed per window, or use the preset 'official'"
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
                remedy = "set model.latent=gamma, or omit this score"
                raise InputError(f"score {name!r} needs a posterior: {remedy}")
            if name.startswith("latent_") and self.train.split == "folds":
                raise InputError(
                    f"score {name!r} compares latent codes of a single model, but each "
                    "fold has its own model: set train.split=clip, or omit this score"
                )

    def _check_official_threshold(self) -> None:
        if self.train.split == "folds":
            problem = "scoring.threshold=official needs a single model"
            raise InputError(f"{problem}: set train.split=window or train.split=clip")
        if self.model.has_power_likelihood:
            raise InputError(
                "scoring.threshold=official works only with squared errors: set "
                "model.likelihood=gaussian_db, or scoring.threshold=conformal"
            )
        for name in self.scores:
            if name not in DIRECT_SCORES:
                raise InputError(
                    f"score {name!r} is computed per clip, but "
                    "scoring.threshold=official works on batches: change one of them"
                )

    @property
    def computed_scores(self) -> tuple[str, ...]:
        """The requested scores, with each fusion replaced by the scores it combines."""
        scores = [name for name in self.scores if name not in FUSION_SCORES]
        if len(scores) < len(self.scores):
            scores += self.scoring.fused
        return tuple(dict.fromkeys(scores))

    @property
    def needs_model(self) -> bool:
        """Whether any of the scores is computed from the model's output."""
        statistics = {name.rpartition("_")[0] for name in self.computed_scores}
        return not statistics <= set(MODEL_FREE_STATISTICS)

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
