"""Train, score and evaluate all machines together: `gammavae run` as a script."""

import sys

from gammavae_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
