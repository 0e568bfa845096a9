"""One way to AWS's credentials, profile and region: boto3's, which also hears AWS_REGION."""

from functools import cache

import boto3
import botocore.session
from botocore.loaders import Loader, create_loader

# boto3 knows AWS_DEFAULT_REGION alone; AWS_SKIP_SIGNATURE is obstore's, for public buckets.
_VARIABLES = {
    "region": ("region", ["AWS_REGION", "AWS_DEFAULT_REGION"], None, None),
    "skip_signature": (None, "AWS_SKIP_SIGNATURE", None, None),
}


def core_session() -> botocore.session.Session:
    """Return what boto3 stands on; nothing is contacted."""
    core = botocore.session.Session(session_vars=_VARIABLES)
    core.register_component("data_loader", _loader(core.get_config_variable("data_path")))
    return core


def open_session(region: str = "") -> boto3.Session:
    """Return a session, for ``region`` if the environment and the profile name none."""
    core = core_session()
    if region and not core.get_config_variable("region"):
        core.set_config_variable("region", region)
    return boto3.Session(botocore_session=core)


@cache
def _loader(data_path: str | None) -> Loader:
    """Share what boto3 reads about AWS: most of the time that opening a store takes."""
    return create_loader(data_path)
