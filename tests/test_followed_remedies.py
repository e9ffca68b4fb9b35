"""A remedy is followed as its words say, and leads on: never back to the same refusal."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from following import Step, steps
from lambert.cli import main as cli
from lambert.cli.main import SUBCOMMANDS, main, with_flags
from lambert.errors import UserError
from provocations import FOLLOWED, TOLD
from remedies import faults
from tiny_places import Enough

MOST_HOPS = 6

Refused = Callable[[Sequence[str]], UserError | None]


@pytest.fixture
def refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_places: Mapping[str, str], stop_before_work: None
) -> Refused:
    """Runs a command line; the error that it ends with, None where it does what it was told."""
    errors: list[UserError] = []
    monkeypatch.setattr(cli, "_is_news", lambda error: bool(errors.append(error)))
    monkeypatch.chdir(tmp_path)

    def run(words: Sequence[str]) -> UserError | None:
        errors.clear()
        shutil.rmtree(tiny_places["new"], ignore_errors=True)
        code = main(list(words))
        assert code in (0, 2)
        assert (code == 2) == bool(errors)
        return errors[0] if errors and not isinstance(errors[0], Enough) else None

    return run


def given(places: Mapping[str, str]) -> dict[str, str]:
    """Values for what a remedy names without one."""
    return {
        "prepare": f"{places['text']} --out {places['made']}", "made": places["made"], "run": places["run"],
        "--out": places["new"], "--batch-size": "8", "--samples": "160", "--epochs": "2", "--corpus": places["corpus"],
        "--phase-fractions": ".5 .3 .2", "--text-field": "body", "--column": "body", "--columns": "body",
        "--dev-columns": "body id", "--data": places["glue"], "--dev": places["squad"],
        "--hours": "2", "--model": "tiny", "--micro-batch-size": "4", "--recipe": "nvidia",
        "--price-per-chip-hour": "3", "--chips": "8", "--vocab": places["model"], "--cluster": "dgx-a100",
        "--vocab-size": "120", "--tensorboard": places["new"], "--null-odds": places["odds"],
        "--score": places["answers"], "--train": places["squad"], "--optimizer": "lamb", "--budget-hours": "1",
        "--text": "text", "--label": "label", "--tasks": "rte", "--glue": f"{places['glue']}/..",
        "--learning-rate": ".001", "--folder": ".", "--validation-fraction": ".1", "--encoding": "cp1252",
        "--save-recipe": "recipe.toml", "--init-from": places["run"],
    }  # fmt: skip


def shape(error: UserError) -> str:
    """What was wrong, without the values."""
    return re.sub(r"'[^']*'|\S*[0-9/]\S*|\[.*\]", "_", error.what)


def follow(step: Step, met: list[str], refused: Refused, places: Mapping[str, str]) -> None:
    """Run what a remedy leads to, and what the next one leads to, until nothing is refused or nothing is named."""
    for command in step.first:
        shutil.rmtree(places["made"], ignore_errors=True)
        assert refused(command) is None, command
    error = refused(step.words)
    trail = " → ".join([*met, "" if error is None else str(error)])
    if error is None:
        return
    assert shape(error) not in met, f"{' '.join(step.words)}: {trail}"
    assert len(met) <= MOST_HOPS, trail
    for one in steps(error, step.words, given(places))[:1]:
        follow(one, [*met, shape(error)], refused, places)


def provoke(command: str, refused: Refused, places: Mapping[str, str]) -> tuple[UserError, list[Step]]:
    words = [word.format(**places) for word in command.split()]
    error = refused(words)
    assert error is not None
    assert faults(with_flags(error.remedy), {words[0]} & SUBCOMMANDS.keys()) == []
    return error, steps(error, words, given(places))


@pytest.mark.parametrize("command", FOLLOWED, ids=str)
def test_following_a_remedy_leads_on(command: str, refused: Refused, tiny_places: dict[str, str]) -> None:
    error, ways = provoke(command, refused, tiny_places)
    assert ways != [], error
    for way in ways:
        follow(way, [shape(error)], refused, tiny_places)


@pytest.mark.parametrize("command", TOLD, ids=str)
def test_a_remedy_that_names_no_option_is_told(command: str, refused: Refused, tiny_places: dict[str, str]) -> None:
    provoke(command, refused, tiny_places)


def test_the_table_covers_every_subcommand() -> None:
    followed = {command.split()[0] for command in FOLLOWED}
    assert SUBCOMMANDS.keys() - {"demo"} <= followed
    assert len(FOLLOWED) >= 100
    assert len(FOLLOWED) + len(TOLD) >= 130
