# The engine's Makefile. `make run` and `make test` do all the set-up on a fresh Debian machine with Swift.

SHELL := /bin/bash
.DEFAULT_GOAL := build

PREFIX ?= /usr/local
DESTDIR ?=
SWIFT ?= swift
RELEASE := .build/release
BINARIES := engine engined engine-shim engine-bench

# What the product links, and what the tests and the demonstration use beside it.
BUILD_PACKAGES := pkg-config libnl-3-dev libnl-route-3-dev libmnl-dev libnftnl-dev libseccomp-dev libarchive-dev \
	libsqlite3-dev libssl-dev libisal-dev libzstd-dev
RUN_PACKAGES := busybox-static
TEST_PACKAGES := iproute2 nftables skopeo podman docker-registry strace crun util-linux procps iptables curl python3 \
	zstd xz-utils bzip2 containernetworking-plugins openssl
GUEST_PACKAGES := mmdebstrap qemu-system-x86 e2fsprogs kmod
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: deps build run test bench bench-peers lint fmt install clean

## Installs the Debian packages that are missing; asks nothing.
deps:
	@Examples/install-packages $(BUILD_PACKAGES) $(RUN_PACKAGES)

.PHONY: test-deps
test-deps: deps
	@Examples/install-packages $(TEST_PACKAGES) $(GUEST_PACKAGES)

## Leaves engine, engined, engine-shim and engine-bench in .build/release, ready to be used in place.
build: deps
	$(SWIFT) build -c release

## Builds, and shows a real container: a web server with a published port, a volume and limits.
run: build
	@$(SUDO) Examples/web/demonstrate $(RELEASE)/engine

## Every test there is: units, the kernel of this machine, the built binaries, and the same on Debian's own kernel. Those
## of the binaries wait for processes, on threads that the others need. A few at once: with all of them, what waits for a
## packet or an end may wait for minutes.
test: test-deps build lint
	$(SUDO) Tests/report $(SWIFT) test --experimental-maximum-parallelization-width 4 --skip EndToEndTests
	$(SUDO) env ENGINE_BINARIES=$(abspath $(RELEASE)) Tests/report $(SWIFT) test --skip-build --filter EndToEndTests
	$(SUDO) Tests/Guest/boot $(RELEASE)

## The last part alone: the built binaries on a kernel that is years old, with control groups of version 2 alone, in a
## machine that QEMU emulates. A minute, and another one the first time.
.PHONY: test-guest
test-guest: build
	@Examples/install-packages $(GUEST_PACKAGES)
	$(SUDO) Tests/Guest/boot $(RELEASE)

## Random changes of references, manifests and layers, longer than the tests run them and with another seed each time.
FUZZ_ROUNDS ?= 200000
.PHONY: fuzz
fuzz: test-deps
	$(SUDO) env ENGINE_FUZZ_ROUNDS=$(FUZZ_ROUNDS) ENGINE_FUZZ_SEED=$$(date +%s) $(SWIFT) test --filter FuzzTests

## The benchmarks, beside every peer that is installed, in about twelve minutes. BENCH_FLAGS='--runs=30 --minutes=25'
## takes longer, '--only=network,logs --merge' measures some of the figures anew; `engine-benchmarks` tells them all.
BENCH_FLAGS ?=
MICRO := .build/micro
bench: build bench-micro-build
	@status=0; $(SUDO) $(RELEASE)/engine-benchmarks --micro=$(MICRO)/release/engine-micro-benchmarks $(BENCH_FLAGS) \
		$(RELEASE) || status=$$?; $(RELEASE)/engine-benchmarks --readme; exit $$status

## Puts the table of the last results into the README.
.PHONY: bench-readme
bench-readme: build
	@$(RELEASE)/engine-benchmarks --page
	@$(RELEASE)/engine-benchmarks --readme

## What one message, address, netlink message or megabyte of a layer costs; `make bench` has it too.
.PHONY: bench-micro bench-micro-build
bench-micro: bench-micro-build
	@$(MICRO)/release/engine-micro-benchmarks

bench-micro-build: deps
	$(SWIFT) build -c release --package-path Benchmarks/Micro --scratch-path $(MICRO)

## Pulls 450 MB in seven layers from a local registry, beside Docker where it is installed.
.PHONY: bench-pull
bench-pull: build test-deps
	@$(SUDO) Benchmarks/Pull/measure $(RELEASE)

## Installs the peers that the benchmarks compare with.
bench-peers:
	@Examples/install-packages docker.io podman crun runc bubblewrap iperf3 docker-registry skopeo python3 iproute2 \
		util-linux

lint:
	$(SWIFT) format lint --strict --recursive --parallel Package.swift Sources Plugins Tests Benchmarks

fmt:
	$(SWIFT) format format --in-place --recursive --parallel Package.swift Sources Plugins Tests Benchmarks

install: build
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 0755 $(foreach binary,$(BINARIES),$(RELEASE)/$(binary)) $(DESTDIR)$(PREFIX)/bin

clean:
	rm -rf .build
