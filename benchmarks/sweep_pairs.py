"""Numbers in docs/results.md beyond the sweep tables: configurations paired by seed, and best rates times √(S/B).

python benchmarks/sweep_pairs.py        # reads docs/results/*.json
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from lambert.experiments.table import Mean

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
SAMPLES = 192_000


def trials_of(name: str) -> list[dict[str, Any]]:
    """Of a sweep's table."""
    found: list[dict[str, Any]] = json.loads((RESULTS / f"{name}.json").read_text())["trials"]
    return found


def losses(trials: list[dict[str, Any]], recipe: str, times: float) -> dict[int, float]:
    """Seed → loss of one configuration."""
    return {
        trial["trial"]["seed"]: trial["loss"]
        for trial in trials
        if Path(trial["trial"]["recipe"]).stem == recipe and trial["trial"]["multiplier"] == times
    }


def main() -> None:
    """Both tables, and the JSON line."""
    rows = []
    trials = trials_of("mixed")
    for times in (1.0, 1.5):
        without, warm = (losses(trials, name, times) for name in ("halved-without-warm-up", "halved"))
        mean = Mean.of([without[seed] - warm[seed] for seed in sorted(warm)])
        print(f"without re-warm-up less with, {times:g} times the rate: {mean.mean:+.3f} ± {mean.half_interval:.3f}")
        rows.append({"times": times, "difference": mean.mean, "half_interval": mean.half_interval})
    for one in json.loads((RESULTS / "claim.json").read_text())["tuned"]:
        rate, batch = next(
            (trial["peak_learning_rate"], trial["batch_size"])
            for trial in trials_of("claim")
            if trial["trial"]["optimizer"] == one["optimizer"]
            and f"{trial['batch_size']:,}" == one["batch"]
            and trial["trial"]["multiplier"] == one["multiplier"]
        )
        constant = rate * math.sqrt(SAMPLES / batch)
        print(f"{one['optimizer']:6} {one['batch']:>6}: best rate {rate:.3g}, times √(S/B) {constant:.2f}")
    print(json.dumps({"benchmark": "sweep_pairs", "rows": rows}))


if __name__ == "__main__":
    main()
