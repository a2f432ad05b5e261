"""Fuzz one reader with atheris: `python fuzz/run.py audio -max_total_time=60`.

Options after the name go to libFuzzer. A finding ends the run and is saved as
`crash-...` in this folder; `python fuzz/run.py audio FILE` reads that file again. To
install atheris, run `pip install -e ".[fuzz]"`.
"""

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

atheris: Any = importlib.import_module("atheris")  # an optional package without types

_INSTRUMENTED = ["gammavae_jax", "csv", "email", "json", "zipfile"]


def main() -> None:
    """Fuzz until libFuzzer finds a fault or reaches a limit."""
    with atheris.instrument_imports(include=_INSTRUMENTED):
        from fuzz.targets import TARGETS

    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"pass one of {', '.join(TARGETS)}, then any options for libFuzzer")
    program, name, *options = sys.argv
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(target.seeds()):
            Path(corpus, str(number)).write_bytes(seed)
        has_files = any(not option.startswith("-") for option in options)
        inputs = [] if has_files else [corpus]
        defaults = [f"-artifact_prefix={Path(__file__).parent}/", "-rss_limit_mb=4096"]
        arguments = [program, *defaults, *options, *inputs]
        atheris.Setup(arguments, target.read)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
