"""How `transformers` names the parameters of each architecture."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lambert.model.bert import BertConfig
from lambert.model.modernbert import ModernBertConfig


@dataclass(frozen=True)
class Layout:
    """The names in a Hugging Face folder of one architecture. Our module paths → theirs, both without a parameter's."""

    prefix: str
    """Of the encoder's names."""
    modules: Mapping[str, str]
    blocks: str
    """Their list of layers."""
    block_modules: Mapping[str, tuple[str, ...]]
    """Inside a layer; several that ours concatenates along the first dimension."""
    words: str
    """The word embedding."""
    bias: str
    """The bias of the MLM decoder."""
    decoder: str
    """The matrix of the MLM decoder, or the copy of the word embedding that old folders have."""
    decoder_bias: str
    """The bias beside that matrix: of a tied decoder a copy of `bias`, if it is not the same."""
    unprefixed: tuple[str, ...]
    """How names begin in a folder of the encoder alone."""

    @property
    def encoder_parts(self) -> tuple[str, ...]:
        """How the names of embeddings and layers begin, none of which may be left over."""
        return f"{self.blocks}.", f"{self.prefix}embeddings.", f"{self.prefix}encoder."

    def names(self, ours: str) -> list[str]:
        """`transformers`' names of our parameter: one, or several that ours concatenates."""
        module, _, parameter = ours.rpartition(".")
        block = re.fullmatch(r"encoder\.blocks\.(\d+)\.(.+)", module)
        if block:
            return [f"{self.blocks}.{block[1]}.{theirs}.{parameter}" for theirs in self.block_modules[block[2]]]
        return [f"{self.modules[module]}.{parameter}"]

    def modern(self, name: str) -> str:
        """Their name with the encoder's prefix and without TensorFlow's gamma and beta."""
        if name.startswith(self.unprefixed):
            name = f"{self.prefix}{name}"
        return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


BERT = Layout(
    prefix="bert.",
    modules={
        "encoder.embeddings.word": "bert.embeddings.word_embeddings",
        "encoder.embeddings.position": "bert.embeddings.position_embeddings",
        "encoder.embeddings.segment": "bert.embeddings.token_type_embeddings",
        "encoder.embeddings.layer_norm": "bert.embeddings.LayerNorm",
        "pooler.dense": "bert.pooler.dense",
        "mlm_head": "cls.predictions",
        "mlm_head.transform": "cls.predictions.transform.dense",
        "mlm_head.layer_norm": "cls.predictions.transform.LayerNorm",
        "mlm_head.decoder": "cls.predictions.decoder",
        "nsp_head": "cls.seq_relationship",
        "span_head": "qa_outputs",
        "classifier": "classifier",
    },
    blocks="bert.encoder.layer",
    block_modules={
        "attention.query_key_value": ("attention.self.query", "attention.self.key", "attention.self.value"),
        "attention.output": ("attention.output.dense",),
        "attention.layer_norm": ("attention.output.LayerNorm",),
        "feed_forward.expand": ("intermediate.dense",),
        "feed_forward.contract": ("output.dense",),
        "feed_forward.layer_norm": ("output.LayerNorm",),
    },
    words="bert.embeddings.word_embeddings.weight",
    bias="cls.predictions.bias",
    decoder="cls.predictions.decoder.weight",
    decoder_bias="cls.predictions.decoder.bias",
    unprefixed=("embeddings.", "encoder.", "pooler."),
)
MODERNBERT = Layout(
    prefix="model.",
    modules={
        "encoder.embeddings.word": "model.embeddings.tok_embeddings",
        "encoder.embeddings.layer_norm": "model.embeddings.norm",
        "encoder.final_norm": "model.final_norm",
        "mlm_head": "decoder",
        "mlm_head.transform": "head.dense",
        "mlm_head.layer_norm": "head.norm",
        "mlm_head.decoder": "decoder",
        "head.transform": "head.dense",
        "head.layer_norm": "head.norm",
        "classifier": "classifier",
    },
    blocks="model.layers",
    block_modules={
        "attention.layer_norm": ("attn_norm",),
        "attention.query_key_value": ("attn.Wqkv",),
        "attention.output": ("attn.Wo",),
        "feed_forward.layer_norm": ("mlp_norm",),
        "feed_forward.expand": ("mlp.Wi",),
        "feed_forward.contract": ("mlp.Wo",),
    },
    words="model.embeddings.tok_embeddings.weight",
    bias="decoder.bias",
    decoder="decoder.weight",
    decoder_bias="decoder.bias",
    unprefixed=("embeddings.", "layers.", "final_norm."),
)


def layout_of(config: BertConfig) -> Layout:
    """The names of the architecture of `config`."""
    return MODERNBERT if isinstance(config, ModernBertConfig) else BERT
