"""Every number of a sweep file that is none: refused when the file is read, or by the plan of its runs."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from lambert.cli.pretrain import Pretrain
from lambert.cli.squad import Squad
from lambert.cli.sweep import OWN_OPTIONS, OWN_SQUAD_OPTIONS, SweepRuns
from lambert.errors import UserError
from lambert.experiments.grid import AXES

NEVER = ("nan", "[[]]", "[nan]", '"eight"')
"""Values that are not numbers."""
PLANNED = (
    "epochs",
    "phase_fractions",
    "warmup_ratio",
    "dropout",
    "attention_dropout",
    "mlm_probability",
    "mlm_probability_end",
)
"""`plan` refuses these when it estimates the time of the runs, still before any of them."""


def numbers(kind: type, own: tuple[str, ...]) -> list[str]:
    found = [one for one in dataclasses.fields(kind) if one.name not in PLANNED]
    return [one.name for one in found if re.search(r"\b(int|float)\b", str(one.type)) and one.name not in own]


PLACES = [
    *(("run", name) for name in numbers(Pretrain, OWN_OPTIONS)),
    *(("squad", name) for name in numbers(Squad, OWN_SQUAD_OPTIONS)),
    *(("grid", name) for name in AXES if name not in ("optimizers", "recipes", "batch_sizes")),
    ("", "budget_hours"),
]


@pytest.mark.parametrize("value", NEVER)
@pytest.mark.parametrize(("table", "name"), PLACES)
def test_what_is_no_number_is_refused_when_the_file_is_read(tmp_path: Path, table: str, name: str, value: str) -> None:
    run = {"corpus": '"corpus"', "model": '"2x32"', "samples": "160", "sequence_lengths": "[16]"}
    tables: dict[str, dict[str, str]] = {"": {}, "run": run, "grid": {"batch_sizes": "[8]"}, "squad": {}}
    tables[table] = tables[table] | {name: value}
    text = "".join(
        f"[{one}]\n" * bool(one) + "".join(f"{key} = {given}\n" for key, given in rows.items())
        for one, rows in tables.items()
    )
    (tmp_path / "sweep.toml").write_text(text)
    with pytest.raises(UserError):
        SweepRuns(file=tmp_path / "sweep.toml", out=tmp_path / "out")._sweep()
