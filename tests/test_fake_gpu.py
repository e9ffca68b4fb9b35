"""Whole commands over a GPU that computes nothing (`fake_cuda`): what they ask of it, counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fake_cuda import build
from fake_cuda.report import run
from finetune.squad.articles import HARBOUR, squad_document
from lambert.corpus.store import Corpus
from lambert.corpus.tokenizer_files import save_tokenizer
from lambert.corpus.vocabulary import train_vocabulary
from lambert.model.bert import BertConfig
from lambert.model.heads import BertForPreTraining
from lambert.model.huggingface import save_model

pytestmark = pytest.mark.skipif(build.missing() is not None, reason=build.missing() or "")

FAULTS = ("targets on the CPU", "a mask on the CPU", "pageable uploads", "item() in the loss", "logits read at once")


def _write_model(folder: Path) -> Path:
    tokenizer = train_vocabulary([HARBOUR] * 3, 300, cased=False)
    sizes = {"layers": 1, "hidden_size": 64, "attention_heads": 1, "feed_forward_size": 64, "maximum_positions": 64}
    save_model(BertForPreTraining(BertConfig(vocabulary_size=tokenizer.get_vocab_size(), **sizes)), folder)
    save_tokenizer(tokenizer, folder)
    return folder


def _fine_tunings(folder: Path) -> dict[str, Any]:
    """Commands of SQuAD and GLUE, each three steps of two micro-batches and two or more batches to predict."""
    answer = [("Edna Marlowe", HARBOUR.index("Edna"))]
    questions = [(f"q{number}", "Who built the harbour?", answer) for number in range(24)]
    (folder / "squad.json").write_text(json.dumps(squad_document((HARBOUR, questions))))
    rows = "".join(f"the pier of boat {number}\t{number % 2}\n" for number in range(24))
    for name in ("train.tsv", "dev.tsv"):
        (folder / name).write_text(f"sentence\tlabel\n{rows}")
    model = _write_model(folder / "model")
    shared = ("--epochs", "1", "--fresh")
    squad = ("squad", model, "--train", folder / "squad.json", "--dev", folder / "squad.json", *shared)
    squad = (*squad, "--batch-size", "16", "--sequence-length", "64", "--question-length", "16")
    glue = (
        "glue",
        model,
        "sst-2",
        "--data",
        folder,
        *shared,
        "--batch-size",
        "8",
        "--micro-batch-size",
        "4",
        "--sequence-length",
        "64",
    )
    ways = {"squad": (*squad, "--out", folder / "answers"), "glue": (*glue, "--out", folder / "labels")}
    commands: dict[str, Any] = {name: {"words": [str(word) for word in words]} for name, words in ways.items()}
    full = {"no room": commands["squad"] | {"fault": "no room for a span's logits"}}
    return commands | {fault: commands["squad"] | {"fault": fault} for fault in FAULTS} | full


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("fine_tuned")
    return {"folder": folder, **run_commands(folder, _fine_tunings(folder))}


def _pretrain(corpus: Corpus, out: Path, *words: str, **more: Any) -> dict[str, Any]:
    size = ("--model", "1x64", "--batch-size", "8", "--probe-seconds", "0")
    few = ("--evaluations-per-phase", "1", "--trust-ratios-per-phase", "1")
    return {"words": ["pretrain", "--corpus", str(corpus.path), *size, *few, "--out", str(out), *words], **more}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory, small_corpus: Corpus) -> dict[str, Any]:
    """A run in two phases, what is made from it, a deterministic one, and one with a fault in its evaluation."""
    folder = tmp_path_factory.mktemp("pretrained")
    short = ("--samples", "16", "--sequence-lengths", "32")
    samples = ("--samples", "64", "--sequence-lengths", "32", "64", "--evaluation-samples", "96")
    commands = {
        "pretrain": _pretrain(small_corpus, folder / "run", *samples),
        "export": {"words": ["export", str(folder / "run"), str(folder / "exported")]},
        "fill": {"words": ["fill", str(folder / "run"), "a [MASK]", "--json"]},
        "one thread": _pretrain(small_corpus, folder / "thread", *short),
        "one process": _pretrain(small_corpus, folder / "process", *short, "--data-workers", "1"),
        "deterministic": _pretrain(small_corpus, folder / "same", *short, "--deterministic", "--optimizer", "adamw"),
        "an evaluation read batch by batch": _pretrain(
            small_corpus, folder / "read", *short, fault="item() in an evaluation"
        ),
        "no room": _pretrain(
            small_corpus, folder / "full", *short, "--optimizer", "adamw", fault="no room for moments"
        ),
    }
    return {"folder": folder, **run_commands(folder, commands)}


def run_commands(folder: Path, commands: dict[str, Any]) -> dict[str, Any]:
    """What `fake_cuda.program` reports of them."""
    (folder / "commands.json").write_text(json.dumps(commands))
    return run("program", folder / "report.json", folder / "commands.json")


def complaints(report: dict[str, Any]) -> list[str]:
    """What a fine-tuning asks of the GPU that it should not. The model of the best seed may be copied to be written."""
    steps = report["steps"]
    found = [report["crash"]] if report["code"] else []
    if steps and steps[0]["syncs"]:
        found.append("the first step is read before the second is launched")
    found += [f"{step['syncs']} waits" for step in steps if step["syncs"] > 1]
    found += [f"{step['pageable']} pageable or blocking uploads" for step in steps if step["pageable"]]
    batches = sum(number for where, number in report["downloads"].items() if "finetune/loop.py" in where)
    allowed = ("event", "copy to the host at model/huggingface.py")
    found += [where for where in report["syncs"] if not where.startswith(allowed)]
    return found + ["predicts"] * (not batches)


@pytest.mark.parametrize("task", ["squad", "glue"])
def test_fine_tuning_waits_once_a_step_and_once_a_batch_of_predictions(fine_tuned: dict[str, Any], task: str) -> None:
    report = fine_tuned[task]
    assert report["code"] == 0, report["crash"] + fine_tuned["said"]
    assert not complaints(report)
    assert len(report["steps"]) >= 2
    assert all(0 < step["uploads"] <= 9 and step["launches"] <= 350 for step in report["steps"])
    batches = sum(number for where, number in report["downloads"].items() if "finetune/loop.py" in where)
    waits = sum(number for where, number in report["syncs"].items() if "finetune/loop.py" in where)
    assert waits == batches >= 2
    made = {"squad": "answers/predictions.json", "glue": "labels/glue.json"}[task]
    assert (fine_tuned["folder"] / made).exists()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fine_tuned: dict[str, Any], fault: str) -> None:
    assert complaints(fine_tuned[fault])


def _waits(report: dict[str, Any], place: str) -> int:
    return sum(number for where, number in report["syncs"].items() if place in where)


def test_a_run_is_followed_from_its_first_step_to_its_export(pretrained: dict[str, Any]) -> None:
    report = pretrained["pretrain"]
    assert report["code"] == 0, report["crash"] + pretrained["said"]
    assert len(report["steps"]) == 7  # of eight: the last is not followed by another
    run_folder = pretrained["folder"] / "run"
    records = [json.loads(line) for line in (run_folder / "journal.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if record["event"] == "step"] == list(range(1, 9))
    for step in report["steps"][:3]:
        assert step["syncs"] <= 2 and step["downloads"] == 1 and not step["pageable"]
    assert (run_folder / "huggingface" / "model.safetensors").exists()


@pytest.mark.parametrize(("run_", "waits"), [("pretrain", 2), ("deterministic", 1)])
def test_an_evaluation_waits_once_and_so_do_the_statistics_of_the_layers(
    pretrained: dict[str, Any], run_: str, waits: int
) -> None:
    report = pretrained[run_]
    assert _waits(report, "step/pretraining_loss.py") == _waits(report, "metrics/step_logger.py") == waits
    assert _waits(pretrained["an evaluation read batch by batch"], "step/pretraining_loss.py") > 1


def test_what_a_gpu_trained_is_exported_and_fills_in_words(pretrained: dict[str, Any]) -> None:
    assert pretrained["export"]["code"] == pretrained["fill"]["code"] == 0, pretrained["said"]
    assert (pretrained["folder"] / "exported" / "model.safetensors").exists()


def test_only_a_deterministic_run_asks_pytorch_for_deterministic_algorithms(pretrained: dict[str, Any]) -> None:
    assert pretrained["deterministic"]["code"] == 0, pretrained["said"]
    assert [pretrained[name]["deterministic"] for name in ("pretrain", "deterministic")] == [False, True]


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory, small_corpus: Corpus) -> dict[str, Any]:
    """A run of five steps, whole, stopped twice and resumed, and with faults."""
    folder = tmp_path_factory.mktemp("resumed")
    words = ("--samples", "40", "--sequence-lengths", "32", "--evaluation-samples", "0", "--micro-batch-size", "4")

    def pretrain(out: str, **more: Any) -> dict[str, Any]:
        return _pretrain(small_corpus, folder / out, *words, "--optimizer", out.split()[0], **more)

    commands = {}
    for name in ("lamb", "adamw"):
        commands[f"{name}, whole"] = pretrain(f"{name} whole")
        commands[f"{name}, stopped"] = pretrain(name, signals={"2": "SIGINT"})
        commands[f"{name}, stopped again"] = pretrain(name, signals={"2": "SIGTERM"})
        commands[f"{name}, to its end"] = pretrain(name)
    commands["before the faults"] = pretrain("lamb faulty", signals={"2": "SIGINT"})
    for fault in RESUME_FAULTS:  # the first takes no step, the second one, the third the last two
        commands[fault] = pretrain("lamb faulty", fault=fault, signals={"1": "SIGINT"} if "dropout" in fault else {})
    return {"folder": folder, **run_commands(folder, commands)}


RESUME_FAULTS = {"moments left on the CPU": 2, "dropout by the process": 2, "batches taken twice": 3}
"""Fault → the step that the run is resumed from."""


@pytest.mark.parametrize("optimizer", ["lamb", "adamw"])
def test_a_run_that_is_stopped_twice_takes_the_steps_of_one_that_is_not(
    resumed: dict[str, Any], optimizer: str
) -> None:
    """Batches, dropout seeds and learning rates; what was made ahead of a stop is neither lost nor taken twice."""
    parts = [resumed[f"{optimizer}, {part}"] for part in ("stopped", "stopped again", "to its end")]
    assert [part["code"] for part in parts] == [128 + 2, 128 + 15, 0], resumed["said"]
    whole = resumed[f"{optimizer}, whole"]["launched"]
    assert [len(part["launched"]) for part in parts] == [2, 2, 1] and len(whole) == 5
    assert [step for part in parts for step in part["launched"]] == whole
    assert len({seed for step in whole for seed in step["seeds"]}) == 10  # two micro-batches a step
    lines = (resumed["folder"] / optimizer / "journal.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["step"] for record in records if record["event"] == "step"] == [1, 2, 3, 4, 5]
    assert [record["resumed_from_step"] for record in records if record["event"] == "run"] == [0, 2, 4]


@pytest.mark.parametrize("fault", RESUME_FAULTS)
def test_a_planted_fault_of_resuming_is_caught(resumed: dict[str, Any], fault: str) -> None:
    assert resumed["before the faults"]["code"] == 128 + 2, resumed["said"]
    found, first = resumed[fault]["launched"], RESUME_FAULTS[fault]
    sound = resumed["lamb, whole"]["launched"][first : first + len(found)]
    assert resumed[fault]["crash"] or found != sound


def test_memory_that_ends_in_the_first_update_is_told(pretrained: dict[str, Any]) -> None:
    """AdamW had made some moments: nothing was updated, and no smaller micro-batch is tried."""
    report = pretrained["no room"]
    assert (report["code"], report["crash"], len(report["launched"])) == (3, "", 0)
    assert not [name for name in report["launches"] if name in ("_fused_adamw_", "triton apply_update")]
    assert "lambert: the optimizer's update does not fit into memory (CUDA out of memory." in pretrained["said"]
    assert "or another --optimizer (lars and muon keep least)" in pretrained["said"]


def test_a_fine_tuning_that_does_not_fit_says_what_to_make_smaller(fine_tuned: dict[str, Any]) -> None:
    assert (fine_tuned["no room"]["code"], fine_tuned["no room"]["crash"]) == (2, "")
    assert (
        "memory ran out (CUDA out of memory. Tried to allocate 2.00 GiB). Give a smaller --micro-batch-size."
        in (fine_tuned["said"])
    )


@pytest.mark.parametrize(("ran", "made"), [("one thread", 2), ("one process", 0)])
def test_the_training_thread_makes_no_batch_of_a_step(pretrained: dict[str, Any], ran: str, made: int) -> None:
    """A thread of its own or a process makes all of them; the step uploads no more than it did."""
    report = pretrained[ran]
    assert report["code"] == 0, pretrained["said"]
    assert report["makers"].get("batches_0", 0) == made
    assert report["steps"] and all(step["uploads"] <= 7 for step in report["steps"])
    digests = [[step["batches"] for step in pretrained[name]["launched"]] for name in ("one thread", "one process")]
    assert digests[0] == digests[1]
