"""Steps of a tiny model on all cores, by how threads wait for each other, on an idle machine and beside a busy loop.

    python benchmarks/waiting.py CORPUS OUT [--rounds 3]

Prints a table (median step, milliseconds) and, last, one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

POLICIES: dict[str, dict[str, str]] = {
    "libgomp's default": {},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
OPTIONS = (
    "model='tiny', batch_size=128, samples=128*80, sequence_lengths=(32,), dropout=0.0, optimizer='muon', "
    "probe_seconds=0, evaluation_samples=0, progress=False, fresh=True"
)


def step_milliseconds(corpus: Path, out: Path, policy: dict[str, str]) -> float:
    """Median of a run's steps but the first ten."""
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in names} | policy
    program = f"import lambert; lambert.pretrain({str(corpus)!r}, out={str(out)!r}, {OPTIONS})"
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True)
    events = map(json.loads, (out / "journal.jsonl").read_text().splitlines())
    return 1e3 * statistics.median([event["seconds"] for event in events if event["event"] == "step"][10:])


def main() -> None:
    """Measure all policies in turn, idle and busy."""
    parser = argparse.ArgumentParser()
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    medians: dict[str, dict[str, float]] = {}
    for load in ("idle", "busy"):
        loop = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if load == "busy" else None
        rounds = [
            {name: step_milliseconds(chosen.corpus, chosen.out, policy) for name, policy in POLICIES.items()}
            for _ in range(chosen.rounds)
        ]
        if loop is not None:
            loop.kill()
        medians[load] = {name: statistics.median(one[name] for one in rounds) for name in POLICIES}
    for name in POLICIES:
        print(f"{name:24} idle {medians['idle'][name]:7.1f}  busy {medians['busy'][name]:7.1f}")
    print(json.dumps(medians))


if __name__ == "__main__":
    main()
