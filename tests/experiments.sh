#!/bin/sh
# experiments.sh - the paper's claims, put to the test in miniature. `./train.sh NAME` calls it.
#
#   tests/experiments.sh NAME               numbers to docs/results/NAME.tsv; .md and .svg made from them
#   tests/experiments.sh all                every experiment, the cheap ones first
#   tests/experiments.sh domain F.jsonl     fine-tunes the trained Aligner on the triples of a domain of one's own
#   tests/experiments.sh quick ...          the same with one seed and few steps, in build/quick: shows that it runs, nothing else
#
# How to read it: 1 tools, 2 rows, 3 models, 4 the experiments (for each: the plan, one line a job, and the job), 5 the driver.
# A job is one point with one seed; jobs run side by side ($JOBS, 2 unless set), each with one thread. What a job found stands
# in build/experiments/parts; a job whose numbers are there is not run again, an interrupted training run is resumed.
# $SEEDS is "1 2 3" unless set. Nothing but sh, awk and the usual tools is needed.
set -eu
cd "$(dirname "$0")/.."
export LC_ALL=C

if [ "${1-}" = quick ]; then shift; export QUICK=1; fi
quick=${QUICK:-0}
if [ "$quick" = 1 ]; then
    top=build/quick results=build/quick/results seeds=1
else
    top=build results=docs/results seeds=${SEEDS:-1 2 3}
fi
data=$top/data models=$top/models exam=$top/exam work=$top/experiments
mini=$work/mini own=$work/models parts=$work/parts
big=$models/aligner.gguf                                # what `./train.sh` trains

# ---------------------------------------------------------------- 1. tools -----------------------------------------

say() { echo "== $*" >&2; }
die() { echo "experiments.sh: $*" >&2; exit 1; }
steps() { if [ "$quick" = 1 ]; then echo "$2"; else echo "$1"; fi; }             # steps FULL QUICK
aligner() { build/aligner "$@" --threads 1 --quiet; }

# put POINT SEED METRIC VALUE: one line of the results. What is no number is a mistake of this script.
put() {
    case $4 in '' | *[!0-9.eE+-]*) die "$3 of $1 is no number: \"$4\"" ;; esac
    printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4"
}

# flat FILE: a JSON value as lines "path, tab, value": keys joined by dots, places of arrays counted from 0.
flat() {
    awk '{
        s = $0
        for (;;) {
            sub(/^[ \t\r]+/, "", s)
            if (s == "") break
            c = substr(s, 1, 1)
            if (c == "{" || c == "[") { depth++; kind[depth] = c; key[depth] = 0; want = (c == "{"); s = substr(s, 2); continue }
            if (c == "}" || c == "]") { depth--; s = substr(s, 2); continue }
            if (c == ",") { if (kind[depth] == "[") key[depth]++; else want = 1; s = substr(s, 2); continue }
            if (c == ":") { s = substr(s, 2); continue }
            if (c == "\"") { match(s, /^"([^"\\]|\\.)*"/); t = substr(s, 2, RLENGTH - 2) }
            else { match(s, /^[^],}: \t]+/); t = substr(s, 1, RLENGTH) }
            if (RLENGTH < 1) exit 1
            s = substr(s, RLENGTH + 1)
            if (kind[depth] == "{" && want) { key[depth] = t; want = 0; continue }
            path = key[1]
            for (i = 2; i <= depth; i++) path = path "." key[i]
            print path "\t" t
        }
    }' "$1"
}

# val FILE PATH: one value of such a file.
val() { awk -F '\t' -v path="$2" '$1 == path { print $2; exit }' "$1"; }

# percent FILE PATH OF: one value of it, in % of another.
percent() {
    awk -F '\t' -v path="$2" -v of="$3" '{ v[$1] = $2 } END { printf "%.3f\n", (v[of] > 0 ? 100 * v[path] / v[of] : 0) }' "$1"
}

# judged ROWS.jsonl OUT: the judge of the world reads the rows; its report, flat, in OUT.
judged() {
    build/world judge --json "$1" > "$2.json"
    flat "$2.json" > "$2"
}

# verdict POINT SEED FLAT GROUP [answers]: lines for one group of a report. With "answers" what is judged did not see y_o,
# so that copies and corrections mean nothing.
verdict() {
    awk -F '\t' -v OFS='\t' -v point="$1" -v seed="$2" -v g="$4" -v answers="${5-}" '
        function put(metric, path) { print point, seed, metric, v[g "." path] }
        { v[$1] = $2 }
        END {
            put("before", "all.before"); put("after", "all.after"); put("net win", "all.net_win")
            put("helpful", "helpful.net_win"); put("harmless", "harmless.net_win"); put("honest", "honest.net_win")
            if (answers != "") exit
            if (v[g ".good.rows"] > 0) put("exact copy", "good.exact_copy")
            if (!(v[g ".bad.rows"] > 0)) exit
            put("corrected", "bad.corrected"); put("missed", "bad.missed"); put("wrong", "bad.wrong")
        }' "$3"
}

# ---------------------------------------------------------------- 2. rows ------------------------------------------

# Rows are JSON objects, one a line, as the programs here write them: "key": "value" with one blank.
ROWS='
function member(s, key) { return match(s, "\"" key "\": \"([^\"\\\\]|\\\\.)*\"") ? substr(s, RSTART, RLENGTH) : "" }
function value(s, key) { return substr(member(s, key), length(key) + 5) }           # with its quotation marks
function drop(s, key,   a, b) {
    if (member(s, key) == "") return s
    a = substr(s, 1, RSTART - 1); b = substr(s, RSTART + RLENGTH)
    if (substr(b, 1, 2) == ", ") b = substr(b, 3); else sub(/, $/, "", a)
    return a b
}
function add(s, key, v) { sub(/[}][ \t\r]*$/, "", s); return s ", \"" key "\": " v "}" }
function number(s, key,   k) {
    k = length(key) + 4
    return match(s, "\"" key "\": [-0-9.e+]+") ? substr(s, RSTART + k, RLENGTH - k) + 0 : 0
}
function subject(s,   a) { split(value(s, "meaning"), a, "/"); return a[2] }
'

# every N R FILE: each N-th row, beginning with row R (from 0 on).
every() { awk -v n="$1" -v r="$2" 'NR % n == r % n' "$3"; }

# questions FILE: what is asked, nothing of what was said.
questions() { awk "$ROWS"'{ print drop(drop(drop($0, "answer"), "correction"), "category") }' "$1"; }

# paired BEFORE AFTER KEY: the rows of BEFORE, with the text under KEY in AFTER as their correction: AFTER is judged against
# BEFORE, Eq. (5).
paired() {
    awk "$ROWS"'FNR == NR { after[FNR] = value($0, key); next }
        { print add(drop(drop($0, "correction"), "action"), "correction", after[FNR]) }' key="$3" "$2" "$1"
}

# again FILE: the corrections become answers, to be corrected again.
again() {
    awk "$ROWS"'{ v = value($0, "correction"); print add(drop(drop(drop($0, "answer"), "correction"), "action"), "answer", v) }' "$1"
}

# said TEXT FILE: every answer becomes this one.
said() { awk -v text="$1" "$ROWS"'{ print add(drop($0, "answer"), "answer", "\"" text "\"") }' "$2"; }

# changed FILE: the share of rows in % whose correction is not their answer.
changed() {
    awk "$ROWS"'{ n += value($0, "answer") != value($0, "correction") } END { printf "%.3f\n", NR ? 100 * n / NR : 0 }' "$1"
}

# copied FILE: the share of rows in % that came back as they were; rows that came back because there was no room, or no end
# (they carry a reason), are no copies and are left out.
copied() {
    awk "$ROWS"'member($0, "reason") == "" { n++; same += value($0, "answer") == value($0, "correction") }
        END { printf "%.3f\n", n ? 100 * same / n : 0 }' "$1"
}

# loss MODEL ROWS: nats a token of the gold corrections, under whatever the model sees.
loss() {
    aligner loglik "$1" "$2" --target correction |
        awk "$ROWS"'{ nll -= number($0, "loglik"); n += number($0, "tokens") } END { printf "%.5f\n", n ? nll / n : 0 }'
}

# The world of train.sh, and of it a small part that a small model learns in a minute: capitals, continents, classes of animals,
# and what nobody knows. Its tokenizer has 1,024 pieces.
prepare_data() {
    [ -f "$data/made" ] && return
    say "the miniature world"
    mkdir -p "$data"
    build/world make "$data" tokenizer.bin
    touch "$data/made"
}

prepare_mini() {
    [ -f "$mini/made" ] && return
    prepare_data
    say "a part of it"
    mkdir -p "$mini" "$own"
    part='"meaning": "(capital|continent|capital[+]continent|class|unknown)/'
    grep -E "$part" "$data/train.jsonl" > "$mini/train.jsonl"
    grep -E "$part" "$data/exam.jsonl" > "$mini/exam.all"
    every "$(steps 1 20)" 0 "$mini/exam.all" > "$mini/exam.jsonl"
    grep '"split": "foreign"' "$data/exam.jsonl" > "$mini/foreign.all"
    every "$(steps 6 60)" 0 "$mini/foreign.all" > "$mini/foreign.jsonl"
    awk "$ROWS"'FNR == NR { asked[value($0, "question")] = 1; next } value($0, "question") in asked' \
        "$mini/train.jsonl" "$data/upstream.jsonl" > "$mini/upstream.jsonl"
    questions "$mini/exam.jsonl" > "$mini/questions.jsonl"
    said "Hm." "$mini/train.jsonl" > "$mini/blind.jsonl"
    said "Hm." "$mini/exam.jsonl" > "$mini/blind-exam.jsonl"

    # Short answers, so that most of what an upstream model may say can be listed.
    short='split(value($0, "answer"), w, " ") <= 3 && split(value($0, "correction"), w, " ") <= 3'
    awk "$ROWS$short" "$mini/train.jsonl" > "$mini/short.jsonl"
    awk "$ROWS$short" "$mini/exam.all" | awk -v n="$(steps 30 4)" 'NR <= n' > "$mini/short-exam.jsonl"

    # Common facts are those about the third of subjects that training has most rows of, rare ones about the last third.
    awk "$ROWS"'/"kind": "facts"/ { n[subject($0)]++ } END { for (k in n) printf "%d\t%s\n", n[k], k }' "$mini/train.jsonl" |
        sort -k1,1nr -k2 > "$mini/subjects"
    awk -F '\t' 'FNR == NR { n++; next } FNR <= n / 3 { print $2 }' "$mini/subjects" "$mini/subjects" > "$mini/common"
    awk -F '\t' 'FNR == NR { n++; next } FNR > n - n / 3 { print $2 }' "$mini/subjects" "$mini/subjects" > "$mini/rare"

    aligner tokenizer --data "$mini/train.jsonl" --vocab 1024 --prompt short --out "$mini/tokenizer.bin" 2> /dev/null
    touch "$mini/made"
}

prepare_big() {
    prepare_data
    if [ -f "$big" ] && [ -f "$exam/table.md" ]; then return; fi
    if [ "$quick" = 1 ]; then ./train.sh quick > /dev/null; else ./train.sh > /dev/null; fi
}

# rows_for MODEL SEED MOST: rows of the examination for "big" or "mini": about MOST, another part for each seed, none foreign.
rows_for() {
    case $1 in
        big) grep -v '"split": "foreign"' "$data/exam.jsonl" > "$tmp/rows.all" ;;
        mini) cp "$mini/exam.jsonl" "$tmp/rows.all" ;;
    esac
    n=$(wc -l < "$tmp/rows.all")
    n=$(( n / $(steps "$3" 30) )); [ "$n" -ge 1 ] || n=1
    every "$n" "$2" "$tmp/rows.all"
}

# ---------------------------------------------------------------- 3. models ----------------------------------------

new="--tokenizer $mini/tokenizer.bin --prompt short --tied --context 256 --layers 2"
run="--tokens 512 --adam-eps 1e-4"
fast="$run --lr 4e-3"
pairs="--batch 16 --adam-eps 1e-4"
tiny="--dim 64 --heads 4"

# train_to MODEL OBJECTIVE OPTIONS...: trains it unless it is there; an interrupted run is resumed.
train_to() {
    to=$1; shift
    [ -f "$to" ] && return
    half=${to%.gguf}.part.gguf
    if [ -f "$half" ] && [ -f "$half.state" ]; then set -- "$@" --resume; fi
    aligner train "$@" --out "$half" --save-every 500
    mv "$half" "$to"
    rm -f "$half.state"
}

# residual MODEL SEED ROWS WARM STEPS SHAPE...: an Aligner from nothing: WARM steps of the identity, then STEPS of Eq. (4). Short
# rows come first in whichever stage is the first one.
residual() {
    goal=$1 at_seed=$2 from=$3 warm=$4 rest=$5; shift 5
    [ -f "$goal" ] && return
    if [ "$warm" = 0 ]; then
        train_to "$goal" aligner $new "$@" --data "$from" $fast --steps "$rest" --seed "$at_seed" --grow-below 1.5
        return
    fi
    warmed=${goal%.gguf}-warm.gguf
    train_to "$warmed" warmup $new "$@" --data "$from" $fast --steps "$warm" --seed "$at_seed" --grow-below 1.5
    train_to "$goal" aligner --init "$warmed" --data "$from" $fast --steps "$rest" --seed "$at_seed"
}

# Models that several experiments share, each with its seed.
make_upstream() {
    train_to "$own/upstream-$1.gguf" sft $new $tiny --data "$mini/upstream.jsonl" $fast --steps "$(steps 400 30)" --seed "$1"
}
make_strong() { student strong "$1" "$(steps 400 20)"; }
make_young() { student young "$1" "$(steps 150 10)"; }  # the same, stopped early: it has more to learn
student() {
    train_to "$own/$1-$2.gguf" sft $new --dim 128 --heads 8 --data "$mini/upstream.jsonl" $run --lr 3e-3 --steps "$3" --seed "$2"
}
make_aligner() { residual "$own/aligner-$1.gguf" "$1" "$mini/train.jsonl" "$(steps 500 20)" "$(steps 1500 30)" $tiny; }
make_reward() {
    train_to "$own/reward-$1.gguf" reward --init "$own/upstream-$1.gguf" --data "$mini/train.jsonl" --batch 16 --adam-eps 1e-4 \
        --lr 1e-3 --steps "$(steps 400 10)" --seed "$1"
}

# answers MODEL FILE: what a model says to the questions of the small examination.
answers() { aligner answer "$1" "$mini/questions.jsonl" > "$2"; }

# differing FILE: labels for DPO and a reward model; few steps give models of which nothing can be preferred to anything.
differing() {
    n=$(awk "$ROWS"'{ n += value($0, "answer") != value($0, "correction") } END { print n + 0 }' "$1")
    [ "$n" -ge 8 ] && return
    [ "$quick" = 1 ] || die "$1: only $n corrections differ from their answers"
    awk 'NR <= 60' "$mini/train.jsonl" > "$1"
}

each() { for s in $seeds; do echo "$1 $s"; done; }      # each "JOB ARGUMENTS": a line a seed

# ---------------------------------------------------------------- 4. the experiments -------------------------------

# resources. The ledger of bytes a parameter that gives the paper's factors, beside what our trainers take. A model large enough
# that its state, and not the batch, is what fills the memory.
prepare_resources() {
    prepare_mini
    train_to "$own/ballast.gguf" sft $new --dim 256 --heads 4 --layers 4 --data "$mini/short.jsonl" --batch 2 --steps 1
    train_to "$own/ballast-reward.gguf" reward --init "$own/ballast.gguf" --data "$mini/short.jsonl" --batch 2 --steps 1
}
plan_resources() { for o in sft aligner dpo reward rlhf; do each "$o"; done; }
job_resources() {
    ballast=$own/ballast.gguf n=$(steps 60 4)
    set -- "$1" "$2" --data "$mini/short.jsonl" --batch 2 --steps "$n" --seed "$2" --out "$tmp/out.gguf" \
        --log "$tmp/log.csv" --threads 1
    case $1 in
        sft)     set -- "$@" --init "$ballast";             mixed=16 here=16 flops=6 ;;
        aligner) set -- "$@" --init "$ballast";             mixed=16 here=16 flops=6 ;;
        dpo)     set -- "$@" --init "$ballast";             mixed=18 here=20 flops=8 ;;
        reward)  set -- "$@" --init "$ballast";             mixed=16 here=16 flops=6 ;;
        rlhf)    set -- "$@" --init "$ballast" --reward "$own/ballast-reward.gguf" --samples 2 --max-tokens 8
                 mixed=36 here=28 flops=12 ;;
    esac
    objective=$1 seed=$2; shift 2
    build/aligner train "$objective" "$@" 2> "$tmp/err" &
    pid=$! peak=0
    while hwm=$(awk '/^VmHWM/ { print $2 }' "/proc/$pid/status" 2> /dev/null) && [ -n "$hwm" ]; do
        peak=$hwm                                       # the peak of resident memory so far, as Linux keeps it
        sleep 0.02 2> /dev/null || sleep 1
    done
    wait "$pid"
    parameters=$(aligner info "$ballast" | awk '/ parameters in / { print $1 }')
    put "$objective" "$seed" "bytes, mixed precision" "$mixed"
    put "$objective" "$seed" "ratio" "$(awk "BEGIN { print $mixed / 16 }")"
    put "$objective" "$seed" "ratio, 70B to 7B" "$(awk "BEGIN { print $mixed / 16 * 70 / 7 }")"
    put "$objective" "$seed" "bytes, here" "$here"
    [ "$peak" = 0 ] || put "$objective" "$seed" "bytes, measured" "$(awk "BEGIN { print $peak * 1024 / $parameters }")"
    put "$objective" "$seed" "FLOP" "$flops"
    put "$objective" "$seed" "tokens a step" "$(awk -F , -v n="$n" 'END { print $5 / n }' "$tmp/log.csv")"
    put "$objective" "$seed" "us a token" \
        "$(awk '{ for (i = 2; i <= NF; i++) if ($i == "tokens/s") t = $(i - 1) } END { print 1e6 / t }' "$tmp/err")"
}

# bound. Both sides of Eq. (3) while the Aligner learns; answers of at most three words, so that most of what the upstream may say
# is listed.
prepare_bound() { prepare_mini; }
plan_first_bound() { each short; }
make_short() {
    s=$1
    set -- $new $tiny --data "$mini/short.jsonl" $fast --seed "$s"
    train_to "$own/short-$s.gguf" sft "$@" --steps "$(steps 400 20)"
    train_to "$own/short-warm-$s.gguf" warmup "$@" --steps "$(steps 150 10)" --grow-below 1.5
}
plan_bound() { for n in 0 25 100 400 1000; do each "$n"; done; }
job_bound() {
    mu=$tmp/mu.gguf
    if [ "$1" = 0 ]; then mu=$own/short-warm-$2.gguf; else
        train_to "$mu" aligner --init "$own/short-warm-$2.gguf" --data "$mini/short.jsonl" $run --lr 2e-3 \
            --steps "$(steps "$1" 5)" --seed "$2"
    fi
    aligner bound "$own/short-$2.gguf" "$mu" --data "$mini/short-exam.jsonl" --json > "$tmp/json"
    flat "$tmp/json" > "$tmp/flat"
    for m in left right slack mass; do put "$1" "$2" "$m" "$(val "$tmp/flat" $m)"; done
    put "$1" "$2" violations "$(awk -F '\t' '$1 ~ /^rows[.].*[.]slack$/ && $2 < -1e-6 { n++ } END { print n + 0 }' "$tmp/flat")"
}

# twice. Aligner(Aligner(y)): what is good should stay as it is.
prepare_twice() { prepare_big; prepare_mini; }
plan_first_twice() { each aligner; }
plan_twice() { each big; each mini; }
job_twice() {
    case $1 in big) mu=$big ;; mini) mu=$own/aligner-$2.gguf ;; esac
    rows_for "$1" "$2" 900 > "$tmp/rows.jsonl"
    for pass in 1 2 3 4; do
        aligner correct "$mu" "$tmp/rows.jsonl" > "$tmp/out.jsonl"
        judged "$tmp/out.jsonl" "$tmp/flat"
        put "$1/$pass" "$2" changed "$(changed "$tmp/out.jsonl")"
        put "$1/$pass" "$2" after "$(val "$tmp/flat" all.all.after)"
        put "$1/$pass" "$2" D_L "$(val "$tmp/flat" all.degree)"
        again "$tmp/out.jsonl" > "$tmp/rows.jsonl"
    done
}

# copyprior. The same Aligner before 20, 45 and 70 % good answers; and small Aligners trained on 20, 45 and 70 %.
prepare_copyprior() { prepare_big; prepare_mini; }
plan_first_copyprior() { for p in 20 45 70; do each "prior $p"; done; }
make_prior() {                                          # make_prior SHARE SEED
    [ -f "$own/prior-$1-$2.gguf" ] && return
    mixture "$1" "$2" "$(steps 2800 400)" "$mini/train.jsonl" > "$own/prior-$1-$2.jsonl"
    residual "$own/prior-$1-$2.gguf" "$2" "$own/prior-$1-$2.jsonl" "$(steps 500 20)" "$(steps 1500 30)" $tiny
}
# mixture SHARE SEED ROWS FILE: a draw of ROWS rows, SHARE % of them with a good answer, in the order of the file.
mixture() {
    awk -v seed="$2" '{ printf "%d\t%d\t%s\n", (NR * 7919 + seed * 104729) % 10007, NR, $0 }' "$4" | sort -k1,1n -k2,2n |
        awk -F '\t' -v good=$(( $3 * $1 / 100 )) -v bad=$(( $3 - $3 * $1 / 100 )) '
            { if (/"category": "copy"/) keep = good-- > 0; else keep = bad-- > 0 } keep' | sort -k2,2n | cut -f 3-
}
plan_copyprior() { for share in 20 45 70; do for m in big mini20 mini45 mini70; do each "$m $share"; done; done; }
job_copyprior() {
    case $1 in
        big) mu=$big; grep -v '"split": "foreign"' "$data/exam.jsonl" > "$tmp/all.jsonl" ;;
        *) mu=$own/prior-${1#mini}-$3.gguf; cp "$mini/exam.all" "$tmp/all.jsonl" ;;
    esac
    mixture "$2" "$3" "$(steps 400 20)" "$tmp/all.jsonl" > "$tmp/rows.jsonl"
    aligner correct "$mu" "$tmp/rows.jsonl" > "$tmp/out.jsonl"
    judged "$tmp/out.jsonl" "$tmp/flat"
    put "$1/$2" "$3" copied "$(copied "$tmp/out.jsonl")"
    put "$1/$2" "$3" "exact copy" "$(val "$tmp/flat" all.good.exact_copy)"
    put "$1/$2" "$3" corrected "$(val "$tmp/flat" all.bad.corrected)"
    put "$1/$2" "$3" missed "$(val "$tmp/flat" all.bad.missed)"
    put "$1/$2" "$3" "net win" "$(val "$tmp/flat" all.all.net_win)"
}

# steering. Copy or correct as a direction of the residual stream.
prepare_steering() { prepare_big; prepare_mini; }
plan_first_steering() { each aligner; }
plan_steering() { each big; each mini; }
job_steering() {
    case $1 in
        big) mu=$big; grep -v '"kind": "foreign"' "$data/train.jsonl" > "$tmp/all.jsonl" ;;
        mini) mu=$own/aligner-$2.gguf; cp "$mini/train.jsonl" "$tmp/all.jsonl" ;;
    esac
    n=$(( $(wc -l < "$tmp/all.jsonl") / $(steps 300 20) ))
    every "$n" "$2" "$tmp/all.jsonl" > "$tmp/data.jsonl"
    rows_for "$1" "$2" 300 > "$tmp/valid.jsonl"
    aligner steer "$mu" --data "$tmp/data.jsonl" --valid "$tmp/valid.jsonl" --json \
        --alpha "$(steps -3,-2,-1,-0.5,0,0.5,1,2,3 -1,0,1)" > "$tmp/json"
    flat "$tmp/json" > "$tmp/flat"
    awk -F '\t' -v OFS='\t' -v model="$1" -v seed="$2" '
        { v[$1] = $2 }
        END {
            for (i = 0; ("points." i ".alpha") in v; i++)
                print model "/" v["points." i ".alpha"], seed, "D_L", v["points." i ".degree"]
            print model, seed, "slope", v["slope"]; print model, seed, "R^2", v["R2"]
            for (l = 0; ("layers." l ".layer") in v; l++) {
                sum = 0
                for (k = 0; k < 8; k++) {
                    gap = (v["layers." l ".correct." k] - v["layers." l ".copy." k]) / v["layers." l ".length"]; sum += gap
                    if (k == 0) print model ", layer " l + 1, seed, "gap, first token", gap
                }
                print model ", layer " l + 1, seed, "gap, mean of 8", sum / 8
            }
        }' "$tmp/flat"
}

# upstreams. One Aligner behind every speaker and every real model, those never trained on among them; one real model has a
# tokenizer of its own: text crosses between the models, no ids.
prepare_upstreams() {
    prepare_big
    mkdir -p "$own"
    [ -f "$work/other-tokenizer.jsonl" ] && return
    say "an upstream model with another tokenizer"
    aligner tokenizer --data "$data/upstream.jsonl" --vocab 1500 --prompt short --out "$own/other.bin" 2> /dev/null
    train_to "$own/other.gguf" sft --tokenizer "$own/other.bin" --prompt short --tied --context 256 --dim 96 --layers 2 --heads 3 \
        --data "$data/upstream.jsonl" --tokens 1024 --lr 3e-3 --adam-eps 1e-4 --steps "$(steps 700 20)"
    aligner answer "$own/other.gguf" "$data/exam_real.jsonl" |
        sed 's/"upstream": "real"/"upstream": "other-tokenizer"/' > "$work/other.answers"
    aligner correct "$big" --keep 2.5 "$work/other.answers" > "$work/other.part"
    mv "$work/other.part" "$work/other-tokenizer.jsonl"
}
plan_upstreams() { for s in ${SEEDS:-1 2 3}; do echo "$s"; done; }
job_upstreams() {
    n=$(set -- ${SEEDS:-1 2 3}; echo $#)
    for f in "$exam/speakers.jsonl" "$exam/upstream-small.jsonl" "$exam/upstream.jsonl" "$work/other-tokenizer.jsonl"; do
        every "$n" "$1" "$f"
    done > "$tmp/rows.jsonl"
    judged "$tmp/rows.jsonl" "$tmp/flat"
    for u in $(sed -n 's/^upstream[.]\([^.]*\)[.]rows.*/\1/p' "$tmp/flat"); do
        case $u in breezy | stern | upstream* | other*) verdict "$u*" "$1" "$tmp/flat" "upstream.$u" ;;
                   *) verdict "$u" "$1" "$tmp/flat" "upstream.$u" ;; esac
    done
    for k in $(sed -n 's/^kind[.]\([^.]*\)[.]rows.*/\1/p' "$tmp/flat"); do verdict "kind: $k" "$1" "$tmp/flat" "kind.$k"; done
    verdict "everything" "$1" "$tmp/flat" all
}

# warmup. The share of the identity in the same number of tokens.
prepare_warmup() { prepare_mini; }
plan_warmup() { for share in 0 2 10 20 50; do each "$share"; done; }
job_warmup() {
    n=$(steps 2000 40) mu=$tmp/mu.gguf
    residual "$mu" "$2" "$mini/train.jsonl" $(( n * $1 / 100 )) $(( n - n * $1 / 100 )) $tiny
    aligner correct "$tmp/mu.gguf" "$mini/exam.jsonl" > "$tmp/out.jsonl"
    judged "$tmp/out.jsonl" "$tmp/flat"
    verdict "$1" "$2" "$tmp/flat" all
    aligner correct "$tmp/mu.gguf" "$mini/foreign.jsonl" > "$tmp/out.jsonl"
    put "$1" "$2" "foreign copied" "$(copied "$tmp/out.jsonl")"
    put "$1" "$2" loss "$(loss "$tmp/mu.gguf" "$mini/exam.jsonl")"
}

# correction. The same shape, rows and tokens: (x, y_o) -> y_c against x -> y_c; and an Aligner whose upstream says nothing.
prepare_correction() { prepare_mini; }
plan_correction() { for n in 125 250 500 1000 2000; do for k in aligner sft blind; do each "$k $n"; done; done; }
job_correction() {
    m=$tmp/m.gguf n=$(steps "$2" 10) rows=$mini/exam.jsonl
    case $1 in
        aligner) residual "$m" "$3" "$mini/train.jsonl" $(( n / 4 )) $(( n - n / 4 )) $tiny ;;
        blind)   residual "$m" "$3" "$mini/blind.jsonl" 0 "$n" $tiny; rows=$mini/blind-exam.jsonl ;;
        sft)     train_to "$m" sft --target correction $new $tiny --data "$mini/train.jsonl" $fast --steps "$n" --seed "$3" \
                     --grow-below 1.5 ;;
    esac
    m=$tmp/m.gguf
    if [ "$1" = sft ]; then
        answers "$m" "$tmp/raw.jsonl"
        paired "$mini/exam.jsonl" "$tmp/raw.jsonl" answer > "$tmp/out.jsonl"
    else
        aligner correct "$m" "$rows" > "$tmp/raw.jsonl"
        paired "$mini/exam.jsonl" "$tmp/raw.jsonl" correction > "$tmp/out.jsonl"
    fi
    generation "$1/$2" "$3" "$tmp/out.jsonl"
    put "$1/$2" "$3" loss "$(loss "$m" "$rows")"
    if [ "$1 $2" = "aligner 2000" ]; then               # trained as usual, and then the upstream says nothing
        aligner correct "$m" "$mini/blind-exam.jsonl" > "$tmp/raw.jsonl"
        paired "$mini/exam.jsonl" "$tmp/raw.jsonl" correction > "$tmp/out.jsonl"
        generation "aligner, told nothing/$2" "$3" "$tmp/out.jsonl"
    fi
}
generation() {                                          # generation POINT SEED ROWS
    judged "$3" "$tmp/flat"
    put "$1" "$2" good "$(val "$tmp/flat" all.all.after)"
    for k in facts unknowable; do put "$1" "$2" "$k" "$(val "$tmp/flat" kind.$k.all.after)"; done
    for k in common rare; do
        awk "$ROWS"'FNR == NR { listed[$0] = 1; next } /"kind": "facts"/ && subject($0) in listed' "$mini/$k" "$3" > "$tmp/$k.jsonl"
        [ -s "$tmp/$k.jsonl" ] || continue
        judged "$tmp/$k.jsonl" "$tmp/flat.$k"
        put "$1" "$2" "$k" "$(val "$tmp/flat.$k" all.all.after)"
    done
}

# scale. Three widths, three amounts of data, the same number of steps.
prepare_scale() { prepare_mini; }
plan_scale() { for w in 32 64 128; do for rows in 1000 3000 8000; do each "$w $rows"; done; done; }
job_scale() {
    awk -v n="$2" 'NR <= n' "$mini/train.jsonl" > "$tmp/train.jsonl"
    residual "$tmp/mu.gguf" "$3" "$tmp/train.jsonl" "$(steps 500 10)" "$(steps 1500 15)" --dim "$1" --heads $(( $1 / 16 ))
    aligner correct "$tmp/mu.gguf" "$mini/exam.jsonl" > "$tmp/out.jsonl"
    judged "$tmp/out.jsonl" "$tmp/flat"
    verdict "$1/$2" "$3" "$tmp/flat" all
    put "$1/$2" "$3" parameters "$(aligner info "$tmp/mu.gguf" | awk '/ parameters in / { print $1 }')"
}

# baselines. The same upstream, improved itself or left frozen with the Aligner behind it. Learning rates: matched (the Aligner's
# for all), published (SFT and DPO a twentieth of the Aligner's, the policy of RLHF half of it), tuned (the best of a few).
prepare_baselines() { prepare_mini; }
plan_first_baselines() { each upstream; each aligner; }
plan_second_baselines() { each reward; }
plan_baselines() {
    for m in sft dpo rlhf; do for l in matched published tuned; do each "$m $l"; done; done
    each "aligner matched"
}
job_baselines() {
    base=$own/upstream-$3.gguf m=$tmp/m.gguf
    case "$1 $2" in
        *" matched") lr=4e-3 ;; "rlhf published") lr=2e-3 ;; *" published") lr=2e-4 ;;
        "sft tuned") lr=1e-3 ;; *) lr=1e-4 ;;
    esac
    answers "$base" "$tmp/before.jsonl"
    aligner correct "$own/aligner-$3.gguf" "$tmp/before.jsonl" > "$tmp/stacked.jsonl"
    improve "$1" "$m" "$base" "$mini/train.jsonl" "$lr" "$(steps 2000 10)" "$(steps 500 4)" "$(steps 150 2)" "$3"
    if [ "$1" = aligner ]; then cp "$tmp/stacked.jsonl" "$tmp/out.jsonl"
    else answers "$m" "$tmp/after.jsonl"; paired "$tmp/before.jsonl" "$tmp/after.jsonl" answer > "$tmp/out.jsonl"; fi
    judged "$tmp/out.jsonl" "$tmp/flat"
    verdict "$1, $2" "$3" "$tmp/flat" all answers
    [ "$1" = aligner ] && return
    paired "$tmp/after.jsonl" "$tmp/stacked.jsonl" correction > "$tmp/out.jsonl"
    judged "$tmp/out.jsonl" "$tmp/flat"
    put "$1, $2" "$3" "Aligner over it, helpful" "$(val "$tmp/flat" all.helpful.net_win)"
    put "$1, $2" "$3" "Aligner over it, harmless" "$(val "$tmp/flat" all.harmless.net_win)"
    put "$1, $2" "$3" "Aligner over it" "$(val "$tmp/flat" all.all.net_win)"
}
# improve METHOD MODEL FROM ROWS LR STEPS... SEED: changes an upstream model itself; steps of sft, dpo and rlhf. The reward model of
# rlhf is reward-SEED unless $reward names one.
improve() {
    set -- "$1" "$2" "$5" "$6" "$7" "$8" "$9" --init "$3" --data "$4"
    how=$1 into=$2 rate=$3 n_sft=$4 n_dpo=$5 n_rlhf=$6 seed=$7; shift 7
    case $how in
        sft) train_to "$into" sft --target correction "$@" $run --lr "$rate" --steps "$n_sft" --seed "$seed" ;;
        dpo) train_to "$into" dpo "$@" $pairs --lr "$rate" --steps "$n_dpo" --seed "$seed" ;;
        rlhf) train_to "$into" rlhf "$@" --reward "${reward:-$own/reward-$seed.gguf}" --batch 8 --samples 4 --max-tokens 40 --kl 0.1 \
                  --adam-eps 1e-4 --lr "$rate" --steps "$n_rlhf" --seed "$seed" ;;
    esac
}

# weak-to-strong. A small supervisor of a larger student: labels a' = Aligner(q, a), a being the weak upstream's answers (the
# footnote) or the student's own (Fig. 8). The student is judged alone, against what it said before. Two students: one that is
# already better than what the Aligner would make of its answers, and a "young" one, stopped early, that is not.
prepare_weak_to_strong() { prepare_mini; }
plan_first_weak_to_strong() { each upstream; each strong; each young; each aligner; }
plan_weak_to_strong() { for k in strong young; do each "weak $k"; each "own $k"; done; }
job_weak_to_strong() {
    reading=$1 student=$own/$2-$3.gguf mu=$own/aligner-$3.gguf s=$3 prefix=
    [ "$2" = strong ] || prefix="$2: "
    case $1 in weak) speaker=$own/upstream-$3.gguf ;; own) speaker=$student ;; esac
    every "$(steps 4 200)" "$s" "$mini/train.jsonl" > "$tmp/some.jsonl"
    questions "$tmp/some.jsonl" > "$tmp/q.jsonl"
    aligner answer "$speaker" "$tmp/q.jsonl" --temperature 0.7 --seed "$s" > "$tmp/a.jsonl"
    aligner correct "$mu" "$tmp/a.jsonl" > "$tmp/labels.jsonl"
    differing "$tmp/labels.jsonl"
    answers "$student" "$tmp/before.jsonl"
    if [ "$reading" = own ]; then
        aligner correct "$mu" "$tmp/before.jsonl" > "$tmp/out.jsonl"
        judged "$tmp/out.jsonl" "$tmp/flat"
        verdict "${prefix}Aligner behind the student" "$s" "$tmp/flat" all answers
    fi
    reward=$tmp/reward.gguf
    train_to "$reward" reward --init "$student" --data "$tmp/labels.jsonl" $pairs --lr 1e-3 --steps "$(steps 300 4)" --seed "$s"
    for method in sft dpo rlhf; do
        case $method in sft) lr=1e-3 ;; *) lr=1e-4 ;; esac
        improve $method "$tmp/$method.gguf" "$student" "$tmp/labels.jsonl" $lr \
            "$(steps 300 4)" "$(steps 200 4)" "$(steps 100 2)" "$s"
        answers "$tmp/$method.gguf" "$tmp/after.jsonl"
        paired "$tmp/before.jsonl" "$tmp/after.jsonl" answer > "$tmp/out.jsonl"
        judged "$tmp/out.jsonl" "$tmp/flat"
        verdict "$prefix$method, $reading answers" "$s" "$tmp/flat" all answers
    done
}

# rounds. Three rounds of DPO or RLHF: pairs made by the Aligner from the policy's answers, or plain rounds (two answers of the
# policy, ranked by a reward model trained on the triples once).
prepare_rounds() { prepare_mini; }
plan_first_rounds() { each upstream; each aligner; }
plan_second_rounds() { each reward; }
plan_rounds() { for m in dpo rlhf; do for f in aligner plain; do each "$m $f"; done; done; }
job_rounds() {
    method=$1 feed=$2 s=$3 policy=$own/upstream-$3.gguf
    answers "$policy" "$tmp/before.jsonl"
    paired "$tmp/before.jsonl" "$tmp/before.jsonl" answer > "$tmp/out.jsonl"
    judged "$tmp/out.jsonl" "$tmp/flat"
    verdict "$method, $feed/0" "$s" "$tmp/flat" all answers
    for round in 1 2 3; do
        every "$(steps 4 200)" "$round" "$mini/train.jsonl" > "$tmp/some.jsonl"
        questions "$tmp/some.jsonl" > "$tmp/q.jsonl"
        aligner answer "$policy" "$tmp/q.jsonl" --temperature 0.7 --seed $(( s * 10 + round )) > "$tmp/a.jsonl"
        reward=$own/reward-$s.gguf
        if [ "$feed" = aligner ]; then
            aligner correct "$own/aligner-$s.gguf" "$tmp/a.jsonl" > "$tmp/labels.jsonl"
            differing "$tmp/labels.jsonl"
            if [ "$method" = rlhf ]; then
                reward=$tmp/reward$round.gguf
                train_to "$reward" reward --init "$policy" --data "$tmp/labels.jsonl" $pairs --lr 1e-3 \
                    --steps "$(steps 200 4)" --seed "$s"
            fi
        elif [ "$method" = dpo ]; then
            aligner answer "$policy" "$tmp/q.jsonl" --temperature 0.7 --seed $(( s * 10 + round + 5 )) > "$tmp/b.jsonl"
            aligner score "$reward" "$tmp/a.jsonl" > "$tmp/a.scored"
            aligner score "$reward" "$tmp/b.jsonl" > "$tmp/b.scored"
            awk "$ROWS"'FNR == NR { y[FNR] = value($0, "answer"); r[FNR] = number($0, "reward"); next }
                { a = value($0, "answer"); b = y[FNR]; if (number($0, "reward") > r[FNR]) { t = a; a = b; b = t }
                  print "{\"question\": " value($0, "question") ", \"answer\": " a ", \"correction\": " b "}" }' \
                "$tmp/b.scored" "$tmp/a.scored" > "$tmp/labels.jsonl"
            differing "$tmp/labels.jsonl"
        else cp "$tmp/some.jsonl" "$tmp/labels.jsonl"; fi
        improve "$method" "$tmp/policy$round.gguf" "$policy" "$tmp/labels.jsonl" 1e-4 0 "$(steps 100 2)" "$(steps 60 2)" "$s"
        policy=$tmp/policy$round.gguf
        answers "$policy" "$tmp/after.jsonl"
        paired "$tmp/before.jsonl" "$tmp/after.jsonl" answer > "$tmp/out.jsonl"
        judged "$tmp/out.jsonl" "$tmp/flat"
        verdict "$method, $feed/$round" "$s" "$tmp/flat" all answers
    done
}

# domain. The trained Aligner, fine-tuned on a domain's own triples, alone or mixed with the world's; before and after on a tenth
# that it did not see (another tenth for each seed), and on the world, which it may forget.
prepare_domain() {
    prepare_big
    mkdir -p "$work/domain"
    grep -q '[^[:space:]]' "$domain" || die "$domain: no rows"
    awk "$ROWS"'member($0, "question") == "" || member($0, "answer") == "" || member($0, "correction") == "" { exit 1 }' "$domain" ||
        die "$domain: every line must be an object with \"question\": \"...\", \"answer\": \"...\", \"correction\": \"...\""
    domain_id=$(cksum < "$domain" | tr ' ' _)
    cp "$domain" "$work/domain/$domain_id.jsonl"
}
plan_domain() { each "$domain_id"; }
job_domain() {
    # Rows that ask the same go the same way, or the held-out tenth would be known.
    awk -v seed="$2" -v held="$tmp/held.jsonl" -v rest="$tmp/rows.jsonl" "$ROWS"'{
            x = value($0, "question")
            if (!(x in at)) at[x] = n++
            print > (at[x] * 7919 % 10007 % 10 == seed % 10 ? held : rest)
        }' "$work/domain/$1.jsonl"
    [ -s "$tmp/held.jsonl" ] || die "too few questions: a tenth of them is held out"
    n=$(( $(wc -l < "$data/train.jsonl") / $(wc -l < "$tmp/rows.jsonl") ))
    every $(( n > 1 ? n : 1 )) "$2" "$data/train.jsonl" | cat "$tmp/rows.jsonl" - > "$tmp/mixed.jsonl"
    for rows in rows mixed; do                          # as many of the world's rows as the domain has: what it costs to forget
        train_to "$tmp/$rows.gguf" aligner --init "$big" --data "$tmp/$rows.jsonl" $run --lr 1e-3 --steps "$(steps 150 5)" --seed "$2"
    done
    rows_for big "$2" 400 > "$tmp/world.jsonl"
    for k in before after "after, mixed with the world's rows"; do
        case $k in before) mu=$big ;; after) mu=$tmp/rows.gguf ;; *) mu=$tmp/mixed.gguf ;; esac
        aligner eval "$mu" --data "$tmp/held.jsonl" --json > "$tmp/json"
        flat "$tmp/json" > "$tmp/flat"
        put "$k" "$2" loss "$(val "$tmp/flat" loss)"
        put "$k" "$2" "exact copy" "$(percent "$tmp/flat" copy.exact copy.rows)"
        put "$k" "$2" corrected "$(percent "$tmp/flat" correct.exact correct.rows)"
        put "$k" "$2" missed "$(percent "$tmp/flat" correct.missed correct.rows)"
        aligner correct "$mu" "$tmp/world.jsonl" > "$tmp/out.jsonl"
        judged "$tmp/out.jsonl" "$tmp/flat"
        put "$k" "$2" "the world, net win" "$(val "$tmp/flat" all.all.net_win)"
    done
}

# ---------------------------------------------------------------- 5. the driver ------------------------------------

ALL="resources bound twice copyprior steering upstreams warmup correction baselines weak-to-strong rounds scale"

part_of() { echo "$parts/$1/$(echo "$2" | tr ' /,' '___').tsv"; }        # part_of EXPERIMENT "ARGUMENTS"

# job EXPERIMENT ARGUMENTS...: one job, in a process of its own. "make KIND ARGUMENTS..." makes a model that several jobs share.
job() {
    name=$1
    shift
    part=$(part_of "$name" "$*")
    [ "$name" != make ] && [ -f "$part" ] && return
    export tmp="${part%.tsv}.tmp"
    mkdir -p "$tmp"
    if [ "$name" != make ]; then echo "   $name $*" >&2; fi
    if ! "$0" now "$name" "$@" > "$part.part" 2> "$tmp/stderr"; then cat "$tmp/stderr" >&2; exit 255; fi
    mv "$part.part" "$part"
    rm -rf "$tmp"
}
job_make() { kind=$1; shift; "make_$kind" "$@"; }

side_by_side() { xargs -L 1 -P "${JOBS:-2}" tests/experiments.sh job; }

defined() { command -v "$1" > /dev/null 2>&1; }

experiment() {
    name=$1 id=$(echo "$1" | tr - _) began=$(date +%s)
    say "$name"
    mkdir -p "$own" "$parts/$name" "$results"
    "prepare_$id"
    for first in "plan_first_$id" "plan_second_$id"; do
        if defined "$first"; then "$first" | sed 's/^/make /' | side_by_side; fi
    done
    "plan_$id" > "$parts/$name/plan"
    sed "s/^/$name /" "$parts/$name/plan" | side_by_side
    echo $(( $(date +%s) - began )) >> "$parts/$name/seconds"
    file=$results/$name.tsv
    if [ "$name" = domain ] && [ "$domain" != tests/domain_example.jsonl ]; then
        mkdir -p "$work/results"
        file=$work/results/domain.tsv
    fi
    {
        printf 'point\tseed\tmetric\tvalue\n'
        while read -r line; do cat "$(part_of "$name" "$line")"; done < "$parts/$name/plan"
        awk '{ n += $1 } END { printf "-\t-\tseconds\t%d\n", n }' "$parts/$name/seconds"
    } > "$file.part"
    mv "$file.part" "$file"
    tests/results.sh "$file"
    cat "${file%.tsv}.md"
}

case "${1-}" in
    job) shift; job "$@" ;;
    now) shift; id=$(echo "$1" | tr - _); shift; "job_$id" "$@" ;;
    "") echo "usage: tests/experiments.sh [quick] NAME|all|domain F.jsonl; NAME is one of: $ALL" >&2; exit 2 ;;
    *)
        make --no-print-directory -s build/aligner build/world
        names=$1 domain=${2:-tests/domain_example.jsonl}
        [ "$1" != all ] || names="$ALL domain"
        for name in $names; do
            case " $ALL domain " in *" $name "*) ;; *) die "there is no experiment $name; one of: $ALL domain all" ;; esac
        done
        for name in $names; do experiment "$name"; done ;;
esac
