// memory.c - `info --train` says before a run starts what the run then takes: its figure is compared with the peak that
// the kernel reports for the process. Micro-batches take less. $B/aligner is the program ($B is build unless set).
#define _DEFAULT_SOURCE             // wait4
#define _DARWIN_C_SOURCE
#include "toy.h"
#include <sys/resource.h>

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif

#define SHAPE_ASKED "--dim 256 --layers 4 --heads 4 --hidden 512 --context 128 --tokenizer tokenizer.bin --threads 2"
#define DATA "build/tests/tmp/memory.jsonl"

// Runs a command of the program; returns the peak of its memory in MB, or -1 where it failed. The kernel counts what
// the child was before it became the program, too: this process must be smaller than what it measures.
static double peak_of(const char *arguments, const char *out)
{
    char command[1024];
    struct rusage usage;
    int status;
    const char *b = getenv("B");
    snprintf(command, sizeof command, "exec %s/aligner %s > %s 2> /dev/null", b ? b : "build", arguments, out);
    fflush(stdout);
    pid_t child = fork();
    if (!child) execl("/bin/sh", "sh", "-c", command, (char *)NULL), _exit(127);
    if (wait4(child, &status, 0, &usage) < 0 || status) return -1;
#ifdef __APPLE__
    return 1e-6 * (double)usage.ru_maxrss;              // bytes there, kilobytes elsewhere
#else
    return 1.024e-3 * (double)usage.ru_maxrss;
#endif
}

// What `info --train` expects in all, in MB.
static double expected(const char *options)
{
    char command[1024], *line;
    const char *out = temporary("memory.txt");
    snprintf(command, sizeof command, "info --train %s", options);
    double used = peak_of(command, out), in_all = 0;
    OK(used > 0 && used < 30, "`%s` itself takes %.1f MB", command, used);
    Buf f = read_all(out, NULL);
    for (line = f.s; line && *line; line = strchr(line, '\n'), line += line != NULL)
        if (strstr(line, "in all") && strstr(line, "in all") < line + strcspn(line, "\n")) in_all = strtod(line, NULL);
    free(f.s);
    return in_all;
}

int main(void)
{
    static const char *const batch[] = { "--tokens 4096 --micro-tokens 4096", "--tokens 4096 --micro-tokens 512",
                                         "--tokens 600", "--tokens 2048 --tied", "--tokens 512 --muon 0.5 --ema 0.99" };
    double least_of_all = 1e9, most = 0;
#ifdef SANITIZED
    printf("skipped: under the sanitizers memory is not what it is\n");
    OK(true, "skipped");
    return done("memory");
#endif
    temporary("");                                      // makes the folder
    FILE *f = fopen(DATA, "wb");
    for (int i = 0; f && i < 200; i++)
        fprintf(f, "{\"question\": \"%d?\", \"answer\": \"It is %d.\", \"correction\": \"%d it is.\"}\n", i, i, i);
    OK(f && !fclose(f), "cannot write " DATA);
    for (int i = 0; i < 5; i++) {
        char options[512], command[1024];
        snprintf(options, sizeof options, SHAPE_ASKED " %s", batch[i]);
        snprintf(command, sizeof command, "train aligner %s --data " DATA " --prompt short --steps 2 --quiet "
                 "--out build/tests/tmp/memory.gguf", options);
        double said = expected(options), peak = peak_of(command, "/dev/null");
        OK(peak > 0, "`%s` fails", command);
        // the program itself, threads, the tokenizer and the rows: a few MB more; a row shorter than the context: less
        OK(peak > 0.95 * said && peak < 1.02 * said + 8, "%s: %.1f MB were announced, the peak is %.1f MB", batch[i],
           said, peak);
        if (peak < least_of_all) least_of_all = peak;
        if (peak > most) most = peak;
    }
    OK(least_of_all < 0.6 * most, "micro-batches save next to nothing: %.1f of %.1f MB", least_of_all, most);
    return done("memory");
}
