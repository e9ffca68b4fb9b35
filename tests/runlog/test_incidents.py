"""Every incident in a journal has a line of text, whatever the record holds."""

from __future__ import annotations

from typing import Any

import pytest

from lambert.runlog.records import incident_text

SPIKE = {"metric": "gradient_norm", "value": 12.0, "window_mean": 1.5, "z_score": 9.25}


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (
            {"event": "damaged", "step": 20, "problems": ["the checkpoint step-30 is damaged: half of it is missing"]},
            "the checkpoint step-30 is damaged: half of it is missing. Resuming from step 20",
        ),
        ({"event": "skipped", "step": 7, "reason": "NaN loss"}, "step 7 skipped: NaN loss"),
        ({"event": "rollback", "step": 1700, "to_step": 1500}, "rolling back from step 1,700 to step 1,500"),
        (
            {"event": "spike", "step": 7, "spikes": [SPIKE], "moved_layers": {"layer.1": [1, 2], "layer.2": [1, 2]}},
            "spike at step 7: gradient norm 12.0, mean 1.50 (z-score 9.25); layers that moved most: layer.1, layer.2",
        ),
        ({"event": "spike", "step": None, "spikes": [3]}, "spike at step –: unknown"),
        ({"event": "damaged"}, "unknown damage. Resuming from step –"),
    ],
)
def test_a_line_for_each(record: dict[str, Any], line: str) -> None:
    assert incident_text(record) == line
