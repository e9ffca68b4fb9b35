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
    (E, "m.lerp_(g, 1 - hyper.beta1)", "m.lerp_(g, hyper.beta1)"),
    (E, "addcmul_(g, g, value=1 - hyper.beta2)", "addcmul_(g, g, value=hyper.beta2)"),
    (E, "v.mul_(hyper.beta2)", "v.mul_(hyper.beta1)"),
    (E, "(v * hyper.v_correction).sqrt_()", "v.sqrt()"),
    (E, "(m * hyper.m_correction)", "m.clone()"),
    (E, ".add_(hyper.epsilon)", ".add_(0.0)"),
    (E, ".add_(x, alpha=hyper.weight_decay)", ""),
    (E, "phi / u_norm", "u_norm / phi"),
    (E, "(x_norm > 0) & (u_norm > 0)", "u_norm > 0"),
    (E, "(x_norm > 0) & (u_norm > 0)", "x_norm > 0"),
    (E, "torch.ones_like(x_norm)", "torch.zeros_like(x_norm)"),
    (E, "x_norm.clamp(*bounds)", "x_norm"),
    (E, "1 / (1 - math.pow(self.beta1,", "1 / (1 - math.pow(self.beta2,"),
    (E, "1 / (1 - math.pow(self.beta2,", "1 / (1 - math.pow(self.beta1,"),
    (L, "step if group.get(\"bias_correction\", True) else math.inf", "step"),
    (P, "x * hyper.weight_decay", "torch.zeros_like(x)"),
    (P, "torch.tensor(hyper.correction_step,", "torch.tensor(1.0,"),
    (P, "eps=hyper.epsilon", "eps=0.0"),
    (P, "wide if hyper.gradient_factor == 1 else wide * hyper.gradient_factor", "wide"),
    (P, "new = new.sub_(u.mul_(step))", "new = new.add_(u.mul_(step))"),
    (P, "weight * rate for weight", "rate for weight"),
    (E, "g.add(x, alpha=hyper.weight_decay)", "g"),
    (E, "return by_momentum, g.div(denominator)", "return by_momentum, m.div(denominator)"),
    (C, "beta1 * _load_m(m, i) + one_minus_beta1 * gradient", "beta1 * _load_m(m, i) + gradient"),
    (C, "one_minus_beta2 * (gradient * gradient)", "one_minus_beta2"),
    (C, "(m * m_correction)", "m"),
    (C, "np.sqrt(v * v_correction)", "np.sqrt(v)"),
    (C, " + epsilon)", ")"),
    (C, " + weight_decay * x", ""),
    (C, "return old * old,", "return old,"),
    (C, ", direction * direction", ", old * old"),
    (C, "return x - step * u", "return x - u"),
    (C, "_wide(_load_g(g, i)) * factor", "_wide(_load_g(g, i))"),
    (C, "_store_u(u, i, direction)", "_store_u(u, i, old)"),
    (C, "for i in range(begin + strips * STRIP, end)", "for i in range(begin, begin)"),
    (C, "for i in range(strips * STRIP, x.shape[0])", "for i in range(0)"),
    (C, "range(strips - 1, -1, -1)", "range(strips - 1, 0, -1)"),
    (C, "if sums[0] > 0 and sums[1] > 0", "if sums[1] > 0"),
    (C, "max(np.sqrt(sums[0]), min_norm)", "np.sqrt(sums[0])"),
    (C, "min(max(np.sqrt(sums[0]), min_norm), max_norm)", "max(np.sqrt(sums[0]), min_norm)"),
    (C, "for i in range(begin + 4 * quarter, end)", "for i in range(begin, begin)"),
    (C, "i + stream * quarter", "i"),
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
