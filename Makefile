# make serve | demo | test | drill: each sets up .venv first, once, and again when pyproject.toml changed.
SHELL := /bin/bash
PYTHON ?= python3
PIP_FLAGS ?=
# vLLM's CPU build needs a build of torch that only PyTorch's own CPU index has, unless pip already finds one elsewhere.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
EXTRA ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo cuda || echo cpu)
BIN := .venv/bin
READY := .venv/.ready
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: serve demo test lint types drill compatibility peers clean
serve: $(READY)
	$(BIN)/python -m routine_grammar.serve $(ARGS)

demo: $(READY)
	$(BIN)/python -m routine_grammar demo $(ARGS)

test: lint types
	$(PYTEST) $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

drill: $(READY)
	ROUTINE_GRAMMAR_DRILL=1 $(PYTEST) --timeout=7200 $(ARGS)

compatibility: $(READY)
	ROUTINE_GRAMMAR_DRILL=1 $(PYTEST) -n 0 --timeout=7200 --write-compatibility tests/serve/test_compatibility.py $(ARGS)

# The newest peers for `python -m benchmarks compile`, beside those that vLLM wants.
peers: $(READY)
	$(BIN)/python -m pip install $(PIP_FLAGS) --upgrade --no-deps --target .peers llguidance xgrammar

clean:
	rm -rf .venv .peers build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, this is " + sys.version)'
	@echo "== setting up .venv for vLLM on $(EXTRA): some minutes, and about 3 GB"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(PIP_FLAGS) -e '.[$(EXTRA),dev]' \
	  || $(BIN)/python -m pip install $(PIP_FLAGS) --extra-index-url $(TORCH_INDEX) -e '.[$(EXTRA),dev]'
	@echo "== compiling what was installed: it starts twice as fast after it"
	@$(BIN)/python -m compileall -q -j 0 .venv/lib >/dev/null 2>&1 || true
	@$(BIN)/python -m routine_grammar prepare
	@touch $(READY)
