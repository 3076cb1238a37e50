#!/bin/sh
# run.sh - the copy-or-correct demo. Builds what is missing and, the first time, trains a tiny
# Aligner (about five minutes).
#
#   ./run.sh                        shows a dozen corrections; on a terminal, a conversation follows
#   ./run.sh "question" "answer"    corrects that one pair
#
# An empty answer asks the smaller upstream model first, which shows Eq. (2) at work.
set -eu
cd "$(dirname "$(readlink -f "$0")")"
export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-20000}"    # waiting threads soon yield the processor
case $# in
    0 | 2) ;;
    *) echo 'usage: ./run.sh ["question" "answer"]' >&2; exit 2 ;;
esac
make --no-print-directory -s -j2 build/aligner build/world
needed="models/aligner.gguf models/upstream-small.gguf"
[ $# = 2 ] || needed="$needed data/demo.jsonl exam/table.md"
for name in $needed; do
    [ -f "build/$name" ] || { ./train.sh >&2; break; }
done
mu=build/models/aligner.gguf weak=build/models/upstream-small.gguf
if [ $# = 2 ]; then
    exec build/aligner correct $mu --question="$1" --answer="$2" --upstream $weak --diff --quiet
fi
echo "A classroom toy: this Aligner knows some 400 facts, a few requests, notices and small talk."
echo "Whatever else you ask, it should leave alone."
echo
build/aligner correct $mu build/data/demo.jsonl --diff --quiet
if [ -t 0 ] && [ -t 1 ]; then
    exec build/aligner correct $mu --upstream $weak
fi
