#!/bin/sh
# exercises.sh - computes the answers to the exercises of docs/aligner.md. Ends with "exercises: N
# passed, N failed". Exercise 5 trains for half a minute, with the data and the warm-up of ./train.sh;
# it runs only if EXERCISE5 is set.
cd "$(dirname "$0")/.." || exit 1
B=${B:-build}
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
passed=0 failed=0

answer() {                              # answer SECTION EXPECTED FOUND WORDS
    if [ "$2" = "$3" ]; then passed=$((passed + 1))
    else failed=$((failed + 1)); echo "exercise $1: $3 instead of $2"; fi
    echo "$1. $3: $4"
}
calc() { awk "BEGIN { printf \"%.4f\", $1 }"; }
tokens() { "$B/aligner" tokens tokenizer.bin --prompt short --question "Is ice cold?" "$@"; }

# 1. No: the Aligner's prompt continues after the (empty) answer.
question=$(tokens | grep -c condition)
empty=$(tokens --answer "" | grep -c condition)
answer 1 longer "$([ "$empty" -gt "$question" ] && echo longer)" \
    "the condition of an empty answer has $empty tokens and sft's $question: ##Correction: follows"

# 2. Jensen: - sum_k pi_k log mu_k. The answers in the data would have to be drawn from this very
# upstream model.
answer 2 0.0945 "$(calc '-0.8 * log(0.90) - 0.2 * log(0.95)')" \
    "only if y_o is drawn from pi itself, not from other models"

# 3. log V plus about half the variance of the logits: the mean of e^z is e^(1/2) if z is normal with
# variance 1.
"$B/aligner" train sft --tokenizer tokenizer.bin --prompt short --tied --dim 96 --layers 2 --heads 3 --quiet \
    --data tests/domain_example.jsonl --steps 1 --out "$tmp/one.gguf" --log "$tmp/one.csv"
V=$("$B/aligner" info "$tmp/one.gguf" | sed -n 's/.*vocabulary \([0-9]*\).*/\1/p')
loss=$(sed -n 2p "$tmp/one.csv" | cut -d, -f2)
answer 3 above \
    "$(awk "BEGIN { x = $loss - log($V); print (x > 0.1 && x < 2 ? \"above\" : \"elsewhere\") }")" \
    "the first loss is $loss, log $V is $(calc "log($V)")"

# 4. One logit row for each target token; if n tokens are read, n (n + 1) / 2 scores.
row=$(tokens --answer "No." --correction "Yes.")
targets=$(echo "$row" | grep -c target)
read=$(($(echo "$row" | wc -l) - 1))
answer 4 "$("$B/aligner" tokens tokenizer.bin --text "Yes." | wc -l)" "$targets" \
    "logits (</s> counts, <s> does not); $((read * (read + 1) / 2)) scores"

# 5. The model of the warm-up already knows how to copy.
if [ -n "${EXERCISE5-}" ] && [ -f build/models/warmup.gguf ]; then
    common="--data build/data/train.jsonl --tokens 1024 --steps 300 --lr 6e-3 --muon 0.5 --adam-eps 1e-4"
    # shellcheck disable=SC2086
    "$B/aligner" train aligner --tokenizer tokenizer.bin --prompt short --tied --dim 96 --layers 5 \
        --heads 3 --hidden 144 $common --out "$tmp/without.gguf" 2> "$tmp/without"
    # shellcheck disable=SC2086
    "$B/aligner" train aligner --init build/models/warmup.gguf $common --out "$tmp/with.gguf" 2> "$tmp/with"
    without=$(sed -n 's/.*running loss \([0-9.]*\).*/\1/p' "$tmp/without")
    with=$(sed -n 's/.*running loss \([0-9.]*\).*/\1/p' "$tmp/with")
    answer 5 lower "$(awk "BEGIN { print ($with < $without ? \"lower\" : \"higher\") }")" \
        "$with with it, $without without"
else
    echo "skipped exercise 5, half a minute: after ./train.sh, EXERCISE5=1 tests/exercises.sh runs it"
fi

# 6. With a constant gradient g, m_hat = g and v_hat = g^2: each step is lr g / (|g| + eps).
answer 6 "0.0909 0.0001" \
    "$(calc '100 * 1e-3 * 1e-7 / (1e-7 + 1e-8)') $(calc '100 * 1e-3 * 1e-7 / (1e-7 + 1e-4)')" \
    "1e-4 leaves the embedding where it was, and the token copyable"

# 7. Four passes yield 16 + 1, 32 + 1, 64 + 1 and 64 + 1 tokens, </s> included.
answer 7 179 \
    "$(awk 'BEGIN { n = -1; for (b = 16; i < 4; i++) { n += b + 1; b = b < 64 ? 2 * b : 64 } print n }')" \
    "tokens in four passes; four passes for the table: New, Delhi, . and the end"

# 8. Odds of 0.25 in training and 9 in use.
answer 8 3.5835 "$(calc 'log(9 / 0.25)')" "nats of --keep"

echo "9. omega 0, copies 100 %, missed corrections 100 %: copies alone would look perfect"

echo "exercises: $passed passed, $failed failed"
[ $failed = 0 ]
