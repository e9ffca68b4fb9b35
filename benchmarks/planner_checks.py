"""Other published results of large-batch BERT against the model: chips, models, memory, larger batches.

Nothing here is fitted. The lines say where the model is wrong. Also how errors of fits are measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lambert.model.presets import model_config
from lambert.planner.cluster import Cluster
from lambert.planner.fit import error_of, fit, known_cluster, predicted_seconds
from lambert.planner.forecast import MEMORY_FRACTION
from lambert.planner.presets import A100_PEAK_FRACTIONS, FITTED
from lambert.planner.published import BERT_BASE, BERT_LARGE, LAMB_ROWS, Part, Payload, Point
from lambert.planner.step_time import Gradient, step_time
from lambert.planning.memory import model_memory

TPU_V2_PEAK, TPU_V3_PEAK = 45e12, 123e12
"""Of a chip in bfloat16: v2 unconfirmed, v3 from Google Cloud's documentation."""
TPU_V2_LINK_RATIO = 496 / 656
"""Gbit/s of a link, v2 over v3, unconfirmed."""
HBM_BYTES = 32 * 2**30
"""Of a TPU v3 chip, Google Cloud's documentation."""
P100_PEAK = 10.6e12
"""In float32, data sheet."""
TOKENS_PER_WORD = 1.33
"""Measured on Wikipedia with BERT's vocabulary (docs/results.md)."""
MONTH, YEAR = 30 * 86_400.0, 365 * 86_400.0

RESNET_50 = Payload(Gradient(25_557_032, 161), {224: 3 * 2 * 4.1e9})
"""Parameters and tensors as in torchvision; 4.1e9 multiply-adds an image forward (the same source; He et al. 2015 give
3.8e9 for their first version), two operations each, three times for forward and backward. 224 stands for the length."""
RESNET_IMAGES_PER_SECOND = 1.05e6
"""1,024 TPU v3 chips, batch 32,768: Google's MLPerf 0.6 announcement."""


def forward_chain(
    cluster: Cluster, points: Sequence[Point], unknowns: Sequence[str] = FITTED, *, first: int
) -> list[float]:
    """Relative error of each point from number `first` on, predicted by a fit to those before it."""
    return [error_of(fit(cluster, points[:index], unknowns), points[index]) for index in range(first, len(points))]


def weak_scaling_efficiency(base: tuple[int, float], other: tuple[int, float]) -> float:
    """As the LAMB paper defines it, at a fixed number of epochs: speed-up over the increase in chips.

    Args:
        base, other: chips and seconds of two runs over the same samples.
    """
    return (base[1] / other[1]) / (other[0] / base[0])


@dataclass(frozen=True)
class Check:
    """Something published that was not fitted to."""

    case: str
    predicted: float
    published: float
    unit: str
    note: str
    is_limit: bool = False
    """`published` is what must not be exceeded."""

    @property
    def error(self) -> float | None:
        """Predicted over published, less 1; None beside a limit."""
        return None if self.is_limit else self.predicted / self.published - 1

    @property
    def text(self) -> str:
        """Predicted beside published."""
        error = "the most there is" if self.error is None else f"{self.error:+.0%}"
        return f"predicted {self.predicted:.3g} {self.unit}, published {self.published:.3g}: {error}"


def checks() -> list[Check]:
    """All of them."""
    return [_tpu_v2(), _base(), *_p100(), *_resnet(), *_larger_batch(), *_memory()]


def _tpu_v2() -> Check:
    v3 = known_cluster("tpu-v3")
    v2 = replace(
        v3,
        name="tpu-v2",
        flops_per_second=v3.flops_per_second * TPU_V2_PEAK / TPU_V3_PEAK,
        link_bytes_per_second=v3.link_bytes_per_second * TPU_V2_LINK_RATIO,
    )
    run = Point("BERT", 64, (Part(900_000, 256, 128), Part(100_000, 256, 512)), 96 * 3_600)
    note = (
        "Devlin et al.: 16 Cloud TPUs, 64 chips, 4 days, a million steps of 256; v2 by others' account. v3's fit with "
        "v2's peak and links"
    )
    return Check("BERT-Large on 64 TPU v2 chips", predicted_seconds(v2, run) / 3_600, 96.0, "h", note)


def _base() -> Check:
    run = Point("MosaicBERT", 8, (Part(70_000, 4_096, 128),), 11.5 * 3_600, BERT_BASE)
    hours = predicted_seconds(known_cluster("dgx-a100"), run) / 3_600
    note = (
        "MosaicBERT's base, 70,000 steps of 4,096 × 128 on 8 A100 80 GB; 11.5 hours are unconfirmed. At BERT-Large's "
        "rate: narrower models reach less of the peak, so ranges of theirs end at twice the hours"
    )
    return Check("BERT-Base on 8 A100", hours, 11.5, "h", note)


def _p100() -> list[Check]:
    short, long = A100_PEAK_FRACTIONS
    gpus = Cluster(
        "8 × P100", 8, 16e9, short * P100_PEAK, 0.0, "ring", 10e9, 1e-5, flops_per_second_long=long * P100_PEAK
    )
    samples = 800e6 * 40 * TOKENS_PER_WORD / (0.9 * 128 + 0.1 * 512)
    parts = (Part(0.9 * samples / 256, 256, 128), Part(0.1 * samples / 256, 256, 512))
    note = (
        "BERT's author's guess, unconfirmed: 800 million words, 40 epochs. The A100's fractions of a P100's peak, "
        f"10.6 TFLOP/s, {TOKENS_PER_WORD} tokens a word, batch 256, 10 GB/s: an order of magnitude, no more"
    )
    return [
        Check(f"{name} on 8 P100", predicted_seconds(gpus, Point(name, 8, parts, published, payload)) / 86_400,
              published / 86_400, "days", note)
        for name, payload, published in (("BERT-Base", BERT_BASE, MONTH), ("BERT-Large", BERT_LARGE, YEAR))
    ]  # fmt: skip


def _weak(cluster: Cluster, payload: Payload, length: int) -> tuple[float, float]:
    """Weak scaling from 16 to 1,024 chips at 32 samples a chip, and seconds of the step there."""
    small, large = (
        step_time(
            cluster,
            chips,
            payload.gradient,
            sequences_per_chip=32,
            flops_per_sequence=payload.flops[length],
            sequence_length=length,
        ).total
        for chips in (16, 1_024)
    )
    return small / large, large


def _resnet() -> list[Check]:
    """Why ResNet-50 is said to pass 90 % weak scaling where BERT-Large is at 76.7 %. Only rates are compared: MLPerf's
    times to a given accuracy mix in how many epochs a batch size needs."""
    as_fitted = known_cluster("tpu-v3")
    one_sum = replace(RESNET_50, gradient=replace(RESNET_50.gradient, tensors=1))
    variants = [
        ("as fitted to BERT", as_fitted, RESNET_50),
        ("without BERT's fixed cost", replace(as_fitted, fixed_seconds=0.0), RESNET_50),
        ("and gradients summed as one", replace(as_fitted, fixed_seconds=0.0), one_sum),
    ]
    large, _ = _weak(as_fitted, BERT_LARGE, 128)
    found = []
    for variant, cluster, payload in variants:
        efficiency, seconds = _weak(cluster, payload, 224)
        rate = 32_768 / seconds / 1e6
        note = f"weak scaling from 16 to 1,024 chips at 32 images {efficiency:.1%}; BERT-Large at 32 × 128 {large:.1%}"
        found.append(Check(f"ResNet-50, {variant}", rate, RESNET_IMAGES_PER_SECOND / 1e6, "M images/s", note))
    return found


def _larger_batch() -> list[Check]:
    """Whether 128K sequences of 128 tokens are faster than 64K on 1,024 chips, over the same samples."""
    cluster, mixed = known_cluster("tpu-v3"), LAMB_ROWS[-1]
    first, second = mixed.parts
    doubled = replace(mixed, parts=(Part(first.steps / 2, 2 * first.batch_size, first.sequence_length), second))
    hours, doubled_hours = (predicted_seconds(cluster, point) / 3_600 for point in (mixed, doubled))
    note = (
        f"reported, unconfirmed: no speed-up over 64K. The model disagrees ({hours:.2f} h at 64K): it halves how often "
        "fixed cost and all-reduce are paid"
    )
    return [Check("128K/32K on 1,024 TPU v3", doubled_hours, mixed.seconds / 3_600, "h", note)]


def _memory() -> list[Check]:
    """What published local batches need, against 32 GiB: 128 × 128 tokens run, 32 × 512 is said to be the most."""
    found = []
    for sequences, length, masked in ((128, 128, 20), (32, 512, 76)):
        needed = model_memory(
            model_config("large", vocabulary_size=30_522),
            sequences=sequences,
            sequence_length=length,
            masked_tokens=sequences * masked,
            bytes_per_value=2,
        ).total_bytes
        limit = MEMORY_FRACTION * HBM_BYTES
        fits = "fits" if needed <= limit else "would be halved"
        note = f"published as run in 32 GiB; into the {MEMORY_FRACTION} of them that the planner fills it {fits}"
        case = f"memory of {sequences} × {length} tokens a chip"
        found.append(Check(case, needed / 1e9, HBM_BYTES / 1e9, "GB", note, is_limit=True))
    return found
