# aligner.c: `make` builds the program, `make test` proves what can be proved offline; `make help` lists the rest.
CC      = cc
BASE    = -std=c11 -O3 -fno-math-errno -ffp-contract=off -Wall -Wextra
# Probes of the compiler: native vector units, and OpenMP (libgomp or libomp; on macOS `brew install libomp`). Both are optional.
probe   = $(shell echo 'int main(void){return 0;}' | $(CC) -x c $(1) -o /dev/null - >/dev/null 2>&1 && echo '$(1)')
NATIVE := $(call probe,-march=native)
OPENMP := $(call probe,-fopenmp)
CFLAGS  = $(BASE) $(NATIVE) $(OPENMP)
TESTS   = $(patsubst tests/%.c,build/tests/%,$(filter-out tests/world.c,$(wildcard tests/*.c)))

all: build/aligner build/world

build/aligner: aligner.c Makefile
	@mkdir -p build
	$(CC) $(CFLAGS) aligner.c -o $@ -lm

build/world: tests/world.c Makefile
	@mkdir -p build
	$(CC) -std=c11 -O2 -Wall -Wextra tests/world.c -o $@

build/tests/%: tests/%.c tests/test.h aligner.c Makefile
	@mkdir -p build/tests
	$(CC) $(CFLAGS) -Wno-unused-function -DALIGNER_NO_MAIN $< -o $@ -lm

test: build/aligner build/world $(TESTS)      ## all offline tests; closes with "N passed, N failed"
	@tests/run.sh

portable:                                     ## without AVX2 and OpenMP
	@$(MAKE) --no-print-directory NATIVE=-DPORTABLE OPENMP= all

asan:                                         ## tests under the address and undefined-behaviour sanitizers (in build/asan)
	@mkdir -p build/asan
	@$(MAKE) --no-print-directory NATIVE="$(NATIVE) -g -O1 -fsanitize=address,undefined -fno-sanitize-recover" OPENMP= build/aligner build/world $(TESTS) B=build/asan

diff:                                         ## the one line between SFT and Aligner
	@tests/one_line.sh

loc:                                          ## lines of code and comment, chapter by chapter
	@tests/loc.sh

clean:                                        ## removes build/
	rm -rf build

help:                                         ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile

.PHONY: all test portable asan diff loc clean help
