"""Which parser reads a file: its first bytes where they leave no doubt, else its name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lambert.corpus.compression import SUFFIXES, refuse_other_formats
from lambert.corpus.readers import json_lines, parquet, plain_text, separated_values, wikiextractor
from lambert.corpus.readers.document import STANDARD_INPUT, source_name
from lambert.errors import UserError

PLAIN_TEXT, JSON_LINES, PARQUET = "plain text", "JSON lines", "Parquet"
CSV, TSV = "CSV", "TSV"
MEDIAWIKI_XML, WIKIEXTRACTOR, HUGGING_FACE = "MediaWiki XML", "WikiExtractor", "Hugging Face datasets"
TEXT_FORMATS = {
    "auto": "", "text": PLAIN_TEXT, "jsonl": JSON_LINES, "csv": CSV, "tsv": TSV, "wikiextractor": WIKIEXTRACTOR,
}  # fmt: skip
"""Values of `text_format` → the parser; Parquet and MediaWiki's exports show themselves."""
PARSERS: dict[str, Callable[..., Any]] = {
    PLAIN_TEXT: plain_text.documents,
    JSON_LINES: json_lines.documents,
    CSV: separated_values.documents,
    TSV: separated_values.tabbed_documents,
    WIKIEXTRACTOR: wikiextractor.documents,
}

_JSON_ENDINGS = (".jsonl", ".ndjson", ".json", ".jsonlines")
# An object with a key; prose never begins like this. The reader of JSON lines says what to do with lists.
_JSON_START = re.compile(rb'\s*+(?:\[\s*+)?\{\s*+"(?:[^"\\]|\\.){0,200}+"\s*+:')
_COMMENTS = rb"(?:<!--(?:(?!-->).){0,1000}+-->\s*+)*+"
_MARKUP_STARTS = {
    "HTML": re.compile(
        rb"\s*+(?:<\?xml[^>]{0,200}\?>\s*+)?" + _COMMENTS + rb"<(?:!doctype\s|(?:html|head|body)\b)", re.I | re.S
    ),
    "XML": re.compile(rb"\s*+<\?xml\s"),
    "RTF": re.compile(rb"\s*+\{\\rtf\d"),
    "LaTeX": re.compile(rb"(?:\s*+%[^\n]*+\n)*+\s*+\\document(?:class|style)\b"),
    "PostScript": re.compile(rb"%!PS"),
    "a web archive (WARC)": re.compile(rb"WARC/\d"),
    "subtitles": re.compile(rb"\s*+(?:WEBVTT\b|\d{1,9}\s*+\d\d:\d\d:\d\d[,.]\d{3} --> )"),
    "a mailbox": re.compile(
        rb"From \S{1,200}+ +(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)\b"
        rb"|(?:Return-Path|Received|Delivered-To|Message-ID|MIME-Version|Xref|Newsgroups):",
        re.I,
    ),
    "a dump of a database": re.compile(rb"-- (?:MySQL|MariaDB|PostgreSQL|phpMyAdmin)\b|--\n-- PostgreSQL\b"),
    "a catalogue of translations": re.compile(rb'(?:#[^\n]*+\n|\s)*+msgid "'),
    "a bibliography": re.compile(rb"\s*+@(?:article|book|inproceedings|misc|comment|string)\s*+[{(]", re.I),
    "annotated tokens": re.compile(rb"-DOCSTART-"),
    "YAML": re.compile(rb"%YAML\b"),
}
_TAG = re.compile(
    rb"</[A-Za-z][\w:-]{0,30}>|<(?:p|br|hr|div|li|td|tr)\b[^<>]{0,200}>"
    rb"|&(?:[A-Za-z][A-Za-z\d]{1,15}|#\d{1,7}|#[xX][\dA-Fa-f]{1,6});"
)
_SEEN_BYTES, _FEWEST_TAGS, _BYTES_PER_TAG = 1 << 16, 10, 300
_YAML_LINE = re.compile(rb"(?:- |[ ]{2,}+)(?:- )?+[\w.-]{1,60}+:(?:\s|$)")
_FEWEST_LINES, _MOST_LINES = 10, 0.9
"""A file of at least so many lines is a table or a list where so many of them have its form."""


def parser_of(file: Path, start: bytes, text_format: str = "auto") -> str:
    """The parser for a file by its first decompressed bytes and its name.

    Args:
        text_format: a key of `TEXT_FORMATS`; all but `auto` decide for files of text.

    Raises:
        UserError: the bytes are of an unsupported format, or not of the one in the name.
    """
    refuse_bytes(file, start)
    if text_format != "auto":
        return TEXT_FORMATS[text_format]
    if wikiextractor.is_output(start):
        return WIKIEXTRACTOR
    name = file.name.lower()
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    if name.endswith(separated_values.ENDINGS):
        return CSV if name.endswith(".csv") else TSV
    if name.endswith(_JSON_ENDINGS) or _JSON_START.match(start):
        return JSON_LINES
    if name.endswith((".xml", ".parquet")) and start:
        kind = "a MediaWiki export" if name.endswith(".xml") else "a Parquet file"
        raise UserError(
            f"{source_name(file)} is not {kind}, despite its name",
            remedy="Leave it out, or convert it to plain text or JSON lines",
        )
    _refuse_markup(file, start)
    return PLAIN_TEXT


def refuse_bytes(file: Path, start: bytes) -> None:
    """Raises UserError where the first bytes are not of text."""
    if start.startswith(parquet.MAGIC):
        raise UserError(
            f"{source_name(file)} is Parquet {'by way of' if file == STANDARD_INPUT else 'within'} a stream",
            remedy="Name the Parquet file itself, not compressed: it is read from its end",
        )
    if start:
        refuse_other_formats(file, start)


def check_format(text_format: str, *, joins_lines: bool, has_sentences: bool) -> None:
    """Raises UserError for what is no format, and for lines that are sentences and parts of one."""
    if joins_lines and has_sentences:
        raise UserError("`join_lines` with `one_sentence_per_line`", remedy="Give one of them")
    if text_format not in TEXT_FORMATS:
        raise UserError(f"`text_format` is {text_format!r}", remedy=f"Choose one of {', '.join(TEXT_FORMATS)}")


def _refuse_markup(file: Path, start: bytes) -> None:
    """Raises UserError for formats whose marks would become training text."""
    head = start[:_SEEN_BYTES]
    kind = next((kind for kind, pattern in _MARKUP_STARTS.items() if pattern.match(head[: 1 << 13])), _form_of(head))
    if not kind:
        return
    raise UserError(
        f"{source_name(file)} is {kind}, not plain text",
        remedy="Convert it to plain text or JSON lines, or give `text_format` text to learn the marks too",
    )


def _form_of(head: bytes) -> str:
    """What the lines of a file are, if their form repeats and is none of text; else ""."""
    lines = [stripped for line in head.splitlines() if (stripped := line.strip()) and not stripped.startswith(b"#")]
    if len(lines) >= _FEWEST_LINES:
        most = _MOST_LINES * len(lines)
        tabs, count = Counter(line.count(b"\t") for line in lines).most_common(1)[0]
        if tabs and count >= most:
            return f"a table ({tabs + 1} columns with tabs between in its first {len(lines):,} lines)"
        if sum(1 for line in head.splitlines() if _YAML_LINE.match(line)) >= most:
            return "YAML"
    tags = sum(1 for _ in _TAG.finditer(head))
    if tags >= _FEWEST_TAGS and tags * _BYTES_PER_TAG >= len(head):
        return f"text with markup ({tags:,} tags or entities in its first {len(head):,} bytes)"
    return ""
