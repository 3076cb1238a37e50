// tokenizer.c: merges worked by hand, round trips of any bytes, the heap against a naive merge, the
// trainer against a naive one, its files, its time.
#include "test.h"

// Is t encoded as these pieces, written one after the other with | between them?
static bool encodes(const Tokenizer *k, const char *t, const char *pieces) {
    Ids ids = { 0 };
    Buf all = { 0 };
    encode(k, text(t), &ids);
    buf_set(&all, text(""));
    for (int i = 0; i < ids.n; i++) {
        if (i) buf_puts(&all, "|");
        buf_add(&all, k->piece[ids.a[i]].s, k->piece[ids.a[i]].n);
    }
    bool ok = !strcmp(all.s, pieces);
    if (!ok) printf("\"%s\" became %s\n", t, all.s);
    FREE(ids.a, all.s);
    return ok;
}

static bool round_trip(const Tokenizer *k, Text t) {
    Ids ids = { 0 };
    bool inside = true;
    encode(k, t, &ids);
    for (int i = 0; i < ids.n; i++)                     // never a control token
        inside = inside && ids.a[i] >= BYTE0 && ids.a[i] < k->V;
    Buf back = decode_all(k, ids.a, ids.n);
    bool ok = inside && same(t, contents(&back));
    FREE(ids.a, back.s);
    return ok;
}

static void worked_by_hand(void) {
    static const Piece PIECE[] = { { " ", -9 },   { "a", -9 },        { "b", -9 },
                                   { "c", -9 },   { "\xC3\xA9", -9 }, { "ab", -1 },
                                   { "bc", 0 },   { "aa", -2 },       { " a", -3 },
                                   { "abc", -4 }, { " aa", -5 },      { "c\xC3\xA9", -5 } };
    static const struct { const char *text, *pieces, *why;
    } CASE[] = {
        { "", "", "empty text has no tokens, not even the space" },
        { "b", " |b", "a space goes in front" },
        { "a", " a", "the space in front merges like any other" },
        { "abc", " a|bc", "the highest score first: bc, then \" a\"; ab never comes about" },
        { "babc", " |b|abc", "bc, then a + bc, with no \" a\" in the way" },
        { "aaa", " aa|a", "leftmost on ties: aa, then \" \" + aa" },
        { "baaa", " |b|aa|a", "leftmost on ties" },
        { "baaaa", " |b|aa|aa", "leftmost on ties, twice" },
        { "c\xC3\xA9", " |c\xC3\xA9", "characters of two bytes merge" },
        { "x", " |<0x78>", "an unknown character becomes its byte" },
        { "\xE2\x82\xAC"
          "a",
          " |<0xE2>|<0x82>|<0xAC>|a", "an unknown character becomes its bytes" },
        { "\xC3", " |<0xC3>", "half a character becomes a byte" },
        { "</s>\n<s>\n", " |<0x3C>|<0x2F>|<0x73>|<0x3E>|<0x0A>|<0x3C>|<0x73>|<0x3E>|<0x0A>",
          "text never becomes a control token" },
        { "<0x41>", " |<0x3C>|<0x30>|<0x78>|<0x34>|<0x31>|<0x3E>", "nor a byte by its name" }
    };
    Tokenizer *k = vocabulary(PIECE, 12);
    for (size_t i = 0; i < sizeof CASE / sizeof *CASE; i++)
        OK(encodes(k, CASE[i].text, CASE[i].pieces), "%s", CASE[i].why);
    k->no_space = true;                                 // as a GGUF file may say
    OK(encodes(k, "babc", "b|abc") && encodes(k, " a", " a"),
       "add_space_prefix false: no space in front");
    OK(round_trip(k, text(" a")) && round_trip(k, text("a")),
       "add_space_prefix false: none removed");
    tokenizer_free(k);

    k = vocabulary((Piece[]){ { "a", 0 } }, 1);
    OK(encodes(k, "a", "<0x20>|a") && round_trip(k, text("a")), "a vocabulary without a space");
    tokenizer_free(k);
}

// What heap and hash table compute, by looking at every pair and every piece again and again.
static void encode_naively(const Tokenizer *k, Text t, Ids *out) {
    int n = 0;
    Text *sym = zalloc(t.n, sizeof *sym);
    for (size_t at = 0; at < t.n; at += sym[n++].n) {
        uint8_t c = (uint8_t)t.s[at];
        size_t len = c < 0xC0 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
        sym[n] = (Text){ t.s + at, len < t.n - at ? len : t.n - at };
    }
    for (;;) {
        int best = -1;
        float score = -INFINITY;
        for (int i = 0; i + 1 < n; i++)
            for (int id = FIRST_PIECE; id < k->V; id++)
                if (same(k->piece[id], (Text){ sym[i].s, sym[i].n + sym[i + 1].n }) &&
                    k->score[id] > score) {
                    best = i;
                    score = k->score[id];
                }
        if (best < 0) break;
        sym[best].n += sym[best + 1].n;
        memmove(sym + best + 1, sym + best + 2, (size_t)(n - best - 2) * sizeof *sym);
        n--;
    }
    for (int i = 0; i < n; i++) {
        int id = FIRST_PIECE;
        while (id < k->V && !same(k->piece[id], sym[i])) id++;
        if (id < k->V) ids_add(out, id);
        else for (size_t b = 0; b < sym[i].n; b++) ids_add(out, BYTE0 + (uint8_t)sym[i].s[b]);
    }
    free(sym);
}

static void random_text(Buf *b, const char *const *part, int n_parts, int n, uint64_t *seed) {
    b->n = 0;
    buf_add(b, "", 0);
    while (n-- > 0) buf_puts(b, part[random_u64(seed) % (uint64_t)n_parts]);
}

// Unique pieces of up to 5 characters, with many ties among their scores.
static Tokenizer *random_vocabulary(const char *const *part, uint64_t *seed) {
    Buf s[40] = { { 0 } };
    Piece p[40];
    int n = 0;
    for (int i = 0; i < 40; i++) {
        random_text(&s[n], part, 7, i < 6 ? 1 : 2 + (int)(random_u64(seed) % 4), seed);
        int j = 0;
        while (j < n && strcmp(p[j].s, s[n].s)) j++;
        if (j < n) continue;
        p[n] = (Piece){ s[n].s, (float)(random_u64(seed) % 5) };
        n++;
    }
    Tokenizer *k = vocabulary(p, n);
    for (int i = 0; i < 40; i++) free(s[i].s);
    return k;
}

static void heap_against_naive(void) {
    static const char *const PART[] = { "a", "b", "c", " ", "\xC3\xA9", "\xE2\x82\xAC",
                                        "\xF0\x9F\x98\x80", "\xC3", "\x80", "\xF0\x9F" };
    uint64_t seed = 1;
    int wrong = 0, broken = 0;
    for (int round = 0; round < 60; round++) {
        Tokenizer *k = random_vocabulary(PART, &seed);
        Buf t = { 0 };
        for (int i = 0; i < 50; i++) {
            Ids fast = { 0 }, slow = { 0 };
            random_text(&t, PART, 10, (int)(random_u64(&seed) % 40), &seed);
            encode_raw(k, contents(&t), &fast);
            encode_naively(k, contents(&t), &slow);
            wrong += fast.n != slow.n ||
                     (fast.n && memcmp(fast.a, slow.a, (size_t)fast.n * sizeof(int)));
            broken += !round_trip(k, contents(&t));
            FREE(fast.a, slow.a);
        }
        free(t.s);
        tokenizer_free(k);
    }
    OK(!wrong, "%d of 3000 texts are merged otherwise than by the naive merge", wrong);
    OK(!broken, "%d of 3000 texts do not come back", broken);
}

static const char STORY[] =
    "The cat sat on the mat. The other cat ate 12 apples, 345 pears and the hat.\n"
    "<s></s> <unk> <0x41>\n<s>\n</s>\nna\xC3\xAFve caf\xC3\xA9: 10 \xE2\x82\xAC; "
    "na\xC3\xAFve caf\xC3\xA9s cost 200 \xE2\x82\xAC\n</s>\n<s> the cat, the mat\n";

static void random_bytes(void) {
    static const char *const TAIL[] = { "", "\xC3", "\xE2\x82", "\xF0\x9F\x98", "\x80\x80", "\xFF",
                                        "\xED\xA0\x80" };
    Tokenizer *k = tokenizer_train(text(STORY), 340, false);
    Buf t = { 0 };
    uint64_t seed = 2;
    int broken = 0;
    for (int i = 0; i < 8000; i++) { // bytes of all kinds; letters with some between
        buf_set(&t, text(""));
        for (int n = (int)(random_u64(&seed) % 100); n > 0; n--) {
            uint64_t r = random_u64(&seed);
            char letter = STORY[(r >> 8) % (sizeof STORY - 1)], any = (char)(r >> 8);
            buf_add(&t, i % 2 && r % 4 ? &letter : &any, 1);
        }
        buf_puts(&t, TAIL[i % 7]);
        broken += !round_trip(k, contents(&t));
    }
    OK(!broken, "%d of 8000 strings of random bytes do not come back", broken);
    for (int b = 0; b < 256; b++) {
        char two[2] = { (char)b, (char)b };
        OK(round_trip(k, (Text){ two, 1 }) && round_trip(k, (Text){ two, 2 }), "the byte %d", b);
    }
    OK(round_trip(k, text(" a")) && round_trip(k, text("  ")) && round_trip(k, text(" ")),
       "spaces");
    free(t.s);
    tokenizer_free(k);
}

static bool same_tokenizer(const Tokenizer *a, const Tokenizer *b) {
    bool ok = a->V == b->V && a->longest == b->longest &&
              !memcmp(a->score, b->score, (size_t)a->V * sizeof *a->score);
    for (int i = 0; ok && i < a->V; i++) ok = same(a->piece[i], b->piece[i]);
    return ok;
}

// Are the merged pieces and characters of a vocabulary trained on t exactly those, in order?
static bool trains(const char *t, int V, int n, const char *const *want) {
    Tokenizer *k = tokenizer_train(text(t), V, false);
    bool ok = k->V == FIRST_PIECE + n;
    for (int id = FIRST_PIECE; id < k->V; id++) {
        bool good = id - FIRST_PIECE < n && same(k->piece[id], text(want[id - FIRST_PIECE])) &&
                    k->score[id] == (float)(FIRST_PIECE - id);
        if (!good) printf("piece %d is \"%.*s\"\n", id, SHOW(k->piece[id]));
        ok = ok && good;
    }
    tokenizer_free(k);
    return ok;
}

static void trained_by_hand(void) {
    // Words "aab", " aab", " ab". Pairs: ab 3, aa 2, " a" 2. After ab: a+ab 2, " "+a 1, " "+ab 1;
    // the pair " "+ab was met first among the shorter words.
    static const char *const THREE[] = { "ab", "aab", " ab", "a", "b", " " };
    OK(trains("aab aab ab", 265, 6, THREE), "three merges by hand");
    OK(trains("aab aab ab", 5000, 7, (const char *[]){ "ab", "aab", " ab", " aab", "a", "b", " " }),
       "a larger vocabulary than the text yields is what the text yields");
    OK(trains("", 400, 0, NULL), "no text: the bytes alone");
    OK(trains("a", 259, 0, NULL) && trains("a", 260, 0, NULL), "no room for a character");
    OK(trains("ab ab", 261, 1, (const char *[]) { "a" }) ||
           trains("ab ab", 261, 1, (const char *[]) { "b" }),
       "room for one character of three, and for no merge");
}

// The definition of BPE, by looking at all words again for every merge.
static long count_naively(const Words *words, const Ids *symbols, int left, int right) {
    long count = 0;
    for (size_t w = 0; w < words->n; w++) {
        const Ids *s = &symbols[w];
        for (int i = 0; i + 1 < s->n; i++)
            if (s->a[i] == left && s->a[i + 1] == right) count += words->a[w].count;
    }
    return count;
}

static void merge_naively(Ids *symbols, size_t n_words, int left, int right, int id) {
    for (size_t w = 0; w < n_words; w++) {
        Ids *s = &symbols[w];
        int kept = 0;
        for (int i = 0; i < s->n; i++) {
            bool pair = i + 1 < s->n && s->a[i] == left && s->a[i + 1] == right;
            s->a[kept++] = pair ? id : s->a[i];
            i += pair;
        }
        s->n = kept;
    }
}

// Replays a vocabulary trained on a random text: each merge must be of a pair with the largest
// count at its turn. Among equals any may go first, and a pair whose text is a piece already makes
// no new one.
static void greedy_merges(uint64_t seed) {
    static const char *const PART[] = {
        "a", "b", "c", "ab", "ba", " ", "aab", "\xC3\xA9", "!", "7"
    };
    Buf t = { 0 };
    random_text(&t, PART, 10, 300, &seed);
    Tokenizer *k = tokenizer_train(contents(&t), FIRST_PIECE + 40, false);
    Words words = cut(&(Word){ .t = contents(&t), .count = 1 }, 1, word_length);
    Ids *symbols = zalloc(words.n, sizeof *symbols);
    int next = FIRST_PIECE, end = k->V;
    while (k->piece[end - 1].n == utf8_span(k->piece[end - 1])) end--; // the characters come last
    for (size_t w = 0; w < words.n; w++)
        for (Text rest = words.a[w].t; rest.n; rest = rest_of(rest, utf8_span(rest)))
            ids_add(&symbols[w], *find_slot(k, (Text){ rest.s, utf8_span(rest) }));
    for (bool found = true; found && next < end; ) {
        long best = 0;
        int pair[3] = { 0 };                                    // left, right, the piece of both
        for (int left = FIRST_PIECE; left < k->V; left++)
            for (int right = FIRST_PIECE; right < k->V; right++) {
                long count = count_naively(&words, symbols, left, right);
                Buf both = { 0 };
                if (count < best || !count) continue;
                buf_set(&both, k->piece[left]);
                buf_add(&both, k->piece[right].s, k->piece[right].n);
                int id = *find_slot(k, contents(&both));
                bool good = id >= 0 && id <= next;
                if (count > best || (good && id >= pair[2])) {
                    best = count;
                    pair[0] = left;
                    pair[1] = right;
                    pair[2] = good ? id : 0;
                }
                free(both.s);
            }
        found = pair[2] > 0;
        if (found) merge_naively(symbols, words.n, pair[0], pair[1], pair[2]);
        next += found && pair[2] == next;
    }
    OK(next == end && end > FIRST_PIECE + 10, "merge %d of %d is not of the most frequent pair",
       next - FIRST_PIECE, end - FIRST_PIECE);
    for (size_t w = 0; w < words.n; w++) free(symbols[w].a);
    FREE(words.a, symbols, t.s);
    tokenizer_free(k);
}

static void trainer(const char *path) {
    Tokenizer *k = tokenizer_train(text(STORY), 340, false), *again = tokenizer_train(text(STORY), 340, false);
    OK(same_tokenizer(k, again), "the same text gives another vocabulary");
    tokenizer_save(k, path);
    Tokenizer *loaded = tokenizer_load(path);
    OK(same_tokenizer(k, loaded), "saved and loaded, the vocabulary is another one");
    for (int id = FIRST_PIECE; id < k->V; id++) {
        Text t = k->piece[id];
        bool digit = false, control = false,
             special = same(t, text("<s>")) || same(t, text("</s>"));
        for (size_t i = 0; i < t.n; i++) {
            digit = digit || (t.s[i] >= '0' && t.s[i] <= '9');
            control = control || is_control(t.s[i]);
        }
        for (int i = 0; i < FIRST_PIECE; i++) special = special || same(t, k->piece[i]);
        OK(!(digit && t.n > 1) && !control && !special, "piece %d is \"%.*s\"", id, SHOW(t));
    }
    OK(round_trip(k, text(STORY)), "the text that it learnt from does not come back");
    tokenizer_free(k);
    tokenizer_free(again);
    tokenizer_free(loaded);

    // "\xC3" and a letter are no character: pieces of it would not be UTF-8, which other readers of
    // the GGUF file refuse.
    k = tokenizer_train(text("ab ab \xC3x \xC3x \xE2xy \xE2xy \xFF\xFF ababab aabb"), 267, false);
    for (int id = FIRST_PIECE; id < k->V; id++)
        OK(valid_utf8(k->piece[id]), "piece %d is not UTF-8: %.*s", id, SHOW(k->piece[id]));
    tokenizer_free(k);
}

static void load(const void *path) { tokenizer_load(path); }

// Is the good file refused with n other bytes at `at`?
static bool refused(const char *path, const Buf *good, size_t at, const char *bytes, size_t n) {
    Buf f = { 0 };
    buf_set(&f, contents(good));
    memcpy(f.s + at, bytes, n);
    put_file(path, f.s, f.n);
    free(f.s);
    return dies(load, path);
}

static void loading_errors(const char *path) {
    Tokenizer *k = vocabulary((Piece[]){ { "a", -1 }, { "b", -2 }, { "ab", 0 } }, 3);
    tokenizer_save(k, path);
    Buf f = read_all(path);
    // Pieces are { score, length, bytes }. FF: the bytes of <0xFF>.
    const size_t ab = f.n - 10, b = ab - 9, a = b - 9, FF = a - 6;
    const size_t end[] = { 0, 3, FF - 8, ab + 7, f.n - 1 };
    OK(!dies(load, path) && !*message, "the good file: %s", message);
    OK(dies(load, "build/no/such/file"), "a missing file: %s", message);
    OK(dies(load, "build"), "a folder: %s", message);
    for (int i = 0; i < 5; i++) {
        put_file(path, f.s, end[i]);
        OK(dies(load, path), "cut off at %zu: %s", end[i], message);
    }
    OK(refused(path, &f, ab + 4, "\xFF\xFF\xFF\xFF", 4), "a length of 4 GB: %s", message);
    OK(refused(path, &f, ab, "\0\0\xC0\x7F", 4), "a score that is NaN: %s", message);
    OK(refused(path, &f, b + 8, "a", 1), "the same piece twice: %s", message);
    OK(refused(path, &f, FF + 4, "E", 1), "<0xFE> twice, <0xFF> missing: %s", message);
    OK(refused(path, &f, FF + 4, "\n", 1), "a quoted newline in the message: %s", message);
    OK(refused(path, &f, FF + 4, "\x1b", 1) && !strchr(message, 27),
       "a control code in the message");
    buf_add(&f, "\0\0\0\0\0\0\0", 8);
    put_file(path, f.s, f.n);
    OK(dies(load, path), "a piece without bytes: %s", message);
    free(f.s);
    tokenizer_free(k);
    remove(path);
}

// Time must grow with the text and not with its square: a megabyte takes about a second here and
// several under sanitizers; 15 s a piece would be wrong on any machine.
static void long_texts(void) {
    enum { N = 1 << 20 };
    static char t[N];
    static const char *const PART[] = { "the ", "cat ", "na\xC3\xAFve ", "caf\xC3\xA9 " };
    Buf b = { 0 };
    uint64_t seed = 3;
    Tokenizer *k =
        vocabulary((Piece[]) { { "a", 0 }, { "aa", -1 }, { "aaaa", -2 }, { "aaaaaaaa", -3 } }, 4);
    double start = seconds();
    memset(t, 'a', N);
    OK(round_trip(k, (Text){ t, N }), "a megabyte of one letter");
    tokenizer_free(k);
    k = tokenizer_train((Text){ t, N }, 400, false);           // one huge word
    OK(k->V > FIRST_PIECE + 3 && round_trip(k, (Text){ t, 1000 }), "%d pieces from one word", k->V);
    tokenizer_free(k);
    k = tokenizer_train(text(STORY), 340, false);
    for (int i = 0; i < N; i++) t[i] = (char)random_u64(&seed);
    OK(round_trip(k, (Text){ t, N }), "a megabyte of random bytes");
    random_text(&b, PART, 4, N / 5, &seed);
    OK(round_trip(k, contents(&b)), "a megabyte of words");
    OK(seconds() - start < 60, "four megabytes took %.1f s", seconds() - start);
    FREE(b.s);
    tokenizer_free(k);
}

// Chinese has no spaces: pieces come from words that are cut at 64 bytes. Four megabytes take 3 s
// here.
static void chinese(void) {
    Buf b = { 0 };
    uint64_t seed = 4;
    for (int i = 0; i < 1300000; i++) {                 // about Zipf's law over 3,000 characters
        double u = random_unit(&seed);
        put_utf8(&b, 0x4E00 + (uint32_t)(3000 * u * u * u));
        if (i % 17 == 16) buf_puts(&b, "\xE3\x80\x82");
    }
    double start = seconds();
    Tokenizer *k = tokenizer_train(contents(&b), 2000, false);
    printf("%.1f MB of Chinese: %d pieces in %.1f s\n", (double)b.n * 1e-6, k->V,
           seconds() - start);
    OK(seconds() - start < 60, "%.1f MB of Chinese took %.1f s", (double)b.n * 1e-6,
       seconds() - start);
    OK(k->V == 2000 && round_trip(k, (Text){ b.s, 30000 }), "%d pieces", k->V);
    for (int id = FIRST_PIECE; id < k->V; id++)
        OK(valid_utf8(k->piece[id]), "piece %d is broken", id);
    free(b.s);
    tokenizer_free(k);
}

int main(void) {
    char path[64];
    snprintf(path, sizeof path, "build/tokenizer-test-%d.bin", (int)getpid());
    worked_by_hand();
    heap_against_naive();
    random_bytes();
    trained_by_hand();
    for (uint64_t seed = 1; seed <= 5; seed++) greedy_merges(seed);
    trainer(path);
    loading_errors(path);
    long_texts();
    chinese();
    if (access("tokenizer.bin", R_OK)) {
        puts("skipped: no tokenizer.bin at the project's root");
        return done("tokenizer");
    }
    Tokenizer *k = tokenizer_load("tokenizer.bin");
    OK(round_trip(k, text(STORY)) && round_trip(k, text("\xFF\x80 broken \xC3")), "tokenizer.bin");
    tokenizer_free(k);
    return done("tokenizer");
}
