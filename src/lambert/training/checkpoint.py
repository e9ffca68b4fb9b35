"""Checkpoints: a folder of safetensors files and one JSON manifest with a SHA-256 for each, written atomically.

Nothing that is loaded can run code, and nothing damaged is loaded: every file is hashed before it is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from lambert.errors import UserError

FORMAT_VERSION = 1
_MANIFEST = "manifest.json"
PARTS = ("model", "optimizer")


def save_checkpoint(run: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], *, keep: int = 2) -> Path:
    """Write `run/checkpoints/step-N`, point `run/latest` at it, and delete all but the newest `keep`.

    `tensors` is part (`model`, `optimizer`) → name → tensor; each part becomes one file.

    Files are written beside, synced and renamed, so that a crash at any moment leaves the last checkpoint whole.

    Raises:
        UserError: the folder cannot be written.
    """
    folder = run / "checkpoints"
    target, aside = folder / f"step-{step}", folder / f"step-{step}.partial"
    try:
        aside.mkdir(parents=True, exist_ok=True)
        files = {}
        for part, named in tensors.items():
            path = aside / f"{part}.safetensors"
            save_file({name: t.detach().cpu().contiguous() for name, t in named.items()}, path)
            _sync(path)
            files[path.name] = {"bytes": path.stat().st_size, "sha256": _sha256(path.read_bytes())}
        manifest = {"format_version": FORMAT_VERSION, "step": step, "files": files}
        _write_synced(aside / _MANIFEST, json.dumps(manifest, indent=1))
        _sync(aside)
        shutil.rmtree(target, ignore_errors=True)
        aside.rename(target)
        _sync(folder)
        _write_synced(run / "latest.partial", f"step-{step}\n")
        (run / "latest.partial").replace(run / "latest")
        _sync(run)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)  # on a full disk it would only hold the space
        raise UserError(
            f"the checkpoint of step {step} cannot be written to {folder}: {error}",
            remedy="Free some space or mend the permissions, then give the same command to go on",
        ) from None
    _sweep(folder, keep)
    return target


def _sweep(folder: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints, and what a killed process left half-written or half-deleted."""
    kept = {f"step-{step}" for step in sorted(_complete(folder))[-keep:]}
    for path in folder.iterdir():
        if path.name not in kept and re.fullmatch(r"step-\d+(\.partial)?", path.name):
            shutil.rmtree(path, ignore_errors=True)


def latest_step(run: Path) -> int | None:
    """The step of the newest checkpoint, or None when there is none.

    `latest` names it; when that file is missing or stale, the highest finished folder counts.
    """
    finished = _complete(run / "checkpoints")
    try:
        named = (run / "latest").read_text(encoding="utf-8").strip().removeprefix("step-")
    except (OSError, UnicodeDecodeError):
        named = ""
    if named.isascii() and named.isdecimal() and int(named) in finished:
        return int(named)
    return max(finished, default=None)


def load_checkpoint(run: Path, step: int) -> dict[str, dict[str, Tensor]]:
    """Read the tensors of `run/checkpoints/step-N` (part → name → tensor, on the CPU), comparing every file
    with its recorded size and SHA-256.

    Raises:
        UserError: a file is missing, shortened or altered.
    """
    folder = run / "checkpoints" / f"step-{step}"
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        if manifest["format_version"] != FORMAT_VERSION:
            raise _damaged(folder, f"format version {manifest['format_version']} is not {FORMAT_VERSION}")
        if set(manifest["files"]) != {f"{part}.safetensors" for part in PARTS}:
            raise _damaged(folder, f"its manifest names {sorted(manifest['files'])}")
        tensors = {}
        for name, recorded in manifest["files"].items():
            # One read: the bytes that are hashed are the bytes that are used.
            content = (folder / name).read_bytes()
            if len(content) != recorded["bytes"] or _sha256(content) != recorded["sha256"]:
                raise _damaged(folder, f"{name} is not what was saved (size or SHA-256 differs)")
            tensors[Path(name).stem] = load_tensors(content)
        return tensors
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder, f"{type(error).__name__}: {error}") from None


def optimizer_tensors(optimizer: Optimizer, names: Mapping[Tensor, str]) -> dict[str, Tensor]:
    """The optimizer's state as `parameter name + "/" + key` → tensor."""
    return {
        f"{names[parameter]}/{key}": value
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: Optimizer, names: Mapping[Tensor, str], saved: Mapping[str, Tensor]) -> None:
    """Put the tensors of `optimizer_tensors` back in place."""
    by_name = {name: parameter for parameter, name in names.items()}
    on_device = {p for group in optimizer.param_groups if group.get("fused") for p in group["params"]}
    for full_name, value in saved.items():
        name, _, key = full_name.rpartition("/")
        parameter = by_name[name]
        # Step counts live on the CPU, but fused optimizers keep them beside the parameter.
        has_device = value.dim() > 0 or parameter in on_device
        optimizer.state[parameter][key] = value.to(parameter.device) if has_device else value


def _complete(folder: Path) -> list[int]:
    names: Iterable[Path] = folder.glob("step-*") if folder.is_dir() else ()
    steps = (path.name.removeprefix("step-") for path in names if (path / _MANIFEST).is_file())
    return [int(step) for step in steps if step.isascii() and step.isdecimal()]


def _damaged(folder: Path, what: str) -> UserError:
    return UserError(
        f"the checkpoint {folder} is damaged: {what}",
        remedy=f"Delete {folder} and give the same command to go on from the one before it, or add --fresh",
    )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write_synced(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
