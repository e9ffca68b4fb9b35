"""Folders from elsewhere, read, written and continued: the same ids and logits in `transformers`, or refused by name.

`python -m tests.model.round_trips` prints what became of each.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tests.model.foreign_folders import CONFIG, ENTRIES, EQUAL, LINES, REFUSED, Make, folder
from tokenizers import Tokenizer
from torch import Tensor

import lambert
from lambert.api.models import open_model
from lambert.errors import UserError
from lambert.model.heads import BertForPreTraining
from lambert.training.checkpoint.export import write_model

# Without an MLM head, which a run starts at random; and with a vocabulary that grows.
CONTINUED: dict[str, Make] = {
    "encoder only": lambda path: folder(path, model="BertModel"),
    "a classifier": lambda path: folder(path, model="BertForSequenceClassification"),
    "answers": lambda path: folder(path, model="BertForQuestionAnswering"),
    "tags": lambda path: folder(path, model="BertForTokenClassification"),
    "grown": folder,
    "grown into its padding": lambda path: folder(path, rows=128),
    "grown, untied": lambda path: folder(path, tie_word_embeddings=False),
}
NEW = ("schön", "##ön")
STEP: dict[str, Any] = {
    "batch_size": 8, "samples": 8, "sequence_lengths": 16, "learning_rate": 1e-12, "probe_seconds": 0,
    "evaluation_samples": 0, "optimizer": "adamw", "precision": "float32", "micro_batch_size": 8,
}  # fmt: skip


def opened_by_transformers(path: Path) -> tuple[Any, Any]:
    """Model and tokenizer; of BERT's classes where the folder does not say its type."""
    typed = "model_type" in json.loads((path / CONFIG).read_text())
    model = transformers.AutoModelForPreTraining if typed else transformers.BertForPreTraining
    tokenizer = transformers.AutoTokenizer if typed else transformers.BertTokenizer
    return model.from_pretrained(path, dtype=torch.float32).eval(), tokenizer.from_pretrained(path)


@torch.no_grad()
def logits_of_transformers(model: Any, ids: Tensor, segments: Tensor) -> Tensor:
    """[tokens, vocabulary] of one row."""
    if model.config.type_vocab_size == 1:
        segments = torch.zeros_like(segments)
    words: Tensor = model(input_ids=ids, token_type_ids=segments).prediction_logits[0]
    return words


def assert_equal(ours: BertForPreTraining, tokenizer: Tokenizer, path: Path) -> None:
    """Ids, segments, logits and the tie of what transformers opens are ours."""
    theirs, their_tokenizer = opened_by_transformers(path)
    for first, second in zip(LINES, LINES[1:] + LINES[:1], strict=True):
        found, encoding = their_tokenizer(first, second), tokenizer.encode(first, second)
        assert encoding.ids == found["input_ids"], (encoding.tokens, first)
        ids, segments = torch.tensor([encoding.ids])[:, :32], torch.tensor([encoding.type_ids])[:, :32]
        with torch.no_grad():
            words, _ = ours.eval()(ids, segments, None, torch.arange(ids.shape[1]))
        torch.testing.assert_close(words, logits_of_transformers(theirs, ids, segments), rtol=1e-4, atol=1e-4)
    tied = theirs.get_input_embeddings().weight is theirs.get_output_embeddings().weight
    assert tied == ours.config.tied_decoder


def exported(make: Make, work: Path) -> None:
    """Read, written and read again."""
    path = make(work / "foreign")
    ours, tokenizer = open_model(path)
    assert_equal(ours, tokenizer, path)
    write_model(ours, tokenizer, work / "written")
    again, again_tokenizer = open_model(work / "written")
    assert_equal(again, again_tokenizer, work / "written")
    assert again.config == ours.config
    expected, found = (transformers.BertConfig.from_pretrained(one) for one in (path, work / "written"))
    assert found.classifier_dropout == expected.classifier_dropout


def continued(name: str, work: Path) -> None:
    """A run of one step at a rate near 0 ends with the model and the tokenizer that it started from."""
    path = {**EQUAL, **CONTINUED, **{name: make for name, (make, _) in REFUSED.items()}}[name](work / "foreign")
    vocabulary = grown_vocabulary(path) if name.startswith("grown") else path
    (work / "text.txt").write_text("der mann möchte the mann\nthe der mochte covid\n\n" * 40)
    corpus = lambert.build_corpus([work / "text.txt"], work / "corpus", vocab=vocabulary, validation_fraction=0)
    length = min(16, json.loads((path / CONFIG).read_text())["max_position_embeddings"])
    out = lambert.pretrain(corpus, out=work / "run", init_from=path, **{**STEP, "sequence_lengths": length}).out
    ours, tokenizer = open_model(out)
    assert_equal(ours, tokenizer, Path(out) / "huggingface")
    theirs, their_tokenizer = opened_by_transformers(path)
    ids = torch.tensor([tokenizer.encode(line).ids[:12] for line in ("der mann möchte the mann mochte der mann",)])
    if name not in CONTINUED:
        assert ids[0].tolist() == their_tokenizer("der mann möchte the mann mochte der mann")["input_ids"][:12]
    segments = torch.zeros_like(ids)
    with torch.no_grad():
        hidden = ours.encoder(ids, segments, None)
        torch.testing.assert_close(hidden, theirs.bert(ids, token_type_ids=segments)[0], rtol=1e-4, atol=1e-4)
        if name not in CONTINUED or name.startswith("grown"):
            words, _ = ours(ids, segments, None, torch.arange(ids.shape[1]))
            expected = logits_of_transformers(theirs, ids, segments)
            torch.testing.assert_close(words[:, : len(ENTRIES)], expected[:, : len(ENTRIES)], rtol=1e-4, atol=1e-4)


def grown_vocabulary(path: Path) -> Path:
    """The folder's vocabulary with lines added at its end."""
    grown = path.with_name("grown")
    grown.mkdir()
    (grown / "vocab.txt").write_text((path / "vocab.txt").read_text() + "".join(f"{entry}\n" for entry in NEW))
    (grown / "tokenizer_config.json").write_text((path / "tokenizer_config.json").read_text())
    return grown


def _outcome(trip: Callable[[Path], object]) -> str:
    with tempfile.TemporaryDirectory() as work:
        try:
            trip(Path(work))
        except UserError as error:
            return f"refused: {str(error).replace(work, '')[:110]}"
        except Exception as error:
            return f"WRONG: {type(error).__name__}: {' '.join(str(error).split())[:110]}"
    return "equal"


def main() -> None:
    """The table."""
    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    counts: dict[str, Counter[str]] = {"export": Counter(), "--init-from": Counter()}
    makes = {**EQUAL, **{name: make for name, (make, _) in REFUSED.items()}}
    for name in (*makes, *(name for name in CONTINUED if name not in makes)):
        found = {"--init-from": _outcome(lambda work, name=name: continued(name, work))}
        if name in makes:
            found["export"] = _outcome(lambda work, make=makes[name]: exported(make, work))
        for kind, outcome in found.items():
            counts[kind][outcome.partition(":")[0]] += 1
        print(f"{name:36} | {found.get('export', '-'):60} | {found['--init-from']}", flush=True)
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
