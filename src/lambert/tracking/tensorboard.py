"""Event files that TensorBoard reads, written with its own writer (the extra `tensorboard`)."""

from __future__ import annotations

import json
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lambert.errors import UserError
from lambert.tracking.checks import check_writable
from lambert.tracking.follow import Metrics, RunFacts
from lambert.utils.formatting import path_word, shell_command
from lambert.utils.io import write_json

_STATE = "lambert.json"


class TensorBoardSink:
    """Writes the metrics of each run into its own folder below `folder`, so that one TensorBoard shows all runs.

    `lambert.json` beside the events says how far the journal has been read, so a later call adds only what is new.
    After a resume or a rollback, TensorBoard drops the steps that come again.

    Raises:
        UserError: TensorBoard is not installed.
    """

    name = "TensorBoard"
    replaces_steps = True

    def __init__(self, folder: str | Path) -> None:
        if find_spec("tensorboard") is None:
            raise UserError(
                "`tensorboard` needs the package tensorboard, which is not installed",
                remedy="Install it with: pip install 'lambert-bert[tensorboard]'",
            )
        self._parent = Path(folder)
        self._writer: Any = None
        self.folder: Path | None = None
        """Of the run's events, once it has begun."""

    @property
    def place(self) -> str | None:
        """The folder of the run's events."""
        return None if self.folder is None else str(self.folder)

    @property
    def shown_by(self) -> str:
        """`tensorboard --logdir DIR`."""
        return shell_command("tensorboard", "--logdir", self._parent)

    @property
    def words(self) -> list[str]:
        """`--tensorboard DIR`."""
        return ["--tensorboard", path_word(self._parent)]

    def check(self, name: str) -> None:
        """Raises UserError when the folder cannot be written to."""
        check_writable(self._parent / name)

    def begin(self, facts: RunFacts) -> int:
        """Raises UserError when the folder cannot be written to."""
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.folder = self._parent / facts.name
        self._journal_id = facts.journal_id
        check_writable(self.folder)
        self._writer = EventFileWriter(str(self.folder))
        written = self._written()
        if not written and facts.recipe:
            self._add_text("recipe", json.dumps(facts.recipe, indent=4))
        return written

    def add(self, record: int, metrics: Metrics) -> None:
        """One event with a scalar for each metric."""
        from tensorboard.compat.proto import event_pb2, summary_pb2

        values = [summary_pb2.Summary.Value(tag=name, simple_value=value) for name, value in metrics.values.items()]
        self._add(event_pb2.Event(summary=summary_pb2.Summary(value=values)), metrics.step, metrics.seconds)

    def restart(self, step: int, seconds: float | None) -> None:
        """The event on which TensorBoard drops later steps."""
        from tensorboard.compat.proto import event_pb2

        log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._add(event_pb2.Event(session_log=log), step + 1, seconds)

    def flush(self, record: int) -> None:
        """Write waiting events, and how far they go."""
        assert self.folder is not None
        self._writer.flush()
        write_json(self.folder / _STATE, {"journal": self._journal_id, "records": record})

    def close(self, *, ended: bool) -> None:
        """End the event file."""
        if self._writer is not None:
            self._writer.close()

    def _written(self) -> int:
        """How many records of this journal are in the events; its first record drops those of another journal."""
        assert self.folder is not None
        try:
            state = json.loads((self.folder / _STATE).read_text(encoding="utf-8"))
            return int(state["records"]) if state["journal"] == self._journal_id else 0
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def _add_text(self, name: str, text: str) -> None:
        """Plain text; four spaces before each line make it code in TensorBoard's Markdown."""
        from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2

        indented = "\n".join(f"    {line}" for line in text.splitlines())
        plugin = summary_pb2.SummaryMetadata.PluginData(plugin_name="text")
        value = summary_pb2.Summary.Value(
            tag=f"{name}/text_summary",
            metadata=summary_pb2.SummaryMetadata(plugin_data=plugin),
            tensor=tensor_pb2.TensorProto(
                dtype=types_pb2.DT_STRING,
                string_val=[indented.encode()],
                tensor_shape={"dim": [{"size": 1}]},
            ),
        )
        self._add(event_pb2.Event(summary=summary_pb2.Summary(value=[value])), 0, None)

    def _add(self, event: Any, step: int, seconds: float | None) -> None:
        event.step, event.wall_time = step, time.time() if seconds is None else seconds
        self._writer.add_event(event)
