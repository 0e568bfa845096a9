"""Which settings make a run this run, and which may change when it is resumed."""

from collections.abc import Mapping

from mrigan.settings.fields import Settings
from mrigan.settings.models import MODELS

# What may differ when a run is resumed: nothing here changes a weight.
FREE_TO_CHANGE = frozenset(
    {
        "input_uri",  # the slices themselves are compared, by fingerprint
        "output_uri",
        "include",  # as input_uri
        "exclude",
        "max_refused",
        "cache_dir",
        "epochs",
        "micro_batch",
        "take_over",
        "start_over",
        "sample_every",
        "checkpoint_every",
        "checkpoint_minutes",
        "keep_checkpoints",
        "trackers",
        "device",
        "cuda_graphs",
        "compile",
        "download_concurrency",
        "storage_retries",
        "storage_timeout",
        "sse",
        "sse_kms_key_id",
        "log_format",
    }
)


def identity(settings: Settings) -> dict[str, object]:
    """The settings that make a run this run: a resume must agree on every one."""
    follows_length = MODELS[settings.model].follows_length
    free = FREE_TO_CHANGE - {"epochs"} if follows_length else FREE_TO_CHANGE
    return {
        name: value for name, value in settings.model_dump(mode="json").items() if name not in free
    }


def differences(ours: Mapping[str, object], theirs: Mapping[str, object]) -> list[str]:
    """One phrase for each setting on which two runs disagree, as ``batch_size is 16, was 32``."""
    return [
        f"{name} is {ours.get(name)}, was {theirs.get(name)}"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]
