"""Stage 4: gradients against those of the same model in float64."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from gpu_check.measure import wait
from gpu_check.report import Report
from gpu_check.stages import Settings
from lambert.data.dataloader import PretrainingBatch
from lambert.model.heads import BertForPreTraining
from lambert.model.presets import model_config
from lambert.planning.probe import random_batch
from lambert.training.config.precision import Precision
from lambert.training.step.pretraining_loss import pretraining_task

LARGEST = {Precision.FLOAT32: 2e-3, Precision.BFLOAT16_AUTOCAST: 3e-2, Precision.BFLOAT16_MASTER: 3e-2}
"""Largest relative error of the whole gradient; float32 may multiply in TF32."""


def gradients(settings: Settings, report: Report) -> None:
    """Relative errors of the whole gradient and of the worst parameter, without dropout."""
    names, vocabulary, rows, length = ("tiny", "base"), 30_522, 8, 128
    if settings.small:
        names, vocabulary, rows, length = ("1x64", "2x64"), 500, 4, 32
    for name in names:
        torch.manual_seed(0)
        config = model_config(name, vocabulary_size=vocabulary, dropout=0.0)
        model = BertForPreTraining(config)
        batch = random_batch(rows, length, vocabulary).to(settings.device)
        with report.case(f"{name}, float64") as row:
            exact = _gradient(copy.deepcopy(model).to(settings.device, torch.float64), batch, Precision.FLOAT32)
            row["norm"] = _norm(exact)
            report.expect(0 < row["norm"] < float("inf"), f"{name}: the gradient's norm in float64 is {row['norm']}")
        if "problem" in row:
            continue
        for precision, largest in LARGEST.items():
            with report.case(f"{name}, {precision.value}") as row:
                own = copy.deepcopy(model).to(settings.device)
                if precision is Precision.BFLOAT16_MASTER:
                    own = own.to(torch.bfloat16)
                found = _gradient(own, batch, precision)
                wait(settings)
                row["error"], row["worst"], row["worst_error"] = _errors(found, exact)
                said = f"{name}, {precision.value}: relative error {row['error']:.3g}, at most {largest:g} is expected"
                report.expect(row["error"] <= largest, said)


def _gradient(model: BertForPreTraining, batch: PretrainingBatch, precision: Precision) -> dict[str, Tensor]:
    """Parameter name → gradient of the mean losses, in float64."""
    model.train()
    with precision.autocast(batch.token_ids.device):
        sums = pretraining_task(model, batch).loss_sums
        counts = batch.counts()
        loss = torch.stack([sums[kind] / max(counts[kind], 1) for kind in sums if sums[kind].requires_grad]).sum()
    loss.backward()
    named = model.named_parameters()
    return {name: parameter.grad.double() for name, parameter in named if parameter.grad is not None}


def _norm(gradient: dict[str, Tensor]) -> float:
    return float(torch.stack([one.norm() for one in gradient.values()]).norm())


def _errors(found: dict[str, Tensor], exact: dict[str, Tensor]) -> tuple[float, str, float]:
    """Of the whole gradient; the worst parameter, and its own error where its gradient is not next to nothing."""
    off = {name: found[name] - exact[name] for name in exact}
    whole = _norm(exact)
    own = {name: float(off[name].norm() / exact[name].norm()) for name in exact if exact[name].norm() > 1e-4 * whole}
    worst = max(own, key=lambda name: own[name], default="")
    return _norm(off) / whole if whole else float("nan"), worst, own.get(worst, float("nan"))
