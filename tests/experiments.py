#!/usr/bin/env python3
"""experiments.py - the paper's claims, put to the test in miniature. `./train.sh NAME` calls it.

    tests/experiments.py [quick] NAME...          runs them: numbers, page and picture
    tests/experiments.py [quick] all              every one of them
    tests/experiments.py [quick] domain F.jsonl   fine-tunes the trained Aligner on your triples
    tests/experiments.py tune NAME...             seed 0 on the dev rows, never reported
    tests/experiments.py docs                     pages and pictures again, from the numbers
    tests/experiments.py page F.tsv               prints the page of one file of numbers

"quick": one seed and few steps, in build/quick: shows that it runs, nothing else.

How to read it: 1 tools, 2 the worlds, 3 models, 4 the experiments, 5 their table, 6 the runner,
7 pages and pictures. An experiment is a function of a Bench, which knows the seed, and returns
{point: {metric: number}}. Everything that it compares gets the same seed, rows and student, so a
comparison is a difference within a seed. The runner adds seeds until the interval of that
comparison is narrow enough. Each stage leaves a file in build/experiments; a stage whose file is
there is not run again, and an interrupted training run is resumed. """
import hashlib, json, math, os, re, shutil, statistics, subprocess, sys, time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
ARGUMENTS = sys.argv[1:]
HOW = ARGUMENTS.pop(0) if ARGUMENTS[:1] in (["quick"], ["tune"]) else "full"
QUICK = HOW == "quick"
TOP = "build/quick" if QUICK else "build"
RESULTS = "build/quick/results" if QUICK else "docs/results"
WORK = TOP + "/experiments"
JOBS = int(os.environ.get("JOBS", os.cpu_count() or 1))     # seeds at a time, one thread each

# ---- 1. Tools --------------------------------------------------------------------------------


def die(message):
    sys.exit("experiments.py: " + message)


def steps(full, quick):
    return quick if QUICK else full


def save(path, content):
    """A file is there whole or not at all."""
    with open(path + ".part", "w", encoding="utf-8") as f:
        f.write(content)
    os.replace(path + ".part", path)
    return path


def tool(command, out=None):
    """What a command prints; with `out` it goes there, and is not run again if `out` is there."""
    if out and os.path.exists(out):
        return out
    if not command.startswith("build/world"):
        command += " --threads 1 --quiet"
    done = subprocess.run(command.split(), capture_output=True)
    if done.returncode:
        die(f"`{command}` failed:\n{done.stderr.decode()}")
    printed = done.stdout.decode()
    return save(out, printed) if out else printed


def read(path):
    """The rows of a JSONL file, or of a file that is one JSON array."""
    with open(path, encoding="utf-8-sig") as f:
        lines = f.read().splitlines()
    if lines and lines[0].lstrip().startswith("["):
        lines, rows = [], json.loads("\n".join(lines))
    else:
        rows = []
    for i, line in enumerate(lines):
        try:
            rows += [json.loads(line)] if line.strip() else []
        except ValueError as error:
            die(f"{path}, line {i + 1}: {error}; a JSON object was expected")
    return rows


def write(path, rows):
    return save(path, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))


def number(text):
    """A number of its own for each text, the same on every machine."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)


def question(row):
    return {k: v for k, v in row.items() if k not in ("answer", "correction", "category")}


def unchanged(rows):
    return [{**r, "correction": r["answer"]} for r in rows]


# ---- 2. The worlds ---------------------------------------------------------------------------
# "small": capitals, continents, requests and what nobody knows; a small model learns all of it.
# "large": the same and thousands of made-up mayors, more than such a model can hold.

FACTS = {"small": "", "large": f"--facts {steps(3000, 300)}"}


def belongs(row):
    facts = row.get("relation") in ("capital", "continent", "mayor")
    return facts or row.get("kind") in ("requests", "unknowable")


def prepare(world):
    """A folder with the world's rows, questions, and a tokenizer of 1,024 pieces."""
    d, raw = f"{WORK}/{world}", f"{WORK}/{world}/raw"
    if os.path.exists(d + "/tokenizer.bin"):
        return
    os.makedirs(raw, exist_ok=True)
    tool(f"build/world make {raw} tokenizer.bin {steps(60000, 6000)} {FACTS[world]}")
    for name in "train", "upstream", "dev", "exam":
        rows = [r for r in read(f"{raw}/{name}.jsonl") if belongs(r)]
        rows = rows[:steps(400, 25)] if name in ("dev", "exam") else rows
        write(f"{d}/{name}.jsonl", rows)
        write(f"{d}/{name}-questions.jsonl", map(question, rows))
    tool(f"build/aligner tokenizer --data {d}/train.jsonl --vocab 1024 --prompt short"
         f" --out {d}/tokenizer.part")
    shutil.rmtree(raw)
    os.replace(d + "/tokenizer.part", d + "/tokenizer.bin")


def judged(world, rows, path):
    """What the world's judge says about the corrections, in percent of the rows."""
    report = tool(f"build/world judge --json {FACTS[world]} {write(path, rows)}")
    n = json.loads(report)["all"]["all"]
    found = {"good": 100 * n["good_after"] / n["answers"]}
    found |= {h: 100 * n[h + "_after"] / n["answers"] for h in ("helpful", "harmless", "honest")}
    if n["good_before"]:
        found["good copied"] = 100 * n["good_copied"] / n["good_before"]
    if n["bad"]:
        found["bad corrected"] = 100 * n["bad_corrected"] / n["bad"]
    return found


# ---- 3. Models -------------------------------------------------------------------------------

SHAPE = "--prompt short --tied --context 256 --layers 2"
TINY, LARGER = SHAPE + " --dim 64 --heads 4", SHAPE + " --dim 128 --heads 8"
EPS = "--adam-eps 1e-4"
FAST = f"--tokens 512 {EPS} --lr 4e-3"
DRAW, OTHER_DRAW = "--temperature 0.7 --seed 1", "--temperature 0.7 --seed 2"
# Chosen on seed 0 (`tune`).
DPO = f"--batch 16 {EPS} --lr 1e-4"
RLHF = f"--batch 16 {EPS} --lr 5e-5 --kl 0.2 --samples 4 --max-tokens 24"


def train(out, options, program="build/aligner train"):
    """Trains a model unless it is there; an interrupted run is resumed."""
    if not os.path.exists(out):
        part = out.replace(".gguf", ".part.gguf")
        resume = "--resume" if os.path.exists(part + ".state") else ""
        tool(f"{program} {options} --out {part} --save-every 500 {resume}")
        os.replace(part, out)
        if os.path.exists(part + ".state"):
            os.remove(part + ".state")
    return out


class Bench:
    """Where one seed of an experiment works: its seed s, its folder d, and one of the worlds."""

    def __init__(self, s, d, world="small"):
        self.s, self.d, self.world = s, d, world
        self.home = f"{WORK}/{world}"
        self.rows = self.home + "/train.jsonl"
        self.exam = self.home + ("/dev" if HOW == "tune" else "/exam")

    def into(self, world):
        return Bench(self.s, self.d, world)

    def path(self, name):
        return f"{self.d}/{self.world}-{name.replace(' ', '-').replace(',', '').strip('*')}"

    def sample(self, n, salt=""):
        """About n training rows, others for each seed and salt."""
        key = lambda r: number(f"{self.s} {salt} {r['question']} {r['answer']}")
        return sorted(read(self.rows), key=key)[:n]

    def new(self, out, objective, n, data=None, shape=TINY, how=FAST):
        return train(out, f"{objective} --tokenizer {self.home}/tokenizer.bin {shape} {how}"
                          f" --data {data or self.rows} --steps {n} --seed {self.s}")

    def aligner(self, out, n_warm, n, data=None, shape=TINY, how=FAST):
        """An Aligner: n_warm steps of the identity, short rows first, then n steps of Eq. (4)."""
        grow, data = how + " --grow-below 1.5", data or self.rows
        if not n_warm:
            return self.new(out, "aligner", n, data, shape, grow)
        warm = self.new(out.replace(".gguf", "-warm.gguf"), "warmup", n_warm, data, shape, grow)
        return train(out, f"aligner --init {warm} --data {data} --steps {n} --seed {self.s} {how}")

    def shared(self, name):
        """Models that several experiments share."""
        os.makedirs(WORK + "/models", exist_ok=True)
        out = f"{WORK}/models/{self.world}-{name}-{self.s}.gguf"
        said = self.home + "/upstream.jsonl"
        if name == "aligner":
            return self.aligner(out, steps(500, 20), steps(1500, 30))
        if name == "upstream":
            return self.new(out, "sft", steps(400, 30), said)
        if name == "student":                           # larger than the Aligner, not yet good
            return self.new(out, "sft", steps(150, 30), said, LARGER)
        return self.reward(out, self.shared("upstream"), self.rows, 400)

    def reward(self, out, base, pairs, n):
        return train(out, f"--init {base} --data {pairs} --batch 16 {EPS} --lr 1e-3"
                          f" --steps {steps(n, 4)} --seed {self.s}", "build/lab reward")

    def improve(self, method, out, base, labels, n, judge=None):
        """Trains an upstream model itself. For SFT the corrections become the answers."""
        common = f"--init {base} --seed {self.s} --steps {steps(n, 3)} --data"
        if method == "sft":
            return train(out, f"sft {common} {learnt(labels, out)} --tokens 512 {EPS} --lr 1e-3")
        more = DPO if method == "dpo" else f"{RLHF} --reward {judge}"
        return train(out, f"{common} {labels} {more}", "build/lab " + method)

    def answers(self, model, questions, name, more=""):
        """Rows with a model's answers, as they are judged or corrected later."""
        out = self.path(name) + ".answers"
        tool(f"build/aligner answer {model} {questions} --max-tokens {steps(40, 10)} {more}", out)
        rows = [{**r, "answer": r.get("answer") or ""} for r in read(out)]
        return write(out + ".rows", unchanged(rows))

    def alone(self, model, name):
        """What the judge says about a model's own answers; and these answers."""
        rows = self.answers(model, self.exam + "-questions.jsonl", name)
        return judged(self.world, read(rows), self.path(name) + ".judged"), rows

    def corrected(self, mu, rows, name):
        """What the judge says after an Aligner's corrections."""
        out = tool(f"build/aligner correct {mu} {rows}", self.path(name) + ".out")
        return judged(self.world, read(out), self.path(name) + ".judged")

    def labels(self, speaker, mu, n, name):
        """(q, a, a'): a drawn from a model, a' its correction. All rows, and the pairs."""
        asked = write(self.path(name) + ".asked", map(question, self.sample(n, name)))
        drawn = self.answers(speaker, asked, name, DRAW)
        rows = tool(f"build/aligner correct {mu} {drawn}", self.path(name) + ".labels")
        return rows, self.differing(read(rows), name)

    def differing(self, rows, name):
        """Pairs of which one can be preferred. The models of "quick" give hardly any."""
        rows = [r for r in rows if r["answer"] and r["answer"] != r["correction"]]
        if len(rows) < 20:
            if not QUICK:
                die(f"{self.path(name)}: only {len(rows)} corrections differ from their answers")
            rows = [r for r in self.sample(200) if r["answer"] != r["correction"]]
        return write(self.path(name) + ".pairs", rows)


def learnt(labels, out):
    """Rows whose answers are the corrections: x to y_c instead of (x, y_o) to y_c."""
    rows = [{"question": r["question"], "answer": r["correction"]} for r in read(labels)]
    return write(out.replace(".gguf", ".jsonl"), rows)


# ---- 4. The experiments ----------------------------------------------------------------------


def resources(b):
    """Memory, seconds and operations of four trainers, one after the other."""
    n, found, first = steps(30, 3), {}, None
    data = write(b.path("rows"), b.sample(200))
    shape = "--prompt short --tied --context 256 --dim 256 --layers 4 --heads 4"
    base = b.new(b.path("base.gguf"), "sft", 1, data, shape)
    judge = b.reward(b.path("reward.gguf"), base, data, 1)
    ledger = tool(f"build/lab memory {base}")
    total = float(re.search(r"([0-9.]+)  total", ledger)[1])
    # Mixed-precision Adam keeps 16 bytes for a trained and 2 for a frozen parameter, and PPO has a
    # critic. Operations a token and parameter: 2 forward, 4 backward.
    for name, program, more, paper, operations in (
            ("sft", "aligner train sft", "", 16, 6),
            ("aligner", "aligner train aligner", "", 16, 6),
            ("dpo", "lab dpo", "", 18, 8),
            ("rlhf", "lab rlhf", f"--reward {judge} --samples 2 --max-tokens 8", 36, 12)):
        log, began = b.path(name + ".csv"), time.monotonic()
        command = (f"build/{program} --init {base} --data {data} --batch 4 --steps {n} {more}"
                   f" --seed {b.s} --log {log} --out {b.path(name)}.gguf --threads 1 --quiet")
        _, status, used = os.wait4(subprocess.Popen(command.split()).pid, 0)
        if status:
            die(f"`{command}` failed")
        memory = used.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e6 / 1024)
        first = first or memory
        with open(log) as f:
            head, *_, last = f.read().split()
        tokens = int(last.split(",")[head.split(",").index("tokens")])
        found[name] = {"paper's ledger": paper / 16, "measured": memory / first, "MB": memory,
                       "seconds": time.monotonic() - began,
                       "GFLOP": operations * parameters(base) * tokens / 1e9}
    found["sft"]["MB, our ledger"] = found["aligner"]["MB, our ledger"] = total
    return found


def parameters(model):
    return int(tool(f"build/aligner info {model}").split(" parameters")[0].split()[-1])


def bound(b):
    """Both sides of Eq. (3) while the Aligner learns. Few answers are possible if all are short."""
    short = lambda r: max(r["answer"].count(" "), r["correction"].count(" ")) < 3
    data = write(b.path("short"), filter(short, read(b.rows)))
    exam = write(b.path("exam"), list(filter(short, read(b.exam + ".jsonl")))[:steps(30, 4)])
    pi = b.new(b.path("pi.gguf"), "sft", steps(400, 20), data)
    grow = FAST + " --grow-below 1.5"
    warm, found = b.new(b.path("warm.gguf"), "warmup", steps(150, 10), data, TINY, grow), {}
    for n in 0, 25, 100, 400, 1000:
        mu = warm if not n else train(b.path(f"{n}.gguf"), f"aligner --init {warm} --data {data}"
                                      f" --seed {b.s} --steps {steps(n, 4)} --tokens 512 {EPS} --lr 2e-3")
        sides = json.loads(tool(f"build/lab bound {pi} {mu} --data {exam} --json"))
        found[f"{n}"] = {k: sides[k] for k in ("left", "right", "slack", "mass")}
        found[f"{n}"]["violations"] = sum(r["slack"] < -1e-6 for r in sides["rows"])
    return found


def upstreams(b):
    """One Aligner after every speaker, and after models (*) and speakers (*) it never heard."""
    mu, said, found = b.shared("aligner"), {}, {}
    for r in read(b.exam + ".jsonl"):
        said.setdefault(r["upstream"] + "*" * (r["split"] == "upstreams"), []).append(r)
    other, rows = b.path("tokenizer.bin"), b.home + "/upstream.jsonl"
    tool(f"build/aligner tokenizer --data {rows} --vocab 600 --prompt short --out {other}")
    other = train(b.path("other.gguf"), f"sft --tokenizer {other} {TINY} {FAST} --data {rows}"
                  f" --seed {b.s} --steps {steps(400, 20)}")
    for name, model in (("a small model*", b.shared("upstream")), ("a larger one*", b.shared("student")),
                        ("one with another tokenizer*", other)):
        said[name] = read(b.alone(model, name)[1])
    for name, rows in sorted(said.items()):
        path = write(b.path(name) + ".rows", rows)
        before, after = judged(b.world, unchanged(rows), path + ".idle"), b.corrected(mu, path, name)
        gain = {f"{h}, gain": after[h] - before[h] for h in ("good", "helpful", "harmless", "honest")}
        found[name] = gain | {"good before": before["good"]} | after
    new = [v["good, gain"] for k, v in found.items() if k.endswith("*")]
    return {"mean of all *": {"good, gain": statistics.mean(new)}} | found


def warmup(b):
    """The share of the identity in the same number of steps."""
    n, found = steps(2000, 20), {}
    for share in 0, 2, 10, 20, 50:
        warm = n * share // 100
        mu = b.aligner(b.path(f"{share}.gguf"), warm, n - warm)
        found[f"{share}"] = b.corrected(mu, b.exam + ".jsonl", f"{share}")
    return found


def correction(b):
    """(x, y_o) to y_c against x to y_c: the same shape, rows and steps, in both worlds."""
    found = {}
    for world in "small", "large":
        w = b.into(world)
        data, exam = learnt(w.rows, w.path("learnt.gguf")), w.exam + ".jsonl"
        idle = judged(world, unchanged(read(exam)), w.path("idle"))
        for n in 500, 2000:
            m = steps(n, 20)
            mu = w.aligner(w.path(f"mu{n}.gguf"), m // 4, m - m // 4)
            pi = w.new(w.path(f"pi{n}.gguf"), "sft", m, data, TINY, FAST + " --grow-below 1.5")
            found[f"{world}, corrects/{n}"] = w.corrected(mu, exam, f"mu{n}")
            found[f"{world}, answers/{n}"] = w.alone(pi, f"pi{n}")[0]
            found[f"{world}, nothing done/{n}"] = idle
    return found


def baselines(b):
    """The same upstream, improved itself or left as it is with the Aligner after it."""
    found = {}
    for world in "small", "large":
        w = b.into(world)
        base = w.shared("upstream")
        found[f"{world}: upstream alone"], said = w.alone(base, "before")
        found[f"{world}: Aligner"] = w.corrected(w.shared("aligner"), said, "stacked")
        pairs = w.differing(w.sample(8000), "pairs")
        for method, n in ("sft", 2000), ("dpo", 500), ("rlhf", 150):
            judge = w.shared("reward") if method == "rlhf" else None
            labels = w.rows if method == "sft" else pairs
            model = w.improve(method, w.path(method + ".gguf"), base, labels, n, judge)
            found[f"{world}: {method.upper()}"] = w.alone(model, method)[0]
    return found


PAPER = {"sft": (28.4, 59.6), "rlhf": (21.6, 43.9), "dpo": (-9.6, 68.4)}   # Table 4: Alpaca2-13B


def weak_to_strong(b):
    """A larger student learns from a smaller Aligner's corrections of a weak model's answers (the
    paper's footnote) or of its own (the paper's Fig. 8). Judged alone, against itself before."""
    student, mu, found = b.shared("student"), b.shared("aligner"), {}
    before, said = b.alone(student, "before")

    def gain(after, paper=()):
        two = [after[h] - before[h] for h in ("helpful", "harmless")]
        named = dict(zip(("helpful", "harmless", "average"), (*two, sum(two) / 2)))
        named |= {"honest": after["honest"] - before["honest"], "good": after["good"] - before["good"]}
        return named | dict(zip(("paper: helpful", "paper: harmless"), paper))

    found["Aligner after the student"] = gain(b.corrected(mu, said, "stacked"))
    for reading, speaker in ("weak", b.shared("upstream")), ("own", student):
        rows, pairs = b.labels(speaker, mu, steps(3000, 60), reading)
        judge = b.reward(b.path(f"{reading}-reward.gguf"), student, pairs, 300)
        for method, n in ("sft", 300), ("rlhf", 100), ("dpo", 200):
            name, labels = f"{method.upper()}, {reading} answers", rows if method == "sft" else pairs
            model = b.improve(method, b.path(name) + ".gguf", student, labels, n, judge)
            found[name] = gain(b.alone(model, name)[0], PAPER[method])
    return found


def rounds(b):
    """Three rounds of DPO or RLHF: fed by the Aligner, or plain: two answers of the policy itself,
    ranked by a reward model that was trained once."""
    mu, judge, found = b.shared("aligner"), b.shared("reward"), {}
    for method, feed in ("dpo", "Aligner"), ("dpo", "plain"), ("rlhf", "Aligner"), ("rlhf", "plain"):
        policy, series = b.shared("upstream"), f"{method.upper()}, {feed}"
        found[series + "/0"] = b.alone(policy, series + " 0")[0]
        for k in 1, 2, 3:
            name, ranker = f"{series} {k}", judge
            rows, pairs = b.labels(policy, mu, steps(1500, 60), name)
            if feed == "plain":
                again = b.answers(policy, b.path(name) + ".asked", name + " again", OTHER_DRAW)
                scored = [read(tool(f"build/lab score {judge} {f}", f + ".scored"))
                          for f in (b.path(name) + ".answers.rows", again)]
                ranked = [sorted(two, key=lambda r: r["reward"] or 0) for two in zip(*scored)]
                pairs = b.differing([{**l, "correction": r["answer"]} for l, r in ranked], name)
            elif method == "rlhf":
                ranker = b.reward(b.path(name) + "-reward.gguf", policy, pairs, 200)
            n = 100 if method == "dpo" else 60
            policy = b.improve(method, b.path(name) + ".gguf", policy, pairs, n, ranker)
            found[f"{series}/{k}"] = b.alone(policy, name)[0]
    return found


def steering(b):
    """Does a direction tell rows to copy from rows to correct? Does adding it change how much?"""
    shape = "--prompt short --tied --context 256 --dim 64 --layers 4 --heads 4"
    mu = b.aligner(b.path("mu.gguf"), steps(500, 20), steps(1500, 30), None, shape)
    fit = write(b.path("fit"), b.sample(steps(500, 40)))
    alphas = steps("-2,-1,-0.5,-0.25,0,0.25,0.5,1,2", "-1,0,1")
    report = json.loads(tool(f"build/lab steer {mu} --data {fit} --valid {b.exam}.jsonl --json"
                             f" --alpha={alphas}"))
    found = {f"{p.pop('alpha'):g}": p for p in report["points"]}
    found |= {f"layer {l['layer']}": {k: 100 * l[k] for k in ("separation", "chance")}
              for l in report["layers"]}
    over = statistics.mean(100 * (l["separation"] - l["chance"]) for l in report["layers"])
    return found | {"all": {"over chance": over, "slope": report["slope"], "R2": report["R2"]}}


def scale(b):
    """Five sizes and four amounts of rows, the same number of steps for all."""
    rows, good, found = read(b.rows), {}, {}
    for amount in 500, 1500, 4500, 13500:
        data = write(b.path(f"{amount}"), rows[:steps(amount, amount // 50)])
        for dim, layers in (16, 2), (32, 2), (64, 2), (128, 2), (256, 4):
            n, name = steps(1000, 10), f"{dim}-{amount}"
            shape = f"--prompt short --tied --context 256 --layers {layers} --dim {dim}"
            how = f"--tokens 256 {EPS} --lr {4e-3 * (64 / dim) ** 0.5:g}"
            mu = b.aligner(b.path(name + ".gguf"), n // 4, n - n // 4, data,
                           f"{shape} --heads {max(1, dim // 32)}", how)
            after = b.corrected(mu, b.exam + ".jsonl", name)
            found[f"{amount} rows/{parameters(mu)}"], good[dim] = after, after["good"]
    # `good` holds the largest amount now.
    return found | {"all": {"first half": good[64] - good[16], "second half": good[256] - good[64]}}


def domain(b):
    """The Aligner of train.sh, fine-tuned on a domain's triples: what it learns and what it forgets.
    A tenth of the questions is held out, another tenth for each seed."""
    rows, n, found, mu = read(DOMAIN + "/rows.jsonl"), steps(150, 5), {}, BIG
    out = set(sorted({r["question"] for r in rows}, key=number)[b.s % 10::10])
    held = [r for r in rows if r["question"] in out]
    rest = [r for r in rows if r["question"] not in out]
    old = sorted(read(f"{TOP}/data/train.jsonl"), key=lambda r: number(f"{b.s}{r['question']}"))
    asked = write(b.path("held"), held)
    exam = write(b.path("exam"), read(f"{TOP}/data/dev.jsonl")[:steps(500, 30)])
    for name, mix in ("before", 0), ("after", rest), ("after, with replay", rest + old[:len(rest)]):
        if mix:
            data = write(b.path(name) + ".rows", mix)
            mu = train(b.path(name) + ".gguf", f"aligner --init {BIG} --data {data} --seed {b.s}"
                       f" --steps {n} --tokens 512 {EPS} --lr 1e-3")
        said = read(tool(f"build/aligner correct {mu} {asked}", b.path(name) + ".held"))
        right = [now["correction"] == r["correction"] for now, r in zip(said, held)]
        found[name] = {"the domain": 100 * statistics.mean(right)}
        found[name]["the world"] = b.corrected(mu, exam, name)["good"]
    shutil.copy(mu, f"{DOMAIN}/aligner-{b.s}.gguf")
    return found


# ---- 5. The table of experiments -------------------------------------------------------------

# What a comparison adds up: factor, point, metric. Seeds are added until half of its 95 % interval
# is at most `aim`, or aim / 2 if the effect is smaller than `aim`; at most `most` seeds.
Experiment = namedtuple("Experiment", "run claim comparison terms plots most worlds aim unit")
GOOD = "good on all three H, %"


def plan(run, claim, comparison, terms, *plots, most=20, worlds=("small",), aim=10.0, unit="points"):
    return Experiment(run, claim, comparison, terms, plots, most, worlds, aim, unit)


def less(a, b, metric):
    return [(1, a, metric), (-1, b, metric)]


PLANS = {e.run.__name__.replace("_", "-"): e for e in (
    plan(resources, "RLHF takes 2.25 times the Aligner's memory, DPO 1.125 times",
         "peak memory: RLHF less the Aligner", less("rlhf", "aligner", "measured"),
         ("bars", ["paper's ledger", "measured"], "memory, times the Aligner's"),
         most=6, aim=0.2, unit="times the Aligner's"),
    plan(bound, "Eq. (4) lowers a bound of the composed policy's loss, Eq. (3)",
         "left side of Eq. (3): before Eq. (4) less after 1,000 steps", less("0", "1000", "left"),
         ("lines", ["left", "right"], "nats an answer", "steps of Eq. (4)"), aim=2.0, unit="nats"),
    plan(upstreams, "one Aligner, trained once, improves every upstream model",
         "gain in good answers, mean of the upstreams never heard in training",
         [(1, "mean of all *", "good, gain")], ("bars", ["good, gain"], "gain in good answers, points")),
    plan(warmup, "a warm-up of 20 % identity is best",
         "good answers: 20 % identity less none", less("20", "0", "good"),
         ("lines", ["good", "good copied", "bad corrected"], "%", "identity, % of the steps")),
    plan(correction, "correcting is easier than generating",
         "good answers in the large world: the Aligner less SFT",
         less("large, corrects/2000", "large, answers/2000", "good"),
         ("lines", ["good"], GOOD, "steps"), worlds=("small", "large")),
    plan(baselines, "an Aligner beats SFT, RLHF and DPO on the same data",
         "good answers in the large world: the Aligner less SFT",
         less("large: Aligner", "large: SFT", "good"),
         ("bars", ["helpful", "harmless", "good"], "%"), most=12, worlds=("small", "large")),
    plan(weak_to_strong, "labels of a weaker Aligner improve a stronger student",
         "SFT on a weak model's corrected answers: gain, mean of helpful and harmless",
         [(1, "SFT, weak answers", "average")],
         ("bars", ["helpful", "harmless", "average"], "gain over the student before, points"), most=12),
    plan(rounds, "rounds fed by the Aligner keep improving, plain ones do not",
         "good answers after three rounds of DPO: fed by the Aligner less plain",
         less("DPO, Aligner/3", "DPO, plain/3", "good"), ("lines", ["good"], GOOD, "round"), most=12),
    plan(steering, "copy or correct is a direction in the residual stream",
         "held-out separation by V_c less what chance reaches, mean of the layers",
         [(1, "all", "over chance")], ("bars", ["separation", "chance"], "pairs told apart, %"),
         ("lines", ["degree"], "degree of correction D_L", "alpha")),
    plan(scale, "the gain shrinks as the Aligner grows",
         "good answers at 13,500 rows: gain from the 1st to the 3rd size less from the 3rd to the 5th",
         [(1, "all", "first half"), (-1, "all", "second half")],
         ("log", ["good"], GOOD, "parameters"), most=6),
    plan(domain, "an Aligner can be made for a domain",
         "held-out rows right: after fine-tuning with replay less before",
         less("after, with replay", "before", "the domain"),
         ("bars", ["the domain", "the world"], "right, %"), most=10, worlds=()))}

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
    mean, half = compared(e, seeds)
    return half <= (e.aim if abs(mean) >= e.aim else e.aim / 2)


def one_seed(name, s):
    part, d = f"{WORK}/parts/{name}-{s}.json", f"{WORK}/{name}/{s}"
    if not os.path.exists(part):
        os.makedirs(d, exist_ok=True)
        os.makedirs(WORK + "/parts", exist_ok=True)
        began = time.monotonic()
        found = PLANS[name.split("@")[0]].run(Bench(s, d))
        print(f"   {name}, seed {s}: {time.monotonic() - began:.0f} s", file=sys.stderr)
        save(part, json.dumps(found))
        shutil.rmtree(d)
    with open(part) as f:
        return json.load(f)


def experiment(name, results):
    """Runs an experiment; numbers, page and pictures go to a folder."""
    e, seeds, todo = PLANS[name.split("@")[0]], {}, [1, 2, 3, 4]
    todo = {"quick": [1], "tune": [0], "full": todo}[HOW]
    print("== " + name, file=sys.stderr)
    for world in e.worlds:
        prepare(world)
    with ThreadPoolExecutor(1 if e.run is resources else JOBS) as pool:
        while todo:
            seeds |= dict(zip(todo, pool.map(lambda s: one_seed(name, s), todo)))
            n, more = len(seeds), HOW == "full" and not narrow(e, seeds)
            todo = range(n + 1, min(n + 2, e.most) + 1) if more else []
    if HOW == "tune":
        return print(page(name, seeds))
    lines = [f"{p}\t{s}\t{m}\t{v:.6g}\n" for s, found in seeds.items() for p, row in found.items()
             for m, v in row.items()]
    os.makedirs(results, exist_ok=True)
    pages(save(f"{results}/{name.split('@')[0]}.tsv", "point\tseed\tmetric\tvalue\n" + "".join(lines)))


# ---- 7. Pages and pictures -------------------------------------------------------------------


def load(path):
    """{seed: {point: {metric: number}}} from a file of numbers."""
    seeds = {}
    with open(path) as f:
        for line in f.read().splitlines()[1:]:
            point, s, metric, value = line.split("\t")
            seeds.setdefault(s, {}).setdefault(point, {})[metric] = float(value)
    return seeds


def cell(seeds, point, metric):
    """Mean and half interval at a point, or None."""
    values = [f[point][metric] for f in seeds.values() if metric in f.get(point, {})]
    return interval(values) if values else None


def shown(pair, sign=""):
    if pair is None:
        return ""
    size = max(abs(x) for x in pair if x < math.inf)
    digits = 0 if size >= 1000 else 1 if size >= 10 else 2
    mean, half = (f"{x:{sign}.{digits}f}" for x in pair)
    return mean + (f" ± {half.strip('+')}" if 0 < pair[1] < math.inf else "")


def verdict(e, seeds):
    """One sentence: what the comparison says about the claim."""
    mean, half = compared(e, seeds)
    if half == math.inf:
        word = "One seed says nothing"
    elif abs(mean) > half:
        word = "Held" if mean > 0 else "Did not hold"
    else:
        word = "Did not hold: no difference" if narrow(e, seeds) else "Cannot be told"
    return f"**{word}**: {shown((mean, half), '+')} {e.unit}, {len(seeds)} seeds"


def page(name, seeds):
    e, first = PLANS[name], next(iter(seeds.values()))
    metrics = list(dict.fromkeys(m for row in first.values() for m in row))
    lines = [f"# {name}", "", f"The claim: {e.claim}. The comparison: {e.comparison}.", "",
             verdict(e, seeds) + ". Mean, and half of the 95 % interval over the seeds.", "",
             "| | " + " | ".join(metrics) + " |", "|:--|" + "--:|" * len(metrics)]
    lines += [f"| {p} | " + " | ".join(shown(cell(seeds, p, m)) for m in metrics) + " |" for p in first]
    return "\n".join(lines + [""] + [f"![{name}]({f})" for f in pictures(name)] + [
        "", f"Made by `./train.sh {name}` from [{name}.tsv]({name}.tsv)."])


def pictures(name):
    return [name + ("" if i == 0 else f"-{i + 1}") + ".svg" for i in range(len(PLANS[name].plots))]


# The colours of light and dark pages: gnuplot's black and white become the reader's.
STYLE = """<style> rect:first-of-type { fill: #fff } [fill=black] { fill: #222 }
[color=black], [stroke=black] { color: #222; stroke: #222 }
@media (prefers-color-scheme: dark) { rect:first-of-type { fill: #0d1117 } [fill=black] { fill: #ddd }
[color=black], [stroke=black] { color: #ddd; stroke: #ddd } } </style>"""
COLOURS = "#3b82f6", "#e08a00", "#22a06b", "#d6409f", "#8b5cf6", "#0ea5b7"


def curves(name, seeds, metrics, lines):
    """{title: [[x, mean, half, label], ...]}: a curve for each series and metric, or bars."""
    found, points = {}, list(next(iter(seeds.values())))
    places = [p for p in points if any(cell(seeds, p, m) for m in metrics)]
    for m in metrics:
        for i, p in enumerate(places):
            series, x = ([""] + p.rsplit("/", 1))[-2:] if lines else ("", i)
            if cell(seeds, p, m) and re.fullmatch(r"-?[0-9.]+", str(x)):
                mean, half = cell(seeds, p, m)
                title = ", ".join(t for t in (series, m if len(metrics) > 1 or not series else "") if t)
                row = [float(x), mean, 0 if half == math.inf else half, p]
                found.setdefault(title, []).append(row)
    return found


def draw(name, seeds, plot, out):
    style, metrics, label, *x = plot
    found = curves(name, seeds, metrics, style != "bars")
    names = list(dict.fromkeys(row[3] for rows in found.values() for row in rows))
    n, k = len(names), len(found)
    height = 420 if style != "bars" else 110 + n * (14 + 12 * k)
    script = [f"set terminal svg size 760,{height} dynamic font 'sans-serif,13' background 'white'",
              f"set output '{out}.part'", "set tics nomirror scale 0.5", "set border 3",
              "set grid lc rgb '#88888888' lt 1", "set key noenhanced above left samplen 2"]
    for i, rows in enumerate(found.values()):
        shift = (i - (k - 1) / 2) * 0.8 / k if style == "bars" else 0
        body = (f"{x + shift:.6g} {mean:.6g} {half:.6g}" for x, mean, half, _ in sorted(rows))
        script += [f"$d{i} << END", *body, "END"]
    parts = []
    for i, title in enumerate(found):
        line = f"lc rgb '{COLOURS[i % 6]}' title \"{title}\" noenhanced"
        if style == "bars":
            parts.append(f"$d{i} using ($2/2):1:(abs($2)/2):({0.36 / k}) with boxxyerror fs solid {line}")
            parts.append(f"$d{i} using 2:1:3 with xerrorbars pt -1 lc rgb 'black' notitle")
        else:
            parts.append(f"$d{i} using 1:2:3 with yerrorlines lw 2 pt 7 ps 0.5 {line}")
    if style == "bars":
        ticks = ", ".join(f"\"{p}\" {i}" for i, p in enumerate(names))
        script += [f"set ytics noenhanced ({ticks}) scale 0", f"set yrange [{n - 0.4}:-0.6]", "set border 1",
                   f"set lmargin at screen {(max(map(len, names)) * 7.4 + 20) / 760:.3f}",
                   f"set xlabel \"{label}\" noenhanced", "set arrow from 0, graph 0 to 0, graph 1 nohead"]
    else:
        script += [f"set ylabel \"{label}\" noenhanced", f"set xlabel \"{x[0]}\" noenhanced",
                   "set offsets graph 0.03, graph 0.03, graph 0.05, graph 0.05"]
        script += ["set logscale x"] if style == "log" else []
    script.append("plot " + ", ".join(parts))
    subprocess.run(["gnuplot"], input="\n".join(script), text=True, check=True)
    with open(out + ".part") as f:
        save(out, f.read().replace("<desc>", STYLE + "\n<desc>", 1))


def pages(path):
    """The page and the pictures beside a file of numbers."""
    name, seeds = os.path.basename(path)[:-4], load(path)
    save(path[:-3] + "md", page(name, seeds) + "\n")
    if not shutil.which("gnuplot"):
        return print("gnuplot is missing, so no pictures: install it and run make docs", file=sys.stderr)
    for plot, picture in zip(PLANS[name].plots, pictures(name)):
        draw(name, seeds, plot, f"{os.path.dirname(path)}/{picture}")


def docs():
    """All pages, and what docs/experiments.md says about each experiment, between its marks."""
    with open("docs/experiments.md") as f:
        content = f.read()
    table = ["| experiment | the claim | the comparison | seeds | verdict |", "|:--|:--|:--|--:|:--|"]
    for name, e in PLANS.items():
        path, block, seeds, said = f"docs/results/{name}.tsv", "Not run yet.", {}, "not run yet"
        if os.path.exists(path):
            pages(path)
            seeds = load(path)
            said = verdict(e, seeds)
            block = "\n\n".join([f"{said} ([numbers](results/{name}.md))."]
                                + [f"![{name}](results/{f})" for f in pictures(name)])
        table.append(f"| [{name}](#{name}) | {e.claim} | {e.comparison} | {len(seeds) or '-'} of at most"
                     f" {e.most} | {said.split(',')[0]} |")
        content = fill(content, name, block)
    save("docs/experiments.md", fill(content, "table", "\n".join(table)))


def fill(content, mark, block):
    head, found, tail = content.partition(f"<!-- {mark} -->\n")
    return f"{head}{found}{block}\n<!-- end -->" + tail.split("<!-- end -->", 1)[1] if found else content


def main():
    if ARGUMENTS == ["docs"]:
        return docs()
    if ARGUMENTS[:1] == ["page"]:
        return print(page(os.path.basename(ARGUMENTS[1])[:-4], load(ARGUMENTS[1])))
    own = ARGUMENTS[1] if ARGUMENTS[:1] == ["domain"] and len(ARGUMENTS) == 2 else None
    names = list(PLANS) if ARGUMENTS == ["all"] else ["domain"] if own else ARGUMENTS
    if not names or not set(names) <= set(PLANS):
        print("usage: ./train.sh [quick] NAME... | all | domain F.jsonl; NAME is one of: "
              + " ".join(PLANS), file=sys.stderr)
        sys.exit(2)
    subprocess.run(["make", "-s", "build/aligner", "build/world", "build/lab"], check=True)
    for name in names:
        experiment(name, RESULTS)
    if HOW == "full" and not own:
        docs()


if __name__ == "__main__":
    main()
