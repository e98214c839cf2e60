SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

VENV := .venv
PYTHON := $(VENV)/bin/python
TESTS ?= tests

# util-linux has setpriv, which tests use to drop permissions; gcc links Go programs with cgo.
TOOLS := python3-venv python3-bpfcc strace
TEST_TOOLS := $(TOOLS) golang-1.19-go gcc libc6-dev util-linux

.PHONY: help venv test-tools demo test test-unit lint bench-overhead bench-throughput bench-start bench-probes bench-snapshot bench-discovery bench-shared bench-soak bench-fleet dashboards clean

help:  ## Show what can be made
	@sed -n 's/^\([a-z-]*\):.*## /  make \1 \t/p' Makefile | expand -t 24

venv:  ## Set up what gomem needs: Debian packages and the virtual environment .venv
	@bash deploy/setup.sh packages $(TOOLS)
	@bash deploy/setup.sh venv $(VENV)

test-tools: venv
	@bash deploy/setup.sh packages $(TEST_TOOLS)
	@$(PYTHON) -m tests.support.toolchains
	@$(PYTHON) -m tests.support.debian prometheus etcd-server prometheus-node-exporter
	@$(PYTHON) -m tests.support.builds

dashboards: venv  ## Write the Grafana dashboards anew
	$(PYTHON) -m deploy.grafana.generate

demo: venv  ## Trace a Go program that grows, frees and scavenges
	@bash deploy/demo.sh $(PYTHON)

test: test-tools lint  ## Run all checks and tests: unit, live, end to end (TESTS=... for some of them)
	@failed=; \
	$(PYTHON) -m pytest --durations=15 -n auto --dist worksteal -m "not alone" $(TESTS) || [ $$? = 5 ] || failed=1; \
	$(PYTHON) -m pytest --durations=15 -m alone $(TESTS) || [ $$? = 5 ] || failed=1; \
	[ -z "$$failed" ]

test-unit: venv  ## Run the tests that need no process
	$(PYTHON) -m pytest -n auto tests/unit

lint: venv  ## Run ruff and mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

bench-overhead: test-tools  ## Measure what tracers cost programs that allocate, serve HTTP, and scavenge
	@bash deploy/setup.sh packages bpftrace
	$(PYTHON) -m tests.bench.overhead

bench-throughput: test-tools  ## Measure how many events a second reach the model without a loss
	$(PYTHON) -m tests.bench.throughput

bench-start: test-tools  ## Measure the time from command to first report
	$(PYTHON) -m tests.bench.start

bench-probes: test-tools  ## Measure what one hit of a probe costs the target
	$(PYTHON) -m tests.bench.probes

bench-snapshot: test-tools  ## Measure the reading of heaps of up to 10 GB: time, bytes, reads, our memory
	$(PYTHON) -m tests.bench.snapshot

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

clean:  ## Remove what was made in this directory
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
