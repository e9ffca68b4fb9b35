"""Our BERT against `transformers`': the same weights give the same logits, losses and gradients, both ways."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.nn import functional

from lambert.errors import UserError
from lambert.model.bert import BertConfig
from lambert.model.config_file import read_config
from lambert.model.heads import BertForPreTraining, BertForQuestionAnswering
from lambert.model.huggingface import load_model, save_model
from lambert.model.layouts import BERT
from lambert.model.presets import PRESETS, model_config

CONFIG = BertConfig(
    vocabulary_size=97, layers=3, hidden_size=48, attention_heads=4, feed_forward_size=80, maximum_positions=40
)


def shaken(model: torch.nn.Module) -> torch.nn.Module:
    """Every parameter moved away from its start, so that no bias is zero and no norm is one."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.fixture
def inputs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    mask = torch.ones(5, 24, dtype=torch.bool)
    mask[1, 17:] = mask[4, 9:] = False
    return {
        "token_ids": torch.randint(0, 97, (5, 24), generator=generator),
        "segment_ids": torch.randint(0, 2, (5, 24), generator=generator),
        "attention_mask": mask,
    }


def theirs_on(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> object:
    return model(
        input_ids=inputs["token_ids"],
        token_type_ids=inputs["segment_ids"],
        attention_mask=inputs["attention_mask"].long(),
    )


def all_positions(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return inputs["attention_mask"].flatten().nonzero().flatten()


def test_transformers_opens_our_folder(tmp_path: Path, inputs: dict[str, torch.Tensor]) -> None:
    ours = shaken(BertForPreTraining(CONFIG))
    save_model(ours, tmp_path)
    theirs = transformers.AutoModelForPreTraining.from_pretrained(tmp_path).eval()
    mlm_logits, nsp_logits = ours(**inputs, masked_positions=all_positions(inputs))
    expected = theirs_on(theirs, inputs)
    real = inputs["attention_mask"]
    torch.testing.assert_close(mlm_logits, expected.prediction_logits[real], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(nsp_logits, expected.seq_relationship_logits, rtol=1e-5, atol=1e-5)


def test_we_open_a_folder_of_transformers(tmp_path: Path, inputs: dict[str, torch.Tensor]) -> None:
    theirs = shaken(
        transformers.BertForPreTraining(
            transformers.BertConfig(
                vocab_size=97,
                num_hidden_layers=3,
                hidden_size=48,
                num_attention_heads=4,
                intermediate_size=80,
                max_position_embeddings=40,
            )
        )
    )
    theirs.save_pretrained(tmp_path)
    ours, report = load_model(tmp_path, BertForPreTraining)
    assert report.freshly_initialised == [] and report.unused == []
    mlm_logits, nsp_logits = ours.eval()(**inputs, masked_positions=all_positions(inputs))
    expected = theirs_on(theirs, inputs)
    torch.testing.assert_close(mlm_logits, expected.prediction_logits[inputs["attention_mask"]], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(nsp_logits, expected.seq_relationship_logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("hidden_size", [48, 128])  # eager, and fused CPU kernels
@pytest.mark.parametrize("padded", [True, False])
def test_gradients_equal_those_of_transformers(
    tmp_path: Path, inputs: dict[str, torch.Tensor], hidden_size: int, padded: bool
) -> None:
    ours = shaken(BertForPreTraining(replace(CONFIG, hidden_size=hidden_size)))
    if not padded:
        inputs["attention_mask"][:] = True
    save_model(ours, tmp_path)
    theirs = transformers.AutoModelForPreTraining.from_pretrained(tmp_path).eval()
    positions = all_positions(inputs)[::5]
    labels = torch.randint(0, 97, (len(positions),), generator=torch.Generator().manual_seed(2))
    next_labels = torch.tensor([0, 1, 1, 0, 1])
    (loss, *_), pairs = ours(**inputs, masked_positions=positions, masked_labels=labels)
    (loss / len(labels) + functional.cross_entropy(pairs, next_labels)).backward()
    their_labels = torch.full((5 * 24,), -100)
    their_labels[positions] = labels
    theirs(
        input_ids=inputs["token_ids"],
        token_type_ids=inputs["segment_ids"],
        attention_mask=inputs["attention_mask"].long(),
        labels=their_labels.view(5, 24),
        next_sentence_label=next_labels,
    ).loss.backward()
    their_gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        expected = torch.cat([their_gradients[theirs] for theirs in BERT.names(name)])
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-6, msg=name)
        assert (parameter.grad - expected).norm() <= 1e-5 * expected.norm() or "query_key_value.bias" in name


def test_question_answering_equals_transformers(tmp_path: Path, inputs: dict[str, torch.Tensor]) -> None:
    ours = shaken(BertForQuestionAnswering(CONFIG))
    save_model(ours, tmp_path)
    theirs = transformers.AutoModelForQuestionAnswering.from_pretrained(tmp_path).eval()
    start, end = ours(**inputs)
    expected = theirs_on(theirs, inputs)
    real = inputs["attention_mask"]
    torch.testing.assert_close(start[real], expected.start_logits[real], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(end[real], expected.end_logits[real], rtol=1e-5, atol=1e-5)


def test_a_new_head_is_told(tmp_path: Path) -> None:
    save_model(BertForPreTraining(CONFIG), tmp_path)
    _, report = load_model(tmp_path, BertForQuestionAnswering)
    assert report.freshly_initialised == ["span_head.weight", "span_head.bias"]
    assert "cls.predictions.bias" in report.unused


def test_old_names_are_understood(tmp_path: Path) -> None:
    ours = shaken(BertForPreTraining(CONFIG))
    save_model(ours, tmp_path)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in load_file(tmp_path / "model.safetensors").items()
    }
    save_file(old, tmp_path / "model.safetensors")
    again, _ = load_model(tmp_path, BertForPreTraining)
    for (name, parameter), other in zip(ours.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(parameter, other), name


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_have_the_parameters_of_transformers(preset: str) -> None:
    config = model_config(preset, vocabulary_size=30_522)
    with torch.device("meta"):
        ours = BertForPreTraining(config)
        theirs = transformers.BertForPreTraining(
            transformers.BertConfig(
                num_hidden_layers=config.layers,
                hidden_size=config.hidden_size,
                num_attention_heads=config.attention_heads,
                intermediate_size=config.feed_forward_size,
            )
        )
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def test_base_has_its_published_size() -> None:
    with torch.device("meta"):
        encoder = BertForPreTraining(model_config("base", vocabulary_size=30_522)).encoder
    assert round(sum(p.numel() for p in encoder.parameters()) / 1e6) == 109  # "110M" with the pooler


def damage_nothing(folder: Path) -> None:
    (folder / "config.json").unlink()


def damage_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def damage_family(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "roberta"}))


def damage_field(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["num_hidden_layers"]
    (folder / "config.json").write_text(json.dumps(config))


def damage_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 98}))


def damage_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def damage_missing(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["bert.encoder.layer.1.output.dense.weight"]
    save_file(tensors, folder / "model.safetensors")


def damage_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (damage_nothing, "config.json"),
        (damage_json, "config.json"),
        (damage_family, "roberta"),
        (damage_field, "num_hidden_layers"),
        (damage_shape, "word_embeddings"),
        (damage_weights, "model.safetensors"),
        (damage_missing, "layer.1.output.dense.weight"),
        (damage_pickle, "pytorch_model.bin cannot be read: it is not a pickle of tensors"),
    ],
)
def test_a_damaged_folder_is_refused_by_name(tmp_path: Path, damage: object, told: str) -> None:
    save_model(BertForPreTraining(CONFIG), tmp_path)
    damage(tmp_path)  # type: ignore[operator]
    with pytest.raises(UserError, match=told):
        load_model(tmp_path, BertForPreTraining)


@pytest.mark.parametrize("name", ["basee", "3x0", "0x64", "12by768"])
def test_unknown_sizes_are_refused(name: str) -> None:
    with pytest.raises(UserError):
        model_config(name, vocabulary_size=100)


def test_the_nearest_preset_is_offered() -> None:
    with pytest.raises(UserError, match="Did you mean 'base'"):
        model_config("basee", vocabulary_size=100)


def test_any_size_by_hand() -> None:
    assert model_config("6×384", vocabulary_size=100) == model_config("6x384", vocabulary_size=100)
    config = model_config("6x384", vocabulary_size=100)
    assert (config.layers, config.hidden_size, config.attention_heads, config.feed_forward_size) == (6, 384, 6, 1536)


def test_save_pretrained_and_from_pretrained_are_inverse(tmp_path: Path) -> None:
    ours = shaken(BertForPreTraining(CONFIG))
    ours.save_pretrained(str(tmp_path / "run" / "huggingface"))
    again = BertForPreTraining.from_pretrained(tmp_path / "run")  # a run is as good as its exported folder
    assert again.config == CONFIG and not again.training
    for (name, parameter), other in zip(ours.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(parameter, other), name
    with pytest.warns(UserWarning, match=r"no weights for span_head\.weight, span_head\.bias"):
        BertForQuestionAnswering.from_pretrained(tmp_path / "run")


@pytest.mark.parametrize("value", [-1, 1e300, float("nan"), float("inf"), -1e-300])
@pytest.mark.parametrize("name", ["initializer_range", "layer_norm_eps", "hidden_dropout_prob", "pad_token_id"])
def test_a_number_out_of_range_is_refused_by_name(name: str, value: float, tmp_path: Path) -> None:
    save_model(BertForPreTraining(CONFIG), tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {name: value}))
    with pytest.raises(UserError, match=name):
        read_config(tmp_path)
