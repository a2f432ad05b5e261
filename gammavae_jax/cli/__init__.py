"""The `gammavae` command: its subcommands and their options."""

from typing import Any


def __getattr__(name: str) -> Any:
    """Import the function `main` when it is first used."""
    if name != "main":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from gammavae_jax.cli.main import main

    globals()[name] = main  # replaces the submodule of that name
    return main
