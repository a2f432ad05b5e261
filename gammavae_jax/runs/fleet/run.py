"""Runs of more machines than memory: the main job wave by wave.

A fleet's folder has `fleet.json`, a run's folder for each wave, and the results of the
whole. A wave that is finished is not touched again.
"""

import gc
import io
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import jax
from rich.console import Console

from gammavae_jax.config import Config
from gammavae_jax.data.loading import Job, LoadedMachines, find_in_turn
from gammavae_jax.devices.cluster import together
from gammavae_jax.errors import InputError
from gammavae_jax.files import remove, writing
from gammavae_jax.log import Log
from gammavae_jax.runs.fleet.loader import load_in_turn
from gammavae_jax.runs.fleet.plan import (
    WavePlan,
    all_fit,
    give_back_freed,
    is_fleet,
    plan_waves,
    read_plan,
    wave_folder,
    wave_size_that_fits,
    write_plan,
)
from gammavae_jax.runs.fleet.results import write_fleet_results
from gammavae_jax.runs.fleet.survey import measure_fleet
from gammavae_jax.runs.folder import (
    begin_folder,
    is_finished,
    read_config,
    settle_folder,
)
from gammavae_jax.runs.publish import has_results
from gammavae_jax.runs.resume import (
    require_no_more_epochs,
    require_same_training,
    trains_alike,
)
from gammavae_jax.runs.run import held, load_job, run_evaluation, run_held, run_loaded


def run_machines(
    config: Config, job: Job, wave_size: int | None, log: Log, table: Console
) -> bool:
    """`run_experiment`, in waves where the machines do not fit the memory.

    Args:
        config: of the run.
        job: what it works on.
        wave_size: machines in a wave; as many as fit unless given.
        log: of the progress.
        table: where results are printed.

    Returns:
        Whether every model could be trained to the end.

    Raises:
        InputError: something the user gave cannot be used. Waves that were finished
            before are kept.
    """
    with held(job):
        plan = together(lambda: _plan(config, job, wave_size, log))
        if plan is None:
            return run_held(config, job, log, table)
        job = replace(job, year=plan.year)
        before = read_config(job.out)
        if before is not None and is_fleet(job.out) and job.resume:
            require_same_training(config, before, job.out)
            require_no_more_epochs(config, job.out)
            settle_folder(job.out, config)
        else:
            begin_folder(job.out, config)
            write_plan(job.out, plan)
        _run_waves(config, job, plan, log)
        return write_fleet_results(config, job, plan, log, table)


def describe_waves(config: Config, job: Job, wave_size: int | None, log: Log) -> None:
    """Say in which waves `run_machines` would work."""
    if jax.process_count() > 1:
        return
    n_machines = len(job.machines)
    if job.resume and is_fleet(job.out):
        wave_size = read_plan(job.out).wave_size
    if wave_size is None:
        if not all_fit(find_in_turn(job), config):
            log.say("in waves of as many machines as fit the memory, if not all do")
    elif wave_size < n_machines:
        n_waves = -(-n_machines // wave_size)
        log.say(f"in {n_waves} waves, machines in each: {wave_size}")


def evaluate_machines(checkpoint: Path, job: Job, log: Log, table: Console) -> None:
    """`run_evaluation`, wave by wave where `checkpoint` is the folder of a fleet.

    Raises:
        InputError: see `run_evaluation`; or a fleet that is not finished.
    """
    if not is_fleet(checkpoint):
        # A wave by itself is scored in the arrays of its fleet: to the last bit.
        fleet = checkpoint.resolve().parent.parent.parent
        room = read_plan(fleet).test if is_fleet(fleet) else None
        run_evaluation(checkpoint, job, log, table, room)
        return
    fleet, out = checkpoint.resolve(), job.out.resolve()
    if fleet.is_relative_to(out) or out.is_relative_to(fleet):
        raise InputError(
            f"{str(job.out)!r} is the fleet, in it or around it: give another --out"
        )
    with held(replace(job, resume=False)):
        _evaluate_waves(checkpoint, job, log, table)


def _evaluate_waves(checkpoint: Path, job: Job, log: Log, table: Console) -> None:
    """The same in a folder that nobody else writes to."""
    plan = read_plan(checkpoint)
    folders = [wave_folder(checkpoint, number) for number in range(len(plan.waves))]
    for number, folder in enumerate(folders):
        if not is_finished(folder):
            raise InputError(
                f"wave {number + 1} of the fleet in {str(checkpoint)!r} is not "
                "finished: go on with it by run.py --resume"
            )
    machines = tuple(machine for wave in plan.waves for machine in wave)
    year = plan.year if job.year is None else job.year
    job = replace(job, machines=machines, year=year)
    for _ in find_in_turn(job, ["test"]):
        pass  # every machine is there, or nothing is written
    config = read_config(checkpoint)
    if config is None:
        raise InputError(
            f"{str(checkpoint)!r} has no config.json: give a fleet's folder"
        )
    begin_folder(job.out, config)
    write_plan(job.out, plan)
    for number, folder in enumerate(folders):
        _say_wave(number, plan, log)
        of_wave = _wave_job(job, plan, number)
        saved, of_wave_log = folder / "checkpoint", Log(log.console)
        run_evaluation(saved, of_wave, of_wave_log, _no_table(), plan.test)
        _forget_wave()
    write_fleet_results(config, job, plan, log, table)


def _plan(config: Config, job: Job, wave_size: int | None, log: Log) -> WavePlan | None:
    """The waves of a job; None where it is to be a run as any.

    Raises:
        InputError: waves that cannot be, or recordings that cannot be used.
    """
    before = read_plan(job.out) if job.resume and is_fleet(job.out) else None
    # A fleet that was killed before it had a plan has nothing to go on with.
    goes_on = job.resume and ((job.out / "checkpoint").exists() or has_results(job.out))
    n_machines = len(job.machines)
    if before is not None:
        if wave_size not in (None, before.wave_size):
            raise InputError(
                f"{str(job.out)!r} has waves of {before.wave_size} machines: leave out "
                "--wave-size to go on with them"
            )
        wave_size = before.wave_size
    elif goes_on and wave_size is not None and wave_size < n_machines:
        raise InputError(
            f"{str(job.out)!r} was not run in waves: leave out --wave-size to go on "
            "with it"
        )
    elif goes_on or _is_one_wave(config, job, wave_size):
        return None
    if jax.process_count() > 1:
        raise InputError(
            "waves of machines are the work of one process: leave out --distributed, "
            "or give each process machines and an --out of its own"
        )
    survey = measure_fleet(job, config.features, log)
    if wave_size is None:
        wave_size = wave_size_that_fits(survey.machines, config)
        if wave_size < n_machines:
            log.say(f"all at once would not fit the memory: waves of {wave_size}")
    if before is None and wave_size >= n_machines:
        return None
    plan = plan_waves(survey.machines, wave_size, survey.year)
    if before is not None and before == plan._replace(year=before.year) != plan:
        year = "no --year" if before.year is None else f"--year {before.year}"
        raise InputError(
            f"{str(job.out)!r} has the metrics of another year: give {year}, or say "
            "--overwrite"
        )
    if before not in (None, plan):
        raise InputError(
            f"{str(job.out)!r} was made of other machines or recordings: give the "
            "same --data-root and machines, or say --overwrite"
        )
    return plan


def _is_one_wave(config: Config, job: Job, wave_size: int | None) -> bool:
    if wave_size is not None:
        return wave_size >= len(job.machines)
    return jax.process_count() > 1 or all_fit(find_in_turn(job), config)


def _run_waves(config: Config, job: Job, plan: WavePlan, log: Log) -> None:
    """Run what is left to be done; whatever is finished as it should be stays."""
    left = [
        number
        for number in range(len(plan.waves))
        if not is_finished(wave_folder(job.out, number), config)
    ]
    if not left:
        return

    def load(number: int, log: Log) -> tuple[Job, LoadedMachines]:
        with _told_of(number, plan):
            of_wave = _begun_wave(config, job, plan, number)
            found = [unit for units in find_in_turn(of_wave) for unit in units]
            return load_job(config, of_wave, found, log)

    rooms = plan.train, plan.test
    with closing(load_in_turn(left, load, log.console)) as waves:
        for wave in waves:
            _say_wave(wave.number, plan, log)
            of_wave, loaded = wave.recordings
            with _told_of(wave.number, plan):
                run_loaded(config, of_wave, loaded, wave.log, _no_table(), rooms)
            del wave, loaded
            _forget_wave()


@contextmanager
def _told_of(number: int, plan: WavePlan) -> Iterator[None]:
    """Say which wave it is that something is wrong with."""
    try:
        yield
    except InputError as error:
        raise InputError(
            f"wave {number + 1} of {len(plan.waves)}: {error} (finished waves are kept "
            "for --resume)"
        ) from error


def _forget_wave() -> None:
    """A wave's arrays must be gone before the next one's are made."""
    gc.collect()
    give_back_freed()


def _wave_job(job: Job, plan: WavePlan, number: int) -> Job:
    """The job of one wave, to be begun."""
    machines, out = plan.waves[number], wave_folder(job.out, number)
    return replace(job, machines=machines, out=out, resume=False, overwrite=False)


def _begun_wave(config: Config, job: Job, plan: WavePlan, number: int) -> Job:
    """The same: to go on with, where it was begun.

    Raises:
        InputError: the folder cannot be read or written.
    """
    of_wave = _wave_job(job, plan, number)
    begun = read_config(of_wave.out)
    if begun is not None and trains_alike(config, begun):
        return replace(of_wave, resume=True)
    # Killed before it had a mark, or of a fleet that this one was to replace.
    with writing(job.out):
        remove(of_wave.out)
    return of_wave


def _say_wave(number: int, plan: WavePlan, log: Log) -> None:
    n_machines = len(plan.waves[number])
    machines = "1 machine" if n_machines == 1 else f"{n_machines} machines"
    log.say(f"wave {number + 1} of {len(plan.waves)}: {machines}")


def _no_table() -> Console:
    """Of thousands of machines no table is printed."""
    return Console(file=io.StringIO())
