PYTHON    ?= python3
PORT      ?= 8000
STATE_DIR ?= .state
export PORT STATE_DIR

BIN := .venv/bin
TOO_OLD = "Python 3.11 or newer is needed; $(PYTHON) is " + sys.version.split()[0] + ". Try make PYTHON=python3.12"

.DEFAULT_GOAL := help
.PHONY: help setup toolchain run demo test test-fast lint format lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.locked ## Make .venv with the locked dependencies

toolchain: setup ## Find Nextflow and a Java for it, or install them into .toolchain
	@$(BIN)/python -m common.local.toolchain

run: toolchain ## Serve all functions on 127.0.0.1 (PORT=8000, STATE_DIR=.state)
	$(BIN)/python -m functions.server

demo: toolchain ## Run examples/simple-pipeline through the functions and show it live
	@$(BIN)/python examples/demo.py

test: lint toolchain ## Lint, types, import layers and every test
	$(BIN)/pytest

test-fast: setup ## Unit tests only
	$(BIN)/pytest tests/unit -m 'not slow'

lint: setup ## Lint, format, strict types, import layers: check only
	$(BIN)/ruff check && $(BIN)/ruff format --check && $(BIN)/mypy && $(BIN)/lint-imports

format: setup ## Format the code and apply the safe lint fixes
	$(BIN)/ruff format && $(BIN)/ruff check --fix

lock: .uv/bin/uv ## Resolve requirements.lock again from pyproject.toml
	$< pip compile --quiet --upgrade --universal --python-version 3.11 --extra local --extra dev --generate-hashes --no-emit-index-url --custom-compile-command 'make lock' --output-file requirements.lock pyproject.toml

clean: ## Remove what the other targets made, except STATE_DIR
	rm -rf .venv .toolchain .uv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/.locked: requirements.lock
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit($(TOO_OLD))'
	@echo "setup: .venv with $$($(PYTHON) --version)" && $(PYTHON) -m venv --clear .venv
	@echo "setup: $$(grep -c '==' $<) locked packages (under a minute)" && $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement $<
	@echo "setup: this package" && $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation --editable .
	@touch $@ && echo "setup: done"

.uv/bin/uv:
	@$(PYTHON) -m venv .uv && .uv/bin/python -m pip install --quiet uv
