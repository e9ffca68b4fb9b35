"""The twelve stages: number, name, time limit, and the function that does it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from gpu_check.report import Report


@dataclass(frozen=True)
class Settings:
    """What a stage works with."""

    device: torch.device
    small: bool
    """Sizes for a rehearsal: the numbers mean nothing."""
    data: Path
    """Holds `corpus/` and `squad/`."""
    work: Path
    """For runs and other files of all stages."""
    program: Sequence[str]
    """The words that start this program again."""
    limit: float
    """Seconds after which the stage is killed."""

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU, or stands for one."""
        return self.device.type == "cuda"


@dataclass(frozen=True)
class Stage:
    """One stage; it runs in a process of its own."""

    number: int
    name: str
    code: str
    """Module and function."""
    limit: int
    """Seconds."""
    asks: str
    """What it finds out."""

    def function(self) -> Callable[[Settings, Report], None]:
        """Its module is loaded only now, so that a package that is missing ends one stage."""
        module, _, name = self.code.partition(".")
        found: Callable[[Settings, Report], None] = getattr(importlib.import_module(f"gpu_check.{module}"), name)
        return found


STAGES = tuple(
    Stage(number, *rest)
    for number, rest in enumerate(
        (
            ("ceilings", "machine.ceilings", 60, "versions; copy bandwidth; rate of an 8192³ product on random data"),
            ("tests", "machine.gpu_tests", 120, "pytest -m gpu"),
            ("attention", "attention.attention", 60, "which kernel runs; the dropout that it really does"),
            ("gradients", "accuracy.gradients", 120, "gradients of tiny and Base against float64, in three precisions"),
            ("bits", "runs.same_bits", 240, "two equal runs; kill and resume; --deterministic at 512"),
            ("steps", "speed.steps", 270, "Base and Large at 128 and 512: ms, sequences/s, MFU, memory"),
            ("optimizer", "speed.optimizers", 60, "LAMB's step beside PyTorch's fused AdamW: ms, GB/s, host time"),
            ("profile", "speed.profile", 60, "one step: launches, gaps, the ten longest kernels"),
            ("memory", "runs.out_of_memory", 120, "a micro-batch that does not fit is halved, and the run goes on"),
            ("forecast", "runs.forecast", 150, "time and memory that were forecast, and a run's"),
            ("precisions", "runs.precisions", 300, "mini from the same seed in three precisions: held-out losses"),
            ("squad", "task.squad", 120, "SQuAD sample, export, agreement with transformers"),
        ),
        start=1,
    )
)


def stage_of(word: str) -> Stage | None:
    """The stage of a number or a name; None if there is none."""
    return next((stage for stage in STAGES if word in (str(stage.number), stage.name)), None)
