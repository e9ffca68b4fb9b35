"""Numbers as text for people: durations, sizes, percentages and counts; commands as a shell reads them."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path

MISSING = "–"
_SIZES = ("bytes", "kB", "MB", "GB", "TB")
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ./_=:,+-")
_BILLION, _MILLION = 1_000_000_000, 1_000_000


def number(value: float | None, digits: int = 3) -> str:
    """A number to so many significant digits: 6.45, 0.0255, 4.4e-4, 39,700."""
    if value is None:
        return MISSING
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "infinite"
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


def perplexity(loss: float | None) -> str:
    """The exponential of a loss in nats: 23.4, 248, 1,051."""
    if loss is None or math.isnan(loss):
        return number(loss)
    return number(math.exp(loss) if loss < 700 else math.inf)


def percent(fraction: float | None) -> str:
    """A fraction from 0 to 1 as a percentage with one decimal."""
    known = fraction is not None and math.isfinite(fraction)
    return f"{fraction:.1%}".replace("%", " %") if known else number(fraction)


def count(value: int | float | None) -> str:
    """A whole number with thousands separated: 32,768."""
    return f"{value:,.0f}" if value is not None and math.isfinite(value) else number(value)


def large(value: int | float | None) -> str:
    """A count, large ones in millions or billions: 4.39 million."""
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
    """A ratio as text ("2.7 times"); None where it is undefined."""
    if not (math.isfinite(value) and math.isfinite(reference)) or reference <= 0:
        return None
    return f"{value / reference:.1f} times"


def text_table(rows: Sequence[Sequence[str]], *, texts: Collection[int] = (0,)) -> list[str]:
    """Lines of a table; the first column and those in `texts` hold text, aligned left.

    >>> text_table([["model", "f1"], ["mine", "80.25"]])
    ['model     f1', 'mine   80.25']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = {0, *(column % len(widths) for column in texts)}
    return [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def shell_command(*words: str | Path) -> str:
    """The line that any POSIX shell, and a terminal that shows only UTF-8, takes for these words.

    >>> shell_command("lambert", "fill", Path("-my run"), "100 %")
    "lambert fill './-my run' '100 %'"
    >>> print(shell_command("cat", "\\udce9t\\né"))
    cat "$(printf '\\351t\\012\\303\\251')"
    """
    return " ".join(_shell_word(path_word(word)) for word in words)


def path_word(word: object) -> str:
    """The word of a command for a value; a path that looks like an option begins with `./`."""
    text = str(word)
    return f"./{text}" if isinstance(word, Path) and text.startswith("-") else text


def _shell_word(word: str) -> str:
    if all(sign.isprintable() for sign in word):
        return shlex.quote(word)
    body = word.rstrip("\n")  # the shell takes the line ends off what a command prints
    ends = word[len(body) :]
    octal = "".join(chr(byte) if chr(byte) in _PLAIN else f"\\{byte:03o}" for byte in os.fsencode(body))
    return f"\"$(printf '{octal}')\"" + (shlex.quote(ends) if ends else "")
