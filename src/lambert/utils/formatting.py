"""Numbers as people read them: durations, sizes, shares and counts."""

from __future__ import annotations

import math

MISSING = "–"
_SIZES = ("bytes", "kB", "MB", "GB", "TB")
_BILLION, _MILLION = 1_000_000_000, 1_000_000


def number(value: float | None, digits: int = 3) -> str:
    """A number to so many significant digits: 6.45, 0.0255, 4.4e-4, 39,700."""
    if value is None:
        return MISSING
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 10**digits:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        text = f"{value:,.{decimals}f}"
        return text.rstrip("0").rstrip(".") if "." in text and abs(value) < 1 else text
    if abs(value) >= 1:
        return f"{value:,.0f}" if abs(value) < 1e15 else f"{value:.{digits - 1}e}"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}e{int(exponent)}"


def loss(value: float | None) -> str:
    """A loss with three decimals, so that columns of losses line up."""
    return f"{value:.3f}" if value is not None and math.isfinite(value) else number(value)


def percent(share: float | None) -> str:
    """A share between 0 and 1 as a percentage with one decimal."""
    return f"{share:.1%}".replace("%", " %") if share is not None and math.isfinite(share) else number(share)


def count(value: int | float | None) -> str:
    """A whole number with thousands separated: 32,768."""
    return f"{value:,.0f}" if value is not None and math.isfinite(value) else number(value)


def large(value: int | float | None) -> str:
    """A count in words where it is large: 4.39 million."""
    if value is None or not math.isfinite(value) or value < _MILLION:
        return count(value)
    scale, name = (_BILLION, "billion") if value >= _BILLION else (_MILLION, "million")
    return f"{value / scale:.{1 if value >= 100 * scale else 2}f} {name}"


def duration(seconds: float | None) -> str:
    """A duration with its two largest units: 0.8 s, 41 s, 3 min 12 s, 2 h 5 min, 1 d 3 h."""
    if seconds is None or not math.isfinite(seconds):
        return number(seconds)
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    for unit, name, smaller, smaller_name in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= unit:
            rest = whole % unit // smaller
            return f"{whole // unit} {name} {rest} {smaller_name}" if rest else f"{whole // unit} {name}"
    return f"{whole} s"


def size(number_of_bytes: int | float | None) -> str:
    """A size in bytes, in powers of 1,000: 17.5 MB."""
    if number_of_bytes is None or not math.isfinite(number_of_bytes):
        return number(number_of_bytes)
    value = float(number_of_bytes)
    for unit in _SIZES:
        if value < 999.95 or unit == _SIZES[-1]:
            break
        value /= 1_000
    return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:,.1f} {unit}"


def times(value: float, reference: float) -> str | None:
    """How many times the reference a value is ("2.7 times"); None where that says nothing."""
    if not (math.isfinite(value) and math.isfinite(reference)) or reference <= 0:
        return None
    return f"{value / reference:.1f} times"


def tick(value: float, top: float) -> str:
    """A number on an axis that reaches up to `top`, short: 0.005, 40 k, 1.2 M."""
    if value == 0:
        return "0"
    if top >= _MILLION:
        return f"{value / _MILLION:g} M"
    if top >= 10_000:
        return f"{value / 1_000:g} k"
    return number(value) if abs(value) < 1e-3 else f"{value:,.6g}"
