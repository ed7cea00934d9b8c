# make demo and make test are all a user needs; the rest is for working on adaptd.
PYTHON ?= python3
BIN := .venv/bin
BASE := var/bases/smollm2-135m
JARS := var/kafka/jars/.complete
export ADAPTD_DEMO_BEGAN := $(shell date +%s)

.PHONY: demo test check install base-model jars format lint test-unit test-integration test-acceptance lock clean

demo: install
	@$(BIN)/adaptd demo

test: install base-model jars
	$(BIN)/pytest -q

# Format, lint, types, import contracts, unit tests: under a minute.
check: install base-model
	$(BIN)/ruff format --check -q .
	$(BIN)/ruff check -q .
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/unit

test-unit: install base-model
	$(BIN)/pytest -q tests/unit

test-integration: install base-model jars
	$(BIN)/pytest -q tests/integration

test-acceptance: install jars
	$(BIN)/pytest -q tests/acceptance

install: .venv/installed

.venv/installed: deploy/requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || { echo "adaptd needs Python 3.11 to 3.13: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	@echo "installing into .venv (about a minute, 5 GB)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.*
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -r deploy/requirements.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

base-model: $(BASE)/adaptd-digest.json

$(BASE)/adaptd-digest.json: | install
	$(BIN)/python -m daemon.training.worker.base_model $(BASE)

jars: $(JARS)

$(JARS): deploy/kafka/pom.xml | install
	$(BIN)/python -c 'from pathlib import Path; from daemon.demo.jars import fetch_jars; fetch_jars(Path("var/kafka/jars"))'

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: install
	$(BIN)/ruff check .

# Compiles deploy/requirements.in; no index addresses are recorded.
lock:
	$(BIN)/uv pip compile deploy/requirements.in --override deploy/overrides.txt --python-version 3.11 \
	  --no-header --no-annotate --no-emit-index-url --quiet -o deploy/requirements.txt

clean:
	rm -rf var demo-report.json .pytest_cache .ruff_cache
