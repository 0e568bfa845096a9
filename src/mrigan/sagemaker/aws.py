"""Clients for AWS's services, and their failures in one line each."""

import re
from typing import Any

from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)

from mrigan.errors import MriganError, SettingsError
from mrigan.storage.session import open_session

Request = dict[str, Any]  # one call's arguments, in AWS's own words
Answer = dict[str, Any]  # what AWS says, in its own words
AWS_ERRORS = (BotoCoreError, ClientError)
_ATTEMPTS = 5
_CONNECT_SECONDS = 10
_READ_SECONDS = 60
_EXPIRED = re.compile(r"Expired|TokenRefreshRequired|InvalidClientTokenId|UnrecognizedClient")
_PASSING = re.compile(r"Throttl|TooManyRequests|RequestLimitExceeded|SlowDown|ServiceUnavailable")
_LOGIN = "renew them (aws sso login, or a new AWS_SESSION_TOKEN)"
# Code, or the beginning of one, to what can be done about it.
_REMEDIES = {
    "ResourceLimitExceeded": "raise the quota (Service Quotas > Amazon SageMaker: '{quota}'), or "
    "choose another --instance-type",
    "ResourceInUse": "there is a job of this name: choose another --job-name, or follow that one "
    "with --attach",
    "ValidationException": "correct the setting it speaks of; --dry-run shows the whole request",
    "AccessDenied": "allow it for these credentials (deploy/iam has the launcher's policy)",
    "ResourceNotFound": "check the name, and AWS_REGION",
    "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY",
    "OptInRequired": "enable the region or the service for the account",
}


class Aws:
    """The services of one region, by the credentials that everything else uses.

    Attributes:
        region: Of the environment or the profile, else the one given; "" if there is none.
        session: boto3's.

    Raises:
        SettingsError: A profile that does not exist.
    """

    def __init__(self, fallback_region: str = "") -> None:
        try:
            self.session = open_session(fallback_region)
        except AWS_ERRORS as error:
            raise explain(error, "read AWS's configuration") from error
        self.region: str = self.session.region_name or ""

    def client(self, service: str) -> Any:  # noqa: ANN401  # boto3 makes them at run time
        """Return boto3's client; it repeats what was throttled, a few times."""
        return self.session.client(
            service,
            region_name=self.region or None,
            config=Config(
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=_READ_SECONDS,
                retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            ),
        )


def code_of(error: Exception) -> str:
    """AWS's own name for the failure; "" if AWS was not reached."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return ""


def is_denied(error: Exception) -> bool:
    """Whether these credentials may not do it."""
    return code_of(error) in ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation")


def is_missing(error: Exception) -> bool:
    """Whether what was asked for does not exist."""
    code, text = code_of(error), _said(error)
    return "NotFound" in code or code == "NoSuchEntity" or "not found" in text.lower()


def is_expired(error: Exception) -> bool:
    """Whether the credentials were good once."""
    text = f"{code_of(error)} {type(error).__name__}"
    return bool(_EXPIRED.search(text)) or isinstance(
        error, SSOError | TokenRetrievalError | CredentialRetrievalError
    )


def is_passing(error: Exception) -> bool:
    """Whether the same question may get an answer in a moment."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return bool(_PASSING.search(code_of(error))) or status >= 500 or status == 429
    return isinstance(error, HTTPClientError)


def explain(error: Exception, doing: str, *, quota: str = "") -> MriganError:
    """Turn one of ``AWS_ERRORS`` into a line: what was not done, why, and what to do.

    Args:
        error: Of boto3.
        doing: What was tried, as "submit the job".
        quota: Which one a ResourceLimitExceeded is about.
    """
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return SettingsError(
            f"can't {doing}: no AWS credentials found; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role"
        )
    if isinstance(error, NoRegionError):
        return SettingsError(f"can't {doing}: no region; set AWS_REGION")
    if isinstance(error, ProfileNotFound):
        return SettingsError(f"can't {doing}: {_said(error)}; correct AWS_PROFILE, or unset it")
    if is_expired(error):
        return MriganError(f"can't {doing}: the credentials are not valid (any more); {_LOGIN}")
    code, said = code_of(error), _said(error)
    if "iam:PassRole" in said:
        remedy = (
            "allow iam:PassRole on the role for these credentials, to sagemaker.amazonaws.com "
            "(deploy/iam has the launcher's policy)"
        )
    elif not code:
        remedy = "check the network, AWS_REGION and AWS_ENDPOINT_URL"
    else:
        found = (text for name, text in _REMEDIES.items() if code.startswith(name))
        remedy = next(found, "see what AWS says about it").format(quota=quota or "its name")
    return MriganError(f"can't {doing}: {f'{code}: ' if code else ''}{said}; {remedy}")


def _said(error: Exception) -> str:
    if isinstance(error, ClientError):
        text = str(error.response.get("Error", {}).get("Message", ""))
    else:
        text = str(error)
    return " ".join(text.split())[:400].rstrip(". ")
