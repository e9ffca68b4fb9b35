"""Raw text to a memory-mapped token store, once per corpus.

>>> build_corpus([Path("my_text")], Path("my_corpus"))  # doctest: +SKIP
>>> Corpus.open("my_corpus").split("train").tokens(0, 128)  # doctest: +SKIP
"""

from __future__ import annotations

from lambert.corpus.build import build_corpus
from lambert.corpus.sources import Document, TextReader, find_files
from lambert.corpus.store import Corpus, Split
from lambert.corpus.summary import BuildProgress, BuildSummary, SplitCounts

__all__ = [
    "BuildProgress",
    "BuildSummary",
    "Corpus",
    "Document",
    "Split",
    "SplitCounts",
    "TextReader",
    "build_corpus",
    "find_files",
]
