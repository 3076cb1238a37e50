// tokenizer.c - merges worked by hand, round trips on any bytes, the heap against a naive merge, the trainer, its
// files.
#include "test.h"

typedef struct { const char *s; float score; } Piece;

// A vocabulary of the specials, the bytes and n pieces of our own.
static void vocabulary(Tokenizer *k, const Piece *p, int n)
{
    char name[8];
    tokenizer_alloc(k, FIRST_PIECE + n);
    set_piece(k, UNK, text("<unk>"), 0), set_piece(k, BOS, text("\n<s>\n"), 0), set_piece(k, EOS, text("\n</s>\n"), 0);
    for (int b = 0; b < 256; b++) snprintf(name, sizeof name, "<0x%02X>", b), set_piece(k, BYTE0 + b, text(name), 0);
    for (int i = 0; i < n; i++) set_piece(k, FIRST_PIECE + i, text(p[i].s), p[i].score);
    tokenizer_index(k, "the test's vocabulary");
}

// True where t is encoded as the given pieces, written one after the other with | between them.
static bool encodes(const Tokenizer *k, const char *t, const char *pieces)
{
    Ids ids = { 0 };
    Buf all = { 0 };
    encode(k, text(t), &ids);
    buf_add(&all, "", 0);
    for (int i = 0; i < ids.n; i++)
        buf_puts(&all, i ? "|" : ""), buf_add(&all, k->piece[ids.a[i]].s, k->piece[ids.a[i]].n);
    bool ok = !strcmp(all.s, pieces);
    if (!ok) printf("\"%s\" became %s\n", t, all.s);
    free(ids.a), free(all.s);
    return ok;
}

static bool round_trip(const Tokenizer *k, Text t)
{
    Ids ids = { 0 };
    encode(k, t, &ids);
    bool inside = true;
    // never a control token
    for (int i = 0; i < ids.n; i++) inside = inside && ids.a[i] >= BYTE0 && ids.a[i] < k->V;
    Buf back = decode_all(k, ids.a, ids.n);
    bool ok = inside && same(t, (Text){ back.s, back.n });
    free(ids.a), free(back.s);
    return ok;
}

static void worked_by_hand(void)
{
    Tokenizer k;
    vocabulary(&k, (Piece[]){ { " ", -9 }, { "a", -9 }, { "b", -9 }, { "c", -9 }, { "\xC3\xA9", -9 }, { "ab", -1 },
        { "bc", 0 }, { "aa", -2 },
               { " a", -3 }, { "abc", -4 }, { " aa", -5 }, { "c\xC3\xA9", -5 } }, 12);
    OK(encodes(&k, "", ""), "empty text has no tokens, not even the space");
    OK(encodes(&k, "b", " |b"), "a space stands in front");
    OK(encodes(&k, "a", " a"), "the space in front merges like any other");
    OK(encodes(&k, "abc", " a|bc"), "the highest score goes first: bc, then \" a\"; ab never comes about");
    OK(encodes(&k, "babc", " |b|abc"), "bc, then a + bc, with no \" a\" in the way");
    OK(encodes(&k, "aaa", " aa|a"), "leftmost on ties: aa, then \" \" + aa");
    OK(encodes(&k, "baaa", " |b|aa|a"), "leftmost on ties");
    OK(encodes(&k, "baaaa", " |b|aa|aa"), "leftmost on ties, twice");
    OK(encodes(&k, "c\xC3\xA9", " |c\xC3\xA9"), "characters of two bytes merge");
    OK(encodes(&k, "x", " |<0x78>"), "an unknown character becomes its byte");
    OK(encodes(&k, "\xE2\x82\xAC" "a", " |<0xE2>|<0x82>|<0xAC>|a"), "an unknown character becomes its three bytes");
    OK(encodes(&k, "\xC3", " |<0xC3>"), "half a character becomes a byte");
    OK(encodes(&k, "<s></s>\n<s>\n",
        " |<0x3C>|<0x73>|<0x3E>|<0x3C>|<0x2F>|<0x73>|<0x3E>|<0x0A>|<0x3C>|<0x73>|<0x3E>|<0x0A>"),
       "text never becomes a control token");
    OK(encodes(&k, "<0x41>", " |<0x3C>|<0x30>|<0x78>|<0x34>|<0x31>|<0x3E>"), "nor does it become a byte by its name");
    tokenizer_free(&k);

    vocabulary(&k, (Piece[]){ { "a", 0 } }, 1);
    OK(encodes(&k, "a", "<0x20>|a") && round_trip(&k, text("a")), "a vocabulary without a space still encodes one");
    tokenizer_free(&k);
}

// What heap and hash table compute, by looking at every pair and every piece again and again.
static void encode_naively(const Tokenizer *k, Text t, Ids *out)
{
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
                if (same(k->piece[id], (Text){ sym[i].s, sym[i].n + sym[i + 1].n }) && k->score[id] > score)
                    best = i, score = k->score[id];
        if (best < 0) break;
        sym[best].n += sym[best + 1].n;
        memmove(sym + best + 1, sym + best + 2, (size_t)(n - best - 2) * sizeof *sym), n--;
    }
    for (int i = 0; i < n; i++) {
        int id = FIRST_PIECE;
        while (id < k->V && !same(k->piece[id], sym[i])) id++;
        if (id < k->V) ids_add(out, id);
        else for (size_t b = 0; b < sym[i].n; b++) ids_add(out, BYTE0 + (uint8_t)sym[i].s[b]);
    }
    free(sym);
}

static void random_text(Buf *b, const char *const *part, int n_parts, int n, uint64_t *seed)
{
    b->n = 0, buf_add(b, "", 0);
    while (n-- > 0) buf_puts(b, part[random_u64(seed) % (uint64_t)n_parts]);
}

static void heap_against_naive(void)
{
    static const char *const PART[] = { "a", "b", "c", " ", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "\xC3",
        "\x80", "\xF0\x9F" };
    uint64_t seed = 1;
    int wrong = 0, broken = 0;
    for (int round = 0; round < 60; round++) {
        Buf s[40] = { { 0 } }, t = { 0 };
        Piece p[40];
        int n = 0;
        for (int i = 0; i < 40; i++) {                  // unique pieces of up to 5 characters, scores with many ties
            random_text(&s[n], PART, 7, i < 6 ? 1 : 2 + (int)(random_u64(&seed) % 4), &seed);
            int j = 0;
            while (j < n && strcmp(p[j].s, s[n].s)) j++;
            if (j == n) p[n] = (Piece){ s[n].s, (float)(random_u64(&seed) % 5) }, n++;
        }
        Tokenizer k;
        vocabulary(&k, p, n);
        for (int i = 0; i < 50; i++) {
            Ids fast = { 0 }, slow = { 0 };
            random_text(&t, PART, 10, (int)(random_u64(&seed) % 40), &seed);
            encode_raw(&k, (Text){ t.s, t.n }, &fast), encode_naively(&k, (Text){ t.s, t.n }, &slow);
            wrong += fast.n != slow.n || (fast.n && memcmp(fast.a, slow.a, (size_t)fast.n * sizeof(int)));
            broken += !round_trip(&k, (Text){ t.s, t.n });
            free(fast.a), free(slow.a);
        }
        for (int i = 0; i < 40; i++) free(s[i].s);
        free(t.s), tokenizer_free(&k);
    }
    OK(!wrong, "%d of 3000 texts are merged otherwise than by the naive merge", wrong);
    OK(!broken, "%d of 3000 texts do not come back", broken);
}

static const char STORY[] = "The cat sat on the mat. The other cat ate 12 apples, 345 pears and the hat.\n"
                            "<s></s> <unk> <0x41>\n<s>\n</s>\nna\xC3\xAFve caf\xC3\xA9: 10 \xE2\x82\xAC; "
                            "na\xC3\xAFve caf\xC3\xA9s cost 200 \xE2\x82\xAC\n</s>\n<s> the cat, the mat\n";

static void random_bytes(void)
{
    static const char *const TAIL[] = { "", "\xC3", "\xE2\x82", "\xF0\x9F\x98", "\x80\x80", "\xFF", "\xED\xA0\x80" };
    Tokenizer k;
    Buf t = { 0 };
    uint64_t seed = 2;
    int broken = 0;
    tokenizer_train(&k, text(STORY), 340);
    for (int i = 0; i < 8000; i++) {                    // bytes of all kinds, and letters with some of them in between
        t.n = 0, buf_add(&t, "", 0);
        for (int n = (int)(random_u64(&seed) % 100); n > 0; n--) {
            uint64_t r = random_u64(&seed);
            buf_add(&t, i % 2 && r % 4 ? &STORY[(r >> 8) % (sizeof STORY - 1)]
                : (char *)&(uint8_t){ (uint8_t)(r >> 8) }, 1);
        }
        buf_puts(&t, TAIL[i % 7]);
        broken += !round_trip(&k, (Text){ t.s, t.n });
    }
    OK(!broken, "%d of 8000 strings of random bytes do not come back", broken);
    for (int b = 0; b < 256; b++) {
        char two[2] = { (char)b, (char)b };
        OK(round_trip(&k, (Text){ two, 1 }) && round_trip(&k, (Text){ two, 2 }), "the byte %d does not come back", b);
    }
    OK(round_trip(&k, text(" a")) && round_trip(&k, text("  ")) && round_trip(&k, text(" ")),
        "spaces in front do not come back");
    free(t.s), tokenizer_free(&k);
}

static bool same_tokenizer(const Tokenizer *a, const Tokenizer *b)
{
    bool ok = a->V == b->V && a->longest == b->longest && !memcmp(a->score, b->score, (size_t)a->V * sizeof *a->score);
    for (int i = 0; ok && i < a->V; i++) ok = same(a->piece[i], b->piece[i]);
    return ok;
}

// True where the merged pieces and characters of a vocabulary trained on t are exactly those, in order.
static bool trains(const char *t, int V, const char *const *want)
{
    Tokenizer k;
    tokenizer_train(&k, text(t), V);
    bool ok = true;
    for (int id = FIRST_PIECE; id < V; id++) {
        bool good = same(k.piece[id], text(want[id - FIRST_PIECE])) && k.score[id] == (float)(FIRST_PIECE - id);
        if (!good) printf("piece %d is \"%.*s\", score %g\n", id, (int)k.piece[id].n, k.piece[id].s,
            (double)k.score[id]);
        ok = ok && good;
    }
    tokenizer_free(&k);
    return ok;
}

static void train_too_many(const void *p)
{
    Tokenizer k;
    tokenizer_train(&k, text(p), 400);
}

// Where the message names a vocabulary size, it must be one that works.
static void train_hint(const void *p)
{
    Tokenizer k;
    const char *hint = strstr(message, "--vocab ");
    tokenizer_train(&k, text(p), hint ? atoi(hint + 8) : FIRST_PIECE);
}

static void trainer(const char *path)
{
    // Words "aab", " aab", " ab". Pairs: ab 3, aa 2, " a" 2. After ab: a+ab 2, " "+a 1, " "+ab 1; then " ab" is shorter
    // than " aab".
    OK(trains("aab aab ab", 265, (const char *[]){ "ab", "aab", " ab", "a", "b", " " }), "three merges by hand");
    // Words "aabb", " bbaa". aa and bb both 2: byte order. Then aa+bb, bb+aa, " "+bb all 1: the fewest bytes.
    OK(trains("aabb bbaa", 265, (const char *[]){ "aa", "bb", " bb", "a", "b", " " }), "ties by length and byte order");
    Tokenizer k, again, loaded;
    tokenizer_train(&k, text(STORY), 340), tokenizer_train(&again, text(STORY), 340);
    OK(same_tokenizer(&k, &again), "the same text gives another vocabulary");
    tokenizer_save(&k, path), tokenizer_load(&loaded, path);
    OK(same_tokenizer(&k, &loaded), "saved and loaded, the vocabulary is another one");
    for (int id = FIRST_PIECE; id < k.V; id++) {
        Text t = k.piece[id];
        bool digit = false, control = false, special = false;
        for (size_t i = 0; i < t.n; i++)
            digit = digit || (t.s[i] >= '0' && t.s[i] <= '9'), control = control || (uint8_t)t.s[i] < 32;
        for (int i = 0; i < FIRST_PIECE; i++) special = special || same(t, k.piece[i]);
        special = special || same(t, text("<s>")) || same(t, text("</s>"));
        OK(!(digit && t.n > 1) && !control && !special, "piece %d is \"%.*s\"", id, (int)t.n, t.s);
    }
    OK(round_trip(&k, text(STORY)), "the text that it learnt from does not come back");
    tokenizer_free(&k), tokenizer_free(&again), tokenizer_free(&loaded);

    // "\xC3" and a letter are no character: pieces of it would be no UTF-8, which other readers of the GGUF file
    // refuse.
    tokenizer_train(&k, text("ab ab \xC3x \xC3x \xE2xy \xE2xy \xFF\xFF ababab aabb"), 267);
    for (int id = FIRST_PIECE; id < k.V; id++) {
        Buf b = { 0 };
        json_put(&b, k.piece[id]);
        OK(!strstr(b.s, "\\ufffd"), "piece %d is no UTF-8: %s", id, b.s);
        free(b.s);
    }
    tokenizer_free(&k);
    OK(dies(train_too_many, "a few words only"), "more pieces than the text yields: %s", message);
    OK(dies(train_too_many, ""), "no text at all: %s", message);
    OK(dies(train_too_many, "abcdefghij") && !dies(train_hint, "abcdefghij"),
        "the size that is named does not work: %s", message);
}

static void load(const void *path)
{
    Tokenizer k;
    tokenizer_load(&k, path);
}

static void write_text(const char *path, const void *s, size_t n) { write_file(path, 1, &(Text){ s, n }); }

// A good file but for `n` bytes at `at`.
static bool refused(const char *path, const Buf *good, size_t at, const char *bytes, size_t n)
{
    Buf f = { 0 };
    buf_add(&f, good->s, good->n), memcpy(f.s + at, bytes, n);
    write_text(path, f.s, f.n), free(f.s);
    return dies(load, path);
}

static void loading_errors(const char *path)
{
    Tokenizer k;
    vocabulary(&k, (Piece[]){ { "a", -1 }, { "b", -2 }, { "ab", 0 } }, 3);
    tokenizer_save(&k, path);
    Buf f = read_all(path, NULL);
    // pieces: { score, length, bytes }; FF: the bytes of <0xFF>
    size_t ab = f.n - 10, b = ab - 9, a = b - 9, FF = a - 6;
    OK(!dies(load, path) && !*message, "the good file: %s", message);
    OK(dies(load, "build/no/such/file"), "a missing file: %s", message);
    OK(dies(load, "build"), "a folder: %s", message);
    size_t end[] = { 0, 3, FF - 8, ab + 7, f.n - 1 };
    for (int i = 0; i < 5; i++)
        write_text(path, f.s, end[i]), OK(dies(load, path), "cut off at %zu: %s", end[i], message);
    OK(refused(path, &f, ab + 4, "\xFF\xFF\xFF\xFF", 4), "a length of 4 GB: %s", message);
    OK(refused(path, &f, ab, "\0\0\xC0\x7F", 4), "a score that is NaN: %s", message);
    OK(refused(path, &f, b + 8, "a", 1), "the same piece twice: %s", message);
    OK(refused(path, &f, FF + 4, "E", 1), "<0xFE> twice, <0xFF> missing: %s", message);
    OK(refused(path, &f, FF + 4, "\n", 1), "a message that quotes a newline is one line all the same: %s", message);
    OK(refused(path, &f, FF + 4, "\x1b", 1) && !strchr(message, 27), "a message brings control codes to the terminal");
    buf_add(&f, "\0\0\0\0\0\0\0", 8), write_text(path, f.s, f.n),
        OK(dies(load, path), "a piece without bytes: %s", message);
    free(f.s), tokenizer_free(&k), remove(path);
}

// Time must grow with the text and not with its square: a megabyte in seconds.
static void long_texts(void)
{
    enum { N = 1 << 20 };
    static char t[N];
    static const char *const PART[] = { "the ", "cat ", "na\xC3\xAFve ", "caf\xC3\xA9 " };
    Tokenizer k;
    Buf b = { 0 };
    uint64_t seed = 3;
    vocabulary(&k, (Piece[]){ { "a", 0 }, { "aa", -1 }, { "aaaa", -2 }, { "aaaaaaaa", -3 },
        { "aaaaaaaaaaaaaaaa", -4 } }, 5);
    double start = seconds();
    memset(t, 'a', N);
    OK(round_trip(&k, (Text){ t, N }), "a megabyte of one letter");
    tokenizer_free(&k), tokenizer_train(&k, text(STORY), 340);
    for (int i = 0; i < N; i++) t[i] = (char)random_u64(&seed);
    OK(round_trip(&k, (Text){ t, N }), "a megabyte of random bytes");
    random_text(&b, PART, 4, N / 5, &seed);
    OK(round_trip(&k, (Text){ b.s, b.n }), "a megabyte of words");
    // 1 s here, several under sanitizers
    OK(seconds() - start < 15, "three megabytes took %.1f s", seconds() - start);
    free(b.s), tokenizer_free(&k);
}

int main(void)
{
    char path[64];
    snprintf(path, sizeof path, "build/tokenizer-test-%d.bin", (int)getpid());
    worked_by_hand();
    heap_against_naive();
    random_bytes();
    trainer(path);
    loading_errors(path);
    long_texts();
    if (access("tokenizer.bin", R_OK)) puts("skipped: no tokenizer.bin at the project root");
    else {
        Tokenizer k;
        tokenizer_load(&k, "tokenizer.bin");
        OK(round_trip(&k, text(STORY)) && round_trip(&k, text("\xFF\x80 broken \xC3")),
            "tokenizer.bin does not bring a text back");
        tokenizer_free(&k);
    }
    return done("tokenizer");
}
