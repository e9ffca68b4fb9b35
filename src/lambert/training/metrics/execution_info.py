"""Execution summary of a run: what bit-equality depends on besides the recipe."""

from __future__ import annotations

import torch

from lambert.model.ops import why_eager
from lambert.training.config.precision import Precision
from lambert.training.config.trainer_options import TrainerOptions
from lambert.training.config.training_config import TrainingConfig
from lambert.training.distributed.process_group import ProcessGroup
from lambert.training.step.batches import spare_cores


def describe_execution(
    settings: TrainingConfig, processes: ProcessGroup, trainer_options: TrainerOptions
) -> dict[str, str]:
    """Topic → what the run uses and why, as text for the journal."""
    precision, on_cpu = settings.precision, processes.device.type == "cpu"
    autocast = precision is Precision.BFLOAT16_AUTOCAST
    reason = why_eager(processes.device.type, settings.model.hidden_size, autocast=autocast)
    kernels = "fused CPU kernels between the matmuls" if reason is None else f"PyTorch, fused attention: {reason}"
    if not on_cpu:
        kernels += " (untested on GPU)"
    return {
        "precision": f"{precision.value}: {_reason(precision)}",
        "kernels": kernels,
        "compilation": _compilation(settings, on_cpu),
        "rows": _rows(settings, on_cpu, is_fused=reason is None),
        "activation_checkpointing": trainer_options.activation_checkpointing,
        "batches": _batches(trainer_options.data_workers, on_cpu),
        "threads": str(torch.get_num_threads()) if on_cpu else "of the GPU",
        "mlm_head": "the masked positions only",
        "gradient_sums": _sums(settings, processes),
        "weights": "sharded over the ranks, as gradients and moments are (`shard=True`)"
        if trainer_options.shard and processes.world_size > 1
        else "replicated on every rank",
    }


def _compilation(settings: TrainingConfig, on_cpu: bool) -> str:
    if on_cpu or settings.no_compile:
        return "none: torch.compile is for GPUs" if on_cpu else "none (`no_compile=True`)"
    return "each block and the MLM head by torch.compile, while it works here (untested on GPU)"


def _rows(settings: TrainingConfig, on_cpu: bool, *, is_fused: bool) -> str:
    if settings.packs:
        return "packed if that saves rows"
    if is_fused:
        return "one example a row; padding is not computed"
    if on_cpu:
        return "one example a row, padded to the longest of its batch"
    model = settings.model
    drops = model.dropout if model.attention_dropout is None else model.attention_dropout
    computed = "" if drops else "; padding is not computed where FlashAttention runs (untested on GPU)"
    return f"one example a row, padded to the length of the phase{computed}"


def _batches(workers: int | None, on_cpu: bool) -> str:
    if workers:
        return f"made ahead by {workers} processes of each rank (`data_workers={workers}`)"
    if on_cpu:
        return "made by the training thread"
    more = workers is None and spare_cores()
    return "made ahead by a thread" + (f"; up to {more} processes if it is busy (untested on GPU)" if more else "")


def _sums(settings: TrainingConfig, processes: ProcessGroup) -> str:
    if settings.deterministic:
        return "deterministic tree all-reduce: same bits for any world size (`deterministic=True`)"
    if processes.world_size == 1:
        return "single rank, in the order of the micro-batches"
    way = f"all-reduce over {processes.world_size} ranks in {settings.reduce_dtype}, during the last backward pass"
    return way + ("; the reduction over GPUs is untested on GPU" if processes.device.type != "cpu" else "")


def _reason(precision: Precision) -> str:
    return {
        Precision.FLOAT32: "bfloat16 is not faster here, or not selected",
        Precision.BFLOAT16_AUTOCAST: "weights in float32, matmuls in bfloat16",
        Precision.BFLOAT16_MASTER: "weights and activations in bfloat16, updated in float32",
    }[precision]
