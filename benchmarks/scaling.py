"""Scaling efficiency of two ranks against one, and where the time goes. One core for each process.

    python benchmarks/scaling.py CORPUS --models mini base --accumulation 1 8 --rounds 5
    python benchmarks/scaling.py CORPUS --checkpoints

Variants of a step take turns in the same two processes, each with its own model:

    alone          rank 0; rank 1 waits
    apart          both without communication: what they lose is contention for memory and caches
    float32        both partition the batch, all-reduce in float32
    bfloat16       the same, all-reduce in bfloat16
    deterministic  the same with a deterministic tree all-reduce (mini only)

Weak efficiency is alone / way, at the same work for each process; strong efficiency compares with one process that
does the work of both. Medians are wall-clock. Bytes and collectives of a step are counted where they are called.
With --checkpoints a run saves every 20 steps, and the table says what that adds to it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing

from lambert.corpus.store import Corpus
from lambert.data.dataloader import PretrainingBatch, SampleStream, example_source
from lambert.model.heads import BertForPreTraining
from lambert.model.presets import model_config
from lambert.training.config.precision import Precision
from lambert.training.distributed.process_group import ProcessGroup
from lambert.training.malloc import apply_allocator_settings
from lambert.training.optimizer import make_optimizer
from lambert.training.step.pretraining_loss import pretraining_task
from lambert.training.step.train_state import prepare_model
from lambert.training.step.train_step import train_step

TARGETS = {("mini", 1): 0.97, ("mini", 8): 0.995, ("base", 1): 0.90, ("base", 8): 0.985}
LENGTH = 128


class Way:
    """A model and how its gradients are added up."""

    def __init__(self, name: str, model: str, corpus: Corpus, processes: ProcessGroup) -> None:
        torch.manual_seed(0)
        self.name = name
        self.processes = processes if name in ("float32", "bfloat16", "deterministic") else ProcessGroup()
        self.model = BertForPreTraining(model_config(model, vocabulary_size=corpus.vocabulary_size, dropout=0.1))
        working = prepare_model(
            self.model,
            Precision.BFLOAT16_MASTER,
            weight_decay=0.01,
            processes=self.processes,
            deterministic=name == "deterministic",
            reduce_in_bfloat16=name == "bfloat16",
        )
        self.master, self.gradients = working.master, working.gradients
        self.optimizer = make_optimizer("lamb", working.groups, working.names, betas=(0.9, 0.999), epsilon=1e-6)

    def step(self, batches: list[PretrainingBatch]) -> float:
        """Seconds of one step."""
        began = time.perf_counter()
        train_step(
            self.model, self.optimizer, batches, task=pretraining_task, learning_rate=1e-4, max_grad_norm=1.0,
            dropout_seeds=list(range(len(batches))), precision=Precision.BFLOAT16_MASTER, processes=self.processes,
            master=self.master, gradients=self.gradients,
        )  # fmt: skip
        return time.perf_counter() - began


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Collectives and the bytes that this process hands to them."""
    counts = {"collectives": 0, "bytes": 0}
    real, exchange = distributed.all_reduce, distributed.batch_isend_irecv

    def all_reduce(tensor: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        counts["collectives"] += 1
        counts["bytes"] += tensor.nbytes
        return real(tensor, *arguments, **options)

    def exchanged(operations: list[Any]) -> Any:
        counts["collectives"] += 1
        counts["bytes"] += operations[0].tensor.nbytes
        return exchange(operations)

    distributed.all_reduce, distributed.batch_isend_irecv = all_reduce, exchanged
    try:
        yield counts
    finally:
        distributed.all_reduce, distributed.batch_isend_irecv = real, exchange


def process(rank: int, meet: str, model: str, options: argparse.Namespace, out: str) -> None:
    """One of the two."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank]})
    torch.set_num_threads(1)
    apply_allocator_settings()
    distributed.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=2)
    processes = ProcessGroup(rank, 2)
    corpus = Corpus.open(options.corpus)
    size = 2_048 // LENGTH if model == "base" else 4_096 // LENGTH
    stream = SampleStream(example_source(corpus, "train", sequence_length=LENGTH, seed=0, phase=1))
    most = 2 * max(options.accumulation)
    batches = [stream.batch((rank * most + index) * size, size) for index in range(most)]
    names = ["alone", "float32", "bfloat16", *["deterministic"] * (model != "base")]
    ways = {name: Way(name, model, corpus, processes) for name in names}
    for way in ways.values():
        way.step(batches[:1])
    found: dict[str, Any] = {}
    for count in options.accumulation:
        for round_ in range(options.rounds):
            for name in ("alone", "twice", "apart", *names[1:]):
                is_first_only = name in ("alone", "twice")
                # Who waits here sleeps, so that a step alone has the machine for itself.
                distributed.monitored_barrier()
                if is_first_only and rank:
                    continue
                way = ways["alone" if name in ("twice", "apart") else name]
                with counted() as counts:
                    seconds = way.step(batches[: 2 * count if name == "twice" else count])
                found.setdefault(f"{count}/{name}", []).append(seconds)
                if not round_:
                    found[f"{count}/{name}/counts"] = dict(counts)
    if rank == 0:
        Path(out).write_text(json.dumps(found))
    distributed.monitored_barrier()
    distributed.destroy_process_group()


def measure(model: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """All ways of one model; prints its table."""
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/out"
        multiprocessing.start_processes(process, (f"{folder}/meet", model, options, out), 2, start_method="spawn")
        found = json.loads(Path(out).read_text())
    rows = []
    for count in options.accumulation:
        alone, twice = (statistics.median(found[f"{count}/{name}"]) for name in ("alone", "twice"))
        apart = statistics.median(found[f"{count}/apart"])
        print(f"\n{model}, {count} micro-batch(es) a step and process, target {TARGETS.get((model, count))}")
        heads = (
            f"{'ms a step':>10} {'least..most':>16} {'weak':>7} {'strong':>7} {'over apart':>11} {'calls':>6} {'MB':>7}"
        )
        print(f"{'':14} {heads}")
        for key, seconds in found.items():
            prefix, _, name = key.partition("/")
            if prefix != str(count) or name.endswith("counts") or name == "twice":
                continue
            median, counts = statistics.median(seconds), found[f"{key}/counts"]
            row = {
                "case": f"{model}/{count}/{name}", "ours": median, "rival": "alone", "theirs": alone,
                "ratio": alone / median, "strong": twice / 2 / median, "over_apart": median - apart,
                "target": TARGETS.get((model, count)), "spread": max(seconds) - min(seconds), **counts,
            }  # fmt: skip
            rows.append(row)
            spread = f"{1e3 * min(seconds):,.0f}..{1e3 * max(seconds):,.0f}"
            print(
                f"{name:14} {1e3 * median:10,.0f} {spread:>16} {alone / median:7.1%} {twice / 2 / median:7.1%} "
                f"{1e3 * (median - apart):8,.0f} ms {counts['collectives']:6} {counts['bytes'] / 1e6:7.1f}"
            )
    return rows


def checkpoints(options: argparse.Namespace) -> list[dict[str, Any]]:
    """What saving adds to a run of one process: steps from save to save, beside steps without."""
    every, rows = 20, []
    for model in options.models:
        batch = 16 if model == "base" else 256
        with tempfile.TemporaryDirectory() as folder:
            command = [
                *(
                    sys.executable,
                    "-m",
                    "lambert",
                    "pretrain",
                    "--corpus",
                    str(options.corpus),
                    "--out",
                    folder + "/run",
                ),
                *("--model", model, "--batch-size", str(batch), "--samples", str(batch * (1 + 4 * every))),
                *("--micro-batch-size", str(min(batch, 32)), "--sequence-lengths", "128", "128", "--threads", "1"),
                *("--checkpoint-steps", str(2 * every), "--evaluation-samples", "0"),
            ]
            subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            lines = [json.loads(line) for line in Path(folder, "run", "journal.jsonl").read_text().splitlines()]
        times = {line["step"]: line["time"] for line in lines if line["event"] == "step"}
        saved = next(line for line in lines if line["event"] == "checkpoint")
        # Step 40 is saved: what follows until step 60 has the copy and the writing in it, steps 20 to 40 have none.
        without, with_one = times[2 * every] - times[every], times[3 * every] - times[2 * every]
        step = without / every
        added = with_one - without
        print(
            f"{model}: a step {step:.2f} s; {saved['bytes'] / 1e6:.0f} MB written in {saved['seconds']:.2f} s; "
            f"{every} steps {without:.2f} s, with a checkpoint {with_one:.2f} s ({added / without:+.1%}); of the five "
            f"minutes between two {added / 300:+.2%}"
        )
        rows.append({"case": f"checkpoint/{model}", "ours": with_one, "theirs": without, "ratio": with_one / without})
    return rows


def main() -> None:
    """Tables, and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--models", nargs="+", default=["mini", "base"])
    parser.add_argument("--accumulation", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--checkpoints", action="store_true")
    options = parser.parse_args()
    if options.checkpoints:
        rows = checkpoints(options)
    else:
        rows = [row for model in options.models for row in measure(model, options)]
    print(json.dumps({"benchmark": "scaling", "machine": platform.machine(), "rows": rows}))


if __name__ == "__main__":
    main()
