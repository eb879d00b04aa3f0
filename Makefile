# SPDX-License-Identifier: Apache-2.0
#
# Front door of the CMake build (presets in CMakePresets.json): `make help` lists what there is.

BUILD ?= build
PREFIX ?= /usr/local
FUZZ_SECONDS ?= 60
JOBS ?= $(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)

CTEST = ctest --output-on-failure --no-label-summary -j $(JOBS)
CLANG_FORMAT = $(firstword $(shell command -v clang-format-14 clang-format) clang-format-14)
FORMATTED = find src include tests tools bench \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' \) \
            ! -name '*_tables.c' -print0 2>/dev/null

.PHONY: all build program deps test test-long check demo debug clang generic asan ubsan tsan fuzz fuzz-build \
        bench interop format format-check install clean help

all: build ## build the library and build/nibble

deps:
	@tools/install-deps

# CMake runs again by itself when a build file changes.
build program: deps
	@test -f $(BUILD)/build.ninja || cmake --preset release -B $(BUILD)
	@cmake --build $(BUILD) -j $(JOBS) --target $(if $(filter program,$@),nibble,all)

test: build ## run the test suite, without the long tests
	@$(CTEST) --test-dir $(BUILD) -LE long

test-long: build ## run every test
	@$(CTEST) --test-dir $(BUILD)

check: build ## run the checks of structure and style only
	@$(CTEST) --test-dir $(BUILD) -L check

demo: program ## quantize the model in the repository, show that it passed, let it write
	@NB_PROGRAM=$(BUILD)/nibble tools/demo

debug clang generic: deps ## build in build/<name> and run the suite there
	@test -f build/$@/build.ninja || cmake --preset $@
	@cmake --build build/$@ -j $(JOBS)
	@$(CTEST) --test-dir build/$@ -LE long

asan tsan: deps ## run the suite under the sanitizers (asan has ubsan in it)
	@test -f build/$@/build.ninja || cmake --preset $@
	@cmake --build build/$@ -j $(JOBS)
	@$(CTEST) --test-dir build/$@ -LE long

ubsan: asan ## same as asan

fuzz-build:
	@tools/install-deps --dev
	@test -f build/fuzz/build.ninja || cmake --preset fuzz
	@cmake --build build/fuzz -j $(JOBS)

fuzz: fuzz-build ## run each fuzz target for FUZZ_SECONDS (60)
	@tests/fuzz/run build/fuzz $(FUZZ_SECONDS)

bench: build ## measure speed, memory and quality; results as CSV
	@NB_PROGRAM=$(BUILD)/nibble bench/run

interop: build ## load our checkpoints with other tools, and theirs with ours
	@NB_PROGRAM=$(BUILD)/nibble tests/interop/run
	@NB_PROGRAM=$(BUILD)/nibble tests/interop/gguf

format: ## lay out the C sources
	@$(FORMATTED) | xargs -0 -r $(CLANG_FORMAT) -i

format-check: ## fail when `make format` would change something
	@$(FORMATTED) | xargs -0 -r $(CLANG_FORMAT) --dry-run --Werror

install: build ## install below PREFIX (/usr/local); DESTDIR is honoured
	@cmake --install $(BUILD) --prefix $(PREFIX)

clean: ## remove what was built
	@rm -rf build

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z -]*:.*## / { printf "  make %-22s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
