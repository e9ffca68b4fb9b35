from __future__ import annotations

import os
from pathlib import Path

import pytest

from lambert.corpus.sources import STANDARD_INPUT, find_files, stored_bytes
from lambert.errors import UserError


def tree(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"text")


def found(folder: Path, *patterns: str) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in find_files([f"{folder}/{pattern}" for pattern in patterns])]


def test_every_kind_of_text_is_found_in_a_folder(tmp_path: Path) -> None:
    taken = [
        "a.txt", "b.jsonl.zst", "c.ndjson", "d.json.gz", "e.parquet", "f.xml.bz2",
        "g-pages-articles1.xml-p1p41242.bz2", "h.TXT.XZ", "sub.txt/i.txt",
    ]  # fmt: skip
    tree(tmp_path, *taken)
    tree(tmp_path, "j.parquet.gz", "k.csv", "l.txt.zip", "m.xml-p1", "n.jsonl.bak", ".hidden.txt", ".git/o.txt")
    assert [file.relative_to(tmp_path).as_posix() for file in find_files([tmp_path])] == taken
    assert found(tmp_path, "sub.txt") == ["sub.txt/i.txt"]


def test_patterns(tmp_path: Path) -> None:
    tree(tmp_path, "b.md", "a.md", "c.txt", "sub/d.md", "sub/deep/e.md", "sub/f.txt", ".g.md", "[x].md")
    (tmp_path / "empty.md").touch()
    assert found(tmp_path, "?.md") == ["a.md", "b.md"]
    assert found(tmp_path, "**/*.md") == ["[x].md", "a.md", "b.md", "sub/d.md", "sub/deep/e.md"]
    assert found(tmp_path, "s*") == ["sub/f.txt"]  # a folder gives what a folder gives
    assert found(tmp_path, "[x].md") == ["[x].md"]  # a file of that name comes first
    assert found(tmp_path, "c.txt", "*.txt", "b.md") == ["c.txt", "b.md"]
    with pytest.raises(UserError, match=r"no file with text in it matches the pattern .*\*\.jsonl"):
        found(tmp_path, "*.jsonl")
    with pytest.raises(UserError, match="matches the pattern"):
        found(tmp_path, "emp*.md")


def test_links_are_followed_once_and_loops_are_harmless(tmp_path: Path) -> None:
    tree(tmp_path, "set/a.txt", "set/sub/b.txt", "elsewhere/c.txt")
    links = {
        "set/loop": tmp_path / "set", "set/sub/up": Path(".."), "set/self.txt": Path("self.txt"),
        "set/gone.txt": tmp_path / "nothing", "set/other": tmp_path / "elsewhere", "set/z.txt": tmp_path / "set/a.txt",
    }  # fmt: skip
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    assert found(tmp_path, "set") == ["set/a.txt", "set/other/c.txt", "set/sub/b.txt"]
    assert find_files([tmp_path / "set"]).left_out == {"links to nothing": 2}
    assert found(tmp_path, "set", "elsewhere", "set/loop") == ["set/a.txt", "set/other/c.txt", "set/sub/b.txt"]
    assert found(tmp_path, "set/**/*.txt")[0] == "set/a.txt"
    with pytest.raises(UserError, match="gone.txt is a link to .*nothing, which does not exist"):
        found(tmp_path, "set/gone.txt")
    with pytest.raises(UserError, match="self.txt is a link to self.txt, which does not exist"):
        found(tmp_path, "set/self.txt")


def test_what_is_no_file_is_handed_on(tmp_path: Path) -> None:
    tree(tmp_path, "a.txt")
    assert find_files(["-", tmp_path / "a.txt", "-"]) == [STANDARD_INPUT, tmp_path / "a.txt"]
    assert stored_bytes(STANDARD_INPUT) is None
    assert stored_bytes(tmp_path / "a.txt") == 4


def test_a_pipe_is_read_as_a_file_but_a_device_folder_is_not(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    assert find_files([tmp_path / "pipe.txt"]) == [tmp_path / "pipe.txt"]
    with pytest.raises(UserError, match="has no text"):
        find_files([tmp_path])  # found on the way it would only make the run wait
    if os.path.exists("/dev/null"):
        with pytest.raises(UserError, match="neither a file nor a folder"):
            find_files(["/dev/null"])


@pytest.mark.parametrize("name", ["locked", "locked/a.txt"])
def test_what_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As root every file may be read: the refusal is played by the system call."""
    tree(tmp_path, "locked/a.txt")
    locked = str(tmp_path / "locked")

    def refuse(path: str | Path, *_: object, **__: object) -> os.stat_result:
        if str(path).startswith(locked) and str(path) != locked:
            raise PermissionError(13, "Permission denied", str(path))
        return real_stat(path)

    def refuse_folder(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    real_stat = os.stat
    monkeypatch.setattr(os, "stat", refuse)
    monkeypatch.setattr(os, "scandir", refuse_folder)
    with pytest.raises(UserError, match=f"{name} cannot be read .Permission denied.. Check its permissions"):
        find_files([tmp_path / name])
