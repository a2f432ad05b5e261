"""`gammavae serve`: scores recordings sent over HTTP."""

import dataclasses
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

import tyro

from gammavae_jax.cli.options import LiveOptions, require_between_0_and
from gammavae_jax.cli.shared import models_in_checkpoint, prepare
from gammavae_jax.errors import InputError

if TYPE_CHECKING:
    from gammavae_jax.live.scorer import LiveScorer
    from gammavae_jax.log import Log

_WARM_UP_SECONDS = 10.0  # if recordings are not cut into clips
_LAST_SECONDS = 2.0  # time limit for finishing the recording being scored


@dataclass(frozen=True)
class Serve(LiveOptions):
    """Score recordings sent over HTTP and show the scores on a live page."""

    host: str = "127.0.0.1"
    """Address to listen on; the default accepts connections from this computer only.
    There is no password: put a reverse proxy in front of an exposed port."""
    port: int = 8000
    """Port to listen on; 0 picks a free one."""
    allow_host: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Name by which clients may address this server, in addition to its addresses and
    its host name. Repeat the option for more names."""
    max_megabytes: float = 32.0
    """Largest recording to accept, in megabytes."""
    max_seconds: float = 600.0
    """Longest recording to accept, in seconds."""
    upload_seconds: float = 30.0
    """Time limit for receiving a recording, in seconds."""
    score_seconds: float = 60.0
    """Time limit for scoring a recording, in seconds, including its time in queue."""
    max_waiting: int = 16
    """Number of recordings that may wait in the queue; others are refused with status
    503."""

    def run(self) -> int:
        """Serve until interrupted."""
        names = [field.name for field in dataclasses.fields(self)]
        limits = [n for n in names if n.startswith(("max", "upload", "score"))]
        require_between_0_and("1e9", self, *limits)
        self.check_alarm_options()
        prepare(models_in_checkpoint(self.detector))
        from rich.console import Console

        from gammavae_jax.live.announce import Announcer
        from gammavae_jax.live.scorer import load_scorer
        from gammavae_jax.log import Log

        try:
            from gammavae_jax.live.app import LiveServer, make_application
            from gammavae_jax.live.service import Limits, Service
        except ModuleNotFoundError as error:
            raise InputError(
                f"{error.name} is not installed, but serving needs it: "
                'pip install "gammavae-jax[serve]"'
            ) from error
        log = Log(Console())
        announcer = Announcer(log)
        with listening_socket(self.host, self.port) as listener:
            scorer = load_scorer(self.detector, self.false_alarm_rate, log.say)
            limits = Limits(
                round(self.max_megabytes * 1e6),
                self.max_seconds,
                self.upload_seconds,
                self.score_seconds,
                self.max_waiting,
            )
            alarms = self.alarms(scorer, log.say)
            _warm_up(scorer, log)
            service = Service(scorer, limits, announcer, alarms)
            application = make_application(service, announcer, self.allow_host)
            announcer.say(f"serving at {url_of(listener)} (press Ctrl-C to stop)")
            try:
                LiveServer(application, service.close).run([listener])
            finally:
                service.thread.join(_LAST_SECONDS)
        return 0


def listening_socket(host: str, port: int) -> socket.socket:
    """Open a socket that listens on this address.

    Raises:
        InputError: the address cannot be used.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"cannot listen on {host} port {port} ({reason}): use another value for "
            "--host or --port"
        ) from error


def url_of(listener: socket.socket) -> str:
    """Return the URL of the live page, which is served on this socket."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _warm_up(scorer: "LiveScorer", log: "Log") -> None:
    """Compile the functions that score clips, so that the first request is fast."""
    import numpy as np

    seconds = scorer.clip_seconds or _WARM_UP_SECONDS
    n_samples = round(seconds * scorer.sample_rate)
    noise = np.random.default_rng(0).normal(0, 0.01, n_samples).astype(np.float32)
    with log.progress("compiling", len(scorer.machines)) as advance:
        for machine in scorer.machines:
            scorer.examine(noise, noise, machine)
            advance(machine)
