# Two commands for a stranger: `make demo` and `make test`.

PYTHON ?= python3
VENV ?= .venv
# A folder or hub name of another language model for the demo; SmolLM2 if empty.
LANGUAGE_MODEL ?=
BIN := $(VENV)/bin

.PHONY: demo test format clean

demo: $(VENV)/core.stamp
ifeq ($(LANGUAGE_MODEL),)
	$(BIN)/o2s weights smollm2-135m
	$(BIN)/o2s demo --out demo
else
	$(BIN)/o2s demo --out demo --language-model $(LANGUAGE_MODEL)
endif

test: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright --level error --pythonpath $(BIN)/python
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

format: $(VENV)/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) demo build dist *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/core.stamp: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/dev.stamp: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@ $(VENV)/core.stamp
