# Every target sets up what it needs: a virtual environment in .venv and the install.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := constraints/py$(shell $(PYTHON) -c 'import sys; print("%d%d" % sys.version_info[:2])').txt
# For test-all: where the oldest versions allowed run, and the newest Python at hand.
OLDEST ?= python3.11
NEWEST ?= $(shell for minor in 14 13 12; do \
	for python in python3.$$minor $$HOME/.pyenv/versions/3.$$minor.*/bin/python; do \
		if $$python -c '' 2>/dev/null; then echo $$python; exit; fi; done; done)
CONSTRAIN := $(if $(wildcard $(CONSTRAINTS)),-c $(CONSTRAINTS))

.PHONY: help quickstart notebook report docs test test-all test-slow lint format clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 14

quickstart: $(VENV)/experiments.stamp  ## prune networks on handwritten digits, print the table, draw the figure (2 minutes)
	$(BIN)/python -m experiments.run --config=experiments/configs/quickstart.py --workdir=runs/quickstart

notebook: $(VENV)/notebook.stamp  ## run experiments/story.ipynb again and keep its outputs
	$(BIN)/jupyter nbconvert --to notebook --inplace --execute \
		--ExecutePreprocessor.record_timing=False experiments/story.ipynb

report: $(VENV)/experiments.stamp  ## verdicts, tables and figures of results/ as a page, and the results in README.md and docs/
	$(BIN)/python -m tools.report results --readme=README.md --conclusions=docs/results.md

docs: $(VENV)/docs.stamp  ## the documentation as a site: site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

test: $(VENV)/test.stamp  ## the tests that take seconds each
	$(BIN)/python -m pytest -n auto --dist=loadfile --no-loadscope-reorder

test-all:  ## all tests, the slow ones too, with the oldest versions allowed and with the newest
	@test -n '$(NEWEST)' || { echo 'no Python above 3.11 found; name one: make test-all NEWEST=PATH'; exit 1; }
	mkdir -p .venv-oldest
	grep -o '"[a-zA-Z_-]\+\(\[[a-z]*\]\)\?>=[0-9.]*' pyproject.toml | sed 's/"//; s/\[.*\]//; s/>=/==/' > .venv-oldest/lower_bounds.txt
	$(MAKE) test-slow VENV=.venv-oldest PYTHON='$(OLDEST)' CONSTRAINTS=.venv-oldest/lower_bounds.txt
	$(MAKE) test-slow VENV=.venv-newest PYTHON='$(NEWEST)' CONSTRAINTS=

# In test-all XLA optimizes all programs; in test only those of tests that are marked.
test-slow: $(VENV)/test.stamp
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(BIN)/python -m pytest -n auto --dist=loadfile --no-loadscope-reorder -m ''

lint: $(VENV)/dev.stamp  ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

format: $(VENV)/dev.stamp  ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the virtual environment and the caches
	rm -rf $(VENV) .venv-oldest .venv-newest .pytest_cache .ruff_cache

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/%.stamp: $(VENV)/bin/python pyproject.toml $(wildcard $(CONSTRAINTS))
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAIN) -e '.[$*]'
	touch $@
