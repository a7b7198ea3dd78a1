# Everything a newcomer needs: `make demo`, then `make test`. Both make the environment they need in $(VENV).

PYTHON ?= python3
VENV ?= .venv
DATA ?= digits
DATA_DIR ?=
ARGS ?=
BIN := $(VENV)/bin

.PHONY: demo test lint docs-check bench clean

demo: $(VENV)/.demo  ## population based training against random search, on real images
	$(BIN)/tunesmith demo --data $(DATA) $(if $(DATA_DIR),--data-dir $(DATA_DIR)) $(ARGS)

test: lint  ## every check, then every test
	PATH="$(abspath $(BIN)):$$PATH" scripts/test $(ARGS)

lint: $(VENV)/.test  ## ruff, mypy, import-linter
	PATH="$(abspath $(BIN)):$$PATH" scripts/check

docs-check: $(VENV)/.test  ## runs every code block of the README and the docs
	PATH="$(abspath $(BIN)):$$PATH" scripts/test tests/test_docs.py

bench: $(VENV)/.test  ## the benchmarks
	PATH="$(abspath $(BIN)):$$PATH" scripts/bench $(ARGS)

clean:
	rm -rf $(VENV)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("tunesmith needs Python 3.11 or newer; name one with: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo $(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing what this needs, PyTorch among it: a few minutes without a word..."
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(subst .,,$(@F))]'
	@touch $@
