# All commands for developers. The first run of a target makes .venv with the versions in
# constraints.txt and builds the package in place; later runs do only what is out of date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
# on a machine that can build it, C++ that does not compile is an error, not a reason to omit it
CAN_BUILD := $(shell uname -sm | grep -qE "^Linux (x86_64|aarch64)$$" && command -v c++)
export CONTRASTLOSS_NATIVE ?= $(if $(CAN_BUILD),1)
NATIVE := setup.py $(wildcard csrc/* csrc/*/*)

# one worker for each core, one thread in each worker; waiting threads do not spin
PYTEST := OMP_WAIT_POLICY=passive $(BIN)/pytest -n auto --maxprocesses 8 --dist loadgroup
TESTED := $(VENV)/.test $(VENV)/.distributed $(VENV)/.triton $(VENV)/.compat $(VENV)/.vision

.PHONY: help demo test test-all fuzz soak golden api notebooks lint docs analyse bench wheels matrix

help:
	@sed -n 's/^\([a-z-]*\): .*## /  make \1\t/p' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## train on a small data set, no download; LOSS=groco chooses the loss
	$(BIN)/python -m contrastloss demo $(if $(LOSS),--loss $(LOSS))

test: $(TESTED) ## the tests of every change; ARGS="-k clip" narrows them
	$(PYTEST) --budget $(ARGS)

test-all: $(TESTED) ## all tests: also every loss compiled, more sizes, schedules, instruction sets
	$(PYTEST) --budget --extra all $(ARGS)

fuzz: $(VENV)/.test ## random calls compared with dense formulas for SECONDS=60; SEED=n repeats a run
	PYTHONPATH=tests $(BIN)/python -m fuzz --seconds $(or $(SECONDS),60) $(if $(SEED),--seed $(SEED))

soak: $(VENV)/.test ## the same random steps for MINUTES=120: equal results, flat memory; SEED=n draws others
	OMP_WAIT_POLICY=passive PYTHONPATH=tests $(BIN)/python -m soak --minutes $(or $(MINUTES),120) \
	  $(if $(SEED),--seed $(SEED))

golden: $(VENV)/.test ## compare the outputs of every loss with the record, bit by bit; RECORD=1 writes it
	PYTHONPATH=tests $(BIN)/python -m golden $(if $(RECORD),--record)

api: $(VENV)/.test ## compare the public names and signatures with tests/api.txt; RECORD=1 writes it
	$(BIN)/python tests/api.py $(if $(RECORD),--record)

notebooks: $(VENV)/.notebooks ## run docs/notebooks and compare what they print; RECORD=1 stores it
	$(BIN)/python tests/notebooks.py $(if $(RECORD),--record)

lint: $(VENV)/.lint ## check style, types, layout, unsafe calls and generated pages; changes nothing
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive contrastloss setup.py bench docs release
	find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' | sort \
	  | xargs $(BIN)/clang-format --dry-run --Werror
	$(BIN)/python bench/report.py --check
	$(BIN)/python docs/generate.py --check

# from nothing, since warnings (-W: they are errors) are of the pages that are built
docs: $(VENV)/.docs ## build the site into docs/site, without the network, and check it; BROWSER=chromium: in this one
	rm -rf docs/site
	$(BIN)/python -m sphinx -W --keep-going -q -d build/doctrees -E docs docs/site
	$(BIN)/pytest -q tests/test_site.py --site docs/site $(if $(BROWSER),--browser $(BROWSER))

analyse: $(VENV)/.analyse ## search the C++ and CUDA sources for faults with clang-tidy and cppcheck
	PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONPATH=tests $(BIN)/python -m analyse

bench: $(VENV)/.bench $(VENV)/.peers $(VENV)/.compat ## measure speed and memory on this machine; write docs and plots; CHIP=zen4 keeps another chip's results
	$(BIN)/pytest bench --ignore-glob=*bench_topk.py --ignore-glob=*bench_sort.py \
	  --ignore-glob=*bench_adapters.py --benchmark-json=bench/results/cpu$(CHIP:%=-%).json
	$(BIN)/pytest bench/bench_topk.py --benchmark-json=bench/results/topk$(CHIP:%=-%).json
	$(BIN)/pytest bench/bench_sort.py --benchmark-json=bench/results/sort$(CHIP:%=-%).json
	$(BIN)/pytest bench/bench_adapters.py --benchmark-json=bench/results/libraries$(CHIP:%=-%).json
	$(BIN)/python bench/report.py

wheels: $(VENV)/.wheels ## dist/: sdist and wheels, for PYTHONS="python3.12 ..." too; what is built stays
	$(BIN)/python release/wheels.py $(PYTHONS)

matrix: $(VENV)/.torch ## try the wheels in dist/ with releases of torch, Triton, numpy: long, downloads 20 GB
	$(BIN)/python release/matrix.py $(ARGS)

# torch alone and first, so that every later step finds it and its headers
$(VENV)/.torch: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) setuptools wheel ninja pybind11 numpy
	touch $@

# pip runs ninja, which compiles what changed
$(VENV)/.native: $(VENV)/.torch $(NATIVE)
	$(PIP) --no-build-isolation -e .
	touch $@

# without their dependencies, which would install another torch; contrastloss/bench/peers.py needs none
$(VENV)/.peers: $(VENV)/.torch
	$(PIP) --no-deps pytorch-metric-learning lightly info-nce-pytorch open_clip_torch faiss-cpu \
	  diffsort solo-learn
	touch $@

# Torchvision's wheel is for a torch with CUDA. With one for CPUs it does not import as it is, and
# neither do transformers beside it, so it lies where only tests/compat looks for it.
$(VENV)/.vision: $(VENV)/.compat
	$(PIP) --no-deps --upgrade --target $(VENV)/vision torchvision timm open_clip_torch lightly
	touch $@

# what an extra has in addition: the package itself is there, in place
$(VENV)/.%: $(VENV)/.torch | $(VENV)/.native
	$(PIP) 'contrastloss[$*]'
	touch $@
