# Two commands do everything on a fresh machine: make demo, make test. Each first makes .venv where it is missing.
# In a machine image that has the packages already, an empty VENV (make demo VENV=) takes its own python3.

VENV ?= .venv
PYTHON := $(if $(VENV),$(VENV)/bin/python,python3)
ACCELERATE := $(PYTHON) -m accelerate.commands.accelerate_cli
READY := $(if $(VENV),$(VENV)/.installed)
READY_DEV := $(if $(VENV),$(VENV)/.installed-dev)

DEMO_DATA ?= data/demo
DEMO_OUTPUT ?= outputs/demo
DEMO_VISION ?= cache/vision
# More flags for the demo's two long steps; the tests run it with fewer clips and epochs.
DEMO_CLIPS ?=
DEMO_TRAINING ?=

# The demo keeps to the project's own folders: nothing of it lands in the user's caches.
export HF_HOME ?= $(CURDIR)/cache/hf
export HF_HUB_DISABLE_TELEMETRY := 1

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench image-check

help:
	@echo "make demo   the whole job on synthetic clips and a small base: clips to answer, no GPU, no network"
	@echo "make test   style, types and tests"
	@echo "make lint   style and types alone"
	@echo "make image-check  the job in the container, as a user who isn't root; skipped where there is no Docker engine"
	@echo "make bench  the 7B at full size with random weights; needs a GPU, see benchmarks/README.md"

$(VENV)/.installed: requirements.txt constraints.txt pyproject.toml
	@python=$$(for candidate in python3.12 python3.11 python3; do \
	    $$candidate -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null \
	    && echo $$candidate && break; done); \
	test -n "$$python" || { echo "error: Python 3.11 or 3.12 is needed; install one of them" >&2; exit 1; }; \
	$$python -m venv $(VENV)
	@echo "setting up $(VENV): 6 GB, some minutes" >&2
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -c constraints.txt
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt requirements-app.txt requirements-serve.txt \
    requirements-dask.txt
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt -c constraints.txt
	@touch $@

demo: $(READY)
	$(PYTHON) data_prep/make_demo_clips.py --out $(DEMO_DATA) $(DEMO_CLIPS)
	$(PYTHON) data_prep/extract_frames.py --data $(DEMO_DATA)
	$(PYTHON) data_prep/build_jsonl.py --data $(DEMO_DATA)
	$(PYTHON) data_prep/push_dataset.py --data $(DEMO_DATA) --repo-id local/safe-unsafe-demo
	$(ACCELERATE) launch --quiet --config_file accelerate_config.yaml recipes/sft_qwen2vl.py \
	    --config recipes/configs/demo_cpu.yaml --output_dir $(DEMO_OUTPUT) \
	    --vision_cache $(DEMO_VISION) --resume $(DEMO_TRAINING)
	$(PYTHON) recipes/eval_qwen2vl.py --adapter $(DEMO_OUTPUT)
	$(PYTHON) recipes/infer.py --adapter $(DEMO_OUTPUT) \
	    --image "$$(ls $(DEMO_DATA)/frames/test/unsafe/*/0000.jpg | head -n 1)"

lint: $(READY_DEV)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

test: lint
	$(PYTHON) -m pytest

bench: $(READY_DEV)
	$(PYTHON) benchmarks/bench_train.py
	$(PYTHON) benchmarks/bench_infer.py

image-check: $(READY_DEV)
	$(PYTHON) -m tests.image.check
