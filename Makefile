SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

VENV := .venv
PYTHON := $(VENV)/bin/python
TESTS ?= tests

ISSUE_FORMS := $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))

# qemu and busybox are for the machines with other kernels.
KERNEL_TOOLS := qemu-system-x86 busybox-static
# util-linux has setpriv, which tests use to drop permissions; gcc links Go programs with cgo; chromium shows pages.
TOOLS := python3-venv python3-bpfcc strace
TEST_TOOLS := $(TOOLS) $(KERNEL_TOOLS) chromium chromium-driver golang-1.19-go gcc libc6-dev musl-tools util-linux

.PHONY: help man venv test-tools examples demo test test-unit test-kernels lint format hooks wheel docs bench-overhead bench-throughput bench-start bench-probes bench-tax bench-snapshot bench-discovery bench-shared bench-soak bench-fleet bench-top bench-attack bench-profile cases dashboards protobuf clean

help:  ## Show what can be made
	@sed -n 's/^\([a-z-]*\):.*## /  make \1 \t/p' Makefile | expand -t 24

venv:  ## Set up what gomem needs: Debian packages and the virtual environment .venv
	@bash deploy/setup.sh packages $(TOOLS)
	@bash deploy/setup.sh venv $(VENV)

test-tools: venv
	@bash deploy/setup.sh packages $(TEST_TOOLS)
	@$(PYTHON) -m tests.support.toolchains
	@$(PYTHON) -m tests.support.debian prometheus etcd-server prometheus-node-exporter
	@$(PYTHON) -m tests.kernels.debian 6.1
	@$(PYTHON) -m tests.support.builds

dashboards: venv  ## Write the Grafana dashboards anew
	$(PYTHON) -m deploy.grafana.generate

man: venv  ## Write the man pages, made of --help, into build/man
	$(PYTHON) -m deploy.man build/man

protobuf: venv  ## Write what is generated from exporters/pprof/profile.proto anew
	$(PYTHON) -m grpc_tools.protoc -I . --python_out=. --pyi_out=. gomem/exporters/pprof/profile.proto

examples: test-tools  ## Write the example pages of docs/examples, and the README's picture, anew
	$(PYTHON) -m tests.support.examples

demo: venv  ## Trace a Go program that grows, frees and scavenges
	@bash deploy/demo.sh $(PYTHON)

# What fails is tried once more when all else is done, by a process of its own. Not if it left something behind.
test: test-tools lint docs  ## Run all checks and tests: unit, live, end to end (TESTS=... for some of them)
	@again=; failed=; \
	run() { $(PYTHON) -m pytest --durations=15 "$$@" $(TESTS) || case $$? in 1) again=1 ;; 5) ;; *) failed=1 ;; esac; }; \
	run --cache-clear -n auto --dist worksteal -m "not alone"; \
	run -m alone; \
	[ -z "$$failed" ]; \
	[ -z "$$again" ] || $(PYTHON) -m pytest --last-failed --maxfail 5 $(TESTS)

test-unit: venv  ## Run the tests that need no process
	$(PYTHON) -m pytest -n auto tests/unit

test-kernels: test-tools  ## Try gomem on Debian's other kernels, and write docs/support.md (KERNELS="5.10 6.1" for some of them)
	$(PYTHON) -m tests.kernels $(KERNEL_OPTIONS) $(KERNELS)

cases: test-tools  ## Try what people have asked in public, and write docs/cases.md (CASES="1761 free-runs" for some; GO=1.19: of that release, stripped)
	$(PYTHON) -m tests.cases $(CASES) $(if $(GO),--go $(GO))

lint: venv  ## Check code, scripts, workflows and issue forms; run mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check --quiet .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/shellcheck .ci/run deploy/*.sh
	$(VENV)/bin/actionlint -shellcheck $(VENV)/bin/shellcheck
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.github-issue-forms $(ISSUE_FORMS)
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(VENV)/bin/mypy

format: venv  ## Give all code its format
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

hooks: venv  ## Have git check each commit (ruff, mypy)
	$(VENV)/bin/pre-commit install

wheel: venv  ## Build the wheel into dist/
	rm -rf build/lib build/bdist.*
	$(PYTHON) -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

docs: venv  ## Build the documents as a site into build/docs
	$(VENV)/bin/mkdocs build --quiet --strict

bench-overhead: test-tools  ## Measure what tracers cost programs that allocate, serve HTTP, and scavenge
	@bash deploy/setup.sh packages bpftrace
	$(PYTHON) -m tests.bench.overhead

bench-throughput: test-tools  ## Measure how many events a second reach the model without a loss
	$(PYTHON) -m tests.bench.throughput

bench-start: test-tools  ## Measure the time from command to first report
	$(PYTHON) -m tests.bench.start

bench-probes: test-tools  ## Measure what one hit of a probe costs the target
	$(PYTHON) -m tests.bench.probes

bench-tax: test-tools  ## Measure what following a process costs the system calls of all (KERNELS="6.1 6.12": in virtual machines)
	$(PYTHON) -m tests.bench.tax $(KERNELS)

bench-allocs: test-tools  ## Measure what counting allocations in bursts costs, and how near its estimates are
	$(PYTHON) -m tests.bench.allocs

bench-snapshot: test-tools  ## Measure the reading of heaps of up to 10 GB: time, bytes, reads, our memory
	$(PYTHON) -m tests.bench.snapshot

bench-profile: test-tools  ## Measure what gomem profile takes of us, and what it costs the process
	$(PYTHON) -m tests.bench.profiles

bench-shared: test-tools  ## Measure what following many processes costs them, others, and us
	$(PYTHON) -m tests.bench.shared

bench-discovery: test-tools  ## Measure what it costs to know which Go processes there are
	$(PYTHON) -m tests.bench.discovery

bench-scrape: test-tools  ## Measure what a scrape of 100 processes takes
	$(PYTHON) -m tests.bench.scrape

bench-soak: test-tools  ## See whether gomem serve stays as it is in 45 minutes of churn
	$(PYTHON) -m tests.bench.soak

bench-fleet: test-tools  ## Measure what following 50 processes costs: CPU, memory, scrapes
	$(PYTHON) -m tests.bench.fleet

bench-top: test-tools  ## Measure what gomem top costs with 20 processes: CPU, memory
	$(PYTHON) -m tests.bench.top

bench-attack: test-tools  ## Attack gomem: kills, stops, mutants, floods, lies; see what targets and scrapers feel of it
	$(PYTHON) -m tests.bench.attack

clean:  ## Remove what was made in this directory
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
