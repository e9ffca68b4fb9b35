"""Handing a journal on: once, again, and while it grows."""

from __future__ import annotations

from pathlib import Path

import pytest

from lambert.errors import UserError
from lambert.tracking.follow import Metrics, RunFacts, Tracked, track
from tracking.journals import END, PHASE, RUN, append, evaluation, step, write


class ListSink:
    """Keeps what it is told; `done` is what it says it has already."""

    name = "list"
    replaces_steps = True
    place: str | None = None
    shown_by: str | None = None
    words = ("--list",)

    def __init__(self, done: int = 0) -> None:
        self.done = done
        self.told: list[object] = []
        self.facts: RunFacts | None = None
        self.places: list[int] = []
        self.closed = self.ended = False

    def begin(self, facts: RunFacts) -> int:
        self.facts = facts
        return self.done

    def add(self, record: int, metrics: Metrics) -> None:
        self.told.append((record, metrics.step))

    def restart(self, step: int, seconds: float | None) -> None:
        self.told.append(f"again after {step}")

    def flush(self, record: int) -> None:
        self.places.append(record)

    def check(self, name: str) -> None: ...

    def close(self, *, ended: bool) -> None:
        self.closed, self.ended = True, ended


def test_once(tmp_path: Path) -> None:
    write(tmp_path / "run", [RUN, PHASE, step(1, 3.0), step(2, 2.0)], tail='{"event": "st')
    (tmp_path / "run" / "recipe.toml").write_text("seed = 7\n")
    sink, late = ListSink(), ListSink(done=3)
    assert track(tmp_path / "run", [sink, late]) == Tracked(4, 2, False)
    assert sink.told == ["again after 0", (2, 1), (3, 1), (4, 2)] and late.told == [(4, 2)]
    assert sink.places == [4] and sink.closed
    assert sink.facts is not None and (sink.facts.name, sink.facts.recipe) == ("run", {"seed": 7})


def test_a_run_that_goes_on_until_its_end(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    sink, waits = ListSink(), []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        match len(waits):
            case 1:
                write(run, [RUN, PHASE, step(1, 3.0)])
            case 2:
                append(run, [step(2, 2.0), RUN | {"resumed_from_step": 1}, step(2, 2.1)])
            case 3:
                append(run, [step(3, 1.0), evaluation(3, 5.0), END, {"event": "outcome"}])
            case _:
                pytest.fail("the end was not seen")

    assert track(run, [sink], follow=True, poll_seconds=9.0, sleep=sleep) == Tracked(10, 3, True)
    assert sink.told == [
        "again after 0", (2, 1), (3, 1), (4, 2), "again after 1", (6, 2), (7, 3), (8, 3),
    ]  # fmt: skip
    assert waits == [9.0] * 3 and sink.places == [3, 6, 10]


def test_an_end_before_a_resume_is_none(tmp_path: Path) -> None:
    write(tmp_path, [RUN, step(1, 3.0), END, RUN | {"resumed_from_step": 1}, step(2, 2.0)])
    assert track(tmp_path, []) == Tracked(5, 2, False)


def test_a_journal_that_another_run_replaces(tmp_path: Path) -> None:
    write(tmp_path, [RUN, step(1, 3.0)])
    sink = ListSink()
    with pytest.raises(UserError, match="was replaced by the journal of another run"):
        track(tmp_path, [sink], follow=True, sleep=lambda _: write(tmp_path, [RUN | {"time": 200.0}, step(1, 1.0)]))
    assert sink.closed


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no .*nowhere"):
        track(tmp_path / "nowhere", [], follow=True)
    with pytest.raises(UserError, match=r"there is no .*journal.jsonl"):
        track(tmp_path, [])


def test_a_journal_of_another_format_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [RUN | {"format_version": 1}, step(1, 3.0)])
    sink = ListSink()
    with pytest.raises(UserError, match="journal format 1; this version of lambert reads format 2 only"):
        track(tmp_path, [sink])
    assert sink.closed and not sink.told


def test_a_resume_repeats_nothing_to_a_sink_that_keeps_every_point(tmp_path: Path) -> None:
    sink, late = ListSink(), ListSink(done=5)
    sink.replaces_steps = late.replaces_steps = False
    back = {"event": "rollback", "step": 4, "to_step": 2}
    again = RUN | {"resumed_from_step": 1}
    write(tmp_path, [
        RUN, step(1, 3.0), step(2, 2.0), step(3, 1.5), evaluation(3, 5.0),  # records 1 to 5
        again, step(2, 2.0), again, step(2, 2.0), step(3, 1.5), evaluation(3, 5.0), step(4, 1.0),  # to 12
        back, step(3, 1.25), step(4, 1.0),
    ])  # fmt: skip
    track(tmp_path, [sink, late])
    points = [one for one in sink.told if isinstance(one, tuple)]
    assert points == [(2, 1), (3, 2), (4, 3), (5, 3), (12, 4), (14, 3), (15, 4)]
    assert [one for one in late.told if isinstance(one, tuple)] == points[4:]


def test_what_a_client_raises_is_one_line_without_passwords(tmp_path: Path) -> None:
    class Broken(ListSink):
        def flush(self, record: int) -> None:
            raise ConnectionError("no answer from http://me:secret@host/api\nand much more")

    sink = Broken()
    write(tmp_path, [RUN, step(1, 3.0), END])
    with pytest.raises(UserError, match=r"^list failed \(no answer from http://host/api\)\. Run the same command"):
        track(tmp_path, [sink])
    assert sink.closed and not sink.ended


def test_following_ends_when_it_is_told_to(tmp_path: Path) -> None:
    sink, stopped = ListSink(), list[bool]()
    write(tmp_path, [RUN, step(1, 3.0)])

    def sleep(seconds: float) -> bool:
        assert not stopped, "it goes on"
        stopped.append(True)
        append(tmp_path, [step(2, 2.0)])
        return True

    assert track(tmp_path, [sink], follow=True, sleep=sleep) == Tracked(3, 2, False)
    assert not sink.ended
