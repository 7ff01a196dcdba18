# The keys service: `GET /api/v1/keys` over FastCGI. `make help` lists the targets.
#
# Everything built lies under build/, each variant in its own directory:
#   make                release       build/keys-fcgi, build/unit-tests
#   make SANITIZE=1     address, UB   build/sanitize/…
#   make CXX=clang++    clang         build/clang/…
#   make fuzz           libFuzzer     build/fuzz/…
#   make test-arm64     cross, -O2    build/arm64/…
# `make run`, `up` and `test` install what is missing; the other targets name it, and `make deps` installs it.
# Quiet unless V=1. CXX, CXXFLAGS, CPPFLAGS, LDFLAGS, PKG_CONFIG, PREFIX and DESTDIR are yours to set.

VERSION      := 1.0.0
PREFIX       ?= /usr/local
DESTDIR      ?=
PKG_CONFIG   ?= pkg-config
FUZZ_SECONDS ?= 60
SEEDS        ?= 100000
SECONDS      ?= 600
STACK        ?= build/stack
PORT         ?= 8443

ifneq ($(filter-out 0,$(SANITIZE)),)
VARIANT ?= sanitize
else ifneq ($(findstring clang,$(CXX)),)
VARIANT ?= clang
endif
VARIANT ?= release

ifeq ($(VARIANT),fuzz)
CXX    := clang++
else ifeq ($(VARIANT),arm64)
CXX    := aarch64-linux-gnu-g++
endif
# What the compiler makes programs for, which need not be this machine.
TARGET    := $(shell $(CXX) -dumpmachine 2>/dev/null)
HARDEN    := -fstack-protector-strong -fstack-clash-protection \
             $(if $(filter x86_64-%,$(TARGET)),-fcf-protection) \
             $(if $(filter aarch64-%,$(TARGET)),-mbranch-protection=standard)
LINK_SAFE := -pie -Wl,-z,relro,-z,now,-z,noexecstack,--as-needed
ifeq ($(VARIANT),release)
OUT   := build
MODE  := -O2 -flto=auto -D_FORTIFY_SOURCE=2 $(HARDEN)
AR    := gcc-ar
else ifeq ($(VARIANT),arm64)
OUT   := build/arm64
MODE  := -O2 -D_FORTIFY_SOURCE=2 $(HARDEN)
else ifeq ($(VARIANT),clang)
OUT   := build/clang
MODE  := -O2 -D_FORTIFY_SOURCE=2 $(HARDEN)
else ifeq ($(VARIANT),sanitize)
OUT   := build/sanitize
MODE  := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
else ifeq ($(VARIANT),fuzz)
OUT   := build/fuzz
MODE  := -O1 -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined \
         -fno-sanitize-recover=all -fsanitize-ignorelist=tests/fuzz/ubsan.ignore
else
$(error unknown VARIANT '$(VARIANT)': release, sanitize, clang, arm64 or fuzz)
endif

LIBRARIES := fcgi libpq libcrypto
CXXFLAGS  ?= -g
WARNINGS  := -Wall -Wextra -Wshadow -Wconversion
INCLUDES  := -I. -Ibuild/generated $(shell $(PKG_CONFIG) --cflags $(LIBRARIES) 2>/dev/null)
ifeq ($(VARIANT),arm64)
comma     := ,
ARM64     := $(OUT)/libraries
INCLUDES  := -I. -Ibuild/generated $(addprefix -isystem $(ARM64)/usr/include,/aarch64-linux-gnu / /postgresql)
LINK_SAFE += -L$(ARM64)/usr/lib/aarch64-linux-gnu \
             $(addprefix -Wl$(comma)-rpath-link$(comma)$(ARM64),/usr/lib/aarch64-linux-gnu /lib/aarch64-linux-gnu)
toolchain: $(ARM64)/ready
$(ARM64)/ready: tools/arm64-libraries
	tools/arm64-libraries $(ARM64) && touch $@
endif
COMPILE    = $(CXX) -std=c++20 $(INCLUDES) -DRAPIDJSON_HAS_STDSTRING=1 $(CPPFLAGS) \
             $(WARNINGS) -fPIE -ffile-prefix-map=$(CURDIR)=. $(MODE) $(CXXFLAGS)
LINK       = $(CXX) $(MODE) $(CXXFLAGS) $(LINK_SAFE) $(LDFLAGS)
LIBS      := -lfcgi -lpq -lcrypto

HANDLER   := $(wildcard handler/*.cc handler/*/*.cc)
UNIT      := $(wildcard tests/unit/*.cc tests/unit/*/*.cc)
FUZZERS   := $(wildcard tests/fuzz/*_fuzz.cc)
SOURCES   := $(HANDLER) $(UNIT) $(wildcard tests/fuzz/*.cc tests/bench/*.cc tests/simulation/*.cc)
HEADERS   := $(wildcard handler/*.h handler/*/*.h tests/*/*.h tests/*/*/*.h)
GENERATED := build/generated/list_keys_sql.h build/generated/version.h
OBJECTS    = $(SOURCES:%.cc=$(OUT)/obj/%.o)
LIBRARY   := $(OUT)/obj/libkeys.a
REPLAYS   := $(FUZZERS:tests/fuzz/%.cc=$(OUT)/replay/%)

# One build runs one job per processor unless -j says otherwise.
ifeq ($(MAKELEVEL)$(filter -j% --jobs%,$(MAKEFLAGS)),0)
MAKEFLAGS += --jobs=$(shell nproc)
endif
MAKEFLAGS += --no-builtin-rules --no-print-directory
ifeq ($(filter-out 0,$(V)),)
.SILENT:
say = echo "  $(1)  $(2)"
else
say = :
endif

# Two stacks that are started at once in one tree build one after the other.
LOCKED := flock Makefile
# The fuzzer of tests/faults talks to this one, whatever the rest of the tests run.
SANITIZED := VARIANT=sanitize build/sanitize/keys-fcgi

# What tools/stack, tools/install and tests/run take from here.
export STACK PORT WORKERS VARIANT OUT PREFIX DESTDIR
export HANDLER_PROGRAM := $(OUT)/keys-fcgi

.DELETE_ON_ERROR:
.SECONDARY:
.DEFAULT_GOAL := all
.PHONY: all binaries toolchain run up down test test-unit simulate test-faults test-random test-tls test-failover test-supabase \
        test-browser test-arm64 test-bare test-boot ci bench bench-fairness install uninstall deb fuzz lint compdb deps clean help

all: $(OUT)/keys-fcgi ## build the handler (the default)

binaries: $(OUT)/keys-fcgi $(OUT)/unit-tests $(OUT)/simulation $(OUT)/pure-path $(REPLAYS) ## build the handler and all test programs

## Running

run: ## install what is missing, build, and run a local stack until Ctrl-C (STACK=, PORT=, WORKERS=)
	tools/install-packages build run
	$(LOCKED) $(MAKE) all
	exec tools/stack run

up: ## the same in the background; $STACK/env then tells a shell where it is
	tools/install-packages build run
	$(LOCKED) $(MAKE) all
	tools/stack up

down: ## stop the stack that `make up` or `make run` started; its data stays for the next start
	tools/stack down

## Testing

test: ## install what is missing, and run every test that this machine alone can; closes with `N passed, N failed` (SANITIZE=1)
	tools/install-packages build run test
	$(LOCKED) $(MAKE) binaries
	$(LOCKED) $(MAKE) $(SANITIZED)
	tests/run

test-unit: ## the unit tests alone
	tools/install-packages --check build
	$(LOCKED) $(MAKE) $(OUT)/unit-tests
	tests/run unit

simulate: ## play SEEDS (100000) random schedules against the batcher; `build/simulation SEED` tells one
	tools/install-packages --check build
	$(LOCKED) $(MAKE) $(OUT)/simulation
	$(OUT)/simulation 1 $(SEEDS)

test-faults: ## the fault tests alone: databases, processes and clients that fail; writes tests/faults/RESULTS.md
	tools/install-packages --check build run test
	$(LOCKED) $(MAKE) all
	$(LOCKED) $(MAKE) $(SANITIZED)
	$(RM) build/fault-rows
	FAULT_ROWS=$(CURDIR)/build/fault-rows tests/run tests/faults
	tests/support/fault_report.py build/fault-rows tests/faults/RESULTS.md

test-random: ## random faults under load for SECONDS (600), by SEED (the clock); draws tests/faults/run.svg
	tools/install-packages --check build run test
	$(LOCKED) $(MAKE) all
	RANDOM_SECONDS=$(SECONDS) RANDOM_SEED=$(or $(SEED),$$(date +%s)) tests/run tests/faults/random_test.py
	tests/faults/draw_run

test-tls: ## the TLS scan alone
	tools/install-packages --check build run test
	$(LOCKED) $(MAKE) all
	tests/run tests/api/tls_test.py

test-failover: ## a pool on a real Patroni (needs root, Debian's patroni, etcd-server and pgbouncer; else skipped)
	tools/install-packages --check build run test
	$(LOCKED) $(MAKE) all
	tests/run tests/failover

test-supabase: ## beside Supabase's own auth server (SUPABASE_AUTH=/path/to/auth; else skipped)
	tools/install-packages --check build run test browser
	$(LOCKED) $(MAKE) all
	tests/run tests/supabase

test-browser: ## what needs npm: the dashboard in headless Chromium, tokens of npm's jose; screenshots under build/
	tools/install-packages --check build run test browser
	$(LOCKED) $(MAKE) all
	tests/run tests/browser tests/api/interop_test.py

test-arm64: ## cross-compile for arm64, and run the unit tests under an emulated processor
	tools/install-packages --check build arm64
	$(LOCKED) $(MAKE) VARIANT=arm64 build/arm64/keys-fcgi build/arm64/unit-tests
	OUT=build/arm64 RUNNER='qemu-aarch64-static -L build/arm64/libraries' tests/run unit

test-bare: ## the README's commands in a bare root of Debian RELEASE=12 or 13 (root only; STEPS='up test')
	tests/bare/run $(RELEASE) $(STEPS)

ci: ## what has to pass before a change lands: lint, the browser's tests and `make test` here, `make up` on bare machines
	.ci/run

test-boot: ## the package under a real systemd: a fresh Debian RELEASE=12 or 13 in QEMU (root only)
	tools/install-packages --check build run test package boot
	$(LOCKED) $(MAKE) all
	SUITE_SECONDS=7200 RELEASE=$(or $(RELEASE),12) tests/run tests/boot

bench: ## measure speed on a local stack; up to 10 minutes (BENCH='--quick', BENCH=--help)
	tools/install-packages --check build run bench
	$(LOCKED) $(MAKE) all $(OUT)/pure-path
	tests/bench/bench $(BENCH)

bench-fairness: ## what a flood of one user does to another user, with the database 1 ms away; 3 minutes
	tools/install-packages --check build run bench
	$(LOCKED) $(MAKE) all
	tests/bench/fairness

fuzz: ## run each fuzzer for FUZZ_SECONDS (60)
	tools/install-packages --check build fuzz
	$(LOCKED) $(MAKE) VARIANT=fuzz $(FUZZERS:tests/fuzz/%.cc=build/fuzz/%)
	set -e; for name in $(basename $(notdir $(FUZZERS))); do \
	  echo "== $$name"; mkdir -p build/fuzz/corpus/$$name tests/fuzz/corpus/$$name; \
	  build/fuzz/$$name -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 -verbosity=1 -timeout=10 \
	    -artifact_prefix=build/fuzz/ build/fuzz/corpus/$$name tests/fuzz/corpus/$$name; done

## Installing

install: $(OUT)/keys-fcgi ## the handler, its units, settings, sql/, nginx files and man page (PREFIX=, DESTDIR=)
	tools/install $<

uninstall: ## remove what `make install` put there, but no file of /etc that was changed since
	tools/install --uninstall

deb: ## a Debian package of the same files, build/deb/keys-fcgi_….deb
	tools/install-packages --check build package
	$(LOCKED) $(MAKE) all
	tools/debian/build $(OUT)/keys-fcgi $(VERSION)

## Development

lint: compdb ## clang-format, clang-tidy, cppcheck, shellcheck, black and pyflakes
	tools/install-packages --check build lint
	tools/lint $(SOURCES) $(HEADERS)

compdb: build/compile_commands.json $(GENERATED) ## build/compile_commands.json for clangd and clang-tidy

deps: ## install every Debian package that any target needs
	tools/install-packages all

clean: ## stop the local stack and remove everything built, the stack's data too
	tools/stack clean
	$(RM) -r build

help: ## this list
	awk -F ':.*## ' '/^## /{printf "\n%s\n", substr($$0, 4)} \
	  /^[a-z0-9-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# --- how things are built ---------------------------------------------------------------------

toolchain: # names the Debian package when a compiler, a header or a library is missing
	tools/install-packages --check build

$(OUT)/keys-fcgi: $(OUT)/obj/handler/main.o $(LIBRARY)
	$(call say,LINK   ,$@)
	$(LINK) -o $@ $^ $(LIBS)

$(OUT)/unit-tests: $(UNIT:%.cc=$(OUT)/obj/%.o) $(LIBRARY)
	$(call say,LINK   ,$@)
	$(LINK) -o $@ $^ $(LIBS)

$(OUT)/simulation: $(OUT)/obj/tests/simulation/simulation.o $(LIBRARY)
	$(call say,LINK   ,$@)
	$(LINK) -o $@ $^ $(LIBS)

$(OUT)/pure-path: $(OUT)/obj/tests/bench/pure_path.o $(LIBRARY)
	$(call say,LINK   ,$@)
	$(LINK) -o $@ $^ $(LIBS)

$(OUT)/replay/%: $(OUT)/obj/tests/fuzz/%.o $(OUT)/obj/tests/fuzz/replay.o $(LIBRARY)
	$(call say,LINK   ,$@)
	mkdir -p $(@D)
	$(LINK) -o $@ $^ $(LIBS)

build/fuzz/%_fuzz: build/fuzz/obj/tests/fuzz/%_fuzz.o $(LIBRARY)
	$(call say,LINK   ,$@)
	$(LINK) -fsanitize=fuzzer -o $@ $^ $(LIBS)

$(LIBRARY): $(patsubst %.cc,$(OUT)/obj/%.o,$(filter-out handler/main.cc,$(HANDLER)))
	$(call say,ARCHIVE,$@)
	$(RM) $@ && $(AR) crs $@ $^

$(OUT)/obj/%.o: %.cc Makefile | toolchain $(GENERATED)
	$(call say,COMPILE,$<)
	mkdir -p $(@D)
	$(COMPILE) -MMD -MP -c -o $@ $<

build/generated/list_keys_sql.h: sql/list_keys.sql Makefile
	mkdir -p $(@D)
	text() { sed -e 's/--.*//' -e 's/[[:space:]]*$$//' -e '/^$$/d'; }; \
	{ echo '// From $<, by the Makefile.'; echo '#pragma once'; echo 'namespace keys {'; \
	  printf 'inline constexpr char kListKeysSql[] = R"sql('; text < $<; echo ')sql";'; \
	  printf 'inline constexpr char kListKeysWithoutSessionSql[] = R"sql('; \
	  sed '/-- session check {/,/-- } session check/d' $< | text; echo ')sql";'; \
	  echo '}  // namespace keys'; } > $@

build/generated/version.h: Makefile
	mkdir -p $(@D)
	{ echo '#pragma once'; echo 'namespace keys {'; \
	  echo 'inline constexpr char kVersion[] = "$(VERSION)";'; echo '}  // namespace keys'; } > $@

build/compile_commands.json: Makefile $(SOURCES)
	mkdir -p $(@D)
	{ echo '['; $(foreach s,$(SOURCES),echo '{"directory": "$(CURDIR)", "file": "$s", \
	  "command": "$(COMPILE) -c $s"}$(if $(filter $s,$(lastword $(SOURCES))),,$(comma))';) echo ']'; } > $@
comma := ,

-include $(OBJECTS:.o=.d)
