"""Where faults happen: small runs of two processes, started, watched and compared from outside."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WORKER = Path(__file__).with_name("fault_worker.py")
SAVE_EVERY = 5
STEPS = 60
SECONDS_TO_END = 30.0
"""`torchrun` kills who has not ended so long after a signal."""


@dataclass
class Scene:
    """Where runs happen."""

    folder: Path
    corpus: Path
    chance: random.Random = field(default_factory=lambda: random.Random(1))

    def command(self, run: Path, *more: str, steps: int = STEPS) -> list[str]:
        """`pretrain` of a model so small that its start is what takes the time."""
        text = (
            f"pretrain --corpus {self.corpus} --out {run} --model 2x32 --batch-size 8 --micro-batch-size 2 "
            "--probe-seconds 0 "
            f"--samples {8 * steps} --sequence-lengths 32 64 --learning-rate .01 --evaluation-samples 0 "
            f"--precision float32 --checkpoint-steps {SAVE_EVERY} --timeout-minutes 1"
        )
        return [*text.split(), *more]


def torchrun(words: list[str], *, processes: int = 2) -> list[str]:
    """Under `torchrun`, as workers that faults can happen to."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*launcher, str(WORKER), *words]


def own(words: list[str], *, processes: int = 2) -> list[str]:
    """Started by lambert itself, with its compiled kernels, whose bits are others than PyTorch's."""
    return [sys.executable, "-m", "lambert", *words, "--processes", str(processes)]


def start(command: list[str], fault: dict[str, Any] | None, output: Path) -> subprocess.Popen[str]:
    """Begin a command, in a process group of its own, whose output goes to a file."""
    environment = {**os.environ, "FAULT": json.dumps(fault or {}), "OMP_NUM_THREADS": "1"}
    with output.open("a") as file:
        return subprocess.Popen(
            command, env=environment, stdout=file, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )


def finish(command: list[str], fault: dict[str, Any] | None, output: Path, *, seconds: float = 300) -> int:
    """Run a command to its end, within so many seconds; returns its code."""
    return start(command, fault, output).wait(timeout=seconds)


def workers(launcher: int) -> list[int]:
    """The processes that a launcher has started, in the order of their ranks."""
    found = subprocess.run(["pgrep", "-P", str(launcher)], capture_output=True, text=True, check=False)
    alive = [int(word) for word in found.stdout.split()]
    return [process for process in alive if "pretrain" in Path(f"/proc/{process}/cmdline").read_text()]


def steps_done(run: Path) -> int:
    """The last step in the journal; 0 before the first."""
    return max((record["step"] for record in records(run) if record["event"] == "step"), default=0)


def records(run: Path) -> list[dict[str, Any]]:
    """The journal, without the half line that a kill may leave."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for line in (run / "journal.jsonl").read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
    return found


def wait_for_step(run: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Until a step is in the journal, or the process has ended."""
    while steps_done(run) < step and process.poll() is None:
        time.sleep(0.02)


def fingerprint(run: Path) -> str:
    """SHA-256 of the finished weights; empty where there are none."""
    path = run / "huggingface" / "model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def wait_until_gone(processes: list[int]) -> None:
    """Until none of them is left; those of a killed launcher end by themselves."""
    deadline = time.monotonic() + SECONDS_TO_END
    while any(is_alive(process) for process in processes):
        if time.monotonic() > deadline:
            raise SystemExit(f"processes {processes} outlived their launcher")
        time.sleep(0.05)


def is_alive(process: int) -> bool:
    """Whether a process runs; one that has ended and is not yet reaped does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def steps_redone(run: Path) -> list[int]:
    """For each time that a run went on: how many steps it had done beyond the checkpoint."""
    last, redone = 0, []
    for record in records(run):
        if record["event"] == "run" and last:
            redone.append(last - record["resumed_from_step"])
        if record["event"] == "step":
            last = record["step"]
    return redone


def small_corpus(folder: Path) -> Path:
    """A corpus of sentences over made-up words."""
    chance = random.Random(0)
    words = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    text = "\n\n".join(
        "\n".join(" ".join(chance.choices(words, k=9)).capitalize() + "." for _ in range(12)) for _ in range(60)
    )
    (folder / "text.txt").write_text(text)
    command = [sys.executable, "-m", "lambert", "prepare", str(folder / "text.txt"), "--out", str(folder / "corpus")]
    subprocess.run([*command, "--vocab-size", "200"], check=True, capture_output=True)
    return folder / "corpus"
