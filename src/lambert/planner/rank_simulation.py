"""A step on up to 1,024 ranks in one process: PyTorch's fake process group takes every collective and moves nothing.

What is right then: how parameters are cut, and which collectives of which size a step has, since those are asked for by
the code of a real run. What is not: every number in a tensor, and time (docs/planning.md).
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

from lambert.corpus.store import Corpus
from lambert.data.dataloader import PretrainingBatch
from lambert.errors import UserError
from lambert.model.heads import BertForPreTraining
from lambert.planner.rank_shares import Shares, shares_of
from lambert.training.config.phase import parts_of, training_stream
from lambert.training.config.precision import Precision
from lambert.training.config.resolve import check_processes, parameter_count
from lambert.training.config.training_config import RunSettings
from lambert.training.distributed import env
from lambert.training.distributed.process_group import Processes
from lambert.training.step.pretraining_loss import pretraining_task
from lambert.training.step.timer import Meter
from lambert.training.step.train_state import working_model
from lambert.training.step.train_step import forward_and_backward

LEAST_RANKS, MOST_RANKS = 2, 1_024
_TOKENS = 8
"""Of the one sequence in a micro-batch here: no collective depends on it."""
_BYTES_PER_PARAMETER = 8
"""Of this machine's memory, measured with BERT-Large: whole gradients (4) and what comes between, without shards."""
_KINDS = {"allreduce_": "all-reduce", "_allgather_base_": "all-gather", "_reduce_scatter_base_": "reduce-scatter"}


@dataclass(frozen=True)
class Collective:
    """What one rank asks of all others together."""

    kind: str
    """`all-reduce`, `all-gather`, `reduce-scatter`, or PyTorch's own name of another."""
    whole_bytes: int
    """Of the whole tensor: the sum, what is gathered, or what is summed before it is cut."""

    def ring_bytes(self, ranks: int) -> float:
        """What a rank sends where they stand in a ring: (n − 1) / n of the tensor, twice that for an all-reduce."""
        return (2 if self.kind == "all-reduce" else 1) * self.whole_bytes * (ranks - 1) / ranks


class Collectives(TorchDispatchMode):
    """Writes down in `seen` the collectives that are asked for inside this context, in their order."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[Collective] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Sequence[Any] = (), keywords: Mapping[str, Any] | None = None
    ) -> Any:
        if function.namespace == "c10d":
            name = function.overloadpacket.__name__
            sizes = [tensor.nbytes for tensor in _tensors(arguments)]
            self.seen.append(Collective(_KINDS.get(name, name), max(sizes, default=0)))
        return function(*arguments, **(keywords or {}))


@dataclass(frozen=True)
class Traffic:
    """The collectives of weights and gradients in a rank; a few of some bytes for counts and norms come on top."""

    early: tuple[Collective, ...]
    """Of every micro-batch but a step's last."""
    last: tuple[Collective, ...]
    """Of the last, and of what follows it until gradients are summed."""

    def of_step(self, micro_batches: int) -> tuple[Collective, ...]:
        """Those of a step in which a rank has so many micro-batches."""
        return (micro_batches - 1) * self.early + self.last


@dataclass(frozen=True)
class ShardedModel:
    """A model cut over ranks as `pretrain --shard` does."""

    parameters: tuple[int, ...]
    """In each rank, by rank; their sum is the whole model."""
    traffic: Traffic

    @property
    def gathered_bytes(self) -> int:
        """Of whole weights in a rank at a time: what stands outside the layers, the layer at work and the next."""
        outside, *layers = [one.whole_bytes for one in self.traffic.last if one.kind == "all-gather"]
        return outside + 2 * max(layers)

    def state_bytes(self, micro_batches: int) -> int:
        """Weights, gradients and two moments in float32, in the rank with most parameters.

        Where a rank has several micro-batches in a step, FSDP2 adds whole gradients up until the last one cuts them.
        """
        most = max(self.parameters)
        return 4 * (3 * most + (most if micro_batches == 1 else sum(self.parameters)))


@dataclass(frozen=True)
class DryRun:
    """What is known of a run on so many ranks without them."""

    ranks: int
    shares: tuple[Shares, ...]
    """What the ranks get of each phase."""
    replicated: Traffic
    """Where every rank has the whole model."""
    sharded: ShardedModel | None
    """Where it is cut over them; None where `sharded_problem` says why not."""
    sharded_problem: str = ""

    @property
    def problems(self) -> list[str]:
        """What is wrong in the run itself; empty, or there is a fault in lambert."""
        return [f"phase {shares.phase}: {problem}" for shares in self.shares for problem in shares.problems]


def dry_run(settings: RunSettings, corpus: Corpus | None, ranks: int, *, memory_bytes: int | None = None) -> DryRun:
    """Go through a run on `ranks` ranks in this process alone.

    Args:
        corpus: its examples in their order are cut to the ranks; without, the samples' numbers are.
        memory_bytes: what is free on this machine; None where nobody knows.

    Raises:
        UserError: ranks are out of range or more than a phase's micro-batches, or this process trains with others.
    """
    check_ranks(ranks)
    check_processes(settings, ranks)
    shares = tuple(
        shares_of(part, ranks, None if corpus is None else training_stream(corpus, settings, part))
        for part in parts_of(settings)
    )
    replicated = replicated_traffic(settings, ranks)
    needed = (_BYTES_PER_PARAMETER + 8 / ranks) * parameter_count(settings.model)
    try:
        check_processes(settings, ranks, shards=True)
        if memory_bytes is not None and needed > memory_bytes:
            raise UserError(
                f"counting its collectives needs {needed / 1e9:.1f} GB of this machine, {memory_bytes / 1e9:.1f} GB "
                "are free",
                remedy="Start this where there is more memory",
            )
        return DryRun(ranks, shares, replicated, sharded_model(settings, ranks))
    except UserError as error:
        return DryRun(ranks, shares, replicated, None, str(error))


def check_ranks(ranks: int) -> None:
    """Refuse what a dry run cannot do.

    Raises:
        UserError: the number is out of range, or this process trains with others.
    """
    if not LEAST_RANKS <= ranks <= MOST_RANKS:
        raise UserError(
            f"a dry run of {ranks:,} ranks", remedy=f"Give a whole number from {LEAST_RANKS} to {MOST_RANKS:,}"
        )
    if env.process_count() > 1 or distributed.is_initialized():
        raise UserError(
            "a dry run in one of several processes",
            remedy="Start it by itself, without torchrun: it stands for all ranks",
        )


def replicated_traffic(settings: RunSettings, ranks: int) -> Traffic:
    """The collectives of a run in which every rank has the whole model; nothing is allocated.

    Raises:
        UserError: as of `check_ranks`.
    """
    with _fake_group(ranks, 0, torch.device("meta")) as processes:
        return _traffic(settings, processes, shards=False)


def sharded_model(settings: RunSettings, ranks: int) -> ShardedModel:
    """Cut the model over ranks, and count the collectives of the first of them.

    It takes about twice the memory of the whole model's gradients in this process.

    Raises:
        UserError: as of `check_ranks`.
    """
    with _fake_group(ranks, 0, torch.device("cpu")) as processes:
        traffic = _traffic(settings, processes, shards=True)
    return ShardedModel(cut_parameters(_model_on_meta(settings), ranks), traffic)


def cut_parameters(model: BertForPreTraining, ranks: int) -> tuple[int, ...]:
    """How many parameters each rank holds: FSDP2 cuts the first dimension as `torch.chunk` does."""
    total = np.zeros(ranks, np.int64)
    for parameter in model.parameters():
        chunks = torch.empty(len(parameter), device="meta").chunk(ranks)
        total[: len(chunks)] += np.array([len(chunk) for chunk in chunks]) * (parameter.numel() // len(parameter))
    return tuple(int(count) for count in total)


def _traffic(settings: RunSettings, processes: Processes, *, shards: bool) -> Traffic:
    """Two micro-batches of a step go through the code of a real run."""
    model = _model_on_meta(settings)
    working = working_model(
        model,
        settings.precision,
        weight_decay=settings.weight_decay,
        processes=processes,
        rounds_gradients=settings.gradient_precision == "bfloat16",
        shards=shards,
    )
    model.to_empty(device=processes.device)
    model.train()
    batch = _small_batch(processes.device, has_pairs=settings.examples.pairing != "none")
    # On a CPU, autocast keeps away from the compiled loops, which would take longer to compile than all else here.
    precision = Precision.BFLOAT16_AUTOCAST if processes.device.type == "cpu" else Precision.FLOAT32
    begun: list[int] = []
    with torch.random.fork_rng(devices=()), Collectives() as collectives:

        def compute(_: int) -> None:
            begun.append(len(collectives.seen))
            forward_and_backward(model, pretraining_task, batch, batch.counts(), precision, Meter(processes.device))

        working.gradients.accumulate(2, compute)
        working.gradients.reduce()
    return Traffic(tuple(collectives.seen[: begun[1]]), tuple(collectives.seen[begun[1] :]))


@contextmanager
def _fake_group(ranks: int, rank: int, device: torch.device) -> Iterator[Processes]:
    check_ranks(ranks)
    distributed.init_process_group("fake", store=FakeStore(), rank=rank, world_size=ranks)
    try:
        yield Processes(rank, ranks, device)
    finally:
        distributed.destroy_process_group()


def _model_on_meta(settings: RunSettings) -> BertForPreTraining:
    with torch.device("meta"):
        return BertForPreTraining(settings.model)


def _small_batch(device: torch.device, *, has_pairs: bool) -> PretrainingBatch:
    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.int64, device=device)

    return PretrainingBatch(
        token_ids=zeros(1, _TOKENS),
        segment_ids=zeros(1, _TOKENS),
        attention_mask=None,
        masked_positions=zeros(1),
        masked_labels=zeros(1),
        next_sentence_labels=zeros(1 if has_pairs else 0),
        real_tokens=_TOKENS,
    )


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)
