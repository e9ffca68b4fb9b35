"""Every fault that a journal can tell of has a line for people, whatever the record holds."""

from __future__ import annotations

from typing import Any

import pytest

from lambert.runlog.incidents import trouble_line

SPIKE = {"figure": "gradient_norm", "value": 12.0, "usual": 1.5, "deviations": 9.25}


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (
            {"event": "damaged", "step": 20, "problems": ["the checkpoint step-30 is damaged: half of it is missing"]},
            "the checkpoint step-30 is damaged: half of it is missing. Going on from step 20",
        ),
        ({"event": "skipped", "step": 7, "reason": "no number"}, "step 7 changed nothing: no number"),
        ({"event": "rollback", "step": 1700, "to_step": 1500}, "going back from step 1,700 to step 1,500"),
        (
            {"event": "spike", "step": 7, "spikes": [SPIKE], "moved_layers": {"layer.1": [1, 2], "layer.2": [1, 2]}},
            "a spike at step 7: gradient norm 12.0, usually 1.50 (9.25 standard deviations); layers that moved most: "
            "layer.1, layer.2",
        ),
        ({"event": "spike", "step": None, "spikes": [3]}, "a spike at step –: unknown"),
        ({"event": "damaged"}, "unknown damage. Going on from step –"),
    ],
)
def test_a_line_for_each(record: dict[str, Any], line: str) -> None:
    assert trouble_line(record) == line
