# `make train` and `make test` set up whatever they need. Settings are passed on by their names:
#   make train INPUT_URI=~/slices OUTPUT_URI=runs/mine EPOCHS=500
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: setup train test check fix image up lock
.DELETE_ON_ERROR:

setup: $(READY)

$(READY): requirements-dev.txt pyproject.toml
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep -o '^uv==[^ ]*' requirements-dev.txt)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements-dev.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

check: $(READY)
	$(BIN)/ruff check && $(BIN)/ruff format --check && $(BIN)/mypy && $(BIN)/lint-imports && $(BIN)/hadolint Dockerfile

test: check
	$(BIN)/pytest

fix: $(READY)
	$(BIN)/ruff check --fix && $(BIN)/ruff format

image:
	docker compose build train

up:
	docker compose up --build --exit-code-from train train

lock:
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" pyproject.toml -o requirements.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" -c requirements.txt --group dev pyproject.toml -o requirements-dev.txt
