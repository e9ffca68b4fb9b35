"""One file of a token store."""

from __future__ import annotations

import errno
import functools
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lambert.errors import UserError

CHUNK_TOKENS = 1 << 20
"""Tokens read at a time where all are looked at."""
_MOST_OPEN = 64
"""Files kept open."""
_FIRST_MESSAGE = 8
"""Byte of an Arrow file at which its first message begins, after a magic word."""

TokenArray = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]


class _Values(NamedTuple):
    """Where the values of a column lie in its file."""

    first_byte: int
    data_type: np.dtype[Any]
    size: int


class Shard:
    """One Arrow file, read with `pread`: touching a mapped file that was truncated kills the process (SIGBUS).

    Opening reads the metadata alone. With an `entry` of the manifest, counts and type of the tokens must be its own.

    Raises:
        UserError: the file cannot be used.
    """

    def __init__(self, file: Path, entry: dict[str, Any] | None = None, data_type: str = "") -> None:
        self._file = file
        try:
            with file.open("rb") as opened:
                found = os.fstat(opened.fileno())
                batch, place = _metadata(opened.fileno(), found.st_size)
            self._which = (found.st_dev, found.st_ino)
            column = batch.column("sentences")
            self._documents, self._hashes = place(column.offsets), place(batch.column("hash"))
            self._sentences, self._tokens = place(column.values.offsets), place(column.values.values)
        except MemoryError:  # Arrow's own is an ArrowException too
            raise
        except (pa.ArrowException, OSError, KeyError, AttributeError, IndexError, ValueError) as error:
            raise damaged(file, str(error)) from error
        self.token_count, self.token_type = self._tokens.size, self._tokens.data_type
        counts = {
            "documents": self._documents.size - 1,
            "sentences": self._sentences.size - 1,
            "tokens": self.token_count,
        }
        if entry is not None and (
            self.token_type != np.dtype(data_type) or any(entry[key] != value for key, value in counts.items())
        ):
            raise damaged(file, f"it holds {counts} of {self.token_type}, its manifest says otherwise")

    @property
    def document_offsets(self) -> npt.NDArray[np.int32]:
        """int32 [documents+1]: document d is sentences [offsets[d], offsets[d+1]); read from the file."""
        return self._all(self._documents)

    @property
    def sentence_offsets(self) -> npt.NDArray[np.int32]:
        """int32 [sentences+1]: sentence s is tokens [offsets[s], offsets[s+1]); read from the file."""
        return self._all(self._sentences)

    @property
    def hashes(self) -> npt.NDArray[np.uint64]:
        """uint64 [documents] of their texts; read from the file."""
        return self._all(self._hashes)

    def read_tokens(self, start: int, stop: int) -> TokenArray:
        """Token ids [stop - start], read-only.

        Raises:
            UserError: the file has been truncated, or can no longer be read.
        """
        return self._read(self._tokens, start, stop)

    def opened_tokens(self) -> tuple[Descriptor, int]:
        """The open file and the byte where its tokens begin, for many reads at once.

        Raises:
            UserError: the file can no longer be opened.
        """
        return self._opened(), self._tokens.first_byte

    def _all(self, values: _Values) -> npt.NDArray[Any]:
        return self._read(values, 0, values.size)

    def _opened(self) -> Descriptor:
        try:
            return _opened(self._file, self._which)
        except OSError as error:
            raise damaged(self._file, error.strerror or str(error)) from None

    def _read(self, values: _Values, start: int, stop: int) -> npt.NDArray[Any]:
        width, opened = values.data_type.itemsize, self._opened()
        wanted = width * (stop - start)
        try:
            data = os.pread(opened.number, wanted, values.first_byte + width * start)
        except OSError as error:
            raise damaged(self._file, error.strerror or str(error)) from None
        if len(data) != wanted:
            raise damaged(self._file, "it has been truncated since it was opened")
        return np.frombuffer(data, values.data_type)

    def largest_token(self) -> int:
        """The largest id; 0 without tokens."""
        count = self.token_count
        starts = range(0, count, CHUNK_TOKENS)
        return max((int(self.read_tokens(at, min(at + CHUNK_TOKENS, count)).max()) for at in starts), default=0)


def _metadata(file: int, size: int) -> tuple[pa.RecordBatch, Callable[[pa.Array], _Values]]:
    """The record batch of an Arrow file without its values, and a function that says where those of an array lie.

    It lies in memory of the file's size that is zero, and takes no room, but for the file's metadata: the messages of
    schema and record batch, each after a marker and its length (4 bytes each), and the footer before the last 10 bytes.
    """
    memory = mmap.mmap(-1, size)

    def fill(start: int, stop: int) -> None:
        memory[start:stop] = os.pread(file, min(stop, size) - start, start)  # IndexError: too short

    def length(at: int) -> int:
        fill(at, at + 4)
        return int.from_bytes(memory[at : at + 4], "little")

    at = _FIRST_MESSAGE
    for _ in range(2):
        fill(at, at + 4)
        following = at + 8 + length(at + 4)
        fill(at + 8, following)
        at = following
    fill(size - 10 - length(size - 10), size)
    buffer = pa.py_buffer(memory)

    def place(array: pa.Array) -> _Values:
        values = array.to_numpy()
        return _Values(values.ctypes.data - buffer.address, values.dtype, len(values))

    return pa.ipc.open_file(buffer).get_batch(0), place


class Descriptor:
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


_opened = functools.lru_cache(maxsize=_MOST_OPEN)(Descriptor)


def damaged(file: Path, reason: str) -> UserError:
    """The error for a file of a corpus that cannot be used."""
    return UserError(
        f"corpus file {file} cannot be used: {reason}", remedy="Prepare the corpus again into a new folder"
    )
