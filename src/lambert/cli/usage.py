"""Turns tyro's error boxes into one-line usage errors: what was wrong and what to do."""

from __future__ import annotations

import itertools
import re

from lambert.errors import UserError

_RULE = re.compile("[─-]{3,}")
_ARGUMENT = re.compile(r" {4}\S")


def usage_error(box: str, subcommand: str) -> UserError:
    """The usage error for tyro's `box`.

    Args:
        box: tyro's output on standard error.
        subcommand: the subcommand given, or "" without one.
    """
    first = _first_section(box)
    command = f"lambert {subcommand}".strip()
    help_line = f"`{command} --help` explains every option"
    if first[0].startswith("Missing from"):
        return UserError(f"{command} needs {' and '.join(_named(first))}", remedy=help_line)
    what = " ".join(line.strip() for line in first).removesuffix(".")
    return UserError(what, remedy=help_line)


def _named(section: list[str]) -> list[str]:
    """The arguments listed in a section; their descriptions are indented further."""
    return [line.split()[0] for line in section if _ARGUMENT.match(line)]


def _first_section(box: str) -> list[str]:
    """The lines of the box above its first rule, without title and frame, indentation kept."""
    lines = box.splitlines()
    if box.startswith("╭"):
        lines = [line.removeprefix("│ ").rstrip("│ ") for line in lines[1:-1]]
    else:  # without UTF-8: a title, a rule, and the rest indented by two
        lines = [line.removeprefix("  ").rstrip() for line in lines[2:]]
    first = list(itertools.takewhile(lambda line: not _RULE.fullmatch(line), lines))
    return [line for line in first if line] or ["the command line is invalid"]
