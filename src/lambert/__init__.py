"""lambert: pre-train BERT encoders with LAMB, at any batch size::

    import lambert

    corpus = lambert.build_corpus(["texts/"], "my-corpus", vocab_size=30_522)
    run = lambert.pretrain(corpus, model="mini", batch_size=256, epochs=3, out="runs/mine")
    run.metrics["eval_mlm_loss"], run.metrics["eval_unigram_loss"]

Every name is imported when it is first used, so that `import lambert` loads nothing heavy. All but the optimizers in
`lambert.optim` needs the extra `pretrain`: `pip install 'lambert-bert[pretrain]'`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lambert.api.models import evaluate, fill_mask
    from lambert.api.planning import plan
    from lambert.api.trackers import MLflowCallback, TensorBoardCallback, WandbCallback
    from lambert.api.training import Trainer, pretrain
    from lambert.corpus.build import build_corpus
    from lambert.corpus.store import Corpus
    from lambert.embeddings.contrastive import train_embeddings
    from lambert.embeddings.scores import evaluate_embeddings
    from lambert.embeddings.vectors import embed
    from lambert.errors import Interrupted, PeerLost, UserError
    from lambert.export.api import export_model
    from lambert.finetune.comparison import compare_models
    from lambert.finetune.glue.api import finetune_glue
    from lambert.finetune.labelled.api import fine_tune
    from lambert.finetune.squad.api import finetune_squad
    from lambert.model.heads import BertForPreTraining
    from lambert.training.callbacks import Callback
    from lambert.training.config.arguments import TrainingArguments
    from lambert.training.train_output import StepMetrics, TrainOutput

__version__ = "0.1.0"

_MODULES = {
    "BertForPreTraining": "lambert.model.heads",
    "Callback": "lambert.training.callbacks",
    "Corpus": "lambert.corpus.store",
    "Interrupted": "lambert.errors",
    "MLflowCallback": "lambert.api.trackers",
    "PeerLost": "lambert.errors",
    "StepMetrics": "lambert.training.train_output",
    "TensorBoardCallback": "lambert.api.trackers",
    "TrainOutput": "lambert.training.train_output",
    "Trainer": "lambert.api.training",
    "TrainingArguments": "lambert.training.config.arguments",
    "UserError": "lambert.errors",
    "WandbCallback": "lambert.api.trackers",
    "build_corpus": "lambert.corpus.build",
    "compare_models": "lambert.finetune.comparison",
    "embed": "lambert.embeddings.vectors",
    "evaluate": "lambert.api.models",
    "evaluate_embeddings": "lambert.embeddings.scores",
    "export_model": "lambert.export.api",
    "fill_mask": "lambert.api.models",
    "fine_tune": "lambert.finetune.labelled.api",
    "finetune_glue": "lambert.finetune.glue.api",
    "finetune_squad": "lambert.finetune.squad.api",
    "plan": "lambert.api.planning",
    "pretrain": "lambert.api.training",
    "train_embeddings": "lambert.embeddings.contrastive",
}

__all__ = [
    "BertForPreTraining",
    "Callback",
    "Corpus",
    "Interrupted",
    "MLflowCallback",
    "PeerLost",
    "StepMetrics",
    "TensorBoardCallback",
    "TrainOutput",
    "Trainer",
    "TrainingArguments",
    "UserError",
    "WandbCallback",
    "__version__",
    "build_corpus",
    "compare_models",
    "embed",
    "evaluate",
    "evaluate_embeddings",
    "export_model",
    "fill_mask",
    "fine_tune",
    "finetune_glue",
    "finetune_squad",
    "plan",
    "pretrain",
    "train_embeddings",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'lambert' has no attribute {name!r}")
    try:
        module = importlib.import_module(_MODULES[name])  # noqa: TID251  the table above is all it loads
    except ModuleNotFoundError as error:
        from lambert.errors import missing_package

        raise missing_package(error) from None
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
