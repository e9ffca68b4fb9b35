"""The heat map of trust ratios: its rows, their names and their means."""

from __future__ import annotations

import numpy as np

from lambert.report.trust import group_names, heat_map, short_names
from lambert.runlog.reader import TrustRatios


def test_names_are_grouped_at_the_deepest_level_that_fits() -> None:
    names = [f"bert.encoder.{layer}.{part}.weight" for layer in range(24) for part in ("q.in", "q.out", "ffn.a")]
    assert group_names(names, 72) == names
    assert group_names(names, 48)[:3] == ["bert.encoder.0.q", "bert.encoder.0.q", "bert.encoder.0.ffn"]
    assert len(set(group_names(names, 24))) == 24
    assert set(group_names(["a", "b", "c"], 2)) == {"all layers"}
    assert short_names(("bert.a.weight", "bert.b.weight")) == ("a", "b")
    assert short_names(("a.weight", "a")) == ("a.weight", "a")
    assert short_names(("b.qkv.weight[0]", "b.out.weight")) == ("qkv[0]", "out")


def test_heat_map_rows_are_geometric_means_without_the_layers_not_adapted() -> None:
    names = (*(f"layer.{number}.{part}" for number in range(30) for part in ("a", "b")), "bias")
    values = np.concatenate([np.tile([0.1, 0.4], 30), [1.0]])[None, :].repeat(3, axis=0)
    shown = heat_map(TrustRatios(np.array([1, 50, 100]), names, values))
    assert shown is not None and len(shown.rows) == 30 and shown.left_out == 1 and shown.layers == 60
    np.testing.assert_allclose(shown.values, 0.2)
    assert heat_map(TrustRatios(np.array([1]), ("a",), np.ones((1, 1)))) is None
    assert heat_map(TrustRatios(np.array([], dtype=np.int64), (), np.zeros((0, 0)))) is None
