#!/bin/sh
# run.sh - the copy-or-correct demo. Builds, and trains a tiny Aligner first where none is there yet.
#
#   ./run.sh                       a conversation on a terminal; otherwise a fixed set of demonstrations
#   ./run.sh "question" "answer"   corrects that one pair
#
# In conversation an empty answer asks the trained upstream model, so that the composed policy of Eq. (2) is seen at work.
set -eu
cd "$(dirname "$0")"
export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-20000}"        # threads that wait soon give the processor back when others need it
case $# in 0|2) ;; *) echo 'usage: ./run.sh ["question" "answer"]' >&2; exit 2 ;; esac
models=build/models
correct="build/aligner correct $models/aligner.gguf --keep 2.5"
make --no-print-directory -s -j2 build/aligner build/world
[ -f "$models/aligner.gguf" ] && [ -f build/exam/table.md ] || ./train.sh >&2
if [ $# = 2 ]; then
    exec $correct --question "$1" --answer "$2" --diff --quiet
elif [ -t 0 ] && [ -t 1 ]; then
    exec $correct --upstream "$models/upstream.gguf"
else
    exec $correct build/data/demo.jsonl --diff --quiet
fi
