"""What every subcommand shares."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lambert.api.messages import log


@dataclass(frozen=True, kw_only=True)
class Subcommand:
    """A command: its fields are its options, `run` does it and returns what `--json` prints."""

    json: bool = False
    """Make the last line of output one JSON object with the results (keys: docs/json.md)."""

    def run(self) -> dict[str, Any]:
        """Do it. `exit_code` in the result, when there, becomes the process's."""
        raise AssertionError(f"{type(self).__name__} has no run")

    def as_command(self, name: str) -> str:
        """The call that asks for the same again, for subcommands without positionals."""
        from lambert.training.config.arguments import command_line

        return command_line(name, self)


PRINTED = "printed"
"""Among a subcommand's results: other processes have printed them already."""


def say(text: str = "") -> None:
    """One line for the person at the terminal."""
    log.info(text)


def say_lines(lines: Iterable[str]) -> None:
    """Lines for the person at the terminal."""
    for line in lines:
        log.info(line)


def warn(text: str) -> None:
    """One line beside the results, on standard error."""
    log.warning(text)
