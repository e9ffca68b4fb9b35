"""ONNX files run by ONNX Runtime beside `transformers` on the same folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.embeddings.models import TEXTS, write_model

import lambert
from lambert.cli.main import main
from lambert.errors import UserError
from lambert.export import onnx_files

onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
pytest.importorskip("onnxscript", reason="needs onnxscript")
transformers = pytest.importorskip("transformers", reason="needs transformers")


def by_onnx(file: Path, texts: list[str]) -> tuple[list[np.ndarray], np.ndarray]:
    """Outputs and which places are real tokens."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(file.parents[1])
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    feed = dict(tokenizer(texts, return_tensors="np", padding=True, truncation=True))
    feed = {one.name: feed[one.name] for one in session.get_inputs()}
    return session.run(None, feed), feed["attention_mask"].astype(bool)


@torch.no_grad()
def by_transformers(folder: Path, kind: str, texts: list[str]) -> Any:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = getattr(transformers, kind).from_pretrained(folder, dtype=torch.float32).eval()
    return model(**tokenizer(texts, return_tensors="pt", padding=True, truncation=True))


@pytest.mark.integration
@pytest.mark.parametrize("architecture", ["bert", "modernbert"])
def test_a_pretrained_model_fills_blanks_in_onnx_runtime(
    architecture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_model(tmp_path / "model", architecture)
    out = tmp_path / "out"
    assert main(["export", str(source), str(out), "--int8", "--json"]) == 0
    said = capsys.readouterr().out
    exact, int8 = json.loads(said.splitlines()[-1])["onnx"]
    for texts in (TEXTS[1:2], TEXTS, [" ".join(TEXTS * 9), TEXTS[0]]):  # one, several, longer than the positions
        expected = by_transformers(source, "AutoModelForMaskedLM", texts).logits.numpy()
        (found,), real = by_onnx(out / exact["file"], texts)
        np.testing.assert_allclose(found[real], expected[real], atol=1e-4)
        (rounded,), _ = by_onnx(out / int8["file"], texts)
        difference = np.abs(rounded - expected)[real].max()
        assert 1e-3 < difference < 0.5 * expected[real].std()
    assert exact["agreement"] == 1 and exact["difference"] < 1e-3 < int8["difference"]
    assert exact["bytes"] == (out / exact["file"]).stat().st_size
    assert int8["bytes"] == (out / int8["file"]).stat().st_size
    assert "onnx/model_quantized.onnx" in said and "ms, PyTorch" in said
    assert (out / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()


@pytest.mark.integration
@pytest.mark.parametrize(
    ("kind", "outputs"),
    [
        ("BertForSequenceClassification", ("logits",)),
        ("ModernBertForTokenClassification", ("logits",)),
        ("BertForQuestionAnswering", ("start_logits", "end_logits")),
    ],
)
def test_the_head_of_a_fine_tuned_model_is_exported(kind: str, outputs: tuple[str, ...], tmp_path: Path) -> None:
    source = write_model(tmp_path / "run" / "model", "modernbert" if kind.startswith("Modern") else "bert")
    torch.manual_seed(1)
    getattr(transformers, kind).from_pretrained(source).save_pretrained(source)
    exported = lambert.export_model(tmp_path / "run", tmp_path / "out", onnx=True)  # the folder of a fine-tuning
    assert exported.step is None and exported.onnx[0].outputs == outputs and exported.checked_with_transformers
    found, real = by_onnx(tmp_path / "out" / "onnx" / "model.onnx", TEXTS)
    expected = by_transformers(source, kind, TEXTS)
    for name, one in zip(outputs, found, strict=True):
        mine = expected[name].numpy()
        places = real if mine.shape[:2] == real.shape else slice(None)
        np.testing.assert_allclose(one[places], mine[places], atol=1e-4)
    again = lambert.export_model(tmp_path / "out", tmp_path / "copy")  # without its ONNX file
    assert again.onnx == () and not (tmp_path / "copy" / "onnx").exists()


def test_what_cannot_be_exported_is_refused_before_the_folder_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = write_model(tmp_path / "model", "bert"), tmp_path / "out"
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"architectures": ["BertForTokenClassification"]}))
    assert main(["export", str(source), str(out), "--onnx"]) == 2
    assert "no weights for classifier.bias, classifier.weight of BertForTokenClassification" in capsys.readouterr().err
    (source / "config.json").write_text(json.dumps(config | {"architectures": ["BertForMultipleChoice"]}))
    assert main(["export", str(source), str(out), "--onnx"]) == 2
    assert "the class BertForMultipleChoice" in capsys.readouterr().err
    (source / "config.json").write_text(json.dumps(config))
    weights = load_file(source / "model.safetensors")
    weights["bert.embeddings.word_embeddings.weight"][5] = float("nan")
    save_file(weights, source / "model.safetensors", metadata={"format": "pt"})
    assert main(["export", str(source), str(out), "--onnx"]) == 2
    assert "outputs that are not finite" in capsys.readouterr().err
    (source / "model.safetensors").write_bytes(b"\0" * 20)
    assert main(["export", str(source), str(out)]) == 2
    assert "cannot open" in capsys.readouterr().err
    assert main(["export", str(source), str(out), "--public"]) == 2
    assert "Add --push" in capsys.readouterr().err
    monkeypatch.setattr(onnx_files, "_PACKAGES", ("onnx", "no_such_package"))
    assert main(["export", str(source), str(out), "--onnx"]) == 2
    assert "pip install 'lambert-bert[onnx]'" in capsys.readouterr().err
    assert main(["export", str(source), str(out), "--step", "3"]) == 2
    assert "is not a run" in capsys.readouterr().err
    assert sorted(one.name for one in tmp_path.iterdir()) == ["model"]


@pytest.mark.parametrize(
    ("compared", "expected"),
    [
        ({"difference": 2e-3, "finite": True}, "differ from PyTorch's by 0.002"),
        ({"difference": float("nan"), "finite": True}, "differ from PyTorch's by nan"),
        ({"difference": 0.0, "finite": False}, "not finite"),
        ({"shapes": [[1, 2], [1, 3]]}, r"shape \[1, 3\], not \[1, 2\]"),
    ],
)
def test_a_file_with_other_outputs_is_refused(
    compared: dict[str, Any], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_model(tmp_path / "model", "bert")
    monkeypatch.setattr(onnx_files, "_in_its_own_process", lambda asked: {"compared": {"onnx": compared}})
    with pytest.raises(UserError, match=expected):
        lambert.export_model(source, tmp_path / "out", onnx=True)
    assert not (tmp_path / "out").exists()
