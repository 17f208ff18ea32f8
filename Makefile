# The front door. On a fresh Debian machine `make demo` and `make test` do all their own set-up.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest

help: ## What each command does.
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

demo: $(VENV)/.demo ## The main job on the embedded default: exchange, export, verify offline.
	@$(BIN)/signet demo

run: $(VENV)/.demo ## The gateway on http://127.0.0.1:8088, SQLite under ./data.
	@$(BIN)/signet serve

test: $(VENV)/.dev $(VENV)/.node ## Every test, in parallel and in random order.
	@$(PYTEST) tests -n auto --dist loadgroup

check: $(VENV)/.dev ## Format, lint, types, import contracts.
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/basedpyright
	@$(BIN)/lint-imports

bench: $(VENV)/.dev ## Measure: prints ratios taken in one run.
	@$(BIN)/python -m bench

drills: $(VENV)/.dev ## The long fault runs at full count; resumable; results under docs/evidence/.
	@$(BIN)/python -m tests.drills

format: $(VENV)/.dev ## Rewrite the code in the project's format.
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --group build
lock: ## Compile requirements/*.txt anew from pyproject.toml (needs uv).
	@$(LOCK) --extra demo pyproject.toml -o requirements/demo.txt
	@$(LOCK) --extra production pyproject.toml -o requirements/production.txt
	@$(LOCK) --extra production --extra demo --extra tokens --group check --group test \
		pyproject.toml -o requirements/dev.txt

clean: ## Remove what the other commands made, but not ./data.
	@rm -rf $(VENV) .pytest_cache .ruff_cache .import_linter_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "Signet needs Python 3.11 or newer: apt install python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "Signet needs Python's venv module: apt install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# One environment; `test` and `check` add their tools to what `demo` and `run` need.
$(VENV)/.demo $(VENV)/.dev: $(VENV)/.%: requirements/%.txt pyproject.toml | $(VENV)/bin/python
	@echo "Setting up $(VENV) from requirements/$*.txt ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r $<
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# JavaScript libraries that ours are held against; without npm their tests are skipped.
NODE := tests/interop tests/repair/node
$(VENV)/.node: $(NODE:%=%/package-lock.json) | $(VENV)/bin/python
	@if ! command -v npm >/dev/null; then \
		echo "npm is not installed: the tests against JavaScript libraries are skipped."; exit; fi; \
	for place in $(NODE); do \
		npm ci --prefix $$place --ignore-scripts --no-audit --no-fund --silent || exit 1; done; \
	touch $@

.PHONY: help demo run test check bench drills format lock clean
