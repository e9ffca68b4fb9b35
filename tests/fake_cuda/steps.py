"""`python -m fake_cuda steps REPORT`: steps of training on the fake GPU, counted, then once for each planted fault."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from fake_cuda.device import GPU, FakeGpu, install
from fake_cuda.program import use_kernels
from lambert.data.dataloader import PretrainingBatch
from lambert.model.bert import BertConfig, BertModel
from lambert.model.heads import BertForPreTraining
from lambert.planning.probe import probe_step, random_batch
from lambert.training.config.precision import Precision
from lambert.training.distributed.process_group import ProcessGroup
from lambert.training.step import train_step
from lambert.training.step.train_state import TrainState

VOCABULARY = 1_000
"""Entries; not a multiple of 64."""


class Steps:
    """A model of some layers with its optimizer on the fake GPU."""

    def __init__(
        self,
        gpu: FakeGpu,
        *,
        layers: int = 2,
        optimizer: str = "lamb",
        precision: str = "bfloat16-autocast",
        processes: ProcessGroup | None = None,
        deterministic: bool = False,
        reduce_dtype: str = "float32",
        attention_dropout: float | None = None,
    ):
        self.gpu, self.number = gpu, 0
        size = BertConfig(VOCABULARY, layers, 128, 2, 512, attention_dropout=attention_dropout)
        self.config: Any = SimpleNamespace(
            precision=Precision(precision),
            weight_decay=0.01,
            deterministic=deterministic,
            no_compile=False,
            packs=False,
            reduce_dtype=reduce_dtype,
            optimizer=optimizer,
            betas=(0.9, 0.999),
            epsilon=1e-6,
            adamw_lr_ratio=1.0,
            ema_decay=0.0,
            max_grad_norm=1.0,
        )
        self.processes = processes or ProcessGroup(device=GPU)
        self.state = TrainState(BertForPreTraining(size), self.config, self.processes)

    def run(self, micro_batches: int = 1) -> None:
        """One step of rows with padding, on micro-batches made as the training loop makes them."""
        self.number += 1
        mask = torch.ones(4, 32, dtype=torch.bool)
        mask[:, 30:] = False
        batches = [
            replace(random_batch(4, 32, VOCABULARY), attention_mask=mask, real_tokens=120) for _ in range(micro_batches)
        ]
        probe_step(self.state, self.config, batches, [self.number] * micro_batches, processes=self.processes)

    def counts(self, micro_batches: int = 1) -> dict[str, Any]:
        """What the third step asks of the device."""
        for _ in range(2):
            self.run(micro_batches)
        counters = (self.gpu.launches, self.gpu.syncs, self.gpu.uploads, self.gpu.downloads)
        for counter in counters:
            counter.clear()
        self.run(micro_batches)
        uploads = dict.fromkeys(("pinned", "pageable"), 0)
        for (kind, _), number in self.gpu.uploads.items():
            uploads[kind.split()[0]] += number
        totals = {name: self.gpu.totals()[name] for name in ("syncs", "uploads", "downloads", "launches")}
        ours = {
            name: sum(n for (_, where), n in getattr(self.gpu, name).items() if where.startswith("optim/"))
            for name in ("syncs", "uploads")
        }
        where = {" at ".join(key): n for key, n in self.gpu.syncs.items()}
        return {**totals, **uploads, "optimizer": ours, "where": where}


def positions_on_the_cpu() -> Any:
    """Position ids made on the host."""
    forward = BertModel.forward

    def broken(self: BertModel, ids: Any, segments: Any, mask: Any, positions: Any = None, *rest: Any) -> Any:
        return forward(self, ids, segments, mask, torch.arange(ids.shape[1]), *rest)

    return mock.patch.object(BertModel, "forward", broken)


def left_on_the_cpu(field: str) -> Callable[[], Any]:
    """One tensor of the batch that is not uploaded."""

    def patch() -> Any:
        to = PretrainingBatch.to

        def broken(self: PretrainingBatch, device: torch.device) -> PretrainingBatch:
            return replace(to(self, device), **{field: getattr(self, field)})

        return mock.patch.object(PretrainingBatch, "to", broken)

    return patch


def in_the_task(change: Callable[[Any], Any]) -> Callable[[], Any]:
    """Something done to the MLM loss."""

    def patch() -> Any:
        backward = train_step.forward_and_backward

        def broken(model: Any, task: Any, *rest: Any) -> Any:
            def other(*args: Any) -> Any:
                output = task(*args)
                sums = dict(output.loss_sums)
                return replace(output, loss_sums={**sums, "mlm": change(sums["mlm"])})

            return backward(model, other, *rest)

        return mock.patch.object(train_step, "forward_and_backward", broken)

    return patch


def moments_on_the_cpu(steps: Steps) -> None:
    """A checkpoint restored without its device."""
    state = next(state for parameter, state in steps.state.optimizer.state.items() if parameter.dim() == 2)
    state["exp_avg"] = torch.zeros(state["exp_avg"].shape)


FAULTS: dict[str, Callable[[], Any]] = {
    "positions on the CPU": positions_on_the_cpu,
    "a mask left on the CPU": left_on_the_cpu("attention_mask"),
    "labels left on the CPU": left_on_the_cpu("masked_labels"),
    "masked positions left on the CPU": left_on_the_cpu("masked_positions"),
    "a vector made on the CPU": in_the_task(lambda loss: (loss + torch.zeros(3)).sum()),
    "numpy() of a device tensor": in_the_task(lambda loss: torch.from_numpy(loss.detach().numpy())),
    "item() in every step": in_the_task(lambda loss: loss * (1.0 if loss.item() >= 0 else 2.0)),
}


def caught(steps: Steps, counts: dict[str, Any]) -> str:
    """How the steps end: the error's type, a count that differs, or nothing."""
    try:
        found = steps.counts()
    except Exception as error:
        steps.gpu.compiled = None  # the block in which it failed
        return type(error).__name__
    return next((name for name in counts if found[name] != counts[name]), "")


def main() -> None:
    """Count, plant each fault, and write the report."""
    gpu = FakeGpu()
    install(gpu)
    use_kernels(gpu)
    with gpu:
        counts = {
            f"{layers} layers, {optimizer}, {precision}": Steps(
                gpu, layers=layers, optimizer=optimizer, precision=precision
            ).counts()
            for layers, optimizer, precision in (
                (12, "lamb", "bfloat16-autocast"),
                (12, "lamb", "bfloat16-master"),
                (2, "lans", "bfloat16-autocast"),
                (2, "lars", "bfloat16-autocast"),
                (2, "muon", "bfloat16-master"),
                (2, "adamw", "float32"),
            )
        }
        counts["12 layers, lamb, no attention dropout"] = Steps(
            gpu, layers=12, precision="bfloat16-master", attention_dropout=0.0
        ).counts()
        for optimizer in ("lamb", "muon", "adamw"):
            scaled = Steps(gpu, optimizer=optimizer)
            scaled.state.optimizer.grad_scale = torch.ones((), device=GPU)
            counts[f"2 layers, {optimizer}, and a loss scale"] = scaled.counts()
        sound = Steps(gpu).counts()
        found = {}
        for name, patch in FAULTS.items():
            with patch():
                found[name] = caught(Steps(gpu), sound)
        for optimizer in ("lamb", "adamw"):
            steps = Steps(gpu, optimizer=optimizer)
            steps.run()
            moments_on_the_cpu(steps)
            found[f"moments of {optimizer} on the CPU"] = caught(steps, sound)
        found["no fault"] = caught(Steps(gpu), sound)
    Path(sys.argv[2]).write_text(json.dumps({"counts": counts, "faults": found}, indent=1))
