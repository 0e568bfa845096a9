"""A bucket's endpoint, region and credentials: as boto3 resolves them, for obstore too.

obstore also reads AWS_* variables, by rules of its own: it prefers AWS_ENDPOINT_URL_S3 to an
endpoint that it is given, and does not know profiles. So boto3 resolves everything, and obstore is
given every value explicitly.
"""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import boto3
import botocore
from botocore import UNSIGNED
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError, NoCredentialsError
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.store import S3Store

from mrigan.storage.session import core_session

if TYPE_CHECKING:
    from obstore.store import S3Config

_CONNECT_SECONDS = 10
# obstore uses credentials until 5 minutes before the expiry that it is given, and boto3 returns
# none that expire within 10 minutes. So expired ones are never used.
_CREDENTIALS_KEPT = timedelta(minutes=10)
# A request that makes progress is never cut off; only silence ends it (read_timeout).
_WHOLE_REQUEST = timedelta(hours=1)
_CONNECTIONS = 256  # as many as MRIGAN_DOWNLOAD_CONCURRENCY may be
_FIRST_REGION = "us-east-1"
_TRUE = {"1", "true", "on", "yes", "y"}


@dataclass(frozen=True, kw_only=True)
class StoreOptions:
    """Settings of a store; a folder uses only the last.

    Attributes:
        sse: Server-side encryption of what is written: "", "AES256" (SSE-S3) or "aws:kms".
        sse_kms_key_id: The KMS key for "aws:kms", "" for the account's own.
        max_retries: Further attempts after a transient failure of a request.
        retry_timeout_seconds: From a request's start, how long it may be retried.
        request_timeout_seconds: The longest silence of a server: until its answer begins, which
            includes sending what is written (32 MiB at a time), and between parts of an answer.
        synced_folder: A folder that SageMaker's agent copies to S3. Files in it are written and
            removed as ``storage.synced`` describes.
    """

    sse: str = ""
    sse_kms_key_id: str = ""
    max_retries: int = 10
    retry_timeout_seconds: float = 180
    request_timeout_seconds: float = 60
    synced_folder: Path | None = None


class Connection:
    """One bucket's endpoint, region and credentials.

    Making one raises ``failures.STORE_ERRORS``. It sends a request only when no setting names a
    region.

    Attributes:
        endpoint: URL without the bucket and without a slash at the end.
        region: What requests are signed for.
        is_aws: Whether ``endpoint`` is AWS's own and none is configured.
        client: boto3's, for the same endpoint. It does what obstore can't, at 10 times the CPU.
    """

    def __init__(self, bucket: str, prefix: str, options: StoreOptions) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._options = options
        core = core_session()
        self._session = boto3.Session(botocore_session=core)
        self._authorities = core.get_config_variable("ca_bundle")
        self.is_anonymous = str(core.get_config_variable("skip_signature")).lower() in _TRUE
        self._credentials = None if self.is_anonymous else _credentials(self._session)
        self.region = self._session.region_name or _FIRST_REGION
        self.client = self._client_at(self.region)
        self.is_aws = self.client.meta.endpoint_url == self._aws_endpoint(self.region)
        if self.is_aws and not self._session.region_name:
            self.region = self.find_region() or _FIRST_REGION
            self.client = self._client_at(self.region)
        self.endpoint = check_endpoint(self.client.meta.endpoint_url)

    def open(self, max_retries: int, upload_seconds: float = 0) -> S3Store:
        """Return an obstore of the prefix.

        Args:
            max_retries: Of each request.
            upload_seconds: What one request's upload may take beyond the usual silence.
        """
        silence = timedelta(seconds=self._options.request_timeout_seconds + upload_seconds)
        return S3Store(
            self._bucket,
            prefix=self._prefix or None,
            config=self._config(),
            client_options={
                "allow_http": self.endpoint.startswith("http:"),
                "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
                "read_timeout": silence,
                "timeout": max(_WHOLE_REQUEST, silence),
                "root_certificate": _certificates(self._authorities),
            },
            retry_config={
                "max_retries": max_retries,
                "retry_timeout": timedelta(seconds=self._options.retry_timeout_seconds),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=100),
                    "max_backoff": timedelta(seconds=15),
                    "base": 2,
                },
            },
            credential_provider=self._credentials,
        )

    def find_region(self) -> str:
        """Ask S3 for the bucket's region; "" without an answer. It needs no permission."""
        try:
            client = self._client_at(_FIRST_REGION, attempts=2)
            answer = client.head_bucket(Bucket=self._bucket)
        except ClientError as error:
            answer = error.response
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        return str(headers.get("x-amz-bucket-region", ""))

    def _config(self) -> "S3Config":
        virtual_hosted = self.is_aws and "." not in self._bucket  # certificates cover no dots
        endpoint = self.endpoint
        if virtual_hosted:
            endpoint = endpoint.replace("://", f"://{self._bucket}.", 1)
        config: S3Config = {
            "endpoint": endpoint,
            "aws_endpoint_url_s3": endpoint,
            "virtual_hosted_style_request": virtual_hosted,
            "region": self.region,
            "skip_signature": self.is_anonymous,
            "disable_bulk_delete": True,  # some stores lack DeleteObjects
        }
        if self._options.sse:
            config["server_side_encryption"] = self._options.sse
        if self._options.sse_kms_key_id:
            config["sse_kms_key_id"] = self._options.sse_kms_key_id
        return config

    def _client_at(
        self, region: str, *, at_aws: bool = False, attempts: int | None = None
    ) -> BaseClient:
        attempts = attempts or self._options.max_retries + 1
        return self._session.client(
            "s3",
            region_name=region,
            verify=self._authorities or True,
            config=Config(
                signature_version=UNSIGNED if self.is_anonymous else None,
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=self._options.request_timeout_seconds,
                max_pool_connections=_CONNECTIONS,
                retries={"mode": "standard", "total_max_attempts": attempts},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                ignore_configured_endpoint_urls=at_aws or None,
            ),
        )

    def _aws_endpoint(self, region: str) -> str:
        return str(self._client_at(region, at_aws=True).meta.endpoint_url)


def _credentials(session: boto3.Session) -> Boto3CredentialProvider:
    """Return credentials that could be loaded; whether they are accepted is not known yet."""
    try:
        provider = Boto3CredentialProvider(session, ttl=_CREDENTIALS_KEPT)
    except ValueError as error:
        raise NoCredentialsError from error
    found = provider()
    for value in (found["access_key_id"], found["secret_access_key"], found.get("token") or ""):
        # obstore panics on these, which come from copying a line's end as well.
        if not value.isascii() or not value.isprintable() or " " in value:
            raise ValueError("a credential holds blanks or line ends; copy it again")
    return provider


def _certificates(authorities: str | None) -> str:
    """PEM of AWS_CA_BUNDLE, else of boto3's authorities: an image may have none of its own."""
    own = Path(botocore.__file__).with_name("cacert.pem")
    return Path(authorities or own).read_text()


def check_endpoint(url: str) -> str:
    """Return an endpoint without a slash at its end; refuse one that obstore would panic on.

    Raises:
        ValueError: It is not an http or https URL of a host, or holds credentials.
    """
    if "@" in url:  # before any parser: a secret's slash would end the host in its middle
        raise ValueError("Credentials in the endpoint")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"Invalid endpoint: {url}")
    return url.rstrip("/")
