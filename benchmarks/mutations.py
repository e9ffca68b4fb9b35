"""Does a test notice when a line of LAMB is wrong? Each line is broken in turn, in a copy, and the tests must go red.

python benchmarks/mutations.py            # prints a table and a last JSON line; exit code 1 if any stayed green
python benchmarks/mutations.py --list
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ["test_lamb.py", "test_kernels.py", "test_presets.py", "test_options.py", "test_lars_lans.py"]

E, C, P, L, N = "equations.py", "kernels/compiled.py", "kernels/plain.py", "layers.py", "norms.py"
MUTATIONS = [
    (E, "m.lerp_(g, 1 - numbers.beta1)", "m.lerp_(g, numbers.beta1)"),
    (E, "addcmul_(g, g, value=1 - numbers.beta2)", "addcmul_(g, g, value=numbers.beta2)"),
    (E, "v.mul_(numbers.beta2)", "v.mul_(numbers.beta1)"),
    (E, "(v * numbers.v_correction).sqrt_()", "v.sqrt()"),
    (E, "(m * numbers.m_correction)", "m.clone()"),
    (E, ".add_(numbers.epsilon)", ".add_(0.0)"),
    (E, ".add_(x, alpha=numbers.weight_decay)", ""),
    (E, "phi / u_norm", "u_norm / phi"),
    (E, "(x_norm > 0) & (u_norm > 0)", "u_norm > 0"),
    (E, "(x_norm > 0) & (u_norm > 0)", "x_norm > 0"),
    (E, "torch.ones_like(x_norm)", "torch.zeros_like(x_norm)"),
    (E, "x_norm.clamp(*bounds)", "x_norm"),
    (L, "1 / (1 - beta1**step) if is_corrected else 1.0", "1 / (1 - beta1**step)"),
    (L, "1 / (1 - beta2**step) if is_corrected", "1 / (1 - beta1**step) if is_corrected"),
    (P, "wide if numbers.gradient_factor == 1 else wide * numbers.gradient_factor", "wide"),
    (P, "new = new.sub_(u.mul_(step))", "new = new.add_(u.mul_(step))"),
    (P, "share * rate for share", "rate for share"),
    (E, "g.add(x, alpha=numbers.weight_decay)", "g"),
    (E, "return by_momentum, g.div(denominator)", "return by_momentum, m.div(denominator)"),
    (C, "m[i] = beta1 * m[i] + one_minus_beta1 * gradient", "m[i] = beta1 * m[i] + gradient"),
    (C, "v[i] = beta2 * v[i] + one_minus_beta2 * (gradient * gradient)", "v[i] = beta2 * v[i] + one_minus_beta2"),
    (C, "(m * m_correction)", "m"),
    (C, "np.sqrt(v * v_correction)", "np.sqrt(v)"),
    (C, " + epsilon)", ")"),
    (C, " + weight_decay * x", ""),
    (C, "x_square += x[i] * x[i]", "x_square += x[i]"),
    (C, "u_square += direction * direction", "u_square += x[i] * x[i]"),
    (C, "x[i] -= step * u[i]", "x[i] -= u[i]"),
    (C, "u[i] = _wide(g[i]) * factor", "u[i] = _wide(g[i])"),
    (C, "place = start if keeps else 0", "place = 0"),
    (C, "us = u[: stop - start]\n            _directions", "us = u[: stop - start]\n            _square"),
    ("layerwise.py", "-1.0 if group[\"maximize\"] else 1.0", "1.0"),
    ("layerwise.py", "limit / norm_of[limit] if", "1.0 if"),
    ("layerwise.py", "state[\"step\"] += 1", "state[\"step\"] += 2"),
    ("options.py", "group[\"weight_decay\"] != 0", "True"),
]  # fmt: skip


def is_red(file: str, old: str, new: str) -> bool:
    """Whether the tests fail with `old` replaced by `new` in a copy of the package."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        path = source / "lambert" / "optim" / file
        text = path.read_text(encoding="utf-8")
        if old not in text:
            raise SystemExit(f"{file} has no {old!r} any more: mend the list of mutations")
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        tests = [str(ROOT / "tests" / "optim" / test) for test in TESTS]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        environment = os.environ | {"PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
        ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if ended.returncode not in (0, 1):
            raise SystemExit(f"the tests did not run:\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}")
        return ended.returncode == 1


def main() -> None:
    """Break every line in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true")
    if parser.parse_args().list:
        for file, old, new in MUTATIONS:
            print(f"{file}: {old!r} -> {new!r}")
        return
    if is_red(E, "m.lerp_", "m.lerp_"):
        raise SystemExit("the tests are red without a mutation")
    rows = []
    for file, old, new in MUTATIONS:
        red = is_red(file, old, new)
        rows.append({"case": f"{file}: {old} -> {new}", "red": red})
        print(f"{'red  ' if red else 'GREEN'} {file}: {old!r} -> {new!r}", flush=True)
    print(json.dumps({"benchmark": "mutations", "red": sum(row["red"] for row in rows), "of": len(rows), "rows": rows}))
    sys.exit(not all(row["red"] for row in rows))


if __name__ == "__main__":
    main()
