"""Builds build/page.html, one file that opens from disk: docs/page/page.html with aligner.c as
WebAssembly, the models, quotations of aligner.c and of the lesson, the logs and the examination.

`make page` runs it after ./run.sh; an argument names another directory than build. It needs
clang, lld and wasi-libc, and opens no connection.
"""
import base64, csv, html, json, math, os, re, shutil, struct, subprocess, sys, tempfile

os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
BUILD = sys.argv[1] if len(sys.argv) > 1 else "build"
PAGE, MOST = BUILD + "/page.html", 5_000_000
PACKAGES = "on Debian: apt-get install clang lld wasi-libc libclang-rt-dev-wasm32"
FLAGS = """--target=wasm32-wasi -mexec-model=reactor -msimd128 -O3 -std=c11
    -ffp-contract=off -fno-math-errno -fno-trapping-math -Wall -Wextra -Wno-unused-function
    -Wno-unknown-pragmas -DALIGNER_NO_MAIN -D_POSIX_C_SOURCE=200809L -D_WASI_EMULATED_SIGNAL
    -Wl,--stack-first,-z,stack-size=1048576,--gc-sections,-s,--export=malloc,--export=free"""


def stop(message, status=1):
    """Status 2: a tool is missing."""
    print("page: " + message, file=sys.stderr)
    sys.exit(status)


def read(path, mode="r"):
    try:
        with open(path, mode, **({} if "b" in mode else {"encoding": "utf-8"})) as f:
            return f.read()
    except FileNotFoundError:
        stop(path + " is missing: run ./run.sh first")


# ---- The program and the models

def compile_wasm():
    clang = os.environ.get("WASM_CC", "clang")
    if not shutil.which(clang):
        stop("%s is missing; %s" % (clang, PACKAGES), 2)
    with tempfile.TemporaryDirectory() as tmp:
        probe, out = os.path.join(tmp, "probe.c"), os.path.join(tmp, "page.wasm")
        with open(probe, "w") as f:
            f.write("#include <stdio.h>\nvoid hello(void) { puts(\"hello\"); }\n")
        for source in probe, "docs/page/page.c":
            done = subprocess.run([clang, *FLAGS.split(), source, "-o", out, "-lm"],
                                  stderr=subprocess.PIPE, text=True)
            sys.stderr.write(done.stderr)
            if done.returncode and source == probe:
                stop("%s cannot build for WASI; %s" % (clang, PACKAGES), 2)
            if done.returncode:
                stop(source + " does not compile")
        return read(out, "rb")


def half(path):
    """A GGUF file with its matrices in F16: half the bytes. tests/page.mjs compares corrections."""
    b, at = read(path, "rb"), 24

    def take(form):
        nonlocal at
        at += struct.calcsize("<" + form)
        return struct.unpack_from("<" + form, b, at - struct.calcsize("<" + form))[0]

    def string():
        nonlocal at
        length = take("Q")
        at += length

    def value(kind):
        nonlocal at
        if kind == 8:
            string()
        elif kind == 9:
            inner = take("I")
            for _ in range(take("Q")):
                value(inner)
        else:
            at += {0: 1, 1: 1, 2: 2, 3: 2, 7: 1, 10: 8, 11: 8, 12: 8}.get(kind, 4)

    n_tensors, n_keys = struct.unpack_from("<QQ", b, 8)
    for _ in range(n_keys):
        string()
        value(take("I"))
    head, data, tensors = b[:at], b"", []
    for _ in range(n_tensors):
        first = at
        string()
        dims = [take("Q") for _ in range(take("I"))]
        tensors.append((b[first:at], math.prod(dims), len(dims) > 1, take("I"), take("Q")))
    start = -(-at // 32) * 32
    for name_and_dims, n, matrix, kind, offset in tensors:
        if kind:
            stop(path + " has tensors that are not F32")
        data += bytes(-len(data) % 32)
        head += name_and_dims + struct.pack("<IQ", matrix, len(data))
        weights = struct.unpack_from("<%df" % n, b, start + offset)
        data += struct.pack("<%d%s" % (n, "e" if matrix else "f"), *weights)
    return head + bytes(-len(head) % 32) + data


def blob(name):
    """What the page loads, in base64; and a file of it, which tests/page.mjs compares."""
    data = compile_wasm() if name == "wasm" else half("%s/models/%s.gguf" % (BUILD, name))
    with open("%s/page.%s" % (BUILD, name), "wb") as f:
        f.write(data)
    return base64.b64encode(data).decode()


# ---- Quotations: taken from aligner.c and the lesson, never pasted

def pre(text, label):
    return ('<pre tabindex="0" role="region" aria-label="%s"><code>%s</code></pre>'
            % (html.escape(label), html.escape(text)))


def function(name):
    pattern = r"^static [^;{}]*\b%s\([^;{}]*\)\s*\{\n.*?^\}$" % name
    found = re.search(pattern, read("aligner.c"), re.M | re.S)
    return found.group() if found else stop("aligner.c has no function %s()" % name)


def code(name):
    return pre(function(name), "aligner.c: " + name)


def comment(phrase):
    """The lines of comment around a phrase in aligner.c."""
    found = re.search(r"(?:^//.*\n)*^//.*%s.*\n(?:^//.*\n)*" % re.escape(phrase),
                      read("aligner.c"), re.M)
    return pre(found.group(), phrase) if found else stop("aligner.c does not say: " + phrase)


def diff(pair):
    before, after = (function(name).replace(name + "(", "OBJECTIVE(", 1).split("\n")
                     for name in pair.split())
    lines = [" " + a if a == b else "-%s\n+%s" % (a, b) for a, b in zip(before, after)]
    if len(before) != len(after) or sum("\n" in line for line in lines) != 1:
        stop("more than one line changes between " + pair)
    return pre("\n".join(lines), "the one line between " + pair.replace(" ", " and "))


def words(title):
    """The "In words" paragraph of the lesson's section whose title contains this."""
    pattern = r"^## ([^\n]*%s[^\n]*)\n.*?^\*\*In words\.\*\* (.*?)\n\n" % re.escape(title)
    found = re.search(pattern, read("docs/aligner.md"), re.M | re.S)
    if not found:
        stop('docs/aligner.md has no "In words" under ' + title)
    heading, body = found.groups()
    anchor = re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
    body = re.sub(r"`(.*?)`", r"<code>\1</code>", html.escape(body, False))
    return ('<p>%s</p><p><a href="../docs/aligner.md#%s">The lesson: %s</a></p>'
            % (body, anchor, html.escape(heading)))


def mathml(formula):
    """MathML of tokens separated by spaces: a_b has an index, a' a prime; letters are names."""
    def atom(s):
        if "_" in s:
            base, index = s.split("_")
            tag = "munder" if base in ("min", "∑") else "msub"
            return "<%s>%s<mrow>%s</mrow></%s>" % (tag, atom(base), "".join(map(atom, index)), tag)
        if s.endswith("'"):
            return "<msup>%s<mo>′</mo></msup>" % atom(s[:-1])
        if s[0].isalpha():
            return "<mi>%s</mi>" % s
        return '<mo stretchy="false">%s</mo>' % s
    inside = "".join(map(atom, formula.split()))
    return '<div class="math"><math display="block">%s</math></div>' % inside


# ---- How it was trained

def figure(inside, height, said, hidden=False):
    return ('<figure><svg viewBox="0 0 360 %d" aria-hidden="true">%s</svg><figcaption%s>%s'
            '</figcaption></figure>' % (height, inside, ' class="hidden"' * hidden, said))


def curve(stage):
    """A training log: the running loss on a logarithmic scale, and the limit of --grow-below."""
    rows = list(csv.DictReader(read("%s/models/%s.csv" % (BUILD, stage)).split("\n")))
    last, mean, points, limits, out = int(rows[-1]["step"]), None, [], [], ""
    x = lambda step: 40 + 300 * step / last
    for row in rows:
        step, loss, most = int(row["step"]), float(row["loss"]), int(row["longest"]) or "all"
        mean = loss if mean is None else 0.98 * mean + 0.02 * loss
        points.append((step, mean))
        if most != (limits[-1][1] if limits else "all"):
            limits.append((step, most))
    low = math.floor(math.log10(max(min(mean for _, mean in points), 1e-6)))
    y = lambda loss: 20 + 170 * (1 - math.log10(loss)) / (1 - low)
    for loss in (10.0 ** power for power in range(1, low - 1, -1)):
        out += '<line class="grid" x1="40" x2="340" y1="%.1f" y2="%.1f"/>' % (y(loss), y(loss))
        out += '<text x="34" y="%.1f" text-anchor="end">%g</text>' % (y(loss) + 4, loss)
    for step in 0, last // 2, last:
        out += '<text x="%.1f" y="206" text-anchor="middle">%d</text>' % (x(step), step)
    for i, (step, most) in enumerate(limits):
        out += '<line class="bound" x1="%.1f" x2="%.1f" y1="20" y2="190"/>' % (x(step), x(step))
        out += '<text class="bound" x="%.1f" y="%d" text-anchor="middle">%s</text>' % (
            x(step), 8 + i % 2 * 10, most)
    places = ["%.1f %.1f" % (x(step), y(max(mean, 10.0 ** low))) for step, mean in points]
    out += '<path class="loss" d="M%s"/>' % "L".join(places[::len(places) // 400 + 1])
    said = "The loss per target token falls from %.2f to %.3f in %d steps." % (
        float(rows[0]["loss"]), mean, last)
    if limits:
        said += " Dotted: the longest target in tokens, " + ", ".join(
            "%s from step %d" % (most, step) for step, most in limits) + "."
    return figure(out, 215, said)


def examination():
    """[(split, [(H, % good before, % good after)])] of train.sh's exam/table.json."""
    table = json.loads(read(BUILD + "/exam/table.json"))
    share = lambda sums, h, when: 100 * sums["%s_%s" % (h, when)] / sums["answers"]
    return [(name[6:], [(h, share(sums, h, "before"), share(sums, h, "after"))
                        for h in ("helpful", "harmless", "honest")])
            for name, sums in table.items() if name.startswith("split/") and sums["answers"]]


def bars():
    out, y, said = "", 0, []
    for split, scores in examination():
        out += '<text class="head" x="0" y="%d">%s</text>' % (y + 12, split)
        y += 18
        for h, before, after in scores:
            out += '<text x="0" y="%d">%s</text>' % (y + 13, h)
            for when, value in ("before", before), ("after", after):
                out += '<rect class="%s" x="66" y="%d" width="%.1f" height="8"/>' % (
                    when, y, 2.2 * value)
                out += '<text class="small" x="%.1f" y="%d">%.1f</text>' % (
                    70 + 2.2 * value, y + 8, value)
                y += 9
            y += 6
            said.append("%s, %s: %.1f before, %.1f after" % (split, h, before, after))
        y += 4
    for when, x in ("before", 66), ("after", 130):
        out += '<rect class="%s" x="%d" y="%d" width="8" height="8"/>' % (when, x, y)
        out += '<text x="%d" y="%d">%s</text>' % (x + 12, y + 8, when)
    return figure(out, y + 12, "; ".join(said) + ".", True)


# ---- Examples: the first row of each sort in the examination

def examples():
    rows = [json.loads(line) for name in ("speakers", "upstream")
            for line in read("%s/exam/%s.jsonl" % (BUILD, name)).split("\n") if line]
    copied = lambda r: r["action"] == "copy"
    good = lambda r: r.get("category") == "copy"
    bad = lambda r: r.get("category", "copy") != "copy"
    row = lambda kind, category: lambda r: (r["kind"] == kind and r.get("category") == category
                                            and copied(r) == good(r))
    pasted = lambda mark: lambda r: (r["split"] == "foreign" and copied(r)
                                     and re.search(mark, r["answer"]))
    sorts = [
        ("a good answer", row("facts", "copy")), ("not helpful", row("facts", "helpful")),
        ("not harmless", row("requests", "harmless")), ("an insult", row("smalltalk", "harmless")),
        ("not honest", row("facts", "honest")), ("a notice", row("notices", "honest")),
        ("a notice, read correctly", row("notices", "copy")),
        ("nobody knows", row("unknowable", "honest")),
        ("a real model's answer", lambda r: r["upstream"] == "upstream" and not copied(r)),
        ("a trouble", lambda r: r["kind"] == "troubles" and copied(r)),
        ("another script", pasted("[\u3000-\u9fff]")), ("code", pasted("[{}=]")),
        ("it misses one", lambda r: bad(r) and copied(r)),
        ("it spoils one", lambda r: good(r) and not copied(r))]
    out = ""
    for label, test in sorts:
        r = next(filter(test, rows), None)
        if r:
            out += '<button type="button" data-x="%s" data-y="%s">%s</button>\n' % (
                html.escape(r["question"]), html.escape(r["answer"]), label)
    return out


FILL = {"file": lambda name: read("docs/page/" + name), "blob": blob, "code": code, "diff": diff,
        "comment": comment, "words": words, "math": mathml, "curve": curve, "bars": bars,
        "examples": examples}


def fill(place):
    word, *rest = place.group(1).split(" ", 1)
    return FILL[word](*rest)


page = re.sub(r"\{\{(.*?)\}\}", fill, read("docs/page/page.html")).encode()
if len(page) > MOST:
    stop("%s would have %d bytes; at most %d were expected" % (PAGE, len(page), MOST))
with open(PAGE, "wb") as f:
    f.write(page)
print("%s: %.2f MB, opens from disk" % (PAGE, len(page) / 1e6))
