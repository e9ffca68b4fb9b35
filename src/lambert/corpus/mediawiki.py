"""MediaWiki XML exports, as Wikimedia publishes them: articles as paragraphs of prose.

Templates, tables, references, headings, files, categories and formulas go; the words of links stay. Redirects and pages
outside the article namespace are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.parsers import expat

from lambert.errors import UserError

if TYPE_CHECKING:
    from lambert.corpus.sources import ReadStatistics

PAGE_LIMIT_CHARACTERS = 10_000_000
"""A longer page is left out, and counted; MediaWiki itself allows 2 MB."""

_KEPT = {"ns", "text"}
_NOT_PROSE_TAGS = frozenset((
    "ref", "references", "gallery", "math", "table", "timeline", "score", "syntaxhighlight", "source", "code", "pre",
    "imagemap", "hiero", "chem",
))  # fmt: skip
_SWITCH = re.compile(r"__[A-Z]+__")
_EMPTY_BRACKETS = re.compile(r"\(\s*[,;:]*\s*\)")
_SPACE_BEFORE_SIGN = re.compile(r"\s+([,.;:!?])")
_LIST_MARKS = "*#:; "


def wiki_records(blocks: Iterable[bytes], file: Path, statistics: ReadStatistics) -> Iterator[list[str]]:
    """The articles of an export, each as paragraphs.

    Raises:
        UserError: mwparserfromhell is not installed, or the file is no MediaWiki export.
    """
    parse = _parser()
    pages = _Pages(file)
    for block in blocks:
        for text in pages.feed(block):
            if text is None:
                statistics.skip(file)
            elif paragraphs := prose(text, parse):
                statistics.lines += len(paragraphs)
                yield paragraphs
    pages.close()


def _parser() -> Any:
    try:
        import mwparserfromhell
    except ImportError as error:
        raise UserError(
            "a MediaWiki export needs mwparserfromhell, which is not installed",
            remedy='Install it: pip install "lambert[wiki]"',
        ) from error
    return mwparserfromhell.parse


class _Pages:
    """The wikitext of articles, one after another; what is held is one page."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._parser = expat.ParserCreate()
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._parser.EntityDeclHandler = self._refuse_entities
        self._parser.buffer_text = True
        self._depth = 0
        self._element = ""
        self._fields: dict[str, list[str]] = {}
        self._size = 0
        self._is_redirect = False
        self._found: list[str | None] = []

    def feed(self, block: bytes) -> list[str | None]:
        """Pages that end in this block; None for one that is too large."""
        self._parse(block, is_last=False)
        found, self._found = self._found, []
        return found

    def close(self) -> None:
        """The end of the file, which must be the end of the export."""
        self._parse(b"", is_last=True)

    def _parse(self, block: bytes, *, is_last: bool) -> None:
        try:
            self._parser.Parse(block, is_last)
        except expat.ExpatError as error:
            raise UserError(
                f"{self._file} is no whole XML file ({error})", remedy="Download it again, or leave it out"
            ) from error

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if self._depth == 0 and name != "mediawiki":
            raise UserError(
                f"{self._file} is XML, but no MediaWiki export: it begins with <{name}>",
                remedy="Convert it to plain text or JSON lines first",
            )
        self._depth += 1
        self._element = name
        if name == "page":
            self._fields = {kept: [] for kept in _KEPT}
            self._size, self._is_redirect = 0, False
        elif name == "redirect":
            self._is_redirect = True
        elif name == "text" and self._fields:
            self._fields["text"] = []  # of several revisions the last one stands

    def _characters(self, data: str) -> None:
        if self._element in _KEPT and self._fields:
            self._size += len(data)
            if self._size <= PAGE_LIMIT_CHARACTERS:
                self._fields[self._element].append(data)

    def _end(self, name: str) -> None:
        self._depth -= 1
        self._element = ""
        if name == "page":
            namespace, text = ("".join(self._fields[key]) for key in ("ns", "text"))
            if namespace.strip() in ("", "0") and not self._is_redirect:
                self._found.append(text if self._size <= PAGE_LIMIT_CHARACTERS else None)
            self._fields = {}

    def _refuse_entities(self, *_: Any) -> None:
        raise UserError(
            f"{self._file} declares entities of its own, which no MediaWiki export does", remedy="Leave it out"
        )


def prose(wikitext: str, parse: Any) -> list[str]:
    """The paragraphs of an article that are running text."""
    from mwparserfromhell import nodes

    code = parse(wikitext, skip_style_tags=False)
    text = "".join(_words(code.nodes, nodes))
    paragraphs = []
    for line in _SWITCH.sub("", text).splitlines():
        stripped = line.strip().lstrip(_LIST_MARKS)
        stripped = _SPACE_BEFORE_SIGN.sub(r"\1", _EMPTY_BRACKETS.sub("", " ".join(stripped.split())))
        if any(character.isalnum() for character in stripped):
            paragraphs.append(stripped)
    return paragraphs


def _words(found: Iterable[Any], nodes: Any) -> Iterator[str]:
    """What of a list of nodes is read aloud."""
    for node in found:
        if isinstance(node, nodes.Text):
            yield str(node.value)
        elif isinstance(node, nodes.HTMLEntity):
            yield node.normalize()
        elif isinstance(node, nodes.Wikilink):
            # A colon sets files, categories and other languages apart from articles.
            if ":" not in str(node.title):
                yield from _words((node.text or node.title).nodes, nodes)
        elif isinstance(node, nodes.ExternalLink):
            if node.title is not None:
                yield from _words(node.title.nodes, nodes)
        elif isinstance(node, nodes.Tag):
            name = str(node.tag).strip().lower()
            if name in ("br", "hr"):
                yield "\n"
            elif name in ("li", "dt", "dd") and node.wiki_markup:
                yield str(node.wiki_markup)
            elif name not in _NOT_PROSE_TAGS and node.contents is not None:
                yield from _words(node.contents.nodes, nodes)
