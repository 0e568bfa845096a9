# `make train` and `make test` set up whatever they need. Without settings, train is a demo of some
# minutes; with any, those are passed on and the others keep the defaults of a real run:
#   make train INPUT_URI=~/slices OUTPUT_URI=runs/mine EPOCHS=300
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
empty :=
space := $(empty) $(empty)
# make escapes a space within a value; hide it while the settings are taken one by one
GIVEN := $(filter-out PYTHON=%,$(subst \$(space),%20,$(MAKEOVERRIDES)))
DEMO := MODEL=r3-tiny IMAGE_HEIGHT=64 IMAGE_WIDTH=52 EPOCHS=40 BATCH_SIZE=8 ACCUMULATION_STEPS=1
SETTINGS = $(subst %20,\$(space),$(foreach setting,$(or $(GIVEN),$(DEMO)),MRIGAN_$(setting)))

.PHONY: setup sdk train test check fix gpu image sbom site up lock
.DELETE_ON_ERROR:

setup: $(READY)

$(READY): requirements-dev.txt pyproject.toml
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep -o '^uv==[^ ]*' requirements-dev.txt)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements-dev.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

# The two major versions of the sagemaker SDK, each in an environment of its own: tests only.
sdk: .sdk/v2/ready .sdk/v3/ready

.sdk/%/ready: deploy/sagemaker/requirements-%.txt | $(READY)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .sdk/$*
	$(BIN)/uv pip install --quiet --python .sdk/$*/bin/python --require-hashes -r $<
	touch $@

train: $(READY)
	env $(SETTINGS) $(BIN)/mrigan train

check: $(READY)
	$(BIN)/ruff check && $(BIN)/ruff format --check && $(BIN)/mypy && $(BIN)/lint-imports && $(BIN)/hadolint Dockerfile

# A process a core, one thread each: threads of many small tests only wait for each other. A file's
# tests stay together, since they share runs.
test: check
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile

fix: $(READY)
	$(BIN)/python docs/settings.py && $(BIN)/python docs/commands.py && $(BIN)/ruff check --fix && $(BIN)/ruff format

# Four minutes on one GPU (bench/gpu.py); leaves its results in bench/results.
gpu: $(READY)
	$(BIN)/python bench/gpu.py

image:
	docker compose build train

# What the image holds of Python, each package with the hashes that it was installed by: CycloneDX.
sbom: $(READY)
	mkdir -p dist
	$(BIN)/cyclonedx-py requirements requirements.txt --pyproject pyproject.toml --output-reproducible --of JSON -o dist/sbom.cdx.json

# The docs as a site that is read without a network, too: dist/site/index.html. With --quiet mkdocs
# would count no warnings, and strict would mean nothing.
site: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --site-dir dist/site

up:
	docker compose up --build --exit-code-from train train

lock:
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" --extra tensorboard pyproject.toml -o requirements.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" -c requirements.txt --group dev --extra tensorboard pyproject.toml -o requirements-dev.txt
	for sdk in deploy/sagemaker/requirements-v2 deploy/sagemaker/requirements-v3; do \
		uv pip compile -q --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" $$sdk.in -o $$sdk.txt || exit 1; done
