# `make quickstart` runs the quickstart recipe, `make test` the tests. Both first set up a virtual environment in this
# folder with the exact versions of constraints.txt; nothing outside of the folder is changed.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
EXTRAS := gguf,syntax,math,serve,scale,provenance
WHEELHOUSE := build/wheelhouse
# `make setup CUDA=1` installs torch with CUDA on a machine that has no NVIDIA GPU.
CUDA ?=

.PHONY: setup quickstart test test-all realmodel lint docs wheelhouse clean

quickstart: setup
	$(BIN)/accelerate launch --quiet --config_file accelerate_configs/cpu.yaml recipes/run.py recipes/quickstart.yaml

test: setup
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# Also runs the tests that take minutes, as CI does; `pytest -m nightly` runs those that take longer.
test-all: setup
	$(BIN)/python -m pytest -m "not nightly" $(PYTEST_ARGS)

# The whole way with a real model in about half an hour: make realmodel MODEL=qwen2.5-coder-0.5b-instruct-q4_k_m.gguf
realmodel: setup
	@test -f "$(MODEL)" || { echo "error: MODEL=$(MODEL) is not a file: name the official GGUF file of" \
		"Qwen2.5-Coder-0.5B-Instruct (q4_K_M)" >&2; exit 1; }
	ALIGN_REAL_MODEL="$(MODEL)" $(BIN)/python -m pytest -m nightly tests/real_model $(PYTEST_ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation as a site, in build/docs.
docs: setup
	$(BIN)/mkdocs build --strict

# Wheels of everything that `make setup` and the engines of GPTQ and AWQ install, for machines without a package
# index, and for deploy/Dockerfile. See docs/closed-networks.md.
wheelhouse: setup
	mkdir -p $(WHEELHOUSE)
	cp constraints.txt $(WHEELHOUSE)/
	$(PIP) wheel --constraint constraints.txt --find-links $(WHEELHOUSE) --wheel-dir $(WHEELHOUSE) \
		pip setuptools wheel torch '.[$(EXTRAS),dev]'
	$(BIN)/python -m alignment.export.engine_environment --wheels $(WHEELHOUSE)

setup: $(READY)

# torch comes first, so that packages that build against it find this version.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
		echo "error: $(PYTHON) is not Python 3.11 ($$($(PYTHON) --version 2>&1)): install Python 3.11, or name it:" \
		"make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --constraint constraints.txt pip setuptools wheel
	test -n "$(CUDA)" || $(PIP) install --dry-run --report - --constraint constraints.txt torch \
		| $(BIN)/python deploy/torch_build.py
	$(PIP) install --constraint constraints.txt torch
	$(PIP) install --constraint constraints.txt --no-build-isolation --editable '.[$(EXTRAS),dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) runs
