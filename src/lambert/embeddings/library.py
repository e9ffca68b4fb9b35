"""A folder of lambert as a model of the library sentence-transformers (the extra `embed`)."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer

from lambert.corpus.tokenizer_files import save_tokenizer
from lambert.embeddings.pooling import MODULES_FILE
from lambert.embeddings.vectors import SentenceEncoderModel
from lambert.errors import UserError
from lambert.model.config_file import read_config
from lambert.model.heads import pretraining_model
from lambert.model.huggingface import save_model
from lambert.model.weight_files import weight_files
from lambert.utils.hub import CONFIG_FILE, MODEL_FILES
from lambert.utils.io import share, unwritable

_PACKAGES = ("sentence_transformers", "datasets", "accelerate")
_KIND = "sentence_transformers.models"
"""Where the classes are in every version of the library; newer ones know them by these names too."""


def check_installed() -> None:
    """Raises UserError where the extra is missing."""
    if missing := [name.replace("_", "-") for name in _PACKAGES if find_spec(name) is None]:
        raise UserError(
            f"this needs the package{'s' * (len(missing) > 1)} {', '.join(missing)}, not installed here",
            remedy="Install what it needs with: pip install 'lambert-bert[embed]'",
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Within the block, transformers and datasets draw no bars and report nothing but errors."""
    import datasets
    from transformers.utils import logging

    level, has_bars, had_bars = (
        logging.get_verbosity(),
        logging.is_progress_bar_enabled(),
        datasets.are_progress_bars_disabled(),
    )
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bars:
            logging.enable_progress_bar()
        if not had_bars:
            datasets.enable_progress_bars()


@contextmanager
def plain_folder(
    folder: Path, tokenizer: Tokenizer, *, positions: int, random_seed: int | None = None
) -> Iterator[Path]:
    """A temporary folder with configuration, weights and tokenizer alone, which `transformers` opens as lambert does.

    Args:
        random_seed: random weights from this seed in place of the folder's: the baseline of a pre-training.
    """
    with tempfile.TemporaryDirectory(prefix="lambert-embed-") as name:
        made = Path(name)
        if random_seed is None:
            for file in (folder / CONFIG_FILE, *weight_files(folder), *(folder / one for one in MODEL_FILES)):
                if file.is_file() and not (made / file.name).exists():
                    (made / file.name).symlink_to(file.resolve())
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(random_seed)
                save_model(pretraining_model(read_config(folder)), made)
        save_tokenizer(tokenizer, made, longest_sequence=positions)
        yield made


def library_model(plain: Path, model: SentenceEncoderModel, device: torch.device, **config: float) -> Any:
    """The model of a plain folder in sentence-transformers, with the pooling and the length of `model`.

    Args:
        config: settings of `transformers`' configuration in place of the folder's.
    """
    from sentence_transformers import SentenceTransformer, SentenceTransformerModelCardData
    from sentence_transformers.base.modules import Normalize
    from sentence_transformers.base.modules import Transformer as Encoder
    from sentence_transformers.sentence_transformer.modules import Pooling

    modules: list[Any] = [Encoder(str(plain), config_kwargs=config, max_seq_length=model.sequence_length)]
    modules.append(Pooling(model.module.config.hidden_size, model.pooling.mode))
    modules += [Normalize()] * model.pooling.normalize
    no_card = SentenceTransformerModelCardData(generate_widget_examples=False)
    no_card.widget = [{}]  # else the library looks through the texts for examples, with a bar
    return SentenceTransformer(modules=modules, device=str(device), model_card_data=no_card)


def save_for_library(encoder: Any, model: SentenceEncoderModel, folder: Path) -> None:
    """Write the encoder of `transformers` as a folder that `SentenceTransformer(folder)` and lambert open.

    Args:
        encoder: a `BertModel` or `ModernBertModel` of `transformers`.
        model: what the tokenizer, the pooling and the length are taken from.

    Raises:
        UserError: the weights cannot be written.
    """
    try:
        encoder.save_pretrained(folder)
    except SafetensorError as error:
        raise unwritable(error, folder, remedy="Choose another folder") from None
    for file in weight_files(folder):
        share(file)  # safetensors creates files that only their owner can read
    save_tokenizer(model.tokenizer, folder, longest_sequence=model.sequence_length)
    names = ["Transformer", "Pooling", *["Normalize"] * model.pooling.normalize]
    paths = ["", *(f"{place}_{name}" for place, name in enumerate(names[1:], start=1))]
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": f"{_KIND}.{name}"}
        for place, (name, path) in enumerate(zip(names, paths, strict=True))
    ]
    settings: dict[str, Any] = {"word_embedding_dimension": model.module.config.hidden_size}
    for mode in ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens"):
        settings[f"pooling_mode_{mode}"] = mode.startswith(model.pooling.mode + "_tok")
    files: dict[str, Any] = {
        MODULES_FILE: modules,
        "1_Pooling/config.json": settings,
        "sentence_bert_config.json": {"max_seq_length": model.sequence_length, "do_lower_case": False},
    }
    for name, value in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    for path in paths[2:]:
        (folder / path).mkdir()
        (folder / path / "config.json").write_text("{}\n", encoding="utf-8")
