"""dtypes and threads of the tests of the operations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.model.beside_float64 import Chosen


@pytest.fixture(params=[torch.bfloat16, torch.float32], ids=["bfloat16", "float32"])
def kind(request: pytest.FixtureRequest) -> Any:
    """The dtype of everything that `random` makes."""
    Chosen.kind = request.param
    return request.param


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)
