"""Files that somebody means harm with, and the commands that open them: what test_malicious.py starts.

Each case has a folder with a finished run, a corpus and a SQuAD file in it, spoils one of them, and gives a command.
Pickles, YAML tags and code in these files would all make a file called CANARY.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import pickle
import resource
import shutil
import sys
import tarfile
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch

from lambert.cli.main import main
from lambert.training.checkpoint.format import _content_sha256

CANARY = Path("CANARY")
OPTIONS = [
    *("--model", "2x32", "--batch-size", "8", "--micro-batch-size", "4"),
    *("--samples", "80", "--sequence-lengths", "32", "64", "--probe-seconds", "0"),
]
RESUME = ["pretrain", "--corpus", "corpus", "--out", "run", *OPTIONS]
FILL = ["fill", "model", "Bada [MASK] fefi."]
SQUAD = ["squad", "--score", "predictions.json", "--dev", "dev.json"]
CHECKPOINT = Path("run/checkpoints/step-10")


class Harm:
    """Unpickled, it makes the canary."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.system, (f"touch {CANARY}",)


PICKLE = pickle.dumps(Harm())
YAML = f"!!python/object/apply:os.system ['touch {CANARY}']\n".encode()
DEEP = b"[" * 900_000
DEEP_OBJECT = b'{"a":' * 150_000
CODE = f"import os\nos.system('touch {CANARY}')\n".encode()


def spoil(path: str | Path, content: bytes) -> None:
    """Replace a file."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content)


def huge(path: str | Path) -> None:
    """A file of 20 GB that takes no room on disk."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).unlink(missing_ok=True)
    with Path(path).open("wb") as file:
        file.truncate(20_000_000_000)


def resealed(name: str, content: bytes) -> None:
    """A checkpoint's file replaced, with hashes that say it is right."""
    spoil(CHECKPOINT / name, content)
    manifest = json.loads((CHECKPOINT / "manifest.json").read_text())
    manifest["content"]["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    reseal(manifest["content"])


def reseal(content: dict[str, object]) -> None:
    """A manifest with a hash that says it is right."""
    spoil(CHECKPOINT / "manifest.json", json.dumps({"sha256": _content_sha256(content), "content": content}).encode())


def safetensors(header: object, data: bytes = b"") -> bytes:
    """A file with any header."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def traversing_manifest() -> None:
    content = json.loads((CHECKPOINT / "manifest.json").read_text())["content"]
    content["files"]["../../../model/model.safetensors"] = content["files"].pop("model.safetensors")
    reseal(content)


def traversing_corpus() -> None:
    manifest = json.loads(Path("corpus/manifest.json").read_text())
    manifest["shards"][0]["file"] = "../run/" + manifest["shards"][0]["file"]
    spoil("corpus/manifest.json", json.dumps(manifest).encode())


def changed_config(**changes: object) -> None:
    config = json.loads(Path("model/config.json").read_text())
    spoil("model/config.json", json.dumps({**config, **changes}).encode())


def remote_code() -> None:
    changed_config(auto_map={"AutoModel": "modeling_harm.Harm"}, trust_remote_code=True)
    spoil("model/modeling_harm.py", CODE)


def pickled_weights(content: bytes) -> None:
    Path("model/model.safetensors").unlink()
    spoil("model/pytorch_model.bin", content)


def saved(content: object, *, archive: bool = True) -> bytes:
    """What `torch.save` writes: an archive, or the pickles of PyTorch before 1.6."""
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=archive)
    return file.getvalue()


def compressed_pickle() -> bytes:
    """An archive of some megabytes whose pickle has 4 GB."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made:
        made.writestr("archive/version", b"3")
        with made.open("archive/data.pkl", "w", force_zip64=True) as pickled:
            for _ in range(400):
                pickled.write(bytes(10_000_000))
    return file.getvalue()


def huge_pickle() -> None:
    Path("model/model.safetensors").unlink()
    huge("model/pytorch_model.bin")


def pickled_shard() -> None:
    Path("model/model.safetensors").unlink()
    spoil("model/pytorch_model.bin.index.json", b'{"weight_map": {"a": "pytorch_model-1.bin"}}')
    spoil("model/pytorch_model-1.bin", saved({"a": Harm()}))


def code_beside_a_pickle() -> None:
    """In the folder where the command is given, too."""
    pickled_weights(saved({"a": torch.ones(2)}))
    for name in ("torch.py", "safetensors.py", "lambert.py", "model/torch.py", "sitecustomize.py"):
        spoil(name, CODE)


def multiplying_tokenizer() -> None:
    tokenizer = json.loads(Path("model/tokenizer.json").read_text())
    tenfold = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10}
    tokenizer["normalizer"] = {"type": "Sequence", "normalizers": [tokenizer["normalizer"], *[tenfold] * 9]}
    spoil("model/tokenizer.json", json.dumps(tokenizer).encode())


def long_header() -> None:
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    spoil("model/model.safetensors", safetensors({f"t{number}": empty for number in range(300_000)}))


def squad_bomb() -> None:
    with gzip.open("dev.json", "wb", compresslevel=1) as file:
        file.write(b'{"version": "1.1", "data": [')
        for _ in range(400):
            file.write(b" " * 1_000_000)


def wiki_bomb(start: bytes, part: bytes, parts: int) -> None:
    """A MediaWiki export of some kilobytes that unpacks to 280 MB or more."""
    with gzip.open("wiki.xml.gz", "wb", compresslevel=9) as file:
        file.write(start)
        for _ in range(parts):
            file.write(part)


NAMES = b'<namespace key="4">' + b"a" * 4_000_000 + b"</namespace>"


def archive() -> None:
    with tarfile.open("text.tar", "w") as file:
        for name in ("../../../CANARY", "/tmp/CANARY"):
            entry = tarfile.TarInfo(name)
            entry.size = 5
            file.addfile(entry, io.BytesIO(b"harm\n"))


def code_in_a_dataset() -> None:
    spoil("texts/texts.py", CODE)
    spoil("texts/dataset_infos.json", DEEP)


PREPARE = ["prepare", "--vocab-size", "200", "--out", "made"]
CASES: dict[str, tuple[Callable[[], object], list[str], int, str]] = {
    "a manifest that is a pickle": (lambda: spoil(CHECKPOINT / "manifest.json", PICKLE), RESUME, 0, "step-10 is dam"),
    "weights that are a pickle": (lambda: resealed("model.safetensors", PICKLE), RESUME, 0, "step-10 is damaged"),
    "moments that are a pickle": (lambda: resealed("optimizer.safetensors", PICKLE), RESUME, 0, "step-10 is damaged"),
    "a header of a terabyte": (
        lambda: resealed("model.safetensors", (1 << 40).to_bytes(8, "little") + b"{}"), RESUME, 0, "step-10 is damaged"
    ),
    "a tensor larger than its file": (
        lambda: resealed(
            "model.safetensors",
            safetensors({"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}),
        ),
        RESUME, 0, "step-10 is damaged",
    ),
    "a manifest that leaves its folder": (traversing_manifest, RESUME, 0, "step-10 is damaged"),
    "a manifest nested deeply": (lambda: spoil(CHECKPOINT / "manifest.json", DEEP), RESUME, 0, "step-10 is damaged"),
    "a manifest of 20 GB": (lambda: huge(CHECKPOINT / "manifest.json"), RESUME, 0, "step-10 is damaged"),
    "weights of 20 GB": (lambda: huge(CHECKPOINT / "model.safetensors"), RESUME, 0, "step-10 is damaged"),
    "a recipe with YAML's tags": (lambda: spoil("run/recipe.toml", YAML), RESUME, 2, "recipe.toml cannot be read"),
    "a recipe of 20 GB": (lambda: huge("run/recipe.toml"), RESUME, 2, "recipe.toml cannot be read"),
    "a recipe nested deeply": (lambda: spoil("run/recipe.toml", b"a = " + DEEP), RESUME, 2, "cannot be read"),
    "skipped steps nested deeply": (lambda: spoil("run/skipped_steps.json", DEEP), RESUME, 2, "skipped_steps.json can"),
    "a model that is a pickle": (lambda: spoil("model/model.safetensors", PICKLE), FILL, 2, "cannot be read"),
    "a model with only a pickle": (lambda: pickled_weights(PICKLE), FILL, 2, "is not a pickle of tensors"),
    "an archive with a pickle": (lambda: pickled_weights(saved(Harm())), FILL, 2, "asks for posix.system"),
    "an old pickle": (lambda: pickled_weights(saved({"a": Harm()}, archive=False)), FILL, 2, "asks for posix.system"),
    "a shard that is a pickle": (pickled_shard, FILL, 2, "asks for posix.system"),
    "a pickle beside code": (code_beside_a_pickle, FILL, 2, "config.json implies"),
    "a pickle of 4 GB in a small archive": (lambda: pickled_weights(compressed_pickle()), FILL, 2, "more memory than"),
    "a pickle of a terabyte": (
        lambda: pickled_weights(saved({"a": torch.ones(1).expand(1 << 38)})), FILL, 2, "more memory than"
    ),
    "a pickle that repeats a tensor": (
        lambda: pickled_weights(saved(dict.fromkeys(map(str, range(9_000)), torch.ones(100_000)))),
        FILL, 2, "more memory than",
    ),
    "a pickle of 20 GB": (huge_pickle, FILL, 2, "is not a pickle of tensors"),
    "a model with code of its own": (remote_code, FILL, 2, "auto_map names code of its own"),
    "a model that wants a terabyte": (
        lambda: changed_config(hidden_size=1 << 20, num_hidden_layers=99), FILL, 2, "config.json implies"
    ),
    "a configuration nested deeply": (lambda: spoil("model/config.json", DEEP_OBJECT), FILL, 2, "nested too deeply"),
    "a configuration of 20 GB": (lambda: huge("model/config.json"), FILL, 2, "more than 1,000,000 bytes"),
    "a tokenizer of 20 GB": (lambda: huge("model/tokenizer.json"), FILL, 2, "more than 100,000,000 bytes"),
    "a tokenizer that multiplies its text": (multiplying_tokenizer, FILL, 2, "times as long"),
    "weights with a header of many tensors": (long_header, FILL, 2, "its header has"),
    "a tokenizer that is a pickle": (lambda: spoil("model/tokenizer.json", PICKLE), FILL, 2, "cannot be read"),
    "a vocabulary of 20 GB": (
        lambda: huge("vocab.txt"), [*PREPARE, "text.txt", "--vocab", "vocab.txt"], 2, "more than 100,000,000 bytes"
    ),
    "a corpus that is a pickle": (lambda: spoil("corpus/manifest.json", PICKLE), RESUME, 2, "manifest.json cannot be"),
    "a corpus that leaves its folder": (traversing_corpus, RESUME, 2, "is not a file beside it"),
    "a corpus's manifest of 20 GB": (lambda: huge("corpus/manifest.json"), RESUME, 2, "more than 100,000,000 bytes"),
    "questions nested deeply": (lambda: spoil("dev.json", DEEP), SQUAD, 2, "nested too deeply"),
    "questions that unpack to 400 MB": (squad_bomb, SQUAD, 2, "more than 200,000,000 bytes"),
    "predictions that are a pickle": (lambda: spoil("predictions.json", PICKLE), SQUAD, 2, "predictions.json"),
    "names of a wiki that unpack to 280 MB": (
        lambda: wiki_bomb(b"<mediawiki><siteinfo><namespaces>", NAMES, 70), [*PREPARE, "wiki.xml.gz"], 2, "namespace"
    ),
    "elements that are never closed": (
        lambda: wiki_bomb(b"<mediawiki>", b"<a>" * 1_000_000, 100), [*PREPARE, "wiki.xml.gz"], 2, "is damaged"
    ),
    "comments that a regular expression could backtrack over": (
        lambda: spoil("text.txt", b"<!---->" * 400 + b"x\n" + b"Bada fefi.\n" * 50), [*PREPARE, "text.txt"], 0, "Next:"
    ),
    "an archive that leaves its folder": (archive, [*PREPARE, "text.tar"], 2, "text.tar"),
    "a dataset with code of its own": (code_in_a_dataset, [*PREPARE, "texts"], 2, "texts"),
}  # fmt: skip


def run_case(name: str, origin: Path, folder: Path) -> dict[str, object]:
    """One case in a fresh copy of the folder."""
    make, words, code, told = CASES[name]
    shutil.copytree(origin, folder)
    os.chdir(folder)
    CANARY.unlink(missing_ok=True)
    make()
    output, found = io.StringIO(), -1
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
        try:
            found = main(words)
        except BaseException:
            traceback.print_exc()
    canary = CANARY.exists() or Path("/tmp/CANARY").exists() or (folder.parents[2] / "CANARY").exists()
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    child = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    text = output.getvalue()
    os.chdir(origin)
    shutil.rmtree(folder)
    good = found == code and told in text and "Traceback" not in text and not canary
    return {
        "case": name,
        "good": good,
        "code": found,
        "canary": canary,
        "grown": grown,
        "child": child,
        "output": text[-1500:],
    }


if __name__ == "__main__":
    origin, work = Path(sys.argv[1]), Path(sys.argv[2])
    results = [run_case(name, origin, work / str(number)) for number, name in enumerate(CASES)]
    print(json.dumps(results))
