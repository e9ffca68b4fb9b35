"""Two processes train, and one thing after another happens to them. Does the run end in the same weights?

    python benchmarks/faults.py --runs 25 --kills 4           # all of it, some 20 minutes on two cores
    python benchmarks/faults.py --quick --only kills          # the short form that the tests run

kills: processes are killed (SIGKILL) in their steps, in the middle of writing, syncing, renaming and deleting a
checkpoint, and from outside at random instants; then the same command is given again. signals: one process or the
launcher is told to stop. numbers: the loss of one process is no number. worlds: the number of processes changes from
sitting to sitting. disk (as root): a file system of a few megabytes is full. Each line of the table counts what ended
as it should.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from fault_scene import (
    SAVE_EVERY,
    STEPS,
    Scene,
    fingerprint,
    finish,
    own,
    records,
    small_corpus,
    start,
    steps_done,
    steps_redone,
    torchrun,
    wait_for_step,
    wait_until_gone,
    workers,
)

STAGES = ("step", "write", "sync", "rename", "delete", "outside")


def uninterrupted(scene: Scene, engine: Callable[[list[str]], list[str]] = torchrun) -> str:
    """The weights of a run that nothing happens to."""
    run = scene.folder / f"uninterrupted-{engine.__name__}"
    if finish(engine(scene.command(run)), None, run.with_suffix(".txt")):
        raise SystemExit(run.with_suffix(".txt").read_text())
    return fingerprint(run)


def kills(scene: Scene, expected: str, runs: int, kills_a_run: int) -> dict[str, Any]:
    """Runs that are killed again and again, then finished."""
    log, fell, redone, same = scene.folder / "kills.jsonl", Counter[str](), [], 0
    order = [STAGES[number % len(STAGES)] for number in range(runs * kills_a_run)]
    scene.chance.shuffle(order)
    for number in range(runs):
        run = scene.folder / f"killed-{number}"
        command = torchrun(scene.command(run))
        for stage in order[number * kills_a_run : (number + 1) * kills_a_run]:
            before = len(log.read_text().splitlines()) if log.exists() else 0
            kill_once(scene, run, command, stage, log)
            happened = log.read_text().splitlines()[before:] if log.exists() else []
            fell.update(json.loads(line)["stage"] for line in happened)
        code = finish(command, None, run.with_suffix(".txt"))
        good = code == 0 and fingerprint(run) == expected
        same += good
        redone += steps_redone(run)
        print(f"run {number + 1} of {runs}: {'the same weights' if good else f'NOT THE SAME, code {code}'}", flush=True)
        if good:
            shutil.rmtree(run)
    return {
        "case": "killed, then the same weights",
        "done": runs,
        "good": same,
        "kills": sum(fell.values()),
        "where": dict(fell),
        "most_steps_redone": max(redone, default=0),
        "save_interval": SAVE_EVERY,
    }


def kill_once(scene: Scene, run: Path, command: list[str], stage: str, log: Path) -> None:
    """Start the run and have something killed."""
    output = run.with_suffix(".txt")
    if stage == "outside":
        process = start(command, None, output)
        wait_for_step(run, steps_done(run) + 1, process)
        time.sleep(scene.chance.random() * 0.5)
        mine = [process.pid, *workers(process.pid)]
        victims = scene.chance.choice([mine, mine[:1], mine[1:2], mine[2:]])
        if process.poll() is None and victims:
            with log.open("a") as file:
                print(json.dumps({"stage": "outside", "victims": len(victims)}), file=file, flush=True)
        for victim in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        process.wait(timeout=120)
        wait_until_gone(mine)
        return
    writes = stage in ("write", "sync", "rename", "delete")
    fault = {
        "rank": 0 if writes else scene.chance.randrange(2),
        "stage": stage,
        "count": scene.chance.randint(1, {"step": 8, "write": 3, "sync": 12, "rename": 5, "delete": 2}[stage]),
        "log": str(log),
        "seed": scene.chance.randrange(10**6),
    }
    finish(command, fault, output)


def signals(scene: Scene, expected: str, times: int) -> dict[str, Any]:
    """One worker, or the launcher, is told to stop; the run is then finished."""
    expected_of = {torchrun: expected, own: uninterrupted(scene, own)}
    good, seconds = 0, []
    kinds = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP, signal.SIGQUIT)
    for number in range(times):
        kind = kinds[number % len(kinds)]
        run, output = scene.folder / f"told-{number}", scene.folder / f"told-{number}.txt"
        engine = (own, torchrun)[number % 2]
        process = start(engine(scene.command(run)), None, output)
        wait_for_step(run, scene.chance.randint(2, 20), process)
        told = [process.pid, *workers(process.pid)]
        whom = scene.chance.randrange(len(told))
        os.kill(told[whom], kind)
        began = time.monotonic()
        code = process.wait(timeout=120)
        wait_until_gone(told)  # torchrun itself knows nothing of SIGUSR1: it dies, and its workers see that
        seconds.append(time.monotonic() - began)
        latest = run / "latest"
        saved = latest.exists() and latest.read_text().strip() == f"step-{steps_done(run)}"
        codes = {128 + kind} if engine is own else {1, -kind}  # torchrun's are its own; SIGUSR1 ends it
        named = engine is own or whom == 0 or f"exitcode  : {128 + kind}" in output.read_text()
        again = finish(engine(scene.command(run)), None, output)
        is_good = saved and code in codes and named and not again and fingerprint(run) == expected_of[engine]
        good += is_good
        who = f"worker {whom - 1}" if whom else "launcher"
        told_by = f"{kind.name} to {who} ({engine.__name__})"
        print(f"{told_by}: code {code} after {seconds[-1]:.1f} s, {'good' if is_good else 'BAD'}", flush=True)
    return {
        "case": "told to stop, saved, then the same weights",
        "done": times,
        "good": good,
        "median_seconds": statistics.median(seconds),
        "most_seconds": max(seconds),
    }


def numbers(scene: Scene) -> dict[str, Any]:
    """The loss of the second process is no number in one, two and ten steps in a row."""
    good, done = 0, 0
    for stage, in_a_row in (("nan", 1), ("inf", 2), ("nan", 10)):
        run, first = scene.folder / f"{stage}-{in_a_row}", 7
        fault = {"rank": 1, "stage": stage, "count": first, "steps": in_a_row}
        command = torchrun(scene.command(run, "--checkpoint-steps", "1", "--keep-last", "100", steps=20))
        code = finish(command, fault, run.with_suffix(".txt"))
        skipped = [record["step"] for record in records(run) if record["event"] == "skipped"]
        kept = len({tensors_of(run, step) for step in range(first - 1, first + in_a_row)}) == 1 if code == 0 else True
        stopped = "in 10 steps in a row" in run.with_suffix(".txt").read_text()
        is_good = skipped == list(range(first, first + in_a_row)) and kept and stopped == (in_a_row == 10)
        good, done = good + is_good, done + 1
        print(f"{stage} in {in_a_row} steps of one process: code {code}, skipped {skipped}", flush=True)
    return {"case": "no number in one process: nothing changed anywhere", "done": done, "good": good}


def worlds(scene: Scene, *, quick: bool) -> dict[str, Any]:
    """A run goes on with 1, 2, 4 and again 1 processes, which have 4, 2, 1, … times 1 or 3 micro-batches each."""
    good, done, apart = 0, 0, 0.0
    for accumulation, is_exact in [(3, True)] if quick else [(1, True), (3, True), (1, False), (3, False)]:
        batch = ("--batch-size", str(8 * accumulation), "--samples", str(8 * accumulation * STEPS))
        more = (*batch, *["--deterministic"] * is_exact)
        name = f"{accumulation}-{is_exact}"
        alone, run = scene.folder / f"alone-{name}", scene.folder / f"walks-{name}"
        code = finish(torchrun(scene.command(alone, *more), processes=1), None, alone.with_suffix(".txt"))
        counts = (1, 2, 4, 1)
        for sitting, count in enumerate(counts):
            fault = {"stage": "slow", "seconds": 0.05 if sitting < 3 else 0.0}
            process = start(torchrun(scene.command(run, *more), processes=count), fault, run.with_suffix(".txt"))
            wait_for_step(run, 14 * (sitting + 1) if sitting < 3 else STEPS, process)
            if sitting < 3:
                os.kill(workers(process.pid)[-1], signal.SIGUSR1)
            code = process.wait(timeout=120)
        went = [(r["world_size"], r["resumed_from_step"]) for r in records(run) if r["event"] == "run"]
        walked = [count for count, _ in went] == list(counts) and all(
            step >= 14 * sitting for sitting, (_, step) in enumerate(went)
        )
        difference = farthest(alone, run)
        is_good = walked and code == 0 and (fingerprint(run) == fingerprint(alone) if is_exact else difference < 1e-5)
        good, done, apart = good + is_good, done + 1, max(apart, difference)
        kind = "deterministic" if is_exact else "default"
        print(f"{kind}, {4 * accumulation} micro-batches: {went}, weights apart by {difference:.1e}", flush=True)
    return {"case": "1, 2, 4, 1 processes: the same weights", "done": done, "good": good, "apart": apart}


def farthest(one: Path, other: Path) -> float:
    """Largest distance of a tensor's two values, relative to its norm."""
    first, second = (load_file(run / "huggingface" / "model.safetensors") for run in (one, other))
    # The gradient of a key's bias is zero but for rounding, which LAMB scales up.
    names = [name for name in first if not name.endswith("key.bias")]
    return max(float((first[name] - second[name]).norm() / first[name].norm()) for name in names)


def tensors_of(run: Path, step: int) -> tuple[str, ...]:
    """Hashes of weights and moments (and their counters) after a step."""
    folder = run / "checkpoints" / f"step-{step}"
    return tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.safetensors")))


def disk(scene: Scene, expected: str) -> dict[str, Any]:
    """The run's file system is full from the start of a step on: for a while, then for good."""
    good = 0
    for stays in (False, True):
        mount = scene.folder / f"disk-{stays}"
        mount.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(mount)], check=True)
        run, output = mount / "run", scene.folder / f"disk-{stays}.txt"
        process = start(torchrun(scene.command(run)), {"stage": "slow", "seconds": 0.05}, output)
        wait_for_step(run, 7, process)
        filler = mount / "filler"
        with contextlib.suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        time.sleep(8)
        waits = process.poll() is None
        if stays and waits:
            os.kill(workers(process.pid)[0], signal.SIGTERM)  # waits no longer
        elif not stays:
            filler.unlink()
        code = process.wait(timeout=120)
        whole = (run / "latest").read_text().strip()
        filler.unlink(missing_ok=True)
        again = finish(torchrun(scene.command(run)), None, output)
        is_good = waits and (code == 0) == (not stays) and not again and fingerprint(run) == expected
        good += is_good
        print(f"a full disk, {'for good' if stays else 'for 8 s'}: code {code}, last whole {whole}", flush=True)
        subprocess.run(["umount", str(mount)], check=True)
    return {"case": "full disk: waited for, then the same weights", "done": 2, "good": good}


def main() -> None:
    """All cases, or those that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=25)
    parser.add_argument("--kills", type=int, default=4, help="in each run")
    parser.add_argument("--signals", type=int, default=20)
    parser.add_argument("--only", action="append", choices=["kills", "signals", "numbers", "worlds", "disk"])
    parser.add_argument("--quick", action="store_true", help="the short form that the tests run")
    options = parser.parse_args()
    if options.quick:
        options.runs, options.kills, options.signals = 1, len(STAGES), 2
    chosen = options.only or ["kills", "signals", "numbers", "worlds", *["disk"] * (os.geteuid() == 0)]
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name)
        scene = Scene(folder, small_corpus(folder))
        expected = uninterrupted(scene) if {"kills", "signals", "disk"} & {*chosen} else ""
        cases = {
            "kills": lambda: kills(scene, expected, options.runs, options.kills),
            "signals": lambda: signals(scene, expected, options.signals),
            "numbers": lambda: numbers(scene),
            "worlds": lambda: worlds(scene, quick=options.quick),
            "disk": lambda: disk(scene, expected),
        }
        rows = []
        for case in chosen:
            rows.append(row := cases[case]())
            more = ", ".join(f"{name} {value}" for name, value in row.items() if name not in ("case", "done", "good"))
            print(f"{row['case']:52} {row['good']:3} of {row['done']:3}   {more}", flush=True)
    print(json.dumps({"benchmark": "faults", "machine": platform.machine(), "rows": rows}))


if __name__ == "__main__":
    main()
