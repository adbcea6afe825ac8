# Everything sets itself up: `make run` and `make test` work on a fresh clone.
#   PYTHON    the Python (3.11 or newer) that the virtual environment is made with
#   PIP_ARGS  more arguments for pip, for example an index that has the smaller CPU build of torch
#   HOST PORT where `make run` listens
#   WORKERS   how many processes `make test` runs tests in

PYTHON ?= python3
PIP_ARGS ?=
HOST ?= 127.0.0.1
PORT ?= 8000
WORKERS ?= 2

PY := .venv/bin/python
NPM := $(PY) static/build.py npm
PYTEST := HF_HUB_OFFLINE=1 $(PY) -m pytest

.PHONY: help install run test coverage test-long check docs bench bench-full bench-gpu bench-ray train wheel clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

install: .venv/installed ## set up .venv, the page and the sample pictures
	$(PY) static/build.py

.venv/installed: pyproject.toml constraints.txt
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	touch $@

run: install ## serve the page at http://HOST:PORT
	.venv/bin/livedrag serve --host $(HOST) --port $(PORT)

check: install ## lint, format and type checks, Python and front end; known vulnerabilities
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	$(NPM) run check
	$(PY) -m tests.audit

SHORT_TESTS = $(PYTEST) -m "not long and not gpu" -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=25

# From 3.12 on Python counts lines at next to no cost; the tracer of 3.11 takes half as long again.
COVERED = $(shell $(PY) -c "import sys; print('--cov --cov-report=term:skip-covered' * (sys.version_info >= (3, 12)))")

test: install ## all tests but the long ones, with a coverage report where Python is 3.12 or newer
	$(PY) -m tests.chromium
	$(NPM) test
	COVERAGE_CORE=sysmon $(SHORT_TESTS) $(COVERED)

coverage: install ## the Python tests of `make test`, with a coverage report on any Python
	$(PY) -m tests.chromium
	$(SHORT_TESTS) --cov --cov-report=term:skip-covered

# pytest exits with 5 if no test is marked so.
test-long: install ## the tests that take minutes
	$(PYTEST) -m "long and not gpu" --durations=25 || test $$? -eq 5

docs: install ## API reference of the editor and the Python client, in docs/api
	# pdoc sees only names that have been imported; the editor imports them when they are used
	$(PY) -c "from livedrag.editor import *; from pdoc.__main__ import cli; cli()" --docformat google --output-directory docs/api livedrag.editor livedrag.server.client

bench: install ## speed of the built-in model, the service and the page, in minutes
	$(PY) -m tests.bench
	$(PY) -m tests.bench --service
	$(PY) -m tests.bench.events
	$(PY) -m tests.bench.page

bench-full: install ## speed at Stable Diffusion's shape: 12 GiB of memory, half an hour
	$(PY) -m tests.bench --full

BENCH_PYTHON ?= $(PY)
OUT_FILE ?= build/bench-gpu.jsonl

bench-gpu: ## speed on one GPU in three minutes, or of some parts alone: ONLY="edit rooms"; BENCH_PYTHON=python3
	mkdir -p $(dir $(OUT_FILE))
	HF_HUB_OFFLINE=1 $(BENCH_PYTHON) -m tests.bench.gpu $(if $(ONLY),--only $(ONLY)) --out $(OUT_FILE)

bench-ray: install ## the engine on a Ray cluster beside the one on this machine, in minutes
	$(PY) -m tests.bench.cluster

# Trains the built-in denoiser further, for example 6 minutes on an H100 without a network:
#   make train TRAIN_PYTHON=python3 DEVICE=cuda MINUTES=6 BATCH=1024 SAVE_EVERY=1 TRAIN_ARGS=--compile FOLDER=data OUT=weights
# FOLDER holds the archive of the pictures if they cannot be fetched; OUT gets the weights whenever they are saved, in files below
# 16 MiB; `python -m livedrag.editor.training export NEW --folder FOLDER --shards OUT` makes a model of them. One process.
TRAIN_PYTHON ?= $(PY)
DEVICE ?= cpu
MINUTES ?= 150
BATCH ?= 16
TRAIN_ARGS ?=
FOLDER ?= build/training
OUT ?= build/training/weights
SAVE_EVERY ?= 5

train: ## train the built-in denoiser further
	HF_HUB_OFFLINE=1 OMP_WAIT_POLICY=PASSIVE PYTHONUNBUFFERED=1 TORCHINDUCTOR_COMPILE_THREADS=1 \
	$(TRAIN_PYTHON) -m livedrag.editor.training denoiser --start builtin --minutes $(MINUTES) --batch $(BATCH) \
	    --device $(DEVICE) --folder $(FOLDER) --shards $(OUT) --save-every $(SAVE_EVERY) $(TRAIN_ARGS)

wheel: install ## build a wheel in dist/
	$(PY) -m pip wheel --quiet --no-deps --wheel-dir dist .

clean: ## remove everything that is set up or built
	rm -rf .venv frontend/node_modules static/app static/samples dist build docs/api tests/output
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
