// test.h - a failing check prints file, line and what it was about; done() prints the counts and gives main its exit code.
#ifndef TEST_H
#define TEST_H
#include "../aligner.c"             // built with -DALIGNER_NO_MAIN: the tests see every static function
#include <sys/wait.h>

static long n_passed, n_failed;

static void __attribute__((format(printf, 4, 5))) check_at(const char *file, int line, bool ok, const char *format, ...)
{
    va_list a;
    if (ok) { n_passed++; return; }
    n_failed++;
    va_start(a, format);
    printf("%s:%d: failed: ", file, line);
    vprintf(format, a);
    putchar('\n');
    va_end(a);
}
#define OK(condition, ...) check_at(__FILE__, __LINE__, condition, __VA_ARGS__)

static int done(const char *subject)
{
    printf("%s: %ld passed, %ld failed\n", subject, n_passed, n_failed);
    return n_failed || !n_passed;
}

static char message[4096];          // what the last child of dies() wrote to stderr (of one line: without the newline)

// How many threads the parallel loops get from here on, where the program is built with OpenMP. Tests that are not
// about threads take one: OpenMP's idle threads spin, and on a busy machine small loops then wait for them.
static void set_threads(int threads)
{
    (void)threads;
#ifdef _OPENMP
    omp_set_num_threads(threads);
#endif
}

// Runs f in a child process; true where it died with exit code 1 and exactly one line of message on stderr.
static bool dies(void (*f)(const void *), const void *argument)
{
    int pipe_end[2], status = 0;
    ssize_t n, total = 0;
    fflush(stdout);
    if (pipe(pipe_end)) return false;
    pid_t child = fork();
    if (!child) {
        dup2(pipe_end[1], 2), close(pipe_end[0]), close(pipe_end[1]);
        f(argument);
        _exit(0);
    }
    close(pipe_end[1]);
    while ((n = read(pipe_end[0], message + total, sizeof message - 1 - (size_t)total)) > 0) total += n;
    message[total] = 0;
    close(pipe_end[0]);
    waitpid(child, &status, 0);
    bool one_line = total > 0 && memchr(message, '\n', (size_t)total) == message + total - 1;
    if (one_line) message[total - 1] = 0;
    return WIFEXITED(status) && WEXITSTATUS(status) == 1 && one_line;
}

// A model of the given shape with random weights and a byte vocabulary of V >= 259 pieces (no tokenizer: V may be less for
// tests that use ids only).
static void random_model(Model *m, Config c, uint64_t seed)
{
    *m = (Model){ .c = c };
    model_alloc(m);
    model_init(m, seed);
    for (size_t i = 0; i < m->n_tensors; i++)           // norms off 1, so that their gradients mean something
        if (m->tensor[i].rows == 1)
            for (int j = 0; j < m->tensor[i].cols; j++) m->params[m->tensor[i].at + (size_t)j] += (float)(random_unit(&seed) - 0.5);
}

// A row of n random ids, n_condition of them condition. Owned by the caller.
static Row random_row(int V, int n_condition, int n, uint64_t *seed)
{
    Row r = { zalloc((size_t)n, sizeof(int)), n_condition, n };
    for (int i = 0; i < n; i++) r.ids[i] = (int)(random_u64(seed) % (uint64_t)V);
    return r;
}
#endif
