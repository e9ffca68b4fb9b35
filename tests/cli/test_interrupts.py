"""Ctrl-C before the work begins: one line and exit code 130, whatever was being imported."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from lambert.cli.embed_eval import EmbedEval
from lambert.cli.main import main
from lambert.errors import was_interrupted

# Ctrl-C while a module is found, as it arrives in a program that still imports
PROGRAM = """
import sys

class Interrupted:
    def find_spec(self, name, *_):
        if name == {module!r}:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupted())
sys.argv = ["lambert", "doctor"]
from lambert.__main__ import end
end()
"""


@pytest.mark.integration
@pytest.mark.parametrize("module", ["tyro", "lambert.cli.export", "lambert.planning.hardware"])
def test_while_the_command_line_is_imported(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(module=module)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (130, "lambert: interrupted\n")


def test_while_a_library_makes_an_error_of_it(
    tiny_places: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Library:
        def __set_name__(self, owner: Any, name: str) -> None:
            raise self.error

    def imports(_: EmbedEval) -> None:
        type("Model", (), {"cached": Library()})  # Python 3.11 wraps what __set_name__ raises in a RuntimeError

    monkeypatch.setattr(EmbedEval, "run", imports)
    command = ["embed-eval", tiny_places["model"], "--dev", tiny_places["pairs"]]
    Library.error = KeyboardInterrupt()  # type: ignore[attr-defined]
    assert main(command) == 130 and capsys.readouterr().err == "lambert: interrupted\n"
    Library.error = ValueError("a fault")  # type: ignore[attr-defined]
    with pytest.raises((RuntimeError, ValueError), match="fault|__set_name__"):
        main(command)


def test_an_error_of_another_cause_is_not_one() -> None:
    assert not was_interrupted(None) and not was_interrupted(RuntimeError())
    error = ImportError()
    error.__cause__ = KeyboardInterrupt()
    assert was_interrupted(error) and was_interrupted(KeyboardInterrupt())
