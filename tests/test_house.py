"""The doors of the house: who may import, print, exit, unpickle and step, read from the syntax trees.

Nothing is imported, nothing is run. To open a door, change the table below and docs/architecture.md together.
The second half of this file breaks every rule once in a small house of its own, so that the checks can fail.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from house import Rules, check

HOUSE = Path(__file__).resolve().parents[1] / "src" / "lambert"

LOWER_ROOMS = ("optim", "data", "corpus", "model", "utils", "errors")

# Room -> the rooms it may import. "errors" is src/lambert/errors.py; "cli" may import every room.
# Every room but errors and optim may also read `lambert.__version__`.
DOORS: dict[str, tuple[str, ...]] = {
    "errors": (),
    "utils": ("errors",),
    "optim": (),
    "corpus": ("utils", "errors"),
    "data": ("corpus", "utils", "errors"),
    "model": ("utils", "errors"),
    "runlog": ("utils", "errors"),
    "training": ("optim", "data", "corpus", "model", "runlog", "utils", "errors"),
    "finetune": ("training", "optim", "model", "corpus", "utils", "errors"),
    "planning": ("training", "optim", "data", "corpus", "model", "runlog", "utils", "errors"),
    "planner": ("planning", "training", "optim", "data", "corpus", "model", "utils", "errors"),
    "report": ("runlog", "utils", "errors"),
    "tracking": ("runlog", "utils", "errors"),
    "experiments": ("training", "finetune", "planning", "runlog", "report", *LOWER_ROOMS),
    "api": ("training", "finetune", "planning", "planner", "runlog", "report", "cli", *LOWER_ROOMS),
    "cli": (
        "api",
        "experiments",
        "training",
        "finetune",
        "planning",
        "planner",
        "runlog",
        "report",
        "tracking",
        *LOWER_ROOMS,
    ),
    "__init__.py": ("api", "training", *LOWER_ROOMS),
    "__main__.py": ("cli",),
}

# File -> rooms it may import beyond those of its room.
EXTRA_DOORS: dict[str, tuple[str, ...]] = {}

# Outside the standard library, only declared dependencies come in; some rooms take fewer of them.
DEPENDENCIES = (
    "filelock", "llvmlite", "numba", "numpy", "pyarrow", "rich", "safetensors", "sentencex", "tokenizers",
    "tomli_w", "torch", "tyro", "vl_convert",
)  # fmt: skip
# Extras: whoever imports one says how to install it where it is missing.
EXTRAS = ("datasets", "mwparserfromhell", "scipy", "sklearn", "tensorboard", "wandb")
# With PyTorch's GPU builds; whoever imports it goes on without.
COMES_WITH_TORCH = ("triton",)
OUTSIDE: dict[str, tuple[str, ...]] = {
    "errors": (),
    "utils": (),
    "runlog": ("numpy",),
    "planner": ("numpy", "torch"),
    "optim": ("llvmlite", "numba", "numpy", "torch", "triton"),
    "planning": ("numpy", "torch"),
    "report": ("numpy", "vl_convert"),
    "tracking": ("tensorboard", "wandb"),
    "__init__.py": (),
    "__main__.py": (),
}

# A name (an import, a call or an attribute, whatever its alias) -> the only files or rooms that may use it.
# "torch.distributed" covers torch.distributed.init_process_group and everything else below it.
ONLY: dict[str, tuple[str, ...]] = {
    # what a person sees and types
    "print": ("cli", "api/messages.py"),
    "input": ("cli",),
    "exit": ("cli",),
    "quit": ("cli",),
    "SystemExit": ("cli", "__main__.py"),
    "sys.exit": ("cli", "__main__.py"),
    "os._exit": ("cli",),
    "sys.argv": ("cli",),
    "sys.stdin": ("cli",),
    "sys.stdout": ("cli", "api/messages.py"),
    "sys.stderr": ("cli", "api/messages.py"),
    "argparse": ("cli",),
    "tyro": ("cli",),
    "rich": ("cli",),
    # processes
    "torch.distributed": (
        *(
            "training/distributed/process_group.py",
            "training/distributed/launcher.py",
            "training/distributed/fsdp.py",
            "planner/rank_simulation.py",
        ),
        "optim/norms.py",
    ),
    "torch.nn.parallel": ("training/distributed/process_group.py",),
    # nothing that is loaded can run code
    "pickle": (),
    "cPickle": (),
    "marshal": (),
    "shelve": (),
    "dill": (),
    "cloudpickle": (),
    "joblib": (),
    "yaml": (),
    "torch.load": (),
    "torch.save": (),
    "torch.jit.load": (),
    "torch.hub": (),
    "torch.package": (),
    "torch.serialization": (),
    "eval": (),
    "exec": (),
    # the one step
    "torch.autograd.backward": ("training/step/train_step.py",),
}

# Method -> the only files that may call it, whatever the object.
ONLY_CALLS: dict[str, tuple[str, ...]] = {
    "step": ("training/step/train_step.py", "optim/muon.py"),
    "backward": ("training/step/train_step.py",),
}

# File -> names it may not use: the step touches no files and looks at no clock but the one for its own speed.
NEVER: dict[str, tuple[str, ...]] = {
    "training/step/train_step.py": (
        "open",
        "io",
        "os",
        "pathlib",
        "json",
        "shutil",
        "tempfile",
        "safetensors",
        "logging",
    ),
}

# Text -> the only files in which it may stand as a string of its own: the variables of torchrun.
TORCHRUN = "RANK LOCAL_RANK GROUP_RANK NODE_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT"
ONLY_STRINGS: dict[str, tuple[str, ...]] = dict.fromkeys(TORCHRUN.split(), ("training/distributed/env.py",))

FILE_LINES = 350
FUNCTION_LINES = 60

RULES = Rules(
    doors=DOORS,
    extra_doors=EXTRA_DOORS,
    dependencies=DEPENDENCIES + EXTRAS + COMES_WITH_TORCH,
    outside=OUTSIDE,
    only=ONLY,
    only_calls=ONLY_CALLS,
    never=NEVER,
    only_strings=ONLY_STRINGS,
    file_lines=FILE_LINES,
    function_lines=FUNCTION_LINES,
)


def test_the_house_keeps_its_rules() -> None:
    found = check(HOUSE, RULES)
    assert not found, "\n" + "\n".join(found)


def test_the_walk_reaches_the_house() -> None:
    """A check that looked at an empty folder would be green for ever."""
    assert (HOUSE / "errors.py").is_file()
    assert len(list(HOUSE.rglob("*.py"))) > 10


# ----------------------------------------------------------------------------------------------------
# Each rule broken once


@pytest.fixture
def small_house(tmp_path: Path) -> Path:
    """A house with every room of the table and no fault."""
    root = tmp_path / "lambert"
    for room in DOORS:
        file = root / room if room.endswith(".py") else root / room / "__init__.py"
        if room == "errors":
            file = root / "errors.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text('"""A room."""\n', encoding="utf-8")
    return root


def break_rule(root: Path, file: str, source: str) -> list[str]:
    """Writes one module into the small house and returns what the checker says."""
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent != root and not (path.parent / "__init__.py").exists() and path.name != "__init__.py":
        (path.parent / "__init__.py").write_text('"""A package."""\n', encoding="utf-8")
    path.write_text(f'"""A module."""\n{source}\n', encoding="utf-8")
    return check(root, RULES)


def test_a_house_without_fault_is_green(small_house: Path) -> None:
    assert check(small_house, RULES) == []


ROOMS = [room for room in DOORS if not room.endswith(".py")]


@pytest.mark.parametrize("target", ROOMS)
@pytest.mark.parametrize("room", ROOMS)
def test_every_door_of_the_table(small_house: Path, room: str, target: str) -> None:
    file = "errors.py" if room == "errors" else f"{room}/thing.py"
    found = break_rule(small_house, file, f"import lambert.{target}")
    allowed = room == target or target in DOORS[room]
    assert bool(found) != allowed, found
    if not allowed:
        assert found == [f"{file}:2: {room} may not import {target}"]


# (where it is forbidden, the source, a part of what the checker says, where the same source is allowed)
BROKEN = [
    # the ways of writing an import
    ("corpus/a.py", "from lambert.training.step.train_step import train_step", "import training", "finetune/a.py"),
    ("corpus/a.py", "from lambert import training", "import training", "cli/a.py"),
    ("corpus/a.py", "from ..training import step", "import training", "finetune/a.py"),
    ("corpus/a.py", "from .. import training", "import training", "finetune/a.py"),
    ("corpus/__init__.py", "from ..training import step", "import training", "finetune/__init__.py"),
    ("corpus/a.py", "import lambert.training.step.train_step as quiet", "import training", "finetune/a.py"),
    ("corpus/a.py", "def f():\n    from lambert import training", "import training", "finetune/a.py"),
    ("corpus/a.py", "try:\n    import lambert.training\nfinally:\n    pass", "import training", "finetune/a.py"),
    ("corpus/a.py", "import importlib as i\ni.import_module('lambert.training')", "training", "finetune/a.py"),
    ("corpus/a.py", "from importlib import import_module as i\ni('lambert.training')",
     "training", "finetune/a.py"),
    ("corpus/a.py", "from importlib import import_module as i\ni('..training', 'x')",
     "training", "finetune/a.py"),
    ("corpus/a.py", "__import__('lambert.training')", "import training", "finetune/a.py"),
    ("corpus/a.py", "import importlib\nname = 'x'\nimportlib.import_module(name)", "cannot be read", None),
    ("corpus/a.py", "from lambert import *", "cannot be read", None),
    ("corpus/a.py", "import lambert\nlambert.training", "import the room by its name", None),
    ("optim/a.py", "from lambert import __version__", "may not import __version__", "training/a.py"),
    ("cellar/__init__.py", "", "is not in the table of rooms", None),
    ("cellar.py", "", "is not in the table of rooms", None),
    ("report/simulate.py", "from lambert.training import step", "import training", "planning/probe.py"),
    # what comes in from outside
    ("corpus/a.py", "import transformers", "transformers is not a declared dependency", None),
    ("optim/a.py", "import pyarrow", "optim may not import pyarrow", "model/a.py"),
    ("report/a.py", "def f():\n    import torch", "report may not import torch", "planning/a.py"),
    ("report/a.py", "from safetensors.torch import load_file", "not import safetensors", "model/a.py"),
    ("errors.py", "import numpy", "errors may not import numpy", "model/a.py"),
    ("__init__.py", "import torch", "may not import torch", None),
    # people
    ("training/a.py", "print('step')", "print is for cli", "cli/a.py"),
    ("training/a.py", "say = print", "print is for cli", "cli/a.py"),
    ("training/a.py", "input()", "input is for cli", "cli/a.py"),
    ("training/a.py", "import sys\nsys.exit(1)", "sys.exit is for cli", "__main__.py"),
    ("training/a.py", "from sys import exit as leave\nleave(1)", "sys.exit is for cli", "cli/a.py"),
    ("training/a.py", "raise SystemExit(1)", "SystemExit is for cli", "cli/a.py"),
    ("training/a.py", "import sys as s\ns.argv[1:]", "sys.argv is for cli", "cli/a.py"),
    ("training/a.py", "import sys\nsys.stderr.write('x')", "sys.stderr is for cli", "cli/a.py"),
    ("training/a.py", "import argparse", "argparse is for cli", "cli/a.py"),
    ("training/a.py", "from tyro import cli", "tyro is for cli", "cli/a.py"),
    ("training/a.py", "def f():\n    from rich.live import Live", "rich is for cli", "cli/a.py"),
    # processes
    ("training/a.py", "import torch.distributed as d", "distributed is for", "training/distributed/process_group.py"),
    ("training/a.py", "from torch import distributed", "distributed is for", "training/distributed/process_group.py"),
    ("model/a.py", "import torch\ntorch.distributed.get_rank()", "torch.distributed", None),
    ("training/a.py", "from torch.nn import parallel", "is for", "training/distributed/process_group.py"),
    ("training/a.py", "import os\nos.environ['RANK']", "'RANK' is for", "training/distributed/env.py"),
    ("training/a.py", "import os\nos.getenv('WORLD_SIZE', '1')", "'WORLD_SIZE'", "training/distributed/env.py"),
    ("training/a.py", "from os import environ as e\ne.get('MASTER_ADDR')",
     "'MASTER_ADDR'", "training/distributed/env.py"),
    # nothing that is loaded can run code
    ("cli/a.py", "import pickle", "pickle is forbidden", None),
    ("cli/a.py", "from pickle import loads", "pickle is forbidden", None),
    ("cli/a.py", "import torch\ntorch.load('x')", "torch.load is forbidden", None),
    ("cli/a.py", "import torch as t\nread = t.load", "torch.load is forbidden", None),
    ("cli/a.py", "from torch import save", "torch.save is forbidden", None),
    ("cli/a.py", "import yaml", "yaml is forbidden", None),
    ("cli/a.py", "import numpy as np\nnp.load('x', allow_pickle=True)", "allow_pickle", None),
    ("cli/a.py", "import numpy as np\nnp.load('x', allow_pickle=bool(1))", "allow_pickle", None),
    ("cli/a.py", "eval('1')", "eval is forbidden", None),
    ("cli/a.py", "exec('1')", "exec is forbidden", None),
    # the one step
    ("training/a.py", "def f(optimizer):\n    optimizer.step()", "step() is for", "training/step/train_step.py"),
    ("finetune/a.py", "def f(loss):\n    loss.sum().backward()", "backward() is for", "training/step/train_step.py"),
    ("planning/probe.py", "def f(loss):\n    loss.backward()", "backward() is for", "training/step/train_step.py"),
    ("finetune/a.py", "import torch\ntorch.autograd.backward([])", "backward is for", "training/step/train_step.py"),
    ("training/step/train_step.py", "from pathlib import Path", "pathlib may not be used here", "training/a.py"),
    ("training/step/train_step.py", "def f(p):\n    return open(p)", "open may not be used here", "training/a.py"),
    # size
    ("corpus/a.py", "x = 1\n" * FILE_LINES, "the file is", None),
    ("corpus/a.py", "def f():\n" + "    x = 1\n" * FUNCTION_LINES, "f is 61 lines", None),
    ("corpus/a.py", "class A:\n  async def f():\n" + "    x = 1\n" * FUNCTION_LINES, "f is 61 lines", None),
]  # fmt: skip


@pytest.mark.parametrize(("file", "source", "said", "allowed_in"), BROKEN)
def test_a_broken_rule_is_found(small_house: Path, file: str, source: str, said: str, allowed_in: str | None) -> None:
    found = break_rule(small_house, file, source)
    assert found
    for line in found:
        assert said in line
        assert line.startswith(f"{file}:")
    if allowed_in is not None:
        (small_house / file).write_text('"""Mended."""\n', encoding="utf-8")
        assert break_rule(small_house, allowed_in, source) == []


def test_a_module_without_docstring_is_found(small_house: Path) -> None:
    (small_house / "corpus" / "a.py").write_text("x = 1\n", encoding="utf-8")
    assert check(small_house, RULES) == ["corpus/a.py:1: the module has no docstring"]


def test_a_room_without_init_is_found(small_house: Path) -> None:
    (small_house / "corpus" / "__init__.py").rename(small_house / "corpus" / "a.py")
    assert check(small_house, RULES) == ["corpus: the room has no __init__.py"]


@pytest.mark.parametrize(
    "source",
    [
        "import re, torch\nre.compile('x')\ntorch.compile\nmodel = torch.nn.Linear(1, 1).eval()",
        "class Record:\n    step: int = 0\n\n\ndef f(record: Record) -> int:\n    return record.step",
        "import numpy as np\nnp.load('x', allow_pickle=False)",
        "def f() -> str:\n    '''>>> print(eval('1'))'''\n    return 'use RANK and print'",
        "import json\njson.load",
        "def forward(input: int) -> int:\n    return input + 1",
    ],
)
def test_what_only_looks_forbidden_is_left_alone(small_house: Path, source: str) -> None:
    assert break_rule(small_house, "training/a.py", source) == []
