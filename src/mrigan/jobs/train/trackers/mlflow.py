"""MLflow, at MLFLOW_TRACKING_URI: https://mlflow.org/docs/latest/ml/tracking/."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run
from mlflow.exceptions import MlflowException

from mrigan.artifacts.history import EpochRow
from mrigan.artifacts.run_status import State
from mrigan.environment import mlflow_experiment
from mrigan.jobs.train.trackers.tracker import About, scalars

_MOST_PARAMS, _MOST_METRICS = 100, 1000  # of one request
_MOST_CHARACTERS = 500  # of a value, in the oldest servers
_ENDS = {"completed": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


class Mlflow:
    """One run of an experiment; a resumed run goes on where it was.

    Raises:
        MlflowException: The server can't be reached, or refuses.
    """

    def __init__(self, about: About) -> None:
        self._client = MlflowClient()
        run = self._found(about.known) or self._created(about)
        self._id: str = run.info.run_id
        if not run.data.params:
            self._log_settings(about)

    def rows(self, rows: Sequence[EpochRow]) -> None:
        """Log the numbers at step ``images_seen``."""
        now = int(time.time() * 1000)
        metrics = [
            Metric(name, value, now, row.images_seen)
            for row in rows
            for name, value in scalars(row).items()
        ]
        for start in range(0, len(metrics), _MOST_METRICS):
            self._client.log_batch(self._id, metrics[start : start + _MOST_METRICS])

    def grid(self, png: bytes, row: EpochRow) -> None:
        """Log the grid as an artifact, ``samples/epoch-0012.png``."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"epoch-{row.epoch:04d}.png"
            file.write_bytes(png)
            self._client.log_artifact(self._id, str(file), "samples")

    def end(self, state: State) -> None:
        """Set the status."""
        self._client.set_terminated(self._id, _ENDS[state])

    def _found(self, known: str) -> Run | None:
        """The run of the earlier starts, which goes on; None where the server has none."""
        if not known:
            return None
        try:
            self._client.update_run(known, status="RUNNING")
            return self._client.get_run(known)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def _created(self, about: About) -> Run:
        """A new run, remembered at once: whatever fails next, no second one is created."""
        name = mlflow_experiment()
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        tags = {"mrigan.uri": about.uri}
        run = self._client.create_run(experiment, run_name=about.name, tags=tags)
        about.remember(run.info.run_id)
        return run

    def _log_settings(self, about: About) -> None:
        params = [
            Param(name, str(value)[:_MOST_CHARACTERS]) for name, value in about.settings.items()
        ]
        for start in range(0, len(params), _MOST_PARAMS):
            self._client.log_batch(self._id, params=params[start : start + _MOST_PARAMS])
