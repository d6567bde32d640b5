# `make test` runs everything that continuous integration runs; `make faces` renders the data set.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
RUNS := runs

.PHONY: test unit notebooks lint lab bench faces clean

$(VENV)/.notebooks: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[notebooks]"
	touch $@

$(VENV)/.dev: $(VENV)/.notebooks
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[notebooks,render,dev]"
	touch $@

test: lint unit notebooks

unit: $(VENV)/.dev
	$(BIN)/python -m pytest tests/unit tests/integration/test_sample.py

notebooks: $(VENV)/.dev
	$(BIN)/python -m pytest tests/notebooks
	$(BIN)/python -m pytest --nbval-lax notebooks

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lab: $(VENV)/.notebooks
	$(BIN)/jupyter lab notebooks

bench: $(VENV)/.notebooks
	$(BIN)/python tests/benchmarks/generators.py
	$(BIN)/python tests/benchmarks/full_size.py

faces: $(VENV)/.dev
	$(BIN)/python -m data_prep.faces128.build

clean:
	rm -rf $(VENV) $(RUNS)
