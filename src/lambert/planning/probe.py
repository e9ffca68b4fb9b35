"""Time and memory of a run on this machine, from about a minute of its real steps.

    seconds = Σ phases: steps · (micro-batches · micro-batch seconds + other seconds) + evaluations + start-up

All ranks take the same steps together, all-reduce of the gradients included.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lambert import __version__
from lambert.corpus.store import Corpus
from lambert.data.dataloader import PretrainingBatch
from lambert.data.masking import MLM_PROBABILITY, prediction_counts
from lambert.model.heads import pretraining_model
from lambert.planning.hardware import inspect_hardware
from lambert.planning.memory import max_memory
from lambert.planning.probe_cache import probe_key, remember, remembered
from lambert.runlog.schema import JOURNAL_FILE
from lambert.runlog.writer import Journal
from lambert.training.config.phase import Phase, dropout_seed, phases_of, training_stream
from lambert.training.config.trainer_options import TrainerOptions
from lambert.training.config.training_config import TrainingConfig
from lambert.training.distributed.env import local_process_count
from lambert.training.distributed.process_group import ProcessGroup
from lambert.training.step.evaluation import Validator
from lambert.training.step.pretraining_loss import pretraining_task
from lambert.training.step.train_state import TrainState
from lambert.training.step.train_step import train_step

_WARMUP_ROUNDS, _MIN_ROUNDS = 1, 3
"""Steps that are not counted, and the fewest that are."""
_PATIENCE = 3
"""Times the budget after which what was timed has to do, be it a single step after the first."""
_FEW = 4
"""Steps of at most so many micro-batches are timed whole. Longer ones are timed at 1 and at so many micro-batches."""
_MAX_RUN_FRACTION = 0.02
"""The probe takes at most this fraction of a phase's expected time, whatever its budget."""
_STRIDE = 104_729
"""Between the steps whose samples are used, so that they spread over the phase; a prime."""
_EVALUATION_TOKENS = 8_192
"""Validation tokens that are timed: one batch of an evaluation."""
_REMEMBERED = ("micro_batch_seconds", "rest_seconds", "opening_seconds", "evaluation_seconds")
"""What is kept of a `PhaseCost`."""


@dataclass(frozen=True)
class PhaseCost:
    """Cost of a phase in each rank, seconds."""

    micro_batch_seconds: float
    """Data, forward and backward pass of one micro-batch."""
    rest_seconds: float
    """The rest of a step: all-reduce that no backward pass hides, clipping, update."""
    micro_batches: int
    """Of a step, in the rank with the most."""
    steps: int
    opening_seconds: float = 0.0
    """Once: segmenting the text into examples, for validation too, and how much longer the first step takes than
    others, most of it compilation."""
    evaluation_seconds: float = 0.0
    """All evaluations of the phase."""

    @property
    def step_seconds(self) -> float:
        """One step."""
        return self.micro_batches * self.micro_batch_seconds + self.rest_seconds

    @property
    def seconds(self) -> float:
        """The phase."""
        return self.steps * self.step_seconds + self.opening_seconds + self.evaluation_seconds


@dataclass(frozen=True)
class RunForecast:
    """Expected time and memory of a run."""

    phases: tuple[PhaseCost, ...]
    world_size: int
    """Ranks that took the steps together."""
    memory_bytes: int
    """Peak of each rank, by arithmetic (`max_memory`)."""

    @property
    def seconds(self) -> float:
        """From the first step to the last checkpoint."""
        return sum(phase.seconds for phase in self.phases)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for journal and JSON."""
        return {
            "seconds": self.seconds,
            "phase_seconds": [phase.seconds for phase in self.phases],
            "step_seconds": [phase.step_seconds for phase in self.phases],
            "memory_bytes": self.memory_bytes,
        }


def forecast_run(
    config: TrainingConfig,
    corpus: Corpus | None,
    *,
    processes: ProcessGroup | None = None,
    trainer_options: TrainerOptions | None = None,
    budget_seconds: float,
    renew: bool = False,
) -> RunForecast:
    """Time real steps of every phase and a short evaluation, unless this machine has timed the same before.

    Args:
        corpus: its text is used; without one, random ids.
        processes: all ranks must call this at once.
        budget_seconds: for each phase; those of one length and micro-batch size with long steps share a measurement.
            After a first step, at least three are timed, or fewer in three times the budget, for at most a fiftieth of
            the phase.
        renew: time them even if they have been timed before.
    """
    processes, trainer_options = processes or ProcessGroup(), trainer_options or TrainerOptions()
    probes = _Probes(config, corpus, processes, trainer_options, budget_seconds)
    costs = tuple(probes.cost(phase, renew=renew) for phase in phases_of(config))
    return RunForecast(costs, processes.world_size, max_memory(config, trainer_options.activation_checkpointing))


class _Probes:
    """Costs of phases, remembered or measured. The model to measure with is made when it is first needed."""

    def __init__(
        self,
        config: TrainingConfig,
        corpus: Corpus | None,
        processes: ProcessGroup,
        options: TrainerOptions,
        budget_seconds: float,
    ) -> None:
        self._config, self._corpus, self._processes = config, corpus, processes
        self._options, self._budget_seconds = options, budget_seconds
        self._measured: set[str] = set()

    def cost(self, phase: Phase, *, renew: bool) -> PhaseCost:
        """What the main process remembers or measures; every rank gets the same numbers."""
        key = self._key(phase)
        renew = renew and key not in self._measured
        known = None if renew or not self._processes.is_main_process else remembered(key, len(_REMEMBERED))
        micro_batches = -(-phase.micro_batch_count // self._processes.world_size)
        if not self._processes.all_reduce_max([int(known is not None)])[0]:
            probe = _PhaseProbe(self._state, self._config, phase, self._processes, self._corpus)
            measured = probe.cost(self._options, self._budget_seconds)
            known = tuple(getattr(measured, name) for name in _REMEMBERED)
            self._measured.add(key)
            if self._processes.is_main_process:
                remember(key, _faster(known, remembered(key, len(_REMEMBERED))))
        own = known if known is not None and self._processes.is_main_process else (0.0,) * len(_REMEMBERED)
        nanoseconds = self._processes.all_reduce_ints([round(1e9 * number) for number in own])
        numbers = dict(zip(_REMEMBERED, (number / 1e9 for number in nanoseconds), strict=True))
        return PhaseCost(micro_batches=micro_batches, steps=phase.config.step_count, **numbers)

    @functools.cached_property
    def _state(self) -> TrainState:
        model = pretraining_model(self._config.model)
        model.encoder.checkpoint_activations(self._options.activation_checkpointing)
        return TrainState(model, self._config, self._processes, shards=self._options.shard)

    def _timed_batch(self, phase: Phase) -> int:
        """The batch size that the measurement depends on; 0 where steps are too long to be timed whole."""
        own = -(-phase.micro_batch_count // self._processes.world_size)
        return phase.config.batch_size if own <= _FEW else 0

    def _key(self, phase: Phase) -> str:
        """Of the machine, the versions, and all that a step's time depends on; not of the number of steps."""
        config, options = self._config, self._options
        hardware = inspect_hardware()
        ours = ("model", "optimizer", "examples", "packs", "precision", "reduce_dtype", "deterministic", "no_compile")
        ways = ("shard", "activation_checkpointing", "evaluation_samples", "evaluations_per_phase")
        return probe_key({
            "lambert": __version__,
            "torch": torch.__version__,
            "machine": (hardware.processor, hardware.usable_cores, [gpu.name for gpu in hardware.torch.devices]),
            "ranks": (self._processes.world_size, local_process_count(), torch.get_num_threads()),
            "waiting": [os.environ.get(name) for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")],
            "config": [str(getattr(config, name)) for name in ours],
            "options": [str(getattr(options, name)) for name in ways],
            "corpus": config.corpus_fingerprint or "random ids, some padding",
            "phase": (phase.config.sequence_length, phase.micro_batch_size, self._timed_batch(phase)),
        })  # fmt: skip


def _faster(measured: tuple[float, ...], before: tuple[float, ...] | None) -> tuple[float, ...]:
    """The measurement with the shorter step: the longer one was disturbed by other work."""
    return measured if before is None or sum(measured[:2]) <= sum(before[:2]) else before


def record_outcome(run: Path, forecast: RunForecast | None, *, seconds: float, memory_bytes: int) -> None:
    """Write what a run took into its journal, beside what was forecast."""
    predicted = None if forecast is None else forecast.to_dict()
    with Journal(run / JOURNAL_FILE) as journal:
        journal.write("outcome", {"seconds": seconds, "memory_bytes": memory_bytes, "predicted": predicted})


class _PhaseProbe:
    """Timed steps of one phase."""

    def __init__(
        self, state: TrainState, config: TrainingConfig, phase: Phase, processes: ProcessGroup, corpus: Corpus | None
    ) -> None:
        self._state, self._config, self._phase = state, config, phase
        self._processes, self._corpus = processes, corpus
        self._opening_seconds = 0.0
        self._batch: Callable[[int, int], PretrainingBatch]  # first sample, number of samples
        if corpus is None:
            length, vocabulary = phase.config.sequence_length, config.model.vocabulary_size
            masked, pairs = config.examples.largest_mlm_probability, config.examples.has_pairs
            self._batch = lambda first, count: random_batch(count, length, vocabulary, masked, pairs=pairs)
            return
        began = time.monotonic()
        self._batch = training_stream(corpus, config, phase, fixed_shapes=processes.device.type == "cuda").batch
        self._batch(0, 1)
        self._opening_seconds = time.monotonic() - began

    def cost(self, options: TrainerOptions, budget_seconds: float) -> PhaseCost:
        """The cost of the phase, from steps and an evaluation."""
        micro_batches = -(-self._phase.micro_batch_count // self._processes.world_size)
        counts = (micro_batches,) if micro_batches <= _FEW else (1, _FEW)
        times = self._step_times(counts, micro_batches, budget_seconds)
        middle = [float(np.median(measured[_WARMUP_ROUNDS:])) for measured in times]
        longer = sum(max(0.0, measured[0] - usual) for measured, usual in zip(times, middle, strict=True))
        if len(middle) == 1:
            micro_batch, rest = middle[0] / micro_batches, 0.0
        else:
            micro_batch = max(0.0, middle[1] - middle[0]) / (_FEW - 1)
            rest = max(0.0, middle[0] - micro_batch)
        validation_opening, evaluations = self._evaluation_cost(options)
        once = self._opening_seconds + longer + validation_opening
        return PhaseCost(micro_batch, rest, micro_batches, self._phase.config.step_count, once, evaluations)

    def _step_times(self, counts: tuple[int, ...], micro_batches: int, budget_seconds: float) -> list[list[float]]:
        """Seconds of steps of each of these numbers of micro-batches."""
        times: list[list[float]] = [[] for _ in counts]
        began, number = time.monotonic(), 0
        while True:
            for count, measured in zip(counts, times, strict=True):
                measured.append(self.timed_step(number, count))
            number += 1
            if number == _WARMUP_ROUNDS:  # it may have compiled kernels for half a minute, which no other step does
                began = time.monotonic()
            whole = micro_batches / counts[-1] * times[-1][-1] * self._phase.config.step_count
            spent = time.monotonic() - began
            limit = min(budget_seconds, _MAX_RUN_FRACTION * whole)
            is_enough = number >= _WARMUP_ROUNDS + _MIN_ROUNDS and spent > limit
            is_enough |= number > _WARMUP_ROUNDS and spent > _PATIENCE * budget_seconds > 0
            if self._processes.all_reduce_max([int(is_enough)])[0]:
                return times

    def timed_step(self, number: int, count: int) -> float:
        """Seconds of a step of at most `count` micro-batches a rank, waiting for other ranks included."""
        phase = self._phase
        step = phase.first_step + number * _STRIDE % phase.config.step_count
        indices = list(self._processes.rank_range(phase.micro_batch_count))[:count]
        began = time.monotonic()
        batches = [self._batch(*phase.samples_of(step, index)) for index in indices]
        seeds = [dropout_seed(self._config.seed, step, index) for index in indices]
        probe_step(self._state, self._config, batches, seeds, processes=self._processes)
        self._processes.all_reduce_max([0])
        return time.monotonic() - began

    def _evaluation_cost(self, options: TrainerOptions) -> tuple[float, float]:
        """Seconds to open the validation set at this length, and of all evaluations of the phase."""
        if self._corpus is None or not options.evaluations_per_phase:
            return 0.0, 0.0
        length, most = self._phase.config.sequence_length, options.evaluation_samples
        tried = min(most, max(1, _EVALUATION_TOKENS // length))
        validator = Validator(self._corpus, self._config.examples, samples=tried)
        seconds, evaluation = [], None
        for _ in range(2):
            began = time.monotonic()
            evaluation = validator.measure(self._state.model, length, self._config.precision)
            seconds.append(time.monotonic() - began)
        if evaluation is None:
            return 0.0, 0.0
        whole = seconds[1] * validator.sample_count(length, most) / validator.sample_count(length, tried)
        return max(0.0, seconds[0] - seconds[1]), options.evaluations_per_phase * whole


def probe_step(
    state: TrainState, config: TrainingConfig, batches: Sequence[PretrainingBatch], seeds: Sequence[int], **options: Any
) -> None:
    """A real optimizer step with hardly any learning rate; `options` are those of `train_step`."""
    train_step(
        state.model,
        state.optimizer,
        batches,
        task=pretraining_task,
        learning_rate=1e-6,
        max_grad_norm=config.max_grad_norm or None,
        dropout_seeds=seeds,
        precision=config.precision,
        master=state.master,
        gradients=state.gradients,
        **options,
    )


def random_batch(
    sequences: int, length: int, vocabulary_size: int, mlm_probability: float = MLM_PROBABILITY, *, pairs: bool = True
) -> PretrainingBatch:
    """A batch [sequences, length] of random ids. As with real text, most rows are full and there is an attention mask:
    of every other row the last positions are padding, 1 in 32.
    """
    random = torch.Generator().manual_seed(0)
    per_row = int(prediction_counts(np.array([length]), length, mlm_probability)[0])
    indices = torch.arange(1, per_row + 1) * (length // (per_row + 1))
    positions = (torch.arange(sequences)[:, None] * length + indices).flatten()
    is_real = torch.ones(sequences, length, dtype=torch.bool)
    is_real[::2, length - max(1, length // 32) :] = False
    return PretrainingBatch(
        token_ids=torch.randint(0, vocabulary_size, (sequences, length), generator=random) * is_real,
        segment_ids=torch.zeros(sequences, length, dtype=torch.int64),
        attention_mask=is_real,
        masked_positions=positions,
        masked_labels=torch.randint(0, vocabulary_size, (len(positions),), generator=random),
        next_sentence_labels=torch.zeros(sequences if pairs else 0, dtype=torch.int64),
        real_tokens=int(is_real.sum()),
    )
