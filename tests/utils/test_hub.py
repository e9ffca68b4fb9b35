"""Models of the Hugging Face Hub by name: its real client against a small server, against its cache, and without it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from lambert.errors import UserError
from lambert.utils import hub

COMMIT = "c" * 40
FETCHED = {
    *("config.json", "model.safetensors", "tokenizer.json", "vocab.txt", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json"),
}
PICKLED = {f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)}
UNTOUCHED = {"pytorch_model.bin", "modeling.py", "tf_model.h5", "onnx/model.onnx"}
SHARDS = {f"model-0000{number}-of-00002.safetensors" for number in (1, 2)}
MODELS = {
    "acme/sharded": {"config.json", "vocab.txt", "model.safetensors.index.json"} | SHARDS,
    "acme/bert": FETCHED | UNTOUCHED,
    "acme/pickle-only": {"config.json", "pytorch_model.bin", "vocab.txt"},
    "acme/pickles-only": {"config.json", "pytorch_model.bin.index.json", "vocab.txt"} | PICKLED,
    "acme/no-weights": {"config.json", "vocab.txt", "tf_model.h5"},
    "acme/words-only": {"config.json", "model.safetensors", "vocab.txt"},
}


class Hub(BaseHTTPRequestHandler):
    """The answers of the Hub to requests for files."""

    asked: set[str]

    def do_GET(self) -> None:
        name, _, file = self.path.lstrip("/").partition("/resolve/")
        file = file.partition("/")[2]
        type(self).asked |= {file} - {""}  # the client also asks for what is not a file
        if name not in MODELS:
            self._answer(401, {"X-Error-Code": "RepoNotFound"})
        elif file not in MODELS[name]:
            self._answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            content = f"{name}: {file}".encode()
            if file.endswith(".index.json"):
                shards = sorted(PICKLED if ".bin" in file else SHARDS)
                content = json.dumps({"weight_map": dict(zip("abc", [*shards, shards[1]], strict=True))}).encode()
            etag = hashlib.sha256(content).hexdigest()
            self._answer(200, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, content)

    do_HEAD = do_GET

    def _answer(self, code: int, headers: dict[str, str], content: bytes = b"") -> None:
        self.send_response(code)
        for header, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(header, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Hub.asked = set()
    served = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = Thread(target=served.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    thread.join()
    served.server_close()


def fetch(function: str, name: str, cache: Path, **environment: str) -> str:
    """The folder, or the error, of a process of its own: the client reads its settings when it is imported."""
    program = (
        f"from lambert.utils import hub\nfrom lambert.errors import UserError\n"
        f"try:\n    print(hub.{function}({name!r}))\nexcept UserError as error:\n    print(error)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "0", **environment},
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    return result.stdout.strip()


def test_a_name_is_fetched_once_without_anything_that_runs(server: str, tmp_path: Path) -> None:
    folder = Path(fetch("fetched_model", "acme/bert", tmp_path, HF_ENDPOINT=server))
    assert {file.name for file in folder.iterdir()} == FETCHED == Hub.asked - {"model.safetensors.index.json"}
    assert (folder / "model.safetensors").read_text() == "acme/bert: model.safetensors"
    assert folder == Path(fetch("fetched_model", "acme/bert", tmp_path, HF_HUB_OFFLINE="1"))


@pytest.mark.parametrize("name", ["acme/sharded", "acme/pickle-only", "acme/pickles-only"])
def test_shards_are_fetched_as_the_index_names_them_and_pickles_where_nothing_else_is(
    name: str, server: str, tmp_path: Path
) -> None:
    folder = Path(fetch("fetched_model", name, tmp_path, HF_ENDPOINT=server))
    assert {file.name for file in folder.iterdir()} == MODELS[name]
    assert folder == Path(fetch("fetched_model", name, tmp_path, HF_HUB_OFFLINE="1"))


def test_a_vocabulary_comes_without_the_weights(server: str, tmp_path: Path) -> None:
    folder = Path(fetch("fetched_vocabulary", "acme/words-only", tmp_path, HF_ENDPOINT=server))
    assert {file.name for file in folder.iterdir()} == {"config.json", "vocab.txt"}
    offline = fetch("fetched_model", "acme/words-only", tmp_path, HF_HUB_OFFLINE="1")
    assert "cannot be reached for its model.safetensors" in offline


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("acme/nothing", "there is no folder acme/nothing, and no such model on the Hugging Face Hub"),
        ("acme/no-weights", "the model acme/no-weights on the Hugging Face Hub has no model.safetensors"),
    ],
)
def test_what_the_hub_does_not_have_is_said_in_a_line(name: str, expected: str, server: str, tmp_path: Path) -> None:
    said = fetch("fetched_model", name, tmp_path, HF_ENDPOINT=server)
    assert said.startswith(expected) and "\n" not in said


def test_no_network_is_said_in_a_line(tmp_path: Path) -> None:
    said = fetch("fetched_model", "acme/bert", tmp_path, HF_HUB_OFFLINE="1")
    assert said.startswith("there is no folder acme/bert, and the Hugging Face Hub cannot be reached")
    assert "\n" not in said


def test_a_missing_client_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install "lambert-bert\[hub\]"'):
        hub.fetched_model("acme/unknown")


def test_what_lies_here_and_what_is_called_like_a_file_is_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    names = ("google-bert/bert-base-uncased", "runs/mine", "data/vocab.txt", "bert", "a/b/c", "../up", "/root/x")
    assert [name for name in names if hub.is_hub_name(Path(name))] == ["google-bert/bert-base-uncased"]
