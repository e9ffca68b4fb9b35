"""Norms over shards: what a parameter's local part is, and sums that run over the processes that hold the rest.

A `DTensor` (FSDP2's `fully_shard`, tensor parallelism) says along which mesh dimensions it is cut. Local sums of
squares are added up over exactly those dimensions, for all layers in one collective a mesh dimension; copies are never
counted twice. Flat shards (FSDP1, ZeRO) do not say which layers they hold, so they are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed

if distributed.is_available():
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
else:  # builds of PyTorch without distributed training

    class DTensor:  # type: ignore[no-redef]
        """Nothing is one of these."""


ShardedOver = tuple[tuple[Any, int], ...]
"""(mesh, dimension) pairs that a tensor is cut along; empty for a whole one."""

_FLAT_MARKS = {
    "_is_flat_param": "FSDP1 (torch.distributed.fsdp.FullyShardedDataParallel)",
    "_fsdp_flattened": "FSDP1 (torch.distributed.fsdp.FullyShardedDataParallel)",
    "ds_id": "DeepSpeed ZeRO",
}


def refuse_flat_shard(optimizer: str, parameter: Tensor) -> None:
    """Refuse a parameter that its framework flattened.

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
    """The mesh dimensions along which `tensor` is cut.

    Raises:
        RuntimeError: it holds partial sums, which are no part of a tensor.
    """
    if not isinstance(tensor, DTensor):
        return ()
    mesh = tensor.device_mesh
    if any(placement.is_partial() for placement in tensor.placements):
        raise RuntimeError(f"a parameter with placements {tensor.placements} holds partial sums; redistribute it first")
    return tuple((mesh, i) for i, placement in enumerate(tensor.placements) if placement.is_shard())


def local_part(tensor: Tensor) -> Tensor:
    """This process's part of a `DTensor`, sharing its memory; any other tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like_parameter(gradient: Tensor, parameter: Tensor) -> Tensor:
    """`gradient` cut as `parameter` is."""
    if not (isinstance(parameter, DTensor) and isinstance(gradient, DTensor)):
        return gradient
    if gradient.placements == parameter.placements:
        return gradient
    moved: Tensor = gradient.redistribute(placements=parameter.placements)
    return moved


def local_range(tensor: Tensor, dimension: int) -> tuple[int, int]:
    """First index and one past the last of this process's part along `dimension` of the whole tensor."""
    if not isinstance(tensor, DTensor):
        return 0, tensor.shape[dimension]
    shape, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return offset[dimension], offset[dimension] + shape[dimension]


def all_reduce_partial_norms(rows: Tensor, cuts: Sequence[ShardedOver]) -> Tensor:
    """Rows [L, K] of local sums, added up over the processes that hold the rest of each row's layer.

    One collective for each mesh dimension, whatever the number of layers; every process must call it with the same
    layers.
    """
    by_cut: dict[tuple[Any, int], list[int]] = {}
    for row, cut in enumerate(cuts):
        for pair in cut:
            by_cut.setdefault(pair, []).append(row)
    rows = rows.clone()
    for (mesh, dimension), places in by_cut.items():
        chosen = rows[places].to(mesh.device_type)
        distributed.all_reduce(chosen, group=mesh.get_group(dimension))
        rows[places] = chosen.to(rows.device)
    return rows


def accumulator(device: torch.device) -> torch.dtype:
    """What sums of squares are kept in between blocks: float64 where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64
