# aligner.c: `make` builds the programs, `make test` runs the tests, `make help` lists the rest.
B       = build
SECONDS = 60

# No code here reads floating-point exception flags, or the errno of math functions. Giving both up
# lets the compiler vectorize loops with comparisons and, unlike -ffast-math, changes no result.
BASE    = -std=c11 -O3 -fno-math-errno -fno-trapping-math -ffp-contract=off
WARN    = -Wall -Wextra -Wno-unknown-pragmas

# Two options for speed, used if a probe finds them: the processor's own vector unit, and OpenMP
# (libgomp or libomp; on macOS `brew install libomp`). The probe also runs the program that it
# built, because a program can link and still not start.
probe   = $(shell mkdir -p $(B) && t=$(B)/probe.$$$$ && printf '\043include <stdio.h>\n\043ifdef _OPENMP\n\043include <omp.h>\n\043endif\nint main(void) { return 0; }\n' | \
              $(CC) -x c $(1) -o $$t - >/dev/null 2>&1 && $$t && echo '$(1)'; rm -f $$t)
first   = $(if $(1),$(1),$(2))
NATIVE := $(call first,$(call probe,-march=native),$(call probe,-mcpu=native))
OPENMP := $(call probe,-fopenmp)
ifeq ($(OPENMP)$(shell uname -s 2>/dev/null),Darwin)
LIBOMP := $(shell brew --prefix libomp 2>/dev/null)
OPENMP := $(if $(LIBOMP),$(call probe,-Xpreprocessor -fopenmp -I$(LIBOMP)/include -L$(LIBOMP)/lib -lomp))
endif
CFLAGS  = $(BASE) $(WARN) $(NATIVE) $(OPENMP)

# Tests are built with -O2, because gcc 12 for aarch64 crashes on some of them at -O3. Those of the
# kernels keep the program's own options: see below.
TESTING = $(subst -O3,-O2,$(BASE)) $(WARN) $(NATIVE) $(OPENMP) -Wno-unused-function -DALIGNER_NO_MAIN
TESTS   = $(patsubst tests/%.c,$(B)/tests/%,$(filter-out tests/world.c tests/fuzz.c tests/lab.c,\
              $(wildcard tests/*.c)))
LAB     = $(patsubst tests/lab.c,$(B)/lab,$(wildcard tests/lab.c))
SANITIZE = -g -O1 -fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all
UNIT    = $(shell $(CC) $(NATIVE) -dM -E -x c /dev/null 2>/dev/null | grep -oE '__(AVX512F|AVX2|aarch64)__' | sort -r | \
              sed -e 's/__aarch64__/NEON/' -e 's/__AVX512F__/AVX-512/' -e 's/__AVX2__/AVX2/' | grep -m 1 .)

all: $(B)/aligner $(B)/world $(LAB)

$(B)/aligner: aligner.c Makefile
	@mkdir -p $(B)
	@echo "$(CC): OpenMP $(if $(OPENMP),found,not found: one thread);" \
	    "vector unit $(call first,$(UNIT),none that is used)" >&2
	$(CC) $(CFLAGS) aligner.c -o $@ -lm

$(B)/world: tests/world.c aligner.c Makefile
	@mkdir -p $(B)
	$(CC) -std=c11 -O2 $(WARN) -Wno-unused-function $(CHECKED) tests/world.c -o $@ -lm

$(B)/lab: tests/lab.c aligner.c Makefile
	@mkdir -p $(B)
	$(CC) $(CFLAGS) -Wno-unused-function -DALIGNER_NO_MAIN tests/lab.c -o $@ -lm

$(B)/tests/kernels%: TESTING = $(CFLAGS) -Wno-unused-function -DALIGNER_NO_MAIN
$(B)/tests/lab_test: tests/lab.c
$(B)/tests/%: tests/%.c $(wildcard tests/*.h) tests/kernels.c aligner.c Makefile
	@mkdir -p $(B)/tests
	$(CC) $(TESTING) $< -o $@ -lm

tests: all $(TESTS)

test:                     ## the tests, offline; ends with "N passed, N failed"
	@$(MAKE) --no-print-directory -j 2 tests
	@B=$(B) tests/run.sh

asan:                     ## the tests under the address and undefined-behaviour sanitizers
	@$(MAKE) --no-print-directory B=build/asan OPENMP= NATIVE="$(NATIVE) $(SANITIZE)" CHECKED="$(SANITIZE)" test

portable:                 ## builds without vector intrinsics and OpenMP, in build/portable
	@$(MAKE) --no-print-directory B=build/portable NATIVE=-DSIMD=0 OPENMP= all

diff:                     ## the one line between SFT and Aligner
	@tests/one_line.sh

loc:                      ## lines of code and comment, each number beside its budget
	@tests/loc.sh

bench: all                ## speed beside the machine's limits, PyTorch and llama.cpp if installed (5 min)
	@B=$(B) tests/bench.sh

fuzz: $(B)/fuzz           ## libFuzzer (clang) on every input, SECONDS=60 for each target
	@tests/fuzz.sh $(SECONDS)

$(B)/fuzz: tests/fuzz.c tests/world.c aligner.c Makefile
	@mkdir -p $(B)
	clang -std=c11 -g -O1 $(NATIVE) -fsanitize=fuzzer,address,undefined -DLIBFUZZER \
	    -fno-sanitize-recover=undefined -Wno-unused-function tests/fuzz.c -o $@ -lm

coverage:                 ## which lines of aligner.c `make test` runs (gcc, gcov)
	@rm -rf build/coverage
	@$(MAKE) --no-print-directory CC=gcc B=build/coverage OPENMP= NATIVE="$(NATIVE) -O1 --coverage" test
	@tests/coverage.py build/coverage

lint:                     ## clang-tidy and cppcheck; fails on a finding that is not explained
	@tests/lint.sh

page:                     ## build/page.html: the equations and the live Aligner, in a browser
	@command -v python3 >/dev/null || { echo "page: python3 is missing; it puts the page together" >&2; exit 2; }
	@python3 docs/page.py $(B)

docs:                     ## pages and plots of the experiments from their numbers (docs/results)
	@tests/experiments.py docs
	@tests/picture.py

clean:                    ## removes build/
	rm -rf build

help:                     ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile

.PHONY: all tests test asan portable diff loc bench fuzz coverage lint page docs clean help
