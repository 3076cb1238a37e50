// bench_gguf.c - writes a model of random weights in a shape of `aligner bench`, for llama.cpp to be timed on:
//   bench_gguf 15M build/bench/15M.gguf
// Its vocabulary is made up: text does not matter here, but the file must have a piece for each row of the head.
#include "test.h"

int main(int argc, char **argv)
{
    for (size_t i = 0; argc == 3 && i < sizeof SHAPE / sizeof *SHAPE; i++)
        if (is(argv[1], SHAPE[i].name)) {
            Model m = bench_model(&SHAPE[i]);
            tokenizer_alloc(&m.tok, m.c.V);
            for (int id = 0; id < m.c.V; id++) {
                char piece[16];
                snprintf(piece, sizeof piece, id < FIRST_PIECE ? "<0x%02X>" : "piece%d",
                         id < FIRST_PIECE ? (unsigned)(id - BYTE0) & 255 : (unsigned)id);
                set_piece(&m.tok, id, text(piece), (float)-id);
            }
            free((char *)m.tok.piece[UNK].s), set_piece(&m.tok, UNK, text("<unk>"), 0);
            tokenizer_index(&m.tok, "the made-up tokenizer");
            m.c.context = 1024;                         // room for llama.cpp's prompts; the file has no angles
            model_save(&m, argv[2]);
            return 0;
        }
    fprintf(stderr, "usage: bench_gguf tiny|small|medium|15M|110M OUT.gguf\n");
    return 2;
}
