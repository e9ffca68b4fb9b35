"""One file of a token store."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lambert.errors import UserError

CHUNK_TOKENS = 1 << 20
"""Tokens read at a time where all are looked at."""
_MOST_OPEN = 64
"""Files kept open."""

TokenArray = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]


def hashes_of_shard(file: Path) -> npt.NDArray[np.uint64]:
    """uint64 [documents] of one shard."""
    with pa.memory_map(str(file)) as source:
        hashes: npt.NDArray[np.uint64] = pa.ipc.open_file(source).get_batch(0).column("hash").to_numpy()
    return hashes.copy()


class Shard:
    """One memory-mapped Arrow file.

    tokens [tokens], sentence_offsets [sentences+1], document_offsets [documents+1], hashes [documents]; offsets are
    int32. Touching a mapped file that was truncated kills the process (SIGBUS), so training reads tokens with
    `read_tokens`.
    """

    def __init__(self, file: Path, entry: dict[str, Any], data_type: str) -> None:
        try:
            with pa.memory_map(str(file)) as source:
                first_byte = source.read_buffer(1).address
                batch = pa.ipc.open_file(source).get_batch(0)
            column = batch.column("sentences")
            sentences = column.values
            tokens = sentences.values
            self.document_offsets = column.offsets.to_numpy()
            self.sentence_offsets = sentences.offsets.to_numpy()
            self.tokens: TokenArray = tokens.to_numpy()
            self._file, found = file, file.stat()
            self._which = (found.st_dev, found.st_ino)
            self._first_token_byte = self.tokens.ctypes.data - first_byte
            self.hashes: npt.NDArray[np.uint64] = batch.column("hash").to_numpy()
        except (pa.ArrowException, OSError, KeyError, AttributeError, IndexError) as error:
            raise damaged(file, str(error)) from error
        counts = {
            "documents": len(self.document_offsets) - 1,
            "sentences": len(self.sentence_offsets) - 1,
            "tokens": len(self.tokens),
        }
        if self.tokens.dtype != np.dtype(data_type) or any(entry[key] != value for key, value in counts.items()):
            raise damaged(file, f"it holds {counts} of {self.tokens.dtype}, its manifest says otherwise")

    def read_tokens(self, start: int, stop: int) -> TokenArray:
        """Token ids [stop - start], read-only, read from the file.

        Raises:
            UserError: the file has been truncated, or can no longer be read.
        """
        return self.token_reader()(start, stop)

    def token_reader(self) -> Callable[[int, int], TokenArray]:
        """`read_tokens` for many calls at once: it keeps the file open."""
        try:
            opened = _opened(self._file, self._which)
        except OSError as error:
            raise damaged(self._file, error.strerror or str(error)) from None
        first, data_type, width = self._first_token_byte, self.tokens.dtype, self.tokens.itemsize
        pread, from_bytes = os.pread, np.frombuffer

        def read(start: int, stop: int) -> TokenArray:
            wanted = width * (stop - start)
            try:
                data = pread(opened.number, wanted, first + width * start)
            except OSError as error:
                raise damaged(self._file, error.strerror or str(error)) from None
            if len(data) != wanted:
                raise damaged(self._file, "it has been truncated since it was opened")
            return cast(TokenArray, from_bytes(data, data_type))

        return read

    def largest_token(self) -> int:
        """The largest id; 0 without tokens."""
        count = len(self.tokens)
        starts = range(0, count, CHUNK_TOKENS)
        return max((int(self.read_tokens(at, min(at + CHUNK_TOKENS, count)).max()) for at in starts), default=0)


class _Descriptor:
    """An open file; closed with its last reference.

    Raises:
        OSError: it cannot be opened, or another one is in its place.
    """

    def __init__(self, file: Path, which: tuple[int, int]) -> None:
        self.number = os.open(file, os.O_RDONLY)
        found = os.fstat(self.number)
        if (found.st_dev, found.st_ino) != which:
            raise OSError(errno.ESTALE, "another file has taken its place")

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


_opened = functools.lru_cache(maxsize=_MOST_OPEN)(_Descriptor)


def damaged(file: Path, reason: str) -> UserError:
    """The error for a file of a corpus that cannot be used."""
    return UserError(
        f"corpus file {file} cannot be used: {reason}", remedy="Prepare the corpus again into a new folder"
    )
