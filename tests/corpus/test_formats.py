"""Formats that are not plain text: read as what they are, or refused; never learned with their marks."""

from __future__ import annotations

from pathlib import Path

import pytest

from lambert.corpus.discovery import endings_told, find_files
from lambert.corpus.sources import TextReader
from lambert.errors import UserError


def article(number: int) -> str:
    return (
        f'<doc id="{number}" url="https://example.org/wiki?curid={number}" title="Place &quot;{number}&quot;">\n'
        f'Place "{number}"\n\nThe clerk opened the garden. It rained &amp; rained.\n\nThe pilot sold it.\n\n</doc>\n'
    )


def test_wikiextractor_writes_articles_and_each_is_a_document(tmp_path: Path) -> None:
    (tmp_path / "AA").mkdir()
    (tmp_path / "AA" / "wiki_00").write_text(article(1) + article(2))
    reader = TextReader(find_files([tmp_path]))
    assert [document.paragraphs for document in reader] == [
        ["The clerk opened the garden. It rained & rained.", "The pilot sold it."]
    ] * 2
    assert reader.statistics.skipped_records == {}


def test_a_part_of_wikiextractors_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wiki_00").write_text(article(1)[:-8])
    with pytest.raises(UserError, match="cut short.*</doc>"):
        list(TextReader([tmp_path / "wiki_00"]))


MARKUP = {
    "HTML": "<!-- saved -->\n<!DOCTYPE html>\n<title>A</title><p>Text.</p>",
    "HTML in XML": '<?xml version="1.0"?>\n<html xmlns="http://www.w3.org/1999/xhtml"><body>Text.</body></html>',
    "a piece of HTML": "<div><p>The <b>clerk</b> opened the <i>garden</i>.</p><br/></div>\n" * 20,
    "XML": '<?xml version="1.0"?>\n<TEI><p>Text.</p></TEI>',
    "RTF": "{\\rtf1\\ansi The clerk.}",
    "LaTeX": "% a paper\n\\documentclass{article}\n\\begin{document}Text.\\end{document}",
    "subtitles": "1\n00:00:01,000 --> 00:00:04,000\nThe clerk opened it.\n",
    "web archive": "WARC/1.0\r\nWARC-Type: response\r\n",
    "mailbox": "From a@b.c Sat Jan  1 00:00:00 2022\nFrom: a@b.c\n\nThe clerk opened it.\n",
    "a mail": "Message-ID: <1@b.c>\nFrom: a@b.c\n\nThe clerk opened it.\n",
    "dump": "--\n-- PostgreSQL database dump\n--\nINSERT INTO t VALUES ('Text.');\n",
    "translations": '# German\nmsgid ""\nmsgstr ""\n',
    "bibliography": "@Article{a, title = {The clerk}}\n",
    "annotated": "-DOCSTART- -X- -X- O\n\nThe DT B-NP O\nclerk NN I-NP O\n",
    "CoNLL-U": "# text = It rained.\n1\tIt\tit\tPRON\t_\n2\trained\train\tVERB\t_\n\n" * 20,
    "a table": "label\ttext\n" + "1\tThe clerk opened it.\n" * 20,
    "YAML": "".join(f"- id: {i}\n  text: The clerk opened it.\n" for i in range(20)),
    "entities": "The &quot;clerk&quot; opened the caf&eacute; &#8211; it rained.\n" * 20,
}


@pytest.mark.parametrize("name", MARKUP)
def test_markup_is_refused_unless_it_is_wanted(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.txt").write_text(MARKUP[name])
    with pytest.raises(UserError, match="not plain text.*`text_format` text"):
        list(TextReader([tmp_path / "a.txt"]))
    assert list(TextReader([tmp_path / "a.txt"], text_format="text"))


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet"])
def test_a_file_that_git_lfs_did_not_fetch_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(UserError, match="pointer of Git LFS.*git lfs pull"):
        list(TextReader([tmp_path / name]))


PROSE = [
    "He wrote {x} and <b> once. a < b </b> c.",
    "# Title\n\n* an item\n",
    '2024-05-01 INFO {"state":"ok"}',
    "<doc>",
    "\tThe clerk opened it.\n\tIt rained.\n" * 20,
    "A: a\tb\n" + "He wrote R&D; and AT&T, a line of text.\n" * 20,
    "Anna: It rained.\nBert: It did.\n" * 20,
    "- It rained.\n- It did: for days.\n" * 20,
    "From the start Monday was wet.\n",
]


@pytest.mark.parametrize("content", PROSE)
def test_text_with_a_few_marks_stays_text(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.txt").write_text(content)
    assert list(TextReader([tmp_path / "a.txt"]))


def test_a_folder_says_what_it_left_out(tmp_path: Path) -> None:
    for name in ("a.txt", "b.md", "c.MD", "d.html", "e.gz", "LICENCE", ".hidden", "sub/f.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("Some words.\n")
    (tmp_path / "empty.md").touch()
    found = find_files([tmp_path])
    assert found == [tmp_path / "a.txt"]
    assert found.left_out == {".md": 3, ".html": 1, ".gz": 1, "": 1}
    assert found.left_out_bytes == 6 * 12
    assert endings_told(found.left_out) == "3 .md, 1 without ending, 1 .gz, 1 .html"
    assert len(find_files([f"{tmp_path}/**/*.md"])) == 2
    (tmp_path / "a.txt").unlink()
    with pytest.raises(UserError, match=r"only 3 \.md.*pattern such as"):
        find_files([tmp_path])


def test_lines_wrapped_at_a_width_are_counted_and_joined(tmp_path: Path) -> None:
    file = tmp_path / "book.txt"
    file.write_text(
        "The old clerk opened the green garden before noon and sold\nthe letter. The clerk had watched it for long,\n"
        "from the bridge.\n\nIt rained.\n\n春天的花园里有一条安静的小河\n流过桥边。\n"
    )
    plain = TextReader([file])
    assert [len(document.paragraphs) for document in plain] == [3, 1, 2]
    assert plain.statistics.wrapped_lines == 2
    joined = [document.paragraphs for document in TextReader([file], join_lines=True)]
    assert joined[0][0].endswith("before noon and sold the letter. The clerk had watched it for long, from the bridge.")
    assert joined[2] == ["春天的花园里有一条安静的小河流过桥边。"]
    (whole,) = TextReader([file], join_lines=True, one_document_per_file=True)
    assert whole.paragraphs == [paragraph for one in joined for paragraph in one]
