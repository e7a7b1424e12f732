PYTHON    ?= python3
PORT      ?= 8000
STATE_DIR ?= .state
export PORT STATE_DIR

BIN := .venv/bin
TOO_OLD = "Python 3.11 or newer is needed; $(PYTHON) is " + sys.version.split()[0] + ". Try make PYTHON=python3.12"

.DEFAULT_GOAL := help
.PHONY: help setup toolchain run token demo test test-cluster test-fast bench lint format openapi lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.locked ## Make .venv with the locked dependencies

toolchain: setup ## Find Nextflow and a Java for it, or install them into .toolchain
	@$(BIN)/python -m common.local.toolchain

run: toolchain ## Serve all functions on 127.0.0.1 (PORT=8000, STATE_DIR=.state)
	$(BIN)/python -m functions.server

token: setup ## Add a caller and print its token (NAME=ada ROLE=read|run)
	@$(BIN)/python -m common.callers $(NAME) $(ROLE)

demo: toolchain ## Run examples/simple-pipeline through the functions and show it live
	@$(BIN)/python examples/demo.py

test: lint toolchain ## Lint, types, import layers and every test
	$(BIN)/pytest

test-cluster: setup ## The runners' contract on the cluster of KUBECONFIG, in namespaces nfc-* (image: tests/cluster/head)
	TEST_CLUSTER=1 $(BIN)/pytest tests/contract -m cluster

test-fast: setup ## Unit tests only
	$(BIN)/pytest tests/unit -m 'not slow'

bench: setup ## Cold starts, throughput and memory beside the bare minimum (3 minutes, an idle machine)
	@$(BIN)/python -m tests.bench

lint: setup ## Lint, format, strict types, import layers: check only
	$(BIN)/ruff check && $(BIN)/ruff format --check && $(BIN)/mypy && $(BIN)/lint-imports

format: setup ## Format the code and apply the safe lint fixes
	$(BIN)/ruff format && $(BIN)/ruff check --fix

openapi: setup ## Write functions/docs/openapi.json again from the functions' declarations
	$(BIN)/python -m functions.openapi > functions/docs/openapi.json

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
