"""Runs of a sweep with and without re-warm-up, paired by seed: NAME-without-warm-up.toml less NAME.toml.

    python benchmarks/sweep_pairs.py docs/results/mixed.json      # or runs/NAME/table.json of `lambert sweep`

Prints the mean difference of the held-out losses and its 95 % interval for each optimizer and multiplier.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from lambert.experiments.table import Mean

SUFFIX = "-without-warm-up"


def losses(trials: list[dict[str, Any]]) -> dict[tuple[str, float, str], dict[int, float]]:
    """(optimizer, multiplier, recipe) → seed → loss, of the trials that finished."""
    found: dict[tuple[str, float, str], dict[int, float]] = {}
    for trial in trials:
        own = trial["trial"]
        if trial["loss"] is not None:
            key = own["optimizer"], own["multiplier"], Path(own["recipe"]).stem
            found.setdefault(key, {})[own["seed"]] = trial["loss"]
    return found


def main() -> None:
    """The table, and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    by_run = losses(json.loads(parser.parse_args().table.read_text())["trials"])
    rows = []
    for (optimizer, multiplier, recipe), without in by_run.items():
        warm = by_run.get((optimizer, multiplier, recipe.removesuffix(SUFFIX)), {})
        seeds = sorted(without.keys() & warm.keys())
        if not recipe.endswith(SUFFIX) or len(seeds) < 2:
            continue
        mean = Mean.of([without[seed] - warm[seed] for seed in seeds])
        loss = Mean.of([warm[seed] for seed in seeds]).mean
        print(f"{optimizer:12} × {multiplier:g}, {len(seeds)} seeds: {loss:.3f}", end=", ")
        print(f"without re-warm-up {mean.mean:+.3f} ± {mean.half_interval:.3f}")
        rows.append(
            {
                "optimizer": optimizer,
                "multiplier": multiplier,
                "seeds": len(seeds),
                "difference": mean.mean,
                "half_interval": mean.half_interval,
            }
        )
    print(json.dumps({"benchmark": "sweep_pairs", "rows": rows}))


if __name__ == "__main__":
    main()
