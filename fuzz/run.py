"""Fuzz one reader with atheris: `python fuzz/run.py audio -max_total_time=60`.

Options after the name are libFuzzer's. A finding ends the run, with the bytes in a file
`crash-...` in this folder; `python fuzz/run.py audio FILE` tries it again.
Needs `pip install -e ".[fuzz]"`.
"""

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

atheris: Any = importlib.import_module("atheris")  # an extra, and untyped

_READ = ["gammavae_jax", "csv", "email", "json", "zipfile"]


def main() -> None:
    """Fuzz until an option of libFuzzer's says that it is enough."""
    with atheris.instrument_imports(include=_READ):
        from fuzz.targets import TARGETS

    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"give one of {', '.join(TARGETS)}, and options of libFuzzer")
    program, name, *options = sys.argv
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(target.seeds()):
            Path(corpus, str(number)).write_bytes(seed)
        given = [option for option in options if not option.startswith("-")]
        places = [] if given else [corpus]
        defaults = [f"-artifact_prefix={Path(__file__).parent}/", "-rss_limit_mb=4096"]
        arguments = [program, *defaults, *options, *places]
        atheris.Setup(arguments, target.read)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
