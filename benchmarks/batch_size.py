"""Samples against steps of published runs, fitted by the formula; and the cost of measuring the noise scale.

    python benchmarks/batch_size.py [--picture docs/batch_size.svg] [--threads 1]

Fits E(B) = E_min (1 + B / B_crit) to the samples that MLPerf's reference runs of BERT-Large needed at five batches, to
all of them and with each left out. Then times a step with and without the norm that the noise scale needs, in turns.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from critical_batch import BENCHMARK_SAMPLES, Fit, fit
from lambert.model.bert import BertConfig
from lambert.model.heads import BertForPreTraining
from lambert.model.presets import model_config
from lambert.optim import LAMB, parameter_groups
from lambert.report.picture import standing, write_picture
from lambert.report.spec import INK, PAPER, SERIES
from lambert.training.distributed.gradient_reduction import FirstGradient, Gradients

POINTS = list(BENCHMARK_SAMPLES.items())


def show_fits() -> list[dict[str, object]]:
    """The table of the fit; returns its rows."""
    found = fit(POINTS)
    print(f"E_min {found.least_samples:,.0f} ± {found.least_samples_error:,.0f} samples")
    print(f"B_crit {found.critical_batch:,.0f} ± {found.critical_batch_error:,.0f} sequences")
    print("   batch    samples     fitted     off   left out: off   B_crit")
    rows: list[dict[str, object]] = []
    for (batch, samples), off in zip(POINTS, found.residuals, strict=True):
        others = fit([point for point in POINTS if point[0] != batch])
        predicted = others.least_samples * (1 + batch / others.critical_batch)
        left_out = samples / predicted - 1
        print(
            f"{batch:>8,} {samples:>10,.0f} {samples / (1 + off):>10,.0f} {off:>+7.1%} {left_out:>+15.1%} "
            f"{others.critical_batch:>8,.0f}"
        )
        rows.append({"case": f"batch {batch}", "ours": samples / (1 + off), "theirs": samples, "ratio": 1 + left_out})
    return rows


def draw(found: Fit, out: Path) -> None:
    """The curve that the points ought to lie on: samples over steps, both to the same loss."""
    batches = np.geomspace(192, 40_000, 200)
    samples = found.least_samples * (1 + batches / found.critical_batch)
    line = [{"steps": x, "samples": y} for x, y in zip(samples / batches, samples / 1e6, strict=True)]
    points = [
        {"steps": count / batch, "samples": count / 1e6, "batch": f"{batch:,}", "above": off > 0}
        for (batch, count), off in zip(POINTS, found.residuals, strict=True)
    ]
    encoding = {
        "x": {"field": "steps", "type": "quantitative", "title": "steps", "scale": {"type": "log", "nice": False},
              "axis": {"values": [100, 300, 1_000, 3_000, 10_000], "format": ",d"}},
        "y": {"field": "samples", "type": "quantitative", "title": "million samples",
              "scale": {"domain": [0, 10], "nice": False}},
    }  # fmt: skip
    texts = [
        {"data": {"values": points}, "transform": [{"filter": {"field": "above", "equal": above}}],
         "mark": {"type": "text", "align": "left", "dx": 8, "dy": -9 if above else 16, "fontSize": 14, "color": INK},
         "encoding": {"text": {"field": "batch"}}}
        for above in (True, False)
    ]  # fmt: skip
    layers = [
        {"data": {"values": line}, "mark": {"type": "line", "color": SERIES[0]}},
        {"data": {"values": points},
         "mark": {"type": "point", "filled": True, "size": 90, "color": SERIES[1], "stroke": PAPER, "opacity": 1}},
        *texts,
    ]  # fmt: skip
    critical = f"{found.critical_batch:,.0f} ± {found.critical_batch_error:,.0f}"
    picture = standing(
        {"encoding": encoding, "layer": layers},
        title="The same accuracy with fewer steps and more samples: BERT-Large, five batch sizes",
        caption=f"Points: published runs, with their batch size. Line: the formula, critical batch size {critical}.",
    )
    write_picture(picture, out)


def cost(config: BertConfig, *, sequences: int, length: int, rounds: int = 40) -> tuple[float, float]:
    """Seconds of a step of two micro-batches without the norm, and of the norm alone: medians, taken in turns."""
    model = BertForPreTraining(config)
    optimizer = LAMB(parameter_groups(model, weight_decay=0.01), lr=1e-3)
    gradients = Gradients(model.parameters())
    ids = torch.randint(10, config.vocabulary_size, (sequences, length))
    positions = torch.arange(0, sequences * length, 7)
    segments = torch.zeros_like(ids)

    def compute(_: int) -> None:
        loss, *_ = model(ids, segments, None, positions, masked_labels=ids.flatten()[positions])[0]
        loss.backward()

    steps, norms = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        gradients.accumulate(2, compute)
        middle = time.perf_counter()
        first = FirstGradient()
        first.take([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
        float(first.square() or 0)
        after = time.perf_counter()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        steps.append(time.perf_counter() - after + middle - began)
        norms.append(after - middle)
    return statistics.median(steps), statistics.median(norms)


def main() -> None:
    """Prints the tables and, last, one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path, help="also draw the runs and the curve there")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = show_fits()
    if arguments.picture:
        draw(fit(POINTS), arguments.picture)
    print("   model  micro-batches      step      norm   ratio")
    for name, vocabulary, sequences, length in (("tiny", 2_048, 64, 16), ("mini", 8_192, 16, 64)):
        step, norm = cost(model_config(name, vocabulary_size=vocabulary), sequences=sequences, length=length)
        sizes = f"{name:>8}  2 of {sequences:>3} × {length:<3}"
        print(f"{sizes} {1e3 * step:>7.1f} ms {1e3 * norm:>6.2f} ms {norm / step:>6.2%}")
        rows.append({"case": f"norm, {name}", "ours": norm, "theirs": step, "ratio": norm / step, "target": 0.01})
    print(json.dumps({"benchmark": "batch_size", "machine": platform.processor() or platform.machine(), "rows": rows}))


if __name__ == "__main__":
    main()
