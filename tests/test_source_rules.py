"""The source rules that ruff and import-linter cannot express, and a deliberate break of every rule.

The import contracts and ruff's rules are in pyproject.toml. The package itself is read, never imported.
"""

from __future__ import annotations

import ast
import operator
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "lambert"
FILE_LINES, FUNCTION_LINES = 350, 60

# onnx_process.py is a program of its own
CONSOLE = ("cli/", "__main__.py", "api/messages.py", "api/live.py", "export/onnx_process.py")
STEP = ("training/step/train_step.py",)
# Name, whatever its alias, with all below it -> the only files or folders that may use it.
ONLY = {
    "torch.distributed": ("training/distributed/", "planner/rank_simulation.py", "optim/norms.py"),
    "torch.nn.parallel": ("training/distributed/",),
    "torch.autograd.backward": STEP,
    **dict.fromkeys(("sys.exit", "sys.argv", "sys.stdin", "sys.stdout", "sys.stderr"), CONSOLE),
    "os._exit": (*CONSOLE, "training/distributed/heartbeat.py"),  # where the main thread hangs
    **dict.fromkeys(("SystemExit", "exit", "quit", "input", "print"), CONSOLE),
    **dict.fromkeys(("eval", "exec", "__import__"), ()),
}
# method of any object -> its only callers
ONLY_CALLS = {"step": (*STEP, "optim/combined.py", "optim/muon.py"), "backward": STEP}
TORCHRUN = re.compile("(LOCAL_|GROUP_|NODE_)?RANK|(LOCAL_)?WORLD_SIZE|MASTER_(ADDR|PORT)")

# Third-party packages: those that these parts of the package may import, or any declared dependency.
THIRD_PARTY = {
    **dict.fromkeys(("__init__", "__main__", "errors"), ()),
    "kernel_cache": ("llvmlite", "numba"),
    "utils": ("filelock", "huggingface_hub", "numpy", "tokenizers"),
    "optim": ("llvmlite", "numba", "numpy", "torch", "triton"),
    "runlog": ("numpy",),
    **dict.fromkeys(("planner", "planning"), ("numpy", "torch")),
    "report": ("numpy", "vl_convert"),
    "tracking": ("mlflow", "tensorboard", "wandb"),
}
IMPORTED_AS = {
    "mlflow-skinny": "mlflow",
    "vl-convert-python": "vl_convert",
    "scikit-learn": "sklearn",
}  # where the two names differ
# Packages of one extra that only these parts may import.
PARTS = dict.fromkeys(("sentence_transformers", "transformers"), ("embeddings", "export"))
PROJECT, TOOLS = operator.itemgetter("project", "tool")(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8")))


def aliases(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Local name -> what it stands for, in any scope: `import numpy as np` gives np -> numpy."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((n.asname, n.name) if n.asname else (n.name.split(".")[0],) * 2 for n in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from ((name.asname or name.name, f"{node.module}.{name.name}") for name in node.names)


def used_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, full dotted name) of every import and of every name and attribute that is read."""
    known = dict(aliases(tree))
    parameters = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}  # `input` may be one
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{name.name}") for name in node.names)
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            first, *rest = ast.unparse(node).split(".")
            if first in known or first not in parameters:
                yield node.lineno, ".".join([known.get(first, first), *rest])


def breaches(file: str, text: str) -> list[str]:
    """What is wrong in `file` (a path below src/lambert) with the source `text`."""
    tree, found = ast.parse(text), list[str]()

    def check(is_fine: bool, line: int, what: str) -> None:
        if not is_fine:
            found.append(f"{file}:{line}: {what}")

    check(text.count("\n") <= FILE_LINES, 1, f"a file has at most {FILE_LINES} lines")
    for line, used in used_names(tree):
        for name, places in ONLY.items():
            check(file.startswith(places) or f"{used}.".find(f"{name}.") != 0, line, f"{name} is for {places}")
        check(used != "lambert", line, "import from the package that defines the name, not lambert as a whole")
        check(used != "open" or file not in STEP, line, "the step touches no files")
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr=method)) if method in ONLY_CALLS:
                check(file in ONLY_CALLS[method], node.lineno, f"{method}() is for {ONLY_CALLS[method]}")
            case ast.keyword(arg="allow_pickle", value=value):
                check(getattr(value, "value", None) is False, value.lineno, "allow_pickle may only be False")
            case ast.Constant(value=str(word)) if TORCHRUN.fullmatch(word):
                check(file == "training/distributed/env.py", node.lineno, f"{word} is for training/distributed/env.py")
            case ast.FunctionDef(end_lineno=int(end)) | ast.AsyncFunctionDef(end_lineno=int(end)):
                lines = end - node.lineno - (ast.get_docstring(node, clean=False) or "").count("\n")
                check(lines < FUNCTION_LINES, node.lineno, f"a function has at most {FUNCTION_LINES} lines of code")
    return found


def test_the_source_keeps_the_rules() -> None:
    files = {file.relative_to(SOURCE).as_posix(): file.read_text(encoding="utf-8") for file in SOURCE.rglob("*.py")}
    assert len(files) > 100
    assert [breach for file, text in sorted(files.items()) for breach in breaches(file, text)] == []


def third_party_breaches(graph: grimp.ImportGraph) -> list[str]:
    """Imports of packages that are not declared, or not for that part of lambert."""
    extras = PROJECT["optional-dependencies"]
    texts = chain(
        PROJECT["dependencies"], *(extras[name] for name in extras if name not in ("test", "docs", "develop"))
    )
    names = [text.split(">=")[0] for text in texts]
    declared = {IMPORTED_AS.get(name, name.replace("-", "_")) for name in names} | {"triton"}  # comes with PyTorch
    return [
        f"{importer} imports {module}"
        for module in graph.modules - graph.find_descendants("lambert") - {"lambert", *sys.stdlib_module_names}
        for importer in graph.find_modules_that_directly_import(module)
        for part in [f"{importer}.__init__".split(".")[1]]
        if module not in declared.intersection(THIRD_PARTY.get(part, declared))
        or part not in PARTS.get(module, (part,))
    ]


def test_third_party_packages_are_declared_and_where_they_belong() -> None:
    graph = grimp.build_graph("lambert", include_external_packages=True, cache_dir=None)
    assert third_party_breaches(graph) == []
    for importer, module in (("lambert.corpus.build", "transformers"), ("lambert.optim.lamb", "pyarrow")):
        graph.add_import(importer=importer, imported=module)
    assert set(third_party_breaches(graph)) == {
        "lambert.corpus.build imports transformers",
        "lambert.optim.lamb imports pyarrow",
    }


# (file, source with the fault, the same source is fine in)
STEP_CALL = "def f(optimizer):\n    optimizer.step()\n"
BROKEN = [
    ("training/a.py", "import torch.distributed as d\n", "training/distributed/a.py"),
    ("model/a.py", "import torch as t\nt.distributed.get_rank()\n", "training/distributed/a.py"),
    ("training/a.py", "from torch.nn import parallel\n", "training/distributed/a.py"),
    ("training/a.py", "from sys import exit as leave\nleave(1)\n", "__main__.py"),
    ("training/a.py", "say = print\n", "cli/a.py"),
    ("training/a.py", "raise SystemExit(1)\n", "cli/a.py"),
    ("cli/a.py", "eval('1')\n", None),
    ("cli/a.py", "import numpy as np\nnp.load('x', allow_pickle=bool(1))\n", None),
    ("cli/a.py", "import lambert\nlambert.pretrain\n", None),
    ("training/a.py", "import os\nos.environ['RANK']\n", "training/distributed/env.py"),
    ("training/a.py", STEP_CALL, "training/step/train_step.py"),
    ("planning/a.py", "def f(loss):\n    loss.sum().backward()\n", "training/step/train_step.py"),
    ("training/step/train_step.py", "def f(p):\n    return open(p)\n", "training/a.py"),
    ("corpus/a.py", "x = 1\n" * (FILE_LINES + 1), None),
    ("corpus/a.py", "class A:\n  async def f():\n" + "    x = 1\n" * FUNCTION_LINES, None),
]
LOOKS_BROKEN = """import re, numpy as np, torch
re.compile('x'), torch.compile, torch.nn.Linear(1, 1).eval(), np.load('x', allow_pickle=False)
def forward(input: int) -> str:
    '''>>> print(eval('1'))'''
    return f'{input.step}: set RANK and print'
"""


@pytest.mark.parametrize(("file", "text", "fine_in"), BROKEN)
def test_a_broken_source_rule_is_found(file: str, text: str, fine_in: str | None) -> None:
    assert breaches(file, text)
    assert fine_in is None or breaches(fine_in, text) == []
    assert breaches(file, LOOKS_BROKEN) == []


# (file, source with the fault, ruff's rule, the same source is fine in)
RUFF = [
    ("training/a.py", "print('step')", "T201", "cli/a.py"),
    ("cli/a.py", "import torch as t\nread = t.load", "TID251", None),
    ("cli/a.py", "from torch import save", "TID251", None),
    ("cli/a.py", "from importlib import import_module as i\ni('lambert.training')", "TID251", None),
    ("cli/a.py", "import pickle\npickle.loads(b'')", "S301", None),
    ("cli/a.py", "import marshal\nmarshal.loads(b'')", "S302", None),
    ("cli/a.py", "exec('1')", "S102", None),
    ("cli/a.py", "eval('1')", "S307", None),
]


def ruff(file: str, text: str) -> str:
    """What ruff says of this source, if it were a file below src/lambert."""
    command = (
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--output-format=concise",
        f"--stdin-filename={SOURCE / file}",
        "-",
    )
    return subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize(("file", "text", "rule", "fine_in"), RUFF)
def test_ruff_finds_a_broken_rule(file: str, text: str, rule: str, fine_in: str | None) -> None:
    assert f" {rule} " in ruff(file, f'"""A module."""\n\n{text}\n')
    assert fine_in is None or f" {rule} " not in ruff(fine_in, f'"""A module."""\n\n{text}\n')


def test_ruff_asks_for_docstrings_and_packages() -> None:
    found = ruff("cellar/a.py", "x = 1\n\n\ndef shown() -> None:\n    pass\n")
    assert " D100 " in found and " D103 " in found and " INP001 " in found


# (id of the contract, file, source with the fault, what the message names)
CONTRACTS = [
    ("layers", "corpus/a.py", "from ..training import step", "corpus.a -> lambert.training.step"),
    ("layers", "model/a.py", "def f():\n    from lambert import corpus", "model.a -> lambert.corpus"),
    ("layers", "utils/a.py", "try:\n    import lambert.data\nfinally:\n    pass", "utils.a -> lambert.data"),
    ("layers", "training/a.py", "from lambert import report as r", "training.a -> lambert.report"),
    ("layers", "report/a.py", "from lambert.tracking import follow", "report.a -> lambert.tracking.follow"),
    ("layers", "cellar/__init__.py", "", "cellar"),
    (
        "training",
        "training/config/a.py",
        "from lambert.training import loop",
        "a -> lambert.training.loop",
    ),
    ("finetune", "finetune/squad/a.py", "from lambert.finetune import glue", "squad.a -> lambert.finetune.glue"),
    ("optim", "optim/a.py", "from lambert import errors", "optim.a -> lambert.errors"),
    ("data", "data/a.py", "import lambert.model.bert", "data.a -> lambert.model.bert"),
    ("readers", "tracking/a.py", "def f():\n    import torch", "tracking.a -> torch"),
    ("console", "planning/a.py", "def f():\n    from rich.live import Live", "planning.a -> rich"),
    ("pickle", "cli/a.py", "from pickle import loads", "cli.a -> pickle"),
    ("step", "training/step/train_step.py", "from pathlib import Path", "train_step -> pathlib"),
]


def lint_imports(root: Path, *options: str) -> str:
    """What import-linter says of the package `lambert` in the folder `root`, by this repository's contracts."""
    command = (Path(sys.executable).with_name("lint-imports"), ROOT / "pyproject.toml", "--no-cache", *options)
    environment = os.environ | {"PYTHONPATH": str(root), "COLUMNS": "200"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_the_source_keeps_the_import_contracts() -> None:
    assert ", 0 broken." in lint_imports(SOURCE.parent)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with every fault of `CONTRACTS` in it."""
    root = tmp_path_factory.mktemp("broken")
    shutil.copytree(SOURCE, root / "lambert", ignore=shutil.ignore_patterns("__pycache__"))
    for _, name, text, _ in CONTRACTS:
        file = root / "lambert" / name
        file.parent.mkdir(exist_ok=True)
        old = file.read_text(encoding="utf-8") if file.exists() else ""
        file.write_text(f"{old}\n{text}\n", encoding="utf-8")
    return root


@pytest.mark.parametrize("contract", dict.fromkeys(contract for contract, *_ in CONTRACTS))
def test_import_linter_finds_a_broken_contract(broken: Path, contract: str) -> None:
    said = lint_imports(broken, f"--contract={contract}")
    assert "1 broken." in said
    for name in (named for id_, _, _, named in CONTRACTS if id_ == contract):
        assert name in said


def test_every_contract_is_broken_once() -> None:
    assert {contract["id"] for contract in TOOLS["importlinter"]["contracts"]} == {
        contract for contract, *_ in CONTRACTS
    }
