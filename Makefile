# Everything a developer types. `make` alone lists the targets.
#
# Nothing but make and a Python >= 3.11 with venv is needed beforehand:
#   make setup PYTHON=python3.13

PYTHON ?= python3
PYTEST_ARGS ?= -n auto --dist loadgroup
# `make lock LOCK_ARGS=--upgrade` moves every pin to its newest release.
LOCK_ARGS ?=
# ARGS is what is typed by those who do not know these.
TORTURE_ARGS ?= $(ARGS)
BENCH_ARGS ?= $(ARGS)

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup run test torture fuzz lint format bench demo lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv with the locked dependencies and the project

# A venv without a working pip is what an interrupted or refused creation
# leaves behind, so it is made anew rather than trusted.
$(STAMP): pyproject.toml requirements.lock tests/independent.lock
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("sled depot needs Python 3.11 or newer, found " + sys.version.split()[0] + "; name one with make PYTHON=...")'
	@$(PIP) --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(PIP) install --quiet --require-hashes -r requirements.lock
	$(PIP) install --quiet --require-hashes --no-deps --ignore-requires-python -r tests/independent.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

define NEXT_STEPS

Three commands to try next, in another terminal and this directory:

  .venv/bin/depot put --add LICENSE
  .venv/bin/depot ls
  .venv/bin/depot status

Ctrl-C stops the agent.
endef
export NEXT_STEPS

# The agent replaces the recipe's shell, so Ctrl-C and TERM reach it directly
# and its exit status is the target's. The hints are printed by a process on
# the side, which waits for readiness and gives up when the agent ends.
run: $(STAMP) ## run one agent on two directories under var/
	@mkdir -p var/m2-a var/m2-b
	@rm -f var/ready
	@$(BIN)/sled-agent init --config packaging/dev.toml
	@( while kill -0 $$$$ 2>/dev/null; do \
	     if test -e var/ready; then printf '%s\n' "$$NEXT_STEPS"; break; fi; \
	     sleep 0.2; \
	   done & ); \
	exec $(BIN)/sled-agent run --config packaging/dev.toml --ready-file var/ready

lint: $(STAMP) ## style, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# pytest comes last: its closing line is the end of the output.
test: lint ## lint, then every test; PYTEST_ARGS="-x tests/unit" narrows it
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# As root on Linux. TORTURE_ARGS=--write-docs puts the results into docs/reliability.md.
torture: $(STAMP) ## mistreat the store for hours and judge it; ARGS=--help says more
	$(BIN)/python -m tests.torture $(TORTURE_ARGS)

# FUZZ_EXAMPLES and MODEL_EXAMPLES set how long; every failure prints how to make it again.
FUZZ_EXAMPLES ?= 5000
MODEL_EXAMPLES ?= 2000
fuzz: export FUZZ_EXAMPLES := $(FUZZ_EXAMPLES)
fuzz: export MODEL_EXAMPLES := $(MODEL_EXAMPLES)
fuzz: $(STAMP) ## random bytes to the servers and random calls to the store, for hours
	$(BIN)/python -m pytest -o timeout=0 tests/http/test_fast_path_fuzz.py \
	  tests/http/test_fast_puts_fuzz.py tests/model/test_store_machine.py $(PYTEST_ARGS)

format: $(STAMP) ## rewrite the code in the project's format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# As root on Linux for the nodes behind slow links.
bench: $(STAMP) ## measure it beside other programs; ARGS="--only get" narrows it
	$(BIN)/python -m tests.benchmarks $(BENCH_ARGS)

demo: $(STAMP) ## a coordinator gets a release onto four sleds; one loses a disk
	$(BIN)/python packaging/demo.py

# Universal: one file for every platform and every supported Python, chosen by
# markers. The images' locks are constrained by the developers' lock, so what is
# shipped is what was tested.
UV_COMPILE = UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet \
  --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-emit-find-links $(LOCK_ARGS) pyproject.toml

lock: $(STAMP) ## bring the lock files up to date with pyproject.toml
	$(UV_COMPILE) --extra coordinator --extra snapshots --group dev --output-file requirements.lock
	$(UV_COMPILE) --constraint requirements.lock --extra snapshots \
	  --output-file packaging/requirements.lock
	$(UV_COMPILE) --constraint requirements.lock --extra coordinator --extra snapshots \
	  --output-file packaging/requirements.coordinator.lock

clean: ## remove .venv, build outputs and caches; var/ stays
	rm -rf $(VENV) build dist htmlcov .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find agent coordinator depot tests packaging -name __pycache__ -type d -prune -exec rm -rf {} +
