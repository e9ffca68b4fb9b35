"""Throughput of a run: tokens and sequences per second, MFU, time left."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from lambert.data.dataloader import PretrainingBatch
from lambert.model.bert import BertConfig
from lambert.model.flops import training_flops
from lambert.training.config.phase import Phase
from lambert.training.config.precision import Precision
from lambert.training.distributed.process_group import ProcessGroup
from lambert.training.step.timer import StepTimer, peak_matmul_flops


class ThroughputTracker:
    """Throughput of the steps, over all ranks."""

    def __init__(self, config: BertConfig, precision: Precision, processes: ProcessGroup) -> None:
        self._config = config
        self._processes = processes
        self.timer = StepTimer(processes.device)
        self._precision = precision
        self._seconds_per_token = math.nan

    @cached_property
    def peak(self) -> float:
        """Peak matmul FLOP/s of this rank's device; measured on first use."""
        return peak_matmul_flops(self._processes.device, self._precision)

    def metrics(
        self,
        phase: Phase,
        batches: Sequence[PretrainingBatch],
        seconds: float,
        breakdown: Mapping[str, float],
        padded_tokens_left: int,
    ) -> dict[str, Any]:
        """Speed metrics of a step for the journal.

        Args:
            batches: this rank's micro-batches.
            breakdown: seconds of the step's sections.
            padded_tokens_left: remaining tokens of the run, including padding.
        """
        seconds = max(seconds, 1e-9)  # clocks of some systems tick every 16 ms
        counts = [sum(batch.real_tokens for batch in batches), sum(batch.masked_tokens for batch in batches)]
        tokens, masked_tokens = self._processes.all_reduce_ints(counts)
        sequences = phase.config.batch_size
        flops = training_flops(self._config, tokens=tokens, sequences=sequences, masked_tokens=masked_tokens) / seconds
        return {
            "seconds": seconds,
            "step_time_breakdown": dict(breakdown),
            "sequences_per_second": sequences / seconds,
            "tokens_per_second": tokens / seconds,
            "model_flops_per_second": flops,
            "mfu": flops / (self.peak * self._processes.world_size),
            "eta_seconds": padded_tokens_left * self._smoothed(seconds / (sequences * phase.config.sequence_length)),
        }

    def _smoothed(self, seconds: float) -> float:
        """Moving average of the seconds for one token including padding, which is similar in all phases."""
        before = self._seconds_per_token
        self._seconds_per_token = seconds if math.isnan(before) else 0.9 * before + 0.1 * seconds
        return self._seconds_per_token
