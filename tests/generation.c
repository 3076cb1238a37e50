// generation.c - the cache, draft-verified decoding, the sampler, correct_with down to no room at all, the word diff.
#include "toy.h"

static uint64_t seed = 11;
static int below(int n) { return (int)(random_u64(&seed) % (uint64_t)n); }

static Text of(const Buf *b) { return (Text){ b->s, b->n }; }

static bool same_ids(const Ids *a, const Ids *b)
{
    return a->n == b->n && (!a->n || !memcmp(a->a, b->a, (size_t)a->n * sizeof(int)));
}

// A model over ids only. With few of them </s> is likely enough, and so are repetitions, among which it is hard to find
// the place in a draft again.
static void id_model(Model *m, int V, int context, uint64_t s)
{
    random_model(m, (Config){ V, 16, 2, 4, 2, 20, context, false, 1e-5f, 10000 }, s);
    for (int i = 0; i < m->c.C; i++) m->params[m->norm_at + (size_t)i] *= 3;        // surer of itself
}

// The passes of generation, in pieces of random size, give the logits of one pass over everything, bit for bit.
static void cached_passes(void)
{
    for (int i = 0; i < 20; i++) {
        Model m;
        Generator g;
        id_model(&m, 30, 96, (uint64_t)i);
        Row r = random_row(30, 1, 97, &seed);
        Batch b;
        batch_alloc(&b, 96, 1, 96), batch_add(&b, &r);
        acts_reserve(&m, 96, 96, 96, true);
        forward(&m, &b, NULL);
        size_t ld = logits_ld(&m.c);
        float *all = zalloc(96 * ld, sizeof *all);
        copy_floats(all, m.acts.logits, 96 * ld);
        generator_init(&g, &m, GREEDY);
        bool same = true;
        for (int at = 0, n; at < 96; at += n) {
            n = i < 2 ? 1 : 1 + below(96 - at < 40 ? 96 - at : 40);
            const float *z = feed(&g, r.ids + at, n, NULL, 0, n);
            for (int t = 0; t < n; t++) same = same && !memcmp(z + (size_t)t * ld, all + (size_t)(at + t) * ld, 30 * sizeof *z);
            if (i > 9 && n > 1) g.cache.len--, n--;             // forget the last one: it comes again
        }
        OK(same, "model %d: other bits through the cache", i);
        free(all), free(r.ids), batch_free(&b), generator_free(&g), model_free(&m);
    }
}

// A draft that resembles the answer: some tokens replaced, dropped or put in.
static Ids spoil(const Ids *answer, int V, int percent)
{
    Ids d = { 0 };
    for (int i = 0; i < answer->n; i++) {
        int what = below(100) < percent ? below(3) : 3;
        if (what != 0) ids_add(&d, what == 1 ? below(V) : answer->a[i]);
        if (what == 2) ids_add(&d, below(V));
    }
    return d;
}

// The same prompt with and without a draft. The plain decoder of record is the draft-free path of generate.
static void draft_equals_plain(void)
{
    enum { MODELS = 10, ROWS = 100 };
    long ended = 0, plain_passes = 0, draft_passes = 0, tokens = 0, copied = 0;
    for (int k = 0; k < MODELS; k++) {
        Model m;
        Generator g;
        int V = k % 2 ? 12 : 40;
        id_model(&m, V, 100, 100 + (uint64_t)k);
        generator_init(&g, &m, GREEDY);
        for (int i = 0; i < ROWS; i++) {
            Row p = random_row(V, 1, 1 + below(40), &seed);
            Ids prompt = { p.ids, p.n, 0 }, plain = { 0 }, again = { 0 }, draft;
            g.how.frequency_penalty = i % 3 == 1 ? 0.3 : i % 3 == 2 ? -0.1 : 0;
            g.how.max_tokens = i % 5 == 4 ? below(30) : 0;
            g.passes = g.tokens = g.copied = 0;
            bool end = generate(&g, &prompt, NULL, 0, &plain);
            plain_passes += g.passes, tokens += g.tokens;
            OK(g.passes == plain.n + 1 || !end, "model %d, row %d: %ld passes for %d tokens", k, i, g.passes, plain.n);
            draft = i % 4 ? spoil(&plain, V, 5 * (i % 4)) : (Ids){ 0 };
            while (i % 4 == 0 && draft.n < i) ids_add(&draft, below(V));        // has nothing to do with the answer
            int kept_n = draft.n, nothing = 0;
            g.passes = g.tokens = g.copied = 0;
            bool end_again = generate(&g, &prompt, draft.n ? draft.a : &nothing, draft.n, &again);
            draft_passes += g.passes, copied += g.copied, ended += end;
            OK(same_ids(&plain, &again) && end == end_again, "model %d, row %d: the draft changes the text", k, i);
            OK(g.tokens == again.n && g.passes <= again.n + 1 && g.copied <= again.n, "model %d, row %d: counts", k, i);
            again.n = 0, g.how.no_draft = true, g.passes = 0;
            generate(&g, &prompt, draft.a, kept_n, &again);
            OK(same_ids(&plain, &again) && g.copied <= g.tokens, "model %d, row %d: --no-draft", k, i);
            g.how.no_draft = false;
            free(p.ids), free(plain.a), free(again.a), free(draft.a);
        }
        generator_free(&g), model_free(&m);
    }
    OK(ended > MODELS * ROWS / 10 && ended < MODELS * ROWS * 9 / 10, "%ld rows found their end: no fair mix", ended);
    OK(draft_passes * 3 < plain_passes * 2, "%ld passes with drafts, %ld without", draft_passes, plain_passes);
    OK(copied * 3 > tokens, "%ld of %ld tokens copied", copied, tokens);
}

// Blocks of 16, 32, 64, 64 guesses and one token of the model's own behind each: the passes for a draft that is right.
static void passes_of_a_copy(void)
{
    static const struct { int length, passes; } c[] = { { 1, 1 }, { 15, 1 }, { 16, 1 }, { 17, 2 }, { 48, 2 }, { 49, 2 },
        { 50, 3 }, { 113, 3 }, { 114, 3 }, { 115, 4 }, { 178, 4 }, { 179, 4 }, { 180, 5 } };
    Model m;
    Generator g;
    id_model(&m, 30, 256, 8);
    generator_init(&g, &m, GREEDY);
    for (int i = 0; i < 13; i++) {
        int ids[] = { BOS, 7, 9 };
        Ids prompt = { ids, 3, 0 }, plain = { 0 }, copy = { 0 };
        g.how.max_tokens = c[i].length;
        generate(&g, &prompt, NULL, 0, &plain);
        OK(plain.n == c[i].length, "this model ends after %d tokens; the test needs a longer text", plain.n);
        g.passes = g.copied = 0;
        generate(&g, &prompt, plain.a, plain.n, &copy);
        OK(g.passes == c[i].passes, "%d tokens copied in %ld passes, not %d", plain.n, g.passes, c[i].passes);
        OK(same_ids(&plain, &copy) && g.copied == plain.n - g.passes + 1, "%ld of %d tokens copied", g.copied, plain.n);
        free(plain.a), free(copy.a);
    }
    generator_free(&g), model_free(&m);
}

// --keep: y_c outweighs y_o where it is e^X times as likely, by the likelihoods of both whole rows as another path
// computes them; drafts change nothing; what stays with fewer nats stays with more.
static void kept(void)
{
    enum { V = 30, ROWS = 200, CONTEXT = 100 };
    Model m;
    Generator g;
    Batch b;
    double nll[CONTEXT];
    int corrected[4] = { 0 }, other = 0;
    id_model(&m, V, CONTEXT, 11);
    batch_alloc(&b, CONTEXT, 1, CONTEXT);
    for (int i = 0; i < ROWS; i++) {
        static const double nats[4] = { 0.001, 2, 4, 1000 };
        Row p = random_row(V, 1, 1 + below(40), &seed);
        Ids prompt = { p.ids, p.n, 0 }, draft, plain = { 0 }, y_c = { 0 }, y_o = { 0 }, own = { 0 };
        generator_init(&g, &m, GREEDY);
        g.how.max_tokens = 12;
        generate(&g, &prompt, NULL, 0, &plain);
        draft = spoil(&plain, V, 5);
        if (!draft.n) ids_add(&draft, V - 1);
        while (i % 4 == 0 && draft.n < CONTEXT - p.n) ids_add(&draft, below(V));        // more than a block, at times
        for (int j = 0; j < draft.n; j++) if (draft.a[j] == EOS) draft.a[j] = V - 1;
        g.how.max_tokens = 0;
        for (int j = 0; j < p.n; j++) ids_add(&y_o, p.ids[j]), ids_add(&own, p.ids[j]);
        for (int j = 0; j < draft.n; j++) ids_add(&y_o, draft.a[j]);
        ids_add(&y_o, EOS);
        Row r = { y_o.a, p.n, y_o.n };
        bool ended = generate(&g, &prompt, draft.a, draft.n, &y_c), before = true, same_text = same_ids(&y_c, &draft);
        bool yes[4];
        for (int k = 0; k < 4 && ended; k++) {
            g.how.keep = nats[k];
            yes[k] = outweighs(&g, &r, &y_c);
            OK(before || !yes[k], "row %d: corrected with more nats than %g only", i, nats[k]);
            before = yes[k], corrected[k] += yes[k];
        }
        if (ended) {
            for (int j = 0; j < y_c.n; j++) ids_add(&own, y_c.a[j]);
            ids_add(&own, EOS);
            Row c = { own.a, p.n, own.n };
            generator_free(&g);
            acts_reserve(&m, CONTEXT, CONTEXT, CONTEXT, false);
            double gain = log_likelihood(&m, &b, nll, &c) - log_likelihood(&m, &b, nll, &r);
            OK(same_text ? gain == 0 : gain != 0, "row %d: a gain of %g", i, gain);
            other += !same_text;
            generator_init(&g, &m, GREEDY);
            g.how.no_draft = true, y_c.n = 0;
            generate(&g, &prompt, draft.a, draft.n, &y_c);
            for (int k = 0; k < 4; k++) {
                g.how.keep = nats[k];
                OK(outweighs(&g, &r, &y_c) == yes[k], "row %d: without a draft %g nats decide otherwise", i, nats[k]);
                OK(yes[k] == (gain >= nats[k]) || fabs(gain - nats[k]) < 1e-3, "row %d: %g nats, a gain of %g, %d", i,
                   nats[k], gain, yes[k]);
            }
        }
        generator_free(&g);
        free(p.ids), free(plain.a), free(draft.a), free(y_c.a), free(y_o.a), free(own.a);
    }
    OK(!corrected[3] && corrected[2] < corrected[0] && corrected[2] > 0 && corrected[0] < other,
       "%d, %d, %d and %d of %d corrections outweigh: no fair mix", corrected[0], corrected[1], corrected[2],
       corrected[3], other);
    batch_free(&b), model_free(&m);
}

static void the_sampler(void)
{
    enum { V = 12, DRAWS = 20000 };
    static const Decoding how[] = { { .temperature = 1, .top_p = 1 }, { .temperature = 0.5, .top_p = 1 },
        { .temperature = 1, .top_p = 0.6 }, { .temperature = 2, .top_p = 1, .top_k = 4 }, { .temperature = 1 } };
    float logits[16], z[16];
    Model m;
    Generator g;
    id_model(&m, V, 64, 1);
    generator_init(&g, &m, GREEDY);
    for (int i = 0; i < V; i++) logits[i] = (float)(3 * random_unit(&seed));
    for (int i = 0; i < 5; i++) {
        double p[V], sum = 0, kept = 0, mass = 0, chi = 0;
        long seen[V] = { 0 };
        int rank[V], n = 0;
        for (int j = 0; j < V; j++) sum += p[j] = exp((double)logits[j] / how[i].temperature), rank[j] = j;
        for (int j = 1; j < V; j++)                             // likeliest first
            for (int k = j; k && p[rank[k]] > p[rank[k - 1]]; k--) {
                int swap = rank[k];
                rank[k] = rank[k - 1], rank[k - 1] = swap;
            }
        while (n < (how[i].top_k ? how[i].top_k : V) && (!n || mass < how[i].top_p * sum)) mass += p[rank[n++]];
        g.how = how[i], g.how.seed = 77;
        for (int j = 0; j < DRAWS; j++) memcpy(z, logits, sizeof z), seen[choose(&g, z)]++;
        for (int j = 0; j < V; j++) {
            double expected = j < n ? DRAWS * p[rank[j]] / mass : 0;
            kept += (double)seen[rank[j]];
            if (j < n) chi += pow((double)seen[rank[j]] - expected, 2) / expected;
            else OK(!seen[rank[j]], "sampler %d: token %d is outside top-k and top-p", i, rank[j]);
        }
        OK(kept == DRAWS && chi < n - 1 + 5 * sqrt(2.0 * n), "sampler %d: chi-square %.1f over %d tokens", i, chi, n);
    }
    float close[16] = { 1, 1.5f, 1.4f };                // a token loses 0.2 each time it is written
    g.how = GREEDY;
    memset(g.count, 0, V * sizeof *g.count), g.count[1] = 1;
    OK(choose(&g, memcpy(z, close, sizeof z)) == 1, "without a penalty counts do not matter");
    g.how.frequency_penalty = 0.2;
    OK(choose(&g, memcpy(z, close, sizeof z)) == 2, "a frequency penalty of 0.2 makes 1.5 less than 1.4");
    g.count[2] = 3;
    OK(choose(&g, memcpy(z, close, sizeof z)) == 1, "three times 0.2 makes 1.4 less than 1.3");
    for (int i = 0; i < 50; i++) {                      // top-k 1 and top-p 0 are greedy; seeds tell texts apart
        Row p = random_row(V, 1, 10, &seed);
        Ids prompt = { p.ids, p.n, 0 }, out[5] = { { 0 } };
        static const Decoding kind[5] = {
            { .top_p = 1 }, { .temperature = 1, .top_p = 1, .top_k = 1 }, { .temperature = 1 },
            { .temperature = 9, .top_p = 1, .seed = 5 }, { .temperature = 9, .top_p = 1, .seed = 5 } };
        for (int j = 0; j < 5; j++) g.how = kind[j], g.how.seed += (uint64_t)i, generate(&g, &prompt, NULL, 0, &out[j]);
        OK(same_ids(&out[0], &out[1]) && same_ids(&out[0], &out[2]), "top-k 1 and top-p 0 are greedy");
        OK(same_ids(&out[3], &out[4]), "the same seed draws the same text");
        g.how.seed += 1000, out[4].n = 0, generate(&g, &prompt, NULL, 0, &out[4]);
        OK(!same_ids(&out[3], &out[4]) || out[3].n < 2, "another seed draws another text");
        for (int j = 0; j < 5; j++) free(out[j].a);
        free(p.ids);
    }
    generator_free(&g), model_free(&m);
}

// A model that knows the toy corrections by heart: texts through correct_with, with and without draft, in any room.
static void corrections(void)
{
    Model m, silent;
    Generator g;
    Buf with = { 0 }, without = { 0 }, y_o = { 0 }, answer = { 0 };
    toy_model(&m, 32, 2, 1);
    toy_train(&m);
    generator_init(&g, &m, GREEDY);
    for (int i = 0; i < TOYS * TOYS; i++) {                     // also questions with the answers of others
        Text x = toy(i / TOYS).x, y_o = toy(i % TOYS).y_o;
        g.how.frequency_penalty = i % 2 ? 0.2 : 0;
        g.how.no_draft = false;
        const char *a = correct_with(&g, x, y_o, &with), *b;
        bool ended = !a;
        g.how.no_draft = true, b = correct_with(&g, x, y_o, &without);
        OK(ended == !b && same(of(&with), of(&without)), "%d: with a draft %s, without %s", i, with.s, without.s);
        if (i % (TOYS + 1) == 0) OK(ended && same(of(&with), toy(i / TOYS).y_c), "%d: \"%s\"", i, with.s);
    }
    for (int i = 1; i < TOYS; i += 2) {                 // copies of at most 16 tokens are one pass, the others two
        Triple t = toy(i);
        Row r = aligner(&m, t);
        int n = r.n - r.n_condition - 1;
        g.how = GREEDY, g.passes = g.copied = 0;
        correct_with(&g, t.x, t.y_o, &with);
        OK(g.passes == (n <= 16 ? 1 : 2), "copy %d: %d tokens in %ld passes", i, n, g.passes);
        OK(g.copied == n - g.passes + 1, "copy %d: of %d guesses %ld count as copied", i, n, g.copied);
        free(r.ids);
    }
    g.how = GREEDY;
    for (int i = 0; i < TOYS; i++) {                    // contexts that end before, in and behind the correction
        Triple t = toy(i);
        Row r = aligner(&m, t);
        for (int context = 1; context <= r.n; context++) {
            Generator small;
            m.c.context = context;
            generator_init(&small, &m, GREEDY);
            const char *reason = correct_with(&small, t.x, t.y_o, &with);
            bool room = context >= r.n - 1 && r.n_condition < context;
            OK(!reason == room && same(of(&with), room ? t.y_c : t.y_o), "row %d, context %d: %s", i, context, with.s);
            OK(small.cache.len <= context, "row %d, context %d: %d positions", i, context, small.cache.len);
            generator_free(&small);
        }
        m.c.context = TOY_CONTEXT, free(r.ids);
    }
    // Eq. (2): one model after the other; and an upstream that finds no end must not leave an older y_c behind.
    bool ended = answer_to(&m, toy(1).x, &answer);
    correct(&m, toy(1).x, of(&answer), &without);
    OK(ended && !composed_policy(&m, &m, toy(1).x, &y_o, &with), "this upstream was expected to end its answer");
    OK(same(of(&y_o), of(&answer)) && same(of(&with), of(&without)), "\"%s\" becomes \"%s\"", y_o.s, with.s);
    toy_model(&silent, 16, 1, 2);
    OK(composed_policy(&silent, &m, toy(1).x, &y_o, &with), "this upstream was expected to find no end");
    OK(same(of(&with), of(&y_o)), "y_c is \"%s\", which is not this y_o", with.s);
    free(y_o.s), free(answer.s), free(with.s), free(without.s), generator_free(&g), model_free(&silent), model_free(&m);
}

static void check_diff(const char *y_o, const char *y_c, bool color, const char *want)
{
    char *s = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&s, &n);
    show_diff(f, text(y_o), text(y_c), color);
    fclose(f);
    OK(!strcmp(s, want), "diff of \"%s\" and \"%s\" is \"%s\"", y_o, y_c, s);
    free(s);
}

static void by_hand(void)
{
    check_diff("the cat sat", "the cat sat", false, "the cat sat\n");
    check_diff("the cat sat", "the dog sat", false, "the [-cat-] {+dog+} sat\n");
    check_diff("the cat sat", "the dog sat", true, "the \x1b[9;31mcat\x1b[0m \x1b[32mdog\x1b[0m sat\n");
    check_diff("a b c d", "b c x d", false, "[-a-] b c {+x+} d\n");
    check_diff("", "all new", false, "{+all+} {+new+}\n");
    check_diff("all gone", "", false, "[-all-] [-gone-]\n");
    check_diff("", "", false, "\n");
    check_diff("two\nlines", "two\nlines", false, "two\nlines\n");
    check_diff("\x1b[31mred\x07", "\x1b[31mred\x07", false, "[31mred\n");         // a text cannot steer the terminal

    static const struct { const char *a, *b; int distance; } pair[] = {
        { "", "", 0 }, { "abc", "", 3 }, { "", "ab", 2 }, { "kitten", "sitting", 3 }, { "flaw", "lawn", 2 },
        { "abc", "abc", 0 }, { "abcdef", "azced", 3 }, { "sunday", "saturday", 3 } };
    for (int i = 0; i < 8; i++) {
        int a[16], b[16], n = (int)strlen(pair[i].a), k = (int)strlen(pair[i].b);
        for (int j = 0; j < n; j++) a[j] = pair[i].a[j];
        for (int j = 0; j < k; j++) b[j] = pair[i].b[j];
        OK(levenshtein(a, n, b, k) == pair[i].distance, "from %s to %s", pair[i].a, pair[i].b);
        OK(levenshtein(b, k, a, n) == pair[i].distance, "from %s to %s", pair[i].b, pair[i].a);
    }
}

int main(void)
{
    set_threads(1);
    cached_passes();
    draft_equals_plain();
    passes_of_a_copy();
    kept();
    the_sampler();
    corrections();
    by_hand();
    return done("generation");
}
