# Everything runs in .venv, made here on first use. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
THEME ?= animal walking
UNSEEN ?= elephant
PROMPT ?= a red $(UNSEEN) walking in the desert
DEMO := runs/demo
JOBS ?= 1
WORKERS ?= auto
OLDEST_TRITON := 3.6.0
# The oldest PyTorch supported, and the Pythons that the wheel is tried on. PyTorch's own CUDA libraries are several GB each.
OLDEST_TORCH ?= torch==2.7.1
WHEEL_PYTHONS ?= python3.10 python3.12 python3.13
WHEEL := build/wheel
COMPILED := kernels/compiled.csv
COMPILED_ALL := build/compiled-all.csv
COMPILED_PAGE := docs/compiled-kernels.md

.PHONY: help install demo browser test test-slow test-wheel test-oldest wheel lint compile-kernels compile-oldest compile-all lock sdist world clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(INSTALLED): requirements-dev.lock pyproject.toml setup.py CMakeLists.txt $(wildcard csrc/*.*) kernels/cubin.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.lock
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

install: $(INSTALLED) ## make .venv with the locked dependencies and this package

demo: $(INSTALLED) ## finetune the embedded model on clips of one theme, generate an unseen subject
	$(BIN)/rcv finetune --theme "$(THEME)" --exclude-subject $(UNSEEN) --noise autoregressive --steps 600 --output $(DEMO)
	$(BIN)/rcv generate "$(PROMPT)" --adapter $(DEMO) --scale 4 --output $(DEMO)/$(UNSEEN).gif
	@echo "The clips are in $(DEMO)/clips, the generated video is $(DEMO)/$(UNSEEN).gif"

browser: ## Chromium for the tests of the web pages, where it is missing and this is root on Debian (else they are skipped)
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || { \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get -qq update >/dev/null && \
	  DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends chromium >/dev/null; } || \
	  echo "no Chromium, and none could be installed: the tests of the web pages will be skipped"

test: $(INSTALLED) browser ## the tests, slow ones left out, a process and a thread of PyTorch's a core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m "not slow"

test-slow: $(INSTALLED) browser ## the slow tests alone
	$(BIN)/python -m pytest -m slow

wheel: ## the wheel in build/wheel, built in an environment of its own: no CUDA, no GPU
	rm -rf $(WHEEL)/*.whl
	$(PYTHON) -m pip wheel --quiet --no-deps --wheel-dir $(WHEEL) .

test-wheel: wheel ## install the wheel under each of WHEEL_PYTHONS with OLDEST_TORCH, and check it there
	cp tests/installed.py $(WHEEL)
	set -e; for python in $(WHEEL_PYTHONS); do \
	  $$python -m venv $(WHEEL)/$$(basename $$python); \
	  $(WHEEL)/$$(basename $$python)/bin/python -m pip install --quiet $(OLDEST_TORCH) $(WHEEL)/*.whl; \
	  (cd $(WHEEL) && $$(basename $$python)/bin/python installed.py); \
	done

test-oldest: test-wheel ## the operations' tests under OLDEST_TORCH, in the first of WHEEL_PYTHONS
	cd $(WHEEL) && rm -rf tests benchmarks kernels csrc
	cp -r tests benchmarks kernels csrc pyproject.toml $(WHEEL)
	$(WHEEL)/$(notdir $(firstword $(WHEEL_PYTHONS)))/bin/python -m pip install --quiet pytest hypothesis
	cd $(WHEEL) && $(notdir $(firstword $(WHEEL_PYTHONS)))/bin/python -m pytest -m "not slow" \
	  tests/ops tests/kernels/test_attention.py tests/kernels/test_temporal.py tests/kernels/test_scan.py tests/kernels/test_gated.py

lint: $(INSTALLED) ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

build/triton-$(OLDEST_TRITON): | $(INSTALLED)
	$(BIN)/python -m pip install --quiet --no-deps --target $@ triton==$(OLDEST_TRITON)

compile-kernels: $(INSTALLED) ## compile the Triton kernels that changed, for all chips, into the committed table
	$(BIN)/python -m rcv.kernels.compile --update $(COMPILED) --jobs $(JOBS)
	$(BIN)/python -m rcv.kernels.compiled $(COMPILED) > $(COMPILED_PAGE)

compile-oldest: $(INSTALLED) build/triton-$(OLDEST_TRITON) ## the same by the oldest Triton supported
	PYTHONPATH=build/triton-$(OLDEST_TRITON) $(BIN)/python -m rcv.kernels.compile --update $(COMPILED) --jobs $(JOBS)
	$(BIN)/python -m rcv.kernels.compiled $(COMPILED) > $(COMPILED_PAGE)

compile-all: $(INSTALLED) build/triton-$(OLDEST_TRITON) ## check all variants in all dtypes by both Tritons (hours; goes on where it was interrupted)
	test -f $(COMPILED_ALL) || cp $(COMPILED) $(COMPILED_ALL)
	$(BIN)/python -m rcv.kernels.compile --shapes all --check --keep $(COMPILED_ALL) --jobs $(JOBS)
	PYTHONPATH=build/triton-$(OLDEST_TRITON) $(BIN)/python -m rcv.kernels.compile --shapes all --check --keep $(COMPILED_ALL) --jobs $(JOBS)

lock: $(INSTALLED) ## rewrite requirements-dev.lock from what .venv holds
	$(BIN)/python -m pip freeze --exclude-editable --exclude rcv-video | sed 's/^torch==\([0-9.]*\)+.*/torch==\1/' > requirements-dev.lock

sdist: $(INSTALLED) ## source distribution and wheel, in dist/
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m build --no-isolation

world: $(INSTALLED) ## train the embedded model again from its clips (about two hours on one core)
	$(BIN)/rcv world pretrain --output runs/world

clean: ## remove what builds and runs left behind
	rm -rf build dist *.egg-info rcv/csrc runs .pytest_cache .ruff_cache
