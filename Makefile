# Lighter's front door. `make help` lists what there is; CI calls the same targets.
PREFIX  ?= /usr/local
CACHE   := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/lighter
# One target folder for every checkout: Wasmtime takes a quarter of an hour to build, and is the same in all.
export CARGO_TARGET_DIR ?= $(CACHE)/target
# libseccomp goes into the binaries: nodes need not have it. Looked for late: `packages` may install it first.
export LIBSECCOMP_LINK_TYPE := static
export LIBSECCOMP_LIB_PATH   = $(shell pkg-config --variable=libdir libseccomp 2>/dev/null)
export LIGHTER_COMMIT       := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
STAGE   := $(CACHE)/stage
RESIDENT := lighter-wamr lighter-native
BINARIES := $(addprefix resident/,containerd-shim-lighter-v1 $(RESIDENT)) serving/lighter-wasmtime \
  $(addprefix release/,lighter-compile lighter-fetch lighter-node lighter)
# What runs on nodes needs nothing of theirs, starts faster without a loader, and is the same in the installer's image. Where a crate
# asks for libm as a shared library, lld would have symbols that are defined nowhere looked up, and called.
STATIC  := -C target-feature=+crt-static -C link-arg=-Wl,-z,nodynamic-undefined-weak

.PHONY: help build wasmedge install installer install-stage packages test test-v2 test-k8s demo bench scale bench-k8s fuzz lint testbed clean
help: ## What can be made
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Several calls: in one, cargo would unite the features of all, and the runner would carry a compiler. `lighter` looks names up by the node's
# own modules, which have to fit its C library: it is linked to that.
build: ## Build shim, runners, compiler, fetcher and the CLI
	cargo rustc --profile resident --locked -p lighter-shim --bin containerd-shim-lighter-v1 -- $(STATIC)
	set -e; for name in $(RESIDENT); do cargo rustc --profile resident --locked -p $$name --bin $$name -- $(STATIC); done
	cargo rustc --profile serving --locked -p lighter-wasmtime --bin lighter-wasmtime -- $(STATIC)
	set -e; for name in lighter-compile lighter-fetch lighter-node; do cargo rustc --release --locked -p $$name --bin $$name -- $(STATIC); done
	cargo build --release --locked -p lighter

# A workspace of its own: it links a library that few have. Its headers come from the package of the release that fits.
wasmedge: packages ## Build the runner on WasmEdge as well; `make install` takes it along
	sdk=$$(cargo run --locked -q -p lighter-tests --bin testbed -- wasmedge-sdk) && cd runtimes/wasmedge && env $$sdk cargo build --release --locked

install: build ## Install to DESTDIR and PREFIX (/usr/local): binaries, and the runtimes' names
	install -d $(DESTDIR)$(PREFIX)/bin
	cd $(CARGO_TARGET_DIR) && install -m 0755 $(BINARIES) $(DESTDIR)$(PREFIX)/bin
	cd $(CARGO_TARGET_DIR)/release && for file in lighter-wasmedge lighter-compile-wasmedge; do [ ! -e $$file ] || install -m 0755 $$file $(DESTDIR)$(PREFIX)/bin; done
	for name in wasmtime wasmedge wamr; do ln -sf containerd-shim-lighter-v1 $(DESTDIR)$(PREFIX)/bin/containerd-shim-$$name-v1; done

installer: packages ## Write the node installer's image, for `lighter load` or `docker load` (INSTALLER=ghcr.io/me/lighter-node:1)
	$(MAKE) install DESTDIR=$(CACHE)/installer
	cargo run --locked -q -p lighter-tests --bin testbed -- installer $(or $(INSTALLER),lighter-node:dev) $(CACHE)/installer/usr/local/bin $(CACHE)/installer.tar

# Debian's packages that the build needs; the testbed installs its own.
PACKAGES := cmake gcc libc6-dev libclang-dev libseccomp-dev libsimde-dev make pkg-config protobuf-compiler
packages:
	@dpkg --status $(PACKAGES) >/dev/null 2>&1 || { apt-get update -qq && apt-get install -qq --no-install-recommends $(PACKAGES); } \
	  || { echo "make: this needs root, or first: apt-get install $(PACKAGES)" >&2; exit 1; }

install-stage: packages wasmedge
	@$(MAKE) --no-print-directory install DESTDIR=$(STAGE)

# What `cargo test` needs is installed by the testbed, which says so.
test: install-stage ## Run all tests: unit, and end to end on real containerd and Docker (root)
	cargo test --release --locked -p lighter-oci -p lighter-runtime-api -p lighter-launch -p lighter-runner -p lighter-shim
	set -e; for crate in lighter lighter-compile lighter-wasmtime lighter-wamr lighter-native lighter-node; do cargo test --release --locked -p $$crate; done
	LIGHTER_DESTDIR=$(STAGE) cargo test --locked -p lighter-tests

test-v2: install-stage ## Run tests on cgroup v2, systemd and AppArmor, in a virtual machine
	LIGHTER_DESTDIR=$(STAGE) cargo run --locked -q -p lighter-tests --bin testbed -- v2

test-k8s: install-stage ## Run pods on a real Kubernetes: on a node of our own (built once), or on the cluster of KUBECONFIG=
	LIGHTER_DESTDIR=$(STAGE) cargo test --locked -p lighter-tests --test k8s -- --test-threads=4

demo: install-stage ## Run a module, make it an image, push it, run it by containerd and Docker, command by command
	LIGHTER_DESTDIR=$(STAGE) cargo run --locked -q -p lighter-tests --bin testbed -- demo

MEASURE = cargo build --release --locked -q -p lighter-tests --bins && LIGHTER_DESTDIR=$(STAGE) \
  $(CARGO_TARGET_DIR)/release/$@ --json $(CARGO_TARGET_DIR)/$@.json
bench: install-stage ## Measure against runc and a shim that does nothing: a table, and bench.json in the target folder; then `bench-k8s`
	$(MEASURE)
	@$(MAKE) --no-print-directory bench-k8s

bench-k8s: install-stage ## Measure 200 pods on one node of a real Kubernetes, against runc: a table, a plot, and bench-k8s.json in the target folder
	$(MEASURE) --svg $(CARGO_TARGET_DIR)/$@.svg $(if $(LIGHTER_UPDATE),--update)

scale: ## Simulate cold starts on 1 to 1000 nodes from bench's figures (LIGHTER_UPDATE=1: for docs/scale.md)
	$(if $(LIGHTER_UPDATE),cargo build --release --locked -q -p lighter-compile &&) $(MEASURE) $(addprefix --bench ,$(wildcard $(CARGO_TARGET_DIR)/bench.json)) \
	  $(if $(LIGHTER_UPDATE),--update --compiler $(CARGO_TARGET_DIR)/release/lighter-compile)

fuzz: fuzz-document fuzz-resolve fuzz-sniff ## Fuzz what reads strangers' images, a minute each target (FUZZ_SECONDS=)
# Sanitizers are unstable: RUSTC_BOOTSTRAP has them on the stable toolchain.
fuzz-%: PACKAGES += g++
fuzz-%: packages
	@command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
	mkdir -p $(CARGO_TARGET_DIR)/fuzz/$*
	RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir oci/fuzz $* $(CARGO_TARGET_DIR)/fuzz/$* oci/fuzz/seeds/$* -- -max_total_time=$(or $(FUZZ_SECONDS),60)

lint: packages ## Formatting, clippy, licences and advisories
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings
	cargo clippy --release --locked --workspace --test k8s -- -D warnings
	@command -v cargo-deny >/dev/null || { echo "skipped: cargo deny (cargo install cargo-deny)"; exit 0; }; cargo deny --offline check licenses bans sources

testbed: ## Make the Debian root filesystems and the guests in advance
	cargo run --locked -q -p lighter-tests --bin testbed -- setup

clean: ## Remove what was built and kept, the testbed included
	rm -rf $(CARGO_TARGET_DIR) $(CACHE)
