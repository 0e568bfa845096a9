"""What can be known before money is spent: each check asks AWS one thing, and changes nothing.

What these credentials may not look at is said to be unchecked: the job's role is another one.
"""

from collections.abc import Callable, Iterator

from mrigan.errors import MriganError, UncheckedError
from mrigan.sagemaker.aws import AWS_ERRORS, Answer, Aws, Request, explain, is_denied, is_missing
from mrigan.sagemaker.contract import CHANNEL
from mrigan.sagemaker.rules import image_region
from mrigan.storage.connection import Connection
from mrigan.storage.failures import STORE_ERRORS
from mrigan.storage.location import BucketLocation, parse_uri
from mrigan.storage.store import StoreOptions, open_store

_SERVICE = "sagemaker.amazonaws.com"
_GIB = 2**30
# An index of several platforms, which SageMaker has refused: docker buildx makes one by default.
_INDEXES = ("application/vnd.oci.image.index.v1+json",)
Check = tuple[str, Callable[[], str]]


class Checks:
    """The checks of one request; iterate over ``each`` and call, a problem is a MriganError."""

    def __init__(self, aws: Aws, request: Request, options: StoreOptions) -> None:
        self._aws = aws
        self._request = request
        self._options = options
        self._account = ""

    def each(self) -> Iterator[Check]:
        """Name and act, in the order in which one failing would hide the next."""
        yield "caller", self._caller
        yield "role", self._role
        yield "image", self._image
        if self._input_uri():
            yield "input", self._input
        yield "output", self._output
        yield "quota", self._quota

    def _caller(self) -> str:
        found = self._ask("sts", "get_caller_identity", "find out who calls")
        self._account = str(found["Account"])
        return f"{found['Arn']} in {self._aws.region}"

    def _role(self) -> str:
        arn = str(self._request["RoleArn"])
        account, name = arn.split(":")[4], arn.rpartition("/")[2]
        if self._account and account != self._account:
            raise MriganError(
                f"{arn} is of another account than the caller ({self._account}), which can't pass "
                "it; use a role of this account"
            )
        try:
            found = self._aws.client("iam").get_role(RoleName=name)
        except AWS_ERRORS as error:
            if is_denied(error):
                raise UncheckedError(f"{arn}: iam:GetRole is not allowed") from error
            if is_missing(error):
                raise MriganError(f"{arn} does not exist; deploy/ makes it") from error
            raise explain(error, f"look at {arn}") from error
        if not _trusts(found["Role"].get("AssumeRolePolicyDocument", {})):
            raise MriganError(
                f"{arn} does not trust SageMaker; add {_SERVICE} to its trust policy (deploy/iam)"
            )
        return f"{arn} exists and trusts SageMaker"

    def _image(self) -> str:
        image = str(self._request["AlgorithmSpecification"]["TrainingImage"])
        registry, _, rest = image.partition("/")
        by_digest = "@" in rest
        repository, _, version = rest.partition("@" if by_digest else ":")
        try:
            found = self._aws.client("ecr").describe_images(
                registryId=registry.split(".")[0],
                repositoryName=repository,
                imageIds=[{"imageDigest" if by_digest else "imageTag": version}],
            )["imageDetails"][0]
        except AWS_ERRORS as error:
            if is_denied(error):
                raise UncheckedError(f"{image}: ecr:DescribeImages is not allowed") from error
            if is_missing(error):
                raise MriganError(
                    f"{image} is not in ECR in {image_region(image)}; push it "
                    "(deploy/build_and_push.sh)"
                ) from error
            raise explain(error, f"look at {image}") from error
        if found.get("imageManifestMediaType") in _INDEXES:
            raise MriganError(
                f"{image} is an index of several images, which SageMaker may refuse; build it with "
                "--provenance=false --sbom=false (deploy/build_and_push.sh)"
            )
        size = found.get("imageSizeInBytes", 0) / _GIB
        return f"{repository} {found['imageDigest']}, {size:.1f} GiB compressed"

    def _input(self) -> str:
        uri, channels = self._input_uri(), self._request.get("InputDataConfig", [])
        region = self._bucket_region(uri)
        listed = [info for info in open_store(uri, self._options).list() if info.size_bytes]
        if not listed:
            raise MriganError(f"{uri}/: nothing is there; check --input-uri")
        odd = [info.key for info in listed if "//" in f"/{info.key}"]
        if odd and channels:
            raise MriganError(
                f"{uri}: {len(odd):,} keys hold '//', at which the platform's download fails: "
                f"{odd[0]}; rename them, or use --input-mode pull"
            )
        total = sum(info.size_bytes for info in listed) / _GIB
        way = f"channel {CHANNEL}" if channels else "pulled by the job"
        return f"{uri}: {len(listed):,} objects, {total:.2f} GiB in {region}, {way}"

    def _input_uri(self) -> str:
        """Where the slices are in S3; "" for phantoms."""
        for channel in self._request.get("InputDataConfig", []):
            return str(channel["DataSource"]["S3DataSource"]["S3Uri"]).rstrip("/")
        named = str(self._request["HyperParameters"].get("input_uri", ""))
        return named.rstrip("/") if named.startswith("s3://") else ""

    def _output(self) -> str:
        uri = self._request["OutputDataConfig"]["S3OutputPath"].rpartition("/")[0]
        region = self._bucket_region(uri)
        state = "a new run"
        if open_store(uri, self._options).head("status.json"):
            state = "a run is there: the job resumes it, if the settings agree"
        return f"{uri}: in {region}, {state} (writing was not tried: that is the role's)"

    def _bucket_region(self, uri: str) -> str:
        location = parse_uri(uri)
        bucket = location.bucket if isinstance(location, BucketLocation) else ""
        try:
            region = Connection(bucket, "", self._options).find_region()
        except STORE_ERRORS:
            region = ""  # the listing that follows says what is wrong
        if region and region != self._aws.region:
            raise MriganError(
                f"bucket {bucket} is in {region}, the job in {self._aws.region}; use a bucket "
                "there, or AWS_REGION"
            )
        return region or "a region it does not tell"

    def _quota(self) -> str:
        resources = self._request["ResourceConfig"]
        kind, needed = resources["InstanceType"], resources["InstanceCount"]
        is_spot = self._request.get("EnableManagedSpotTraining", False)
        name = f"{kind} for {'spot ' if is_spot else ''}training job usage"
        try:
            found = self._quotas()
        except AWS_ERRORS as error:
            raise UncheckedError(f"{name}: {explain(error, 'read the quotas')}") from error
        if name not in found:
            raise UncheckedError(f"{name}: Service Quotas does not list it")
        if found[name] < needed:
            raise MriganError(
                f"{name}: {found[name]:g}, needed {needed}; ask for more in Service Quotas > "
                "Amazon SageMaker, or choose another --instance-type"
            )
        return f"{name}: {found[name]:g}, needed {needed}"

    def _quotas(self) -> dict[str, float]:
        client = self._aws.client("service-quotas")
        pages = client.get_paginator("list_service_quotas").paginate(ServiceCode="sagemaker")
        return {quota["QuotaName"]: quota["Value"] for page in pages for quota in page["Quotas"]}

    def _ask(self, service: str, operation: str, doing: str) -> Answer:
        try:
            answer: Answer = getattr(self._aws.client(service), operation)()
        except AWS_ERRORS as error:
            raise explain(error, doing) from error
        return answer


def _trusts(document: Answer) -> bool:
    """Whether a trust policy lets SageMaker assume the role; conditions are not judged."""
    statements = document.get("Statement", [])
    for statement in [statements] if isinstance(statements, dict) else statements:
        principal = statement.get("Principal", {})
        services = principal.get("Service", []) if isinstance(principal, dict) else []
        named = [services] if isinstance(services, str) else services
        if statement.get("Effect") == "Allow" and _SERVICE in named:
            return True
    return False
