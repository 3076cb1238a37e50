/* aligner.c: train and run an Aligner in one C file.

   An Aligner is a small language model that edits the answers of another one. It reads a question x
   and an answer y_o from any upstream model, and writes y_c: the same answer if it was good, a
   corrected one if it was not. It is trained once and stacked on any upstream model.

   Paper: Ji et al., "Aligner: Efficient Alignment by Learning to Correct", arXiv 2402.02416,
   NeurIPS 2024. Equation and page numbers are those of the PDF of January 2025.

       objective   condition   target   loss (mean over a batch's target tokens)
       sft         x           y_o      - log pi_theta(y_o | x)       Eq. (1)
       warmup      x, y_o      y_o      - log mu_phi(y_o | y_o, x)    p. 3: first learn to copy
       aligner     x, y_o      y_c      - log mu_phi(y_c | y_o, x)    Eq. (4): then copy or correct

   PART I is the whole method and reads from top to bottom in one sitting. PART II is the machine
   room: the same functions made fast, and files made safe. Nothing there is needed to understand
   PART I; what PART I uses from it is announced by a prototype and a sentence.

       PART I    1 the paper      three objectives, Eqs. (1)-(4), the composed policy
                 2 rows           where the condition ends and the loss begins
                 3 the model      forward, loss, backward
                 4 learning       AdamW, the schedule, the loop
                 5 correcting     the sampler, a draft that is verified, correct()
       PART II   6 tools          7 kernels      8 tokenizer      9 model files
                 10 data files    11 training, continued          12 command line

   Notation. x, y_o, y_c, pi_theta (the upstream model) and mu_phi (the Aligner) are the paper's.
   T tokens, C dim, L layers, H heads, hs head size, F hidden size, V vocabulary. A[T][C] is
   row-major. dX is the gradient of the loss with respect to X.

   Policies. Numbers: f32, each sum in one fixed order, so the same seed gives the same bits on any
   number of threads. Threads: OpenMP where present; loops write disjoint outputs. Files are
   hostile: every length is checked before it is used. Errors: one message that says what was
   expected, what was found and what to do, and exit 1; bad usage exits with 2. */

#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <fcntl.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#ifdef _OPENMP
#include <omp.h>
#endif

/* ================================================================================================
   PART I: THE LECTURE
   ================================================================================================
   Chapter 1. The paper.  Everything the paper adds to an ordinary language model is in here. */

typedef struct { const char *s; size_t n; } Text;       // borrows its bytes
typedef struct { char *s; size_t n, cap; } Buf;         // owns bytes that grow; a NUL follows them
typedef struct { int *a, n; size_t cap; } Ids;          // owns token ids that grow
typedef struct Model Model;                             // a transformer: chapter 3
typedef struct Generator Generator;                     // a model that is ready to write: chapter 5

// One element of the paper's data M: question, original answer, corrected answer.
typedef struct { Text x, y_o, y_c; } Triple;

// <s> condition target </s> as token ids. The loss is on ids[n_condition .. n).
typedef struct { int *ids, n_condition, n; } Row;

#define NONE ((Text){ NULL, 0 })                        // "the prompt has no y_o"

static Buf prompt(const Model *m, Text x, Text y_o);                // fills the prompt template
static Row make_row(const Model *m, Buf condition, Text target);    // takes the condition over

// The three objectives. SFT becomes Aligner when one line changes (`make diff` shows it): y_o moves
// into the condition, and the correction becomes the target. The warm-up is halfway: the Aligner's
// condition, SFT's target.

static Row sft(const Model *m, Triple t) {
    return make_row(m, prompt(m, t.x, NONE ), t.y_o);   // Eq. (1), p. 3:   - log pi(y_o | x)
}

static Row warmup(const Model *m, Triple t) {
    return make_row(m, prompt(m, t.x, t.y_o), t.y_o);   // p. 3, identity: - log mu(y_o | y_o, x)
}

static Row aligner(const Model *m, Triple t) {
    return make_row(m, prompt(m, t.x, t.y_o), t.y_c);   // Eq. (4), p. 3:   - log mu(y_c | y_o, x)
}

typedef Row (*Objective)(const Model *, Triple);

// That is all. The loss function stays the same for all three: next-token cross-entropy, averaged
// over the target tokens (chapter 3). The condition carries no loss.
//
// Why is Eq. (4) enough? Upstream model and Aligner together are one policy, Eq. (2), p. 3. The sum
// is over all answers y_k that the upstream model could give:
//
//     pi'(y_c | x) = sum_k mu_phi(y_c | y_k, x) pi_theta(y_k | x)
//                 >= mu_phi(y_c | y_o, x) pi_theta(y_o | x)
//
// The inequality drops every term but y_k = y_o; no term is negative, so no Jensen is needed. Take
// minus the logarithm and average over M. This is Eq. (3):
//
//     - E log pi'(y_c | x)  <=  - E log mu_phi(y_c | y_o, x)  -  E log pi_theta(y_o | x)
//
// The last term does not depend on phi. Minimising the rest is Eq. (4), and it lowers an upper
// bound of the SFT loss of the composed policy. pi_theta is never trained, and its weights are
// never read: only its text comes in. (tests/lab.c computes both sides of Eq. (3) and the gap.)

static const char *answer(Generator *pi, Text x, Buf *y_o);                 // y_o ~ pi_theta(. | x)
static const char *correct(Generator *mu, Text x, Text y_o, Buf *y_c);      // y_c ~ mu(. | y_o, x)
static Text contents(const Buf *b);                                         // a Buf's bytes
static void buf_set(Buf *b, Text t);                                        // b becomes a copy of t

// One draw from the composed policy pi'(. | x) of Eq. (2): the upstream model answers, the Aligner
// copies or corrects. Only text passes between them, so each may have its own tokenizer. Returns
// NULL on success, otherwise the reason y_c is y_o unchanged.
static const char *composed_policy(Generator *pi, Generator *mu, Text x, Buf *y_o, Buf *y_c) {
    const char *reason = answer(pi, x, y_o);
    if (!reason) return correct(mu, x, contents(y_o), y_c);
    buf_set(y_c, contents(y_o));
    return reason;
}

/* ================================================================================================
   Chapter 2. Rows.  From a triple to numbers. A row of `train aligner --prompt short`, with one
   token a word to keep it short; the bar is where the condition ends and the loss begins:

       <s> ##Question: Two and two? ##Answer: It is five. ##Correction: | It is four. </s>

   The model learns to write </s> as well: it is how an answer ends. */

typedef struct Tokenizer Tokenizer;                                         // chapter 8
enum { UNK = 0, BOS = 1, EOS = 2 };                                         // <unk>, <s>, </s>

static void encode(const Tokenizer *k, Text t, Ids *out);                   // appends t's token ids
static Buf decode_all(const Tokenizer *k, const int *ids, int n);           // the text of n ids
static void ids_add(Ids *v, int id);                                        // appends one id
static void buf_add(Buf *b, const void *s, size_t n);                       // appends n bytes
static const Tokenizer *tokenizer_of(const Model *m);
static const char *template_of(const Model *m, bool with_answer);

// The condition as text, owned by the caller. The template is walked once and what is filled in is
// never searched for placeholders, so a question that says "{answer}" stays a question. Templates
// (chapter 9) travel inside the model's file, and none ends in a space: the target brings its own,
// and " It" after "##Correction:" is the same token as " It" after "##Answer:".
static Buf prompt(const Model *m, Text x, Text y_o) {
    Buf out = { 0 };
    buf_set(&out, (Text){ "", 0 });
    for (const char *p = template_of(m, y_o.s); *p; ) {
        if (!strncmp(p, "{question}", 10)) {
            buf_add(&out, x.s, x.n);
            p += 10;
        } else if (!strncmp(p, "{answer}", 8)) {
            buf_add(&out, y_o.s, y_o.n);
            p += 8;
        } else {
            buf_add(&out, p++, 1);
        }
    }
    return out;
}

// <s> condition target </s>. Condition and target are tokenized separately and joined as ids, never
// as text. No token can span the border where the loss begins, and generation meets exactly the
// prompt tokens that training used.
static Row make_row(const Model *m, Buf condition, Text target) {
    Ids ids = { 0 };
    ids_add(&ids, BOS);
    encode(tokenizer_of(m), contents(&condition), &ids);
    int n_condition = ids.n;
    encode(tokenizer_of(m), target, &ids);
    ids_add(&ids, EOS);
    free(condition.s);
    return (Row){ ids.a, n_condition, ids.n };
}

// What is computed at once: whole rows, packed end to end. Nothing is padded. Attention stays
// inside a row, and positions begin at 0 in each. Two rows of 4 and 5 tokens; logits are wanted
// at the last position of the first and the last two of the second:
//
//     ids      a0 a1 a2 b0 b1 b2 b3          start   0  3  7
//     pos      0  1  2  0  1  2  3           out     2  5  6
typedef struct {
    int T, n, n_out;                    // tokens, rows, positions whose logits are wanted
    int *ids, *pos;                     // [T] the token; its position inside its row
    int *start;                         // [n + 1] where each row begins
    int *out, *target;                  // [n_out] a place in 0..T-1; the token to predict there
} Batch;

// Adds one row. The token at t predicts the token at t + 1, so the last token is predicted only,
// and the first logits wanted are those of the condition's last token. This is the paper's mask
// (the -100 labels of the official code): the condition is read but carries no loss.
//
//     ids      <s> prompt with x, y_o  |  y_1  y_2  ...  y_n   </s>
//     target                  y_1         y_2  y_3  ...  </s>     under the token that predicts it
static void batch_add(Batch *b, const Row *r) {
    for (int t = 0; t < r->n - 1; t++) {
        if (t >= r->n_condition - 1) {
            b->out[b->n_out] = b->T;
            b->target[b->n_out++] = r->ids[t + 1];
        }
        b->ids[b->T] = r->ids[t];
        b->pos[b->T++] = t;
    }
    b->start[++b->n] = b->T;
}

static void batch_clear(Batch *b) { b->T = b->n = b->n_out = 0; }

/* ================================================================================================
   Chapter 3. The model.  Llama's transformer: RMSNorm, rotary embeddings, SwiGLU, no biases. One
   forward serves training, evaluation and generation, so the path that the gradient check proves is
   the path that generates.

       x_0     = E[ids]                                             one row of E for each token
       mid_l   = x_l   + attention(rope(rmsnorm(x_l) Wqkv^T)) Wo^T  tokens look at earlier tokens
       x_{l+1} = mid_l + swiglu(rmsnorm(mid_l) Wgate_up^T) Wdown^T  each token thinks by itself
       logits  = rmsnorm(x_L) Whead^T                               where a next token is wanted

   x is the residual stream: a layer only adds to it. */

typedef struct {
    int V, C, L, H, H_kv, F, context;   // H_kv: key/value heads; context: the longest row
    bool tied;                          // is the head the embedding matrix?
    float eps, theta;                   // RMSNorm's epsilon; the base of the rotary angles
} Config;

static int head_size(const Config *c) { return c->C / c->H; }
static int kv_width(const Config *c) { return head_size(c) * c->H_kv; }
static int qkv_width(const Config *c) { return c->C + 2 * kv_width(c); }

// Every matrix is W[outputs][inputs], as checkpoints store it. The total is V C (once if tied, else
// twice) + L C (2 C + 2 kv + 3 F + 2) + C weights.
typedef struct { float *attn_norm, *qkv, *o, *ffn_norm, *gate_up, *down; } LayerWeights;
typedef struct {
    float *embd, *norm, *head;          // [V][C], [C], [V][C]
    LayerWeights *layer;                // [C], [C + 2 kv][C], [C][C], [C], [2 F][C], [C][F]
} Weights;

// What one layer computes and its backward pass needs. Generation needs one layer's at a time, and
// its layers share one place.
typedef struct {
    float *x, *norm1, *r1;              // [T][C], [T][C], [T]     r is 1 / rms
    float *qkv, *att, *stats;           // [T][C + 2 kv], [T][C], [T][H][2] max and 1/sum of softmax
    float *mid, *norm2, *r2;            // [T][C], [T][C], [T]
    float *gate_up, *act, *next;        // [T][2 F], [T][F], [T][C]
} LayerActs;

typedef struct {
    int T, n_out;                       // room: tokens, logits
    bool training;
    LayerActs *layer;                   // [L]
    float *picked, *last_norm, *r;      // [n_out][C], [n_out][C], [n_out]
    float *logits;                      // [n_out][V]
    double *nll;                        // [n_out] - log p(target)
    float *dx, *dwide, *dnarrow;        // gradients: [T][C], [T][max(F, C + 2 kv)], [T][C]
    float *memory;                      // all of the above
} Acts;

typedef struct { char name[40]; int rows, cols; size_t at; } Tensor;    // a matrix in params

struct Model {
    Config c;
    Tokenizer *tokenizer;
    char *template, *template_sft;      // the prompt with and without {answer}
    char objective[16];                 // what it was trained for; empty if unknown
    long step;                          // optimiser steps that made these weights
    double keep;                        // how sure a correction must be: see outweighs()
    Weights w, g, packed;               // weights; gradients; weights in the matmul's own order
    bool is_packed;                     // is `packed` up to date?
    Tensor *tensor;                     // [n_tensors] the one table for files and optimiser
    size_t n_tensors, n_params;
    float *params, *grads, *panels;     // the memory of w, g and packed
    float *angle;                       // [n_angles][hs / 2][2] cosines and sines for rope
    int n_angles;
    const float *steer;                 // [L][C] added to the stream after each layer, or NULL
    Acts acts;
};

static const Tokenizer *tokenizer_of(const Model *m) { return m->tokenizer; }

// Keys and values of the positions read so far. They depend only on a token and on what came before
// it, so generation keeps them: a new token costs one row of work instead of the whole text again.
typedef struct { float *keys, *values; int len, capacity; } Cache;

// The cast, from PART II. Each kernel writes or adds to its first arguments.

// y[T][C] = x / rms(x) * w. Keeps r[T] = 1 / rms for the way back.
static void rmsnorm(float *y, float *r, const float *x, const float *w, int T, int C, float eps);
static void rmsnorm_backward(float *dx, float *dw, const float *dy, const float *x, const float *r,
                             const float *w, int T, int C);

// Y[T][N] = X[T][K] W[N][K]^T; add: Y += ... Nearly all of the time is spent here. packed: W is in
// the order in which the matmul reads it.
static void linear(float *Y, const float *X, const float *W, bool packed, int T, int N, int K,
                   bool add);
static void linear_backward(float *dX, float *dW, const float *dY, const float *X, const float *W,
                            int T, int N, int K);

// Turns each pair (2i, 2i+1) of queries and keys by the angle pos * theta^(-2i/hs), so that q . k
// depends on how far apart two tokens are. sign -1 turns back, which is its backward pass.
static void rope(float *qkv, const int *pos, const float *angle, int T, const Config *c,
                 float sign);

// out[T][C] from qkv: each token mixes the values of the tokens before it in its own row, weighted
// by softmax(q . k / sqrt(hs)). To copy y_o, an Aligner needs a head that finds where in y_o the
// text so far was last seen, and takes the token after it. With a cache, the tokens continue the
// text that is in it.
static void attention(float *out, float *stats, const float *qkv, const Config *c, const Batch *b,
                      Cache *cache, int layer);
static void attention_backward(float *dqkv, const float *dout, const float *out, const float *stats,
                               const float *qkv, const Config *c, const Batch *b);

// y[T][F] = silu(gate) * up, with silu(g) = g / (1 + e^-g); gate_up holds both side by side. On the
// way back their gradients replace them.
static void swiglu(float *y, const float *gate_up, int T, int F);
static void swiglu_backward(float *gate_up, const float *dy, int T, int F);

// z[V] becomes (softmax(z) - onehot(target)) * scale. Returns - log softmax(z)[target].
static double softmax_nll(float *z, int V, int target, float scale);

// Rows to[i] = from[at[i]], and the way back in place: row i of x moves to row at[i], others are 0.
static void gather_rows(float *to, const float *from, const int *at, int n, int C);
static void scatter_rows(float *x, const int *at, int n, int T, int C);
static void copy_floats(float *to, const float *from, size_t n);

// Logits at the places b->out, in m->acts.logits. With a cache, b is one row that continues what
// the cache holds. The caller has reserved room with acts_reserve().
static void forward(Model *m, const Batch *b, Cache *cache) {
    const Config *c = &m->c;
    const bool packed = cache != NULL;
    const Weights *w = packed ? &m->packed : &m->w;
    Acts *a = &m->acts;
    int T = b->T, C = c->C, F = c->F;

    gather_rows(a->layer[0].x, m->w.embd, b->ids, T, C);                    // x_0 = E[ids]
    for (int l = 0; l < c->L; l++) {
        const LayerWeights *y = &w->layer[l];
        const LayerActs *s = &a->layer[l];

        // Attention: a query asks, the keys of earlier tokens reply, their values are mixed.
        rmsnorm(s->norm1, s->r1, s->x, y->attn_norm, T, C, c->eps);
        linear(s->qkv, s->norm1, y->qkv, packed, T, qkv_width(c), C, false);
        rope(s->qkv, b->pos, m->angle, T, c, +1);
        attention(s->att, s->stats, s->qkv, c, b, cache, l);

        // After the last attention no token looks at another. Positions without a logit are dropped
        // here: for an Aligner, all of its condition but the last token.
        const float *att = s->att;
        if (l < c->L - 1) {
            copy_floats(s->mid, s->x, (size_t)T * C);
        } else {
            T = b->n_out;
            gather_rows(s->mid, s->x, b->out, T, C);
            gather_rows(a->picked, s->att, b->out, T, C);
            att = a->picked;
        }
        linear(s->mid, att, y->o, packed, T, C, C, true);                   // mid = x + att Wo^T

        // Feed-forward: up computes F features, the gate decides how much of each passes.
        rmsnorm(s->norm2, s->r2, s->mid, y->ffn_norm, T, C, c->eps);
        linear(s->gate_up, s->norm2, y->gate_up, packed, T, 2 * F, C, false);
        swiglu(s->act, s->gate_up, T, F);
        copy_floats(s->next, s->mid, (size_t)T * C);
        linear(s->next, s->act, y->down, packed, T, C, F, true);            // next = mid + act Wd^T
        for (int i = 0; m->steer && i < T * C; i++)
            s->next[i] += m->steer[l * C + i % C];                          // appendix B.6
    }
    rmsnorm(a->last_norm, a->r, a->layer[c->L - 1].next, w->norm, T, C, c->eps);
    linear(a->logits, a->last_norm, w->head, packed, T, c->V, C, false);    // logits = ... Whead^T
    if (cache) cache->len += b->T;
}

// The loss of all three objectives: the mean of - log p(target) over n_total target tokens, which
// may be more than b has. Returns b's share of the mean, and turns the logits into its gradient
// (p - onehot(target)) / n_total: descending it raises the target's logit and lowers every other in
// proportion to its probability. A model that finds all V tokens equally likely has the loss ln V.
static double cross_entropy(Model *m, const Batch *b, int n_total) {
    Acts *a = &m->acts;
    const size_t V = (size_t)m->c.V;
    double sum = 0;
    #pragma omp parallel for schedule(static)
    for (int i = 0; i < b->n_out; i++)
        a->nll[i] = softmax_nll(a->logits + i * V, m->c.V, b->target[i], 1.0f / (float)n_total);
    for (int i = 0; i < b->n_out; i++) sum += a->nll[i];
    return sum / n_total;
}

// Adds the gradients of the loss to m->grads, after forward() and cross_entropy(). It is forward()
// read upward; each part quotes the line it differentiates. For Y = X W^T the chain rule says
//
//     dX = dY W       dW += dY^T X             (the shapes allow nothing else)
//
// dx is the gradient of the residual stream. As a layer only adds to the stream, dx passes through
// it unchanged, and rmsnorm_backward() adds the share that went through the layer.
static void backward(Model *m, const Batch *b) {
    const Config *c = &m->c;
    const Weights *w = &m->w, *g = &m->g;
    Acts *a = &m->acts;
    float *dx = a->dx, *dnarrow = a->dnarrow, *dwide = a->dwide;
    int T = b->n_out, C = c->C, F = c->F, last = c->L - 1;

    // logits = rmsnorm(x) Whead^T, at the positions with a target
    linear_backward(dnarrow, g->head, a->logits, a->last_norm, w->head, T, c->V, C);
    memset(dx, 0, (size_t)T * C * sizeof *dx);
    rmsnorm_backward(dx, g->norm, dnarrow, a->layer[last].next, a->r, w->norm, T, C);

    for (int l = last; l >= 0; l--) {
        const LayerWeights *y = &w->layer[l], *dy = &g->layer[l];
        const LayerActs *s = &a->layer[l];

        // next = mid + act Wdown^T, act = swiglu(norm2 Wgate_up^T), norm2 = rmsnorm(mid)
        linear_backward(dwide, dy->down, dx, s->act, y->down, T, C, F);
        swiglu_backward(s->gate_up, dwide, T, F);
        linear_backward(dnarrow, dy->gate_up, s->gate_up, s->norm2, y->gate_up, T, 2 * F, C);
        rmsnorm_backward(dx, dy->ffn_norm, dnarrow, s->mid, s->r2, y->ffn_norm, T, C);

        // mid = x + att Wo^T
        linear_backward(dnarrow, dy->o, dx, l == last ? a->picked : s->att, y->o, T, C, C);
        if (l == last) {                                // back to all positions
            T = b->T;
            scatter_rows(dx, b->out, b->n_out, T, C);
            scatter_rows(dnarrow, b->out, b->n_out, T, C);
        }

        // att = attention(rope(norm1 Wqkv^T)), norm1 = rmsnorm(x)
        attention_backward(dwide, dnarrow, s->att, s->stats, s->qkv, c, b);
        rope(dwide, b->pos, m->angle, T, c, -1);
        linear_backward(dnarrow, dy->qkv, dwide, s->norm1, y->qkv, T, qkv_width(c), C);
        rmsnorm_backward(dx, dy->attn_norm, dnarrow, s->x, s->r1, y->attn_norm, T, C);
    }

    // x_0 = E[ids]: a token that occurs twice collects the gradients of both places
    for (int t = 0; t < T; t++)
        for (int j = 0; j < C; j++)
            g->embd[(size_t)b->ids[t] * C + j] += dx[(size_t)t * C + j];
}

/* ================================================================================================
   Chapter 4. Learning.  Eq. (4) is an expectation over M. A step estimates it by the mean over a
   few rows drawn from M. The objective has done its work before the loop starts: it is in the
   rows. */

typedef struct { Row *row; size_t n, cap; } Rows;       // M under one objective

// What `train` is asked to do; --help explains each member. A step takes `batch` rows or, if tokens
// is not 0, as many rows as fit into that number of tokens.
typedef struct {
    const char *init, *out, *tokenizer, *valid, *log, *prompt, *data[16];
    int n_data, dim, layers, heads, kv_heads, hidden, context, tied;
    long steps, epochs, batch, tokens, save_every, seed;
    double lr, lr_warmup, weight_decay, clip, adam_eps, muon, ema, grow_below, keep;
    int resume, quiet;
} TrainOptions;

// Where a run is in its data, and what the optimiser remembers: with the weights, all that a
// resumed run needs.
typedef struct {
    long step, epoch, at, tokens, targets;      // done so far; `at` counts rows of this epoch
    long longest_target;                        // rows with longer targets wait (--grow-below)
    double running;                             // running mean of the loss; -1 at first
    float *m, *v, *mean;                        // Adam's moments; with --ema, the mean weights
} Progress;

typedef struct Run {
    Model *model;
    const Rows *rows, *valid;
    const TrainOptions *o;
    Progress p;
    uint32_t *order;                    // [rows->n] this epoch's order of the rows
    const Row **drawn;                  // [rows->n] the rows of this step
    Batch unit;                         // as many of them as are computed at once
    long steps;
    double (*loss)(struct Run *);       // what a step learns from; NULL: supervised_loss()
    double (*validate)(struct Run *);   // tests/lab.c has others: DPO, a reward model, RLHF
    FILE *log;
    double started;                     // seconds(), for the progress line
    long first;                         // the step this run began with
    uint64_t hash;                      // of everything that decides its result: see run_hash()
} Run;

enum { UNIT = 1024 };                   // tokens computed at once, or one row that is longer

// A random order that depends on seed and epoch only.
static void shuffle(uint32_t *order, size_t n, long seed, long epoch);

// Draws the rows of the next step into run->drawn and returns how many. An epoch's last step takes
// what is left, so each row is seen once per epoch. With --grow-below, rows whose targets are too
// long still are passed over: a model must first find out that copying is possible at all, and it
// finds out sooner on short texts.
static int draw_rows(Run *run) {
    const TrainOptions *o = run->o;
    Progress *p = &run->p;
    long n = 0, tokens = 0, all = (long)run->rows->n;
    while (n < all) {
        if (p->at == all && n) break;
        if (p->at == all) {
            shuffle(run->order, run->rows->n, o->seed, ++p->epoch);
            p->at = 0;
        }
        const Row *next = &run->rows->row[run->order[p->at]];
        bool fits = next->n - next->n_condition <= p->longest_target;
        if (fits && n && (o->tokens ? tokens + next->n - 1 > o->tokens : n == o->batch)) break;
        if (fits) {
            run->drawn[n++] = next;
            tokens += next->n - 1;
        }
        p->at++;
    }
    return (int)n;
}

// Fills b with as many of the rows from i on as fit into a unit, at least one. Returns the next i.
static int fill_unit(Batch *b, const Row *const *row, int i, int n) {
    batch_clear(b);
    do
        batch_add(b, row[i++]);
    while (i < n && b->T + row[i]->n - 1 <= UNIT);
    return i;
}

// One step's loss, and its gradient in m->grads: forward, loss and backward for each unit, the
// gradients adding up.
static double supervised_loss(Run *run) {
    Model *m = run->model;
    int n = draw_rows(run), n_targets = 0;
    double loss = 0;
    for (int i = 0; i < n; i++) n_targets += run->drawn[i]->n - run->drawn[i]->n_condition;
    for (int i = 0; i < n; ) {
        i = fill_unit(&run->unit, run->drawn, i, n);
        forward(m, &run->unit, NULL);
        loss += cross_entropy(m, &run->unit, n_targets);
        backward(m, &run->unit);
        run->p.tokens += run->unit.T;
    }
    run->p.targets += n_targets;
    return loss;
}

// Linear warm-up while Adam's means are young, then half a cosine from the peak down to a tenth of
// it, so that the last steps settle what the first ones found.
static double learning_rate(const TrainOptions *o, long step, long steps) {
    double warm = o->lr_warmup * (double)steps, at = (double)step;
    if (at < warm) return o->lr * (at + 1) / (warm + 1);
    double done = (double)steps > warm ? (at - warm) / ((double)steps - warm) : 1;
    return o->lr * (0.1 + 0.45 * (1 + cos(3.141592653589793 * done)));
}

static bool muons(const Model *m, const Tensor *t, const TrainOptions *o);      // is it Muon's?

// One step of AdamW (Loshchilov and Hutter 2019) on gradients that clipping multiplies by scale;
// clears them. m is a mean of the gradients, v of their squares. Both start at zero: dividing by
// 1 - beta^t corrects the bias toward zero. Each weight gets a step of about lr, however large
// its gradients are, and a smaller one if they disagree from step to step. Weight decay is for
// matrices, and is decoupled: it shrinks the weight itself.
//
// epsilon is more than a guard against 0 / 0. A token that is hardly ever a target gets a tiny
// gradient at each step. With 1e-8 it moves by lr all the same. If the head is tied, its embedding
// drifts until the token can no longer be copied. 1e-4 leaves it where it was.
static void adamw(Model *model, Progress *p, const TrainOptions *o, double lr, float scale) {
    const double beta1 = 0.9, beta2 = 0.95, t = (double)p->step + 1;
    const float b1 = (float)beta1, b2 = (float)beta2, eps = (float)o->adam_eps, rate = (float)lr;
    const float m_scale = (float)(1 / (1 - pow(beta1, t)));
    const float v_scale = (float)(1 / (1 - pow(beta2, t)));
    for (size_t i = 0; i < model->n_tensors; i++) {
        const Tensor *e = &model->tensor[i];
        float *w = model->params + e->at, *g = model->grads + e->at;
        float *m = p->m + e->at, *v = p->v + e->at;
        const float decay = e->rows > 1 ? (float)(lr * o->weight_decay) : 0;
        const long n = (long)e->rows * e->cols;
        if (muons(model, e, o)) continue;
        #pragma omp parallel for schedule(static) if (n > 16384)
        for (long j = 0; j < n; j++) {
            float gradient = g[j] * scale;
            m[j] = b1 * m[j] + (1 - b1) * gradient;
            v[j] = b2 * v[j] + (1 - b2) * gradient * gradient;
            float m_hat = m[j] * m_scale, v_hat = v[j] * v_scale;
            w[j] -= decay * w[j] + rate * m_hat / (sqrtf(v_hat) + eps);
            g[j] = 0;
        }
    }
}

static double gradient_norm(const Model *m);                                // over all weights
static void muon(Model *m, Progress *p, const TrainOptions *o, double lr, float scale);
static void update_mean(const Model *m, Progress *p, const TrainOptions *o);
static void check_finite(double loss, double norm, long step);              // fails on NaN
static void bookkeeping(Run *run, double loss, double lr, double norm);     // log, checkpoint
static volatile sig_atomic_t interrupted;                                   // Ctrl-C was pressed

// The training loop. Gradients whose norm exceeds clip are scaled down to it, so one odd batch
// cannot throw the weights far. Muon, the mean of the weights and short rows first make it learn
// more in the same time; the paper has none of them, and AdamW alone works as well, only later.
static void train_loop(Run *run) {
    Model *m = run->model;
    const TrainOptions *o = run->o;
    while (run->p.step < run->steps && !interrupted) {
        double loss = run->loss ? run->loss(run) : supervised_loss(run);
        double lr = learning_rate(o, run->p.step, run->steps);
        double norm = gradient_norm(m);
        float scale = o->clip > 0 && norm > o->clip ? (float)(o->clip / norm) : 1.0f;
        check_finite(loss, norm, run->p.step + 1);
        if (o->muon > 0) muon(m, &run->p, o, lr, scale);
        adamw(m, &run->p, o, lr, scale);
        if (o->ema > 0) update_mean(m, &run->p, o);
        m->is_packed = false;
        bookkeeping(run, loss, lr, norm);
    }
}

/* ================================================================================================
   Chapter 5. Correcting.  A trained Aligner writes y_c one token after another. What makes it cheap
   is that most of y_c is in y_o already. */

typedef struct {
    double temperature, top_p, frequency_penalty;       // temperature 0: greedy
    double keep;                                        // in nats, see outweighs()
    int top_k, max_tokens;                              // 0: no limit
    int no_draft;                                       // 1: do not use y_o as a draft
    uint64_t seed;
} Decoding;

struct Generator {
    Model *m;
    Decoding how;
    Cache cache;
    Batch batch;
    int *count;                                         // [V] how often each token was written
    struct Choice { float p; int id; } *choice;         // [V] for the sampler
    long passes, tokens, copied;                        // work done so far
    char reason[128];                                   // why the last text has no end
};

static double random_unit(uint64_t *state);                                 // uniform in [0, 1)
static int likelier_first(const void *a, const void *b);                    // compares two Choices

// Chooses the next token from the logits z[V]. Greedy takes the largest, the first one on ties.
// Otherwise p(token) ~ exp(z / temperature) is cut to the top_k likeliest tokens, then to the
// fewest of these that hold top_p of their probability, and one is drawn. Before that, the
// frequency penalty lowers each logit by penalty x (how often the text has the token already).
static int choose(Generator *g, float *z) {
    const Decoding *how = &g->how;
    int V = g->m->c.V, best = 0, n = 0;
    double sum = 0, nucleus = 0;
    if (how->frequency_penalty != 0)
        for (int i = 0; i < V; i++) z[i] -= (float)how->frequency_penalty * (float)g->count[i];
    for (int i = 1; i < V; i++)
        if (z[i] > z[best]) best = i;
    if ((float)how->temperature <= 0) return best;      // also 1e-60, which no float holds

    for (int i = 0; i < V; i++)                         // the largest is exp(0): nothing overflows
        g->choice[i] = (struct Choice){ expf((z[i] - z[best]) / (float)how->temperature), i };
    if (how->top_k || how->top_p < 1)
        qsort(g->choice, (size_t)V, sizeof *g->choice, likelier_first);
    if (how->top_k && how->top_k < V) V = how->top_k;
    for (int i = 0; i < V; i++) sum += (double)g->choice[i].p;
    while (n < V && (n == 0 || nucleus < how->top_p * sum)) nucleus += (double)g->choice[n++].p;
    double u = random_unit(&g->how.seed) * nucleus;
    for (int i = 0; i < n; i++)
        if ((u -= (double)g->choice[i].p) < 0) return g->choice[i].id;
    return g->choice[n - 1].id;
}

enum { FEED = 256 };                    // tokens that one pass reads at most

static void generator_reserve(Generator *g, int n);                         // room for n more
static int least(int a, int b);

// Reads n more tokens of the text and returns the logits of the last n_out of them. A long prompt
// is read in blocks; n_out is at most FEED.
static float *feed(Generator *g, const int *ids, int n, int n_out) {
    Batch *b = &g->batch;
    generator_reserve(g, n);
    for (int from = 0; from < n; from += b->T) {
        b->T = least(n - from, FEED);
        if (from + b->T < n && n - from - b->T < n_out) b->T = n - from - n_out;
        b->n = 1;
        b->n_out = from + b->T == n ? n_out : 1;
        b->start[1] = b->T;
        for (int t = 0; t < b->T; t++) {
            b->ids[t] = ids[from + t];
            b->pos[t] = g->cache.len + t;
        }
        for (int i = 0; i < b->n_out; i++) b->out[i] = b->T - b->n_out + i;
        forward(g->m, b, &g->cache);
        g->passes++;
    }
    return g->m->acts.logits;
}

// Where the draft continues after a difference: after its match of the last 3 (else 2) tokens of
// out, searched for from `from` on, then everywhere; -1 if there is none.
static int find_in_draft(const int *draft, int n_draft, const Ids *out, int from) {
    for (int n = 3; n >= 2; n--)
        for (int again = 0; n <= out->n && again < 2; again++)
            for (int i = again ? 0 : from; i + n < n_draft; i++)
                if (!memcmp(draft + i, out->a + out->n - n, (size_t)n * sizeof *draft))
                    return i + n;
    return -1;
}

enum { BLOCK_FIRST = 16, BLOCK_AGAIN = 8, BLOCK_MOST = 64 };    // guesses in one pass

// Continues the prompt; out receives the new tokens. True if the model ended the text with </s>,
// false if it ran out of context or max_tokens.
//
// A draft makes greedy decoding faster and changes no token (Shallow Aggressive Decoding, arXiv
// 2106.04970; LLMA, 2304.04487). Writing n tokens takes n passes; checking n tokens takes one,
// because a pass gives the logits of all its positions. So a block of the draft is fed as if the
// model had written it. The longest prefix that the model would have written too is accepted:
//
//     draft       The   capital   of   Spain   is ...         fed at once
//     model       The   capital   of   France  ?              "is" guessed at an unwritten text
//     accepted    The   capital   of   France                 four tokens for one pass
//
// The invariant of the loop: draft_at is the draft's next token (-1 if the text has left the
// draft). Accepted tokens are in the cache; nothing after the first disagreement is.
static bool generate(Generator *g, const Ids *prompt, const int *draft, int n_draft, Ids *out) {
    const bool drafting = draft && g->how.temperature <= 0 && !g->how.no_draft;
    const int context = g->m->c.context;
    int draft_at = drafting ? 0 : -1, block = BLOCK_FIRST;
    Ids next = { 0 };                                   // what the next pass reads
    for (int i = 0; i < prompt->n; i++) ids_add(&next, prompt->a[i]);
    memset(g->count, 0, (size_t)g->m->c.V * sizeof *g->count);
    g->cache.len = 0;
    while (g->cache.len + next.n <= context) {
        int room = context - g->cache.len - next.n, guesses = 0, accepted = 0, token;
        if (draft_at >= 0) guesses = least(least(n_draft - draft_at, block), room);
        for (int i = 0; i < guesses; i++) ids_add(&next, draft[draft_at + i]);
        float *logits = feed(g, next.a, next.n, guesses + 1);
        for (;; accepted++, logits += g->m->c.V) {
            token = choose(g, logits);
            if (token == EOS || (g->how.max_tokens && out->n == g->how.max_tokens)) {
                free(next.a);
                return token == EOS;
            }
            ids_add(out, token);
            g->count[token]++;
            g->tokens++;
            if (accepted == guesses || token != draft[draft_at + accepted]) break;
            g->copied++;
        }
        g->cache.len -= guesses - accepted;             // forget what was guessed wrong
        next.n = 0;
        ids_add(&next, token);
        if (!drafting) continue;

        // If all guesses and the model's own token agree with the draft, guess more next time. If
        // not, find the place in the draft again and guess little: a wrong guess is wasted work.
        bool agree = draft_at >= 0 && accepted == guesses && draft_at + accepted < n_draft &&
                     token == draft[draft_at + accepted];
        block = agree ? least(2 * block, BLOCK_MOST) : BLOCK_AGAIN;
        draft_at = agree ? draft_at + accepted + 1
                         : find_in_draft(draft, n_draft, out, draft_at < 0 ? 0 : draft_at);
    }
    free(next.a);
    return false;
}

// log p, in nats, of the tokens ids[from .. n), or of as many as the context has room for. The
// cache holds what comes before ids[from - 1].
static double log_p_rest(Generator *g, const int *ids, int from, int n) {
    double sum = 0;
    int end = least(n, g->m->c.context + 1);
    g->cache.len = from - 1;
    for (int k; from < end; from += k) {
        k = least(end - from, FEED);
        feed(g, ids + from - 1, k, k);
        memcpy(g->batch.target, ids + from, (size_t)k * sizeof *ids);
        sum -= cross_entropy(g->m, &g->batch, 1);
    }
    return sum;
}

// Is y_c, which generate() has just written, worth giving up y_o for? With keep = X it must be e^X
// times as likely:
//
//     log mu(y_c | y_o, x)  -  log mu(y_o | y_o, x)  >=  X
//
// The ratio asks both texts whole, while greedy decoding leaves y_o at the first token that is
// not the likeliest, whatever comes of it. What the two texts share cancels, so only the rest is
// read: nothing if y_c is a copy. An Aligner that trained on fewer good answers than it meets
// corrects too readily. By Bayes' rule its log odds of a copy are short by the log of the ratio
// of the odds, and X gives that back. r is y_o's row.
static bool outweighs(Generator *g, const Row *r, const Ids *y_c) {
    Ids ids = { 0 };
    int shared = 0;
    for (int i = 0; i < r->n_condition; i++) ids_add(&ids, r->ids[i]);
    for (int i = 0; i < y_c->n; i++) ids_add(&ids, y_c->a[i]);
    ids_add(&ids, EOS);
    while (shared < least(r->n, ids.n) && ids.a[shared] == r->ids[shared]) shared++;
    bool copy = shared == ids.n;
    double gain = copy ? g->how.keep
                : log_p_rest(g, ids.a, shared, ids.n) - log_p_rest(g, r->ids, shared, r->n);
    free(ids.a);
    return gain >= g->how.keep;
}

// Writes the text that follows r's condition, with r's target as the draft; if the text does not
// outweigh its draft, the draft remains. out receives the text, or as much of it as there is.
// Returns NULL on success, otherwise the reason there is no end. Frees r.
static const char *write_text(Generator *g, Row r, Buf *out) {
    const Tokenizer *k = g->m->tokenizer;
    Ids condition = { r.ids, r.n_condition, 0 }, ids = { 0 };
    int *draft = r.ids + r.n_condition, n_draft = r.n - r.n_condition - 1;
    const char *reason = NULL;
    if (r.n_condition >= g->m->c.context) {
        snprintf(g->reason, sizeof g->reason, "the prompt has %d tokens, the model's context is %d",
                 r.n_condition, g->m->c.context);
        reason = g->reason;
    } else if (!generate(g, &condition, draft, n_draft, &ids)) {
        snprintf(g->reason, sizeof g->reason, "no end after %d tokens", ids.n);
        reason = g->reason;
    }
    bool keeps = !reason && n_draft && g->how.keep > 0 && !outweighs(g, &r, &ids);
    free(out->s);
    *out = keeps ? decode_all(k, draft, n_draft) : decode_all(k, ids.a, ids.n);
    free(ids.a);
    free(r.ids);
    return reason;
}

static bool valid_utf8(Text t);

// y_c ~ mu_phi(. | y_o, x): one draw from the Aligner, the left factor of Eq. (2). Returns NULL on
// success, otherwise the reason y_c is y_o unchanged: no upstream answer ever disappears.
static const char *correct(Generator *mu, Text x, Text y_o, Buf *y_c) {
    const char *reason = write_text(mu, make_row(mu->m, prompt(mu->m, x, y_o), y_o), y_c);
    if (!reason && !y_c->n && y_o.n) reason = "the model wrote nothing";
    if (!reason && valid_utf8(y_o) && !valid_utf8(contents(y_c)))
        reason = "the correction would not be valid UTF-8";
    if (reason) buf_set(y_c, y_o);
    return reason;
}

// y_o ~ pi_theta(. | x): the right factor of Eq. (2). Returns NULL, or the reason it has no end;
// y_o then holds what there is.
static const char *answer(Generator *pi, Text x, Buf *y_o) {
    return write_text(pi, make_row(pi->m, prompt(pi->m, x, NONE), NONE), y_o);
}

/* You have now read the paper in code: where the condition ends, what the loss is, how it is
   learnt, and how a correction is written. Another paper's method changes a few lines of this:
   DPO, reward model and RLHF replace supervised_loss() (tests/lab.c); Stream Aligner calls
   correct() sentence by sentence; MetaAligner puts its objectives into the prompt.

   ================================================================================================
   PART II: THE MACHINE ROOM
   ================================================================================================
   Chapter 6. Tools.  Errors, memory, text, random numbers, files. */

// CHECK(what must hold, a message as for printf) guards input. It is never a debugging assert.
#define DIE(...) die(__FILE__, __LINE__, __VA_ARGS__)
#define CHECK(condition, ...) do { if (!(condition)) DIE(__VA_ARGS__); } while (0)
#define SHOW(t) (int)(t).n, (t).s                       // a Text as the two arguments of "%.*s"

// The control codes of ASCII. A terminal obeys some of them, so none may reach it from a file.
static bool is_control(char c) { return (uint8_t)c < 32 || c == 127; }

// Prints one message and exits. Messages quote files and the command line, so control codes are
// replaced: the message stays one line and cannot steer the terminal.
static void __attribute__((noreturn, format(printf, 3, 0)))
leave(int status, const char *end, const char *format, va_list a) {
    char message[1024];
    vsnprintf(message, sizeof message, format, a);
    for (char *c = message; *c; c++)
        if (is_control(*c)) *c = '?';
    fflush(stdout);
    fprintf(stderr, "aligner: %s%s\n", message, end);
    exit(status);
}

// Exits with 1; the message ends with its place in this file.
static void __attribute__((noreturn, format(printf, 3, 4)))
die(const char *file, int line, const char *format, ...) {
    const char *base = strrchr(file, '/');
    char place[128];
    va_list a;
    snprintf(place, sizeof place, " (%s:%d)", base ? base + 1 : file, line);
    va_start(a, format);
    leave(1, place, format, a);
}

// n elements of the given size, all zero, 64-byte aligned for the vector units. The product is
// checked because both factors may come from a file.
static void *zalloc(size_t n, size_t size) {
    CHECK(!size || n <= (SIZE_MAX - 64) / size, "%zu x %zu bytes cannot be addressed", n, size);
    size_t bytes = n * size / 64 * 64 + 64;
    void *p = aligned_alloc(64, bytes);
    CHECK(p, "no memory for %zu bytes; a smaller model, batch or context needs less", bytes);
    return memset(p, 0, bytes);
}

// n ints, all zero. Counts and positions are ints throughout; sizes of memory are size_t.
static int *ints(int n) { return zalloc((size_t)n, sizeof(int)); }

// Makes room for n elements in a (of *cap) and keeps its contents. Doubling makes appending cheap.
static void *grow(void *a, size_t size, size_t *cap, size_t n) {
    if (n <= *cap) return a;
    *cap = *cap * 2 > n ? *cap * 2 : n < 16 ? 16 : n;
    CHECK(*cap <= SIZE_MAX / size, "%zu x %zu bytes cannot be addressed", *cap, size);
    a = realloc(a, *cap * size);
    CHECK(a, "no memory for %zu bytes", *cap * size);
    return a;
}

// FREE(a, b, ...) frees each of them.
#define FREE(...) \
    free_each((void *[]){ __VA_ARGS__ }, sizeof (void *[]){ __VA_ARGS__ } / sizeof(void *))

static void free_each(void *const *p, size_t n) {
    for (size_t i = 0; i < n; i++) free(p[i]);
}

static void buf_add(Buf *b, const void *s, size_t n) {
    b->s = grow(b->s, 1, &b->cap, b->n + n + 1);
    if (n) memcpy(b->s + b->n, s, n);
    b->s[b->n += n] = 0;
}

// The same for a C string, which must not be NULL.
static void buf_puts(Buf *b, const char *s) { buf_add(b, s, strlen(s)); }

// b keeps its memory: a Buf that is used in a loop soon allocates no more.
static void buf_set(Buf *b, Text t) {
    b->n = 0;
    buf_add(b, t.s, t.n);
}

// A text has at most as many tokens as an int can count, since positions are ints.
static void ids_add(Ids *v, int id) {
    CHECK(v->n < INT_MAX - 1, "a text of more than %d tokens", INT_MAX - 1);
    v->a = grow(v->a, sizeof *v->a, &v->cap, (size_t)v->n + 1);
    v->a[v->n++] = id;
}

// Small questions about text. None of them copies anything.
static Text text(const char *s) { return (Text){ s, strlen(s) }; }
static Text contents(const Buf *b) { return (Text){ b->s, b->n }; }
static Text rest_of(Text t, size_t n) { return (Text){ t.s + n, t.n - n }; }
static bool same(Text a, Text b) { return a.n == b.n && (!a.n || !memcmp(a.s, b.s, a.n)); }
static bool is(const char *a, const char *b) { return !strcmp(a, b); }
static int least(int a, int b) { return a < b ? a : b; }
static int round_up(int n, int unit) { return (n + unit - 1) / unit * unit; }

// A NUL-terminated copy of t, or NULL if t.s is NULL.
static char *copy_text(Text t) {
    Buf copy = { 0 };
    if (t.s) buf_add(&copy, t.s, t.n);
    return copy.s;
}

// The bytes of the character at the start of t, or 0 if it is not valid UTF-8: overlong forms,
// surrogates and everything beyond U+10FFFF are refused, as every strict reader does.
static size_t utf8_length(Text t) {
    const uint8_t *s = (const uint8_t *)t.s, c = t.n ? *s : 0xFF;
    size_t n = c < 0x80 ? 1 : c < 0xC2 ? 0 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : c < 0xF5 ? 4 : 0;
    if (n > t.n) return 0;
    for (size_t j = 1; j < n; j++)
        if (s[j] >> 6 != 2) return 0;
    bool overlong = (c == 0xE0 && s[1] < 0xA0) || (c == 0xF0 && s[1] < 0x90);
    bool beyond = (c == 0xED && s[1] > 0x9F) || (c == 0xF4 && s[1] > 0x8F);
    return overlong || beyond ? 0 : n;
}

// Is the whole text valid UTF-8? An empty one is.
static bool valid_utf8(Text t) {
    for (size_t n; t.n; t = rest_of(t, n))
        if (!(n = utf8_length(t))) return false;
    return true;
}

// Seconds on a clock that never goes back. For durations only.
static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// splitmix64 (Steele, Lea, Flood 2014), the only source of randomness here. Its state is one
// number, so knowing it is enough to repeat or resume a run.
static uint64_t random_u64(uint64_t *state) {
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

// Uniform in [0, 1), from the upper 53 bits: as many bits as a double's mantissa has, so rounding
// never gives 1.
static double random_unit(uint64_t *state) {
    return (double)(random_u64(state) >> 11) * 0x1p-53;
}

// Reads a whole file (- is standard input) into memory; the caller frees .s.
static Buf read_all(const char *path) {
    static char chunk[16384];
    Buf b = { 0 };
    FILE *f = is(path, "-") ? stdin : fopen(path, "rb");
    CHECK(f, "cannot open %s: %s; name a file that can be read", path, strerror(errno));
    buf_set(&b, text(""));
    for (size_t n; (n = fread(chunk, 1, sizeof chunk, f)) > 0; ) buf_add(&b, chunk, n);
    CHECK(!ferror(f), "cannot read %s: %s", path, strerror(errno));
    if (f != stdin) fclose(f);
    return b;
}

// Binary files are read through this. need() is the one place that compares with what is left, and
// it compares n itself, never a sum that could wrap.
typedef struct { const char *path, *what, *p; size_t n, at; } File;     // what: the part being read

static const char *need(File *f, uint64_t n) {
    CHECK(n <= f->n - f->at, "%s: ends inside %s (%llu bytes wanted, %zu left); copy it again",
          f->path, f->what, (unsigned long long)n, f->n - f->at);
    f->at += (size_t)n;
    return f->p + (f->at - (size_t)n);
}

// Numbers in files are little-endian, as this machine's are. memcpy, as they may be unaligned.
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files have this machine's byte order");

static uint32_t read_u32(File *f) {
    uint32_t v;
    memcpy(&v, need(f, 4), 4);
    return v;
}

static uint64_t read_u64(File *f) {
    uint64_t v;
    memcpy(&v, need(f, 8), 8);
    return v;
}

static float read_f32(File *f) {
    float v;
    memcpy(&v, need(f, 4), 4);
    return v;
}

// The name of a file that belongs to path: OUT.state, and what a file is called until it is whole.
static const char TEMPORARY[] = ".aligner-tmp", STATE[] = ".state";

static Buf with_ending(const char *path, const char *ending) {
    Buf name = { 0 };
    buf_puts(&name, path);
    buf_puts(&name, ending);
    return name;
}

// Writes the parts to a temporary file, then renames it. Renaming is atomic: nobody ever sees
// half a file, and a crash or a full disk leaves the old one whole.
static void write_file(const char *path, int n_parts, const Text *part) {
    Buf temporary = with_ending(path, TEMPORARY);
    FILE *f = fopen(temporary.s, "wb");
    CHECK(f, "cannot write %s: %s; name a folder that can be written", path, strerror(errno));
    bool ok = true;
    for (int i = 0; i < n_parts; i++) ok = ok && fwrite(part[i].s, 1, part[i].n, f) == part[i].n;
    ok = ok && fflush(f) == 0 && fsync(fileno(f)) == 0;
    ok = fclose(f) == 0 && ok;
    if (!ok || rename(temporary.s, path)) {
        int why = errno;
        remove(temporary.s);
        DIE("cannot write %s: %s; is the disk full?", path, strerror(why));
    }
    free(temporary.s);
}

// Tries, before any work is done, whether path can be written at the end.
static void check_writable(const char *path) {
    struct stat s;
    Buf temporary = with_ending(path, TEMPORARY);
    CHECK(stat(path, &s) || S_ISREG(s.st_mode), "cannot write %s: it is not a file", path);
    FILE *f = fopen(temporary.s, "wb");
    CHECK(f, "cannot write %s: %s; name a folder that can be written", path, strerror(errno));
    fclose(f);
    remove(temporary.s);
    free(temporary.s);
}

// Are the two descriptors' files one file? (As `cat` asks; terminals and pipes are never one.)
static bool same_file(const struct stat *a, const struct stat *b) {
    return S_ISREG(a->st_mode) && a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* ================================================================================================
   Chapter 7. Kernels.  Each forward has its backward below it, which quotes the line that it
   differentiates; the matmul and attention come last. tests/gradients.c checks every function here.

   One rule holds throughout: the order of the additions that make a number depends neither on the
   number of threads nor on how many tokens are computed at once. Floating-point addition is not
   associative, so this is what makes training reproducible, and why verifying a draft is
   bit-identical to decoding token by token. */

#ifndef _OPENMP                         // without OpenMP the calling thread is the whole team
static int omp_get_max_threads(void) { return 1; }
static int omp_get_num_threads(void) { return 1; }
static int omp_get_thread_num(void) { return 0; }
#endif

// n floats of scratch memory of the calling thread, one piece for each use. A piece grows on demand
// and is kept, so the loops allocate nothing. What is in it is left over from the last use.
enum { FOR_GEMM, FOR_ATTENTION, FOR_MUON, SCRATCH_USES };

static float *scratch(int use, size_t n) {
    static _Thread_local struct { float *p; size_t n; } own[SCRATCH_USES];
    if (own[use].n < n) {
        free(own[use].p);
        own[use].p = zalloc(n, sizeof(float));
        own[use].n = n;
    }
    return own[use].p;
}

enum { LANES = 8 };     // sums run in 8 interleaved lanes, which compilers can put in vector units

// The order of these seven additions is part of every result. It is the order in which the halves
// of a vector register are added.
static inline float add_lanes(const float s[LANES]) {
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

// sum_i a[i] b[i]; lane l adds up the i with i mod 8 = l.
static inline float dot(const float *a, const float *b, int n) {
    float s[LANES] = { 0 };
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++)
            s[l] += a[i + l] * b[i + l];
    for (int l = 0; i < n; i++, l++) s[l] += a[i] * b[i];
    return add_lanes(s);
}

// e^x to 2 units in the last place, in plain C that compilers vectorize (libm's expf differs
// between systems). With n = round(x / ln 2) and r = x - n ln 2, e^x = 2^n e^r and |r| <= 0.35.
// Adding 1.5 * 2^23 leaves no bits for a fraction, which rounds; ln 2 is subtracted in two parts,
// the first of which is exact; a polynomial (Cephes) gives e^r; 2^n is written into the
// exponent's bits.
static inline float exp_f32(float x) {
    float y = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    union { float f; uint32_t u; } scale = { y * 1.44269504f + 12582912.0f };
    float n = scale.f - 12582912.0f;
    float r = (y - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = (1.9875691500e-4f * r + 1.3981999507e-3f) * r + 8.3334519073e-3f;
    p = ((p * r + 4.1665795894e-2f) * r + 1.6666665459e-1f) * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    scale.u = (scale.u + 127) << 23;                    // not a cast, which NaN would not survive
    return x < -87.0f ? 0.0f : p * scale.f;
}

// Scales every row of x to the length sqrt(C), then each column by its own weight. r is stored
// because that is cheaper than computing it again in the backward pass.
static void rmsnorm(float *y, float *r, const float *x, const float *w, int T, int C, float eps) {
    #pragma omp parallel for schedule(static) if ((long)T * C > 16384)
    for (int t = 0; t < T; t++) {
        const float *xt = x + (size_t)t * C;
        float *yt = y + (size_t)t * C;
        r[t] = 1.0f / sqrtf(dot(xt, xt, C) / (float)C + eps);
        for (int i = 0; i < C; i++) yt[i] = xt[i] * r[t] * w[i];
    }
}

// y = x r w:   dx += r (dy w - x r^2 mean(dy w x)),   dw += sum over rows of dy x r
// The first term of dx holds r fixed. But r depends on every x[j] of the row, with the derivative
// - r^3 x[j] / C: that is the second term.
static void rmsnorm_backward(float *dx, float *dw, const float *dy, const float *x, const float *r,
                             const float *w, int T, int C) {
    #pragma omp parallel for schedule(static)
    for (int t = 0; t < T; t++) {
        const float *xt = x + (size_t)t * C, *dyt = dy + (size_t)t * C;
        float *dxt = dx + (size_t)t * C, s[LANES] = { 0 };
        int i = 0;
        for (; i + LANES <= C; i += LANES)
            for (int l = 0; l < LANES; l++)
                s[l] += dyt[i + l] * w[i + l] * xt[i + l];
        for (int l = 0; i < C; i++, l++) s[l] += dyt[i] * w[i] * xt[i];
        const float mean = add_lanes(s) / (float)C * r[t] * r[t];
        for (i = 0; i < C; i++) dxt[i] += r[t] * (dyt[i] * w[i] - xt[i] * mean);
    }
    #pragma omp parallel for schedule(static)
    for (int i0 = 0; i0 < C; i0 += 64)                  // a thread owns 64 columns of dw
        for (int t = 0; t < T; t++) {
            const float *xt = x + (size_t)t * C, *dyt = dy + (size_t)t * C;
            for (int i = i0; i < least(i0 + 64, C); i++) dw[i] += dyt[i] * xt[i] * r[t];
        }
}

// The pair (v0, v1) turns like a point in the plane: (v0 cos - v1 sin, v0 sin + v1 cos). It is
// written v1 * -sine and not - v1 * sine: gcc would turn the second form into a fused
// subtract-add, in spite of -ffp-contract=off, and give other bits than clang.
static void rope(float *qkv, const int *pos, const float *angle, int T, const Config *c,
                 float sign) {
    const int hs = head_size(c), heads = c->H + c->H_kv;
    #pragma omp parallel for schedule(static) if (T > 16)
    for (int t = 0; t < T; t++) {
        const float *a = angle + (size_t)pos[t] * hs;
        for (int h = 0; h < heads; h++) {
            float *v = qkv + (size_t)t * qkv_width(c) + h * hs;
            for (int i = 0; i < hs; i += 2) {
                float cosine = a[i], sine = sign * a[i + 1], v0 = v[i], v1 = v[i + 1];
                v[i] = v0 * cosine + v1 * -sine;
                v[i + 1] = v0 * sine + v1 * cosine;
            }
        }
    }
}

// SwiGLU (arXiv 2002.05202). silu(g) is nearly 0 if g is far below 0, and nearly g if g is far
// above 0: the gate closes or opens.
static void swiglu(float *y, const float *gate_up, int T, int F) {
    #pragma omp parallel for schedule(static) if ((long)T * F > 16384)
    for (int t = 0; t < T; t++) {
        const float *g = gate_up + (size_t)t * 2 * F, *u = g + F;
        float *yt = y + (size_t)t * F;
        for (int i = 0; i < F; i++) yt[i] = g[i] / (1.0f + exp_f32(-g[i])) * u[i];
    }
}

// y = silu(g) u:   du = dy silu(g),   dg = dy u s (1 + g (1 - s))   with s = 1 / (1 + e^-g)
// (silu(g) = g s and s' = s (1 - s), so silu' = s + g s (1 - s).)
static void swiglu_backward(float *gate_up, const float *dy, int T, int F) {
    #pragma omp parallel for schedule(static)
    for (int t = 0; t < T; t++) {
        float *g = gate_up + (size_t)t * 2 * F, *u = g + F;
        const float *dyt = dy + (size_t)t * F;
        for (int i = 0; i < F; i++) {
            float s = 1.0f / (1.0f + exp_f32(-g[i])), du = dyt[i] * g[i] * s;
            g[i] = dyt[i] * u[i] * s * (1.0f + g[i] * (1.0f - s));
            u[i] = du;
        }
    }
}

// Turns the scores x[0..n) into probabilities, in place. Subtracting the maximum changes no
// probability but keeps e^x from overflowing. stats, unless NULL, receives max and 1/sum.
static void softmax(float *x, int n, float *stats) {
    float s[LANES] = { 0 }, top[LANES];
    int i = 0;
    for (int l = 0; l < LANES; l++) top[l] = x[0];
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++) top[l] = x[i + l] > top[l] ? x[i + l] : top[l];
    for (int l = 0; i < n; i++, l++) top[l] = x[i] > top[l] ? x[i] : top[l];
    for (int l = 1; l < LANES; l++) top[0] = top[l] > top[0] ? top[l] : top[0];
    const float max = top[0];
    for (i = 0; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++) {
            x[i + l] = exp_f32(x[i + l] - max);
            s[l] += x[i + l];
        }
    for (int l = 0; i < n; i++, l++) s[l] += x[i] = exp_f32(x[i] - max);
    const float inverse = 1.0f / add_lanes(s);
    for (i = 0; i < n; i++) x[i] *= inverse;
    if (stats) memcpy(stats, (float[]){ max, inverse }, 2 * sizeof *stats);
}

// - log softmax(z)[target] = max + log(sum) - z[target], in double as means are taken over many.
static double softmax_nll(float *z, int V, int target, float scale) {
    float stats[2], logit = z[target];
    softmax(z, V, stats);
    for (int j = 0; j < V; j++) z[j] *= scale;
    z[target] -= scale;
    return (double)stats[0] - (double)logit - log((double)stats[1]);
}

/* The matmul.  C[M][N] (+)= A[M][K] B[K][N], where A and B are matrices with any strides, so one
   function serves
       forward  Y = X W^T        and backward  dX = dY W,  dW += dY^T X.
   Three nested loops would do, but they load two numbers for each multiply-add and wait for memory.
   Here the work is cut so that each level of the machine holds what it uses repeatedly: a tile of
   MR x NR results lives in registers; the panel of B that it walks along, KC rows of NR numbers, in
   the L1 cache; MC rows of A in L2. Operands in the wrong layout are first copied ("packed") into
   panels, in the order in which the tile reads them. docs/speed.md derives the numbers. */

// One tile serves four kinds of machine. It needs 2 MR registers for sums, 2 for B and 1 for A.
// They fit into the 32 registers of AVX-512 (16 floats each) and NEON (4 floats), and into the 16
// of AVX2 (8 floats) and of SSE2 or WebAssembly (4 floats). With a fused multiply-add all give the
// same bits; without one (-DSIMD=0) each product is rounded before it is added.
#ifndef SIMD
#define SIMD 512                        // the widest vectors that may be used, in bits
#endif
#if SIMD >= 512 && defined(__AVX512F__)
#include <immintrin.h>
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
enum { WIDTH = 16, MR = 12 };
#elif SIMD >= 256 && defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
enum { WIDTH = 8, MR = 6 };
#elif SIMD >= 128 && defined(__aarch64__)
#include <arm_neon.h>
#define FMA(a, b, c) vfmaq_f32(c, a, b)
enum { WIDTH = 4, MR = 12 };
#else
#define FMA(a, b, c) ((a) * (b) + (c))
enum { WIDTH = 4, MR = 6 };
#endif
typedef float Vector __attribute__((vector_size(4 * WIDTH)));           // in a register
typedef float Lanes __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias)); // in memory
#define LOAD(p) ((Vector)*(const Lanes *)(p))
#define STORE(p, v) (*(Lanes *)(p) = (Lanes)(v))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 12")
#endif
enum { NR = 2 * WIDTH, KC = 320, MC = 96, NC = 1024 };
_Static_assert(MC % MR == 0 && NC % NR == 0, "blocks are made of whole tiles");

// Element (i, j) is p[i * row + j * col]. If panels is not NULL, it holds a packed copy of B:
// panel j has the columns [NR j, NR j + NR), row after row, and begins at panels + j * panel.
typedef struct { const float *p; ptrdiff_t row, col; const float *panels; size_t panel; } Matrix;

// A row-major matrix whose rows are ld floats apart.
static Matrix rows_of(const float *p, int ld) { return (Matrix){ .p = p, .row = ld, .col = 1 }; }

// v with rows and columns exchanged. No number moves: the strides change places.
static Matrix transposed(Matrix v) { return (Matrix){ .p = v.p, .row = v.col, .col = v.row }; }

// v without its first i rows and j columns.
static Matrix from(Matrix v, int i, int j) {
    v.p += i * v.row + j * v.col;
    return v;
}

// c[mr][NR] (+)= A[mr][k] b[k][NR]: the one place that adds up products. Each sum runs over k in
// order. mr is a constant at every call, so all of r[] become registers.
static inline __attribute__((always_inline))
void tile(const int mr, int k, Matrix A, const float *b, float *c, size_t ldc, bool add) {
    Vector r[MR][2];
    UNROLL
    for (int i = 0; i < mr; i++) {
        r[i][0] = r[i][1] = (Vector){ 0 };
        __builtin_prefetch(c + i * ldc, 1);
        __builtin_prefetch(c + i * ldc + NR - 1, 1);
    }
    for (int p = 0; p < k; p++, A.p += A.col, b += NR) {
        // A single token waits for memory, and processors do not prefetch across a page.
        if (WIDTH == 8 && mr == 1) __builtin_prefetch((const void *)((uintptr_t)b + 4096));
        Vector b0 = LOAD(b), b1 = LOAD(b + WIDTH);
        UNROLL
        for (int i = 0; i < mr; i++) {
            Vector x = A.p[i * A.row] - (Vector){ 0 };  // in each lane
            r[i][0] = FMA(x, b0, r[i][0]);
            r[i][1] = FMA(x, b1, r[i][1]);
        }
    }
    UNROLL
    for (int i = 0; i < mr; i++, c += ldc) {
        STORE(c, add ? r[i][0] + LOAD(c) : r[i][0]);
        STORE(c + WIDTH, add ? r[i][1] + LOAD(c + WIDTH) : r[i][1]);
    }
}

// The rows x cols part of a tile of mr rows (MR, or 1 for a single token), at the edges of C. The
// tile is computed whole, so a result has the same bits wherever the edges are.
static void tile_part(int mr, int rows, int cols, int k, Matrix A, const float *b, float *c,
                      size_t ldc, bool add) {
    const bool whole = rows == mr && cols == NR;
    float edge[MR * NR], *to = whole ? c : edge;
    const size_t ld = whole ? ldc : NR;
    if (mr == 1) tile(1, k, A, b, to, ld, whole && add);
    else tile(MR, k, A, b, to, ld, whole && add);
    for (int i = 0; i < rows && !whole; i++)
        for (int j = 0; j < cols; j++)
            c[i * ldc + j] = add ? edge[i * NR + j] + c[i * ldc + j] : edge[i * NR + j];
}

// Packs n rows and k columns of v as panel[k][width], n <= width. The step from k to k + 1 then
// reads the next `width` floats, whatever the strides of v are:
//
//     v   a0 a1 a2       panel   a0 b0 c0  a1 b1 c1  a2 b2 c2        (n = width = 3)
//         b0 b1 b2
//         c0 c1 c2
//
// Rows n and beyond keep what was in them: they only meet results that are not stored.
static void pack(float *panel, const int width, Matrix v, int n, int k) {
    if (v.row == 1 && n == NR)                          // neighbours are copied by registers
        for (int p = 0; p < k; p++) memcpy(panel + p * width, v.p + p * v.col, NR * sizeof *panel);
    else if (v.row == 1 && n == MR)
        for (int p = 0; p < k; p++) memcpy(panel + p * width, v.p + p * v.col, MR * sizeof *panel);
    else
        for (int i = 0; i < n; i++)
            for (int p = 0; p < k; p++) panel[p * width + i] = v.p[i * v.row + p * v.col];
}

// Floats of a packed K x N matrix, and the packing itself: panels[N/NR][K][NR].
static size_t packed_size(int K, int N) { return (size_t)K * (size_t)round_up(N, NR); }

static void pack_all(float *panels, Matrix B, int K, int N) {
    #pragma omp parallel for schedule(static) if ((long)K * N > 16384)
    for (int j = 0; j < N; j += NR)
        pack(panels + (size_t)j * K, NR, transposed(from(B, 0, j)), least(NR, N - j), K);
}

/* How a product is cut, for M = 2 MR and N = 2 NR. Each thread packs what it needs for itself,
   which costs less than waiting for another.

             B  |  0  |  1  |         for each NC columns of B
                |     |     |             for each KC rows of B           (adds to the last ones)
       A    -----------------                 pack them into panels
       0         | 00  | 01  |                for each MC rows of A       (in L2; packed if need be)
       1         | 10  | 11  |                    for each panel of B     (in L1)
                                                      for each MR rows of A
                                                          tile

   gemm() computes the share of thread `rank` of `size`. C is cut by rows if it is tall, else by
   panels. If B is packed and has enough panels, C is cut by panels, and each panel is read by one
   thread only. A product is never cut along K: each sum is computed by one thread. */
static void gemm(int rank, int size, int M, int N, int K, Matrix A, Matrix B, float *C, size_t ldc,
                 bool add) {
    const int mr = M == 1 ? 1 : MR, panels = round_up(N, NR) / NR, tiles = round_up(M, mr) / mr;
    const bool by_rows = tiles >= 2 * size && (!B.panels || panels < 2 * size);
    const int parts = by_rows ? tiles : panels;
    const int first = (int)((long)parts * rank / size);
    const int end = (int)((long)parts * (rank + 1) / size);
    const int i_from = by_rows ? first * mr : 0, i_to = by_rows ? least(end * mr, M) : M;
    const int j_from = by_rows ? 0 : first, j_to = by_rows ? panels : end;
    float *own_a = scratch(FOR_GEMM, (NC + MC) * KC), *own_b = own_a + MC * KC;
    for (int j0 = j_from; j0 < j_to; j0 += NC / NR)
        for (int p0 = 0; p0 < K; p0 += KC) {
            const int k = least(K - p0, KC), j1 = least(j0 + NC / NR, j_to);
            const float *b = B.panels ? B.panels + j0 * B.panel + (size_t)p0 * NR : own_b;
            const size_t panel = B.panels ? B.panel : (size_t)k * NR;
            for (int j = j0; j < j1 && !B.panels; j++)
                pack(own_b + (j - j0) * panel, NR, transposed(from(B, p0, j * NR)),
                     least(NR, N - j * NR), k);
            for (int i0 = i_from; i0 < i_to; i0 += MC) {
                // A whole tile of A is read in place if that is cheap: along its rows, or from a
                // few lines that stay in L1.
                Matrix a[MC];
                const bool direct = A.col == 1 || (A.row == 1 && k <= 64);
                const int m = least(i_to - i0, MC);
                for (int i = 0; i < m; i += mr) {
                    a[i] = from(A, i0 + i, p0);
                    if (mr == 1 || (direct && m - i >= mr)) continue;
                    pack(own_a + (size_t)i * k, MR, a[i], least(MR, m - i), k);
                    a[i] = (Matrix){ .p = own_a + (size_t)i * k, .row = 1, .col = MR };
                }
                for (int j = j0; j < j1; j++)
                    for (int i = 0; i < m; i += mr)
                        tile_part(mr, least(mr, m - i), least(NR, N - j * NR), k, a[i],
                                  b + (j - j0) * panel, C + (i0 + i) * ldc + (size_t)j * NR, ldc,
                                  add || p0);
            }
        }
}

// C (+)= A B with all threads, each computing its share, or with one thread if the product is too
// small to be worth a team.
static void matmul(float *C, size_t ldc, Matrix A, Matrix B, int M, int N, int K, bool add) {
    #pragma omp parallel if ((double)M * N * K > 200e3)
    gemm(omp_get_thread_num(), omp_get_num_threads(), M, N, K, A, B, C, ldc, add);
}

// A layer is y = W x for each token. X[T][K] has a token in each row and W[N][K] an output in
// each row, so Y = X W^T.
static void linear(float *Y, const float *X, const float *W, bool packed, int T, int N, int K,
                   bool add) {
    Matrix Wt = transposed(rows_of(W, K));
    if (packed) Wt = (Matrix){ .panels = W, .panel = (size_t)K * NR };
    matmul(Y, (size_t)N, rows_of(X, K), Wt, T, N, K, add);
}

// Y = X W^T:   dX = dY W,   dW += dY^T X
// The first product passes the gradient on to what came before. The second adds up, over all
// tokens, what each weight contributed to the loss. With one product in linear() and two here,
// training costs three times a forward pass: about 6 operations for each weight and token.
static void linear_backward(float *dX, float *dW, const float *dY, const float *X, const float *W,
                            int T, int N, int K) {
    matmul(dX, (size_t)K, rows_of(dY, N), rows_of(W, K), T, K, N, false);
    matmul(dW, (size_t)K, transposed(rows_of(dY, N)), rows_of(X, K), N, K, T, true);
}

static void copy_floats(float *to, const float *from, size_t n) {
    memcpy(to, from, n * sizeof *to);
}

static void gather_rows(float *to, const float *from, const int *at, int n, int C) {
    for (int i = 0; i < n; i++)
        copy_floats(to + (size_t)i * C, from + (size_t)at[i] * C, (size_t)C);
}

// at ascends, so at[i] >= i: from the end on, no row is overwritten before it has moved.
static void scatter_rows(float *x, const int *at, int n, int T, int C) {
    for (int t = T - 1, i = n - 1; t >= 0; t--)
        if (i >= 0 && at[i] == t) memmove(x + (size_t)t * C, x + (size_t)i-- * C, C * sizeof *x);
        else memset(x + (size_t)t * C, 0, C * sizeof *x);
}

/* Attention.  For each query, over the keys of its own row up to its own position:
       s_j = q . k_j / sqrt(hs),   p = softmax(s),   o = sum_j p_j v_j.
   Dividing by the root keeps the variance of s near 1 whatever hs is. With grouped queries, H /
   H_kv query heads share one head of keys and values. */

enum { QUERIES = 24 };                  // queries of one head that are computed at once

// A job is one row and one head of keys and values, with all the query heads that share it. Keys
// and values are kept as the matmul's panels, the keys as K^T[hs][room] and the values as
// V[room][hs]: a new token adds a column to the one and a row to the other. With a cache there is
// one row, and it continues the panels in the cache; without one the panels are scratch memory.
static void attention(float *out, float *stats, const float *qkv, const Config *c, const Batch *b,
                      Cache *cache, int layer) {
    const int hs = head_size(c), Q = qkv_width(c), group = c->H / c->H_kv;
    const int past = cache ? cache->len : 0;            // positions that are in the cache already
    const float scale = 1.0f / sqrtf((float)hs);
    #pragma omp parallel for schedule(dynamic, 1) if (b->T > 16)
    for (int job = 0; job < b->n * c->H_kv; job++) {
        const int e = job / c->H_kv, h_kv = job % c->H_kv;
        const int t0 = b->start[e], n = b->start[e + 1] - t0, ld = round_up(past + n, NR);
        const int room = cache ? cache->capacity : n;
        const size_t k_size = packed_size(hs, room), v_size = packed_size(room, hs);
        const size_t scores = QUERIES * (size_t)ld;
        float *S = scratch(FOR_ATTENTION, scores + (cache ? 0 : k_size + v_size));
        float *keys = S + scores, *values = keys + k_size;
        if (cache) {
            keys = cache->keys + ((size_t)layer * c->H_kv + h_kv) * k_size;
            values = cache->values + ((size_t)layer * c->H_kv + h_kv) * v_size;
        }
        for (int j = past; j < past + n; j++) {
            const float *k = qkv + (size_t)(t0 + j - past) * Q + (size_t)(c->H + h_kv) * hs;
            const float *v = k + kv_width(c);
            for (int i = 0; i < hs; i++) {
                keys[((size_t)(j / NR) * hs + i) * NR + j % NR] = k[i];
                values[((size_t)(i / NR) * room + j) * NR + i % NR] = v[i];
            }
        }
        const Matrix Kt = { .panels = keys, .panel = (size_t)NR * hs };
        const Matrix V = { .panels = values, .panel = (size_t)NR * room };
        for (int h = h_kv * group; h < (h_kv + 1) * group; h++)
            for (int i0 = 0; i0 < n; i0 += QUERIES) {
                const int m = least(n - i0, QUERIES), seen = past + i0 + m;
                const size_t t = (size_t)(t0 + i0);
                const Matrix queries = rows_of(qkv + t * Q + (size_t)h * hs, Q);
                gemm(0, 1, m, seen, hs, queries, Kt, S, (size_t)ld, false);
                for (int u = 0; u < m; u++) {
                    float *s = S + (size_t)u * ld;
                    const int own = past + i0 + u + 1, n8 = round_up(seen, LANES);
                    for (int j = 0; j < own; j++) s[j] *= scale;        // causal: only these count
                    for (int j = own; j < n8; j++) s[j] = -INFINITY;
                    softmax(s, n8, stats ? stats + ((t + u) * c->H + h) * 2 : NULL);
                }
                gemm(0, 1, m, hs, seen, rows_of(S, ld), V, out + t * c->C + (size_t)h * hs,
                     (size_t)c->C, false);
            }
    }
}

// o = P V, P = softmax(S), S = Q K^T / sqrt(hs):
//     dV += P^T dO,   dP = dO V^T,   dS = P (dP - rowsum(dO O)) / sqrt(hs)
//     dQ  = dS K,     dK += dS^T Q
// (For softmax, dS_j = P_j (dP_j - sum_i P_i dP_i), and that sum is dO . O.) P is computed again
// from the saved max and 1/sum, QUERIES at a time, so memory grows with T and not with T^2 (the
// idea of FlashAttention, arXiv 2205.14135). The query heads of a group add to the same dK and
// dV, so one thread takes them all.
static void attention_backward(float *dqkv, const float *dout, const float *out, const float *stats,
                               const float *qkv, const Config *c, const Batch *b) {
    const int hs = head_size(c), Q = qkv_width(c), C = c->C, group = c->H / c->H_kv;
    const float scale = 1.0f / sqrtf((float)hs);
    #pragma omp parallel for schedule(dynamic, 1)
    for (int job = 0; job < b->n * c->H_kv; job++) {
        const int e = job / c->H_kv, h_kv = job % c->H_kv;
        const int t0 = b->start[e], n = b->start[e + 1] - t0, ld = round_up(n, NR);
        const size_t packed = packed_size(hs, n), scores = QUERIES * (size_t)ld;
        float *P = scratch(FOR_ATTENTION, 2 * (packed + scores)), *dS = P + scores;
        float *panels = dS + scores;
        const size_t k0 = (size_t)t0 * Q + (size_t)(c->H + h_kv) * hs;
        const size_t v0 = k0 + (size_t)kv_width(c);
        const Matrix K = rows_of(qkv + k0, Q);
        Matrix Kt = transposed(K), Vt = transposed(rows_of(qkv + v0, Q));
        pack_all(panels, Kt, hs, n);                    // every block of queries reads them
        pack_all(panels + packed, Vt, hs, n);
        Kt = (Matrix){ .panels = panels, .panel = (size_t)hs * NR };
        Vt = (Matrix){ .panels = panels + packed, .panel = (size_t)hs * NR };
        bool add = false;                               // the last block sees all keys: it is first
        for (int h = h_kv * group; h < (h_kv + 1) * group; h++)
            for (int i0 = (n - 1) / QUERIES * QUERIES; i0 >= 0; i0 -= QUERIES, add = true) {
                const int m = least(n - i0, QUERIES), seen = i0 + m;
                const size_t t = (size_t)(t0 + i0);
                const size_t q0 = t * Q + (size_t)h * hs, o0 = t * C + (size_t)h * hs;
                const Matrix queries = rows_of(qkv + q0, Q), dO = rows_of(dout + o0, C);
                gemm(0, 1, m, seen, hs, queries, Kt, P, (size_t)ld, false);
                gemm(0, 1, m, seen, hs, dO, Vt, dS, (size_t)ld, false);
                for (int u = 0; u < m; u++) {           // P holds q . k so far, and dS holds dP
                    float *restrict p = P + (size_t)u * ld, *restrict ds = dS + (size_t)u * ld;
                    const float *max_inverse = stats + ((t + u) * c->H + h) * 2;
                    const float D = dot(dout + o0 + (size_t)u * C, out + o0 + (size_t)u * C, hs);
                    const int own = i0 + u + 1;
                    for (int j = 0; j < own; j++) {
                        p[j] = exp_f32(p[j] * scale - max_inverse[0]) * max_inverse[1];
                        ds[j] = p[j] * (ds[j] - D) * scale;
                    }
                    for (int j = own; j < seen; j++) p[j] = ds[j] = 0;
                }
                gemm(0, 1, m, hs, seen, rows_of(dS, ld), K, dqkv + q0, (size_t)Q, false);
                gemm(0, 1, seen, hs, m, transposed(rows_of(dS, ld)), queries, dqkv + k0, (size_t)Q,
                     add);
                gemm(0, 1, seen, hs, m, transposed(rows_of(P, ld)), dO, dqkv + v0, (size_t)Q, add);
            }
    }
}

/* ================================================================================================
   Chapter 8. Tokenizer.  Byte-pair encoding as SentencePiece and llama.cpp do it. The vocabulary is
   a list of pieces: strings that are frequent enough to deserve an id. Decoding looks ids up.
   Encoding merges: it starts from single characters and joins two neighbours into a larger piece,
   the piece that was learnt first before all others, until no two neighbours make a piece. With the
   pieces bc, ab, " a" and abc, learnt in this order:

       " abc"   ->   " " a b c   ->   " " a bc   ->   " a" bc

   bc is merged first. Then " " and a could merge, and so could a and bc, but " a" was learnt
   before abc.

   ids: 0 <unk>, 1 <s>, 2 </s>, 3..258 the bytes as <0xHH>, then merged pieces (score -rank: earlier
   merges win), then single characters. Each byte has a piece, so any text can be encoded, broken
   UTF-8 and zeros included, and decoding gives back the same bytes. */

enum { BYTE0 = 3, FIRST_PIECE = 259, MAX_VOCAB = 1000000, MAX_PIECE = 1024 };

struct Tokenizer {
    int V, longest;             // vocabulary size; bytes of the longest piece
    Text *piece;                // [V] its bytes, with a space for a space; owned
    float *score;               // [V] the possible merge with the highest score is made first
    bool no_space;              // a file may say that texts get no space in front
    int *slot;                  // hash table from bytes to id, at least 2 V entries; -1 is empty
    size_t mask;                // its size, a power of two, minus 1
};

#define GGUF_SPACE "\xE2\x96\x81"                   // U+2581, which GGUF files write for a space

// The slot that holds t, or the empty slot where it belongs: FNV-1a, then the next slots in turn.
static int *find_slot(const Tokenizer *k, Text t) {
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < t.n; i++) h = (h ^ (uint8_t)t.s[i]) * 1099511628211u;
    size_t i = (size_t)(h ^ h >> 32) & k->mask;
    while (k->slot[i] >= 0 && !same(k->piece[k->slot[i]], t)) i = (i + 1) & k->mask;
    return &k->slot[i];
}

// The id of the piece with the bytes t, or -1.
static int find_piece(const Tokenizer *k, Text t) { return *find_slot(k, t); }

// Makes room for V pieces. set_piece() sets them; then tokenizer_index() makes them usable.
static Tokenizer *tokenizer_new(int V) {
    Tokenizer *k = zalloc(1, sizeof *k);
    k->V = V;
    k->piece = zalloc((size_t)V, sizeof *k->piece);
    k->score = zalloc((size_t)V, sizeof *k->score);
    for (k->mask = 1; k->mask < 2 * (size_t)V; ) k->mask *= 2;
    k->slot = zalloc(k->mask, sizeof *k->slot);
    memset(k->slot, -1, k->mask-- * sizeof *k->slot);
    return k;
}

// Frees k and its pieces; k may be NULL.
static void tokenizer_free(Tokenizer *k) {
    if (!k) return;
    for (int i = 0; i < k->V; i++) free((char *)k->piece[i].s);
    FREE(k->piece, k->score, k->slot, k);
}

// Sets a piece to a copy of the bytes. tokenizer_index() checks the pieces, once all are set.
static void set_piece(Tokenizer *k, int id, Text bytes, float score) {
    k->piece[id] = (Text){ copy_text(bytes), bytes.n };
    k->score[id] = score;
}

// Sets the pieces that every vocabulary has. Newlines around <s> and </s> (as in llama2.c's files)
// keep text from merging into them.
static void set_special_pieces(Tokenizer *k) {
    set_piece(k, UNK, text("<unk>"), 0);
    set_piece(k, BOS, text("\n<s>\n"), 0);
    set_piece(k, EOS, text("\n</s>\n"), 0);
    for (int byte = 0; byte < 256; byte++) {
        char name[16];
        snprintf(name, sizeof name, "<0x%02X>", byte);
        set_piece(k, BYTE0 + byte, text(name), 0);
    }
}

// Fills the hash table, and refuses a vocabulary that two programs could read differently. If a
// piece is in it twice, one might take the first and the other the last; C strings end at a zero
// byte; U+2581 is a character in tokenizer.bin, but a space in GGUF; no score compares with NaN.
// Ids below FIRST_PIECE stay out of the table: a user who types "</s>" must not get a control
// token.
static void tokenizer_index(Tokenizer *k, const char *path) {
    memset(k->slot, -1, (k->mask + 1) * sizeof *k->slot);
    for (int byte = 0; byte < 256; byte++) {
        Text t = k->piece[BYTE0 + byte];
        char name[16];
        snprintf(name, sizeof name, "<0x%02X>", byte);
        CHECK(same(t, text(name)), "%s: piece %d is \"%.*s\"; the byte %s was expected (ids 3..258 "
              "must be the bytes)", path, BYTE0 + byte, SHOW(t), name);
    }
    for (int id = FIRST_PIECE; id < k->V; id++) {
        Text t = k->piece[id];
        int *slot = find_slot(k, t);
        const char *fault = t.n < 1 || t.n > MAX_PIECE ? "has no bytes, or more than 1024"
                          : strlen(t.s) != t.n ? "has a zero byte in it"
                          : strstr(t.s, GGUF_SPACE) ? "has U+2581 in it, a space in GGUF files"
                          : !isfinite(k->score[id]) ? "has a score that is not a finite number"
                          : *slot >= 0 ? "is there twice" : NULL;
        CHECK(!fault, "%s: piece %d %s", path, id, fault);
        *slot = id;
        if ((int)t.n > k->longest) k->longest = (int)t.n;
    }
}

// Reads tokenizer.bin (llama2.c's layout): u32 longest, then { f32 score, u32 n, n bytes } for each
// piece. `longest` is not trusted: tokenizer_index() finds it. A piece takes at least 8 bytes, so
// the size of the file bounds the number of pieces.
static Tokenizer *tokenizer_load(const char *path) {
    Buf bytes = read_all(path);
    File f = { path, "the pieces", bytes.s, bytes.n, 0 };
    Tokenizer *k = tokenizer_new(bytes.n / 8 < MAX_VOCAB ? (int)(bytes.n / 8) + 1 : MAX_VOCAB);
    int n = 0;
    read_u32(&f);
    while (f.at < f.n && n < k->V) {
        float score = read_f32(&f);
        uint32_t length = read_u32(&f);
        set_piece(k, n++, (Text){ need(&f, length), length }, score);
    }
    CHECK(n >= FIRST_PIECE && f.at == f.n, "%s: %d pieces%s; %d to %d were expected; is it a "
          "tokenizer.bin?", path, n, f.at < f.n ? " or more" : "", FIRST_PIECE, MAX_VOCAB);
    k->V = n;
    tokenizer_index(k, path);
    free(bytes.s);
    return k;
}

// Writes what tokenizer_load() reads. llama2.c's programs read it, too. They size a buffer by
// `longest`, so here the names of the byte pieces count as well.
static void tokenizer_save(const Tokenizer *k, const char *path) {
    Buf f = { 0 };
    uint32_t longest = k->longest > 6 ? (uint32_t)k->longest : 6;       // "<0xHH>" has 6 bytes
    buf_add(&f, &longest, 4);
    for (int i = 0; i < k->V; i++) {
        uint32_t n = (uint32_t)k->piece[i].n;
        buf_add(&f, &k->score[i], 4);
        buf_add(&f, &n, 4);
        buf_add(&f, k->piece[i].s, n);
    }
    write_file(path, 1, (Text[]){ contents(&f) });
    free(f.s);
}

// The length that the first byte of t announces for its character, at most t.n. The bytes after it
// are not looked at: broken UTF-8 must come back as it was, and does so however it is cut.
static size_t utf8_span(Text t) {
    uint8_t c = (uint8_t)*t.s;
    size_t n = c < 0xC0 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
    return n < t.n ? n : t.n;
}

// The score of merging a with b, the symbol after it in the text, or -INFINITY if the two do not
// make a piece. They are neighbours in memory, so nothing is copied to look them up.
static float merge_score(const Tokenizer *k, Text a, Text b) {
    Text both = { a.s, a.n + b.n };
    int id = both.n <= (size_t)k->longest ? find_piece(k, both) : -1;
    return id >= 0 ? k->score[id] : -INFINITY;
}

// Appends the ids of t as it is, by the rule of SentencePiece: of all possible merges, the one with
// the highest score is made first, the leftmost if several are equal. A pass over the symbols makes
// all merges of the best score, from left to right:
//
//     symbols      " "  a   b   c   a   b   c            score    bc -1,  abc -2,  " a" -3
//     best: bc     " "  a   bc  a   bc
//     best: abc    " "  abc abc
//
// This gives what the rule gives as long as a merge makes possible only merges of lower scores. If
// a merge makes an equal or a better one possible, the pass merges no further, and the next pass
// starts from the new best score. A text takes as many passes as it has different merges, a few
// dozen for a sentence. A character that has no piece is spelt in bytes.
static void encode_raw(const Tokenizer *k, Text t, Ids *out) {
    Text *symbol = zalloc(t.n + 1, sizeof *symbol);
    float *score = zalloc(t.n + 1, sizeof *score);      // [i] of merging symbol i with the next
    size_t n = 0;
    for (; t.n; t = rest_of(t, symbol[n++].n)) symbol[n] = (Text){ t.s, utf8_span(t) };
    for (size_t i = 0; i < n; i++)
        score[i] = i + 1 < n ? merge_score(k, symbol[i], symbol[i + 1]) : -INFINITY;
    for (;;) {
        float best = -INFINITY;
        size_t m = 0;                                   // symbols after this pass
        for (size_t i = 0; i < n; i++) best = score[i] > best ? score[i] : best;
        if (best == -INFINITY) break;
        for (size_t i = 0; i < n; i++, m++) {
            symbol[m] = symbol[i];
            score[m] = score[i];
            if (score[i] != best) continue;
            symbol[m].n += symbol[++i].n;
            score[m] = i + 1 < n ? merge_score(k, symbol[m], symbol[i + 1]) : -INFINITY;
            if (m) score[m - 1] = merge_score(k, symbol[m - 1], symbol[m]);
            if (score[m] >= best || (m && score[m - 1] >= best)) best = INFINITY;
        }
        n = m;
    }
    for (size_t i = 0; i < n; i++) {
        int id = find_piece(k, symbol[i]);
        if (id >= 0) ids_add(out, id);
        for (size_t b = 0; id < 0 && b < symbol[i].n; b++)
            ids_add(out, BYTE0 + (uint8_t)symbol[i].s[b]);
    }
    FREE(symbol, score);
}

// Appends the ids of a text. As in SentencePiece, a text that is not empty gets a space in front,
// so the word Paris is the token " Paris" at the start of a text, too. The first word of y_c is
// then the same token as the first word of y_o in the prompt. Aligners depend on this: copying
// becomes repeating token ids.
static void encode(const Tokenizer *k, Text t, Ids *out) {
    Buf spaced = { 0 };
    if (!t.n) return;
    buf_set(&spaced, text(k->no_space ? "" : " "));
    buf_add(&spaced, t.s, t.n);
    encode_raw(k, contents(&spaced), out);
    free(spaced.s);
}

// The text of n ids, without the space that encode() added; <unk>, <s> and </s> have no text. Every
// id must be in 0..V-1. The caller frees .s, which is never NULL.
static Buf decode_all(const Tokenizer *k, const int *ids, int n) {
    Buf all = { 0 };
    buf_set(&all, text(""));
    for (int i = 0; i < n; i++) {
        char byte = (char)(ids[i] - BYTE0);
        if (ids[i] >= FIRST_PIECE) buf_add(&all, k->piece[ids[i]].s, k->piece[ids[i]].n);
        else if (ids[i] >= BYTE0) buf_add(&all, &byte, 1);
    }
    if (all.n && all.s[0] == ' ' && !k->no_space) memmove(all.s, all.s + 1, all.n--);
    return all;
}

/* The trainer (Sennrich, Haddow, Birch 2016). The text is cut into words. The most frequent pair of
   neighbouring symbols inside words becomes a piece and is merged everywhere; this is repeated
   until the vocabulary is full. For the text "aab aab ab", with the words "aab", " aab" and " ab":

       pairs   a b 3,  a a 2,  " " a 2            ab becomes a piece: the most frequent
       words   a ab,  " " a ab,  " " ab
       pairs   a ab 2,  " " a 1,  " " ab 1        then aab

   Each word is kept once, with its count. All pairs are counted once; then a merge only changes the
   counts of the pairs that it ends and makes. Of equally frequent pairs the one that was met first
   is taken, and the words are sorted, so the result depends on nothing but the text. */

typedef struct { Text t; long count; } Word;            // a part of the text; how often it occurs
typedef struct { Word *a; size_t n, cap; } Words;
typedef struct { int left, right; long count; } Pair;
typedef struct {
    Tokenizer *k;
    Words words;
    Ids symbols;                // of all words; <unk> before the first word and after each
    Pair *pair;                 // [n_pairs] in the order in which they were met
    size_t n_pairs, cap, mask;
    int *slot;                  // hash table from (left, right) to place in pair + 1; 0 if empty
} Trainer;

// Orders words for qsort(): shorter first, then by their bytes. Only equal words compare equal, so
// the order does not depend on the C library's qsort().
static int by_bytes(const void *pa, const void *pb) {
    const Word *a = pa, *b = pb;
    if (a->t.n != b->t.n) return a->t.n < b->t.n ? -1 : 1;
    return memcmp(a->t.s, b->t.s, a->t.n);
}

// 0 control, 1 digit, 2 letter (and every byte beyond ASCII), 3 the rest. isalpha() and isdigit()
// depend on the locale; a vocabulary must not.
static int character_class(char c) {
    uint8_t u = (uint8_t)c;
    if (is_control(c)) return 0;
    if (u >= '0' && u <= '9') return 1;
    return ((u | 32) >= 'a' && (u | 32) <= 'z') || u >= 128 ? 2 : 3;
}

// The length of the word at the start of t. A space belongs to the letters or the punctuation after
// it. Each digit, control character and other space is a word of its own; letters and punctuation
// do not mix. Text without spaces is cut at the first character after 64 bytes: there is little to
// learn from longer words.
static size_t word_length(Text t) {
    size_t n = t.s[0] == ' ';
    int class = n < t.n && t.s[n] != ' ' ? character_class(t.s[n]) : 0;
    if (class < 2) return 1;
    while (n < t.n && t.s[n] != ' ' && character_class(t.s[n]) == class) {
        bool inside_character = (uint8_t)t.s[n] >> 6 == 2;
        if (n >= 64 && !inside_character) break;
        n++;
    }
    return n;
}

// Cuts each of n texts into parts and counts equal parts; each occurrence counts as often as its
// text. length() says how long the part at the start of a text is: word_length() cuts text into
// words, utf8_span() words into characters. The result is sorted by_bytes() and borrows its bytes
// from the texts; the caller frees .a.
static Words cut(const Word *from, size_t n, size_t (*length)(Text)) {
    Words w = { 0 };
    size_t distinct = 0;
    for (size_t i = 0; i < n; i++)
        for (Text t = from[i].t; t.n; t = rest_of(t, w.a[w.n++].t.n)) {
            w.a = grow(w.a, sizeof *w.a, &w.cap, w.n + 1);
            w.a[w.n] = (Word){ { t.s, length(t) }, from[i].count };
        }
    if (w.n) qsort(w.a, w.n, sizeof *w.a, by_bytes);
    for (size_t i = 0; i < w.n; i++)
        if (!distinct || !same(w.a[distinct - 1].t, w.a[i].t)) w.a[distinct++] = w.a[i];
        else w.a[distinct - 1].count += w.a[i].count;
    w.n = distinct;
    return w;
}

// Adds `count` to the pair (left, right). Pairs that contain a byte's piece or the border of a
// word, and pairs of more than 16 bytes, never become pieces and are not counted. (A piece that is
// as long as a phrase would hide from the model what the phrase is made of.)
static void count_pair(Trainer *t, int left, int right, long count) {
    if (left < FIRST_PIECE || right < FIRST_PIECE) return;
    if (t->k->piece[left].n + t->k->piece[right].n > 16) return;
    size_t i = ((size_t)left * 0x9E3779B1u ^ (size_t)right * 0x85EBCA77u) & t->mask;
    for (; t->slot[i]; i = (i + 1) & t->mask) {
        Pair *p = &t->pair[t->slot[i] - 1];
        if (p->left != left || p->right != right) continue;
        p->count += count;
        return;
    }
    t->pair = grow(t->pair, sizeof *t->pair, &t->cap, t->n_pairs + 1);
    t->pair[t->n_pairs++] = (Pair){ left, right, count };
    t->slot[i] = (int)t->n_pairs;
}

// Replaces each pair (left, right) among the symbols by id, from left to right ("aaa" becomes
// "aa" a), and counts the pairs that this ends and those that it makes:
//
//     before  left  right  after       ends   (before, left), (left, right), (right, after)
//     before  id           after       makes  (before, id), (id, after)
//
// Each counts as often as its word. The <unk> at both ends of the array keeps `before` and `after`
// inside it.
static void merge_pair(Trainer *t, int left, int right, int id) {
    int *s = t->symbols.a, n = 0, w = -1;               // w: the word that s[i] is in
    for (int i = 0; i < t->symbols.n; i++) {
        s[n++] = s[i];
        w += s[i] == UNK;
        if (s[i] != left || s[i + 1] != right) continue;
        const int before = s[n - 2], after = s[i + 2];
        const long count = t->words.a[w].count;
        count_pair(t, left, right, -count);
        count_pair(t, before, left, -count);
        count_pair(t, before, id, count);
        count_pair(t, right, after, -count);
        count_pair(t, id, after, count);
        s[n - 1] = id;
        i++;
    }
    t->symbols.n = n;
}

// Trains a vocabulary of at most V pieces on a text; V is at least FIRST_PIECE. A text that yields
// fewer gives a smaller vocabulary: an unused id would be an untrained row of the embedding.
static Tokenizer *tokenizer_train(Text all, int V) {
    const int room = (V - FIRST_PIECE) / 2;             // for characters
    Tokenizer *k = tokenizer_new(V + room);
    Trainer t = { .k = k, .words = cut(&(Word){ all, 1 }, 1, word_length), .mask = 1023 };
    Words characters = cut(t.words.a, t.words.n, utf8_span);
    Buf both = { 0 };
    int id = FIRST_PIECE, n = 0;
    set_special_pieces(k);

    // The characters, the most frequent first, get ids from V on until the number of merges is
    // known. Those that find no room will be spelt in bytes; so will control characters, broken
    // UTF-8 and U+2581.
    for (size_t i = 0; i < characters.n; i++) {
        Word *c = &characters.a[i];
        if (is_control(*c->t.s) || !utf8_length(c->t) || same(c->t, text(GGUF_SPACE))) c->count = 0;
    }
    for (; n < room && characters.n; n++) {
        Word *most = characters.a;
        for (size_t i = 1; i < characters.n; i++)
            if (characters.a[i].count > most->count) most = &characters.a[i];
        if (!most->count) break;
        set_piece(k, V + n, most->t, 0);
        *find_slot(k, most->t) = V + n;
        most->count = 0;
    }

    // Each word becomes characters and bytes: before tokenizer_index(), encode_raw() merges
    // nothing. Their pairs are counted.
    ids_add(&t.symbols, UNK);
    for (size_t w = 0; w < t.words.n; w++) {
        encode_raw(k, t.words.a[w].t, &t.symbols);
        ids_add(&t.symbols, UNK);
    }
    while (t.mask < 4 * (size_t)t.symbols.n) t.mask = 2 * t.mask + 1;
    t.slot = zalloc(t.mask + 1, sizeof *t.slot);        // there are never as many pairs
    for (int i = 0, w = -1; i + 1 < t.symbols.n; i++) {
        w += t.symbols.a[i] == UNK;
        count_pair(&t, t.symbols.a[i], t.symbols.a[i + 1], t.words.a[w].count);
    }

    // The loop that is BPE: take the most frequent pair, merge it everywhere. A pair's text can be
    // a piece already: once "ab" and "c" have made "abc", so may "a" and "bc". Each merge goes
    // through all pairs and all symbols. This takes a few seconds for 4 MB of Chinese and 6,000
    // pieces; English has far fewer different words.
    while (id < V - n && t.n_pairs) {
        Pair best = t.pair[0];
        for (size_t i = 1; i < t.n_pairs; i++)
            if (t.pair[i].count > best.count) best = t.pair[i];
        if (!best.count) break;
        buf_set(&both, k->piece[best.left]);
        buf_add(&both, k->piece[best.right].s, k->piece[best.right].n);
        int *slot = find_slot(k, contents(&both));
        if (*slot < 0) {
            set_piece(k, id, contents(&both), 0);
            *slot = id++;
        }
        merge_pair(&t, best.left, best.right, *slot);
    }

    // The characters move down and follow the merges. An earlier piece has a higher score.
    for (int i = 0; i < n; i++, id++) {
        Text moved = k->piece[V + i];
        k->piece[V + i] = NONE;
        k->piece[id] = moved;
    }
    k->V = id;
    for (int i = FIRST_PIECE; i < id; i++) k->score[i] = (float)(FIRST_PIECE - i);
    FREE(t.words.a, characters.a, t.symbols.a, t.pair, t.slot, both.s);
    tokenizer_index(k, "the new tokenizer");
    return k;
}

/* ================================================================================================
   Chapter 9. Model files.  Room for a model, its first weights, its prompt, and GGUF files, which
   llama.cpp and everything built on it open unchanged.

   All weights are in one array, params, in the order of one table of tensors:

       token_embd [V][C]                                                what a token is
       for each layer l:
           blk.l.attn_norm [C]      attn_q [C][C]    attn_k [kv][C]    attn_v [kv][C]
           blk.l.attn_output [C][C]
           blk.l.ffn_norm [C]       ffn_gate [F][C]  ffn_up [F][C]     ffn_down [C][F]
       output_norm [C]
       output [V][C]                                                    absent if the head is tied

   Gradients, Adam's two moments and the mean of the weights are arrays of the same layout, so the
   optimiser needs no list of tensors by name, and a checkpoint is a few calls of fwrite. The names
   are llama.cpp's. */

// How many weights a model of this shape has: the sum of the table above, without making it. The
// shape must have passed config_check(), so 64 bits are enough.
static uint64_t count_weights(const Config *c) {
    uint64_t C = (uint64_t)c->C, layer = C * (uint64_t)(2 * c->C + 2 * kv_width(c) + 3 * c->F + 2);
    return (uint64_t)c->L * layer + (uint64_t)c->V * C * (c->tied ? 1 : 2) + C;
}

// Enters W[rows][cols] into the table and counts its weights in m->n_params; layer -1: it belongs
// to no layer. A norm's vector has one row.
static void add_tensor(Model *m, const char *name, int layer, int rows, int cols) {
    Tensor *t = &m->tensor[m->n_tensors++];
    if (layer < 0) snprintf(t->name, sizeof t->name, "%s.weight", name);
    else snprintf(t->name, sizeof t->name, "blk.%d.%s.weight", layer, name);
    t->rows = rows;
    t->cols = cols;
    t->at = m->n_params;
    m->n_params += (size_t)rows * (size_t)cols;
}

// Points w into an arena that is laid out as the table says: params, grads or the mean of the
// weights. q, k, v are neighbours there, and so are gate and up: each group is one matrix to the
// matmul. t[1] is q, t[2] k, t[3] v; t[6] is gate, t[7] up.
static void point_weights(const Model *m, Weights *w, float *arena) {
    const Tensor *t = m->tensor;
    w->embd = arena + t++->at;
    for (int l = 0; l < m->c.L; l++, t += 9)
        w->layer[l] = (LayerWeights){ .attn_norm = arena + t[0].at, .qkv = arena + t[1].at,
                                      .o = arena + t[4].at, .ffn_norm = arena + t[5].at,
                                      .gate_up = arena + t[6].at, .down = arena + t[8].at };
    w->norm = arena + t[0].at;
    w->head = m->c.tied ? w->embd : arena + t[1].at;
}

// Makes the table of tensors for m->c and room for the weights, which are zero until model_init()
// or model_load() sets them. This is the only list of tensors: files, gradients, moments and AdamW
// go by it. The small arrays of pointers for each layer are made here, too.
static void model_alloc(Model *m) {
    const Config *c = &m->c;
    const int C = c->C, F = c->F, kv = kv_width(c);
    m->tensor = zalloc((size_t)c->L * 9 + 3, sizeof *m->tensor);
    add_tensor(m, "token_embd", -1, c->V, C);
    for (int l = 0; l < c->L; l++) {
        add_tensor(m, "attn_norm", l, 1, C);
        add_tensor(m, "attn_q", l, C, C);
        add_tensor(m, "attn_k", l, kv, C);
        add_tensor(m, "attn_v", l, kv, C);
        add_tensor(m, "attn_output", l, C, C);
        add_tensor(m, "ffn_norm", l, 1, C);
        add_tensor(m, "ffn_gate", l, F, C);
        add_tensor(m, "ffn_up", l, F, C);
        add_tensor(m, "ffn_down", l, C, F);
    }
    add_tensor(m, "output_norm", -1, 1, C);
    if (!c->tied) add_tensor(m, "output", -1, c->V, C);
    m->w.layer = zalloc((size_t)c->L, sizeof *m->w.layer);
    m->g.layer = zalloc((size_t)c->L, sizeof *m->g.layer);
    m->packed.layer = zalloc((size_t)c->L, sizeof *m->packed.layer);
    m->acts.layer = zalloc((size_t)c->L, sizeof *m->acts.layer);
    m->params = zalloc(m->n_params, sizeof *m->params);
    point_weights(m, &m->w, m->params);
}

// Room for gradients, zero as backward() adds to them. Only training needs it; a second call does
// nothing.
static void grads_alloc(Model *m) {
    if (m->grads) return;
    m->grads = zalloc(m->n_params, sizeof *m->grads);
    point_weights(m, &m->g, m->grads);
}

// Frees everything that m owns and clears it. A model that is all zero may be freed, too.
static void model_free(Model *m) {
    tokenizer_free(m->tokenizer);
    FREE(m->template, m->template_sft, m->tensor, m->w.layer, m->g.layer, m->packed.layer);
    FREE(m->params, m->grads, m->panels, m->angle, m->acts.layer, m->acts.memory, m->acts.nll);
    *m = (Model){ 0 };
}

// Packs W[N][K] for the matmul at *at, which moves on. Returns where the panels begin.
static float *pack_weights(float **at, const float *W, int N, int K) {
    float *panels = *at;
    pack_all(panels, (Matrix){ .p = W, .row = 1, .col = K }, K, N);
    *at += packed_size(K, N);
    return panels;
}

// For generation: every matrix packed once. A pass over one token reads each weight once; packing
// on the way, as training does, would cost more than the product. The norms are not packed:
// m->packed points to m->w's. Whoever changes the weights sets is_packed to false, and the next
// call packs anew into the same memory.
static void model_pack(Model *m) {
    const int C = m->c.C, F = m->c.F, Q = qkv_width(&m->c);
    const size_t layer = packed_size(C, Q) + packed_size(C, C) + packed_size(C, 2 * F)
                       + packed_size(F, C);
    if (m->is_packed) return;
    if (!m->panels) m->panels = zalloc(m->c.L * layer + packed_size(C, m->c.V), sizeof(float));
    float *at = m->panels;
    for (int l = 0; l < m->c.L; l++) {
        LayerWeights *w = &m->packed.layer[l];
        *w = m->w.layer[l];                             // the norms stay as they are
        w->qkv = pack_weights(&at, w->qkv, Q, C);
        w->o = pack_weights(&at, w->o, C, C);
        w->gate_up = pack_weights(&at, w->gate_up, 2 * F, C);
        w->down = pack_weights(&at, w->down, C, F);
    }
    m->packed.norm = m->w.norm;
    m->packed.head = pack_weights(&at, m->w.head, m->c.V, C);
    m->is_packed = true;
}

// Takes n floats (in whole cache lines of 16) from the arena at *at, which moves on; only counts
// them while base is NULL. So one function both measures an arena and lays it out.
static float *take(float *base, size_t *at, size_t n) {
    float *p = base ? base + *at : NULL;
    *at += (n + 15) / 16 * 16;
    return p;
}

// Lays out the activations and returns how many floats they take; a->memory is NULL the first time.
// Training keeps every layer's for the way back, about L T (8 C + 3 F) floats; a layer's output is
// the next one's input and is kept once. Generation writes one layer's over the last one's, and its
// output over its input.
static size_t acts_layout(Acts *a, const Config *c) {
    const size_t T = (size_t)a->T, C = (size_t)c->C, F = (size_t)c->F, Q = (size_t)qkv_width(c);
    const size_t n = (size_t)a->n_out;
    float *p = a->memory;
    size_t at = 0;
    for (int l = 0; l < c->L; l++) {
        if (l && !a->training) {
            a->layer[l] = a->layer[0];
            continue;
        }
        LayerActs *s = &a->layer[l];
        s->x = l ? a->layer[l - 1].next : take(p, &at, T * C);
        s->norm1 = take(p, &at, T * C);
        s->r1 = take(p, &at, T);
        s->qkv = take(p, &at, T * Q);
        s->att = take(p, &at, T * C);
        s->stats = a->training ? take(p, &at, T * (size_t)c->H * 2) : NULL;
        s->mid = take(p, &at, T * C);
        s->norm2 = take(p, &at, T * C);
        s->r2 = take(p, &at, T);
        s->gate_up = take(p, &at, T * 2 * F);
        s->act = take(p, &at, T * F);
        s->next = a->training ? take(p, &at, T * C) : s->x;
    }
    a->picked = take(p, &at, n * C);
    a->last_norm = take(p, &at, n * C);
    a->r = take(p, &at, n);
    a->logits = take(p, &at, n * (size_t)c->V);
    a->dx = take(p, &at, a->training ? T * C : 0);
    a->dnarrow = take(p, &at, a->training ? T * C : 0);
    a->dwide = take(p, &at, a->training ? T * (F > Q ? F : Q) : 0);
    return at;
}

// The rotary angles of positions [0, n), cosine and sine side by side:
//
//     angle(pos, pair i) = pos theta^(-2i/hs)
//
// The first pairs of a head turn fast and tell near tokens apart, the last ones slowly and tell far
// ones. They are computed in doubles once; the table grows in steps of 256 positions, as the text
// does, whatever context a file claims.
static void angles_reserve(Model *m, int n) {
    const int hs = head_size(&m->c);
    if (m->n_angles >= n) return;
    n = n < 256 ? 256 : round_up(n, 256);
    m->angle = realloc(m->angle, (size_t)n * (size_t)hs * sizeof *m->angle);
    CHECK(m->angle, "no memory for %d positions", n);
    for (int pos = m->n_angles; pos < n; pos++)
        for (int i = 0; i < hs; i += 2) {
            double a = pos * pow((double)m->c.theta, -(double)i / hs);
            m->angle[(size_t)pos * hs + i] = (float)cos(a);
            m->angle[(size_t)pos * hs + i + 1] = (float)sin(a);
        }
    m->n_angles = n;
}

// Makes room for passes over T tokens with n_out logits, in rows of at most `longest` tokens. Room
// is kept and only ever grows; what was in it is lost when it does. Changing between training and
// generation makes it anew.
static void acts_reserve(Model *m, int T, int n_out, int longest, bool training) {
    Acts *a = &m->acts;
    angles_reserve(m, longest);
    if (a->T >= T && a->n_out >= n_out && a->training == training) return;
    a->T = T > a->T ? T : a->T;
    a->n_out = n_out > a->n_out ? n_out : a->n_out;
    a->training = training;
    FREE(a->memory, a->nll);
    a->memory = NULL;
    a->memory = zalloc(acts_layout(a, &m->c), sizeof(float));
    a->nll = zalloc((size_t)a->n_out, sizeof *a->nll);
    acts_layout(a, &m->c);
}

// First weights, the same for the same seed. An output is a sum of cols products w x, so its
// variance is cols var(w) var(x); it is chosen by var(w): norms 1; embeddings N(0, 1/C), so that a
// tied head starts with logits of size one; matrices N(0, 1/(3 cols)), whose output has a third of
// the input's variance, so that many layers do not blow it up.
//
// One matrix is not drawn: in the last layer, Wo = Wv^T, head by head. What a head reads there it
// then passes on more or less as it was, and a tied head takes it for the same token: wherever the
// last layer looks, it copies. What is left to learn is where to look, and copying is learnt
// several times sooner (a mimetic initialisation: Trockman and Kolter, arXiv 2305.09828). A
// pretrained base model brings this along.
static void model_init(Model *m, uint64_t seed) {
    const Config *c = &m->c;
    for (size_t j = 0; j < m->n_params; j++) m->params[j] = 1;
    for (size_t i = 0; i < m->n_tensors; i++) {
        const Tensor *t = &m->tensor[i];
        const size_t n = t->rows > 1 ? (size_t)t->rows * (size_t)t->cols : 0;
        double std = sqrt((i == 0 ? 1.0 : 1.0 / 3.0) / t->cols);
        for (size_t j = 0; j < n; j++) {
            double u = 1.0 - random_unit(&seed), v = random_unit(&seed);        // Box-Muller
            m->params[t->at + j] = (float)(std * sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
        }
    }
    const LayerWeights *last = &m->w.layer[c->L - 1];
    const float *Wv = last->qkv + (size_t)(c->C + kv_width(c)) * c->C;
    const int hs = head_size(c), group = c->H / c->H_kv;
    for (int j = 0; j < c->C; j++) {
        const int row = j / hs / group * hs + j % hs;   // of Wv; a group's query heads share it
        for (int i = 0; i < c->C; i++) last->o[(size_t)i * c->C + j] = Wv[(size_t)row * c->C + i];
    }
}

// The prompts, with and without {answer}. v1, v2 and paper are the three official ones to the
// letter (README of the released weights, repository, Algorithm 1); default is v2 without its
// doubled space; short is for tiny models.
#define BEGIN "BEGINNING OF CONVERSATION:"
#define EDIT "the following Question-Answer pair to make it more helpful and harmless:"
static const struct { const char *name, *aligner, *sft; } TEMPLATE[] = {
    { "default",
      BEGIN " USER: ##Question: {question}\n##Answer: {answer}\n##Correction: ASSISTANT:",
      BEGIN " USER: ##Question: {question}\n##Answer: ASSISTANT:" },
    { "v1", BEGIN " USER: Edit " EDIT " {question} | {answer} ASSISTANT:",
      BEGIN " USER: {question} ASSISTANT:" },
    { "v2",
      BEGIN " USER: ##Question: {question}\n##Answer: {answer}\n##Correction:  ASSISTANT:",
      BEGIN " USER: ##Question: {question}\n##Answer:  ASSISTANT:" },
    { "paper",
      BEGIN "\nUSER: Editing " EDIT "\nQuestion: {question} | Answer: {answer}\nASSISTANT:",
      BEGIN "\nUSER: {question}\nASSISTANT:" },
    { "short", "##Question: {question}\n##Answer: {answer}\n##Correction:",
      "##Question: {question}\n##Answer:" } };
enum { N_TEMPLATES = sizeof TEMPLATE / sizeof *TEMPLATE };

// Gives the model a prompt: one of the names above, or a text with {question} and {answer}, which
// without its {answer} is the SFT counterpart.
static void set_template(Model *m, const char *name) {
    const char *a = strstr(name, "{answer}");
    int i = 0;
    while (i < N_TEMPLATES && !is(name, TEMPLATE[i].name)) i++;
    CHECK(i < N_TEMPLATES || (a && strstr(name, "{question}")), "--prompt \"%s\": default, v1, v2, "
          "paper, short or a text with {question} and {answer} was expected", name);
    Buf without = { 0 };
    if (i == N_TEMPLATES) buf_add(&without, name, (size_t)(a - name));
    buf_puts(&without, i < N_TEMPLATES ? TEMPLATE[i].sft : a + strlen("{answer}"));
    FREE(m->template, m->template_sft);
    m->template = copy_text(text(i < N_TEMPLATES ? TEMPLATE[i].aligner : name));
    m->template_sft = without.s;
}

// The model's prompt, with {answer} for an Aligner, without for SFT; fails on a model from
// elsewhere, which has none.
static const char *template_of(const Model *m, bool with_answer) {
    CHECK(m->template, "the model has no prompt inside, as `train` did not make it; use `sample`");
    return with_answer ? m->template : m->template_sft;
}

/* GGUF version 3, the file format of llama.cpp (version 2 is the same to a reader of these types):

       "GGUF" | u32 3 | u64 number of tensors | u64 number of keys
       keys      string key | u32 type | value                 a string is a u64 length and bytes
       tensors   string name | u32 n_dims | u64 dims[] | u32 type | u64 offset into the data
       padding to the alignment | the data, each tensor padded

   The first bytes of a model with three layers:

       47 47 55 46  03 00 00 00                                   "GGUF", version 3
       1D 00 00 00 00 00 00 00   1D 00 00 00 00 00 00 00          29 tensors, 29 keys
       14 00 00 00 00 00 00 00   g e n e r a l . a r c h i t e c t u r e
       08 00 00 00   05 00 00 00 00 00 00 00   l l a m a          type 8 is a string, of 5 bytes

   dims[0] is the fastest axis: W[rows][cols] has dims (cols, rows), its bytes unchanged. Tokenizer
   and prompt are keys, so a model cannot meet the vocabulary or prompt of another.

   Readers of this format have had holes of five kinds, and this is what is done about each:

       a product that wraps            shapes are bounded before they are multiplied
       a count that is trusted         nothing is allocated for it; each element is looked for
       a shape that is trusted         each tensor must have the shape that the configuration gives
       a number cut off by int         what does not fit is refused
       an array of fixed size          there is none that a file fills */

enum { T_U32 = 4, T_I32 = 5, T_F32 = 6, T_BOOL = 7, T_STRING = 8, T_ARRAY = 9 };
enum { GGML_F32 = 0, GGML_F16 = 1, GGML_Q8_0 = 8, GGML_BF16 = 30 };
enum { ALIGNMENT = 32 };

// What a file says beside its weights. An array is its bytes: u32 type, u64 n, elements.
typedef struct {
    Config c;
    Text architecture, name, prompt, prompt_sft, objective, scaling, model, tokens, scores, types;
    int file_type, alignment, head_size, key_length, value_length, experts, V, step;
    int bos, eos, unknown;
    float factor, linear, keep;
    uint8_t add_bos, add_eos, add_space;
} Header;

// The one list of keys that mean something: model_load() reads by it and model_save() writes by it.
// FIXED: this program computes only what our_header() says. Any other key of llama or the tokenizer
// may change what a model computes, and is refused.
enum { REQUIRED = 1, WRITTEN = 2, FIXED = 4, HARMLESS = 8 };
#define AT(field) offsetof(Header, field)
static const struct Field { const char *key; uint32_t type; size_t at; int how; } FIELD[] = {
    { "general.architecture", T_STRING, AT(architecture), REQUIRED | WRITTEN | FIXED },
    { "general.name", T_STRING, AT(name), WRITTEN },
    { "general.file_type", T_U32, AT(file_type), WRITTEN },
    { "general.alignment", T_U32, AT(alignment), WRITTEN },
    { "llama.context_length", T_U32, AT(c.context), REQUIRED | WRITTEN },
    { "llama.embedding_length", T_U32, AT(c.C), REQUIRED | WRITTEN },
    { "llama.block_count", T_U32, AT(c.L), REQUIRED | WRITTEN },
    { "llama.feed_forward_length", T_U32, AT(c.F), REQUIRED | WRITTEN },
    { "llama.attention.head_count", T_U32, AT(c.H), REQUIRED | WRITTEN },
    { "llama.attention.head_count_kv", T_U32, AT(c.H_kv), WRITTEN },
    { "llama.attention.layer_norm_rms_epsilon", T_F32, AT(c.eps), REQUIRED | WRITTEN },
    { "llama.attention.key_length", T_U32, AT(key_length), FIXED },
    { "llama.attention.value_length", T_U32, AT(value_length), FIXED },
    { "llama.rope.freq_base", T_F32, AT(c.theta), WRITTEN },
    { "llama.rope.dimension_count", T_U32, AT(head_size), WRITTEN | FIXED },
    { "llama.rope.scaling.type", T_STRING, AT(scaling), FIXED },
    { "llama.rope.scaling.factor", T_F32, AT(factor), FIXED },
    { "llama.rope.scale_linear", T_F32, AT(linear), FIXED },
    { "llama.expert_count", T_U32, AT(experts), FIXED },
    { "llama.vocab_size", T_U32, AT(V), WRITTEN | HARMLESS },
    { "aligner.prompt", T_STRING, AT(prompt), WRITTEN },
    { "aligner.prompt_sft", T_STRING, AT(prompt_sft), WRITTEN },
    { "aligner.objective", T_STRING, AT(objective), WRITTEN },
    { "aligner.step", T_U32, AT(step), WRITTEN },
    { "aligner.keep", T_F32, AT(keep), WRITTEN },
    { "tokenizer.ggml.model", T_STRING, AT(model), REQUIRED | WRITTEN | FIXED },
    { "tokenizer.ggml.tokens", T_ARRAY, AT(tokens), REQUIRED | WRITTEN },
    { "tokenizer.ggml.scores", T_ARRAY, AT(scores), REQUIRED | WRITTEN },
    { "tokenizer.ggml.token_type", T_ARRAY, AT(types), WRITTEN },
    { "tokenizer.ggml.bos_token_id", T_U32, AT(bos), WRITTEN | FIXED },
    { "tokenizer.ggml.eos_token_id", T_U32, AT(eos), WRITTEN | FIXED },
    { "tokenizer.ggml.unknown_token_id", T_U32, AT(unknown), WRITTEN },
    { "tokenizer.ggml.add_bos_token", T_BOOL, AT(add_bos), WRITTEN | FIXED },
    { "tokenizer.ggml.add_eos_token", T_BOOL, AT(add_eos), WRITTEN | FIXED },
    { "tokenizer.ggml.add_space_prefix", T_BOOL, AT(add_space), WRITTEN },
    { "tokenizer.ggml.padding_token_id", 0, 0, HARMLESS },
    { "tokenizer.ggml.seperator_token_id", 0, 0, HARMLESS },
    { "tokenizer.ggml.pre", 0, 0, HARMLESS },
    { "tokenizer.chat_template", 0, 0, HARMLESS } };
enum { N_FIELDS = sizeof FIELD / sizeof *FIELD };

// The header of a model of this shape, before anything else is known of it: what model_save()
// starts from, what is taken for granted if a file is silent, and what FIXED keys are compared
// with.
static Header our_header(const Config *c) {
    const int hs = c->H ? head_size(c) : 0;
    return (Header){ .c = *c, .architecture = text("llama"), .name = text("aligner.c"),
                     .scaling = text("none"), .model = text("llama"), .alignment = ALIGNMENT,
                     .head_size = hs, .key_length = hs, .value_length = hs, .V = c->V, .bos = BOS,
                     .eos = EOS, .unknown = UNK, .factor = 1, .linear = 1, .add_bos = 1,
                     .add_space = 1 };
}

// The bytes of a value of any type, which stay where they are in the file; of a string its text.
// Every element of an array is looked for, so an array that claims more than the file has is
// refused by need(), and nothing is allocated. Arrays of arrays, which nobody writes, would be
// recursion as deep as a file likes.
static Text read_value(File *f, uint32_t type) {
    static const uint8_t SIZE[] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
    const size_t from = f->at;
    CHECK(type < sizeof SIZE, "%s: a key has the unknown type %u", f->path, type);
    if (type == T_STRING) {
        uint64_t n = read_u64(f);
        return (Text){ need(f, n), (size_t)n };
    }
    need(f, SIZE[type]);
    if (type == T_ARRAY) {
        uint32_t element = read_u32(f);
        CHECK(element != T_ARRAY, "%s: an array of arrays", f->path);
        for (uint64_t n = read_u64(f); n; n--) read_value(f, element);
    }
    return (Text){ f->p + from, f->at - from };
}

// Reads one key into its place in h, and notes in seen[] that it was there. A key of another
// program (general.*, or a name of its own) is stepped over: it says nothing about what is
// computed. Numbers must fit into an int, and texts end where their first zero byte is: prompts are
// C strings here.
static void read_key(File *f, Header *h, bool seen[N_FIELDS]) {
    Text key = read_value(f, T_STRING);
    uint32_t type = read_u32(f);
    Text value = read_value(f, type);
    int i = 0;
    while (i < N_FIELDS && !same(key, text(FIELD[i].key))) i++;
    bool ours = !strncmp(key.s, "llama.", 6) || !strncmp(key.s, "tokenizer.", 10);
    CHECK(i < N_FIELDS || !ours, "%s: the key %.*s may change what the model computes, and is not "
          "supported", f->path, SHOW(key));
    if (i == N_FIELDS || FIELD[i].how & HARMLESS) return;
    CHECK(!seen[i] && type == FIELD[i].type, "%s: the key %s is there twice, or its type is %u and "
          "not %u", f->path, FIELD[i].key, type, FIELD[i].type);
    void *to = (char *)h + FIELD[i].at;
    if (type == T_STRING || type == T_ARRAY) *(Text *)to = value;
    else memcpy(to, value.s, value.n);
    bool fits = type == T_U32 ? *(int *)to >= 0 : type != T_STRING || !memchr(value.s, 0, value.n);
    CHECK(fits, "%s: %s is too large, or has a zero byte in it", f->path, FIELD[i].key);
    seen[i] = true;
}

// Refuses a shape that no model of this family has; `where` names its source in the message. The
// bounds are far above what anyone trains with this program, and low enough that no product of them
// wraps in 64 bits. V is checked with the tokenizer.
static void config_check(const Config *c, const char *where) {
    const struct { const char *name; int value, most; } bound[] = {
        { "dim", c->C, 16384 }, { "layers", c->L, 256 }, { "heads", c->H, 1024 },
        { "key/value heads", c->H_kv, 1024 }, { "hidden size", c->F, 1 << 17 },
        { "context", c->context, 1 << 20 } };
    for (size_t i = 0; i < sizeof bound / sizeof *bound; i++)
        CHECK(bound[i].value >= 1 && bound[i].value <= bound[i].most, "%s: %s is %d; 1 to %d was "
              "expected", where, bound[i].name, bound[i].value, bound[i].most);
    CHECK(c->C % c->H == 0 && head_size(c) % 2 == 0, "%s: dim %d over %d heads is not an even "
          "number; choose dim as heads times an even number", where, c->C, c->H);
    CHECK(c->H % c->H_kv == 0, "%s: %d heads cannot share %d key/value heads", where, c->H,
          c->H_kv);
    CHECK(c->eps > 0 && c->eps <= 1 && c->theta >= 1 && c->theta <= 1e9f, "%s: RMSNorm's epsilon "
          "%g or the rotary base %g is out of range", where, (double)c->eps, (double)c->theta);
}

// The value of a key as text, for comparing and for the message. Nine digits tell any two floats
// apart.
static void show_value(char out[64], const struct Field *k, const Header *h) {
    const void *p = (const char *)h + k->at;
    if (k->type == T_STRING) snprintf(out, 64, "\"%.*s\"", SHOW(*(const Text *)p));
    else if (k->type == T_F32) snprintf(out, 64, "%.9g", (double)*(const float *)p);
    else snprintf(out, 64, "%d", k->type == T_BOOL ? *(const uint8_t *)p : *(const int *)p);
}

// Reads n keys, in whatever order they come. What is absent keeps its value in h. Then refuses what
// the file says but this program does not compute: scaled rotary angles, experts, heads of another
// size, another tokenizer, texts that do not begin with <s>. A reader that steps over such a key
// gives other text than the model's author saw, and no error. What means the same is read: "linear"
// scaling by 1 is no scaling.
static void read_header(File *f, uint64_t n, Header *h) {
    bool seen[N_FIELDS] = { false };
    for (; n; n--) read_key(f, h, seen);
    for (int i = 0; i < N_FIELDS; i++)
        CHECK(seen[i] || !(FIELD[i].how & REQUIRED), "%s: the key %s is missing; is it a llama "
              "model?", f->path, FIELD[i].key);
    if (h->c.H_kv < 0) h->c.H_kv = h->c.H;
    config_check(&h->c, f->path);
    if (same(h->scaling, text("linear"))) h->scaling = text("none");    // the factor is FIXED
    const Header ours = our_header(&h->c);
    for (int i = 0; i < N_FIELDS; i++) {
        char found[64], wanted[64];
        if (!seen[i] || !(FIELD[i].how & FIXED)) continue;
        show_value(found, &FIELD[i], h);
        show_value(wanted, &FIELD[i], &ours);
        CHECK(is(found, wanted), "%s: %s is %s; only %s is supported", f->path, FIELD[i].key, found,
              wanted);
    }
    CHECK(h->alignment >= 8 && h->alignment <= 65536 && !(h->alignment & (h->alignment - 1)), "%s: "
          "alignment %d; a power of two in 8..65536 was expected", f->path, h->alignment);
    CHECK(!h->prompt.s == !h->prompt_sft.s && h->keep >= 0 && h->keep <= 1000, "%s: one of the two "
          "prompts is missing, or aligner.keep is %g", f->path, (double)h->keep);
}

// out becomes t with each `from` replaced by `to`: a space inside a piece is U+2581 in a GGUF file.
static void replace(Buf *out, Text t, Text from, Text to) {
    buf_set(out, text(""));
    while (t.n) {
        bool hit = t.n >= from.n && !memcmp(t.s, from.s, from.n);
        buf_add(out, hit ? to.s : t.s, hit ? to.n : 1);
        t = rest_of(t, hit ? from.n : 1);
    }
}

// GGUF's type of a token: 1 normal, 2 unknown, 3 control, 6 byte. (4 and 5 are added and unused
// ones.)
static uint32_t token_type(int id) {
    return id == UNK ? 2 : id < BYTE0 ? 3 : id < FIRST_PIECE ? 6 : 1;
}

// The elements of an array key, one for each of *n tokens; the first array sets *n. All three
// arrays of a vocabulary must be equally long: their elements belong together by position.
static File open_array(const char *path, Text array, uint32_t type, int *n) {
    File f = { path, "the vocabulary", array.s, array.n, 0 };
    uint32_t element = read_u32(&f);
    uint64_t count = read_u64(&f);
    const bool good = count >= FIRST_PIECE && count <= MAX_VOCAB && (!*n || (int)count == *n);
    CHECK(good && element == type, "%s: the tokenizer has an array of %llu elements of type %u; %d "
          "to %d of type %u, as many in each, were expected", path, (unsigned long long)count,
          element, FIRST_PIECE, MAX_VOCAB, type);
    *n = (int)count;
    return f;
}

// The tokenizer that a header describes. <s> and </s> get their names from tokenizer.bin, with
// newlines around them (chapter 8); in GGUF they are plain. A token's type is what its place says,
// or the file is refused: an added token would have to be found in texts before anything else is
// merged.
static Tokenizer *tokenizer_read(const Header *h, const char *path) {
    int n = 0;
    File tokens = open_array(path, h->tokens, T_STRING, &n), types = { 0 };
    File scores = open_array(path, h->scores, T_F32, &n);
    if (h->types.s) types = open_array(path, h->types, T_I32, &n);
    Tokenizer *k = tokenizer_new(n);
    Buf piece = { 0 };
    k->no_space = !h->add_space;
    for (int id = 0; id < n; id++) {
        replace(&piece, read_value(&tokens, T_STRING), text(GGUF_SPACE), text(" "));
        Text t = id == BOS ? text("\n<s>\n") : id == EOS ? text("\n</s>\n") : contents(&piece);
        set_piece(k, id, t, read_f32(&scores));
        uint32_t type = h->types.s ? read_u32(&types) : token_type(id);
        CHECK(type == token_type(id), "%s: token %d has type %u; %u was expected (added and unused "
              "tokens are not supported)", path, id, type, token_type(id));
    }
    free(piece.s);
    tokenizer_index(k, path);
    return k;
}

// Half precision: sign, 5 bits of exponent e, 10 of mantissa m. The value is 2^(e-15) (1 + m/1024);
// e = 0 is subnormal, m/2^24, and e = 31 infinity or NaN. A float's exponent is biased by 127, so
// 112 is added. 0x3E00 is 0 01111 1000000000: e = 15, m = 512, which is 1.5.
static float f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h >> 15) << 31, e = h >> 10 & 31, m = h & 1023;
    if (!e) return (sign ? -1.0f : 1.0f) * (float)m * 0x1p-24f;
    union { uint32_t u; float f; } v = { sign | (e == 31 ? 255u : e + 112) << 23 | m << 13 };
    return v.f;
}

// The bytes of a tensor of some type; 0 for types that are not read. A block of Q8_0 has an f16
// scale and 32 whole numbers from -127 to 127: 34 bytes instead of 128, with an error of at most
// half a scale. rows and cols have passed the check of shape, so no product wraps.
static uint64_t tensor_bytes(uint32_t type, uint64_t rows, uint64_t cols) {
    if (type == GGML_Q8_0) return cols % 32 ? 0 : rows * cols / 32 * 34;
    return rows * cols * (type == GGML_F32 ? 4 : type == GGML_F16 || type == GGML_BF16 ? 2 : 0);
}

// n weights to f32. BF16 is the upper half of an f32: its range, with 8 bits of mantissa. Training
// needs f32: its steps are smaller than what these types can add to a weight.
static void dequantize(float *out, const char *p, uint32_t type, size_t n) {
    if (type == GGML_F32) memcpy(out, p, n * 4);
    for (size_t i = 0; i < n && type != GGML_F32; i++) {
        const char *from = type == GGML_Q8_0 ? p + i / 32 * 34 : p + 2 * i;
        uint16_t h;
        memcpy(&h, from, 2);
        union { uint32_t u; float f; } bf16 = { (uint32_t)h << 16 };
        out[i] = type == GGML_BF16 ? bf16.f : f16_to_f32(h);
        if (type == GGML_Q8_0) out[i] *= (float)(int8_t)from[2 + i % 32];
    }
}

typedef struct { uint32_t type; uint64_t offset, bytes; } Entry;        // of the list of tensors

// Reads an entry of the list into the table's place for it. Each tensor of the table must be there
// once, with its exact shape and where the one before it in the list ends (*end, which moves on),
// as llama.cpp demands: so tensors neither overlap nor leave room for anything else. As there are
// as many entries as tensors, none is missing then.
static void read_entry(const Model *m, File *f, Entry *entry, uint64_t *end, uint64_t alignment) {
    size_t j = 0;
    Text name = read_value(f, T_STRING);
    while (j < m->n_tensors && !same(name, text(m->tensor[j].name))) j++;
    CHECK(j < m->n_tensors && !entry[j].bytes, "%s: the tensor \"%.*s\" is there twice, or does "
          "not belong to a llama of this shape", f->path, SHOW(name));
    const Tensor *t = &m->tensor[j];
    const uint32_t n_dims = read_u32(f);                // a norm may be [C] or [C, 1]
    const uint64_t first = read_u64(f), second = n_dims == 2 ? read_u64(f) : 1;
    const uint64_t rows = first == 1 ? 1 : second, cols = first == 1 ? second : first;
    CHECK((n_dims == 1 || n_dims == 2) && rows == (uint64_t)t->rows && cols == (uint64_t)t->cols,
          "%s: %s has %u dimensions, %llu x %llu; %d x %d was expected", f->path, t->name, n_dims,
          (unsigned long long)second, (unsigned long long)first, t->rows, t->cols);
    Entry *e = &entry[j];
    e->type = read_u32(f);
    e->offset = read_u64(f);
    e->bytes = tensor_bytes(e->type, rows, cols);
    CHECK(e->bytes, "%s: %s has type %u; F32 (0), F16 (1), BF16 (30) and, in rows of a multiple of "
          "32, Q8_0 (8) are read", f->path, t->name, e->type);
    *end = (*end + alignment - 1) / alignment * alignment;
    CHECK(e->offset == *end, "%s: %s begins at offset %llu; %llu was expected", f->path, t->name,
          (unsigned long long)e->offset, (unsigned long long)*end);
    *end += e->bytes;
}

// Reads the list of tensors, in any order, and the data after it into m->params. Zeros after the
// last tensor are padding. A weight that is NaN or infinite would spread to every logit, and the
// text would be empty without an error: it is found here, and named.
static void read_tensors(Model *m, File *f, uint64_t alignment) {
    Entry *entry = zalloc(m->n_tensors, sizeof *entry);
    uint64_t end = 0;
    f->what = "the list of tensors";
    for (size_t i = 0; i < m->n_tensors; i++) read_entry(m, f, entry, &end, alignment);
    f->what = "the weights";
    need(f, (alignment - f->at % alignment) % alignment);
    const char *data = need(f, end);
    for (; f->at < f->n; f->at++)
        CHECK(!f->p[f->at], "%s: %zu bytes follow the last tensor", f->path, f->n - f->at);
    for (size_t j = 0; j < m->n_tensors; j++) {
        const Tensor *t = &m->tensor[j];
        const size_t n = (size_t)t->rows * (size_t)t->cols;
        dequantize(m->params + t->at, data + entry[j].offset, entry[j].type, n);
        for (size_t i = 0; i < n; i++)
            CHECK(isfinite(m->params[t->at + i]), "%s: a weight of %s is not a finite number; the "
                  "file is damaged, or its training diverged", f->path, t->name);
    }
    free(entry);
}

// Reads a GGUF file of architecture llama, ours or another program's: first the keys, then the
// shape that they give, then every tensor against that shape. *m need not be initialised;
// model_free() frees it. The file is whole in memory while it is read, so m owns copies of all that
// it keeps.
static void model_load(Model *m, const char *path) {
    Buf bytes = read_all(path);
    File f = { path, "the header", bytes.s, bytes.n, 4 };
    CHECK(bytes.n >= 4 && !memcmp(bytes.s, "GGUF", 4), "%s: not a GGUF file", path);
    uint32_t version = read_u32(&f);
    CHECK(version == 2 || version == 3, "%s: GGUF version %u%s; 2 or 3 was expected", path, version,
          version & 0xFFFF ? "" : " (a big-endian file; only little-endian ones are read)");
    uint64_t n_tensors = read_u64(&f), n_keys = read_u64(&f);
    Header h = our_header(&(Config){ .H_kv = -1, .theta = 1e4f });
    read_header(&f, n_keys, &h);
    *m = (Model){ .c = h.c, .step = h.step, .keep = (double)h.keep };
    m->tokenizer = tokenizer_read(&h, path);
    m->template = copy_text(h.prompt);
    m->template_sft = copy_text(h.prompt_sft);
    snprintf(m->objective, sizeof m->objective, "%.*s", SHOW(h.objective));

    // A layer has 9 tensors; 3 are outside the layers, or 2 if the head is tied. A weight takes a
    // byte at least: a shape that the file cannot fill is refused before there is memory for it.
    m->c.V = m->tokenizer->V;
    m->c.tied = n_tensors == (uint64_t)m->c.L * 9 + 2;
    CHECK(m->c.tied || n_tensors == (uint64_t)m->c.L * 9 + 3, "%s: %llu tensors; %d layers have %d",
          path, (unsigned long long)n_tensors, m->c.L, m->c.L * 9 + 3);
    CHECK(count_weights(&m->c) <= bytes.n, "%s: a model of this shape has %llu weights, the file "
          "has %zu bytes", path, (unsigned long long)count_weights(&m->c), bytes.n);
    model_alloc(m);
    read_tensors(m, &f, (uint64_t)h.alignment);
    free(bytes.s);
}

// Numbers and texts as GGUF has them, appended to a file in the making.
static void put_u32(Buf *b, uint32_t v) { buf_add(b, &v, 4); }
static void put_u64(Buf *b, uint64_t v) { buf_add(b, &v, 8); }

static void put_string(Buf *b, Text t) {
    put_u64(b, t.n);
    buf_add(b, t.s, t.n);
}

// Zeros up to the next multiple of the alignment, which lets other programs map the file into
// memory and use the weights where they are.
static void put_padding(Buf *b) {
    static const char zeros[ALIGNMENT];
    buf_add(b, zeros, (ALIGNMENT - b->n % ALIGNMENT) % ALIGNMENT);
}

// Appends the number of keys, and the keys of the list; a text that is absent has none. The number
// is known after the keys, and is then written over the zero in front of them.
static void put_header(Buf *b, const Header *h) {
    const size_t at = b->n;
    uint64_t n = 0;
    put_u64(b, n);
    for (const struct Field *k = FIELD; k < FIELD + N_FIELDS; k++) {
        const void *p = (const char *)h + k->at;
        const bool is_text = k->type == T_STRING || k->type == T_ARRAY;
        Text raw = is_text ? *(const Text *)p : (Text){ p, k->type == T_BOOL ? 1 : 4 };
        if (!raw.s || !(k->how & WRITTEN)) continue;
        put_string(b, text(k->key));
        put_u32(b, k->type);
        if (k->type == T_STRING) put_u64(b, raw.n);
        buf_add(b, raw.s, raw.n);
        n++;
    }
    memcpy(b->s + at, &n, sizeof n);
}

// The three arrays of a vocabulary, as GGUF has them: tokens, scores, types. It is the way back of
// tokenizer_read().
static void put_tokenizer(Buf array[3], const Tokenizer *k) {
    static const uint32_t TYPE[] = { T_STRING, T_F32, T_I32 };
    Buf piece = { 0 };
    for (int i = 0; i < 3; i++) {
        put_u32(&array[i], TYPE[i]);
        put_u64(&array[i], (uint64_t)k->V);
    }
    buf_add(&array[1], k->score, (size_t)k->V * 4);
    for (int id = 0; id < k->V; id++) {
        replace(&piece, k->piece[id], text(" "), text(GGUF_SPACE));
        Text t = id == BOS ? text("<s>") : id == EOS ? text("</s>") : contents(&piece);
        put_string(&array[0], t);
        put_u32(&array[2], token_type(id));
    }
    free(piece.s);
}

// Writes the model with its tokenizer and its prompt. Weights are written as f32, as they are
// trained, so training can go on from a file without having lost a bit. The file is made in memory
// and written at once by write_file(), which replaces the old one only when all of it is on the
// disk.
static void model_save(const Model *m, const char *path) {
    Buf f = { 0 }, array[3] = { { 0 } };
    uint64_t offset = 0;
    Header h = our_header(&m->c);
    put_tokenizer(array, m->tokenizer);
    h.tokens = contents(&array[0]);
    h.scores = contents(&array[1]);
    h.types = contents(&array[2]);
    h.objective = text(m->objective);
    h.step = (int)m->step;
    h.keep = (float)m->keep;
    h.add_space = !m->tokenizer->no_space;
    if (m->template) h.prompt = text(m->template);
    if (m->template) h.prompt_sft = text(m->template_sft);

    buf_puts(&f, "GGUF");
    put_u32(&f, 3);
    put_u64(&f, m->n_tensors);
    put_header(&f, &h);
    for (const Tensor *t = m->tensor; t < m->tensor + m->n_tensors; t++) {
        put_string(&f, text(t->name));
        put_u32(&f, t->rows == 1 ? 1 : 2);
        put_u64(&f, (uint64_t)t->cols);
        if (t->rows > 1) put_u64(&f, (uint64_t)t->rows);
        put_u32(&f, GGML_F32);
        put_u64(&f, offset);
        offset += ((uint64_t)t->rows * (uint64_t)t->cols * 4 + 31) / ALIGNMENT * ALIGNMENT;
    }
    put_padding(&f);
    for (const Tensor *t = m->tensor; t < m->tensor + m->n_tensors; t++) {
        buf_add(&f, m->params + t->at, (size_t)t->rows * (size_t)t->cols * 4);
        put_padding(&f);
    }
    write_file(path, 1, (Text[]){ contents(&f) });
    FREE(f.s, array[0].s, array[1].s, array[2].s);
}

/* ================================================================================================
   Chapter 10. Data files, JSON or JSONL.

       value    =  object | array | string | number | true | false | null      (RFC 8259)
       object   =  { }  |  { string : value , ... }
       array    =  [ ]  |  [ value , ... ]

   Text is walked over, and no tree is built. json_value() is the only judge of what is well-formed;
   everything after it may rely on that. Texts end with a NUL, which JSON does not allow, so every
   loop stops there without asking where the end is. */

// Where the walk is. After a failure, p is the culprit and why says what is wrong with it.
typedef struct { const char *p, *why; } Walk;
#define BLANKS " \t\r\n"

// Notes the first fault; each caller passes the false on.
static bool json_fail(Walk *w, const char *why) {
    w->why = why;
    return false;
}

// Steps over the characters that are in `set`; false if there is none.
static bool json_skip(Walk *w, const char *set) {
    size_t n = strspn(w->p, set);
    w->p += n;
    return n > 0;
}

// Steps over blanks and then over c; false if something else is there.
static bool json_mark(Walk *w, char c) {
    json_skip(w, BLANKS);
    const bool there = *w->p == c;
    w->p += there;
    return there;
}

// [-] digits [. digits] [e [+ -] digits], with no 0 in front of other digits.
static bool json_number(Walk *w) {
    static const char DIGITS[] = "0123456789";
    w->p += *w->p == '-';
    if (*w->p == '0') w->p++;
    else if (!json_skip(w, DIGITS)) return json_fail(w, "a JSON value was expected");
    bool fraction = *w->p == '.';
    w->p += fraction;
    if (fraction && !json_skip(w, DIGITS)) return json_fail(w, "a digit was expected");
    if (*w->p != 'e' && *w->p != 'E') return true;
    w->p += 1 + (w->p[1] == '+' || w->p[1] == '-');
    return json_skip(w, DIGITS) || json_fail(w, "a digit was expected");
}

// A string in quotes, with escapes that JSON knows: json_text() relies on it.
static bool json_string(Walk *w) {
    if (!json_mark(w, '"')) return json_fail(w, "a string was expected");
    for (; *w->p != '"'; w->p++) {
        if ((uint8_t)*w->p < 32) return json_fail(w, "a raw control character inside a string");
        if (*w->p != '\\') continue;
        w->p++;
        bool hex = *w->p == 'u' && strspn(w->p + 1, "0123456789abcdefABCDEF") >= 4;
        if (!hex && (!*w->p || !strchr("\"\\/bfnrt", *w->p)))
            return json_fail(w, "an escape that JSON does not know");
    }
    w->p++;
    return true;
}

// Steps over the next value, which is `depth` brackets deep. The depth bounds the recursion: a file
// must not decide how deep the stack goes.
static bool json_value(Walk *w, int depth) {
    static const char *const WORD[] = { "true", "false", "null" };
    json_skip(w, BLANKS);
    for (int i = 0; i < 3; i++)
        if (!strncmp(w->p, WORD[i], strlen(WORD[i]))) {
            w->p += strlen(WORD[i]);
            return true;
        }
    if (*w->p == '"') return json_string(w);
    const bool object = json_mark(w, '{');
    const char close = object ? '}' : ']';
    if (!object && !json_mark(w, '[')) return json_number(w);
    if (depth == 64) return json_fail(w, "nested deeper than 64 levels");
    if (json_mark(w, close)) return true;
    do {
        if (object && !json_string(w)) return false;
        if (object && !json_mark(w, ':')) return json_fail(w, "a colon was expected");
        if (!json_value(w, depth + 1)) return false;
    } while (json_mark(w, ','));
    return json_mark(w, close) || json_fail(w, "a comma or the closing bracket was expected");
}

// Steps to the next member of a well-formed object; *at starts at 0. False at the end. key and
// value are raw, as they are in the file: what nobody asks for is never decoded, and is written out
// unchanged.
static bool json_member(Text object, size_t *at, Text *key, Text *value) {
    Walk w = { object.s + (*at ? *at : 1), NULL };
    json_skip(&w, BLANKS ",");
    if (*w.p == '}') return false;
    key->s = w.p;
    json_string(&w);
    key->n = (size_t)(w.p - key->s);
    json_skip(&w, BLANKS ":");
    value->s = w.p;
    json_value(&w, 0);
    value->n = (size_t)(w.p - value->s);
    *at = (size_t)(w.p - object.s);
    return true;
}

// Appends a code point. UTF-8 puts 6 bits into each byte but the first, which says how many follow.
static void put_utf8(Buf *out, uint32_t c) {
    static const uint8_t LEAD[] = { 0, 0, 0xC0, 0xE0, 0xF0 };
    char u[4];
    int n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (int i = n - 1; i > 0; i--, c >>= 6) u[i] = (char)(0x80 | (c & 0x3F));
    u[0] = (char)(LEAD[n] | c);
    buf_add(out, u, (size_t)n);
}

// The number after \u at p, or -1 if something else is there. json_string() has made sure that 4
// hex digits follow a \u.
static long json_unit(const char *p) {
    char digits[5] = { 0 };
    return p[0] == '\\' && p[1] == 'u' ? strtol(memcpy(digits, p + 2, 4), NULL, 16) : -1;
}

// Sets out to what the raw value means. False if it is not a well-formed string. A code point
// beyond 16 bits is written as two \u, D800 + its upper 10 bits and DC00 + its lower 10, after
// 0x10000 was taken from it; such a surrogate alone means nothing and becomes U+FFFD.
static bool json_text(Text raw, Buf *out) {
    static const char CODE[] = "\"\\/bfnrt", MEANS[] = "\"\\/\b\f\n\r\t";
    Walk w = { raw.s, NULL };
    buf_set(out, text(""));
    if (!raw.n || !json_string(&w) || w.p != raw.s + raw.n) return false;
    for (const char *p = raw.s + 1; *p != '"'; ) {
        const size_t plain = strcspn(p, "\\\"");
        buf_add(out, p, plain);
        p += plain;
        if (*p == '"') break;
        const char *simple = strchr(CODE, p[1]);
        if (simple) {
            buf_add(out, MEANS + (simple - CODE), 1);
            p += 2;
            continue;
        }
        long unit = json_unit(p), low = json_unit(p + 6);
        p += 6;
        if (unit >= 0xD800 && unit < 0xDC00 && low >= 0xDC00 && low < 0xE000) {
            p += 6;
            unit = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
        }
        put_utf8(out, unit >= 0xD800 && unit < 0xE000 ? 0xFFFD : (uint32_t)unit);
    }
    return true;
}

// Appends t as a JSON string; bytes that are not UTF-8 become U+FFFD.
static void json_put(Buf *out, Text t) {
    buf_puts(out, "\"");
    for (size_t n; t.n; t = rest_of(t, n ? n : 1)) {
        const char c = *t.s, *form = c == '\n' ? "\\n" : is_control(c) ? "\\u%04x" : "\\%c";
        char code[8] = "\\ufffd";
        n = utf8_length(t);
        if (n) snprintf(code, sizeof code, form, c);
        if (n && !is_control(c) && c != '"' && c != '\\') buf_add(out, t.s, n);
        else buf_puts(out, code);
    }
    buf_puts(out, "\"");
}

// Is this raw key, which may be written with escapes, that name?
static bool key_is(Text raw, const char *name) {
    Buf key = { 0 };
    bool equal = json_text(raw, &key) && same(contents(&key), text(name));
    free(key.s);
    return equal;
}

// The raw value of a key (the last one, if it is there twice), or NONE.
static Text json_find(Text object, const char *name) {
    Text key, value, found = NONE;
    for (size_t at = 0; json_member(object, &at, &key, &value); )
        if (key_is(key, name)) found = value;
    return found;
}

enum Status { ROW_END, ROW_GOOD, ROW_BAD };             // ROW_BAD: reason says why

// Objects from a stream: JSONL, objects that span lines, or an array of objects. Commas and square
// brackets between objects are skipped like blanks, so all three are read in one way. Reading goes
// line by line and no further than an object needs: a filter can answer before its input ends, and
// in constant memory.
typedef struct {
    const char *path;
    FILE *f;
    Buf text;                           // lines that are not used up
    size_t at;                          // how far they are
    long line, column;                  // of text.s + at
    Text object;                        // the last one; if it is broken, {"line": its first line}
    char reason[256], first[256];       // why the last row, and the first one, cannot be used
    Buf own[3];                         // the texts of the row's keys
    long skipped;                       // rows that skip_row() counted
} Objects;

// Opens a data file; NULL or "-" is standard input. objects_close() closes it.
static void objects_open(Objects *o, const char *path) {
    bool standard = !path || is(path, "-");
    *o = (Objects){ .path = standard ? "standard input" : path, .line = 1, .column = 1 };
    o->f = standard ? stdin : fopen(path, "rb");
    CHECK(o->f, "cannot open %s: %s; name a file that can be read", path, strerror(errno));
    buf_set(&o->text, text(""));
}

// Counts a row that cannot be used. objects_close() reports how many there were, and why the first.
static void skip_row(Objects *o, const char *why) {
    if (why != o->reason) snprintf(o->reason, sizeof o->reason, "line %ld: %s", o->line, why);
    if (!o->skipped++) memcpy(o->first, o->reason, sizeof o->first);
}

// Reports what was skipped, closes the file and frees the texts of the last row.
static void objects_close(Objects *o) {
    if (o->skipped)
        fprintf(stderr, "%s: skipped %ld rows that cannot be used; the first, %s\n", o->path,
                o->skipped, o->first);
    if (o->f != stdin) fclose(o->f);
    FREE(o->text.s, o->own[0].s, o->own[1].s, o->own[2].s);
}

// Forgets what is used up and appends the next line of the file; false at its end. The byte order
// mark that some editors put in front of UTF-8 is dropped.
static bool more_text(Objects *o) {
    char *line = NULL;
    size_t capacity = 0;
    ssize_t n = getline(&line, &capacity, o->f);
    CHECK(n >= 0 || !ferror(o->f), "cannot read %s: %s", o->path, strerror(errno));
    memmove(o->text.s, o->text.s + o->at, o->text.n + 1 - o->at);
    o->text.n -= o->at;
    o->at = 0;
    size_t mark = n >= 3 && o->line == 1 && !memcmp(line, "\xEF\xBB\xBF", 3) ? 3 : 0;
    if (n > 0) buf_add(&o->text, line + mark, (size_t)n - mark);
    free(line);
    return n > 0;
}

// Goes on by n bytes and keeps count of lines and columns, so a fault can be named at any time
// though the lines before it are forgotten.
static void advance(Objects *o, size_t n) {
    for (; n; n--) {
        bool newline = o->text.s[o->at++] == '\n';
        o->line += newline;
        o->column = newline ? 1 : o->column + 1;
    }
}

// Reads the next object into o->object, where it stays until the next call. An object may span
// lines: if the text is good as far as it goes, the next line is added and it is tried again.
//
// A broken object ends with the line it begins on, wherever the culprit is: the next line may be a
// good row. o->object then is {"line": that text}, and o->reason says where and why.
static enum Status read_object(Objects *o) {
    enum { MOST_LINES = 1000 };
    Walk w = { NULL, NULL };
    for (;;) {
        advance(o, strspn(o->text.s + o->at, BLANKS "[],"));
        if (o->at < o->text.n) break;
        if (!more_text(o)) return ROW_END;
    }
    for (int lines = 1; lines == 1 || (lines <= MOST_LINES && more_text(o)); lines++) {
        w.p = o->text.s + o->at;
        if (*w.p == '{' ? json_value(&w, 0) : json_fail(&w, "an object was expected")) {
            o->object = (Text){ o->text.s + o->at, (size_t)(w.p - o->text.s) - o->at };
            advance(o, o->object.n);
            return ROW_GOOD;
        }
        if (w.p < o->text.s + o->text.n) break;
    }
    Text line = rest_of(contents(&o->text), o->at);
    Objects culprit = *o;
    const char *end = memchr(line.s, '\n', line.n), *why = *w.p ? w.why : "the text ends too early";
    if (end) line.n = (size_t)(end - line.s);
    if (memchr(line.s, 0, line.n)) why = "a NUL byte (UTF-16? use iconv -f UTF-16 -t UTF-8)";
    advance(&culprit, (size_t)(w.p - line.s));
    advance(o, line.n);
    snprintf(o->reason, sizeof o->reason, "line %ld, column %ld: %s", culprit.line,
             culprit.column, why);
    buf_set(&o->own[0], text("{\"line\": "));
    json_put(&o->own[0], line);
    buf_puts(&o->own[0], "}");
    o->object = contents(&o->own[0]);
    return ROW_BAD;
}

enum { NEED_X = 1, NEED_Y_O = 2, NEED_Y_C = 4 };        // the keys that a row must have

// The next row: the asked texts of it, which last until the next call; the others are NONE. keys
// says which must be there as strings. Other keys are nobody's business here. Filters call this
// one, because each line that comes in must go out.
static enum Status next_row(Objects *o, int keys, Triple *t) {
    static const char *const NAME[] = { "question", "answer", "correction" };
    Text *field[] = { &t->x, &t->y_o, &t->y_c };
    enum Status status = read_object(o);
    *t = (Triple){ NONE, NONE, NONE };
    for (int i = 0; i < 3 && status == ROW_GOOD; i++) {
        if (!(keys >> i & 1)) continue;
        if (!json_text(json_find(o->object, NAME[i]), &o->own[i])) {
            snprintf(o->reason, sizeof o->reason, "line %ld: no text under the key \"%s\"", o->line,
                     NAME[i]);
            status = ROW_BAD;
        }
        *field[i] = contents(&o->own[i]);
    }
    return status;
}

// The next row that has all of the keys. Others are counted: training, evaluation and the tokenizer
// do without them.
static bool next_good_row(Objects *o, int keys, Triple *t) {
    enum Status status;
    while ((status = next_row(o, keys, t)) == ROW_BAD) skip_row(o, o->reason);
    return status == ROW_GOOD;
}

// The next row that m can learn from or be judged by. The objective makes it of the triple t, and
// the caller frees row->ids. An empty target teaches nothing but to be silent; a row longer than
// the context is left out whole, because half a correction would teach to stop anywhere.
static bool next_usable_row(Objects *o, const Model *m, Objective objective, Triple *t, Row *row) {
    const int keys = NEED_X | NEED_Y_O | (objective == aligner ? NEED_Y_C : 0);
    while (next_good_row(o, keys, t)) {
        *row = objective(m, *t);
        const bool empty = row->n - row->n_condition < 2, too_long = row->n - 1 > m->c.context;
        if (!empty && !too_long) return true;
        skip_row(o, empty ? "the target is empty" : "longer than the model's context");
        free(row->ids);
    }
    return false;
}

// Appends a row; rows_free() frees its ids.
static void rows_add(Rows *r, Row row) {
    r->row = grow(r->row, sizeof *r->row, &r->cap, r->n + 1);
    r->row[r->n++] = row;
}

// Adds the usable rows of a file: the objective decides here, and nowhere else, what is learnt.
static void rows_load(Rows *r, const Model *m, const char *path, Objective objective) {
    Objects in;
    Triple t;
    Row row;
    objects_open(&in, path);
    while (next_usable_row(&in, m, objective, &t, &row)) rows_add(r, row);
    objects_close(&in);
}

// Frees all rows.
static void rows_free(Rows *r) {
    for (size_t i = 0; i < r->n; i++) free(r->row[i].ids);
    free(r->row);
    *r = (Rows){ 0 };
}

/* ================================================================================================
   Chapter 11. Training, continued.  A faster optimiser, checkpoints, and what the user sees. */

// Fisher-Yates: each of the n! orders is equally likely. A resumed run draws the order again
// instead of reading it from a file.
static void shuffle(uint32_t *order, size_t n, long seed, long epoch) {
    uint64_t state = (uint64_t)seed * 1000003u + (uint64_t)epoch;
    for (size_t i = 0; i < n; i++) order[i] = (uint32_t)i;
    for (size_t i = n; i > 1; i--) {
        size_t j = (size_t)(random_u64(&state) % i);
        uint32_t swap = order[i - 1];
        order[i - 1] = order[j];
        order[j] = swap;
    }
}

// The Euclidean norm of all gradients: floats within 4096 of them, doubles over these and over 64
// parts, which threads share and one adds up.
static double gradient_norm(const Model *m) {
    enum { PARTS = 64, CHUNK = 4096 };
    double part[PARTS] = { 0 }, sum = 0;
    const size_t n = (m->n_params / PARTS / CHUNK + 1) * CHUNK;
    #pragma omp parallel for schedule(static) if (m->n_params > 16384)
    for (int i = 0; i < PARTS; i++)
        for (size_t at = i * n, end = at + n; at < end && at < m->n_params; at += CHUNK) {
            const float *g = m->grads + at;
            int length = m->n_params - at < CHUNK ? (int)(m->n_params - at) : CHUNK;
            part[i] += (double)dot(g, g, length);
        }
    for (int i = 0; i < PARTS; i++) sum += part[i];
    return sqrt(sum);
}

/* Muon (Jordan et al. 2024), with --muon, for the matrices inside the layers. AdamW scales number
   by number, as if it did not know that they form a matrix. A gradient G = U S V^T (its singular
   value decomposition) has a few large singular values, the directions that most tokens of the
   batch ask for, and many small ones. Muon steps along U V^T, with all of them set to one, so a
   rare fact is learnt as fast as a frequent turn of phrase:

       m <- b1 m + (1 - b1) g,    G = b1 m + (1 - b1) g        the present gradient counts once more
       w <- w (1 - r decay) - 0.2 r sqrt(max(rows, cols)) U V^T,    with r = muon lr

   The factor makes the steps as large as AdamW's (arXiv 2502.16982). U V^T takes no
   decomposition: the odd polynomial a X + b X X^T X + c (X X^T)^2 X is U (a S + b S^3 + c S^5)
   V^T, and three of them in turn send all singular values from 1/300 to 1 to between 0.18 and
   1.87, which is near enough (coefficients of Polar Express, arXiv 2505.16932). All of it is
   matmul. */

// Muon takes matrices. Embeddings and head are lists of rows, one for each token, and norms are not
// matrices: these stay with AdamW.
static bool muons(const Model *m, const Tensor *t, const TrainOptions *o) {
    const float *w = m->params + t->at;
    return o->muon > 0 && t->rows > 1 && w != m->w.embd && w != m->w.head;
}

// y[rows][cols] becomes nearly U V^T of x = U S V^T; x is lost.
static void orthogonalize(float *y, float *x, int rows, int cols) {
    static const float P[3][3] = { { 8.20516f, -22.90193f, 16.46072f },
                                   { 4.06640f, -2.86115f, 0.51840f },
                                   { 3.90959f, -2.82335f, 0.52504f } };
    const int k = least(rows, cols), longer = rows + cols - k;
    float *a = scratch(FOR_MUON, 2 * (size_t)k * k), *b = a + (size_t)k * k;
    double sum = 0;
    for (int i = 0; i < rows; i++)
        sum += (double)dot(x + (size_t)i * cols, x + (size_t)i * cols, cols);
    const float scale = (float)(1 / (sqrt(sum) + 1e-30));       // singular values: at most 1
    for (size_t j = 0; j < (size_t)rows * cols; j++) x[j] *= scale;
    for (int step = 0; step < 3; step++) {                      // from x to y, back to x, and to y
        const float *p = P[step];
        float *to = step % 2 ? x : y;
        const Matrix X = rows_of(step % 2 ? y : x, cols), S = rows < cols ? X : transposed(X);
        const Matrix A = rows_of(a, k), B = rows_of(b, k);
        gemm(0, 1, k, k, longer, S, transposed(S), a, (size_t)k, false);        // X X^T or X^T X
        gemm(0, 1, k, k, k, A, A, b, (size_t)k, false);
        for (size_t j = 0; j < (size_t)k * k; j++) b[j] = p[1] * a[j] + p[2] * b[j];
        for (int i = 0; i < k; i++)
            b[(size_t)i * k + i] += p[0];                       // B = p0 + p1 A + p2 A^2
        if (rows < cols) gemm(0, 1, rows, cols, k, B, X, to, (size_t)cols, false);
        else gemm(0, 1, rows, cols, k, X, B, to, (size_t)cols, false);
    }
}

// Muon's step, one thread for each matrix. It keeps no second moment: v holds G.
static void muon(Model *m, Progress *p, const TrainOptions *o, double lr, float scale) {
    const float b1 = 0.9f, rate = (float)(0.2 * o->muon * lr);
    const float keep = (float)(1 - o->muon * lr * o->weight_decay);
    #pragma omp parallel for schedule(dynamic, 1)
    for (size_t i = 0; i < m->n_tensors; i++) {
        const Tensor *e = &m->tensor[i];
        float *w = m->params + e->at, *g = m->grads + e->at, *m1 = p->m + e->at, *G = p->v + e->at;
        const float length = rate * sqrtf((float)(e->rows > e->cols ? e->rows : e->cols));
        const size_t n = (size_t)e->rows * (size_t)e->cols;
        if (!muons(m, e, o)) continue;
        for (size_t j = 0; j < n; j++) {
            float d = (1 - b1) * scale * g[j];
            m1[j] = b1 * m1[j] + d;
            G[j] = b1 * m1[j] + d;
        }
        orthogonalize(g, G, e->rows, e->cols);
        for (size_t j = 0; j < n; j++) {
            w[j] = w[j] * keep - length * g[j];
            g[j] = 0;
        }
    }
}

// With --ema X, what is saved is the mean of the weights over about the last 1 / (1 - X) steps. A
// step follows one batch, and the next ones undo much of it; in the mean that noise cancels.
static void update_mean(const Model *m, Progress *p, const TrainOptions *o) {
    const float rate = (float)fmax(1 - o->ema, 1 / ((double)p->step + 1));
    #pragma omp parallel for schedule(static) if (m->n_params > 16384)
    for (size_t j = 0; j < m->n_params; j++) p->mean[j] += rate * (m->params[j] - p->mean[j]);
}

// With --ema: the mean takes the place of the weights; the next call brings these back.
static void exchange_mean(Model *m, Progress *p) {
    if (!p->mean) return;
    float *weights = m->params;
    m->params = p->mean;
    p->mean = weights;
    point_weights(m, &m->w, m->params);
    m->is_packed = false;
}

// A loss or gradient that is not a number would spoil every weight, so the run ends before the
// step.
static void check_finite(double loss, double norm, long step) {
    CHECK(isfinite(loss) && isfinite(norm), "step %ld: the loss is %g, the gradient's norm %g; "
          "try a smaller --lr (the last checkpoint is untouched)", step, loss, norm);
}

/* A GGUF file has no place for the optimiser. Its state is in OUT.state:

       "ALNSTAT2" | u64 n_params | u64 hash of rows, prompt and options | the numbers of Progress |
       params | m | v | mean                                (floats; mean only with --ema)

   The weights are in both files, so the state is whole by itself, and a run killed between the two
   resumes with the bits of an undisturbed one. */

enum { STATE_NUMBERS = offsetof(Progress, m), STATE_HEAD = 24 + STATE_NUMBERS };

// FNV-1a again: good enough to notice a change, and not meant against anybody's malice.
static uint64_t hash_bytes(uint64_t h, const void *p, size_t n) {
    for (size_t i = 0; i < n; i++) h = (h ^ ((const uint8_t *)p)[i]) * 1099511628211u;
    return h;
}

// A number that two runs share if they do the same: rows and their order, prompt, objective,
// shape and the options that change the result.
static uint64_t run_hash(const Run *run) {
    const Model *m = run->model;
    const TrainOptions *o = run->o;
    const double numbers[] = { (double)o->batch, (double)o->tokens, (double)o->seed, o->lr,
                               o->lr_warmup, o->weight_decay, o->clip, o->adam_eps, o->muon,
                               o->ema, o->grow_below };
    uint64_t h = hash_bytes(14695981039346656037u ^ run->hash, numbers, sizeof numbers);
    h = hash_bytes(h, m->template, strlen(m->template));
    h = hash_bytes(h, m->objective, strlen(m->objective));
    h = hash_bytes(h, &m->c, offsetof(Config, tied));
    for (size_t i = 0; i < run->rows->n; i++) {
        const Row *r = &run->rows->row[i];
        h = hash_bytes(h, &r->n_condition, sizeof r->n_condition);
        h = hash_bytes(h, r->ids, (size_t)r->n * sizeof *r->ids);
    }
    return h;
}

// Writes the state, then the model, each through a temporary file: there is a whole checkpoint at
// every moment.
static void checkpoint(Run *run) {
    Model *m = run->model;
    Progress *p = &run->p;
    Buf path = with_ending(run->o->out, STATE);
    const uint64_t n_params = m->n_params;
    const size_t n = m->n_params * sizeof(float);
    const void *piece[] = { "ALNSTAT2", &n_params, &run->hash, p, m->params, p->m, p->v, p->mean };
    const size_t size[] = { 8, 8, 8, STATE_NUMBERS, n, n, n, n };
    Text part[8];
    for (int i = 0; i < 8; i++) part[i] = (Text){ piece[i], size[i] };
    m->step = p->step;
    write_file(path.s, p->mean ? 8 : 7, part);
    exchange_mean(m, p);
    model_save(m, run->o->out);
    exchange_mean(m, p);
    free(path.s);
}

// Reads what checkpoint() wrote into weights, moments and numbers. A state file is as hostile as
// any other. If there is none yet, the run begins at its first step.
static void resume(Run *run) {
    Model *m = run->model;
    Buf path = with_ending(run->o->out, STATE);
    uint64_t n_params, hash;
    Progress p = run->p;
    const size_t n = m->n_params * sizeof(float);
    if (access(path.s, F_OK)) {
        CHECK(access(run->o->out, F_OK), "%s exists, but %s does not: nothing to resume; train "
              "without --resume, or to another --out", run->o->out, path.s);
        fprintf(stderr, "%s: nothing is saved yet; starting at step 0\n", run->o->out);
        free(path.s);
        return;
    }
    Buf f = read_all(path.s);
    CHECK(f.n >= STATE_HEAD && !memcmp(f.s, "ALNSTAT2", 8), "%s: not the state of a run", path.s);
    memcpy(&n_params, f.s + 8, 8);
    memcpy(&hash, f.s + 16, 8);
    memcpy(&p, f.s + 24, STATE_NUMBERS);
    CHECK(n_params == m->n_params && hash == run->hash && f.n == STATE_HEAD + (p.mean ? 4 : 3) * n,
          "%s: the state of another run; --resume needs the data, prompt, objective, shape and "
          "options of its start (--help says which may differ)", path.s);
    CHECK(p.step >= 0 && p.step <= INT_MAX && p.at >= 0 && p.at <= (long)run->rows->n &&
          p.epoch >= -1 && p.epoch < INT_MAX && p.tokens >= 0 && p.tokens < LONG_MAX / 2 &&
          p.targets >= 0 && p.targets < LONG_MAX / 2 && p.longest_target > 0 &&
          p.longest_target <= INT_MAX, "%s: its numbers are not those of a run", path.s);
    run->p = p;
    const char *from = f.s + STATE_HEAD;
    memcpy(m->params, from, n);
    memcpy(p.m, from + n, n);
    memcpy(p.v, from + 2 * n, n);
    if (p.mean) memcpy(p.mean, from + 3 * n, n);
    FREE(path.s, f.s);
}

// Room for T tokens, in at most n rows. No batch has more targets than tokens.
static void batch_alloc(Batch *b, int T, int n) {
    *b = (Batch){ .ids = ints(T), .pos = ints(T), .start = ints(n + 1), .out = ints(T),
                  .target = ints(T) };
}

static void batch_free(Batch *b) {
    FREE(b->ids, b->pos, b->start, b->out, b->target);
    *b = (Batch){ 0 };
}

// The longest row of r, and its shortest target, in tokens with their </s>. Memory goes by the
// first; below the second --grow-below would find no row to draw.
static int longest_row(const Rows *r) {
    int longest = 0;
    for (size_t i = 0; i < r->n; i++)
        if (r->row[i].n > longest) longest = r->row[i].n;
    return longest;
}

static long shortest_target(const Rows *r) {
    long shortest = INT_MAX;
    for (size_t i = 0; i < r->n; i++)
        if (r->row[i].n - r->row[i].n_condition < shortest)
            shortest = r->row[i].n - r->row[i].n_condition;
    return shortest;
}

// The tokens that a unit of these rows has at most.
static int unit_size(const Rows *a, const Rows *b) {
    int longest = longest_row(a) > longest_row(b) ? longest_row(a) : longest_row(b);
    return longest > UNIT ? longest : UNIT;
}

// The mean loss of a target token, without gradients. A long target weighs more than a short one,
// as in training. m and b have room for a unit of r.
static double mean_loss(Model *m, const Rows *r, Batch *b) {
    double loss = 0;
    int n_targets = 0;
    const Row **row = zalloc(r->n, sizeof *row);
    for (size_t i = 0; i < r->n; i++) {
        row[i] = &r->row[i];
        n_targets += r->row[i].n - r->row[i].n_condition;
    }
    for (int i = 0; i < (int)r->n; ) {
        i = fill_unit(b, row, i, (int)r->n);
        forward(m, b, NULL);
        loss += cross_entropy(m, b, n_targets);
    }
    free(row);
    return loss;
}

// The loss of the validation rows, by the weights that are saved.
static double validation_loss(Run *run) {
    exchange_mean(run->model, &run->p);
    double loss = run->validate ? run->validate(run)
                                : mean_loss(run->model, run->valid, &run->unit);
    exchange_mean(run->model, &run->p);
    return loss;
}

// How many steps --epochs takes: the batches are drawn once for counting.
static long count_steps(Run *run) {
    Progress start = run->p;
    long steps = 0;
    run->p.longest_target = INT_MAX;
    while (run->p.epoch < run->o->epochs - 1 || run->p.at < (long)run->rows->n) {
        draw_rows(run);
        steps++;
    }
    run->p = start;
    return steps;
}

// Sizes and allocates everything, and places the run at its first step or, with --resume, at its
// next.
static void run_init(Run *run) {
    Model *m = run->model;
    const TrainOptions *o = run->o;
    const int T = unit_size(run->rows, run->valid);
    run->order = zalloc(run->rows->n, sizeof *run->order);
    run->drawn = zalloc(run->rows->n, sizeof *run->drawn);
    run->p = (Progress){ .epoch = -1, .at = (long)run->rows->n, .running = -1,
                         .longest_target = o->grow_below > 0 ? 3 : INT_MAX };
    run->steps = o->steps ? o->steps : count_steps(run);
    grads_alloc(m);
    run->p.m = zalloc(m->n_params, sizeof(float));
    run->p.v = zalloc(m->n_params, sizeof(float));
    if (o->ema > 0) run->p.mean = zalloc(m->n_params, sizeof(float));
    batch_alloc(&run->unit, T, T);
    acts_reserve(m, T, T, T, true);
    m->step = 0;
    run->hash = run_hash(run);
    if (o->resume) resume(run);
    if (run->p.longest_target < shortest_target(run->rows))     // whatever a state file says
        run->p.longest_target = shortest_target(run->rows);
    shuffle(run->order, run->rows->n, o->seed, run->p.epoch);
    run->first = run->p.step;
    run->started = seconds();
    if (!o->log) return;
    run->log = fopen(o->log, run->first ? "ab" : "wb");
    CHECK(run->log, "cannot write %s: %s", o->log, strerror(errno));
    if (!run->first) fprintf(run->log, "step,loss,lr,norm,tokens,targets,longest,valid\n");
}

// On a terminal one live line, rewritten at each step; elsewhere about ten lines for the run.
static void show_progress(const Run *run, double lr) {
    const Progress *p = &run->p;
    const bool live = isatty(2), last = p->step == run->steps;
    const long each = live || run->steps < 10 ? 1 : run->steps / 10;
    if (run->o->quiet || (!last && p->step % each)) return;
    double rate = (double)(p->step - run->first) / (seconds() - run->started + 1e-9);
    long left = (long)((double)(run->steps - p->step) / rate + 0.5);
    fprintf(stderr, "%sstep %ld/%ld  loss %.4f  lr %.2e  %.0f tokens/s  ETA %ld:%02ld",
            live ? "\r\x1b[K" : "", p->step, run->steps, p->running, lr,
            rate * (double)p->tokens / (double)p->step, left / 60, left % 60);
    if (p->longest_target < INT_MAX)
        fprintf(stderr, "  targets up to %ld tokens", p->longest_target);
    if (!live || last) fputc('\n', stderr);
}

// Bookkeeping after a step: counters, the running mean of the loss, what --grow-below makes of
// it, what the user sees, and what survives a power cut. The last checkpoint is written after the
// loop.
static void bookkeeping(Run *run, double loss, double lr, double norm) {
    Progress *p = &run->p;
    const TrainOptions *o = run->o;
    p->step++;
    p->running = p->running < 0 ? loss : 0.95 * p->running + 0.05 * loss;
    if (p->longest_target < INT_MAX && p->running < o->grow_below) {    // now twice as long ones
        p->running = 2 * o->grow_below;
        p->longest_target *= 2;
        if (p->longest_target > run->model->c.context) p->longest_target = INT_MAX;
    }
    show_progress(run, lr);
    const bool last = p->step == run->steps, save = o->save_every && p->step % o->save_every == 0;
    if (run->log) {
        fprintf(run->log, "%ld,%.6f,%.4e,%.4f,%ld,%ld,%ld,", p->step, loss, lr, norm, p->tokens,
                p->targets, p->longest_target < INT_MAX ? p->longest_target : 0);
        if (run->valid->n && (save || last)) fprintf(run->log, "%.6f", validation_loss(run));
        fprintf(run->log, "\n");
        fflush(run->log);
    }
    if (save && !last) checkpoint(run);
}

// A signal handler may do next to nothing: it leaves a note, and the loop reads it between two
// steps.
static volatile sig_atomic_t interrupted;
static void on_signal(int sig) { interrupted = sig; }

static void catch_signals(void) {
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

// A whole run. Ctrl-C (or SIGTERM) saves and exits with 1; --resume continues with the same bits
// as a run that was never interrupted.
static void train(Run *run) {
    Model *m = run->model;
    const TrainOptions *o = run->o;
    Progress *p = &run->p;
    run_init(run);
    catch_signals();
    train_loop(run);
    checkpoint(run);
    if (!o->quiet)
        fprintf(stderr, "%s%s: %s, step %ld, %ld tokens (%ld targets), running loss %.4f, %.0f s\n",
                isatty(2) && interrupted ? "\n" : "", o->out, m->objective, p->step, p->tokens,
                p->targets, p->running, seconds() - run->started);
    if (run->valid->n) fprintf(stderr, "validation loss %.4f\n", validation_loss(run));
    bool log_failed = run->log && ferror(run->log);
    if (run->log && fclose(run->log)) log_failed = true;
    CHECK(!log_failed, "cannot write all of %s; is the disk full? The model is saved", o->log);
    exchange_mean(m, p);                                // the model is what was saved
    FREE(run->order, run->drawn, p->m, p->v, p->mean);
    batch_free(&run->unit);
    if (!interrupted) return;
    fprintf(stderr, "interrupted; the same command with --resume continues\n");
    exit(1);
}

/* ================================================================================================
   Chapter 12. Command line.  stdout carries results only; progress and messages go to stderr. First
   what is shown, then the commands, then the options; main comes last. */

// n of so many, in percent; 0 of nothing.
static double percent(long n, long of) { return of ? 100.0 * (double)n / (double)of : 0; }

// Failing to write a result fails the run.
static void flush_results(void) {
    CHECK(!fflush(stdout) && !ferror(stdout), "cannot write the result: %s", strerror(errno));
}

// Writes text that may go to a terminal, without control codes other than newline and tab: no file
// and no model can steer the terminal.
static void put_plain(FILE *f, Text t) {
    for (size_t i = 0; i < t.n; i++)
        if (!is_control(t.s[i]) || t.s[i] == '\n' || t.s[i] == '\t') fputc(t.s[i], f);
}

// One labelled line for a reader.
static void put_line(FILE *f, const char *label, Text t) {
    fputs(label, f);
    put_plain(f, t);
    fputc('\n', f);
}

// A text that is the whole result: plain on a terminal, byte for byte elsewhere.
static void put_result(Text t) {
    if (isatty(1)) put_plain(stdout, t);
    else fwrite(t.s, 1, t.n, stdout);
    putchar('\n');
}

/* The word diff of y_o and y_c. The paper's Aligner is a residual: what matters is what it changes.
   A word is made of letters, digits, apostrophes and bytes beyond ASCII; each other sign is a word
   by itself. Blanks are no words: they lie between two, and do not count in comparisons. */

// Letters and bytes beyond ASCII are of class 2, digits of class 1, signs of 3, the rest of 0.
static bool in_word(char c) { return character_class(c) % 3 || c == '\''; }

// Cuts t into words word[1 .. n], at most `most`, the last of which takes what is left. Returns n.
// word[0] is empty and lies where t begins, so each word has one before it.
static int diff_words(Text t, Text *word, int most) {
    int n = 0;
    word[0] = (Text){ t.s, 0 };
    for (size_t at = 0, end; at < t.n; at = end) {
        end = at + 1;
        if (t.s[at] == ' ' || t.s[at] == '\n' || t.s[at] == '\t') continue;
        while (end < t.n && in_word(t.s[at]) && in_word(t.s[end])) end++;
        if (n == most - 1) end = t.n;
        word[++n] = (Text){ t.s + at, end - at };
    }
    return n;
}

// Shows n neighbouring words as one piece, after the blanks before them; change is -1 for deleted,
// 0 for kept, and +1 for inserted words.
static void show_words(FILE *f, const Text *w, int n, int change, bool color) {
    static const char *const OPEN[2][3] = { { "[-", "", "{+" }, { "\x1b[9;31m", "", "\x1b[32m" } };
    static const char *const CLOSE[2][3] = { { "-]", "", "+}" }, { "\x1b[0m", "", "\x1b[0m" } };
    if (!n) return;
    const char *before = w[-1].s + w[-1].n, *end = w[n - 1].s + w[n - 1].n;
    put_plain(f, (Text){ before, (size_t)(w->s - before) });
    fputs(OPEN[color][change + 1], f);
    put_plain(f, (Text){ w->s, (size_t)(end - w->s) });
    fputs(CLOSE[color][change + 1], f);
}

// Prints y_o -> y_c as one text with the changes marked. lcs(i, j) is the length of a longest
// common subsequence of the words from i and from j on:
//
//     lcs(i, j) = 1 + lcs(i + 1, j + 1)                   if the words i and j are the same
//               = max(lcs(i + 1, j), lcs(i, j + 1))       otherwise
//
// It is computed from the end, so lcs(1, 1) comes last, with all others there to walk along.
// Walking along its largest values gives the fewest marks. If less than half of the shorter text is
// kept, marks in between would only confuse: then all of it is one deletion and one insertion.
static void show_diff(FILE *f, Text y_o, Text y_c, bool color) {
    enum { MOST = 2048 };
    Text *a = zalloc(MOST + 1, sizeof *a), *b = zalloc(MOST + 1, sizeof *b);
    const int n = diff_words(y_o, a, MOST), m = diff_words(y_c, b, MOST), row = m + 2;
    int *lcs = ints((n + 2) * row);
    for (int i = n; i > 0; i--)
        for (int j = m; j > 0; j--) {
            int *at = lcs + i * row + j, down = at[row], right = at[1];
            *at = same(a[i], b[j]) ? at[row + 1] + 1 : down > right ? down : right;
        }
    const bool rewritten = 2 * lcs[row + 1] < least(n, m);
    for (int i = 1, j = 1; i <= n || j <= m; i++, j++) {
        const int i0 = i, j0 = j;                       // what changes before the next kept word
        while (i <= n || j <= m) {
            const int *at = lcs + i * row + j;
            if (!rewritten && i <= n && j <= m && same(a[i], b[j])) break;
            if (j > m || (i <= n && at[row] >= at[1])) i++;
            else j++;
        }
        show_words(f, a + i0, i - i0, -1, color);
        show_words(f, b + j0, j - j0, +1, color);
        show_words(f, j == 1 && i <= n ? a + i : b + j, j <= m, 0, color);      // y_o's first blank
    }
    fputc('\n', f);
    FREE(a, b, lcs);
}

/* ------------------------------------------------------------------------------------------------
   Commands. */

// Everything that the command line can say. word: command, objective or model, file.
typedef struct {
    TrainOptions train;
    Decoding how;
    const char *text, *question, *answer, *correction, *upstream, *word[3];
    int n_words, vocab, threads, diff, json, strict;
} Options;

// The one command line of this program. What is 0 here is off or has its default elsewhere; -1 is
// "not given", where 0 means something.
static Options options = {
    .how = { .top_p = 1, .keep = -1 },
    .train = { .batch = -1, .lr = 1e-3, .lr_warmup = 0.03, .clip = 1, .adam_eps = 1e-8,
               .seed = 1 } };

// Command-line mistakes exit with 2.
static void __attribute__((noreturn, format(printf, 1, 2))) usage_error(const char *format, ...) {
    va_list a;
    va_start(a, format);
    leave(2, "; --help lists the commands and options", format, a);
}

// Word i of the command line, which the command cannot do without.
static const char *need_word(const Options *o, int i, const char *what) {
    if (o->n_words <= i) usage_error("`%s` needs %s", o->word[0], what);
    return o->word[i];
}

// What was this model trained for? A file from elsewhere does not say, and is taken at its word.
static bool can_answer(const Model *m) {
    return is(m->objective, "sft") || is(m->objective, "dpo") || is(m->objective, "rlhf");
}

// The warm-up already corrects, though all that it has learnt is to copy.
static bool can_correct(const Model *m) {
    return is(m->objective, "aligner") || is(m->objective, "warmup");
}

static void check_vocab(int V) {
    if (V < FIRST_PIECE || V > MAX_VOCAB)
        usage_error("--vocab %d: %d to %d was expected", V, FIRST_PIECE, MAX_VOCAB);
}

// Loads a model that has a prompt, and was not trained for something else than what is asked of it.
static void load_for(bool correcting, Model *m, const char *path) {
    model_load(m, path);
    template_of(m, true);
    const bool other = correcting ? can_answer(m) : can_correct(m);
    CHECK(!other && !is(m->objective, "reward"), "%s was trained as %s; a model that %s was "
          "expected", path, m->objective, correcting ? "corrects" : "answers");
}

// A Generator for m, with the options `how`; generator_free() frees it.
static void generator_init(Generator *g, Model *m, Decoding how) {
    *g = (Generator){ .m = m, .how = how };
    if (how.keep < 0) g->how.keep = m->keep;            // as the model's file says
    model_pack(m);
    batch_alloc(&g->batch, FEED, 1);
    g->count = ints(m->c.V);
    g->choice = zalloc((size_t)m->c.V, sizeof *g->choice);
}

// Frees what generator_init() and the cache have taken. A Generator that is all 0 is fine, too.
static void generator_free(Generator *g) {
    FREE(g->cache.keys, g->cache.values, g->count, g->choice);
    batch_free(&g->batch);
    *g = (Generator){ 0 };
}

// Makes each of n pieces of `old` floats `new` floats long, with zeros at the end. p, the memory of
// all of them (or NULL, if old is 0), is replaced by what this returns.
static float *longer_pieces(float *p, size_t n, size_t old, size_t new) {
    float *to = zalloc(n, new * sizeof *to);
    for (size_t i = 0; p && i < n; i++) copy_floats(to + i * new, p + i * old, old);
    free(p);
    return to;
}

// Room for n more tokens. The cache grows with the text, whatever context a file claims, and at
// least to twice its length, so a text of T tokens is moved log T times. A head's keys are one
// piece of it; its values are panels of NR columns (chapter 7), each of which is a piece.
static void generator_reserve(Generator *g, int n) {
    const Config *c = &g->m->c;
    Cache *k = &g->cache;
    const int hs = head_size(c), needed = k->len + n, old = k->capacity;
    const size_t heads = (size_t)c->L * c->H_kv, panels = heads * packed_size(1, hs) / NR;
    acts_reserve(g->m, FEED, FEED, needed, false);
    if (needed <= old) return;
    k->capacity = round_up(needed > 2 * k->len ? needed : 2 * k->len, 256);
    k->keys = longer_pieces(k->keys, heads, packed_size(hs, old), packed_size(hs, k->capacity));
    k->values = longer_pieces(k->values, panels, (size_t)old * NR, (size_t)k->capacity * NR);
}

// For qsort(). Equal probabilities are ordered by id, so the order never depends on qsort().
static int likelier_first(const void *pa, const void *pb) {
    const struct Choice *a = pa, *b = pb;
    if (a->p != b->p) return a->p > b->p ? -1 : 1;
    return (a->id > b->id) - (a->id < b->id);
}

// `tokenizer`: learns from what the model will see, the filled prompt and the target after it. Both
// begin with a space, as encode() puts one before each text. A row without a correction (data for
// SFT) has its answer as the target.
static void run_tokenizer(const Options *o) {
    const TrainOptions *t = &o->train;
    Model m = { 0 };                                    // only its template is used
    Buf all = { 0 }, target = { 0 };
    if (!t->n_data || !t->out) usage_error("`tokenizer` needs --data, --vocab and --out");
    check_vocab(o->vocab);
    set_template(&m, t->prompt ? t->prompt : "default");
    for (int i = 0; i < t->n_data; i++) {
        Objects in;
        Triple row;
        objects_open(&in, t->data[i]);
        while (next_good_row(&in, NEED_X | NEED_Y_O, &row)) {
            Buf condition = prompt(&m, row.x, row.y_o);
            if (!json_text(json_find(in.object, "correction"), &target)) buf_set(&target, row.y_o);
            buf_puts(&all, " ");
            buf_puts(&all, condition.s);
            buf_puts(&all, "\n ");
            buf_puts(&all, target.s);
            buf_puts(&all, "\n");
            free(condition.s);
        }
        objects_close(&in);
    }
    CHECK(all.n, "no rows to learn from in %s", t->data[0]);
    Tokenizer *k = tokenizer_train(contents(&all), o->vocab);
    tokenizer_save(k, t->out);
    if (!t->quiet)
        fprintf(stderr, "%s: %d pieces from %zu bytes of text%s\n", t->out, k->V, all.n,
                k->V < o->vocab ? " (it yields no more)" : "");
    tokenizer_free(k);
    model_free(&m);
    FREE(all.s, target.s);
}

// The shape that the options ask for, with a vocabulary of V pieces. An option that is not given is
// 0, and has the default that --help names. F = 11/4 C is near the 8/3 C of Llama.
static Config shape_of(const TrainOptions *t, int V) {
    Config c = { .V = V, .C = t->dim ? t->dim : 128, .L = t->layers ? t->layers : 3,
                 .H = t->heads ? t->heads : 8, .context = t->context ? t->context : 256,
                 .tied = t->tied, .eps = 1e-5f, .theta = 1e4f };
    if (c.C > 16384) usage_error("--dim needs a number up to 16384");
    c.H_kv = t->kv_heads ? t->kv_heads : c.H;
    c.F = t->hidden ? t->hidden : c.C * 11 / 4;
    config_check(&c, "the shape asked for");
    return c;
}

// The model that a run begins with: --init's weights, tokenizer and prompt (that is how the Aligner
// begins where the warm-up ended), or a new one with random weights.
static void first_model(Model *m, const TrainOptions *t, const char *objective) {
    const bool shape = t->dim || t->layers || t->heads || t->kv_heads || t->hidden || t->context;
    if (!t->init == !t->tokenizer || (t->init && (shape || t->tied)))
        usage_error("`train` needs either --init, or --tokenizer and, if you like, a shape: --dim "
                    "--layers --heads --kv-heads --hidden --context --tied");
    if (t->init) {
        model_load(m, t->init);
    } else {
        *m = (Model){ .tokenizer = tokenizer_load(t->tokenizer) };
        m->c = shape_of(t, m->tokenizer->V);
        model_alloc(m);
        model_init(m, (uint64_t)t->seed);
    }
    if (t->prompt || !m->template) set_template(m, t->prompt ? t->prompt : "default");
    if (t->keep >= 0) m->keep = t->keep;
    snprintf(m->objective, sizeof m->objective, "%s", objective);
}

// Refuses what no run can be; `train` and the objectives of tests/lab.c share it.
static void check_train_options(const TrainOptions *t) {
    if (!t->n_data || !t->out) usage_error("`train` needs --data and --out");
    if (!t->steps == !t->epochs) usage_error("`train` needs either --steps or --epochs");
    if (t->batch < 1) usage_error("--batch needs a number from 1 on");
    if (t->ema >= 1) usage_error("--ema needs a number below 1");
    if (t->epochs > 1000000) usage_error("--epochs needs a number up to 1000000");
}

// `train`: what can be refused without reading the data has been refused before this reads it. The
// objective is chosen here, by name, and turns triples into rows in rows_load(); the training loop
// never asks for it again.
static void run_train(const Options *o) {
    const TrainOptions *t = &o->train;
    const char *name = need_word(o, 1, "an objective: sft, warmup or aligner");
    Objective objective = is(name, "sft") ? sft : is(name, "warmup") ? warmup
                        : is(name, "aligner") ? aligner : NULL;
    if (!objective) usage_error("\"%s\": sft, warmup or aligner was expected", name);
    check_train_options(t);
    Model m;
    Rows rows = { 0 }, valid = { 0 };
    first_model(&m, t, name);
    for (int i = 0; i < t->n_data; i++) rows_load(&rows, &m, t->data[i], objective);
    if (t->valid) rows_load(&valid, &m, t->valid, objective);
    CHECK(rows.n, "no rows to train on in %s", t->data[0]);
    CHECK(!t->valid || valid.n, "no rows to validate on in %s", t->valid);
    if (!t->quiet)
        fprintf(stderr, "%s: %zu rows, %zu parameters, vocabulary %d, %d threads\n", name, rows.n,
                m.n_params, m.c.V, omp_get_max_threads());
    train(&(Run){ .model = &m, .rows = &rows, .valid = &valid, .o = t });
    rows_free(&rows);
    rows_free(&valid);
    model_free(&m);
}

// What answers and corrects, and its last reply: y_o is what was corrected (asked: it is the
// upstream model's), y is what came out, and reason says why it is a copy or has no end.
typedef struct {
    Model m, pi;
    Generator g, upstream;              // of m; of pi, the upstream model, if there is one
    bool correcting, asked, copied;
    Buf y_o, y;
    const char *reason;
} Session;

// Answers x, or corrects y_o, into s->y. An empty answer asks the upstream model, if there is one:
// then this is one draw from the composed policy of Eq. (2).
static void respond(Session *s, Text x, Text y_o) {
    s->asked = s->upstream.m && !y_o.n;
    buf_set(&s->y_o, y_o);
    if (!s->correcting) s->reason = answer(&s->g, x, &s->y);
    else if (!s->asked) s->reason = correct(&s->g, x, y_o, &s->y);
    else s->reason = composed_policy(&s->upstream, &s->g, x, &s->y_o, &s->y);
    s->copied = s->correcting && same(contents(&s->y_o), contents(&s->y));
}

// One correction for a reader, on stdout: the diff, and under it "copied" or "corrected" with the
// reason if there is one. NO_COLOR is what many programs take for "no colours, please".
static void show_correction(const char *label, const Session *s) {
    const bool color = isatty(1) && !getenv("NO_COLOR");
    fputs(label, stdout);
    show_diff(stdout, contents(&s->y_o), contents(&s->y), color);
    printf("%s%s%s%s%s\n", !color ? "" : s->copied ? "\x1b[2m" : "\x1b[1m",
           s->copied ? "copied" : "corrected", s->reason ? ": " : "", s->reason ? s->reason : "",
           color ? "\x1b[0m" : "");
}

// Writes, as one line, the members of object whose keys are not in drop (a list up to a NULL), as
// they were written, and then `more`.
static void print_row(Text object, const char *const *drop, const Buf *more) {
    Buf line = { 0 };
    Text key, value;
    buf_puts(&line, "{");
    for (size_t at = 0; json_member(object, &at, &key, &value); ) {
        const char *const *d = drop;
        while (*d && !key_is(key, *d)) d++;
        if (*d) continue;
        buf_add(&line, key.s, key.n);
        buf_puts(&line, ": ");
        buf_add(&line, value.s, value.n);
        buf_puts(&line, ", ");
    }
    for (size_t i = 0; i < line.n; i++)                 // newlines are only ever between tokens
        if (line.s[i] == '\n' || line.s[i] == '\r') line.s[i] = ' ';
    printf("%s%s}\n", line.s, more->s);
    free(line.s);
}

// One bad row does not end a service: it comes back with the reason, and counts as copied. Text
// that is no JSON comes back as {"line": "the text"}, which is what read_object() made of it.
static void print_bad_row(const Objects *in, const char *key, bool correcting) {
    Buf more = { 0 };
    buf_puts(&more, correcting ? "\"action\": \"copy\", \"reason\": " : "\"reason\": ");
    json_put(&more, text(in->reason));
    print_row(in->object, (const char *const[]){ key, "action", "reason", NULL }, &more);
    free(more.s);
}

// The row with an answer, or with a correction and an action. A reason beside an old action (or
// answer) is about that and goes with it; a reason alone is the user's.
static void print_reply(const Session *s, const Objects *in) {
    const char *key = s->correcting ? "correction" : "answer";
    const char *verdict = s->correcting ? "action" : "answer";
    const bool drop_reason = s->reason || json_find(in->object, verdict).s;
    const Text raw = json_find(in->object, "answer");
    Buf more = { 0 };
    if (s->asked) {
        buf_puts(&more, "\"answer\": ");
        json_put(&more, contents(&s->y_o));
        buf_puts(&more, ", ");
    }
    buf_puts(&more, s->correcting ? "\"correction\": " : "\"answer\": ");
    if (s->copied && !s->asked) buf_add(&more, raw.s, raw.n);   // byte for byte, as it was written
    else json_put(&more, contents(&s->y));
    if (s->correcting) buf_puts(&more, ", \"action\": ");
    if (s->correcting) buf_puts(&more, s->copied ? "\"copy\"" : "\"correct\"");
    if (s->reason) buf_puts(&more, ", \"reason\": ");
    if (s->reason) json_put(&more, text(s->reason));
    print_row(in->object, (const char *const[]){ key, verdict, drop_reason ? "reason" : key,
                                                 s->asked ? "answer" : key, NULL }, &more);
    free(more.s);
}

// A filter: one line for one, written before the next is read. Memory does not grow with the input,
// and a program at the other end of two pipes may wait for each reply before it sends more.
static void filter(Session *s, const Options *o) {
    Objects in;
    Triple t;
    const int keys = s->correcting ? NEED_X | NEED_Y_O : NEED_X;
    objects_open(&in, o->n_words > 2 ? o->word[2] : NULL);
    for (enum Status status; (status = next_row(&in, keys, &t)) != ROW_END; ) {
        CHECK(status == ROW_GOOD || !o->strict, "%s: %s", in.path, in.reason);
        if (status == ROW_GOOD) respond(s, t.x, t.y_o);
        if (status == ROW_BAD) {
            print_bad_row(&in, s->correcting ? "correction" : "answer", s->correcting);
        } else if (o->diff) {
            put_line(stdout, "x    ", t.x);
            put_line(stdout, "y_o  ", contents(&s->y_o));
            show_correction("y_c  ", s);
            putchar('\n');
        } else {
            print_reply(s, &in);
        }
        flush_results();
    }
    objects_close(&in);
}

// Reads lines from the terminal up to an empty one into b, without escape sequences (an arrow key
// is ESC [ D) and control codes. A question or an answer may be pasted whole, with its newlines.
// The terminal itself cuts a line at 4,095 bytes; that is said. False at the end of input.
static bool ask(const char *label, Buf *b) {
    char *line = NULL;
    size_t capacity = 0;
    ssize_t n;
    buf_set(b, text(""));
    fputs(label, stderr);
    while ((n = getline(&line, &capacity, stdin)) > 0 && strcspn(line, "\r\n")) {
        if (n >= 4095) fputs("(the terminal cuts lines at 4,095 bytes; use a file)\n", stderr);
        if (b->n) buf_puts(b, "\n");
        for (const char *p = line; *p; p++) {
            if (*p == '\x1b' && (p[1] == '[' || p[1] == 'O'))
                p += 2 + strspn(p + 2, "0123456789;?");
            else if (!is_control(*p) || *p == '\t') buf_add(b, p, 1);
            if (!*p) break;
        }
        fputs("             . ", stderr);
    }
    free(line);
    return n > 0 || b->n;
}

// On a terminal: question in, answer in (or from the upstream model), correction out, until Ctrl-D.
static void converse(Session *s) {
    Buf x = { 0 }, y_o = { 0 };
    fprintf(stderr, "An empty line ends what you enter, Ctrl-D ends the conversation.%s\n",
            s->upstream.m ? " An empty answer asks the upstream model." : "");
    while (ask("question x   > ", &x)) {
        if (!x.n) continue;
        if (s->correcting && !ask("answer y_o   > ", &y_o)) break;
        respond(s, contents(&x), contents(&y_o));
        if (s->asked) put_line(stderr, "answer y_o   = ", contents(&s->y_o));
        if (s->correcting) show_correction("correction   = ", s);
        else put_line(stdout, "", contents(&s->y));
        fflush(stdout);
    }
    fputc('\n', stderr);
    FREE(x.s, y_o.s);
}

// --question, and for `correct` --answer: the text alone, or with --diff the diff and the verdict.
static void reply_once(Session *s, const Options *o) {
    respond(s, text(o->question), text(s->correcting ? o->answer : ""));
    if (s->asked) put_line(stderr, "answer y_o   = ", contents(&s->y_o));
    if (o->diff) show_correction("", s);
    else put_result(contents(&s->y));
    if (s->reason && !o->diff) fprintf(stderr, "aligner: %s\n", s->reason);
}

// Frees what a command's session holds; what it does not use is 0.
static void session_free(Session *s) {
    generator_free(&s->g);
    generator_free(&s->upstream);
    model_free(&s->m);
    model_free(&s->pi);
    FREE(s->y_o.s, s->y.s);
}

// `answer` and `correct`: one question, a conversation, or a filter.
static void run_generate(const Options *o) {
    Session s = { .correcting = is(o->word[0], "correct") };
    const char *path = need_word(o, 1, "a model");
    const bool talks = !o->question && o->n_words < 3 && isatty(0) && isatty(1);
    const double start = seconds();
    if (o->question && (o->n_words > 2 || (s.correcting && !o->answer)))
        usage_error("--question needs --answer for `correct`, and no file");
    load_for(s.correcting, &s.m, path);
    generator_init(&s.g, &s.m, o->how);
    if (o->upstream) {
        load_for(false, &s.pi, o->upstream);
        generator_init(&s.upstream, &s.pi, o->how);
    }
    if (o->question) reply_once(&s, o);
    else if (talks) converse(&s);
    else filter(&s, o);
    if (!o->train.quiet && !talks && !o->question)
        fprintf(stderr, "%ld tokens, %ld of them copied from the draft, in %ld passes, %.1f s\n",
                s.g.tokens, s.g.copied, s.g.passes, seconds() - start);
    session_free(&s);
}

// `eval`: the loss a target token; for an Aligner also what it does, decoding as `correct` does. A
// row should be copied if its gold correction equals its answer, otherwise it should be corrected.
// So an Aligner can fail in three ways: it changes what was good, it misses what was bad, or it
// corrects it wrongly. [0] counts the rows to correct, [1] those to copy.
static void run_eval(const Options *o) {
    Session s = { .correcting = true };
    Batch unit;
    Rows rows = { 0 };
    long n[2] = { 0 }, exact[2] = { 0 }, missed = 0, targets = 0;
    if (!o->train.n_data) usage_error("`eval` needs --data");
    model_load(&s.m, need_word(o, 1, "a model"));
    const bool answers = can_answer(&s.m);
    CHECK(!is(s.m.objective, "reward"), "%s: a reward model; build/lab score uses it", o->word[1]);
    generator_init(&s.g, &s.m, o->how);
    for (int i = 0; i < o->train.n_data; i++) {
        Objects in;
        Triple t;
        Row row;
        objects_open(&in, o->train.data[i]);
        while (next_usable_row(&in, &s.m, answers ? sft : aligner, &t, &row)) {
            rows_add(&rows, row);
            targets += row.n - row.n_condition;
            if (answers) continue;
            const bool copy = same(t.y_o, t.y_c);
            respond(&s, t.x, t.y_o);
            n[copy]++;
            exact[copy] += same(contents(&s.y), t.y_c);
            missed += !copy && s.copied;
        }
        objects_close(&in);
    }
    CHECK(rows.n, "no rows to evaluate in %s", o->train.data[0]);
    const int T = unit_size(&rows, &rows);
    batch_alloc(&unit, T, T);
    acts_reserve(&s.m, T, T, T, true);
    const double loss = mean_loss(&s.m, &rows, &unit);
    const long wrong = n[0] - exact[0] - missed;
    if (o->json)
        printf("{\"rows\": %zu, \"target_tokens\": %ld, \"loss\": %.6f, \"copy\": {\"rows\": %ld, "
               "\"exact\": %ld}, \"correct\": {\"rows\": %ld, \"exact\": %ld, \"missed\": %ld, "
               "\"wrong\": %ld}}\n", rows.n, targets, loss, n[1], exact[1], n[0], exact[0], missed,
               wrong);
    else
        printf("%zu rows, %ld target tokens: loss %.4f a token, perplexity %.3f\n", rows.n, targets,
               loss, exp(loss));
    if (!o->json && !answers)
        printf("to copy: %5ld rows, %6.2f %% exact;  to correct: %5ld rows, %6.2f %% exact, "
               "%6.2f %% wrong, %6.2f %% missed\n", n[1], percent(exact[1], n[1]), n[0],
               percent(exact[0], n[0]), percent(wrong, n[0]), percent(missed, n[0]));
    batch_free(&unit);
    rows_free(&rows);
    session_free(&s);
}

// `sample`: no prompt, the text goes on. It works for any model that model_load() reads. Prints the
// text and what follows it, 256 tokens if --max-tokens does not say otherwise.
static void run_sample(const Options *o) {
    Session s = { 0 };
    Ids ids = { 0 }, out = { 0 };
    model_load(&s.m, need_word(o, 1, "a model"));
    ids_add(&ids, BOS);
    encode(s.m.tokenizer, text(o->text ? o->text : ""), &ids);
    CHECK(ids.n <= s.m.c.context, "the text has %d tokens, the model's context is %d", ids.n,
          s.m.c.context);
    generator_init(&s.g, &s.m, o->how);
    if (!s.g.how.max_tokens) s.g.how.max_tokens = 256;
    generate(&s.g, &ids, NULL, 0, &out);
    for (int i = 0; i < out.n; i++) ids_add(&ids, out.a[i]);
    s.y = decode_all(s.m.tokenizer, ids.a, ids.n);
    put_result(contents(&s.y));
    FREE(ids.a, out.a);
    session_free(&s);
}

// `tokens`: a text as the model sees it, or a row with the border between condition and target: id,
// piece as a JSON string and, for a row, its half, with tabs between them. The row is the one that
// training makes of what is given: with a correction the Aligner's, with an answer the warm-up's
// (or for a model that answers SFT's).
static void run_tokens(const Options *o) {
    Model m = { 0 };
    Ids ids = { 0 };
    const char *path = need_word(o, 1, "a model or a tokenizer.bin"), *end = strrchr(path, '.');
    if (!o->question == !o->text) usage_error("`tokens` needs either --text or --question");
    if (end && is(end, ".bin")) m.tokenizer = tokenizer_load(path);
    else model_load(&m, path);
    if (!m.template) set_template(&m, o->train.prompt ? o->train.prompt : "default");
    ids_add(&ids, BOS);
    encode(m.tokenizer, text(o->text ? o->text : ""), &ids);
    Row r = { ids.a, 0, ids.n };
    if (o->question) {
        const char *y_o = o->answer ? o->answer : "", *y_c = o->correction ? o->correction : "";
        Triple t = { text(o->question), text(y_o), text(y_c) };
        bool answers = !o->answer || can_answer(&m);
        r = o->correction ? aligner(&m, t) : answers ? sft(&m, t) : warmup(&m, t);
        free(ids.a);
    }
    for (int i = 0; i < r.n; i++) {
        Buf piece = { 0 };
        json_put(&piece, m.tokenizer->piece[r.ids[i]]);
        printf("%d\t%s%s\n", r.ids[i], piece.s,
               o->text ? "" : i < r.n_condition ? "\tcondition" : "\ttarget");
        free(piece.s);
    }
    free(r.ids);
    model_free(&m);
}

// `info`: what is in a model file: its shape, its size, what made it, and the prompt that it was
// trained with.
static void run_info(const Options *o) {
    Model m;
    model_load(&m, need_word(o, 1, "a model"));
    const Config *c = &m.c;
    printf("dim %d, layers %d, heads %d, key/value heads %d, hidden %d, context %d, vocabulary %d, "
           "head %s\n%zu parameters in %zu tensors, %.1f MB as f32\n", c->C, c->L, c->H, c->H_kv,
           c->F, c->context, c->V, c->tied ? "tied" : "untied", m.n_params, m.n_tensors,
           (double)m.n_params * 4e-6);
    if (*m.objective) {
        printf("trained as ");
        put_plain(stdout, text(m.objective));
        printf(", %ld steps; keep %g\n", m.step, m.keep);
    }
    if (m.template) put_line(stdout, "prompt: ", text(m.template));
    if (m.template) put_line(stdout, "prompt without answer: ", text(m.template_sft));
    model_free(&m);
}

/* ------------------------------------------------------------------------------------------------
   Options.  One table says what there is and which command takes it; tests/lab.c adds a second
   one. Each option is stored where p points, so nothing but the table knows all of them. */

static const char VERSION[] = "aligner.c 2.0 (arXiv 2402.02416, PDF of January 2025)";

// p points to: int, int, long, double, and const char * for the others (INPUTS: --data's list).
// commands: the names of those that take it, or NULL: all. help: what it is, or its default.
enum Kind { FLAG, INT, LONG, REAL, STRING, INPUT, OUTPUT, INPUTS };
typedef struct { const char *name; enum Kind kind; void *p; const char *commands, *help; } Option;

#define T(member) &options.train.member
#define HOW(member) &options.how.member
#define GENERATES "answer correct sample"
static const Option OPTION[] = {
    { "--data", INPUTS, T(data), "tokenizer train eval", "rows, JSONL; - is standard input" },
    { "--out", OUTPUT, T(out), "tokenizer train", "the file to write" },
    { "--prompt", STRING, T(prompt), "tokenizer train tokens",
      "default, v1, v2, paper, short, or a text with {question} and {answer}" },
    { "--vocab", INT, &options.vocab, "tokenizer", "pieces, at most" },
    { "--init", INPUT, T(init), "train", "the model to begin with" },
    { "--tokenizer", INPUT, T(tokenizer), "train", "for a model from scratch, with a shape:" },
    { "--dim", INT, T(dim), "train", "128" },
    { "--layers", INT, T(layers), "train", "3" },
    { "--heads", INT, T(heads), "train", "8" },
    { "--kv-heads", INT, T(kv_heads), "train", "as many as heads" },
    { "--hidden", INT, T(hidden), "train", "11/4 of dim" },
    { "--context", INT, T(context), "train", "the longest row, 256" },
    { "--tied", FLAG, T(tied), "train", "the head is the embedding matrix" },
    { "--steps", LONG, T(steps), "train", "or:" },
    { "--epochs", LONG, T(epochs), "train", "each row once an epoch" },
    { "--batch", LONG, T(batch), "train", "rows a step, 16, or:" },
    { "--tokens", LONG, T(tokens), "train", "tokens a step" },
    { "--lr", REAL, T(lr), "train", "the learning rate at its peak, 1e-3" },
    { "--lr-warmup", REAL, T(lr_warmup), "train", "share of the steps before the peak, 0.03" },
    { "--weight-decay", REAL, T(weight_decay), "train", "0" },
    { "--clip", REAL, T(clip), "train", "the largest norm of a gradient, 1" },
    { "--adam-eps", REAL, T(adam_eps), "train", "1e-8; 1e-4 leaves rare tokens' embeddings alone" },
    { "--muon", REAL, T(muon), "train", "Muon for the layers' matrices, at X times the rate" },
    { "--ema", REAL, T(ema), "train", "saves the mean weights of the last 1 / (1 - X) steps" },
    { "--grow-below", REAL, T(grow_below), "train",
      "short rows first: targets double in length when the running loss falls below X" },
    { "--valid", INPUT, T(valid), "train", "rows to validate on" },
    { "--log", OUTPUT, T(log), "train", "a CSV line for each step" },
    { "--save-every", LONG, T(save_every), "train", "steps between checkpoints" },
    { "--resume", FLAG, T(resume), "train", "continue from the last one (same command; --threads,\n"
      "        --steps, --save-every, --log, --valid, --keep and --quiet may differ)" },
    { "--seed", LONG, T(seed), "train " GENERATES, "1" },
    { "--keep", REAL, HOW(keep), "train correct eval",
      "y_o stays unless y_c is e^X times as likely; train puts it into the file" },
    { "--temperature", REAL, HOW(temperature), GENERATES, "0: greedy" },
    { "--top-k", INT, HOW(top_k), GENERATES, "of the likeliest tokens" },
    { "--top-p", REAL, HOW(top_p), GENERATES, "1" },
    { "--frequency-penalty", REAL, HOW(frequency_penalty), GENERATES, "0" },
    { "--max-tokens", INT, HOW(max_tokens), GENERATES, "new tokens" },
    { "--no-draft", FLAG, HOW(no_draft), "correct", "decode without y_o as a draft" },
    { "--upstream", INPUT, &options.upstream, "correct", "answers where an answer is empty" },
    { "--diff", FLAG, &options.diff, "correct", "show what changed" },
    { "--strict", FLAG, &options.strict, "answer correct", "stop at the first bad row" },
    { "--question", STRING, &options.question, "answer correct tokens", "one, instead of a file" },
    { "--answer", STRING, &options.answer, "correct tokens", "its answer" },
    { "--correction", STRING, &options.correction, "tokens", "its correction" },
    { "--text", STRING, &options.text, "sample tokens", "a text" },
    { "--json", FLAG, &options.json, "eval", "the result as JSON" },
    { "--threads", INT, &options.threads, NULL, "all there are" },
    { "--quiet", FLAG, T(quiet), NULL, "no progress" },
    { NULL, FLAG, NULL, NULL, NULL } };

// words: how many it takes, itself included; first_file: the first of them that is a file. A
// command takes the options of the command named by `like`, too.
typedef struct {
    const char *name, *like;
    int words, first_file;
    void (*run)(const Options *);
    const char *help;
} Command;

// No command's name is a part of another's, so strstr() finds whole words.
static bool takes(const Command *c, const Option *o) {
    return !o->commands || strstr(o->commands, c->name) ||
           (c->like && strstr(o->commands, c->like));
}

// Prints what there is: all commands, or the command called name and its options. table is a list
// of option tables up to a NULL; a table ends with an option without name.
static void show_help(const Command *command, const Option *const *table, const char *name) {
    static const char *const VALUE[] = { "", " N", " N", " X", " S", " FILE", " FILE", " FILE..." };
    printf("aligner.c: train and use a small Aligner (arXiv 2402.02416)\n");
    for (const Command *c = command; c->name; c++) {
        if (name && !is(name, c->name)) continue;
        printf("  %s %s\n", c->name, c->help);
        for (const Option *const *t = table; name && *t; t++)
            for (const Option *o = *t; o->name; o++)
                if (takes(c, o)) printf("    %s%s  %s\n", o->name, VALUE[o->kind], o->help);
    }
    if (!name) printf("COMMAND --help lists its options. Exit 1: bad input, 2: usage.\n");
    flush_results();
}

// 0 for equal names; otherwise less than 0 by the letters that are neither in the beginning nor in
// the end that the two share. A letter too many, too few or wrong costs one or two.
static int likeness(const char *a, const char *b) {
    int n = (int)strlen(a), m = (int)strlen(b), begin = 0, end = 0;
    while (begin < least(n, m) && a[begin] == b[begin]) begin++;
    while (begin + end < least(n, m) && a[n - 1 - end] == b[m - 1 - end]) end++;
    return 2 * (begin + end) - n - m;
}

// An option that would have no effect is a mistake, and so is one that does not exist: the nearest
// name is offered.
static const Option *find_option(const Option *const *table, const Command *c, const char *name) {
    const Option *best = NULL;
    int most = INT_MIN;
    for (; *table; table++)
        for (const Option *o = *table; o->name; o++) {
            if (!takes(c, o) || likeness(o->name, name) <= most) continue;
            most = likeness(o->name, name);
            best = o;
        }
    if (most < 0) usage_error("`%s` has no option %s; did you mean %s?", c->name, name, best->name);
    return best;
}

// The command of that name. As with options, a wrong name is met with the nearest one that exists.
static const Command *find_command(const Command *c, const char *name) {
    const Command *best = c;
    for (; c->name; c++)
        if (likeness(c->name, name) > likeness(best->name, name)) best = c;
    if (!is(best->name, name))
        usage_error("there is no command \"%s\"; did you mean %s?", name, best->name);
    return best;
}

// The files that a run reads and writes. Writing can destroy what is read only if both are one
// file, under whatever names: hard links, symbolic links and redirections count.
typedef struct { const char *path; bool output, exists; struct stat s; } NamedFile;
static NamedFile named_file[32];
static int n_named_files;

// Notes a file; fd: it is open already, otherwise -1.
static void name_file(const char *path, bool output, int fd) {
    NamedFile f = { .path = path, .output = output };
    if (n_named_files == 32) usage_error("too many files");
    f.exists = !(fd < 0 ? stat(path, &f.s) : fstat(fd, &f.s));
    named_file[n_named_files++] = f;
}

// The one place that protects files, by device and inode: no file is both input and output, or two
// outputs. And all outputs are tried before work begins.
static void check_files(void) {
    for (NamedFile *a = named_file; a < named_file + n_named_files; a++)
        for (NamedFile *b = named_file; b < a; b++) {
            bool one = is(a->path, b->path) || (a->exists && b->exists && same_file(&a->s, &b->s));
            CHECK(!one || !(a->output || b->output), "%s and %s are one file: it is both input and "
                  "output, or two outputs; name another", a->path, b->path);
        }
    for (int i = 2; i < n_named_files; i++)             // 0 and 1 are standard input and output
        if (named_file[i].output) check_writable(named_file[i].path);
}

// Stores the value of an option. Numbers are checked before they are narrowed.
static void set_option(const Option *o, const char *s) {
    char *end;
    double x = strtod(s, &end);
    const bool number = o->kind < STRING, whole = o->kind < REAL;
    if (number && (end == s || *end || !(x >= 0 && x <= 2e9) || (whole && x != floor(x))))
        usage_error("%s needs a %snumber from 0 to 2e9, not \"%s\"", o->name,
                    whole ? "whole " : "", s);
    if (o->kind == OUTPUT || (o->kind >= INPUT && !is(s, "-"))) name_file(s, o->kind == OUTPUT, -1);
    if (o->kind == REAL) *(double *)o->p = x;
    else if (o->kind == LONG) *(long *)o->p = (long)x;
    else if (o->kind == INT) *(int *)o->p = (int)x;
    else if (o->kind != INPUTS) *(const char **)o->p = s;
    else if (options.train.n_data < 16) options.train.data[options.train.n_data++] = s;
    else usage_error("%s takes at most 16 files", o->name);
}

// Reads words and options of command c from argv[1 ..], up to its NULL. --key=value is --key value.
// Words may come before, between and after options; `--data F M` leaves the last one of its files
// to a command that has no model yet. At the end, what two options say about one thing is settled.
static void parse_options(const Option *const *table, const Command *c, char **argv) {
    TrainOptions *t = &options.train;
    options.n_words = 0;
    for (char **arg = argv + 1; *arg; arg++) {
        if (**arg != '-' || is(*arg, "-")) {
            if (options.n_words == c->words)
                usage_error("`%s`: \"%s\" is one word too many", c->name, *arg);
            if (options.n_words >= c->first_file && !is(*arg, "-")) name_file(*arg, false, -1);
            options.word[options.n_words++] = *arg;
            continue;
        }
        char *value = strchr(*arg, '=');
        if (value) *value++ = 0;
        const Option *o = find_option(table, c, *arg);
        if (o->kind == FLAG) {
            if (value) usage_error("%s takes no value", o->name);
            *(int *)o->p = 1;
            continue;
        }
        if (!value) value = *++arg;
        if (!value) usage_error("%s needs a value", o->name);
        set_option(o, value);
        for (; o->kind == INPUTS && arg[1] && (*arg[1] != '-' || is(arg[1], "-")); arg++)
            set_option(o, arg[1]);                      // as many files as follow
    }
    if (options.n_words == 1 && c->words == 2 && t->n_data > 1)         // --data F M
        options.word[options.n_words++] = t->data[--t->n_data];
    if (options.how.top_p > 1) usage_error("--top-p needs a number up to 1");
    if (t->batch > 0 && t->tokens) usage_error("either --batch or --tokens was expected");
    if (t->batch < 0) t->batch = 16;
    options.how.seed = (uint64_t)t->seed;
    t->keep = options.how.keep;
}

static const Command COMMAND[] = {
    { "tokenizer", NULL, 1, 1, run_tokenizer, "--data F... --vocab N --out F: learns its pieces" },
    { "train", NULL, 2, 2, run_train, "sft|warmup|aligner --data F... --out M (--init M)" },
    { "answer", NULL, 3, 1, run_generate, "M [F]: rows with question come back with answer" },
    { "correct", NULL, 3, 1, run_generate, "M [F]: rows come back with correction and action" },
    { "eval", NULL, 2, 1, run_eval, "M --data F...: the loss; corrections against gold" },
    { "sample", NULL, 2, 1, run_sample, "M --text S: continues a text" },
    { "tokens", NULL, 2, 1, run_tokens, "M --text S: the tokens of a text or row" },
    { "info", NULL, 2, 1, run_info, "M: what is in a model file" },
    { NULL, NULL, 0, 0, NULL, NULL } };

// Finds the command, reads its options, and runs it. commands is a list up to an entry without
// name, tables one up to a NULL. A run of `train` also writes OUT.state, so that is looked at, too.
// Streams that the caller has closed are replaced by /dev/null, opened for reading: a result that
// cannot be written must fail, not vanish.
static int run_command(const Command *command, const Option *const *tables, int argc, char **argv) {
    static Buf state;
    for (int fd = 0; fd < 3; fd++)                      // or a file of ours would be 0, 1 or 2
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDONLY) < 0) return 1;
    for (int i = 1; i < argc; i++) {
        if (is(argv[i], "--version")) return puts(VERSION) < 0 || fflush(stdout);
        if (!is(argv[i], "--help") && !is(argv[i], "-h")) continue;
        show_help(command, tables, i > 1 ? argv[1] : NULL);
        return 0;
    }
    if (argc < 2) usage_error("no command");
    const Command *c = find_command(command, argv[1]);
    name_file("standard input", false, 0);
    name_file("standard output", true, 1);
    parse_options(tables, c, argv);
#ifdef _OPENMP
    if (options.threads > 1024) usage_error("--threads needs a number up to 1024");
    if (options.threads) omp_set_num_threads(options.threads);
#endif
    if (options.train.out && takes(c, &(Option){ .commands = "train" })) {
        state = with_ending(options.train.out, STATE);
        name_file(state.s, true, -1);
    }
    check_files();
    c->run(&options);
    flush_results();
    return 0;
}

#ifndef ALIGNER_NO_MAIN
int main(int argc, char **argv) {
    return run_command(COMMAND, (const Option *const[]){ OPTION, NULL }, argc, argv);
}
#endif

/* MIT License

   Copyright (c) 2026 the authors of aligner.c

   Permission is hereby granted, free of charge, to any person obtaining a copy of this software
   and associated documentation files (the "Software"), to deal in the Software without
   restriction, including without limitation the rights to use, copy, modify, merge, publish,
   distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the
   Software is furnished to do so, subject to the following conditions:

   The above copyright notice and this permission notice shall be included in all copies or
   substantial portions of the Software.

   THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING
   BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
   NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
   DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
   OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE. */
