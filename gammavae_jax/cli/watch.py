"""`gammavae watch`: score the recordings that appear in a folder."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from gammavae_jax.errors import InputError, printable, unknown_name

if TYPE_CHECKING:
    from gammavae_jax.live.watch import FolderWatch
    from gammavae_jax.live.webhook import Webhook

_STATE = ".gammavae-watch.jsonl"


@dataclass(frozen=True)
class Watch:
    """Score new recordings in a folder as they appear, and tell of alarms."""

    folder: tyro.conf.Positional[Path]
    """Folder to be watched, with its subfolders; those named as a machine hold its
    recordings."""
    detector: Path
    """A detector that was saved, or OUT/checkpoint of a run."""
    machine: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Whose recordings these are, where folders do not say so."""
    window: float | None = None
    """Seconds; a recording of more than one and a half windows is scored window by
    window. Unless given, as long as the clips that the detector has learnt from."""
    hop: float | None = None
    """Seconds from one window to the next; half a window unless given."""
    webhook: Annotated[str | None, tyro.conf.arg(metavar="URL")] = None
    """Address that gets each alarm as JSON, by HTTP POST."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File that a line of JSON is added to for each recording, stretch of alarm and bad
    file; '-' is standard output, and the lines for people then go to standard error."""
    once: bool = False
    """Score what is there and not yet scored, and end."""
    skip_existing: bool = False
    """Take what is there at the start as scored."""
    state: Path | None = None
    """File that keeps which recordings were scored, so that none is scored twice; in
    the folder itself unless given."""
    poll: float = 1.0
    """Seconds between two looks into the folder."""
    settle: float = 2.0
    """Seconds that a file must have stayed the same to count as whole."""

    def run(self) -> int:
        """Watch, until interrupted or, if asked to, until all is scored.

        Raises:
            InputError: a folder, detector, option or file that cannot be used; or the
                reader of --json has gone.
            KeyboardInterrupt: after a summary.
        """
        from gammavae_jax.process import models_in_checkpoint, prepare

        self._check()
        prepare(models_in_checkpoint(self.detector))
        from gammavae_jax.live.announce import OutputLost

        with contextlib.ExitStack() as stack:
            watch, finish = self._prepared(stack)
            stack.callback(finish)
            try:
                watch.run_once() if self.once else watch.run()
            except OutputLost as error:
                raise InputError(str(error)) from error
        return 0

    def _check(self) -> None:
        """What can be said before anything is loaded."""
        if not self.folder.is_dir():
            raise InputError(
                f"{printable(self.folder)}: there is no such folder: give the one that "
                "recordings are put into"
            )
        for option in ("poll", "settle"):
            value = getattr(self, option)
            if not 0 < value < 1e6:
                raise InputError(f"--{option} is {value:g} s: give more than 0")

    def _prepared(
        self, stack: contextlib.ExitStack
    ) -> "tuple[FolderWatch, Callable[[], None]]":
        """The watch, and what is to be done at its end."""
        from rich.console import Console

        from gammavae_jax.live.announce import Announcer, JsonLines
        from gammavae_jax.live.scored_log import ScoredLog
        from gammavae_jax.live.scorer import load_scorer
        from gammavae_jax.live.watch import FolderWatch, Watched
        from gammavae_jax.live.webhook import Webhook
        from gammavae_jax.live.windows import rolling
        from gammavae_jax.log import Log

        log = Log(Console(stderr=self.json == Path("-")))
        scored = stack.enter_context(ScoredLog(self.state or self.folder / _STATE))
        lines = self.json and stack.enter_context(
            contextlib.closing(JsonLines(self.json))
        )
        webhook = self.webhook and Webhook(
            self.webhook, lambda text: announcer.say(text)
        )
        scorer = load_scorer(self.detector)
        if self.machine is not None and self.machine not in scorer.machines:
            raise InputError(unknown_name("machine", self.machine, scorer.machines))
        windows = rolling(scorer, self.window, self.hop)
        watched = Watched(self.folder, self.machine, windows, self.poll, self.settle)
        announcer = Announcer(log, lines or None, webhook.send if webhook else None)
        watch = FolderWatch(watched, scorer, scored, announcer)
        if self.skip_existing:
            watch.know_all()
        announcer.say(f"watching {printable(self.folder)} for {_list(scorer.machines)}")

        def finish() -> None:
            if webhook:
                webhook.close()
            announcer.say(_summary(watch.counts, webhook or None))

        return watch, finish


def _list(machines: Sequence[str]) -> str:
    """Not all the names where there are hundreds."""
    named = ", ".join(map(printable, machines[:8]))
    return named + (f" and {len(machines) - 8} more" if machines[8:] else "")


def _summary(counts: Mapping[str, int], webhook: "Webhook | None") -> str:
    text = (
        f"recordings scored: {counts['scored']}, alarms: {counts['alarms']}, bad "
        f"files: {counts['bad']}"
    )
    if webhook is not None:
        text += f", alarms delivered: {webhook.n_delivered}"
        text += f", not delivered: {webhook.n_given_up}"
    return text
