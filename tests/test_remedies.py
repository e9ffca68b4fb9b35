"""A remedy is a promise: every option and command that an error names exists, where the error appears."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from lambert.cli import main as cli
from lambert.cli.main import SUBCOMMANDS, main, with_flags
from lambert.errors import UserError
from remedies import faults

SOURCE = Path(cli.__file__).parents[1]
OF_PYTHON = {"device", "top_k", "callbacks", "recipe_text"}
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


PROVOKED = [
    "inspect {corpus} --sequence-length 128",
    "inspect {corpus} --lengths 4",
    "inspect {text}",
    "inspect nowhere",
    "prepare nowhere --out {new}",
    "prepare {list} --out {new}",
    "prepare {text} --out {text}",
    "prepare {text} --out {new} --vocab nowhere",
    "prepare {text} --out {new} --vocab-size 10",
    "prepare {text} --out {new} --workers -1",
    "pretrain --corpus {corpus} --out {new} --batch-size 0",
    "pretrain --corpus {corpus} --out {new} --model 2x33 --batch-size 8 --samples 16",
    "pretrain --corpus {corpus} --out {new} --model huge --batch-size 8 --samples 16",
    "pretrain --corpus {corpus} --out {new} --batch-size 8 --samples 16 --epochs 1",
    "pretrain --corpus {corpus} --out {new} --batch-size 8 --samples 16 --init-from {corpus}",
    "pretrain --corpus {corpus} --out {new} --batch-size 8 --samples 16 --seed -1",
    "pretrain --corpus {corpus} --out {new} --batch-size 8 --samples 16 --threads 4096",
    "pretrain --corpus {corpus} --out {new} --batch-size 8 --samples 16 --optimizer sgd",
    "pretrain --corpus {text} --out {new} --batch-size 8",
    "pretrain --corpus {corpus} --out {new} --recipe nothing",
    "pretrain --corpus {corpus} --out {new} --processes 4096",
    "plan",
    "plan --batch-size all",
    "plan --batch-size 8 --chips 4",
    "plan --batch-size 8 --dry-run 2 --cluster dgx-a100",
    "plan --batch-size 8 --cluster nothing",
    "plan --batch-size 8 --samples 16 --try-batch-sizes 0",
    "sweep nowhere --out {new}",
    "squad",
    "squad {corpus} --out {new} --train {list} --dev {list}",
    "squad --score {list} --dev {list}",
    "squad --null-threshold 1 --score {list} --dev {list}",
    "glue {corpus} nothing --data {new} --out {new}",
    "fill {corpus} [MASK]",
    "fill nowhere [MASK]",
    "export nowhere {new}",
    "report nowhere",
    "track nowhere",
    "track nowhere --tensorboard {new}",
    "nothing",
    "doctor --deep",
]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, small_corpus: object) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("remedies")
    (folder / "text.txt").write_text("Bada fefi. Lomo.\n")
    (folder / "list.json").write_text(json.dumps([{"text": "Bada."}], indent=1))
    names = {"text": "text.txt", "list": "list.json", "new": "new"}
    return {"corpus": str(small_corpus.path)} | {name: str(folder / file) for name, file in names.items()}  # type: ignore[attr-defined]


@pytest.fixture
def met(monkeypatch: pytest.MonkeyPatch) -> list[UserError]:
    """The errors that reach the command line."""
    errors: list[UserError] = []

    def remember(error: UserError) -> bool:
        errors.append(error)
        return True

    monkeypatch.setattr(cli, "_is_news", remember)
    return errors


@pytest.mark.parametrize("command", PROVOKED)
def test_a_remedy_met_on_the_command_line_can_be_followed_there(
    command: str, places: dict[str, str], met: list[UserError]
) -> None:
    words = [word.format(**places) for word in command.split()]
    assert main(words) == 2
    (error,) = met
    assert faults(with_flags(error.remedy), {words[0]} & SUBCOMMANDS.keys()) == []


def test_following_the_numbers_of_a_remedy_leads_on(places: dict[str, str], met: list[UserError]) -> None:
    """Where a remedy says from which number on, or at most which, that number is not refused for the same reason."""
    followed = 0
    for command in PROVOKED:
        words = [word.format(**places) for word in command.split()]
        met.clear()
        main(words)
        what, remedy = met[0].what, with_flags(met[0].remedy)
        number = re.search(r"(?:from|at most) ([0-9][0-9,]*)", remedy)
        if number is None or not words[-1].lstrip("-").isdigit() or words[0] in ("pretrain", "prepare"):
            continue
        met.clear()
        main([*words[:-1], number[1].replace(",", "")])
        assert not met or met[0].what.partition(" ")[0] != what.partition(" ")[0]
        followed += 1
    print(f"{followed} followed by number")


def test_a_remedy_that_leads_nowhere_is_found() -> None:
    assert faults("Give `lambert prepair` a --corpus", {"pretrain"}) == ["there is no `lambert prepair`"]
    assert faults("Try `lambert fill M --cast`", set()) == ["`lambert fill` has no --cast"]
    assert faults("Lower --chips", {"squad"}) == ["--chips is no option here"]
    assert faults("Lower --batch-size", {"squad"}) == []
