# One command for everything a person does; CI calls the same ones.
#   make serve      environment, demo model, demo adapters, gateway     (PORT=8000 DATA=./data MODEL=... ENGINE=cpu|gpu)
#   make test       environment and the whole suite
#   make check      formatting, lint, types, import rules
#   make demo       asks the running gateway a question and shows where the answer came from
#   make loadtest   two minutes of mixed load on the running gateway, then a reconciliation
#   make bench-X    X = attribution, served, serving, kernels, ledger, simulator, chain: a table, and JSON under docs/results/

ENGINE ?= cpu
PORT ?= 8000
DATA ?= ./data
PYTHON ?= python3
VENV ?= .venv
MODEL ?=
ARGS ?=

BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(ENGINE)
REQUIREMENTS := .ci/requirements/$(ENGINE).txt
PIP := $(BIN)/pip --disable-pip-version-check
export PYTHONUNBUFFERED = 1

.PHONY: serve test check format setup demo loadtest clean

serve: setup
	$(BIN)/openledger serve --port $(PORT) --data $(DATA) $(if $(MODEL),--model $(MODEL)) $(ARGS)

test: setup
	$(BIN)/python -m pytest tests $(ARGS)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_imports.py

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(READY)

# torch comes first and with its dependencies: what else there is must fit the torch that was chosen.
$(READY): $(REQUIREMENTS) pyproject.toml Makefile
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifeq ($(ENGINE),cpu)
	$(PIP) install --quiet torch==2.13.0
	$(PIP) install --quiet --no-deps -r $(REQUIREMENTS)
else
	$(PIP) install --quiet -r $(REQUIREMENTS)
endif
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	touch $@

bench-%: setup
	@$(MAKE) --no-print-directory _bench-$*

# The running gateway is found through $(DATA)/demo.env.
loadtest: setup
	$(BIN)/python -m loadtest.run --data $(DATA) $(ARGS)

demo: setup
	set -a; . $(DATA)/demo.env; $(BIN)/openledger demo $(ARGS)

.PHONY: _bench-kernels _bench-attribution _bench-served _bench-serving _bench-ledger _bench-simulator _bench-chain
_bench-kernels:
	$(BIN)/python -m kernels.bench $(ARGS)
# The served part asks the running gateway; without one it is left out.
_bench-attribution:
	test -f .cache/base/base.json || $(BIN)/python -m adapters.demo.base --out .cache/base
	$(BIN)/python -m adapters.bench all $(ARGS)
	test ! -f $(DATA)/demo.env || $(MAKE) --no-print-directory _bench-served ARGS=
_bench-served:
	$(BIN)/python -m loadtest.bench_attribution --data $(DATA) $(ARGS)
_bench-serving:
	$(BIN)/python -m loadtest.bench_serving $(ARGS)
_bench-ledger:
	$(BIN)/python -m metering.bench $(ARGS)
_bench-simulator:
	$(BIN)/python -m tests.metering.simulator $(ARGS)
_bench-chain:
	$(BIN)/python -m metering.chain.bench $(ARGS)

clean:
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache .mypy_cache *.egg-info
