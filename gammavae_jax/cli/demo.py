"""`gammavae demo`: the whole workflow on a synthetic machine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from gammavae_jax.errors import InputError, printable, writing
from gammavae_jax.files import atomic_folder

# The last four are for the steps that follow the demo in docs/own-machines.md.
_RECORDINGS = {
    "normal": ("train/*_source_*_00[0-3]*",),
    "today": ("test/*_source_*_000[0-5]*",),
    "healthy": ("test/*_source_*_normal_000[6-9]*", "test/*_source_*_normal_001*"),
    "broken": ("test/*_source_*_anomaly_000[6-9]*", "test/*_source_*_anomaly_001*"),
    "rain": ("train/*_target_*",),
    "rain-later": ("test/*_target_*_normal_*",),
}


@dataclass(frozen=True)
class Demo:
    """Show the whole workflow on a synthetic fan; this takes about a minute or two."""

    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("demo")
    """Folder to create for the recordings, the detector and the report."""

    def run(self) -> int:
        """Make recordings, fit a detector, score new recordings and write a report."""
        import shlex

        from gammavae_jax.cli.fit import Fit
        from gammavae_jax.cli.score import Score

        if self.out.exists():
            remedy = "choose another path for --out"
            raise InputError(f"{printable(self.out)} exists: {remedy}")
        print("The fan in this demo is SYNTHETIC: no sound was recorded.", flush=True)
        with writing(self.out):
            self._copy_recordings()
        detector, page = self.out / "fan.detector", self.out / "report.html"
        out = shlex.quote(str(self.out))
        print(f"+ gammavae fit {out}/normal --out {out}/fan.detector", flush=True)
        Fit((self.out / "normal",), detector).run()
        command = f"gammavae score {out}/fan.detector {out}/today"
        print(f"+ {command} --report {out}/report.html", flush=True)
        return Score(detector, (self.out / "today",), report=page).run()

    def _copy_recordings(self) -> None:
        import shutil

        from gammavae_jax.cli.shared import built_in_set

        fan = built_in_set() / "fan"
        with atomic_folder(self.out) as folder:
            for name, patterns in _RECORDINGS.items():
                (folder / name).mkdir()
                for path in sorted(p for each in patterns for p in fan.glob(each)):
                    shutil.copy(path, folder / name / path.name)
