// test.h: a failing check prints file, line and what it was about; done() prints the counts and
// gives main its exit code.
#ifndef TEST_H
#define TEST_H
#include "../aligner.c"             // with -DALIGNER_NO_MAIN: the tests see every static function
#include <sys/wait.h>

#ifndef SHARE
#define SHARE 1                     // 5: a fifth of the rounds, for an emulator
#endif

static long n_passed, n_failed;

static void __attribute__((format(printf, 4, 5)))
check_at(const char *file, int line, bool ok, const char *format, ...) {
    va_list a;
    n_passed += ok;
    n_failed += !ok;
    if (ok) return;
    va_start(a, format);
    printf("%s:%d: failed: ", file, line);
    vprintf(format, a);
    putchar('\n');
    va_end(a);
}
#define OK(condition, ...) check_at(__FILE__, __LINE__, condition, __VA_ARGS__)

static int done(const char *subject) {
    printf("%s: %ld passed, %ld failed\n", subject, n_passed, n_failed);
    return n_failed || !n_passed;
}

// How many threads the parallel loops get from here on, if the program is built with OpenMP. Tests
// that are not about threads take one: OpenMP's idle threads spin, and small loops would wait.
static void set_threads(int threads) {
    (void)threads;
#ifdef _OPENMP
    omp_set_num_threads(threads);
#endif
}

static char message[4096];          // what the last child of dies() wrote, if one line: without \n

// Runs f in a child process. True if it died with exit code 1 and exactly one line on stderr.
static bool dies(void (*f)(const void *), const void *argument) {
    int pipe_end[2], status = 0;
    ssize_t n, total = 0;
    fflush(stdout);
    if (pipe(pipe_end)) return false;
    pid_t child = fork();
    if (!child) {
        dup2(pipe_end[1], 2);
        close(pipe_end[0]);
        close(pipe_end[1]);
        f(argument);
        _exit(0);
    }
    close(pipe_end[1]);
    while ((n = read(pipe_end[0], message + total, sizeof message - 1 - (size_t)total)) > 0)
        total += n;
    message[total] = 0;
    close(pipe_end[0]);
    waitpid(child, &status, 0);
    bool one_line = total > 0 && strchr(message, '\n') == message + total - 1;
    if (one_line) message[total - 1] = 0;
    return WIFEXITED(status) && WEXITSTATUS(status) == 1 && one_line;
}

// Temporary files go to the build folder; tests run from the project's root. The path stays good
// until the fourth call from here.
static const char *temporary(const char *name) {
    static char path[4][128];
    static int next;
    mkdir("build", 0777);
    mkdir("build/tests", 0777);
    mkdir("build/tests/tmp", 0777);
    snprintf(path[next %= 4], sizeof *path, "build/tests/tmp/%s", name);
    return path[next++];
}

static void put_file(const char *path, const void *s, size_t n) {
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(s, 1, n, f) == n && !fclose(f), "cannot write %s", path);
}

static bool same_bits(const float *a, const float *b, size_t n) {
    return !memcmp(a, b, n * sizeof *a);
}

// A model of this shape with random weights. It has no tokenizer: for tests that use ids only.
static void random_model(Model *m, Config c, uint64_t seed) {
    *m = (Model){ .c = c };
    model_alloc(m);
    model_init(m, seed);
    for (size_t i = 0; i < m->n_tensors; i++) { // norms off 1: their gradients mean something
        const Tensor *t = &m->tensor[i];
        for (int j = 0; t->rows == 1 && j < t->cols; j++)
            m->params[t->at + (size_t)j] += (float)(random_unit(&seed) - 0.5);
    }
}

// A row of n random ids, n_condition of them condition. Owned by the caller.
static Row random_row(int V, int n_condition, int n, uint64_t *seed) {
    Row r = { ints(n), n_condition, n };
    for (int i = 0; i < n; i++) r.ids[i] = (int)(random_u64(seed) % (uint64_t)V);
    return r;
}

// A vocabulary of the special pieces, the bytes and n pieces of our own.
typedef struct { const char *s; float score; } Piece;

static Tokenizer *vocabulary(const Piece *p, int n) {
    Tokenizer *k = tokenizer_new(FIRST_PIECE + n);
    set_special_pieces(k);
    for (int i = 0; i < n; i++) set_piece(k, FIRST_PIECE + i, text(p[i].s), p[i].score);
    tokenizer_index(k, "the test's vocabulary");
    return k;
}
#endif
