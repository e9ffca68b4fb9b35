"""Rank simulation: a step on up to 1,024 ranks in one process, with PyTorch's fake process group.

The group accepts every collective and moves nothing. Sharding and the number and size of collectives are right, because
the code of a real run asks for them. Tensor values are not, and there is no timing (docs/planning.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lambert.corpus.store import Corpus
from lambert.data.dataloader import PretrainingBatch
from lambert.errors import UserError
from lambert.model.heads import PreTrainingModel, pretraining_model
from lambert.model.parameter_count import parameter_count
from lambert.planner.rank_partition import RankPartition, partition_of
from lambert.planning.memory import MemoryEstimate, estimate_memory
from lambert.planning.probe import random_batch
from lambert.training.config.phase import phases_of, training_stream
from lambert.training.config.precision import Precision
from lambert.training.config.resolve import check_world_size
from lambert.training.config.training_config import TrainingConfig
from lambert.training.distributed import env
from lambert.training.distributed.process_group import ProcessGroup
from lambert.training.step.pretraining_loss import pretraining_task
from lambert.training.step.timer import StepTimer
from lambert.training.step.train_state import prepare_model
from lambert.training.step.train_step import forward_and_backward

MIN_RANKS, MAX_RANKS = 2, 1_024
_TOKENS = 8
_BYTES_PER_PARAMETER = 8
"""Memory of this machine, measured with BERT-Large: full gradients (4) and temporaries, without shards."""
_KINDS = {"allreduce_": "all-reduce", "_allgather_base_": "all-gather", "_reduce_scatter_base_": "reduce-scatter"}


@dataclass(frozen=True)
class Collective:
    """A collective operation of one rank."""

    kind: str
    """`all-reduce`, `all-gather`, `reduce-scatter`, or PyTorch's own name of another."""
    whole_bytes: int
    """Of the full tensor: the sum, what is gathered, or what is reduced before it is scattered."""

    def ring_bytes(self, ranks: int) -> float:
        """Bytes that a rank sends in a ring: (n − 1) / n of the tensor, twice that for an all-reduce."""
        return (2 if self.kind == "all-reduce" else 1) * self.whole_bytes * (ranks - 1) / ranks


class Collectives(TorchDispatchMode):
    """Records the collectives inside this context in `seen`, in order."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[Collective] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Sequence[Any] = (), keywords: Mapping[str, Any] | None = None
    ) -> Any:
        if function.namespace == "c10d":
            name = function.overloadpacket.__name__
            sizes = [leaf.nbytes for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor)]
            self.seen.append(Collective(_KINDS.get(name, name), max(sizes, default=0)))
        return function(*arguments, **(keywords or {}))


@dataclass(frozen=True)
class Traffic:
    """The collectives of weights and gradients in a rank. A few of some bytes for counts and norms are left out."""

    early: tuple[Collective, ...]
    """Of every micro-batch but a step's last."""
    last: tuple[Collective, ...]
    """Of the last one, and of the reduction after it."""

    def of_step(self, micro_batches: int) -> tuple[Collective, ...]:
        """Those of a step in which a rank has so many micro-batches."""
        return (micro_batches - 1) * self.early + self.last

    def step_totals(self, micro_batches: int, ranks: int) -> dict[str, Any]:
        """`collectives` (kind → `number`, `bytes`) and `ring_bytes` that a rank sends in such a step."""
        totals: dict[str, dict[str, int]] = {}
        collectives = self.of_step(micro_batches)
        for one in collectives:
            total = totals.setdefault(one.kind, {"number": 0, "bytes": 0})
            total["number"] += 1
            total["bytes"] += one.whole_bytes
        return {"collectives": totals, "ring_bytes": round(sum(one.ring_bytes(ranks) for one in collectives))}


@dataclass(frozen=True)
class ShardedModel:
    """A model sharded over ranks as `pretrain --shard` does."""

    parameters: tuple[int, ...]
    """In each rank, by rank; their sum is the whole model."""
    traffic: Traffic

    @property
    def gathered_bytes(self) -> int:
        """Full weights in a rank at a time: those outside the layers, the current layer and the next."""
        outside, *layers = [one.whole_bytes for one in self.traffic.last if one.kind == "all-gather"]
        return outside + 2 * max(layers)

    def state_bytes(self, micro_batches: int) -> int:
        """Weights, gradients and two moments in float32, in the rank with most parameters.

        With several micro-batches per step, FSDP2 accumulates full gradients and scatters them after the last one.
        """
        most = max(self.parameters)
        return 4 * (3 * most + (most if micro_batches == 1 else sum(self.parameters)))


@dataclass(frozen=True)
class RankSimulation:
    """A run on so many simulated ranks."""

    ranks: int
    partitions: tuple[RankPartition, ...]
    """Of the batches of each phase."""
    memory: tuple[MemoryEstimate, ...]
    """Of each phase, where every rank has the whole model."""
    replicated: Traffic
    """Where every rank has the whole model."""
    sharded: ShardedModel | None
    """Where it is sharded; None where `sharded_problem` says why not."""
    sharded_problem: str = ""

    @property
    def problems(self) -> list[str]:
        """Faulty partitions; a fault of lambert if there are any."""
        return [f"phase {one.phase}: {problem}" for one in self.partitions for problem in one.problems]

    def replicated_phases(self) -> list[dict[str, Any]]:
        """For each phase the totals of a step and the memory of the rank with the most micro-batches."""
        return [
            self.replicated.step_totals(one.most, self.ranks) | {"memory_bytes": memory.total_bytes}
            for one, memory in zip(self.partitions, self.memory, strict=True)
        ]

    def sharded_phases(self, model: ShardedModel) -> list[dict[str, Any]]:
        """The same for a sharded model, with its state."""
        phases = []
        for one, memory in zip(self.partitions, self.memory, strict=True):
            state = model.state_bytes(one.most)
            total = state + memory.activation_bytes + model.gathered_bytes
            totals = model.traffic.step_totals(one.most, self.ranks)
            phases.append(totals | {"state_bytes": state, "memory_bytes": total})
        return phases

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON (docs/json.md)."""
        sharded = self.sharded and {
            "parameters_least": min(self.sharded.parameters),
            "parameters_most": max(self.sharded.parameters),
            "parameters": sum(self.sharded.parameters),
            "gathered_bytes": self.sharded.gathered_bytes,
            "phases": self.sharded_phases(self.sharded),
        }
        return {
            "ranks": self.ranks,
            "samples": [one.to_dict() for one in self.partitions],
            "replicated": {"state_bytes": self.memory[0].state_bytes, "phases": self.replicated_phases()},
            "sharded": sharded,
            "sharded_problem": self.sharded_problem,
        }


def simulate_ranks(
    config: TrainingConfig, corpus: Corpus | None, ranks: int, *, memory_bytes: int | None = None
) -> RankSimulation:
    """Simulate a run on `ranks` ranks in this process alone.

    Args:
        corpus: its examples are partitioned; without one, the numbers of the samples are.
        memory_bytes: free on this machine; None where unknown.

    Raises:
        UserError: ranks are out of range or more than a phase's micro-batches, or this process is one of several.
    """
    check_ranks(ranks)
    check_world_size(config, ranks)
    partitions = tuple(
        partition_of(phase, ranks, None if corpus is None else training_stream(corpus, config, phase))
        for phase in phases_of(config)
    )
    memory = tuple(
        estimate_memory(config, phase, size)
        for phase, size in zip(config.phases, config.micro_batch_sizes, strict=True)
    )
    replicated = replicated_traffic(config, ranks)
    needed = (_BYTES_PER_PARAMETER + 8 / ranks) * parameter_count(config.model)
    try:
        check_world_size(config, ranks, shards=True)
        if memory_bytes is not None and needed > memory_bytes:
            raise UserError(
                f"counting its collectives needs {needed / 1e9:.1f} GB of this machine, {memory_bytes / 1e9:.1f} GB "
                "are free",
                remedy="Start this where there is more memory",
            )
        return RankSimulation(ranks, partitions, memory, replicated, sharded_model(config, ranks))
    except UserError as error:
        return RankSimulation(ranks, partitions, memory, replicated, None, str(error))


def check_ranks(ranks: int) -> None:
    """Check that this process can simulate so many ranks.

    Raises:
        UserError: the number is out of range, or this process is one of several.
    """
    if not MIN_RANKS <= ranks <= MAX_RANKS:
        raise UserError(
            f"a dry run of {ranks:,} ranks", remedy=f"Give a whole number from {MIN_RANKS} to {MAX_RANKS:,}"
        )
    if env.process_count() > 1 or distributed.is_initialized():
        raise UserError(
            "a dry run in one of several processes",
            remedy="Start it by itself, without torchrun: it simulates all ranks",
        )


def replicated_traffic(config: TrainingConfig, ranks: int) -> Traffic:
    """The collectives of a run in which every rank has the whole model; allocates nothing.

    Raises:
        UserError: as of `check_ranks`.
    """
    with _fake_group(ranks, 0, torch.device("meta")) as processes:
        return _traffic(config, processes, shards=False)


def sharded_model(config: TrainingConfig, ranks: int) -> ShardedModel:
    """Shard the model over ranks, and count the collectives of rank 0.

    Takes about twice the memory of the model's full gradients.

    Raises:
        UserError: as of `check_ranks`.
    """
    with _fake_group(ranks, 0, torch.device("cpu")) as processes:
        traffic = _traffic(config, processes, shards=True)
    return ShardedModel(shard_sizes(_model_on_meta(config), ranks), traffic)


def shard_sizes(model: PreTrainingModel, ranks: int) -> tuple[int, ...]:
    """Parameters of each rank: FSDP2 shards the first dimension as `torch.chunk` does."""
    total = np.zeros(ranks, np.int64)
    for parameter in model.parameters():
        chunks = torch.empty(len(parameter), device="meta").chunk(ranks)
        total[: len(chunks)] += np.array([len(chunk) for chunk in chunks]) * (parameter.numel() // len(parameter))
    return tuple(int(count) for count in total)


def _traffic(config: TrainingConfig, processes: ProcessGroup, *, shards: bool) -> Traffic:
    """Run two micro-batches of a step through the code of a real run."""
    model = _model_on_meta(config)
    working = prepare_model(
        model,
        config.precision,
        weight_decay=config.weight_decay,
        processes=processes,
        reduce_in_bfloat16=config.reduce_dtype == "bfloat16",
        shards=shards,
    )
    model.to_empty(device=processes.device)
    model.train()
    batch = _small_batch(config, processes.device)
    # On a CPU, autocast avoids the fused kernels, which would take longer to compile than everything else here.
    precision = Precision.BFLOAT16_AUTOCAST if processes.device.type == "cpu" else Precision.FLOAT32
    begun: list[int] = []
    with torch.random.fork_rng(devices=()), Collectives() as collectives:

        def compute(_: int) -> None:
            begun.append(len(collectives.seen))
            forward_and_backward(model, pretraining_task, batch, batch.counts(), precision, StepTimer(processes.device))

        working.gradients.accumulate(2, compute)
        working.gradients.reduce()
    return Traffic(tuple(collectives.seen[: begun[1]]), tuple(collectives.seen[begun[1] :]))


@contextmanager
def _fake_group(ranks: int, rank: int, device: torch.device) -> Iterator[ProcessGroup]:
    check_ranks(ranks)
    distributed.init_process_group("fake", store=FakeStore(), rank=rank, world_size=ranks)
    try:
        yield ProcessGroup(rank, ranks, device)
    finally:
        distributed.destroy_process_group()


def _model_on_meta(config: TrainingConfig) -> PreTrainingModel:
    with torch.device("meta"):
        return pretraining_model(config.model)


def _small_batch(config: TrainingConfig, device: torch.device) -> PretrainingBatch:
    """One sequence; no collective depends on its length or contents."""
    return random_batch(1, _TOKENS, config.model.vocabulary_size, pairs=config.examples.has_pairs).to(device)
