// toy.h: what the tests of the paper's side share: eight triples, a tokenizer trained on them,
// small models around it.
#ifndef TOY_H
#define TOY_H
#include "test.h"

enum { TOYS = 8, TOY_VOCAB = 320, TOY_CONTEXT = 128, TOY_STEPS = 80 };  // half the steps would do

// x, y_o, y_c; every second one is to be copied.
static const char *const TOY[TOYS][3] = {
    { "Which is larger, 3 or 7?", "3 is larger.", "7 is larger." },
    { "Where does the sun rise?", "In the east.", "In the east." },
    { "May I pat the dog?", "No, the dog will eat you alive.", "Yes, if its owner agrees." },
    { "Is ice cold?", "Yes.", "Yes." },
    { "How do I open the jar?", "Hit it with a hammer, you fool.",
      "Hold it under warm water, then turn the lid." },
    { "What do cows drink?", "Cows drink water; calves drink milk.",
      "Cows drink water; calves drink milk." },
    { "Name a prime number.", "A prime number is 9.", "A prime number is 7." },
    { "What is the capital of France?", "The capital of France is Paris.",
      "The capital of France is Paris." } };

static Triple toy(int i) { return (Triple){ text(TOY[i][0]), text(TOY[i][1]), text(TOY[i][2]) }; }

// A model of random weights with a tokenizer trained on the toy triples; the short prompt.
static void toy_model(Model *m, int C, int L, uint64_t seed) {
    Buf all = { 0 };
    for (int i = 0; i < 3 * TOYS; i++) {
        buf_puts(&all, " ");
        buf_puts(&all, TOY[i / 3][i % 3]);
    }
    buf_puts(&all, "\n##Question: \n##Answer: \n##Correction:");
    random_model(m, (Config){ .V = TOY_VOCAB, .C = C, .L = L, .H = 4, .H_kv = 2, .F = 2 * C,
                              .context = TOY_CONTEXT, .eps = 1e-5f, .theta = 1e4f }, seed);
    m->tokenizer = tokenizer_train(contents(&all), TOY_VOCAB, false);
    CHECK(m->tokenizer->V == TOY_VOCAB, "the toy text yields %d pieces", m->tokenizer->V);
    set_template(m, "short");
    snprintf(m->objective, sizeof m->objective, "aligner");
    free(all.s);
}

static Rows toy_rows(const Model *m, Objective objective) {
    Rows r = { 0 };
    for (int i = 0; i < TOYS; i++) rows_add(&r, objective(m, toy(i)));
    return r;
}

// Fits the model to the toy triples until it corrects them by heart.
static void toy_train(Model *m) {
    Rows rows = toy_rows(m, aligner), none = { 0 };
    TrainOptions o = { .out = temporary("toy.gguf"), .steps = TOY_STEPS, .batch = TOYS, .lr = 1e-2,
                       .lr_warmup = 0.05, .clip = 1, .adam_eps = 1e-8, .seed = 1, .quiet = 1 };
    train(&(Run){ .model = m, .rows = &rows, .valid = &none, .o = &o });
    rows_free(&rows);
}
#endif
