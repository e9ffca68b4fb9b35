"""Callbacks: user code that runs during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lambert.runlog.writer import Journal

if TYPE_CHECKING:
    from lambert.training.loop import TrainingLoop

Record = Mapping[str, Any]
"""The fields of one journal event (docs/journal.md)."""


class Callback:
    """Hooks of a run. Subclass it and override what you need.

    Hooks run on the main process only, after the event is written to `journal.jsonl`. `trainer` is the running loop:
    `trainer.step`, `trainer.model`, `trainer.settings`, `trainer.request_stop()`. An exception in a hook ends the run;
    its last checkpoint stays::

        class StopEarly(lambert.Callback):
            def on_evaluate(self, trainer, record):
                if record["mlm_loss"] < 3.0:
                    trainer.request_stop()
    """

    def on_train_begin(self, trainer: TrainingLoop, record: Record) -> None:
        """Before the first step; `record` describes the run (event `run`)."""

    def on_step_end(self, trainer: TrainingLoop, record: Record) -> None:
        """After each optimizer step: losses, accuracies, learning rate, gradient norm, speed (event `step`)."""

    def on_evaluate(self, trainer: TrainingLoop, record: Record) -> None:
        """After each evaluation on the validation set (event `evaluation`)."""

    def on_save(self, trainer: TrainingLoop, record: Record) -> None:
        """After a checkpoint is complete on disk (event `checkpoint`)."""

    def on_train_end(self, trainer: TrainingLoop, record: Record) -> None:
        """At the end of the session; `record["reason"]` is `finished` or `interrupted` (event `end`)."""

    def on_log(self, trainer: TrainingLoop, event: str, record: Record) -> None:
        """After every event, including those above: `phase`, `skipped`, `spike`, `rollback`, `noise`, …"""


_HOOKS = {
    "run": "on_train_begin",
    "step": "on_step_end",
    "evaluation": "on_evaluate",
    "checkpoint": "on_save",
    "end": "on_train_end",
}


class EventLog:
    """Writes events to the journal and calls the callbacks."""

    def __init__(self, journal: Journal, trainer: TrainingLoop, callbacks: Sequence[Callback]) -> None:
        self._journal, self._trainer = journal, trainer
        self._callbacks = callbacks if trainer.processes.is_main_process else ()

    def write(self, event: str, fields: Record) -> None:
        """Write one event."""
        self._journal.write(event, fields)
        for callback in self._callbacks:
            if event in _HOOKS:
                getattr(callback, _HOOKS[event])(self._trainer, fields)
            callback.on_log(self._trainer, event, fields)
