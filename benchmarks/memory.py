"""Peak memory of real runs beside what `plan` says: models, vocabularies and lengths.

    python benchmarks/memory.py CORPUS [CORPUS …] --out OUT [--models tiny mini small base] [--lengths 32 128 512]

Each run is a process of its own, of so few steps that it ends soon; it has an evaluation and a checkpoint like any run.
Prints a table and, last, one JSON line.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from lambert.api.resolution import resolve, with_micro_batches
from lambert.corpus.store import Corpus
from lambert.planning.hardware import inspect_hardware
from lambert.planning.plan import describe_plan
from lambert.training.config.arguments import RecipeArguments
from lambert.training.distributed.process_group import ProcessGroup

STEPS = 6


def measured(corpus: Path, out: Path, options: dict[str, Any]) -> dict[str, Any]:
    """A run's peak and the prediction, bytes."""
    arguments = RecipeArguments(**options)
    config = with_micro_batches(resolve(arguments, Corpus.open(corpus)), ProcessGroup(), tune=False)
    predicted = describe_plan(config).memory_bytes["none"]
    flags = [str(word) for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    command = ["pretrain", "--corpus", str(corpus), "--out", str(out), "--evaluations-per-phase", "2", *flags]
    if not (out / "report.html").exists():
        subprocess.run(
            [sys.executable, "-m", "lambert", *command, "--probe-seconds", "0", "--fresh"],
            check=True,
            capture_output=True,
        )
    events = (json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines())
    actual = next(event["memory_bytes"] for event in events if event["event"] == "outcome")
    return {**options, "corpus": corpus.name, "memory_bytes": actual, "predicted_bytes": predicted}


def main() -> None:
    """Run all combinations and print them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("corpora", nargs="+", type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--models", nargs="+", default=["tiny", "mini", "small", "base"])
    parser.add_argument("--lengths", nargs="+", type=int, default=[32, 128, 512])
    parser.add_argument("--optimizers", nargs="+", default=["muon", "lamb"])
    chosen = parser.parse_args()
    rows = []
    print(f"{'corpus':16} {'model':8} {'optimizer':9} {'length':>6} {'peak':>9} {'predicted':>9}  error")
    for corpus in chosen.corpora:
        for model in chosen.models:
            for length in chosen.lengths:
                for optimizer in chosen.optimizers:
                    batch = max(8, 4_096 // length)
                    options = {
                        "model": model, "optimizer": optimizer, "sequence_lengths": length, "batch_size": batch,
                        "samples": STEPS * batch,
                    }  # fmt: skip
                    row = measured(corpus, chosen.out / f"{corpus.name}-{model}-{optimizer}-{length}", options)
                    rows.append(row)
                    error = row["predicted_bytes"] / row["memory_bytes"] - 1
                    print(
                        f"{corpus.name:16} {model:8} {optimizer:9} {length:>6} {row['memory_bytes'] / 1e6:>6.0f} MB "
                        f"{row['predicted_bytes'] / 1e6:>6.0f} MB {error:>+6.1%}",
                        flush=True,
                    )
    print(json.dumps({"processor": inspect_hardware().processor, "rows": rows}))


if __name__ == "__main__":
    main()
