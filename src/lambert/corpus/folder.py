"""A folder that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lambert.errors import UserError


@contextmanager
def written_aside(out: Path) -> Iterator[Path]:
    """Gives a new folder beside `out` to write into and renames it to `out` at the end of the block.

    When the block is left by any exception, Ctrl-C included, the folder is removed and `out` does not exist.

    Raises:
        UserError: `out` exists already, or its place cannot be written to.
    """
    if out.exists() or out.is_symlink():
        raise UserError(
            f"{out} exists already", remedy="Choose another folder or remove it first; nothing is overwritten"
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f"{out.name}.partial-", dir=out.parent))
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror})", remedy="Choose a folder you may write to"
        ) from error
    try:
        yield aside
        # mkdtemp makes folders for the owner alone; a store has the permissions of any new folder.
        aside.chmod(permissions_of_a_new_folder())
        aside.rename(out)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise UserError(
            f"{out} cannot be written ({error})", remedy="Check the disk's free space and permissions"
        ) from error
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def permissions_of_a_new_folder() -> int:
    """What mkdir gives a folder here, under the process's mask."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o777 & ~mask
