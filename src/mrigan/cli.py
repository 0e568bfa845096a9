"""The commands: what was typed becomes settings, errors become one line and an exit status.

Nothing heavy is imported until a command needs it, so ``--help`` answers at once and the
allocator's settings are in place before torch is.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from mrigan import logs
from mrigan.errors import MriganError, PeerFailedError, PeerLostError, SettingsError
from mrigan.jobs.launch_options import add_launch_options
from mrigan.runtime.ends import note_end
from mrigan.runtime.failure import clear_failure, write_failure
from mrigan.runtime.sagemaker import hyperparameters_path, is_sagemaker, platform_defaults
from mrigan.runtime.signals import StopRequest
from mrigan.settings import allocator
from mrigan.settings.describe import add_options
from mrigan.settings.fields import ENV_PREFIX, Settings
from mrigan.settings.launch import LaunchSettings
from mrigan.settings.ranks import rank_place
from mrigan.settings.sources import load_launch, load_settings

log = logging.getLogger(__name__)

INTERRUPTED = 143  # as a shell reports a process ended by SIGTERM

_TRAIN_HELP = """\
Trains a GAN on the slices at INPUT_URI and writes the run to OUTPUT_URI: checkpoints,
sample grids, loss plots, the generator, a report. The same command again goes on where
the run was; when it is complete, it says so.

  mrigan train                                     procedural slices, nothing set up
  mrigan train --input-uri slices/ --output-uri runs/first --epochs 100
  mrigan train --input-uri s3://bucket/slices --output-uri s3://bucket/runs/first

Each setting is an option here, MRIGAN_<NAME> in the environment or .env, and <name> in
SageMaker's hyperparameters.json; the first of these that has it wins. AWS's own variables
(credentials, AWS_REGION, AWS_PROFILE, AWS_ENDPOINT_URL) are obeyed as everywhere."""

_DOCTOR_HELP = """\
Says what this machine, these settings and these credentials can do, before money is spent:
reads a few slices from INPUT_URI, writes and removes an object at OUTPUT_URI, runs a few
training steps, and says how long the run would take. Takes the settings of `mrigan train`;
exits with the status that the job would fail with."""

_TRAIN_EPILOG = """\
exit status: 0 done, 143 cleanly interrupted (0 on SageMaker), 2 settings, 3 training
diverged, 4 data, 5 storage, 1 anything else"""


def run(arguments: Sequence[str]) -> int:
    """Run one command and return the exit status (design: 0, 143, 2, 3, 4, 5 or 1)."""
    stop = StopRequest()
    stop.install()  # first thing: as PID 1 of a container, no handler means no signal
    options = argparse.Namespace(debug=False)
    logs.configure("text")
    try:
        options, unknown = _parser().parse_known_args(list(arguments))
        options.arguments = list(arguments)
        logs.configure(_log_format(options), debug=options.debug)
        command: Callable[[argparse.Namespace, list[str], StopRequest], int] = options.command
        if _is_the_job(options) and not rank_place():
            clear_failure()
        status = command(options, unknown, stop)
        note_end(status, is_echo=False)
        return status
    except KeyboardInterrupt:
        _complain("interrupted at once: what was not yet saved is lost", options.debug)
        return INTERRUPTED if stop.signal_name == "SIGTERM" else 130
    except Exception as error:  # noqa: BLE001 - the last door: one line, not a traceback
        is_echo = isinstance(error, PeerFailedError | PeerLostError)
        for problem in _problems(error):
            _complain(problem, options.debug)
        if _is_the_job(options):
            write_failure(error)
        status = error.exit_status if isinstance(error, MriganError) else MriganError.exit_status
        note_end(status, is_echo=is_echo)
        return status


def _problems(error: Exception) -> tuple[str, ...]:
    if isinstance(error, SettingsError):
        return error.problems
    if isinstance(error, MriganError):
        return (str(error),)
    hint = "this is a bug of mrigan, please report it; --debug shows where"
    return (f"{type(error).__name__}: {error} ({hint})",)


def _is_the_job(options: argparse.Namespace) -> bool:
    """Whether this is what SageMaker started: ``train``, or what it could not be told from."""
    return is_sagemaker() and getattr(options, "command", _train) is _train


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line as everything else does: in one line."""

    def error(self, message: str) -> NoReturn:
        problem = message.removeprefix("argument ")
        raise SettingsError(f"{problem}; `{self.prog} --help` shows how")


def _complain(problem: str, debug: bool) -> None:
    line = " ".join(problem.split())
    log.error("error", extra={"reason": line}, exc_info=debug and sys.exc_info()[0] is not None)


def _log_format(options: argparse.Namespace) -> str:
    """``json`` if it was asked for where an answer is at hand; settings may be wrong still."""
    chosen: str | None = getattr(options, "log_format", None)
    return chosen or "text"


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mrigan", description="Trains a GAN on MRI slices: from a bucket back to a bucket."
    )
    parser.add_argument("--version", action="version", version=f"mrigan {version('mrigan')}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    train = _add(
        commands,
        "train",
        _train,
        "the job: slices in, a trained generator out",
        usage="mrigan train [--SETTING VALUE ...]",
    )
    train.description, train.epilog = _TRAIN_HELP, _TRAIN_EPILOG
    add_options(train)

    fetch = _add(commands, "fetch", _fetch, "bring a run's artifacts to a folder, verified")
    fetch.add_argument("uri", help="the run: its OUTPUT_URI")
    fetch.add_argument("folder", type=Path, help="where to; what is there and whole is kept")
    fetch.add_argument(
        "--only",
        default="",
        metavar="PARTS",
        help="some of samples,plots,model,checkpoints [everything]",
    )

    phantom = _add(commands, "phantom", _phantom, "write procedural brain-like slices to a URI")
    phantom.add_argument("uri", help="a folder or s3://bucket/prefix")
    phantom.add_argument("--count", type=int, default=256, help="slices [256]")
    phantom.add_argument("--height", type=int, default=200, help="pixels [200]")
    phantom.add_argument("--width", type=int, default=160, help="pixels [160]")
    phantom.add_argument("--if-empty", action="store_true", help="only if nothing is there yet")
    phantom.add_argument(
        "--from",
        dest="folder",
        type=Path,
        metavar="DIR",
        help="upload the files below DIR instead of phantoms",
    )

    doctor = _add(
        commands,
        "doctor",
        _doctor,
        "say what machine, settings and credentials can do",
        usage="mrigan doctor [--SETTING VALUE ...]",
    )
    doctor.description = _DOCTOR_HELP
    add_options(doctor)

    launch = _add(
        commands,
        "launch",
        _launch,
        "run the job on SageMaker, follow it, report how it ended",
        usage="mrigan launch [--SETTING VALUE ...]",
    )
    add_launch_options(launch)
    return parser


def _add(
    commands: "argparse._SubParsersAction[_Parser]",
    name: str,
    command: Callable[[argparse.Namespace, list[str], StopRequest], int],
    summary: str,
    usage: str | None = None,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        usage=usage,
        help=summary,
        description=summary,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show a traceback with an error")
    # `usage` is given where the settings are options, too many to list.
    parser.set_defaults(command=command, prog=parser.prog, takes_settings=usage is not None)
    return parser


def _settings(options: argparse.Namespace, unknown: list[str]) -> Settings:
    given = {name: value for name, value in vars(options).items() if name in Settings.model_fields}
    if unknown and not options.takes_settings:
        raise SettingsError(*(_not_an_option(name, options.prog) for name in _options_in(unknown)))
    settings = load_settings(
        given,
        unknown_options=_options_in(unknown),
        hyperparameters=hyperparameters_path(),
        platform=platform_defaults() if options.takes_settings else None,
    )
    place = rank_place()
    logs.configure(
        settings.log_format, debug=options.debug, only_warnings=bool(place and place.rank)
    )
    return settings


def _options_in(unknown: list[str]) -> list[str]:
    """The options among what argparse could not place, without the values that follow them."""
    names = [name.partition("=")[0] for name in unknown if name.startswith("-")]
    return names or unknown


def _not_an_option(name: str, prog: str) -> str:
    field = name.removeprefix("--").replace("-", "_")
    if field in Settings.model_fields:
        return f"{name}: no option of `{prog}`; set {ENV_PREFIX}{field.upper()} instead"
    return f"{name}: unknown; `{prog} --help` lists the options"


def _train(options: argparse.Namespace, unknown: list[str], stop: StopRequest) -> int:
    settings = _settings(options, unknown)
    allocator.apply_default()
    from mrigan.jobs.start import start

    return start(settings, options.arguments, stop)


def _fetch(options: argparse.Namespace, unknown: list[str], stop: StopRequest) -> int:
    settings = _settings(options, unknown)
    from mrigan.jobs.fetch import fetch, parse_parts
    from mrigan.jobs.storage_options import storage_options

    summary = fetch(
        options.uri,
        options.folder,
        parse_parts(options.only),
        storage_options(settings),
        should_stop=lambda: bool(stop),
    )
    return INTERRUPTED if summary.interrupted else 0


def _phantom(options: argparse.Namespace, unknown: list[str], stop: StopRequest) -> int:
    stop.at_once = True
    settings = _settings(options, unknown)
    from mrigan.jobs.phantom import seed_slices
    from mrigan.jobs.storage_options import storage_options

    seed_slices(
        options.uri,
        count=options.count,
        height=options.height,
        width=options.width,
        if_empty=options.if_empty,
        folder=options.folder,
        options=storage_options(settings),
    )
    return 0


def _doctor(options: argparse.Namespace, unknown: list[str], stop: StopRequest) -> int:
    stop.at_once = True
    settings = _settings(options, unknown)
    allocator.apply_default()
    from mrigan.jobs.doctor import examine

    return examine(settings)


def _launch(options: argparse.Namespace, unknown: list[str], stop: StopRequest) -> int:
    fields = Settings.model_fields.keys() | LaunchSettings.model_fields.keys()
    given = {name: value for name, value in vars(options).items() if name in fields}
    settings, way = load_launch(given, unknown_options=_options_in(unknown))
    logs.configure(settings.log_format, debug=options.debug)
    from mrigan.jobs import launch

    if options.dry_run:
        return launch.show_request(settings, way)
    if options.check:
        return launch.check(settings, way)
    if options.attach:
        return launch.attach(options.attach, settings.log_format, stop)
    if options.stop:
        return launch.stop_job(options.stop)
    return launch.launch(settings, way, stop, wait=not options.no_follow)
