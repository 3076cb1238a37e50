// kernels_avx2.c - the checks of tests/kernels.c on the AVX2 tile, also where the processor has AVX-512.
#if defined(__AVX2__) && defined(__FMA__)
#define SIMD 256
#endif
#include "kernels.c"
