"""What a run records about itself, as names and text: machine, model, command, nested settings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from lambert.runlog.reader import Run
from lambert.runlog.records import number_or_none
from lambert.utils import formatting


def machine_rows(run: Run) -> list[tuple[str, str]]:
    """Machine, software and corpus, from the `run` event."""
    header, host = run.header, run.header.get("host")
    rows = []
    for name, value in host.items() if isinstance(host, dict) else ():
        shown = formatting.size(value) if name.endswith("_bytes") and isinstance(value, int) else inline(value)
        rows.append((name.removesuffix("_bytes").replace("_", " "), shown))
    peak = number_or_none(header.get("peak_matmul_flops_per_second"))
    if peak is not None:
        rows.append(("matmul throughput", f"{formatting.number(peak / 1e9)} GFLOP/s per rank"))
    for name in ("precision", "world_size", "deterministic", "micro_batch_size", "seed", "lambert", "torch", "python"):
        if name in header:
            rows.append((name.replace("_", " "), inline(header[name])))
    corpus = header.get("corpus")
    rows += flat({"corpus": corpus}) if isinstance(corpus, dict) else []
    execution = header.get("execution")
    if isinstance(execution, dict):
        rows += [(f"execution: {name.replace('_', ' ')}", inline(value)) for name, value in execution.items()]
    return rows


def model_text(run: Run) -> str:
    """The model's name and sizes, where the journal gives them."""
    model = run.header.get("model")
    if not isinstance(model, dict):
        return str(model) if model else formatting.MISSING
    name = model.get("name") or model.get("preset")
    layers, width = model.get("layers"), model.get("hidden_size", model.get("width"))
    sizes = f"{layers} × {width}" if layers and width else ""
    return " ".join(str(part) for part in (name, sizes) if part) or formatting.MISSING


def command(recipe: Mapping[str, object]) -> str | None:
    """The command that started the run, where recipe.toml records it."""
    recorded = recipe.get("command")
    if isinstance(recorded, list):
        return shlex.join(str(part) for part in recorded)
    return recorded if isinstance(recorded, str) and recorded.strip() else None


def flat(values: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """Nested tables as dotted names and text; a table with a `value` is that value with its reasons."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, dict) and "value" in value and not any(isinstance(v, dict) for v in value.values()):
            reasons = "; ".join(inline(reason) for key, reason in value.items() if key != "value")
            rows.append((f"{prefix}{name}", inline(value["value"]) + (f" ({reasons})" if reasons else "")))
        elif isinstance(value, dict):
            rows += flat(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            for number, item in enumerate(value, start=1):
                rows += flat(item, f"{prefix}{name} {number}.")
        else:
            rows.append((f"{prefix}{name}", inline(value)))
    return rows


def ranges(numbers: Sequence[int], most: int = 8) -> str:
    """Line numbers as text: 3, 7–9 and so on."""
    starts = [numbers[0], *(after for before, after in pairwise(numbers) if after != before + 1)]
    parts = []
    for start in starts[:most]:
        stop = start
        while stop + 1 in numbers:
            stop += 1
        parts.append(str(start) if stop == start else f"{start}–{stop}")
    return ", ".join(parts) + (" and others" if len(starts) > most else "")


def inline(value: object) -> str:
    """A value of a setting as text on one line."""
    if value is None:
        return formatting.MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return formatting.count(value) if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        text = f"{value:.6g}".replace("e-0", "e-")
        return text if set(text) & set(".en") else f"{text}.0"  # 1.0, as recipe.toml has it
    if isinstance(value, dict):
        return ", ".join(f"{name} {inline(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(inline(item) for item in value)
    return str(value) or formatting.MISSING


def mean_speed(run: Run, column: str) -> float:
    """Mean over time, not over steps: the amount divided by the seconds it took."""
    speed, seconds = run.series[column], run.series["seconds"]
    known = np.isfinite(speed) & np.isfinite(seconds)
    total = float(seconds[known].sum())
    if total > 0:
        return float((speed * seconds)[known].sum() / total)
    finite = speed[np.isfinite(speed)]
    return float(finite.mean()) if len(finite) else float("nan")
