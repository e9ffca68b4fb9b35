"""The optimizer's step beside AdamW's and beside other LAMBs, on BERT's parameter list.

Rounds are interleaved: each round times one step of every optimizer, so that other work on the machine strikes all
alike. The table gives medians with the least and the most, the ratio to PyTorch's fused AdamW, and how far each LAMB is
from Algorithm 2 in float64 after 20 steps of a small problem. Rivals take part where they are installed:
`pip install torch-optimizer pytorch-optimizer timm`.

    python benchmarks/optimizer_step.py --model base --threads 1 2 --rounds 11
    python benchmarks/optimizer_step.py --model large --threads 1 2 --only adamw lambert
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lambert.model.heads import BertForPreTraining
from lambert.model.presets import model_config
from lambert.optim import LAMB

LR = 1e-4
Make = Callable[[Sequence[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True)
class Contestant:
    """An optimizer with options under which it should compute Algorithm 2 with bias correction, where it can."""

    name: str
    make: Make
    is_lamb: bool = True
    compiled: bool = False


def optional(module: str, attribute: str) -> Any:
    """`module.attribute`, or None where it is not installed or does not load."""
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, RuntimeError) as error:
        print(f"{module} takes no part: {str(error).splitlines()[0]}")
        return None


def contestants() -> list[Contestant]:
    """Ours, PyTorch's, and the rivals that are installed."""
    found = [
        Contestant("adamw fused", lambda p: torch.optim.AdamW(p, lr=LR, fused=True), is_lamb=False),
        Contestant("adamw foreach", lambda p: torch.optim.AdamW(p, lr=LR, foreach=True), is_lamb=False),
        Contestant("lambert", lambda p: LAMB(p, lr=LR, fused=True)),
        Contestant("lambert, clip", lambda p: LAMB(p, lr=LR, fused=True, max_grad_norm=1.0)),
        Contestant("lambert plain", lambda p: LAMB(p, lr=LR, fused=False)),
    ]
    timm = optional("timm.optim.lamb", "Lamb")
    if timm:
        options: dict[str, Any] = {"lr": LR, "weight_decay": 0.01, "always_adapt": True, "max_grad_norm": None}
        found.append(Contestant("timm", lambda p: timm(p, **options)))
        found.append(Contestant("timm, compiled", lambda p: timm(p, **options), compiled=True))
        found.append(Contestant("timm, clip", lambda p: timm(p, **{**options, "max_grad_norm": 1.0})))
    torch_optimizer = optional("torch_optimizer", "Lamb")
    if torch_optimizer:
        found.append(
            Contestant(
                "torch-optimizer",
                lambda p: torch_optimizer(p, lr=LR, weight_decay=0.01, clamp_value=1e9, debias=True),
            )
        )
    pytorch_optimizer = optional("pytorch_optimizer", "Lamb")
    if pytorch_optimizer:
        for foreach in (False, True):
            found.append(
                Contestant(
                    f"pytorch-optimizer{' foreach' if foreach else ''}",
                    lambda p, foreach=foreach: pytorch_optimizer(
                        p, lr=LR, weight_decay=0.01, weight_decouple=False, adam_debias=True, foreach=foreach
                    ),
                )
            )
    return found


def shapes_of(model: str) -> list[tuple[int, ...]]:
    """BERT's parameter list with query, key and value apart, as most implementations hold them."""
    with torch.device("meta"):
        bert = BertForPreTraining(model_config(model, vocabulary_size=30_522))
    shapes: list[tuple[int, ...]] = []
    for name, parameter in bert.named_parameters():
        parts = parameter.chunk(3) if "query_key_value" in name else [parameter]
        shapes += [tuple(part.shape) for part in parts]
    return shapes


def disagreement(contestant: Contestant) -> float:
    """Worst relative difference of a tensor from Algorithm 2 after 20 steps, all in float64."""
    torch.manual_seed(0)
    shapes = [(30, 20), (20,), (20, 10), (10,)]
    starts = [torch.randn(shape, dtype=torch.float64) * 0.02 for shape in shapes]
    starts[1].zero_()
    parameters = [nn.Parameter(start.clone()) for start in starts]
    name = contestant.name
    # Our kernel is float32; its plain twin and the tests of the kernel stand for it here.
    optimizer = LAMB(parameters, lr=LR) if name.startswith("lambert") else contestant.make(parameters)
    xs = starts
    ms, vs = [torch.zeros_like(x) for x in xs], [torch.zeros_like(x) for x in xs]
    for t in range(1, 21):
        gradients = [torch.randn(shape, dtype=torch.float64) * 1e-3 for shape in shapes]
        for i, g in enumerate(gradients):
            parameters[i].grad = g.clone()
            ms[i] = 0.9 * ms[i] + 0.1 * g
            vs[i] = 0.999 * vs[i] + 0.001 * g * g
            u = (ms[i] / (1 - 0.9**t)) / ((vs[i] / (1 - 0.999**t)).sqrt() + 1e-6) + 0.01 * xs[i]
            x_norm, u_norm = xs[i].norm(), u.norm()
            ratio = float(x_norm / u_norm) if x_norm > 0 and u_norm > 0 else 1.0
            xs[i] = xs[i] - LR * ratio * u
        optimizer.step()
    return max(float((p.detach() - x).norm() / x.norm()) for p, x in zip(parameters, xs, strict=True))


def steps_of(contestant: Contestant, parameters: Sequence[nn.Parameter]) -> Callable[[], None]:
    """A function that takes one step, warmed up."""
    optimizer = contestant.make(parameters)
    step: Callable[[], Any] = optimizer.step
    if contestant.compiled:
        step = torch.compile(optimizer.step)
    for _ in range(2):
        step()
    return lambda: step() and None


def measure(arguments: argparse.Namespace, threads: int) -> list[dict[str, Any]]:
    """Median seconds of each contestant's step."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    chosen = [c for c in contestants() if not arguments.only or any(c.name.startswith(o) for o in arguments.only)]
    parameters = [nn.Parameter(torch.randn(shape) * 0.02) for shape in shapes_of(arguments.model)]
    gradients: list[Tensor] = [torch.randn_like(p) * 1e-3 for p in parameters]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    steps = [steps_of(contestant, parameters) for contestant in chosen]
    times: list[list[float]] = [[] for _ in chosen]
    for _ in range(arguments.rounds):
        for step, kept in zip(steps, times, strict=True):
            begin = time.perf_counter()
            step()
            kept.append(time.perf_counter() - begin)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient  # some rivals replace it
    reference = statistics.median(times[0])
    rows = []
    for contestant, kept in zip(chosen, times, strict=True):
        rows.append(
            {
                "case": f"{arguments.model}, {threads} thread{'s' if threads > 1 else ''}: {contestant.name}",
                "milliseconds": 1e3 * statistics.median(kept),
                "least": 1e3 * min(kept),
                "most": 1e3 * max(kept),
                "times_fused_adamw": statistics.median(kept) / reference,
                "disagreement": disagreement(contestant) if contestant.is_lamb else math.nan,
            }
        )
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="base")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--only", nargs="+", default=[], help="names of contestants, or how they begin")
    arguments = parser.parse_args()
    if arguments.only and not any("adamw fused".startswith(name) for name in arguments.only):
        arguments.only.insert(0, "adamw fused")
    rows = []
    print(f"{'':44} {'ms':>8} {'least':>8} {'most':>8} {'x AdamW':>8}  off float64 by")
    for threads in arguments.threads:
        for row in measure(arguments, threads):
            rows.append(row)
            off = "" if math.isnan(row["disagreement"]) else f"{row['disagreement']:.1e}"
            print(
                f"{row['case']:44} {row['milliseconds']:8.1f} {row['least']:8.1f} {row['most']:8.1f} "
                f"{row['times_fused_adamw']:8.2f}  {off}",
                flush=True,
            )
    machine = f"{platform.machine()}, torch {torch.__version__}"
    clean = [{k: (None if isinstance(v, float) and math.isnan(v) else v) for k, v in row.items()} for row in rows]
    print(json.dumps({"benchmark": "optimizer_step", "machine": machine, "rows": clean}))


if __name__ == "__main__":
    main()
