PYTHON    ?= python3
PORT      ?= 8000
STATE_DIR ?= .state
BUILD     ?= docker build --tag
LOAD      ?= kind load docker-image
SEEDS     ?= 5000
FOLLOW_SEEDS ?= 1000
EXAMPLES  ?= 10000
CROWD_SECONDS ?= 600
export PORT STATE_DIR SEEDS FOLLOW_SEEDS

BIN := .venv/bin
# Tests that start nothing that wants a processor for itself: any two run beside each other, of the others two files.
BESIDE := tests/unit tests/functions tests/bench tests/simulation tests/fuzz
# What is done to the cluster's node itself is done alone; of the other tests of an installation, two have one each.
ALONE := tests/chaos/test_node.py tests/cluster/installed/test_logs.py
TOO_OLD = "Python 3.11 or newer is needed; $(PYTHON) is " + sys.version.split()[0] + ". Try make PYTHON=python3.12"

.DEFAULT_GOAL := help
.PHONY: help setup toolchain run token demo test test-fast simulate faults fuzz images test-cluster bench bench-cluster bench-stream bench-crowd lint format openapi chart-files lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

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
	$(BIN)/pytest $(BESIDE) -n 2
	$(BIN)/pytest $(BESIDE:%=--ignore %) --ignore tests/chaos -n 2 --dist loadfile
	$(BIN)/pytest tests/chaos -n 4

test-fast: setup ## Unit tests only
	$(BIN)/pytest tests/unit -m 'not slow'

simulate: setup ## Play histories of launches and of logs with all that can go wrong (SEEDS=5000, FOLLOW_SEEDS=1000; SEED=7, FOLLOW_SEED=7)
	@$(BIN)/python -m tests.simulation

faults: toolchain ## Break everything and write tests/chaos/FAULTS.md (STEPS=all PAIRS=1000; TEST_CLUSTER=1: on a cluster, too)
	FAULTS=1 $(BIN)/pytest tests -m fault -o faulthandler_timeout=3600

fuzz: setup ## Give every parser what it was not made for, and tell what that found (EXAMPLES=10000 inputs a test)
	EXAMPLES=$(EXAMPLES) $(BIN)/pytest tests/fuzz --quiet

images: ## Build the image and those of the cluster tests, and load them into the cluster (BUILD, BUILD_FLAGS, LOAD)
	$(BUILD) localhost/nextflow-controller:1 . $(BUILD_FLAGS)
	$(BUILD) localhost/nfc-test-head:1 tests/cluster/head $(BUILD_FLAGS)
	$(BUILD) localhost/nfc-test-valkey:1 tests/cluster/valkey $(BUILD_FLAGS)
	$(BUILD) localhost/nfc-test-git:1 tests/cluster/git $(BUILD_FLAGS)
	$(LOAD) localhost/nextflow-controller:1 localhost/nfc-test-head:1 localhost/nfc-test-valkey:1 localhost/nfc-test-git:1

test-cluster: setup images ## Test on the cluster of KUBECONFIG, in namespaces nfc-* (TEST_INGRESS=127.0.0.1:8080)
	TEST_CLUSTER=1 $(BIN)/pytest tests/contract tests/cluster/bare tests/chaos --ignore tests/chaos/test_node.py -m cluster -n 4
	TEST_CLUSTER=1 $(BIN)/pytest $(ALONE) -m cluster
	TEST_CLUSTER=1 $(BIN)/pytest tests/cluster/installed $(ALONE:%=--ignore %) -m cluster -n 2 --dist loadfile

bench: setup ## Cold starts, throughput and memory beside the bare minimum (3 minutes, an idle machine)
	@$(BIN)/python -m tests.bench

bench-cluster: setup ## Cold starts with the Kubernetes client and how late log lines are, on the cluster of KUBECONFIG
	@$(BIN)/python -m tests.bench --kubernetes

bench-stream: setup ## Fan-out, latency, memory, replay, reads beside the bare minimum (BENCH_FLAGS='--only fanout')
	@$(BIN)/python -m tests.bench.streams $(BENCH_FLAGS)

bench-crowd: setup ## Five times as much as one replica can do: limits, memory, what the others wait for (CROWD_SECONDS=600)
	@$(BIN)/python -m tests.bench.crowd --seconds $(CROWD_SECONDS)

lint: setup ## Lint, format, strict types, import layers: check only
	$(BIN)/ruff check && $(BIN)/ruff format --check && $(BIN)/mypy && $(BIN)/lint-imports

format: setup ## Format the code and apply the safe lint fixes
	$(BIN)/ruff format && $(BIN)/ruff check --fix

openapi: setup ## Write functions/docs/openapi.json again from the functions' declarations
	$(BIN)/python -m functions.openapi > functions/docs/openapi.json

chart-files: setup ## Write what is made of the chart again: its renderings that are kept, its table of values
	$(BIN)/python -m tests.unit.goldens && $(BIN)/python -m tests.unit.values_table

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
