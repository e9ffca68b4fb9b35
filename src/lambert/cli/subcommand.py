"""Base class and output of all subcommands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from lambert.api.messages import log


@dataclass(frozen=True, kw_only=True)
class Subcommand:
    """A subcommand: its fields are its options; `run` executes it and returns the results for `--json`."""

    only_prints: ClassVar[bool] = False
    """Whether it makes nothing but what it prints: it then ends when its reader does."""

    json: bool = False
    """Print the results as one JSON object on the last line (keys: docs/json.md)."""

    def run(self) -> dict[str, Any]:
        """Execute the subcommand. An `exit_code` in the results becomes the exit code of the process."""
        raise AssertionError(f"{type(self).__name__} has no run")

    def as_command(self, name: str) -> list[str]:
        """The words of this call, for subcommands without positionals."""
        from lambert.training.config.arguments import command_words

        return command_words(name, self)


PRINTED = "printed"
"""Key in the results: child processes have printed them already."""


def say(text: str = "") -> None:
    """Print one line to the terminal."""
    log.info(text)


def say_lines(lines: Iterable[str]) -> None:
    """Print lines to the terminal."""
    for line in lines:
        log.info(line)


def warn(text: str) -> None:
    """Print one line to standard error."""
    log.warning(text)
