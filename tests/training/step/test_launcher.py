"""Steps are read in order, each once, and as late as asked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from lambert.training.step.launcher import LaunchedSteps


def steps(most: int) -> tuple[LaunchedSteps, list[int]]:
    """Launched steps whose log keeps their numbers; step 3 is a spike."""
    logged: list[int] = []

    def log(step: Any, seconds: float) -> Any:
        assert seconds >= 0
        logged.append(step.number)
        return step.number, step.number == 3

    return LaunchedSteps(most, log), logged


def launched(number: int) -> Any:
    return SimpleNamespace(number=number, pending=SimpleNamespace(result=None), began=0.0)


def test_on_a_gpu_a_step_is_read_after_the_next_is_launched() -> None:
    queue, logged = steps(most=1)
    for number in (1, 2, 3):
        queue.add(launched(number))
        assert not queue.read(all_of_them=False)
        assert logged == list(range(1, number))
    assert queue.read() and logged == [1, 2, 3]  # before an evaluation or a checkpoint
    assert list(queue.take()) == [1, 2, 3] and not list(queue.take())


def test_on_a_cpu_each_step_is_read_at_once() -> None:
    queue, logged = steps(most=0)
    for number in (1, 2):
        queue.add(launched(number))
        queue.read(all_of_them=False)
        assert logged == list(range(1, number + 1))
