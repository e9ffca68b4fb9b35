"""Small models, corpora, texts and a run, made once, and training that stops where it would begin."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lambert.cli.main import main
from lambert.corpus.store import Corpus
from lambert.corpus.tokenizer_files import save_tokenizer
from lambert.corpus.vocabulary import train_vocabulary
from lambert.errors import UserError
from lambert.model.bert import BertConfig
from lambert.model.heads import BertForPreTraining
from lambert.model.huggingface import save_model

TEXT = "the old clerk opened the garden in june"


class Enough(UserError):
    """Raised where training would begin: what was asked for has been checked by then."""


@pytest.fixture
def stop_before_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def enough(*_: Any, **__: Any) -> None:
        raise Enough("enough", remedy="Go on")

    for where in (
        "training.metrics.throughput.peak_matmul_flops",
        "finetune.loop.launch_step",
        "planning.probe.probe_step",
        "embeddings.contrastive.run_trainer",
    ):
        monkeypatch.setattr(f"lambert.{where}", enough)
    monkeypatch.setattr(
        "lambert.api.training.reset_peak_memory", lambda _: None
    )  # collects garbage, for a third of a second


@pytest.fixture(scope="session")
def tiny_places(tmp_path_factory: pytest.TempPathFactory, small_corpus: Corpus) -> dict[str, str]:
    """Names → paths; nothing is at `new` and `made`."""
    folder = tmp_path_factory.mktemp("places")
    tokenizer = train_vocabulary([TEXT] * 3, 100, cased=False)
    sizes = {"layers": 1, "hidden_size": 32, "attention_heads": 2, "feed_forward_size": 64, "maximum_positions": 80}
    model = folder / "model"
    save_model(BertForPreTraining(BertConfig(vocabulary_size=tokenizer.get_vocab_size(), **sizes)), model)
    save_tokenizer(tokenizer, model)
    cased = folder / "cased"
    capitals = train_vocabulary([TEXT, TEXT.capitalize(), TEXT.title()] * 3, 100, cased=True)
    save_model(BertForPreTraining(BertConfig(vocabulary_size=capitals.get_vocab_size(), **sizes)), cased)
    entries = sorted(capitals.get_vocab(), key=capitals.get_vocab().__getitem__)
    (cased / "vocab.txt").write_text("\n".join(entries) + "\n")
    written = {
        "text": ("text.txt", (TEXT.capitalize() + ".\n\n") * 50),
        "list": ("list.json", json.dumps([{"text": TEXT}], indent=1)),
        "row": ("row.json", json.dumps([{"text": TEXT}]) + "\n"),
        "fields": ("fields.jsonl", f'{{"body": "{TEXT}.", "id": 3}}\n' * 50),
        "table": ("table.csv", f"body,id\n{TEXT}.,3\n" * 50),
        "labels": ("labels.csv", "text,label\n" + "".join(f"{TEXT} {n},{'ab'[n % 2]}\n" for n in range(20))),
        "one": ("one.csv", "text,label\n" + "".join(f"{TEXT} {n},same\n" for n in range(20))),
        "pairs": ("pairs.jsonl", "".join(f'{{"query": "{TEXT}", "passage": "{n} {TEXT}"}}\n' for n in range(30))),
        "words": ("words.txt", "x" * 120 + "\n"),
        "html": ("page.txt", f"<!DOCTYPE html><html><body><p>{TEXT}.</p></body></html>\n" * 20),
    }
    run = f'corpus = "{small_corpus.path}"\nmodel = "2x32"\nsamples = 160\nsequence_lengths = [16]'
    grid = f"[run]\n{run}\n[grid]\nbatch_sizes = [8]\n"
    written |= {"sweep": ("sweep.toml", grid)} | {
        "answers": ("answers.json", '{"a": "june"}'),
        "odds": ("odds.json", '{"a": 0.5}'),
    }
    for name, contents in written.values():
        (folder / name).write_text(contents)
    (folder / "latin.txt").write_bytes(("Übergröße naïve café señor. " * 30 + "\n").encode("cp1252"))
    (folder / "utf16.txt").write_bytes((TEXT + ".\n").encode("utf-16-le") * 30)
    (folder / "accents.txt").write_text("कार्य प्रगति पर है। हिन्दी में लिखा हुआ पाठ।\n" * 30)
    answer = {"id": "a", "question": "When?", "answers": [{"text": "june", "answer_start": 35}]}
    squad = {"version": "1.1", "data": [{"title": "T", "paragraphs": [{"context": TEXT, "qas": [answer]}]}]}
    (folder / "squad.json").write_text(json.dumps(squad))
    (folder / "tasks" / "RTE").mkdir(parents=True)
    for name in ("train", "dev"):
        (folder / "tasks" / "RTE" / f"{name}.tsv").write_text(
            f"index\tsentence1\tsentence2\tlabel\n0\t{TEXT}\t{TEXT}\tentailment\n"
        )
    (folder / "empty").mkdir()
    names = {name: file for name, (file, _) in written.items()} | {
        "squad": "squad.json", "latin": "latin.txt", "utf16": "utf16.txt", "accents": "accents.txt",
        "model": "model", "cased": "cased", "glue": "tasks/RTE", "new": "new", "empty": "empty",
        "here": ".", "page": "page.html", "made": "made", "run": "run",
    }  # fmt: skip
    corpus = str(small_corpus.path)
    words = ["--corpus", corpus, "--model", "2x32", "--batch-size", "8", "--samples", "80", "--sequence-lengths", "16"]
    assert main(["pretrain", *words, "--probe-seconds", "0", "--out", str(folder / "run")]) == 0
    return {"corpus": corpus} | {name: str(folder / file) for name, file in names.items()}
