"""The page as a browser shows it: charts drawn, choices obeyed, nothing complained of, dark, narrow and on paper."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import zlib
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import pytest

from lambert.cli.main import main
from lambert.corpus.store import Corpus
from lambert.report import document, write_finetune_page, write_report, write_squad_page
from lambert.report.document import own_script
from report.fine_tuning_facts import finetune_facts, squad_facts

MakeRun = Callable[..., Path]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--hide-scrollbars", "--enable-logging=stderr", "--virtual-time-budget=5000",
]  # fmt: skip

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on PATH to open the page with")


def browse(page: Path, *flags: str, width: int = 1280) -> str:
    """What the browser prints; a browser complains on the console of what it refused, asked for or could not read."""
    profile = page.parent / "profile"
    command = [str(BROWSER), *FLAGS, f"--user-data-dir={profile}", f"--window-size={width},1600", *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    return done.stdout


def with_incidents(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The journal of a run with noise, the parts of its steps and a spike."""
    for record in records:
        if record["event"] == "step":
            record["step_time_breakdown"] = {"data": 0.1, "forward": 0.2, "backward": 0.4}
            record["mfu"] = 0.4
    sizes = {"event": "noise", "phase": 1, "small_batch": 8, "large_batch": 256, "steps": 9}
    noise = [{**sizes, "step": step, "noise_scale": 90.0 + step, "standard_error": 20.0} for step in range(9, 99, 9)]
    return [*records, *noise, {"event": "spike", "step": 50, "spikes": []}]


def test_everything_is_drawn_in_the_dark(make_run_folder: MakeRun, make_journal: Any, tmp_path: Path) -> None:
    out = write_report([make_run_folder(records=with_incidents(make_journal(steps=120)))], tmp_path / "report.html")
    picture = tmp_path / "page.png"
    browse(out, "--blink-settings=preferredColorScheme=0", f"--screenshot={picture}")
    colours = pixels(picture)
    assert colours[(18, 22, 31)] > 0.5  # the paper at night
    assert colours.get((130, 173, 255), 0.0) > 5e-4  # the loss line, in series-1
    assert colours.get((255, 154, 98), 0.0) > 5e-5  # evaluation dots, in series-2


def test_a_phone_and_a_run_s_own_words(make_run_folder: MakeRun, make_journal: Any, tmp_path: Path) -> None:
    """A name that would end the script is data; the charts fit the screen."""
    name = "<script>alert(1)<!--" + chr(34)
    records = with_incidents(make_journal(steps=120))
    for record in records:
        if record["event"] == "trust_ratios":
            record["trust_ratios"] = {"</script><script>alert(2)</script>": 0.3, "$x": 0.4}
    out = write_report([make_run_folder(name, records)], tmp_path / "report.html")
    shown = browse(out, "--dump-dom", width=500)
    assert 'data-drawn="yes"' in shown
    drawn = re.sub(r"<script.*?</script>", "", shown, flags=re.DOTALL)
    charts = re.findall(r'<div class="chart[^>]*data-chart="([^"]+)".*?<svg[^>]* width="(\d+)"', drawn, flags=re.DOTALL)
    assert [chart for chart, _ in charts] == [
        "loss", "accuracy", "next-sentence", "learning-rate", "gradient-norm", "tokens-per-second", "mfu",
        "noise-0", "parts-0", "trust-0",
    ]  # fmt: skip
    assert all(300 < int(width) <= 468 for _, width in charts)
    assert ">length 128, batch 256<" in drawn
    assert ">$x</text>" in drawn
    assert "&lt;/script&gt;&lt;script" in drawn


DRIVER = r"""
const seen = {};
document.querySelectorAll("[data-chart]:not([data-chart=loss])").forEach((place) => place.remove());
function choose(selector, value) {
  const control = document.querySelector(selector);
  if (control.type === "checkbox") control.checked = value; else control.value = value;
  control.dispatchEvent(new Event("change", { bubbles: true }));
  return drawing;
}
function look(name) {
  const chart = document.querySelector("[data-chart=loss]");
  const texts = [...chart.querySelectorAll(".role-axis-title text")].map((text) => text.textContent);
  const lines = [...chart.querySelectorAll(".mark-line path")].map((path) => path.getAttribute("d"));
  const colours = [...chart.querySelectorAll(".mark-line path")].map((path) => path.getAttribute("stroke"));
  const ticks = [...chart.querySelectorAll(".role-axis-label text")].map((text) => text.textContent);
  const description = chart.getAttribute("aria-label");
  const baselines = chart.querySelectorAll(".mark-rule line[stroke-dasharray]").length;
  seen[name] = { texts, lines, colours: [...new Set(colours)], ticks, description, baselines };
}
drawing.then(async () => {
  look("first");
  await choose("[data-control=axis]", "hours"); look("hours");
  await choose("[data-control=axis]", "step"); await choose("[data-control=smoothing]", "2"); look("smooth");
  await choose("[data-log=loss]", true); look("log"); await choose("[data-log=loss]", false);
  await choose("[data-control=range]", "0.25"); look("last quarter"); await choose("[data-control=range]", "1");
  await choose("[data-control=colour]", "optimizer"); look("by optimizer");
  await choose("[data-run='0']", false); look("one hidden");
  await choose("[data-group]", true); look("all again");
  const svg = document.querySelector("[data-chart=loss] svg"), box = svg.getBoundingClientRect();
  const spot = { clientX: box.left + box.width / 2, clientY: box.top + box.height / 2, bubbles: true };
  const pause = () => new Promise((go) => setTimeout(go, 300));
  const point = (target, name, more) =>
    target.dispatchEvent(new PointerEvent(name, { pointerType: "mouse", ...spot, ...more }));
  const points = document.querySelectorAll("[data-chart=loss] .mark-symbol path[opacity='0']");
  const under = points[Math.floor(points.length / 2)];
  point(under, "pointerover", {}); point(under, "pointermove", {}); await pause();
  const tooltip = document.getElementById("vg-tooltip-element");
  seen.tooltip = tooltip.classList.contains("visible") ? tooltip.textContent : "";
  under.dispatchEvent(new WheelEvent("wheel", { ...spot, deltaY: -300 })); await pause(); look("only scrolled");
  under.dispatchEvent(new WheelEvent("wheel", { ...spot, deltaY: -300, ctrlKey: true })); await pause(); look("zoomed");
  point(under, "pointerdown", {}); point(window, "pointermove", { clientX: spot.clientX - 200 });
  point(window, "pointerup", {}); await pause(); look("dragged");
  const answer = document.createElement("pre");
  answer.id = "answer";
  answer.textContent = JSON.stringify(seen);
  document.body.append(answer);
});
"""


def test_the_reader_s_choices(make_run_folder: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "own_script", lambda: own_script() + DRIVER)
    runs = [
        make_run_folder("a", steps=300, layers=1, second_phase=False),
        make_run_folder("b", steps=250, layers=1, second_phase=False, seed=1, floor=5.9),
        make_run_folder("c", steps=300, layers=1, second_phase=False, seed=2, floor=6.6, optimizer="adamw"),
    ]
    shown = browse(write_report(runs, tmp_path / "report.html"), "--dump-dom")
    seen = json.loads(re.search(r'<pre id="answer">(.*?)</pre>', shown)[1])
    first = seen["first"]
    assert first["texts"] == ["optimizer step", "nats per [MASK] token"] and len(first["lines"]) == 3
    assert first["description"] == "MLM loss, nats per [MASK] token"
    assert len(first["colours"]) == 3
    assert seen["hours"]["texts"][0] == "hours of training" and seen["hours"]["ticks"] != first["ticks"]
    assert seen["smooth"]["texts"] == first["texts"] and seen["smooth"]["lines"] != first["lines"]
    assert seen["log"]["texts"] == first["texts"] and seen["log"]["lines"] != seen["smooth"]["lines"]
    assert [len(line) for line in seen["last quarter"]["lines"]] < [len(line) for line in first["lines"]]
    assert len(seen["by optimizer"]["colours"]) == 2 and len(seen["by optimizer"]["lines"]) == 3
    tooltip = re.search(r"run.*[abc].*step.*\d.*nats per \[MASK\] token.*?([\d.]+)perplexity([\d,]+)", seen["tooltip"])
    loss, perplexity = (float(text.replace(",", "")) for text in tooltip.groups())
    assert perplexity == pytest.approx(math.exp(loss), rel=2e-3)
    assert seen["only scrolled"]["ticks"] == seen["all again"]["ticks"] != seen["zoomed"]["ticks"]
    assert seen["dragged"]["ticks"] != seen["zoomed"]["ticks"]
    assert first["baselines"] == 2 and seen["one hidden"]["baselines"] == 1  # two runs of three share theirs
    assert len(seen["one hidden"]["lines"]) == 2 and len(seen["all again"]["lines"]) == 3


FRAME = """<!doctype html><meta charset="utf-8">
<iframe style="border:0;width:{width}px;height:1600px"></iframe><textarea id="page" hidden>{page}</textarea><script>
const frame = document.querySelector("iframe");
frame.addEventListener("load", () => setTimeout(() => {{
  const root = frame.contentDocument.documentElement, answer = document.createElement("pre");
  answer.id = "answer";
  answer.textContent = root.clientWidth + " " + root.scrollWidth;
  document.body.append(answer);
}}, 2000));
frame.srcdoc = document.getElementById("page").value;
</script>"""


@pytest.mark.parametrize("width", [390, 768])
def test_no_page_is_wider_than_the_screen(
    make_run_folder: MakeRun, small_corpus: Corpus, tmp_path: Path, width: int
) -> None:
    """The browser's own window has at least 500 pixels, so pages are opened in a frame."""
    pages = [tmp_path / name for name in ("run.html", "runs.html", "corpus.html", "squad.html", "finetune.html")]
    runs = [make_run_folder(name, steps=60) for name in ("a" * 60, "b", "c")]
    write_report(runs[:1], pages[0])
    write_report(runs, pages[1])
    assert main(["inspect", str(small_corpus.path), "--lengths", "32", "--out", str(pages[2])]) == 0
    write_squad_page(squad_facts(), pages[3])
    write_finetune_page(finetune_facts(), pages[4])
    for page in pages:
        frame = page.with_suffix(".frame.html")
        frame.write_text(FRAME.format(width=width, page=escape(page.read_text("utf-8"))), "utf-8")
        found = re.search(r'<pre id="answer">(\d+) (\d+)</pre>', browse(frame, "--dump-dom", width=max(width, 500)))
        assert found is not None and found.groups() == (str(width), str(width)), page.name


def test_text_has_room_on_a_phone(tmp_path: Path) -> None:
    """No table of a fine-tuning is scrolled sideways, and its texts have the whole width."""
    page, frame = write_finetune_page(finetune_facts(), tmp_path / "page.html"), tmp_path / "frame.html"
    measured = """[...frame.contentDocument.querySelectorAll(".first-wide .scroll")].map(one => [
      one.clientWidth, one.scrollWidth, Math.round(one.querySelector("tbody td").getBoundingClientRect().width)
    ].join(" ")).join(";")"""
    script = FRAME.replace('root.clientWidth + " " + root.scrollWidth', measured.replace("{", "{{").replace("}", "}}"))
    frame.write_text(script.format(width=420, page=escape(page.read_text("utf-8"))), "utf-8")
    found = re.search(r'<pre id="answer">([^<]*)</pre>', browse(frame, "--dump-dom", width=500))
    assert found is not None
    assert found[1].split(";") == ["388 388 388"] * 2  # 420 less the margins


def test_charts_are_lines_on_paper(make_run_folder: MakeRun, tmp_path: Path) -> None:
    out = write_report([make_run_folder(steps=120, layers=1)], tmp_path / "report.html")
    browse(out, "--no-pdf-header-footer", f"--print-to-pdf={tmp_path / 'page.pdf'}")
    content = (tmp_path / "page.pdf").read_bytes()
    streams = re.findall(rb"stream\r?\n(.*?)endstream", content, flags=re.DOTALL)
    drawn = b"".join(zlib.decompressobj().decompress(stream) for stream in streams if stream.startswith(b"\x78"))
    assert len(re.findall(rb" l\n", drawn)) > 5 * 120  # each of six curves by its own points


def pixels(picture: Path) -> dict[tuple[int, ...], float]:
    """The fraction of the picture that each colour has."""
    shown = pytest.importorskip("PIL.Image").open(picture).convert("RGB")
    counts = shown.getcolors(maxcolors=shown.width * shown.height)
    return {colour: count / (shown.width * shown.height) for count, colour in counts}
