"""Fits the numbers of a cluster that no data sheet has to published runs, and measures the error of predictions."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lambert.errors import unknown_name
from lambert.planner.cluster import LONGEST_SHORT_SEQUENCE, Cluster
from lambert.planner.presets import FITTED, KNOWN
from lambert.planner.published import Point
from lambert.planner.step_time import hops, lateness, optimizer_seconds, step_time, transfer_seconds


def predicted_seconds(cluster: Cluster, point: Point) -> float:
    """Seconds of the steps of a point, without gradient accumulation."""
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
    """The same cluster with the numbers that minimize the sum of squared relative errors.

    The time is linear in the fixed cost, the inverse rate and the latency. None may be negative: the most negative one
    is set to 0 and the others are fitted again. Numbers that are not in `unknowns` are 0, but a second rate is then
    the first.
    """
    rows, targets = _system(cluster, points, has_long_rate="flops_per_second_long" in unknowns)
    free = [index for index, name in enumerate(FITTED) if name in unknowns and rows[:, index].any()]
    while True:
        found, *_ = np.linalg.lstsq(rows[:, free], targets, rcond=None)
        if (found >= 0).all():
            break
        free.remove(free[int(found.argmin())])
    values = dict.fromkeys(FITTED, 0.0)
    values.update((FITTED[index], float(value)) for index, value in zip(free, found, strict=True))
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
        error_of(fit(cluster, [*points[:index], *points[index + 1 :]], unknowns), point)
        for index, point in enumerate(points)
    ]


def error_of(cluster: Cluster, point: Point) -> float:
    """Predicted over published, less 1."""
    return predicted_seconds(cluster, point) / point.seconds - 1


def _system(
    cluster: Cluster, points: Sequence[Point], *, has_long_rate: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows [points, 4] and targets [points] of the linear system, both divided by the published time."""
    assert cluster.overlap_fraction == 0, "overlap is not linear"
    has_two_rates = has_long_rate and cluster.flops_per_second_long > 0
    rows, targets = [], []
    for point in points:
        gradient, chips = point.payload.gradient, point.chips
        steps, work = 0.0, {False: 0.0, True: 0.0}
        for part in point.parts:
            steps += part.steps
            is_long = has_two_rates and part.sequence_length > LONGEST_SHORT_SEQUENCE
            work[is_long] += part.steps * part.batch_size / chips * point.payload.flops[part.sequence_length]
        known = transfer_seconds(cluster, chips, gradient.parameters * cluster.gradient_bytes_per_parameter)
        known += optimizer_seconds(cluster, chips, gradient.parameters) + cluster.micro_batch_seconds
        late = 1 + lateness(cluster, chips)
        row = [steps, late * work[False], late * work[True], steps * gradient.tensors * hops(cluster, chips)]
        rows.append([value / point.seconds for value in row])
        targets.append(1 - steps * known / point.seconds)
    return np.array(rows, dtype=np.float64), np.array(targets, dtype=np.float64)


def known_cluster(name: str) -> Cluster:
    """A cluster by name, fitted to its published runs if there are any; `error` says how well.

    Raises:
        UserError: the name is unknown.
    """
    if name not in KNOWN:
        raise unknown_name("cluster", name, KNOWN)
    known = KNOWN[name]
    if not known.points:
        return known.cluster
    fitted = fit(known.cluster, known.points, known.unknowns)
    left_out = [abs(error) for error in leave_one_out(known.cluster, known.points, known.unknowns)]
    held_out = [abs(error_of(fitted, point)) for point in known.held_out]
    error = (
        f"fitted to {len(known.points)} published runs of BERT-Large in {known.fitted_software} software; each of them "
        f"predicted from the others: median error {statistics.median(left_out):.1%}, largest {max(left_out):.1%}"
    )
    if held_out:
        error += f"; other models or software that it was not fitted to: largest {max(held_out):.1%}"
    return replace(fitted, error=error.replace("%", " %"), relative_error=max(left_out + held_out))
