# aligner.c: `make` builds the program, `make test` proves what can be proved offline; `make help` lists the rest.
CC      = cc
# No code here reads errno or floating-point exception flags; where they may be left out, loops with a comparison vectorize.
# Neither option changes a result, as -ffast-math would.
BASE    = -std=c11 -O3 -fno-math-errno -fno-trapping-math -ffp-contract=off -Wall -Wextra -Wno-unknown-pragmas
# Probes of the compiler: native vector units, and OpenMP (libgomp or libomp; on macOS `brew install libomp`). Both are optional.
probe   = $(shell echo 'int main(void){return 0;}' | $(CC) -x c $(1) -o /dev/null - >/dev/null 2>&1 && echo '$(1)')
NATIVE := $(call probe,-march=native)
OPENMP := $(call probe,-fopenmp)
CFLAGS  = $(BASE) $(NATIVE) $(OPENMP)
B       = build
TESTS   = $(patsubst tests/%.c,$(B)/tests/%,$(filter-out tests/world.c tests/fuzz.c tests/bench_gguf.c tests/lab.c,$(wildcard tests/*.c)))
SANITIZE = -g -O1 -fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all

all: $(B)/aligner $(B)/world

$(B)/aligner: aligner.c Makefile
	@mkdir -p $(B)
	$(CC) $(CFLAGS) aligner.c -o $@ -lm

$(B)/world: tests/world.c aligner.c Makefile
	@mkdir -p $(B)
	$(CC) -std=c11 -O2 -Wall -Wextra -Wno-unused-function -Wno-unknown-pragmas $(CHECKED) tests/world.c -o $@ -lm

$(B)/tests/%: tests/%.c $(wildcard tests/*.h) aligner.c Makefile
	@mkdir -p $(B)/tests
	$(CC) $(CFLAGS) -Wno-unused-function -DALIGNER_NO_MAIN $< -o $@ -lm

$(B)/lab: tests/lab.c aligner.c Makefile
	@mkdir -p $(B)
	$(CC) $(CFLAGS) -Wno-unused-function -DALIGNER_NO_MAIN $< -o $@ -lm

$(B)/bench_gguf: tests/bench_gguf.c tests/test.h aligner.c Makefile
	@mkdir -p $(B)
	$(CC) $(CFLAGS) -Wno-unused-function -DALIGNER_NO_MAIN $< -o $@ -lm

tests: $(B)/aligner $(B)/world $(TESTS)

test:                                         ## all that can be proved offline; closes with "N passed, N failed"
	@$(MAKE) --no-print-directory -j 2 tests
	@B=$(B) tests/run.sh

portable:                                     ## builds without vector intrinsics and OpenMP, in build/portable
	@$(MAKE) --no-print-directory B=build/portable NATIVE=-DSIMD=0 OPENMP= all

asan:                                         ## the tests under the address and undefined-behaviour sanitizers
	@$(MAKE) --no-print-directory B=build/asan OPENMP= NATIVE="$(NATIVE) $(SANITIZE) -DPROBE=1048576" CHECKED="$(SANITIZE)" test

bench: $(B)/aligner $(B)/bench_gguf           ## speed beside its limits and, where installed, PyTorch and llama.cpp (5 min)
	@B=$(B) tests/bench.sh

scaling: $(B)/aligner                         ## step time and memory against context, width and rows a batch (2 min)
	@B=$(B) tests/scaling.sh

diff:                                         ## the one line between SFT and Aligner
	@tests/one_line.sh

docs:                                         ## pages and plots of the experiments from their numbers (docs/results)
	@tests/experiments.py docs

loc:                                          ## lines of code and of comment, chapter by chapter
	@tests/loc.sh

clean:                                        ## removes build/
	rm -rf build

help:                                         ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile

.PHONY: all tests test portable asan bench scaling diff docs loc clean help
