"""``mrigan launch``: the job, sent to SageMaker and followed."""
