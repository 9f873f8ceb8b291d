# Every target installs what it needs: Debian packages when run as root on Debian, and
# otherwise says in one line what is missing. Rust and Go themselves must be there.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup setup-rust setup-lint setup-kind build release demo demo-kind image builders programs everything \
	lint-and-everything e2e-image test test-unit test-long e2e e2e-kind bench lint licences crds chart clean

# What the lab runs, and what its images are made of.
PACKAGES := gcc libc6-dev git curl ca-certificates util-linux procps \
	containerd runc containernetworking-plugins nftables iptables conntrack iproute2 \
	busybox-static netcat-openbsd wget
# What a kind cluster is made of where no image can be pulled.
KIND_PACKAGES := mmdebstrap libseccomp-dev
# Two labs at once are what two cores carry.
E2E_THREADS ?= 2
# The image with the debug build, and where the tests find it.
DEBUG_IMAGE := $(CURDIR)/target/image/debug/ballast.tar
# One test binary after the other, its tests in threads; sums up what ran.
CARGO_TEST = ./scripts/cargo-test

# What every change must pass is the same for every change; `make test-long` and a plain
# `cargo test` draw their histories anew each time.
test test-unit e2e: export PROPTEST_RNG_SEED ?= 11

help: ## Show this list
	@echo "Ballast: load balancers for Kubernetes Services. Targets:"
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14 | sed 's/^/  /'

setup-rust: # What the crates are built with: SQLite and ring bring C of their own.
	@./scripts/setup cargo deb:gcc deb:libc6-dev

setup: ## Install the Debian packages that are missing (root), or name them
	@./scripts/setup cargo go $(addprefix deb:,$(PACKAGES))

build: setup ## Build everything (debug)
	cargo build --locked --workspace --all-targets

release: setup-rust ## Build the release binary
	cargo build --locked --release -p ballast

demo: setup ## Boot a real cluster, give a Service an address, use it, clean up (KEEP=1 leaves it up)
	cargo build --locked --workspace
	./target/debug/lab build
	./target/debug/demo

image: setup-rust ## Write the container image to target/image/ballast.tar; no container engine is needed
	@./scripts/setup deb:git
	cargo build --locked -p ballast-e2e --bins
	./target/debug/image

setup-kind: setup # A Docker that works may still have no registry to get a node image from.
	@./scripts/setup $(addprefix deb:,$(KIND_PACKAGES))
	@docker info >/dev/null 2>&1 || ./scripts/setup deb:docker.io

demo-kind: setup-kind image ## The whole story on a real kind cluster: install, a Service, uninstall, nothing left
	./target/debug/demo_kind

# The builders of other programs, compiled with the features of the whole workspace: with `-p`
# alone half the tree would be compiled a second time.
builders: setup setup-kind
	cargo build --locked --workspace --bin lab --bin chart --bin kind --bin image

# Kubernetes, Helm and kind, for the tests.
programs:
	./target/debug/lab build
	./target/debug/chart build
	./target/debug/kind build

everything:
	cargo build --locked --workspace --all-targets

lint-and-everything: lint
	$(MAKE) --no-print-directory everything

# The image that tests load into kind: with the debug build, so that nothing is compiled again.
# `make test-long` has the real one.
e2e-image:
	./target/debug/image --debug --into target/image/debug

e2e-kind: builders image ## End-to-end tests on real kind, with the real image
	$(MAKE) --no-print-directory everything
	./target/debug/kind build
	$(CARGO_TEST) --locked -p ballast-e2e --test e2e -- --test-threads=$(E2E_THREADS) kind::

# Go and cargo build side by side: where one of them links, the other compiles.
test: builders ## Everything that must be green: lint, unit tests, end-to-end tests
	$(MAKE) --no-print-directory -j2 lint-and-everything programs
	$(MAKE) --no-print-directory e2e-image
	BALLAST_IMAGE=$(DEBUG_IMAGE) $(CARGO_TEST) --locked --workspace -- --test-threads=$(E2E_THREADS) --skip long::

test-unit: setup-rust ## Tests that need no cluster
	$(CARGO_TEST) --locked --workspace --exclude ballast-e2e

e2e: builders ## End-to-end tests on real Kubernetes (T=name runs those of one file, e.g. T=services)
	$(MAKE) --no-print-directory -j2 everything programs
	$(MAKE) --no-print-directory e2e-image
	BALLAST_IMAGE=$(DEBUG_IMAGE) $(CARGO_TEST) --locked -p ballast-e2e -- --test-threads=$(E2E_THREADS) $(if $(T),$(T)::,--skip long::)

test-long: builders ## What is too long for `test`: many histories, the real image, built again and by Docker, Kubernetes' own tests
	PROPTEST_CASES=500 cargo test --locked -p ballast --test invariants -- whatever_happens
	$(MAKE) --no-print-directory -j2 everything programs
	$(CARGO_TEST) --locked -p ballast-e2e --test e2e -- --test-threads=$(E2E_THREADS) long:: kind::
	./target/debug/image --twice
	./target/debug/image --engine
	./target/debug/upstream

bench: setup ## Measure against the reference controller and a raw loop, paired in one run
	cargo build --locked --release --workspace
	./target/release/bench

lint: setup-lint ## Formatting, clippy, and links in the docs of the code
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --locked --workspace --no-deps --document-private-items

licences: setup-rust ## Check licences and sources of dependencies against deny.toml
	./scripts/licences

setup-lint: setup-rust
	@./scripts/setup rustfmt clippy

crds: setup-rust ## Write crds/crds.yaml from the types
	cargo run --locked --quiet -p ballast -- crds > crds/crds.yaml.new
	mv crds/crds.yaml.new crds/crds.yaml
	cp crds/crds.yaml charts/ballast/crds/crds.yaml

chart: setup ## Write what is made from the chart: its README, its CRDs, deploy/rbac.yaml
	cargo run --locked --quiet -p ballast-e2e --bin chart -- write

clean: ## Remove labs, Docker hosts, caches and build output
	-[ ! -x target/debug/lab ] || ./target/debug/lab down --all
	-[ ! -x target/debug/kind ] || ./target/debug/kind host stop --all
	cargo clean
	rm -rf .cache
