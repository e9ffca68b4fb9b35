"""Reading run folders, sound and damaged."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lambert.errors import UserError
from lambert.runlog.reader import read_run
from lambert.runlog.records import check_run_format, parse_line
from lambert.runlog.schema import FORMAT_VERSION

RUN: dict[str, Any] = {"event": "run", "format_version": FORMAT_VERSION}


def step(number: int, loss: object = 7.0, **more: Any) -> dict[str, Any]:
    return {"event": "step", "time": 1.0, "step": number, "phase": 1, "mlm_loss": loss, **more}


def test_the_last_record_of_a_step_wins_whatever_the_order(make_run_folder: Callable[..., Path]) -> None:
    records = [step(1, 9.0), step(2, 8.0), step(3, 7.0), RUN, step(2, 5.0), step(3, 4.0)]
    run = read_run(make_run_folder(records=records))
    assert run.steps.tolist() == [1, 2, 3]
    assert run.series["mlm_loss"].tolist() == [9.0, 5.0, 4.0]


def test_an_end_before_a_resume_is_no_end(make_run_folder: Callable[..., Path]) -> None:
    end = {"event": "end", "step": 2, "reason": "interrupted", "seconds": 3.0}
    run = read_run(make_run_folder("a", [RUN, step(1), end, RUN, step(2)]))
    assert run.end is None and run.starts == 2
    assert read_run(make_run_folder("b", [RUN, step(1), end])).end == end


def test_half_a_last_line_is_skipped_silently_and_bad_lines_are_counted(
    make_run_folder: Callable[..., Path],
) -> None:
    folder = make_run_folder(records=[])
    good = json.dumps(step(1)).encode()
    deep = b"[" * 100_000
    lines = [
        good,
        b'{"event": "step", "st',
        b"",
        b"\xff\xfe",
        b"[1]",
        b'{"event": "step"}',
        deep,
        b'{"a": 1}',
    ]
    (folder / "journal.jsonl").write_bytes(b"\n".join([*lines, json.dumps(step(2)).encode(), b'{"event": "st']))
    run = read_run(folder)
    assert run.steps.tolist() == [1, 2]
    assert run.bad_lines == (2, 4, 5, 6, 7, 8)


def test_half_a_line_that_a_resumed_run_has_ended_is_no_damage(make_run_folder: Callable[..., Path]) -> None:
    folder = make_run_folder(records=[step(1)])
    with (folder / "journal.jsonl").open("a") as journal:
        journal.write('{"event": "st\n' + json.dumps(RUN) + "\n" + json.dumps(step(2)) + "\n{damage\n")
    assert read_run(folder).bad_lines == (5,)


def test_a_whole_last_line_without_newline_counts(make_run_folder: Callable[..., Path]) -> None:
    folder = make_run_folder(records=[step(1)])
    with (folder / "journal.jsonl").open("ab") as journal:
        journal.write(json.dumps(step(2)).encode())
    assert read_run(folder).steps.tolist() == [1, 2]


@pytest.mark.parametrize("loss", [math.nan, math.inf, None, "7.0", True, [], 10**400])
def test_a_loss_that_is_no_finite_number_is_nan(make_run_folder: Callable[..., Path], loss: object) -> None:
    run = read_run(make_run_folder(records=[step(1, loss), step(2, 6.5)]))
    assert np.isnan(run.series["mlm_loss"][0]) and run.series["mlm_loss"][1] == 6.5


@pytest.mark.parametrize("number", [None, "1", -1, 1.5, True, math.nan, math.inf, 1e300, 10**400])
def test_a_step_without_a_usable_number_is_a_bad_line(make_run_folder: Callable[..., Path], number: object) -> None:
    run = read_run(make_run_folder(records=[step(1), {**step(2), "step": number}]))
    assert run.steps.tolist() == [1] and run.bad_lines == (2,)


def test_events_of_later_versions_are_left_alone(make_run_folder: Callable[..., Path]) -> None:
    run = read_run(make_run_folder(records=[step(1), {"event": "gradient_noise", "step": 1, "scale": 4096}]))
    assert run.bad_lines == ()


def test_the_last_noise_scale_of_a_phase_counts(make_run_folder: Callable[..., Path]) -> None:
    sizes = {"event": "noise", "small_batch": 8, "large_batch": 64, "noise": 1.0, "signal": 1.0}
    records = [
        step(1),
        {**sizes, "step": 1, "phase": 1, "noise_scale": None, "standard_error": None, "steps": 1},
        {**sizes, "step": 2, "phase": 1, "noise_scale": 800.0, "standard_error": 90.0, "steps": 2},
        {**sizes, "step": 3, "phase": 2, "noise_scale": None, "standard_error": None, "steps": 1},
        {**sizes, "step": "4", "phase": 2, "noise_scale": 1.0, "standard_error": 1.0, "steps": 2},
    ]
    run = read_run(make_run_folder(records=records))
    first, second = run.last_noise(1), run.last_noise(2)
    assert first is not None and (first.noise_scale, first.standard_error, first.steps) == (800, 90, 2)
    assert second is not None and second.step == 3 and math.isnan(second.noise_scale)
    assert run.last_noise(3) is None and run.bad_lines == (5,)


def test_a_line_without_end_is_read_in_parts(
    make_run_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run_folder(records=[step(1), {"event": "x", "text": "y" * 5_000}, step(2)])
    monkeypatch.setattr("lambert.runlog.records.MOST_LINE_BYTES", 1_000)
    run = read_run(folder)
    assert run.steps.tolist() == [1, 2] and len(run.bad_lines) == 1


def test_trust_ratios_make_a_table_with_gaps(make_run_folder: Callable[..., Path]) -> None:
    ratios = [
        {"event": "trust_ratios", "step": 1, "trust_ratios": {"a": 0.1}},
        {"event": "trust_ratios", "step": 2, "trust_ratios": {"b": 0.4, "a": 0.2}},
    ]
    table = read_run(make_run_folder(records=[step(1), *ratios])).trust_ratios
    assert table.layers == ("a", "b") and table.steps.tolist() == [1, 2]
    np.testing.assert_array_equal(table.values, [[0.1, np.nan], [0.2, 0.4]])


def test_a_realistic_run_is_read_whole(make_run_folder: Callable[..., Path]) -> None:
    run = read_run(make_run_folder(steps=100))
    assert [(p.sequence_length, p.first_step, p.last_step) for p in run.phases] == [
        (128, 1, 90),
        (512, 91, 100),
    ]
    assert run.final is not None and run.final.step == 100 and run.final.unigram_loss == 6.99
    assert run.recipe["model"]["layers"] == 4 and len(run.fills) == 3 and run.bad_lines == ()
    assert run.training_seconds == pytest.approx(sum(run.series["seconds"]))


def test_missing_and_empty_runs_are_refused_with_a_remedy(tmp_path: Path, make_run_folder: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match="no run folder .*nowhere"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"holds no journal\.jsonl"):
        read_run(tmp_path)
    for name, records in (("empty", []), ("no-step", [RUN]), ("damaged", [{"event": 3}])):
        with pytest.raises(UserError, match="records no step yet") as caught:
            read_run(make_run_folder(name, records))
        assert caught.value.remedy


def test_a_missing_or_broken_recipe_is_a_notice(make_run_folder: Callable[..., Path]) -> None:
    assert "no recipe.toml" in read_run(make_run_folder("a", [step(1)], recipe=None)).notices[0]
    assert "could not be read" in read_run(make_run_folder("b", [step(1)], recipe="= nonsense")).notices[0]


def test_only_objects_with_an_event_are_records() -> None:
    assert parse_line(b'{"event": "run"}') == {"event": "run"}
    assert [parse_line(line) for line in (b"", b"null", b'"event"', b'{"event": 1}', b"{")] == [None] * 5


@pytest.mark.parametrize("version", [None, 1, 3, "2"])
def test_a_journal_of_another_format_is_refused(make_run_folder: Callable[..., Path], version: object) -> None:
    """Before anything of it is shown, wherever the record stands, with the way out."""
    other = {"event": "run"} if version is None else {"event": "run", "format_version": version}
    folder = make_run_folder(records=[RUN, step(1), other, step(2)])
    for read in (read_run, lambda folder: check_run_format(folder / "journal.jsonl")):
        with pytest.raises(UserError, match=r"journal\.jsonl has (a )?journal format .*reads format 2 only") as caught:
            read(folder)
        assert "--fresh" in caught.value.remedy
    check_run_format(make_run_folder("same", [RUN, step(1)]) / "journal.jsonl")
    check_run_format(folder / "no such file")
