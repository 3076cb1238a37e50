// training.c: training learns, and its bits depend on nothing but data, options and seed: not on
// threads, not on how rows are packed, not on interruptions. Runs of the loop are child processes,
// so that they can be stopped half-way.
#include "toy.h"

// The step at which the user presses Ctrl-C (SIGINT) or the power fails (SIGKILL), through the hook
// that tests/lab.c uses for other losses.
static long steps_seen, stop_at;
static int stop_by;

static double stopping_loss(Run *run) {
    if (++steps_seen == stop_at) raise(stop_by);
    return supervised_loss(run);
}

static TrainOptions options_of(const char *out, const char *log) {
    return (TrainOptions){ .out = out, .log = log, .steps = 28, .batch = 3, .lr = 3e-3, .clip = 0.5,
                           .lr_warmup = 0.1, .weight_decay = 0.1, .adam_eps = 1e-8, .seed = 9,
                           .save_every = 10, .quiet = 1 };
}

// Rows with targets of shortest to shortest + 7 tokens; enough for the parallel loops to start
// threads.
static Rows random_rows(int n, int shortest) {
    uint64_t seed = 21;
    Rows r = { 0 };
    for (int i = 0; i < n; i++) {
        int condition = 20 + (int)(random_u64(&seed) % 60);
        rows_add(&r, random_row(TOY_VOCAB, condition, condition + shortest + i % 8, &seed));
    }
    return r;
}

// How a run in a process of its own differs from the usual one.
typedef struct {
    int threads;
    long at;
    int by, shortest, n_rows;
    bool swapped;
    const char *prompt;
} How;

// Trains in a child process and returns how it ended: an exit code, or minus a signal.
static int run_child(TrainOptions o, How how) {
    int status = 0;
    fflush(stdout);
    pid_t child = fork();
    if (child) {
        waitpid(child, &status, 0);
        return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    }
    Rows rows = random_rows(how.n_rows ? how.n_rows : 11, how.shortest ? how.shortest : 2);
    Rows valid = random_rows(2, 2);
    Model m;
    if (how.swapped) {
        Row swap = rows.row[3];
        rows.row[3] = rows.row[4];
        rows.row[4] = swap;
    }
    if (!freopen("/dev/null", "w", stderr)) _exit(9);
    set_threads(how.threads ? how.threads : 1);
    toy_model(&m, 64, 2, 8);
    if (how.prompt) set_template(&m, how.prompt);
    alarm(60); // no run of a test may go on for ever
    stop_at = how.at;
    stop_by = how.by;
    train(&(Run){ .model = &m, .rows = &rows, .valid = &valid, .o = &o, .loss = stopping_loss });
    _exit(0);
}

static bool same_files(const char *a, const char *b) {
    Buf x = read_all(a), y = read_all(b);
    bool equal = same(contents(&x), contents(&y)) && x.n;
    FREE(x.s, y.s);
    return equal;
}

// Weights, optimiser state and (if with_log) log of a run are those of run "one".
static void same_run(const char *name, bool with_log) {
    static const char *const END[] = { ".gguf", ".gguf.state", ".csv" };
    char a[64], b[64];
    for (int i = 0; i < 2 + with_log; i++) {
        snprintf(a, sizeof a, "build/tests/tmp/one%s", END[i]);
        snprintf(b, sizeof b, "build/tests/tmp/%s%s", name, END[i]);
        OK(same_files(a, b), "%s differs from %s", b, a);
    }
}

#define TMP "build/tests/tmp/"

static void same_whatever_happens(void) {
    // Ctrl-C at a step saves and exits 1. After a power cut the log has two lines twice.
    static const struct { long at; int by, ends; } STOP[] = {
        { 13, SIGINT, 1 }, { 13, SIGKILL, -SIGKILL }, { 1, SIGINT, 1 }, { 1, SIGKILL, -SIGKILL },
        { 28, SIGINT, 1 }, { 20, SIGINT, 1 } };
    static const char *const FILES[][2] = { { TMP "one.gguf", TMP "one.csv" },
                                            { TMP "two.gguf", TMP "two.csv" },
                                            { TMP "stopped.gguf", TMP "stopped.csv" } };
    for (int how = 0; how < 4; how++) { // 1: short rows first; 2: Muon; 3: mean
        TrainOptions o[3];
        for (int i = 0; i < 3; i++) {
            o[i] = options_of(FILES[i][0], FILES[i][1]);
            o[i].grow_below = how == 1 ? 5.9 : 0;
            o[i].muon = how == 2 ? 0.5 : 0;
            o[i].ema = how == 3 ? 0.9 : 0;
        }
        OK(!run_child(o[0], (How){ 0 }) && !run_child(o[1], (How){ .threads = 2 }), "a run fails");
        same_run("two", true);
        for (int i = 0; i < (how ? 2 : 6); i++) {
            remove(TMP "stopped.gguf");
            remove(TMP "stopped.gguf.state");
            o[2].resume = 0;
            int ended = run_child(o[2], (How){ .at = STOP[i].at, .by = STOP[i].by });
            OK(ended == STOP[i].ends, "stopped at %ld by %d: ends with %d", STOP[i].at, STOP[i].by,
               ended);
            o[2].resume = 1;
            OK(!run_child(o[2], (How) { 0 }), "cannot resume after %ld, signal %d", STOP[i].at,
               STOP[i].by);
            same_run("stopped", STOP[i].by == SIGINT);
        }
    }
}

// --resume is for the same command; what decides the result must be what it was.
static void other_runs(void) {
    TrainOptions o = options_of(TMP "stopped.gguf", NULL), other;
    o.ema = 0.9;
    o.resume = 1;
    static const How HOW[] = { { .n_rows = 12 },
                               { .n_rows = 10 },
                               { .swapped = true },
                               { .prompt = "v1" },
                               { .shortest = 3 } };
    for (int i = 0; i < 5; i++)
        OK(run_child(o, HOW[i]) == 1, "other rows or prompt (%d) are taken", i);
    for (int i = 0; i < 9; i++) {
        other = o;
        if (i == 0) other.seed = 10;
        if (i == 1) other.muon = 0.25;
        if (i == 2) other.ema = 0.95;
        if (i == 3) other.ema = 0;
        if (i == 4) other.lr = 1e-3;
        if (i == 5) other.batch = 4;
        if (i == 6) other.tokens = 300;
        if (i == 7) other.weight_decay = 0;
        if (i == 8) other.adam_eps = 1e-4;
        OK(run_child(other, (How){ 0 }) == 1, "other options (%d) are no continuation", i);
    }
    other = o;
    other.steps = 30;
    other.save_every = 3;
    other.log = TMP "more.csv";
    OK(!run_child(other, (How) { .threads = 2 }),
       "--steps, --save-every, --log, --threads may differ");
    remove(TMP "stopped.gguf.state");
    OK(run_child(o, (How){ 0 }) == 1, "a model without its state is no run");
    remove(TMP "stopped.gguf");
    OK(!run_child(o, (How){ 0 }), "nothing saved yet: starts at the first step");
}

// --ema 0.75: the mean of all weights until there are four, then each step's weights count a
// quarter. It is what the model's file holds, while the model goes on from its own weights.
static void mean_weights(void) {
    enum { STEPS = 7 };
    const TrainOptions o = { .out = TMP "mean.gguf", .ema = 0.75, .adam_eps = 1e-8 };
    Model m, saved;
    uint64_t seed = 4;
    double worst = 0, moved = 0;
    toy_model(&m, 64, 2, 8);
    grads_alloc(&m);
    const size_t n = m.n_params;
    Run run = { .model = &m,
                .o = &o,
                .p = { .m = zalloc(n, 4), .v = zalloc(n, 4), .mean = zalloc(n, 4) } };
    double *mean = zalloc(n, sizeof *mean);
    for (; run.p.step < STEPS; run.p.step++) {
        double share = run.p.step < 4 ? 1.0 / (double)(run.p.step + 1) : 0.25;
        for (size_t j = 0; j < n; j++) m.grads[j] = (float)(random_unit(&seed) - 0.5);
        adamw(&m, &run.p, &o, 1e-2, 1);
        update_mean(&m, &run.p, &o);
        for (size_t j = 0; j < n; j++)
            mean[j] = (1 - share) * mean[j] + share * (double)m.params[j];
    }
    const float *own = m.params;
    checkpoint(&run);
    OK(m.params == own && m.w.embd == own, "a checkpoint leaves other weights behind");
    model_load(&saved, o.out);
    for (size_t j = 0; j < n; j++) {
        worst = fmax(worst, fabs(mean[j] - (double)saved.params[j]));
        moved = fmax(moved, fabs(mean[j] - (double)m.params[j]));
    }
    OK(worst < 1e-6 && moved > 1e-3, "the saved mean is off by %g; the weights by %g", worst,
       moved);
    FREE(mean, run.p.m, run.p.v, run.p.mean);
    model_free(&m);
    model_free(&saved);
}

// The validation loss of a run is that of the weights it saves, mean or not.
static void validated(void) {
    TrainOptions o = options_of(TMP "valid.gguf", TMP "valid.csv");
    Rows valid = random_rows(2, 2);
    for (int mean = 0; mean < 2; mean++) {
        Model m;
        double logged = -1;
        o.ema = mean ? 0.9 : 0;
        OK(!run_child(o, (How){ 0 }), "a run with a validation file fails");
        Buf log = read_all(o.log);
        OK(log.n && sscanf(strrchr(log.s, ',') + 1, "%lf", &logged) == 1, "no loss in the log");
        model_load(&m, o.out);
        double loss = mean_loss(&m, &valid);
        OK(fabs(loss - logged) < 1e-6, "mean %d: %.6f is logged, the file has %.6f", mean, logged,
           loss);
        free(log.s);
        model_free(&m);
    }
    rows_free(&valid);
}

// x[rows][cols] = U S V^T by one-sided Jacobi rotations, in double: turns pairs of columns until
// all are orthogonal. x becomes U S, v[cols][cols] V. Needs no matmul and no polynomial, so it is a
// witness of its own.
static void svd(double *x, double *v, int rows, int cols) {
    for (int i = 0; i < cols * cols; i++) v[i] = i / cols == i % cols;
    for (int sweep = 0; sweep < 40; sweep++)
        for (int p = 0; p < cols; p++)
            for (int q = p + 1; q < cols; q++) {
                double a = 0, b = 0, c = 0;
                for (int i = 0; i < rows; i++) {
                    double xp = x[i * cols + p], xq = x[i * cols + q];
                    a += xp * xp;
                    b += xq * xq;
                    c += xp * xq;
                }
                double angle = 0.5 * atan2(2 * c, b - a), co = cos(angle), si = sin(angle);
                for (int i = 0; i < rows + cols; i++) {
                    double *row = i < rows ? x + i * cols : v + (i - rows) * cols, xp = row[p],
                           xq = row[q];
                    row[p] = co * xp - si * xq;
                    row[q] = si * xp + co * xq;
                }
            }
}

// What Muon does to a singular value s <= 1, from the printed polynomials.
static double stretched(double s) {
    static const double P[3][3] = { { 8.20516, -22.90193, 16.46072 },
                                    { 4.06640, -2.86115, 0.51840 },
                                    { 3.90959, -2.82335, 0.52504 } };
    for (int i = 0; i < 3; i++) s = P[i][0] * s + P[i][1] * s * s * s + P[i][2] * pow(s, 5);
    return s;
}

// U V^T, nearly: the singular vectors stay, the singular values go where the polynomials send them.
static void muon_directions(void) {
    static const int SHAPE[][2] = { { 1, 1 },   { 1, 7 },   { 9, 1 },  { 8, 8 },
                                    { 33, 20 }, { 20, 33 }, { 40, 40 } };
    uint64_t seed = 77;
    for (double s = 1.0 / 300; s <= 1; s += 1e-4)
        OK(stretched(s) > 0.18 && stretched(s) < 1.87, "%g becomes %g, far from 1", s,
           stretched(s));
    for (int k = 0; k < 7; k++) {
        const int rows = SHAPE[k][0], cols = SHAPE[k][1];
        float x[1600], y[1600];
        double us[1600], v[1600], sum = 0, worst = 0;
        for (int i = 0; i < rows * cols; i++) {
            x[i] = (float)(random_unit(&seed) - 0.5) * 1e-3f;
            us[i] = (double)x[i];
            sum += us[i] * us[i];
        }
        svd(us, v, rows, cols);
        orthogonalize(y, x, rows, cols);
        for (int j = 0; j < cols; j++) { // U S becomes U f(S), column by column
            double s = 0;
            for (int i = 0; i < rows; i++) s += us[i * cols + j] * us[i * cols + j];
            s = sqrt(s);
            for (int i = 0; i < rows; i++)
                us[i * cols + j] *= s > 1e-9 ? stretched(s / sqrt(sum)) / s : 0;
        }
        for (int i = 0; i < rows * cols; i++) {
            double want = 0;
            for (int c = 0; c < cols; c++) want += us[i / cols * cols + c] * v[i % cols * cols + c];
            worst = fmax(worst, fabs(want - (double)y[i]));
        }
        OK(worst < 1e-4, "%d x %d: differs by %g from U f(S) V^T", rows, cols, worst);
    }
}

// One step with Muon: matrices inside layers move by 0.2 r in the root mean square, give or take
// what stretched() does, against the gradient; all other weights as AdamW moves them.
static void muon_step(void) {
    TrainOptions o = { .adam_eps = 1e-8, .muon = 0.5 };
    Model m[2];
    Progress p[2] = { { .running = 0 } };
    for (int i = 0; i < 2; i++) {
        uint64_t seed = 4;
        toy_model(&m[i], 64, 2, 8);
        grads_alloc(&m[i]);
        p[i].m = zalloc(m[i].n_params, 4);
        p[i].v = zalloc(m[i].n_params, 4);
        for (size_t j = 0; j < m[i].n_params; j++)
            m[i].grads[j] = (float)(random_unit(&seed) - 0.5);
    }
    float *before = zalloc(m[0].n_params, 4), *g = zalloc(m[0].n_params, 4);
    copy_floats(before, m[0].params, m[0].n_params);
    copy_floats(g, m[0].grads, m[0].n_params);
    muon(&m[0], &p[0], &o, 1e-2, 0.7f);
    adamw(&m[0], &p[0], &o, 1e-2, 0.7f);
    o.muon = 0;
    adamw(&m[1], &p[1], &o, 1e-2, 0.7f);
    for (size_t i = 0; i < m[0].n_tensors; i++) {
        const Tensor *t = &m[0].tensor[i];
        const size_t n = (size_t)t->rows * (size_t)t->cols;
        const bool inner = !strncmp(t->name, "blk.", 4) && !strstr(t->name, "norm");
        double square = 0, along = 0, left = 0;
        for (size_t j = t->at; j < t->at + n; j++) {
            double d = (double)m[0].params[j] - (double)before[j];
            square += d * d / (double)n;
            along -= d * (double)g[j];
            left += fabs((double)m[0].grads[j]);
        }
        OK(left == 0, "%s: gradients are left over", t->name);
        bool adam = same_bits(m[0].params + t->at, m[1].params + t->at, n);
        OK(inner == !adam, "%s is %s", t->name, adam ? "AdamW's" : "Muon's");
        double rms = sqrt(square) / (0.2 * 0.5 * 1e-2);
        OK(!inner || (rms > 0.18 && rms < 1.87 && along > 0), "%s: %g times 0.2 r", t->name, rms);
    }
    for (int i = 0; i < 2; i++) {
        FREE(p[i].m, p[i].v);
        model_free(&m[i]);
    }
    FREE(before, g);
}

// A packed unit gives what its rows give one by one: the logits to the bit, sums to rounding.
static void packed(void) {
    Rows r = random_rows(6, 2);
    Model m;
    Batch all, one;
    double sum = 0, worst = 0, size = 0;
    toy_model(&m, 32, 2, 5);
    grads_alloc(&m);
    batch_alloc(&all, 1024, 6);
    batch_alloc(&one, 128, 1);
    for (int i = 0; i < 6; i++) batch_add(&all, &r.row[i]);
    acts_reserve(&m, all.T, all.n_out, TOY_CONTEXT, true);
    const size_t ld = (size_t)m.c.V, n = (size_t)all.n_out * ld;
    float *logits = zalloc(n, sizeof *logits), *grads = zalloc(m.n_params, sizeof *grads),
          *z = logits;
    forward(&m, &all, NULL);
    copy_floats(logits, m.acts.logits, n);
    const double together = cross_entropy(&m, &all, 7);
    backward(&m, &all);
    copy_floats(grads, m.grads, m.n_params);
    memset(m.grads, 0, m.n_params * sizeof(float));
    for (int i = 0; i < 6; i++) {
        batch_clear(&one);
        batch_add(&one, &r.row[i]);
        forward(&m, &one, NULL);
        for (int j = 0; j < one.n_out; j++, z += ld)
            OK(same_bits(z, m.acts.logits + j * ld, (size_t)m.c.V), "row %d, logits %d", i, j);
        sum += cross_entropy(&m, &one, 7);
        backward(&m, &one);
    }
    OK(fabs(together - sum) < 1e-12 * sum, "the packed loss is %.12f, one by one %.12f", together,
       sum);
    for (size_t i = 0; i < m.n_params; i++) {
        worst = fmax(worst, fabs((double)grads[i] - (double)m.grads[i]));
        size = fmax(size, fabs((double)grads[i]));
    }
    OK(worst < 1e-6 * size, "packed gradients differ by %g of %g", worst, size);
    FREE(logits, grads);
    batch_free(&all);
    batch_free(&one);
    rows_free(&r);
    model_free(&m);
}

// A step is computed in units of whole rows, as many as fit into UNIT tokens; a longer row is a
// unit by itself. Loss and gradients are the sum over the units in order, on any number of threads.
static void units(void) {
    enum { ROWS = 30, LONG = 1100 };
    const TrainOptions o = { .batch = ROWS, .seed = 2 };
    uint64_t seed = 5;
    Rows rows = { 0 }, none = { 0 };
    for (int i = 0; i < ROWS; i++) { // one is too long, one has a single target
        int n = i == 7 ? LONG + 1 : 5 + (int)(random_u64(&seed) % 200);
        rows_add(&rows, random_row(300, i == 9 ? n - 1 : n / 2 + 1, n, &seed));
    }
    OK(unit_size(&rows, &none) >= LONG, "no room for the longest row");
    for (int tied = 0; tied < 2; tied++) {
        Model m;
        Run run = { .model = &m, .rows = &rows, .valid = &none, .o = &o };
        random_model(&m,
                     (Config) { .V = 300,
                                .C = 32,
                                .L = 2,
                                .H = 4,
                                .H_kv = 2,
                                .F = 48,
                                .context = 2048,
                                .tied = tied,
                                .eps = 1e-5f,
                                .theta = 1e4f },
                     3);
        m.template = copy_text(text(""));                       // run_hash() reads it
        run_init(&run);
        float *first = zalloc(m.n_params, sizeof *first),
              *grads = zalloc(m.n_params, sizeof *grads);
        double loss = 0;
        for (int threads = 1; threads <= 2; threads++) {
            set_threads(threads);
            run.p.epoch = -1;
            run.p.at = ROWS;
            run.p.tokens = 0;
            memset(m.grads, 0, m.n_params * sizeof(float));
            double now = supervised_loss(&run);
            if (threads == 1) loss = now;
            if (threads == 1) copy_floats(first, m.grads, m.n_params);
            OK(now == loss && same_bits(first, m.grads, m.n_params), "%d threads: other bits",
               threads);
        }
        set_threads(1);
        memset(m.grads, 0, m.n_params * sizeof(float));
        double again = 0;
        int n_targets = 0, n_units = 0;
        long tokens = 0;
        for (int i = 0; i < ROWS; i++) n_targets += run.drawn[i]->n - run.drawn[i]->n_condition;
        for (int i = 0, next; i < ROWS; i = next, n_units++) {
            next = fill_unit(&run.unit, run.drawn, i, ROWS);
            OK(run.unit.n == next - i && (run.unit.T <= UNIT || next == i + 1),
               "%d: a unit of %d tokens", i, run.unit.T);
            OK(next == ROWS || run.unit.T + run.drawn[next]->n - 1 > UNIT, "%d: one more would fit",
               i);
            forward(&m, &run.unit, NULL);
            again += cross_entropy(&m, &run.unit, n_targets);
            backward(&m, &run.unit);
            tokens += run.unit.T;
        }
        OK(again == loss && same_bits(first, m.grads, m.n_params), "not the sum over the units");
        OK(n_units > 3 && tokens == run.p.tokens, "%d units, %ld of %ld tokens", n_units,
           run.p.tokens, tokens);
        FREE(first, grads, run.order, run.drawn, run.p.m, run.p.v);
        batch_free(&run.unit);
        model_free(&m);
    }
    rows_free(&rows);
}

static void rate_and_order(void) {
    TrainOptions o = { .lr = 2, .lr_warmup = 0.1 };
    OK(learning_rate(&o, 0, 100) == 2.0 / 11 && learning_rate(&o, 9, 100) == 20.0 / 11,
       "warm-up is linear, never 0");
    OK(learning_rate(&o, 10, 100) == 2, "then comes the peak");
    OK(fabs(learning_rate(&o, 55, 100) - 1.1) < 1e-12, "half-way down stands 55 %% of it");
    OK(fabs(learning_rate(&o, 100, 100) - 0.2) < 1e-12, "the cosine ends at a tenth");
    for (long s = 0; s < 99; s++) {
        double now = learning_rate(&o, s, 100), next = learning_rate(&o, s + 1, 100);
        OK(s < 10 ? next > now : next < now, "step %ld: from %g to %g", s, now, next);
    }
    o.lr_warmup = 0;
    OK(learning_rate(&o, 0, 1) == 2 && learning_rate(&o, 0, 100) == 2,
       "without warm-up the peak is first");
    o.lr_warmup = 1;
    for (long s = 0; s < 5; s++)
        OK(learning_rate(&o, s, 5) == 2 * (s + 1.0) / 6, "nothing but warm-up, step %ld", s);

    uint32_t a[100], b[100];
    for (int n = 0; n <= 100; n += n < 3 ? 1 : 97) {
        int seen[100] = { 0 };
        shuffle(a, (size_t)n, 1, 0);
        for (int i = 0; i < n; i++)
            OK(a[i] < 100 && !seen[a[i]]++, "shuffle of %d: %u twice or none", n, a[i]);
    }
    shuffle(b, 100, 1, 0);
    OK(!memcmp(a, b, sizeof a), "the same seed and epoch give the same order");
    shuffle(b, 100, 1, 1);
    OK(memcmp(a, b, sizeof a), "another epoch gives another order");
    shuffle(b, 100, 2, 0);
    OK(memcmp(a, b, sizeof a), "another seed gives another order");
}

// A run that only draws.
static Run drawing_run(const Rows *rows, const TrainOptions *o) {
    Run run = { .rows = rows, .o = o };
    run.order = zalloc(rows->n, sizeof *run.order);
    run.drawn = zalloc(rows->n, sizeof *run.drawn);
    run.p = (Progress){ .epoch = -1, .at = (long)rows->n, .longest_target = INT_MAX };
    return run;
}

// Each row comes once an epoch, whatever the batch is; the last batch of an epoch may be short.
static void drawing(void) {
    enum { ROWS = 24 };
    static const TrainOptions HOW[] = { { .batch = 4 },           { .batch = 5 },
                                        { .batch = 64 },          { .tokens = 300 },
                                        { .tokens = 1 },          { .tokens = 100000 },
                                        { .batch = 1, .seed = 7 } };
    Rows r = random_rows(ROWS, 2); // targets of 2 to 9 tokens, 3 rows of each
    for (int k = 0; k < 7; k++)
        for (long epochs = 1; epochs <= 3; epochs++) {
            TrainOptions o = HOW[k];
            o.epochs = epochs;
            Run run = drawing_run(&r, &o);
            const long steps = count_steps(&run);
            long seen[ROWS] = { 0 };
            OK(run.p.epoch == -1 && run.p.at == ROWS, "counting moves the run");
            for (long s = 0; s < steps; s++) {
                const int n = draw_rows(&run);
                long tokens = 0;
                for (int i = 0; i < n; i++) {
                    seen[run.drawn[i] - r.row]++;
                    tokens += run.drawn[i]->n - 1;
                }
                OK(n >= 1 && (o.tokens ? tokens <= o.tokens || n == 1 : n <= o.batch),
                   "%d: %d rows", k, n);
                OK(o.tokens || n == o.batch || run.p.at == ROWS, "%d: %d rows before the end", k,
                   n);
            }
            for (int i = 0; i < ROWS; i++)
                OK(seen[i] == epochs, "%d: row %d comes %ld times in %ld epochs", k, i, seen[i],
                   epochs);
            OK(run.p.at == ROWS && run.p.epoch == epochs - 1, "%d: the last epoch does not end", k);
            FREE(run.order, run.drawn);
        }
    const TrainOptions o = { .batch = 4, .seed = 3 };
    Run run = drawing_run(&r, &o);                              // short targets only
    for (run.p.longest_target = 3; run.p.longest_target < 16; run.p.longest_target *= 2)
        for (int i = 0; i < 10; i++)
            for (int n = draw_rows(&run), j = 0; j < n; j++) {
                int target = run.drawn[j]->n - run.drawn[j]->n_condition;
                OK(target <= run.p.longest_target, "a target of %d tokens", target);
            }
    FREE(run.order, run.drawn);
    rows_free(&r);
}

// Short rows first, from the log of a whole run: the bound starts at 3 and doubles.
static void short_rows_first(void) {
    TrainOptions o = options_of(TMP "grow.gguf", TMP "grow.csv");
    long step, tokens, targets, bound, last_targets = 0, last_bound = 3;
    o.grow_below = 5.9;
    o.steps = 100;
    OK(!run_child(o, (How){ 0 }), "a run with --grow-below fails");
    Buf f = read_all(o.log);
    for (char *p = strchr(f.s, '\n'); p && p[1]; p = strchr(p + 1, '\n')) {
        int n = sscanf(p + 1, "%ld,%*f,%*f,%*f,%ld,%ld,%ld", &step, &tokens, &targets, &bound);
        OK(n == 4, "a line of the log");
        OK(!last_bound || targets - last_targets <= 3 * last_bound, "step %ld: too many targets",
           step);
        OK(bound == last_bound || bound == 2 * last_bound || !bound, "step %ld: bound %ld", step,
           bound);
        last_targets = targets;
        last_bound = bound;
    }
    OK(!last_bound, "after 100 steps rows are still held back");
    free(f.s);
    o.steps = 2;
    OK(!run_child(o, (How) { .shortest = 8 }),
       "--grow-below on rows that are all long: no step, or no end");
}

static void by_heart(void) {
    Model m;
    Generator g;
    Buf y_c = { 0 };
    toy_model(&m, 32, 2, 1);
    toy_train(&m);
    generator_init(&g, &m, (Decoding){ .top_p = 1 });
    for (int i = 0; i < TOYS; i++) {
        Triple t = toy(i);
        const char *reason = correct(&g, t.x, t.y_o, &y_c);
        OK(!reason && same(contents(&y_c), t.y_c), "correction %d is \"%s\"", i, y_c.s);
    }
    free(y_c.s);
    generator_free(&g);
    model_free(&m);
}

int main(int argc, char **argv) {
    (void)argc;
    if (!getenv("OMP_WAIT_POLICY")) { // read before main: idle threads sleep
        setenv("OMP_WAIT_POLICY", "passive", 1);
        execvp(argv[0], argv);
    }
    temporary("");                                              // makes the folder
    same_whatever_happens(); // children first: a process with OpenMP threads has none for a child
    other_runs();
    short_rows_first();
    validated();
    set_threads(1);
    packed();
    units();
    rate_and_order();
    mean_weights();
    muon_directions();
    muon_step();
    drawing();
    by_heart();
    return done("training");
}
