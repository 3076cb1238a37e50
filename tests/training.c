// training.c - training learns, and its bits depend on nothing but data, options and seed: not on threads, not on how
// rows are packed, not on interruptions. Runs of the loop are child processes, so that they can be stopped half-way.
#include "toy.h"

// The loop asks once a step whether stderr is a terminal, so this stands in for the user: no terminal, and at one step
// Ctrl-C (SIGINT) or a power cut (SIGKILL).
static long steps_seen, stop_at;
static int stop_by;
int isatty(int fd)
{
    (void)fd;
    if (++steps_seen == stop_at) raise(stop_by);
    return 0;
}

static TrainOptions options(const char *out, const char *log)
{
    return (TrainOptions){ .out = out, .log = log, .steps = 28, .batch = 3, .lr = 3e-3, .lr_warmup = 0.1, .clip = 0.5,
                           .weight_decay = 0.1, .adam_eps = 1e-8, .seed = 9, .save_every = 10, .quiet = 1 };
}

// Rows with targets of shortest to shortest + 7 tokens; big enough in all for the parallel loops to use their threads.
static Rows random_rows(int n, int shortest)
{
    uint64_t seed = 21;
    Rows r = { zalloc((size_t)n, sizeof(Row)), (size_t)n, (size_t)n };
    for (int i = 0; i < n; i++) {
        int condition = 20 + (int)(random_u64(&seed) % 60);
        r.row[i] = random_row(TOY_VOCAB, condition, condition + shortest + i % 8, &seed);
    }
    return r;
}

// Runs the loop on 11 rows in a process of its own and returns how that ended: an exit code, or minus a signal.
static int run(TrainOptions o, int threads, long at, int by, int shortest)
{
    int status = 0;
    fflush(stdout);
    pid_t child = fork();
    if (child) return waitpid(child, &status, 0), WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    Rows rows = random_rows(11, shortest), valid = random_rows(2, 2);
    Model m;
    if (!freopen("/dev/null", "w", stderr)) _exit(9);
    set_threads(threads);
    if (o.resume) model_load(&m, o.out);
    else toy_model(&m, 64, 2, 8);
    alarm(60);                                                  // no run of a test may go on for ever
    steps_seen = 0, stop_at = at, stop_by = by;
    train(&m, &rows, &valid, &o);
    _exit(0);
}

// --ema 0.75: the mean of all weights until there are four, then each step's weights count a quarter. It is what the
// model's file holds, while the model goes on from its own weights.
static void mean_weights(void)
{
    enum { STEPS = 7 };
    const char *out = "build/tests/tmp/mean.gguf";
    TrainOptions o = { .out = out, .ema = 0.75, .adam_eps = 1e-8 };
    Model m, saved;
    uint64_t seed = 4;
    double worst = 0, moved = 0;
    toy_model(&m, 64, 2, 8);
    size_t n = m.n_params;
    double *mean = zalloc(n, sizeof *mean);
    Progress s = { .m = zalloc(n, 4), .v = zalloc(n, 4), .mean = zalloc(n, 4), .ema = o.ema };
    m.grads = zalloc(n, 4);
    for (s.step = 0; s.step < STEPS; s.step++) {
        double share = s.step < 4 ? 1.0 / (double)(s.step + 1) : 0.25;
        for (size_t j = 0; j < n; j++) m.grads[j] = (float)(random_unit(&seed) - 0.5);
        update(&m, &s, &o, 1e-2);
        for (size_t j = 0; j < n; j++) mean[j] = (1 - share) * mean[j] + share * (double)m.params[j];
    }
    float *own = m.params;
    checkpoint(&m, &s, &o);
    OK(m.params == own, "a checkpoint leaves other weights behind");
    model_load(&saved, out);
    for (size_t j = 0; j < n; j++) {
        worst = fmax(worst, fabs(mean[j] - (double)saved.params[j]));
        moved = fmax(moved, fabs(mean[j] - (double)m.params[j]));
    }
    OK(worst < 1e-6 && moved > 1e-3, "the mean that was saved is off by %g; the weights by %g", worst, moved);
    free(mean), free(s.m), free(s.v), free(s.mean), model_free(&m), model_free(&saved);
}

static bool same_file(const char *a, const char *b)
{
    Buf x = read_all(a, NULL), y = read_all(b, NULL);
    bool is = same((Text){ x.s, x.n }, (Text){ y.s, y.n });
    free(x.s), free(y.s);
    return is && x.n;
}

// Weights, optimiser state and log of a run are those of run "one".
static void same_run(const char *name)
{
    static const char *const end[] = { ".gguf", ".gguf.state", ".csv" };
    char a[64], b[64];
    for (int i = 0; i < 3; i++) {
        snprintf(a, sizeof a, "build/tests/tmp/one%s", end[i]);
        snprintf(b, sizeof b, "build/tests/tmp/%s%s", name, end[i]);
        OK(same_file(a, b), "%s differs from %s", b, a);
    }
}

static void same_bits(void)
{
    // Ctrl-C at a step: saves and exits 1. A power cut 3 steps behind a checkpoint: the log has two lines too many.
    static const struct { long at; int by, ends; } stop[] = {
        { 13, SIGINT, 1 }, { 13, SIGKILL, -SIGKILL }, { 1, SIGINT, 1 }, { 28, SIGINT, 1 }, { 20, SIGINT, 1 } };
    static const char *const file[][2] = { { "build/tests/tmp/one.gguf", "build/tests/tmp/one.csv" },
                                           { "build/tests/tmp/two.gguf", "build/tests/tmp/two.csv" },
                                           { "build/tests/tmp/stopped.gguf", "build/tests/tmp/stopped.csv" } };
    for (int how = 0; how < 4; how++) {                         // 1: with the curriculum; 2: with Muon; 3: a mean
        TrainOptions o[3];
        for (int i = 0; i < 3; i++) {
            o[i] = options(file[i][0], file[i][1]);
            o[i].grow_below = how == 1 ? 5.9 : 0, o[i].muon = how == 2 ? 0.5 : 0, o[i].ema = how == 3 ? 0.9 : 0;
        }
        OK(run(o[0], 1, 0, 0, 2) == 0 && run(o[1], 2, 0, 0, 2) == 0, "a run with 1 or 2 threads fails");
        same_run("two");
        for (int i = 0; i < (how ? 2 : 5); i++) {
            o[2].resume = 0;
            int ended = run(o[2], 1, stop[i].at, stop[i].by, 2);
            OK(ended == stop[i].ends, "stopped at step %ld by signal %d: ends with %d", stop[i].at, stop[i].by, ended);
            o[2].resume = 1;
            OK(run(o[2], 1, 0, 0, 2) == 0, "cannot resume after step %ld, signal %d", stop[i].at, stop[i].by);
            same_run("stopped");
        }
        o[2].seed = 10;
        OK(run(o[2], 1, 0, 0, 2) == 1, "a run with another seed is no continuation");
        o[2].seed = 9, o[2].muon += 0.25;
        OK(run(o[2], 1, 0, 0, 2) == 1, "a run with another --muon is no continuation");
        o[2].muon -= 0.25, o[2].ema += 0.05;
        OK(run(o[2], 1, 0, 0, 2) == 1, "a run with another --ema is no continuation");
    }
}

// x[rows][cols] = U S V^T by one-sided Jacobi rotations, in double: turns pairs of columns until all are orthogonal. x
// becomes U S, v[cols][cols] V. Needs no matmul and no polynomial, so it is a witness of its own.
static void svd(double *x, double *v, int rows, int cols)
{
    for (int i = 0; i < cols * cols; i++) v[i] = i / cols == i % cols;
    for (int sweep = 0; sweep < 40; sweep++)
        for (int p = 0; p < cols; p++)
            for (int q = p + 1; q < cols; q++) {
                double a = 0, b = 0, c = 0;
                for (int i = 0; i < rows; i++) {
                    double xp = x[i * cols + p], xq = x[i * cols + q];
                    a += xp * xp, b += xq * xq, c += xp * xq;
                }
                double angle = 0.5 * atan2(2 * c, b - a), co = cos(angle), si = sin(angle);
                for (int i = 0; i < rows + cols; i++) {
                    double *row = i < rows ? x + i * cols : v + (i - rows) * cols, xp = row[p], xq = row[q];
                    row[p] = co * xp - si * xq, row[q] = si * xp + co * xq;
                }
            }
}

// What Muon does to a singular value s <= 1, from the printed polynomials.
static double stretched(double s)
{
    static const double P[3][3] = { { 8.20516, -22.90193, 16.46072 }, { 4.06640, -2.86115, 0.51840 },
                                    { 3.90959, -2.82335, 0.52504 } };
    for (int i = 0; i < 3; i++) s = P[i][0] * s + P[i][1] * s * s * s + P[i][2] * pow(s, 5);
    return s;
}

// U V^T, nearly: the singular vectors stay, the singular values go where the polynomials send them.
static void muon_directions(void)
{
    static const int shape[][2] = { { 1, 1 }, { 1, 7 }, { 9, 1 }, { 8, 8 }, { 33, 20 }, { 20, 33 }, { 40, 40 } };
    uint64_t seed = 77;
    for (double s = 1.0 / 300; s <= 1; s += 1e-4)
        OK(stretched(s) > 0.18 && stretched(s) < 1.87, "%g becomes %g, which is far from 1", s, stretched(s));
    for (int k = 0; k < 7; k++) {
        int rows = shape[k][0], cols = shape[k][1], n = rows * cols;
        float x[1600], y[1600], *own = zalloc(2 * 1600 + GEMM_SIZE, sizeof *own);
        double us[1600], v[1600], sum = 0, worst = 0;
        for (int i = 0; i < n; i++) us[i] = x[i] = (float)(random_unit(&seed) - 0.5) * 1e-3f, sum += us[i] * us[i];
        svd(us, v, rows, cols);
        orthogonalize(y, x, rows, cols, own);
        for (int j = 0; j < cols; j++) {                        // U S becomes U f(S), column by column
            double s = 0;
            for (int i = 0; i < rows; i++) s += us[i * cols + j] * us[i * cols + j];
            s = sqrt(s);
            for (int i = 0; i < rows; i++) us[i * cols + j] *= s > 1e-9 ? stretched(s / sqrt(sum)) / s : 0;
        }
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < cols; j++) {
                double want = 0;
                for (int c = 0; c < cols; c++) want += us[i * cols + c] * v[j * cols + c];
                worst = fmax(worst, fabs(want - (double)y[i * cols + j]));
            }
        OK(worst < 1e-4, "%d x %d: differs by %g from U f(S) V^T", rows, cols, worst);
        free(own);
    }
}

// One step with Muon: matrices inside layers move by 0.2 r in the root mean square, give or take what `stretched` does,
// against m; all other weights as AdamW moves them.
static void muon_step(void)
{
    TrainOptions o = { .clip = 1, .adam_eps = 1e-8, .muon = 0.5, .weight_decay = 0 };
    Model m[2];
    Progress s[2] = { 0 };
    for (int i = 0; i < 2; i++) {
        uint64_t seed = 4;
        toy_model(&m[i], 64, 2, 8);
        m[i].grads = zalloc(m[i].n_params, sizeof(float));
        size_t work = muon_size(&m[i].c);
        s[i] = (Progress){ .m = zalloc(m[i].n_params, 4), .v = zalloc(m[i].n_params, 4), .work = { zalloc(work, 4), work } };
        for (size_t j = 0; j < m[i].n_params; j++) m[i].grads[j] = (float)(random_unit(&seed) - 0.5);
    }
    float *before = zalloc(m[0].n_params, 4), *g = zalloc(m[0].n_params, 4);
    copy_floats(before, m[0].params, m[0].n_params), copy_floats(g, m[0].grads, m[0].n_params);
    double norm = update(&m[0], &s[0], &o, 1e-2);
    o.muon = 0;
    OK(norm == update(&m[1], &s[1], &o, 1e-2), "the norm depends on --muon");
    for (size_t i = 0; i < m[0].n_tensors; i++) {
        const Tensor *t = &m[0].tensor[i];
        size_t n = (size_t)t->rows * (size_t)t->cols;
        bool inner = !strncmp(t->name, "blk.", 4) && !strstr(t->name, "norm");
        double square = 0, along = 0, left = 0;
        for (size_t j = t->at; j < t->at + n; j++) {
            double d = (double)m[0].params[j] - (double)before[j];
            square += d * d / (double)n, along -= d * (double)g[j], left += fabs((double)m[0].grads[j]);
        }
        OK(left == 0, "%s: gradients are left over", t->name);
        bool adam = !memcmp(m[0].params + t->at, m[1].params + t->at, n * sizeof(float));
        OK(inner == !adam, "%s is %s", t->name, adam ? "AdamW's" : "Muon's");
        double rms = sqrt(square) / (0.2 * 0.5 * 1e-2);
        OK(!inner || (rms > 0.18 && rms < 1.87 && along > 0), "%s moves by %g times 0.2 r", t->name, rms);
    }
    for (int i = 0; i < 2; i++) free(s[i].m), free(s[i].v), free(s[i].work.own), model_free(&m[i]);
    free(before), free(g);
}

// A packed batch gives what its examples give one by one: the logits to the bit, sums to rounding.
static void packed(void)
{
    Rows r = random_rows(6, 2);
    Model m;
    Batch all, one;
    double nll[256], together, sum = 0, worst = 0, size = 0;
    toy_model(&m, 32, 2, 5);
    size_t ld = logits_ld(&m.c), at = 0;
    batch_alloc(&all, 1024, 6, 256), batch_alloc(&one, 128, 1, 128);
    for (int i = 0; i < 6; i++) batch_add(&all, &r.row[i]);
    acts_reserve(&m, all.T, all.n_out, TOY_CONTEXT, true);
    m.grads = zalloc(m.n_params, sizeof(float));
    float *logits = zalloc((size_t)all.n_out * ld, sizeof *logits), *grads = zalloc(m.n_params, sizeof *grads);
    forward(&m, &all, NULL);
    copy_floats(logits, m.acts.logits, (size_t)all.n_out * ld);
    together = loss_sum(&m, &all, nll, all.n_out);
    backward(&m, &all);
    copy_floats(grads, m.grads, m.n_params);
    memset(m.grads, 0, m.n_params * sizeof(float));
    for (int i = 0; i < 6; i++) {
        one.T = one.n = one.n_out = 0;
        batch_add(&one, &r.row[i]);
        forward(&m, &one, NULL);
        for (int j = 0; j < one.n_out; j++, at++)
            OK(!memcmp(logits + at * ld, m.acts.logits + (size_t)j * ld, (size_t)m.c.V * 4), "row %d, logits %d", i, j);
        sum += loss_sum(&m, &one, nll, all.n_out);
        backward(&m, &one);
    }
    OK(fabs(together - sum) < 1e-12 * sum, "the packed loss is %.12f, one by one %.12f", together, sum);
    for (size_t i = 0; i < m.n_params; i++) {
        worst = fmax(worst, fabs((double)grads[i] - (double)m.grads[i]));
        size = fmax(size, fabs((double)grads[i]));
    }
    OK(worst < 1e-6 * size, "packed gradients differ by %g of %g", worst, size);
    free(logits), free(grads), batch_free(&all), batch_free(&one), rows_free(&r), model_free(&m);
}

// A batch cut into micro-batches gives the bits of the whole one: loss and gradients, head tied or not, one thread or
// two; then weights, optimiser state and log of a run.
static void micro_batches(void)
{
    static const int room[] = { 4096, 1800, 1024, 700 };        // the last one has no room for more than one unit
    uint64_t seed = 5;
    for (int tied = 0; tied < 2; tied++) {
        Model m;
        Batch all, part;
        double *nll = zalloc(4096, sizeof *nll), loss = 0;
        random_model(&m, (Config){ 300, 32, 2, 4, 2, 48, 1024, tied, 1e-5f, 10000 }, 3);
        m.grads = zalloc(m.n_params, sizeof(float));
        float *whole = zalloc(m.n_params, sizeof(float));
        batch_alloc(&all, 4096, 64, 4096), batch_alloc(&part, 4096, 64, 4096);
        for (int i = 0; i < 30; i++) {                          // one row longer than a unit, one with a single target
            int n = i == 7 ? 701 : 5 + (int)(random_u64(&seed) % 200);
            Row r = random_row(300, i == 9 ? n - 1 : n / 2 + 1, n, &seed);
            if (all.T + n <= 4096) batch_add(&all, &r);
            free(r.ids);
        }
        for (int i = 0; i < 8; i++) {
            set_threads(1 + i / 4);
            acts_free(&m.acts), acts_reserve(&m, room[i % 4], room[i % 4], 700, true);
            memset(m.grads, 0, m.n_params * sizeof(float));
            double now = loss_and_gradients(&m, &all, &part, nll);
            if (!i) loss = now, copy_floats(whole, m.grads, m.n_params);
            OK(now == loss, "room for %d of %d tokens: the loss is %.17g, not %.17g", room[i % 4], all.T, now, loss);
            OK(!memcmp(whole, m.grads, m.n_params * sizeof(float)), "room for %d of %d tokens, %d threads, tied %d: "
               "other gradients", room[i % 4], all.T, 1 + i / 4, tied);
        }
        set_threads(1);
        free(nll), free(whole), batch_free(&all), batch_free(&part), model_free(&m);
    }
}

static void micro_runs(void)
{
    TrainOptions o = options("build/tests/tmp/one.gguf", "build/tests/tmp/one.csv");
    o.steps = 5, o.save_every = 2, o.batch = 40, o.micro_tokens = 100000;       // about 2,200 tokens
    OK(run(o, 1, 0, 0, 2) == 0, "a run with a large batch fails");
    o.out = "build/tests/tmp/micro.gguf", o.log = "build/tests/tmp/micro.csv";
    for (o.micro_tokens = 0; o.micro_tokens < 2000; o.micro_tokens += 900) {
        OK(run(o, 2, 0, 0, 2) == 0, "a run with --micro-tokens %ld fails", o.micro_tokens);
        same_run("micro");
    }
}

static void rate_and_order(void)
{
    TrainOptions o = { .lr = 2, .lr_warmup = 0.1 };
    OK(learning_rate(&o, 0, 100) == 2.0 / 11 && learning_rate(&o, 9, 100) == 20.0 / 11, "warm-up is linear, never 0");
    OK(learning_rate(&o, 10, 100) == 2, "then comes the peak");
    OK(fabs(learning_rate(&o, 55, 100) - 1.1) < 1e-12, "half-way down stands 55 %% of it");
    OK(fabs(learning_rate(&o, 100, 100) - 0.2) < 1e-12, "the cosine ends at a tenth");
    for (long s = 0; s < 99; s++) {
        double now = learning_rate(&o, s, 100), next = learning_rate(&o, s + 1, 100);
        OK(s < 10 ? next > now : next < now, "step %ld: from %g to %g", s, now, next);
    }
    o.lr_warmup = 0;
    OK(learning_rate(&o, 0, 1) == 2 && learning_rate(&o, 0, 100) == 2, "without warm-up the peak is first");
    o.lr_warmup = 1;
    for (long s = 0; s < 5; s++) OK(learning_rate(&o, s, 5) == 2 * (s + 1.0) / 6, "nothing but warm-up, step %ld", s);

    uint32_t a[100], b[100];
    for (int n = 0; n <= 100; n += n < 3 ? 1 : 97) {
        int seen[100] = { 0 };
        shuffle(a, (size_t)n, 1, 0);
        for (int i = 0; i < n; i++) OK(a[i] < 100 && !seen[a[i]]++, "shuffle of %d: %u twice or none", n, a[i]);
    }
    shuffle(b, 100, 1, 0);
    OK(!memcmp(a, b, sizeof a), "the same seed and epoch give the same order");
    shuffle(b, 100, 1, 1);
    OK(memcmp(a, b, sizeof a), "another epoch gives another order");
    shuffle(b, 100, 2, 0);
    OK(memcmp(a, b, sizeof a), "another seed gives another order");
}

static void drawing(void)
{
    Rows r = random_rows(24, 2);                                 // targets of 2 to 9 tokens, three rows of each
    uint32_t order[24];
    int seen[24] = { 0 };
    Batch b;
    batch_alloc(&b, 24 * 100, 24, 24 * 10);
    TrainOptions o = { .batch = 4, .seed = 3 };
    Progress s = { .epoch = -1, .at = 24, .bound = INT_MAX };
    for (int i = 0; i < 6; i++) {
        draw_batch(&b, &r, order, &s, &o);
        OK(b.n == 4, "%d rows of 4", b.n);
        for (int k = 0; k < 4 * 24; k++) {                      // which of the 24 is each of the 4?
            const Row *row = &r.row[k / 4];
            int *start = b.start + k % 4, n = row->n - 1;
            seen[k / 4] += n == start[1] - start[0] && !memcmp(row->ids, b.ids + start[0], (size_t)n * sizeof(int));
        }
    }
    for (int k = 0; k < 24; k++) OK(seen[k] == 1, "row %d comes %d times in the first epoch", k, seen[k]);
    o.tokens = 300, s.at = 24;
    for (int i = 0; i < 20; i++) {
        draw_batch(&b, &r, order, &s, &o);
        OK(b.T <= 300 && b.T > 200, "--tokens 300: %d tokens", b.T);
    }
    o.tokens = 0;
    for (s.bound = 3; s.bound < 16; s.bound *= 2)               // the curriculum: short targets only
        for (int i = 0; i < 10; i++) {
            int longest = 0;
            draw_batch(&b, &r, order, &s, &o);
            for (int k = 0, run = 0; k < b.n_out; k++, longest = run > longest ? run : longest)
                run = k && b.out[k] == b.out[k - 1] + 1 ? run + 1 : 1;
            OK(b.n == 4 && longest <= s.bound, "a target of %d tokens where %ld are allowed", longest, s.bound);
        }
    batch_free(&b), rows_free(&r);
}

// The curriculum of a whole run, from its log: the bound starts at 3 and doubles, and the first batches are short.
static void curriculum(void)
{
    TrainOptions o = options("build/tests/tmp/grow.gguf", "build/tests/tmp/grow.csv");
    long step, tokens, targets, bound, last_targets = 0, last_bound = 3;
    o.grow_below = 5.9, o.steps = 100;
    OK(run(o, 1, 0, 0, 2) == 0, "a run with --grow-below fails");
    Buf f = read_all(o.log, NULL);
    for (char *p = strchr(f.s, '\n'); p && p[1]; p = strchr(p + 1, '\n')) {
        OK(sscanf(p + 1, "%ld,%*f,%*f,%*f,%ld,%ld,%ld", &step, &tokens, &targets, &bound) == 4, "a line of the log");
        OK(!last_bound || targets - last_targets <= 3 * last_bound, "step %ld: too many targets", step);
        OK(bound == last_bound || bound == 2 * last_bound || !bound, "step %ld: the bound is %ld", step, bound);
        last_targets = targets, last_bound = bound;
    }
    OK(!last_bound, "after 100 steps rows are still held back");
    free(f.s);
    o.steps = 2;
    OK(run(o, 1, 0, 0, 8) == 0, "--grow-below on rows that are all longer than 3 tokens fails, or draws for ever");
}

static void by_heart(void)
{
    Model m;
    Buf y_c = { 0 };
    toy_model(&m, 32, 2, 1);
    toy_train(&m);
    for (int i = 0; i < TOYS; i++) {
        Triple t = toy(i);
        const char *reason = correct(&m, t.x, t.y_o, &y_c);
        OK(!reason && same((Text){ y_c.s, y_c.n }, t.y_c), "correction %d is \"%s\"", i, y_c.s);
    }
    free(y_c.s), model_free(&m);
}

int main(int argc, char **argv)
{
    (void)argc;
    if (!getenv("OMP_WAIT_POLICY"))                             // read before main: idle threads shall sleep, not spin
        setenv("OMP_WAIT_POLICY", "passive", 1), execvp(argv[0], argv);
    temporary("");                                              // makes the folder
    same_bits();                // children first: a process that has started OpenMP threads cannot hand them to a child
    curriculum();
    micro_runs();
    set_threads(1);
    packed();
    micro_batches();
    rate_and_order();
    mean_weights();
    muon_directions();
    muon_step();
    drawing();
    by_heart();
    return done("training");
}
