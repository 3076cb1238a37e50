/* aligner.c - "Aligner: Efficient Alignment by Learning to Correct" in one C file.

   The paper: Ji et al., arXiv 2402.02416, NeurIPS 2024; equation and page numbers are those of the PDF of January 2025.
   An Aligner is a small model mu_phi(y_c | x, y_o). It reads a question x and the answer y_o of some upstream model, and
   writes the corrected answer y_c: y_o itself where that was good. It is trained once and stacked on any upstream model.

       objective        condition   target   loss, a mean over the target's tokens                     source
       sft              x           y_o      - E log pi_theta(y_o | x)                                  Eq. (1)
       warmup           x, y_o      y_o      - E log mu_phi  (y_o | y_o, x)   learn to copy first       p. 3
       aligner          x, y_o      y_c      - E log mu_phi  (y_c | y_o, x)   then copy or correct      Eq. (4)

   That is all there is to it: SFT becomes Aligner when one line changes (chapter 1). The loss knows nothing of it.

   Notation.  Paper code: x query, y_o original answer, y_c corrected answer, pi_theta the upstream model, mu_phi the Aligner,
              M = {(x, y_o, y_c)} the data. Tensor code: T tokens of a batch, L layers, C = dim, H heads, hs head size,
              V vocabulary, F hidden size of the feed-forward; gradients carry the prefix d. A[T][C] is row-major.

   Chapters   1 the paper      triples, the three objectives, Eqs. (1)-(4), the composed policy        <- the paper path:
              2 tokenizer      byte-pair encoding: files, encode, decode, trainer                         chapters 1, 5, 6, 7
              3 kernels        each forward with its backward below it; the matmul last                   are one sitting;
              4 model          configuration, one table of tensors, GGUF files                            2, 3, 4 are machinery
              5 passes         forward, loss and backward over the layers                                 to look up; 8 (DPO,
              6 training       Q-A-C files, packed batches, AdamW, the loop, resume                       RLHF) and 9 (steering)
              7 generating     sampler, draft-verified decoding, correct()                                are not written yet
             10 command line   main reads like a table of contents

   Policies.  Memory: sized once before a loop starts; nothing is allocated inside a pass or a step. Numbers: f32, every sum
              in one fixed order, so the same seed gives the same bits with any number of threads. Threads: OpenMP where
              present, and loops write disjoint outputs only. Files are hostile: every length is checked before it is
              used. Errors: die() says what was expected, what was found, what to do, and exits 1; bad usage exits 2. */

#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#ifdef _OPENMP
#include <omp.h>
#endif

typedef struct { const char *s; size_t n; } Text;       // any bytes, also NUL; not owned unless said so
typedef struct { char *s; size_t n, cap; } Buf;         // text that grows; s is always followed by a NUL
typedef struct { int *a; int n, cap; } Ids;             // token ids that grow
typedef struct Model Model;

/* ============================================================================================================
   Chapter 1. The paper.  Everything that the paper adds to an ordinary language model stands here. */

typedef struct { Text x, y_o, y_c; } Triple;            // one element of M: question, original answer, corrected answer

typedef struct { int *ids; int n_condition, n; } Row;   // <s> condition target </s>; the loss is on ids[n_condition .. n)

#define NONE ((Text){ NULL, 0 })                        // "no y_o in the prompt": the SFT counterpart of the template

static Buf prompt(const Model *m, Text x, Text y_o);            // fills the model's template; tokenized later as one string
static Row row(const Model *m, Buf condition, Text target);     // tokenizes; draws the line between condition and target

// The three objectives. From sft to aligner one line changes (`make diff` shows it): y_o moves into the condition, and the
// target becomes the correction. The warm-up stands between: the same condition as the Aligner, the same target as SFT.

static Row sft(const Model *m, Triple t)
{
    return row(m, prompt(m, t.x, NONE ), t.y_o);        // Eq. (1), p. 3:  - log pi_theta(y_o | x)
}

static Row warmup(const Model *m, Triple t)
{
    return row(m, prompt(m, t.x, t.y_o), t.y_o);        // p. 3, identity: - log mu_phi(y_o | y_o, x)
}

static Row aligner(const Model *m, Triple t)
{
    return row(m, prompt(m, t.x, t.y_o), t.y_c);        // Eq. (4), p. 3:  - log mu_phi(y_c | y_o, x)
}

typedef Row (*Objective)(const Model *, Triple);

// The loss of all three: next-token cross-entropy, mean over the target tokens of a batch (chapter 5 computes it for packed
// batches). The condition carries no loss: that is the official code's -100 labels, and the only mask of the loss.

// Why Eq. (4) is enough. Upstream and Aligner together are one policy, Eq. (2), p. 3:
//
//     pi'(y_c | x) = sum_k mu_phi(y_c | y_k, x) pi_theta(y_k | x)  >=  mu_phi(y_c | y_o, x) pi_theta(y_o | x)
//
// All terms but y_k = y_o are dropped; they are non-negative, so no Jensen is needed. Minus the logarithm, over M, Eq. (3):
//
//     - E log pi'(y_c | x)  <=  - E log mu_phi(y_c | y_o, x)  - E log pi_theta(y_o | x)
//
// The last term does not depend on phi: what is left to minimise is Eq. (4). pi_theta is never trained, not even opened.

static bool answer_to(Model *pi, Text x, Buf *y_o);                      // y_o ~ pi_theta(. | x)        (chapter 7)
static const char *correct(Model *mu, Text x, Text y_o, Buf *y_c);      // y_c ~ mu_phi(. | y_o, x)     (chapter 7)
static void buf_add(Buf *b, const void *s, size_t n);                    // appends n bytes

// One draw from the composed policy pi'(. | x) of Eq. (2): the upstream answers, the Aligner copies or corrects. Only text
// passes between them, so each may have its own tokenizer. Returns NULL, or why y_c had to stay y_o (or what there is of it).
static const char *composed_policy(Model *pi, Model *mu, Text x, Buf *y_o, Buf *y_c)
{
    if (!answer_to(pi, x, y_o)) {
        y_c->n = 0, buf_add(y_c, y_o->s, y_o->n);
        return "the upstream model found no end to its answer";
    }
    return correct(mu, x, (Text){ y_o->s, y_o->n }, y_c);
}

/* ------------------------------------------------------------------------------------------------------------
   Small things that every chapter needs: errors, memory, growing text. */

#define DIE(...) die(__FILE__, __LINE__, __VA_ARGS__)
#define CHECK(condition, ...) do { if (!(condition)) DIE(__VA_ARGS__); } while (0)

// Prints one message (what was expected, what was found, what to do) with its place in this file; exits 1.
static void __attribute__((noreturn, format(printf, 3, 4))) die(const char *file, int line, const char *format, ...)
{
    const char *base = strrchr(file, '/');
    char message[1024];
    va_list a;
    va_start(a, format);
    vsnprintf(message, sizeof message, format, a);
    va_end(a);
    for (char *c = message; *c; c++) if ((uint8_t)*c < 32 || *c == 127) *c = '?';      // what files bring: one line, no terminal codes
    fflush(stdout);
    fprintf(stderr, "aligner: %s (%s:%d)\n", message, base ? base + 1 : file, line);
    exit(1);
}

// n elements of the given size, all zero, 64-byte aligned for the vector units; dies where memory is short.
static void *zalloc(size_t n, size_t size)
{
    CHECK(!size || n <= (SIZE_MAX - 64) / size, "%zu x %zu bytes are more than this machine can address", n, size);
    size_t bytes = (n * size + 63) / 64 * 64;
    void *p = aligned_alloc(64, bytes ? bytes : 64);
    CHECK(p, "no memory for %zu bytes; a smaller model, batch or context needs less", bytes);
    return memset(p, 0, bytes ? bytes : 64);
}

// Makes room for n elements in *a (of *cap), at least doubling, and keeps what is there.
static void *grow(void *a, size_t size, size_t *cap, size_t n)
{
    if (n <= *cap) return a;
    size_t c = *cap * 2 > n ? *cap * 2 : n < 16 ? 16 : n;
    CHECK(c <= SIZE_MAX / size, "%zu x %zu bytes are more than this machine can address", c, size);
    CHECK((a = realloc(a, c * size)), "no memory for %zu bytes", c * size);
    *cap = c;
    return a;
}

static void buf_add(Buf *b, const void *s, size_t n)
{
    b->s = grow(b->s, 1, &b->cap, b->n + n + 1);
    if (n) memcpy(b->s + b->n, s, n);
    b->s[b->n += n] = 0;
}

static void buf_puts(Buf *b, const char *s) { buf_add(b, s, strlen(s)); }

static void ids_add(Ids *v, int id)
{
    size_t cap = (size_t)v->cap;
    CHECK(v->n < INT_MAX - 1, "a text of more than %d tokens", INT_MAX - 1);
    v->a = grow(v->a, sizeof *v->a, &cap, (size_t)v->n + 1);
    v->cap = cap > INT_MAX ? INT_MAX : (int)cap;
    v->a[v->n++] = id;
}

// The bytes of the character at the start of t; 0 where that is no UTF-8.
static size_t utf8_length(Text t)
{
    const uint8_t *s = (const uint8_t *)t.s, c = t.n ? *s : 0xFF;
    size_t n = c < 0x80 ? 1 : c < 0xC2 ? 0 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : c < 0xF5 ? 4 : 0;
    if (n > t.n) return 0;
    for (size_t j = 1; j < n; j++) if (s[j] >> 6 != 2) return 0;
    bool bad = (c == 0xE0 && s[1] < 0xA0) || (c == 0xED && s[1] > 0x9F) || (c == 0xF0 && s[1] < 0x90) || (c == 0xF4 && s[1] > 0x8F);
    return bad ? 0 : n;
}

static Text text(const char *s) { return (Text){ s, strlen(s) }; }
static bool same(Text a, Text b) { return a.n == b.n && (!a.n || !memcmp(a.s, b.s, a.n)); }

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// splitmix64: the only source of randomness in this file; the state is one number, so that it can be saved.
static uint64_t random_u64(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static double random_unit(uint64_t *state) { return (double)(random_u64(state) >> 11) * 0x1p-53; }     // in [0, 1)

// Reads a whole file (or a stream, where f is given) into memory.
static Buf read_all(const char *path, FILE *f)
{
    Buf b = { 0 };
    FILE *in = f ? f : fopen(path, "rb");
    CHECK(in, "cannot open %s: %s; name a file that exists and can be read", path, strerror(errno));
    char chunk[65536];
    for (size_t n; (n = fread(chunk, 1, sizeof chunk, in)) > 0; ) buf_add(&b, chunk, n);
    CHECK(!ferror(in), "cannot read %s: %s", path, strerror(errno));
    if (!f) fclose(in);
    buf_add(&b, "", 0);
    return b;
}

static Buf joined(const char *a, const char *b) { Buf s = { 0 }; buf_puts(&s, a), buf_puts(&s, b); return s; }

// A file in memory, read from the front; need() gives the next n bytes of it, or dies where fewer are left.
typedef struct { const char *path; const uint8_t *p; size_t n, at; } File;

static const uint8_t *need(File *f, uint64_t n, const char *what)
{
    CHECK(n <= f->n - f->at, "%s: ends inside %s (%llu bytes wanted, %zu left); copy the file again", f->path, what,
          (unsigned long long)n, f->n - f->at);
    const uint8_t *p = f->p + f->at;
    f->at += (size_t)n;
    return p;
}

static uint32_t read_u32(File *f, const char *what) { uint32_t v; memcpy(&v, need(f, 4, what), 4); return v; }

// Writes the parts to a temporary file beside path, then renames it: nobody ever sees half a file.
static void write_file(const char *path, int n_parts, const Text *part)
{
    Buf temp = joined(path, ".tmp");
    FILE *f = fopen(temp.s, "wb");
    CHECK(f, "cannot write %s: %s; name a folder that exists and can be written", temp.s, strerror(errno));
    bool ok = true;
    for (int i = 0; i < n_parts; i++) ok = ok && fwrite(part[i].s, 1, part[i].n, f) == part[i].n;
    ok = fflush(f) == 0 && fsync(fileno(f)) == 0 && ok;
    if (fclose(f) || !ok || rename(temp.s, path)) {
        int e = errno;
        remove(temp.s);
        DIE("cannot write %s: %s; is the disk full?", path, strerror(e));
    }
    free(temp.s);
}

/* ============================================================================================================
   Chapter 2. Tokenizer.  Byte-pair encoding as SentencePiece and llama.cpp do it. Gives tokenizer_load, encode, decode and
   tokenizer_train. Skip it if you take "a text becomes a list of ids and back, without loss" for granted.

   ids: 0 <unk>, 1 <s>, 2 </s>, 3..258 the bytes as <0xHH>, then merged pieces (score -rank: earlier merges win), then single
   characters. Every byte has a piece, so any text can be encoded, and decoding gives back the same bytes. */

enum { UNK = 0, BOS = 1, EOS = 2, BYTE0 = 3, FIRST_PIECE = 259, MAX_VOCAB = 1000000 };

typedef struct {
    int V;                      // vocabulary size
    int longest;                // bytes of the longest piece
    Text *piece;                // piece[id]: its bytes, a space being a space
    float *score;               // score[id]: among the possible merges the highest score goes first
    int *slot;                  // hash table from bytes to id (-1: empty); only pieces that text can build are in it
    size_t mask;                // its size - 1, a power of two - 1
} Tokenizer;

#define GGUF_SPACE "\xE2\x96\x81"                        // U+2581, which GGUF files write for a space

static size_t hash_text(Text t)                         // FNV-1a
{
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < t.n; i++) h = (h ^ (uint8_t)t.s[i]) * 1099511628211u;
    return (size_t)(h ^ h >> 32);
}

// The slot that holds t, or the empty slot where it would go.
static size_t find_slot(const Tokenizer *k, Text t)
{
    size_t i = hash_text(t) & k->mask;
    while (k->slot[i] >= 0 && !same(k->piece[k->slot[i]], t)) i = (i + 1) & k->mask;
    return i;
}

static void tokenizer_alloc(Tokenizer *k, int V)
{
    *k = (Tokenizer){ .V = V };
    k->piece = zalloc((size_t)V, sizeof *k->piece);
    k->score = zalloc((size_t)V, sizeof *k->score);
    for (k->mask = 1; k->mask < 2 * (size_t)V; ) k->mask *= 2;
    k->slot = zalloc(k->mask--, sizeof *k->slot);
}

static void tokenizer_free(Tokenizer *k)
{
    for (int i = 0; i < k->V; i++) free((char *)k->piece[i].s);
    free(k->piece), free(k->score), free(k->slot);
    *k = (Tokenizer){ 0 };
}

static void set_piece(Tokenizer *k, int id, Text bytes, float score)
{
    Buf own = { 0 };
    buf_add(&own, bytes.s, bytes.n);
    k->piece[id] = (Text){ own.s, own.n };
    k->score[id] = score;
}

// Once all pieces are set: fills the hash table and refuses a vocabulary that two programs would read differently.
static void tokenizer_index(Tokenizer *k, const char *path)
{
    for (size_t i = 0; i <= k->mask; i++) k->slot[i] = -1;
    for (int b = 0; b < 256; b++) {
        char want[8];
        snprintf(want, sizeof want, "<0x%02X>", b);
        CHECK(same(k->piece[BYTE0 + b], text(want)), "%s: piece %d should be the byte %s but is \"%.*s\"; "
              "only vocabularies with byte fallback at ids 3..258 are read", path, BYTE0 + b, want,
              (int)k->piece[BYTE0 + b].n, k->piece[BYTE0 + b].s);
    }
    for (int id = FIRST_PIECE; id < k->V; id++) {
        Text t = k->piece[id];
        CHECK(t.n > 0 && t.n <= 1024, "%s: piece %d has %zu bytes; 1 to 1024 were expected", path, id, t.n);
        CHECK(!strstr(t.s, GGUF_SPACE), "%s: piece %d holds U+2581, which stands for a space in GGUF files", path, id);
        CHECK(isfinite(k->score[id]), "%s: piece %d has a score that is no finite number", path, id);
        size_t i = find_slot(k, t);
        CHECK(k->slot[i] < 0, "%s: pieces %d and %d are both \"%.*s\"; pieces must be unique", path, k->slot[i], id, (int)t.n, t.s);
        k->slot[i] = id;
        if ((int)t.n > k->longest) k->longest = (int)t.n;
    }
}

// Reads tokenizer.bin: u32 longest, then { f32 score, u32 n, n bytes } to the end of the file (llama2.c's layout).
static void tokenizer_load(Tokenizer *k, const char *path)
{
    Buf bytes = read_all(path, NULL);
    File f = { path, (const uint8_t *)bytes.s, bytes.n, 0 };
    int n = 0;
    need(&f, 4, "the length of the longest piece");
    tokenizer_alloc(k, bytes.n / 8 < MAX_VOCAB ? (int)(bytes.n / 8) + 1 : MAX_VOCAB);       // a piece has 8 bytes at least
    while (f.at < f.n) {
        float score;
        CHECK(n < MAX_VOCAB, "%s: more than %d pieces; is it a tokenizer.bin?", path, MAX_VOCAB);
        memcpy(&score, need(&f, 4, "a score"), 4);
        uint32_t len = read_u32(&f, "the length of a piece");
        set_piece(k, n++, (Text){ (const char *)need(&f, len, "a piece"), len }, score);
    }
    CHECK(n >= FIRST_PIECE, "%s: %d pieces; at least %d were expected (3 specials and 256 bytes)", path, n, FIRST_PIECE);
    k->V = n;
    tokenizer_index(k, path);
    free(bytes.s);
}

// Writes the same layout. <s> and </s> stand between newlines, so that no text can merge into them.
static void tokenizer_save(const Tokenizer *k, const char *path)
{
    Buf f = { 0 };
    uint32_t longest = 0;
    for (int i = 0; i < k->V; i++) if (k->piece[i].n > longest) longest = (uint32_t)k->piece[i].n;
    buf_add(&f, &longest, 4);
    for (int i = 0; i < k->V; i++) {
        uint32_t n = (uint32_t)k->piece[i].n;
        buf_add(&f, &k->score[i], 4);
        buf_add(&f, &n, 4);
        buf_add(&f, k->piece[i].s, n);
    }
    write_file(path, 1, &(Text){ f.s, f.n });
    free(f.s);
}

// Encoding starts with one symbol a character and merges the adjacent pair whose merged piece has the highest score, leftmost
// on ties, until no merge is left. A heap holds the candidates; one that a later merge made stale is seen by its length.
typedef struct { const char *s; int n, prev, next; } Symbol;
typedef struct { float score; int left, right, n; } Merge;
typedef struct { Merge *a; size_t n, cap; } Heap;

static bool before(Merge a, Merge b) { return a.score > b.score || (a.score == b.score && a.left < b.left); }

static void heap_push(Heap *h, Merge m)
{
    h->a = grow(h->a, sizeof *h->a, &h->cap, h->n + 1);
    size_t i = h->n++;
    for (; i && before(m, h->a[(i - 1) / 2]); i = (i - 1) / 2) h->a[i] = h->a[(i - 1) / 2];
    h->a[i] = m;
}

static Merge heap_pop(Heap *h)
{
    Merge top = h->a[0], last = h->a[--h->n];
    size_t i = 0;
    for (size_t c; (c = 2 * i + 1) < h->n; i = c) {
        if (c + 1 < h->n && before(h->a[c + 1], h->a[c])) c++;
        if (!before(h->a[c], last)) break;
        h->a[i] = h->a[c];
    }
    h->a[i] = last;
    return top;
}

static void try_merge(const Tokenizer *k, const Symbol *sym, int left, int right, Heap *h)
{
    if (left < 0 || right < 0 || sym[left].n + sym[right].n > k->longest) return;
    int id = k->slot[find_slot(k, (Text){ sym[left].s, (size_t)(sym[left].n + sym[right].n) })];
    if (id >= 0) heap_push(h, (Merge){ k->score[id], left, right, sym[left].n + sym[right].n });
}

// Appends the ids of t to out, t taken as it stands.
static void encode_raw(const Tokenizer *k, Text t, Ids *out)
{
    static const int length_of_lead[16] = { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4 };    // UTF-8, by the high 4 bits
    CHECK(t.n < INT_MAX, "a text of %zu bytes; at most %d can be encoded", t.n, INT_MAX - 1);
    Symbol *sym = zalloc(t.n, sizeof *sym);
    Heap heap = { 0 };
    int n = 0;
    for (size_t at = 0; at < t.n; n++) {
        int len = length_of_lead[(uint8_t)t.s[at] >> 4];
        if ((size_t)len > t.n - at) len = (int)(t.n - at);
        sym[n] = (Symbol){ t.s + at, len, n - 1, n + 1 };
        at += (size_t)len;
    }
    if (n) sym[n - 1].next = -1;
    for (int i = 1; i < n; i++) try_merge(k, sym, i - 1, i, &heap);
    while (heap.n) {
        Merge m = heap_pop(&heap);
        Symbol *l = &sym[m.left], *r = &sym[m.right];
        if (!l->n || !r->n || l->n + r->n != m.n) continue;     // stale: one of the two has been merged away
        l->n = m.n, l->next = r->next, r->n = 0;
        if (l->next >= 0) sym[l->next].prev = m.left;
        try_merge(k, sym, l->prev, m.left, &heap);
        try_merge(k, sym, m.left, l->next, &heap);
    }
    for (int i = n ? 0 : -1; i >= 0; i = sym[i].next) {
        int id = k->slot[find_slot(k, (Text){ sym[i].s, (size_t)sym[i].n })];
        if (id >= 0) ids_add(out, id);
        else for (int b = 0; b < sym[i].n; b++) ids_add(out, BYTE0 + (uint8_t)sym[i].s[b]);     // byte fallback
    }
    free(sym), free(heap.a);
}

// Appends the ids of t. As SentencePiece does, non-empty text gets a space in front: " Paris" is one token wherever a word
// begins, so the first word of y_c is the same token as the first word of y_o in the prompt.
static void encode(const Tokenizer *k, Text t, Ids *out)
{
    if (!t.n) return;
    Buf spaced = { 0 };
    buf_add(&spaced, " ", 1);
    buf_add(&spaced, t.s, t.n);
    encode_raw(k, (Text){ spaced.s, spaced.n }, out);
    free(spaced.s);
}

// Appends the bytes of one token; specials have none.
static void decode(const Tokenizer *k, int id, Buf *out)
{
    char byte = (char)(id - BYTE0);
    if (id >= FIRST_PIECE) buf_add(out, k->piece[id].s, k->piece[id].n);
    else if (id >= BYTE0) buf_add(out, &byte, 1);
}

// The text of n ids; the space that encode put in front is taken away again.
static Buf decode_all(const Tokenizer *k, const int *ids, int n)
{
    Buf all = { 0 };
    buf_add(&all, "", 0);
    for (int i = 0; i < n; i++) decode(k, ids[i], &all);
    if (all.n && all.s[0] == ' ') memmove(all.s, all.s + 1, all.n--);
    return all;
}

// The trainer. Text is cut into words (a space goes with the letters behind it; digits and controls stand alone; punctuation
// does not mix with letters); the most frequent adjacent pair of symbols inside words becomes the next piece, and so on until
// the vocabulary is full. Ties: fewer bytes first, then byte order, so the result depends on nothing but the text.
typedef struct { int *sym; int n; long count; } Word;
typedef struct { int left, right; long count; } Pair;
typedef struct { Pair *a; size_t mask; } Pairs;

static int character_class(uint8_t c)                   // 0 control, 1 digit, 2 letter (and all beyond ASCII), 3 the rest
{
    if (c < 32 || c == 127) return 0;
    if (c >= '0' && c <= '9') return 1;
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c >= 128 ? 2 : 3;
}

static size_t word_length(const char *s, size_t n)
{
    size_t i = s[0] == ' ';
    int class = i < n && s[i] != ' ' ? character_class((uint8_t)s[i]) : 0;
    if (class < 2) return 1;
    while (i < n && s[i] != ' ' && character_class((uint8_t)s[i]) == class) i++;
    return i;
}

static int by_bytes(const void *pa, const void *pb)
{
    const Text *a = pa, *b = pb;
    int c = memcmp(a->s, b->s, a->n < b->n ? a->n : b->n);
    return c ? c : (a->n > b->n) - (a->n < b->n);
}

static Pair *find_pair(Pairs *p, int left, int right)
{
    size_t i = ((size_t)left * 0x9E3779B1u ^ (size_t)right * 0x85EBCA77u) & p->mask;
    while (p->a[i].count >= 0 && (p->a[i].left != left || p->a[i].right != right)) i = (i + 1) & p->mask;
    if (p->a[i].count < 0) p->a[i] = (Pair){ left, right, 0 };          // -1 marks an empty place
    return &p->a[i];
}

static void count_pairs(Pairs *p, const Word *w, long sign)
{
    for (int i = 0; i + 1 < w->n; i++)
        if (w->sym[i] >= FIRST_PIECE && w->sym[i + 1] >= FIRST_PIECE)              // bytes are never merged
            find_pair(p, w->sym[i], w->sym[i + 1])->count += sign * w->count;
}

static void join(const Tokenizer *k, const Pair *p, char *out)
{
    memcpy(out, k->piece[p->left].s, k->piece[p->left].n);
    memcpy(out + k->piece[p->left].n, k->piece[p->right].s, k->piece[p->right].n);
}

// The best pair to merge next, or NULL. Pieces of more than 16 bytes are left out: they would be phrases, not parts of words.
static const Pair *best_pair(const Tokenizer *k, const Pairs *p)
{
    const Pair *best = NULL;
    char a[32], b[32];
    for (size_t i = 0; i <= p->mask; i++) {
        const Pair *q = &p->a[i];
        size_t n = q->count > 0 ? k->piece[q->left].n + k->piece[q->right].n : 99;
        if (n > 16 || (best && q->count < best->count)) continue;
        size_t n_best = best ? k->piece[best->left].n + k->piece[best->right].n : 0;
        if (best && q->count == best->count) {
            join(k, q, a), join(k, best, b);
            if (n > n_best || (n == n_best && memcmp(a, b, n) >= 0)) continue;
        }
        best = q;
    }
    return best;
}

// Sorts n texts and makes equal ones one; count[i] says how many there were. Returns how many different ones there are.
static size_t sort_and_count(Text *t, size_t n, long *count)
{
    size_t m = 0;
    if (n) qsort(t, n, sizeof *t, by_bytes);
    for (size_t i = 0; i < n; i++) {
        if (!m || !same(t[m - 1], t[i])) t[m] = t[i], count[m++] = 0;
        count[m - 1]++;
    }
    return m;
}

// Cuts t into pieces of text: words, or single characters.
static Text *cut(Text t, bool characters, size_t *n)
{
    Text *part = NULL;
    size_t cap = 0;
    *n = 0;
    for (size_t at = 0, len; at < t.n; at += len) {
        uint8_t c = (uint8_t)t.s[at];
        len = !characters ? word_length(t.s + at, t.n - at) : c < 0xC0 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
        if (len > t.n - at) len = t.n - at;
        part = grow(part, sizeof *part, &cap, *n + 1);
        part[(*n)++] = (Text){ t.s + at, len };
    }
    return part;
}

// Gives the last ids to the characters of t, most frequent first; what finds no room stays spelt in bytes. Returns their number.
static int add_characters(Tokenizer *k, Text t)
{
    size_t n;
    Text *c = cut(t, true, &n), *taken = zalloc((size_t)k->V, sizeof *taken);
    long *count = zalloc(n, sizeof *count);
    int n_taken = 0;
    n = sort_and_count(c, n, count);
    for (size_t i = 0; i < n; i++)                      // control characters, broken UTF-8 and GGUF's U+2581 stay bytes
        if (!character_class((uint8_t)c[i].s[0]) || !utf8_length(c[i]) || same(c[i], text(GGUF_SPACE))) count[i] = 0;
    while (n_taken < (k->V - FIRST_PIECE) / 2) {
        size_t best = 0;
        for (size_t i = 1; i < n; i++) if (count[i] > count[best]) best = i;
        if (!n || !count[best]) break;
        taken[n_taken++] = c[best];
        count[best] = 0;
    }
    for (int i = 0, id = k->V - n_taken; i < n_taken; i++, id++) set_piece(k, id, taken[i], (float)(FIRST_PIECE - id));
    free(c), free(count), free(taken);
    return n_taken;
}

// Merges the pair (left, right) to id in every word that has it, and keeps the pair counts up to date.
static void merge_everywhere(Word *w, size_t n, Pairs *p, int left, int right, int id)
{
    for (size_t i = 0; i < n; i++) {
        int at = 0, to = 0;
        while (at + 1 < w[i].n && (w[i].sym[at] != left || w[i].sym[at + 1] != right)) at++;
        if (at + 1 >= w[i].n) continue;
        count_pairs(p, &w[i], -1);
        for (at = 0; at < w[i].n; at++, to++) {
            bool hit = at + 1 < w[i].n && w[i].sym[at] == left && w[i].sym[at + 1] == right;
            w[i].sym[to] = hit ? id : w[i].sym[at];
            at += hit;
        }
        w[i].n = to;
        count_pairs(p, &w[i], +1);
    }
}

// Trains a vocabulary of V pieces on t and leaves it in k.
static void tokenizer_train(Tokenizer *k, Text t, int V)
{
    size_t n, n_symbols = 0;
    char name[32];
    tokenizer_alloc(k, V);
    set_piece(k, UNK, text("<unk>"), 0), set_piece(k, BOS, text("\n<s>\n"), 0), set_piece(k, EOS, text("\n</s>\n"), 0);
    for (int b = 0; b < 256; b++) snprintf(name, sizeof name, "<0x%02X>", b), set_piece(k, BYTE0 + b, text(name), 0);
    int end = V - add_characters(k, t);
    for (size_t i = 0; i <= k->mask; i++) k->slot[i] = -1;
    for (int id = end; id < V; id++) k->slot[find_slot(k, k->piece[id])] = id;

    Text *part = cut(t, false, &n);
    long *count = zalloc(n, sizeof *count);
    n = sort_and_count(part, n, count);
    Word *w = zalloc(n, sizeof *w);
    for (size_t i = 0; i < n; i++) {
        Ids ids = { 0 };
        encode_raw(k, part[i], &ids);                   // there are no merges yet: characters and bytes
        w[i] = (Word){ ids.a, ids.n, count[i] };
        n_symbols += (size_t)ids.n;
    }
    Pairs pairs = { .mask = 1023 };
    while (pairs.mask < 8 * n_symbols) pairs.mask = 2 * pairs.mask + 1;    // a merge adds at most two pairs a joint
    pairs.a = zalloc(pairs.mask + 1, sizeof *pairs.a);
    for (size_t i = 0; i <= pairs.mask; i++) pairs.a[i].count = -1;
    for (size_t i = 0; i < n; i++) count_pairs(&pairs, &w[i], +1);

    for (int id = FIRST_PIECE; id < end; ) {
        const Pair *best = best_pair(k, &pairs);
        CHECK(best, "this text yields %d pieces only, %d were asked for; give more text or a smaller --vocab", id + V - end, V);
        int left = best->left, right = best->right;
        char joined[32];
        join(k, best, joined);
        Text piece = { joined, k->piece[left].n + k->piece[right].n };
        size_t slot = find_slot(k, piece);
        int known = k->slot[slot];                      // the same piece may come about twice: "a"+"bc" after "ab"+"c"
        if (known < 0) set_piece(k, id, piece, (float)(FIRST_PIECE - id)), k->slot[slot] = id;
        merge_everywhere(w, n, &pairs, left, right, known < 0 ? id++ : known);
    }
    for (size_t i = 0; i < n; i++) free(w[i].sym);
    free(part), free(count), free(w), free(pairs.a);
    tokenizer_index(k, "the new tokenizer");
}

/* ============================================================================================================
   Chapter 3. Kernels.  Each forward has its backward below it, and the backward quotes the line it differentiates. The matmul
   comes last. Skip the chapter if you trust a gradient check: tests/gradients.c holds every function here to one.

   One rule holds everywhere: the order of the additions behind a number depends neither on the number of threads nor on how
   many tokens are computed at once. So training is reproducible, and checking a draft gives the bits of plain decoding. */

#ifdef _OPENMP
static int max_threads(void) { return omp_get_max_threads(); }
static int team_size(void) { return omp_get_num_threads(); }
static int thread_rank(void) { return omp_get_thread_num(); }
#else
static int max_threads(void) { return 1; }
static int team_size(void) { return 1; }
static int thread_rank(void) { return 0; }
#endif

enum { LANES = 8 };                                     // sums run in 8 interleaved lanes: what one AVX2 register holds

static inline float add_lanes(const float s[LANES])
{
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

static inline float dot(const float *a, const float *b, int n)
{
    float s[LANES] = { 0 };
    int i = 0;
    for (; i + LANES <= n; i += LANES) for (int l = 0; l < LANES; l++) s[l] += a[i + l] * b[i + l];
    for (int l = 0; i < n; i++, l++) s[l] += a[i] * b[i];
    return add_lanes(s);
}

// e^x to 2 units in the last place, in plain C that compilers vectorize: 2^n by the exponent's bits, the rest by a polynomial.
static inline float exp_f32(float x)
{
    float y = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float n = (y * 1.44269504f + 12582912.0f) - 12582912.0f;              // round(y / ln 2): 1.5 * 2^23 pushes the fraction out
    float r = (y - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    union { uint32_t u; float f; } scale = { (uint32_t)((int32_t)n + 127) << 23 };
    return x < -87.0f ? 0.0f : p * scale.f;
}

// RMSNorm over each of T rows: y = x * r * w with r = 1 / sqrt(mean(x^2) + eps); r[T] is kept for the backward pass.
static void rmsnorm(float *y, float *r, const float *x, const float *w, int T, int C, float eps)
{
    #pragma omp parallel for schedule(static) if ((long)T * C > 16384)
    for (int t = 0; t < T; t++) {
        const float *xt = x + (size_t)t * C;
        float *yt = y + (size_t)t * C;
        r[t] = 1.0f / sqrtf(dot(xt, xt, C) / (float)C + eps);
        for (int i = 0; i < C; i++) yt[i] = xt[i] * r[t] * w[i];
    }
}

// y = x r w:   dx += r (dy w - x r^2 mean(dy w x)),   dw += sum over rows of dy x r
static void rmsnorm_backward(float *dx, float *dw, const float *dy, const float *x, const float *r, const float *w, int T, int C)
{
    #pragma omp parallel for schedule(static)
    for (int t = 0; t < T; t++) {
        const float *xt = x + (size_t)t * C, *dyt = dy + (size_t)t * C;
        float *dxt = dx + (size_t)t * C, s[LANES] = { 0 };
        int i = 0;
        for (; i + LANES <= C; i += LANES) for (int l = 0; l < LANES; l++) s[l] += dyt[i + l] * w[i + l] * xt[i + l];
        for (int l = 0; i < C; i++, l++) s[l] += dyt[i] * w[i] * xt[i];
        float m = add_lanes(s) / (float)C * r[t] * r[t];
        for (i = 0; i < C; i++) dxt[i] += r[t] * (dyt[i] * w[i] - xt[i] * m);
    }
    #pragma omp parallel for schedule(static)
    for (int i0 = 0; i0 < C; i0 += 16)                  // a thread owns columns of dw and walks down the rows in order
        for (int t = 0; t < T; t++)
            for (int i = i0; i < i0 + 16 && i < C; i++) dw[i] += dy[(size_t)t * C + i] * x[(size_t)t * C + i] * r[t];
}

// Rotary position embedding, in place: in every head the pair (2i, 2i+1) of q and k turns by the angle pos * base^(-2i/hs).
// rows are ld apart; the first n_heads * hs values of a row are turned. angle[pos][hs/2] holds (cos, sin). sign -1 turns back.
static void rope(float *x, const int *pos, const float *angle, int T, int ld, int n_heads, int hs, float sign)
{
    #pragma omp parallel for schedule(static) if (T > 16)
    for (int t = 0; t < T; t++) {
        const float *a = angle + (size_t)pos[t] * hs;
        for (int h = 0; h < n_heads; h++) {
            float *v = x + (size_t)t * ld + h * hs;
            for (int i = 0; i < hs; i += 2) {
                float c = a[i], s = sign * a[i + 1], v0 = v[i], v1 = v[i + 1];
                v[i] = v0 * c - v1 * s;
                v[i + 1] = v0 * s + v1 * c;
            }
        }
    }
}
// A rotation's transpose is the rotation back, so rope's backward is rope with sign -1.

// SwiGLU: gu[T][2F] holds gate and up side by side;  y[T][F] = silu(g) u  with  silu(g) = g / (1 + e^-g).
static void swiglu(float *y, const float *gu, int T, int F)
{
    #pragma omp parallel for schedule(static) if ((long)T * F > 16384)
    for (int t = 0; t < T; t++) {
        const float *g = gu + (size_t)t * 2 * F, *u = g + F;
        float *yt = y + (size_t)t * F;
        for (int i = 0; i < F; i++) yt[i] = g[i] / (1.0f + exp_f32(-g[i])) * u[i];
    }
}

// y = silu(g) u:   du = dy silu(g),   dg = dy u s (1 + g (1 - s))  with s = 1 / (1 + e^-g).   dgu replaces gu.
static void swiglu_backward(float *gu, const float *dy, int T, int F)
{
    #pragma omp parallel for schedule(static)
    for (int t = 0; t < T; t++) {
        float *g = gu + (size_t)t * 2 * F, *u = g + F;
        const float *dyt = dy + (size_t)t * F;
        for (int i = 0; i < F; i++) {
            float s = 1.0f / (1.0f + exp_f32(-g[i])), du = dyt[i] * g[i] * s;
            g[i] = dyt[i] * u[i] * s * (1.0f + g[i] * (1.0f - s));
            u[i] = du;
        }
    }
}

// Softmax of x[0..n) in place; x must have room up to the next multiple of 8. Returns max and 1/sum through *m and *inv.
static void softmax(float *x, int n, float *m, float *inv)
{
    float s[LANES], top[LANES];
    int n8 = (n + LANES - 1) / LANES * LANES;
    for (int i = n; i < n8; i++) x[i] = -INFINITY;
    for (int l = 0; l < LANES; l++) s[l] = 0, top[l] = -INFINITY;
    for (int i = 0; i < n8; i += LANES) for (int l = 0; l < LANES; l++) top[l] = x[i + l] > top[l] ? x[i + l] : top[l];
    *m = top[0];
    for (int l = 1; l < LANES; l++) if (top[l] > *m) *m = top[l];
    for (int i = 0; i < n8; i += LANES) for (int l = 0; l < LANES; l++) s[l] += x[i + l] = exp_f32(x[i + l] - *m);
    *inv = 1.0f / add_lanes(s);
    for (int i = 0; i < n8; i++) x[i] *= *inv;
}

// Cross-entropy of n rows of logits[n][ld] (V of them used) against target[n]: nll[i] = - log softmax(logits[i])[target[i]].
// The gradient of the mean, (softmax - one_hot) / n_total, replaces the logits.
static void cross_entropy(float *logits, double *nll, const int *target, int n, int V, int ld, int n_total)
{
    float scale = 1.0f / (float)n_total;
    #pragma omp parallel for schedule(static)
    for (int i = 0; i < n; i++) {
        float *z = logits + (size_t)i * ld, m, inv, zt = z[target[i]];
        softmax(z, V, &m, &inv);
        nll[i] = (double)m - (double)zt - log((double)inv);
        for (int j = 0; j < V; j++) z[j] *= scale;
        z[target[i]] -= scale;
    }
}

/* The matmul.  C[M][N] (+)= A[M][K] B[K][N], where A and B are views with any strides, so that one function serves
       forward  Y = X W^T         (W[out][in] as in every checkpoint),
       backward dX = dY W   and   dW += dY^T X.
   The work is cut so that each level of the machine holds what it repeats: a tile of 6 x 16 results lives in 12 of the 16 AVX2
   registers; the 16-wide panel of B that it walks along (KC rows, 16 KB) lives in the L1 cache; MC rows of A live in L2.
   Panels are copied ("packed") into the order in which the tile reads them. docs/matmul.md derives the numbers. */

enum { MR = 6, NR = 16, KC = 256, MC = 96 };

typedef struct { const float *p; ptrdiff_t row, col; } View;     // element (i, j) is p[i * row + j * col]

// c[mr][16] (+)= a[k][mr]^T b[k][16]. The one place with intrinsics; every sum runs over k in order, one fused multiply-add each.
#if defined(__AVX2__) && defined(__FMA__) && !defined(PORTABLE)
#include <immintrin.h>
static inline __attribute__((always_inline)) void tile(const int mr, int k, const float *a, const float *b, float *c, size_t ldc, bool add)
{
    __m256 r[MR][2];
    for (int i = 0; i < mr; i++) r[i][0] = r[i][1] = _mm256_setzero_ps();
    for (int i = 0; i < mr; i++) __builtin_prefetch(c + i * ldc, 1), __builtin_prefetch(c + i * ldc + 15, 1);
    for (int p = 0; p < k; p++, a += mr, b += NR) {
        __m256 b0 = _mm256_loadu_ps(b), b1 = _mm256_loadu_ps(b + 8);
        #pragma GCC unroll 6
        for (int i = 0; i < mr; i++) {
            __m256 x = _mm256_broadcast_ss(a + i);
            r[i][0] = _mm256_fmadd_ps(x, b0, r[i][0]);
            r[i][1] = _mm256_fmadd_ps(x, b1, r[i][1]);
        }
    }
    #pragma GCC unroll 6
    for (int i = 0; i < mr; i++, c += ldc) {
        if (add) r[i][0] = _mm256_add_ps(r[i][0], _mm256_loadu_ps(c)), r[i][1] = _mm256_add_ps(r[i][1], _mm256_loadu_ps(c + 8));
        _mm256_storeu_ps(c, r[i][0]), _mm256_storeu_ps(c + 8, r[i][1]);
    }
}
#else
static inline void tile(const int mr, int k, const float *a, const float *b, float *c, size_t ldc, bool add)
{
    float r[MR][NR] = { { 0 } };
    for (int p = 0; p < k; p++, a += mr, b += NR)
        for (int i = 0; i < mr; i++)
            for (int j = 0; j < NR; j++) r[i][j] += a[i] * b[j];
    for (int i = 0; i < mr; i++)
        for (int j = 0; j < NR; j++) c[i * ldc + j] = r[i][j] + (add ? c[i * ldc + j] : 0);
}
#endif

// One or six rows: the compiler gets both as constants.
static void tile_rows(int rows, int k, const float *a, const float *b, float *c, size_t ldc, bool add)
{
    if (rows == 1) tile(1, k, a, b, c, ldc, add);
    else tile(MR, k, a, b, c, ldc, add);
}

// Packs columns [j, j + 16) of rows [p0, p0 + k) of B as panel[k][16]; columns beyond N become zero.
static void pack_b(float *panel, View B, int p0, int k, int j, int N)
{
    const float *s = B.p + p0 * B.row + j * B.col;
    int n = N - j < NR ? N - j : NR;
    if (n == NR && B.col == 1) { for (int p = 0; p < k; p++) memcpy(panel + p * NR, s + p * B.row, NR * sizeof *s); return; }
    for (int q = 0; q < k; q += 16)                     // in squares of 16: a cache line read is used up before the next
        for (int i = 0; i < NR; i++)
            for (int p = q; p < q + 16 && p < k; p++) panel[p * NR + i] = i < n ? s[p * B.row + i * B.col] : 0;
}

// Packs rows [i, i + mr) of A, columns [p0, p0 + k), as panel[k][mr]; rows beyond M become zero.
static void pack_a(float *panel, View A, int i, int M, int p0, int k, int mr)
{
    const float *s = A.p + i * A.row + p0 * A.col;
    int m = M - i < mr ? M - i : mr;
    if (m == MR) for (int p = 0; p < k; p++) for (int u = 0; u < MR; u++) panel[p * MR + u] = s[u * A.row + p * A.col];
    else for (int p = 0; p < k; p++) for (int u = 0; u < mr; u++) panel[p * mr + u] = u < m ? s[u * A.row + p * A.col] : 0;
}

// The size in floats of a packed K x N matrix.
static size_t packed_size(int K, int N) { return (size_t)K * ((size_t)(N + NR - 1) / NR * NR); }

static void pack_all(float *packed, View B, int K, int N)
{
    int panels = (N + NR - 1) / NR;
    #pragma omp parallel for schedule(static)
    for (int j = 0; j < panels; j++)
        for (int p0 = 0; p0 < K; p0 += KC) {
            int k = K - p0 < KC ? K - p0 : KC;
            pack_b(packed + (size_t)p0 * panels * NR + (size_t)j * k * NR, B, p0, k, j * NR, N);
        }
}

// The share of thread `rank` of `size` in C (+)= A B. B is packed already where packed is given, else all threads pack it
// into shared[KC x N]. mine[(MC + MR) x KC] is this thread's own. Results are cut by rows where C is tall, else by panels.
static void gemm(int rank, int size, int M, int N, int K, View A, View B, const float *packed, float *C, size_t ldc, bool add,
                 float *shared, float *mine)
{
    int panels = (N + NR - 1) / NR, mr = M == 1 ? 1 : MR, tiles = (M + mr - 1) / mr;
    bool by_rows = tiles >= 2 * size;
    int m0 = by_rows ? (int)((long)tiles * rank / size) * mr : 0, m1 = by_rows ? (int)((long)tiles * (rank + 1) / size) * mr : M;
    int j0 = by_rows ? 0 : (int)((long)panels * rank / size), j1 = by_rows ? panels : (int)((long)panels * (rank + 1) / size);
    if (m1 > M) m1 = M;
    for (int p0 = 0; p0 < K; p0 += KC) {
        int k = K - p0 < KC ? K - p0 : KC;
        const float *block = packed ? packed + (size_t)p0 * panels * NR : shared;
        if (!packed) {
            for (int j = (int)((long)panels * rank / size); j < (int)((long)panels * (rank + 1) / size); j++)
                pack_b(shared + (size_t)j * k * NR, B, p0, k, j * NR, N);
            if (size > 1) {
                #pragma omp barrier
            }
        }
        for (int i0 = m0; i0 < m1; i0 += MC) {
            int m = m1 - i0 < MC ? m1 - i0 : MC;
            for (int i = 0; i < m; i += mr) pack_a(mine + (size_t)i * k, A, i0 + i, m1, p0, k, mr);
            for (int j = j0; j < j1; j++)
                for (int i = 0; i < m; i += mr) {
                    float *c = C + (size_t)(i0 + i) * ldc + (size_t)j * NR, edge[MR * NR];
                    int rows = m - i < mr ? m - i : mr, cols = N - j * NR < NR ? N - j * NR : NR;
                    bool whole = rows == mr && cols == NR;
                    tile_rows(mr, k, mine + (size_t)i * k, block + (size_t)j * k * NR, whole ? c : edge, whole ? ldc : NR,
                              whole && (add || p0));
                    if (whole) continue;
                    for (int u = 0; u < rows; u++)
                        for (int v = 0; v < cols; v++) c[u * ldc + v] = edge[u * NR + v] + (add || p0 ? c[u * ldc + v] : 0);
                }
        }
        if (!packed && size > 1) {
            #pragma omp barrier
        }
    }
}

// Scratch memory of the kernels: what all threads share, and a part for each thread.
typedef struct { float *shared, *own; size_t own_size; } Scratch;

static float *own_scratch(const Scratch *s) { return s->own + (size_t)thread_rank() * s->own_size; }

// C[M][N] (+)= A[M][K] B[K][N] with all threads, or with one where starting the others would cost more than it brings.
static void matmul(const Scratch *s, float *C, size_t ldc, View A, View B, const float *packed, int M, int N, int K, bool add)
{
    #pragma omp parallel if ((double)M * N * K > 100e3)
    gemm(thread_rank(), team_size(), M, N, K, A, B, packed, C, ldc, add, s->shared, own_scratch(s));
}

// Y[T][N] (+)= X[T][K] W[N][K]^T, where packed may hold W packed.
static void linear(const Scratch *s, float *Y, const float *X, const float *W, const float *packed, int T, int N, int K, bool add)
{
    matmul(s, Y, (size_t)N, (View){ X, K, 1 }, (View){ W, 1, K }, packed, T, N, K, add);
}

// Y = X W^T:   dX (+)= dY W,   dW += dY^T X
static void linear_backward(const Scratch *s, float *dX, bool add, float *dW, const float *dY, const float *X, const float *W,
                            int T, int N, int K)
{
    matmul(s, dX, (size_t)K, (View){ dY, N, 1 }, (View){ W, K, 1 }, NULL, T, K, N, add);
    matmul(s, dW, (size_t)K, (View){ dY, 1, N }, (View){ X, K, 1 }, NULL, N, K, T, true);
}

/* Attention.  Each query looks at the keys of its own example up to its own position:
       s_j = q . k_j / sqrt(hs),   p = softmax(s),   o = sum_j p_j v_j.
   Keys and values are kept as packed panels, which is at once what the tile wants to read and the KV cache of generation: a
   new token adds a column to the keys and a row to the values. */

typedef struct {                                        // shape of attention in one layer
    int H, H_kv, hs, ld;                                // query heads, key/value heads, head size, row length of qkv: (H + 2 H_kv) hs
} Heads;

static size_t key_panels(int hs, int n) { return (size_t)(n + NR - 1) / NR * NR * (size_t)hs; }            // [n/16][hs][16]
static size_t value_panels(int hs, int n) { return (size_t)(hs + NR - 1) / NR * NR * (size_t)n; }          // [hs/16][n][16]

// Puts key and value number j into their panels; capacity is the number of values that a panel has room for.
static void cache_put(float *keys, float *values, int capacity, int j, const float *k, const float *v, int hs)
{
    float *kp = keys + (size_t)(j / NR) * NR * hs;
    if (j % NR == 0) memset(kp, 0, (size_t)NR * hs * sizeof *kp);          // no garbage beside the last key
    for (int i = 0; i < hs; i++) kp[i * NR + j % NR] = k[i];
    for (int i = 0; i < (hs + NR - 1) / NR * NR; i++)
        values[((size_t)(i / NR) * capacity + j) * NR + i % NR] = i < hs ? v[i] : 0;
}

// Queries [0, n) of one head, the first at position pos0, against keys and values [0, pos0 + n). q and out have rows q_ld and
// out_ld apart; stats[.][2] (every stats_ld floats) receives max and 1/sum of each softmax. own: scratch of this thread.
static void attend(float *out, int out_ld, float *stats, int stats_ld, const float *q, int q_ld, const float *keys, const float *values,
                   int capacity, int n, int pos0, int hs, float *own)
{
    int longest = (pos0 + n + NR - 1) / NR * NR, mr = n == 1 ? 1 : MR;
    float *qa = own, *s = qa + MR * hs, *pa = s + (size_t)MR * longest, o[MR * NR], scale = 1.0f / sqrtf((float)hs);
    for (int i0 = 0; i0 < n; i0 += mr) {
        int rows = n - i0 < mr ? n - i0 : mr, n_keys = pos0 + i0 + rows;
        for (int p = 0; p < hs; p++)
            for (int u = 0; u < mr; u++) qa[p * mr + u] = u < rows ? q[(size_t)(i0 + u) * q_ld + p] * scale : 0;
        for (int j = 0; j < n_keys; j += NR) tile_rows(mr, hs, qa, keys + (size_t)j * hs, s + j, (size_t)longest, false);
        for (int u = 0; u < mr; u++) {
            float *su = s + (size_t)u * longest, m, inv;
            int seen = u < rows ? pos0 + i0 + u + 1 : 0;               // causal: itself and what came before
            if (seen) {
                softmax(su, seen, &m, &inv);
                if (stats) stats[(size_t)(i0 + u) * stats_ld] = m, stats[(size_t)(i0 + u) * stats_ld + 1] = inv;
            }
            for (int j = 0; j < n_keys; j++) pa[j * mr + u] = j < seen ? su[j] : 0;
        }
        for (int d = 0; d < hs; d += NR) {
            tile_rows(mr, n_keys, pa, values + (size_t)d * capacity, o, NR, false);
            for (int u = 0; u < rows; u++)
                memcpy(out + (size_t)(i0 + u) * out_ld + d, o + u * NR, (size_t)(hs - d < NR ? hs - d : NR) * sizeof *o);
        }
    }
}

// out[T][H hs] from qkv[T][ld], example e being the tokens [start[e], start[e+1]). In generation there is one example, and its
// past stands in the cache (keys and values of this layer, capacity positions a head, `past` of them filled).
static void attention(const Scratch *scratch, float *out, float *stats, const float *qkv, Heads a, const int *start, int n_examples,
                      float *cache_k, float *cache_v, int capacity, int past)
{
    int jobs = n_examples * a.H_kv, group = a.H / a.H_kv;
    #pragma omp parallel for schedule(dynamic, 1) if (start[n_examples] > 16)
    for (int job = 0; job < jobs; job++) {
        int e = job / a.H_kv, g = job % a.H_kv, t0 = start[e], n = start[e + 1] - t0, room = cache_k ? capacity : n;
        float *own = own_scratch(scratch);
        float *keys = cache_k ? cache_k + (size_t)g * key_panels(a.hs, room) : own;
        float *values = cache_k ? cache_v + (size_t)g * value_panels(a.hs, room) : own + key_panels(a.hs, room);
        if (!cache_k) own = values + value_panels(a.hs, room);
        const float *row = qkv + (size_t)t0 * a.ld;
        for (int j = 0; j < n; j++) {
            const float *k = row + (size_t)j * a.ld + (size_t)(a.H + g) * a.hs, *v = k + (size_t)a.H_kv * a.hs;
            cache_put(keys, values, room, past + j, k, v, a.hs);
        }
        for (int h = g * group; h < (g + 1) * group; h++)
            attend(out + (size_t)t0 * a.H * a.hs + (size_t)h * a.hs, a.H * a.hs, stats ? stats + ((size_t)t0 * a.H + (size_t)h) * 2 : NULL, 2 * a.H,
                   row + (size_t)h * a.hs, a.ld, keys, values, room, n, past, a.hs, own);
    }
}

// o = P V, P = softmax(S), S = Q K^T / sqrt(hs):
//     dV += P^T dO,   dP = dO V^T,   dS = P (dP - rowsum(dO O)) / sqrt(hs),   dQ = dS K,   dK += dS^T Q.
// P is computed again from the saved max and 1/sum, QB queries at a time, so that memory grows with T and not with T^2.
enum { QB = 48 };

static size_t gemm_shared_size(int K, int N) { return packed_size(K < KC ? K : KC, N); }

// The part of softmax: m rows of P (holding q . k) and dS (holding dP) become what their names say; query u is number i0 + u.
static void softmax_backward(float *P, float *dS, int ld, const float *dO, const float *O, int C, const float *stats, int stats_ld,
                             int m, int i0, int hs)
{
    float scale = 1.0f / sqrtf((float)hs);
    for (int u = 0; u < m; u++, P += ld, dS += ld, dO += C, O += C, stats += stats_ld) {
        float D = dot(dO, O, hs);
        int seen = i0 + u + 1;
        for (int j = 0; j < seen; j++) P[j] = exp_f32(P[j] * scale - stats[0]) * stats[1];
        for (int j = 0; j < seen; j++) dS[j] = P[j] * (dS[j] - D) * scale;
        for (int j = seen; j < i0 + m; j++) P[j] = dS[j] = 0;
    }
}

// dqkv[T][ld] receives dQ, dK, dV of every example. Parallel over examples and key/value heads.
static void attention_backward(const Scratch *scratch, float *dqkv, const float *dout, const float *out, const float *stats,
                               const float *qkv, Heads a, const int *start, int n_examples)
{
    int group = a.H / a.H_kv, C = a.H * a.hs;
    #pragma omp parallel for schedule(dynamic, 1)
    for (int job = 0; job < n_examples * a.H_kv; job++) {
        int e = job / a.H_kv, g = job % a.H_kv, t0 = start[e], n = start[e + 1] - t0, ld = (n + NR - 1) / NR * NR;
        size_t shared_s = gemm_shared_size(a.hs, n), shared_o = gemm_shared_size(n, a.hs);
        float *P = own_scratch(scratch), *dS = P + (size_t)QB * ld, *shared = dS + (size_t)QB * ld;
        float *mine = shared + (shared_s > shared_o ? shared_s : shared_o);
        size_t k0 = (size_t)t0 * a.ld + (size_t)(a.H + g) * a.hs, v0 = k0 + (size_t)a.H_kv * a.hs;
        View K = { qkv + k0, a.ld, 1 }, Kt = { qkv + k0, 1, a.ld }, Vt = { qkv + v0, 1, a.ld };
        for (int j = 0; j < n; j++) {
            memset(dqkv + k0 + (size_t)j * a.ld, 0, (size_t)a.hs * sizeof *dqkv);
            memset(dqkv + v0 + (size_t)j * a.ld, 0, (size_t)a.hs * sizeof *dqkv);
        }
        for (int h = g * group; h < (g + 1) * group; h++)
            for (int i0 = 0; i0 < n; i0 += QB) {
                int m = n - i0 < QB ? n - i0 : QB, keys = i0 + m;
                size_t q0 = (size_t)(t0 + i0) * a.ld + (size_t)h * a.hs, o0 = (size_t)(t0 + i0) * C + (size_t)h * a.hs;
                View Q = { qkv + q0, a.ld, 1 }, dO = { dout + o0, C, 1 };
                gemm(0, 1, m, keys, a.hs, Q, Kt, NULL, P, (size_t)ld, false, shared, mine);
                gemm(0, 1, m, keys, a.hs, dO, Vt, NULL, dS, (size_t)ld, false, shared, mine);
                softmax_backward(P, dS, ld, dO.p, out + o0, C, stats + ((size_t)(t0 + i0) * a.H + (size_t)h) * 2, 2 * a.H, m, i0, a.hs);
                gemm(0, 1, m, a.hs, keys, (View){ dS, ld, 1 }, K, NULL, dqkv + q0, (size_t)a.ld, false, shared, mine);
                gemm(0, 1, keys, a.hs, m, (View){ dS, 1, ld }, Q, NULL, dqkv + k0, (size_t)a.ld, true, shared, mine);
                gemm(0, 1, keys, a.hs, m, (View){ P, 1, ld }, dO, NULL, dqkv + v0, (size_t)a.ld, true, shared, mine);
            }
    }
}

// The scratch memory, in floats, that one thread needs for a pass over examples of at most n tokens.
static size_t own_scratch_size(int hs, int n)
{
    size_t ld = (size_t)(n + NR - 1) / NR * NR, a = (size_t)(MC + MR) * KC, s = gemm_shared_size(hs, n), o = gemm_shared_size(n, hs);
    size_t forward = key_panels(hs, n) + value_panels(hs, n) + MR * ((size_t)hs + 2 * ld), backward = 2 * QB * ld + (s > o ? s : o) + a;
    return forward > backward ? forward : backward;
}

/* ============================================================================================================
   Chapter 4. Model.  Llama's transformer: RMSNorm, rotary embeddings, SwiGLU, grouped-query attention, no biases, the head tied
   to the embeddings or not. Gives the configuration, the one table of tensors, initial weights, and GGUF files that llama.cpp
   and all that stands on it open unchanged. Skip the file format if you only want the mathematics. */

typedef struct {
    int V, C, L, H, H_kv, F, context;   // vocabulary, dim, layers, heads, key/value heads, hidden, longest example
    bool tied;                          // is the output head the embedding matrix?
    float eps, theta;                   // of RMSNorm; base of the rotary angles
} Config;

typedef struct { char name[40]; int rows, cols; size_t at; } Tensor;    // a matrix W[rows][cols] (a norm: rows = 1) at params + at

typedef struct {                        // where a layer's weights begin in the arena, and its matrices in the packed copy
    size_t attn_norm, qkv, o, ffn_norm, gate_up, down;
    size_t packed_qkv, packed_o, packed_gate_up, packed_down;
} LayerAt;

// What a pass computes and the backward pass needs. Per layer arrays have L parts, one after the other.
typedef struct {
    int T, n_out, longest;              // room: tokens, positions with logits, tokens of one example with its past
    bool training;
    float *x;                           // [L + 1][T][C] the residual stream before each layer; in generation only [2][T][C]
    float *mid;                         // [L][T][C]     ... after attention
    float *norm1, *norm2, *r1, *r2;     // [L][T][C], [L][T]
    float *qkv, *att, *stats;           // [L][T][(H + 2 H_kv) hs], [L][T][C], [L][T][H][2]
    float *gate_up, *act;               // [L][T][2 F], [L][T][F]
    float *picked;                      // [n_out][C]     att of the last layer, where a logit is wanted
    float *last_norm, *r;               // [n_out][C], [n_out]: what the classifier sees
    float *logits;                      // [n_out][V8]; V8 = V rounded up to 8
    float *dx, *dbig, *dsmall;          // gradients: [T][C], [T][max(2 F, qkv)], [T][C]
    float *arena;
    Scratch scratch;
} Acts;

struct Model {
    Config c;
    Tokenizer tok;
    char *template, *template_sft;      // prompts with and without {answer}
    char objective[16];                 // what it was trained for: sft, warmup, aligner; empty where unknown
    long step;                          // optimiser steps behind these weights (ties checkpoint and optimiser state together)
    Tensor *tensor;                     // the one table: GGUF names, shapes, places; params, grads and moments all follow it
    LayerAt *layer;
    size_t n_tensors, n_params, embd_at, norm_at, out_at, packed_out;
    float *params, *grads;              // grads only while training
    float *packed;                      // weights in the matmul's panels, for generation; NULL while they are out of date
    float *angle;                       // [context][hs / 2][2] cosines and sines of the rotary embedding
    Acts acts;
};

static int head_size(const Config *c) { return c->C / c->H; }
static int kv_dim(const Config *c) { return head_size(c) * c->H_kv; }
static int qkv_dim(const Config *c) { return c->C + 2 * kv_dim(c); }

// Refuses a shape that no model of this family has; everything that is computed from a configuration later fits a size_t.
static void config_check(const Config *c, const char *where)
{
#define IN(field, low, high, name) CHECK(c->field >= low && c->field <= high, "%s: " name " is %d; %d to %d was expected", where, c->field, low, high)
    IN(V, FIRST_PIECE, MAX_VOCAB, "the vocabulary size");
    IN(C, 2, 16384, "dim");
    IN(L, 1, 256, "the number of layers");
    IN(H, 1, 1024, "the number of heads");
    IN(H_kv, 1, c->H, "the number of key/value heads");
    IN(F, 1, 1 << 17, "the hidden size");
    IN(context, 1, 1 << 20, "the context");
#undef IN
    CHECK(c->C % c->H == 0 && head_size(c) % 2 == 0, "%s: dim %d over %d heads is no even head size", where, c->C, c->H);
    CHECK(c->H % c->H_kv == 0, "%s: %d heads cannot share %d key/value heads evenly", where, c->H, c->H_kv);
    CHECK(c->eps > 0 && c->eps < 1, "%s: the epsilon of RMSNorm is %g; a small positive number was expected", where, (double)c->eps);
    CHECK(c->theta >= 1 && c->theta < 1e9f, "%s: the rotary base is %g; 10000 is usual", where, (double)c->theta);
}

static size_t add_tensor(Model *m, const char *name, int layer, int rows, int cols)
{
    Tensor *t = &m->tensor[m->n_tensors++];
    if (layer < 0) snprintf(t->name, sizeof t->name, "%s.weight", name);
    else snprintf(t->name, sizeof t->name, "blk.%d.%s.weight", layer, name);
    t->rows = rows, t->cols = cols, t->at = m->n_params;
    m->n_params += (size_t)rows * (size_t)cols;
    return t->at;
}

// Lays out the table of tensors for m->c and allocates the weights. q, k, v follow each other, and so do gate and up: each
// group is one matrix to the matmul.
static void model_alloc(Model *m)
{
    const Config *c = &m->c;
    m->tensor = zalloc((size_t)c->L * 9 + 3, sizeof *m->tensor);
    m->layer = zalloc((size_t)c->L, sizeof *m->layer);
    m->embd_at = add_tensor(m, "token_embd", -1, c->V, c->C);
    for (int l = 0; l < c->L; l++) {
        LayerAt *y = &m->layer[l];
        y->attn_norm = add_tensor(m, "attn_norm", l, 1, c->C);
        y->qkv = add_tensor(m, "attn_q", l, c->C, c->C);
        add_tensor(m, "attn_k", l, kv_dim(c), c->C);
        add_tensor(m, "attn_v", l, kv_dim(c), c->C);
        y->o = add_tensor(m, "attn_output", l, c->C, c->C);
        y->ffn_norm = add_tensor(m, "ffn_norm", l, 1, c->C);
        y->gate_up = add_tensor(m, "ffn_gate", l, c->F, c->C);
        add_tensor(m, "ffn_up", l, c->F, c->C);
        y->down = add_tensor(m, "ffn_down", l, c->C, c->F);
        y->packed_qkv = m->packed_out;
        y->packed_o = y->packed_qkv + packed_size(c->C, qkv_dim(c));
        y->packed_gate_up = y->packed_o + packed_size(c->C, c->C);
        y->packed_down = y->packed_gate_up + packed_size(c->C, 2 * c->F);
        m->packed_out = y->packed_down + packed_size(c->F, c->C);
    }
    m->norm_at = add_tensor(m, "output_norm", -1, 1, c->C);
    m->out_at = c->tied ? m->embd_at : add_tensor(m, "output", -1, c->V, c->C);
    m->params = zalloc(m->n_params, sizeof *m->params);
    int hs = head_size(c);
    m->angle = zalloc((size_t)c->context * hs, sizeof *m->angle);
    for (int p = 0; p < c->context; p++)
        for (int i = 0; i < hs; i += 2) {
            double a = p * pow((double)c->theta, -(double)i / hs);
            m->angle[(size_t)p * hs + i] = (float)cos(a), m->angle[(size_t)p * hs + i + 1] = (float)sin(a);
        }
}

static void acts_free(Acts *a)
{
    free(a->arena), free(a->scratch.own), free(a->scratch.shared);
    *a = (Acts){ 0 };
}

static void model_free(Model *m)
{
    acts_free(&m->acts);
    tokenizer_free(&m->tok);
    free(m->template), free(m->template_sft), free(m->tensor), free(m->layer);
    free(m->params), free(m->grads), free(m->packed), free(m->angle);
    *m = (Model){ 0 };
}

// Initial weights: norms 1, embeddings N(0, 1/C) (a tied head then starts with logits of size one), matrices N(0, 1/(3 cols)).
static void model_init(Model *m, uint64_t seed)
{
    for (size_t i = 0; i < m->n_tensors; i++) {
        Tensor *t = &m->tensor[i];
        bool embedding = t->at == m->embd_at;
        double std = sqrt((embedding ? 1.0 : 1.0 / 3.0) / t->cols);
        for (size_t j = 0; j < (size_t)t->rows * (size_t)t->cols; j++) {
            if (t->rows == 1) { m->params[t->at + j] = 1; continue; }
            double u = 1.0 - random_unit(&seed), v = random_unit(&seed);           // Box-Muller
            m->params[t->at + j] = (float)(std * sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
        }
    }
}

/* GGUF version 3.  A header, keys with values, a list of tensors, the data. The readers below compare every length with what
   is left of the file before they use it. */

enum { T_U32 = 4, T_I32 = 5, T_F32 = 6, T_BOOL = 7, T_STRING = 8, T_ARRAY = 9 };
enum { GGML_F32 = 0, GGML_F16 = 1, GGML_Q8_0 = 8, GGML_BF16 = 30 };

static uint64_t read_u64(File *f, const char *what) { uint64_t v; memcpy(&v, need(f, 8, what), 8); return v; }

static Text read_string(File *f, const char *what)
{
    uint64_t n = read_u64(f, what);
    return (Text){ (const char *)need(f, n, what), (size_t)n };
}

static size_t type_size(uint32_t type)                  // of a GGUF value; 0 for strings, arrays and unknown types
{
    static const uint8_t size[13] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
    return type < 13 ? size[type] : 0;
}

typedef struct { Text key; uint32_t type, of; uint64_t n; size_t at; } Value;   // of, n: for arrays; at: where the value begins
typedef struct { Value *a; int n; } Values;

static void skip_value(File *f, Value *v)
{
    v->at = f->at;
    if (v->type == T_STRING) { read_string(f, "a string"); return; }
    if (v->type != T_ARRAY) {
        CHECK(type_size(v->type), "%s: key %.*s has the unknown type %u", f->path, (int)v->key.n, v->key.s, v->type);
        need(f, type_size(v->type), "a value");
        return;
    }
    v->of = read_u32(f, "an array"), v->n = read_u64(f, "an array"), v->at = f->at;
    size_t size = type_size(v->of);
    CHECK(size || v->of == T_STRING, "%s: key %.*s is an array of the unsupported type %u", f->path, (int)v->key.n, v->key.s, v->of);
    CHECK(v->n <= (f->n - f->at) / (size ? size : 8), "%s: key %.*s claims %llu elements, more than the file holds", f->path,
          (int)v->key.n, v->key.s, (unsigned long long)v->n);
    if (size) need(f, v->n * size, "an array");
    else for (uint64_t i = 0; i < v->n; i++) read_string(f, "an array of strings");
}

static const Value *find_value(const Values *v, const char *key)
{
    for (int i = 0; i < v->n; i++) if (same(v->a[i].key, text(key))) return &v->a[i];
    return NULL;
}

// The value of a key, which must have the given type; NULL where it is absent and need not be there.
static const Value *get_value(const File *f, const Values *v, const char *key, uint32_t type, bool required)
{
    const Value *x = find_value(v, key);
    CHECK(x || !required, "%s: the key %s is missing; is it a model of the llama architecture?", f->path, key);
    CHECK(!x || x->type == type, "%s: the key %s has type %u, %u was expected", f->path, key, x ? x->type : 0, type);
    return x;
}

static int get_int(const File *f, const Values *v, const char *key, int otherwise)      // otherwise < 0: the key must be there
{
    const Value *x = get_value(f, v, key, T_U32, otherwise < 0);
    uint32_t u;
    if (!x) return otherwise;
    memcpy(&u, f->p + x->at, 4);
    CHECK(u <= INT_MAX, "%s: %s is %u, which is too large", f->path, key, u);
    return (int)u;
}

static float get_float(const File *f, const Values *v, const char *key, float otherwise)        // NAN: the key must be there
{
    const Value *x = get_value(f, v, key, T_F32, isnan(otherwise));
    if (x) memcpy(&otherwise, f->p + x->at, 4);
    return otherwise;
}

static char *get_string(const File *f, const Values *v, const char *key)
{
    const Value *x = get_value(f, v, key, T_STRING, false);
    if (!x) return NULL;
    File at = *f;
    Buf own = { 0 };
    at.at = x->at;
    Text t = read_string(&at, key);
    CHECK(!memchr(t.s, 0, t.n), "%s: the value of %s holds a zero byte", f->path, key);
    buf_add(&own, t.s, t.n);
    return own.s;
}

// In GGUF a space inside a piece is U+2581, and <s> and </s> stand without newlines.
static Buf gguf_piece(Text t, bool to_gguf)
{
    Text from = text(to_gguf ? " " : GGUF_SPACE), to = text(to_gguf ? GGUF_SPACE : " ");
    Buf out = { 0 };
    buf_add(&out, "", 0);
    for (size_t i = 0; i < t.n; ) {
        bool hit = t.n - i >= from.n && !memcmp(t.s + i, from.s, from.n);
        buf_add(&out, hit ? to.s : t.s + i, hit ? to.n : 1);
        i += hit ? from.n : 1;
    }
    return out;
}

static void load_tokenizer(Tokenizer *k, File *f, const Values *v)
{
    const Value *tokens = get_value(f, v, "tokenizer.ggml.tokens", T_ARRAY, true);
    const Value *scores = get_value(f, v, "tokenizer.ggml.scores", T_ARRAY, true);
    char *kind = get_string(f, v, "tokenizer.ggml.model");
    CHECK(kind && !strcmp(kind, "llama"), "%s: the tokenizer is \"%s\"; only \"llama\" (SentencePiece BPE) is read", f->path, kind ? kind : "absent");
    free(kind);
    CHECK(tokens->of == T_STRING && tokens->n >= FIRST_PIECE && tokens->n <= MAX_VOCAB, "%s: %llu tokens of type %u; %d to %d strings were "
          "expected", f->path, (unsigned long long)tokens->n, tokens->of, FIRST_PIECE, MAX_VOCAB);
    CHECK(scores->of == T_F32 && scores->n == tokens->n, "%s: %llu scores of type %u for %llu tokens", f->path,
          (unsigned long long)scores->n, scores->of, (unsigned long long)tokens->n);
    CHECK(get_int(f, v, "tokenizer.ggml.bos_token_id", BOS) == BOS && get_int(f, v, "tokenizer.ggml.eos_token_id", EOS) == EOS,
          "%s: <s> and </s> are expected to be tokens %d and %d", f->path, BOS, EOS);
    tokenizer_alloc(k, (int)tokens->n);
    File at = *f;
    at.at = tokens->at;
    for (int i = 0; i < k->V; i++) {
        float score;
        memcpy(&score, f->p + scores->at + 4 * (size_t)i, 4);
        Text t = read_string(&at, "a token");
        Buf piece = gguf_piece(t, false);
        if (i == BOS || i == EOS) piece.n = 0, buf_puts(&piece, i == BOS ? "\n<s>\n" : "\n</s>\n");
        set_piece(k, i, (Text){ piece.s, piece.n }, score);
        free(piece.s);
    }
    tokenizer_index(k, f->path);
}

static float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h >> 15) << 31, e = h >> 10 & 31, m = h & 1023;
    if (!e) return (sign ? -1.0f : 1.0f) * (float)m * 0x1p-24f;
    union { uint32_t u; float f; } v = { sign | (e == 31 ? 255u : e + 112) << 23 | m << 13 };
    return v.f;
}

// n weights of a GGUF tensor type to f32; n is a multiple of 32 for Q8_0.
static void dequantize(float *out, const uint8_t *p, uint32_t type, size_t n)
{
    uint16_t h;
    if (type == GGML_F32) memcpy(out, p, n * 4);
    else for (size_t i = 0; i < n; i++) {
        if (type == GGML_Q8_0) {                        // blocks of { f16 scale, 32 x i8 }
            memcpy(&h, p + i / 32 * 34, 2);
            out[i] = f16_to_f32(h) * (float)(int8_t)p[i / 32 * 34 + 2 + i % 32];
            continue;
        }
        memcpy(&h, p + 2 * i, 2);
        union { uint32_t u; float f; } bf16 = { (uint32_t)h << 16 };
        out[i] = type == GGML_F16 ? f16_to_f32(h) : bf16.f;
    }
}

// Reads n_tensors entries and their data into m->params. Each tensor of the table must be there once, with its exact shape.
static void load_tensors(Model *m, File *f, uint64_t n_tensors, uint64_t alignment)
{
    typedef struct { const Tensor *t; uint32_t type; uint64_t offset, bytes; } Entry;
    CHECK(n_tensors == m->n_tensors, "%s: %llu tensors; a llama of this shape has %zu", f->path, (unsigned long long)n_tensors, m->n_tensors);
    Entry *e = zalloc(m->n_tensors, sizeof *e);
    bool *seen = zalloc(m->n_tensors, sizeof *seen);
    for (size_t i = 0; i < m->n_tensors; i++) {
        Text name = read_string(f, "the name of a tensor");
        size_t j = 0;
        while (j < m->n_tensors && !same(name, text(m->tensor[j].name))) j++;
        CHECK(j < m->n_tensors && !seen[j], "%s: the tensor \"%.*s\" is %s", f->path, name.n < 64 ? (int)name.n : 64, name.s,
              j < m->n_tensors ? "there twice" : "no part of a llama");
        seen[j] = true;
        const Tensor *t = e[i].t = &m->tensor[j];
        uint32_t n_dims = read_u32(f, "a tensor");
        CHECK(n_dims == (t->rows == 1 ? 1 : 2), "%s: %s has %u dimensions", f->path, t->name, n_dims);
        uint64_t cols = read_u64(f, "a shape"), rows = n_dims == 2 ? read_u64(f, "a shape") : 1;
        CHECK(cols == (uint64_t)t->cols && rows == (uint64_t)t->rows, "%s: %s is %llu x %llu; the configuration says %d x %d", f->path, t->name,
              (unsigned long long)rows, (unsigned long long)cols, t->rows, t->cols);
        e[i].type = read_u32(f, "a tensor"), e[i].offset = read_u64(f, "a tensor");
        uint64_t n = rows * cols;
        bool q8 = e[i].type == GGML_Q8_0;
        CHECK(e[i].type == GGML_F32 || e[i].type == GGML_F16 || e[i].type == GGML_BF16 || (q8 && cols % 32 == 0),
              "%s: %s has tensor type %u; F32 (0), F16 (1), Q8_0 (8) and BF16 (30) are read", f->path, t->name, e[i].type);
        e[i].bytes = q8 ? n / 32 * 34 : n * (e[i].type == GGML_F32 ? 4 : 2);
    }
    need(f, (alignment - f->at % alignment) % alignment, "the padding");
    size_t data = f->at;
    for (size_t i = 0; i < m->n_tensors; i++) {
        CHECK(e[i].offset == f->at - data, "%s: %s begins at offset %llu; %zu was expected", f->path, e[i].t->name,
              (unsigned long long)e[i].offset, f->at - data);
        dequantize(m->params + e[i].t->at, need(f, e[i].bytes, e[i].t->name), e[i].type, (size_t)e[i].t->rows * (size_t)e[i].t->cols);
        uint64_t pad = (alignment - e[i].bytes % alignment) % alignment;
        if (i + 1 < m->n_tensors || f->n - f->at >= pad) need(f, pad, "the padding");      // some writers do not pad the end
    }
    CHECK(f->n - f->at < alignment, "%s: %zu bytes stand behind the last tensor", f->path, f->n - f->at);
    free(e), free(seen);
}

// Reads a GGUF file of architecture llama. Dies with one message on anything that is not exactly that.
static void model_load(Model *m, const char *path)
{
    *m = (Model){ 0 };
    Buf bytes = read_all(path, NULL);
    File f = { path, (const uint8_t *)bytes.s, bytes.n, 0 };
    CHECK(bytes.n >= 4 && !memcmp(need(&f, 4, "the magic"), "GGUF", 4), "%s: not a GGUF file (it should begin with \"GGUF\")", path);
    uint32_t version = read_u32(&f, "the header");
    CHECK(version == 3, "%s: GGUF version %u; version 3 was expected", path, version);
    uint64_t n_tensors = read_u64(&f, "the header"), n_values = read_u64(&f, "the header");
    CHECK(n_values <= 1024, "%s: %llu keys; at most 1024 were expected", path, (unsigned long long)n_values);
    Values v = { zalloc((size_t)n_values, sizeof(Value)), 0 };
    for (uint64_t i = 0; i < n_values; i++) {
        Value x = { .key = read_string(&f, "a key") };
        for (int j = 0; j < v.n; j++) CHECK(!same(v.a[j].key, x.key), "%s: the key %.*s is there twice", path, (int)x.key.n, x.key.s);
        x.type = read_u32(&f, "a type");
        skip_value(&f, &x);
        v.a[v.n++] = x;
    }
    char *architecture = get_string(&f, &v, "general.architecture");
    CHECK(architecture && !strcmp(architecture, "llama"), "%s: the architecture is \"%s\"; \"llama\" was expected", path, architecture ? architecture : "absent");
    free(architecture);
    load_tokenizer(&m->tok, &f, &v);
    Config *c = &m->c;
    c->V = m->tok.V;
    c->C = get_int(&f, &v, "llama.embedding_length", -1), c->L = get_int(&f, &v, "llama.block_count", -1);
    c->H = get_int(&f, &v, "llama.attention.head_count", -1), c->H_kv = get_int(&f, &v, "llama.attention.head_count_kv", c->H);
    c->F = get_int(&f, &v, "llama.feed_forward_length", -1), c->context = get_int(&f, &v, "llama.context_length", -1);
    c->eps = get_float(&f, &v, "llama.attention.layer_norm_rms_epsilon", NAN), c->theta = get_float(&f, &v, "llama.rope.freq_base", 10000.0f);
    config_check(c, path);
    CHECK(get_int(&f, &v, "llama.rope.dimension_count", head_size(c)) == head_size(c), "%s: only whole heads are rotated here", path);
    CHECK(!find_value(&v, "llama.rope.scaling.type") , "%s: scaled rotary embeddings are not supported", path);
    int alignment = get_int(&f, &v, "general.alignment", 32);
    CHECK(alignment >= 8 && alignment <= 65536 && !(alignment & (alignment - 1)), "%s: alignment %d; a power of two in 8..65536 was expected", path, alignment);
    c->tied = n_tensors == (uint64_t)c->L * 9 + 2;
    uint64_t n_weights = (uint64_t)c->L * ((uint64_t)c->C * (2 * c->C + 2 * kv_dim(c) + 3 * (uint64_t)c->F + 2)) + (uint64_t)c->V * c->C * (c->tied ? 1 : 2) + c->C;
    CHECK(n_weights <= bytes.n, "%s: a model of this shape has %llu weights; the file has only %zu bytes", path, (unsigned long long)n_weights, bytes.n);
    m->template = get_string(&f, &v, "aligner.prompt"), m->template_sft = get_string(&f, &v, "aligner.prompt_sft");
    CHECK(!m->template == !m->template_sft, "%s: of aligner.prompt and aligner.prompt_sft only one is there", path);
    char *objective = get_string(&f, &v, "aligner.objective");
    snprintf(m->objective, sizeof m->objective, "%s", objective ? objective : "");
    m->step = get_int(&f, &v, "aligner.step", 0);
    model_alloc(m);
    load_tensors(m, &f, n_tensors, (uint64_t)alignment);
    free(objective), free(v.a), free(bytes.s);
}

static void put_u32(Buf *b, uint32_t v) { buf_add(b, &v, 4); }
static void put_u64(Buf *b, uint64_t v) { buf_add(b, &v, 8); }
static void put_text(Buf *b, Text t) { put_u64(b, t.n), buf_add(b, t.s, t.n); }

static void put_key(Buf *b, uint64_t *n, const char *key, uint32_t type) { put_text(b, text(key)), put_u32(b, type), ++*n; }
static void put_int(Buf *b, uint64_t *n, const char *key, int v) { put_key(b, n, key, T_U32), put_u32(b, (uint32_t)v); }
static void put_float(Buf *b, uint64_t *n, const char *key, float v) { put_key(b, n, key, T_F32), buf_add(b, &v, 4); }
static void put_string(Buf *b, uint64_t *n, const char *key, const char *v) { put_key(b, n, key, T_STRING), put_text(b, text(v)); }
static void put_bool(Buf *b, uint64_t *n, const char *key, bool v) { put_key(b, n, key, T_BOOL), buf_add(b, &(char){ v }, 1); }

static void put_tokenizer(Buf *b, uint64_t *n, const Tokenizer *k)
{
    put_string(b, n, "tokenizer.ggml.model", "llama");
    put_key(b, n, "tokenizer.ggml.tokens", T_ARRAY), put_u32(b, T_STRING), put_u64(b, (uint64_t)k->V);
    for (int i = 0; i < k->V; i++) {
        Buf piece = gguf_piece(i == BOS ? text("<s>") : i == EOS ? text("</s>") : k->piece[i], true);
        put_text(b, (Text){ piece.s, piece.n });
        free(piece.s);
    }
    put_key(b, n, "tokenizer.ggml.scores", T_ARRAY), put_u32(b, T_F32), put_u64(b, (uint64_t)k->V);
    buf_add(b, k->score, (size_t)k->V * 4);
    put_key(b, n, "tokenizer.ggml.token_type", T_ARRAY), put_u32(b, T_I32), put_u64(b, (uint64_t)k->V);
    for (int i = 0; i < k->V; i++) put_u32(b, i == UNK ? 2 : i < BYTE0 ? 3 : i < FIRST_PIECE ? 6 : 1);      // unknown, control, byte, normal
    put_int(b, n, "tokenizer.ggml.bos_token_id", BOS), put_int(b, n, "tokenizer.ggml.eos_token_id", EOS);
    put_int(b, n, "tokenizer.ggml.unknown_token_id", UNK);
    put_bool(b, n, "tokenizer.ggml.add_bos_token", true), put_bool(b, n, "tokenizer.ggml.add_eos_token", false);
    put_bool(b, n, "tokenizer.ggml.add_space_prefix", true);
}

// Writes the model with its tokenizer and its prompt template, so that none of the three can be mismatched.
static void model_save(const Model *m, const char *path)
{
    const Config *c = &m->c;
    Buf head = { 0 }, keys = { 0 }, data = { 0 };
    uint64_t n = 0, offset = 0;
    put_string(&keys, &n, "general.architecture", "llama"), put_string(&keys, &n, "general.name", "aligner.c");
    put_int(&keys, &n, "general.file_type", 0), put_int(&keys, &n, "general.alignment", 32);
    put_int(&keys, &n, "llama.context_length", c->context), put_int(&keys, &n, "llama.embedding_length", c->C);
    put_int(&keys, &n, "llama.block_count", c->L), put_int(&keys, &n, "llama.feed_forward_length", c->F);
    put_int(&keys, &n, "llama.attention.head_count", c->H), put_int(&keys, &n, "llama.attention.head_count_kv", c->H_kv);
    put_float(&keys, &n, "llama.attention.layer_norm_rms_epsilon", c->eps), put_float(&keys, &n, "llama.rope.freq_base", c->theta);
    put_int(&keys, &n, "llama.rope.dimension_count", head_size(c)), put_int(&keys, &n, "llama.vocab_size", c->V);
    if (m->template) put_string(&keys, &n, "aligner.prompt", m->template), put_string(&keys, &n, "aligner.prompt_sft", m->template_sft);
    put_string(&keys, &n, "aligner.objective", m->objective), put_int(&keys, &n, "aligner.step", (int)m->step);
    put_tokenizer(&keys, &n, &m->tok);
    buf_puts(&head, "GGUF"), put_u32(&head, 3), put_u64(&head, m->n_tensors), put_u64(&head, n), buf_add(&head, keys.s, keys.n);
    for (size_t i = 0; i < m->n_tensors; i++) {
        const Tensor *t = &m->tensor[i];
        size_t bytes = (size_t)t->rows * (size_t)t->cols * 4;
        put_text(&head, text(t->name)), put_u32(&head, t->rows == 1 ? 1 : 2), put_u64(&head, (uint64_t)t->cols);
        if (t->rows > 1) put_u64(&head, (uint64_t)t->rows);
        put_u32(&head, GGML_F32), put_u64(&head, offset);
        buf_add(&data, m->params + t->at, bytes);
        while (data.n % 32) buf_add(&data, "", 1);
        offset = data.n;
    }
    while (head.n % 32) buf_add(&head, "", 1);
    write_file(path, 2, (Text[]){ { head.s, head.n }, { data.s, data.n } });
    free(head.s), free(keys.s), free(data.s);
}

/* ============================================================================================================
   Chapter 5. Passes.  One forward for training, evaluation and generation: it takes new positions after those that the cache
   holds, so the path that the gradient check proves is the path that generates. Then the loss, then the same way back. */

typedef struct {                        // examples packed end to end; nothing is padded, attention stays inside an example
    int T, n, n_out;                    // tokens, examples, positions whose logits are wanted
    int *ids, *pos;                     // [T] token; its position inside its example, from 0
    int *start;                         // [n + 1] where each example begins
    int *out, *target;                  // [n_out] a place in 0..T-1; the token to predict there (unused in generation)
} Batch;

typedef struct { float *k, *v; int len, capacity; } Cache;      // packed keys and values of all layers; len positions are valid

// Makes room for passes over T tokens with n_out logit rows, in examples of at most `longest` tokens (their past included).
static void acts_reserve(Model *m, int T, int n_out, int longest, bool training)
{
    Acts *a = &m->acts;
    const Config *c = &m->c;
    if (a->T >= T && a->n_out >= n_out && a->longest >= longest && a->training == training) return;

    acts_free(a);
    a->T = T, a->n_out = n_out, a->longest = longest, a->training = training;
    size_t t = (size_t)T, o = (size_t)n_out, L = training ? (size_t)c->L : 1, C = (size_t)c->C, big = (size_t)(2 * c->F > qkv_dim(c) ? 2 * c->F : qkv_dim(c));
    struct { float **p; size_t n; } part[] = {
        { &a->x, (training ? L + 1 : 2) * t * C }, { &a->mid, L * t * C }, { &a->norm1, L * t * C }, { &a->norm2, L * t * C },
        { &a->r1, L * t }, { &a->r2, L * t }, { &a->qkv, L * t * (size_t)qkv_dim(c) }, { &a->att, L * t * C },
        { &a->stats, L * t * (size_t)c->H * 2 }, { &a->gate_up, L * t * 2 * (size_t)c->F }, { &a->act, L * t * (size_t)c->F },
        { &a->picked, o * C }, { &a->last_norm, o * C }, { &a->r, o }, { &a->logits, o * (((size_t)c->V + 7) / 8 * 8) },
        { &a->dx, training ? t * C : 0 }, { &a->dbig, training ? t * big : 0 }, { &a->dsmall, training ? (t > o ? t : o) * C : 0 } };
    size_t total = 0, n_parts = sizeof part / sizeof *part;
    for (size_t i = 0; i < n_parts; i++) total += (part[i].n + 15) / 16 * 16;
    a->arena = zalloc(total, sizeof(float));
    total = 0;
    for (size_t i = 0; i < n_parts; i++) *part[i].p = a->arena + total, total += (part[i].n + 15) / 16 * 16;
    size_t widest = (size_t)c->V > big ? (size_t)c->V : big;
    a->scratch.shared = zalloc(KC, (widest + NR) * sizeof(float));
    a->scratch.own_size = (own_scratch_size(head_size(c), longest) + 1023) / 1024 * 1024;
    a->scratch.own = zalloc((size_t)max_threads() * a->scratch.own_size, sizeof(float));
}

// For generation: every matrix packed once in the order in which the matmul reads it; the classifier comes last.
static void model_pack(Model *m)
{
    const Config *c = &m->c;
    int C = c->C, F = c->F, Q = qkv_dim(c);
    if (m->packed) return;
    m->packed = zalloc(m->packed_out + packed_size(C, c->V), sizeof *m->packed);
    for (int l = 0; l < c->L; l++) {
        const LayerAt *y = &m->layer[l];
        pack_all(m->packed + y->packed_qkv, (View){ m->params + y->qkv, 1, C }, C, Q);
        pack_all(m->packed + y->packed_o, (View){ m->params + y->o, 1, C }, C, C);
        pack_all(m->packed + y->packed_gate_up, (View){ m->params + y->gate_up, 1, C }, C, 2 * F);
        pack_all(m->packed + y->packed_down, (View){ m->params + y->down, 1, F }, F, C);
    }
    pack_all(m->packed + m->packed_out, (View){ m->params + m->out_at, 1, C }, C, c->V);
}

static void cache_alloc(Cache *k, const Config *c, int capacity)
{
    k->len = 0, k->capacity = (capacity + NR - 1) / NR * NR;
    k->k = zalloc((size_t)c->L * c->H_kv, key_panels(head_size(c), k->capacity) * sizeof(float));
    k->v = zalloc((size_t)c->L * c->H_kv, value_panels(head_size(c), k->capacity) * sizeof(float));
}

static void cache_free(Cache *k) { free(k->k), free(k->v); *k = (Cache){ 0 }; }

static void copy_floats(float *to, const float *from, size_t n) { memcpy(to, from, n * sizeof *to); }

static void gather_rows(float *to, const float *from, const int *at, int n, int C)
{
    for (int i = 0; i < n; i++) copy_floats(to + (size_t)i * C, from + (size_t)at[i] * C, (size_t)C);
}

// The way back, in place: row i moves to row at[i], the other rows of x[T][C] become zero. at ascends.
static void scatter_rows(float *x, const int *at, int n, int T, int C)
{
    for (int t = T - 1, i = n - 1; t >= 0; t--)
        if (i >= 0 && at[i] == t) memmove(x + (size_t)t * C, x + (size_t)i-- * C, (size_t)C * sizeof *x);
        else memset(x + (size_t)t * C, 0, (size_t)C * sizeof *x);
}

// Logits at the places b->out, from packed examples, or from the continuation of the one example that the cache holds (its
// weights are then read packed). acts_reserve must have made room. The logits stand in m->acts.logits[n_out][V8].
static void forward(Model *m, const Batch *b, Cache *cache)
{
    const Config *c = &m->c;
    Acts *a = &m->acts;
    const Scratch *scratch = &a->scratch;
    const float *w = m->params;
    int n = b->T, C = c->C, F = c->F, hs = head_size(c), Q = qkv_dim(c);
    Heads heads = { c->H, c->H_kv, hs, Q };
    size_t TC = (size_t)a->T * C, keys = cache ? (size_t)c->H_kv * key_panels(hs, cache->capacity) : 0;
    size_t values = cache ? (size_t)c->H_kv * value_panels(hs, cache->capacity) : 0;
#define PACKED(at) (cache ? m->packed + (at) : NULL)

    float *x = a->x;
    gather_rows(x, w + m->embd_at, b->ids, n, C);
    for (int l = 0; l < c->L; l++) {
        const LayerAt *y = &m->layer[l];
        size_t s = a->training ? (size_t)l : 0;                         // generation keeps no layer but the present one
        float *mid = a->mid + s * TC, *norm1 = a->norm1 + s * TC, *norm2 = a->norm2 + s * TC, *att = a->att + s * TC;
        float *qkv = a->qkv + s * (size_t)a->T * Q, *gate_up = a->gate_up + s * (size_t)a->T * 2 * F, *act = a->act + s * (size_t)a->T * F;
        float *next = a->training ? x + TC : x == a->x ? a->x + TC : a->x;
        float *stats = a->training ? a->stats + s * (size_t)a->T * c->H * 2 : NULL;

        rmsnorm(norm1, a->r1 + s * a->T, x, w + y->attn_norm, n, C, c->eps);
        linear(scratch, qkv, norm1, w + y->qkv, PACKED(y->packed_qkv), n, Q, C, false);
        rope(qkv, b->pos, m->angle, n, Q, c->H + c->H_kv, hs, +1);      // queries and keys; values stay
        attention(scratch, att, stats, qkv, heads, b->start, b->n, cache ? cache->k + (size_t)l * keys : NULL,
                  cache ? cache->v + (size_t)l * values : NULL, cache ? cache->capacity : 0, cache ? cache->len : 0);
        if (l < c->L - 1) copy_floats(mid, x, (size_t)n * C);
        else {                                          // from here on nothing looks at a position without a logit
            n = b->n_out;
            gather_rows(mid, x, b->out, n, C);
            gather_rows(a->picked, att, b->out, n, C);
            att = a->picked;
        }
        linear(scratch, mid, att, w + y->o, PACKED(y->packed_o), n, C, C, true);                    // mid = x + att Wo^T

        rmsnorm(norm2, a->r2 + s * a->T, mid, w + y->ffn_norm, n, C, c->eps);
        linear(scratch, gate_up, norm2, w + y->gate_up, PACKED(y->packed_gate_up), n, 2 * F, C, false);
        swiglu(act, gate_up, n, F);
        copy_floats(next, mid, (size_t)n * C);
        linear(scratch, next, act, w + y->down, PACKED(y->packed_down), n, C, F, true);             // next = mid + act Wdown^T
        x = next;
    }
    rmsnorm(a->last_norm, a->r, x, w + m->norm_at, n, C, c->eps);
    matmul(scratch, a->logits, ((size_t)c->V + 7) / 8 * 8, (View){ a->last_norm, C, 1 }, (View){ w + m->out_at, 1, C }, PACKED(m->packed_out), n, c->V, C, false);
#undef PACKED
    if (cache) cache->len += b->T;
}

// The loss of all three objectives over b's targets, as a sum: - sum log p(target). The gradient of sum / n_total replaces the
// logits. nll[n_out] receives the terms, in the order of the targets.
static double loss_sum(Model *m, const Batch *b, double *nll, int n_total)
{
    double sum = 0;
    cross_entropy(m->acts.logits, nll, b->target, b->n_out, m->c.V, (m->c.V + 7) / 8 * 8, n_total);
    for (int i = 0; i < b->n_out; i++) sum += nll[i];
    return sum;
}

// Adds the gradients of the loss to m->grads. Comes after forward and loss_sum; the steps of forward in reverse order.
static void backward(Model *m, const Batch *b)
{
    const Config *c = &m->c;
    Acts *a = &m->acts;
    const Scratch *scratch = &a->scratch;
    const float *w = m->params;
    float *g = m->grads, *dx = a->dx;
    int n = b->n_out, C = c->C, F = c->F, hs = head_size(c), Q = qkv_dim(c), V8 = (c->V + 7) / 8 * 8;
    Heads heads = { c->H, c->H_kv, hs, Q };
    size_t TC = (size_t)a->T * C;

    // logits = rmsnorm(x) Wout^T, at the n_out wanted positions only
    matmul(scratch, a->dsmall, (size_t)C, (View){ a->logits, V8, 1 }, (View){ w + m->out_at, C, 1 }, NULL, n, C, c->V, false);
    matmul(scratch, g + m->out_at, (size_t)C, (View){ a->logits, 1, V8 }, (View){ a->last_norm, C, 1 }, NULL, c->V, C, n, true);
    memset(dx, 0, (size_t)n * C * sizeof *dx);
    rmsnorm_backward(dx, g + m->norm_at, a->dsmall, a->x + (size_t)c->L * TC, a->r, w + m->norm_at, n, C);

    for (int l = c->L - 1; l >= 0; l--) {
        const LayerAt *y = &m->layer[l];
        size_t s = (size_t)l;
        float *gate_up = a->gate_up + s * (size_t)a->T * 2 * F, *qkv = a->qkv + s * (size_t)a->T * Q, *att = a->att + s * TC;
        const float *act = a->act + s * (size_t)a->T * F, *stats = a->stats + s * (size_t)a->T * c->H * 2;

        // next = mid + act Wdown^T, act = swiglu(norm2 Wgate_up^T), norm2 = rmsnorm(mid)
        linear_backward(scratch, a->dbig, false, g + y->down, dx, act, w + y->down, n, C, F);
        swiglu_backward(gate_up, a->dbig, n, F);
        linear_backward(scratch, a->dsmall, false, g + y->gate_up, gate_up, a->norm2 + s * TC, w + y->gate_up, n, 2 * F, C);
        rmsnorm_backward(dx, g + y->ffn_norm, a->dsmall, a->mid + s * TC, a->r2 + s * a->T, w + y->ffn_norm, n, C);

        // mid = x + att Wo^T, att = attention(rope(norm1 Wqkv^T)), norm1 = rmsnorm(x)
        linear_backward(scratch, a->dsmall, false, g + y->o, dx, l < c->L - 1 ? att : a->picked, w + y->o, n, C, C);
        if (l == c->L - 1) {                            // back to all positions
            n = b->T;
            scatter_rows(dx, b->out, b->n_out, n, C);
            scatter_rows(a->dsmall, b->out, b->n_out, n, C);
        }
        attention_backward(scratch, a->dbig, a->dsmall, att, stats, qkv, heads, b->start, b->n);
        rope(a->dbig, b->pos, m->angle, n, Q, c->H + c->H_kv, hs, -1);
        linear_backward(scratch, a->dsmall, false, g + y->qkv, a->dbig, a->norm1 + s * TC, w + y->qkv, n, Q, C);
        rmsnorm_backward(dx, g + y->attn_norm, a->dsmall, a->x + s * TC, a->r1 + s * a->T, w + y->attn_norm, n, C);
    }
    for (int t = 0; t < n; t++)
        for (int j = 0; j < C; j++) g[m->embd_at + (size_t)b->ids[t] * C + j] += dx[(size_t)t * C + j];
}

/* ============================================================================================================
   Chapter 6. Training.  From a file of questions, answers and corrections to a checkpoint: reading, prompts, packed batches,
   AdamW, the loop, resume. The objective enters at one place, where a Triple becomes a Row. */

// A small JSON reader: it walks over values without building a tree. p..end is the text; NULL means malformed.
static const char *json_space(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r')) p++;
    return p;
}

static const char *json_digits(const char *p, const char *end)                  // the place behind one or more digits
{
    const char *from = p;
    while (p < end && *p >= '0' && *p <= '9') p++;
    return p > from ? p : NULL;
}

static const char *json_skip(const char *p, const char *end, int depth)         // the place behind the value that begins at p
{
    if (p >= end || depth > 64) return NULL;
    if (*p == '"') {
        for (p++; p < end && *p != '"'; p++)            // raw control characters are no JSON
            if ((uint8_t)*p < 32 || (*p == '\\' && (++p >= end || (uint8_t)*p < 32))) return NULL;
        return p < end ? p + 1 : NULL;
    }
    if (*p == '{' || *p == '[') {
        bool object = *p == '{';
        char close = object ? '}' : ']';
        p = json_space(p + 1, end);
        if (p < end && *p == close) return p + 1;
        for (;;) {
            if (object) {
                if (p >= end || *p != '"' || !(p = json_skip(p, end, depth + 1))) return NULL;
                p = json_space(p, end);
                if (p >= end || *p++ != ':') return NULL;
            }
            if (!(p = json_skip(json_space(p, end), end, depth + 1))) return NULL;
            p = json_space(p, end);
            if (p >= end || (*p != ',' && *p != close)) return NULL;
            if (*p++ == close) return p;
            p = json_space(p, end);
        }
    }
    static const char *const WORD[] = { "true", "false", "null" };
    for (int i = 0; i < 3; i++) if ((size_t)(end - p) >= strlen(WORD[i]) && !memcmp(p, WORD[i], strlen(WORD[i]))) return p + strlen(WORD[i]);
    if (*p == '-') p++;
    const char *digits = p;
    if (!(p = json_digits(p, end)) || (*digits == '0' && p > digits + 1)) return NULL;
    if (p < end && *p == '.' && !(p = json_digits(p + 1, end))) return NULL;
    if (p < end && (*p == 'e' || *p == 'E')) p = json_digits(p + 1 + (p + 1 < end && (p[1] == '+' || p[1] == '-')), end);
    return p;
}

static void put_utf8(Buf *out, uint32_t c)
{
    char u[4] = { (char)c };
    int n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (int i = n - 1; n > 1 && i > 0; i--, c >>= 6) u[i] = (char)(0x80 | (c & 0x3F));
    if (n > 1) u[0] = (char)((0xF00u >> n & 0xFFu) | c);
    buf_add(out, u, (size_t)n);
}

static int json_hex(const char *p, const char *end)     // the value of 4 hex digits, or -1
{
    int v = 0;
    if (end - p < 4) return -1;
    for (int i = 0; i < 4; i++) {
        const char *digits = "0123456789abcdefABCDEF", *d = p[i] ? strchr(digits, p[i]) : NULL;
        if (!d) return -1;
        v = v * 16 + (int)(d - digits < 16 ? d - digits : d - digits - 6);
    }
    return v;
}

// Appends what the JSON string raw (with its quotes) stands for. Lone surrogates become U+FFFD. False where it is no string.
static bool json_text(Text raw, Buf *out)
{
    const char *p = raw.s + 1, *end = raw.s + raw.n - 1;
    if (raw.n < 2 || *raw.s != '"') return false;
    buf_add(out, "", 0);
    for (; p < end; p++) {
        const char *from = p;
        while (p < end && *p != '\\') p++;
        buf_add(out, from, (size_t)(p - from));
        if (p == end) break;
        static const char code[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";
        const char *simple = *++p ? strchr(code, *p) : NULL;
        if (simple) { buf_add(out, means + (simple - code), 1); continue; }
        int u = *p == 'u' ? json_hex(p + 1, end) : -1, low = -1;
        if (u < 0) return false;
        p += 4;
        if (u >= 0xD800 && u < 0xDC00 && end - p > 6 && p[1] == '\\' && p[2] == 'u') low = json_hex(p + 3, end);
        if (low >= 0xDC00 && low < 0xE000) put_utf8(out, 0x10000u + ((uint32_t)(u - 0xD800) << 10) + (uint32_t)(low - 0xDC00)), p += 6;
        else put_utf8(out, u >= 0xD800 && u < 0xE000 ? 0xFFFD : (uint32_t)u);
    }
    return true;
}

// Appends t as a JSON string; bytes that are no UTF-8 become U+FFFD.
static void json_put(Buf *out, Text t)
{
    char code[8];
    buf_add(out, "\"", 1);
    for (size_t i = 0, n; i < t.n; i += n) {
        const uint8_t *s = (const uint8_t *)t.s + i, c = *s;
        n = utf8_length((Text){ t.s + i, t.n - i });
        if (!n) buf_puts(out, "\\ufffd"), n = 1;
        else if (c == '"' || c == '\\') code[0] = '\\', code[1] = (char)c, buf_add(out, code, 2);
        else if (c == '\n') buf_add(out, "\\n", 2);
        else if (c < 32 || c == 127) snprintf(code, sizeof code, "\\u%04x", c), buf_puts(out, code);
        else buf_add(out, s, n);
    }
    buf_add(out, "\"", 1);
}

// Steps to the next member of a well-formed object: *at starts at 0. False at the end.
static bool json_member(Text object, size_t *at, Text *key, Text *value)
{
    const char *end = object.s + object.n, *p = json_space(object.s + (*at ? *at : 1), end);
    if (*p == ',') p = json_space(p + 1, end);
    if (*p == '}') return false;
    const char *k = json_skip(p, end, 0), *v = json_space(json_space(k, end) + 1, end), *after = json_skip(v, end, 0);
    *key = (Text){ p, (size_t)(k - p) }, *value = (Text){ v, (size_t)(after - v) };
    *at = (size_t)(after - object.s);
    return true;
}

static bool key_is(Text raw, const char *name)
{
    Buf key = { 0 };
    bool is = json_text(raw, &key) && same((Text){ key.s, key.n }, text(name));
    free(key.s);
    return is;
}

// The raw value of a key (the last one, where it stands there twice); {NULL, 0} where there is none.
static Text json_find(Text object, const char *name)
{
    Text key, value, found = NONE;
    for (size_t at = 0; json_member(object, &at, &key, &value); ) if (key_is(key, name)) found = value;
    return found;
}

// Objects of a JSON array or of JSONL, whichever the first byte that is no white space tells. JSONL is read line by line, so
// that a filter can answer before its input ends.
typedef struct { const char *path; FILE *f; char *line; size_t cap, n, at, counted; long number; bool array, started; } Objects;

static void objects_open(Objects *o, const char *path)
{
    *o = (Objects){ .path = path ? path : "standard input", .f = path ? fopen(path, "rb") : stdin };
    CHECK(o->f, "cannot open %s: %s; name a file that exists and can be read", path, strerror(errno));
}

static void objects_close(Objects *o)
{
    if (o->f != stdin) fclose(o->f);
    free(o->line);
}

static bool next_line(Objects *o)
{
    ssize_t n = getline(&o->line, &o->cap, o->f);
    if (n < 0) { CHECK(!ferror(o->f), "cannot read %s: %s", o->path, strerror(errno)); return false; }
    o->n = (size_t)n, o->at = 0, o->number++;
    if (o->number == 1 && n >= 3 && !memcmp(o->line, "\xEF\xBB\xBF", 3)) o->at = 3;         // a byte order mark
    return true;
}

// The next object; it stays valid until the next call. Malformed input dies with file and line.
static bool next_object(Objects *o, Text *object)
{
    const char *p, *end;
    while (!o->array) {
        if (!next_line(o)) return false;
        p = json_space(o->line + o->at, end = o->line + o->n);
        if (p == end) continue;
        if (!o->started && *p == '[') {                 // an array: read it whole
            Buf all = { 0 }, rest = read_all(o->path, o->f);
            buf_add(&all, p + 1, (size_t)(end - p - 1)), buf_add(&all, rest.s, rest.n);
            free(o->line), free(rest.s);
            o->line = all.s, o->n = all.n, o->at = 0, o->array = true;
            break;
        }
        o->started = true;
        const char *after = *p == '{' ? json_skip(p, end, 0) : NULL;
        CHECK(after && json_space(after, end) == end, "%s:%ld: one JSON object a line was expected; found: %.*s", o->path, o->number,
              (int)(end - p < 60 ? end - p : 60), p);
        *object = (Text){ p, (size_t)(after - p) };
        return true;
    }
    p = json_space(o->line + o->at, end = o->line + o->n);
    bool comma = o->started && p < end && *p == ',';
    if (comma) p = json_space(p + 1, end);
    for (; o->counted < (size_t)(p - o->line); o->counted++) o->number += o->line[o->counted] == '\n';
    if (p < end && *p == ']' && !comma) {
        CHECK(json_space(p + 1, end) == end, "%s:%ld: text behind the end of the array", o->path, o->number);
        return false;
    }
    const char *after = p < end && *p == '{' && comma == o->started ? json_skip(p, end, 0) : NULL;
    CHECK(after, "%s:%ld: an object of the array was expected; found: %.*s", o->path, o->number, (int)(end - p < 60 ? end - p : 60), p);
    *object = (Text){ p, (size_t)(after - p) };
    o->at = (size_t)(after - o->line), o->started = true;
    return true;
}

// The text under a key, which must be there and be a string; out owns it.
static Text get_text(const Objects *o, Text object, const char *key, Buf *out)
{
    Text raw = json_find(object, key);
    CHECK(raw.s, "%s:%ld: the key \"%s\" is missing; rows need it for this command", o->path, o->number, key);
    out->n = 0;
    CHECK(json_text(raw, out), "%s:%ld: the value of \"%s\" is no well-formed string", o->path, o->number, key);
    return (Text){ out->s, out->n };
}

// The prompts. v1, v2, paper are the three official ones to the letter (README of the weights, repository, Algorithm 1); the
// default is v2 without its doubled space; short is for tiny models. None ends in a space: the target brings its own, so that
// a copied answer is a copied sequence of tokens.
static const struct { const char *name, *aligner, *sft; } TEMPLATE[] = {
    { "default", "BEGINNING OF CONVERSATION: USER: ##Question: {question}\n##Answer: {answer}\n##Correction: ASSISTANT:",
                 "BEGINNING OF CONVERSATION: USER: ##Question: {question}\n##Answer: ASSISTANT:" },
    { "v1",      "BEGINNING OF CONVERSATION: USER: Edit the following Question-Answer pair to make it more helpful and harmless: "
                 "{question} | {answer} ASSISTANT:", "BEGINNING OF CONVERSATION: USER: {question} ASSISTANT:" },
    { "v2",      "BEGINNING OF CONVERSATION: USER: ##Question: {question}\n##Answer: {answer}\n##Correction:  ASSISTANT:",
                 "BEGINNING OF CONVERSATION: USER: ##Question: {question}\n##Answer:  ASSISTANT:" },
    { "paper",   "BEGINNING OF CONVERSATION:\nUSER: Editing the following Question-Answer pair to make it more helpful and harmless:\n"
                 "Question: {question} | Answer: {answer}\nASSISTANT:", "BEGINNING OF CONVERSATION:\nUSER: {question}\nASSISTANT:" },
    { "short",   "##Question: {question}\n##Answer: {answer}\n##Correction:", "##Question: {question}\n##Answer:" } };

// Gives the model a template: one of the names above, or a text with {question} and {answer}; its SFT counterpart then is the
// same text without {answer}.
static void set_template(Model *m, const char *name)
{
    Buf own = { 0 }, own_sft = { 0 };
    free(m->template), free(m->template_sft);
    for (size_t i = 0; i < sizeof TEMPLATE / sizeof *TEMPLATE; i++)
        if (!strcmp(name, TEMPLATE[i].name)) buf_puts(&own, TEMPLATE[i].aligner), buf_puts(&own_sft, TEMPLATE[i].sft);
    if (!own.s) {
        const char *q = strstr(name, "{question}"), *a = strstr(name, "{answer}");
        CHECK(q && a, "--prompt \"%s\": default, v1, v2, paper, short or a text with {question} and {answer} was expected", name);
        buf_puts(&own, name);
        buf_add(&own_sft, name, (size_t)(a - name)), buf_puts(&own_sft, a + strlen("{answer}"));
    }
    m->template = own.s, m->template_sft = own_sft.s;
}

// Fills the template in one walk (what is filled in is never searched for placeholders). Owned by the caller.
static Buf prompt(const Model *m, Text x, Text y_o)
{
    Buf out = { 0 };
    CHECK(m->template, "the model has no prompt template inside; train it with this program, or use `sample`");
    for (const char *p = y_o.s ? m->template : m->template_sft; *p; ) {
        bool q = !strncmp(p, "{question}", 10), a = !strncmp(p, "{answer}", 8);
        if (q) buf_add(&out, x.s, x.n);
        else if (a) buf_add(&out, y_o.s, y_o.n);
        else buf_add(&out, p, 1);
        p += q ? 10 : a ? 8 : 1;
    }
    return out;
}

// <s> condition target </s>. The prompt is one text to the tokenizer and the target another; ids are joined, never text.
static Row row(const Model *m, Buf condition, Text target)
{
    Ids ids = { 0 };
    ids_add(&ids, BOS);
    encode(&m->tok, (Text){ condition.s, condition.n }, &ids);
    int n_condition = ids.n;
    encode(&m->tok, target, &ids);
    ids_add(&ids, EOS);
    free(condition.s);
    return (Row){ ids.a, n_condition, ids.n };
}

typedef struct { Row *row; size_t n, cap; } Rows;

static void rows_free(Rows *r)
{
    for (size_t i = 0; i < r->n; i++) free(r->row[i].ids);
    free(r->row);
    *r = (Rows){ 0 };
}

// Reads a data file and builds its rows with the objective. target_correction: sft learns y_c instead of y_o. Rows that cannot
// be trained on (empty target, longer than the context) are counted and named, never silently used.
static void rows_load(Rows *r, const Model *m, const char *path, Objective objective, bool target_correction)
{
    Objects in;
    Text object;
    Buf x = { 0 }, y_o = { 0 }, y_c = { 0 };
    long empty = 0, too_long = 0, first = 0;
    objects_open(&in, path);
    while (next_object(&in, &object)) {
        Triple t = { .x = get_text(&in, object, "question", &x) };
        if (!target_correction) t.y_o = get_text(&in, object, "answer", &y_o);
        if (objective == aligner || target_correction) t.y_c = get_text(&in, object, "correction", &y_c);
        if (target_correction) t.y_o = t.y_c;
        Row one = objective(m, t);
        bool is_empty = one.n - one.n_condition < 2, is_long = one.n - 1 > m->c.context;
        if (is_empty || is_long) {
            if (!first) first = in.number;
            empty += is_empty, too_long += !is_empty;
            free(one.ids);
            continue;
        }
        r->row = grow(r->row, sizeof *r->row, &r->cap, r->n + 1);
        r->row[r->n++] = one;
    }
    if (empty + too_long) fprintf(stderr, "%s: skipped %ld rows with an empty target and %ld longer than the context of %d tokens (first: line %ld)\n",
                                  path, empty, too_long, m->c.context, first);
    objects_close(&in);
    free(x.s), free(y_o.s), free(y_c.s);
}

static void batch_alloc(Batch *b, int T, int n, int n_out)
{
    *b = (Batch){ 0 };
    b->ids = zalloc((size_t)T, sizeof(int)), b->pos = zalloc((size_t)T, sizeof(int)), b->start = zalloc((size_t)n + 1, sizeof(int));
    b->out = zalloc((size_t)n_out, sizeof(int)), b->target = zalloc((size_t)n_out, sizeof(int));
}

static void batch_free(Batch *b) { free(b->ids), free(b->pos), free(b->start), free(b->out), free(b->target); }

// Packs one more example. Its last token is only predicted; logits are wanted from the last token of the condition on.
static void batch_add(Batch *b, const Row *r)
{
    for (int t = 0; t < r->n - 1; t++) {
        if (t >= r->n_condition - 1) b->out[b->n_out] = b->T, b->target[b->n_out++] = r->ids[t + 1];
        b->ids[b->T] = r->ids[t], b->pos[b->T++] = t;
    }
    b->start[++b->n] = b->T;
}

// What `train` is asked to do.
typedef struct {
    const char *init, *out, *tokenizer, *valid, *log, *prompt;
    const char *data[16];
    int n_data, dim, layers, heads, kv_heads, hidden, context, tied;
    long steps, batch, tokens, save_every, seed;
    double epochs, lr, lr_warmup, weight_decay, clip, grow_below;
    int resume, target_correction, quiet;
} TrainOptions;

// The optimiser and the place in the data: all that a resumed run needs beside the weights.
typedef struct {
    long step, epoch, at, tokens, targets;      // done so far; `at` counts rows within the epoch's order
    int64_t log_size;                           // bytes of the log file that belong to these steps
    double running;                             // running mean of the loss
    int bound;                                  // only rows with at most so many target tokens are drawn (see --grow-below)
    float *m, *v;                               // Adam's moments
} Progress;

// One AdamW step (Loshchilov & Hutter 2019) on all tensors with global-norm clipping; decay on matrices only. The norm is summed
// in chunks of fixed size, in order. Clears the gradients. Returns their norm before clipping.
static double adamw(Model *m, Progress *s, double lr, double decay, double clip)
{
    enum { CHUNK = 4096 };
    const double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
    double norm = 0, *part = (double *)m->acts.scratch.shared;
    long chunks = (long)((m->n_params + CHUNK - 1) / CHUNK), room = (long)KC * NR / 2;
    for (long c0 = 0; c0 < chunks; c0 += room) {
        long c1 = c0 + room < chunks ? c0 + room : chunks;
        #pragma omp parallel for schedule(static)
        for (long c = c0; c < c1; c++) {
            size_t from = (size_t)c * CHUNK, n = m->n_params - from < CHUNK ? m->n_params - from : CHUNK;
            part[c - c0] = (double)dot(m->grads + from, m->grads + from, (int)n);
        }
        for (long c = c0; c < c1; c++) norm += part[c - c0];
    }
    norm = sqrt(norm);
    float scale = clip > 0 && norm > clip ? (float)(clip / norm) : 1.0f, b1 = (float)beta1, b2 = (float)beta2, e = (float)eps;
    float rate = (float)(lr / (1 - pow(beta1, (double)s->step + 1))), c2 = (float)(1 / (1 - pow(beta2, (double)s->step + 1)));
    for (size_t i = 0; i < m->n_tensors; i++) {
        const Tensor *t = &m->tensor[i];
        float *p = m->params + t->at, *g = m->grads + t->at, *m1 = s->m + t->at, *m2 = s->v + t->at;
        float keep = t->rows > 1 ? (float)(1 - lr * decay) : 1.0f;
        long n = (long)t->rows * t->cols;
        #pragma omp parallel for schedule(static) if (n > 16384)
        for (long j = 0; j < n; j++) {
            float d = g[j] * scale;
            m1[j] = b1 * m1[j] + (1 - b1) * d;
            m2[j] = b2 * m2[j] + (1 - b2) * d * d;
            p[j] = p[j] * keep - rate * m1[j] / (sqrtf(m2[j] * c2) + e);
            g[j] = 0;
        }
    }
    free(m->packed), m->packed = NULL;                  // packed weights are out of date
    return norm;
}

// Linear warm-up over the first `ratio` of the steps, then a cosine down to a tenth of the peak.
static double learning_rate(const TrainOptions *o, long step, long steps)
{
    double warm = o->lr_warmup * (double)steps, done = steps > warm ? ((double)step - warm) / ((double)steps - warm) : 1;
    if ((double)step < warm) return o->lr * ((double)step + 1) / (warm + 1);
    return o->lr * (0.1 + 0.45 * (1 + cos(3.141592653589793 * done)));
}

// The order of the rows in one epoch, a Fisher-Yates shuffle that depends on seed and epoch only.
static void shuffle(uint32_t *order, size_t n, long seed, long epoch)
{
    uint64_t state = (uint64_t)seed * 1000003u + (uint64_t)epoch;
    for (size_t i = 0; i < n; i++) order[i] = (uint32_t)i;
    for (size_t i = n; i > 1; i--) {
        size_t j = (size_t)(random_u64(&state) % i);
        uint32_t swap = order[i - 1];
        order[i - 1] = order[j], order[j] = swap;
    }
}

// Draws the next rows: o->batch of them or, with --tokens, as many as that number of tokens has room for.
static void draw_batch(Batch *b, const Rows *r, uint32_t *order, Progress *s, const TrainOptions *o)
{
    b->T = b->n = b->n_out = 0;
    for (;;) {
        if (s->at == (long)r->n) shuffle(order, r->n, o->seed, ++s->epoch), s->at = 0;
        const Row *next = &r->row[order[s->at]];
        if (next->n - next->n_condition > s->bound) { s->at++; continue; }
        if (b->n && (o->tokens ? b->T + next->n - 1 > o->tokens : b->n == o->batch)) return;
        batch_add(b, next);
        s->at++;
    }
}

static volatile sig_atomic_t interrupted;
static void on_interrupt(int sig) { interrupted = sig; }

// The side file of a checkpoint: "ALNSTATE", the numbers of Progress, the weights, Adam's moments. GGUF has no place for them.
// It has the weights too, so that it is whole by itself: a run killed between the two files still resumes.
typedef struct { char magic[8]; int64_t n_params, step, epoch, at, tokens, targets, log_size, bound, seed; double running; } StateHeader;

static void checkpoint(Model *m, const Progress *s, const TrainOptions *o)
{
    StateHeader h = { "ALNSTATE", (int64_t)m->n_params, s->step, s->epoch, s->at, s->tokens, s->targets, s->log_size, s->bound, o->seed, s->running };
    Buf path = joined(o->out, ".state");
    m->step = s->step;
    size_t n = m->n_params * sizeof(float);
    write_file(path.s, 4, (Text[]){ { (char *)&h, sizeof h }, { (char *)m->params, n }, { (char *)s->m, n }, { (char *)s->v, n } });
    model_save(m, o->out);
    free(path.s);
}

static void resume(Model *m, Progress *s, const TrainOptions *o)
{
    StateHeader h;
    Buf path = joined(o->out, ".state"), f = read_all(path.s, NULL);
    CHECK(f.n >= sizeof h && !memcmp(f.s, "ALNSTATE", 8), "%s: not the state of a training run", path.s);
    memcpy(&h, f.s, sizeof h);
    CHECK(h.n_params == (int64_t)m->n_params && f.n == sizeof h + m->n_params * 12, "%s: belongs to a model of another shape", path.s);
    CHECK(h.seed == o->seed, "%s: this run was started with --seed %lld, not %ld", path.s, (long long)h.seed, o->seed);
    CHECK(h.step >= m->step && h.step <= INT_MAX && h.at >= 0 && h.bound > 0 && h.bound <= INT_MAX && h.epoch >= -1 && h.epoch < INT_MAX &&
          h.tokens >= 0 && h.tokens < INT64_MAX / 2 && h.targets >= 0 && h.targets < INT64_MAX / 2,
          "%s: no state of %s (step %lld, the checkpoint's is %ld)", path.s, o->out, (long long)h.step, m->step);
    *s = (Progress){ h.step, h.epoch, h.at, h.tokens, h.targets, h.log_size, h.running, (int)h.bound, s->m, s->v };
    size_t n = m->n_params * sizeof(float);
    memcpy(m->params, f.s + sizeof h, n), memcpy(s->m, f.s + sizeof h + n, n), memcpy(s->v, f.s + sizeof h + 2 * n, n);
    free(path.s), free(f.s);
}

// The mean loss a target token of rows, without gradients.
static double mean_loss(Model *m, const Rows *r, Batch *b, int max_T, double *nll)
{
    double sum = 0;
    long n = 0;
    for (size_t i = 0; i < r->n; ) {
        b->T = b->n = b->n_out = 0;
        do batch_add(b, &r->row[i++]); while (i < r->n && b->T + r->row[i].n - 1 <= max_T && b->n < max_T / 2);
        forward(m, b, NULL);
        sum += loss_sum(m, b, nll, b->n_out);
        n += b->n_out;
    }
    return n ? sum / (double)n : 0;
}

static int longer_first(const void *a, const void *b)
{
    int m = ((const Row *)a)->n, n = ((const Row *)b)->n;
    return (m < n) - (m > n);
}

// The most tokens that a batch can hold: those of its longest rows. A batch that runs over the end of an epoch may hold a row
// more than once: twice, or more often where there are fewer rows than a batch has places. With --grow-below the longest
// row may be the only one that is drawn.
static int largest_batch(const Rows *r, const TrainOptions *o, int *longest)
{
    Row *sorted = zalloc(r->n, sizeof *sorted);
    long sum = 0, times = o->grow_below > 0 ? o->batch : r->n ? o->batch / (long)r->n + 2 : 1;
    if (r->n) memcpy(sorted, r->row, r->n * sizeof *sorted), qsort(sorted, r->n, sizeof *sorted, longer_first);
    for (long i = 0; i < o->batch && r->n; i++) sum += sorted[i / times].n;
    *longest = r->n ? sorted[0].n : 0;
    if (o->tokens) sum = o->tokens > *longest ? o->tokens : *longest;
    CHECK(sum < INT_MAX / 4, "a batch of %ld tokens; a smaller --batch is needed", sum);
    free(sorted);
    return (int)sum;
}

static void show_progress(const Progress *s, const TrainOptions *o, long steps, double loss, double lr, double rate)
{
    bool live = isatty(2);
    long left = rate > 0 ? (long)((double)(steps - s->step) / rate + 0.5) : 0;
    if (o->quiet || (!live && s->step % (steps < 10 ? 1 : steps / 10) && s->step != steps)) return;
    fprintf(stderr, "%sstep %ld/%ld  loss %.4f  lr %.2e  %.0f tokens/s  ETA %ld:%02ld", live ? "\r\x1b[K" : "", s->step, steps, loss, lr,
            rate * (double)s->tokens / (double)s->step, left / 60, left % 60);
    if (s->bound < INT_MAX) fprintf(stderr, "  rows up to %d tokens", s->bound);
    if (!live || s->step == steps) fputc('\n', stderr);
}

// The loop: draw, forward, loss, backward, step. Ctrl-C (or SIGTERM) saves and ends the run (exit 1); --resume goes on from there with the
// same bits as a run that was never interrupted.
static void train(Model *m, const Rows *rows, const Rows *valid, const TrainOptions *o)
{
    int longest, longest_valid, T = largest_batch(rows, o, &longest);
    largest_batch(valid, o, &longest_valid);
    if (T < longest_valid) T = longest_valid;
    if (longest < longest_valid) longest = longest_valid;
    long all_tokens = 0;
    for (size_t i = 0; i < rows->n; i++) all_tokens += rows->row[i].n - 1;
    double per_epoch = o->tokens ? (double)all_tokens / (double)o->tokens : (double)rows->n / (double)o->batch;
    long steps = o->steps ? o->steps : (long)ceil(o->epochs * per_epoch);
    int first_bound = INT_MAX;                          // with --grow-below: three tokens, or what the shortest target has
    for (size_t i = 0; i < rows->n; i++) {
        int targets = rows->row[i].n - rows->row[i].n_condition;
        if (targets < first_bound) first_bound = targets < 3 ? 3 : targets;
    }
    Progress s = { .epoch = -1, .at = (long)rows->n, .running = -1, .bound = o->grow_below > 0 ? first_bound : INT_MAX };
    s.m = zalloc(m->n_params, sizeof(float)), s.v = zalloc(m->n_params, sizeof(float));
    if (o->resume) resume(m, &s, o);
    else m->step = 0;

    if (s.bound < first_bound) s.bound = first_bound;   // whatever a state file says, there is a row to draw
    uint32_t *order = zalloc(rows->n, sizeof *order);
    CHECK(s.at <= (long)rows->n, "the data file has changed: %zu rows, the saved run was at row %ld", rows->n, s.at);
    shuffle(order, rows->n, o->seed, s.epoch);
    Batch b;
    batch_alloc(&b, T, T, T);
    double *nll = zalloc((size_t)T, sizeof *nll);
    if (!m->grads) m->grads = zalloc(m->n_params, sizeof(float));
    acts_reserve(m, T, T, longest, true);
    FILE *log = o->log ? fopen(o->log, s.log_size > 0 ? "r+b" : "wb") : NULL;
    CHECK(log || !o->log, "cannot write %s: %s", o->log, strerror(errno));
    if (log && s.log_size > 0) CHECK(!ftruncate(fileno(log), (off_t)s.log_size) && !fseek(log, 0, SEEK_END), "cannot shorten %s", o->log);
    else if (log) fprintf(log, "step,loss,lr,norm,tokens,targets,bound,valid\n");
    struct sigaction action = { .sa_handler = on_interrupt, .sa_flags = SA_RESTART }, old, old_term;
    sigaction(SIGINT, &action, &old), sigaction(SIGTERM, &action, &old_term);

    bool log_ok = true;
    long first = s.step;
    double start = seconds();
    while (s.step < steps && !interrupted) {
        draw_batch(&b, rows, order, &s, o);
        forward(m, &b, NULL);
        double loss = loss_sum(m, &b, nll, b.n_out) / b.n_out, lr = learning_rate(o, s.step, steps);
        CHECK(isfinite(loss), "the loss is %g at step %ld; try a smaller --lr (the last checkpoint is untouched)", loss, s.step + 1);
        backward(m, &b);
        double norm = adamw(m, &s, lr, o->weight_decay, o->clip), elapsed = seconds() - start;
        CHECK(isfinite(norm), "the gradient's norm is %g at step %ld; try a smaller --lr (the last checkpoint is untouched)", norm, s.step + 1);
        s.step++, s.tokens += b.T, s.targets += b.n_out;
        s.running = s.running < 0 ? loss : 0.95 * s.running + 0.05 * loss;
        if (s.bound < INT_MAX && s.running < o->grow_below) s.running = 2 * o->grow_below, s.bound = s.bound >= longest ? INT_MAX : 2 * s.bound;
        bool save = o->save_every && s.step % o->save_every == 0;
        show_progress(&s, o, steps, s.running, lr, (double)(s.step - first) / elapsed);
        if (log) {
            fprintf(log, "%ld,%.6f,%.4e,%.4f,%ld,%ld,%d,", s.step, loss, lr, norm, s.tokens, s.targets, s.bound < INT_MAX ? s.bound : 0);
            if (valid->n && (save || s.step == steps)) fprintf(log, "%.6f", mean_loss(m, valid, &b, T, nll));
            fprintf(log, "\n");
            log_ok = !fflush(log) && log_ok;
            s.log_size = log_ok ? (int64_t)ftell(log) : s.log_size;
        }
        if (save && s.step < steps) checkpoint(m, &s, o);
    }
    checkpoint(m, &s, o);
    sigaction(SIGINT, &old, NULL), sigaction(SIGTERM, &old_term, NULL);
    if (!o->quiet) fprintf(stderr, "%s%s: %s, step %ld, %ld tokens (%ld targets), running loss %.4f, %.0f s\n", isatty(2) && interrupted ? "\n" : "", o->out, m->objective,
                           s.step, s.tokens, s.targets, s.running, seconds() - start);
    if (valid->n) fprintf(stderr, "validation loss %.4f\n", mean_loss(m, valid, &b, T, nll));
    CHECK(!log || (!fclose(log) && log_ok), "cannot write %s: %s; the model is saved", o->log, strerror(errno));
    free(order), free(nll), free(s.m), free(s.v), batch_free(&b);
    if (interrupted) fprintf(stderr, "interrupted; the same command with --resume goes on\n"), exit(1);
}

/* ============================================================================================================
   Chapter 7. Generating.  The sampler; decoding that takes y_o for a draft of y_c; correct() and answer_to(), which chapter 1
   promised; what `eval` counts; the coloured diff. */

typedef struct {
    double temperature, top_p, frequency_penalty;       // temperature 0: greedy
    int top_k, max_tokens, no_draft;                    // 0: no limit
    uint64_t seed;
} Decoding;

static const Decoding GREEDY = { .temperature = 0, .top_p = 1 };

// What generation needs beside the model. passes, copied and tokens count the work done since generator_init.
typedef struct {
    Model *m;
    Decoding how;
    Cache cache;
    Batch batch;
    int *count;                                         // [V] how often each token has been written in this text
    struct Choice { float p; int id; } *choice;         // [V] for the sampler
    long passes, tokens, copied;
} Generator;

enum { DRAFT_FIRST = 16, DRAFT_AGAIN = 8, DRAFT_MOST = 64 };    // tokens of the draft fed at once: at first, after a difference, at most

static void generator_init(Generator *g, Model *m, Decoding how)
{
    *g = (Generator){ .m = m, .how = how };
    model_pack(m);
    cache_alloc(&g->cache, &m->c, m->c.context);
    batch_alloc(&g->batch, m->c.context, 1, DRAFT_MOST + 1);
    acts_reserve(m, m->c.context, DRAFT_MOST + 1, m->c.context, false);
    g->count = zalloc((size_t)m->c.V, sizeof *g->count), g->choice = zalloc((size_t)m->c.V, sizeof *g->choice);
}

static void generator_free(Generator *g)
{
    cache_free(&g->cache), batch_free(&g->batch), free(g->count), free(g->choice);
    *g = (Generator){ 0 };
}

static int likelier_first(const void *pa, const void *pb)
{
    const struct Choice *a = pa, *b = pb;
    return a->p != b->p ? (a->p < b->p) - (a->p > b->p) : (a->id > b->id) - (a->id < b->id);
}

// Chooses the next token from one row of logits: the largest (the first one on ties), or a draw among the top_k and top_p
// likeliest at a temperature. A frequency penalty lowers each logit by the penalty times the token's count so far.
static int choose(Generator *g, float *logits)
{
    int V = g->m->c.V, best = 0, n = 0;
    const Decoding *h = &g->how;
    if (h->frequency_penalty != 0) for (int i = 0; i < V; i++) logits[i] -= (float)h->frequency_penalty * (float)g->count[i];
    for (int i = 1; i < V; i++) if (logits[i] > logits[best]) best = i;
    if ((float)h->temperature <= 0) return best;          // also 1e-60, which is no float
    double sum = 0, kept = 0;
    for (int i = 0; i < V; i++) {
        g->choice[i] = (struct Choice){ expf((logits[i] - logits[best]) / (float)h->temperature), i };
        sum += (double)g->choice[i].p;
    }
    qsort(g->choice, (size_t)V, sizeof *g->choice, likelier_first);
    while (n < V && (!h->top_k || n < h->top_k) && (n == 0 || kept < h->top_p * sum)) kept += (double)g->choice[n++].p;
    double u = random_unit(&g->how.seed) * kept;
    for (int i = 0; i < n; i++) if ((u -= (double)g->choice[i].p) < 0) return g->choice[i].id;
    return g->choice[n - 1].id;
}

// One pass over n new tokens; logits of the last n_out of them.
static const float *feed(Generator *g, const int *ids, int n, const int *more, int n_more, int n_out)
{
    Batch *b = &g->batch;
    b->T = n + n_more, b->n = 1, b->n_out = n_out, b->start[0] = 0, b->start[1] = b->T;
    for (int t = 0; t < b->T; t++) b->ids[t] = t < n ? ids[t] : more[t - n], b->pos[t] = g->cache.len + t;
    for (int i = 0; i < n_out; i++) b->out[i] = b->T - n_out + i;
    forward(g->m, b, &g->cache);
    g->passes++;
    return g->m->acts.logits;
}

// Where the draft goes on after a difference: behind the place where it has the last 3 (or 2) tokens of out, first from `from`
// on, then anywhere. -1 where it has them nowhere.
static int resume_draft(const int *draft, int n_draft, const Ids *out, int from)
{
    for (int n = 3; n >= 2; n--)
        for (int again = 0; n <= out->n && again < 2; again++)
            for (int i = again ? 0 : from; i + n < n_draft; i++)
                if (!memcmp(draft + i, out->a + out->n - n, (size_t)n * sizeof(int))) return i + n;
    return -1;
}

// Continues the prompt; out receives the new tokens. True where the model ended the text with </s>, false where room ran out.
// A draft speeds greedy decoding up and changes no token (Shallow Aggressive Decoding, arXiv 2106.04970; LLMA, 2304.04487): a
// run of it is fed at once, the longest prefix that the model itself would have written is kept, and the model's own token
// follows at the first difference. For an Aligner the draft is y_o, and the runs that are kept are what it copies.
static bool generate(Generator *g, const Ids *prompt, const int *draft, int n_draft, Ids *out)
{
    bool drafting = draft && g->how.temperature <= 0 && !g->how.no_draft;
    int at = drafting ? 0 : -1, block = DRAFT_FIRST, last, room = g->m->c.context;
    size_t V8 = ((size_t)g->m->c.V + 7) / 8 * 8;
    const int *pending = prompt->a;
    int n_pending = prompt->n;
    memset(g->count, 0, (size_t)g->m->c.V * sizeof *g->count);
    g->cache.len = 0;
    while (g->cache.len + n_pending <= room) {
        int guesses = at < 0 ? 0 : n_draft - at < block ? n_draft - at : block, i = 0;
        if (guesses > room - g->cache.len - n_pending) guesses = room - g->cache.len - n_pending;
        float *logits = (float *)feed(g, pending, n_pending, at < 0 ? NULL : draft + at, guesses, guesses + 1);
        for (;; i++, logits += V8) {
            last = choose(g, logits);
            if (last == EOS) return true;
            if (g->how.max_tokens && out->n == g->how.max_tokens) return false;
            ids_add(out, last), g->count[last]++, g->tokens++;
            if (i == guesses || last != draft[at + i]) break;
            g->copied++;
        }
        g->cache.len -= guesses - i;                    // forget the guesses behind the first difference
        pending = &last, n_pending = 1;
        if (drafting) {
            bool on = at >= 0 && i == guesses && at + i < n_draft && last == draft[at + i];
            block = on ? (block * 2 < DRAFT_MOST ? block * 2 : DRAFT_MOST) : DRAFT_AGAIN;
            at = on ? at + i + 1 : resume_draft(draft, n_draft, out, at < 0 ? 0 : at);
        }
    }
    return false;
}

// Answers r's condition, with r's target for a draft. out becomes the text as far as it came. Returns NULL, or why it found no
// end (valid until the next call). Frees r.
static const char *reply(Generator *g, Row r, Buf *out)
{
    static char reason[128];
    Ids condition = { r.ids, r.n_condition, 0 }, ids = { 0 };
    *reason = 0;
    if (r.n_condition >= g->m->c.context)
        snprintf(reason, sizeof reason, "the prompt takes %d tokens, the model's context is %d", r.n_condition, g->m->c.context);
    else if (!generate(g, &condition, r.ids + r.n_condition, r.n - r.n_condition - 1, &ids))
        snprintf(reason, sizeof reason, "no end after %d tokens", ids.n);
    free(out->s), free(r.ids);
    *out = decode_all(&g->m->tok, ids.a, ids.n);
    free(ids.a);
    return *reason ? reason : NULL;
}

// y_c ~ mu_phi(. | y_o, x): one draw from the Aligner; the right-hand factor of Eq. (2). Greedy unless told otherwise. Returns
// NULL, or the reason for which y_o could not be corrected: y_c is then y_o, so that no upstream answer is ever lost.
static const char *correct_with(Generator *g, Text x, Text y_o, Buf *y_c)
{
    const char *reason = reply(g, row(g->m, prompt(g->m, x, y_o), y_o), y_c);
    if (!reason && !y_c->n && y_o.n) reason = "the model wrote nothing";
    if (reason) y_c->n = 0, buf_add(y_c, y_o.s, y_o.n);
    return reason;
}

static const char *correct(Model *mu, Text x, Text y_o, Buf *y_c)
{
    Generator g;
    generator_init(&g, mu, GREEDY);
    const char *reason = correct_with(&g, x, y_o, y_c);
    generator_free(&g);
    return reason;
}

// y_o ~ pi_theta(. | x): the left-hand factor of Eq. (2). NULL, or why it found no end (y_o holds what there is).
static const char *answer_with(Generator *g, Text x, Buf *y_o) { return reply(g, row(g->m, prompt(g->m, x, NONE), NONE), y_o); }

static bool answer_to(Model *pi, Text x, Buf *y_o)
{
    Generator g;
    generator_init(&g, pi, GREEDY);
    bool ended = !answer_with(&g, x, y_o);
    generator_free(&g);
    return ended;
}

// Levenshtein distance of two lists of ids: the fewest insertions, deletions and substitutions from a to b.
static int levenshtein(const int *a, int n, const int *b, int m)
{
    while (n && m && *a == *b) a++, b++, n--, m--;     // what both share at the ends costs nothing
    while (n && m && a[n - 1] == b[m - 1]) n--, m--;
    int *d = zalloc((size_t)m + 1, sizeof *d);
    for (int j = 0; j <= m; j++) d[j] = j;
    for (int i = 1; i <= n; i++) {
        int diagonal = d[0];
        d[0] = i;
        for (int j = 1; j <= m; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = d[j];
            if (d[j] + 1 < best) best = d[j] + 1;
            if (d[j - 1] + 1 < best) best = d[j - 1] + 1;
            d[j] = best;
        }
    }
    int distance = d[m];
    free(d);
    return distance;
}

typedef struct { Buf name; long copy, exact, correct, right, missed; double degree; } Tally;

// Sorts one row into a tally: what was due (copy or correct) and what came.
static void tally(Tally *t, const Tokenizer *k, Text y_o, Text gold, Text y_c)
{
    Ids a = { 0 }, b = { 0 };
    encode(k, y_o, &a), encode(k, y_c, &b);
    t->degree += (double)levenshtein(a.a, a.n, b.a, b.n) / (a.n ? a.n : 1);        // D_L, appendix B.6
    if (same(y_o, gold)) t->copy++, t->exact += same(y_c, gold);
    else t->correct++, t->right += same(y_c, gold), t->missed += same(y_c, y_o);
    free(a.a), free(b.a);
}

// Words of a text for the diff: runs of non-blanks, each with the blanks in front of it.
static int words(Text t, Text *word, int most)
{
    int n = 0;
    for (size_t at = 0, from; (from = at) < t.n && n < most; word[n++] = (Text){ t.s + from, at - from }) {
        while (at < t.n && (t.s[at] == ' ' || t.s[at] == '\n')) at++;
        while (at < t.n && t.s[at] != ' ' && t.s[at] != '\n') at++;
        if (n == most - 1) at = t.n;                    // the last one takes what is left
    }
    return n;
}

// Are two words the same, whatever blanks stand in front of them?
static bool same_word(Text a, Text b)
{
    while (a.n && (*a.s == ' ' || *a.s == '\n')) a.s++, a.n--;
    while (b.n && (*b.s == ' ' || *b.s == '\n')) b.s++, b.n--;
    return same(a, b);
}

static void show_word(FILE *f, Text w, int change, bool color)         // change: -1 deleted, 0 kept, +1 inserted
{
    size_t blank = 0;
    while (blank < w.n && (w.s[blank] == ' ' || w.s[blank] == '\n')) blank++;
    const char *open = !change ? "" : color ? (change < 0 ? "\x1b[9;31m" : "\x1b[32m") : change < 0 ? "[-" : "{+";
    const char *close = !change ? "" : color ? "\x1b[0m" : change < 0 ? "-]" : "+}";
    fprintf(f, "%.*s%s", (int)blank, w.s, open);
    for (size_t i = blank; i < w.n; i++) if ((uint8_t)w.s[i] >= 32 && w.s[i] != 127) fputc(w.s[i], f);     // no control codes to a terminal
    fputs(close, f);
}

// Prints y_o -> y_c as one text in which the words that differ are marked (a longest common subsequence of words).
static void show_diff(FILE *f, Text y_o, Text y_c, bool color)
{
    enum { MOST = 2048 };
    Text *a = zalloc(MOST, sizeof *a), *b = zalloc(MOST, sizeof *b);
    int n = words(y_o, a, MOST), m = words(y_c, b, MOST), i = 0, j = 0;
    int *lcs = zalloc((size_t)(n + 1) * (size_t)(m + 1), sizeof *lcs);
#define LCS(i, j) lcs[(size_t)(i) * (size_t)(m + 1) + (size_t)(j)]
    for (i = n - 1; i >= 0; i--)
        for (j = m - 1; j >= 0; j--)
            LCS(i, j) = same_word(a[i], b[j]) ? LCS(i + 1, j + 1) + 1 : LCS(i + 1, j) > LCS(i, j + 1) ? LCS(i + 1, j) : LCS(i, j + 1);
    for (i = j = 0; i < n || j < m; )
        if (i < n && j < m && same_word(a[i], b[j])) show_word(f, j ? b[j] : a[i], 0, color), i++, j++;
        else if (i < n && (j == m || LCS(i + 1, j) >= LCS(i, j + 1))) show_word(f, a[i++], -1, color);
        else show_word(f, b[j++], +1, color);
#undef LCS
    fputc('\n', f);
    free(a), free(b), free(lcs);
}

/* ============================================================================================================
   Chapter 10. Command line.  stdout carries results only; progress and messages go to stderr. */

static const char USAGE[] =
"aligner.c - train and use a small Aligner (arXiv 2402.02416)\n"
"\n"
"  aligner tokenizer --data F... --vocab N --out tokenizer.bin [--prompt P]\n"
"  aligner train sft|warmup|aligner [--init M.gguf] --data F... --out M.gguf\n"
"        a model from scratch: --tokenizer F --dim N --layers N --heads N --kv-heads N --hidden N --context N --tied\n"
"        run: --steps N | --epochs X; --batch ROWS | --tokens N; --lr X --lr-warmup RATIO --weight-decay X --clip X --seed N\n"
"             --grow-below X   short rows first: the longest target doubles whenever the running loss falls below X\n"
"             --valid F --log F.csv --save-every N --resume --target answer|correction\n"
"             --prompt default|v1|v2|paper|short or a template with {question} and {answer}\n"
"  aligner answer  M.gguf [F.jsonl]     rows with question            -> the same rows with answer\n"
"  aligner correct M.gguf [F.jsonl]     rows with question and answer -> the same rows with correction and action\n"
"        --question S --answer S (instead of a file), --temperature X --top-k N --top-p X --frequency-penalty X\n"
"        --seed N --max-tokens N --no-draft --diff; --upstream M.gguf (correct in conversation: answers empty answers)\n"
"  aligner eval M.gguf --data F [--json]   loss a token, and copy or correct against the gold corrections\n"
"  aligner sample M.gguf --text S          raw continuation of a text, greedy unless told otherwise\n"
"  aligner tokens M.gguf --text S | --question S [--answer S [--correction S]]\n"
"  aligner info M.gguf\n"
"  all: --threads N --quiet --help --version. Exit 0 done, 1 bad input or failed run, 2 bad usage.\n";

static void __attribute__((noreturn, format(printf, 1, 2))) usage_error(const char *format, ...)
{
    va_list a;
    va_start(a, format);
    fprintf(stderr, "aligner: ");
    vfprintf(stderr, format, a);
    fprintf(stderr, "; `aligner --help` lists the commands and options\n");
    va_end(a);
    exit(2);
}

// Pushes out what stdout still holds: a result that did not arrive is a failed run.
static void flush_results(void) { CHECK(!fflush(stdout) && !ferror(stdout), "cannot write the result: %s", strerror(errno)); }

// Everything that the command line can say.
typedef struct {
    TrainOptions train;
    Decoding how;
    const char *text, *question, *answer, *correction, *upstream, *target;
    const char *word[4];                                // what is no option: command, model, file
    int n_words, vocab, threads, diff, json;
    long seed;
} Options;

enum Kind { FLAG, INT, LONG, REAL, STRING, FILES };

static void parse_value(const char *name, const char *s, enum Kind kind, void *p)
{
    char *end;
    errno = 0;
    double x = kind == STRING ? 0 : strtod(s, &end);
    if (kind == STRING) { *(const char **)p = s; return; }
    if (errno || end == s || *end || !isfinite(x)) usage_error("%s needs a number, not \"%s\"", name, s);
    if (kind != REAL && (x < 0 || x > 2e9 || x != floor(x))) usage_error("%s needs a whole number from 0 to 2000000000, not \"%s\"", name, s);
    if (kind == REAL && x < 0) usage_error("%s needs a number from 0 on, not \"%s\"", name, s);
    if (kind == REAL) *(double *)p = x;
    else if (kind == LONG) *(long *)p = (long)x;
    else *(int *)p = (int)x;
}

static void parse_options(Options *o, int argc, char **argv)
{
    TrainOptions *t = &o->train;
    Decoding *h = &o->how;
    struct { const char *name; enum Kind kind; void *p; } option[] = {
        { "--data", FILES, NULL }, { "--init", STRING, &t->init }, { "--out", STRING, &t->out }, { "--tokenizer", STRING, &t->tokenizer },
        { "--valid", STRING, &t->valid }, { "--log", STRING, &t->log }, { "--prompt", STRING, &t->prompt }, { "--vocab", INT, &o->vocab },
        { "--dim", INT, &t->dim }, { "--layers", INT, &t->layers }, { "--heads", INT, &t->heads }, { "--kv-heads", INT, &t->kv_heads },
        { "--hidden", INT, &t->hidden }, { "--context", INT, &t->context }, { "--tied", FLAG, &t->tied }, { "--steps", LONG, &t->steps },
        { "--epochs", REAL, &t->epochs }, { "--batch", LONG, &t->batch }, { "--tokens", LONG, &t->tokens }, { "--lr", REAL, &t->lr },
        { "--lr-warmup", REAL, &t->lr_warmup }, { "--weight-decay", REAL, &t->weight_decay }, { "--clip", REAL, &t->clip },
        { "--grow-below", REAL, &t->grow_below }, { "--save-every", LONG, &t->save_every }, { "--resume", FLAG, &t->resume },
        { "--target", STRING, &o->target }, { "--temperature", REAL, &h->temperature }, { "--top-k", INT, &h->top_k }, { "--top-p", REAL, &h->top_p },
        { "--frequency-penalty", REAL, &h->frequency_penalty }, { "--max-tokens", INT, &h->max_tokens }, { "--no-draft", FLAG, &h->no_draft },
        { "--seed", LONG, &o->seed }, { "--diff", FLAG, &o->diff }, { "--json", FLAG, &o->json }, { "--text", STRING, &o->text },
        { "--question", STRING, &o->question }, { "--answer", STRING, &o->answer }, { "--correction", STRING, &o->correction },
        { "--upstream", STRING, &o->upstream }, { "--threads", INT, &o->threads }, { "--quiet", FLAG, &t->quiet } };
    size_t n = sizeof option / sizeof *option;
    for (int i = 1; i < argc; i++) {
        const char *s = argv[i];
        if (!strcmp(s, "--help") || !strcmp(s, "-h")) fputs(USAGE, stdout), flush_results(), exit(0);
        if (!strcmp(s, "--version")) puts("aligner.c 1.0 (arXiv 2402.02416, PDF of January 2025)"), flush_results(), exit(0);
        if (strncmp(s, "--", 2)) {
            if (o->n_words == 3) usage_error("\"%s\" is one word too many", s);
            o->word[o->n_words++] = s;
            continue;
        }
        size_t k = 0;
        while (k < n && strcmp(s, option[k].name)) k++;
        if (k == n) usage_error("there is no option %s", s);
        if (option[k].kind == FLAG) { *(int *)option[k].p = 1; continue; }
        if (i + 1 == argc) usage_error("%s needs a value", s);
        if (option[k].kind != FILES) { parse_value(s, argv[++i], option[k].kind, option[k].p); continue; }
        while (i + 1 < argc && strncmp(argv[i + 1], "--", 2)) {
            if (t->n_data == 16) usage_error("--data takes at most 16 files");
            t->data[t->n_data++] = argv[++i];
        }
    }
}

static const char *need_word(const Options *o, int i, const char *what)
{
    if (o->n_words <= i) usage_error("`%s` needs %s", o->word[0], what);
    return o->word[i];
}

static void run_tokenizer(const Options *o)
{
    Model m = { 0 };                                    // only its template is used
    Tokenizer k;
    Buf all = { 0 }, x = { 0 }, y_o = { 0 }, y_c = { 0 };
    if (!o->train.n_data || !o->train.out || !o->vocab) usage_error("`tokenizer` needs --data, --vocab and --out");
    if (o->vocab < FIRST_PIECE || o->vocab > MAX_VOCAB) usage_error("--vocab %d: %d to %d was expected", o->vocab, FIRST_PIECE, MAX_VOCAB);
    set_template(&m, o->train.prompt ? o->train.prompt : "default");
    for (int i = 0; i < o->train.n_data; i++) {
        Objects in;
        Text object;
        objects_open(&in, o->train.data[i]);
        while (next_object(&in, &object)) {             // what the model will see: the filled prompt, and the correction
            Text q = get_text(&in, object, "question", &x), a = get_text(&in, object, "answer", &y_o);
            Buf p = prompt(&m, q, a);
            buf_puts(&all, " "), buf_add(&all, p.s, p.n), buf_puts(&all, "\n");
            if (json_find(object, "correction").s) a = get_text(&in, object, "correction", &y_c);
            buf_puts(&all, " "), buf_add(&all, a.s, a.n), buf_puts(&all, "\n");
            free(p.s);
        }
        objects_close(&in);
    }
    tokenizer_train(&k, (Text){ all.s, all.n }, o->vocab);
    tokenizer_save(&k, o->train.out);
    if (!o->train.quiet) fprintf(stderr, "%s: %d pieces from %zu bytes of text\n", o->train.out, k.V, all.n);
    tokenizer_free(&k), model_free(&m), free(all.s), free(x.s), free(y_o.s), free(y_c.s);
}

// A run of hours must not fail at its end because there is no such folder.
static void check_writable(const char *path)
{
    Buf temp = joined(path, ".tmp");
    FILE *f = fopen(temp.s, "wb");
    CHECK(f, "cannot write %s: %s; name a folder that exists and can be written", path, strerror(errno));
    fclose(f), remove(temp.s), free(temp.s);
}

static void model_from_scratch(Model *m, const TrainOptions *t)
{
    *m = (Model){ 0 };
    if (!t->tokenizer) usage_error("`train` needs --init M.gguf, or --tokenizer F for a model from scratch");
    tokenizer_load(&m->tok, t->tokenizer);
    m->c = (Config){ m->tok.V, t->dim, t->layers, t->heads, t->kv_heads ? t->kv_heads : t->heads, t->hidden ? t->hidden : t->dim * 11 / 4,
                     t->context, t->tied, 1e-5f, 10000.0f };
    config_check(&m->c, "the shape asked for");
    model_alloc(m);
    model_init(m, (uint64_t)t->seed);
}

static void run_train(const Options *o)
{
    static const struct { const char *name; Objective build; } OBJECTIVE[] = { { "sft", sft }, { "warmup", warmup }, { "aligner", aligner } };
    TrainOptions t = o->train;
    const char *name = need_word(o, 1, "an objective: sft, warmup or aligner");
    Objective build = NULL;
    for (int i = 0; i < 3; i++) if (!strcmp(name, OBJECTIVE[i].name)) build = OBJECTIVE[i].build;
    if (!build) usage_error("\"%s\" is no objective; sft, warmup or aligner was expected", name);
    if (o->n_words > 2) usage_error("\"%s\" is one word too many; data files go behind --data", o->word[2]);
    if (!t.n_data || !t.out) usage_error("`train` needs --data and --out");
    if (!t.steps && t.epochs <= 0) usage_error("`train` needs --steps or --epochs");
    if (t.epochs > 1e6) usage_error("--epochs %g is too large", t.epochs);
    if (t.dim > 16384) usage_error("--dim needs a number up to 16384");
    if (t.batch < 1) usage_error("--batch needs a number from 1 on");
    if (o->target && strcmp(o->target, "answer") && strcmp(o->target, "correction")) usage_error("--target is answer or correction");
    t.target_correction = o->target && !strcmp(o->target, "correction");
    if (t.target_correction && build != sft) usage_error("--target correction goes with sft; warmup and aligner know their targets");
    t.seed = o->seed;

    check_writable(t.out);
    Model m;
    if (t.resume || t.init) model_load(&m, t.resume ? t.out : t.init);
    else model_from_scratch(&m, &t);
    if (t.prompt) set_template(&m, t.prompt);
    else if (!m.template) set_template(&m, "default");
    if (t.resume && strcmp(m.objective, name)) DIE("%s was trained as \"%s\"; resuming it as \"%s\" would mix two runs", t.out, m.objective, name);
    snprintf(m.objective, sizeof m.objective, "%s", name);
    Rows rows = { 0 }, valid = { 0 };
    for (int i = 0; i < t.n_data; i++) rows_load(&rows, &m, t.data[i], build, t.target_correction);
    if (t.valid) rows_load(&valid, &m, t.valid, build, t.target_correction);
    CHECK(rows.n, "no rows to train on in %s", t.data[0]);
    if (!t.quiet) fprintf(stderr, "%s: %zu rows, %zu parameters, vocabulary %d, %d threads\n", name, rows.n, m.n_params, m.c.V, max_threads());
    train(&m, &rows, &valid, &t);
    rows_free(&rows), rows_free(&valid), model_free(&m);
}

// Writes the members of object but those named, then `more` (members, ready made), as one line.
static void put_row(FILE *f, Text object, const char *drop1, const char *drop2, const Buf *more)
{
    Buf line = { 0 };
    Text key, value;
    bool any = false;
    for (size_t at = 0; json_member(object, &at, &key, &value); ) {
        if (key_is(key, drop1) || key_is(key, drop2) || key_is(key, "reason")) continue;
        buf_puts(&line, any ? ", " : "{"), any = true;
        buf_add(&line, key.s, key.n), buf_puts(&line, ": ");
        buf_add(&line, value.s, value.n);
    }
    for (size_t i = 0; i < line.n; i++) if (line.s[i] == '\n' || line.s[i] == '\r') line.s[i] = ' ';      // between tokens only
    buf_puts(&line, any ? ", " : "{"), buf_add(&line, more->s, more->n), buf_puts(&line, "}\n");
    if (fwrite(line.s, 1, line.n, f) != line.n || fflush(f)) DIE("cannot write the result: %s", strerror(errno));
    free(line.s);
}

static bool use_color(FILE *f) { return isatty(fileno(f)) && !getenv("NO_COLOR"); }

static void show_verdict(FILE *f, Text y_o, Text y_c, const char *reason)
{
    bool copied = same(y_o, y_c);
    fprintf(f, "%s%s%s%s%s\n", use_color(f) ? copied ? "\x1b[2m" : "\x1b[1m" : "", copied ? "copied" : "corrected", reason ? ": " : "", reason ? reason : "", use_color(f) ? "\x1b[0m" : "");
}

static bool ask(const char *label, Buf *line)
{
    char *s = NULL;
    size_t cap = 0;
    fprintf(stderr, "%s", label);
    ssize_t n = getline(&s, &cap, stdin);
    line->n = 0;
    while (n > 0 && (s[n - 1] == '\n' || s[n - 1] == '\r')) n--;
    if (n > 0) buf_add(line, s, (size_t)n);
    else buf_add(line, "", 0);
    free(s);
    return n >= 0 && !feof(stdin);
}

// answer and correct on a terminal: question in, answer in (or from the upstream model), correction out, until end of input.
static void converse(Generator *g, Model *upstream, bool correcting)
{
    Buf x = { 0 }, y_o = { 0 }, y_c = { 0 };
    fprintf(stderr, "%s End with Ctrl-D.\n", correcting ? upstream ? "An empty answer asks the upstream model." : "Question, then the answer to be corrected." : "Ask.");
    while (ask("question x   > ", &x)) {
        if (!x.n) continue;
        Text q = { x.s, x.n };
        if (!correcting) { answer_with(g, q, &y_o), printf("%s\n", y_o.s); continue; }
        if (!ask("answer y_o   > ", &y_o)) break;
        const char *reason;
        if (!y_o.n && upstream) {
            reason = composed_policy(upstream, g->m, q, &y_o, &y_c);
            fprintf(stderr, "answer y_o   = %s\n", y_o.s);
        } else reason = correct_with(g, q, (Text){ y_o.s, y_o.n }, &y_c);
        printf("correction   = ");
        show_diff(stdout, (Text){ y_o.s, y_o.n }, (Text){ y_c.s, y_c.n }, use_color(stdout));
        show_verdict(stdout, (Text){ y_o.s, y_o.n }, (Text){ y_c.s, y_c.n }, reason);
        fflush(stdout);
    }
    fputc('\n', stderr);
    free(x.s), free(y_o.s), free(y_c.s);
}

// Adds answer or correction and action to every row of the input.
static void filter(Generator *g, const char *path, bool correcting, bool diff)
{
    Objects in;
    Text object;
    Buf x = { 0 }, y_o = { 0 }, y_c = { 0 }, more = { 0 };
    objects_open(&in, path);
    while (next_object(&in, &object)) {
        Text q = get_text(&in, object, "question", &x);
        more.n = 0;
        if (!correcting) {
            const char *reason = answer_with(g, q, &y_o);
            buf_puts(&more, "\"answer\": "), json_put(&more, (Text){ y_o.s, y_o.n });
            if (reason) buf_puts(&more, ", \"reason\": "), json_put(&more, text(reason));
            put_row(stdout, object, "answer", "answer", &more);
            continue;
        }
        Text a = get_text(&in, object, "answer", &y_o), raw = json_find(object, "answer");
        const char *reason = correct_with(g, q, a, &y_c);
        Text c = { y_c.s, y_c.n };
        bool copied = same(a, c);
        buf_puts(&more, "\"correction\": ");
        if (copied) buf_add(&more, raw.s, raw.n);       // byte for byte, however it was written
        else json_put(&more, c);
        buf_puts(&more, copied ? ", \"action\": \"copy\"" : ", \"action\": \"correct\"");
        if (reason) buf_puts(&more, ", \"reason\": "), json_put(&more, text(reason));
        if (diff) {
            printf("x    %s\ny_o  %s\ny_c  ", x.s, y_o.s);
            show_diff(stdout, a, c, use_color(stdout)), printf("     "), show_verdict(stdout, a, c, reason), putchar('\n');
            flush_results();
        }
        else put_row(stdout, object, "correction", "action", &more);
    }
    objects_close(&in);
    free(x.s), free(y_o.s), free(y_c.s), free(more.s);
}

// `answer` and `correct`.
static void run_generate(const Options *o, bool correcting)
{
    Model m, upstream;
    Generator g;
    Decoding how = o->how;
    how.seed = (uint64_t)o->seed;
    model_load(&m, need_word(o, 1, "a model"));
    if (correcting && !strcmp(m.objective, "sft")) DIE("%s was trained by `train sft`: it answers, it does not correct; use `answer`", o->word[1]);
    if (!correcting && (!strcmp(m.objective, "aligner") || !strcmp(m.objective, "warmup")))
        DIE("%s is an Aligner: it corrects answers, it does not give them; use `correct`", o->word[1]);
    if (!m.template) DIE("%s has no prompt template inside; models made by `train` have one; `sample` continues raw text", o->word[1]);
    if (o->upstream) model_load(&upstream, o->upstream);
    generator_init(&g, &m, how);
    double start = seconds();
    if (o->question) {
        Buf out = { 0 };
        Text x = text(o->question), y_o = o->answer ? text(o->answer) : NONE;
        if (correcting && !o->answer) usage_error("--question needs --answer here");
        const char *reason = correcting ? correct_with(&g, x, y_o, &out) : answer_with(&g, x, &out);
        if (o->diff && correcting) show_diff(stdout, y_o, (Text){ out.s, out.n }, use_color(stdout));
        else fwrite(out.s, 1, out.n, stdout), putchar('\n');
        if (!correcting && reason) fprintf(stderr, "aligner: %s\n", reason);
        if (correcting && (o->diff || reason)) show_verdict(o->diff ? stdout : stderr, y_o, (Text){ out.s, out.n }, reason);
        free(out.s);
    } else if (o->n_words < 3 && isatty(0) && isatty(1)) converse(&g, o->upstream ? &upstream : NULL, correcting);
    else filter(&g, o->n_words > 2 ? o->word[2] : NULL, correcting, o->diff);
    double s = seconds() - start;
    if (!o->train.quiet && !isatty(0) && !o->question) fprintf(stderr, "%ld tokens, %ld of them copied from the draft, in %ld passes, %.1f s\n", g.tokens, g.copied, g.passes, s);
    generator_free(&g), model_free(&m);
    if (o->upstream) model_free(&upstream);
}

static double percent(long n, long of) { return of ? 100.0 * (double)n / (double)of : 0; }

static void show_tally(const Tally *t, bool json)
{
    long wrong = t->correct - t->right - t->missed, n = t->copy + t->correct;
    if (json) printf("\"copy\": {\"rows\": %ld, \"exact\": %ld}, \"correct\": {\"rows\": %ld, \"exact\": %ld, \"missed\": %ld, \"wrong\": %ld}, \"degree\": %.4f",
                     t->copy, t->exact, t->correct, t->right, t->missed, wrong, n ? t->degree / (double)n : 0);
    else printf("%-12s to copy: %5ld rows, %6.2f %% exact;  to correct: %5ld rows, %6.2f %% exact, %6.2f %% wrong, %6.2f %% missed;  D_L %.3f\n", t->name.s,
                t->copy, percent(t->exact, t->copy), t->correct, percent(t->right, t->correct), percent(wrong, t->correct), percent(t->missed, t->correct),
                n ? t->degree / (double)n : 0);
}

// Loss a target token, then greedy corrections against the gold ones, also by "category" where rows carry one.
static void run_eval(const Options *o)
{
    Model m;
    Generator g;
    Rows rows = { 0 };
    Tally all = { .name = { .s = "all" } }, *category = NULL;
    size_t n_categories = 0, room = 0;
    Buf x = { 0 }, y_o = { 0 }, gold = { 0 }, y_c = { 0 }, name = { 0 };
    int longest, T;
    TrainOptions t = { .batch = 16 };
    model_load(&m, need_word(o, 1, "a model"));
    if (!o->train.n_data) usage_error("`eval` needs --data");
    for (int i = 0; i < o->train.n_data; i++) rows_load(&rows, &m, o->train.data[i], strcmp(m.objective, "sft") ? aligner : sft, false);
    T = largest_batch(&rows, &t, &longest);
    Batch b;
    long targets = 0;
    for (size_t i = 0; i < rows.n; i++) targets += rows.row[i].n - rows.row[i].n_condition;
    batch_alloc(&b, T, T, T);
    acts_reserve(&m, T, T, longest, false);
    double *nll = zalloc((size_t)T, sizeof *nll), loss = mean_loss(&m, &rows, &b, T, nll);

    generator_init(&g, &m, GREEDY);
    for (int i = 0; i < o->train.n_data && strcmp(m.objective, "sft"); i++) {
        Objects in;
        Text object;
        objects_open(&in, o->train.data[i]);
        while (next_object(&in, &object)) {
            Text q = get_text(&in, object, "question", &x), a = get_text(&in, object, "answer", &y_o), c = get_text(&in, object, "correction", &gold);
            correct_with(&g, q, a, &y_c);
            tally(&all, &m.tok, a, c, (Text){ y_c.s, y_c.n });
            Text raw = json_find(object, "category");
            if (!raw.n || *raw.s != '"') continue;
            Text kind = get_text(&in, object, "category", &name);
            size_t k = 0;
            while (k < n_categories && !same(kind, (Text){ category[k].name.s, category[k].name.n })) k++;
            category = grow(category, sizeof *category, &room, k + 1);
            if (k == n_categories) category[n_categories++] = (Tally){ .name = name }, name = (Buf){ 0 };
            tally(&category[k], &m.tok, a, c, (Text){ y_c.s, y_c.n });
        }
        objects_close(&in);
    }
    if (o->json) {
        printf("{\"rows\": %zu, \"target_tokens\": %ld, \"loss\": %.6f, ", rows.n, targets, loss);
        show_tally(&all, true);
        printf(", \"categories\": {");
        for (size_t k = 0; k < n_categories; k++) {
            Buf key = { 0 };
            json_put(&key, (Text){ category[k].name.s, category[k].name.n });
            printf("%s%s: {", k ? ", " : "", key.s), show_tally(&category[k], true), putchar('}');
            free(key.s);
        }
        puts("}}");
    } else {
        printf("%zu rows, %ld target tokens: loss %.4f a token, perplexity %.3f\n", rows.n, targets, loss, exp(loss));
        if (all.copy + all.correct) show_tally(&all, false);
        for (size_t k = 0; k < n_categories; k++) show_tally(&category[k], false);
    }
    generator_free(&g), batch_free(&b), rows_free(&rows), model_free(&m);
    for (size_t k = 0; k < n_categories; k++) free(category[k].name.s);
    free(category), free(nll), free(x.s), free(y_o.s), free(gold.s), free(y_c.s), free(name.s);
}

static void run_sample(const Options *o)
{
    Model m;
    Generator g;
    Ids prompt = { 0 }, out = { 0 };
    Decoding how = o->how;
    how.seed = (uint64_t)o->seed;
    if (!how.max_tokens) how.max_tokens = 256;
    model_load(&m, need_word(o, 1, "a model"));
    ids_add(&prompt, BOS);
    encode(&m.tok, text(o->text ? o->text : ""), &prompt);
    CHECK(prompt.n <= m.c.context, "the text has %d tokens, the model's context is %d", prompt.n, m.c.context);
    generator_init(&g, &m, how);
    generate(&g, &prompt, NULL, 0, &out);
    for (int i = 0; i < out.n; i++) ids_add(&prompt, out.a[i]);
    Buf all = decode_all(&m.tok, prompt.a, prompt.n);
    fwrite(all.s, 1, all.n, stdout), putchar('\n');
    free(all.s), free(prompt.a), free(out.a), generator_free(&g), model_free(&m);
}

static void run_tokens(const Options *o)
{
    Model m = { 0 };
    Ids ids = { 0 };
    int n_condition = -1;
    const char *path = need_word(o, 1, "a model or a tokenizer.bin");
    size_t n = strlen(path);
    if (n > 4 && !strcmp(path + n - 4, ".bin")) tokenizer_load(&m.tok, path);
    else model_load(&m, path);
    if (o->question) {
        if (!m.template) set_template(&m, o->train.prompt ? o->train.prompt : "default");
        Triple t = { text(o->question), text(o->answer ? o->answer : ""), text(o->correction ? o->correction : "") };
        Row r = o->correction ? aligner(&m, t) : o->answer && strcmp(m.objective, "sft") ? warmup(&m, t) : sft(&m, t);
        ids.a = r.ids, ids.n = r.n, n_condition = r.n_condition;
    } else if (o->text) ids_add(&ids, BOS), encode(&m.tok, text(o->text), &ids);
    else usage_error("`tokens` needs --text or --question");
    for (int i = 0; i < ids.n; i++) {
        Buf piece = { 0 };
        json_put(&piece, m.tok.piece[ids.a[i]]);
        printf("%d\t%s%s\n", ids.a[i], piece.s, n_condition < 0 ? "" : i < n_condition ? "\tcondition" : "\ttarget");
        free(piece.s);
    }
    free(ids.a), model_free(&m);
}

static void run_info(const Options *o)
{
    Model m;
    model_load(&m, need_word(o, 1, "a model"));
    const Config *c = &m.c;
    printf("dim %d, layers %d, heads %d, key/value heads %d, hidden %d, context %d, vocabulary %d, head %s\n", c->C, c->L, c->H, c->H_kv, c->F,
           c->context, c->V, c->tied ? "tied" : "untied");
    printf("%zu parameters in %zu tensors, %.1f MB as f32\n", m.n_params, m.n_tensors, (double)m.n_params * 4e-6);
    if (*m.objective) printf("trained as %s, %ld steps\n", m.objective, m.step);
    if (m.template) printf("prompt: %s\nprompt without answer: %s\n", m.template, m.template_sft);
    model_free(&m);
}

#ifndef ALIGNER_NO_MAIN
int main(int argc, char **argv)
{
    Options o = { .how = GREEDY, .seed = 1, .train = { .dim = 128, .layers = 3, .heads = 4, .context = 256, .batch = 16, .lr = 1e-3,
                  .lr_warmup = 0.03, .clip = 1.0 } };
    parse_options(&o, argc, argv);
    if (!o.n_words) fputs(USAGE, stderr), exit(2);
#ifdef _OPENMP
    if (o.threads > 1024) usage_error("--threads needs a number up to 1024");
    if (o.threads) omp_set_num_threads(o.threads);
#endif
    const char *command = o.word[0];
    if (!strcmp(command, "tokenizer")) run_tokenizer(&o);
    else if (!strcmp(command, "train")) run_train(&o);
    else if (!strcmp(command, "answer")) run_generate(&o, false);
    else if (!strcmp(command, "correct")) run_generate(&o, true);
    else if (!strcmp(command, "eval")) run_eval(&o);
    else if (!strcmp(command, "sample")) run_sample(&o);
    else if (!strcmp(command, "tokens")) run_tokens(&o);
    else if (!strcmp(command, "info")) run_info(&o);
    else usage_error("there is no command \"%s\"", command);
    flush_results();
    return 0;
}
#endif

/* MIT License

   Copyright (c) 2026 the authors of aligner.c

   Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation
   files (the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy,
   modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the
   Software is furnished to do so, subject to the following conditions:

   The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
   Software.

   THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
   WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
   COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE,
   ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE. */
