"""Keeps in a local folder what a run could not publish, so that the GPU's work is not lost."""

import logging
from collections.abc import Callable
from pathlib import Path

from mrigan.artifacts import run_tree
from mrigan.artifacts.run_status import now
from mrigan.artifacts.unpublished import Unpublished, new_folder, write_record
from mrigan.errors import MriganError, StorageError
from mrigan.jobs.train.prepare import Run
from mrigan.jobs.train.publications import Publications
from mrigan.sagemaker.container import is_sagemaker, output_data_folder
from mrigan.settings.fields import Settings
from mrigan.storage.store import open_store

log = logging.getLogger(__name__)

_FOLDER = "unpublished"
_SECONDS = 60.0


def kept_below(settings: Settings) -> Path:
    """Where such folders go: beside the cache, and on SageMaker where it uploads what is left."""
    return (output_data_folder() if is_sagemaker() else settings.cache_dir) / _FOLDER


def keep_unpublished(
    run: Run,
    publications: Publications,
    error: StorageError,
    *,
    save: Callable[[], None],
    is_done: bool,
) -> StorageError:
    """Write all that waits, and the state as it is, to a folder.

    Args:
        run: Of the job that ends.
        publications: Of the same run.
        error: Why they could not be published.
        save: Publishes the last rows and a checkpoint.
        is_done: Whether the run is at its end.

    Returns:
        ``error``, with the command that publishes them, or with why they could not be kept.
    """
    folder = new_folder(kept_below(run.settings), run.store.uri)
    try:
        kept = open_store(str(folder))
        publications.redirect(kept)
        save()
        if is_done:
            publications.publish_status("completed", exit_status=0)
        else:
            status = error.exit_status
            publications.publish_status("failed", reason=str(error), exit_status=status)
        publications.flush(_SECONDS)
        run_tree.write_json(kept, run_tree.RUN, run.facts.to_json())
        record = Unpublished(
            uri=run.store.uri,
            identity=dict(run.facts.identity),
            reason=str(error),
            rolled_back_to=publications.rolled_back_to,
            keep_checkpoints=run.settings.keep_checkpoints,
            since=now(),
        )
        write_record(kept, record)
    except MriganError as lost:
        return type(error)(f"{error}; what waits could not be kept in {folder} either: {lost}")
    return type(error)(
        f"{error}; what is not published is kept in {folder}: mrigan publish {folder}"
    )
