"""The pictures of docs/planning.md: the LAMB paper's steps by what they are for, and what larger batches save."""

from __future__ import annotations

from pathlib import Path

from lambert.planner.cluster import Cluster
from lambert.planner.fit import known_cluster, predicted_seconds
from lambert.planner.published import LAMB_ROWS, LARGE, LARGE_FLOPS, Part, Point
from lambert.planner.step_time import step_time
from lambert.report.picture import write_picture
from lambert.report.pictures import BatchPoint, StackedStep, batch_picture, step_picture

SHOWN = {"compute": "compute", "fixed": "fixed", "bandwidth": "bytes", "latency": "latency"}
SAMPLES = 512_000_000
BATCHES = tuple(2**power for power in range(9, 17))


def write_pictures(folder: Path) -> list[Path]:
    """Draws both and says where they are."""
    cluster = known_cluster("tpu-v3")
    folder.mkdir(parents=True, exist_ok=True)
    steps, batches = folder / "planning_steps.svg", folder / "planning_batches.svg"
    write_picture(
        step_picture(
            [_bar(cluster, point) for point in LAMB_ROWS],
            title="A step of the LAMB paper's runs: predicted, and as published",
            caption=f"BERT-Large on TPU v3, mean of both phases. The model is {cluster.error}.",
            x="chips, and sequences in a batch",
        ),
        steps,
    )
    write_picture(
        batch_picture(
            {f"{chips:,} chips": _line(cluster, chips) for chips in (16, 64, 256, 1_024)},
            title="BERT-Large over the same 512 million samples: batch against time and cost",
            caption=f"TPU v3. The model is {cluster.error}. What is learnt from a sample at another batch size is not "
            "predicted.",
        ),
        batches,
    )
    return [steps, batches]


def _bar(cluster: Cluster, point: Point) -> StackedStep:
    steps, sums = sum(part.steps for part in point.parts), dict.fromkeys(SHOWN.values(), 0.0)
    for part in point.parts:
        time = step_time(
            cluster,
            point.chips,
            LARGE,
            sequences_per_chip=part.batch_size / point.chips,
            flops_per_sequence=LARGE_FLOPS[part.sequence_length],
            sequence_length=part.sequence_length,
        )
        for kind, label in SHOWN.items():
            sums[label] += part.steps / steps * getattr(time, kind)
    total, published = sum(sums.values()), point.seconds / steps
    return StackedStep(f"{point.chips:,}\n{point.name}", sums, f"{total:.3f}", published)


def _line(cluster: Cluster, chips: int) -> list[BatchPoint]:
    found = []
    for batch in BATCHES:
        if batch < 2 * chips and batch != chips:
            continue
        parts = (Part(0.9 * SAMPLES / batch, batch, 128), Part(0.1 * SAMPLES / batch, batch, 512))
        hours = predicted_seconds(cluster, Point("", chips, parts, 1.0)) / 3_600
        found.append(BatchPoint(batch, hours, hours * chips))
    return found
