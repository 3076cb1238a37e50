// objectives.c: chapters 1 and 2: the three builders and their identities, where the line between
// condition and target falls, the loss of a tiny row by hand, and both sides of Eqs. (2) and (3)
// where all answers can be counted out.
#include "toy.h"

static bool same_rows(Row a, Row b) {
    return a.n == b.n && a.n_condition == b.n_condition &&
           !memcmp(a.ids, b.ids, (size_t)a.n * sizeof(int));
}

// Do two builders, on two triples, make the same row?
static bool agree(const Model *m, Objective f, Triple s, Objective g, Triple t) {
    Row a = f(m, s), b = g(m, t);
    bool equal = same_rows(a, b);
    FREE(a.ids, b.ids);
    return equal;
}

static void identities(Model *m) {
    for (int i = 0; i < TOYS; i++) {
        Triple t = toy(i), copy = { t.x, t.y_o, t.y_o };
        Triple empty = { t.x, text(""), t.y_c }, answer = { t.x, t.y_c, NONE };
        OK(agree(m, aligner, copy, warmup, copy), "%d: with y_c = y_o Aligner's row is warm-up's",
           i);
        OK(agree(m, aligner, t, warmup, t) == same(t.y_o, t.y_c), "%d: otherwise they differ", i);
        OK(agree(m, warmup, t, warmup, copy), "%d: the warm-up does not read y_c", i);
        OK(agree(m, sft, t, sft, copy), "%d: SFT does not read y_c", i);
        OK(!agree(m, aligner, t, sft, answer), "%d: the Aligner's condition holds y_o", i);
        OK(!agree(m, aligner, empty, sft, answer), "%d: an empty y_o is still an answer", i);
        // A template of one's own without {answer} is its SFT counterpart, as with an empty y_o.
        set_template(m, "Q: {question}\nA: {answer}\nC:");
        OK(agree(m, aligner, empty, sft, answer), "%d: an empty y_o makes it SFT on y_c", i);
        set_template(m, "short");
    }
}

// The condition is the filled template as one text; the target begins with a space.
static void the_texts(const Model *m, int i, Objective objective, Triple t, const Row *r) {
    const Text target = objective == aligner ? t.y_c : t.y_o;
    Ids condition = { 0 };
    Buf filled = { 0 };
    buf_puts(&filled, "##Question: ");
    buf_puts(&filled, t.x.s);
    buf_puts(&filled, "\n##Answer:");
    if (objective != sft) {
        buf_puts(&filled, " ");
        buf_puts(&filled, t.y_o.s);
        buf_puts(&filled, "\n##Correction:");
    }
    ids_add(&condition, BOS);
    encode(m->tokenizer, contents(&filled), &condition);
    OK(same_rows((Row){ r->ids, 0, r->n_condition }, (Row){ condition.a, 0, condition.n }),
       "%d: the condition is not the filled template as one text", i);
    Buf c = decode_all(m->tokenizer, r->ids, r->n_condition);
    Buf y = decode_all(m->tokenizer, r->ids + r->n_condition, r->n - r->n_condition);
    OK(same(contents(&c), contents(&filled)), "%d: the condition reads \"%s\"", i, c.s);
    OK(same(contents(&y), target), "%d: the target reads \"%s\"", i, y.s);
    OK(m->tokenizer->piece[r->ids[r->n_condition]].s[0] == ' ', "%d: the target has no space", i);
    OK(r->ids[0] == BOS && r->ids[r->n - 1] == EOS, "%d: <s> in front and </s> at the end", i);
    for (int k = 1; k < r->n - 1; k++)
        OK(r->ids[k] >= BYTE0, "%d: id %d in the text", i, r->ids[k]);
    FREE(condition.a, filled.s, c.s, y.s);
}

static void the_mask(const Model *m) {
    static const Objective objective[] = { sft, warmup, aligner };
    for (int i = 0; i < 3 * TOYS; i++) {
        Row r = objective[i % 3](m, toy(i / 3));
        the_texts(m, i, objective[i % 3], toy(i / 3), &r);

        // A copy is a copy of tokens: y_o is in the condition as the ids of the warm-up's target.
        int n = r.n - r.n_condition - 1, found = 0, *first = r.ids + r.n_condition;
        for (int k = 0; k + n <= r.n_condition; k++)
            found += !memcmp(r.ids + k, first, (size_t)n * sizeof(int));
        if (objective[i % 3] == warmup) OK(found, "%d: y_o in the condition has other tokens", i);

        Batch b;                                                // and what of it carries loss
        batch_alloc(&b, r.n, 1);
        batch_add(&b, &r);
        OK(b.n_out == r.n - r.n_condition && b.T == r.n - 1, "%d: %d places with loss", i, b.n_out);
        for (int k = 0; k < b.n_out; k++)
            OK(b.out[k] == r.n_condition - 1 + k && b.target[k] == r.ids[b.out[k] + 1], "%d: %d", i,
               k);
        batch_free(&b);
        free(r.ids);
    }
}

// The figure above Batch: two rows of 4 and 5 tokens.
static void the_batch(void) {
    int a[] = { BOS, 300, 301, EOS }, c[] = { BOS, 302, 303, 304, EOS };
    static const int ids[] = { BOS, 300, 301, BOS, 302, 303, 304 }, pos[] = { 0, 1, 2, 0, 1, 2, 3 };
    static const int start[] = { 0, 3, 7 }, out[] = { 2, 5, 6 }, target[] = { EOS, 304, EOS };
    Batch b;
    batch_alloc(&b, 8, 2);
    for (int again = 0; again < 2; again++) {
        batch_clear(&b);
        batch_add(&b, &(Row){ a, 3, 4 });
        batch_add(&b, &(Row){ c, 3, 5 });
        OK(b.T == 7 && b.n == 2 && b.n_out == 3, "T %d, n %d, n_out %d", b.T, b.n, b.n_out);
        OK(!memcmp(b.ids, ids, sizeof ids) && !memcmp(b.pos, pos, sizeof pos), "ids, pos");
        OK(!memcmp(b.start, start, sizeof start), "start");
        OK(!memcmp(b.out, out, sizeof out) && !memcmp(b.target, target, sizeof target),
           "out, target");
    }
    batch_free(&b);
}

// The row's loss terms, one a target token; logits (if not NULL) receives the rows of logits.
static void losses(Model *m, const Row *r, double *nll, float *logits) {
    const size_t V = (size_t)m->c.V;
    Batch b;
    batch_alloc(&b, r->n, 1);
    batch_add(&b, r);
    acts_reserve(m, TOY_CONTEXT, TOY_CONTEXT, TOY_CONTEXT, true);
    forward(m, &b, NULL);
    if (logits) copy_floats(logits, m->acts.logits, (size_t)b.n_out * V);
    double sum = cross_entropy(m, &b, 1), again = 0;
    for (int i = 0; i < b.n_out; i++) {
        nll[i] = m->acts.nll[i];
        again += nll[i];
    }
    OK(sum == again, "the terms add up to %.17g, not %.17g", again, sum);
    batch_free(&b);
}

static double log_softmax(const float *z, int target, int V) {
    double sum = 0;
    for (int i = 0; i < V; i++) sum += exp((double)z[i]);
    return (double)z[target] - log(sum);
}

static void by_hand(Model *m) {
    // Logits log 1, log 2, log 3 are the probabilities 1/6, 2/6, 3/6; the gradient of a mean of two
    // is (p - onehot) / 2.
    static const float want[2][3] = { { 1 / 12.0f, 2 / 12.0f, -3 / 12.0f },
                                      { -5 / 12.0f, 2 / 12.0f, 3 / 12.0f } };
    static const double loss[] = { 0.69314718055994531, 1.791759469228055 };    // log 2, log 6
    double nll[TOY_CONTEXT], tail[TOY_CONTEXT];
    for (int i = 0; i < 2; i++) {
        float z[8] = { 0, logf(2), logf(3) };
        double got = softmax_nll(z, 3, i ? 0 : 2, 0.5f);
        OK(fabs(got - loss[i]) < 1e-6, "- log p is %g, not %g", got, loss[i]);
        for (int j = 0; j < 3; j++)
            OK(fabsf(z[j] - want[i][j]) < 1e-7f, "the gradient is %g", (double)z[j]);
    }

    // Three tokens go in, <s> a b. With a condition of <s> a two are predicted: b and </s>.
    int ids[] = { BOS, 300, 310, EOS };
    float logits[3 * TOY_VOCAB];
    Row r = { ids, 2, 4 }, all = { ids, 1, 4 };
    losses(m, &r, nll, logits);
    OK(fabs(nll[0] + log_softmax(logits, 310, TOY_VOCAB)) < 1e-5, "the loss of b is %g", nll[0]);
    OK(fabs(nll[1] + log_softmax(logits + TOY_VOCAB, EOS, TOY_VOCAB)) < 1e-5, "</s>: %g", nll[1]);
    losses(m, &all, tail, NULL);
    OK(tail[1] == nll[0] && tail[2] == nll[1], "where the target begins changes no token's loss");

    // A model that finds all V tokens equally likely has the loss ln V.
    Model flat;
    toy_model(&flat, 16, 1, 5);
    memset(flat.w.head, 0, (size_t)TOY_VOCAB * 16 * sizeof(float));
    losses(&flat, &r, nll, NULL);
    OK(fabs(nll[0] - log(TOY_VOCAB)) < 1e-5, "ln V is %g, the loss %g", log(TOY_VOCAB), nll[0]);
    model_free(&flat);
}

enum { V = TOY_VOCAB };
static double table[V][V], first[V],
    composed[V]; // table[k][c] = log mu(y_c | y_k, x); first: log pi

// Every answer is one token here, so all can be counted out: pi(y_k | x) and mu(y_c | y_k, x) are
// the softmax over the first token of the target, and pi' is the sum over k of their products, Eq.
// (2).
static void count_out(Model *pi, Model *mu, Text x, Text y_o) {
    float logits[8 * V];
    double nll[TOY_CONTEXT], total = 0;
    Row r = sft(pi, (Triple){ x, y_o, NONE });
    losses(pi, &r, nll, logits);
    for (int k = 0; k < V; k++) first[k] = log_softmax(logits, k, V);
    OK(fabs(first[r.ids[r.n_condition]] + nll[0]) < 1e-5, "the first term of Eq. (1) is - log pi");
    free(r.ids);
    for (int k = 0; k < V; k++) {
        Buf y = decode_all(pi->tokenizer, &k, 1);               // only text passes from pi to mu
        r = aligner(mu, (Triple){ x, contents(&y), y_o });
        losses(mu, &r, nll, logits);
        for (int c = 0; c < V; c++) {
            table[k][c] = log_softmax(logits, c, V);
            composed[c] += exp(first[k] + table[k][c]);
        }
        OK(fabs(table[k][r.ids[r.n_condition]] + nll[0]) < 1e-5, "the first term of Eq. (4)");
        FREE(r.ids, y.s);
    }
    for (int c = 0; c < V; c++) total += composed[c];
    OK(fabs(total - 1) < 1e-5, "pi' sums to %g: it is a distribution again", total);
}

static void upper_bound(Model *pi, Model *mu) {
    const Text x = text("Is ice cold?"), y_o = text("Yes.");
    double worst = INFINITY, gap = 0, left = 0, right = 0, nll[TOY_CONTEXT];
    float logits[8 * V];
    count_out(pi, mu, x, y_o);
    for (int k = 0; k < V; k++)
        for (int c = 0; c < V; c++) { // every (y_o, y_c) of M, then their mean
            double l = -log(composed[c]), u = -table[k][c] - first[k];
            worst = fmin(worst, u - l);
            gap = fmax(gap, u - l);
            left += l / V / V;
            right += u / V / V;
        }
    OK(worst >= 0, "Eq. (3) is broken by %g", worst);
    OK(left <= right && gap > 0.1, "means %g <= %g, at most %g apart", left, right, gap);

    // The gap is the dropped terms: it closes if pi is sure of its answer (logits 100 times as
    // large).
    int sure = 0;
    for (int i = 0; i < pi->c.C; i++) pi->w.norm[i] *= 100;
    Row r = sft(pi, (Triple){ x, y_o, NONE });
    losses(pi, &r, nll, logits);
    for (int k = 0; k < V; k++) {
        first[k] = log_softmax(logits, k, V);
        if (first[k] > first[sure]) sure = k;
    }
    for (int c = 0; c < V; c++) {
        double sum = 0;
        for (int k = 0; k < V; k++) sum += exp(first[k] + table[k][c]);
        gap = log(sum) - table[sure][c] - first[sure];
        OK(fabs(gap) < 1e-6, "the gap is %g", gap);
    }
    free(r.ids);
}

int main(void) {
    Model pi, mu;
    set_threads(1);
    toy_model(&pi, 16, 1, 3);
    toy_model(&mu, 16, 1, 4);
    identities(&mu);
    the_mask(&mu);
    the_batch();
    by_hand(&mu);
    upper_bound(&pi, &mu);
    model_free(&pi);
    model_free(&mu);
    return done("objectives");
}
