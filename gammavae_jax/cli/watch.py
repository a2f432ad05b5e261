"""`gammavae watch`: scores recordings as they appear in a folder."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from gammavae_jax.cli.options import LiveOptions, require_between_0_and
from gammavae_jax.cli.shared import models_in_checkpoint, prepare
from gammavae_jax.errors import InputError, path_remedy, printable

if TYPE_CHECKING:
    from gammavae_jax.live.watch import FolderWatch
    from gammavae_jax.live.webhook import QuietSender, Webhook

_STATE = ".gammavae-watch.jsonl"


@dataclass(frozen=True)
class Watch(LiveOptions):
    """Score recordings as they appear in a folder and report alarms."""

    folder: tyro.conf.Positional[Path]
    """Folder to watch, with its subfolders. A subfolder named after a machine holds
    that machine's recordings."""
    machine: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Machine that all recordings belong to. Default: the machine that their subfolder
    is named after, or the only machine of the detector."""
    webhook: Annotated[str | None, tyro.conf.arg(metavar="URL")] = None
    """URL that receives each alarm as JSON, by HTTP POST. With a rule over several
    segments, it also receives the end of each alarm."""
    quiet_hours: Annotated[str | None, tyro.conf.arg(metavar="HH:MM-HH:MM")] = None
    """Daily period, in local time, during which nothing is posted to --webhook. What
    was held back is posted as one message when the period ends."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File to which a line of JSON is appended for each recording, each bad file and,
    with a rule over several segments, each alarm and its end. With '-', these lines go
    to standard output, others to standard error."""
    once: bool = False
    """Score the recordings that are present, then exit."""
    skip_existing: bool = False
    """Do not score the recordings that are present at the start."""
    state: Path | None = None
    """File that lists the scored recordings, so that none is scored twice. Default:
    .gammavae-watch.jsonl in the folder."""
    poll: float = 1.0
    """Seconds from one check of the folder to the next."""
    settle: float = 2.0
    """Seconds without a change after which a file is considered complete."""

    def run(self) -> int:
        """Watch until interrupted or, with --once, until all recordings are scored."""
        self._check_options()
        prepare(models_in_checkpoint(self.detector))
        from gammavae_jax.live.announce import OutputLost

        with contextlib.ExitStack() as stack:
            watch, finish = self._prepare(stack)
            stack.callback(finish)
            try:
                watch.run_once() if self.once else watch.run()
            except OutputLost as error:
                raise InputError(str(error)) from error
        return 0

    def _check_options(self) -> None:
        if not self.folder.is_dir():
            remedy = "choose the folder that receives recordings"
            if not self.folder.exists():
                remedy = path_remedy(self.folder, remedy)
            raise InputError(f"{printable(self.folder)} is not a folder: {remedy}")
        require_between_0_and("1e6", self, "poll", "settle", unit=" s")
        self.check_alarm_options()
        if self.quiet_hours is None:
            return
        from gammavae_jax.live.webhook import QuietHours

        QuietHours.parse(self.quiet_hours)
        if not (self.webhook and self.has_policy):
            raise InputError(
                "--quiet-hours needs --webhook and an alarm policy: add --webhook, and "
                "--false-alarms-per-day or --alarm-after"
            )

    def _prepare(
        self, stack: contextlib.ExitStack
    ) -> "tuple[FolderWatch, Callable[[], None]]":
        """Return the `FolderWatch`, and a function to call when it has ended.

        The function closes the webhook and prints a summary.
        """
        from rich.console import Console

        from gammavae_jax.data.recordings.sources import known_machine
        from gammavae_jax.live.announce import Announcer, JsonLines
        from gammavae_jax.live.scorer import load_scorer
        from gammavae_jax.live.watch import FolderWatch, WatchOptions
        from gammavae_jax.live.watch_state import ScoredLog
        from gammavae_jax.live.webhook import QuietSender, Webhook
        from gammavae_jax.log import Log

        log = Log(Console(stderr=self.json == Path("-")))
        scored = stack.enter_context(ScoredLog(self.state or self.folder / _STATE))
        lines = self.json and stack.enter_context(
            contextlib.closing(JsonLines(self.json))
        )
        webhook = self.webhook and Webhook(
            self.webhook, lambda text: announcer.say(text)
        )
        scorer = load_scorer(self.detector, self.false_alarm_rate, log.say)
        machine = self.machine
        if machine is not None:
            machine = known_machine(machine, scorer.machines)
        alarms = self.alarms(scorer, log.say, scored.alarms_path)
        options = WatchOptions(self.folder, machine, self.poll, self.settle)
        sender = self._quiet(webhook) if webhook and self.quiet_hours else webhook
        announcer = Announcer(log, lines or None, sender.send if sender else None)
        after_poll = sender.release if isinstance(sender, QuietSender) else None
        watch = FolderWatch(options, scorer, scored, announcer, alarms, after_poll)
        if self.skip_existing:
            watch.skip_existing()
        machines = _names(scorer.machines)
        announcer.say(f"watching {printable(self.folder)} for {machines}")

        def finish() -> None:
            if isinstance(sender, QuietSender) and sender.postponed:
                number = len(sender.postponed)
                announcer.say(f"messages from the quiet hours not delivered: {number}")
            if webhook:
                webhook.close()
            what = "messages" if self.has_policy else "alarms"
            announcer.say(_summary(watch.counts, webhook or None, what))

        return watch, finish

    def _quiet(self, webhook: "Webhook") -> "QuietSender":
        """Return a sender that respects the quiet hours."""
        from gammavae_jax.live.webhook import QuietHours, QuietSender

        assert self.quiet_hours is not None
        return QuietSender(webhook.send, QuietHours.parse(self.quiet_hours))


def _names(machines: Sequence[str]) -> str:
    """List up to eight machines by name and say how many more there are."""
    names = ", ".join(map(printable, machines[:8]))
    return names + (f" and {len(machines) - 8} more" if machines[8:] else "")


def _summary(counts: Mapping[str, int], webhook: "Webhook | None", what: str) -> str:
    text = f"recordings scored: {counts['scored']}, alarms: {counts['alarms']}"
    text += f", bad files: {counts['bad']}"
    if webhook is not None:
        text += f", {what} delivered: {webhook.n_delivered}"
        text += f", not delivered: {webhook.n_undelivered}"
    return text
