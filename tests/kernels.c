// kernels.c: the matmul on awkward sizes, bit for bit and against double precision; exp, dot,
// softmax; attention with and without a cache. tests/kernels_avx2.c and tests/kernels_portable.c
// run the same checks on the narrower tiles: each is held to the chain of its multiply-adds, and
// those of AVX-512, AVX2 and NEON are the same.
#include "test.h"

enum { PLAIN = WIDTH == 4 && MR == 6 };             // the tile without a fused multiply-add
static float multiply_add(float a, float b, float c) {
    return PLAIN ? a * b + c : fmaf(a, b, c);
}

enum { POOL = 1 << 18, THREADS = 3, PAD = 3 };
static uint64_t seed = 5;
static float pool[2][POOL], given[POOL], result[POOL], again[POOL], panels[POOL];

static void fill(float *x, size_t n, double size) {
    for (size_t i = 0; i < n; i++) x[i] = (float)(size * (2 * random_unit(&seed) - 1));
}

// What chapter 7 promises for one result: blocks of KC in order, and inside a block k in order from
// 0.
static float by_the_rule(Matrix A, Matrix B, int i, int j, int K, float c, bool add) {
    for (int p0 = 0; p0 < K; p0 += KC) {
        float r = 0;
        for (int p = p0; p < least(K, p0 + KC); p++)
            r = multiply_add(A.p[i * A.row + p * A.col], B.p[p * B.row + j * B.col], r);
        c = add || p0 ? r + c : r;
    }
    return c;
}

static Matrix packed(Matrix B, int K, int N) {
    CHECK(packed_size(K, N) <= POOL, "%d x %d is too large for this test", K, N);
    pack_all(panels, B, K, N);
    B.panels = panels;
    B.panel = (size_t)K * NR;
    return B;
}

// One product, computed in every way in which the passes compute it.
static void one_product(const char *what, Matrix A, Matrix B, int M, int N, int K, bool add) {
    size_t ldc = (size_t)N + PAD, n = (size_t)M * ldc;          // PAD columns that nobody may touch
    double worst = 0;
    bool bits = true;
    memcpy(result, given, n * sizeof *result);
    matmul(result, ldc, A, B, M, N, K, add);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < (int)ldc; j++) {
            float *at = result + (size_t)i * ldc + j, old = given[(size_t)i * ldc + (size_t)j];
            float want = j < N ? by_the_rule(A, B, i, j, K, old, add) : old;
            double exact = add ? (double)old : 0, size = fabs(exact);
            for (int p = 0; p < K && j < N; p++) {
                double a = (double)A.p[i * A.row + p * A.col];
                double product = a * (double)B.p[p * B.row + j * B.col];
                exact += product;
                size += fabs(product);
            }
            bits = bits && same_bits(at, &want, 1);
            if (j < N) worst = fmax(worst, fabs((double)*at - exact) / size);
        }
    OK(bits, "%s %d x %d x %d, add %d: not the plain sum in order", what, M, N, K, add);
    OK(worst < 2e-6, "%s %d x %d x %d, add %d: off by %g", what, M, N, K, add, worst);

    const Matrix P = packed(B, K, N);
    memcpy(again, given, n * sizeof *again);
    matmul(again, ldc, A, P, M, N, K, add);
    OK(same_bits(again, result, n), "%s %d x %d x %d: packed weights, other bits", what, M, N, K);
    memcpy(again, given, n * sizeof *again);
    for (int i = 0; i < M; i++)
        matmul(again + (size_t)i * ldc, ldc, from(A, i, 0), P, 1, N, K, add);
    OK(same_bits(again, result, n), "%s %d x %d x %d: row by row, other bits", what, M, N, K);
}

static void products(int M, int N, int K) {
    const float *a = pool[0], *b = pool[1];
    const Matrix strided_a = { .p = a, .row = 2 * K + 1, .col = 2 };
    const Matrix strided_b = { .p = b, .row = 3, .col = 3 * K + 5 };
    for (int add = 0; add < 2; add++) {
        one_product("Y = X W^T", rows_of(a, K), transposed(rows_of(b, K)), M, N, K, add);
        one_product("dX = dY W", rows_of(a, K), rows_of(b, N), M, N, K, add);
        one_product("dW = dY^T X", transposed(rows_of(a, M)), rows_of(b, N), M, N, K, add);
    }
    one_product("strided", strided_a, strided_b, M, N, K, true);
}

// The same product by a team and by one thread; gemm itself, as matmul leaves small products to
// one.
static void threads_agree(int threads, int M, int N, int K) {
    const Matrix A = transposed(rows_of(pool[0], M)), B = rows_of(pool[1], N), P = packed(B, K, N);
    size_t n = (size_t)M * (size_t)N, ldc = (size_t)N;
    memcpy(result, given, n * sizeof *result);
    gemm(0, 1, M, N, K, A, B, result, ldc, true);
    for (int use_panels = 0; use_panels < 2; use_panels++) {
        memcpy(again, given, n * sizeof *again);
        #pragma omp parallel num_threads(threads)
        gemm(omp_get_thread_num(), omp_get_num_threads(), M, N, K, A, use_panels ? P : B, again,
             ldc, true);
        OK(same_bits(again, result, n), "%d x %d x %d, packed %d: other bits with %d threads", M, N,
           K, use_panels, threads);
    }
}

static void the_matmul(void) {
    static const int size[] = { 1, 3, 7, 8, 9, 31, 64, 65 };
    static const int large[][3] = { { 1, 17, KC + 1 }, { 1, 70, 700 },  { 5, 33, KC },
                                    { 13, 40, 600 },   { 97, 16, 256 }, { 200, 48, 513 },
                                    { 6, 300, 65 },    { 7, 22, 700 },  { 7, NC + 70, 33 } };
    const int n_large = sizeof large / sizeof *large;
    set_threads(1);
    for (int i = 0; i < 512; i++) products(size[i / 64], size[i / 8 % 8], size[i % 8]);
    for (int i = 0; i < n_large; i++) products(large[i][0], large[i][1], large[i][2]);
    for (int threads = 2; threads <= THREADS; threads++) {
        for (int i = 0; i < 27; i++)
            threads_agree(threads, size[i / 9 * 3 + 1], size[i / 3 % 3 * 3 + 1], size[i % 3 * 3]);
        for (int i = 0; i < n_large; i++)
            threads_agree(threads, large[i][0], large[i][1], large[i][2]);
    }

    // Big enough for matmul to start its threads, through the two functions that the passes call.
    enum { T = 50, N = 70, K = 90 };
    static float X[T * K], Y[T * N], dX[T * K], dW[N * K], first[3][N * K];
    for (int threads = 1; threads <= THREADS; threads++) {
        set_threads(threads);
        memset(dW, 0, sizeof dW);
        memcpy(X, pool[0], sizeof X);
        linear(Y, X, pool[1], false, T, N, K, false);
        linear_backward(dX, dW, Y, X, pool[1], T, N, K);
        float *made[] = { Y, dX, dW };
        static const size_t n[] = { T * N, T * K, N * K };
        for (int i = 0; i < 3; i++) {
            if (threads == 1) copy_floats(first[i], made[i], n[i]);
            else
                OK(same_bits(made[i], first[i], n[i]), "linear: other bits with %d threads",
                   threads);
        }
    }
}

static void exponential(void) {
    double worst = 0;
    float falling = 0;
    bool zero = true;
    union { float f; uint32_t u; } x;
    for (int sign = 0; sign < 2; sign++)
        for (x.u = 0; x.u < 0x42B00000u; x.u += 997) { // 0 to 88 in a million steps of the bits
            float v = sign ? -x.f : x.f, e = exp_f32(v);
            zero = zero && (v >= -87 || e == 0);
            if (v < -87) continue;
            worst = fmax(worst, fabs((double)e / exp((double)v) - 1));
            falling = fmaxf(falling, exp_f32(nextafterf(v, -100)) / e - 1);
        }
    OK(zero, "exp_f32 below -87 is not 0");
    OK(worst < 0x1p-22, "exp_f32 is off by %g; 2 units in the last place are 2.4e-7", worst);
    OK(exp_f32(0) == 1 && exp_f32(-INFINITY) == 0 && isfinite(exp_f32(INFINITY)), "0, -inf, inf");
    OK(isnan(exp_f32(NAN)), "exp_f32(NaN) is a number");
    OK(falling < 1e-6f, "exp_f32 falls by %g", (double)falling);
}

static void sums(void) {
    double most = 0;
    for (int n = 0; n <= 70; n++) {
        float z[72], stats[2];
        double exact = 0, size = 1e-30, sum = 0, total = 0, worst = 0;
        for (int i = 0; i < n; i++) {
            double product = (double)pool[0][i] * (double)pool[1][i];
            exact += product;
            size += fabs(product);
        }
        most = fmax(most, fabs((double)dot(pool[0], pool[1], n) - exact) / size);
        if (!n) continue;
        for (int i = 0; i < 72; i++) z[i] = 30 * pool[0][i + n];
        for (int i = 0; i < n; i++) total += exp(30 * (double)pool[0][i + n]);
        softmax(z, n, stats);
        for (int i = 0; i < n; i++) {
            sum += (double)z[i];
            worst = fmax(worst, fabs((double)z[i] - exp(30 * (double)pool[0][i + n]) / total));
        }
        OK(fabs(sum - 1) < 1e-6 && worst < 3e-6, "softmax of %d: sum 1 + %g, off by %g", n, sum - 1,
           worst);
        OK(fabs((double)stats[0] - log((double)stats[1]) - log(total)) < 1e-5,
           "softmax of %d: max, sum", n);
    }
    OK(most < 1e-6, "dot is off by %g", most);
}

// Rows packed end to end against a naive double version; then the last one through a cache, in
// pieces.
static void the_attention(int H, int H_kv, int hs) {
    enum { LONGEST = 75, N = 4 };
    int start[] = { 0, 1, 17, 20, 20 + LONGEST }, whole[] = { 0, 0 };
    const Config c = { .C = H * hs, .H = H, .H_kv = H_kv, .L = 1 };
    const int T = start[N], ld = qkv_width(&c), last = start[N - 1];
    Batch b = { .T = T, .n = N, .start = start }, piece = { .n = 1, .start = whole };
    float *qkv = pool[0], *out = result;
    double worst = 0, p[LONGEST];
    fill(qkv, (size_t)(T * ld), 2);
    attention(out, NULL, qkv, &c, &b, NULL, 0);
    for (int e = 0; e < N; e++)
        for (int i = start[e]; i < start[e + 1]; i++)
            for (int h = 0; h < H; h++) {
                const float *q = qkv + i * ld + h * hs, *k = qkv + (H + h / (H / H_kv)) * hs;
                const float *v = k + H_kv * hs;
                double sum = 0;
                for (int j = start[e]; j <= i; j++) {
                    double s = 0;
                    for (int d = 0; d < hs; d++) s += (double)q[d] * (double)k[j * ld + d];
                    sum += p[j - start[e]] = exp(s / sqrt(hs));
                }
                for (int d = 0; d < hs; d++) {
                    double o = 0;
                    for (int j = start[e]; j <= i; j++)
                        o += p[j - start[e]] / sum * (double)v[j * ld + d];
                    worst = fmax(worst, fabs(o - (double)out[i * c.C + h * hs + d]));
                }
            }
    OK(worst < 5e-6, "attention with %d/%d heads of %d is off by %g", H, H_kv, hs, worst);

    for (int step = 1; step <= LONGEST; step = step < 7 ? step + 1 : step * 3) {    // tokens a pass
        Cache cache = { .capacity = LONGEST + 21 };                                 // room to spare
        cache.keys = zalloc((size_t)H_kv * packed_size(hs, cache.capacity), sizeof(float));
        cache.values = zalloc((size_t)H_kv * packed_size(cache.capacity, hs), sizeof(float));
        for (; cache.len < LONGEST; cache.len += piece.T) {
            piece.T = whole[1] = least(LONGEST - cache.len, step);
            attention(again + cache.len * c.C, NULL, qkv + (last + cache.len) * ld, &c, &piece,
                      &cache, 0);
        }
        OK(same_bits(again, out + last * c.C, (size_t)(LONGEST * c.C)),
           "%d tokens a pass: other bits", step);
        FREE(cache.keys, cache.values);
    }
}

int main(void) {
    fill(pool[0], POOL, 1);
    fill(pool[1], POOL, 1);
    fill(given, POOL, 1);
    exponential();
    sums();
    the_matmul();
    the_attention(4, 4, 6);
    the_attention(4, 2, 8);
    the_attention(3, 1, 16);
    the_attention(2, 1, 20);
    return done(WIDTH == 16 ? "kernels (AVX-512 tile)" : WIDTH == 8 ? "kernels (AVX2 tile)"
                : PLAIN ? "kernels (plain C tile)" : "kernels (NEON tile)");
}
