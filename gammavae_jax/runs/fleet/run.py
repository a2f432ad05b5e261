"""Processes machines wave by wave if they do not all fit in memory.

A fleet's folder holds `fleet.json`, a run folder for each wave, and the combined
results. Finished waves are not run again.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import jax

from gammavae_jax.config import Config
from gammavae_jax.data.loading import Machines, Source, find_in_turn
from gammavae_jax.data.recording_notes import note_left_out
from gammavae_jax.devices.cluster import together
from gammavae_jax.errors import InputError, writing
from gammavae_jax.evaluation.metrics import definition_of
from gammavae_jax.files import remove
from gammavae_jax.log import Log
from gammavae_jax.runs.fleet.loader import load_in_turn
from gammavae_jax.runs.fleet.plan import (
    WavePlan,
    all_fit,
    free_memory,
    is_fleet,
    plan_waves,
    read_plan,
    require_same_plan,
    wave_folder,
    wave_folders,
    wave_size_that_fits,
    write_plan,
)
from gammavae_jax.runs.fleet.results import write_fleet_results
from gammavae_jax.runs.fleet.survey import measure_fleet
from gammavae_jax.runs.folder import (
    RunFolder,
    begin_folder,
    is_finished,
    read_config,
    settle_folder,
)
from gammavae_jax.runs.publication import Origin
from gammavae_jax.runs.result_files import has_results
from gammavae_jax.runs.resume import (
    require_no_more_epochs,
    require_same_training,
    trains_alike,
)
from gammavae_jax.runs.run import (
    Capacities,
    load_all,
    locked,
    rescore,
    run,
    run_loaded,
    run_locked,
)


def run_machines(
    config: Config,
    source: Source,
    folder: RunFolder,
    year: int | None,
    wave_size: int | None,
    log: Log,
) -> bool:
    """Train, score and evaluate machines, in waves if they do not all fit in memory.

    `wave_size` is the number of machines in a wave; by default, as many as fit. For
    `year`, see `run`.

    Returns:
        Whether every model finished training.

    Raises:
        InputError: the input cannot be used. Finished waves are kept.
    """
    definition_of(year)  # refuses a bad year before any work
    together(lambda: note_left_out(source.root, source.machines, log))
    out = folder.path
    if jax.process_count() > 1:
        if wave_size is not None or (folder.resume and is_fleet(out)):
            raise InputError(
                "waves need a single process: omit --distributed, or run each process "
                "with its own machines and its own folder for --out"
            )
        return run(config, source, folder, year, log)
    with locked(folder):
        plan = _plan(config, source, folder, year, wave_size, log)
        if plan is None:
            return run_locked(config, source, folder, year, log)
        before = read_config(out)
        if before is not None and is_fleet(out) and folder.resume:
            require_same_training(config, before, out)
            require_no_more_epochs(config, out)
            settle_folder(out, config)
        else:
            begin_folder(out, config)
            write_plan(out, plan)
        _run_waves(config, source, plan, out, log)
        origin = Origin(source.root, plan.year)
        return write_fleet_results(config, origin, plan, out, log)


def describe_waves(
    config: Config, source: Source, folder: RunFolder, wave_size: int | None, log: Log
) -> None:
    """Show whether `run_machines` would train in waves and, if known, in how many."""
    if jax.process_count() > 1:
        return
    n_machines = len(source.machines)
    if folder.resume and is_fleet(folder.path):
        wave_size = read_plan(folder.path).wave_size
    if wave_size is None:
        if not all_fit(find_in_turn(source), config):
            log.show("this run would train in waves, unless all machines fit in memory")
    elif wave_size < n_machines:
        n_waves = -(-n_machines // wave_size)
        log.show(f"this run would train in {n_waves} waves (--wave-size {wave_size})")


def rescore_machines(
    checkpoint: Path, source: Source, folder: RunFolder, year: int | None, log: Log
) -> None:
    """Evaluate a checkpoint, or evaluate a fleet wave by wave.

    Raises:
        InputError: the fleet is not finished; for other errors, see `rescore`.
    """
    definition_of(year)  # refuses a bad year before any work
    if not is_fleet(checkpoint):
        # Arrays of the fleet's capacity give a wave the same scores, bit for bit.
        fleet = checkpoint.resolve().parent.parent.parent
        capacity = read_plan(fleet).test if is_fleet(fleet) else None
        rescore(checkpoint, source, folder, year, log, capacity)
        return
    fleet, out = checkpoint.resolve(), folder.path.resolve()
    if fleet.is_relative_to(out) or out.is_relative_to(fleet):
        raise InputError(
            f"{str(folder.path)!r} is, contains or is inside the fleet's folder: "
            "choose another path for --out"
        )
    with locked(folder._replace(resume=False)):
        _rescore_waves(checkpoint, source, folder.path, year, log)


def _rescore_waves(
    checkpoint: Path, source: Source, out: Path, year: int | None, log: Log
) -> None:
    plan = read_plan(checkpoint)
    waves = wave_folders(checkpoint, plan)
    for number, wave in enumerate(waves):
        if not is_finished(wave):
            raise InputError(
                f"wave {number + 1} of the fleet in {str(checkpoint)!r} is not "
                "finished: finish it with gammavae run --resume"
            )
    machines = tuple(machine for wave in plan.waves for machine in wave)
    year = plan.year if year is None else year
    for _ in find_in_turn(source._replace(machines=machines), ["test"]):
        pass  # raises an error if a machine is missing, before anything is written
    config = read_config(checkpoint)
    if config is None:
        raise InputError(
            f"{str(checkpoint)!r} has no config.json: pass a fleet's folder"
        )
    begin_folder(out, config)
    write_plan(out, plan)
    for number, wave in enumerate(waves):
        _say_wave(number, plan, log)
        of_wave = source._replace(machines=plan.waves[number])
        target, saved = RunFolder(wave_folder(out, number)), wave / "checkpoint"
        # A wave prints no table: there may be thousands of machines.
        rescore(saved, of_wave, target, year, log.without_results(), plan.test)
        free_memory()
    write_fleet_results(config, Origin(source.root, year), plan, out, log)


def _plan(
    config: Config,
    source: Source,
    folder: RunFolder,
    year: int | None,
    wave_size: int | None,
    log: Log,
) -> WavePlan | None:
    """Plan the waves of a run; return None if all machines fit in one wave."""
    out, n_machines = folder.path, len(source.machines)
    before = read_plan(out) if folder.resume and is_fleet(out) else None
    # A fleet that was killed before it had a plan has nothing to resume.
    resumes = folder.resume and ((out / "checkpoint").exists() or has_results(out))
    if before is not None:
        if wave_size not in (None, before.wave_size):
            raise InputError(
                f"{str(out)!r} has a wave size of {before.wave_size}: omit --wave-size "
                "to resume it"
            )
        wave_size = before.wave_size
    elif resumes and wave_size is not None and wave_size < n_machines:
        raise InputError(
            f"{str(out)!r} was not run in waves: omit --wave-size to resume it"
        )
    elif resumes or (
        all_fit(find_in_turn(source), config)
        if wave_size is None
        else wave_size >= n_machines
    ):
        return None
    survey = measure_fleet(source, config.features, year, log)
    if wave_size is None:
        wave_size = wave_size_that_fits(survey.machines, config)
        if wave_size < n_machines:
            log.say(
                "not all machines fit in memory at once: training in waves of "
                f"{wave_size}"
            )
    if before is None and wave_size >= n_machines:
        return None
    plan = plan_waves(survey.machines, wave_size, survey.year)
    if before is not None:
        require_same_plan(before, plan, out)
    return plan


def _run_waves(
    config: Config, source: Source, plan: WavePlan, out: Path, log: Log
) -> None:
    """Run all waves that are not finished yet."""
    folders = enumerate(wave_folders(out, plan))
    left = [number for number, wave in folders if not is_finished(wave, config)]

    def load_wave(number: int, log: Log) -> tuple[RunFolder, Machines]:
        with _named_wave(number, plan):
            folder = _begun_wave(config, out, number)
            of_wave = source._replace(machines=plan.waves[number])
            found = [unit for units in find_in_turn(of_wave) for unit in units]
            return folder, load_all(config, of_wave, found, plan.year, log)[0]

    origin = Origin(source.root, plan.year)
    capacities = Capacities(plan.train, plan.test)
    with closing(load_in_turn(left, load_wave, log)) as waves:
        for number, (folder, machines), wave_log in waves:
            _say_wave(number, plan, log)
            with _named_wave(number, plan):
                run_loaded(config, machines, folder, origin, wave_log, capacities)
            del machines
            free_memory()


@contextmanager
def _named_wave(number: int, plan: WavePlan) -> Iterator[None]:
    """Add the wave's number to the message of an error raised in a `with` block."""
    try:
        yield
    except InputError as error:
        raise InputError(
            f"wave {number + 1} of {len(plan.waves)}: {error} (finished waves are kept "
            "for --resume)"
        ) from error


def _begun_wave(config: Config, out: Path, number: int) -> RunFolder:
    """Return a wave's run folder, which is resumed if the wave was already started."""
    wave = wave_folder(out, number)
    begun = read_config(wave)
    if begun is not None and trains_alike(config, begun):
        return RunFolder(wave, resume=True)
    # The wave was killed before it wrote its configuration, or its folder is left over
    # from a fleet that this one replaces.
    with writing(out, resumable=True):
        remove(wave)
    return RunFolder(wave)


def _say_wave(number: int, plan: WavePlan, log: Log) -> None:
    n_machines = len(plan.waves[number])
    machines = "1 machine" if n_machines == 1 else f"{n_machines} machines"
    log.say(f"wave {number + 1} of {len(plan.waves)}: {machines}")
