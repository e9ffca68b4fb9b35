"""A whole pre-training step (forward, backward, AdamW) beside `transformers`' BertForPreTraining, on the same batches.

Contestants take turns step by step in one process, each step timed by the processor time of the process, which other
work on the machine disturbs less than the clock; the table gives medians with the least and the most. All of them run
under the allocator settings that lambert gives its own runs, with PyTorch's fused AdamW, dropout .1 and real batches of
a corpus.

    python benchmarks/train_step.py CORPUS --models tiny mini --threads 1 --rounds 7
    python benchmarks/train_step.py CORPUS --models tiny --compile      # the careful user also compiles
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lambert.batches.loader import PretrainingBatch, SampleStream, example_source
from lambert.corpus.store import Corpus
from lambert.model.heads import BertForPreTraining
from lambert.model.presets import model_config
from lambert.training.allocator import apply_allocator_settings
from lambert.training.optimizers import make_optimizer
from lambert.training.precision import Precision
from lambert.training.state import working_model
from lambert.training.step import train_step
from lambert.training.tasks import pretraining_task

LR = 1e-4
TARGETS = {
    "transformers": {"tiny": 5.5, "mini": 3.3, "small": 2.3, "base": 1.6},
    "careful": {"tiny": 1.5, "mini": 1.5, "small": 1.4, "base": 1.3},
}
Step = Callable[[PretrainingBatch], float]


@dataclass(frozen=True)
class Contestant:
    """A way to take a step; `rival` says whose it is: `lambert`, `transformers` or `careful`."""

    name: str
    rival: str
    step: Step


def batches(corpus: Corpus, length: int, size: int) -> Iterator[PretrainingBatch]:
    """Padded batches of the corpus, one after another."""
    stream = SampleStream(example_source(corpus, "train", sequence_length=length, seed=0, phase=1))
    first = 0
    while True:
        yield stream.batch(first, size)
        first += size


def ours(name: str, config: Any, precision: Precision) -> Contestant:
    """Lambert's own step."""
    model = BertForPreTraining(config)
    working = working_model(model, precision, weight_decay=0.01)
    optimizer = make_optimizer("adamw", working.groups, betas=(0.9, 0.999), epsilon=1e-6)
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
        )
        return result.loss

    return Contestant(name, "lambert", step)


def autocast(bfloat16: bool) -> AbstractContextManager[None]:
    """The context of a rival's forward pass."""
    return torch.autocast("cpu", dtype=torch.bfloat16) if bfloat16 else nullcontext()


def theirs(attention: str, config: Any, *, bfloat16: bool) -> Contestant:
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

    return Contestant(f"transformers {attention} {'bf16' if bfloat16 else 'fp32'}", "transformers", step)


def careful(attention: str, config: Any, *, bfloat16: bool, compiled: bool) -> Contestant:
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

    name = f"careful {attention} {'bf16' if bfloat16 else 'fp32'}{' compiled' if compiled else ''}"
    return Contestant(name, "careful", step)


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
    return float(loss)


def contestants(config: Any, options: argparse.Namespace) -> Iterator[Callable[[], Contestant]]:
    """Makers, so that only those asked for take memory."""
    bf16 = not options.float32
    precision = Precision.BFLOAT16_MASTER if bf16 else Precision.FLOAT32
    yield lambda: ours(f"lambert {precision.value}", config, precision)
    if bf16 and not options.headline:
        yield lambda: ours("lambert bfloat16-autocast", config, Precision.BFLOAT16_AUTOCAST)
    for attention in ("eager", "sdpa"):
        if not options.headline:
            yield lambda attention=attention: theirs(attention, config, bfloat16=bf16)
        yield lambda attention=attention: careful(attention, config, bfloat16=bf16, compiled=False)
        if options.compile:
            yield lambda attention=attention: careful(attention, config, bfloat16=bf16, compiled=True)


def measure(model: str, corpus: Corpus, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Median step of every contestant, and the ratios."""
    size = options.batch_size or (16 if model in ("base", "large") else 32) * 128 // options.length
    config = model_config(model, vocabulary_size=corpus.vocabulary_size, dropout=0.1)
    running = [make() for make in contestants(config, options)]
    stream = batches(corpus, options.length, size)
    times: dict[str, list[float]] = {one.name: [] for one in running}
    starts: dict[str, float] = {}
    for number in range(options.rounds + 2):
        batch = next(stream)
        for one in running:
            began, clock = time.process_time(), time.perf_counter()
            one.step(batch)
            if number == 0:
                starts[one.name] = time.perf_counter() - clock
            if number >= 2:  # the first ones warm up
                times[one.name].append(time.process_time() - began)
    print(f"\n{model}, length {options.length}, batch {size}, {torch.get_num_threads()} thread(s)")
    print(f"{'':34}{'ms a step':>10}{'least..most':>18}{'sequences/s':>13}{'first step, s':>15}")
    for one in running:
        own = [1e3 * value for value in times[one.name]]
        spread = f"{min(own):,.0f}..{max(own):,.0f}"
        middle = statistics.median(own)
        rate = 1e3 * size * torch.get_num_threads() / middle
        print(f"{one.name:34}{middle:10,.0f}{spread:>18}{rate:13,.1f}{starts[one.name]:15.1f}")
    rows = []
    mine = running[0]
    for rival in ("transformers", "careful"):
        of_them = {one.name: statistics.median(times[one.name]) for one in running if one.rival == rival}
        if not of_them:
            continue
        best = min(of_them, key=lambda name: of_them[name])
        middle = statistics.median(times[mine.name])
        target = TARGETS[rival].get(model) if options.length == 128 and not options.float32 else None
        rows.append(
            {
                "case": f"{model}, length {options.length}",
                "ours": middle,
                "rival": best,
                "theirs": of_them[best],
                "ratio": of_them[best] / middle,
                "target": target,
                "spread": [min(times[mine.name]), max(times[mine.name])],
            }
        )
        print(f"{mine.name} over {best}: {of_them[best] / middle:.2f} (target {target})")
    return rows


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
    options = parser.parse_args()
    apply_allocator_settings()
    torch.set_num_threads(options.threads)
    corpus = Corpus.open(options.corpus)
    rows = [row for model in options.models for row in measure(model, corpus, options)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    machine = f"{platform.processor() or platform.machine()}, {peak:.1f} GB at most for all together"
    print(json.dumps({"benchmark": "train_step", "machine": machine, "rows": rows}))


if __name__ == "__main__":
    main()
