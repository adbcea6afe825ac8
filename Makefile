# Everything sets itself up: `make run` and `make test` work on a fresh clone.
#   PYTHON    the Python (3.11 or newer) that the virtual environment is made with
#   PIP_ARGS  more arguments for pip, for example an index that has the smaller CPU build of torch
#   HOST PORT where `make run` listens

PYTHON ?= python3
PIP_ARGS ?=
HOST ?= 127.0.0.1
PORT ?= 8000

PY := .venv/bin/python
NPM := $(PY) static/build.py npm
PYTEST := HF_HUB_OFFLINE=1 $(PY) -m pytest

.PHONY: install run test test-long check bench bench-full wheel clean

install: .venv/installed
	$(PY) static/build.py

.venv/installed: pyproject.toml constraints.txt
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	touch $@

run: install
	.venv/bin/livedrag serve --host $(HOST) --port $(PORT)

check: install
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	$(NPM) run check

test: install
	$(PY) -m tests.chromium
	$(NPM) test
	$(PYTEST) -m "not long and not gpu"

# pytest answers 5 when no test is marked so.
test-long: install
	$(PYTEST) -m "long and not gpu" || test $$? -eq 5

bench: install
	$(PY) -m tests.bench
	$(PY) -m tests.bench --service
	$(PY) -m tests.bench.page

# Stable Diffusion 1.5's shape: needs 12 GiB of memory and half an hour.
bench-full: install
	$(PY) -m tests.bench --full

wheel: install
	$(PY) -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf .venv frontend/node_modules static/app static/samples dist build tests/output
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
