// files.c - files are hostile: whatever is cut off, flipped or made up in a GGUF file, a tokenizer.bin, the state of a
// training run or a data file, the program loads it or dies with one line and exit 1. And what is whole is read right:
// F16, BF16 and Q8_0, the same bytes after load and save, llama2.c's stories260K.
#include "test.h"

static char path[64];               // the file under test
static char state_file[80];         // beside it

typedef struct { const char *what; void (*load)(const char *); bool may_load; } Reader;
typedef struct { const Reader *reader; const char *to; const Buf *f; size_t n, at; uint8_t flip; } Damage;

static void put_file(const char *to, const void *s, size_t n)
{
    FILE *f = fopen(to, "wb");
    CHECK(f && fwrite(s, 1, n, f) == n && !fclose(f), "cannot write %s", to);
}

// In a child: loads the first n bytes of a good file, one of them flipped. Where the reader may take it, this says
// "loaded" and dies all the same, so that dies() is true for "loaded, or one line and exit 1" and false for everything
// else.
static void load_damaged(const void *p)
{
    const Damage *d = p;
    if (d->at < d->n) d->f->s[d->at] ^= (char)d->flip;
    put_file(d->to, d->f->s, d->n);
    alarm(5);                                          // a reader that hangs is one that crashed
    d->reader->load(path);
    if (d->reader->may_load) fputs("loaded\n", stderr), _exit(1);
}

// Every truncation and every flipped byte of the first 600 bytes; further on only some.
static void damage(const Reader *flipped, const Reader *cut, const char *to, size_t header, size_t step)
{
    Buf f = read_all(to, NULL);
    long wrong = 0, loaded = 0, n = 0;
    for (size_t at = 0; at < f.n; at += at < 600 ? 1 : at < header ? 7 : step) {
        n += 2;
        bool ok = dies(load_damaged, &(Damage){ flipped, to, &f, f.n, at, at % 3 ? 0xFF : (uint8_t)(1 << at / 3 % 8) });
        loaded += ok && !strcmp(message, "loaded");
        if (!ok && ++wrong < 4) printf("byte %zu flipped: %s\n", at, message);
        ok = dies(load_damaged, &(Damage){ cut, to, &f, at, f.n, 0 });
        loaded += ok && !strcmp(message, "loaded");
        if (!ok && ++wrong < 4) printf("cut off at %zu: %s\n", at, message);
    }
    put_file(to, f.s, f.n), free(f.s);
    OK(!wrong, "%s: %ld of %ld damaged files were neither loaded nor refused in one line", flipped->what, wrong, n);
    OK(loaded < n, "%s: every damaged file was loaded", flipped->what);
}

static void small_vocabulary(Tokenizer *k, int V)
{
    char name[16];
    tokenizer_alloc(k, V);
    set_piece(k, UNK, text("<unk>"), 0), set_piece(k, BOS, text("\n<s>\n"), 0), set_piece(k, EOS, text("\n</s>\n"), 0);
    for (int b = 0; b < 256; b++) snprintf(name, sizeof name, "<0x%02X>", b), set_piece(k, BYTE0 + b, text(name), 0);
    for (int id = FIRST_PIECE; id < V; id++)
        snprintf(name, sizeof name, " p%d", id), set_piece(k, id, text(name), (float)(FIRST_PIECE - id));
    tokenizer_index(k, "the test's vocabulary");
}

static void small_model(Model *m, int C, int F)
{
    random_model(m, (Config){ .V = 300, .C = C, .L = 1, .H = 2, .H_kv = 2, .F = F, .context = 96, .eps = 1e-5f,
        .theta = 10000.0f }, 1);
    small_vocabulary(&m->tok, 300);
    set_template(m, "short");
    snprintf(m->objective, sizeof m->objective, "aligner");
}

static void load_model(const char *p)
{
    Model m;
    model_load(&m, p);
    if (m.template) free(prompt(&m, text("q"), text("a")).s), free(prompt(&m, text("q"), NONE).s);
}

static void load_tokenizer_bin(const char *p)
{
    Tokenizer k;
    tokenizer_load(&k, p);
}

static void read_rows(const char *p)
{
    Objects in;
    Text object;
    Buf b = { 0 };
    objects_open(&in, p);
    while (next_object(&in, &object))
        get_text(&in, object, "question", &b), get_text(&in, object, "answer", &b),
            get_text(&in, object, "correction", &b);
}

static char data[80], log_file[80];
static Buf good_log;                                    // that of the undamaged run; a damaged state may cut the file

// Resumes the run at path and takes one step more: what a state file brings is not only read but used.
static void resume_run(const char *p)
{
    Model m;
    Rows r = { 0 }, none = { 0 };
    if (good_log.s) put_file(log_file, good_log.s, good_log.n);
    model_load(&m, p);
    rows_load(&r, &m, data, aligner, false);
    train(&m, &r, &none, &(TrainOptions){ .out = p, .log = log_file, .steps = m.step + 1, .batch = 2, .lr = 1e-3,
        .clip = 1, .adam_eps = 1e-8, .seed = 1,
                                          .grow_below = 0.1, .resume = m.step > 0, .quiet = 1 });
}

static void resume_path(const void *p) { resume_run(p); }

static const char GOOD[] = "{\"question\": \"q\", \"answer\": \"a\", \"correction\": \"a\"}\n"
                           "{\"question\": \"q\", \"answer\": \"b\", \"correction\": \"longer\"}\n"
                           "{\"question\": \"q\", \"answer\": \"c\", \"correction\": \"c\"}\n";
static const char ROWS[] = "\xEF\xBB\xBF{\"question\": \"What is \\u00e9?\", \"answer\": \"a \\ud83d\\ude00 b\", "
                           "\"correction\": \"c\", \"n\": [1, {\"x\": null}]}\r\n"
                           "\n{\"id\": -1.5e3, \"correction\": \"\", \"answer\": \"\\\"y\\\"\", "
                           "\"question\": \"q\", \"answer\": \"again\"}\n"
                           "{\"question\": \"last\", \"answer\": \"y\", \"correction\": \"z\"}";

static void damaged_files(void)
{
    Model m;
    small_model(&m, 8, 16);
    model_save(&m, path);
    Buf f = read_all(path, NULL);
    size_t header = f.n - m.n_params * 4;               // about; no tensor here needs much padding
    damage(&(Reader){ "GGUF", load_model, true }, &(Reader){ "GGUF", load_model, false }, path, header, 997);
    free(f.s);

    tokenizer_save(&m.tok, path);
    damage(&(Reader){ "tokenizer.bin", load_tokenizer_bin, true },
        &(Reader){ "tokenizer.bin", load_tokenizer_bin, true }, path, 6000, 7);

    put_file(path, ROWS, sizeof ROWS - 1);
    Reader rows = { "JSONL", read_rows, true };
    damage(&rows, &rows, path, 600, 1);
    Buf array = { 0 };                                  // the same rows as an array: it starts with [ and has commas
    buf_puts(&array, "[\n{\"question\": \"q\", \"answer\": \"a\", \"correction\": \"c\"},\n"
                     "  {\"question\": \"\\u00e9\\n\",\n \"answer\": \"a\", "
                     "\"correction\": \"c\", \"n\": {\"x\": [true, false]}}\n]\n");
    put_file(path, array.s, array.n);
    rows.what = "JSON array";
    damage(&rows, &rows, path, 600, 1);
    free(array.s);

    put_file(data, GOOD, sizeof GOOD - 1);
    // the first step makes the state file; in a child, since OpenMP survives no fork
    model_save(&m, path);
    OK(!dies(resume_path, path) && !*message, "the first step: %s", message);
    m.step = 1, model_save(&m, path);
    OK(!dies(resume_path, path) && !*message, "the undamaged run does not go on: %s", message);
    m.step = 2, model_save(&m, path), good_log = read_all(log_file, NULL);
    damage(&(Reader){ "state", resume_run, true }, &(Reader){ "state", resume_run, false }, state_file, 100, 4999);
    model_free(&m);
}

// One field of the good file changed: n bytes of v at `skip` bytes behind the end of the string `after` (NULL: of the
// file's start).
typedef struct { const char *what, *after; long skip; uint64_t v; int n; } Change;

static size_t behind(const Buf *f, const char *s)
{
    size_t n = strlen(s);
    for (size_t i = 8; i + n <= f->n; i++)
        if (!memcmp(f->s + i, s, n) && !memcmp(f->s + i - 8, &(uint64_t){ n }, 8)) return i + n;
    DIE("the test looks for %s, which is not in the file", s);
}

static void load_path(const void *p) { load_model(p); }

static void hostile_models(void)
{
    // A key is followed by { u32 type, value }, an array value is { u32 type, u64 n, ... }, a string { u64 n, bytes }.
    // The name of a tensor is followed by { u32 n_dims, u64 dims[], u32 type, u64 offset }.
    static const Change CHANGE[] = {
        { "another magic", NULL, 0, 'g', 1 }, { "version 2", NULL, 4, 2, 4 },
        { "version 3, big-endian", NULL, 4, 3u << 24, 4 },
        { "2^63 tensors", NULL, 8, 1ull << 63, 8 }, { "a tensor too many", NULL, 8, 13, 8 },
        { "no tensors", NULL, 8, 0, 8 },
        { "a tensor missing (the rest is a tied model)", NULL, 8, 11, 8 }, { "two tensors missing", NULL, 8, 10, 8 },
        { "2^63 keys", NULL, 16, 1ull << 63, 8 }, { "1025 keys", NULL, 16, 1025, 8 }, { "no keys", NULL, 16, 0, 8 },
        { "a key of 2^64 - 1 bytes", NULL, 24, UINT64_MAX, 8 }, { "a key longer than the file", NULL, 24, 1 << 20, 8 },
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
        { "a piece twice", "\xE2\x96\x81p260", -1, '1', 1 }, { "a piece with a zero byte", "\xE2\x96\x81p260", -2, 0, 1 },
        { "a piece that is a newline, twice", "<0x41>", -6, '\n', 1 }, { "another byte", "<0x41>", -2, '2', 1 },
        { "another architecture", "general.architecture", 12, 'm', 1 },
        { "another tokenizer", "tokenizer.ggml.model", 12, 'm', 1 },
        { "<s> is token 5", "tokenizer.ggml.bos_token_id", 4, 5, 4 },
        { "</s> is token 0", "tokenizer.ggml.eos_token_id", 4, 0, 4 },
        { "dim 0", "llama.embedding_length", 4, 0, 4 }, { "dim 9", "llama.embedding_length", 4, 9, 4 },
        { "dim 16", "llama.embedding_length", 4, 16, 4 },
        { "dim 2^31", "llama.embedding_length", 4, 1u << 31, 4 },
        { "dim 2^32 - 1", "llama.embedding_length", 4, UINT32_MAX, 4 },
        { "dim 16384", "llama.embedding_length", 4, 16384, 4 }, { "dim as u64", "llama.embedding_length", 0, 10, 4 },
        { "no layers", "llama.block_count", 4, 0, 4 }, { "two layers", "llama.block_count", 4, 2, 4 },
        { "2^31 layers", "llama.block_count", 4, 1u << 31, 4 },
        { "no heads", "llama.attention.head_count", 4, 0, 4 },
        { "3 heads for dim 8", "llama.attention.head_count", 4, 3, 4 },
        { "heads of size 1", "llama.attention.head_count", 4, 8, 4 },
        { "2^32 - 1 heads", "llama.attention.head_count", 4, UINT32_MAX, 4 },
        { "no key/value heads", "llama.attention.head_count_kv", 4, 0, 4 },
        { "more key/value heads than heads", "llama.attention.head_count_kv", 4, 4, 4 },
        { "one key/value head", "llama.attention.head_count_kv", 4, 1, 4 },
        { "hidden 0", "llama.feed_forward_length", 4, 0, 4 }, { "hidden 1", "llama.feed_forward_length", 4, 1, 4 },
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
        { "alignment 0", "general.alignment", 4, 0, 4 }, { "alignment 4", "general.alignment", 4, 4, 4 },
        { "alignment 2^17", "general.alignment", 4, 1 << 17, 4 },
        { "alignment 2^31", "general.alignment", 4, 1u << 31, 4 }, { "a key twice", "general.alignment", -17, 0, 0 },
        { "a prompt without its SFT counterpart", "aligner.prompt_sft", -1, 'x', 1 },
        { "a prompt with a zero byte", "aligner.prompt", 12, 0, 1 },
        { "5 dimensions", "blk.0.attn_q.weight", 0, 5, 4 }, { "0 dimensions", "blk.0.attn_q.weight", 0, 0, 4 },
        { "2^32 - 1 dimensions", "blk.0.attn_q.weight", 0, UINT32_MAX, 4 },
        { "a matrix for a norm", "blk.0.attn_norm.weight", 0, 2, 4 },
        { "2^32 + 8 columns", "blk.0.attn_q.weight", 4, (1ull << 32) + 8, 8 },
        { "2^61 rows (the product wraps)", "blk.0.attn_q.weight", 12, 1ull << 61, 8 },
        { "another shape", "blk.0.ffn_gate.weight", 4, 16, 8 }, { "tensor type 2", "blk.0.attn_q.weight", 20, 2, 4 },
        { "tensor type 2^32 - 1", "blk.0.attn_q.weight", 20, UINT32_MAX, 4 },
        { "Q8_0 in rows of 8", "blk.0.attn_q.weight", 20, GGML_Q8_0, 4 },
        { "F16, so that all offsets behind are wrong", "blk.0.attn_q.weight", 20, GGML_F16, 4 },
        { "offset + 32", "blk.0.attn_q.weight", 24, 300 * 8 * 4 + 64, 8 },
        { "offset 2^64 - 32", "blk.0.attn_q.weight", 24, UINT64_MAX - 31, 8 },
        { "offset 0 twice", "blk.0.attn_q.weight", 24, 0, 8 }, { "a tensor twice", "blk.0.attn_k.weight", -8, 'q', 1 },
        { "an unknown tensor", "blk.0.attn_k.weight", -8, 'z', 1 },
        { "an unknown tensor with a newline", "blk.0.attn_k.weight", -8, '\n', 1 } };
    Model m;
    small_model(&m, 8, 16);
    model_save(&m, path);
    Buf good = read_all(path, NULL), f = { 0 };
    for (size_t i = 0; i < sizeof CHANGE / sizeof *CHANGE; i++) {
        const Change *c = &CHANGE[i];
        f.n = 0, buf_add(&f, good.s, good.n);
        char *at = f.s + (c->after ? behind(&f, c->after) : 0) + c->skip;
        memcpy(at, c->n ? (const char *)&c->v : "llama.block_count", c->n ? (size_t)c->n : 17);    // u64 little-endian
        put_file(path, f.s, f.n);
        bool refused = dies(load_path, path);
        OK(refused, "%s: %s", c->what, *message ? message : "loaded, or crashed");
    }
    put_file(path, good.s, good.n);
    OK(!dies(load_path, path) && !*message, "the good file: %s", message);
    OK(dies(load_path, "build/no/such/file.gguf"), "a missing file: %s", message);
    free(good.s), free(f.s), model_free(&m);
}

// The same weights, written by hand in all four types: each value is one that its type holds exactly.
static void tensor_types(void)
{
    static const uint32_t TYPE[4] = { GGML_Q8_0, GGML_F16, GGML_BF16, GGML_F32 };
    Model m, back;
    uint64_t seed = 7, offset = 0;
    small_model(&m, 32, 64);
    model_save(&m, path);
    Buf good = read_all(path, NULL), head = { 0 }, body = { 0 };
    buf_add(&head, good.s, behind(&good, "token_embd.weight") - 17 - 8);
    for (size_t i = 0; i < m.n_tensors; i++) {
        const Tensor *t = &m.tensor[i];
        uint32_t type = TYPE[i % 4];
        float *w = m.params + t->at, scale = 0;
        put_text(&head, text(t->name)), put_u32(&head, t->rows == 1 ? 1 : 2), put_u64(&head, (uint64_t)t->cols);
        if (t->rows > 1) put_u64(&head, (uint64_t)t->rows);
        put_u32(&head, type), put_u64(&head, offset);
        for (int j = 0; j < t->rows * t->cols; j++) {
            int whole = (int)(random_u64(&seed) % 255) - 127;
            uint32_t bits;
            if (type == GGML_Q8_0 && j % 32 == 0) {     // a block: its scale as f16, then 32 whole numbers
                uint16_t h = (uint16_t)(random_u64(&seed) % 0x7C00);
                scale = f16_to_f32(h), buf_add(&body, &h, 2);
            }
            w[j] = type == GGML_Q8_0 ? scale * (float)whole : (float)whole * 0x1p-6f;
            memcpy(&bits, &w[j], 4);
            uint32_t exponent = w[j] != 0 ? (bits >> 23 & 255) - 112 : 0;
            uint16_t half = (uint16_t)((bits >> 16 & 0x8000) | exponent << 10 | (bits >> 13 & 1023));
            if (type == GGML_Q8_0) buf_add(&body, &(int8_t){ (int8_t)whole }, 1);
            else if (type == GGML_F32) buf_add(&body, &bits, 4);
            else buf_add(&body, &(uint16_t){ type == GGML_F16 ? half : (uint16_t)(bits >> 16) }, 2);
        }
        while (body.n % 32) buf_add(&body, "", 1);
        offset = body.n;
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
    int wrong = 0;
    for (int h = 0; h < 65536; h++) {                   // every f16 there is, from its definition
        int e = h >> 10 & 31, f = h & 1023;
        float want = ldexpf((float)(e ? f + 1024 : f), (e ? e : 1) - 25), got = f16_to_f32((uint16_t)h);
        if (e == 31) want = f ? NAN : INFINITY;
        if (h >> 15) want = -want;
        wrong += isnan(want) ? !isnan(got) : got != want || signbit(got) != signbit(want);
    }
    OK(!wrong, "%d of 65536 f16 numbers are read wrong", wrong);
    free(good.s), free(head.s), free(body.s), model_free(&m), model_free(&back);
}

static bool same_after_save(const Model *m)
{
    Model back;
    model_save(m, path);
    Buf first = read_all(path, NULL);
    model_load(&back, path), model_save(&back, path);
    Buf second = read_all(path, NULL);
    bool ok = same((Text){ first.s, first.n }, (Text){ second.s, second.n });
    free(first.s), free(second.s), model_free(&back);
    return ok;
}

static void saved_and_loaded(void)
{
    Model m;
    small_model(&m, 8, 16);
    OK(same_after_save(&m), "saved, loaded and saved again, the file has other bytes");
    tokenizer_free(&m.tok), small_vocabulary(&m.tok, 300);
    for (int b = 0; b < 3; b++) {                       // pieces that GGUF writes in another way
        static const char *const PIECE[] = { " ", "  a b ", "\xC3\xA9" };
        free((char *)m.tok.piece[297 + b].s), set_piece(&m.tok, 297 + b, text(PIECE[b]), -1);
    }
    tokenizer_index(&m.tok, "the test's vocabulary");
    m.step = 12345;
    OK(same_after_save(&m), "with spaces inside pieces the file has other bytes");
    model_free(&m);

    // U+2581 is what GGUF writes for a space. A vocabulary learnt from a text with it must still make a file that
    // loads.
    random_model(&m, (Config){ .V = 264, .C = 8, .L = 1, .H = 2, .H_kv = 1, .F = 16, .context = 8, .tied = true,
        .eps = 1e-5f, .theta = 1e4f }, 1);
    tokenizer_train(&m.tok, text("\xE2\x96\x81 aa \xE2\x96\x81 aaa \xE2\x96\x81 aaaaaaaa"), 264);
    model_save(&m, path);
    OK(!dies(load_path, path) && !*message, "a vocabulary learnt from U+2581 cannot be loaded again: %s", message);
    model_free(&m);
}

static void stories(const char *file)
{
    static const char WANT[] = "Once upon a time, there was a little girl named Lily.";
    Model m;
    Generator g;
    Ids prompt = { 0 }, out = { 0 };
    Decoding how = GREEDY;
    if (access(file, R_OK)) { printf("skipped: no %s\n", file); return; }
    how.max_tokens = 60;
    model_load(&m, file);
    generator_init(&g, &m, how);
    ids_add(&prompt, BOS);
    generate(&g, &prompt, NULL, 0, &out);
    Buf all = decode_all(&m.tok, out.a, out.n);
    OK(!strncmp(all.s, WANT, strlen(WANT)), "stories260K begins: %s", all.s);
    free(all.s), free(prompt.a), free(out.a), generator_free(&g), model_free(&m);
}

int main(void)
{
    int id = (int)getpid();
    snprintf(path, sizeof path, "build/files-test-%d.gguf", id),
        snprintf(state_file, sizeof state_file, "%s.state", path);
    snprintf(data, sizeof data, "%s.jsonl", path), snprintf(log_file, sizeof log_file, "%s.csv", path);
    saved_and_loaded();
    tensor_types();
    hostile_models();
    damaged_files();
    stories("../shared/models/stories260K.gguf");
    remove(path), remove(state_file), remove(data), remove(log_file);
    return done("files");
}
