"""Does accuracy stay as the batch grows? LeNet on MNIST, batch 32 to 4,096, with LAMB, LARS, AdamW and SGD.

Every run sees the same number of images (10 epochs), with a linear warm-up over a tenth of the steps and a linear
decay to 0. The peak learning rate follows one rule, c / √steps. Each optimizer's c is the best of six at batch 512 by
accuracy on 10,000 held-out training images, and is then kept for all batch sizes. Those train on all 60,000 images, at
c, c / 2 and 2c, and are measured on the test set, once, after the last step.

    python examples/mnist_batch_sizes.py --data FOLDER --out runs/mnist.jsonl --picture mnist.svg

FOLDER holds the four files of MNIST in IDX format, packed with gzip or not: train-images-idx3-ubyte,
train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte. `torchvision.datasets.MNIST(root,
download=True)` leaves them in root/MNIST/raw; Fashion-MNIST has the same names and format. Nothing is downloaded here.

Each finished run is a line of --out, and the same command continues after an interruption. The whole takes about two
hours on one core. It needs the extra `pretrain`, and `pictures` for --picture. What training itself needs, PyTorch and
numpy, is in mnist_training.py.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from mnist_training import Data, Run, measure, read_data, train

from lambert.errors import UserError
from lambert.experiments.table import Mean
from lambert.report.picture import check_picture, standing, write_picture
from lambert.report.spec import SERIES

GRID = {name: [first * 2**power for power in range(6)]
        for name, first in {"LAMB": 0.1, "LARS": 0.1, "AdamW": 0.01, "SGD": 0.5}.items()}  # fmt: skip
"""The values of c that are tried: as many for each optimizer."""
MULTIPLIERS = (1.0, 0.5, 2.0)


class Journal:
    """The finished runs in a file, one a line."""

    def __init__(self, path: Path) -> None:
        self.path, self.done = path, dict[Run, dict[str, Any]]()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_text("utf-8") if path.exists() else ""
            whole = text[: text.rfind("\n") + 1]  # an interruption can leave a part of a line
            for line in map(json.loads, whole.splitlines()):
                self.done[Run(**{name: line[name] for name in Run.__dataclass_fields__})] = line
            if not self.done and text:
                raise ValueError
            path.write_text(whole, "utf-8")
        except OSError as error:
            raise SystemExit(f"{path} cannot be written: {error.strerror}; give another file as --out") from None
        except (ValueError, KeyError, TypeError):
            raise SystemExit(f"{path} is not a journal of this script; give another file as --out") from None

    def result(self, run: Run, train_data: Data, test_data: Data) -> dict[str, Any]:
        """Of a run that is finished, or that is made now."""
        if run in self.done:
            return self.done[run]
        began = time.process_time()
        model = train(run, train_data.part(0, run.train_images))
        left = train_data.part(run.train_images, len(train_data.labels))
        found = measure(model, left if len(left.labels) else test_data)
        line = asdict(run) | {"steps": run.steps, "learning_rate": run.learning_rate} | found
        line["core_seconds"] = time.process_time() - began
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(
            f"{run.optimizer:6} batch {run.batch_size:>5,}  c {run.constant:<6g} rate {run.learning_rate:<9.3g}"
            f"seed {run.seed}: {line['accuracy']:.2f} %  ({line['core_seconds']:.0f} s)", flush=True,
        )  # fmt: skip
        self.done[run] = line
        return line


def ladder(constants: Mapping[str, float], options: argparse.Namespace, train_images: int) -> Iterator[Run]:
    """The measured runs, those that say most first."""
    ends = sorted({min(options.batches), options.tuning_batch, max(options.batches)} & set(options.batches))
    between = [batch for batch in options.batches if batch not in ends]
    at_ends = [(batch, 1.0, seed) for seed in range(options.seeds) for batch in ends]
    once = [(batch, 1.0, 0) for batch in between]
    other_rates = [(batch, times, 0) for batch in (*ends, *between) for times in MULTIPLIERS[1:]]
    for batch, times, seed in (*at_ends, *once, *other_rates):
        for name, constant in constants.items():
            yield Run(name, batch, constant * times, seed, options.epochs, train_images)


def tune(journal: Journal, options: argparse.Namespace, train_data: Data, test_data: Data) -> dict[str, float]:
    """The best c of each optimizer, by accuracy on training images that were held out; the loss breaks ties."""
    images = len(train_data.labels) - options.held_out
    found = {}
    for name, grid in GRID.items():
        runs = [Run(name, options.tuning_batch, constant, 0, options.epochs, images) for constant in grid]
        if options.report and not journal.done.keys() >= set(runs):
            raise SystemExit(f"{options.out} does not have all runs that choose c yet; leave out --report to make them")
        lines = [journal.result(run, train_data, test_data) for run in runs]
        best = max(lines, key=lambda line: (line["accuracy"], -(line["loss"] or math.inf)))
        found[name] = best["constant"]
        edge = ", at the edge of those tried" if best["constant"] in (grid[0], grid[-1]) else ""
        print(f"{name}: c = {best['constant']:g}{edge}; held-out accuracy {best['accuracy']:.2f} %")
    return found


def summarise(lines: Sequence[Mapping[str, Any]], constants: Mapping[str, float]) -> list[dict[str, Any]]:
    """A row for each optimizer, multiple of c and batch size, with the mean over seeds and its 95 % interval."""
    rows: dict[tuple[str, float, int], list[Mapping[str, Any]]] = {}
    for line in lines:
        times = line["constant"] / constants[line["optimizer"]]
        rows.setdefault((line["optimizer"], times, line["batch_size"]), []).append(line)
    found = []
    for (name, times, batch), own in rows.items():
        mean = Mean.of([line["accuracy"] for line in own])
        found.append({"optimizer": name, "times": times, "batch_size": batch, "steps": own[0]["steps"],
                      "learning_rate": own[0]["learning_rate"], "accuracy": mean.mean, "seeds": mean.seeds,
                      "half_interval": mean.half_interval if mean.seeds > 1 else None})  # fmt: skip
    return found


def show(rows: Sequence[Mapping[str, Any]], batches: Sequence[int]) -> None:
    """The table: test accuracy, ± half of the 95 % interval where there are several seeds."""
    cells = {(row["optimizer"], row["times"], row["batch_size"]): row for row in rows}
    print(f"\n{'test accuracy, %':16}" + "".join(f"{batch:>15,}" for batch in batches))
    for name in GRID:
        for times in MULTIPLIERS:
            texts = []
            for batch in batches:
                row = cells.get((name, times, batch))
                half = f" ± {row['half_interval']:.2f}" if row and row["half_interval"] is not None else ""
                texts.append(f"{row['accuracy']:.2f}{half}" if row else "")
            print(f"{f'{name}, c × {times:g}':16}" + "".join(f"{text:>15}" for text in texts))


def losses(
    lines: Sequence[Mapping[str, Any]], constants: Mapping[str, float], batches: Sequence[int]
) -> dict[str, list[float]]:
    """What each optimizer loses at c from the smallest to the largest batch, in points, one value for each seed."""
    small, large = min(batches), max(batches)
    found = {}
    for name, constant in constants.items():
        own = {(line["batch_size"], line["seed"]): line["accuracy"] for line in lines
               if (line["optimizer"], line["constant"]) == (name, constant)}  # fmt: skip
        seeds = [seed for batch, seed in own if batch == small and (large, seed) in own]
        found[name] = [own[small, seed] - own[large, seed] for seed in seeds]
        mean = Mean.of(found[name])
        print(f"{name}: {mean.mean:.2f} ± {mean.half_interval:.2f} points lost from batch {small:,} to {large:,}")
    return found


def draw(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Accuracy over batch size at c, with the 95 % interval where there are several seeds; small: at c / 2 and 2c.

    The axis begins at most 2.5 points below the best: a run that did not learn would hide all other differences.
    """
    names, batches = list(GRID), sorted({row["batch_size"] for row in rows})
    shift = {name: 0.06 * (place - 1.5) for place, name in enumerate(names)}
    values = [{**row, "low": row["accuracy"] - (row["half_interval"] or 0),
               "high": min(100.0, row["accuracy"] + (row["half_interval"] or 0)),
               "at": math.log2(row["batch_size"]) + shift[row["optimizer"]]} for row in rows]  # fmt: skip
    lowest = min(value["low"] for value in values if value["times"] == 1)
    floor = max(lowest, max(row["accuracy"] for row in rows) - 2.5)
    encoding: dict[str, Any] = {
        "x": {"field": "at", "type": "quantitative", "title": "batch size",
              "scale": {"zero": False, "nice": False, "padding": 16},
              "axis": {"values": [math.log2(batch) for batch in batches], "tickCount": 2 * len(batches),
                       "labelOverlap": False, "labelExpr": "format(round(pow(2, datum.value)), ',d')"}},
        "y": {"field": "accuracy", "type": "quantitative", "title": None,
              "scale": {"zero": False, "nice": False, "domainMin": math.floor(10 * floor - 1) / 10,
                        "domainMax": min(100.0, math.ceil(10 * max(value["high"] for value in values)) / 10)}},
        "color": {"field": "optimizer", "type": "nominal", "title": None, "sort": None,
                  "scale": {"domain": names, "range": list(SERIES[: len(names)])}},
    }  # fmt: skip
    at_c = [{"filter": "datum.times == 1"}]
    layers = [
        {"transform": at_c, "mark": {"type": "line", "strokeWidth": 2, "clip": True}},
        {"transform": at_c, "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1, "clip": True}},
        {"transform": at_c, "mark": {"type": "rule", "strokeWidth": 2, "clip": True},
         "encoding": {"y": {"field": "low", "type": "quantitative"}, "y2": {"field": "high"}}},
        {"transform": [{"filter": "datum.times != 1"}],
         "mark": {"type": "point", "size": 20, "opacity": 0.7, "clip": True}},
    ]  # fmt: skip
    picture = standing(
        {"data": {"values": values}, "encoding": encoding, "layer": layers},
        title="LeNet on MNIST, 10 epochs: test accuracy (%) by batch size",
        caption="Learning rate c / √steps, with each optimizer's c chosen at one batch size. Bars: 95 % interval over "
        "seeds. Small circles: c / 2 and 2c. What lies below the axis is not shown.",
    )
    write_picture(picture, out)


def main() -> None:
    """Prints each run, the table and, last, one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the four IDX files")
    parser.add_argument("--out", type=Path, required=True, help="the journal, such as runs/mnist.jsonl")
    parser.add_argument("--picture", type=Path, help="also draw accuracy by batch size there, SVG or PNG")
    parser.add_argument("--report", action="store_true", help="train nothing: show the runs that --out has")
    parser.add_argument("--batches", type=int, nargs="+", default=[2**power for power in range(5, 13)])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--tuning-batch", type=int, default=512, help="where c is chosen (default: 512)")
    parser.add_argument("--held-out", type=int, default=10_000, help="training images to choose c on (default: 10,000)")
    parser.add_argument("--seeds", type=int, default=3, help="at c: smallest, tuning and largest batch (default: 3)")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train_data, test_data = read_data(options.data, "train"), read_data(options.data, "t10k")
    left, sizes = len(train_data.labels) - options.held_out, (options.tuning_batch, *options.batches)
    if min(options.held_out, options.epochs, options.seeds, *sizes) < 1 or max(sizes) > left:
        parser.error(f"numbers start at 1, and a batch has at most {left:,} images: those not held out")
    if options.picture:
        try:
            check_picture(options.picture)
        except UserError as error:
            parser.error(str(error))
    journal = Journal(options.out)
    constants = tune(journal, options, train_data, test_data)
    runs = ladder(constants, options, len(train_data.labels))
    lines = [journal.result(run, train_data, test_data) for run in runs if run in journal.done or not options.report]
    rows = summarise(lines, constants)
    show(rows, options.batches)
    lost = losses(lines, constants, options.batches)
    if options.picture:
        draw(rows, options.picture)
    hours = sum(line["core_seconds"] for line in journal.done.values()) / 3_600
    machine = platform.processor() or platform.machine()
    print(json.dumps({"example": "mnist_batch_sizes", "machine": machine, "core_hours": hours, "constants": constants,
                      "lost": lost, "rows": rows}))  # fmt: skip


if __name__ == "__main__":
    main()
