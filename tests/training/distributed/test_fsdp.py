"""Gradients of a sharded model: the error of a rank that runs out of memory."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
import torch
import torch._dynamo

from lambert.errors import PeerLost, UserError
from lambert.model import compilation
from lambert.model.bert import BertConfig
from lambert.model.compilation import compile_layers
from lambert.model.heads import BertForPreTraining
from lambert.training.config.precision import Precision
from lambert.training.distributed.fsdp import ShardedGradients, full_tensor, shard
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


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of torch's own
@pytest.mark.parametrize("kind", ["none", "full"])
def test_blocks_that_are_compiled_are_sharded(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Gradients of a compiled and sharded model are those of a plain one, and blocks share one compilation."""
    calls = []
    monkeypatch.setattr(compilation, "inductor", lambda graph, inputs: calls.append(graph) or graph.forward)
    size = {"layers": 3, "hidden_size": 64, "attention_heads": 2, "feed_forward_size": 128, "maximum_positions": 16}
    plain = BertForPreTraining(BertConfig(vocabulary_size=100, dropout=0.0, **size))
    model = BertForPreTraining(plain.config)
    model.load_state_dict(plain.state_dict())
    model.encoder.checkpoint_activations(kind)
    torch._dynamo.reset()
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        with torch._dynamo.config.patch(recompile_limit=8, suppress_errors=False):
            compile_layers(model)
        shard(model, ProcessGroup(), Precision.FLOAT32, reduce_in_bfloat16=False)
        for each in (plain, model):
            for _ in range(2):
                ids, positions = torch.arange(32).view(2, 16), torch.tensor([1, 20])
                (loss, *_), pairs = each(ids, ids * 0, ids < 30, positions, masked_labels=positions)
                (loss + pairs.sum()).backward()
        gradients = [full_tensor(parameter.grad) for parameter in model.parameters() if parameter.grad is not None]
        torch.testing.assert_close(gradients, [parameter.grad for parameter in plain.parameters()])
    finally:
        torch.distributed.destroy_process_group()
        torch._dynamo.reset()
    assert len(calls) == 2
