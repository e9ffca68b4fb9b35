"""The walker behind test_house.py: reads syntax trees; knows the kinds of rules, not the rules."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

Table = Mapping[str, tuple[str, ...]]
DYNAMIC_IMPORTS = ("importlib.import_module", "__import__")


@dataclass(frozen=True)
class Rules:
    """The tables that test_house.py declares and explains."""

    doors: Table
    extra_doors: Table
    dependencies: tuple[str, ...]
    outside: Table
    only: Table
    only_calls: Table
    never: Table
    only_strings: Table
    file_lines: int
    function_lines: int


def check(root: Path, rules: Rules) -> list[str]:
    """Every breach in the package at `root`, as "file:line: what is wrong", by file and line."""
    files = sorted(root.rglob("*.py"))
    found = [
        f"{folder.relative_to(root).as_posix()}: the room has no __init__.py"
        for folder in sorted({file.parent for file in files})
        if not (folder / "__init__.py").exists()
    ]
    for file in files:
        module = Module(root, file, rules)
        found += [f"{module.name}:{line}: {text}" for line, text in sorted(set(module.breaches()))]
    return found


class Module:
    """One file of the package `lambert`, parsed, and the breaches in it."""

    def __init__(self, root: Path, file: Path, rules: Rules) -> None:
        self.rules = rules
        self.root = root
        self.name = file.relative_to(root).as_posix()  # training/step/train_step.py
        self.text = file.read_text(encoding="utf-8")
        self.tree = ast.parse(self.text, filename=str(file))
        first = self.name.split("/")[0]
        self.room = first if "/" in self.name or first.startswith("__") else first.removesuffix(".py")
        self.package = ["lambert", *self.name.split("/")[:-1]]
        self.aliases = dict(self._local_names())
        # a parameter called `input` is not the built-in function
        self.parameters = {node.arg for node in ast.walk(self.tree) if isinstance(node, ast.arg)}

    def breaches(self) -> Iterator[tuple[int, str]]:
        if self.room not in self.rules.doors:
            yield 1, f"{self.room} is not in the table of rooms"
            return
        for line, target in self._imports():
            yield from self._import_breach(line, target)
        for line, used in self._names():
            yield from self._name_breach(line, used)
        yield from self._call_breaches()
        yield from self._string_breaches()
        yield from self._size_breaches()

    # -- reading --

    def _absolute(self, module: str | None, level: int) -> str:
        """The full dotted name of `from <level dots><module> import`."""
        base = self.package[: len(self.package) - (level - 1)] if level else []
        return ".".join([*base, *([module] if module else [])])

    def _local_names(self) -> Iterator[tuple[str, str]]:
        """Local name -> what it stands for: `import numpy as np` gives np -> numpy, in any scope."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for name in node.names:
                    yield (name.asname, name.name) if name.asname else (name.name.split(".")[0],) * 2
            elif isinstance(node, ast.ImportFrom):
                for name in node.names:
                    yield name.asname or name.name, f"{self._absolute(node.module, node.level)}.{name.name}"

    def _dotted(self, node: ast.AST) -> str | None:
        """`np.load` -> "numpy.load"; None for anything that is not a chain of names."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or (node.id in self.parameters and node.id not in self.aliases):
            return None
        return ".".join([self.aliases.get(node.id, node.id), *reversed(parts)])

    def _imports(self) -> Iterator[tuple[int, str]]:
        """(line, full dotted name) of everything imported, at the top, within functions or by importlib."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, name.name) for name in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(node.module, node.level)
                yield from ((node.lineno, f"{base}.{name.name}") for name in node.names)
            elif isinstance(node, ast.Call) and self._dotted(node.func) in DYNAMIC_IMPORTS:
                yield node.lineno, self._dynamic_target(node)

    def _dynamic_target(self, call: ast.Call) -> str:
        first = call.args[0] if call.args else None
        if not (isinstance(first, ast.Constant) and isinstance(first.value, str)):
            return "*"
        level = len(first.value) - len(first.value.lstrip("."))
        return self._absolute(first.value.lstrip("."), level)

    def _names(self) -> Iterator[tuple[int, str]]:
        """(line, full dotted name) of every import, name and attribute used."""
        yield from self._imports()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
                dotted = self._dotted(node)
                if dotted is not None:
                    yield node.lineno, dotted

    # -- judging --

    def _import_breach(self, line: int, target: str) -> Iterator[tuple[int, str]]:
        parts = target.split(".")
        if parts[-1] == "*" and self.name == "__init__.py":
            return  # it imports its public names when they are used
        if parts[-1] == "*":
            yield line, "an import that cannot be read from the source"
        elif parts[0] == "lambert":
            yield from self._door_breach(line, parts)
        elif parts[0] not in sys.stdlib_module_names:
            if any(self._name_breach(line, target)):
                return  # said already, and better, by the table of names
            if parts[0] not in self.rules.dependencies:
                yield line, f"{parts[0]} is not a declared dependency"
            elif parts[0] not in self.rules.outside.get(self.room, self.rules.dependencies):
                yield line, f"{self.room} may not import {parts[0]}"

    def _door_breach(self, line: int, parts: list[str]) -> Iterator[tuple[int, str]]:
        if len(parts) == 1:
            yield line, "import the room by its name, not the whole house"
            return
        target = parts[1]
        allowed = {self.room, *self.rules.doors[self.room], *self.rules.extra_doors.get(self.name, ())}
        if target == "__version__" and self.room not in ("errors", "optim"):
            return
        if target not in allowed:
            yield line, f"{self.room} may not import {target}"

    def _name_breach(self, line: int, used: str) -> Iterator[tuple[int, str]]:
        for name, places in self.rules.only.items():
            if covers(name, used) and not self._is_in(places):
                yield line, f"{name} is for {' and '.join(places)}" if places else f"{name} is forbidden"
        for name in self.rules.never.get(self.name, ()):
            if covers(name, used):
                yield line, f"{name} may not be used here"

    def _call_breaches(self) -> Iterator[tuple[int, str]]:
        for node in ast.walk(self.tree):
            if not isinstance(node, ast.Call):
                continue
            if isinstance(node.func, ast.Attribute) and self._dotted(node.func) not in self.rules.only:
                places = self.rules.only_calls.get(node.func.attr)
                if places is not None and not self._is_in(places):
                    yield node.lineno, f"{node.func.attr}() is for {' and '.join(places)}"
            for keyword in node.keywords:
                off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                if keyword.arg == "allow_pickle" and not off:
                    yield node.lineno, "allow_pickle is forbidden"

    def _string_breaches(self) -> Iterator[tuple[int, str]]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                places = self.rules.only_strings.get(node.value)
                if places is not None and not self._is_in(places):
                    yield node.lineno, f"{node.value!r} is for {' and '.join(places)}"

    def _size_breaches(self) -> Iterator[tuple[int, str]]:
        if ast.get_docstring(self.tree) is None:
            yield 1, "the module has no docstring"
        lines = self.text.count("\n")
        if lines > self.rules.file_lines:
            yield 1, f"the file is {lines} lines; at most {self.rules.file_lines}"
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > self.rules.function_lines:
                    yield (
                        node.lineno,
                        f"{node.name} is {lines} lines long; at most {self.rules.function_lines}",
                    )

    def _is_in(self, places: tuple[str, ...]) -> bool:
        return self.name in places or self.room in places


def covers(name: str, used: str) -> bool:
    """Whether `used` is `name` or something below it: torch.distributed covers torch.distributed.get_rank."""
    return used == name or used.startswith(f"{name}.")
