"""What each command does with its options: settings first, then the job, imported only now."""

import argparse
import logging
import sys
from typing import TYPE_CHECKING

from mrigan import environment, logs
from mrigan.environment import process_rank
from mrigan.errors import SettingsError
from mrigan.runtime.signals import StopRequest
from mrigan.sagemaker.container import hyperparameters_path, platform_defaults
from mrigan.settings.declared import ENV_PREFIX
from mrigan.settings.fields import Settings
from mrigan.settings.sagemaker import LaunchSettings
from mrigan.settings.sources import load_launch, load_settings

if TYPE_CHECKING:
    from mrigan.jobs.drawing import Drawing

log = logging.getLogger(__name__)

INTERRUPTED = 143  # as a shell reports a process ended by SIGTERM


def _settings(options: argparse.Namespace, unknown: list[str]) -> Settings:
    given = {name: value for name, value in vars(options).items() if name in Settings.model_fields}
    if not options.takes_settings:
        _refuse(unknown, options.prog)
    settings = load_settings(
        given,
        unknown_options=_options_in(unknown),
        hyperparameters=hyperparameters_path(),
        platform=platform_defaults() if options.takes_settings else None,
    )
    rank = process_rank()
    logs.configure(settings.log_format, debug=options.debug, only_warnings=bool(rank and rank.rank))
    return settings


def _options_in(unknown: list[str]) -> list[str]:
    """The options among what argparse could not place, without the values that follow them."""
    names = [name.partition("=")[0] for name in unknown if name.startswith("-")]
    return names or unknown


def _refuse(unknown: list[str], prog: str) -> None:
    if unknown:
        raise SettingsError(*(_not_an_option(name, prog) for name in _options_in(unknown)))


def _not_an_option(name: str, prog: str) -> str:
    field = name.removeprefix("--").replace("-", "_")
    if field in Settings.model_fields:
        return f"{name}: no option of `{prog}`; set {ENV_PREFIX}{field.upper()} instead"
    return f"{name}: unknown; `{prog} --help` lists the options"


def train(options: argparse.Namespace, unknown: list[str], stop: StopRequest) -> int:
    """The job, in as many processes as it takes."""
    settings = _settings(options, unknown)
    if process_rank() is None:  # at once: importing torch takes seconds
        log.info("starting", extra={"input": settings.input_uri, "output": settings.output_uri})
    environment.configure_allocators()
    if settings.compile:
        environment.keep_compiled(settings.cache_dir)
    from mrigan.jobs.train.start import start

    return start(settings, options.arguments, stop)


def fetch(options: argparse.Namespace, unknown: list[str], stop: StopRequest) -> int:
    """A run's artifacts, to a folder."""
    stop.effect = "stopping; what has come is kept, and the same command brings the rest"
    settings = _settings(options, unknown)
    from mrigan.jobs.build import storage_options
    from mrigan.jobs.fetch import fetch as job

    summary = job.fetch(
        options.uri,
        options.folder,
        job.parse_parts(options.only),
        storage_options(settings),
        should_stop=lambda: bool(stop),
    )
    return INTERRUPTED if summary.interrupted else 0


def generate(options: argparse.Namespace, unknown: list[str], stop: StopRequest) -> int:
    """Synthetic slices of a run."""
    stop.effect = "stopping; what was written is kept, and the same command continues"
    drawing = _drawing(options, unknown)
    from mrigan.jobs.generate.job import generate as job
    from mrigan.jobs.generate.request import Request

    request = Request(
        drawing=drawing,
        out=options.out,
        count=options.count,
        first_seed=options.first_seed,
        kind=options.kind,
        processes=options.processes,
        accepts_flag=options.yes,
    )
    return 0 if job(request, lambda: bool(stop)) else INTERRUPTED


def interpolate(options: argparse.Namespace, unknown: list[str], stop: StopRequest) -> int:
    """What lies between some slices."""
    stop.at_once = True
    drawing = _drawing(options, unknown)
    from mrigan.jobs.interpolate import interpolate as job

    job(drawing, options.file, seeds=options.seeds, frames=options.frames)
    return 0


def evaluate(options: argparse.Namespace, unknown: list[str], stop: StopRequest) -> int:
    """How good a run's slices are, and whether they repeat training slices."""
    stop.at_once = True
    settings = _settings(options, unknown)
    log.info("starting", extra={"evaluate": options.what})  # at once: importing torch takes seconds
    environment.configure_allocators()
    from mrigan.jobs.evaluate.job import evaluate as job
    from mrigan.jobs.evaluate.sets import Request

    request = Request(
        what=options.what,
        against=options.against,
        to=options.to,
        count=options.count,
        which=options.which,
        features=options.features,
        weights=options.weights,
        weights_sha256=options.weights_sha256,
        settings=settings,
    )
    job(request, lambda: bool(stop))
    return 0


def compare(options: argparse.Namespace, unknown: list[str], stop: StopRequest) -> int:
    """Runs side by side."""
    stop.at_once = True
    settings = _settings(options, unknown)
    from mrigan.jobs.compare.job import compare as job

    job(settings, options.runs, options.to)
    return 0


def export(options: argparse.Namespace, unknown: list[str], stop: StopRequest) -> int:
    """A generator for other programs."""
    stop.at_once = True
    options.truncation = 1.0
    drawing = _drawing(options, unknown)
    from dataclasses import replace

    from mrigan.jobs.export import export as job

    job(replace(drawing, device="cpu"), options.file)
    return 0


def _drawing(options: argparse.Namespace, unknown: list[str]) -> "Drawing":
    """The generator that a command is to draw with."""
    settings = _settings(options, unknown)
    log.info("starting", extra={"run": options.run})  # at once: importing torch takes seconds
    environment.configure_allocators()
    from mrigan.jobs.build import storage_options
    from mrigan.jobs.drawing import Drawing

    return Drawing(
        run=options.run,
        which=options.which,
        truncation=options.truncation,
        device=settings.device,
        options=storage_options(settings),
    )


def publish(options: argparse.Namespace, unknown: list[str], stop: StopRequest) -> int:
    """What a job could not publish, to its run."""
    stop.at_once = True
    settings = _settings(options, unknown)
    from mrigan.jobs import publish as job
    from mrigan.jobs.build import storage_options

    options_of_store = storage_options(settings)
    take_over = settings.take_over
    job.publish(options.folder, options.to, options_of_store, take_over=take_over, stop=stop)
    return 0


def phantom(options: argparse.Namespace, unknown: list[str], stop: StopRequest) -> int:
    """Procedural slices, to a URI."""
    stop.at_once = True
    settings = _settings(options, unknown)
    from mrigan.jobs.build import storage_options
    from mrigan.jobs.phantom import write_slices

    write_slices(
        options.uri,
        count=options.count,
        height=options.height,
        width=options.width,
        if_empty=options.if_empty,
        folder=options.folder,
        options=storage_options(settings),
    )
    return 0


def doctor(options: argparse.Namespace, unknown: list[str], stop: StopRequest) -> int:
    """What the job would meet."""
    stop.at_once = True
    settings = _settings(options, unknown)
    environment.configure_allocators()
    from mrigan.jobs.doctor import examine

    return examine(settings)


def gamma_sweep(options: argparse.Namespace, unknown: list[str], stop: StopRequest) -> int:
    """A short run for each gamma schedule."""
    settings = _settings(options, unknown)
    environment.configure_allocators()
    from mrigan.jobs.sweep import sweep

    given = {name: value for name, value in vars(options).items() if name in Settings.model_fields}
    return sweep(settings, given, stop, images=options.images)


def preview(options: argparse.Namespace, unknown: list[str], stop: StopRequest) -> int:
    """Augmented slices, to look at."""
    stop.at_once = True
    settings = _settings(options, unknown)
    from mrigan.jobs import preview as job

    job.preview(settings, options.sheet, rows=options.rows, columns=options.columns, p=options.p)
    return 0


def launch(options: argparse.Namespace, unknown: list[str], stop: StopRequest) -> int:
    """The job on SageMaker."""
    stop.effect = "stopping once AWS has answered; a job that runs goes on"
    fields = Settings.model_fields.keys() | LaunchSettings.model_fields.keys()
    given = {name: value for name, value in vars(options).items() if name in fields}
    settings, launch_settings = load_launch(given, unknown_options=_options_in(unknown))
    logs.configure(settings.log_format, debug=options.debug)
    from mrigan.jobs.launch import command as job

    if options.dry_run:
        return job.show_request(settings, launch_settings)
    if options.check:
        return job.check(settings, launch_settings)
    if options.attach:
        return job.attach(options.attach, settings.log_format, stop)
    if options.stop:
        return job.stop_job(options.stop)
    return job.launch(settings, launch_settings, stop, wait=not options.no_follow)


def completion(options: argparse.Namespace, unknown: list[str], stop: StopRequest) -> int:
    """What completes command lines in a shell; settings, right or wrong, have no part in it."""
    stop.at_once = True
    _refuse(unknown, options.prog)
    from mrigan.cli.completion import script

    sys.stdout.write(script(options.shell))
    return 0
