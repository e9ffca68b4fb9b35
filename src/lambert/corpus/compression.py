"""Plain and compressed files as byte streams; their first bytes decide the compression, not their names."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import numpy as np
import pyarrow as pa

from lambert.corpus.readers.document import STANDARD_INPUT, source_name
from lambert.errors import UserError

BLOCK_BYTES = 1 << 20
_BUFFER_BYTES = 1 << 16
# What `xz -9` asks for is 65 MiB; a file may ask for 4 GiB. The zstd library itself stops at a window of 128 MiB.
_XZ_MEMORY_BYTES = 256 << 20
# A tenth of random bytes, half of UTF-16 without a byte order mark, almost none of text.
MAX_CONTROLS, MAX_CONTROL_FRACTION = 8, 0.05
_CONTROL_BYTES = [byte for byte in range(32) if byte not in b"\t\n\v\f\r\x1b"]
SUFFIXES = (".gz", ".bz2", ".xz", ".zst")

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_NOT_TEXT = {
    b"%PDF-": "a PDF",
    b"PK\x03\x04": "a ZIP archive or office document",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
}


class ByteStream(Protocol):
    """A stream of up to `size` bytes per read, none at the end."""

    def read(self, size: int, /) -> bytes: ...


@contextmanager
def open_text_bytes(file: Path) -> Iterator[tuple[ByteStream, Callable[[], int]]]:
    """Opens a file, or standard input for `-`, as (decompressed stream, function that returns the stored bytes read).

    It is decompressed only as far as the caller reads: a decompression bomb costs time, not memory.

    Raises:
        UserError: the file cannot be read or is damaged. Errors met while the caller reads inside the `with` block
            are turned into the same.
    """
    with faults_named(file), _opened(file) as raw:
        counted = _Counted(raw)
        buffered = io.BufferedReader(counted, _BUFFER_BYTES)
        yield _decompressed(file, buffered.peek(8)[:8], buffered), counted.tell


@contextmanager
def faults_named(file: Path) -> Iterator[None]:
    """Turns the libraries' errors about an unreadable or damaged file into UserError with its name."""
    try:
        yield
    except MemoryError:  # says nothing about the file
        raise
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, pa.ArrowException) as error:
        raise _damaged(file, error) from error
    except OSError as error:
        # bz2 and pyarrow report damage as a plain OSError; the system's errors have a number.
        if error.errno is None:
            raise _damaged(file, error) from error
        raise UserError(
            f"{source_name(file)} cannot be read ({error.strerror})", remedy="Check the file and its permissions"
        ) from error


def _opened(file: Path) -> io.FileIO:
    if file == STANDARD_INPUT:
        return io.FileIO(0, closefd=False)
    return io.FileIO(file)


class _Counted(io.RawIOBase):
    """A file or pipe that counts the bytes read and fills every read, which a pipe alone does not."""

    def __init__(self, raw: io.FileIO) -> None:
        super().__init__()
        self._raw = raw
        self._read_bytes = 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._read_bytes

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(view) and (count := self._raw.readinto(view[filled:])):
            filled += count
        self._read_bytes += filled
        return filled


def read_blocks(stream: ByteStream) -> Iterator[bytes]:
    """The stream in blocks of exactly `BLOCK_BYTES`, the last one shorter."""
    while True:
        parts: list[bytes] = []
        wanted = BLOCK_BYTES
        while wanted and (part := stream.read(wanted)):
            parts.append(part)
            wanted -= len(part)
        if parts:
            yield b"".join(parts)
        if wanted:
            return


def refuse_other_formats(file: Path, start: bytes) -> None:
    """Raises UserError where the first (decompressed) bytes are of a format that is not text."""
    for magic, kind in _NOT_TEXT.items():
        if start.startswith(magic):
            raise UserError(
                f"{source_name(file)} is {kind}, not plain text", remedy="Convert it to plain text in UTF-8 first"
            )
    if start.startswith(_LFS_POINTER):
        raise UserError(
            f"{source_name(file)} is a pointer of Git LFS, and its content was not fetched",
            remedy="Fetch it with: git lfs pull",
        )
    if start[257:262] == b"ustar":
        raise UserError(f"{source_name(file)} is a tar archive, not plain text", remedy="Unpack it and name its folder")
    bytes_of = np.bincount(np.frombuffer(start, np.uint8), minlength=256)
    controls = int(bytes_of[_CONTROL_BYTES].sum())
    if controls > max(MAX_CONTROLS, MAX_CONTROL_FRACTION * len(start)):
        fraction = f"{controls / len(start):.0%} of its first bytes"
        raise UserError(
            f"{source_name(file)} is not plain text: {fraction} are control characters",
            remedy="Leave it out, convert it to plain text, or give `encoding` utf-16-le or utf-16-be if it is that",
        )


def _decompressed(file: Path, start: bytes, raw: BinaryIO) -> ByteStream:
    for magic, decompress in _DECOMPRESSORS.items():
        if start.startswith(magic):
            return cast(ByteStream, decompress(raw))
    if file.suffix.lower() in SUFFIXES:
        raise UserError(
            f"{file} is not a {file.suffix} file, despite its name",
            remedy="Download or compress it again, or take the suffix off if it is plain text",
        )
    return raw


class _XzStream:
    """Decompresses one or more xz streams; unlike `lzma.LZMAFile` within a memory limit."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._begin(b"")

    def _begin(self, compressed: bytes) -> None:
        self._decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)
        self._compressed = compressed

    def read(self, size: int, /) -> bytes:
        while True:
            if self._decompressor.eof:
                # Streams may be followed by padding of zeros.
                rest = self._decompressor.unused_data.lstrip(b"\0")
                while not rest:
                    if not (read := self._raw.read(_BUFFER_BYTES)):
                        return b""
                    rest = read.lstrip(b"\0")
                self._begin(rest)
            if self._decompressor.needs_input and not self._compressed:
                if not (read := self._raw.read(_BUFFER_BYTES)):
                    raise EOFError("the compressed data ends in the middle")
                self._compressed = read
            data = self._decompressor.decompress(self._compressed, size)
            self._compressed = b""
            if data:
                return data


# All of them read several concatenated streams, as parallel compressors write them.
_DECOMPRESSORS: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": lambda raw: gzip.GzipFile(fileobj=raw),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": _XzStream,
    b"\x28\xb5\x2f\xfd": lambda raw: pa.CompressedInputStream(raw, "zstd"),
}


def _damaged(file: Path, error: Exception) -> UserError:
    return UserError(
        f"{source_name(file)} is damaged or was cut short ({error})",
        remedy="Download or compress it again; nothing was written",
    )
