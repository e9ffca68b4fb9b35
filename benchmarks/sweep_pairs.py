"""What docs/results.md says of sweeps beyond their own tables: two arms seed by seed, and best rates times √(S/B).

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


def cells_of(name: str) -> list[dict[str, Any]]:
    """Of a sweep's table."""
    found: list[dict[str, Any]] = json.loads((RESULTS / f"{name}.json").read_text())["cells"]
    return found


def losses(cells: list[dict[str, Any]], recipe: str, times: float) -> dict[int, float]:
    """Seed → loss of one arm."""
    return {
        cell["cell"]["seed"]: cell["loss"]
        for cell in cells
        if Path(cell["cell"]["recipe"]).stem == recipe and cell["cell"]["multiplier"] == times
    }


def main() -> None:
    """Both tables, and the JSON line."""
    rows = []
    cells = cells_of("mixed")
    for times in (1.0, 1.5):
        without, warm = (losses(cells, name, times) for name in ("halved-without-warm-up", "halved"))
        mean = Mean.of([without[seed] - warm[seed] for seed in sorted(warm)])
        print(f"without re-warm-up less with, {times:g} times the rate: {mean.mean:+.3f} ± {mean.half_interval:.3f}")
        rows.append({"times": times, "difference": mean.mean, "half_interval": mean.half_interval})
    for one in json.loads((RESULTS / "claim.json").read_text())["tuned"]:
        rate, batch = next(
            (cell["peak_learning_rate"], cell["batch_size"])
            for cell in cells_of("claim")
            if cell["cell"]["optimizer"] == one["optimizer"]
            and f"{cell['batch_size']:,}" == one["batch"]
            and cell["cell"]["multiplier"] == one["multiplier"]
        )
        constant = rate * math.sqrt(SAMPLES / batch)
        print(f"{one['optimizer']:6} {one['batch']:>6}: best rate {rate:.3g}, times √(S/B) {constant:.2f}")
    print(json.dumps({"benchmark": "sweep_pairs", "rows": rows}))


if __name__ == "__main__":
    main()
