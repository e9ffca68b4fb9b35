"""What a fine-tuning says of its texts before it begins."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from finetune.squad.articles import CAFE, HARBOUR
from lambert.corpus.tokenizer_files import save_tokenizer
from lambert.corpus.vocabulary import train_vocabulary
from lambert.finetune.glue.tasks import find_task
from lambert.finetune.job import FineTuneJob
from lambert.finetune.labelled.runner import preset_of
from lambert.finetune.labelled.sequences import LabelledSettings
from lambert.finetune.labelled.task import Example
from lambert.finetune.loop import TaskPreset
from lambert.finetune.squad.data import Question
from lambert.finetune.squad.settings import SquadSettings
from lambert.finetune.squad.task import squad_preset
from lambert.model.bert import BertConfig
from lambert.model.heads import BertForPreTraining
from lambert.model.huggingface import save_model

SEEN = "harbour pier"  # 11 characters
LOST = "ωψχ"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = train_vocabulary([HARBOUR, CAFE] * 3, 400, cased=False)
    path = tmp_path_factory.mktemp("job") / "model"
    config = BertConfig(
        vocabulary_size=tokenizer.get_vocab_size(), layers=1, hidden_size=16, attention_heads=1, feed_forward_size=16,
        maximum_positions=32,
    )  # fmt: skip
    save_model(BertForPreTraining(config), path)
    save_tokenizer(tokenizer, path)
    return path


def questions(*texts: str) -> list[Question]:
    return [Question(str(number), text, SEEN, ()) for number, text in enumerate(texts)]


PAIRS, SENTENCES = (preset_of(find_task(name).task) for name in ("rte", "sst-2"))
CASES: list[tuple[TaskPreset, Any, list[Any], list[Any]]] = [
    (squad_preset(), SquadSettings(), questions(SEEN, LOST), questions("a\u00ad")),
    (PAIRS, LabelledSettings(), [Example(SEEN, LOST, 0)], [Example("a\u00ad", SEEN, 1)]),
    (
        preset_of(find_task("sst-2").task),
        LabelledSettings(),
        [Example(SEEN, None, 0)],
        [Example(f"a\u00ad {LOST}", None, 1)],
    ),
]


@pytest.mark.parametrize(("preset", "settings", "train", "dev"), CASES, ids=["squad", "pairs", "single texts"])
def test_what_the_model_will_not_see_is_told_once_in_characters(
    folder: Path,
    preset: TaskPreset,
    settings: Any,
    train: list[Any],
    dev: list[Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The distinct texts have 16 characters: 3 Greek letters and one soft hyphen are lost."""
    caplog.set_level(logging.INFO, logger="lambert")
    FineTuneJob(folder, preset, train, dev, settings).prepare()
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == 2
    assert (
        f"texts of {preset.name}: 18.8 % of the characters (3) are in words that become [UNK]. Take a model" in said[0]
    )
    assert "6.25 % of the characters (1) are" in said[1] and "drops: U+00AD. Take a model" in said[1]


def test_texts_that_the_model_sees_are_one_line_without_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="lambert")
    FineTuneJob(folder, squad_preset(), questions(SEEN), questions(SEEN), SquadSettings()).prepare()
    (said,) = caplog.records
    assert said.levelno == logging.INFO
    assert said.getMessage() == "texts of SQuAD v1.1: 11 characters, 0 % in words that become [UNK]"
