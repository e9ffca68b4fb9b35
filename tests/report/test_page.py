"""The page: complete, self-contained, escaped, small, the same every time, and seen by a browser."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lambert.errors import UserError
from lambert.report import write_report
from lambert.report.document import library, own_script, writable

MakeRun = Callable[..., Path]
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(html.parser.HTMLParser):
    """Checks that tags are balanced and gathers tags, attributes and text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.scripts: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, text: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(text)
        else:
            self.text += text

    @property
    def data(self) -> dict[str, Any]:
        """What the charts are drawn from."""
        return json.loads(self.scripts[0])


def report(out: Path, *runs: Path) -> Page:
    return Page(write_report(runs, out).read_text("utf-8"))


def test_the_table_of_phases_has_the_noise_scale_where_it_was_measured(
    make_run_folder: MakeRun, tmp_path: Path
) -> None:
    measured = {
        "event": "noise",
        "step": 100,
        "phase": 1,
        "small_batch": 8,
        "large_batch": 64,
        "noise": 1.0,
        "signal": 1.0,
        "noise_scale": 2_389.4,
        "standard_error": 575.6,
        "steps": 256,
    }
    run = make_run_folder(steps=120)
    assert "Noise scale" not in report(tmp_path / "report.html", run).text
    with (run / "journal.jsonl").open("a") as journal:
        journal.write(json.dumps(measured) + "\n")
    text = report(tmp_path / "report.html", run).text
    assert "Noise scale" in text and "2,389 ± 576" in text


def test_every_evaluation_stands_beside_its_own_baseline(
    make_run_folder: MakeRun, make_journal: Any, tmp_path: Path
) -> None:
    records = make_journal(steps=100, every=50)
    levels = {50: 6.5, 100: 6.25}
    for record in records:
        if record["event"] == "evaluation":
            record |= {"unigram_loss": levels[record["step"]], "nsp_loss": None, "mlm_loss": 5.0}
    page = report(tmp_path / "report.html", make_run_folder(records=records))
    assert "501285.0001486.500" in page.text  # step, length, loss, its exponential, baseline
    assert "1005125.0001486.250" in page.text
    assert "NSP loss" not in page.text


def test_training_and_evaluation_are_drawn_over_the_same_tokens(
    make_run_folder: MakeRun, make_journal: Any, tmp_path: Path
) -> None:
    """Where a journal has the loss at [MASK] tokens; else the caption says that the two differ."""
    whole = make_run_folder("whole", steps=40)
    page = report(tmp_path / "whole.html", whole)
    own = [record["mask_token_loss"] for record in make_journal(steps=40) if record["event"] == "step"]
    assert page.data["tables"]["steps"]["columns"]["mlm_loss_0"] == pytest.approx(own, rel=1e-3)
    assert "both count [MASK] tokens only" in page.text and "Not the same tokens" not in page.text
    assert "nats per [MASK] token" in str(page.data["charts"]["loss"])
    assert "fraction of [MASK] tokens" in str(page.data["charts"]["accuracy"])
    records = make_journal(steps=40)
    for record in records[: len(records) // 2]:  # what an older version wrote of a run that was resumed
        record.pop("mask_token_loss", None)
    resumed = make_run_folder("resumed", records)
    page = report(tmp_path / "resumed.html", resumed)
    every = [record["mlm_loss"] for record in records if record["event"] == "step"]
    assert page.data["tables"]["steps"]["columns"]["mlm_loss_0"] == pytest.approx(every, rel=1e-3)
    assert "Not the same tokens" in page.text and "nats per masked token" in str(page.data["charts"]["loss"])
    assert "Not the same tokens" in report(tmp_path / "both.html", whole, resumed).text


def test_one_run_from_headline_to_footer(make_run_folder: MakeRun, tmp_path: Path) -> None:
    page = report(tmp_path / "report.html", make_run_folder(steps=120))
    for expected in (
        "mini-lamb", "11.17 million parameters", "pre-trained with LAMB in 2 phases",
        "Finished after 120 steps",
        "Unigram baseline: 6.990, perplexity 1,086", "times the most-frequent-token baseline: 5.1 %",
        "MLM loss", "Learning rate", "Trust ratios", "The capital of France is",
        "short_sequence_probability",
        "Intel Xeon @ 2.20 GHz", "8.3 GB", "9f3c2ab07d15",
        "lambert pretrain --corpus 'corpora/my docs' --model mini --batch-size 256 128",
        "last checkpoint at step 120",
    ):  # fmt: skip
        assert expected in page.text, expected
    assert list(page.data["charts"]) == [
        "loss", "accuracy", "next-sentence", "learning-rate", "gradient-norm", "tokens-per-second", "trust-0",
    ]  # fmt: skip
    places = [value for name, value in page.attributes if name == "data-chart"]
    assert places == list(page.data["charts"])


def test_nothing_is_requested_and_nothing_runs(make_run_folder: MakeRun, tmp_path: Path) -> None:
    page = report(
        tmp_path / "report.html",
        make_run_folder(steps=60, layers=1),
        make_run_folder("b", steps=9, layers=1, batch_sizes=(64, 32)),
    )
    assert not {"link", "iframe", "object", "embed", "base", "form", "img"} & set(page.tags)
    for name, value in page.attributes:
        assert not name.startswith("on")
        assert name not in ("src", "href", "xlink:href", "srcset", "data", "action"), value
    source = (tmp_path / "report.html").read_text("utf-8")
    without_scripts = re.sub(r"<script.*?</script>", "", source, flags=re.DOTALL)
    assert "@import" not in without_scripts and "url(" not in without_scripts


def test_only_the_library_and_our_own_script_may_run(make_run_folder: MakeRun, tmp_path: Path) -> None:
    page = report(tmp_path / "report.html", make_run_folder(steps=5, layers=1))
    policy = next(value for name, value in page.attributes if name == "content" and value and "default-src" in value)
    data, *run = page.scripts
    assert len(run) == 2 and "vegaEmbed" in run[0] and run[1] == own_script()
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in run]
    assert policy.split("; ")[:2] == ["default-src 'none'", "script-src " + " ".join(f"'sha256-{h}'" for h in hashes)]
    types = [value for name, value in page.attributes if name == "type" and value and "json" in value]
    assert types == ["application/json"] and page.tags.count("script") == 3 and "<" not in data


def test_words_from_a_run_never_become_markup(make_run_folder: MakeRun, make_journal: Any, tmp_path: Path) -> None:
    evil = '"><script>alert(1)</script>&amp;<img src=x onerror=alert(2)>]]><!--'
    records = make_journal(steps=8)
    for record in records:
        if record["event"] == "run":
            record |= {"model": evil, "optimizer": evil, "torch": evil, "lambert": evil, "host": {evil: evil}}
            record["corpus"] = {"path": evil}
        if record["event"] == "fill":
            record |= {"text": f"[MASK] {evil}", "candidates": [{"word": evil, "probability": 0.5}]}
        if record["event"] == "trust_ratios":
            record["trust_ratios"] = {f"{name}{evil}": 0.3 for name in "ab"}
        if record["event"] == "end":
            record["reason"] = evil
    toml = f"command = '{evil}'\n'<script>' = '</td><script>'\n['{evil}']\nx = ['{evil}']\n"
    name = "<script>alert(1)<!--" + chr(34)
    page = report(tmp_path / "r.html", make_run_folder(name, records, toml), make_run_folder("<script>2", steps=3))
    assert page.tags.count("script") == 3 and "img" not in page.tags
    assert page.scripts[1:] == [library(), own_script()] and not set("<>&") & set(page.scripts[0])
    assert [run["name"] for run in page.data["tables"]["runs"]["rows"]] == [name, "<script>2"]
    assert page.data["tables"]["trust-0-rows"]["rows"][0]["name"].endswith(evil)
    assert not any(attribute.startswith("on") for attribute, _ in page.attributes)
    assert page.text.count(evil) >= 12 and name in page.text and "</td><script>" in page.text
    report(tmp_path / "one.html", tmp_path / "runs" / name)


def test_settings_with_reasons_and_repeated_sections(make_run_folder: MakeRun, tmp_path: Path) -> None:
    recipe = """
betas = [0.9, 0.999]
initial_weights = ""
[[phases]]
batch_size = 64
[phases.steps]
value = 675
formula = "round(0.9 · S/B)"
provenance = "published"
[[phases]]
batch_size = 32
"""
    report(tmp_path / "r.html", make_run_folder(steps=3, recipe=recipe))
    source = (tmp_path / "r.html").read_text("utf-8")
    assert "<caption>phases 1</caption>" in source and "<caption>phases 2</caption>" in source
    assert "<td>675 (round(0.9 · S/B); published)</td>" in source
    assert "<td>0.9, 0.999</td>" in source and '<th scope="row">initial_weights</th><td>–</td>' in source


def test_captions_speak_of_evaluations_only_where_there_are_some(make_run_folder: MakeRun, tmp_path: Path) -> None:
    assert "Dots: held-out" in report(tmp_path / "a.html", make_run_folder("a", steps=5, layers=1)).text
    assert "Dots" not in report(tmp_path / "b.html", make_run_folder("b", steps=5, layers=1, evaluate=False)).text


def test_several_runs_are_compared(make_run_folder: MakeRun, tmp_path: Path) -> None:
    first = make_run_folder("batch-256", steps=80)
    recipe = (first / "recipe.toml").read_text("utf-8").replace("epsilon = 1e-6", "epsilon = 1e-8")
    second = make_run_folder("batch-64", steps=80, batch_sizes=(64, 32), floor=5.9, recipe=recipe)
    page = report(tmp_path / "r.html", first, second)
    source = (tmp_path / "r.html").read_text("utf-8")
    assert "2 runs compared" in page.text and list(page.data["axes"]) == ["step", "samples", "tokens", "hours"]
    assert '<td class="">optimizer.epsilon</td><td class="">1e-8</td><td class="">1e-6</td>' in source
    assert "weight_decay" not in source.split("<h2>Curves</h2>")[0]
    bold = re.findall(r'class="number best">([^<]+)', source)
    row = re.search(r"batch-64</label></td>(.*?)</tr>", source)
    assert row and len(bold) == 2 and all(f">{value}<" in row[1] for value in bold)


def test_the_same_runs_give_the_same_bytes(make_run_folder: MakeRun, tmp_path: Path) -> None:
    runs = [make_run_folder(steps=70, layers=1), make_run_folder("b", steps=10, seed=1, layers=1)]
    first = write_report(runs, tmp_path / "1.html").read_bytes()
    assert write_report(runs, tmp_path / "2.html").read_bytes() == first


@pytest.mark.parametrize(
    "options",
    [{"steps": 1}, {"steps": 2}, {"second_phase": False, "steps": 70}, {"evaluate": False, "steps": 40}],
)
def test_short_and_bare_runs(make_run_folder: MakeRun, tmp_path: Path, options: dict[str, Any]) -> None:
    options = {"second_phase": options["steps"] > 1, **options}
    page = report(tmp_path / "r.html", make_run_folder(**options))
    assert f"Finished after {options['steps']} steps" in page.text
    assert "nan" not in re.sub(r"[a-z]*nan[a-z]+", "", page.text.lower())


def test_a_run_of_bare_steps_and_one_that_diverged(make_run_folder: MakeRun, make_journal: Any, tmp_path: Path) -> None:
    bare = [{"event": "step", "step": step, "mlm_loss": 8.0} for step in (1, 2, 3)]
    page = report(tmp_path / "bare.html", make_run_folder("bare", bare, recipe=None))
    assert "records no command" in page.text and "no recipe.toml" in page.text and "still training" in page.text
    records = make_journal(steps=100)
    for record in records:
        if record["event"] == "step" and record["step"] >= 60:
            record |= {"mlm_loss": float("nan"), "gradient_norm": float("inf"), "loss": None}
    page = report(tmp_path / "nan.html", make_run_folder("nan", records))
    assert "41 steps have a NaN or infinite loss, the first is step 60" in page.text
    for record in records:
        if record["event"] == "step":
            record["mlm_loss"] = None
    page = report(tmp_path / "all.html", make_run_folder("all", records))
    assert "100 steps have a NaN" in page.text


def test_damaged_lines_are_reported_on_the_page(make_run_folder: MakeRun, tmp_path: Path) -> None:
    run = make_run_folder(steps=10)
    lines = (run / "journal.jsonl").read_text("utf-8").splitlines()
    lines[4:4] = ["{damaged", "more damage", "and more"]
    (run / "journal.jsonl").write_text("\n".join(lines) + '\n{"event": "st', "utf-8")
    page = report(tmp_path / "r.html", run)
    assert "3 damaged lines were skipped in journal.jsonl (line 5–7)." in page.text


def test_a_long_run_stays_small(make_run_folder: MakeRun, make_journal: Any, tmp_path: Path) -> None:
    records = [record for record in make_journal(steps=200, layers=1) if record["event"] != "step"]
    run = make_run_folder(records=records)
    line = '{"event": "step", "step": %d, "phase": 1, "mlm_loss": %f, "seconds": 1}\n'
    with (run / "journal.jsonl").open("a") as journal:
        journal.writelines(line % (n + 1, 6 + (n * 7_919 % 1_000) / 1e3) for n in range(100_000))
    out = write_report([run], tmp_path / "r.html")
    assert out.stat().st_size < len(library()) + 250_000


def test_wrong_input(make_run_folder: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run folder was given"):
        write_report([], tmp_path / "r.html")
    with pytest.raises(UserError, match="nowhere"):
        write_report([tmp_path / "nowhere"], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()
    run = make_run_folder(steps=2)
    with pytest.raises(UserError, match="is a folder"):
        write_report([run], tmp_path)
    with pytest.raises(UserError, match="cannot be written"):
        write_report([run], run / "recipe.toml" / "r.html")


def test_reading_needs_neither_torch_nor_vega() -> None:
    code = (
        "import sys, lambert.report, lambert.runlog.tail, lambert.utils.formatting, lambert.runlog.reader;"
        "print(sorted({'torch', 'vl_convert'} & set(sys.modules)));"
        "import lambert.report.page, lambert.report.pictures; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_environment())
    assert done.stdout.split("\n")[:2] == ["[]", "False"]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def test_a_file_that_is_no_page_is_not_written_over(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("years of work")
    with pytest.raises(UserError, match="no page or picture"):
        writable(text)
    assert text.read_text() == "years of work"
    (tmp_path / "old.html").write_text("<!doctype html>\n<html></html>")
    (tmp_path / "empty").touch()
    for name in ("old.html", "empty", "new.html"):
        assert writable(tmp_path / name) == tmp_path / name
