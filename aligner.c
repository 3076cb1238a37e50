/* aligner.c: train and run an Aligner in one C file.

   An Aligner is a small language model that edits the answers of another one. It reads a question x
   and an answer y_o from any upstream model, and writes y_c: the same answer if it was good, a
   corrected one if it was not. It is trained once and stacked on any upstream model.

   Paper: Ji et al., "Aligner: Efficient Alignment by Learning to Correct", arXiv 2402.02416,
   NeurIPS 2024. Equation and page numbers are those of the PDF of January 2025.

   In training, the model reads a condition and learns to write a target after it. Three objectives
   choose the two:

       objective   condition   target   loss (mean over a step's target tokens)
       sft         x           y_o      - log pi_theta(y_o | x)       Eq. (1)
       warmup      x, y_o      y_o      - log mu_phi(y_o | y_o, x)    p. 3: first learn to copy
       aligner     x, y_o      y_c      - log mu_phi(y_c | y_o, x)    Eq. (4): then copy or correct

   PART I is the whole method and reads from top to bottom in one sitting. PART II is the machine
   room: fast kernels, the tokenizer, safe files, the command line. PART I announces what it uses
   from there by a prototype and a sentence, and needs no more to be understood.

       PART I    1 the paper      three objectives, Eqs. (1)-(4), the composed policy
                 2 rows           where the condition ends and the loss begins
                 3 the model      forward, loss, backward
                 4 learning       AdamW, the schedule, the loop
                 5 correcting     the sampler, a draft that is verified, correct()
       PART II   6 tools          7 kernels      8 tokenizer      9 model files
                 10 data files    11 training, continued          12 command line

   Notation. x, y_o, y_c, pi_theta (the upstream model) and mu_phi (the Aligner) are the paper's.
   T tokens, C dim, L layers, H heads, hs head size, F hidden size, V vocabulary size. A[T][C] is
   row-major. dX is the gradient of the loss with respect to X.

   Policies. Numbers: f32, each sum in one fixed order, so the same seed gives the same bits on any
   number of threads. Threads: OpenMP if there is one; no two threads write the same number. Files
   are hostile: every length is checked before it is used. Errors: one message says what was
   expected, what was found and what to do, then exit 1; bad usage exits with 2. */

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
   Chapter 1. The paper.  Everything the paper adds to an ordinary language model is here. */

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

static Buf prompt(const Model *m, Text x, Text y_o);                // the condition as text
static Row make_row(const Model *m, Buf condition, Text target);    // as tokens; frees condition

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
// Why is Eq. (4) enough? The upstream model and the Aligner together are one policy, Eq. (2), p. 3.
// The sum is over all answers y_k that the upstream model could give:
//
//     pi'(y_c | x) = sum_k mu_phi(y_c | y_k, x) pi_theta(y_k | x)
//                 >= mu_phi(y_c | y_o, x) pi_theta(y_o | x)
//
// The inequality drops every term but y_k = y_o; no term is negative, so no Jensen is needed. Take
// minus the logarithm and average over M. This is Eq. (3):
//
//     - E log pi'(y_c | x)  <=  - E log mu_phi(y_c | y_o, x)  -  E log pi_theta(y_o | x)
//
// The last term does not depend on phi. Minimising the first is Eq. (4), and it lowers an upper
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
   Chapter 2. Rows.  From a triple to numbers. A row of `train aligner --prompt short`, as if each
   word were one token; the bar is where the condition ends and the loss begins:

       <s> ##Question: Two and two? ##Answer: It is five. ##Correction: | It is four. </s>

   The model learns to write </s> as well: it is how an answer ends. */

typedef struct Tokenizer Tokenizer;                                         // chapter 8
enum { UNK = 0, BOS = 1, EOS = 2 };                                         // <unk>, <s>, </s>

static void encode(const Tokenizer *k, Text t, Ids *out);                   // appends t's token ids
static Buf decode_all(const Tokenizer *k, const int *ids, int n);           // the text of n ids
static void ids_add(Ids *v, int id);                                        // appends one id
static void buf_add(Buf *b, const void *s, size_t n);                       // appends n bytes
static const Tokenizer *tokenizer_of(const Model *m);
static const char *template_of(const Model *m, bool with_answer);           // has {question} in it

// The condition as text, owned by the caller. The template is walked once, and what is filled in is
// never searched for placeholders, so a question that says "{answer}" stays a question. The
// templates (chapter 9) do not end in a space, because encode() puts one before each text: " It"
// after "##Correction:" is then the same token as " It" after "##Answer: ". Aligners depend on
// this: copying is repeating token ids.
static Buf prompt(const Model *m, Text x, Text y_o) {
    Buf out = { 0 };
    buf_set(&out, (Text){ "", 0 });
    for (const char *p = template_of(m, y_o.s != NULL); *p; ) {
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
// as text. So no token spans the border where the loss begins, and generation sees exactly the
// prompt tokens that training used. Frees condition; the caller frees the row's ids.
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

// What is computed at once: whole rows, end to end, without padding. Attention stays inside a row,
// and positions begin at 0 in each. A model reads a token and gives V logits, the scores of all
// tokens that could come next. A row's last token is never read, as nothing comes next. Two rows of
// 4 and 5 tokens; logits are wanted at the last place of the first and the last two of the second:
//
//     ids      a0 a1 a2 b0 b1 b2 b3          start   0  3  7
//     pos      0  1  2  0  1  2  3           out     2  5  6
typedef struct {
    int T, n, n_out;                    // tokens, rows, places whose logits are wanted
    int *ids, *pos;                     // [T] the token; its position inside its row
    int *start;                         // [n + 1] where each row begins; start[n] is T
    int *out, *target;                  // [n_out] a place in 0..T-1; the token to predict there
} Batch;

// Adds one row. The token at t predicts the token at t + 1, so the first logits wanted are those of
// the condition's last token. This is the paper's mask (the -100 labels of the official code): the
// condition is read but carries no loss.
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
   forward() serves training, evaluation and generation.

       x_0     = E[ids]                                             one row of E for each token
       mid_l   = x_l   + attention(rope(rmsnorm(x_l) Wqkv^T)) Wo^T  tokens look at earlier tokens
       x_{l+1} = mid_l + swiglu(rmsnorm(mid_l) Wgate_up^T) Wdown^T  each token thinks by itself
       logits  = rmsnorm(x_L) Whead^T                               where a next token is wanted

   x is the residual stream: a layer only adds to it. In attention each token has a query, a key and
   a value in each head; Wqkv computes all three. */

typedef struct {
    int V, C, L, H, H_kv, F;            // H_kv: heads of keys and values, shared by H of queries
    int context;                        // how many tokens of a row can be read
    bool tied;                          // is the head the embedding matrix?
    float eps, theta;                   // RMSNorm's epsilon; the base of the rotary angles
} Config;

static int head_size(const Config *c) { return c->C / c->H; }
static int kv_width(const Config *c) { return head_size(c) * c->H_kv; }
static int qkv_width(const Config *c) { return c->C + 2 * kv_width(c); }

// Every matrix is W[outputs][inputs], as checkpoints store it. The total is V C (once if tied, else
// twice) + L C (2 C + 2 kv + 3 F + 2) + C weights.
typedef struct {
    float *attn_norm, *qkv, *o;         // [C], [C + 2 kv][C], [C][C]
    float *ffn_norm, *gate_up, *down;   // [C], [2 F][C], [C][F]
} LayerWeights;

typedef struct {
    float *embd, *norm, *head;          // [V][C], [C], [V][C]
    LayerWeights *layer;                // [L]
} Weights;

// The activations: what a layer computes, kept for its backward pass. Generation has none, so all
// layers share the memory of one.
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
    float *picked, *last_norm, *r;      // [n_out][C], [n_out][C], [n_out]    picked: rows of att
    float *logits;                      // [n_out][V]
    double *nll;                        // [n_out] - log p(target)
    float *dx, *dwide, *dnarrow;        // gradients: [T][C], [T][max(F, C + 2 kv)], [T][C]
    float *memory;                      // of all floats above
} Acts;

typedef struct { char name[40]; int rows, cols; size_t at; } Tensor;    // begins at params[at]

struct Model {
    Config c;
    Tokenizer *tokenizer;
    char *template, *template_sft;      // the prompt with and without {answer}
    char objective[16];                 // what it was trained for; empty if unknown
    long step;                          // optimiser steps that made these weights
    double keep;                        // how sure a correction must be: see outweighs()
    Weights w, g, packed;               // weights; gradients; weights as the matmul reads them
    Tensor *tensor;                     // [n_tensors] the one table for files and optimiser
    size_t n_tensors, n_params;
    float *params, *grads, *panels;     // the memory of w, g and packed
    float *angle;                       // [n_angles][hs / 2][2] cosines and sines for rope
    int n_angles;
    const float *steer;                 // [L][C] added to the stream after each layer, or NULL
    Acts acts;
};

static const Tokenizer *tokenizer_of(const Model *m) { return m->tokenizer; }

// Keys and values of the tokens read so far. They depend only on a token and on what came before
// it, so generation keeps them: only new tokens are computed, not the whole text again.
typedef struct { float *keys, *values; int len, capacity; } Cache;

// The cast, from PART II. Each kernel writes its first arguments. On the way back the gradients of
// weights add up: dW += ...

// y[T][C] = x / rms(x) * w. Keeps r[T] = 1 / rms for the way back, which adds to dx.
static void rmsnorm(float *y, float *r, const float *x, const float *w, int T, int C, float eps);
static void rmsnorm_backward(float *dx, float *dw, const float *dy, const float *x, const float *r,
                             const float *w, int T, int C);

// Y[T][N] = X[T][K] W[N][K]^T, or with add: Y += ... Nearly all of the time is spent here. packed:
// W is in the order in which the matmul reads it.
static void linear(float *Y, const float *X, const float *W, bool packed, int T, int N, int K,
                   bool add);
static void linear_backward(float *dX, float *dW, const float *dY, const float *X, const float *W,
                            int T, int N, int K);

// Turns each pair (2i, 2i+1) of queries and keys by the angle pos * theta^(-2i/hs): q . k then
// knows how far apart two tokens are, not where. sign -1 turns back, which is the backward pass.
static void rope(float *qkv, const int *pos, const float *angle, int T, const Config *c,
                 float sign);

// out[T][C] from qkv: each token mixes the values of its row up to its own, weighted by
// softmax(q . k / sqrt(hs)). To copy y_o, an Aligner needs a head that finds the place in y_o that
// the text has reached, and takes the token after it. With a cache, the tokens continue the text
// that is in it.
static void attention(float *out, float *stats, const float *qkv, const Config *c, const Batch *b,
                      Cache *cache, int layer);
static void attention_backward(float *dqkv, const float *dout, const float *out, const float *stats,
                               const float *qkv, const Config *c, const Batch *b);

// y[T][F] = silu(gate) * up, with silu(g) = g / (1 + e^-g); gate_up[T][2 F] holds both. The way
// back overwrites them with their gradients.
static void swiglu(float *y, const float *gate_up, int T, int F);
static void swiglu_backward(float *gate_up, const float *dy, int T, int F);

// z[V] becomes (softmax(z) - onehot(target)) * scale. Returns - log softmax(z)[target].
static double softmax_nll(float *z, int V, int target, float scale);

// Row to[i] = from[at[i]], and its way back in place: row i of x moves to at[i], all others are 0.
static void gather_rows(float *to, const float *from, const int *at, int n, int C);
static void scatter_rows(float *x, const int *at, int n, int T, int C);
static void copy_floats(float *to, const float *from, size_t n);

// Logits at the places b->out, in m->acts.logits. With a cache, b is one row that continues what
// the cache holds. The caller has made room with acts_reserve() (PART II).
static void forward(Model *m, const Batch *b, Cache *cache) {
    const Config *c = &m->c;
    const bool packed = cache != NULL;                  // generation has packed its weights
    const Weights *weights = packed ? &m->packed : &m->w;
    Acts *acts = &m->acts;
    int T = b->T, C = c->C, F = c->F;

    gather_rows(acts->layer[0].x, m->w.embd, b->ids, T, C);                 // x_0 = E[ids]
    for (int l = 0; l < c->L; l++) {
        const LayerWeights *w = &weights->layer[l];
        const LayerActs *a = &acts->layer[l];

        // Attention: each query is compared with the keys up to its own; their values are mixed.
        rmsnorm(a->norm1, a->r1, a->x, w->attn_norm, T, C, c->eps);
        linear(a->qkv, a->norm1, w->qkv, packed, T, qkv_width(c), C, false);
        rope(a->qkv, b->pos, m->angle, T, c, +1);
        attention(a->att, a->stats, a->qkv, c, b, cache, l);

        // After the last attention no token looks at another. Places where no logits are wanted are
        // dropped here: for an Aligner, all of its condition but the last token.
        const float *att = a->att;
        if (l < c->L - 1) {
            copy_floats(a->mid, a->x, (size_t)T * C);
        } else {
            T = b->n_out;
            gather_rows(a->mid, a->x, b->out, T, C);
            gather_rows(acts->picked, a->att, b->out, T, C);
            att = acts->picked;
        }
        linear(a->mid, att, w->o, packed, T, C, C, true);                   // mid = x + att Wo^T

        // Feed-forward: up computes F features, the gate decides how much of each passes.
        rmsnorm(a->norm2, a->r2, a->mid, w->ffn_norm, T, C, c->eps);
        linear(a->gate_up, a->norm2, w->gate_up, packed, T, 2 * F, C, false);
        swiglu(a->act, a->gate_up, T, F);
        copy_floats(a->next, a->mid, (size_t)T * C);
        linear(a->next, a->act, w->down, packed, T, C, F, true);            // next = mid + act Wd^T
        for (int i = 0; m->steer && i < T * C; i++)
            a->next[i] += m->steer[l * C + i % C];                          // steering, B.6
    }

    // logits = rmsnorm(x_L) Whead^T
    rmsnorm(acts->last_norm, acts->r, acts->layer[c->L - 1].next, weights->norm, T, C, c->eps);
    linear(acts->logits, acts->last_norm, weights->head, packed, T, c->V, C, false);
    if (cache) cache->len += b->T;
}

// The loss of all three objectives: the mean of - log p(target) over n_total target tokens, which
// may be more than b has. Returns b's share of the mean, and turns the logits into their gradient
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
// read upward; each part quotes the lines it differentiates. For Y = X W^T the chain rule says
//
//     dX = dY W       dW += dY^T X             (the shapes allow nothing else)
//
// dx is the gradient of the residual stream. As a layer only adds to the stream, dx passes through
// it unchanged, and rmsnorm_backward() adds the share that went through the layer.
static void backward(Model *m, const Batch *b) {
    const Config *c = &m->c;
    const Weights *weights = &m->w, *gradients = &m->g;
    Acts *acts = &m->acts;
    float *dx = acts->dx, *dnarrow = acts->dnarrow, *dwide = acts->dwide;
    int T = b->n_out, C = c->C, F = c->F, last = c->L - 1;

    // logits = rmsnorm(x) Whead^T, at the places with a target
    linear_backward(dnarrow, gradients->head, acts->logits, acts->last_norm, weights->head, T, c->V,
                    C);
    memset(dx, 0, (size_t)T * C * sizeof *dx);
    rmsnorm_backward(dx, gradients->norm, dnarrow, acts->layer[last].next, acts->r,
                     weights->norm, T, C);

    for (int l = last; l >= 0; l--) {
        const LayerWeights *w = &weights->layer[l], *dw = &gradients->layer[l];
        const LayerActs *a = &acts->layer[l];

        // next = mid + act Wdown^T, act = swiglu(norm2 Wgate_up^T), norm2 = rmsnorm(mid)
        linear_backward(dwide, dw->down, dx, a->act, w->down, T, C, F);
        swiglu_backward(a->gate_up, dwide, T, F);
        linear_backward(dnarrow, dw->gate_up, a->gate_up, a->norm2, w->gate_up, T, 2 * F, C);
        rmsnorm_backward(dx, dw->ffn_norm, dnarrow, a->mid, a->r2, w->ffn_norm, T, C);

        // mid = x + att Wo^T
        linear_backward(dnarrow, dw->o, dx, l == last ? acts->picked : a->att, w->o, T, C, C);
        if (l == last) {                                // back to all places
            T = b->T;
            scatter_rows(dx, b->out, b->n_out, T, C);
            scatter_rows(dnarrow, b->out, b->n_out, T, C);
        }

        // att = attention(rope(norm1 Wqkv^T)), norm1 = rmsnorm(x)
        attention_backward(dwide, dnarrow, a->att, a->stats, a->qkv, c, b);
        rope(dwide, b->pos, m->angle, T, c, -1);
        linear_backward(dnarrow, dw->qkv, dwide, a->norm1, w->qkv, T, qkv_width(c), C);
        rmsnorm_backward(dx, dw->attn_norm, dnarrow, a->x, a->r1, w->attn_norm, T, C);
    }

    // x_0 = E[ids]: a token that occurs twice collects the gradients of both places
    for (int t = 0; t < T; t++)
        for (int j = 0; j < C; j++)
            gradients->embd[(size_t)b->ids[t] * C + j] += dx[(size_t)t * C + j];
}

/* ================================================================================================
   Chapter 4. Learning.  Eq. (4) is an expectation over M. A step estimates it from a few rows, by
   the mean over their target tokens. The objective has done its work before the loop starts: it is
   in the rows. */

typedef struct { Row *row; size_t n, cap; } Rows;       // M under one objective

// What `train` is asked to do; --help explains each member. A step takes `batch` rows or, if
// `tokens` is not 0, as many rows as fit into that many tokens.
typedef struct {
    const char *init, *out, *tokenizer, *valid, *log, *prompt, *data[16];
    int n_data, dim, layers, heads, kv_heads, hidden, context, tied;
    long steps, epochs, batch, tokens, save_every, seed;
    double lr, lr_warmup, weight_decay, clip, adam_eps, muon, ema, grow_below, keep;
    int resume, quiet;
} TrainOptions;

// Where a run is in its data, and what the optimiser remembers. With the weights, this is all that
// a resumed run needs.
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
    Batch unit;                         // those of them that are computed at once
    long steps;
    double (*loss)(struct Run *);       // what a step learns from; NULL: supervised_loss()
    double (*validate)(struct Run *);   // and its validation; tests/lab.c sets both, e.g. for DPO
    FILE *log;
    double started;                     // seconds(), for the progress line
    long first;                         // the step this run began with
    uint64_t hash;                      // of everything that decides the result: see run_hash()
} Run;

enum { UNIT = 1024 };                   // most tokens of a unit, unless one row alone is longer

// order becomes a random order of 0..n-1 that depends on seed and epoch only.
static void shuffle(uint32_t *order, size_t n, long seed, long epoch);

// Draws the rows of the next step into run->drawn and returns how many. An epoch's last step takes
// what is left, so each row is seen once per epoch. With --grow-below, rows with long targets are
// passed over at first: a model must discover that it can copy at all, and it does so sooner on
// short texts.
static int draw_rows(Run *run) {
    const TrainOptions *o = run->o;
    Progress *p = &run->p;
    long n = 0, tokens = 0, all = (long)run->rows->n;
    while (n < all) {
        if (p->at == all) {                             // the epoch ends here
            if (n) break;
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

// Fills b with row[i] and as many of the next rows as fit into a unit. Returns the i after them.
static int fill_unit(Batch *b, const Row *const *row, int i, int n) {
    batch_clear(b);
    do
        batch_add(b, row[i++]);
    while (i < n && b->T + row[i]->n - 1 <= UNIT);
    return i;
}

// One step's loss, with its gradient in m->grads: forward, loss and backward for each unit. The
// gradients of the units add up.
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

// The rate rises linearly while Adam's means are young (this "warm-up" is not that of p. 3), then
// falls along half a cosine to a tenth of its peak: the last steps settle what the first found.
static double learning_rate(const TrainOptions *o, long step, long steps) {
    double warm = o->lr_warmup * (double)steps, at = (double)step;
    if (at < warm) return o->lr * (at + 1) / (warm + 1);
    double done = (double)steps > warm ? (at - warm) / ((double)steps - warm) : 1;
    return o->lr * (0.1 + 0.45 * (1 + cos(3.141592653589793 * done)));
}

static bool muons(const Model *m, const Tensor *t, const TrainOptions *o);      // is t Muon's?

// One step of AdamW (Loshchilov and Hutter 2019); clears the gradients. Clipping multiplies them by
// scale. m is a mean of the gradients, v of their squares. Both start at zero: dividing by
// 1 - beta^t corrects the bias toward zero. Each weight moves by about lr, however large its
// gradients are, and by less if they disagree from step to step. Weight decay shrinks the weight
// itself, apart from the gradient (the W of AdamW), and only in matrices.
//
// epsilon is more than a guard against 0 / 0. A token that is hardly ever a target gets a tiny
// gradient at each step. With 1e-8 its row of the head moves by lr all the same. If the head is
// tied, that row is its embedding, which drifts until the token can no longer be copied. 1e-4
// leaves it where it was.
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
static void bookkeeping(Run *run, double loss, double lr, double norm);     // step + 1; log, save
static volatile sig_atomic_t interrupted;                                   // Ctrl-C was pressed

// The training loop. Gradients whose norm exceeds clip are scaled down to it, so one odd step
// cannot throw the weights far. Muon, the mean of the weights and short rows first are not in the
// paper: they learn more in the same time. AdamW alone gets there, too, but later.
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
        bookkeeping(run, loss, lr, norm);
    }
}

/* ================================================================================================
   Chapter 5. Correcting.  A trained Aligner writes y_c one token after another. What makes it cheap
   is that most of y_c is in y_o already. */

typedef struct {
    double temperature, top_p, frequency_penalty;       // temperature 0: greedy
    double keep;                                        // see outweighs()
    int top_k, max_tokens;                              // 0: no limit
    int no_draft;                                       // 1: do not use y_o as a draft
    uint64_t seed;
} Decoding;

// A pass is one forward() with the cache.
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

// Chooses the next token from the logits z[V]. First the frequency penalty lowers each logit by
// penalty x (how often the token was written already). Greedy then takes the largest, the first one
// on ties. Otherwise softmax(z / temperature) is cut to the top_k likeliest tokens, then to the
// fewest of these that hold top_p of their probability, and one is drawn.
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
// takes several passes; n_out is at most FEED, and the last n_out tokens stay in one pass.
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

// Where the draft goes on after a difference: after its match of the last 3 (else 2) tokens of out,
// searched for from `from` on, then everywhere. -1 if there is no match.
static int find_in_draft(const int *draft, int n_draft, const Ids *out, int from) {
    for (int n = 3; n >= 2; n--)
        for (int again = 0; n <= out->n && again < 2; again++)
            for (int i = again ? 0 : from; i + n < n_draft; i++)
                if (!memcmp(draft + i, out->a + out->n - n, (size_t)n * sizeof *draft))
                    return i + n;
    return -1;
}

enum { BLOCK_FIRST = 16, BLOCK_AGAIN = 8, BLOCK_MOST = 64 };    // tokens of the draft in one pass

// Continues the prompt; out receives the new tokens. True if the model ended the text with </s>,
// false if it ran out of context or max_tokens.
//
// A draft makes greedy decoding faster and changes no token (Shallow Aggressive Decoding, arXiv
// 2106.04970; LLMA, 2304.04487). Writing n tokens takes n passes; checking n tokens takes one,
// because a pass gives the logits of all the places it reads. So a block of the draft is fed as if
// the model had written it: these are guesses. Those before the first wrong one are accepted, and
// there the model's own token is taken:
//
//     draft       The   capital   of   Spain   is ...         fed at once
//     model       The   capital   of   France  ?              what follows Spain is of no use
//     written     The   capital   of   France                 four tokens for one pass
//
// The invariant of the loop: the cache and then `next` are the prompt and all that is written.
// draft_at is where the draft goes on (-1: nowhere).
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
        // not, find the place in the draft again and guess less: a wrong guess is wasted work.
        bool agree = draft_at >= 0 && accepted == guesses && draft_at + accepted < n_draft &&
                     token == draft[draft_at + accepted];
        block = agree ? least(2 * block, BLOCK_MOST) : BLOCK_AGAIN;
        draft_at = agree ? draft_at + accepted + 1
                         : find_in_draft(draft, n_draft, out, draft_at < 0 ? 0 : draft_at);
    }
    free(next.a);
    return false;
}

// log p of the tokens ids[from .. n), given those before them, or of as many as the context has
// room for. The cache holds what comes before ids[from - 1].
static double log_p_rest(Generator *g, const int *ids, int from, int n) {
    double sum = 0;
    int end = least(n, g->m->c.context + 1);
    g->cache.len = from - 1;
    for (int k; from < end; from += k) {
        k = least(end - from, FEED);
        feed(g, ids + from - 1, k, k);
        memcpy(g->batch.target, ids + from, (size_t)k * sizeof *ids);
        sum -= cross_entropy(g->m, &g->batch, 1);       // over 1: a sum, not a mean
    }
    return sum;
}

// Is y_c, which generate() has just written, worth giving up y_o for? With keep = X it must be e^X
// times as likely:
//
//     log mu(y_c | y_o, x)  -  log mu(y_o | y_o, x)  >=  X
//
// This is not in the paper. The ratio judges both texts as wholes, while greedy decoding leaves y_o
// at the first token that is not the likeliest, whatever follows. The beginning that the two texts
// share cancels, so only the rest is read: nothing if y_c is a copy. An Aligner that trained on
// fewer good answers than it meets corrects too readily. By Bayes' rule its log odds of a copy are
// too low by the log of a ratio, the odds of a good answer in use to those in training, and X adds
// that back. r is y_o's row.
static bool outweighs(Generator *g, const Row *r, const Ids *y_c) {
    Ids ids = { 0 };
    int shared = 0;
    for (int i = 0; i < r->n_condition; i++) ids_add(&ids, r->ids[i]);
    for (int i = 0; i < y_c->n; i++) ids_add(&ids, y_c->a[i]);
    ids_add(&ids, EOS);
    while (shared < least(r->n, ids.n) && ids.a[shared] == r->ids[shared]) shared++;
    bool worth_it = shared == ids.n ||                  // a copy gives up nothing
        log_p_rest(g, ids.a, shared, ids.n) - log_p_rest(g, r->ids, shared, r->n) >= g->how.keep;
    free(ids.a);
    return worth_it;
}

// Writes the text that follows r's condition, with r's target as the draft. If the text does not
// outweigh its draft, out receives the draft; otherwise the text, or as much of it as there is.
// Returns NULL on success, otherwise the reason the text has no end. Frees r.
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
// success, otherwise the reason y_c is y_o unchanged: no upstream answer ever disappears. White
// space at the end of y_o is not shown to the model and returns in y_c: many programs leave some.
static const char *correct(Generator *mu, Text x, Text y_o, Buf *y_c) {
    Text seen = y_o;
    while (seen.n && strchr(" \t\r\n", seen.s[seen.n - 1])) seen.n--;
    const char *reason = write_text(mu, make_row(mu->m, prompt(mu->m, x, seen), seen), y_c);
    if (!reason && !y_c->n && seen.n) reason = "the model wrote nothing";
    if (!reason && valid_utf8(seen) && !valid_utf8(contents(y_c)))
        reason = "the correction would not be valid UTF-8";
    if (reason) buf_set(y_c, seen);
    buf_add(y_c, y_o.s + seen.n, y_o.n - seen.n);
    return reason;
}

// y_o ~ pi_theta(. | x): the right factor of Eq. (2). Returns NULL on success, otherwise the reason
// y_o has no end; it then holds what there is.
static const char *answer(Generator *pi, Text x, Buf *y_o) {
    return write_text(pi, make_row(pi->m, prompt(pi->m, x, NONE), NONE), y_o);
}

/* You have now read the paper in code: where the condition ends, what the loss is, how a model
   learns from it, and how it writes a correction. Another paper's method changes a few lines:
   DPO, reward model and RLHF replace supervised_loss() (tests/lab.c); Stream Aligner calls
   correct() sentence by sentence; MetaAligner puts its objectives into the prompt.

   ================================================================================================
   PART II: THE MACHINE ROOM
   ================================================================================================
   Chapter 6. Tools.  Errors, memory, text, random numbers, files. */

// CHECK(what must hold, a message as for printf) guards input, in every build.
#define DIE(...) leave(1, __FILE__, __LINE__, __VA_ARGS__)
#define usage_error(...) leave(2, __FILE__, __LINE__, __VA_ARGS__)
#define CHECK(condition, ...) do { if (!(condition)) DIE(__VA_ARGS__); } while (0)
#define SHOW(t) (int)(t).n, (t).s                       // a Text as the two arguments of "%.*s"

// The control codes of ASCII. A terminal obeys some of them, so none may reach it from a file.
static bool is_control(char c) { return (uint8_t)c < 32 || c == 127; }

// Prints one message and exits: with 2 on bad usage, pointing to --help, otherwise with the line in
// the source. Messages quote files and the command line, so control codes are replaced: the message
// stays one line and cannot steer the terminal.
static void __attribute__((noreturn, format(printf, 4, 5)))
leave(int status, const char *file, int line, const char *format, ...) {
    const char *base = strrchr(file, '/');
    char message[1024], end[128] = "; --help lists the commands and options";
    va_list a;
    va_start(a, format);
    vsnprintf(message, sizeof message, format, a);
    va_end(a);
    for (char *c = message; *c; c++)
        if (is_control(*c)) *c = '?';
    if (status != 2) snprintf(end, sizeof end, " (%s:%d)", base ? base + 1 : file, line);
    fflush(stdout);
    fprintf(stderr, "aligner: %s%s\n", message, end);
    exit(status);
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

// Makes room for n elements in a, which has room for *cap. Doubling makes appending cheap.
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

// buf_add() for a C string, which must not be NULL.
static void buf_puts(Buf *b, const char *s) { buf_add(b, s, strlen(s)); }

// b keeps its memory: a Buf that is used in a loop soon allocates no more.
static void buf_set(Buf *b, Text t) {
    b->n = 0;
    buf_add(b, t.s, t.n);
}

// Positions are ints, so a text has no more tokens than an int can count.
static void ids_add(Ids *v, int id) {
    CHECK(v->n < INT_MAX - 1, "a text of more than %d tokens", INT_MAX - 1);
    v->a = grow(v->a, sizeof *v->a, &v->cap, (size_t)v->n + 1);
    v->a[v->n++] = id;
}

// Small questions about text and numbers.
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
// surrogates and everything beyond U+10FFFF are refused.
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

// FNV-1a, from HASH_START or a hash so far: good enough for a table and to notice a change, not
// against anybody's malice.
#define HASH_START 14695981039346656037u

static uint64_t hash_bytes(uint64_t h, const void *p, size_t n) {
    for (size_t i = 0; i < n; i++) h = (h ^ ((const uint8_t *)p)[i]) * 1099511628211u;
    return h;
}

// Seconds on a clock that never goes back.
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
static double random_unit(uint64_t *state) { return (double)(random_u64(state) >> 11) * 0x1p-53; }

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

// Numbers in files are little-endian, as this machine's are. They may be unaligned, hence memcpy().
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
    union { uint32_t u; float f; } v = { read_u32(f) };
    return v.f;
}

// The name of a file that belongs to path: its state, or what it is called until it is whole.
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

// Fails, before any work is done, if path could not be written at the end.
static void check_writable(const char *path) {
    struct stat s;
    Buf temporary = with_ending(path, TEMPORARY);
    CHECK(stat(path, &s) || (S_ISREG(s.st_mode) && !access(path, W_OK)),
          "cannot write %s: it is write-protected or not a file; name another", path);
    FILE *f = fopen(temporary.s, "wb");
    CHECK(f, "cannot write %s: %s; name a folder that can be written", path, strerror(errno));
    fclose(f);
    remove(temporary.s);
    free(temporary.s);
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

// The slot that holds the id of the piece t, or the empty slot (-1) where it belongs: by its hash,
// then the next in turn.
static int *find_slot(const Tokenizer *k, Text t) {
    uint64_t h = hash_bytes(HASH_START, t.s, t.n);
    size_t i = (size_t)(h ^ h >> 32) & k->mask;
    while (k->slot[i] >= 0 && !same(k->piece[k->slot[i]], t)) i = (i + 1) & k->mask;
    return &k->slot[i];
}

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

// Sets a piece to a copy of the bytes.
static void set_piece(Tokenizer *k, int id, Text bytes, float score) {
    k->piece[id] = (Text){ copy_text(bytes), bytes.n };
    k->score[id] = score;
}

// The name of a byte's piece, "<0x00>" to "<0xFF>"; it lasts until the next call.
static Text byte_name(int byte) {
    static char name[16];
    snprintf(name, sizeof name, "<0x%02X>", byte);
    return text(name);
}

// Sets the pieces that every vocabulary has. Newlines around <s> and </s> (as in llama2.c's files)
// keep text from merging into them.
static void set_special_pieces(Tokenizer *k) {
    set_piece(k, UNK, text("<unk>"), 0);
    set_piece(k, BOS, text("\n<s>\n"), 0);
    set_piece(k, EOS, text("\n</s>\n"), 0);
    for (int byte = 0; byte < 256; byte++) set_piece(k, BYTE0 + byte, byte_name(byte), 0);
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
        CHECK(same(t, byte_name(byte)), "%s: piece %d is \"%.*s\"; the byte %s was expected (ids "
              "3..258 must be the bytes)", path, BYTE0 + byte, SHOW(t), byte_name(byte).s);
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
    int id = both.n <= (size_t)k->longest ? *find_slot(k, both) : -1;
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
        int id = *find_slot(k, symbol[i]);
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

// Gives the characters of the words the ids from `first` on, the most frequent first, and at most
// `room` of them; returns how many. Those that find no room will be spelt in bytes; so will control
// characters, broken UTF-8 and U+2581.
static int learn_characters(Tokenizer *k, const Words *words, int first, int room) {
    Words characters = cut(words->a, words->n, utf8_span);
    int n = 0;
    for (size_t i = 0; i < characters.n; i++) {
        Word *c = &characters.a[i];
        if (is_control(*c->t.s) || !utf8_length(c->t) || same(c->t, text(GGUF_SPACE))) c->count = 0;
    }
    for (; n < room && characters.n; n++) {
        Word *most = characters.a;
        for (size_t i = 1; i < characters.n; i++)
            if (characters.a[i].count > most->count) most = &characters.a[i];
        if (!most->count) break;
        set_piece(k, first + n, most->t, 0);
        *find_slot(k, most->t) = first + n;
        most->count = 0;
    }
    free(characters.a);
    return n;
}

// Trains a vocabulary of at most V pieces on a text; V is at least FIRST_PIECE. A text that yields
// fewer gives a smaller vocabulary: an unused id would be an untrained row of the embedding.
static Tokenizer *tokenizer_train(Text all, int V, bool progress) {
    const int room = (V - FIRST_PIECE) / 2;             // for characters
    Tokenizer *k = tokenizer_new(V + room);
    Trainer t = { .k = k, .words = cut(&(Word){ all, 1 }, 1, word_length), .mask = 1023 };
    Buf both = { 0 };
    int id = FIRST_PIECE;
    set_special_pieces(k);

    // The characters have ids from V on until the number of merges is known.
    const int n = learn_characters(k, &t.words, V, room);

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
    // through all pairs and all symbols: a few seconds for 4 MB of Chinese and 6,000 pieces.
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
        if (progress) fprintf(stderr, "%d pieces\r", id);
    }

    // The characters move down and follow the merges. An earlier piece has a higher score.
    for (int i = 0; i < n; i++) k->piece[id++] = k->piece[V + i];
    k->V = id;
    for (int i = FIRST_PIECE; i < id; i++) k->score[i] = (float)(FIRST_PIECE - i);
    FREE(t.words.a, t.symbols.a, t.pair, t.slot, both.s);
    tokenizer_index(k, "the new tokenizer");
    return k;
}

/* ================================================================================================
   Chapter 9. Model files.  Memory for a model, its first weights, its prompt, and GGUF files, which
   llama.cpp and everything built on it open unchanged.

   All weights are in one array, params, in the order of one table of tensors:

       token_embd [V][C]                                                what a token is
       for each layer l:
           blk.l.attn_norm [C]      attn_q [C][C]    attn_k [kv][C]    attn_v [kv][C]
           blk.l.attn_output [C][C]
           blk.l.ffn_norm [C]       ffn_gate [F][C]  ffn_up [F][C]     ffn_down [C][F]
       output_norm [C]
       output [V][C]                                                    absent if the head is tied

   The names are llama.cpp's; kv is hs times the number of key/value heads. Gradients, Adam's two
   moments and the mean of the weights are arrays of the same layout. So the optimiser updates
   weight i from gradient i without knowing its name. */

// How many weights a model of this shape has: the sum of the table above, computed without making
// it. The shape has passed config_check(), so 64 bits are enough.
static uint64_t count_weights(const Config *c) {
    uint64_t C = (uint64_t)c->C, layer = C * (uint64_t)(2 * c->C + 2 * kv_width(c) + 3 * c->F + 2);
    return (uint64_t)c->L * layer + (uint64_t)c->V * C * (c->tied ? 1 : 2) + C;
}

// The weights of one tensor.
static size_t n_weights(const Tensor *t) { return (size_t)t->rows * (size_t)t->cols; }

// Appends W[rows][cols] to the table and adds its weights to m->n_params. A layer of -1 means that
// it belongs to none. A norm's vector has one row.
static void add_tensor(Model *m, const char *name, int layer, int rows, int cols) {
    Tensor *t = &m->tensor[m->n_tensors++];
    if (layer < 0) snprintf(t->name, sizeof t->name, "%s.weight", name);
    else snprintf(t->name, sizeof t->name, "blk.%d.%s.weight", layer, name);
    t->rows = rows;
    t->cols = cols;
    t->at = m->n_params;
    m->n_params += n_weights(t);
}

// Points w into an array that is laid out as the table says: params, grads or the mean of the
// weights. t is the first tensor of a layer. q, k, v (t[1] to t[3]) are neighbours, and so are gate
// and up (t[6], t[7]): each group is one matrix, so one matmul computes all of it.
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

// Makes the table of tensors for m->c, and memory for the weights, which are zero until
// model_init() or model_load() sets them. This is the only list of tensors: files, gradients,
// moments and AdamW all use it.
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

// Memory for the gradients, all zero, because backward() adds to them. Only training needs it.
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

// Writes W[N][K] to *at in the order in which the matmul reads it, and moves *at on. Returns where
// the panels begin.
static float *pack_weights(float **at, const float *W, int N, int K) {
    float *panels = *at;
    pack_all(panels, (Matrix){ .p = W, .row = 1, .col = K }, K, N);
    *at += packed_size(K, N);
    return panels;
}

// For generation: packs every matrix once, as the weights are now. A pass over one token uses each
// weight for one product; to pack it each time, as training does, would cost more than the product.
// The norms are not packed: m->packed points to m->w's.
static void model_pack(Model *m) {
    const int C = m->c.C, F = m->c.F, Q = qkv_width(&m->c);
    const size_t layer = packed_size(C, Q) + packed_size(C, C) + packed_size(C, 2 * F)
                       + packed_size(F, C);
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
}

// Takes n floats, rounded up to cache lines of 16, from the arena at offset *at, and moves *at on.
// If base is NULL, it only counts: the same code first measures an arena and then lays it out.
static float *take(float *base, size_t *at, size_t n) {
    float *p = base ? base + *at : NULL;
    *at += (n + 15) / 16 * 16;
    return p;
}

// Lays out the activations in a->memory and returns how many floats they take. On the first call
// a->memory is NULL, and they are only counted.
//
// Training keeps every layer's activations for the backward pass, about L T (8 C + 3 F) floats. A
// layer's output is the next layer's input and is kept once. With the default shape (L = 3, C =
// 128, F = 352) and units of T = 1,024 tokens that is 26 MB, while the weights of the layers take
// 2.4: in training, memory goes to activations. Generation has no way back. Its layers share one
// place, and each writes its output over its input.
static size_t acts_layout(Acts *a, const Config *c) {
    const size_t T = (size_t)a->T, C = (size_t)c->C, F = (size_t)c->F, Q = (size_t)qkv_width(c);
    const size_t n = (size_t)a->n_out;
    float *p = a->memory;
    size_t at = 0;
    for (int l = 0; l < c->L; l++) {
        LayerActs *s = &a->layer[l];
        if (!a->training) at = 0;                       // each layer in the same place
        s->x = l && a->training ? a->layer[l - 1].next : take(p, &at, T * C);
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
// The first pairs of a head turn fast and tell near tokens apart; the last ones turn slowly and
// tell far ones apart. With hs = 16, pair 0 turns by 1 radian a token and pair 7 by 1/3162. Angles
// are computed in doubles, once. The table grows with the text, 256 positions at a time, whatever
// context a file claims.
static void angles_reserve(Model *m, int n) {
    const int hs = head_size(&m->c);
    if (m->n_angles >= n) return;
    n = round_up(n, 256);
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

// Reserves memory for passes over T tokens with n_out logits, in rows of at most `longest` tokens.
// What is reserved only ever grows; when it does, its contents are lost. So are they when a model
// changes between training and generation.
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

// Draws the first weights; the same seed draws the same ones. An output is a sum of cols products
// w x, so its variance is cols var(w) var(x), and var(w) decides how activations grow:
//
//     norms          1
//     embeddings     N(0, 1/C)            a tied head starts with logits of size one
//     matrices       N(0, 1/(3 cols))     an output has a third of its input's variance, so many
//                                         layers in a row do not blow it up
//
// One matrix is not drawn: in the last layer, Wo = Wv^T, head by head. Then a head passes on what
// it reads nearly unchanged, and a tied output layer recognises it as the same token: wherever the
// last layer looks, it copies. Where to look is all that is left to learn, and copying is learnt
// several times sooner (a mimetic initialisation: Trockman and Kolter, arXiv 2305.09828). A
// pretrained base model has learnt this already.
static void model_init(Model *m, uint64_t seed) {
    const Config *c = &m->c;
    for (size_t j = 0; j < m->n_params; j++) m->params[j] = 1;
    for (size_t i = 0; i < m->n_tensors; i++) {
        const Tensor *t = &m->tensor[i];
        double std = sqrt((i == 0 ? 1.0 : 1.0 / 3.0) / t->cols);
        for (size_t j = 0; j < n_weights(t) && t->rows > 1; j++) {
            double u = 1.0 - random_unit(&seed), v = random_unit(&seed);        // Box-Muller
            m->params[t->at + j] = (float)(std * sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
        }
    }

    // Column j of Wo multiplies what head j / hs has read: the values that row `row` of Wv made.
    const LayerWeights *last = &m->w.layer[c->L - 1];
    const float *Wv = last->qkv + (size_t)(c->C + kv_width(c)) * c->C;
    const int hs = head_size(c), group = c->H / c->H_kv;
    for (int j = 0; j < c->C; j++) {
        const int row = j / hs / group * hs + j % hs;   // of Wv; a group's query heads share it
        for (int i = 0; i < c->C; i++) last->o[(size_t)i * c->C + j] = Wv[(size_t)row * c->C + i];
    }
}

// The prompts, each with its SFT counterpart, which has no {answer}. v1, v2 and paper are the three
// official ones, letter by letter (from the README of the released weights, the repository, and
// Algorithm 1). default is v2 without its doubled space. short is for tiny models. None ends in a
// space: the target brings its own, so a copied answer is a copied sequence of tokens.
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

// Gives the model a prompt: one of the names above, or a text with {question} and {answer}. The SFT
// counterpart of a text is the same text without its {answer}.
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

// The model's prompt: with {answer} for an Aligner, without it for SFT. Fails if the model has
// none, as models from elsewhere do.
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
   and prompt are keys, so a model is never used with another one's vocabulary or prompt.

   Readers of this format have had security holes of five kinds. What prevents each here:

       a product that wraps            shapes are bounded before they are multiplied
       a count that is trusted         memory is reserved for what was found, not for a count
       a shape that is trusted         each tensor must have the shape that the configuration gives
       a number cut off by int         a number that does not fit is refused
       an array of fixed size          no file decides how much is written to one */

enum { T_U32 = 4, T_I32 = 5, T_F32 = 6, T_BOOL = 7, T_STRING = 8, T_ARRAY = 9 };
enum { GGML_F32 = 0, GGML_F16 = 1, GGML_Q8_0 = 8, GGML_BF16 = 30 };
enum { ALIGNMENT = 32 };

// A key as it is in the file. The value of an array is u32 type, u64 n and n elements.
typedef struct { Text name, value; uint32_t type; bool used; } Key;

// The keys of a file that is being read, or written to out. The last four fields are what the keys
// say and a Model does not hold.
typedef struct {
    const char *path;
    Buf *out;                           // NULL: reading
    Key *a;                             // [n] reading: the keys found
    size_t n, cap;
    int alignment;
    bool add_space;
    Text tokens, scores, types;         // the vocabulary: three arrays of equal length
} Keys;

// Numbers and strings as GGUF has them, appended to a file in the making.
static void put_u32(Buf *b, uint32_t v) { buf_add(b, &v, 4); }
static void put_u64(Buf *b, uint64_t v) { buf_add(b, &v, 8); }

static void put_string(Buf *b, Text t) {
    put_u64(b, t.n);
    buf_add(b, t.s, t.n);
}

// Steps over a value and returns its bytes, which stay where they are in the file; for a string,
// its text. Elements of an array are stepped over one by one, so need() refuses an array that
// claims more than the file has. Arrays of arrays are refused: nobody writes them, and they would
// let the file choose how deep the recursion goes.
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

// One key, in one of two directions. Writing appends it with the given value, unless that is NONE,
// and returns the value. Reading returns the value in the file, or the given one if the file does
// not have the key. A key that is there twice is refused, because two readers could take a
// different one.
static Text key(Keys *k, uint32_t type, const char *name, Text value) {
    if (k->out && value.s) {
        put_string(k->out, text(name));
        put_u32(k->out, type);
        if (type == T_STRING) put_u64(k->out, value.n);
        buf_add(k->out, value.s, value.n);
        k->n++;
    }
    for (size_t i = 0, found = 0; i < k->n && !k->out; i++) {
        Key *e = &k->a[i];
        if (!same(e->name, text(name))) continue;
        CHECK(!found++ && e->type == type, "%s: the key %s is there twice, or its type is %u and "
              "not %u", k->path, name, e->type, type);
        e->used = true;
        value = e->value;
    }
    return value;
}

// A key whose value is a number from `least` to `most`; the three types that occur (u32, f32, bool)
// all fit into a double. If the two are equal, the key must have this value or be absent, because
// this program computes nothing else. If the given value is outside the range, the key must be in
// the file: a new Config is all zero, so "1 or more" means "required". NaN is in no range.
static double key_number(Keys *k, uint32_t type, const char *name, double value, double least,
                         double most) {
    union { uint32_t u; float f; } given = { 0 }, v = { 0 };
    if (type == T_F32) given.f = (float)value;
    else given.u = (uint32_t)value;
    Text raw = key(k, type, name, (Text){ (char *)&given, type == T_BOOL ? 1 : 4 });
    memcpy(&v, raw.s, raw.n);
    value = type == T_F32 ? (double)v.f : v.u;
    CHECK(value >= least && value <= most, "%s: %s is %.9g%s; %.9g to %.9g was expected", k->path,
          name, value, raw.s == (char *)&given ? " (missing)" : "", least, most);
    return value;
}

// A key whose value is a text; NULL means none. Texts become C strings, so a zero byte is refused.
static Text key_text(Keys *k, const char *name, const char *value) {
    Text t = key(k, T_STRING, name, value ? text(value) : NONE);
    CHECK(!t.n || !memchr(t.s, 0, t.n), "%s: %s has a zero byte in it", k->path, name);
    return t;
}

// A key that must have this text, or the other one, which means the same here, or be absent.
static void key_word(Keys *k, const char *name, const char *word, const char *same_word) {
    Text t = key_text(k, name, word);
    CHECK(same(t, text(word)) || same(t, text(same_word)), "%s: %s is \"%.*s\"; \"%s\" was "
          "expected", k->path, name, SHOW(t), word);
}

// Refuses a shape that no model of this family has. `where` is named in the message: a file, or the
// options. The bounds are far above what anyone trains with this program, and so low that no
// product of them wraps in 64 bits. V is checked with the tokenizer.
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
}

// The one list of keys. This program's own come first, in the order in which they are written.
// model_save() runs it to write them and model_load() to read them, so the two cannot disagree.
// When reading, a field keeps its value if the key is absent. Sizes come before config_check(),
// which comes before the first division by one of them.
static void model_keys(Keys *k, Model *m) {
    Config *c = &m->c;
    key_word(k, "general.architecture", "llama", "llama");
    key_text(k, "general.name", "aligner.c");
    key_number(k, T_U32, "general.file_type", 0, 0, UINT32_MAX);
    k->alignment = (int)key_number(k, T_U32, "general.alignment", ALIGNMENT, 8, 65536);
    c->context = (int)key_number(k, T_U32, "llama.context_length", c->context, 1, INT_MAX);
    c->C = (int)key_number(k, T_U32, "llama.embedding_length", c->C, 1, INT_MAX);
    c->L = (int)key_number(k, T_U32, "llama.block_count", c->L, 1, INT_MAX);
    c->F = (int)key_number(k, T_U32, "llama.feed_forward_length", c->F, 1, INT_MAX);
    c->H = (int)key_number(k, T_U32, "llama.attention.head_count", c->H, 1, INT_MAX);
    c->H_kv = (int)key_number(k, T_U32, "llama.attention.head_count_kv",
                              c->H_kv ? c->H_kv : c->H, 1, INT_MAX);
    c->eps = (float)key_number(k, T_F32, "llama.attention.layer_norm_rms_epsilon", c->eps, FLT_MIN,
                               1);
    c->theta = (float)key_number(k, T_F32, "llama.rope.freq_base", c->theta, 1, 1e9);
    config_check(c, k->path);
    const int hs = head_size(c);
    key_number(k, T_U32, "llama.rope.dimension_count", hs, hs, hs);
    key_number(k, T_U32, "llama.vocab_size", c->V, 0, UINT32_MAX);      // the array counts
    Text with = key_text(k, "aligner.prompt", m->template);
    Text without = key_text(k, "aligner.prompt_sft", m->template_sft);
    Text objective = key_text(k, "aligner.objective", m->objective);
    m->step = (int)key_number(k, T_U32, "aligner.step", (int)m->step, 0, INT_MAX);
    m->keep = key_number(k, T_F32, "aligner.keep", m->keep, 0, 2e9);
    key_word(k, "tokenizer.ggml.model", "llama", "llama");
    k->tokens = key(k, T_ARRAY, "tokenizer.ggml.tokens", k->tokens);
    k->scores = key(k, T_ARRAY, "tokenizer.ggml.scores", k->scores);
    k->types = key(k, T_ARRAY, "tokenizer.ggml.token_type", k->types);
    key_number(k, T_U32, "tokenizer.ggml.bos_token_id", BOS, BOS, BOS);
    key_number(k, T_U32, "tokenizer.ggml.eos_token_id", EOS, EOS, EOS);
    key_number(k, T_U32, "tokenizer.ggml.unknown_token_id", UNK, 0, UINT32_MAX);
    key_number(k, T_BOOL, "tokenizer.ggml.add_bos_token", 1, 1, 1);
    key_number(k, T_BOOL, "tokenizer.ggml.add_eos_token", 0, 0, 0);
    k->add_space = key_number(k, T_BOOL, "tokenizer.ggml.add_space_prefix", k->add_space, 0, 1) > 0;
    if (k->out) return;

    // Only when reading: checks of what was found, and copies of the texts.
    CHECK(!(k->alignment & (k->alignment - 1)), "%s: the alignment %d is no power of two", k->path,
          k->alignment);
    CHECK(!with.s == !without.s, "%s: one of the two prompts is missing", k->path);
    m->template = copy_text(with);
    m->template_sft = copy_text(without);
    snprintf(m->objective, sizeof m->objective, "%.*s", SHOW(objective));

    // Keys that only other programs write may scale the rotary angles, add experts, or change the
    // text before it becomes tokens. A reader that ignores such a key writes other text than the
    // model's author saw, without an error. So each must say what is done here anyway, or be one of
    // four that change nothing. Every other key of llama or the tokenizer is refused: nobody has
    // asked for it, so it is not `used`. Other families (general.author) say nothing of the kind.
    key_number(k, T_U32, "llama.attention.key_length", hs, hs, hs);
    key_number(k, T_U32, "llama.attention.value_length", hs, hs, hs);
    key_number(k, T_U32, "llama.expert_count", 0, 0, 0);
    key_number(k, T_F32, "llama.rope.scaling.factor", 1, 1, 1);
    key_number(k, T_F32, "llama.rope.scale_linear", 1, 1, 1);
    key_word(k, "llama.rope.scaling.type", "none", "linear");           // the factor is 1
    key(k, T_U32, "tokenizer.ggml.padding_token_id", NONE);
    key(k, T_U32, "tokenizer.ggml.seperator_token_id", NONE);
    key(k, T_STRING, "tokenizer.ggml.pre", NONE);
    key(k, T_STRING, "tokenizer.chat_template", NONE);
    for (const Key *e = k->a; e < k->a + k->n; e++)
        CHECK(e->used || (strncmp(e->name.s, "llama.", 6) && strncmp(e->name.s, "tokenizer.", 10)),
              "%s: the key %.*s may change what the model computes, and is not supported", k->path,
              SHOW(e->name));
}

// Sets out to t with each `from` replaced by `to`. In a GGUF file, a space in a piece is U+2581.
static void replace(Buf *out, Text t, Text from, Text to) {
    buf_set(out, text(""));
    while (t.n) {
        bool hit = t.n >= from.n && !memcmp(t.s, from.s, from.n);
        buf_add(out, hit ? to.s : t.s, hit ? to.n : 1);
        t = rest_of(t, hit ? from.n : 1);
    }
}

// GGUF's type of a token: 1 normal, 2 unknown, 3 control, 6 byte. (4 is an added token, 5 an unused
// one.)
static uint32_t token_type(int id) {
    return id == UNK ? 2 : id < BYTE0 ? 3 : id < FIRST_PIECE ? 6 : 1;
}

// Opens an array of the vocabulary, with one element for each of *n tokens; the first array sets
// *n. The elements belong together by position, so all three must be equally long.
static File open_array(const char *path, Text array, uint32_t type, int *n) {
    File f = { path, "the vocabulary", array.s, array.n, 0 };
    uint32_t element = array.s ? read_u32(&f) : UINT32_MAX;
    uint64_t count = array.s ? read_u64(&f) : 0;
    const bool good = count >= FIRST_PIECE && count <= MAX_VOCAB && (!*n || (int)count == *n);
    CHECK(good && element == type, "%s: the tokenizer has an array of %llu elements of type %u; %d "
          "to %d of type %u, as many in each, were expected", path, (unsigned long long)count,
          element, FIRST_PIECE, MAX_VOCAB, type);
    *n = (int)count;
    return f;
}

// The tokenizer that the keys describe. GGUF names two tokens <s> and </s>; here newlines surround
// these names, as in tokenizer.bin (chapter 8), and no text can build them. A token must have the
// type that its id implies. An added token, for example, would have to be found in a text before
// anything is merged, and is refused.
static Tokenizer *tokenizer_read(const Keys *k) {
    int n = 0;
    File tokens = open_array(k->path, k->tokens, T_STRING, &n), types = { 0 };
    File scores = open_array(k->path, k->scores, T_F32, &n);
    if (k->types.s) types = open_array(k->path, k->types, T_I32, &n);
    Tokenizer *t = tokenizer_new(n);
    Buf piece = { 0 };
    t->no_space = !k->add_space;
    for (int id = 0; id < n; id++) {
        replace(&piece, read_value(&tokens, T_STRING), text(GGUF_SPACE), text(" "));
        Text s = id == BOS ? text("\n<s>\n") : id == EOS ? text("\n</s>\n") : contents(&piece);
        set_piece(t, id, s, read_f32(&scores));
        uint32_t type = k->types.s ? read_u32(&types) : token_type(id);
        CHECK(type == token_type(id), "%s: token %d has type %u; %u was expected (added and unused "
              "tokens are not supported)", k->path, id, type, token_type(id));
    }
    free(piece.s);
    tokenizer_index(t, k->path);
    return t;
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

// Converts n weights to f32. A block of Q8_0 is an f16 scale and 32 whole numbers from -127 to 127,
// each to be multiplied by the scale: 34 bytes instead of 128, with an error of at most half the
// scale. BF16 is the upper half of an f32: the same range, 8 bits of precision. Such types are for
// inference: most steps of training are too small to change such a weight.
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

// Reads the next entry of the list, and its weights from data. Each tensor of the model must be
// there once, with its exact shape, and begin where the one before it ends, padding aside.
// llama.cpp demands this, too: tensors can then neither overlap nor leave gaps. A weight that is
// NaN, infinite or so large that products overflow would spread to every logit, and the text would
// come out empty without an error, so it is refused here and its tensor named.
static void read_tensor(Model *m, bool *seen, File *list, File *data, size_t alignment) {
    size_t j = 0;
    Text name = read_value(list, T_STRING);
    while (j < m->n_tensors && !same(name, text(m->tensor[j].name))) j++;
    CHECK(j < m->n_tensors && !seen[j], "%s: the tensor \"%.*s\" is there twice, or does not "
          "belong to a llama of this shape", list->path, SHOW(name));
    const Tensor *t = &m->tensor[j];
    seen[j] = true;
    const uint32_t n_dims = read_u32(list);             // a norm may be [C] or [C, 1]
    const uint64_t cols = read_u64(list), rows = n_dims == 2 ? read_u64(list) : 1;
    const uint32_t type = read_u32(list);
    const uint64_t offset = read_u64(list), n = n_weights(t);
    const uint64_t bytes = type == GGML_F32 ? 4 * n
                         : type == GGML_F16 || type == GGML_BF16 ? 2 * n
                         : type == GGML_Q8_0 && t->cols % 32 == 0 ? n / 32 * 34 : 0;
    need(data, (alignment - data->at % alignment) % alignment);
    CHECK((n_dims == 1 || n_dims == 2) && rows == (uint64_t)t->rows && cols == (uint64_t)t->cols
          && bytes && offset == data->at, "%s: %s has %u dimensions, %llu x %llu, type %u and "
          "offset %llu; %d x %d, F32 (0), F16 (1), BF16 (30) or, in rows of a multiple of 32, Q8_0 "
          "(8), and offset %zu were expected", list->path, t->name, n_dims,
          (unsigned long long)rows, (unsigned long long)cols, type, (unsigned long long)offset,
          t->rows, t->cols, data->at);
    float *w = m->params + t->at;
    dequantize(w, need(data, bytes), type, n);
    for (size_t i = 0; i < n; i++)
        CHECK(fabsf(w[i]) < 1e9f, "%s: a weight of %s is not a number below 1e9; the file is "
              "damaged, or its training diverged", list->path, t->name);
}

// Reads the list of tensors, in any order, and the data after it into m->params. The data begin
// where the list ends, so the list is walked twice: first to find its end, then to read the
// tensors. It has as many entries as the model has tensors, and none twice, so none is missing.
// Zeros after the last tensor are padding.
static void read_tensors(Model *m, File *list, size_t alignment) {
    File f = *list;
    bool *seen = zalloc(m->n_tensors, sizeof *seen);
    list->what = f.what = "the list of tensors";
    for (size_t i = 0; i < m->n_tensors; i++) {
        read_value(&f, T_STRING);
        need(&f, 8 * (uint64_t)read_u32(&f) + 4 + 8);   // dims, type, offset
    }
    f.what = "the weights";
    need(&f, (alignment - f.at % alignment) % alignment);
    File data = { f.path, f.what, f.p + f.at, f.n - f.at, 0 };
    for (size_t i = 0; i < m->n_tensors; i++) read_tensor(m, seen, list, &data, alignment);
    for (; data.at < data.n; data.at++)
        CHECK(!data.p[data.at], "%s: %zu bytes follow the last tensor", f.path, data.n - data.at);
    free(seen);
}

// Reads a GGUF file of architecture llama, ours or another program's: first the keys, which give
// the shape, then the tensors, which must have it. *m need not be initialised; it owns copies of
// all that it keeps, and model_free() frees them.
static void model_load(Model *m, const char *path) {
    Buf bytes = read_all(path);
    File f = { path, "the header", bytes.s, bytes.n, 4 };
    CHECK(bytes.n >= 4 && !memcmp(bytes.s, "GGUF", 4), "%s: not a GGUF file", path);
    uint32_t version = read_u32(&f);
    CHECK(version == 2 || version == 3, "%s: GGUF version %u%s; 2 or 3 was expected", path, version,
          version & 0xFFFF ? "" : " (a big-endian file; only little-endian ones are read)");
    uint64_t n_tensors = read_u64(&f), n_keys = read_u64(&f);
    Keys k = { .path = path, .add_space = true };
    for (; n_keys; n_keys--) {
        Key e = { .name = read_value(&f, T_STRING) };
        e.type = read_u32(&f);
        e.value = read_value(&f, e.type);
        k.a = grow(k.a, sizeof e, &k.cap, k.n + 1);
        k.a[k.n++] = e;
    }

    // What is not 0 if the file does not say it: the rotary base, and a space before a text.
    *m = (Model){ .c.theta = 1e4f };
    model_keys(&k, m);
    m->tokenizer = tokenizer_read(&k);

    // A layer has 9 tensors; 3 are outside the layers, or 2 if the head is tied. A weight takes at
    // least a byte, so a shape that the file cannot fill is refused before memory is reserved.
    m->c.V = m->tokenizer->V;
    m->c.tied = n_tensors == (uint64_t)m->c.L * 9 + 2;
    CHECK(m->c.tied || n_tensors == (uint64_t)m->c.L * 9 + 3, "%s: %llu tensors; %d layers have %d",
          path, (unsigned long long)n_tensors, m->c.L, m->c.L * 9 + 3);
    CHECK(count_weights(&m->c) <= bytes.n, "%s: a model of this shape has %llu weights, the file "
          "has %zu bytes", path, (unsigned long long)count_weights(&m->c), bytes.n);
    model_alloc(m);
    read_tensors(m, &f, (size_t)k.alignment);
    FREE(k.a, bytes.s);
}

// The three arrays of a vocabulary, as GGUF has them: tokens, scores, types. The inverse of
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
        put_string(&array[0], id == BOS ? text("<s>") : id == EOS ? text("</s>")
                              : contents(&piece));
        put_u32(&array[2], token_type(id));
    }
    free(piece.s);
}

// Writes the model with its tokenizer and its prompt. Weights are written in f32, as they are
// trained, so training continues from a file without losing a bit. Padding lets other programs map
// the file into memory and use the weights where they are.
static void model_save(const Model *m, const char *path) {
    Buf f = { 0 }, keys = { 0 }, array[3] = { { 0 } };
    uint64_t offset = 0;
    Model copy = *m;                                    // model_keys() has two directions
    put_tokenizer(array, m->tokenizer);
    Keys k = { .path = path, .out = &keys, .add_space = !m->tokenizer->no_space,
               .tokens = contents(&array[0]), .scores = contents(&array[1]),
               .types = contents(&array[2]) };
    model_keys(&k, &copy);

    // The header, the list of tensors, and their data, each tensor padded.
    buf_puts(&f, "GGUF");
    put_u32(&f, 3);
    put_u64(&f, m->n_tensors);
    put_u64(&f, k.n);
    buf_add(&f, keys.s, keys.n);
    for (const Tensor *t = m->tensor; t < m->tensor + m->n_tensors; t++) {
        put_string(&f, text(t->name));
        put_u32(&f, t->rows == 1 ? 1 : 2);
        put_u64(&f, (uint64_t)t->cols);
        if (t->rows > 1) put_u64(&f, (uint64_t)t->rows);
        put_u32(&f, GGML_F32);
        put_u64(&f, offset);
        offset += (n_weights(t) * 4 + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
    for (const Tensor *t = m->tensor; t < m->tensor + m->n_tensors; t++) {
        while (f.n % ALIGNMENT) buf_add(&f, "", 1);
        buf_add(&f, m->params + t->at, n_weights(t) * 4);
    }
    while (f.n % ALIGNMENT) buf_add(&f, "", 1);
    write_file(path, 1, (Text[]){ contents(&f) });
    FREE(f.s, keys.s, array[0].s, array[1].s, array[2].s);
}

/* ================================================================================================
   Chapter 10. Data files, JSON or JSONL.

       value    =  object | array | string | number | true | false | null      (RFC 8259)
       object   =  { }  |  { string : value , ... }
       array    =  [ ]  |  [ value , ... ]

   JSONL has an object on each line:

       {"question": "Two and two?", "answer": "It is five.", "correction": "It is four."}
       {"question": "Is ice cold?", "answer": "Yes.", "correction": "Yes."}

   No tree is built: the text is walked over, and what is wanted is decoded on the way. json_value()
   alone decides what is well-formed, and everything after it relies on that. json_number(),
   json_string() and json_value() step over one value at *p. They return NULL on success, otherwise
   what is wrong, and leave *p where it is wrong. Every text ends with a NUL byte. JSON allows none,
   so each loop stops there without a check of the length. */

#define BLANKS " \t\r\n"

// Steps over the characters that are in `set`; false if there is none.
static bool json_skip(const char **p, const char *set) {
    size_t n = strspn(*p, set);
    *p += n;
    return n > 0;
}

// Steps over blanks and then over c. False if something else is there; only blanks are then passed.
static bool json_mark(const char **p, char c) {
    json_skip(p, BLANKS);
    const bool there = **p == c;
    *p += there;
    return there;
}

// A number: [-] digits [. digits] [e [+ -] digits]. A leading 0 stands alone: 0.5, but not 05. It
// is not converted, as nothing here computes with it.
static const char *json_number(const char **p) {
    static const char DIGITS[] = "0123456789";
    *p += **p == '-';
    if (**p == '0') ++*p;
    else if (!json_skip(p, DIGITS)) return "a JSON value was expected";
    const bool fraction = **p == '.';
    *p += fraction;
    if (fraction && !json_skip(p, DIGITS)) return "a digit was expected";
    if (**p != 'e' && **p != 'E') return NULL;
    *p += 1 + ((*p)[1] == '+' || (*p)[1] == '-');
    return json_skip(p, DIGITS) ? NULL : "a digit was expected";
}

// A string in quotes. After it, json_text() may rely on every \ being followed by one of "\/bfnrt
// or by u and four hex digits.
static const char *json_string(const char **p) {
    if (!json_mark(p, '"')) return "a string was expected";
    for (; **p != '"'; ++*p) {
        if ((uint8_t)**p < 32) return "a raw control character inside a string";
        if (**p != '\\') continue;
        ++*p;
        const bool hex = **p == 'u' && strspn(*p + 1, "0123456789abcdefABCDEF") >= 4;
        if (!hex && (!**p || !strchr("\"\\/bfnrt", **p)))
            return "an escape that JSON does not know";
    }
    ++*p;
    return NULL;
}

// Any value, inside `depth` open brackets. The depth is bounded because each bracket is a call: a
// file must not decide how much of the stack is used.
static const char *json_value(const char **p, int depth) {
    static const char *const WORD[] = { "true", "false", "null" };
    json_skip(p, BLANKS);
    for (int i = 0; i < 3; i++)
        if (!strncmp(*p, WORD[i], strlen(WORD[i]))) {
            *p += strlen(WORD[i]);
            return NULL;
        }
    if (**p == '"') return json_string(p);

    // An array is an object without keys.
    const bool object = json_mark(p, '{');
    const char close = object ? '}' : ']', *why = NULL;
    if (!object && !json_mark(p, '[')) return json_number(p);
    if (depth == 64) return "nested deeper than 64 levels";
    if (json_mark(p, close)) return NULL;
    do {
        if (object) why = json_string(p);
        if (object && !why && !json_mark(p, ':')) why = "a colon was expected";
        if (!why) why = json_value(p, depth + 1);
        if (why) return why;
    } while (json_mark(p, ','));
    return json_mark(p, close) ? NULL : "a comma or the closing bracket was expected";
}

// Steps to the next member of a well-formed object; *at starts at 0. False at the end. key and
// value are raw: as they are in the file, with their quotes and escapes. So a member that nobody
// asks for is never decoded, and goes out byte by byte as it came in.
static bool json_member(Text object, size_t *at, Text *key, Text *value) {
    const char *p = object.s + (*at ? *at : 1);
    json_skip(&p, BLANKS ",");
    if (*p == '}') return false;
    key->s = p;
    json_string(&p);
    key->n = (size_t)(p - key->s);
    json_skip(&p, BLANKS ":");
    value->s = p;
    json_value(&p, 0);
    value->n = (size_t)(p - value->s);
    *at = (size_t)(p - object.s);
    return true;
}

// Appends a code point in UTF-8. The first byte says how many follow, and these hold 6 bits each:
//
//     below 80        0xxxxxxx
//     below 800       110xxxxx 10xxxxxx
//     below 10000     1110xxxx 10xxxxxx 10xxxxxx
//     below 110000    11110xxx 10xxxxxx 10xxxxxx 10xxxxxx
static void put_utf8(Buf *out, uint32_t c) {
    static const uint8_t LEAD[] = { 0, 0, 0xC0, 0xE0, 0xF0 };
    char u[4];
    int n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (int i = n - 1; i > 0; i--, c >>= 6) u[i] = (char)(0x80 | (c & 0x3F));
    u[0] = (char)(LEAD[n] | c);
    buf_add(out, u, (size_t)n);
}

// The number in the \uXXXX at p, or -1 if something else is there.
static long json_unit(const char *p) {
    char digits[5] = { 0 };
    return p[0] == '\\' && p[1] == 'u' ? strtol(memcpy(digits, p + 2, 4), NULL, 16) : -1;
}

// Sets out to the text that a raw value of a well-formed object means; false if it is not a string.
//
// \u has room for 16 bits. A code point beyond that is written as two of them, a surrogate pair:
// take 10000 from it, add D800 to the upper 10 bits of the rest and DC00 to the lower 10. U+1F600,
// a smiley, becomes F600 = 3D * 400 + 200, and so \ud83d\ude00. Half a pair means nothing and
// becomes U+FFFD, the replacement character.
static bool json_text(Text raw, Buf *out) {
    static const char CODE[] = "\"\\/bfnrt", MEANS[] = "\"\\/\b\f\n\r\t";
    buf_set(out, text(""));
    if (!raw.n || *raw.s != '"') return false;
    for (const char *p = raw.s + 1; *p != '"'; ) {      // plain text, a short escape, or \uXXXX
        const size_t plain = strcspn(p, "\\\"");
        const char *simple = plain ? NULL : strchr(CODE, p[1]);
        if (plain) {
            buf_add(out, p, plain);
            p += plain;
        } else if (simple) {
            buf_add(out, MEANS + (simple - CODE), 1);
            p += 2;
        } else {
            long c = json_unit(p), low = json_unit(p + 6);
            const bool pair = c >= 0xD800 && c < 0xDC00 && low >= 0xDC00 && low < 0xE000;
            if (pair) c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
            put_utf8(out, c >= 0xD800 && c < 0xE000 ? 0xFFFD : (uint32_t)c);
            p += pair ? 12 : 6;
        }
    }
    return true;
}

// Appends t as a JSON string. Quotes, backslashes and control characters are escaped; a byte that
// is not UTF-8 becomes U+FFFD, because JSON has no way to write it.
static void json_put(Buf *out, Text t) {
    buf_puts(out, "\"");
    for (size_t n; t.n; t = rest_of(t, n ? n : 1)) {
        const char c = *t.s;
        char code[8];
        n = utf8_length(t);
        snprintf(code, sizeof code, !n ? "\\ufffd" : c == '\n' ? "\\n" : "\\u%04x", c);
        if (n && (c == '"' || c == '\\')) buf_puts(out, "\\");
        if (n && !is_control(c)) buf_add(out, t.s, n);
        else buf_puts(out, code);
    }
    buf_puts(out, "\"");
}

// Does this raw key have that name? It may be written with escapes: "\u006b" is "k".
static bool key_is(Text raw, const char *name) {
    Buf key = { 0 };
    bool equal = json_text(raw, &key) && same(contents(&key), text(name));
    free(key.s);
    return equal;
}

// The raw value of a key, or NONE. If the key is there twice, the last one counts, as in Python.
static Text json_find(Text object, const char *name) {
    Text key, value, found = NONE;
    for (size_t at = 0; json_member(object, &at, &key, &value); )
        if (key_is(key, name)) found = value;
    return found;
}

enum Status { ROW_END, ROW_GOOD, ROW_BAD };             // ROW_BAD: reason says why

// A stream of objects: JSONL, objects that span lines (as jq prints them), or an array of objects.
// Commas and square brackets between objects are skipped like blanks, so all three are read in one
// way. The stream is read line by line and no further than an object needs, so a filter can answer
// each line before the next one arrives, and in constant memory.
typedef struct {
    const char *path;
    FILE *f;
    Buf text;                           // the lines from which the next object comes
    size_t at;                          // how many of their bytes are used up
    long line, column;                  // of text.s + at
    Text object;                        // the last one; if broken, {"line": its first line}
    char reason[256], first[256];       // why the last row, and the first one, cannot be used
    Buf own[3];                         // the texts of the row's keys
    long skipped;                       // rows that skip_row() counted
} Objects;

// Opens a data file. NULL or "-" is standard input.
static void objects_open(Objects *o, const char *path) {
    const bool standard = !path || is(path, "-");
    *o = (Objects){ .path = standard ? "standard input" : path, .line = 1, .column = 1 };
    o->f = standard ? stdin : fopen(path, "rb");
    CHECK(o->f, "cannot open %s: %s; name a file that can be read", path, strerror(errno));
    buf_set(&o->text, text(""));
}

// Counts a row that cannot be used, and remembers the reason if it is the first: objects_close()
// reports both, in one line for the whole file.
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

// Drops what is used up and appends the next line of the file; false at its end. Some editors put a
// byte order mark at the start of a file; it is dropped, too.
static bool more_text(Objects *o) {
    char *line = NULL;
    size_t capacity = 0;
    ssize_t n = getline(&line, &capacity, o->f);
    CHECK(n >= 0 || feof(o->f), "cannot read %s: %s", o->path, strerror(errno));
    const size_t mark = n >= 3 && o->line == 1 && !memcmp(line, "\xEF\xBB\xBF", 3) ? 3 : 0;
    memmove(o->text.s, o->text.s + o->at, o->text.n - o->at);
    o->text.n -= o->at;
    o->at = 0;
    buf_add(&o->text, n > 0 ? line + mark : "", n > 0 ? (size_t)n - mark : 0);
    free(line);
    return n > 0;
}

// Uses up n bytes. Lines and columns are counted on the way, because the text before a fault is
// gone by the time the fault is found.
static void advance(Objects *o, size_t n) {
    for (; n; n--) {
        const bool newline = o->text.s[o->at++] == '\n';
        o->line += newline;
        o->column = newline ? 1 : o->column + 1;
    }
}

// Reads the next object into o->object, where it stays until the next call. An object may span
// lines: if nothing is wrong but that the text ends, the next line is appended and the object is
// read again from its start.
//
// A broken object is taken to end with its first line, wherever the fault is, as the next line may
// be a good row. For example, after the good line 1,
//
//     {"question": "Is ice cold?", "answer": Yes}
//
// sets o->reason to "line 2, column 40: a JSON value was expected", and o->object to {"line": "the
// text of this line"}.
static enum Status read_object(Objects *o) {
    enum { MOST_LINES = 10000 };
    const char *why;
    size_t used;
    int lines = 0;

    // To the first character that may begin an object.
    do advance(o, strspn(o->text.s + o->at, BLANKS "[],"));
    while (o->at == o->text.n && more_text(o));
    if (o->at == o->text.n) return ROW_END;

    // The object, with as many lines as it needs. `used` is a distance, as more_text() moves bytes.
    do {
        const char *p = o->text.s + o->at;
        why = *p == '{' ? json_value(&p, 0) : "an object was expected";
        used = (size_t)(p - o->text.s) - o->at;
    } while (why && o->at + used == o->text.n && ++lines < MOST_LINES && more_text(o));
    o->object = (Text){ o->text.s + o->at, used };
    if (!why) {
        advance(o, used);
        return ROW_GOOD;
    }

    // A fault. Its place is counted by a copy of *o, which itself goes on at the end of the line.
    Text line = rest_of(contents(&o->text), o->at);
    const char *end = memchr(line.s, '\n', line.n);
    Objects culprit = *o;
    if (!line.s[used]) why = "the text ends too early (or an object has over 10,000 lines)";
    if (end) line.n = (size_t)(end - line.s);
    if (memchr(line.s, 0, line.n)) why = "a NUL byte (UTF-16? use iconv -f UTF-16 -t UTF-8)";
    advance(&culprit, used);
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

// Reads the next row: the texts under those of its three keys that `keys` asks for, which must be
// strings. They last until the next call; the other texts are NONE. Filters call this function and
// see the bad rows, too, because each line that comes in must go out.
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

// Reads the next row that has all of the keys. Rows without are skipped and counted: training,
// evaluation and the tokenizer do without them.
static bool next_good_row(Objects *o, int keys, Triple *t) {
    enum Status status;
    while ((status = next_row(o, keys, t)) == ROW_BAD) skip_row(o, o->reason);
    return status == ROW_GOOD;
}

// Reads the next row that m can learn from or be judged by, as a triple and as the objective's
// tokens; the caller frees row->ids. Two kinds are skipped and counted. An empty target would teach
// the model to be silent. A row longer than the context would have to be cut, and half a correction
// would teach it to stop anywhere.
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

// Appends a row, whose ids rows_free() will free.
static void rows_add(Rows *r, Row row) {
    r->row = grow(r->row, sizeof *r->row, &r->cap, r->n + 1);
    r->row[r->n++] = row;
}

// Appends all usable rows of a file. Here the objective decides what is learnt: sft, warmup and
// aligner differ in nothing else.
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
}

/* ================================================================================================
   Chapter 11. Training, continued.  A faster optimiser, checkpoints, and what the user sees.

   train() at the end of the chapter is a whole run: run_init() prepares it, train_loop() of chapter
   4 trains, and checkpoint() saves. */

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

// The Euclidean norm of all gradients. Squares are added up in floats within a chunk of 4096, and
// in doubles over the chunks of each of 64 parts. The threads share the parts; one thread adds
// the 64 sums. The order of the additions is the same for any number of threads.
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

/* Muon (Jordan et al. 2024) trains the matrices inside the layers if --muon is given. AdamW scales
   each number by itself and does not know that the numbers form a matrix. A gradient G = U S V^T
   (its singular value decomposition) has a few large singular values, the directions that most
   tokens of the batch ask for, and many small ones. Muon steps along U V^T, which sets all of them
   to one: a rare fact is learnt as fast as a frequent turn of phrase.

       m <- b1 m + (1 - b1) g,    G = b1 m + (1 - b1) g        today's gradient counts once more
       w <- w (1 - r decay) - 0.2 r sqrt(max(rows, cols)) U V^T,    with r = muon lr

   The factor makes the steps as large as AdamW's (arXiv 2502.16982). No decomposition is needed for
   U V^T. The odd polynomial a X + b X X^T X + c (X X^T)^2 X equals U (a S + b S^3 + c S^5) V^T:
   it changes the singular values and nothing else. Three of them, one after another, send every
   singular value between 1/300 and 1 to one between 0.18 and 1.87, which is close enough to 1
   (coefficients of Polar Express, arXiv 2505.16932). All of it is matmul. */

// Does Muon train this tensor? It takes the matrices. Embeddings and head are lists of rows, one
// for each token, and norms are vectors: AdamW trains these.
static bool muons(const Model *m, const Tensor *t, const TrainOptions *o) {
    const float *w = m->params + t->at;
    return o->muon > 0 && t->rows > 1 && w != m->w.embd && w != m->w.head;
}

// y[rows][cols] becomes nearly U V^T of x[rows][cols] = U S V^T; x is overwritten. All squares are
// on the shorter side, k: X X^T if X is wide, X^T X if it is tall.
static void orthogonalize(float *y, float *x, int rows, int cols) {
    static const float P[3][3] = { { 8.20516f, -22.90193f, 16.46072f },
                                   { 4.06640f, -2.86115f, 0.51840f },
                                   { 3.90959f, -2.82335f, 0.52504f } };
    const int k = least(rows, cols), longer = rows + cols - k;
    float *a = scratch(FOR_MUON, 2 * (size_t)k * k), *b = a + (size_t)k * k;
    double sum = 0;
    for (int i = 0; i < rows; i++)
        sum += (double)dot(x + (size_t)i * cols, x + (size_t)i * cols, cols);
    const float scale = (float)(1 / (sqrt(sum) + 1e-30));       // no singular value exceeds 1 now
    for (size_t j = 0; j < (size_t)rows * cols; j++) x[j] *= scale;
    for (int step = 0; step < 3; step++) {                      // x to y, y to x, x to y
        const float *p = P[step];
        float *to = step % 2 ? x : y;
        const Matrix X = rows_of(step % 2 ? y : x, cols), S = rows < cols ? X : transposed(X);
        const Matrix A = rows_of(a, k), B = rows_of(b, k);
        gemm(0, 1, k, k, longer, S, transposed(S), a, (size_t)k, false);
        gemm(0, 1, k, k, k, A, A, b, (size_t)k, false);
        for (size_t j = 0; j < (size_t)k * k; j++) b[j] = p[1] * a[j] + p[2] * b[j];
        for (int i = 0; i < k; i++) b[(size_t)i * k + i] += p[0];       // B = p0 + p1 A + p2 A^2
        if (rows < cols) gemm(0, 1, rows, cols, k, B, X, to, (size_t)cols, false);
        else gemm(0, 1, rows, cols, k, X, B, to, (size_t)cols, false);
    }
}

// One step of Muon on gradients that clipping multiplies by scale; clears them. Each thread takes
// whole matrices. Muon keeps no second moment, so v is free to hold G.
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

// With --ema X the model that is saved has the mean of the weights over about the last 1 / (1 - X)
// steps. Each step follows one batch, and the next ones undo much of it; in the mean, that noise
// cancels. While fewer steps than that are done, it is the plain mean of all of them.
static void update_mean(const Model *m, Progress *p, const TrainOptions *o) {
    const float rate = (float)fmax(1 - o->ema, 1 / ((double)p->step + 1));
    #pragma omp parallel for schedule(static) if (m->n_params > 16384)
    for (size_t j = 0; j < m->n_params; j++) p->mean[j] += rate * (m->params[j] - p->mean[j]);
}

// Swaps the weights and their mean, if there is one. A second call swaps them back.
static void exchange_mean(Model *m, Progress *p) {
    if (!p->mean) return;
    float *weights = m->params;
    m->params = p->mean;
    p->mean = weights;
    point_weights(m, &m->w, m->params);
}

// A loss or a gradient that is not a number would spoil every weight, so the run ends here.
static void check_finite(double loss, double norm, long step) {
    CHECK(isfinite(loss) && isfinite(norm), "step %ld: the loss is %g, the norm of the gradient "
          "%g; try a smaller --lr (the last checkpoint is untouched)", step, loss, norm);
}

/* A GGUF file has no place for the optimiser. Its state is in OUT.state:

       "ALNSTAT2" | u64 n_params | u64 hash of rows, prompt and options | the numbers of Progress |
       params | m | v | mean                                (floats; mean only with --ema)

   The weights are in both files. The state is therefore whole by itself: a run that is killed
   after one file and before the other still resumes, with the bits of an undisturbed run. */

typedef struct { char magic[8]; uint64_t n_params, hash; } StateHead;
enum { STATE_NUMBERS = offsetof(Progress, m), STATE_HEAD = sizeof(StateHead) + STATE_NUMBERS };

// Two runs with the same hash do the same: it covers the rows and their order, the prompt, the
// objective, the configuration, and each option that changes the result. run->hash holds what the
// objective adds (nothing, or in tests/lab.c the frozen models).
static uint64_t run_hash(const Run *run) {
    const Model *m = run->model;
    const TrainOptions *o = run->o;
    const double numbers[] = { (double)o->batch, (double)o->tokens, (double)o->seed, o->lr,
                               o->lr_warmup, o->weight_decay, o->clip, o->adam_eps, o->muon,
                               o->ema, o->grow_below, m->c.eps, m->c.theta };
    uint64_t h = hash_bytes(HASH_START ^ run->hash, numbers, sizeof numbers);
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

// The parts of OUT.state, which checkpoint() writes and resume() reads into. Fills *head, the first
// of them, and returns how many there are.
static int state_parts(Run *run, StateHead *head, Text part[6]) {
    Model *m = run->model;
    Progress *p = &run->p;
    void *const piece[] = { head, p, m->params, p->m, p->v, p->mean };
    *head = (StateHead){ .n_params = m->n_params, .hash = run->hash };
    memcpy(head->magic, "ALNSTAT2", sizeof head->magic);
    for (int i = 0; i < 6; i++)
        part[i] = (Text){ piece[i], i ? m->n_params * sizeof(float) : sizeof *head };
    part[1].n = STATE_NUMBERS;
    return p->mean ? 6 : 5;
}

// Saves the state, then the model. write_file() replaces a file at once or not at all, so the disk
// holds a whole checkpoint at every moment.
static void checkpoint(Run *run) {
    Buf path = with_ending(run->o->out, STATE);
    StateHead head;
    Text part[6];
    const int n = state_parts(run, &head, part);
    run->model->step = run->p.step;
    write_file(path.s, n, part);
    exchange_mean(run->model, &run->p);
    model_save(run->model, run->o->out);
    exchange_mean(run->model, &run->p);
    free(path.s);
}

// Reads what checkpoint() wrote. If nothing has been saved yet, the run begins at step 0. A model
// without its state is somebody's finished work, and is refused.
static void resume(Run *run) {
    Buf path = with_ending(run->o->out, STATE);
    StateHead head;
    Text part[6];
    const int n = state_parts(run, &head, part);
    size_t at = 0;
    if (access(path.s, F_OK)) {
        CHECK(access(run->o->out, F_OK), "%s exists, but %s does not: nothing to resume; train "
              "without --resume, or to another --out", run->o->out, path.s);
        fprintf(stderr, "%s: nothing is saved yet; starting at step 0\n", run->o->out);
        free(path.s);
        return;
    }

    // It must be as long as this run's state, and begin with the same head.
    Buf f = read_all(path.s);
    CHECK(f.n == STATE_HEAD + (size_t)(n - 2) * part[2].n && !memcmp(f.s, &head, sizeof head),
          "%s: damaged, or the state of another run; --resume needs the same data, prompt, "
          "objective, shape and options as the start (train --help says which may differ)", path.s);
    for (int i = 0; i < n; at += part[i++].n) memcpy((char *)part[i].s, f.s + at, part[i].n);
    const Progress *p = &run->p;                        // loops and indices depend on its numbers
    CHECK(p->step >= 0 && p->step <= INT_MAX && p->at >= 0 && p->at <= (long)run->rows->n &&
          p->epoch >= -1 && p->epoch < INT_MAX && p->tokens >= 0 && p->tokens < LONG_MAX / 2 &&
          p->targets >= 0 && p->targets < LONG_MAX / 2 && p->longest_target > 0 &&
          p->longest_target <= INT_MAX, "%s: its numbers are not those of a run", path.s);
    FREE(path.s, f.s);
}

// Room for T tokens in at most n rows. A batch never has more targets than tokens.
static void batch_alloc(Batch *b, int T, int n) {
    *b = (Batch){ .ids = ints(T), .pos = ints(T), .start = ints(n + 1), .out = ints(T),
                  .target = ints(T) };
}

static void batch_free(Batch *b) { FREE(b->ids, b->pos, b->start, b->out, b->target); }

// The most tokens that a unit of these rows can have: UNIT, or the longest row.
static int unit_size(const Rows *a, const Rows *b) {
    int longest = UNIT;
    for (size_t i = 0; i < a->n + b->n; i++) {
        const Row *r = i < a->n ? &a->row[i] : &b->row[i - a->n];
        if (r->n > longest) longest = r->n;
    }
    return longest;
}

// The mean loss of all target tokens, without gradients.
static double mean_loss(Model *m, const Rows *r) {
    const int T = unit_size(r, r);
    double loss = 0;
    int n_targets = 0;
    Batch b;
    const Row **row = zalloc(r->n, sizeof *row);
    batch_alloc(&b, T, T);
    acts_reserve(m, T, T, T, true);
    for (size_t i = 0; i < r->n; i++) {
        row[i] = &r->row[i];
        n_targets += r->row[i].n - r->row[i].n_condition;
    }
    for (int i = 0; i < (int)r->n; ) {
        i = fill_unit(&b, row, i, (int)r->n);
        forward(m, &b, NULL);
        loss += cross_entropy(m, &b, n_targets);
    }
    batch_free(&b);
    free(row);
    return loss;
}

// The loss of the validation rows under the weights that are saved: with --ema, the mean.
static double validation_loss(Run *run) {
    exchange_mean(run->model, &run->p);
    double loss = run->validate ? run->validate(run) : mean_loss(run->model, run->valid);
    exchange_mean(run->model, &run->p);
    return loss;
}

// The number of steps that --epochs takes. A copy of the run draws all batches once, to count them.
static long count_steps(const Run *run) {
    Run copy = *run;
    long steps = 0;
    for (; copy.p.epoch < run->o->epochs - 1 || copy.p.at < (long)run->rows->n; steps++)
        draw_rows(&copy);
    return steps;
}

// Allocates everything, and places the run at its first step or, with --resume, at its next.
static void run_init(Run *run) {
    Model *m = run->model;
    const TrainOptions *o = run->o;
    const int T = unit_size(run->rows, run->valid);
    int shortest = INT_MAX;
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

    // --grow-below needs a row to begin with, and a state file may claim any limit.
    for (size_t i = 0; i < run->rows->n; i++)
        shortest = least(shortest, run->rows->row[i].n - run->rows->row[i].n_condition);
    if (run->p.longest_target < shortest) run->p.longest_target = shortest;
    shuffle(run->order, run->rows->n, o->seed, run->p.epoch);
    run->first = run->p.step;
    run->started = seconds();
    if (!o->log) return;
    run->log = fopen(o->log, run->first ? "ab" : "wb");
    CHECK(run->log, "cannot write %s: %s", o->log, strerror(errno));
    if (!run->first) fprintf(run->log, "step,loss,lr,norm,tokens,targets,longest,valid\n");
}

// What follows each step: counters, the limit of --grow-below, the progress line, the log, and now
// and then a checkpoint. train() writes the last checkpoint itself.
static void bookkeeping(Run *run, double loss, double lr, double norm) {
    Progress *p = &run->p;
    const TrainOptions *o = run->o;

    // The running loss has a half-life of 14 steps. When it falls below X of --grow-below, targets
    // may be twice as long. It then starts again from 2 X: the longer rows must bring it down, too.
    p->step++;
    p->running = p->running < 0 ? loss : 0.95 * p->running + 0.05 * loss;
    if (p->longest_target < INT_MAX && p->running < o->grow_below) {
        p->running = 2 * o->grow_below;
        p->longest_target *= 2;
        if (p->longest_target > run->model->c.context) p->longest_target = INT_MAX;
    }
    const bool live = isatty(2), last = p->step == run->steps;
    const bool save = o->save_every && p->step % o->save_every == 0;

    // Progress: one line that is rewritten on a terminal, elsewhere about ten lines for the run.
    if (!o->quiet && (last || live || run->steps < 10 || p->step % (run->steps / 10) == 0)) {
        double rate = (double)(p->step - run->first) / (seconds() - run->started + 1e-9);
        long left = (long)((double)(run->steps - p->step) / rate + 0.5);
        fprintf(stderr, "%sstep %ld/%ld  loss %.4f  lr %.2e  %.0f tokens/s  ETA %ld:%02ld",
                live ? "\r\x1b[K" : "", p->step, run->steps, p->running, lr,
                rate * (double)p->tokens / (double)p->step, left / 60, left % 60);
        if (!live || last) fputc('\n', stderr);
    }

    // The log can be plotted while the run goes on. Validation is done when a model is saved.
    if (run->log) {
        fprintf(run->log, "%ld,%.6f,%.4e,%.4f,%ld,%ld,%ld,", p->step, loss, lr, norm, p->tokens,
                p->targets, p->longest_target < INT_MAX ? p->longest_target : 0);
        if (run->valid->n && (save || last)) fprintf(run->log, "%.6f", validation_loss(run));
        fprintf(run->log, "\n");
        fflush(run->log);
    }
    if (save && !last) checkpoint(run);
}

// A signal handler may do next to nothing: it sets a flag, which train_loop() reads.
static volatile sig_atomic_t interrupted;
static void on_signal(int sig) { interrupted = sig; }

// A whole run. Ctrl-C or SIGTERM saves and exits with 1; --resume then continues with the bits of a
// run that was never interrupted. Afterwards run->model is the model that was saved.
static void train(Run *run) {
    Model *m = run->model;
    const TrainOptions *o = run->o;
    Progress *p = &run->p;
    const struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
    run_init(run);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    train_loop(run);
    checkpoint(run);
    if (!o->quiet)
        fprintf(stderr, "%s%s: %s, step %ld, %ld tokens (%ld targets), running loss %.4f, %.0f s\n",
                isatty(2) && interrupted ? "\n" : "", o->out, m->objective, p->step, p->tokens,
                p->targets, p->running, seconds() - run->started);
    if (run->valid->n) fprintf(stderr, "validation loss %.4f\n", validation_loss(run));

    // A full disk may show only now, when the last lines of the log are written.
    CHECK(!run->log || (!ferror(run->log) && !fclose(run->log)),
          "cannot write all of %s; is the disk full? The model is saved", o->log);
    exchange_mean(m, p);
    FREE(run->order, run->drawn, p->m, p->v, p->mean);
    batch_free(&run->unit);
    if (!interrupted) return;
    fprintf(stderr, "interrupted; the same command with --resume continues\n");
    exit(1);
}

/* ================================================================================================
   Chapter 12. Command line.  stdout carries results only; progress and messages go to stderr. The
   chapter goes from what is shown, by way of the commands, to the options; main() comes last. */

// A result that cannot be written fails the run.
static void flush_results(void) {
    CHECK(!fflush(stdout) && !ferror(stdout), "cannot write the result: %s", strerror(errno));
}

// Writes text for a terminal: no control codes of ASCII but newline and tab.
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

// A text that is the result: plain on a terminal, byte for byte elsewhere.
static void put_result(Text t) {
    if (isatty(1)) put_plain(stdout, t);
    else fwrite(t.s, 1, t.n, stdout);
    putchar('\n');
}

/* The word diff of y_o and y_c. Most of y_c is y_o, so a reader wants to see the rest. A word is a
   run of letters, digits, apostrophes and bytes beyond ASCII; any other sign is a word by itself.
   Blanks lie between words and do not count in comparisons:

       I do not know the capital of Austria.    y_o
       The capital of Austria is Vienna.        y_c
       [-I do not know the-]{+The+} capital of Austria {+is Vienna+}. */

// Letters and bytes beyond ASCII are of class 2, digits of class 1, signs of 3, the rest of 0.
static bool in_word(char c) { return character_class(c) % 3 || c == '\''; }

// Cuts t into words word[1 .. n], at most `most`, and returns n. The last one takes all that is
// left. word[0] is empty and lies where t begins, so each word has one before it.
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

// Prints y_o -> y_c as one text with the changes marked. lcs(i, j) is the length of a longest
// common subsequence of the words from i and from j on:
//
//     lcs(i, j) = 1 + lcs(i + 1, j + 1)                   if the words i and j are the same
//               = max(lcs(i + 1, j), lcs(i, j + 1))       otherwise
//
// The table is filled from the end. Then the texts are walked from the beginning, always to the
// larger neighbour, which keeps as many words as possible. If less than half of the shorter text is
// kept, marks in between would only confuse: then all of it is one deletion and one insertion.
static void show_diff(FILE *f, Text y_o, Text y_c, bool color) {
    enum { MOST = 2048 };
    Text *a = zalloc(MOST + 1, sizeof *a), *b = zalloc(MOST + 1, sizeof *b);
    const int n = diff_words(y_o, a, MOST), m = diff_words(y_c, b, MOST), row = m + 2;
    int *lcs = ints((n + 2) * row);

    // lcs[i * row + j] is lcs(i, j). The row and the column beyond the last words stay 0.
    for (int i = n; i > 0; i--)
        for (int j = m; j > 0; j--) {
            int *at = lcs + i * row + j, down = at[row], right = at[1];
            *at = same(a[i], b[j]) ? at[row + 1] + 1 : down > right ? down : right;
        }

    // The walk. Each round passes over what changes, up to the next word that both texts keep.
    const bool rewritten = 2 * lcs[row + 1] < least(n, m);
    for (int i = 1, j = 1; i <= n || j <= m; i++, j++) {
        const int i0 = i, j0 = j;
        while (i <= n || j <= m) {
            const int *at = lcs + i * row + j;
            if (!rewritten && i <= n && j <= m && same(a[i], b[j])) break;
            if (j > m || (i <= n && at[row] >= at[1])) i++;
            else j++;
        }

        // Deleted words, inserted words and a kept one: each piece after the blanks before it.
        const struct { const Text *word; int n; const char *open, *close; } PIECE[] = {
            { a + i0, i - i0, color ? "\x1b[9;31m" : "[-", color ? "\x1b[0m" : "-]" },
            { b + j0, j - j0, color ? "\x1b[32m" : "{+", color ? "\x1b[0m" : "+}" },
            { j == 1 && i <= n ? a + i : b + j, j <= m, "", "" } };     // y_o's blanks come first
        for (int k = 0; k < 3; k++) {
            const Text *w = PIECE[k].word, *end = w + PIECE[k].n - 1;
            if (end < w) continue;
            const char *blanks = w[-1].s + w[-1].n;
            put_plain(f, (Text){ blanks, (size_t)(w->s - blanks) });
            fputs(PIECE[k].open, f);
            put_plain(f, (Text){ w->s, (size_t)(end->s + end->n - w->s) });
            fputs(PIECE[k].close, f);
        }
    }
    fputc('\n', f);
    FREE(a, b, lcs);
}

/* ------------------------------------------------------------------------------------------------
   What the commands share: options, models, and a Generator's memory. */

// Everything that the command line can say. word: the command, then its objective, model or file.
typedef struct {
    TrainOptions train;
    Decoding how;
    const char *text, *question, *answer, *correction, *upstream, *word[3];
    int n_words, vocab, threads, diff, json, strict;
} Options;

// The options of this run. 0 means that an option is off or has its default elsewhere. -1 means
// that it was not given, if 0 would say something.
static Options options = {
    .how = { .top_p = 1, .keep = -1 },
    .train = { .batch = -1, .lr = 1e-3, .lr_warmup = 0.03, .clip = 1, .adam_eps = 1e-8,
               .seed = 1 } };

// Word i of the command line, without which the command cannot run.
static const char *need_word(const Options *o, int i, const char *what) {
    if (o->n_words <= i) usage_error("`%s` needs %s", o->word[0], what);
    return o->word[i];
}

// What was this model trained to do? 0 if its file does not say, as one from elsewhere. The warm-up
// counts as correcting, though all it has learnt is to copy.
enum { ANSWERER = 1, CORRECTOR = 2, JUDGE = 4 };

static int role_of(const Model *m) {
    const char *o = m->objective;
    if (is(o, "sft") || is(o, "dpo") || is(o, "rlhf")) return ANSWERER;
    return is(o, "aligner") || is(o, "warmup") ? CORRECTOR : is(o, "reward") ? JUDGE : 0;
}

// Makes g ready to write with m, in the way that `how` says; generator_free() frees g.
static void generator_init(Generator *g, Model *m, Decoding how) {
    *g = (Generator){ .m = m, .how = how };
    if (how.keep < 0) g->how.keep = m->keep;            // as the model's file says
    model_pack(m);
    batch_alloc(&g->batch, FEED, 1);
    g->count = ints(m->c.V);
    g->choice = zalloc((size_t)m->c.V, sizeof *g->choice);
}

// Frees all but the model. A Generator that is all 0 is fine, too.
static void generator_free(Generator *g) {
    FREE(g->cache.keys, g->cache.values, g->count, g->choice);
    batch_free(&g->batch);
}

// Loads a model and makes g ready to write with it. The model must have a prompt, and must not have
// been trained for anything but the roles asked for.
static void generator_load(Generator *g, Model *m, const char *path, int roles, Decoding how) {
    model_load(m, path);
    template_of(m, true);
    CHECK(!role_of(m) || role_of(m) & roles, "%s was trained as %s; a model that %s was expected",
          path, m->objective, roles == ANSWERER ? "answers" : roles == CORRECTOR ? "corrects"
          : "answers or corrects");
    generator_init(g, m, how);
}

// Room for n more tokens. The cache grows with the text, whatever context a file claims. It grows
// to twice the text at least, so T tokens are moved log T times at most. A head's keys are one
// piece of memory; its values are panels of NR columns (chapter 7), each of which is one.
static void generator_reserve(Generator *g, int n) {
    const Config *c = &g->m->c;
    Cache *k = &g->cache;
    const int hs = head_size(c), needed = k->len + n, old = k->capacity;
    const size_t heads = (size_t)c->L * c->H_kv, panels = heads * packed_size(1, hs) / NR;
    acts_reserve(g->m, FEED, FEED, needed, false);
    if (needed <= old) return;
    k->capacity = round_up(needed > 2 * k->len ? needed : 2 * k->len, 256);
    const size_t keys = packed_size(hs, k->capacity), values = (size_t)k->capacity * NR;
    const Cache from = *k;
    k->keys = zalloc(heads, keys * sizeof(float));
    k->values = zalloc(panels, values * sizeof(float));
    for (size_t i = 0; old && i < heads; i++)
        copy_floats(k->keys + i * keys, from.keys + i * packed_size(hs, old), packed_size(hs, old));
    for (size_t i = 0; old && i < panels; i++)
        copy_floats(k->values + i * values, from.values + i * old * NR, (size_t)old * NR);
    FREE(from.keys, from.values);
}

// For qsort(), which promises no order for equal elements: equal probabilities are ordered by id.
static int likelier_first(const void *pa, const void *pb) {
    const struct Choice *a = pa, *b = pb;
    if (a->p != b->p) return a->p > b->p ? -1 : 1;
    return (a->id > b->id) - (a->id < b->id);
}

/* ------------------------------------------------------------------------------------------------
   Commands that make something: `tokenizer` and `train`. */

// `tokenizer`: learns from what the model will see, the filled prompt and the target after it. Both
// begin with a space, because encode() puts one before each text. The target is the correction or,
// if a row has none (data for SFT), the answer.
static void run_tokenizer(const Options *o) {
    const TrainOptions *t = &o->train;
    Model m = { 0 };                                    // only its template is used
    Buf all = { 0 }, target = { 0 };
    if (!t->n_data || !t->out) usage_error("`tokenizer` needs --data, --vocab and --out");
    if (o->vocab < FIRST_PIECE || o->vocab > MAX_VOCAB)
        usage_error("--vocab %d: %d to %d was expected", o->vocab, FIRST_PIECE, MAX_VOCAB);
    set_template(&m, t->prompt ? t->prompt : "default");
    for (int i = 0; i < t->n_data; i++) {
        Objects in;
        Triple row;
        objects_open(&in, t->data[i]);
        while (next_good_row(&in, NEED_X | NEED_Y_O, &row)) {
            Buf condition = prompt(&m, row.x, row.y_o);
            if (!json_text(json_find(in.object, "correction"), &target)) buf_set(&target, row.y_o);
            const Text part[] = { text(" "), contents(&condition), text("\n "), contents(&target),
                                  text("\n") };
            for (int k = 0; k < 5; k++) buf_add(&all, part[k].s, part[k].n);
            free(condition.s);
        }
        objects_close(&in);
    }
    CHECK(all.n, "no rows to learn from in %s", t->data[0]);
    Tokenizer *k = tokenizer_train(contents(&all), o->vocab, isatty(2) && !t->quiet);
    tokenizer_save(k, t->out);
    if (!t->quiet)
        fprintf(stderr, "%s: %d pieces from %zu bytes of text%s\n", t->out, k->V, all.n,
                k->V < o->vocab ? " (it yields no more)" : "");
    tokenizer_free(k);
    model_free(&m);
    FREE(all.s, target.s);
}

// The shape that the options ask for, with a vocabulary of V pieces. An option that is not given is
// 0 and gets the default that --help names. F = 11/4 C is near the 8/3 C of Llama.
static Config shape_of(const TrainOptions *t, int V) {
    Config c = { .V = V, .C = t->dim ? t->dim : 128, .L = t->layers ? t->layers : 3,
                 .H = t->heads ? t->heads : 8, .context = t->context ? t->context : 256,
                 .tied = t->tied, .eps = 1e-5f, .theta = 1e4f };
    c.H_kv = t->kv_heads ? t->kv_heads : c.H;
    c.F = t->hidden ? t->hidden : least(c.C, 16384) * 11 / 4;           // 16384: config_check()
    config_check(&c, "the shape asked for");
    return c;
}

// The model that a run begins with. With --init it is that file's weights, tokenizer and prompt:
// this is how an Aligner begins where its warm-up ended. Otherwise it has random weights.
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

// Refuses options that make no run. `train` and the objectives of tests/lab.c share it.
static void check_train_options(const TrainOptions *t) {
    if (!t->n_data || !t->out) usage_error("`train` needs --data and --out");
    if (!t->steps == !t->epochs || (t->epochs && t->grow_below > 0))
        usage_error("`train` needs either --steps or --epochs; --grow-below needs --steps");
    if (t->batch < 1) usage_error("--batch needs a number of at least 1");
    if (t->ema >= 1 || (float)t->adam_eps <= 0)
        usage_error("--ema needs a number below 1, and --adam-eps one above 0");
    if (t->epochs > 1000000) usage_error("--epochs needs a number up to 1000000");
}

// `train`: the objective is chosen here, by name, and turns triples into rows in rows_load(). The
// training loop never asks for it again.
static void run_train(const Options *o) {
    const TrainOptions *t = &o->train;
    const char *name = need_word(o, 1, "an objective: sft, warmup or aligner");
    Objective objective = is(name, "sft") ? sft : is(name, "warmup") ? warmup
                        : is(name, "aligner") ? aligner : NULL;
    if (!objective) usage_error("\"%s\": sft, warmup or aligner was expected", name);
    check_train_options(t);

    // The model first: its tokenizer and its template turn triples into rows.
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

/* ------------------------------------------------------------------------------------------------
   Commands that write text: `answer` and `correct`. Both reply to one --question, talk on a
   terminal, or work as a filter that reads and writes rows. */

// The models that reply, and their last reply: y_o is the answer that was corrected, y the reply.
// reason says why y is a copy of y_o or has no end, and is NULL otherwise.
typedef struct {
    Model m, pi;
    Generator g, upstream;              // of m; of pi, the upstream model, if there is one
    bool correcting, asked, copied;     // asked: y_o is the upstream model's; copied: y is y_o
    Buf y_o, y;
    const char *reason;
} Session;

// What a command does not use of it is 0.
static void session_free(Session *s) {
    generator_free(&s->g);
    generator_free(&s->upstream);
    model_free(&s->m);
    model_free(&s->pi);
    FREE(s->y_o.s, s->y.s);
}

// Answers x, or corrects y_o, into s->y. If y_o is empty and there is an upstream model, this is
// one draw from the composed policy of Eq. (2).
static void respond(Session *s, Text x, Text y_o) {
    s->asked = s->upstream.m && !y_o.n;
    buf_set(&s->y_o, y_o);
    if (!s->correcting) s->reason = answer(&s->g, x, &s->y);
    else if (s->asked) s->reason = composed_policy(&s->upstream, &s->g, x, &s->y_o, &s->y);
    else s->reason = correct(&s->g, x, y_o, &s->y);
    s->copied = s->correcting && same(contents(&s->y_o), contents(&s->y));
}

// One correction for a reader, on stdout: the diff, and below it the verdict, with the reason if
// there is one. NO_COLOR in the environment asks many programs for no colours.
static void show_correction(const char *label, const Session *s) {
    const bool color = isatty(1) && !getenv("NO_COLOR");
    fputs(label, stdout);
    show_diff(stdout, contents(&s->y_o), contents(&s->y), color);
    printf("%s%s%s%s%s\n", !color ? "" : s->copied ? "\x1b[2m" : "\x1b[1m",
           s->copied ? "copied" : "corrected", s->reason ? ": " : "", s->reason ? s->reason : "",
           color ? "\x1b[0m" : "");
}

// Adds a member to the inside of a JSON object: its value is raw JSON or, if raw is NONE, the text
// t as a string.
static void put_member(Buf *object, const char *name, Text raw, Text t) {
    buf_puts(object, object->n ? ", \"" : "\"");
    buf_puts(object, name);
    buf_puts(object, "\": ");
    if (raw.s) buf_add(object, raw.s, raw.n);
    else json_put(object, t);
}

// Writes one line: the members of object as they were written, but for the keys in drop (a list up
// to a NULL), and after them `more`.
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

// The row with an answer, or with a correction and an action ("copy" or "correct"). A copy is
// written as the answer was, byte for byte. An old reason that came with an old action or answer
// goes with it; one without is the user's and stays, unless this reply has its own. A bad row comes
// back with its reason, and counts as a copy.
static void print_reply(const Session *s, const Objects *in, bool good) {
    const char *key = s->correcting ? "correction" : "answer";
    const char *reason = good ? s->reason : in->reason;
    const bool asked = good && s->asked, copied = !good || s->copied;
    const bool drop_reason = reason || json_find(in->object, s->correcting ? "action" : key).s;
    const char *old = good ? key : "reason";            // a bad row keeps its other keys
    Buf more = { 0 };
    if (asked) put_member(&more, "answer", NONE, contents(&s->y_o));
    if (good)
        put_member(&more, key, copied && !asked ? json_find(in->object, "answer") : NONE,
                   contents(&s->y));
    if (s->correcting) put_member(&more, "action", NONE, text(copied ? "copy" : "correct"));
    if (reason) put_member(&more, "reason", NONE, text(reason));
    print_row(in->object, (const char *const[]){ old, s->correcting ? "action" : old,
                                                 drop_reason ? "reason" : old,
                                                 asked ? "answer" : old, NULL }, &more);
    free(more.s);
}

// A filter: one line for one, written before the next is read. Memory does not grow with the input,
// and a program at the other end of two pipes may wait for each reply. A bad row does not end the
// service unless --strict asks for that.
static void filter(Session *s, const Options *o) {
    Objects in;
    Triple t;
    const int keys = s->correcting ? NEED_X | NEED_Y_O : NEED_X;
    objects_open(&in, o->n_words > 2 ? o->word[2] : NULL);
    for (enum Status status; (status = next_row(&in, keys, &t)) != ROW_END; flush_results()) {
        const bool good = status == ROW_GOOD;
        CHECK(good || !o->strict, "%s: %s", in.path, in.reason);
        if (good) respond(s, t.x, t.y_o);
        if (good && o->diff) {
            put_line(stdout, "x    ", t.x);
            put_line(stdout, "y_o  ", contents(&s->y_o));
            show_correction("y_c  ", s);
            putchar('\n');
        } else {
            print_reply(s, &in, good);
        }
    }
    objects_close(&in);
}

// Reads a text from the terminal, up to an empty line: a question of several lines may be pasted.
// Control codes and escape sequences (an arrow key is ESC [ D) are dropped. The terminal itself
// cuts lines at 4,095 bytes; a message says so. False at the end of input.
static bool ask(const char *label, Buf *b) {
    char *line = NULL;
    size_t capacity = 0;
    ssize_t n;
    buf_set(b, text(""));
    fputs(label, stderr);
    while ((n = getline(&line, &capacity, stdin)) > 0 && strcspn(line, "\r\n")) {
        if (n >= 4095) fputs("(the terminal cuts lines at 4,095 bytes; use a file)\n", stderr);
        if (b->n) buf_puts(b, "\n");
        for (const char *p = line; p < line + n; p++) {
            if (*p == '\x1b' && (p[1] == '[' || p[1] == 'O'))
                p += 2 + strspn(p + 2, "0123456789;<=>?");
            else if (!is_control(*p) || *p == '\t') buf_add(b, p, 1);
        }
        fputs("             . ", stderr);
    }
    free(line);
    return n > 0 || b->n;
}

// On a terminal: a question, an answer (typed, or from the upstream model), and its correction,
// until Ctrl-D.
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
        else put_result(contents(&s->y));
        fflush(stdout);
    }
    fputc('\n', stderr);
    FREE(x.s, y_o.s);
}

// `answer` and `correct`. A reply to --question is the text alone or, with --diff, the diff and the
// verdict.
static void run_generate(const Options *o) {
    Session s = { .correcting = is(o->word[0], "correct") };
    const char *path = need_word(o, 1, "a model");
    const bool talks = !o->question && o->n_words < 3 && isatty(0) && isatty(1);
    const double start = seconds();
    if (o->question ? o->n_words > 2 || o->strict || (s.correcting && !o->answer) : !!o->answer)
        usage_error("--question goes with --answer in `correct`, and with no file or --strict");
    generator_load(&s.g, &s.m, path, s.correcting ? CORRECTOR : ANSWERER, o->how);
    if (o->upstream) generator_load(&s.upstream, &s.pi, o->upstream, ANSWERER, o->how);
    if (o->question) {
        respond(&s, text(o->question), text(s.correcting ? o->answer : ""));
        if (s.asked) put_line(stderr, "answer y_o   = ", contents(&s.y_o));
        if (o->diff) show_correction("", &s);
        else put_result(contents(&s.y));
        if (s.reason && !o->diff) fprintf(stderr, "aligner: %s\n", s.reason);
    } else if (talks) {
        converse(&s);
    } else {
        filter(&s, o);
        if (!o->train.quiet)
            fprintf(stderr, "%ld tokens, %ld of them copied from the draft, in %ld passes, "
                    "%.1f s\n", s.g.tokens, s.g.copied, s.g.passes, seconds() - start);
    }
    session_free(&s);
}

/* ------------------------------------------------------------------------------------------------
   Commands that look: `eval`, `sample`, `tokens`, `info`. */

// `eval`: the loss per target token. An Aligner also corrects each row, as `correct` would. A row
// should be copied if its gold correction equals its answer; otherwise it should be corrected. So
// an Aligner can fail in three ways: it changes what was good, it misses what was bad, or it
// corrects it wrongly. [0] counts the rows to correct, [1] the rows to copy.
static void run_eval(const Options *o) {
    Session s = { .correcting = true };
    Rows rows = { 0 };
    long n[2] = { 0 }, exact[2] = { 0 }, missed = 0, targets = 0;
    if (!o->train.n_data) usage_error("`eval` needs --data");
    generator_load(&s.g, &s.m, need_word(o, 1, "a model"), ANSWERER | CORRECTOR, o->how);
    const bool answers = role_of(&s.m) == ANSWERER;

    // Each row is kept for the loss. An Aligner corrects it at once.
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

    // Rates are shares of the rows to correct, or of those to copy.
    const double loss = mean_loss(&s.m, &rows);
    const double bad = fmax((double)n[0], 1), good = fmax((double)n[1], 1);
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
               "%6.2f %% wrong, %6.2f %% missed\n", n[1], 100.0 * (double)exact[1] / good, n[0],
               100.0 * (double)exact[0] / bad, 100.0 * (double)wrong / bad,
               100.0 * (double)missed / bad);
    rows_free(&rows);
    session_free(&s);
}

// `sample`: the model continues a text, without a prompt: any model that model_load() reads will
// do. Prints the text and what follows it, at most 256 tokens unless --max-tokens says otherwise.
static void run_sample(const Options *o) {
    Model m;
    Generator g;
    Ids ids = { 0 }, out = { 0 };
    model_load(&m, need_word(o, 1, "a model"));
    ids_add(&ids, BOS);
    encode(m.tokenizer, text(o->text ? o->text : ""), &ids);
    CHECK(ids.n <= m.c.context, "the text has %d tokens, the model's context is %d", ids.n,
          m.c.context);
    generator_init(&g, &m, o->how);
    if (!g.how.max_tokens) g.how.max_tokens = 256;
    generate(&g, &ids, NULL, 0, &out);
    for (int i = 0; i < out.n; i++) ids_add(&ids, out.a[i]);
    Buf all = decode_all(m.tokenizer, ids.a, ids.n);
    put_result(contents(&all));
    FREE(ids.a, out.a, all.s);
    generator_free(&g);
    model_free(&m);
}

// `tokens`: a text as the model sees it, one token a line: its id, a tab, and its piece as a JSON
// string. With --question it is a row, and a third column says condition or target. The row is the
// one that training would make of what is given: with a correction the Aligner's, with an answer
// the warm-up's (SFT's if the model answers), and with a question alone SFT's for an empty answer.
static void run_tokens(const Options *o) {
    Model m = { 0 };
    Row r;
    const char *path = need_word(o, 1, "a model or a tokenizer.bin"), *end = strrchr(path, '.');
    const char *prompt = o->train.prompt;
    if (!o->question == !o->text || (o->text && (o->answer || o->correction || prompt)))
        usage_error("`tokens` needs either --text alone or --question");
    if (end && is(end, ".bin")) m.tokenizer = tokenizer_load(path);
    else model_load(&m, path);
    if (prompt || !m.template) set_template(&m, prompt ? prompt : "default");
    if (o->question) {
        const char *y_o = o->answer ? o->answer : "", *y_c = o->correction ? o->correction : "";
        const bool answers = !o->answer || role_of(&m) == ANSWERER;
        const Objective objective = o->correction ? aligner : answers ? sft : warmup;
        r = objective(&m, (Triple){ text(o->question), text(y_o), text(y_c) });
    } else {
        r = make_row(&m, (Buf){ copy_text(text(o->text)), strlen(o->text), 0 }, NONE);
        r.n--;                                          // a text has no </s>
    }

    // A piece may hold quotes, newlines or half a character: JSON shows all of them.
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

// `info`: what is in a model file: its shape and size, what it was trained for, and its prompt.
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
   Options.  One table says which options there are and which commands take them; tests/lab.c adds a
   second one. A value is stored where p points, so only the table knows all of them. */

// p points to an int (FLAG, INT), a long, a double, or else a const char *; INPUTS fills the list
// of --data. commands: the names of those that take it, or NULL for all. help: what --help says.
enum Kind { FLAG, INT, LONG, REAL, STRING, INPUT, OUTPUT, INPUTS };
typedef struct { const char *name; enum Kind kind; void *p; const char *commands, *help; } Option;

#define T(member) &options.train.member
#define HOW(member) &options.how.member
#define GENERATES "answer correct sample"
static const Option OPTION[] = {
    { "--data", INPUTS, T(data), "tokenizer train eval", "rows (JSONL); - is standard input" },
    { "--out", OUTPUT, T(out), "tokenizer train", "the file to write" },
    { "--prompt", STRING, T(prompt), "tokenizer train tokens",
      "default, v1, v2, paper, short, or a text with {question} and {answer}" },
    { "--vocab", INT, &options.vocab, "tokenizer", "the most pieces it may learn" },
    { "--init", INPUT, T(init), "train", "the model to begin with, or:" },
    { "--tokenizer", INPUT, T(tokenizer), "train", "begin with a new model of this shape:" },
    { "--dim", INT, T(dim), "train", "default 128" },
    { "--layers", INT, T(layers), "train", "default 3" },
    { "--heads", INT, T(heads), "train", "default 8" },
    { "--kv-heads", INT, T(kv_heads), "train", "default: as many as --heads" },
    { "--hidden", INT, T(hidden), "train", "default: 11/4 of --dim" },
    { "--context", INT, T(context), "train", "tokens of the longest row, default 256" },
    { "--tied", FLAG, T(tied), "train", "the head is the embedding matrix" },
    { "--steps", LONG, T(steps), "train", "how long to train, or:" },
    { "--epochs", LONG, T(epochs), "train", "how often each row is seen" },
    { "--batch", LONG, T(batch), "train", "rows per step, default 16, or:" },
    { "--tokens", LONG, T(tokens), "train", "tokens per step, at most" },
    { "--lr", REAL, T(lr), "train", "the peak of the learning rate, default 1e-3" },
    { "--lr-warmup", REAL, T(lr_warmup), "train", "share of the steps before it, default 0.03" },
    { "--weight-decay", REAL, T(weight_decay), "train", "default 0" },
    { "--clip", REAL, T(clip), "train", "largest norm of a gradient, default 1; 0: no limit" },
    { "--adam-eps", REAL, T(adam_eps), "train", "default 1e-8; 1e-4 spares rare embeddings" },
    { "--muon", REAL, T(muon), "train", "Muon for the layers' matrices, at X times the rate" },
    { "--ema", REAL, T(ema), "train", "save the mean weights of about the last 1 / (1 - X) steps" },
    { "--grow-below", REAL, T(grow_below), "train",
      "short rows first: targets double in length when the running loss falls below X" },
    { "--valid", INPUT, T(valid), "train", "rows to validate on" },
    { "--log", OUTPUT, T(log), "train", "a CSV file with one line per step" },
    { "--save-every", LONG, T(save_every), "train", "steps between checkpoints" },
    { "--resume", FLAG, T(resume), "train", "continue from the last one (same command; --threads,\n"
      "        --steps, --save-every, --log, --valid, --keep and --quiet may differ)" },
    { "--seed", LONG, T(seed), "train " GENERATES, "of the random numbers, default 1" },
    { "--keep", REAL, HOW(keep), "train correct eval",
      "y_o stays unless y_c is e^X times as likely; train writes X into the model" },
    { "--temperature", REAL, HOW(temperature), GENERATES, "default 0: the likeliest token" },
    { "--top-k", INT, HOW(top_k), GENERATES, "draw from the N likeliest tokens only" },
    { "--top-p", REAL, HOW(top_p), GENERATES, "draw from the fewest that hold this share" },
    { "--frequency-penalty", REAL, HOW(frequency_penalty), GENERATES, "on each token, default 0" },
    { "--max-tokens", INT, HOW(max_tokens), GENERATES, "the most tokens to write" },
    { "--no-draft", FLAG, HOW(no_draft), "correct", "write without a draft: slower, same text" },
    { "--upstream", INPUT, &options.upstream, "correct", "a model that replaces empty answers" },
    { "--diff", FLAG, &options.diff, "correct", "show what changed" },
    { "--strict", FLAG, &options.strict, "answer correct", "stop at the first bad row" },
    { "--question", STRING, &options.question, "answer correct tokens", "one, instead of a file" },
    { "--answer", STRING, &options.answer, "correct tokens", "its answer" },
    { "--correction", STRING, &options.correction, "tokens", "its correction" },
    { "--text", STRING, &options.text, "sample tokens", "a text" },
    { "--json", FLAG, &options.json, "eval", "print the result as JSON" },
    { "--threads", INT, &options.threads, NULL, "default: all there are" },
    { "--quiet", FLAG, T(quiet), NULL, "no progress" },
    { NULL, FLAG, NULL, NULL, NULL } };

// words: how many it takes, itself included; first_file: the first of them that is a file. A
// command also takes the options of the command named by `like`.
typedef struct {
    const char *name, *like;
    int words, first_file;
    void (*run)(const Options *);
    const char *help;
} Command;

// No command's name is part of another's, so strstr() finds whole words.
static bool takes(const Command *c, const Option *o) {
    return !o->commands || strstr(o->commands, c->name) ||
           (c->like && strstr(o->commands, c->like));
}

// --help: all commands, or the command called name with its options. table is a list of option
// tables up to a NULL; a table ends with an option without a name.
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
    if (!name) printf("COMMAND --help lists its options. Exit 1: bad input, 2: bad usage.\n");
    flush_results();
}

// 0 for equal names, otherwise minus the number of letters that belong neither to a common
// beginning nor to a common end.
static int likeness(const char *a, const char *b) {
    int n = (int)strlen(a), m = (int)strlen(b), begin = 0, end = 0;
    while (begin < least(n, m) && a[begin] == b[begin]) begin++;
    while (begin + end < least(n, m) && a[n - 1 - end] == b[m - 1 - end]) end++;
    return 2 * (begin + end) - n - m;
}

// The option of command c with this name. One that does not exist, or that would have no effect, is
// a mistake; the message offers the nearest name that c takes.
static const Option *find_option(const Option *const *table, const Command *c, const char *name) {
    const Option *best = NULL;
    for (; *table; table++)
        for (const Option *o = *table; o->name; o++)
            if (takes(c, o) && (!best || likeness(o->name, name) > likeness(best->name, name)))
                best = o;
    if (!is(best->name, name))
        usage_error("`%s` has no option %s; did you mean %s?", c->name, name, best->name);
    return best;
}

// The command with this name; a wrong one is met with the nearest that exists.
static const Command *find_command(const Command *c, const char *name) {
    const Command *best = c;
    for (; c->name; c++)
        if (likeness(c->name, name) > likeness(best->name, name)) best = c;
    if (!is(best->name, name))
        usage_error("there is no command \"%s\"; did you mean %s?", name, best->name);
    return best;
}

// The files that a run reads and writes, by device and inode: hard links, symbolic links and
// redirections are seen through. A file that does not exist yet is known by its folder's inode and
// its name there. Terminals and pipes are never one file with another.
static struct NamedFile { const char *path, *name; bool output; struct stat s; } named_file[64];
static int n_named_files;

// Notes a file, and refuses it if this run reads and writes it, or writes it twice. Nothing else
// protects input from output. fd is -1, or where the file is open already.
static void name_file(const char *path, bool output, int fd) {
    if (n_named_files == 64 || !*path || !strncmp(path, "--", 2))
        usage_error("\"%s\" is no name of a file, or one too many", path);
    struct NamedFile *f = &named_file[n_named_files++];
    *f = (struct NamedFile){ .path = path, .name = "", .output = output };
    if (fd < 0 ? stat(path, &f->s) : fstat(fd, &f->s)) {
        const char *slash = strrchr(path, '/');
        char folder[4096];
        f->name = slash ? slash + 1 : path;
        snprintf(folder, sizeof folder, "%.*s.", (int)(f->name - path), path);
        stat(folder, &f->s);
    }
    for (const struct NamedFile *a = named_file; a < f; a++) {
        const bool one = is(f->name, a->name) && f->s.st_dev == a->s.st_dev &&
                         f->s.st_ino == a->s.st_ino &&
                         (S_ISREG(f->s.st_mode) || S_ISDIR(f->s.st_mode));
        CHECK(!one || !(f->output || a->output), "%s and %s are the same file, as both input and "
              "output or as two outputs; name another", f->path, a->path);
    }
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
    else if (number) *(int *)o->p = (int)x;
    else if (o->kind != INPUTS) *(const char **)o->p = s;
    else if (options.train.n_data < 16) options.train.data[options.train.n_data++] = s;
    else usage_error("%s takes at most 16 files", o->name);
}

// Reads words and options of command c from argv[1 ..], up to its NULL. Words may come before,
// between and after options; --key=value is --key value. --data takes all words that follow it,
// up to the next option.
static void parse_options(const Option *const *table, const Command *c, char **argv) {
    TrainOptions *t = &options.train;
    const Option *list = NULL;                          // --data, as long as words follow
    options.n_words = 0;
    for (char **arg = argv + 1; *arg; arg++) {
        const bool word = **arg != '-' || is(*arg, "-");
        if (word && list) {
            set_option(list, *arg);
        } else if (word) {
            if (options.n_words == c->words)
                usage_error("`%s`: \"%s\" is one word too many", c->name, *arg);
            if (options.n_words >= c->first_file && !is(*arg, "-")) name_file(*arg, false, -1);
            options.word[options.n_words++] = *arg;
        }
        if (word) continue;

        // An option. Its value follows = or is the next argument; a flag has none and becomes 1.
        char *equals = strchr(*arg, '=');
        if (equals) *equals = 0;
        const Option *o = find_option(table, c, *arg);
        if (o->kind == FLAG && equals) usage_error("%s takes no value", o->name);
        const char *value = o->kind == FLAG ? "1" : equals ? equals + 1 : *++arg;
        if (!value) usage_error("%s needs a value", o->name);
        set_option(o, value);
        list = o->kind == INPUTS ? o : NULL;
    }

    // Options that depend on each other.
    const Decoding *how = &options.how;
    if (how->top_p > 1 || (!how->temperature && (how->top_k || how->top_p < 1)))
        usage_error("--top-p needs a number up to 1, and like --top-k a --temperature above 0");
    if (t->batch > 0 && t->tokens) usage_error("--batch and --tokens exclude each other");
    if (t->batch < 0) t->batch = 16;
    options.how.seed = (uint64_t)t->seed;
    t->keep = options.how.keep;
}

static const Command COMMAND[] = {
    { "tokenizer", NULL, 1, 1, run_tokenizer, "--data F... --vocab N --out T: learns a tokenizer" },
    { "train", NULL, 2, 2, run_train, "sft|warmup|aligner --init M --data F... --steps N --out M" },
    { "answer", NULL, 3, 1, run_generate, "M [F]: adds an answer to each row" },
    { "correct", NULL, 3, 1, run_generate, "M [F]: adds a correction and an action to each row" },
    { "eval", NULL, 2, 1, run_eval, "M --data F...: the loss; corrections compared with gold" },
    { "sample", NULL, 2, 1, run_sample, "M --text S: continues a text" },
    { "tokens", NULL, 2, 1, run_tokens, "M --text S: the tokens of a text or a row" },
    { "info", NULL, 2, 1, run_info, "M: what is in a model file" },
    { NULL, NULL, 0, 0, NULL, NULL } };

// Finds the command, reads its options, and runs it. `command` is a list up to one without a name,
// `tables` one up to a NULL. A stream that the caller has closed is replaced by /dev/null, opened
// for reading: no file of ours becomes descriptor 0, 1 or 2, and a result that cannot be written
// fails instead of vanishing.
static int run_command(const Command *command, const Option *const *tables, int argc, char **argv) {
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDONLY) < 0) return 1;
    for (int i = 1; i < argc; i++) {
        if (is(argv[i], "--version")) return puts("aligner.c 2.0") < 0 || fflush(stdout);
        if (!is(argv[i], "--help") && !is(argv[i], "-h")) continue;
        show_help(command, tables, i > 1 ? find_command(command, argv[1])->name : NULL);
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
    if (options.train.out && takes(c, &(Option){ .commands = "train" }))
        name_file(with_ending(options.train.out, STATE).s, true, -1);

    // Outputs are tried before any work is done. Their temporary files must not be inputs either.
    // Files 0 and 1 are the standard streams.
    for (int i = 2, n = n_named_files; i < n; i++) {
        if (!named_file[i].output) continue;
        name_file(with_ending(named_file[i].path, TEMPORARY).s, true, -1);
        check_writable(named_file[i].path);
    }
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
