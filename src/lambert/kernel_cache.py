"""Machine code that numba has compiled, kept on disk for the next process.

Only the functions that Python calls are kept, and all that they call is inlined into them. A sum in a function of its
own would exist twice, in its own code and in its caller's, optimized differently: a process that has compiled takes the
first, one that has loaded the second, and they round differently.

Such a file runs when it is loaded. So the folder must belong to this user and nobody else may write into it or into
the file; a file must also have the SHA-256 that it begins with. Whatever does not is compiled again and replaced.
"""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import ast
import functools
import hashlib
import os
import stat
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core import config
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps, loads

VARIABLE = "LAMBERT_KERNEL_CACHE"
"""Environment variable: another folder, or `off`."""

MAX_BYTES = 16 << 20
MAX_AGE_SECONDS = 90 * 86_400
"""Older files are deleted when one is written: they may be of versions that are gone."""
LOCK_SECONDS = 30.0
"""How long a process waits, in all, for others that compile, before it compiles too."""

_DIGEST_BYTES = 32
_OPTIONS = ("OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "DISABLE_INTEL_SVML")


def kept(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit(**options)` for a module's function, whose machine code is kept on disk."""

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(**options)(function)
        dispatcher._cache = _FunctionCache(function)  # where numba's own cache would be
        return dispatcher

    return decorate


def location() -> Path | None:
    """The folder: `$LAMBERT_KERNEL_CACHE`, or `lambert/kernels` in the user's cache; None if nothing is kept."""
    chosen = os.environ.get(VARIABLE, "")
    if chosen.lower() in ("off", "0") or not hasattr(os, "geteuid"):  # Windows has no such owners and modes
        return None
    base = os.environ.get("XDG_CACHE_HOME", "")
    base = base if os.path.isabs(base) else os.path.expanduser("~/.cache")
    return Path(chosen or f"{base}/lambert/kernels").absolute()


@contextmanager
def open_folder() -> Iterator[int]:
    """A descriptor of the folder, which is made if it is missing.

    Raises:
        OSError: there is no folder, or it cannot be trusted; the message says why.
    """
    path = location()
    if path is None:
        raise OSError(f"switched off by {VARIABLE}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_dir():
        path.mkdir(mode=0o700, exist_ok=True)
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not _is_private(os.fstat(folder)):
            raise PermissionError(f"{path} belongs to somebody else, or others may write into it")
        yield folder
    finally:
        os.close(folder)


def _is_private(info: os.stat_result) -> bool:
    """Whether only this user (and root) can have written it."""
    return info.st_uid == os.geteuid() and not info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def read(name: str) -> bytes | None:
    """The content of a file, or None if it is missing, damaged or not ours alone."""
    try:
        with open_folder() as folder:
            # Not blocking: a pipe of that name would make us wait.
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
            with open(file, "rb") as opened:
                info = os.fstat(file)
                if not stat.S_ISREG(info.st_mode) or not _is_private(info) or info.st_size > MAX_BYTES:
                    return None
                data = opened.read()
    except OSError:
        return None
    content = data[_DIGEST_BYTES:]
    return content if _digest(name, content) == data[:_DIGEST_BYTES] else None


def write(name: str, content: bytes) -> None:
    """Write a file under another name and rename it; where that cannot be, do nothing."""
    try:
        with open_folder() as folder:
            _delete_old(folder)
            new = f"{name}.{uuid.uuid4().hex}.new"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                with open(os.open(new, flags, 0o600, dir_fd=folder), "wb") as opened:
                    opened.write(_digest(name, content) + content)
                os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
            except OSError:
                os.unlink(new, dir_fd=folder)
    except OSError:
        return


def _delete_old(folder: int) -> None:
    for name in os.listdir(folder):
        with suppress(FileNotFoundError):  # another process has deleted it
            age = time.time() - os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime
            if name.endswith((".kernel", ".new")) and age > MAX_AGE_SECONDS:
                os.unlink(name, dir_fd=folder)


def _digest(name: str, content: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\0" + content).digest()


@functools.cache
def source_digest(module: str) -> str:
    """SHA-256 of the source of a module and of all modules of its package that it imports, directly or not.

    Raises:
        OSError: the package does not lie in a folder.
    """
    package = module.partition(".")[0]
    root = Path(sys.modules[package].__file__ or "").parent.parent
    sources: dict[str, bytes] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = root.joinpath(*name.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if name in sources or name.partition(".")[0] != package or not file.is_file():
            continue
        sources[name] = file.read_bytes()
        for node in ast.walk(ast.parse(sources[name])):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    if module not in sources:
        raise FileNotFoundError(f"{module} has no source file")
    digests = {name: hashlib.sha256(source).hexdigest() for name, source in sources.items()}
    return hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest()


class _FunctionCache:
    """What numba asks of a cache: one function, many signatures. Nothing that goes wrong here stops a compilation."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._lock: _Lock | None = None

    @property
    def cache_path(self) -> str:
        """Where the files are, for numba's statistics."""
        return str(location() or "")

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """The compiled function, or None if it must be compiled. Then this process holds the lock until it is saved."""
        try:
            target_context.refresh()
            name = self._file_name(signature, target_context.codegen())
            content = read(name)
            if content is None:
                self._lock = _Lock()
                content = read(name)  # another process may have compiled it meanwhile
            if content is None:
                return None
            result = CompileResult._rebuild(target_context, *loads(content))
        except Exception:  # sources that cannot be read, a numba that works otherwise: compile
            result = None
        if result is not None:
            self._unlock()
        return result

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep what numba has just compiled."""
        try:
            if not result.library.has_dynamic_globals and not result.lifted:
                write(self._file_name(signature, result.codegen), dumps(result._reduce()))
        except Exception:  # as above: the process has its code
            return
        finally:
            self._unlock()

    def flush(self) -> None:
        """Nothing: each file stands for itself."""

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _file_name(self, signature: Any, codegen: Any) -> str:
        function = self._function
        versions = sys.implementation.cache_tag, numba.__version__, llvmlite.__version__
        processor = codegen.magic_tuple()  # its name and features
        options = [str(getattr(config, option, None)) for option in _OPTIONS]
        key = (function.__module__, function.__qualname__, repr(signature), processor, versions, options)
        digest = hashlib.sha256(repr((*key, source_digest(function.__module__))).encode()).hexdigest()
        return f"{function.__name__}-{digest[:32]}.kernel"


class _Lock:
    """Held by the process of this machine that compiles; others wait for it, then find its files."""

    seconds_left = LOCK_SECONDS

    def __init__(self) -> None:
        import fcntl

        with open_folder() as folder:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open("lock", flags, 0o600, dir_fd=folder)
        while _Lock.seconds_left > 0:
            try:
                return fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _Lock.seconds_left -= 0.01
                time.sleep(0.01)
            except OSError:  # a file system without locks: two processes may compile the same
                return None

    def release(self) -> None:
        """Let the next process compile."""
        os.close(self._file)
