"""The ceiling of windows and answer search: SQuAD metrics of a model that knows the first reference answer.

python benchmarks/squad_ceiling.py VOCABULARY DEV_FILE
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

from lambert.corpus.tokenizer_files import load_vocabulary
from lambert.finetune.squad.ceiling import best_score
from lambert.finetune.squad.data import read_questions
from lambert.finetune.squad.settings import SquadSettings


def main() -> None:
    """Print exact match and F1 of the perfect model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vocabulary", type=Path, help="vocab.txt, tokenizer.json or a folder with either")
    parser.add_argument("dev", type=Path, help="v1.1 JSON file, also compressed")
    arguments = parser.parse_args()
    questions = read_questions(arguments.dev).questions
    metrics = best_score(questions, load_vocabulary(arguments.vocabulary, cased=False), SquadSettings())
    rows = [
        {"case": "exact match", "ours": metrics.exact_match, "target": 100.0},
        {"case": "F1", "ours": metrics.f1, "target": 100.0},
    ]
    print(f"{len(questions):,} questions")
    for row in rows:
        print(f"{row['case']:12} {row['ours']:.2f}")
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    print(json.dumps({"benchmark": "squad_ceiling", "machine": machine, "rows": rows}))


if __name__ == "__main__":
    main()
