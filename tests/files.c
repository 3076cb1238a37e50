// files.c: files are hostile: whatever is cut off, flipped or made up in a GGUF file, a
// tokenizer.bin, the state of a training run or a data file, the program loads it or dies with one
// line and exit 1. What is whole is read right: F16, BF16 and Q8_0, the variants that mean the
// same, the same bytes after load and save, llama2.c's stories260K.
#include "test.h"

static char path[64];               // the file under test
static char state_file[80];         // beside it

typedef struct { const char *what; void (*load)(const char *); bool may_load; } Reader;
typedef struct {
    const Reader *reader;
    const char *to;
    const Buf *f;
    size_t n, at;
    uint8_t flip;
} Damage;

// In a child: loads the first n bytes of a good file, one of them flipped. If the reader may take
// it, this says "loaded" and dies all the same: dies() is true for "loaded" and for one line and
// exit 1.
static void load_damaged(const void *p) {
    const Damage *d = p;
    if (d->at < d->n) d->f->s[d->at] ^= (char)d->flip;
    put_file(d->to, d->f->s, d->n);
    alarm(5);                                           // a reader that hangs is one that crashed
    d->reader->load(path);
    if (!d->reader->may_load) return;
    fputs("loaded\n", stderr);
    _exit(1);
}

// Every truncation and every flipped byte of the first `dense` bytes; in the header one in seven
// after that, and then one in `step`.
static void damage(Reader flipped, bool cut_may_load, const char *to, size_t dense, size_t header,
                   size_t step) {
    Reader cut = { flipped.what, flipped.load, cut_may_load };
    Buf f = read_all(to);
    long wrong = 0, loaded = 0, n = 0;
    for (size_t at = 0; at < f.n; at += at < dense ? 1 : at < header ? 7 : step)
        for (int cutting = 0; cutting < 2; cutting++, n++) {
            const uint8_t flip = at % 3 ? 0xFF : (uint8_t)(1 << at / 3 % 8);
            const Damage d = { cutting ? &cut : &flipped, to,  &f, cutting ? at : f.n,
                               cutting ? f.n : at,        flip };
            const bool ok = dies(load_damaged, &d);
            loaded += ok && !strcmp(message, "loaded");
            if (!ok && ++wrong < 4)
                printf("byte %zu %s: %s\n", at, cutting ? "cut" : "flipped", message);
        }
    put_file(to, f.s, f.n);
    free(f.s);
    OK(!wrong, "%s: %ld of %ld damaged files were neither loaded nor refused in one line",
       flipped.what, wrong, n);
    OK(loaded < n, "%s: every damaged file was loaded", flipped.what);
}

static void small_model(Model *m, int C, int F) {
    static Piece piece[41];
    static char name[41][8];
    for (int i = 0; i < 41; i++) {
        snprintf(name[i], sizeof *name, " p%d", FIRST_PIECE + i);
        piece[i] = (Piece){ name[i], (float)-i };
    }
    random_model(m, (Config){ .V = 300, .C = C, .L = 1, .H = 2, .H_kv = 2, .F = F, .context = 96,
                              .eps = 1e-5f, .theta = 1e4f }, 1);
    m->tokenizer = vocabulary(piece, 41);
    set_template(m, "short");
    snprintf(m->objective, sizeof m->objective, "aligner");
}

static void load_model(const char *p) {
    Model m;
    model_load(&m, p);
    if (!m.template) return;
    Buf with = prompt(&m, text("q"), text("a")), without = prompt(&m, text("q"), NONE);
    FREE(with.s, without.s);
}

static void load_tokenizer_bin(const char *p) { tokenizer_load(p); }

// Bad rows are no reason to die: they are reported and skipped, so every data file "loads".
static void read_rows(const char *p) {
    Objects in;
    Triple t;
    objects_open(&in, p);
    while (next_row(&in, NEED_X | NEED_Y_O | NEED_Y_C, &t) != ROW_END) continue;
    objects_close(&in);
}

static char data[80], log_file[80];
static long steps_wanted;

// Resumes the run at path and takes one step more: what a state file brings is not only read but
// used.
static void resume_run(const char *p) {
    Model m;
    Rows r = { 0 }, none = { 0 };
    small_model(&m, 8, 16);
    rows_load(&r, &m, data, aligner);
    TrainOptions o = { .out = p,
                       .log = log_file,
                       .steps = steps_wanted,
                       .batch = 2,
                       .lr = 1e-3,
                       .clip = 1,
                       .adam_eps = 1e-8,
                       .seed = 1,
                       .grow_below = 0.1,
                       .resume = 1,
                       .quiet = 1 };
    train(&(Run){ .model = &m, .rows = &r, .valid = &none, .o = &o });
}

static void resume_path(const void *p) { resume_run(p); }

static const char GOOD[] = "{\"question\": \"q\", \"answer\": \"a\", \"correction\": \"a\"}\n"
                           "{\"question\": \"q\", \"answer\": \"b\", \"correction\": \"longer\"}\n"
                           "{\"question\": \"q\", \"answer\": \"c\", \"correction\": \"c\"}\n";
static const char ROWS[] =
    "\xEF\xBB\xBF{\"question\": \"What is \\u00e9?\", \"answer\": \"a \\ud83d\\ude00 b\", "
    "\"correction\": \"c\", \"n\": [1, {\"x\": null}]}\r\n"
    "\n{\"id\": -1.5e3, \"correction\": \"\", \"answer\": \"\\\"y\\\"\", "
    "\"question\": \"q\", \"answer\": \"again\"}\n"
    "{\"question\": \"last\", \"answer\": \"y\", \"correction\": \"z\"}";

static void damaged_files(void) {
    Model m;
    small_model(&m, 8, 16);
    model_save(&m, path);
    Buf f = read_all(path);
    const size_t header = f.n - m.n_params * 4;         // about: no tensor here needs much padding
    damage((Reader){ "GGUF", load_model, true }, false, path, 600, header, 997);
    free(f.s);
    tokenizer_save(m.tokenizer, path);
    damage((Reader){ "tokenizer.bin", load_tokenizer_bin, true }, true, path, 100, 0, 61);
    model_free(&m);
}

// Data files have no wrong bytes, only rows that are skipped: this must end without a sanitizer's
// finding.
static void damaged_rows(void) {
    static const char ARRAY[] =
        "[\n{\"question\": \"q\", \"answer\": \"a\", \"correction\": \"c\"},\n"
        "  {\"question\": \"\\u00e9\\n\",\n \"answer\": \"a\", \"n\": {\"x\": [true, false]}}\n]\n";
    const Text good[] = { text(ROWS), text(ARRAY) };
    Buf f = { 0 };
    long n = 0;
    for (int i = 0; i < 2; i++)
        for (size_t at = 0; at < good[i].n; at++)
            for (int flip = 0; flip < 4; flip++, n++) {
                buf_set(&f, good[i]);
                if (flip == 1) f.s[at] ^= (char)(1 << at % 8);
                if (flip == 2) f.s[at] ^= (char)0xFF;
                if (flip == 3) f.s[at] = 0;
                put_file(path, f.s, flip == 0 ? at : f.n);
                Objects in;
                Triple t;
                objects_open(&in, path);
                int rows = 0;
                while (next_row(&in, NEED_X | NEED_Y_O, &t) != ROW_END) rows++;
                if (rows > 20) OK(false, "byte %zu, %d: %d rows", at, flip, rows);
                objects_close(&in);
            }
    OK(n > 1000, "%ld damaged data files", n);
    free(f.s);
}

static void damaged_state(void) {
    put_file(data, GOOD, sizeof GOOD - 1);
    remove(path);
    remove(state_file);
    for (steps_wanted = 1; steps_wanted <= 2;
         steps_wanted++) // in a child, as OpenMP survives no fork
        OK(!dies(resume_path, path) &&
               (steps_wanted == 1 ? !!strstr(message, "starting at") : !*message),
           "step %ld: %s", steps_wanted, message);
    damage((Reader){ "state", resume_run, true }, false, state_file, STATE_HEAD + 8, 0, 997);
}

// One field of the good file changed: n bytes of v at `skip` bytes behind the end of the string
// `after` (NULL: of the file's start).
typedef struct { const char *what, *after; long skip; uint64_t v; int n; } Change;

static size_t behind(const Buf *f, const char *s) {
    size_t n = strlen(s);
    for (size_t i = 8; i + n <= f->n; i++)
        if (!memcmp(f->s + i, s, n) && !memcmp(f->s + i - 8, &(uint64_t){ n }, 8)) return i + n;
    DIE("the test looks for %s, which is not in the file", s);
}

static void load_path(const void *p) { load_model(p); }

// A key is followed by { u32 type, value }, an array value is { u32 type, u64 n, ... }, a string {
// u64 n, bytes }. The name of a tensor is followed by { u32 n_dims, u64 dims[], u32 type, u64
// offset }.
static const Change CHANGE[] = {
    { "another magic", NULL, 0, 'g', 1 },
    { "version 1", NULL, 4, 1, 4 },
    { "version 4", NULL, 4, 4, 4 },
    { "version 3, big-endian", NULL, 4, 3u << 24, 4 },
    { "2^63 tensors", NULL, 8, 1ull << 63, 8 },
    { "a tensor too many", NULL, 8, 13, 8 },
    { "no tensors", NULL, 8, 0, 8 },
    { "a tensor missing (the rest is a tied model)", NULL, 8, 11, 8 },
    { "two tensors missing", NULL, 8, 10, 8 },
    { "2^63 keys", NULL, 16, 1ull << 63, 8 },
    { "1025 keys", NULL, 16, 1025, 8 },
    { "no keys", NULL, 16, 0, 8 },
    { "a key of 2^64 - 1 bytes", NULL, 24, UINT64_MAX, 8 },
    { "a key longer than the file", NULL, 24, 1 << 20, 8 },
    { "a string longer than the file", "general.name", 4, 1 << 20, 8 },
    { "a string of 2^64 - 8", "general.name", 4, UINT64_MAX - 7, 8 },
    { "a value of type 13", "general.name", 0, 13, 4 },
    { "a value of type 2^32 - 1", "general.name", 0, UINT32_MAX, 4 },
    { "an array of arrays", "tokenizer.ggml.token_type", 4, T_ARRAY, 4 },
    { "an array of type 77", "tokenizer.ggml.token_type", 4, 77, 4 },
    { "2^61 tokens (times 8 wraps)", "tokenizer.ggml.tokens", 8, 1ull << 61, 8 },
    { "2^62 scores (times 4 wraps)", "tokenizer.ggml.scores", 8, 1ull << 62, 8 },
    { "2^64 - 1 tokens", "tokenizer.ggml.tokens", 8, UINT64_MAX, 8 },
    { "a token too few", "tokenizer.ggml.tokens", 8, 299, 8 },
    { "a score too few", "tokenizer.ggml.scores", 8, 299, 8 },
    { "scores as integers", "tokenizer.ggml.scores", 4, T_I32, 4 },
    { "tokens that are no array", "tokenizer.ggml.tokens", 0, T_STRING, 4 },
    { "a piece twice", "\xE2\x96\x81p260", -1, '1', 1 },
    { "a piece with a zero byte", "\xE2\x96\x81p260", -2, 0, 1 },
    { "a piece that is a newline, twice", "<0x41>", -6, '\n', 1 },
    { "another byte", "<0x41>", -2, '2', 1 },
    { "another architecture", "general.architecture", 12, 'm', 1 },
    { "another tokenizer", "tokenizer.ggml.model", 12, 'm', 1 },
    { "<s> is token 5", "tokenizer.ggml.bos_token_id", 4, 5, 4 },
    { "</s> is token 0", "tokenizer.ggml.eos_token_id", 4, 0, 4 },
    { "dim 0", "llama.embedding_length", 4, 0, 4 },
    { "dim 9", "llama.embedding_length", 4, 9, 4 },
    { "dim 16", "llama.embedding_length", 4, 16, 4 },
    { "dim 2^31", "llama.embedding_length", 4, 1u << 31, 4 },
    { "dim 2^32 - 1", "llama.embedding_length", 4, UINT32_MAX, 4 },
    { "dim 16384", "llama.embedding_length", 4, 16384, 4 },
    { "dim as u64", "llama.embedding_length", 0, 10, 4 },
    { "no layers", "llama.block_count", 4, 0, 4 },
    { "two layers", "llama.block_count", 4, 2, 4 },
    { "2^31 layers", "llama.block_count", 4, 1u << 31, 4 },
    { "no heads", "llama.attention.head_count", 4, 0, 4 },
    { "3 heads for dim 8", "llama.attention.head_count", 4, 3, 4 },
    { "heads of size 1", "llama.attention.head_count", 4, 8, 4 },
    { "2^32 - 1 heads", "llama.attention.head_count", 4, UINT32_MAX, 4 },
    { "no key/value heads", "llama.attention.head_count_kv", 4, 0, 4 },
    { "more key/value heads than heads", "llama.attention.head_count_kv", 4, 4, 4 },
    { "one key/value head", "llama.attention.head_count_kv", 4, 1, 4 },
    { "hidden 0", "llama.feed_forward_length", 4, 0, 4 },
    { "hidden 1", "llama.feed_forward_length", 4, 1, 4 },
    { "hidden 17", "llama.feed_forward_length", 4, 17, 4 },
    { "hidden 2^31 - 1", "llama.feed_forward_length", 4, INT_MAX, 4 },
    { "context 0", "llama.context_length", 4, 0, 4 },
    { "context 2^20 + 1", "llama.context_length", 4, (1 << 20) + 1, 4 },
    { "half of a head is rotated", "llama.rope.dimension_count", 4, 2, 4 },
    { "rotary base 0", "llama.rope.freq_base", 4, 0, 4 },
    { "rotary base NaN", "llama.rope.freq_base", 4, 0x7FC00000, 4 },
    { "epsilon 0", "llama.attention.layer_norm_rms_epsilon", 4, 0, 4 },
    { "epsilon NaN", "llama.attention.layer_norm_rms_epsilon", 4, 0x7FC00000, 4 },
    { "alignment 3", "general.alignment", 4, 3, 4 },
    { "alignment 0", "general.alignment", 4, 0, 4 },
    { "alignment 4", "general.alignment", 4, 4, 4 },
    { "alignment 2^17", "general.alignment", 4, 1 << 17, 4 },
    { "alignment 2^31", "general.alignment", 4, 1u << 31, 4 },
    { "a key twice", "general.alignment", -17, 0, 0 },
    { "a prompt without its SFT counterpart", "aligner.prompt_sft", -1, 'x', 1 },
    { "a prompt with a zero byte", "aligner.prompt", 12, 0, 1 },
    { "5 dimensions", "blk.0.attn_q.weight", 0, 5, 4 },
    { "0 dimensions", "blk.0.attn_q.weight", 0, 0, 4 },
    { "2^32 - 1 dimensions", "blk.0.attn_q.weight", 0, UINT32_MAX, 4 },
    { "a matrix for a norm", "blk.0.attn_norm.weight", 0, 2, 4 },
    { "2^32 + 8 columns", "blk.0.attn_q.weight", 4, (1ull << 32) + 8, 8 },
    { "2^61 rows (the product wraps)", "blk.0.attn_q.weight", 12, 1ull << 61, 8 },
    { "another shape", "blk.0.ffn_gate.weight", 4, 16, 8 },
    { "tensor type 2", "blk.0.attn_q.weight", 20, 2, 4 },
    { "tensor type 2^32 - 1", "blk.0.attn_q.weight", 20, UINT32_MAX, 4 },
    { "Q8_0 in rows of 8", "blk.0.attn_q.weight", 20, GGML_Q8_0, 4 },
    { "F16, so that all offsets behind are wrong", "blk.0.attn_q.weight", 20, GGML_F16, 4 },
    { "offset + 32", "blk.0.attn_q.weight", 24, 300 * 8 * 4 + 64, 8 },
    { "offset 2^64 - 32", "blk.0.attn_q.weight", 24, UINT64_MAX - 31, 8 },
    { "offset 0 twice", "blk.0.attn_q.weight", 24, 0, 8 },
    { "a tensor twice", "blk.0.attn_k.weight", -8, 'q', 1 },
    { "an unknown tensor", "blk.0.attn_k.weight", -8, 'z', 1 },
    { "an unknown tensor with a newline", "blk.0.attn_k.weight", -8, '\n', 1 }
};

static void hostile_models(const Buf *good) {
    Buf f = { 0 };
    for (size_t i = 0; i < sizeof CHANGE / sizeof *CHANGE; i++) {
        const Change *c = &CHANGE[i];
        buf_set(&f, contents(good));
        char *at = f.s + (c->after ? behind(&f, c->after) : 0) + c->skip;
        memcpy(at, c->n ? (const char *)&c->v : "llama.block_count", c->n ? (size_t)c->n : 17);
        put_file(path, f.s, f.n);
        bool refused = dies(load_path, path);
        OK(refused, "%s: %s", c->what, *message ? message : "loaded, or crashed");
        if (!strcmp(c->what, "version 3, big-endian"))
            OK(strstr(message, "big-endian"), "%s", message);
    }
    put_file(path, good->s, good->n);
    OK(!dies(load_path, path) && !*message, "the good file: %s", message);
    OK(dies(load_path, "build/no/such/file.gguf"), "a missing file: %s", message);
    free(f.s);
}

// Loads the good file with `cut` bytes at `at` replaced by n others, and with n_keys more keys; the
// data is padded anew. True if it loads without a message.
static bool loads(const Buf *good, size_t at, size_t cut, const void *s, size_t n, int n_keys) {
    const size_t list_end = behind(good, "output.weight") + 4 + 16 + 4 + 8;
    const size_t data_at = (list_end + 31) / 32 * 32;
    Buf f = { 0 };
    uint64_t keys;
    buf_set(&f, (Text){ good->s, at });
    buf_add(&f, s, n);
    buf_add(&f, good->s + at + cut, list_end - at - cut);
    memcpy(&keys, f.s + 16, 8);
    keys += (uint64_t)n_keys;
    memcpy(f.s + 16, &keys, 8);
    while (f.n % 32) buf_add(&f, "", 1);
    buf_add(&f, good->s + data_at, good->n - data_at);
    put_file(path, f.s, f.n);
    free(f.s);
    return !dies(load_path, path) && !*message;
}

// Loads the good file with one more key, whose value has n bytes.
static bool loads_with(const Buf *good, const char *key, uint32_t type, const void *value,
                       size_t n) {
    Buf b = { 0 };
    put_string(&b, text(key));
    put_u32(&b, type);
    if (type == T_STRING) put_string(&b, (Text){ value, n });
    else buf_add(&b, value, n);
    bool ok = loads(good, 24, 0, b.s, b.n, 1);
    free(b.s);
    return ok;
}

static bool loads_f32(const Buf *good, const char *key, float v) {
    return loads_with(good, key, T_F32, &v, 4);
}

static bool loads_u32(const Buf *good, const char *key, uint32_t v) {
    return loads_with(good, key, T_U32, &v, 4);
}

// What changes what a model computes is honoured or refused by name; what changes nothing is read.
static void keys(const Buf *good) {
    static const char *const REFUSED[] = {
        "llama.attention.sliding_window", "llama.rope.scaling.finetuned",
        "llama.expert_used_count",        "llama.new_idea",
        "tokenizer.ggml.added_tokens",    "tokenizer.ggml.remove_extra_whitespaces"
    };
    OK(loads(good, 24, 0, "", 0, 0), "the good file, put together again: %s", message);
    OK(loads_with(good, "llama.rope.scaling.type", T_STRING, "none", 4), "type none: %s", message);
    OK(loads_with(good, "llama.rope.scaling.type", T_STRING, "linear", 6), "type linear: %s",
       message);
    OK(loads_f32(good, "llama.rope.scaling.factor", 1), "factor 1: %s", message);
    OK(loads_f32(good, "llama.rope.scale_linear", 1), "scale_linear 1: %s", message);
    OK(loads_u32(good, "llama.expert_count", 0), "no experts: %s", message);
    OK(loads_u32(good, "llama.attention.key_length", 4), "the head size, said twice: %s", message);
    OK(loads_u32(good, "general.quantization_version", 2), "general keys say nothing: %s", message);
    OK(loads_with(good, "tokenizer.chat_template", T_STRING, "{{x}}", 5), "a chat template: %s",
       message);
    OK(loads_u32(good, "tokenizer.ggml.padding_token_id", 0), "a padding token: %s", message);
    OK(!loads_with(good, "llama.rope.scaling.type", T_STRING, "yarn", 4) && strstr(message, "yarn"),
       "yarn");
    OK(!loads_f32(good, "llama.rope.scaling.factor", 4) && strstr(message, "scaling.factor"),
       "factor 4");
    OK(!loads_f32(good, "llama.rope.scale_linear", 4) && strstr(message, "scale_linear"),
       "scale_linear 4");
    OK(!loads_f32(good, "llama.rope.scaling.factor", NAN), "factor NaN");
    OK(!loads_u32(good, "llama.expert_count", 2), "experts");
    OK(!loads_u32(good, "llama.attention.key_length", 8), "another head size");
    for (size_t i = 0; i < sizeof REFUSED / sizeof *REFUSED; i++)
        OK(!loads_u32(good, REFUSED[i], 1) && strstr(message, REFUSED[i]), "%s: %s", REFUSED[i],
           message);
}

// Variants of the file that mean the same.
static void same_meaning(const Buf *good) {
    const size_t norm = behind(good, "blk.0.attn_norm.weight"); // { u32 1, u64 8, type, offset }
    const struct { uint32_t n_dims; uint64_t dims[2]; } TWO = { 2, { 8, 1 } };
    char dims[20];
    memcpy(dims, &TWO.n_dims, 4);
    memcpy(dims + 4, (uint64_t[]){ 8, 1 }, 16);
    OK(loads(good, norm, 12, dims, 20, 0), "a norm of shape [C, 1]: %s", message);
    memcpy(dims + 4, (uint64_t[]){ 1, 8 }, 16);
    OK(!loads(good, norm, 12, dims, 20, 0), "a norm of shape [1, C]");
    memcpy(dims + 4, (uint64_t[]){ 2, 4 }, 16);
    OK(!loads(good, norm, 12, dims, 20, 0), "a norm of shape [2, 4]");
    OK(loads(good, 4, 4, &(uint32_t){ 2 }, 4, 0), "version 2: %s", message);

    Buf f = { 0 };
    for (int last = 0; last < 2; last++) {
        buf_set(&f, contents(good));
        for (int i = 0; i < 100; i++) buf_add(&f, &(char){ (char)(last && i == 99) }, 1);
        put_file(path, f.s, f.n);
        OK(dies(load_path, path) == (last == 1), "bytes after the data, the last one %d: %s", last,
           message);
    }
    static const uint32_t BAD[] = { 0x7FC00000, 0x7F800000, 0xFF800000 };       // NaN, inf, -inf
    for (int i = 0; i < 3; i++) {
        buf_set(&f, contents(good));
        memcpy(f.s + f.n - 4, &BAD[i], 4);
        put_file(path, f.s, f.n);
        OK(dies(load_path, path) && strstr(message, "output.weight"), "weight %d: %s", i, message);
    }
    free(f.s);
}

static void variants(void) {
    Model m;
    small_model(&m, 8, 16);
    model_save(&m, path);
    Buf good = read_all(path);
    hostile_models(&good);
    keys(&good);
    same_meaning(&good);
    free(good.s);
    model_free(&m);
}

// add_space_prefix and keep travel in the file: read as they are, used, and written as they were
// read.
static void settings(void) {
    Model m, back;
    Generator g;
    small_model(&m, 8, 16);
    for (int i = 0; i < 4; i++) {
        m.keep = i & 1 ? 2.5 : 0;
        m.tokenizer->no_space = i & 2;
        model_save(&m, path);
        model_load(&back, path);
        OK(back.keep == m.keep && back.tokenizer->no_space == m.tokenizer->no_space, "%d is lost",
           i);
        generator_init(&g, &back, (Decoding){ .keep = -1 });
        OK(g.how.keep == m.keep, "keep %g is not used", m.keep);
        generator_free(&g);
        generator_init(&g, &back, (Decoding){ .keep = 7 });
        OK(g.how.keep == 7, "--keep does not overrule the file");
        generator_free(&g);
        Ids ids = { 0 };
        encode(back.tokenizer, text("p260"), &ids);
        OK((ids.n == 4) == m.tokenizer->no_space, "\"p260\" becomes %d tokens", ids.n);
        free(ids.a);
        model_save(&back, state_file);
        Buf a = read_all(path), b = read_all(state_file);
        OK(same(contents(&a), contents(&b)), "setting %d is written otherwise than it was read", i);
        FREE(a.s, b.s);
        model_free(&back);
    }
    remove(state_file);
    model_free(&m);
}

// Appends weights to body in the given type: each value is one that its type holds exactly.
static void put_weights(Buf *body, float *w, int n, uint32_t type, uint64_t *seed) {
    float scale = 0;
    for (int j = 0; j < n; j++) {
        int whole = (int)(random_u64(seed) % 255) - 127;
        uint32_t bits;
        if (type == GGML_Q8_0 && j % 32 == 0) { // a block: its scale as f16, then 32 whole numbers
            uint16_t h = (uint16_t)(random_u64(seed) % 0x7C00);
            scale = f16_to_f32(h);
            buf_add(body, &h, 2);
        }
        w[j] = type == GGML_Q8_0 ? scale * (float)whole : (float)whole * 0x1p-6f;
        memcpy(&bits, &w[j], 4);
        uint32_t exponent = w[j] != 0 ? (bits >> 23 & 255) - 112 : 0;
        uint16_t half = (uint16_t)((bits >> 16 & 0x8000) | exponent << 10 | (bits >> 13 & 1023));
        if (type == GGML_BF16) half = (uint16_t)(bits >> 16);
        if (type == GGML_Q8_0) buf_add(body, &(int8_t){ (int8_t)whole }, 1);
        else if (type == GGML_F32) put_u32(body, bits);
        else buf_add(body, &half, 2);
    }
    while (body->n % 32) buf_add(body, "", 1);
}

static void tensor_types(void) {
    static const uint32_t TYPE[4] = { GGML_Q8_0, GGML_F16, GGML_BF16, GGML_F32 };
    Model m, back;
    uint64_t seed = 7;
    small_model(&m, 32, 64);
    model_save(&m, path);
    Buf good = read_all(path), head = { 0 }, body = { 0 };
    buf_add(&head, good.s, behind(&good, "token_embd.weight") - 17 - 8);
    for (size_t i = 0; i < m.n_tensors; i++) {
        const Tensor *t = &m.tensor[i];
        put_string(&head, text(t->name));
        put_u32(&head, t->rows == 1 ? 1 : 2);
        put_u64(&head, (uint64_t)t->cols);
        if (t->rows > 1) put_u64(&head, (uint64_t)t->rows);
        put_u32(&head, TYPE[i % 4]);
        put_u64(&head, body.n);
        put_weights(&body, m.params + t->at, t->rows * t->cols, TYPE[i % 4], &seed);
    }
    while (head.n % 32) buf_add(&head, "", 1);
    buf_add(&head, body.s, body.n);
    put_file(path, head.s, head.n);
    model_load(&back, path);
    for (size_t i = 0; i < m.n_tensors; i++) {
        const Tensor *t = &m.tensor[i];
        bool equal = true;
        for (size_t j = t->at; j < t->at + (size_t)(t->rows * t->cols); j++)
            equal = equal && m.params[j] == back.params[j];
        OK(equal, "%s, type %u, is read wrong", t->name, TYPE[i % 4]);
    }
    FREE(good.s, head.s, body.s);
    model_free(&m);
    model_free(&back);
}

// Every f16 there is, from its definition.
static void half_precision(void) {
    int wrong = 0;
    for (int h = 0; h < 65536; h++) {
        int e = h >> 10 & 31, f = h & 1023;
        float want = ldexpf((float)(e ? f + 1024 : f), (e ? e : 1) - 25),
              got = f16_to_f32((uint16_t)h);
        if (e == 31) want = f ? NAN : INFINITY;
        if (h >> 15) want = -want;
        wrong += isnan(want) ? !isnan(got) : got != want || signbit(got) != signbit(want);
    }
    OK(!wrong, "%d of 65536 f16 numbers are read wrong", wrong);
}

static bool same_after_save(const Model *m) {
    Model back;
    model_save(m, path);
    Buf first = read_all(path);
    model_load(&back, path);
    model_save(&back, path);
    Buf second = read_all(path);
    bool ok = same(contents(&first), contents(&second));
    FREE(first.s, second.s);
    model_free(&back);
    return ok;
}

static void saved_and_loaded(void) {
    static const char *const PIECE[] = { " ", "  a b ",
                                         "\xC3\xA9" }; // GGUF writes these in another way
    Model m;
    small_model(&m, 8, 16);
    OK(same_after_save(&m), "saved, loaded and saved again, the file has other bytes");
    for (int b = 0; b < 3; b++) {
        free((char *)m.tokenizer->piece[297 + b].s);
        set_piece(m.tokenizer, 297 + b, text(PIECE[b]), -1);
    }
    tokenizer_index(m.tokenizer, "the test's vocabulary");
    m.step = 12345;
    OK(same_after_save(&m), "with spaces inside pieces the file has other bytes");
    model_free(&m);

    // U+2581 is what GGUF writes for a space. A vocabulary learnt from a text with it must still
    // make a file that loads; its size is what the text yields.
    Tokenizer *k =
        tokenizer_train(text("\xE2\x96\x81 aa \xE2\x96\x81 aaa \xE2\x96\x81 aaaaaaaa"), 264, false);
    random_model(&m, (Config){ .V = k->V, .C = 8, .L = 1, .H = 2, .H_kv = 1, .F = 16, .context = 8,
                               .tied = true, .eps = 1e-5f, .theta = 1e4f }, 1);
    m.tokenizer = k;
    model_save(&m, path);
    OK(!dies(load_path, path) && !*message, "a vocabulary learnt from U+2581: %s", message);
    model_free(&m);
}

// llama2.c's little model; and a context that a file claims costs no memory.
static void stories(const char *file) {
    static const char WANT[] = "Once upon a time, there was a little girl named Lily.";
    Model m;
    Generator g;
    Ids prompt = { 0 }, out = { 0 };
    if (access(file, R_OK)) {
        printf("skipped: no %s\n", file);
        return;
    }
    model_load(&m, file);
    m.c.context = 1 << 20;
    generator_init(&g, &m, (Decoding){ .top_p = 1, .max_tokens = 60 });
    ids_add(&prompt, BOS);
    generate(&g, &prompt, NULL, 0, &out);
    Buf all = decode_all(m.tokenizer, out.a, out.n);
    OK(!strncmp(all.s, WANT, strlen(WANT)), "stories260K begins: %s", all.s);
    OK(g.cache.capacity <= 512 && m.n_angles <= 512, "%d positions reserved", g.cache.capacity);
    FREE(all.s, prompt.a, out.a);
    generator_free(&g);
    model_free(&m);
}

int main(void) {
    int id = (int)getpid();
    const char *folder = access("/dev/shm", W_OK) ? "build" : "/dev/shm"; // thousands of files
    snprintf(path, sizeof path, "%s/files-test-%d.gguf", folder, id);
    snprintf(state_file, sizeof state_file, "%s.state", path);
    snprintf(data, sizeof data, "%s.jsonl", path);
    snprintf(log_file, sizeof log_file, "%s.csv", path);
    saved_and_loaded();
    tensor_types();
    half_precision();
    variants();
    settings();
    damaged_files();
    damaged_rows();
    damaged_state();
    stories("../shared/models/stories260K.gguf");
    remove(path);
    remove(state_file);
    remove(data);
    remove(log_file);
    return done("files");
}
