"""`python benchmarks/gpu_check`: see `command.py`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu_check.command import main

sys.exit(main())
