"""Does a running server answer as `transformers` does on the same folder? Vectors, or the scores of labels.

Understands Infinity, Text Embeddings Inference, vLLM and other servers with OpenAI's `/v1/embeddings`. Ends with 1
where an answer differs by more than `--tolerance`.

    python benchmarks/serving_check.py http://127.0.0.1:7997 runs/mine/huggingface
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

Array = NDArray[np.float64]
TEXTS = [
    "What is deep learning?",
    "a fine film",
    "The old clerk opened the garden in June, and closed it again in July.",
    "Zürich, São Paulo and 東京 are cities; 3.14159 is not.",
    "no",
    " ".join(["A longer text fills its batch with padding for all the others."] * 6),
]
EMBEDDING_PATHS, LABEL_PATHS = ("/v1/embeddings", "/embeddings", "/embed"), ("/predict", "/classify")
UNIT = 1e-3
"""How far the norms of normalized vectors are from 1 at most."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("url", help="of the server, such as http://127.0.0.1:7997")
    parser.add_argument("folder", type=Path, help="that it serves")
    parser.add_argument("--model", help="its name at the server; needed where that serves several")
    parser.add_argument("--pooling", choices=("mean", "cls"), help="otherwise what the folder says, or the mean")
    parser.add_argument("--texts", type=Path, help="file with a text in each line; otherwise six of our own")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest difference that passes (default 1e-4)")
    given = parser.parse_args(arguments)
    texts = TEXTS if given.texts is None else given.texts.read_text(encoding="utf-8").split("\n")
    texts = [text for text in texts if text.strip()]
    has_labels = "ForSequenceClassification" in str(transformers.AutoConfig.from_pretrained(given.folder).architectures)
    server = Server(given.url.rstrip("/"), given.model)
    compare = compare_labels if has_labels else compare_vectors
    result = {"url": given.url, "folder": str(given.folder), "texts": len(texts), **compare(server, given, texts)}
    result["passed"] = result["max_difference"] <= given.tolerance and result.get("same_labels", len(texts)) == len(
        texts
    )
    print("passed" if result["passed"] else f"FAILED: more than {given.tolerance:g} apart, or another label")
    print(json.dumps(result))
    return 0 if result["passed"] else 1


class Server:
    """A server for encoders, whose way of asking is found out by the first question."""

    def __init__(self, url: str, model: str | None) -> None:
        self.url, self.path = url, ""
        self.model = model or self._only_model()

    def vectors(self, texts: Sequence[str]) -> Array:
        """float64 [texts, hidden size] of one request; prints how far a request for each text is from it."""
        single = np.stack([self._vectors([text])[0] for text in texts])
        together = self._vectors(texts)
        print(f"one text in a request, or all in one: {np.abs(single - together).max():.1e} apart")
        return together

    def labels(self, text: str) -> dict[str, float]:
        """Label → score."""
        answer = self._ask(LABEL_PATHS, lambda path: {"inputs": text} if path == "/predict" else {"input": [text]})
        scored = answer["data"][0] if isinstance(answer, dict) else answer
        if isinstance(scored, dict):  # vLLM has no names beside the probabilities
            return {str(place): float(value) for place, value in enumerate(scored["probs"])}
        return {one["label"]: float(one["score"]) for one in scored}

    def _vectors(self, texts: Sequence[str]) -> Array:
        answer = self._ask(
            EMBEDDING_PATHS, lambda path: {"inputs": list(texts)} if path == "/embed" else {"input": list(texts)}
        )
        if isinstance(answer, dict):
            answer = [one["embedding"] for one in sorted(answer["data"], key=lambda one: int(one["index"]))]
        return np.asarray(answer, dtype=np.float64)

    def _ask(self, paths: Sequence[str], body: Callable[[str], dict[str, Any]]) -> Any:
        for path in [self.path] if self.path else paths:
            sent = body(path) | ({"model": self.model} if self.model and "input" in body(path) else {})
            request = urllib.request.Request(self.url + path, json.dumps(sent).encode())
            request.add_header("Content-Type", "application/json")
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    self.path = path
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                if error.code not in (404, 405):
                    sys.exit(f"{self.url}{path} answers {error.code}: {error.read(400).decode(errors='replace')}")
            except (OSError, ValueError) as error:
                sys.exit(f"{self.url}{path}: {getattr(error, 'reason', error)}")
        sys.exit(f"{self.url} has none of {', '.join(paths)}")

    def _only_model(self) -> str | None:
        for path in ("/v1/models", "/models"):
            try:
                with urllib.request.urlopen(self.url + path, timeout=60) as answer:
                    names = [str(one["id"]) for one in json.load(answer)["data"]]
            except (OSError, ValueError, LookupError, TypeError):
                continue
            if len(names) > 1:
                sys.exit(f"the server has {', '.join(names)}: name one with --model")
            return names[0] if names else None
        return None


def compare_vectors(server: Server, given: argparse.Namespace, texts: Sequence[str]) -> dict[str, Any]:
    """The vectors of the folder by hand, beside the server's; both of length 1 where the server's are."""
    wanted = reference_vectors(given.folder, texts, given.pooling or folder_pooling(given.folder))
    found = server.vectors(texts)
    if found.shape != wanted.shape:
        sys.exit(f"the server gives vectors of shape {found.shape}, transformers {wanted.shape}")
    is_unit = bool(np.abs(np.linalg.norm(found, axis=1) - 1).max() < UNIT)
    cosines = (unit(found) * unit(wanted)).sum(1)
    difference = float(np.abs(found - (unit(wanted) if is_unit else wanted)).max())
    print(f"{server.url}{server.path}: vectors of {len(texts)} texts, {'of length 1' if is_unit else 'not normalized'}")
    print(f"largest difference {difference:.1e}, smallest cosine {cosines.min():.7f}")
    return {
        "path": server.path, "normalized": is_unit, "max_difference": difference, "min_cosine": float(cosines.min())
    }  # fmt: skip


def compare_labels(server: Server, given: argparse.Namespace, texts: Sequence[str]) -> dict[str, Any]:
    """The scores of the labels, and which is the highest."""
    names, wanted = reference_scores(given.folder, texts)
    differences, same = [], 0
    for text, scores in zip(texts, wanted, strict=True):
        found = server.labels(text)
        if unknown := set(found) - set(names):
            known = [str(place) for place in range(len(names))]
            if set(found) != set(known):
                sys.exit(f"the server knows labels that the folder does not: {', '.join(sorted(unknown))}")
            found = {names[int(place)]: score for place, score in found.items()}
        by_name = dict(zip(names, scores.tolist(), strict=True))
        differences.append(max(abs(score - by_name[name]) for name, score in found.items()))
        same += max(found, key=lambda name: found[name]) == names[int(scores.argmax())]
    print(f"{server.url}{server.path}: {same} of {len(texts)} labels the same")
    print(f"largest difference of a score {max(differences):.1e}")
    return {"path": server.path, "same_labels": same, "max_difference": float(max(differences))}


def folder_pooling(folder: Path) -> str:
    """`cls` where a folder of sentence-transformers says so, else `mean`."""
    file = folder / "1_Pooling" / "config.json"
    return "cls" if file.is_file() and json.loads(file.read_text())["pooling_mode_cls_token"] else "mean"


@torch.no_grad()
def reference_vectors(folder: Path, texts: Sequence[str], pooling: str) -> Array:
    """Text by text, so without padding."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    found = []
    for text in texts:
        states = model(**tokenizer(text, return_tensors="pt", truncation=True)).last_hidden_state[0].double()
        found.append((states.mean(0) if pooling == "mean" else states[0]).numpy())
    return np.stack(found)


@torch.no_grad()
def reference_scores(folder: Path, texts: Sequence[str]) -> tuple[list[str], Array]:
    """The labels, and their scores [texts, labels]: softmax; of several labels sigmoid; of regression the number."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    logits = [model(**tokenizer(text, return_tensors="pt", truncation=True)).logits[0].double() for text in texts]
    kind = model.config.problem_type
    scores = torch.stack(logits)
    if kind != "regression":
        scores = scores.sigmoid() if kind == "multi_label_classification" else scores.softmax(1)
    return [model.config.id2label[place] for place in range(scores.shape[1])], scores.numpy()


def unit(vectors: Array) -> Array:
    """Of length 1."""
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


if __name__ == "__main__":
    sys.exit(main())
