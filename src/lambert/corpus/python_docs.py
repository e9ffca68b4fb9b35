"""The built-in corpus: the English documentation that every installation contains, without a download.

Sources, in this order: the language reference inside Python (`pydoc_data.topics`), then the docstrings in
the source files of the standard library and of installed packages. Files are parsed, never imported. A
document is the text of one reference topic or source file; repeated paragraphs are dropped.
"""

from __future__ import annotations

import ast
import gc
import importlib.util
import os
import sysconfig
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from lambert.corpus.prose import prose_paragraphs
from lambert.corpus.sources import Document

# The direct and indirect dependencies of lambert, those with most prose first; packages that are not installed are
# skipped.
PACKAGES = (
    "torch",
    "numpy",
    "networkx",
    "sympy",
    "pyarrow",
    "tyro",
    "rich",
    "tokenizers",
    "jinja2",
    "fsspec",
)

TEXT_LIMIT_BYTES = 12_000_000
# The largest files are generated tables and test data, without prose worth parsing.
_FILE_LIMIT_BYTES = 1_500_000
_FILES_AT_ONCE = 64
_MIN_TEXT_BYTES = 500
_MIN_TEXT_FRACTION = 0.15
_SKIPPED_FOLDERS = {
    "test",
    "tests",
    "testing",
    "idle_test",
    "site-packages",
    "dist-packages",
    "__pycache__",
    "_vendor",
}
_SKIPPED_FOLDERS |= {"lib2to3", "encodings", "pydoc_data", "turtledemo", "_inductor"}


def python_documents(*, limit_bytes: int = TEXT_LIMIT_BYTES, processes: int = 1) -> Iterator[Document]:
    """English prose of this installation in a fixed order, at most about `limit_bytes` of it.

    Args:
        processes: number that parse source files; the documents do not depend on it.
    """
    seen: set[str] = set()
    taken = 0
    for source, candidates in _sources(processes):
        paragraphs = [line for line in candidates if line not in seen]
        if not paragraphs:
            continue
        seen.update(paragraphs)
        yield Document(source, paragraphs)
        taken += sum(len(line.encode()) + 1 for line in paragraphs)
        if taken >= limit_bytes:
            return


def _sources(processes: int) -> Iterator[tuple[str, list[str]]]:
    """(name, paragraphs of prose) of each topic and source file."""
    standard_library = Path(sysconfig.get_paths()["stdlib"])
    topics = standard_library / "pydoc_data" / "topics.py"
    if topics.is_file():
        yield from ((f"pydoc_data.topics.{name}", _prose([text])) for name, text in _topics(topics))
    names, files = zip(*_source_files(standard_library), strict=True)
    if processes == 1:
        yield from zip(names, map(_prose_of, files), strict=True)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        try:
            yield from zip(names, pool.map(_prose_of, files, chunksize=_FILES_AT_ONCE), strict=True)
        finally:
            pool.shutdown(cancel_futures=True)


def _prose_of(file: Path) -> list[str]:
    return _prose(_texts_of(file))


def _prose(texts: list[str]) -> list[str]:
    return list(dict.fromkeys(line for text in texts for line in prose_paragraphs(text)))


def _source_files(standard_library: Path) -> Iterator[tuple[str, Path]]:
    """(name, file) of every source file to parse."""
    roots = [standard_library, *filter(None, map(_package_folder, PACKAGES))]
    for root in roots:
        prefix = "" if root is standard_library else f"{root.name}."
        for file in _python_files(root):
            name = ".".join(file.relative_to(root).with_suffix("").parts)
            yield prefix + name, file


def _topics(file: Path) -> list[tuple[str, str]]:
    """The reference topics, read from the dictionary that the file assigns."""
    for node in _parse(file.read_bytes()).body:
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if isinstance(value, ast.Dict):
            return sorted(ast.literal_eval(value).items())
    return []


def _package_folder(name: str) -> Path | None:
    """The folder of a top-level package, found without importing it."""
    specification = importlib.util.find_spec(name)
    locations = specification.submodule_search_locations if specification else None
    return Path(locations[0]) if locations else None


def _python_files(root: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED_FOLDERS and name.isidentifier())
        for name in sorted(names):
            file = Path(parent, name)
            if name.endswith(".py") and not name.startswith("test_") and file.stat().st_size <= _FILE_LIMIT_BYTES:
                yield file


def _texts_of(file: Path) -> list[str]:
    """The docstrings of a source file, in the order of its lines."""
    source = file.read_bytes()
    # Docstrings rarely use single triple quotes. Parsing is slow, so files with little text are skipped.
    quoted = sum(map(len, source.split(b'"""')[1::2]))
    if quoted < max(_MIN_TEXT_BYTES, _MIN_TEXT_FRACTION * len(source)):
        return []
    texts: list[str] = []
    _collect(_parse(source), texts)
    return texts


def _collect(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, texts: list[str]) -> None:
    """Appends the docstrings of a module, class or function, of those within, and those a call attaches."""
    for statement in node.body:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            _collect(statement, texts)
        elif isinstance(statement, ast.Expr):
            value = statement.value
            # Functions written in C get their docstring as an argument of a call.
            arguments = value.args if isinstance(value, ast.Call) else [value]
            texts += [
                item.value for item in arguments if isinstance(item, ast.Constant) and isinstance(item.value, str)
            ]


def _parse(source: bytes) -> ast.Module:
    """The syntax tree, empty where this Python cannot parse the source."""
    # A syntax tree has very many objects and no cycles: garbage collection would take longer than parsing.
    collects_garbage = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in the parsed strings
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return ast.Module(body=[], type_ignores=[])
    finally:
        if collects_garbage:
            gc.enable()
