"""Compare variants of the model and its scores on all machines and seeds.

Each variant gets a run folder `OUT/<variant>`, like those of `run.py`. The tables are
in `OUT/ablation.md`, and every number is in `OUT/ablation.csv`. Finished variants are
not run again, so an interrupted comparison continues where it stopped.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gammavae_jax.cli.help import MARKERS, RULES
from gammavae_jax.cli.options import JobOptions, Settings, flat
from gammavae_jax.cli.shared import (
    data_root_or_synthetic,
    models_side_by_side,
    prepare,
    readable_errors,
)
from gammavae_jax.config import SCORE_NAMES, Config
from gammavae_jax.config_json import override
from gammavae_jax.data.machines import find_machines
from gammavae_jax.errors import InputError, unknown_name
from gammavae_jax.presets import preset
from gammavae_jax.process import limit_blas_threads


class Variant(NamedTuple):
    """A variant: its title, and its changes to the preset `gammavae`."""

    title: str
    changes: tuple[str, ...] = ()
    models_of: str | None = None  # the variant whose trained models are rescored


def _fusing(*scores: str) -> tuple[str, ...]:
    """Return the changes that make a fusion of these scores the headline score."""
    fused = ",".join(f'"{name}"' for name in scores)
    return "score=fusion_smooth_max", f"scoring.fused=[{fused}]"


_DEFAULT = _fusing(*preset("default").scoring.fused)

VARIANTS: dict[str, Variant] = {
    "gammavae": Variant("GammaVAE (`gammavae`)"),
    "default": Variant("spectrum, maximum, salient (`default`)", _DEFAULT, "gammavae"),
    "varmin": Variant(
        "spectrum, maximum, salient, all by varmin",
        _fusing("spectrum_varmin", "maximum_varmin", "salient_varmin"),
        "gammavae",
    ),
    "with_gamma": Variant(
        "the default and gamma",
        _fusing(*preset("default").scoring.fused, "gamma_varmin"),
        "gammavae",
    ),
    "with_residual": Variant(
        "the default and the GammaVAE's residual",
        _fusing(*preset("default").scoring.fused, "residual_varmin"),
        "gammavae",
    ),
    "spectrum_maximum": Variant(
        "spectrum and maximum",
        _fusing("spectrum_varmin", "maximum_varmin"),
        "gammavae",
    ),
    "autoencoder": Variant(
        "autoencoder", ("model.latent=deterministic", "train.kl_weight=0")
    ),
    "vae": Variant("Gaussian VAE", ("model.latent=gaussian",)),
    "beta_vae": Variant(
        "Gaussian beta-VAE, KL weight 1",
        ("model.latent=gaussian", "train.kl_weight=1"),
    ),
    "light": Variant("KL weight 0.001", ("train.kl_weight=0.001",)),
    "light_mean_variance": Variant(
        "KL weight 0.001, heads of mean and variance",
        ("train.kl_weight=0.001", "model.parameters=mean_variance"),
    ),
    "softmax": Variant("softmax heads", ("model.heads=softmax",)),
    "report": Variant(
        "the report: softmax heads, KL weight 1",
        ("model.heads=softmax", "train.kl_weight=1"),
    ),
    "report_eq2": Variant(
        "the report with Eq. 2 as printed",
        ("model.heads=softmax", "train.kl_weight=1", "model.kl=report_eq2"),
    ),
    "ancestor": Variant("the ancestor's divergence", ("model.kl=ancestor",)),
    "mean_variance": Variant(
        "heads of mean and variance", ("model.parameters=mean_variance",)
    ),
    "warmup": Variant(
        "KL weight 0.1 after a warm-up",
        (
            "train.kl_weight=0.1",
            "train.kl_warmup=10",
        ),
    ),
    "centre": Variant("middle frame predicted", ("model.target=centre",)),
    "centred": Variant("windows minus their mean", ("model.inputs=centred",)),
    "standardised": Variant("standardised inputs", ("model.inputs=standardised",)),
    "bands": Variant(
        "clips minus their level, standardised bands", ("model.inputs=bands",)
    ),
    "likelihood_gamma": Variant(
        "Gamma likelihood of power", ("model.likelihood=gamma", "model.inputs=bands")
    ),
    "likelihood_f": Variant(
        "F likelihood of power", ("model.likelihood=f", "model.inputs=bands")
    ),
    "likelihood_f_elbo": Variant(
        "F likelihood, KL weight of the exact ELBO",
        ("model.likelihood=f", "model.inputs=bands", "train.kl_weight=0.0016"),
    ),
    "likelihood_f_autoencoder": Variant(
        "autoencoder with an F likelihood",
        (
            "model.likelihood=f",
            "model.inputs=bands",
            "model.latent=deterministic",
            "train.kl_weight=0",
        ),
    ),
    "random_folds": Variant("folds of single clips", ("train.group_distance=0",)),
    "smote": Variant(
        "synthetic target clips (SMOTE)", ("scoring.smote_ratio=0.2",), "gammavae"
    ),
    "gamma_threshold": Variant(
        "thresholds from a fitted Gamma", ("scoring.threshold=gamma",), "gammavae"
    ),
}


@dataclass(frozen=True, kw_only=True)
class Ablation(JobOptions):
    """Compare variants of the model and of its scores on the same machines and seeds.

    Finished variants are not run again. To resume an interrupted comparison, run the
    same command again.
    """

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs/ablation")
    """Folder for the results, which will contain a run folder for each variant."""
    variants: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Variants to compare. To list them, pass an unknown name. Default: all."""
    machines: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Machines to use. Default: every machine in --data-root."""
    seeds: Annotated[int, tyro.conf.arg(metavar="K")] = 5
    """Seeds per variant."""
    epochs: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Passes over the training data. Default: as in the preset gammavae."""
    set: Settings = ()
    """Change any field of the configuration, for every variant."""


def parse(arguments: Sequence[str] | None = None) -> Ablation:
    """Parse a command line and return its options."""
    return tyro.cli(Ablation, args=arguments, config=MARKERS, registry=RULES)


def configuration(variant: Variant, options: Ablation) -> Config:
    """Return the preset `gammavae` with the variant's changes and all valid scores."""
    with_posterior = "model.latent=deterministic" not in variant.changes
    scores = [
        name
        for name in SCORE_NAMES
        if (with_posterior or name not in ("kl", "negative_elbo"))
        # Latent codes cannot be compared between the models of different folds.
        and not name.startswith("latent_")
    ]
    given = [f"n_seeds={options.seeds}"]
    if options.epochs is not None:
        given.append(f"train.epochs={options.epochs}")
    every = "scores=[" + ",".join(f'"{name}"' for name in scores) + "]"
    return override(
        preset("gammavae"), [*given, *flat(options.set), every, *variant.changes]
    )


def chosen_variants(options: Ablation) -> dict[str, Variant]:
    """Return the variants to run, each one after the variant whose models it uses.

    Raises:
        InputError: a variant's name is unknown.
    """
    names = options.variants or list(VARIANTS)
    for name in names:
        if name not in VARIANTS:
            raise InputError(unknown_name("variant", name, VARIANTS))
    needed = {VARIANTS[name].models_of for name in names} - {None}
    return {n: v for n, v in VARIANTS.items() if n in names or n in needed}


def main() -> int:
    """Run the unfinished variants; return status 1 if a model could not be trained."""
    limit_blas_threads()
    options = parse()
    with readable_errors():
        variants = chosen_variants(options)
        configs = {n: configuration(v, options) for n, v in variants.items()}
        data_root = data_root_or_synthetic(options.data_root)
        machines = tuple(dict.fromkeys(options.machines or find_machines(data_root)))
        config = configs[next(iter(configs))]
        prepare(models_side_by_side(config, len(machines)))

        from experiments.comparison import run_variant, write_comparison
        from gammavae_jax.log import Log
        from gammavae_jax.runs.folder import RunFolder

        log, all_trained = Log(), True
        source = options.source(data_root, machines)
        for name, variant in variants.items():
            folder = RunFolder(options.out / name, overwrite=options.overwrite)
            log.say(f"variant {name}: {variant.title}")
            models = options.out / variant.models_of if variant.models_of else None
            quiet = log.without_results()
            all_trained &= run_variant(
                configs[name], source, folder, options.year, models, quiet
            )
        titles = {name: variant.title for name, variant in variants.items()}
        log.say(write_comparison(options.out, titles))
        return 0 if all_trained else 1


if __name__ == "__main__":
    sys.exit(main())
