"""`python -m fake_cuda steps REPORT`, `program REPORT WORDS…` or `stage WORDS…`: on a fake GPU."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from fake_cuda import build

build.load(build.build(Path(os.environ["FAKE_CUDA_FOLDER"])))

if sys.argv[1] == "steps":
    from fake_cuda.steps import main
elif sys.argv[1] == "stage":
    from fake_cuda.stage import main
else:
    from fake_cuda.program import main

main()
