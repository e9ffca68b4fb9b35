"""The live display: plain lines, the panel, and a terminal that is left as it was found."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lambert.api.live import LiveDisplay, panel, plain_line
from lambert.runlog.tail import JournalTail, LiveState

RUN = {"event": "run", "total_steps": 20}
PHASE = {
    "event": "phase", "phase": 1, "sequence_length": 128, "batch_size": 1_024, "first_step": 1, "steps": 18,
    "peak_learning_rate": 0.0255, "warmup_steps": 4,
}  # fmt: skip
EVALUATION = {
    "event": "evaluation", "step": 10, "mlm_loss": 6.81, "mlm_accuracy": 0.099,
    "unigram_loss": 6.99,
    "unigram_accuracy": 0.0512,
}  # fmt: skip
CHECKPOINT = {
    "event": "checkpoint",
    "step": 10,
    "path": "checkpoints/step-10",
    "bytes": 17_500_000,
    "seconds": 0.2,
}
END = {"event": "end", "step": 20, "reason": "finished", "seconds": 200.0}


def step(number: int) -> dict[str, Any]:
    return {
        "event": "step", "step": number, "phase": 1, "loss": 7.9, "mlm_loss": 7.3, "mlm_accuracy": 0.2,
        "mask_token_loss": 7.42, "mask_token_accuracy": 0.102,
        "learning_rate": 0.0123, "sequences_per_second": 310.4, "tokens_per_second": 39_680.0,
        "eta_seconds": 130.0,
    }  # fmt: skip


def append(journal: Path, *records: dict[str, Any]) -> None:
    with journal.open("a") as file:
        file.write("".join(json.dumps(record) + "\n" for record in records))


def shown(journal: Path, *records: dict[str, Any], clock: Any = time.monotonic) -> list[str]:
    stream = io.StringIO()
    with LiveDisplay(journal, stream=stream, poll_seconds=0.005, clock=clock) as display:
        append(journal, *records)
    assert display.fault is None
    return stream.getvalue().splitlines()


def test_without_a_terminal_every_line_can_be_read_on_its_own(tmp_path: Path) -> None:
    lines = shown(tmp_path / "journal.jsonl", RUN, PHASE, step(1), EVALUATION, CHECKPOINT, step(20), END)
    assert lines == [
        "phase 1: steps 1 to 18, sequence length 128, batch 1,024, peak learning rate 0.0255 after 4 warm-up steps",
        "phase 1 (length 128, batch 1,024), step 1 of 20 (5 %), MLM loss 7.420, MLM accuracy 10.2 %,"
        " learning rate 0.0123, speed 310 sequences/s, 39,680 tokens/s, time left 2 min 10 s",
        "held-out at step 10: MLM loss 6.810, perplexity 907 (unigram baseline 6.990, 1,086),"
        " MLM accuracy 9.9 % (most frequent token 5.1 %)",
        "checkpoint at step 10: checkpoints/step-10 (17.5 MB in 0.2 s)",
        "phase 1 (length 128, batch 1,024), step 20 of 20 (100 %), MLM loss 7.420, MLM accuracy 10.2 %,"
        " learning rate 0.0123, speed 310 sequences/s, 39,680 tokens/s, time left 2 min 10 s",
        "finished at step 20 after 3 min 20 s",
    ]


def test_a_journal_without_the_loss_at_mask_tokens_shows_that_of_all() -> None:
    old = {name: value for name, value in step(1).items() if "mask_token" not in name}
    said = plain_line(old, LiveState())
    assert said is not None and "MLM loss 7.300, MLM accuracy 20.0 %" in said


def test_halved_micro_batches_are_told() -> None:
    record = {"event": "micro_batch", "step": 7, "phase": 2, "micro_batch_size": 4, "reason": "full"}
    said = plain_line(record, LiveState())
    assert said == (
        "out of memory after step 7: micro-batches of phase 2 now have 4 sequences; the global batch is unchanged"
    )


def test_steps_are_printed_now_and_then_and_the_last_one_always(tmp_path: Path) -> None:
    ticks = iter(range(0, 1_000, 4))  # four seconds a step, ten between lines
    steps = [step(number) for number in range(1, 9)]
    lines = shown(tmp_path / "journal.jsonl", RUN, *steps, clock=lambda: float(next(ticks)))
    assert [line.split("step ")[1].split(" ")[0] for line in lines] == ["1", "4", "7", "8"]


def test_an_earlier_part_of_the_journal_is_known_but_not_printed(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    append(journal, RUN, PHASE, step(1), {**END, "reason": "interrupted"})
    lines = shown(journal, step(2))
    assert len(lines) == 1 and "phase 1 (length 128, batch 1,024), step 2 of 20" in lines[0]


def test_damaged_and_half_lines_do_not_disturb(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    tail = JournalTail(journal)
    assert list(tail.read()) == []
    journal.write_bytes(b'{"event": "run"}\n{damaged\n[]\n{"event": "st')
    assert [record["event"] for record in tail.read()] == ["run"]
    with journal.open("ab") as file:
        file.write(b'ep", "step": 1}\n')
    assert list(tail.read()) == [{"event": "step", "step": 1}]
    assert list(tail.read()) == []
    state = LiveState()
    for record in (
        {"event": "phase"},
        {"event": "step"},
        {"event": "evaluation"},
        {"event": "end"},
        {"event": "?"},
    ):
        state.update(record)
        panel(state)


def test_a_journal_that_starts_afresh_is_read_from_its_beginning(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    append(journal, RUN, step(1), step(2))
    tail = JournalTail(journal)
    assert len(list(tail.read())) == 3
    journal.unlink()
    append(journal, {**RUN, "time": 2.0}, step(1), step(2), step(3))  # longer, and perhaps in the same inode
    assert len(list(tail.read())) == 4
    append(journal, step(4))
    assert list(tail.read()) == [step(4)]
    journal.write_text(json.dumps(RUN) + "\n")
    assert list(tail.read()) == [RUN]


def test_a_run_from_the_beginning_forgets_the_one_before() -> None:
    state = LiveState()
    for record in (RUN, PHASE, step(10), EVALUATION, CHECKPOINT, END, {**RUN, "resumed_from_step": 10}):
        state.update(record)
    assert state.end is None and state.step == step(10) and state.evaluation == EVALUATION
    state.update({**RUN, "resumed_from_step": 0})
    assert state == LiveState(header={**RUN, "resumed_from_step": 0})


@pytest.mark.parametrize("width", [40, 100])
def test_the_panel_shows_what_matters(width: int) -> None:
    state = LiveState()
    for record in (RUN, PHASE, step(10), EVALUATION, CHECKPOINT):
        state.update(record)
    console = Console(file=io.StringIO(), width=width)
    console.print(panel(state))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(len(line) <= width for line in text.splitlines())
    text = "".join(text.replace("│", " ").split())  # long values are folded in a narrow terminal
    for expected in (
        "10 of 20",
        "7.420",
        "10.2 %",
        "0.0123",
        "39,680",
        "2 min 10 s",
        "6.810",
        "6.990",
        "step-10",
    ):
        assert expected.replace(" ", "") in text, expected


def test_a_fault_in_the_display_does_not_stop_the_training(tmp_path: Path) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError("disk full")

    with LiveDisplay(tmp_path / "journal.jsonl", stream=Broken(), poll_seconds=0.005) as display:
        append(tmp_path / "journal.jsonl", PHASE)
    assert isinstance(display.fault, OSError)


def test_an_exception_passes_through_and_what_was_written_is_shown(tmp_path: Path) -> None:
    stream, journal = io.StringIO(), tmp_path / "journal.jsonl"
    with pytest.raises(KeyboardInterrupt), LiveDisplay(journal, stream=stream, poll_seconds=60):
        append(journal, CHECKPOINT)
        raise KeyboardInterrupt
    assert stream.getvalue().startswith("checkpoint at step 10")
    assert not any(thread.name == "live-display" for thread in threading.enumerate())


PROGRAM = """
import sys, time, json, pathlib
from lambert.api.live import LiveDisplay
journal = pathlib.Path(sys.argv[1])
with LiveDisplay(journal, stream=getattr(sys, sys.argv[4]), poll_seconds=0.01):
    for record in json.loads(sys.argv[2]):
        with journal.open("a") as file:
            file.write(json.dumps(record) + "\\n")
    print("a word from the training")
    time.sleep(0.3)
    kept = sys.stdout  # as a logging handler would
    kept.write("no end of line")
    if sys.argv[3] == "interrupt":
        raise KeyboardInterrupt
print(); print("after")
"""


def on_a_terminal(tmp_path: Path, how: str, stream: str = "stdout", *, stdout: int | None = None) -> str:
    """What the program writes to a terminal of 100 columns; standard output elsewhere where given."""
    ours, theirs = pty.openpty()
    environment = {
        **os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }  # fmt: skip
    records = json.dumps([RUN, PHASE, step(10), EVALUATION, CHECKPOINT])
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "journal.jsonl"), records, how, stream]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs if stdout is None else stdout, stderr=theirs, env=environment
    )
    os.close(theirs)
    written = b""
    while select.select([ours], [], [], 30)[0]:
        try:
            part = os.read(ours, 65_536)
        except OSError:  # Linux says so when the last writer is gone
            break
        if not part:
            break
        written += part
    process.wait(30)
    os.close(ours)
    return written.decode()


@pytest.mark.parametrize("how", ["finish", "interrupt"])
def test_a_terminal_gets_a_panel_its_cursor_back_and_all_output(tmp_path: Path, how: str) -> None:
    written = on_a_terminal(tmp_path, how)
    assert "╭" in written and "10 of 20" in written and "6.810" in written
    assert "a word from the training" in written and "no end of line" in written
    assert written.find("no end of line") < written.rfind("╭")  # above the panel, as everything else
    assert written.rfind("\x1b[?25h") > written.rfind("\x1b[?25l")
    assert -1 < written.find("\x1b[?25h") < written.find("10 of 20")  # not even while the panel is drawn
    assert ("after" in written) == (how == "finish")
    assert ("KeyboardInterrupt" in written) == (how == "interrupt")


STEPS = """
import sys, time, json, pathlib
from lambert.api.live import LiveDisplay
folder, record = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
with LiveDisplay(folder / "journal.jsonl", poll_seconds=0.01):
    while not (folder / "enough").exists():
        with (folder / "journal.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\\n")
        time.sleep(0.05)
"""


def screen(written: str, columns: int) -> list[str]:
    """The rows of a terminal after what was written: characters, line ends, cursor up and erased lines."""
    rows, row, column = [""], 0, 0
    for code, text in re.findall(r"\x1b\[([?\d;]*[A-Za-z])|([^\x1b])", written):
        if text == "\n":
            row += 1
        elif text == "\r":
            column = 0
        elif text:
            if column == columns:  # a full row wraps when the next character comes
                row, column = row + 1, 0
            rows += [""] * (row + 1 - len(rows))
            rows[row] = rows[row][:column].ljust(column) + text + rows[row][column + 1 :]
            column += 1
        elif code.endswith("A"):
            row -= int(code[:-1] or 1)
        elif code == "2K":
            rows[row] = ""
        rows += [""] * (row + 1 - len(rows))
    return rows


@pytest.mark.parametrize("columns", [60, 100])
def test_one_panel_is_left_after_control_c(tmp_path: Path, columns: int) -> None:
    """The terminal itself echoes ^C where the cursor is."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "40"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, "-c", STEPS, str(tmp_path), json.dumps(step(10))]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    written, is_sent = "", False
    while select.select([ours], [], [], 60)[0]:
        try:
            written += os.read(ours, 65_536).decode(errors="replace")
        except OSError:  # Linux says so when the last writer is gone
            break
        if not is_sent and "7.420" in written:
            is_sent = os.write(ours, b"\x03") == 1
        if "7.420" in written.partition("^C")[2]:
            (tmp_path / "enough").touch()
    assert process.wait(30) == 0
    os.close(ours)
    shown = "\n".join(screen(written, columns))
    assert shown.count("╭") == shown.count("╰") == 1 and shown.count("7.420") == 1
    assert max(map(len, shown.splitlines())) <= columns


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_that_goes_to_a_pipe_stays_in_the_pipe(tmp_path: Path, stream: str) -> None:
    with (tmp_path / "out").open("wb") as out:
        terminal = on_a_terminal(tmp_path, "finish", stream, stdout=out.fileno())
    text = (tmp_path / "out").read_text()
    assert "a word from the training\n" in text and text.endswith("no end of line\nafter\n")
    assert "\x1b" not in text and "╭" not in text
    assert ("held-out at step 10" in text) == (stream == "stdout")
    assert ("╭" in terminal) == (stream == "stderr")
