"""How token vectors become a sentence vector, and what a folder of sentence-transformers says about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import functional

from lambert.errors import UserError, unknown_name
from lambert.utils.io import SETTINGS_BYTES, read_json

POOLINGS = ("mean", "cls")
MODULES_FILE = "modules.json"
_LEGACY = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}


@dataclass(frozen=True)
class SentencePooling:
    """From the vectors of the tokens to that of their sentence."""

    mode: str = "mean"
    """`mean` of all real tokens, [CLS] and [SEP] among them; or `cls`, the vector of [CLS]."""
    normalize: bool = False
    """Whether vectors get length 1."""
    sequence_length: int | None = None
    """Longest text in tokens that the folder asks for."""

    def pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """[B, S, H] and [B, S], True at real tokens → float32 [B, H]."""
        if self.mode == "cls":
            pooled = hidden[:, 0].float()
        else:
            real = hidden.float().masked_fill(~mask[..., None], 0.0)
            pooled = real.sum(1) / mask.sum(1, keepdim=True)
        return functional.normalize(pooled, dim=-1) if self.normalize else pooled


def check_pooling(mode: str) -> str:
    """Raises UserError for what is no pooling."""
    if mode not in POOLINGS:
        raise unknown_name("pooling", mode, POOLINGS)
    return mode


def pooling_of(folder: Path, *, mode: str | None = None, normalize: bool | None = None) -> SentencePooling:
    """The pooling that a folder of sentence-transformers describes; of any other folder the mean.

    Args:
        mode, normalize: in place of what the folder says.

    Raises:
        UserError: the folder describes something else than mean or [CLS], and no `mode` is given.
    """
    found = SentencePooling()
    if (folder / MODULES_FILE).is_file():
        found = _described(folder, is_overridden=mode is not None)
    return SentencePooling(
        mode=check_pooling(found.mode if mode is None else mode),
        normalize=found.normalize if normalize is None else normalize,
        sequence_length=found.sequence_length,
    )


def _described(folder: Path, *, is_overridden: bool) -> SentencePooling:
    try:
        modules = read_json(folder / MODULES_FILE, SETTINGS_BYTES)
        kinds = {str(module["type"]).rpartition(".")[2]: str(module.get("path", "")) for module in modules}
        settings: dict[str, Any] = {}
        if "Pooling" in kinds:
            settings = read_json(folder / kinds["Pooling"] / "config.json", SETTINGS_BYTES)
        mode = settings.get("pooling_mode") or [name for key, name in _LEGACY.items() if settings.get(key)] or "mean"
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{folder / MODULES_FILE} or its pooling cannot be read ({error})", remedy=_OTHERWISE) from None
    others = sorted(kinds.keys() - {"Transformer", "Pooling", "Normalize"})
    mode = mode if isinstance(mode, str) else "+".join(map(str, mode))
    if (others or mode not in POOLINGS) and not is_overridden:
        what = f"has the module {others[0]}" if others else f"pools by {mode}"
        raise UserError(f"{folder} {what}, which lambert does not compute", remedy=_OTHERWISE)
    return SentencePooling(mode if mode in POOLINGS else "mean", "Normalize" in kinds, _longest(folder))


_OTHERWISE = "Say `pooling` mean or cls to leave it out, or use sentence-transformers for this folder"


def _longest(folder: Path) -> int | None:
    """Where sentence-transformers truncates: of old folders in its own file, of new ones in the tokenizer's."""
    found = []
    for name, key in (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        try:
            value = read_json(folder / name, SETTINGS_BYTES).get(key)
        except (OSError, ValueError, AttributeError):
            continue
        found += [value] if isinstance(value, int) and value > 2 else []
    return min(found, default=None)
