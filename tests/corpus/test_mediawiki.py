"""Small dumps in the real export format, written here: https://www.mediawiki.org/wiki/Help:Export"""

from __future__ import annotations

import bz2
import signal
import sys
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from lambert.corpus.formats import MEDIAWIKI_XML
from lambert.corpus.readers import mediawiki, plain_text, wikitext
from lambert.corpus.sources import TextReader, find_files
from lambert.errors import UserError

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" \
xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" \
xsi:schemaLocation="http://www.mediawiki.org/xml/export-0.11/ http://www.mediawiki.org/xml/export-0.11.xsd" \
version="0.11" xml:lang="de">
  <siteinfo>
    <sitename>Wikipedia</sitename>
    <dbname>dewiki</dbname>
    <base>https://de.wikipedia.org/wiki/Wikipedia:Hauptseite</base>
    <generator>MediaWiki 1.45.0</generator>
    <case>first-letter</case>
    <namespaces>
      <namespace key="-2" case="first-letter">Medium</namespace>
      <namespace key="0" case="first-letter" />
      <namespace key="1" case="first-letter">Diskussion</namespace>
      <namespace key="6" case="first-letter">Datei</namespace>
      <namespace key="10" case="first-letter">Vorlage</namespace>
      <namespace key="14" case="first-letter">Kategorie</namespace>
    </namespaces>
  </siteinfo>
"""


def page(title: str, *texts: str, namespace: int | None = 0, redirect: str = "", model: str = "wikitext") -> str:
    """A page with a revision for each text, oldest first."""
    lines = [f"    <title>{escape(title)}</title>"]
    lines += [] if namespace is None else [f"    <ns>{namespace}</ns>"]
    lines += ["    <id>17</id>"] + ([f'    <redirect title="{escape(redirect)}" />'] if redirect else [])
    for number, text in enumerate(texts):
        lines.append(
            f"    <revision>\n      <id>{number}</id>\n      <timestamp>2025-01-0{number + 1}T00:00:00Z</timestamp>\n"
            "      <contributor>\n        <username>Somebody</username>\n        <id>5</id>\n      </contributor>\n"
            f"      <comment>not text</comment>\n      <model>{model}</model>\n      <format>text/x-wiki</format>\n"
            f'      <text bytes="{len(text.encode())}" sha1="x" xml:space="preserve">{escape(text)}</text>\n'
            "      <sha1>x</sha1>\n    </revision>"
        )
    return "  <page>\n" + "\n".join(lines) + "\n  </page>\n"


def dump(*pages: str) -> bytes:
    return (HEAD + "".join(pages) + "</mediawiki>\n").encode()


@pytest.mark.parametrize("key", ["x", "", "9" * 5_000])
def test_a_namespace_whose_key_is_no_number_is_refused(tmp_path: Path, key: str) -> None:
    file = tmp_path / "wiki.xml"
    file.write_bytes(dump(page("A", "Hello.")).replace(b'key="14"', f'key="{key}"'.encode()))
    with pytest.raises(UserError, match="namespace with the key .*, not a number"):
        read(file)


def read(file: Path) -> list[list[str]]:
    return [document.paragraphs for document in TextReader([file])]


def prose(tmp_path: Path, wikitext: str) -> list[str]:
    """The paragraphs of an article of this markup; a first one is put before it, so that none is no failure."""
    file = tmp_path / "page.xml"
    file.write_bytes(dump(page("Title", f"First one.\n\n{wikitext}")))
    ((first, *others),) = read(file)
    assert first == "First one."
    return others


ARTICLE = """{{Short description|A town}}
{{Infobox settlement
| name  = {{nowrap|'''Ober'''stadt}}
| image = [[Datei:Oberstadt.jpg|thumb|Caption of [[stone]].]]
| area  = {{convert|{{#expr: 3 + 4}}|km2|mi2}}
}}
[[Datei:Karte.svg|mini|hochkant=1.2|A map with a [[link]] and a ref.<ref>In a caption.</ref>]]
'''Oberstadt''' ({{IPA|de|ˈoːbɐʃtat}}; {{lang|la|Urbs superior}}) is a ''[[Town#Germany|town]]'' on the
[[River Lahn|Lahn]].<ref name="a">{{cite web |url=http://example.org |title=A [[link]]}}</ref> It lies \
{{convert|3|km}} from [[Marburg]]<!-- not
shown -->'s castle.<ref name="a" />{{citation needed|date=May 2020}}

== History ==
{{Main|History of Oberstadt}}
The town was founded in 1222&nbsp;by [https://example.org/hessen the Landgrave], see https://example.org/x. It grew.

=== Population ===
{| class="wikitable sortable"
! Year !! People
|-
| 1900 || {{formatnum:1000}} [[people]]
|-
| 1950 ||
{| class="inner"
| nested table in a cell.
|}
|}
After the table comes a sentence.
* A [[list]] item.
** A nested one.
# Numbered.
; Term: definition
: An indented remark.
<gallery mode="packed">
Datei:A.jpg|A caption.
</gallery>
<blockquote>Quoted text stands alone.</blockquote>
The area is <math>\\pi r^2</math>, <nowiki>quite</nowiki> round, and \
H<sub>2</sub>O is <small>wet</small>.<br />Next.

== Weblinks ==
<references />
* [http://example.org Site]
__NOTOC__ {{DEFAULTSORT:Oberstadt}}
[[Kategorie:Towns]]
[[Category:Towns]]
[[en:Upper town]]
"""

PARAGRAPHS = [
    "Oberstadt (Urbs superior) is a town on the Lahn. It lies 3 km from Marburg's castle.",
    "The town was founded in 1222\xa0by the Landgrave, see. It grew.",
    "After the table comes a sentence.",
    "Quoted text stands alone.",
    "The area is, quite round, and H2O is wet.",
    "Next.",
]


@pytest.mark.parametrize("name", ["dewiki-pages-articles.xml", "dewiki-20250101-pages-articles1.xml-p1p297012.bz2"])
def test_a_dump_gives_the_prose_of_its_articles(tmp_path: Path, name: str) -> None:
    data = dump(
        page("Oberstadt", ARTICLE),
        page("Ober-Stadt", "#WEITERLEITUNG [[Oberstadt]]\n\nA sentence here.", redirect="Oberstadt"),
        page("Old redirect", "#redirect [[Oberstadt]] {{R from misspelling}}\n\nA sentence here."),
        page("Diskussion:Oberstadt", "Talk is no article.", namespace=1),
        page("Vorlage:Box", "A template.", namespace=10),
        page("Oberstadt.css", "A sentence here.", model="sanitized-css"),
        page("Revised", "The old text.", "The new text."),
        page("Only a list", "* one\n* two\n"),
    )
    file = tmp_path / name
    file.write_bytes(bz2.compress(data) if name.endswith(".bz2") else data)
    assert find_files([tmp_path]) == [file]
    reader = TextReader(find_files([tmp_path]))
    documents = [document.paragraphs for document in reader]
    assert documents[0] == PARAGRAPHS
    assert documents[1:] == [["The new text."]]
    assert reader.statistics.parsers == {str(file): MEDIAWIKI_XML}
    assert (reader.statistics.lines, reader.statistics.skipped_records) == (8, {})


def test_multistream_dumps_are_read_to_the_end(tmp_path: Path) -> None:
    parts = [HEAD, page("A", "First text."), page("B", "Second text."), "</mediawiki>"]
    file = tmp_path / "wiki-multistream.xml.bz2"
    file.write_bytes(b"".join(bz2.compress(part.encode()) for part in parts))
    assert read(file) == [["First text."], ["Second text."]]


@pytest.mark.parametrize("block_bytes", [1, 13, 200])
def test_the_size_of_blocks_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    file = tmp_path / "a"  # known by its first bytes
    file.write_bytes(b'\xef\xbb\xbf<?xml version="1.0" encoding="utf-8"?>\n' + dump(page("A", "Straße.\n\n[[Ä|Ö]] ü.")))
    blocks = [file.read_bytes()[3 + start :][:block_bytes] for start in range(0, file.stat().st_size, block_bytes)]
    reader = TextReader([file])
    found = [d.paragraphs for d in mediawiki.documents(file, iter(blocks), reader.statistics)]
    assert found == read(file) == [["Straße.", "Ö ü."]]


def test_exports_without_namespace_numbers_are_told_by_their_titles(tmp_path: Path) -> None:
    file = tmp_path / "old.xml"
    pages = [("Vorlage:Box", "No."), ("Mission: Impossible", "A film."), ("A", "A letter.")]
    file.write_bytes(dump(*(page(title, text, namespace=None) for title, text in pages)))
    assert read(file) == [["A film."], ["A letter."]]


@pytest.mark.parametrize(
    ("wikitext", "shown"),
    [
        ("The ''Foo'' and '''''bar''''' of [[Baz (town)|]]it.", "The Foo and bar of it."),
        ("It has [[apple]]s and [[:Kategorie:Fruit|fruit]].", "It has apples and fruit."),
        ("A [[Bild:Old alias.PNG|thumb|caption]]picture [[Image:x.gif]]here.", "A picture here."),
        (
            "From 3{{ndash}}4 to {{convert|5|to|7|mi|km}}{{snd}}or {{lang|fr|'''mot'''}}.",
            "From 3–4 to 5 to 7 mi – or mot.",
        ),
        ("A [[Datei:No ending|picture]]map.[[Kategorie:Maps. All.]][[Medium:x]][[en:Map. All.]]", "A map."),
        ("A name (; {{small|[[born]]}} 1900,) was.", "A name (born 1900) was."),
        ("A {{tl|{{nested|{{deep|x}}|y}}|[[z]]}}text {{{parameter|default}}} end.", "A text end."),
        ("Soft\nline ends are\none paragraph.", "Soft line ends are one paragraph."),
        ("中文-{zh-hans:软件; zh-hant:軟體}-和-{条目}-。", "中文软件和条目。"),
        ("&lt;b&gt; &amp; &#8212; entities.", "<b> & — entities."),
        ("Code <code>x = 1</code> stays.<syntaxhighlight lang='c'>int x;</syntaxhighlight>", "Code x = 1 stays."),
    ],
)
def test_markup_within_a_sentence(tmp_path: Path, wikitext: str, shown: str) -> None:
    assert prose(tmp_path, wikitext) == [shown]


@pytest.mark.parametrize(
    "wikitext",
    [
        "A {{template without end and [[a link.",
        "{| class=x\n| a table without end.",
        "Text.<ref group=n>A {{cite}} <ref>without end</ref>",
        "Books:",
        "'''StepLogger'''",
        "The most important of the temples in the old town are these:",
        "== A heading. ==",
        "<!-- A comment. -->",
        "<pre>Code. Code.</pre>",
        "1 2 3.",
    ],
)
def test_what_is_no_prose_is_left_out(tmp_path: Path, wikitext: str) -> None:
    assert prose(tmp_path, wikitext) == []


def test_a_page_longer_than_any_wiki_allows_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mediawiki, "PAGE_LIMIT_CHARACTERS", 1_000)
    file = tmp_path / "a.xml"
    file.write_bytes(dump(page("Long", "word " * 100_000), page("Short", "Fine.")))
    reader = TextReader([file])
    assert [document.paragraphs for document in reader] == [["Fine."]]
    assert reader.statistics.first_skipped == {str(file): "page 'Long': longer than 1,000 characters"}


@pytest.mark.parametrize("markup", ["<ref>x", "[http://a ", "{{a|[[b|<i>''"])
def test_a_page_that_would_be_parsed_for_ever_is_skipped(tmp_path: Path, markup: str) -> None:
    file = tmp_path / "a.xml"
    file.write_bytes(dump(page("Open", markup * 100_000), page("Closed", "Fine.<br>" * 2_000)))
    reader = TextReader([file])
    assert [len(document.paragraphs) for document in reader] == [2_000]
    assert "page 'Open': " in reader.statistics.first_skipped[str(file)]
    assert "00,000 unclosed pieces of markup" in reader.statistics.first_skipped[str(file)]


def test_a_dump_cut_short_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.xml"
    for data in (dump(page("A", "Text.")), dump(page("A", "Text."), page("B", "More."))):
        for cut in (len(data) // 2, len(data) - 5):
            file.write_bytes(data[:cut])
            with pytest.raises(UserError, match="a.xml is damaged or was cut short"):
                read(file)


BOMB = '<!DOCTYPE mediawiki [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>\n'


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            HEAD.replace("<mediawiki", BOMB + "<mediawiki", 1) + page("A", "B") + "</mediawiki>",
            "declares a document type",
        ),
        (HEAD + "<page><title>&other;</title></page></mediawiki>", "damaged or was cut short .*undefined entity"),
        (HEAD + "<page><title>\x01</title></page></mediawiki>", "damaged or was cut short .*line 17"),
        ("<urlset><url>http://example.org</url></urlset>", "a.xml is not a MediaWiki export, despite its name"),
    ],
)
def test_xml_that_is_not_an_export_is_refused(tmp_path: Path, data: str, message: str) -> None:
    (tmp_path / "a.xml").write_text(data, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read(tmp_path / "a.xml")


def test_a_tag_without_end_is_not_gathered(tmp_path: Path) -> None:
    blocks = iter([HEAD.encode() + b'<page x="', *([b"x" * (1 << 20)] * 100)])
    with pytest.raises(UserError, match="a tag without end"):
        list(mediawiki.documents(tmp_path / "a.xml", blocks, TextReader([]).statistics))
    assert len(list(blocks)) > 80


def test_a_missing_parser_is_said_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.xml.bz2").write_bytes(bz2.compress(dump(page("A", "Text."))))
    monkeypatch.setitem(sys.modules, "mwparserfromhell", None)
    with pytest.raises(UserError, match=r"pip install 'lambert-bert\[wiki\]'"):
        find_files([tmp_path])
    with pytest.raises(UserError, match=r"pip install 'lambert-bert\[wiki\]'"):
        read(tmp_path / "a.xml.bz2")


@pytest.mark.parametrize(
    "header",
    [
        "<mediawiki><siteinfo><namespaces>" + "".join(f'<namespace key="{n}">a</namespace>' for n in range(1_500)),
        "<mediawiki>" + "<a>" * 500,
        '<mediawiki><siteinfo><namespaces><namespace key="first">a</namespace>',
        f'<mediawiki><siteinfo><namespaces><namespace key="{"1" * 5_000}">a</namespace>',
        f'<mediawiki><siteinfo><namespaces><namespace key="4">{"a" * 10_000}</namespace></namespaces>',
        f"<mediawiki><page><title>{'a' * 10_000}</title></page>",
    ],
    ids=["namespaces", "open elements", "a key of letters", "a key without end", "a name", "a title"],
)
def test_a_header_that_no_wiki_writes_is_refused_before_it_takes_memory(tmp_path: Path, header: str) -> None:
    file = tmp_path / "harm.xml"
    file.write_text(header)
    with pytest.raises(UserError, match=r"harm.xml is damaged.*(namespace|deep|title)"):
        read(file)


VALUES = {
    "{{formatnum:-10}} °C": "-10 °C", "{{FORMATNUM:1000}} people": "1000 people", "{{uc:abc}} {{lc:DEF}}": "ABC def",
    "{{ucfirst:old town}}": "Old town", "{{circa|1850|1860}}": "c. 1850 – 1860", "{{frac|3|1|2}} miles": "3 1/2 miles",
    "{{s|XIX|e}} siècle": "XIXe siècle", "{{unité|3|km}}": "3 km", "{{nihongo|Garden|庭|Niwa}}": "Garden",
    "{{formatnum:{{#expr:1+1}}}} km": "km",
}  # fmt: skip


@pytest.mark.parametrize("markup", VALUES)
def test_the_value_of_a_function_stays_in_its_sentence(tmp_path: Path, markup: str) -> None:
    (paragraph,) = prose(tmp_path, f"The register of the town says {markup} in the year before the fire.")
    assert f"says {VALUES[markup]} in" in paragraph


# fmt: off
ENDS = [
    "አዲስ አበባ ከተማ ናት።",
    "ទន្លេនេះវែង",
    "Սա հին քաղաք է։",
    "Ποιος το έκανε;",
    "แม่น้ำนี้ยาวมาก",
    "ນີ້ແມ່ນແມ່ນ້ຳ",
    "মাছ খায়।",
    "བོད་ཡིག།",
    "یہ شہر ہے۔",
]


@pytest.mark.parametrize("sentence", ENDS)
def test_short_paragraphs_are_kept_where_a_sentence_of_any_script_ends(tmp_path: Path, sentence: str) -> None:
    assert prose(tmp_path, sentence) == [sentence]


def test_a_word_may_begin_with_an_exclamation_mark_and_a_table_does_not(tmp_path: Path) -> None:
    assert prose(tmp_path, "'''!Kung''' is a language of several thousand people.") == [
        "!Kung is a language of several thousand people."
    ]
    assert (
        prose(tmp_path, "! Name of it. !! Number of it.\n\n!Name of it. | Number of it.") == []
    )


SLOW = {
    "comments": (mediawiki.is_export, b"<!---->" * 500 + b"x"),
    "comments with ends inside": (mediawiki.is_export, b"<!-- a -->-->" * 300),
    "carriage returns": (lambda data: plain_text._CARRIAGE_RETURNS.sub(b"\n", data), b"\r" * 400_000 + b"x"),
    "spaces": (wikitext._tidied, "A (word)" + "\u3000" * 400_000 + "x."),
    "spaces at the end": (wikitext._tidied, "A word." + "\x0b" * 400_000 + "x."),
    "commas": (wikitext._tidied, "A (word" + "," * 400_000 + "x."),
    "a variant without end": (wikitext._tidied, "A -{" + "a" * 400_000),
    "variants within variants": (wikitext._tidied, "A " + "-{zh-hans:a|" * 100_000),
    "underscores": (wikitext._tidied, "A " + "_" * 200_000 + "a" * 200_000),
    "quotes": (wikitext._tidied, "A " + "'" * 400_001 + "a"),
}


@pytest.mark.parametrize("name", SLOW)
def test_expressions_take_linear_time(name: str) -> None:
    """In quadratic time each of these takes minutes, with backtracking for ever; the alarm ends the test."""
    work, text = SLOW[name]

    def too_slow(*_: object) -> None:
        raise AssertionError(f"{name}: still busy")

    before = signal.signal(signal.SIGALRM, too_slow)
    signal.alarm(20)
    try:
        work(text)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
