"""A training job of the sagemaker SDK's version 3 in local mode: IMAGE SLICES RESULTS SETTINGS."""

import json
import sys
from pathlib import Path

from sagemaker.core.training.configs import Compute, InputData
from sagemaker.train import ModelTrainer
from sagemaker.train.model_trainer import Mode

image, slices, results, settings = sys.argv[1:]
root = Path(results, "root")
root.mkdir()
trainer = ModelTrainer(
    training_mode=Mode.LOCAL_CONTAINER,
    training_image=image,
    base_job_name="mrigan",
    compute=Compute(instance_type="local_cpu", instance_count=1),
    hyperparameters=json.loads(settings),
    local_container_root=str(root),
)
trainer.train(input_data_config=[InputData(channel_name="training", data_source=slices)])
for archive in root.glob("compressed_artifacts/*"):
    archive.rename(Path(results, archive.name))
