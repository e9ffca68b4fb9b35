"""Folders from elsewhere: ids and logits of `transformers`, and of what we write from them; or refused by name."""

from __future__ import annotations

import json
import struct
from functools import partial
from pathlib import Path

import pytest
import torch
import transformers
from tests.model.foreign_folders import EQUAL, LINES, REFUSED, WEIGHTS, folder, with_config
from tests.model.round_trips import CONTINUED, continued, exported

from lambert.api.models import fill_mask, open_model
from lambert.errors import UserError
from lambert.model.config_file import read_config
from lambert.model.heads import BertForQuestionAnswering, BertForSequenceClassification
from lambert.model.huggingface import load_model
from lambert.training.checkpoint.export import write_model
from lambert.training.checkpoint.export_check import differences_in_transformers


@pytest.mark.filterwarnings("ignore")  # of transformers, about heads without weights
@pytest.mark.parametrize("name", EQUAL)
def test_what_is_read_and_what_is_written_are_transformers(tmp_path: Path, name: str) -> None:
    exported(EQUAL[name], tmp_path)
    assert all(word.word for word in fill_mask(tmp_path / "foreign", "der [MASK] mann", top_k=300)[0])  # no padding


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


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*list(EQUAL)[::4], "no type", "pickled in shards", *CONTINUED])
def test_a_run_that_continues_a_folder_ends_with_it(tmp_path: Path, name: str) -> None:
    """Some of all folders; `python -m tests.model.round_trips` takes each."""
    continued(name, tmp_path)


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
    ours, _ = load_model(path, partial(BertForSequenceClassification, classes=2))
    assert ours.dropout.p == theirs.dropout.p


def test_every_setting_of_transformers_is_applied_refused_or_without_effect(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All that `BertConfig` knows and BERT's first release wrote; the one that is no setting is named."""
    known = {name: 0 if value is None else value for name, value in transformers.BertConfig().to_dict().items()}
    known |= {"problem_type": "regression", "architectures": ["BertModel"], "pooler_type": "first"}
    path = with_config(folder(tmp_path / "foreign"), **known)
    assert read_config(path).classifier_dropout == 0
    assert caplog.records == []
    read_config(with_config(path, unheard_of=1))
    assert [record.message.partition("transformers: ")[2] for record in caplog.records] == ["'unheard_of'"]
