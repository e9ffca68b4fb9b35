"""What a training process asks of its allocator and of oneDNN."""

from __future__ import annotations

import pytest

from lambert.training.malloc import apply_allocator_settings

LIMIT = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"


@pytest.mark.parametrize(("given", "expected"), [(None, "128"), ("7", "7")])
def test_onednn_keeps_few_matmuls_unless_the_user_says_how_many(
    given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lambert.training.malloc.glibc", lambda: None)  # this process keeps its allocator
    environment = {} if given is None else {LIMIT: given}
    monkeypatch.setattr("lambert.training.malloc.os.environ", environment)
    apply_allocator_settings()
    assert environment == {LIMIT: expected}
