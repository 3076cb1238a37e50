#!/bin/sh
# run.sh - the copy-or-correct demo. It builds what is missing, and trains a tiny Aligner first if
# there is none (about five minutes).
#
#   ./run.sh                        on a terminal a conversation, otherwise a dozen demonstrations
#   ./run.sh "question" "answer"    corrects that one pair
#
# In conversation an empty answer asks the weaker upstream model, so Eq. (2) is seen at work.
set -eu
cd "$(dirname "$(readlink -f "$0")")"
export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-20000}"    # threads that wait give the processor back
case $# in
    0 | 2) ;;
    *) echo 'usage: ./run.sh ["question" "answer"]' >&2; exit 2 ;;
esac
make --no-print-directory -s -j2 build/aligner build/world
for needed in models/aligner.gguf models/upstream-small.gguf data/demo.jsonl exam/table.md; do
    [ -f "build/$needed" ] || { rm -f build/data/made; ./train.sh >&2; break; }
done
mu=build/models/aligner.gguf weak=build/models/upstream-small.gguf
knows="A classroom toy: this Aligner knows some 400 facts, a few requests, notices and small talk; it leaves alone whatever else you ask."
if [ $# = 2 ]; then
    exec build/aligner correct $mu --question "$1" --answer "$2" --upstream $weak --diff --quiet
fi
echo "$knows"
if [ -t 0 ] && [ -t 1 ]; then
    exec build/aligner correct $mu --upstream $weak
fi
echo
exec build/aligner correct $mu build/data/demo.jsonl --diff --quiet
