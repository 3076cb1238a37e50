/* page.c: what script.js calls. aligner.c is included as it is and reads its models from memory.
   WASI has neither signals nor, here, files: both get stand-ins before aligner.c names them. */
#include <signal.h>
#include <stdio.h>
struct sigaction { void (*sa_handler)(int); int sa_flags; };
#define SA_RESTART 0
#define sigaction(number, action, old) ((void)(number), (void)(action), (void)(old))
static struct { char *bytes; size_t n; } file;                  // the one file there is to open
#define fopen(path, mode) fmemopen(file.bytes, file.n, "rb")
#include "../../aligner.c"
#define EXPORT(name) __attribute__((export_name(#name))) name

static Model mu, pi;                    // the Aligner and the upstream model
static Buf y;                           // the last text, y_o or y_c
static Row y_o;                         // <s> condition | draft </s>: the warm-up's row
static Ids written;                     // what generate() wrote, before --keep was asked
static struct {                         // all of 32 bits, as script.js reads it
    const void *text, *reason, *y_o, *written;
    int n_text, n_condition, n_y_o, n_written, passes, copied;
} result;

const Config *EXPORT(page_config)(void) { return &mu.c; }

void EXPORT(page_load)(bool upstream, char *bytes, int n)
{
    file.bytes = bytes, file.n = (size_t)n;
    model_load(upstream ? &pi : &mu, upstream ? "the upstream model" : "the Aligner");
}

const Buf *EXPORT(page_piece)(int id)   // the bytes of one token
{
    y.n = 0;
    decode(&mu.tok, id, &y);
    return &y;
}

// y_o ~ pi(. | x), greedily: the right-hand factor of Eq. (2).
const void *EXPORT(page_answer)(const char *x, int n)
{
    bool ended = answer_to(&pi, (Text){ x, (size_t)n }, &y);
    result.reason = ended ? NULL : "the upstream model found no end to its answer";
    result.text = y.s, result.n_text = (int)y.n;
    return &result;
}

// One pass over y_c's row and y_o's, as in training: every layer's queries and keys stay, and the
// logits of all targets.
static void look(void)
{
    Batch b;
    Ids ids = { 0 };
    for (int t = 0; t < y_o.n_condition; t++) ids_add(&ids, y_o.ids[t]);
    for (int t = 0; t < written.n; t++) ids_add(&ids, written.a[t]);
    batch_alloc(&b, ids.n + y_o.n, 2, ids.n + y_o.n);
    batch_add(&b, &(Row){ ids.a, y_o.n_condition, ids.n });
    batch_add(&b, &(Row){ y_o.ids, y_o.n_condition, least(y_o.n, mu.c.context + 1) });
    acts_reserve(&mu, b.T, b.n_out, mu.c.context, true);
    forward(&mu, &b, NULL);
    batch_free(&b), free(ids.a);
}

// y_c ~ mu(. | y_o, x), the left-hand factor of Eq. (2); then once more without --keep, to show.
const void *EXPORT(page_correct)(const char *x, int n_x, const char *answer, int n, double keep)
{
    Generator g;
    Triple t = { .x = { x, (size_t)n_x }, .y_o = { answer, (size_t)n } };
    generator_init(&g, &mu, (Decoding){ .top_p = 1, .keep = keep });
    result.reason = correct_with(&g, t.x, t.y_o, &y);
    result.text = y.s, result.n_text = (int)y.n;
    free(y_o.ids), y_o = warmup(&mu, t), written.n = 0, g.passes = g.copied = 0;
    Ids condition = { y_o.ids, y_o.n_condition, 0 };
    int *draft = y_o.ids + condition.n, n_draft = y_o.n - condition.n - 1;
    if (condition.n < mu.c.context) {
        if (generate(&g, &condition, draft, n_draft, &written)) ids_add(&written, EOS);
        look();
    }
    result.y_o = y_o.ids, result.n_y_o = y_o.n, result.n_condition = condition.n;
    result.written = written.a, result.n_written = written.n;
    result.passes = (int)g.passes, result.copied = (int)g.copied;
    generator_free(&g);
    return &result;
}

// The logits of target o: those of y_c's row, then those of y_o's.
const float *EXPORT(page_logits)(int o) { return mu.acts.logits + (size_t)o * logits_ld(&mu.c); }

// How much head h of layer l looks at positions 0..t from position t: softmax(q . k / sqrt(hs)).
const float *EXPORT(page_attention)(int l, int h, int t)
{
    static float p[1 << 12], max, inverse;
    const float *qkv = layer_acts(&mu, l).qkv;
    int hs = head_size(&mu.c), Q = qkv_dim(&mu.c), k = mu.c.H + h / (mu.c.H / mu.c.H_kv);
    for (int j = 0; j <= t; j++)
        p[j] = dot(qkv + t * Q + h * hs, qkv + j * Q + k * hs, hs) / sqrtf((float)hs);
    softmax(p, t + 1, &max, &inverse);
    return p;
}
