"""The files of docs/launch, run here on one node of two processes, with stand-ins for the commands of a scheduler."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from lambert.corpus.store import Corpus

LAUNCH = Path(__file__).resolve().parents[2] / "docs" / "launch"
# AdamW, because LAMB's kernels take seconds to compile, and no scheduler knows which it is.
OPTIONS = (
    "--model 2x32 --optimizer adamw --batch-size 8 --micro-batch-size 2 --sequence-lengths 32 64 "
    "--probe-seconds 0 --evaluation-samples 0 --samples"
)


@pytest.fixture
def environment(tmp_path: Path, small_corpus: Corpus) -> dict[str, str]:
    """Without a GPU's driver, on a free port, with stand-ins for `srun` and `scontrol`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "srun").write_text('#!/bin/sh\nexec "$@"\n')
    (tools / "scontrol").write_text(
        f'#!/bin/sh\nif [ "$1" = requeue ]; then echo "$2" >> {tmp_path}/requeued; else echo localhost; fi\n'
    )
    for tool in tools.iterdir():
        tool.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CORPUS": str(small_corpus.path),
        "RUN": str(tmp_path / "run"),
        "OPTIONS": f"{OPTIONS} 80",
        "PROCESSES_PER_NODE": "2",
        "PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }


def run(script: str, environment: dict[str, str]) -> None:
    script = script.replace("29500", environment["PORT"])
    ended = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=200
    )
    assert ended.returncode == 0, ended.stderr
    assert (Path(environment["RUN"]) / "huggingface" / "config.json").exists()
    assert '"world_size": 2' in (Path(environment["RUN"]) / "journal.jsonl").read_text()


def test_slurm_saves_before_its_time_is_up_and_queues_itself_again(tmp_path: Path, environment: dict[str, str]) -> None:
    script = (LAUNCH / "slurm.sh").read_text()
    told = re.search(r"^#SBATCH --signal=(\w+)@(\d+)$", script, re.MULTILINE)
    assert told is not None and int(told[2]) >= 60 and "#SBATCH --requeue" in script
    environment |= {"SLURM_JOB_NODELIST": "here", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_ID": "17"}
    environment["OPTIONS"] = f"{OPTIONS} 80000"
    job = subprocess.Popen(["bash", "-c", script], env=environment, stderr=subprocess.PIPE, text=True)
    journal = tmp_path / "run" / "journal.jsonl"
    while not (journal.exists() and journal.read_text().count('"event": "step"') > 3):
        assert job.poll() is None
        time.sleep(0.1)
    (launcher,) = subprocess.check_output(["pgrep", "-P", str(job.pid)], text=True).split()
    os.kill(int(launcher), signal.Signals[f"SIG{told[1]}"])
    _, errors = job.communicate(timeout=60)
    assert job.returncode == 0, errors
    assert (tmp_path / "requeued").read_text() == "17\n"
    assert (tmp_path / "run" / "latest").exists()


def test_slurm_ends_when_the_run_does(tmp_path: Path, environment: dict[str, str]) -> None:
    environment |= {"SLURM_JOB_NODELIST": "here", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_ID": "17"}
    run((LAUNCH / "slurm.sh").read_text(), environment)
    assert not (tmp_path / "requeued").exists()


def test_kubernetes(environment: dict[str, str]) -> None:
    service, job = yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())
    template = job["spec"]["template"]["spec"]
    assert template["subdomain"] == service["metadata"]["name"]
    assert template["terminationGracePeriodSeconds"] >= 30
    (container,) = template["containers"]
    set_there = {entry["name"]: entry["value"] for entry in container["env"]}
    assert set_there["NODES"] == str(job["spec"]["completions"]) == str(job["spec"]["parallelism"])
    (script,) = container["args"]
    run(script, {**set_there, **environment, "NODES": "1", "HEAD": "localhost"})


def test_skypilot(environment: dict[str, str]) -> None:
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    sky = {"SKYPILOT_NUM_NODES": "1", "SKYPILOT_NUM_GPUS_PER_NODE": "2", "SKYPILOT_NODE_IPS": "127.0.0.1\n10.0.0.2"}
    run(task["run"], {**task["envs"], **environment, **sky})


def test_slurm_does_not_queue_again_what_fails_at_its_start(tmp_path: Path, environment: dict[str, str]) -> None:
    """The journal's last line is then of the sitting before, which was interrupted."""
    environment |= {"SLURM_JOB_NODELIST": "here", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_ID": "17"}
    environment["CORPUS"] = str(tmp_path / "nothing")
    journal = Path(environment["RUN"]) / "journal.jsonl"
    journal.parent.mkdir()
    journal.write_text('{"event": "end", "step": 4, "reason": "interrupted"}\n')
    script = (LAUNCH / "slurm.sh").read_text()
    ended = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, check=False, timeout=200)
    assert ended.returncode != 0
    assert not (tmp_path / "requeued").exists()
