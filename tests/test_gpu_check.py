"""The check on one GPU (`benchmarks/gpu_check`): driver, table, archive, stages on a fake GPU and a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import write_small_text
from fake_cuda import build
from lambert.corpus.store import Corpus
from lambert.errors import UserError
from lambert.model import attention as own_attention
from varlen_by_hand import attend_by_sequence

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

from gpu_check import accuracy, archive, attention, driver, table  # noqa: E402
from gpu_check.report import Report  # noqa: E402
from gpu_check.stages import STAGES, Settings, Stage  # noqa: E402


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory, small_corpus: Corpus) -> Path:
    """A corpus and eight questions."""
    folder = tmp_path_factory.mktemp("gpu_check_data")
    (folder / "corpus").symlink_to(small_corpus.path)
    (folder / "squad").mkdir()
    for part in ("train", "dev"):
        write_questions(folder / "squad" / f"{part}.json", 8)
    return folder


def write_questions(path: Path, count: int) -> Path:
    context = "Bagi fiku gamo. The red house is near the river."
    answers = [{"text": "near the river", "answer_start": context.index("near")}]
    asked = [{"id": str(i), "question": "Where is the house?", "answers": answers} for i in range(count)]
    document = {"version": "1.1", "data": [{"title": "", "paragraphs": [{"context": context, "qas": asked}]}]}
    path.write_text(json.dumps(document))
    return path


def check(results: Path, data: Path, *words: str, **environment: str) -> tuple[int, dict[int, dict[str, Any]], str]:
    """Exit code, lines by stage, and what the command printed."""
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_check"), "--results", str(results), "--data", str(data)]
    done = subprocess.run(
        [*command, "--small", *words], capture_output=True, text=True, timeout=300, env={**os.environ, **environment}
    )
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    return done.returncode, driver.read_lines(results), done.stdout


def settings(tmp_path: Path, data: Path) -> Settings:
    return Settings(torch.device("cpu"), True, data, tmp_path, ["unused"], 60.0)


def run(program: str, results: Path, *, limit: int = 60) -> dict[str, Any]:
    """The line of a stage whose process is this Python program."""
    results.mkdir(exist_ok=True)
    return driver.run_stage(
        Stage(1, "ceilings", "machine.ceilings", limit, ""), [sys.executable, "-c", program], results, os.environ
    )


ROW = f"""
import sys; sys.path.append({str(ROOT / "benchmarks")!r})
from pathlib import Path
from gpu_check.report import Report
import os, time
report = Report(Path("{{results}}") / "01-ceilings.json", 1, "ceilings")
with report.case("first") as row:
    row["ms"] = 2.0
"""


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("os.kill(os.getpid(), 11)", "ended by SIGSEGV"),
        ("os._exit(7)", "ended with exit code 7"),
        ("time.sleep(600)", "killed at its limit of 3 s"),
    ],
)
def test_a_stage_that_dies_or_hangs_leaves_the_rows_it_had(tmp_path: Path, end: str, said: str) -> None:
    line = run(ROW.format(results=tmp_path) + end, tmp_path, limit=3)
    assert not line["ok"] and line["seconds"] < 60
    assert [row["ms"] for row in line["rows"]] == [2.0]
    assert len(line["problems"]) == 1 and said in line["problems"][0]
    assert driver.read_lines(tmp_path)[1] == line


def test_a_killed_stage_leaves_no_process(tmp_path: Path) -> None:
    child = "import subprocess, time, pathlib; p = subprocess.Popen(['sleep', '99'])"
    run(f"{child}; pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(p.pid)); time.sleep(99)", tmp_path, limit=2)
    state = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    until = time.monotonic() + 30
    while state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] not in "ZX":
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_stage_without_a_line_says_what_it_printed_last(tmp_path: Path) -> None:
    line = run("raise SystemExit('no such device')", tmp_path)
    assert not line["ok"] and "no such device" in line["problems"][0]


def test_only_what_is_missing_or_bad_is_open(tmp_path: Path) -> None:
    for stage in STAGES:
        if stage.number != 9:
            line = {"stage": stage.number, "ok": stage.number not in (2, 4)}
            driver.line_path(tmp_path, stage).write_text(json.dumps(line))
    driver.line_path(tmp_path, STAGES[10]).write_text("{half a li")
    assert [stage.number for stage in driver.open_stages(tmp_path)] == [2, 4, 9, 11]


def test_an_exception_ends_its_case_and_not_numbers_stay_readable(tmp_path: Path) -> None:
    report = Report(tmp_path / "line.json", 1, "ceilings")
    with report.case("bad"):
        raise ValueError("no\nkernel")
    with report.case("good") as row:
        row["loss"] = float("nan")
        warnings.warn("the blocks run without torch.compile", RuntimeWarning, stacklevel=1)
    report.save(finished=True)
    line = json.loads((tmp_path / "line.json").read_text())
    assert [row["case"] for row in line["rows"]] == ["bad", "good"]
    assert not line["ok"] and line["problems"] == [f"bad: {line['rows'][0]['problem']}"]
    assert line["rows"][0]["problem"].startswith("ValueError: no kernel at ")
    assert line["rows"][1]["loss"] == "nan"
    assert line["rows"][1]["warnings"] == ["the blocks run without torch.compile"]


def test_the_table_compares_with_the_targets() -> None:
    def speed(model: str, length: int, rate: float, *, masked: bool = False) -> dict[str, Any]:
        return {"case": "", "model": model, "length": length, "masked": masked, "sequences_per_second": rate}

    steps = [speed("large", 128, 1_700.0), speed("large", 128, 1_900.0), speed("large", 512, 400.0)]
    lines: dict[int, dict[str, Any]] = {
        3: {"ok": False, "problems": ["lambert, p 0.1: dropped 0.06250"], "rows": [{"whose": "lambert", "asked": 0.1}]},
        6: {"ok": True, "rows": [*steps, speed("base", 128, 9_000.0, masked=True), {"case": "x", "problem": "y"}]},
        7: {"ok": True, "rows": [{"optimizer": "LAMB", "of_copy_bandwidth": share} for share in (0.9, 0.8)]},
    }
    text = table.table(lines, small=False)
    rows = {line.split("  ")[0]: line for line in text.splitlines()}
    assert rows["Large at 128, sequences/s"].split()[-1] == "met" and "1,900" in rows["Large at 128, sequences/s"]
    assert rows["Large at 512, sequences/s"].endswith("MISSED")
    assert rows["Base at 128, sequences/s"].endswith("not measured")  # only with a mask
    assert "80.0%" in rows["LAMB's step, of the copy bandwidth"]
    assert rows["attention dropout, off what was asked"].endswith("not measured")
    assert "dropped 0.06250" in text and "12 squad       not run" in text


@pytest.mark.parametrize(("real", "found"), [(None, 0), (1 / 16, 4), (2 / 16, 4)])
def test_another_dropout_than_was_asked_for_is_found(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, real: float | None, found: int
) -> None:
    ours = attention._ours
    if real is not None:
        monkeypatch.setattr(attention, "_ours", lambda qkv, heads, mask, p: ours(qkv, heads, mask, p and real))
    torch.manual_seed(0)
    report = Report(tmp_path / "line.json", 3, "attention")
    attention.attention(settings(tmp_path, data), report)
    assert len(report.problems) == found, report.problems


@pytest.mark.parametrize(("wrong", "found"), [(False, 0), (True, 4)])
def test_attention_of_real_tokens_is_compared_with_that_of_padded_rows(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, wrong: bool, found: int
) -> None:
    """As if FlashAttention were here; the wrong one lets no token attend to the last of its sequence."""

    def attend(query: Any, key: Any, value: Any, starts: Any, *rest: Any) -> Any:
        if wrong:
            value = value.index_fill(0, (starts[1:].unique() - 1).long().clamp(min=0), 0.0)
        return attend_by_sequence(query, key, value, starts, *rest)

    monkeypatch.setattr(own_attention.varlen, "varlen_attn", attend)
    monkeypatch.setattr(own_attention, "_has_flash_attention", lambda *_: True)
    report = Report(tmp_path / "line.json", 3, "attention")
    attention.attention(settings(tmp_path, data), report)
    assert len([problem for problem in report.problems if "real tokens alone" in problem]) == found, report.problems


def test_a_wrong_gradient_is_found(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = accuracy._gradient

    def wrong(model: Any, batch: Any, precision: Any) -> Any:
        found = exact(model, batch, precision)
        if precision is accuracy.Precision.BFLOAT16_AUTOCAST:
            found["encoder.embeddings.word.weight"] *= 1.5
        return found

    for gradient, problems in ((exact, 0), (wrong, 2)):
        monkeypatch.setattr(accuracy, "_gradient", gradient)
        report = Report(tmp_path / "line.json", 4, "gradients")
        accuracy.gradients(settings(tmp_path, data), report)
        assert len(report.problems) == problems, report.problems
        assert all("bfloat16-autocast" in problem for problem in report.problems)


def test_the_runs_of_a_stage_go_through_on_a_cpu(tmp_path: Path, data: Path) -> None:
    code, lines, said = check(tmp_path, data, "--device", "cpu", "--only", "memory")
    assert lines[9]["ok"], lines[9]
    assert lines[9]["rows"][0]["micro_batch_sizes"] == [8, 4, 2]
    assert code == 1 and "not run" in said  # of twelve, one has run
    assert [json.loads(line)["stage"] for line in said.splitlines() if line.startswith("{")] == [9]


def test_every_stage_has_its_function() -> None:
    assert [stage.number for stage in STAGES] == list(range(1, 13))
    assert len({stage.function() for stage in STAGES}) == 12
    assert sum(stage.limit for stage in STAGES) <= 28 * 60


@pytest.mark.skipif(build.missing() is not None, reason=build.missing() or "")
def test_stages_go_through_on_a_fake_gpu_and_see_that_its_numbers_are_none(tmp_path: Path, data: Path) -> None:
    shim = os.environ.get("FAKE_CUDA_FOLDER", str(ROOT / ".pytest_cache" / "fake_cuda"))
    through = f"{sys.executable} -m fake_cuda stage"
    path = os.pathsep.join((str(ROOT / "tests"), str(ROOT / "src")))
    environment = {"FAKE_CUDA_FOLDER": shim, "PYTHONPATH": path}
    _, lines, _ = check(tmp_path, data, "--through", through, "--only", "3", "profile", **environment)
    assert len(lines[3]["problems"]) == 4 and all("dropped" in problem for problem in lines[3]["problems"])
    assert {row["kernel"] for row in lines[3]["rows"]} == {"EfficientAttention", "varlen_attn"}
    assert lines[8]["problems"] == [f"{row['case']}: the profiler saw no kernel" for row in lines[8]["rows"]]


def test_without_a_gpu_a_stage_says_so(tmp_path: Path, data: Path) -> None:
    _, lines, _ = check(tmp_path, data, "--only", "ceilings", CUDA_VISIBLE_DEVICES="")
    assert "PyTorch sees no GPU" in lines[1]["problems"][0]


def test_the_archive_runs_where_it_is_unpacked(tmp_path: Path) -> None:
    text = write_small_text(tmp_path / "text.txt")
    questions = [write_questions(tmp_path / f"{part}.json", 400) for part in ("train", "dev")]
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "one.whl").write_bytes(b"PK\x05\x06" + bytes(18))  # an empty zip
    file = tmp_path / "check.tar.gz"
    options: dict[str, Any] = {"vocab": None, "wheels": tmp_path / "wheels", "megabytes": 1, "vocab_size": 200}
    said = archive.make_archive(file, ROOT, text=[text], squad=questions, **options)
    assert f"{file.stat().st_size / 2**20:.1f} MiB" in said
    with tarfile.open(file) as content:
        content.extractall(tmp_path, filter="data")
    there = tmp_path / archive.NAME
    asked = json.loads((there / "gpu_check_data" / "squad" / "dev.json").read_text())["data"][0]["paragraphs"][0]["qas"]
    assert len(asked) == archive.QUESTIONS["dev"]
    assert not list(there.rglob("*.so")) and (there / "tests" / "conftest.py").exists()
    command = [sys.executable, "benchmarks/gpu_check", "--small", "--device", "cpu", "--only", "ceilings"]
    subprocess.run(command, cwd=there, capture_output=True, timeout=120, env={**os.environ, "PYTHONPATH": ""})
    line = driver.read_lines(there / "gpu_check_results")[1]
    assert line["ok"], line
    assert (there / "packages" / "tyro").is_dir() and (there / "packages" / ".one.whl").exists()


def test_an_archive_beyond_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "LIMIT", 10_000)
    monkeypatch.setattr(archive, "_SOURCES", ("README.md",))
    text = write_small_text(tmp_path / "text.txt")
    questions = [write_questions(tmp_path / f"{part}.json", 4) for part in ("train", "dev")]
    options: dict[str, Any] = {"vocab": None, "wheels": None, "megabytes": 1, "vocab_size": 200}
    with pytest.raises(UserError, match="megabytes"):
        archive.make_archive(tmp_path / "check.tar.gz", ROOT, text=[text], squad=questions, **options)
    assert not list(tmp_path.glob("check*"))
