"""Downloading the official files, from a local server."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lambert.errors import UserError
from lambert.finetune.squad import official
from lambert.finetune.squad.official import OFFICIAL_FILES, official_file

CONTENT = b'{"version": "1.1", "data": []}'


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """The server's folder with a file under the official name."""
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "dev-v1.1.json").write_bytes(CONTENT)
    return folder


@pytest.fixture
def address(served: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that publishes `served`, whose file counts as the official one."""
    known = (hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
    monkeypatch.setitem(OFFICIAL_FILES, "dev-v1.1.json", known)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_QuietHandler, directory=str(served)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_downloads_once(address: str, served: Path, tmp_path: Path) -> None:
    path = official_file("dev", "1.1", tmp_path / "cache", address=address)
    assert path == tmp_path / "cache" / "dev-v1.1.json"
    assert path.read_bytes() == CONTENT
    (served / "dev-v1.1.json").unlink()
    assert official_file("dev", "1.1", tmp_path / "cache", address=address) == path


def test_a_damaged_copy_is_downloaded_again(address: str, tmp_path: Path) -> None:
    (tmp_path / "dev-v1.1.json").write_bytes(b"half")
    assert official_file("dev", "1.1", tmp_path, address=address).read_bytes() == CONTENT


def test_another_file_is_refused_and_leaves_nothing(address: str, served: Path, tmp_path: Path) -> None:
    (served / "dev-v1.1.json").write_bytes(CONTENT.replace(b"1.1", b"6.6"))
    folder = tmp_path / "cache"
    with pytest.raises(UserError, match=r"gave a file with SHA-256.*not the published"):
        official_file("dev", "1.1", folder, address=address)
    assert list(folder.iterdir()) == []


def test_an_endless_file_is_cut_off(
    address: str, served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(official, "_CHUNK_BYTES", 16)
    (served / "dev-v1.1.json").write_bytes(CONTENT * 1000)
    target = tmp_path / "target"
    official._download(f"{address}dev-v1.1.json", target, limit_bytes=len(CONTENT), timeout_seconds=5)
    assert len(CONTENT) < target.stat().st_size <= len(CONTENT) + 16


def test_a_missing_file_and_a_dead_server_are_explained(address: str, served: Path, tmp_path: Path) -> None:
    (served / "dev-v1.1.json").unlink()
    with pytest.raises(UserError, match=r"cannot be fetched.*404.*give the path of the copy"):
        official_file("dev", "1.1", tmp_path, address=address)
    with pytest.raises(UserError, match=r"cannot be fetched"):
        official_file("dev", "1.1", tmp_path, address="http://127.0.0.1:9/", timeout_seconds=2)


def test_a_folder_that_cannot_be_made(address: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot be written"):
        official_file("dev", "1.1", tmp_path / "file" / "folder", address=address)


def test_the_default_folder(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert official_file("dev", address=address) == tmp_path / "cache" / "lambert" / "squad" / "dev-v1.1.json"
