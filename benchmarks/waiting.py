"""Steps on all cores: how threads wait for each other, and processes of one thread in their place.

    python benchmarks/waiting.py CORPUS OUT [--models tiny mini] [--lengths 32 128] [--rounds 3] [--loads idle busy]

On an idle machine and beside a busy loop. The ways take turns; a figure is the median over rounds of a run's median
step, the first ten left out. Prints a table (milliseconds a step of 128 sequences) and, last, one JSON line.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
PROCESSES = "a process for each core"
WAYS: dict[str, dict[str, str]] = {
    "GOMP_SPINCOUNT=300000": {"GOMP_SPINCOUNT": "300000"},  # libgomp's default
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
    PROCESSES: {"OMP_NUM_THREADS": "1"},
}
STEPS, SKIPPED = 60, 10


def step_milliseconds(way: str, corpus: Path, out: Path, model: str, length: int) -> float:
    """Median of a run's steps but the first ten."""
    options = {
        "corpus": corpus, "out": out, "model": model, "batch-size": 128, "samples": 128 * STEPS,
        "sequence-lengths": length, "dropout": 0, "optimizer": "muon", "probe-seconds": 0, "evaluation-samples": 0,
        "processes": len(os.sched_getaffinity(0)) if way == PROCESSES else 1,
    }  # fmt: skip
    flags = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    environment = {name: value for name, value in os.environ.items() if name not in WAITING} | WAYS[way]
    command = [sys.executable, "-m", "lambert", "pretrain", "--fresh", *flags]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    events = map(json.loads, (out / "journal.jsonl").read_text().splitlines())
    return 1e3 * statistics.median([event["seconds"] for event in events if event["event"] == "step"][SKIPPED:])


def main() -> None:
    """Measure all ways in turn, idle and busy."""
    parser = argparse.ArgumentParser()
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--models", nargs="+", default=["tiny"])
    parser.add_argument("--lengths", nargs="+", type=int, default=[32])
    parser.add_argument("--loads", nargs="+", default=["idle", "busy"])
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    rows = []
    for load in chosen.loads:
        loop = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if load == "busy" else None
        try:
            for model, length in itertools.product(chosen.models, chosen.lengths):
                rounds = [
                    {way: step_milliseconds(way, chosen.corpus, chosen.out, model, length) for way in WAYS}
                    for _ in range(chosen.rounds)
                ]
                for way in WAYS:
                    steps = sorted(one[way] for one in rounds)
                    row = {"load": load, "model": model, "length": length, "way": way, "milliseconds": steps}
                    rows.append(row)
                    print(
                        f"{load:5} {model:6} {length:4} {way:24} {statistics.median(steps):7.1f} ms "
                        f"({steps[0]:.1f} to {steps[-1]:.1f})",
                        flush=True,
                    )
        finally:
            if loop is not None:
                loop.kill()
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
