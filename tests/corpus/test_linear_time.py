"""Readers and cleaners take time in proportion to the text, whatever it is."""

from __future__ import annotations

import subprocess
import sys

import pytest

SECONDS = 20
"""Of processor time for what takes less than one if it is linear."""
LENGTH = 400_000
PIECES = (
    "[",
    "[a](",
    "`",
    "` ",
    "` <",
    ":",
    ":a",
    ":a:`",
    "\t \t",
    " [a",
    "*",
    "**a",
    "a.",
    "a_",
    "|a",
    '<doc id="1" title="',
)
PROSE = """
from lambert.corpus.prose import _INLINE, _without_markup, is_prose
for pattern, replacement in _INLINE:
    pattern.sub(replacement, text)
_without_markup("The text of one two three four is here " + text + "x [a] b")
is_prose("The " + text + ".")
"""
WIKIEXTRACTOR = """
from pathlib import Path
from lambert.corpus.readers.wikiextractor import _title
_title('<doc id="1" ' + text + 'x>y')
_title('<doc id="1" ' + text)
_title('<doc id="1" title="' + text + '"' * len(text) + '>>')
"""
LIMIT = f"import resource; resource.setrlimit(resource.RLIMIT_CPU, ({SECONDS}, {SECONDS}))\n"


@pytest.mark.parametrize("reader", [PROSE, WIKIEXTRACTOR], ids=["prose", "wikiextractor"])
def test_text_that_regular_expressions_backtrack_on_is_read_in_linear_time(reader: str) -> None:
    body = "".join("    " + line + "\n" for line in reader.strip().splitlines())
    loop = f"for piece in {PIECES!r}:\n    text = piece * ({LENGTH} // len(piece))\n{body}"
    assert subprocess.run([sys.executable, "-c", LIMIT + loop], check=False).returncode == 0
