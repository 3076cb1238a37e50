/* lab.c: what the paper compares an Aligner with, and instruments that look inside one.

   It includes aligner.c and adds commands to it, with options in a second table. You need nothing
   of this to train or use an Aligner, and each chapter can be read by itself:

       1 preferences   dpo, reward, rlhf: the methods that change the upstream model itself
       2 Eq. (3)       bound: both sides of it, answer by answer
       3 steering      steer: "copy or correct" as a direction of the residual stream
       4 rows          loglik and score: a number for each row of a file
       5 speed         bench: how fast, compared with what the machine can do
       6 memory        memory: what a training run will need
       7 command line  `build/lab --help` lists them

   A session, with the models that ./train.sh leaves in build/models and rows in F:

       lab dpo    --init upstream.gguf --data F --out dpo.gguf --steps 500 --beta 0.1
       lab reward --init upstream.gguf --data F --out reward.gguf --steps 500
       lab rlhf   --init upstream.gguf --reward reward.gguf --data F --out rlhf.gguf --steps 200
       lab score  reward.gguf F                     is the correction better than the answer?
       lab bound  upstream.gguf aligner.gguf --data F --json
       lab steer  aligner.gguf --data F --valid G   fitted to F, measured on G
       lab bench  train small

   In `rlhf`, --kl is the leash: with 0 the policy finds whatever the reward model likes, however
   odd (Goodhart's law); with a large value it stays where it was. --beta does the same in `dpo`.

   The policies are aligner.c's: the same seed gives the same bits on any number of threads, files
   are hostile, and a message says what was expected, what was found and what to do. */

#ifndef TEST_H                          // tests/test.h has included it already
#include "../aligner.c"
#endif

// What a model prefers by itself: no sampling, and no --keep.
static const Decoding GREEDY = { .top_p = 1 };

/* ================================================================================================
   1. Preferences.  What the paper compares the Aligner with: DPO, a reward model, RLHF. DPO and
   RLHF change the upstream model itself, so each upstream model needs a run of its own. The paper
   cites their equations without printing them:

       dpo      Rafailov et al. 2023 (arXiv 2305.18290), Eq. (7) there
       reward   Bradley and Terry 1952, as in Ouyang et al. 2022 (arXiv 2203.02155), Eq. (1) there
       rlhf     Ouyang et al. 2022, Eq. (2) there without its pretraining term: the reward less a
                multiple of KL. The estimator is that of Williams 1992 (REINFORCE), with a
                leave-one-out baseline (Kool et al. 2019); Ahmadian et al. 2024 (arXiv 2402.14740)
                use both instead of PPO (Schulman et al. 2017, arXiv 1707.06347). PPO uses a set of
                answers for several steps and clips the ratio of new to old probability. Here each
                set serves one step, so the ratio is 1 and a clip would never act.

   Preferences come from the same triples: y_c is preferred to y_o. backward() stays the same. All
   that it sees of a loss is a weight for each target: the derivative of the loss with respect to
   that target's own nll = - log p(target).

       objective   loss                                           weight of a target's nll
       sft         mean of all nll                                1 / targets
       dpo         - log sigmoid(margin),                         beta sigmoid(-margin) / pairs
                   margin = v(y_c) - v(y_o),                      in y_c, minus that in y_o
                   v(y) = beta log(pi(y | x) / ref(y | x))
       reward      - log sigmoid(r(y_c) - r(y_o))                 none: the gradient is in one logit
       rlhf        - E R,                                         (R - mean R of the others)
                   R = r(y) - kl log(pi(y | x) / ref(y | x))      / answers

   DPO's v comes from the policy that maximises E r - beta KL(pi || ref). That policy is known:

       pi(y | x) = ref(y | x) exp(r(x, y) / beta) / Z(x)

   So r(x, y) = beta log(pi(y | x) / ref(y | x)) + beta log Z(x). Bradley-Terry only compares two
   answers to one question, so log Z(x) cancels, and a policy is its own reward model. DPO and RLHF
   aim at the same policy; RLHF gets there through a reward model and draws of its own.

   Memory, apart from activations. Adam needs 16 bytes for each trained parameter either way. Mixed
   precision has 2 for the weight, 2 for its gradient, and 4 each for a master copy and two moments;
   this file has 4 each for the weight, its gradient and two moments. A frozen parameter costs 2
   bytes there and 4 here. In bytes per parameter, if all models have the same size:

                    models                                   mixed precision   here
       sft          1   policy                               16                16
       aligner      1   Aligner (upstream stays on disk)     16                16
       dpo          2   policy; reference                    16 + 2 = 18       16 + 4 = 20
       rlhf, PPO    4   actor, critic; reward, reference     32 + 4 = 36       -
       rlhf here    3   policy; reward, reference            16 + 4 = 20       16 + 8 = 24, and 4
                                                             for the copy used in generation

   18 / 16 = 1.125 and 36 / 16 = 2.25 are the paper's factors for models of one size (p. 2-4; it
   prints no formula, so this is a reconstruction). There is no critic here: the other answers to
   a question take its place. */

enum { REWARD = UNK };                  // the token whose logit is the reward
#define NOT_A_JUDGE "%s is not a reward model; `lab reward` makes one"
static const double NO_END = 1;         // rlhf: subtracted from the reward if an answer has no end

// A run, and what else these objectives need. run comes first, so a hook, which is given
// the address of a Run, also has that of its Trial.
typedef struct {
    Run run;
    Model reference, reward;            // frozen; empty if the objective has none
    Model actor;                        // rlhf: the trained weights, packed for generation
    Generator writer;                   // rlhf: what writes with them
    Rows all, all_valid;                // pairs: row 2 i is preferred to row 2 i + 1; or questions
    Rows rows, valid;                   // what the run draws: the preferred rows, or the questions
    int T, longest;                     // room: tokens of a batch, of one row
    Batch batch, judged;                // what is computed at once; rlhf: what is given a reward
    double *nll, *nll_ref;              // [T] - log p(y | x) of each row: policy, reference
    double *value, *weight;             // [T] what is compared; the loss's derivative by nll
    int *ids;                           // [longest + 2] rlhf: a row made of an answer
    Ids answer;                         // rlhf: an answer that is being written
    double beta, kl;                    // DPO's and RLHF's strength of the leash to the reference
    int samples, max_tokens;            // rlhf: answers to a question; draws of each, 0: what fits
    double ranked;                      // share of the last pairs that are in the right order
    double mean_reward, mean_kl;        // rlhf: running means; a resumed run starts them again
    long sets;                          // rlhf: how many sets of answers are in these means
} Trial;

// The reward model is an ordinary llama in an ordinary file: with an extra tensor, other
// programs could not read it. A scalar head is a vector w with r = w . h. The head's row
// for <unk> is such a vector, and it is free: no text has an <unk>, so nothing else needs
// its logit. r is read at </s>, when the whole answer has been seen:
//
//     ids      <s> condition y_1 ... y_n </s> | <unk>        one position whose logits are wanted
//
// Only differences of r mean something; its zero does not.
static Row judged_row(const Model *m, Triple t) {
    Row r = sft(m, t);
    Ids ids = { r.ids, r.n, 0 };
    ids_add(&ids, REWARD);              // cap 0: the ids move to a place with room for one more
    return (Row){ ids.a, r.n, ids.n };
}

// The question alone, for rlhf: the model writes the answers.
static Row question_row(const Model *m, Triple t) {
    return make_row(m, prompt(m, t.x, NONE), NONE);
}

// The reward of row i in the last pass.
static double reward_of(const Model *m, int i) {
    return (double)m->acts.logits[(size_t)i * (size_t)m->c.V + REWARD];
}

// Reads questions or pairs. In a pair, row 2 i is made from (x, y_c, y_c) and row 2 i + 1
// from the triple itself:
//
//     build          row 2 i                       row 2 i + 1
//     sft            x | y_c                       x | y_o                      for dpo
//     judged_row     x y_c | <unk>                 x y_o | <unk>                for reward
//     aligner        x y_c | y_c  (a copy)         x y_o | y_c  (a correction)  for steer
//
// If y_o is y_c, there is no preference and the triple is left out. Unusable rows are
// counted, and objects_close() names the first.
static void pairs_load(Rows *all, const Model *m, const char *path, Objective build) {
    const bool pairs = build != question_row;
    const int room = m->c.context - (pairs ? 0 : 2);    // after a question: a token and </s>
    Objects in;
    Triple t;
    objects_open(&in, path);
    while (next_good_row(&in, pairs ? NEED_X | NEED_Y_O | NEED_Y_C : NEED_X, &t)) {
        Row a = { 0 }, b = { 0 };
        const char *reason = pairs && same(t.y_o, t.y_c) ? "the correction is the answer"
                           : pairs && !t.y_c.n ? "the correction is empty" : NULL;
        if (!reason) a = build(m, pairs ? (Triple){ t.x, t.y_c, t.y_c } : t);
        if (!reason && pairs) b = build(m, t);
        if (a.n - 1 > room || b.n - 1 > room) reason = "longer than the model's context";
        if (reason) {
            skip_row(&in, reason);
            FREE(a.ids, b.ids);
            continue;
        }
        rows_add(all, a);
        if (pairs) rows_add(all, b);
    }
    objects_close(&in);
}

// sum[e] = - log p(y | x) of each row e of b: the sum over its targets. The gradient of the
// total takes the place of the logits; weigh() turns it into that of sum_e weight[e]
// sum[e].
static void sequence_nll(Model *m, const Batch *b, double *sum) {
    forward(m, b, NULL);
    cross_entropy(m, b, 1);
    for (int e = 0, i = 0; e < b->n; e++) {             // the targets of row e are neighbours
        sum[e] = 0;
        for (; i < b->n_out && b->out[i] < b->start[e + 1]; i++) sum[e] += m->acts.nll[i];
    }
}

// The chain rule: the loss depends on the logits of row e only through sum[e], and
// weight[e] is the derivative of the loss with respect to sum[e]. A negative weight makes a
// row less likely.
static void weigh(Model *m, const Batch *b, const double *weight) {
    const size_t V = (size_t)m->c.V;
    for (int e = 0, i = 0; e < b->n; e++)
        for (; i < b->n_out && b->out[i] < b->start[e + 1]; i++)
            for (size_t j = 0; j < V; j++) m->acts.logits[(size_t)i * V + j] *= (float)weight[e];
}

// What the pairs in x->batch add to the mean loss of n_pairs pairs, for dpo and for reward;
// the gradient takes the place of the logits. *right counts the pairs in the right order.
//
//     d/dmargin (- log sigmoid(margin)) = - sigmoid(-margin)
//
// So a pair in the wrong order pushes with full strength, and one that is in the right
// order by a wide margin hardly pushes at all. For dpo the margin depends on all targets of
// both rows, through v; for reward it depends on one logit of each.
static double pair_unit(Trial *x, int n_pairs, double *right) {
    Model *m = x->run.model;
    const Batch *b = &x->batch;
    const bool dpo = x->reference.params != NULL;
    const size_t ld = (size_t)m->c.V;
    double loss = 0;
    if (dpo) sequence_nll(&x->reference, b, x->nll_ref);
    if (dpo) sequence_nll(m, b, x->nll);
    else forward(m, b, NULL);

    // What a pair compares: DPO's implicit reward v, or the reward model's r.
    for (int e = 0; e < b->n; e++)
        x->value[e] = dpo ? x->beta * (x->nll_ref[e] - x->nll[e]) : reward_of(m, e);
    for (int e = 0; e < b->n; e += 2) {
        double margin = x->value[e] - x->value[e + 1], push = 1 / (1 + exp(margin)) / n_pairs;
        loss += log1p(exp(-fabs(margin))) + fmax(-margin, 0);   // - log sigmoid, without overflow
        *right += margin > 0;
        x->weight[e] = dpo ? x->beta * push : -push;
        x->weight[e + 1] = -x->weight[e];
    }

    // The gradient: of all targets for dpo, of one logit of each row for reward.
    if (dpo) weigh(m, b, x->weight);
    for (int e = 0; !dpo && e < b->n; e++) {
        memset(m->acts.logits + (size_t)e * ld, 0, ld * sizeof(float));
        m->acts.logits[(size_t)e * ld + REWARD] = (float)x->weight[e];
    }
    return loss / n_pairs;
}

// The mean loss of n pairs of `all`: the drawn ones, with their gradients, or, if `drawn`
// is NULL, the first n. A unit has as many whole pairs as fit into it, at least one. A
// drawn row is the preferred one of its pair; its index in x->rows is the pair's index in
// `all`.
static double pairs_loss(Trial *x, const Rows *all, const Row *const *drawn, int n) {
    Batch *b = &x->batch;
    double loss = 0, right = 0;
    acts_reserve(x->run.model, x->T, x->T, x->longest, true);
    for (int i = 0; i < n; ) {
        batch_clear(b);
        for (; i < n; i++) {
            const Row *pair = all->row + 2 * (drawn ? drawn[i] - x->rows.row : i);
            if (b->n && b->T + pair[0].n + pair[1].n - 2 > UNIT) break;
            batch_add(b, &pair[0]);
            batch_add(b, &pair[1]);
        }
        loss += pair_unit(x, n, &right);
        if (!drawn) continue;
        backward(x->run.model, b);
        x->run.p.tokens += b->T;
        x->run.p.targets += b->n_out;
    }
    x->ranked = right / n;
    return loss;
}

// One step's loss of dpo and reward.
//
// Exercise: the reference is frozen, so its log p of each row could be computed once,
// before the loop, and the model closed. DPO would then keep one model in memory instead of
// two. What would that cost? Why does it not work for rlhf?
static double pairs_step(Run *run) {
    Trial *x = (Trial *)run;
    return pairs_loss(x, &x->all, run->drawn, draw_rows(run));
}

// The loss of all validation pairs; x->ranked then holds the share in the right order.
static double pairs_validate(Run *run) {
    Trial *x = (Trial *)run;
    return pairs_loss(x, &x->all_valid, NULL, (int)x->valid.n);
}

// Adds an answer y[n] to the question q to the policy's batch and, always with its </s>, to
// the reward model's. If the answer has no end, </s> was not drawn and is not a target;
// value then starts with the penalty.
static void add_answer(Trial *x, const Row *q, const int *y, int n, bool ended) {
    const int c = q->n_condition;
    memcpy(x->ids, q->ids, (size_t)c * sizeof *y);
    memcpy(x->ids + c, y, (size_t)n * sizeof *y);
    x->ids[c + n] = EOS;
    x->ids[c + n + 1] = REWARD;
    x->value[x->batch.n] = ended ? 0 : -NO_END;
    batch_add(&x->batch, &(Row){ x->ids, c, c + n + ended });
    batch_add(&x->judged, &(Row){ x->ids, c + n + 1, c + n + 2 });
}

// Draws answers y ~ pi(. | x) to one question, at temperature 1 and with nothing cut off:
// anything else would estimate the gradient of another policy. An answer has at most N
// draws, and </s> is one. generate() would look one token beyond max_tokens, so the actor's
// context sets N instead.
static void draw_answers(Trial *x, const Row *q, uint64_t seed) {
    Ids condition = { q->ids, q->n_condition, 0 };
    int N = x->run.model->c.context - q->n_condition - 1;
    if (x->max_tokens && x->max_tokens < N) N = x->max_tokens;
    x->actor.c.context = q->n_condition + N - 1;
    x->writer.how.seed = seed;
    batch_clear(&x->batch);
    batch_clear(&x->judged);
    for (int i = 0; i < x->samples; i++) {
        x->answer.n = 0;
        bool ended = generate(&x->writer, &condition, NULL, 0, &x->answer);
        add_answer(x, q, x->answer.a, x->answer.n, ended);
    }
}

// - mean R of the answers in x->batch, all to one question; the estimated gradient, times
// scale, takes the place of the logits. Because grad pi = pi grad log pi,
//
//     grad E R = grad sum_y pi(y | x) R(y) = E R grad log pi(y | x)
//
// R itself contains log pi, but that adds nothing: E grad log pi = grad sum_y pi = grad 1 =
// 0. For the same reason a baseline that does not depend on y may be subtracted from R. It
// leaves the mean of the estimate unchanged and reduces its variance. The mean R of the
// other answers is such a baseline: an answer that is better than its siblings becomes
// likelier, a worse one less likely. With scale 0 nothing is learnt, and the running means
// remain those of training.
static double answers_loss(Trial *x, double scale) {
    Model *m = x->run.model;
    const int k = x->batch.n;
    double sum = 0, kl = 0, reward = 0;
    acts_reserve(m, x->T, x->T, x->longest, true);
    sequence_nll(m, &x->batch, x->nll);
    sequence_nll(&x->reference, &x->batch, x->nll_ref);
    forward(&x->reward, &x->judged, NULL);

    // R of each answer: its reward, less the cost of leaving the reference.
    for (int e = 0; e < k; e++) {
        double log_ratio = x->nll_ref[e] - x->nll[e];   // KL is its mean over all answers
        x->value[e] += reward_of(&x->reward, e);
        reward += x->value[e];
        kl += log_ratio;
        x->value[e] -= x->kl * log_ratio;
        sum += x->value[e];
    }

    // The gradient, with the mean R of the k - 1 others as the baseline.
    for (int e = 0; e < k; e++)
        x->weight[e] = (x->value[e] - (sum - x->value[e]) / (k - 1)) * scale / k;
    if (scale == 0) return -sum / k;                    // validation
    weigh(m, &x->batch, x->weight);
    const double rate = x->sets++ ? 0.05 : 1;           // as the running loss
    x->mean_reward += rate * (reward / k - x->mean_reward);
    x->mean_kl += rate * (kl / k - x->mean_kl);
    return -sum / k;
}

// The actor writes with the weights that the model has now. In validation with --ema these
// are the mean weights: what is validated is what is saved.
static void update_actor(Trial *x) {
    x->actor.params = x->run.model->params;
    x->actor.w = x->run.model->w;
    model_pack(&x->actor);
}

// One step's loss of rlhf: o->batch questions, some answers to each. Gradients add up from
// question to question, so memory holds the answers to only one. The seed of the draws
// depends only on run, step and question, so a resumed run draws the same.
static double rlhf_step(Run *run) {
    Trial *x = (Trial *)run;
    const int n = draw_rows(run);
    uint64_t seed = (uint64_t)run->o->seed * 1000003u + (uint64_t)run->p.step;
    double loss = 0;
    update_actor(x);
    for (int i = 0; i < n; i++) {
        draw_answers(x, run->drawn[i], random_u64(&seed));
        loss += answers_loss(x, 1.0 / n) / n;
        backward(run->model, &x->batch);
        run->p.tokens += x->batch.T;
        run->p.targets += x->batch.n_out;
    }
    return loss;
}

// The same for the validation questions, with draws that are the same each time.
static double rlhf_validate(Run *run) {
    Trial *x = (Trial *)run;
    double sum = 0;
    update_actor(x);
    for (size_t i = 0; i < run->valid->n; i++) {
        draw_answers(x, &run->valid->row[i], i);
        sum += answers_loss(x, 0);
    }
    return sum / (double)run->valid->n;
}

// Sizes and allocates what a trial needs, once its rows and models are known. Both rows of
// a pair, or all answers to a question, are computed at once, so a batch may be larger than
// UNIT. The actor shares the weights of the trained model and has activations of its own;
// otherwise training and generation would have to allocate theirs in turn.
static void trial_init(Trial *x) {
    Model *m = x->run.model;
    const int k = x->samples, most = m->c.context;
    int longest = unit_size(&x->all, &x->all_valid);    // of the rows, at least UNIT
    if (k) longest = x->max_tokens && x->max_tokens < most ? longest + x->max_tokens + 2 : most;
    x->longest = least(longest, most);
    x->T = k ? k * x->longest : 2 * x->longest > UNIT ? 2 * x->longest : UNIT;
    batch_alloc(&x->batch, x->T, x->T);
    double **array[] = { &x->nll, &x->nll_ref, &x->value, &x->weight };
    for (int i = 0; i < 4; i++) *array[i] = zalloc((size_t)x->T, sizeof(double));
    if (x->reference.params) acts_reserve(&x->reference, x->T, x->T, x->longest, false);
    if (!k) return;

    // rlhf: room for the reward model's rows, which are a token longer, and for the actor.
    batch_alloc(&x->judged, x->T + k, k);
    acts_reserve(&x->reward, x->T + k, k, x->longest, false);
    x->ids = ints(x->longest + 2);
    x->actor = *m;
    x->actor.angle = NULL;
    x->actor.n_angles = 0;
    x->actor.panels = NULL;
    x->actor.packed.layer = zalloc((size_t)m->c.L, sizeof *x->actor.packed.layer);
    x->actor.acts = (Acts){ .layer = zalloc((size_t)m->c.L, sizeof *x->actor.acts.layer) };
    generator_init(&x->writer, &x->actor, (Decoding){ .temperature = 1, .top_p = 1 });
}

// What the actor shares is not freed here, nor are the ids of x->rows and x->valid. The
// trained model stays the caller's.
static void trial_free(Trial *x) {
    if (x->writer.m) generator_free(&x->writer);
    if (x->actor.params)
        FREE(x->actor.angle, x->actor.panels, x->actor.packed.layer, x->actor.acts.layer,
             x->actor.acts.memory, x->actor.acts.nll);
    FREE(x->rows.row, x->valid.row, x->nll, x->nll_ref, x->value, x->weight, x->ids, x->answer.a);
    rows_free(&x->all);
    rows_free(&x->all_valid);
    batch_free(&x->batch);
    batch_free(&x->judged);
    model_free(&x->reference);
    model_free(&x->reward);
    *x = (Trial){ 0 };
}

// Loads a frozen model. These models exchange ids, not text: they must share vocabulary and
// prompt, and have at least as much context as the model m that is trained.
static void load_other(Model *other, const Model *m, const char *path, bool judges) {
    model_load(other, path);
    const int role = role_of(other);
    CHECK(judges ? role == JUDGE : !(role & (CORRECTOR | JUDGE)), judges ? NOT_A_JUDGE : "%s does "
          "not answer questions; a model that does was expected", path);
    bool same_pieces = other->c.V == m->c.V;
    for (int i = 0; i < m->c.V && same_pieces; i++)
        same_pieces = same(other->tokenizer->piece[i], m->tokenizer->piece[i]);
    CHECK(same_pieces, "%s: another vocabulary than that of the model to be trained; make both "
          "with one tokenizer", path);
    CHECK(other->template && is(other->template_sft, m->template_sft), "%s: another prompt than "
          "that of the model to be trained; train both with the same --prompt", path);
    CHECK(other->c.context >= m->c.context, "%s: its context has %d tokens; the model to be "
          "trained has %d, and needs as many here", path, other->c.context, m->c.context);
}

// What this file's options set, in addition to `options`; these are the defaults.
static struct {
    const char *reference, *reward, *target, *alpha;
    double beta, kl;
    int samples, layer;
} lab = { .alpha = "-1,-0.75,-0.5,-0.25,0,0.25,0.5,0.75,1", .beta = 0.1, .kl = 0.02, .samples = 4 };

// What decides a trial's result apart from what run_hash() covers: the two leashes, what is
// drawn, the frozen models, and the rows that are not drawn by themselves. --resume refuses
// another hash.
static uint64_t trial_hash(const Trial *x) {
    const Model *other[] = { &x->reference, &x->reward };
    const double numbers[] = { x->beta, x->kl, x->samples, x->max_tokens, x->reference.c.eps,
                               x->reference.c.theta, x->reward.c.eps, x->reward.c.theta };
    uint64_t h = hash_bytes(1, numbers, sizeof numbers);
    for (int i = 0; i < 2; i++)
        h = hash_bytes(h, other[i]->params, other[i]->n_params * sizeof(float));
    for (size_t i = 0; i < x->all.n; i++)
        h = hash_bytes(h, x->all.row[i].ids, (size_t)x->all.row[i].n * sizeof(int));
    return h;
}

// The rows that a run draws: each question, or the preferred row of each pair. `all` owns
// their ids. So draw_rows() draws pairs without knowing about them; --tokens counts the
// preferred rows only.
static Rows drawn_rows(const Rows *all, int step) {
    Rows r = { 0 };
    for (size_t i = 0; i < all->n; i += (size_t)step) rows_add(&r, all->row[i]);
    return r;
}

// Refuses options that make no sense together. --grow-below compares the lengths of
// targets, which say little about a pair and nothing about a question.
static void check_trial(const TrainOptions *t, const char *name) {
    check_train_options(t);
    const bool judges = is(name, "reward");
    if (!judges && (!t->init || t->prompt || t->tokenizer || t->tied || t->dim || t->layers ||
                    t->heads || t->kv_heads || t->hidden || t->context))
        usage_error("`%s` needs --init, a model that answers, and keeps its prompt and shape",
                    name);
    if (t->grow_below > 0) usage_error("--grow-below goes with sft, warmup and aligner");
    if (!is(name, "rlhf")) return;
    if (!lab.reward || t->tokens)
        usage_error("`rlhf` needs --reward, made by `reward`; its --batch counts questions");
    if (lab.samples < 2 || lab.samples > 1024) usage_error("--samples: 2 to 1024 was expected");
}

// The model to be trained: --init, which keeps its prompt, or, for `reward`, also one from
// scratch.
static void trial_model(Model *m, const TrainOptions *t, const char *name) {
    const bool judges = is(name, "reward");
    if (judges) first_model(m, t, name);
    else model_load(m, t->init);
    CHECK(judges || (m->template && !(role_of(m) & (CORRECTOR | JUDGE))), "%s does not answer "
          "questions; `%s` begins with a model that does", t->init, name);
    snprintf(m->objective, sizeof m->objective, "%s", name);
}

// `dpo`, `reward`, `rlhf`: what can be refused before the data is read is refused first.
// The rest is train() with two hooks: what a step learns from, and what is validated.
static void run_trial(const Options *o) {
    const TrainOptions *t = &o->train;
    const char *name = o->word[0], *frozen = lab.reference ? lab.reference : t->init;
    const bool rlhf = is(name, "rlhf"), dpo = is(name, "dpo");
    const Objective build = dpo ? sft : rlhf ? question_row : judged_row;
    Model m;
    Trial x = { .beta = lab.beta, .kl = lab.kl, .max_tokens = o->how.max_tokens,
                .samples = rlhf ? lab.samples : 0 };
    check_trial(t, name);
    trial_model(&m, t, name);

    // The data, and the frozen models that judge it.
    for (int i = 0; i < t->n_data; i++) pairs_load(&x.all, &m, t->data[i], build);
    if (t->valid) pairs_load(&x.all_valid, &m, t->valid, build);
    CHECK(x.all.n, "no rows to train on in %s", t->data[0]);
    CHECK(!t->valid || x.all_valid.n, "no rows to validate on in %s", t->valid);
    x.rows = drawn_rows(&x.all, rlhf ? 1 : 2);
    x.valid = drawn_rows(&x.all_valid, rlhf ? 1 : 2);
    if (dpo || rlhf) load_other(&x.reference, &m, frozen, false);
    if (rlhf) load_other(&x.reward, &m, lab.reward, true);

    // The run: its hash makes --resume refuse another trial, its hooks make it a trial.
    x.run = (Run){ .model = &m, .rows = &x.rows, .valid = &x.valid, .o = t, .hash = trial_hash(&x),
                   .loss = rlhf ? rlhf_step : pairs_step,
                   .validate = rlhf ? rlhf_validate : pairs_validate };
    trial_init(&x);
    if (!t->quiet)
        fprintf(stderr, "%s: %zu %s, %zu parameters, vocabulary %d, %d threads\n", name, x.rows.n,
                rlhf ? "questions" : "pairs", m.n_params, m.c.V, omp_get_max_threads());
    train(&x.run);
    if (!t->quiet && rlhf)
        fprintf(stderr, "running means an answer: reward %.4f, log(pi / reference) %.4f\n",
                x.mean_reward, x.mean_kl);
    else if (!t->quiet)
        fprintf(stderr, "%.1f %% of the %s pairs in the right order\n", 100 * x.ranked,
                x.valid.n ? "validation" : "last batch's");
    trial_free(&x);
    model_free(&m);
}

/* ================================================================================================
   2. Both sides of Eq. (3).  Aligner training minimises the right side; the left side is the loss
   of the composed policy, upstream model and Aligner together:

       - log pi'(y_c | x)  <=  - log mu(y_c | y_o, x)  -  log pi(y_o | x)
       pi'(y_c | x) = sum_k mu(y_c | y_k, x) pi(y_k | x)                          Eq. (2)

   The sum has a term for each answer y_k that the upstream model could give. There are too many to
   list, but a few have most of the probability, and a best-first search finds them. It grows a
   tree: a node is the beginning of an answer, and each child has one token more.

                            ""                 1.0
                  "It"     /  \  "Paris"       0.6, 0.4             The likeliest node is taken out:
                          /    \               its children go in, or, if it ends with </s>, it is
              " is"  "'s"       </s>           an answer. Here "Paris" (0.39) comes before "It is",
              0.35   0.25       0.39           which has at most 0.35, whatever follows.

   A child is never likelier than its parent, so answers come out in order of probability, and none
   is missed. The likeliest node is found by looking at all of them: a heap would be faster, but the
   passes through the model take most of the time. */

// log p(target | condition) of a row, in nats, </s> included: a term of the means in Eqs.
// (1) and (4). It uses the passes of generation.
static double row_log_p(Generator *g, const Row *r) {
    g->cache.len = 0;
    if (r->n_condition > 1) feed(g, r->ids, r->n_condition - 1, 1);
    return log_p_rest(g, r->ids, r->n_condition, r->n);
}

// The beginning of an answer: its last token, its number of tokens, the node without the
// last token, and the log of its probability; -INFINITY once it has been taken out. Node 0
// is the empty beginning.
typedef struct { double log_p; int parent, token, depth; } Node;

// The answers found: answer[i] has probability exp(log_p[i]); mass is their sum.
typedef struct { Ids *answer; double *log_p, mass; int n; } Answers;

// When to stop: at this share of the probability, or after so many answers or passes. An
// answer is cut after max_tokens draws.
typedef struct { double mass; int answers, passes, max_tokens; } Limits;

static const double FAINT = -16.1;      // log 1e-7: a less likely beginning is not followed
static const Limits BOUND = { .mass = 0.99, .answers = 256, .passes = 4096, .max_tokens = INT_MAX };

// Sets path to the condition's n ids and then those of a node, filled in from its last
// token back to the first, from parent to parent.
static void path_to(const Node *node, int i, int n, Ids *path) {
    while (path->n < n + node[i].depth) ids_add(path, 0);
    path->n = n + node[i].depth;
    for (; node[i].depth; i = node[i].parent) path->a[n + node[i].depth - 1] = node[i].token;
}

// The likeliest node, the first on ties; -1 if none is left.
static int likeliest(const Node *node, size_t n) {
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (node[i].log_p > node[best].log_p) best = i;
    return isfinite(node[best].log_p) ? (int)best : -1;
}

// answer[i] are owned as well.
static void answers_free(Answers *a) {
    for (int i = 0; i < a->n; i++) free(a->answer[i].a);
    FREE(a->answer, a->log_p);
}

// Answers of g's model to r's condition, likeliest first. Beginnings of less than 1e-7 are
// left out, and so is their mass: only what was found is counted. What a beginning shares
// with the one before it is already in the cache.
static Answers enumerate(Generator *g, const Row *r, Limits most) {
    Answers a = { zalloc((size_t)most.answers, sizeof(Ids)),
                  zalloc((size_t)most.answers, sizeof(double)), 0, 0 };
    Ids path = { 0 }, fed = { 0 };
    const int c = r->n_condition, V = g->m->c.V;
    size_t n = 1, cap = 0;
    Node *node = grow(NULL, sizeof *node, &cap, 1);
    *node = (Node){ 0 };
    for (int i = 0; i < c; i++) ids_add(&path, r->ids[i]);

    // Take out the likeliest beginning, and keep it if it is a whole answer.
    for (int passes = 0; a.n < most.answers && a.mass < most.mass; ) {
        int i = likeliest(node, n);
        if (i < 0) break;
        const Node top = node[i];
        node[i].log_p = -INFINITY;                      // taken out; its children need its path
        path_to(node, i, c, &path);
        bool ended = top.depth && top.token == EOS;
        if (ended || top.depth == most.max_tokens) {
            for (int t = c; t < path.n - ended; t++) ids_add(&a.answer[a.n], path.a[t]);
            a.log_p[a.n++] = top.log_p;
            a.mass += exp(top.log_p);
            continue;
        }
        if (path.n > g->m->c.context || passes++ >= most.passes) continue;

        // Otherwise ask the model what may follow, and add what is not too faint.
        int known = 0;
        while (known < fed.n && known < path.n - 1 && fed.a[known] == path.a[known]) known++;
        g->cache.len = known;
        float *z = feed(g, path.a + known, path.n - known, 1);
        fed.n = known;
        while (fed.n < path.n) ids_add(&fed, path.a[fed.n]);
        softmax(z, V, NULL);
        for (int j = 0; j < V; j++) {
            double log_p = top.log_p + log((double)z[j]);
            if (!(log_p > FAINT)) continue;
            node = grow(node, sizeof *node, &cap, n + 1);
            node[n++] = (Node){ log_p, i, j, top.depth + 1 };
        }
    }
    FREE(path.a, fed.a, node);
    return a;
}

// Both sides of Eq. (3) for one triple, in nats. left is - log pi'(y_c | x) with the
// answers that were counted. A missing one could only make it smaller, so left is an upper
// bound of the true left side, and slack = right - left a lower bound of the true slack.
// The term of y_o itself is always counted: left <= right holds whatever else was found.
typedef struct { double left, right, mass; int answers; } Sides;

// log(e^a + e^b), without overflow or underflow.
static double log_add(double a, double b) { return fmax(a, b) + log1p(exp(-fabs(a - b))); }

// False if the triple does not fit into the two models' contexts. Only text passes between
// the models, so each y_k is decoded with one tokenizer and encoded with the other, as in
// correct().
static bool both_sides(Generator *pi, Generator *mu, Triple t, Limits most, Sides *out) {
    Row upstream = sft(pi->m, t), row = aligner(mu->m, t);
    const bool fits = upstream.n - 1 <= pi->m->c.context && row.n - 1 <= mu->m->c.context;
    const int *y_o = upstream.ids + upstream.n_condition;
    const int n = upstream.n - upstream.n_condition - 1;        // tokens of y_o, without </s>
    if (fits) {
        // The term of y_o: both of its factors, and with it the right side of Eq. (3).
        Answers a = enumerate(pi, &upstream, most);
        double log_pi = row_log_p(pi, &upstream), log_sum = log_pi + row_log_p(mu, &row);
        *out = (Sides){ .right = -log_sum, .mass = exp(log_pi), .answers = 1 };

        // The other terms of Eq. (2). An answer too long for mu counts as missing.
        for (int k = 0; k < a.n; k++) {
            const Ids *y = &a.answer[k];
            if (y->n == n && (!n || !memcmp(y->a, y_o, (size_t)n * sizeof *y_o))) continue;
            Buf y_k = decode_all(pi->m->tokenizer, y->a, y->n);
            Row r = aligner(mu->m, (Triple){ t.x, contents(&y_k), t.y_c });
            if (r.n - 1 <= mu->m->c.context) {
                log_sum = log_add(log_sum, a.log_p[k] + row_log_p(mu, &r));
                out->mass += exp(a.log_p[k]);
                out->answers++;
            }
            FREE(y_k.s, r.ids);
        }
        out->left = -log_sum;
        answers_free(&a);
    }
    FREE(upstream.ids, row.ids);
    return fits;
}

// One row's line, or its element of the JSON array. It is written at once, because the next
// row may take long.
static void show_sides(const Sides *s, bool json, bool first) {
    if (json && !first) printf(",\n ");
    printf(json ? "{\"left\": %.6f, \"right\": %.6f, \"slack\": %.6f, \"mass\": %.6f, "
                  "\"answers\": %d}"
                : "- log pi'(y_c | x) <= %.4f   bound %.4f   slack %.4f   mass %.4f of %d "
                  "answers\n",
           s->left, s->right, s->right - s->left, s->mass, s->answers);
    flush_results();
}

// `bound`: Eqs. (2) and (3) for the rows of a file: a line for each, or one JSON object
// with --json; then the means. Eq. (3) is about means over M, and holds for each row as
// well.
static void run_bound(const Options *o) {
    const char *upstream = need_word(o, 1, "an upstream model and an Aligner");
    const char *path = need_word(o, 2, "an Aligner");
    Session pi = { 0 }, mu = { 0 };
    Triple t;
    Sides one, sum = { 0 };
    long n = 0, skipped = 0;
    if (!o->train.n_data) usage_error("`bound` needs --data");
    generator_load(&pi.g, &pi.m, upstream, ANSWERER, GREEDY);
    generator_load(&mu.g, &mu.m, path, CORRECTOR, GREEDY);
    if (o->json) printf("{\"rows\": [");
    for (int i = 0; i < o->train.n_data; i++) {
        Objects in;
        objects_open(&in, o->train.data[i]);
        while (next_good_row(&in, NEED_X | NEED_Y_O | NEED_Y_C, &t)) {
            if (!both_sides(&pi.g, &mu.g, t, BOUND, &one)) {
                skip_row(&in, "longer than a model's context");
                continue;
            }
            show_sides(&one, o->json, !n++);
            sum.left += one.left;
            sum.right += one.right;
            sum.mass += one.mass;
            sum.answers += one.answers;
        }
        skipped += in.skipped;
        objects_close(&in);
    }

    // Without a row all means are 0.
    const double N = n ? (double)n : 1, left = sum.left / N, right = sum.right / N;
    printf(o->json ? "], \"left\": %.6f, \"right\": %.6f, \"slack\": %.6f, \"mass\": %.6f, "
                     "\"answers\": %.2f, \"skipped\": %ld}\n"
                   : "mean: left %.4f   right %.4f   slack %.4f   mass %.4f   answers %.2f   "
                     "(%ld rows skipped)\n",
           left, right, right - left, sum.mass / N, sum.answers / N, skipped);
    session_free(&pi);
    session_free(&mu);
}

/* ================================================================================================
   3. Steering (appendix B.6, p. 19-21).  H[l] is the residual stream after layer l at a position of
   the output. Two stimuli come from each triple that has something to correct:

       row 2 i       (x, y_c -> y_c)   copies
       row 2 i + 1   (x, y_o -> y_c)   corrects

   Question, output and position are the same; only the answer in the prompt differs: it was good or
   it was not. (As printed, the names of the paper's two sets of stimuli look swapped.) Then

       V_c     = first principal direction of the normalised differences H_correct - H_copy
       r(l, k) = H[l]^T V_c                    activity at layer l, output position k
       M'      = M + alpha V_c                 steering: a vector is added after a layer

   with one V_c for each layer. A principal direction has neither sign nor length. The sign is
   chosen so that +alpha raises D_L. In M' its length is the mean length of the differences, so
   alpha = 1 means the same in each layer and each model: as far as the two kinds are apart, all of
   it along V_c.

   Is V_c more than a direction that any fit would find? On rows that it was not fitted to,
   separation is the probability that a row that corrects has a larger mean activity than one that
   copies, whatever their questions (the area under the ROC curve; 0.5 is a coin toss). The baseline
   shuffles the rows and fits V_c again, so a difference is one between any two rows; the larger of
   its separation and 1 minus its separation counts. chance is the largest of 19 such fits.

   In the paper (Fig. 4), alpha from -1 to 0.5 moves the mean D_L from 0.59 to 4.0 (3.14 at 0), with
   R^2 about 0.93, and the decision shows in the early layers. Its alpha has another unit.

   Exercise: V_c tells two rows of one triple apart more easily than any two rows. Count in how many
   triples the row that corrects has the larger activity. Which baseline fits that? */

enum { POSITIONS = 8, PERMUTATIONS = 19 };              // output positions that are read

// H[l] at output position k, where forward() left it, for a batch of one row. After the
// last layer only positions with logits remain.
static const float *hidden(const Model *m, const Batch *b, int l, int k) {
    return m->acts.layer[l].next + (size_t)(l == m->c.L - 1 ? k : b->out[k]) * (size_t)m->c.C;
}

// The hidden states of rows: H[row][l][k][C]. Each row has its number of `positions`, at
// most POSITIONS.
typedef struct { float *H; size_t n; int *positions, L, C; } States;

// H[i][l][k], a vector of C numbers.
static const float *state(const States *s, size_t i, int l, int k) {
    return s->H + ((i * (size_t)s->L + (size_t)l) * POSITIONS + (size_t)k) * (size_t)s->C;
}

// Runs each row once and keeps the output of every layer. acts_reserve() must have been
// told to keep each layer, as for training; m must not be steered. Rows that end before
// POSITIONS have zeros there, which are never read.
static States hidden_states(Model *m, const Rows *rows, Batch *b) {
    const size_t C = (size_t)m->c.C, L = (size_t)m->c.L;
    States s = { zalloc(rows->n * L * POSITIONS * C, sizeof(float)), rows->n, ints((int)rows->n),
                 m->c.L, m->c.C };
    for (size_t i = 0; i < rows->n; i++) {
        batch_clear(b);
        batch_add(b, &rows->row[i]);
        forward(m, b, NULL);
        s.positions[i] = least(b->n_out, POSITIONS);
        for (int l = 0; l < m->c.L; l++)
            for (int k = 0; k < s.positions[i]; k++)
                copy_floats((float *)state(&s, i, l, k), hidden(m, b, l, k), C);
    }
    return s;
}

// V_c of layer l from the pairs of rows order[2 i], order[2 i + 1]: power iteration on S,
// the sum of d d^T over the normalised differences d. It begins with their mean. Each round
// multiplies by S and normalises, so the direction of the largest eigenvalue outgrows all
// others. V_c points to where correcting rows are on average. Returns the mean length of
// the differences.
static double principal_direction(float *v, const States *s, const uint32_t *order, int l) {
    const int C = s->C;
    float *d = zalloc(s->n / 2 * POSITIONS * (size_t)C, sizeof *d);
    float *S = zalloc((size_t)C * (size_t)C, sizeof *S), *mean = zalloc((size_t)C, sizeof *mean);
    float *next = zalloc((size_t)C, sizeof *next);
    double length = 0;
    int n = 0;
    for (size_t i = 0; i < s->n; i += 2)
        for (int k = 0; k < least(s->positions[order[i]], s->positions[order[i + 1]]); k++) {
            const float *copy = state(s, order[i], l, k), *correct = state(s, order[i + 1], l, k);
            float *row = d + (size_t)n * (size_t)C;
            for (int j = 0; j < C; j++) row[j] = correct[j] - copy[j];
            const float norm = sqrtf(dot(row, row, C));
            if (norm == 0) continue;                    // the next difference overwrites it
            length += (double)norm;
            for (int j = 0; j < C; j++) {
                mean[j] += row[j];
                row[j] /= norm;
            }
            n++;
        }

    // S = D^T D, with the n differences as the rows of D.
    const Matrix D = rows_of(d, C);
    if (n) matmul(S, (size_t)C, transposed(D), D, C, C, n, false);
    copy_floats(next, mean, (size_t)C);
    for (int round = 0; round < 100; round++) {
        const float norm = sqrtf(dot(next, next, C));
        for (int j = 0; norm > 0 && j < C; j++) v[j] = next[j] / norm;
        for (int i = 0; i < C; i++) next[i] = dot(S + (size_t)i * (size_t)C, v, C);
    }
    if (dot(v, mean, C) < 0)
        for (int j = 0; j < C; j++) v[j] = -v[j];
    FREE(d, S, mean, next);
    return n ? length / n : 0;
}

// The mean of r(l, k) over rows of one kind (0 copy, 1 correct) that have a position k.
static double activity(const States *s, const float *v, int kind, int l, int k) {
    double sum = 0;
    long n = 0;
    for (size_t i = (size_t)kind; i < s->n; i += 2) {
        if (s->positions[i] <= k) continue;
        sum += (double)dot(state(s, i, l, k), v, s->C);
        n++;
    }
    return n ? sum / (double)n : 0;
}

// The probability that a correcting row's mean activity is larger than a copying row's: the
// share of all pairs of one of each in which it is; ties count half (Mann and Whitney's U).
// This is harder than telling the two rows of one triple apart, because the questions
// differ, too.
static double separation(const States *s, const float *v, int l) {
    double *r = zalloc(s->n, sizeof *r), sum = 0;
    for (size_t i = 0; i < s->n; i++)
        for (int k = 0; k < s->positions[i]; k++)
            r[i] += (double)dot(state(s, i, l, k), v, s->C) / s->positions[i];
    for (size_t i = 1; i < s->n; i += 2)
        for (size_t j = 0; j < s->n; j += 2) sum += r[i] > r[j] ? 1 : r[i] == r[j] ? 0.5 : 0;
    free(r);
    return sum / ((double)s->n * (double)s->n / 4);
}

// The largest separation of `seen` by directions fitted to shuffled rows. To shuffle only
// within the pairs would change nothing: d and -d have the same principal direction.
static double chance(const States *fit, const States *seen, int l) {
    uint32_t *order = zalloc(fit->n, sizeof *order);
    float *v = zalloc((size_t)fit->C, sizeof *v);
    double most = 0;
    for (int p = 1; p <= PERMUTATIONS; p++) {
        shuffle(order, fit->n, p, l);
        principal_direction(v, fit, order, l);
        const double s = separation(seen, v, l);
        most = fmax(most, fmax(s, 1 - s));
    }
    FREE(order, v);
    return most;
}

// What `steer` finds out about each layer: v[L][C], and three numbers [L].
typedef struct { float *v; double *length, *separation, *chance; } Directions;

// V_c of each layer from the rows of `fit`, and how it separates those of `seen`.
static Directions find_directions(const States *fit, const States *seen) {
    const size_t L = (size_t)fit->L, C = (size_t)fit->C;
    Directions d = { zalloc(L * C, sizeof(float)), zalloc(L, sizeof(double)),
                     zalloc(L, sizeof(double)), zalloc(L, sizeof(double)) };
    uint32_t *order = zalloc(fit->n, sizeof *order);
    for (size_t i = 0; i < fit->n; i++) order[i] = (uint32_t)i;
    for (int l = 0; l < fit->L; l++) {
        d.length[l] = principal_direction(d.v + (size_t)l * C, fit, order, l);
        d.separation[l] = separation(seen, d.v + (size_t)l * C, l);
        d.chance[l] = chance(fit, seen, l);
    }
    free(order);
    return d;
}

// The degree of correction D_L (appendix B.6): Levenshtein's distance from y_o to y_c (the
// fewest insertions, deletions and substitutions) divided by the length of y_o, in tokens.
// It says how much changed, right or wrong. d[j] is the distance from the first i tokens of
// y_o to the first j of y_c; each row of the table is made from the one before.
static double degree_of_correction(const Tokenizer *k, Text y_o, Text y_c) {
    Ids a = { 0 }, b = { 0 };
    encode(k, y_o, &a);
    encode(k, y_c, &b);
    int *d = ints(b.n + 1);
    for (int j = 0; j <= b.n; j++) d[j] = j;
    for (int i = 1; i <= a.n; i++)
        for (int j = 0, diagonal = 0, best; j <= b.n; j++, diagonal = best) {
            best = d[j];                                // the diagonal of the next j
            int substituted = j ? diagonal + (a.a[i - 1] != b.a[j - 1]) : i;
            d[j] = j ? least(substituted, least(d[j], d[j - 1]) + 1) : i;
        }
    const double degree = (double)d[b.n] / (a.n ? a.n : 1);
    FREE(a.a, b.a, d);
    return degree;
}

// Mean D_L of greedy corrections of a file, with alpha V_c added after one layer, or after
// each if layer is 0.
static double steered_degree(Generator *g, const Directions *d, double alpha, int layer,
                             const char *path) {
    const Config *c = &g->m->c;
    float *steer = zalloc((size_t)c->L * (size_t)c->C, sizeof *steer);
    Objects in;
    Triple t;
    Buf y_c = { 0 };
    double sum = 0;
    long n = 0;
    for (int i = 0; i < c->L * c->C; i++) {
        const int l = i / c->C;
        if (!layer || layer == l + 1) steer[i] = (float)(alpha * d->length[l]) * d->v[i];
    }
    if (alpha != 0) g->m->steer = steer;
    objects_open(&in, path);
    for (enum Status s; (s = next_row(&in, NEED_X | NEED_Y_O | NEED_Y_C, &t)); ) {
        if (s == ROW_BAD) continue;
        correct(g, t.x, t.y_o, &y_c);
        sum += degree_of_correction(g->m->tokenizer, t.y_o, contents(&y_c));
        n++;
    }
    objects_close(&in);
    g->m->steer = NULL;
    FREE(steer, y_c.s);
    return n ? sum / (double)n : 0;
}

enum { MOST_ALPHAS = 32 };

// The numbers of --alpha, separated by commas; they may be negative. Returns their number.
static int parse_alphas(const char *s, double *alpha) {
    int n = 0;
    for (char *end;; s = end + 1) {
        const double x = strtod(s, &end);
        if (n == MOST_ALPHAS || end == s || !isfinite(x) || fabs(x) > 1e6 || (*end && *end != ','))
            usage_error("--alpha needs at most %d numbers, separated by commas, not \"%s\"",
                        MOST_ALPHAS, s);
        alpha[n++] = x;
        if (!*end) return n;
    }
}

// The layers, as text or as elements of a JSON array: how well V_c separates in each, and
// the mean activities r(l, k) of both kinds.
static void show_layers(const States *seen, const Directions *d, bool json) {
    static const char *const KIND[] = { "copy", "correct" };
    for (int l = 0; l < seen->L; l++) {
        printf(json ? "%s{\"layer\": %d, \"length\": %.4f, \"separation\": %.4f, \"chance\": %.4f"
                    : "%slayer %d, length of V_c %.4f, separation %.4f, by chance up to %.4f; "
                      "mean activities r(l, k):\n",
               json && l ? ", " : "", l + 1, d->length[l], d->separation[l], d->chance[l]);
        for (int kind = 0; kind < 2; kind++) {
            printf(json ? ", \"%s\": [" : "    %-8s", KIND[kind]);
            for (int k = 0; k < POSITIONS; k++)
                printf(json ? "%s%.4f" : "%s%9.4f", json && k ? ", " : "",
                       activity(seen, d->v + (size_t)l * (size_t)seen->C, kind, l, k));
            fputs(json ? "]" : "\n", stdout);
        }
        if (json) printf("}");
    }
}

// D_L against alpha, and the straight line that fits best by least squares: its slope is
// cov(alpha, D_L) / var(alpha), and R^2 is the share of the variance of D_L that it
// explains.
static void show_fit(const double *alpha, const double *degree, int n, bool json) {
    double sx = 0, sy = 0, vx = 0, vy = 0, cov = 0;
    for (int i = 0; i < n; i++) {
        printf(json ? "%s{\"alpha\": %g, \"degree\": %.6f}" : "%salpha %6.2f   D_L %.4f\n",
               json && i ? ", " : "", alpha[i], degree[i]);
        sx += alpha[i] / n;
        sy += degree[i] / n;
    }
    for (int i = 0; i < n; i++) {
        vx += (alpha[i] - sx) * (alpha[i] - sx);
        vy += (degree[i] - sy) * (degree[i] - sy);
        cov += (alpha[i] - sx) * (degree[i] - sy);
    }
    printf(json ? "], \"slope\": %.6f, \"R2\": %.6f}\n" : "slope %.4f, R^2 %.4f\n",
           vx > 0 ? cov / vx : 0, vx > 0 && vy > 0 ? cov * cov / (vx * vy) : 0);
}

// `steer`: V_c from --data; separation, activity by layer and position, and D_L against
// alpha from --valid. Without --valid all are from the same rows, and held_out is false.
static void run_steer(const Options *o) {
    Session s = { 0 };
    Model *m = &s.m;
    Batch b;
    Rows fit_rows = { 0 }, seen_rows = { 0 };
    double alpha[MOST_ALPHAS], degree[MOST_ALPHAS];
    const char *path = need_word(o, 1, "an Aligner");
    if (o->train.n_data != 1) usage_error("`steer` needs --data with one file");
    const int n = parse_alphas(lab.alpha, alpha);
    const char *data = o->train.data[0], *valid = o->train.valid ? o->train.valid : data;
    generator_load(&s.g, m, path, CORRECTOR, GREEDY);
    if (lab.layer > m->c.L) usage_error("--layer %d: the model has %d layers", lab.layer, m->c.L);
    pairs_load(&fit_rows, m, data, aligner);
    pairs_load(&seen_rows, m, valid, aligner);
    CHECK(fit_rows.n && seen_rows.n, "%s: no row has a correction that differs from its answer",
          fit_rows.n ? valid : data);

    // The hidden states of both files, and a direction for each layer from the first.
    const int T = unit_size(&fit_rows, &seen_rows);
    batch_alloc(&b, T, 1);
    acts_reserve(m, T, T, T, true);
    States fit = hidden_states(m, &fit_rows, &b), seen = hidden_states(m, &seen_rows, &b);
    Directions d = find_directions(&fit, &seen);

    // The sign: on the rows of the fit, +1 must change more than -1 does. Then D_L against alpha.
    const bool turn = steered_degree(&s.g, &d, 1, lab.layer, data) <
                      steered_degree(&s.g, &d, -1, lab.layer, data);
    for (int i = 0; turn && i < m->c.L * m->c.C; i++) d.v[i] = -d.v[i];
    for (int i = 0; i < n; i++) degree[i] = steered_degree(&s.g, &d, alpha[i], lab.layer, valid);

    if (o->json) printf("{\"pairs\": %zu, \"held_out\": %s, \"turned\": %s, \"layers\": [",
                        fit.n / 2, valid == data ? "false" : "true", turn ? "true" : "false");
    else printf("V_c from %zu pairs%s\n", fit.n / 2, turn ? ", turned: +1 changes more" : "");
    show_layers(&seen, &d, o->json);
    if (o->json) printf("], \"layer\": %d, \"points\": [", lab.layer);
    show_fit(alpha, degree, n, o->json);
    FREE(fit.H, fit.positions, seen.H, seen.positions, d.v, d.length, d.separation, d.chance);
    session_free(&s);
    batch_free(&b);
    rows_free(&fit_rows);
    rows_free(&seen_rows);
}

/* ================================================================================================
   4. Rows.  A filter that adds a number to each row of a file, a line for each line:

       loglik    log p(target | condition) in nats, </s> included, and the number of its tokens;
                 the mean of - loglik over tokens is what `eval` reports as the loss
       score     the reward of question and answer

   An unusable row comes back with a reason, as it does from `correct`. */

// `loglik` and `score`. Unless --target is given, the target is the answer for a model that
// answers, and the correction for an Aligner:
//
//     model        --target answer        --target correction
//     answers      x | y_o                x | y_c
//     corrects     x y_o | y_o            x y_o | y_c
static void run_measure(const Options *o) {
    const bool scoring = is(o->word[0], "score");
    const char *name = scoring ? "reward" : "loglik", *target = lab.target;
    Session session = { 0 };
    Generator *g = &session.g;
    Model *m = &session.m;
    Objects in;
    Triple t;
    Buf more = { 0 };
    if (target && !is(target, "correction") && !is(target, "answer"))
        usage_error("--target is answer or correction");
    model_load(m, need_word(o, 1, "a model"));
    CHECK(scoring == is(m->objective, "reward"), scoring ? NOT_A_JUDGE
          : "%s is a reward model; use `score`", o->word[1]);
    const bool asks = scoring || role_of(m) == ANSWERER;     // is the condition the question alone?
    const bool corrected = !scoring && (target ? is(target, "correction") : !asks);
    const int keys = NEED_X | (!asks || !corrected ? NEED_Y_O : 0) | (corrected ? NEED_Y_C : 0);
    generator_init(g, m, GREEDY);
    objects_open(&in, o->n_words > 2 ? o->word[2] : NULL);
    for (enum Status s; (s = next_row(&in, keys, &t)); ) {
        char number[128];
        if (s == ROW_BAD) {
            buf_set(&more, NONE);
            put_member(&more, "reason", NONE, text(in.reason));
            print_row(in.object, (const char *const[]){ name, "action", "reason", NULL }, &more);
            continue;
        }

        // A model that only reads the question has its target in y_o: see sft().
        if (asks && corrected) t.y_o = t.y_c;
        Row r = scoring ? judged_row(m, t) : asks ? sft(m, t) : corrected ? aligner(m, t)
              : warmup(m, t);
        const bool too_long = r.n - 1 > m->c.context, again = json_find(in.object, name).s;
        g->cache.len = 0;
        if (too_long)
            snprintf(number, sizeof number, "\"%s\": null, \"reason\": \"longer than the context\"",
                     name);
        else if (scoring)
            snprintf(number, sizeof number, "\"reward\": %.6f",
                     (double)feed(g, r.ids, r.n - 1, 1)[REWARD]);
        else
            snprintf(number, sizeof number, "\"loglik\": %.6f, \"tokens\": %d", row_log_p(g, &r),
                     r.n - r.n_condition);

        // An old number is removed, and so is the reason that came with it.
        buf_set(&more, text(number));
        print_row(in.object, (const char *const[]){ name, too_long || again ? "reason" : name,
                                                    scoring ? NULL : "tokens", NULL }, &more);
        free(r.ids);
    }
    objects_close(&in);
    free(more.s);
    session_free(&session);
}

/* ================================================================================================
   5. Speed.  How fast, compared with what the machine can do at most. There are two limits:

       multiply-adds     2 flops for each weight and token forward, 4 more backward; attention has
                         T^2 / 2 pairs of tokens. Training and prefill cannot be faster than
                         multiply-adds from registers alone.
       reading memory    decoding reads each weight for each token: 4 bytes for a weight. With a
                         draft, one reading serves several tokens, and that makes it fast.

   Both are measured next to each sample, because machines drift; all figures are medians.
   docs/speed.md says more, and tests/bench.sh runs this program in turn with others. */

// Shapes with untied heads: the number of rows in a step, and a configuration (V, C, L, H,
// H_kv, F, context, ...). The rows are as long as the context. 15M and 110M are the shapes
// of the models that llama2.c's users know; "tiny" is about the size of this project's
// Aligner.
static const struct Shape { const char *name; int B; Config c; } SHAPE[] = {
    { "tiny", 16, { 1024, 128, 4, 4, 4, 352, 128, false, 1e-5f, 1e4f } },
    { "small", 16, { 2048, 256, 6, 8, 8, 688, 256, false, 1e-5f, 1e4f } },
    { "medium", 8, { 4096, 288, 6, 6, 6, 768, 256, false, 1e-5f, 1e4f } },
    { "15M", 8, { 32000, 288, 6, 6, 6, 768, 256, false, 1e-5f, 1e4f } },
    { "110M", 1, { 32000, 768, 12, 12, 12, 2048, 256, false, 1e-5f, 1e4f } } };
// What is measured if no shape is named: + or - for each shape, in the table's order.
static const struct { const char *name, *shapes; } PART[] = {
    { "train", "+++--" }, { "rows", "+++--" }, { "prefill", "---+-" }, { "decode", "+--++" },
    { "draft", "+--+-" } };

enum { PARTS = sizeof PART / sizeof *PART, SHAPES = sizeof SHAPE / sizeof *SHAPE };
enum { SAMPLES = 4096, PROMPT = 128, ANSWER = 96 };
#ifndef PROBE
#define PROBE (1 << 26)     // floats that measure reading; a 16th as many loops, multiply-adds
#endif

// The figures of a part; 0: does not apply. copied and nothing: how many times faster with
// a draft.
typedef struct { double ms, tokens_per_s, targets_per_s, gflops, gbs, copied, nothing; } Figure;

typedef struct {
    float *buffer;                      // [PROBE], 256 MB: more than caches hold
    double peak[SAMPLES], read[SAMPLES];        // the two limits, in GFLOP/s and GB/s
    int n_limits;
    double sample[SAMPLES], begun;      // of the part that is being measured, in seconds
    int n;                              // the number of samples; -1: the warm-up comes next
    volatile float sink;                // or the compiler would leave out work without a result
    struct Measured { const char *part, *shape; Figure f; } figure[PARTS * SHAPES];
    int n_figures;
} Bench;

// For qsort().
static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// The middle one, or the mean of the two in the middle. Sorts a.
static double median(double *a, int n) {
    qsort(a, (size_t)n, sizeof *a, ascending);
    return n ? (a[(n - 1) / 2] + a[n / 2]) / 2 : 0;
}

// Twelve chains of multiply-adds that do not wait for each other, n times, without touching
// memory. A multiply-add takes about four cycles and two can begin in each: eight chains
// would be enough.
enum { CHAINS = 12, FMA_FLOPS = CHAINS * WIDTH * 2 };

static float fma_loop(long n) {
    Vector r[CHAINS], x = 0.999f - (Vector){ 0 }, y = 0.001f - (Vector){ 0 };
    for (int i = 0; i < CHAINS; i++) r[i] = (float)i - (Vector){ 0 };   // distinct, or one would do
    while (n--) {
        UNROLL
        for (int i = 0; i < CHAINS; i++) r[i] = FMA(r[i], x, y);
    }
    for (int i = 1; i < CHAINS; i++) r[0] = r[0] + r[i];
    return r[0][0];
}

// Takes a sample of both limits, about 40 ms. All threads compute at once, as in the
// kernels, and each reads its own part of the buffer.
static void sample_limits(Bench *b) {
    const long n = PROBE / 16, each = PROBE / omp_get_max_threads() / 64 * 64;
    const int team = omp_get_max_threads();
    float sum = 0;
    if (b->n_limits == SAMPLES) return;
    double start = seconds();
    #pragma omp parallel reduction(+ : sum)
    sum += fma_loop(n);
    b->peak[b->n_limits] = 1e-9 * FMA_FLOPS * (double)n * team / (seconds() - start);
    start = seconds();
    #pragma omp parallel reduction(+ : sum)
    {
        float s[64] = { 0 };            // 64 sums, so no addition waits for the last one
        const float *x = b->buffer + omp_get_thread_num() * each;
        for (long i = 0; i < each; i += 64)
            for (int l = 0; l < 64; l++)
                s[l] += x[i + l];
        for (int l = 0; l < 64; l++) sum += s[l];
    }
    b->read[b->n_limits++] = 4e-9 * (double)each * team / (seconds() - start);
    b->sink = sum;
}

// To measure a part: for (begin_samples(b); more_samples(b); ) add_sample(b, its seconds).
static void begin_samples(Bench *b) {
    b->n = -1;                          // the first one warms up
    b->begun = seconds();
}

// Is there another sample to take? There are at least 15, and as many as one second has
// room for; before each, the limits are sampled.
static bool more_samples(Bench *b) {
    if (b->n >= 15 && (b->n == SAMPLES || seconds() - b->begun > 1)) return false;
    sample_limits(b);
    return true;
}

// The warm-up sample is not kept.
static void add_sample(Bench *b, double t) {
    if (b->n >= 0) b->sample[b->n] = t;
    b->n++;
}

// A model of random weights; its head never ends a text. Uniform numbers of the right size
// are good enough for timing. The shape's context is the length of its rows; the model
// needs room for an answer as well.
static Model bench_model(const struct Shape *s) {
    Model m = { .c = s->c };
    uint64_t seed = 1;
    if (m.c.context < PROMPT + ANSWER) m.c.context = PROMPT + ANSWER;
    model_alloc(&m);
    set_template(&m, "short");
    const float width = 3 / sqrtf((float)m.c.C);
    for (size_t i = 0; i < m.n_params; i++) m.params[i] = (float)(random_unit(&seed) - 0.5) * width;
    memset(m.w.head + (size_t)EOS * (size_t)m.c.C, 0, (size_t)m.c.C * sizeof(float));
    return m;
}

// A row of random ids: the amount of work does not depend on what they say.
static Row random_ids(int V, int n_condition, int n, uint64_t *seed) {
    Row r = { ints(n), n_condition, n };
    for (int i = 0; i < n; i++) r.ids[i] = (int)(random_u64(seed) % (uint64_t)V);
    return r;
}

// The weights that a token is multiplied with: all but the embeddings, unless these are the
// head, too.
static double matmul_weights(const Config *c) {
    return (double)count_weights(c) - (c->tied ? 0 : (double)c->V * c->C);
}

// A training step, as `train` does it. "train": B rows of T tokens, all of them targets.
// "rows": an Aligner's 32 rows, each with a condition of 24 to 39 tokens and y_o, and a
// target as long as y_o, 8 to 71 tokens (tests/bench_torch.py makes the same lengths).
static Figure bench_train(Bench *b, const struct Shape *s, bool aligner_rows) {
    const int n = aligner_rows ? 32 : s->B, T = s->c.context;
    const TrainOptions o = { .batch = n, .steps = 1, .clip = 1, .adam_eps = 1e-8, .seed = 1 };
    Model m = bench_model(s);
    Rows rows = { 0 }, none = { 0 };
    uint64_t seed = 2;
    double sum = 0;
    for (int i = 0; i < n; i++) {
        int target = 8 + i * 37 % 64, condition = 24 + i * 11 % 16 + target;
        rows_add(&rows, aligner_rows ? random_ids(s->c.V, condition, condition + target, &seed)
                                     : random_ids(s->c.V, 1, T + 1, &seed));
    }
    Run run = { .model = &m, .rows = &rows, .valid = &none, .o = &o };
    run_init(&run);
    for (begin_samples(b); more_samples(b); run.p.step++) {
        double start = seconds();
        sum += supervised_loss(&run);
        double norm = gradient_norm(&m);
        adamw(&m, &run.p, &o, 1e-4, norm > 1 ? (float)(1 / norm) : 1.0f);
        add_sample(b, seconds() - start);
    }
    CHECK(isfinite(sum), "the loss became %g", sum);

    // The work of a step: 6 flops for each weight and token, 2 forward and 4 backward.
    const double t = median(b->sample, b->n), steps = (double)run.p.step;
    const double tokens = (double)run.p.tokens / steps, targets = (double)run.p.targets / steps;
    const double attention = 6.0 * s->c.L * tokens * T * s->c.C;                // T^2 / 2
    Figure f = { .ms = 1e3 * t, .tokens_per_s = tokens / t };
    if (aligner_rows) f.targets_per_s = targets / t;
    else f.gflops = 1e-9 * (6 * matmul_weights(&s->c) * tokens + attention) / t;
    FREE(run.order, run.drawn, run.p.m, run.p.v);
    batch_free(&run.unit);
    rows_free(&rows);
    model_free(&m);
    return f;
}

// One prompt of 128 tokens with one row of logits. The work that the last layer skips is
// not counted.
static Figure bench_prefill(Bench *b, const struct Shape *s) {
    Model m = bench_model(s);
    const Config *c = &s->c;
    Generator g;
    uint64_t seed = 3;
    Row r = random_ids(c->V, 1, PROMPT, &seed);
    generator_init(&g, &m, GREEDY);
    for (begin_samples(b); more_samples(b); ) {
        double start = seconds();
        g.cache.len = 0;
        feed(&g, r.ids, PROMPT, 1);
        add_sample(b, seconds() - start);
    }

    // The last layer's matrices after attention, and the head, see the last position only.
    const double t = median(b->sample, b->n), head = (double)c->C * c->V;
    const double last = (double)c->C * c->C + 3.0 * c->C * c->F;
    const double attention = 2.0 * c->L * PROMPT * PROMPT * c->C;
    const double flops = 2 * (matmul_weights(c) - last - head) * PROMPT + attention +
                         2 * (last + head);
    generator_free(&g);
    model_free(&m);
    free(r.ids);
    return (Figure){ .ms = 1e3 * t, .tokens_per_s = PROMPT / t, .gflops = 1e-9 * flops / t };
}

// Writes ANSWER tokens after a prompt, with the given draft or none; returns the time in
// seconds.
static double time_answer(Generator *g, const Row *r, const int *draft, Ids *out) {
    Ids prompt = { r->ids, r->n_condition, 0 };
    out->n = 0;
    double start = seconds();
    generate(g, &prompt, draft, draft ? ANSWER : 0, out);
    return seconds() - start;
}

// Decoding after one token ("decode"), or after 64 with a draft. How many times faster is
// it if the draft is what greedy decoding writes ("copied"), or has nothing in common with
// it ("nothing")?
static Figure bench_decode(Bench *b, const struct Shape *s, bool drafts) {
    static double copied[SAMPLES], nothing[SAMPLES];
    Model m = bench_model(s);
    Generator g;
    uint64_t seed = 4;
    Row r = random_ids(s->c.V, drafts ? 64 : 1, 64 + ANSWER, &seed);
    Ids plain = { 0 }, out = { 0 };
    generator_init(&g, &m, (Decoding){ .top_p = 1, .max_tokens = ANSWER });
    for (begin_samples(b); more_samples(b); ) {
        double t = time_answer(&g, &r, NULL, &plain);
        for (int i = 0; drafts && i < 2; i++) {
            double u = time_answer(&g, &r, i ? r.ids + 64 : plain.a, &out);
            CHECK(!memcmp(plain.a, out.a, ANSWER * sizeof(int)), "a draft changed the text");
            if (b->n >= 0) (i ? nothing : copied)[b->n] = t / u;
        }
        add_sample(b, t);
    }
    generator_free(&g);
    model_free(&m);
    FREE(r.ids, plain.a, out.a);
    if (drafts) return (Figure){ .copied = median(copied, b->n), .nothing = median(nothing, b->n) };
    const double t = median(b->sample, b->n) / ANSWER;
    return (Figure){ .tokens_per_s = 1 / t, .gbs = 4e-9 * matmul_weights(&s->c) / t };
}

// Measures one part, by its number in PART, at one shape, and keeps the figure.
static void bench_one(Bench *b, int part, const struct Shape *s) {
    Figure f = part < 2 ? bench_train(b, s, part == 1)
             : part == 2 ? bench_prefill(b, s) : bench_decode(b, s, part == 4);
    b->figure[b->n_figures++] = (struct Measured){ PART[part].name, s->name, f };
}

// Prints all figures, as lines or as JSON. Shares are shares of the limits' medians over
// the run.
//
//     part shape key value key value ...        {"part": {"shape": {"key": value, ...}, ...}, ...}
static void show_figures(Bench *b, bool json) {
    const double peak = median(b->peak, b->n_limits), read = median(b->read, b->n_limits);
    const char *part = "";
    printf(json ? "{\"threads\": %d, \"peak_gflops\": %.1f, \"read_gbs\": %.2f"
                : "limits %d threads  peak_gflops %.1f  read_gbs %.2f\n",
           omp_get_max_threads(), peak, read);
    for (int i = 0; i < b->n_figures; i++) {
        const Figure *f = &b->figure[i].f;
        const struct { const char *name; double x; } value[] = {
            { "ms", f->ms }, { "tokens_per_s", f->tokens_per_s },
            { "targets_per_s", f->targets_per_s }, { "gflops", f->gflops },
            { "peak_share", f->gflops / peak }, { "gbs", f->gbs }, { "read_share", f->gbs / read },
            { "copied", f->copied }, { "nothing", f->nothing } };
        const bool first = !is(part, b->figure[i].part);
        part = b->figure[i].part;
        if (json && first) printf("%s, \"%s\": {", i ? "}" : "", part);
        if (json) printf("%s\"%s\": {", first ? "" : ", ", b->figure[i].shape);
        else printf("%s %s", part, b->figure[i].shape);
        for (size_t k = 0, n = 0; k < sizeof value / sizeof *value; k++)
            if (value[k].x > 0)
                printf(json ? "%s\"%s\": %.4g" : "%s %s %.4g", json && n++ ? ", " : "",
                       value[k].name, value[k].x);
        printf(json ? "}" : "\n");
    }
    if (json) printf("%s}\n", b->n_figures ? "}" : "");
}

// Writes the random model of a shape, on which llama.cpp is timed. Its vocabulary is made
// up: text does not matter here, but the file must have a piece for each row of the head.
static void write_bench_model(const struct Shape *s, const char *path) {
    Model m = bench_model(s);
    m.tokenizer = tokenizer_new(m.c.V);
    for (int id = 0; id < m.c.V; id++) {
        char piece[16];
        snprintf(piece, sizeof piece, id < BYTE0 || id >= FIRST_PIECE ? "piece%d" : "<0x%02X>",
                 id < BYTE0 || id >= FIRST_PIECE ? id : id - BYTE0);
        set_piece(m.tokenizer, id, text(id == UNK ? "<unk>" : piece), (float)-id);
    }
    m.c.context = 1024;                                 // room for llama.cpp's prompts
    model_save(&m, path);
    model_free(&m);
}

// `bench`: everything (a minute), one part, or one part at one shape, which may be given in
// options. With --out the random model of a shape is written instead.
static void run_bench(const Options *o) {
    const char *only = o->n_words > 1 ? o->word[1] : NULL;
    const char *shape = o->n_words > 2 ? o->word[2] : NULL;
    struct Shape own = { "own", (int)o->train.batch, { 0 } };
    const struct Shape *named = o->vocab ? &own : NULL;
    for (int j = 0; shape && j < SHAPES; j++)
        if (is(shape, SHAPE[j].name)) named = &SHAPE[j];
    if (shape && !named) usage_error("\"%s\" is not a shape", shape);
    if (own.B < 1 || own.B > 4096) usage_error("--batch needs a number from 1 to 4096 here");
    if (o->vocab) own.c = shape_of(&o->train, o->vocab);
    if (o->train.out) {
        if (!named) usage_error("--out needs a part and a shape");
        write_bench_model(named, o->train.out);
        return;
    }

    // The parts in turn, at the table's shapes or at the named one.
    Bench *b = zalloc(1, sizeof *b);
    b->buffer = zalloc(PROBE, sizeof(float));
    for (int i = 0; i < PARTS; i++) {
        if (only && !is(only, PART[i].name)) continue;
        if (named) bench_one(b, i, named);
        for (int j = 0; j < SHAPES && !named; j++)
            if (PART[i].shapes[j] == '+') bench_one(b, i, &SHAPE[j]);
    }
    if (!b->n_figures) usage_error("\"%s\" is nothing to measure", only);
    show_figures(b, o->json);
    FREE(b->buffer, b);
}

/* ================================================================================================
   6. Memory.  What training will need, counted by the functions that will allocate it. It depends
   on the shape, the longest row and the threads, but not on the batch: one unit is computed after
   another, and the gradients add up.

       parameters, gradients, moments     16 bytes for each weight, 4 more with --ema
       activations                        about L T (8 C + 3 F) floats for a unit of T tokens
       logits                             T V floats: with a large vocabulary more than all layers
       scratch                            for each thread: what gemm() packs, and attention's keys,
                                          values and scores
       checkpoint                         the model's file, which is assembled before it is
                                          written

   tests/lab_test.c compares the total with the peak that the kernel reports. */

// The scratch memory of one thread's kernels, in floats, for rows of n tokens: the packed
// blocks of gemm(); attention's keys, values and scores, forward or backward; Muon's two
// squares.
static double scratch_floats(const Config *c, int n, bool with_muon) {
    const int hs = head_size(c);
    const double scores = QUERIES * (double)round_up(n, NR);
    const double forth = scores + (double)packed_size(hs, n) + (double)packed_size(n, hs);
    const double back = 2 * (scores + (double)packed_size(hs, n));
    const double gemm_floats = (double)(NC + MC) * KC;
    return gemm_floats + fmax(forth, back) + (with_muon ? 2.0 * c->C * c->C : 0);
}

// The ledger. Rows are assumed to be as long as the context; a unit then has UNIT tokens,
// or one row. acts_layout() only counts while there is no memory to lay out.
static void show_memory(const Config *c, const TrainOptions *t) {
    const int T = c->context > UNIT ? c->context : UNIT;
    LayerActs *layer = zalloc((size_t)c->L, sizeof *layer);
    Acts a = { .T = T, .n_out = T, .training = true, .layer = layer };
    const double weights = (double)count_weights(c), all = (double)acts_layout(&a, c);
    const double logits = (double)T * c->V;
    const double own = scratch_floats(c, c->context, t->muon > 0) * omp_get_max_threads();
    const struct { const char *name; double floats; } line[] = {
        { "parameters", weights }, { "gradients", weights }, { "moments", 2 * weights },
        { "mean weights", t->ema > 0 ? weights : 0 }, { "activations", all - logits },
        { "logits", logits }, { "scratch", own }, { "checkpoint", weights },
        { "rotary angles", (double)round_up(T, 256) * head_size(c) } };
    double total = 0;
    printf("%.0f parameters; %d tokens at a time, %d threads; in MB\n", weights, T,
           omp_get_max_threads());
    for (size_t i = 0; i < sizeof line / sizeof *line; i++) {
        if (line[i].floats > 0) printf("%10.3f  %s\n", 4e-6 * line[i].floats, line[i].name);
        total += line[i].floats;
    }
    printf("%10.3f  total, beside the program, the tokenizer and 4 bytes for each token of the "
           "data\n", 4e-6 * total);
    free(layer);
}

// `memory`: for a model that exists, or for a shape in options. The options of `train` that
// cost memory are --ema, --muon and --threads.
static void run_memory(const Options *o) {
    Model m = { 0 };
    if (o->n_words > 1) model_load(&m, o->word[1]);
    else if (!o->vocab) usage_error("`memory` needs a model, or --vocab and a shape");
    else m.c = shape_of(&o->train, o->vocab);
    show_memory(&m.c, &o->train);
    model_free(&m);
}

/* ================================================================================================
   7. Command line.  An option may be in both tables, for different commands: --data belongs to
   `train` in aligner.c, and to `bound` and `steer` here. */

// The third column says which commands take an option, as in aligner.c's table.
#define SHAPED "bench memory"
static const Option LAB_OPTION[] = {
    { "--reference", INPUT, &lab.reference, "dpo rlhf", "the frozen policy; --init unless given" },
    { "--beta", REAL, &lab.beta, "dpo", "0.1" },
    { "--reward", INPUT, &lab.reward, "rlhf", "the reward model" },
    { "--kl", REAL, &lab.kl, "rlhf", "0.02" },
    { "--samples", INT, &lab.samples, "rlhf", "answers to each question, 4" },
    { "--max-tokens", INT, &options.how.max_tokens, "rlhf", "draws of an answer, at most" },
    { "--data", INPUTS, NULL, "bound steer", "rows with question, answer and correction" },
    { "--valid", INPUT, &options.train.valid, "steer", "rows to measure on; --data unless given" },
    { "--alpha", STRING, &lab.alpha, "steer", "A,A,...: strengths; -1 to 1 by quarters" },
    { "--layer", INT, &lab.layer, "steer", "only after this layer; 0: after each" },
    { "--target", STRING, &lab.target, "loglik", "answer or correction" },
    { "--json", FLAG, &options.json, "bound steer bench", "the result as JSON" },
    { "--vocab", INT, &options.vocab, SHAPED, "pieces, of a shape in options:" },
    { "--dim", INT, &options.train.dim, SHAPED, "default 128" },
    { "--layers", INT, &options.train.layers, SHAPED, "default 3" },
    { "--heads", INT, &options.train.heads, SHAPED, "default 8" },
    { "--kv-heads", INT, &options.train.kv_heads, SHAPED, "default: as many as --heads" },
    { "--hidden", INT, &options.train.hidden, SHAPED, "default: 11/4 of --dim" },
    { "--context", INT, &options.train.context, SHAPED, "tokens of the longest row, default 256" },
    { "--tied", FLAG, &options.train.tied, SHAPED, "the head is the embedding matrix" },
    { "--muon", REAL, &options.train.muon, "memory", "as in train" },
    { "--ema", REAL, &options.train.ema, "memory", "as in train" },
    { "--batch", LONG, &options.train.batch, "bench", "rows a step of the shape in options, 16" },
    { "--out", OUTPUT, &options.train.out, "bench", "write the shape's random model instead" },
    { NULL, FLAG, NULL, NULL, NULL } };

// The objectives of chapter 1 also take the options of `train`.
static const Command LAB_COMMAND[] = {
    { "dpo", "train", 1, 1, run_trial, "--init M.gguf --data F... --out D.gguf" },
    { "reward", "train", 1, 1, run_trial, "--data F... --out R.gguf: a model that judges" },
    { "rlhf", "train", 1, 1, run_trial, "--init M.gguf --reward R.gguf --data F... --out P.gguf" },
    { "bound", NULL, 3, 1, run_bound, "PI.gguf MU.gguf --data F...: both sides of Eq. (3)" },
    { "steer", NULL, 2, 1, run_steer, "M.gguf --data F: copy or correct as a direction" },
    { "loglik", NULL, 3, 1, run_measure, "M.gguf [F]: adds loglik (nats) and tokens to rows" },
    { "score", NULL, 3, 1, run_measure, "R.gguf [F]: adds the reward of question and answer" },
    { "bench", NULL, 3, 3, run_bench, "[train|rows|prefill|decode|draft [SHAPE]]: speed" },
    { "memory", NULL, 2, 1, run_memory, "[M.gguf]: what training needs of memory" },
    { NULL, NULL, 0, 0, NULL, NULL } };

#ifndef TEST_H
int main(int argc, char **argv) {
    const Option *const tables[] = { OPTION, LAB_OPTION, NULL };
    return run_command(LAB_COMMAND, tables, argc, argv);
}
#endif
