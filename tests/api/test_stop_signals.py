"""Signals that ask a run to save and stop."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lambert
from lambert.api import training
from lambert.corpus.store import Corpus
from lambert.training.checkpoint.format import finished_steps

OPTIONS: dict[str, Any] = {
    "model": "1x32", "optimizer": "adamw", "batch_size": 4, "samples": 40, "sequence_lengths": (16,),
    "micro_batch_size": 4, "evaluation_samples": 0, "probe_seconds": 0, "progress": False,
}  # fmt: skip


class Raise(lambert.Callback):
    """Sends this process signals after its third step."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers

    def on_step_end(self, trainer: Any, record: Any) -> None:
        """Send them."""
        if record["step"] == 3:
            for number in self.numbers:
                signal.raise_signal(number)


@pytest.fixture(autouse=True)
def usual_hangup() -> Iterator[None]:
    """The tests may run under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def ignored_hangup() -> Iterator[None]:
    """As under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1"])
def test_a_run_saves_and_stops(name: str, tmp_path: Path, small_corpus: Corpus) -> None:
    number = signal.Signals[name]
    before = signal.getsignal(number)
    output = lambert.pretrain(small_corpus, out=tmp_path / "run", callbacks=[Raise(number)], **OPTIONS)
    assert (output.step, output.finished, output.signal) == (3, False, number)
    assert signal.getsignal(number) is before
    assert finished_steps(tmp_path / "run") == [3]


@pytest.mark.usefixtures("ignored_hangup")
def test_under_nohup_a_closed_terminal_is_nothing(tmp_path: Path, small_corpus: Corpus) -> None:
    output = lambert.pretrain(small_corpus, out=tmp_path / "run", callbacks=[Raise(signal.SIGHUP)], **OPTIONS)
    assert output.finished


def test_a_terminal_hangs_up_several_times(
    tmp_path: Path, small_corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shell and the system each send the signal; neither is a second request. Another signal is."""
    monkeypatch.setattr(training, "_SECOND_SIGNAL_SECONDS", -1.0)
    twice = Raise(signal.SIGHUP, signal.SIGHUP)
    assert lambert.pretrain(small_corpus, out=tmp_path / "run", callbacks=[twice], **OPTIONS).step == 3
    with pytest.raises(KeyboardInterrupt):
        lambert.pretrain(small_corpus, out=tmp_path / "2", callbacks=[Raise(signal.SIGHUP, signal.SIGTERM)], **OPTIONS)
