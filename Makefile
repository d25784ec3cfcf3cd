# Two doors: `make demo` and `make test`. Both build the same virtual environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Installed first, and only where no torch is present: a plain requirement could pull in gigabytes of CUDA.
TORCH ?= torch==2.13.0

.PHONY: demo test soak lint clean

$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Prism needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	if $(PYTHON) -c 'import torch' 2>/dev/null; then $(PYTHON) -m venv --system-site-packages $(VENV); \
	else $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet --disable-pip-version-check '$(TORCH)'; fi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	# Its reader of traces is checked against; what it depends on is for GPUs, and large.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps 'flashinfer-bench==0.1.*'
	touch $@

## Search, prove, lower and rank kernels for two programs, on this machine's CPU and for an H200.
demo: $(VENV)/installed
	$(BIN)/python examples/demo.py

## The test suite: everything but the tests marked slow.
test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

## The slow tests: 2,000 + 2,000 random terms, mutants, every fixture compiled for every architecture, Inductor.
soak: $(VENV)/installed
	$(BIN)/python -m pytest -m slow

## Lint, format, types, import order.
lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist *.egg-info
