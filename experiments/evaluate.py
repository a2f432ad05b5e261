"""Score and evaluate test clips with the checkpoint of a run."""

import argparse
import sys
from pathlib import Path

from gammavae_jax.cli.shared import (
    add_job_options,
    data_root_or_synthetic,
    readable_errors,
)
from gammavae_jax.process import limit_blas_threads, models_in_checkpoint, prepare


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="DIR",
        help="the folder 'checkpoint' that a run left, or the folder of a fleet",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder of results"
    )
    add_job_options(parser)
    return parser.parse_args(arguments)


def main() -> int:
    """Run the evaluation."""
    limit_blas_threads()
    options = parse()
    with readable_errors():
        data_root = data_root_or_synthetic(options.data_root)
        prepare(models_in_checkpoint(options.checkpoint))

        from gammavae_jax.data.loading import Source
        from gammavae_jax.log import Log
        from gammavae_jax.runs.fleet.run import evaluate_machines
        from gammavae_jax.runs.folder import RunFolder

        source = Source(
            data_root,
            machines=(),
            skip_bad_files=options.skip_bad_files,
            cache=options.feature_cache,
        )
        folder = RunFolder(options.out, overwrite=options.overwrite)
        evaluate_machines(options.checkpoint, source, folder, options.year, Log())
    return 0


if __name__ == "__main__":
    sys.exit(main())
