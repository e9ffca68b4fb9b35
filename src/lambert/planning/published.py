"""Runs that others have published, as numbers: what clusters are fitted to and checked against."""

from __future__ import annotations

from dataclasses import dataclass

from lambert.planning.cluster import Cluster, Gradient

LARGE = Gradient(parameters=336_226_108, tensors=398)
"""BERT-Large with both heads."""
LARGE_FLOPS = {128: 0.237e12, 512: 1.016e12}
"""Forward and backward of a sequence, masked words' head included (`model/flops.py`)."""


@dataclass(frozen=True)
class Part:
    """Steps of one kind."""

    steps: int
    batch_size: int
    sequence_length: int


@dataclass(frozen=True)
class Point:
    """One published measurement: how long these steps took on so many chips."""

    name: str
    chips: int
    parts: tuple[Part, ...]
    seconds: float


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

TPU_V3 = Cluster(
    name="tpu-v3",
    most_chips=1_024,
    chip_memory_bytes=32 * 2**30,
    flops_per_second=6.6e13,
    fixed_seconds=0.122,
    topology="torus",
    # All-reduce of a pod 340 TB/s (Google Cloud's documentation): 332 GB/s a chip, over both dimensions and ways.
    link_bytes_per_second=166e9,
    latency_seconds=2.3e-6,
)
DGX_A100 = Cluster(
    name="dgx-a100",
    most_chips=256,
    chip_memory_bytes=80e9,
    flops_per_second=1.35e14,
    flops_per_second_long=2.09e14,
    fixed_seconds=0.02,
    topology="hierarchical",
    link_bytes_per_second=300e9,
    latency_seconds=1e-6,
    group_chips=8,
    # Eight network cards of 200 Gbit/s.
    group_bytes_per_second=200e9,
    gradient_bytes_per_parameter=2,
)
KNOWN = {"tpu-v3": (TPU_V3, LAMB_ROWS), "dgx-a100": (DGX_A100, DGX_A100_ROWS)}
"""Name → a cluster whose last three numbers are still guesses, and the runs to fit them to."""
