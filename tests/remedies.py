"""Whether a remedy can be followed: what it names exists where the error appears."""

from __future__ import annotations

import dataclasses
import re
import shlex

from lambert.cli.main import SUBCOMMANDS

_FLAG = re.compile(r"(?<![\w-])--([a-z][a-z-]*)")
_COMMAND = re.compile(r"`lambert ([^`]+)`")
_NOT_OURS = re.compile(r"pip install [^`]*?(?=[.,;]|$)|`(?:wandb|jq|pip|torchrun) [^`]*`|torchrun [^`]*")
_ALWAYS = {"help", "version"}


def options(subcommand: str) -> set[str]:
    """The flags of a subcommand, without dashes."""
    fields = dataclasses.fields(SUBCOMMANDS[subcommand])  # type: ignore[arg-type]
    return {field.name.replace("_", "-") for field in fields} | _ALWAYS


def faults(remedy: str, subcommands: set[str]) -> list[str]:
    """What the remedy names and none of `subcommands`, where it is given, has; empty if it can be followed."""
    found = []
    for command in _COMMAND.findall(remedy):
        try:
            words = shlex.split(command)
        except ValueError:
            found.append(f"`lambert {command}` is no command line")
            continue
        if words[0] not in SUBCOMMANDS and words[0] not in ("SUBCOMMAND", "{}", "--help"):
            found.append(f"there is no `lambert {words[0]}`")
        elif words[0] in SUBCOMMANDS:
            found += [
                f"`lambert {words[0]}` has no --{flag}"
                for flag in _FLAG.findall(command)
                if flag not in options(words[0])
            ]
    rest = _NOT_OURS.sub("", _COMMAND.sub("", remedy))
    known = set().union(*(options(name) for name in subcommands)) if subcommands else _ALWAYS
    return found + [f"--{flag} is no option here" for flag in _FLAG.findall(rest) if flag not in known]
