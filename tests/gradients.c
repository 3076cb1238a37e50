// gradients.c - every backward pass against central differences, which are taken of the same function written a second
// time, plainly and in double precision: f32 would be too coarse. VERBOSE=1 shows the worst relative errors.
#include "reference.h"

static double X[MOST], W[MOST], Y[MOST], U[MOST];       // input, weights, output, dY: the scalar is the sum of U Y
static float x[MOST], w[MOST], y[MOST], u[MOST], dx[MOST], dw[MOST];    // the same in f32, and gradients under test
static int T, C, N, n_examples, start[9];
static Heads heads;

// Random numbers that are the same in both precisions.
static void fill(double *wide, float *narrow, int n, double size)
{
    for (int i = 0; i < n; i++) wide[i] = (double)(narrow[i] = (float)(size * (2 * random_unit(&seed) - 1)));
}

static void forward_agrees(const char *what, int n)
{
    double worst = 0, size = 0;
    for (int i = 0; i < n; i++) worst = fmax(worst, fabs((double)y[i] - Y[i])), size = fmax(size, fabs(Y[i]));
    OK(worst <= 2e-6 * size && size > 0, "%s: forward is off by %g of %g", what, worst, size);
}

static double dot_U(int n)
{
    double s = 0;
    for (int i = 0; i < n; i++) s += U[i] * Y[i];
    return s;
}

static double f_rmsnorm(void) { return ref_rmsnorm(Y, X, W, T, C, 1e-5), dot_U(T * C); }
static double f_swiglu(void) { return ref_swiglu(Y, X, T, C), dot_U(T * C); }
static double f_linear(void) { return ref_linear(Y, X, W, T, N, C, false), dot_U(T * N); }

static double f_rope(void)
{
    memcpy(Y, X, sizeof Y);
    ref_rope(Y, T, heads.ld, 3, heads.hs, 10000);
    return dot_U(T * heads.ld);
}

static double f_cross_entropy(void)
{
    double s = 0;
    for (int t = 0; t < T; t++) s += ref_nll(X + t * N, pos[t], C) / 10;
    return s;
}

static double f_attention(void)
{
    for (int e = 0; e < n_examples; e++)
        ref_attention(Y + start[e] * heads.H * heads.hs, X + start[e] * heads.ld, heads, start[e + 1] - start[e]);
    return dot_U(T * heads.H * heads.hs);
}

static void small_kernels(void)
{
    static const int sizes[] = { 2, 8, 19, 70 };
    Scratch s = { NULL, GEMM_SIZE };
    s.own = zalloc((size_t)max_threads() * s.own_size, sizeof(float));
    for (int i = 0; i < 4; i++) {
        float r[8], *angle = zalloc(256 * 8, sizeof *angle);
        T = 7, C = sizes[i], N = 21;
        fill(X, x, T * C, 2), fill(W, w, C, 2), fill(U, u, T * C, 1);
        memset(dx, 0, sizeof dx), memset(dw, 0, sizeof dw);
        rmsnorm(y, r, x, w, T, C, 1e-5f), rmsnorm_backward(dx, dw, u, x, r, w, T, C);
        f_rmsnorm(), forward_agrees("rmsnorm", T * C);
        gradient_agrees("rmsnorm dx", f_rmsnorm, X, dx, (size_t)(T * C), 0);
        gradient_agrees("rmsnorm dw", f_rmsnorm, W, dw, (size_t)C, 0);

        fill(X, x, 2 * T * C, 4);
        swiglu(y, x, T, C), swiglu_backward(x, u, T, C);        // dgu replaces gu
        f_swiglu(), forward_agrees("swiglu", T * C);
        gradient_agrees("swiglu", f_swiglu, X, x, (size_t)(2 * T * C), 0);

        fill(X, x, T * C, 1), fill(W, w, N * C, 1), fill(U, u, T * N, 1);
        memset(dx, 0, sizeof dx), memset(dw, 0, sizeof dw);
        linear(&s, y, x, w, NULL, T, N, C, false);
        linear_backward(&s, dx, dw, u, x, w, (int[]){ 0, T }, T, N, C);
        f_linear(), forward_agrees("linear", T * N);
        gradient_agrees("linear dX", f_linear, X, dx, (size_t)(T * C), 0);
        gradient_agrees("linear dW", f_linear, W, dw, (size_t)(N * C), 0);
        linear_backward(&s, dx, dw, u, x, w, (int[]){ 0, T }, T, N, C);    // dW adds: twice the gradient, as with U doubled
        for (int j = 0; j < T * N; j++) U[j] *= 2;
        gradient_agrees("linear dW added", f_linear, W, dw, (size_t)(N * C), 0);

        heads = (Heads){ 2, 1, 8, 30 };                         // 3 heads of 8 turn, 6 further values of a row do not
        for (int t = 0; t < T; t++) pos[t] = 31 * t;
        for (int j = 0; j < 256 * 8; j += 2) {
            double a = j / 8 * pow(10000, -(j % 8) / 8.0);
            angle[j] = (float)cos(a), angle[j + 1] = (float)sin(a);
        }
        fill(X, x, T * 30, 1), fill(U, u, T * 30, 1);
        memcpy(y, x, sizeof y), rope(y, pos, angle, T, 30, 3, 8, +1), rope(u, pos, angle, T, 30, 3, 8, -1);
        f_rope(), forward_agrees("rope", T * 30);
        gradient_agrees("rope", f_rope, X, u, (size_t)(T * 30), 0);

        double nll[8], sum = 0;
        N = (C + 7) / 8 * 8;                                    // row length; 7 of the 10 targets of a mean
        for (int t = 0; t < T; t++) pos[t] = (int)(random_u64(&seed) % (uint64_t)C);
        fill(X, x, T * N, 3);
        cross_entropy(x, nll, pos, T, C, N, 10);
        for (int t = 0; t < T; t++) sum += nll[t] / 10;
        OK(fabs(sum - f_cross_entropy()) < 1e-6 * sum, "cross entropy is %.9f, should be %.9f", sum, f_cross_entropy());
        for (int t = 0; t < T; t++) for (int j = C; j < N; j++) x[t * N + j] = 0;      // beyond V stands anything
        gradient_agrees("cross entropy", f_cross_entropy, X, x, (size_t)(T * N), 0);
        for (int t = 0; t < T; t++)
            for (int j = 0; j < C; j++) OK((x[t * N + j] < 0) == (j == pos[t]), "only the target's logit is pushed up");
        free(angle);
    }
    free(s.own);
}

// Examples of the given lengths, packed: on both sides of NR (16 or 32) and of QB = 24.
static void attention_kernel(int H, int H_kv, int hs)
{
    static const int length[] = { 1, 16, 32, 17, 24, 25, 33, 113 };
    n_examples = 8, T = 0;
    for (int e = 0; e < n_examples; e++) start[e + 1] = T += length[e];
    heads = (Heads){ H, H_kv, hs, (H + 2 * H_kv) * hs };
    int width = H * hs, ld = heads.ld;
    float *stats = zalloc((size_t)(T * H * 2), sizeof *stats);
    Scratch s = { NULL, own_scratch_size(hs, 113) };
    s.own = zalloc((size_t)max_threads() * s.own_size, sizeof(float));
    fill(X, x, T * ld, 2), fill(U, u, T * width, 1);
    attention(&s, y, stats, x, heads, start, n_examples, NULL, NULL, 0, 0);
    memset(dx, 0x55, sizeof dx);                                // garbage, which must be written over
    attention_backward(&s, dx, u, y, stats, x, heads, start, n_examples);
    f_attention(), forward_agrees("attention", T * width);
    gradient_agrees("attention", f_attention, X, dx, (size_t)(T * ld), 80);
    gradient_agrees("attention, short examples", f_attention, X, dx, (size_t)(start[4] * ld), 40);

    // dO at one query of the last example only: nothing in other examples, nothing behind that query, is touched.
    int last = start[n_examples - 1], query = last + 60;
    memset(u, 0, sizeof u);
    for (int i = 0; i < width; i++) u[query * width + i] = 1;
    attention_backward(&s, dx, u, y, stats, x, heads, start, n_examples);
    long wrong = 0, zeros = 0;
    for (int t = 0; t < T; t++)
        for (int i = 0; i < ld; i++) {
            bool zero = t < last || t > query || (i < width && t != query);
            wrong += zero && dx[t * ld + i] != 0, zeros += !zero && dx[t * ld + i] == 0;
        }
    OK(!wrong, "%ld gradients should be exactly zero", wrong);
    OK(!zeros, "%ld gradients should not be zero", zeros);
    free(stats), free(s.own);
}

// The whole model, one example after the other, straight from the rows.
static const Model *M;
static const Row *rows;
static int n_rows;
static double *P;                                       // its parameters

static double ref_loss(void)
{
    double sum = 0;
    int targets = 0;
    for (int e = 0; e < n_rows; e++) sum += ref_row(M, P, &rows[e], NULL), targets += rows[e].n - rows[e].n_condition;
    return sum / targets;
}

static void whole_model(bool tied)
{
    Config c = { 41, 16, 2, 4, 2, 22, 64, tied, 1e-5f, 10000 };
    static const int condition[] = { 1, 9, 34, 17 }, length[] = { 2, 21, 54, 18 };
    Model m;
    Batch b;
    Row r[4];
    random_model(&m, c, 3 + tied);
    batch_alloc(&b, 128, 4, 128);
    for (int e = 0; e < 4; e++) {
        r[e] = random_row(30, condition[e], length[e], &seed);
        r[e].ids[r[e].n - 1] = 30 + e;                          // 30..33 are predicted, never read
        batch_add(&b, &r[e]);
    }
    acts_reserve(&m, b.T, b.n_out, 53, true);
    m.grads = zalloc(m.n_params, sizeof(float));
    double nll[128], loss;
    forward(&m, &b, NULL);
    loss = loss_sum(&m, &b, nll, b.n_out) / b.n_out;
    backward(&m, &b);

    M = &m, rows = r, n_rows = 4, P = zalloc(m.n_params, sizeof *P);
    for (size_t i = 0; i < m.n_params; i++) P[i] = (double)m.params[i];
    OK(b.n_out == 1 + 12 + 20 + 1, "%d logit rows: one for each target token was expected", b.n_out);
    OK(fabs(loss - ref_loss()) < 1e-6 * loss, "the loss is %.9f, should be %.9f", loss, ref_loss());
    for (size_t i = 0; i < m.n_tensors; i++) {
        const Tensor *t = &m.tensor[i];
        size_t n = (size_t)t->rows * (size_t)t->cols;
        gradient_agrees(t->name, ref_loss, P + t->at, m.grads + t->at, n, t->rows == 1 ? 0 : 40);
    }
    for (int id = 0; id < c.V; id++) {                   // a tied head reaches every embedding, else what is read
        long used = 0, zeros = 0;
        for (int t = 0; t < b.T; t++) used += b.ids[t] == id;
        for (int i = 0; i < c.C; i++) zeros += m.grads[m.embd_at + (size_t)(id * c.C + i)] == 0;
        OK(zeros == (used || tied ? 0 : c.C), "token %d, read %ld times, has %ld zeros", id, used, zeros);
    }
    for (int e = 0; e < 4; e++) free(r[e].ids);
    free(P), batch_free(&b), model_free(&m);
}

int main(void)
{
    set_threads(1);                                             // tests/kernels.c looks after threads
    small_kernels();
    attention_kernel(4, 4, 6), attention_kernel(6, 2, 8), attention_kernel(2, 1, 20);
    whole_model(false), whole_model(true);
    return done("gradients");
}
