"""Compare variants of the model and its scores on all machines and seeds.

Each variant is a run in `OUT/<variant>`, as `run.py` would write it. `OUT/ablation.md`
has the tables, `OUT/ablation.csv` every number. Finished variants are not run again, so
an interrupted comparison continues where it stopped.
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
    """A title, and the changes to the default preset."""

    title: str
    changes: tuple[str, ...] = ()
    models_of: str | None = None  # the variant whose trained models are scored again


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
    "random_folds": Variant("folds of single clips", ("train.group_distance=0",)),
    "smote": Variant(
        "synthetic target clips (SMOTE)", ("scoring.smote_ratio=0.2",), "default"
    ),
    "gamma_threshold": Variant(
        "thresholds from a fitted Gamma", ("scoring.threshold=gamma",), "default"
    ),
}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_job_options(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        default=Path("runs/ablation"),
        help="folder for results (default: runs/ablation)",
    )
    parser.add_argument(
        "--variants",
        nargs="+",
        metavar="NAME",
        help=f"any of {', '.join(VARIANTS)} (default: all)",
    )
    parser.add_argument(
        "--machines", nargs="+", metavar="NAME", help="default: all machines"
    )
    parser.add_argument("--seeds", type=int, default=5, metavar="K", help="default: 5")
    parser.add_argument(
        "--epochs", type=int, metavar="N", help="default: the default preset's"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="FIELD=VALUE",
        help="set any field of the configuration, for every variant",
    )
    return parser.parse_args(arguments)


def configuration(variant: Variant, options: argparse.Namespace) -> Config:
    """Return the default preset with the variant's changes and every possible score."""
    with_posterior = "model.latent=deterministic" not in variant.changes
    scores = [
        name
        for name in SCORE_NAMES
        if (with_posterior or name not in ("kl", "negative_elbo"))
        # The codes of different folds' models cannot be compared.
        and not name.startswith("latent_")
    ]
    given = [f"n_seeds={options.seeds}"]
    if options.epochs is not None:
        given.append(f"train.epochs={options.epochs}")
    every = "scores=[" + ",".join(f'"{name}"' for name in scores) + "]"
    return override(preset("default"), [*given, *options.set, every, *variant.changes])


def chosen_variants(options: argparse.Namespace) -> dict[str, Variant]:
    """Return the variants to run, each after the one whose models it uses.

    Raises:
        InputError: there is no variant of that name.
    """
    names = options.variants or list(VARIANTS)
    for name in names:
        if name not in VARIANTS:
            raise InputError(unknown_name("variant", name, VARIANTS))
    needed = {VARIANTS[name].models_of for name in names} - {None}
    return {n: v for n, v in VARIANTS.items() if n in names or n in needed}


def main() -> int:
    """Run the missing variants; return status 1 if a model could not be trained."""
    limit_blas_threads()
    options = parse()
    with readable_errors():
        variants = chosen_variants(options)
        configs = {n: configuration(v, options) for n, v in variants.items()}
        data_root = data_root_or_synthetic(options.data_root)
        machines = tuple(dict.fromkeys(options.machines or find_machines(data_root)))
        config = configs[next(iter(configs))]
        prepare(models_side_by_side(config, len(machines)))

        from rich.console import Console

        from experiments.comparison import run_variant, write_comparison
        from gammavae_jax.data.loading import Job
        from gammavae_jax.log import Log

        log, quiet = Log(Console(stderr=True)), Console(quiet=True)
        all_trained = True
        for name, variant in variants.items():
            job = Job(
                data_root=data_root,
                machines=machines,
                out=options.out / name,
                overwrite=options.overwrite,
                skip_bad_files=options.skip_bad_files,
                year=options.year,
                feature_cache=options.feature_cache,
            )
            log.say(f"variant {name}: {variant.title}")
            models = options.out / variant.models_of if variant.models_of else None
            all_trained &= run_variant(configs[name], job, models, log.console, quiet)
        titles = {name: variant.title for name, variant in variants.items()}
        log.say(write_comparison(options.out, titles))
        return 0 if all_trained else 1


if __name__ == "__main__":
    sys.exit(main())
