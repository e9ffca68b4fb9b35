"""What every verb of the command line shares."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Subcommand:
    """A command: its fields are its options, `run` does it and returns what `--json` prints."""

    json: bool = False
    """Make the last line of output one JSON object with the results (keys: docs/json.md)."""

    def run(self) -> dict[str, Any]:
        """Do it. `exit_code` in the result, when there, becomes the process's."""
        raise AssertionError(f"{type(self).__name__} has no run")

    def as_command(self, name: str) -> str:
        """The call that asks for the same again, for verbs without positionals; default values are left out.

        So is --fresh: whoever repeats a recorded command wants to go on, not to delete.
        """
        words = ["lambert", name]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value == field.default or field.name in ("json", "fresh"):
                continue
            values = [str(item) for item in value] if isinstance(value, (list, tuple)) else [str(value)]
            option = [f"--{field.name.replace('_', '-')}"]
            words += option if value is True else option + values
        return shlex.join(words)


PRINTED = "printed"
"""Among a verb's results: others have printed them already."""


def say(text: str = "") -> None:
    """One line for the person at the terminal."""
    print(text, flush=True)


def say_lines(lines: Iterable[str]) -> None:
    """Lines for the person at the terminal."""
    for line in lines:
        say(line)


def warn(text: str) -> None:
    """One line beside the results, on standard error."""
    print(f"lambert: {text}", file=sys.stderr, flush=True)
