"""Compiles the blocks and the MLM head of a model that trains on a GPU with `torch.compile` (untested on GPU)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn

from lambert.model.heads import PreTrainingModel

_MOST_SHAPES = 64
"""Shapes that one process may compile for; a run has one or two a phase, timing micro-batches some more."""


def compile_layers(model: PreTrainingModel, *, dynamic: bool = False) -> None:
    """Compile each block and the MLM head when it first runs. Blocks of one size share one compilation.

    If the compiler fails, they run as they are, with one warning.

    Args:
        dynamic: one compilation for all shapes; else one for each shape.
    """
    import torch._dynamo  # takes two seconds

    torch._dynamo.config.suppress_errors = True  # of tracing, which comes before the backend
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_SHAPES)
    backend = _InductorOrEager()
    parts: Sequence[nn.Module] = (*model.encoder.blocks, model.mlm_head)
    try:
        for part in parts:
            part.compile(backend=backend, dynamic=dynamic)
    except RuntimeError as error:  # a Python that torch.compile does not know
        backend.give_up(error)
    model.is_compiled = True


@contextmanager
def uncompiled(model: nn.Module) -> Iterator[None]:
    """Run the layers of `model` as they are: for shapes that are not worth a compilation."""
    if not getattr(model, "is_compiled", False):
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def inductor(graph: fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
    """PyTorch's default compiler."""
    from torch._inductor.compile_fx import compile_fx

    compiled: Callable[..., Any] = compile_fx(graph, inputs)  # type: ignore[assignment]
    return compiled


class _InductorOrEager:
    """A backend of `torch.compile`: its default one, or no compiling once that has failed."""

    def __init__(self) -> None:
        self._failed = False

    def __call__(self, graph: fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        if not self._failed:
            try:
                return inductor(graph, inputs)
            except Exception as error:  # no C compiler, no Triton, an error in the compiler itself
                self.give_up(error)
        return graph.forward

    def give_up(self, error: Exception) -> None:
        """Warn once."""
        self._failed = True
        reason = (str(error) or type(error).__name__).splitlines()[0]
        message = f"the blocks run without torch.compile, more slowly: {reason}; `no_compile=True` does not try it"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
