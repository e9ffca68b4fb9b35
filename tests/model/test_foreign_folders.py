"""Folders from elsewhere: ids and logits of `transformers`, and of what we write from them; or refused by name."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import transformers
from tests.model.foreign_folders import EQUAL, LINES, REFUSED, WEIGHTS, folder, with_config
from tokenizers import Tokenizer

from lambert.api.models import fill_mask, open_model
from lambert.errors import UserError
from lambert.model.config_file import read_config
from lambert.model.heads import BertForClassification, BertForPreTraining, BertForQuestionAnswering
from lambert.model.huggingface import load_model
from lambert.training.checkpoint.export import write_model
from lambert.training.checkpoint.export_check import differences_in_transformers


def assert_equal(ours: BertForPreTraining, tokenizer: Tokenizer, path: Path) -> None:
    """Ids, segments, logits and the tie of what transformers opens are ours."""
    theirs = transformers.AutoModelForPreTraining.from_pretrained(path, dtype=torch.float32).eval()
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    for first, second in zip(LINES, LINES[1:] + LINES[:1], strict=True):
        found, encoding = their_tokenizer(first, second), tokenizer.encode(first, second)
        assert encoding.ids == found["input_ids"], (encoding.tokens, first)
        one_type = ours.config.segment_types == 1
        ids, segments = torch.tensor([encoding.ids]), torch.tensor([encoding.type_ids])[:, :32]
        ids = ids[:, :32]
        positions = torch.arange(ids.shape[1])
        with torch.no_grad():
            words, _ = ours.eval()(ids, segments, None, positions)
            segments_of_theirs = torch.zeros_like(segments) if one_type else segments
            expected = theirs(input_ids=ids, token_type_ids=segments_of_theirs).prediction_logits[0]
        torch.testing.assert_close(words, expected, rtol=1e-4, atol=1e-4)
    tied = theirs.get_input_embeddings().weight is theirs.get_output_embeddings().weight
    assert tied == ours.config.tied_decoder


@pytest.mark.filterwarnings("ignore")  # of transformers, about heads without weights
@pytest.mark.parametrize("make", EQUAL.values(), ids=EQUAL)
def test_what_is_read_and_what_is_written_are_transformers(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path / "foreign")
    ours, tokenizer = open_model(path)
    assert_equal(ours, tokenizer, path)
    assert all(word.word for word in fill_mask(path, "der [MASK] mann", top_k=300)[0])  # no padding among them
    write_model(ours, tokenizer, tmp_path / "written")
    again, again_tokenizer = open_model(tmp_path / "written")
    assert_equal(again, again_tokenizer, tmp_path / "written")
    assert again.config == ours.config
    expected, found = (transformers.BertConfig.from_pretrained(one) for one in (path, tmp_path / "written"))
    assert found.classifier_dropout == expected.classifier_dropout


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path, name: str) -> None:
    make, named = REFUSED[name]
    path = make(tmp_path / "foreign")
    with pytest.raises(UserError, match=named):
        fill_mask(path, "der [MASK] mann")


def test_heads_that_a_task_does_not_use_are_not_looked_at(tmp_path: Path) -> None:
    make, _ = REFUSED["decoder unlike the words"]
    _, report = load_model(make(tmp_path / "foreign"), BertForQuestionAnswering)
    assert report.freshly_initialised == ["span_head.weight", "span_head.bias"]


def test_the_first_published_folders_do_not_say_their_type(tmp_path: Path) -> None:
    """`transformers` opens them with its class BertForPreTraining."""
    path = folder(tmp_path / "foreign")
    expected, _ = open_model(path)
    ours, _ = open_model(with_config(path, "model_type", "architectures", "position_embedding_type"))
    for mine, theirs in zip(ours.parameters(), expected.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_long_header_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    path = folder(tmp_path / "foreign")
    content = (path / WEIGHTS).read_bytes()
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    header |= {f"t{number}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for number in range(100_000)}
    text = json.dumps(header).encode()
    (path / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(UserError, match="its header has"):
        open_model(path)


def test_an_export_is_compared_with_transformers(tmp_path: Path) -> None:
    ours, tokenizer = open_model(folder(tmp_path / "foreign"))
    write_model(ours, tokenizer, tmp_path / "written")
    assert differences_in_transformers(ours, tokenizer, tmp_path / "written") == []
    with torch.no_grad():
        ours.mlm_head.bias.add_(torch.randn(len(ours.mlm_head.bias)))
    tokenizer.model.max_input_chars_per_word = 5
    found = differences_in_transformers(ours, tokenizer, tmp_path / "written")
    assert found == ["ids", "logits"]


def test_an_export_with_logits_that_are_not_finite_is_refused(tmp_path: Path) -> None:
    ours, tokenizer = open_model(folder(tmp_path / "foreign"))
    with torch.no_grad():
        ours.encoder.blocks[0].attention.output.bias[0] = torch.nan
    with pytest.raises(UserError, match="not finite"):
        write_model(ours, tokenizer, tmp_path / "written")


def test_attention_dropout_is_applied_alone(tmp_path: Path) -> None:
    for hidden, attention, is_random in ((0.0, 0.5, True), (0.0, 0.0, False), (0.5, 0.0, True)):
        path = folder(
            tmp_path / f"{hidden}-{attention}", hidden_dropout_prob=hidden, attention_probs_dropout_prob=attention
        )
        ours, tokenizer = open_model(path)
        ids = torch.tensor([tokenizer.encode(LINES[0]).ids])
        once, again = (ours.train().encoder(ids, torch.zeros_like(ids), None) for _ in range(2))
        assert torch.equal(once, again) != is_random


@pytest.mark.parametrize("probability", [None, 0.0, 0.3])
def test_the_dropout_of_a_classifier_is_transformers(tmp_path: Path, probability: float | None) -> None:
    path = folder(tmp_path / "foreign", classifier_dropout=probability, hidden_dropout_prob=0.2)
    theirs = transformers.BertForSequenceClassification.from_pretrained(path)
    ours, _ = load_model(path, partial(BertForClassification, classes=2))
    assert ours.dropout.p == theirs.dropout.p


def test_every_setting_of_transformers_is_applied_refused_or_without_effect(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All that `BertConfig` knows and BERT's first release wrote; the one that is no setting is named."""
    known = {name: 0 if value is None else value for name, value in transformers.BertConfig().to_dict().items()}
    known |= {"problem_type": "single_label_classification", "architectures": ["BertModel"], "pooler_type": "first"}
    path = with_config(folder(tmp_path / "foreign"), **known)
    assert read_config(path).classifier_dropout == 0
    assert caplog.records == []
    read_config(with_config(path, unheard_of=1))
    assert [record.message.partition("transformers: ")[2] for record in caplog.records] == ["'unheard_of'"]
