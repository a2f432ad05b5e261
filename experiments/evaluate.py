"""Score and evaluate test clips with a run's checkpoint: `gammavae rescore`."""

import sys

from gammavae_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["rescore", *sys.argv[1:]]))
