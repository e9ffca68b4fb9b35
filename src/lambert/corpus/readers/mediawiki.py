"""MediaWiki's XML export, as Wikimedia publishes its wikis: an article is a document.

Format: https://www.mediawiki.org/wiki/Help:Export. Pages are streamed one at a time; only articles (namespace 0) that
are wikitext and no redirects are taken, of each its last revision.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from xml.parsers import expat

from lambert.corpus.readers.document import (
    Document,
    ReadStatistics,
    bounded_documents,
    paragraphs_of,
    source_name,
)
from lambert.errors import UserError

# MediaWiki itself keeps pages below 2 MiB.
PAGE_LIMIT_CHARACTERS = 4 << 20
# Tags of a dump have at most a few hundred bytes; the parser holds a tag until it is complete.
_TAG_LIMIT_BYTES = 8 << 20

# MediaWiki's titles have at most 255 bytes, and wikis some 40 namespaces; real exports are five elements deep.
_NAME_LIMIT_CHARACTERS, _NAMESPACE_LIMIT, _DEPTH_LIMIT = 1_000, 1_000, 100

# A comment ends at its first `-->` and is never tried again: the time is linear in the bytes.
_EXPORT_START = re.compile(
    rb"\s*(?:<\?xml[^>]{0,200}\?>\s*)?(?:<!--(?:(?!-->).){0,1000}+-->\s*)*+<(?:!DOCTYPE\s+)?mediawiki[\s>]", re.DOTALL
)
_REDIRECT = re.compile(r"\s*#redirect\b", re.IGNORECASE)
_ARTICLES, _MEDIA, _FILES, _CATEGORIES = 0, -2, 6, 14


def is_export(start: bytes) -> bool:
    """Whether a stream that begins with these bytes, decompressed, is a MediaWiki export."""
    return _EXPORT_START.match(start[:4096]) is not None


def check_installed() -> None:
    """Raises UserError where the parser of MediaWiki's markup, an extra, is missing."""
    if find_spec("mwparserfromhell") is None:
        raise UserError(
            "MediaWiki exports need the package mwparserfromhell, which is not installed",
            remedy="Install it with: pip install 'lambert-bert[wiki]'",
        )


def documents(file: Path, blocks: Iterator[bytes], statistics: ReadStatistics) -> Iterator[Document]:
    """A document per article that has prose.

    Pages that cannot be parsed (longer than any wiki allows, or refused by the parser) are counted as skipped.

    Raises:
        UserError: the XML is damaged, cut short or declares entities; or mwparserfromhell is not installed.
    """
    check_installed()
    from lambert.corpus.readers.wikitext import WikitextError, prose_of

    for page in _pages(file, blocks):
        statistics.lines += 1
        if not page.is_article:
            continue
        if page.text is None:
            statistics.skip(file, f"page {page.title!r}", f"longer than {PAGE_LIMIT_CHARACTERS:,} characters")
            continue
        try:
            prose = prose_of(page.text, hidden_namespaces=page.site.hidden_namespaces)
        except WikitextError as error:
            statistics.skip(file, f"page {page.title!r}", str(error))
            continue
        paragraphs = (piece for paragraph in prose for piece in paragraphs_of(paragraph, statistics))
        yield from bounded_documents(file, paragraphs, statistics)


_KEY = re.compile(r"-?[0-9]{1,9}")
"""The number of a namespace."""


@dataclass
class _Site:
    """The header of an export."""

    names: dict[int, str] = field(default_factory=dict)  # of the namespaces, in the wiki's language

    @property
    def hidden_namespaces(self) -> frozenset[str]:
        """Lower-case names of the namespaces whose links are not part of a sentence."""
        local = (self.names.get(key, "") for key in (_MEDIA, _FILES, _CATEGORIES))
        return frozenset({"media", "file", "image", "category", *(name.lower() for name in local if name)})


@dataclass
class _Page:
    site: _Site
    title: str = ""
    namespace: str = ""
    model: str = "wikitext"
    is_redirect: bool = False
    text: str | None = ""

    @property
    def is_article(self) -> bool:
        if self.is_redirect or self.model != "wikitext" or (self.text is not None and _REDIRECT.match(self.text)):
            return False
        if self.namespace:
            return self.namespace == str(_ARTICLES)
        # Exports from before 2012 have no namespace field; the title has a prefix.
        prefix = self.title.split(":", 1)[0] if ":" in self.title else None
        return prefix not in [name for name in self.site.names.values() if name]


def _pages(file: Path, blocks: Iterator[bytes]) -> Iterator[_Page]:
    export = _Export(file)
    fed_bytes = 0
    try:
        for block in blocks:
            fed_bytes += len(block)
            export.parser.Parse(block, False)
            if fed_bytes - export.parser.CurrentByteIndex > _TAG_LIMIT_BYTES:
                raise _damaged(file, "a tag without end")
            yield from export.take_pages()
        export.parser.Parse(b"", True)
        yield from export.take_pages()
    except expat.ExpatError as error:
        raise _damaged(file, str(error)) from error


def _damaged(file: Path, said: str) -> UserError:
    return UserError(
        f"{source_name(file)} is damaged or was cut short ({said})",
        remedy="Download it again; do not repair a truncated file by hand",
    )


class _Export:
    """Collects pages from the events of the XML parser."""

    _HELD = ("title", "ns", "model", "text", "namespace")

    def __init__(self, file: Path) -> None:
        self._file = file
        self._site = _Site()
        self._page: _Page | None = None
        self._pages: list[_Page] = []
        self._parts: list[str] | None = None
        self._characters = 0
        self._depth, self._held = 0, ""
        self._key = 0
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.buffer_size = 1 << 16
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters_met
        # Expanding entities need a document type, which no export has.
        self.parser.StartDoctypeDeclHandler = self._refuse_document_type

    def take_pages(self) -> list[_Page]:
        """The pages complete by now."""
        pages, self._pages = self._pages, []
        return pages

    def _refuse_document_type(self, *_: object) -> None:
        raise UserError(
            f"{source_name(self._file)} declares a document type, which MediaWiki's exports do not",
            remedy="Take the file from where the wiki publishes it",
        )

    def _namespace_key(self, text: str) -> int:
        if not _KEY.fullmatch(text):
            raise _damaged(self._file, f"a namespace with the key {text[:20]!r}, not a number")
        return int(text)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > _DEPTH_LIMIT:  # the parser keeps the name of every open element
            raise _damaged(self._file, f"elements {_DEPTH_LIMIT} deep")
        if name == "page":
            self._page = _Page(self._site)
        elif name == "redirect" and self._page is not None:
            self._page.is_redirect = True
        elif name in self._HELD:
            self._parts, self._characters, self._held = [], 0, name
            if name == "namespace":
                self._key = self._namespace_key(attributes.get("key", "0"))

    def _characters_met(self, text: str) -> None:
        if self._parts is not None:
            self._characters += len(text)
            if self._held != "text" and self._characters > _NAME_LIMIT_CHARACTERS:
                raise _damaged(self._file, f"a {self._held} of more than {_NAME_LIMIT_CHARACTERS:,} characters")
            if self._characters <= PAGE_LIMIT_CHARACTERS:
                self._parts.append(text)
            else:
                self._parts.clear()

    def _end(self, name: str) -> None:
        self._depth -= 1
        if name == "page" and self._page is not None:
            self._pages.append(self._page)
            self._page = None
        elif name in self._HELD and self._parts is not None:
            text = "".join(self._parts) if self._characters <= PAGE_LIMIT_CHARACTERS else None
            self._parts = None
            self._take(name, text)

    def _take(self, name: str, text: str | None) -> None:
        page = self._page
        if name == "namespace":
            self._site.names[self._key] = text or ""
            if len(self._site.names) > _NAMESPACE_LIMIT:
                raise _damaged(self._file, f"more than {_NAMESPACE_LIMIT:,} namespaces")
        elif page is None:
            return
        elif name == "text":
            page.text = text
        elif name == "title":
            page.title = text or ""
        elif name == "ns":
            page.namespace = (text or "").strip()
        elif name == "model":
            page.model = text or ""
