"""What holds for every test: one thread, no network, no chance, and a GPU only where there is one."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before torch is imported. Programs that a test starts inherit all of it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
if any(name == "lo" for _, name in socket.if_nameindex()):
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # no test listens where others could connect
os.environ["LAMBERT_PROBE_CACHE"] = "off"  # what was measured for one test is nothing to another
# Tests write nothing into the user's own cache.
os.environ.setdefault("LAMBERT_KERNEL_CACHE", str(Path(__file__).parents[1] / ".pytest_cache" / "kernels"))

import pytest
from hypothesis import settings

# Hypothesis draws the same examples on every run; a slow machine is not a failure.
settings.register_profile("lambert", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("lambert")

if TYPE_CHECKING:
    from lambert.corpus.store import Corpus

pytest_plugins = ["run_files", "run_makers", "tiny_places"]

LOCAL = ("127.0.0.1", "::1", "localhost")


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """A connection to another machine is a fault of the test that opens it."""
    connect = socket.socket.connect

    def connect_locally(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in LOCAL:
            raise AssertionError(f"a test tried to reach {address[0]}; tests use no network")
        connect(self, address)

    socket.socket.connect = connect_locally  # type: ignore[method-assign]
    yield
    socket.socket.connect = connect  # type: ignore[method-assign]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips the tests marked `gpu` where PyTorch has no GPU to use."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a GPU that PyTorch can use"))


def write_small_text(path: Path, *, documents: int = 40, seed: int = 0) -> Path:
    """Documents of sentences over made-up words, a sentence a line."""
    chance = random.Random(seed)
    words = [f"{a}{b}" for a in "bdfgklmnprst" for b in "aeiou"]
    lines = []
    for _ in range(documents):
        for _ in range(chance.randint(3, 25)):
            length = chance.randint(3, 20)
            lines.append(" ".join(chance.choice(words) for _ in range(length)).capitalize() + ".")
        lines.append("")
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A prepared corpus of 40 documents, a tenth of them held out, vocabulary of 200."""
    from lambert.corpus.build import build_corpus
    from lambert.corpus.store import Corpus

    folder = tmp_path_factory.mktemp("small")
    text = write_small_text(folder / "text.txt")
    build_corpus([text], folder / "corpus", vocab_size=200, validation_fraction=0.1)
    return Corpus.open(folder / "corpus")
