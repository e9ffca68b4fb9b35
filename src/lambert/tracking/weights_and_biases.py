"""Weights & Biases through its own client (the extra `wandb`); offline, without an account, by default."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

from lambert.errors import UserError, unknown_name
from lambert.tracking.follow import Metrics, RunFacts

MODES = ("offline", "online", "disabled")
_MODE_VARIABLE = "WANDB_MODE"
_ID_CHARACTERS = 16


class WandbSink:
    """A run of Weights & Biases in `project`.

    Its id comes from the journal, so a later call continues the same run. Charts use lambert's step. W&B's own step is
    the record's number in the journal, which also grows where steps come again after a resume.

    Args:
        mode: `offline`, `online` or `disabled`; None takes that of WANDB_MODE, and offline where it is not set.

    Raises:
        UserError: wandb is not installed, or there is no such mode.
    """

    def __init__(self, project: str, *, mode: str | None = None) -> None:
        if find_spec("wandb") is None:
            raise UserError(
                "--wandb needs the package wandb, which is not installed",
                remedy="Install it with: pip install 'lambert-bert[wandb]'",
            )
        self._project = project
        self.mode = mode or os.environ.get(_MODE_VARIABLE) or "offline"
        if self.mode not in MODES:
            raise unknown_name("mode of Weights & Biases", self.mode, MODES)
        self._run: Any = None

    @property
    def folder(self) -> str | None:
        """Where the client keeps its files, once it has begun."""
        return None if self._run is None else str(self._run.dir)

    def begin(self, facts: RunFacts) -> int:
        """Start or continue the run.

        Raises:
            UserError: the client could not (no account, no network).
        """
        import wandb

        try:
            self._run = wandb.init(
                project=self._project,
                name=facts.name,
                id=facts.journal_id[:_ID_CHARACTERS],
                config=facts.recipe,
                resume="allow" if self.mode == "online" else None,
                mode=self.mode,
                # The output and the resources of this process are not those of the run.
                settings=wandb.Settings(console="off", x_disable_stats=True),
            )
        except wandb.errors.Error as error:
            raise UserError(
                f"Weights & Biases could not be started ({error})",
                remedy="Log in with `wandb login`, or leave out --wandb-mode online",
            ) from None
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        # What an earlier call sent last has the step before this one.
        return max(0, int(self._run.starting_step) - 1)

    def add(self, record: int, metrics: Metrics) -> None:
        """Log the metrics with lambert's step."""
        self._run.log({**metrics.values, "step": metrics.step}, step=record)

    def restart(self, step: int, seconds: float | None) -> None:
        """W&B keeps everything; repeated steps come later in its own count."""

    def flush(self, record: int) -> None:
        """The client sends by itself."""

    def close(self) -> None:
        """Wait until everything is written or sent."""
        if self._run is not None:
            self._run.finish()
