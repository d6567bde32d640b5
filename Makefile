# `make test` runs everything that continuous integration runs; `make faces` renders the data set.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
RUNS := runs

.PHONY: demo test unit lint lab faces measure clean

demo: $(VENV)/.notebooks
	$(BIN)/python -m dmgi_lib.notebook_runner notebooks/00_quickstart.ipynb --out $(RUNS)/demo

$(VENV)/.notebooks: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[notebooks]"
	touch $@

$(VENV)/.dev: $(VENV)/.notebooks
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[notebooks,render,dev]"
	touch $@

test: lint unit

unit: $(VENV)/.dev
	$(BIN)/python -m pytest tests/unit tests/integration/test_sample.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lab: $(VENV)/.notebooks
	$(BIN)/jupyter lab notebooks

measure: $(VENV)/.notebooks
	$(BIN)/python -m dmgi_lib.evaluation.measure --out $(RUNS)/measure.json

faces: $(VENV)/.dev
	$(BIN)/python -m data_prep.faces128.build

clean:
	rm -rf $(VENV) $(RUNS)
