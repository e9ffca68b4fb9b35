"""Which metrics a record gives, under which names."""

from __future__ import annotations

import pytest

from lambert.tracking.follow import Metrics, metrics_of, returns_to
from tracking.journals import PHASE, RUN, Record, evaluation, step


@pytest.mark.parametrize(
    ("record", "number", "values"),
    [
        (
            step(3, 2.5),
            3,
            {
                "train/loss": 2.5, "train/mlm_loss": 2.5, "train/learning_rate": 1e-3, "train/gradient_norm": 2,
                "speed/seconds": 0.5, "speed/tokens_per_second": 800, "speed/data_seconds": 0.1,
                "speed/forward_seconds": 0.2,
            },
        ),
        (evaluation(4, 5.5), 4, {"held_out/mlm_loss": 5.5, "held_out/unigram_loss": 6.0}),
        (PHASE, 1, {"phase/sequence_length": 16, "phase/batch_size": 8}),
        (
            {"event": "trust_ratios", "step": 2, "trust_ratios": {"a.weight": 0.5, "b[0]": None}},
            2,
            {"trust_ratio/a.weight": 0.5},
        ),
        ({"event": "noise", "step": 2, "noise_scale": 90.5, "standard_error": 3}, 2,
         {"noise/noise_scale": 90.5, "noise/standard_error": 3}),
        ({"event": "skipped", "step": 2, "consecutive": 1}, 2, {"incidents/consecutive": 1}),
        ({"event": "spike", "step": 2, "spikes": [{"metric": "loss", "z_score": 9.5}, "odd"]}, 2,
         {"incidents/loss_spike_z_score": 9.5}),
        ({"event": "checkpoint", "step": 2, "bytes": 10, "seconds": 0.1, "path": "x"}, 2,
         {"checkpoint/bytes": 10, "checkpoint/seconds": 0.1}),
        ({"event": "micro_batch", "step": 2, "micro_batch_size": 4}, 2, {"phase/micro_batch_size": 4}),
    ],
)  # fmt: skip
def test_metric_names(record: Record, number: int, values: dict[str, float]) -> None:
    assert metrics_of(record) == Metrics(number, record.get("time"), values)


@pytest.mark.parametrize(
    "record",
    [
        RUN,
        {"event": "later versions"},
        {"event": "step", "step": None, "loss": 1.0},
        {"event": "step", "step": -1, "loss": 1.0},
        {"event": "step", "step": 1.5, "loss": 1.0},
        {"event": "step", "step": 1, "loss": None},
        {"event": "trust_ratios", "step": 1, "trust_ratios": [1]},
        {"event": "end", "step": 4, "seconds": 20.0},
    ],
)
def test_records_without_metrics(record: Record) -> None:
    assert metrics_of(record) is None


def test_where_a_record_returns_to() -> None:
    assert returns_to({"event": "run", "resumed_from_step": 7}) == 7
    assert returns_to({"event": "rollback", "step": 9, "to_step": 5}) == 5
    assert returns_to(step(1, 1.0)) is None and returns_to({"event": "run"}) is None
