"""`gammavae watch`: scores recordings as they appear in a folder."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from gammavae_jax.cli.shared import LiveOptions, models_in_checkpoint, prepare
from gammavae_jax.errors import InputError, printable

if TYPE_CHECKING:
    from gammavae_jax.live.announce import Webhook
    from gammavae_jax.live.watch import FolderWatch

_STATE = ".gammavae-watch.jsonl"


@dataclass(frozen=True)
class Watch(LiveOptions):
    """Score recordings as they appear in a folder, and report alarms."""

    folder: tyro.conf.Positional[Path]
    """Folder to watch, with its subfolders. A subfolder named after a machine holds
    that machine's recordings."""
    machine: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Machine that all recordings belong to. Default: the machine that their subfolder
    is named after, or the only machine of the detector."""
    webhook: Annotated[str | None, tyro.conf.arg(metavar="URL")] = None
    """URL that receives each alarm as JSON, by HTTP POST."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File to which a line of JSON is appended for each recording, stretch of alarms
    and bad file. With '-', these lines go to standard output, others to standard error.
    """
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
    """Seconds without a change after which a file counts as complete."""

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
            problem = f"{printable(self.folder)} is not a folder"
            raise InputError(f"{problem}: choose the folder that receives recordings")
        for option in ("poll", "settle"):
            value = getattr(self, option)
            if not 0 < value < 1e6:
                problem = f"--{option} is {value:g} s"
                raise InputError(f"{problem}: it must be above 0 s and below 1e6 s")

    def _prepare(
        self, stack: contextlib.ExitStack
    ) -> "tuple[FolderWatch, Callable[[], None]]":
        """Return the `FolderWatch`, and a function to call when it has ended.

        The function closes the webhook, and prints a summary.
        """
        from rich.console import Console

        from gammavae_jax.data.recordings import known_machine
        from gammavae_jax.live.announce import Announcer, JsonLines, Webhook
        from gammavae_jax.live.arrivals import ScoredLog
        from gammavae_jax.live.scorer import load_scorer
        from gammavae_jax.live.watch import FolderWatch, WatchOptions
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
        options = WatchOptions(self.folder, machine, self.poll, self.settle)
        announcer = Announcer(log, lines or None, webhook.send if webhook else None)
        watch = FolderWatch(options, scorer, scored, announcer)
        if self.skip_existing:
            watch.skip_existing()
        machines = _names(scorer.machines)
        announcer.say(f"watching {printable(self.folder)} for {machines}")

        def finish() -> None:
            if webhook:
                webhook.close()
            announcer.say(_summary(watch.counts, webhook or None))

        return watch, finish


def _names(machines: Sequence[str]) -> str:
    """List up to eight machines by name, and say how many more there are."""
    names = ", ".join(map(printable, machines[:8]))
    return names + (f" and {len(machines) - 8} more" if machines[8:] else "")


def _summary(counts: Mapping[str, int], webhook: "Webhook | None") -> str:
    text = f"recordings scored: {counts['scored']}, alarms: {counts['alarms']}"
    text += f", bad files: {counts['bad']}"
    if webhook is not None:
        text += f", alarms delivered: {webhook.n_delivered}"
        text += f", not delivered: {webhook.n_undelivered}"
    return text
