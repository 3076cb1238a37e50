// generation.c: the cache, draft-verified decoding, --keep, the sampler, correct() down to no room
// at all, the word diff.
#include "toy.h"

static const Decoding GREEDY = { .top_p = 1 };
static uint64_t seed = 11;
static int below(int n) { return (int)(random_u64(&seed) % (uint64_t)n); }

static bool same_ids(const Ids *a, const Ids *b) {
    return a->n == b->n && (!a->n || !memcmp(a->a, b->a, (size_t)a->n * sizeof(int)));
}

// A model over ids only. With few of them </s> is likely enough, and so are repetitions, among
// which it is hard to find the place in a draft again.
static void id_model(Model *m, int V, int context, uint64_t s) {
    random_model(m,
                 (Config) { .V = V,
                            .C = 16,
                            .L = 2,
                            .H = 4,
                            .H_kv = 2,
                            .F = 20,
                            .context = context,
                            .eps = 1e-5f,
                            .theta = 1e4f },
                 s);
    for (int i = 0; i < m->c.C; i++) m->w.norm[i] *= 3;         // surer of itself
}

// The logits of r's tokens but the last, from one pass without a cache; rows V apart.
static float *one_pass(Model *m, const Row *r) {
    const size_t V = (size_t)m->c.V;
    Batch b;
    batch_alloc(&b, r->n, 1);
    batch_add(&b, r);
    acts_reserve(m, b.T, b.T, b.T, true);
    forward(m, &b, NULL);
    float *all = zalloc((size_t)b.T * V, sizeof *all);
    copy_floats(all, m->acts.logits, (size_t)b.T * V);
    batch_free(&b);
    return all;
}

// Are the last n_out of z, rows of logits, those of tokens up to `end`?
static bool same_logits(const Model *m, const float *z, const float *all, int end, int n_out) {
    const size_t V = (size_t)m->c.V;
    return same_bits(z, all + (size_t)(end - n_out) * V, (size_t)n_out * V);
}

// Passes in pieces of random size give the logits of one pass over everything, bit for bit. The
// text is longer than what the cache begins with, and than what one pass reads.
static void cached_passes(void) {
    for (int i = 0; i < 16; i += SHARE) {
        const int n = i < 8 ? 96 : 3 * FEED + 100;
        Model m;
        Generator g;
        id_model(&m, 30, 1024, (uint64_t)i);
        Row r = random_row(30, 1, n + 1, &seed);
        float *all = one_pass(&m, &r);
        generator_init(&g, &m, GREEDY);
        bool equal = true;
        for (int at = 0, k; at < n; at += k) {
            k = i % 8 < 2 ? 1 + i % 8 : least(1 + below(i < 8 ? 40 : 200), n - at);
            k = least(k, n - at);
            equal = equal && same_logits(&m, feed(&g, r.ids + at, k, k), all, at + k, k);
            OK(g.cache.len == at + k && g.cache.len <= g.cache.capacity, "len %d", g.cache.len);
            if (i % 8 > 4 && k > 1) { // forget the last one: it comes again
                g.cache.len--;
                k--;
            }
        }
        OK(equal, "model %d: other bits through the cache", i);
        OK(g.cache.capacity < 2 * n + 256, "%d positions for a text of %d", g.cache.capacity, n);
        FREE(all, r.ids);
        generator_free(&g);
        model_free(&m);
    }
}

// A prompt of any length is read in blocks; wherever their borders are, the bits are those of one
// pass.
static void long_prompts(void) {
    static const int LENGTH[] = { 1,         2,        FEED - 1,     FEED, FEED + 1,
                                  FEED + 63, 2 * FEED, 2 * FEED + 1, 700 };
    Model m;
    Generator g;
    id_model(&m, 30, 4096, 3);
    Row r = random_row(30, 1, 701, &seed);
    float *all = one_pass(&m, &r);
    for (int i = 0; i < 9; i += SHARE)
        for (int n_out = 1; n_out <= least(LENGTH[i], FEED);
             n_out = n_out < 4 ? n_out + 1 : n_out * 3) {
            generator_init(&g, &m, GREEDY);
            const float *z = feed(&g, r.ids, LENGTH[i], n_out);
            OK(same_logits(&m, z, all, LENGTH[i], n_out), "%d tokens, %d wanted", LENGTH[i], n_out);
            OK(g.passes <= LENGTH[i] / FEED + 2, "%d tokens in %ld passes", LENGTH[i], g.passes);
            OK(g.cache.len == LENGTH[i], "%d tokens are in the cache", g.cache.len);
            generator_free(&g);
        }
    generator_init(&g, &m, GREEDY);
    const float *z = feed(&g, r.ids, 700, FEED);
    OK(same_logits(&m, z, all, 700, FEED), "as many logits as a pass can give");

    // The same through generate(): a prompt of 700 tokens continues as from a prompt fed one by
    // one.
    Ids prompt = { r.ids, 700, 0 }, out = { 0 }, again = { 0 };
    g.how.max_tokens = 20;
    generate(&g, &prompt, NULL, 0, &out);
    g.cache.len = 0;
    for (int t = 0; t < 699; t++) feed(&g, r.ids + t, 1, 1);
    for (int at = r.ids[699]; again.n < out.n; ids_add(&again, at))
        at = choose(&g, feed(&g, &at, 1, 1));
    OK(out.n && same_ids(&out, &again), "a prompt in blocks continues in another way");
    FREE(all, r.ids, out.a, again.a);
    generator_free(&g);
    model_free(&m);
}

// A draft that resembles the answer: some tokens replaced, dropped or put in.
static Ids spoil(const Ids *answer, int V, int percent) {
    Ids d = { 0 };
    for (int i = 0; i < answer->n; i++) {
        int what = below(100) < percent ? below(3) : 3;
        if (what != 0) ids_add(&d, what == 1 ? below(V) : answer->a[i]);
        if (what == 2) ids_add(&d, below(V));
    }
    return d;
}

static void count_nothing(Generator *g) { g->passes = g->tokens = g->copied = 0; }

// The same prompt with and without a draft. The decoder of record is generate() without one.
static void draft_equals_plain(void) {
    enum { MODELS = 10, ROWS = 100 / SHARE };
    long ended = 0, plain_passes = 0, draft_passes = 0, tokens = 0, copied = 0;
    for (int k = 0; k < MODELS; k++) {
        const int V = k % 2 ? 12 : 40;
        Model m;
        Generator g;
        id_model(&m, V, 100, 100 + (uint64_t)k);
        generator_init(&g, &m, GREEDY);
        for (int i = 0; i < ROWS; i++) {
            Row p = random_row(V, 1, 1 + below(40), &seed);
            Ids prompt = { p.ids, p.n, 0 }, plain = { 0 }, again = { 0 }, draft;
            g.how.frequency_penalty = i % 3 == 1 ? 0.3 : i % 3 == 2 ? -0.1 : 0;
            g.how.max_tokens = i % 5 == 4 ? below(30) : 0;
            count_nothing(&g);
            bool end = generate(&g, &prompt, NULL, 0, &plain);
            plain_passes += g.passes;
            tokens += g.tokens;
            ended += end;
            OK(g.passes == plain.n + 1 || !end, "%d, %d: %ld passes for %d", k, i, g.passes,
               plain.n);
            draft = i % 4 ? spoil(&plain, V, 5 * (i % 4)) : (Ids){ 0 };
            while (i % 4 == 0 && draft.n < i) ids_add(&draft, below(V)); // nothing like the answer
            const int nothing = 0;
            count_nothing(&g);
            bool end_again = generate(&g, &prompt, draft.n ? draft.a : &nothing, draft.n, &again);
            draft_passes += g.passes;
            copied += g.copied;
            OK(same_ids(&plain, &again) && end == end_again, "%d, %d: the draft changes the text",
               k, i);
            OK(g.tokens == again.n && g.passes <= again.n + 1 && g.copied <= again.n,
               "%d, %d: counts", k, i);
            again.n = 0;
            g.how.no_draft = 1;
            generate(&g, &prompt, draft.a, draft.n, &again);
            OK(same_ids(&plain, &again), "model %d, row %d: --no-draft", k, i);
            g.how.no_draft = 0;
            FREE(p.ids, plain.a, again.a, draft.a);
        }
        generator_free(&g);
        model_free(&m);
    }
    OK(ended > MODELS * ROWS / 10 && ended < MODELS * ROWS * 9 / 10, "%ld rows end: no fair mix",
       ended);
    OK(draft_passes * 3 < plain_passes * 2, "%ld passes with drafts, %ld without", draft_passes,
       plain_passes);
    OK(copied * 3 > tokens, "%ld of %ld tokens copied", copied, tokens);
}

// The passes for a draft that is right: blocks of 16, 32, 64, 64 guesses, and after each one token
// of the model's own.
static void passes_of_a_copy(void) {
    static const struct {
        int length, passes;
    } WANT[] = { { 1, 1 },   { 15, 1 },  { 16, 1 },  { 17, 2 },  { 48, 2 },  { 49, 2 }, { 50, 3 },
                 { 113, 3 }, { 114, 3 }, { 115, 4 }, { 178, 4 }, { 179, 4 }, { 180, 5 } };
    int ids[] = { BOS, 7, 9 };
    Model m;
    Generator g;
    id_model(&m, 30, 256, 8);
    generator_init(&g, &m, GREEDY);
    for (int i = 0; i < 13; i++) {
        Ids prompt = { ids, 3, 0 }, plain = { 0 }, copy = { 0 };
        g.how.max_tokens = WANT[i].length;
        generate(&g, &prompt, NULL, 0, &plain);
        OK(plain.n == WANT[i].length, "the test needs a longer text than %d tokens", plain.n);
        count_nothing(&g);
        generate(&g, &prompt, plain.a, plain.n, &copy);
        OK(g.passes == WANT[i].passes, "%d tokens in %ld passes", plain.n, g.passes);
        OK(same_ids(&plain, &copy) && g.copied == plain.n - g.passes + 1, "%ld of %d copied",
           g.copied, plain.n);
        FREE(plain.a, copy.a);
    }
    generator_free(&g);
    model_free(&m);
}

// The sum of log p over r's targets, as training computes it.
static double log_likelihood(Model *m, Batch *b, const Row *r) {
    batch_clear(b);
    batch_add(b, r);
    acts_reserve(m, r->n, r->n, r->n, true);
    forward(m, b, NULL);
    return -cross_entropy(m, b, 1);
}

static Row row_of(const Row *prompt, const Ids *target) {
    Ids all = { 0 };
    for (int i = 0; i < prompt->n; i++) ids_add(&all, prompt->ids[i]);
    for (int i = 0; i < target->n; i++) ids_add(&all, target->a[i]);
    ids_add(&all, EOS);
    return (Row){ all.a, prompt->n, all.n };
}

enum { KEPT_CONTEXT = 1400 };
static const double NATS[4] = { 0.001, 2, 4, 1e9 };

// One row of kept(): with how many nats is y_c worth it, by both paths?
static void keep_one(Model *m, Batch *b, int i, int corrected[4], int *other) {
    const int V = m->c.V;
    Generator g;
    Row p = random_row(V, 1, 1 + below(40), &seed);
    Ids prompt = { p.ids, p.n, 0 }, plain = { 0 }, y_c = { 0 }, draft;
    generator_init(&g, m, GREEDY);
    g.how.max_tokens = 12;
    generate(&g, &prompt, NULL, 0, &plain);
    draft = spoil(&plain, V, 5);
    if (!draft.n) ids_add(&draft, V - 1);
    while (i % 10 == 0 && draft.n < KEPT_CONTEXT - p.n - 1)
        ids_add(&draft, below(V)); // many blocks
    for (int j = 0; j < draft.n; j++)
        if (draft.a[j] == EOS) draft.a[j] = V - 1;
    Row r = row_of(&p, &draft);
    g.how.max_tokens = 150;
    const bool ended = generate(&g, &prompt, draft.a, draft.n, &y_c), copy = same_ids(&y_c, &draft);
    bool yes[4], before = true;
    Row c = row_of(&p, &y_c);
    for (int k = 0; k < 4 && ended; k++) {
        g.how.keep = NATS[k];
        yes[k] = outweighs(&g, &r, &y_c);
        OK(yes[k] || !copy, "row %d: a copy does not outweigh itself", i);
        OK(before || !yes[k], "row %d: corrected only with more nats than %g", i, NATS[k]);
        before = yes[k];
        corrected[k] += yes[k] && !copy;
    }
    *other += ended && !copy;
    if (ended && !copy) {
        const double gain = log_likelihood(m, b, &c) - log_likelihood(m, b, &r);
        g.how.no_draft = 1;
        y_c.n = 0;
        generate(&g, &prompt, draft.a, draft.n, &y_c);
        for (int k = 0; k < 4; k++) {
            g.how.keep = NATS[k];
            OK(outweighs(&g, &r, &y_c) == yes[k], "row %d: without a draft %g nats differ", i,
               NATS[k]);
            OK(yes[k] == (gain >= NATS[k]) || fabs(gain - NATS[k]) < 1e-3,
               "row %d: %g nats, a gain of %g", i, NATS[k], gain);
        }
    }
    generator_free(&g);
    FREE(p.ids, plain.a, draft.a, y_c.a, r.ids, c.ids);
}

// --keep: y_c outweighs y_o if it is e^X times as likely, by the likelihoods of both whole rows as
// another path computes them. Drafts change nothing; what stays with fewer nats stays with more.
static void kept(void) {
    Model m;
    Batch b;
    int corrected[4] = { 0 }, other = 0;
    id_model(&m, 30, KEPT_CONTEXT, 11);
    batch_alloc(&b, KEPT_CONTEXT + 1, 1);
    for (int i = 0; i < 200 / SHARE; i++) keep_one(&m, &b, i, corrected, &other);
    OK(!corrected[3] && corrected[2] < corrected[0] && corrected[2] > 0 && corrected[0] < other,
       "%d, %d, %d and %d of %d corrections outweigh: no fair mix", corrected[0], corrected[1],
       corrected[2], corrected[3], other);
    batch_free(&b);
    model_free(&m);
}

// The probabilities of V logits under `how`, by rank: p[rank[0]] is the largest. Returns how many
// stay.
static int nucleus_of(const Decoding *how, const float *logits, int V, double *p, int *rank,
                      double *mass) {
    double sum = 0;
    for (int j = 0; j < V; j++) {
        p[j] = exp((double)logits[j] / how->temperature);
        rank[j] = j;
        for (int k = j; k && p[rank[k]] > p[rank[k - 1]]; k--) {
            int swap = rank[k];
            rank[k] = rank[k - 1];
            rank[k - 1] = swap;
        }
    }
    const int most = how->top_k ? how->top_k : V;
    int n = 0;
    for (int j = 0; j < most; j++) sum += p[rank[j]]; // top-p is taken of what top-k leaves
    for (*mass = 0; n < most && (!n || *mass < how->top_p * sum); n++) *mass += p[rank[n]];
    return n;
}

static void the_sampler(Generator *g) {
    enum { V = 12, DRAWS = 20000, KINDS = 7 };
    static const Decoding HOW[KINDS] = { { .temperature = 1, .top_p = 1 },
                                         { .temperature = 0.5, .top_p = 1 },
                                         { .temperature = 1, .top_p = 0.6 },
                                         { .temperature = 2, .top_p = 1, .top_k = 4 },
                                         { .temperature = 1 },
                                         { .temperature = 2, .top_p = 0.6, .top_k = 5 },
                                         { .temperature = 1, .top_p = 1, .top_k = 99 } };
    float logits[16], z[16];
    for (int i = 0; i < V; i++) logits[i] = (float)(3 * random_unit(&seed));
    for (int i = 0; i < KINDS; i++) {
        double p[V], kept = 0, mass, chi = 0;
        long seen[V] = { 0 };
        int rank[V];
        Decoding how = HOW[i];
        if (how.top_k > V) how.top_k = V;
        const int n = nucleus_of(&how, logits, V, p, rank, &mass);
        g->how = HOW[i];
        g->how.seed = 77;
        for (int j = 0; j < DRAWS; j++) seen[choose(g, memcpy(z, logits, sizeof z))]++;
        for (int j = 0; j < V; j++) {
            double expected = j < n ? DRAWS * p[rank[j]] / mass : 0;
            kept += (double)seen[rank[j]];
            if (j < n) chi += pow((double)seen[rank[j]] - expected, 2) / expected;
            else OK(!seen[rank[j]], "sampler %d: token %d is outside top-k and top-p", i, rank[j]);
        }
        OK(kept == DRAWS && chi < n - 1 + 5 * sqrt(2.0 * n), "sampler %d: chi-square %.1f over %d",
           i, chi, n);
    }
    float close[16] = { 1, 1.5f, 1.4f };                // a token loses 0.2 each time it is written
    g->how = GREEDY;
    memset(g->count, 0, V * sizeof *g->count);
    g->count[1] = 1;
    OK(choose(g, memcpy(z, close, sizeof z)) == 1, "without a penalty counts do not matter");
    g->how.frequency_penalty = 0.2;
    OK(choose(g, memcpy(z, close, sizeof z)) == 2, "0.2 makes 1.5 less than 1.4");
    g->count[2] = 3;
    OK(choose(g, memcpy(z, close, sizeof z)) == 1, "three times 0.2 makes 1.4 less than 1.3");
}

// top-k 1 and top-p 0 are greedy; seeds tell texts apart.
static void seeds(Generator *g) {
    static const Decoding KIND[5] = {
        { .top_p = 1 }, { .temperature = 1, .top_p = 1, .top_k = 1 }, { .temperature = 1 },
        { .temperature = 9, .top_p = 1, .seed = 5 }, { .temperature = 9, .top_p = 1, .seed = 5 } };
    for (int i = 0; i < 50; i++) {
        Row p = random_row(g->m->c.V, 1, 10, &seed);
        Ids prompt = { p.ids, p.n, 0 }, out[5] = { { 0 } };
        for (int j = 0; j < 5; j++) {
            g->how = KIND[j];
            g->how.seed += (uint64_t)i;
            generate(g, &prompt, NULL, 0, &out[j]);
        }
        OK(same_ids(&out[0], &out[1]) && same_ids(&out[0], &out[2]),
           "top-k 1 and top-p 0 are greedy");
        OK(same_ids(&out[3], &out[4]), "the same seed draws the same text");
        g->how.seed += 1000;
        out[4].n = 0;
        generate(g, &prompt, NULL, 0, &out[4]);
        OK(!same_ids(&out[3], &out[4]) || out[3].n < 2, "another seed draws another text");
        for (int j = 0; j < 5; j++) free(out[j].a);
        free(p.ids);
    }
}

static void sampling(void) {
    Model m;
    Generator g;
    id_model(&m, 12, 64, 1);
    generator_init(&g, &m, GREEDY);
    the_sampler(&g);
    seeds(&g);
    generator_free(&g);
    model_free(&m);
}

// Texts through correct(), with and without a draft; also questions with the answers of others.
static void drafts_in_texts(Generator *g) {
    Buf with = { 0 }, without = { 0 };
    for (int i = 0; i < TOYS * TOYS; i += SHARE) {
        const Text x = toy(i / TOYS).x, y_o = toy(i % TOYS).y_o;
        g->how = GREEDY;
        g->how.frequency_penalty = i % 2 ? 0.2 : 0;
        const bool ended = !correct(g, x, y_o, &with);
        g->how.no_draft = 1;
        const bool again = !correct(g, x, y_o, &without);
        OK(ended == again && same(contents(&with), contents(&without)),
           "%d: with a draft %s, without %s", i, with.s, without.s);
        if (i % (TOYS + 1) == 0)
            OK(ended && same(contents(&with), toy(i / TOYS).y_c), "%d: \"%s\"", i, with.s);
    }
    g->how = GREEDY;
    for (int i = 1; i < TOYS; i += 2) { // copies of up to 16 tokens are one pass, others two
        Triple t = toy(i);
        Row r = aligner(g->m, t);
        const int n = r.n - r.n_condition - 1;
        count_nothing(g);
        correct(g, t.x, t.y_o, &with);
        OK(g->passes == (n <= 16 ? 1 : 2), "copy %d: %d tokens in %ld passes", i, n, g->passes);
        OK(g->copied == n - g->passes + 1, "copy %d: %ld guesses count as copied", i, g->copied);
        free(r.ids);
    }
    g->how.keep = 1000;
    for (int i = 0; i < TOYS; i++) {
        correct(g, toy(i).x, toy(i).y_o, &with);
        OK(same(contents(&with), toy(i).y_o), "%d: --keep 1000 corrects", i);
    }
    FREE(with.s, without.s);
}

// Contexts that end before, in and after the correction.
static void no_room(Model *m) {
    Buf y_c = { 0 };
    for (int i = 0; i < TOYS; i++) {
        Triple t = toy(i);
        Row r = aligner(m, t);
        for (int context = 1; context <= r.n; context++) {
            Generator small;
            m->c.context = context;
            generator_init(&small, m, GREEDY);
            const char *reason = correct(&small, t.x, t.y_o, &y_c);
            const bool room = context >= r.n - 1 && r.n_condition < context;
            OK(!reason == room, "row %d, context %d: %s", i, context,
               reason ? reason : "no reason");
            OK(same(contents(&y_c), room ? t.y_c : t.y_o), "row %d, context %d: %s", i, context,
               y_c.s);
            OK(small.cache.len <= context, "row %d, context %d: %d", i, context, small.cache.len);
            generator_free(&small);
        }
        m->c.context = TOY_CONTEXT;
        free(r.ids);
    }
    free(y_c.s);
}

// Eq. (2): one model after the other; an upstream that finds no end must not leave an older y_c
// behind.
static void composition(Generator *g) {
    Model silent;
    Generator pi;
    Buf y_o = { 0 }, y_c = { 0 }, a = { 0 }, c = { 0 };
    const bool ended = !answer(g, toy(1).x, &a);
    correct(g, toy(1).x, contents(&a), &c);
    OK(ended && !composed_policy(g, g, toy(1).x, &y_o, &y_c), "this upstream was expected to end");
    OK(same(contents(&y_o), contents(&a)) && same(contents(&y_c), contents(&c)), "\"%s\"", y_c.s);
    toy_model(&silent, 16, 1, 2);
    generator_init(&pi, &silent, GREEDY);
    OK(composed_policy(&pi, g, toy(1).x, &y_o, &y_c), "this upstream was expected to find no end");
    OK(same(contents(&y_c), contents(&y_o)), "y_c is \"%s\", which is not this y_o", y_c.s);
    FREE(y_o.s, y_c.s, a.s, c.s);
    generator_free(&pi);
    model_free(&silent);
}

static void corrections(void) {
    Model m;
    Generator g;
    toy_model(&m, 32, 2, 1);
    toy_train(&m);
    generator_init(&g, &m, GREEDY);
    drafts_in_texts(&g);
    g.how = GREEDY;
    composition(&g);
    no_room(&m);
    generator_free(&g);
    model_free(&m);
}

// A model that has learnt to write half a character: valid text must not become invalid text.
static void half_characters(void) {
    const Triple bad = { text("Q"), text("fine"), text("\xF0\x9F") },
                 old = { text("R"), text("\xFF"), text("\xFE") };
    const TrainOptions o = { .out = temporary("half.gguf"),
                             .steps = 80,
                             .batch = 2,
                             .lr = 1e-2,
                             .clip = 1,
                             .adam_eps = 1e-8,
                             .seed = 1,
                             .quiet = 1 };
    Model m;
    Generator g;
    Rows rows = { 0 }, none = { 0 };
    Buf y_c = { 0 };
    toy_model(&m, 32, 2, 1);
    rows_add(&rows, aligner(&m, bad));
    rows_add(&rows, aligner(&m, old));
    train(&(Run){ .model = &m, .rows = &rows, .valid = &none, .o = &o });
    generator_init(&g, &m, GREEDY);
    const char *reason = correct(&g, bad.x, bad.y_o, &y_c);
    OK(reason && strstr(reason, "UTF-8"), "the reason is %s", reason ? reason : "missing");
    OK(same(contents(&y_c), bad.y_o), "the answer does not stay");
    OK(!correct(&g, old.x, old.y_o, &y_c) && same(contents(&y_c), old.y_c),
       "broken text may change");
    free(y_c.s);
    rows_free(&rows);
    generator_free(&g);
    model_free(&m);
}

static void check_diff(const char *y_o, const char *y_c, bool color, const char *want) {
    char *s = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&s, &n);
    show_diff(f, text(y_o), text(y_c), color);
    fclose(f);
    OK(n && s[n - 1] == '\n', "no newline");
    s[n - 1] = 0;
    OK(!strcmp(s, want), "diff of \"%s\" and \"%s\" is \"%s\"", y_o, y_c, s);
    free(s);
}

static void the_diff(void) {
    static const struct { const char *y_o, *y_c, *want; } DIFF[] = {
        { "the cat sat", "the cat sat", "the cat sat" },
        { "the cat sat", "the dog sat", "the [-cat-] {+dog+} sat" },
        { "a b c d", "b c x d", "[-a-] b c {+x+} d" },
        { "b c", "a b c", "{+a+} b c" },
        { "", "all new", "{+all new+}" },
        { "all gone", "", "[-all gone-]" },
        { "", "", "" },
        { "two\nlines  apart", "two\nlines  apart", "two\nlines  apart" },
        // Neighbours are joined, and punctuation is a word of its own.
        { "I do not know the capital of Austria.", "The capital of Austria is Vienna.",
          "[-I do not know the-]{+The+} capital of Austria {+is Vienna+}." },
        { "I can't say.", "Vienna.", "[-I can't say-]{+Vienna+}." },
        { "It is the capital of Austria.", "It is the capital of Austria, Vienna.",
          "It is the capital of Austria{+, Vienna+}." },
        { "You fool, it is 5!", "It is 5.", "[-You fool, it-]{+It+} is 5[-!-]{+.+}" },
        // Hardly a word is kept: the sentence is one deletion and one insertion.
        { "No. Shut up, you fool.", "Vienna is the capital.",
          "[-No. Shut up, you fool.-]{+Vienna is the capital.+}" },
        { "\xC3\xA9t\xC3\xA9 et \xC3\xA2ge", "\xC3\xA9t\xC3\xA9 ou \xC3\xA2ge",
          "\xC3\xA9t\xC3\xA9 [-et-] {+ou+} \xC3\xA2ge" },
        { "\x1b[31mred\x07", "\x1b[31mred\x07", "[31mred" } };       // steers no terminal
    for (size_t i = 0; i < sizeof DIFF / sizeof *DIFF; i++)
        check_diff(DIFF[i].y_o, DIFF[i].y_c, false, DIFF[i].want);
    check_diff("the cat sat", "the dog sat", true,
               "the \x1b[9;31mcat\x1b[0m \x1b[32mdog\x1b[0m sat");

    // Long texts: what is beyond the 2,048th word is one word, and nothing is lost.
    Buf a = { 0 }, b = { 0 };
    for (int i = 0; i < 3000; i++) {
        buf_puts(&a, i ? " w" : "w");
        buf_puts(&b, i ? " w" : "w");
    }
    buf_puts(&b, " end");
    char *s = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&s, &n);
    show_diff(f, contents(&a), contents(&b), false);
    fclose(f);
    OK(n > b.n && strstr(s, "w end+}\n") && !memcmp(s, a.s, 4000), "a diff of 3,000 words: %.60s",
       s);
    FREE(a.s, b.s, s);
}

int main(void) {
    set_threads(1);
    cached_passes();
    long_prompts();
    draft_equals_plain();
    passes_of_a_copy();
    kept();
    sampling();
    corrections();
    half_characters();
    the_diff();
    return done("generation");
}
