// objectives.c - chapter 1: the three builders and their identities, where the line between condition and target falls,
// the loss of a tiny example by hand, and both sides of Eqs. (2) and (3) where all answers can be counted out.
#include "toy.h"

static bool same_rows(Row a, Row b)
{
    return a.n == b.n && a.n_condition == b.n_condition && !memcmp(a.ids, b.ids, (size_t)a.n * sizeof(int));
}

// Do two builders, on two triples, make the same row?
static bool agree(const Model *m, Objective f, Triple s, Objective g, Triple t)
{
    Row a = f(m, s), b = g(m, t);
    bool is = same_rows(a, b);
    free(a.ids), free(b.ids);
    return is;
}

static void identities(Model *m)
{
    for (int i = 0; i < TOYS; i++) {
        Triple t = toy(i), copy = { t.x, t.y_o, t.y_o };
        Triple empty = { t.x, text(""), t.y_c }, answer = { t.x, t.y_c, NONE };
        OK(agree(m, aligner, copy, warmup, copy), "row %d: with y_c = y_o the Aligner's row is the warm-up's", i);
        OK(agree(m, aligner, t, warmup, t) == same(t.y_o, t.y_c), "row %d: else they differ", i);
        OK(agree(m, warmup, t, warmup, copy) && agree(m, sft, t, sft, copy), "row %d: only the Aligner reads y_c", i);
        OK(!agree(m, aligner, t, sft, answer), "row %d: the Aligner's condition holds y_o", i);
        OK(!agree(m, aligner, empty, sft, answer), "row %d: an empty y_o is still an answer", i);
        // A template of one's own without {answer} is its SFT counterpart; an empty y_o leaves the same text behind.
        set_template(m, "Q: {question}\nA: {answer}\nC:");
        OK(agree(m, aligner, empty, sft, answer), "row %d: with an empty y_o the Aligner's row is SFT's on y_c", i);
        set_template(m, "short");
    }
}

// <s> condition, then target </s>: the condition is the filled template as one text, the target begins with a space.
static void the_mask(const Model *m)
{
    static const Objective objective[] = { sft, warmup, aligner };
    for (int i = 0; i < 3 * TOYS; i++) {
        Triple t = toy(i / 3);
        Text target = objective[i % 3] == aligner ? t.y_c : t.y_o;
        Row r = objective[i % 3](m, t);
        Ids condition = { 0 };
        Buf filled = { 0 }, c, y;
        buf_puts(&filled, "##Question: "), buf_puts(&filled, t.x.s), buf_puts(&filled, "\n##Answer:");
        if (i % 3) buf_puts(&filled, " "), buf_puts(&filled, t.y_o.s), buf_puts(&filled, "\n##Correction:");
        ids_add(&condition, BOS), encode(&m->tok, (Text){ filled.s, filled.n }, &condition);
        OK(same_rows((Row){ r.ids, r.n_condition, r.n_condition }, (Row){ condition.a, condition.n, condition.n }),
           "row %d: the condition is not the filled template as one text", i);
        c = decode_all(&m->tok, r.ids, r.n_condition);
        y = decode_all(&m->tok, r.ids + r.n_condition, r.n - r.n_condition);
        OK(same((Text){ c.s, c.n }, (Text){ filled.s, filled.n }), "row %d: the condition reads \"%s\"", i, c.s);
        OK(same((Text){ y.s, y.n }, target), "row %d: the target reads \"%s\"", i, y.s);
        OK(m->tok.piece[r.ids[r.n_condition]].s[0] == ' ', "row %d: the target begins with the space token", i);
        OK(r.ids[0] == BOS && r.ids[r.n - 1] == EOS, "row %d: <s> at the front and </s> at the end", i);
        for (int k = 1; k < r.n - 1; k++) OK(r.ids[k] >= BYTE0, "row %d: special token %d in the text", i, r.ids[k]);

        // A copy is a copy of tokens: y_o stands in the condition as the ids of the warm-up's target.
        int n = r.n - r.n_condition - 1, found = 0, *first = r.ids + r.n_condition;
        for (int k = 0; k + n <= r.n_condition; k++) found += !memcmp(r.ids + k, first, (size_t)n * sizeof(int));
        if (i % 3 == 1) OK(found, "row %d: y_o in the condition has other tokens than y_o as a target", i);

        Batch b;                                                // and what of it carries loss
        batch_alloc(&b, r.n, 1, r.n);
        batch_add(&b, &r);
        OK(b.n_out == r.n - r.n_condition && b.T == r.n - 1, "row %d: %d places with a loss", i, b.n_out);
        for (int k = 0; k < b.n_out; k++)
            OK(b.out[k] == r.n_condition - 1 + k && b.target[k] == r.ids[b.out[k] + 1], "row %d: target %d", i, k);
        batch_free(&b), free(r.ids), free(condition.a), free(filled.s), free(c.s), free(y.s);
    }
}

// The rows' loss terms, one a target token; logits (where wanted) receives the first logit row.
static void losses(Model *m, const Row *r, double *nll, float *logits)
{
    Batch b;
    batch_alloc(&b, r->n, 1, r->n);
    batch_add(&b, r);
    acts_reserve(m, TOY_CONTEXT, TOY_CONTEXT, TOY_CONTEXT, true);
    forward(m, &b, NULL);
    for (size_t i = 0, V = (size_t)m->c.V; logits && i < (size_t)b.n_out; i++)
        copy_floats(logits + i * V, m->acts.logits + i * logits_ld(&m->c), V);
    loss_sum(m, &b, nll, b.n_out);
    batch_free(&b);
}

static double log_softmax(const float *z, int target, int V)
{
    double sum = 0;
    for (int i = 0; i < V; i++) sum += exp((double)z[i]);
    return (double)z[target] - log(sum);
}

static void by_hand(Model *m)
{
    // Logits log 1, log 2, log 3 are probabilities 1/6, 2/6, 3/6; the gradient of a mean of two is (p - one_hot) / 2.
    float z[2][8] = { { 0, logf(2), logf(3) }, { 0, logf(2), logf(3) } };
    static const float gradient[2][3] = { { 1 / 12.0f, 2 / 12.0f, -3 / 12.0f }, { -5 / 12.0f, 2 / 12.0f, 3 / 12.0f } };
    int target[] = { 2, 0 };
    double nll[TOY_CONTEXT], tail[TOY_CONTEXT];
    cross_entropy(z[0], nll, target, 2, 3, 8, 2);
    OK(fabs(nll[0] - log(2)) < 1e-6 && fabs(nll[1] - log(6)) < 1e-6, "- log 3/6, - log 1/6: %g, %g", nll[0], nll[1]);
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 3; j++) OK(fabsf(z[i][j] - gradient[i][j]) < 1e-7f, "gradient is %g", (double)z[i][j]);

    // Three tokens go in, <s> a b, and with a one-token condition behind <s> two are predicted: b and </s>.
    int ids[] = { BOS, 300, 310, EOS };
    float logits[3 * TOY_VOCAB];
    Row r = { ids, 2, 4 }, all = { ids, 1, 4 };
    losses(m, &r, nll, logits);
    OK(fabs(nll[0] + log_softmax(logits, 310, TOY_VOCAB)) < 1e-5, "the loss of b is %g", nll[0]);
    OK(fabs(nll[1] + log_softmax(logits + TOY_VOCAB, EOS, TOY_VOCAB)) < 1e-5, "the loss of </s> is %g", nll[1]);
    losses(m, &all, tail, NULL);
    OK(tail[1] == nll[0] && tail[2] == nll[1], "where the target begins does not change the loss of a token in it");
}

// All answers are of one token here, so that they can be counted out: pi(y_k | x) and mu(y_c | y_k, x) are the softmax
// over the first token of the target, and pi' is the sum over k of their products, Eq. (2).
static void upper_bound(Model *pi, Model *mu)
{
    enum { V = TOY_VOCAB };
    static double composed[V], first[V], table[V][V];          // table[k][c] = log mu(y_c | y_k, x)
    float logits[8 * V];
    double nll[TOY_CONTEXT], total = 0, worst = INFINITY, gap = 0, left = 0, right = 0;
    Text x = text("Is ice cold?"), y_o = text("Yes.");
    long pairs = 0;
    Row r = sft(pi, (Triple){ x, y_o, NONE });
    losses(pi, &r, nll, logits);
    for (int k = 0; k < V; k++) first[k] = log_softmax(logits, k, V);
    OK(fabs(first[r.ids[r.n_condition]] + nll[0]) < 1e-5, "the first term of Eq. (1) is - log pi");
    free(r.ids);
    for (int k = 0; k < V; k++) {
        Buf y = { 0 };
        buf_add(&y, "", 0), decode(&pi->tok, k, &y);            // only text passes from pi to mu
        r = aligner(mu, (Triple){ x, { y.s, y.n }, y_o });
        losses(mu, &r, nll, logits);
        for (int c = 0; c < V; c++) table[k][c] = log_softmax(logits, c, V), composed[c] += exp(first[k] + table[k][c]);
        OK(fabs(table[k][r.ids[r.n_condition]] + nll[0]) < 1e-5, "the first term of Eq. (4) is - log mu");
        free(r.ids), free(y.s);
    }
    for (int c = 0; c < V; c++) total += composed[c];
    OK(fabs(total - 1) < 1e-5, "pi' sums to %g: it is a distribution again", total);
    for (int k = 0; k < V; k++)
        for (int c = 0; c < V; c++, pairs++) {                  // every (y_o, y_c) of M in turn, then their mean
            double l = -log(composed[c]), u = -table[k][c] - first[k];
            worst = fmin(worst, u - l), gap = fmax(gap, u - l), left += l, right += u;
        }
    OK(worst >= 0, "Eq. (3) is broken by %g", worst);
    OK(left / (double)pairs <= right / (double)pairs && gap > 0.1, "mean %g <= %g, at most %g apart", left, right, gap);

    // The gap is the dropped terms of the sum: it closes where pi is sure of its answer (logits 100 times as large).
    int sure = 0;
    for (int i = 0; i < pi->c.C; i++) pi->params[pi->norm_at + (size_t)i] *= 100;
    r = sft(pi, (Triple){ x, y_o, NONE });
    losses(pi, &r, nll, logits);
    for (int k = 0; k < V; k++) if ((first[k] = log_softmax(logits, k, V)) > first[sure]) sure = k;
    for (int c = 0; c < V; c++) {
        double sum = 0;
        for (int k = 0; k < V; k++) sum += exp(first[k] + table[k][c]);
        OK(fabs(log(sum) - table[sure][c] - first[sure]) < 1e-6, "the gap is %g", log(sum) - table[sure][c]);
    }
    free(r.ids);
}

int main(void)
{
    Model pi, mu;
    set_threads(1);
    toy_model(&pi, 16, 1, 3), toy_model(&mu, 16, 1, 4);
    identities(&mu);
    the_mask(&mu);
    by_hand(&mu);
    upper_bound(&pi, &mu);
    model_free(&pi), model_free(&mu);
    return done("objectives");
}
