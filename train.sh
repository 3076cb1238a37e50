#!/bin/sh
# train.sh - from nothing to a trained, examined Aligner on a laptop: world, tokenizer, upstream models, warm-up, Aligner, table.
#
#   ./train.sh          everything that is not there yet (a few minutes on 2 cores); Ctrl-C loses nothing, the next call goes on
#   ./train.sh quick    the same steps with far fewer of them, in build/quick: shows that it runs, not what it can do
#   ./train.sh long     three times the rows and steps, in build/long: what the recipe reaches when nobody waits
#   ./train.sh NAME     one of the paper's experiments (docs/experiments.md), to docs/results/NAME.md; `all`: every one of them;
#                       `domain F.jsonl`: fine-tunes the trained Aligner on triples of your own; `quick NAME`: shows that it runs
#
# What it makes stands in build/: data/ (the miniature world), models/ (GGUF), exam/ (answers, corrections and the table).
set -eu
cd "$(dirname "$0")"
export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-20000}"        # threads that wait soon give the processor back when others need it
how=full rows=
case "${1-}" in
    "") dir=build ;;
    quick)
        if [ $# -gt 1 ]; then exec tests/experiments.sh "$@"; fi
        dir=build/quick how=quick ;;
    long) dir=build/long how=long rows=330000 ;;
    resources | bound | twice | copyprior | steering | upstreams | warmup | correction | baselines | weak-to-strong | rounds | scale | domain | all)
        exec tests/experiments.sh "$@" ;;
    *) echo "usage: ./train.sh [long | [quick] [NAME of an experiment | all | domain F.jsonl]]" >&2; exit 2 ;;
esac
data=$dir/data models=$dir/models exam=$dir/exam
mkdir -p "$models" "$exam"
make --no-print-directory -s -j2 build/aligner build/world

# steps FULL QUICK LONG prints the number of optimiser steps of a stage.
steps() { case $how in full) echo "$1" ;; quick) echo "$2" ;; long) echo "$3" ;; esac; }

# stage NAME OBJECTIVE OPTIONS... trains models/NAME.gguf unless it is there; an interrupted run is resumed, bit for bit.
stage() {
    name=$1 objective=$2; shift 2
    [ -f "$models/$name.gguf" ] && return
    echo "== $name" >&2
    part=$models/$name.part.gguf
    if [ -f "$part" ] && [ -f "$part.state" ]; then set -- "$@" --resume; fi
    build/aligner train "$objective" "$@" --out "$part" --log "$models/$name.csv" --save-every 500
    mv "$part" "$models/$name.gguf"
    rm -f "$part.state"
}

# The tokenizer in the repository is what this world gives, bit for bit: it is trained again and compared.
mkdir -p "$data"
if [ ! -f "$dir/tokenizer.bin" ]; then
    echo "== tokenizer" >&2
    build/world corpus "$data/corpus.jsonl"
    build/aligner tokenizer --data "$data/corpus.jsonl" --vocab 3072 --prompt short --out "$dir/tokenizer.part"
    cmp "$dir/tokenizer.part" tokenizer.bin || { echo "tokenizer.bin is not what this world gives" >&2; exit 1; }
    mv "$dir/tokenizer.part" "$dir/tokenizer.bin"
fi

if [ ! -f "$data/made" ]; then
    echo "== the miniature world" >&2
    build/world make "$data" tokenizer.bin $rows
    build/world check "$data"
    touch "$data/made"
fi

# Two real upstream models learn the world's questions and answers, the wrong answers included (Eq. 1). They are never touched
# again: the Aligner is stacked on them. Nothing that they write is in the Aligner's data.
new="--tokenizer tokenizer.bin --prompt short --tied --context 256"
stage upstream-small sft $new --dim 64 --layers 2 --heads 2 --hidden 176 --data "$data/upstream.jsonl" \
    --tokens 1024 --steps "$(steps 450 60 450)" --lr 1e-2 --muon 0.6 --adam-eps 1e-5
stage upstream sft $new --dim 96 --layers 3 --heads 3 --hidden 264 --data "$data/upstream.jsonl" \
    --tokens 1024 --steps "$(steps 550 60 550)" --lr 1e-2 --muon 0.6 --adam-eps 1e-5

# Residual correction, p. 3: first the identity, from short texts to long ones, then copy or correct (Eq. 4). A large
# epsilon keeps the embeddings of rare tokens where they are, so that they can be copied (docs/deviations.md). Muon takes
# two thirds of AdamW's steps; the warm-up, whose steps are small, does without. The mean of the weights of the last fifty
# steps spoils fewer good answers than the last weights do. Five narrow layers learn more in the same time than three or
# four wider ones (docs/recipe.md).
stage warmup warmup $new --dim 96 --layers 5 --heads 3 --hidden 144 --data "$data/identity.jsonl" \
    --tokens 512 --grow-below 1.5 --steps "$(steps 1000 150 1000)" --lr 2e-3 --adam-eps 1e-4
stage aligner aligner --init "$models/warmup.gguf" --data "$data/train.jsonl" \
    --tokens 1024 --steps "$(steps 6000 350 18000)" --lr 6e-3 --muon 0.5 --ema 0.98 --adam-eps 1e-4

# The examination. Speakers bring their answers; the real models are asked first. Half of what speakers say is good, where of
# the world's answers in train.jsonl one in five was: 1.3 nats of --keep give the odds of a copy back what training with few of
# them took. The rest is caution: a plug-in must spoil nothing (docs/recipe.md).
if [ ! -f "$exam/table.md" ]; then
    echo "== examination" >&2
    correct="build/aligner correct $models/aligner.gguf --keep 2.5"
    $correct "$data/exam.jsonl" > "$exam/speakers.jsonl"
    for upstream in upstream-small upstream; do
        build/aligner answer "$models/$upstream.gguf" "$data/exam_real.jsonl" | sed "s/\"upstream\": *\"real\"/\"upstream\": \"$upstream\"/" > "$exam/answers.part"
        $correct "$exam/answers.part" > "$exam/$upstream.jsonl"
    done
    build/world judge --train "$data/train.jsonl" "$exam/speakers.jsonl" "$exam/upstream-small.jsonl" "$exam/upstream.jsonl" > "$exam/table.part"
    rm -f "$exam/answers.part"
    mv "$exam/table.part" "$exam/table.md"
fi
cat "$exam/table.md"
