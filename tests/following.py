"""Follows a remedy as its words say: which command lines it leads to."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lambert.cli.arguments import _options as fields_of
from lambert.cli.main import SUBCOMMANDS, with_flags
from lambert.errors import UserError

FLAG = r"--[a-z][a-z-]*"
NUMBER = r"-?(?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?(?:e-?[0-9]+)?|\.[0-9]+)(?:[A-Z]i?\b)?"
SMALL_WORDS = (
    "(?:from|to|of|or|and|if|that|says|for|in|the|with|without|on|at|accepts|again|up|is|how|below|through|which)"
)
NUMBERS = (
    rf"(?:from|at least|at most|up to|such as|Try|to|Give) ({NUMBER})",
    rf"({NUMBER}) or less",
    rf"or ({NUMBER})",
)


@dataclass(frozen=True)
class Step:
    """What a remedy leads to: commands to run first, then the command line as the remedy changes it."""

    first: tuple[tuple[str, ...], ...]
    words: tuple[str, ...]


def steps(error: UserError, words: Sequence[str], given: Mapping[str, str]) -> list[Step]:
    """Every way that the remedy offers; [] where it names no option, value or command.

    Args:
        words: the command line that was refused.
        given: values of options that a remedy names without one, by flag, and the words that complete a command.
    """
    what, remedy = with_flags(error.what), with_flags(error.remedy)
    found = [*_commands(remedy, words, given), *_hints(what, remedy, words, given)]
    if not found:
        found = [*_options(what, remedy, words, given)]
    if not found:
        found = [Step((), _with(words, at, value)) for at in _at(what, words) for value in _values(remedy)]
    return list(dict.fromkeys(step for step in found if step.first or step.words != tuple(words)))


def _commands(remedy: str, words: Sequence[str], given: Mapping[str, str]) -> Iterator[Step]:
    """A command in backticks runs first; what it makes takes the place of the corpus or the run."""
    for command in re.findall(r"`lambert ([^`]+)`", remedy):
        name, *rest = shlex.split(command)
        if "--help" in rest or f"`lambert {name}` has it" in remedy or "have it" in remedy or "--save-recipe" in rest:
            continue  # explained, not made
        if name == "prepare":
            making = (name, *rest, *shlex.split(given["prepare"]))
            yield Step((making,), _in_place_of(words, "--corpus", given["made"]))
        elif name == "pretrain":
            yield Step((), _in_place_of(words, "--noise-from", given["run"]))


def _hints(what: str, remedy: str, words: Sequence[str], given: Mapping[str, str]) -> Iterator[Step]:
    """Did you mean …? Known: …; what is needed."""
    wrong = re.search(r"has no option (-{1,2}[\w-]+)", what)
    for meant in re.findall(rf"Did you mean ({FLAG}|[A-Z_]+), without a flag\?|Did you mean ({FLAG})\?", remedy):
        assert wrong is not None
        own = [*meant[1:], ""][0]
        yield Step((), tuple(word for word in ((own if word == wrong[1] else word) for word in words) if word))
    if needed := re.search(r"lambert \w+ needs (.*)", what):
        yield Step((), (*words, *[one for flag in re.findall(FLAG, needed[1]) for one in (flag, given[flag])]))
    if known := re.search(r"(?:Known: |Choose one of |Choose )(?!an? |one |another )([a-z0-9L].*)", remedy):
        meant = re.findall(r"Did you mean '(.*?)'", remedy)
        for name in meant or re.split(r", | or ", known[1].removeprefix("LAYERSxHIDDEN, "))[:1]:
            if what.startswith("unknown subcommand"):
                yield Step((), (name, *words[1:]))
                continue
            yield from (Step((), _with(words, at, name)) for at in _at(what, words))


def _options(what: str, remedy: str, words: Sequence[str], given: Mapping[str, str]) -> Iterator[Step]:
    """Options to leave out, and to give, with the value in the text or a given one."""
    left_out = tuple(words)
    leave = rf"[Ll]eave (?:out )?(?:[A-Z_]+ or )?((?:{FLAG}(?: and | or |, )?)+)(?:out)?"
    for left in re.findall(leave, remedy):
        for flag in re.findall(FLAG, left):
            left_out = _without(left_out, flag)
            if "; give" not in remedy:
                yield Step((), left_out if " and " in left else _without(words, flag))
    if "Leave out MODEL_FOLDER" in remedy:
        yield Step((), (words[0], *words[2:]))
    remedy = re.sub(rf"`lambert [^`]*`|{leave}", "", remedy)
    together = " and ".join(rf"({FLAG}) ([\w.-]+)" for _ in range(2))
    if pair := re.search(together, remedy):
        yield Step((), _with(_with(words, pair[1], pair[2]), pair[3], pair[4]))
        return
    if re.search(r"one of them|either|one at a time", remedy):
        both = [flag for flag in re.findall(FLAG, what) if flag in words]
        yield from (Step((), _without(words, flag)) for flag in both if len(both) > 1)
        if len(both) > 1:
            return
    for flag, value in re.findall(rf"({FLAG})(?: (?!{SMALL_WORDS}\b|[A-Z_]+\b)([\w./-]+(?: {NUMBER})*))?", remedy):
        kind = fields_of(SUBCOMMANDS[words[0]]).get(flag[2:].replace("-", "_"))
        if kind is None:
            continue
        near = re.search(rf"{flag},? (?:from|up to|to|such as) ({NUMBER})", remedy)
        value = "" if kind == "bool" else near[1] if near else value or given.get(flag, "")
        if kind == "bool" or value:
            base = left_out if "; give" in remedy else tuple(words)
            yield Step((), _with(base, flag, value) if value else (*base, flag))


def _values(remedy: str) -> list[str]:
    """Numbers and names that the remedy gives for the option at fault."""
    remedy = re.sub(r"\^63 - 1|;.*", "", remedy)
    found = [value.rstrip(",") for pattern in NUMBERS for value in re.findall(pattern, remedy)]
    found += ["1"] * ("above 0" in remedy) + [".5"] * ("between 0 and 1" in remedy)
    return found or re.findall(r"such as ([a-z][\w-]*)", remedy)


def _at(what: str, words: Sequence[str]) -> list[str]:
    """The option at fault: the first in the text that was given, else the last one of the command line."""
    told = [flag for flag in re.findall(FLAG, what) if flag in words]
    return told[:1] or [word for word in words if word.startswith("--")][-1:]


def _without(words: Sequence[str], flag: str) -> tuple[str, ...]:
    """The command line without an option and its values."""
    left, skips = [], False
    kind = fields_of(SUBCOMMANDS[words[0]]).get(flag[2:].replace("-", "_"), "")
    for word in words:
        if word.startswith("--"):
            skips = word == flag
            if skips and kind == "bool":
                skips = False
                continue
        if not skips:
            left.append(word)
    return tuple(left)


def _with(words: Sequence[str], flag: str, value: str) -> tuple[str, ...]:
    """The command line with an option's value replaced, or the option added."""
    return (*_without(words, flag), flag, *value.replace("'", "").split())


def _in_place_of(words: Sequence[str], flag: str, path: str) -> tuple[str, ...]:
    """The command line with another path as the option's value, or as the first positional."""
    if flag in words:
        at = words.index(flag) + 1
        return (*words[:at], path, *words[at + 1 :])
    return (words[0], path, *words[2:])
