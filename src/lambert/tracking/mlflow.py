"""MLflow through its own client, of which the small `mlflow-skinny` suffices (the extra `mlflow`)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lambert.errors import UserError
from lambert.tracking.checks import check_reachable, check_writable, without_password
from lambert.tracking.follow import Metrics, RunFacts, told
from lambert.utils.formatting import path_word, shell_command

EXPERIMENT = "lambert"
_EXPERIMENT_VARIABLE = "MLFLOW_EXPERIMENT_NAME"
_JOURNAL, _RECORDS = "lambert.journal", "lambert.records"
"""Tags of a run: which journal it shows, and how many of its records."""
_WEB = ("http", "https")
_WITHOUT_DATABASE = (*_WEB, "file", "databricks", "databricks-uc")
_MOST_METRICS, _MOST_PARAMS = 1_000, 100
"""In one request."""
_MOST_CHARACTERS = 500
"""Of a parameter's value; newer servers take 6,000."""


class MLflowSink:
    """A run of MLflow, in a folder or at a tracking server.

    A tag of the run names the journal, and another says how many of its records the run has, so a later call continues
    the same run. Metrics are sent in the request that moves that tag.

    Args:
        uri: a folder, or a tracking URI such as http://localhost:5000. One of a database needs the whole of `mlflow`.
        experiment: None takes MLFLOW_EXPERIMENT_NAME, and `lambert` where it is not set.

    Raises:
        UserError: a package is not installed.
    """

    name = "MLflow"
    replaces_steps = False

    def __init__(self, uri: str | Path, *, experiment: str | None = None) -> None:
        if find_spec("mlflow") is None:
            raise UserError(
                "`mlflow` needs the package mlflow-skinny, or mlflow, and neither is installed",
                remedy="Install it with: pip install 'lambert-bert[mlflow]'",
            )
        self._uri = uri
        self._scheme = scheme_of(uri)
        if self._scheme and self._scheme not in _WITHOUT_DATABASE and find_spec("sqlalchemy") is None:
            raise UserError(
                f"{without_password(str(uri))} is a database, which needs the whole of MLflow",
                remedy="Install it with: pip install mlflow; or give a folder or a server's address",
            )
        self.experiment = experiment or os.environ.get(_EXPERIMENT_VARIABLE) or EXPERIMENT
        self._client: Any = None
        self._run: Any = None
        self._waiting: list[tuple[int, Any]] = []

    @property
    def folder(self) -> Path | None:
        """Where the runs are; None at a server."""
        return None if self._scheme else Path(self._uri)

    @property
    def place(self) -> str | None:
        """The page of the run at a server, else its folder or its id."""
        if self._run is None:
            return None
        info = self._run.info
        if self._scheme in _WEB:
            server = without_password(str(self._uri)).rstrip("/")
            return f"{server}/#/experiments/{info.experiment_id}/runs/{info.run_id}"
        return str(info.run_id if self.folder is None else self.folder / info.experiment_id / info.run_id)

    @property
    def shown_by(self) -> str | None:
        """MLflow's own server, for a folder."""
        server = shell_command("mlflow", "server", "--backend-store-uri", self.folder) if self.folder else None
        return server and f"MLFLOW_ALLOW_FILE_STORE=true {server}"

    @property
    def words(self) -> list[str]:
        """`--mlflow URI`."""
        return ["--mlflow", path_word(self._uri) if self.folder else without_password(str(self._uri))]

    def check(self, name: str) -> None:
        """Raises UserError when the folder cannot be written to, or no server answers."""
        if self.folder is not None:
            check_writable(self.folder)
        elif self._scheme in _WEB:
            check_reachable(str(self._uri))

    def connect(self) -> str:
        """The id of the experiment, which is made where it does not exist yet.

        Raises:
            UserError: the client could not (no server, no permission).
        """
        for name in ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"):
            os.environ.setdefault(name, "true")
        if self.folder is not None:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # its newer versions refuse folders without it
        from mlflow import MlflowClient

        target = str(self._uri) if self.folder is None else self.folder.resolve().as_uri()
        with _started():
            self._client = MlflowClient(tracking_uri=target)
            known = self._client.get_experiment_by_name(self.experiment)
            return str(self._client.create_experiment(self.experiment) if known is None else known.experiment_id)

    def begin(self, facts: RunFacts) -> int:
        """Start or continue the run.

        Raises:
            UserError: the client could not (no server, no permission).
        """
        experiment = self.connect()
        with _started():
            found = self._client.search_runs([experiment], f"tags.`{_JOURNAL}` = '{facts.journal_id}'")
            if found:
                self._run = found[0]
                self._client.update_run(self._run.info.run_id, status="RUNNING")
                return int(self._run.data.tags.get(_RECORDS, 0))
            tags = {_JOURNAL: facts.journal_id}
            self._run = self._client.create_run(experiment, run_name=facts.name, tags=tags)
            self._log_params(facts.recipe)
        return 0

    def add(self, record: int, metrics: Metrics) -> None:
        """Keep the metrics until the next `flush`."""
        from mlflow.entities import Metric

        milliseconds = round(1000 * (metrics.seconds or 0))
        for name, value in metrics.values.items():
            self._waiting.append((record, Metric(metric_name(name), value, milliseconds, metrics.step)))

    def restart(self, step: int, seconds: float | None) -> None:
        """MLflow keeps everything; what a rollback computes again comes later in time."""

    def flush(self, record: int) -> None:
        """Send what waits. A record's metrics are in one request, unless there are too many for one."""
        while self._waiting:
            batch = self._waiting[:_MOST_METRICS]
            if len(self._waiting) > _MOST_METRICS and batch[0][0] != batch[-1][0]:
                batch = [one for one in batch if one[0] != batch[-1][0]]  # its record comes whole in the next request
            del self._waiting[: len(batch)]
            self._log(batch, self._waiting[0][0] - 1 if self._waiting else record)

    def close(self, *, ended: bool) -> None:
        """Mark the run as finished, where it has ended."""
        if self._run is not None and ended:
            self._client.set_terminated(self._run.info.run_id, "FINISHED")

    def _log_params(self, recipe: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        given = [Param(name, text[:_MOST_CHARACTERS]) for name, text in flattened(recipe).items() if text]
        for first in range(0, len(given), _MOST_PARAMS):
            self._client.log_batch(self._run.info.run_id, params=given[first : first + _MOST_PARAMS])

    def _log(self, batch: list[tuple[int, Any]], record: int) -> None:
        from mlflow.entities import RunTag

        metrics, tags = [metric for _, metric in batch], [RunTag(_RECORDS, str(record))]
        self._client.log_batch(self._run.info.run_id, metrics=metrics, tags=tags)


@contextmanager
def _started() -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise UserError(
            f"MLflow could not be started ({told(error)})", remedy="Check the server and your access"
        ) from None


def scheme_of(uri: str | Path) -> str:
    """`http` of http://host, `databricks` of databricks; "" for a folder.

    Raises:
        UserError: it is neither a folder nor a URI, such as localhost:5000.
    """
    text = str(uri)
    scheme, colon, rest = text.partition(":")
    if text in ("databricks", "databricks-uc") or (colon and rest.startswith("/") and re.fullmatch(r"[\w+-]+", scheme)):
        return scheme
    if not text or (colon and not text.startswith((".", "/"))):
        raise UserError(
            f"{text!r} is neither a folder nor a tracking URI of MLflow",
            remedy="Give a folder such as runs/mlflow, or an address such as http://localhost:5000",
        )
    return ""


def metric_name(name: str) -> str:
    """The name with the characters that MLflow allows.

    >>> metric_name("trust_ratio/encoder.layer.0.qkv.weight[2]")
    'trust_ratio/encoder.layer.0.qkv.weight.2'
    """
    return re.sub(r"[^\w./ -]", "_", re.sub(r"\[(\w+)\]", r".\1", name))


def flattened(tables: Any, name: str = "") -> dict[str, str]:
    """Every value of nested tables under its path.

    >>> flattened({"seed": 0, "phases": [{"steps": 3}], "betas": [0.9, 0.999]})
    {'seed': '0', 'phases.1.steps': '3', 'betas': '[0.9, 0.999]'}
    """
    if isinstance(tables, Mapping):
        items = list(tables.items())
    elif isinstance(tables, list) and any(isinstance(one, Mapping) for one in tables):
        items = [(str(number), one) for number, one in enumerate(tables, 1)]
    else:
        return {name: str(tables)}
    below = [flattened(value, f"{name}.{key}" if name else str(key)) for key, value in items]
    return {path: text for one in below for path, text in one.items()}
