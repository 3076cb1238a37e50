#!/usr/bin/env python3
"""experiments.py - the paper's claims, put to the test in miniature. `./train.sh NAME` calls it.

    tests/experiments.py [quick] NAME... | all    runs them: numbers, page and picture
    tests/experiments.py [quick] domain F.jsonl   fine-tunes the trained Aligner on your triples
    tests/experiments.py tune NAME...             seed 0 on the dev rows: to choose on, not reported
    tests/experiments.py docs | page F.json       pages and pictures again; prints one page

"quick": one seed and few steps, in build/quick: shows that it runs, nothing else.

1 tools, 2 the worlds, 3 models, 4 the experiments, 5 their table, 6 the runner, 7 pages. An
experiment is a function of a Bench, which knows the seed, and returns {point: {metric: number}}.
Everything that it compares gets the same seed, rows and student, so a comparison is a difference
within a seed. The runner adds seeds until the interval of that comparison is narrow enough. Each
stage leaves a file in build/experiments; a stage whose file is there is not run again, and an
interrupted training run is resumed. """
import hashlib, json, math, os, pathlib, re, shutil, statistics, subprocess, sys, time
from concurrent.futures import ThreadPoolExecutor

START = os.environ.get("CALLED_FROM", os.getcwd())          # train.sh has left that folder
os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
ARGUMENTS = sys.argv[1:]
HOW = ARGUMENTS.pop(0) if ARGUMENTS[:1] in (["quick"], ["tune"]) else "full"
QUICK = HOW == "quick"
TOP, RESULTS = ("build/quick", "build/quick/results") if QUICK else ("build", "docs/results")
WORK, BIG, DOMAIN = TOP + "/experiments", TOP + "/models/aligner.gguf", TOP + "/domain/"
LINUX = sys.platform != "darwin"                           # where peaks are in KiB
JOBS = int(os.environ.get("JOBS", os.cpu_count() or 1))     # seeds at a time, one thread each

# ---- 1. Tools --------------------------------------------------------------------------------

def steps(full, quick):
    return quick if QUICK else full

def save(path, content):
    """The file is there whole or not at all."""
    part = pathlib.Path(path + ".part")
    part.write_text(content, encoding="utf-8")
    part.replace(path)
    return path

def tool(command, out=None):
    """What a command prints; with `out` it goes there, and is not run again if `out` is there."""
    if out and os.path.exists(out): return out
    if not command.startswith("build/world"):
        command += " --threads 1 --quiet"
    done = subprocess.run(command.split(), capture_output=True, encoding="utf-8")
    if done.returncode: sys.exit(f"`{command}` failed:\n{done.stderr}")
    return save(out, done.stdout) if out else done.stdout

SMALL = """import os, subprocess, sys
_, status, used = os.wait4(subprocess.Popen(sys.argv[1:]).pid, 0)
print(used.ru_maxrss)
sys.exit(status != 0)"""

def peak_memory(command):
    """As the system counts it, in MB. A process starts with its parent's peak, so the parent must
    be a small one."""
    done = subprocess.run([sys.executable, "-S", "-c", SMALL, *command.split()],
                          stdout=subprocess.PIPE)
    if done.returncode: sys.exit(f"`{command}` failed")
    return int(done.stdout) / (976.5625 if LINUX else 1e6)

def read(path):
    """The rows of a JSONL file, or of a file that is one JSON array."""
    content = pathlib.Path(path).read_text(encoding="utf-8-sig")
    if content.lstrip().startswith("["): return json.loads(content)
    rows = []
    for i, line in enumerate(content.split("\n")):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except ValueError as error:
            raise ValueError(f"line {i + 1}: {error}") from None
    return rows

def write(path, rows):
    return save(path, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))

def number(text):
    """A number of its own for each text, the same on every machine."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)

# ---- 2. The worlds ---------------------------------------------------------------------------
# "small": capitals, continents, requests and what nobody knows; a small model learns all of it.
# "large": the same and thousands of made-up mayors, more than such a model can hold.

FACTS = {"small": "", "large": f"--facts {steps(3000, 300)}"}
EXAM = "/dev" if HOW == "tune" else "/exam"

def belongs(row):
    facts = row.get("relation") in ("capital", "continent", "mayor")
    return facts or row.get("kind") in ("requests", "unknowable")

def questions(rows, out):
    given = "answer", "correction", "category"
    return write(out, [{k: v for k, v in r.items() if k not in given} for r in rows])

def prepare(world):
    """A folder with the world's rows, questions, and a tokenizer of 1,024 pieces."""
    d, raw = f"{WORK}/{world}", f"{WORK}/{world}/raw"
    if os.path.exists(d + "/tokenizer.bin"): return
    os.makedirs(raw, exist_ok=True)
    tool(f"build/world make {raw} tokenizer.bin {steps(60000, 6000)} {FACTS[world]}")
    for name, most in ("train", None), ("upstream", None), ("dev", 400), ("exam", 400):
        rows = [r for r in read(f"{raw}/{name}.jsonl") if belongs(r)][:most and steps(most, 25)]
        write(f"{d}/{name}.jsonl", rows)
        questions(rows, f"{d}/{name}-questions.jsonl")
    shutil.rmtree(raw)
    new = "--vocab 1024 --prompt short --out"
    tool(f"build/aligner tokenizer --data {d}/train.jsonl {new} {d}/tokenizer.part")
    os.replace(d + "/tokenizer.part", d + "/tokenizer.bin")

def learnt(labels, out):
    """Rows whose answers are the corrections: x to y_c instead of (x, y_o) to y_c."""
    rows = read(labels)
    return write(out, [{"question": r["question"], "answer": r["correction"]} for r in rows])

def unchanged(rows, out):
    """Rows as they are judged if nobody corrects them."""
    return write(out, [{**r, "correction": r["answer"]} for r in rows])

# ---- 3. Models -------------------------------------------------------------------------------

SHAPE = "--prompt short --tied --context 256"
TINY = SHAPE + " --heads 4 --layers 2 --dim 64"
LARGER = SHAPE + " --heads 4 --layers 2 --dim 128"
DRAW, OTHER = "--temperature 0.7 --seed 1", "--temperature 0.7 --seed 2"
EPS = "--adam-eps 1e-4"
FAST = f"--tokens 512 {EPS} --lr 6e-3 --muon 0.5"
WARM = f"--tokens 512 {EPS} --lr 4e-3 --grow-below 1.5"
SPEAK = "--tokens 512 --adam-eps 1e-5 --lr 1e-2 --muon 0.6"
# Chosen on seed 0, which is not reported. SFT takes what the Aligner takes.
SFT = FAST
GENTLE = f"--tokens 512 {EPS} --lr 1e-3"
KEEP = "--keep 4"
DPO = f"--batch 16 {EPS} --lr 1e-4"
RLHF = f"--batch 16 {EPS} --lr 5e-5 --kl 0.2 --samples 4 --max-tokens 24"

def parameters(model):
    return int(tool(f"build/aligner info {model}").split(" parameters")[0].split()[-1])

class Bench:
    """Where one seed of an experiment works: seed s, folder d, a world. Files go by short names."""

    def __init__(self, s, d, world="small"):
        self.s, self.d, self.world, self.home = s, d, world, f"{WORK}/{world}"
        self.rows, self.said = self.home + "/train.jsonl", self.home + "/upstream.jsonl"
        self.exam, self.asked = self.home + EXAM + ".jsonl", self.home + EXAM + "-questions.jsonl"
        os.makedirs(d, exist_ok=True)

    def path(self, name):
        return f"{self.d}/{self.world}-" + re.sub("[^A-Za-z0-9.-]+", "-", name)

    def write(self, name, rows):
        return write(self.path(name), rows)

    def sample(self, n, salt="", rows=None):
        """n training rows, others for each seed and salt."""
        key = lambda r: number(f"{self.s} {salt} {r['question']} {r['answer']}")
        return sorted(rows or read(self.rows), key=key)[:n]

    def train(self, name, options, n, program="build/aligner train"):
        """Trains a model unless it is there; an interrupted run is resumed."""
        out, part = self.path(name + ".gguf"), self.path(name + ".part.gguf")
        if not os.path.exists(out):
            resume = "--resume" if os.path.exists(part + ".state") else ""
            tool(f"{program} {options} --steps {n} --seed {self.s} --out {part}"
                 f" --save-every 500 {resume}")
            os.replace(part, out)
            pathlib.Path(part + ".state").unlink(missing_ok=True)
        return out

    def new(self, name, objective, n, data=None, shape=TINY, how=FAST, tokenizer=None):
        tokenizer = tokenizer or self.home + "/tokenizer.bin"
        return self.train(name, f"{objective} --tokenizer {tokenizer} {shape} {how}"
                                f" --data {data or self.rows}", n)

    def aligner(self, name, n_warm, n, data=None, shape=TINY, how=FAST):
        """An Aligner: n_warm steps of the identity, short rows first, then n steps of Eq. (4)."""
        how = f"{how} {KEEP}"
        if not n_warm: return self.new(name, "aligner", n, data, shape, how + " --grow-below 1.5")
        warm = self.new(name + "-warm", "warmup", n_warm, data, shape, WARM)
        return self.train(name, f"aligner --init {warm} --data {data or self.rows} {how}", n)

    def shared(self, kind):
        """Models that several experiments share."""
        b, name = Bench(self.s, WORK + "/models", self.world), f"{kind}-{self.s}"
        if kind == "aligner": return b.aligner(name, steps(400, 20), steps(1600, 30))
        if kind == "upstream": return b.new(name, "sft", steps(300, 30), b.said, TINY, SPEAK)
        if kind == "student": return b.new(name, "sft", steps(300, 30), b.said, LARGER, SPEAK)
        return b.reward(name, self.shared("upstream"), b.rows, 400)

    def reward(self, name, base, pairs, n):
        how = f"--init {base} --data {pairs} --batch 16 {EPS} --lr 1e-3"
        return self.train(name, how, steps(n, 4), "build/lab reward")

    def improve(self, method, name, base, labels, n, judge=None):
        """Trains an upstream model itself. For SFT the corrections become the answers."""
        if method == "SFT":
            data = learnt(labels, self.path(name + ".learnt"))
            return self.train(name, f"sft --init {base} --data {data} {SFT}", steps(n, 3))
        how, program = DPO if method == "DPO" else f"{RLHF} --reward {judge}", method.lower()
        how += f" --init {base} --data {labels}"
        return self.train(name, how, steps(n, 3), "build/lab " + program)

    def answers(self, model, name, asked=None, how=""):
        """Rows with a model's answers, as they are judged or corrected later."""
        most, asked = f"--max-tokens {steps(40, 8)}", asked or self.asked
        out = self.path(name + ".answers")
        tool(f"build/aligner answer {model} {asked} {most} {how}", out)
        rows = [{**r, "answer": r.get("answer") or ""} for r in read(out)]
        return unchanged(rows, out + ".rows")

    def corrected(self, mu, rows, name):
        return tool(f"build/aligner correct {mu} {rows} {steps('', '--max-tokens 20')}",
                    self.path(name + ".corrected"))

    def labels(self, speaker, mu, n, name):
        """(q, a, a'): a drawn from a model, a' its correction. All rows, and the pairs."""
        asked = questions(self.sample(n, name), self.path(name + ".asked"))
        drawn = self.answers(speaker, name + "-drawn", asked, DRAW)
        rows = self.corrected(mu, drawn, name + "-labels")
        return rows, self.pairs(read(rows), name)

    def pairs(self, rows, name):
        """Rows of which one text can be preferred. The models of "quick" give hardly any."""
        rows = [r for r in rows if r["answer"] and r["answer"] != r["correction"]]
        if len(rows) < 20 and QUICK: return self.pairs(self.sample(200), name)
        return self.write(name + ".pairs", rows)

    def judged(self, said):
        """What the world's judge says about files of corrected rows, {point: path}, in percent."""
        rows = self.write("said", [{**r, "upstream": p} for p, f in said.items() for r in read(f)])
        report = json.loads(tool(f"build/world judge --json {FACTS[self.world]} {rows}"))
        n = {p: report["upstream/" + p] for p in said}
        return {p: {m: 100 * n[p][part] / max(1, n[p][of]) for m, part, of in MEASURES} for p in n}

HS = "helpful", "harmless", "honest"
MEASURES = [("good", "good_after", "answers"), *((h, h + "_after", "answers") for h in HS),
            ("good copied", "good_copied", "good_before"),
            ("bad corrected", "bad_corrected", "bad")]

# ---- 4. The experiments ----------------------------------------------------------------------

def resources(b):
    """Memory, seconds and operations of four trainers, one after the other. Mixed-precision Adam
    keeps 16 bytes for a trained and 2 for a frozen parameter, and PPO has a critic. Operations for
    each token and parameter: 2 forward, 4 backward."""
    data, found = b.pairs(b.sample(400), "rows"), {}
    base = b.new("base", "sft", 1, data, SHAPE + " --dim 256 --layers 4 --heads 4")
    reward = "--samples 2 --max-tokens 8 --reward " + b.reward("reward", base, data, 1)
    ledger = re.search(r"([0-9.]+)  total", tool(f"build/lab memory {base}"))[1]
    for name, program, state, operations in (
            ("SFT", "aligner train sft", 16, 6), ("Aligner", "aligner train aligner", 16, 6),
            ("DPO", "lab dpo", 18, 8), ("RLHF", "lab rlhf " + reward, 36, 12)):
        log, began = b.path(name + ".csv"), time.monotonic()
        command = (f"build/{program} --init {base} --data {data} --batch 4 --steps {steps(30, 3)}"
                   f" --seed {b.s} --log {log} --out {b.path(name)} --threads 1 --quiet")
        peak = peak_memory(command)
        head, *_, last = (line.split(",") for line in pathlib.Path(log).read_text().split())
        work = operations * parameters(base) * int(last[head.index("tokens")]) / 1e9
        found[name] = {"paper's ledger": state / 16, "seconds": time.monotonic() - began,
                       "GFLOP": work, "MB": peak}
    for row in found.values():
        row["measured"] = row["MB"] / found["Aligner"]["MB"]
    found["Aligner"]["MB, lab memory"] = float(ledger)
    return found

def bound(b):
    """Both sides of Eq. (3) while the Aligner learns. Few answers are possible if all are short."""
    short = lambda r: max(r["answer"].count(" "), r["correction"].count(" ")) < 3
    data = b.write("short", filter(short, read(b.rows)))
    exam = b.write("exam", list(filter(short, read(b.exam)))[:steps(30, 2)])
    pi, found = b.new("pi", "sft", steps(400, 20), data), {}
    warm = b.new("warm", "warmup", steps(150, 10), data, TINY, WARM)
    for n in steps((0, 25, 100, 400, 1000), (0, 1000)):
        how = f"aligner --init {warm} --data {data} {FAST} {KEEP}"
        mu = b.train(f"{n}", how, steps(n, 4)) if n else warm
        sides = json.loads(tool(f"build/lab bound {pi} {mu} --data {exam} --json"))
        found[f"{n}"] = {k: sides[k] for k in ("left", "right", "slack", "mass")}
        found[f"{n}"]["violations"] = sum(r["slack"] < -1e-6 for r in sides["rows"])
    return found

def upstreams(b):
    """One Aligner after every speaker, and after models (*) and speakers (*) it never heard."""
    mu, heard, said, found = b.shared("aligner"), {}, {}, {}
    for r in read(b.exam):
        heard.setdefault(r["upstream"] + "*" * (r["split"] == "upstreams"), []).append(r)
    own = b.path("tokenizer.bin")
    tool(f"build/aligner tokenizer --data {b.said} --vocab 600 --prompt short --out {own}")
    other = b.new("other", "sft", steps(300, 20), b.said, TINY, SPEAK, own)
    for name, model in (("a small model*", b.shared("upstream")), ("another tokenizer*", other),
                        ("a larger model*", b.shared("student"))):
        heard[name] = read(b.answers(model, name))
    for i, (name, rows) in enumerate(heard.items()):
        said[name + " before"] = unchanged(rows, b.path(f"before-{i}"))
        said[name] = b.corrected(mu, said[name + " before"], f"{i}")
    judged = b.judged(said)
    for name in sorted(heard):
        before = judged[name + " before"]["good"]
        found[name] = {"gain": judged[name]["good"] - before, "good before": before} | judged[name]
    new = statistics.mean(row["gain"] for name, row in found.items() if name.endswith("*"))
    return {"mean of all *": {"gain": new}} | found

def warmup(b):
    """The share of the identity in the same number of steps."""
    n, said = steps(2000, 20), {}
    for share in 0, 2, 10, 20, 50:
        mu = b.aligner(f"{share}", n * share // 100, n - n * share // 100)
        said[f"{share}"] = b.corrected(mu, b.exam, f"{share}")
    return b.judged(said)

def correction(b):
    """(x, y_o) to y_c against x to y_c: the same shape, rows and steps, in both worlds."""
    found = {}
    for world in "small", "large":
        w, said = Bench(b.s, b.d, world), {}
        data = learnt(w.rows, w.path("learnt"))
        for n in 500, 2000:
            m = steps(n, 20)
            mu = w.aligner(f"mu-{n}", m // 4, m - m // 4)
            pi = w.new(f"pi-{n}", "sft", m, data, TINY, FAST + " --grow-below 1.5")
            said[f"{world}, corrects/{n}"] = w.corrected(mu, w.exam, f"mu-{n}")
            said[f"{world}, answers/{n}"] = w.answers(pi, f"pi-{n}")
            said[f"{world}, nothing done/{n}"] = unchanged(read(w.exam), w.path("idle"))
        found |= w.judged(said)
    return found

def baselines(b):
    """The same upstream, improved itself or left as it is with the Aligner after it."""
    found = {}
    for world in "small", "large":
        w = Bench(b.s, b.d, world)
        base, pairs = w.shared("upstream"), w.pairs(w.sample(8000), "triples")
        said = {f"{world}: upstream alone": w.answers(base, "before")}
        said[f"{world}: Aligner"] = w.corrected(w.shared("aligner"), *said.values(), "stacked")
        for method, labels, n in ("SFT", w.rows, 2000), ("DPO", pairs, 500), ("RLHF", pairs, 150):
            model = w.improve(method, method, base, labels, n, w.shared("reward"))
            said[f"{world}: {method}"] = w.answers(model, method)
        found |= w.judged(said)
    return found

PAPER = {"SFT": (28.4, 59.6), "RLHF": (21.6, 43.9), "DPO": (-9.6, 68.4)}   # Table 4: Alpaca2-13B

def weak_to_strong(b):
    """A larger student learns from a smaller Aligner's corrections of a weak model's answers (the
    paper's footnote) or of its own (the paper's Fig. 8). Judged alone, against itself before."""
    student, mu, found = b.shared("student"), b.shared("aligner"), {}
    said = {"before": b.answers(student, "before")}
    said["Aligner after the student"] = b.corrected(mu, said["before"], "stacked")
    for reading, speaker in ("weak", b.shared("upstream")), ("own", student):
        rows, pairs = b.labels(speaker, mu, steps(3000, 60), reading)
        judge = b.reward(reading + "-reward", student, pairs, 300)
        for method, labels, n in ("SFT", rows, 300), ("RLHF", pairs, 100), ("DPO", pairs, 200):
            name = f"{method}, {reading} answers"
            said[name] = b.answers(b.improve(method, name, student, labels, n, judge), name)
    judged = b.judged(said)
    before = judged.pop("before")
    for name, after in judged.items():
        gain = {h: after[h] - before[h] for h in ("helpful", "harmless")}
        gain["average"] = statistics.mean(gain.values())
        gain |= dict(zip(("paper: helpful", "paper: harmless"), PAPER.get(name.split(",")[0], ())))
        found[name] = gain | {h: after[h] - before[h] for h in ("honest", "good")}
    return found

def rounds(b):
    """Three rounds of DPO or RLHF: fed by the Aligner, or plain: two answers of the policy itself,
    ranked by a reward model that was trained once."""
    mu, judge, said = b.shared("aligner"), b.shared("reward"), {}
    for series in "DPO, Aligner", "DPO, plain", "RLHF, Aligner", "RLHF, plain":
        (method, feed), policy = series.split(", "), b.shared("upstream")
        said[series + "/0"] = b.answers(policy, series + " 0")
        for k in 1, 2, 3:
            name, ranker = f"{series} {k}", judge
            drawn, pairs = b.labels(policy, mu, steps(1500, 60), name)
            if feed == "plain":
                again = b.answers(policy, name + " again", b.path(name + ".asked"), OTHER)
                scored = (read(tool(f"build/lab score {judge} {f}", f + ".scored"))
                          for f in (drawn, again))
                ranked = [sorted(two, key=lambda r: r["reward"] or 0) for two in zip(*scored)]
                pairs = b.pairs([{**l, "correction": r["answer"]} for l, r in ranked], name)
            elif method == "RLHF":
                ranker = b.reward(name + "-reward", policy, pairs, 200)
            policy = b.improve(method, name, policy, pairs, 100 if method == "DPO" else 60, ranker)
            said[f"{series}/{k}"] = b.answers(policy, name)
    return b.judged(said)

def steering(b):
    """Does a direction tell rows to copy from rows to correct? Does adding it change how much?"""
    shape = SHAPE + " --dim 64 --layers 4 --heads 4"
    mu = b.aligner("mu", steps(400, 20), steps(1600, 30), None, shape)
    fit = b.write("fit", b.sample(steps(500, 40)))
    alphas = steps("-2,-1,-0.5,-0.25,0,0.25,0.5,1,2", "-1,0,1")
    report = json.loads(tool(f"build/lab steer {mu} --data {fit} --valid {b.exam} --json"
                             f" --alpha={alphas}"))
    found = {f"{p.pop('alpha'):g}": p for p in report["points"]}
    for row in report["layers"]:
        found[f"layer {row['layer']}"] = {k: 100 * row[k] for k in ("separation", "chance")}
    over = statistics.mean(100 * (row["separation"] - row["chance"]) for row in report["layers"])
    return found | {"all": {"over chance": over, "slope": report["slope"], "R2": report["R2"]}}

def scale(b):
    """Five sizes and four amounts of rows, the same number of steps for all."""
    rows, said, n = read(b.rows), {}, steps(600, 10)
    for amount in 500, 1500, 4500, 13500:
        data = b.write(f"{amount}", rows[:steps(amount, amount // 50)])
        for dim, layers in (16, 2), (32, 2), (64, 2), (128, 2), (256, 4):
            name, rate = f"{dim}-{amount}", round(6e-3 * (64 / dim) ** 0.5, 4)
            shape = f"{SHAPE} --layers {layers} --dim {dim} --heads {max(1, dim // 32)}"
            how = f"--tokens 512 {EPS} --muon 0.5 --lr {rate}"
            mu = b.aligner(name, n // 4, n - n // 4, data, shape, how)
            said[f"{amount} rows/{parameters(mu)}"] = b.corrected(mu, b.exam, name)
    found = b.judged(said)
    first, _, third, _, fifth = [row["good"] for row in found.values()][-5:]
    return found | {"all": {"first half": third - first, "second half": fifth - third}}

def domain(b):
    """The Aligner of train.sh, fine-tuned on a domain's triples: what it learns and forgets. A
    tenth of the questions is held out, another tenth for each seed."""
    rows, found, said, mu = read(DOMAIN + "rows.jsonl"), {}, {}, BIG
    out = set(sorted({r["question"] for r in rows}, key=number)[b.s % 10::10])
    held, rest = ([r for r in rows if (r["question"] in out) == side] for side in (True, False))
    replay = b.sample(len(rest), "replay", read(TOP + "/data/train.jsonl"))
    asked = b.write("held", held)
    exam = b.write("exam", read(TOP + "/data/dev.jsonl")[:steps(500, 30)])
    for name, mix in ("before", 0), ("after", rest), ("after, with replay", rest + replay):
        if mix:
            data = b.write(name + ".rows", mix)
            mu = b.train(name, f"aligner --init {BIG} --data {data} {GENTLE}", steps(150, 5))
        now = read(b.corrected(mu, asked, name + " held"))
        right = [a["correction"] == r["correction"] for a, r in zip(now, held)]
        found[name] = {"the domain": 100 * statistics.mean(right)}
        said[name] = b.corrected(mu, exam, name)
    for name, row in b.judged(said).items():
        found[name]["the world"] = row["good"]
    if b.s < 2:                                 # one seed's, whatever runs beside it
        shutil.copy(mu, DOMAIN + "aligner.part")
        os.replace(DOMAIN + "aligner.part", DOMAIN + "aligner.gguf")
    return found

# ---- 5. The table of experiments -------------------------------------------------------------
# The table in docs/experiments.md states claim, comparison, aim and most seeds. Here is how the
# comparison is computed (a sum of factor x metric at a point) and what is drawn.

def less(a, b, metric):
    return [(1, a, metric), (-1, b, metric)]

GOOD = "good on all three H, %"
PLANS = {
    "resources": (resources, less("RLHF", "Aligner", "measured"), [
        ("bars", ["paper's ledger", "measured"], "memory, times the Aligner's")]),
    "bound": (bound, less("0", "1000", "left"), [
        ("lines", ["left", "right"], "nats an answer", "steps of Eq. (4)")]),
    "upstreams": (upstreams, [(1, "mean of all *", "gain")], [
        ("bars", ["gain"], "gain in good answers, points")]),
    "warmup": (warmup, less("20", "0", "good"), [
        ("lines", ["good", "good copied", "bad corrected"], "%", "identity, % of the steps")]),
    "correction": (correction, less("large, corrects/2000", "large, answers/2000", "good"), [
        ("lines", ["good"], GOOD, "steps")]),
    "baselines": (baselines, less("large: Aligner", "large: SFT", "good"), [
        ("bars", ["helpful", "harmless", "good"], "%")]),
    "weak-to-strong": (weak_to_strong, [(1, "SFT, weak answers", "average")], [
        ("bars", ["helpful", "harmless", "average"], "gain over the student before, points")]),
    "rounds": (rounds, less("DPO, Aligner/3", "DPO, plain/3", "good"), [
        ("lines", ["good"], GOOD, "round")]),
    "steering": (steering, [(1, "all", "over chance")], [
        ("bars", ["separation", "chance"], "pairs told apart, %"),
        ("lines", ["degree"], "degree of correction D_L", "alpha")]),
    "scale": (scale, [(1, "all", "first half"), (-1, "all", "second half")], [
        ("log", ["good"], GOOD, "parameters")]),
    "domain": (domain, less("after, with replay", "before", "the domain"), [
        ("bars", ["the domain", "the world"], "right, %")])}

class Experiment:
    """A row of the table: name, claim, comparison, aim with its unit, most seeds."""

    def __init__(self, name):
        self.name, (self.run, self.terms, self.plots) = name, PLANS[name]
        content = pathlib.Path("docs/experiments.md").read_text(encoding="utf-8")
        row = re.search(rf"^\| \[{name}\]\(.*", content, re.M)[0].strip(" |").split(" | ")
        self.claim, self.comparison, (aim, self.unit) = row[1], row[2], row[3].split(" ", 1)
        self.aim, self.most = float(aim), int(row[4])
        self.pictures = [f"{name}{-i - 1 if i else ''}.svg" for i in range(len(self.plots))]

# ---- 6. The runner ---------------------------------------------------------------------------

T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
       2.145, 2.131, 2.120, 2.110, 2.101, 2.093)        # Student's t by degrees of freedom

def interval(values):
    """The mean, and half of its 95 % interval."""
    n = len(values)
    half = T95[n - 2] * statistics.stdev(values) / math.sqrt(n) if n > 1 else math.inf
    return statistics.mean(values), half

def compared(e, seeds):
    return interval([sum(f * found[p][m] for f, p, m in e.terms) for found in seeds.values()])

def narrow(e, seeds):
    """Half of the interval is at most the aim, or half the aim if the effect is smaller than it."""
    mean, half = compared(e, seeds)
    return half <= (e.aim if abs(mean) >= e.aim else e.aim / 2)

def one_seed(e, s, key):
    part, d, began = f"{WORK}/parts/{key}-{s}.json", f"{WORK}/{key}/{s}", time.monotonic()
    if not os.path.exists(part):
        os.makedirs(WORK + "/parts", exist_ok=True)
        save(part, json.dumps(e.run(Bench(s, d))))
        print(f"   {e.name}, seed {s}: {time.monotonic() - began:.0f} s", file=sys.stderr)
        shutil.rmtree(d)
    return json.loads(pathlib.Path(part).read_text())

def experiment(name, results, key):
    """Runs an experiment; numbers, page and pictures go to a folder."""
    e, seeds, todo = Experiment(name), {}, {"quick": [1], "tune": [0], "full": [1, 2, 3, 4]}[HOW]
    print("== " + name, file=sys.stderr)
    with ThreadPoolExecutor(1 if name == "resources" else JOBS) as pool:
        while todo:
            seeds |= dict(zip(todo, pool.map(lambda s: one_seed(e, s, key), todo)))
            n, more = len(seeds), HOW == "full" and not narrow(e, seeds)
            todo = range(n + 1, min(n + 2, e.most) + 1) if more else []
    if HOW == "tune": return print(page(e, seeds))
    os.makedirs(results, exist_ok=True)
    pages(save(f"{results}/{name}.json", json.dumps(seeds, indent=1)))

def own_domain(path):
    """A folder for a file of triples, which are checked and copied there. Its name says which file
    and which rows. If the model is no longer in it, the experiment is run again."""
    try:
        rows, keys = read(path), ("question", "answer", "correction")
    except (OSError, ValueError) as error:
        sys.exit(f"{path}: {error}; JSONL or one JSON array was expected")
    for i, r in enumerate(rows):
        if not isinstance(r, dict) or not all(isinstance(r.get(k), str) for k in keys):
            sys.exit(f"{path}, row {i + 1}: texts were expected under {', '.join(keys)}")
    if len({r["question"] for r in rows}) < 10:
        sys.exit(f"{path}: fewer than ten questions, of which a tenth is held out")
    if not os.path.exists(BIG) and subprocess.run(["./train.sh", *["quick"] * QUICK]).returncode:
        sys.exit(f"{BIG} is missing, and ./train.sh failed to make it")
    name = re.sub(r"[^\w]+", "-", os.path.basename(path).rsplit(".", 1)[0])
    key = f"{name}-{number(json.dumps(rows))}"
    d = f"{TOP}/domain/{key}/"
    try:
        os.makedirs(d, exist_ok=True)
        write(d + "rows.jsonl", rows)
    except (OSError, ValueError) as error:
        sys.exit(f"{d}rows.jsonl: {error}")
    if not os.path.exists(d + "aligner.gguf"):
        for part in pathlib.Path(WORK, "parts").glob(key + "-*"): part.unlink()
    return d, key

# ---- 7. Pages and pictures -------------------------------------------------------------------

def load(path):
    """The experiment of a file of numbers, and {seed: {point: {metric: number}}}."""
    return Experiment(os.path.basename(path)[:-5]), json.loads(pathlib.Path(path).read_text())

def cell(seeds, point, metric):
    """Mean and half interval at a point, or None."""
    values = [f[point][metric] for f in seeds.values() if metric in f.get(point, {})]
    return interval(values) if values else None

def shown(pair, sign=""):
    if pair is None: return ""
    size = max(abs(x) for x in pair if x < math.inf)
    mean, half = (f"{x:{sign}.{0 if size >= 1000 else 1 if size >= 10 else 2}f}" for x in pair)
    return mean + (f" ± {half.strip('+')}" if 0 < pair[1] < math.inf else "")

def verdict(e, seeds):
    """What the comparison says about the claim."""
    mean, half = compared(e, seeds)
    if half == math.inf: word = "One seed says nothing"
    elif abs(mean) > half: word = "Held" if mean > 0 else "Did not hold"
    else: word = "Did not hold: no difference" if narrow(e, seeds) else "Cannot be told"
    return f"**{word}**: {shown((mean, half), '+')} {e.unit}, {len(seeds)} seeds"

def page(e, seeds, title=None):
    first = next(iter(seeds.values()))
    metrics = list(dict.fromkeys(m for row in first.values() for m in row))
    lines = [f"# {title or e.name}", "",
             f"The claim: {e.claim}. The comparison: {e.comparison}.", "",
             verdict(e, seeds) + ". Mean, and half of the 95 % interval over the seeds.", "",
             "| | " + " | ".join(metrics) + " |", "|:--|" + "--:|" * len(metrics)]
    for p in first:
        lines.append(f"| {p} | " + " | ".join(shown(cell(seeds, p, m)) for m in metrics) + " |")
    return "\n".join(lines + [""] + [f"![{e.name}]({f})" for f in e.pictures] + [
        "", f"Made by `./train.sh {e.name}{' F.jsonl' if title else ''}` from "
            f"[{e.name}.json]({e.name}.json)."])

# gnuplot's white and black become the colours of the reader's page, light or dark.
STYLE = "".join(f"{media} rect:first-of-type {{ fill: {paper} }} [fill=black] {{ fill: {ink} }} "
                f"[color=black], [stroke=black], [stroke^='rgb(  0,'] "
                f"{{ color: {ink}; stroke: {ink} }} {end}\n"
                for media, paper, ink, end in (
                    ("", "#fff", "#222", ""),
                    ("@media (prefers-color-scheme: dark) {", "#0d1117", "#ddd", "}")))
COLOURS = "#3b82f6", "#e08a00", "#22a06b", "#d6409f", "#8b5cf6", "#0ea5b7"

def curves(seeds, metrics, bars):
    """{title: [[x, mean, half, label], ...]}: one for each metric and, for lines, each series."""
    found, points = {}, next(iter(seeds.values()))
    places = [p for p in points if any(cell(seeds, p, m) for m in metrics)]
    for m in metrics:
        for i, p in enumerate(places):
            series, x = ("", str(i)) if bars else ([""] + p.rsplit("/", 1))[-2:]
            if cell(seeds, p, m) and re.fullmatch(r"-?[0-9.]+", x):
                mean, half = cell(seeds, p, m)
                title = [series] * bool(series) + [m] * (len(metrics) > 1 or not series)
                row = [float(x), mean, 0 if half == math.inf else half, p]
                found.setdefault(", ".join(title), []).append(row)
    return found

def draw(seeds, plot, out):
    """Horizontal bars, or curves, with intervals."""
    style, metrics, label, *x_label = plot
    bars, script, parts = style == "bars", [], []
    found = curves(seeds, metrics, bars)
    names, k = list(dict.fromkeys(r[3] for rows in found.values() for r in rows)), len(found)
    for i, (title, rows) in enumerate(found.items()):
        shift = (i - (k - 1) / 2) * 0.8 / k if bars else 0
        script += [f"$d{i} << END", *(f"{x + shift} {y} {h}" for x, y, h, _ in sorted(rows)), "END"]
        line = f"lc rgb '{COLOURS[i % 6]}' title \"{title}\" noenhanced"
        parts += [f"$d{i} using ($2/2):1:(abs($2)/2):({0.36 / k}) with boxxyerror fs solid {line}",
                  f"$d{i} using 2:1:3 with xerrorbars pt -1 lc rgb 'black' notitle"] if bars else [
                  f"$d{i} using 1:2:3 with yerrorlines lw 2 pt 7 ps 0.5 {line}"]
    ticks = ", ".join(f"\"{p}\" {i}" for i, p in enumerate(names))
    margin, height = (max(map(len, names)) * 7.4 + 20) / 760, 110 + len(names) * (14 + 12 * k)
    subprocess.run(["gnuplot"], text=True, check=True, input="\n".join(script) + f"""
set terminal svg size 760,{height if bars else 420} dynamic font 'sans-serif,13' background 'white'
set output '{out}.drawn'
set tics nomirror scale 0.5
set key noenhanced above left samplen 2
set grid {'x' if bars else ''} lc rgb '#88888888' lt 1
""" + (f"""set ytics noenhanced ({ticks}) scale 0
set yrange [{len(names) - 0.4}:-0.6]
set lmargin at screen {margin}
set border 1
set xlabel "{label}" noenhanced
set arrow from 0, graph 0 to 0, graph 1 nohead
""" if bars else f"""set ylabel "{label}" noenhanced
set xlabel "{x_label[0]}" noenhanced
set border 3
set offsets graph 0.03, graph 0.03, graph 0.05, graph 0.05
{"set logscale x; set format x '%.0s %c'" if style == "log" else ""}
""") + "plot " + ", ".join(parts))
    drawn = pathlib.Path(out + ".drawn")
    save(out, drawn.read_text().replace("<desc>", f"<style>{STYLE}</style>\n<desc>", 1))
    drawn.unlink()

def pages(path):
    """The page and the pictures beside a file of numbers."""
    (e, seeds), d = load(path), os.path.dirname(path)
    title = f"domain: {os.path.basename(d)}" if "/domain/" in path else None
    save(path[:-4] + "md", page(e, seeds, title) + "\n")
    if not shutil.which("gnuplot"):
        print("gnuplot is missing, so no pictures; install it and run make docs", file=sys.stderr)
    else:
        for plot, picture in zip(e.plots, e.pictures):
            draw(seeds, plot, f"{d}/{picture}")

def docs():
    """All pages, and what came out between the marks of docs/experiments.md."""
    home = pathlib.Path("docs/experiments.md")
    content = home.read_text(encoding="utf-8")
    for name in PLANS:
        path, block = f"docs/results/{name}.json", "Not run yet."
        if os.path.exists(path):
            pages(path)
            e, seeds = load(path)
            block = f"{verdict(e, seeds)} ([all numbers](results/{name}.md)).\n"
            block += "".join(f"\n![{name}](results/{f})" for f in e.pictures)
        fill = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=\n<!-- end -->)", re.S)
        content = fill.sub(lambda _: block, content)
    save(str(home), content)

def main():
    global DOMAIN
    own = ARGUMENTS[:1] == ["domain"] and len(ARGUMENTS) == 2 and os.path.join(START, ARGUMENTS[1])
    names = list(PLANS) if ARGUMENTS == ["all"] else ["domain"] if own else ARGUMENTS
    if ARGUMENTS == ["docs"]: return docs()
    if ARGUMENTS[:1] == ["page"] and len(ARGUMENTS) == 2: return print(page(*load(ARGUMENTS[1])))
    if not names or not set(names) <= set(PLANS):
        print("usage: ./train.sh [quick] NAME... | all | domain F.jsonl; NAME is one of:\n  "
              + " ".join(PLANS), file=sys.stderr)
        sys.exit(2)
    if subprocess.run(["make", "-s", "build/aligner", "build/world", "build/lab"]).returncode:
        sys.exit("make failed")
    for world in FACTS:
        prepare(world)
    for name in names:
        results, key = RESULTS, name
        if name == "domain":
            DOMAIN, key = own_domain(own or "tests/domain_example.jsonl")
            results = DOMAIN if own else RESULTS
        experiment(name, results, key)
    if own:
        print(f"{DOMAIN}domain.md: what it learnt and forgot\n{DOMAIN}aligner.gguf: the Aligner "
              "trained with replay; it has not seen a tenth of your questions")
    if HOW == "full" and not own: docs()

main()
