"""The plan of a run: its resolved numbers with their formulas, and the memory it needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lambert.corpus.judgement import Finding, judged, refuse
from lambert.corpus.store import Corpus
from lambert.model.bert import ACTIVATION_CHECKPOINTING
from lambert.model.parameter_count import parameter_count
from lambert.planning import plan_text
from lambert.planning.memory import max_memory
from lambert.planning.plan_text import MIN_USEFUL_STEPS, TOKENS_PER_ENTRY
from lambert.planning.probe import RunForecast
from lambert.training.config.phase_config import PhaseConfig
from lambert.training.config.resolve import examples_per_epoch
from lambert.training.config.training_config import TrainingConfig


@dataclass(frozen=True)
class PhasePlan:
    """One phase of a plan."""

    config: PhaseConfig
    micro_batch_size: int
    epochs: float | None
    """Over the corpus; None without one."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON (docs/json.md)."""
        phase = self.config
        derived = {name: getattr(phase, name) for name in ("steps", "peak_learning_rate", "warmup_steps")}
        return {
            "sequence_length": phase.sequence_length,
            "batch_size": phase.batch_size,
            "samples": phase.samples,
            "tokens": phase.tokens,
            "epochs": self.epochs,
            **{name: number.value for name, number in derived.items()},
            "micro_batch_size": self.micro_batch_size,
            "sources": {name: asdict(number) for name, number in derived.items()},
        }


@dataclass(frozen=True)
class Plan:
    """What a run will do."""

    config: TrainingConfig
    phases: tuple[PhasePlan, ...]
    parameters: int
    memory_bytes: dict[str, int]
    """Kind of activation checkpointing → estimated peak memory of one process."""
    counts: Mapping[str, int] | None = None
    """Characters of the corpus by what is lost of them (docs/json.md, `prepare`); None without such counts."""
    findings: tuple[str, ...] = ()
    """What the corpus lost, or does not have for this run, and what to do about it."""
    forecast: RunForecast | None = None
    """What real steps on this machine predict; None where none were taken."""

    def __str__(self) -> str:
        """The plan as `lambert plan` prints it."""
        lines = plan_text.plan_lines(self)
        if self.forecast is not None:
            lines += plan_text.forecast_lines(self.forecast)
        return "\n".join(lines)

    @property
    def seconds(self) -> float | None:
        """Predicted duration on this machine; None without a forecast."""
        return None if self.forecast is None else self.forecast.seconds

    @property
    def is_short(self) -> bool:
        """Whether it has too few steps or tokens to learn much from scratch."""
        config = self.config
        few_tokens = config.tokens < TOKENS_PER_ENTRY * config.model.vocabulary_size
        return (config.total_steps < MIN_USEFUL_STEPS or few_tokens) and not config.initial_weights

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON (docs/json.md)."""
        return {
            "model": self.config.model_name,
            "phases": [phase.to_dict() for phase in self.phases],
            "parameters": self.parameters,
            "memory_bytes": self.memory_bytes["none"],
            "memory_bytes_with_activation_checkpointing": self.memory_bytes,
            "counts": self.counts,
            "findings": list(self.findings),
            **({} if self.forecast is None else {"seconds": self.seconds, "forecast": self.forecast.to_dict()}),
        }


def describe_plan(config: TrainingConfig, corpus: Corpus | None = None) -> Plan:
    """The plan of a resolved run; with a corpus, also how many epochs each phase takes, and what is judged of it.

    Raises:
        UserError: the corpus lost too much of its text.
    """
    lengths = tuple(phase.sequence_length for phase in config.phases)
    examples: tuple[int, ...] | None = None
    characters: Mapping[str, int] | None = None
    findings: list[Finding] = []
    if corpus is not None:
        findings = judged(corpus.manifest, pairs=config.examples.pairing)
        refuse(findings)
        characters = corpus.manifest["statistics"].get("counts")
        examples = examples_per_epoch(corpus, lengths, seed=config.seed, kind=config.examples)
    phases = tuple(
        PhasePlan(phase, size, None if examples is None else phase.samples / examples[index])
        for index, (phase, size) in enumerate(zip(config.phases, config.micro_batch_sizes, strict=True))
    )
    memory = {kind: max_memory(config, kind) for kind in ACTIVATION_CHECKPOINTING}
    return Plan(config, phases, parameter_count(config.model), memory, characters, tuple(map(str, findings)))
