# Every target installs what it needs: Debian packages if it runs as root on Debian. Otherwise it
# lists the missing ones in one line. Rust and Go must be installed.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup setup-rust setup-lint setup-kind moto build release demo demo-l2 demo-orphans demo-kind image builders programs everything \
	lint-and-everything e2e-image test test-unit test-long e2e e2e-kind bench bench-failover bench-aws lint licences crds chart clean

# Programs that the lab runs, and contents of its images.
PACKAGES := gcc libc6-dev git curl ca-certificates util-linux procps \
	containerd runc containernetworking-plugins nftables iptables conntrack iproute2 \
	busybox-static netcat-openbsd wget arping ndisc6
# Contents of a kind node where no image can be pulled.
KIND_PACKAGES := mmdebstrap libseccomp-dev
# Two cores can run two labs at once.
E2E_THREADS ?= 2
# The image with the debug build, and where the tests find it.
DEBUG_IMAGE := $(CURDIR)/target/image/debug/ballast.tar
# Runs one test binary after the other, its tests in threads, and prints totals.
CARGO_TEST = ./scripts/cargo-test

# `make test` draws the same random histories for every change; `make test-long` and a plain
# `cargo test` draw new ones each time.
test test-unit e2e: export PROPTEST_RNG_SEED ?= 11

help: ## Show this list
	@echo "Ballast: load balancers for Kubernetes Services. Targets:"
	@grep -hE '^[a-z][a-z0-9-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14 | sed 's/^/  /'

setup-rust: # SQLite and ring contain C.
	@./scripts/setup cargo deb:gcc deb:libc6-dev

setup: ## Install missing Debian packages (as root), or list them
	@./scripts/setup cargo go $(addprefix deb:,$(PACKAGES))

build: setup ## Build everything (debug)
	cargo build --locked --workspace --all-targets

release: setup-rust ## Build the release binary
	cargo build --locked --release -p ballast

demo: setup ## Boot a real cluster, give a Service an address, use it, clean up (KEEP=1 keeps the cluster)
	cargo build --locked --workspace
	./target/debug/lab build
	./target/debug/demo

demo-l2: setup ## Boot a cluster of three nodes, cut the link of the one that answers, show the outage (KEEP=1 keeps the cluster)
	cargo build --locked --workspace
	./target/debug/lab build
	./target/debug/demo_l2

demo-orphans: setup ## Delete a cluster before its Services, find the load balancers that bill on, delete them (KEEP=1 stops before that)
	cargo build --locked --workspace
	./target/debug/lab build
	./target/debug/demo_orphans

image: setup-rust ## Write the container image to target/image/ballast.tar (needs no container engine)
	@./scripts/setup deb:git
	cargo build --locked --workspace --bin lab --bin chart --bin kind --bin image --bin demo_kind
	./target/debug/image

setup-kind: setup # A working Docker may still have no registry to pull a node image from.
	@./scripts/setup $(addprefix deb:,$(KIND_PACKAGES))
	@docker info >/dev/null 2>&1 || ./scripts/setup deb:docker.io

demo-kind: setup-kind image ## Install on a real kind cluster, use a Service, uninstall, check that nothing is left
	./target/debug/demo_kind

# The programs that build other programs. They are compiled with the features of the whole
# workspace: with `-p` alone cargo compiles half the dependencies again.
builders: setup setup-kind
	cargo build --locked --workspace --bin lab --bin chart --bin kind --bin image

# Kubernetes, Helm and kind, for the tests.
programs:
	./target/debug/lab build
	./target/debug/chart build
	./target/debug/kind build
	./target/debug/lab build --metallb

# A fake of AWS by other authors, in Python.
moto:
	@./scripts/setup deb:python3-venv
	@./scripts/moto

everything:
	cargo build --locked --workspace --all-targets

lint-and-everything: lint
	$(MAKE) --no-print-directory everything

# The image that tests load into kind contains the debug build, so nothing is compiled again.
# `make test-long` uses the release image.
e2e-image:
	./target/debug/image --debug --into target/image/debug

e2e-kind: builders image ## Run the tests on real kind, with the release image
	$(MAKE) --no-print-directory everything
	./target/debug/kind build
	$(CARGO_TEST) --locked -p ballast-e2e --test e2e -- --test-threads=$(E2E_THREADS) kind::

# Go and cargo build side by side: where one of them links, the other compiles.
test: builders ## Run everything that must pass: lint, unit tests, end-to-end tests
	$(MAKE) --no-print-directory -j2 lint-and-everything programs moto
	$(MAKE) --no-print-directory e2e-image
	BALLAST_IMAGE=$(DEBUG_IMAGE) $(CARGO_TEST) --locked --workspace -- --test-threads=$(E2E_THREADS) --skip long::

test-unit: setup-rust moto ## Run the tests that need no cluster
	$(CARGO_TEST) --locked --workspace --exclude ballast-e2e -- --skip long::

e2e: builders ## Run the end-to-end tests on real Kubernetes (T=services runs one file)
	$(MAKE) --no-print-directory -j2 everything programs
	$(MAKE) --no-print-directory e2e-image
	BALLAST_IMAGE=$(DEBUG_IMAGE) $(CARGO_TEST) --locked -p ballast-e2e -- --test-threads=$(E2E_THREADS) $(if $(T),$(T)::,--skip long::)

test-long: builders moto ## Run what takes too long for `test`: more histories, the release image, Kubernetes' own tests
	PROPTEST_CASES=500 cargo test --locked -p ballast --test invariants -- whatever_happens
	SIMULATION_SEEDS=1000 cargo test --locked -p ballast-announce --test simulation
	SHARING_HISTORIES=5000 cargo test --locked --release -p ballast-aws --test provider -- sharing::histories
	$(CARGO_TEST) --locked --workspace --test moto -- long::
	$(MAKE) --no-print-directory -j2 everything programs
	$(CARGO_TEST) --locked -p ballast-e2e --test e2e -- --test-threads=$(E2E_THREADS) long:: kind::
	./target/debug/image --twice
	./target/debug/image --engine
	./target/debug/upstream
	./target/debug/upstream --provider l2

bench: setup ## Compare with the reference controller and a raw loop in one run
	cargo build --locked --release --workspace
	./target/release/bench

bench-failover: setup ## Measure outages when hosts, links and announcers fail, 20 rounds each, fewer of what takes minutes (hours; SCENES=link-cut,drain selects)
	cargo build --locked --release --workspace
	./target/release/bench failover $(if $(SCENES),--only $(SCENES))

# The debug build: nothing is compiled again after `make test`, and AWS's answers take most of the time.
bench-aws: setup-rust moto ## Count calls to AWS and compare them with the AWS Load Balancer Controller
	cargo bench --locked --workspace --profile dev --bench calls -- $(if $(SCENES),--only $(SCENES))

lint: setup-lint ## Check formatting, clippy, and links in code documentation
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

chart: setup ## Generate the chart's README and CRDs, and deploy/rbac.yaml
	cargo run --locked --quiet -p ballast-e2e --bin chart -- write

clean: ## Remove labs, Docker hosts, caches and build output
	-[ ! -x target/debug/lab ] || ./target/debug/lab down --all
	-[ ! -x target/debug/kind ] || ./target/debug/kind host stop --all
	cargo clean
	rm -rf .cache
