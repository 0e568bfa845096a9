"""What failures of S3 and of the file system mean to a user, one line each, and what to do.

``failures`` fills in the braces: ``bucket``, ``endpoint``, ``code`` and ``permission``.
"""

import re
from typing import NamedTuple


class Line(NamedTuple):
    """What happened, and what to do about it."""

    what: str
    remedy: str


DENIED = Line("access denied", "allow {permission} for these credentials, or use others")
MISSING = Line("there is no such object", "check the name, and that nothing else removes objects")
BUSY = Line(
    "the store keeps answering {code}",
    "try again later, or raise MRIGAN_STORAGE_RETRIES and MRIGAN_STORAGE_TIMEOUT",
)
NO_CREDENTIALS = Line(
    "no AWS credentials found",
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role "
    "(AWS_SKIP_SIGNATURE=true for a public bucket)",
)
KMS = Line(
    "the KMS key can't be used",
    "allow kms:GenerateDataKey and kms:Decrypt on it, or change MRIGAN_SSE_KMS_KEY_ID",
)
EXPIRED = Line(
    "the credentials have expired", "renew them (aws sso login, or a new AWS_SESSION_TOKEN)"
)
UNTRUSTED = Line(
    "the certificate of {endpoint} is not trusted", "set AWS_CA_BUNDLE to the authority's PEM file"
)
_FULL = Line("no space left", "free some, or choose another place")
_DAMAGED = Line("bytes were damaged on the way", "try again")
_INCAPABLE = Line("the store can't do this", "use a store with the whole of S3's API")

BY_CODE: dict[str, Line] = {
    "NoSuchBucket": Line(
        "bucket {bucket} does not exist at {endpoint}",
        "create it, or correct its name or AWS_ENDPOINT_URL",
    ),
    "InvalidBucketName": Line("{bucket} can't be a bucket's name", "correct the URI"),
    "NoSuchKey": MISSING,
    "AccessDenied": DENIED,
    "InvalidAccessKeyId": Line(
        "the access key is not known at {endpoint}",
        "check AWS_ACCESS_KEY_ID, AWS_PROFILE and AWS_ENDPOINT_URL",
    ),
    "SignatureDoesNotMatch": Line(
        "the signature is not accepted",
        "check AWS_SECRET_ACCESS_KEY, and that no proxy changes requests",
    ),
    "ExpiredToken": EXPIRED,
    "ExpiredTokenException": EXPIRED,
    "RequestExpired": EXPIRED,
    "TokenRefreshRequired": EXPIRED,
    "InvalidToken": Line(
        "the session token is not valid",
        "renew AWS_SESSION_TOKEN, or unset it if the key is a permanent one",
    ),
    "RequestTimeTooSkewed": Line(
        "this machine's clock is more than 15 minutes off", "set it (timedatectl set-ntp true)"
    ),
    "InvalidObjectState": Line("the object is archived", "restore it from Glacier first"),
    "NotImplemented": _INCAPABLE,
    "MethodNotAllowed": _INCAPABLE,
    "BadDigest": _DAMAGED,
    "XAmzContentSHA256Mismatch": _DAMAGED,
    "EntityTooLarge": Line("the object is too large for the store", "store less in one object"),
    "QuotaExceeded": _FULL,
    "XMinioStorageFull": _FULL,
}

# For answers without a body, such as to HEAD.
BY_STATUS = {"401": NO_CREDENTIALS, "403": DENIED, "404": MISSING, "507": _FULL}

# For failures without a server's answer. The first pattern that is found decides.
BY_TEXT: tuple[tuple[re.Pattern[str], Line], ...] = tuple(
    (re.compile(pattern), line)
    for pattern, line in (
        ("Unable to locate credentials", NO_CREDENTIALS),
        (
            "Invalid endpoint",
            Line("AWS_ENDPOINT_URL is no URL", "write it as http(s)://host:port"),
        ),
        (
            "Credentials in the endpoint",
            Line(
                "AWS_ENDPOINT_URL holds credentials",
                "write it as http(s)://host:port, and set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY",
            ),
        ),
        (
            "config profile .* could not be found",
            Line("AWS_PROFILE names no profile", "correct it, or unset it"),
        ),
        ("[Tt]oken has expired|SSO session .* (expired|invalid)|ExpiredToken", EXPIRED),
        (
            "dns error|failed to lookup|Name or service not known",
            Line("the host of {endpoint} is not known", "check AWS_ENDPOINT_URL and the network"),
        ),
        (
            "Connection ?[Rr]efused|Could not connect to the endpoint",
            Line("{endpoint} refuses connections", "start it, or correct AWS_ENDPOINT_URL"),
        ),
        (
            "InvalidCertificate|UnknownIssuer|CERTIFICATE_VERIFY_FAILED",
            UNTRUSTED,
        ),
        (
            "kind: Timeout|TimedOut|timed out|[Tt]imeout on endpoint",
            Line(
                "{endpoint} does not answer in time",
                "check the network (proxy, VPC endpoint), or raise MRIGAN_STORAGE_TIMEOUT",
            ),
        ),
        (r"\[Errno 2\]", Line("there is no such file", "check the path")),
        (r"os error (28|122)\b|\[Errno (28|122)\]", _FULL),
        (
            r"os error (1|13)\b|\[Errno (1|13)\]",
            Line("permission denied", "let this user in, or choose another folder"),
        ),
        (
            r"os error 30\b|\[Errno 30\]",
            Line("the file system is read-only", "mount it for writing, or choose another folder"),
        ),
        (
            r"os error (17|20|21)\b|\[Errno (17|20|21)\]",
            Line("a file and a folder would have one name", "rename the one that is there"),
        ),
        (
            r"os error 36\b|\[Errno 36\]",
            Line("the name is too long for the file system", "shorten it"),
        ),
        (r"os error 24\b|\[Errno 24\]", Line("too many open files", "raise ulimit -n")),
        (
            "HTTP error",
            Line("the connection to {endpoint} broke", "check the network and AWS_ENDPOINT_URL"),
        ),
    )
)
