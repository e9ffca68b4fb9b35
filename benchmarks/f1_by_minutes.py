"""SQuAD F1 after a given number of minutes of pre-training on this machine.

    python benchmarks/f1_by_minutes.py CORPUS OUT --train train-v1.1.json --dev dev-v1.1.json --minutes 5 18

For each number of minutes, `lambert plan` estimates how many samples fit. A run from scratch trains on them, its
learning rate decays to zero within them, and its model is fine-tuned. The same command resumes. OUT/…/run/journal.jsonl
shows the progress (`lambert track`). Tested on a CPU with small models; untested on GPU.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from forecast import lambert

FIRST_SAMPLES = 100_000


def samples_for(arguments: argparse.Namespace, minutes: float, folder: Path) -> int:
    """How many samples fit into the minutes; stored, so that a resumed run keeps its length."""
    stored = folder / "samples.json"
    if stored.exists():
        return int(json.loads(stored.read_text()))
    first = max(FIRST_SAMPLES, 100 * arguments.batch_size)
    seconds = lambert(["plan", *options_of(arguments, first)], 0)["forecast"]["seconds"]
    samples = round(first * 60 * minutes / seconds)
    folder.mkdir(parents=True, exist_ok=True)
    stored.write_text(json.dumps(samples))
    return samples


def options_of(arguments: argparse.Namespace, samples: int) -> list[str]:
    """The options of both plan and run."""
    words = ["--corpus", str(arguments.corpus), "--model", arguments.model, "--optimizer", arguments.optimizer]
    words += ["--batch-size", str(arguments.batch_size), "--samples", str(samples), "--sequence-lengths"]
    words += [str(length) for length in arguments.sequence_lengths]
    if arguments.micro_batch_size:
        words += ["--micro-batch-size", str(arguments.micro_batch_size)]
    return [*words, "--dropout", str(arguments.dropout)]


def measure(arguments: argparse.Namespace, minutes: float) -> dict[str, Any]:
    """One run and its fine-tuning."""
    folder = arguments.out / f"{minutes:g}-minutes"
    samples = samples_for(arguments, minutes, folder)
    run = folder / "run"
    lambert(["pretrain", *options_of(arguments, samples), "--out", str(run), "--probe-seconds", "0"], 0)
    words = ["squad", str(run), "--train", str(arguments.train), "--dev", str(arguments.dev)]
    words += ["--out", str(folder / "squad"), "--seeds", str(arguments.seeds)]
    if arguments.train_questions:
        words += ["--train-questions", str(arguments.train_questions)]
    squad = lambert(words, 0)
    events = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    evaluation = [event for event in events if event["event"] == "evaluation"][-1]
    steps = [event for event in events if event["event"] == "step"]
    return {
        "minutes": sum(event["seconds"] for event in events if event["event"] == "end") / 60,
        "asked_minutes": minutes,
        "samples": samples,
        "steps": steps[-1]["step"],
        "mfu": sorted(event["mfu"] or 0.0 for event in steps)[len(steps) // 2],
        "loss": evaluation["mlm_loss"],
        "unigram_loss": evaluation["unigram_loss"],
        "accuracy": evaluation["mlm_accuracy"],
        "f1": squad["f1"],
        "f1_interval": squad["f1_interval"],
        "exact_match": squad["exact_match"],
    }


def main() -> None:
    """A table, and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--dev", type=Path, required=True)
    parser.add_argument("--model", default="base")
    parser.add_argument("--optimizer", default="lamb")
    parser.add_argument("--minutes", type=float, nargs="+", default=[18.0])
    parser.add_argument("--batch-size", type=int, default=4_096)
    parser.add_argument("--micro-batch-size", type=int, default=0, help="0: the fastest of those tried")
    parser.add_argument("--sequence-lengths", type=int, nargs=2, default=[128, 512])
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--train-questions", type=int, default=0, help="0: all")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    print(f"{'minutes':>8} {'samples':>11} {'steps':>7} {'mfu':>12} {'loss':>7} {'EM':>6} {'F1':>6}")
    rows = []
    for minutes in arguments.minutes:
        rows.append(row := measure(arguments, minutes))
        print(
            f"{row['minutes']:>8.1f} {row['samples']:>11,} {row['steps']:>7,} {row['mfu']:>12.1%} "
            f"{row['loss']:>7.3f} {row['exact_match']:>6.2f} {row['f1']:>6.2f}",
            flush=True,
        )
    device = lambert(["doctor"], 0)["hardware"]
    print(json.dumps({"benchmark": "f1_by_minutes", "model": arguments.model, "hardware": device, "rows": rows}))


if __name__ == "__main__":
    main()
