"""When does masked-word training leave the unigram plateau? A Markov chain whose answer is known.

Each word is fixed by the one before with a given probability (next = permutation[word]) and any word otherwise, so a
model that looks at its neighbours guesses about that share right, and one that does not guesses 1 in 195. This tells
learning from copying, which real text with BERT's 80/10/10 masks does not.

    python benchmarks/plateau.py --learning-rates 0.0025 0.005 0.01 --starts published narrow
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from lambert.model.heads import BertForPreTraining
from lambert.model.presets import model_config
from lambert.optim import LAMB, parameter_groups
from lambert.training.schedule import warmup_then_linear

SPECIAL_WORDS = 5
MASK = 4


def make_batch(
    words: int, sequences: int, length: int, certainty: float, random: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Ids [B, S] with 15 % behind [MASK], their flat places [M] and what stood there [M]."""
    order = torch.randperm(words - SPECIAL_WORDS, generator=torch.Generator().manual_seed(0)) + SPECIAL_WORDS
    columns = [torch.randint(SPECIAL_WORDS, words, (sequences,), generator=random)]
    for _ in range(length - 1):
        noise = torch.randint(SPECIAL_WORDS, words, (sequences,), generator=random)
        is_certain = torch.rand(sequences, generator=random) < certainty
        columns.append(torch.where(is_certain, order[columns[-1] - SPECIAL_WORDS], noise))
    ids = torch.stack(columns, 1)
    hidden = torch.rand(sequences, length, generator=random) < 0.15
    places = hidden.flatten().nonzero().flatten()
    return ids.masked_fill(hidden, MASK), places, ids.flatten()[places]


def train(arguments: argparse.Namespace, optimizer_name: str, rate: float, start: str) -> list[float]:
    """Share of the hidden words guessed right in training, at eight evenly spread steps."""
    config = model_config(arguments.model, vocabulary_size=arguments.words, dropout=0.0)
    if start == "published":
        config = replace(config, initializer_range=0.02, sinusoidal_positions=False)
    elif start == "wide-only":
        config = replace(config, sinusoidal_positions=False)
    torch.manual_seed(arguments.seed)
    model = BertForPreTraining(config)
    groups = parameter_groups(model, weight_decay=0.01)
    optimizer: torch.optim.Optimizer = LAMB(groups)
    if optimizer_name == "adamw":
        optimizer = torch.optim.AdamW(groups, fused=True)
    random = torch.Generator().manual_seed(arguments.seed + 1)
    shares = []
    for step in range(1, arguments.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = warmup_then_linear(
                step, peak=rate, warmup_steps=arguments.steps // 10, total_steps=arguments.steps
            )
        ids, places, answers = make_batch(
            arguments.words, arguments.batch_size, arguments.length, arguments.certainty, random
        )
        scores, _ = model(ids, torch.zeros_like(ids), None, places)
        optimizer.zero_grad()
        functional.cross_entropy(scores, answers).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step * 8 // arguments.steps > (step - 1) * 8 // arguments.steps:
            shares.append(float((scores.argmax(-1) == answers).float().mean()))
    return shares


def main() -> None:
    """Run the grid and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--optimizers", nargs="+", default=["lamb"])
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[5e-3])
    parser.add_argument("--starts", nargs="+", default=["published", "wide-only", "narrow"])
    parser.add_argument("--certainty", type=float, default=0.8)
    parser.add_argument("--words", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for name, rate, start in itertools.product(arguments.optimizers, arguments.learning_rates, arguments.starts):
        shares = train(arguments, name, rate, start)
        rows.append({"case": f"{name} {rate:g} {start}", "ours": shares[-1], "curve": shares})
        print(f"{name:6} {rate:<7g} {start:10} " + " ".join(f"{share:.2f}" for share in shares), flush=True)
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    print(json.dumps({"benchmark": "plateau", "machine": machine, "rows": rows}))


if __name__ == "__main__":
    main()
