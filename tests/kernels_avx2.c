// kernels_avx2.c: the checks of tests/kernels.c on the AVX2 tile, even where the processor has
// AVX-512. Without AVX2 it is the native tile again, as in tests/kernels.c; the line that it prints
// says which.
#if defined(__AVX2__) && defined(__FMA__)
#undef SIMD
#define SIMD 256
#endif
#include "kernels.c"
