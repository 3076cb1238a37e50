/* page.c: what script.js calls. aligner.c is included as it is. A page has no signals and no files,
   so both get stand-ins before aligner.c is included, and models are read from memory. */
#include <signal.h>
#include <stdio.h>
struct sigaction { void (*sa_handler)(int); int sa_flags; };
#define SA_RESTART 0
#define sigaction(number, action, old) ((void)(number), (void)(action), (void)(old))
static struct { char *bytes; size_t n; } file;                  // the one file there is to open
#define fopen(path, mode) fmemopen(file.bytes, file.n, "rb")
#include "../../aligner.c"
#define EXPORT(name) __attribute__((export_name(#name))) name

static Model m, upstream;
static Generator mu, pi;                // the Aligner and the upstream model, ready to write
static Buf y;                           // the last text, y_o or y_c
static Row y_o;                         // <s> condition | draft </s>: the warm-up's row
static Ids written;                     // what generate() wrote, before --keep was asked
static struct {                         // all of 32 bits, as script.js reads it
    const void *text, *reason, *y_o, *written;
    int n_text, n_condition, n_y_o, n_written, passes, copied;
} result;

const Config *EXPORT(page_config)(void) { return &m.c; }
double EXPORT(page_keep)(void) { return m.keep; }

void EXPORT(page_load)(bool other, char *bytes, int n) {
    file.bytes = bytes, file.n = (size_t)n;
    model_load(other ? &upstream : &m, other ? "the upstream model" : "the Aligner");
    generator_init(other ? &pi : &mu, other ? &upstream : &m, (Decoding){ .top_p = 1 });
}

// The bytes of one token.
const Buf *EXPORT(page_piece)(int id) {
    y.n = 0;
    if (id >= FIRST_PIECE) buf_add(&y, m.tokenizer->piece[id].s, m.tokenizer->piece[id].n);
    else if (id >= BYTE0) buf_add(&y, &(char){ (char)(id - BYTE0) }, 1);
    return &y;
}

// y_o ~ pi(. | x), greedily: the right factor of Eq. (2).
const void *EXPORT(page_answer)(const char *x, int n) {
    result.reason = answer(&pi, (Text){ x, (size_t)n }, &y);
    result.text = y.s, result.n_text = (int)y.n;
    return &result;
}

// One pass over y_c's row and y_o's, as in training: it keeps every layer's queries and keys, and
// the logits of all targets.
static void look(void) {
    Batch b;
    Ids ids = { 0 };
    for (int t = 0; t < y_o.n_condition; t++) ids_add(&ids, y_o.ids[t]);
    for (int t = 0; t < written.n; t++) ids_add(&ids, written.a[t]);
    batch_alloc(&b, ids.n + y_o.n, 2);
    batch_add(&b, &(Row){ ids.a, y_o.n_condition, ids.n });
    batch_add(&b, &(Row){ y_o.ids, y_o.n_condition, least(y_o.n, m.c.context + 1) });
    acts_reserve(&m, b.T, b.n_out, m.c.context, true);
    forward(&m, &b, NULL);
    batch_free(&b);
    free(ids.a);
}

// y_c ~ mu(. | y_o, x); then once more without --keep, for display: the draft as correct() shows it.
const void *EXPORT(page_correct)(const char *x, int n_x, const char *answer, int n, double keep) {
    Triple t = { .x = { x, (size_t)n_x }, .y_o = { answer, (size_t)n } };
    mu.how.keep = keep;
    result.reason = correct(&mu, t.x, t.y_o, &y);
    result.text = y.s, result.n_text = (int)y.n;
    while (t.y_o.n && strchr(BLANKS, answer[t.y_o.n - 1])) t.y_o.n--;
    free(y_o.ids);
    y_o = warmup(&m, t);
    written.n = 0, mu.passes = mu.copied = 0;
    Ids condition = { y_o.ids, y_o.n_condition, 0 };
    int *draft = y_o.ids + condition.n, n_draft = y_o.n - condition.n - 1;
    if (condition.n < m.c.context) {
        if (generate(&mu, &condition, draft, n_draft, &written)) ids_add(&written, EOS);
        look();
    }
    result.y_o = y_o.ids, result.n_y_o = y_o.n, result.n_condition = condition.n;
    result.written = written.a, result.n_written = written.n;
    result.passes = (int)mu.passes, result.copied = (int)mu.copied;
    return &result;
}

// The logits of target o: those of y_c's row, then those of y_o's.
const float *EXPORT(page_logits)(int o) { return m.acts.logits + o * m.c.V; }

// How much head h of layer l looks at each of positions 0..t from t: softmax(q . k / sqrt(hs)).
const float *EXPORT(page_attention)(int l, int h, int t) {
    static float p[1 << 12];
    const float *qkv = m.acts.layer[l].qkv;
    int hs = head_size(&m.c), Q = qkv_width(&m.c), k = m.c.H + h / (m.c.H / m.c.H_kv);
    for (int j = 0; j <= t; j++)
        p[j] = dot(qkv + t * Q + h * hs, qkv + j * Q + k * hs, hs) / sqrtf((float)hs);
    softmax(p, t + 1, NULL);
    return p;
}
