#!/usr/bin/env python3
"""coverage.py BUILD - which lines of aligner.c the tests in this build folder have run.

`make coverage` builds the program and all tests with gcc --coverage, runs them, and calls this. A line
is covered if any program that includes aligner.c ran it. Prints the other lines, function by function,
then the share that is covered; exit 1 below 95 %. Lines that only a failing machine reaches (no memory,
a write error in the middle of a file) are listed like all others.
"""
import gzip
import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WANTED = 95.0


def gcov_data(folder):
    for base, _, names in os.walk(folder):
        for name in sorted(names):
            if name.endswith(".gcda"):
                made = subprocess.run(["gcov", "--json-format", "--stdout", os.path.join(base, name)],
                                      cwd=ROOT, capture_output=True, check=False).stdout
                if made[:2] == b"\x1f\x8b":
                    made = gzip.decompress(made)
                for line in made.splitlines():
                    yield json.loads(line)


def main():
    runs, function_of, programs = {}, {}, 0
    for data in gcov_data(sys.argv[1]):
        for source in data["files"]:
            if os.path.basename(source["file"]) != "aligner.c":
                continue
            programs += 1
            for line in source["lines"]:
                n = line["line_number"]
                runs[n] = runs.get(n, 0) + line["count"]
                function_of.setdefault(n, line.get("function_name", ""))
    if not runs:
        sys.exit(f"coverage.py: no data of gcov in {sys.argv[1]}; run make coverage")
    with open(os.path.join(ROOT, "aligner.c"), encoding="utf-8") as f:
        text = f.read().splitlines()
    last = None
    for n in sorted(n for n, count in runs.items() if not count):
        if function_of[n] != last:
            last = function_of[n]
            print(f"{last}:")
        print(f"  {n:5}  {text[n - 1].strip()}")
    covered = sum(count > 0 for count in runs.values())
    share = 100 * covered / len(runs)
    print(f"coverage: {covered} of {len(runs)} lines of aligner.c, {share:.1f} %, "
          f"by {programs} programs")
    return share < WANTED


if __name__ == "__main__":
    sys.exit(main())
