// json.c: the data reader and writer: arrays and JSONL, whatever Python, jq or a careless program
// writes, line and column of what is malformed, and rows that come out as they went in.
#include "test.h"

static char path[64];
static Buf out;                         // what reads() has read
static size_t most_memory;              // the largest buffer of the reader
static char last_reason[256];

// Reads n bytes as a data file. out receives, each followed by a bar, the text under "k" of every
// object,
// "-" if there is none, and "!line:column" for what is malformed.
static void read_bytes(const char *s, size_t n) {
    Objects o;
    Buf k = { 0 };
    put_file(path, s, n);
    objects_open(&o, path);
    buf_set(&out, text(""));
    most_memory = 0;
    for (enum Status status; (status = read_object(&o)) != ROW_END; ) {
        long line = 0;
        size_t column = 0;
        char where[64];
        if (o.text.cap > most_memory) most_memory = o.text.cap;
        if (status == ROW_GOOD) {
            bool is_text = json_text(json_find(o.object, "k"), &k);
            buf_add(&out, is_text ? k.s : "-", is_text ? k.n : 1);
            buf_puts(&out, "|");
            continue;
        }
        OK(sscanf(o.reason, "line %ld, column %zu: ", &line, &column) == 2, "reason %s", o.reason);
        OK(!memchr(o.object.s, '\n', o.object.n), "what is malformed is more than a line");
        memcpy(last_reason, o.reason, sizeof last_reason);
        snprintf(where, sizeof where, "!%ld:%zu|", line, column);
        buf_puts(&out, where);
    }
    objects_close(&o);
    free(k.s);
}

static bool reads(const char *s, const char *want) {
    read_bytes(s, strlen(s));
    bool ok = same(contents(&out), text(want));
    if (!ok) printf("%.300s\nwas read as %.300s\n", s, out.s);
    return ok;
}

static void good_input(void) {
    OK(reads("", ""), "an empty file");
    OK(reads(" \n\r\n\t\n", ""), "white space");
    OK(reads("[]", "") && reads(" [ \n ] \n", ""), "an empty array");
    OK(reads("{\"k\": \"a\"}\n{\"k\":\"b\"}\n", "a|b|"), "JSONL");
    OK(reads("{\"k\": \"a\"}\n{\"k\":\"b\"}", "a|b|"), "JSONL without its last newline");
    OK(reads("\xEF\xBB\xBF{\"k\": \"a\"}\r\n\r\n  \n {\"k\" : \"b\"} \r\n", "a|b|"),
        "a byte order mark, CRLF, blank lines, spaces");
    OK(reads("[{\"k\": \"a\"},{\"k\":\"b\"}]", "a|b|"), "an array in one line");
    OK(reads("\xEF\xBB\xBF \n[\n  {\n    \"k\": \"a\"\n  },\r\n  {\n    \"k\": \"b\" }\n]\n\n",
             "a|b|"),
       "an array in many lines");
    OK(reads("{\"x\": {\"k\": \"no\", \"y\": [1, -2.5e+3, 0, 0.5, 1E5, true, false, null, {}, [], "
             "\"}\"]}, "
             "\"k\": \"a\", \"z\": [[\"k\"]]}",
             "a|"),
       "nested values");
    OK(reads("{\"k\": \"a\", \"k\": \"b\"}", "b|"), "of duplicate keys the last one wins");
    OK(reads("{\"\\u006b\": \"a\"}", "a|"), "a key written with escapes");
    OK(reads("{\"K\": \"no\", \"kk\": \"no\", \"\": \"no\", \"k\": \"\"}", "|"),
        "keys are compared whole, with case; empty values");
    OK(reads("{\"k\": \"\\\"\\\\\\/\\b\\f\\n\\r\\t\"}", "\"\\/\b\f\n\r\t|"), "short escapes");
    OK(reads("{\"k\": \"\\u0041\\u00e9\\u20AC\\ud83d\\uDE00\"}",
             "A\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80|"),
       "\\u escapes and a surrogate pair");
    OK(reads("{\"k\": \"\\ud83d\"}", "\xEF\xBF\xBD|") &&
           reads("{\"k\": \"\\ude00x\"}", "\xEF\xBF\xBDx|"),
       "lone surrogates");
    OK(reads("{\"k\": \"\\ud83d\\u0041\\ud83dz\\ud83d\\ud83d\\ude00\"}", "\xEF\xBF\xBD"
        "A\xEF\xBF\xBDz\xEF\xBF\xBD\xF0\x9F\x98\x80|"), "broken pairs");
    OK(reads("{\"k\": \"\\uD800\\uDC00\\uDBFF\\uDFFF\\uFFFF\"}",
             "\xF0\x90\x80\x80\xF4\x8F\xBF\xBF\xEF\xBF\xBF|"),
       "the ends of the ranges");
    OK(reads("{\"k\": \"\xFF\xC3(\xE2\x82\"}", "\xFF\xC3(\xE2\x82|"),
       "invalid UTF-8 is read as it is");
    read_bytes("{\"k\": \"a\\u0000b\"}", 17);
    OK(same(contents(&out), (Text){ "a\0b|", 4 }), "\\u0000 is a byte like others");
    char deep[400] = "{\"x\": ";
    memset(deep + 6, '[', 50);
    memset(deep + 56, ']', 50);
    strcpy(deep + 106, ", \"k\": \"a\"}");
    OK(reads(deep, "a|"), "50 levels");
    OK(reads("{\n \"k\":\n \"a\"\n}\n{\n \"k\": \"b\" }", "a|b|"),
       "objects over lines, as jq writes them");
    OK(reads("{\"k\": \"a\"}{\"k\": \"b\"} {\"k\": \"c\"}", "a|b|c|"), "several objects in a line");
}

// What is malformed is said, and reading goes on at the next line.
static void bad_input(void) {
    static const struct { const char *s, *want; } BAD[] = {
        { "{\"k\": \"a\"}\n{\"k\": }\n", "a|!2:7|" }, { "{\"k\": \"a\n", "!1:9|" },
        { "\n\n{\"k\": \"a\\", "!3:10|" }, { "{\"k\" \"a\"}", "!1:6|" },
        { "{\"k\": \"a\",}", "!1:11|" }, { "{k: \"a\"}", "!1:2|" },
        { "{\"k\": \"a\"} x", "a|!1:12|" }, { "{\"k\": \"a\"}{\"k\": \"b\"}", "a|b|" },
        { "{\"k\": \"a\"},\n{\"k\": \"b\"}\n", "a|b|" }, { "\"k\"", "!1:1|" },
        { "{\"k\": \"a\"}\nnull\n", "a|!2:1|" }, { "{\"k\": \"a\"}\n[{\"k\": \"b\"}]\n", "a|b|" },
        { "{", "!1:2|" }, { "}", "!1:1|" }, { "{\"k\"", "!1:5|" }, { "{\"k\":", "!1:6|" },
        { "{]", "!1:2|" }, { "{\"k\": \"\\q\"}", "!1:9|" }, { "{\"k\": \"\\u12g4\"}", "!1:9|" },
        { "{\"k\": \"\\u12\"}", "!1:9|" }, { "\r\n{\"k\": \"\\ud83d\\u12\"}", "!2:15|" },
        { "{\"k\": 'a'}", "!1:7|" }, { "{\"k\": 1}", "-|" }, { "{\"k\": null}", "-|" },
        { "{\"k\": [\"a\"]}", "-|" }, { "{\"j\": \"a\"}", "-|" }, { "{}", "-|" },
        { "{\"n\": 1x, \"k\": \"a\"}", "!1:8|" }, { "{\"n\": 01, \"k\": \"a\"}", "!1:8|" },
        { "{\"n\": -, \"k\": \"a\"}", "!1:8|" }, { "{\"n\": 1., \"k\": \"a\"}", "!1:9|" },
        { "{\"n\": 1e, \"k\": \"a\"}", "!1:9|" }, { "{\"n\": .5, \"k\": \"a\"}", "!1:7|" },
        { "{\"n\": truex, \"k\": \"a\"}", "!1:11|" }, { "{\"n\": nul, \"k\": \"a\"}", "!1:7|" },
        { "{\"n\": NaN}", "!1:7|" }, { "{\"n\": [1 2], \"k\": \"a\"}", "!1:10|" },
        { "{\"n\": [1,], \"k\": \"a\"}", "!1:10|" },
        { "{\"n\": {\"a\": 1,}, \"k\": \"a\"}", "!1:15|" },
        { "{\"n\": [}, \"k\": \"a\"}", "!1:8|" }, { "{\"k\": \"a\tb\"}", "!1:9|" }, { "[", "" },
        { "[{\"k\": \"a\"}", "a|" }, { "[{\"k\": \"a\"},\n", "a|" },
        { "[{\"k\": \"a\"},\n]", "a|" }, { "[,{\"k\": \"a\"}]", "a|" },
        { "[{\"k\": \"a\"}\n{\"k\": \"b\"}]", "a|b|" },
        { "[{\"k\": \"a\"},,{\"k\": \"b\"}]", "a|b|" }, { "[{\"k\": \"a\"}]\n\nx", "a|!3:1|" },
        { "[1]", "!1:2|" }, { "[[]]", "" },
        { "[{\"k\":\n\"a\"},\n\n{\"k\":\n \"b\" \"c\"}]", "a|!5:6|!5:2|" },
        { "[\n{\"k\": \"a\nb\"}\n]", "!2:9|!3:1|" },
        { "\n[\n{\"k\": \"a\"},\n{\n\"j\": \"b\"\n}\n]", "a|-|" },
        { "{\"k\": \"a\"}\nbroken\n{\"k\": \"b\"}\n", "a|!2:1|b|" },
        { "{\n \"k\":\n \"a\"\n}\n{\n \"k\": \"b\" }", "a|b|" },
        { "{\"k\": \"a\"}\n{\"k\": \n\n{\"k\": \"b\"}\n{\"k\": \"c\"}", "a|!5:1|b|c|" },
        { "{\"k\": \"é\", \"x\": oops}\n{\"k\": \"b\"}", "!1:18|b|" },
        { "[{\"k\": \"a\"}, oops, {\"k\": \"b\"}]", "a|!1:14|" },
        { "[{\"k\": \"a\"},\n oops,\n {\"k\": \"b\"}]", "a|!2:2|b|" },
        { "[{\"k\": \"a\"}, {\"k\": \"b\"}]]", "a|b|" },
        { "[{\"k\": \"a\"}] {\"k\": \"b\"}", "a|b|" }, { "][", "" }, { "]", "" } };
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++)
        OK(reads(BAD[i].s, BAD[i].want), "malformed: %s", BAD[i].s);
    read_bytes("{\"k\": \"a\0b\"}\n{\"k\": \"b\"}\n", 24);
    OK(same(contents(&out), text("!1:9|b|")), "a zero byte in a string: %s", out.s);
    read_bytes("{\"k\": \"a\"}\n\0\0\n{\"k\": \"b\"}\n", 25);
    OK(same(contents(&out), text("a|!2:1|b|")), "a line of zero bytes: %s", out.s);
    read_bytes("\xFF\xFE{\0\"\0k\0\"\0", 10);
    OK(strstr(last_reason, "UTF-16"), "UTF-16: %s", last_reason);
    char *deep = zalloc(1000001, 1);
    memset(deep, '[', 1000000);
    memcpy(deep, "{\"x\":", 5);
    OK(reads(deep, "!1:70|"), "a million levels");
    free(deep);
}

// One message for a program that cannot go on: the file, the line, no control codes.
static void read_all_objects(const void *p) {
    Objects o;
    put_file(path, p, strlen(p));
    objects_open(&o, path);
    for (enum Status s; (s = read_object(&o)) != ROW_END; )
        CHECK(s == ROW_GOOD, "%s: %s", o.path, o.reason);
    objects_close(&o);
}

static void messages(void) {
    char where[96];
    snprintf(where, sizeof where, "%s: line 2, column 1: ", path);
    OK(dies(read_all_objects, "{\"k\": \"a\"}\n\x1b[31m\n") && strstr(message, where), "%s",
       message);
    OK(!strchr(message, 27), "control codes of the input reach the terminal");
    OK(!dies(read_all_objects, "{}\n{}\n") && !*message, "good objects: %s", message);
}

// The texts of a row, or the reason that it has none.
static void rows_read(void) {
    static const char ROWS[] =
        "{\"question\": \"x\", \"answer\": \"y\", \"correction\": \"z\"}\n"
        "{\"question\": \"x\",\n \"answer\": null}\n{\"question\": \"x\"}\n"
        "{\"question\": \"x\", \"answer\": \"\\x\"}\n{\"answer\": \"y\", \"question\": \"\"}\n";
    static const char *const REASON[] = { NULL, "line 3: no text under the key \"answer\"", "line 4: no text under",
                                         "line 5", NULL };
    Objects o;
    Triple t;
    put_file(path, ROWS, sizeof ROWS - 1);
    objects_open(&o, path);
    for (int i = 0; i < 5; i++) {
        enum Status status = next_row(&o, NEED_X | NEED_Y_O, &t);
        OK(status == (REASON[i] ? ROW_BAD : ROW_GOOD), "row %d has status %d", i, status);
        OK(!REASON[i] || !strncmp(o.reason, REASON[i], strlen(REASON[i])), "%d: %s", i, o.reason);
        OK(REASON[i] || (same(t.x, text(i ? "" : "x")) && same(t.y_o, text("y")) && !t.y_c.s), "%d",
           i);
    }
    OK(next_row(&o, NEED_X, &t) == ROW_END, "the end");
    objects_close(&o);
}

static void long_inputs(void) {
    enum { N = 1 << 20 };
    Buf in = { 0 };
    double start = seconds();
    for (int row = 0; row < 3; row++) {
        buf_puts(&in, row ? ",\n{\"k\": \"" : "[{\"k\": \"");
        for (int i = 0; i < N / 8; i++) buf_puts(&in, row == 1 ? "\\u00e9\\n" : "abc def ");
        buf_puts(&in, "\"}");
    }
    buf_puts(&in, "]");
    read_bytes(in.s, in.n);
    OK(out.n == 2 * (N + 1) + N / 8 * 3 + 1 && !memcmp(out.s + N + 1, "\xC3\xA9\n\xC3\xA9\n", 6),
       "strings of a megabyte: %zu bytes", out.n);

    // An array in one line takes linear time; JSONL takes constant memory.
    for (int lines = 0; lines < 2; lines++) {
        buf_set(&in, text(lines ? "" : "["));
        for (int i = 0; i < 50000; i++) {
            if (i) buf_puts(&in, lines ? "\n" : ", ");
            buf_puts(&in, "{\"k\": \"\", \"x\": [1, 2, 3], \"y\": {\"z\": \"some more text\"}}");
        }
        if (!lines) buf_puts(&in, "]");
        read_bytes(in.s, in.n);
        OK(out.n == 50000 && out.s[49999] == '|', "50,000 objects: %zu", out.n);
        OK(!lines || most_memory < 1 << 18, "JSONL takes %zu bytes", most_memory);
    }

    // An object may span lines; one that never ends costs its line, not the rest of the file.
    buf_set(&in, text("{\"x\": ["));
    for (int i = 0; i < 3000; i++) buf_puts(&in, i < 2999 ? "1,\n" : "1\n");
    buf_puts(&in, "]\n{\"k\": \"b\"}\n");
    read_bytes(in.s, in.n);
    OK(out.n > 20 && !strcmp(out.s + out.n - 3, "|b|"), "3,000 lines of one object: %.80s", out.s);
    OK(seconds() - start < 20, "twelve megabytes took %.1f s", seconds() - start);
    free(in.s);
}

// Appends t to out with U+FFFD for every byte that belongs to no character: from the definition, a
// character at a time.
static void repair(Text t, Buf *out) {
    for (size_t i = 0; i < t.n; ) {
        size_t good = 0;
        for (size_t n = 1; n <= 4 && n <= t.n - i && !good; n++) {
            static const uint32_t FROM[] = { 0, 0, 0x80, 0x800, 0x10000 },
                BELOW[] = { 0, 0x80, 0x800, 0x10000, 0x110000 };
            const uint8_t *s = (const uint8_t *)t.s + i;
            uint32_t c = n == 1 ? s[0] : s[0] & (0x7Fu >> n);
            bool form = n == 1 ? s[0] < 0x80 : s[0] >> (7 - n) == (2 << n) - 2;
            for (size_t j = 1; j < n; j++) {
                c = c << 6 | (s[j] & 0x3F);
                form = form && s[j] >> 6 == 2;
            }
            if (form && c >= FROM[n] && c < BELOW[n] && !(c >= 0xD800 && c < 0xE000)) good = n;
        }
        if (good) buf_add(out, t.s + i, good);
        else buf_puts(out, "\xEF\xBF\xBD");
        i += good ? good : 1;
    }
}

// Written and read again, a text is itself but for bytes that are not UTF-8. What is written is
// printable.
static bool round_trip(Text t) {
    Buf raw = { 0 }, back = { 0 }, want = { 0 }, clean = { 0 };
    json_put(&raw, t);
    repair(t, &want);
    repair(contents(&raw), &clean);
    const char *p = raw.s;
    bool ok = !json_value(&p, 0) && p == raw.s + raw.n && json_text(contents(&raw), &back) &&
              same(contents(&back), contents(&want)) && same(contents(&raw), contents(&clean));
    for (size_t i = 0; i < raw.n; i++) ok = ok && !is_control(raw.s[i]);
    FREE(raw.s, back.s, want.s, clean.s);
    return ok;
}

static void written_and_read(void) {
    static const uint8_t LEAD[] = { 'a',  '"',  '\\', 0x7F, 0x80, 0xBF, 0xC0,
                                    0xC1, 0xC2, 0xDF, 0xE0, 0xED, 0xEF, 0xF0,
                                    0xF4, 0xF5, 0xFF, 0x90, 0x8F, 0x9F, 0xA0 };
    uint64_t seed = 5;
    char s[64];
    int wrong = 0;
    for (int b = 0; b < 65536; b++) {
        memcpy(s, &(uint16_t){ (uint16_t)b }, 2);
        wrong += !round_trip((Text){ s, 2 });
    }
    OK(!wrong, "%d of 65536 pairs of bytes", wrong);
    for (int i = 0; i < 20000; i++) {
        size_t n = random_u64(&seed) % 12;
        for (size_t j = 0; j < n; j++)
            s[j] = (char)(i % 4 ? LEAD[random_u64(&seed) % sizeof LEAD] : random_u64(&seed));
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

// print_row()'s line for an object and the new members, which goes to stdout.
static bool puts_row(const char *object, const char *more, const char *want) {
    char line[512] = "";
    Buf b = { 0 };
    fflush(stdout);
    int keep = dup(1), to = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    dup2(to, 1);
    buf_puts(&b, more);
    print_row(text(object), (const char *const[]){ "correction", "action", NULL }, &b);
    fflush(stdout);
    dup2(keep, 1);
    close(keep);
    line[pread(to, line, sizeof line - 1, 0)] = 0;
    close(to);
    bool ok = !strcmp(line, want);
    if (!ok) printf("%s became %s", object, line);
    free(b.s);
    return ok;
}

static void rows_written(void) {
    static const char C[] = "\"correction\": \"c\"";
    OK(puts_row("{\"id\": 7, \"answer\":\"a\\u00e9\", \"x\": {\"y\":[1, 2]}, \"z\":null}", C,
                "{\"id\": 7, \"answer\": \"a\\u00e9\", \"x\": {\"y\":[1, 2]}, \"z\": null, "
                "\"correction\": \"c\"}\n"),
       "unknown keys stay, in order, as they were written");
    OK(puts_row("{\"correction\": \"old\", \"id\": 7, \"action\": \"copy\", \"c\\u006frrection\": "
                "\"x\", \"last\": 1}",
                "\"correction\": \"c\", \"action\": \"correct\"",
                "{\"id\": 7, \"last\": 1, \"correction\": \"c\", \"action\": \"correct\"}\n"),
       "an old correction and action give way");
    OK(puts_row("{}", C, "{\"correction\": \"c\"}\n"), "nothing else");
    OK(puts_row("{ \"action\" : 1 }", C, "{\"correction\": \"c\"}\n"), "nothing that stays");
    OK(puts_row("{\n  \"id\": 7,\r\n  \"x\": [\n1,\n2 ]\n}", C,
                "{\"id\": 7, \"x\": [ 1, 2 ], \"correction\": \"c\"}\n"),
       "one line for an object of many");
    OK(puts_row("{\"id\": 1, \"id\": 2}", C, "{\"id\": 1, \"id\": 2, \"correction\": \"c\"}\n"),
       "unknown keys are not judged");
}

int main(void) {
    snprintf(path, sizeof path, "build/json-test-%d.json", (int)getpid());
    good_input();
    bad_input();
    messages();
    rows_read();
    long_inputs();
    written_and_read();
    rows_written();
    remove(path);
    free(out.s);
    return done("JSON");
}
