// gradients.c: every backward pass against central differences, taken of the same function written
// a second time, plainly and in double precision (tests/reference.h). VERBOSE=1 shows the worst
// relative errors.
#include "reference.h"

// Input, weights, output, and U = dY: the scalar that is differentiated is the sum of U Y.
static double X[MOST], W[MOST], Y[MOST], U[MOST];
static float x[MOST], w[MOST], y[MOST], u[MOST], dx[MOST], dw[MOST]; // in f32; gradients under test
static int T, C, N;
static Config shape;
static Batch batch;

// Random numbers that are the same in both precisions.
static void fill(double *wide, float *narrow, int n, double size) {
    for (int i = 0; i < n; i++) {
        narrow[i] = (float)(size * (2 * random_unit(&seed) - 1));
        wide[i] = (double)narrow[i];
    }
}

static void fill_all(int n_x, int n_w, int n_u, double size) {
    fill(X, x, n_x, size);
    fill(W, w, n_w, size);
    fill(U, u, n_u, 1);
    memset(dx, 0, sizeof dx);
    memset(dw, 0, sizeof dw);
}

static void forward_agrees(const char *what, int n) {
    double worst = 0, size = 0;
    for (int i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)y[i] - Y[i]));
        size = fmax(size, fabs(Y[i]));
    }
    OK(worst <= 2e-6 * size && size > 0, "%s: forward is off by %g of %g", what, worst, size);
}

static double dot_U(int n) {
    double s = 0;
    for (int i = 0; i < n; i++) s += U[i] * Y[i];
    return s;
}

static double f_rmsnorm(void) {
    ref_rmsnorm(Y, X, W, T, C, 1e-5);
    return dot_U(T * C);
}

static double f_swiglu(void) {
    ref_swiglu(Y, X, T, C);
    return dot_U(T * C);
}

static double f_linear(void) {
    ref_linear(Y, X, W, T, N, C, false);
    return dot_U(T * N);
}

static double f_rope(void) {
    memcpy(Y, X, sizeof Y);
    ref_rope(Y, T, &shape, 10000);
    return dot_U(T * qkv_width(&shape));
}

static double f_cross_entropy(void) {
    double s = 0;
    for (int t = 0; t < T; t++) s += ref_nll(X + t * N, pos[t], C) / 10;
    return s;
}

static double f_attention(void) {
    const int *start = batch.start;
    for (int e = 0; e < batch.n; e++)
        ref_attention(Y + start[e] * shape.C, X + start[e] * qkv_width(&shape), &shape,
                      start[e + 1] - start[e]);
    return dot_U(batch.T * shape.C);
}

static void the_norm(void) {
    float r[8];
    fill_all(T * C, C, T * C, 2);
    rmsnorm(y, r, x, w, T, C, 1e-5f);
    rmsnorm_backward(dx, dw, u, x, r, w, T, C);
    f_rmsnorm();
    forward_agrees("rmsnorm", T * C);
    gradient_agrees("rmsnorm dx", f_rmsnorm, X, dx, (size_t)(T * C), 0);
    gradient_agrees("rmsnorm dw", f_rmsnorm, W, dw, (size_t)C, 0);
}

static void the_gate(void) {
    fill_all(2 * T * C, 0, T * C, 4);
    swiglu(y, x, T, C);
    swiglu_backward(x, u, T, C);                // the gradient replaces gate and up
    f_swiglu();
    forward_agrees("swiglu", T * C);
    gradient_agrees("swiglu", f_swiglu, X, x, (size_t)(2 * T * C), 0);
}

static void the_matrix(void) {
    fill_all(T * C, N * C, T * N, 1);
    linear(y, x, w, false, T, N, C, false);
    linear_backward(dx, dw, u, x, w, T, N, C);
    f_linear();
    forward_agrees("linear", T * N);
    gradient_agrees("linear dX", f_linear, X, dx, (size_t)(T * C), 0);
    gradient_agrees("linear dW", f_linear, W, dw, (size_t)(N * C), 0);
    linear_backward(dx, dw, u, x, w, T, N, C);  // dW adds: twice the gradient, as with U doubled
    for (int j = 0; j < T * N; j++) U[j] *= 2;
    gradient_agrees("linear dW added", f_linear, W, dw, (size_t)(N * C), 0);
}

static void the_rotation(void) {
    Model m = {
        .c = { .C = 16, .H = 2, .H_kv = 1, .theta = 1e4f }
    }; // 3 heads of 8 turn, values do not
    shape = m.c;
    angles_reserve(&m, 256);
    for (int t = 0; t < T; t++) pos[t] = 31 * t;
    const int n = T * qkv_width(&shape);
    fill_all(n, 0, n, 1);
    memcpy(y, x, sizeof y);
    rope(y, pos, m.angle, T, &shape, +1);
    rope(u, pos, m.angle, T, &shape, -1);
    f_rope();
    forward_agrees("rope", n);
    gradient_agrees("rope", f_rope, X, u, (size_t)n, 0);
    free(m.angle);
}

static void the_loss(void) {
    double sum = 0;
    N = round_up(C, LANES); // room of a row; these are 7 of the 10 targets of a mean
    for (int t = 0; t < T; t++) pos[t] = (int)(random_u64(&seed) % (uint64_t)C);
    fill(X, x, T * N, 3);
    for (int t = 0; t < T; t++) sum += softmax_nll(x + t * N, C, pos[t], 0.1f) / 10;
    OK(fabs(sum - f_cross_entropy()) < 1e-6 * sum, "cross entropy is %.9f, should be %.9f", sum,
       f_cross_entropy());
    for (int i = 0; i < T * N; i++)
        if (i % N >= C) x[i] = 0;               // what is beyond V does not matter
    gradient_agrees("cross entropy", f_cross_entropy, X, x, (size_t)(T * N), 0);
    for (int i = 0; i < T * N; i++)
        if (i % N < C)
            OK((x[i] < 0) == (i % N == pos[i / N]), "only the target's logit is pushed up");
}

// Rows of the given lengths, packed: on both sides of NR (8, 16 or 32) and of QUERIES = 24.
static void the_attention(int H, int H_kv, int hs) {
    static const int length[] = { 1, 16, 32, 17, 24, 25, 33, 113 };
    int start[9] = { 0 };
    for (int e = 0; e < 8; e++) start[e + 1] = start[e] + length[e];
    batch = (Batch){ .T = start[8], .n = 8, .start = start };
    shape = (Config){ .C = H * hs, .H = H, .H_kv = H_kv };
    const int width = H * hs, ld = qkv_width(&shape);
    float *stats = zalloc((size_t)(batch.T * H * 2), sizeof *stats);
    fill(X, x, batch.T * ld, 2);
    fill(U, u, batch.T * width, 1);
    attention(y, stats, x, &shape, &batch, NULL, 0);
    memset(dx, 0x55, sizeof dx);                // garbage, which must be overwritten
    attention_backward(dx, u, y, stats, x, &shape, &batch);
    f_attention();
    forward_agrees("attention", batch.T * width);
    gradient_agrees("attention", f_attention, X, dx, (size_t)(batch.T * ld), 80);
    gradient_agrees("attention, short rows", f_attention, X, dx, (size_t)(start[4] * ld), 40);

    // dO at one query of the last row only: nothing in other rows and nothing after it is touched.
    const int last = start[7], query = last + 60;
    memset(u, 0, sizeof u);
    for (int i = 0; i < width; i++) u[query * width + i] = 1;
    attention_backward(dx, u, y, stats, x, &shape, &batch);
    long wrong = 0, zeros = 0;
    for (int t = 0; t < batch.T; t++)
        for (int i = 0; i < ld; i++) {
            bool zero = t < last || t > query || (i < width && t != query);
            wrong += zero && dx[t * ld + i] != 0;
            zeros += !zero && dx[t * ld + i] == 0;
        }
    OK(!wrong, "%ld gradients should be exactly zero", wrong);
    OK(!zeros, "%ld gradients should not be zero", zeros);
    free(stats);
}

// The whole model, one row after the other.
static const Model *M;
static Row rows[4];
static double *P;                               // its parameters

static double ref_loss(void) {
    double sum = 0;
    int targets = 0;
    for (int e = 0; e < 4; e++) {
        sum += ref_row(M, P, &rows[e], NULL);
        targets += rows[e].n - rows[e].n_condition;
    }
    return sum / targets;
}

// Which embeddings get a gradient: a tied head reaches all of them, else those that are read.
static void embeddings(const Model *m, const Batch *b) {
    for (int id = 0; id < m->c.V; id++) {
        long used = 0, zeros = 0;
        for (int t = 0; t < b->T; t++) used += b->ids[t] == id;
        for (int i = 0; i < m->c.C; i++) zeros += m->g.embd[id * m->c.C + i] == 0;
        OK(zeros == (used || m->c.tied ? 0 : m->c.C), "token %d, read %ld times: %ld zeros", id,
           used, zeros);
    }
}

static void whole_model(bool tied) {
    static const int condition[] = { 1, 9, 34, 17 }, length[] = { 2, 21, 54, 18 };
    Model m;
    Batch b;
    random_model(&m, (Config){ .V = 41, .C = 16, .L = 2, .H = 4, .H_kv = 2, .F = 22, .context = 64,
                               .tied = tied, .eps = 1e-5f, .theta = 1e4f }, 3 + tied);
    batch_alloc(&b, 128, 4);
    for (int e = 0; e < 4; e++) {
        rows[e] = random_row(30, condition[e], length[e], &seed);
        rows[e].ids[rows[e].n - 1] = 30 + e;    // 30..33 are predicted, never read
        batch_add(&b, &rows[e]);
    }
    grads_alloc(&m);
    acts_reserve(&m, b.T, b.n_out, 53, true);
    forward(&m, &b, NULL);
    const double loss = cross_entropy(&m, &b, b.n_out);
    backward(&m, &b);

    M = &m;
    P = zalloc(m.n_params, sizeof *P);
    for (size_t i = 0; i < m.n_params; i++) P[i] = (double)m.params[i];
    OK(b.n_out == 1 + 12 + 20 + 1, "%d rows of logits: one for each target was expected", b.n_out);
    OK(fabs(loss - ref_loss()) < 1e-6 * loss, "the loss is %.9f, should be %.9f", loss, ref_loss());
    for (size_t i = 0; i < m.n_tensors; i++) {
        const Tensor *t = &m.tensor[i];
        size_t n = (size_t)t->rows * (size_t)t->cols;
        gradient_agrees(t->name, ref_loss, P + t->at, m.grads + t->at, n, t->rows == 1 ? 0 : 40);
    }
    embeddings(&m, &b);
    for (int e = 0; e < 4; e++) free(rows[e].ids);
    free(P);
    batch_free(&b);
    model_free(&m);
}

int main(void) {
    static const int size[] = { 2, 8, 19, 70 };
    set_threads(1);                             // tests/kernels.c looks after threads
    for (int i = 0; i < 4; i++) {
        T = 7;
        C = size[i];
        N = 21;
        the_norm();
        the_gate();
        the_matrix();
        the_rotation();
        the_loss();
    }
    the_attention(4, 4, 6);
    the_attention(6, 2, 8);
    the_attention(2, 1, 20);
    whole_model(false);
    whole_model(true);
    return done("gradients");
}
