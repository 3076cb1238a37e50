#!/bin/sh
# spm.sh - compares `aligner tokenizer` with the original, SentencePiece's BPE trainer, on the same
# lines of text.
#
#   tests/spm.sh LINES.txt [VOCAB]      a text file, one sentence per line; VOCAB is 600 unless given
#
# LINES should have few rare characters. SentencePiece gives each character a piece; aligner gives
# characters at most half of the pieces. With 600 pieces, a text of more than 170 different characters
# therefore yields another vocabulary, not just another order of merges.
#
# Prints the pieces of both, side by side by id, then what they share. Exit 1 if fewer than 95 % of
# the pieces are common, 2 on bad usage, 0 with "skipped" if Debian's package `sentencepiece` or
# python3 is not installed.
set -eu
[ $# -ge 1 ] && [ $# -le 2 ] && [ -f "$1" ] || { echo "usage: tests/spm.sh LINES.txt [VOCAB]" >&2; exit 2; }
lines=$(realpath "$1") vocab=${2:-600}
cd "$(dirname "$0")/.."
for tool in spm_train python3; do
    command -v $tool >/dev/null || { echo "skipped: $tool is not installed (apt-get install sentencepiece python3)"; exit 0; }
done
[ -x build/aligner ] || { echo "build/aligner is missing: run make" >&2; exit 1; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# Both see the same lines. A row holds two: if its answer is empty, the trainer reads the question and
# then the correction.
python3 - "$lines" "$dir" <<'PY'
import json, sys
lines = [s for s in open(sys.argv[1], encoding="utf-8", newline="\n").read().split("\n") if s.strip()]
lines = lines[:len(lines) // 2 * 2]
open(sys.argv[2] + "/lines.txt", "w", encoding="utf-8", newline="\n").writelines(s + "\n" for s in lines)
with open(sys.argv[2] + "/rows.jsonl", "w") as f:
    for q, a in zip(lines[::2], lines[1::2]): f.write(json.dumps({"question": q, "answer": "", "correction": a}) + "\n")
PY

# The last line of options keeps SentencePiece from dropping what aligner keeps; the others set the
# format.
spm_train --input="$dir/lines.txt" --model_prefix="$dir/spm" --vocab_size="$vocab" --model_type=bpe --byte_fallback=true --character_coverage=1.0 \
    --normalization_rule_name=identity --split_digits=true --unk_id=0 --bos_id=1 --eos_id=2 --pad_id=-1 \
    --remove_extra_whitespaces=false --max_sentence_length=1000000 --num_threads=1 --minloglevel=1 2>"$dir/log" || { tail -5 "$dir/log" >&2; exit 1; }
build/aligner tokenizer --data "$dir/rows.jsonl" --vocab "$vocab" --prompt '{question}{answer}' --out "$dir/tokenizer.bin" --quiet

python3 - "$dir" <<'PY'
import struct, sys, bisect
spm = [line.rsplit("\t", 1)[0].replace("\u2581", " ") for line in open(sys.argv[1] + "/spm.vocab", encoding="utf-8", newline="\n").read().split("\n")[:-1]]
data, at, ours = open(sys.argv[1] + "/tokenizer.bin", "rb").read(), 4, []
while at < len(data):
    n = struct.unpack_from("<I", data, at + 4)[0]
    ours.append(data[at + 8:at + 8 + n].decode())
    at += 8 + n
print("id\tSentencePiece\taligner")
for i in range(259, max(len(spm), len(ours))):
    a, b = ("".join(map(repr, v[i:i + 1])) for v in (spm, ours))
    print(f"{i}\t{a}\t{b}\t{'' if a == b else '*'}")
assert spm[3:259] == ours[3:259], "the byte pieces differ"

spm, ours = spm[259:], ours[259:]
merges, rank = [p for p in spm if len(p) > 1], {p: i for i, p in enumerate(ours) if len(p) > 1}
ranks, tails = [rank[p] for p in merges if p in rank], []
for r in ranks:                                     # the longest increasing run of ranks: common merges in the same order
    k = bisect.bisect_left(tails, r)
    tails[k:k + 1] = [r]
first = next((i for i, (a, b) in enumerate(zip(spm, ours)) if a != b), min(len(spm), len(ours)))
common = len(set(spm) & set(ours)) / len(spm)
print(f"only in SentencePiece: {sorted(set(spm) - set(ours))}\nonly in aligner: {sorted(set(ours) - set(spm))}")
print(f"pieces in common: {len(set(spm) & set(ours))} of {len(spm)}, {100 * common:.1f} %")
print(f"merges in common: {len(ranks)} of {len(merges)}, in the same order: {len(tails)}, {100 * len(tails) / max(1, len(ranks)):.1f} %")
print(f"the first {first} ids after the bytes are the same; single characters: {len(spm) - len(merges)} and {len(ours) - len(rank)}")
sys.exit(common < 0.95)
PY
