"""Files of vectors, as NumPy's `save` writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lambert.errors import UserError
from lambert.utils.io import atomic_write, read_beginning, unwritable

_MAGIC = b"\x93NUMPY"


def check_vector_file(path: Path) -> None:
    """Check before the work that vectors can be written there; a file of vectors may be replaced, no other.

    Raises:
        UserError: the name does not end in .npy, something else is there, or the folder cannot be written to.
    """
    if path.suffix != ".npy":
        raise UserError(f"`out` is {path}, but vectors are a NumPy file", remedy="Give a name that ends in .npy")
    if path.is_dir() or (path.is_file() and read_beginning(path, len(_MAGIC)) != _MAGIC):
        raise UserError(f"{path} is there and holds no vectors", remedy="Give another `out`; it is not overwritten")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(path.name + ".partial").open("wb"):
            pass
        path.with_name(path.name + ".partial").unlink()
    except OSError as error:
        raise unwritable(error, path, remedy="Choose another folder") from None


def write_vectors(path: Path, vectors: NDArray[np.float32]) -> None:
    """Write vectors, atomically.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        with atomic_write(path) as partial, partial.open("wb") as file:
            np.save(file, vectors, allow_pickle=False)
    except OSError as error:
        raise unwritable(error, path, remedy="Choose another folder") from None
