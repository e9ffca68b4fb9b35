"""ModernBERT beside `transformers`' own: losses, logits and gradients, and folders in both directions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from torch.nn import functional

from lambert.errors import UserError
from lambert.model.config_file import read_config
from lambert.model.heads import (
    BertForPreTraining,
    ModernBertForMaskedLM,
    ModernBertForQuestionAnswering,
    ModernBertForSequenceClassification,
)
from lambert.model.huggingface import huggingface_state, load_model, save_model
from lambert.model.modernbert import ModernBertConfig
from lambert.model.parameter_count import parameter_count
from lambert.model.presets import model_config

CONFIG = ModernBertConfig(
    vocabulary_size=120,
    layers=4,
    hidden_size=128,
    attention_heads=2,
    feed_forward_size=192,
    maximum_positions=64,
    local_window=12,
    global_rotary_base=5_000.0,
    local_rotary_base=500.0,
)
B, S = 3, 40
MASKED = torch.tensor([1, 7, 20, 39, 41, 55, 64, 81, 88])
"""In the flattened batch; at real tokens only."""


def theirs_of(config: ModernBertConfig, folder: Path, kind: Any = transformers.ModernBertForMaskedLM) -> Any:
    """`transformers`' model of a folder with `config.json` alone: random weights."""
    found = transformers.AutoConfig.from_pretrained(folder)
    return kind._from_config(found, attn_implementation="eager")


@pytest.fixture
def both(tmp_path: Path) -> tuple[ModernBertForMaskedLM, Any]:
    """Our model and theirs with the same weights, moved off their initialization so that norms matter."""
    torch.manual_seed(0)
    ours = ModernBertForMaskedLM(CONFIG)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    save_model(ours, tmp_path / "folder")
    theirs = transformers.ModernBertForMaskedLM.from_pretrained(tmp_path / "folder", attn_implementation="eager")
    return ours, theirs


def padded() -> tuple[Tensor, Tensor]:
    """Ids [B, S], and a mask with 40, 25 and 9 real tokens."""
    ids = torch.randint(5, 120, (B, S), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(S) < torch.tensor([[40], [25], [9]])
    return ids, mask


@pytest.mark.parametrize("is_training", [True, False])
def test_losses_and_gradients_are_theirs(both: tuple[ModernBertForMaskedLM, Any], is_training: bool) -> None:
    """With gradients a CPU computes real tokens only, without them padded rows."""
    ours, theirs = both
    ids, mask = padded()
    labels = ids.flatten()[MASKED]
    logits = theirs(ids, attention_mask=mask.long()).logits.flatten(0, 1)[MASKED]
    expected = functional.cross_entropy(logits, labels, reduction="sum")
    ours.train(is_training)
    with torch.set_grad_enabled(is_training):
        (loss, terms, _), nsp = ours(ids, torch.zeros_like(ids), mask, MASKED, masked_labels=labels)
        found = ours(ids, torch.zeros_like(ids), mask, MASKED)[0]
    assert nsp.shape == (B, 0)
    torch.testing.assert_close(found.detach(), logits.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(terms.sum(), loss.detach())
    if is_training:
        loss.backward()
        expected.backward()
        own = {name: parameter.grad for name, parameter in theirs.named_parameters()}
        for name, gradient in _gradients(ours).items():
            torch.testing.assert_close(gradient, own[name], rtol=1e-4, atol=1e-5, msg=name)


def _gradients(model: ModernBertForMaskedLM) -> dict[str, Tensor]:
    """By their names."""
    names = huggingface_state(model)
    return dict(zip(names, (p.grad for p in model.parameters()), strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("with_gradients", [True, False])
def test_packed_sequences_do_not_see_each_other(both: tuple[ModernBertForMaskedLM, Any], with_gradients: bool) -> None:
    ours, theirs = both
    ids, _ = padded()
    first, second = ids[0, :22], ids[1, :18]
    positions = torch.cat((torch.arange(22), torch.arange(18)))[None]
    sequence = torch.cat((torch.zeros(22), torch.ones(18))).long()[None]
    row, at = torch.cat((first, second))[None], torch.tensor([0, 21, 22, 39])
    ours.eval()
    with torch.set_grad_enabled(with_gradients):
        found, _ = ours(row, torch.zeros_like(row), None, at, position_ids=positions, sequence_ids=sequence)
    alone = torch.cat([theirs(one[None]).logits[0] for one in (first, second)])
    torch.testing.assert_close(found, alone[at], rtol=1e-5, atol=1e-5)


def test_a_token_beyond_the_window_of_every_local_layer_has_no_effect() -> None:
    torch.manual_seed(0)
    model = ModernBertForMaskedLM(replace(CONFIG, layers=3, global_every=9)).eval()  # one global layer, the first
    for block in model.encoder.blocks[:1]:
        block.attention.output.weight.data.zero_()  # which then adds nothing
    ids, at = padded()[0][:1], torch.tensor([0])
    before, _ = model(ids, torch.zeros_like(ids), None, at)
    ids[0, 13] = 5 + ids[0, 13] % 100  # two local layers reach 2 · 6 tokens
    after, _ = model(ids, torch.zeros_like(ids), None, at)
    assert torch.equal(before, after)
    ids[0, 12] = 5 + ids[0, 12] % 100
    assert not torch.equal(before, model(ids, torch.zeros_like(ids), None, at)[0])


@pytest.mark.parametrize("checkpointing", ["selective", "full"])
def test_activation_checkpointing_keeps_the_gradients(checkpointing: str) -> None:
    ids, mask = padded()
    gradients = []
    for kind in ("none", checkpointing):
        torch.manual_seed(0)
        model = ModernBertForMaskedLM(CONFIG).train()
        model.encoder.checkpoint_activations(kind)
        (loss, _, _), _ = model(ids, torch.zeros_like(ids), mask, MASKED, masked_labels=ids.flatten()[MASKED])
        loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


CHANGES: list[dict[str, Any]] = [
    {},
    {"layers": 7, "global_every": 2},
    {"layers": 2, "global_every": 5},
    {"tied_decoder": False},
    {"dropout": 0.1, "attention_dropout": 0.2, "pad_token_id": 3, "layer_norm_epsilon": 1e-6},
    {"classifier_dropout": 0.3, "initializer_range": 0.05},
]


@pytest.mark.parametrize("changes", CHANGES)
def test_folders_open_in_both_directions(changes: dict[str, Any], tmp_path: Path) -> None:
    config = replace(CONFIG, **changes)
    torch.manual_seed(0)
    ours = ModernBertForMaskedLM(config).eval()
    save_model(ours, tmp_path / "ours")
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "ours").eval()
    theirs.save_pretrained(tmp_path / "theirs")
    again, report = load_model(tmp_path / "theirs", ModernBertForMaskedLM)
    assert again.config == config == read_config(tmp_path / "ours")
    assert not report.freshly_initialised and not report.unused
    ids = padded()[0]
    found = [model.eval()(ids, torch.zeros_like(ids), None, MASKED)[0].detach() for model in (ours, again)]
    assert torch.equal(*found)
    torch.testing.assert_close(theirs(ids).logits.flatten(0, 1)[MASKED].detach(), found[0], rtol=1e-5, atol=1e-5)


def test_an_encoder_alone_gets_a_new_head(tmp_path: Path) -> None:
    save_model(ModernBertForMaskedLM(CONFIG), tmp_path / "whole")
    transformers.ModernBertModel.from_pretrained(tmp_path / "whole").save_pretrained(tmp_path / "encoder")
    _, report = load_model(tmp_path / "encoder", ModernBertForMaskedLM)
    assert report.freshly_initialised == ["mlm_head.bias", "mlm_head.transform.weight", "mlm_head.layer_norm.weight"]


def test_the_configuration_of_the_first_published_folders(tmp_path: Path) -> None:
    """The keys that transformers 4.48 wrote, as in answerdotai/ModernBERT-base, at another size."""
    written = {
        "architectures": ["ModernBertForMaskedLM"], "model_type": "modernbert", "attention_bias": False,
        "attention_dropout": 0.0, "bos_token_id": 50281, "classifier_activation": "gelu", "classifier_bias": False,
        "classifier_dropout": 0.0, "classifier_pooling": "cls", "cls_token_id": 50281, "decoder_bias": True,
        "deterministic_flash_attn": False, "embedding_dropout": 0.0, "eos_token_id": 50282,
        "global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "gradient_checkpointing": False,
        "hidden_activation": "gelu", "hidden_size": 768, "initializer_cutoff_factor": 2.0, "initializer_range": 0.02,
        "intermediate_size": 1152, "layer_norm_eps": 1e-05, "local_attention": 128, "local_rope_theta": 10000.0,
        "max_position_embeddings": 8192, "mlp_bias": False, "mlp_dropout": 0.0, "norm_bias": False,
        "norm_eps": 1e-05, "num_attention_heads": 12, "num_hidden_layers": 22, "pad_token_id": 50283,
        "position_embedding_type": "absolute", "reference_compile": None, "repad_logits_with_grad": False,
        "sep_token_id": 50282, "sparse_pred_ignore_index": -100, "sparse_prediction": False,
        "tie_word_embeddings": True, "torch_dtype": "float32", "vocab_size": 50368,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(written))
    config = read_config(tmp_path)
    assert config == replace(
        model_config("base", vocabulary_size=50_368, architecture="modernbert"), pad_token_id=50_283
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"norm_bias": True}, "norm_bias is True, not False"),
        ({"hidden_activation": "silu"}, "hidden_activation is 'silu', not 'gelu'"),
        ({"classifier_pooling": "mean"}, "classifier_pooling is 'mean', not 'cls'"),
        ({"layer_types": ["sliding_attention"] * 4}, "layer_types is"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "rope_parameters has 'full_attention'"),
        ({"rope_parameters": {"full_attention": {"rope_theta": "big"}}}, "the rotary base of full_attention is 'big'"),
        ({"mlp_dropout": 0.5}, "mlp_dropout is 0.5, embedding_dropout 0.0"),
        ({"local_attention": 0}, "local_attention = 0"),
        ({"model_type": "roberta"}, "model_type is 'roberta', not 'bert' or 'modernbert'"),
    ],
)
def test_what_is_not_computed_here_is_refused_by_name(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    save_model(ModernBertForMaskedLM(CONFIG), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match=told):
        read_config(tmp_path)


@pytest.mark.parametrize("size", ["tiny", "2x192"])
def test_parameters_are_counted_as_transformers_counts_them(size: str, tmp_path: Path) -> None:
    config = model_config(size, vocabulary_size=300, architecture="modernbert")
    model = ModernBertForMaskedLM(config)
    save_model(model, tmp_path)
    assert sum(p.numel() for p in model.parameters()) == parameter_count(config)
    assert theirs_of(config, tmp_path).num_parameters() == parameter_count(config)


def test_parameters_of_the_published_sizes() -> None:
    """Warner et al. 2024: 149 and 395 million."""
    for size, millions in (("base", 149), ("large", 395)):
        count = parameter_count(model_config(size, vocabulary_size=50_368, architecture="modernbert"))
        assert abs(count / 1e6 - millions) < 1


@pytest.mark.parametrize(
    ("head", "kind", "options"),
    [
        (ModernBertForQuestionAnswering, transformers.ModernBertForQuestionAnswering, {}),
        (ModernBertForSequenceClassification, transformers.ModernBertForSequenceClassification, {"classes": 2}),
    ],
)
def test_heads_of_tasks_are_theirs(head: Any, kind: Any, options: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    ours = head(CONFIG, **options).eval()
    save_model(ours, tmp_path)
    theirs = kind.from_pretrained(tmp_path, attn_implementation="eager").eval()
    ids, mask = padded()
    found = ours(ids, torch.zeros_like(ids), mask)
    expected = theirs(ids, attention_mask=mask.long())
    if head is ModernBertForSequenceClassification:
        torch.testing.assert_close(found, expected.logits, rtol=1e-5, atol=1e-5)
        return
    for one, other in zip(found, (expected.start_logits, expected.end_logits), strict=True):
        torch.testing.assert_close(one[mask], other[mask], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_the_initialization_is_theirs_in_scale(tied: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = replace(CONFIG, tied_decoder=tied)
    ours = ModernBertForMaskedLM(config)
    save_model(ours, tmp_path)
    theirs = dict(theirs_of(config, tmp_path).named_parameters())
    for name, tensor in huggingface_state(ours).items():
        own, other = float(tensor.std()), float(theirs[name].detach().std())
        assert own == pytest.approx(other, rel=0.15), name


def test_the_heads_of_bert_keep_their_order() -> None:
    """Random weights are drawn in the order of the modules: another order would be other runs from the same seed."""
    model = BertForPreTraining(model_config("1x32", vocabulary_size=50))
    assert [name for name, _ in model.named_children()] == ["encoder", "pooler", "mlm_head", "nsp_head"]
