# make demo: bundled weights -> ONNX -> pictures with boxes in out/demo/
# make test: the test suite, lint and types; make test-all: the tests that take minutes
# make native: the native libraries into plugins/lib/; needs a C++ compiler
# All that they need goes into .venv here; nothing is installed outside.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Two processes with a thread each: half of the time is spent in exports, which use one core.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile
# A new sub-package needs a new install: the packages' __init__.py count as inputs.
INPUTS := pyproject.toml setup.py constraints.txt $(wildcard */__init__.py */*/__init__.py)
WHEEL := build/wheel
NATIVE := build/native
CMAKE ?= $(shell command -v cmake || echo $(BIN)/cmake)
COMPILER := $(strip $(foreach name,c++ g++ clang++,$(shell command -v $(name) 2>/dev/null)))
NATIVE_FOLDERS := plugins/src plugins/src/* tests/plugins tests/plugins/native \
	tests/plugins/native/cuda tests/plugins/native/tensorrt examples/c
C_FILES = $(wildcard $(foreach kind,h c cpp cu cuh,$(addsuffix /*.$(kind),$(NATIVE_FOLDERS))))

.PHONY: demo native native-if-possible test test-all lint types format clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo
	$(BIN)/cn2 demo --out out/demo

# What is found decides what is built, and the end of the configure step says so.
native: $(filter $(BIN)/cmake,$(CMAKE))
	-@$(PYTHON) plugins/fetch_headers.py
	-@$(PYTHON) plugins/fetch_tensorrt.py
	$(CMAKE) -S plugins -B $(NATIVE) $(if $(shell command -v ninja 2>/dev/null),-G Ninja) \
		-DCMAKE_INSTALL_LIBDIR=lib $(if $(CI),-DCN2_WERROR=ON)
	$(CMAKE) --build $(NATIVE) --parallel $(shell getconf _NPROCESSORS_ONLN)
	$(CMAKE) --install $(NATIVE) --prefix plugins --component runtime

native-if-possible: $(if $(COMPILER),native)
	@$(if $(COMPILER),,echo "no C++ compiler: no native libraries, and their tests are skipped" >&2)

test: $(VENV)/.dev native-if-possible
	$(PYTEST) -m "not slow"
	$(MAKE) --no-print-directory lint types

test-all: $(VENV)/.dev native-if-possible
	$(PYTEST) -m slow

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(C_FILES)

# The type check runs on an installed wheel: mypy does not follow an editable install's import hook.
types: $(VENV)/.dev
	rm -rf $(WHEEL) build/lib build/bdist.*
	CN2_NATIVE=0 $(PIP) --no-deps --no-build-isolation --target $(WHEEL) .
	MYPYPATH=$(WHEEL) $(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(C_FILES)

$(BIN)/cmake: | $(VENV)/bin/python
	$(PIP) cmake

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(INPUTS) | $(VENV)/bin/python
	@echo "installing into $(VENV): some minutes the first time" >&2
	$(PIP) 'setuptools>=77'
	$(PIP) --no-build-isolation --editable '.[cpu,eval,export]'
	@touch $@

$(VENV)/.dev: $(INPUTS) | $(VENV)/bin/python
	@echo "installing into $(VENV): some minutes the first time" >&2
	$(PIP) 'setuptools>=77'
	$(PIP) --no-build-isolation --editable '.[dev]'
	$(PIP) --no-deps lvis  # its opencv-python would overwrite the headless one; the tests need none
	@touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) build dist out *.egg-info plugins/lib plugins/third_party
