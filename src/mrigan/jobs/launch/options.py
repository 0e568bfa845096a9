"""The options of ``mrigan launch``; nothing heavy is imported to show them."""

import argparse

from mrigan.settings.describe import add_options
from mrigan.settings.sagemaker import LaunchSettings

_HELP = """\
Runs `mrigan train` as a SageMaker training job: submits it, follows its log, and ends with
what became of it. Takes the settings of the job in the same words, and these beside them.
What is sent are the settings that someone chose, here, in the environment or in .env.

  mrigan launch --role ARN --image URI --input-uri s3://bucket/slices \\
      --output-uri s3://bucket/runs/first --epochs 300 --spot

The same command again resumes from the newest checkpoint. Ctrl-C leaves the job running.
Never put a patient's name into a setting, a tag or a job's name: others can read them."""

_EPILOG = """\
exit status: 0 completed (or submitted, shown, nothing missing), 10 the job was stopped, 2, 3,
4 or 5 it failed as `mrigan train` does, 1 it failed otherwise or can't be reached, 130 Ctrl-C
left it running; 2 also settings, and what --check finds missing"""


def add_launch_options(parser: argparse.ArgumentParser) -> None:
    """Give ``parser`` what is done, how the job runs, and the job's settings."""
    parser.description, parser.epilog = _HELP, _EPILOG
    ways = parser.add_argument_group(
        "instead of submitting and following"
    ).add_mutually_exclusive_group()
    ways.add_argument("--dry-run", action="store_true", help="print the request; no network")
    ways.add_argument(
        "--check", action="store_true", help="say what is missing before money is spent"
    )
    ways.add_argument("--no-follow", action="store_true", help="submit, and leave it running")
    ways.add_argument("--attach", metavar="NAME", help="follow a job that runs already")
    ways.add_argument("--stop", metavar="NAME", help="end a job; it saves a checkpoint first")
    add_options(parser, LaunchSettings)
    add_options(parser)
