"""AWS's credentials, profile and region: boto3's own way, and AWS_REGION as well."""

from functools import cache

import boto3
import botocore.session
from botocore.loaders import Loader, create_loader

# boto3 reads only AWS_DEFAULT_REGION; AWS_SKIP_SIGNATURE is obstore's, for public buckets.
_VARIABLES = {
    "region": ("region", ["AWS_REGION", "AWS_DEFAULT_REGION"], None, None),
    "skip_signature": (None, "AWS_SKIP_SIGNATURE", None, None),
}


def core_session() -> botocore.session.Session:
    """Return the botocore session below boto3's; no request is made."""
    core = botocore.session.Session(session_vars=_VARIABLES)
    core.register_component("data_loader", _loader(core.get_config_variable("data_path")))
    return core


def open_session(region: str = "") -> boto3.Session:
    """Return a session; ``region`` is for when the environment and the profile name none."""
    core = core_session()
    if region and not core.get_config_variable("region"):
        core.set_config_variable("region", region)
    return boto3.Session(botocore_session=core)


@cache
def _loader(data_path: str | None) -> Loader:
    """Share boto3's data files about AWS: reading them is most of the time to open a store."""
    return create_loader(data_path)
