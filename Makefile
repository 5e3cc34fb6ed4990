# Two commands set up a fresh machine: `make demo` and `make test`. PYTHON may be any Python from 3.10 on.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: test test-benchmarks test-clients test-cluster test-studio test-thorough browser lint demo wheel-check api goldens

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -e '.[dev]'
	touch $@

test: $(VENV)/installed lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Programs that speak through the server, from npm and in an environment of their own, about 1 GB.
CLIENTS := .venv-clients
CLIENTS_DIR := tests/server/clients
test-clients: $(VENV)/installed $(CLIENTS)/installed
	if command -v npm >/dev/null; then npm install --silent --no-audit --no-fund --prefix $(CLIENTS_DIR); fi
	CLIENTS_PYTHON=$(CLIENTS)/bin/python $(BIN)/python -m pytest -m "clients or not clients" tests/server/test_clients.py

$(CLIENTS)/installed: $(CLIENTS_DIR)/setup.sh
	PYTHON=$(PYTHON) $(CLIENTS_DIR)/setup.sh $(CLIENTS)
	touch $@

# The studio in a real browser; needs chromium (Debian: apt-get install chromium). STUDIO_PICTURES=docs/pictures keeps the
# pictures of docs/studio.md. The browser plays in real time: what fails on a busy machine is tried once more, and pytest
# counts it as rerun.
test-studio: $(VENV)/installed
	$(BIN)/python -m pytest -m studio --reruns 1 tests/studio

# What the page /browser computes with, from npm into the package (14 MB). OUT=DIR writes the page for any web server too,
# with the encoder of MODEL and the voices of LIBRARY.
browser: $(VENV)/installed
	$(BIN)/python -m convert.browser $(if $(OUT),--output $(OUT)) $(if $(MODEL),--model $(MODEL)) $(if $(LIBRARY),--library $(LIBRARY))

# Proofs that take longer: every example and printed output, the miniature's gates, thousands of pieces.
test-thorough: $(VENV)/installed
	$(BIN)/python -m pytest -m thorough -n 2 --dist loadfile

# The programs in benchmarks/ that measure, kill and compare: what they count, refuse and find.
test-benchmarks: $(VENV)/installed
	$(BIN)/python -m pytest -m benchmarks -n 2 --dist loadfile

# Scripts and recordings on a dask cluster on this machine, one worker of which is killed.
test-cluster: $(VENV)/installed
	$(BIN)/python -m pytest -m cluster tests/cluster

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

demo: $(VENV)/installed
	$(BIN)/python -m mlx_qwen3tts.demo

# Builds sdist and wheel and tries the wheel in a new environment, outside the checkout.
wheel-check:
	$(PYTHON) .ci/wheel_check.py

# docs/api.md, from the docstrings.
api: $(VENV)/installed
	$(BIN)/python -m docs.api

# The outputs of the official package that the parity tests compare with. It runs in an environment of its own, which is
# built first unless QWEN_TTS_PYTHON names the Python of one: make goldens [ONLY="base fine-tune"] [OUT=DIR]
REFERENCE := .venv-reference
ifndef QWEN_TTS_PYTHON
QWEN_TTS_PYTHON := $(REFERENCE)/bin/python
goldens: $(REFERENCE)/installed
endif

goldens: OUT := tests/goldens
goldens: $(VENV)/installed
	$(BIN)/python -m convert.make_goldens --reference-python $(QWEN_TTS_PYTHON) --out $(OUT) $(if $(ONLY),--only $(ONLY))

$(REFERENCE)/installed: convert/reference_env.sh convert/reference_requirements.txt
	PYTHON=$(PYTHON) convert/reference_env.sh $(REFERENCE)
