"""Every choice of a run, as frozen dataclasses: hashable, so static under `jit`.

One `Config` is the source of truth for the command line (`--set a.b=value`), for
`config.json` in a run's folder and for the copy inside a checkpoint.
"""

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gammavae_jax.errors import InputError

SCORE_NAMES = ("mse", "mahalanobis", "mahalanobis_framewise")


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
    prior_concentration: float = 1.0  # of a Gamma prior
    prior_rate: float = 1.0  # of a Gamma prior
    # Of the network's matrix products; sums and statistics are float32 in any case.
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"

    def __post_init__(self):
        _require_positive(self, "n_latent", "prior_concentration", "prior_rate")
        if not self.hidden or min(self.hidden) < 1:
            raise InputError(f"model.hidden is {self.hidden}: give widths of 1 or more")


@dataclass(frozen=True)
class TrainConfig:
    """How one machine's model is trained."""

    epochs: int = 100
    batch_size: int = 256  # windows
    learning_rate: float = 1e-3  # Adam
    kl_weight: float = 0.01  # of the KL divergence beside the mean squared error
    # "clip" holds out whole clips of each domain; "window", as the official code, any
    # windows, whose neighbours are trained on.
    split: Literal["clip", "window"] = "clip"
    held_out_fraction: float = 0.1
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
        if not self.kl_weight >= 0:
            raise InputError(f"train.kl_weight is {self.kl_weight}: give 0 or more")
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
    # "conformal" is over held-out clips, "official" over batches of 256 windows.
    threshold: Literal["conformal", "official"] = "conformal"
    false_alarm_rate: float = 0.1  # nominal, of the decision threshold

    def __post_init__(self):
        _require_positive(self, "jitter")
        if not 0 < self.false_alarm_rate < 1:
            raise InputError(
                f"scoring.false_alarm_rate is {self.false_alarm_rate}: give a number "
                "between 0 and 1"
            )


@dataclass(frozen=True)
class Config:
    """Everything that decides the numbers of a run, besides the recordings."""

    preset: str = "default"
    score: str = "mse"  # the headline score
    scores: tuple[str, ...] = SCORE_NAMES
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
        if self.train.split == "window" and self.scoring.threshold == "conformal":
            raise InputError(
                "train.split=window holds out no clips: set scoring.threshold=official"
            )
        if self.score not in self.scores:
            raise InputError(
                f"the headline score {self.score!r} is not among the scores "
                f"{list(self.scores)}: add it, or set score"
            )

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the run: `n_seeds` numbers from `seed` on."""
        return tuple(range(self.seed, self.seed + self.n_seeds))


def override(config: Config, assignments: Sequence[str]) -> Config:
    """Apply `dotted.field=value` texts, as `--set` takes them.

    Values are JSON, or bare words where a text is meant: `train.epochs=5`,
    `model.hidden=[64,64]`, `model.heads=softmax`.

    Raises:
        InputError: not an assignment, no such field, or a value of another type.
    """
    tree = to_dict(config)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise InputError(f"{assignment!r} is no assignment: write field=value")
        branch, keys = tree, path.strip().split(".")
        for key in keys[:-1]:
            branch = branch.get(key) if isinstance(branch, dict) else None
        if not isinstance(branch, dict) or keys[-1] not in branch:
            raise InputError(unknown_name("field", path, _field_paths(to_dict(config))))
        if isinstance(branch[keys[-1]], dict):
            raise InputError(
                f"{path!r} is a group of fields: set one of "
                + ", ".join(f"{path}.{name}" for name in branch[keys[-1]])
            )
        try:
            branch[keys[-1]] = json.loads(text)
        except ValueError:
            branch[keys[-1]] = text.strip()
    return from_dict(tree)


def to_dict(config: Config) -> dict[str, Any]:
    """The configuration as JSON types; `from_dict` reads it back."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(tree: dict[str, Any]) -> Config:
    """Read what `to_dict` wrote; absent fields take their defaults.

    Raises:
        InputError: an unknown field, or a value of the wrong type or range.
    """
    return _read(Config, tree, "")


def _read(kind: Any, value: Any, path: str) -> Any:
    """`value` as the annotated type `kind`; `path` names it in messages."""
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        if not isinstance(value, dict):
            raise InputError(f"{path or 'the configuration'} must be an object")
        prefix = f"{path}." if path else ""
        for name in value:
            if name not in hints:
                known = [prefix + hint for hint in hints]
                raise InputError(unknown_name("field", prefix + name, known))
        return typing.cast(Any, kind)(
            **{name: _read(hints[name], v, prefix + name) for name, v in value.items()}
        )
    origin = typing.get_origin(kind)
    if origin is Literal:
        if value in typing.get_args(kind):
            return value
        raise InputError(unknown_name(path, value, typing.get_args(kind)))
    if origin is tuple and isinstance(value, list | tuple):
        element = typing.get_args(kind)[0]
        return tuple(_read(element, v, path) for v in value)
    if kind is float and type(value) is int and abs(value) <= 2**53:
        return float(value)
    if isinstance(kind, type) and type(value) is kind and _is_finite(value):
        return value
    wanted = kind.__name__ if isinstance(kind, type) else str(kind)
    if isinstance(kind, types.GenericAlias):
        wanted = str(kind)
    raise InputError(f"{path} is {value!r}: give a value of type {wanted}")


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _field_paths(tree: dict[str, Any], prefix: str = "") -> list[str]:
    paths = []
    for name, value in tree.items():
        if isinstance(value, dict):
            paths += _field_paths(value, f"{prefix}{name}.")
        else:
            paths.append(prefix + name)
    return paths


def _require_positive(config: Any, *names: str) -> None:
    for name in names:
        if not getattr(config, name) > 0:
            raise InputError(f"{name} is {getattr(config, name)}: give more than 0")


def unknown_name(what: str, name: Any, known: Iterable[str]) -> str:
    """A message for a name that is not among the known ones, with the likeliest."""
    known = list(known)
    # A field is often named right but put in the wrong group.
    near = [k for k in known if k.split(".")[-1] == str(name).split(".")[-1]]
    near = near or difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(known)}"
    return f"unknown {what} {str(name)!r}: {hint}"
