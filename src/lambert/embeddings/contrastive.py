"""Contrastive training of sentence vectors by sentence-transformers: SimCSE on texts, in-batch negatives on pairs."""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lambert.embeddings.advice import advice, mean_cosine
from lambert.embeddings.examples import Pair, Scored, held_out, without_duplicates
from lambert.embeddings.learning_rates import RateTrial, check_rates, with_best_rate
from lambert.embeddings.library import check_installed, library_model, plain_folder, quiet, save_for_library
from lambert.embeddings.scores import Metrics, evaluator_of, model_metrics, word_metrics
from lambert.embeddings.vectors import MOST, SentenceEncoderModel, embedded
from lambert.errors import UserError
from lambert.finetune.loop import Diverged
from lambert.finetune.settings import FineTuneProgress
from lambert.model.huggingface import model_folder
from lambert.model.weight_files import weight_files
from lambert.training.distributed.process_group import init_process_group
from lambert.utils.io import atomic_folder, check_room_for, refuse_existing

log = logging.getLogger("lambert")
SIMCSE, PAIRS = "SimCSE", "MultipleNegativesRankingLoss"
_DROPOUTS = {
    "bert": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "modernbert": ("embedding_dropout", "attention_dropout", "mlp_dropout"),
}
"""Settings of `transformers`' configuration."""
_CHECKED_TEXTS, _TOLERANCE = 16, 1e-3
_FEW_PAIRS = 50


@dataclass(frozen=True, kw_only=True)
class ContrastiveSettings:
    """How vectors are trained."""

    epochs: int = 1
    batch_size: int = 64
    """Texts or pairs of a step; all others of the batch are negatives of each."""
    learning_rate: float | None = None
    """Peak of AdamW; None takes `default_learning_rate`."""
    warmup_ratio: float = 0.1
    temperature: float = 0.05
    """What cosines are divided by."""
    dropout: float = 0.1
    """While training: in SimCSE it makes the two vectors of a text."""
    sequence_length: int = 128
    """Longest text in tokens, and where the trained folder truncates; at most the model's positions."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 2), ("sequence_length", 3), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or not least <= value <= MOST:
                raise UserError(f"`{name}` = {value}", remedy=f"Give a whole number from {least} to {MOST:,}")
        for name, value in (("learning_rate", self.learning_rate), ("temperature", self.temperature)):
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"`{name}` = {value}", remedy="Give a number above 0")
        if not 0 <= self.dropout < 1:
            raise UserError(f"`dropout` = {self.dropout}", remedy="Give a probability from 0 to below 1")
        if not 0 <= self.warmup_ratio <= 1:
            raise UserError(f"`warmup_ratio` = {self.warmup_ratio}", remedy="Give a fraction from 0 to 1")


@dataclass(frozen=True)
class ContrastiveResult:
    """What a training did, with scores before and after."""

    folder: str
    loss: str
    """`SimCSE` on texts, `MultipleNegativesRankingLoss` on pairs."""
    examples: int
    """Texts or pairs trained on, each once."""
    left_out: int
    """Duplicates and empty ones."""
    steps: int
    train_loss: float
    seconds: float
    scored_by: str | None
    """What the scores are of; None where there was too little to hold out."""
    before: Metrics | None
    after: Metrics | None
    words: Metrics | None
    """BM25, or for similarity the fraction of shared words."""
    mean_cosine_before: float
    mean_cosine_after: float
    """Of different texts: near 1, all vectors point one way."""
    settings: ContrastiveSettings
    """With the learning rate and the length that were used."""
    trials: list[RateTrial]
    """Of `learning_rates`, in the order given."""

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def train_embeddings(
    model: str | Path,
    data: Sequence[str] | Sequence[Pair],
    *,
    out: str | Path,
    dev: Scored | None = None,
    pooling: str | None = None,
    normalize: bool | None = None,
    cased: bool = False,
    device: torch.device | None = None,
    progress: Callable[[FineTuneProgress], None] | None = None,
    learning_rates: Sequence[float] = (),
    **options: Any,
) -> ContrastiveResult:
    """Train a model's sentence vectors on texts or pairs, and write a folder that `SentenceTransformer` opens::

        lambert.train_embeddings("runs/mine", texts, out="vectors-of-mine").after

    Args:
        model: a run, a Hugging Face folder, or one of sentence-transformers.
        data: texts (unsupervised SimCSE, Gao et al. 2021, arXiv 2104.08821: each text twice through dropout), or pairs
            of texts that belong together.
        out: the new folder.
        dev: what scores before and after are of; None holds out a tenth of `data`.
        pooling, normalize, cased, device: as in `embed`.
        progress: called after every step.
        learning_rates: peaks to choose from, on a tenth that is held out of what is trained on.
        options: fields of `ContrastiveSettings`.

    Raises:
        UserError: the model cannot be read, the extra `embed` is missing, there is too little data, or `out` exists;
            `Diverged` where a weight became NaN.
    """
    settings, out = ContrastiveSettings(**options), Path(out)
    check_rates(learning_rates, settings.learning_rate)
    folder = _checked(Path(model), out)
    kept, dev, left_out = _parted(data, dev)
    check_installed()
    opened = SentenceEncoderModel.open(folder, pooling=pooling, normalize=normalize, cased=cased)
    positions = opened.module.config.maximum_positions
    opened = replace(opened, sequence_length=min(settings.sequence_length, positions))
    rate = settings.learning_rate or default_learning_rate(opened.module.config.hidden_size)
    settings = replace(settings, learning_rate=rate, sequence_length=opened.sequence_length)
    where = device or init_process_group().device
    # the library's seeds are the process's: PyTorch's generator is as before afterwards
    with quiet(), torch.random.fork_rng(), plain_folder(folder, opened.tokenizer, positions=positions) as plain:
        fresh = partial(library_model, plain, opened, where, **_dropout(plain, opened, settings.dropout))
        train = partial(run_trainer, device=where, progress=progress)
        settings, trials = with_best_rate(learning_rates, kept, settings, fresh, train)
        library = fresh()
        evaluator, texts = dev and evaluator_of(dev, settings.batch_size), _first_texts(kept)
        before, cosine_before = _measured(library, evaluator, texts)
        began = time.monotonic()
        steps, train_loss = train(library, kept, settings)
        seconds = time.monotonic() - began
        after, cosine_after = _measured(library, evaluator, texts)
        _write(library, opened, plain, out, texts[:_CHECKED_TEXTS])
        result = ContrastiveResult(
            folder=str(out),
            loss=SIMCSE if isinstance(kept[0], str) else PAIRS,
            examples=len(kept),
            left_out=left_out,
            steps=steps,
            train_loss=train_loss,
            seconds=seconds,
            scored_by=_about(dev),
            before=before,
            after=after,
            words=None if evaluator is None else word_metrics(evaluator),
            mean_cosine_before=cosine_before,
            mean_cosine_after=cosine_after,
            settings=settings,
            trials=trials,
        )
    for warning in advice(folder, result):
        log.warning(warning)
    return result


def _checked(model: Path, out: Path) -> Path:
    """The folder of the model, when `out` can be written."""
    refuse_existing(out)
    folder = model_folder(model)
    check_room_for(out, sum(file.stat().st_size for file in weight_files(folder)), what="the trained model")
    return folder


def _parted(
    data: Sequence[str] | Sequence[Pair], dev: Scored | None
) -> tuple[list[str] | list[Pair], Scored | None, int]:
    """What is trained on, what is scored, and how many were left out."""
    kept = without_duplicates(data)
    left_out = len(data) - len(kept)
    if dev is None:
        kept, dev = held_out(kept)
        if dev is not None and len(dev.pairs) < _FEW_PAIRS:
            log.warning(
                f"Only {len(dev.pairs)} pairs are held out to score by, which says little. Give more, or `dev`."
            )
    if len(kept) < 2:
        raise UserError(
            f"{len(kept)} different texts or pairs to train on", remedy="Give more: each is told apart from the others"
        )
    return kept, dev, left_out


def _first_texts(data: Sequence[str] | Sequence[Pair]) -> list[str]:
    return [one if isinstance(one, str) else one[0] for one in data]


def _about(dev: Scored | None) -> str | None:
    """What scores are of."""
    return None if dev is None else getattr(dev, "about", "") or f"{len(dev.pairs):,} given pairs"


def _measured(library: Any, evaluator: Any, texts: Sequence[str]) -> tuple[Metrics | None, float]:
    return None if evaluator is None else model_metrics(evaluator, library), mean_cosine(library, texts)


def default_learning_rate(hidden_size: int) -> float:
    """The peak for a model of this width: 3e-5 from 768 on (Gao et al. 2021), below 1e-4 (docs/embeddings.md)."""
    return 3e-5 if hidden_size >= 768 else 1e-4


def _dropout(plain: Path, opened: SentenceEncoderModel, dropout: float) -> Mapping[str, float]:
    from transformers import AutoConfig

    return dict.fromkeys(_DROPOUTS[AutoConfig.from_pretrained(plain).model_type], dropout)


def run_trainer(
    library: Any,
    data: Sequence[str] | Sequence[Pair],
    settings: ContrastiveSettings,
    device: torch.device,
    progress: Callable[[FineTuneProgress], None] | None,
) -> tuple[int, float]:
    """Train in place; the steps and the mean loss.

    Raises:
        Diverged: a weight or the loss is NaN or infinite.
    """
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers import PrinterCallback

    pairs = [(one, one) if isinstance(one, str) else one for one in data]
    first, second = zip(*pairs, strict=True)
    dataset = Dataset.from_dict({"anchor": list(first), "positive": list(second)})
    loss = MultipleNegativesRankingLoss(library, scale=1 / settings.temperature)
    batch_size = min(settings.batch_size, len(pairs))
    steps = settings.epochs * math.ceil(len(pairs) / batch_size)
    assert settings.learning_rate is not None
    with tempfile.TemporaryDirectory(prefix="lambert-embed-") as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=batch_size,
            learning_rate=settings.learning_rate,
            warmup_steps=round(settings.warmup_ratio * steps),
            weight_decay=0.01,
            lr_scheduler_type="linear",
            batch_sampler="no_duplicates",  # of two equal texts none is a negative of the other
            seed=settings.seed,
            use_cpu=device.type == "cpu",
            dataloader_pin_memory=device.type != "cpu",
            save_strategy="no",
            report_to="none",
            logging_steps=max(1, steps // 50),
            disable_tqdm=True,
        )
        trainer = SentenceTransformerTrainer(model=library, args=arguments, train_dataset=dataset, loss=loss)
        trainer.remove_callback(PrinterCallback)
        if progress is not None:
            trainer.add_callback(_callback(progress, settings.seed))
        done = trainer.train()
    if not (math.isfinite(done.training_loss) and all(p.isfinite().all() for p in library.parameters())):
        raise Diverged(
            f"the loss or a weight became NaN or infinite (learning rate {settings.learning_rate:.3g})",
            remedy="Lower the `learning_rate`",
        )
    return int(done.global_step), float(done.training_loss)


def _callback(progress: Callable[[FineTuneProgress], None], seed: int) -> Any:
    from transformers import TrainerCallback

    class Show(TrainerCallback):  # type: ignore[misc, unused-ignore]
        """Tells `progress` of every step, with the last loss that was logged."""

        began = time.monotonic()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
            here = FineTuneProgress(seed, "training", state.global_step, state.max_steps, time.monotonic() - self.began)
            progress(replace(here, loss=losses[-1] if losses else None))

    return Show()


def _write(library: Any, opened: SentenceEncoderModel, plain: Path, out: Path, texts: Sequence[str]) -> None:
    """Write the trained folder, and check that lambert reads from it what the library has in memory.

    Raises:
        UserError: it cannot be written, or what is read differs.
    """
    from transformers import AutoConfig

    library.eval()
    encoder, original = library[0].auto_model, AutoConfig.from_pretrained(plain)
    for name in _DROPOUTS[original.model_type]:
        setattr(encoder.config, name, getattr(original, name))
    expected = library.encode(list(texts), show_progress_bar=False)
    with atomic_folder(out) as aside:
        save_for_library(encoder, opened, aside)
        found = embedded(SentenceEncoderModel.open(aside), texts, quiet=True).vectors
        error = float(np.abs(found - expected).max() / max(1.0, float(np.abs(expected).max())))
        if not error <= _TOLERANCE:
            raise UserError(
                f"the trained folder gives other vectors than the model in memory (by {error:.2g})",
                remedy="Use other versions of transformers and sentence-transformers",
            )
