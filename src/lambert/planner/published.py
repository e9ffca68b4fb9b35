"""Published runs as numbers: clusters are fitted to them and checked against them."""

from __future__ import annotations

from dataclasses import dataclass

from lambert.planner.step_time import Gradient


@dataclass(frozen=True)
class Payload:
    """Gradient size and FLOP of a model."""

    gradient: Gradient
    flops: dict[int, float]
    """Sequence length → FLOP of a sequence, forward and backward, MLM head included (`model/flops.py`)."""


LARGE = Gradient(parameters=336_226_108, tensors=398)
"""BERT-Large with both heads."""
LARGE_FLOPS = {128: 0.237e12, 512: 1.016e12}
BERT_LARGE = Payload(LARGE, LARGE_FLOPS)
BERT_BASE = Payload(Gradient(parameters=110_106_428, tensors=206), {128: 0.0699e12, 512: 0.301e12})
BERT_4B = Payload(Gradient(parameters=3_869_081_404, tensors=782), {512: 12.02e12})
"""48 layers × 2,560: NeMo's 4B configuration, unconfirmed; its GeGLU is counted as GELU."""


@dataclass(frozen=True)
class Part:
    """Steps of one kind."""

    steps: float
    batch_size: int
    sequence_length: int


@dataclass(frozen=True)
class Point:
    """One published measurement: how long these steps took on so many chips."""

    name: str
    chips: int
    parts: tuple[Part, ...]
    seconds: float
    payload: Payload = BERT_LARGE


def _two_phases(batch_size: int, steps: int) -> tuple[Part, Part]:
    first = round(0.9 * steps)
    return Part(first, batch_size, 128), Part(steps - first, batch_size, 512)


LAMB_ROWS = (
    Point("512", 16, _two_phases(512, 1_000_000), 82.8 * 3_600),
    Point("1K", 32, _two_phases(1_024, 500_000), 43.2 * 3_600),
    Point("2K", 64, _two_phases(2_048, 250_000), 21.4 * 3_600),
    Point("4K", 128, _two_phases(4_096, 125_000), 693.6 * 60),
    Point("8K", 256, _two_phases(8_192, 62_500), 390.5 * 60),
    Point("16K", 512, _two_phases(16_384, 31_250), 200.0 * 60),
    Point("32K", 1_024, _two_phases(32_768, 15_625), 101.2 * 60),
    Point("64K/32K", 1_024, (Part(7_037, 65_536, 128), Part(1_562, 32_768, 512)), 76.19 * 60),
)
"""BERT-Large on TPU v3: You et al., arXiv 1904.00962, table 1."""

_RATES = {
    128: {8: 4_553, 16: 9_191, 32: 18_119, 64: 35_774, 128: 70_555, 256: 138_294},
    512: {8: 1_648, 16: 3_291, 32: 6_464, 64: 13_005, 128: 25_570, 256: 49_663},
}
_BATCHES = {128: 65_536, 512: 32_768}
DGX_A100_ROWS = tuple(
    Point(f"{length}/{gpus}", gpus, (Part(1, _BATCHES[length], length),), _BATCHES[length] / rate)
    for length, rates in _RATES.items()
    for gpus, rate in rates.items()
)
"""BERT-Large with LAMB in mixed precision, sequences a second at the global batch of the mixed run: NVIDIA
DeepLearningExamples, PyTorch/LanguageModeling/BERT, README."""

_NEMO_BATCH = 2_048
"""Unconfirmed; the rates were published as tokens a second."""
NEMO_ROWS = tuple(
    Point(f"4B/{8 * nodes}", 8 * nodes, (Part(1, _NEMO_BATCH, 512),), _NEMO_BATCH * 512 / rate, BERT_4B)
    for nodes, rate in {1: 57_287, 2: 108_695, 4: 215_358, 8: 393_167, 16: 728_178}.items()
)
"""BERT-4B on DGX A100, 1 to 16 nodes: NVIDIA NeMo's performance table."""

_DEEPSPEED_RUN = (Part(403e6 / 65_536, 65_536, 128), Part(20e6 / 32_768, 32_768, 512))
"""Published as 403 million samples of 128 tokens at 64K and 18 to 22 million of 512 at 32K."""
V100_ROWS = tuple(
    Point(f"{gpus}", gpus, _DEEPSPEED_RUN, hours * 3_600)
    for gpus, hours in {16: 33 + 13 / 60, 64: 8 + 41 / 60, 256: 2.4, 1_024: 44 / 60}.items()
)
"""BERT-Large with LAMB on DGX-2, 1 to 64 nodes: DeepSpeed's BERT pre-training tutorial."""
V100_NVIDIA_ROWS = (
    Point("NVIDIA 128/8", 8, (Part(1, 65_536, 128),), 65_536 / 1_746),
    Point("NVIDIA 512/8", 8, (Part(1, 32_768, 512),), 32_768 / 586),
)
"""The same model in other software: NVIDIA DeepLearningExamples, as above."""
