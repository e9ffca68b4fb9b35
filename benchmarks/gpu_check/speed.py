"""Stages 6 to 8: whole steps, the optimizer's step, and the profile of a step."""

from __future__ import annotations

import gc
import itertools
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import torch

from gpu_check.measure import copy_bandwidth, product_rate, times, wait
from gpu_check.report import Report
from gpu_check.stages import Settings
from lambert.data.dataloader import PretrainingBatch
from lambert.model.bert import BertConfig
from lambert.model.flops import training_flops
from lambert.model.heads import BertForPreTraining
from lambert.model.presets import model_config
from lambert.optim import LAMB
from lambert.planning.probe import random_batch
from lambert.training.config.precision import Precision
from lambert.training.optimizer import make_optimizer, named_groups
from lambert.training.step.pretraining_loss import pretraining_task
from lambert.training.step.train_state import prepare_model
from lambert.training.step.train_step import launch_step

VOCABULARY = 30_522
TOKENS = 32_768
"""Of a micro-batch."""
LAMB_BYTES, ADAMW_BYTES = 40, 28
"""A parameter, in float32: LAMB reads x, g, m, v and writes m, v, then reads x, m, v and writes x."""
_HIDDEN = 0.1
"""The part of each row that a padding mask hides."""
_IMPOSSIBLE = 1.3
"""Times a ceiling: more is an error of the clock, not speed."""
_SPARE = 30
"""Seconds before a stage's limit at which it takes up no further case."""


def _random_model(config: BertConfig, device: torch.device) -> BertForPreTraining:
    """A model with normal weights, drawn on the device."""
    with torch.device("meta"):
        model = BertForPreTraining(config)
    model.to_empty(device=device)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            _ = parameter.fill_(1.0) if name.endswith("layer_norm.weight") else parameter.normal_(std=0.02)
    return model


class Stepper:
    """A model with its optimizer, and steps of it."""

    def __init__(
        self,
        settings: Settings,
        name: str,
        precision: Precision,
        optimizer: str = "lamb",
        *,
        attention_dropout: float | None = None,
    ) -> None:
        self.settings, self.precision = settings, precision
        config = model_config(name, vocabulary_size=1_000 if settings.small else VOCABULARY)
        self.config = replace(config, attention_dropout=attention_dropout)
        self.model = _random_model(self.config, settings.device)
        self._prepared = prepare_model(self.model, precision, weight_decay=0.01)
        groups, names = self._prepared.groups, self._prepared.names
        self._optimizer = make_optimizer(optimizer, groups, names, betas=(0.9, 0.999), epsilon=1e-6)
        self._seeds, self._is_compiled = itertools.count(), False

    def compile(self) -> None:
        """Compile each block and the MLM head, once."""
        if not self._is_compiled:
            self._is_compiled = True
            for part in (*self.model.encoder.blocks, self.model.mlm_head):
                part.compile(dynamic=False)

    def batch(self, length: int, *, masked: bool) -> PretrainingBatch:
        """Random ids, in page-locked memory on a GPU; full rows, or rows of which a mask hides the end."""
        rows = 2 if self.settings.small else max(1, TOKENS // length)
        batch = random_batch(rows, length, self.config.vocabulary_size)
        mask = torch.ones(rows, length, dtype=torch.bool)
        mask[:, round(length * (1 - _HIDDEN)) :] = False
        real = int(mask.sum()) if masked else rows * length
        batch = replace(batch, attention_mask=mask if masked else None, real_tokens=real)
        return batch.pin_memory() if self.settings.on_gpu else batch

    def step(self, batch: PretrainingBatch) -> None:
        """Launch one step; on a GPU nothing waits for it."""
        launch_step(
            self.model,
            self._optimizer,
            [batch],
            task=pretraining_task,
            learning_rate=1e-6,
            max_grad_norm=1.0,
            dropout_seeds=[next(self._seeds)],
            precision=self.precision,
            master=self._prepared.master,
            gradients=self._prepared.gradients,
        )


def steps(settings: Settings, report: Report) -> None:
    """ms, sequences/s, MFU and memory of Base and Large; what there is no time for is named."""
    peak = product_rate(settings, torch.bfloat16)
    report.facts["product_flops_per_second"] = peak
    names, lengths = (("1x64",), (32, 64)) if settings.small else (("large", "base"), (128, 512))
    left = []
    precisions = (Precision.BFLOAT16_MASTER, Precision.BFLOAT16_AUTOCAST, Precision.FLOAT32)
    models = [
        *itertools.product(precisions[:1], names, (None, 0.0)),  # without attention dropout, padding is not computed
        *itertools.product(precisions[1:], names, (None,)),
    ]
    for precision, name, attention_dropout in models:
        stepper: Stepper | None = None
        for compiled in (False, True):
            if compiled and (precision is Precision.FLOAT32 or not settings.on_gpu):
                continue
            masks = (False, True) if attention_dropout is None else (True,)
            for length, masked in itertools.product(lengths, masks):
                what = f"{name}, {length}, {precision.value}, {'mask' if masked else 'full rows'}"
                what += "" if attention_dropout is None else ", no attention dropout"
                what += ", compiled" if compiled else ", eager"
                if report.seconds > settings.limit - _SPARE:
                    left.append(what)
                    continue
                facts = {"model": name, "length": length, "precision": precision.value}
                with report.case(what, **facts, masked=masked, compiled=compiled) as row:
                    stepper = stepper or Stepper(settings, name, precision, attention_dropout=attention_dropout)
                    if compiled:
                        stepper.compile()
                    _time_steps(stepper, length, peak, row, masked=masked)
                said = [one for one in row.get("warnings", []) if compiled and "torch.compile" in one]
                report.expect(not said, f"{what}: {said}")
        del stepper
        torch.compiler.reset()  # compiled code holds its model
        gc.collect()
        if settings.on_gpu:
            torch.cuda.empty_cache()
    report.facts["left_out"] = left


def _time_steps(stepper: Stepper, length: int, peak: float, row: dict[str, Any], *, masked: bool) -> None:
    settings, batch = stepper.settings, stepper.batch(length, masked=masked)
    if settings.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    for _ in range(1 if settings.small else 3):
        stepper.step(batch)
    wait(settings)
    row["first_steps_seconds"] = time.perf_counter() - began
    repeats, began = 1 if settings.small else 8, time.perf_counter()
    for _ in range(repeats):
        stepper.step(batch)
    wait(settings)
    seconds = (time.perf_counter() - began) / repeats
    rows, masked_tokens = len(batch.token_ids), len(batch.masked_labels)
    flops = training_flops(stepper.config, tokens=batch.real_tokens, sequences=rows, masked_tokens=masked_tokens)
    row["rows"], row["ms"], row["sequences_per_second"] = rows, 1e3 * seconds, rows / seconds
    row["mfu"] = flops / seconds / peak
    row["bytes"] = torch.cuda.max_memory_allocated() if settings.on_gpu else None
    if not settings.small and row["mfu"] > _IMPOSSIBLE:
        raise RuntimeError(f"{row['ms']:.3f} ms a step would be an MFU of {row['mfu']:.2f}")


def optimizers(settings: Settings, report: Report) -> None:
    """LAMB's step and PyTorch's fused AdamW's on the same parameters, and the share of the copy bandwidth."""
    bandwidth = copy_bandwidth(settings)
    report.facts["copy_bytes_per_second"] = bandwidth
    for name in ("1x64",) if settings.small else ("base", "large"):
        config = model_config(name, vocabulary_size=1_000 if settings.small else VOCABULARY)
        model = _random_model(config, settings.device)
        groups, _ = named_groups(model, weight_decay=0.01)
        parameters = list(model.parameters())
        count = sum(parameter.numel() for parameter in parameters)
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter) * 1e-3
        makers = {
            "LAMB": (LAMB_BYTES, lambda groups=groups: LAMB(groups, lr=1e-6)),
            "fused AdamW": (ADAMW_BYTES, lambda parameters=parameters: torch.optim.AdamW(parameters, 1e-6, fused=True)),
        }
        for kind, (per_parameter, make) in makers.items():
            with report.case(f"{name}, {kind}", model=name, optimizer=kind, parameters=count) as row:
                found = times(settings, make().step)
                row["ms"], row["host_ms"], row["wall_ms"] = (
                    1e3 * seconds for seconds in (found.device, found.host, found.wall)
                )
                row["bytes_per_second"] = per_parameter * count / max(found.device, 1e-9)
                row["of_copy_bandwidth"] = row["bytes_per_second"] / bandwidth
                is_sane = 0 < row["of_copy_bandwidth"] < (float("inf") if settings.small else _IMPOSSIBLE)
                report.expect(is_sane, f"{name}, {kind}: {row['of_copy_bandwidth']:.2f} of the copy bandwidth")


def profile(settings: Settings, report: Report) -> None:
    """Launches, gaps between kernels and the ten longest kernels of one step of Base."""
    name, length = ("1x64", 32) if settings.small else ("base", 128)
    for compiled in (False, True) if settings.on_gpu else (False,):
        with report.case(f"{name}, {length}, {'compiled' if compiled else 'eager'}", compiled=compiled) as row:
            stepper = Stepper(settings, name, Precision.BFLOAT16_MASTER)
            if compiled:
                stepper.compile()
            batch = stepper.batch(length, masked=False)
            for _ in range(3):
                stepper.step(batch)
            wait(settings)
            kinds = [torch.profiler.ProfilerActivity.CPU]
            kinds += [torch.profiler.ProfilerActivity.CUDA] * settings.on_gpu
            with torch.profiler.profile(activities=kinds) as profiler:
                stepper.step(batch)
                wait(settings)
            _describe_profile(profiler, settings, row)
            report.expect(row["launches"] > 0, f"{row['case']}: the profiler saw no kernel")


def _describe_profile(profiler: Any, settings: Settings, row: dict[str, Any]) -> None:
    wanted = torch.autograd.DeviceType.CUDA if settings.on_gpu else torch.autograd.DeviceType.CPU
    events = [event for event in profiler.events() if event.device_type == wanted]
    spans = sorted((event.time_range.start, event.time_range.end) for event in events)  # microseconds
    idle, until = 0.0, spans[0][0] if spans else 0.0
    for start, end in spans:
        idle += max(0.0, start - until)
        until = max(until, end)
    longest: Counter[str] = Counter()
    for event in events:
        longest[event.name[:80]] += event.time_range.end - event.time_range.start
    row["launches"] = len(events)
    row["span_ms"] = (until - spans[0][0]) / 1e3 if spans else 0.0
    row["gaps_ms"] = idle / 1e3
    row["top_ten_ms"] = {name: microseconds / 1e3 for name, microseconds in longest.most_common(10)}
