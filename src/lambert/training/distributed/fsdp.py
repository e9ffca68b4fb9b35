"""Weights, gradients and moments sharded over the ranks (PyTorch's FSDP2), for models beyond one device's memory.

The optimizers reduce layer norms over the shards (`optim/norms.py`), so a step is the same up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from lambert.errors import UserError
from lambert.model.heads import PreTrainingModel
from lambert.training.config.precision import Precision
from lambert.training.distributed.gradient_reduction import Compute, FirstGradient, Gradients
from lambert.training.distributed.process_group import ProcessGroup
from lambert.utils.memory import is_out_of_memory


def shard(
    model: PreTrainingModel, processes: ProcessGroup, precision: Precision, *, reduce_in_bfloat16: bool
) -> ShardedGradients:
    """Shard `model` along the first dimension of its parameters, block by block, and move it to the rank's device.

    Args:
        reduce_in_bfloat16: reduce-scatter gradients in bfloat16.

    Returns:
        The reduction of its gradients.
    """
    mesh = init_device_mesh(processes.device.type, (processes.world_size,))
    policy = MixedPrecisionPolicy(
        # With bfloat16 compute the shards stay float32: the optimizer updates them.
        param_dtype=torch.bfloat16 if precision is Precision.BFLOAT16_MASTER else None,
        reduce_dtype=torch.bfloat16 if reduce_in_bfloat16 else torch.float32,
        cast_forward_inputs=False,
    )
    modules: list[nn.Module] = [*model.encoder.blocks, model]
    for module in modules:
        fully_shard(module, mesh=mesh, mp_policy=policy)
        # Sum, not mean: the loss is already divided by the terms of the global batch.
        cast(FSDPModule, module).set_gradient_divide_factor(1.0)
        cast(FSDPModule, module).set_force_sum_reduction_for_comms(True)  # Gloo has no PREMUL_SUM
    return ShardedGradients(cast(FSDPModule, model), processes)


class ShardedGradients(Gradients):
    """Gradients that FSDP2 reduce-scatters during the last backward pass.

    Every rank needs the same number of micro-batches, since each one all-gathers the weights.
    """

    def __init__(self, model: FSDPModule, processes: ProcessGroup) -> None:
        self._model, self._processes = model, processes

    def accumulate(self, count: int, compute: Compute, first: FirstGradient | None = None) -> None:
        """See `Gradients`. `first` gets nothing: FSDP2 does not expose unsharded gradients.

        Raises:
            UserError: out of memory. The other ranks wait in a collective, so they cannot retry.
        """
        for number in range(count):
            self._model.set_requires_gradient_sync(number == count - 1)
            with self._processes.translate_peer_errors():
                self._compute(compute, number)

    def _compute(self, compute: Compute, number: int) -> None:
        """Compute a micro-batch; report out-of-memory before the rank counts as lost."""
        try:
            compute(number)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(
                f"a micro-batch does not fit into the memory of process {self._processes.rank} ({error})",
                remedy="Give the same command with a smaller `micro_batch_size`; sharded runs do not halve it",
            ) from None

    def all_reduce_stats(self, stats: Sequence[Tensor]) -> Tensor:
        """See `Gradients`."""
        own = super().all_reduce_stats(stats)
        self._processes.all_reduce([own])
        return own


def full_tensor(tensor: Tensor) -> Tensor:
    """All-gather a sharded tensor (call it on every rank); return any other tensor unchanged."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def from_rank_0(parameter: Tensor, tensor: Tensor, processes: ProcessGroup) -> Tensor:
    """Rank 0's `tensor` on the parameter's device, or this rank's shard of it if `parameter` is sharded.

    A number stays on the CPU. Every rank calls it for the same parameters in the same order.

    Args:
        tensor: the full tensor; on the other ranks only its shape and dtype count.
    """
    if not tensor.dim():
        return processes.broadcast(tensor)
    if not isinstance(parameter, DTensor):
        return processes.broadcast(tensor).to(parameter.device)
    own = processes.scatter_rows(tensor).to(parameter.device)  # `shard` cuts along the first dimension
    return DTensor.from_local(
        own, parameter.device_mesh, parameter.placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
    )
