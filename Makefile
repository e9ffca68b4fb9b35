# make demo      the whole way on the text every installation carries: corpus, both phases, report, Hugging Face folder
# make test      lint, import contracts, types, tests: exactly what .ci/run runs
# make lint      all of these but the tests
# make picture   the README's loss curve, drawn from the last demo
# make results   the numbers of docs/ that take seconds, again; and which commands make the others
# make docs      the pages of docs/ and the API reference, in site/; every warning and broken link is an error
# make dist      source distribution and wheel, in dist/, checked
# make lock      requirements/*.txt again: the versions of constraints.txt with their hashes (asks PyPI)
# make hooks     the checks of .pre-commit-config.yaml before every commit
# make clean     removes the environment and the caches; runs/ is left alone
#
# All set-up happens by itself, in .venv. To choose another Python:         make test PYTHON=python3.12
# To install a build of PyTorch other than the package index's default one: make demo TORCH_INDEX=<its index URL>

PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip --disable-pip-version-check install -c constraints.txt
WORKERS ?= 2

# One thread in each test worker: two workers with two threads each would only fight over two cores.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

# A comma in an argument of $(call) would end it.
comma := ,

.PHONY: demo test lint picture results docs dist lock hooks clean

demo: $(VENV)/installed-runtime
	$(BIN)/lambert demo

test: lint
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) -rs

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/mypy

picture: $(VENV)/installed-test
	$(BIN)/python -c "from pathlib import Path; from lambert.report import write_loss_curve; \
	  write_loss_curve(Path('runs/demo'), Path('docs/loss_curve.svg'))"

results: $(VENV)/installed-test
	$(BIN)/python benchmarks/planner.py
	$(BIN)/python benchmarks/batch_size.py
	$(BIN)/python benchmarks/sweep_pairs.py
	@echo "Longer ones, with the command of each next to its numbers:"
	@echo "  minutes  docs/results.md (demo, agreement), docs/corpus.md, docs/lamb.md, docs/performance.md"
	@echo "  an hour  docs/results.md (lambert sweep benchmarks/sweeps/claim.toml, mixed.toml, unseen.toml, wider.toml), docs/planning.md (benchmarks/forecast.py)"
	@echo "  hours    docs/results.md (examples/mnist_batch_sizes.py), docs/reliability.md (benchmarks/faults.py, fault_soak.py, scaling.py)"
	@echo "  a GPU    docs/gpu.md (benchmarks/gpu_check, 21 minutes); nothing yet: every GPU path is untested on GPU"

# -E: a page that has not changed is read again, since its warnings count too.
docs: $(VENV)/installed-docs
	$(BIN)/python -m sphinx -E -W --keep-going -q -b html -d build/doctrees docs site
	@echo "Open site/index.html"

dist: $(VENV)/installed-develop
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*

# PyTorch and the dependencies of its CUDA build are left out: their files differ by the build that each user chooses.
LEFT_OUT := ^(torch|triton|cuda-[a-z]+|nvidia-[a-z0-9-]+|httpx2-jsfetch)==
COMPILE := $(BIN)/uv pip compile --quiet pyproject.toml --constraint constraints.txt --universal --python-version 3.11.5 \
  --generate-hashes --no-header --no-annotate --no-config
LOCK_HEADER := \# Made by `make lock` from pyproject.toml and constraints.txt. PyTorch is not in it: install torch first.

lock: $(VENV)/installed-develop
	mkdir -p requirements
	$(call lock,runtime,--extra pretrain)
	$(call lock,development,--extra test --extra docs --extra develop)

define lock
	$(COMPILE) $(2) > requirements/$(1).new
	{ echo '$(LOCK_HEADER)'; awk '/^[^ ]/ { keep = !/$(LEFT_OUT)/ } keep' requirements/$(1).new; } > requirements/$(1).txt
	rm requirements/$(1).new
endef

hooks: $(VENV)/installed-develop
	$(BIN)/pre-commit install

clean:
	rm -rf $(VENV) build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "lambert needs Python 3.11 or newer, and '$(PYTHON)' is not ($$($(PYTHON) --version 2>&1 || true))." >&2; \
	  echo "Name another one, for example: make $(or $(MAKECMDGOALS),demo) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments: its venv or ensurepip module is missing." >&2; \
	  echo "On Debian and Ubuntu: sudo apt install python3-venv. Or name another Python: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# --no-deps: such an index carries few of the other packages; what torch needs comes from the usual one, next.
define install
	@echo "Installing into $(VENV) (PyTorch is large: this can take some minutes the first time)"
	$(if $(TORCH_INDEX),$(INSTALL) --no-deps --index-url $(TORCH_INDEX) torch)
	$(INSTALL) -e '$(1)'
	@touch $@
endef

$(VENV)/installed-runtime: pyproject.toml constraints.txt $(VENV)/made
	$(call install,.[pretrain])

$(VENV)/installed-test: pyproject.toml constraints.txt $(VENV)/made
	$(call install,.[test])
	@touch $(VENV)/installed-runtime

$(VENV)/installed-docs: pyproject.toml constraints.txt $(VENV)/made
	$(call install,.[docs])
	@touch $(VENV)/installed-runtime

$(VENV)/installed-develop: pyproject.toml constraints.txt $(VENV)/made
	$(call install,.[test$(comma)develop])
	@touch $(VENV)/installed-runtime $(VENV)/installed-test
