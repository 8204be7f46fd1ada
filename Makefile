# Everything a person or CI runs. `make` alone prints the targets.
# Needs Linux x86-64, git, make and Python 3.11 with venv (tools/probe.py looks); no compiler. Everything else comes
# through uv from the committed locks.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3.11
SEED ?= 0
BENCH ?=
FAULTS ?=
# What `make test` runs; `make test-all` leaves nothing out.
SELECT ?= -m "not nightly"
# Tests with servers that mostly wait, two at a time.
WAITING := tests/e2e tests/kubernetes tests/serving/predictor tests/serving/rollout/cluster
# Tests that measure live traffic or load the machine: one at a time.
LIVE := tests/benchmarks $(addprefix tests/serving/rollout/,traffic local reporting/test_commands.py test_rollout.py)
UV := .uv/bin/uv
LOCKS := components/locks
# Wheels, but for the few pure Python packages that pyproject.toml names; what builds those is locked too.
INSTALL := $(UV) pip install -q --build-constraints $(LOCKS)/build.txt
# $(call probe,GB): one line about what is missing, before a rule fails with many.
define probe
@command -v $(PYTHON) >/dev/null || { echo "make: expected $(PYTHON) on the PATH, found none; install Python 3.11 with venv (Debian 12: apt-get install python3-venv) or set PYTHON=/path/to/python3.11" >&2; exit 2; }
@$(PYTHON) tools/probe.py --free-gb $(1)
endef
# torch: the build for this machine (CPU or CUDA), or the wheels that PIP_FIND_LINKS names.
TORCH_BACKEND ?= auto
TORCH := $(if $(PIP_FIND_LINKS),--find-links "$(PIP_FIND_LINKS)",--torch-backend $(TORCH_BACKEND)) "torch==2.13.0"

.PHONY: help demo test test-all cluster-test lint bench faults compile docs comment picture minimal images ui dist contrib clean doctor dev hooks lock setup

help: ## Print the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 12

demo: setup ## Run the main job: four deliveries of real digits and a thief, one report (SEED=0)
	@exec .venv/bin/python -m holdfast demo --seed $(SEED)

test: setup .venv-seldon/.done lint ## Run the tests, linters and type checks (within 25 minutes)
	@$(MAKE) .venv-docs/.done || echo "make: the tests of the documentation's site are skipped: zensical is not here" >&2
	.venv/bin/python -m pytest $(SELECT) -n 2 --dist loadscope --ignore tests/data $(patsubst %,--ignore %,$(WAITING) $(LIVE))
	.venv-data/bin/python -m pytest $(SELECT) -n 2 --dist loadscope tests/data
	.venv/bin/python -m pytest $(SELECT) -n 2 --dist loadscope $(WAITING)
	.venv/bin/python -m pytest $(SELECT) $(LIVE)

test-all: ## Run them with the tests marked nightly, as CI does every night
	@$(MAKE) test SELECT=

cluster-test: setup ## Run jobs and services of manifests/ on a node with a kubelet (root, podman; tools/node-binaries)
	@tools/private-namespaces .venv/bin/python -m pytest -n 0 -rs tests/node

lint: setup ## Run the linters, the type checker and the measures of the code (tools/house.py)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports --no-cache --no-logo
	.venv/bin/python tools/house.py
	.venv/bin/mypy

bench: setup .venv/.peers .venv-seldon/.done ## Run the benchmarks, side by side with the peers (BENCH="attacks smoothing")
	.venv/bin/python -m benchmarks $(BENCH)

faults: setup ## Inject every fault of docs/reliability.md, in virtual time and into real processes
	.venv/bin/python -m benchmarks.faults $(FAULTS)

compile: setup ## Generate manifests/: compiled pipelines and JSON schemas
	.venv/bin/python -m holdfast compile
	.venv/bin/python -m holdfast schemas

dist: | $(UV) ## Build the wheel and the source archive into dist/, with the locked hatchling
	rm -rf dist
	$(UV) build -q --build-constraints $(LOCKS)/build.txt --require-hashes --out-dir dist
	@rm -f dist/.gitignore && ls dist

contrib: setup ## Render every step as kubeflow/pipelines-components asks for it, into build/contrib, and check it
	.venv/bin/python tools/contrib.py build/contrib

docs: .venv-docs/.done ## Build the documentation as a site; a link that leads nowhere fails
	@.venv-docs/bin/python tools/build_docs.py

comment: .venv-docs/.done ## Install only what `holdfast pr-comment` takes

picture: setup ## Take the README's picture, docs/report.png, from the report of make demo (chromium)
	.venv/bin/python tools/picture.py .holdfast/demo/report.html docs/report.png

minimal: ## Run make demo where nothing is but what README lists: a fresh Debian, no compiler (root, debootstrap)
	tools/minimal-system make demo SEED=$(SEED)

images: ## Build the images of the steps (ENGINE=podman BASE=... REGISTRY=localhost TAG=... TORCH=cpu; tools/build-images)
	@tools/build-images

ui: setup ## Open the MLflow UI on what the demo registered
	.venv/bin/mlflow ui --backend-store-uri sqlite:///.holdfast/demo/mlflow.db --host 127.0.0.1 --port 5000

doctor: setup ## Print what is installed and which step runs where
	@.venv/bin/python -m holdfast doctor

dev: ## Print what a contributor needs: set up, test a part, lint, read
	@$(PYTHON) tools/dev.py

hooks: .venv/.hooks ## Install the checks that git runs before each commit (.pre-commit-config.yaml)
	.venv/bin/pre-commit install

clean: ## Remove what runs and checks left behind (not the environments)
	rm -rf .holdfast .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks dist build
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

setup: .venv/.done .venv-data/.done

$(UV):
	$(call probe,6)
	$(PYTHON) -m venv .uv
	.uv/bin/pip install -q --require-hashes --no-deps --only-binary :all: -r $(LOCKS)/uv.txt

.venv/.done: $(LOCKS)/dev.txt $(LOCKS)/build.txt pyproject.toml | $(UV)
	$(call probe,2)
	$(UV) venv -q --clear --python $(PYTHON) .venv
	$(INSTALL) --python .venv --require-hashes --no-deps -r $(LOCKS)/dev.txt
	$(INSTALL) --python .venv $(TORCH)
	$(INSTALL) --python .venv --no-deps -e .
	.venv/bin/python -W ignore -m holdfast.warm bytecode
	@touch $@

# Without their dependencies: torchattacks asks for a torchvision that fits no CPU build and for an old requests.
.venv/.peers: $(LOCKS)/peers.txt .venv/.done
	$(INSTALL) --python .venv --require-hashes --no-deps -r $(LOCKS)/peers.txt
	@touch $@

.venv/.hooks: $(LOCKS)/hooks.txt .venv/.done
	$(INSTALL) --python .venv --require-hashes --no-deps -r $(LOCKS)/hooks.txt
	@touch $@

.venv-data/.done: $(LOCKS)/data-dev.txt $(LOCKS)/build.txt pyproject.toml | $(UV)
	$(call probe,3)
	$(UV) venv -q --clear --python $(PYTHON) .venv-data
	$(INSTALL) --python .venv-data --require-hashes --no-deps -r $(LOCKS)/data-dev.txt
	$(INSTALL) --python .venv-data --no-deps -e .
	.venv-data/bin/python -W ignore -m holdfast.warm bytecode
	@touch $@

# Only tests and benchmarks need it: seldon-core's pins (numpy 1, protobuf 3) fit no other environment.
.venv-seldon/.done: $(LOCKS)/seldon.txt $(LOCKS)/build.txt pyproject.toml | $(UV)
	$(call probe,1)
	$(UV) venv -q --clear --python $(PYTHON) .venv-seldon
	$(INSTALL) --python .venv-seldon --require-hashes --no-deps -r $(LOCKS)/seldon.txt
	$(INSTALL) --python .venv-seldon $(TORCH)
	$(INSTALL) --python .venv-seldon --no-deps -e .
	@touch $@

# The command line's own packages and zensical: the site needs no step's libraries.
.venv-docs/.done: $(LOCKS)/docs.txt $(LOCKS)/build.txt pyproject.toml | $(UV)
	$(call probe,1)
	$(UV) venv -q --clear --python $(PYTHON) .venv-docs
	$(INSTALL) --python .venv-docs --require-hashes --no-deps -r $(LOCKS)/docs.txt
	$(INSTALL) --python .venv-docs --no-deps -e .
	@touch $@

# torch stays out of the locks: its hash differs from build to build (CPU, CUDA); its own dependencies are locked.
LOCK := $(UV) pip compile pyproject.toml -q --python-version 3.11 --python-platform x86_64-manylinux_2_31 \
	--generate-hashes --no-emit-package torch --no-header --no-annotate $(if $(PIP_FIND_LINKS),--find-links "$(PIP_FIND_LINKS)",--torch-backend cpu)

lock: | $(UV) ## Resolve the locks again
	$(LOCK) --extra model --extra serving --extra pipelines --extra vault --extra keyless --group dev --group foreign -o $(LOCKS)/dev.txt
	$(LOCK) --extra data --extra sources-s3 --extra sources-sql --group tensorflow --group dev -o $(LOCKS)/data-dev.txt
	$(LOCK) --extra data --extra sources-s3 --extra sources-sql --group tensorflow -c $(LOCKS)/data-dev.txt -o $(LOCKS)/data.txt
	$(LOCK) --extra model -c $(LOCKS)/dev.txt -o $(LOCKS)/model.txt
	$(LOCK) --extra serving -c $(LOCKS)/dev.txt -o $(LOCKS)/serving.txt
	$(LOCK) --extra seldon -o $(LOCKS)/seldon.txt
	$(LOCK) --group hooks -c $(LOCKS)/dev.txt -o $(LOCKS)/hooks.txt
	$(LOCK) --group docs -c $(LOCKS)/dev.txt -o $(LOCKS)/docs.txt
	printf '%s\n' "torch==2.13.0" | $(UV) pip compile - -q --python-version 3.11 --python-platform x86_64-manylinux_2_31 \
		--generate-hashes --no-header --no-annotate -c $(LOCKS)/dev.txt -o $(LOCKS)/torch-cuda.txt
	printf '%s\n' "uv==0.13.8" | $(UV) pip compile - -q --python-version 3.11 --generate-hashes --no-header --no-annotate -o $(LOCKS)/uv.txt
	printf '%s\n' "hatchling>=1.27" setuptools wheel | $(UV) pip compile - -q --python-version 3.11 --generate-hashes --no-header --no-annotate -o $(LOCKS)/build.txt
	sed -n '/^peers = /,/^]/s/^ *"\(.*\)",.*/\1/p' pyproject.toml | $(UV) pip compile - -q --no-deps --generate-hashes --no-header --no-annotate -o $(LOCKS)/peers.txt
