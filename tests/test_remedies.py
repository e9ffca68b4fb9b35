"""A remedy is a promise: every option and command that an error names exists, where the error appears."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from lambert.cli import main as cli
from lambert.cli.main import SUBCOMMANDS, with_flags
from remedies import faults

SOURCE = Path(cli.__file__).parents[1]
OF_PYTHON = {"device", "callbacks", "recipe_text"}
"""Parameters that only Python has, for errors that only Python's callers can meet."""


def text_of(node: ast.expr) -> str:
    """A string or f-string with {} for what is filled in; both branches of a choice."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in parts)  # type: ignore[misc]
        case ast.IfExp(body=one, orelse=other):
            return f"{text_of(one)} {text_of(other)}"
        case ast.BinOp(left=one, right=other):
            return text_of(one) + text_of(other)
        case _:
            return ""


def remedies_in(file: Path) -> Iterator[tuple[int, str]]:
    """Line and text of every remedy that a file writes out."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else ""
            given = [word.value for word in node.keywords if word.arg == "remedy"]
            given += node.args[1:] if called.endswith("Error") else []
            given += node.args[2:] if called == "Finding" else []
            for value in given:
                if text := text_of(value):
                    yield node.lineno, text


def module_of(file: Path) -> str:
    return ".".join(("lambert", *file.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")


@cache
def imports() -> dict[str, set[str]]:
    """Module → the modules of lambert that it imports, also within functions, with their packages."""
    files = {module_of(file): file for file in SOURCE.rglob("*.py")}
    found: dict[str, set[str]] = {}
    for module, file in files.items():
        names = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module, *(f"{node.module}.{one.name}" for one in node.names)}
            elif isinstance(node, ast.Import):
                names |= {one.name for one in node.names}
        found[module] = names & files.keys()
    return found


@cache
def reached_from(module: str) -> frozenset[str]:
    reached, left = set(), [module]
    while left:
        if (one := left.pop()) not in reached:
            reached.add(one)
            left += imports()[one]
    return frozenset(reached)


def subcommands_that_reach(module: str) -> set[str]:
    """Those whose own file imports the module, directly or not."""
    return {name for name, kind in SUBCOMMANDS.items() if module in reached_from(kind.__module__)}


def test_every_remedy_in_the_source_names_what_there_is() -> None:
    count, wrong = 0, []
    for file in sorted(SOURCE.rglob("*.py")):
        where = subcommands_that_reach(module_of(file)) or set(SUBCOMMANDS)
        for line, remedy in remedies_in(file):
            count += 1
            named = set(re.findall(r"`([a-z][a-z_]*)(?:=True)?`", remedy)) - OF_PYTHON
            unknown = [name for name in named if with_flags(f"`{name}`") == f"`{name}`" and name not in SUBCOMMANDS]
            found = faults(with_flags(remedy), where) + [f"`{name}` is an argument of nothing" for name in unknown]
            wrong += [f"{file.relative_to(SOURCE)}:{line}: {fault} ({remedy})" for fault in found]
    print(f"{count} remedies")
    assert count > 300
    assert wrong == []


def test_a_remedy_that_leads_nowhere_is_found() -> None:
    assert faults("Give `lambert prepair` a --corpus", {"pretrain"}) == ["there is no `lambert prepair`"]
    assert faults("Try `lambert fill M --cast`", set()) == ["`lambert fill` has no --cast"]
    assert faults("Lower --chips", {"squad"}) == ["--chips is no option here"]
    assert faults("Lower --batch-size", {"squad"}) == []
