"""Simulated ranks: partitioned, sharded and counted as in a real run, and without a trace afterwards."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import warm
from lambert.corpus.store import Corpus
from lambert.data.dataloader import SampleStream
from lambert.errors import UserError
from lambert.model.heads import BertForPreTraining
from lambert.planner import rank_simulation as module
from lambert.planner.rank_partition import partition_of
from lambert.planner.rank_simulation import (
    Collective,
    Collectives,
    replicated_traffic,
    shard_sizes,
    sharded_model,
    simulate_ranks,
)
from lambert.training.config.arguments import TrainingArguments
from lambert.training.config.phase import Phase, phases_of, training_stream
from lambert.training.config.precision import Precision
from lambert.training.config.resolve import resolve_config
from lambert.training.config.training_config import TrainingConfig
from lambert.training.distributed import gradient_reduction
from lambert.training.distributed.fsdp import shard
from lambert.training.distributed.process_group import ProcessGroup
from lambert.training.step.pretraining_loss import pretraining_task
from lambert.training.step.timer import StepTimer
from lambert.training.step.train_state import prepare_model
from lambert.training.step.train_step import forward_and_backward

SMALL_BUCKET_BYTES = 20_000


def resolved(model: str = "2x32", *, batch: int = 24, micro: int = 4, pairing: str = "nsp") -> TrainingConfig:
    request = TrainingArguments(
        model=model,
        optimizer="lamb",
        batch_size=(batch,),
        samples=100 * batch,
        micro_batch_size=micro,
        pairs=pairing,
    )
    return resolve_config(request, None)


def on_meta(settings: TrainingConfig) -> BertForPreTraining:
    with torch.device("meta"):
        return BertForPreTraining(settings.model)


def whole_bytes(collectives: tuple[Collective, ...], kind: str) -> list[int]:
    return [one.whole_bytes for one in collectives if one.kind == kind]


def test_bert_large_is_sharded_over_1024_ranks_as_by_hand() -> None:
    """First and last rank; 30,522 rows of words are 30 for each of 1,017 ranks, and 12."""
    cut = shard_sizes(on_meta(resolved("large")), 1_024)
    block = 3 * 1_024 + 3 + 1_024 + 1 + 2 + 4 * 1_024 + 4 + 4_096 + 1 + 2
    dense_and_norm = 1_024 + 1 + 2
    everywhere = 24 * block + 2 + (1_024 + 1) + dense_and_norm
    assert cut[0] == everywhere + 30 * 1_024 + 2 * 1_024 + 30 + 1_024 + 1
    assert cut[1_017] == everywhere + 12 * 1_024 + 12
    assert cut[1_023] == everywhere == min(cut)
    assert sum(cut) == 336_226_108


def test_fsdp_shards_like_that_in_every_rank() -> None:
    settings = resolved()
    cut = shard_sizes(on_meta(settings), 7)
    for rank in range(7):
        model = on_meta(settings)
        with module._fake_group(7, rank, torch.device("cpu")) as processes:
            shard(model, processes, Precision.FLOAT32, reduce_in_bfloat16=False)
            assert sum(parameter.to_local().numel() for parameter in model.parameters()) == cut[rank]  # type: ignore[operator]


def test_bert_larges_gradients_travel_once_in_buckets() -> None:
    """Three buckets of at most 25 MB a layer, the words in one of their own, and what is left.

    In the order of the backward pass: the last matrix; the one before it and the first bytes of attention; what is left
    of attention, and the norm and bias of the layer below.
    """
    traffic = replicated_traffic(resolved("large", batch=2_048, micro=2), 1_024)
    sizes = whole_bytes(traffic.last, "all-reduce")
    assert traffic.early == () and len(sizes) == len(traffic.last) == 3 * 24 + 2
    matrix = 1_024**2
    last, middle, first = (
        4 * (4 * matrix + 4_096),
        4 * (4 * matrix + 3 * 1_024 + matrix + 3_072),
        4 * (3 * matrix + 3_072),
    )
    assert sizes[1:7] == [last, middle, first, last, middle, first]
    assert sum(sizes) == 4 * 336_226_108 and sorted(sizes)[-1] == 4 * 30_522 * 1_024 and sorted(sizes)[-2] <= 25_000_000
    assert Collective("all-reduce", 1_024).ring_bytes(4) == 2 * Collective("all-gather", 1_024).ring_bytes(4) == 1_536


def test_shards_are_gathered_for_each_micro_batch_and_gradients_scattered_once() -> None:
    settings = resolved("3x64")
    model = sharded_model(settings, 2)
    total = sum(model.parameters)
    block = 12 * 64**2 + 13 * 64  # Vaswani et al.: 4 h² and 8 h² weights, and the biases and norms of both halves
    outside = total - 3 * block
    for collectives in (model.traffic.early, model.traffic.last):
        assert whole_bytes(collectives, "all-gather") == [4 * outside] + 6 * [4 * block]
    assert whole_bytes(model.traffic.early, "reduce-scatter") == []
    assert whole_bytes(model.traffic.last, "reduce-scatter") == 3 * [4 * block] + [4 * outside]
    step = model.traffic.of_step(5)
    assert len(whole_bytes(step, "all-gather")) == 5 * 7 and len(whole_bytes(step, "reduce-scatter")) == 4
    assert model.gathered_bytes == 4 * (outside + 2 * block)
    assert model.state_bytes(1) == 16 * max(model.parameters)
    assert model.state_bytes(2) == 12 * max(model.parameters) + 4 * total


def _count_in_processes(rank: int, count: int, rendezvous: str, out: str) -> None:
    torch.set_num_threads(1)
    gradient_reduction.BUCKET_BYTES = SMALL_BUCKET_BYTES
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=count)
    found = {}
    for pairing in ("nsp", "none"):
        for shards in (False, True):
            settings = resolved(pairing=pairing)
            processes = ProcessGroup(rank, count)
            model = BertForPreTraining(settings.model)
            working = prepare_model(model, settings.precision, weight_decay=0.01, processes=processes, shards=shards)
            batch = module._small_batch(settings, processes.device)
            with Collectives() as collectives:
                working.gradients.accumulate(
                    3,
                    lambda _, model=model, batch=batch: forward_and_backward(  # type: ignore[misc]
                        model,
                        pretraining_task,
                        batch,
                        batch.counts(),
                        Precision.FLOAT32,
                        StepTimer(batch.token_ids.device),
                    ),
                )
                working.gradients.reduce()
            found[f"{pairing} {shards}"] = [(one.kind, one.whole_bytes) for one in collectives.seen]
    Path(f"{out}-{rank}").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


@pytest.mark.integration
def test_two_real_processes_ask_for_the_same_collectives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warm.run_all(_count_in_processes, 2, str(tmp_path / "meet"), str(tmp_path / "found"))
    monkeypatch.setattr(gradient_reduction, "BUCKET_BYTES", SMALL_BUCKET_BYTES)
    for rank in range(2):
        found = json.loads((tmp_path / f"found-{rank}").read_text())
        for pairing in ("nsp", "none"):
            settings = resolved(pairing=pairing)
            whole, sharded = replicated_traffic(settings, 2), sharded_model(settings, 2).traffic
            for shards, traffic in ((False, whole), (True, sharded)):
                expected = [[one.kind, one.whole_bytes] for one in traffic.of_step(3)]
                assert found[f"{pairing} {shards}"] == expected and len(expected) > 4


def part_of(batch: int, micro: int) -> Phase:
    return phases_of(resolved(batch=batch, micro=micro))[1]


def test_the_ranks_with_one_micro_batch_more() -> None:
    """Ten micro-batches (39 sequences) over four ranks: 2, 3, 2, 3."""
    phase = replace(part_of(39, 4), micro_batch_size=4)
    partition = partition_of(phase, 4)
    assert (partition.micro_batches, partition.least, partition.most, partition.ranks_with_most) == (10, 2, 3, 2)
    assert partition.idle_fraction == pytest.approx(1 - 10 / 12) and partition.problems == ()
    assert partition.checked_steps[0] == phase.first_step and partition.checked_steps[-1] == phase.last_step


@pytest.mark.parametrize(
    ("owner", "name", "broken", "told"),
    [
        (ProcessGroup, "rank_range", lambda own, count: range(count * own.rank // own.world_size, count), "each once"),
        (ProcessGroup, "rank_range", lambda own, count: range(own.rank, count - 1, own.world_size), "each once"),
        (Phase, "samples_of", lambda phase, step, place: (16 * (step - phase.first_step), 4), "each once"),
        (
            Phase,
            "samples_of",
            lambda phase, step, place: (15 * (step - phase.first_step) + 4 * place, 4),
            "begins with",
        ),
    ],
)
def test_a_wrong_partition_is_found(
    owner: type, name: str, broken: object, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    phase = replace(part_of(16, 4), micro_batch_size=4)
    assert partition_of(phase, 3).problems == ()
    monkeypatch.setattr(owner, name, broken)
    assert any(told in problem for problem in partition_of(phase, 3).problems)


def test_the_examples_of_a_corpus_go_to_one_rank_each(
    small_corpus: Corpus, settings: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    phase = replace(phases_of(settings)[0], micro_batch_size=1)
    stream = training_stream(small_corpus, settings, phase)
    assert partition_of(phase, 5, stream).problems == ()
    order = SampleStream.order

    def twice(own: SampleStream, first: int, count: int) -> list[tuple[int, np.ndarray]]:
        return order(own, first - first % 2, count)

    monkeypatch.setattr(SampleStream, "order", twice)
    assert "more than once" in partition_of(phase, 5, stream).problems[0]


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    before, state = dict(os.environ), torch.random.get_rng_state()
    for ranks in (3, 6):  # one group after another
        assert simulate_ranks(resolved(), None, ranks).sharded is not None
    assert os.environ == before and torch.equal(torch.random.get_rng_state(), state)
    assert not torch.distributed.is_initialized()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    one = torch.ones(1)
    torch.distributed.all_reduce(one)
    with pytest.raises(UserError, match="without torchrun"):
        simulate_ranks(resolved(), None, 3)
    torch.distributed.destroy_process_group()
    assert float(one) == 1


@pytest.mark.parametrize(
    ("ranks", "told"),
    [
        (0, "a dry run of 0 ranks. Give a whole number from 2 to 1,024"),
        (1, "a dry run of 1 ranks"),
        (-2, "a dry run of -2 ranks"),
        (1_025, "a dry run of 1,025 ranks"),
        (7, "7 ranks for 6 micro-batches of phase 1. Give a `micro_batch_size` up to 3"),
    ],
)
def test_what_cannot_be_is_refused(ranks: int, told: str) -> None:
    with pytest.raises(UserError, match=told):
        simulate_ranks(resolved(), None, ranks)


def test_what_cannot_be_sharded_is_told_beside_the_rest() -> None:
    uneven = simulate_ranks(resolved(), None, 4)
    assert uneven.sharded is None and "4 ranks of a sharded model" in uneven.sharded_problem
    assert uneven.partitions[0].most == 2 and len(uneven.replicated.last) == 1
    tight = simulate_ranks(resolved(), None, 3, memory_bytes=1_000)
    assert tight.sharded is None and "of this machine" in tight.sharded_problem
