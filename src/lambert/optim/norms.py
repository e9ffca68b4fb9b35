"""Norms of sharded parameters: the local shard, and all-reduces over the ranks that hold the rest.

A `DTensor` (FSDP2's `fully_shard`, tensor parallelism) says over which mesh dimensions it is sharded. Local sums of
squares are all-reduced over exactly those dimensions, for all layers in one collective per mesh dimension; replicas are
never counted twice. Flat shards (FSDP1, ZeRO) do not say which layers they hold and are refused.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor, distributed

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

ShardedOver = tuple[tuple[Any, int], ...]
"""(mesh, mesh dimension) pairs that a tensor is sharded over; empty for an unsharded one."""

_FLAT_MARKS = {
    "_is_flat_param": "FSDP1 (torch.distributed.fsdp.FullyShardedDataParallel)",
    "_fsdp_flattened": "FSDP1 (torch.distributed.fsdp.FullyShardedDataParallel)",
    "ds_id": "DeepSpeed ZeRO",
}


def is_dtensor(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether `tensor` is a `DTensor`. In a process that has not imported that class nothing is one, and importing it
    would take ten times as long as the rest of `lambert.optim`."""
    return isinstance(tensor, getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", ()))


def refuse_flat_shard(optimizer: str, parameter: Tensor) -> None:
    """Refuse a parameter that a framework has flattened.

    Raises:
        RuntimeError: the ratio of such a shard would be that of an unknown piece of an unknown layer.
    """
    for mark, framework in _FLAT_MARKS.items():
        if getattr(parameter, mark, False):
            raise RuntimeError(
                f"{optimizer}: a parameter of shape {tuple(parameter.shape)} is a flat shard of {framework}, from "
                "which the norm of a layer cannot be known. Shard with FSDP2 "
                "(torch.distributed.fsdp.fully_shard), or use DistributedDataParallel"
            )


def sharded_over(tensor: Tensor) -> ShardedOver:
    """The mesh dimensions that `tensor` is sharded over.

    Raises:
        RuntimeError: it holds partial sums, which are not a shard.
    """
    if not is_dtensor(tensor):
        return ()
    mesh = tensor.device_mesh
    if any(placement.is_partial() for placement in tensor.placements):
        raise RuntimeError(f"a parameter with placements {tensor.placements} holds partial sums; redistribute it first")
    return tuple((mesh, i) for i, placement in enumerate(tensor.placements) if placement.is_shard())


def local_part(tensor: Tensor) -> Tensor:
    """The local shard of a `DTensor`, sharing its memory; any other tensor itself."""
    return tensor.to_local() if is_dtensor(tensor) else tensor


def like_parameter(gradient: Tensor, parameter: Tensor) -> Tensor:
    """`gradient` with the placements of `parameter`."""
    if not (is_dtensor(parameter) and is_dtensor(gradient)):
        return gradient
    if gradient.placements == parameter.placements:
        return gradient
    moved: Tensor = gradient.redistribute(placements=parameter.placements)
    return moved


def local_range(tensor: Tensor, dimension: int) -> tuple[int, int]:
    """First index and one past the last of the local shard along `dimension` of the full tensor."""
    if not is_dtensor(tensor):
        return 0, tensor.shape[dimension]
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return offset[dimension], offset[dimension] + shape[dimension]


def all_reduce_partial_norms(rows: Tensor, sharded: Sequence[ShardedOver]) -> Tensor:
    """All-reduces rows [L, K] of local sums over the ranks that hold the rest of each row's layer.

    One collective per mesh dimension, regardless of the number of layers; every rank must call it with the same
    layers.
    """
    by_mesh: dict[tuple[Any, int], list[int]] = {}
    for row, pairs in enumerate(sharded):
        for pair in pairs:
            by_mesh.setdefault(pair, []).append(row)
    rows = rows.clone()
    for (mesh, dimension), indices in by_mesh.items():
        is_whole = len(indices) == len(rows)  # as a rule; indices would be uploaded to a GPU, twice
        chosen = (rows if is_whole else rows[indices]).to(mesh.device_type)
        distributed.all_reduce(chosen, group=mesh.get_group(dimension))
        if is_whole:
            rows = chosen.to(rows.device)
        else:
            rows[indices] = chosen.to(rows.device)
    return rows


def accumulator(device: torch.device) -> torch.dtype:
    """The dtype in which sums of squares are accumulated: float64 where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64
