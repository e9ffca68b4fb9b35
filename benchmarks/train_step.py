"""A whole pre-training step (forward, backward, AdamW) beside `transformers`' BertForPreTraining, on the same batches.

Contestants take turns step by step, each in a process of its own, whose processor time is what counts: other work on
the machine disturbs it less than the clock. The table gives medians with the least and the most, and what each process
needed of memory. All run under the allocator settings that lambert gives its own runs, with PyTorch's fused AdamW,
dropout .1 and real batches of a corpus.

    python benchmarks/train_step.py CORPUS --models tiny mini --threads 1 --rounds 7
    python benchmarks/train_step.py CORPUS --models tiny --compile      # the careful user also compiles
    python benchmarks/train_step.py CORPUS --ingredients                # lambert without one thing at a time
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lambert.corpus.store import Corpus
from lambert.data.dataloader import PretrainingBatch, SampleStream, example_source
from lambert.model.cpu import arrays, encoder
from lambert.model.heads import BertForPreTraining
from lambert.model.presets import model_config
from lambert.training.config.precision import Precision
from lambert.training.malloc import apply_allocator_settings
from lambert.training.optimizer import make_optimizer
from lambert.training.step.pretraining_loss import pretraining_task
from lambert.training.step.train_state import working_model
from lambert.training.step.train_step import train_step

LR = 1e-4
TARGETS = {
    "transformers": {"tiny": 5.5, "mini": 3.3, "small": 2.3, "base": 1.6},
    "careful": {"tiny": 1.5, "mini": 1.5, "small": 1.4, "base": 1.3},
}
FLOAT32_TARGETS = {"transformers": {"tiny": 4.2, "mini": 2.4, "small": 2.0, "base": 1.25}}
INGREDIENTS = ("loops", "turned factors", "allocator settings")
"""What lambert can be measured without."""
WARM_UP = 2
"""Steps that are not counted."""
Step = Callable[[PretrainingBatch], float]


def batches(corpus: Corpus, length: int, size: int) -> Iterator[PretrainingBatch]:
    """Padded batches of the corpus, one after another."""
    stream = SampleStream(example_source(corpus, "train", sequence_length=length, seed=0, phase=1))
    first = 0
    while True:
        yield stream.batch(first, size)
        first += size


def ours(config: Any, precision: Precision) -> Step:
    """Lambert's own step."""
    model = BertForPreTraining(config)
    working = working_model(model, precision, weight_decay=0.01)
    optimizer = make_optimizer("adamw", working.groups, working.names, betas=(0.9, 0.999), epsilon=1e-6)
    seeds = iter(range(10**9))

    def step(batch: PretrainingBatch) -> float:
        result = train_step(
            model,
            optimizer,
            [batch],
            task=pretraining_task,
            learning_rate=LR,
            clip_norm=None,
            dropout_seeds=[next(seeds)],
            precision=precision,
            master=working.master,
            gradients=working.gradients,
        )
        return result.loss

    return step


def autocast(bfloat16: bool) -> AbstractContextManager[None]:
    """The context of a rival's forward pass."""
    return torch.autocast("cpu", dtype=torch.bfloat16) if bfloat16 else nullcontext()


def theirs(attention: str, config: Any, *, bfloat16: bool) -> Step:
    """`transformers` as it comes: scores of every position against the whole vocabulary."""
    model = hugging_face(attention, config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, fused=True)

    def step(batch: PretrainingBatch) -> float:
        labels = torch.full_like(batch.token_ids, -100).flatten()
        labels[batch.masked_positions] = batch.masked_labels
        with autocast(bfloat16):
            loss = model(
                input_ids=batch.token_ids,
                token_type_ids=batch.segment_ids,
                attention_mask=batch.attention_mask,
                labels=labels.view_as(batch.token_ids),
                next_sentence_label=batch.next_sentence_labels,
            ).loss
        return finish(loss, optimizer)

    return step


def careful(attention: str, config: Any, *, bfloat16: bool, compiled: bool) -> Step:
    """What a careful user makes of `transformers`: the head sees the masked positions only; perhaps compiled."""
    model = hugging_face(attention, config)
    encoder = torch.compile(model.bert) if compiled else model.bert
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, fused=True)

    def step(batch: PretrainingBatch) -> float:
        with autocast(bfloat16):
            output = encoder(
                input_ids=batch.token_ids, token_type_ids=batch.segment_ids, attention_mask=batch.attention_mask
            )
            masked = output.last_hidden_state.flatten(0, 1)[batch.masked_positions]
            words: Tensor = model.cls.predictions(masked)
            pairs: Tensor = model.cls.seq_relationship(output.pooler_output)
        loss = functional.cross_entropy(words.float(), batch.masked_labels)
        return finish(loss + functional.cross_entropy(pairs.float(), batch.next_sentence_labels), optimizer)

    return step


def hugging_face(attention: str, config: Any) -> Any:
    """`transformers`' model of the same size."""
    import transformers

    sizes = transformers.BertConfig(
        vocab_size=config.vocabulary_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.attention_heads,
        intermediate_size=config.feed_forward_size,
        max_position_embeddings=config.maximum_positions,
    )
    sizes._attn_implementation = attention
    model: nn.Module = transformers.BertForPreTraining(sizes)
    return model.train()


def finish(loss: Tensor, optimizer: torch.optim.Optimizer) -> float:
    """Backward and update."""
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def names(options: argparse.Namespace) -> list[tuple[str, str]]:
    """(rival, name) of all that take part."""
    kind = "float32" if options.float32 else "bfloat16"
    if options.ingredients:
        mine = f"lambert {'float32' if options.float32 else 'bfloat16-master'}"
        lesser = [f"{mine} without {ingredient}" for ingredient in INGREDIENTS]
        return [("lambert", mine), *(("ingredient", name) for name in [*lesser, "lambert bfloat16-autocast"])]
    found = [("lambert", "lambert float32" if options.float32 else "lambert bfloat16-master")]
    if not options.float32 and not options.headline:
        found.append(("lambert", "lambert bfloat16-autocast"))
    for attention in ("eager", "sdpa"):
        if not options.headline:
            found.append(("transformers", f"transformers {attention} {kind}"))
        found.append(("careful", f"careful {attention} {kind}"))
        if options.compile:
            found.append(("careful", f"careful {attention} {kind} compiled"))
    return [(rival, name) for rival, name in found if not any(word in name for word in options.skip)]


def make(name: str, config: Any) -> Step:
    """The contestant of this name, built in this process."""
    who, what, *rest = name.split()
    if who == "lambert":
        return ours(config, Precision(what))
    if who == "transformers":
        return theirs(what, config, bfloat16=rest[0] == "bfloat16")
    return careful(what, config, bfloat16=rest[0] == "bfloat16", compiled="compiled" in rest)


def work(pipe: Any, name: str, config: Any, corpus: Path, length: int, size: int, threads: int) -> None:
    """A contestant's process: a step whenever it is asked, answered with its seconds."""
    torch.set_num_threads(threads)
    _, _, missing = name.partition(" without ")
    if missing != "allocator settings":
        apply_allocator_settings()
    if missing == "loops":
        vars(encoder)["has_loops"] = lambda: False
    if missing == "turned factors":
        vars(arrays)["_TURNED_COLUMNS_AT_LEAST"] = 10**9
    step = make(name, config)
    stream = batches(Corpus.open(corpus), length, size)
    while pipe.recv():
        batch = next(stream)
        began, clock = time.process_time(), time.perf_counter()
        step(batch)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        pipe.send((time.process_time() - began, time.perf_counter() - clock, peak))


def measure(model: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Median step of every contestant, and the ratios."""
    size = options.batch_size or (16 if model in ("base", "large") else 32) * 128 // options.length
    config = model_config(model, vocabulary_size=Corpus.open(options.corpus).vocabulary_size, dropout=0.1)
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
    print(f"\n{model}, length {options.length}, batch {size}, {options.threads} thread(s)")
    print(f"{'':34}{'ms a step':>10}{'least..most':>16}{'sequences/s':>13}{'first step, s':>15}{'memory, GB':>12}")
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
    """Ours beside the fastest of each kind of rival."""
    mine = taking_part[0][1]
    middle = statistics.median(times[mine])
    for rival in ("transformers", "careful", *(name for kind, name in taking_part if kind == "ingredient")):
        of_them = {name: statistics.median(times[name]) for kind, name in taking_part if rival in (kind, name)}
        if not of_them:
            continue
        best = min(of_them, key=lambda name: of_them[name])
        targets = FLOAT32_TARGETS if options.float32 else TARGETS
        target = targets.get(rival, {}).get(model) if options.length == 128 else None
        aim = "" if target is None else f" (target {target})"
        print(f"{mine} over {best}: {of_them[best] / middle:.2f}{aim}")
        yield {
            "case": f"{model}, length {options.length}",
            "ours": middle,
            "rival": best,
            "theirs": of_them[best],
            "ratio": of_them[best] / middle,
            "target": target,
            "spread": [min(times[mine]), max(times[mine])],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--models", nargs="+", default=["tiny", "mini", "small", "base"])
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=0, help="4,096 token slots by default, 2,048 for base")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--float32", action="store_true", help="everybody in float32")
    parser.add_argument("--compile", action="store_true", help="also compile the careful user's encoder")
    parser.add_argument("--headline", action="store_true", help="only ours and the careful user")
    parser.add_argument("--ingredients", action="store_true", help="only ours, also without one thing at a time")
    parser.add_argument("--skip", nargs="*", default=[], help="leave out whoever has this in the name, to save memory")
    options = parser.parse_args()
    rows = [row for model in options.models for row in measure(model, options)]
    print(json.dumps({"benchmark": "train_step", "machine": platform.machine(), "rows": rows}))


if __name__ == "__main__":
    main()
