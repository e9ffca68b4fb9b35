"""Blocks of bytes in any encoding as blocks of UTF-8: a byte order mark, the caller or a detection says which it is."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from lambert.corpus.readers.document import ReadStatistics, source_name
from lambert.errors import UserError

MAX_REPLACED_FRACTION = 1e-2
"""Of a file's bytes: a file with more that are not UTF-8 and in no certain encoding is refused."""
STRAY_BYTES = 8
"""So many are never refused."""

# Longest first: the mark of UTF-16 begins that of UTF-32.
_MARKS = (
    (codecs.BOM_UTF8, "utf_8"),
    (codecs.BOM_UTF32_LE, "utf_32"),
    (codecs.BOM_UTF32_BE, "utf_32"),
    (codecs.BOM_UTF16_LE, "utf_16"),
    (codecs.BOM_UTF16_BE, "utf_16"),
)
# Escapes that only ISO-2022-JP begins Japanese text with; all of its bytes are ASCII.
_JAPANESE_ESCAPES = (b"\x1b$B", b"\x1b$@")
_CANDIDATES = (
    "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258", "koi8_r", "koi8_u",
    "iso8859_2", "iso8859_5", "iso8859_7", "iso8859_9", "iso8859_15", "cp866", "cp850", "cp852", "cp437", "mac_roman",
    "cp874", "gb18030", "big5", "cp932", "euc_jp", "cp949",
)  # fmt: skip
"""Encodings that text of before UTF-8 is found in; the detection tells no others apart."""
_NO_CHARACTERS = ("idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "oem")

# Coherence (letters as frequent as in a language) less chaos (what no language writes), both 0 to 1. In 28 files of 14
# languages all 20 answers that led by .1 over every other reading were right, and two of the other eight.
_LEAST_LEAD = 0.1
_LEAST_COHERENCE = {True: 0.1, False: 0.25}
"""By whether a character may take several bytes: other bytes are then rarely valid, and there are many letters."""
_SEVERAL_BYTES = ("gb18030", "big5", "cp932", "euc_jp", "cp949")
_SAMPLE_BYTES = 1 << 16
_NAMES_SHOWN = 4
_MISREAD_AS = ("cp1252", "cp1251", "mac_roman", "cp437")
# cp1252 names 27 of the 32 control characters of Latin-1; programs read the other five as these.
_BYTE_OF = {
    ord(bytes([byte]).decode("cp1252")): byte for byte in range(128, 160) if byte not in b"\x81\x8d\x8f\x90\x9d"
}
_MISREAD_FRACTION, _FEWEST_MISREAD = 0.5, 3
"""Of the lines beyond ASCII, from so many on: the file is refused where more of them were misread."""
_CHARACTERS_SHOWN = 24


def check_encoding(name: str | None) -> str | None:
    """Python's name of an encoding; None for None.

    Raises:
        UserError: there is no such encoding of text.
    """
    if name is None:
        return None
    try:
        known = codecs.lookup(name).name.replace("-", "_")
        b"a".decode(name, "ignore")
    except (LookupError, ValueError, UnicodeError, OSError):
        known = ""
    if not known or known in _NO_CHARACTERS:
        raise UserError(
            f"`encoding` is {name!r}, which is no encoding of text",
            remedy="Give a name such as cp1252, cp1251, koi8-r, gb18030, shift_jis or utf-16",
        )
    return known


def as_utf8(file: Path, blocks: Iterator[bytes], statistics: ReadStatistics, given: str | None) -> Iterator[bytes]:
    """The blocks in UTF-8 without a byte order mark.

    Blocks that are UTF-8 pass unchanged. From the first that is not, the rest is decoded: by the byte order mark, else
    as `given`, else as detected where one encoding fits plainly better than all others. What was taken is noted in
    `statistics.encodings`. A few stray bytes pass too, and the readers replace and count them.

    Raises:
        UserError: more than `MAX_REPLACED_FRACTION` of a block are not UTF-8, and no encoding is certain; or most of
            the text was made by reading UTF-8 as something else, and `given` is None.
    """
    start = next(blocks, b"")
    mark, encoding = _mark(start)
    if encoding == "utf_8":
        start, encoding = start[len(mark) :], ""
    elif not encoding and given is not None and not _extends_ascii(given):
        encoding = given
    elif not encoding and any(escape in start for escape in _JAPANESE_ESCAPES):
        encoding = "iso2022_jp"
    before, is_checked = b"", given is not None or bool(encoding)
    decoder: codecs.IncrementalDecoder | None = None
    for block in chain([start], blocks):
        if decoder is None and not encoding and _is_foreign(block, before):
            encoding = given or _detected(file, block)
        elif not is_checked and not block.isascii():
            _refuse_misread(file, block)
            is_checked = True
        if encoding:
            if decoder is None:
                decoder = codecs.getincrementaldecoder(encoding)("replace")
                statistics.encodings[str(file)] = encoding
            yield _decoded(decoder, block, file, statistics)
        else:
            yield block
        before = block[-1:] or before
    if decoder is not None and (rest := _decoded(decoder, b"", file, statistics, final=True)):
        yield rest


def is_recoded(start: bytes, given: str | None) -> bool:
    """Whether text that begins with these bytes is in an encoding that ASCII is no part of."""
    return _mark(start)[1] not in ("", "utf_8") or (given is not None and not _extends_ascii(given))


def _mark(start: bytes) -> tuple[bytes, str]:
    return next(((mark, name) for mark, name in _MARKS if start.startswith(mark)), (b"", ""))


def refuse_replaced(file: Path, statistics: ReadStatistics, size: int) -> None:
    """Raises UserError where more than a few of a file's `size` bytes were not UTF-8."""
    replaced = statistics.replaced_bytes.get(str(file), 0)
    if replaced > max(STRAY_BYTES, MAX_REPLACED_FRACTION * size):
        encoding = statistics.encodings.get(str(file), "UTF-8")
        raise UserError(
            f"{replaced:,} of the {size:,} bytes of {source_name(file)} are not {encoding}",
            remedy="Convert it to UTF-8, or give `encoding` utf-8 to go on without them",
        )


def _decoded(
    decoder: codecs.IncrementalDecoder, block: bytes, file: Path, statistics: ReadStatistics, *, final: bool = False
) -> bytes:
    try:
        text = decoder.decode(block, final)
    except UnicodeError as error:  # UTF-16 that does not begin with a mark, where one is needed
        raise UserError(f"{source_name(file)} cannot be decoded ({error})", remedy="Give another `encoding`") from None
    if replaced := text.count("\ufffd"):
        statistics.replaced_bytes[str(file)] = statistics.replaced_bytes.get(str(file), 0) + replaced
    return text.encode("utf-8", "replace")


def _extends_ascii(encoding: str) -> bool:
    """Whether ASCII text is the same in it, and all other characters have bytes beyond ASCII."""
    every = bytes(range(128))
    return every.decode(encoding, "replace") == every.decode() and not encoding.startswith(("iso2022", "hz", "utf_7"))


def not_utf8(block: bytes) -> int:
    """Bytes that are not part of UTF-8."""
    try:
        block.decode()
    except UnicodeDecodeError:
        text = block.decode("utf-8", "surrogateescape")
        return int((np.frombuffer(text.encode("utf-16-le", "surrogatepass"), "<u2") >> 7 == 0xDC80 >> 7).sum())
    return 0


def _is_foreign(block: bytes, before: bytes) -> bool:
    """Whether most of the bytes beyond ASCII are not UTF-8; characters cut by the ends of the block do not count.

    Args:
        before: the last byte of the block before.
    """
    wrong = not_utf8(block)
    if not wrong:
        return False
    cut = 3 * (not before.isascii()) + 3 * (not block[-1:].isascii())
    beyond = int((np.frombuffer(block, np.uint8) >= 0x80).sum())
    return wrong > cut and 2 * wrong > beyond


def _detected(file: Path, block: bytes) -> str:
    """The encoding of a block; "" where only a few bytes are not UTF-8 and none is certain.

    Raises:
        UserError: none is certain; the likely ones are named.
    """
    ranked = likely_encodings(block)
    lead = ranked[0][2] - ranked[1][2] if len(ranked) > 1 else 1.0
    if ranked and lead >= _LEAST_LEAD and ranked[0][1] >= _LEAST_COHERENCE[ranked[0][0] in _SEVERAL_BYTES]:
        return ranked[0][0]
    if not_utf8(block) <= max(STRAY_BYTES, MAX_REPLACED_FRACTION * len(block)):
        return ""
    close = {name: _seen_as(block, name) for name, _, score in ranked if score > ranked[0][2] - _LEAST_LEAD}
    # KOI8-R turns the case of what cp1251 reads, and most text is in small letters.
    names = sorted(list(close)[:_NAMES_SHOWN], key=lambda name: (_is_upper(close[name]), _CANDIDATES.index(name)))
    shown = " or ".join(f"{name} ({close[name]!r})" for name in names)
    raise UserError(
        f"{source_name(file)} is not UTF-8" + (f"; it may be {shown}" if names else ""),
        remedy=f"Give its `encoding`, such as {names[0] if names else _CANDIDATES[0]}, or convert it",
    )


def _seen_as(block: bytes, encoding: str) -> str:
    """The start of the first line beyond ASCII, from a word on."""
    line = next(line for line in block.split(b"\n") if not line.isascii())
    words = line.decode(encoding, "replace").split()
    first = next(index for index, word in enumerate(words) if not word.isascii())
    return " ".join(words[first:])[:_CHARACTERS_SHOWN]


def _is_upper(text: str) -> bool:
    return sum(map(str.isupper, text)) > sum(map(str.islower, text))


def likely_encodings(block: bytes) -> list[tuple[str, float, float]]:
    """(name, coherence, coherence less chaos) of each reading of the lines beyond ASCII, the best first."""
    from charset_normalizer import from_bytes

    found = from_bytes(b"\n".join(_lines_beyond_ascii(block)), cp_isolation=list(_CANDIDATES), threshold=0.3)
    readings: dict[str, tuple[str, float, float]] = {}
    for match in found:
        readings.setdefault(str(match), (match.encoding, match.coherence, match.coherence - match.chaos))
    return sorted(readings.values(), key=lambda reading: -reading[2])


def _lines_beyond_ascii(block: bytes) -> list[bytes]:
    """The first of them."""
    lines, size = [], 0
    for line in block[: block.rfind(b"\n") + 1 or None].split(b"\n"):
        if size < _SAMPLE_BYTES and not line.isascii():
            lines.append(_whole(line))
            size += len(line)
    return lines


def _refuse_misread(file: Path, block: bytes) -> None:
    """Raises UserError for text such as "cafÃ©": UTF-8 that was read in an encoding of one byte, and written again."""
    lines = [line.decode("utf-8", "replace") for line in _lines_beyond_ascii(block)]
    for encoding in _MISREAD_AS:
        undone = [text for line in lines if (text := _undone(line, encoding)) is not None]
        if len(undone) >= _FEWEST_MISREAD and len(undone) > _MISREAD_FRACTION * len(lines):
            seen, meant = (_seen_as(line.encode(), "utf_8") for line in (lines[0], undone[0]))
            raise UserError(
                f"{source_name(file)} is UTF-8 that was taken for {encoding} and encoded once more: {seen!r}, where "
                f"it once said {meant!r}",
                remedy="Undo it (the package ftfy does), or give `encoding` utf-8 to learn it as it is",
            )


def _undone(line: str, encoding: str) -> str | None:
    """The line in UTF-8 that gives this one when it is read in an encoding of one byte; None where there is none."""
    try:
        if encoding == "cp1252":
            return line.translate(_BYTE_OF).encode("latin_1").decode()
        return line.encode(encoding).decode()
    except UnicodeError:
        return None


def _whole(line: bytes) -> bytes:
    """A line of bounded length that ends with a whole character, as it does where the next byte is a space."""
    return line if len(line) <= _SAMPLE_BYTES else line[: line.rfind(b" ", 0, _SAMPLE_BYTES) + 1 or _SAMPLE_BYTES]
