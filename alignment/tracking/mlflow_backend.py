"""Logs to MLflow: a server, or a folder in MLflow's file format. One experiment per project, one run per stage."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from alignment.tracking.background_tracker import TrackedRun

_KEY = "code-alignment.key"
_NOT_ALLOWED = re.compile(r"[^\w\-. :/]")
"""Matches characters that names of metrics must not contain, such as the `@` of `pass@1`."""
_MAX_VALUE = 500
"""Longest value of a parameter. MLflow's own limit is 6,000 characters, and that of older servers 500."""


class MlflowBackend:
    """A run in MLflow, whose tag `code-alignment.key` identifies the stage."""

    name = "mlflow"

    def __init__(self, uri: str) -> None:
        """Prepare the connection; `start` makes it.

        Args:
            uri: address of a server, or `file:///folder`.
        """
        self.uri = uri
        self._client: Any = None
        self._run_id = ""

    def start(self, run: TrackedRun) -> None:
        """Create the run, or continue the newest run with the same key."""
        # Errors are handled by BackgroundTracker, so the client must not wait for minutes before it raises one.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3 refuses folders without it
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(tracking_uri=self.uri)
        experiment = self._client.get_experiment_by_name(run.project)
        number = experiment.experiment_id if experiment else self._client.create_experiment(run.project)
        earlier = self._client.search_runs([number], f"tags.`{_KEY}` = '{run.key}'", max_results=1)
        if earlier:
            self._run_id = earlier[0].info.run_id
            self._client.update_run(self._run_id, status="RUNNING")
            return
        tags = {_KEY: run.key, "code-alignment.recipe": run.group}
        self._run_id = self._client.create_run(number, run_name=run.name, tags=tags).info.run_id
        params = [Param(name, value[:_MAX_VALUE]) for name, value in run.settings.items()]
        self._client.log_batch(self._run_id, params=params[:100])  # the API takes 100 at a time

    def log(self, metrics: Mapping[str, float], step: int, seconds: float) -> None:
        """Log metrics of an optimizer step."""
        from mlflow.entities import Metric

        values = [
            Metric(_NOT_ALLOWED.sub("_", name), value, int(seconds * 1000), step) for name, value in metrics.items()
        ]
        self._client.log_batch(self._run_id, metrics=values)

    def finish(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._run_id)
