// fuzz.c - everything that strangers bring, under libFuzzer. `make fuzz SECONDS=60` builds it with clang and gives
// each target that long; `make test` does not run it. The first byte of an input names the target, unless the
// environment variable TARGET does:
//
//   G  a GGUF file             S  OUT.state, and a step of training from it      P  a prompt template and a question
//   T  a tokenizer.bin         D  a data file, JSON or JSONL                     C  a command line, a word a line
//   W  tests/world.txt
//
// `fuzz seeds FOLDER` writes good inputs to start from, FOLDER/G to FOLDER/W. A finding is replayed by naming its
// file; without -DLIBFUZZER, `fuzz FILE...` does that, too.
//
// leave() must be survivable here: exit() jumps back, and whatever was allocated or opened is then freed and closed.
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Each block has a header of 64 bytes in front, which links all that are in use.
typedef struct Block { struct Block *before, *after; size_t n; } Block;
enum { HEADER = 64, MOST_FILES = 16 };
static Block blocks = { &blocks, &blocks, 0 };
static FILE *file[MOST_FILES];          // what is open now
static int n_files;
static jmp_buf back;

static Block *header_of(void *p) { return (Block *)((char *)p - HEADER); }

static void *fuzz_aligned_alloc(size_t alignment, size_t n)
{
    void *p;
    if (alignment > HEADER || posix_memalign(&p, HEADER, n + HEADER)) return NULL;
    Block *b = p;
    *b = (Block){ blocks.before, &blocks, n };
    b->before->after = blocks.before = b;
    return (char *)p + HEADER;
}

static void real_free(void *p) { free(p); }

static void fuzz_free(void *p)
{
    if (!p) return;
    Block *b = header_of(p);
    b->before->after = b->after;
    b->after->before = b->before;
    free(b);
}

static void *fuzz_realloc(void *p, size_t n)
{
    void *q = fuzz_aligned_alloc(HEADER, n);
    if (!q || !p) return q;
    memcpy(q, p, header_of(p)->n < n ? header_of(p)->n : n);
    fuzz_free(p);
    return q;
}

static const char *input;                // what the file called input_name holds
static size_t input_n;
static char input_name[80];

static FILE *fuzz_fopen(const char *path, const char *mode)
{
    bool is_input = input && *mode == 'r' && !strcmp(path, input_name);
    FILE *f = is_input ? fmemopen((void *)input, input_n, mode) : fopen(path, mode);
    if (f && n_files == MOST_FILES) abort();
    if (f) file[n_files++] = f;
    return f;
}

static int fuzz_fclose(FILE *f)
{
    for (int i = 0; i < n_files; i++)
        if (file[i] == f) file[i] = file[--n_files];
    return fclose(f);
}

static ssize_t fuzz_getline(char **line, size_t *capacity, FILE *f)
{
    char *got = NULL;
    ssize_t n = getline(&got, capacity, f);
    fuzz_free(*line);
    *line = NULL;
    *capacity = n < 0 ? 0 : (size_t)n + 1;
    if (n >= 0) memcpy(*line = fuzz_aligned_alloc(HEADER, *capacity), got, *capacity);
    free(got);
    return n;
}

static void __attribute__((noreturn)) fuzz_exit(int code) { longjmp(back, code + 1); }

#define aligned_alloc fuzz_aligned_alloc
#define realloc fuzz_realloc
#define free fuzz_free
#define fopen fuzz_fopen
#define fclose fuzz_fclose
#define getline fuzz_getline
#define exit fuzz_exit
#define fsync(descriptor) 0             // nothing here must survive a power cut
#ifndef ALIGNER_NO_MAIN
#define ALIGNER_NO_MAIN
#endif
#define main world_main
#include "world.c"                      // which includes ../aligner.c
#undef main
#undef exit

static const char PROSE[] = " the cat \xC3\xA9\xE2\x82 sat";
static const char ROWS[] = "{\"question\": \"q\", \"answer\": \"a\", \"correction\": \"a\"}\n"
                           "{\"question\": \"q\", \"answer\": \"b\", \"correction\": \"longer\"}\n"
                           "{\"question\": \"q\", \"answer\": \"c\", \"correction\": \"c\"}\n";
static char path[64], saved[80];                        // the input, or OUT; what is written back
static char init[80], state[80], rows_file[80];         // for S: --init, OUT.state, --data

static void put_file(const char *to, const void *s, size_t n)
{
    FILE *f = fopen(to, "wb");
    if (!f || fwrite(s, 1, n, f) != n || fclose(f)) abort();    // run it from the project's root
}

// What is encoded and decoded is the text itself, whatever the vocabulary.
static void round_trip(const Tokenizer *k)
{
    Ids ids = { 0 };
    encode(k, text(PROSE), &ids);
    Buf back_again = decode_all(k, ids.a, ids.n);
    if (!same(contents(&back_again), text(PROSE))) abort();
}

static void use_model(void)
{
    Model m;
    model_load(&m, path);
    if (!m.tokenizer->no_space) round_trip(m.tokenizer);
    if (m.template) prompt(&m, text("q"), text("a")), prompt(&m, text("q"), NONE);
    if (m.n_params < 1 << 16 && m.c.context < 256) {
        model_save(&m, saved);
        model_load(&m, saved);          // what it writes, it reads
    }
}

static void use_tokenizer(void) { round_trip(tokenizer_load(path)); }

static void use_data(void)
{
    Objects in;
    Triple t;
    Text key, value;
    Buf b = { 0 }, out = { 0 };
    objects_open(&in, path);
    for (enum Status status; (status = next_row(&in, NEED_X | NEED_Y_O, &t)) != ROW_END; ) {
        if (status != ROW_GOOD) continue;
        for (size_t at = 0; json_member(in.object, &at, &key, &value); ) {
            b.n = out.n = 0;
            if (!json_text(key, &b)) abort();
            json_put(&out, contents(&b));
        }
    }
    objects_close(&in);
}

// One step of the run that the state says it belongs to.
static void use_state(void)
{
    static const TrainOptions how = { .out = path, .steps = 4, .batch = 2, .lr = 1e-3, .clip = 1, .adam_eps = 1e-8,
        .seed = 1, .ema = 0.9, .muon = 0.5, .grow_below = 0.1, .resume = 1, .quiet = 1 };
    Model m;
    Rows rows = { 0 }, none = { 0 };
    model_load(&m, init);
    rows_load(&rows, &m, rows_file, aligner);
    train(&(Run){ .model = &m, .rows = &rows, .valid = &none, .o = &how });
}

// The input is a template, a newline, a question and an answer. Both must come out whole, wherever the template puts
// them, even if they look like places themselves.
static void use_template(char *s)
{
    Model m = { 0 };
    char *question = strchr(s, '\n');
    if (question) *question++ = 0;
    set_template(&m, s);
    Buf with = prompt(&m, text(question ? question : "{answer}"), text("y {question}"));
    if (!memmem(with.s, with.n, "y {question}", 12)) abort();
    Buf without = prompt(&m, text("q"), NONE);
    if (without.n > with.n + strlen(s)) abort();
}

static Options defaults;

static void use_command_line(char *s)
{
    char *argv[64] = { "aligner" };
    int argc = 1;
    for (char *word = strtok(s, "\n"); word && argc < 63; word = strtok(NULL, "\n")) argv[argc++] = word;
    options = defaults;
    n_named_files = 0;
    if (argc > 1) parse_options((const Option *const[]){ OPTION, NULL }, find_command(COMMAND, argv[1]), argv);
}

static void use_world(char *s)
{
    sections = 0;
    memset(section, 0, sizeof section);
    common = own = outside = NULL;
    fact = beyond = (Facts){ 0 };
    pool = (List){ 0 };
    memset(people_x, 0, sizeof people_x);
    memset(people_y, 0, sizeof people_y);
    real_free(pairs.slot);
    real_free(trained.slot);
    pairs = trained = (Set){ 0 };
    read_content(s);
    dice = 1;
    draws = MOST_DRAWS - 100000;        // far more than three rows of good content take
    for (int i = 0; i < 3; i++) train_row();
}

static void prepare(void);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const char *target = getenv("TARGET");
    prepare();
    if (!n) return 0;
    char kind = target ? *target : (char)data[0], *s = malloc(n);
    memcpy(s, data + 1, n - 1);
    s[n - 1] = 0;                       // as read_all() ends a text
    input = s;
    input_n = n - 1;
    snprintf(input_name, sizeof input_name, "%s", kind == 'S' ? state : path);
    if (!setjmp(back)) {
        if (kind == 'G') use_model();
        else if (kind == 'T') use_tokenizer();
        else if (kind == 'S') use_state();
        else if (kind == 'P') use_template(s);
        else if (kind == 'C') use_command_line(s);
        else if (kind == 'W') use_world(s);
        else use_data();
    }
    input = NULL;
    real_free(s);
    while (n_files) fclose(file[0]);
    while (blocks.after != &blocks) fuzz_free((char *)blocks.after + HEADER);
    return 0;
}

static void tiny_model(Model *m)
{
    *m = (Model){ .c = { .V = 264, .C = 4, .L = 1, .H = 2, .H_kv = 1, .F = 4, .context = 64, .eps = 1e-5f,
        .theta = 1e4f }, .tokenizer = tokenizer_new(264) };
    set_special_pieces(m->tokenizer);
    for (int i = 0; i < 5; i++)
        set_piece(m->tokenizer, FIRST_PIECE + i, text((const char *[]){ " t", "he", "h", "e", " " }[i]), (float)-i);
    tokenizer_index(m->tokenizer, "the seed");
    model_alloc(m);
    model_init(m, 1);
    set_template(m, "{question}|{answer}=");
    snprintf(m->objective, sizeof m->objective, "aligner");
}

// The files that target S needs beside its input.
static void prepare(void)
{
    Model m;
    if (*path) return;
    defaults = options;
    snprintf(path, sizeof path, "build/fuzz-%d", (int)getpid());
    snprintf(saved, sizeof saved, "%s.saved", path);
    snprintf(init, sizeof init, "%s.init", path);
    snprintf(state, sizeof state, "%s.state", path);
    snprintf(rows_file, sizeof rows_file, "%s.rows", path);
    put_file(rows_file, ROWS, sizeof ROWS - 1);
    tiny_model(&m);
    model_save(&m, init);
    model_free(&m);

    // scratch() and fill() keep their buffers. Here they get the largest ones, once and for good; and the state file
    // is there from here on, which is all that access() asks.
    if (!setjmp(back)) use_state();
    char *long_text = malloc(2 << 20);
    memset(long_text, 'x', 2 << 20);
    long_text[(2 << 20) - 1] = 0;
    fill(long_text, "");
    empty_arena();
    real_free(long_text);
    blocks.before = blocks.after = &blocks;
}

static void write_seed(const char *folder, char target, const char *name, Text content)
{
    char to[300];
    Buf all = { 0 };
    snprintf(to, sizeof to, "%s/%c/%s", folder, target, name);
    buf_add(&all, &target, 1);
    buf_add(&all, content.s, content.n);
    put_file(to, all.s, all.n);
}

static void write_file_seed(const char *folder, char target, const char *from)
{
    Buf f = read_all(from);
    write_seed(folder, target, "good", contents(&f));
}

// Good inputs of all kinds. FOLDER/G to FOLDER/W must be there.
static void write_seeds(const char *folder)
{
    static const char *const DATA[] = {
        "{\"question\": \"a \\ud83d\\ude00\\n\", \"answer\": \"b\", \"x\": [1, -2.5e3, {\"y\": null}, true]}\n",
        "[\n{\"question\": \"a\"},\r\n {\"question\": \"\\u00e9\", \"answer\": \"\", \"x\": []}\n]\n",
        "{\n  \"question\": \"a\",\n  \"answer\": \"b\"\n}\n\xEF\xBB\xBFx\n{\"answer\": 7}\n" };
    static const char *const LINE[] = { "train\naligner\n--init\na\n--data\nb\nc\n--out\nd\n--steps=3\n--lr\n1e-3",
        "correct\nm\n-\n--keep=2.5\n--strict\n--diff", "tokens\nm\n--question\nq\n--answer\na\n--threads\n2" };
    Model m;
    char name[8];
    prepare();
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "%d", i);
        write_seed(folder, 'D', name, text(DATA[i]));
        write_seed(folder, 'C', name, text(LINE[i]));
    }
    write_seed(folder, 'P', "0", text("##Question: {question}\t##Answer: {answer}:\nWhat {answer}?"));
    tiny_model(&m);
    model_save(&m, path);
    write_file_seed(folder, 'G', path);
    tokenizer_save(m.tokenizer, path);
    write_file_seed(folder, 'T', path);
    write_file_seed(folder, 'S', state);
    write_file_seed(folder, 'W', "tests/world.txt");
}

#ifdef LIBFUZZER
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    if (*argc != 3 || strcmp((*argv)[1], "seeds")) return 0;
    write_seeds((*argv)[2]);
    exit(0);
}
#else
int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "seeds")) return write_seeds(argv[2]), 0;
    for (int i = 1; i < argc; i++) {
        Buf f = read_all(argv[i]);
        char *s = memcpy(malloc(f.n + 1), f.s, f.n + 1);      // what read_all() allocated does not outlive an input
        LLVMFuzzerTestOneInput((const uint8_t *)s, f.n);
        real_free(s);
    }
    puts("fuzz: no crash");
    return 0;
}
#endif
