"""Checkpoints: a folder of safetensors files and one JSON manifest with a SHA-256 for each, written atomically.

Loading cannot run code, and a damaged file is never loaded: every file is hashed before use, and the manifest holds its
own hash.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from lambert.errors import UserError
from lambert.training.checkpoint.tensor_file import Altered, read_tensors
from lambert.utils.formatting import shell_command
from lambert.utils.io import SETTINGS_BYTES, check_free_space, file_sha256, read_json, share, sync, write_text

FORMAT_VERSION = 3
FOLDER = "checkpoints"
LATEST = "latest"
PARTS = ("model", "optimizer")
AVERAGE = "ema"
"""The part of a run with averaged weights beside `PARTS`."""
_MANIFEST = "manifest.json"
_DAMAGE = (None, errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EIO)
"""Error numbers of damage; others, such as missing permissions, say nothing about the files."""


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to resume from the end of a step."""

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    """Part (`model`, `optimizer`, perhaps `ema`) → name → tensor; each part is one file."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """JSON data: the run's configuration, and the state of its trackers."""

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """Parameter name → what an export holds: the average where there is one."""
        return self.tensors.get(AVERAGE, self.tensors["model"])

    @property
    def tensor_bytes(self) -> int:
        """Size of all tensors."""
        return sum(tensor.nbytes for named in self.tensors.values() for tensor in named.values())


class Damaged(UserError):
    """A checkpoint that differs from what was saved."""


class Unreadable(UserError):
    """A checkpoint that this process may not read, or cannot now; nothing says that it is damaged."""


class OtherVersion(UserError):
    """A checkpoint in the format of another version of lambert, which that version can read."""


def write_checkpoint(run: Path, checkpoint: Checkpoint) -> Path:
    """Write `run/checkpoints/step-N`, read it back, and point `run/latest` at it.

    Files go to a temporary folder, are synced, verified against their hashes and renamed. A crash at any moment leaves
    earlier checkpoints intact, and this one either complete or absent.

    Raises:
        OSError: the folder cannot be written; ENOSPC also if the free space is known to be too small.
        Damaged: the data read back differ from what was written.
    """
    folder = run / FOLDER
    target = folder / f"step-{checkpoint.step}"
    aside = target.with_name(target.name + ".partial")
    try:
        if aside.exists():
            shutil.rmtree(aside)
        folder.mkdir(exist_ok=True)  # never the run folder itself: it may have been moved
        aside.mkdir()
        check_free_space(aside, checkpoint.tensor_bytes, what="a checkpoint")
        _write_files(aside, checkpoint)
        sync(aside)
        _forget_cached(aside)
        _hashed_files(aside, checkpoint.step)
        if target.exists():
            _remove(target)
        aside.rename(target)
        sync(folder)
        write_text(run / LATEST, f"{target.name}\n")
        sync(run)
    except SafetensorError as error:  # whose text holds the error number
        shutil.rmtree(aside, ignore_errors=True)
        found = re.search(r"os error (\d+)", str(error))
        raise OSError(int(found[1]) if found else errno.EIO, str(error)) from None
    except (OSError, Damaged):
        shutil.rmtree(aside, ignore_errors=True)  # it would only occupy space on a full disk
        raise
    return target


def delete_old_checkpoints(run: Path, *, keep_last: int, keep_every: int = 0) -> None:
    """Delete all but the newest `keep_last` and multiples of `keep_every`, and remove incomplete writes.

    Other files in the folder are not touched.
    """
    folder = run / FOLDER
    steps = finished_steps(run)
    kept = {*steps[:keep_last], *(step for step in steps if keep_every and step % keep_every == 0)}
    for path in folder.iterdir():
        if re.fullmatch(r"step-\d+\.(partial|deleted)", path.name):
            shutil.rmtree(path, ignore_errors=True)
        elif re.fullmatch(r"step-\d+", path.name) and int(path.name.removeprefix("step-")) not in kept:
            _remove(path)


def run_and_step(path: Path) -> tuple[Path, int | None]:
    """The run of `RUN/checkpoints/step-N` and N; of a run, itself and None."""
    named = re.fullmatch(r"step-(\d+)", path.name)
    return (path.parent.parent, int(named[1])) if named and path.parent.name == FOLDER else (path, None)


def finished_steps(run: Path) -> list[int]:
    """Steps with a checkpoint under its final name, newest first."""
    folder = run / FOLDER
    found = [path for path in folder.iterdir() if re.fullmatch(r"step-\d+", path.name)] if folder.is_dir() else []
    return sorted((int(path.name.removeprefix("step-")) for path in found if _has_manifest(path)), reverse=True)


def _has_manifest(folder: Path) -> bool:
    try:
        return (folder / _MANIFEST).exists()
    except OSError:  # closed to this user: loading it says so
        return True


def load_checkpoint(run: Path, step: int) -> Checkpoint:
    """Read `run/checkpoints/step-N` (on the CPU), and verify the size and SHA-256 of every file.

    Each file is read once, so that the hashed bytes are the bytes used, into the memory of its tensors.

    Raises:
        Damaged: a file is missing, truncated or altered.
        Unreadable, OtherVersion: see there.
    """
    folder = run / FOLDER / f"step-{step}"
    try:
        content = _manifest(folder, step)
        tensors = {
            Path(name).stem: read_tensors(folder / name, size=recorded["bytes"], sha256=recorded["sha256"])
            for name, recorded in content["files"].items()
        }
        return Checkpoint(step, tensors, content["facts"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _unloadable(folder, error) from None


def checkpoint_facts(run: Path, step: int) -> dict[str, Any]:
    """The facts of a checkpoint, without its tensors.

    Raises:
        Damaged: its manifest is missing or altered.
        Unreadable, OtherVersion: see there.
    """
    folder = run / FOLDER / f"step-{step}"
    try:
        return dict(_manifest(folder, step)["facts"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _unloadable(folder, error) from None


def newest_checkpoint(run: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest complete checkpoint (None without one), and the problems of newer ones.

    The `latest` link is ignored: it is for people, and a crash can leave it one checkpoint behind.

    Raises:
        UserError: there are checkpoints, and all are damaged.
        Unreadable, OtherVersion: one newer than all complete ones is not passed over.
    """
    problems: list[str] = []
    for step in finished_steps(run):
        try:
            return load_checkpoint(run, step), problems
        except Damaged as damage:
            problems.append(damage.what)
    if problems:
        raise UserError(
            f"no checkpoint of {run} is complete: {'; '.join(problems)}",
            remedy="Restore one from a copy, or add `fresh=True` to start over",
        )
    return None, problems


def _write_files(aside: Path, checkpoint: Checkpoint) -> None:
    files = {}
    for part, named in checkpoint.tensors.items():
        path = aside / f"{part}.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in named.items()}, path)
        share(path)
        sync(path)
        files[path.name] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
    content = {
        "format_version": FORMAT_VERSION,
        "step": checkpoint.step,
        "files": files,
        "facts": dict(checkpoint.facts),
    }
    manifest = {"sha256": _content_sha256(content), "content": content}
    write_text(aside / _MANIFEST, json.dumps(manifest, indent=1, allow_nan=False))


def _hashed_files(folder: Path, step: int) -> None:
    """Verify the files on disk against the manifest.

    Raises:
        Damaged: they differ.
    """
    for name, recorded in _manifest(folder, step)["files"].items():
        if file_sha256(folder / name) != recorded["sha256"]:
            raise _damaged(folder, f"{name} reads back differently from what was written")


def _manifest(folder: Path, step: int) -> dict[str, Any]:
    manifest = read_json(folder / _MANIFEST, SETTINGS_BYTES)
    content: dict[str, Any] = manifest["content"]
    if manifest["sha256"] != _content_sha256(content) or set(manifest) != {"sha256", "content"}:
        raise _damaged(folder, f"{_MANIFEST} is not what was saved (its SHA-256 differs)")
    if content["format_version"] != FORMAT_VERSION:
        raise _of_other_version(folder, content)
    named = {f"{part}.safetensors" for part in PARTS}
    if content["step"] != step or set(content["files"]) - {f"{AVERAGE}.safetensors"} != named:
        raise _damaged(folder, f"its manifest is of step {content['step']} and names {sorted(content['files'])}")
    return content


def _remove(folder: Path) -> None:
    """Delete a checkpoint. It is renamed first, so that a partly deleted one is not mistaken for a complete one."""
    doomed = folder.with_name(folder.name + ".deleted")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _of_other_version(folder: Path, content: Mapping[str, Any]) -> OtherVersion:
    found, facts = content["format_version"], content.get("facts")
    versions = facts.get("versions") if isinstance(facts, Mapping) else None
    version = versions.get("lambert") if isinstance(versions, Mapping) else None
    order = "newer" if isinstance(found, int) and found > FORMAT_VERSION else "older"
    own = f"lambert {version}" if version else f"the {order} version of lambert that wrote it"
    return OtherVersion(
        f"the checkpoint {folder} has format version {found}, which is {order} than this lambert's {FORMAT_VERSION}",
        remedy=f"Install {own} to resume the run, or choose another `out`; nothing was deleted",
    )


def _unloadable(folder: Path, error: Exception) -> UserError:
    """The error for a checkpoint that is damaged, or that only this process cannot read."""
    if isinstance(error, Altered):
        return _damaged(folder, str(error))
    if not isinstance(error, OSError) or error.errno in _DAMAGE:
        return _damaged(folder, f"{type(error).__name__}: {error}")
    open_it = shell_command("chmod", "-R", "u=rwX,g=rwX", folder)
    return Unreadable(
        f"the checkpoint {folder} cannot be read ({error.strerror})",
        remedy=f"Make it readable (`{open_it}` by its owner), or choose another `out`"
        if error.errno in (errno.EACCES, errno.EPERM)
        else "Fix the cause and give the same command again",
    )


def _damaged(folder: Path, what: str) -> Damaged:
    return Damaged(f"the checkpoint {folder} is damaged: {what}", remedy=f"Delete {folder}, or add `fresh=True`")


def _content_sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _forget_cached(folder: Path) -> None:
    """Drop these files from the page cache, so that verification reads the disk."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
