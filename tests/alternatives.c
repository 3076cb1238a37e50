// alternatives.c - chapters 8 and 9: the gradients of DPO and of the reward model against central differences and
// against PyTorch (tests/fixture.py made tests/fixture_dpo.bin), RLHF's estimator where all answers can be counted out,
// its draws against their probabilities; both sides of Eq. (3); steering.
#include "reference.h"
#include "toy.h"

static double soft(double margin) { return log1p(exp(-margin)); }      // - log sigmoid

static double *doubles(const Model *m)
{
    double *p = zalloc(m->n_params, sizeof *p);
    for (size_t i = 0; i < m->n_params; i++) p[i] = (double)m->params[i];
    return p;
}

// A run around a model, as train() makes it; `examples` rows of at most `longest` tokens.
static void run_around(Run *r, Model *m, TrainOptions *o, int examples, int longest)
{
    *r = (Run){ .m = m, .o = o, .T = examples * longest, .longest = longest };
    r->nll = zalloc((size_t)r->T, sizeof(double));
    batch_alloc(&r->batch, r->T, r->T, r->T);
    acts_reserve(m, r->T, r->T, longest, true);
    m->grads = zalloc(m->n_params, sizeof(float));
    others_init(r);
}

static void run_free(Run *r) { free(r->nll), batch_free(&r->batch), others_free(r->o->others); }

/* ---- pairs */

enum { PAIRS = 3 };
static Model policy;
static double *P, *R, reference_nll[2 * PAIRS];
static Row pair[2 * PAIRS];
static bool is_dpo;

static double f_pairs(void)
{
    double loss = 0, v[2];
    for (int e = 0; e < 2 * PAIRS; e++) {
        double nll = ref_row(&policy, P, &pair[e], &v[e % 2]);
        if (is_dpo) v[e % 2] = 0.7 * (reference_nll[e] - nll);
        if (e % 2) loss += soft(v[0] - v[1]) / PAIRS;
    }
    return loss;
}

static void pairs(bool dpo, bool tied)
{
    Config c = { 41, 16, 2, 4, 2, 22, 64, tied, 1e-5f, 10000 };
    static const int length[] = { 12, 17, 21, 9, 5, 30 };
    Others x = { 0 };
    TrainOptions o = { .others = &x, .beta = 0.7, .pairs = 1 };
    Run r;
    random_model(&policy, c, 5 + tied);
    if (dpo) random_model(&x.reference, c, 15);
    run_around(&r, &policy, &o, 2 * PAIRS, 32);
    P = doubles(&policy), is_dpo = dpo;
    if (dpo) R = doubles(&x.reference);
    for (int e = 0; e < 2 * PAIRS; e++) {
        int n = length[e];
        pair[e] = random_row(30, dpo ? 4 : n - 1, n, &seed);            // ids from 30 on are never read
        for (int i = 0; i < n; i++) if (pair[e].ids[i] == REWARD) pair[e].ids[i] = 9;
        if (!dpo) pair[e].ids[n - 1] = REWARD;
        if (dpo) reference_nll[e] = ref_row(&x.reference, R, &pair[e], NULL);
        batch_add(&r.batch, &pair[e]);
    }
    const char *name = dpo ? "dpo" : "reward";
    double loss = pair_loss(&r, PAIRS) / PAIRS, right = 0, want = f_pairs();
    backward(&policy, &r.batch);
    OK(fabs(loss - want) < 1e-5 * want, "%s: the loss is %.9f, should be %.9f", name, loss, want);
    for (int e = 0; e < 2 * PAIRS; e += 2) right += x.value[e] > x.value[e + 1];
    OK(fabs(x.ranked - right / PAIRS) < 1e-12, "%s: %g of the pairs are in the right order", name, x.ranked);
    for (size_t i = 0; i < policy.n_tensors; i++) {
        const Tensor *t = &policy.tensor[i];
        gradient_agrees(t->name, f_pairs, P + t->at, policy.grads + t->at, (size_t)t->rows * (size_t)t->cols,
                        t->rows == 1 ? 0 : 40);
    }
    // Zero where it must be: what is never read, and of the reward's classifier all rows but one.
    for (int id = 30; id < c.V && !(tied && dpo); id++)
        for (int i = 0; i < c.C; i++)
            OK(policy.grads[policy.embd_at + (size_t)(id * c.C + i)] == 0, "%s: token %d has a gradient", name, id);
    for (int id = 0; id < c.V && !tied && !dpo; id++)
        for (int i = 0; i < c.C; i++)
            OK((policy.grads[policy.out_at + (size_t)(id * c.C + i)] != 0) == (id == REWARD), "reward: row %d", id);
    OK(!dpo || !x.reference.grads, "the reference has gradients");

    // Where policy and reference are the same, every margin is 0 and the loss ln 2; a margin of 60 moves nothing.
    if (dpo) {
        memcpy(x.reference.params, policy.params, policy.n_params * sizeof(float));
        OK(fabs(pair_loss(&r, PAIRS) / PAIRS - log(2)) < 1e-9, "dpo: the loss of the reference itself is not ln 2");
        o.beta = 1e4;
        for (int i = 0; i < c.C; i++) x.reference.params[x.reference.norm_at + (size_t)i] *= 0.9f;
        loss = pair_loss(&r, PAIRS);
        int large = 0;
        for (int e = 0; e < 2 * PAIRS; e += 2) {
            double margin = x.value[e] - x.value[e + 1], weight = x.weight[e];
            OK(isfinite(loss) && (margin < 60 || fabs(weight) < 1e-20), "dpo: margin %g, weight %g", margin, weight);
            large += fabs(margin) > 60;
        }
        OK(large, "no margin is large");
    }
    for (int e = 0; e < 2 * PAIRS; e++) free(pair[e].ids);
    free(P), free(R), R = NULL, run_free(&r), model_free(&policy);
}

/* ---- against PyTorch */

static void parity(void)
{
    Buf f = read_all("tests/fixture_dpo.bin", NULL);
    const int32_t *at = (const int32_t *)f.s;
    CHECK(f.n > 64 && *at++ == 0x4F504441, "not the fixture of tests/fixture.py");
    Config c = { at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7], 1e-5f, 10000 };
    int n_pairs = at[8];
    Others x = { 0 };
    Model m;
    Run r;
    Row row[64];
    at += 9;
    for (int e = 0; e < 2 * n_pairs; e++, at += 2 + at[1]) row[e] = (Row){ (int *)at + 2, at[0], at[1] };
    random_model(&m, c, 1), random_model(&x.reference, c, 1);
    const float *p = (const float *)at, *end = (const float *)(f.s + f.n);
    size_t bytes = m.n_params * sizeof(float);
    TrainOptions o = { .others = &x, .beta = (double)*p++, .pairs = 1 };
    memcpy(m.params, p, bytes), p += m.n_params;
    memcpy(x.reference.params, p, bytes), p += m.n_params;
    run_around(&r, &m, &o, 2 * n_pairs, c.context);
    for (int dpo = 1; dpo >= 0; dpo--) {
        batch_clear(&r.batch), memset(m.grads, 0, bytes);
        if (!dpo) model_free(&x.reference);
        for (int e = 0; e < 2 * n_pairs; e++) {
            int ids[64];
            memcpy(ids, row[e].ids, (size_t)row[e].n * sizeof(int)), ids[row[e].n] = REWARD;
            batch_add(&r.batch, dpo ? &row[e] : &(Row){ ids, row[e].n, row[e].n + 1 });
        }
        double loss = pair_loss(&r, n_pairs) / n_pairs, theirs = (double)*p++, size = 0, d = 0;
        OK(fabs(loss - theirs) < 1e-6 * theirs, "dpo %d: loss %.8f, PyTorch %.8f", dpo, loss, theirs);
        backward(&m, &r.batch);
        for (size_t i = 0; i < m.n_tensors; i++) {
            const Tensor *t = &m.tensor[i];
            size_t n = (size_t)t->rows * (size_t)t->cols;
            size = d = 0;
            for (size_t j = 0; j < n; j++) {
                size = fmax(size, fabs((double)p[t->at + j]));
                d = fmax(d, fabs((double)p[t->at + j] - (double)m.grads[t->at + j]));
            }
            OK(size > 0 && d < 2e-5 * size, "dpo %d: the gradient of %s differs by %g of %g", dpo, t->name, d, size);
        }
        p += m.n_params;
    }
    OK(p == end, "the fixture was not read to its end");
    free(f.s), run_free(&r), model_free(&m);
}

/* ---- RLHF: 8 tokens, answers of at most 2 draws: "</s>", 7 times "a </s>", 49 times "a b" without an end */

enum { TINY = 8, OUTCOMES = 1 + 7 + 49, CONDITION = 3 };
static int outcome[OUTCOMES][2], outcome_n[OUTCOMES];
static bool outcome_ended[OUTCOMES];
static int tiny_condition[CONDITION + 2] = { BOS, 5, 3 };
static double fixed_value[OUTCOMES], fixed_ref[OUTCOMES], log_pi[OUTCOMES];

static void outcomes(void)
{
    int n = 0;
    for (int a = 0; a < TINY; a++)
        for (int b = 0; b < (a == EOS ? 1 : TINY); b++, n++) {
            outcome_n[n] = a == EOS ? 0 : b == EOS ? 1 : 2, outcome_ended[n] = outcome_n[n] < 2;
            outcome[n][0] = a, outcome[n][1] = b;
        }
    OK(n == OUTCOMES, "%d outcomes", n);
}

static double outcome_log_p(const Model *m, const double *p, int i)
{
    int ids[CONDITION + 3] = { BOS, 5, 3 };
    for (int j = 0; j < outcome_n[i]; j++) ids[CONDITION + j] = outcome[i][j];
    ids[CONDITION + outcome_n[i]] = EOS;
    return -ref_row(m, p, &(Row){ ids, CONDITION, CONDITION + outcome_n[i] + outcome_ended[i] }, NULL);
}

static const double KL = 0.3;

// - E R = - sum over all answers of p (r - kl log(p / ref)), exactly.
static double f_rlhf(void)
{
    double sum = 0;
    for (int i = 0; i < OUTCOMES; i++) {
        double log_p = outcome_log_p(&policy, P, i);
        sum -= exp(log_p) * (fixed_value[i] - KL * (log_p - fixed_ref[i]));
    }
    return sum;
}

static void rlhf(void)
{
    Config c = { TINY, 8, 1, 2, 1, 12, 16, false, 1e-5f, 10000 };
    Others x = { .max_tokens = 2 };
    TrainOptions o = { .others = &x, .kl = KL, .answers = 2, .batch = 1, .seed = 3 };
    Run r;
    random_model(&policy, c, 21), random_model(&x.reference, c, 22), random_model(&x.reward, c, 23);
    run_around(&r, &policy, &o, 2, c.context);
    outcomes();
    P = doubles(&policy);
    double *ref = doubles(&x.reference), *judge = doubles(&x.reward), total = 0;
    for (int i = 0; i < OUTCOMES; i++) {
        int ids[CONDITION + 4] = { BOS, 5, 3 };
        for (int j = 0; j < outcome_n[i]; j++) ids[CONDITION + j] = outcome[i][j];
        ids[CONDITION + outcome_n[i]] = EOS, ids[CONDITION + outcome_n[i] + 1] = REWARD;
        int n = CONDITION + outcome_n[i] + 1;
        ref_row(&x.reward, judge, &(Row){ ids, n, n + 1 }, &fixed_value[i]);
        fixed_value[i] -= outcome_ended[i] ? 0 : NO_END;
        fixed_ref[i] = outcome_log_p(&x.reference, ref, i), log_pi[i] = outcome_log_p(&policy, P, i);
        total += exp(log_pi[i]);
    }
    OK(fabs(total - 1) < 1e-12, "the probabilities of all answers sum to %.15f", total);

    // The expectation of the estimator over both draws: sum over i and j of p_i p_j times what it says of (i, j).
    double *mean = zalloc(policy.n_params, sizeof *mean), loss = 0;
    float *expected = zalloc(policy.n_params, sizeof *expected);
    Row q = { tiny_condition, CONDITION, CONDITION + 1 };
    for (int i = 0; i < OUTCOMES; i++)
        for (int j = 0; j < OUTCOMES; j++) {
            double p = exp(log_pi[i] + log_pi[j]);
            batch_clear(&r.batch), batch_clear(&x.judged);
            add_answer(&r, &q, outcome[i], outcome_n[i], outcome_ended[i]);
            add_answer(&r, &q, outcome[j], outcome_n[j], outcome_ended[j]);
            loss += p * rlhf_loss(&r, 1);
            backward(&policy, &r.batch);
            for (size_t k = 0; k < policy.n_params; k++) mean[k] += p * (double)policy.grads[k], policy.grads[k] = 0;
        }
    double exact = f_rlhf();
    OK(fabs(loss - exact) < 1e-5, "the mean of the loss is %.8f, - E R is %.8f", loss, exact);
    for (size_t k = 0; k < policy.n_params; k++) expected[k] = (float)mean[k];
    for (size_t i = 0; i < policy.n_tensors; i++) {
        const Tensor *t = &policy.tensor[i];
        gradient_agrees(t->name, f_rlhf, P + t->at, expected + t->at, (size_t)t->rows * (size_t)t->cols, 0);
    }

    // Two answers alike teach nothing, to the bit.
    batch_clear(&r.batch), batch_clear(&x.judged);
    for (int i = 0; i < 2; i++) add_answer(&r, &q, outcome[30], outcome_n[30], outcome_ended[30]);
    rlhf_loss(&r, 1), backward(&policy, &r.batch);
    long wrong = 0;
    for (size_t k = 0; k < policy.n_params; k++) wrong += policy.grads[k] != 0;
    OK(!wrong, "two answers alike have %ld gradients", wrong);

    // The draws have the probabilities that the estimator takes for granted (chi-square, 56 degrees of freedom).
    enum { DRAWS = 5000 };
    static long seen[OUTCOMES];
    uint64_t draws = 77;
    double chi = 0;
    for (int i = 0; i < DRAWS; i++) {
        draw_answers(&r, &q, random_u64(&draws));
        const int *start = r.batch.start;
        for (int e = 0; e < 2; e++) {
            int n = 0;
            for (int k = 0; k < OUTCOMES; k++) {        // which one is it?
                int length = CONDITION + outcome_n[k] + outcome_ended[k] - 1;
                bool hit = start[e + 1] - start[e] == length;
                for (int j = 0; j < outcome_n[k] - !outcome_ended[k] && hit; j++)
                    hit = r.batch.ids[start[e] + CONDITION + j] == outcome[k][j];
                int last = 0;
                while (last < r.batch.n_out && r.batch.out[last] < start[e + 1]) last++;
                hit = hit && r.batch.target[last - 1] == (outcome_ended[k] ? EOS : outcome[k][1]);
                if (hit) seen[k]++, n++;
            }
            OK(n == 1, "draw %d is %d outcomes", i, n);
            OK(x.judged.ids[x.judged.start[e + 1] - 1] == EOS, "the reward is read at </s>");
        }
    }
    for (int k = 0; k < OUTCOMES; k++) {
        double want = 2 * DRAWS * exp(log_pi[k]);
        chi += pow((double)seen[k] - want, 2) / want;
    }
    OK(chi < OUTCOMES - 1 + 5 * sqrt(2.0 * OUTCOMES), "chi-square %.1f over %d answers", chi, OUTCOMES);

    // A few hundred steps reach a reward that is near the best that this leash allows.
    Progress *s = &r.s;
    Rows rows = { &q, 1, 1 };
    uint32_t order[1] = { 0 };
    r.rows = &rows, r.order = order;
    *s = (Progress){ .m = zalloc(policy.n_params, 4), .v = zalloc(policy.n_params, 4) };
    o.batch = 8;
    for (; s->step < 300; s->step++) rlhf_step(&r), update(&policy, s, &(TrainOptions){ .clip = 1, .adam_eps = 1e-8 }, 1e-2);
    double partition = 0;                               // the optimum is ref exp(r / kl) / Z, with E R = kl log Z
    for (int i = 0; i < OUTCOMES; i++) partition += exp(fixed_ref[i] + fixed_value[i] / KL);
    free(P), P = doubles(&policy);
    double after = -f_rlhf(), best = KL * log(partition);
    OK(after <= best + 1e-6 && after > best - 0.2 * (best + exact), "E R went from %.3f to %.3f of %.3f", -exact, after,
       best);
    free(s->m), free(s->v), free(mean), free(expected), free(P), free(ref), free(judge);
    run_free(&r), model_free(&policy);
}

/* ---- Eqs. (2) and (3) */

static void both_sides(void)
{
    Model pi, mu;
    Generator g;
    Batch b;
    Bound one;
    toy_model(&pi, 16, 1, 3), toy_model(&mu, 16, 1, 4);
    double *nll = zalloc(TOY_CONTEXT, sizeof *nll);
    batch_alloc(&b, TOY_CONTEXT, 1, TOY_CONTEXT), acts_reserve(&mu, TOY_CONTEXT, TOY_CONTEXT, TOY_CONTEXT, false);
    generator_init(&g, &pi, GREEDY);

    // Answers of one draw are the whole vocabulary: all of them, likeliest first, and pi' added up a second time.
    Limits all = { 2, 1000, 1000, 1 };
    for (int i = 0; i < TOYS; i++) {
        Triple t = toy(i);
        t.y_o = text("");                               // of one draw: </s>
        Row r = sft(&pi, t);
        Answers a = enumerate(&g, &r, all);
        double sum = 0;
        OK(a.n == TOY_VOCAB && fabs(a.mass - 1) < 1e-5, "%d answers, mass %.8f", a.n, a.mass);
        for (int k = 1; k < a.n; k++) OK(a.log_p[k] <= a.log_p[k - 1] + 1e-6, "answer %d is too late", k);
        for (int k = 0; k < a.n; k++) {
            Buf y = decode_all(&pi.tok, a.answer[k].a, a.answer[k].n);
            Row m = aligner(&mu, (Triple){ t.x, contents(&y), t.y_c });
            sum += exp(a.log_p[k] + log_likelihood(&mu, &b, nll, &m));
            free(y.s), free(m.ids);
        }
        OK(bound(&g, &mu, &b, nll, t, all, &one), "row %d is too long", i);
        OK(fabs(one.left + log(sum)) < 1e-4 * fabs(one.left), "- log pi' is %.6f, should be %.6f", one.left, -log(sum));
        OK(one.right >= one.left, "Eq. (3) is broken: %g < %g", one.right, one.left);
        OK(one.answers == TOY_VOCAB && fabs(one.mass - 1) < 1e-5, "%d answers, mass %g", one.answers, one.mass);
        answers_free(&a), free(r.ids);
    }

    // Two draws: 1 + 319 * 320 answers would be all; the mass that is covered grows with the number that is asked for.
    Row r = sft(&pi, toy(0));
    double mass = 0;
    for (int n = 10; n <= 1000; n *= 10) {
        Answers a = enumerate(&g, &r, (Limits){ 2, n, 100000, 2 });
        OK(a.n == n && a.mass > mass && a.mass < 1, "%d answers of two draws, mass %g", a.n, a.mass);
        mass = a.mass, answers_free(&a);
    }
    free(r.ids), generator_free(&g), model_free(&pi);

    // An upstream that knows its answers by heart: whole answers, almost all of the mass, and both sides are close.
    toy_model(&pi, 32, 2, 1);
    Rows rows = toy_rows(&pi, sft), none = { 0 };
    TrainOptions o = { .out = temporary("pi.gguf"), .steps = TOY_STEPS, .batch = TOYS, .lr = 1e-2, .lr_warmup = 0.05,
                       .clip = 1, .adam_eps = 1e-8, .seed = 1, .quiet = 1 };
    train(&pi, &rows, &none, &o);
    generator_init(&g, &pi, GREEDY);
    for (int i = 0; i < TOYS; i++) {
        OK(bound(&g, &mu, &b, nll, toy(i), BOUND, &one), "row %d is too long", i);
        OK(one.left <= one.right && one.mass > 0.8 && one.mass < 1 + 1e-6, "row %d: %g <= %g, mass %g", i, one.left,
           one.right, one.mass);
        Triple other = { toy(i).x, toy((i + 1) % TOYS).y_o, toy(i).y_c };      // an answer that it does not give
        OK(bound(&g, &mu, &b, nll, other, BOUND, &one) && one.right > one.left + 1, "row %d: the slack is %g", i,
           one.right - one.left);
    }
    rows_free(&rows), free(nll), batch_free(&b), generator_free(&g), model_free(&pi), model_free(&mu);
}

/* ---- steering */

static void steering(void)
{
    Model m;
    Batch b;
    toy_model(&m, 32, 2, 1);
    toy_train(&m);
    Row r = aligner(&m, toy(0));
    int ld = (int)logits_ld(&m.c), L = m.c.L, C = m.c.C;
    batch_alloc(&b, TOY_CONTEXT, 1, TOY_CONTEXT), batch_add(&b, &r);
    acts_reserve(&m, TOY_CONTEXT, TOY_CONTEXT, TOY_CONTEXT, true);
    size_t n = (size_t)b.n_out * (size_t)ld;
    float *plain = zalloc(n, sizeof *plain), *steer = zalloc((size_t)(L * C), sizeof *steer);
    forward(&m, &b, NULL), copy_floats(plain, m.acts.logits, n);
    m.steer = steer;
    forward(&m, &b, NULL);
    bool equal = true;
    for (size_t i = 0; i < n; i++) equal = equal && plain[i] == m.acts.logits[i];
    OK(equal, "a vector of zeros changes the logits");
    steer[3] = 1;                                       // behind the first layer only
    forward(&m, &b, NULL);
    OK(memcmp(plain, m.acts.logits, n * sizeof *plain), "a vector changes nothing");
    m.steer = NULL;
    forward(&m, &b, NULL);
    OK(!memcmp(plain, m.acts.logits, n * sizeof *plain), "NULL does not give the bits of before");

    // hidden() finds the residual stream: what is added behind layer l shows there, and in no other column.
    float *H[2] = { zalloc((size_t)C, 4), zalloc((size_t)C, 4) };
    for (int l = 0; l < L; l++) {
        for (int with = 0; with < 2; with++) {
            memset(steer, 0, (size_t)(L * C) * sizeof *steer), steer[l * C + 5] = with ? 2 : 0;
            m.steer = steer, forward(&m, &b, NULL), m.steer = NULL;
            copy_floats(H[with], hidden(&m, &b, l, 1), (size_t)C);
        }
        for (int j = 0; j < C; j++) {
            float d = H[1][j] - H[0][j];
            OK(fabsf(d - (j == 5 ? 2 : 0)) < 1e-6f, "layer %d, column %d: %g", l, j, (double)d);
        }
    }

    // A draft changes nothing under steering either.
    Generator g;
    Buf with = { 0 }, without = { 0 };
    for (int j = 0; j < L * C; j++) steer[j] = (float)(random_unit(&seed) - 0.5);
    m.steer = steer;
    for (int i = 0; i < TOYS; i++) {
        Decoding how = { .temperature = 0, .top_p = 1, .max_tokens = 40 };
        generator_init(&g, &m, how), correct_with(&g, toy(i).x, toy(i).y_o, &with), generator_free(&g);
        how.no_draft = 1;
        generator_init(&g, &m, how), correct_with(&g, toy(i).x, toy(i).y_o, &without), generator_free(&g);
        OK(same(contents(&with), contents(&without)), "row %d: with a draft %s, without %s", i, with.s, without.s);
    }
    m.steer = NULL;

    // Power iteration: differences of 3 u and noise give back u with its sign, and their own mean length.
    enum { ROWS = 40, DIM = 24, LAYERS = 2 };
    float *states = zalloc(ROWS * LAYERS * POSITIONS * DIM, 4), u[DIM] = { 0 }, v[DIM];
    double length = 0, along = 0;
    for (int j = 0; j < DIM; j++) u[j] = (float)(random_unit(&seed) - 0.5), length += (double)(u[j] * u[j]);
    for (int j = 0; j < DIM; j++) u[j] /= (float)sqrt(length);
    for (int i = 0; i < ROWS; i++)
        for (int k = 0; k < LAYERS * POSITIONS; k++)
            for (int j = 0; j < DIM; j++)
                states[(i * LAYERS * POSITIONS + k) * DIM + j] = (float)(0.3 * (random_unit(&seed) - 0.5)) +
                                                                 (i % 2 && k >= POSITIONS ? 3 * u[j] : 0);
    double distance = principal_direction(v, states, ROWS, 1, LAYERS, DIM);
    for (int j = 0; j < DIM; j++) along += (double)(u[j] * v[j]);
    OK(along > 0.99 && fabs(distance - 3.06) < 0.03, "u . V_c = %g, length %g", along, distance);
    Row fake[2] = { { NULL, 1, 1 + POSITIONS }, { NULL, 1, 1 + POSITIONS } };
    Rows two = { fake, 2, 2 };
    double r_copy = activity(states, &two, v, 0, 1, 2, LAYERS, DIM);
    double r_correct = activity(states, &two, v, 1, 1, 2, LAYERS, DIM);
    OK(fabs(r_copy) < 0.5 && fabs(r_correct - 3) < 0.5, "r(l, k) is %g and %g", r_copy, r_correct);
    free(H[0]), free(H[1]), free(states), free(plain), free(steer), free(with.s), free(without.s), free(r.ids);
    batch_free(&b), model_free(&m);
}

int main(void)
{
    set_threads(1);
    pairs(true, false), pairs(true, true), pairs(false, false), pairs(false, true);
    parity();
    rlhf();
    both_sides();
    steering();
    return done("alternatives");
}
