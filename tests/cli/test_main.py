"""The command line from outside: what each subcommand prints, returns and rejects."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from conftest import write_small_text
from lambert.cli.main import SUBCOMMANDS, main
from lambert.corpus.store import Corpus
from lambert.training.step.train_step import OutOfMemory
from lambert.utils.io import file_sha256


def words(text: str) -> list[str]:
    """Arguments as a shell would split them."""
    return text.split()


RUN_OPTIONS = words(
    "--model 2x32 --batch-size 8 --samples 80 --sequence-lengths 32 64 --micro-batch-size 4 --probe-seconds 0 "
    "--evaluation-samples 16"
)


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """The last line of a subcommand's output, which must be JSON."""
    code = main([*arguments, "--json"])
    last = capsys.readouterr().out.splitlines()[-1]
    results: dict[str, Any] = json.loads(last)
    assert code == results.get("exit_code", 0)
    return results


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one-line error for invalid input."""
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and error[0].startswith("lambert: ")
    return error[0]


@pytest.fixture(scope="module")
def finished_run(small_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("cli") / "run"
    assert main(["pretrain", "--corpus", str(small_corpus.path), "--out", str(run), *RUN_OPTIONS]) == 0
    return run


@pytest.mark.parametrize("verb", SUBCOMMANDS)
def test_help_explains_every_option(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    import dataclasses

    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for field in dataclasses.fields(SUBCOMMANDS[verb]):  # type: ignore[arg-type]
        shown = {f"--{field.name.replace('_', '-')}", field.name.upper()}
        assert any(name in text for name in shown), field.name


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("pretran --corpus x", "unknown subcommand 'pretran'. Did you mean 'pretrain'?"),
        ("", "{demo, prepare, inspect, plan,"),
        ("pretrain --batch-size 8", "lambert pretrain needs --corpus and --out. `lambert pretrain --help`"),
        ("fill", "lambert fill needs MODEL_FOLDER"),
        ("report run --out", "Missing value for argument '--out'"),
    ],
)
def test_words_that_make_no_command_get_one_line(line: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert expected in refused(capsys, *words(line))


def test_a_recorded_command_never_deletes(tmp_path: Path) -> None:
    from lambert.cli.pretrain import Pretrain

    options = Pretrain(corpus=tmp_path, out=tmp_path / "run", batch_size=(8,), samples=80, fresh=True, json=True)
    recorded = options.as_command("pretrain")
    assert recorded == words(f"lambert pretrain --batch-size 8 --samples 80 --corpus {tmp_path} --out {tmp_path}/run")


def test_squad_looks_at_the_model_before_it_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert "nowhere" in refused(capsys, "squad", str(tmp_path / "nowhere"), "--out", str(out))
    assert not out.exists()


def test_from_text_to_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = write_small_text(tmp_path / "text.txt")
    corpus, run = tmp_path / "corpus", tmp_path / "run"
    prepared = run_json(
        capsys, "prepare", str(text), "--out", str(corpus), "--vocab-size", "200", "--validation-fraction", "0.1"
    )
    assert prepared["documents"] == 40 and prepared["splits"]["held_out"]["documents"] > 0
    plan = run_json(capsys, "plan", "--corpus", str(corpus), *RUN_OPTIONS[:-2], "--no-probe")
    assert [phase["steps"] for phase in plan["phases"]] == [9, 1]
    assert {"sequence_length", "batch_size", "samples", "tokens", "peak_learning_rate", "warmup_steps"} <= set(
        plan["phases"][0]
    )
    results = run_json(capsys, "pretrain", "--corpus", str(corpus), "--out", str(run), *RUN_OPTIONS)
    assert results["finished"] and results["step"] == 10 and results["evaluation"]["masked_tokens"] > 0
    assert (run / "report.html").stat().st_size > 10_000
    texts = ["Bada [MASK] fefi.", "- [MASK] bada [MASK]."]
    filled = run_json(capsys, "fill", str(run), *texts)["sentences"]
    assert [one["text"] for one in filled] == texts and [len(one["blanks"]) for one in filled] == [1, 2]
    assert len(filled[1]["blanks"][1]) == 5
    assert run_json(capsys, "fill", str(run), texts[0])["sentences"] == filled[:1]
    assert "no sentence" in refused(capsys, "fill", str(run))
    assert run_json(capsys, "export", str(run), str(tmp_path / "out"))["step"] == 10
    assert run_json(capsys, "report", str(run), "--out", str(tmp_path / "page.html"))["bytes"] > 10_000


def test_plan_from_samples_alone_with_a_probe(capsys: pytest.CaptureFixture[str]) -> None:
    plan = run_json(
        capsys, "plan", "--model", "1x64", "--batch-size", "64", "--samples", "64000", "--sequence-lengths", "16", "32",
        "--micro-batch-size", "4", "--probe-seconds", "0.1",
    )  # fmt: skip
    assert plan["seconds"] > 0 and plan["phases"][0]["epochs"] is None


def test_the_papers_plan(capsys: pytest.CaptureFixture[str]) -> None:
    for given in ("", "--model large --batch-size 65536 32768 --samples 512000000"):
        plan = run_json(capsys, *words(f"plan --recipe paper --no-probe {given}"))
        assert [phase["steps"] for phase in plan["phases"]] == [7_037, 1_562]
        assert plan["parameters"] == 336_226_108


def test_the_papers_whole_table(capsys: pytest.CaptureFixture[str]) -> None:
    """The paper's rates, 5e-3 / 2^x, and warm-up ratios (arXiv 1904.00962)."""
    plans = run_json(capsys, *words("plan --recipe paper --batch-size all"))["plans"]
    papers = [
        (512, 1_000_000, 3, 320), (1_024, 500_000, 2.5, 160), (2_048, 250_000, 2, 80), (4_096, 125_000, 1.5, 40),
        (8_192, 62_500, 1, 20), (16_384, 31_250, 0.5, 10), (32_768, 15_625, 0, 5),
    ]  # fmt: skip
    assert [sum(phase["steps"] for phase in plan["phases"]) for plan in plans] == [*(row[1] for row in papers), 8_599]
    for plan, (batch, _, exponent, divisor) in zip(plans, papers, strict=False):
        assert plan["model"] == "large"
        for phase in plan["phases"]:
            assert phase["batch_size"] == batch
            assert phase["peak_learning_rate"] == pytest.approx(5e-3 / 2**exponent)
            assert phase["warmup_steps"] == round(phase["steps"] / divisor)
    assert [phase["batch_size"] for phase in plans[-1]["phases"]] == [65_536, 32_768]
    assert main(words("plan --recipe paper --batch-size all")) == 0
    rows = capsys.readouterr().out.splitlines()
    assert sum("512,000,000" in row for row in rows) == 7 and any("7,037 + 1,562" in row for row in rows)


@pytest.mark.parametrize(
    "line", ["--batch-size all", "--recipe paper --batch-size all 8", "--recipe paper --batch-size all --dry-run 4"]
)
def test_the_whole_table_stands_alone(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--batch-size all" in refused(capsys, "plan", *words(line))


def test_wrong_words_get_one_line_and_code_2(
    tmp_path: Path, small_corpus: Corpus, finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, out = str(small_corpus.path), str(tmp_path / "new")
    pretrain = ("pretrain", "--corpus", corpus, "--out", out)
    assert "Did you mean 'mini'" in refused(capsys, *pretrain, *words("--model mni --batch-size 8 --samples 80"))
    assert "batch size 0" in refused(capsys, *pretrain, *words("--model mini --batch-size 0 --samples 80"))
    assert "batch size -4" in refused(capsys, *pretrain, *words("--model mini --batch-size -4 --samples 80"))
    assert "Give --samples from 5,120" in refused(
        capsys, *pretrain, *words("--model mini --batch-size 512 --samples 80")
    )
    assert "no batch size" in refused(capsys, *pretrain, *words("--model mini --epochs 1"))
    assert "--hours = 0" in refused(capsys, *pretrain, *words("--hours 0"))
    assert "'lamb'" in refused(capsys, *pretrain, *words("--model mini --batch-size 8 --samples 80 --optimizer lmb"))
    assert "precision" in refused(
        capsys, *pretrain, *words("--model mini --batch-size 8 --samples 80 --precision half")
    )
    assert "manifest" in refused(
        capsys, "pretrain", "--corpus", str(tmp_path), "--out", out, *words("--batch-size 8 --samples 80")
    )
    assert not Path(out).exists()
    assert "--seed 3 (the run has 0)" in refused(
        capsys, "pretrain", "--corpus", corpus, "--out", str(finished_run), *RUN_OPTIONS, "--seed", "3"
    )
    assert "[MASK]" in refused(capsys, "fill", str(finished_run), "no blank here")
    assert "config.json" in refused(capsys, "fill", str(tmp_path), "a [MASK]")
    assert "neither a run nor a model" in refused(capsys, "export", str(tmp_path), out)
    refused(capsys, "report", str(tmp_path / "nowhere"), "--out", out)
    refused(capsys, "prepare", str(tmp_path / "nowhere"), "--out", out)
    refused(capsys, "squad", str(finished_run), "--train", str(tmp_path / "no.json"), "--out", out)
    refused(capsys, "squad", "--score", str(tmp_path / "no.json"), "--dev", str(tmp_path / "no.json"))
    assert not Path(out).exists()


def test_a_foreign_vocabulary_is_refused(
    tmp_path: Path, small_corpus: Corpus, finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("".join(f"Wholly other words stand here {n}.\n\nAnd some more of them there.\n" for n in range(30)))
    same_size = str(small_corpus.vocabulary_size)
    for size, expected in (("90", "90"), (same_size, "is not that of")):
        corpus = tmp_path / f"corpus-{size}"
        vocabulary = tmp_path / f"vocabulary-{size}.txt"
        letters = "abcdefghijklmnopqrstuvwxyz"
        entries = [*words("[PAD] [UNK] [CLS] [SEP] [MASK] ."), *letters, *(f"##{letter}" for letter in letters)]
        entries += [f"word{number}" for number in range(int(size) - len(entries))]
        vocabulary.write_text("\n".join(entries))
        assert main(["prepare", str(text), "--out", str(corpus), "--vocab", str(vocabulary)]) == 0
        capsys.readouterr()
        message = refused(
            capsys, "pretrain", "--corpus", str(corpus), "--out", str(tmp_path / "run"), "--init-from",
            str(finished_run / "huggingface"), *words("--batch-size 8 --samples 80 --sequence-lengths 32 64"),
        )  # fmt: skip
        assert expected in message and "--vocab" in message


def test_a_published_folder_is_continued(
    tmp_path: Path, small_corpus: Corpus, finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (
        "pretrain", "--corpus", str(small_corpus.path), "--out", str(tmp_path / "run"), "--init-from",
        str(finished_run / "huggingface"), *RUN_OPTIONS[2:], "--learning-rate", "1e-9",
    )  # fmt: skip
    assert main(command) == 0
    said = capsys.readouterr().out
    events = [json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").read_text().splitlines()]
    first = next(event for event in events if event["event"] in ("step", "evaluation"))
    assert (first["event"], first["step"]) == ("evaluation", 0)
    assert f"before training: MLM loss {first['mlm_loss']:.3f}" in said
    assert f", before training {first['mlm_loss']:.3f} (unigram baseline" in said
    before = run_json(capsys, "fill", str(finished_run), "Bada [MASK] fefi.")
    after = run_json(capsys, "fill", str(tmp_path / "run"), "Bada [MASK] fefi.")
    for old, new in zip(*(each["sentences"][0]["blanks"][0] for each in (before, after)), strict=True):
        assert old["word"] == new["word"] and abs(old["probability"] - new["probability"]) < 1e-4


def test_a_model_of_the_hub_is_prepared_for_and_continued_by_its_name(
    tmp_path: Path, finished_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "hub" / "models--acme--bert"  # the layout of the Hub's cache
    shutil.copytree(finished_run / "huggingface", cached / "snapshots" / ("a" * 40))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    text, corpus, run = write_small_text(tmp_path / "text.txt"), tmp_path / "corpus", tmp_path / "run"
    prepared = run_json(capsys, "prepare", str(text), "--out", str(corpus), "--vocab", "acme/bert")
    assert not prepared["vocab_learned"]
    command = ("pretrain", "--corpus", str(corpus), "--init-from", "acme/bert", *RUN_OPTIONS[2:-1])
    for out, samples in ((run, "16"), (tmp_path / "unmeasured", "0")):
        assert run_json(capsys, *command, samples, "--out", str(out))["finished"]
    weights = [file_sha256(out / "huggingface" / "model.safetensors") for out in (run, tmp_path / "unmeasured")]
    assert weights[0] == weights[1]  # the evaluation before training changes none
    assert "--init-from acme/bert" in tomllib.loads((run / "recipe.toml").read_text())["command"]
    assert json.loads((run / "journal.jsonl").read_text().splitlines()[0])["model"] == "acme/bert"
    assert len(run_json(capsys, "fill", "acme/bert", "Bada [MASK] fefi.")["sentences"][0]["blanks"][0]) == 5
    message = refused(capsys, "pretrain", "--corpus", str(corpus), "--out", str(run), "--init-from", "acme/other")
    assert "there is no folder acme/other, and the Hugging Face Hub cannot be reached" in message


@pytest.mark.integration
def test_ctrl_c_saves_and_the_same_command_goes_on(tmp_path: Path, small_corpus: Corpus) -> None:
    command = [
        sys.executable, "-m", "lambert", "pretrain", "--corpus", str(small_corpus.path), "--out", str(tmp_path / "run"),
        *RUN_OPTIONS[:4], "--samples", "4000000", *RUN_OPTIONS[6:], "--optimizer", "adamw",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    journal = tmp_path / "run" / "journal.jsonl"
    while not (journal.exists() and journal.read_text().count('"event": "step"') > 3):
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    out, error = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "Traceback" not in error and "saved at step" in out
    step = int((tmp_path / "run" / "latest").read_text().strip().removeprefix("step-"))
    again = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while f'"resumed_from_step": {step}' not in journal.read_text():
        assert again.poll() is None
        time.sleep(0.02)
    os.kill(again.pid, signal.SIGTERM)
    again.communicate(timeout=600)
    assert again.returncode == 143  # 128 and the signal, as a shell says it


@pytest.mark.integration
def test_two_processes_under_torchrun_train_one_model(tmp_path: Path, small_corpus: Corpus, finished_run: Path) -> None:
    """Only rank 0 prints and writes, and two ranks end like one, up to rounding."""
    run = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "lambert"]
    options = ["--corpus", str(small_corpus.path), "--out", str(run), *RUN_OPTIONS, "--json"]
    ended = subprocess.run([*command, "pretrain", *options], capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    results = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    assert [one["finished"] for one in results] == [True]
    together, alone = (load_file(folder / "huggingface" / "model.safetensors") for folder in (run, finished_run))
    for name, weight in alone.items():
        torch.testing.assert_close(together[name], weight, rtol=1e-3, atol=1e-5)


def test_an_unwritable_folder_is_refused(
    tmp_path: Path, small_corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    message = refused(
        capsys, "pretrain", "--corpus", str(small_corpus.path), "--out", str(tmp_path / "file" / "run"), *RUN_OPTIONS
    )
    assert "cannot be written" in message


@pytest.mark.integration
@pytest.mark.parametrize(
    "environment",
    [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "ascii:strict"}],
)
def test_streams_that_cannot_say_a_sign_get_a_question_mark(environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "lambert", "plan", "--help"]  # which says "layers × hidden size"
    done = subprocess.run(command, capture_output=True, env=os.environ | environment, check=False)
    assert done.returncode == 0, done.stderr
    assert b"?" in done.stdout and done.stdout.isascii()


def test_threads_do_not_spin_for_long_unless_told_to() -> None:
    """The count is read when torch is loaded, so it is set before; the user's own stays."""
    program = (
        "import os, sys; import lambert.cli.main as cli; cli.main(['--version']); "
        "print('torch' in sys.modules, os.environ.get('GOMP_SPINCOUNT'))"
    )
    for given, count in (({}, "1000"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None"), ({"GOMP_SPINCOUNT": "5"}, "5")):
        names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
        own = {name: value for name, value in os.environ.items() if name not in names}
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env=own | given, check=True
        )
        assert done.stdout.splitlines()[-1] == f"False {count}"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemory("CUDA out of memory\nTried to allocate 2 GB"),
        RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory"),
        ImportError("libtorch.so: failed to map segment from shared object: Cannot allocate memory"),
    ],
)
def test_memory_that_runs_out_anywhere_is_one_line(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(SUBCOMMANDS["doctor"], "run", fail)
    said = refused(capsys, "doctor")
    assert said.startswith("lambert: memory ran out (") and said.endswith("use a smaller model or batch.")


@pytest.mark.parametrize("name", ["-corpus", "a 'b\"\n%", "caf\udce9"])
def test_the_commands_of_messages_work_in_any_folder(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a text to a filled sentence by the commands that each subcommand prints."""
    monkeypatch.chdir(tmp_path)
    write_small_text(tmp_path / "text.txt")
    assert main(["prepare", "text.txt", f"--out={name}", "--vocab-size", "200", "--workers", "1"]) == 0

    def pasted(line: str) -> list[str]:
        script = f"lambert() {{ printf '%s\\0' \"$@\"; }}\n{line}"
        done = subprocess.run(["sh", "-c", script], capture_output=True, check=True)
        return [os.fsdecode(word) for word in done.stdout.split(b"\0")[:-1]]

    (line,) = re.findall("^Next: (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert main([*pasted(line), *RUN_OPTIONS[:-2], "--no-probe"]) == 0
    assert main(["pretrain", f"--corpus={name}", f"--out={name}-run", *RUN_OPTIONS, "--optimizer", "adamw"]) == 0
    (line,) = re.findall("`(lambert fill .*)` tries it", capsys.readouterr().out)
    assert main(pasted(line)) == 0
    recorded = tomllib.loads((tmp_path / f"{name}-run" / "recipe.toml").read_text())["command"]
    assert main(pasted(recorded)) == 0
