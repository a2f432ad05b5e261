"""`gammavae serve`: score recordings that are sent by HTTP, and show it on a page."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from gammavae_jax.errors import InputError

if TYPE_CHECKING:
    from gammavae_jax.live.scorer import LiveScorer
    from gammavae_jax.log import Log

_LAST_SECONDS = 2.0  # for what is being scored when the end comes


@dataclass(frozen=True)
class Serve:
    """Score recordings that are sent by HTTP, and show the scores live on a page."""

    detector: Path
    """A detector that was saved, or OUT/checkpoint of a run."""
    host: str = "127.0.0.1"
    """Address to listen at; the default lets nobody in but this computer. There is no
    password: where others are let in, all who reach the port may ask and send."""
    port: int = 8000
    """Port to listen at; 0 takes one that is free."""
    allow_host: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Name that browsers and programs may call this server by, besides its addresses
    and its own name; once for each."""
    window: float | None = None
    """Seconds; a recording of more than one and a half windows is scored window by
    window. Unless given, as long as the clips that the detector has learnt from."""
    hop: float | None = None
    """Seconds from one window to the next; half a window unless given."""
    max_megabytes: float = 32.0
    """Largest recording that is taken."""
    max_seconds: float = 600.0
    """Longest recording that is taken."""
    upload_seconds: float = 30.0
    """Time for a recording to arrive in."""
    score_seconds: float = 60.0
    """Time for a recording to be scored in, waiting included."""
    max_waiting: int = 16
    """Recordings that may wait to be scored; to send one more is answered by 503."""

    def run(self) -> int:
        """Serve until interrupted.

        Raises:
            InputError: a detector, option or address that cannot be used, or a package
                that is missing.
            KeyboardInterrupt: in the end.
        """
        from gammavae_jax.process import models_in_checkpoint, prepare

        self._check()
        prepare(models_in_checkpoint(self.detector))
        from rich.console import Console

        from gammavae_jax.live.announce import Announcer
        from gammavae_jax.live.scorer import load_scorer
        from gammavae_jax.live.windows import rolling
        from gammavae_jax.log import Log

        try:
            from gammavae_jax.live.app import make_application
            from gammavae_jax.live.service import Limits, Service
            from gammavae_jax.live.serving import LiveServer, address, bound
        except ModuleNotFoundError as error:
            raise InputError(
                f"{error.name} is not installed, which serving needs: pip install "
                '"gammavae-jax[serve]"'
            ) from error
        log = Log(Console())
        announcer = Announcer(log)
        with bound(self.host, self.port) as listening:
            scorer = load_scorer(self.detector)
            windows = rolling(scorer, self.window, self.hop)
            limits = Limits(
                round(self.max_megabytes * 1e6),
                self.max_seconds,
                self.upload_seconds,
                self.score_seconds,
                self.max_waiting,
            )
            _warm_up(scorer, windows.window, log)
            service = Service(scorer, windows, limits, announcer)
            application = make_application(service, announcer, self.allow_host)
            announcer.say(f"serving at {address(listening)} (Ctrl-C ends it)")
            try:
                LiveServer(application, service.close).run([listening])
            finally:
                service.worker.join(_LAST_SECONDS)
        return 0

    def _check(self) -> None:
        """What can be said before anything is loaded."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if (
                field.name.startswith(("max", "upload", "score"))
                and not 0 < value < 1e9
            ):
                option = field.name.replace("_", "-")
                raise InputError(
                    f"--{option} is {value:g}: give more than 0 and less than 1e9"
                )


def _warm_up(scorer: "LiveScorer", n_samples: int, log: "Log") -> None:
    """Compile for whole clips and windows, so that the first request need not wait."""
    import numpy as np

    noise = np.random.default_rng(0).normal(0, 0.01, n_samples).astype(np.float32)
    with log.progress("compiling", len(scorer.machines)) as advance:
        for machine in scorer.machines:
            scorer.judge(noise, machine)
            advance(machine)
