// parity.c: the same small model in PyTorch (tests/fixture.py made tests/fixture.bin): logits,
// loss, every gradient, and the weights after ten steps of AdamW agree.
#include "test.h"

static const int32_t *at;           // the place in the fixture
static int next_int(void) { return *at++; }

static const float *next_floats(size_t n) {
    at += n;
    return (const float *)(at - n);
}

// The largest difference between a and b relative to the largest value of b; with norms: |a - b| /
// |b|.
static double difference(const float *a, const float *b, size_t n, bool norms) {
    double most = 0, size = 1e-30, square = 0, squares = 1e-60;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        size = fmax(size, fabs((double)b[i]));
        if (!(d <= most)) most = d;
        square += d * d;
        squares += (double)b[i] * (double)b[i];
    }
    return norms ? sqrt(square / squares) : most / size;
}

// The loss's share of a batch and its gradient, as supervised_loss() has them.
static double loss_and_gradient(Model *m, const Batch *b) {
    forward(m, b, NULL);
    double loss = cross_entropy(m, b, b->n_out);
    backward(m, b);
    return loss;
}

static void compare_case(int number) {
    Config c = { .V = next_int(), .C = next_int() };
    c.L = next_int();
    c.H = next_int();
    c.H_kv = next_int();
    c.F = next_int();
    c.context = next_int();
    c.tied = next_int();
    c.eps = 1e-5f;
    c.theta = 1e4f;
    const int n_rows = next_int();
    Model m;
    Batch b;
    random_model(&m, c, 1);
    batch_alloc(&b, n_rows * c.context, n_rows);
    for (int i = 0; i < n_rows; i++) {
        const int n_condition = next_int(), n = next_int();
        batch_add(&b, &(Row){ (int *)at, n_condition, n });
        at += n;
    }
    grads_alloc(&m);
    acts_reserve(&m, b.T, b.T, c.context, true);
    memcpy(m.params, next_floats(m.n_params), m.n_params * 4);
    const size_t V = (size_t)c.V;
    const float *logits = next_floats((size_t)b.n_out * V), *loss = next_floats(1);
    const float *grads = next_floats(m.n_params), *losses = next_floats(10);
    const float *after = next_floats(m.n_params);

    double d = 0;
    forward(&m, &b, NULL);
    for (int i = 0; i < b.n_out; i++)
        d = fmax(
            d, difference(m.acts.logits + (size_t)i * V, logits + (size_t)i * V, V, false));
    OK(d < 1e-5, "case %d: logits differ by %g", number, d);
    double ours = loss_and_gradient(&m, &b), theirs = (double)*loss;
    OK(fabs(ours - theirs) < 1e-6 * theirs, "case %d: loss %.8f, PyTorch %.8f", number, ours,
       theirs);
    for (size_t i = 0; i < m.n_tensors; i++) {
        const Tensor *t = &m.tensor[i];
        size_t n = (size_t)t->rows * (size_t)t->cols;
        d = difference(m.grads + t->at, grads + t->at, n, false);
        OK(d < 2e-5, "case %d: the gradient of %s differs by %g", number, t->name, d);
    }

    Progress p = { .m = zalloc(m.n_params, 4), .v = zalloc(m.n_params, 4) };
    const TrainOptions o = { .weight_decay = 0.1, .clip = 0.5, .adam_eps = 1e-8 };
    for (; p.step < 10; p.step++) {
        if (p.step) ours = loss_and_gradient(&m, &b);
        theirs = (double)losses[p.step];
        OK(fabs(ours - theirs) < 1e-5 * theirs, "case %d, step %ld: loss %.8f, PyTorch %.8f",
           number, p.step, ours, theirs);
        double norm = gradient_norm(&m);
        adamw(&m, &p, &o, 1e-3, norm > o.clip ? (float)(o.clip / norm) : 1.0f);
    }
    for (size_t i = 0; i < m.n_tensors; i++) {
        // Adam divides by sqrt(v): the rounding of a gradient that is almost zero shows in a single
        // weight, hence two bounds.
        const Tensor *t = &m.tensor[i];
        size_t n = (size_t)t->rows * (size_t)t->cols;
        d = difference(m.params + t->at, after + t->at, n, false);
        double l2 = difference(m.params + t->at, after + t->at, n, true);
        OK(d < 1e-3 && l2 < 2e-5, "case %d: after ten steps %s differs by %g, in norm by %g",
           number, t->name, d, l2);
    }
    FREE(p.m, p.v);
    batch_free(&b);
    model_free(&m);
}

int main(int argc, char **argv) {
    Buf f = read_all(argc > 1 ? argv[1] : "tests/fixture.bin");
    at = (const int32_t *)f.s;
    CHECK(f.n > 8 && next_int() == 0x464C4141, "not the fixture of tests/fixture.py");
    const int cases = next_int();
    for (int i = 0; i < cases; i++) compare_case(i);
    OK((size_t)((const char *)at - f.s) == f.n, "the fixture was not read to its end");
    free(f.s);
    return done("parity with PyTorch");
}
