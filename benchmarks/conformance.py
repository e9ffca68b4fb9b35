"""A run's exported folder against `transformers`: the same token ids on real lines, the same logits, fill-mask.

python benchmarks/conformance.py RUN TEXT_FILE --lines 1000
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import torch
import transformers

from lambert.corpus.sources import TextReader
from lambert.corpus.tokenizer_files import load_vocabulary
from lambert.model.fill import fill_mask
from lambert.model.heads import BertForPreTraining
from lambert.model.huggingface import model_folder


def real_lines(path: Path, count: int) -> list[str]:
    """The first `count` lines of text."""
    lines: list[str] = []
    for document in TextReader([path]):
        lines += document.paragraphs
        if len(lines) >= count:
            break
    return lines[:count]


def logit_difference(folder: Path, ids: list[list[int]]) -> float:
    """Largest absolute difference of any MLM or NSP logit over whole sequences."""
    ours = BertForPreTraining.from_pretrained(folder)
    theirs = transformers.AutoModelForPreTraining.from_pretrained(folder).eval()
    worst = 0.0
    for sequence in ids:
        token_ids = torch.tensor([sequence[: ours.config.maximum_positions]])
        with torch.no_grad():
            everywhere = torch.arange(token_ids.shape[1])
            mlm_logits, nsp_logits = ours(token_ids, torch.zeros_like(token_ids), None, everywhere)
            expected = theirs(input_ids=token_ids)
        worst = max(worst, float((mlm_logits - expected.prediction_logits[0]).abs().max()))
        worst = max(worst, float((nsp_logits - expected.seq_relationship_logits).abs().max()))
    return worst


def main() -> None:
    """Print the differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run or Hugging Face folder")
    parser.add_argument("text", type=Path, help="text file, also compressed")
    parser.add_argument("--lines", type=int, default=1_000)
    arguments = parser.parse_args()
    folder = model_folder(arguments.run)
    lines = real_lines(arguments.text, arguments.lines)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = load_vocabulary(folder, cased=False)
    our_ids = [encoding.ids for encoding in ours.encode_batch(lines)]
    same_lines = sum(a == b for a, b in zip(our_ids, theirs(lines)["input_ids"], strict=True))
    worst = logit_difference(folder, our_ids[:50])
    sentence = "The capital of the [MASK] is a city."
    words = [word.word for word in fill_mask(BertForPreTraining.from_pretrained(folder), ours, sentence)[0]]
    guesses = [guess["token_str"] for guess in transformers.pipeline("fill-mask", model=str(folder))(sentence)]
    rows = [
        {"case": "lines with the same token ids", "ours": same_lines, "theirs": len(lines), "target": len(lines)},
        {"case": "largest logit difference, 50 lines", "ours": worst, "theirs": 0.0, "target": 1e-5},
        {"case": "same fill-mask tokens", "ours": words, "theirs": guesses, "target": guesses},
    ]
    for row in rows:
        print(f"{row['case']:36} {row['ours']}  (target {row['target']})")
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    rival = f"transformers {transformers.__version__}"
    rows = [{**row, "rival": rival} for row in rows]
    print(json.dumps({"benchmark": "conformance", "machine": machine, "rows": rows}))


if __name__ == "__main__":
    main()
