"""Score and evaluate clips with a checkpoint: `gammavae rescore` as a script."""

import sys

from gammavae_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["rescore", *sys.argv[1:]]))
