// json.c - the data reader and writer: arrays and JSONL, whatever Python or a careless program writes, line numbers of
// what is malformed, and rows that come out as they went in.
#include "test.h"

static char path[64];

typedef struct { const char *s; size_t n; Buf *out; } Input;

// Reads the input as a data file and puts the text under "k" of every object into out, each followed by a bar.
static void read_k(const void *p)
{
    const Input *in = p;
    Objects o;
    Text object;
    Buf k = { 0 };
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(in->s, 1, in->n, f) == in->n && !fclose(f), "cannot write %s", path);
    objects_open(&o, path);
    while (next_object(&o, &object)) {
        Text t = get_text(&o, object, "k", &k);
        if (in->out) buf_add(in->out, t.s, t.n), buf_add(in->out, "|", 1);
    }
    objects_close(&o);
    free(k.s);
}

static bool reads(const char *s, const char *want)
{
    Buf out = { 0 };
    buf_add(&out, "", 0);
    bool alive = !dies(read_k, &(Input){ s, strlen(s), NULL }) && !*message;
    if (alive) read_k(&(Input){ s, strlen(s), &out });
    bool ok = alive && same((Text){ out.s, out.n }, text(want));
    if (!ok) printf("%s\nwas read as %s\n", s, alive ? out.s : message);
    free(out.s);
    return ok;
}

static bool dies_at(const char *s, size_t n, long line)
{
    char where[96];
    snprintf(where, sizeof where, "%s:%ld: ", path, line);
    bool died = dies(read_k, &(Input){ s, n, NULL }), ok = died && strstr(message, where);
    if (!ok) printf("line %ld was expected: %s\n", line, *message ? message : "it was read");
    return ok;
}

static void good_input(void)
{
    OK(reads("", ""), "an empty file");
    OK(reads(" \n\r\n\t\n", ""), "white space");
    OK(reads("[]", "") && reads(" [ \n ] \n", ""), "an empty array");
    OK(reads("{\"k\": \"a\"}\n{\"k\":\"b\"}\n", "a|b|"), "JSONL");
    OK(reads("{\"k\": \"a\"}\n{\"k\":\"b\"}", "a|b|"), "JSONL without its last newline");
    OK(reads("\xEF\xBB\xBF{\"k\": \"a\"}\r\n\r\n  \n {\"k\" : \"b\"} \r\n", "a|b|"),
        "a byte order mark, CRLF, blank lines, spaces");
    OK(reads("[{\"k\": \"a\"},{\"k\":\"b\"}]", "a|b|"), "an array in one line");
    OK(reads("\xEF\xBB\xBF \n[\n  {\n    \"k\": \"a\"\n  },\r\n  {\n    \"k\": \"b\" }\n]\n\n", "a|b|"),
        "an array in many lines");
    OK(reads("{\"x\": {\"k\": \"no\", \"y\": [1, -2.5e+3, 0, 0.5, 1E5, true, false, null, {}, [], \"}\"]}, "
             "\"k\": \"a\", \"z\": [[\"k\"]]}", "a|"), "nested values");
    OK(reads("{\"k\": \"a\", \"k\": \"b\"}", "b|"), "of duplicate keys the last one wins");
    OK(reads("{\"\\u006b\": \"a\"}", "a|"), "a key written with escapes");
    OK(reads("{\"K\": \"no\", \"kk\": \"no\", \"\": \"no\", \"k\": \"\"}", "|"),
        "keys are compared whole, with case; empty values");
    OK(reads("{\"k\": \"\\\"\\\\\\/\\b\\f\\n\\r\\t\"}", "\"\\/\b\f\n\r\t|"), "short escapes");
    OK(reads("{\"k\": \"\\u0041\\u00e9\\u20AC\\ud83d\\uDE00\"}", "A\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80|"),
        "\\u escapes and a surrogate pair");
    OK(reads("{\"k\": \"\\ud83d\"}", "\xEF\xBF\xBD|") && reads("{\"k\": \"\\ude00x\"}", "\xEF\xBF\xBDx|"),
        "lone surrogates");
    OK(reads("{\"k\": \"\\ud83d\\u0041\\ud83dz\\ud83d\\ud83d\\ude00\"}", "\xEF\xBF\xBD"
        "A\xEF\xBF\xBDz\xEF\xBF\xBD\xF0\x9F\x98\x80|"), "broken pairs");
    OK(reads("{\"k\": \"\\uD800\\uDC00\\uDBFF\\uDFFF\\uFFFF\"}", "\xF0\x90\x80\x80\xF4\x8F\xBF\xBF\xEF\xBF\xBF|"),
        "the ends of the ranges");
    OK(reads("{\"k\": \"\xFF\xC3(\xE2\x82\"}", "\xFF\xC3(\xE2\x82|"), "invalid UTF-8 is read as it stands");
    Buf out = { 0 };
    read_k(&(Input){ "{\"k\": \"a\\u0000b\"}", 17, &out });
    OK(same((Text){ out.s, out.n }, (Text){ "a\0b|", 4 }), "\\u0000 is a byte like others");
    free(out.s);

    char deep[400] = "{\"x\": ";
    memset(deep + 6, '[', 50), memset(deep + 56, ']', 50), strcpy(deep + 106, ", \"k\": \"a\"}");
    OK(reads(deep, "a|"), "50 levels");
}

static void bad_input(void)
{
    static const struct { const char *s; long line; } BAD[] = {
        { "{\"k\": \"a\"}\n{\"k\": }\n", 2 }, { "{\"k\": \"a\n", 1 }, { "\n\n{\"k\": \"a\\", 3 },
        { "{\"k\" \"a\"}", 1 }, { "{\"k\": \"a\",}", 1 },
        { "{k: \"a\"}", 1 }, { "{\"k\": \"a\"} x", 1 }, { "{\"k\": \"a\"}{\"k\": \"b\"}", 1 },
        { "{\"k\": \"a\"},\n{\"k\": \"b\"}\n", 1 }, { "\"k\"", 1 },
        { "{\"k\": \"a\"}\nnull\n", 2 }, { "{\"k\": \"a\"}\n[{\"k\": \"b\"}]\n", 2 }, { "{", 1 }, { "}", 1 },
        { "{\"k\"", 1 }, { "{\"k\":", 1 }, { "{]", 1 },
        { "{\"k\": \"\\q\"}", 1 }, { "{\"k\": \"\\u12g4\"}", 1 }, { "{\"k\": \"\\u12\"}", 1 },
        { "\r\n{\"k\": \"\\ud83d\\u12\"}", 2 }, { "{\"k\": 'a'}", 1 },
        { "{\"k\": 1}", 1 }, { "{\"k\": null}", 1 }, { "{\"k\": [\"a\"]}", 1 }, { "{\"j\": \"a\"}", 1 }, { "{}", 1 },
        { "{\"n\": 1x, \"k\": \"a\"}", 1 }, { "{\"n\": 01, \"k\": \"a\"}", 1 }, { "{\"n\": -, \"k\": \"a\"}", 1 },
        { "{\"n\": 1., \"k\": \"a\"}", 1 },
        { "{\"n\": 1e, \"k\": \"a\"}", 1 }, { "{\"n\": .5, \"k\": \"a\"}", 1 }, { "{\"n\": truex, \"k\": \"a\"}", 1 },
        { "{\"n\": nul, \"k\": \"a\"}", 1 },
        { "{\"n\": [1 2], \"k\": \"a\"}", 1 }, { "{\"n\": [1,], \"k\": \"a\"}", 1 },
        { "{\"n\": {\"a\": 1,}, \"k\": \"a\"}", 1 }, { "{\"n\": [}, \"k\": \"a\"}", 1 },
        { "{\"k\": \"a\tb\"}", 1 },                     // a raw control character
        { "[", 1 }, { "[{\"k\": \"a\"}", 1 }, { "[{\"k\": \"a\"},\n", 2 }, { "[{\"k\": \"a\"},\n]", 2 },
        { "[,{\"k\": \"a\"}]", 1 },
        { "[{\"k\": \"a\"}\n{\"k\": \"b\"}]", 2 }, { "[{\"k\": \"a\"},,{\"k\": \"b\"}]", 1 },
        { "[{\"k\": \"a\"}]\n\nx", 1 }, { "[1]", 1 }, { "[[]]", 1 },
        { "[{\"k\":\n\"a\"},\n\n{\"k\":\n \"b\" \"c\"}]", 4 }, { "[\n{\"k\": \"a\nb\"}\n]", 2 },
        { "\n[\n{\"k\": \"a\"},\n{\n\"j\": \"b\"\n}\n]", 4 } };
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++)
        OK(dies_at(BAD[i].s, strlen(BAD[i].s), BAD[i].line), "malformed: %s", BAD[i].s);
    OK(dies_at("{\"k\": \"a\0b\"}", 12, 1) && dies_at("{\"k\": \"a\"}\n\0\n", 13, 2), "zero bytes");
    OK(dies_at("{\"k\": \"a\"}\n\x1b[31m\n", 17, 2) && !strchr(message, 27),
        "control codes of the input reach the terminal");
    char *deep = zalloc(1000001, 1);
    memset(deep, '[', 1000000), memcpy(deep, "{\"x\":", 5);
    OK(dies_at(deep, 1000000, 1), "a million levels");
    free(deep);
    OK(dies(read_k, &(Input){ "", 0, NULL }) == false, "the empty file is good");
}

static void long_strings(void)
{
    enum { N = 1 << 20 };
    Buf in = { 0 }, out = { 0 };
    double start = seconds();
    for (int row = 0; row < 3; row++) {
        buf_puts(&in, row ? ",\n{\"k\": \"" : "[{\"k\": \"");
        for (int i = 0; i < N / 8; i++) buf_puts(&in, row == 1 ? "\\u00e9\\n" : "abc def ");
        buf_puts(&in, "\"}");
    }
    buf_puts(&in, "]");
    read_k(&(Input){ in.s, in.n, &out });
    OK(out.n == 2 * (N + 1) + N / 8 * 3 + 1 && !memcmp(out.s + N + 1, "\xC3\xA9\n\xC3\xA9\n", 6),
        "strings of a megabyte: %zu bytes", out.n);
    OK(seconds() - start < 5, "three megabytes took %.1f s", seconds() - start);
    free(in.s), free(out.s);
}

// Appends t to out with U+FFFD for every byte that belongs to no UTF-8: from the definition, a character at a time.
static void repair(Text t, Buf *out)
{
    for (size_t i = 0; i < t.n; ) {
        size_t good = 0;
        for (size_t n = 1; n <= 4 && n <= t.n - i && !good; n++) {
            static const uint32_t FROM[] = { 0, 0, 0x80, 0x800, 0x10000 },
                BELOW[] = { 0, 0x80, 0x800, 0x10000, 0x110000 };
            const uint8_t *s = (const uint8_t *)t.s + i;
            uint32_t c = n == 1 ? s[0] : s[0] & (0x7Fu >> n);
            bool form = n == 1 ? s[0] < 0x80 : s[0] >> (7 - n) == (2 << n) - 2;
            for (size_t j = 1; j < n; j++) c = c << 6 | (s[j] & 0x3F), form = form && s[j] >> 6 == 2;
            if (form && c >= FROM[n] && c < BELOW[n] && !(c >= 0xD800 && c < 0xE000)) good = n;
        }
        if (good) buf_add(out, t.s + i, good);
        else buf_puts(out, "\xEF\xBF\xBD");
        i += good ? good : 1;
    }
}

// Written and read again, a text is itself, but for bytes that are no UTF-8; and what is written is printable.
static bool round_trip(Text t)
{
    Buf raw = { 0 }, back = { 0 }, want = { 0 }, clean = { 0 };
    json_put(&raw, t);
    repair(t, &want), repair((Text){ raw.s, raw.n }, &clean);
    bool ok = json_skip(raw.s, 0) == raw.s + raw.n && json_text((Text){ raw.s, raw.n }, &back)
              && same((Text){ back.s, back.n }, (Text){ want.s, want.n })
                  && same((Text){ raw.s, raw.n }, (Text){ clean.s, clean.n });
    for (size_t i = 0; i < raw.n; i++) ok = ok && (uint8_t)raw.s[i] >= 32 && raw.s[i] != 127;
    free(raw.s), free(back.s), free(want.s), free(clean.s);
    return ok;
}

static void written_and_read(void)
{
    static const uint8_t LEAD[] = { 'a', '"', '\\', 0x7F, 0x80, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xED, 0xEF, 0xF0,
        0xF4, 0xF5, 0xFF, 0x90, 0x8F, 0x9F, 0xA0 };
    uint64_t seed = 5;
    char s[64];
    int wrong = 0;
    for (int b = 0; b < 65536; b++) s[0] = (char)b, s[1] = (char)(b >> 8), wrong += !round_trip((Text){ s, 2 });
    OK(!wrong, "%d of 65536 pairs of bytes", wrong);
    for (int i = 0; i < 20000; i++) {
        size_t n = random_u64(&seed) % 12;
        for (size_t j = 0; j < n; j++) s[j] = (char)(i % 4 ? LEAD[random_u64(&seed) % sizeof LEAD] : random_u64(&seed));
        wrong += !round_trip((Text){ s, n });
    }
    OK(!wrong, "%d random strings", wrong);
    for (uint32_t c = 0; c < 0x110000; c += c < 0x900 ? 1 : 0x3F) {
        Buf b = { 0 };
        put_utf8(&b, c);
        wrong += !(c >= 0xD800 && c < 0xE000) && !round_trip((Text){ b.s, b.n });
        free(b.s);
    }
    OK(!wrong, "%d code points", wrong);
}

// put_row's line for an object and the new members.
static bool puts_row(const char *object, const char *more, const char *want)
{
    char line[512] = "";
    Buf b = { 0 };
    FILE *f = fopen(path, "w+b");
    buf_puts(&b, more);
    put_row(f, text(object), (const char *const[]){ "correction", "action", NULL }, &b);
    rewind(f);
    line[fread(line, 1, sizeof line - 1, f)] = 0;
    bool ok = !strcmp(line, want);
    if (!ok) printf("%s became %s", object, line);
    fclose(f), free(b.s);
    return ok;
}

static void rows_written(void)
{
    OK(puts_row("{\"id\": 7, \"answer\":\"a\\u00e9\", \"x\": {\"y\":[1, 2]}, \"z\":null}", "\"correction\": \"c\"",
                "{\"id\": 7, \"answer\": \"a\\u00e9\", \"x\": {\"y\":[1, 2]}, \"z\": null, \"correction\": \"c\"}\n"),
                    "unknown keys stay, in order, as they were written");
    OK(puts_row("{\"correction\": \"old\", \"id\": 7, \"action\": \"copy\", \"c\\u006frrection\": \"x\", \"last\": 1}",
        "\"correction\": \"c\", \"action\": \"correct\"",
                "{\"id\": 7, \"last\": 1, \"correction\": \"c\", \"action\": \"correct\"}\n"),
                    "an old correction and action give way");
    OK(puts_row("{}", "\"correction\": \"c\"", "{\"correction\": \"c\"}\n")
        && puts_row("{ \"action\" : 1 }", "\"correction\": \"c\"", "{\"correction\": \"c\"}\n"), "nothing else");
    OK(puts_row("{\n  \"id\": 7,\r\n  \"x\": [\n1,\n2 ]\n}", "\"correction\": \"c\"",
        "{\"id\": 7, \"x\": [ 1, 2 ], \"correction\": \"c\"}\n"), "one line for an object of many");
    OK(puts_row("{\"id\": 1, \"id\": 2}", "\"correction\": \"c\"", "{\"id\": 1, \"id\": 2, \"correction\": \"c\"}\n"),
        "unknown keys are not judged");
}

int main(void)
{
    snprintf(path, sizeof path, "build/json-test-%d.json", (int)getpid());
    good_input();
    bad_input();
    long_strings();
    written_and_read();
    rows_written();
    remove(path);
    return done("JSON");
}
