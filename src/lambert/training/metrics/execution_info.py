"""Which way a step takes on this machine, in words: what bit-equality holds fixed besides the recipe."""

from __future__ import annotations

import torch

from lambert.model.cpu.encoder import LEAST_HIDDEN_SIZE, has_loops
from lambert.training.config.precision import Precision
from lambert.training.config.trainer_options import Housekeeping
from lambert.training.config.training_config import RunSettings
from lambert.training.distributed.process_group import Processes


def describe_path(settings: RunSettings, processes: Processes, housekeeping: Housekeeping) -> dict[str, str]:
    """Topic → what a run uses and why, for the journal and for people."""
    precision, on_cpu = settings.precision, processes.device.type == "cpu"
    is_wide = settings.model.hidden_size >= LEAST_HIDDEN_SIZE
    loops = on_cpu and precision is not Precision.BFLOAT16_AUTOCAST and is_wide and has_loops()
    if loops:
        kernels = "compiled loops between the products; attention written out, which is faster here than fused"
    elif on_cpu:
        kernels = "PyTorch's own, fused attention: the compiled loops need a hidden size of 128, numba, and no autocast"
    else:
        kernels = "PyTorch's own, fused attention (untested on GPU)"
    return {
        "precision": f"{precision.value}: {_reason(precision)}",
        "kernels": kernels,
        "rows": "packed where that saves rows (--pack)" if settings.packs else "one example a row, padded (no --pack)",
        "activation_checkpointing": housekeeping.activation_checkpointing,
        "threads": str(torch.get_num_threads()) if on_cpu else "of the GPU",
        "masked_word_head": "the masked positions only",
        "gradient_sums": _sums(settings, processes),
        "weights": "cut over the processes, as gradients and moments are (--shard)"
        if housekeeping.shards and processes.count > 1
        else "whole in every process",
    }


def _sums(settings: RunSettings, processes: Processes) -> str:
    if settings.deterministic:
        return "in one binary tree over the micro-batches: the same bits on any number of processes (--deterministic)"
    if processes.count == 1:
        return "of one process, in the order of the micro-batches"
    way = f"over {processes.count} processes in {settings.gradient_precision}, while the last backward pass runs"
    return way + ("; the reduction over GPUs is untested on GPU" if processes.device.type != "cpu" else "")


def _reason(precision: Precision) -> str:
    return {
        Precision.FLOAT32: "bfloat16 does not gain here, or was not asked for",
        Precision.BFLOAT16_AUTOCAST: "weights in float32, products in bfloat16",
        Precision.BFLOAT16_MASTER: "weights and activations in bfloat16, updated in float32",
    }[precision]
