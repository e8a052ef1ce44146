# SPDX-License-Identifier: Apache-2.0
# Everything a fresh machine needs is made by the target that needs it; a second call does only what changed.
#
#   make demo PYTHON=python3.12          another interpreter
#   make test TORCH='torch>=2.10'        another torch than the CPU build (see below)
#   make test PYTEST_ARGS='-k darts -x'  some tests

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# If PYTHON has a torch, the environment borrows it. Otherwise Linux gets the CPU build: a plain `torch` of PyPI would
# download gigabytes of CUDA libraries there. The local version "+cpu" exists on CPU indexes only, so the first attempt
# (the indexes pip is configured for) finds a CPU build or nothing, and the second asks pytorch.org.
TORCH ?= $(if $(filter Linux,$(shell uname -s)),torch==2.13.0+cpu,torch>=2.10)
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PYTEST_ARGS ?=

BUILD_TOOLS := "setuptools>=77" "cmake>=3.25" ninja "pybind11>=2.13"
NATIVE := pyproject.toml setup.py CMakeLists.txt $(wildcard _build/*.py cmake/* csrc/*.cpp $(addprefix csrc/*/*,.cpp .h .cu .cuh))

.PHONY: help demo table1 table2 table3 table4 test gpu-check bench bench-quick lint format clean
.DEFAULT_GOAL := help

help:  ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/installed $(VENV)/demo-table  ## NAS-Bench-201 from cells to searches, HTML in demo-out/ (under 3 minutes)
	$(BIN)/arch2vec-fast demo --out demo-out

table1: $(VENV)/installed  ## Table 1 of the paper, three spaces x five methods: hours on a CPU, resumable
	$(BIN)/arch2vec-fast table1 --out table1

table2: $(VENV)/installed  ## Table 2, searches of NAS-Bench-101 (ARCH2VEC_DATA): days on a CPU, resumable
	$(BIN)/arch2vec-fast table2 --out table2

table3: $(VENV)/installed  ## Table 3, searches of NAS-Bench-201 on three data sets: days, resumable
	$(BIN)/arch2vec-fast table3 --out table3

table4: $(VENV)/darts-tools  ## Table 4, the DARTS space, at a scale for a laptop, resumable
	$(BIN)/arch2vec-fast table4 --out table4

test: $(VENV)/test-tools $(VENV)/demo-table  ## the whole test suite (ARCH2VEC_DATA names the folder of benchmark tables)
	$(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)

bench: $(VENV)/bench-tools  ## measure on an idle machine (about a quarter of an hour); MACHINE=name REFERENCE=clone
	$(BIN)/python -m pytest bench $(if $(MACHINE),--machine $(MACHINE)) $(if $(REFERENCE),--reference $(REFERENCE))

bench-quick: $(VENV)/bench-tools  ## every benchmark at a small size, nothing kept (1 minute)
	$(BIN)/python -m pytest bench --quick $(PYTEST_ARGS)

lint: $(VENV)/lint-tools  ## what CI checks without running anything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $$(git ls-files '*.cpp' '*.h' '*.hpp' '*.cu' '*.cuh')

format: $(VENV)/lint-tools  ## rewrite sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files '*.cpp' '*.h' '*.hpp' '*.cu' '*.cuh')

# Not the environment of .venv: this interpreter's own torch with CUDA, no installation, no network.
gpu-check:  ## on a machine with a GPU: build in place, tests, sanitizer, benchmarks; SECTIONS="build tests" runs some
	$(PYTHON) -m bench.gpu.check $(SECTIONS)

clean:  ## remove builds and the environment, keep results
	rm -rf build dist *.egg-info $(VENV) arch2vec_fast/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/torch:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 needed, $(PYTHON) is " + sys.version.split()[0] + "; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(PYTHON) _build/borrow_torch.py $(VENV) || $(PIP) install -q '$(TORCH)' 2>/dev/null \
	  || $(PIP) install '$(TORCH)' --index-url $(TORCH_INDEX)
	@touch $@

$(VENV)/installed: $(VENV)/torch $(NATIVE)
	$(PIP) install -q $(BUILD_TOOLS)
	$(PIP) install -q --no-build-isolation -e '.[report]'
	@touch $@

# Accuracies for the searches of the demo, and for the test of their table; without them both say so. Only the data file of the package
# is read, so what it depends on (pandas) stays away.
$(VENV)/demo-table: $(VENV)/installed
	@$(PIP) install -q --no-deps 'analog-nasbench==0.1.3' && touch $@ \
	  || echo "analog-nasbench could not be installed: the demo will not search"

# The extras of what is installed already: nothing is built again and the package is not looked for elsewhere.
$(VENV)/test-tools: $(VENV)/installed
	$(PIP) install -q 'arch2vec-fast[test]'
	@touch $@

$(VENV)/darts-tools: $(VENV)/installed
	$(PIP) install -q 'arch2vec-fast[darts]'
	@touch $@

$(VENV)/bench-tools: $(VENV)/installed
	$(PIP) install -q 'arch2vec-fast[bench]'
	@touch $@

$(VENV)/lint-tools: $(VENV)/installed
	$(PIP) install -q 'arch2vec-fast[test,lint]'
	@touch $@
