"""Sequences that one core makes into batches in a second, as the training loop does on a GPU, and what takes the time.

    python benchmarks/batches.py CORPUS [--workers N]

Processor time of one thread, the best of some rounds. A share is a function's own time with that of the library calls
in it, under the profiler. With --workers that is the time left to this thread where N processes make the batches.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import platform
import pstats
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

from lambert.corpus.store import Corpus
from lambert.data.dataloader import PretrainingBatch, SampleStream, example_source
from lambert.data.objective import ObjectiveConfig
from lambert.data.workers import BatchWorkers, Samples
from lambert.training.step.batches import GROUP_TOKENS

ROUNDS, SHARES = 5, 6


def groups_of(batches: int, size: int, length: int) -> list[Samples]:
    """The samples of consecutive micro-batches, in groups as the training loop makes them."""
    most = max(1, GROUP_TOKENS // (size * length))
    starts = range(0, batches, most)
    return [(start * size, *[size] * min(most, batches - start)) for start in starts]


def best_round(make: Callable[[int], list[PretrainingBatch]], groups: int) -> tuple[float, int]:
    """Seconds of the fastest round, and the tokens of a round, padding left out."""
    best, tokens = float("inf"), 0
    make(0)
    for _ in range(ROUNDS):
        began = time.thread_time()
        tokens = sum(batch.real_tokens for group in range(groups) for batch in make(group))
        best = min(best, time.thread_time() - began)
    return best, tokens


def shares(make: Callable[[int], list[PretrainingBatch]], groups: int) -> dict[str, float]:
    """The largest shares of the time, by function of lambert."""
    profile = cProfile.Profile(time.thread_time)
    profile.enable()
    for group in range(groups):
        make(group)
    profile.disable()
    seconds: Counter[str] = Counter()
    for (file, _, name), (_, _, own, _, callers) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        if "/lambert/" in file:
            seconds[f"{Path(file).stem}.{name}"] += own
            continue
        for (caller_file, _, caller), (_, _, in_caller, _) in callers.items():
            seconds[f"{Path(caller_file).stem}.{caller}" if "/lambert/" in caller_file else "libraries"] += in_caller
    total = sum(seconds.values())
    return {name: round(spent / total, 3) for name, spent in seconds.most_common(SHARES)}


def main() -> None:
    """Print a row for each case, and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--micro-batch-tokens", type=int, default=4_096, help="with padding")
    parser.add_argument("--sequences", type=int, default=8_192, help="in a round at length 128")
    parser.add_argument("--workers", type=int, default=0, help="processes that make the batches")
    words = parser.parse_args()
    torch.set_num_threads(1)
    workers = BatchWorkers(words.workers, pins=False) if words.workers else None
    corpus, rows = Corpus.open(words.corpus), []
    print(f"{'pairs':6}{'length':>7}{'packed':>7}{'sequences/s':>13}{'tokens/s':>13}  shares")
    for pairs in ("nsp", "none"):
        for length in (128, 512):
            objective = ObjectiveConfig(pairing=pairs)
            examples = example_source(corpus, "train", sequence_length=length, seed=0, phase=1, objective=objective)
            size = words.micro_batch_tokens // length
            batches = max(1, words.sequences * 128 // length // size)
            groups = groups_of(batches, size, length)
            for packs in (False, True):
                stream = SampleStream(examples, packs=packs, fixed_shapes=True)
                if workers is not None:
                    workers.begin(stream)

                def make(
                    group: int, stream: SampleStream = stream, groups: list[Samples] = groups
                ) -> list[PretrainingBatch]:
                    if workers is not None:
                        return workers.batches([groups[group]], groups[group + 1 :])
                    first, *counts = groups[group]
                    return stream.batches(first, counts)

                seconds, tokens = best_round(make, len(groups))
                row = {
                    "pairs": pairs,
                    "length": length,
                    "packed": packs,
                    "sequences_per_second": round(batches * size / seconds),
                    "tokens_per_second": round(tokens / seconds),
                    "shares": {} if workers else shares(make, len(groups)),
                }
                rows.append(row)
                largest = ", ".join(f"{name} {share:.0%}" for name, share in row["shares"].items())
                rates = f"{row['sequences_per_second']:>13,}{row['tokens_per_second']:>13,}"
                print(f"{pairs:6}{length:>7}{'yes' if packs else 'no':>7}{rates}  {largest}")
    if workers is not None:
        workers.close()
    machine = {"workers": words.workers, "machine": platform.machine(), "micro_batch_tokens": words.micro_batch_tokens}
    print(json.dumps({"benchmark": "batches", **machine, "rows": rows}))


if __name__ == "__main__":
    main()
