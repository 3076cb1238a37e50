// kernels_portable.c: the checks of tests/kernels.c on the plain C tile, for processors without
// AVX2.
#undef SIMD
#define SIMD 0
#include "kernels.c"
