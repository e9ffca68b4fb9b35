"""Each term of a step's time by hand, and none of them unless it is asked for."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from lambert.planner.cluster import Cluster
from lambert.planner.step_time import Gradient, StepTime, hops, optimizer_seconds, step_time, transfer_seconds

RING = Cluster("ring", 64, 1e10, 1e12, 0.5, "ring", 1e9, 1e-3)
TREE = replace(RING, name="tree", topology="tree")
GRADIENT = Gradient(250_000_000, 10)


def step(cluster: Cluster, chips: int = 8, micro_batches: int = 1) -> StepTime:
    """3 sequences of 2e11 FLOP: 0.6 s of computing at 1e12 FLOP/s."""
    return step_time(
        cluster,
        chips,
        GRADIENT,
        sequences_per_chip=3,
        flops_per_sequence=2e11,
        sequence_length=128,
        micro_batches=micro_batches,
    )


def test_a_ring_by_hand() -> None:
    """8 chips: 14/8 of the bytes, 14 messages one after the other."""
    assert transfer_seconds(RING, 8, 1e9) == pytest.approx(14 / 8)
    assert hops(RING, 8) == 14
    assert step(RING).latency == pytest.approx(10 * 14 * 1e-3)


def test_two_trees_by_hand() -> None:
    """All bytes up and down, whatever the number of chips; 5 levels up and 5 down for 17 to 32."""
    assert [transfer_seconds(TREE, chips, 1e9) for chips in (1, 2, 32)] == [0, 2, 2]
    assert [hops(TREE, chips) for chips in (1, 2, 17, 32)] == [0, 2, 10, 10]


def test_a_ring_is_a_hierarchy_of_one_group() -> None:
    group = replace(RING, topology="hierarchical", group_chips=8, group_bytes_per_second=1.0e6)
    assert transfer_seconds(group, 8, 1e9) == transfer_seconds(RING, 8, 1e9) and hops(group, 8) == hops(RING, 8)


def test_terms_that_nobody_gave_are_nothing() -> None:
    plain = step(RING)
    assert plain.micro_batches == plain.optimizer == plain.stragglers == 0
    assert step(RING, micro_batches=3) == plain


def test_every_micro_batch_costs_its_overhead() -> None:
    assert step(replace(RING, micro_batch_seconds=0.01), micro_batches=3).micro_batches == pytest.approx(0.03)


def test_the_all_reduce_hides_behind_the_last_backward_pass() -> None:
    """The backward pass is two thirds of 0.6 s, a quarter of it may hide: 0.1 s of 1.89 s; of three micro-batches a
    third of that."""
    whole, overlapped = step(RING), step(replace(RING, overlap_fraction=0.25))
    assert whole.bandwidth + whole.latency == pytest.approx(1.75 + 0.14)
    assert overlapped.bandwidth + overlapped.latency == pytest.approx(1.89 - 0.1)
    thirds = step(replace(RING, overlap_fraction=0.25), micro_batches=3)
    assert thirds.bandwidth + thirds.latency == pytest.approx(1.89 - 0.1 / 3)
    fast = replace(RING, overlap_fraction=1.0, link_bytes_per_second=1e12, latency_seconds=0.0)
    assert step(fast).bandwidth == 0 and step(fast).compute == whole.compute
    assert step(replace(RING, overlap_fraction=1.0), chips=1).total == pytest.approx(0.5 + 0.6)


def test_the_optimizer_reads_and_writes_40_bytes_a_parameter() -> None:
    memory = replace(RING, memory_bytes_per_second=1e12)
    assert optimizer_seconds(memory, 8, 250_000_000) == pytest.approx(0.01)
    assert optimizer_seconds(replace(memory, optimizer_state="sharded"), 8, 250_000_000) == pytest.approx(0.01 / 8)
    assert step(memory).total == pytest.approx(step(RING).total + 0.01)


def test_the_slowest_of_many_chips() -> None:
    """√(2 ln 8) = 2.0393 deviations of 5 % of 0.6 s."""
    late = replace(RING, straggler_ratio=0.05)
    assert step(late).stragglers == pytest.approx(0.6 * 0.05 * 2.0393, rel=1e-4)
    assert step(late, chips=1).stragglers == 0


def test_the_total_is_all_of_them() -> None:
    everything = replace(
        RING, micro_batch_seconds=0.01, memory_bytes_per_second=1e12, straggler_ratio=0.05, overlap_fraction=0.25
    )
    time = step(everything, micro_batches=2)
    parts = (
        time.compute,
        time.fixed,
        time.micro_batches,
        time.optimizer,
        time.stragglers,
        time.bandwidth,
        time.latency,
    )
    assert min(parts) > 0 and time.total == pytest.approx(math.fsum(parts))
