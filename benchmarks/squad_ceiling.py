"""The ceiling of windows and answer search: SQuAD metrics of a model that knows the first reference answer.

Every window gets a high logit at the first and the last token of that answer where it holds it, and 0 elsewhere.

    python benchmarks/squad_ceiling.py VOCABULARY DEV_FILE
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import numpy as np

from lambert.corpus.tokenizer_files import load_vocabulary
from lambert.finetune.squad.answers import AnswerCollector
from lambert.finetune.squad.data import read_questions
from lambert.finetune.squad.features import make_windows
from lambert.finetune.squad.metric import score
from lambert.finetune.squad.settings import SquadSettings


def main() -> None:
    """Print exact match and F1 of the perfect model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vocabulary", type=Path, help="vocab.txt, tokenizer.json or a folder with either")
    parser.add_argument("dev", type=Path, help="v1.1 JSON file, also compressed")
    arguments = parser.parse_args()
    questions = read_questions(arguments.dev).questions
    windows = make_windows(questions, load_vocabulary(arguments.vocabulary, cased=False), SquadSettings())
    collector = AnswerCollector(questions)
    for window in windows:
        starts, ends = np.zeros((2, len(window.token_ids)), np.float32)
        if window.target[0]:  # 0 is [CLS]: the answer is not in this window
            starts[window.target[0]] = ends[window.target[1]] = 10.0
        collector.add(window, starts, ends)
    metrics = score(questions, collector.results()[0])
    rows = [
        {"case": "exact match", "ours": metrics.exact_match, "target": 100.0},
        {"case": "F1", "ours": metrics.f1, "target": 100.0},
    ]
    print(f"{len(questions):,} questions, {len(windows):,} windows")
    for row in rows:
        print(f"{row['case']:12} {row['ours']:.2f}")
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    print(json.dumps({"benchmark": "squad_ceiling", "machine": machine, "rows": rows}))


if __name__ == "__main__":
    main()
