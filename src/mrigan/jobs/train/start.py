"""Starts the job in as many processes as there are GPUs and machines; one is this one."""

import logging
from collections.abc import Sequence

import torch

from mrigan.environment import process_rank, worker_folder
from mrigan.jobs.build import check_ranks
from mrigan.jobs.train.job import Outcome, train
from mrigan.runtime.signals import StopRequest, end_with_parent
from mrigan.runtime.torchrun import ONE_MACHINE, Machines, run_ranks
from mrigan.sagemaker.container import is_sagemaker, read_cluster
from mrigan.settings.fields import Settings
from mrigan.settings.models import MODELS

log = logging.getLogger(__name__)

INTERRUPTED = 143  # as a shell reports a process ended by SIGTERM


def start(settings: Settings, arguments: Sequence[str], stop: StopRequest) -> int:
    """Run the job and return its exit status.

    Args:
        settings: Of the job.
        arguments: The command line they came from, which each rank is given.
        stop: This process's.

    Raises:
        MriganError: One of its kinds.
    """
    interrupted = 0 if is_sagemaker() else INTERRUPTED
    if process_rank() is not None:  # the process that started the ranks knows what a stop means
        if worker_folder() is not None:
            end_with_parent()
        return 0 if train(settings, stop) is Outcome.COMPLETED else INTERRUPTED
    machines = _machines()
    here = _ranks_here(settings, machines)
    ranks = here * len(machines.hosts)
    if ranks > 1:
        check_ranks(settings, ranks)
        log.info("ranks", extra={"here": here, "machines": len(machines.hosts), "of": ranks})
        end = run_ranks(arguments, here, machines, stop, interrupted=interrupted)
        status = end.status if end else INTERRUPTED
    else:
        status = 0 if train(settings, stop) is Outcome.COMPLETED else INTERRUPTED
    return interrupted if status == INTERRUPTED else status


def _machines() -> Machines:
    cluster = read_cluster()
    if cluster is None or len(cluster.hosts) == 1:
        return ONE_MACHINE
    return Machines(cluster.hosts, cluster.host_rank, cluster.network_interface_name)


def _ranks_here(settings: Settings, machines: Machines) -> int:
    """One for each GPU of this machine, or one where there is none."""
    if settings.device not in {"auto", "cuda"}:
        return 1
    gpus = torch.cuda.device_count()
    has_one_group = settings.accumulation_steps == 1 and MODELS[settings.model].couples_images
    if gpus > 1 and has_one_group and len(machines.hosts) == 1:
        remedy = f"MRIGAN_ACCUMULATION_STEPS={gpus} has a group of images for each"
        log.warning("idle_gpus", extra={"used": 1, "of": gpus, "remedy": remedy})
        return 1
    return max(gpus, 1)
