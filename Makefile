# `make quickstart` runs the quickstart recipe, `make test` the tests. Both first set up a virtual environment in this folder
# with the exact versions of constraints.txt; nothing outside of the folder is changed.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup quickstart test test-all lint clean

quickstart: setup
	$(BIN)/accelerate launch --quiet --config_file accelerate_configs/cpu.yaml recipes/run.py recipes/quickstart.yaml

test: setup
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# Also runs the tests that take minutes, as CI does; `pytest -m nightly` runs those that take longer.
test-all: setup
	$(BIN)/python -m pytest -m "not nightly" $(PYTEST_ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

setup: $(READY)

# torch comes first, so that packages that build against it find this version.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt pip setuptools wheel
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--no-build-isolation --editable '.[gguf,syntax,math,serve,scale,dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) runs
