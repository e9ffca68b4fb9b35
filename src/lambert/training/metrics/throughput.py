"""How fast a run is: real tokens and sequences a second, utilisation of the device, time left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from lambert.data.dataloader import PretrainingBatch
from lambert.model.bert import BertConfig
from lambert.model.flops import training_flops
from lambert.training.config.phase import Part
from lambert.training.config.precision import Precision
from lambert.training.distributed.process_group import Processes
from lambert.training.step.timer import Meter, product_peak


class Pace:
    """The speed of a run's steps, over all its processes."""

    def __init__(self, config: BertConfig, precision: Precision, processes: Processes) -> None:
        self._config = config
        self._processes = processes
        self.meter = Meter(processes.device)
        self._precision = precision
        self._seconds_per_token = math.nan

    @cached_property
    def peak(self) -> float:
        """FLOP/s of large products, of this process; measured when it is first asked for."""
        return product_peak(self._processes.device, self._precision)

    def figures(
        self, part: Part, batches: Sequence[PretrainingBatch], seconds: float, slots_left: int
    ) -> dict[str, Any]:
        """What the journal says of a step's speed.

        Args:
            batches: this process's.
            slots_left: token slots that the run has still to do.
        """
        counts = [sum(batch.real_tokens for batch in batches), sum(len(batch.masked_labels) for batch in batches)]
        tokens, words = self._processes.sum_integers(counts)
        sequences = part.phase.batch_size
        flops = training_flops(self._config, tokens=tokens, sequences=sequences, masked_words=words) / seconds
        return {
            "seconds": seconds,
            "seconds_of": self.meter.read(),
            "sequences_per_second": sequences / seconds,
            "tokens_per_second": tokens / seconds,
            "model_flops_per_second": flops,
            "utilisation": flops / (self.peak * self._processes.count),
            "seconds_left": slots_left * self._smoothed(seconds / (sequences * part.phase.sequence_length)),
        }

    def _smoothed(self, pace: float) -> float:
        """Seconds for a token slot, which costs the same in both phases."""
        before = self._seconds_per_token
        self._seconds_per_token = pace if math.isnan(before) else 0.9 * before + 0.1 * pace
        return self._seconds_per_token
