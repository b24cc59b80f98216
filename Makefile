# Two commands on a fresh machine with Python >= 3.10, git and make:
#   make quickstart   runs the main job on small real models
#   make test         checks style and types and passes the tests
#   make faults       injures labsync in every way it must survive (docs/reliability.md)
# Both share one .venv, made where it is missing.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: quickstart test faults bench lint types clean

quickstart: $(STAMP)
	$(BIN)/python manifests/quickstart/build.py manifests/quickstart/origin
	$(BIN)/labsync bootstrap -m manifests/quickstart.yaml

test: lint types
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

# Everything `make test` takes samples of, and every protection taken out in turn.
faults: $(STAMP)
	LABSYNC_FAULTS=all $(BIN)/python -m pytest -q -n 2 --dist worksteal tests/faults tests/contracts/test_strict_s3.py
	$(BIN)/python -m tests.mutations

bench: $(STAMP)
	$(BIN)/python -m benchmarks

lint: $(STAMP)
	$(BIN)/ruff check src tests manifests benchmarks
	$(BIN)/ruff format --check src tests manifests benchmarks

types: $(STAMP)
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis manifests/.labsync \
	  manifests/quickstart/origin manifests/quickstart/lab

# torch comes first and alone: its plain version pin takes the build for this machine.
$(STAMP): pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0 torchvision==0.28.0
	$(PIP) -c constraints.txt torch==2.13.0 -e '.[smoke,dev]'
	touch $(STAMP)
