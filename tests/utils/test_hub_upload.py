"""Uploads to the Hugging Face Hub: its real client against a small server, and what it refuses."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from safetensors.torch import load

from lambert.cli.main import main
from lambert.errors import UserError
from lambert.training.checkpoint.format import load_checkpoint
from lambert.training.config.trainer_options import TrainerOptions
from lambert.utils import hub_upload

COMMIT = "c" * 40


class Hub(BaseHTTPRequestHandler):
    """The answers of the Hub to an upload; all files are sent in the commit itself."""

    created: dict[str, Any]
    files: dict[str, bytes]
    """Of the last commit."""
    revisions: dict[str, dict[str, bytes]]

    def do_GET(self) -> None:
        self._answer(200, {"id": "acme/mine", "sha": COMMIT, "siblings": [], "private": True})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        size = self.headers.get("Content-Length")
        body = self.rfile.read(int(size)) if size else self._chunks()
        if self.headers.get("Authorization") != "Bearer hf_good":
            self._answer(401, {"error": "Invalid credentials"})
        elif self.path == "/api/repos/create":
            type(self).created = json.loads(body)
            self._answer(200, {"url": f"http://{self.headers['Host']}/acme/mine", "name": "acme/mine"})
        elif "/branch/" in self.path:
            self.revisions[self.path.rpartition("/")[2]] = {}
            self._answer(200, {})
        elif "/preupload/" in self.path:
            files = [one["path"] for one in json.loads(body)["files"]]
            modes = [{"path": path, "uploadMode": "regular", "shouldIgnore": False, "oid": None} for path in files]
            self._answer(200, {"files": modes})
        elif "/commit/" in self.path:
            lines = [json.loads(line)["value"] for line in body.splitlines() if json.loads(line)["key"] == "file"]
            type(self).files = {line["path"]: base64.b64decode(line["content"]) for line in lines}
            self.revisions[self.path.rpartition("/")[2]] = self.files
            self._answer(
                200,
                {
                    "commitUrl": f"http://{self.headers['Host']}/acme/mine/commit/{COMMIT}",
                    "commitOid": COMMIT,
                    "success": True,
                },
            )
        else:
            self._answer(200, {"errors": [], "warnings": []})  # of the card's metadata

    def _chunks(self) -> bytes:
        content = b""
        while length := int(self.rfile.readline(), 16):
            content += self.rfile.read(length)
            self.rfile.readline()
        return content

    def _answer(self, code: int, value: dict[str, Any]) -> None:
        content = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Hub.created, Hub.files, Hub.revisions = {}, {}, {}
    served = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = Thread(target=served.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    thread.join()
    served.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "README.md").write_text("---\nlibrary_name: transformers\n---\n# mine\n")
    (path / "model.safetensors").write_bytes(bytes(range(256)))
    return path


def upload(folder: Path, name: str = "acme/mine", *, public: bool = False, **environment: str) -> str:
    """What a process of its own says: the client reads its settings when it is imported."""
    program = (
        f"from pathlib import Path\nfrom lambert.utils import hub_upload\nfrom lambert.errors import UserError\n"
        f"try:\n    print(hub_upload.upload_folder(Path({str(folder)!r}), {name!r}, public={public}))\n"
        f"except UserError as error:\n    print(error)"
    )
    return online(folder.parent, "-c", program, **environment)


def online(home: Path, *words: str, **environment: str) -> str:
    settings = {"HF_HOME": str(home / "home"), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    found = subprocess.run(
        [sys.executable, *words],
        env={**{key: value for key, value in os.environ.items() if key != "HF_TOKEN"}, **settings, **environment},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    return (found.stdout + found.stderr * found.returncode).strip()


@pytest.mark.parametrize("public", [False, True])
def test_all_files_are_in_one_commit(server: str, folder: Path, public: bool) -> None:
    said = upload(folder, public=public, HF_ENDPOINT=server, HF_TOKEN="hf_good")
    assert said.endswith("/acme/mine")
    is_private = Hub.created.get("private", Hub.created.get("visibility") == "private")  # by the client's version
    assert is_private is not public and Hub.created["name"] == "mine"
    assert Hub.files == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_goes_wrong_is_said_in_a_line_and_the_folder_stays(server: str, folder: Path) -> None:
    before = sorted(path.name for path in folder.iterdir())
    assert "hf auth login" in upload(folder, HF_ENDPOINT=server)
    said = upload(folder, HF_ENDPOINT=server, HF_TOKEN="hf_bad")
    assert "refuses acme/mine (401" in said and f"hf upload acme/mine {folder}" in said
    assert "cannot be uploaded" in upload(folder, HF_ENDPOINT="http://127.0.0.1:9", HF_TOKEN="hf_good")
    assert "is no name on the Hub" in upload(folder, "acme/our/mine", HF_ENDPOINT=server, HF_TOKEN="hf_good")
    assert sorted(path.name for path in folder.iterdir()) == before and not Hub.files


def test_a_missing_client_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_upload, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'lambert-bert\[hub\]'"):
        hub_upload.check_upload("acme/mine")


def test_kept_checkpoints_become_revisions_step_0_among_them(server: str, tmp_path: Path, make_run: Any) -> None:
    run = tmp_path / "run"
    make_run(run, trainer_options=TrainerOptions(keep_last=1, keep_every=4)).train()
    words = ["-m", "lambert", "export", str(run), str(tmp_path / "out"), "--push", "acme/mine", "--revisions", "--json"]
    said = online(tmp_path, *words, HF_ENDPOINT=server, HF_TOKEN="hf_good").splitlines()
    steps = (0, 4, 8, 10)
    assert json.loads(said[-1])["revisions"] == [f"step-{step}" for step in steps]
    assert list(Hub.revisions) == ["main", *(f"step-{step}" for step in steps)]
    weights = [Hub.revisions[f"step-{step}"]["model.safetensors"] for step in steps]
    assert len(set(weights)) == 4 and weights[-1] == Hub.revisions["main"]["model.safetensors"]
    for step, one in zip(steps, weights, strict=True):
        saved = load_checkpoint(run, step).weights["mlm_head.bias"]
        assert torch.equal(load(one)["cls.predictions.bias"], saved)
    assert b"The run was not evaluated" in Hub.revisions["step-0"]["README.md"]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["home", "out", "run"]


def test_revisions_need_a_repository(tiny_places: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", tiny_places["run"], tiny_places["new"], "--revisions"]) == 2
    assert "Add --push OWNER/NAME" in capsys.readouterr().err
