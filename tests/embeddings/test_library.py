"""Training and scoring by sentence-transformers, with oracles by hand."""

from __future__ import annotations

import json
import math
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.embeddings.models import TEXTS, write_model

import lambert
from lambert.cli.main import main
from lambert.embeddings import contrastive
from lambert.embeddings.examples import Pairs, Similarities
from lambert.embeddings.scores import evaluate_embeddings
from lambert.errors import UserError

sentence_transformers = pytest.importorskip("sentence_transformers", reason="needs sentence-transformers")

WORDS = ["the", "old", "clerk", "opened", "garden", "in", "june", "july", "and", "closed", "again"]
PAIRS = [
    (
        f"{WORDS[n % 11]} {WORDS[n // 11 % 11]} {WORDS[(n * 7 + 3) % 11]}",
        f"{WORDS[n % 11]} {WORDS[(n * 5 + 1) % 11]} old",
    )
    for n in range(60)
]


def unit(folder: Path, texts: list[str]) -> np.ndarray:
    return lambert.embed(folder, texts, normalize=True).astype(np.float64)


def test_retrieval_scores_are_those_by_hand(folder: Path) -> None:
    scores = evaluate_embeddings(folder, Pairs(PAIRS), seed=1)[0]
    queries, passages = (list(dict.fromkeys(side)) for side in zip(*PAIRS, strict=True))
    cosines = unit(folder, queries) @ unit(folder, passages).T
    found: dict[str, list[float]] = {"recall_at_1": [], "recall_at_10": [], "mrr_at_10": [], "ndcg_at_10": []}
    for query, row in zip(queries, cosines, strict=True):
        relevant = {passages.index(passage) for asked, passage in PAIRS if asked == query}
        hits = [int(place in relevant) for place in np.argsort(-row)]
        found["recall_at_1"].append(hits[0] / len(relevant))
        found["recall_at_10"].append(sum(hits[:10]) / len(relevant))
        found["mrr_at_10"].append(next((1 / rank for rank, hit in enumerate(hits[:10], 1) if hit), 0))
        gain = sum(hit / math.log2(rank + 1) for rank, hit in enumerate(hits[:10], 1))
        found["ndcg_at_10"].append(gain / sum(1 / math.log2(rank + 2) for rank in range(min(10, len(relevant)))))
    assert dict(scores.model) == pytest.approx(
        {name: 100 * np.mean(values) for name, values in found.items()}, abs=0.01
    )
    assert scores.random_weights is not None and scores.random_weights != scores.model
    assert 0 < scores.words["recall_at_10"] <= 100


def test_similarity_scores_are_those_by_hand(folder: Path) -> None:
    similarities = [float(n * 7 % 13) for n in range(len(PAIRS))]
    scores = evaluate_embeddings(folder, Similarities(PAIRS, similarities))[0]
    first, second = (unit(folder, list(side)) for side in zip(*PAIRS, strict=True))
    from scipy import stats

    cosines = (first * second).sum(1)
    assert scores.model["pearson"] == pytest.approx(100 * stats.pearsonr(cosines, similarities).statistic, abs=0.01)
    assert scores.model["spearman"] == pytest.approx(100 * stats.spearmanr(cosines, similarities).statistic, abs=0.3)
    assert set(scores.words) == {"pearson", "spearman"}


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A model trained on pairs of which each shares a rare word, by the command line."""
    made = tmp_path_factory.mktemp("trained")
    rows = [{"query": first, "passage": second} for first, second in PAIRS * 2]
    (made / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["embed-train", str(folder), str(made / "pairs.jsonl"), "--out", str(made / "out"), "--epochs", "8"]
    more = ["--batch-size", "8", "--learning-rate", "3e-3", "--dev", str(made / "pairs.jsonl"), "--normalize"]
    with redirect_stdout(StringIO()) as said:
        assert main([*command, *more, "--json"]) == 0
    return made / "out", json.loads(said.getvalue().splitlines()[-1])


def test_training_on_pairs_finds_more_of_them(trained: tuple[Path, dict[str, Any]]) -> None:
    _, result = trained
    assert result["loss"] == "MultipleNegativesRankingLoss"
    assert (result["examples"], result["left_out"]) == (60, 60)
    assert result["after"]["ndcg_at_10"] > result["before"]["ndcg_at_10"] + 10
    assert result["scored_by"] == "120 given pairs"


def test_the_trained_folder_opens_everywhere(trained: tuple[Path, dict[str, Any]], folder: Path) -> None:
    out, _ = trained
    library = sentence_transformers.SentenceTransformer(str(out), device="cpu")
    wanted = library.encode([*TEXTS, ""])
    np.testing.assert_allclose(np.linalg.norm(wanted, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(lambert.embed(out, [*TEXTS, ""]), wanted, atol=2e-5)
    assert library.max_seq_length == 64
    assert np.abs(lambert.embed(folder, TEXTS, normalize=True) - wanted[:-1]).max() > 0.05
    ours, theirs = (json.loads((each / "config.json").read_text()) for each in (folder, out))
    for name in ("hidden_dropout_prob", "mlp_dropout", "attention_probs_dropout_prob"):
        assert ours.get(name) == theirs.get(name)  # the dropout of training is not left behind


def test_simcse_spreads_texts_and_a_seed_decides_it(folder: Path, tmp_path: Path) -> None:
    texts = [first for first, _ in PAIRS] + ["", PAIRS[0][0]]
    how = {"epochs": 4, "batch_size": 16, "learning_rate": 2e-3}
    one = lambert.train_embeddings(folder, texts, out=tmp_path / "one", **how)
    lambert.train_embeddings(folder, texts, out=tmp_path / "same", **how)
    lambert.train_embeddings(folder, texts, out=tmp_path / "other", seed=1, **how)
    kept = list(dict.fromkeys(text for text in texts if text))
    assert (one.loss, one.examples, one.left_out) == ("SimCSE", len(kept), len(texts) - len(kept))
    first, same, other = (lambert.embed(tmp_path / name, kept) for name in ("one", "same", "other"))
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 1e-4

    def mean_cosine(model: Path) -> float:
        vectors = unit(model, kept)
        return float((vectors @ vectors.T).mean())

    assert mean_cosine(tmp_path / "one") < mean_cosine(folder) - 0.05
    assert one.before is None  # three words have no halves


def test_held_out_halves_score_texts(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = [f"{first} {second} {' '.join(WORDS[n % 7 : n % 7 + 3])}" for n, (first, second) in enumerate(PAIRS)]
    result = lambert.train_embeddings(folder, texts, out=tmp_path / "out")
    assert result.scored_by is not None and "second half" in result.scored_by
    assert "Only 6 pairs are held out" in caplog.text
    assert result.examples == 54
    assert result.before is not None and result.after is not None and set(result.before) == set(result.after)


@pytest.mark.parametrize(("data", "options", "what"), [
    (["june"], {}, "1 different texts"),
    (["june", "june", " "], {}, "1 different texts"),
    ([("a", "b"), ("a", "")], {}, "1 different texts or pairs"),
    (["june", "july"], {"batch_size": 1}, "batch_size"),
    (["june", "july"], {"temperature": 0.0}, "temperature"),
    (["june", "july"], {"dropout": 1.0}, "dropout"),
    (["june", "july"], {"learning_rate": math.nan}, "learning_rate"),
    (PAIRS, {"learning_rate": 1e30, "epochs": 3, "batch_size": 8}, "NaN or infinite"),
])  # fmt: skip
def test_what_cannot_be_trained_is_said(folder: Path, tmp_path: Path, data: Any, options: Any, what: str) -> None:
    with pytest.raises(UserError, match=what):
        lambert.train_embeddings(folder, data, out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="exists already"):
        lambert.train_embeddings(folder, PAIRS, out=tmp_path)


def test_nano_beir_is_scored_by_its_own_evaluator(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`datasets.load_dataset` is the stand-in: it gives local tables of the Hub's form."""
    import datasets

    asked = []

    def load_dataset(name: str, subset: str, *, split: str) -> Any:
        asked.append((name, subset, split))
        texts = {"corpus": [text for _, text in PAIRS[:20]], "queries": [text for text, _ in PAIRS[:20]]}
        ids = [f"{n}" for n in range(20)]
        if subset in texts:
            return datasets.Dataset.from_dict({"_id": ids, "text": texts[subset]})
        return datasets.Dataset.from_dict({"query-id": ids, "corpus-id": ids})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert main(["embed-eval", str(folder), "--nano-beir", "scifact", "NQ", "--json"]) == 0
    said = capsys.readouterr().out.splitlines()
    scores = json.loads(said[-1])["scores"]
    assert [one["task"] for one in scores] == ["NanoBEIR scifact", "NanoBEIR nq"]
    assert scores[0]["about"] == "20 queries, 20 passages"
    for kind in ("model", "random_weights", "words"):
        assert set(scores[0][kind]) == {"recall_at_1", "recall_at_10", "mrr_at_10", "ndcg_at_10"}
    assert ("sentence-transformers/NanoBEIR-en", "corpus", "NanoSciFact") in asked


def test_nano_beir_without_a_network_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed-eval", str(folder), "--nano-beir", "scifact"]) == 2  # the tests are offline
    assert "cannot be fetched from the Hub" in capsys.readouterr().err
    assert main(["embed-eval", str(folder), "--nano-beir", "scifacts"]) == 2
    assert "Did you mean 'scifact'" in capsys.readouterr().err


def test_a_folder_that_has_only_a_cased_vocabulary_list(tmp_path: Path) -> None:
    """The library would read it as uncased; lambert writes the tokenizer as it reads it."""
    model = write_model(tmp_path / "model", "bert")
    (model / "tokenizer.json").unlink()
    (model / "tokenizer_config.json").unlink()
    scores = evaluate_embeddings(model, Pairs(PAIRS))[0]
    assert scores.model["recall_at_10"] > 0


def test_the_default_rate_and_the_mean_cosine_by_hand(folder: Path, tmp_path: Path) -> None:
    texts = [first for first, _ in PAIRS[:40]]
    result = lambert.train_embeddings(folder, texts, out=tmp_path / "out", batch_size=16)
    assert result.settings.learning_rate == 1e-4
    for model, found in ((folder, result.mean_cosine_before), (tmp_path / "out", result.mean_cosine_after)):
        vectors = unit(model, list(dict.fromkeys(texts)))
        pairs = [float(a @ b) for n, a in enumerate(vectors) for b in vectors[:n]]
        assert found == pytest.approx(sum(pairs) / len(pairs), abs=1e-5)
    assert contrastive.default_learning_rate(768) == 3e-5


def test_vectors_that_become_equal_are_a_warning_and_a_lower_rate_helps(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_model(tmp_path / "model", "bert")  # ModernBERT's vectors become random ones
    texts = [first for first, _ in PAIRS]
    how = {"epochs": 4, "batch_size": 16}
    equal = lambert.train_embeddings(folder, texts, out=tmp_path / "equal", learning_rate=0.5, **how)
    assert equal.mean_cosine_after > 0.95
    assert "are nearly equal now" in caplog.text and "lower the `learning_rate`" in caplog.text
    caplog.clear()
    told_apart = lambert.train_embeddings(folder, texts, out=tmp_path / "apart", learning_rate=1e-3, **how)
    assert told_apart.mean_cosine_after < told_apart.mean_cosine_before and not caplog.text


def test_a_rate_is_chosen_on_pairs_that_its_trials_did_not_see(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[set[Any]] = []
    run_trainer = contrastive.run_trainer

    def watched(library: Any, data: Any, settings: Any, device: Any, progress: Any) -> tuple[int, float]:
        seen.append(set(data))
        return run_trainer(library, data, settings, device, progress)

    monkeypatch.setattr(contrastive, "run_trainer", watched)
    pairs = list(dict.fromkeys(PAIRS))
    rates: dict[str, Any] = {"learning_rates": (1e-6, 3e-3), "epochs": 8, "batch_size": 8}
    chosen = lambert.train_embeddings(folder, pairs, out=tmp_path / "chosen", dev=Pairs(pairs), **rates)
    assert [one.learning_rate for one in chosen.trials] == [1e-6, 3e-3]
    scores = [one.score or 0.0 for one in chosen.trials]
    assert chosen.settings.learning_rate == 3e-3 and scores[1] > scores[0]
    assert seen[0] == seen[1] < seen[2] == set(pairs)  # the chosen one trains on all
    given = lambert.train_embeddings(
        folder, pairs, out=tmp_path / "given", dev=Pairs(pairs), learning_rate=3e-3, epochs=8, batch_size=8
    )
    assert given.after == chosen.after and given.trials == []
    for number, (wrong, what) in enumerate(
        (
            ({"learning_rates": (1e-4, 1e-4)}, "each once"),
            ({"learning_rates": (0.0,)}, "above 0"),
            ({"learning_rates": (1e-4,), "learning_rate": 1e-4}, "both"),
        )
    ):
        with pytest.raises(UserError, match=what):
            lambert.train_embeddings(folder, pairs, out=tmp_path / f"wrong{number}", **wrong)
    with pytest.raises(UserError, match="too few to choose"):
        lambert.train_embeddings(folder, pairs[:8], out=tmp_path / "few", dev=Pairs(pairs), learning_rates=(1e-4, 1e-3))
