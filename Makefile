# make demo   installs into .venv and runs two phantom patients through the whole road
# make check  installs into .venv and runs format, lint, types and the fast tests, after each change
# make test   the same with every test, before a change is handed on
PYTHON ?= python3
BIN := .venv/bin
# Tests are strictly typed too; but numpy, pandas and torch give Any in every second line of a test, so that is allowed
# there, and a number is compared with `pytest.approx`.
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: demo check test lint clean

demo: .venv/.installed
	$(BIN)/aiene demo

check: .venv/.installed-for-tests lint
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test: .venv/.installed-for-tests lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: .venv/.installed-for-tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	MYPYPATH=tests $(BIN)/mypy --cache-dir .mypy_cache/tests --explicit-package-bases --allow-untyped-calls --no-warn-return-any --no-warn-unused-ignores --no-strict-equality tests

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
