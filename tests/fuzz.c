// fuzz.c - the three readers under libFuzzer; not part of `make test`. The first byte of an input chooses the reader (G
// a GGUF file, T a tokenizer.bin, anything else a data file), the rest is the file.
//
//   clang -std=c11 -g -O1 -march=native -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -DLIBFUZZER
//         -Wno-unused-function tests/fuzz.c -o build/fuzz -lm
//   mkdir -p build/corpus && build/fuzz seeds build/corpus      (writes good files to start from)
//   build/fuzz -close_fd_mask=3 -max_total_time=150 -max_len=40000 -timeout=10 -rss_limit_mb=4000 build/corpus
//
// Without -DLIBFUZZER it has a main of its own: `fuzz seeds FOLDER`, or `fuzz FILE...` to run single inputs again.
//
// die() must be survivable here: exit becomes a jump back, and what the reader had allocated is freed behind it.
#define _POSIX_C_SOURCE 200809L
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BLOCKS = 1 << 16 };
static void *block[MOST_BLOCKS];        // what is allocated now
static size_t n_blocks;
static jmp_buf back;

static void *keep(void *p)
{
    if (p && n_blocks == MOST_BLOCKS) abort();
    if (p) block[n_blocks++] = p;
    return p;
}

static void forget(void *p)
{
    for (size_t i = n_blocks; p && i-- > 0; ) if (block[i] == p) { block[i] = block[--n_blocks]; return; }
}

static void *fuzz_aligned_alloc(size_t alignment, size_t n) { return keep(aligned_alloc(alignment, n)); }
static void *fuzz_realloc(void *p, size_t n)
{
    void *q = realloc(p, n);
    if (q) forget(p), keep(q);
    return q;
}
static void fuzz_free(void *p) { forget(p), free(p); }
static void __attribute__((noreturn)) fuzz_exit(int code) { longjmp(back, code + 1); }

#define aligned_alloc fuzz_aligned_alloc
#define realloc fuzz_realloc
#define free fuzz_free
#define exit fuzz_exit
#ifndef ALIGNER_NO_MAIN
#define ALIGNER_NO_MAIN
#endif
#include "../aligner.c"
#undef exit

static char path[64];
static Objects rows;                    // outside of read(), so that the jump back can close it
static Model model;
static Tokenizer tokenizer;

// Reads the file and uses a little of what it brought.
static void read_file(char kind)
{
    Ids ids = { 0 };
    Buf b = { 0 }, out = { 0 };
    static const char PROSE[] = " the cat \xC3\xA9\xE2\x82 sat";
    if (kind == 'G') {
        model_load(&model, path);
        encode(&model.tok, text(PROSE), &ids);
        b = decode_all(&model.tok, ids.a, ids.n);
        if (!same((Text){ b.s, b.n }, text(PROSE))) abort();
        if (model.template) free(prompt(&model, text("q"), text("a")).s), free(prompt(&model, text("q"), NONE).s);
        if (model.n_params < 1 << 16 && model.c.context < 256) model_save(&model, path);
    } else if (kind == 'T') {
        tokenizer_load(&tokenizer, path);
        encode(&tokenizer, text(PROSE), &ids);
        b = decode_all(&tokenizer, ids.a, ids.n);
        if (!same((Text){ b.s, b.n }, text(PROSE))) abort();
    } else {
        Text object, key, value;
        objects_open(&rows, path);
        while (next_object(&rows, &object)) {
            for (size_t at = 0; json_member(object, &at, &key, &value); )
                b.n = out.n = 0, json_text(key, &b), json_put(&out, (Text){ b.s, b.n });
            get_text(&rows, object, "question", &b);
        }
    }
    free(ids.a), free(b.s), free(out.s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (!*path) snprintf(path, sizeof path, "build/fuzz-%d", (int)getpid());
    if (!n) return 0;
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data + 1, 1, n - 1, f) != n - 1 || fclose(f)) perror(path), abort();      // run it from the project's root
    if (!setjmp(back)) read_file((char)data[0]);
    if (rows.f) {
        FILE *open = rows.f;
        char *line = rows.text.s;
        rows = (Objects){ 0 };
        fclose(open);
        forget(line), (free)(line);     // getline's own, or ours
    }
    while (n_blocks) (free)(block[--n_blocks]);
    return 0;
}

// Good files of all kinds.
static void write_seeds(const char *folder)
{
    static const char JSON[] = "J{\"question\": \"a \\ud83d\\ude00\\n\", \"answer\": \"b\", "
                               "\"x\": [1, -2.5e3, {\"y\": null}, true]}\n{\"question\": \"q\"}\n";
    static const char ARRAY[] = "J[\n{\"question\": \"a\"},\r\n {\"question\": \"\\u00e9\", \"x\": []}\n]\n";
    char name[300], piece[16];
    Model m = { .c = { .V = 264, .C = 4, .L = 1, .H = 2, .H_kv = 1, .F = 4, .context = 8, .tied = true, .eps = 1e-5f,
        .theta = 1e4f } };
    tokenizer_alloc(&m.tok, 264);
    set_piece(&m.tok, UNK, text("<unk>"), 0), set_piece(&m.tok, BOS, text("\n<s>\n"), 0),
        set_piece(&m.tok, EOS, text("\n</s>\n"), 0);
    for (int b = 0; b < 256; b++) snprintf(piece, sizeof piece, "<0x%02X>", b),
        set_piece(&m.tok, BYTE0 + b, text(piece), 0);
    for (int i = 0; i < 5; i++) set_piece(&m.tok, FIRST_PIECE + i,
        text((const char *[]){ " t", "he", "h", "e", " " }[i]), (float)-i);
    model_alloc(&m), model_init(&m, 1), set_template(&m, "short");
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "%s/seed%d", folder, i);
        Buf all = { 0 };
        if (i == 0) model_save(&m, name);
        if (i == 1) tokenizer_save(&m.tok, name);
        if (i < 2) {
            Buf f = read_all(name, NULL);
            buf_puts(&all, i ? "T" : "G"), buf_add(&all, f.s, f.n);
        } else buf_puts(&all, i == 2 ? JSON : ARRAY);
        write_file(name, 1, &(Text){ all.s, all.n });
    }
}

#ifdef LIBFUZZER
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    if (*argc == 3 && !strcmp((*argv)[1], "seeds")) write_seeds((*argv)[2]), exit(0);
    return 0;
}
#else
int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "seeds")) return write_seeds(argv[2]), 0;
    for (int i = 1; i < argc; i++) {
        Buf f = read_all(argv[i], NULL);
        forget(f.s);
        LLVMFuzzerTestOneInput((const uint8_t *)f.s, f.n);
        (free)(f.s);
    }
    puts("fuzz: no crash");
    return 0;
}
#endif
