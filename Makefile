# Each target does its own set-up, in .venv; the second time that takes less than a second.
#
#   make demo      builds, and shows two hosts, a cable, and a cut; then two tiers of mirrors
#   make test      the whole test suite; ARGS="-n 2 -k pair" are more arguments for pytest
#   make lint      ruff and mypy
#   make bench     the figures of docs/benchmarks.md
#   make sanitize  the native tests against programs built with AddressSanitizer and UndefinedBehaviorSanitizer
#   make build     .venv and the native programs only
#   make clean     removes all of that
ARGS ?=
PYTEST := .venv/bin/python -m pytest
SETUP := pyproject.toml preload/hatch_build.py .ci/setup

# A copy of a checkout brings a .venv along that points at the original.
ifneq ($(shell cat .venv/.root 2>/dev/null),$(CURDIR))
SETUP += moved
endif

.NOTPARALLEL:
.PHONY: help build demo test lint bench sanitize native clean moved
help:
	@sed -n 's/^#   //p' Makefile

build: .venv/.test native

.venv/.test: $(SETUP)
	@.ci/setup test
	@touch $@

.venv/.lint .venv/.bench: .venv/.%: $(SETUP)
	@.ci/setup test $*
	@touch $@ .venv/.test

# After .venv, since its set-up checks the compiler, installs it where it may, and compiles a first time.
native: .venv/.test
	@$(MAKE) --no-print-directory -s -C preload

demo: build
	$(PYTEST) --poor-container docs/examples/demo docs/examples/mirror -v -p no:randomly $(ARGS)

test: build
	$(PYTEST) $(ARGS)

lint: .venv/.lint
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

bench: build .venv/.bench
	.venv/bin/python tests/benchmarks $(ARGS)

sanitize: build
	@$(MAKE) --no-print-directory -s -C preload SAN=1 OUT=$(CURDIR)/build/sanitize
	COW_EXAMPLES=$${COW_EXAMPLES:-200} POOR_CONTAINER_NATIVE=$(CURDIR)/build/sanitize $(PYTEST) tests/native $(ARGS)

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis pytest_poorcontainer/_native
