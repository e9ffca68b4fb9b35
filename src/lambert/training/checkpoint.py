"""Checkpoints: a folder of safetensors files and one JSON manifest with a SHA-256 for each, written atomically.

Nothing that is loaded can run code, and nothing damaged is loaded: every file is hashed before it is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from safetensors.torch import load as load_tensors
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from lambert.errors import UserError

FORMAT_VERSION = 1
_MANIFEST = "manifest.json"


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
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        files = {}
        for part, named in tensors.items():
            path = aside / f"{part}.safetensors"
            save_file({name: t.detach().cpu().contiguous() for name, t in named.items()}, path)
            _sync(path)
            files[path.name] = {"bytes": path.stat().st_size, "sha256": _sha256(path.read_bytes())}
        manifest = {"format_version": FORMAT_VERSION, "step": step, "files": files}
        _write_synced(aside / _MANIFEST, json.dumps(manifest, indent=1))
        shutil.rmtree(target, ignore_errors=True)
        aside.rename(target)
        _sync(folder)
        _write_synced(run / "latest.partial", f"step-{step}\n")
        (run / "latest.partial").replace(run / "latest")
        _sync(run)
    except OSError as error:
        raise UserError(
            f"the checkpoint of step {step} cannot be written to {folder}: {error}",
            remedy="Free some space or mend the permissions, then give the same command to go on",
        ) from None
    for old in sorted(_complete(folder))[:-keep]:
        shutil.rmtree(folder / f"step-{old}", ignore_errors=True)
    return target


def latest_step(run: Path) -> int | None:
    """The step of the newest checkpoint, or None when there is none.

    `latest` names it; when that file is missing or stale, the highest finished folder counts.
    """
    finished = _complete(run / "checkpoints")
    try:
        named = (run / "latest").read_text(encoding="utf-8").strip().removeprefix("step-")
    except (OSError, UnicodeDecodeError):
        named = ""
    if named.isdigit() and int(named) in finished:
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
        tensors = {}
        for name, recorded in manifest["files"].items():
            # One read: the bytes that are hashed are the bytes that are used.
            content = (folder / name).read_bytes()
            if len(content) != recorded["bytes"] or _sha256(content) != recorded["sha256"]:
                raise _damaged(folder, f"{name} is not what was saved (size or SHA-256 differs)")
            tensors[Path(name).stem] = load_tensors(content)
        return tensors
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
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
    for full_name, value in saved.items():
        name, _, key = full_name.rpartition("/")
        parameter = by_name[name]
        device = parameter.device if value.dim() else value.device
        optimizer.state[parameter][key] = value.to(device)


def _complete(folder: Path) -> list[int]:
    names: Iterable[Path] = folder.glob("step-*") if folder.is_dir() else ()
    steps = (path.name.removeprefix("step-") for path in names if (path / _MANIFEST).is_file())
    return [int(step) for step in steps if step.isdigit()]


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
