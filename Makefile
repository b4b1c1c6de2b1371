# One environment, pinned, for everything: made at the first call, checked at every other.
# `make help` lists the targets.

PYTHON ?= python3
CORPORA ?= ../shared/corpora
# Options for pip, such as a mirror, or torch without CUDA:
#   make demo PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_FLAGS ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# After installing nothing calls out. Site processes run side by side: more than one thread in each
# makes them wait for one another.
export HF_HUB_OFFLINE := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION := 1
export RAY_USAGE_STATS_ENABLED := 0
export TOKENIZERS_PARALLELISM := false
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help install demo open-corpora privacy privacy-open-corpora test lint clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-21s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## make the environment in .venv

$(INSTALLED): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "error: $(PYTHON) is missing or older than Python 3.11;" \
	        "name another: make PYTHON=python3.11 ..." >&2; exit 1; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); \
	    echo "error: $(PYTHON) cannot make an environment" \
	        "(on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@echo "installing into $(VENV): 2 to 3 minutes and about 2.1 GB"
	@# The build backends (ours, and what builds dependencies that come as source alone) come first and
	@# are used as they are, so that they are pinned too.
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt hatchling editables \
	    setuptools wheel
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -c constraints.txt \
	    --no-build-isolation -e '.[dev,simulation]'
	@touch $@

demo: $(INSTALLED) ## federate three synthetic hospitals and compare: minutes, runs/demo
	@# What is finished makes room and is kept once; what was interrupted goes on.
	@if [ -e runs/demo/scores.json ]; then \
	    rm -rf runs/demo.previous && mv runs/demo runs/demo.previous && \
	    echo "the run of before is now runs/demo.previous"; fi
	$(BIN)/fedmedlora run studies/demo.yaml --out runs/demo
	$(BIN)/fedmedlora report runs/demo

open-corpora: $(INSTALLED) ## the same on open clinical corpora (CORPORA=folder), runs/open-corpora
	$(BIN)/fedmedlora run studies/open-corpora.yaml --out runs/open-corpora \
	    --set 'root=$(abspath $(CORPORA))'
	$(BIN)/fedmedlora report runs/open-corpora

privacy: $(INSTALLED) ## F1 and leakage against epsilon, synthetic hospitals, three seeds
	$(BIN)/fedmedlora run studies/privacy.yaml --out runs/privacy
	$(BIN)/python benchmarks/privacy.py runs/privacy
	$(BIN)/fedmedlora report runs/privacy

privacy-open-corpora: $(INSTALLED) ## F1 against epsilon on open clinical corpora (CORPORA=folder), three seeds
	$(BIN)/fedmedlora run studies/privacy-open-corpora.yaml --out runs/privacy-open-corpora \
	    --set 'root=$(abspath $(CORPORA))'
	$(BIN)/fedmedlora report runs/privacy-open-corpora

test: $(INSTALLED) ## all tests
	$(BIN)/python -m pytest

lint: $(INSTALLED) ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

clean: ## remove the environment and all caches; runs stay
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find src tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
