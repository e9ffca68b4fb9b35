"""`python -m fake_cuda MODULE WORDS…`, MODULE `steps`, `ranks`, `program` or `stage`: load the device, then run."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from fake_cuda import build

build.load(build.build(Path(os.environ["FAKE_CUDA_FOLDER"])))

importlib.import_module(f"fake_cuda.{sys.argv[1]}").main()
