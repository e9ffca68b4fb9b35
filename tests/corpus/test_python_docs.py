from __future__ import annotations

import sys
from itertools import islice

import pytest

from lambert.corpus.prose import is_prose, prose_paragraphs
from lambert.corpus.python_docs import python_documents

GOOGLE_AND_SPHINX = """Return the length of the longest line of a text.

    The text is read once, and the :class:`~package.module.Reader` is told
    where each of the ``lines`` ends. See `the manual <https://example.org/x>`_.

    Args:
        text (str): The text whose lines are to be measured, which may be empty.
        width: Number of columns of the screen that
            the result is meant for.

    :param mode: Whether the lines are counted in characters or in bytes.

    Example::

        >>> longest("a b c d e f")
        This is not prose because it is the output of an example.

    .. note::
        It is an error to give this function a text that is not in memory.

    ======  =======================================
    Column  The other column of a table is not prose.
    ======  =======================================

    * The first item of a list is
      one paragraph of two lines.
    * The second is another one.
    """


def test_markup_goes_and_prose_stays() -> None:
    assert prose_paragraphs(GOOGLE_AND_SPHINX) == [
        "Return the length of the longest line of a text.",
        "The text is read once, and the Reader is told where each of the lines ends. See the manual.",
        "The text whose lines are to be measured, which may be empty.",
        "Number of columns of the screen that the result is meant for.",
        "Whether the lines are counted in characters or in bytes.",
        "It is an error to give this function a text that is not in memory.",
        "The first item of a list is one paragraph of two lines.",
    ]


def test_numpy_style() -> None:
    text = """Fit a line to the points that are given.

    Parameters
    ----------
    x : array_like, shape (M,)
        The x-coordinates of the points, in any order.
    rcond : Returned
        The share below which a value is taken to be zero.

    Examples
    --------
    >>> fit(x, y)
    array([1., 2.])
    """
    assert prose_paragraphs(text) == [
        "Fit a line to the points that are given.",
        "The x-coordinates of the points, in any order.",
        "The share below which a value is taken to be zero.",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "return self.function(the_argument, of, the, other) if it is.",
        "Alpha, Beta, Gamma, Delta, Epsilon, Zeta, Eta, Theta.",
        "Too short to use.",
        "it begins with a small letter and is not a sentence of its own.",
        "It has no end and is likely to be a heading or half of a list",
        "If a < b and b > c then the value of {x} is that of 1 + 2 = 3.",
        "",
    ],
)
def test_what_is_not_prose(line: str) -> None:
    assert not is_prose(line)


def test_documents_of_this_installation() -> None:
    first = list(islice(python_documents(), 150))
    names = [document.source for document in first]
    assert names[0].startswith("pydoc_data.topics.")
    assert len(set(names)) == len(names)
    assert {"configparser"} <= set(names)
    lines = [line for document in first for line in document.paragraphs]
    assert len(lines) == len(set(lines))
    assert sum(map(len, lines)) > 300_000
    assert any("The with statement is used to wrap the execution" in line.replace('"', "") for line in lines)
    assert list(islice(python_documents(), 90)) == first[:90]


def test_nothing_is_imported_and_the_amount_is_bounded() -> None:
    before = set(sys.modules)
    documents = list(python_documents(limit_bytes=100_000))
    assert set(sys.modules) - before <= {"pydoc_data"}
    size = sum(len(line.encode()) + 1 for document in documents for line in document.paragraphs)
    last = sum(len(line.encode()) + 1 for line in documents[-1].paragraphs)
    assert size - last < 100_000 <= size


def test_the_number_of_processes_changes_nothing() -> None:
    alone = list(python_documents(limit_bytes=700_000))
    together = list(python_documents(limit_bytes=700_000, processes=2))
    assert len(alone) > 50 and together == alone
