// kernels.c - the matmul on awkward sizes, bit for bit and against double precision; exp, dot, softmax; attention with
// and without a cache. tests/kernels_avx2.c and tests/kernels_portable.c run the same checks on the narrower tiles: each
// is held to the chain of its multiply-adds, and those of AVX-512 and AVX2 are the same.
#include "test.h"

#if SIMD
static float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
#else
static float multiply_add(float a, float b, float c) { return a * b + c; }
#endif

enum { POOL = 1 << 18, THREADS = 3, PAD = 3 };
static uint64_t seed = 5;
static float pool[2][POOL], given[POOL], result[POOL], again[POOL], packed[POOL];
static Scratch scratch;

static bool same_bits(const float *a, const float *b, size_t n) { return !memcmp(a, b, n * sizeof *a); }

static void fill(float *x, size_t n, double size)
{
    for (size_t i = 0; i < n; i++) x[i] = (float)(size * (2 * random_unit(&seed) - 1));
}

// What the header of chapter 3 promises for one result: equal blocks of K in order, and inside a block k in order from zero.
static float by_the_rule(View A, View B, int i, int j, int K, float c, bool add)
{
    int rows = block_rows(K);
    for (int p0 = 0; p0 < K; p0 += rows) {
        float r = 0;
        for (int p = p0; p < K && p < p0 + rows; p++)
            r = multiply_add(A.p[i * A.row + p * A.col], B.p[p * B.row + j * B.col], r);
        c = add || p0 ? r + c : r;
    }
    return c;
}

// One product, computed in every way in which the passes compute it.
static void one_product(const char *view, View A, View B, int M, int N, int K, bool add)
{
    size_t ldc = (size_t)N + PAD, n = (size_t)M * ldc;          // PAD columns that nobody may touch
    double worst = 0;
    bool bits = true;
    memcpy(result, given, n * sizeof *result);
    matmul(&scratch, result, ldc, A, B, NULL, M, N, K, add);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < (int)ldc; j++) {
            float *at = result + (size_t)i * ldc + j, old = given[(size_t)i * ldc + (size_t)j];
            float want = j < N ? by_the_rule(A, B, i, j, K, old, add) : old;
            double exact = add ? (double)old : 0, size = fabs(exact);
            for (int p = 0; p < K && j < N; p++) {
                double product = (double)A.p[i * A.row + p * A.col] * (double)B.p[p * B.row + j * B.col];
                exact += product, size += fabs(product);
            }
            bits = bits && same_bits(at, &want, 1);
            if (j < N) worst = fmax(worst, fabs((double)*at - exact) / size);
        }
    OK(bits, "%s %d x %d x %d, add %d: not the bits of the plain sum in order", view, M, N, K, add);
    OK(worst < 2e-6, "%s %d x %d x %d, add %d: off by %g", view, M, N, K, add, worst);

    memcpy(again, given, n * sizeof *again);
    pack_all(packed, B, K, N);
    matmul(&scratch, again, ldc, A, B, packed, M, N, K, add);
    OK(same_bits(again, result, n), "%s %d x %d x %d: other bits from packed weights", view, M, N, K);
    memcpy(again, given, n * sizeof *again);
    for (int i = 0; i < M; i++)
        matmul(&scratch, again + (size_t)i * ldc, ldc, (View){ A.p + i * A.row, 0, A.col }, B, packed, 1, N, K, add);
    OK(same_bits(again, result, n), "%s %d x %d x %d: other bits row by row", view, M, N, K);
}

static void products(int M, int N, int K)
{
    const float *a = pool[0], *b = pool[1];
    for (int add = 0; add < 2; add++) {
        one_product("Y = X W^T", (View){ a, K, 1 }, (View){ b, 1, K }, M, N, K, add);
        one_product("dX = dY W", (View){ a, K, 1 }, (View){ b, N, 1 }, M, N, K, add);
        one_product("dW = dY^T X", (View){ a, 1, M }, (View){ b, N, 1 }, M, N, K, add);
    }
    one_product("strided", (View){ a, 2 * K + 1, 2 }, (View){ b, 3, 3 * K + 5 }, M, N, K, true);
}

// The same product by a team of threads and by one; gemm itself, since matmul leaves small products to one thread.
static void threads_agree(int threads, int M, int N, int K)
{
    View A = { pool[0], 1, M }, B = { pool[1], N, 1 };
    size_t n = (size_t)M * (size_t)N;
    memcpy(result, given, n * sizeof *result), memcpy(again, given, n * sizeof *again);
    gemm(0, 1, M, N, K, A, B, NULL, result, (size_t)N, true, own_scratch(&scratch));
    #pragma omp parallel num_threads(threads)
    gemm(thread_rank(), team_size(), M, N, K, A, B, NULL, again, (size_t)N, true, own_scratch(&scratch));
    OK(same_bits(again, result, n), "%d x %d x %d: other bits with %d threads", M, N, K, threads);
    memcpy(again, given, n * sizeof *again);
    pack_all(packed, B, K, N);
    #pragma omp parallel num_threads(threads)
    gemm(thread_rank(), team_size(), M, N, K, A, B, packed, again, (size_t)N, true, own_scratch(&scratch));
    OK(same_bits(again, result, n), "%d x %d x %d: other bits from packed weights with %d threads", M, N, K, threads);
}

static void the_matmul(void)
{
    static const int size[] = { 1, 3, 7, 8, 9, 31, 64, 65 };
    static const int large[][3] = { { 1, 17, 257 }, { 1, 70, 700 }, { 5, 33, 300 }, { 13, 40, 600 }, { 97, 16, 256 },
                                    { 200, 48, 513 }, { 6, 300, 65 }, { 7, 22, 700 }, { 7, NC + 70, 33 } };
    const int n_large = sizeof large / sizeof *large;
    set_threads(1);
    for (int i = 0; i < 512; i++) products(size[i / 64], size[i / 8 % 8], size[i % 8]);
    for (int i = 0; i < n_large; i++) products(large[i][0], large[i][1], large[i][2]);
    for (int threads = 2; threads <= THREADS; threads++) {
        for (int i = 0; i < 27; i++)
            threads_agree(threads, size[i / 9 * 3 + 1], size[i / 3 % 3 * 3 + 1], size[i % 3 * 3]);
        for (int i = 0; i < n_large; i++) threads_agree(threads, large[i][0], large[i][1], large[i][2]);
    }

    // Big enough for matmul to start its threads, through the two functions that the passes call.
    int T = 50, N = 70, K = 90;
    static float X[50 * 90], Y[50 * 70], dX[50 * 90], dW[70 * 90], first[3][70 * 90];
    for (int threads = 1; threads <= THREADS; threads++) {
        set_threads(threads);
        memset(dW, 0, sizeof dW), memcpy(X, pool[0], sizeof X);
        linear(&scratch, Y, X, pool[1], NULL, T, N, K, false);
        linear_backward(&scratch, dX, dW, Y, X, pool[1], (int[]){ 0, T }, T, N, K);
        float *made[] = { Y, dX, dW };
        static const size_t n[] = { 50 * 70, 50 * 90, 70 * 90 };
        for (int i = 0; i < 3; i++)
            if (threads == 1) copy_floats(first[i], made[i], n[i]);
            else OK(same_bits(made[i], first[i], n[i]), "linear and its backward: other bits with %d threads", threads);
    }
}

static void small_functions(void)
{
    double worst = 0, most = 0;
    float falling = 0;
    union { float f; uint32_t u; } x;
    for (int sign = 0; sign < 2; sign++)
        for (x.u = 0; x.u < 0x42B00000u; x.u += 997) {                  // 0 to 88 in a million steps of the bits
            float v = sign ? -x.f : x.f, e = exp_f32(v);
            if (v < -87) { OK(e == 0, "exp_f32(%g) is %g, not 0", (double)v, (double)e); continue; }
            worst = fmax(worst, fabs((double)e / exp((double)v) - 1));
            falling = fmaxf(falling, exp_f32(nextafterf(v, -100)) / e - 1);
        }
    OK(worst < 0x1p-22, "exp_f32 is off by %g; 2 units in the last place are 2.4e-7", worst);
    OK(exp_f32(0) == 1 && exp_f32(-INFINITY) == 0 && isfinite(exp_f32(INFINITY)), "exp_f32 at 0, -inf, inf");
    OK(isnan(exp_f32(NAN)), "exp_f32(NaN) is a number");
    OK(falling < 1e-6f, "exp_f32 falls by %g", (double)falling);

    for (int n = 0; n <= 70; n++) {
        float z[72], top, inv;
        double exact = 0, size = 1e-30, sum = 0, total = 0;
        for (int i = 0; i < n; i++) {
            double product = (double)pool[0][i] * (double)pool[1][i];
            exact += product, size += fabs(product);
        }
        most = fmax(most, fabs((double)dot(pool[0], pool[1], n) - exact) / size);
        if (!n) continue;
        for (int i = 0; i < 72; i++) z[i] = 30 * pool[0][i + n];
        for (int i = 0; i < n; i++) total += exp(30 * (double)pool[0][i + n]);
        softmax(z, n, &top, &inv);
        worst = 0;
        for (int i = 0; i < n; i++) {
            sum += (double)z[i];
            worst = fmax(worst, fabs((double)z[i] - exp(30 * (double)pool[0][i + n]) / total));
        }
        OK(fabs(sum - 1) < 1e-6 && worst < 3e-6, "softmax of %d: sum 1 + %g, off by %g", n, sum - 1, worst);
        OK(fabs((double)top - log((double)inv) - log(total)) < 1e-5, "softmax of %d: max and 1/sum are wrong", n);
    }
    OK(most < 1e-6, "dot is off by %g", most);
}

// Examples packed end to end against a naive double version; then the last one again through a cache, in pieces.
static void the_attention(int H, int H_kv, int hs)
{
    enum { LONGEST = 75 };
    static const int start[] = { 0, 1, 17, 20, 20 + LONGEST };
    int T = start[4], ld = (H + 2 * H_kv) * hs, width = H * hs, whole[] = { 0, 0 };
    size_t n_last = (size_t)(LONGEST * width);
    Heads a = { H, H_kv, hs, ld };
    float *qkv = pool[0], *out = result, *piece = again;
    fill(qkv, (size_t)(T * ld), 2);
    attention(&scratch, out, NULL, qkv, a, start, 4, NULL, NULL, 0, 0);
    double worst = 0, p[LONGEST];
    for (int e = 0; e < 4; e++)
        for (int i = start[e]; i < start[e + 1]; i++)
            for (int h = 0; h < H; h++) {
                double sum = 0;
                const float *q = qkv + i * ld + h * hs, *k = qkv + (H + h / (H / H_kv)) * hs, *v = k + H_kv * hs;
                for (int j = start[e]; j <= i; j++) {
                    double s = 0;
                    for (int d = 0; d < hs; d++) s += (double)q[d] * (double)k[j * ld + d];
                    sum += p[j - start[e]] = exp(s / sqrt(hs));
                }
                for (int d = 0; d < hs; d++) {
                    double o = 0;
                    for (int j = start[e]; j <= i; j++) o += p[j - start[e]] / sum * (double)v[j * ld + d];
                    worst = fmax(worst, fabs(o - (double)out[i * width + h * hs + d]));
                }
            }
    OK(worst < 5e-6, "attention with %d/%d heads of %d is off by %g", H, H_kv, hs, worst);

    for (int step = 1; step <= LONGEST; step = step < 7 ? step + 1 : step * 3) {        // tokens a pass
        int capacity = LONGEST + 21;                            // room to spare
        float *k = zalloc((size_t)H_kv * key_panels(hs, capacity), sizeof *k);
        float *v = zalloc((size_t)H_kv * value_panels(hs, capacity), sizeof *v);
        for (int at = 0; at < LONGEST; at += step) {
            whole[1] = LONGEST - at < step ? LONGEST - at : step;
            attention(&scratch, piece + at * width, NULL, qkv + (start[3] + at) * ld, a, whole, 1, k, v, capacity, at);
        }
        OK(same_bits(piece, out + start[3] * width, n_last), "attention, %d tokens a pass: other bits", step);
        free(k), free(v);
    }
}

int main(void)
{
    fill(pool[0], POOL, 1), fill(pool[1], POOL, 1), fill(given, POOL, 1);
    int threads = max_threads() > THREADS ? max_threads() : THREADS;
    scratch.own_size = own_scratch_size(32, 128);
    scratch.own = zalloc((size_t)threads * scratch.own_size, sizeof(float));
    small_functions();
    the_matmul();
    the_attention(4, 4, 6), the_attention(4, 2, 8), the_attention(3, 1, 16), the_attention(2, 1, 20);
    free(scratch.own);
    return done(SIMD == 512 ? "kernels (AVX-512 tile)" : SIMD ? "kernels (AVX2 tile)" : "kernels (plain C tile)");
}
