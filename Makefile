# Everything here is a short name for a command that works without make.

.DEFAULT_GOAL := help
OLD_GO := go1.23.12
FUZZ_SECONDS ?= 3600

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9.-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

.PHONY: demo
demo: ## the whole story in one command: server, board, power cut, update, way back
	go run ./cmd/runnel demo

.PHONY: build
build: ## the program, into bin/
	go build -o bin/ ./cmd/runnel

.PHONY: test
test: ## all checks that this machine can run
	go run ./internal/devtest

.PHONY: check
check: ## the quick ones, before a commit
	go run ./internal/devtest -run 'format|build|vet|staticcheck|test'

.PHONY: lint
lint: ## format, vet, staticcheck and the architecture's rules
	go run ./internal/devtest -run 'format|vet|staticcheck'
	go test ./internal/archtest

.PHONY: race
race: ## the tests under the race detector (needs a C compiler)
	go run ./internal/devtest -run race

.PHONY: fuzz
fuzz: ## an hour over all fuzz targets; FUZZ_SECONDS=N for another time
	go run ./internal/devtest -run fuzz -fuzz-seconds $(FUZZ_SECONDS)

.PHONY: torture-server
torture-server: ## the server killed 200 times, and 3,000 states that a power loss may leave
	RUNNEL_TORTURE_ROUNDS=200 RUNNEL_POWER_STATES=3000 go test -timeout 40m -count=1 -v -run '^(TestTortureServer|TestPowerLoss|TestPowerLossIsFound)$$' ./cmd/runnel ./internal/store/sqlite ./internal/blob/dir

.PHONY: test-postgres
test-postgres: ## stores, wires and the program on PostgreSQL, and servers that share one; installs it where it is not, starts a server of its own
	bash tools/postgres.sh
	CI=true go run ./internal/devtest -run test-postgres

.PHONY: test-replicas
test-replicas: ## two and three servers on one database: killed, cut off, without it; figures last
	bash tools/postgres.sh
	CI=true go test -timeout 20m -count=1 -v -run '^TestReplicas' ./cmd/runnel

.PHONY: crash
crash: ## a power cut at every flash operation of every scenario; two on the tiny chip
	go run ./cmd/runnel torture --sweep

.PHONY: core-go1.23
core-go1.23: ## core with the oldest Go that it promises (fetched at first use)
	cd core && GOWORK=off GOTOOLCHAIN=$(OLD_GO) go build ./... && GOWORK=off GOTOOLCHAIN=$(OLD_GO) go vet ./...

.PHONY: tinygo-check
tinygo-check: ## link core for a microcontroller without a heap (docs/design/tinygo.md)
	go run ./internal/tinygocheck

.PHONY: tinygo
tinygo: ## set up what builds and runs firmware: packages where root or sudo is there, then the tool chain, cached
	bash tools/tinygo/install.sh

.PHONY: test-qemu
test-qemu: ## firmware in emulated chips, and core's tests inside them, as a Cortex-M0 and an M3; figures last
	CI=true go run ./internal/devtest -run firmware
	go run ./internal/tinygocheck -test -chip m3

.PHONY: test-s3
test-s3: ## images in a bucket: suites, updates and kills on an S3-compatible server, built at first use; two servers on it and on PostgreSQL, installed where it is not
	bash tools/postgres.sh
	CI=true go run ./internal/devtest -run test-s3

.PHONY: torture-qemu
torture-qemu: ## 200 power cuts inside emulated chips; RUNNEL_QEMU_CUTS=N for another number; figures last
	CI=true RUNNEL_QEMU_CUTS=$${RUNNEL_QEMU_CUTS:-200} go test -timeout 120m -count=1 -v -run Torture ./sim/qemu

.PHONY: size
size: ## flash, RAM, stack and longest Step of core and firmware, against what they may take; writes firmware/size.json
	go run ./internal/tinygocheck -strict
	go run ./sim/qemu/size

.PHONY: size-server
size-server: ## the program, stripped, against what it may weigh
	go run ./internal/devtest -run size-server

.PHONY: size-update
size-update: ## accept the sizes of now
	go run ./internal/tinygocheck -update

.PHONY: bench
bench: ## Go benchmarks of the whole tree
	go test -run '^$$' -bench . -benchmem ./... ./core/...

BENCHES := polls streams v1chunks reports memory
.PHONY: bench-server $(BENCHES:%=bench-%)
bench-server: $(BENCHES:%=bench-%) ## the server beside its peers (bench/README.md); or one alone: bench-polls, bench-streams ...
$(BENCHES:%=bench-%): bench-%:
	go run ./bench/$*

.PHONY: ci
ci: ## what continuous integration runs; installs packages
	CI=true bash .ci/run
