#!/usr/bin/env bash
# scaling.sh - how the cost of a training step grows: its time (`aligner bench train`) and memory (`aligner info --train`)
# against context, width and rows a batch. The slope is that of log(cost) over log(size), from the row above: 1 is
# proportional, 2 quadratic. `make scaling` runs it, about two minutes; docs/speed.md quotes it.
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1
aligner=${B:-build}/aligner
base=(--dim 128 --layers 4 --heads 4 --hidden 352 --vocab 1024 --context 128 --batch 16)
row() {                                 # row SIZE OPTIONS...: the later of two equal options counts
    local size=$1 ms mb
    shift
    ms=$("$aligner" bench train "${base[@]}" "$@" | awk '$1 == "train" { print $4 }') || exit 1
    mb=$("$aligner" info --train "${base[@]}" --micro-tokens 1000000 "$@" | awk '/in all/ { print $1 }') || exit 1
    awk -v n="$size" -v ms="$ms" -v mb="$mb" -v last="$last" 'BEGIN {
        split(last, l, " ")
        d = l[1] ? log(n / l[1]) : 0
        printf "| %d | %.1f | %s | %.1f | %s |\n", n, ms, d ? sprintf("%.2f", log(ms / l[2]) / d) : "",
            mb, d ? sprintf("%.2f", log(mb / l[3]) / d) : "" }'
    last="$size $ms $mb"
}
head() { last=''; printf '\n| %s | ms a step | slope | MB | slope |\n|---:|---:|---:|---:|---:|\n' "$1"; }
head 'context (one row a batch)'
for n in 128 256 512 1024 2048; do row $n --context $n --batch 1; done
head 'context (2048 tokens a batch)'
for n in 128 256 512 1024 2048; do row $n --context $n --batch $((2048 / n)); done
head 'width'
for n in 64 128 256 512; do row $n --dim $n --hidden $((n * 11 / 4)); done
head 'rows a batch'
for n in 1 2 4 8 16 32; do row $n --batch $n; done
