"""Every numeric option of every subcommand at the edges of numbers: taken, or one line on standard error."""

from __future__ import annotations

import dataclasses
import re
import resource
import signal
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from lambert.cli.main import SUBCOMMANDS, main
from tiny_places import TEXT

EDGES = ("-1", "0", str(2**31), str(2**63), "nan", "inf", "-inf", "-0", "1e-320", "1e308")
SECONDS = 20
"""After which an option counts as one that hangs."""


def hangs(*_: Any) -> None:
    raise AssertionError(f"busy for {SECONDS} s")


@pytest.fixture(autouse=True)
def limits(stop_before_work: None) -> Iterator[None]:
    signal.signal(signal.SIGALRM, hangs)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (12 * 2**30, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.fixture(scope="module", autouse=True)
def slow_imports() -> None:
    """Where sentence-transformers is installed, loading it alone may take as long as an option may."""
    if find_spec("sentence_transformers") is not None:
        import sentence_transformers  # noqa: F401


@pytest.fixture
def commands(tiny_places: dict[str, str]) -> dict[str, list[str]]:
    """A command line of each subcommand that does little."""
    places = tiny_places
    short = ["--corpus", places["corpus"], "--model", "2x32", "--batch-size", "8", "--sequence-lengths", "32", "64"]
    return {
        "demo": [],
        "prepare": [places["text"], "--vocab-size", "100", "--workers", "1"],
        "inspect": [places["corpus"]],
        "export": [places["run"], places["new"]],
        "plan": [*short, "--samples", "160", "--probe-seconds", "0"],
        "pretrain": [*short, "--samples", "160", "--probe-seconds", "0"],
        "sweep": [places["sweep"], "--dry-run"],
        "squad": [places["model"], "--train", places["squad"], "--dev", places["squad"], "--sequence-length", "80"],
        "finetune": [places["model"], places["labels"], "--sequence-length", "80"],
        "compare": [places["model"], "--data", places["labels"], "--sequence-length", "80"],
        "glue": [places["model"], "rte", "--data", places["glue"], "--sequence-length", "80"],
        "embed": [places["model"], places["text"]],
        "embed-train": [places["model"], places["pairs"]],
        "embed-eval": [places["model"], "--dev", places["pairs"]],
        "fill": [places["model"], f"{TEXT} [MASK]"],
    }


def numeric_options(subcommand: str) -> list[str]:
    fields = dataclasses.fields(SUBCOMMANDS[subcommand])  # type: ignore[arg-type]
    return [field.name for field in fields if re.search(r"\b(int|float)\b", str(field.type))]


NUMERIC = [(name, option) for name in SUBCOMMANDS for option in numeric_options(name)]


def test_no_subcommand_is_left_out(commands: dict[str, list[str]]) -> None:
    assert {name for name, _ in NUMERIC} <= commands.keys() and len(NUMERIC) > 60


@pytest.mark.parametrize(("subcommand", "option"), NUMERIC)
def test_a_number_at_the_edge_is_taken_or_refused_in_one_line(
    commands: dict[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str], subcommand: str, option: str
) -> None:
    name = "out.npy" if subcommand == "embed" else "out"
    out = (
        ["--out", str(tmp_path / name)]
        if "out" in {f.name for f in dataclasses.fields(SUBCOMMANDS[subcommand])}
        else []
    )  # type: ignore[arg-type]
    for value in EDGES:
        state, threads = torch.random.get_rng_state(), torch.get_num_threads()
        signal.alarm(SECONDS)
        code = main([subcommand, *commands[subcommand], *out, f"--{option.replace('_', '-')}", value])
        signal.alarm(0)
        torch.random.set_rng_state(state)
        torch.set_num_threads(threads)
        said = capsys.readouterr().err.splitlines()
        assert code in (0, 1, 2, 3), (value, code, said)
        assert code != 2 or any(line.startswith("lambert: ") for line in said[-1:]), (value, said)
        assert "Traceback" not in "\n".join(said)
