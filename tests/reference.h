// reference.h: the model a second time, plainly and in double precision, for central differences:
// f32 would be too coarse.
#ifndef REFERENCE_H
#define REFERENCE_H
#include "test.h"

enum { MOST = 1 << 16 };
static uint64_t seed = 1;
static int pos[MOST];

// One forward after the other.
static void ref_rmsnorm(double *out, const double *in, const double *weight, int rows, int cols,
                        double eps) {
    for (int t = 0; t < rows; t++, in += cols, out += cols) {
        double s = 0;
        for (int i = 0; i < cols; i++) s += in[i] * in[i] / cols;
        for (int i = 0; i < cols; i++) out[i] = in[i] / sqrt(s + eps) * weight[i];
    }
}

static void ref_linear(double *out, const double *in, const double *weight, int rows, int n, int k,
                       bool add) {
    for (int t = 0; t < rows; t++)
        for (int j = 0; j < n; j++) {
            double s = add ? out[t * n + j] : 0;
            for (int i = 0; i < k; i++) s += in[t * k + i] * weight[j * k + i];
            out[t * n + j] = s;
        }
}

static void ref_rope(double *v, int rows, const Config *c, double theta) {
    const int hs = head_size(c);
    for (int t = 0; t < rows; t++)
        for (int i = 0; i < (c->H + c->H_kv) * hs; i += 2) {
            double *p = v + t * qkv_width(c) + i, p0 = p[0], p1 = p[1];
            double angle = pos[t] * pow(theta, -(double)(i % hs) / hs);
            p[0] = p0 * cos(angle) - p1 * sin(angle);
            p[1] = p0 * sin(angle) + p1 * cos(angle);
        }
}

static void ref_swiglu(double *out, const double *gu, int rows, int F) {
    for (int t = 0; t < rows; t++)
        for (int i = 0; i < F; i++) {
            double g = gu[2 * t * F + i], up = gu[(2 * t + 1) * F + i];
            out[t * F + i] = g / (1 + exp(-g)) * up;
        }
}

// One row of n tokens. No maximum is subtracted: the test keeps the scores small.
static void ref_attention(double *out, const double *qkv, const Config *c, int n) {
    const int hs = head_size(c), ld = qkv_width(c);
    double p[256], sum;
    for (int h = 0; h < c->H; h++)
        for (int i = 0; i < n; i++) {
            const double *q = qkv + i * ld + h * hs, *k = qkv + (c->H + h / (c->H / c->H_kv)) * hs;
            const double *v = k + kv_width(c);
            double *o = out + (i * c->H + h) * hs;
            sum = 0;
            for (int j = 0; j <= i; j++) {
                p[j] = 0;
                for (int d = 0; d < hs; d++) p[j] += q[d] * k[j * ld + d];
                sum += p[j] = exp(p[j] / sqrt(hs));
            }
            for (int d = 0; d < hs; d++) {
                o[d] = 0;
                for (int j = 0; j <= i; j++) o[d] += p[j] / sum * v[j * ld + d];
            }
        }
}

static double ref_nll(const double *z, int target, int V) {
    double sum = 0;
    for (int j = 0; j < V; j++) sum += exp(z[j]);
    return log(sum) - z[target];
}

// A pointer into m's parameters, as the same place in their copy P.
static const double *ref_at(const Model *m, const double *P, const float *w) {
    return P + (w - m->params);
}

// One row through the whole model with the parameters P: the sum of - log p over its targets. If
// reward is not NULL it receives the logit of token 0 at the last of its places.
static double ref_row(const Model *m, const double *P, const Row *row, double *reward) {
    static double r[MOST], n[MOST], qkv[MOST], att[MOST], gu[MOST], act[MOST];
    const Config *c = &m->c;
    const Weights *w = &m->w;
    const int C = c->C, T = row->n - 1;
    double sum = 0;
    for (int t = 0; t < T; t++) {
        memcpy(r + t * C, ref_at(m, P, w->embd) + row->ids[t] * C, (size_t)C * sizeof *r);
        pos[t] = t;
    }
    for (int l = 0; l < c->L; l++) {
        const LayerWeights *y = &w->layer[l];
        ref_rmsnorm(n, r, ref_at(m, P, y->attn_norm), T, C, (double)c->eps);
        ref_linear(qkv, n, ref_at(m, P, y->qkv), T, qkv_width(c), C, false);
        ref_rope(qkv, T, c, (double)c->theta);
        ref_attention(att, qkv, c, T);
        ref_linear(r, att, ref_at(m, P, y->o), T, C, C, true);
        ref_rmsnorm(n, r, ref_at(m, P, y->ffn_norm), T, C, (double)c->eps);
        ref_linear(gu, n, ref_at(m, P, y->gate_up), T, 2 * c->F, C, false);
        ref_swiglu(act, gu, T, c->F);
        ref_linear(r, act, ref_at(m, P, y->down), T, C, c->F, true);
    }
    ref_rmsnorm(n, r, ref_at(m, P, w->norm), T, C, (double)c->eps);
    for (int t = row->n_condition - 1; t < T; t++) {
        ref_linear(att, n + t * C, ref_at(m, P, w->head), 1, c->V, C, false);
        sum += ref_nll(att, row->ids[t + 1], c->V);
        if (reward) *reward = att[0];
    }
    return sum;
}

// The gradient g of f with respect to at[n], where all (samples = 0) or a few random entries are
// looked at.
static void gradient_agrees(const char *what, double (*f)(void), double *at, const float *g,
                            size_t n, size_t samples) {
    double worst = 0, size = 0, h = 1e-4, *numeric = zalloc(n, sizeof *numeric);
    size_t tries = samples && samples < n ? samples : n, *index = zalloc(tries, sizeof *index);
    for (size_t s = 0; s < tries; s++) {
        size_t i = index[s] = tries < n ? random_u64(&seed) % n : s;
        double keep = at[i], up, down;
        at[i] = keep + h;
        up = f();
        at[i] = keep - h;
        down = f();
        at[i] = keep;
        numeric[s] = (up - down) / (2 * h);
        size += numeric[s] * numeric[s] / (double)tries;
    }
    size = sqrt(size); // entries near zero are measured against the typical one
    for (size_t s = 0; s < tries; s++) {
        double e = fabs((double)g[index[s]] - numeric[s]) / (fabs(numeric[s]) + size);
        if (!(e <= worst)) worst = e;
    }
    OK(size > 1e-7, "%s: the gradient is all zeros where it should not be", what);
    OK(worst < 1e-5, "%s: gradient is off by %g", what, worst);
    if (getenv("VERBOSE")) printf("%-32s %g (size %g, %zu entries)\n", what, worst, size, tries);
    free(numeric);
    free(index);
}
#endif
