"""A full pre-training step (forward, backward, AdamW) against `transformers`' model on the same batches.

Each implementation runs in its own process, and they take turns step by step. The CPU time of a step is measured, since
other work on the machine disturbs it less than wall-clock time. The table shows the median, minimum and maximum, and
each process's peak memory. All use lambert's allocator settings, PyTorch's fused AdamW, real batches and the dropout of
the architecture: .1 of BERT, 0 of ModernBERT.

Baselines: "transformers" is its model under autocast; "tuned" applies its MLM head to the masked positions only, and
"by hand" also keeps bfloat16 weights, with float32 master weights for AdamW.

    python benchmarks/train_step.py CORPUS --models tiny mini --threads 1 --rounds 7
    python benchmarks/train_step.py CORPUS --models tiny --compile      # also the tuned baselines, compiled
    python benchmarks/train_step.py CORPUS --architecture modernbert    # whole windows, 30 % masked, no pairs
    python benchmarks/train_step.py CORPUS --ablations                  # lambert without one optimization at a time
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lambert.corpus.store import Corpus
from lambert.data.dataloader import PretrainingBatch, SampleStream, example_source
from lambert.data.objective import BERT_OBJECTIVE, ObjectiveConfig
from lambert.model import modernbert_config_file, ops
from lambert.model.architectures import CONFIGS, architecture_of
from lambert.model.heads import pretraining_model
from lambert.model.modernbert import ModernBertConfig
from lambert.model.ops import cpu_arrays, cpu_fused
from lambert.model.presets import model_config
from lambert.planning.hardware import inspect_hardware
from lambert.training.config.precision import Precision
from lambert.training.malloc import apply_allocator_settings
from lambert.training.optimizer import make_optimizer
from lambert.training.step.pretraining_loss import pretraining_task
from lambert.training.step.train_state import prepare_model
from lambert.training.step.train_step import train_step

CPU = torch.device("cpu")
LR = 1e-4
OBJECTIVES = {"bert": BERT_OBJECTIVE, "modernbert": ObjectiveConfig(pairing="none", mlm_probability=0.3)}
TARGETS = {
    "transformers": {"tiny": 5.5, "mini": 3.3, "small": 2.3, "base": 1.6},
    "tuned": {"tiny": 1.5, "mini": 1.5, "small": 1.4, "base": 1.3},
}
FLOAT32_TARGETS = {"transformers": {"tiny": 4.2, "mini": 2.4, "small": 2.0, "base": 1.25}}
MODERNBERT_TARGETS = {kind: {"mini": 1.3, "small": 1.3} for kind in ("transformers", "tuned", "by hand")}
ABLATIONS = ("fused kernels", "leaving out padding", "transposed operands", "allocator settings")
"""Optimizations that can be switched off."""
WARM_UP = 2
"""Steps before the measurement."""
Step = Callable[[PretrainingBatch], float]


def batches(corpus: Corpus, length: int, size: int, objective: ObjectiveConfig) -> Iterator[PretrainingBatch]:
    """Padded batches of the corpus in order."""
    source = example_source(corpus, "train", sequence_length=length, seed=0, phase=1, objective=objective)
    stream = SampleStream(source)
    first = 0
    while True:
        yield stream.batch(first, size)
        first += size


def ours(config: Any, precision: Precision) -> Step:
    """Lambert's own step."""
    model = pretraining_model(config)
    working = prepare_model(model, precision, weight_decay=0.01)
    optimizer = make_optimizer("adamw", working.groups, working.names, betas=(0.9, 0.999), epsilon=1e-6)
    seeds = iter(range(10**9))

    def step(batch: PretrainingBatch) -> float:
        result = train_step(
            model,
            optimizer,
            [batch],
            task=pretraining_task,
            learning_rate=LR,
            max_grad_norm=None,
            dropout_seeds=[next(seeds)],
            precision=precision,
            master=working.master,
            gradients=working.gradients,
        )
        return result.loss

    return step


def theirs(model: Any, precision: Precision, *, compiled: bool = False) -> Step:
    """`transformers` out of the box: the model computes the loss, from MLM logits of every position unless sparse."""
    update = updates(model, precision)
    is_bert = model.config.model_type == "bert"
    forward = torch.compile(model) if compiled else model

    def step(batch: PretrainingBatch) -> float:
        labels = torch.full_like(batch.token_ids, -100).flatten()
        labels[batch.masked_positions] = batch.masked_labels
        pairs = {"token_type_ids": batch.segment_ids, "next_sentence_label": batch.next_sentence_labels}
        with precision.autocast(CPU):
            loss = forward(
                input_ids=batch.token_ids,
                attention_mask=batch.attention_mask,
                labels=labels.view_as(batch.token_ids),
                **(pairs if is_bert else {}),
            ).loss
        return update(loss)

    return step


def tuned(attention: str, config: Any, precision: Precision, *, compiled: bool) -> Step:
    """A tuned `transformers` baseline: MLM logits of the masked positions only; optionally compiled."""
    model = hugging_face(attention, config, sparse_prediction=True)
    if isinstance(config, ModernBertConfig):
        return theirs(model, precision, compiled=compiled)
    update = updates(model, precision)
    encoder = torch.compile(model.bert) if compiled else model.bert

    def step(batch: PretrainingBatch) -> float:
        with precision.autocast(CPU):
            output = encoder(
                input_ids=batch.token_ids, token_type_ids=batch.segment_ids, attention_mask=batch.attention_mask
            )
            masked = output.last_hidden_state.flatten(0, 1)[batch.masked_positions]
            mlm_logits: Tensor = model.cls.predictions(masked)
            nsp_logits: Tensor = model.cls.seq_relationship(output.pooler_output)
        loss = functional.cross_entropy(mlm_logits.float(), batch.masked_labels)
        return update(loss + functional.cross_entropy(nsp_logits.float(), batch.next_sentence_labels))

    return step


def hugging_face(attention: str, config: Any, *, sparse_prediction: bool = False) -> Any:
    """`transformers`' model of the same size.

    Args:
        sparse_prediction: ModernBERT's own setting for an MLM head at the masked positions only.
    """
    import transformers

    if isinstance(config, ModernBertConfig):
        written = modernbert_config_file.settings_of(config, "ModernBertForMaskedLM")
        sizes: Any = transformers.ModernBertConfig(**written, sparse_prediction=sparse_prediction)
        kind: Any = transformers.ModernBertForMaskedLM
    else:
        kind = transformers.BertForPreTraining
        sizes = transformers.BertConfig(
            vocab_size=config.vocabulary_size,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.attention_heads,
            intermediate_size=config.feed_forward_size,
            max_position_embeddings=config.maximum_positions,
        )
    sizes._attn_implementation = attention
    model: nn.Module = kind(sizes)
    return model.train()


def updates(model: nn.Module, precision: Precision) -> Callable[[Tensor], float]:
    """Backward and update of a baseline; with bfloat16-master on float32 copies of weights and gradients."""
    weights = list(model.parameters())
    masters = weights
    if precision is Precision.BFLOAT16_MASTER:
        masters = [nn.Parameter(weight.detach().clone()) for weight in weights]
        for master in masters:
            master.grad = torch.empty_like(master)
        model.to(torch.bfloat16)
    optimizer = torch.optim.AdamW(masters, lr=LR, fused=True)

    @torch.no_grad()
    def copy_and_step() -> None:
        torch._foreach_copy_([master.grad for master in masters], [weight.grad for weight in weights])
        optimizer.step()
        torch._foreach_copy_(weights, masters)

    def update(loss: Tensor) -> float:
        loss.backward()
        if masters is weights:
            optimizer.step()
        else:
            copy_and_step()
        model.zero_grad(set_to_none=True)
        return float(loss.detach())

    return update


def names(options: argparse.Namespace) -> list[tuple[str, str]]:
    """(kind, name) of every implementation that takes part."""
    mine, common = ("float32", "float32") if options.float32 else ("bfloat16-master", "bfloat16-autocast")
    if options.ablations:
        lesser = [f"lambert {mine} without {ablation}" for ablation in ABLATIONS]
        return [
            ("lambert", f"lambert {mine}"),
            *(("ablation", name) for name in [*lesser, "lambert bfloat16-autocast"]),
        ]
    found = [("lambert", f"lambert {mine}")]
    if not options.float32 and not options.headline:
        found.append(("lambert", f"lambert {common}"))
    for attention in ("eager", "sdpa"):
        if not options.headline:
            found.append(("transformers", f"transformers {attention} {common}"))
        baselines = [("tuned", f"tuned {attention} {common}")]
        if not options.float32:
            baselines.append(("by hand", f"tuned {attention} {mine}"))
        found += baselines
        if options.compile:
            found += [(kind, f"{name} compiled") for kind, name in baselines]
    return [(kind, name) for kind, name in found if not any(word in name for word in options.skip)]


def make(name: str, config: Any) -> Step:
    """The implementation of this name, built in this process."""
    who, what, *rest = name.split()
    if who == "lambert":
        return ours(config, Precision(what))
    if who == "transformers":
        return theirs(hugging_face(what, config), Precision(rest[0]))
    return tuned(what, config, Precision(rest[0]), compiled="compiled" in rest)


def work(pipe: Any, name: str, config: Any, corpus: Path, length: int, size: int, threads: int) -> None:
    """The process of an implementation: one step per request, answered with CPU seconds, wall-clock seconds and GB."""
    torch.set_num_threads(threads)
    _, _, missing = name.partition(" without ")
    if missing != "allocator settings":
        apply_allocator_settings()
    if missing == "fused kernels":
        vars(ops)["has_numba"] = lambda: False
    if missing == "leaving out padding":
        vars(cpu_fused)["unpad"] = lambda *_: None
    if missing == "transposed operands":
        vars(cpu_arrays)["_MIN_TRANSPOSED_COLUMNS"] = 10**9
    step = make(name, config)
    stream = batches(Corpus.open(corpus), length, size, OBJECTIVES[architecture_of(config)])
    while pipe.recv():
        batch = next(stream)
        began, clock = time.process_time(), time.perf_counter()
        step(batch)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        pipe.send((time.process_time() - began, time.perf_counter() - clock, peak))


def measure(model: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Median step of every implementation, and the ratios."""
    size = options.batch_size or (16 if model in ("base", "large") else 32) * 128 // options.length
    vocabulary_size = Corpus.open(options.corpus).vocabulary_size
    config = model_config(model, vocabulary_size=vocabulary_size, architecture=options.architecture)
    taking_part = names(options)
    context, pipes, processes = get_context("spawn"), {}, []
    for _, name in taking_part:
        pipes[name], end = context.Pipe()
        settings = (end, name, config, options.corpus, options.length, size, options.threads)
        processes.append(context.Process(target=work, args=settings, daemon=True))
        processes[-1].start()
    times: dict[str, list[float]] = {name: [] for _, name in taking_part}
    starts, peaks = {}, {}
    for number in range(options.rounds + WARM_UP):
        for _, name in taking_part:
            pipes[name].send(True)
            seconds, by_the_clock, peaks[name] = pipes[name].recv()
            if number == 0:
                starts[name] = by_the_clock
            if number >= WARM_UP:
                times[name].append(seconds)
    for process, pipe in zip(processes, pipes.values(), strict=True):
        pipe.send(False)
        process.join()
    print(f"\n{options.architecture} {model}, length {options.length}, batch {size}, {options.threads} thread(s)")
    print(f"{'':34}{'ms a step':>10}{'min..max':>16}{'sequences/s':>13}{'first step, s':>15}{'memory, GB':>12}")
    for _, name in taking_part:
        own = [1e3 * value for value in times[name]]
        middle = statistics.median(own)
        rate = 1e3 * size * options.threads / middle
        spread = f"{min(own):,.0f}..{max(own):,.0f}"
        print(f"{name:34}{middle:10,.0f}{spread:>16}{rate:13,.1f}{starts[name]:15.1f}{peaks[name]:12.1f}")
    return list(ratios(model, options, taking_part, times))


def ratios(
    model: str, options: argparse.Namespace, taking_part: list[tuple[str, str]], times: dict[str, list[float]]
) -> Iterator[dict[str, Any]]:
    """lambert against the fastest baseline of each kind, and against each ablation."""
    mine = taking_part[0][1]
    middle = statistics.median(times[mine])
    for rival in ("transformers", "tuned", "by hand", *(name for kind, name in taking_part if kind == "ablation")):
        of_them = {name: statistics.median(times[name]) for kind, name in taking_part if rival in (kind, name)}
        if not of_them:
            continue
        best = min(of_them, key=lambda name: of_them[name])
        targets = FLOAT32_TARGETS if options.float32 else TARGETS
        targets = MODERNBERT_TARGETS if options.architecture == "modernbert" else targets
        target = targets.get(rival, {}).get(model) if options.length == 128 else None
        aim = "" if target is None else f" (target {target})"
        print(f"{mine} over {best}: {of_them[best] / middle:.2f}{aim}")
        yield {
            "case": f"{options.architecture} {model}, length {options.length}",
            "unit": "seconds of CPU time",
            "ours": middle,
            "rival": best,
            "theirs": of_them[best],
            "ratio": of_them[best] / middle,
            "target": target,
            "spread": [min(times[mine]), max(times[mine])],
            "their_spread": [min(times[best]), max(times[best])],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--models", nargs="+", default=["tiny", "mini", "small", "base"])
    parser.add_argument("--architecture", choices=tuple(CONFIGS), default="bert")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=0, help="by default 4,096 tokens, 2,048 for base")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--float32", action="store_true", help="all in float32")
    parser.add_argument("--compile", action="store_true", help="also compile the tuned baselines")
    parser.add_argument("--headline", action="store_true", help="only lambert and the tuned baselines")
    parser.add_argument("--ablations", action="store_true", help="only lambert, and without each optimization")
    parser.add_argument("--skip", nargs="*", default=[], help="skip implementations with this in the name")
    options = parser.parse_args()
    hardware = inspect_hardware()
    versions = {package: version(package) for package in ("torch", "transformers")}
    print(f"{hardware.processor} ({hardware.processor_bfloat16 or 'no bfloat16 units'}), {versions}")
    rows = [row for model in options.models for row in measure(model, options)]
    machine = {"processor": hardware.processor, "bfloat16_flag": hardware.processor_bfloat16, **versions}
    print(json.dumps({"benchmark": "train_step", **machine, "threads": options.threads, "rows": rows}))


if __name__ == "__main__":
    main()
