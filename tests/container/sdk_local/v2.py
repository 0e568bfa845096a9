"""A training job of the sagemaker SDK's version 2 in local mode: IMAGE SLICES RESULTS SETTINGS."""

import json
import sys

from sagemaker.estimator import Estimator

image, slices, results, settings = sys.argv[1:]
estimator = Estimator(
    image_uri=image,
    role="arn:aws:iam::111122223333:role/mrigan",
    instance_type="local",
    instance_count=1,
    hyperparameters=json.loads(settings),
    output_path=f"file://{results}",
)
estimator.fit({"training": f"file://{slices}"})
