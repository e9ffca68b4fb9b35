"""The same text and processor time: a model by `transformers`' Trainer, as run_mlm uses it, and one by lambert.

    OMP_NUM_THREADS=1 python benchmarks/against_trainer.py CORPUS OUT --minutes 8

Each contestant trains in its own process, one after the other, one thread each. A minute is a minute of processor time
(user and system, `getrusage`) of the training loop, since other work on the machine disturbs it less than the clock.
Steps are timed first; each run is as long as then fits, its learning rate decays to zero within it, and the table shows
what it took. The same command resumes: contestants with a result are not repeated.

The Trainer's side: the corpus's own tokens, documents joined and cut into blocks, the stock collator, fused AdamW, 10 %
warm-up and linear decay, batches of 4,096 tokens, the best of several learning rates. It gets what run_mlm does not
have: prepared special-token masks, lambert's allocator settings, and bfloat16 only where that is faster.

lambert's side: what `lambert plan` proposes for such a text (tiny, Muon, lengths 32 and 128, batch 128, dropout 0).

Both are judged by lambert's validation at length 128, every masked token behind [MASK], on windows of one segment (what
the Trainer trains on) and on sentence pairs (what lambert trains on; the Trainer's model has never seen a second
segment).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch

import lambert
from lambert.corpus.store import Corpus
from lambert.corpus.vocabulary import special_tokens
from lambert.data.objective import ObjectiveConfig
from lambert.model.heads import BertForPreTraining
from lambert.model.huggingface import load_model, model_folder
from lambert.model.presets import model_config
from lambert.training.config.precision import Precision
from lambert.training.malloc import apply_allocator_settings
from lambert.training.step.evaluation import Validator

BATCH_TOKENS = 4_096
BATCH = 128
"""lambert's, sequences."""
LENGTHS = (32, 128)
JUDGED_LENGTH = 128
JUDGED_SEQUENCES = 1_024
TRIAL_STEPS = 12
"""Of the Trainer, timed before a run."""
LAMBERT_TRIAL_STEPS = 80
COLD_STEPS = 2
"""Steps of a trial that are not counted."""
Result = dict[str, Any]


class Clock(lambert.Callback):
    """Processor seconds of this process at the start, after each step and at the end of lambert's training loop."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.phases: list[int] = []
        self.tokens = 0.0

    def tick(self) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        self.times.append(used.ru_utime + used.ru_stime)

    def on_train_begin(self, trainer: Any, record: Any) -> None:
        self.tick()

    def on_step_end(self, trainer: Any, record: Any) -> None:
        self.tick()
        self.phases.append(record["phase"])
        self.tokens += record["tokens_per_second"] * record["seconds"]

    def on_train_end(self, trainer: Any, record: Any) -> None:
        self.tick()

    def seconds(self) -> float:
        """Of the whole loop."""
        return self.times[-1] - self.times[0]

    def step_seconds(self, phase: int = 1) -> float:
        """Mean step of a phase without its first steps; of the Trainer, which has one phase, of all."""
        steps = [after - before for before, after in pairwise(self.times[:-1])]
        numbers = self.phases or [1] * len(steps)
        return mean([each for each, number in zip(steps, numbers, strict=True) if number == phase][COLD_STEPS:])


def run_lambert(corpus: Path, out: Path, samples: int) -> Clock:
    """Pre-train as proposed; evaluations are left out, as on the other side."""
    clock = Clock()
    lambert.pretrain(
        corpus,
        out=out,
        callbacks=[clock],
        progress=False,
        model="tiny",
        optimizer="muon",
        batch_size=BATCH,
        sequence_lengths=list(LENGTHS),
        samples=samples,
        dropout=0.0,
        threads=1,
        probe_seconds=0,
        evaluation_samples=0,
        fresh=True,
    )
    return clock


def lambert_contestant(options: argparse.Namespace) -> Result:
    """Time steps of both phases, then train."""
    trial = run_lambert(options.corpus, options.out / "trial", LAMBERT_TRIAL_STEPS * BATCH)
    a_sample = (0.9 * trial.step_seconds(1) + 0.1 * trial.step_seconds(2)) / BATCH
    samples = max(1, round(60 * options.minutes / a_sample / BATCH)) * BATCH
    folder = options.out / "lambert"
    clock = run_lambert(options.corpus, folder, samples)
    return {"steps": samples // BATCH, "seconds": clock.seconds(), "tokens": clock.tokens, **judge(options, folder)}


def blocks(corpus: Corpus, length: int) -> Any:
    """The training text as run_mlm makes it: [CLS] document [SEP], joined and cut into blocks; a `datasets` table."""
    from datasets import Dataset

    split, special = corpus.split("train"), special_tokens(corpus.tokenizer())
    edges = split.sentence_offsets[split.document_offsets]
    parts: list[Any] = []
    for first, last in pairwise(edges):
        parts += [[special.classify], split.tokens(int(first), int(last)), [special.separate]]
    stream = np.concatenate(parts).astype(np.int32)
    rows = stream[: len(stream) // length * length].reshape(-1, length)
    marks = np.isin(rows, (special.classify, special.separate)).astype(np.int8)
    return Dataset.from_dict({"input_ids": list(rows), "special_tokens_mask": list(marks)})


def run_trainer(options: argparse.Namespace, out: Path, *, steps: int, rate: float, bfloat16: bool) -> Clock:
    """Train `transformers`' BertForMaskedLM of the same size and save it to `out`."""
    import transformers

    clock = Clock()

    class Ticks(transformers.TrainerCallback):  # type: ignore[misc, unused-ignore]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            clock.tick()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.tick()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            clock.tick()

    corpus = Corpus.open(options.corpus)
    transformers.set_seed(0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.corpus / "tokenizer")
    arguments = transformers.TrainingArguments(
        output_dir=str(out),
        max_steps=steps,
        per_device_train_batch_size=BATCH_TOKENS // options.block,
        learning_rate=rate,
        lr_scheduler_type="linear",
        warmup_steps=steps // 10,
        weight_decay=0.01,
        bf16=bfloat16,
        use_cpu=True,
        remove_unused_columns=False,  # it would remove the special-token masks, and the collator make them again
        save_strategy="no",
        report_to="none",
        logging_steps=500,
        disable_tqdm=True,
        seed=0,
    )
    trainer = transformers.Trainer(
        model=trainer_model(corpus),
        args=arguments,
        train_dataset=blocks(corpus, options.block),
        data_collator=transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15),
        callbacks=[Ticks()],
    )
    trainer.train()
    trainer.save_model(str(out))
    return clock


def trainer_model(corpus: Corpus) -> Any:
    """`BertForMaskedLM` of lambert's tiny."""
    import transformers

    sizes = model_config("tiny", vocabulary_size=corpus.vocabulary_size, dropout=0.0)
    return transformers.BertForMaskedLM(
        transformers.BertConfig(
            vocab_size=sizes.vocabulary_size,
            hidden_size=sizes.hidden_size,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.attention_heads,
            intermediate_size=sizes.feed_forward_size,
            max_position_embeddings=sizes.maximum_positions,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )


def trial(options: argparse.Namespace, name: str) -> Result:
    """Processor seconds of a Trainer step: `trial-float32`, `trial-bfloat16` or either with `-stock-malloc`."""
    clock = run_trainer(options, options.out / "trial", steps=TRIAL_STEPS, rate=1e-4, bfloat16="bfloat16" in name)
    return {"step_seconds": clock.step_seconds()}


def trainer_contestant(options: argparse.Namespace, rate: float, step_seconds: float, *, bfloat16: bool) -> Result:
    """Train for as many steps as fit at this learning rate."""
    steps = max(1, round(60 * options.minutes / step_seconds))
    folder = options.out / f"trainer-{rate:g}"
    clock = run_trainer(options, folder, steps=steps, rate=rate, bfloat16=bfloat16)
    return {"steps": steps, "seconds": clock.seconds(), "tokens": float(steps * BATCH_TOKENS), **judge(options, folder)}


def judge(options: argparse.Namespace, folder: Path) -> Result:
    """Held-out MLM loss, accuracy and unigram baseline of a model folder, on windows and on sentence pairs."""
    corpus = Corpus.open(options.corpus)
    model, report = load_model(model_folder(folder), BertForPreTraining, dropout=0.0)
    lost = [name for name in report.freshly_initialised if not name.startswith(("pooler.", "nsp_head."))]
    if lost or report.unused:
        raise ValueError(f"{folder}: weights do not match: {lost}, {report.unused}")
    found: Result = {}
    for name, pairing in (("windows", "none"), ("pairs", "nsp")):
        validator = Validator(corpus, ObjectiveConfig(pairing=pairing), samples=JUDGED_SEQUENCES)
        measured = validator.measure(model, JUDGED_LENGTH, Precision.FLOAT32)
        if measured is None:
            raise ValueError(f"{options.corpus} has no held-out text")
        found[name] = {
            "loss": measured.mlm_loss,
            "accuracy": measured.mlm_accuracy,
            "unigram": measured.unigram_loss,
            "masked_tokens": measured.masked_tokens,
        }
    return found


def contestant(options: argparse.Namespace) -> Result:
    """What the process of `--only` does."""
    torch.set_num_threads(1)
    if "stock-malloc" not in options.only:
        apply_allocator_settings()
    if options.only.startswith("trial"):
        return trial(options, options.only)
    if options.only == "lambert":
        return lambert_contestant(options)
    kind, step_seconds = fastest(options)
    rate = float(options.only.removeprefix("trainer-"))
    return trainer_contestant(options, rate, step_seconds, bfloat16=kind == "bfloat16")


def fastest(options: argparse.Namespace) -> tuple[str, float]:
    """The Trainer's faster precision and its step."""
    steps = {kind: result(options, f"trial-{kind}")["step_seconds"] for kind in ("float32", "bfloat16")}
    kind = min(steps, key=lambda name: steps[name])
    return kind, steps[kind]


def result(options: argparse.Namespace, name: str) -> Result:
    """The stored result of a contestant; runs it in its own process if there is none."""
    stored = options.out / f"{name}.json"
    if not stored.exists():
        words = [options.corpus, options.out, "--minutes", options.minutes, "--block", options.block, "--only", name]
        log = options.out / f"{name}.log"
        with log.open("w") as lines:
            done = subprocess.run(
                [sys.executable, __file__, *map(str, words)], stdout=lines, stderr=subprocess.STDOUT, check=False
            )
        if done.returncode:
            raise SystemExit(f"{name} failed: see {log}")
    found: Result = json.loads(stored.read_text())
    if found["block"] != options.block or (found["minutes"] != options.minutes and not name.startswith("trial")):
        raise SystemExit(f"{stored} is of other settings: choose another folder")
    return found


def show(name: str, row: Result) -> None:
    """A line of the table."""
    judged = "".join(
        f"{row[kind]['loss']:>9.3f}{row[kind]['unigram']:>9.3f}{row[kind]['accuracy']:>7.1%}"
        for kind in ("windows", "pairs")
    )
    rate = row["tokens"] / row["seconds"]
    print(f"{name:16}{row['seconds'] / 60:>8.2f}{row['steps']:>8,}{row['tokens'] / 1e6:>10.1f}{rate:>10,.0f}{judged}")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path, help="folder of the contestants")
    parser.add_argument("--minutes", type=float, default=8.0, help="processor minutes of each training loop")
    parser.add_argument("--block", type=int, default=128, choices=(32, 128), help="the Trainer's max_seq_length")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 2e-3, 5e-4], help="of the Trainer")
    parser.add_argument("--only", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.only:
        found = {"minutes": options.minutes, "block": options.block, **contestant(options)}
        (options.out / f"{options.only}.json").write_text(json.dumps(found))
        return
    for kind in ("float32", "bfloat16"):
        result(options, f"trial-{kind}")
    kind, step_seconds = fastest(options)
    stock = result(options, f"trial-{kind}-stock-malloc")["step_seconds"]
    print(f"Trainer, ms a step: {kind} {1e3 * step_seconds:.0f}; with the system's malloc settings {1e3 * stock:.0f}")
    print(f"{'':44}{'tokens per':>8}   held-out loss, unigram, accuracy")
    print(f"{'':16}{'minutes':>8}{'steps':>8}{'M tokens':>10}{'second':>10}{'windows':>13}{'pairs':>25}")
    rows = {}
    for name in ("lambert", *(f"trainer-{rate:g}" for rate in options.rates)):
        rows[name] = result(options, name)
        show(name, rows[name])
    best = min((name for name in rows if name != "lambert"), key=lambda name: rows[name]["windows"]["loss"])
    speeds = {"kind": kind, "step_seconds": step_seconds, "stock_malloc_step_seconds": stock}
    print(json.dumps({"benchmark": "against_trainer", "best_trainer": best, "trainer": speeds, "rows": rows}))


if __name__ == "__main__":
    main()
