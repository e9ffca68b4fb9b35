"""Memory of one process: estimated by arithmetic before a run, measured as a peak during it."""

from __future__ import annotations

import gc
import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lambert.data.masking import max_predictions
from lambert.model.bert import BertConfig
from lambert.model.modernbert import ModernBertConfig
from lambert.model.parameter_count import parameter_count
from lambert.training.config.phase_config import PhaseConfig
from lambert.training.config.precision import Precision
from lambert.training.config.training_config import TrainingConfig
from lambert.training.malloc import release_free_memory

_BYTES_PER_PARAMETER = 16
"""Weight, gradient and two moments in float32."""
PROCESS_BYTES = 720_000_000
"""Resident set of a process on a CPU beside weights and activations, most of it libraries: 706 to 754 MB in
`benchmarks/memory.py` (tiny to small, lengths 32 to 512)."""
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class MemoryEstimate:
    """Peak memory of one process, bytes."""

    state_bytes: int
    """Weights, gradients and moments."""
    activation_bytes: int
    """What one micro-batch saves for its backward pass, logits included."""

    @property
    def total_bytes(self) -> int:
        """Both together."""
        return self.state_bytes + self.activation_bytes


def estimate_memory(
    config: TrainingConfig, phase: PhaseConfig, micro_batch_size: int, activation_checkpointing: str = "none"
) -> MemoryEstimate:
    """Memory of a process for micro-batches of `micro_batch_size` full sequences of a phase."""
    length = phase.sequence_length
    estimate = model_memory(
        config.model,
        sequences=micro_batch_size,
        sequence_length=length,
        masked_tokens=micro_batch_size * max_predictions(length, config.examples.largest_mlm_probability),
        bytes_per_value=4 if config.precision is Precision.FLOAT32 else 2,
        activation_checkpointing=activation_checkpointing,
    )
    average = 4 * parameter_count(config.model) if config.ema_decay else 0
    return replace(estimate, state_bytes=estimate.state_bytes + average)


def max_memory(config: TrainingConfig, activation_checkpointing: str = "none") -> int:
    """Peak memory of a rank in its most demanding phase, bytes; on a CPU with Python and its libraries."""
    phases = zip(config.phases, config.micro_batch_sizes, strict=True)
    peak = max(estimate_memory(config, phase, size, activation_checkpointing).total_bytes for phase, size in phases)
    return peak if torch.cuda.is_available() else PROCESS_BYTES + peak


def model_memory(
    model: BertConfig,
    *,
    sequences: int,
    sequence_length: int,
    masked_tokens: int,
    bytes_per_value: int = 4,
    activation_checkpointing: str = "none",
) -> MemoryEstimate:
    """Memory for micro-batches of [sequences, sequence_length] tokens with `masked_tokens` in all.

    Activations of BERT follow Korthikanti et al. 2022 (arXiv 2205.05198), equation 1, without its attention-dropout
    masks; those of ModernBERT are counted likewise.
    The logits of the masked tokens [masked_tokens, V] are held three times: logits, softmax and gradient. Selective
    activation checkpointing saves neither attention weights nor GELU's values; full saves the input of every layer,
    and the activations of one layer at a time.
    """
    tokens = sequences * sequence_length
    scale = bytes_per_value / 2
    weights = 4 * model.attention_heads * tokens * sequence_length
    per_token, recomputed = saved_per_token(model)
    whole = scale * (per_token * tokens + weights)
    saved = {
        "none": model.layers * whole,
        "selective": model.layers * (whole - scale * (weights + recomputed * tokens)),
        "full": model.layers * bytes_per_value * tokens * model.hidden_size + whole,
    }[activation_checkpointing]
    logits = 3 * bytes_per_value * masked_tokens * model.vocabulary_size
    return MemoryEstimate(_BYTES_PER_PARAMETER * parameter_count(model), round(saved + logits))


def saved_per_token(model: BertConfig) -> tuple[int, int]:
    """Bytes that a layer saves for the backward pass per token, at 2 bytes a value, beside attention weights.

    The second number is the part that selective activation checkpointing recomputes: the feed-forward layer's values
    behind its first map. BERT: 34 · H (sbh·34 of the equation) with 8 · H. ModernBERT: inputs and outputs of two norms,
    queries, keys, values and their contexts, 8 · H values; and 4 · F, both halves of the first map, GELU and the
    product, of which the fused CPU kernels keep the first two alone.
    """
    hidden, feed_forward = model.hidden_size, model.feed_forward_size
    if isinstance(model, ModernBertConfig):
        return 16 * hidden + 8 * feed_forward, 4 * feed_forward
    return 34 * hidden, 8 * hidden


def reset_peak_memory(device: torch.device) -> None:
    """Free unused memory and count the peak from now on. Where the system cannot, the peak stays the process's."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return
    release_free_memory()
    try:
        _CLEAR.write_text("5")  # proc(5): reset the peak resident set size
    except OSError:
        return


def peak_memory_bytes(device: torch.device) -> int:
    """Peak since the last reset: what PyTorch allocated on a GPU, or this process's resident set, libraries included.

    0 where the system does not report it (other than Linux).
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return 1_024 * int(found[1]) if found else 0
