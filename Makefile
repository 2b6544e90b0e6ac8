# Lighter's front door. `make help` lists what there is; CI calls the same targets.
PREFIX  ?= /usr/local
DESTDIR ?=
CACHE   := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/lighter
# One target folder for every checkout: Wasmtime takes a quarter of an hour to build, and is the same in all.
export CARGO_TARGET_DIR ?= $(CACHE)/target
# libseccomp goes into the binaries: nodes need not have it.
export LIBSECCOMP_LINK_TYPE := static
export LIBSECCOMP_LIB_PATH  := $(shell pkg-config --variable=libdir libseccomp 2>/dev/null)
export LIGHTER_COMMIT       := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
RELEASE := $(CARGO_TARGET_DIR)/release
BINARIES := containerd-shim-lighter-v1 lighter-wasmtime lighter-compile

.PHONY: help build install test demo bench lint testbed clean
help: ## What can be made
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Two calls: in one, cargo would unite the features of both, and the runner would carry a compiler.
build: ## Build shim, runner and compiler (release)
	cargo build --release --locked -p lighter-shim -p lighter-wasmtime
	cargo build --release --locked -p lighter-compile

install: build ## Install to DESTDIR and PREFIX (/usr/local): binaries, and the runtimes' names
	install -d $(DESTDIR)$(PREFIX)/bin
	cd $(RELEASE) && install -m 0755 $(BINARIES) $(DESTDIR)$(PREFIX)/bin
	ln -sf containerd-shim-lighter-v1 $(DESTDIR)$(PREFIX)/bin/containerd-shim-wasmtime-v1
