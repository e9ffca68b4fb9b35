"""Windows against transformers' tokenizer, the rules of BERT's run_squad.py and plain counting."""

from __future__ import annotations

import unicodedata
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from finetune.squad.articles import CAFE, HARBOUR
from lambert.corpus.byte_level_bpe import train_bpe
from lambert.corpus.tokenizer_files import save_tokenizer
from lambert.corpus.vocabulary import special_tokens, train_vocabulary
from lambert.errors import UserError
from lambert.finetune.inputs import make_batch
from lambert.finetune.squad.ceiling import best_score, warn_of_tokens
from lambert.finetune.squad.data import Answer, Question
from lambert.finetune.squad.features import answer_tokens, chunks, make_windows, most_context
from lambert.finetune.squad.settings import SquadSettings

SHORT = SquadSettings(sequence_length=40, document_stride=12, question_length=10)
LONG_ANSWER = "thirty years. Fishing boats, coal ships and one royal yacht"
TEXTS = [
    HARBOUR,
    CAFE,
    f"{CAFE} {HARBOUR} {CAFE}",
    "東京で日本銀行が金を貸した。" * 9,
    "word",
    " \t two  words\u00a0and\u200b odd\u3000blanks \n" * 6,
    "🎹🎹 e\u0301e\u0301 ﬁﬁ ẞ İ " * 8,
    "x" * 150,  # beyond the longest word that is split: one [UNK]
]


def _question(context: str, text: str = "Who built it?", *answers: Answer) -> Question:
    return Question("id", text, context, answers)


@pytest.fixture(scope="module")
def oracle(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """transformers' own tokenizer with the same vocabulary."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(tokenizer, folder)
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("context", TEXTS)
@pytest.mark.parametrize(("length", "stride"), [(40, 12), (33, 20), (64, 1), (384, 128)])
@pytest.mark.parametrize("asked", ["Who?", "Wer öffnete das Café in São Paulo – und wann?"])
def test_windows_equal_those_of_transformers(
    tokenizer: Tokenizer, oracle: Any, context: str, length: int, stride: int, asked: str
) -> None:
    shape = SquadSettings(sequence_length=length, document_stride=stride, question_length=29)
    asked_tokens = len(oracle(asked, add_special_tokens=False)["input_ids"])
    assert asked_tokens <= 29
    room = length - asked_tokens - 3
    expected = oracle(
        asked,
        context,
        max_length=length,
        truncation="only_second",
        stride=room - min(room, stride),  # theirs is the overlap of two chunks, BERT's their distance
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    windows = make_windows([_question(context, asked)], tokenizer, shape)
    assert [window.token_ids.tolist() for window in windows] == expected["input_ids"]
    for row, window in enumerate(windows):
        first, count = window.second_start, len(window.spans)
        theirs = expected["offset_mapping"][row][first : first + count]
        assert window.spans[:, 0].tolist() == [start for start, _ in theirs]
        for (_, end), (_, their_end) in zip(window.spans.tolist(), theirs, strict=True):
            assert end == their_end or all(map(unicodedata.combining, context[their_end:end]))
        batch = make_batch([window], pad_id=0)
        tokens = len(window.token_ids)
        assert batch.segment_ids[0, :tokens].tolist() == expected["token_type_ids"][row]
        assert batch.attention_mask[0].sum() == tokens


def test_a_long_question_is_cut(tokenizer: Tokenizer) -> None:
    (whole,) = make_windows(
        [_question("word", "Who built it? " * 9)],
        tokenizer,
        SquadSettings(sequence_length=64, document_stride=8, question_length=60),
    )
    (cut,) = make_windows([_question("word", "Who built it? " * 9)], tokenizer, SHORT)
    assert cut.second_start == 12
    assert cut.token_ids[:11].tolist() == whole.token_ids[:11].tolist()
    assert cut.token_ids[11] == special_tokens(tokenizer).separate


def test_special_tokens_in_a_text_are_plain_text(tokenizer: Tokenizer) -> None:
    (window,) = make_windows([_question("a [SEP] b [MASK] c", "[CLS]?")], tokenizer, SquadSettings())
    specials = special_tokens(tokenizer)
    ids = window.token_ids.tolist()
    assert ids.count(specials.separate) == 2 and ids.count(specials.classify) == 1
    assert specials.mask not in ids


def test_the_given_tokenizer_is_left_alone(tokenizer: Tokenizer) -> None:
    own = Tokenizer.from_str(tokenizer.to_str())
    own.enable_truncation(5)
    own.enable_padding(length=7)
    before = own.to_str()
    (window,) = make_windows([_question(HARBOUR)], own, SquadSettings())
    assert own.to_str() == before
    assert len(window.spans) > 60


@pytest.mark.parametrize(
    ("tokens", "room", "stride", "bounds"),
    [
        (0, 6, 3, [(0, 0)]),
        (6, 6, 3, [(0, 6)]),
        (7, 6, 3, [(0, 6), (3, 7)]),
        (10, 6, 3, [(0, 6), (3, 9), (6, 10)]),
        (12, 4, 9, [(0, 4), (4, 8), (8, 12)]),  # a stride beyond the room leaves no gap
    ],
)
def test_chunks(tokens: int, room: int, stride: int, bounds: list[tuple[int, int]]) -> None:
    assert chunks(tokens, room, stride) == bounds


def _berts_choice(bounds: list[tuple[int, int]], token: int) -> int:
    """The chunk that run_squad.py scores a token in, loop for loop after its description."""
    best_score, best_index = None, -1
    for index, (start, stop) in enumerate(bounds):
        if not start <= token < stop:
            continue
        score = min(token - start, stop - 1 - token) + 0.01 * (stop - start)
        if best_score is None or score > best_score:
            best_score, best_index = score, index
    return best_index


@given(tokens=st.integers(1, 900), room=st.integers(1, 400), stride=st.integers(1, 400))
def test_every_token_is_scored_in_one_window_the_one_bert_chose(tokens: int, room: int, stride: int) -> None:
    bounds = chunks(tokens, room, stride)
    owners = most_context(bounds, tokens)
    chosen = np.full(tokens, -1)
    for index, ((start, _), owner) in enumerate(zip(bounds, owners, strict=True)):
        assert (chosen[start:][: len(owner)][owner] == -1).all()
        chosen[start:][: len(owner)][owner] = index
    assert chosen.tolist() == [_berts_choice(bounds, token) for token in range(tokens)]


def test_most_context_by_hand() -> None:
    # Of tokens 3 … 5, 3 has 2 to its right in the first chunk and 0 to its left in the second; 4: 1 and 1.
    first, second = most_context([(0, 6), (3, 9)], 9)
    assert first.tolist() == [True, True, True, True, True, False]
    assert second.tolist() == [False, False, True, True, True, True]
    # 300 has 80 to its right in the first chunk, 81 to its left in the second, which is 161 tokens shorter:
    # 80 + 3.81 beats 81 + 2.20.
    first, second = most_context([(0, 381), (219, 439)], 439)
    assert first[300] and not second[300 - 219]


def test_answer_tokens_share_characters_with_the_answer() -> None:
    spans = np.array([[0, 3], [4, 9], [9, 10], [11, 15]], dtype=np.int32)
    assert answer_tokens(spans, Answer("built", 4)) == (1, 1)
    assert answer_tokens(spans, Answer("xxx.", 6)) == (1, 2)  # from inside a token
    assert answer_tokens(spans, Answer("xx", 12)) == (3, 3)  # within one token
    assert answer_tokens(spans, Answer(" ", 3)) is None  # between two tokens
    assert answer_tokens(spans, Answer("x" * 15, 0)) == (0, 3)


@pytest.mark.parametrize("text", ["Edna Marlowe", "each evening.", "The", LONG_ANSWER])
def test_training_positions_recover_the_answer_in_every_window_that_holds_it(tokenizer: Tokenizer, text: str) -> None:
    answer = Answer(text, HARBOUR.index(text))
    windows = make_windows([_question(HARBOUR, "Who?", answer)], tokenizer, SHORT)
    assert len(windows) > 3
    held = cut_off = 0
    for window in windows:
        shown_from, shown_to = int(window.spans[0, 0]), int(window.spans[-1, 1])
        if shown_from <= answer.start and answer.start + len(text) <= shown_to:
            held += 1
            first = window.target[0] - window.second_start
            last = window.target[1] - window.second_start
            assert HARBOUR[window.spans[first, 0] : window.spans[last, 1]] == text
        else:
            cut_off += shown_from <= answer.start < shown_to
            assert window.target == (0, 0)
    assert held >= 1
    assert cut_off or text != LONG_ANSWER


def test_windows_follow_the_questions_and_shared_contexts(tokenizer: Tokenizer) -> None:
    questions = [_question(HARBOUR, "Who?"), _question(CAFE, "When?"), _question(HARBOUR, "Where is it?")]
    together = make_windows(questions, tokenizer, SHORT)
    assert [window.question for window in together] == sorted(window.question for window in together)
    for index, question in enumerate(questions):
        alone = make_windows([question], tokenizer, SHORT)
        ours = [window for window in together if window.question == index]
        assert [window.token_ids.tolist() for window in ours] == [w.token_ids.tolist() for w in alone]


def test_a_batch_is_padded_to_its_longest_window(tokenizer: Tokenizer) -> None:
    windows = make_windows([_question("word"), _question(CAFE), _question("two words")], tokenizer, SquadSettings())
    batch = make_batch(windows, pad_id=77)
    longest = max(len(window.token_ids) for window in windows)
    assert batch.token_ids.shape[1] % 8 == 0
    assert longest <= batch.token_ids.shape[1] < longest + 8
    for row, window in enumerate(windows):
        tokens = len(window.token_ids)
        assert batch.token_ids[row, :tokens].tolist() == window.token_ids.tolist()
        assert (batch.token_ids[row, tokens:] == 77).all()
        assert batch.attention_mask[row].tolist() == [True] * tokens + [False] * (len(batch.token_ids[row]) - tokens)
        assert (batch.segment_ids[row, tokens:] == 0).all()
    assert batch.counts() == {"sequence": 3}
    moved = batch.to(torch.device("cpu"))
    assert torch.equal(moved.token_ids, batch.token_ids) and torch.equal(moved.targets, batch.targets)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((0, 128, 64), "`sequence_length` = 0. Give a whole number from 8"),
        ((384, 0, 64), "`document_stride` = 0"),
        ((384, 128, -1), "`question_length` = -1"),
        ((67, 128, 64), "`sequence_length` 67 leaves no room for a context"),
    ],
)
def test_impossible_shapes(settings: tuple[int, int, int], said: str) -> None:
    with pytest.raises(UserError, match=said):
        SquadSettings(**dict(zip(("sequence_length", "document_stride", "question_length"), settings, strict=True)))


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


LEARNERS = {
    "uncased": lambda lines: train_vocabulary(lines, 300, cased=False),
    "cased": lambda lines: train_vocabulary(lines, 300, cased=True),
    "byte-level BPE": lambda lines: train_bpe(lines, 340),
}


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize(
    ("context", "answer"),
    [
        ("राम ने अपने घर में किताब पढ़ी", "अपने"),
        ("सीता दिल्ली में रहती है", "दिल्ली में"),
        ("وُلِدَ في مدينةٍ قديمةٍ قرب النهر", "مدينةٍ قديمةٍ"),
        ("كتب الرجلُ رسالةً طويلةً", "رسالةً طويلةً"),
        ("שָׁלוֹם עֲלֵיכֶם", "עֲלֵיכֶם"),
        ("ผู้ใหญ่ อยู่ ที่นี่", "ที่นี่"),
        ("සිංහල ශ්\u200dරී ලංකා", "ශ්\u200dරී"),
        (nfd("Le vieux café ouvrit tard"), nfd("café")),
        (nfd("Đà Nẵng ở miền Trung Việt Nam"), nfd("Đà Nẵng")),
        ("Le vieux café ouvrit tard", "café"),
        ("red ❤\ufe0f blue, green", "❤\ufe0f"),
        ("a 🙂 dog  and\tthe\u3000cat  ", "cat"),
        ("in 東京で 1843", "1843"),
    ],
)
def test_the_tokens_of_an_answer_give_its_text_back(context: str, answer: str, learner: str) -> None:
    """Also where the tokenizer drops the mark that it ends in, or counts the space before it to its first token."""
    learned = LEARNERS[learner]([f"{context} abcdefghijklmnopqrstuvwxyz 0123456789"] * 20)
    question = _question(context, "?", Answer(answer, context.index(answer)))
    (window,) = make_windows([question], learned, SquadSettings())
    first, last = (position - window.second_start for position in window.target)
    assert context[window.spans[first, 0] : window.spans[last, 1]] == answer
    pairs = [(one, two) for one, two in pairwise(window.spans.tolist()) if one != two]  # the bytes of one character
    assert all(stop <= start for (_, stop), (start, _) in pairs)


def test_answers_inside_tokens_are_told(caplog: pytest.LogCaptureFixture) -> None:
    context = "theharbourwasbuilt in stone"
    tokenizer = train_vocabulary([context] * 20, 200, cased=False)
    inside, whole = (_question(context, "?", Answer(text, context.index(text))) for text in ("bour", "in stone"))
    assert best_score([whole], tokenizer, SquadSettings()).exact_match == 100
    assert best_score([inside], tokenizer, SquadSettings()).exact_match == 0
    warn_of_tokens([whole], tokenizer, SquadSettings())
    assert not caplog.records
    warn_of_tokens([inside], tokenizer, SquadSettings())
    assert "whole tokens reach exact match 0.0" in caplog.text
