"""Libraries that part English into sentences: speed on real text, and how many hard cases they get right.

The cases are our own sentences for the rules that the "Golden Rules" of Pragmatic Segmenter (Dias 2014) name; like
there, a case counts only when every boundary in it is right. Libraries take part where they are installed:
`pip install pysbd nupunkt syntok`.

    python benchmarks/sentences.py TEXT --megabytes 3
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lambert.corpus.sentences import split_sentences
from lambert.corpus.sources import TextReader

# Boundaries stand as |.
CASES = [
    "The river froze. | We walked across it.",
    "Did it hold? | It held.",
    "What a night! | Nobody slept.",
    "The map was drawn by Clara B. Weiss. | It is lost.",
    "Please look at p. 71 again. | There it stands.",
    "Is it on p. 71? | No, on p. 72.",
    "He rode with his brother to St. Gallen in one day.",
    "She lived in St. Louis until the war.",
    "The firm is called Brandt & Co. | It makes ropes.",
    "He works for Brandt & Co. in Bremen.",
    "The speaker was Dr. Amara Okafor from Lagos.",
    "Mr. and Mrs. Hall came late. | Nobody minded.",
    "They moved to the U.S. | It was a hard winter.",
    "They moved to the U.S. in a hard winter.",
    "The U.S. Navy sent three ships.",
    "I have lived in the U.K. for ten years.",
    "The office is at 12 Elm St. in the old town.",
    "The train leaves at 5 p.m. | Be there.",
    "At 5 p.m. Mr. Hall took the train.",
    "She had $3.50 left. | It bought a loaf.",
    "The cost rose by 0.4 percent. | Wages did not.",
    "She turned around. (It was dark by then.) | Then she ran.",
    "He said (too loudly!) that it was over.",
    "'This is the end,' he said. | She laughed.",
    'He asked, "Who is there?" and opened the door.',
    '"Who is there?" | "It is I."',
    'She said, "It is cold." | Then she left.',
    "He waited ... and waited. | Nobody came.",
    "He waited. . . . | Nobody came.",
    "There are plums, pears, figs, etc. in the garden.",
    "There are plums, pears, etc. | The garden is old.",
    "Use a sharp tool, e.g. a chisel, for this.",
    "The larger part, i.e. the roof, was saved.",
    "Write to anna.weiss@example.org before Monday.",
    "The text is at www.example.org/a.html and it is free.",
    "Version 2.0.1 came out in May. | It was late.",
    "Chapter no. 5 is the longest one.",
    "The suit was brought by Hall v. Weiss in 1904.",
    "He met J. R. Weiss and H. Hall there.",
    "It was due to me and not to I. | The grammar was wrong.",
    "The camp lies at 47.5 N. and 11.2 E. of the lake.",
    "She left on Jan. 5 and came back in Aug. 1911.",
    "He is the Lt. Col. of the third regiment.",
    "We saw approx. 40 birds on the lake.",
    "The Yahoo! office closed. | It was sold.",
    "Was it really so?! | It was.",
    "Stop!! | Do not move!!",
    "The temperature fell to -5.5 degrees. | The pipes burst.",
]


def libraries() -> dict[str, Callable[[str], list[str]]]:
    """Functions from a paragraph to its sentences."""
    found: dict[str, Callable[[str], list[str]]] = {"sentencex, as lambert uses it": lambda text: split_sentences(text)}
    for name, make in (("nupunkt", _nupunkt), ("pysbd", _pysbd), ("syntok", _syntok)):
        try:
            found[name] = make()
        except ImportError as error:
            print(f"{name} takes no part: {error}")
    return found


def _nupunkt() -> Callable[[str], list[str]]:
    tokenize: Any = importlib.import_module("nupunkt").sent_tokenize
    return lambda text: list(tokenize(text))


def _pysbd() -> Callable[[str], list[str]]:
    segmenter = importlib.import_module("pysbd").Segmenter(language="en", clean=False)
    return lambda text: list(segmenter.segment(text))


def _syntok() -> Callable[[str], list[str]]:
    process: Any = importlib.import_module("syntok.segmenter").process

    def split(text: str) -> list[str]:
        return [
            "".join(token.spacing + token.value for token in sentence)
            for paragraph in process(text)
            for sentence in paragraph
        ]

    return split


def is_right(split: Callable[[str], list[str]], case: str) -> bool:
    """Whether every boundary of a case is found, and no other."""
    wanted = [part.strip() for part in case.split("|")]
    return [part.strip() for part in split(" ".join(wanted)) if part.strip()] == wanted


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--megabytes", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    lines, size = [], 0.0
    for line in (line for document in TextReader([arguments.text]) for line in document.paragraphs):
        lines.append(line)
        size += len(line.encode()) / 1e6
        if size >= arguments.megabytes:
            break
    times: dict[str, list[float]] = {name: [] for name in libraries()}
    for _ in range(arguments.rounds):
        for name, split in libraries().items():
            began = time.perf_counter()
            for line in lines:
                split(line)
            times[name].append(time.perf_counter() - began)
    rows = []
    print(f"{'':32} {'MB/s':>8} {'least':>8} {'most':>8} {'right':>8} of {len(CASES)}")
    for name, split in libraries().items():
        speed = size / statistics.median(times[name])
        right = sum(is_right(split, case) for case in CASES)
        spread = [size / max(times[name]), size / min(times[name])]
        print(f"{name:32} {speed:8.2f} {spread[0]:8.2f} {spread[1]:8.2f} {right:8}")
        row = {"case": name, "ours": speed, "rival": None, "theirs": None, "ratio": None, "target": None}
        wrong = [case for case in CASES if not is_right(split, case)]
        rows.append(row | {"spread": spread, "right": right, "wrong": wrong})
    print(json.dumps({"benchmark": "sentences", "machine": platform.machine(), "rows": rows}))


if __name__ == "__main__":
    main()
