"""How far are predicted times of published runs from the published ones?

    python benchmarks/planner.py

For each cluster and published run: the published time; the error of a fit to all runs; of a fit to all others; of a
fit to the runs on fewer chips (from the fifth on); and of two simpler models, calibrated on the first run: the bytes
of the all-reduce alone beside the compute ("bytes"), and a speed-up that is the number of chips ("line"). All these
runs were known when the form of the model was chosen: they validate it, they do not test it.
"""

from __future__ import annotations

import json
import platform
import statistics
from dataclasses import replace

from lambert.planning.cluster import Cluster
from lambert.planning.fit import error_of, fit, forward_chain, leave_one_out, weak_scaling_efficiency
from lambert.planning.published import KNOWN, LAMB_ROWS, LARGE_FLOPS, Point

CHAIN_FROM = 4


def work(point: Point) -> float:
    """FLOP of a chip."""
    return sum(p.steps * p.batch_size / point.chips * LARGE_FLOPS[p.sequence_length] for p in point.parts)


def bytes_only(cluster: Cluster, points: list[Point]) -> list[float]:
    """Errors of compute and bytes alone, at the rate that the first run of the same length shows."""
    plain = replace(cluster, fixed_seconds=0.0, latency_seconds=0.0, flops_per_second_long=0.0)
    first = fit(plain, points[:1])
    calibrated = replace(plain, flops_per_second=first.flops_per_second)
    return [error_of(calibrated, point) for point in points]


def straight_line(points: list[Point]) -> list[float]:
    """Errors where a chip works as fast as in the first run, whatever their number."""
    seconds_per_flop = points[0].seconds / work(points[0])
    return [work(point) * seconds_per_flop / point.seconds - 1 for point in points]


def baselines(cluster: Cluster, points: list[Point]) -> list[tuple[float, float]]:
    """Both, for runs of each length apart where a run has one length only."""
    found: dict[str, tuple[float, float]] = {}
    for length in sorted({tuple(part.sequence_length for part in point.parts) for point in points}):
        own = [point for point in points if tuple(part.sequence_length for part in point.parts) == length]
        for point, *errors in zip(own, bytes_only(cluster, own), straight_line(own), strict=True):
            found[point.name] = (errors[0], errors[1])
    return [found[point.name] for point in points]


def show_fit(fitted: Cluster) -> None:
    """What was fitted, and the head of the table."""
    rates = [f"{rate / 1e12:.1f}" for rate in (fitted.flops_per_second, fitted.flops_per_second_long) if rate]
    fixed, latency = 1e3 * fitted.fixed_seconds, 1e6 * fitted.latency_seconds
    print(f"\n{fitted.name}: fixed {fixed:.1f} ms a step, {' and '.join(rates)} TFLOP/s, latency {latency:.2f} µs")
    print("      run  chips   published   fitted  left out  forward    bytes     line")


def main() -> None:
    """A table for each cluster, weak scaling as the LAMB paper has it, and the JSON line."""
    rows = []
    for name, (cluster, published) in KNOWN.items():
        points = list(published)
        fitted, left_out = fit(cluster, points), leave_one_out(cluster, points)
        chain: list[float | None] = [None] * len(points)
        if name == "tpu-v3":  # in the order of chips; the others alternate between lengths
            chain[CHAIN_FROM:] = forward_chain(cluster, points, first=CHAIN_FROM)
        show_fit(fitted)
        for point, out, ahead, simple in zip(points, left_out, chain, baselines(cluster, points), strict=True):
            told = f"{point.seconds / 3_600:9.2f} h" if point.seconds > 600 else f"{point.seconds:9.3f} s"
            forward = "" if ahead is None else f"{ahead:+.1%}"
            errors = f"{error_of(fitted, point):>+8.1%} {out:>+9.1%} {forward:>8} {simple[0]:>+8.1%} {simple[1]:>+8.1%}"
            print(f"{point.name:>9} {point.chips:>6} {told:>11} {errors}")
            rows.append(
                {"case": f"{name}/{point.name}", "published": point.seconds, "fitted": error_of(fitted, point),
                 "left_out": out, "forward": ahead, "bytes_only": simple[0], "straight_line": simple[1]}
            )  # fmt: skip
        sizes = [abs(error) for error in left_out]
        print(f"left out: median {statistics.median(sizes):.1%}, largest {max(sizes):.1%}")
    base = (LAMB_ROWS[0].chips, LAMB_ROWS[0].seconds)
    print("\nWeak scaling as the LAMB paper has it (speed-up at fixed epochs over the increase in chips):")
    for point in LAMB_ROWS:
        print(f"{point.name:>9} {point.chips:>6} {weak_scaling_efficiency(base, (point.chips, point.seconds)):7.1%}")
    print(json.dumps({"benchmark": "planner", "machine": platform.machine(), "rows": rows}))


if __name__ == "__main__":
    main()
