"""What a stranger gets: the metadata, the pins, the wheel, and the two commands that do their own set-up."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from email.parser import HeaderParser
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import lambert
from lambert.errors import PRETRAINING, missing_package

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DEPENDENCIES = [Requirement(text) for text in PROJECT["dependencies"]]


def expanded(texts: list[str]) -> list[Requirement]:
    """Requirements, with those of `lambert-bert[extra]` in its place."""
    found = list[Requirement]()
    for requirement in map(Requirement, texts):
        extras = [PROJECT["optional-dependencies"][extra] for extra in requirement.extras]
        own = requirement.name == PROJECT["name"]
        found += [one for extra in extras for one in expanded(extra)] if own else [requirement]
    return found


EXTRAS = {extra: expanded(texts) for extra, texts in PROJECT["optional-dependencies"].items()}
TEST_DEPENDENCIES = EXTRAS["test"]
IMPORTED = ["torch", "vl_convert", *(requirement.name.replace("-", "_") for requirement in EXTRAS["pretrain"])]
ADDRESS = "https://github.com/lambert-bert/lambert"  # where the project is meant to be
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
LOCKS = {"runtime": ["pretrain"], "development": ["test", "docs", "develop"]}

# PyTorch's GPU wheels pin these exactly themselves, each build its own.
PINNED_BY_TORCH = ("nvidia-", "cuda-", "triton", "pytorch-triton")


def pins() -> dict[str, str]:
    """Distribution -> version in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): str(requirement.specifier) for requirement in requirements}


def requires(name: str) -> list[str]:
    """What a distribution asks for; nothing of one that is not here, as the extras docs and develop may not be."""
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []


def run(*command: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program in a copy of this environment without the settings of a surrounding make."""
    kept = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    return subprocess.run(
        command, cwd=cwd, env=kept | environment, capture_output=True, text=True, timeout=120, check=False
    )


# Metadata


def test_one_version_everywhere() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(lambert.__version__)}\b", changelog, re.MULTILINE)
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {lambert.__version__}\n" in citation


def test_the_citation_names_the_lamb_paper() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert "1904.00962" in citation
    assert "Large Batch Optimization for Deep Learning: Training BERT in 76 minutes" in citation


def test_dependencies_have_a_lower_bound_and_no_upper_one() -> None:
    for requirement in [*DEPENDENCIES, *(requirement for extra in EXTRAS.values() for requirement in extra)]:
        operators = {clause.operator for clause in requirement.specifier}
        assert operators == {">="}, f"{requirement} should have a lower bound and nothing else"
        assert requirement.url is None
    torch = next(requirement for requirement in DEPENDENCIES if requirement.name == "torch")
    assert str(torch.specifier) == ">=2.10"


def test_the_optimizers_bring_pytorch_alone() -> None:
    assert [requirement.name for requirement in DEPENDENCIES] == ["torch"]
    assert [str(one) for one in EXTRAS["fused"]] == [str(one) for one in EXTRAS["pretrain"] if one in EXTRAS["fused"]]
    imported = {requirement.name.replace("-", "_") for requirement in EXTRAS["pretrain"]}
    assert set(PRETRAINING) == imported - {"llvmlite", "numba"}, "without numba plain tensor operations are used"


def test_the_pins_are_exact_and_of_no_one_build() -> None:
    for name, specifier in pins().items():
        assert re.fullmatch(r"==[0-9][0-9a-z.]*", specifier), f"{name}{specifier}"
    assert pins()["torch"] == "==2.13.0"


def test_every_distribution_we_need_is_pinned() -> None:
    """Direct and transitive: a version that is free today breaks somebody's installation tomorrow."""
    pinned, seen, waiting = pins(), set[str](), [*DEPENDENCIES, *TEST_DEPENDENCIES, *EXTRAS["docs"], *EXTRAS["develop"]]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if name in seen or name.startswith(PINNED_BY_TORCH) or not wanted:
            continue
        seen.add(name)
        assert name in pinned, f"constraints.txt does not pin {name}"
        waiting += [Requirement(text) for text in requires(name)]
    assert len(seen) > 30  # the walk walked


def test_the_pins_satisfy_the_bounds() -> None:
    for requirement in DEPENDENCIES + TEST_DEPENDENCIES + EXTRAS["docs"] + EXTRAS["develop"]:
        if requirement.name.startswith(PINNED_BY_TORCH):
            continue
        pinned = pins()[canonicalize_name(requirement.name)].removeprefix("==")
        assert requirement.specifier.contains(Version(pinned)), f"{requirement} against {pinned}"


@pytest.mark.parametrize(
    "name",
    ["pyproject.toml", "Makefile", "constraints.txt", ".ci/run", *(f"requirements/{lock}.txt" for lock in LOCKS)],
)
def test_nobodys_own_package_index_is_written_down(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8").replace(ADDRESS, "")
    assert "://" not in text
    assert "--extra-index-url" not in text and "--find-links" not in text


def test_the_wheel_holds_the_whole_package(tmp_path: Path) -> None:
    built = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path))
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"lambert_bert-{lambert.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        info = f"lambert_bert-{lambert.__version__}.dist-info"
        header = HeaderParser().parsestr(archive.read(f"{info}/METADATA").decode())
        scripts = archive.read(f"{info}/entry_points.txt").decode()
    package = ROOT / "src"
    modules = {file.relative_to(package).as_posix() for file in package.rglob("*.py")}
    assert modules | {"lambert/py.typed", f"{info}/licenses/LICENSE"} <= names
    assert {name.split("/")[0] for name in names} == {"lambert", info}
    assert header["License-Expression"] == "Apache-2.0 AND BSD-3-Clause AND ISC AND MIT"
    data = {"lambert/report/vega.js", "lambert/report/vega.LICENSE.txt", "lambert/report/page.js"}
    assert data | {f"{info}/licenses/src/lambert/report/vega.LICENSE.txt"} <= names
    assert header["Requires-Python"] == ">=3.11"
    assert header["Description-Content-Type"] == "text/markdown"
    assert "lambert = lambert.__main__:end" in scripts


# The locks


def locked(lock: str) -> dict[str, tuple[str, list[str]]]:
    """Distribution -> version and hashes in a file of requirements/."""
    text = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8").replace("\\\n", "")
    rows = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return {
        canonicalize_name(row[0].partition("==")[0]): (
            row[0].partition("==")[2],
            [word for word in row if word.startswith("--hash")],
        )
        for row in rows
    }


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_the_versions_of_the_constraints_with_hashes(lock: str) -> None:
    pinned = pins()
    for name, (version, hashes) in locked(lock).items():
        assert pinned.get(name) == f"=={version}", f"{name} {version}: run make lock"
        assert hashes and all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", word) for word in hashes), name


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_all_but_pytorch(lock: str) -> None:
    wanted = {canonicalize_name(requirement.name) for requirement in DEPENDENCIES}
    for extra in LOCKS[lock]:
        wanted |= {canonicalize_name(requirement.name) for requirement in EXTRAS[extra]}
    held = set(locked(lock))
    assert {name for name in wanted if not name.startswith(PINNED_BY_TORCH)} - held == {"torch"}, "run make lock"
    assert not {name for name in held if name.startswith(PINNED_BY_TORCH)}
    # What PyTorch itself asks for is there, so that pip may be told to fetch nothing else.
    assert {"sympy", "networkx", "jinja2", "fsspec"} <= held


# The forge


def python_versions() -> list[str]:
    classifiers = (re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", text) for text in PROJECT["classifiers"])
    return [match[1] for match in classifiers if match]


def steps_of(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def test_linux_tests_the_versions_of_the_classifiers() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))["jobs"]
    assert jobs["linux"]["strategy"]["matrix"]["python"] == python_versions()
    assert set(jobs["macos"]["strategy"]["matrix"]["python"]) <= set(python_versions())
    assert python_versions()[0] == PROJECT["requires-python"].removeprefix(">=")


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_what_a_developer_runs(workflow: Path) -> None:
    """Its targets are in the Makefile, its paths in the checkout."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for job in yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"].values():
        for command in steps_of(job):
            words = command.split()
            if words[0] == "make":
                assert words[1] in targets, command
    for word in re.findall(r"\b(?:tests|src)/[\w/.]*\w", workflow.read_text(encoding="utf-8")):  # in comments too
        assert (ROOT / word).exists(), word


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_do_the_least(workflow: Path) -> None:
    parsed = yaml.safe_load(workflow.read_text(encoding="utf-8"))
    assert parsed["permissions"] in ({}, {"contents": "read"})
    granted = {name: job["permissions"] for name, job in parsed["jobs"].items() if "permissions" in job}
    publishing = {"build": {"contents": "read"}, "publish": {"id-token": "write"}}
    assert granted == (publishing if workflow.stem == "release" else {})
    for job in parsed["jobs"].values():
        assert "timeout-minutes" in job
        for step in job["steps"]:
            assert re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v1)", step.get("uses", "a/b@v1")), step
            if step.get("uses", "").startswith("actions/checkout"):
                assert step["with"] == {"persist-credentials": False}
            for path in step.get("with", {}).get("cache-dependency-path", "").split():
                assert (ROOT / path).exists()


def test_a_release_comes_from_a_tag_alone() -> None:
    parsed = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8"))
    assert parsed[True] == {"push": {"tags": ["v[0-9]*"]}}  # YAML 1.1 reads the key `on` as true
    assert parsed["jobs"]["publish"]["needs"] == "build"
    assert [line.split()[:2] for line in steps_of(parsed["jobs"]["build"])[1:]] == [["make", "test"], ["make", "dist"]]


def test_the_hooks_take_the_pinned_versions() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    needed = [
        Requirement(text)
        for repository in hooks["repos"]
        for hook in repository["hooks"]
        for text in hook.get("additional_dependencies", [])
    ]
    assert {requirement.name for requirement in needed} == {"ruff"}
    for requirement in needed:
        assert str(requirement.specifier) == pins()[requirement.name]


def test_every_address_of_the_project_is_the_same_one() -> None:
    assert set(PROJECT["urls"]) == {"Homepage", "Documentation", "Source", "Changelog", "Issues"}
    assert all(url.startswith(ADDRESS) for url in PROJECT["urls"].values())
    for path in [*(ROOT / ".github").rglob("*.yml"), *ROOT.glob("*.md")]:
        for owner in re.findall(r"github\.com/([\w.-]+)/lambert\b", path.read_text(encoding="utf-8")):
            assert owner == "lambert-bert", path
    for url in PROJECT["urls"].values():
        if "/main/" in url:
            assert (ROOT / url.partition("/main/")[2]).exists(), url


def test_the_files_people_look_for_are_there() -> None:
    for name in ("bug.yml", "feature.yml"):
        form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE" / name).read_text(encoding="utf-8"))
        assert {"name", "description", "body"} <= set(form)
    contact = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/config.yml").read_text(encoding="utf-8"))
    assert contact["contact_links"][0]["url"] == f"{ADDRESS}/security/advisories/new"
    for name in ("SECURITY.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "LICENSE", ".github/pull_request_template.md"):
        assert (ROOT / name).stat().st_size > 200
    security = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    for name in re.findall(r"`(tests/[\w.]+)`", security):
        assert (ROOT / name).exists(), name


def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    """All that `make docs` does but writing the files."""
    pytest.importorskip("sphinx", reason="needs the extra docs")
    pytest.importorskip("myst_parser", reason="needs the extra docs")
    command = (sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "dummy", "-d", str(tmp_path / "trees"))
    done = run(*command, "-D", "html_theme=basic", str(ROOT / "docs"), str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr


# The package


def test_importing_lambert_loads_nothing_heavy() -> None:
    program = "import sys, lambert; print([name for name in sys.modules if name in sys.argv[1:]])"
    done = run(sys.executable, "-c", program, *IMPORTED)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


# Hides packages, as if they were not installed.
BLOCK = """
import sys
class Blocked:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in BLOCKED else self.finder.find_spec(name, path, target)
    def invalidate_caches(self):
        pass
sys.meta_path[:] = map(Blocked, sys.meta_path)
"""
OPTIMIZE = """
import math, warnings, torch
from lambert.optim import LAMB, LANS, LARS, AdamHyperball, CombinedOptimizer, Muon, parameter_groups
model = torch.nn.Linear(4, 3)
model(torch.ones(2, 4)).sum().backward()
before = model.weight.detach().clone()
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    LAMB(parameter_groups(model, weight_decay=0.01), lr=0.1, max_grad_norm=1.0).step()
    LANS(model.parameters(), lr=0.1).step()
    LARS(model.parameters(), lr=0.1).step()
assert "pip install 'lambert-bert[fused]'" in str(told[0].message)
assert not torch.equal(model.weight, before) and model.weight.isfinite().all()
warnings.simplefilter("ignore")
try:
    LAMB(model.parameters(), lr=0.1, fused=True).step()
except RuntimeError as error:
    print(error)
"""


def without(packages: Iterable[str], program: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A program in a process where `packages` cannot be imported."""
    return run(sys.executable, "-c", f"BLOCKED = {set(packages)}{BLOCK}{program}", *words)


def test_the_optimizers_need_pytorch_alone() -> None:
    """PyTorch takes NumPy where there is one, but does not bring it; it warns of its absence when it is asked for."""
    done = without({*IMPORTED, "llvmlite"} - {"torch", "filelock"}, OPTIMIZE)
    assert done.returncode == 0, done.stderr
    assert "numba is not installed; install it with: pip install 'lambert-bert[fused]'" in done.stdout


def test_importing_the_optimizers_loads_nothing_but_them() -> None:
    """DTensor, which comes with PyTorch, takes ten times as long as all else in them."""
    program = "import torch, sys; before = set(sys.modules); import lambert.optim; print(*set(sys.modules) - before)"
    new = run(sys.executable, "-c", program).stdout.split()
    assert "lambert.optim.lamb" in new
    assert not [name for name in new if name.startswith("torch.distributed.tensor")]
    assert {name.partition(".")[0] for name in new} <= {"lambert", "torch", *sys.stdlib_module_names}
    assert {name.split(".")[1] for name in new if name.startswith("lambert.")} <= {"optim", "kernel_cache"}


@pytest.mark.parametrize(
    ("blocked", "words"),
    [(PRETRAINING, ["doctor"]), (["tyro"], ["--help"]), (["pyarrow"], ["inspect", "nowhere"])],
    ids=["all", "tyro", "pyarrow"],
)
def test_the_command_names_the_extra_that_is_missing(blocked: list[str], words: list[str]) -> None:
    done = without(blocked, "import runpy; runpy.run_module('lambert', run_name='__main__')", *words)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert re.match(rf"lambert: ({'|'.join(blocked)}) is not installed", line)
    assert line.endswith("pip install 'lambert-bert[pretrain]'.")


def test_a_public_name_says_which_extra_it_needs() -> None:
    program = """
import lambert
for name in ("pretrain", "Corpus", "Trainer"):
    try:
        getattr(lambert, name)
    except lambert.UserError as error:
        print(error)
"""
    lines = without(["tokenizers", "pyarrow", "numpy"], program).stdout.splitlines()
    assert len(lines) == 3
    assert all(line.endswith("pip install 'lambert-bert[pretrain]'.") for line in lines)


def test_another_missing_module_is_not_blamed_on_an_extra() -> None:
    with pytest.raises(ModuleNotFoundError, match="something"):
        missing_package(ModuleNotFoundError("No module named 'something'", name="something"))


def test_python_dash_m_is_the_same_program() -> None:
    done = run(sys.executable, "-m", "lambert", "--help")
    assert done.returncode == 0, done.stderr
    for subcommand in ("prepare", "plan", "pretrain", "squad", "fill", "export", "report", "doctor", "demo"):
        assert subcommand in done.stdout


def test_the_check_is_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    commands = [line for line in script.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert [line for line in commands if "make" in line] == ["exec make test"]


# The Makefile


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that make reads, in a folder of their own."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def stand_in(folder: Path, body: str) -> str:
    """A program that make takes for Python; `$2` is the code it was asked to run."""
    path = folder / "stand-in"
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def test_an_old_python_is_refused_by_name(checkout: Path) -> None:
    aged = f'exec "{sys.executable}" -c "import sys; sys.version_info = (3, 10, 9); $2"'
    python = stand_in(checkout, f'case "$1" in --version) echo Python 3.10.9 ;; -c) {aged} ;; *) exit 1 ;; esac')
    done = run("make", "demo", f"PYTHON={python}", cwd=checkout)
    assert done.returncode != 0
    assert "lambert needs Python 3.11 or newer" in done.stderr
    assert "Python 3.10.9" in done.stderr
    assert "make demo PYTHON=python3.12" in done.stderr
    assert not (checkout / ".venv").exists()


def test_a_missing_python_is_refused_by_name(checkout: Path) -> None:
    done = run("make", "test", "PYTHON=no-such-python", cwd=checkout)
    assert done.returncode != 0
    assert "lambert needs Python 3.11 or newer, and 'no-such-python' is not" in done.stderr


def test_a_python_without_ensurepip_is_refused_with_the_remedy(checkout: Path) -> None:
    python = stand_in(checkout, 'case "$2" in *ensurepip*) exit 1 ;; *) exit 0 ;; esac')
    done = run("make", "demo", f"PYTHON={python}", cwd=checkout)
    assert done.returncode != 0
    assert "ensurepip" in done.stderr
    assert "apt install python3-venv" in done.stderr
    assert not (checkout / ".venv").exists()


def test_the_set_up_is_done_once(checkout: Path) -> None:
    """With the stamps in place, make goes straight to work; a changed pyproject.toml installs again."""
    (checkout / ".venv").mkdir()
    for stamp in ("made", "installed-runtime", "installed-test"):
        (checkout / ".venv" / stamp).touch()
    plan = run("make", "--dry-run", "demo", cwd=checkout).stdout
    assert plan.split("\n")[0] == ".venv/bin/lambert demo"
    assert "pip" not in run("make", "--dry-run", "test", cwd=checkout).stdout
    stamp = (checkout / ".venv" / "made").stat()
    os.utime(checkout / "pyproject.toml", (stamp.st_atime + 60, stamp.st_mtime + 60))
    assert "install -c constraints.txt -e '.[pretrain]'" in run("make", "--dry-run", "demo", cwd=checkout).stdout
    assert "install -c constraints.txt -e '.[test]'" in run("make", "--dry-run", "test", cwd=checkout).stdout


def test_another_build_of_pytorch_comes_first_and_alone(checkout: Path) -> None:
    plan = run("make", "--dry-run", "demo", "TORCH_INDEX=https://an.index/cpu", cwd=checkout).stdout
    first, second = (line for line in plan.splitlines() if "-m pip" in line)
    assert first.endswith("install -c constraints.txt --no-deps --index-url https://an.index/cpu torch")
    assert second.endswith("install -c constraints.txt -e '.[pretrain]'")
