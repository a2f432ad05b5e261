"""Compare variants of the model and of its scores: every one, all machines, all seeds.

Each variant is a run of its own in `OUT/<variant>`, as `run.py` would make it. The
table of all is `OUT/ablation.md`, every number `OUT/ablation.csv`. A variant that has
been run is not run again, so an interrupted comparison goes on where it stopped.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gammavae_jax.cli.shared import (
    add_job_options,
    data_root_or_synthetic,
    models_side_by_side,
    readable_errors,
)
from gammavae_jax.config import SCORE_NAMES, Config
from gammavae_jax.config_json import override
from gammavae_jax.data.machines import find_machines
from gammavae_jax.errors import InputError, unknown_name
from gammavae_jax.presets import preset
from gammavae_jax.process import limit_blas_threads, prepare


class Variant(NamedTuple):
    """What is changed of the default preset, and what that is called."""

    title: str
    changes: tuple[str, ...] = ()
    scored_anew: str | None = None  # the variant whose trained models it takes


VARIANTS: dict[str, Variant] = {
    "default": Variant("GammaVAE (default)"),
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
        "the report's: softmax heads, KL weight 1",
        ("model.heads=softmax", "train.kl_weight=1"),
    ),
    "report_eq2": Variant(
        "the report's, Eq. 2 as printed",
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
    "centred": Variant("windows less their mean", ("model.inputs=centred",)),
    "standardised": Variant("standardised inputs", ("model.inputs=standardised",)),
    "random_folds": Variant("folds of single clips", ("train.group_distance=0",)),
    "smote": Variant(
        "target clips filled up (SMOTE)", ("scoring.smote_ratio=0.2",), "default"
    ),
    "gamma_threshold": Variant(
        "thresholds of a fitted Gamma", ("scoring.threshold=gamma",), "default"
    ),
}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_job_options(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        default=Path("runs/ablation"),
        help="folder of results (runs/ablation)",
    )
    parser.add_argument(
        "--variants", nargs="+", metavar="NAME", help=f"of {', '.join(VARIANTS)}"
    )
    parser.add_argument(
        "--machines", nargs="+", metavar="NAME", help="all unless given"
    )
    parser.add_argument("--seeds", type=int, default=5, metavar="K", help="5")
    parser.add_argument("--epochs", type=int, metavar="N", help="the default preset's")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="FIELD=VALUE",
        help="any field of the configuration, for every variant",
    )
    return parser.parse_args(arguments)


def configuration(variant: Variant, options: argparse.Namespace) -> Config:
    """The default preset, every score that the variant can have, and its changes."""
    with_posterior = "model.latent=deterministic" not in variant.changes
    scores = [
        name
        for name in SCORE_NAMES
        if (with_posterior or name not in ("kl", "negative_elbo"))
        # Folds have models of their own, whose codes cannot be compared.
        and not name.startswith("latent_")
    ]
    given = [f"n_seeds={options.seeds}"]
    if options.epochs is not None:
        given.append(f"train.epochs={options.epochs}")
    every = "scores=[" + ",".join(f'"{name}"' for name in scores) + "]"
    return override(preset("default"), [*given, *options.set, every, *variant.changes])


def chosen_variants(options: argparse.Namespace) -> dict[str, Variant]:
    """The variants to be run, each after the one whose models it takes.

    Raises:
        InputError: no variant has that name.
    """
    names = options.variants or list(VARIANTS)
    for name in names:
        if name not in VARIANTS:
            raise InputError(unknown_name("variant", name, VARIANTS))
    needed = {VARIANTS[name].scored_anew for name in names} - {None}
    return {n: v for n, v in VARIANTS.items() if n in names or n in needed}


def main() -> int:
    """Run what has not been run; the exit status is 1 if a model broke down."""
    limit_blas_threads()
    options = parse()
    with readable_errors():
        variants = chosen_variants(options)
        configs = {n: configuration(v, options) for n, v in variants.items()}
        data_root = data_root_or_synthetic(options.data_root)
        machines = tuple(dict.fromkeys(options.machines or find_machines(data_root)))
        config = configs[next(iter(configs))]
        prepare(models_side_by_side(config, len(machines)))

        from experiments.comparison import write_comparison
        from experiments.variants import run_variant
        from gammavae_jax.data.loading import Source
        from gammavae_jax.log import Log
        from gammavae_jax.runs.folder import RunFolder

        log, whole = Log(), True
        source = Source(data_root, machines, skip_bad_files=options.skip_bad_files)
        for name, variant in variants.items():
            folder = RunFolder(options.out / name, overwrite=options.overwrite)
            log.say(f"variant {name}: {variant.title}")
            models = options.out / variant.scored_anew if variant.scored_anew else None
            config, year = configs[name], options.year
            of_variant = log.without_results()
            whole &= run_variant(config, source, folder, year, models, of_variant)
        titles = {name: variant.title for name, variant in variants.items()}
        log.say(write_comparison(options.out, titles))
        return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
