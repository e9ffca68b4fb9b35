"""One process at a time in a folder, on file systems with and without file locks."""

from __future__ import annotations

import errno
import logging
import os
import secrets
from contextlib import suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLease, Timeout

from lambert.errors import Interrupted

LOCK_FILE, LEASE_FILE = "lock", "lock.lease"
LOCK_FILES = (LOCK_FILE, LEASE_FILE)
LEASE_SECONDS = 30.0
"""After so long without a sign of life of its holder, a lease ends."""
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)
"""What file systems without file locks answer: NFS without its lock service, Lustre without `-o flock`."""
log = logging.getLogger("lambert")


class FolderInUse(Exception):
    """Another process holds the folder."""


class FolderLock:
    """Keeps other processes out of a folder, until it is released or this process ends.

    The folder itself is locked where that is possible, so that deleting the lock file lets nobody in. The lock file
    says who holds it. Without file locks a lease takes their place: a file that its holder keeps touching.

    Args:
        folder: it exists.

    Raises:
        FolderInUse: another process holds it.
        OSError: it cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._token = f"{os.getpid()} {secrets.token_hex(8)}\n"
        self._file: BaseFileLock | None = None
        self._own = _locked_folder(folder)
        try:
            self._acquire()
        except BaseException:
            self.release()
            raise

    def check(self) -> None:
        """Check that the folder is still in its place, and that nobody else has taken it.

        Raises:
            Interrupted: it was moved or deleted, or another process has taken it.
        """
        if isinstance(self._file, SoftFileLease):
            if self._file.compromise is not None:
                raise self._taken()
        elif not self._has_token():
            if not self._is_in_place():
                raise Interrupted(
                    f"the folder {self.folder} was moved, renamed or deleted while this process worked in it",
                    remedy="Its files are where it was moved to: move it back, or go on there",
                )
            try:
                self._acquire()  # someone deleted the lock file
            except FolderInUse:
                raise self._taken() from None

    def release(self) -> None:
        """Let others in."""
        if self._file is not None:
            with suppress(OSError):  # the folder may be gone
                self._file.release(force=True)
        if self._own is not None:
            os.close(self._own)
        self._file = self._own = None

    def _acquire(self) -> None:
        if self._file is not None:
            self._file.release(force=True)
        path = self.folder / LOCK_FILE
        try:
            self._file = FileLock(path, timeout=0, thread_local=False, fallback_to_soft=False)
            self._file.acquire()
        except Timeout:
            raise FolderInUse from None
        except OSError as error:
            self._file = None
            if error.errno not in _NO_LOCKS:
                raise
            self._lease(error)
            return
        with suppress(OSError):  # on a full disk only the token is missing
            path.write_text(self._token)

    def _lease(self, error: OSError) -> None:
        log.warning(f"{self.folder} is on a file system without file locks ({error.strerror}): {LEASE_FILE} stands in")
        lease = SoftFileLease(self.folder / LEASE_FILE, lease_duration=LEASE_SECONDS, thread_local=False)
        try:
            lease.acquire(timeout=1.5 * LEASE_SECONDS)
        except Timeout:
            raise FolderInUse from None
        self._file = lease

    def _has_token(self) -> bool:
        try:
            return (self.folder / LOCK_FILE).read_text(errors="replace") in ("", self._token)
        except OSError:
            return False

    def _is_in_place(self) -> bool:
        """Whether the path leads to the folder that was locked; where that is unknown, whether it leads anywhere."""
        try:
            found = self.folder.stat()
        except OSError:
            return False
        return self._own is None or os.path.samestat(found, os.fstat(self._own))

    def _taken(self) -> Interrupted:
        return Interrupted(
            f"another process has taken {self.folder}, whose lock was deleted or had expired",
            remedy="Let one of them finish; the last checkpoint that this one wrote is complete",
        )


def _locked_folder(folder: Path) -> int | None:
    """A descriptor of the folder, locked if the file system locks folders; None where folders cannot be opened."""
    try:
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except (ImportError, AttributeError, PermissionError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise FolderInUse from None
    except OSError:
        pass  # NFS locks only files that are open for writing
    return descriptor
