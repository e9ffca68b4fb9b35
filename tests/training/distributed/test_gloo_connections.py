"""What ranks ask of the store, and which sockets they open, until Gloo has reduced and sent for the first time.

The ranks are threads of one process, whose store counts.
"""

from __future__ import annotations

import json
import os
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

import warm
from lambert.training.distributed.store import connect_sparingly

MINUTE = timedelta(seconds=60)


class CountingStore(distributed.Store):  # type: ignore[misc]
    """Questions and bytes."""

    def __init__(self) -> None:
        super().__init__()
        self._inner = distributed.HashStore()
        self._inner.set_timeout(MINUTE)
        self._lock = threading.Lock()
        self.questions = self.bytes = 0

    def _count(self, number: int) -> None:
        with self._lock:
            self.questions += 1
            self.bytes += number

    def set(self, key: str, value: bytes) -> None:
        self._count(len(value))
        self._inner.set(key, value)

    def get(self, key: str) -> bytes:
        found: bytes = self._inner.get(key)
        self._count(len(found))
        return found

    def wait(self, *arguments: Any) -> None:
        self._count(0)
        self._inner.wait(*arguments)


def _meet(count: int, told: str) -> None:
    connect_sparingly()
    store, before = CountingStore(), len(os.listdir("/proc/self/fd"))
    groups: dict[int, Any] = {}
    failed = []

    def rank(number: int) -> None:
        try:
            groups[number] = group = distributed.ProcessGroupGloo(store, number, count, MINUTE)
            total = torch.tensor([number])
            group.allreduce([total]).wait()
            assert int(total) == count * (count - 1) // 2
            group.broadcast(total, root=0).wait()
        except BaseException as error:
            failed.append(repr(error))

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sockets = len(os.listdir("/proc/self/fd")) - before
    facts = {"questions": store.questions, "bytes": store.bytes, "sockets": sockets, "failed": failed}
    Path(told).write_text(json.dumps(facts))
    os._exit(0)


@pytest.mark.integration
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files as Linux lists them")
def test_a_rank_connects_to_few_whatever_their_number(tmp_path: Path) -> None:
    found = {}
    for count in (8, 128):
        assert warm.code_of(warm.start(_meet, count, str(tmp_path / "told"))) == 0
        facts = json.loads((tmp_path / "told").read_text())
        assert not facts.pop("failed")
        found[count] = {name: number / count for name, number in facts.items()}
    # Two neighbours in a ring, and on average less than two in the tree of a broadcast. A question and a wait for each.
    for one in found.values():
        assert one["questions"] < 1 + 2 * 4 and one["sockets"] <= 2 * 4 + 4 and one["bytes"] < 200 * (1 + 4), found
