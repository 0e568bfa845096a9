"""Where a run is written: OUTPUT_URI and, on SageMaker, the folders that the platform uploads.

    <root>/model/           the generator, into model.tar.gz
    <root>/output/data/     pictures, history, report, settings, into output.tar.gz
    LocalPath               the whole run, if checkpoints were asked for: it comes back at a restart

So a job leaves something whether or not it may write to a bucket, and a spot restart, which finds
the first two empty, fills them again.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from mrigan.artifacts import lease, run_tree
from mrigan.artifacts.run_facts import RunFacts, read_run_facts
from mrigan.errors import SettingsError
from mrigan.jobs.build import storage_options
from mrigan.sagemaker.container import (
    is_sagemaker,
    model_folder,
    output_data_folder,
)
from mrigan.sagemaker.contract import PLATFORM_FOLDER
from mrigan.settings.fields import Settings
from mrigan.settings.identity import differences, identity
from mrigan.storage.location import FolderLocation, parse_uri
from mrigan.storage.mirror import Copy, MirroredStore, copy_objects
from mrigan.storage.store import Store, open_store
from mrigan.storage.synced import remove_unfinished
from mrigan.training.checkpoint import REVISION

log = logging.getLogger(__name__)

_MODEL = "model/"
_CHECKPOINTS = "checkpoints/"
# Of earlier jobs: copied, each job's archive would hold all those before it.
_ARCHIVES = f"{PLATFORM_FOLDER}/"
_LEASE = f"{lease.FOLDER}/"  # of whoever writes the run itself


def open_output(settings: Settings, *, catch_up: bool = True) -> Store:
    """Open OUTPUT_URI together with its copies; for one process of a run at a time.

    Args:
        settings: Of the job.
        catch_up: Bring the run back from LocalPath if OUTPUT_URI has lost it, and the copies up to
            date; not for a command that only looks.

    Raises:
        SettingsError: LocalPath holds another run.
        StorageError: A store can't be opened, or can't be caught up with.
    """
    options = storage_options(settings)
    if not is_sagemaker():
        return open_store(settings.output_uri, options)
    place = parse_uri(settings.output_uri)
    own = place.path if isinstance(place, FolderLocation) else None
    keys: dict[Path, Callable[[str], str | None]] = {
        model_folder(): _in_model,
        output_data_folder(): _in_output_data,
    }
    synced = options.synced_folder
    if synced and not (own and own.is_relative_to(synced)):
        keys[synced] = _in_whole
    copies = {
        folder: Copy(store=open_store(str(folder), options), key_of=key_of)
        for folder, key_of in keys.items()
        if folder != own
    }
    output = MirroredStore(settings.output_uri, options, list(copies.values()))
    if catch_up:
        if synced:
            remove_unfinished(synced)
            if synced in copies:
                _restore(output, copies[synced].store, settings)
        if run_tree.has_run(output):
            output.catch_up()
    return output


def _restore(output: Store, saved: Store, settings: Settings) -> None:
    """Copy the run in ``saved`` to ``output`` if none is there."""
    try:
        facts = read_matching(saved, settings)
    except SettingsError as error:
        raise SettingsError(f"{error}, with another S3Uri in the job's CheckpointConfig") from None
    if facts is None or run_tree.has_run(output):
        return
    keys = [info.key for info in saved.list()]
    # What vouches for others comes after them: a restoration that is cut short begins anew.
    last = [key for key in keys if key in (run_tree.RUN, run_tree.RUN_BEFORE)]
    vouching = [key for key in keys if key.startswith(_CHECKPOINTS) and key.endswith(".json")]
    first = [key for key in keys if key not in {*vouching, *last}]
    for some in (first, vouching, last):
        copy_objects(saved, output, {key: key for key in some})
    log.info("restored", extra={"objects": len(keys), "from": saved.uri, "uri": output.uri})


def read_matching(store: Store, settings: Settings) -> RunFacts | None:
    """The facts of the run in ``store``; None where none has begun.

    Raises:
        SettingsError: It was begun with other settings, naming each.
    """
    facts = read_run_facts(store, REVISION)
    if facts and (changed := differences(identity(settings), facts.identity)):
        raise SettingsError(
            f"{store.uri} holds a run with other settings: {', '.join(changed)}; use those, or "
            "another MRIGAN_OUTPUT_URI"
        )
    return facts


def _in_model(key: str) -> str | None:
    return key.removeprefix(_MODEL) if key.startswith(_MODEL) else None


def _in_output_data(key: str) -> str | None:
    return None if key.startswith((_MODEL, _CHECKPOINTS, _ARCHIVES, _LEASE)) else key


def _in_whole(key: str) -> str | None:
    return None if key.startswith((_ARCHIVES, _LEASE)) else key
