"""How far is `lambert plan` from what `lambert pretrain` then takes on this machine, in time and in memory?

    python benchmarks/forecast.py CORPUS OUT --models tiny mini small --minutes 6

For each model: a first plan tells how many samples fill the minutes; a second one predicts that run; the run follows,
in a process of its own and without a probe. With --processes, one process of one thread and several are predicted and
run as well, and their efficiency (speed-up over the number of processes) predicted and seen.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

FIRST_SAMPLES = 20_000


def lambert(words: list[str], threads: int) -> dict[str, Any]:
    """Results of a command line."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)} if threads else dict(os.environ)
    done = subprocess.run(
        [sys.executable, "-m", "lambert", *words, "--json"], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise SystemExit(f"lambert {' '.join(words)} ended with {done.returncode}: {done.stderr}")
    results: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return results


def common(arguments: argparse.Namespace, model: str, samples: int, processes: int) -> list[str]:
    """Options of plan and run alike."""
    lengths = [str(length) for length in arguments.sequence_lengths]
    return [
        "--model", model, "--corpus", str(arguments.corpus), "--batch-size", str(arguments.batch_size), "--samples",
        str(samples), "--sequence-lengths", *lengths, "--micro-batch-size", str(arguments.micro_batch_size),
        "--processes", str(processes),
    ]  # fmt: skip


def peak_of(run: Path) -> tuple[float, int]:
    """Seconds, and peak memory of the first process, of a run that has ended."""
    events = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    return next((event["seconds"], event["memory_bytes"]) for event in events if event["event"] == "outcome")


def measure(arguments: argparse.Namespace, model: str, *, processes: int, threads: int) -> dict[str, Any]:
    """Predicted and actual of one run."""
    first = lambert(["plan", *common(arguments, model, FIRST_SAMPLES, processes)], threads)
    samples = round(FIRST_SAMPLES * 60 * arguments.minutes / first["seconds"])
    options = common(arguments, model, samples, processes)
    predicted = lambert(["plan", *options], threads)["forecast"]
    run = arguments.out / f"{model}-{processes}-{threads}"
    shutil.rmtree(run, ignore_errors=True)
    lambert(["pretrain", *options, "--out", str(run), "--probe-seconds", "0"], threads)
    seconds, memory = peak_of(run)
    return {
        "case": f"{model}, {processes} process{'es' * (processes > 1)}" + f", {threads} thread" * bool(threads),
        "samples": samples,
        "predicted_seconds": predicted["seconds"], "seconds": seconds,
        "time_error": predicted["seconds"] / seconds - 1,
        "predicted_memory_bytes": predicted["memory_bytes"], "memory_bytes": memory,
        "memory_error": predicted["memory_bytes"] / memory - 1,
        "samples_per_second": samples / seconds, "predicted_samples_per_second": samples / predicted["seconds"],
    }  # fmt: skip


def show(row: dict[str, Any]) -> None:
    """A line of the table."""
    print(
        f"{row['case']:28} {row['samples']:>9,} {row['predicted_seconds']:>9.0f} s {row['seconds']:>7.0f} s "
        f"{row['time_error']:>+7.1%} {row['predicted_memory_bytes'] / 1e9:>8.2f} GB "
        f"{row['memory_bytes'] / 1e9:>6.2f} GB "
        f"{row['memory_error']:>+7.1%}",
        flush=True,
    )


def main() -> None:
    """A table, the efficiency, and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--models", nargs="+", default=["tiny", "mini", "small"])
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--micro-batch-size", type=int, default=32)
    parser.add_argument("--sequence-lengths", type=int, nargs=2, default=[64, 256])
    parser.add_argument("--processes", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    print(
        f"{'run':28} {'samples':>9} {'predicted':>11} {'took':>9} {'off':>7} {'predicted':>11} {'peak':>9} {'off':>7}"
    )
    rows = []
    for model in arguments.models:
        rows.append(measure(arguments, model, processes=1, threads=0))
        show(rows[-1])
    if arguments.processes:
        for model in arguments.models:
            pair = [measure(arguments, model, processes=count, threads=1) for count in (1, arguments.processes)]
            for row in pair:
                show(row)
            seen, predicted = (
                pair[1][name] / pair[0][name] / arguments.processes
                for name in ("samples_per_second", "predicted_samples_per_second")
            )
            print(f"{model}: efficiency of {arguments.processes} processes predicted {predicted:.1%}, seen {seen:.1%}")
            rows += [*pair, {"case": f"{model}, efficiency", "predicted": predicted, "seen": seen}]
    print(json.dumps({"benchmark": "forecast", "machine": platform.processor() or platform.machine(), "rows": rows}))


if __name__ == "__main__":
    main()
