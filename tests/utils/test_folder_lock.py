"""A folder has one process at a time, also where its lock file is deleted and where the file system has no locks."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

import pytest

from lambert.errors import Interrupted
from lambert.utils import folder_lock
from lambert.utils.folder_lock import LEASE_FILE, LOCK_FILE, FolderInUse, FolderLock


@pytest.fixture
def no_folder_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files can be locked, folders cannot, as on NFS."""
    flock = fcntl.flock

    def files_only(descriptor: int, operation: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", files_only)


def test_a_deleted_lock_file_lets_nobody_in(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    (tmp_path / LOCK_FILE).unlink()
    with pytest.raises(FolderInUse):
        FolderLock(tmp_path)
    lock.check()
    assert (tmp_path / LOCK_FILE).exists()
    lock.release()
    FolderLock(tmp_path).release()


@pytest.mark.usefixtures("no_folder_locks")
def test_where_it_lets_somebody_in_the_first_one_notices(tmp_path: Path) -> None:
    first = FolderLock(tmp_path)
    with pytest.raises(FolderInUse):
        FolderLock(tmp_path)
    (tmp_path / LOCK_FILE).unlink()
    first.check()  # takes it again
    (tmp_path / LOCK_FILE).unlink()
    second = FolderLock(tmp_path)
    with pytest.raises(Interrupted, match="another process has taken"):
        first.check()
    second.check()
    second.release()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_file_locks_a_lease_stands_in(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unsupported(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    monkeypatch.setattr(folder_lock, "LEASE_SECONDS", 0.3)
    (tmp_path / LOCK_FILE).write_text("12345\nnode-that-died\n")
    first = FolderLock(tmp_path)
    assert f"file system without file locks ({os.strerror(number)})" in caplog.text
    with pytest.raises(FolderInUse):
        FolderLock(tmp_path)
    first.check()
    first.release()
    FolderLock(tmp_path).release()
    assert not (tmp_path / LEASE_FILE).exists()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_folder_that_was_moved_is_noticed(replaced: bool, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    lock = FolderLock(folder)
    folder.rename(tmp_path / "elsewhere")
    if replaced:
        folder.mkdir()
    with pytest.raises(Interrupted, match="was moved, renamed or deleted") as told:
        lock.check()
    assert told.value.exit_code == 3 and list(tmp_path.iterdir()) != []
    with pytest.raises(FolderInUse):
        FolderLock(tmp_path / "elsewhere")
    lock.release()
    FolderLock(tmp_path / "elsewhere").release()
