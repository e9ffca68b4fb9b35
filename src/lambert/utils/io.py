"""Files: written whole or not at all, and read no further than memory can hold where they may be untrusted."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lambert.errors import UserError
from lambert.utils.formatting import size

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk, and of a user's quota."""
_NO_FOLDER_SYNC = (errno.EINVAL, errno.EBADF, errno.EACCES, errno.EPERM, errno.ENOTSUP)
_FEW_FILES = 8
"""Files and folders that a run makes with its first checkpoint, or an export."""
_MARGIN_BYTES = 1_000_000
"""Free space required beyond what is written."""
SETTINGS_BYTES = 1_000_000
"""Limit for a configuration: `config.json` of a model, `manifest.json` of a checkpoint, `recipe.toml`."""
VOCABULARY_BYTES = 100_000_000
"""Limit for a `tokenizer.json` or a `vocab.txt`; the largest published ones have some 30 million."""
TENSOR_HEADER_BYTES = 5_000_000
"""Limit for the header of a safetensors file, which takes 30 times as much memory; BERT-Large's has 50,000."""
CORPUS_MANIFEST_BYTES = 100_000_000
"""Limit for a corpus's `manifest.json`, which lists all its sources."""


def read_bytes(path: Path, most: int) -> bytes:
    """The whole file.

    Raises:
        OSError: it cannot be read.
        ValueError: it has more than `most` bytes.
    """
    content = read_beginning(path, most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return content


def read_json(path: Path, most: int) -> Any:
    """The JSON value in a UTF-8 file.

    Raises:
        OSError: it cannot be read.
        ValueError: it has more than `most` bytes, or is not JSON.
    """
    try:
        return json.loads(read_bytes(path, most).decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a settings file written by hand, with or without the byte order mark of Windows editors.

    Raises:
        ValueError: why it cannot be read, as text that follows the file's name.
    """
    try:
        return tomllib.loads(read_bytes(path, SETTINGS_BYTES).decode("utf-8-sig"))
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None
    except UnicodeDecodeError:
        raise ValueError("it is not text in UTF-8") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def check_size(path: Path, most: int) -> None:
    """Checks a file that a library reads.

    Raises:
        OSError: its size cannot be read.
        ValueError: it has more than `most` bytes, or is not a regular file.
    """
    if not path.is_file():
        raise ValueError("it is not a file")
    if path.stat().st_size > most:
        raise ValueError(f"it has more than {most:,} bytes")


def check_tensor_header(file: Path | bytes) -> None:
    """Checks a safetensors file, or its content, before the library parses its header.

    Raises:
        OSError: it cannot be read.
        ValueError: the header has more than `TENSOR_HEADER_BYTES`.
    """
    first = file[:8] if isinstance(file, bytes) else read_beginning(file, 8)
    if (length := int.from_bytes(first, "little")) > TENSOR_HEADER_BYTES:
        raise ValueError(f"its header has {length:,} bytes, more than {TENSOR_HEADER_BYTES:,}")


def read_beginning(path: Path, most: int) -> bytes:
    """The first bytes of a file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return file.read(most)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Write a file, or the names in a folder, through to the disk; systems that cannot sync a folder skip that.

    Raises:
        OSError: the disk failed, or is full.
    """
    is_folder = path.is_dir()
    try:
        # Windows opens no folder, and syncs only what is open for writing.
        descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    except PermissionError:
        if is_folder:
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not is_folder or error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields `PATH.partial` to write to; it is synced and renamed to `path` at the end of the block.

    A crash at any moment leaves the old file or the new one. An exception removes the partial file.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        sync(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    r"""Writes a UTF-8 file atomically.

    Names of files that are not UTF-8 hold lone surrogates, which become escapes: `\udce9` is the same name in JSON.
    """
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Writes a value as JSON atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def is_full(error: Exception) -> bool:
    """Whether an error says that the disk is full."""
    return _number_of(error) in FULL_DISK


def _number_of(error: Exception) -> int | None:
    """The system's number of an error; safetensors has it only in its text."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"os error (\d+)", str(error))
    return int(found[1]) if found else None


def why_unwritable(error: Exception, path: Path) -> str:
    """Why `path` cannot be written: the system's words, and where the disk is full what is left of it."""
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if _number_of(error) == errno.EFBIG:
        return "a file would be larger than the limit of your processes (`ulimit -f`) or of the file system"
    if not is_full(error) or " free" in words:
        return words
    if isinstance(error, OSError) and error.errno == errno.EDQUOT:
        return "your disk quota is used up"
    there = next((folder for folder in path.absolute().parents if folder.exists()), Path("/"))
    if not free_inodes(there):
        return "the disk has no inodes left, it needs fewer files (`df -i`)"
    return f"the disk is full, {size(shutil.disk_usage(there).free)} are free"


def room_for(error: Exception) -> str:
    """What makes room where an error says that there is none; "" for other errors."""
    if _number_of(error) == errno.EFBIG:
        return "Raise that limit"
    return "Free disk space" if is_full(error) else ""


def free_inodes(folder: Path) -> int:
    """How many more files the disk can hold; a large number on file systems without such a limit."""
    facts = os.statvfs(folder) if hasattr(os, "statvfs") else None
    return facts.f_favail if facts is not None and facts.f_files else sys.maxsize


def check_free_space(folder: Path, needed: int, *, what: str) -> None:
    """Check that the disk of a folder has room before something is written, or before the work for it.

    Args:
        needed: bytes, in a few files.
        what: is written, for the message: "a checkpoint".

    Raises:
        OSError: ENOSPC, with what is needed and what is free.
    """
    if free_inodes(folder) < _FEW_FILES:
        why = f"{what} needs {_FEW_FILES} inodes, and {free_inodes(folder)} are free (`df -i`)"
        raise OSError(errno.ENOSPC, why, str(folder))
    free = shutil.disk_usage(folder).free
    if free < needed + _MARGIN_BYTES:
        why = f"{what} needs {size(needed + _MARGIN_BYTES)}, and {size(free)} are free"
        raise OSError(errno.ENOSPC, why, str(folder))


def unwritable(error: Exception, path: Path, *, remedy: str) -> UserError:
    """The error for a file or folder that cannot be written; `remedy` is for other causes than a full disk."""
    return UserError(
        f"{path} cannot be written ({why_unwritable(error, path)})",
        remedy=f"{room}, or choose a folder on another disk" if (room := room_for(error)) else remedy,
    )


def check_room_for(out: Path, needed: int, *, what: str) -> None:
    """`check_free_space` for a new file or folder, before the work for it.

    Raises:
        UserError: its disk has no room.
    """
    there = next(folder for folder in out.absolute().parents if folder.exists())
    try:
        check_free_space(there, needed, what=what)
    except OSError as error:
        raise unwritable(error, out, remedy="Choose another folder") from None


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """Yields a new folder beside `out` to write into and renames it to `out` at the end of the block.

    Any exception, Ctrl-C included, removes the folder; `out` then does not exist.

    Raises:
        UserError: `out` exists already, or cannot be written.
    """
    refuse_existing(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f"{out.name}.partial-", dir=out.parent))
    except OSError as error:
        raise unwritable(error, out, remedy="Choose a folder you may write to") from error
    try:
        yield partial
        set_default_mode(partial)
        partial.rename(out)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise unwritable(error, out, remedy="Check the folder's permissions") from error
        raise


def refuse_existing(out: Path) -> None:
    """Raises UserError where there is something at `out`."""
    if out.exists() or out.is_symlink():
        raise UserError(
            f"{out} exists already", remedy="Choose another folder or remove it first; nothing is overwritten"
        )


def share(file: Path) -> None:
    """Gives a file, which a library wrote for its owner alone, the permissions of any new one beside it."""
    new = file.with_name(f"{file.name}.new")
    new.touch()
    file.chmod(new.stat().st_mode & 0o777)
    new.unlink()


def set_default_mode(folder: Path) -> None:
    """Gives a folder the permissions of any new one; `mkdtemp` makes folders for their owner only."""
    mask = os.umask(0)
    os.umask(mask)
    folder.chmod(0o777 & ~mask)
