"""The storage settings in storage's own words, and what the platform adds to them."""

from mrigan.runtime.sagemaker import read_checkpoint_folder
from mrigan.settings.fields import Settings
from mrigan.storage.store import StoreOptions


def storage_options(settings: Settings) -> StoreOptions:
    """What every command that opens a store hands to it."""
    return StoreOptions(
        sse=settings.sse,
        sse_kms_key_id=settings.sse_kms_key_id,
        max_retries=settings.storage_retries,
        retry_timeout_seconds=settings.storage_timeout,
        synced_folder=read_checkpoint_folder(),
    )
