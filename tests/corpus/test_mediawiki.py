"""A MediaWiki export in the real format: articles as prose, and nothing else."""

from __future__ import annotations

import bz2
import sys
from pathlib import Path

import pytest

from lambert.corpus import mediawiki
from lambert.corpus.sources import TextReader
from lambert.errors import UserError

pytest.importorskip("mwparserfromhell")

ANNA = """{{Infobox person
| name = Anna {{nowrap|Adler}}
| born = {{birth date|1900|1|1}}
}}
'''Anna Adler''' (1900 &ndash; 1980) was a [[mathematics|mathematician]] from [[Vienna]].<ref name="a">{{cite
book|title=X}}</ref> She wrote ''one'' book<ref name="a" /> in 1920.

[[File:Anna.jpg|thumb|right|Anna in [[Paris]], 1921]]
== Life ==
She lived at the [https://example.org school of arts] &mdash; and {{lang|de|Wien}} was far. See http://example.org too.
* A first item of a list, long enough.
* A second item with a [[Link (word)|link]].
{| class="wikitable"
! Year !! Event
|-
| 1900 || born {{small|in a table}}
|}
<!-- an editor's note --> The formula <math>x^2</math> is short. <gallery>
File:x.jpg|A caption
</gallery>
[[de:Anna Adler]] [[Category:People]]
__NOTOC__
{{Reflist}}
<references />
"""
WANTED = [
    "Anna Adler (1900 – 1980) was a mathematician from Vienna. She wrote one book in 1920.",
    "She lived at the school of arts — and was far. See too.",
    "A first item of a list, long enough.",
    "A second item with a link.",
    "The formula is short.",
]


def page(title: str, text: str, *, namespace: int = 0, redirect: str = "") -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    redirect = f'<redirect title="{redirect}" />' if redirect else ""
    return f"""  <page>
    <title>{title}</title>
    <ns>{namespace}</ns>
    <id>12</id>
    {redirect}
    <revision>
      <id>1</id>
      <timestamp>2024-01-01T00:00:00Z</timestamp>
      <contributor><username>Somebody</username><id>7</id></contributor>
      <comment>a comment that is no text</comment>
      <model>wikitext</model>
      <format>text/x-wiki</format>
      <text bytes="{len(text)}" xml:space="preserve">{escaped}</text>
      <sha1>abc</sha1>
    </revision>
  </page>
"""


def export(*pages: str) -> bytes:
    return (
        """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="en">
  <siteinfo>
    <sitename>Wikipedia</sitename>
    <namespaces><namespace key="0" case="first-letter" /><namespace key="1">Talk</namespace></namespaces>
  </siteinfo>
"""
        + "".join(pages)
        + "</mediawiki>\n"
    ).encode()


def documents(file: Path) -> list[list[str]]:
    return [document.paragraphs for document in TextReader([file])]


def test_articles_become_prose(tmp_path: Path) -> None:
    file = tmp_path / "wiki.xml.bz2"
    pages = [
        page("Anna Adler", ANNA),
        page("Adler, Anna", "#REDIRECT [[Anna Adler]]", redirect="Anna Adler"),
        page("Talk:Anna Adler", "Is this right?", namespace=1),
        page("Vienna", "'''Vienna''' is a city &amp; more.\n\nIt lies on the [[Danube]]."),
        page("Empty", "{{stub}}"),
    ]
    # As Wikimedia publishes them: many compressed streams one after another.
    whole = export(*pages)
    file.write_bytes(bz2.compress(whole[:700]) + bz2.compress(whole[700:]))
    reader = TextReader([file])
    found = [document.paragraphs for document in reader]
    assert found[0] == WANTED
    assert found[1:] == [["Vienna is a city & more.", "It lies on the Danube."]]
    assert reader.statistics.parsers == {"MediaWiki XML": 1}


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_the_size_of_blocks_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr("lambert.corpus.compression.BLOCK_BYTES", size)
    file = tmp_path / "wiki.xml"
    file.write_bytes(export(page("Anna Adler", ANNA)))
    assert documents(file) == [WANTED]


def test_a_page_beyond_the_limit_is_left_out_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mediawiki, "PAGE_LIMIT_CHARACTERS", 100)
    file = tmp_path / "wiki.xml"
    file.write_bytes(export(page("Long", "word " * 50), page("Short", "A few words.")))
    reader = TextReader([file])
    assert [document.paragraphs for document in reader] == [["A few words."]]
    assert reader.statistics.skipped_records == {str(file): 1}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"<html><body>text</body></html>", r"no MediaWiki export: it begins with <html>"),
        (export(page("A", "text"))[:-30], "no whole XML file"),
        (b"<mediawiki><page><text>a</tex></page></mediawiki>", "no whole XML file"),
        (
            b'<!DOCTYPE m [<!ENTITY a "aaaa">]><mediawiki><page><ns>0</ns><text>&a;</text></page></mediawiki>',
            "entities",
        ),
    ],
)
def test_what_is_no_export_is_refused(tmp_path: Path, content: bytes, told: str) -> None:
    file = tmp_path / "wiki.xml"
    file.write_bytes(content)
    with pytest.raises(UserError, match=told):
        documents(file)


def test_without_the_parser_it_is_said_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mwparserfromhell", None)
    file = tmp_path / "wiki.xml"
    file.write_bytes(export(page("A", "text")))
    with pytest.raises(UserError, match=r"mwparserfromhell, which is not installed.*lambert\[wiki\]"):
        documents(file)
