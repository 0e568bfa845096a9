"""What SageMaker's machines can do for this job, told from their names.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ResourceConfig.html
"""

import re

# Families with a disk of their own, where SageMaker attaches no volume and refuses a key for one.
_OWN_DISK = re.compile(
    r"g4dn|g5|g6e?|g7e?|gr6|p3dn|p4de?|p5(en?)?|p6.*|trn\d.*|[cmr]\d[a-z]*d[a-z]*"
)
_UNUSABLE = (
    (re.compile(r"p[23](dn)?"), "its GPU is older than CUDA 13 supports"),
    (re.compile(r"trn\d.*|inf\d"), "it has no NVIDIA GPU, for which the image is made"),
    (re.compile(r"p6e-.*|[cmr]\d+gd?n?|g5g"), "it has an ARM processor, the image is for x86-64"),
)
_GPU = re.compile(r"[gp]r?\d.*")


def family(instance_type: str) -> str:
    """Return ``g5`` of ``ml.g5.xlarge``."""
    return instance_type.removeprefix("ml.").rpartition(".")[0]


def has_own_disk(instance_type: str) -> bool:
    """Whether ``VolumeKmsKeyId`` is refused and the volume's size ignored."""
    return _OWN_DISK.fullmatch(family(instance_type)) is not None


def has_gpu(instance_type: str) -> bool:
    """Whether there is a GPU in it, of whatever age."""
    return _GPU.fullmatch(family(instance_type)) is not None


def why_unusable(instance_type: str) -> str:
    """Say why the image can't train there; "" if it can."""
    name = family(instance_type)
    return next((why for pattern, why in _UNUSABLE if pattern.fullmatch(name)), "")
