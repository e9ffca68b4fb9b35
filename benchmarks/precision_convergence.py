"""Does bfloat16 training converge like float32? Full runs of mini that differ only in seed and precision.

Each run is `lambert pretrain` in its own folder; finished runs are not repeated. The table shows the final held-out
loss of every run, the means, and their difference in standard errors of the difference.

    lambert prepare TEXT --vocab-size 2048 --out CORPUS
    python benchmarks/precision_convergence.py CORPUS --out FOLDER --seeds 3
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from lambert.report.picture import standing, write_picture
from lambert.report.spec import SERIES

PRECISIONS = ("bfloat16-master", "float32")


def command(corpus: Path, out: Path, precision: str, seed: int, options: argparse.Namespace) -> list[str]:
    """One run of 2,000 steps, enough to beat the unigram baseline: many short sequences, a small vocabulary."""
    return [
        *(sys.executable, "-m", "lambert", "pretrain", "--corpus", str(corpus), "--out", str(out)),
        *(
            "--model",
            options.model,
            "--micro-batch-size",
            "256",
            "--batch-size",
            "256",
            "--samples",
            str(options.samples),
        ),
        *("--sequence-lengths", "16", "16", "--pairs", "none", "--optimizer", "adamw"),
        *("--learning-rate", "0.002"),
        *("--precision", precision, "--seed", str(seed), "--evaluation-samples", "4096", "--json"),
    ]


def journal(run: Path) -> list[dict[str, Any]]:
    """The run's events."""
    return [json.loads(line) for line in (run / "journal.jsonl").read_text(encoding="utf-8").splitlines()]


def draw(curves: dict[str, list[list[tuple[int, float]]]], picture: Path) -> None:
    """Held-out loss over steps, a line a run."""
    rows = [
        {"precision": precision, "run": number, "step": step, "loss": loss}
        for precision, runs in curves.items() for number, run in enumerate(runs) for step, loss in run
    ]  # fmt: skip
    encoding = {
        "x": {"field": "step", "type": "quantitative", "title": "step"},
        "y": {"field": "loss", "type": "quantitative", "title": "held-out MLM loss, nats", "scale": {"zero": False}},
        "color": {"field": "precision", "type": "nominal", "title": None,
                  "scale": {"domain": list(curves), "range": list(SERIES[: len(curves)])}},
        "detail": {"field": "run"},
    }  # fmt: skip
    content = {"data": {"values": rows}, "mark": {"type": "line", "strokeWidth": 1.5}, "encoding": encoding}
    write_picture(standing(content, title="Held-out loss of the same runs in two precisions"), picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=512_000)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--picture", type=Path, help="also draw the curves there, such as curves.svg")
    options = parser.parse_args()
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    curves: dict[str, list[list[tuple[int, float]]]] = {precision: [] for precision in PRECISIONS}
    seconds: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    for seed in range(options.seeds):
        for precision in PRECISIONS:
            run = options.out / f"{precision}-{seed}"
            subprocess.run(
                command(options.corpus, run, precision, seed, options), env=one_thread, check=True, capture_output=True
            )
            events = journal(run)
            evaluations = [event for event in events if event["event"] == "evaluation"]
            curves[precision].append([(event["step"], event["mlm_loss"]) for event in evaluations])
            seconds[precision].append(sum(event["seconds"] for event in events if event["event"] == "step"))
            print(f"{run.name}: {curves[precision][-1][-1][1]:.4f} after {seconds[precision][-1]:,.0f} s", flush=True)
    last = {precision: [curve[-1][1] for curve in own] for precision, own in curves.items()}
    means = {precision: statistics.mean(values) for precision, values in last.items()}
    deviations = {precision: statistics.stdev(values) for precision, values in last.items()}
    error = math.sqrt(sum(value**2 for value in deviations.values()) / options.seeds)
    difference = means[PRECISIONS[0]] - means[PRECISIONS[1]]
    for precision in PRECISIONS:
        print(f"{precision:18} {means[precision]:.4f} ± {deviations[precision]:.4f} nats")
    print(f"difference {difference:+.4f} nats, {difference / error:+.2f} standard errors")
    if options.picture is not None:
        draw(curves, options.picture)
    row = {"case": options.model, "ours": means[PRECISIONS[0]], "rival": "float32", "theirs": means[PRECISIONS[1]]}
    row |= {"ratio": None, "target": "within one standard error", "spread": error, "curves": curves, "seconds": seconds}
    print(json.dumps({"benchmark": "precision_convergence", "machine": platform.machine(), "rows": [row]}))


if __name__ == "__main__":
    main()
