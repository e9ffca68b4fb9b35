"""The folder beside a corpus in which it is built: what is finished there survives a kill.

    OUT.partial/
      lock             held by the process that builds
      plan.json        what was asked for, and the sources with their sizes and times
      tokenizer/       once the vocabulary is there
      parts/           one JSON record a finished part
      train-*.arrow    their shards

The same request goes on from there; another one is refused.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lambert.corpus.folder import permissions_of_a_new_folder
from lambert.corpus.store import MANIFEST_NAME, TOKENIZER_FOLDER
from lambert.corpus.writer import sync
from lambert.errors import UserError

PARTS_FOLDER = "parts"
_PLAN, _LOCK = "plan.json", "lock"

Plan = dict[str, Any]


@contextmanager
def working_folder(out: Path, plan: Plan | None, *, restart: bool) -> Iterator[Path]:
    """Gives the folder to build in, and renames it to `out` at the end of the block.

    Args:
        plan: plain values that decide every byte; None for a build that cannot be gone on with.
        restart: throw away what is there.

    Raises:
        UserError: `out` exists, its place cannot be written to, another process builds it, or what is there was begun
            with another plan.
    """
    if out.exists() or out.is_symlink():
        raise UserError(
            f"{out} exists already", remedy="Choose another folder or remove it first; nothing is overwritten"
        )
    folder = out.with_name(out.name + ".partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / _LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        raise UserError(f"another process is preparing {out}", remedy="Wait for it, or choose another folder") from None
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror})", remedy="Choose a folder you may write to"
        ) from error
    try:
        _begin(folder, plan, restart=restart)
        yield folder
        _clean(folder)
        folder.chmod(permissions_of_a_new_folder())
        lock.release()
        (folder / _LOCK).unlink(missing_ok=True)
        folder.rename(out)
    except BaseException as error:
        kept = plan is not None and any((folder / PARTS_FOLDER).glob("*.json"))
        lock.release()
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            beside = f"; what is finished stays in {folder}, and the same command goes on from there" if kept else ""
            raise UserError(
                f"{out} cannot be written ({error})", remedy=f"Check the disk's free space and permissions{beside}"
            ) from error
        raise


def _begin(folder: Path, plan: Plan | None, *, restart: bool) -> None:
    """Leaves what can be gone on with, and removes what cannot."""
    recorded = _read(folder / _PLAN)
    if recorded is not None and plan is not None and not restart:
        differences = _differences(recorded, plan)
        if not differences:
            return
        raise UserError(
            f"{folder} holds a preparation that was begun differently ({'; '.join(differences)})",
            remedy="Ask for the same again, remove that folder, or add --restart",
        )
    for entry in folder.iterdir():
        if entry.name == _LOCK:
            continue
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    (folder / PARTS_FOLDER).mkdir()
    if plan is not None:
        write_json(folder / _PLAN, plan)


def write_json(file: Path, values: Any) -> None:
    """Writes plain values whole or not at all, synced."""
    aside = file.with_name(file.name + ".partial")
    aside.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    sync(aside)
    aside.replace(file)


def _clean(folder: Path) -> None:
    """Removes what a finished corpus does not need."""
    wanted = {MANIFEST_NAME, TOKENIZER_FOLDER, _LOCK}
    manifest = _read(folder / MANIFEST_NAME)
    assert manifest is not None
    wanted |= {entry["file"] for entry in manifest["shards"]}
    for entry in folder.iterdir():
        if entry.name not in wanted:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _read(file: Path) -> Plan | None:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def _differences(recorded: Plan, asked: Plan) -> list[str]:
    found = []
    for key in sorted(recorded.keys() | asked.keys()):
        if recorded.get(key) == asked.get(key):
            continue
        if key != "sources":
            found.append(f"{key}: {recorded.get(key)} there, {asked.get(key)} now")
            continue
        there = {tuple(entry) for entry in recorded[key]}
        now = {tuple(entry) for entry in asked[key]}
        names = sorted({str(entry[0]) for entry in there ^ now})
        found.append(f"sources changed: {', '.join(names[:3])}{' and others' if len(names) > 3 else ''}")
    return found
