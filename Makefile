# Everything a developer types. `make help` lists it; `make demo` and `make test` do it all.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
INSTALLED := .venv/installed
NEWEST := .venv-newest
PYTHON ?= python3
# What the virtual environment is built with, and what the unit tests run: real programs.
BUILD_PACKAGES := python3-venv python3-dev gcc pkg-config libvirt-dev make
TEST_PACKAGES := qemu-utils openssh-server openssh-client postgresql-15 sudo jq
UNIT = $(BIN)/pytest -m 'not lab' --timeout 120 --numprocesses 2 --dist worksteal
MEASURED := $(wildcard benchmarks/*.py)

.PHONY: help venv demo test static unit lab-test lint format types floors bench docs man clean
.PHONY: accept accept-long newest compare coverage crash crash-faults crash-lab crash-lab-long

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) \
	  | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | sort | awk -F '\t' '{printf "  %-12s %s\n", $$1, $$2}'

demo: venv lab ## bring the lab up, move a server across and confirm it, look at it with you
	$(BIN)/python -m tests.lab.demo

test: static unit crash lab-test ## everything: linters, types, floors, unit and law tests, kills, then the lab

static: lint types floors ## linters, types and floors

venv: $(INSTALLED) ## put everything into .venv

$(INSTALLED): setup.cfg pyproject.toml
	@$(call packages,$(BUILD_PACKAGES))
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev,lab]'
	@touch $@

lint: venv ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: venv ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: venv ## mypy, strict
	$(BIN)/mypy

floors: venv ## import-linter: imports go downward only
	$(BIN)/lint-imports

unit: venv ## unit and law tests over the fake cloud; no lab, about seven minutes
	@$(call packages,$(TEST_PACKAGES))
	$(UNIT)

coverage: venv ## the same, and what of the code they run: half as long again
	@$(call packages,$(TEST_PACKAGES))
	$(UNIT) --cov --cov-report term

lab-test: venv lab newest ## tests against the real two-cell cloud (brings the lab up)
	@$(call packages,jq)
	$(BIN)/pytest -m 'lab and not alone' --timeout 900 --numprocesses 2 --dist loadfile
	$(BIN)/pytest -m 'lab and alone' --timeout 900 --durations 16

bench: venv ## list the benchmarks, and how to run one
	@for each in $(MEASURED); do \
	  printf '  %s %-28s %s\n' $(BIN)/python "$$each" \
	    "$$(sed -n '1s/^"""\(.*[^"]\)"*$$/\1/p' "$$each")"; done

crash: venv ## kill every verb and a drain at every point over the fake cloud; prints one JSON object
	$(BIN)/python -m tests.crash

crash-faults: venv ## every call of every step meets every fault over the fake cloud
	$(BIN)/python -m tests.faults

crash-lab: venv lab ## kill the real program on the lab at a choice of points
	$(BIN)/pytest -m lab -s tests/lab/test_crash.py tests/lab/test_chaos.py

crash-lab-long: venv lab ## the same at all points; takes about 50 minutes
	CELLMOVE_LONG=1 $(BIN)/pytest -m lab -s --timeout 7200 tests/lab/test_crash.py tests/lab/test_chaos.py

accept: venv lab newest ## nova's own services judge the work, on the lab, in minutes
	$(BIN)/pytest -m lab --timeout 900 --durations 16 tests/accept

accept-long: venv lab newest ## the same with all combinations, nova-compute restarted, life afterwards
	CELLMOVE_LONG=1 $(BIN)/pytest -m lab --timeout 7200 --durations 16 tests/accept

newest: $(NEWEST)/installed ## put the newest nova into an environment of its own, for the acceptance tests

$(NEWEST)/installed: tests/accept/newest/requirements.txt
	@$(call packages,$(BUILD_PACKAGES))
	rm -rf $(NEWEST)
	$(PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

compare: venv lab ## nova's own move and cellmove's side by side: the tables of docs/compared.rst
	$(BIN)/python benchmarks/compare.py --out docs/compared

docs: venv ## make the documentation (build/docs/index.html); a warning is an error
	$(BIN)/python -m sphinx -q -n -W --keep-going -b html docs build/docs

man: venv ## make the manual pages: build/man/cellmove.1, cellmove-resize.1...
	$(BIN)/python docs/_ext/manual.py build/man

clean: ## remove what was built and cached; the lab stays (make lab-down)
	rm -rf .venv $(NEWEST) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage build dist \
	  *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Installs those that are missing; asks for root only then.
packages = playbooks/lab/files/packages $(1)

-include lab.mk
