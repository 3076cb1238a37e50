CC ?= gcc
CFLAGS = -std=c11 -O3 -march=native -fno-math-errno -ffp-contract=off -Wall -Wextra
build/aligner: aligner.c
	mkdir -p build
	$(CC) $(CFLAGS) -fopenmp aligner.c -o $@ -lm
