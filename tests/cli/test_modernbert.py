"""`--architecture modernbert` from outside: from a corpus to a folder that every command opens."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from finetune.squad.articles import HARBOUR, squad_document
from lambert.cli.main import main
from lambert.corpus.store import Corpus
from lambert.data.objective import ObjectiveConfig
from lambert.model.heads import ModernBertForMaskedLM
from lambert.training.checkpoint.recorded_recipe import settings_of
from lambert.training.config.arguments import TrainingArguments
from lambert.training.config.resolve import resolve_config
from run_makers import RunMaker

OPTIONS = [
    *("--model", "2x32", "--architecture", "modernbert", "--batch-size", "8", "--samples", "80"),
    *("--sequence-lengths", "32", "--probe-seconds", "0", "--threads", "1"),
]


@pytest.fixture(scope="module")
def run(small_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("modernbert") / "run"
    assert main(["pretrain", "--corpus", str(small_corpus.path), *OPTIONS, "--out", str(folder)]) == 0
    return folder


def test_a_run_has_the_objective_of_its_architecture(run: Path) -> None:
    recipe = tomllib.loads((run / "recipe.toml").read_text())
    assert recipe["model"]["architecture"] == "modernbert"
    assert (recipe["examples"]["pairing"], recipe["examples"]["mlm_probability"]) == ("none", 0.3)
    assert recipe["model"]["dropout"] == 0
    assert settings_of(run).model.maximum_positions == 8_192


def test_transformers_fills_blanks_with_the_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fill", str(run), "the [MASK] of the", "--candidates", "3", "--json"]) == 0
    own = json.loads(capsys.readouterr().out.splitlines()[-1])
    found: Any = transformers.pipeline("fill-mask", str(run / "huggingface"), top_k=3)("the [MASK] of the")
    mine = [one["word"] for one in own["sentences"][0]["blanks"][0]]
    tokenizer = transformers.AutoTokenizer.from_pretrained(run / "huggingface")
    assert mine == [tokenizer.convert_ids_to_tokens(one["token"]) for one in found]


def test_plan_export_and_report_know_it(run: Path, small_corpus: Corpus, tmp_path: Path) -> None:
    assert main(["export", str(run), str(tmp_path / "exported")]) == 0
    assert main(["report", str(run), "--out", str(tmp_path / "report.html")]) == 0
    assert "ModernBERT 2x32 with" in (tmp_path / "report.html").read_text()
    assert main(["plan", "--corpus", str(small_corpus.path), *OPTIONS[:-2]]) == 0
    recipe = tmp_path / "mine.toml"
    assert main(["plan", "--recipe", str(run), "--save-recipe", str(recipe)]) == 0
    assert tomllib.loads(recipe.read_text())["architecture"] == "modernbert"


def test_it_is_continued_and_fine_tuned_as_what_it_is(run: Path, small_corpus: Corpus, tmp_path: Path) -> None:
    more = ["--init-from", str(run), *OPTIONS[4:], "--out", str(tmp_path / "more")]
    assert main(["pretrain", "--corpus", str(small_corpus.path), *more]) == 0
    recipe = tomllib.loads((tmp_path / "more" / "recipe.toml").read_text())
    assert (recipe["model"]["architecture"], recipe["examples"]["pairing"]) == ("modernbert", "none")
    questions = tmp_path / "squad.json"
    questions.write_text(json.dumps(squad_document((HARBOUR, [("a", "Who?", [("1843", HARBOUR.index("1843"))])]))))
    data = ["--train", str(questions), "--dev", str(questions), "--out", str(tmp_path / "squad")]
    fast = ["--epochs", "1", "--sequence-length", "160", "--precision", "float32"]
    assert main(["squad", str(tmp_path / "more"), *data, *fast]) == 0
    for name in ("train", "dev"):
        rows = [f"{n}\tThe first is {n}.\tIt is {n % 2}.\t{'not_' * (n % 2)}entailment" for n in range(8)]
        (tmp_path / f"{name}.tsv").write_text("\n".join(["index\tsentence1\tsentence2\tlabel", *rows]))
    pairs = ["--data", str(tmp_path), "--out", str(tmp_path / "rte"), "--epochs", "1", "--precision", "float32"]
    assert main(["glue", str(run), "rte", *pairs]) == 0


def test_a_phase_may_have_another_rotary_base(
    small_corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As for an extension of the context: later phases compute with it, and each export says that of its step."""
    phase = "{{ sequence_length = 32, batch_size = 8, share = 0.5{} }}"
    model = [*OPTIONS[:4], "--micro-batch-size", "8", "--precision", "float32", *OPTIONS[-4:]]
    saved = ["--checkpoint-steps", "5", "--keep-every", "5"]
    losses, bases = {}, {}
    for name, theta in (("same", ""), ("other", ", global_rope_theta = 20.0")):
        (tmp_path / f"{name}.toml").write_text(f"phases = [{phase.format('')}, {phase.format(theta)}]\n")
        out = tmp_path / name
        given = ["--recipe", str(tmp_path / f"{name}.toml"), "--samples", "80", *model, *saved, "--out", str(out)]
        assert main(["pretrain", "--corpus", str(small_corpus.path), *given]) == 0
        lines = map(json.loads, (out / "journal.jsonl").read_text().splitlines())
        losses[name] = [line["loss"] for line in lines if line["event"] == "step"]
        for step in (5, 10):
            named = [str(out), "--step", "5"] if step == 5 else [str(out / "checkpoints" / "step-10")]
            assert main(["export", *named, str(tmp_path / f"{name}-{step}")]) == 0
            config = json.loads((tmp_path / f"{name}-{step}" / "config.json").read_text())
            bases[name, step] = config["global_rope_theta"]
        assert json.loads((out / "huggingface" / "config.json").read_text())["global_rope_theta"] == bases[name, 10]
    assert losses["same"][:5] == losses["other"][:5] and losses["same"][5:] != losses["other"][5:]
    assert list(bases.values()) == [160_000.0, 160_000.0, 160_000.0, 20.0]
    capsys.readouterr()
    bert = ["--recipe", str(tmp_path / "other.toml"), "--samples", "80", "--model", "2x32", "--architecture", "bert"]
    assert main(["plan", "--corpus", str(small_corpus.path), *bert]) == 2
    assert "global_rope_theta 20 for bert, which has no rotary positions" in capsys.readouterr().err


def test_a_folder_of_another_architecture_is_told(
    run: Path, small_corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = [*OPTIONS[4:], "--architecture", "bert", "--out", str(tmp_path / "more")]
    assert main(["pretrain", "--corpus", str(small_corpus.path), "--init-from", str(run), *wrong]) == 2
    assert "is a model of the architecture modernbert, not bert. Leave out --architecture" in capsys.readouterr().err
    assert main(["plan", "--corpus", str(small_corpus.path), *OPTIONS[4:-2], "--architecture", "modern"]) == 2
    assert "unknown architecture 'modern'. Did you mean 'modernbert'" in capsys.readouterr().err


def test_a_stopped_run_ends_in_the_same_weights(small_corpus: Corpus, make_run: RunMaker, tmp_path: Path) -> None:
    request = TrainingArguments(
        model="2x32", architecture="modernbert", batch_size=(8,), samples=80, sequence_lengths=(32,), dropout=0.1
    )
    settings = resolve_config(request, small_corpus)
    changed = {name: getattr(settings, name) for name in ("model", "examples", "phases", "micro_batch_sizes")}
    assert settings.examples == ObjectiveConfig("none", settings.examples.masking, 0.3)
    make_run(tmp_path / "whole", **changed).train()
    stopped = make_run(tmp_path / "stopped", **changed)
    assert isinstance(stopped.model, ModernBertForMaskedLM)
    for step, _ in enumerate(stopped, start=1):
        if step == 4:
            break
    make_run(tmp_path / "stopped", **changed).train()
    names = ("whole", "stopped")
    one, other = (ModernBertForMaskedLM.from_pretrained(tmp_path / name / "huggingface") for name in names)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
