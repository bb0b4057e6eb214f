# Everything a newcomer or CI does. `make help` lists it.

SHELL    := /bin/bash
GO       ?= go
# A release is a tag; between releases versions are ordered by the time of the commit.
VERSION  ?= $(shell git describe --tags --match 'v[0-9]*' --exact-match 2>/dev/null | sed 's/^v//' | grep . || \
	TZ=UTC git log -1 --date=format-local:%Y%m%d%H%M%S --format='0.0.0~%cd.%h' 2>/dev/null || echo dev)
COMMIT   := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
# The version comes from here and not from the stamp, which Go cannot make in a
# checkout that belongs to somebody else.
BUILD    := github.com/kmsbroker/kmsbroker/internal/build
BUILDFLAGS := -trimpath -buildvcs=false -ldflags '-s -w -X $(BUILD).version=$(VERSION) -X $(BUILD).commit=$(COMMIT)'
BIN      := $(CURDIR)/bin
CACHE    := $(CURDIR)/.cache
FUZZTIME ?= 60s

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## install the Debian packages that building and testing need
	@test/deps.sh

.PHONY: build
build: deps ## build the daemon, the CLI, the plugins and the HSM simulator into bin/
	@install -d -m 755 '$(BIN)' '$(BIN)/plugins'
	CGO_ENABLED=0 $(GO) build $(BUILDFLAGS) -o '$(BIN)/' ./cmd/...
	CGO_ENABLED=1 $(GO) build $(BUILDFLAGS) -o '$(BIN)/plugins/' ./plugins/...
	@test/hsmsim/build.sh '$(BIN)/hsmsim/libCryptoki2_64.so'
	@cd '$(BIN)/plugins' && rm -f SHA256SUMS && sha256sum * > ../SHA256SUMS && mv ../SHA256SUMS .
	@chmod go-w '$(BIN)' '$(BIN)'/* '$(BIN)'/plugins/*

.PHONY: demo
demo: build ## import, encrypt, refuse and recover before your eyes
	@test/demo/demo.sh '$(BIN)'

.PHONY: dev
dev: build ## start the emulator and the daemon, and stay up
	@test/demo/dev.sh '$(BIN)'

# umask: a plugin that others can write to is refused, and test binaries play
# plugins. The packages of test/ take turns (-p 1): each keeps the whole machine
# busy, and some hold the product to deadlines.
.PHONY: test
test: build ## run all tests that need no root, with the race detector
	umask 022 && $(GO) test -race -shuffle=on -timeout 15m ./...
	@# With Go's FIPS 140-3 module, whose rules are other ones.
	umask 022 && GOFIPS140=v1.0.0 $(GO) test -timeout 15m ./envelope ./client ./broker ./cmd/...
	cd test && umask 022 && KMSBROKER_BIN='$(BIN)' $(GO) test -race -shuffle=on -p 1 -timeout 15m ./...

# The build tag keeps these out of `make test`. What they test is installed on
# this machine or on others that they boot, which the cache of test results does
# not know.
.PHONY: test-system
test-system: root packages ## run the tests that need root, with the race detector
	@test/deps.sh system
	@VERSION='$(VERSION)+next' packaging/build.sh '$(BIN)' '$(CACHE)/nfpm' '$(CACHE)/next' >/dev/null
	root=$$(test/machine/root.sh '$(CACHE)/debian-root') && cd test && umask 022 && KMSBROKER_BIN='$(BIN)' KMSBROKER_ROOT="$$root" \
		KMSBROKER_DEB="$$(ls '$(CURDIR)'/dist/*.deb)" KMSBROKER_RPM="$$(ls '$(CURDIR)'/dist/*.rpm)" KMSBROKER_NEXT_DEB="$$(ls '$(CACHE)'/next/*.deb)" \
		$(GO) test -race -shuffle=on -count 1 -p 1 -timeout 15m -tags root ./opencryptoki ./machine

.PHONY: root
root:
	@[ "$$(id -u)" -eq 0 ] || { echo 'make test-system has to be run as root: it installs opencryptoki and systemd-container, makes a token on this machine and boots containers' >&2; exit 1; }

.PHONY: lint
lint: ## check the code
	@mkdir -p '$(CACHE)'
	cd tools && $(GO) build -o '$(CACHE)/golangci-lint' github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	'$(CACHE)/golangci-lint' run ./...
	cd test && '$(CACHE)/golangci-lint' run --config ../.golangci.yml ./...
	$(GO) mod tidy -diff
	cd test && $(GO) mod tidy -diff

.PHONY: packages
packages: build ## make the deb and the rpm in dist/
	cd tools/nfpm && CGO_ENABLED=0 $(GO) build -o '$(CACHE)/nfpm' github.com/goreleaser/nfpm/v2/cmd/nfpm
	@packaging/build.sh '$(BIN)' '$(CACHE)/nfpm' dist

.PHONY: proto
proto: ## generate Go from the .proto files (needs protoc)
	@mkdir -p '$(CACHE)'
	cd tools && $(GO) build -o '$(CACHE)/' google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
	PATH='$(CACHE)':$$PATH protoc -I . --go_out=. --go_opt=paths=source_relative \
		--go-grpc_out=. --go-grpc_opt=paths=source_relative api/kmsbroker/v1/*.proto hsm/plugin/hsmv1/*.proto

.PHONY: bench
bench: build ## measure, as ratios taken side by side in one run
	cd test && KMSBROKER_BIN='$(BIN)' $(GO) test -run '^$$' -bench . -benchtime 1x ./bench/

.PHONY: nightly
nightly: test ## chaos for a minute on each device, 1,000 plugin restarts, soaks of 10 and of 5 minutes, and FUZZTIME on every parser
	cd test && KMSBROKER_BIN='$(BIN)' KMSBROKER_CHAOS=60s $(GO) test -race -v -count 1 -timeout 15m -run TestChaos ./devices
	@# Without the race detector, whose own memory grows.
	cd test && KMSBROKER_BIN='$(BIN)' KMSBROKER_RESTARTS=1000 $(GO) test -v -count 1 -timeout 30m -run TestRestartsLeaveNothing ./devices
	cd test && KMSBROKER_BIN='$(BIN)' $(GO) test -v -count 1 -timeout 20m -run TestKillAtEveryFaultPoint ./faults | grep -v '^ *\(=== \|--- PASS\)'
	cd test && KMSBROKER_BIN='$(BIN)' KMSBROKER_SOAK=10m $(GO) test -race -v -count 1 -timeout 30m -run TestSoak ./soak
	cd test && KMSBROKER_BIN='$(BIN)' KMSBROKER_SOAK=5m $(GO) test -race -v -count 1 -timeout 15m -run TestPKCS11Soak ./soak
	test/fuzz.sh $(FUZZTIME)
