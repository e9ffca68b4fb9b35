"""Compiled blocks and MLM head: traced whole, once for each shape, with the same numbers, and without a compiler."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch._dynamo
from torch._dynamo.testing import CompileCounter

from lambert.model import attention, compilation
from lambert.model.bert import ACTIVATION_CHECKPOINTING, BertConfig
from lambert.model.compilation import compile_layers, uncompiled
from lambert.model.heads import BertForPreTraining
from lambert.model.unpadding import Unpadded

SIZE: dict[str, Any] = {"vocabulary_size": 100, "layers": 3, "hidden_size": 64, "attention_heads": 2}
CONFIG = BertConfig(**SIZE, feed_forward_size=128, maximum_positions=64)


pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute")  # of torch's own


@pytest.fixture(autouse=True)
def nothing_compiled() -> Iterator[None]:
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=8, suppress_errors=False):
        yield
    torch._dynamo.reset()


def step(model: BertForPreTraining, rows: int = 2, length: int = 16, *, padded: bool = True) -> torch.Tensor:
    """The losses of a batch, and their backward pass."""
    draw = torch.Generator().manual_seed(0)
    mask = torch.ones(rows, length, dtype=torch.bool)
    mask[0, length // 2 :] = False
    ids = torch.randint(0, 100, (rows, length), generator=draw)
    positions = torch.arange(2 * rows)
    (loss, *_), pairs = model(
        ids, torch.zeros_like(ids), mask if padded else None, positions, masked_labels=ids.flatten()[positions]
    )
    total: torch.Tensor = loss + pairs.double().sum()
    if total.requires_grad:
        total.backward()
    return total.detach()


@pytest.mark.parametrize("kind", ACTIVATION_CHECKPOINTING)
@pytest.mark.parametrize("precision", ["bfloat16-autocast", "bfloat16-master"])
def test_blocks_and_head_trace_without_graph_breaks(monkeypatch: pytest.MonkeyPatch, precision: str, kind: str) -> None:
    """With the choice of attention kernels that dropout needs on a GPU. All blocks share one graph."""
    monkeypatch.setattr(attention, "may_round_dropout", lambda device, p: p > 0)
    model = BertForPreTraining(CONFIG).train()
    model.encoder.checkpoint_activations(kind)
    model.to(torch.bfloat16 if precision == "bfloat16-master" else torch.float32)
    counter = CompileCounter()
    for part in (*model.encoder.blocks, model.mlm_head):
        part.compile(backend=counter, fullgraph=True, dynamic=False)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16-autocast"):
        for padded in (True, False):
            step(model, padded=padded)
    assert counter.frame_count == 3  # a block with a bias, one without, and the head


def test_a_block_of_real_tokens_is_one_graph_for_each_number_of_tokens() -> None:
    """`varlen_attn` has no kernel for CPUs: the graph is looked at, not run."""
    block = BertForPreTraining(replace(CONFIG, dropout=0.0)).encoder.blocks[0].train()
    graphs = []

    def look(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append([str(node.target) for node in graph.graph.nodes])
        return lambda *given: (torch.zeros(given[0].shape),)

    block.compile(backend=look, fullgraph=True, dynamic=False)
    for tokens, starts in ((24, [0, 9, 20, 24]), (24, [0, 16, 17, 24]), (32, [0, 16, 20, 32])):
        rows = Unpadded(torch.arange(tokens), torch.tensor(starts, dtype=torch.int32), 16)
        block(torch.randn(tokens, 64), rows)
    assert len(graphs) == 2
    assert all(sum("varlen_attn" in target for target in graph) == 1 for graph in graphs)


class Compiler:
    """In place of inductor: counts what it is asked to compile, and fails if it shall."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls, self.error = 0, error

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return graph.forward


def compared(monkeypatch: pytest.MonkeyPatch, compiler: Compiler, **options: Any) -> tuple[Any, Any]:
    """The same model without dropout in float64, plain and compiled."""
    monkeypatch.setattr(compilation, "inductor", compiler)
    torch.manual_seed(0)
    plain = BertForPreTraining(BertConfig(**SIZE, feed_forward_size=128, maximum_positions=64, dropout=0.0)).double()
    compiled = BertForPreTraining(plain.config).double()
    compiled.load_state_dict(plain.state_dict())
    compile_layers(compiled, **options)
    return plain.train(), compiled.train()


def gradients(model: BertForPreTraining) -> list[torch.Tensor]:
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def test_a_run_of_two_phases_compiles_each_shape_once_and_evaluations_none(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = Compiler()
    plain, compiled = compared(monkeypatch, compiler)
    for length in (16, 16, 32, 32):
        torch.testing.assert_close(step(plain, length=length), step(compiled, length=length))
        with torch.no_grad(), uncompiled(compiled):
            for rows in (3, 5, 7):
                compiled.eval()
                step(compiled, rows, 2 * length)
                compiled.train()
    torch.testing.assert_close(gradients(compiled), gradients(plain))
    assert compiler.calls == 3  # a block of each phase; the head has the same shape in both


def test_packed_rows_of_any_number_compile_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = Compiler()
    _, compiled = compared(monkeypatch, compiler, dynamic=True)
    for rows in (5, 3, 7, 4):
        step(compiled, rows)
    assert compiler.calls == 2


def test_more_shapes_than_torch_compiles_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = Compiler()
    with torch._dynamo.config.patch(recompile_limit=1):
        _, compiled = compared(monkeypatch, compiler)
        for length in (8, 16, 24):
            step(compiled, length=length)
    assert compiler.calls == 4


def test_a_compiler_that_fails_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = Compiler(RuntimeError("no C compiler found\nlong details"))
    plain, compiled = compared(monkeypatch, compiler)
    with pytest.warns(RuntimeWarning, match="without torch.compile.*: no C compiler found; `no_compile=True`"):
        loss = step(compiled)
    torch.testing.assert_close(loss, step(plain))
    torch.testing.assert_close(gradients(compiled), gradients(plain))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(compiled, length=32)
    assert compiler.calls == 1


def test_a_python_that_torch_does_not_compile_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("torch.compile is not supported on Python 3.99+")

    monkeypatch.setattr(torch.nn.Module, "compile", refuse)
    with pytest.warns(RuntimeWarning, match="Python 3.99"):
        compile_layers(BertForPreTraining(CONFIG))
