# Every command of the project. `make run` and `make test` do all of their own set-up, in .venv.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
LOCK := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header
EXAMPLE ?= examples/quickstart
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
REGISTRY ?= spillway
BUILDER ?= $(shell for b in docker podman buildah; do command -v $$b && break; done)

.PHONY: help run test test-compiled e2e e2e-tools e2e-clean check format crds bench bench-stream bench-profile faults fuzz differential images lock clean

help:  ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | expand -t 16

run: .venv/run.stamp  ## installs, then the whole system on this machine (EXAMPLE=folder for another than the quickstart)
	@exec $(BIN)/spillway run $(EXAMPLE)

test: check  ## installs, then the linters and every test
	$(BIN)/python -m pytest --cov

test-compiled: .venv/dev.stamp  ## the data path's tests on what mypyc makes of it (a C compiler is needed)
	$(BIN)/python images/compiled.py build/compiled
	PYTHONPATH=build/compiled $(BIN)/python -c 'import spillway_sidecar.proxy.attempt as m, sys; sys.exit(not m.__file__.endswith(".so"))'
	PYTHONPATH=build/compiled $(BIN)/python -m pytest tests/integration/proxy

e2e: e2e-tools  ## every test on a real Kubernetes: that of KUBECONFIG, or one made for the run (ARGS="-k chart" for some)
	$(BIN)/python -m pytest e2e --tb=short $(ARGS)

e2e-tools: .venv/dev.stamp  ## builds Kubernetes and downloads the rest, once, into the user's cache folder (Go 1.26; minutes)
	@test -n "$$KUBECONFIG" || $(BIN)/python -m e2e.cluster tools >/dev/null

e2e-clean:  ## removes what e2e-tools made, for all checkouts of this user
	rm -rf "$${XDG_CACHE_HOME:-$$HOME/.cache}/spillway/e2e"

check: .venv/dev.stamp  ## installs, then the linters: style, types, import rules, generated files
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet
	$(BIN)/mypy
	$(BIN)/mypy e2e
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m spillway_operator.api.crdgen crds --check
	$(BIN)/python -m spillway_operator.api.crdchart charts/spillway/templates/crds --check

format: .venv/dev.stamp  ## rewrites the code in the project's style
	$(BIN)/ruff check --fix --quiet
	$(BIN)/ruff format --quiet

crds: .venv/dev.stamp  ## writes crds/*.yaml and the chart's copies from the models
	$(BIN)/python -m spillway_operator.api.crdgen crds
	$(BIN)/python -m spillway_operator.api.crdchart charts/spillway/templates/crds

bench: .venv/run.stamp  ## our proxy against others, side by side (ARGS=--quick for a first look)
	$(BIN)/python -m bench $(ARGS)

bench-stream: .venv/run.stamp  ## the configuration stream at 1,000 proxies and 2,000 endpoints
	$(BIN)/python -m bench.stream.scale $(ARGS)

bench-profile: .venv/run.stamp  ## where our proxy's time goes under load
	$(BIN)/python -m bench.profile $(ARGS)

faults: .venv/dev.stamp  ## what the data path survives: every fault under load, as a table (15 minutes; ARGS="--soak 30" soaks)
	$(BIN)/python -m tests.faults $(ARGS)

fuzz: .venv/dev.stamp build/fuzz.stamp  ## looks for inputs that break what reads other people's bytes (ARGS="--seconds 600" for longer, or names)
	$(BIN)/python -m fuzz --python build/fuzz-venv/bin/python $(ARGS)

differential: .venv/dev.stamp  ## asks nginx and Node about hostile requests, and writes their verdicts down (ARGS="--mutations 20000" for more)
	$(BIN)/python -m fuzz.differential $(ARGS)

build/fuzz.stamp: requirements/fuzz.lock
	$(PYTHON) -m venv build/fuzz-venv
	build/fuzz-venv/bin/python -m pip --disable-pip-version-check --no-input install --quiet --require-hashes -r $<
	@touch $@

images:  ## builds the images with docker, podman or buildah, whichever is there (ARGS="--build-arg BASE=...")
	@test -n "$(BUILDER)" || { echo "docker, podman or buildah is needed to build images; or name another: make images BUILDER=..." >&2; exit 1; }
	for one in operator sidecar cli; do $(BUILDER) build $(ARGS) -f images/$$one.Dockerfile -t $(REGISTRY)/$$one:$(VERSION) . || exit; done

lock: .venv/dev.stamp  ## writes requirements/*.lock anew (ARGS=--upgrade for later versions)
	$(LOCK) pyproject.toml --extra cli --extra build $(ARGS) -o requirements/run.lock
	$(LOCK) pyproject.toml --extra dev $(ARGS) -o requirements/dev.lock
	$(LOCK) pyproject.toml --extra operator -c requirements/run.lock -o requirements/operator.lock
	$(LOCK) pyproject.toml --extra sidecar --extra gpu -c requirements/run.lock -o requirements/sidecar.lock
	for one in requirements/*.in; do $(LOCK) $$one --python-version 3.11 $(ARGS) -o $${one%.in}.lock || exit; done

clean:  ## removes what the commands made
	rm -rf .venv .spillway build bench/out .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later with venv and pip is needed (Debian: apt install python3-venv); or name one: make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/%.stamp: requirements/%.lock pyproject.toml | .venv/bin/python
	$(PIP) install --quiet --require-hashes -r $<
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@
