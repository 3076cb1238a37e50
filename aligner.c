/* aligner.c - "Aligner: Efficient Alignment by Learning to Correct" in one C file.

   The paper: Ji et al., arXiv 2402.02416, NeurIPS 2024; equation and page numbers are those of the PDF of January 2025.
   An Aligner is a small model mu_phi(y_c | x, y_o). It reads a question x and the answer y_o of some upstream model,
   and writes the corrected answer y_c: y_o itself where that was good. It is trained once and stacked on any upstream
   model.

       objective        condition   target   loss, a mean over the target's tokens                     source
       sft              x           y_o      - E log pi_theta(y_o | x)                                  Eq. (1)
       warmup           x, y_o      y_o      - E log mu_phi  (y_o | y_o, x)   learn to copy first       p. 3
       aligner          x, y_o      y_c      - E log mu_phi  (y_c | y_o, x)   then copy or correct      Eq. (4)

   That is all there is to it: SFT becomes Aligner when one line changes (chapter 1). The loss knows nothing of it.

   Notation.  Paper code: x query, y_o original answer, y_c corrected answer, pi_theta the upstream model, mu_phi the
              Aligner, M = {(x, y_o, y_c)} the data. Tensor code: T tokens of a batch, L layers, C = dim, H heads,
              hs head size, V vocabulary, F hidden size of the feed-forward; gradients carry the prefix d. A[T][C] is
              row-major.

   Chapters   1 the paper      triples, the three objectives, Eqs. (1)-(4), the composed policy  <- the paper path:
              2 tokenizer      byte-pair encoding: files, encode, decode, trainer                   chapters 1, 5, 6, 7
              3 kernels        each forward with its backward below it; the matmul last             are one sitting;
              4 model          configuration, one table of tensors, GGUF files                      2, 3, 4 are tools
              5 passes         forward, loss and backward over the layers                           to look up; 8 and 9
              6 training       Q-A-C files, packed batches, AdamW and Muon, the loop, resume        can be skipped
              7 generating     sampler, draft-verified decoding, correct()
              8 alternatives   DPO, reward model, RLHF: what the paper compares with
              9 inside         both sides of Eq. (3); steering: copy or correct as a direction
             10 command line   main reads like a table of contents

   Policies.  Memory: sized once before a loop starts; nothing is allocated inside a pass or a step. Numbers: f32, every
              sum in one fixed order, so the same seed gives the same bits with any number of threads. Threads: OpenMP
              where present, and loops write disjoint outputs only. Files are hostile: every length is checked before it
              is used. Errors: die() says what was expected, what was found and what to do, and exits 1; bad usage
              exits 2. */

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

// Three types that every chapter uses. A Text looks at bytes, a Buf and an Ids own theirs; { 0 } is an empty one.
typedef struct { const char *s; size_t n; } Text;       // any bytes, also NUL; not owned unless said so
typedef struct { char *s; size_t n, cap; } Buf;         // text that grows; s is always followed by a NUL
typedef struct { int *a, n; size_t cap; } Ids;          // token ids that grow
typedef struct Model Model;

/* ============================================================================================================
   Chapter 1. The paper.  Everything that the paper adds to an ordinary language model stands here. */

typedef struct { Text x, y_o, y_c; } Triple;            // one element of M: question, original answer, corrected answer

// <s> condition target </s> as token ids; the loss is on ids[n_condition .. n).
typedef struct { int *ids; int n_condition, n; } Row;

#define NONE ((Text){ NULL, 0 })                        // "no y_o in the prompt": the SFT counterpart of the template

static Buf prompt(const Model *m, Text x, Text y_o);         // fills the model's template; tokenized as one string
static Row row(const Model *m, Buf condition, Text target);  // tokenizes; draws the line between condition and target

// The three objectives. From sft to aligner one line changes (`make diff` shows it): y_o moves into the condition, and
// the target becomes the correction. The warm-up stands between: the same condition as the Aligner, the same target as
// SFT.

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

// The loss of all three: next-token cross-entropy, mean over the target tokens of a batch (chapter 5 computes it for
// packed batches). The condition carries no loss: that is the official code's -100 labels, and the only mask of the
// loss.

// Why Eq. (4) is enough. Upstream and Aligner together are one policy, Eq. (2), p. 3:
//
//     pi'(y_c | x) = sum_k mu_phi(y_c | y_k, x) pi_theta(y_k | x)  >=  mu_phi(y_c | y_o, x) pi_theta(y_o | x)
//
// All terms but y_k = y_o are dropped; they are non-negative, so no Jensen is needed. Minus the logarithm, over M, Eq.
// (3):
//
//     - E log pi'(y_c | x)  <=  - E log mu_phi(y_c | y_o, x)  - E log pi_theta(y_o | x)
//
// The last term does not depend on phi: what is left to minimise is Eq. (4). pi_theta is never trained, not even
// opened.

static bool answer_to(Model *pi, Text x, Buf *y_o);                      // y_o ~ pi_theta(. | x)        (chapter 7)
static const char *correct(Model *mu, Text x, Text y_o, Buf *y_c);      // y_c ~ mu_phi(. | y_o, x)     (chapter 7)
static void buf_add(Buf *b, const void *s, size_t n);                    // appends n bytes

// One draw from the composed policy pi'(. | x) of Eq. (2): the upstream answers, the Aligner copies or corrects. Only
// text passes between them, so each may have its own tokenizer. Returns NULL, or why y_c had to stay y_o (or what there
// is of it).
static const char *composed_policy(Model *pi, Model *mu, Text x, Buf *y_o, Buf *y_c)
{
    if (!answer_to(pi, x, y_o)) {
        y_c->n = 0, buf_add(y_c, y_o->s, y_o->n);
        return "the upstream model found no end to its answer";
    }
    return correct(mu, x, (Text){ y_o->s, y_o->n }, y_c);
}

/* ------------------------------------------------------------------------------------------------------------
   Small things that every chapter needs: errors, memory, growing text, random numbers, files. */

// The only way to fail: CHECK(what must hold, a message as for printf). It guards input; nothing here is a debugging
// assert.
#define DIE(...) die(__FILE__, __LINE__, __VA_ARGS__)
#define CHECK(condition, ...) do { if (!(condition)) DIE(__VA_ARGS__); } while (0)

// How many bytes the control character at s takes: 1, or 2 for U+0080 to U+009F; 0 where there is none. Reads s[1].
static int control_length(const char *s)
{
    uint8_t c = (uint8_t)*s;
    return c < 32 || c == 127 ? 1 : c == 0xC2 && (uint8_t)s[1] >> 5 == 4 ? 2 : 0;
}

// Prints one message (what was expected, what was found, what to do) with its place in this file; exits 1. Messages
// quote file contents, so control codes are replaced: the message stays one line and cannot talk to the terminal.
static void __attribute__((noreturn, format(printf, 3, 4))) die(const char *file, int line, const char *format, ...)
{
    const char *base = strrchr(file, '/');
    char message[1024];
    va_list a;
    va_start(a, format);
    vsnprintf(message, sizeof message, format, a);
    va_end(a);
    for (char *c = message; *c; c++) memset(c, '?', (size_t)control_length(c));
    fflush(stdout);
    fprintf(stderr, "aligner: %s (%s:%d)\n", message, base ? base + 1 : file, line);
    exit(1);
}

// n elements of the given size, all zero, 64-byte aligned for the vector units; dies where memory is short. The product
// is checked because both factors may come from a file.
static void *zalloc(size_t n, size_t size)
{
    CHECK(!size || n <= (SIZE_MAX - 64) / size, "%zu x %zu bytes are more than this machine can address", n, size);
    size_t bytes = n * size / 64 * 64 + 64;
    void *p = aligned_alloc(64, bytes);
    CHECK(p, "no memory for %zu bytes; a smaller model, batch or context needs less", bytes);
    return memset(p, 0, bytes);
}

// Makes room for n elements in a (of *cap) and keeps what is there. Doubling makes n appends cost O(n) copies in all.
static void *grow(void *a, size_t size, size_t *cap, size_t n)
{
    if (n <= *cap) return a;
    *cap = *cap * 2 > n ? *cap * 2 : n < 16 ? 16 : n;
    CHECK(*cap <= SIZE_MAX / size, "%zu x %zu bytes are more than this machine can address", *cap, size);
    a = realloc(a, *cap * size);
    CHECK(a, "no memory for %zu bytes", *cap * size);
    return a;
}

static void buf_add(Buf *b, const void *s, size_t n)
{
    b->s = grow(b->s, 1, &b->cap, b->n + n + 1);
    if (n) memcpy(b->s + b->n, s, n);
    b->s[b->n += n] = 0;
}

static void buf_puts(Buf *b, const char *s) { buf_add(b, s, strlen(s)); }
static Buf joined(const char *a, const char *b) { Buf s = { 0 }; buf_puts(&s, a), buf_puts(&s, b); return s; }

// A copy of t with a NUL behind it, owned by the caller; NULL where t is no text at all.
static char *copy_text(Text t)
{
    Buf own = { 0 };
    if (t.s) buf_add(&own, t.s, t.n);
    return own.s;
}

// Appends one id. Positions are ints everywhere, so a text must not have more tokens than an int can count.
static void ids_add(Ids *v, int id)
{
    CHECK(v->n < INT_MAX - 1, "a text of more than %d tokens", INT_MAX - 1);
    v->a = grow(v->a, sizeof *v->a, &v->cap, (size_t)v->n + 1);
    v->a[v->n++] = id;
}

// A C string or a Buf as a Text (nothing is copied), and whether two texts have the same bytes.
static Text text(const char *s) { return (Text){ s, strlen(s) }; }
static Text contents(const Buf *b) { return (Text){ b->s, b->n }; }
#define SHOW(t) (int)(t).n, (t).s                       // a Text as the two arguments of "%.*s"
static bool same(Text a, Text b) { return a.n == b.n && (!a.n || !memcmp(a.s, b.s, a.n)); }

// How many bytes the first byte of t announces for its character, but no more than t has (t is not empty). UTF-8 writes
// that into the high bits: 0xxxxxxx 1, 110xxxxx 2, 1110xxxx 3, 11110xxx 4; a stray 10xxxxxx, inside a character, counts
// as 1.
static size_t utf8_span(Text t)
{
    uint8_t c = (uint8_t)*t.s;
    size_t n = c < 0xC0 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
    return n < t.n ? n : t.n;
}

// The bytes of the character at the start of t; 0 where that is no UTF-8. Overlong forms (C0, C1, E0 80.., F0 80..),
// surrogates (ED A0..) and what lies beyond U+10FFFF (F4 90.., F5..) are refused, as every strict reader does.
static size_t utf8_length(Text t)
{
    const uint8_t *s = (const uint8_t *)t.s, c = t.n ? *s : 0xFF;
    size_t n = c < 0x80 ? 1 : c < 0xC2 ? 0 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : c < 0xF5 ? 4 : 0;
    if (n > t.n) return 0;
    for (size_t j = 1; j < n; j++) if (s[j] >> 6 != 2) return 0;
    bool overlong = (c == 0xE0 && s[1] < 0xA0) || (c == 0xF0 && s[1] < 0x90);
    return overlong || (c == 0xED && s[1] > 0x9F) || (c == 0xF4 && s[1] > 0x8F) ? 0 : n;
}

// Time that only goes forward, whatever happens to the clock on the wall; for durations.
static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// splitmix64 (Steele, Lea, Flood 2014): the only source of randomness in this file. Its state is one number, so a run
// can be repeated or resumed by knowing it.
static uint64_t random_u64(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

// Uniform in [0, 1): the upper 53 bits, as many as a double's mantissa holds, so that rounding never gives 1.
static double random_unit(uint64_t *state) { return (double)(random_u64(state) >> 11) * 0x1p-53; }

// Reads a whole file (or what is left of a stream, where f is given) into memory; the caller frees .s.
static Buf read_all(const char *path, FILE *f)
{
    Buf b = { 0 };
    FILE *in = f ? f : fopen(path, "rb");
    CHECK(in, "cannot open %s: %s; name a file that exists and can be read", path, strerror(errno));
    char chunk[65536];
    buf_add(&b, "", 0);
    for (size_t n; (n = fread(chunk, 1, sizeof chunk, in)) > 0; ) buf_add(&b, chunk, n);
    CHECK(!ferror(in), "cannot read %s: %s", path, strerror(errno));
    if (!f) fclose(in);
    return b;
}

// Binary files are read through this: bytes in memory, taken from the front. need() is the one place that compares with
// what is left, and it compares n itself, never a sum that could wrap; the readers of tokenizer.bin and of GGUF look at
// no byte that they did not get from it.
typedef struct { const char *path, *what, *p; size_t n, at; } File;     // what: the part of the file that is being read

// The next n bytes; dies where fewer are left.
static const char *need(File *f, uint64_t n)
{
    CHECK(n <= f->n - f->at, "%s: ends inside %s (%llu bytes wanted, %zu left); copy the file again", f->path, f->what,
          (unsigned long long)n, f->n - f->at);
    f->at += (size_t)n;
    return f->p + (f->at - (size_t)n);
}

// Numbers in files are little-endian, as this machine's are; memcpy because they may stand at any address.
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files are read and written as they stand in memory");
static uint32_t read_u32(File *f) { uint32_t v; memcpy(&v, need(f, 4), 4); return v; }
static uint64_t read_u64(File *f) { uint64_t v; memcpy(&v, need(f, 8), 8); return v; }
static float read_f32(File *f) { float v; memcpy(&v, need(f, 4), 4); return v; }

// Writes the parts to a temporary file beside path, then renames it: renaming is atomic, so nobody ever sees half a
// file, and a crash or a full disk leaves the old one whole.
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
   Chapter 2. Tokenizer.  Byte-pair encoding as SentencePiece and llama.cpp do it. Gives tokenizer_load, encode, decode
   and tokenizer_train. Skip it if you take "a text becomes a list of ids and back, without loss" for granted.

   A model reads and writes ids, not letters. The vocabulary is a list of pieces, bits of text that are frequent enough
   to deserve an id of their own. From ids to text is a look-up. From text to ids is merging: start from single
   characters, join two neighbours into a larger piece, the earliest learnt first, until no pair of neighbours is a
   piece. With the pieces bc, ab, " a" and abc, learnt in this order:

       " abc"   ->   " " a b c   ->   " " a bc   ->   " a" bc

   bc goes first; then " " and a could merge, and a and bc as well, but " a" was learnt before abc. (tests/tokenizer.c
   works such merges by hand.) So the ids of a text depend on the order of learning, and that is what the scores keep.

   ids: 0 <unk>, 1 <s>, 2 </s>, 3..258 the bytes as <0xHH>, then merged pieces (score -rank: earlier merges win), then
   single characters. Every byte has a piece, so any text can be encoded, emoji, broken UTF-8 and zeros included, and
   decoding gives back the same bytes.

   How many pieces? Fewer make longer texts, and attention pays for length; more make a larger embedding and rarer,
   worse learnt tokens. `aligner tokens tokenizer.bin --text "..."` shows how a text falls apart. */

enum { UNK = 0, BOS = 1, EOS = 2, BYTE0 = 3, FIRST_PIECE = 259, MAX_VOCAB = 1000000 };

typedef struct {
    int V;                      // vocabulary size
    int longest;                // bytes of the longest piece
    Text *piece;                // piece[id]: its bytes, a space being a space; owned
    float *score;               // score[id]: among the possible merges the highest score goes first
    int *slot;                  // hash table from bytes to id (-1: empty); only pieces that text can build are in it
    size_t mask;                // its size - 1; the size is a power of two, so h & mask is h modulo size
} Tokenizer;

#define GGUF_SPACE "\xE2\x96\x81"                        // U+2581, which GGUF files write for a space

// The slot that holds t, or the empty slot where it would go: FNV-1a, then the next slots one by one. The table is at
// least twice as large as the vocabulary, so the walk is short and an empty slot always ends it.
static size_t find_slot(const Tokenizer *k, Text t)
{
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < t.n; i++) h = (h ^ (uint8_t)t.s[i]) * 1099511628211u;
    size_t i = (size_t)(h ^ h >> 32) & k->mask;
    while (k->slot[i] >= 0 && !same(k->piece[k->slot[i]], t)) i = (i + 1) & k->mask;
    return i;
}

// The id of the piece that is t, or -1.
static int find_piece(const Tokenizer *k, Text t) { return k->slot[find_slot(k, t)]; }

// Room for V pieces, none of them set. set_piece sets them; then tokenizer_index makes the tokenizer ready for use.
static void tokenizer_alloc(Tokenizer *k, int V)
{
    *k = (Tokenizer){ .V = V, .mask = 1 };
    k->piece = zalloc((size_t)V, sizeof *k->piece);
    k->score = zalloc((size_t)V, sizeof *k->score);
    while (k->mask < 2 * (size_t)V) k->mask *= 2;
    k->slot = zalloc(k->mask, sizeof *k->slot);
    memset(k->slot, -1, k->mask * sizeof *k->slot);
    k->mask--;
}

// Frees what the tokenizer owns and leaves an empty one behind.
static void tokenizer_free(Tokenizer *k)
{
    for (int i = 0; i < k->V; i++) free((char *)k->piece[i].s);
    free(k->piece), free(k->score), free(k->slot);
    *k = (Tokenizer){ 0 };
}

// Copies the bytes, which may stand in a file or in a text that will be freed.
static void set_piece(Tokenizer *k, int id, Text bytes, float score)
{
    k->piece[id] = (Text){ copy_text(bytes), bytes.n };
    k->score[id] = score;
}

// Once all pieces are set: fills the hash table and refuses a vocabulary that two programs would read differently. Ids
// below FIRST_PIECE stay out of the table: a user who types "</s>" must not be able to write a control token.
static void tokenizer_index(Tokenizer *k, const char *path)
{
    memset(k->slot, -1, (k->mask + 1) * sizeof *k->slot);
    for (int id = BYTE0; id < FIRST_PIECE; id++) {
        char byte[8];
        snprintf(byte, sizeof byte, "<0x%02X>", (id - BYTE0) & 255);
        CHECK(same(k->piece[id], text(byte)), "%s: piece %d should be the byte %s but is \"%.*s\"; only vocabularies "
              "with byte fallback at ids 3..258 are read", path, id, byte, SHOW(k->piece[id]));
    }
    for (int id = FIRST_PIECE; id < k->V; id++) {
        Text t = k->piece[id];
        CHECK(t.n > 0 && t.n <= 1024, "%s: piece %d has %zu bytes; 1 to 1024 were expected", path, id, t.n);
        CHECK(strlen(t.s) == t.n, "%s: piece %d holds a zero byte, where other programs see its end", path, id);
        CHECK(!strstr(t.s, GGUF_SPACE), "%s: piece %d holds U+2581, which stands for a space in GGUF files", path, id);
        CHECK(isfinite(k->score[id]), "%s: piece %d has a score that is no finite number", path, id);
        int *slot = &k->slot[find_slot(k, t)];
        CHECK(*slot < 0, "%s: pieces %d and %d are both \"%.*s\"; pieces must be unique", path, *slot, id, SHOW(t));
        *slot = id;
        if ((int)t.n > k->longest) k->longest = (int)t.n;
    }
}

// Reads tokenizer.bin (llama2.c's layout): u32 longest, then { f32 score, u32 n, n bytes } to the end of the file.
// Nothing says how many pieces there are; since each takes 8 bytes at least, the size of the file bounds them.
static void tokenizer_load(Tokenizer *k, const char *path)
{
    Buf bytes = read_all(path, NULL);
    File f = { path, "the pieces", bytes.s, bytes.n, 0 };
    int n = 0;
    read_u32(&f);                                       // the length of the longest piece: counted anew, never trusted
    tokenizer_alloc(k, bytes.n / 8 < MAX_VOCAB ? (int)(bytes.n / 8) + 1 : MAX_VOCAB);
    while (f.at < f.n) {
        CHECK(n < MAX_VOCAB, "%s: more than %d pieces; is it a tokenizer.bin?", path, MAX_VOCAB);
        float score = read_f32(&f);
        uint32_t length = read_u32(&f);
        set_piece(k, n++, (Text){ need(&f, length), length }, score);
    }
    CHECK(n >= FIRST_PIECE, "%s: %d pieces; %d were expected at least: 3 specials, 256 bytes", path, n, FIRST_PIECE);
    k->V = n;
    tokenizer_index(k, path);
    free(bytes.s);
}

// Writes the same layout, which llama2.c reads as well.
static void tokenizer_save(const Tokenizer *k, const char *path)
{
    Buf f = { 0 };
    uint32_t longest = k->longest > 6 ? (uint32_t)k->longest : 6;      // "<0xHH>" and "\n</s>\n" have 6
    buf_add(&f, &longest, 4);
    for (int i = 0; i < k->V; i++) {
        uint32_t n = (uint32_t)k->piece[i].n;
        buf_add(&f, &k->score[i], 4), buf_add(&f, &n, 4), buf_add(&f, k->piece[i].s, n);
    }
    write_file(path, 1, (Text[]){ contents(&f) });
    free(f.s);
}

/* Encoding starts with one symbol a character and merges the adjacent pair whose merged piece has the highest score,
   leftmost on ties, until no merge is left. Looking at every pair for every merge would be quadratic, and a text may
   have a megabyte: a heap keeps the candidates sorted, at O(log n) a merge. A symbol is named by the place of its first
   byte, and len[place] says how long it is; after a merge its right half has length 0. A candidate that an earlier
   merge has made stale is not searched for in the heap: it is recognised when it comes up, because the lengths no
   longer add up to its n. */

typedef struct { float score; int left, n; } Merge;  // the symbol at left and its neighbour would be a piece of n bytes
typedef struct { Merge *a; size_t n, cap; } Heap;    // a[0] is the best; a[i] goes before a[2 i + 1] and a[2 i + 2]

static bool before(Merge a, Merge b) { return a.score > b.score || (a.score == b.score && a.left < b.left); }

// Puts the new one at the end and lets it rise past the parents that it beats.
static void heap_push(Heap *h, Merge m)
{
    h->a = grow(h->a, sizeof *h->a, &h->cap, h->n + 1);
    size_t i = h->n++;
    for (; i && before(m, h->a[(i - 1) / 2]); i = (i - 1) / 2) h->a[i] = h->a[(i - 1) / 2];
    h->a[i] = m;
}

// Takes the best one; the last one fills its place and sinks below the better child until none is better.
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

// A candidate for the heap, if the n bytes at `left` are a piece.
static void try_merge(const Tokenizer *k, Heap *h, const char *s, int left, int n)
{
    int id = n <= k->longest ? find_piece(k, (Text){ s + left, (size_t)n }) : -1;
    if (id >= 0) heap_push(h, (Merge){ k->score[id], left, n });
}

// Appends the ids of t to out, t taken as it stands. A character that has no piece is spelt in bytes.
static void encode_raw(const Tokenizer *k, Text t, Ids *out)
{
    // One symbol a character; every two neighbours are a first candidate.
    CHECK(t.n < INT_MAX, "a text of %zu bytes; at most %d can be encoded", t.n, INT_MAX - 1);
    int end = (int)t.n;
    int *len = zalloc(t.n, sizeof *len);                // [bytes] at a symbol's first byte: how many it has, or 0
    int *prev = zalloc(t.n, sizeof *prev);              // [bytes] where the symbol in front of it begins; -1 none
    Heap heap = { 0 };
    for (int at = 0, last = -1; at < end; last = at, at += len[at]) {
        len[at] = (int)utf8_span((Text){ t.s + at, (size_t)(end - at) });
        prev[at] = last;
        if (last >= 0) try_merge(k, &heap, t.s, last, len[last] + len[at]);
    }
    // Merge the best pair; the new symbol makes a candidate with each of its two neighbours.
    while (heap.n) {
        Merge m = heap_pop(&heap);
        int l = m.left, r = l + len[l], next = l + m.n;
        if (r >= end || len[l] + len[r] != m.n) continue;       // stale: one of the two has been merged with another
        len[l] = m.n, len[r] = 0;
        if (prev[l] >= 0) try_merge(k, &heap, t.s, prev[l], len[prev[l]] + m.n);
        if (next < end) prev[next] = l, try_merge(k, &heap, t.s, l, m.n + len[next]);
    }
    // What is left is the text in pieces.
    for (int at = 0; at < end; at += len[at]) {
        int id = find_piece(k, (Text){ t.s + at, (size_t)len[at] });
        if (id >= 0) ids_add(out, id);
        else for (int b = 0; b < len[at]; b++) ids_add(out, BYTE0 + (uint8_t)t.s[at + b]);
    }
    free(len), free(prev), free(heap.a);
}

// Appends the ids of t. As SentencePiece does, non-empty text gets a space in front: " Paris" is one token wherever a
// word begins, so the first word of y_c is the same token as the first word of y_o in the prompt. An Aligner lives from
// that: to copy is then to repeat tokens, which attention learns easily.
static void encode(const Tokenizer *k, Text t, Ids *out)
{
    if (!t.n) return;
    Buf spaced = { 0 };
    buf_add(&spaced, " ", 1), buf_add(&spaced, t.s, t.n);
    encode_raw(k, contents(&spaced), out);
    free(spaced.s);
}

// Appends the bytes of one token; <unk>, <s> and </s> have none.
static void decode(const Tokenizer *k, int id, Buf *out)
{
    if (id >= FIRST_PIECE) buf_add(out, k->piece[id].s, k->piece[id].n);
    else if (id >= BYTE0) buf_add(out, &(char){ (char)(id - BYTE0) }, 1);
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

/* The trainer (Sennrich, Haddow, Birch 2016). For instance from "aab aab ab", which has the words "aab", " aab" and
   " ab", once each:

       pairs   a b 3,  a a 2,  " " a 2              ab becomes a piece: the most frequent
       words   a ab,  " " a ab,  " " ab
       pairs   a ab 2,  " " a 1,  " " ab 1          then aab
       words   aab,  " " aab,  " " ab
       pairs   " " ab 1,  " " aab 1                 then " ab": as frequent as " aab", but shorter

   Text is cut into words; the most frequent adjacent pair of symbols inside words becomes the next piece, everywhere at
   once, and so on until the vocabulary is full. Only the different words are kept, each with its number of occurrences,
   and all pairs are simply counted again for every piece: a text of some megabytes has a few thousand different words.
   Ties go to fewer bytes, then to byte order, so the result depends on nothing but the text. */

// A bit of text and how often it occurs. left, right: of a pair, its two pieces.
typedef struct { Text t; long count; int left, right; } Part;
typedef struct { Part *a; size_t n, cap; } Parts;

// Two orders for qsort: fewer bytes first, then byte order; and the most frequent first, then by_bytes.
static int by_bytes(const void *pa, const void *pb)
{
    const Text *a = &((const Part *)pa)->t, *b = &((const Part *)pb)->t;
    return a->n != b->n ? (a->n > b->n) - (a->n < b->n) : memcmp(a->s, b->s, a->n);
}

static int by_count(const void *pa, const void *pb)
{
    const Part *a = pa, *b = pb;
    return a->count != b->count ? (a->count < b->count) - (a->count > b->count) : by_bytes(a, b);
}

// 0 control, 1 digit, 2 letter (and every byte beyond ASCII), 3 the rest.
static int character_class(char c)
{
    uint8_t u = (uint8_t)c;
    if (u < 32 || u == 127) return 0;
    if (u >= '0' && u <= '9') return 1;
    return (u | 32) >= 'a' && (u | 32) <= 'z' ? 2 : u >= 128 ? 2 : 3;      // | 32 turns upper case into lower
}

// The bytes of the word at the start of t. A space goes with the letters or signs behind it; digits and controls stand
// alone, so that numbers are spelt digit by digit; punctuation does not mix with letters.
static size_t word_length(Text t)
{
    size_t n = t.s[0] == ' ';
    int class = n < t.n && t.s[n] != ' ' ? character_class(t.s[n]) : 0;
    if (class < 2) return 1;
    while (n < t.n && t.s[n] != ' ' && character_class(t.s[n]) == class) n++;
    return n;
}

// Cuts every text of a list into parts, length() saying where a part ends. Equal parts become one: its count is the sum
// over the texts that it stands in. Sorted by bytes; the parts point into the texts.
static Parts cut(const Parts *from, size_t (*length)(Text))
{
    Parts p = { 0 };
    size_t n = 0;
    for (size_t i = 0; i < from->n; i++)
        for (Text t = from->a[i].t; t.n; t.s += n, t.n -= n) {
            n = length(t);
            p.a = grow(p.a, sizeof *p.a, &p.cap, p.n + 1);
            p.a[p.n++] = (Part){ .t = { t.s, n }, .count = from->a[i].count };
        }
    if (p.n) qsort(p.a, p.n, sizeof *p.a, by_bytes);
    n = 0;
    for (size_t i = 0; i < p.n; i++)
        if (n && same(p.a[n - 1].t, p.a[i].t)) p.a[n - 1].count += p.a[i].count;
        else p.a[n++] = p.a[i];
    p.n = n;
    return p;
}

// Gives the last ids to the characters of the words, most frequent first; what finds no room in half of the vocabulary
// stays spelt in bytes, and so do control characters, broken UTF-8 and GGUF's U+2581. Returns the first of these ids.
static int learn_characters(Tokenizer *k, const Parts *words)
{
    Parts c = cut(words, utf8_span);
    int n = 0;
    for (size_t i = 0; i < c.n; i++)
        if (!character_class(*c.a[i].t.s) || !utf8_length(c.a[i].t) || same(c.a[i].t, text(GGUF_SPACE)))
            c.a[i].count = 0;
    if (c.n) qsort(c.a, c.n, sizeof *c.a, by_count);
    while (n < (k->V - FIRST_PIECE) / 2 && (size_t)n < c.n && c.a[n].count) n++;
    for (int i = 0; i < n; i++) {
        int id = k->V - n + i;
        set_piece(k, id, c.a[i].t, (float)(FIRST_PIECE - id));
        k->slot[find_slot(k, k->piece[id])] = id;
    }
    free(c.a);
    return k->V - n;
}

// The pair to merge next; its count is 0 where there is none. table[mask + 1] is a hash table, counted anew each time.
// Counts only grow while they are counted, so the best pair so far can be kept along the way. Bytes are never merged,
// and pairs of more than 16 bytes are left out: they would be phrases, not parts of words.
static Part best_pair(const Tokenizer *k, const Parts *words, const Ids *ids, Part *table, size_t mask)
{
    Part best = { .count = 0 };
    memset(table, 0, (mask + 1) * sizeof *table);
    for (size_t w = 0; w < words->n; w++) {
        const char *s = words->a[w].t.s;                // where the left symbol of the pair begins
        for (int j = 0; j + 1 < ids[w].n; j++) {
            int left = ids[w].a[j], right = ids[w].a[j + 1];
            size_t n_left = left < FIRST_PIECE ? 1 : k->piece[left].n, n = n_left + k->piece[right].n;
            if (left >= FIRST_PIECE && right >= FIRST_PIECE && n <= 16) {
                size_t i = ((size_t)left * 0x9E3779B1u ^ (size_t)right * 0x85EBCA77u) & mask;
                while (table[i].count && (table[i].left != left || table[i].right != right)) i = (i + 1) & mask;
                table[i] = (Part){ { s, n }, table[i].count + words->a[w].count, left, right };
                if (by_count(&table[i], &best) < 0) best = table[i];
            }
            s += n_left;
        }
    }
    return best;
}

// Writes id for every (left, right) in a word, from left to right: in "aaa" the first two a become "aa", the third
// stays.
static void merge_pair(Ids *word, int left, int right, int id)
{
    int n = 0;
    for (int i = 0; i < word->n; i++) {
        bool hit = i + 1 < word->n && word->a[i] == left && word->a[i + 1] == right;
        word->a[n++] = hit ? id : word->a[i];
        i += hit;
    }
    word->n = n;
}

// Trains a vocabulary of V pieces on t and leaves it in k. Dies where the text is too small for so many: an id that no
// text leads to would be a row of the embedding that nothing ever trains.
static void tokenizer_train(Tokenizer *k, Text t, int V)
{
    tokenizer_alloc(k, V);
    // <s> and </s> stand between newlines, as llama2.c writes them: newlines are never merged, so no text can become
    // them.
    set_piece(k, UNK, text("<unk>"), 0), set_piece(k, BOS, text("\n<s>\n"), 0), set_piece(k, EOS, text("\n</s>\n"), 0);
    for (int b = 0; b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", b);
        set_piece(k, BYTE0 + b, text(name), 0);
    }
    // Words in symbols: there are no merges yet, so encoding gives characters and bytes.
    Parts whole = { &(Part){ .t = t, .count = 1 }, 1, 1 }, words = cut(&whole, word_length);
    Ids *ids = zalloc(words.n, sizeof *ids);
    size_t mask = 1023, n_symbols = 0;
    int end = learn_characters(k, &words);
    for (size_t w = 0; w < words.n; w++) encode_raw(k, words.a[w].t, &ids[w]), n_symbols += (size_t)ids[w].n;
    while (mask < 2 * n_symbols) mask = 2 * mask + 1;   // there are fewer different pairs than symbols
    Part *table = zalloc(mask + 1, sizeof *table);

    // The loop that is BPE: count, take the best pair, merge it everywhere.
    for (int id = FIRST_PIECE; id < end; ) {
        Part best = best_pair(k, &words, ids, table, mask);
        CHECK(best.count, "this text yields %d pieces only, %d were asked for; give more text or a smaller --vocab",
              id + V - end, V);
        int *slot = &k->slot[find_slot(k, best.t)];
        int piece = *slot;
        if (piece < 0) {                                // not yet known: "a" + "bc" may come after "ab" + "c"
            piece = *slot = id++;
            set_piece(k, piece, best.t, (float)(FIRST_PIECE - piece));
        }
        for (size_t w = 0; w < words.n; w++) merge_pair(&ids[w], best.left, best.right, piece);
    }
    for (size_t w = 0; w < words.n; w++) free(ids[w].a);
    free(words.a), free(ids), free(table);
    tokenizer_index(k, "the new tokenizer");
}

/* ============================================================================================================
   Chapter 3. Kernels.  Each forward has its backward below it, and the backward quotes the line it differentiates. The
   matmul comes last. Skip the chapter if you trust a gradient check: tests/gradients.c holds every function here to
   one.

   One rule holds everywhere: the order of the additions behind a number depends neither on the number of threads nor on
   how many tokens are computed at once. Floating-point addition is not associative, so this is what makes training
   reproducible, and what lets the check of a whole draft give the bits of decoding it token by token.

   How to read a backward pass. The name dx stands for the gradient of the loss by x, an array of x's shape. The
   backward of y = f(x) is given dy and computes dx by the chain rule: dx[j] = sum_i dy[i] times the derivative of y[i]
   by x[j]. Where x goes on to several places, as the residual stream does and as weights do over all tokens, its
   gradients add up: hence +=. */

#ifdef _OPENMP
static int max_threads(void) { return omp_get_max_threads(); }
static int team_size(void) { return omp_get_num_threads(); }
static int thread_rank(void) { return omp_get_thread_num(); }
#else
static int max_threads(void) { return 1; }
static int team_size(void) { return 1; }
static int thread_rank(void) { return 0; }
#endif

static int least(int a, int b) { return a < b ? a : b; }
static int round_up(int n, int unit) { return (n + unit - 1) / unit * unit; }

enum { LANES = 8 };     // sums run in 8 interleaved lanes: what one AVX2 register holds, so that compilers may use it

// The order of these seven additions is part of every result; it is the one in which halves of a register are added.
static inline float add_lanes(const float s[LANES])
{
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

// sum_i a[i] b[i]: lane l takes the i with i mod 8 = l. The order is part of the result, so it is written out.
static inline float dot(const float *a, const float *b, int n)
{
    float s[LANES] = { 0 };
    int i = 0;
    for (; i + LANES <= n; i += LANES) for (int l = 0; l < LANES; l++) s[l] += a[i + l] * b[i + l];
    for (int l = 0; i < n; i++, l++) s[l] += a[i] * b[i];
    return add_lanes(s);
}

// e^x to 2 units in the last place, in plain C that compilers vectorize (libm's expf is a call, and differs between
// systems). With n = round(x / ln 2) and r = x - n ln 2:  e^x = 2^n e^r,  |r| <= 0.35. Adding 1.5 * 2^23 leaves no bits
// for a fraction, which rounds; ln 2 is subtracted in two parts, the first of which is exact; a polynomial (Cephes)
// gives e^r; 2^n is written into the exponent's bits.
static inline float exp_f32(float x)
{
    float y = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    union { float f; uint32_t u; } scale = { y * 1.44269504f + 12582912.0f };       // its low bits are n + a constant
    float n = scale.f - 12582912.0f;
    float r = (y - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = ((1.9875691500e-4f * r + 1.3981999507e-3f) * r + 8.3334519073e-3f) * r + 4.1665795894e-2f;
    p = ((p * r + 1.6666665459e-1f) * r + 5.0000001201e-1f) * r * r + r + 1.0f;
    scale.u = (scale.u + 127) << 23;                    // no cast from float to int, which NaN would not survive
    return x < -87.0f ? 0.0f : p * scale.f;
}

// RMSNorm over each of T rows: y = x * r * w with r = 1 / sqrt(mean(x^2) + eps). Every row gets length about sqrt(C),
// then each column its own weight. r[T] is kept for the backward pass.
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
// In dx the first term is the product rule with r held fixed; but r depends on every x[j] of the row, its derivative by
// x[j] being - r^3 x[j] / C: that is the second term.
static void rmsnorm_backward(float *dx, float *dw, const float *dy, const float *x, const float *r, const float *w,
                             int T, int C)
{
    #pragma omp parallel for schedule(static)
    for (int t = 0; t < T; t++) {
        const float *xt = x + (size_t)t * C, *dyt = dy + (size_t)t * C;
        float *dxt = dx + (size_t)t * C, s[LANES] = { 0 };
        int j = 0;
        for (; j + LANES <= C; j += LANES) for (int l = 0; l < LANES; l++) s[l] += dyt[j + l] * w[j + l] * xt[j + l];
        for (int l = 0; j < C; j++, l++) s[l] += dyt[j] * w[j] * xt[j];
        float m = add_lanes(s) / (float)C * r[t] * r[t];
        for (int i = 0; i < C; i++) dxt[i] += r[t] * (dyt[i] * w[i] - xt[i] * m);
    }
    #pragma omp parallel for schedule(static)
    for (int i0 = 0; i0 < C; i0 += 16) {                // a thread owns columns of dw and walks down the rows in order
        const float *dyt = dy + i0, *xt = x + i0;
        float sum[16];                                  // in registers
        int n = least(16, C - i0);
        for (int i = 0; i < n; i++) sum[i] = dw[i0 + i];
        for (int t = 0; t < T; t++, dyt += C, xt += C)
            for (int i = 0; i < n; i++) sum[i] += dyt[i] * xt[i] * r[t];
        for (int i = 0; i < n; i++) dw[i0 + i] = sum[i];
    }
}

// Rotary position embedding, in place: in every head the pair (2i, 2i+1) of q and k turns by the angle pos *
// base^(-2i/hs). Since a turned q times a turned k depends on the difference of the angles only, attention sees how far
// apart two tokens are. Rows are ld apart; the first n_heads * hs values of a row are turned. angle[pos][hs/2] holds
// (cos, sin). The transpose of a rotation is the rotation back, so rope's backward is rope with sign -1.
static void rope(float *x, const int *pos, const float *angle, int T, int ld, int n_heads, int hs, float sign)
{
    #pragma omp parallel for schedule(static) if (T > 16)
    for (int t = 0; t < T; t++)
        for (int h = 0; h < n_heads; h++) {
            const float *a = angle + (size_t)pos[t] * hs;
            float *v = x + (size_t)t * ld + h * hs;
            for (int i = 0; i < hs; i += 2) {
                float c = a[i], s = sign * a[i + 1], v0 = v[i], v1 = v[i + 1];
                v[i] = v0 * c - v1 * s;
                v[i + 1] = v0 * s + v1 * c;
            }
        }
}

// SwiGLU (arXiv 2002.05202), where a token "thinks": up computes F features, and the gate decides for each of them how
// much of it goes on, nearly nothing (g far below 0) or all of it times g. gu[T][2F] holds gate and up side by
// side;  y[T][F] = silu(g) u  with  silu(g) = g / (1 + e^-g).
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
// (silu(g) = g s and s' = s (1 - s), so silu' = s + g s (1 - s).)
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

// Softmax of x[0..n) in place, which makes probabilities of scores: e^x[i] / sum_j e^x[j]. Subtracting the maximum
// first changes nothing but keeps e^x from overflowing. x must have room up to the next multiple of 8. Returns max and
// 1/sum through *m and *inv.
static void softmax(float *x, int n, float *m, float *inv)
{
    float s[LANES] = { 0 }, top[LANES];
    int n8 = round_up(n, LANES);
    for (int i = n; i < n8; i++) x[i] = -INFINITY;
    for (int l = 0; l < LANES; l++) top[l] = -INFINITY;
    for (int i = 0; i < n8; i += LANES)
        for (int l = 0; l < LANES; l++) top[l] = x[i + l] > top[l] ? x[i + l] : top[l];
    float max = top[0];                                 // a local: for all that the compiler knows, *m may be in x
    for (int l = 1; l < LANES; l++) if (top[l] > max) max = top[l];
    for (int i = 0; i < n8; i += LANES)
        for (int l = 0; l < LANES; l++) x[i + l] = exp_f32(x[i + l] - max), s[l] += x[i + l];
    const float scale = 1.0f / add_lanes(s);
    for (int i = 0; i < n8; i++) x[i] *= scale;
    *m = max, *inv = scale;
}

// Cross-entropy of n rows of logits[n][ld] (V of them used) against target[n]: nll[i] = - log
// softmax(logits[i])[target[i]] = max + log(sum) - logit of the target, in double because means are taken over many of
// them. The gradient of the mean over n_total targets, (softmax - one_hot) / n_total, replaces the logits: push down
// what was thought likely, push up what came.
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
   Three nested loops would do, but they load two numbers for each multiply-add and wait for memory. Here the work is
   cut so that each level of the machine holds what it repeats: a tile of MR x NR results lives in registers; the panel
   of B that it walks along, NR wide and at most KC rows, lives in the L1 cache; MC rows of A live in L2. What the tile
   cannot read as it lies is first copied ("packed") into panels, in the order in which the tile reads it. docs/speed.md
   derives the numbers. */

// The tile fits the registers: 2 MR of sums, 2 for a row of B and 1 for a number of A are 27 of the 32 (of 16 floats)
// that AVX-512 has, or 15 of AVX2's 16 (of 8 floats). V(op) is the operation on a register. Both give the same bits;
// plain C, -DSIMD=0, rounds each product before it adds, and gives others.
#ifndef SIMD
#if defined(__AVX512F__)
#define SIMD 512
#elif defined(__AVX2__) && defined(__FMA__)
#define SIMD 256
#else
#define SIMD 0
#endif
#endif
#if SIMD
#include <immintrin.h>
#if SIMD == 512
#define V(op) _mm512_##op
typedef __m512 Vector;
#else
#define V(op) _mm256_##op
typedef __m256 Vector;
#endif
#endif
enum { WIDTH = SIMD == 512 ? 16 : 8, MR = SIMD == 512 ? 12 : 6, NR = 2 * WIDTH, KC = 320, MC = 96, NC = 1024 };
_Static_assert(MC % MR == 0 && NC % NR == 0, "blocks are made of whole tiles");

typedef struct { const float *p; ptrdiff_t row, col; } View;     // element (i, j) is p[i * row + j * col]

// v without its first i rows and j columns; v with rows and columns exchanged. Neither moves a number.
static View from(View v, int i, int j) { v.p += i * v.row + j * v.col; return v; }
static View transposed(View v) { return (View){ v.p, v.col, v.row }; }

// c[mr][NR] (+)= a[mr][k] b[k][NR], where a[i][p] is a[i * row + p * col]. The one place with intrinsics; every sum
// runs over k in order, one fused multiply-add each. mr is a constant where it is called, so that all r[i] become
// registers.
#if SIMD
static inline __attribute__((always_inline))
void tile(const int mr, int k, const float *a, ptrdiff_t row, ptrdiff_t col, const float *b, float *c, size_t ldc,
          bool add)
{
    Vector r[MR][2];
    for (int i = 0; i < mr; i++) r[i][0] = r[i][1] = V(setzero_ps)();
    for (int i = 0; i < mr; i++) __builtin_prefetch(c + i * ldc, 1), __builtin_prefetch(c + i * ldc + NR - 1, 1);
    for (int p = 0; p < k; p++, a += col, b += NR) {
        // A single token waits for memory. Processors look ahead, but not beyond a page of 4096 bytes: so that is asked
        // for here. (With AVX-512 it brought nothing.)
        if (WIDTH == 8 && mr == 1) __builtin_prefetch((const void *)((uintptr_t)b + 4096));
        Vector b0 = V(loadu_ps)(b), b1 = V(loadu_ps)(b + WIDTH);
        #pragma GCC unroll 12
        for (int i = 0; i < mr; i++) {
            Vector x = V(set1_ps)(a[i * row]);
            r[i][0] = V(fmadd_ps)(x, b0, r[i][0]);
            r[i][1] = V(fmadd_ps)(x, b1, r[i][1]);
        }
    }
    #pragma GCC unroll 12
    for (int i = 0; i < mr; i++, c += ldc) {
        if (add) r[i][0] = V(add_ps)(r[i][0], V(loadu_ps)(c));
        if (add) r[i][1] = V(add_ps)(r[i][1], V(loadu_ps)(c + WIDTH));
        V(storeu_ps)(c, r[i][0]), V(storeu_ps)(c + WIDTH, r[i][1]);
    }
}

// A tile's multiply-adds without its loads, n times: registers only. No loop does more; `aligner bench` measures it.
enum { CHAINS = 12, FMA_FLOPS = CHAINS * WIDTH * 2 };
static float fma_loop(long n)
{
    Vector r[CHAINS], x = V(set1_ps)(0.999f), y = V(set1_ps)(0.001f);
    for (int i = 0; i < CHAINS; i++) r[i] = V(set1_ps)((float)i);              // distinct, or they would be one chain
    while (n--) {
        #pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++) r[i] = V(fmadd_ps)(r[i], x, y);
    }
    for (int i = 1; i < CHAINS; i++) r[0] = V(add_ps)(r[0], r[i]);
    return V(cvtss_f32)(r[0]);
}
#else
static inline void tile(const int mr, int k, const float *a, ptrdiff_t row, ptrdiff_t col, const float *b, float *c,
                        size_t ldc, bool add)
{
    float r[MR][NR] = { { 0 } };
    for (int p = 0; p < k; p++, a += col, b += NR)
        for (int i = 0; i < mr; i++)
            for (int j = 0; j < NR; j++) r[i][j] += a[i * row] * b[j];
    for (int i = 0; i < mr; i++)
        for (int j = 0; j < NR; j++) c[i * ldc + j] = add ? r[i][j] + c[i * ldc + j] : r[i][j];
}

enum { CHAINS = 12, FMA_FLOPS = CHAINS * 4 * 2 };
static float fma_loop(long n)
{
    float r[CHAINS][4];
    for (int i = 0; i < CHAINS * 4; i++) r[i / 4][i % 4] = (float)i;
    while (n--) {
        #pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++) for (int j = 0; j < 4; j++) r[i][j] = r[i][j] * 0.999f + 0.001f;
    }
    for (int i = 1; i < CHAINS * 4; i++) r[0][0] += r[i / 4][i % 4];
    return r[0][0];
}
#endif

// The rows x cols part of a tile of mr (MR, or 1 for single tokens) x NR, for the edges of C. The tile itself is always
// computed whole, so that a result has the same bits wherever the edges fall. Of A, the numbers of a row are neighbours
// (col is 1) or those of a column are (row is 1).
static void tile_part(int mr, int rows, int cols, int k, View A, const float *b, float *c, size_t ldc, bool add)
{
    float edge[MR * NR], *to = c;
    size_t ld = ldc;
    bool whole = rows == mr && cols == NR, sum = whole && add;
    if (!whole) to = edge, ld = NR;
    if (mr == 1) tile(1, k, A.p, 0, A.col, b, to, ld, sum);
    else if (A.col == 1) tile(MR, k, A.p, A.row, 1, b, to, ld, sum);
    else tile(MR, k, A.p, 1, A.col, b, to, ld, sum);
    for (int i = 0; i < rows && !whole; i++)
        for (int j = 0; j < cols; j++) c[i * ldc + j] = add ? edge[i * NR + j] + c[i * ldc + j] : edge[i * NR + j];
}

/* How a product is cut, for M = 2 MR, N = 2 NR: two rows of tiles, two panels of B with NR columns each, four tiles. A
   panel of B is stored row after row, so that the step from k to k + 1 reads the next NR floats. Each thread packs what
   it needs for itself: that costs less than waiting for one another.

             B  |  0  |  1  |           for each NC columns of B            (NR, if A is a single row)
                |     |     |               for each block of rows of B       (adds to what the former blocks gave)
       A    -----------------                   pack the block into panels
       0         | 00  | 01  |                  for each MC rows of A         (stay in L2; are packed if need be)
       1         | 10  | 11  |                      for each panel of B       (stays in L1)
                                                        for each MR rows of A
                                                            tile */

// Packs the first n rows and k columns of a view as panel[k][width]; what lies beyond n becomes zero.
static void pack(float *panel, int width, View v, int n, int k)
{
    if (n < width) memset(panel, 0, (size_t)k * width * sizeof *panel);
    if (v.row == 1 && n == NR)                                      // neighbours are copied by registers
        for (int p = 0; p < k; p++) memcpy(panel + p * width, v.p + p * v.col, NR * sizeof *panel);
    else if (v.row == 1 && n == MR)
        for (int p = 0; p < k; p++) memcpy(panel + p * width, v.p + p * v.col, MR * sizeof *panel);
    else                                                            // row by row, as weights lie
        for (int i = 0; i < n; i++) for (int p = 0; p < k; p++) panel[p * width + i] = v.p[i * v.row + p * v.col];
}

// Panel number j of B: its columns [NR j, NR j + NR), of the rows [p0, p0 + k).
static void pack_b(float *panel, View B, int p0, int k, int j, int N)
{
    pack(panel, NR, transposed(from(B, p0, j * NR)), least(NR, N - j * NR), k);
}

// K is cut into as few blocks as KC allows, and these are made equal: 352 = 176 + 176.
static int block_rows(int K)
{
    int n = (K + KC - 1) / KC;
    return n ? (K + n - 1) / n : 1;
}

// The size in floats of a packed K x N matrix, and of what gemm packs of two matrices at a time.
static size_t packed_size(int K, int N) { return (size_t)K * (size_t)round_up(N, NR); }
enum { GEMM_SIZE = (NC + MC) * KC };

// Packs the whole of B[K][N], panel after panel: packed[N/NR][K][NR]. Inside a team, the calling thread does it alone.
static void pack_all(float *packed, View B, int K, int N)
{
    #pragma omp parallel for schedule(static) if ((long)K * N > 16384)
    for (int j = 0; j < round_up(N, NR) / NR; j++) pack_b(packed + (size_t)j * K * NR, B, 0, K, j, N);
}

// The first of n things that thread `rank` of `size` does; the last one is in front of the next thread's first.
static int share(int n, int rank, int size) { return (int)((long)n * rank / size); }

// The share of thread `rank` of `size` in C (+)= A B. B may be packed already. own[GEMM_SIZE] is scratch memory of this
// thread. C is cut by rows where it is tall, else by panels; with packed weights by panels where there are enough, so
// that each is read by one thread only. Never along K: each sum is one thread's.
static void gemm(int rank, int size, int M, int N, int K, View A, View B, const float *packed, float *C, size_t ldc,
                 bool add, float *own)
{
    int panels = round_up(N, NR) / NR, mr = M == 1 ? 1 : MR, tiles = round_up(M, mr) / mr, rows = block_rows(K);
    bool by_rows = tiles >= 2 * size && (!packed || panels < 2 * size);
    int i_from = by_rows ? share(tiles, rank, size) * mr : 0, j_from = by_rows ? 0 : share(panels, rank, size);
    int i_to = by_rows ? least(share(tiles, rank + 1, size) * mr, M) : M;
    int j_to = by_rows ? panels : share(panels, rank + 1, size);
    int step = M == 1 ? 1 : NC / NR;                    // a panel and all of its K: packed weights are read in order
    float *own_b = own, *own_a = own + (size_t)NC * KC;
    for (int j0 = j_from; j0 < j_to; j0 += step)
        for (int p0 = 0; p0 < K; p0 += rows) {          // the second and later blocks add to the first
            int k = least(K - p0, rows), j1 = least(j0 + step, j_to);
            const float *b = packed ? packed + packed_size(K, j0 * NR) + (size_t)p0 * NR : own_b;
            size_t next = (size_t)(packed ? K : k) * NR;                // from one panel to the next
            for (int j = j0; j < j1 && !packed; j++) pack_b(own_b + (size_t)(j - j0) * next, B, p0, k, j, N);
            for (int i0 = i_from; i0 < i_to; i0 += MC) {
                // A tile's rows of A stay where they are, if all are there and cheap to read: along the row, or from a
                // few lines that L1 keeps for the next tiles.
                View a[MC / MR];
                bool direct = A.col == 1 || (A.row == 1 && k <= 64);
                int m = least(i_to - i0, MC);
                for (int i = 0; i < m; i += mr) {
                    View *v = &a[i / mr], panel = { own_a + (size_t)i * k, 1, mr };
                    *v = from(A, i0 + i, p0);
                    if (direct && m - i >= mr) continue;
                    pack(own_a + (size_t)i * k, mr, *v, least(mr, m - i), k);
                    *v = panel;
                }
                for (int j = j0; j < j1; j++)           // one panel of B stays in L1 for all tiles of the block of A
                    for (int i = 0; i < m; i += mr)
                        tile_part(mr, least(mr, m - i), least(NR, N - j * NR), k, a[i / mr],
                                  b + (size_t)(j - j0) * next, C + (size_t)(i0 + i) * ldc + (size_t)j * NR, ldc,
                                  add || p0);
            }
        }
}

/* What the rest of the program calls. A layer is y = W x for each token, so X[T][K] holds a token in each row, W[N][K]
   an output in each row as checkpoints store it, and Y = X W^T. Its backward needs two more products: dX sends the
   gradient on to what was in front; dW[n][k] = sum_t dY[t][n] X[t][k] is summed over all tokens. Training therefore
   costs three times a forward pass, about 6 operations for each weight and token. */

// Scratch memory of the kernels: a part for each thread.
typedef struct { float *own; size_t own_size; } Scratch;

static float *own_scratch(const Scratch *s) { return s->own + (size_t)thread_rank() * s->own_size; }

// C[M][N] (+)= A[M][K] B[K][N] with all threads, or with one where starting the others would cost more than it brings.
static void matmul(const Scratch *s, float *C, size_t ldc, View A, View B, const float *packed, int M, int N, int K,
                   bool add)
{
    #pragma omp parallel if ((double)M * N * K > 200e3)
    gemm(thread_rank(), team_size(), M, N, K, A, B, packed, C, ldc, add, own_scratch(s));
}

// Y[T][N] (+)= X[T][K] W[N][K]^T, where packed may hold W packed.
static void linear(const Scratch *s, float *Y, const float *X, const float *W, const float *packed, int T, int N, int K,
                   bool add)
{
    matmul(s, Y, (size_t)N, (View){ X, K, 1 }, (View){ W, 1, K }, packed, T, N, K, add);
}

// dW[N][K] += dY^T X, the sum over tokens, in the pieces [border[0], border[1]), [border[1], border[2]), ... [.., T).
// Each piece is summed from zero and then added: so a batch that is cut at a border gives the bits of the whole batch.
static void add_weight_gradient(const Scratch *s, float *dW, View dY, View X, const int *border, int T, int N, int K)
{
    #pragma omp parallel if ((double)T * N * K > 200e3)
    for (const int *t = border; *t < T; t++)
        gemm(thread_rank(), team_size(), N, K, t[1] - t[0], from(transposed(dY), 0, *t), from(X, *t, 0), NULL, dW,
             (size_t)K, true, own_scratch(s));
}

// Y = X W^T:   dX = dY W,   dW += dY^T X
static void linear_backward(const Scratch *s, float *dX, float *dW, const float *dY, const float *X,
                            const float *W, const int *border, int T, int N, int K)
{
    matmul(s, dX, (size_t)K, (View){ dY, N, 1 }, (View){ W, K, 1 }, NULL, T, K, N, false);
    add_weight_gradient(s, dW, (View){ dY, N, 1 }, (View){ X, K, 1 }, border, T, N, K);
}

/* Attention.  Each query looks at the keys of its own example up to its own position:
       s_j = q . k_j / sqrt(hs),   p = softmax(s),   o = sum_j p_j v_j.
   The query says what a token looks for, the keys what the earlier ones offer, the values what they hand over. If q and
   k have numbers of size one, q . k has variance hs: the root keeps softmax from picking one key before anything is
   learnt. To copy y_o, an Aligner needs no more than this: a head that finds where in y_o the text so far was last
   seen, and takes the token behind it. With grouped queries, H / H_kv query heads share one head of keys and values.
   Keys and values are kept as packed panels, which is at once what the tile wants to read and the KV cache of
   generation: a new token adds a column to the keys and a row to the values. */

typedef struct { int H, H_kv, hs, ld; } Heads;  // query heads, key/value heads, head size, row of qkv: (H + 2 H_kv) hs

// Floats of n keys, [n/NR][hs][NR], and of n values, [hs/NR][n][NR].
static size_t key_panels(int hs, int n) { return (size_t)round_up(n, NR) * (size_t)hs; }
static size_t value_panels(int hs, int n) { return (size_t)round_up(hs, NR) * (size_t)n; }

// Puts key and value number j into their panels; capacity is the number of values that a panel has room for.
static void cache_put(float *keys, float *values, int capacity, int j, const float *k, const float *v, int hs)
{
    float *panel = keys + (size_t)(j / NR) * NR * hs;
    if (j % NR == 0) memset(panel, 0, (size_t)NR * hs * sizeof *panel);    // no garbage beside the last key
    for (int i = 0; i < hs; i++) panel[i * NR + j % NR] = k[i];
    for (int i = 0; i < hs; i += NR) {
        float *row = values + ((size_t)(i / NR) * capacity + j) * NR;
        for (int u = 0; u < NR; u++) row[u] = i + u < hs ? v[i + u] : 0;
    }
}

// Queries [0, n) of one head, the first at position pos0, against keys and values [0, pos0 + n). q and out have rows
// q_ld and out_ld apart; stats[.][2] (every stats_ld floats) receives max and 1/sum of each softmax. own: scratch of
// this thread, for mr queries at a time: s[mr][longest] scores and then their softmax, last[mr][hs] the last queries.
static void attend(float *out, int out_ld, float *stats, int stats_ld, const float *q, int q_ld, const float *keys,
                   const float *values, int capacity, int n, int pos0, int hs, float *own)
{
    int longest = round_up(pos0 + n, NR), mr = n == 1 ? 1 : MR;
    float *s = own, *last = s + (size_t)MR * longest, scale = 1.0f / sqrtf((float)hs);
    for (int i0 = 0; i0 < n; i0 += mr) {
        int rows = least(n - i0, mr), n_keys = pos0 + i0 + rows;
        View Q = { q + (size_t)i0 * q_ld, q_ld, 1 }, P = { s, longest, 1 };
        if (rows < mr) {                // a tile reads MR rows; behind the last query there may be none to read
            memset(last, 0, (size_t)mr * hs * sizeof *last);
            for (int u = 0; u < rows; u++) memcpy(last + u * hs, Q.p + u * Q.row, (size_t)hs * sizeof *last);
            Q = (View){ last, hs, 1 };
        }
        // s = q . k, for NR keys at a time
        for (int j = 0; j < n_keys; j += NR)
            tile_part(mr, mr, NR, hs, Q, keys + (size_t)j * hs, s + j, (size_t)longest, false);
        // p = softmax(s / sqrt(hs)) over the keys that each query may see; zero behind them: the tile may add them all
        for (int u = 0; u < mr; u++) {
            float *su = s + (size_t)u * longest, m, inv;
            int seen = u < rows ? pos0 + i0 + u + 1 : 0;                // causal: itself and what came before
            for (int j = 0; j < seen; j++) su[j] *= scale;
            if (seen) softmax(su, seen, &m, &inv);
            if (seen && stats) stats[(size_t)(i0 + u) * stats_ld] = m, stats[(size_t)(i0 + u) * stats_ld + 1] = inv;
            for (int j = seen; j < n_keys; j++) su[j] = 0;
        }
        // o = p V, NR columns of V at a time
        for (int d = 0; d < hs; d += NR)
            tile_part(mr, rows, least(NR, hs - d), n_keys, P, values + (size_t)d * capacity,
                      out + (size_t)i0 * out_ld + d, (size_t)out_ld, false);
    }
}

// out[T][H hs] from qkv[T][ld], example e being the tokens [start[e], start[e+1]). In generation there is one example,
// and its past stands in the cache (keys and values of this layer, capacity positions a head, `past` of them filled).
static void attention(const Scratch *scratch, float *out, float *stats, const float *qkv, Heads a, const int *start,
                      int n_examples, float *cache_k, float *cache_v, int capacity, int past)
{
    int group = a.H / a.H_kv, C = a.H * a.hs;
    #pragma omp parallel for schedule(dynamic, 1) if (start[n_examples] > 16)
    for (int job = 0; job < n_examples * a.H_kv; job++) {
        int e = job / a.H_kv, g = job % a.H_kv, t0 = start[e], n = start[e + 1] - t0, room = cache_k ? capacity : n;
        // keys and values go behind the past in the cache, or into scratch memory that lives as long as this job
        size_t keys_size = key_panels(a.hs, room), values_size = value_panels(a.hs, room);
        float *own = own_scratch(scratch);
        float *keys = cache_k ? cache_k + (size_t)g * keys_size : own;
        float *values = cache_k ? cache_v + (size_t)g * values_size : own + keys_size;
        if (!cache_k) own = values + values_size;
        const float *row = qkv + (size_t)t0 * a.ld;     // of the first token: H queries, H_kv keys, H_kv values
        for (int j = 0; j < n; j++) {
            const float *k = row + (size_t)j * a.ld + (size_t)(a.H + g) * a.hs, *v = k + (size_t)a.H_kv * a.hs;
            cache_put(keys, values, room, past + j, k, v, a.hs);
        }
        for (int h = g * group; h < (g + 1) * group; h++)
            attend(out + (size_t)t0 * C + (size_t)h * a.hs, C,
                   stats ? stats + ((size_t)t0 * a.H + (size_t)h) * 2 : NULL, 2 * a.H,
                   row + (size_t)h * a.hs, a.ld, keys, values, room, n, past, a.hs, own);
    }
}

/* The way back of o = P V, P = softmax(S), S = Q K^T / sqrt(hs):
       dV += P^T dO,   dP = dO V^T,   dS = P (dP - rowsum(dO O)) / sqrt(hs),   dQ = dS K,   dK += dS^T Q.
   The sum is softmax's: dS_j = P_j (dP_j - sum_i P_i dP_i), and sum_i P_i dP_i = sum_i P_i (dO . V_i) = dO . O.
   P is computed again from the saved max and 1/sum, QB queries at a time, so that memory grows with T and not with T^2
   (the idea of FlashAttention, arXiv 2205.14135). */

enum { QB = 24 };

// m rows of P (holding q . k) and dS (holding dP) become what their names say; query u is number i0 + u.
static void softmax_backward(float *restrict P, float *restrict dS, int ld, const float *dO, const float *O, int C,
                             const float *stats, int stats_ld, int m, int i0, int hs)
{
    float scale = 1.0f / sqrtf((float)hs);
    for (int u = 0; u < m; u++, P += ld, dS += ld, dO += C, O += C, stats += stats_ld) {
        const float D = dot(dO, O, hs), max = stats[0], inv = stats[1];
        const int seen = i0 + u + 1, n8 = round_up(seen, LANES);        // whole registers; the rest is zero again below
        for (int j = 0; j < n8; j += LANES)
            for (int l = 0; l < LANES; l++) P[j + l] = exp_f32(P[j + l] * scale - max) * inv;
        for (int j = 0; j < n8; j += LANES)
            for (int l = 0; l < LANES; l++) dS[j + l] = P[j + l] * (dS[j + l] - D) * scale;
        for (int j = seen; j < i0 + m; j++) P[j] = dS[j] = 0;
    }
}

// dqkv[T][ld] receives dQ, dK, dV of every example. Parallel over examples and key/value heads: the query heads of a
// group add to the same dK and dV, so they are one thread's, one after the other. The heads of an example lie side by
// side: where there are examples enough, a thread takes them all.
static void attention_backward(const Scratch *scratch, float *dqkv, const float *dout, const float *out,
                               const float *stats, const float *qkv, Heads a, const int *start, int n_examples)
{
    int group = a.H / a.H_kv, C = a.H * a.hs;
    #pragma omp parallel for schedule(dynamic, n_examples < 4 * max_threads() ? 1 : a.H_kv)
    for (int job = 0; job < n_examples * a.H_kv; job++) {
        int e = job / a.H_kv, g = job % a.H_kv, t0 = start[e], n = start[e + 1] - t0, ld = round_up(n, NR);
        size_t packed = packed_size(a.hs, n);
        float *Kt = own_scratch(scratch), *Vt = Kt + packed, *P = Vt + packed, *dS = P + (size_t)QB * ld;
        float *own = dS + (size_t)QB * ld;
        size_t k0 = (size_t)t0 * a.ld + (size_t)(a.H + g) * a.hs, v0 = k0 + (size_t)a.H_kv * a.hs;
        View K = { qkv + k0, a.ld, 1 }, V = { qkv + v0, a.ld, 1 };
        pack_all(Kt, transposed(K), a.hs, n), pack_all(Vt, transposed(V), a.hs, n);     // read by every block and head
        // dK and dV are sums over heads and blocks of queries. The first block, which writes instead of adding, is the
        // last one of the text: it sees all keys.
        bool add = false;
        for (int h = g * group; h < (g + 1) * group; h++)
            for (int i0 = (n - 1) / QB * QB; i0 >= 0; i0 -= QB, add = true) {
                int m = least(n - i0, QB), keys = i0 + m;               // no query of the block sees more keys
                size_t t = (size_t)(t0 + i0), q0 = t * a.ld + (size_t)h * a.hs, o0 = t * C + (size_t)h * a.hs;
                View Q = { qkv + q0, a.ld, 1 }, dO = { dout + o0, C, 1 }, Pv = { P, ld, 1 }, dSv = { dS, ld, 1 };
                gemm(0, 1, m, keys, a.hs, Q, transposed(K), Kt, P, (size_t)ld, false, own);
                gemm(0, 1, m, keys, a.hs, dO, transposed(V), Vt, dS, (size_t)ld, false, own);
                softmax_backward(P, dS, ld, dO.p, out + o0, C, stats + (t * a.H + (size_t)h) * 2, 2 * a.H, m, i0, a.hs);
                gemm(0, 1, m, a.hs, keys, dSv, K, NULL, dqkv + q0, (size_t)a.ld, false, own);
                gemm(0, 1, keys, a.hs, m, transposed(dSv), Q, NULL, dqkv + k0, (size_t)a.ld, add, own);
                gemm(0, 1, keys, a.hs, m, transposed(Pv), dO, NULL, dqkv + v0, (size_t)a.ld, add, own);
            }
    }
}

// The scratch memory, in floats, that one thread needs for a pass over examples of at most n tokens: what attention
// takes on its way forward, or attention_backward, or gemm for itself; the last is part of the second.
static size_t own_scratch_size(int hs, int n)
{
    size_t ld = (size_t)round_up(n, NR);
    size_t forward = key_panels(hs, n) + value_panels(hs, n) + MR * ((size_t)hs + ld);
    size_t backward = 2 * packed_size(hs, n) + 2 * QB * ld + GEMM_SIZE;
    return forward > backward ? forward : backward;
}

/* ============================================================================================================
   Chapter 4. Model.  Llama's transformer: RMSNorm, rotary embeddings, SwiGLU, grouped-query attention, no biases, the
   head tied to the embeddings or not. Gives the configuration, the one table of tensors, initial weights, and GGUF
   files that llama.cpp and all that stands on it open unchanged. Skip the file format if you only want the mathematics.

   A layer, x being the residual stream, a row of C numbers for each token:

       x += attention(rmsnorm(x) Wqkv^T) Wo^T                 tokens look at what came before them
       x += swiglu(rmsnorm(x) Wgate_up^T) Wdown^T             each token thinks by itself

   In front of the first layer token_embd turns ids into rows; behind the last one rmsnorm and the head turn rows into V
   logits. The names and shapes of the tensors, W[rows][cols] taking cols numbers to rows numbers:

       token_embd    [V][C]       one row for each piece of the vocabulary
       attn_norm     [C]          ffn_norm  [C]           the weights of the two norms of a layer
       attn_q        [C][C]       H queries of hs = C / H numbers each
       attn_k, _v    [kv][C]      H_kv keys and values; kv = H_kv hs
       attn_output   [C][C]       mixes what the heads bring
       ffn_gate, _up [F][C]       ffn_down  [C][F]        SwiGLU, there and back
       output_norm   [C]          output    [V][C]        the head; absent where it is tied to token_embd

   A model so has  V C (1 if tied, else 2) + L C (2 C + 2 kv + 3 F + 2) + C  weights: for the Aligner of train.sh, with
   V 3072, C 96, L 5, H = H_kv = 3, F 144 and a tied head, that makes 687,648, of which the embedding has 43 %. */

typedef struct {
    int V, C, L, H, H_kv, F, context;   // vocabulary, dim, layers, heads, key/value heads, hidden, longest example
    bool tied;                          // is the output head the embedding matrix?
    float eps, theta;                   // of RMSNorm; base of the rotary angles
} Config;

// A matrix W[rows][cols] at params + at; for the weights of a norm rows = 1.
typedef struct { char name[40]; int rows, cols; size_t at; } Tensor;

// Where the weights of a layer begin in the arena of weights, and its matrices in the packed copy.
typedef struct {
    size_t attn_norm, qkv, o, ffn_norm, gate_up, down;
    size_t packed_qkv, packed_o, packed_gate_up, packed_down;
} LayerAt;

// What a pass computes and the backward pass needs, in one arena. Arrays "[L]" have a part for each layer, one after
// the other: training keeps every layer's for the way back, generation needs the present layer's only and so has one
// part. The names are those of forward() in chapter 5; rmsnorm's r and softmax's stats are kept because they are
// cheaper to store than to compute again.
typedef struct {
    int T, n_out, longest;              // room: tokens, positions with logits, tokens of one example with its past
    bool training;
    float *x;                           // [L + 1][T][C] the residual stream before each layer; in generation [T][C]
    float *mid;                         // [L][T][C]     ... after attention
    float *norm1, *norm2, *r1, *r2;     // [L][T][C], [L][T]
    float *qkv, *att, *stats;           // [L][T][(H + 2 H_kv) hs], [L][T][C], [L][T][H][2]
    float *gate_up, *act;               // [L][T][2 F], [L][T][F]
    float *picked;                      // [n_out][C]     att of the last layer, where a logit is wanted
    float *last_norm, *r;               // [n_out][C], [n_out]: what the classifier sees
    float *logits;                      // [n_out][V], rows logits_ld apart (chapter 5)
    float *dx, *dbig, *dsmall;          // gradients: [T][C], [T][max(F, qkv)], [T][C]
    int *unit, *unit_out;               // [T + 1] where the units of the batch begin: tokens, positions with logits
    float *arena;
    Scratch scratch;
} Acts;

struct Model {
    Config c;
    Tokenizer tok;
    char *template, *template_sft;      // prompts with and without {answer}
    char objective[16];                 // what it was trained for: sft, warmup, aligner, dpo, ...; empty where unknown
    long step;                          // optimiser steps behind these weights; ties checkpoint and optimiser state
    Tensor *tensor;                     // [n_tensors] the one table: names, shapes, places in params, grads and moments
    LayerAt *layer;
    size_t n_tensors, n_params, embd_at, norm_at, out_at, packed_out;
    float *params, *grads;              // grads only while training
    float *packed;                      // weights in the matmul's panels, for generation; NULL while out of date
    float *angle;                       // [context][hs / 2][2] cosines and sines of the rotary embedding
    const float *steer;                 // [L][C] added to x behind each layer, chapter 9; NULL: nothing is
    Acts acts;
};

// Sizes that follow from a configuration. With grouped queries (H_kv < H) keys and values, and the cache of generation,
// are narrower than the queries; a row of qkv has all three side by side.
static int head_size(const Config *c) { return c->C / c->H; }
static int kv_dim(const Config *c) { return head_size(c) * c->H_kv; }
static int qkv_dim(const Config *c) { return c->C + 2 * kv_dim(c); }

// How many weights model_alloc will make room for.
static uint64_t count_weights(const Config *c)
{
    uint64_t C = (uint64_t)c->C, layer = C * (uint64_t)(2 * c->C + 2 * kv_dim(c) + 3 * c->F + 2);
    return (uint64_t)c->L * layer + (uint64_t)c->V * C * (c->tied ? 1 : 2) + C;
}

// Enters W[rows][cols] into the table and the arena of weights; returns where it begins there. layer -1: not of a
// layer.
static size_t add_tensor(Model *m, const char *name, int layer, int rows, int cols)
{
    Tensor *t = &m->tensor[m->n_tensors++];
    if (layer < 0) snprintf(t->name, sizeof t->name, "%s.weight", name);
    else snprintf(t->name, sizeof t->name, "blk.%d.%s.weight", layer, name);
    t->rows = rows, t->cols = cols, t->at = m->n_params;
    m->n_params += (size_t)rows * (size_t)cols;
    return t->at;
}

// Lays out the table of tensors for m->c and allocates the weights. q, k, v follow each other, and so do gate and up:
// each group is one matrix to the matmul. This is the only list of tensors: files, gradients, moments and AdamW go by
// it.
static void model_alloc(Model *m)
{
    const Config *c = &m->c;
    int C = c->C, F = c->F, hs = head_size(c);
    m->tensor = zalloc((size_t)c->L * 9 + 3, sizeof *m->tensor);
    m->layer = zalloc((size_t)c->L, sizeof *m->layer);
    // The table. add_tensor also counts the weights, so a tensor's place is the sum of the sizes in front of it.
    m->embd_at = add_tensor(m, "token_embd", -1, c->V, C);
    for (int l = 0; l < c->L; l++) {
        LayerAt *y = &m->layer[l];
        y->attn_norm = add_tensor(m, "attn_norm", l, 1, C);
        y->qkv = add_tensor(m, "attn_q", l, C, C);
        add_tensor(m, "attn_k", l, kv_dim(c), C);
        add_tensor(m, "attn_v", l, kv_dim(c), C);
        y->o = add_tensor(m, "attn_output", l, C, C);
        y->ffn_norm = add_tensor(m, "ffn_norm", l, 1, C);
        y->gate_up = add_tensor(m, "ffn_gate", l, F, C);
        add_tensor(m, "ffn_up", l, F, C);
        y->down = add_tensor(m, "ffn_down", l, C, F);
        // The packed copy for generation has a layout of its own: rows are rounded up to NR there.
        y->packed_qkv = m->packed_out;
        y->packed_o = y->packed_qkv + packed_size(C, qkv_dim(c));
        y->packed_gate_up = y->packed_o + packed_size(C, C);
        y->packed_down = y->packed_gate_up + packed_size(C, 2 * F);
        m->packed_out = y->packed_down + packed_size(F, C);
    }
    m->norm_at = add_tensor(m, "output_norm", -1, 1, C);
    m->out_at = c->tied ? m->embd_at : add_tensor(m, "output", -1, c->V, C);
    m->params = zalloc(m->n_params, sizeof *m->params);
    // The pair (2i, 2i+1) turns by pos * theta^(-2i/hs): the first pairs tell near tokens apart, the last ones far
    // ones.
    m->angle = zalloc((size_t)c->context * (size_t)hs, sizeof *m->angle);
    for (size_t j = 0; j < (size_t)c->context * (size_t)hs; j += 2) {
        double a = (double)(j / (size_t)hs) * pow((double)c->theta, -(double)(j % (size_t)hs) / hs);
        m->angle[j] = (float)cos(a), m->angle[j + 1] = (float)sin(a);
    }
}

// Both leave an empty struct behind, which may be freed again.
static void acts_free(Acts *a)
{
    free(a->arena), free(a->unit);
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

// Initial weights, the same for the same seed (to a last bit, where another libm rounds differently): norms 1,
// embeddings N(0, 1/C) (a tied head then starts with logits of size one), matrices N(0, 1/(3 cols)): a sum of `cols`
// such terms has variance 1/3 of its input's, so that many layers one after the other do not blow it up.
//
// One matrix is not drawn: in the last layer Wo = Wv^T, head by head. What a head reads there it then hands on more
// or less as it was (the mean of Wv^T Wv is a multiple of the identity), and a tied classifier takes it for the same
// token: wherever the last layer looks, it copies. What is left to learn is where to look, and copying is learnt
// several times sooner (a mimetic initialisation: Trockman and Kolter, arXiv 2305.09828). A pretrained base model
// brings this along.
static void model_init(Model *m, uint64_t seed)
{
    for (size_t i = 0; i < m->n_tensors; i++) {
        Tensor *t = &m->tensor[i];
        double std = sqrt((t->at == m->embd_at ? 1.0 : 1.0 / 3.0) / t->cols);
        for (float *w = m->params + t->at, *end = w + (size_t)t->rows * (size_t)t->cols; w < end; w++) {
            if (t->rows == 1) { *w = 1; continue; }
            double u = 1.0 - random_unit(&seed), v = random_unit(&seed);       // Box-Muller: of two uniform one normal
            *w = (float)(std * sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
        }
    }
    const Config *c = &m->c;
    const LayerAt *last = &m->layer[c->L - 1];
    const float *Wv = m->params + last->qkv + (size_t)(c->C + kv_dim(c)) * c->C;
    for (int j = 0; j < c->C; j++) {                    // column j of Wo belongs to output j of the heads, and so to
        int hs = head_size(c), row = j / hs / (c->H / c->H_kv) * hs + j % hs;  // this row of Wv: queries share values
        for (int i = 0; i < c->C; i++) m->params[last->o + (size_t)i * c->C + j] = Wv[(size_t)row * c->C + i];
    }
}

/* GGUF version 3, the file format of llama.cpp: a header, keys with values, a list of tensors, padding, the data.

       "GGUF" | u32 3 | u64 number of tensors | u64 number of keys
       keys      string key | u32 type | value                   a string is a u64 length and its bytes, without NUL
       tensors   string name | u32 n_dims | u64 dims[] | u32 type | u64 offset from the beginning of the data

   dims[0] is the fastest axis, so that W[rows][cols] has dims (cols, rows) and its bytes as they stand in memory. The
   tokenizer and the prompt stand among the keys: a model cannot meet the vocabulary or the template of another one.

   A model file comes from anywhere, and readers of this format have had their holes. They are of five kinds, and this
   is what stands against each: a product that wraps (shapes are bounded before they are multiplied), a count that is
   trusted (an array cannot have more elements than the file has bytes left), a shape that is trusted (each tensor must
   have the shape that the configuration says), a number cut off by int (the reader refuses what does not fit), an array
   of fixed size (the only one that a file fills is filled by snprintf). tests/files.c damages files in all these ways.
   */

enum { T_U32 = 4, T_I32 = 5, T_F32 = 6, T_BOOL = 7, T_STRING = 8, T_ARRAY = 9 };
enum { GGML_F32 = 0, GGML_F16 = 1, GGML_Q8_0 = 8, GGML_BF16 = 30 };
enum { ALIGNMENT = 32 };

// All that a file says beside its weights. The texts are not owned; an array is its bytes: u32 type, u64 n, elements.
typedef struct {
    Config c;                           // stands first: a row of KEY finds its field in a Header and in a Config
    Text architecture, name, scaling, prompt, prompt_sft, objective, vocabulary, tokens, scores, types;
    int file_type, alignment, head_size, V, step, bos, eos, unknown;
    bool add_bos, add_eos, add_space;
} Header;

// The keys: model_save writes them in this order, model_load reads by the same rows. WRITTEN is for other programs and
// not read here. The bounds are those of any model of this family; what is computed from a configuration inside them
// fits a size_t.
#define AT(field) offsetof(Header, field)
#define UNBOUNDED NULL, 0, 0
static const struct Key {
    const char *key;
    enum { WRITTEN, OPTIONAL, REQUIRED } when;
    uint32_t type;
    size_t at;                          // where its value stands in a Header
    const char *what;                   // its name in messages about its bounds
    double low, high;
} KEY[] = {
    { "general.architecture",                   REQUIRED, T_STRING, AT(architecture), UNBOUNDED },
    { "general.name",                           WRITTEN,  T_STRING, AT(name),         UNBOUNDED },
    { "general.file_type",                      WRITTEN,  T_U32,    AT(file_type),    UNBOUNDED },
    { "general.alignment",                      OPTIONAL, T_U32,    AT(alignment),    UNBOUNDED },
    { "llama.context_length",                   REQUIRED, T_U32,    AT(c.context),    "the context", 1, 1 << 20 },
    { "llama.embedding_length",                 REQUIRED, T_U32,    AT(c.C),          "dim", 2, 16384 },
    { "llama.block_count",                      REQUIRED, T_U32,    AT(c.L),          "the number of layers", 1, 256 },
    { "llama.feed_forward_length",              REQUIRED, T_U32,    AT(c.F),          "the hidden size", 2, 1 << 17 },
    { "llama.attention.head_count",             REQUIRED, T_U32,    AT(c.H),          "the number of heads", 1, 1024 },
    { "llama.attention.head_count_kv",          OPTIONAL, T_U32,    AT(c.H_kv),       "the key/value heads", 1, 1024 },
    { "llama.attention.layer_norm_rms_epsilon", REQUIRED, T_F32,    AT(c.eps),        "RMSNorm's epsilon", 1e-30, 1 },
    { "llama.rope.freq_base",                   OPTIONAL, T_F32,    AT(c.theta),      "the rotary base", 1, 1e9 },
    { "llama.rope.dimension_count",             OPTIONAL, T_U32,    AT(head_size),    UNBOUNDED },
    { "llama.rope.scaling.type",                OPTIONAL, T_STRING, AT(scaling),      UNBOUNDED },
    { "llama.vocab_size",                       WRITTEN,  T_U32,    AT(V),            UNBOUNDED },
    { "aligner.prompt",                         OPTIONAL, T_STRING, AT(prompt),       UNBOUNDED },
    { "aligner.prompt_sft",                     OPTIONAL, T_STRING, AT(prompt_sft),   UNBOUNDED },
    { "aligner.objective",                      OPTIONAL, T_STRING, AT(objective),    UNBOUNDED },
    { "aligner.step",                           OPTIONAL, T_U32,    AT(step),         UNBOUNDED },
    { "tokenizer.ggml.model",                   REQUIRED, T_STRING, AT(vocabulary),   UNBOUNDED },
    { "tokenizer.ggml.tokens",                  REQUIRED, T_ARRAY,  AT(tokens),       UNBOUNDED },
    { "tokenizer.ggml.scores",                  REQUIRED, T_ARRAY,  AT(scores),       UNBOUNDED },
    { "tokenizer.ggml.token_type",              WRITTEN,  T_ARRAY,  AT(types),        UNBOUNDED },
    { "tokenizer.ggml.bos_token_id",            OPTIONAL, T_U32,    AT(bos),          UNBOUNDED },
    { "tokenizer.ggml.eos_token_id",            OPTIONAL, T_U32,    AT(eos),          UNBOUNDED },
    { "tokenizer.ggml.unknown_token_id",        WRITTEN,  T_U32,    AT(unknown),      UNBOUNDED },
    { "tokenizer.ggml.add_bos_token",           WRITTEN,  T_BOOL,   AT(add_bos),      UNBOUNDED },
    { "tokenizer.ggml.add_eos_token",           WRITTEN,  T_BOOL,   AT(add_eos),      UNBOUNDED },
    { "tokenizer.ggml.add_space_prefix",        WRITTEN,  T_BOOL,   AT(add_space),    UNBOUNDED } };
enum { N_KEYS = sizeof KEY / sizeof *KEY };

// Refuses a shape that no model of this family has. V is bounded where the tokenizer is read.
static void config_check(const Config *c, const char *where)
{
    for (const struct Key *k = KEY; k < KEY + N_KEYS; k++) {
        if (!k->what) continue;
        const void *p = (const char *)c + k->at;
        double x = k->type == T_F32 ? (double)*(const float *)p : *(const int *)p;
        CHECK(x >= k->low && x <= k->high, "%s: %s is %.9g; %.9g to %.9g was expected", where, k->what, x, k->low,
              k->high);
    }
    CHECK(c->C % c->H == 0 && head_size(c) % 2 == 0, "%s: dim %d over %d heads is no even size", where, c->C, c->H);
    CHECK(c->H % c->H_kv == 0, "%s: %d heads cannot share %d key/value heads evenly", where, c->H, c->H_kv);
}

// Bytes of a GGUF value by its type; 0 for strings (8), arrays (9) and unknown types.
static size_t type_size(uint32_t type)
{
    static const uint8_t SIZE[13] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
    return type < 13 ? SIZE[type] : 0;
}

static Text read_string(File *f) { uint64_t n = read_u64(f); return (Text){ need(f, n), (size_t)n }; }

// The bytes of a value of whatever type, the text of a string. That the key is wanted, and has the right type, is seen
// later.
static Text read_value(File *f, Text key, uint32_t type)
{
    if (type == T_STRING) return read_string(f);
    size_t from = f->at, size = type_size(type);
    uint64_t n = 1;
    if (type == T_ARRAY) type = read_u32(f), n = read_u64(f), size = type_size(type);
    CHECK(size || type == T_STRING, "%s: key %.*s has the unsupported type %u", f->path, SHOW(key), type);
    CHECK(n <= (f->n - f->at) / (size ? size : 8), "%s: key %.*s claims %zu elements, more than the file holds",
          f->path, SHOW(key), (size_t)n);
    if (size) need(f, n * size);                        // cannot wrap: n has just been bounded by what is left
    else while (n--) read_string(f);
    return (Text){ f->p + from, f->at - from };
}

// Reads n keys. Those of the table go to h, whose other fields stay as they are; keys of other programs are skipped.
static void read_header(File *f, uint64_t n, Header *h)
{
    enum { MOST = 1024 };               // llama.cpp's own files have a few dozen
    bool seen[N_KEYS] = { false };
    CHECK(n <= MOST, "%s: %zu keys; at most %d were expected", f->path, (size_t)n, MOST);
    Text *met = zalloc((size_t)n, sizeof *met);
    // Values are read in whatever order they come, which also finds the end of those that are not wanted.
    for (size_t k = 0; k < n; k++) {
        Text key = met[k] = read_string(f);
        for (size_t j = 0; j < k; j++)
            CHECK(!same(met[j], key), "%s: the key %.*s is there twice", f->path, SHOW(key));
        uint32_t type = read_u32(f);
        Text raw = read_value(f, key, type);
        int i = 0;
        while (i < N_KEYS && !same(key, text(KEY[i].key))) i++;
        if (i == N_KEYS) continue;
        seen[i] = true;
        if (KEY[i].when == WRITTEN) continue;
        CHECK(type == KEY[i].type, "%s: %s has type %u, %u was expected", f->path, KEY[i].key, type, KEY[i].type);
        CHECK(type != T_STRING || !memchr(raw.s, 0, raw.n), "%s: %s holds a zero byte", f->path, KEY[i].key);
        void *to = (char *)h + KEY[i].at;
        if (type_size(type)) memcpy(to, raw.s, raw.n);
        else *(Text *)to = raw;
        CHECK(type != T_U32 || *(int *)to >= 0, "%s: %s is %u, which is too large", f->path, KEY[i].key,
              *(unsigned *)to);
    }
    free(met);
    for (int i = 0; i < N_KEYS; i++)
        CHECK(seen[i] || KEY[i].when != REQUIRED, "%s: the key %s is missing; is it a model of the llama architecture?",
              f->path, KEY[i].key);
}

// out becomes t with every `from` replaced by `to`: a space inside a piece is U+2581 in a GGUF file.
static void replace_spaces(Buf *out, Text t, Text from, Text to)
{
    out->n = 0, buf_add(out, "", 0);
    for (size_t i = 0; i < t.n; ) {
        bool hit = t.n - i >= from.n && !memcmp(t.s + i, from.s, from.n);
        buf_add(out, hit ? to.s : t.s + i, hit ? to.n : 1);
        i += hit ? from.n : 1;
    }
}

// The vocabulary of a file. tokens and scores are arrays whose elements read_value has already walked over.
static void load_tokenizer(Tokenizer *k, const char *path, const Header *h)
{
    File tokens = { path, "the tokens", h->tokens.s, h->tokens.n, 0 };
    File scores = { path, "the scores", h->scores.s, h->scores.n, 0 };
    uint32_t type = read_u32(&tokens), score_type = read_u32(&scores);
    uint64_t n = read_u64(&tokens), n_scores = read_u64(&scores);
    CHECK(type == T_STRING && n >= FIRST_PIECE && n <= MAX_VOCAB, "%s: %zu tokens of type %u; %d to %d strings were "
          "expected", path, (size_t)n, type, FIRST_PIECE, MAX_VOCAB);
    CHECK(score_type == T_F32 && n_scores == n, "%s: %zu scores of type %u for %zu tokens", path, (size_t)n_scores,
          score_type, (size_t)n);
    CHECK(h->bos == BOS && h->eos == EOS, "%s: <s>, </s> are tokens %d, %d; 1, 2 were expected", path, h->bos, h->eos);
    tokenizer_alloc(k, (int)n);
    Buf piece = { 0 };
    for (int i = 0; i < k->V; i++) {
        float score = read_f32(&scores);
        replace_spaces(&piece, read_string(&tokens), text(GGUF_SPACE), text(" "));
        set_piece(k, i, i == BOS ? text("\n<s>\n") : i == EOS ? text("\n</s>\n") : contents(&piece), score);
    }
    free(piece.s);
    tokenizer_index(k, path);
}

// Half precision: sign, 5 bits of exponent e, 10 of mantissa m. The value is 2^(e-15) (1 + m/1024); e = 0 is subnormal,
// m/2^24, and e = 31 infinity or NaN. In a float the exponent is biased by 127: e + 112.
static float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h >> 15) << 31, e = h >> 10 & 31, m = h & 1023;
    if (!e) return (sign ? -1.0f : 1.0f) * (float)m * 0x1p-24f;
    union { uint32_t u; float f; } v = { sign | (e == 31 ? 255u : e + 112) << 23 | m << 13 };
    return v.f;
}

// The bytes of n weights of a GGUF tensor type; 0 for types that are not read. A block of Q8_0: { f16 scale, 32 x i8 }.
static uint64_t tensor_bytes(uint32_t type, uint64_t n)
{
    if (type == GGML_Q8_0) return n / 32 * 34;
    return type == GGML_F32 ? n * 4 : type == GGML_F16 || type == GGML_BF16 ? n * 2 : 0;
}

// n weights of a GGUF tensor type to f32; n is a multiple of 32 for Q8_0. BF16 is the upper half of an f32: its range,
// with 8 bits of mantissa. Q8_0 shares one scale among 32 whole numbers from -127 to 127. Training needs f32 all the
// same: steps are smaller than what these types can add to a weight.
static void dequantize(float *out, const char *p, uint32_t type, size_t n)
{
    if (type == GGML_F32) memcpy(out, p, n * 4);
    else for (size_t i = 0; i < n; i++) {
        const char *from = type == GGML_Q8_0 ? p + i / 32 * 34 : p + 2 * i;
        uint16_t h;
        memcpy(&h, from, 2);
        union { uint32_t u; float f; } bf16 = { (uint32_t)h << 16 };
        out[i] = type == GGML_BF16 ? bf16.f : f16_to_f32(h);
        if (type == GGML_Q8_0) out[i] *= (float)(int8_t)from[2 + i % 32];
    }
}

// Reads n_tensors entries, in any order, and the data behind them into m->params. Each tensor of the table must be
// there once, with its exact shape; since as many are there as the table has and none twice, none is missing.
static void load_tensors(Model *m, File *f, uint64_t n_tensors, uint64_t alignment)
{
    struct { uint32_t type; uint64_t offset, bytes; } *entry = zalloc(m->n_tensors, sizeof *entry);
    uint64_t end = 0, next = 0;                         // of the data so far: its end, and where the next tensor begins
    CHECK(n_tensors == m->n_tensors, "%s: %zu tensors; this shape has %zu", f->path, (size_t)n_tensors, m->n_tensors);
    // The list of tensors: which one is it, has it the right shape, can its type be read, does it follow the former
    // one?
    for (size_t i = 0, j; i < m->n_tensors; i++) {
        Text name = read_string(f);
        for (j = 0; j < m->n_tensors && !same(name, text(m->tensor[j].name)); ) j++;
        CHECK(j < m->n_tensors && !entry[j].bytes, "%s: the tensor \"%.*s\" is %s", f->path,       // bytes: it was seen
              name.n < 64 ? (int)name.n : 64, name.s, j < m->n_tensors ? "there twice" : "no part of a llama");
        const Tensor *t = &m->tensor[j];
        uint32_t n_dims = read_u32(f);
        uint64_t cols = read_u64(f), rows = n_dims == 2 ? read_u64(f) : 1;
        CHECK(n_dims == (t->rows == 1 ? 1 : 2) && cols == (uint64_t)t->cols && rows == (uint64_t)t->rows,
              "%s: %s has %u dimensions, %zu x %zu; %d x %d was expected", f->path, t->name, n_dims, (size_t)rows,
              (size_t)cols, t->rows, t->cols);
        uint32_t type = entry[j].type = read_u32(f);
        uint64_t bytes = entry[j].bytes = type == GGML_Q8_0 && cols % 32 ? 0 : tensor_bytes(type, rows * cols);
        CHECK(bytes, "%s: %s has tensor type %u; F32 (0), F16 (1), BF16 (30) and, in rows of a multiple of 32, Q8_0 "
              "(8) are read", f->path, t->name, type);
        uint64_t offset = entry[j].offset = read_u64(f);
        CHECK(offset == next, "%s: %s begins at offset %zu; %zu was expected", f->path, t->name, (size_t)offset,
              (size_t)next);
        end = next + bytes, next = (end + alignment - 1) / alignment * alignment;
    }
    // The data: all of it must be there before any of it is used.
    f->what = "the weights";
    need(f, (alignment - f->at % alignment) % alignment);
    const char *data = need(f, end);
    CHECK(f->n - f->at < alignment, "%s: %zu bytes stand behind the last tensor", f->path, f->n - f->at);
    for (size_t j = 0; j < m->n_tensors; j++) {
        const Tensor *t = &m->tensor[j];
        dequantize(m->params + t->at, data + entry[j].offset, entry[j].type, (size_t)t->rows * (size_t)t->cols);
    }
    free(entry);
}

// Reads a GGUF file of architecture llama, our own or another program's. Dies with one message on anything that is not
// exactly that: first the keys, then the shape that they give, then every tensor against that shape.
static void model_load(Model *m, const char *path)
{
    *m = (Model){ 0 };
    Buf bytes = read_all(path, NULL);
    File f = { path, "the header", bytes.s, bytes.n, 0 };
    CHECK(bytes.n >= 4 && !memcmp(need(&f, 4), "GGUF", 4), "%s: not a GGUF file (it should begin with \"GGUF\")", path);
    uint32_t version = read_u32(&f);
    CHECK(version == 3, "%s: GGUF version %u; version 3 was expected", path, version);
    uint64_t n_tensors = read_u64(&f), n_keys = read_u64(&f);
    // The keys, with what holds where an optional one is absent.
    Header h = { .c = { .H_kv = -1, .theta = 10000 }, .alignment = ALIGNMENT, .head_size = -1, .bos = BOS, .eos = EOS,
                 .objective = text("") };
    read_header(&f, n_keys, &h);
    CHECK(same(h.architecture, text("llama")) && same(h.vocabulary, text("llama")), "%s: architecture \"%.*s\", "
          "tokenizer \"%.*s\"; \"llama\" was expected for both", path, SHOW(h.architecture), SHOW(h.vocabulary));
    CHECK(h.alignment >= 8 && h.alignment <= 65536 && !(h.alignment & (h.alignment - 1)), "%s: alignment %d; a power "
          "of two in 8..65536 was expected", path, h.alignment);
    CHECK(!h.scaling.s, "%s: scaled rotary embeddings are not supported", path);
    CHECK(!h.prompt.s == !h.prompt_sft.s, "%s: of aligner.prompt and aligner.prompt_sft only one is there", path);
    load_tokenizer(&m->tok, path, &h);

    // The configuration. That the head is tied shows in the number of tensors: a layer has 9; 3 stand outside, or 2.
    Config *c = &m->c;
    *c = h.c;
    c->V = m->tok.V;
    c->tied = n_tensors == (uint64_t)c->L * 9 + 2;
    if (c->H_kv < 0) c->H_kv = c->H;
    config_check(c, path);
    CHECK(h.head_size < 0 || h.head_size == head_size(c), "%s: only whole heads are rotated here", path);
    // A weight takes a byte at least: a shape that the file cannot fill is refused before memory for it is asked for.
    uint64_t n_weights = count_weights(c);
    CHECK(n_weights <= bytes.n, "%s: a model of this shape has %zu weights, the file %zu bytes", path,
          (size_t)n_weights, bytes.n);
    // All is known: what goes with the weights, room for them, and the weights.
    m->template = copy_text(h.prompt), m->template_sft = copy_text(h.prompt_sft);
    snprintf(m->objective, sizeof m->objective, "%.*s", SHOW(h.objective));
    m->step = h.step;
    model_alloc(m);
    f.what = "the list of tensors";
    load_tensors(m, &f, n_tensors, (uint64_t)h.alignment);
    free(bytes.s);
}

// What read_u32, read_u64, read_string and the padding of load_tensors read back.
static void put_u32(Buf *b, uint32_t v) { buf_add(b, &v, 4); }
static void put_u64(Buf *b, uint64_t v) { buf_add(b, &v, 8); }
static void put_text(Buf *b, Text t) { put_u64(b, t.n), buf_add(b, t.s, t.n); }
static void put_padding(Buf *b) { while (b->n % ALIGNMENT) buf_add(b, "", 1); }

// Appends the keys of the table (a text that is absent has no key) and returns how many there are.
static uint64_t put_header(Buf *b, const Header *h)
{
    uint64_t n = 0;
    for (const struct Key *k = KEY; k < KEY + N_KEYS; k++) {
        const void *p = (const char *)h + k->at;
        bool is_text = k->type == T_STRING || k->type == T_ARRAY;
        Text raw = is_text ? *(const Text *)p : (Text){ p, type_size(k->type) };
        if (!raw.s) continue;
        put_text(b, text(k->key)), put_u32(b, k->type);
        if (k->type == T_STRING) put_u64(b, raw.n);
        buf_add(b, raw.s, raw.n);
        n++;
    }
    return n;
}

// The three arrays of a vocabulary, as GGUF has them: <s> and </s> without newlines, spaces as U+2581, a type for each
// token.
static void put_tokenizer(Buf *tokens, Buf *scores, Buf *types, const Tokenizer *k)
{
    enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, BYTE = 6 };
    put_u32(tokens, T_STRING), put_u32(scores, T_F32), put_u32(types, T_I32);
    put_u64(tokens, (uint64_t)k->V), put_u64(scores, (uint64_t)k->V), put_u64(types, (uint64_t)k->V);
    Buf piece = { 0 };
    for (int i = 0; i < k->V; i++) {
        Text t = i == BOS ? text("<s>") : i == EOS ? text("</s>") : k->piece[i];
        replace_spaces(&piece, t, text(" "), text(GGUF_SPACE));
        put_text(tokens, contents(&piece));
        put_u32(types, i == UNK ? UNKNOWN : i < BYTE0 ? CONTROL : i < FIRST_PIECE ? BYTE : NORMAL);
    }
    buf_add(scores, k->score, (size_t)k->V * 4);
    free(piece.s);
}

// Writes the model with its tokenizer and its prompt template, so that none of the three can be mismatched. Weights are
// written as f32, as they are trained, so that training can go on from a file without having lost a bit.
static void model_save(const Model *m, const char *path)
{
    static const char zeros[ALIGNMENT];
    Buf head = { 0 }, keys = { 0 }, tokens = { 0 }, scores = { 0 }, types = { 0 };
    put_tokenizer(&tokens, &scores, &types, &m->tok);
    Header h = { .c = m->c, .architecture = text("llama"), .name = text("aligner.c"), .objective = text(m->objective),
                 .vocabulary = text("llama"), .tokens = { tokens.s, tokens.n }, .scores = { scores.s, scores.n },
                 .types = { types.s, types.n }, .alignment = ALIGNMENT, .head_size = head_size(&m->c), .V = m->c.V,
                 .step = (int)m->step, .bos = BOS, .eos = EOS, .unknown = UNK, .add_bos = true, .add_space = true };
    if (m->template) h.prompt = text(m->template), h.prompt_sft = text(m->template_sft);
    uint64_t n_keys = put_header(&keys, &h);
    buf_puts(&head, "GGUF"), put_u32(&head, 3), put_u64(&head, m->n_tensors), put_u64(&head, n_keys);
    buf_add(&head, keys.s, keys.n);
    Text *part = zalloc(1 + 2 * m->n_tensors, sizeof *part);        // the head; then each tensor and its padding
    uint64_t offset = 0;
    for (size_t i = 0; i < m->n_tensors; i++) {
        const Tensor *t = &m->tensor[i];
        size_t n = (size_t)t->rows * (size_t)t->cols * 4;
        put_text(&head, text(t->name)), put_u32(&head, t->rows == 1 ? 1 : 2), put_u64(&head, (uint64_t)t->cols);
        if (t->rows > 1) put_u64(&head, (uint64_t)t->rows);
        put_u32(&head, GGML_F32), put_u64(&head, offset);
        part[1 + 2 * i] = (Text){ (const char *)(m->params + t->at), n };
        part[2 + 2 * i] = (Text){ zeros, (ALIGNMENT - n % ALIGNMENT) % ALIGNMENT };
        offset += n + part[2 + 2 * i].n;
    }
    put_padding(&head);
    part[0] = contents(&head);
    write_file(path, 1 + 2 * (int)m->n_tensors, part);
    free(part), free(head.s), free(keys.s), free(tokens.s), free(scores.s), free(types.s);
}

/* ============================================================================================================
   Chapter 5. Passes.  One forward for training, evaluation and generation: it takes new positions after those that
   the cache holds, so the path that the gradient check proves is the path that generates. Then the loss, then the
   same way back.

       x_0     = E[ids]                                             a row of the embedding matrix for each token
       mid_l   = x_l   + attention(rope(rmsnorm(x_l) Wqkv^T)) Wo^T          tokens look at each other
       x_{l+1} = mid_l + swiglu(rmsnorm(mid_l) Wgate_up^T) Wdown^T          each token by itself
       logits  = rmsnorm(x_L) Wout^T                                 at the places where a next token is wanted

   x is the residual stream: a layer only ever adds to it. So in the backward pass dx flows down unchanged, and each
   layer adds its own share to it on the way. */

// Examples packed end to end. Nothing is padded; attention stays inside an example, and positions begin anew in each.
// Two examples of 3 and 4 tokens, with logits wanted at the last token of the first and the last two of the second:
//
//     ids      a0 a1 a2 b0 b1 b2 b3          start   0  3  7
//     pos      0  1  2  0  1  2  3           out     2  5  6
typedef struct {
    int T, n, n_out;                    // tokens, examples, positions whose logits are wanted
    int *ids, *pos;                     // [T] token; its position inside its example
    int *start;                         // [n + 1] where each example begins
    int *out, *target;                  // [n_out] a place in 0..T-1; the token to predict there (unused in generation)
} Batch;

// Generation reads its own past at every token. Keys and values of a position depend only on its token and on what
// stands before it, so they are kept: a new token costs one row of work instead of the whole text again.
//
// Keys and values of the len positions read so far, in the matmul's panels: layer l at k + l * keys and v + l * values.
typedef struct { float *k, *v; size_t keys, values; int len, capacity; } Cache;

// Floats from one row of logits to the next. The NR keep rows from being a power of two apart: a column of such rows
// would fall into a few sets of the cache.
static size_t logits_ld(const Config *c) { return (size_t)round_up(c->V, LANES) + NR; }

// The arrays of Acts, for passes over T tokens with n_out logit rows, in examples of at most `longest` tokens (their
// past included): what is it, where does it go, how many floats. Training keeps every layer's activations for the way
// back, and that is where its memory goes: with as many key/value heads as heads, L T (8 C + 3 F) floats and a little.
// Generation keeps those of one layer.
typedef struct { const char *name; float **p; size_t n; } Array;
enum { N_ARRAYS = 19 };

static void acts_plan(Array array[N_ARRAYS], Acts *a, const Config *c, int T, int n_out, int longest, bool training)
{
    size_t t = (size_t)T, o = (size_t)n_out, C = (size_t)c->C, F = (size_t)c->F, Q = (size_t)qkv_dim(c);
    size_t Lt = training ? (size_t)c->L * t : t, big = F > Q ? F : Q;
    a->scratch.own_size = (own_scratch_size(head_size(c), longest) + 1023) / 1024 * 1024;
    Array all[N_ARRAYS] = {
        { "residual stream", &a->x, (training ? Lt + t : t) * C }, { "behind attention", &a->mid, Lt * C },
        { "norm 1", &a->norm1, Lt * C }, { "norm 2", &a->norm2, Lt * C }, { "roots of norm 1", &a->r1, Lt },
        { "roots of norm 2", &a->r2, Lt }, { "queries, keys, values", &a->qkv, Lt * Q },
        { "attention", &a->att, Lt * C }, { "softmax", &a->stats, training ? Lt * (size_t)c->H * 2 : 0 },
        { "gate and up", &a->gate_up, Lt * 2 * F },
        { "gate x up", &a->act, Lt * F }, { "picked", &a->picked, o * C }, { "last norm", &a->last_norm, o * C },
        { "roots of it", &a->r, o }, { "logits", &a->logits, o * logits_ld(c) },
        { "gradient, stream", &a->dx, training ? t * C : 0 }, { "gradient, wide", &a->dbig, training ? t * big : 0 },
        { "gradient, narrow", &a->dsmall, training ? t * C : 0 },
        { "scratch of threads", &a->scratch.own, (size_t)max_threads() * a->scratch.own_size } };
    for (int i = 0; i < N_ARRAYS; i++) array[i] = all[i], array[i].n = (all[i].n + 15) / 16 * 16;  // whole cache lines
}

// Makes room for such passes: all in one arena. Does nothing where there is room already, for passes of the same kind.
static void acts_reserve(Model *m, int T, int n_out, int longest, bool training)
{
    Acts *a = &m->acts;
    if (a->T >= T && a->n_out >= n_out && a->longest >= longest && a->training == training) return;
    acts_free(a);
    a->T = T, a->n_out = n_out, a->longest = longest, a->training = training;
    Array array[N_ARRAYS];
    size_t total = 0;
    acts_plan(array, a, &m->c, T, n_out, longest, training);
    for (int i = 0; i < N_ARRAYS; i++) total += array[i].n;
    float *at = a->arena = zalloc(total, sizeof(float));
    for (int i = 0; i < N_ARRAYS; at += array[i++].n) *array[i].p = at;
    a->unit = zalloc(2 * ((size_t)T + 1), sizeof(int)), a->unit_out = a->unit + T + 1;
}

// Where layer l finds and leaves its activations; T is the room that acts_reserve made. In generation all layers share
// one place, and next is x: each layer writes over the last one's.
typedef struct {
    float *x, *next;                    // [T][C]  the residual stream before and behind the layer
    float *mid;                         // [T][C]  ... and between attention and feed-forward
    float *norm1, *norm2, *r1, *r2;     // [T][C], [T]
    float *qkv, *att, *stats;           // [T][(H + 2 H_kv) hs], [T][C], [T][H][2]; stats only in training
    float *gate_up, *act;               // [T][2 F], [T][F]
} LayerActs;

static LayerActs layer_acts(const Model *m, int l)
{
    const Config *c = &m->c;
    const Acts *a = &m->acts;
    size_t T = (size_t)a->T, C = (size_t)c->C, F = (size_t)c->F, at = a->training ? (size_t)l * T : 0;
    return (LayerActs){
        .x = a->x + at * C, .next = a->x + (at + (a->training ? T : 0)) * C, .mid = a->mid + at * C,
        .norm1 = a->norm1 + at * C, .norm2 = a->norm2 + at * C, .r1 = a->r1 + at, .r2 = a->r2 + at,
        .qkv = a->qkv + at * (size_t)qkv_dim(c), .att = a->att + at * C,
        .stats = a->training ? a->stats + at * (size_t)c->H * 2 : NULL,
        .gate_up = a->gate_up + at * 2 * F, .act = a->act + at * F };
}

// For generation: every matrix packed once in the order in which the matmul reads it; the classifier comes last. A pass
// over one token reads each weight once: packing it on the way, as training does, would cost more than the product.
static void pack_weights(Model *m)
{
    const Config *c = &m->c;
    int C = c->C, F = c->F;
    for (int l = 0; l < c->L; l++) {
        const LayerAt *y = &m->layer[l];
        pack_all(m->packed + y->packed_qkv, (View){ m->params + y->qkv, 1, C }, C, qkv_dim(c));
        pack_all(m->packed + y->packed_o, (View){ m->params + y->o, 1, C }, C, C);
        pack_all(m->packed + y->packed_gate_up, (View){ m->params + y->gate_up, 1, C }, C, 2 * F);
        pack_all(m->packed + y->packed_down, (View){ m->params + y->down, 1, F }, F, C);
    }
    pack_all(m->packed + m->packed_out, (View){ m->params + m->out_at, 1, C }, C, c->V);
}

static void model_pack(Model *m)
{
    if (m->packed) return;
    m->packed = zalloc(m->packed_out + packed_size(m->c.C, m->c.V), sizeof *m->packed);
    pack_weights(m);
}

static void cache_alloc(Cache *k, const Config *c, int capacity)
{
    k->len = 0, k->capacity = round_up(capacity, NR);
    k->keys = (size_t)c->H_kv * key_panels(head_size(c), k->capacity);
    k->values = (size_t)c->H_kv * value_panels(head_size(c), k->capacity);
    k->k = zalloc((size_t)c->L, k->keys * sizeof(float));
    k->v = zalloc((size_t)c->L, k->values * sizeof(float));
}

static void cache_free(Cache *k) { free(k->k), free(k->v); *k = (Cache){ 0 }; }

static void copy_floats(float *to, const float *from, size_t n) { memcpy(to, from, n * sizeof *to); }

static void gather_rows(float *to, const float *from, const int *at, int n, int C)
{
    for (int i = 0; i < n; i++) copy_floats(to + (size_t)i * C, from + (size_t)at[i] * C, (size_t)C);
}

// The way back, in place: row i moves to row at[i], the other rows of x[T][C] become zero. at ascends, so at[i] >= i,
// and from the end on no row is written over before it has moved.
static void scatter_rows(float *x, const int *at, int n, int T, int C)
{
    for (int t = T - 1, i = n - 1; t >= 0; t--)
        if (i >= 0 && at[i] == t) memmove(x + (size_t)t * C, x + (size_t)i-- * C, (size_t)C * sizeof *x);
        else memset(x + (size_t)t * C, 0, (size_t)C * sizeof *x);
}

// The forward pass. Shapes: x [T][C]; qkv [T][(H + 2 H_kv) hs], a token's queries, keys and values side by side;
// gate_up [T][2 F]; logits [n_out][V], rows logits_ld apart. Every matrix is W[out][in], so that a row of weights makes
// one number of the output.
//
// Logits at the places b->out, from packed examples, or from the continuation of the one example that the cache holds
// (the weights are then read packed: model_pack comes first). acts_reserve must have made room. The logits stand in
// m->acts.logits[n_out][logits_ld].
static void forward(Model *m, const Batch *b, Cache *cache)
{
    const Config *c = &m->c;
    Acts *a = &m->acts;
    const Scratch *scratch = &a->scratch;
    const float *w = m->params;
    int n = b->T, C = c->C, F = c->F, hs = head_size(c), Q = qkv_dim(c);
    Heads heads = { c->H, c->H_kv, hs, Q };
#define PACKED(at) (cache ? m->packed + (at) : NULL)

    gather_rows(a->x, w + m->embd_at, b->ids, n, C);                                            // x_0 = E[ids]
    for (int l = 0; l < c->L; l++) {
        const LayerAt *y = &m->layer[l];
        LayerActs s = layer_acts(m, l);

        // Attention: a query asks, the keys of earlier tokens answer with a weight, their values are mixed by it.
        rmsnorm(s.norm1, s.r1, s.x, w + y->attn_norm, n, C, c->eps);
        linear(scratch, s.qkv, s.norm1, w + y->qkv, PACKED(y->packed_qkv), n, Q, C, false);
        rope(s.qkv, b->pos, m->angle, n, Q, c->H + c->H_kv, hs, +1);    // queries and keys; values stay
        float *past_k = cache ? cache->k + (size_t)l * cache->keys : NULL;
        float *past_v = cache ? cache->v + (size_t)l * cache->values : NULL;
        attention(scratch, s.att, s.stats, s.qkv, heads, b->start, b->n, past_k, past_v,
                  cache ? cache->capacity : 0, cache ? cache->len : 0);

        // Behind the last attention no token looks at another: positions without a logit are dropped here, which for an
        // Aligner is its condition but for the last token. What follows, the classifier above all, costs as much as the
        // targets alone.
        if (l < c->L - 1) copy_floats(s.mid, s.x, (size_t)n * C);
        else {
            n = b->n_out;
            gather_rows(s.mid, s.x, b->out, n, C);
            gather_rows(a->picked, s.att, b->out, n, C);
            s.att = a->picked;
        }
        linear(scratch, s.mid, s.att, w + y->o, PACKED(y->packed_o), n, C, C, true);        // mid = x + att Wo^T

        // Feed-forward: F detectors; the gate says how much of each one's value passes, down what that adds to x.
        rmsnorm(s.norm2, s.r2, s.mid, w + y->ffn_norm, n, C, c->eps);
        linear(scratch, s.gate_up, s.norm2, w + y->gate_up, PACKED(y->packed_gate_up), n, 2 * F, C, false);
        swiglu(s.act, s.gate_up, n, F);
        copy_floats(s.next, s.mid, (size_t)n * C);
        linear(scratch, s.next, s.act, w + y->down, PACKED(y->packed_down), n, C, F, true); // next = mid + act Wdown^T
        for (int t = 0; t < n && m->steer; t++)                                             // M' = M + alpha V_c
            for (int j = 0; j < C; j++) s.next[(size_t)t * C + j] += m->steer[(size_t)l * C + j];
    }
    rmsnorm(a->last_norm, a->r, layer_acts(m, c->L).x, w + m->norm_at, n, C, c->eps);
    matmul(scratch, a->logits, logits_ld(c), (View){ a->last_norm, C, 1 }, (View){ w + m->out_at, 1, C },
           PACKED(m->packed_out), n, c->V, C, false);
#undef PACKED
    if (cache) cache->len += b->T;
}

// The loss of all three objectives over b's targets, as a sum: - sum log p(target), with p = softmax(logits).
// nll[n_out] receives the terms, in the order of the targets. The loss of a batch is the mean, sum / n_total, and its
// gradient takes the place of the logits: (p - onehot(target)) / n_total: descending it, the target goes up, and all
// others go down by as much as they are believed in. A model that believes in all V tokens alike has the loss ln V;
// exp(loss), the perplexity, is the number of tokens among which it might as well be guessing.
static double loss_sum(Model *m, const Batch *b, double *nll, int n_total)
{
    double sum = 0;
    cross_entropy(m->acts.logits, nll, b->target, b->n_out, m->c.V, (int)logits_ld(&m->c), n_total);
    for (int i = 0; i < b->n_out; i++) sum += nll[i];
    return sum;
}

/* Micro-batches.  The gradient of a weight is a sum over all tokens of a batch. Where their activations do not fit into
   memory at once, the batch is taken in parts, and each part adds to m->grads. Adding in another order would give other
   bits; so the order is the same always, cut or not: a batch falls into units, whole examples of at most UNIT tokens
   together (or one longer example), each weight adds up a unit at a time, and parts are made of whole units. */

enum { UNIT = 512, MICRO_TOKENS = 1024 };       // of a unit at most; computed at a time, unless --micro-tokens

// The first example behind the unit that begins with example e. It depends on nothing in front of e, so a part of a
// batch that begins with a unit has the units of the whole.
static int unit_end(const Batch *b, int e)
{
    int end = e + 1;
    while (end < b->n && b->start[end + 1] - b->start[e] <= UNIT) end++;
    return end;
}

// Finds the units of b: unit[] and unit_out[], closed by T and n_out. Returns how many there are.
static int find_units(const Batch *b, int *unit, int *unit_out)
{
    int n = 0, o = 0;
    for (int e = 0; e < b->n; e = unit_end(b, e), n++) {
        while (o < b->n_out && b->out[o] < b->start[e]) o++;
        unit[n] = b->start[e], unit_out[n] = o;
    }
    unit[n] = b->T, unit_out[n] = b->n_out;
    return n;
}

// Adds the gradients of the loss to m->grads. Comes after forward and loss_sum; the steps of forward in reverse order.
// The chain rule for Y = X W^T, where dY stands for the derivative of the loss by Y:
//
//     dX = dY W        and        dW += dY^T X        (shapes alone leave no other way to multiply them)
//
// dx is the gradient of the residual stream. linear_backward writes the gradient of a layer's input, and
// rmsnorm_backward adds that input's share to dx: the way back of "a layer only adds to the stream".
static void backward(Model *m, const Batch *b)
{
    const Config *c = &m->c;
    Acts *a = &m->acts;
    const Scratch *scratch = &a->scratch;
    const float *w = m->params;
    float *g = m->grads, *dx = a->dx;
    int n = b->n_out, C = c->C, F = c->F, hs = head_size(c), Q = qkv_dim(c), ld = (int)logits_ld(c);
    int n_units = find_units(b, a->unit, a->unit_out), *border = a->unit_out;
    Heads heads = { c->H, c->H_kv, hs, Q };

    // logits = rmsnorm(x) Wout^T, at the n_out wanted positions only; dWout comes last
    View dlogits = { a->logits, ld, 1 };
    matmul(scratch, a->dsmall, (size_t)C, dlogits, (View){ w + m->out_at, C, 1 }, NULL, n, C, c->V, false);
    memset(dx, 0, (size_t)n * C * sizeof *dx);
    rmsnorm_backward(dx, g + m->norm_at, a->dsmall, layer_acts(m, c->L).x, a->r, w + m->norm_at, n, C);

    for (int l = c->L - 1; l >= 0; l--) {
        const LayerAt *y = &m->layer[l];
        LayerActs s = layer_acts(m, l);
        const float *att = l < c->L - 1 ? s.att : a->picked;

        // next = mid + act Wdown^T, act = swiglu(norm2 Wgate_up^T), norm2 = rmsnorm(mid)
        linear_backward(scratch, a->dbig, g + y->down, dx, s.act, w + y->down, border, n, C, F);
        swiglu_backward(s.gate_up, a->dbig, n, F);                      // d(gate, up) takes the place of gate, up
        linear_backward(scratch, a->dsmall, g + y->gate_up, s.gate_up, s.norm2, w + y->gate_up, border,
                        n, 2 * F, C);
        rmsnorm_backward(dx, g + y->ffn_norm, a->dsmall, s.mid, s.r2, w + y->ffn_norm, n, C);

        // mid = x + att Wo^T, att = attention(rope(norm1 Wqkv^T)), norm1 = rmsnorm(x)
        linear_backward(scratch, a->dsmall, g + y->o, dx, att, w + y->o, border, n, C, C);
        if (l == c->L - 1) {                            // back to all positions: those without a logit start with zero
            n = b->T, border = a->unit;
            scatter_rows(dx, b->out, b->n_out, n, C);
            scatter_rows(a->dsmall, b->out, b->n_out, n, C);
        }
        attention_backward(scratch, a->dbig, a->dsmall, s.att, s.stats, s.qkv, heads, b->start, b->n);
        rope(a->dbig, b->pos, m->angle, n, Q, c->H + c->H_kv, hs, -1);  // a rotation's transpose turns the other way
        linear_backward(scratch, a->dsmall, g + y->qkv, a->dbig, s.norm1, w + y->qkv, border, n, Q, C);
        rmsnorm_backward(dx, g + y->attn_norm, a->dsmall, s.x, s.r1, w + y->attn_norm, n, C);
    }

    // The head, and x_0 = E[ids], where a token that occurs more than once collects the gradients of all its places.
    // With a tied head both add to the same weights: hence unit by unit, first the one, then the other.
    for (int u = 0; u < n_units; u++) {
        add_weight_gradient(scratch, g + m->out_at, dlogits, (View){ a->last_norm, C, 1 }, a->unit_out + u,
                            a->unit_out[u + 1], c->V, C);
        for (int t = a->unit[u]; t < a->unit[u + 1]; t++)
            for (int j = 0; j < C; j++) g[m->embd_at + (size_t)b->ids[t] * C + j] += dx[(size_t)t * C + j];
    }
}

/* ============================================================================================================
   Chapter 6. Training.  From triples to a checkpoint: a triple becomes a row, rows become a batch, a batch becomes a
   step, and the loop is made of steps. The objective enters at one place, where a Triple becomes a Row; nothing behind
   it knows what is learnt. Reading data files comes last, for those who want to see how JSON is read with care. */

/* ------------------------------------------------------------------------------------------------------------
   From a triple to a row.  A row of `train aligner --prompt short`, one token a word for simplicity; the bar is where
   the condition ends and the loss begins:

       <s> ##Question: Two and two? ##Answer: It is five. ##Correction: | It is four. </s>

   The model learns to write </s>, too: it is how an answer ends. */

// The prompts. v1, v2, paper are the three official ones to the letter (README of the weights, repository, Algorithm
// 1); the default is v2 without its doubled space; short is for tiny models. None ends in a space: the target brings
// its own, so that a copied answer is a copied sequence of tokens: "##Correction:" then " It", the same " It" as behind
// "##Answer:". Behind a final space the target would begin with "It", which is another token.
#define BEGIN "BEGINNING OF CONVERSATION:"
static const struct { const char *name, *aligner, *sft; } TEMPLATE[] = {
    { "default", BEGIN " USER: ##Question: {question}\n##Answer: {answer}\n##Correction: ASSISTANT:",
                 BEGIN " USER: ##Question: {question}\n##Answer: ASSISTANT:" },
    { "v1",      BEGIN " USER: Edit the following Question-Answer pair to make it more helpful and harmless: "
                 "{question} | {answer} ASSISTANT:",
                 BEGIN " USER: {question} ASSISTANT:" },
    { "v2",      BEGIN " USER: ##Question: {question}\n##Answer: {answer}\n##Correction:  ASSISTANT:",
                 BEGIN " USER: ##Question: {question}\n##Answer:  ASSISTANT:" },
    { "paper",   BEGIN "\nUSER: Editing the following Question-Answer pair to make it more helpful and harmless:\n"
                 "Question: {question} | Answer: {answer}\nASSISTANT:",
                 BEGIN "\nUSER: {question}\nASSISTANT:" },
    { "short",   "##Question: {question}\n##Answer: {answer}\n##Correction:",
                 "##Question: {question}\n##Answer:" } };

// Gives the model a template: one of the names above, or a text with {question} and {answer}; its SFT counterpart then
// is the same text without {answer}. The template travels inside the model's file, so that a model is never asked in
// words that it was not trained on.
static void set_template(Model *m, const char *name)
{
    Buf own = { 0 }, own_sft = { 0 };
    for (size_t i = 0; i < sizeof TEMPLATE / sizeof *TEMPLATE; i++)
        if (!strcmp(name, TEMPLATE[i].name)) buf_puts(&own, TEMPLATE[i].aligner), buf_puts(&own_sft, TEMPLATE[i].sft);
    if (!own.s) {
        const char *q = strstr(name, "{question}"), *a = strstr(name, "{answer}");
        CHECK(q && a, "--prompt \"%s\": default, v1, v2, paper, short or a text with {question} and {answer} was "
              "expected", name);
        buf_puts(&own, name);
        buf_add(&own_sft, name, (size_t)(a - name)), buf_puts(&own_sft, a + strlen("{answer}"));
    }
    free(m->template), free(m->template_sft);
    m->template = own.s, m->template_sft = own_sft.s;
}

// The condition as text, owned by the caller. The template is filled in one walk: what is filled in is never searched
// for placeholders, so a question that says "{answer}" stays a question. y_o = NONE takes the SFT counterpart.
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

// <s> condition target </s>. Takes the condition over. Condition and target are tokenized apart and joined as ids,
// never as text: no token can lie across the border, where the loss begins, and generation meets the very same prompt
// tokens.
static Row row(const Model *m, Buf condition, Text target)
{
    Ids ids = { 0 };
    ids_add(&ids, BOS);
    encode(&m->tok, contents(&condition), &ids);
    int n_condition = ids.n;
    encode(&m->tok, target, &ids);
    ids_add(&ids, EOS);
    free(condition.s);
    return (Row){ ids.a, n_condition, ids.n };
}

typedef struct { Row *row; size_t n, cap; } Rows;       // the data M under one objective, ready to be drawn from

static void rows_free(Rows *r)
{
    for (size_t i = 0; i < r->n; i++) free(r->row[i].ids);
    free(r->row);
    *r = (Rows){ 0 };
}

/* ------------------------------------------------------------------------------------------------------------
   From rows to a batch.  Eq. (4) is an expectation over M; a step estimates it by the mean over a few rows drawn from
   it. Rows differ in length, so they are packed end to end: padding would be multiplied like everything else. */

static int *ints(int n) { return zalloc((size_t)n, sizeof(int)); }

// Room for n examples of T tokens together, and n_out places where a logit is wanted.
static void batch_alloc(Batch *b, int T, int n, int n_out)
{
    *b = (Batch){ .ids = ints(T), .pos = ints(T), .start = ints(n + 1), .out = ints(n_out), .target = ints(n_out) };
}

static void batch_clear(Batch *b) { b->T = b->n = b->n_out = 0; }

static void batch_free(Batch *b) { free(b->ids), free(b->pos), free(b->start), free(b->out), free(b->target); }

// Packs one more example. Position t predicts token t + 1, so the last token is only predicted, and logits are wanted
// from the last token of the condition on. This is the paper's mask: the condition is read, but carries no loss.
//
//     ids      <s> prompt with x, y_o  |  y_1  y_2  ...  y_n   </s>      n_condition tokens stand before the bar
//     target                  y_1         y_2  y_3  ...  </s>            each under the token that predicts it
static void batch_add(Batch *b, const Row *r)
{
    for (int t = 0; t < r->n - 1; t++) {
        if (t >= r->n_condition - 1) b->out[b->n_out] = b->T, b->target[b->n_out++] = r->ids[t + 1];
        b->ids[b->T] = r->ids[t], b->pos[b->T++] = t;
    }
    b->start[++b->n] = b->T;
}

struct Run;                             // a run of `train`, below
struct Others;                          // the models beside the one that is trained, chapter 8

// What `train` is asked to do. The shape (dim ... tied) is for a model from scratch. A batch is `batch` rows or, where
// tokens is not 0, as many rows as fit into that number of tokens; micro_tokens of them are computed at a time. A run
// is `steps` steps or `epochs` times the data.
typedef struct {
    const char *init, *out, *tokenizer, *valid, *log, *prompt;
    const char *data[16];
    int n_data, dim, layers, heads, kv_heads, hidden, context, tied;
    long steps, batch, tokens, micro_tokens, save_every, seed;
    double epochs, lr, lr_warmup, weight_decay, clip, adam_eps, muon, ema, grow_below;
    int resume, target_correction, quiet;
    // Chapter 8 only: other models, its two strengths, and what it does instead of the usual step and validation.
    const char *reference, *reward;
    double beta, kl;
    int pairs, answers;                 // rows 2 i and 2 i + 1 are a pair, drawn as one; answers sampled a question
    struct Others *others;
    void (*prepare)(struct Run *);
    double (*step)(struct Run *), (*validate)(struct Run *);
} TrainOptions;

// The place of a run in its data, and the optimiser: all that a resumed run needs beside the weights. Up to the moments
// it is written to the state file as it stands.
typedef struct {
    long step, epoch, at, tokens, targets;      // done so far; `at` counts rows within the epoch's order
    long log_size;                              // bytes of the log file that belong to these steps
    long bound;                                 // rows with more target tokens are not drawn yet (--grow-below)
    long seed;                                  // of the order of the rows
    double running;                             // running mean of the loss; -1 before the first step
    double muon, ema;                           // --muon, --ema
    float *m, *v, *mean;                        // laid out like params: Adam's moments; with --ema, the mean weights
    Scratch work;                               // Muon's, muon_size() for each thread; empty without it
} Progress;

// The order of the rows in one epoch, a Fisher-Yates shuffle: the last place takes any of the n rows, the one before it
// any of those that are left, and so on, so that all n! orders are equally likely. It depends on seed and epoch only: a
// resumed run draws it again instead of reading it from a file.
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

// Draws the next rows: o->batch of them or, with --tokens, as many as that number of tokens has room for (at least
// one). Where the epoch ends, the next one begins, in the same batch. With o->pairs (chapter 8) two rows count as one
// and stay together.
//
// With --grow-below, rows with more than s->bound target tokens are passed over. A model from scratch must find out
// first that copying is possible at all, and it does so sooner where there is little to copy; what it has found out
// serves longer texts, too. train() doubles the bound whenever the running loss says that the present length is learnt.
static void draw_batch(Batch *b, const Rows *r, uint32_t *order, Progress *s, const TrainOptions *o)
{
    int each = 1 + o->pairs;
    size_t n = r->n / (size_t)each;
    batch_clear(b);
    for (;;) {
        if (s->at == (long)n) shuffle(order, n, o->seed, ++s->epoch), s->at = 0;
        const Row *next = &r->row[order[s->at] * (size_t)each];
        int T = next->n - 1 + (o->pairs ? next[1].n - 1 : 0);
        bool too_long = next->n - next->n_condition > s->bound;
        if (!too_long && b->n && (o->tokens ? b->T + T > o->tokens : b->n == o->batch * each)) return;
        for (int i = 0; i < each && !too_long; i++) batch_add(b, next + i);
        s->at++;
    }
}

static int longest_row(const Rows *r)
{
    int longest = 0;
    for (size_t i = 0; i < r->n; i++) if (r->row[i].n > longest) longest = r->row[i].n;
    return longest;
}

/* ------------------------------------------------------------------------------------------------------------
   From a batch to a step: AdamW (Loshchilov & Hutter 2019). With g the gradient of this step, t = 1, 2, ... its number,

       m <- b1 m + (1 - b1) g          a mean of the last gradients: where to go
       v <- b2 v + (1 - b2) g^2        a mean of their squares: how much they vary
       w <- w (1 - lr decay) - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

   m and v start at zero; the divisors 1 - b^t undo what that takes from the first means: after one step m / (1 - b1) is
   g itself. Each weight so gets a step of about lr, however large its gradients are, and a smaller one where they
   disagree from step to step. The decay is decoupled (the W of AdamW): it shrinks the weight itself instead of adding
   to g, where the division by sqrt(v) would make every weight's decay another one.

   Learning opportunity: with b1 = b2 = 0 this is sign descent, w <- w - lr sign(g). Why does it still learn? */

// The Euclidean norm of all gradients: floats within 4096 of them, doubles over these and over PARTS equal parts of the
// whole. Threads share the parts, one adds them up: the order is the same with any number of threads.
static double gradient_norm(const Model *m)
{
    enum { PARTS = 64, CHUNK = 4096 };
    double part[PARTS] = { 0 }, sum = 0;
    size_t n = (m->n_params / PARTS / CHUNK + 1) * CHUNK;
    #pragma omp parallel for schedule(static) if (m->n_params > 16384)
    for (int i = 0; i < PARTS; i++)
        for (size_t at = i * n, end = at + n; at < end && at < m->n_params; at += CHUNK) {
            const float *g = m->grads + at;
            part[i] += (double)dot(g, g, m->n_params - at < CHUNK ? (int)(m->n_params - at) : CHUNK);
        }
    for (int i = 0; i < PARTS; i++) sum += part[i];
    return sqrt(sum);
}

// A matrix inside a layer: Muon's, where --muon is given. Embeddings and head are lists of rows, one a token, and norms
// are no matrices: these stay with AdamW.
static bool inner_matrix(const Model *m, const Tensor *t)
{
    return t->rows > 1 && t->at != m->embd_at && t->at != m->out_at;
}

// AdamW's step on all tensors that are not Muon's; scale is what clipping leaves of the gradients, which are cleared.
// Decay is for matrices only.
//
// epsilon is more than a guard against 0 / 0. A token that is hardly ever a target gets a tiny gradient at each step:
// it is pushed down by its probability. With 1e-8 it moves by lr all the same, because divided by its own size any
// gradient has size one. With a tied head its embedding so drifts away, and what is not itself any more cannot be
// copied. An epsilon between the two sizes (1e-4 here) leaves such a token where it was.
static void adamw(Model *m, Progress *s, const TrainOptions *o, double lr, float scale)
{
    const double beta1 = 0.9, beta2 = 0.95, t = (double)s->step + 1;
    const float b1 = (float)beta1, b2 = (float)beta2, eps = (float)o->adam_eps;
    const float rate = (float)(lr / (1 - pow(beta1, t))), c2 = (float)(1 / (1 - pow(beta2, t)));
    for (size_t i = 0; i < m->n_tensors; i++) {
        const Tensor *e = &m->tensor[i];
        float *w = m->params + e->at, *g = m->grads + e->at, *m1 = s->m + e->at, *m2 = s->v + e->at;
        float keep = e->rows > 1 ? (float)(1 - lr * o->weight_decay) : 1.0f;
        long n = (long)e->rows * e->cols;
        if (o->muon > 0 && inner_matrix(m, e)) continue;
        #pragma omp parallel for schedule(static) if (n > 16384)
        for (long j = 0; j < n; j++) {
            float d = g[j] * scale;
            m1[j] = b1 * m1[j] + (1 - b1) * d;
            m2[j] = b2 * m2[j] + (1 - b2) * d * d;
            w[j] = w[j] * keep - rate * m1[j] / (sqrtf(m2[j] * c2) + eps);
            g[j] = 0;
        }
    }
}

/* Muon (Jordan et al. 2024), with --muon, for the matrices inside the layers. AdamW scales number by number, as if it
   did not know that they form a matrix. A gradient G = U S V^T (its singular value decomposition) has a few large
   singular values, the directions that most tokens of the batch ask for, and many small ones. Muon steps along U V^T:
   all of them set to one, so that a rare fact is learnt as fast as a frequent turn of phrase.

       m <- b1 m + (1 - b1) g,    G = b1 m + (1 - b1) g         Nesterov's mean: the present gradient counts once more
       w <- w (1 - r decay) - 0.2 r sqrt(max(rows, cols)) U V^T,    with r = muon lr

   The numbers of U V^T have the root mean square 1 / sqrt(max(rows, cols)), AdamW's steps about 0.2 lr: that makes the
   two alike (arXiv 2502.16982). U V^T takes no decomposition: an odd polynomial a X + b X X^T X + c (X X^T)^2 X is
   U (a S + b S^3 + c S^5) V^T. Three of them, one after the other, send all singular values from 1/300 to 1 to between
   0.18 and 1.87, which is near enough (coefficients of Polar Express, arXiv 2505.16932). All of it is matmul. */

// Floats of scratch memory that orthogonalize needs for any matrix of m.
static size_t muon_size(const Config *c)
{
    size_t k = (size_t)c->C;                            // of each matrix the shorter side at most
    return 2 * k * k + GEMM_SIZE;
}

// y[rows][cols] becomes U V^T of x = U S V^T, nearly; x is lost. own: scratch memory of this thread.
static void orthogonalize(float *y, float *x, int rows, int cols, float *own)
{
    static const float P[3][3] = { { 8.20516f, -22.90193f, 16.46072f }, { 4.06640f, -2.86115f, 0.51840f },
                                   { 3.90959f, -2.82335f, 0.52504f } };
    int k = least(rows, cols), longer = rows + cols - k;
    float *a = own, *b = a + (size_t)k * k, *scratch = b + (size_t)k * k;
    double sum = 0;
    for (int i = 0; i < rows; i++) sum += (double)dot(x + (size_t)i * cols, x + (size_t)i * cols, cols);
    float scale = (float)(1 / (sqrt(sum) + 1e-30));     // no singular value is larger than the root of all squares' sum
    for (size_t j = 0; j < (size_t)rows * cols; j++) x[j] *= scale;
    for (int step = 0; step < 3; step++) {     // from x to y, back to x, and to y
        const float *p = P[step];
        float *to = step % 2 ? x : y;
        View X = { step % 2 ? y : x, cols, 1 }, A = { a, k, 1 }, B = { b, k, 1 }, S = rows < cols ? X : transposed(X);
        gemm(0, 1, k, k, longer, S, transposed(S), NULL, a, (size_t)k, false, scratch);        // A = X X^T, or X^T X
        gemm(0, 1, k, k, k, A, A, NULL, b, (size_t)k, false, scratch);
        for (size_t j = 0; j < (size_t)k * k; j++) b[j] = p[1] * a[j] + p[2] * b[j];
        for (int i = 0; i < k; i++) b[(size_t)i * k + i] += p[0];                              // B = p0 + p1 A + p2 A^2
        if (rows < cols) gemm(0, 1, rows, cols, k, B, X, NULL, to, (size_t)cols, false, scratch);      // B X, or X B
        else gemm(0, 1, rows, cols, k, X, B, NULL, to, (size_t)cols, false, scratch);
    }
}

// Muon's step on the matrices inside the layers, a thread a matrix. It keeps no second mean: v holds G.
static void muon(Model *m, Progress *s, const TrainOptions *o, double lr, float scale)
{
    const float b1 = 0.9f, rate = (float)(0.2 * o->muon * lr), keep = (float)(1 - o->muon * lr * o->weight_decay);
    #pragma omp parallel for schedule(dynamic, 1)
    for (size_t i = 0; i < m->n_tensors; i++) {
        const Tensor *e = &m->tensor[i];
        float *w = m->params + e->at, *g = m->grads + e->at, *m1 = s->m + e->at, *G = s->v + e->at;
        float length = rate * sqrtf((float)(e->rows > e->cols ? e->rows : e->cols));
        size_t n = (size_t)e->rows * (size_t)e->cols;
        if (!inner_matrix(m, e)) continue;
        for (size_t j = 0; j < n; j++) {
            float d = (1 - b1) * scale * g[j];
            m1[j] = b1 * m1[j] + d;
            G[j] = b1 * m1[j] + d;
        }
        orthogonalize(g, G, e->rows, e->cols, own_scratch(&s->work));
        for (size_t j = 0; j < n; j++) w[j] = w[j] * keep - length * g[j], g[j] = 0;
    }
}

// With --ema X the model that is saved is an exponential moving average: the mean of the weights over about the last
// 1 / (1 - X) steps (over all, as long as there are fewer). A step follows a single batch, and much of what it does the
// next ones take back; in the mean that noise cancels.
static void average(const Model *m, Progress *s)
{
    float rate = (float)fmax(1 - s->ema, 1 / ((double)s->step + 1));
    #pragma omp parallel for schedule(static) if (m->n_params > 16384)
    for (size_t j = 0; j < m->n_params; j++) s->mean[j] += rate * (m->params[j] - s->mean[j]);
}

// The step of all weights at the rate lr. Gradients whose norm is larger than clip are scaled down to it, so that one
// odd batch cannot throw the weights far. Clears the gradients. Returns their norm before clipping.
static double update(Model *m, Progress *s, const TrainOptions *o, double lr)
{
    double norm = gradient_norm(m);
    float scale = o->clip > 0 && norm > o->clip ? (float)(o->clip / norm) : 1.0f;
    if (o->muon > 0) muon(m, s, o, lr, scale);
    adamw(m, s, o, lr, scale);
    if (s->mean) average(m, s);
    free(m->packed), m->packed = NULL;                  // packed weights are out of date
    return norm;
}

// Linear warm-up over the first lr_warmup of the steps, while Adam's means are young; then half a cosine down to a
// tenth of the peak, so that the last steps settle what the first ones found:
//
//     0.1 + 0.45 (1 + cos(pi done))       done from 0 to 1: 1 at the peak, 0.55 half-way, 0.1 at the end
static double learning_rate(const TrainOptions *o, long step, long steps)
{
    double warm = o->lr_warmup * (double)steps, at = (double)step;
    if (at < warm) return o->lr * (at + 1) / (warm + 1);
    double done = (double)steps > warm ? (at - warm) / ((double)steps - warm) : 1;
    return o->lr * (0.1 + 0.45 * (1 + cos(3.141592653589793 * done)));
}

/* ------------------------------------------------------------------------------------------------------------
   Checkpoint and resume. A GGUF file has no place for the optimiser, so its state stands beside it, in OUT.state:

       "ALNSTATE" | i64 n_params | the numbers of Progress | params | m | v | mean  (floats; this machine's byte order)

   The weights are in both files, so that the state is whole by itself: a run killed between the two still resumes. To
   give the same bits as a run without interruption takes all of it: without m and v Adam would start over, without
   `epoch` and `at` the same rows would come again, without `step` the learning rate would jump. With --ema, and only
   then, mean is there, too, and the model's file holds it instead of params. */

enum { STATE_NUMBERS = offsetof(Progress, m), STATE_HEAD = 16 + STATE_NUMBERS };

// With --ema: the mean weights take the place of the present ones, and at the next call these come back.
static void exchange_mean(Model *m, Progress *s)
{
    if (!s->mean) return;
    float *weights = m->params;
    m->params = s->mean, s->mean = weights;
    free(m->packed), m->packed = NULL;
}

// Writes both files, each through a temporary one: there is a whole checkpoint at every moment.
static void checkpoint(Model *m, Progress *s, const TrainOptions *o)
{
    Buf path = joined(o->out, ".state");
    int64_t n_params = (int64_t)m->n_params;
    size_t n = m->n_params * sizeof(float);
    Text part[] = { text("ALNSTATE"), { (char *)&n_params, 8 }, { (char *)s, STATE_NUMBERS },
                    { (char *)m->params, n }, { (char *)s->m, n }, { (char *)s->v, n }, { (char *)s->mean, n } };
    m->step = s->step;
    write_file(path.s, s->mean ? 7 : 6, part);
    exchange_mean(m, s);
    model_save(m, o->out);
    exchange_mean(m, s);
    free(path.s);
}

// Reads what checkpoint wrote, into weights, moments and numbers. Dies where it is no state of this run: another shape,
// another seed, or numbers that no run has (a state file is as hostile as any other). Its step may be ahead of the
// model's file, where the run was killed between the two, but not behind it.
static void resume(Model *m, Progress *s, const TrainOptions *o)
{
    Buf path = joined(o->out, ".state"), f = read_all(path.s, NULL);
    Progress h = *s;
    int64_t n_params;
    size_t n = m->n_params * sizeof(float);
    CHECK(f.n >= STATE_HEAD && !memcmp(f.s, "ALNSTATE", 8), "%s: not the state of a training run", path.s);
    memcpy(&n_params, f.s + 8, 8), memcpy(&h, f.s + 16, STATE_NUMBERS);
    CHECK(h.ema == o->ema, "%s: this run was started with --ema %g, not %g", path.s, h.ema, o->ema);
    CHECK(n_params == (int64_t)m->n_params && f.n == STATE_HEAD + (s->mean ? 4 : 3) * n,
          "%s: belongs to a model of another shape", path.s);
    CHECK(h.seed == o->seed, "%s: this run was started with --seed %ld, not %ld", path.s, h.seed, o->seed);
    CHECK(h.muon == o->muon, "%s: this run was started with --muon %g, not %g", path.s, h.muon, o->muon);
    CHECK(h.step >= m->step && h.step <= INT_MAX && h.at >= 0 && h.bound > 0 && h.bound <= INT_MAX && h.epoch >= -1 &&
          h.epoch < INT_MAX && h.tokens >= 0 && h.tokens < LONG_MAX / 2 && h.targets >= 0 && h.targets < LONG_MAX / 2,
          "%s: no state of %s (step %ld, the checkpoint's is %ld)", path.s, o->out, h.step, m->step);
    *s = h;
    const char *from = f.s + STATE_HEAD;
    memcpy(m->params, from, n), memcpy(s->m, from + n, n), memcpy(s->v, from + 2 * n, n);
    if (s->mean) memcpy(s->mean, from + 3 * n, n);
    free(path.s), free(f.s);
}

/* ------------------------------------------------------------------------------------------------------------
   The loop: draw, forward, loss, backward, step. What makes it an Aligner has happened before: it is in the rows. */

// A run: what is made once before the loop and used by every step of it.
typedef struct Run {
    Model *m;
    const Rows *rows, *valid;
    const TrainOptions *o;
    Progress s;
    Batch batch, part;                  // a step's examples; those of them that are computed at a time
    uint32_t *order;                    // [rows->n, or pairs] the order of this epoch
    double *nll;                        // [T] the terms of the loss
    int T, longest;                     // the most tokens of a batch, of an example
    long steps;
    FILE *log;
} Run;

// Opens the log; a resumed run first cuts off what was written behind its checkpoint.
static void log_open(Run *r)
{
    const char *path = r->o->log;
    long size = r->s.log_size;
    if (!path) return;
    CHECK((r->log = fopen(path, size > 0 ? "r+b" : "wb")), "cannot write %s: %s", path, strerror(errno));
    if (size <= 0) fprintf(r->log, "step,loss,lr,norm,tokens,targets,bound,valid\n");
    else CHECK(!fseek(r->log, 0, SEEK_END) && ftell(r->log) >= size && !ftruncate(fileno(r->log), (off_t)size) &&
               !fseek(r->log, 0, SEEK_END), "cannot cut %s back to the %ld bytes of the checkpoint; is it the log of "
               "this run? --resume without --log goes on without it", path, size);
}

// How many tokens of a batch of at most T are computed at a time: no more than --micro-tokens, but a unit at least.
static int micro_tokens(const TrainOptions *o, int T, int longest)
{
    long room = longest > UNIT ? longest : UNIT;
    if (o->micro_tokens > room) room = o->micro_tokens;
    return room < T ? (int)room : T;
}

// Sizes and allocates everything, and places the run at its first step or, with --resume, at the next one.
static void run_init(Run *r)
{
    const TrainOptions *o = r->o;
    const Rows *rows = r->rows;
    Progress *s = &r->s;
    int longest = longest_row(rows), longest_valid = longest_row(r->valid);
    long all_tokens = 0, shortest = INT_MAX, each = 1 + o->pairs, n = (long)rows->n / each;

    // How long is the run, and how large can a batch be?
    for (size_t i = 0; i < rows->n; i++) {
        int targets = rows->row[i].n - rows->row[i].n_condition;
        all_tokens += rows->row[i].n - 1;
        if (targets < shortest) shortest = targets;
    }
    double per_epoch = o->tokens ? (double)all_tokens / (double)o->tokens : (double)n / (double)o->batch;
    r->steps = o->steps ? o->steps : (long)ceil(o->epochs * per_epoch);
    r->longest = longest > longest_valid ? longest : longest_valid;
    if (o->answers) r->longest = r->m->c.context;       // RLHF writes its rows itself, those of one question at a time
    long most = (o->answers ? o->answers : o->batch * each) * r->longest;
    if (o->tokens) most = o->tokens > each * r->longest ? o->tokens : each * r->longest;
    CHECK(most < INT_MAX / 4, "a batch of %ld tokens; a smaller --batch is needed", most);
    r->T = (int)most;

    // `at` stands at the end of an epoch before the first: the first draw shuffles epoch 0.
    *s = (Progress){ .epoch = -1, .at = n, .running = -1, .seed = o->seed, .bound = INT_MAX, .muon = o->muon,
                      .ema = o->ema };
    s->m = zalloc(r->m->n_params, sizeof(float)), s->v = zalloc(r->m->n_params, sizeof(float));
    if (o->ema > 0) s->mean = zalloc(r->m->n_params, sizeof(float));
    if (o->muon > 0) s->work.own_size = muon_size(&r->m->c);
    s->work.own = zalloc((size_t)max_threads() * s->work.own_size, sizeof(float));
    if (o->grow_below > 0) s->bound = 3;
    if (o->resume) resume(r->m, s, o);
    else r->m->step = 0;
    if (o->grow_below <= 0) s->bound = INT_MAX;         // resumed without it: no row is held back
    if (s->bound < shortest) s->bound = shortest;       // whatever a state file says, there is a row to draw
    CHECK(s->at <= n, "the data file has changed: %ld rows, the saved run was at row %ld", n, s->at);

    // A batch has never more examples or targets than tokens: T is room enough for all three.
    r->order = zalloc(rows->n, sizeof *r->order), r->nll = zalloc((size_t)r->T, sizeof *r->nll);
    shuffle(r->order, (size_t)n, o->seed, s->epoch);
    batch_alloc(&r->batch, r->T, r->T, r->T);
    if (!r->m->grads) r->m->grads = zalloc(r->m->n_params, sizeof(float));
    int room = o->step ? r->T : micro_tokens(o, r->T, r->longest);      // chapter 8 computes its batches whole
    batch_alloc(&r->part, room, room, room);
    acts_reserve(r->m, room, room, r->longest, true);
    if (o->prepare) o->prepare(r);
    log_open(r);
}

// The mean loss a target token of rows, without gradients. b and nll have room for max_T tokens. A long target weighs
// more than a short one, as it does in training.
static double mean_loss(Model *m, const Rows *r, Batch *b, int max_T, double *nll)
{
    double sum = 0;
    long n = 0;
    for (size_t at = 0; at < r->n; n += b->n_out) {
        batch_clear(b);
        do batch_add(b, &r->row[at++]); while (at < r->n && b->T + r->row[at].n - 1 <= max_T);
        forward(m, b, NULL);
        loss_sum(m, b, nll, b->n_out);
        for (int i = 0; i < b->n_out; i++) sum += nll[i];       // in the order of the rows, however they are cut
    }
    return n ? sum / (double)n : 0;
}

// The loss of the validation rows, by the weights that are saved.
static double validate(Run *r)
{
    exchange_mean(r->m, &r->s);
    double loss = r->o->validate ? r->o->validate(r) : mean_loss(r->m, r->valid, &r->batch, r->m->acts.T, r->nll);
    exchange_mean(r->m, &r->s);
    return loss;
}

// Examples [from, to) of b, as a batch of their own.
static void batch_part(Batch *part, const Batch *b, int from, int to)
{
    int t0 = b->start[from], o = 0;
    part->T = b->start[to] - t0, part->n = to - from, part->n_out = 0;
    memcpy(part->ids, b->ids + t0, (size_t)part->T * sizeof(int));
    memcpy(part->pos, b->pos + t0, (size_t)part->T * sizeof(int));
    for (int e = from; e <= to; e++) part->start[e - from] = b->start[e] - t0;
    while (o < b->n_out && b->out[o] < t0) o++;
    for (; o < b->n_out && b->out[o] < b->start[to]; o++)
        part->out[part->n_out] = b->out[o] - t0, part->target[part->n_out++] = b->target[o];
}

// The mean loss of b, and its gradients in m->grads. What the activations have no room for at once goes through them in
// parts, whole units each: the bits are those of one pass.
static double loss_and_gradients(Model *m, const Batch *b, Batch *part, double *nll)
{
    double sum = 0;
    for (int from = 0, to = 0; from < b->n; from = to) {
        do to = unit_end(b, to);                        // as many units as there is room for
        while (to < b->n && b->start[unit_end(b, to)] - b->start[from] <= m->acts.T);
        batch_part(part, b, from, to);
        forward(m, part, NULL);
        loss_sum(m, part, nll, b->n_out);               // b->n_out: the mean is the whole batch's
        for (int i = 0; i < part->n_out; i++) sum += nll[i];
        backward(m, part);
    }
    return sum / b->n_out;
}

// On a terminal one live line, rewritten at every step; else about ten lines a run.
static void show_progress(const Run *r, double lr, double steps_per_second)
{
    const Progress *s = &r->s;
    bool live = isatty(2), last = s->step == r->steps;
    long left = steps_per_second > 0 ? (long)((double)(r->steps - s->step) / steps_per_second + 0.5) : 0;
    if (r->o->quiet || (!live && !last && s->step % (r->steps < 10 ? 1 : r->steps / 10))) return;
    fprintf(stderr, "%sstep %ld/%ld  loss %.4f  lr %.2e  %.0f tokens/s  ETA %ld:%02ld", live ? "\r\x1b[K" : "", s->step,
            r->steps, s->running, lr, steps_per_second * (double)s->tokens / (double)s->step, left / 60, left % 60);
    if (s->bound < INT_MAX) fprintf(stderr, "  targets up to %ld tokens", s->bound);
    if (!live || last) fputc('\n', stderr);
}

// One line of the log (the loss of this batch, the norm before clipping), flushed, with the validation loss where the
// model is saved.
static void log_step(Run *r, double loss, double lr, double norm, bool saved)
{
    Progress *s = &r->s;
    fprintf(r->log, "%ld,%.6f,%.4e,%.4f,%ld,%ld,%ld,", s->step, loss, lr, norm, s->tokens, s->targets,
            s->bound < INT_MAX ? s->bound : 0);
    if (r->valid->n && saved) fprintf(r->log, "%.6f", validate(r));
    fprintf(r->log, "\n");
    if (!fflush(r->log) && !ferror(r->log)) s->log_size = ftell(r->log);
}

// A signal handler may do next to nothing: it leaves a note, and the loop looks at it between two steps.
static volatile sig_atomic_t interrupted;
static void on_interrupt(int sig) { interrupted = sig; }

// The step of chapter 1's objectives: one batch's loss, whose gradient is added to m->grads.
static double supervised_step(Run *r)
{
    Batch *b = &r->batch;
    draw_batch(b, r->rows, r->order, &r->s, r->o);
    r->s.tokens += b->T, r->s.targets += b->n_out;
    return loss_and_gradients(r->m, b, &r->part, r->nll);
}

// Trains m on rows: draw, forward, loss, backward, step. Ctrl-C (or SIGTERM) saves and ends the run with exit 1;
// --resume goes on from there with the same bits as a run that was never interrupted.
static void train(Model *m, const Rows *rows, const Rows *valid, const TrainOptions *o)
{
    Run r = { .m = m, .rows = rows, .valid = valid, .o = o };
    Progress *s = &r.s;
    struct sigaction action = { .sa_handler = on_interrupt, .sa_flags = SA_RESTART }, old_int, old_term;
    run_init(&r);
    sigaction(SIGINT, &action, &old_int), sigaction(SIGTERM, &action, &old_term);

    long first = s->step;
    double start = seconds();
    while (s->step < r.steps && !interrupted) {
        // The step. The gradients are zero at first, and update leaves them so.
        double loss = o->step ? o->step(&r) : supervised_step(&r), lr = learning_rate(o, s->step, r.steps);
        CHECK(isfinite(loss), "the loss is %g at step %ld; try a smaller --lr (the last checkpoint is untouched)",
              loss, s->step + 1);
        double norm = update(m, s, o, lr);
        CHECK(isfinite(norm), "the gradient's norm is %g at step %ld; try a smaller --lr (the last checkpoint is "
              "untouched)", norm, s->step + 1);

        // The books: counters, a mean over about the last 20 losses, and what --grow-below makes of it.
        s->step++;
        s->running = s->running < 0 ? loss : 0.95 * s->running + 0.05 * loss;
        if (s->bound < INT_MAX && s->running < o->grow_below)           // short rows are learnt: now twice as long ones
            s->running = 2 * o->grow_below, s->bound = s->bound >= r.longest ? INT_MAX : 2 * s->bound;

        // What the user sees, and what survives a power cut. The last checkpoint is written behind the loop.
        bool save = o->save_every && s->step % o->save_every == 0;
        show_progress(&r, lr, (double)(s->step - first) / (seconds() - start));
        if (r.log) log_step(&r, loss, lr, norm, save || s->step == r.steps);
        if (save && s->step < r.steps) checkpoint(m, s, o);
    }
    checkpoint(m, s, o);

    sigaction(SIGINT, &old_int, NULL), sigaction(SIGTERM, &old_term, NULL);
    if (!o->quiet)
        fprintf(stderr, "%s%s: %s, step %ld, %ld tokens (%ld targets), running loss %.4f, %.0f s\n",
                isatty(2) && interrupted ? "\n" : "", o->out, m->objective, s->step, s->tokens, s->targets, s->running,
                seconds() - start);
    if (valid->n) fprintf(stderr, "validation loss %.4f\n", validate(&r));
    bool log_failed = r.log && ferror(r.log);
    if (r.log && fclose(r.log)) log_failed = true;
    CHECK(!log_failed, "cannot write all of %s; is the disk full? The model is saved", o->log);
    free(r.order), free(r.nll), free(s->m), free(s->v), free(s->mean), free(s->work.own);
    batch_free(&r.batch), batch_free(&r.part);
    if (interrupted) fprintf(stderr, "interrupted; the same command with --resume goes on\n"), exit(1);
}

/* ------------------------------------------------------------------------------------------------------------
   Data files, JSON or JSONL. Skip this if you take "a file becomes a list of triples" for granted.

       value    =  object | array | string | number | true | false | null          (RFC 8259, with blanks in between)
       object   =  { }  |  { string : value , ... }
       array    =  [ ]  |  [ value , ... ]

   A text is walked over without building a tree: json_skip steps over a value and is the only judge of whether it is
   well-formed; all that comes after it may rely on that. Texts end with a NUL, which is no JSON anywhere: every loop
   stops there, so none needs to ask whether it has reached the end. A pointer that is NULL means malformed. */

static const char *json_space(const char *p) { return p + strspn(p, " \t\r\n"); }

static const char *json_digits(const char *p) { return *p >= '0' && *p <= '9' ? p + strspn(p, "0123456789") : NULL; }

// [-] digits [. digits] [e [+ -] digits], and no 0 in front of other digits.
static const char *json_number(const char *p)
{
    if (*p == '-') p++;
    const char *digits = p;
    if (!(p = json_digits(p)) || (*digits == '0' && p > digits + 1)) return NULL;
    if (*p == '.' && !(p = json_digits(p + 1))) return NULL;
    return *p == 'e' || *p == 'E' ? json_digits(p + 1 + (p[1] == '+' || p[1] == '-')) : p;
}

// From the opening quote to behind the closing one. What a backslash means is judged when the text is wanted.
static const char *json_string(const char *p)
{
    for (p++; *p != '"'; p++)
        if ((uint8_t)*p < 32 || (*p == '\\' && (uint8_t)*++p < 32)) return NULL;       // also the NUL
    return p + 1;
}

// The place behind the value that begins at p. depth bounds the recursion: a file must not decide how deep the stack
// goes.
static const char *json_skip(const char *p, int depth)
{
    static const char *const WORD[] = { "true", "false", "null" };
    if (depth > 64) return NULL;
    if (*p == '"') return json_string(p);
    for (int i = 0; i < 3; i++) if (!strncmp(p, WORD[i], strlen(WORD[i]))) return p + strlen(WORD[i]);
    if (*p != '{' && *p != '[') return json_number(p);

    char close = *p == '{' ? '}' : ']';
    p = json_space(p + 1);
    if (*p == close) return p + 1;
    for (;; p = json_space(p + 1)) {
        if (close == '}') {                             // a key and a colon come before each value
            if (*p != '"' || !(p = json_string(p)) || *(p = json_space(p)) != ':') return NULL;
            p = json_space(p + 1);
        }
        if (!(p = json_skip(p, depth + 1))) return NULL;
        p = json_space(p);
        if (*p == close) return p + 1;
        if (*p != ',') return NULL;
    }
}

// Steps to the next member of a well-formed object: *at starts at 0. False at the end. key and value are raw, that is,
// as they stand in the file: what nobody asks for is never decoded, and a filter writes it out byte for byte.
static bool json_member(Text object, size_t *at, Text *key, Text *value)
{
    const char *p = json_space(object.s + (*at ? *at : 1));
    if (*p == ',') p = json_space(p + 1);
    if (*p == '}') return false;
    const char *k = json_skip(p, 0), *v = json_space(json_space(k) + 1), *after = json_skip(v, 0);
    *key = (Text){ p, (size_t)(k - p) }, *value = (Text){ v, (size_t)(after - v) };
    *at = (size_t)(after - object.s);
    return true;
}

// Appends a code point. UTF-8 puts 6 bits into each byte but the first, from the end on; the first one tells how many.
static void put_utf8(Buf *out, uint32_t c)
{
    static const uint8_t LEAD[] = { 0, 0, 0xC0, 0xE0, 0xF0 };
    char u[4];
    int n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (int i = n - 1; i > 0; i--, c >>= 6) u[i] = (char)(0x80 | (c & 0x3F));
    u[0] = (char)(LEAD[n] | c);
    buf_add(out, u, (size_t)n);
}

static int json_hex(const char *p)                      // the value of 4 hex digits, or -1
{
    char digits[5] = { 0 };
    if (strspn(p, "0123456789abcdefABCDEF") < 4) return -1;
    return (int)strtol(memcpy(digits, p, 4), NULL, 16);
}

// Appends what the well-formed value raw (a string with its quotes) stands for. False where it is no string, or has an
// escape that JSON does not know. \uXXXX has 16 bits; a code point beyond them is written as two, D800 + its upper 10
// bits and DC00 + its lower 10 bits, counted from 10000 on. Such a surrogate alone means nothing and becomes U+FFFD.
static bool json_text(Text raw, Buf *out)
{
    static const char CODE[] = "\"\\/bfnrt", MEANS[] = "\"\\/\b\f\n\r\t";
    if (raw.n < 2 || *raw.s != '"') return false;
    buf_add(out, "", 0);
    for (const char *p = raw.s + 1, *end = raw.s + raw.n - 1; p < end; ) {
        size_t plain = strcspn(p, "\\\"");
        buf_add(out, p, plain);
        if ((p += plain) == end) break;
        const char *simple = strchr(CODE, p[1]);
        int u = p[1] == 'u' ? json_hex(p + 2) : -1, low = -1;
        if (!simple && u < 0) return false;
        p += simple ? 2 : 6;
        if (simple) { buf_add(out, MEANS + (simple - CODE), 1); continue; }
        if (u >= 0xD800 && u < 0xDC00 && p[0] == '\\' && p[1] == 'u') low = json_hex(p + 2);    // a pair of surrogates?
        if (low >= 0xDC00 && low < 0xE000) p += 6, u = 0x10000 + ((u - 0xD800) << 10) + (low - 0xDC00);
        put_utf8(out, u >= 0xD800 && u < 0xE000 ? 0xFFFD : (uint32_t)u);
    }
    return true;
}

// Appends t as a JSON string; bytes that are no UTF-8 become U+FFFD.
static void json_put(Buf *out, Text t)
{
    char code[8];
    buf_puts(out, "\"");
    for (size_t i = 0, n; i < t.n; i += n ? n : 1) {
        uint8_t c = (uint8_t)t.s[i];
        n = utf8_length((Text){ t.s + i, t.n - i });
        snprintf(code, sizeof code, c == '\n' ? "\\n" : c == '"' || c == '\\' ? "\\%c" : "\\u%04x", c);
        if (!n) buf_puts(out, "\\ufffd");
        else if (c < 32 || c == 127 || c == '"' || c == '\\') buf_puts(out, code);
        else buf_add(out, t.s + i, n);
    }
    buf_puts(out, "\"");
}

// Is this raw key (which may be written with escapes) that name?
static bool key_is(Text raw, const char *name)
{
    Buf key = { 0 };
    bool is = json_text(raw, &key) && same(contents(&key), text(name));
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

// Objects of a JSON array or of JSONL, whichever the first byte that is no white space tells. JSONL is read line by
// line, so that a filter can answer before its input ends.
typedef struct {
    const char *path;
    FILE *f;
    Buf text;                           // the line, or of an array the first line and all that follows it
    size_t at, counted;                 // how far it is read; how far its newlines are in `number`
    long number;                        // of the line
    bool array, started;
    Text object;                        // for next_row: the row as it stands, and the texts of its keys
    Buf own[3];
} Objects;

static void objects_open(Objects *o, const char *path)
{
    *o = (Objects){ .path = path ? path : "standard input", .f = path ? fopen(path, "rb") : stdin };
    CHECK(o->f, "cannot open %s: %s; name a file that exists and can be read", path, strerror(errno));
}

static void objects_close(Objects *o)
{
    if (o->f != stdin) fclose(o->f);
    free(o->text.s), free(o->own[0].s), free(o->own[1].s), free(o->own[2].s);
}

// Reads the next line that is not blank; false at the end. Where the first one begins with [, reads the rest of the
// file.
static bool next_line(Objects *o)
{
    const char *p;
    do {
        ssize_t n = getline(&o->text.s, &o->text.cap, o->f);
        CHECK(n >= 0 || !ferror(o->f), "cannot read %s: %s", o->path, strerror(errno));
        if (n < 0) return false;
        o->text.n = (size_t)n;
        bool mark = ++o->number == 1 && !strncmp(o->text.s, "\xEF\xBB\xBF", 3);         // a byte order mark
        p = json_space(o->text.s + (mark ? 3 : 0));
    } while (p == o->text.s + o->text.n);
    o->at = (size_t)(p - o->text.s);
    if (!o->started && *p == '[') {
        Buf rest = read_all(o->path, o->f);
        buf_add(&o->text, rest.s, rest.n);
        free(rest.s);
        o->array = true, o->counted = ++o->at;
    }
    return true;
}

// The next object; it stays valid until the next call. False at the end; malformed input dies with file and line. In an
// array there is a comma before each object but the first, and ] ends it; in JSONL each object has a line.
static bool next_object(Objects *o, Text *object)
{
    bool first = !o->started, comma = false;
    if (!o->array && !next_line(o)) return false;
    const char *p = json_space(o->text.s + o->at), *end = o->text.s + o->text.n;
    o->started = true;
    if (o->array) {
        comma = *p == ',';
        if (comma) p = json_space(p + 1);
        for (; o->text.s + o->counted < p; o->counted++) o->number += o->text.s[o->counted] == '\n';
        if (*p == ']' && !comma) {
            CHECK(json_space(p + 1) == end, "%s:%ld: text behind the end of the array", o->path, o->number);
            return false;
        }
    }
    const char *after = *p == '{' ? json_skip(p, 0) : NULL;
    bool good = after && (o->array ? comma != first : json_space(after) == end);
    CHECK(good, "%s:%ld: %s was expected; found: %.60s", o->path, o->number,
          o->array ? "an object of the array" : "one JSON object a line", p);
    *object = (Text){ p, (size_t)(after - p) };
    o->at = (size_t)(after - o->text.s);
    return true;
}

// The text under a key, which must be there and be a string; out owns it.
static Text get_text(const Objects *o, Text object, const char *key, Buf *out)
{
    Text raw = json_find(object, key);
    CHECK(raw.s, "%s:%ld: the key \"%s\" is missing; rows need it for this command", o->path, o->number, key);
    out->n = 0;
    CHECK(json_text(raw, out), "%s:%ld: the value of \"%s\" is no well-formed string", o->path, o->number, key);
    return contents(out);
}

enum { NEED_X = 1, NEED_Y_O = 2, NEED_Y_C = 4 };       // question, answer, correction: which keys a row must have

// Steps to the next row and reads the asked keys of it, valid until the next call; the others are NONE. False at the
// end.
static bool next_row(Objects *o, int keys, Triple *t)
{
    static const char *const KEY[] = { "question", "answer", "correction" };
    Text *field[] = { &t->x, &t->y_o, &t->y_c };
    if (!next_object(o, &o->object)) return false;
    for (int i = 0; i < 3; i++) *field[i] = keys >> i & 1 ? get_text(o, o->object, KEY[i], &o->own[i]) : NONE;
    return true;
}

// Reads a data file and builds its rows with the objective: here, and nowhere else, is decided what is learnt.
// target_correction: sft learns y_c instead of y_o. Rows that cannot be trained on (empty target, longer than the
// context) are counted and named, never silently used.
static void rows_load(Rows *r, const Model *m, const char *path, Objective objective, bool target_correction)
{
    Objects in;
    Triple t;
    bool y_c = target_correction || objective == aligner;
    int keys = NEED_X | (target_correction ? 0 : NEED_Y_O) | (y_c ? NEED_Y_C : 0);
    long empty = 0, too_long = 0, first = 0;
    objects_open(&in, path);
    while (next_row(&in, keys, &t)) {
        if (target_correction) t.y_o = t.y_c;
        Row one = objective(m, t);
        if (one.n - one.n_condition < 2) empty++;
        else if (one.n - 1 > m->c.context) too_long++;
        else {
            r->row = grow(r->row, sizeof *r->row, &r->cap, r->n + 1);
            r->row[r->n++] = one;
            continue;
        }
        free(one.ids);
        if (!first) first = in.number;
    }
    objects_close(&in);
    if (first) fprintf(stderr, "%s: skipped %ld rows with an empty target and %ld longer than the context of %d tokens "
                       "(first: line %ld)\n", path, empty, too_long, m->c.context, first);
}

/* ============================================================================================================
   Chapter 7. Generating.  The sampler; decoding that takes y_o for a draft of y_c; and correct() and answer_to(), which
   chapter 1 promised. */

typedef struct {
    double temperature, top_p, frequency_penalty;       // temperature 0: greedy
    double keep;                                        // nats by which y_c must outweigh y_o, see outweighs()
    int top_k, max_tokens;                              // 0: no limit
    int no_draft;                                       // 1: y_o is no draft of y_c, for comparison
    uint64_t seed;
} Decoding;

static const Decoding GREEDY = { .temperature = 0, .top_p = 1 };

// What generation needs beside the model. All of it is allocated once, for the whole context: nothing is in the token
// loop (but the list of new ids, which grows). passes, copied and tokens count the work done since generator_init.
typedef struct {
    Model *m;
    Decoding how;
    Cache cache;
    Batch batch;
    int *count;                                         // [V] how often each token has been written in this text
    struct Choice { float p; int id; } *choice;         // [V] for the sampler
    long passes, tokens, copied;
} Generator;

// Tokens of the draft fed at once: at first, after a difference, at most.
enum { DRAFT_FIRST = 16, DRAFT_AGAIN = 8, DRAFT_MOST = 64 };

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

// Chooses the next token from one row of logits z. Greedy takes the largest, the first one on ties. Otherwise
//
//     p(token) ~ exp(z / temperature)         below 1 the likely ones gain, above 1 they lose
//
// is cut to the top_k likeliest tokens and to the fewest that have top_p of the whole between them, and one is drawn. A
// frequency penalty first lowers each logit by penalty x (how often the token stands in this text already).
static int choose(Generator *g, float *logits)
{
    int V = g->m->c.V, best = 0, n = 0;
    const Decoding *h = &g->how;
    if (h->frequency_penalty != 0)
        for (int i = 0; i < V; i++) logits[i] -= (float)h->frequency_penalty * (float)g->count[i];
    for (int i = 1; i < V; i++) if (logits[i] > logits[best]) best = i;
    if ((float)h->temperature <= 0) return best;        // also 1e-60, which no float holds
    double sum = 0, kept = 0;
    for (int i = 0; i < V; i++) {                       // the largest is exp(0) = 1: nothing overflows
        g->choice[i] = (struct Choice){ expf((logits[i] - logits[best]) / (float)h->temperature), i };
        sum += (double)g->choice[i].p;
    }
    if (h->top_k || h->top_p < 1)                       // where nothing is cut, the order does not matter
        qsort(g->choice, (size_t)V, sizeof *g->choice, likelier_first);
    while (n < V && (!h->top_k || n < h->top_k) && (n == 0 || kept < h->top_p * sum)) kept += (double)g->choice[n++].p;
    double u = random_unit(&g->how.seed) * kept;
    for (int i = 0; i < n; i++) if ((u -= (double)g->choice[i].p) < 0) return g->choice[i].id;
    return g->choice[n - 1].id;
}

// One pass over n new tokens, and n_more behind them; the logits of the last n_out, logits_ld apart. What was fed
// before stands in the cache.
static float *feed(Generator *g, const int *ids, int n, const int *more, int n_more, int n_out)
{
    Batch *b = &g->batch;
    b->T = n + n_more, b->n = 1, b->n_out = n_out, b->start[0] = 0, b->start[1] = b->T;
    for (int t = 0; t < b->T; t++) b->ids[t] = t < n ? ids[t] : more[t - n], b->pos[t] = g->cache.len + t;
    for (int i = 0; i < n_out; i++) b->out[i] = b->T - n_out + i;
    forward(g->m, b, &g->cache);
    g->passes++;
    return g->m->acts.logits;
}

// Where the draft goes on after a difference: behind the place where it has the last 3 (or 2) tokens of out, first from
// `from` on, then anywhere. -1 where it has them nowhere.
static int resume_draft(const int *draft, int n_draft, const Ids *out, int from)
{
    for (int n = 3; n >= 2; n--)
        for (int again = 0; n <= out->n && again < 2; again++)
            for (int i = again ? 0 : from; i + n < n_draft; i++)
                if (!memcmp(draft + i, out->a + out->n - n, (size_t)n * sizeof(int))) return i + n;
    return -1;
}

// Continues the prompt; out receives the new tokens. True where the model ended the text with </s>, false where room or
// max_tokens ran out.
//
// A draft speeds greedy decoding up and changes no token (Shallow Aggressive Decoding, arXiv 2106.04970; LLMA,
// 2304.04487). To write n tokens takes n passes, one behind the other; to check n tokens takes one pass, since a pass
// gives the logits of all its positions at once. So a block of the draft is fed as if the model had written it.
// Position by position the model says what it would have written; the longest prefix on which the draft agrees is kept,
// and at the first difference the model's own token stands and the rest of the block is forgotten:
//
//     draft       The   capital   of   Spain   is ...         fed at once, behind the last token that is certain
//     model       The   capital   of   France  ?              "is" was a guess about a text that is not written
//     kept        The   capital   of   France                 four tokens for one pass
//
// For an Aligner the draft is y_o: correcting is easier than answering because most of y_c is there already. The runs
// that are kept are what it copies.
static bool generate(Generator *g, const Ids *prompt, const int *draft, int n_draft, Ids *out)
{
    // A guess is only a guess about what greedy decoding would write: where tokens are drawn there is no draft.
    bool drafting = draft && g->how.temperature <= 0 && !g->how.no_draft;
    int at = drafting ? 0 : -1;                         // the draft's next token; -1 where its thread is lost
    int block = DRAFT_FIRST, last, room = g->m->c.context;
    const int *pending = prompt->a;                     // certain, but not fed yet: the prompt, later the last token
    int n_pending = prompt->n;
    memset(g->count, 0, (size_t)g->m->c.V * sizeof *g->count);
    g->cache.len = 0;
    while (g->cache.len + n_pending <= room) {
        // One pass: what is certain, and behind it as many guesses as draft, block and context have room for.
        int guesses = at < 0 ? 0 : n_draft - at < block ? n_draft - at : block, i = 0;
        if (guesses > room - g->cache.len - n_pending) guesses = room - g->cache.len - n_pending;
        float *logits = feed(g, pending, n_pending, at < 0 ? NULL : draft + at, guesses, guesses + 1);
        for (;; i++, logits += logits_ld(&g->m->c)) {   // i guesses have come true so far
            last = choose(g, logits);
            if (last == EOS) return true;
            if (g->how.max_tokens && out->n == g->how.max_tokens) return false;
            ids_add(out, last), g->count[last]++, g->tokens++;
            if (i == guesses || last != draft[at + i]) break;
            g->copied++;
        }
        g->cache.len -= guesses - i;                    // forget the guesses behind the first difference
        pending = &last, n_pending = 1;
        if (!drafting) continue;

        // Where all came true, and the model's own token is the draft's next one, too, go on with a larger block. Else
        // find the place in the draft again, and begin with a small block: a wrong guess is work for nothing.
        bool on = at >= 0 && i == guesses && at + i < n_draft && last == draft[at + i];
        block = !on ? DRAFT_AGAIN : block * 2 < DRAFT_MOST ? block * 2 : DRAFT_MOST;
        at = on ? at + i + 1 : resume_draft(draft, n_draft, out, at < 0 ? 0 : at);
    }
    return false;
}

// log p, in nats, of the tokens row[from .. n), or of as many of them as the context has room for. The cache holds what
// stands before row[from - 1].
static double log_p_rest(Generator *g, const int *row, int from, int n)
{
    double nll[DRAFT_MOST + 1], sum = 0;
    int end = least(n, g->m->c.context + 1), ld = (int)logits_ld(&g->m->c);
    g->cache.len = from - 1;
    for (int k; from < end; from += k) {
        k = least(end - from, DRAFT_MOST + 1);
        float *logits = feed(g, row + from - 1, k, NULL, 0, k);
        cross_entropy(logits, nll, row + from, k, g->m->c.V, ld, 1);
        for (int i = 0; i < k; i++) sum -= nll[i];
    }
    return sum;
}

// Is y_c, what generate has just written, worth giving up y_o for? With how.keep = X it must be e^X times as likely:
//
//     log mu(y_c | y_o, x)  -  log mu(y_o | y_o, x)  >=  X
//
// A likelihood ratio asks both texts whole, where greedy decoding leaves y_o at the first token that is not the
// likeliest, whatever comes of it. What the two have in common cancels, so only what follows their first difference is
// read: a few tokens, and none where y_c is a copy. An Aligner trained with fewer good answers than it meets is too
// ready to correct: by Bayes' rule its log odds of a copy are short by the log of the ratio of the odds, which X gives
// back. r is y_o's row.
static bool outweighs(Generator *g, const Row *r, const Ids *y_c)
{
    Ids own = { 0 };
    int same = 0;
    for (int i = 0; i < r->n_condition; i++) ids_add(&own, r->ids[i]);
    for (int i = 0; i < y_c->n; i++) ids_add(&own, y_c->a[i]);
    ids_add(&own, EOS);                                 // texts that end are never the beginning of each other
    while (same < least(r->n, own.n) && own.a[same] == r->ids[same]) same++;
    double gain = same == own.n ? 0 : log_p_rest(g, own.a, same, own.n) - log_p_rest(g, r->ids, same, r->n);
    free(own.a);
    return gain >= g->how.keep;
}

// The text side of generate. Answers r's condition, with r's target for a draft, which stays the answer where how.keep
// is set and the new text does not outweigh it. out becomes the text as far as it came. Returns NULL, or why it found
// no end (valid until the next call). Frees r.
static const char *reply(Generator *g, Row r, Buf *out)
{
    static char reason[128];
    Ids condition = { r.ids, r.n_condition, 0 }, ids = { 0 };
    int n_target = r.n - r.n_condition - 1;             // without </s>
    *reason = 0;
    if (r.n_condition >= g->m->c.context)
        snprintf(reason, sizeof reason, "the prompt takes %d tokens, the model's context is %d", r.n_condition,
                 g->m->c.context);
    else if (!generate(g, &condition, r.ids + r.n_condition, n_target, &ids))
        snprintf(reason, sizeof reason, "no end after %d tokens", ids.n);
    bool stays = !*reason && n_target && g->how.keep > 0 && !outweighs(g, &r, &ids);
    free(out->s);
    *out = stays ? decode_all(&g->m->tok, r.ids + r.n_condition, n_target) : decode_all(&g->m->tok, ids.a, ids.n);
    free(ids.a), free(r.ids);
    return *reason ? reason : NULL;
}

// y_c ~ mu_phi(. | y_o, x): one draw from the Aligner; the left-hand factor of Eq. (2). Returns NULL, or the reason
// for which y_o could not be corrected: y_c is then y_o, so that no upstream answer is ever lost.
static const char *correct_with(Generator *g, Text x, Text y_o, Buf *y_c)
{
    const char *reason = reply(g, row(g->m, prompt(g->m, x, y_o), y_o), y_c);
    if (!reason && !y_c->n && y_o.n) reason = "the model wrote nothing";
    if (reason) y_c->n = 0, buf_add(y_c, y_o.s, y_o.n);
    return reason;
}

// y_o ~ pi_theta(. | x): the right-hand factor of Eq. (2). NULL, or why it found no end (y_o holds what there is).
static const char *answer_with(Generator *g, Text x, Buf *y_o)
{
    return reply(g, row(g->m, prompt(g->m, x, NONE), NONE), y_o);
}

// What chapter 1 declared: the same two draws with a generator made for the occasion. It decodes as `decoding` says,
// greedily unless the command line asks for something else; the seed moves on, so that no two draws are the same by
// force.
static Decoding decoding = { .temperature = 0, .top_p = 1 };

static const char *correct(Model *mu, Text x, Text y_o, Buf *y_c)
{
    Generator g;
    generator_init(&g, mu, decoding);
    const char *reason = correct_with(&g, x, y_o, y_c);
    decoding.seed = g.how.seed;
    generator_free(&g);
    return reason;
}

static bool answer_to(Model *pi, Text x, Buf *y_o)
{
    Generator g;
    generator_init(&g, pi, decoding);
    bool ended = !answer_with(&g, x, y_o);
    decoding.seed = g.how.seed;
    generator_free(&g);
    return ended;
}

/* ============================================================================================================
   Chapter 8. Alternatives.  What the paper compares the Aligner with: DPO, a reward model, RLHF. All three change the
   upstream model itself, so each upstream needs a run of its own. Skip the chapter unless you want to see in code what
   the Aligner spares. None of its equations is printed in the paper, which only cites them:

       dpo      Rafailov et al. 2023 (arXiv 2305.18290), Eq. (7) there
       reward   Bradley and Terry 1952, as in Ouyang et al. 2022 (arXiv 2203.02155), Eq. (1) there
       rlhf     Ouyang et al. 2022, Eq. (2) there without its pretraining term: reward less a multiple of KL; with the
                estimator of Williams 1992 (REINFORCE) and the leave-one-out baseline of Kool et al. 2019, which
                Ahmadian et al. 2024 (arXiv 2402.14740) put in PPO's place (Schulman et al. 2017, arXiv 1707.06347).
                PPO uses a set of answers for several steps and clips the ratio of new to old probability, at 1 +- 0.2
                in the paper's runs. Here each set serves one step: the ratio is 1, and a clip would never act.

   Preferences come from the same triples: y_c is preferred to y_o. Backward stays as it is. To it a loss is nothing but
   a weight for each target: the derivative of the loss by that target's own term, nll = - log p(target).

       objective   loss                                                     weight of a target's nll
       sft         mean of all nll                                          1 / targets
       dpo         - log sigmoid(margin), margin = v(y_c) - v(y_o),         beta sigmoid(- margin) / pairs in y_c,
                   v(y) = beta log(pi(y | x) / ref(y | x))                  minus that in y_o
       reward      - log sigmoid(r(y_c) - r(y_o))                           none: the derivative goes to one logit
       rlhf        - E R,  R = r(y) - kl log(pi(y | x) / ref(y | x))        (R - mean R of the other answers) / answers

   What is in memory beside activations. Adam needs 16 bytes a trained parameter either way: mixed precision has 2 for
   the weight, 2 for its gradient, 4 each for a master copy and two moments; this file has 4 each for weight, gradient
   and two moments. A frozen parameter costs 2 bytes there and 4 here. In bytes a parameter, all models being of one
   size:

                    models                                       mixed precision     here
       sft          1   policy                                   16                  16
       aligner      1   Aligner (the upstream stays on disk)     16                  16
       dpo          2   policy; reference                        16 + 2 = 18         16 + 4 = 20
       rlhf, PPO    4   actor, critic; reward, reference         32 + 4 = 36         -
       rlhf here    3   policy; reward, reference                16 + 4 = 20         16 + 8 = 24, and 4 for the copy of
                                                                                     the weights that generation packs

   18 / 16 = 1.125 and 36 / 16 = 2.25 are the paper's factors for models of one size (p. 2-4; it prints no formula: this
   is a reconstruction). There is no critic here: the other answers to a question take its place. */

// The models beside the one that is trained, and what a step needs: all of it is allocated before the loop.
typedef struct Others {
    Model reference, reward;            // frozen; empty where the objective has none
    Model actor;                        // rlhf: the trained weights once more, packed for generation
    Generator writer;                   // ... and what writes with it
    Batch judged;                       // ... the answers as the reward model reads them
    Ids answer;                         // ... and the one that is being written
    int *ids, max_tokens;               // [context + 2] a row made of it; its most tokens (0: what the context holds)
    double *nll, *nll_ref;              // [examples] - log p(y | x) under the policy and under the reference
    double *value, *weight;             // [examples] what is compared; the derivative of the loss by each nll
    double ranked, mean_reward, mean_kl;        // share of pairs in the right order; running means, an answer
    bool running;                       // have the means begun? A resumed run begins them anew
} Others;

enum { REWARD = UNK };                  // the token whose logit is the reward
static const double NO_END = 1;         // rlhf: what an answer without an end loses of its reward

/* The reward model is an ordinary llama with an ordinary file: an extra tensor would make it unreadable elsewhere. A
   scalar head is a vector w, r = w . h. The row of the classifier that belongs to <unk> is such a vector, and it is
   free: no text of ours has an <unk>, so nothing else wants its logit. r is read where the whole answer has been seen,
   at </s>: the row is  <s> condition y </s> | <unk>,  with one place whose logits are wanted. Bradley-Terry sees
   differences of r only; its zero means nothing. */
static Row judged(const Model *m, Triple t)
{
    Row r = sft(m, t);
    Ids ids = { r.ids, r.n, 0 };
    ids_add(&ids, REWARD);              // cap 0: the ids move, with a place more
    return (Row){ ids.a, r.n, ids.n };
}

static double reward_of(const Model *m, int i) { return (double)m->acts.logits[(size_t)i * logits_ld(&m->c) + REWARD]; }

// r(x, y) of one such row.
static double score(Model *m, Batch *b, const Row *r)
{
    batch_clear(b), batch_add(b, r), forward(m, b, NULL);
    return reward_of(m, 0);
}

// The question alone, for rlhf: the model brings the answers.
static Row question(const Model *m, Triple t) { return row(m, prompt(m, t.x, NONE), NONE); }

// Reads rows for this chapter and the next one. pairs: row 2 i is made from (x, y_c, y_c), row 2 i + 1 from the triple;
// where y_o is y_c nothing is preferred to anything, and the triple is left out. Else a row is a question. What is left
// out is counted and named.
static void pairs_load(Rows *r, const Model *m, const char *path, Objective build, bool pairs)
{
    Objects in;
    Triple t;
    long equal = 0, empty = 0, too_long = 0, first = 0;
    int room = m->c.context - (pairs ? 0 : 2);          // behind a question there must be place for a token and </s>
    objects_open(&in, path);
    while (next_row(&in, pairs ? NEED_X | NEED_Y_O | NEED_Y_C : NEED_X, &t)) {
        Row a = build(m, pairs ? (Triple){ t.x, t.y_c, t.y_c } : t), b = { 0 };
        if (pairs) b = build(m, t);
        long *skip = pairs && same(t.y_o, t.y_c) ? &equal : pairs && !t.y_c.n ? &empty :
                     a.n - 1 > room || b.n - 1 > room ? &too_long : NULL;
        if (!skip) {
            r->row = grow(r->row, sizeof *r->row, &r->cap, r->n + 2);
            r->row[r->n++] = a;
            if (pairs) r->row[r->n++] = b;
            continue;
        }
        free(a.ids), free(b.ids);
        ++*skip;
        if (!first) first = in.number;
    }
    objects_close(&in);
    if (first) fprintf(stderr, "%s: skipped %ld rows whose answer is the correction (no preference), %ld with an empty "
                       "correction and %ld longer than the context of %d tokens (first: line %ld)\n", path, equal,
                       empty, too_long, m->c.context, first);
}

// sum[e] = - log p(y | x) of each example e: the sum over its targets. Leaves the gradient of the sum of all in the
// place of the logits; weigh turns it into that of sum_e weight[e] sum[e].
static void sequence_nll(Model *m, const Batch *b, double *nll, double *sum)
{
    forward(m, b, NULL);
    loss_sum(m, b, nll, 1);
    for (int e = 0, i = 0; e < b->n; e++)
        for (sum[e] = 0; i < b->n_out && b->out[i] < b->start[e + 1]; i++) sum[e] += nll[i];
}

static void weigh(Model *m, const Batch *b, const double *weight)
{
    size_t ld = logits_ld(&m->c);
    for (int e = 0, i = 0; e < b->n; e++)
        for (; i < b->n_out && b->out[i] < b->start[e + 1]; i++)
            for (int j = 0; j < m->c.V; j++) m->acts.logits[(size_t)i * ld + (size_t)j] *= (float)weight[e];
}

// The loss of the pairs in r->batch, a sum, for both objectives of pairs; its gradient divided by n_total takes the
// place of the logits. The derivative of - log sigmoid(margin) by the margin is - sigmoid(- margin): a pair that is in
// the right order by far moves nothing.
static double pair_loss(Run *r, int n_total)
{
    Others *x = r->o->others;
    const Batch *b = &r->batch;
    Model *m = r->m;
    bool dpo = x->reference.params;
    size_t ld = logits_ld(&m->c);
    double loss = 0, right = 0;
    if (dpo) sequence_nll(m, b, r->nll, x->nll), sequence_nll(&x->reference, b, r->nll, x->nll_ref);
    else forward(m, b, NULL);
    for (int e = 0; e < b->n; e++)                      // what a pair compares: DPO's implicit reward, or the reward
        x->value[e] = dpo ? r->o->beta * (x->nll_ref[e] - x->nll[e]) : reward_of(m, e);
    for (int e = 0; e < b->n; e += 2) {
        double margin = x->value[e] - x->value[e + 1], push = 1 / (1 + exp(margin)) / n_total;
        loss += log1p(exp(-fabs(margin))) + fmax(-margin, 0);           // - log sigmoid(margin), without overflow
        right += margin > 0;
        x->weight[e] = dpo ? r->o->beta * push : -push, x->weight[e + 1] = -x->weight[e];
    }
    if (dpo) weigh(m, b, x->weight);
    else for (int e = 0; e < b->n; e++) {               // one logit of one place an example has a derivative
        memset(m->acts.logits + (size_t)e * ld, 0, ld * sizeof(float));
        m->acts.logits[(size_t)e * ld + REWARD] = (float)x->weight[e];
    }
    x->ranked = right / (b->n / 2);
    return loss;
}

// Learning opportunity: the reference is frozen, so its log p of each row could be computed once, before the loop, and
// the model be closed: DPO would hold one model in memory instead of two. What would that cost? Why not for rlhf?
static double pair_step(Run *r)
{
    Batch *b = &r->batch;
    draw_batch(b, r->rows, r->order, &r->s, r->o);
    double loss = pair_loss(r, b->n / 2) / (b->n / 2);
    backward(r->m, b);
    r->s.tokens += b->T, r->s.targets += b->n_out;
    return loss;
}

// The mean loss of the validation pairs, one by one, and how many of them are ranked as they should be.
static double pair_validate(Run *r)
{
    double sum = 0, right = 0;
    for (size_t i = 0; i < r->valid->n; i += 2) {
        batch_clear(&r->batch);
        batch_add(&r->batch, &r->valid->row[i]), batch_add(&r->batch, &r->valid->row[i + 1]);
        sum += pair_loss(r, 1), right += r->o->others->ranked;
    }
    r->o->others->ranked = right / ((double)r->valid->n / 2);
    return sum / ((double)r->valid->n / 2);
}

// One more answer y[n] to the question q, for the policy's batch and, always with its </s>, for the reward model's.
static void add_answer(Run *r, const Row *q, const int *y, int n, bool ended)
{
    Others *x = r->o->others;
    int c = q->n_condition;
    memcpy(x->ids, q->ids, (size_t)c * sizeof(int)), memcpy(x->ids + c, y, (size_t)n * sizeof(int));
    x->ids[c + n] = EOS, x->ids[c + n + 1] = REWARD;
    x->value[r->batch.n] = ended ? 0 : -NO_END;
    batch_add(&r->batch, &(Row){ x->ids, c, c + n + ended });
    batch_add(&x->judged, &(Row){ x->ids, c + n + 1, c + n + 2 });
}

// Draws answers y ~ pi(. | x) to one question: temperature 1 and nothing cut off, or the estimator would be of another
// policy than the one that is trained. An answer has at most N draws, </s> being one. generate() would look one token
// further than max_tokens, so N is set by the context instead; the actor's is its own.
static void draw_answers(Run *r, const Row *q, uint64_t seed)
{
    Others *x = r->o->others;
    Ids condition = { q->ids, q->n_condition, 0 };
    int N = r->m->c.context - q->n_condition - 1;
    if (x->max_tokens && x->max_tokens < N) N = x->max_tokens;
    x->actor.c.context = q->n_condition + N - 1;
    x->writer.how.seed = seed;
    batch_clear(&r->batch), batch_clear(&x->judged);
    for (int i = 0; i < r->o->answers; i++) {
        x->answer.n = 0;
        bool ended = generate(&x->writer, &condition, NULL, 0, &x->answer);
        add_answer(r, q, x->answer.a, x->answer.n, ended);
    }
}

// - mean R of the answers in r->batch, all to one question; the estimated gradient, times scale, takes the place of the
// logits. The gradient of E R is E R grad log pi(y | x), because grad pi = pi grad log pi; that R itself holds log pi
// adds nothing, for E grad log pi = 0. For the same reason a baseline that does not depend on y may be subtracted, and
// the mean of the other answers' R is one: what is better than its siblings becomes likelier, what is worse less
// likely.
static double rlhf_loss(Run *r, double scale)
{
    Others *x = r->o->others;
    const Batch *b = &r->batch;
    int k = b->n;
    double sum = 0, kl = 0, reward = 0;
    sequence_nll(r->m, b, r->nll, x->nll), sequence_nll(&x->reference, b, r->nll, x->nll_ref);
    forward(&x->reward, &x->judged, NULL);
    for (int e = 0; e < k; e++) {
        double log_ratio = x->nll_ref[e] - x->nll[e];   // its mean over many answers is the KL divergence
        x->value[e] += reward_of(&x->reward, e), reward += x->value[e], kl += log_ratio;
        sum += x->value[e] -= r->o->kl * log_ratio;
    }
    for (int e = 0; e < k; e++) x->weight[e] = (x->value[e] - (sum - x->value[e]) / (k - 1)) * scale / k;
    weigh(r->m, b, x->weight);
    double keep = x->running ? 0.95 : 0;                // as the running loss
    x->running = true;
    x->mean_reward = keep * x->mean_reward + (1 - keep) * reward / k;
    x->mean_kl = keep * x->mean_kl + (1 - keep) * kl / k;
    return -sum / k;
}

// One step: o->batch questions, some answers to each. Gradients add up from question to question, so that memory has to
// hold the answers to one. The seed of the draws follows from run, step and question: a resumed run draws the same.
static double rlhf_step(Run *r)
{
    const TrainOptions *o = r->o;
    Progress *s = &r->s;
    double loss = 0;
    uint64_t seed = (uint64_t)o->seed * 1000003u + (uint64_t)s->step;
    pack_weights(&o->others->actor);
    for (long i = 0; i < o->batch; i++) {
        if (s->at == (long)r->rows->n) shuffle(r->order, r->rows->n, o->seed, ++s->epoch), s->at = 0;
        draw_answers(r, &r->rows->row[r->order[s->at++]], random_u64(&seed));
        loss += rlhf_loss(r, 1 / (double)o->batch) / (double)o->batch;
        backward(r->m, &r->batch);
        s->tokens += r->batch.T, s->targets += r->batch.n_out;
    }
    return loss;
}

// The same on the validation questions, with draws of their own that are the same each time, and nothing learnt.
static double rlhf_validate(Run *r)
{
    double sum = 0;
    Others before = *r->o->others;
    pack_weights(&r->o->others->actor);
    for (size_t i = 0; i < r->valid->n; i++) draw_answers(r, &r->valid->row[i], i), sum += rlhf_loss(r, 0);
    r->o->others->mean_reward = before.mean_reward, r->o->others->mean_kl = before.mean_kl;
    r->o->others->running = before.running;
    return sum / (double)r->valid->n;
}

// Room for steps of this run, once its sizes are known. The actor shares the weights of the trained model and has its
// own activations, or training and generation would take turns in allocating theirs.
static void others_init(Run *r)
{
    Others *x = r->o->others;
    int k = r->o->answers;
    double **array[] = { &x->nll, &x->nll_ref, &x->value, &x->weight };
    for (int i = 0; i < 4; i++) *array[i] = zalloc((size_t)r->T, sizeof(double));
    if (x->reference.params) acts_reserve(&x->reference, r->T, r->T, r->longest, false);
    if (!k) return;
    batch_alloc(&x->judged, r->T + k, k, k);
    acts_reserve(&x->reward, r->T + k, k, r->longest, false);
    x->actor = (Model){ .c = r->m->c, .tok = r->m->tok, .layer = r->m->layer, .embd_at = r->m->embd_at,
                        .norm_at = r->m->norm_at, .out_at = r->m->out_at, .packed_out = r->m->packed_out,
                        .params = r->m->params, .angle = r->m->angle };
    generator_init(&x->writer, &x->actor, (Decoding){ .temperature = 1, .top_p = 1 });
    x->ids = ints(r->longest + 2);
    x->answer.a = grow(NULL, sizeof(int), &x->answer.cap, (size_t)r->longest + 2);
}

// What the actor shares is not its own to free.
static void others_free(Others *x)
{
    free(x->nll), free(x->nll_ref), free(x->value), free(x->weight), free(x->ids), free(x->answer.a);
    if (x->actor.params) generator_free(&x->writer), batch_free(&x->judged);
    free(x->actor.packed), acts_free(&x->actor.acts);
    model_free(&x->reference), model_free(&x->reward);
    *x = (Others){ 0 };
}

// Ids pass between these models, not text: they must share vocabulary and prompt, and have as much room.
static void others_load(Model *other, const Model *m, const char *path)
{
    model_load(other, path);
    bool same_pieces = other->c.V == m->c.V;
    for (int i = 0; i < m->c.V && same_pieces; i++) same_pieces = same(other->tok.piece[i], m->tok.piece[i]);
    CHECK(same_pieces, "%s: another vocabulary than that of the model to be trained; one tokenizer for both", path);
    CHECK(other->template && !strcmp(other->template_sft, m->template_sft), "%s: another prompt than that of the model "
          "to be trained; train both with the same --prompt", path);
    CHECK(other->c.context >= m->c.context, "%s: its context has %d tokens, that of the model that is trained %d", path,
          other->c.context, m->c.context);
}

/* ============================================================================================================
   Chapter 9. Inside.  Two things that can be read off a trained Aligner: both sides of Eq. (3), answer by answer; and,
   from appendix B.6 (p. 19-21), "copy or correct" as a direction of the residual stream, which can be turned up and
   down. Skip it at first reading. */

// log p(target | condition) of one row, in nats: a term of the means of Eqs. (1) and (4), with its </s>.
static double log_likelihood(Model *m, Batch *b, double *nll, const Row *r)
{
    batch_clear(b), batch_add(b, r), forward(m, b, NULL);
    return -loss_sum(m, b, nll, 1);
}

/* The sum of Eq. (2) has a term for each answer that the upstream model could give: too many to count, but most of the
   probability is in few of them. They are found best first. All that is known so far is a tree: a node is the beginning
   of an answer, its children are that beginning and one token more. The likeliest node is taken out; where it ends with
   </s> it is an answer, else its children go in. A child is never likelier than its parent, so answers come out in the
   order of their probability, and none is missed. */
typedef struct { double log_p; int parent, token, depth; } Node;

// The answers found: answer[i] has probability exp(log_p[i]); mass is their sum.
typedef struct { Ids *answer; double *log_p, mass; int n; } Answers;

// When to stop: with this much of the probability, so many answers or passes; an answer is cut behind max_tokens draws.
typedef struct { double mass; int answers, passes, max_tokens; } Limits;

static const double FAINT = -16.1;      // log 1e-7
static const Limits BOUND = { .mass = 0.99, .answers = 256, .passes = 4096, .max_tokens = INT_MAX };

// The ids of a node, behind those of the condition: from its last token back to the first.
static void spell(const Node *node, int i, int n_condition, Ids *path)
{
    while (path->n < n_condition + node[i].depth) ids_add(path, 0);
    path->n = n_condition + node[i].depth;
    for (; node[i].depth; i = node[i].parent) path->a[n_condition + node[i].depth - 1] = node[i].token;
}

static void answers_free(Answers *a)
{
    for (int i = 0; i < a->n; i++) free(a->answer[i].a);
    free(a->answer), free(a->log_p);
}

// Answers of g's model to a condition, likeliest first. Beginnings of less than 1e-7 are left out, and their mass with
// them: what is covered is what was found, never more.
static Answers enumerate(Generator *g, const Row *r, Limits most)
{
    Answers a = { zalloc((size_t)most.answers, sizeof(Ids)), zalloc((size_t)most.answers, sizeof(double)), 0, 0 };
    Ids path = { 0 }, fed = { 0 };
    Heap heap = { 0 };
    Node *node = NULL;
    size_t n = 0, cap = 0;
    int c = r->n_condition, V = g->m->c.V, passes = 0;
    for (int i = 0; i < c; i++) ids_add(&path, r->ids[i]);
    node = grow(node, sizeof *node, &cap, 1), node[n++] = (Node){ 0 };
    heap_push(&heap, (Merge){ 0, 0, 0 });
    g->cache.len = 0;
    while (heap.n && a.n < most.answers && a.mass < most.mass) {
        int i = heap_pop(&heap).left;
        Node top = node[i];
        spell(node, i, c, &path);
        bool ended = top.depth && top.token == EOS;
        if (ended || top.depth == most.max_tokens) {
            for (int t = c; t < path.n - ended; t++) ids_add(&a.answer[a.n], path.a[t]);
            a.log_p[a.n++] = top.log_p, a.mass += exp(top.log_p);
            continue;
        }
        if (path.n > g->m->c.context || passes++ >= most.passes) continue;
        int known = 0;                                  // what this beginning shares with the last one is in the cache
        while (known < fed.n && known < path.n - 1 && fed.a[known] == path.a[known]) known++;
        g->cache.len = known;
        float *z = feed(g, path.a + known, path.n - known, NULL, 0, 1), m, inv;
        for (fed.n = known; fed.n < path.n; ) ids_add(&fed, path.a[fed.n]);
        softmax(z, V, &m, &inv);
        for (int j = 0; j < V; j++) {
            double log_p = top.log_p + log((double)z[j]);
            if (!(log_p > FAINT)) continue;
            node = grow(node, sizeof *node, &cap, n + 1);
            node[n] = (Node){ log_p, i, j, top.depth + 1 };
            heap_push(&heap, (Merge){ (float)log_p, (int)n++, 0 });
        }
    }
    free(path.a), free(fed.a), free(heap.a), free(node);
    return a;
}

// Both sides of Eq. (3) for one triple, in nats. left is - log pi'(y_c | x) as far as the answers were counted: what is
// missing could only make it smaller, so left is an upper bound of the true left side and slack = right - left a lower
// bound of the true slack. The term of y_o itself is always counted: left <= right holds whatever else was found.
typedef struct { double left, right, mass; int answers; } Bound;

// log(e^a + e^b), which neither overflows nor underflows.
static double log_add(double a, double b) { return fmax(a, b) + log1p(exp(-fabs(a - b))); }

static bool bound(Generator *pi, Model *mu, Batch *b, double *nll, Triple t, Limits most, Bound *out)
{
    Row upstream = sft(pi->m, t), row = aligner(mu, t);
    bool fits = upstream.n - 1 <= pi->m->c.context && row.n - 1 <= mu->c.context;
    if (fits) {
        Answers a = enumerate(pi, &upstream, most);
        // pi(y_o | x) comes from the pass that generates, as all other pi(y_k | x) do
        pi->cache.len = 0;
        int c = upstream.n_condition, n_out = upstream.n - c;
        double log_pi = 0, log_mu = log_likelihood(mu, b, nll, &row);
        for (int i = 0, n = c; i < n_out; i++, n = 1) {
            float *z = feed(pi, upstream.ids + pi->cache.len, n, NULL, 0, 1), m, inv;
            double logit = (double)z[upstream.ids[c + i]];
            softmax(z, pi->m->c.V, &m, &inv);
            log_pi += logit - (double)m + log((double)inv);
        }
        *out = (Bound){ .right = -log_mu - log_pi, .mass = exp(log_pi), .answers = 1 };
        double log_sum = log_mu + log_pi;               // of the terms of Eq. (2) so far
        for (int k = 0; k < a.n; k++) {
            const Ids *y = &a.answer[k];
            int same_ids = 0;
            while (same_ids < least(y->n, n_out - 1) && y->a[same_ids] == upstream.ids[c + same_ids]) same_ids++;
            if (same_ids == y->n && y->n == n_out - 1) continue;        // y_o, which is counted already
            Buf y_k = decode_all(&pi->m->tok, y->a, y->n);
            Row r = aligner(mu, (Triple){ t.x, contents(&y_k), t.y_c });
            if (r.n - 1 <= mu->c.context) {             // what mu has no room for counts as missing
                log_sum = log_add(log_sum, a.log_p[k] + log_likelihood(mu, b, nll, &r));
                out->mass += exp(a.log_p[k]), out->answers++;
            }
            free(y_k.s), free(r.ids);
        }
        out->left = -log_sum;
        answers_free(&a);
    }
    free(upstream.ids), free(row.ids);
    return fits;
}

/* Steering.  H[l] is the residual stream behind layer l at a place of the output. Two stimuli for each triple that has
   something to correct: row 2 i copies (x, y_c -> y_c), row 2 i + 1 corrects (x, y_o -> y_c). Question, output and
   position are the same; what differs is only whether the answer in the prompt was good. (As printed, the names of the
   paper's two sets of stimuli look swapped.) Then

       V_c     = first principal direction of the normalised differences H_correct - H_copy     one vector a layer
       r(l, k) = H[l]^T V_c                    activity at layer l, output position k
       M'      = M + alpha V_c                 steering: a vector is added to the residual stream (forward, chapter 5)

   A principal direction has neither sign nor length. The sign is chosen so that +alpha raises D_L. In M' its length is
   the mean length of the differences, |H_correct - H_copy|, so that alpha = 1 means the same in every layer and every
   model: as far as the two kinds are apart, and all of it along V_c. */

enum { POSITIONS = 8 };                 // output positions that are looked at

// Where forward left H[l] of a batch of one row, at output position k; behind the last layer only outputs are left.
static const float *hidden(const Model *m, const Batch *b, int l, int k)
{
    return layer_acts(m, l).next + (size_t)(l == m->c.L - 1 ? k : b->out[k]) * (size_t)m->c.C;
}

// H[row][l][k][C] of all rows, positions beyond a row's end being zero: two such rows have no difference there, which
// principal_direction passes over. acts_reserve must have kept every layer, as for training.
static float *hidden_states(Model *m, const Rows *rows, Batch *b)
{
    size_t C = (size_t)m->c.C, L = (size_t)m->c.L;
    float *H = zalloc(rows->n * L * POSITIONS * C, sizeof *H), *to = H;
    for (size_t i = 0; i < rows->n; i++) {
        batch_clear(b), batch_add(b, &rows->row[i]), forward(m, b, NULL);
        for (int l = 0; l < m->c.L; l++)
            for (int k = 0; k < POSITIONS; k++, to += C)
                if (k < b->n_out) copy_floats(to, hidden(m, b, l, k), C);
    }
    return H;
}

// V_c of layer l: power iteration on the sum of d d^T over the normalised differences d. Each round multiplies v by
// that matrix and makes it a unit vector again: the direction of the largest eigenvalue outgrows all others. V_c points
// to where correcting rows are on average. Returns the mean length of the differences.
static double principal_direction(float *v, const float *H, size_t n_rows, int l, int L, int C)
{
    size_t row = (size_t)L * POSITIONS * (size_t)C, at = (size_t)l * POSITIONS * (size_t)C;
    float *d = zalloc((size_t)C, sizeof *d), *next = zalloc((size_t)C, sizeof *next);
    double gap = 0, length = 0, n = 0;
    for (int round = 0; round < 100; round++) {
        memset(next, 0, (size_t)C * sizeof *next), gap = length = n = 0;
        for (size_t i = 0; i < n_rows; i += 2)
            for (int k = 0; k < POSITIONS; k++) {
                const float *copy = H + i * row + at + (size_t)k * (size_t)C, *correct = copy + row;
                for (int j = 0; j < C; j++) d[j] = correct[j] - copy[j];
                float norm = sqrtf(dot(d, d, C)), along = round ? dot(d, v, C) : norm;     // round 0: the mean of d
                if (norm == 0) continue;
                for (int j = 0; j < C; j++) next[j] += along / (norm * norm) * d[j];
                gap += (double)along, length += (double)norm, n++;
            }
        float norm = sqrtf(dot(next, next, C));
        if (norm == 0) break;
        if (round < 99) for (int j = 0; j < C; j++) v[j] = next[j] / norm;
    }
    if (gap < 0) for (int j = 0; j < C; j++) v[j] = -v[j];
    free(d), free(next);
    return n > 0 ? length / n : 0;
}

// The mean of r(l, k) over rows of one kind (0 copy, 1 correct) that have a position k.
static double activity(const float *H, const Rows *rows, const float *v, int kind, int l, int k, int L, int C)
{
    double sum = 0, n = 0;
    for (size_t i = (size_t)kind; i < rows->n; i += 2) {
        if (rows->row[i].n - rows->row[i].n_condition <= k) continue;
        sum += (double)dot(H + ((i * (size_t)L + (size_t)l) * POSITIONS + (size_t)k) * (size_t)C, v, C), n++;
    }
    return n > 0 ? sum / n : 0;
}

/* ============================================================================================================
   Chapter 10. Command line.  stdout carries results only; progress and messages go to stderr. First what is shown and
   counted (the word diff, the tallies of `eval`), then the options, then one function a command; main comes last. */

static double percent(long n, long of) { return of ? 100.0 * (double)n / (double)of : 0; }
static bool use_color(FILE *f) { return isatty(fileno(f)) && !getenv("NO_COLOR"); }

// Pushes out what stdout still holds: a result that did not arrive is a failed run.
static void flush_results(void)
{
    CHECK(!fflush(stdout) && !ferror(stdout), "cannot write the result: %s", strerror(errno));
}

// Writes a text that may go to a terminal: control codes but newline and tab stay out, so that no file and no model can
// steer the terminal.
static void put_plain(FILE *f, Text t)
{
    for (size_t i = 0; i < t.n; i++) {
        char c[] = { t.s[i], i + 1 < t.n ? t.s[i + 1] : 0 };
        int n = *c == '\n' || *c == '\t' ? 0 : control_length(c);
        if (n) i += (size_t)n - 1;
        else fputc(*c, f);
    }
}

static void put_line(FILE *f, const char *label, Text t) { fputs(label, f), put_plain(f, t), fputc('\n', f); }

// A text that is the whole result: plain on a terminal, byte for byte elsewhere.
static void put_result(Text t)
{
    if (isatty(1)) put_plain(stdout, t);
    else fwrite(t.s, 1, t.n, stdout);
    putchar('\n');
}

/* ------------------------------------------------------------------------------------------------------------
   The diff of y_o and y_c. The paper's Aligner is a residual: what matters is what it changes. */

// It is over words: a word is a run of non-blanks with the blanks in front of it, which do not count in
// comparisons.
static size_t run_of(Text t, bool blank)                // how many blanks, or non-blanks, t begins with
{
    size_t n = 0;
    while (n < t.n && (t.s[n] == ' ' || t.s[n] == '\n') == blank) n++;
    return n;
}

static Text rest_of(Text t, size_t n) { return (Text){ t.s + n, t.n - n }; }
static bool same_word(Text a, Text b) { return same(rest_of(a, run_of(a, true)), rest_of(b, run_of(b, true))); }

// Cuts t into at most `most` words; the last one then takes what is left. Returns their number.
static int words(Text t, Text *word, int most)
{
    int n = 0;
    for (; t.n && n < most; n++) {
        size_t blank = run_of(t, true), length = blank + run_of(rest_of(t, blank), false);
        word[n] = (Text){ t.s, n == most - 1 ? t.n : length };
        t = rest_of(t, word[n].n);
    }
    return n;
}

static void show_word(FILE *f, Text w, int change, bool color)          // change: -1 deleted, 0 kept, +1 inserted
{
    static const char *const OPEN[2][3] = { { "[-", "", "{+" }, { "\x1b[9;31m", "", "\x1b[32m" } };
    static const char *const CLOSE[2][3] = { { "-]", "", "+}" }, { "\x1b[0m", "", "\x1b[0m" } };
    size_t blank = run_of(w, true);
    put_plain(f, (Text){ w.s, blank }), fputs(OPEN[color][change + 1], f);
    put_plain(f, rest_of(w, blank)), fputs(CLOSE[color][change + 1], f);
}

// Prints y_o -> y_c as one text in which the words that differ are marked. lcs(i, j) is the length of a longest common
// subsequence of the words from i and from j on; walking from (0, 0) along its largest values gives the fewest marks.
static void show_diff(FILE *f, Text y_o, Text y_c, bool color)
{
    enum { MOST = 2048 };
    Text *a = zalloc(MOST, sizeof *a), *b = zalloc(MOST, sizeof *b);
    int n = words(y_o, a, MOST), m = words(y_c, b, MOST), i, j;
    int *lcs = zalloc((size_t)(n + 1) * (size_t)(m + 1), sizeof *lcs);
#define LCS(i, j) lcs[(size_t)(i) * (size_t)(m + 1) + (size_t)(j)]
    for (i = n - 1; i >= 0; i--)
        for (j = m - 1; j >= 0; j--)
            if (same_word(a[i], b[j])) LCS(i, j) = LCS(i + 1, j + 1) + 1;
            else LCS(i, j) = LCS(i + 1, j) > LCS(i, j + 1) ? LCS(i + 1, j) : LCS(i, j + 1);
    for (i = j = 0; i < n || j < m; )
        if (i < n && j < m && same_word(a[i], b[j])) show_word(f, j ? b[j] : a[i], 0, color), i++, j++;
        else if (i < n && (j == m || LCS(i + 1, j) >= LCS(i, j + 1))) show_word(f, a[i++], -1, color);
        else show_word(f, b[j++], +1, color);
#undef LCS
    fputc('\n', f);
    free(a), free(b), free(lcs);
}

// "copied" or "corrected", and the reason where there is one.
static void show_verdict(FILE *f, Text y_o, Text y_c, const char *reason)
{
    bool copied = same(y_o, y_c), color = use_color(f);
    fprintf(f, "%s%s%s%s%s\n", !color ? "" : copied ? "\x1b[2m" : "\x1b[1m", copied ? "copied" : "corrected",
            reason ? ": " : "", reason ? reason : "", color ? "\x1b[0m" : "");
}

// One correction for a reader, on stdout: the diff, and under it the verdict.
static void show_correction(const char *label, const char *indent, Text y_o, Text y_c, const char *reason)
{
    fputs(label, stdout), show_diff(stdout, y_o, y_c, use_color(stdout));
    fputs(indent, stdout), show_verdict(stdout, y_o, y_c, reason);
}

/* ------------------------------------------------------------------------------------------------------------
   What `eval` counts. A row is due to be copied where its gold correction is its answer, and to be corrected elsewhere;
   so an Aligner can fail in three ways: it changes what was good, it misses what was bad, it corrects it wrongly. */

// Levenshtein distance of two lists of ids: the fewest insertions, deletions and substitutions from a to b. d[j] is the
// distance from the first i of a to the first j of b; a row of the table is made from the row above it, in place.
static int levenshtein(const int *a, int n, const int *b, int m)
{
    while (n && m && *a == *b) a++, b++, n--, m--;      // what both share at the ends costs nothing
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

// Sorts one row into a tally: what was due (copy or correct) and what came. The degree of correction D_L (appendix B.6)
// is the distance from y_o to y_c over the length of y_o: how much the Aligner changed, right or wrong.
static void tally(Tally *t, const Tokenizer *k, Text y_o, Text gold, Text y_c)
{
    Ids a = { 0 }, b = { 0 };
    encode(k, y_o, &a), encode(k, y_c, &b);
    t->degree += (double)levenshtein(a.a, a.n, b.a, b.n) / (a.n ? a.n : 1);
    if (same(y_o, gold)) t->copy++, t->exact += same(y_c, gold);
    else t->correct++, t->right += same(y_c, gold), t->missed += same(y_c, y_o);
    free(a.a), free(b.a);
}

// One line for a reader, or the members of a JSON object.
static void show_tally(const Tally *t, bool json)
{
    long wrong = t->correct - t->right - t->missed, n = t->copy + t->correct;
    double degree = n ? t->degree / (double)n : 0;
    if (json)
        printf("\"copy\": {\"rows\": %ld, \"exact\": %ld}, "
               "\"correct\": {\"rows\": %ld, \"exact\": %ld, \"missed\": %ld, \"wrong\": %ld}, \"degree\": %.4f",
               t->copy, t->exact, t->correct, t->right, t->missed, wrong, degree);
    else {
        put_plain(stdout, contents(&t->name));
        printf("%*s to copy: %5ld rows, %6.2f %% exact;  to correct: %5ld rows, %6.2f %% exact, %6.2f %% wrong, "
               "%6.2f %% missed;  D_L %.3f\n", t->name.n < 12 ? 12 - (int)t->name.n : 0, "", t->copy,
               percent(t->exact, t->copy), t->correct, percent(t->right, t->correct), percent(wrong, t->correct),
               percent(t->missed, t->correct), degree);
    }
}

/* ------------------------------------------------------------------------------------------------------------
   Options. */

static const char VERSION[] = "aligner.c 1.0 (arXiv 2402.02416, PDF of January 2025)";
static const char USAGE[] =
"aligner.c - train and use a small Aligner (arXiv 2402.02416)\n"
"\n"
"  aligner tokenizer --data F... --vocab N --out tokenizer.bin [--prompt P]\n"
"  aligner train sft|warmup|aligner [--init M.gguf] --data F... --out M.gguf\n"
"        a model from scratch: --tokenizer F --dim N --layers N --heads N --kv-heads N --hidden N --context N --tied\n"
"        run: --steps N | --epochs X; --batch ROWS | --tokens N; --lr X --lr-warmup RATIO --weight-decay X --clip X\n"
"             --adam-eps X   1e-8 unless given; a larger one keeps the embeddings of rare tokens in place\n"
"             --muon X   the matrices inside the layers learn by Muon, at X times the rate; the rest by AdamW\n"
"             --ema X   saves the mean of the weights over about the last 1 / (1 - X) steps; 0 (none) unless given\n"
"             --seed N --valid F --log F.csv --save-every N --resume --target answer|correction\n"
"             --micro-tokens N   of a batch are computed at a time; less memory, the same bits\n"
"             --grow-below X   short rows first: the longest target doubles whenever the running loss falls below X\n"
"             --prompt default|v1|v2|paper|short or a template with {question} and {answer}\n"
"  aligner train dpo --init M.gguf [--reference R.gguf] --beta X       correction preferred to answer\n"
"  aligner train reward [--init M.gguf]                                a model that judges, from the same pairs\n"
"  aligner train rlhf --init M.gguf --reward R.gguf [--reference R.gguf] --kl X --samples N --max-tokens N\n"
"  aligner answer  M.gguf [F.jsonl]     rows with question            -> the same rows with answer\n"
"  aligner correct M.gguf [F.jsonl]     rows with question and answer -> the same rows with correction and action\n"
"        --question S --answer S (instead of a file), --temperature X --top-k N --top-p X --frequency-penalty X\n"
"        --seed N --max-tokens N --no-draft --diff; in conversation --upstream M.gguf answers empty answers\n"
"        --keep X   y_o stays unless y_c is e^X times as likely: fewer corrections, fewer needless ones\n"
"  aligner eval M.gguf --data F [--json]   loss a token, and copy or correct against the gold corrections\n"
"  aligner loglik M.gguf [F.jsonl] [--target answer|correction]   adds loglik (nats) and tokens to rows\n"
"  aligner score R.gguf [F.jsonl]          adds the reward of question and answer to rows\n"
"  aligner bound PI.gguf MU.gguf --data F [--json]    both sides of Eq. (3), row by row\n"
"  aligner steer M.gguf --data F [--valid F] [--alpha A,A,...] [--layer L] [--json]   copy or correct as a direction\n"
"  aligner sample M.gguf --text S          raw continuation of a text, greedy unless told otherwise\n"
"  aligner tokens M.gguf --text S | --question S [--answer S [--correction S]]\n"
"  aligner info M.gguf; with --train what training it will need of memory, or without M.gguf, with --vocab N or\n"
"        --tokenizer F, what a model of the shape asked for will; a row is taken to be as long as the context\n"
"  aligner bench [train|rows|prefill|decode|draft [tiny|small|medium|15M|110M]] [--json]   speed, beside its limits\n"
"        with --vocab N and a shape as in train: that shape\n"
"  all: --threads N --quiet --help --version. Exit 0 done, 1 bad input or failed run, 2 bad usage.\n";

// For what no file is to blame for: exit 2, where die() exits with 1.
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

// Everything that the command line can say.
typedef struct {
    TrainOptions train;
    Decoding how;
    const char *text, *question, *answer, *correction, *upstream, *target, *alpha;
    const char *word[3];                                // what is no option: command, model, file
    int n_words, vocab, threads, diff, json, samples, layer, for_training;
} Options;

enum Kind { FLAG, INT, LONG, REAL, STRING, FILES };

// Stores the value s of an option. Numbers are checked before they are narrowed: whole ones fit an int.
static void parse_value(const char *name, const char *s, enum Kind kind, void *p)
{
    char *end;
    if (kind == STRING) { *(const char **)p = s; return; }
    errno = 0;
    double x = strtod(s, &end);
    bool good = !errno && end > s && !*end && isfinite(x) && x >= 0;
    if (kind == REAL && !good) usage_error("%s needs a number from 0 on, not \"%s\"", name, s);
    if (kind != REAL && !(good && x <= 2e9 && x == floor(x)))
        usage_error("%s needs a whole number from 0 to 2000000000, not \"%s\"", name, s);
    if (kind == REAL) *(double *)p = x;
    else if (kind == LONG) *(long *)p = (long)x;
    else *(int *)p = (int)x;
}

// Fills o, which holds the defaults. A new option is a line in this table, its place in Options, and a word in USAGE.
static void parse_options(Options *o, int argc, char **argv)
{
    TrainOptions *t = &o->train;
    Decoding *h = &o->how;
    const struct { const char *name; enum Kind kind; void *p; } option[] = {
        { "--data", FILES, NULL }, { "--init", STRING, &t->init }, { "--out", STRING, &t->out },
        { "--tokenizer", STRING, &t->tokenizer }, { "--valid", STRING, &t->valid }, { "--log", STRING, &t->log },
        { "--prompt", STRING, &t->prompt }, { "--target", STRING, &o->target }, { "--vocab", INT, &o->vocab },
        { "--dim", INT, &t->dim }, { "--layers", INT, &t->layers }, { "--heads", INT, &t->heads },
        { "--kv-heads", INT, &t->kv_heads }, { "--hidden", INT, &t->hidden }, { "--context", INT, &t->context },
        { "--tied", FLAG, &t->tied }, { "--steps", LONG, &t->steps }, { "--epochs", REAL, &t->epochs },
        { "--batch", LONG, &t->batch }, { "--tokens", LONG, &t->tokens },
        { "--micro-tokens", LONG, &t->micro_tokens }, { "--lr", REAL, &t->lr },
        { "--lr-warmup", REAL, &t->lr_warmup }, { "--weight-decay", REAL, &t->weight_decay },
        { "--adam-eps", REAL, &t->adam_eps }, { "--muon", REAL, &t->muon }, { "--ema", REAL, &t->ema },
        { "--clip", REAL, &t->clip }, { "--grow-below", REAL, &t->grow_below }, { "--seed", LONG, &t->seed },
        { "--save-every", LONG, &t->save_every }, { "--resume", FLAG, &t->resume },
        { "--temperature", REAL, &h->temperature },
        { "--top-k", INT, &h->top_k }, { "--top-p", REAL, &h->top_p }, { "--max-tokens", INT, &h->max_tokens },
        { "--frequency-penalty", REAL, &h->frequency_penalty }, { "--no-draft", FLAG, &h->no_draft },
        { "--keep", REAL, &h->keep },
        { "--train", FLAG, &o->for_training }, { "--diff", FLAG, &o->diff },
        { "--json", FLAG, &o->json }, { "--text", STRING, &o->text },
        { "--question", STRING, &o->question }, { "--answer", STRING, &o->answer },
        { "--correction", STRING, &o->correction }, { "--upstream", STRING, &o->upstream },
        { "--reference", STRING, &t->reference }, { "--reward", STRING, &t->reward }, { "--beta", REAL, &t->beta },
        { "--kl", REAL, &t->kl }, { "--samples", INT, &o->samples },
        { "--alpha", STRING, &o->alpha }, { "--layer", INT, &o->layer },
        { "--threads", INT, &o->threads }, { "--quiet", FLAG, &t->quiet } };
    size_t k, n = sizeof option / sizeof *option;
    for (int i = 1; i < argc; i++) {
        const char *s = argv[i];
        if (!strcmp(s, "--help") || !strcmp(s, "-h")) fputs(USAGE, stdout), flush_results(), exit(0);
        if (!strcmp(s, "--version")) puts(VERSION), flush_results(), exit(0);
        if (strncmp(s, "--", 2)) {
            if (o->n_words == 3) usage_error("\"%s\" is one word too many", s);
            o->word[o->n_words++] = s;
            continue;
        }
        for (k = 0; k < n && strcmp(s, option[k].name); ) k++;
        if (k == n) usage_error("there is no option %s", s);
        if (option[k].kind != FLAG && i + 1 == argc) usage_error("%s needs a value", s);
        if (option[k].kind == FLAG) *(int *)option[k].p = 1;
        else if (option[k].kind != FILES) parse_value(s, argv[++i], option[k].kind, option[k].p);
        else while (i + 1 < argc && strncmp(argv[i + 1], "--", 2)) {
            if (t->n_data == 16) usage_error("--data takes at most 16 files");
            t->data[t->n_data++] = argv[++i];
        }
    }
    h->seed = (uint64_t)t->seed;
}

// The i-th word of the command line, which this command cannot do without.
static const char *need_word(const Options *o, int i, const char *what)
{
    if (o->n_words <= i) usage_error("`%s` needs %s", o->word[0], what);
    return o->word[i];
}

static bool is(const char *a, const char *b) { return !strcmp(a, b); }

// Was this model trained to answer questions, to correct answers, or only to judge them?
static bool answers(const Model *m)
{
    return is(m->objective, "sft") || is(m->objective, "dpo") || is(m->objective, "rlhf");
}
static bool corrects(const Model *m) { return is(m->objective, "aligner") || is(m->objective, "warmup"); }
static bool judges(const Model *m) { return is(m->objective, "reward"); }

// A file from elsewhere has no objective inside and is taken at its word.
static void must_answer(const Model *m, const char *path)
{
    CHECK(!corrects(m) && !judges(m) && m->template, "%s: a model that answers was expected", path);
}

static void check_vocab(int V)
{
    if (V < FIRST_PIECE || V > MAX_VOCAB) usage_error("--vocab %d: %d to %d was expected", V, FIRST_PIECE, MAX_VOCAB);
}

/* ------------------------------------------------------------------------------------------------------------
   Training commands. */

// `tokenizer`: learns from what the model will see, the filled prompt and the target behind it.
static void run_tokenizer(const Options *o)
{
    Model m = { 0 };                                    // only its template is used
    Tokenizer k;
    Buf all = { 0 }, y_c = { 0 };
    if (!o->train.n_data || !o->train.out || !o->vocab) usage_error("`tokenizer` needs --data, --vocab and --out");
    check_vocab(o->vocab);
    set_template(&m, o->train.prompt ? o->train.prompt : "default");
    for (int i = 0; i < o->train.n_data; i++) {
        Objects in;
        Triple t;
        objects_open(&in, o->train.data[i]);
        while (next_row(&in, NEED_X | NEED_Y_O, &t)) {
            Buf p = prompt(&m, t.x, t.y_o);
            bool corrected = json_find(in.object, "correction").s;
            Text target = corrected ? get_text(&in, in.object, "correction", &y_c) : t.y_o;
            buf_puts(&all, " "), buf_add(&all, p.s, p.n), buf_puts(&all, "\n ");
            buf_add(&all, target.s, target.n), buf_puts(&all, "\n");
            free(p.s);
        }
        objects_close(&in);
    }
    tokenizer_train(&k, contents(&all), o->vocab);
    tokenizer_save(&k, o->train.out);
    if (!o->train.quiet) fprintf(stderr, "%s: %d pieces from %zu bytes of text\n", o->train.out, k.V, all.n);
    tokenizer_free(&k), model_free(&m), free(all.s), free(y_c.s);
}

// A run of hours must not fail at its end because there is no such folder.
static void check_writable(const char *path)
{
    Buf temp = joined(path, ".tmp");
    FILE *f = fopen(temp.s, "wb");
    CHECK(f, "cannot write %s: %s; name a folder that exists and can be written", path, strerror(errno));
    fclose(f), remove(temp.s), free(temp.s);
}

// The shape asked for, with a vocabulary of V pieces; usage was checked, what a model can be is checked here.
static Config shape_asked_for(const TrainOptions *t, int V)
{
    check_vocab(V);
    if (t->dim > 16384) usage_error("--dim needs a number up to 16384");
    if (t->batch < 1) usage_error("--batch needs a number from 1 on");
    Config c = { .V = V, .C = t->dim, .L = t->layers, .H = t->heads, .context = t->context, .tied = t->tied,
                 .H_kv = t->kv_heads ? t->kv_heads : t->heads, .F = t->hidden ? t->hidden : t->dim * 11 / 4,
                 .eps = 1e-5f, .theta = 1e4f };
    config_check(&c, "the shape asked for");
    return c;
}

// A new model of the shape asked for, with random weights.
static void model_from_scratch(Model *m, const TrainOptions *t)
{
    *m = (Model){ 0 };
    if (!t->tokenizer) usage_error("`train` needs --init M.gguf, or --tokenizer F for a model from scratch");
    tokenizer_load(&m->tok, t->tokenizer);
    m->c = shape_asked_for(t, m->tok.V);
    model_alloc(m);
    model_init(m, (uint64_t)t->seed);
}

// Sets up chapter 8's objectives; false for those of chapter 1.
static bool choose_alternative(TrainOptions *t, const Options *o, const char *name, Others *others, Objective *row)
{
    bool dpo = is(name, "dpo"), rlhf = is(name, "rlhf");
    t->pairs = dpo || is(name, "reward"), t->answers = rlhf ? o->samples : 0;
    if (!t->pairs && !rlhf) return false;
    *row = dpo ? sft : rlhf ? question : judged;
    if (!is(name, "reward") && !t->init && !t->reference) usage_error("`train %s` needs --init or --reference", name);
    if (rlhf && !t->reward) usage_error("`train rlhf` needs --reward, a model made by `train reward`");
    if (rlhf && (o->samples < 2 || o->samples > 1024)) usage_error("--samples needs a number from 2 to 1024");
    if (rlhf && t->tokens) usage_error("`train rlhf` counts its batch in questions: --batch, not --tokens");
    if (t->grow_below > 0) usage_error("--grow-below goes with sft, warmup and aligner");
    t->others = others, t->prepare = others_init;
    t->step = rlhf ? rlhf_step : pair_step, t->validate = rlhf ? rlhf_validate : pair_validate;
    return true;
}

// `train`: what can be refused without reading the data is refused first. --init takes
// weights, tokenizer and prompt of another model: that is how the Aligner begins where the warm-up ended.
static void run_train(const Options *o)
{
    TrainOptions t = o->train;
    Others others = { .max_tokens = o->how.max_tokens };
    const char *name = need_word(o, 1, "an objective: sft, warmup, aligner, dpo, reward or rlhf");
    Objective objective = is(name, "sft") ? sft : is(name, "warmup") ? warmup : is(name, "aligner") ? aligner : NULL;
    bool alternative = choose_alternative(&t, o, name, &others, &objective);
    if (!objective) usage_error("\"%s\" is no objective; sft, warmup, aligner, dpo, reward or rlhf was expected", name);
    if (!t.n_data || !t.out) usage_error("`train` needs --data and --out");
    if (!t.steps && t.epochs <= 0) usage_error("`train` needs --steps or --epochs");
    if (t.epochs > 1e6) usage_error("--epochs %g is too large", t.epochs);
    if (t.batch < 1) usage_error("--batch needs a number from 1 on");
    if (t.ema >= 1) usage_error("--ema needs a number below 1");
    t.target_correction = o->target && is(o->target, "correction");
    if (o->target && !t.target_correction && !is(o->target, "answer")) usage_error("--target is answer or correction");
    if (t.target_correction && !is(name, "sft"))
        usage_error("--target correction goes with sft; the other objectives know their targets");

    // The model, and what it is to become.
    check_writable(t.out);
    Model m;
    if (t.resume || t.init) model_load(&m, t.resume ? t.out : t.init);
    else model_from_scratch(&m, &t);
    if (t.prompt || !m.template) set_template(&m, t.prompt ? t.prompt : "default");
    CHECK(!alternative || is(name, "reward") || (!corrects(&m) && !judges(&m)), "%s does not answer questions; "
          "`train %s` begins with a model that does", t.resume ? t.out : t.init, name);
    CHECK(!t.resume || is(m.objective, name), "%s was trained as \"%s\"; resuming it as \"%s\" would mix two runs",
          t.out, m.objective, name);
    snprintf(m.objective, sizeof m.objective, "%s", name);

    // The data under this objective, and the run.
    Rows rows = { 0 }, valid = { 0 };
    for (int i = 0; i < t.n_data + (t.valid != NULL); i++) {
        const char *path = i < t.n_data ? t.data[i] : t.valid;
        if (alternative) pairs_load(i < t.n_data ? &rows : &valid, &m, path, objective, t.pairs);
        else rows_load(i < t.n_data ? &rows : &valid, &m, path, objective, t.target_correction);
    }
    if (alternative && !is(name, "reward")) others_load(&others.reference, &m, t.reference ? t.reference : t.init);
    if (t.answers) {
        others_load(&others.reward, &m, t.reward);
        CHECK(judges(&others.reward), "%s is no reward model; `train reward` makes one", t.reward);
    }
    CHECK(rows.n, "no rows to train on in %s", t.data[0]);
    if (!t.quiet)
        fprintf(stderr, "%s: %zu %s, %zu parameters, vocabulary %d, %d threads\n", name, rows.n / (size_t)(1 + t.pairs),
                t.pairs ? "pairs" : t.answers ? "questions" : "rows", m.n_params, m.c.V, max_threads());
    train(&m, &rows, &valid, &t);
    if (!t.quiet && t.pairs)
        fprintf(stderr, "%.1f %% of the %s pairs in the right order\n", 100 * others.ranked,
                valid.n ? "validation" : "last batch's");
    if (!t.quiet && t.answers)
        fprintf(stderr, "running means an answer: reward %.4f, log(pi / reference) %.4f\n", others.mean_reward,
                others.mean_kl);
    rows_free(&rows), rows_free(&valid), others_free(&others), model_free(&m);
}

/* ------------------------------------------------------------------------------------------------------------
   Answering and correcting: one question, a conversation, or a filter. */

// Writes the members of object but those whose keys are in drop (up to a NULL), then `more` (members, ready made), as
// one line. What stays is copied as it was written.
static void put_row(FILE *f, Text object, const char *const *drop, const Buf *more)
{
    Buf line = { 0 };
    Text key, value;
    buf_puts(&line, "{");
    for (size_t at = 0; json_member(object, &at, &key, &value); ) {
        const char *const *d = drop;
        while (*d && !key_is(key, *d)) d++;
        if (*d) continue;
        buf_add(&line, key.s, key.n), buf_puts(&line, ": ");
        buf_add(&line, value.s, value.n), buf_puts(&line, ", ");
    }
    for (size_t i = 0; i < line.n; i++)
        if (line.s[i] == '\n' || line.s[i] == '\r') line.s[i] = ' ';    // in JSON they stand between tokens only
    buf_add(&line, more->s, more->n), buf_puts(&line, "}\n");
    CHECK(fwrite(line.s, 1, line.n, f) == line.n && !fflush(f), "cannot write the result: %s", strerror(errno));
    free(line.s);
}

// Adds answer, or correction and action, to every row of the input: one line for one, written before the next is read.
static void filter(Generator *g, const char *path, bool correcting, bool diff)
{
    Objects in;
    Triple t;
    Buf y = { 0 }, more = { 0 };
    objects_open(&in, path);
    while (next_row(&in, correcting ? NEED_X | NEED_Y_O : NEED_X, &t)) {
        const char *reason = correcting ? correct_with(g, t.x, t.y_o, &y) : answer_with(g, t.x, &y);
        bool copied = correcting && same(t.y_o, contents(&y));
        if (correcting && diff) {
            put_line(stdout, "x    ", t.x), put_line(stdout, "y_o  ", t.y_o);
            show_correction("y_c  ", "     ", t.y_o, contents(&y), reason);
            putchar('\n'), flush_results();
            continue;
        }
        Text raw = json_find(in.object, "answer");
        more.n = 0, buf_puts(&more, correcting ? "\"correction\": " : "\"answer\": ");
        if (copied) buf_add(&more, raw.s, raw.n);       // byte for byte, however it was written
        else json_put(&more, contents(&y));
        if (correcting) buf_puts(&more, copied ? ", \"action\": \"copy\"" : ", \"action\": \"correct\"");
        if (reason) buf_puts(&more, ", \"reason\": "), json_put(&more, text(reason));

        // A reason belongs to the action (or answer) beside it and goes with it; one that stands alone is the user's.
        const char *verdict = correcting ? "action" : "answer";
        bool drop_reason = reason || json_find(in.object, verdict).s;
        put_row(stdout, in.object, (const char *const[]){ correcting ? "correction" : "answer", verdict,
                                                          drop_reason ? "reason" : NULL, NULL }, &more);
    }
    objects_close(&in);
    free(y.s), free(more.s);
}

static bool ask(const char *label, Buf *line)           // one line from the terminal; false at the end of input
{
    fputs(label, stderr);
    if (getline(&line->s, &line->cap, stdin) < 0) return false;
    line->n = strcspn(line->s, "\r\n"), line->s[line->n] = 0;
    return !feof(stdin);
}

// On a terminal: question in, answer in (or from the upstream model), correction out, until end of input.
static void converse(Generator *g, Model *upstream, bool correcting)
{
    Buf x = { 0 }, y_o = { 0 }, y_c = { 0 };
    const char *reason;
    decoding = g->how;
    fprintf(stderr, "%s End with Ctrl-D.\n", !correcting ? "Ask." :
            upstream ? "An empty answer asks the upstream model." : "Question, then the answer to be corrected.");
    while (ask("question x   > ", &x)) {
        if (!x.n) continue;
        if (correcting && !ask("answer y_o   > ", &y_o)) break;
        if (!correcting) answer_with(g, contents(&x), &y_o), put_line(stdout, "", contents(&y_o));
        else if (upstream && !y_o.n) {
            reason = composed_policy(upstream, g->m, contents(&x), &y_o, &y_c);
            put_line(stderr, "answer y_o   = ", contents(&y_o));
        } else reason = correct_with(g, contents(&x), contents(&y_o), &y_c);
        if (correcting) show_correction("correction   = ", "", contents(&y_o), contents(&y_c), reason);
        fflush(stdout);
    }
    fputc('\n', stderr);
    free(x.s), free(y_o.s), free(y_c.s);
}

// --question, and for `correct` --answer: the text alone on stdout, with --diff the diff and the verdict.
static void reply_once(Generator *g, const Options *o, bool correcting)
{
    Buf out = { 0 };
    Text x = text(o->question), y_o = o->answer ? text(o->answer) : NONE;
    const char *reason = correcting ? correct_with(g, x, y_o, &out) : answer_with(g, x, &out);
    if (correcting && o->diff) show_correction("", "", y_o, contents(&out), reason);
    else {
        put_result(contents(&out));
        if (reason && correcting) show_verdict(stderr, y_o, contents(&out), reason);
        else if (reason) fprintf(stderr, "aligner: %s\n", reason);
    }
    free(out.s);
}

// `answer` and `correct`. The objective inside the file tells which of the two a model can do; a file from elsewhere
// has none and is taken at its word.
static void run_generate(const Options *o)
{
    bool correcting = is(o->word[0], "correct");
    Model m, upstream = { 0 };
    Generator g;
    const char *path = need_word(o, 1, "a model"), *file = o->n_words > 2 ? o->word[2] : NULL;
    model_load(&m, path);
    CHECK(!judges(&m), "%s is a reward model: it neither answers nor corrects; use `score`", path);
    CHECK(!correcting || !answers(&m),
          "%s was trained by `train %s`: it answers, it does not correct; use `answer`", path, m.objective);
    CHECK(correcting || !corrects(&m),
          "%s is an Aligner: it corrects answers, it does not give them; use `correct`", path);
    CHECK(m.template, "%s has no prompt template inside; models made by `train` have one; `sample` continues raw text",
          path);
    if (o->question && correcting && !o->answer) usage_error("--question needs --answer here");
    bool talks = !o->question && !file && isatty(0) && isatty(1);
    if (o->upstream && !(talks && correcting)) usage_error("--upstream goes with `correct` in conversation");
    if (o->upstream) {
        model_load(&upstream, o->upstream);
        must_answer(&upstream, o->upstream);
    }
    generator_init(&g, &m, o->how);
    double start = seconds();
    if (o->question) reply_once(&g, o, correcting);
    else if (talks) converse(&g, o->upstream ? &upstream : NULL, correcting);
    else filter(&g, file, correcting, o->diff);
    if (!o->train.quiet && !talks && !o->question)
        fprintf(stderr, "%ld tokens, %ld of them copied from the draft, in %ld passes, %.1f s\n", g.tokens, g.copied,
                g.passes, seconds() - start);
    generator_free(&g), model_free(&m), model_free(&upstream);
}

/* ------------------------------------------------------------------------------------------------------------
   Examining a model. */

// The tallies by "category", in the order in which they occur; the first one is over all rows.
typedef struct { Tally *a; size_t n, cap; } Tallies;

static Tally *tally_of(Tallies *t, Text name)
{
    for (size_t k = 1; k < t->n; k++) if (same(name, contents(&t->a[k].name))) return &t->a[k];
    t->a = grow(t->a, sizeof *t->a, &t->cap, t->n + 1);
    t->a[t->n] = (Tally){ 0 };
    buf_add(&t->a[t->n].name, name.s, name.n);
    return &t->a[t->n++];
}

// Greedy corrections of the rows of a file against the gold ones.
static void examine(Generator *g, const char *path, Tallies *tallies)
{
    Objects in;
    Triple t;
    Buf y_c = { 0 }, name = { 0 };
    objects_open(&in, path);
    while (next_row(&in, NEED_X | NEED_Y_O | NEED_Y_C, &t)) {
        Text raw = json_find(in.object, "category");
        correct_with(g, t.x, t.y_o, &y_c);
        tally(&tallies->a[0], &g->m->tok, t.y_o, t.y_c, contents(&y_c));
        if (!raw.n || *raw.s != '"') continue;          // no category, or none that is a text
        Text category = get_text(&in, in.object, "category", &name);
        tally(tally_of(tallies, category), &g->m->tok, t.y_o, t.y_c, contents(&y_c));
    }
    objects_close(&in);
    free(y_c.s), free(name.s);
}

// The report of `eval`: lines, or one JSON object.
static void show_eval(const Tallies *t, const Rows *rows, double loss, bool json)
{
    long targets = 0;
    for (size_t i = 0; i < rows->n; i++) targets += rows->row[i].n - rows->row[i].n_condition;
    if (!json) {
        printf("%zu rows, %ld target tokens: loss %.4f a token, perplexity %.3f\n", rows->n, targets, loss, exp(loss));
        for (size_t k = 0; k < t->n; k++) if (t->a[k].copy + t->a[k].correct) show_tally(&t->a[k], false);
        return;
    }
    printf("{\"rows\": %zu, \"target_tokens\": %ld, \"loss\": %.6f, ", rows->n, targets, loss);
    show_tally(&t->a[0], true);
    printf(", \"categories\": {");
    for (size_t k = 1; k < t->n; k++) {
        Buf key = { 0 };
        json_put(&key, contents(&t->a[k].name));
        printf("%s%s: {", k > 1 ? ", " : "", key.s), show_tally(&t->a[k], true), putchar('}');
        free(key.s);
    }
    puts("}}");
}

// `eval`: the loss a target token; for what corrects, also what it does, against the gold corrections.
static void run_eval(const Options *o)
{
    Model m;
    Generator g;
    Batch b;
    Rows rows = { 0 };
    Tallies tallies = { 0 };
    model_load(&m, need_word(o, 1, "a model"));
    if (!o->train.n_data) usage_error("`eval` needs --data");
    CHECK(!judges(&m), "%s is a reward model; use `score`", o->word[1]);
    for (int i = 0; i < o->train.n_data; i++)
        rows_load(&rows, &m, o->train.data[i], answers(&m) ? sft : aligner, false);
    int longest = longest_row(&rows), T = 16 * longest;
    batch_alloc(&b, T, T, T);
    acts_reserve(&m, T, T, longest, false);
    double *nll = zalloc((size_t)T, sizeof *nll), loss = mean_loss(&m, &rows, &b, T, nll);

    generator_init(&g, &m, GREEDY);
    tally_of(&tallies, text("all"));
    for (int i = 0; i < o->train.n_data && !answers(&m); i++) examine(&g, o->train.data[i], &tallies);
    show_eval(&tallies, &rows, loss, o->json);
    for (size_t k = 0; k < tallies.n; k++) free(tallies.a[k].name.s);
    free(tallies.a), free(nll), generator_free(&g), batch_free(&b), rows_free(&rows), model_free(&m);
}

// `loglik` and `score`: a filter that adds log p(target | condition) in nats and its number of tokens, or the reward of
// question and answer. The target is the answer for a model that answers, else the correction; --target says otherwise.
static void run_measure(const Options *o)
{
    bool scoring = is(o->word[0], "score");
    Model m;
    Batch b;
    Objects in;
    Triple t;
    Buf more = { 0 };
    char number[128];
    model_load(&m, need_word(o, 1, "a model"));
    CHECK(!scoring || judges(&m), "%s is no reward model; `train reward` makes one", o->word[1]);
    CHECK(scoring || !judges(&m), "%s is a reward model; use `score`", o->word[1]);
    bool correction = !scoring && (o->target ? is(o->target, "correction") : !answers(&m));
    if (o->target && !correction && !is(o->target, "answer")) usage_error("--target is answer or correction");
    bool asks = scoring || answers(&m);                 // is the condition the question alone?
    int T = m.c.context, keys = NEED_X | (!asks || !correction ? NEED_Y_O : 0) | (correction ? NEED_Y_C : 0);
    batch_alloc(&b, T, 1, T), acts_reserve(&m, T, T, T, false);
    double *nll = zalloc((size_t)T, sizeof *nll);
    objects_open(&in, o->n_words > 2 ? o->word[2] : NULL);
    while (next_row(&in, keys, &t)) {
        if (asks && correction) t.y_o = t.y_c;
        Row r = scoring ? judged(&m, t) : asks ? sft(&m, t) : correction ? aligner(&m, t) : warmup(&m, t);
        const char *name = scoring ? "reward" : "loglik";
        bool too_long = r.n - 1 > T, again = json_find(in.object, name).s;      // a reason goes with what it is about
        if (too_long) snprintf(number, sizeof number, "\"%s\": null, \"reason\": \"longer than the context\"", name);
        else {
            double log_p = scoring ? score(&m, &b, &r) : log_likelihood(&m, &b, nll, &r);
            int n = snprintf(number, sizeof number, "\"%s\": %.6f", name, log_p);
            if (!scoring) snprintf(number + n, sizeof number - (size_t)n, ", \"tokens\": %d", r.n - r.n_condition);
        }
        more.n = 0, buf_puts(&more, number);
        put_row(stdout, in.object, (const char *const[]){ name, too_long || again ? "reason" : name,
                                                          scoring ? NULL : "tokens", NULL }, &more);
        free(r.ids);
    }
    objects_close(&in);
    free(more.s), free(nll), batch_free(&b), model_free(&m);
}

// `bound`: Eqs. (2) and (3) for the rows of a file: a line each, or one JSON object with --json; then the means.
static void run_bound(const Options *o)
{
    Model pi, mu;
    Generator g;
    Batch b;
    Objects in;
    Triple t;
    Bound one, sum = { 0 };
    long n = 0, skipped = 0;
    const char *upstream = need_word(o, 1, "an upstream model and an Aligner"), *path = need_word(o, 2, "an Aligner");
    model_load(&pi, upstream), model_load(&mu, path);
    if (!o->train.n_data) usage_error("`bound` needs --data");
    must_answer(&pi, o->word[1]);
    CHECK(!answers(&mu) && !judges(&mu) && mu.template, "%s: an Aligner was expected", o->word[2]);
    int T = mu.c.context;
    generator_init(&g, &pi, GREEDY);
    batch_alloc(&b, T, 1, T), acts_reserve(&mu, T, T, T, false);
    double *nll = zalloc((size_t)T, sizeof *nll);
    if (o->json) printf("{\"rows\": [");
    for (int i = 0; i < o->train.n_data; i++) {
        objects_open(&in, o->train.data[i]);
        while (next_row(&in, NEED_X | NEED_Y_O | NEED_Y_C, &t)) {
            if (!bound(&g, &mu, &b, nll, t, BOUND, &one)) { skipped++; continue; }
            printf(o->json ? "%s{\"left\": %.6f, \"right\": %.6f, \"slack\": %.6f, \"mass\": %.6f, \"answers\": %d}" :
                   "%s- log pi'(y_c | x) <= %.4f   bound %.4f   slack %.4f   mass %.4f of %d answers", !o->json ? "" :
                   n ? ",\n " : "", one.left, one.right, one.right - one.left, one.mass, one.answers);
            if (!o->json) putchar('\n');
            sum.left += one.left, sum.right += one.right, sum.mass += one.mass, sum.answers += one.answers, n++;
            flush_results();
        }
        objects_close(&in);
    }
    double N = n ? (double)n : 1, left = sum.left / N, right = sum.right / N;
    printf(o->json ? "], \"left\": %.6f, \"right\": %.6f, \"slack\": %.6f, \"mass\": %.6f, \"answers\": %.2f, "
           "\"skipped\": %ld}\n" : "mean: left %.4f   right %.4f   slack %.4f   mass %.4f   answers %.2f   (%ld rows "
           "too long)\n", left, right, right - left, sum.mass / N, sum.answers / N, skipped);
    free(nll), batch_free(&b), generator_free(&g), model_free(&pi), model_free(&mu);
}

// Mean D_L of greedy corrections of a file, with alpha V_c added behind one layer (or, layer being 0, behind each).
static double steered_degree(Generator *g, const float *direction, const double *length, double alpha, int layer,
                             float *steer, const char *path)
{
    const Config *c = &g->m->c;
    Tallies t = { 0 };
    for (int l = 0; l < c->L; l++)
        for (int j = 0; j < c->C; j++)
            steer[l * c->C + j] = layer && layer != l + 1 ? 0 : (float)(alpha * length[l]) * direction[l * c->C + j];
    g->m->steer = alpha != 0 ? steer : NULL;
    tally_of(&t, text("all"));
    examine(g, path, &t);
    g->m->steer = NULL;
    double n = (double)(t.a[0].copy + t.a[0].correct), degree = n > 0 ? t.a[0].degree / n : 0;
    for (size_t k = 0; k < t.n; k++) free(t.a[k].name.s);
    free(t.a);
    return degree;
}

enum { MOST_ALPHAS = 32 };

// The numbers of --alpha, separated by commas.
static int parse_alphas(const char *s, double *alpha)
{
    int n = 0;
    for (const char *p = s; ; p++) {
        char *end;
        double x = strtod(p, &end);
        if (n == MOST_ALPHAS || end == p || !isfinite(x) || fabs(x) > 1e6 || (*end && *end != ','))
            usage_error("--alpha needs at most %d numbers, separated by commas, not \"%s\"", MOST_ALPHAS, s);
        alpha[n++] = x;
        if (!*(p = end)) return n;
    }
}

// The report of `steer`, for a reader or as one JSON object. H_seen: hidden states of the rows `seen`.
static void show_steer(const Model *m, const Rows *seen, const float *H_seen, const float *v, const double *length,
                       bool json)
{
    static const char *const KIND[] = { "copy", "correct" };
    int L = m->c.L, C = m->c.C;
    if (!json) printf("mean activity r(l, k) of rows that copy and that correct, k = 0..%d\n", POSITIONS - 1);
    for (int l = 0; l < L; l++) {
        printf(json ? "%s{\"layer\": %d, \"length\": %.4f" : "%slayer %d, length of V_c %.4f\n", json && l ? ", " : "",
               l + 1, length[l]);
        for (int kind = 0; kind < 2; kind++) {
            printf(json ? ", \"%s\": [" : "    %-8s", KIND[kind]);
            for (int k = 0; k < POSITIONS; k++)
                printf(json ? "%s%.4f" : "%s%9.4f", json && k ? ", " : "",
                       activity(H_seen, seen, v + l * C, kind, l, k, L, C));
            fputs(json ? "]" : "\n", stdout);
        }
        if (json) printf("}");
    }
}

// D_L against alpha, and the straight line that fits it best: R^2 is the share of the variance that it explains.
static void show_fit(const double *alpha, const double *degree, int n, bool json)
{
    double sx = 0, sy = 0, sxx = 0, sxy = 0, syy = 0;
    for (int i = 0; i < n; i++) {
        double x = alpha[i], y = degree[i];
        printf(json ? "%s{\"alpha\": %g, \"degree\": %.6f}" : "%salpha %6.2f   D_L %.4f\n", json && i ? ", " : "",
               x, y);
        sx += x, sy += y, sxx += x * x, sxy += x * y, syy += y * y;
    }
    double vx = sxx - sx * sx / n, vy = syy - sy * sy / n, cov = sxy - sx * sy / n;
    printf(json ? "], \"slope\": %.6f, \"R2\": %.6f}\n" : "slope %.4f, R^2 %.4f\n", vx > 0 ? cov / vx : 0,
           vx > 0 && vy > 0 ? cov * cov / (vx * vy) : 0);
}

// `steer`: V_c from --data; activity by layer and position, and D_L against alpha, on --valid (or the same rows).
static void run_steer(const Options *o)
{
    Model m;
    Generator g;
    Batch b;
    Rows fit = { 0 }, seen = { 0 };
    double alpha[MOST_ALPHAS], degree[MOST_ALPHAS];
    model_load(&m, need_word(o, 1, "an Aligner"));
    if (o->train.n_data != 1) usage_error("`steer` needs --data with one file");
    int L = m.c.L, C = m.c.C, n = parse_alphas(o->alpha ? o->alpha : "-1,-0.75,-0.5,-0.25,0,0.25,0.5,0.75,1", alpha);
    if (o->layer > L) usage_error("--layer %d: the model has %d layers", o->layer, L);
    CHECK(!answers(&m) && !judges(&m) && m.template, "%s: an Aligner was expected", o->word[1]);
    const char *data = o->train.data[0], *valid = o->train.valid ? o->train.valid : data;
    pairs_load(&fit, &m, data, aligner, true), pairs_load(&seen, &m, valid, aligner, true);
    CHECK(fit.n && seen.n, "%s: no row has a correction that differs from its answer", fit.n ? valid : data);

    // The hidden states of both files, and from the first one a direction for each layer.
    int T = longest_row(&fit) > longest_row(&seen) ? longest_row(&fit) : longest_row(&seen);
    batch_alloc(&b, T, 1, T), acts_reserve(&m, T, T, T, true);
    float *H = hidden_states(&m, &fit, &b), *H_seen = hidden_states(&m, &seen, &b);
    float *v = zalloc((size_t)(L * C), sizeof *v), *steer = zalloc((size_t)(L * C), sizeof *steer);
    double *length = zalloc((size_t)L, sizeof *length), sign = 1;
    for (int l = 0; l < L; l++) length[l] = principal_direction(v + l * C, H, fit.n, l, L, C);

    // The sign: +1 must change more than -1, on the rows of --data.
    generator_init(&g, &m, GREEDY);
    double up = steered_degree(&g, v, length, 1, o->layer, steer, data);
    if (up < steered_degree(&g, v, length, -1, o->layer, steer, data)) sign = -1;
    for (int i = 0; i < L * C; i++) v[i] *= (float)sign;

    for (int i = 0; i < n; i++) degree[i] = steered_degree(&g, v, length, alpha[i], o->layer, steer, valid);

    printf(o->json ? "{\"pairs\": %zu, \"layers\": [" : "V_c from %zu pairs; ", fit.n / 2);
    show_steer(&m, &seen, H_seen, v, length, o->json);
    if (o->json) printf("], \"layer\": %d, \"points\": [", o->layer);
    show_fit(alpha, degree, n, o->json);
    free(H), free(H_seen), free(v), free(steer), free(length);
    generator_free(&g), batch_free(&b), rows_free(&fit), rows_free(&seen), model_free(&m);
}

// `sample`: no prompt, no template; the text goes on. It works for any model that model_load reads.
static void run_sample(const Options *o)
{
    Model m;
    Generator g;
    Ids prompt = { 0 }, out = { 0 };
    Decoding how = o->how;
    if (!how.max_tokens) how.max_tokens = 256;
    model_load(&m, need_word(o, 1, "a model"));
    ids_add(&prompt, BOS);
    encode(&m.tok, text(o->text ? o->text : ""), &prompt);
    CHECK(prompt.n <= m.c.context, "the text has %d tokens, the model's context is %d", prompt.n, m.c.context);
    generator_init(&g, &m, how);
    generate(&g, &prompt, NULL, 0, &out);
    for (int i = 0; i < out.n; i++) ids_add(&prompt, out.a[i]);
    Buf all = decode_all(&m.tok, prompt.a, prompt.n);
    put_result(contents(&all));
    free(all.s), free(prompt.a), free(out.a), generator_free(&g), model_free(&m);
}

// `tokens`: a text as the model sees it, or a whole row with the border between condition and target.
static void run_tokens(const Options *o)
{
    Model m = { 0 };
    Row r = { 0 };
    const char *path = need_word(o, 1, "a model or a tokenizer.bin");
    size_t n = strlen(path);
    if (!o->question && !o->text) usage_error("`tokens` needs --text or --question");
    if (n > 4 && is(path + n - 4, ".bin")) tokenizer_load(&m.tok, path);
    else model_load(&m, path);
    if (o->question) {
        if (!m.template) set_template(&m, o->train.prompt ? o->train.prompt : "default");
        Triple t = { text(o->question), text(o->answer ? o->answer : ""), text(o->correction ? o->correction : "") };
        r = o->correction ? aligner(&m, t) : o->answer && !answers(&m) ? warmup(&m, t) : sft(&m, t);
    } else {
        Ids ids = { 0 };
        ids_add(&ids, BOS), encode(&m.tok, text(o->text), &ids);
        r = (Row){ ids.a, 0, ids.n };
    }
    for (int i = 0; i < r.n; i++) {
        Buf piece = { 0 };
        json_put(&piece, m.tok.piece[r.ids[i]]);
        printf("%d\t%s%s\n", r.ids[i], piece.s, !o->question ? "" : i < r.n_condition ? "\tcondition" : "\ttarget");
        free(piece.s);
    }
    free(r.ids), model_free(&m);
}

// `info --train`: what a run will need. Each weight takes 16 bytes: itself, its gradient and two moments.
static void show_memory(const Config *c, const TrainOptions *t)
{
    Acts a = { 0 };
    Array array[N_ARRAYS];
    double weights = (double)count_weights(c), total = 16 * weights;
    double rows = t->tokens ? fmax((double)t->tokens, c->context) : (double)t->batch * c->context;
    CHECK(rows < INT_MAX / 4, "a batch of %.0f tokens; a smaller --batch is needed", rows);
    int T = micro_tokens(t, (int)rows, c->context);
    acts_plan(array, &a, c, T, T, c->context, true);
    printf("%.0f parameters; a batch of %.0f tokens, %d at a time, %d threads; in MB\n", weights, rows, T,
           max_threads());
    printf("%10.3f  parameters\n%10.3f  gradients\n%10.3f  moments\n", 4e-6 * weights, 4e-6 * weights, 8e-6 * weights);
    for (int i = 0; i < N_ARRAYS; i++) {
        printf("%10.3f  %s\n", 4e-6 * (double)array[i].n, array[i].name);
        total += 4 * (double)array[i].n;
    }
    if (t->ema > 0) printf("%10.3f  mean weights\n", 4e-6 * weights), total += 4 * weights;
    if (t->muon > 0) {
        double work = (double)max_threads() * (double)muon_size(c);
        printf("%10.3f  scratch of Muon\n", 4e-6 * work);
        total += 4 * work;
    }
    double lists = 28.0 * (rows + T), angles = 4.0 * c->context * head_size(c);
    printf("%10.3f  lists of the batch\n%10.3f  rotary angles\n", 1e-6 * lists, 1e-6 * angles);
    printf("%10.3f  in all, beside the program, the tokenizer and 4 bytes for each token of the data\n",
           1e-6 * (total + lists + angles));
}

// `info`: what is in a file, or what training will need.
static void run_info(const Options *o)
{
    Model m = { 0 };
    if (o->for_training && o->n_words < 2) {
        if (o->train.tokenizer) tokenizer_load(&m.tok, o->train.tokenizer);
        else if (!o->vocab) usage_error("`info --train` needs a model, or --tokenizer or --vocab and a shape");
        m.c = shape_asked_for(&o->train, o->vocab ? o->vocab : m.tok.V);
        show_memory(&m.c, &o->train);
        tokenizer_free(&m.tok);
        return;
    }
    model_load(&m, need_word(o, 1, "a model"));
    const Config *c = &m.c;
    printf("dim %d, layers %d, heads %d, key/value heads %d, hidden %d, context %d, vocabulary %d, head %s\n",
           c->C, c->L, c->H, c->H_kv, c->F, c->context, c->V, c->tied ? "tied" : "untied");
    printf("%zu parameters in %zu tensors, %.1f MB as f32\n", m.n_params, m.n_tensors, (double)m.n_params * 4e-6);
    if (*m.objective) printf("trained as "), put_plain(stdout, text(m.objective)), printf(", %ld steps\n", m.step);
    if (m.template) put_line(stdout, "prompt: ", text(m.template));
    if (m.template) put_line(stdout, "prompt without answer: ", text(m.template_sft));
    if (o->for_training) show_memory(c, &o->train);
    model_free(&m);
}

/* ------------------------------------------------------------------------------------------------------------
   Bench.  How fast, beside what the machine can do at most. Skip it unless you measure. Two limits: multiply-adds from
   registers alone (training and prefill cannot be faster), and reading memory (decoding reads each weight for each
   token). They are taken beside every sample, because machines drift; all figures are medians. docs/speed.md. */

static const struct Shape { const char *name; int B; Config c; } SHAPE[] = {       // untied heads, T = context
    { "tiny",   16, { 1024, 128, 4, 4, 4, 352, 128, false, 1e-5f, 1e4f } },
    { "small",  16, { 2048, 256, 6, 8, 8, 688, 256, false, 1e-5f, 1e4f } },
    { "medium",  8, { 4096, 288, 6, 6, 6, 768, 256, false, 1e-5f, 1e4f } },
    { "15M",     8, { 32000, 288, 6, 6, 6, 768, 256, false, 1e-5f, 1e4f } },
    { "110M",    1, { 32000, 768, 12, 12, 12, 2048, 256, false, 1e-5f, 1e4f } } };
static const char *const BENCH[] = { "train", "rows", "prefill", "decode", "draft" };

enum { SAMPLES = 4096, PROMPT = 128, ANSWER = 96 };
#ifndef PROBE
#define PROBE (1 << 26)     // floats that measure reading; a 16th as many loops measure FMA; fewer under the sanitizers
#endif

typedef struct { double ms, tokens_per_s, targets_per_s, gflops, gbs, copied, nothing; } Figure;

typedef struct {
    const char *part, *shape;           // what is being measured
    float *buffer;                      // [PROBE], 256 MB: more than caches hold
    double peak[SAMPLES], read[SAMPLES], sample[SAMPLES];
    int n_peak, n_read;
    volatile float sink;                // so that no compiler leaves work out whose result nobody wants
    struct { const char *part, *shape; Figure f; } figure[sizeof BENCH / sizeof *BENCH * 5];
    int n;
} Bench;

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *a, int n)
{
    qsort(a, (size_t)n, sizeof *a, ascending);
    return n ? (a[(n - 1) / 2] + a[n / 2]) / 2 : 0;
}

// Takes a sample of both limits, about 40 ms.
static void sample_limits(Bench *b)
{
    long n = PROBE / 16, each = PROBE / max_threads() / 64 * 64;
    float sum = 0;
    double start = seconds();
    #pragma omp parallel reduction(+ : sum)
    sum += fma_loop(n);
    if (b->n_peak < SAMPLES) b->peak[b->n_peak++] = 1e-9 * FMA_FLOPS * (double)n * max_threads() / (seconds() - start);
    start = seconds();
    #pragma omp parallel reduction(+ : sum)
    {
        float s[64] = { 0 };            // 64 sums, so that no addition waits for the last one
        const float *x = b->buffer + thread_rank() * each;
        for (long i = 0; i < each; i += 64) for (int l = 0; l < 64; l++) s[l] += x[i + l];
        for (int l = 0; l < 64; l++) sum += s[l];
    }
    if (b->n_read < SAMPLES) b->read[b->n_read++] = 4e-9 * (double)each * max_threads() / (seconds() - start);
    b->sink = sum;
}

// Is there one more sample to take? n have been taken since start: 15, or as many as one second has room for.
static bool more_samples(int n, double start) { return n < 15 || (n < SAMPLES && seconds() - start < 1); }

// A model of random weights; its head never ends a text. Uniform numbers of the right size do for measuring.
static Model bench_model(const struct Shape *s)
{
    Model m = { .c = s->c };
    uint64_t seed = 1;
    if (m.c.context < PROMPT + ANSWER) m.c.context = PROMPT + ANSWER;   // the shape's context is the length of its rows
    model_alloc(&m);
    for (size_t i = 0; i < m.n_params; i++) m.params[i] = (float)(random_unit(&seed) - 0.5) * 3 / sqrtf((float)m.c.C);
    memset(m.params + m.out_at + (size_t)EOS * (size_t)m.c.C, 0, (size_t)m.c.C * sizeof(float));
    return m;
}

static Row random_ids(int V, int n_condition, int n, uint64_t *seed)
{
    Row r = { ints(n), n_condition, n };
    for (int i = 0; i < n; i++) r.ids[i] = (int)(random_u64(seed) % (uint64_t)V);
    return r;
}

// Weights that a token is multiplied with: all but the embeddings, unless they are the head, too, which has C V.
static double matmul_weights(const Config *c)
{
    return (double)count_weights(c) - (c->tied ? 0 : (double)c->V * c->C);
}

// A training step. "train": B rows of T tokens, all of them targets. "rows": an Aligner's, 32 rows with a condition of
// 24 to 39 tokens and y_o, and a target as long as y_o, 8 to 71 tokens (tests/bench_torch.py makes the same lengths).
static Figure bench_train(Bench *b, const struct Shape *s, bool aligner_rows)
{
    Model m = bench_model(s);
    uint64_t seed = 2;
    int n = aligner_rows ? 32 : s->B, T = s->c.context, longest = aligner_rows ? 181 : T, i;
    Batch batch, part;
    batch_alloc(&batch, n * longest, n, n * longest);
    for (i = 0; i < n; i++) {
        int target = 8 + i * 37 % 64, condition = 24 + i * 11 % 16 + target;
        Row r = aligner_rows ? random_ids(s->c.V, condition, condition + target, &seed)
                             : random_ids(s->c.V, 1, T + 1, &seed);
        batch_add(&batch, &r), free(r.ids);
    }
    double *nll = zalloc((size_t)batch.T, sizeof *nll), begin, sum = 0;
    Progress p = { .m = zalloc(m.n_params, sizeof(float)), .v = zalloc(m.n_params, sizeof(float)) };
    int room = micro_tokens(&(TrainOptions){ .micro_tokens = MICRO_TOKENS }, batch.T, longest);
    m.grads = zalloc(m.n_params, sizeof(float));
    batch_alloc(&part, room, n, room), acts_reserve(&m, room, room, longest, true);
    for (i = -1, begin = seconds(); i < 0 || more_samples(i, begin); i++) {             // the first one warms up
        sample_limits(b);
        double start = seconds();
        sum += loss_and_gradients(&m, &batch, &part, nll);
        update(&m, &p, &(TrainOptions){ .clip = 1, .adam_eps = 1e-8 }, 1e-4), p.step++;
        if (i >= 0) b->sample[i] = seconds() - start;
    }
    CHECK(isfinite(sum), "the loss became %g", sum);
    double t = median(b->sample, i), tokens = batch.T, attention = 6.0 * s->c.L * tokens * T * s->c.C;  // T^2 / 2
    Figure f = { .ms = 1e3 * t, .tokens_per_s = tokens / t, .targets_per_s = aligner_rows ? batch.n_out / t : 0 };
    if (!aligner_rows) f.gflops = 1e-9 * (6 * matmul_weights(&s->c) * tokens + attention) / t;
    free(nll), free(p.m), free(p.v), batch_free(&batch), batch_free(&part), model_free(&m);
    return f;
}

// One pass over 128 tokens with one row of logits. What the last layer leaves out is not counted.
static Figure bench_prefill(Bench *b, const struct Shape *s)
{
    Model m = bench_model(s);
    const Config *c = &s->c;
    Generator g;
    uint64_t seed = 3;
    Row r = random_ids(c->V, 1, PROMPT, &seed);
    int i;
    double begin;
    generator_init(&g, &m, GREEDY);
    for (i = -1, begin = seconds(); i < 0 || more_samples(i, begin); i++) {
        sample_limits(b);
        double start = seconds();
        g.cache.len = 0, feed(&g, r.ids, PROMPT, NULL, 0, 1);
        if (i >= 0) b->sample[i] = seconds() - start;
    }
    double t = median(b->sample, i), last = (double)c->C * c->C + 3.0 * c->C * c->F, head = (double)c->C * c->V;
    double attention = 2.0 * c->L * PROMPT * PROMPT * c->C;
    double flops = 2 * (matmul_weights(c) - last - head) * PROMPT + 2 * (last + head) + attention;
    generator_free(&g), model_free(&m), free(r.ids);
    return (Figure){ .ms = 1e3 * t, .tokens_per_s = PROMPT / t, .gflops = 1e-9 * flops / t };
}

// Writes ANSWER tokens behind a prompt with the given draft (or none); returns the seconds they took.
static double time_answer(Generator *g, const Row *r, const int *draft, Ids *out)
{
    Ids prompt = { r->ids, r->n_condition, 0 };
    out->n = 0;
    double start = seconds();
    generate(g, &prompt, draft, draft ? ANSWER : 0, out);
    return seconds() - start;
}

// Decoding behind one token ("decode"), or behind 64 with drafts: y_o is what greedy decoding writes ("copied"), or has
// nothing in common with it ("nothing"): how many times faster than without a draft?
static Figure bench_decode(Bench *b, const struct Shape *s, bool drafts)
{
    Model m = bench_model(s);
    Generator g;
    uint64_t seed = 4;
    Row r = random_ids(s->c.V, drafts ? 64 : 1, 64 + ANSWER, &seed);
    Ids plain = { 0 }, out = { 0 };
    Figure f = { 0 };
    Decoding how = GREEDY;
    static double copied[SAMPLES], nothing[SAMPLES];
    int i;
    double begin;
    how.max_tokens = ANSWER;
    generator_init(&g, &m, how);
    for (i = -1, begin = seconds(); i < 0 || more_samples(i, begin); i++) {
        sample_limits(b);
        double t = time_answer(&g, &r, NULL, &plain), u = drafts ? time_answer(&g, &r, plain.a, &out) : t;
        CHECK(!drafts || !memcmp(plain.a, out.a, ANSWER * sizeof(int)), "a draft changed the text");
        double v = drafts ? time_answer(&g, &r, r.ids + 64, &out) : t;
        CHECK(!drafts || !memcmp(plain.a, out.a, ANSWER * sizeof(int)), "a draft changed the text");
        if (i >= 0) b->sample[i] = t, copied[i] = t / u, nothing[i] = t / v;
    }
    double t = median(b->sample, i) / ANSWER;
    if (drafts) f.copied = median(copied, i), f.nothing = median(nothing, i);
    else f.tokens_per_s = 1 / t, f.gbs = 4e-9 * matmul_weights(&s->c) / t;
    generator_free(&g), model_free(&m), free(r.ids), free(plain.a), free(out.a);
    return f;
}

// Measures one part at one shape, and keeps what came out.
static void bench_one(Bench *b, const char *part, const struct Shape *s)
{
    Figure f = is(part, "train") || is(part, "rows") ? bench_train(b, s, is(part, "rows"))
             : is(part, "prefill") ? bench_prefill(b, s) : bench_decode(b, s, is(part, "draft"));
    b->figure[b->n].part = part, b->figure[b->n].shape = s->name, b->figure[b->n++].f = f;
}

// Prints all figures, as a table or as JSON; shares are of the medians over the whole run.
static void show_figures(Bench *b, bool json)
{
    double peak = median(b->peak, b->n_peak), read = median(b->read, b->n_read);
    const char *part = "";
    if (json) printf("{\"threads\": %d, \"peak_gflops\": %.1f, \"read_gbs\": %.2f", max_threads(), peak, read);
    else printf("limits %d threads  peak_gflops %.1f  read_gbs %.2f\n", max_threads(), peak, read);
    for (int i = 0; i < b->n; i++) {
        const Figure *f = &b->figure[i].f;
        const struct { const char *name; double x; } value[] = {
            { "ms", f->ms }, { "tokens_per_s", f->tokens_per_s }, { "targets_per_s", f->targets_per_s },
            { "gflops", f->gflops }, { "peak_share", f->gflops / peak }, { "gbs", f->gbs },
            { "read_share", f->gbs / read }, { "copied", f->copied }, { "nothing", f->nothing } };
        bool first = !is(part, b->figure[i].part);
        part = b->figure[i].part;
        if (json) printf("%s%s%s%s\"%s\": {", first && i ? "}" : "", first ? ", \"" : ", ", first ? part : "",
                         first ? "\": {" : "", b->figure[i].shape);
        else printf("%s %s", part, b->figure[i].shape);
        for (size_t k = 0, n = 0; k < sizeof value / sizeof *value; k++)
            if (value[k].x > 0)
                printf(json ? "%s\"%s\": %.4g" : "%s %s %.4g", json && n++ ? ", " : "", value[k].name, value[k].x);
        printf(json ? "}" : "\n");
    }
    if (json) printf("%s}\n", b->n ? "}" : "");
}

// `bench`: everything (a minute), or one part, or one part at one shape.
static void run_bench(const Options *o)
{
    const char *only = o->n_words > 1 ? o->word[1] : NULL, *shape = o->n_words > 2 ? o->word[2] : NULL;
    static const char *const at[] = { "tiny small medium", "tiny small medium", "15M", "tiny 15M 110M", "tiny 15M" };
    const size_t n_parts = sizeof BENCH / sizeof *BENCH, n_shapes = sizeof SHAPE / sizeof *SHAPE;
    size_t known = 0, known_shape = 0;
    for (size_t i = 0; only && i < n_parts; i++) known += is(only, BENCH[i]);
    for (size_t j = 0; shape && j < n_shapes; j++) known_shape += is(shape, SHAPE[j].name);
    if (only && !known) usage_error("\"%s\" is nothing to measure", only);
    if (shape && !known_shape) usage_error("\"%s\" is no shape", shape);
    Bench *b = zalloc(1, sizeof *b);
    b->buffer = zalloc(PROBE, sizeof(float));
    for (size_t i = 0; i < n_parts; i++) {
        if (only && !is(only, BENCH[i])) continue;
        if (o->vocab) {
            struct Shape own = { "own", (int)o->train.batch, shape_asked_for(&o->train, o->vocab) };
            CHECK((double)own.B * own.c.context < INT_MAX / 4, "a batch of %.0f tokens; a smaller --batch is needed",
                  (double)own.B * own.c.context);
            bench_one(b, BENCH[i], &own);
        }
        for (size_t j = 0; j < n_shapes && !o->vocab; j++)
            if (shape ? is(shape, SHAPE[j].name) : strstr(at[i], SHAPE[j].name) != NULL)
                bench_one(b, BENCH[i], &SHAPE[j]);
    }
    show_figures(b, o->json);
    free(b->buffer), free(b);
}

#ifndef ALIGNER_NO_MAIN
// The commands, and how many words each takes, itself included.
static const struct { const char *name; int words; void (*run)(const Options *); } COMMAND[] = {
    { "tokenizer", 1, run_tokenizer }, { "train",  2, run_train },    { "answer", 3, run_generate },
    { "correct",   3, run_generate },  { "eval",   2, run_eval },     { "sample", 2, run_sample },
    { "tokens",    2, run_tokens },    { "info",   2, run_info },     { "loglik", 3, run_measure },
    { "score",     3, run_measure },   { "bound",  3, run_bound },    { "steer",  2, run_steer },
    { "bench",     3, run_bench } };

int main(int argc, char **argv)
{
    Options o = { .how = GREEDY, .samples = 4,
                  .train = { .dim = 128, .layers = 3, .heads = 8, .context = 256, .batch = 16,
                             .micro_tokens = MICRO_TOKENS,
                             .lr = 1e-3, .lr_warmup = 0.03, .clip = 1.0, .adam_eps = 1e-8, .seed = 1, .beta = 0.1,
                             .kl = 0.02 } };
    parse_options(&o, argc, argv);
    if (!o.n_words) fputs(USAGE, stderr), exit(2);
#ifdef _OPENMP
    if (o.threads > 1024) usage_error("--threads needs a number up to 1024");
    if (o.threads) omp_set_num_threads(o.threads);
#endif
    size_t i = 0, n = sizeof COMMAND / sizeof *COMMAND;
    while (i < n && !is(o.word[0], COMMAND[i].name)) i++;
    if (i == n) usage_error("there is no command \"%s\"", o.word[0]);
    if (o.n_words > COMMAND[i].words) usage_error("\"%s\" is one word too many", o.word[COMMAND[i].words]);
    COMMAND[i].run(&o);
    flush_results();
    return 0;
}
#endif

/* MIT License

   Copyright (c) 2026 the authors of aligner.c

   Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
   documentation files (the "Software"), to deal in the Software without restriction, including without limitation
   the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and
   to permit persons to whom the Software is furnished to do so, subject to the following conditions:

   The above copyright notice and this permission notice shall be included in all copies or substantial portions of
   the Software.

   THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO
   THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
   AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF
   CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS
   IN THE SOFTWARE. */
