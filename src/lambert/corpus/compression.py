"""Plain and compressed files as one kind of byte stream, known by their first bytes, not by name."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import numpy as np
import pyarrow as pa

from lambert.errors import UserError

BLOCK_BYTES = 1 << 20
# Random bytes hold a tenth of them, UTF-16 without a mark a half; text has next to none.
MOST_CONTROLS, MOST_CONTROL_SHARE = 8, 0.05
_CONTROL_BYTES = [byte for byte in range(32) if byte not in b"\t\n\v\f\r\x1b"]
SUFFIXES = (".gz", ".bz2", ".xz", ".zst")

_MAGIC = {".gz": b"\x1f\x8b", ".bz2": b"BZh", ".xz": b"\xfd7zXZ\x00", ".zst": b"\x28\xb5\x2f\xfd"}
_NOT_TEXT = {
    b"%PDF-": "a PDF",
    b"PK\x03\x04": "a ZIP archive or office document",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
}


class ByteStream(Protocol):
    """What the readers need of a stream: up to `size` bytes at a time, none at the end."""

    def read(self, size: int, /) -> bytes: ...


@contextmanager
def open_text_bytes(file: Path) -> Iterator[tuple[ByteStream, BinaryIO]]:
    """Opens a file as (decompressed stream, the file itself, whose place tells how much of it was used).

    Raises:
        UserError: the file cannot be read, is damaged, or is of a kind that holds no plain text. Errors met
            while the caller reads inside the `with` block are turned into the same.
    """
    try:
        with file.open("rb") as raw:
            start = raw.read(8)
            raw.seek(0)
            yield _decompressed(file, start, raw), raw
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, pa.ArrowException) as error:
        raise _damaged(file, error) from error
    except OSError as error:
        # bz2 and pyarrow report damage as a plain OSError; the system's own errors carry a number.
        if error.errno is None:
            raise _damaged(file, error) from error
        raise UserError(
            f"{file} cannot be read ({error.strerror})", remedy="Check the file and its permissions"
        ) from error


def read_blocks(stream: ByteStream) -> Iterator[bytes]:
    """The stream in blocks of exactly `BLOCK_BYTES`, the last one shorter; short reads are filled up."""
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
    """Raises UserError where the first (decompressed) bytes are those of a format that is not text."""
    for magic, kind in _NOT_TEXT.items():
        if start.startswith(magic):
            raise UserError(f"{file} is {kind}, not plain text", remedy="Convert it to plain text in UTF-8 first")
    if start[257:262] == b"ustar":
        raise UserError(f"{file} is a tar archive, not plain text", remedy="Unpack it and name its folder")
    bytes_of = np.bincount(np.frombuffer(start, np.uint8), minlength=256)
    controls = int(bytes_of[_CONTROL_BYTES].sum())
    if controls > max(MOST_CONTROLS, MOST_CONTROL_SHARE * len(start)):
        raise UserError(
            f"{file} is not plain text: {controls / len(start):.0%} of its first bytes are control characters",
            remedy="Leave it out, or convert it to plain text in UTF-8 first",
        )


def _decompressed(file: Path, start: bytes, raw: BinaryIO) -> ByteStream:
    for suffix, magic in _MAGIC.items():
        if start.startswith(magic):
            return _open_as(suffix, raw)
    if file.suffix.lower() in SUFFIXES:
        raise UserError(
            f"{file} is not a {file.suffix} file, whatever its name says",
            remedy="Download or compress it again, or take the suffix off if it is plain text",
        )
    return raw


def _open_as(suffix: str, raw: BinaryIO) -> ByteStream:
    # All of them read files of several streams, as parallel compressors write them, to the end.
    if suffix == ".gz":
        return cast(ByteStream, gzip.GzipFile(fileobj=raw))
    if suffix == ".bz2":
        return cast(ByteStream, bz2.BZ2File(raw))
    if suffix == ".xz":
        return cast(ByteStream, lzma.LZMAFile(raw))
    return cast(ByteStream, pa.CompressedInputStream(raw, "zstd"))


def _damaged(file: Path, error: Exception) -> UserError:
    return UserError(
        f"{file} is damaged or was cut short ({error})",
        remedy="Download or compress it again; nothing was written",
    )
