"""Run folders made up to look like real ones: a loss from 10.4 down to about 6.5, two phases, evaluations."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

RECIPE = """\
command = [
    "lambert", "pretrain", "--corpus", "corpora/my docs", "--model", "mini", "--batch-size", "256", "128",
]
seed = 1

[model]
name = "mini"
layers = 4
hidden_size = 256
heads = 4
vocabulary_size = 30522

[optimizer]
name = "lamb"
betas = [0.9, 0.999]
epsilon = 1e-6
weight_decay = 0.01
max_grad_norm = 1.0

[data]
corpus = "corpora/my docs"
mlm_probability = 0.15
short_sequence_probability = 0.1
"""
PARTS = (
    "attention.query", "attention.key", "attention.value", "attention.output", "feed_forward.inner",
    "feed_forward.outer",
)  # fmt: skip

Record = dict[str, Any]


def layer_names(layers: int) -> list[str]:
    names = [
        "bert.embeddings.words.weight",
        "bert.embeddings.positions.weight",
        "bert.embeddings.segments.weight",
    ]
    names += [f"bert.encoder.{layer}.{part}.weight" for layer in range(layers) for part in PARTS]
    return [*names, "bert.pooler.weight", "heads.masked_tokens.transform.weight", "bert.pooler.bias"]


def journal(
    steps: int = 600, *, second_phase: bool = True, layers: int = 4, every: int = 0, evaluate: bool = True,
    seed: int = 0, batch_sizes: Sequence[int] = (256, 128), floor: float = 6.3, optimizer: str = "lamb",
) -> list[Record]:  # fmt: skip
    random, time = np.random.default_rng(seed), 1_790_000_000.0
    first = round(0.9 * steps) if second_phase else steps
    every, peak = every or max(steps // 12, 1), 0.625 / math.sqrt(max(steps, 600))
    host = {
        "processor": "Intel Xeon @ 2.20 GHz",
        "cores": 2,
        "threads": 2,
        "memory_bytes": 8_340_000_000,
        "device": "cpu",
    }
    records: list[Record] = [{
        "event": "run", "format_version": 2, "lambert": "0.1.0", "torch": "2.13.0+cpu", "python": "3.11.2",
        "host": host, "seed": 1, "precision": "float32", "parameters": 11_170_560,
        "model": {"name": "mini", "layers": 4, "hidden_size": 256},
        "optimizer": optimizer, "micro_batch_size": 32, "resumed_from_step": 0, "total_steps": steps,
        "corpus": {"path": "corpora/my docs", "fingerprint": "9f3c2ab07d15", "tokens": 8_412_338},
    }]  # fmt: skip
    names, offsets = layer_names(layers), random.normal(0, 0.5, len(layer_names(layers)))
    spans = [(1, 128, 1, first), (2, 512, first + 1, steps - first)] if second_phase else [(1, 128, 1, steps)]
    phases = {
        number: {
            "event": "phase", "phase": number, "sequence_length": length,
            "batch_size": batch_sizes[number - 1],
            "first_step": start, "steps": count, "peak_learning_rate": peak, "warmup_steps": max(count // 10,
            1),
        }
        for number, length, start, count in spans
    }  # fmt: skip
    for step in range(1, steps + 1):
        phase = phases[2 if second_phase and step > first else 1]
        if step == phase["first_step"]:
            records.append(phase)
        place = step - phase["first_step"] + 1
        rate = peak * min(
            place / phase["warmup_steps"],
            (phase["steps"] - place) / max(phase["steps"] - phase["warmup_steps"], 1),
        )
        share = step / max(steps, 1)
        loss = floor + (10.35 - floor) * (0.75 * math.exp(-step / (0.025 * steps + 4)) + 0.25 * math.exp(-3 * share))
        loss += 0.15 * math.exp(-place / (0.01 * steps + 1)) * (phase["phase"] - 1) + random.normal(0, 0.045)
        seconds = (0.82 if phase["phase"] == 1 else 2.1) * (1 + abs(random.normal(0, 0.05)))
        sequences, accuracy = phase["batch_size"] / seconds, min(0.6, max(0.001, 0.052 + 0.07 * (7.2 - loss)))
        time += seconds
        records.append({
            "event": "step", "step": step, "phase": phase["phase"], "loss": loss + 0.66,
            "mlm_loss": loss,
            "mask_token_loss": loss + 0.5,
            "mask_token_accuracy": max(accuracy - 0.03, 0.0),
            "nsp_loss": 0.69 - 0.1 * share, "mlm_accuracy": max(accuracy + random.normal(0,
            0.004), 0.0),
            "nsp_accuracy": 0.5 + 0.18 * share + random.normal(0, 0.02), "learning_rate": rate,
            "gradient_norm": 0.9 + 5 * math.exp(-step / (0.03 * steps + 2)) + abs(random.normal(0, 0.15)),
            "seconds": seconds,
            "sequences_per_second": sequences,
            "tokens_per_second": sequences * phase["sequence_length"] * 0.93,
            "eta_seconds": (steps - step) * 0.9,
        })  # fmt: skip
        if step % max(every // 4, 1) == 0 or step == 1:
            ratios = {
                name: 1.0
                if name.endswith("bias")
                else float(np.exp(-2.2 + offset + 1.6 * share + random.normal(0, 0.08)))
                for name, offset in zip(names, offsets, strict=True)
            }
            records.append({"event": "trust_ratios", "step": step, "trust_ratios": ratios})
        if evaluate and (step % every == 0 or step == steps):
            records.append({
                "event": "evaluation", "step": step, "mlm_loss": loss + 0.06,
                "mlm_accuracy": accuracy,
                "nsp_loss": 0.66, "nsp_accuracy": 0.5 + 0.17 * share,
                "nsp_majority_accuracy": 0.52,
                "unigram_loss": 6.99,
                "unigram_accuracy": 0.0512, "masked_tokens": 19_204,
            })  # fmt: skip
            records.append(
                {
                    "event": "checkpoint",
                    "step": step,
                    "path": f"checkpoints/step-{step}",
                    "bytes": 134_000_000,
                    "seconds": 0.4,
                }
            )
    for text in (
        "The capital of France is [MASK].",
        "Returns the [MASK] of the list.",
        "Raise an [MASK] if the file is missing.",
    ):
        shares = np.sort(random.dirichlet(np.full(5, 0.7)) * 0.7)[::-1]
        candidates = [
            {"word": word, "probability": float(p)}
            for word, p in zip(("length", "name", "error", "value", "the"), shares, strict=True)
        ]
        records.append({"event": "fill", "text": text, "candidates": candidates})
    records.append({"event": "end", "step": steps, "reason": "finished", "seconds": time - 1_790_000_000.0})
    return [{"time": 1_790_000_000.0 + place, **record} for place, record in enumerate(records)]


def write_run(folder: Path, records: Sequence[Record], recipe: str | None = RECIPE) -> Path:
    folder.mkdir(parents=True)
    (folder / "journal.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    if recipe is not None:
        (folder / "recipe.toml").write_text(recipe, "utf-8")
    return folder


@pytest.fixture
def make_run_folder(tmp_path: Path) -> Callable[..., Path]:
    """make_run_folder(name, records=None, recipe=RECIPE, **options of `journal`) -> the run folder."""

    def make(
        name: str = "mini-lamb",
        records: Sequence[Record] | None = None,
        recipe: str | None = RECIPE,
        **options: Any,
    ) -> Path:
        return write_run(tmp_path / "runs" / name, journal(**options) if records is None else records, recipe)

    return make


@pytest.fixture
def make_journal() -> Callable[..., list[Record]]:
    return journal
