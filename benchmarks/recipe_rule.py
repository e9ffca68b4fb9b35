"""Fit and test the rule for short runs: held-out loss over a grid of peaks, warm-up shares, batches and starts.

Every trial is an ordinary two-phase run in a folder of its own, so an interrupted grid goes on where it stopped.

    python benchmarks/recipe_rule.py CORPUS OUT --model tiny --samples 38400 --batch-size 64 \
        --learning-rates 0.005 0.01 0.02 rule --warmup-shares 0.1 0.25 --deviations rule 0.02
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import tomllib
from dataclasses import replace
from pathlib import Path

import torch

from lambert.corpus.store import Corpus
from lambert.model.presets import model_config
from lambert.training.config.recipe import make_phases, recipe_by_rule
from lambert.training.config.starting_model import starting_model
from lambert.training.config.trainer_options import TrainerOptions
from lambert.training.config.training_config import TrainingConfig
from lambert.training.loop import TrainingLoop


def last_evaluation(run: Path) -> dict[str, float]:
    """The run's last held-out figures."""
    events = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    return [event for event in events if event["event"] == "evaluation"][-1]


def run_trial(
    arguments: argparse.Namespace,
    corpus: Corpus,
    optimizer: str,
    batch_size: int,
    rate: str,
    share: str,
    deviation: str,
    seed: int,
) -> dict[str, object]:
    """One run, or what it left when it was done before."""
    phases = make_phases(
        recipe_by_rule((batch_size,), arguments.sequence_lengths),
        samples=arguments.samples,
        optimizer=optimizer,
        learning_rate=None if rate == "rule" else float(rate),
        warmup_ratio=None if share == "rule" else float(share),
    )
    config = model_config(arguments.model, vocabulary_size=corpus.vocabulary_size, dropout=arguments.dropout)
    if deviation != "rule":
        config = replace(config, initializer_range=float(deviation))
    settings = TrainingConfig(
        model_name=arguments.model,
        model=config,
        optimizer=optimizer,
        samples=arguments.samples,
        phases=phases,
        micro_batch_sizes=(64, 16),
        corpus_fingerprint=corpus.fingerprint,
        seed=seed,
    )
    name = f"{arguments.model}-{arguments.samples}-{optimizer}-b{batch_size}-lr{rate}-w{share}-d{deviation}-s{seed}"
    run = arguments.out / name
    if not (run / "huggingface").exists():
        model = starting_model(settings, None, corpus)
        trainer_options = TrainerOptions(evaluation_samples=512, evaluations_per_phase=4)
        TrainingLoop(run, settings, model, corpus, trainer_options=trainer_options).train()
    figures = last_evaluation(run)
    recipe = tomllib.loads((run / "recipe.toml").read_text())
    return {
        "optimizer": optimizer,
        "batch_size": batch_size,
        "steps": sum(phase["steps"]["value"] for phase in recipe["phases"]),
        "peak": recipe["phases"][0]["peak_learning_rate"]["value"],
        "warmup_ratio": share,
        "deviation": config.initializer_range,
        "seed": seed,
        "loss": figures["mlm_loss"],
        "accuracy": figures["mlm_accuracy"],
        "unigram_loss": figures["unigram_loss"],
        "unigram_accuracy": figures["unigram_accuracy"],
    }


def main() -> None:
    """Run the grid and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--samples", type=int, default=38_400)
    parser.add_argument("--sequence-lengths", type=int, nargs=2, default=[64, 256])
    parser.add_argument("--optimizers", nargs="+", default=["lamb"])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64])
    parser.add_argument("--learning-rates", nargs="+", default=["rule"])
    parser.add_argument("--warmup-shares", nargs="+", default=["rule"])
    parser.add_argument("--deviations", nargs="+", default=["rule"], help="of the normal that weights start from")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    corpus = Corpus.open(arguments.corpus)
    rows = []
    grid = itertools.product(
        arguments.optimizers,
        arguments.batch_sizes,
        arguments.learning_rates,
        arguments.warmup_ratios,
        arguments.deviations,
        arguments.seeds,
    )
    for trial in grid:
        row = run_trial(arguments, corpus, *trial)
        rows.append(row)
        print(
            f"{row['optimizer']:6} B {row['batch_size']:5} T {row['steps']:5} peak {row['peak']:.2e} "
            f"warm-up {row['warmup_ratio']:5} deviation {row['deviation']:.3f} seed {row['seed']} "
            f"loss {row['loss']:.3f} (unigram {row['unigram_loss']:.3f}) "
            f"accuracy {row['accuracy']:.3f} ({row['unigram_accuracy']:.3f})",
            flush=True,
        )
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    print(json.dumps({"benchmark": "recipe_rule", "machine": machine, "rows": rows}))


if __name__ == "__main__":
    main()
