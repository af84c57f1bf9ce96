# `make help` lists what there is.

GO      ?= go
PREFIX  ?= /usr/local
DESTDIR ?=

# How long `make fuzz` tries each target, and what `make bench` is told (go run ./tests/bench -h).
FUZZTIME   ?= 10m
BENCHFLAGS ?=

STATICCHECK := $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2

# A clone without tags, a shallow one, an unpacked archive and a repository of another user all build.
VERSION := $(shell git describe --tags --match 'v[0-9]*' 2>/dev/null | sed 's/^v//')
COMMIT  := $(shell git describe --always --abbrev=12 --exclude '*' --dirty=', modified' 2>/dev/null)
LDFLAGS := -s -w $(if $(VERSION),-X main.version=$(VERSION)) $(if $(COMMIT),-X "main.commit=$(COMMIT)")

# Every state counts here, and the race detector costs nine in ten of them: the same tests run under it by scripts/run-tests.
EXPLORE := $(GO) test ./core/vhd -count=1 -timeout 30m -run TestNothingIsLostToAPowerCut -v

.DEFAULT_GOAL := build
.PHONY: build install uninstall demo test soak lint fuzz bench deps deps-demo deps-test deps-bench deps-vm clean help

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

soak: ## hours: a hundred million states after power cuts, a thousand kills of a real server
	@scripts/deps test
	$(EXPLORE) -timeout 0 -explore.states=100000000
	$(GO) test -race ./tests/crash -count=1 -timeout 0 -v -fuse -root -tools -qemu -kills 1000

lint: ## gofmt, vet, staticcheck, shellcheck, the import rules
	@unformatted=$$(gofmt -l cmd core frontend tests); test -z "$$unformatted" || { echo "gofmt would change:"; echo "$$unformatted"; exit 1; }
	$(GO) vet ./...
	$(STATICCHECK) ./...
	$(GO) test -count=1 ./tests/lint
	@if command -v shellcheck >/dev/null; then echo shellcheck; shellcheck scripts/* .ci/run; else echo "shellcheck is not there: scripts are not checked"; fi

fuzz: ## each fuzz target for FUZZTIME (10m)
	@FUZZTIME=$(FUZZTIME) scripts/fuzz

bench: ## fio beside the peers, then the engine's own benchmarks; BENCHFLAGS="-jobs …"
	@scripts/deps bench
	@$(MAKE) --no-print-directory build
	$(GO) run ./tests/bench $(BENCHFLAGS)
	$(GO) test -run '^$$' -bench . -benchmem ./core/...

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
