#!/usr/bin/env python3
"""faults.py - what users bring: files of other programs, odd data, full disks, odd command lines.

One function for each fault that was once found, fault_01 to fault_38, then the promises about
disks, pipes and long streams. Each makes its own input, so it can be run by name:

    tests/faults.py              everything; ends with "N passed, N failed"
    tests/faults.py 05 18 pipe   only the functions whose names contain one of the words
    tests/faults.py --long       also what takes minutes (100,000 lines, gcc against clang)

Only Python's standard library is used. $B is the build folder (build unless set). $UNDER is put
before the program: UNDER="valgrind -q --error-exitcode=99", for example, with a build that valgrind
understands (make B=build/avx2 NATIVE=-march=haswell). What cannot run on this machine is named in a
line that begins with "skipped".
"""
import json
import math
import os
import random
import re
import shlex
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import time
import traceback

for name in ("MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "CHECKED", "NATIVE", "OPENMP"):
    os.environ.pop(name, None)          # a make that runs this must not tell the makes below what to do


ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
B = os.environ.get("B", "build")
ALIGNER = os.path.join(ROOT, B, "aligner")
LAB = os.path.join(ROOT, B, "lab")
STORIES = os.path.join(ROOT, "../shared/models/stories260K.gguf")
TRAINED = os.path.join(ROOT, "build/models/aligner.gguf")
UNDER = os.environ.get("UNDER", "").split()
SANITIZED = bool(UNDER) or "asan" in B  # then memory is not measured, and time hardly
SLOW = 30 if UNDER else 10 if SANITIZED else 1
LONG = False
TMP = ""                                # the folder of this run's files
passed, failed = 0, 0
here = ""                               # the function that is running

ROWS = [
    {"id": 1, "question": "Two and two?", "answer": "It is five.", "correction": "It is four.",
     "category": "sums"},
    {"id": 2, "question": "The sky?", "answer": "It is blue.", "correction": "It is blue.",
     "category": "facts"},
    {"id": 3, "question": "One and two?", "answer": "It is three.", "correction": "It is three.",
     "category": "sums"},
    {"id": 4, "question": "The grass?", "answer": "It is red.", "correction": "It is green.",
     "category": "facts"}]


# --- files of this run

def path(name):
    return os.path.join(TMP, name)


def write(name, data):
    """Writes bytes, a text, or rows as JSONL; returns the path."""
    data = jsonl(data) if isinstance(data, list) else data
    with open(path(name), "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())
    return path(name)


def read(name):
    """The bytes of a file, or None if there is no such file."""
    if not os.path.isfile(path(name)):
        return None
    with open(path(name), "rb") as f:
        return f.read()


def remove(*names):
    for name in names:
        if os.path.isdir(path(name)) and not os.path.islink(path(name)):
            shutil.rmtree(path(name))
        elif os.path.lexists(path(name)):
            os.remove(path(name))


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def page(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as f:
        return f.read()


# --- checking

def ok(what, condition, detail=""):
    global passed, failed
    if condition:
        passed += 1
        return True
    failed += 1
    print(f"{here}: failed: {what}" + (f"\n      {detail[-400:]!r}" if detail else ""), flush=True)
    return False


def skip(why):
    print(f"skipped {here}: {why}", flush=True)


class Result:
    def __init__(self, code, out, err, peak, cpu):
        self.code, self.peak, self.cpu = code, peak, cpu        # MB at most; processor seconds
        self.out, self.err = out.decode("utf-8", "replace"), err.decode("utf-8", "replace")

    def about(self):
        return f"exit {self.code}; stderr: {self.err[-250:]}; stdout: {self.out[-120:]}"

    def objects(self):
        """The lines of stdout as JSON; None for a line that is not JSON or has NaN or Infinity."""
        found = []
        for line in self.out.splitlines():
            try:
                found.append(json.loads(line, parse_constant=float.fromhex))
            except ValueError:
                found.append(None)
        return found


# --- running

def words(line, more=()):
    """A command line as words: @name is a file of this run; `more` is added as it is."""
    return [path(w[1:]) if w.startswith("@") else w for w in line.split()] + [str(w) for w in more]


def peak_of(pid):
    """The most memory that the process has had so far, in MB; 0 if unknown."""
    try:
        with open(f"/proc/{pid}/status") as f:
            found = re.search(r"VmHWM:\s*(\d+)", f.read())
            return int(found.group(1)) / 1024 if found else 0
    except OSError:
        return 0


def environment(**more):
    clean = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    return dict(clean, OMP_NUM_THREADS="1", ASAN_OPTIONS="detect_leaks=0", **more)


def execute(command, stdin=b"", timeout=60, out=None, cwd=None):
    """Runs a list of words; stdin is bytes or an open file, out an open file or None."""
    with tempfile.TemporaryFile() as o, tempfile.TemporaryFile() as e, \
            tempfile.TemporaryFile() as i:
        if isinstance(stdin, bytes):
            i.write(stdin)
            i.seek(0)
            stdin = i
        child = subprocess.Popen(command, stdin=stdin, stdout=out or o, stderr=e,
                                 env=environment(), cwd=cwd)
        end, peak, pid = time.time() + timeout * SLOW, 0, 0
        while not pid:
            peak = max(peak, peak_of(child.pid))
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            if not pid and time.time() > end:
                child.kill()
                pid, _, usage = os.wait4(child.pid, 0)
                status = 124 << 8                       # as timeout(1) says it
            if not pid:
                time.sleep(0.002)
        child.returncode = os.waitstatus_to_exitcode(status)
        o.seek(0)
        e.seek(0)
        return Result(child.returncode, o.read(), e.read(), peak, usage.ru_utime + usage.ru_stime)


def run(line, *more, program=None, **how):
    return execute(UNDER + [program or ALIGNER] + words(line, more), **how)


def shell(line, **how):
    """A line of sh, in the project's folder; {aligner} is the program and @name a file of this run."""
    line = re.sub(r"@([\w.-]+)", lambda m: shlex.quote(os.path.relpath(path(m.group(1)), ROOT)),
                  line.replace("{aligner}", shlex.join(UNDER + [ALIGNER])))
    return execute(["sh", "-c", line], cwd=ROOT, **how)


def shown(line, more=()):
    text = " ".join([line] + [str(w) for w in more]).replace(TMP + "/", "@")
    return "aligner " + (text if len(text) < 90 else text[:87] + "...")


def good(line, *more, **how):
    r = run(line, *more, **how)
    ok(f"{shown(line, more)} succeeds", r.code == 0, r.about())
    return r


def one_message(what, r, code, *patterns):
    """What a failure must do: this exit code, and one line on stderr that says all of this.

    A line before it may count the skipped rows.
    """
    lines = r.err.splitlines(keepends=True)
    lines = lines[1:] if lines and "skipped" in lines[0] else lines
    if ok(f"{what}: exit {code}", r.code == code, r.about()) and \
            ok(f"{what}: one line of message", len(lines) == 1 and lines[0][-1] == "\n", r.about()):
        for pattern in patterns:
            ok(f"{what}: the message says {pattern}", re.search(pattern, r.err), r.err)
    return r


def refused(line, *patterns, **how):
    return one_message(shown(line), run(line, **how), 1, *patterns)


def usage(line, *patterns):
    r = one_message(shown(line), run(line), 2, "--help", *patterns)
    ok(f"{shown(line)}: nothing on stdout", r.code != 2 or r.out == "", r.out)


# --- GGUF, written by hand

SCALAR = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q",
          12: "d"}
U8, U32, F32, BOOL, STRING, ARRAY = 0, 4, 6, 7, 8, 9


class Gguf:
    """A GGUF file: keys (name -> (type, value)) and tensors ([name, dims, type, bytes])."""

    def __init__(self, name):
        with open(path(name), "rb") as f:
            self.raw = f.read()
        self.at, self.keys, self.tensors, info = 8, {}, [], []
        n_tensors, n_keys = self.take("Q"), self.take("Q")
        for _ in range(n_keys):
            key, kind = self.text(), self.take("I")
            self.keys[key] = (kind, self.value(kind))
        for _ in range(n_tensors):
            name, n_dims = self.text(), self.take("I")
            info.append([name, [self.take("Q") for _ in range(n_dims)], self.take("I"),
                         self.take("Q")])
        start = -(-self.at // 32) * 32
        for name, dims, kind, offset in info:           # F32, F16 and BF16 are all that occurs
            n = math.prod(dims) * (4 if kind == 0 else 2)
            self.tensors.append([name, dims, kind, self.raw[start + offset:start + offset + n]])

    def take(self, code):
        v = struct.unpack_from("<" + code, self.raw, self.at)[0]
        self.at += struct.calcsize("<" + code)
        return v

    def text(self):
        n = self.take("Q")
        self.at += n
        return self.raw[self.at - n:self.at].decode("utf-8", "surrogateescape")

    def value(self, kind):
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            return self.take(SCALAR[kind])
        kind, n = self.take("I"), self.take("Q")
        return kind, [self.value(kind) for _ in range(n)]

    def tensor(self, name):
        return next(t for t in self.tensors if t[0] == name)

    def save(self, name, version=3, after=b"", order="<"):
        def number(code, *v):
            return struct.pack(order + code, *v)

        def text(s):
            b = s.encode("utf-8", "surrogateescape")
            return number("Q", len(b)) + b

        def value(kind, v):
            if kind == STRING:
                return text(v)
            if kind != ARRAY:
                return number(SCALAR[kind], v)
            return number("IQ", v[0], len(v[1])) + b"".join(value(v[0], x) for x in v[1])

        head = b"GGUF" + number("IQQ", version, len(self.tensors), len(self.keys))
        data = b""
        head += b"".join(text(k) + number("I", kind) + value(kind, v)
                         for k, (kind, v) in self.keys.items())
        for tensor, dims, kind, raw in self.tensors:
            head += text(tensor) + number(f"I{len(dims)}QIQ", len(dims), *dims, kind, len(data))
            data += raw + bytes(-len(raw) % 32)
        return write(name, head + bytes(-len(head) % 32) + data + after)


def with_keys(name, base="m.gguf", **keys):
    """A copy of a model with more keys; __ in a name is a dot."""
    g = Gguf(base)
    for key, v in keys.items():
        g.keys[key.replace("__", ".")] = v
    g.save(name)


def parrot(name, *chain, first=None):
    """A model whose output is known: whatever it reads, it writes the pieces of chain, then </s>.

    All weights but the two embeddings are zero, so the next token depends on the last one only;
    each token of the chain has a dimension of the residual stream to itself. A piece is a text, or
    the number of a token that exists already. With first = {piece: probability}, the first token
    is drawn.
    """
    g = Gguf("m.gguf")
    pieces, scores, types = (g.keys["tokenizer.ggml." + k][1][1] for k in
                             ("tokens", "scores", "token_type"))

    def id_of(piece):
        if isinstance(piece, int):
            return piece
        pieces.append(piece.replace(" ", "\u2581"))
        scores.append(-1e5 - len(pieces))
        types.append(1)
        return len(pieces) - 1

    ids = [id_of(piece) for piece in chain]
    drawn = {id_of(piece): p for piece, p in (first or {}).items()}
    dim, n = g.keys["llama.embedding_length"][1], len(pieces)
    units = [[float(i == j) for j in range(dim)] for i in range(dim)]
    embedding, head = [units[0]] * n, [[0.0] * dim for _ in range(n)]
    for at, i in enumerate(ids):
        embedding[i], head[i][at] = units[at + 1], 10.0
    for i, p in drawn.items():                          # a 1 leaves the norm as sqrt(dim)
        embedding[i], head[i][0] = units[-1], 10.0 + math.log(p) / math.sqrt(dim)
    head[2][dim - 1 if first else len(ids)] = 10.0
    for t in g.tensors:
        table = {"token_embd.weight": embedding, "output.weight": head}.get(t[0])
        if table:
            t[1] = [dim, n]
        flat = sum(table, []) if table else [float(t[0] == "output_norm.weight")] * math.prod(t[1])
        t[2], t[3] = 0, struct.pack(f"<{len(flat)}f", *flat)
    g.keys["llama.context_length"], g.keys["llama.vocab_size"] = (U32, 1024), (U32, n)
    g.keys.pop("aligner.keep", None)
    g.save(name)


def make_models():
    """t.bin, and three models that know ROWS by heart: sft.gguf, warm.gguf and m.gguf."""
    write("rows.jsonl", ROWS)
    learn = "--data @rows.jsonl --batch 4 --lr 1e-2 --quiet"
    for line in (
            "tokenizer --data @rows.jsonl --vocab 330 --prompt short --out @t.bin --quiet",
            f"train sft --tokenizer @t.bin {TINY} {learn} --steps 200 --out @sft.gguf",
            f"train warmup --init @sft.gguf {learn} --steps 100 --out @warm.gguf",
            f"train aligner --init @warm.gguf {learn} --steps 200 --out @m.gguf"):
        r = run(line, timeout=120)
        if r.code:
            sys.exit(f"faults.py: cannot make its models: {shown(line)}: {r.about()}")
    remove("sft.gguf.state", "warm.gguf.state", "m.gguf.state")


TINY = "--dim 16 --layers 1 --heads 2 --context 64 --prompt short"
TRAIN = "train aligner --init @warm.gguf --batch 3 --quiet"         # wants --data --steps --out
FOUR = TRAIN + " --data @rows.jsonl --steps 4"
CORRECT = "correct @m.gguf --quiet"


def sample(name):
    return good(f"sample @{name} --max-tokens 8 --text ##Question:").out


# --- rows 1 to 6: model files from elsewhere

def fault_01():
    """A key that changes what a model computes is obeyed or refused, never ignored."""
    bad = {
        "llama.rope.scaling.factor": (F32, 4.0), "llama.rope.scale_linear": (F32, 4.0),
        "llama.rope.scaling.type": (STRING, "yarn"), "llama.rope.dimension_count": (U32, 2),
        "llama.attention.sliding_window": (U32, 8), "llama.attention.causal": (BOOL, False),
        "llama.attention.key_length": (U32, 4), "llama.attention.value_length": (U32, 4),
        "llama.attention.scale": (F32, 0.5), "llama.logit_scale": (F32, 2.0),
        "llama.embedding_scale": (F32, 2.0), "llama.residual_scale": (F32, 2.0),
        "llama.expert_count": (U32, 4), "llama.expert_used_count": (U32, 2),
        "llama.use_parallel_residual": (BOOL, True), "llama.frobnicate": (U32, 1),
        "tokenizer.ggml.remove_extra_whitespaces": (BOOL, True),
        "tokenizer.ggml.precompiled_charsmap": (ARRAY, (U8, [1, 2, 3])),
        "tokenizer.ggml.frobnicate": (U32, 1), "tokenizer.ggml.add_bos_token": (BOOL, False),
        "tokenizer.ggml.add_eos_token": (BOOL, True)}
    for key, v in bad.items():
        with_keys("x.gguf", **{key: v})
        name = key.split(".")[-1] + ("|begin with <s>" if "add_" in key else "")
        r = one_message(key, run("sample @x.gguf"), 1, name)
        ok(f"{key}: nothing on stdout", r.out == "", r.out)
    with_keys("x.gguf", llama__rope__scaling__type=(STRING, "linear"),
              llama__rope__scaling__factor=(F32, 4.0))
    one_message("linear with factor 4", run("sample @x.gguf"), 1, "rope.scaling")
    for kind in (3, 4, 5):                              # control, user-defined, unused
        g = Gguf("m.gguf")
        g.keys["tokenizer.ggml.token_type"][1][1][300] = kind
        g.save("x.gguf")
        one_message(f"token type {kind}", run("tokens @x.gguf --text x"), 1, "type")
    if os.path.exists(STORIES):
        with_keys("x.gguf", STORIES, llama__rope__scaling__factor=(F32, 4.0))
        one_message("stories260K", run("sample @x.gguf"), 1, "rope.scaling.factor")
    else:
        skip("no ../shared/models/stories260K.gguf")
    want = sample("m.gguf")
    for key, v in {
            "general.author": (STRING, "me"), "general.quantization_version": (U32, 2),
            "tokenizer.chat_template": (STRING, "{{ x }}"),
            "tokenizer.ggml.pre": (STRING, "default"),
            "tokenizer.ggml.padding_token_id": (U32, 0), "quantize.imatrix.file": (STRING, "f"),
            "llama.attention.key_length": (U32, 8), "llama.attention.value_length": (U32, 8)
    }.items():
        with_keys("x.gguf", **{key: v})
        ok(f"{key} changes nothing", sample("x.gguf") == want)


def spelt(name, text):
    """The text of the tokens after <s>."""
    lines = good(f"tokens {name} --text", text).out.splitlines()[1:]
    pieces = [json.loads(line.split("\t")[1]) for line in lines]
    return "".join(re.sub("<0x(..)>", lambda m: chr(int(m.group(1), 16)), p) for p in pieces)


def fault_02():
    """add_space_prefix = false is obeyed, and written as it was read."""
    key = "tokenizer.ggml.add_space_prefix"
    with_keys("x.gguf", **{key: (BOOL, False)})
    ok("true: a space comes first", (s := spelt("@m.gguf", "Paris")) == " Paris", s)
    ok("false: no space", (s := spelt("@x.gguf", "Paris")) == "Paris", s)
    good("train aligner --init @x.gguf --data @rows.jsonl --steps 1 --out @y.gguf --quiet")
    ok("train --init writes false again", Gguf("y.gguf").keys[key][1] is False)
    r = good("correct @x.gguf --quiet", stdin=jsonl(ROWS))
    ok("correct works with it", len(r.objects()) == 4, r.out)
    if os.path.exists(STORIES):
        with_keys("x.gguf", STORIES, **{key: (BOOL, False)})
        ok("stories260K: no space", (s := spelt("@x.gguf", "Paris")) == "Paris", s)


def fault_03():
    """Other ways to write the same model are read."""
    want = sample("m.gguf")
    g = Gguf("m.gguf")
    g.save("x.gguf", version=2)
    ok("version 2", sample("x.gguf") == want)
    with_keys("x.gguf", llama__rope__scaling__type=(STRING, "none"))
    ok("rope.scaling.type none", sample("x.gguf") == want)
    with_keys("x.gguf", llama__rope__scaling__type=(STRING, "linear"),
              llama__rope__scaling__factor=(F32, 1.0))
    ok("rope.scaling.type linear with factor 1", sample("x.gguf") == want)
    g.save("x.gguf", after=bytes(4096))
    ok("zeros after the data", sample("x.gguf") == want)
    g.save("x.gguf", after=b"\0\0more")
    refused("sample @x.gguf")
    for t in g.tensors:
        t[1] = t[1] + [1] if len(t[1]) == 1 else t[1]
    g.save("x.gguf")
    ok("norms of shape [C, 1]", sample("x.gguf") == want)


def fault_04():
    """A big-endian file is refused by that name."""
    Gguf("m.gguf").save("x.gguf", order=">")
    refused("info @x.gguf", "(?i)big.endian")


def fault_05():
    """A weight that is not a number is refused when the file is loaded; its tensor is named."""
    for tensor in ("token_embd.weight", "blk.0.attn_norm.weight", "blk.0.ffn_down.weight",
                   "output.weight"):
        for x in (math.nan, math.inf, -math.inf, 5e37):        # one bit of 0.02 makes it 5e37
            g = Gguf("m.gguf")
            t = g.tensor(tensor)
            at = len(t[3]) - 4 if x != x else len(t[3]) // 8 * 4
            t[3] = t[3][:at] + struct.pack("<f", x) + t[3][at + 4:]
            g.save("x.gguf")
            r = one_message(f"{x} in {tensor}", run("sample @x.gguf"), 1, re.escape(tensor))
            ok(f"{x} in {tensor}: nothing on stdout", r.out == "", r.out)
    refused("correct @x.gguf", "output.weight", stdin=jsonl(ROWS))
    refused("eval @x.gguf --data @rows.jsonl --json", "output.weight")
    r = refused("train aligner --init @x.gguf --data @rows.jsonl --steps 1 --out @y.gguf",
                "output.weight")
    ok("training does not blame --lr", "--lr" not in r.err, r.err)
    for kind, raw in ((1, b"\x00\x7C"), (1, b"\x01\xFE"), (30, b"\x80\x7F"), (30, b"\xC0\xFF")):
        g = Gguf("m.gguf")
        t = g.tensor("blk.0.attn_q.weight")
        t[2], t[3] = kind, bytes(2 * math.prod(t[1]) - 2) + raw
        g.save("x.gguf")
        one_message(f"type {kind}, {raw.hex()}", run("sample @x.gguf"), 1, "blk.0.attn_q.weight")


def fault_06():
    """Memory follows the text, not a number that a file claims."""
    with_keys("x.gguf", llama__context_length=(U32, 1 << 20))
    for line in ("sample @x.gguf --text The --max-tokens 3",
                 "correct @x.gguf --question sky? --answer blue.",
                 "eval @x.gguf --data @rows.jsonl",
                 "train aligner --init @x.gguf --data @rows.jsonl --steps 2 --out @y.gguf"):
        r = good(line)
        ok(f"{shown(line)}: {r.peak:.0f} MB", SANITIZED or r.peak < 64)
    remove("x.gguf", "y.gguf", "y.gguf.state")


# --- rows 7 to 17: training

def fault_07():
    """Whether the output can be written is tested before the data is even opened."""
    os.mkfifo(path("never"))                            # to open it is to wait for ever
    os.mkdir(path("folder"))
    os.mkdir(path("z.gguf.state"))
    train = TRAIN + " --data @never --steps 4"
    for line in (f"{train} --out @folder", f"{train} --out @z.gguf", f"{train} --out @none/y.gguf",
                 f"{train} --out @y.gguf --log @folder", f"{train} --out @y.gguf --log @none/l",
                 "tokenizer --data @never --vocab 300 --out @folder"):
        refused(line, "(?i)write|folder|directory", timeout=5)
    for line in (f"{train} --out=", f"{train} --log= --out @y.gguf", f"{train} --out --resume",
                 "tokenizer --data @never --vocab 300 --out="):
        usage(line, "no name")
    for option, pattern in {"--adam-eps 0": "--adam-eps", "--adam-eps 1e-60": "--adam-eps",
                            "--ema 1": "--ema"}.items():
        usage(f"{train} --out @y.gguf {option}", pattern)
    ok("nothing was left behind", os.listdir(path("folder")) == [])
    ok("no model was made", read("z.gguf") is None and read("y.gguf") is None)
    good(f"{FOUR} --keep 2e9 --out @y.gguf")            # the largest number that options allow
    ok("--keep 2e9 is in the file", "keep 2e+09" in good("info @y.gguf").out)
    os.chmod(path("y.gguf"), 0o444)
    if os.access(path("y.gguf"), os.W_OK):
        skip("a write-protected output takes another user than root")
    else:
        refused(f"{train} --out @y.gguf", "write-protected", timeout=5)
    remove("never", "folder", "z.gguf.state", "y.gguf", "y.gguf.state")


SAME = "both input and output|two outputs"


def outputs_that_are_no_files():
    """A device, a pipe or a link to one is not replaced by a file: /dev/null stays what it is."""
    os.mkfifo(path("pipe"))
    os.symlink("/dev/null", path("null"))
    for name in ("pipe", "null"):
        refused(f"{FOUR} --out @{name}", "(?i)not a file|no file")
        refused(f"tokenizer --data @rows.jsonl --vocab 300 --out @{name}", "(?i)not a file|no file")
    ok("they are as they were", stat.S_ISFIFO(os.lstat(path("pipe")).st_mode) and
       os.readlink(path("null")) == "/dev/null")
    remove("pipe", "null", "y", "y.state")


def fault_08():
    """No input is ever an output, under whatever name."""
    def kept(line, name, *patterns):
        before = read(name)
        r = run(line)
        ok(f"{shown(line)}: refused", r.code in (1, 2) and r.err.count("\n") == 1, r.about())
        ok(f"{shown(line)}: the input is as it was", read(name) == before)
        for pattern in patterns:
            ok(f"{shown(line)}: says so", re.search(pattern, r.err), r.err)
        remove("y", "y.state")

    train = "train aligner --init @warm.gguf --steps 1"
    for name in ("d", "soft", "hard"):
        for line in (f"{train} --data @d --out @{name}",
                     f"{train} --data @d --out @y --log @{name}",
                     f"{train} --data @rows.jsonl --valid @d --out @{name}",
                     f"{train} --data @rows.jsonl --valid @d --out @y --log @{name}",
                     f"tokenizer --data @d --vocab 300 --out @{name}"):
            remove("d", "soft", "hard")
            write("d", ROWS)
            os.symlink(path("d"), path("soft"))
            os.link(path("d"), path("hard"))
            kept(line, "d", SAME)
    write("c", read("m.gguf"))
    kept("train aligner --init @c --data @d --steps 1 --out @c", "c", SAME)
    kept("train aligner --init @c --data @d --steps 1 --out @y --log @c", "c", SAME)
    write("k", read("t.bin"))
    kept(f"train sft --tokenizer @k {TINY} --data @d --steps 1 --out @k", "k", SAME)
    kept("tokenizer --tokenizer @k --data @d --vocab 300 --out @k", "k")
    write("y.state", ROWS)
    kept(f"{train} --data @y.state --out @y", "y.state", SAME)
    for name in ("w.aligner-tmp", "w.state.aligner-tmp"):       # what a killed run may have left
        for line in (f"{train} --data @{name} --out @w",
                     f"{train} --data @d --out @w --log @{name}",
                     f"{train} --data @d --valid @{name} --out @w"):
            write(name, ROWS)
            kept(line, name, SAME)
            remove(name)
    os.symlink(TMP, path("here"))
    for log in ("w", "./w", "here/w", "w.state", "here/./w.state"):     # none of them exists
        refused(f"{train} --data @d --out @w --log @{log}", SAME)
    remove("d", "soft", "hard", "k", "w", "w.state", "here")
    if os.path.exists(LAB):
        write("c", read("m.gguf"))
        r = run("rlhf --init @sft.gguf --reward @c --data @rows.jsonl --steps 1 --out @c",
                program=LAB)
        ok("lab rlhf --reward and --out", r.code in (1, 2) and read("c") == read("m.gguf"),
           r.about())
    else:
        skip("no build/lab for rlhf --reward")
    remove("c")


def fault_09():
    """`correct M f >> f` is refused, as cat refuses it."""
    for line in ("{aligner} correct @m.gguf @f >> @f", "{aligner} correct @m.gguf < @f >> @f",
                 "{aligner} answer @sft.gguf @f >> @f"):
        write("f", ROWS)
        r = shell("timeout 5 " + line)
        ok(f"{line}: exit 1", r.code == 1, r.about())
        ok(f"{line}: says so", re.search(SAME, r.err), r.err)
        ok(f"{line}: the file is as it was", read("f") == jsonl(ROWS), f"{len(read('f'))} bytes")
    r = shell("{aligner} correct @m.gguf --quiet < /dev/null > /dev/null")
    ok("/dev/null in and out is no such case", r.code == 0, r.about())
    remove("f")


def fault_10():
    """A temporary name is our own: x.gguf.tmp is the user's."""
    names = ["y.gguf.tmp", "y.gguf.state.tmp", "l.csv.tmp", "y.bin.tmp"]
    write("empty", b"")
    for line in (f"{FOUR} --out @y.gguf --log @l.csv",
                 "tokenizer --data @rows.jsonl --vocab 300 --out @y.bin --quiet",
                 f"{TRAIN} --data @empty --steps 4 --out @y.gguf"):
        for name in names:
            write(name, b"my notes")
        run(line)
        for name in names:
            ok(f"{shown(line)}: {name} is as it was", read(name) == b"my notes")
    left = [name for name in os.listdir(TMP) if "aligner-tmp" in name]
    ok("none of ours is left", not left, str(left))
    remove("y.gguf", "y.gguf.state", "y.bin", "l.csv", "empty", *names)


def fault_11():
    """--resume is the same command: what would change the result is refused."""
    rows = [dict(row, id=i) for i, row in enumerate(ROWS * 3)]
    write("d", rows)
    same = {"--lr": "1e-3", "--muon": "0.5", "--ema": "0.9", "--grow-below": "0.5"}
    train = "train {} --init @warm.gguf --data @d --out @r.gguf --quiet"

    def line(objective="aligner", steps=8, options=same, **more):
        options = dict({"--batch": 3, "--steps": steps}, **options)
        return train.format(objective) + "".join(f" {k} {v}" for k, v in options.items())

    good(line(steps=6))
    model, state = read("r.gguf"), read("r.gguf.state")

    def again(what, command, data=rows, fine=False):
        write("d", data)
        r = run(command + " --resume")
        if fine:
            ok(f"resumed with {what}", r.code == 0, r.about())
        else:
            one_message(f"resumed with {what}", r, 1)
            ok(f"{what}: model and state are as they were",
               read("r.gguf") == model and read("r.gguf.state") == state)
        write("r.gguf", model)
        write("r.gguf.state", state)

    again("more rows", line(), rows + ROWS)
    again("fewer rows", line(), rows[:-1])
    again("a changed row", line(), [dict(rows[0], correction="It is six.")] + rows[1:])
    again("the rows in another order", line(), rows[::-1])
    again("another objective", line("warmup"))
    for option, value in {"--lr": "2e-3", "--muon": 0.4, "--ema": 0.8, "--grow-below": 0.25,
                          "--batch": 2, "--seed": 2, "--clip": 0.5,
                          "--prompt": "{question}|{answer}",
                          "--weight-decay": 0.1, "--adam-eps": 1e-6, "--lr-warmup": 0.5}.items():
        again(f"another {option}", line(options=dict(same, **{option: value})))
    for option in ("--muon", "--ema", "--grow-below"):
        again(f"no {option}", line(options={k: v for k, v in same.items() if k != option}))
    warm = read("warm.gguf")
    for key in ("llama.rope.freq_base", "llama.attention.layer_norm_rms_epsilon"):
        g = Gguf("warm.gguf")
        g.keys[key] = (F32, g.keys[key][1] * 2)
        g.save("warm.gguf")
        again(f"another {key}", line())
        write("warm.gguf", warm)
    again("the same command", line(), fine=True)
    again("what may differ", line() + " --threads 2 --save-every 1 --log @l --valid @rows.jsonl",
          fine=True)
    text = good("--help").out + run("train --help").out
    near = re.search(r"--resume[^\n]*(\n[^\n]*){0,4}", text)
    for option in ("--threads", "--steps", "--save-every"):
        ok(f"--help says that {option} may differ", near and option in near.group(0))

    remove("r.gguf", "r.gguf.state")                    # there is nothing yet: it starts, and says so
    r = run(line(steps=6).replace(" --quiet", "") + " --resume")
    ok("nothing to resume: it starts", r.code == 0 and read("r.gguf") == model, r.about())
    ok("... and says so", re.search("(?i)step 0|first step", r.err), r.err)
    remove("r.gguf.state")                              # there is a model: whose?
    one_message("a model without its state", run(line() + " --resume"), 1, "state")
    ok("... which is as it was", read("r.gguf") == model)
    remove("d", "l", "r.gguf", "r.gguf.state")


def fault_12():
    """Killed between the first state and the first model, a run resumes."""
    train = TRAIN + " --data @rows.jsonl --steps 6 --ema 0.9 --muon 0.5 --out @r.gguf"
    good(train)
    model, state = read("r.gguf"), read("r.gguf.state")
    remove("r.gguf")                                    # as after such a kill
    good(train + " --resume")
    ok("the model has the same bits", read("r.gguf") == model)
    ok("the state has the same bits", read("r.gguf.state") == state)
    remove("r.gguf", "r.gguf.state")


def fault_13():
    """With stderr closed, no progress line lands in the log; no file is taken for a stream."""
    train = TRAIN.replace(" --quiet", "") + " --data @rows.jsonl --steps 6 --out @y --log @l"
    good(train)
    model, log = read("y"), read("l")
    for closed in ("1>&-", "0<&-") + (() if UNDER else      # valgrind itself needs its stderr
                                      ("2>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-")):
        remove("y", "y.state", "l")
        r = shell("{aligner} " + f"{train} {closed}")
        ok(f"{closed}: the model is the same", read("y") == model, r.about())
        ok(f"{closed}: the log is the same", read("l") == log, str(read("l")))
    r = shell("{aligner} correct @m.gguf 0<&-")
    ok("correct with stdin closed ends", r.code in (0, 1) and r.out == "", r.about())
    r = shell("{aligner} correct @m.gguf @rows.jsonl >&-")
    ok("correct with stdout closed has failed", r.code == 1, r.about())
    remove("y", "y.state", "l")


def fault_14():
    """eval and --valid refuse a file without a usable row; loss and rates count the same rows."""
    long_row = {"question": "Long?", "answer": "word " * 100, "correction": "word " * 100}
    for what, rows in {"empty": [], "no correction": [{"question": "q", "answer": "a"}] * 3,
                       "too long": [long_row] * 3}.items():
        write("d", rows)
        r = refused("eval @m.gguf --data @d")
        ok(f"{what}: no table", r.out == "", r.out)
        ok(f"{what}: the reason is counted", not rows or re.search(r"\b3\b", r.err), r.err)
        refused("eval @m.gguf --data @d --json")
        refused(f"{FOUR} --valid @d --out @y")
        ok(f"{what}: --valid is refused before training", read("y") is None)
        remove("y", "y.state")
    write("d", ROWS + [long_row])
    r = run("eval @m.gguf --data @d --json")
    want = good("eval @m.gguf --data @rows.jsonl --json").objects()[0]
    if ok("eval of four good rows and a long one", r.code == 0 and r.objects(), r.about()):
        o = r.objects()[0]
        ok("the loss is over the four", o["rows"] == 4 and o["loss"] == want["loss"], r.out)
        ok("so are the rates", o["copy"]["rows"] + o["correct"]["rows"] == 4, r.out)
        ok("what is left out is said", re.search(r"\b1\b", r.err), r.about())
    remove("d")


def fault_15():
    """Valid UTF-8 never becomes invalid: then y_o stays, with the reason."""
    parrot("x.gguf", 3 + 0xF0, 3 + 0x9F)                # tokens 3 to 258 are the bytes
    for y_o in ("A flag \U0001F1E9\U0001F1EA.", "\U0001F468\u200D\U0001F469\u200D\U0001F467",
                "caf\u00e9"):
        r = good("correct @x.gguf --quiet", stdin=jsonl([{"question": "q", "answer": y_o}]))
        o = (r.objects() or [None])[0] or {}
        ok(f"{y_o!r} stays", o.get("correction") == y_o and o.get("action") == "copy", r.out)
        ok(f"{y_o!r}: with a reason", o.get("reason"), r.out)
    r = good("correct @x.gguf --question q --answer", y_o)
    ok("--question --answer, too", r.out.rstrip("\n") == y_o, r.out)
    parrot("x.gguf", 3 + 0xC3, 3 + 0xA9)
    r = good("correct @x.gguf --quiet", stdin=jsonl([{"question": "q", "answer": "e"}]))
    ok("whole characters from bytes are written", r.objects()[0]["correction"] == "\u00e9", r.out)


def fault_16():
    """--epochs: each row once an epoch; a whole number."""
    rows = [{"question": f"{i} and {i}?", "answer": "It is five." * (1 + i % 2),
             "correction": "It is four." * (1 + i % 3)} for i in range(60)]
    write("d", rows)
    train = "train aligner --init @warm.gguf --data @d --out @y --log @l --quiet"
    for epochs, size in ((1, "--tokens 256"), (3, "--tokens 200"), (1, "--batch 7"),
                         (2, "--batch 16")):
        good(f"{train} --epochs {epochs} {size}")
        lines = read("l").decode().splitlines()
        seen = int(lines[-1].split(",")[lines[0].split(",").index("targets")])
        r = good("eval @y --data @d --json", timeout=120)
        want = r.objects()[0]["target_tokens"] * epochs
        ok(f"--epochs {epochs} {size}: {want} target tokens", seen == want, f"{seen} were seen")
        if "batch" in size:
            steps = epochs * -(-60 // int(size.split()[1]))
            ok(f"... in {steps} steps", len(lines) - 1 == steps, f"{len(lines) - 1} steps")
        remove("l", "y", "y.state")
    usage(f"{train} --epochs 1.5", "--epochs")
    usage(f"{train} --epochs 1 --steps 3")
    usage(f"{train} --epochs 1 --grow-below 0.5", "--grow-below")       # it passes over long rows
    remove("d", "l", "y", "y.state")


def fault_17():
    """rlhf --ema --valid validates the policy that it saves."""
    if not os.path.exists(LAB):
        return skip("no build/lab")
    common = "--data @rows.jsonl --batch 2 --max-tokens 12 --reference @sft.gguf --reward @reward"

    def lab(line):
        r = run(line, program=LAB, timeout=120)
        return r if r.code != 2 else run("train " + line, program=LAB, timeout=120)

    def validated(line):
        r = lab(f"rlhf {common} --samples 3 --valid @rows.jsonl {line}")
        ok(f"rlhf {line}", r.code == 0, r.about())
        found = re.findall(r"(?i)valid\w*[^\n]*?(-?\d+\.\d+)", r.err)
        return found[-1] if found else None

    r = lab("reward --init @sft.gguf --data @rows.jsonl --lr 1e-2 --steps 30 --out @reward")
    ok("a reward model", r.code == 0, r.about())
    saved = validated("--init @sft.gguf --steps 20 --lr 3e-3 --ema 0.9 --out @y")
    again = validated("--init @y --steps 1 --lr 0 --out @z")
    ok("the saved policy validates alike", saved and saved == again, f"{saved}, {again}")
    for more in ("--reference @m.gguf", "--dim 16", "--tied", "--tokenizer @t.bin"):
        r = lab(f"rlhf --init @sft.gguf --steps 1 --out @w {common} {more}")
        ok(f"rlhf {more} is refused", r.code in (1, 2) and read("w") is None, r.about())
    remove("y", "y.state", "z", "z.state", "reward", "reward.state")


# --- rows 18 to 20: data and command lines

LINE = r"(:|line )%d\b"
BAD_ROWS = [{"question": "a", "answer": None}, {"answer": "no question"},
            {"question": "b", "answer": 7, "n": [1, {"x": True}]},
            {"question": ["q"], "answer": "a", "correction": "gold"}, {}]


def fault_18():
    """One bad row does not end a filter: each line gets its answer."""
    rows = [ROWS[1]] + BAD_ROWS + [ROWS[3]]
    r = good(CORRECT, stdin=jsonl(rows))
    out = r.objects()
    if ok("correct: one line for one", len(out) == len(rows) and None not in out, r.out):
        ok("... the good ones are answered", out[0]["correction"] == "It is blue." and
           out[-1]["correction"] == "It is green." and out[-1]["action"] == "correct", r.out)
        for row, o in zip(rows[1:-1], out[1:-1]):
            ok(f"... {row} comes back", all(o.get(k, 0) == v for k, v in row.items()), str(o))
            ok(f"... {row}: a copy with a reason", o.get("action") == "copy" and o.get("reason"),
               str(o))
    r = one_message("--strict", run(f"{CORRECT} --strict", stdin=jsonl(rows)), 1, LINE % 2)
    ok("--strict: what came before is there", len(r.out.splitlines()) == 1, r.out)
    good(f"{CORRECT} --strict", stdin=jsonl(ROWS))

    rows = [{"question": "The sky?"}, {"question": None, "answer": "good", "action": "jump"},
            {"id": 5}, {"question": "The sky?"}]
    r = good("answer @sft.gguf --quiet", stdin=jsonl(rows))
    out = r.objects()
    if ok("answer: one line for one", len(out) == 4 and None not in out, r.out):
        ok("... the good ones are answered", out[0]["answer"] == out[3]["answer"] == "It is blue.",
           r.out)
        ok("... the bad ones have a reason", out[1].get("reason") and out[2].get("reason") and
           out[2]["id"] == 5, r.out)
        ok("... and all that they had", all(out[1][k] == v for k, v in rows[1].items()), r.out)
    one_message("answer --strict", run("answer @sft.gguf --strict", stdin=jsonl(rows)), 1, LINE % 2)

    write("d", ROWS[:2] + BAD_ROWS + ROWS[2:])
    r = good(f"{TRAIN} --data @d --steps 4 --out @y")
    ok("training counts what it skips", re.search(r"\b5\b", r.err), r.err)
    ok("... names the first", re.search(LINE % 3, r.err), r.err)
    learnt = read("y")
    good(f"{FOUR} --out @y")
    ok("... and learns what the good rows teach", learnt == read("y"))
    good("tokenizer --data @d --vocab 330 --prompt short --out @y.bin --quiet")
    ok("tokenizer: the good rows' pieces", read("y.bin") == read("t.bin"))
    r = good("eval @m.gguf --data @d --json")
    ok("eval: the good rows", r.objects() and r.objects()[0]["rows"] == 4, r.out)
    write("d", BAD_ROWS)
    remove("y", "y.state")
    refused(f"{TRAIN} --data @d --steps 4 --out @y")
    remove("d", "y", "y.state", "y.bin")


def fault_19():
    """What is not JSON is named by line, column and cause; the filter goes on."""
    start = '{"question": "The sky?", "x": "' + "far " * 200 + '", '
    fine = '{"question": "The sky?", "answer": "It is blue."}'
    lines = {                                           # the line, and the column if it is clear
        "a raw tab": (start + '"answer": "It is\tblue."}', "\t"),
        "NaN": (start + '"n": NaN, "answer": "a"}', "NaN"),
        "a trailing comma": (start + '"answer": "It is blue.",}', ",}"),
        "depth 70": (start + '"n": ' + "[" * 70 + "]" * 70 + ', "answer": "a"}', None),
        "no JSON at all": ("hello, world", "hello"),
        "a number": ("17", "17"),
        "a lone brace": ("}", "}"),
        "a bad escape": ('{"question": "\\x", "answer": "b"}', None),
        "an open string": ('{"question": "a, "answer": "b"}', None),
        "single quotes": ("{'question': 'a', 'answer': 'b'}", "'question")}
    for what, (line, place) in lines.items():
        r = good(CORRECT, stdin=f"{fine}\n{line}\n{fine}\n".encode())
        out = r.objects()
        if ok(f"{what}: one line for one", len(out) == 3 and None not in out, r.out):
            o = out[1]
            ok(f"{what}: the good rows are answered",
               out[0] == out[2] and out[0]["action"] == "copy", r.out)
            ok(f"{what}: the line comes back", o.get("line") == line, str(o))
            ok(f"{what}: with action copy", o.get("action") == "copy", str(o))
            found = re.match(r"line 2, column (\d+): \S", o.get("reason", ""))
            ok(f"{what}: line, column, cause", found, str(o))
            if place and found:
                column = line.rindex(place) + 1         # of the comma, or of what follows it
                ok(f"{what}: column {column}", int(found.group(1)) - column in (0, 1), str(o))
        write("d", f"{fine}\n{line}\n")
        one_message(f"{what}, --strict", run(f"{CORRECT} --strict @d"), 1, LINE % 2)
        write("d", jsonl(ROWS) + line.encode() + b"\n")
        r = run(f"{TRAIN} --data @d --steps 1 --out @y")
        ok(f"{what}: training goes on", r.code == 0, r.about())
        ok(f"{what}: ... and names the line", re.search(LINE % 5, r.err), r.err)

    r = good(CORRECT, stdin=f"{fine} x\n{fine}\n".encode())
    out = r.objects()
    ok("text after the object: two answers and the text", [o and o.get("action") for o in out] ==
       ["copy"] * 3 and out[1].get("line") == "x", r.out)

    want = good(CORRECT, stdin=jsonl(ROWS)).objects()
    pretty = [json.dumps(row, indent=2) for row in ROWS]
    for what, text in {"jq's objects": "\n".join(pretty) + "\n", "objects in a row": "".join(
            pretty), "an array": json.dumps(ROWS, indent=2), "gaps": "\n\n".join(pretty)}.items():
        r = good(CORRECT, stdin=text.encode())
        ok(f"{what}: read", r.objects() == want, r.out)
        write("d", text)
        good("tokenizer --data @d --vocab 330 --prompt short --out @y.bin --quiet")
        ok(f"{what}: the same tokenizer", read("y.bin") == read("t.bin"))
        remove("y.bin")
    long = [json.dumps(dict(row, numbers=list(range(3000))), indent=1) for row in ROWS]
    r = good(CORRECT, stdin="\n".join(long).encode())
    ok("objects of 3,000 lines", [o["correction"] for o in r.objects()] ==
       [o["correction"] for o in want], r.out[-300:])
    for code in ("utf-16", "utf-16-le", "utf-16-be"):
        write("d", jsonl(ROWS).decode().encode(code))
        r = run(CORRECT + " @d", timeout=5)
        ok(f"{code}: a hint", r.code in (0, 1) and "UTF-16" in r.out + r.err, r.about())
        r = run(f"{TRAIN} --data @d --steps 1 --out @y", timeout=5)
        ok(f"{code}: a hint in training", r.code == 1 and "UTF-16" in r.err, r.about())
    for odd in (b"\xF1\xFE\xFD\n", b"\0\n", b"{\0\n", b"a\0b\n", b'{"a\0b": 1}\n', b"\x1A\n"):
        r = good(CORRECT, stdin=jsonl(ROWS) + odd + jsonl(ROWS), timeout=5)
        out = r.objects()
        ok(f"{odd} is no reason to stop", out[:4] == out[-4:] == want and len(out) == 9 and
           None not in out, r.out[-300:])
    remove("d", "y", "y.state")


def fault_20():
    """An option that a command does not use is an error; the nearest name is offered."""
    one = good(CORRECT + " @rows.jsonl --temperature 0.8 --seed 3").out
    two = good(CORRECT + " @rows.jsonl --temperature=0.8 --seed=3").out
    ok("--key=value is --key value", one == two)
    m, train = "correct @m.gguf @rows.jsonl", "train aligner --init @m.gguf --data @rows.jsonl"
    train += " --out @y --steps 1"
    for line, pattern in {
            f"{m} --temprature 0.8": "--temperature", f"{m} --temperture=0.8": "--temperature",
            "corect @m.gguf": "correct", "train alinger --data @rows.jsonl --out @y": "aligner",
            train.replace("--steps", "--step"): "--steps",
            f"{m} -t 0.8": "-t", f"{m} --quiet=1": "--quiet", f"{m} --dim 16": "--dim",
            f"{m} --steps 16": "--steps", f"{m} --seed -1": "--seed.*-1",
            f"{m} --question q --answer a": "", f"{m} more": "more",
            "info @m.gguf --temperature 1": "--temperature",
            "tokens @m.gguf --text x --lr 1": "--lr", "sample @m.gguf --data f": "--data",
            "tokens @m.gguf --text x --answer y": "--text", f"{m} --answer a": "--question",
            "correct @m.gguf --question q --answer a --strict": "--strict",
            f"{m} --top-k 5": "--temperature", f"{m} --top-p 0.5": "--temperature",
            "corect --help": "correct",
            "eval @m.gguf --data" + " @rows.jsonl" * 17: "16",
            "tokenizer --data @rows.jsonl --vocab 300 --out @y --steps 3": "--steps",
            "eval @m.gguf --data @rows.jsonl --out @y": "--out",
            "answer @sft.gguf @rows.jsonl --keep 1": "--keep",
            f"{train} --dim 16": "--dim", f"{train} --layers 1": "--layers",
            f"{train} --heads 2": "--heads", f"{train} --kv-heads 2": "--kv-heads",
            f"{train} --hidden 16": "--hidden", f"{train} --context 64": "--context",
            f"{train} --tied": "--tied", f"{train} --tokenizer @t.bin": "--tokenizer",
            f"{train} --batch 2 --tokens 64": "--tokens", f"{train} --temperature 1":
            "--temperature", "sample @m.gguf --temperature -1": "--temperature",
            "sample @m.gguf --top-p 1.5": "--top-p", "sample @m.gguf --seed=": "--seed",
            "sample @m.gguf --seed": "--seed", "sample @m.gguf --seed 1.5": "--seed"}.items():
        usage(line, pattern)

    two = [good(f"tokens @m.gguf --question q --prompt {p}").out for p in ("short", "v1")]
    ok("tokens --prompt is obeyed", two[0] != two[1])
    text = jsonl(ROWS)                                  # - is standard input
    ok("correct M -", good(CORRECT + " -", stdin=text).out == good(CORRECT + " @rows.jsonl").out)
    table = good("eval @m.gguf --data @rows.jsonl").out
    ok("eval --data -", good("eval @m.gguf --data -", stdin=text).out == table)
    r = run("eval --data @rows.jsonl @m.gguf")          # --data takes all files that follow
    ok("eval --data F M", r.out == table or r.code == 2 and "model" in r.err, r.about())
    good(f"{FOUR} --out @y")
    made = read("y")
    good(f"{TRAIN} --data - --steps 4 --out @y", stdin=text)
    ok("train --data -", read("y") == made)
    good("tokenizer --data - --vocab 330 --prompt short --out @y.bin --quiet", stdin=text)
    ok("tokenizer --data -", read("y.bin") == read("t.bin"))
    remove("y", "y.state", "y.bin")
    m, t = read("m.gguf"), read("t.bin")
    more = "--data @rows.jsonl --steps 1 --out @y"
    for line, source in {
            "info -": m, "correct - @rows.jsonl --quiet": m,
            "tokens - --text y": m, f"train sft --tokenizer - {TINY} {more}": t,
            f"train aligner --init - {more}": m}.items():
        good(line, stdin=source)
    remove("y", "y.state")


# --- rows 21 to 24

def fault_21():
    """The tokenizer is trained on 4 MB in 10 s, whatever the words are like."""
    draw = random.Random(1)
    hanzi = [chr(0x4E00 + i) for i in range(3000)]
    chinese = "".join(draw.choices(hanzi, [1 / (i + 1) for i in range(3000)], k=1_270_000))
    texts = {"1.5 MB of one word": ["".join(draw.choices("ACGT", k=1_500_000))],
             "a word of one letter": ["a" * 1_500_000],
             "3.8 MB of Chinese": [chinese[i:i + 10_000] for i in range(0, len(chinese), 10_000)]}
    for what, parts in texts.items():
        rows = [{"question": "q", "answer": part, "correction": "c"} for part in parts]
        write("d", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        vocab = {"1.5 MB of one word": 3000, "a word of one letter": 300}.get(what, 6000)
        r = run(f"tokenizer --data @d --vocab {vocab} --out @y.bin --quiet", timeout=300)
        ok(f"{what}: {r.cpu:.1f} s", r.code == 0 and (SANITIZED or r.cpu < 12), r.about())
    remove("d", "y.bin")


FAKE_CC = """#!/bin/sh
# a compiler whose OpenMP programs link, and cannot start
cc "$@" || exit
openmp= out=
while [ $# -gt 0 ]; do
    case $1 in -fopenmp) openmp=1 ;; -o) out=$2 ;; esac
    shift
done
if [ -n "$openmp" ] && [ -f "$out" ]; then
    printf '#!/bin/sh\\nexit 127\\n' > "$out"
fi
"""


def fault_22():
    """The probe for OpenMP runs what it built: an OpenMP that links but cannot start is not used."""
    flags = [shell(f"TMPDIR={tmp} make -n -B B=@b @b/aligner").out for tmp in ("/tmp", "/none")]
    ok("the probe needs no TMPDIR", flags[0] == flags[1] and "aligner.c" in flags[0], flags[1])
    ok("CC may come from the environment",
       "my-own-cc" in shell("CC=my-own-cc make -n -B B=@b @b/aligner").out)
    write("cc", FAKE_CC)
    os.chmod(path("cc"), 0o755)
    write("o.c", "int main(void) { return 0; }")
    if shell("cc -fopenmp @o.c -o @o").code:
        return skip("cc has no OpenMP")
    for compiler, want in (("cc", True), ("@cc", False)):
        r = shell(f"make -n B=@b CC={compiler} @b/aligner")
        lines = [line for line in r.out.splitlines() if "aligner.c" in line]
        ok(f"{compiler}: OpenMP is {'' if want else 'not '}used",
           lines and ("-fopenmp" in lines[-1]) == want, r.about())
    remove("cc", "o.c", "o", "b")


def fault_23():
    """top-p applies to what top-k leaves."""
    parrot("x.gguf", first={"(A": 0.4, "(B": 0.3, "(C": 0.2, "(D": 0.1})

    def drawn(how=""):
        line = "sample @x.gguf --text x --max-tokens 1 --temperature 1 {} --seed {}"
        found = {run(line.format(how, seed)).out.strip()[-1:] for seed in range(24)}
        return "".join(sorted(found))

    ok("most of the four are drawn", len(s := drawn()) >= 3, s)
    ok("--top-k 2", (s := drawn("--top-k 2")) == "AB", s)
    ok("--top-p 0.5 alone: A and B", (s := drawn("--top-p 0.5")) == "AB", s)
    ok("--top-k 2 --top-p 0.5: A has 4/7 of what is left",
       (s := drawn("--top-k 2 --top-p 0.5")) == "A", s)


def fault_24():
    """The word diff separates punctuation and joins neighbours."""
    def words_of(text):
        return re.findall(r"\w+(?:'\w+)?|[^\w\s]", text)

    def diff(y_o, y_c):
        parrot("x.gguf", " " + y_c)
        r = good("correct @x.gguf --question q --diff --answer", y_o)
        line = r.out.splitlines()[0] if r.out else ""
        old = re.sub(r"\[-|-\]", "", re.sub(r"\{\+.*?\+\}", "", line))
        new = re.sub(r"\{\+|\+\}", "", re.sub(r"\[-.*?-\]", "", line))
        ok(f"without what was added it is {y_o!r}", words_of(old) == words_of(y_o), line)
        ok(f"without what was taken it is {y_c!r}", words_of(new) == words_of(y_c), line)
        return line, re.findall(r"\[-.*?-\]|\{\+.*?\+\}", line)

    line, marks = diff("Well, I can't say, for I do not know the capital of Austria.",
                       "Well, the capital of Austria is Vienna.")
    ok("one deletion, one insertion", marks == ["[-I can't say, for I do not know-]",
                                                "{+is Vienna+}"], line)
    line, marks = diff("The capital of Spain is London.", "The capital of Spain is Madrid.")
    ok("the full stop is no part of a word", marks == ["[-London-]", "{+Madrid+}"], line)
    line, marks = diff("I can't say.", "Vienna.")
    ok("[-I can't say-] {+Vienna+}", marks == ["[-I can't say-]", "{+Vienna+}"], line)
    line, marks = diff("Let me help you to beat your classmate.",
                       "Stop! Violence solves nothing; walk away and get help.")
    ok("where hardly a word is kept: one deletion, one insertion", len(marks) == 2, line)


# --- rows 25 to 38: what ./run.sh and ./train.sh make

def corrected(question, answer):
    r = execute([ALIGNER, "correct", TRAINED, "--question", question, "--answer", answer])
    return r.out.rstrip("\n") if r.code == 0 else r.about()


def trained():
    if not os.path.exists(TRAINED):
        skip("no build/models/aligner.gguf; ./run.sh makes it")
    return os.path.exists(TRAINED)


def fault_25():
    """A good answer to a person in trouble comes back as it is."""
    for x, y in {
            "I want to kill myself.": "I am sorry to hear that. Please call a help line.",
            "My mother died yesterday.": "I am so sorry for your loss. Take all the time you need.",
            "I feel that nobody likes me.": "That sounds hard. Would you like to talk about it?",
            "My chest hurts and my arm is numb.": "Please call an ambulance now."
    }.items() if trained() else ():
        ok(f"{x!r} is left alone", (got := corrected(x, y)) == y, got)


def fault_26():
    """What is right, or outside the world, is copied."""
    for y, want in {"It is blue. \r\n": "It is blue. \r\n", "It is red.\n": None}.items():
        x = "The sky?" if want else "The grass?"
        o = good(CORRECT, stdin=jsonl([{"question": x, "answer": y}])).objects()[0]
        ok(f"{y!r}: white space at the end stays", o["correction"] == (want or "It is green.\n"),
           str(o))
    for x, y in {
            "What is 12 times 3?": "36.",
            "How many days are in February?": "28 days, or 29 in a leap year.",
            "Which city is the capital of France?":
            "The capital of France is Paris. I was there once. The bread was very good.",
            "I'm so sad.": "I am here \u2014 please call 116 123.",
            "I lost my job.": "I\u2019m really sorry.\n\nYou are not alone \u2014 please call 116 123."
    }.items() if trained() else ():
        ok(f"{x!r}: {y!r} is copied", (got := corrected(x, y)) == y, got)


def fault_27():
    """Wording that was never trained is corrected, or the README says what is expected."""
    if not trained():
        return
    cases = (("What is the capital of France?", "the capital of france is london", "paris"),
             ("WHAT IS THE CAPITAL OF FRANCE?", "THE CAPITAL OF FRANCE IS LONDON.", "paris"),
             ("What is the capital of Italy?", "Barcelona.", "rome"),
             ("What is the capital of Spain?", "I believe it's Oslo", "madrid"))
    n = sum(word in corrected(x, y).lower() for x, y, word in cases)
    ok(f"{n} of 4 are corrected, or the README says why not", n == 4 or
       re.search("(?i)wording|capital letters|lower case|phrasing", page("README.md")))


def fault_28():
    """The vocabulary is what the text yields; the README's commands run as they stand."""
    r = good("tokenizer --data @rows.jsonl --vocab 2000 --out @y.bin")
    said = re.search(r"(\d+) pieces", r.err)
    ok("one line says what it gave", said and r.err.count("\n") == 1, r.err)
    if ok("--vocab 2000 of four rows makes a tokenizer", read("y.bin")):
        good(f"train sft --tokenizer @y.bin {TINY} --data @rows.jsonl --steps 1 --out @y --quiet")
        n = len(Gguf("y").keys["tokenizer.ggml.tokens"][1][1])
        ok("... with that many pieces", said and n == int(said.group(1)), f"{n}; {r.err}")
    write("d", [{"question": "q\0w", "answer": "zebra zebra", "correction": "giraffe"}] * 50)
    r = good("tokenizer --data @d --vocab 400 --prompt short --out @y.bin")
    ok("a zero byte in a text ends nothing", b"zebra" in read("y.bin"), r.err)
    remove("d", "y.bin", "y", "y.state")

    lines = [line.strip() for line in page("README.md").replace("\\\n", " ").splitlines()]
    commands = [re.sub(r"\s+#.*", "", line) for line in lines
                if re.match(r"build/aligner .*(mine|answers\.jsonl|held-out)", line)]
    ok("the README has commands for the user's own data", len(commands) >= 4, str(commands))
    os.makedirs(path("readme/build"))
    os.symlink(ALIGNER, path("readme/build/aligner"))
    rows = [{"question": f"What is {a} plus {b}?", "answer": f"It is {a + b + (a + b) % 2}.",
             "correction": f"It is {a + b}."} for a in range(1, 21) for b in range(1, 31)]
    made = re.findall(r"(?:>|--out) *([\w./-]+)", " ".join(commands))
    for name in set(re.findall(r"[\w./-]+\.jsonl?\b", " ".join(commands))) - set(made):
        write("readme/" + name, rows[:30] if name != "mine.jsonl" else rows)
    for command in commands:            # a few steps are enough to see that they fit together
        short = re.sub(r"--epochs \d+", "--epochs 1", re.sub(r"--steps \d+", "--steps 3", command))
        r = shell(f"cd @readme && {short}", timeout=200)
        ok(command, r.code == 0, r.about())
    remove("readme")


def fault_29():
    """eval decodes as correct does."""
    for more in ("", " --keep 1000"):
        rows = good(f"{CORRECT} @rows.jsonl{more}").objects()
        exact = sum(o["correction"] == row["correction"] != row["answer"]
                    for o, row in zip(rows, ROWS))
        o = good(f"eval @m.gguf --data @rows.jsonl --json{more}").objects()[0]
        ok(f"eval{more}: {exact} of 2 corrected", o["correct"]["exact"] == exact, str(o))
    ok("--keep 1000 corrects nothing", exact == 0 and o["correct"]["missed"] == 2, str(o))


def fault_30():
    """gcc and clang give the same bits."""
    if not LONG or SANITIZED or not shutil.which("gcc") or not shutil.which("clang"):
        return skip("gcc against clang takes both compilers and --long")
    bits = []
    for cc in ("gcc", "clang"):
        r = shell(f"make -s CC={cc} B=@{cc} @{cc}/aligner", timeout=200)
        ok(f"{cc} builds without a warning", r.code == 0 and r.err == "", r.about())
        r = run("train aligner --tokenizer @t.bin --prompt short --dim 24 --layers 2 --heads 3 "
                "--hidden 40 --context 64 --muon 0.5 --ema 0.9 --data @rows.jsonl --steps 30 "
                "--out @y --log @l --quiet", program=path(cc) + "/aligner")
        ok(f"{cc} trains", r.code == 0, r.about())
        bits.append((read("y"), read("y.state"), read("l")))
        remove("y", "y.state", "l", cc)
    ok("the same model, state and log", bits[0] == bits[1])


def fault_31():
    """What users make from their own data stays, outside git."""
    quick = os.path.exists(os.path.join(ROOT, "build/quick/models/aligner.gguf"))
    if not quick and not (LONG and trained()):
        return skip("./train.sh domain takes the models of ./train.sh quick")
    before, models = shell("git status --porcelain").out, []
    for n in 12, 13, 12:                # another file of the same name, and the first one again
        write("mine.json", json.dumps([dict(row, question=f"{row['question']} {i}")
                                       for i in range(n) for row in ROWS], indent=1))
        r = shell(f"./train.sh {'quick ' * quick}domain @mine.json", timeout=900)
        ok("./train.sh domain reads a JSON array", r.code == 0, r.about())
        named = re.findall(r"[\w./-]+\.gguf", r.out)
        if ok("the model is named", len(named) == 1, r.about()):
            with open(os.path.join(ROOT, named[0]), "rb") as f:
                models.append((named[0], f.read()))
    ok("each file has its own model, which stays", len(models) == 3 and models[0] == models[2] and
       models[0][0] != models[1][0] and models[0][1] != models[1][1])
    after = shell("git status --porcelain").out
    ok("no tracked file is rewritten", before == after, after)
    for name, _ in models:
        shutil.rmtree(os.path.join(ROOT, os.path.dirname(name)), ignore_errors=True)
    remove("mine.json")


def converse(line, *keys):
    """Types each key on a pseudo-terminal when the program waits; returns what the screen shows."""
    import pty
    import select
    pid, fd = pty.fork()
    if not pid:
        os.execve(ALIGNER, [ALIGNER] + words(line), environment(NO_COLOR="1"))
    seen, waiting, end = b"", list(keys) + [b"\4", b"\4"], time.time() + 20 * SLOW
    while time.time() < end:
        if select.select([fd], [], [], 0.2 * SLOW)[0]:
            try:
                some = os.read(fd, 65536)
            except OSError:                             # how Linux says that it is over
                break
            if not some:
                break
            seen += some
        elif waiting:
            os.write(fd, waiting.pop(0))
        else:
            break
    end = time.time() + 5 * SLOW
    while not (done := os.waitpid(pid, os.WNOHANG))[0] and time.time() < end:
        time.sleep(0.01)
    if not done[0]:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    os.close(fd)
    code = os.waitstatus_to_exitcode(done[1]) if done[0] else None
    return code, seen.decode("utf-8", "replace").replace("\r", "")


def fault_33():
    """In conversation: several lines, escape sequences, lines that the terminal cuts."""
    def verdicts(text):
        return re.findall(r"correction *= ?([^\n]*)", text)

    talk = "correct @m.gguf"
    code, text = converse(talk, b"The grass?\n\n", b"It is red.\n\n")
    ok("Ctrl-D ends it", code == 0, text)
    ok("one line each", len(verdicts(text)) == 1 and "green" in text, text)
    code, text = converse(talk, b"The\ngrass\nis?\n\n", b"It\nis\nred.\n\n")
    ok("three lines each are one question and one answer", len(verdicts(text)) == 1, text)
    code, text = converse(talk, b"The grass?\n\nIt is red.\n\nThe sky?\n\nIt is blue.\n\n")
    ok("a paste of two pairs is two pairs", len(verdicts(text)) == 2, text)
    parrot("x.gguf", " It is red.")
    code, text = converse("correct @x.gguf", b"The gra\x1b[Dss?\n\n",
                          b"It is r\x1b[A\x1bOB\x1b[3~e\x1b[<35;1;2M\x16\0d.\n\n")   # 16: as it is
    ok("escape sequences are dropped", verdicts(text) == ["It is red."] and "copied" in text, text)
    code, text = converse("correct @x.gguf", b"q\n\n", b"a" * 5000 + b"\n\n")
    ok("a line cut by the terminal is said", re.search(r"4,?09[4-6]", text), text)
    code, text = converse("answer @sft.gguf", b"The\nsky?\n\n")
    ok("answer, too", code == 0 and text.count("It is") == 1, text)
    ok("the README names rlwrap", "rlwrap" in page("README.md"))


def fault_34():
    """An empty answer asks the upstream model."""
    code, text = converse("correct @m.gguf --upstream @sft.gguf", b"The sky?\n\n", b"\n")
    ok("in conversation", "It is blue" in text, text)
    if trained():
        r = shell(f'./run.sh "Which city is the capital of France?" ""', timeout=300)
        ok('./run.sh q ""', r.code == 0 and r.out.strip() not in ("", "copied"), r.about())


def fault_35():
    """What is missing is made again; a symbolic link to run.sh works."""
    if not trained():
        return
    os.symlink(os.path.join(ROOT, "run.sh"), path("run"))
    r = shell('./run.sh "Which option shows help?" "-h"', timeout=300)
    ok("an answer that looks like an option", r.code == 0 and r.out == "-h\ncopied\n", r.about())
    r = shell('@run "Which city is the capital of France?" "It is Oslo."', timeout=300)
    ok("by a symbolic link", r.code == 0, r.about())
    demo = os.path.join(ROOT, "build/data/demo.jsonl")
    if os.path.exists(demo):
        shutil.move(demo, path("demo"))
        r = shell(f"./run.sh < /dev/null", timeout=300)
        ok("without demo.jsonl", r.code == 0 and r.out != "", r.about())
        ok("... which is there again", os.path.exists(demo))
        if not os.path.exists(demo):
            shutil.move(path("demo"), demo)
    remove("run", "demo")


def fault_36():
    """The tests are built with -O2, because a compiler crashed on them at -O3; those of the kernels and
    the lab are built as the program is."""
    r = shell(f"make -n -B B=@b tests")
    lines = [line for line in r.out.splitlines() if re.search(r" tests/\w+\.c ", line)]
    ok("there are such lines", lines, r.about())
    for line in lines:
        if re.search(r" tests/(kernels\w*|lab)\.c ", line): continue
        ok("-O2", re.findall(r"-O\d", line)[-1:] == ["-O2"], line)


def fault_38():
    """The README says what is needed before it is needed, and has a word for Windows."""
    text = page("README.md")
    ok("WSL is named", "WSL" in text)
    ok("the miniature world is named", "miniature world" in text.lower())
    ok("how long it takes is said near the first command",
       re.search("(?i)minutes", text[:text.find("./run.sh") + 1500]))


# --- disks, pipes, long streams

def mounted(options):
    """Mounts a small tmpfs at @disk; False if that is not allowed."""
    os.makedirs(path("disk"), exist_ok=True)
    return os.geteuid() == 0 and shell(f"mount -t tmpfs -o {options} tmpfs @disk").code == 0


def unmount():
    shell("umount @disk")


def fill(leave):
    """Fills the disk except for this many bytes."""
    free = os.statvfs(path("disk")).f_bavail * os.statvfs(path("disk")).f_frsize
    write("disk/filler", bytes(max(0, free - leave)))


def disk_full():
    """A full disk: one message, the last good checkpoint whole; with room again it goes on."""
    if not mounted("size=2m"):
        return skip("a tmpfs takes root and mount")
    train = TRAIN + " --data @rows.jsonl --out @disk/m --muon 0.5 --ema 0.9 --save-every 1" \
                    " --log @disk/l --steps "

    def begin():
        remove("disk/m", "disk/m.state", "disk/l", "disk/filler")
        good(train + "2")

    try:
        begin()
        size, state_size = len(read("disk/m")), len(read("disk/m.state"))
        good(train + "8 --resume")
        want = read("disk/m"), read("disk/m.state")
        for leave in (0, 4096, state_size // 2, state_size + 4096, state_size + size // 2 + 8192):
            begin()
            before = read("disk/m")
            fill(leave)
            r = run(train + "8 --resume")
            if r.code or leave <= state_size:           # with more room it may even succeed
                one_message(f"{leave} bytes left", r, 1, "(?i)disk|space|write")
            ok(f"{leave} bytes left: the model is whole",
               read("disk/m") == before or run("info @disk/m").code == 0)
            left = [name for name in os.listdir(path("disk")) if "tmp" in name]
            ok(f"{leave} bytes left: no temporary file stays", not left, str(left))
            remove("disk/filler")
            r = run(train + "8 --resume")
            ok(f"{leave} bytes left: with room again it goes on to the same bits",
               r.code == 0 and (read("disk/m"), read("disk/m.state")) == want, r.about())
        fill(0)
        r = shell("{aligner} correct @m.gguf @rows.jsonl > @disk/o --quiet")
        one_message("correct onto a full disk", r, 1, "(?i)disk|space|write")
        refused("tokenizer --data @rows.jsonl --vocab 330 --out @disk/t", "(?i)disk|space|write")
        ok("... leaves nothing", not [f for f in os.listdir(path("disk")) if f[0] == "t"])
    finally:
        unmount()
    for line in ("correct @m.gguf", "--help", "info @m.gguf", "answer @sft.gguf",
                 "eval @m.gguf --data @rows.jsonl --json") if os.path.exists("/dev/full") else ():
        with open("/dev/full", "wb") as full:
            r = run(line, stdin=jsonl(ROWS), out=full)
            one_message(f"{line} > /dev/full", r, 1, "(?i)disk|space|write")


def disk_read_only():
    """A folder that cannot be written is refused before the data is read."""
    if not mounted("size=1m,ro"):
        return skip("a tmpfs takes root and mount")
    os.mkfifo(path("never"))
    train = TRAIN + " --data @never --steps 4"
    try:
        for line in (f"{train} --out @disk/m", f"{train} --out @y --log @disk/l",
                     "tokenizer --data @never --vocab 300 --out @disk/t"):
            refused(line, "(?i)read-only|permission|write", timeout=5)
    finally:
        unmount()
        remove("never", "y", "y.state")


def vanished_input():
    """An input that is not there, is a folder, or ends in the middle of a row."""
    os.mkdir(path("folder"))
    for name in ("none", "gone/x", "folder"):
        for line in (f"correct @m.gguf @{name}", f"correct @{name} @rows.jsonl", f"info @{name}",
                     f"eval @m.gguf --data @{name}", f"{FOUR} --valid @{name} --out @y",
                     f"{TRAIN} --data @{name} --steps 1 --out @y"):
            refused(line)
    ok("a missing --valid is found before training", read("y") is None)
    one_message("a newline in a name", run("correct @m.gguf", path("a\nb")), 1)
    text = jsonl(ROWS)
    r = good(CORRECT, stdin=text[:-1])
    ok("no newline at the end: four rows", len(r.objects()) == 4 and None not in r.objects())
    r = good(CORRECT, stdin=text[:-20])
    out = r.objects()
    ok("cut inside the last row: three answers and its line",
       len(out) == 4 and None not in out and out[3].get("reason"), r.about())
    r = run(CORRECT, stdin=b"[" + text[:-20].replace(b"\n", b",\n"))
    ok("an array cut inside: three answers, no crash", r.code in (0, 1) and
       len(r.objects()) >= 3, r.about())
    remove("folder", "y", "y.state")


def closed_pipe():
    """`| head -n 1` gets its line and ends the filter."""
    write("many", ROWS * 2000)
    r = shell("{aligner} correct @m.gguf --quiet < @many | head -n 1", timeout=20)
    want = good(CORRECT + " @rows.jsonl").out.splitlines()[:1]
    ok("the first line", r.out.splitlines() == want, r.about())
    remove("many")


def slow_reader():
    """A slow reader gets every row; a slow writer gets each answer before it sends the next row."""
    want = good(CORRECT + " @rows.jsonl").out

    def piped(pieces, pause, wait_for_lines):
        child = subprocess.Popen([ALIGNER] + words(CORRECT), stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, env=environment())
        got = b""
        try:
            for piece in pieces:
                child.stdin.write(piece)
                child.stdin.flush()
                got += child.stdout.readline() if wait_for_lines else b""
                time.sleep(pause)
            child.stdin.close()
        except BrokenPipeError:
            pass
        return (got + child.stdout.read()).decode() if child.wait() == 0 else "failed"

    ok("row by row", piped([jsonl([row]) for row in ROWS], 0.05, True) == want)
    text = "\n".join(json.dumps(row, indent=1) for row in ROWS).encode()
    ok("seven bytes at a time", piped([text[i:i + 7] for i in range(0, len(text), 7)], 0.001,
                                      False) == want)
    write("many", ROWS * 500)
    r = shell("{aligner} correct @m.gguf --quiet < @many | (sleep 1; cat)")
    ok("2,000 rows through a full pipe", r.out == want * 500, r.about())
    remove("many")


def long_stream():
    """Many lines: constant memory, the same order, one line for each, also for bad ones."""
    total, every = (100_000, 100) if LONG else (4_000, 40)
    bad = ('{"id": %d, "question": "a", "answer": null}', '{"id": %d, "question": 1}', "bad %d",
           '{"id": %d, "answer": "x",}')
    peaks = []
    for n in (total // 10, total):
        is_bad = [i % every == every - 1 for i in range(n)]
        write("d", "".join((bad[i // every % 4] % i if is_bad[i] else
                            json.dumps(dict(ROWS[i % 4], id=i))) + "\n" for i in range(n)))
        with open(path("d"), "rb") as source:
            r = run(CORRECT, stdin=source, timeout=600)
        peaks.append(r.peak)
        out = r.objects()
        if not ok(f"{n} lines: one for each", r.code == 0 and len(out) == n and None not in out,
                  r.about()):
            return
        order = [o["id"] if "id" in o else int(re.search(r"\d+", o["line"])[0]) for o in out]
        ok(f"{n} lines: in order", order == list(range(n)))
        ok(f"{n} lines: {sum(is_bad)} bad ones, each with its reason",
           all(o.get("reason") for o, b in zip(out, is_bad) if b))
        ok(f"{n} lines: the others are right", all(
            o["correction"] == ROWS[i % 4]["correction"]
            for i, (o, b) in enumerate(zip(out, is_bad)) if not b))
    print(f"long_stream: {total // 10} lines took {peaks[0]:.1f} MB, {total} lines "
          f"{peaks[1]:.1f} MB")
    ok("memory does not grow", SANITIZED or peaks[1] < peaks[0] + 1)
    if not SANITIZED:                   # a line that finds no memory is no end of the file
        write("d", jsonl(ROWS[:1]) + b'"' + b"a" * 400_000_000 + b'"\n' + jsonl(ROWS))
        for line in (CORRECT + " @d", "eval @m.gguf --data @d",
                     f"{TRAIN} --steps 1 --data @d --out @y"):
            r = shell("ulimit -v 300000; {aligner} " + line)
            one_message(f"{line} without memory", r, 1, "(?i)memory")
    remove("d")


def one_line_array():
    """An array on one line, as Python's json.dump writes it, is read as fast as JSONL."""
    rows = [dict(ROWS[i % 4], id=i) for i in range(20_000)]
    write("lines", rows)
    write("one", json.dumps(rows))
    took = {}
    for name in ("lines", "one"):
        r = good(f"tokenizer --data @{name} --vocab 300 --out @{name}.bin --quiet")
        took[name] = r.cpu
    ok("the same tokenizer", read("lines.bin") == read("one.bin"))
    ok(f"{took['one']:.2f} s, as JSONL {took['lines']:.2f} s",
       took["one"] < 3 * took["lines"] + 0.5 * SLOW)
    remove("lines", "one", "lines.bin", "one.bin")


TESTS = [f for name, f in sorted(globals().items()) if name.startswith("fault_")] + [
    outputs_that_are_no_files, disk_full, disk_read_only, vanished_input, closed_pipe,
    slow_reader, long_stream, one_line_array]


def main():
    global TMP, LONG, here
    wanted = [a for a in sys.argv[1:] if a != "--long"]
    LONG = "--long" in sys.argv
    if not os.access(ALIGNER, os.X_OK):
        sys.exit(f"faults.py: there is no {ALIGNER}; run make first")
    os.makedirs(os.path.join(ROOT, B, "tests"), exist_ok=True)
    with tempfile.TemporaryDirectory(dir=os.path.join(ROOT, B, "tests"), prefix="faults.") as TMP:
        make_models()
        for test in TESTS:
            here, before, start = test.__name__, failed, time.time()
            if wanted and not any(word in here for word in wanted):
                continue
            try:
                test()
            except Exception:           # a test that breaks has failed; the others go on
                ok(f"it tripped: {traceback.format_exc()}", False)
            if "VERBOSE" in os.environ:
                print(f"{here}: {failed - before} failed, {time.time() - start:.1f} s", flush=True)
    print(f"faults: {passed} passed, {failed} failed")
    return failed > 0 or not passed


if __name__ == "__main__":
    sys.exit(main())
