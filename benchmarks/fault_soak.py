"""A run of two processes for an hour, killed every few minutes and started again: the same weights, and flat memory?

    python benchmarks/fault_soak.py --minutes 60

Steps are slowed down to a fifth of a second, and every fifth is saved; afterwards the same steps are done without
slowness or kills. Memory is what each worker holds (RSS) a minute after its start and just before it is killed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import signal
import statistics
import tempfile
import time
from pathlib import Path

from fault_scene import (
    Scene,
    fingerprint,
    finish,
    small_corpus,
    start,
    steps_redone,
    torchrun,
    wait_until_gone,
    workers,
)

STEP_SECONDS = 0.2
SETTLED_SECONDS = 60.0


def resident_bytes(process: int) -> int:
    """Memory that a process holds."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    return 1024 * int(found[1]) if found else 0


def main() -> None:
    """The long run, the short one, and a line about both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    options = parser.parse_args()
    growth, sizes = [], []
    kills = 0
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder, chance = Path(name), random.Random(2)
        scene = Scene(folder, small_corpus(folder), chance)
        steps = round(60 * options.minutes / STEP_SECONDS)
        run, alone = folder / "run", folder / "alone"
        code = None
        while code is None:
            slow = {"stage": "slow", "seconds": STEP_SECONDS}
            process = start(torchrun(scene.command(run, steps=steps)), slow, folder / "run.txt")
            began, until = time.monotonic(), SETTLED_SECONDS + chance.uniform(60, 240)
            settled: dict[int, int] = {}
            while process.poll() is None and time.monotonic() - began < until:
                time.sleep(1)
                if not settled and time.monotonic() - began > SETTLED_SECONDS:
                    settled = {worker: resident_bytes(worker) for worker in workers(process.pid)}
            if process.poll() is not None:
                code = process.wait()
                break
            for worker, before in settled.items():
                now = resident_bytes(worker)
                minutes = (time.monotonic() - began - SETTLED_SECONDS) / 60
                growth.append((now - before) / minutes)
                sizes.append(now)
            kills += 1
            mine = [process.pid, *workers(process.pid)]
            os.kill(chance.choice(mine), signal.SIGKILL)
            process.wait(timeout=120)
            wait_until_gone(mine)
            print(f"kill {kills}, sizes {sizes[-2:]}, bytes a minute {[round(g) for g in growth[-2:]]}", flush=True)
        again = finish(torchrun(scene.command(alone, steps=steps)), None, folder / "alone.txt", seconds=3_000)
        same = code == again == 0 and fingerprint(run) == fingerprint(alone)
        redone = max(steps_redone(run), default=0)
    print(f"{steps:,} steps, {kills} kills, at most {redone} steps redone, the same weights: {same}")
    print(f"memory: median {statistics.median(growth) / 1e3:+,.0f} kB a minute, {min(sizes):,} to {max(sizes):,} bytes")
    row = {"case": "soak", "steps": steps, "kills": kills, "same": same, "growth": growth, "sizes": sizes}
    print(json.dumps({"benchmark": "fault_soak", "machine": platform.machine(), "rows": [row]}))


if __name__ == "__main__":
    main()
