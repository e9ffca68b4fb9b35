"""The rules of a tokenizer as settings that can be compared."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.normalizers import BertNormalizer

from lambert.errors import UserError
from lambert.utils.tokenizer_family import family_of, part_state

_MOST_GROWTH = 16
"""Times as long as rules may make a text."""
_BACKTRACKS = re.compile(r"\)[*+{]")
"""A repeated group, whose search can take time exponential in the text."""


def rules_of(tokenizer: Tokenizer) -> dict[str, Any]:
    """Everything but the entries that decides the ids of a text, by the names of `transformers` where it has one."""
    family = family_of(tokenizer)
    return {
        "model": family.title,
        **_normalization(tokenizer.normalizer),
        "pre_tokenizer": part_state(tokenizer.pre_tokenizer),
        **family.rules(tokenizer),
    }


def rule_differences(rules: dict[str, Any], others: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """(rule, its value, the other's value) of those that differ; None where one has no such rule.

    Of two families only their names: all else differs.
    """
    names = dict.fromkeys([*rules, *others] if rules["model"] == others["model"] else ["model"])
    return [(name, rules.get(name), others.get(name)) for name in names if rules.get(name) != others.get(name)]


def tokenizer_differences(tokenizer: Tokenizer, other: Tokenizer, *, may_grow: bool = False) -> list[str]:
    """In words: the rules, entries and added tokens in which two tokenizers differ.

    Args:
        may_grow: the other may have more entries after those of the first.
    """
    found = [f"{name} is {a!r}, not {b!r}" for name, a, b in rule_differences(rules_of(tokenizer), rules_of(other))]
    entries, others = (one.get_vocab(with_added_tokens=True) for one in (tokenizer, other))
    if not may_grow and len(entries) != len(others):
        found.append(f"it has {len(entries):,} entries, not {len(others):,}")
    if differing := [(number, entry) for entry, number in entries.items() if others.get(entry) != number]:
        number, entry = min(differing)
        found.append(f"{entry!r} has the id {number:,}, not {others.get(entry)}")
    added, others_added = (one.get_added_tokens_decoder() for one in (tokenizer, other))
    wrong = [token for number, token in added.items() if others_added.get(number) != token]
    wrong += [token for number, token in others_added.items() if number < len(entries) and number not in added]
    if wrong and not differing:
        found.append(f"{wrong[0].content!r} is not the same added token")
    return found


def _normalization(normalizer: Any) -> dict[str, Any]:
    if not isinstance(normalizer, BertNormalizer):
        return {"normalizer": part_state(normalizer)}
    state = part_state(normalizer)
    lowers, strips = state["lowercase"], state["strip_accents"]
    return {
        "do_lower_case": lowers,
        "strip_accents": lowers if strips is None else strips,
        "tokenize_chinese_chars": state["handle_chinese_chars"],
        "clean_text": state["clean_text"],
    }


def refuse_growth(tokenizer: Tokenizer, file: Path) -> None:
    """Refuses rules that could make gigabytes of a line, or never end.

    Raises:
        UserError: names the rule.
    """
    for part in ("normalizer", "pre_tokenizer"):
        growth = 1.0
        for rule in _steps(part_state(getattr(tokenizer, part))):
            pattern = rule.get("pattern") or {}
            if _BACKTRACKS.search(str(pattern.get("Regex", ""))):
                raise UserError(
                    f"{file}: the pattern {pattern['Regex']!r} of {part} can take for ever",
                    remedy="Write it without a repeated group",
                )
            if rule["type"] in ("Replace", "Prepend"):
                replaced = max(1, len(pattern.get("String", "")))
                growth *= max(
                    1.0, (len(rule.get("content") or rule.get("prepend") or "") + ("Regex" in pattern)) / replaced
                )
        if growth > _MOST_GROWTH:
            raise UserError(
                f"{file}: {part} makes text up to {growth:,.0f} times as long",
                remedy=f"Bring a tokenizer that makes it at most {_MOST_GROWTH} times as long",
            )


def _steps(state: Any) -> Iterator[dict[str, Any]]:
    """The rules of a normalizer or a pre-tokenizer, those of sequences one by one."""
    if state is None:
        return
    listed = state.get("normalizers", state.get("pretokenizers"))
    if listed is None:
        yield state
    for one in listed or ():
        yield from _steps(one)
