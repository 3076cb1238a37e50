// kernels_portable.c - the checks of tests/kernels.c on the plain C tile, which runs where there is no AVX2.
#define PORTABLE
#include "kernels.c"
