"""The notebooks in examples/ run from top to bottom."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def code_of(notebook: Path) -> str:
    """Its code cells as one program; the value of a cell's last line is not shown."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


@pytest.mark.parametrize("notebook", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs(notebook: Path, tmp_path: Path) -> None:
    """In an empty folder, as a person runs it; the trained model beats the unigram baseline of its text."""
    program = tmp_path / "notebook.py"
    check = "assert run.metrics['eval_mlm_loss'] < run.metrics['eval_unigram_loss'], run.metrics"
    program.write_text(f"{code_of(notebook)}\n\n{check}\nprint(result.f1)\n", encoding="utf-8")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, str(program)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert 0 <= float(ended.stdout.splitlines()[-1]) <= 100
