# make setup | repro | test | test-slow | lint | deps | bench. Everything runs with .venv/bin first on PATH.
SHELL := /bin/bash
PYTHON := $(shell for python in python3.11 python3; do $$python -c "" 2> /dev/null && echo $$python && break; done)
INSTALLED := .venv/.installed
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: setup repro test test-slow lint deps bench

setup: $(INSTALLED)

# The stamp comes last: an installation that was cut short is made again, a finished one is not.
$(INSTALLED): requirements.txt requirements-dev.txt
	.venv/bin/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	python -m pip install --disable-pip-version-check --quiet -r requirements.txt -r requirements-dev.txt
	touch $@

# A source archive has no git; DVC then has to be told so, in a file that git ignores.
repro: $(INSTALLED)
	@git rev-parse --git-dir > /dev/null 2>&1 || dvc config --local core.no_scm true
	dvc repro

# One thread for each of the two workers, or they fight for the cores. A file's tests stay together: they share models.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 python -m pytest -q -m "not slow" -n 2 --dist loadfile

test-slow: $(INSTALLED)
	OMP_NUM_THREADS=1 python -m pytest -q -m slow -n 2 --dist loadfile

lint: $(INSTALLED)
	ruff check . && ruff format --check .

# After a change of imports: the source files that each stage of each dvc.yaml lists. A test says when they are stale.
deps: $(INSTALLED)
	python .ci/deps.py

bench: $(INSTALLED)
	for name in preprocess crops pca mae split store minerals grounding; do python -m bench.$$name --json || exit 1; done
