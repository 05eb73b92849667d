# multisite: what a checkout can do.  `make` alone prints this list.
#
# Everything starts from python3 and make.  The virtualenv lives in .venv; a stamp file in it says what was
# installed, so that a second run starts at once and needs no network.

PYTHON ?= python3
VENV   ?= .venv
PORT   ?= 8000
WORKERS ?= 2
THREADS ?= 8
# Most tests wait for processes, so more of them run than there are processors. Each process gets a run of files, whose
# tests share servers; whoever is done takes half of what another has left.
TOGETHER ?= -n 6 --dist worksteal

# The rooms whose tests start, but for a few that say so, neither a server nor a supervisor.
QUICK := config errors logs sites inprocess dispatch proxy cli

DEMO_HOME := $(CURDIR)/etc-moya
BIN := $(VENV)/bin
METADATA := setup.cfg pyproject.toml

.DEFAULT_GOAL := help
.PHONY: help run test test-quick test-apps test-interpreters test-user mutants check lint types docs bench venv clean
.DELETE_ON_ERROR:

help:  ## print this list
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/  make \1#\2/p' $(MAKEFILE_LIST) | awk -F'#' '{ printf "%-26s%s\n", $$1, $$2 }'

run: $(VENV)/stamp-demo  ## serve the demonstration sites on 127.0.0.1 (PORT=8000, WORKERS=2, THREADS=8)
	@echo "The demonstration sites (Control-C stops them):"
	@PATH='$(abspath $(BIN))':"$$PATH" exec $(BIN)/python .ci/demo '$(DEMO_HOME)' \
	    --bind 127.0.0.1:$(PORT) --workers $(WORKERS) --threads $(THREADS)

test: $(VENV)/stamp-test $(VENV)/stamp-servers  ## run all tests, real web servers included
	@PATH='$(abspath $(BIN))':"$$PATH" $(BIN)/python -m pytest $(TOGETHER) $(ARGS)

test-quick: $(VENV)/stamp-test  ## run the tests that start no server and no supervisor, in half a minute
	@PATH='$(abspath $(BIN))':"$$PATH" $(BIN)/python -m pytest -q -m "not apps and not servers and not processes" \
	    $(TOGETHER) $(ARGS) tests/test_*.py $(addprefix tests/,$(QUICK))

test-interpreters:  ## run what depends on the interpreter on every other CPython >= 3.10 found here
	@.ci/test-interpreters $(BIN)/python $(TOGETHER) $(ARGS)

test-user:  ## as root: run as an ordinary user the tests that behave differently for one
	@.ci/test-user $(TOGETHER) $(ARGS)

test-apps: $(VENV)/stamp-test  ## hold applications of PyPI (Wagtail, Trac, Dash, ...) against plain gunicorn
	@PATH='$(abspath $(BIN))':"$$PATH" $(BIN)/python -m pytest -m apps $(ARGS) tests/apps

mutants: $(VENV)/stamp-test  ## plant bugs one at a time and see whether the tests notice (ARGS='relay -j 3')
	@PATH='$(abspath $(BIN))':"$$PATH" $(BIN)/python -m tests.mutants $(ARGS)

check: lint types docs  ## ruff, mypy, and the documentation with warnings as errors

lint: $(VENV)/stamp-check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/stamp-check
	$(BIN)/mypy

docs: $(VENV)/stamp-check  ## build the documentation into docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: $(VENV)/stamp-test  ## measure: cost of the dispatch, start with many sites, sites added under load
	@command -v wrk >/dev/null || .ci/apt wrk
	@PATH='$(abspath $(BIN))':"$$PATH" $(BIN)/python bench/run.py $(ARGS)

venv: $(VENV)/stamp-demo  ## make .venv with multisite (editable) and what its demonstration sites need

clean:  ## remove the virtualenvs, what was built, and the demonstration's database
	rm -rf $(VENV) .venv-[0-9]* build dist docs/_build docs/reference *.egg-info
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -rf sites-available/django/var
	find multisite tests docs sites-available bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# --- what is installed where ---------------------------------------------------------------------

$(BIN)/python:
	@.ci/venv $(VENV) $(PYTHON)

$(VENV)/stamp-demo: $(METADATA) | $(BIN)/python
	@.ci/install $(VENV) demo
	@touch $@

$(VENV)/stamp-test: $(METADATA) | $(BIN)/python
	@.ci/install $(VENV) demo,test
	@touch $@ $(VENV)/stamp-demo

$(VENV)/stamp-check: $(METADATA) | $(BIN)/python
	@.ci/install $(VENV) demo,test,docs,check
	@touch $@ $(VENV)/stamp-demo $(VENV)/stamp-test

$(VENV)/stamp-servers: $(METADATA) .ci/servers | $(BIN)/python $(VENV)/stamp-test
	@.ci/servers $(VENV)
	@touch $@
