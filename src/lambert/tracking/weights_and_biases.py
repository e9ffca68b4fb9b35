"""Weights & Biases through its own client (the extra `wandb`); offline, without an account, by default."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lambert.errors import UserError, unknown_name
from lambert.tracking.follow import Metrics, RunFacts, told
from lambert.utils.formatting import shell_command

MODES = ("offline", "online", "disabled")
_DEFAULT_MODE = "offline"
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

    name = "Weights & Biases"
    replaces_steps = False

    def __init__(self, project: str, *, mode: str | None = None) -> None:
        if find_spec("wandb") is None:
            raise UserError(
                "`wandb` needs the package wandb, which is not installed",
                remedy="Install it with: pip install 'lambert-bert[wandb]'",
            )
        self._project = project
        self.mode = mode or os.environ.get(_MODE_VARIABLE) or _DEFAULT_MODE
        if self.mode not in MODES:
            raise unknown_name("mode of Weights & Biases", self.mode, MODES)
        self._run: Any = None

    @property
    def place(self) -> str | None:
        """The folder of the client's files, online the page of the run."""
        if self._run is None:
            return None
        return str(self._run.url if self.mode == "online" else Path(self._run.dir).parent)

    @property
    def shown_by(self) -> str | None:
        """`wandb sync`, which uploads the folder of an offline run."""
        return shell_command("wandb", "sync", self.place) if self.place and self.mode == "offline" else None

    @property
    def words(self) -> list[str]:
        """`--wandb PROJECT`, with the mode where it is not the default."""
        return ["--wandb", self._project, *([] if self.mode == _DEFAULT_MODE else ["--wandb-mode", self.mode])]

    def check(self, name: str) -> None:
        """Raises UserError when an online run has no account. It asks no server."""
        if self.mode != "online":
            return
        import wandb

        try:
            has_account = wandb.login(prompt=False, verify=False)
        except TypeError:  # older clients cannot be asked without a prompt: `begin` will tell
            return
        except wandb.errors.Error as error:
            raise _not_started(told(error)) from None
        if not has_account:
            raise _not_started("no API key is configured")

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
            raise _not_started(told(error)) from None
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        # What an earlier call sent last has the step before this one.
        return max(0, int(self._run.starting_step) - 1)

    def add(self, record: int, metrics: Metrics) -> None:
        """Log the metrics with lambert's step."""
        self._run.log({**metrics.values, "step": metrics.step}, step=record)

    def restart(self, step: int, seconds: float | None) -> None:
        """W&B keeps everything; what a rollback computes again comes later in its own count."""

    def flush(self, record: int) -> None:
        """The client sends by itself."""

    def close(self, *, ended: bool) -> None:
        """Wait until everything is written or sent."""
        if self._run is not None:
            self._run.finish()


def _not_started(why: str) -> UserError:
    return UserError(
        f"Weights & Biases could not be started ({why})",
        remedy="Log in with `wandb login`, or use the mode offline and upload later with `wandb sync`",
    )
