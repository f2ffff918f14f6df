# What a person calls is what CI calls (.ci/run). Nothing here needs to be activated.
.DEFAULT_GOAL := help
.PHONY: help install test test-all test-quick test-floor test-peers test-engines fuzz lint format demo bench bench-quality audit-benchmark docs gallery test-docs dist

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.skstack-installed
DOCS_STAMP := $(VENV)/.skstack-docs-installed
ENGINES_STAMP := $(VENV)/.skstack-engines-installed
TOOLS := .venv-release
WHEEL := .venv-wheel
FLOOR := .venv-floor
FLOOR_STAMP := $(FLOOR)/.skstack-installed
FLOOR_PYTHON ?= python3.11
CANDIDATES := $(if $(PYTHON),$(PYTHON),python3.13 python3.12 python3.11 python3 python)
# TensorFlow has wheels for these; a Python without ensurepip cannot make a venv with pip in it.
SUPPORTED := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

# TensorFlow's greetings on stderr; the library itself never sets this.
export TF_CPP_MIN_LOG_LEVEL ?= 3

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' Makefile
	@echo "  (PYTHON=/path/to/python chooses the interpreter of a new $(VENV): 3.11, 3.12 or 3.13)"

install: $(STAMP) ## build .venv with everything that tests, demo and benchmarks need

# A .venv whose Python works is kept and brought up to date; one that does not work is made anew.
$(STAMP): pyproject.toml
	@if ! $(BIN)/python -c '$(SUPPORTED)' 2>/dev/null || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  for candidate in $(CANDIDATES); do \
	    if $$candidate -c '$(SUPPORTED)' >/dev/null 2>&1; then \
	      echo "making $(VENV) with $$($$candidate --version) ($$candidate)"; \
	      $$candidate -m venv --clear $(VENV) && made=yes && break; \
	    fi; \
	  done; \
	  if [ -z "$$made" ]; then \
	    echo "No usable Python found. Tried: $(CANDIDATES)." >&2; \
	    echo "TensorFlow needs Python 3.11, 3.12 or 3.13, with venv and ensurepip (Debian: python3-venv)." >&2; \
	    echo "Name one yourself: make install PYTHON=/path/to/python3.12" >&2; \
	    exit 1; \
	  fi; \
	fi
	@# The pip that comes with Python takes twice as long to choose versions as today's does.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[dev]'
	@# pip would compile in one process, and the tests of packages, too.
	@$(BIN)/python -m compileall -qq -j 0 -x 'site-packages/.*/tests/' $(VENV)/lib || true
	@touch $@

# One BLAS and OpenMP thread for each worker: more of them wait for each other.
test test-all test-quick test-floor test-peers test-engines test-docs docs fuzz: export OMP_NUM_THREADS ?= 1
test test-all test-quick test-floor test-peers test-engines test-docs docs fuzz: export OPENBLAS_NUM_THREADS ?= 1

# worksteal: neighbouring tests run in one worker, which keeps the fixtures of a module and the
# compiled programs of a file together; idle workers take from the others' ends.
PYTEST := -m pytest -n auto --maxprocesses 4 --dist worksteal

test: $(STAMP) ## tests, doctests and the README's snippets, with the newest versions that pip finds
	$(BIN)/python $(PYTEST) $(ARGS)

test-all: $(STAMP) ## the same with what is marked slow: further cases, examples, what trains at length
	$(BIN)/python $(PYTEST) --slow $(ARGS)

QUICK := tests/estimators tests/preprocessing tests/splits tests/stack/test_scaling.py \
  tests/networks/test_recipes.py tests/networks/test_spec.py tests/training/test_engines.py \
  tests/training/test_fingerprint.py tests/training/test_seeds.py tests/test_architecture.py \
  tests/test_classifier.py tests/test_errors.py tests/test_inputs.py tests/test_refusals.py \
  tests/test_second_calls.py

test-quick: $(STAMP) ## what to run while writing, in a minute and a half; CONTRIBUTING.md says what it leaves out
	$(BIN)/python $(PYTEST) $(QUICK) $(ARGS)

test-peers: $(STAMP) ## tests of scikit-learn and imbalanced-learn, with our estimators in place of theirs
	$(BIN)/python $(PYTEST) tests/peers $(ARGS)

$(ENGINES_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dask,ray]'
	@touch $@

# In one process: each test starts workers of its own, which import TensorFlow and compile.
test-engines: $(ENGINES_STAMP) ## searches and cross-fits on workers of dask and Ray; in about five minutes
	$(BIN)/python -m pytest -rs tests/engines $(ARGS)

# The other end: whatever pyproject.toml admits lies between the two.
test-floor: $(FLOOR_STAMP) ## all tests with the oldest versions that pyproject.toml admits, on Python 3.11
	$(FLOOR)/bin/python $(PYTEST) --slow $(ARGS)

$(FLOOR_STAMP): pyproject.toml tests/floor.py
	$(FLOOR_PYTHON) -m venv --clear $(FLOOR)
	$(FLOOR)/bin/python tests/floor.py > $(FLOOR)/constraints.txt
	$(FLOOR)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(FLOOR)/constraints.txt --editable '.[dev]'
	@touch $@

fuzz: $(STAMP) ## thousands of invalid arguments and hostile files: a working network or a clear error
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --slow --hypothesis-profile=thorough \
	  --hypothesis-show-statistics tests/test_fuzzing.py tests/test_hostile_files.py $(ARGS)

lint: $(STAMP) ## ruff: rules and format; mypy: types of the training engine
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: $(STAMP) ## bank marketing: a stack against its baselines, in about four minutes
	$(BIN)/python examples/bank_marketing.py $(ARGS)

bench: $(STAMP) ## timings against scikeras, Keras and scikit-learn; ARGS="--quick", "--only NAME", "--output FOLDER"
	$(BIN)/python benchmarks/run.py $(ARGS)

bench-quality: $(STAMP) ## scores of default settings on twelve tables; ARGS="--report", "--seeds 1", "--only NAME"
	$(BIN)/python benchmarks/quality.py $(ARGS)

audit-benchmark: $(STAMP) ## leakage_report on planted leaks and clean pipelines; ARGS="--only WORD", "--output FILE"
	$(BIN)/python benchmarks/audit.py $(ARGS)

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

# Warnings are errors. What is unchanged is not read again; ARGS=--fresh-env starts anew.
docs: $(DOCS_STAMP) ## the site, in build/site/index.html: guide, reference, gallery
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --quiet docs build/site $(ARGS)

gallery: $(STAMP) ## run the examples whole, and store for the gallery what they print and draw; ARGS="voices" for one
	$(BIN)/python docs/run_examples.py $(ARGS)

test-docs: docs ## every block of code of the site runs, every internal link leads somewhere
	$(BIN)/python -m pytest tests/docs $(ARGS)

# -I: what is imported is the wheel, and not this folder. First without extras, then with each.
EXTRAS := plot scikeras arrow onnx litert dask ray

dist: ## sdist and wheel in dist/, checked; the wheel runs the quick start in an environment of its own
	rm -rf dist
	$(FLOOR_PYTHON) -m venv --clear $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check 'build>=1.3' 'twine>=6.2'
	$(TOOLS)/bin/python -m build --outdir dist .
	$(TOOLS)/bin/python -m twine check --strict dist/*
	$(FLOOR_PYTHON) -m venv --clear $(WHEEL)
	$(WHEEL)/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	$(WHEEL)/bin/python -m pip check
	$(WHEEL)/bin/python -I examples/quick_start.py
	set -e; for extra in $(EXTRAS); do \
	  $(WHEEL)/bin/python -m pip install --quiet --disable-pip-version-check "$$(echo dist/*.whl)[$$extra]"; \
	done
	$(WHEEL)/bin/python -I examples/ship_a_stack.py --quick --output build/shipped
	$(WHEEL)/bin/python -I -c 'import ai_edge_litert, distributed, matplotlib, ray, scikeras, skstack; print(skstack.__version__, skstack.__file__)'
