# make demo   installs into .venv and runs two phantom patients through the whole road
# make check  installs into .venv and runs format, lint, types and the fast tests, after each change
# make test   the same with every test, before a change is handed on
PYTHON ?= python3
BIN := .venv/bin
# Where it is set (many containers do), each process would compile the sources and the tests anew.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt
# A file stays in one process, for what its tests share; `tests/conftest.py` says which files come first.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo check test lint style types fast every clean

demo: .venv/.installed
	$(BIN)/aiene demo

check: style
	$(MAKE) --no-print-directory --jobs 2 types fast

test: style
	$(MAKE) --no-print-directory --jobs 2 types every

lint: style types

style: .venv/.installed-for-tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/.installed-for-tests
	$(BIN)/mypy src tools tests

fast: .venv/.installed-for-tests
	$(PYTEST) -m "not slow"

every: .venv/.installed-for-tests
	$(PYTEST)

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("aiene needs Python 3.11 to 3.13: make PYTHON=python3.11") if not (3, 11) <= sys.version_info[:2] <= (3, 13) else None'
	$(PYTHON) -m venv .venv

.venv/.installed: .venv/bin/python pyproject.toml constraints.txt $(shell find src -type f -not -name '*.pyc')
	$(PIP) .
	touch $@

.venv/.installed-for-tests: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[dev]'
	touch $@ .venv/.installed

clean:
	rm -rf .venv build dist src/*.egg-info aiene-demo
