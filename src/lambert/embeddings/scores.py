"""Scores of sentence vectors by the evaluators of sentence-transformers, beside random weights and words alone.

All are times 100.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from lambert.embeddings.examples import Scored, Similarities
from lambert.embeddings.library import check_installed, library_model, plain_folder, quiet
from lambert.embeddings.vectors import MOST, SentenceEncoderModel
from lambert.embeddings.words import Bm25, shared_words
from lambert.errors import UserError, unknown_name
from lambert.model.huggingface import model_folder
from lambert.training.distributed.process_group import init_process_group

log = logging.getLogger("lambert")
Metrics = Mapping[str, float]

RETRIEVAL = {
    "recall_at_1": "recall@1",
    "recall_at_10": "recall@10",
    "mrr_at_10": "mrr@10",
    "ndcg_at_10": "ndcg@10",
}
SIMILARITY = {"spearman": "spearman_cosine", "pearson": "pearson_cosine"}
NANO_BEIR = "sentence-transformers/NanoBEIR-en"
_HITS = 100
_AT: dict[str, Any] = {
    "precision_recall_at_k": [1, 10], "mrr_at_k": [10], "ndcg_at_k": [10], "accuracy_at_k": [1], "map_at_k": [_HITS],
}  # fmt: skip


@dataclass(frozen=True)
class EmbeddingScores:
    """How well vectors find texts, or agree with people; metric → value, 0 to 100 (correlations −100 to 100)."""

    task: str
    """`retrieval`, `similarity`, or the name of a dataset of NanoBEIR."""
    about: str
    model: Metrics
    random_weights: Metrics | None
    """The same size and vocabulary without training; None where it was not asked for."""
    words: Metrics
    """Without a model: BM25, or for similarity the fraction of shared words."""

    def lines(self) -> Iterator[str]:
        """A table for people."""
        names = list(self.model)
        yield f"{self.task}: {self.about}"
        yield f"  {'':<16}" + "".join(f"{name.replace('_at_', '@'):>11}" for name in names)
        baseline = "shared words" if self.task == "similarity" else "BM25"
        for name, metrics in (("model", self.model), ("random weights", self.random_weights), (baseline, self.words)):
            if metrics is not None:
                yield f"  {name:<16}" + "".join(
                    f"{metrics[one]:>11.2f}" if one in metrics else " " * 11 for one in names
                )

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def evaluator_of(scored: Scored, batch_size: int) -> Any:
    """The evaluator of sentence-transformers for these examples."""
    from sentence_transformers.sentence_transformer.evaluation import (
        EmbeddingSimilarityEvaluator,
        InformationRetrievalEvaluator,
    )
    from sentence_transformers.util import cos_sim

    how: dict[str, Any] = {"batch_size": batch_size, "write_csv": False, "show_progress_bar": False}
    if isinstance(scored, Similarities):
        first, second = zip(*scored.pairs, strict=True)
        return EmbeddingSimilarityEvaluator(
            list(first), list(second), list(scored.scores), main_similarity="cosine", **how
        )
    passages = {text: f"p{place:08}" for place, text in enumerate(dict.fromkeys(text for _, text in scored.pairs))}
    queries = {text: f"q{place:08}" for place, text in enumerate(dict.fromkeys(text for text, _ in scored.pairs))}
    relevant: dict[str, set[str]] = {name: set() for name in queries.values()}
    for query, passage in scored.pairs:
        relevant[queries[query]].add(passages[passage])
    of_queries: dict[str, Any] = {name: text for text, name in queries.items()}
    of_passages: dict[str, Any] = {name: text for text, name in passages.items()}
    how |= {"score_functions": {"cosine": cos_sim}, **_AT}
    return InformationRetrievalEvaluator(of_queries, of_passages, relevant, **how)


def model_metrics(evaluator: Any, library: Any) -> Metrics:
    """The metrics of a model of sentence-transformers."""
    found = evaluator(library)
    prefix = f"{evaluator.name}_" if evaluator.name else ""
    if f"{prefix}cosine_{RETRIEVAL['ndcg_at_10']}" in found:
        return {name: 100 * float(found[f"{prefix}cosine_{theirs}"]) for name, theirs in RETRIEVAL.items()}
    return {name: 100 * float(found[f"{prefix}{theirs}"]) for name, theirs in SIMILARITY.items()}


def word_metrics(evaluator: Any) -> Metrics:
    """The metrics of BM25 by the same evaluator, or of shared words."""
    if hasattr(evaluator, "sentences1"):
        from scipy import stats

        overlaps = [shared_words(*pair) for pair in zip(evaluator.sentences1, evaluator.sentences2, strict=True)]
        if len(set(overlaps)) < 2:
            return dict.fromkeys(SIMILARITY, 0.0)
        return {
            "spearman": 100 * float(stats.spearmanr(overlaps, evaluator.scores).statistic),
            "pearson": 100 * float(stats.pearsonr(overlaps, evaluator.scores).statistic),
        }
    index = Bm25(evaluator.corpus)
    hits = [
        [{"corpus_id": evaluator.corpus_ids[place], "score": score} for place, score in index.best(query, _HITS)]
        for query in evaluator.queries
    ]
    found = evaluator.compute_metrics(hits)
    split = {name: theirs.split("@") for name, theirs in RETRIEVAL.items()}
    return {name: 100 * float(found[f"{kind}@k"][int(at)]) for name, (kind, at) in split.items()}


def nano_beir_evaluators(names: Sequence[str]) -> dict[str, Any]:
    """The evaluators of NanoBEIR's datasets, fetched from the Hub; `all` stands for all of them.

    Raises:
        UserError: a name is unknown, or they cannot be fetched.
    """
    from sentence_transformers.sentence_transformer.evaluation import NanoBEIREvaluator, nano_beir
    from sentence_transformers.util import cos_sim

    known = nano_beir.DATASET_NAME_TO_HUMAN_READABLE
    for name in names:
        if name.lower() not in (*known, "all"):
            raise unknown_name("dataset of NanoBEIR", name, (*known, "all"))
    chosen = list(known) if "all" in names else [name.lower() for name in names]
    try:
        found = NanoBEIREvaluator(
            chosen, dataset_id=NANO_BEIR, write_csv=False, score_functions={"cosine": cos_sim}, **_AT
        )
    except (ValueError, OSError) as error:
        why = " ".join(str(error.__cause__ or error).split())[:160]
        raise UserError(
            f"NanoBEIR ({NANO_BEIR}) cannot be fetched from the Hub ({why})",
            remedy="Connect to the network once, or give pairs of your own as `dev`",
        ) from None
    return dict(zip(chosen, found.evaluators, strict=True))


def evaluate_embeddings(
    model: str | Path,
    scored: Scored | None = None,
    *,
    nano_beir: Sequence[str] = (),
    pooling: str | None = None,
    sequence_length: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    cased: bool = False,
    device: torch.device | None = None,
) -> list[EmbeddingScores]:
    """Scores of a model's vectors, beside those of random weights and of words alone::

        lambert.evaluate_embeddings("runs/mine", read_scored("pairs.jsonl"))[0].model["ndcg_at_10"]

    Args:
        model: a run, a Hugging Face folder, or one of sentence-transformers.
        scored: pairs of your own, or pairs with similarities.
        nano_beir: names of NanoBEIR's datasets, or `all`.
        pooling, sequence_length, batch_size, cased, device: as in `embed`.
        seed: of the random weights.

    Raises:
        UserError: the model cannot be read, the extra `embed` is missing, or a dataset cannot be fetched.
    """
    if scored is None and not nano_beir:
        raise UserError("nothing to score by", remedy="Give pairs as `dev`, or names of datasets as `nano_beir`")
    for argument, value, least in (("batch_size", batch_size, 1), ("seed", seed, 0)):
        if not least <= value <= MOST:
            raise UserError(f"`{argument}` = {value}", remedy=f"Give a whole number from {least} to {MOST:,}")
    check_installed()
    opened = SentenceEncoderModel.open(Path(model), pooling=pooling, sequence_length=sequence_length, cased=cased)
    tasks: list[tuple[str, str, Any]] = []
    with quiet():
        if scored is not None:
            kind = "similarity" if isinstance(scored, Similarities) else "retrieval"
            evaluator = evaluator_of(scored, batch_size)
            tasks.append((kind, _about(scored, evaluator), evaluator))
        for name, found in (nano_beir_evaluators(nano_beir) if nano_beir else {}).items():
            about = f"{len(found.queries):,} queries, {len(found.corpus):,} passages"
            tasks.append((f"NanoBEIR {name}", about, found))
        where = device or init_process_group().device
        evaluators = [evaluator for _, _, evaluator in tasks]
        own = _all_metrics(evaluators, Path(model), opened, where, None)
        random = _all_metrics(evaluators, Path(model), opened, where, seed)
    return [
        EmbeddingScores(task, about, mine, theirs, word_metrics(evaluator))
        for (task, about, evaluator), mine, theirs in zip(tasks, own, random, strict=True)
    ]


def _all_metrics(
    evaluators: Sequence[Any], path: Path, opened: SentenceEncoderModel, device: torch.device, seed: int | None
) -> list[Metrics]:
    positions = opened.module.config.maximum_positions
    with plain_folder(model_folder(path), opened.tokenizer, positions=positions, random_seed=seed) as plain:
        library = library_model(plain, opened, device)
        return [model_metrics(evaluator, library) for evaluator in evaluators]


def _about(scored: Scored, evaluator: Any) -> str:
    if isinstance(scored, Similarities):
        return f"{len(scored.pairs):,} pairs"
    return scored.about or f"{len(evaluator.queries):,} queries, {len(evaluator.corpus):,} passages"
