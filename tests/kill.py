#!/usr/bin/env python3
"""kill.py - SIGKILL at random moments: with --resume, a run ends with the bits of an undisturbed one.

    tests/kill.py [N [SEED]]     N kills in all, ten unless given; ends with "N passed, N failed"

One run with Muon, the mean of weights and a log, saved at every step, is left alone. Then the
same command is started with --resume and killed, again and again, until it ends by itself. Its
model and its state must have the bytes of the undisturbed run, and its log the same line for each
step. After each kill, a checkpoint that exists must load. When a kill comes depends on the clock;
what is demanded does not.
"""
import os
import random
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True

import faults
from faults import ok, path, read, remove, run, words

RUN = "train aligner --init @warm.gguf --data @d --batch 3 --steps 60 --muon 0.5 --ema 0.9" \
      " --save-every 1 --quiet --out @{0} --log @{0}.csv"


def steps_of(name):
    """step -> line of a log. If a step was repeated after a kill, its last line counts."""
    lines = read(name).decode().splitlines()
    return {line.split(",")[0]: line for line in lines if not line.startswith("step")}


def live(seconds):
    """Starts the run and kills it after so many seconds (None: never), unless it has ended."""
    with open(path("err"), "wb") as err:
        child = subprocess.Popen([faults.ALIGNER] + words(RUN.format("cut") + " --resume"),
                                 stdin=subprocess.DEVNULL, stdout=err, stderr=err,
                                 env=faults.environment())
    if seconds is not None:
        time.sleep(seconds)
        child.kill()
    return child.wait()


def compare(kills):
    for name in ("cut", "cut.state"):
        ok(f"after {kills} kills {name} has the bits of the undisturbed run",
           read(name) == read(name.replace("cut", "whole")))
    ok(f"after {kills} kills the log says the same of each step",
       steps_of("cut.csv") == steps_of("whole.csv"))
    left = [name for name in os.listdir(faults.TMP) if "tmp" in name]
    ok("no temporary file stays", not left, str(left))


def main():
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    draw = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    folder = os.path.join(faults.ROOT, faults.B, "tests")
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="kill.") as faults.TMP:
        faults.here = "kill"
        faults.make_models()
        faults.write("d", [dict(row, question=f"{row['question']} {i}") for i, row in
                           enumerate(faults.ROWS * 10)])
        start = time.time()
        r = run(RUN.format("whole"), timeout=300)
        whole = time.time() - start
        if r.code:
            sys.exit(f"kill.py: the undisturbed run: {r.about()}")
        kills, runs, found = 0, 0, {}
        while kills < wanted:
            remove("cut", "cut.state", "cut.csv")
            code, here = -9, 0
            while code == -9:
                code = live(draw.uniform(0, 0.4 * whole) if kills < wanted else None)
                if code == -9:
                    kills, here = kills + 1, here + 1
                    files = sorted(f.replace("cut", "OUT") for f in os.listdir(faults.TMP)
                                   if f.startswith("cut"))
                    found[" ".join(files)] = found.get(" ".join(files), 0) + 1
                    if "OUT" in files:
                        ok("the checkpoint loads", run("info @cut").code == 0)
            runs += 1
            if not ok("the run ends by itself", code == 0, read("err").decode()):
                break
            compare(here)
        for files, n in sorted(found.items(), key=lambda pair: -pair[1]):
            print(f"{n} times a kill left {files or 'nothing'}")
    print(f"killed {kills} times in {runs} runs")
    print(f"kill: {faults.passed} passed, {faults.failed} failed")
    return faults.failed > 0


if __name__ == "__main__":
    sys.exit(main())
