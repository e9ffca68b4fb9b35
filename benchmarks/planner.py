"""Errors of predicted times of published runs.

    python benchmarks/planner.py [--pictures DIR]

For each cluster and run: whether it was fitted or held out; published and predicted time and the error; the error of a
fit to all others ("left out") and to the runs on fewer chips ("forward"); and of two simpler models, calibrated on the
first run: compute and the bytes of the all-reduce alone ("bytes"), and a speed-up equal to the number of chips
("line"). Then other published results (`planner_checks.py`). The TPU v3 and A100 runs were known when the form of the
model was chosen: they validate it, they do not test it. It was settled before it was run on any other.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import textwrap
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lambert.planner.cluster import Cluster
from lambert.planner.fit import (
    error_of,
    fit,
    known_cluster,
    leave_one_out,
    predicted_seconds,
)
from lambert.planner.presets import KNOWN, Known
from lambert.planner.published import LAMB_ROWS, Point
from planner_checks import checks, forward_chain, weak_scaling_efficiency
from planner_pictures import write_pictures

CHAIN_FROM = {"tpu-v3": 4, "dgx2-v100": 2}
"""Runs in the order of chips; the A100's alternate between lengths."""


def work(point: Point) -> float:
    """FLOP of a chip."""
    return sum(p.steps * p.batch_size / point.chips * point.payload.flops[p.sequence_length] for p in point.parts)


def bytes_only(cluster: Cluster, points: list[Point]) -> list[float]:
    """Errors of compute and bytes alone, at the rate that the first run of the same length shows."""
    plain = replace(cluster, fixed_seconds=0.0, latency_seconds=0.0, flops_per_second_long=0.0)
    calibrated = fit(plain, points[:1], ("flops_per_second",))
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


def show_cluster(name: str, known: Known) -> list[dict[str, Any]]:
    """The table of a cluster with published runs."""
    fitted, points = known_cluster(name), list(known.points)
    rates = [f"{rate / 1e12:.1f}" for rate in (fitted.flops_per_second, fitted.flops_per_second_long) if rate]
    fixed, latency = 1e3 * fitted.fixed_seconds, 1e6 * fitted.latency_seconds
    print(f"\n{fitted.name}: fixed {fixed:.1f} ms a step, {' and '.join(rates)} TFLOP/s, latency {latency:.2f} µs")
    print("         run  chips           published   predicted    error  left out  forward    bytes     line")
    left_out = leave_one_out(known.cluster, points, known.unknowns)
    chain: list[float | None] = [None] * len(points)
    if name in CHAIN_FROM:
        first = CHAIN_FROM[name]
        chain[first:] = forward_chain(known.cluster, points, known.unknowns, first=first)
    rows = []
    for point, out, ahead, simple in zip(points, left_out, chain, baselines(known.cluster, points), strict=True):
        forward = "" if ahead is None else f"{ahead:+.1%}"
        print(f"{_line('fitted', fitted, point)} {out:>+9.1%} {forward:>8} {simple[0]:>+8.1%} {simple[1]:>+8.1%}")
        rows.append(
            {"case": f"{name}/{point.name}", "role": "fitted", "published": point.seconds,
             "predicted": predicted_seconds(fitted, point), "error": error_of(fitted, point), "left_out": out,
             "forward": ahead, "bytes_only": simple[0], "straight_line": simple[1]}
        )  # fmt: skip
    for point in known.held_out:
        print(_line("held out", fitted, point))
        rows.append(
            {"case": f"{name}/{point.name}", "role": "held out", "published": point.seconds,
             "predicted": predicted_seconds(fitted, point), "error": error_of(fitted, point)}
        )  # fmt: skip
    sizes = [abs(error) for error in left_out]
    print(f"left out: median {statistics.median(sizes):.1%}, largest {max(sizes):.1%}")
    return rows


def _line(role: str, fitted: Cluster, point: Point) -> str:
    unit, size = ("h", 3_600.0) if point.seconds > 600 else ("s", 1.0)
    published, predicted = point.seconds / size, predicted_seconds(fitted, point) / size
    error = error_of(fitted, point)
    return (
        f"{point.name:>12} {point.chips:>6}  {role:>8} {published:>8.2f} {unit} {predicted:>9.2f} {unit} {error:>+8.1%}"
    )


def main() -> None:
    """A table for each cluster, weak scaling as the LAMB paper has it, the other checks, and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, help="write the pictures of docs/planning.md into this folder")
    pictures = parser.parse_args().pictures
    rows = [row for name, known in KNOWN.items() if known.points for row in show_cluster(name, known)]
    base = (LAMB_ROWS[0].chips, LAMB_ROWS[0].seconds)
    print("\nWeak scaling as the LAMB paper has it (speed-up at fixed epochs over the increase in chips):")
    for point in LAMB_ROWS:
        print(f"{point.name:>9} {point.chips:>6} {weak_scaling_efficiency(base, (point.chips, point.seconds)):7.1%}")
    print("\nHeld out, other chips, models and questions:")
    for check in checks():
        print(f"{check.case}: {check.text}")
        print(textwrap.indent(textwrap.fill(check.note, 110), "    "))
        rows.append({**asdict(check), "role": "held out", "error": check.error})
    if pictures is not None:
        for path in write_pictures(pictures):
            print(f"wrote {path}")
    print(json.dumps({"benchmark": "planner", "machine": platform.machine(), "rows": rows}))


if __name__ == "__main__":
    main()
