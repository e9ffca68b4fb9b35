"""Which examples are held out, by the hash of their text; and what their labels look like."""

from __future__ import annotations

import hashlib
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from lambert.errors import UserError
from lambert.finetune.labelled.reading import Labelled
from lambert.finetune.labelled.task import Kind, Scale

log = logging.getLogger("lambert")
Item = TypeVar("Item")
_SHOWN = 20
_RARE = 5
_IMBALANCE = 10
_FEW = 100


def key_of(texts: Sequence[str]) -> bytes:
    """A hash of the texts but for case and spaces: an example and its copies have the same."""
    text = "\0".join(" ".join(text.split()).casefold() for text in texts)
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()


def hold_out(
    items: Sequence[Item], texts: Callable[[Item], Sequence[str]], fraction: float
) -> tuple[list[Item], list[Item]]:
    """Training and held-out items: those with the smallest hashes of their texts are held out, whatever their order.
    Copies of one text are on one side.

    Raises:
        UserError: the fraction is not between 0 and 1, or there are too few different texts.
    """
    if not 0 < fraction < 1:
        raise UserError(f"`dev_fraction` = {fraction}", remedy="Give a fraction between 0 and 1")
    keys = [key_of(texts(item)) for item in items]
    distinct = sorted(set(keys))
    if len(distinct) < 2:
        raise UserError("there is only one text, so none can be held out", remedy="Give more examples, or `dev`")
    held = set(distinct[: min(max(1, round(fraction * len(distinct))), len(distinct) - 1)])
    train = [item for item, key in zip(items, keys, strict=True) if key not in held]
    return train, [item for item, key in zip(items, keys, strict=True) if key in held]


def tell_of_overlap(train: Sequence[Labelled], dev: Sequence[Labelled]) -> int:
    """Warn of development texts that are in the training examples, too, and count them."""
    known = {key_of(row.texts) for row in train}
    count = sum(key_of(row.texts) in known for row in dev)
    if count:
        are = "are training texts" if count > 1 else "is a training text"
        log.warning(f"{count:,} of {len(dev):,} development texts {are}, too: the scores flatter the model.")
    return count


def tell_of_balance(counts: Mapping[str, int], kind: Kind) -> None:
    """One line with the counts, and a warning of labels that are rare or written in two ways."""
    if not counts:
        return
    unit = "words" if kind == "tags" else "examples"
    shown = ", ".join(f"{label} {count:,}" for label, count in [*counts.items()][:_SHOWN])
    log.info(
        f"{unit} by label: {shown}" + (f", and {len(counts) - _SHOWN} more labels" if len(counts) > _SHOWN else "")
    )
    examples = sum(counts.values())
    if kind != "tags" and len(counts) > _SHOWN and examples < _RARE * len(counts):
        log.warning(
            f"{len(counts):,} labels for {examples:,} training examples are too many to learn. Name another column "
            "with `label` if they are no classes, or give regression as `task` if they are numbers."
        )
    elif rare := [label for label, count in counts.items() if count < _RARE]:
        named = ", ".join(map(repr, rare[:8])) + (", …" if len(rare) > 8 else "")
        log.warning(f"{len(rare)} label{'s have' if len(rare) > 1 else ' has'} fewer than {_RARE} {unit}: {named}.")
    most, least = max(counts.values()), min(counts.values())
    if kind == "classification" and most >= _IMBALANCE * least:
        times = f"{most / least:.0f} times the examples of the rarest"
        log.warning(f"The most frequent label has {times}: read macro F1, not accuracy.")
    spellings: defaultdict[str, list[str]] = defaultdict(list)
    for label in counts:
        spellings[" ".join(label.split()).casefold()].append(label)
    if twice := [same for same in spellings.values() if len(same) > 1]:
        named = "; ".join(" and ".join(map(repr, same)) for same in twice[:8]) + ("; …" if len(twice) > 8 else "")
        log.warning(
            f"Labels that differ by case or spaces alone are different classes: {named}. Write them in one way if they "
            "are the same."
        )


def tell_of_few(count: int, kind: Kind) -> None:
    """Warn of so few development examples that a score says little."""
    if count < _FEW:
        points = f"{100 * 1.96 * math.sqrt(0.25 / count):.0f} points"
        chance = "" if kind == "regression" else f": by chance alone an accuracy may be wrong by some {points}"
        what = f"Only {count:,} example{'s' * (count > 1)} to measure on{chance}."
        log.warning(f"{what} Hold out a larger fraction, or give more examples.")


def conflicts(rows: Sequence[Labelled], scale: Scale | None = None) -> list[dict[str, Any]]:
    """Texts that occur with several labels, the most frequent first: `text`, `labels` and `places`.

    Args:
        scale: of numbers, which conflict where they differ by more than a standard deviation.
    """
    by_key: defaultdict[bytes, list[Labelled]] = defaultdict(list)
    for row in rows:
        by_key[key_of(row.texts)].append(row)
    found = [same for same in by_key.values() if _differ([row.label for row in same], scale)]
    found.sort(key=len, reverse=True)
    return [
        {
            "text": " / ".join(same[0].texts),
            "labels": [_shown(row.label) for row in same],
            "places": [row.place for row in same],
        }
        for same in found
    ]


def _differ(labels: Sequence[Any], scale: Scale | None) -> bool:
    if scale is not None:
        return bool(max(labels) - min(labels) > scale.deviation)
    return len(set(map(repr, labels))) > 1


def _shown(label: Any) -> str:
    if isinstance(label, tuple):
        return ", ".join(item if isinstance(item, str) else str(item[2]) for item in label)
    return str(label)
