# `make demo` and `make test` are all a user needs; the rest is for working on adaptd.
PYTHON ?= python3
BIN := .venv/bin
BASE := var/bases/smollm2-135m
export ADAPTD_DEMO_BEGAN := $(shell date +%s)
# Where it is set, each of the many children would compile torch's and vLLM's sources anew.
unexport PYTHONDONTWRITEBYTECODE
# Our files are UTF-8, whatever the machine's locale.
export PYTHONUTF8 := 1

.PHONY: demo test check install base-model jars format lint types imports \
  test-unit test-integration test-acceptance test-dates chaos bench-ingest bench-examples \
  bench-beside lock clean

demo: install
	@$(BIN)/adaptd demo

test: install base-model jars
	$(BIN)/pytest -q -n 2 --dist loadgroup

# Format, lint, types, import contracts and unit tests, two at a time: four minutes on two
# AVX2 cores.
check: install base-model
	@$(MAKE) --no-print-directory -j2 --output-sync=target types lint imports test-unit

lint: install
	$(BIN)/ruff format --check -q .
	$(BIN)/ruff check -q .

types: install
	$(BIN)/basedpyright

imports: install
	$(BIN)/lint-imports

test-unit: install base-model
	$(BIN)/pytest -q -n 2 tests/unit

test-integration: install base-model jars
	$(BIN)/pytest -q tests/integration

test-acceptance: install base-model jars
	$(BIN)/pytest -q tests/acceptance

# All tests on four other days, under Debian's faketime; as long as four times `make test`.
test-dates: install base-model jars
	@$(BIN)/python -m tests.dates

# Breaks ingestion in every way we know, at most 15 minutes; CHAOS_SEED=7 chooses what chance decides.
chaos: install jars
	$(BIN)/python -m tests.chaos

# Ingestion against its peers and its own figures, at most 10 minutes: bench/results/ingest.json.
bench-ingest: .venv-bench/installed jars
	@.venv-bench/bin/python -m bench.ingest

# Selecting from 10 million interactions, about 3 minutes: bench/results/examples.json.
bench-examples: install
	@$(BIN)/python -m bench.examples

# Serving beside training and other work, at most 12 minutes: bench/results/beside.json.
bench-beside: install base-model
	@$(BIN)/python -m bench.beside

# The peers lie over .venv in an environment of their own: one of them asks for an older pydantic.
.venv-bench/installed: deploy/bench-requirements.txt .venv/installed
	@$(BIN)/python -m venv --without-pip .venv-bench
	@$(BIN)/uv pip install --quiet --python .venv-bench/bin/python --no-deps -r deploy/bench-requirements.txt
	@$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'), '$(CURDIR)/src', sep='\n')" \
	  > "$$(.venv-bench/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/adaptd.pth"
	@touch $@

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: .venv/installed

.venv/installed: deploy/requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || { echo "adaptd needs Python 3.11 to 3.13: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	@echo "installing into .venv (about a minute, 6 GB)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv==0.13.*'
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -r deploy/requirements.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

base-model: $(BASE)/adaptd-digest.json

$(BASE)/adaptd-digest.json: | install
	$(BIN)/python -m adaptd.daemon.training.worker.base_model $(BASE)

# Without Java or Maven this says so and goes on; the tests that need the broker then fail.
jars: install
	-@$(BIN)/python deploy/kafka/broker.py --fetch-only

# Compiles deploy/requirements.in. No index addresses are recorded.
lock: install
	$(BIN)/uv pip compile deploy/requirements.in --override deploy/overrides.txt --python-version 3.11 \
	  --no-header --no-annotate --no-emit-index-url --quiet -o deploy/requirements.txt

clean:
	rm -rf var demo-report.json build .pytest_cache .ruff_cache .hypothesis .import_linter_cache
