// kernels_portable.c - the checks of tests/kernels.c on the plain C tile, which runs where there is no AVX2.
#undef SIMD
#define SIMD 0
#include "kernels.c"
