"""The table at the end: what was seen beside what it should be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gpu_check.stages import STAGES

Lines = Mapping[int, Mapping[str, Any]]
"""Stage number → its line."""


@dataclass(frozen=True)
class Target:
    """One row of the table."""

    what: str
    stage: int
    target: str
    seen: Callable[[list[dict[str, Any]], Mapping[str, Any]], float | None]
    """From the rows and the line of the stage."""
    is_met: Callable[[float], bool]
    shown: Callable[[float], str]


def _speed(model: str, length: int) -> Callable[[list[dict[str, Any]], Mapping[str, Any]], float | None]:
    """The fastest way to train on full rows."""

    def seen(rows: list[dict[str, Any]], line: Mapping[str, Any]) -> float | None:
        wanted = (row for row in rows if (row.get("model"), row.get("length")) == (model, length))
        return max((row["sequences_per_second"] for row in wanted if not row["masked"]), default=None)

    return seen


def _at_least(number: float) -> Callable[[float], bool]:
    return lambda value: value >= number


def _at_most(number: float) -> Callable[[float], bool]:
    return lambda value: value <= number


def _dropout(rows: list[dict[str, Any]], line: Mapping[str, Any]) -> float | None:
    """The largest relative distance from the dropout that was asked for."""
    asked = [row for row in rows if row.get("whose") == "lambert" and row["asked"]]
    return max((abs(row["dropped"] / row["asked"] - 1) for row in asked), default=None)


def _lamb(rows: list[dict[str, Any]], line: Mapping[str, Any]) -> float | None:
    return min((row["of_copy_bandwidth"] for row in rows if row.get("optimizer") == "LAMB"), default=None)


def _first(name: str) -> Callable[[list[dict[str, Any]], Mapping[str, Any]], float | None]:
    return lambda rows, line: next((row[name] for row in rows if row.get(name) is not None), None)


def _case(name: str, field: str) -> Callable[[list[dict[str, Any]], Mapping[str, Any]], float | None]:
    return lambda rows, line: next((row[field] for row in rows if row["case"] == name), None)


def _apart(rows: list[dict[str, Any]], line: Mapping[str, Any]) -> float | None:
    losses = list(line.get("losses", {}).values())
    return max(losses) - min(losses) if len(losses) > 1 else None


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _percent(value: float) -> str:
    return f"{value:.1%}"


def _tera(value: float) -> str:
    return f"{value / 1e12:.2f} T"


def _always(value: float) -> bool:
    return True


TARGETS = (
    Target("copy bandwidth, bytes/s", 1, "", _case("copy", "bytes_per_second"), _always, _tera),
    Target(
        "8192³ product, bfloat16, random data, FLOP/s",
        1,
        "",
        _case("product bfloat16, random data", "flops_per_second"),
        _always,
        _tera,
    ),
    Target("attention dropout, off what was asked", 3, "≤ 1 %", _dropout, _at_most(0.01), _percent),
    Target("Large at 128, sequences/s", 6, "≥ 1,800 (goal 2,200)", _speed("large", 128), _at_least(1_800), _number),
    Target("Large at 512, sequences/s", 6, "≥ 420 (goal 500)", _speed("large", 512), _at_least(420), _number),
    Target("Base at 128, sequences/s", 6, "≥ 5,500", _speed("base", 128), _at_least(5_500), _number),
    Target("LAMB's step, of the copy bandwidth", 7, "≥ 85 %", _lamb, _at_least(0.85), _percent),
    Target("data, share of a step", 10, "< 1 %", _first("data_share"), lambda value: value < 0.01, _percent),
    Target(
        "time, forecast over seen",
        10,
        "0.9 to 1.1",
        _first("seconds_ratio"),
        lambda v: 0.9 <= v <= 1.1,
        "{:.2f}".format,
    ),
    Target(
        "memory, forecast over seen",
        10,
        "0.9 to 1.25",
        _first("memory_bytes_ratio"),
        lambda v: 0.9 <= v <= 1.25,
        "{:.2f}".format,
    ),
    Target("held-out losses apart, nats", 11, "≤ 0.03", _apart, _at_most(0.03), "{:.3f}".format),
)


def table(lines: Lines, *, small: bool) -> str:
    """Stages that are not ok with their problems, then the targets."""
    parts = [*_stage_lines(lines), ""]
    if small:
        parts.append("a rehearsal: the numbers below mean nothing")
    cells = [("", "seen", "target", "")]
    cells += [_row(target, lines.get(target.stage, {})) for target in TARGETS]
    widths = [max(len(row[column]) for row in cells) for column in range(4)]
    parts += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join(parts)


def _stage_lines(lines: Lines) -> Iterable[str]:
    for stage in STAGES:
        line = lines.get(stage.number)
        if line is None:
            yield f"{stage.number:2} {stage.name:11} not run"
            continue
        state = "ok" if line.get("ok") else "NOT OK"
        skipped = f"  skipped: {line['skipped']}" if "skipped" in line else ""
        yield f"{stage.number:2} {stage.name:11} {state:6} {line.get('seconds', 0):6.0f} s{skipped}"
        yield from (f"     {problem[:200]}" for problem in line.get("problems", []))


def _row(target: Target, line: Mapping[str, Any]) -> tuple[str, str, str, str]:
    rows = [row for row in line.get("rows", []) if "problem" not in row]
    try:
        value = target.seen(rows, line)
        if not isinstance(value, (int, float)):
            return target.what, "-", target.target, "not measured"
        met = "" if not target.target else "met" if target.is_met(value) else "MISSED"
        return target.what, target.shown(value), target.target, met
    except (KeyError, TypeError, ZeroDivisionError):
        return target.what, "-", target.target, "not measured"
