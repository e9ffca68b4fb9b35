"""Docstrings to English paragraphs: without markup, code, tables, formulas and signatures."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

MIN_WORDS = 6
MIN_LETTER_FRACTION = 0.9
MIN_COMMON_FRACTION = 0.2

# Frequent function words of English; code, tables and lists of names have few of them.
_COMMON_WORDS = frozenset(
    """
    a all also an and any are as at be been but by can do does each either for from given has have how if in
    into is it its like may must no not of on one only or other same should so some such than that the their
    them then there these they this to two use used using was we when where whether which while will with
    would you your
    """.split()  # noqa: SIM905
)

_ITEM_START = re.compile(r"(?:[-*+•]|\(?(?:\d{1,2}|[a-z])[.)])\s+")
_FIELD = re.compile(r":(?:param|parameter|arg|raises?|returns?|rtype|type|keyword|var|ivar|cvar|yields?)\b[^:]*:\s*")
_ARGUMENT = re.compile(r"\*{0,2}\w(?:[\w.,* /]*\w)?(?:\s?\([^)]*\))?(?::| --| –)\s+(?=[A-Z])")
_NEXT_ARGUMENT = re.compile(r"\*{0,2}\w+(?:\s?\([^)]*\))?:\s+(?=[A-Z])")
_CODE_START = re.compile(r">>>|\.\.\. |\$ |%|#|@|In \[|Out\[|\.\. (?:math|code|plot|testcode|image|figure|csv-table)")
_DIRECTIVE = re.compile(r"\.\. +[\w-]+::.*")
_RULED = re.compile(r"([-=~^\"'`+*#|_.])\1{2,}")

# Each is linear in the text: lengths are bounded, and a run of spaces is tried once, from its start.
_INLINE = (
    (re.compile(r"!?\[([^\]]{0,1000}+)\]\([^)]{0,1000}+\)"), r"\1"),  # [text](address)
    (
        re.compile(r"(?::[a-zA-Z:+-]{1,40}:)?`([^`<\s]*+(?:\s++[^`<\s]++)*+)\s*+<[^`>]*+>`_{0,2}"),
        r"\1",
    ),  # `text <address>`_, :ref:`text <place>`
    (re.compile(r":[a-zA-Z:+-]{1,40}:`[~.]?(?:\w++\.)*+(\w++)(?:\(\))?`"), r"\1"),  # :class:`~package.Name`
    (re.compile(r":[a-zA-Z:+-]{1,40}:`([^`]*+)`"), r"\1"),
    (re.compile(r"`{1,3}[~.]?([^`]*)`{1,3}_{0,2}"), r"\1"),
    (re.compile(r"\*\*([^*\s][^*]*)\*\*"), r"\1"),
    (re.compile(r"(?<![\w*])\*([^*\s][^*]*)\*(?![\w*])"), r"\1"),
    (re.compile(r"(?<!\s)\s*+\[[#\w]{1,12}\]_"), ""),  # footnotes
    (re.compile(r"\bhttps?://\S+"), ""),
    (re.compile(r"\|(\w+)\|"), r"\1"),
    (re.compile(r"(?<!\s)\s++([.,;:)])(?=\s|$)"), r"\1"),
)
_MARKUP = re.compile(r"[`*|\[]|://| [.,;:)]")
_SPACES = re.compile(r"\s{2,}")
_NOT_PROSE = re.compile(r"[{}\\|<>=~^]|\w_\w+_|__\w|->|::|%[sdr]|\$\w|\w\(\w*,|\(\)\.|//")
_WORD = re.compile(r"[A-Za-z]+(?:['’-][A-Za-z]+)*")
_SIGN = re.compile(r"[^A-Za-z ,.']")
_START = re.compile(r"[\"'“(]?[A-Z]")
_END = re.compile(r"[.!?][\"'”)]?$")


def prose_paragraphs(text: str) -> list[str]:
    """The paragraphs of a docstring that read as English, each on one line."""
    if " " not in text:
        return []
    found = (_without_markup(block) for block in _blocks(inspect.cleandoc(text)))
    return [paragraph for paragraph in found if is_prose(paragraph)]


def is_prose(paragraph: str) -> bool:
    """Whether a line is one or more complete English sentences that consist mostly of words."""
    if not _START.match(paragraph) or not _END.search(paragraph) or _NOT_PROSE.search(paragraph):
        return False
    words = _WORD.findall(paragraph)
    if len(words) < MIN_WORDS:
        return False
    common = sum(word in _COMMON_WORDS for word in map(str.lower, words))
    if common < MIN_COMMON_FRACTION * len(words):
        return False
    return len(_SIGN.findall(paragraph)) <= (1 - MIN_LETTER_FRACTION) * len(paragraph)


def _blocks(text: str) -> Iterator[str]:
    """Lines joined to blocks, which end at blank lines, list items and changes of indentation."""
    lines: list[str] = []
    indent = 0
    literal_indent: int | None = None  # a literal block lasts while lines are indented more than this
    for line in [*text.expandtabs().splitlines(), ""]:
        stripped = line.strip()
        depth = len(line) - len(line.lstrip())
        if stripped and literal_indent is not None:
            if depth > literal_indent:
                continue
            literal_indent = None
        hangs = len(lines) == 1 and depth > indent and _is_item(lines[0])
        if lines and (not stripped or _starts_item(stripped) or (depth != indent and not hangs)):
            yield " ".join(lines)
            lines = []
        if not stripped:
            continue
        indent = depth
        if _CODE_START.match(stripped) or _RULED.match(stripped):
            literal_indent = depth
            lines = []  # the line directly above a rule is a heading
        elif not _DIRECTIVE.match(stripped):
            lines.append(stripped)
            if stripped.endswith("::"):
                literal_indent = depth


def _starts_item(line: str) -> bool:
    return bool(_ITEM_START.match(line) or _FIELD.match(line) or _NEXT_ARGUMENT.match(line))


def _is_item(line: str) -> bool:
    """Whether a deeper next line continues this one: list items and `name: text` descriptions."""
    return bool(_ITEM_START.match(line) or _FIELD.match(line) or _ARGUMENT.match(line))


def _without_markup(block: str) -> str:
    for pattern in (_ITEM_START, _FIELD, _ARGUMENT):
        match = pattern.match(block)
        if match:
            block = block[match.end() :]
    # Most blocks have too few words to be prose; skip the rest for them.
    if block.count(" ") < MIN_WORDS - 1:
        return ""
    if _MARKUP.search(block):
        for pattern, replacement in _INLINE:
            block = pattern.sub(replacement, block)
    block = _SPACES.sub(" ", block).strip()
    return f"{block[:-2].rstrip()}." if block.endswith("::") else block
