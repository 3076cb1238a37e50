// parity.c - the same small model in PyTorch (tests/fixture.py made tests/fixture.bin): logits, loss, every gradient, and the
// weights after ten AdamW steps agree.
#include "test.h"

static const int32_t *at;           // the place in the fixture
static int next_int(void) { return *at++; }
static const float *next_floats(size_t n) { const float *p = (const float *)at; at += n; return p; }

// The largest difference between a and b relative to the largest value of b.
static double difference(const float *a, const float *b, size_t n)
{
    double most = 0, size = 1e-30;
    for (size_t i = 0; i < n; i++) {
        if (fabs((double)b[i]) > size) size = fabs((double)b[i]);
        if (!(fabs((double)a[i] - (double)b[i]) <= most)) most = fabs((double)a[i] - (double)b[i]);
    }
    return most / size;
}

// |a - b| / |b| in the Euclidean norm.
static double distance(const float *a, const float *b, size_t n)
{
    double d = 0, size = 1e-30;
    for (size_t i = 0; i < n; i++) d += pow((double)a[i] - (double)b[i], 2), size += pow((double)b[i], 2);
    return sqrt(d / size);
}

static void compare_case(int number)
{
    Config c = { .V = next_int(), .C = next_int() };
    c.L = next_int(), c.H = next_int(), c.H_kv = next_int(), c.F = next_int(), c.context = next_int(), c.tied = next_int();
    c.eps = 1e-5f, c.theta = 10000.0f;
    int n_rows = next_int(), T = 0;
    Model m;
    Row r[64];
    random_model(&m, c, 1);
    for (int i = 0; i < n_rows; i++) {
        r[i].n_condition = next_int(), r[i].n = next_int(), r[i].ids = (int *)at;
        at += r[i].n, T += r[i].n;
    }
    Batch b;
    batch_alloc(&b, T, n_rows, T);
    for (int i = 0; i < n_rows; i++) batch_add(&b, &r[i]);
    acts_reserve(&m, T, T, T, true);
    m.grads = zalloc(m.n_params, sizeof(float));
    memcpy(m.params, next_floats(m.n_params), m.n_params * 4);

    double *nll = zalloc((size_t)T, sizeof *nll), d = 0;
    forward(&m, &b, NULL);
    const float *logits = next_floats((size_t)b.n_out * (size_t)c.V), *loss = next_floats(1), *grads = next_floats(m.n_params), *losses = next_floats(10);
    const float *after = next_floats(m.n_params);
    for (int i = 0; i < b.n_out; i++) d = fmax(d, difference(m.acts.logits + (size_t)i * logits_ld(&c), logits + (size_t)i * (size_t)c.V, (size_t)c.V));
    OK(d < 1e-5, "case %d: logits differ by %g", number, d);
    double ours = loss_sum(&m, &b, nll, b.n_out) / b.n_out;
    OK(fabs(ours - (double)*loss) < 1e-6 * fabs((double)*loss), "case %d: loss %.8f, PyTorch %.8f", number, ours, (double)*loss);
    backward(&m, &b);
    for (size_t i = 0; i < m.n_tensors; i++) {
        const Tensor *t = &m.tensor[i];
        d = difference(m.grads + t->at, grads + t->at, (size_t)t->rows * (size_t)t->cols);
        OK(d < 2e-5, "case %d: the gradient of %s differs by %g", number, t->name, d);
    }
    Progress s = { .m = zalloc(m.n_params, 4), .v = zalloc(m.n_params, 4) };
    for (; s.step < 10; s.step++) {
        if (s.step) {
            forward(&m, &b, NULL);
            ours = loss_sum(&m, &b, nll, b.n_out) / b.n_out;
            backward(&m, &b);
        }
        OK(fabs(ours - (double)losses[s.step]) < 1e-5 * (double)losses[s.step], "case %d, step %ld: loss %.8f, PyTorch %.8f", number, s.step, ours, (double)losses[s.step]);
        update(&m, &s, &(TrainOptions){ .weight_decay = 0.1, .clip = 0.5, .adam_eps = 1e-8 }, 1e-3);
    }
    for (size_t i = 0; i < m.n_tensors; i++) {
        const Tensor *t = &m.tensor[i];
        size_t n = (size_t)t->rows * (size_t)t->cols;
        d = difference(m.params + t->at, after + t->at, n);
        double l2 = distance(m.params + t->at, after + t->at, n);
        // Adam divides by sqrt(v): the rounding of a gradient that is almost zero shows in a single weight, hence two bounds.
        OK(d < 1e-3 && l2 < 2e-5, "case %d: after ten steps %s differs by %g at most, %g in norm", number, t->name, d, l2);
    }
    free(nll), free(s.m), free(s.v), batch_free(&b), model_free(&m);
}

int main(int argc, char **argv)
{
    Buf f = read_all(argc > 1 ? argv[1] : "tests/fixture.bin", NULL);
    at = (const int32_t *)f.s;
    CHECK(f.n > 8 && next_int() == 0x464C4141, "not the fixture of tests/fixture.py");
    int cases = next_int();
    for (int i = 0; i < cases; i++) compare_case(i);
    OK((size_t)((const char *)at - f.s) == f.n, "the fixture was not read to its end");
    free(f.s);
    return done("parity with PyTorch");
}
