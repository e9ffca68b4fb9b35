"""Tensors on their way from a GPU to the host."""

from __future__ import annotations

import torch
from torch import Tensor


class Download:
    """A copy of a tensor to page-locked memory, which is waited for when it is read; off a GPU the tensor itself."""

    def __init__(self, tensor: Tensor) -> None:
        self._arrived: torch.cuda.Event | None = None
        self._host = tensor
        if tensor.device.type == "cuda":
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def read(self) -> Tensor:
        """The tensor, as it was; waits until the device has come so far."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._host
