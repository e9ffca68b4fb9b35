"""SQuAD F1 after hours of pre-training: decays of one run with a constant learning rate, each fine-tuned over seeds.

    lambert pretrain --corpus CORPUS … --lr-scheduler-type constant_with_warmup --checkpoint-steps 1000 \\
        --keep-every 1000 --out RUN
    python benchmarks/f1_by_hours.py CORPUS RUN OUT --steps 2000 8000 --train train-v1.1.json --dev dev-v1.1.json

For each step a run decays from that checkpoint (`--decay-from`), and is fine-tuned. The last one is also fine-tuned
from random weights, for comparison. The same command resumes. Hours of a phase are its steps times the time of the
tenth fastest of a hundred, since other work on the machine makes steps longer, times the threads.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from pathlib import Path
from typing import Any

from forecast import lambert
from lambert.report.picture import check_picture, standing, write_picture
from lambert.report.spec import SERIES


def core_hours(run: Path, threads: int) -> float:
    """Of all steps of the run."""
    by_phase: dict[int, list[float]] = {}
    last: dict[int, int] = {}
    for event in map(json.loads, (run / "journal.jsonl").read_text().splitlines()):
        if event["event"] == "step":
            by_phase.setdefault(event["phase"], []).append(event["seconds"])
            last[event["phase"]] = event["step"]
    ends = [0, *(last[phase] for phase in sorted(last))]
    steps = [end - begin for begin, end in itertools.pairwise(ends)]
    usual = [statistics.quantiles(by_phase[phase], n=10)[0] for phase in sorted(last)]
    return threads * sum(count * seconds for count, seconds in zip(steps, usual, strict=True)) / 3_600


def measure(arguments: argparse.Namespace, step: int, *, random: bool = False) -> dict[str, Any]:
    """The decay from a step, and its fine-tuning; `random` fine-tunes from random weights."""
    run = arguments.out / f"step-{step}"
    words = ["pretrain", "--corpus", str(arguments.corpus), "--out", str(run), "--probe-seconds", "0"]
    words += ["--decay-from", str(arguments.run / "checkpoints" / f"step-{step}"), "--threads", str(arguments.threads)]
    words += ["--decay-ratio", str(arguments.decay_ratio), "--evaluation-samples", str(arguments.evaluation_samples)]
    if arguments.sequence_length:
        words += ["--sequence-lengths", str(arguments.sequence_length), "--batch-size", str(arguments.batch_size)]
    lambert(words, arguments.threads)
    words = ["squad", str(run), "--train", str(arguments.train), "--dev", str(arguments.dev)]
    words += ["--seeds", str(arguments.seeds), "--epochs", str(arguments.epochs)]
    words += ["--out", str(arguments.out / f"squad-{'random' if random else step}")]
    if arguments.train_questions:
        words += ["--train-questions", str(arguments.train_questions)]
    squad = lambert([*words, "--random-weights"] if random else words, arguments.threads)
    events = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    evaluation = [event for event in events if event["event"] == "evaluation"][-1]
    own = {"step": step, "core_hours": core_hours(run, arguments.threads), "loss": evaluation["mlm_loss"]}
    if random:
        own = {"step": 0, "core_hours": 0.0, "loss": evaluation["unigram_loss"]}
    scores = ("f1", "f1_interval", "exact_match", "exact_match_interval")
    return {**own, **{name: squad[name] for name in scores}}


def draw(rows: list[dict[str, Any]], out: Path) -> None:
    """F1 by core-hours, with its interval and the held-out loss beside each point."""
    values = [
        {
            "hours": row["core_hours"],
            "f1": row["f1"],
            **dict(zip(("low", "high"), row["f1_interval"] or [row["f1"]] * 2, strict=True)),
            "label": f"{row['loss']:.2f} nats" if row["step"] else "random weights",
        }
        for row in rows
    ]
    x = {"field": "hours", "type": "quantitative", "title": "hours of one core, pre-training"}
    y = {"field": "f1", "type": "quantitative", "title": "SQuAD v1.1 F1"}
    layers = [
        {"mark": {"type": "rule", "color": SERIES[0]},
         "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}}},
        {"mark": {"type": "line", "color": SERIES[0], "point": {"color": SERIES[0]}}, "encoding": {"x": x, "y": y}},
        {"mark": {"type": "text", "align": "left", "dx": 8, "dy": 10},
         "encoding": {"x": x, "y": y, "text": {"field": "label"}}},
    ]  # fmt: skip
    content = {"data": {"values": values}, "layer": layers}
    caption = "Bars: 95 % interval over seeds of fine-tuning. Beside each point: held-out MLM loss."
    write_picture(standing(content, title="F1 by hours of pre-training", caption=caption), out)


def main() -> None:
    """A table, and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--dev", type=Path, required=True)
    parser.add_argument("--steps", type=int, nargs="+", required=True)
    parser.add_argument("--decay-ratio", type=float, default=0.1)
    parser.add_argument("--sequence-length", type=int, default=0, help="of the decay; 0: the run's")
    parser.add_argument("--batch-size", type=int, default=64, help="of the decay, with --sequence-length")
    parser.add_argument("--evaluation-samples", type=int, default=1_024)
    parser.add_argument("--train-questions", type=int, default=0, help="0: all")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    if arguments.picture:
        check_picture(arguments.picture)
    rows = []
    for step in arguments.steps:
        rows.append(row := measure(arguments, step))
        print(
            f"{row['core_hours']:6.2f} h  loss {row['loss']:.3f}  EM {row['exact_match']:.2f}  F1 {row['f1']:.2f}",
            flush=True,
        )
    rows.insert(0, row := measure(arguments, arguments.steps[-1], random=True))
    print(f"random weights: EM {row['exact_match']:.2f}  F1 {row['f1']:.2f}")
    if arguments.picture:
        draw(rows, arguments.picture)
    print(json.dumps({"benchmark": "f1_by_hours", "hardware": lambert(["doctor"], 0)["hardware"], "rows": rows}))


if __name__ == "__main__":
    main()
