"""Gradients of a sharded model: the error of a rank that runs out of memory."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
import torch

from lambert.errors import PeerLost, UserError
from lambert.training.distributed.fsdp import ShardedGradients
from lambert.training.distributed.process_group import ProcessGroup


def failing(error: Exception) -> ShardedGradients:
    peers = Mock(diagnose=lambda error: PeerLost(f"lost ({error})", remedy="Again"))
    return ShardedGradients(Mock(), ProcessGroup(1, 2, peers=peers))


def test_too_little_memory_is_no_lost_peer() -> None:
    """A lost rank would be restarted and run out of memory again."""
    error = torch.OutOfMemoryError("tried to allocate 2 GB")
    with pytest.raises(UserError, match="memory of process 1 .*smaller `micro_batch_size`") as refused:
        failing(error).accumulate(1, Mock(side_effect=error))
    assert refused.value.exit_code == 2


def test_a_failed_collective_is_a_lost_peer() -> None:
    error = RuntimeError("Connection reset by peer")
    with pytest.raises(PeerLost, match="Connection reset"):
        failing(error).accumulate(1, Mock(side_effect=error))


def test_gradients_are_summed_in_the_last_backward_pass_only() -> None:
    model = Mock()
    ShardedGradients(model, ProcessGroup(0, 2)).accumulate(3, lambda number: None)
    assert [call.args for call in model.set_requires_gradient_sync.call_args_list] == [(False,), (False,), (True,)]
