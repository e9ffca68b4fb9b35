"""The folder beside a corpus in which it is built; finished partitions survive a kill.

    OUT.partial/
      lock             held by the process that builds
      plan.json        the arguments, and the sources with their sizes and times
      tokenizer/       once the vocabulary is there
      parts/           one JSON record for each finished partition
      train-*.arrow    their shards

A build with the same plan resumes; one with another plan is refused.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lambert.corpus.store import MANIFEST_NAME, TOKENIZER_FOLDER
from lambert.errors import UserError
from lambert.utils.diff import differences
from lambert.utils.folder_lock import LOCK_FILES, FolderInUse, FolderLock
from lambert.utils.io import refuse_existing, room_for, set_default_mode, unwritable, why_unwritable, write_json

PARTITIONS_FOLDER = "parts"
_PLAN = "plan.json"

Plan = dict[str, Any]


@contextmanager
def build_folder(out: Path, plan: Plan | None, *, restart: bool) -> Iterator[Path]:
    """Yields the folder to build in, and renames it to `out` at the end of the block.

    Args:
        plan: plain values that decide every byte; None for a build that cannot be resumed.
        restart: discard what an earlier build left.

    Raises:
        UserError: `out` exists or cannot be written, another process builds it, or an earlier build had another plan.
    """
    refuse_existing(out)
    folder = out.with_name(out.name + ".partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(folder)
    except FolderInUse:
        raise UserError(f"another process is preparing {out}", remedy="Wait for it, or choose another folder") from None
    except OSError as error:
        raise unwritable(error, out, remedy="Choose a folder you may write to") from error
    try:
        _resume_or_clear(folder, plan, restart=restart)
        yield folder
        shards = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))["shards"]
        _clear(folder, keep={MANIFEST_NAME, TOKENIZER_FOLDER, *LOCK_FILES, *(entry["file"] for entry in shards)})
        set_default_mode(folder)
        lock.release()
        for name in LOCK_FILES:
            (folder / name).unlink(missing_ok=True)
        folder.rename(out)
    except BaseException as error:
        can_resume = plan is not None and any((folder / PARTITIONS_FOLDER).glob("*.json"))
        lock.release()
        if not can_resume:
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            hint = f"; finished partitions stay in {folder}, and the same call resumes" if can_resume else ""
            raise UserError(
                f"{out} cannot be written ({why_unwritable(error, out)})",
                remedy=f"{room_for(error) or 'Check the permissions'}{hint}",
            ) from error
        raise


def _resume_or_clear(folder: Path, plan: Plan | None, *, restart: bool) -> None:
    recorded = _read_plan(folder / _PLAN)
    if recorded is not None and plan is not None and not restart:
        if found := _plan_differences(recorded, plan):
            raise UserError(
                f"{folder} holds an unfinished build with other arguments ({'; '.join(found)})",
                remedy="Give the same arguments, remove that folder, or add `restart=True`",
            )
        return
    _clear(folder, keep={*LOCK_FILES})
    (folder / PARTITIONS_FOLDER).mkdir()
    if plan is not None:
        write_json(folder / _PLAN, plan)


def _clear(folder: Path, *, keep: set[str]) -> None:
    for entry in folder.iterdir():
        if entry.name not in keep:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _read_plan(file: Path) -> Plan | None:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def _plan_differences(recorded: Plan, plan: Plan) -> list[str]:
    found = differences(recorded, plan, ignored=lambda key: key == "sources")
    there, now = ({tuple(entry) for entry in one.get("sources", ())} for one in (recorded, plan))
    if names := sorted({str(entry[0]) for entry in there ^ now}):
        found.append(f"sources changed: {', '.join(names[:3])}{' and others' if len(names) > 3 else ''}")
    return found
