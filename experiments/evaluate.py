"""Score and evaluate clips with a checkpoint: `gammavae rescore` as a script.

This is not `gammavae evaluate`, which evaluates existing score files.
"""

import sys

from gammavae_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["rescore", *sys.argv[1:]]))
