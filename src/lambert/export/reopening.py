"""Opens a copied folder with `transformers`, by the class that its `config.json` names."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from lambert.errors import UserError
from lambert.training.checkpoint.export_check import ask_transformers
from lambert.utils.hub import CONFIG_FILE
from lambert.utils.io import SETTINGS_BYTES, read_json

_PROGRAM = """
import json, sys, torch, transformers
transformers.utils.logging.set_verbosity_error(); transformers.utils.logging.disable_progress_bar()
asked = json.load(sys.stdin)
tokenizer = transformers.AutoTokenizer.from_pretrained(asked["folder"])
kind = getattr(transformers, asked["class"])
model, info = kind.from_pretrained(asked["folder"], dtype=torch.float32, output_loading_info=True)
with torch.no_grad():
    found = model.eval()(**tokenizer(["a text", "another, of more words"], padding=True, return_tensors="pt"))
values = [one for one in found.values() if isinstance(one, torch.Tensor)]
missing = sorted(name for name in info["missing_keys"] if "pooler" not in name)
print(json.dumps({"missing": missing, "finite": all(bool(one.isfinite().all()) for one in values)}))
"""


_ENDINGS = (
    *("Model", "ForPreTraining", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification"),
    "ForQuestionAnswering",
)
"""Of the classes that take a text and nothing else."""


def opens_in_transformers(folder: Path) -> bool:
    """Whether `transformers` has opened the folder; False where it is not installed, or the class takes other inputs.

    Raises:
        UserError: it cannot open the folder, weights are missing there, or outputs are not finite.
    """
    names = read_json(folder / CONFIG_FILE, SETTINGS_BYTES).get("architectures") or []
    if find_spec("transformers") is None or not names or not names[0].endswith(_ENDINGS):
        return False
    found = ask_transformers(_PROGRAM, {"folder": str(folder), "class": names[0]})
    if found["missing"]:
        raise UserError(
            f"the model has no weights for {', '.join(found['missing'][:3])} of {names[0]}, named in its config.json",
            remedy="Give a model that was saved whole",
        )
    if not found["finite"]:
        raise UserError("the model gives outputs that are not finite", remedy="Give one whose training did not diverge")
    return True
