"""Wikitext to prose: the running text of an article.

Dropped are templates, tables, references, lists, headings, formulas, code, galleries, pictures with their captions and
categories; the text of links stays. BERT's Wikipedia was prepared this way ("we extract only the text passages and
ignore lists, tables, and headers", Devlin et al., 2018, section 3.1). The text of a template within a sentence
(`{{convert|3|km}}`) is lost, except for the few templates whose text is one of their arguments.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import mwparserfromhell as mw
from mwparserfromhell import nodes
from mwparserfromhell.parser import ParserError


class WikitextError(Exception):
    """The parser gave up on a page."""


# Their content is not prose.
_DROPPED_TAGS = frozenset(
    """
    ref references gallery math chem ce syntaxhighlight source pre timeline score hiero imagemap templatestyles table
    includeonly mapframe maplink graph inputbox indicator section categorytree ol ul li dl dt dd h1 h2 h3 h4 h5 h6
    style script noscript figure rp rt
    """.split()  # noqa: SIM905
)
_BREAKING_TAGS = frozenset(("p", "div", "blockquote", "center", "hr", "poem", "br"))

# Template -> the positional argument that is part of the sentence.
_SHOWN_ARGUMENTS = {
    "nowrap": 1, "nobr": 1, "nwr": 1, "lang": 2, "transliteration": 3, "transl": 2, "abbr": 1, "tooltip": 1, "small": 1,
    "smallcaps": 1, "sc": 1, "quote": 1, "blockquote": 1, "em": 1, "strong": 1, "angle bracket": 1, "visible anchor": 1,
    "vanchor": 1, "ill": 1, "interlanguage link": 1, "nihongo": 1, "big": 1, "sup": 1, "sub": 1, "mvar": 1, "var": 1,
}  # fmt: skip
_SHOWN_SIGNS = {
    "snd": " – ", "spnd": " – ", "spaced ndash": " – ", "ndash": "–", "en dash": "–", "mdash": "—", "em dash": "—",
    "nbsp": " ", "'": "'", "=": "=", "!": "|", "shy": "", "zwsp": "", "ellipsis": "…",
}  # fmt: skip
# Parser functions of MediaWiki itself: their value stands in the source, after a colon.
_FUNCTIONS: dict[str, Callable[[str], str]] = {
    "formatnum": str, "lc": str.lower, "uc": str.upper, "lcfirst": lambda text: text[:1].lower() + text[1:],
    "ucfirst": lambda text: text[:1].upper() + text[1:],
}  # fmt: skip
_JOINED = {"circa": ("c. ", " – "), "c.": ("c. ", " – "), "ca.": ("c. ", " – "), "s": ("", ""), "unité": ("", " ")}
"""Template → what stands before its positional arguments, and between them."""
_MEASURES, _RANGES = ("convert", "cvt"), ("to", "and", "or", "by", "-", "–", "x", "to(-)")

# The parser searches again for the end of every unclosed piece of markup: 20,000 of them take half a minute.
_MAX_UNCLOSED = 1_000
_OPENED_TAG = re.compile(r"<(?!br|hr|wbr|li|dd|dt|td|th|tr|p\b)[a-z][^<>]*(?<!/)>", re.IGNORECASE)

# A line of a list; NUL, which no wikitext holds, marks it until the page is whole.
_LIST, _BREAK = "\0", "\n\n"
_QUOTES = re.compile(r"'{5}|'{3}|'{2}")
_MAGIC_WORD = re.compile(r"__[^\W\d_]+__")
# A run of spaces or signs is tried once, from its start, and never in parts: the time is linear in the characters.
_VARIANT = re.compile(r"-\{(?:[^{}|]*+\|)?(?:zh-)?(?:[a-z-]++:)?([^{};]*+)[^{}]*+\}-")
_EMPTY_PARENTHESES = re.compile(r"(?<!\s)\s*+[(（][\s,;:，；、–-]*+[)）]")
_PARENTHESIS_START = re.compile(r"([(（])[\s,;:，；、]+")
_PARENTHESIS_END = re.compile(r"(?<![\s,;，；、])[\s,;，；、]++([)）])")
_SPACE_BEFORE = re.compile(r"(?<!\s)\s++([,.;:!?])(?=\s|$)")
_SPACES = re.compile(r"[ \t\xa0]{2,}")
# Markup that did not parse: such a paragraph is not prose.
_BROKEN = re.compile(
    r"\{\{|\}\}|\[\[|\]\]|\{\||\|\}|</?(?:ref|table|div|span|br)\b|^\||^!(?=\s|.*?(?:!!|\|))", re.IGNORECASE
)
_FILE_NAME = re.compile(r"\.(?:jpe?g|png|svg|gif|tiff?|webp|og[gav]|webm|pdf|djvu|midi?|mp3|wav|flac)$", re.IGNORECASE)
_INTERWIKI = re.compile(r"[a-z][a-z-]{1,11}:")
# Unicode's Sentence_Terminal, the Greek question mark, and signs of Tibetan, Thai, Khmer and Sinhala.
_SENTENCE_END = re.compile(
    "[.!?;…։؝-؟۔܀-܂߹࠷࠹࠽࠾।॥၊။።፧፨᙮᜵᜶᠃᠉᥄᥅᪨-᪫᭚᭛᭞᭟᰻᰼᱾᱿‼‽⁇-⁉⸮⸼。꓿꘎꘏꛳꛷꡶꡷꣎꣏꤯꧈꧉꩝-꩟꫰꫱꯫﹒﹖﹗！．？｡;།༎๚๛ฯ។៕៚෴]"
)
# Scripts whose sentences may end without a sign: Thai, Lao, Khmer, Myanmar, Tai Le, New Tai Lue.
_WITHOUT_END = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19df]")
_MIN_CHARACTERS = 40
_LETTER = re.compile(r"[^\W\d_]")


def prose_of(wikitext: str, *, hidden_namespaces: frozenset[str]) -> list[str]:
    """The paragraphs of a page, each on one line.

    Args:
        wikitext: the source of the page.
        hidden_namespaces: names, in lower case, of the namespaces of files and categories.

    Raises:
        WikitextError: the parser failed, or would take too long.
    """
    unclosed = (
        len(_OPENED_TAG.findall(wikitext)) - wikitext.count("</"),
        wikitext.count("[") - wikitext.count("]"),
        wikitext.count("{{") - wikitext.count("}}"),
    )
    if max(unclosed) > _MAX_UNCLOSED:
        raise WikitextError(f"{max(unclosed):,} unclosed pieces of markup")
    try:
        # Bold and italics are removed here: by their rules unclosed quotes would extend over what follows.
        parsed = mw.parse(wikitext.replace(_LIST, ""), skip_style_tags=True)
        text = "".join(_shown(parsed, hidden_namespaces))
    except (ParserError, RecursionError) as error:
        raise WikitextError(f"not parsed ({type(error).__name__})") from error
    return [paragraph for joined in _joined(text) if (paragraph := _tidied(joined)) is not None]


def _joined(text: str) -> Iterator[str]:
    """Joins consecutive lines to paragraphs, as MediaWiki shows them, without lines of lists."""
    lines: list[str] = []
    for line in text.split("\n"):
        is_list = _LIST in line
        if line.strip() and not is_list:
            lines.append(line.strip())
        elif lines:
            yield " ".join(lines)
            lines = []
    if lines:
        yield " ".join(lines)


def _tidied(paragraph: str) -> str | None:
    """A paragraph without the remains of removed markup; None where it is not prose."""
    paragraph = _MAGIC_WORD.sub("", _QUOTES.sub("", paragraph))
    if "-{" in paragraph:
        paragraph = _VARIANT.sub(r"\1", paragraph)
    if "(" in paragraph or "（" in paragraph:
        paragraph = _EMPTY_PARENTHESES.sub("", paragraph)
        paragraph = _PARENTHESIS_END.sub(r"\1", _PARENTHESIS_START.sub(r"\1", paragraph))
    paragraph = _SPACE_BEFORE.sub(r"\1", _SPACES.sub(" ", paragraph)).strip()
    if not _LETTER.search(paragraph) or _BROKEN.search(paragraph):
        return None
    # A heading without markup, or the introduction of a list that was dropped.
    is_lead = len(paragraph) < _MIN_CHARACTERS or paragraph.endswith((":", "："))
    has_end = _SENTENCE_END.search(paragraph) or _WITHOUT_END.search(paragraph)
    return None if is_lead and not has_end else paragraph


def _shown(code: mw.wikicode.Wikicode, hidden_namespaces: frozenset[str]) -> Iterator[str]:
    for node in code.nodes:
        if isinstance(node, nodes.Text):
            yield node.value
        elif isinstance(node, nodes.Wikilink):
            yield from _link(node, hidden_namespaces)
        elif isinstance(node, nodes.Tag):
            yield from _tag(node, hidden_namespaces)
        elif isinstance(node, nodes.Template):
            yield from _template(node, hidden_namespaces)
        elif isinstance(node, nodes.Heading):
            yield _BREAK
        elif isinstance(node, nodes.HTMLEntity):
            yield node.normalize()
        elif isinstance(node, nodes.ExternalLink) and node.brackets and node.title is not None:
            yield from _shown(node.title, hidden_namespaces)


def _link(link: nodes.Wikilink, hidden_namespaces: frozenset[str]) -> Iterator[str]:
    """The text of a link; nothing for files, categories and links to the same article in other languages."""
    target = str(link.title).strip()
    prefix = target.split(":", 1)[0].strip().lower() if ":" in target else ""
    if prefix in hidden_namespaces or (prefix and _FILE_NAME.search(target)):
        return
    if link.text is not None:
        yield from _shown(link.text, hidden_namespaces)
    elif not _INTERWIKI.match(target):
        yield from _shown(link.title, hidden_namespaces) if not target.startswith(":") else iter((target[1:],))


def _tag(tag: nodes.Tag, hidden_namespaces: frozenset[str]) -> Iterator[str]:
    name = str(tag.tag).strip().lower()
    if tag.wiki_markup in ("*", "#", ";", ":"):
        yield _LIST
    elif name in _BREAKING_TAGS:
        yield _BREAK
        if tag.contents is not None:
            yield from _shown(tag.contents, hidden_namespaces)
            yield _BREAK
    elif name in ("table", "gallery", "pre", "syntaxhighlight", "ul", "ol", "dl"):
        yield _BREAK
    elif name not in _DROPPED_TAGS and tag.contents is not None:
        yield from _shown(tag.contents, hidden_namespaces)


def _template(template: nodes.Template, hidden_namespaces: frozenset[str]) -> Iterator[str]:
    name = str(template.name).strip().lower()
    function, _, value = str(template.name).strip().partition(":")
    if value and "{{" not in value and (change := _FUNCTIONS.get(function.lower())):
        yield change(value.strip())
    elif name in _SHOWN_SIGNS:
        yield _SHOWN_SIGNS[name]
    elif name in _MEASURES:
        # {{convert|3|km|mi}} reads "3 km (1.9 mi)", {{convert|3|to|5|km}} "3 to 5 km (1.9 to 3.1 mi)".
        arguments = [str(argument.value).strip() for argument in template.params[:4] if not argument.showkey]
        yield " ".join(arguments if arguments[1:2] and arguments[1] in _RANGES else arguments[:2])
    elif name in ("frac", "sfrac"):
        # {{frac|1|2}} reads "1/2", {{frac|3|1|2}} "3 1/2".
        arguments = [str(argument.value).strip() for argument in template.params if not argument.showkey]
        yield " ".join([*arguments[:-2], "/".join(arguments[-2:])])
    elif name in _JOINED:
        before, between = _JOINED[name]
        shown = [_shown(argument.value, hidden_namespaces) for argument in template.params if not argument.showkey]
        yield before + between.join("".join(pieces) for pieces in shown)
    elif (position := _SHOWN_ARGUMENTS.get(name)) is not None and template.has(position):
        yield from _shown(template.get(position).value, hidden_namespaces)
