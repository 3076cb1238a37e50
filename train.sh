#!/bin/sh
# train.sh - from nothing to a trained and examined Aligner on a laptop.
#
#   ./train.sh          makes whatever is missing: the world's data, two upstream models, the Aligner,
#                       its examination (about five minutes on 2 cores). After Ctrl-C the same
#                       command goes on
#   ./train.sh quick    the same with few steps, in build/quick: shows only that everything runs
#   ./train.sh long     three times the Aligner's rows and steps, in build/long
#   ./train.sh [quick] NAME...   the paper's experiments: tests/experiments.py lists their names
#
# Everything it makes is in build/: data/ (rows), models/ (GGUF), exam/ (answers, corrections, table).
# What is there is not made again: after a change of the world, begin with `make clean`.
# shellcheck disable=SC2086  # $new is a list of words
set -eu
called_from=$PWD
cd "$(dirname "$(readlink -f "$0")")"
export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-20000}"    # waiting threads soon yield the processor
dir=build how=full rows=
experiments() {
    command -v python3 > /dev/null ||
        { echo "train.sh: Python 3 (python3) is missing; the experiments need it" >&2; exit 1; }
    CALLED_FROM=$called_from exec tests/experiments.py "$@"
}
case "${1-}" in
    "") ;;
    quick)
        [ $# = 1 ] || experiments "$@"
        dir=build/quick how=quick ;;
    long)
        [ $# = 1 ] || { echo "train.sh: nothing goes after long" >&2; exit 2; }
        dir=build/long how=long rows=240000 ;;
    -*) echo "usage: ./train.sh [long | [quick] [NAME of an experiment...]]" >&2; exit 2 ;;
    *) experiments "$@" ;;
esac
data=$dir/data models=$dir/models exam=$dir/exam
mkdir -p "$data" "$models" "$exam"
make --no-print-directory -s -j2 build/aligner build/world
trap 'echo "stopped; the same command goes on from here" >&2; exit 130' INT

# steps FULL QUICK LONG prints how many optimiser steps a stage takes.
steps() { case $how in full) echo "$1" ;; quick) echo "$2" ;; long) echo "$3" ;; esac; }

# stage NAME OBJECTIVE OPTIONS... trains models/NAME.gguf unless it is there. An interrupted run is
# resumed, bit for bit.
stage() {
    name=$1 objective=$2; shift 2
    [ ! -f "$models/$name.gguf" ] || return 0
    echo "== $name" >&2
    part=$models/$name.part.gguf
    if [ -f "$part" ] && [ -f "$part.state" ]; then set -- "$@" --resume; fi
    build/aligner train "$objective" "$@" --out "$part" --log "$models/$name.csv" --save-every 500
    mv "$part" "$models/$name.gguf"
    rm -f "$part.state"
}

# The repository's tokenizer.bin comes from this world. It is trained again here and compared, byte
# for byte.
if [ ! -f "$dir/tokenizer.bin" ]; then
    echo "== tokenizer" >&2
    build/world corpus "$data/corpus.jsonl"
    build/aligner tokenizer --data "$data/corpus.jsonl" --vocab 3072 --prompt short \
        --out "$dir/tokenizer.part"
    cmp "$dir/tokenizer.part" tokenizer.bin || {
        echo "train.sh: tokenizer.bin is not what this world gives; after a change of the world," \
             "copy $dir/tokenizer.part over it" >&2
        exit 1
    }
    mv "$dir/tokenizer.part" "$dir/tokenizer.bin"
fi
for name in upstream identity train dev exam exam_real demo; do
    [ -f "$data/$name.jsonl" ] || rm -f "$data/made"
done
if [ ! -f "$data/made" ]; then
    echo "== the miniature world" >&2
    build/world make "$data" tokenizer.bin $rows
    build/world check "$data"
    touch "$data/made"
fi

# Two upstream models learn the world's questions with right and wrong answers, by Eq. (1). They
# never change again, and nothing they write is in the Aligner's data.
new="--tokenizer tokenizer.bin --prompt short --tied --context 256"
stage upstream-small sft $new --dim 64 --layers 2 --heads 2 --hidden 176 \
    --data "$data/upstream.jsonl" --tokens 1024 --steps "$(steps 350 60 350)" \
    --lr 1e-2 --muon 0.6 --adam-eps 1e-5
stage upstream sft $new --dim 96 --layers 3 --heads 3 --hidden 264 \
    --data "$data/upstream.jsonl" --tokens 1024 --steps "$(steps 450 60 450)" \
    --lr 1e-2 --muon 0.6 --adam-eps 1e-5

# Residual correction, p. 3: the Aligner first learns to copy, short texts before long ones, and then
# to copy or correct, by Eq. (4). docs/recipe.md gives the reason for each number.
stage warmup warmup $new --dim 96 --layers 5 --heads 3 --hidden 144 \
    --data "$data/identity.jsonl" --tokens 512 --grow-below 1.5 \
    --steps "$(steps 1000 150 1000)" --lr 2e-3 --adam-eps 1e-4
stage aligner aligner --init "$models/warmup.gguf" --data "$data/train.jsonl" --tokens 1024 \
    --steps "$(steps 4000 250 12000)" --lr 6e-3 --muon 0.5 --ema 0.98 --adam-eps 1e-4 --keep 2.5

# The examination, opened here for the first time: everything above was chosen on data/dev.jsonl.
# The speakers' answers are in its rows; the two upstream models first answer their own questions.
# Quick takes one row in 20.
some() { if [ $how = quick ]; then awk 'NR % 20 == 1' "$1"; else cat "$1"; fi; }
if [ ! -f "$exam/table.md" ]; then
    echo "== examination" >&2
    some "$data/exam.jsonl" > "$exam/exam.part"
    some "$data/exam_real.jsonl" > "$exam/real.part"
    build/aligner correct "$models/aligner.gguf" "$exam/exam.part" > "$exam/speakers.jsonl"
    for upstream in upstream-small upstream; do
        build/aligner answer "$models/$upstream.gguf" --max-tokens 60 "$exam/real.part" |
            sed "s/\"upstream\": *\"real\"/\"upstream\": \"$upstream\"/" > "$exam/answers.part"
        build/aligner correct "$models/aligner.gguf" "$exam/answers.part" > "$exam/$upstream.jsonl"
    done
    set -- "$exam/speakers.jsonl" "$exam/upstream-small.jsonl" "$exam/upstream.jsonl"
    build/world judge --json --train "$data/train.jsonl" "$@" > "$exam/table.json"
    build/world judge --train "$data/train.jsonl" "$@" > "$exam/table.part"
    rm -f "$exam/exam.part" "$exam/real.part" "$exam/answers.part"
    mv "$exam/table.part" "$exam/table.md"
fi
cat "$exam/table.md"
