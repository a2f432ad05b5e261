"""`gammavae demo`: all of it once, on a made-up machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Demo:
    """Learn and judge a made-up fan, and show why, in two or three minutes."""

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("demo")
    """Folder for the recordings, the detector and the page."""

    def run(self) -> int:
        """Make recordings, fit, score, and write the page.

        Raises:
            InputError: the folder is there, or cannot be written.
        """
        import shlex
        import shutil

        from gammavae_jax.cli.fit import Fit
        from gammavae_jax.cli.score import Score
        from gammavae_jax.cli.shared import built_in_set
        from gammavae_jax.errors import InputError, printable
        from gammavae_jax.files import atomic_folder

        if self.out.exists():
            raise InputError(f"{printable(self.out)} exists: give another --out")
        print("A made-up fan: SYNTHETIC sounds, not recordings.", flush=True)
        root = built_in_set()
        try:
            with atomic_folder(self.out) as folder:
                for part, take in _PARTS.items():
                    (folder / part).mkdir()
                    for path in sorted((root / "fan").glob(take)):
                        shutil.copy(path, folder / part / path.name)
        except OSError as error:
            raise InputError(
                f"{printable(self.out)} cannot be written ({error.strerror}): give "
                "another --out"
            ) from error
        detector, page = self.out / "fan.detector", self.out / "report.html"
        out = shlex.quote(str(self.out))
        print(f"+ gammavae fit {out}/normal --out {out}/fan.detector", flush=True)
        Fit((self.out / "normal",), detector).run()
        print(
            f"+ gammavae score {out}/fan.detector {out}/today "
            f"--report {out}/report.html",
            flush=True,
        )
        return Score(detector, (self.out / "today",), report=page).run()


_PARTS = {
    "normal": "train/*_source_*_00[0-3]*",
    "today": "test/*_source_*_000[0-5]*",
}
