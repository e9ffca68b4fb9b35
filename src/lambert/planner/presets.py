"""Clusters by name. Beside each constant stands where it is from; "unconfirmed" is general knowledge without a sheet.

Fixed cost, rate and latency of the clusters with published runs are only starting values: `fit.py` replaces them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lambert.planner.cluster import Cluster
from lambert.planner.published import DGX_A100_ROWS, LAMB_ROWS, NEMO_ROWS, V100_NVIDIA_ROWS, V100_ROWS, Point

FITTED = ("fixed_seconds", "flops_per_second", "flops_per_second_long", "latency_seconds")


@dataclass(frozen=True)
class Known:
    """A cluster and its published runs."""

    cluster: Cluster
    points: tuple[Point, ...] = ()
    """Fitted to; a cluster without any stands as it is."""
    unknowns: tuple[str, ...] = FITTED
    """Fields that `points` can identify."""
    held_out: tuple[Point, ...] = ()
    """Of other models or other software: predicted, never fitted to."""
    fitted_software: str = ""


TPU_V3 = Cluster(
    name="tpu-v3",
    most_chips=1_024,  # a pod, 32 × 32 (unconfirmed)
    chip_memory_bytes=32 * 2**30,  # Google Cloud's documentation
    flops_per_second=6.6e13,  # fitted; peak 123e12 in bfloat16, Google Cloud's documentation
    fixed_seconds=0.122,  # fitted
    topology="torus",  # Google Cloud's documentation
    # All-reduce of a pod 340 TB/s (Google Cloud's documentation): 332 GB/s a chip, over both dimensions and ways.
    link_bytes_per_second=166e9,
    latency_seconds=2.3e-6,  # fitted
)
DGX_A100 = Cluster(
    name="dgx-a100",
    most_chips=256,  # published runs
    chip_memory_bytes=80e9,  # data sheet
    flops_per_second=1.35e14,  # fitted; peak 312e12, data sheet
    flops_per_second_long=2.09e14,  # fitted
    fixed_seconds=0.02,  # fitted
    topology="hierarchical",
    link_bytes_per_second=300e9,  # NVLink 600 GB/s over both ways, data sheet
    latency_seconds=1e-6,  # fitted
    group_chips=8,
    group_bytes_per_second=200e9,  # eight network cards of 200 Gbit/s, unconfirmed
    gradient_bytes_per_parameter=2,  # mixed precision, unconfirmed for the all-reduce
)
DGX2_V100 = Cluster(
    name="dgx2-v100",
    most_chips=1_024,  # published runs
    chip_memory_bytes=32e9,  # data sheet
    flops_per_second=5e13,  # fitted; peak 125e12, data sheet
    fixed_seconds=0.0,  # not distinguishable from latency: hops grow from 30 to 42 only
    topology="hierarchical",
    link_bytes_per_second=150e9,  # NVLink 300 GB/s over both ways, data sheet
    latency_seconds=1e-6,  # fitted
    group_chips=16,
    group_bytes_per_second=100e9,  # eight network cards of 100 Gbit/s, unconfirmed
    gradient_bytes_per_parameter=2,  # unconfirmed
)

A100_PEAK_FRACTIONS = (0.434, 0.667)
"""Of the A100's peak reached on BERT-Large at 128 and 512 tokens: the fitted rates over 312 TFLOP/s."""
A100_LATENCY_SECONDS = 2.1e-6
"""Fitted, rounded."""
SCALED_ERROR = 0.3
"""Assumed for clusters scaled from another; nothing published says whether that is enough."""


def _scaled(at_peak: Cluster) -> Known:
    """A GPU without published runs of BERT-Large with LAMB: the A100's fraction of peak, and its latency.

    Args:
        at_peak: with the data sheet's peak as its rate.
    """
    short, long = A100_PEAK_FRACTIONS
    error = (
        f"nothing published checks it: data sheet, and the A100's fractions of peak ({short:.0%} at 128 tokens, "
        f"{long:.0%} at 512); take ±{SCALED_ERROR:.0%}, a guess too"
    )
    cluster = replace(
        at_peak,
        flops_per_second=short * at_peak.flops_per_second,
        flops_per_second_long=long * at_peak.flops_per_second,
        error=error.replace("%", " %"),
        relative_error=SCALED_ERROR,
    )
    return Known(cluster)


DGX_H100_AT_PEAK = Cluster(
    name="dgx-h100",
    most_chips=8,  # none were measured: more are called a guess
    chip_memory_bytes=80e9,  # data sheet
    flops_per_second=989e12,  # 16 bits without sparsity, data sheet
    fixed_seconds=0.0,  # the A100's
    topology="hierarchical",
    link_bytes_per_second=450e9,  # NVLink 900 GB/s over both ways, data sheet
    latency_seconds=A100_LATENCY_SECONDS,
    group_chips=8,
    group_bytes_per_second=400e9,  # eight network cards of 400 Gbit/s, unconfirmed
    gradient_bytes_per_parameter=2,
)
# The same peak and links, more and faster memory: data sheet.
DGX_H200_AT_PEAK = replace(DGX_H100_AT_PEAK, name="dgx-h200", chip_memory_bytes=141e9)
RTX_3090_AT_PEAK = Cluster(
    name="rtx-3090",
    most_chips=1,
    chip_memory_bytes=24e9,  # data sheet
    flops_per_second=71e12,  # 16 bits with sums in float32, without sparsity, data sheet, unconfirmed
    fixed_seconds=0.0,
    topology="ring",
    link_bytes_per_second=25e9,  # 16 lanes of PCIe 4: 32 GB/s less protocol overhead, unconfirmed
    latency_seconds=A100_LATENCY_SECONDS,
    gradient_bytes_per_parameter=2,
)
RTX_4090_AT_PEAK = replace(RTX_3090_AT_PEAK, name="rtx-4090", flops_per_second=165e12)  # as above

KNOWN: dict[str, Known] = {
    "tpu-v3": Known(TPU_V3, LAMB_ROWS, fitted_software="Google's"),
    "dgx-a100": Known(DGX_A100, DGX_A100_ROWS, held_out=NEMO_ROWS, fitted_software="NVIDIA's"),
    "dgx2-v100": Known(
        DGX2_V100,
        V100_ROWS,
        unknowns=("flops_per_second", "latency_seconds"),
        held_out=V100_NVIDIA_ROWS,
        fitted_software="DeepSpeed's",
    ),
    **{
        at_peak.name: _scaled(at_peak)
        for at_peak in (DGX_H100_AT_PEAK, DGX_H200_AT_PEAK, RTX_3090_AT_PEAK, RTX_4090_AT_PEAK)
    },
}
