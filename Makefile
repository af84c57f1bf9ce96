# `make help` lists what there is.

GO      ?= go
PREFIX  ?= /usr/local
DESTDIR ?=

# How long `make fuzz` tries each target, how long the clients of `make soak` work, and what `make bench` is told (go run ./tests/bench -h).
FUZZTIME   ?= 10m
SOAKTIME   ?= 1h
BENCHFLAGS ?=

# For the tests in a virtual machine: a module built for the kernel that is booted, Xen's programs, qemu's -accel (go doc ./tests/vm).
BLKTAP_KO     ?=
TAPDISK_BUILD ?=
VM_ACCEL      ?= tcg

STATICCHECK := $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2

# A clone without tags, a shallow one, an unpacked archive and a repository of another user all build.
VERSION := $(shell git describe --tags --match 'v[0-9]*' 2>/dev/null | sed 's/^v//')
COMMIT  := $(shell git describe --always --abbrev=12 --exclude '*' --dirty=', modified' 2>/dev/null)
LDFLAGS := -s -w $(if $(VERSION),-X main.version=$(VERSION)) $(if $(COMMIT),-X "main.commit=$(COMMIT)")

# Every state counts here, and the race detector costs nine in ten of them: the same tests run under it by scripts/run-tests.
EXPLORE := $(GO) test ./core/vhd -count=1 -timeout 30m -run TestNothingIsLostToAPowerCut -v

VM_TEST = kernel=$$(scripts/guest-kernel $(BLKTAP_KO)) && $(GO) test ./tests/vm -count=1 -timeout 90m -fuse -tools -vm -kernel "$$kernel" -accel $(VM_ACCEL) \
	$(if $(BLKTAP_KO),-blktap $(abspath $(BLKTAP_KO))) $(if $(TAPDISK_BUILD),-tapdisk $(abspath $(TAPDISK_BUILD)))

.DEFAULT_GOAL := build
.PHONY: build install uninstall demo test test-vm soak lint fuzz bench bench-blktap deps deps-demo deps-test deps-bench deps-vm clean help

build: ## one static binary, ./vhdmount
	@CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o vhdmount ./cmd/vhdmount

vhdmount:
	@$(MAKE) --no-print-directory build

demo: ## what it does, in a minute, on a disk made for it
	@scripts/deps demo
	@$(MAKE) --no-print-directory build
	@scripts/demo

test: ## everything, with real peers; what needs root runs as root
	@scripts/deps test
	@scripts/run-tests
	$(EXPLORE) -explore.states=1000000

test-vm: ## in a Debian machine, emulated; BLKTAP_KO=blktap.ko TAPDISK_BUILD=dir for blktap too
	@scripts/deps vm
	@$(VM_TEST)

soak: ## hours: an hour of clients on a chain, a thousand kills, a hundred million states after power cuts
	@scripts/deps test
	$(GO) test -race ./tests/soak -count=1 -timeout 0 -v -fuse -soak $(SOAKTIME)
	$(EXPLORE) -timeout 0 -explore.states=100000000
	$(GO) test ./core/vhd -count=1 -timeout 0 -run TestEveryCallFailsOnce -v -fault.all -fault.states=30
	$(GO) test -race ./tests/crash -count=1 -timeout 0 -v -fuse -root -tools -qemu -kills 1000 -mounts 2000 -pause 1m

lint: ## gofmt, vet, staticcheck, shellcheck, the import rules
	@unformatted=$$(gofmt -l cmd core frontend tests); test -z "$$unformatted" || { echo "gofmt would change:"; echo "$$unformatted"; exit 1; }
	$(GO) vet ./...
	$(STATICCHECK) ./...
	$(GO) test -count=1 ./tests/lint
	@if command -v shellcheck >/dev/null; then echo shellcheck; shellcheck scripts/* tests/vm/guest/* .ci/run; else echo "shellcheck is not there: scripts are not checked"; fi

fuzz: ## each fuzz target for FUZZTIME (10m)
	@FUZZTIME=$(FUZZTIME) scripts/fuzz

bench: ## fio beside the peers, then the engine's own benchmarks; BENCHFLAGS="-jobs …"
	@scripts/deps bench
	@$(MAKE) --no-print-directory build
	$(GO) run ./tests/bench $(BENCHFLAGS)
	$(GO) test -run '^$$' -bench . -benchmem ./core/...

bench-blktap: ## fio in that machine on a blktap disk, beside tapdisk's; BLKTAP_KO= TAPDISK_BUILD=
	@test -n '$(BLKTAP_KO)' || { echo 'bench-blktap: BLKTAP_KO=path/to/blktap.ko is missing (go doc ./tests/vm)' >&2; exit 2; }
	@scripts/deps vm
	@$(VM_TEST) -run TestFigures -figures -v

deps: ## from Debian, what demo, test and bench need and this machine lacks
	@scripts/deps demo test bench

deps-demo deps-test deps-bench deps-vm: ## … for one of them; deps-vm: to boot a guest
	@scripts/deps $(@:deps-%=%)

install: vhdmount ## binary, man page, completions; PREFIX=/usr/local DESTDIR=
	@scripts/install '$(DESTDIR)$(PREFIX)'

uninstall: ## takes away what install put there
	@scripts/install --remove '$(DESTDIR)$(PREFIX)'

clean: ## removes the binary
	rm -f vhdmount

help:
	@sed -n 's/^\([a-z][a-z -]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 46
