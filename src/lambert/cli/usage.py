"""Turns tyro's error boxes into one-line usage errors: what was wrong and what to do."""

from __future__ import annotations

import re

from lambert.errors import UserError

_RULE = re.compile("[─-]{3,}")
_WRONG_KIND = re.compile(r"Error parsing (\S+): no type matching (INT|FLOAT) could be instantiated from \['(.*?)'\].*")
_KINDS = {"INT": "a whole number", "FLOAT": "a number"}
_ARGUMENT = re.compile(r" {4}\S")


def usage_error(box: str, subcommand: str) -> UserError:
    """The usage error for tyro's `box`.

    Args:
        box: tyro's output on standard error.
        subcommand: the subcommand given, or "" without one.
    """
    first, *hints = _sections(box)
    command = f"lambert {subcommand}".strip()
    help_line = f"`{command} --help` explains every option"
    if first and first[0].startswith("Missing from"):
        return UserError(f"{command} needs {' and '.join(_named(first))}", remedy=help_line)
    what = " ".join(line.strip() for line in first).removesuffix(".")
    if wrong := _WRONG_KIND.fullmatch(what):
        return UserError(f"{wrong[1]} {wrong[3]}", remedy=f"Give {_KINDS[wrong[2]]}; {help_line}")
    near = [name for hint in hints if hint[0].startswith("Perhaps you meant") for name in _named(hint)]
    if near:
        return UserError(what, remedy=f"Did you mean {near[0]}? {help_line}")
    return UserError(what, remedy=help_line)


def _named(section: list[str]) -> list[str]:
    """The arguments listed in a section; their descriptions are indented further."""
    return [line.split()[0] for line in section if _ARGUMENT.match(line)]


def _sections(box: str) -> list[list[str]]:
    """The lines of the box without title and frame, indentation kept, split at its rules; at least one section."""
    lines = box.splitlines()
    if box.startswith("╭"):
        lines = [line.removeprefix("│ ").rstrip("│ ") for line in lines[1:-1]]
    else:  # without UTF-8: a title, a rule, and the rest indented by two
        lines = [line.removeprefix("  ").rstrip() for line in lines[2:]]
    sections: list[list[str]] = [[]]
    for line in lines:
        if _RULE.fullmatch(line):
            sections.append([])
        elif line:
            sections[-1].append(line)
    return [section for section in sections if section] or [["the command line is invalid"]]
