"""`benchmarks/serving_check.py` against stand-ins of servers, and against Infinity where it is installed."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.embeddings.models import folder as folder  # one of each architecture
from transformers import pipeline

import lambert

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import serving_check

INFINITY = os.environ.get("INFINITY_EMB", shutil.which("infinity_emb"))
"""The command of Infinity, which needs an environment of its own (docs/serving.md)."""
GOOD, BAD = "the old garden opened in june", "the clerk closed again in july"

Answer = Callable[[str, dict[str, Any]], Any]
"""Path and question → answer; None: there is no such path."""


@pytest.fixture(scope="module")
def classifier(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [{"text": f"{GOOD if n % 2 else BAD} {n}", "label": "good" if n % 2 else "bad"} for n in range(24)]
    out = tmp_path_factory.mktemp("labels") / "out"
    lambert.fine_tune(folder, rows, out=out, epochs=1, sequence_length=16)
    return out / "model"


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """The address of a server that answers so."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.reply(answer(self.path, asked))

        def do_GET(self) -> None:
            self.reply(answer(self.path, {}))

        def reply(self, found: Any) -> None:
            body = json.dumps(found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def vectors_of(folder: Path, *, normalize: bool, error: float = 0.0) -> Callable[[list[str]], list[list[float]]]:
    def found(texts: list[str]) -> list[list[float]]:
        vectors = lambert.embed(folder, texts, normalize=normalize)
        vectors[0, 0] += error
        return vectors.tolist()

    return found


def openai(path: str, folder: Path, embed: Callable[[list[str]], list[list[float]]]) -> Answer:
    """As Infinity (`/embeddings`) and vLLM (`/v1/embeddings`): the model must be named, and the order is in `index`."""

    def answer(asked: str, body: dict[str, Any]) -> Any:
        if asked == "/models":
            return {"data": [{"id": "mine"}]}
        if asked != path or body["model"] != "mine":
            return None
        data = [{"embedding": one, "index": place} for place, one in enumerate(embed(body["input"]))]
        return {"data": data[::-1]}

    return answer


def check(url: str, folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code = serving_check.main([url, str(folder), *words])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.parametrize("path", ["/embeddings", "/v1/embeddings", "/embed"])
@pytest.mark.parametrize("normalize", [True, False])
def test_vectors(folder: Path, path: str, normalize: bool, capsys: pytest.CaptureFixture[str]) -> None:
    def answer_of(error: float) -> Answer:
        embed = vectors_of(folder, normalize=normalize, error=error)
        if path == "/embed":
            return lambda asked, body: embed(body["inputs"]) if asked == path else None
        return openai(path, folder, embed)

    with serving(answer_of(0.0)) as url:
        code, result = check(url, folder, capsys)
        assert (code, result["passed"], result["path"], result["normalized"]) == (0, True, path, normalize)
        assert result["max_difference"] < 1e-5
        assert check(url, folder, capsys, "--pooling", "cls")[0] == 1
    with serving(answer_of(3e-4)) as url:
        code, result = check(url, folder, capsys)
        assert (code, result["passed"]) == (1, False)
        assert result["max_difference"] == pytest.approx(3e-4, abs=1e-5)
        assert check(url, folder, capsys, "--tolerance", "1e-3")[0] == 0


@pytest.mark.parametrize("kind", ["tei", "infinity", "vllm"])
def test_labels(classifier: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    labels = pipeline("text-classification", str(classifier), top_k=None)

    def answer_of(swapped: bool) -> Answer:
        def scores(text: str) -> list[dict[str, Any]]:
            found = labels([text], truncation=True)[0]
            names = [one["label"] for one in found]
            return [one | {"label": name} for one, name in zip(found, names[::-1] if swapped else names, strict=True)]

        def answer(asked: str, body: dict[str, Any]) -> Any:
            if asked == "/predict" and kind == "tei":
                return scores(body["inputs"])
            if asked == "/classify" and kind != "tei":
                found = scores(body["input"][0])
                if kind == "infinity":
                    return {"data": [found]}
                ordered = sorted(found, key=lambda one: labels.model.config.label2id[one["label"]])
                return {"data": [{"index": 0, "probs": [one["score"] for one in ordered]}]}
            return None

        return answer

    with serving(answer_of(False)) as url:
        code, result = check(url, classifier, capsys)
        assert (code, result["same_labels"]) == (0, len(serving_check.TEXTS))
        assert result["max_difference"] < 1e-5
    with serving(answer_of(True)) as url:
        code, result = check(url, classifier, capsys)
        assert (code, result["same_labels"], result["passed"]) == (1, 0, False)


def test_what_cannot_be_asked_is_said(folder: Path) -> None:
    two = {"data": [{"id": "mine"}, {"id": "other"}]}
    for answer, said in (
        (lambda asked, body: None, "has none of /v1/embeddings, /embeddings, /embed"),
        (lambda asked, body: two if asked == "/models" else None, "mine, other: name one with --model"),
        (lambda asked, body: [[1.0, 2.0]] * len(body["inputs"]) if asked == "/embed" else None, "vectors of shape"),
    ):
        with serving(answer) as url, pytest.raises(SystemExit, match=said):
            serving_check.main([url, str(folder)])
    with pytest.raises(SystemExit, match="refused"):
        serving_check.main([f"http://127.0.0.1:{free_port()}", str(folder)])


@pytest.mark.integration
@pytest.mark.skipif(INFINITY is None, reason="needs Infinity: INFINITY_EMB=its command (docs/serving.md)")
def test_infinity_answers_as_transformers(folder: Path, classifier: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert INFINITY is not None
    port = free_port()
    models = {"vectors": folder, "labels": classifier}
    words = [word for name, path in models.items() for word in ("--model-id", str(path), "--served-model-name", name)]
    how = ["--engine", "torch", "--device", "cpu", "--dtype", "float32", "--no-bettertransformer"]
    command = [INFINITY, "v2", *words, *how, "--host", "127.0.0.1", "--port", str(port), "--no-model-warmup"]
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    server = subprocess.Popen(
        command, env=own | {"DO_NOT_TRACK": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/models", server)
        for name, path in models.items():
            code, result = check(f"http://127.0.0.1:{port}", path, capsys, "--model", name)
            assert (code, result["passed"]) == (0, True)
            assert result["max_difference"] < 1e-5
    finally:
        server.kill()  # it waits for its threads on SIGTERM
        server.wait(30)


def wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert server.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError("the server did not start")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
