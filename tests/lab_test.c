// lab_test.c: tests of lab.c. The gradients of DPO and of the reward model against central
// differences and against PyTorch (tests/fixture.py made tests/fixture_dpo.bin); RLHF's
// estimator where all answers can be counted, and its draws against their probabilities; both
// sides of Eq. (3); steering; the memory ledger against what the kernel reports; the commands.
// $B is the build folder.
#define _DEFAULT_SOURCE             // wait4, setenv
#define _DARWIN_C_SOURCE
#include "reference.h"
#include "toy.h"
#include "lab.c"
#include <sys/resource.h>

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif

static double soft(double margin) { return log1p(exp(-margin)); }      // - log sigmoid

static double *doubles(const Model *m) {
    double *p = zalloc(m->n_params, sizeof *p);
    for (size_t i = 0; i < m->n_params; i++) p[i] = (double)m->params[i];
    return p;
}

// A trial around a model, as run_trial() and train() make it.
static void trial_around(Trial *x, Model *m, const TrainOptions *o) {
    x->rows = drawn_rows(&x->all, x->samples ? 1 : 2);
    x->run = (Run){ .model = m, .rows = &x->rows, .valid = &x->valid, .o = o };
    run_init(&x->run);
    trial_init(x);
}

static void end_trial(Trial *x) {
    Run *run = &x->run;
    FREE(run->order, run->drawn, run->p.m, run->p.v, run->p.mean);
    batch_free(&run->unit);
    trial_free(x);
}

// One step of AdamW, as train_loop() takes it.
static void step(Trial *x, const TrainOptions *o, double lr) {
    Model *m = x->run.model;
    double norm = gradient_norm(m);
    adamw(m, &x->run.p, o, lr, norm > 1 ? (float)(1 / norm) : 1);
    x->run.p.step++;
}

/* ---- pairs */

enum { PAIRS = 3 };
static Model policy;
static double *P, reference_nll[2 * PAIRS];
static Row pair[2 * PAIRS];
static bool is_dpo;

static double f_pairs(void) {
    double loss = 0, v[2];
    for (int e = 0; e < 2 * PAIRS; e++) {
        double nll = ref_row(&policy, P, &pair[e], &v[e % 2]);
        if (is_dpo) v[e % 2] = 0.7 * (reference_nll[e] - nll);
        if (e % 2) loss += soft(v[0] - v[1]) / PAIRS;
    }
    return loss;
}

// Zero where it must be: what is never read, and of the reward's head all rows but one.
static void zeros(const char *name, bool dpo) {
    const Config *c = &policy.c;
    for (int id = 30; id < c->V && !(c->tied && dpo); id++)
        for (int i = 0; i < c->C; i++)
            OK(policy.g.embd[id * c->C + i] == 0, "%s: token %d has a gradient", name, id);
    for (int id = 0; id < c->V && !c->tied && !dpo; id++)
        for (int i = 0; i < c->C; i++)
            OK((policy.g.head[id * c->C + i] != 0) == (id == REWARD), "reward: row %d", id);
}

// If policy and reference are the same, each margin is 0 and the loss ln 2; a margin of 60 moves
// nothing.
static void margins(Trial *x) {
    memcpy(x->reference.params, policy.params, policy.n_params * sizeof(float));
    double loss = pairs_loss(x, &x->all, NULL, PAIRS);
    OK(fabs(loss - log(2)) < 1e-9, "dpo: the reference's own loss is %.12f, not ln 2", loss);
    x->beta = 1e4;
    for (int i = 0; i < policy.c.C; i++) x->reference.w.norm[i] *= 0.9f;
    loss = pairs_loss(x, &x->all, NULL, PAIRS);
    int large = 0;
    for (int e = 0; e < 2 * PAIRS; e += 2) {
        double margin = x->value[e] - x->value[e + 1], weight = x->weight[e];
        OK(isfinite(loss) && (margin < 60 || fabs(weight) < 1e-20), "dpo: margin %g, weight %g",
           margin, weight);
        large += fabs(margin) > 60;
    }
    OK(large, "no margin is large");
}

static void pairs(bool dpo, bool tied) {
    static const int length[] = { 12, 17, 21, 9, 5, 30 };
    const Config c = { 41, 16, 2, 4, 2, 22, 64, tied, 1e-5f, 10000 };
    const TrainOptions o = { .steps = 1, .batch = PAIRS };
    const char *name = dpo ? "dpo" : "reward";
    Trial x = { .beta = 0.7 };
    random_model(&policy, c, 5 + tied);
    set_template(&policy, "short");
    if (dpo) random_model(&x.reference, c, 15);
    is_dpo = dpo;
    P = doubles(&policy);
    double *R = dpo ? doubles(&x.reference) : NULL;
    for (int e = 0; e < 2 * PAIRS; e++) {
        const int n = length[e];
        Row r = random_row(30, dpo ? 4 : n - 1, n, &seed);          // ids from 30 on are never read
        for (int i = 0; i < n; i++) if (r.ids[i] == REWARD) r.ids[i] = 9;
        if (!dpo) r.ids[n - 1] = REWARD;
        if (dpo) reference_nll[e] = ref_row(&x.reference, R, &r, NULL);
        pair[e] = r;
        rows_add(&x.all, r);
    }
    trial_around(&x, &policy, &o);
    double loss = pairs_step(&x.run), right = 0, want = f_pairs();
    OK(fabs(loss - want) < 1e-5 * want, "%s: the loss is %.9f, should be %.9f", name, loss, want);
    OK(x.run.p.at == PAIRS && x.run.p.tokens > 0, "%s: a step does not see each pair", name);
    for (size_t i = 0; i < policy.n_tensors; i++) {
        const Tensor *t = &policy.tensor[i];
        gradient_agrees(t->name, f_pairs, P + t->at, policy.grads + t->at,
                        (size_t)t->rows * (size_t)t->cols, t->rows == 1 ? 0 : 40);
    }
    zeros(name, dpo);
    OK(!dpo || !x.reference.grads, "the reference has gradients");

    // Validation gives the loss of training, and counts the pairs in the right order.
    double again = pairs_loss(&x, &x.all, NULL, PAIRS);
    OK(fabs(again - loss) < 1e-6, "%s: validation says %.9f, training %.9f", name, again, loss);
    for (int e = 0; e < 2 * PAIRS; e += 2) right += x.value[e] > x.value[e + 1];
    OK(fabs(x.ranked - right / PAIRS) < 1e-12, "%s: %g of the pairs in order", name, x.ranked);
    if (dpo) margins(&x);
    FREE(P, R);
    end_trial(&x);
    model_free(&policy);
}

// Many pairs are cut into units: the loss and the gradients are those of one batch, to rounding.
static void units(void) {
    const Config c = { 41, 16, 1, 2, 2, 22, 256, true, 1e-5f, 10000 };
    const TrainOptions o = { .steps = 1, .batch = 16 };
    Trial x = { .beta = 0.5 };
    Model m;
    random_model(&m, c, 31);
    set_template(&m, "short");
    random_model(&x.reference, c, 32);
    for (int e = 0; e < 32; e++) rows_add(&x.all, random_row(41, 5, 100 + e, &seed));
    trial_around(&x, &m, &o);
    double loss = pairs_step(&x.run), sum = 0, ranked = 0;
    OK(x.batch.n < 32, "sixteen long pairs are one unit");
    OK(x.batch.T <= UNIT, "a unit has %d tokens", x.batch.T);
    for (int i = 0; i < 16; i++) {
        Rows one = { x.all.row + 2 * i, 2, 2 };
        sum += pairs_loss(&x, &one, NULL, 1) / 16;
        ranked += x.ranked / 16;
    }
    OK(fabs(loss - sum) < 1e-6, "in units %.9f, pair by pair %.9f", loss, sum);
    pairs_loss(&x, &x.all, NULL, 16);
    OK(fabs(x.ranked - ranked) < 1e-12, "%g in order, pair by pair %g", x.ranked, ranked);
    end_trial(&x);
    model_free(&m);
}

/* ---- against PyTorch */

static void parity(void) {
    Buf f = read_all("tests/fixture_dpo.bin");
    const int32_t *at = (const int32_t *)f.s;
    CHECK(f.n > 64 && *at++ == 0x4F504441, "not the fixture of tests/fixture.py");
    const Config c = { at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7], 1e-5f, 10000 };
    const int n_pairs = at[8];
    const TrainOptions o = { .steps = 1, .batch = 1 };
    Trial x = { 0 };
    Model m;
    at += 9;
    for (int e = 0; e < 2 * n_pairs; e++, at += 2 + at[1]) {
        Row r = { ints(at[1] + 1), at[0], at[1] };
        memcpy(r.ids, at + 2, (size_t)r.n * sizeof(int));
        rows_add(&x.all, r);
    }
    random_model(&m, c, 1);
    set_template(&m, "short");
    random_model(&x.reference, c, 1);
    const float *p = (const float *)at, *end = (const float *)(f.s + f.n);
    const size_t bytes = m.n_params * sizeof(float);
    x.beta = (double)*p++;
    memcpy(m.params, p, bytes);
    memcpy(x.reference.params, p + m.n_params, bytes);
    p += 2 * m.n_params;
    trial_around(&x, &m, &o);
    for (int dpo = 1; dpo >= 0; dpo--) {
        memset(m.grads, 0, bytes);
        if (!dpo) model_free(&x.reference);
        const Row **drawn = zalloc((size_t)n_pairs, sizeof *drawn);
        for (int e = 0; e < 2 * n_pairs; e++) {
            Row *r = &x.all.row[e];
            if (!dpo) *r = (Row){ r->ids, r->n, r->n + 1 };
            r->ids[r->n - !dpo] = dpo ? r->ids[r->n] : REWARD;
            drawn[e / 2] = &x.rows.row[e / 2];
        }
        double loss = pairs_loss(&x, &x.all, drawn, n_pairs), theirs = (double)*p++;
        OK(fabs(loss - theirs) < 1e-6 * theirs, "dpo %d: loss %.8f, PyTorch %.8f", dpo, loss,
           theirs);
        for (size_t i = 0; i < m.n_tensors; i++) {
            const Tensor *t = &m.tensor[i];
            const size_t n = (size_t)t->rows * (size_t)t->cols;
            double size = 0, d = 0;
            for (size_t j = 0; j < n; j++) {
                size = fmax(size, fabs((double)p[t->at + j]));
                d = fmax(d, fabs((double)p[t->at + j] - (double)m.grads[t->at + j]));
            }
            OK(size > 0 && d < 2e-5 * size, "dpo %d: the gradient of %s differs by %g of %g", dpo,
               t->name, d, size);
        }
        p += m.n_params;
        free(drawn);
    }
    OK(p == end, "the fixture was not read to its end");
    free(f.s);
    end_trial(&x);
    model_free(&m);
}

/* ---- RLHF: 8 tokens, answers of at most 2 draws: "</s>", 7 times "a </s>", 49 times "a b" without
   an end */

enum { TINY = 8, OUTCOMES = 1 + 7 + 49, CONDITION = 3 };
static int outcome[OUTCOMES][2], outcome_n[OUTCOMES];
static bool outcome_ended[OUTCOMES];
static double fixed_value[OUTCOMES], fixed_ref[OUTCOMES], log_pi[OUTCOMES];
static const double KL = 0.3;

static void outcomes(void) {
    int n = 0;
    for (int a = 0; a < TINY; a++)
        for (int b = 0; b < (a == EOS ? 1 : TINY); b++, n++) {
            outcome_n[n] = a == EOS ? 0 : b == EOS ? 1 : 2;
            outcome_ended[n] = outcome_n[n] < 2;
            outcome[n][0] = a;
            outcome[n][1] = b;
        }
    OK(n == OUTCOMES, "%d outcomes", n);
}

// ids becomes the row of an outcome, with </s> and REWARD after it.
static void outcome_ids(int *ids, int i) {
    const int condition[CONDITION] = { BOS, 5, 3 };
    memcpy(ids, condition, sizeof condition);
    for (int j = 0; j < outcome_n[i]; j++) ids[CONDITION + j] = outcome[i][j];
    ids[CONDITION + outcome_n[i]] = EOS;
    ids[CONDITION + outcome_n[i] + 1] = REWARD;
}

static double outcome_log_p(const Model *m, const double *p, int i) {
    int ids[CONDITION + 4];
    outcome_ids(ids, i);
    Row r = { ids, CONDITION, CONDITION + outcome_n[i] + outcome_ended[i] };
    return -ref_row(m, p, &r, NULL);
}

// - E R = - sum over all answers of p (r - kl log(p / ref)), exactly.
static double f_rlhf(void) {
    double sum = 0;
    for (int i = 0; i < OUTCOMES; i++) {
        double log_p = outcome_log_p(&policy, P, i);
        sum -= exp(log_p) * (fixed_value[i] - KL * (log_p - fixed_ref[i]));
    }
    return sum;
}

static void add_outcome(Trial *x, int i) {
    add_answer(x, &x->all.row[0], outcome[i], outcome_n[i], outcome_ended[i]);
}

static void clear_answers(Trial *x) {
    batch_clear(&x->batch);
    batch_clear(&x->judged);
}

// The expectation of the estimator over both draws: sum over i and j of p_i p_j times what it
// says of (i, j). It is the gradient of - E R.
static void estimator(Trial *x, double exact) {
    double *mean = zalloc(policy.n_params, sizeof *mean), loss = 0;
    float *expected = zalloc(policy.n_params, sizeof *expected);
    for (int i = 0; i < OUTCOMES; i++)
        for (int j = 0; j < OUTCOMES; j++) {
            double p = exp(log_pi[i] + log_pi[j]);
            clear_answers(x);
            add_outcome(x, i);
            add_outcome(x, j);
            loss += p * answers_loss(x, 1);
            backward(&policy, &x->batch);
            for (size_t k = 0; k < policy.n_params; k++) {
                mean[k] += p * (double)policy.grads[k];
                policy.grads[k] = 0;
            }
        }
    OK(fabs(loss - exact) < 1e-5, "the mean of the loss is %.8f, - E R is %.8f", loss, exact);
    for (size_t k = 0; k < policy.n_params; k++) expected[k] = (float)mean[k];
    for (size_t i = 0; i < policy.n_tensors; i++) {
        const Tensor *t = &policy.tensor[i];
        gradient_agrees(t->name, f_rlhf, P + t->at, expected + t->at,
                        (size_t)t->rows * (size_t)t->cols, 0);
    }
    FREE(mean, expected);

    // Two equal answers teach nothing, to the bit: the baseline leaves one out.
    long wrong = 0;
    clear_answers(x);
    add_outcome(x, 30);
    add_outcome(x, 30);
    answers_loss(x, 1);
    backward(&policy, &x->batch);
    for (size_t k = 0; k < policy.n_params; k++) wrong += policy.grads[k] != 0;
    OK(!wrong, "two equal answers have %ld gradients", wrong);
}

// Which outcome is row e of x->batch? Counts it in seen, and returns how many it could be.
static int count_outcome(const Trial *x, int e, long *seen) {
    const Batch *b = &x->batch;
    const int from = b->start[e], length = b->start[e + 1] - from;
    int hits = 0, last = 0;
    while (last < b->n_out && b->out[last] < b->start[e + 1]) last++;
    for (int k = 0; k < OUTCOMES; k++) {
        bool hit = length == CONDITION + outcome_n[k] + outcome_ended[k] - 1;
        for (int j = 0; j < outcome_n[k] - !outcome_ended[k] && hit; j++)
            hit = b->ids[from + CONDITION + j] == outcome[k][j];
        hit = hit && b->target[last - 1] == (outcome_ended[k] ? EOS : outcome[k][1]);
        seen[k] += hit;
        hits += hit;
    }
    return hits;
}

// The draws have the probabilities that the estimator takes for granted (chi-square, 56 degrees
// of freedom).
static void draws(Trial *x) {
    enum { DRAWS = 5000 };
    static long seen[OUTCOMES];
    uint64_t state = 77;
    double chi = 0;
    update_actor(x);
    for (int i = 0; i < DRAWS; i++) {
        draw_answers(x, &x->all.row[0], random_u64(&state));
        for (int e = 0; e < 2; e++) {
            int hits = count_outcome(x, e, seen);
            OK(hits == 1, "draw %d is %d outcomes", i, hits);
            OK(x->judged.ids[x->judged.start[e + 1] - 1] == EOS, "the reward is read at </s>");
        }
    }
    for (int k = 0; k < OUTCOMES; k++) {
        double want = 2 * DRAWS * exp(log_pi[k]);
        chi += pow((double)seen[k] - want, 2) / want;
    }
    OK(chi < OUTCOMES - 1 + 5 * sqrt(2.0 * OUTCOMES), "chi-square %.1f over %d answers", chi,
       OUTCOMES);
}

static void rlhf(void) {
    const Config c = { TINY, 8, 1, 2, 1, 12, 16, false, 1e-5f, 10000 };
    TrainOptions o = { .steps = 1, .batch = 8, .seed = 3, .clip = 1, .adam_eps = 1e-8 };
    Trial x = { .max_tokens = 2, .samples = 2, .kl = KL };
    Row q = { ints(CONDITION + 1), CONDITION, CONDITION + 1 };
    memcpy(q.ids, (int[]){ BOS, 5, 3, EOS }, (CONDITION + 1) * sizeof(int));
    for (int i = 0; i < 8; i++) rows_add(&x.all, q);    // the same question eight times
    random_model(&policy, c, 21);
    set_template(&policy, "short");
    random_model(&x.reference, c, 22);
    random_model(&x.reward, c, 23);
    trial_around(&x, &policy, &o);
    outcomes();
    P = doubles(&policy);
    double *ref = doubles(&x.reference), *judge = doubles(&x.reward), total = 0;
    for (int i = 0; i < OUTCOMES; i++) {
        int ids[CONDITION + 4], n = CONDITION + outcome_n[i] + 1;
        outcome_ids(ids, i);
        ref_row(&x.reward, judge, &(Row){ ids, n, n + 1 }, &fixed_value[i]);
        fixed_value[i] -= outcome_ended[i] ? 0 : NO_END;
        fixed_ref[i] = outcome_log_p(&x.reference, ref, i);
        log_pi[i] = outcome_log_p(&policy, P, i);
        total += exp(log_pi[i]);
    }
    OK(fabs(total - 1) < 1e-12, "the probabilities of all answers sum to %.15f", total);
    const double exact = f_rlhf();
    estimator(&x, exact);
    draws(&x);

    // Some hundred steps reach a reward that is near the best that this leash allows. The optimum
    // is ref exp(r / kl) / Z, with E R = kl log Z.
    double partition = 0;
    memset(policy.grads, 0, policy.n_params * sizeof(float));
    for (int s = 0; s < 300; s++) {
        rlhf_step(&x.run);
        step(&x, &o, 1e-2);
    }
    for (int i = 0; i < OUTCOMES; i++) partition += exp(fixed_ref[i] + fixed_value[i] / KL);
    free(P);
    P = doubles(&policy);
    const double after = -f_rlhf(), best = KL * log(partition);
    OK(after <= best + 1e-6 && after > best - 0.2 * (best + exact), "E R went from %.3f to %.3f of "
       "%.3f", -exact, after, best);

    // Validation is of the weights that are saved: with --ema, of the mean weights.
    x.run.valid = &x.rows;
    x.run.validate = rlhf_validate;
    const double plain = rlhf_validate(&x.run);
    OK(validation_loss(&x.run) == plain, "validation is not repeatable");
    x.run.p.mean = zalloc(policy.n_params, sizeof(float));
    memcpy(x.run.p.mean, policy.params, policy.n_params * sizeof(float));
    OK(validation_loss(&x.run) == plain, "a mean that is the weights gives another loss");
    memcpy(x.run.p.mean, x.reference.params, policy.n_params * sizeof(float));
    const double other = validation_loss(&x.run);
    OK(other != plain, "validation does not see the mean weights");
    OK(fabs(x.nll[0] - x.nll_ref[0]) < 1e-6, "the draws are not judged by the mean weights");
    OK(rlhf_validate(&x.run) == plain, "the weights did not come back");
    for (int i = 1; i < 8; i++) x.all.row[i].ids = NULL;
    FREE(P, ref, judge);
    end_trial(&x);
    model_free(&policy);
}

/* ---- Eqs. (2) and (3) */

// Answers of one draw are the whole vocabulary: all of them, likeliest first, and pi' a second
// time.
static void whole_sum(Generator *pi, Generator *mu) {
    const Limits all = { 2, 1000, 1000, 1 };
    Sides one = { 0 };
    for (int i = 0; i < TOYS; i++) {
        Triple t = toy(i);
        t.y_o = text("");                               // of one draw: </s>
        Row r = sft(pi->m, t);
        Answers a = enumerate(pi, &r, all);
        double sum = 0;
        OK(a.n == TOY_VOCAB && fabs(a.mass - 1) < 1e-5, "%d answers, mass %.8f", a.n, a.mass);
        for (int k = 1; k < a.n; k++) OK(a.log_p[k] <= a.log_p[k - 1], "answer %d is too late", k);
        for (int k = 0; k < a.n; k++) {
            Buf y = decode_all(pi->m->tokenizer, a.answer[k].a, a.answer[k].n);
            Row m = aligner(mu->m, (Triple){ t.x, contents(&y), t.y_c });
            sum += exp(a.log_p[k] + row_log_p(mu, &m));
            FREE(y.s, m.ids);
        }
        OK(both_sides(pi, mu, t, all, &one), "row %d is too long", i);
        OK(fabs(one.left + log(sum)) < 1e-4 * fabs(one.left), "- log pi' is %.6f, should be %.6f",
           one.left, -log(sum));
        OK(one.right >= one.left, "Eq. (3) is broken: %g < %g", one.right, one.left);
        OK(one.answers == TOY_VOCAB && fabs(one.mass - 1) < 1e-5, "%d answers, mass %g",
           one.answers, one.mass);
        answers_free(&a);
        free(r.ids);
    }
}

// row_log_p() is what the reference says, however the row is cut into passes.
static void log_p(Generator *mu) {
    double *p = doubles(mu->m);
    for (int i = 0; i < TOYS; i++) {
        Row r = aligner(mu->m, toy(i));
        double want = -ref_row(mu->m, p, &r, NULL), got = row_log_p(mu, &r);
        OK(fabs(got - want) < 1e-5 * fabs(want), "row %d: log p %.8f, should be %.8f", i, got,
           want);
        r.n_condition = 1;
        want = -ref_row(mu->m, p, &r, NULL);
        got = row_log_p(mu, &r);
        OK(fabs(got - want) < 1e-5 * fabs(want), "row %d: log p of all %.8f, should be %.8f", i,
           got, want);
        free(r.ids);
    }
    free(p);
}

static void equation_3(void) {
    Model m_pi, m_mu;
    Generator pi, mu;
    Sides one = { 0 };
    toy_model(&m_pi, 16, 1, 3);
    toy_model(&m_mu, 16, 1, 4);
    generator_init(&pi, &m_pi, GREEDY);
    generator_init(&mu, &m_mu, GREEDY);
    log_p(&mu);
    whole_sum(&pi, &mu);

    // Two draws: 1 + 319 * 320 answers would be all. The more are found, the more mass is covered.
    Row r = sft(&m_pi, toy(0));
    double mass = 0;
    for (int n = 10; n <= 1000; n *= 10) {
        Answers a = enumerate(&pi, &r, (Limits){ 2, n, 100000, 2 });
        OK(a.n == n && a.mass > mass && a.mass < 1, "%d answers of two draws: mass %g", a.n,
           a.mass);
        mass = a.mass;
        answers_free(&a);
    }
    free(r.ids);
    generator_free(&pi);
    model_free(&m_pi);

    // An upstream that knows its answers by heart: whole answers, almost all of the mass, and both
    // sides are close.
    toy_model(&m_pi, 32, 2, 1);
    Rows rows = toy_rows(&m_pi, sft), none = { 0 };
    TrainOptions o = { .out = temporary("pi.gguf"), .steps = TOY_STEPS, .batch = TOYS, .lr = 1e-2,
                       .lr_warmup = 0.05, .clip = 1, .adam_eps = 1e-8, .seed = 1, .quiet = 1 };
    train(&(Run){ .model = &m_pi, .rows = &rows, .valid = &none, .o = &o });
    generator_init(&pi, &m_pi, GREEDY);
    for (int i = 0; i < TOYS; i++) {
        OK(both_sides(&pi, &mu, toy(i), BOUND, &one), "row %d is too long", i);
        OK(one.left <= one.right && one.mass > 0.8 && one.mass < 1 + 1e-6,
           "row %d: %g <= %g, mass %g", i, one.left, one.right, one.mass);
        Triple other = { toy(i).x, toy((i + 1) % TOYS).y_o, toy(i).y_c };   // it does not say that
        OK(both_sides(&pi, &mu, other, BOUND, &one) && one.right > one.left + 1,
           "row %d: the slack is %g", i, one.right - one.left);
    }
    rows_free(&rows);
    generator_free(&pi);
    generator_free(&mu);
    model_free(&m_pi);
    model_free(&m_mu);
}

/* ---- steering */

// A vector of zeros changes nothing, another one something, and NULL gives the bits of before.
static void steer_forward(Model *m, Batch *b, float *steer) {
    const size_t n = (size_t)b->n_out * (size_t)m->c.V;
    float *plain = zalloc(n, sizeof *plain);
    forward(m, b, NULL);
    copy_floats(plain, m->acts.logits, n);
    m->steer = steer;
    forward(m, b, NULL);
    bool equal = true;
    for (size_t i = 0; i < n; i++) equal = equal && plain[i] == m->acts.logits[i];
    OK(equal, "a vector of zeros changes the logits");
    steer[3] = 1;                                       // after the first layer only
    forward(m, b, NULL);
    OK(memcmp(plain, m->acts.logits, n * sizeof *plain), "a vector changes nothing");
    m->steer = NULL;
    forward(m, b, NULL);
    OK(!memcmp(plain, m->acts.logits, n * sizeof *plain), "NULL does not give the bits of before");
    free(plain);
}

// hidden() finds the residual stream: what is added after layer l shows there, and in no other
// column.
static void steer_hidden(Model *m, Batch *b, float *steer) {
    const int L = m->c.L, C = m->c.C;
    float *H[2] = { zalloc((size_t)C, sizeof(float)), zalloc((size_t)C, sizeof(float)) };
    for (int l = 0; l < L; l++) {
        for (int with = 0; with < 2; with++) {
            memset(steer, 0, (size_t)(L * C) * sizeof *steer);
            steer[l * C + 5] = with ? 2 : 0;
            m->steer = steer;
            forward(m, b, NULL);
            m->steer = NULL;
            copy_floats(H[with], hidden(m, b, l, 1), (size_t)C);
        }
        for (int j = 0; j < C; j++) {
            float d = H[1][j] - H[0][j];
            OK(fabsf(d - (j == 5 ? 2 : 0)) < 1e-6f, "layer %d, column %d: %g", l, j, (double)d);
        }
    }
    FREE(H[0], H[1]);
}

// A draft changes nothing under steering either.
static void steer_drafts(Model *m, float *steer) {
    Buf y[2] = { { 0 } };
    for (int j = 0; j < m->c.L * m->c.C; j++) steer[j] = (float)(random_unit(&seed) - 0.5);
    m->steer = steer;
    for (int i = 0; i < TOYS; i++) {
        for (int k = 0; k < 2; k++) {
            Generator g;
            generator_init(&g, m, (Decoding){ .top_p = 1, .max_tokens = 40, .no_draft = k });
            correct(&g, toy(i).x, toy(i).y_o, &y[k]);
            generator_free(&g);
        }
        OK(same(contents(&y[0]), contents(&y[1])), "row %d: with a draft %s, without %s", i, y[0].s,
           y[1].s);
    }
    m->steer = NULL;
    FREE(y[0].s, y[1].s);
}

// Power iteration: differences of 3 u and noise give back u with its sign, and their own mean
// length. Layer 0 has noise only: V_c separates what differs, and in layer 0 no better than
// chance.
static void directions(void) {
    enum { ROWS = 200, DIM = 24 };
    States s = { zalloc(ROWS * 2 * POSITIONS * DIM, sizeof(float)), ROWS, ints(ROWS), 2, DIM };
    States t = s;
    float u[DIM] = { 0 };
    double length = 0, along = 0, norm = 0;
    t.H = zalloc(ROWS * 2 * POSITIONS * DIM, sizeof(float));
    for (int j = 0; j < DIM; j++) {
        u[j] = (float)(random_unit(&seed) - 0.5);
        length += (double)(u[j] * u[j]);
    }
    for (int j = 0; j < DIM; j++) u[j] /= (float)sqrt(length);
    for (size_t i = 0; i < ROWS; i++) {
        s.positions[i] = POSITIONS;
        for (int k = 0; k < 2 * POSITIONS; k++)
            for (size_t j = 0; j < DIM; j++) {
                const size_t at = (i * 2 * POSITIONS + (size_t)k) * DIM + j;
                const float signal = i % 2 && k >= POSITIONS ? 3 * u[j] : 0;
                s.H[at] = (float)(0.3 * (random_unit(&seed) - 0.5)) + signal;
                t.H[at] = (float)(0.3 * (random_unit(&seed) - 0.5)) + signal;
            }
    }
    Directions d = find_directions(&s, &t);
    const float *v = d.v + DIM;                         // of the second layer
    for (int j = 0; j < DIM; j++) {
        along += (double)(u[j] * v[j]);
        norm += (double)(v[j] * v[j]);
    }
    OK(along > 0.99 && fabs(d.length[1] - 3.06) < 0.03, "u . V_c = %g, length %g", along,
       d.length[1]);
    OK(fabs(norm - 1) < 1e-5, "V_c has length %g", sqrt(norm));
    const double copy = activity(&t, v, 0, 1, 2), correct = activity(&t, v, 1, 1, 2);
    OK(fabs(copy) < 0.5 && fabs(correct - 3) < 0.5, "r(l, k) is %g and %g", copy, correct);
    OK(d.separation[1] == 1 && d.separation[0] < 0.65, "separation %g of noise, %g of 3 u",
       d.separation[0], d.separation[1]);
    OK(d.chance[0] >= 0.5 && d.chance[0] < 0.7, "chance separates noise by %g", d.chance[0]);

    // A second fit gives the same; positions that a row does not have are passed over.
    Directions again = find_directions(&s, &t);
    OK(same_bits(d.v, again.v, 2 * DIM) && d.chance[1] == again.chance[1], "two fits differ");
    const double before = separation(&t, v, 1);
    for (size_t i = 0; i < ROWS; i++) s.positions[i] = 1 + (int)(i % POSITIONS);
    for (size_t i = 0; i < ROWS; i++)
        for (int k = s.positions[i]; k < POSITIONS; k++) {
            float *h = t.H + (i * 2 + 1) * POSITIONS * DIM + (size_t)k * DIM;
            for (int j = 0; j < DIM; j++) h[j] = -99 * u[j];
        }
    OK(separation(&t, v, 1) == before, "positions beyond a row's end count");
    FREE(s.H, t.H, s.positions, d.v, d.length, d.separation, d.chance);
    FREE(again.v, again.length, again.separation, again.chance);
}

// By hand: activities 1, 4 of copies and 2, 4 of corrections: 1 + 1 + 0 + 1/2 of four
// comparisons.
static void separation_by_hand(void) {
    float H[4 * POSITIONS] = { 0 }, v[1] = { 2 };
    int positions[4] = { 1, 1, 1, 1 };
    const States s = { H, 4, positions, 1, 1 };
    const float value[4] = { 1, 2, 4, 4 };
    for (int i = 0; i < 4; i++) H[i * POSITIONS] = value[i];
    OK(separation(&s, v, 0) == 2.5 / 4, "separation is %g", separation(&s, v, 0));
}

// D_L by hand: a copy has 0; one token of y_o put in another's place; all of it thrown away; more
// written than there was.
static void degrees(const Tokenizer *k) {
    const struct { const char *y_o, *y_c; double changed; } example[] = {
        { "abc", "abc", 0 }, { "abcd", "abxd", 1 }, { "abc", "", 3 }, { "ab", "xaby", 2 },
        { "kitten", "sitting", 3 }, { "", "ab", 2 } };
    for (size_t i = 0; i < sizeof example / sizeof *example; i++) {
        const Text y_o = text(example[i].y_o), y_c = text(example[i].y_c);
        const double n = y_o.n ? (double)y_o.n : 1, d = degree_of_correction(k, y_o, y_c);
        OK(fabs(d - example[i].changed / n) < 1e-12, "D_L of %s and %s is %g", y_o.s, y_c.s, d);
    }
}

static void steering(void) {
    Model m;
    Batch b;
    toy_model(&m, 32, 2, 1);
    toy_train(&m);
    Row r = aligner(&m, toy(0));
    batch_alloc(&b, TOY_CONTEXT, 1);
    batch_add(&b, &r);
    acts_reserve(&m, TOY_CONTEXT, TOY_CONTEXT, TOY_CONTEXT, true);
    float *steer = zalloc((size_t)(m.c.L * m.c.C), sizeof *steer);
    steer_forward(&m, &b, steer);
    steer_hidden(&m, &b, steer);
    steer_drafts(&m, steer);
    directions();
    separation_by_hand();
    Tokenizer *letters = vocabulary(NULL, 0);           // a token for each byte
    letters->no_space = true;
    degrees(letters);
    tokenizer_free(letters);
    FREE(steer, r.ids);
    batch_free(&b);
    model_free(&m);
}

/* ---- the commands, run in the folder for temporary files */

#define TMP "build/tests/tmp/"

// Runs a command of a program in $B; returns its exit code. *peak, if wanted, receives the peak of
// its memory in MB. The kernel counts what the child was before it became the program, too: this
// process must be smaller than what it measures.
static int run(const char *program, const char *arguments, double *peak) {
    char command[2048];
    struct rusage usage;
    int status = -1;
    const char *b = getenv("B") ? getenv("B") : "build";
    snprintf(command, sizeof command, "cd " TMP " && exec %s%s/%s %s > out 2> err",
             *b == '/' ? "" : "../../../", b, program, arguments);
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    if (wait4(child, &status, 0, &usage) < 0) return -1;
#ifdef __APPLE__
    if (peak) *peak = 1e-6 * (double)usage.ru_maxrss;   // bytes there, kilobytes elsewhere
#else
    if (peak) *peak = 1.024e-3 * (double)usage.ru_maxrss;
#endif
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// Did the last command write this, on stdout or stderr?
static bool wrote(const char *what) {
    Buf out = read_all(TMP "out"), err = read_all(TMP "err");
    const bool found = strstr(out.s, what) || strstr(err.s, what);
    FREE(out.s, err.s);
    return found;
}

// What is run in turn, its exit code, and something that it must write.
#define TRIAL "--data lab.jsonl --steps 20 --batch 4 --out "
#define RLHF "rlhf --init pi.gguf --reward r.gguf --data lab.jsonl --max-tokens 6 --samples 3 " \
             "--batch 3 --steps 6 --ema 0.9 "
static const struct { const char *arguments; int code; const char *what; } CASE[] = {
    { "", 2, "no command" },
    { "dop", 2, "did you mean dpo" },
    { "dpo --kl 1", 2, "has no option --kl" },
    { "dpo " TRIAL "x.gguf", 2, "needs --init" },
    { "rlhf --init pi.gguf " TRIAL "x.gguf", 2, "needs --reward" },
    { "dpo --init mu.gguf " TRIAL "x.gguf", 1, "does not answer" },
    { "reward --init pi.gguf --valid lab.jsonl " TRIAL "r.gguf", 0, "100.0 % of the validation" },
    { "dpo --init pi.gguf --valid lab_bad.jsonl --ema 0.5 " TRIAL "d.gguf", 0, "right order" },
    { "rlhf --init pi.gguf --reward d.gguf " TRIAL "x.gguf", 1, "not a reward model" },
    { RLHF "--out a.gguf --valid lab.jsonl", 0, "validation loss" },
    { RLHF "--out b.gguf --save-every 2", 0, "log(pi / reference)" },
    { RLHF "--out b.gguf --resume --kl 0.5", 1, "state of another run" },
    { RLHF "--out b.gguf --resume", 0, "" },
    { "score r.gguf lab.jsonl", 0, "\"reward\": " },
    { "score pi.gguf lab.jsonl", 1, "not a reward model" },
    { "loglik r.gguf lab.jsonl", 1, "use `score`" },
    { "loglik mu.gguf lab.jsonl", 0, "\"loglik\": " },
    { "loglik mu.gguf lab_bad.jsonl", 0, "{\"line\": \"{broken\"" },
    { "loglik pi.gguf lab.jsonl --target correction", 0, "\"tokens\": " },
    { "loglik pi.gguf lab.jsonl --target question", 2, "answer or correction" },
    { "bound pi.gguf mu.gguf --data lab_bad.jsonl --json", 0, "\"slack\": " },
    { "bound pi.gguf mu.gguf --data lab_bad.jsonl", 0, "(2 rows skipped)" },
    { "bound mu.gguf pi.gguf --data lab.jsonl", 1, "a model that answers was expected" },
    { "steer mu.gguf --data lab.jsonl --json --alpha -1,1", 0, "\"held_out\": false" },
    { "steer mu.gguf --data lab.jsonl --json --alpha 0", 0, "\"chance\": " },
    { "steer mu.gguf --data lab.jsonl --valid lab_bad.jsonl --layer 2", 0, "R^2" },
    { "steer mu.gguf --data lab.jsonl --layer 3", 2, "the model has 2 layers" },
    { "steer mu.gguf --data lab.jsonl --alpha 1,x", 2, "--alpha needs" },
    { "bench decode tiny --out tiny.gguf", 0, "" },
    { "bench nothing", 2, "nothing to measure" },
    { "bench train huge", 2, "not a shape" },
    { "memory tiny.gguf", 0, "total" },
    { "memory --vocab 4000 --dim 64", 0, "total" },
    { "memory", 2, "a model, or --vocab" } };

// The toy triples as JSONL, and two of them with a row and a line that cannot be used.
static void write_data(void) {
    static const char *const KEY[] = { "{\"question\": ", ", \"answer\": ", ", \"correction\": " };
    Buf data = { 0 };
    for (int i = 0; i < TOYS; i++) {
        for (int k = 0; k < 3; k++) {
            buf_puts(&data, KEY[k]);
            json_put(&data, text(TOY[i][k]));
        }
        buf_puts(&data, "}\n");
    }
    put_file(TMP "lab.jsonl", data.s, data.n);
    data.n = (size_t)(strchr(strchr(data.s, '\n') + 1, '\n') + 1 - data.s);
    buf_puts(&data, "{\"question\": 1}\n{broken\n");
    put_file(TMP "lab_bad.jsonl", data.s, data.n);
    free(data.s);
}

static void commands(void) {
    Model m;
    write_data();
    toy_model(&m, 32, 2, 1);
    toy_train(&m);
    model_save(&m, TMP "mu.gguf");
    snprintf(m.objective, sizeof m.objective, "sft");
    model_save(&m, TMP "pi.gguf");
    model_free(&m);
    for (size_t i = 0; i < sizeof CASE / sizeof *CASE; i++) {
        const int code = run("lab", CASE[i].arguments, NULL);
        OK(code == CASE[i].code, "`lab %s` exits with %d", CASE[i].arguments, code);
        OK(wrote(CASE[i].what), "`lab %s` does not write \"%s\"", CASE[i].arguments, CASE[i].what);
    }
    Buf a = read_all(TMP "a.gguf"), b = read_all(TMP "b.gguf");
    OK(same(contents(&a), contents(&b)), "checkpoints, validation or --resume change a run");
    FREE(a.s, b.s);
    OK(run("lab", "--help", NULL) == 0, "--help fails");
    for (const Command *c = LAB_COMMAND; c->name; c++)
        OK(wrote(c->name), "--help does not name %s", c->name);
}

/* ---- memory: what `lab memory` announces, and the peak that a run then has */

#define SHAPE_ASKED "--dim 256 --layers 4 --heads 4 --hidden 512 --context 128 "

static double announced(int V, const char *options) {
    char command[600];
    double used = 0, total = 0;
    snprintf(command, sizeof command, "memory --vocab %d %s", V, options);
    OK(run("lab", command, &used) == 0, "`lab %s` fails", command);
    OK(used < 40, "`lab %s` itself takes %.1f MB", command, used);
    Buf f = read_all(TMP "out");
    for (char *line = f.s, *end; (end = strchr(line, '\n')); line = end + 1) {
        *end = 0;
        if (strstr(line, "total")) total = strtod(line, NULL);
    }
    free(f.s);
    return total;
}

static void memory(void) {
    static const char *const EXTRA[] = { "--threads 2", "--threads 2 --tied",
                                         "--threads 1 --muon 0.5 --ema 0.99" };
    Tokenizer *k = tokenizer_load("tokenizer.bin");
    const int V = k->V;
    Buf data = { 0 };
    tokenizer_free(k);
#ifdef SANITIZED
    printf("skipped: under the sanitizers memory is not what it is\n");
    return;
#endif
    for (int i = 0; i < 200; i++) {
        char line[128];
        snprintf(line, sizeof line, "{\"question\": \"%d?\", \"answer\": \"It is %d.\", "
                 "\"correction\": \"%d it is.\"}\n", i, i, i);
        buf_puts(&data, line);
    }
    put_file(TMP "memory.jsonl", data.s, data.n);
    for (int i = 0; i < 3; i++) {
        char options[512], command[1024];
        double peak = 0;
        snprintf(options, sizeof options, SHAPE_ASKED "%s", EXTRA[i]);
        snprintf(command, sizeof command, "train aligner --tokenizer ../../../tokenizer.bin %s "
                 "--data memory.jsonl --prompt short --steps 2 --tokens 4096 --quiet "
                 "--out memory.gguf", options);
        const double said = announced(V, options);
        OK(run("aligner", command, &peak) == 0, "`%s` fails", command);
        // The program itself, threads, the tokenizer and the rows take a few MB more.
        OK(peak > 0.95 * said && peak < 1.02 * said + 8, "%s: %.1f MB announced, the peak is %.1f",
           EXTRA[i], said, peak);
        if (getenv("VERBOSE")) printf("%s: %.1f MB, the peak is %.1f\n", EXTRA[i], said, peak);
    }
    free(data.s);
}

// The edit distance that D_L is made of, both ways, with a letter a token.
static void distances(void) {
    static const struct { const char *a, *b; int distance; } PAIR[] = {
        { "", "", 0 }, { "abc", "", 3 }, { "", "ab", 2 }, { "kitten", "sitting", 3 },
        { "flaw", "lawn", 2 }, { "abc", "abc", 0 }, { "abcdef", "azced", 3 },
        { "sunday", "saturday", 3 } };
    Tokenizer *k = vocabulary(NULL, 0);
    k->no_space = true;
    for (int i = 0; i < 8; i++) {
        const Text a = text(PAIR[i].a), b = text(PAIR[i].b);
        const double there = degree_of_correction(k, a, b) * (a.n ? (double)a.n : 1);
        const double back = degree_of_correction(k, b, a) * (b.n ? (double)b.n : 1);
        OK(fabs(there - PAIR[i].distance) < 1e-9, "%s to %s: %g", a.s, b.s, there);
        OK(fabs(back - PAIR[i].distance) < 1e-9, "%s to %s: %g", b.s, a.s, back);
    }
    tokenizer_free(k);
}

int main(void) {
    set_threads(1);
    setenv("OMP_NUM_THREADS", "1", 0);                  // the commands' small loops, too
    temporary("");                                      // makes the folder
    memory();                                           // first, while this process is small
    pairs(true, false);
    pairs(true, true);
    pairs(false, false);
    pairs(false, true);
    units();
    parity();
    rlhf();
    equation_3();
    steering();
    commands();
    distances();
    return done("lab");
}
