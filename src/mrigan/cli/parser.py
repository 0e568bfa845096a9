"""The command line: commands, their options and what ``--help`` says of them."""

import argparse
import re
import sys
from collections.abc import Callable
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeAlias, get_args

from mrigan import environment
from mrigan.cli import commands
from mrigan.errors import SettingsError
from mrigan.jobs.evaluate.networks import FEATURES
from mrigan.jobs.generate.kinds import KINDS
from mrigan.jobs.launch.options import add_launch_options
from mrigan.runtime.signals import StopRequest
from mrigan.settings.describe import add_options
from mrigan.settings.models import Which

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

_TRAIN_HELP = """\
Trains a GAN on the slices at INPUT_URI and writes the run to OUTPUT_URI: checkpoints,
sample grids, loss plots, the generator, a report. The same command again resumes
the run; when it is complete, it says so.

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

_SWEEP_HELP = """\
Makes three runs of an r3 model, below OUTPUT_URI: small/, constant/ and paper/, which differ
in the gamma schedule, that of the gradient penalty's weight. Each is as long as --images says, or
EPOCHS, wherever that is set. Writes and prints a table of how far what each of them draws is
from real slices. The same command again resumes it. Takes the settings of
`mrigan train`."""

_PREVIEW_HELP = """\
Draws slices from INPUT_URI, each in a row: as it is, then as the discriminator may see it
under AUGMENT_FLIPS and AUGMENT_ROTATION. Look whether anatomy stays plausible. Takes the
settings of `mrigan train`."""

_EVALUATE_HELP = """\
Compares generated slices with real ones: kernel and Fréchet distance, precision, recall, density,
coverage, sliced Wasserstein distance, diversity, grey levels and spectrum, each with an interval
and beside what other real slices reach. Then looks whether they repeat slices that were trained on:
PASS or FLAG.

  mrigan evaluate runs/first
  mrigan evaluate synthetic/ --against slices/ --to results

A run's own settings say which slices it was trained on. For a folder MRIGAN_IMAGE_HEIGHT,
MRIGAN_IMAGE_WIDTH, MRIGAN_FIT, MRIGAN_HOLDOUT and MRIGAN_VOLUME_PATTERN hold, for both sides."""

_RUN = "the run: its OUTPUT_URI, or the folder it was fetched to"

_TRAIN_EPILOG = """\
exit status: 0 done, 143 cleanly interrupted (0 on SageMaker), 2 settings, 3 training
diverged, 4 data, 5 storage, 1 anything else"""


_COMPLETION_EPILOG = """\
for this shell alone (bash, zsh):
  eval "$(mrigan completion bash)"
for every new one:
  mrigan completion bash > ~/.local/share/bash-completion/completions/mrigan
  mrigan completion zsh > "${fpath[1]}/_mrigan"
  mrigan completion fish > ~/.config/fish/completions/mrigan.fish"""

SHELLS = ("bash", "zsh", "fish")  # those of shtab's that are tried here

_UNKNOWN_COMMAND = re.compile(r"COMMAND: invalid choice: '(.*)' \(choose from (.*)\)")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line as everything else does: in one line."""

    def print_help(self, file: "SupportsWrite[str] | None" = None) -> None:
        """Print the help, on a terminal in colours; what draws these is imported only then."""
        if file is None and sys.stdout.isatty() and environment.allows_colours():
            from mrigan.cli.coloured_help import ColouredHelp

            self.formatter_class = ColouredHelp
        super().print_help(file)

    def error(self, message: str) -> NoReturn:
        problem = message.removeprefix("argument ")
        if found := _UNKNOWN_COMMAND.match(problem):
            near = get_close_matches(found[1], found[2].replace("'", "").split(", "), 1)
            meant = f", did you mean {near[0]}?" if near else ""
            problem = f"{found[1]}: no such command{meant}"
        raise SettingsError(f"{problem}; `{self.prog} --help` shows how")


Command = Callable[[argparse.Namespace, list[str], StopRequest], int]
_Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"


def build_parser() -> argparse.ArgumentParser:
    """The command line; a mistake in one is a SettingsError."""
    parser = _Parser(
        prog="mrigan", description="Trains a GAN on MRI slices: from a bucket back to a bucket."
    )
    parser.add_argument("--version", action="version", version=f"mrigan {version('mrigan')}")
    parser.set_defaults(command=None, prog=parser.prog, debug=False)
    named = parser.add_subparsers(title="commands", metavar="COMMAND")
    train = _add(named, "train", commands.train, "the job: slices in, a trained generator out", "")
    train.description, train.epilog = _TRAIN_HELP, _TRAIN_EPILOG
    add_options(train)
    _add_generate(named)
    _add_evaluate(named)
    _add_compare(named)
    _add_interpolate(named)
    _add_export(named)
    _add_fetch(named)
    _add_publish(named)
    _add_phantom(named)
    doctor = _add(
        named, "doctor", commands.doctor, "say what machine, settings and credentials can do", ""
    )
    doctor.description = _DOCTOR_HELP
    add_options(doctor)
    _add_sweep(named)
    _add_preview(named)
    summary = "run the job on SageMaker, follow it, report how it ended"
    add_launch_options(_add(named, "launch", commands.launch, summary, ""))
    _add_completion(named)
    return parser


def _add_generate(named: _Commands) -> None:
    summary = "draw synthetic slices with a run's generator, to a folder or bucket"
    generate = _add(named, "generate", commands.generate, summary)
    _add_run(generate)
    generate.add_argument("out", help="where to: an empty folder or s3://bucket/prefix")
    generate.add_argument("--count", type=int, default=64, metavar="N", help="slices [64]")
    first = "of the first slice, whose successors have the next ones [0]"
    generate.add_argument("--first-seed", type=int, default=0, metavar="SEED", help=first)
    kind = "png, png16, npy (float32, -1 to 1), or npz: all in one file [png]"
    generate.add_argument("--format", dest="kind", choices=KINDS, default="png", help=kind)
    processes = "that draw [one on each GPU]"
    generate.add_argument("--processes", type=int, metavar="N", help=processes)
    yes = "draw although the privacy check has flagged the run"
    generate.add_argument("--yes", action="store_true", help=yes)


def _add_evaluate(named: _Commands) -> None:
    summary = "measure how good a run's slices are, and whether they repeat training slices"
    evaluate = _add(named, "evaluate", commands.evaluate, summary)
    evaluate.description = _EVALUATE_HELP
    what = "a run, or slices that another generator made: a folder or s3://bucket/prefix"
    evaluate.add_argument("what", metavar="RUN|FOLDER", help=what)
    against = "the real slices [those of the run]"
    evaluate.add_argument("--against", metavar="URI", help=against)
    evaluate.add_argument("--to", metavar="URI", help="the results [evaluation/ in the run]")
    count = "slices to draw, or to take of a folder [2000]"
    evaluate.add_argument("--count", type=int, default=2000, metavar="N", help=count)
    features = "random, or a network of torchvision whose weights are given [random]"
    evaluate.add_argument("--features", choices=FEATURES, default="random", help=features)
    evaluate.add_argument("--weights", metavar="URI", help="of that network: .pth, .safetensors")
    evaluate.add_argument("--weights-sha256", metavar="HEX", help="of that file")
    _add_which(evaluate)


def _add_interpolate(named: _Commands) -> None:
    summary = "draw what lies between some slices of a run's generator"
    between = _add(named, "interpolate", commands.interpolate, summary)
    _add_run(between)
    file = "to write: FILE.gif, .webp or .mp4, or .png for a sheet; a path, or s3://bucket/key"
    between.add_argument("file", help=file)
    seeds = "of the slices on the way, separated by commas [0,1,2,3]"
    default = [0, 1, 2, 3]
    between.add_argument("--seeds", type=_numbers, default=default, metavar="LIST", help=seeds)
    frames = "from one seed to the next [12]"
    between.add_argument("--frames", type=int, default=12, metavar="N", help=frames)


def _add_compare(named: _Commands) -> None:
    summary = "put runs side by side: a table, and a page with curves and samples"
    compare = _add(named, "compare", commands.compare, summary)
    compare.add_argument("runs", nargs="+", metavar="RUN", help="two to eight runs")
    to = "the page: a path, or s3://bucket/key [compare.html]"
    compare.add_argument("--to", default="compare.html", metavar="FILE.html", help=to)


def _add_export(named: _Commands) -> None:
    summary = "write a run's generator as ONNX or torch.export's file, checked against itself"
    export = _add(named, "export", commands.export, summary)
    export.add_argument("run", help=_RUN)
    file = "to write: FILE.onnx or .pt2; a path, or s3://bucket/key"
    export.add_argument("file", help=file)
    _add_which(export)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers, as 0,1,2,3") from None


def _add_run(parser: argparse.ArgumentParser) -> None:
    """Say which generator draws, and how."""
    parser.add_argument("run", help=_RUN)
    _add_which(parser)
    truncation = "scales the latents: less varied, more usual slices below 1 [1]"
    parser.add_argument("--truncation", type=float, default=1.0, metavar="0..1", help=truncation)


def _add_which(parser: argparse.ArgumentParser) -> None:
    which = "latest or best, by the score [latest]"
    parser.add_argument("--which", choices=get_args(Which), default="latest", help=which)


def _add_fetch(named: _Commands) -> None:
    fetch = _add(named, "fetch", commands.fetch, "bring a run's artifacts to a folder, verified")
    fetch.add_argument("uri", help="the run: its OUTPUT_URI")
    fetch.add_argument("folder", type=Path, help="where to; what is there and whole is kept")
    parts = "some of samples,plots,model,checkpoints [everything]"
    fetch.add_argument("--only", default="", metavar="PARTS", help=parts)


def _add_publish(named: _Commands) -> None:
    summary = "publish what a job could not, from the local folder that kept it"
    publish = _add(named, "publish", commands.publish, summary)
    publish.add_argument("folder", type=Path, help="as the job named it when it ended")
    publish.add_argument("--to", metavar="URI", help="the run, where it has moved [its own place]")


def _add_phantom(named: _Commands) -> None:
    summary = "write procedural brain-like slices to a URI"
    phantom = _add(named, "phantom", commands.phantom, summary)
    phantom.add_argument("uri", help="a folder or s3://bucket/prefix")
    phantom.add_argument("--count", type=int, default=256, metavar="N", help="slices [256]")
    for side, pixels in (("--height", 200), ("--width", 160)):
        about = f"of a slice [{pixels}]"
        phantom.add_argument(side, type=int, default=pixels, metavar="PIXELS", help=about)
    phantom.add_argument("--if-empty", action="store_true", help="only if nothing is there yet")
    files = "upload the files below DIR instead of phantoms"
    phantom.add_argument("--from", dest="folder", type=Path, metavar="DIR", help=files)


def _add_sweep(named: _Commands) -> None:
    summary = "try each of r3's gamma schedules in a short run of its own; make a table"
    sweep = _add(named, "gamma-sweep", commands.gamma_sweep, summary, "--model r3-... ")
    sweep.description = _SWEEP_HELP
    images = "reals each run shows D, about, unless --epochs is given [300000]"
    sweep.add_argument("--images", type=int, default=300_000, metavar="N", help=images)
    add_options(sweep)


def _add_preview(named: _Commands) -> None:
    summary = "draw a sheet of augmented slices, to look at before training"
    preview = _add(named, "preview", commands.preview, summary, "SHEET ")
    preview.description = _PREVIEW_HELP
    preview.add_argument("sheet", help="the PNG to write: a path, or s3://bucket/key")
    preview.add_argument("--rows", type=int, default=6, metavar="N", help="slices [6]")
    columns = "the slice and its variants [9]"
    preview.add_argument("--columns", type=int, default=9, metavar="N", help=columns)
    p = "probability of each transformation; training goes no higher than 0.8 [0.8]"
    preview.add_argument("--p", type=float, default=0.8, metavar="0..1", help=p)
    add_options(preview)


def _add_completion(named: _Commands) -> None:
    summary = "print a script that completes these commands in your shell"
    completion = _add(named, "completion", commands.completion, summary)
    completion.epilog = _COMPLETION_EPILOG
    completion.add_argument("shell", choices=SHELLS, help="which shell")


def _add(
    named: _Commands, name: str, command: Command, summary: str, arguments: str | None = None
) -> argparse.ArgumentParser:
    """Add a command; ``arguments`` are its own where the settings are options, too many to list."""
    takes_settings = arguments is not None
    parser = named.add_parser(
        name,
        usage=f"mrigan {name} {arguments}[--SETTING VALUE ...]" if takes_settings else None,
        help=summary,
        description=summary,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show a traceback with an error")
    parser.set_defaults(command=command, prog=parser.prog, takes_settings=takes_settings)
    return parser
