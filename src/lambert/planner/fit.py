"""The numbers of a cluster that no data sheet has, from published runs; and how far predictions are then off."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lambert.errors import unknown_name
from lambert.planner.cluster import LONGEST_SHORT_SEQUENCE, Cluster
from lambert.planner.presets import FITTED, KNOWN, Known
from lambert.planner.published import Point
from lambert.planner.step_time import hops, lateness, optimizer_seconds, step_time, transfer_seconds


def predicted_seconds(cluster: Cluster, point: Point) -> float:
    """What the steps of a point take, without accumulation."""
    return sum(
        part.steps
        * step_time(
            cluster,
            point.chips,
            point.payload.gradient,
            sequences_per_chip=part.batch_size / point.chips,
            flops_per_sequence=point.payload.flops[part.sequence_length],
            sequence_length=part.sequence_length,
        ).total
        for part in point.parts
    )


def fit(cluster: Cluster, points: Sequence[Point], unknowns: Sequence[str] = FITTED) -> Cluster:
    """The same cluster with the numbers that make the sum of squared relative errors least.

    The time is linear in the fixed cost, the inverse rate and the latency; none of them may be negative: the one that
    would be most so is 0, and the others are fitted again. What is not among `unknowns` stays 0, but a second rate that
    is not is the first.
    """
    rows, targets = _system(cluster, points, has_long_rate="flops_per_second_long" in unknowns)
    free = [place for place, name in enumerate(FITTED) if name in unknowns and rows[:, place].any()]
    while True:
        found, *_ = np.linalg.lstsq(rows[:, free], targets, rcond=None)
        if (found >= 0).all():
            break
        free.remove(free[int(found.argmin())])
    values = dict.fromkeys(FITTED, 0.0)
    values.update((FITTED[place], float(value)) for place, value in zip(free, found, strict=True))
    rate, long_rate = (1 / values[name] if values[name] else 0.0 for name in FITTED[1:3])
    return replace(
        cluster,
        fixed_seconds=values["fixed_seconds"],
        flops_per_second=rate or long_rate,
        flops_per_second_long=long_rate,
        latency_seconds=values["latency_seconds"],
    )


def leave_one_out(cluster: Cluster, points: Sequence[Point], unknowns: Sequence[str] = FITTED) -> list[float]:
    """Relative error of each point, predicted by a fit to all others."""
    return [
        error_of(fit(cluster, [*points[:place], *points[place + 1 :]], unknowns), point)
        for place, point in enumerate(points)
    ]


def forward_chain(
    cluster: Cluster, points: Sequence[Point], unknowns: Sequence[str] = FITTED, *, first: int
) -> list[float]:
    """Relative error of each point from number `first` on, predicted by a fit to those before it."""
    return [error_of(fit(cluster, points[:place], unknowns), points[place]) for place in range(first, len(points))]


def error_of(cluster: Cluster, point: Point) -> float:
    """Predicted over published, less 1."""
    return predicted_seconds(cluster, point) / point.seconds - 1


def weak_scaling_efficiency(base: tuple[int, float], other: tuple[int, float]) -> float:
    """As the LAMB paper defines it, at a fixed number of epochs: speed-up over the increase in chips.

    Args:
        base, other: chips and seconds of two runs over the same samples.
    """
    return (base[1] / other[1]) / (other[0] / base[0])


def _system(
    cluster: Cluster, points: Sequence[Point], *, has_long_rate: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows [points, 4] and targets [points], both divided by the published time."""
    assert cluster.overlap_share == 0, "what hides behind the backward pass is not linear"
    rows, targets = [], []
    for point in points:
        gradient, chips = point.payload.gradient, point.chips
        steps, work = 0.0, {False: 0.0, True: 0.0}
        for part in point.parts:
            steps += part.steps
            is_long = (
                has_long_rate and cluster.flops_per_second_long > 0 and part.sequence_length > LONGEST_SHORT_SEQUENCE
            )
            work[is_long] += part.steps * part.batch_size / chips * point.payload.flops[part.sequence_length]
        known = transfer_seconds(cluster, chips, gradient.parameters * cluster.gradient_bytes_per_parameter)
        known += optimizer_seconds(cluster, chips, gradient.parameters) + cluster.micro_batch_seconds
        late = 1 + lateness(cluster, chips)
        row = [steps, late * work[False], late * work[True], steps * gradient.tensors * hops(cluster, chips)]
        rows.append([value / point.seconds for value in row])
        targets.append(1 - steps * known / point.seconds)
    return np.array(rows, dtype=np.float64), np.array(targets, dtype=np.float64)


def known_cluster(name: str) -> Cluster:
    """A cluster by name, fitted to the published runs of it if there are any; its `error` says how well.

    Raises:
        UserError: nobody knows it.
    """
    if name not in KNOWN:
        raise unknown_name("cluster", name, KNOWN)
    known = KNOWN[name]
    return _fitted(known) if known.points else known.cluster


def _fitted(known: Known) -> Cluster:
    fitted = fit(known.cluster, known.points, known.unknowns)
    left_out = [abs(error) for error in leave_one_out(known.cluster, known.points, known.unknowns)]
    held_out = [abs(error_of(fitted, point)) for point in known.held_out]
    told = (
        f"fitted to {len(known.points)} published runs of BERT-Large in {known.fitted_software} software; each of them "
        f"predicted from the others: median error {statistics.median(left_out):.1%}, largest {max(left_out):.1%}"
    )
    if held_out:
        told += f"; other models or software that it was not fitted to: largest {max(held_out):.1%}"
    return replace(fitted, error=told.replace("%", " %"), error_share=max(left_out + held_out))
