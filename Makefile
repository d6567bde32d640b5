# `make demo` draws faces, `make test` runs everything that continuous integration runs.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
RUNS := runs

.PHONY: demo test unit notebooks lint lab measure table ablations bench figures docs faces train clean

$(VENV)/.notebooks: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[notebooks]"
	touch $@

$(VENV)/.dev: $(VENV)/.notebooks
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[notebooks,render,dev]"
	touch $@

demo: $(VENV)/.notebooks
	$(BIN)/python -m dmgi_lib.notebook_runner notebooks/00_quickstart.ipynb --out $(RUNS)/demo

test: lint unit notebooks

# Two processes of one thread each, where each would else start a thread a core.
unit notebooks: export OMP_NUM_THREADS = 1

unit: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 tests/unit tests/integration tests/browser

notebooks: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist worksteal tests/notebooks
	$(BIN)/python -m pytest -n 2 --dist loadscope --nbval-lax notebooks

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lab: $(VENV)/.notebooks
	$(BIN)/jupyter lab notebooks

measure: $(VENV)/.notebooks
	$(BIN)/python -m dmgi_lib.evaluation.measure --out $(RUNS)/measure.json

bench: $(VENV)/.notebooks
	$(BIN)/python tests/benchmarks/generators.py
	$(BIN)/python tests/benchmarks/full_size.py

# Table 1 of the mini world, and one row for each choice that the paper leaves open; long.
table: $(VENV)/.notebooks
	$(BIN)/python -m dmgi_lib.evaluation.table

ablations: $(VENV)/.notebooks
	$(BIN)/python -m dmgi_lib.evaluation.ablations

figures: $(VENV)/.notebooks
	$(BIN)/python docs/draw_figures.py

# API pages, site/api/index.html.
docs: $(VENV)/.dev
	$(BIN)/python docs/build_api.py

faces: $(VENV)/.dev
	$(BIN)/python -m data_prep.faces128.build

# All networks that ship, in the order in which they need each other; hours, resumable. Minutes are
# those of the cards in dmgi_lib/weights/faces128, summed over a network's trainings; those that
# started from the kit's first version start from nothing here and take their usual time.
TRAINER := $(BIN)/python -m data_prep.priors.trainer
STAGES := $(BIN)/python -m dmgi_lib.training.stages
train: faces
	$(TRAINER) loss_net --minutes 24
	$(TRAINER) stylegan2 --minutes 180
	$(TRAINER) text_image --minutes 29.5
	$(TRAINER) autoencoder --perceptual dmgi_lib/weights/faces128/loss_net
	$(TRAINER) unet
	$(TRAINER) controlnet --condition mask
	$(TRAINER) controlnet --condition scribble --minutes 16 --start dmgi_lib/weights/faces128/controlnet
	$(TRAINER) judge_parser
	$(TRAINER) judge_attributes --minutes 117
	$(TRAINER) judge_identity
	$(BIN)/python -m dmgi_lib.weight_folder
	$(BIN)/python -m dmgi_lib.training.feature_cache --condition mask
	$(STAGES) --stage 1 --condition mask --minutes 7
	$(STAGES) --stage 2 --condition mask --minutes 4 --pooled 2
	$(STAGES) --stage 3 --condition mask --minutes 81 --pooled 2
	$(BIN)/python -m dmgi_lib.training.feature_cache --condition scribble
	$(STAGES) --stage 1 --condition scribble --minutes 5
	$(STAGES) --stage 2 --condition scribble --minutes 3 --pooled 4
	$(STAGES) --stage 3 --condition scribble --minutes 130 --pooled 4
	$(TRAINER) mask_encoder --minutes 80

clean:
	rm -rf $(VENV) $(RUNS) site
