"""Packages that the archive brings along, for a machine that lacks them and has no network."""

from __future__ import annotations

import sys
import zipfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

WHEELS, PACKAGES = "wheels", "packages"
PURE = (
    *("tomli-w", "tyro", "docstring-parser", "typeguard", "filelock", "rich", "markdown-it-py", "mdurl", "pygments"),
    *("pytest", "pluggy", "iniconfig", "packaging"),
)
"""Python without compiled parts, copied from where the archive is made; the others need wheels."""


def unpacked(root: Path) -> Path:
    """The folder of packages to search after the machine's own, with all wheels in it."""
    folder = root / PACKAGES
    for wheel in sorted((root / WHEELS).glob("*.whl")):
        mark = folder / f".{wheel.name}"
        if not mark.exists():
            with zipfile.ZipFile(wheel) as content:
                content.extractall(folder)
            mark.touch()
    return folder


def stand_in() -> None:
    """Let lambert be imported without sentencex, which is compiled: only building a corpus calls it."""
    if find_spec("sentencex") is None:
        sys.modules["sentencex"] = ModuleType("sentencex")


def pure_files() -> tuple[dict[str, Path], list[str]]:
    """Path in the packages' folder → file, of all `PURE` packages here; and the names that cannot be carried so."""
    found: dict[str, Path] = {}
    left: list[str] = []
    for name in PURE:
        try:
            files = metadata.distribution(name).files or []
        except metadata.PackageNotFoundError:
            left.append(f"{name} (not installed here)")
            continue
        if any(file.suffix == ".so" for file in files):
            left.append(f"{name} (compiled)")
            continue
        kept = [file for file in files if ".." not in file.parts and "__pycache__" not in file.parts]
        found.update({str(file): Path(str(file.locate())) for file in kept})
    return {name: path for name, path in found.items() if path.is_file()}, left
