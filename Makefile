# `make demo` draws faces, `make test` runs everything that continuous integration runs.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
RUNS := runs

.PHONY: demo test lint lab studio measure table ablations bench bench-studio figures docs book \
	badges faces train clean

$(VENV)/.notebooks: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[notebooks]"
	touch $@

$(VENV)/.dev: $(VENV)/.notebooks
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[notebooks,render,dev]"
	touch $@

$(VENV)/.studio: $(VENV)/.notebooks
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[notebooks,studio]"
	touch $@

demo: $(VENV)/.notebooks
	$(BIN)/python -m dmgi_lib.notebook_runner notebooks/00_quickstart.ipynb --out $(RUNS)/demo

# Two processes of one thread each, where each would else start a thread a core.
test: export OMP_NUM_THREADS = 1
test: lint $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist worksteal tests/integration tests/unit tests/browser tests/notebooks
	$(BIN)/python -m pytest -n 2 --dist loadscope --nbval-lax notebooks

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lab: $(VENV)/.notebooks
	$(BIN)/jupyter lab notebooks

# The studio as a page, for this machine alone; make studio STUDIO="--host 0.0.0.0" for others too.
studio: $(VENV)/.studio
	$(BIN)/python -m dmgi_lib.studio $(STUDIO)

measure: $(VENV)/.notebooks
	$(BIN)/python -m dmgi_lib.evaluation.measure --out $(RUNS)/measure.csv

bench: $(VENV)/.notebooks
	$(BIN)/python tests/benchmarks/generators.py
	$(BIN)/python tests/benchmarks/full_size.py
	$(BIN)/python tests/benchmarks/heads.py

bench-studio: $(VENV)/.dev $(VENV)/.studio
	$(BIN)/python tests/benchmarks/studio.py
	$(BIN)/python tests/benchmarks/studio.py --weights mini-3d

# Table 1 of the mini world, and one row for each choice that the paper leaves open; long.
table: $(VENV)/.notebooks
	$(BIN)/python -m dmgi_lib.evaluation.table

ablations: $(VENV)/.notebooks
	$(BIN)/python -m dmgi_lib.evaluation.ablations

figures: $(VENV)/.notebooks
	$(BIN)/python docs/draw_figures.py
	$(BIN)/python docs/draw_failures.py
	$(BIN)/python docs/fill_tables.py

# API pages, site/api/index.html.
docs: $(VENV)/.dev
	$(BIN)/python docs/build_api.py

# Notebooks, API pages, results and glossary as one book, site/index.html.
book: $(VENV)/.dev
	$(BIN)/python docs/build_book.py

# The repository's address into notebooks, README and CITATION.cff: make badges REPO=owner/name
badges:
	$(PYTHON) docs/badges.py $(REPO)

faces: $(VENV)/.dev
	$(BIN)/python -m data_prep.faces128.build

# All networks that ship, into ~/.cache/dmgi/world; days on two cores, resumable.
train: $(VENV)/.notebooks
	$(BIN)/python -m data_prep.priors.world

clean:
	rm -rf $(VENV) $(RUNS) site jupyter_execute
