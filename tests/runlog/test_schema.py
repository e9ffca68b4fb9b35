"""The schema against docs/journal.md and against the records that the reader builds."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from lambert.runlog.records import Evaluation
from lambert.runlog.schema import EVALUATION_METRICS, FIELDS, FORMAT_VERSION, SPIKE_FIELDS, Event

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "journal.md").read_text("utf-8")


def test_the_page_explains_every_event_and_field_and_no_other() -> None:
    sections = dict(re.findall(r"^### `(\w+)`.*?\n(.*?)(?=^###|\Z)", PAGE, flags=re.MULTILINE | re.DOTALL))
    assert set(sections) == set(Event) == set(FIELDS)
    for event, fields in FIELDS.items():
        cells = re.findall(r"^\| ([^|]*) \|", sections[event], flags=re.MULTILINE)
        explained = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
        assert explained == set(fields), event
    assert all(f"`{name}`" in sections[Event.SPIKE] for name in SPIKE_FIELDS)
    assert f"format {FORMAT_VERSION}" in PAGE


def test_an_evaluation_holds_every_metric_of_its_event() -> None:
    assert [field.name for field in dataclasses.fields(Evaluation)] == ["step", *EVALUATION_METRICS]
